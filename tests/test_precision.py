"""Training with products in bfloat16: scoped to the steps, refused without sense, the same bound."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import aevb
from aevb.apps.cli import app
from aevb.data.sources import load_data
from aevb.errors import RecipeError
from aevb.runs.recipe import Recipe
from aevb.training import precision
from aevb.training.precision import products

CPU = torch.device("cpu")
RECIPE = Recipe.load("digits").replace(training__samples=4000, evaluation__importance_samples=5)


@pytest.fixture
def brain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with products of bfloat16; others compute the same numbers, slowly."""
    monkeypatch.setattr(precision, "has_brain", lambda device: True)


def test_the_bound_is_the_same_within_its_error(brain: None, tmp_path: Path) -> None:
    data = load_data("digits")
    runs = [
        aevb.fit(RECIPE.replace(training__precision=name), data, tmp_path / name, device="cpu")
        for name in ("float32", "bf16")
    ]
    full, half = (aevb.elbo(run.model(), data.test, samples=5).elbo for run in runs)
    gap = float((full - half).mean())
    assert abs(gap) < float(full.std() / len(full) ** 0.5)
    assert gap != 0
    test = data.test[:100]
    exact = aevb.log_marginal(runs[0].model(), test, 200).log_px
    with torch.autocast("cpu", torch.bfloat16):
        rounded = aevb.log_marginal(runs[0].model(), test, 200).log_px
    assert 0 < float((rounded - exact).abs().mean()) < float(exact.std() / len(exact) ** 0.5)
    assert all(w.dtype == torch.float32 for w in runs[1].model().state_dict().values())
    assert 'precision = "bf16"' in (tmp_path / "bf16" / "recipe.toml").read_text()


def test_factors_and_products_are_rounded_and_sums_are_not() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(30, 700), torch.randn(700, 40)
    with products("bf16", CPU):
        half = a @ b
    assert half.dtype == torch.bfloat16
    exact = a.bfloat16().double() @ b.bfloat16().double()
    rounding = torch.finfo(torch.bfloat16).eps / 2
    assert ((half.double() - exact).abs() <= rounding * 1.01 * exact.abs() + 1e-4).all()
    assert (a @ b).dtype == torch.float32


@pytest.mark.parametrize(("machine", "offered"), [("x86_64", False), ("aarch64", True)])
def test_a_processor_that_emulates_bfloat16_has_none(
    machine: str, offered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With AVX-512 alone oneDNN offers it, three times as slow as float32."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(precision.platform, "machine", lambda: machine)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert precision.has_brain(CPU) == offered
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert precision.has_brain(CPU)


def test_means_of_what_is_logged_are_sums_in_float32() -> None:
    state, number = aevb.TrainingState(), torch.tensor(math.log(2)).bfloat16()
    for _ in range(5000):
        state.add({"a": number})
    assert state.means()["a"] == pytest.approx(float(number), rel=1e-4)


def test_only_the_steps_are_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_brain", lambda device: True)
    seen: list[str] = []

    class Looks(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x)
            seen.append(f"{y.dtype} {'training' if self.training else 'not'}")
            return y

    model = aevb.VAE(
        aevb.StandardNormal(2),
        aevb.Conditional(Looks(4, 4), aevb.Normal(2)),
        aevb.Conditional(torch.nn.Linear(2, 4), aevb.Bernoulli(4)),
    )
    x = torch.ones(20, 4)
    learner = aevb.Learner(model, aevb.ELBO(), aevb.Training(batch=10, samples=30, precision="bf16"), len(x))
    seen.clear()
    list(aevb.train_events(learner, x, x))
    assert {s for s in seen if "training" in s} == {"torch.bfloat16 training"}
    assert {s for s in seen if "not" in s} == {"torch.float32 not"}


def test_a_precision_without_sense_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = aevb.VAE(
        aevb.StandardNormal(2),
        aevb.Conditional(torch.nn.Linear(4, 4), aevb.Normal(2)),
        aevb.Conditional(torch.nn.Linear(2, 4), aevb.Bernoulli(4)),
    )
    half = aevb.Training(samples=200, precision="bf16")
    monkeypatch.setattr(precision, "has_brain", lambda device: False)
    with pytest.raises(RecipeError, match=r"no products of bfloat16.*Leave the precision out"):
        aevb.Learner(model, aevb.ELBO(), half, 20)
    aevb.Learner(model, aevb.ELBO(), aevb.Training(samples=200), 20)  # the cure
    with pytest.raises(RecipeError, match=r"these are float64.*model\.float\(\)"):
        aevb.Learner(model.double(), aevb.ELBO(), half, 20)
    monkeypatch.setattr(precision, "has_brain", lambda device: True)
    aevb.Learner(model.float(), aevb.ELBO(), half, 20)  # the cure
    with pytest.raises(ValueError, match="precision is 'float32' or 'bf16'; got 'fp8'"):
        aevb.Training(precision="fp8")  # type: ignore[arg-type]


def test_the_option_is_in_the_recipe_and_may_change_at_a_resume(brain: None, tmp_path: Path) -> None:
    out = tmp_path / "r"
    line = ["train", "digits", "--samples", "300", "--out", str(out), "--no-figures"]
    result = CliRunner().invoke(app, [*line, "--precision", "bf16"])
    assert result.exit_code == 0, result.output
    assert aevb.Run.open(out).recipe.training().precision == "bf16"
    more = ["train", "--resume", str(out), "--samples", "600", "--set", "training.precision=float32", "--no-figures"]
    result = CliRunner().invoke(app, more)
    assert result.exit_code == 0, result.output
    assert aevb.Run.open(out).recipe.training().precision == "float32"
