"""Images in colour, from a folder of PNG files to pictures: every channel counts, and none changes its place."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from aevb.apps.cli import app
from aevb.data.sources import load_data
from aevb.evaluation.evaluate import evaluate
from aevb.evidence.importance import log_marginal
from aevb.figures import plots
from aevb.figures.style import as_tiles
from aevb.runs.build import build_model
from aevb.runs.fit import fit
from aevb.runs.recipe import Recipe
from aevb.runs.store import Run

SHAPES = {"square": (8, 8), "wide": (8, 12)}
RECIPES = ("conv", "residual", "logistic-mixture")
FIGURES = ("reconstructions", "samples", "interpolations", "traversals", "manifold")
SMALL = {
    "conv": ["latent=4", "encoder.channels=[8]", "decoder.channels=[8]"],
    "residual": ["latent=4", "encoder.channels=[8]", "decoder.channels=[8]"],
    "logistic-mixture": ["latent=4", "encoder.channels=[8]", "decoder.channels=[8]", "likelihood.components=2"],
}


def paint(folder: Path, height: int, width: int, n: int = 60) -> Path:
    """Pictures whose left half is red and whose right half is blue, each more or less so; no green but noise."""
    random = np.random.RandomState(0)
    folder.mkdir(parents=True)
    for i in range(n):
        picture = random.randint(0, 20, (height, width, 3))
        red, blue = random.randint(120, 230, 2)
        picture[:, : width // 2, 0] += red
        picture[:, width // 2 :, 2] += blue
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{i:03}.png")
    return folder


@pytest.fixture(scope="module", params=SHAPES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint(tmp_path_factory.mktemp("data") / request.param, *SHAPES[request.param])


def test_a_folder_of_png_files_is_read_channels_first(folder: Path) -> None:
    data = load_data(folder)
    height, width = SHAPES[folder.name]
    assert tuple(data.shape) == (3, height, width)
    assert data.recipe == "conv"
    files = [np.asarray(Image.open(path)).transpose(2, 0, 1) for path in sorted(folder.glob("*.png"))]
    rows = torch.cat([data.train.stored, data.validation.stored, data.test.stored])
    assert {row.numpy().tobytes() for row in rows} == {np.ascontiguousarray(f).tobytes() for f in files}
    assert torch.equal(data.test[:1], data.test.stored[:1].float() / 255)


def has_its_colours(x: Tensor) -> None:
    """Red on the left, blue on the right, green nowhere."""
    half = x.shape[-1] // 2
    left, right = x[..., :half].mean((0, 2, 3)), x[..., half:].mean((0, 2, 3))
    assert left[0] > left[2] + 0.1
    assert right[2] > right[0] + 0.1
    assert max(left[1], right[1]) < 0.3


@pytest.mark.parametrize("name", RECIPES)
def test_colours_come_through_train_evaluate_reconstruct_sample(name: str, folder: Path, tmp_path: Path) -> None:
    data = load_data(folder)
    more = ["training.samples=3_000", "training.batch=20", "training.optimizer.lr=1e-2", "validation.every=3_000"]
    more += [f"data.source={folder}"]
    run = fit(Recipe.load(name).override([*SMALL[name], *more]), data, tmp_path / "run")
    model = run.model()
    found = evaluate(model, data.test, importance_samples=5)
    nats = float(log_marginal(model, data.test, 5).log_px.mean())
    assert found.bits_per_dim == pytest.approx(-nats / (3 * math.prod(SHAPES[folder.name]) * math.log(2)))
    assert found.bits_per_dim < 8  # of uniform levels
    for verb in ("reconstruct", "sample"):
        call(verb, run.path, "-n", 4, "--out", tmp_path / "x.npy")
        x = torch.from_numpy(np.load(tmp_path / "x.npy"))
        assert (x.shape, x.dtype) == ((4, *data.shape), torch.uint8)  # as the pictures came
        has_its_colours(x / 255)


def call(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None, result.exception


def test_a_uniform_likelihood_has_eight_bits_per_channel(folder: Path) -> None:
    """Equal logits for 256 levels of each of 3 H W numbers: exactly 8 bits per dimension, so all channels are
    counted."""
    data = load_data(folder)
    recipe = Recipe.load("conv").override([*SMALL["conv"], "likelihood=categorical"])
    model = build_model(recipe, data.shape, 256)
    with torch.no_grad():
        for p in model.decoder.parameters():
            p.zero_()
        for p in model.encoder.parameters():
            p.zero_()  # the posterior is the prior
    found = evaluate(model, data.test, importance_samples=3)
    assert found.bits_per_dim == pytest.approx(8, abs=1e-4)


def test_tiles_keep_the_order_of_channels() -> None:
    x = torch.rand(2, 3, 4, 6)
    tiles = as_tiles(x, (0.0, 1.0), 1, 2)
    scale = tiles.shape[2] // 4
    torch.testing.assert_close(tiles[:, :, ::scale, ::scale], x)
    picture = plots.image_grid(x, 2, gap=0)
    np.testing.assert_allclose(picture[:, :6], x[0].permute(1, 2, 0))


def test_figures_of_a_colour_run_show_its_colours(folder: Path, tmp_path: Path) -> None:
    data = load_data(folder)
    more = [
        "training.samples=3_000",
        "training.batch=20",
        "training.optimizer.lr=1e-2",
        f"data.source={folder}",
        "latent=2",
    ]
    run = fit(Recipe.load("conv").override([*SMALL["conv"], *more]), data, tmp_path / "run")
    only = [word for name in FIGURES for word in ("--only", name)]
    call("plot", run.path, "--out", tmp_path / "figures", *only)
    for name in FIGURES:
        shown = np.asarray(Image.open(tmp_path / "figures" / f"{name}.png").convert("RGB")).astype(float)
        red = (shown[..., 0] > 100) & (shown[..., 1:].max(-1) < 60)
        blue = (shown[..., 2] > 100) & (shown[..., :2].max(-1) < 60)
        assert red.mean() > 0.1, name
        assert blue.mean() == pytest.approx(red.mean(), rel=0.3), name
    assert Run.open(run.path).meta["shape"] == [3, *SHAPES[folder.name]]
