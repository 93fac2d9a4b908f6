"""The public figures: of a model and data of any form, tied to no backend, in the data's own units."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import aevb
from aevb.data.dataset import Dataset, Split, Values
from aevb.data.sources import load_data
from aevb.errors import DataError
from aevb.figures.style import MISSING, _blue_to_red, save
from aevb.figures.tables import Table


def model(size: int = 64, latents: int = 2, conditions: int = 0) -> aevb.VAE:
    torch.manual_seed(0)
    q, p = aevb.Normal(latents), aevb.ContinuousBernoulli((1, 8, 8)) if size == 64 else aevb.Normal(size)
    encoder = aevb.Conditional(aevb.MLP(size + conditions, q.size, [8]), q)
    return aevb.VAE(aevb.StandardNormal(latents), encoder, aevb.Conditional(aevb.MLP(2 + conditions, p.size, [8]), p))


X = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
DRAWN: dict[str, Callable[[Any, Any], Figure]] = {
    "manifold": lambda m, x: aevb.figures.manifold(m, x, n=4),
    "latent": aevb.figures.latent,
    "reconstructions": aevb.figures.reconstructions,
    "samples": lambda m, x: aevb.figures.samples(m, 9),
    "interpolations": aevb.figures.interpolations,
    "traversals": aevb.figures.traversals,
}


def pixels(figure: Figure) -> list[np.ndarray[Any, Any]]:
    """What a figure shows: its images, and the places of its points."""
    shown = [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]
    return shown + [np.asarray(c.get_offsets()) for axes in figure.axes for c in axes.collections]


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_figures_of_arrays_and_loaders_are_those_of_tensors(draw: Callable[[Any, Any], Figure]) -> None:
    m = model()
    expected = pixels(draw(m, X))
    assert expected
    for data in (X.double().numpy(), DataLoader(TensorDataset(X))):
        for a, b in zip(pixels(draw(m, data)), expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_data_set_shows_its_test_split_and_its_labels() -> None:
    splits = [Split(X[a:b], torch.arange(b - a) % 2, Values("raw")) for a, b in ((0, 4), (4, 8), (8, 40))]
    data = Dataset("own", *splits, class_names=("left", "right"))
    axes = aevb.figures.latent(model(), data).axes[0]
    assert [text.get_text() for text in axes.texts] == ["left", "right"]
    assert len(np.asarray(axes.collections[0].get_offsets())) == 32


def test_loss_takes_the_lines_of_a_training() -> None:
    lines = [{"samples": s, "train": {"elbo": -float(s), "reconstruction": -1.0, "kl": 1.0}} for s in (100, 200, 300)]
    line = aevb.figures.loss(lines).axes[0].lines[0]
    assert np.asarray(line.get_xydata()).tolist() == [[100, -100], [200, -200], [300, -300]]


def test_samples_of_a_conditional_model_take_its_conditions() -> None:
    m, y = model(conditions=3), torch.eye(3)
    assert pixels(aevb.figures.samples(m, 3, y))[0].shape[0] > 8
    with pytest.raises(aevb.ShapeError, match="Is the model conditional"):
        aevb.figures.samples(m, 3)
    shown = [pixels(aevb.figures.manifold(m, aevb.Pairs(X[:3], y.roll(k, 0)), n=3))[0] for k in (0, 1)]
    assert not np.array_equal(*shown)  # the plane is of the first row's y


def test_one_data_point_has_no_line() -> None:
    with pytest.raises(DataError, match="at least two data points"):
        aevb.figures.interpolations(model(), X[:1])


def test_figures_import_matplotlib_late_and_leave_the_backend_alone() -> None:
    code = """
import sys, aevb
aevb.figures
assert "matplotlib" not in sys.modules and "torch" not in sys.modules
import matplotlib
matplotlib.use("svg")
aevb.figures.loss([])
assert matplotlib.get_backend() == "svg" and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def people() -> Split:
    g = torch.randn(60, 3, generator=torch.Generator().manual_seed(1)).double()
    stored = torch.tensor([40.0, 4000.0, 170.0]) + torch.tensor([10.0, 600.0, 8.0]) * g
    return Split(stored, None, Values("standardized").fitted(stored))


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_columns_of_a_table_are_named_with_their_ranges_in_the_units_of_the_data() -> None:
    split, m = people(), model(3)
    mean, std = split.stored.mean(0), split.stored.std(0, correction=0)
    low, high = (f"{float(mean[1] + s * 2.5 * std[1]):,.0f}" for s in (-1, 1))
    for figure in (aevb.figures.reconstructions(m, split), aevb.figures.samples(m, 5, data=split)):
        assert f"column 1, {low} to {high}" in words(figure)
    assert f"column 1, {low} to {high}" in " ".join(words(aevb.figures.traversals(m, split)))


def test_columns_of_numbers_that_are_not_standardised_are_on_the_scale_of_the_rows() -> None:
    x = torch.tensor([[0.0, 10.0], [2.0, 30.0]])
    raw = Table.of_units(x, Values("raw"))
    assert raw is not None
    assert raw.ranges() == ["−1.5 to 3.5", "−5 to 45"]
    assert Table.of_units(torch.zeros(2, 1, 3, 3), Values("raw")) is None


def test_a_colour_is_the_same_number_in_every_figure_of_a_table() -> None:
    table = Table.of_data(people())
    assert table is not None
    x = torch.tensor([[0.0, 2.5, -2.5], [1.25, 9.0, 0.0]])  # standardised numbers
    expected = x / 2.5
    torch.testing.assert_close(table.colours(x), expected, atol=1e-5, rtol=1e-5)
    raw = Table.of(100 + 7 * people()[:])
    torch.testing.assert_close(raw.colours(100 + 7 * x), expected, atol=1e-4, rtol=1e-4)


def test_the_loss_of_a_table_is_in_nats_of_its_own_units() -> None:
    lines, split = [{"samples": 100, "train": {"elbo": -3.0, "reconstruction": -2.0, "kl": 1.0}}], people()
    elbo, reconstruction, kl = (np.asarray(a.lines[0].get_ydata()) for a in aevb.figures.loss(lines, data=split).axes)
    constant = float(split.stored.std(0, correction=0).log().sum())
    np.testing.assert_allclose([elbo[0], reconstruction[0], kl[0]], [-3 - constant, -2 - constant, 1.0])


@pytest.mark.parametrize("last", [800, 3000, 40_000, 500_000])
def test_tick_labels_of_short_and_long_trainings_do_not_overlap(last: int) -> None:
    lines = [
        {"samples": s, "train": {"elbo": -90.0 - s, "reconstruction": -80.0, "kl": 5.0}}
        for s in (last // 40, last // 10, last // 3, last)
    ]
    figure = aevb.figures.loss(lines)
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axes in figure.axes:
        ticks = [*axes.xaxis.get_ticklabels(), *axes.xaxis.get_ticklabels(minor=True)]
        low, high = axes.get_xlim()
        shown = [t for t in ticks if t.get_text() and low <= t.get_position()[0] <= high]
        boxes = sorted(t.get_window_extent(renderer).extents[[0, 2]].tolist() for t in shown)
        assert boxes
        assert all(a[1] + 3 < b[0] for a, b in itertools.pairwise(boxes)), [t.get_text() for t in shown]


def test_a_table_with_holes_is_drawn_in_its_own_units_and_its_holes_are_grey(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    text = ["amount,colour,day"]
    for i in range(120):
        amount = "" if i % 7 == 0 else f"{1000 + 50 * rng.normal():.1f}"
        text.append(f"{amount},{('red', 'blue', 'green')[i % 3]},2024-01-{i % 28 + 1:02d}")
    (tmp_path / "t.csv").write_text("\n".join(text))
    data = load_data(tmp_path / "t.csv")
    table = Table.of_data(data)
    assert table is not None
    assert table.names == ("amount", "colour", "day")
    low, high = (float(end.replace(",", "")) for end in table.ranges()[0].split(" to "))
    assert 800 < low < 950 < 1050 < high < 1200
    assert table.ranges()[1] == "blue to red"
    assert table.ranges()[2].startswith("2023-")
    colours = table.colours(data.train[:])
    seen = _blue_to_red(colours)
    holes = data.train[:].isnan()
    assert holes.any()
    assert bool(((seen.squeeze(-1) == MISSING).all(1) == holes).all())


def test_a_notebook_shows_a_figure_as_its_file_has_it(tmp_path: Path) -> None:
    figure = aevb.figures.reconstructions(model(), X, n=4)
    shown = figure._repr_png_()  # type: ignore[attr-defined]
    save(figure, tmp_path / "f")
    (tmp_path / "shown.png").write_bytes(shown)
    file, cell = (np.asarray(Image.open(tmp_path / name).convert("RGB")) for name in ("f.png", "shown.png"))
    assert np.array_equal(file, cell)
    assert file.std() > 10
