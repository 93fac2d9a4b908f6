"""An autoencoder against a VAE on digits, and the pictures and counts of Figures 4 and 5, in seconds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aevb.data.dataset import Split
from aevb.models.vae import VAE
from aevb.reproduce import autoencoder as experiment
from aevb.reproduce.autoencoder import CLAIMS, Judge, Line, Models, draw, findings, of_model, references
from aevb.reproduce.curves import Curve, dataset, follow, trained
from aevb.reproduce.manifolds import digits, nearest, on_plane, side_by_side

SMALL: dict[str, Any] = {"encoder__hidden": [64], "decoder__hidden": [64], "training__optimizer__lr": 0.1}
RECIPES = {"autoencoder": "autoencoder", "VAE": "aevb"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    place, found = tmp_path_factory.mktemp("curves"), {}
    for name, recipe in RECIPES.items():
        curve = Curve(name, recipe, "digits", experiment.reconstruction, {**SMALL, "latent": 2}, steps=(), marks=())
        follow(curve, place, 100_000)
        model = trained(curve, place).best_known
        assert isinstance(model, VAE)
        found[name, 2] = model
    return found


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.of(dataset("digits", "grey"), components=3)


@pytest.fixture(scope="module")
def table(models: Models, judge: Judge) -> list[Line]:
    return [*(line for key, model in models.items() for line in of_model(*key, model, judge)), *references(judge)]


def better_by(table: list[Line], measure: str) -> float:
    """By how many standard errors the VAE's number, at z ~ N(0, I), is below the autoencoder's."""
    point, vae = (next(line for line in table if line["model"] == name) for name in RECIPES)
    return (point[measure] - vae[measure]) / math.hypot(point[f"{measure}_se"], vae[f"{measure}_se"])


def test_codes_of_a_vae_are_nearer_to_the_prior_than_those_of_an_autoencoder(table: list[Line]) -> None:
    assert better_by(table, "gap") > 5
    assert better_by(table, "codes_mmd") > 5
    assert next(line for line in table if line["model"] == "VAE")["gap"] < 0.3


def test_samples_of_a_vae_are_nearer_to_data_than_those_of_an_autoencoder(table: list[Line]) -> None:
    assert better_by(table, "mmd") > 5


def test_an_autoencoder_reconstructs_better(table: list[Line]) -> None:
    assert better_by(table, "reconstruction") > 2


def test_train_images_pass_for_test_images_and_no_model_does(table: list[Line]) -> None:
    real = next(line for line in table if line["model"] == "train images")
    assert abs(real["mmd"]) < 3 * real["mmd_se"]
    assert all(real["recall"] > line["recall"] for line in table if "recall" in line and line is not real)


def test_the_ends_of_a_cross_fade_are_test_images_and_its_steps_are_equal(table: list[Line]) -> None:
    fade = next(line for line in table if line["model"] == "cross-fade of pixels")
    assert abs(fade["path_ends"]) < 4 * fade["path_ends_se"]
    assert fade["path_jump"] == pytest.approx(1)


def test_every_number_has_an_error_and_every_claim_its_numbers(table: list[Line]) -> None:
    for line in table:
        measures = {k for k in line if not k.endswith("_se")} - {"model", "latents", "codes"}
        assert all(f"{m}_se" in line and math.isfinite(line[m]) for m in measures)
    said = findings(table)
    assert len(said) == 1 + len(CLAIMS) + 2
    structured = next(line for line in said if line.startswith("2 latents, structured"))
    assert "holds, the VAE better in 2 of 2 measures, worse in 0." in structured


def test_a_claim_holds_only_beyond_two_standard_errors() -> None:
    one, two = {"a": 1.0, "a_se": 0.1, "b": 1.0, "b_se": 0.0}, {"a": 1.2, "a_se": 0.1, "b": 0.5, "b_se": 0.0}
    assert experiment._claimed(one, two, {"a": 1}).startswith(
        "does not hold, the VAE better in 0 of 1 measures, worse in 0."
    )
    assert experiment._claimed(one, two, {"a": 1, "b": -1}).startswith("holds in part, the VAE better in 1 of 2")
    assert experiment._claimed(one, two, {"b": 1}).startswith(
        "does not hold, the VAE better in 0 of 1 measures, worse in 1."
    )


def test_the_pictures_are_drawn(models: Models, judge: Judge, tmp_path: Path) -> None:
    draw(models, judge, tmp_path)
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["codes.png", "paths.png", "samples.png"]
    assert all(min(Image.open(p).size) > 150 for p in tmp_path.glob("*.png"))


def test_nothing_is_presented_of_what_is_not_trained(tmp_path: Path) -> None:
    assert experiment.present(tmp_path, tmp_path) == []


# Figures 4 and 5


def test_the_plane_is_the_prior_in_equal_parts(models: Models) -> None:
    model = models["VAE", 2]
    z = torch.distributions.Normal(0, 1).icdf(torch.tensor([0.25, 0.75]))
    corners = torch.tensor([[a, b] for a in z for b in z])
    with torch.no_grad():
        torch.testing.assert_close(on_plane(model, 2), model.decode(corners).mean)


def test_clear_digits_are_counted() -> None:
    """Ten copies of three points with labels 0, 1, 1 and one class, 2, that is never near."""
    points = torch.tensor([0.0, 10.0, 20.0, 90.0]).repeat_interleave(10).unsqueeze(1)
    labels = torch.tensor([0, 1, 1, 2]).repeat_interleave(10)
    labels[:2] = 1  # the first point is not clear
    row = digits(torch.tensor([[0.0], [10.0], [20.0], [20.0]]), Split(points, labels))
    assert (row["clear"], row["classes"], row["missing"]) == (0.75, 1, "0, 2")
    assert row["clear_se"] == pytest.approx(math.sqrt(0.75 * 0.25 / 4), abs=1e-4)


def test_the_nearest_row_is_found() -> None:
    found = nearest(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 0.0], [9.0, 9.0]]))
    torch.testing.assert_close(found, torch.tensor([0.0, 5 / math.sqrt(2)], dtype=torch.float64))


def test_panels_stand_side_by_side() -> None:
    figure = side_by_side({"2 latents": torch.zeros(4, 1, 28, 28), "5 latents": torch.ones(4, 1, 28, 28)})
    shown = figure.axes[0].images[0].get_array()
    assert shown[:, 0].max() == 0
    assert shown[:, -1].min() == 1
    assert [t.get_text() for t in figure.texts][-2:] == ["2 latents", "5 latents"]
