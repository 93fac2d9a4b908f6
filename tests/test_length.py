"""How long a training lasts where the recipe leaves it to the data, and that wide layers bear its first steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import aevb
from aevb.data.arrays import array_dataset
from aevb.data.dataset import Dataset
from aevb.estimators import VAEEmbedding
from aevb.models.conditional import Conditional
from aevb.models.networks import MLP
from aevb.models.priors import StandardNormal
from aevb.models.vae import VAE
from aevb.objectives.bounds import ELBO
from aevb.runs.length import suited
from aevb.runs.recipe import Recipe
from aevb.training.learner import Learner, Training
from aevb.training.optimizers import SGD, Adagrad, Adam, parameter_groups, step_factor


def table(n: int) -> Dataset:
    return array_dataset(np.random.RandomState(0).normal(size=(n, 3)).astype(np.float32))


@pytest.mark.parametrize(
    ("n", "samples", "batch"),
    [(48, 7_200, 16), (320, 48_000, 32), (1_197, 179_550, 100), (3_333, 499_950, 100), (50_000, 500_000, 100)],
)
def test_few_data_are_seen_150_times_and_many_in_part(n: int, samples: int, batch: int) -> None:
    expected = {"training__batch": batch, "training__samples": samples}
    assert suited({}, {}, n, held=0) == expected  # nothing to watch
    watched = {"validation__patience": 10} | ({"validation__every": samples // 40} if n < 1000 else {})
    assert suited({}, {}, n, held=1) == expected | watched


def test_steps_of_a_larger_rate_are_fewer() -> None:
    """A pass through 100 rows has ten steps of 0.001, and two of 0.005."""
    for optimizer, batch in [(("adam", 1e-3), 16), (("adam", 5e-3), 50), (("adam", 1e-4), 16), (("adagrad", 0.1), 16)]:
        table = {"optimizer": dict(zip(("type", "lr"), optimizer, strict=True))}
        assert suited(table, {}, 100, 0) == {"training__batch": batch, "training__samples": 15_000}
    assert suited({"optimizer": {"type": "adam", "lr": 5e-3}}, {}, 990, 0)["training__batch"] == 100


@pytest.mark.parametrize(("n", "held"), [(60, 0), (180, 20)])
def test_the_command_line_and_the_estimators_train_as_long(n: int, held: int) -> None:
    """An estimator has smaller networks and larger steps for few rows, and a length by the same rule."""
    fitted = VAEEmbedding(random_state=0).fit(np.random.RandomState(0).normal(size=(n + held, 2))).recipe_
    ours = {
        f"{table}__{key}": value
        for table in ("training", "validation")
        for key, value in fitted.settings[table].items()
    }
    rule = suited({"optimizer": {"type": "adam", "lr": 5e-3}}, {}, n, held)
    assert {key: ours.get(key) for key in rule} == rule
    assert rule["training__samples"] == 150 * n


def test_few_rows_are_watched_for_a_quarter_of_the_training() -> None:
    for n in (120, 500, 999):
        found = suited({}, {}, n, held=n // 10)
        waited = found["validation__every"] * found["validation__patience"]
        assert waited == pytest.approx(found["training__samples"] / 4, rel=0.01)
    assert "validation__every" not in suited({}, {"every": 7}, 500, 50)


def test_what_is_given_stays() -> None:
    assert suited({"samples": 9, "batch": 3}, {}, 500, 50) == {}
    assert suited({"samples": 9}, {}, 500, 50) == {"training__batch": 50}
    assert "validation__patience" not in suited({}, {"patience": 0}, 500, 50)


def test_a_recipe_takes_its_length_from_the_data() -> None:
    data = table(400)
    recipe = Recipe.load("gaussian").of(data)
    assert (recipe.training().samples, recipe.training().batch) == (150 * 320, 32)
    assert recipe.validation().patience == 10
    given = Recipe.load("gaussian").replace(training__samples=500).of(data)
    assert (given.training().samples, given.validation().patience) == (500, 0)
    assert recipe.of(table(40)).settings == recipe.settings  # a run keeps what it had


def test_an_objective_without_a_bound_to_watch_has_no_patience() -> None:
    assert Recipe.load("gaussian").override(["objective=monte-carlo-em"]).of(table(400)).validation().patience == 0


@pytest.mark.parametrize("name", ["aevb", "aevb-frey", "wake-sleep", "mcem", "full-bayes", "autoencoder"])
def test_the_papers_recipes_keep_their_lengths(name: str) -> None:
    assert Recipe.load(name).of(table(400)).training().samples == 1_000_000


def test_a_fit_stops_by_patience(tmp_path: object) -> None:
    """The columns are noise: the best bound is that of the start, and the training does not last its 150 passes."""
    run = aevb.fit(Recipe.load("gaussian").replace(training__optimizer__lr=0.01), table(120), f"{tmp_path}/run")
    assert run.meta["stopped"] == "patience"
    assert run.meta["samples"] < 0.7 * 150 * 96
    assert run.recipe.training().samples == 150 * 96


# Wide layers


def step(inputs: int, optimizer: object) -> float:
    """By how much a step moves the outputs of a layer of so many inputs, at the data that it was made of."""
    torch.manual_seed(0)
    q, p = aevb.Normal(1), aevb.Normal(inputs, scale=1.0)
    model = VAE(StandardNormal(1), Conditional(MLP(inputs, 2, ()), q), Conditional(MLP(1, inputs, ()), p))
    x = torch.rand(8, inputs)
    layer = model.encoder.net
    before: Tensor = layer(x).detach()
    learner = Learner(model, ELBO(), Training(optimizer=optimizer, batch=8), 8)  # type: ignore[arg-type]
    learner.update(x)
    return float((layer(x).detach() - before).abs().max())


@pytest.mark.parametrize("optimizer", [Adam(1e-3), Adagrad(1e-3)], ids=repr)
def test_a_step_moves_the_outputs_of_a_wide_layer_no_further_than_those_of_a_narrow_one(optimizer: object) -> None:
    """Without the factor, 65,536 inputs would move them 16 times as far: log σ² by 30 at the first step."""
    narrow, wide = step(4096, optimizer), step(65_536, optimizer)
    assert 1 < narrow < 4
    assert wide == pytest.approx(narrow, rel=0.5)


def test_the_factor_of_a_layer() -> None:
    assert [step_factor(torch.zeros(3, n)) for n in (1, 784, 4096, 8192, 262_144)] == [1, 1, 1, 1 / 2, 1 / 64]
    assert step_factor(torch.zeros(8, 64, 3, 3)) == 1
    model = MLP(16_384, 2, (5,))
    groups = parameter_groups(model, 0.0)
    assert {(g["lr_factor"], len(g["params"])) for g in groups} == {(1.0, 3), (0.25, 1)}
    learner = Learner(model, lambda *_: None, Training(optimizer=SGD(0.2), learning_rate=lambda i: 0.5), 8)  # type: ignore[arg-type,return-value]
    assert sorted(g["lr"] for g in learner.optimizer.param_groups) == pytest.approx([0.05, 0.2])
