"""On an NVIDIA GPU: the same numbers as on the CPU within their errors, and bit for bit those of its own seed.

The tests are skipped on a machine without one. On one with a GPU:

    pytest tests/test_gpu.py
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tabular import mixed_table
from test_recipes import NAMES, suiting
from torch import Tensor

import aevb
from aevb.data import dataset
from aevb.data.batch import Batch
from aevb.data.sources import load_data
from aevb.errors import RecipeError
from aevb.runs.recipe import Recipe
from aevb.training.checkpoint import state_tensors
from aevb.use.cells import cells

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")
GPU = torch.device("cuda")
BUFFERS = {"concrete", "vq-vae", "iaf", "table", "sigma-vae", "ladder-conv", "flow-prior", "poisson"}
ADAM = aevb.Adam(1e-2)
UNRECORDED = {"mcem", "vimco", "hyperspherical", "low-rank", "negative-binomial", *BUFFERS}  # they say why
SETTINGS: Mapping[str, Any] = {"batch": 100, "samples": 6000}


def small(device: torch.device = GPU, seed: int = 0) -> tuple[aevb.VAE, Tensor]:
    g = torch.Generator().manual_seed(1)
    x = (torch.rand(1000, 64, generator=g) < 0.3).float()
    torch.manual_seed(seed)
    q, p = aevb.Normal(4), aevb.Bernoulli(64)
    encoder = aevb.Conditional(aevb.MLP(64, q.size, hidden=[64]), q)
    decoder = aevb.Conditional(aevb.MLP(4, p.size, hidden=[64]), p)
    return aevb.VAE(aevb.StandardNormal(4), encoder, decoder).to(device), x.to(device)


def losses(optimizer: Any = ADAM, **settings: Any) -> tuple[list[float], aevb.Learner]:
    model, x = small()
    learner = aevb.Learner(model, aevb.ELBO(), aevb.Training(optimizer, **SETTINGS, **settings), len(x))
    return [float(s.info["loss"]) for s in aevb.continue_training(learner, x)], learner


@pytest.mark.parametrize("optimizer", [ADAM, aevb.Adagrad(0.05)], ids=["adam", "adagrad"])
def test_a_recorded_training_is_the_ordinary_one(optimizer: Any) -> None:
    """A graph draws the noise of its step's seed, as an ordinary step does."""
    schedule = aevb.Linear(1.0, 0.1, 50)
    eager, theirs = losses(optimizer, learning_rate=schedule)
    recorded, ours = losses(optimizer, learning_rate=schedule, graph=True)
    assert recorded == pytest.approx(eager, rel=1e-3)
    assert len(set(recorded)) == 60
    found, like = state_tensors(ours), state_tensors(theirs)
    assert all(torch.allclose(found[n].double(), like[n].double(), rtol=2e-2, atol=2e-3) for n in like)


@pytest.mark.parametrize(
    "settings",
    [{"compile": True}, {"compile": True, "graph": True}, {"graph": True, "precision": "bf16"}, {"precision": "bf16"}],
    ids=["compiled", "compiled and recorded", "recorded bf16", "bf16"],
)
def test_other_ways_reach_the_same_bound(settings: dict[str, Any]) -> None:
    """Compiled noise is other noise, and bfloat16 rounds: bounds of the last steps agree within their error."""
    plain, other = (losses(**s)[0][-20:] for s in ({}, settings))
    gap = torch.tensor(plain) - torch.tensor(other)
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / math.sqrt(len(gap))
    assert other != plain


def test_noise_of_a_loop_by_hand_is_fresh_at_every_step() -> None:
    """Rows, noise and all of a step come from the caller; at a step size of 0 only the noise differs."""
    model, x = small()
    learner = aevb.Learner(model, aevb.ELBO(), aevb.Training(aevb.Adam(0.0), graph=True), len(x))
    found = [float(learner.update(x[:100])["loss"]) for _ in range(10)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("settings", [{}, {"graph": True}], ids=["plain", "recorded"])
def test_a_seed_gives_the_same_numbers_again(settings: dict[str, Any]) -> None:
    """Also where the caller draws between the steps; the caller's random numbers stay as they were."""
    model, x = small()
    torch.cuda.manual_seed(5)
    untouched = torch.rand(3, device=GPU)
    torch.cuda.manual_seed(5)
    walk = aevb.train(model, aevb.ELBO(), x, aevb.Training(aevb.Adam(1e-2), **SETTINGS, **settings))
    first = [float(next(walk).info["loss"]) for _ in range(10)]
    assert torch.equal(torch.rand(3, device=GPU), untouched)
    first += [float(s.info["loss"]) for s in walk]
    assert first == losses(**settings)[0]


def test_log_p_of_x_is_that_of_the_cpu() -> None:
    """Up to rounding: the noise of a row is a hash of its numbers, which both compute."""
    model, x = small()
    list(aevb.train(model, aevb.ELBO(), x, aevb.Training(aevb.Adam(1e-2), **SETTINGS)))
    there = aevb.log_marginal(model, x, 2000).log_px
    here = aevb.log_marginal(model.cpu(), x.cpu(), 2000).log_px
    assert torch.allclose(there.cpu(), here, rtol=1e-5)


def test_rows_that_do_not_fit_are_streamed_to_the_same_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = Recipe.load("digits").replace(training__samples=2000)
    placed = aevb.fit(recipe, "digits", tmp_path / "placed", device=GPU)
    monkeypatch.setattr(dataset, "free_memory", lambda device: 0.0)
    streamed = aevb.fit(recipe, "digits", tmp_path / "streamed", device=GPU)
    pairs = zip(placed.model().parameters(), streamed.model().parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_resumed_training_is_the_undisturbed_one(tmp_path: Path) -> None:
    recipe = Recipe.load("digits").replace(training__samples=3000)
    whole = aevb.fit(recipe, "digits", tmp_path / "whole", device=GPU)

    def stop(seen: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        aevb.fit(recipe, "digits", tmp_path / "cut", device=GPU, show=stop)
    resumed = aevb.resume(tmp_path / "cut", device=GPU)
    pairs = zip(whole.model().parameters(), resumed.model().parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains_on_a_gpu_and_is_the_same_model_on_a_cpu(name: str, tmp_path: Path) -> None:
    """Recorded where it can be, for which a sentence says why where it cannot."""
    recipe = Recipe.load(name)
    data = suiting(recipe)
    few = min(recipe.validation().importance_samples, 2)
    short = {"training__samples": 2000, "training__batch": 100, "validation__importance_samples": few}
    recipe = recipe.of(data).replace(**short)
    run = aevb.fit(recipe, data, tmp_path / "plain", device=GPU)
    x = data.test[:50]
    y = recipe.context().each(len(x)) if recipe.context().classes else None
    here, there = run.model(), run.model(GPU)
    with torch.no_grad():
        codes = here.encode(Batch(x, y))
        theirs = there.encode(Batch(x, y).to(GPU)).cpu()
        agree = (codes - theirs).abs() < 1e-3 * (1 + codes.abs())
        assert float(agree.double().mean()) > 0.99  # a code's number may round to its neighbour
        means = there.decode(codes.to(GPU), None if y is None else y.to(GPU)).mean.cpu()
        assert torch.allclose(here.decode(codes, y).mean, means, rtol=1e-2, atol=1e-3)
    said = ""
    try:
        aevb.fit(recipe.replace(training__graph=True), data, tmp_path / "recorded", device=GPU)
    except RecipeError as error:
        said = str(error)
    assert "cannot record this step" not in said, said
    assert bool(said) == (name in UNRECORDED), said


def test_cells_and_imputations_of_a_table_are_those_of_the_cpu(tmp_path: Path) -> None:
    data = mixed_table()
    recipe = Recipe.load("table").of(data).replace(training__samples=2000)
    run = aevb.fit(recipe, data, tmp_path / "table", device=GPU)
    here, there = run.model(), run.model(GPU)
    z = torch.randn(20, *here.latent_shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = (cells(m, z, run.values().columns) for m in (here, there))
    assert torch.allclose(ours.low, theirs.low, rtol=1e-3, atol=1e-3, equal_nan=True)
    filled = [aevb.impute(m, data.test, 50).values for m in (here, there)]
    assert torch.allclose(filled[0], filled[1], rtol=1e-2, atol=1e-2, equal_nan=True)


def test_the_command_line_takes_the_gpu(tmp_path: Path) -> None:
    env = {**os.environ, "AEVB_RUNS": str(tmp_path)}

    def aevb_(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "aevb", *words], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run = tmp_path / "run"
    aevb_("train", "digits", "--samples", "2000", "--out", str(run))
    assert json.loads((run / "meta.json").read_text())["device"].startswith("cuda")
    found = [json.loads(aevb_("evaluate", str(run), "--json", "--device", d)) for d in ("cuda", "cpu")]
    assert found[0]["log_likelihood"] == pytest.approx(found[1]["log_likelihood"], rel=1e-4)


def test_processes_exchange_messages_by_nccl(tmp_path: Path) -> None:
    """One process for each GPU that there is; of one GPU, one."""
    words = ["-m", "torch.distributed.run", "--nproc-per-node", str(torch.cuda.device_count()), "-m", "aevb", "train"]
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, *words, "digits", "--samples", "2000", "--device", "cuda", "--out", str(run)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    plain = aevb.fit(Recipe.load("digits").replace(training__samples=2000), "digits", tmp_path / "plain", device=GPU)
    x = load_data("digits").test
    bounds = [aevb.elbo(r.model(), x, samples=20).elbo.double() for r in (plain, aevb.Run.open(run))]
    assert abs(float((bounds[0] - bounds[1]).mean())) < float(bounds[0].std()) / math.sqrt(len(x))
