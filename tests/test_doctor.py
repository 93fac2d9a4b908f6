"""The doctor: each fault is made, found, and cured by its own remedy, taken literally from the message."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.distributions import Independent, Normal
from typer.testing import CliRunner, Result

import aevb
from aevb.apps.cli import app
from aevb.evaluation import exam
from aevb.evaluation.calibration import misfit, ranked, ranks, reliability, worst_bin
from aevb.evaluation.classifier import separation
from aevb.evaluation.estimate import Estimate
from aevb.evaluation.exam import Commands, Story, checks
from aevb.evaluation.findings.aggregate import AUC
from aevb.evaluation.findings.collapse import _dominated
from aevb.evaluation.findings.training import listen
from aevb.runs.store import Run
from aevb.use.encode import posterior_draws
from aevb.use.fit_prior import fit_prior

Rows = NDArray[np.float64]
SMALL = ["--set", "encoder.hidden=[16]", "--set", "decoder.hidden=[16]", "--set", "training.optimizer.lr=0.01"]
QUIET = ["--no-figures", "-q"]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEVB_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)


def factors(n: int, columns: int, size: int = 1, noise: float = 0.5) -> Rows:
    """Rows of a linear model of `size` factors."""
    g = np.random.default_rng(0)
    return g.normal(size=(n, size)) @ g.normal(size=(size, columns)) + noise * g.normal(size=(n, columns))


def clusters(n: int) -> Rows:
    g = np.random.default_rng(0)
    return (6 * g.normal(size=(4, 6)))[g.integers(0, 4, n)] + g.normal(size=(n, 6))


def call(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def trained(x: Rows, *options: str) -> aevb.Diagnosis:
    """What the doctor says of a run on these rows."""
    np.save("rows.npy", x)
    call("train", "rows.npy", *SMALL, *options, *QUIET)
    return aevb.doctor()


def named(found: aevb.Diagnosis) -> list[str]:
    return [f.name for f in found.findings]


def finding(found: aevb.Diagnosis, name: str) -> aevb.Finding:
    assert name in named(found), str(found)
    return next(f for f in found.findings if f.name == name)


def treated(found: aevb.Finding) -> aevb.Diagnosis:
    """What the doctor says once the remedy was taken as it is written."""
    words = shlex.split(found.command)
    assert words[0] == "aevb"
    result = call(*words[1:], *QUIET)
    assert result.exit_code == 0, result.output
    return aevb.doctor(words[words.index("--resume") + 1] if "--resume" in words else None)


# Faults and their cures


def test_a_collapsed_posterior_is_cured_by_a_smaller_weight_of_the_kl() -> None:
    options = ("--recipe", "gaussian", "--latent", "2", "--epochs", "20", "--set", "objective.beta=50")
    found = finding(trained(factors(300, 8), *options), "collapse")
    assert "none of 2 latent units is active" in found.text
    assert f"the KL is {found.numbers['kl']} nats" in found.text
    assert found.command.endswith("--set objective.beta=1")
    assert "collapse" not in named(treated(found))


def test_a_posterior_that_collapsed_under_the_plain_bound_is_cured_by_free_bits() -> None:
    """Noise alone, of which held-out rows are best described without z."""
    x = np.random.default_rng(0).normal(size=(80, 10))
    wide = ("--set", "encoder.hidden=[128,128]", "--set", "decoder.hidden=[128,128]")
    found = finding(
        trained(x, "--recipe", "gaussian", "--latent", "5", "--epochs", "30", "--batch", "16", *wide), "collapse"
    )
    assert found.command.endswith("--set objective.free_bits=0.25")
    assert "collapse" not in named(treated(found))


def test_units_that_are_not_used_are_cured_by_a_smaller_model() -> None:
    options = ("--recipe", "gaussian", "--latent", "8", "--epochs", "40")
    found = finding(trained(factors(500, 6, noise=0.3), *options), "unused-units")
    active = found.numbers["active_units"]
    assert found.text.startswith(f"Only {active} of 8 latent units are active")
    assert found.command.endswith(f"--set latent={active}")
    assert "unused-units" not in named(treated(found))


def test_a_training_that_was_too_short_is_cured_by_resuming_it() -> None:
    options = ("--recipe", "gaussian", "--latent", "3", "--epochs", "20", "--batch", "80")
    found = finding(trained(factors(200, 8, 3, 0.2), *options), "under-training")
    assert found.numbers["rise"] > 4 * found.numbers["rise"].se
    assert "--resume" in found.command
    assert Run.open().meta["stopped"] == "samples"
    assert "under-training" not in named(treated(found))
    assert Run.open().meta["stopped"] == "patience"


def in_memory(n: int, *changes: str) -> tuple[aevb.Diagnosis, aevb.Dataset]:
    """Of n train rows in memory, for which remedies are Python, and the 300 that are held out."""
    x = torch.as_tensor(factors(n + 300, 20, 3))
    values = aevb.Values("standardized").fitted(x[:n])
    data = aevb.Dataset("rows", *(aevb.Split(part.clone(), None, values) for part in (x[:n], x[n:], x[n:])), "gaussian")
    longer = ["training.optimizer.lr=0.003", "training.samples=12000"]
    recipe = aevb.Recipe.load("gaussian").override([*longer, "encoder.hidden=[128]", "decoder.hidden=[128]", *changes])
    return aevb.doctor(aevb.fit(recipe, data)), data


def test_a_training_that_went_on_after_its_best_is_cured_by_patience() -> None:
    found, data = in_memory(60, "latent=5")
    late = finding(found, "over-long")
    assert late.numbers["best_step"] < late.numbers["steps"] / 2
    cured = eval(late.command, {"aevb": aevb, "data": data})
    assert "over-long" not in named(aevb.doctor(cured))
    assert cured.meta["steps"] < late.numbers["steps"] / 2


def test_over_fitting_is_cured_by_a_smaller_network() -> None:
    found, data = in_memory(200, "latent=8")
    parts = ("train", "validation")
    numbers = finding(found, "over-fitting").numbers
    assert numbers["gap"] == pytest.approx(numbers["train"] - numbers["validation"])
    assert numbers["gap"].se == pytest.approx(math.hypot(*(numbers[part].se for part in parts)))
    assert numbers["gap"] > 3 * numbers["gap"].se
    cured = eval(finding(found, "over-fitting").command, {"aevb": aevb, "data": data})
    assert "over-fitting" not in named(aevb.doctor(cured))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [3, 12])
def test_one_held_out_row_shows_nothing_about_the_mean_of_others(n: int) -> None:
    """A mean of one row has no error, so no difference from it is significant."""
    found = trained(factors(n, 4), "--samples", "300", "--recipe", "table")
    assert not {"too-few-rows", "over-fitting", "unreliable-log-px"} & set(named(found))


def test_a_training_that_diverged_is_cured_by_a_smaller_step() -> None:
    options = ("--recipe", "gaussian", "--set", "training.optimizer.type=sgd", "--set", "training.optimizer.lr=10")
    found = trained(factors(300, 6), *options, "--epochs", "5")
    assert named(found) == ["diverged"]
    assert "no weights" in found.looked
    assert "diverged" not in named(treated(found.findings[0]))


def test_a_training_that_diverged_on_raw_numbers_is_cured_by_one_scale() -> None:
    x = factors(300, 6)
    x[:, 0] *= 40 / x[:, 0].std()
    found = trained(x, "--recipe", "gaussian", "--set", "data.values=raw", "--epochs", "5")
    diverged = finding(found, "diverged")
    assert diverged.command.endswith("--set data.values=standardized")
    assert "diverged" not in named(treated(diverged))


def test_an_interrupted_training_is_cured_by_resuming_it() -> None:
    np.save("rows.npy", factors(300, 6))

    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    recipe = aevb.Recipe.load("gaussian").override(["training.samples=3000"])
    with pytest.raises(KeyboardInterrupt):
        aevb.fit(recipe, "rows.npy", show=stop, checkpoint_every=0.0)
    found = finding(aevb.doctor(), "interrupted")
    assert "of 3,000 training samples" in found.text
    assert "interrupted" not in named(treated(found))


def test_counts_that_vary_more_than_poissons_are_cured_by_the_negative_binomial() -> None:
    x = np.random.default_rng(0).negative_binomial(0.7, 0.1, size=(500, 5))
    found = finding(trained(x, "--recipe", "poisson", "--latent", "2", "--epochs", "20"), "misfit")
    assert found.numbers["outside"] > 0.1 + 3 * found.numbers["outside"].se
    assert re.search(r"column \d: \d+\.\d ± \d\.\d % of its values lie outside the central 90 % of draws", found.text)
    assert found.command.endswith("--set likelihood.type=negative-binomial")
    assert "misfit" not in named(treated(found))


def test_outliers_under_a_normal_of_one_scale_are_cured_by_students_t() -> None:
    g = np.random.default_rng(0)
    x = factors(1200, 3) + g.standard_t(1.5, size=(1200, 3))
    wide = ("--set", "likelihood.type=homoscedastic-normal")
    found = finding(trained(x, "--recipe", "gaussian", "--latent", "2", "--epochs", "20", *wide), "misfit")
    assert found.command.endswith("--set likelihood.type=student-t")
    assert "misfit" not in named(treated(found))


def test_holes_of_a_light_kl_are_cured_by_its_full_weight() -> None:
    rare = ("--set", "objective.beta=0.02", "--set", "validation.every=1000000000")
    options = ("--recipe", "gaussian", "--latent", "2", "--epochs", "30", *rare)
    found = finding(trained(factors(500, 6, 2, 0.2), *options), "holes")
    assert found.numbers["auc"] > AUC
    assert found.command.endswith("--set objective.beta=1")
    assert "holes" not in named(treated(found))


def test_holes_between_clusters_are_cured_by_a_prior_fitted_to_the_codes() -> None:
    """The prior that `aevb sample --ex-post` draws from, as far from the aggregate posterior as a classifier says."""
    found = finding(trained(clusters(500), "--recipe", "gaussian", "--latent", "2", "--epochs", "30"), "holes")
    assert shlex.split(found.command)[-1] == "--ex-post"
    assert call(*shlex.split(found.command)[1:], "-n", "10", "--out", "new.npy").exit_code == 0
    run = Run.open()
    train = run.dataset().train
    fitted = fit_prior(run.model(), train)
    z = posterior_draws(run.model(), train, 1)[0].double().numpy()
    drawn = fitted.model.sample_latent(len(z)).double().numpy()
    before, after = found.numbers["auc"], separation(drawn, z).auc
    assert before > AUC > after


def test_log_px_that_cannot_be_trusted_is_cured_by_annealing() -> None:
    options = (
        "--recipe",
        "gaussian",
        "--latent",
        "8",
        "--epochs",
        "20",
        "--batch",
        "24",
        "--set",
        "objective.beta=0.05",
    )
    found = finding(trained(factors(300, 20, 8, 0.1), *options), "unreliable-log-px")
    assert found.numbers["heavy"] - 2 * found.numbers["heavy"].se > 0.1
    words = shlex.split(found.command)
    assert words[1:2] == ["evaluate"]
    result = call(*words[1:], "--json", "--limit", "10", "-q")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["importance_warning"] is None


def test_one_unit_that_holds_the_kl_is_told_with_the_error_of_its_share() -> None:
    torch.manual_seed(0)
    kl = torch.rand(500, 5, dtype=torch.float64) * torch.tensor([0.05, 0.05, 9.0, 0.05, 0.05])
    (found,) = _dominated(SimpleNamespace(commands=Commands("run")), kl)  # type: ignore[arg-type]
    ratio = kl[:, 2].mean() / kl.sum(1).mean()
    halves = [float(part[:, 2].mean() / part.sum(1).mean()) for part in kl[torch.randint(500, (300, 500))]]
    assert found.numbers["share"] == pytest.approx(float(ratio))
    assert found.numbers["share"].se == pytest.approx(float(np.std(halves)), rel=0.2)  # the bootstrap's
    assert "number 2, holds 97" in found.text
    assert found.command == "aevb traverse run"
    assert not list(_dominated(SimpleNamespace(commands=Commands("run")), kl[:, [0, 1, 3, 4]] * 20))  # type: ignore[arg-type]


def test_constant_columns_are_named_and_cured_by_leaving_them_out() -> None:
    x = factors(200, 4)
    x[:, 2] = 7.0
    options = ("--recipe", "gaussian", "--latent", "1", "--epochs", "5")
    found = finding(trained(x, *options), "constant-columns")
    assert found.numbers["columns"] == [2]
    assert "1 of 4 columns do not vary" in found.text
    assert "constant-columns" not in named(trained(np.delete(x, found.numbers["columns"], 1), *options))


# Runs in which nothing is wrong, and what is printed


def test_nothing_is_found_in_a_run_that_is_well_and_faults_make_strict_fail() -> None:
    options = ("--recipe", "gaussian", "--latent", "1", "--set", "validation.patience=10", "--epochs", "100")
    assert named(trained(factors(600, 5), *options)) == []
    said = call("doctor", "--strict")
    assert said.exit_code == 0
    assert "No fault was found" in said.output
    assert "480 of 480 train rows, 60 of 60 validation rows" in said.output
    collapsed = ("--recipe", "gaussian", "--latent", "1", "--epochs", "5", "--set", "objective.beta=50")
    found = trained(factors(300, 5), *collapsed)
    assert call("doctor").exit_code == 0
    strict = call("doctor", "--strict", "--json")
    assert strict.exit_code == 1
    told = json.loads(strict.stdout)
    assert told["findings"][0]["command"] == finding(found, named(found)[0]).command
    assert len(told["looked_for"]) == len(checks())


def test_remedies_quote_paths_with_blanks() -> None:
    command = Commands("my runs/one").again("objective.beta=1")
    assert shlex.split(command)[3] == "my runs/one/recipe.toml"


def story(bound: list[float], **facts: Any) -> Story:
    metrics = [{"step": i, "samples": 100 * i, "validation": {"elbo": b}} for i, b in enumerate(bound, 1)]
    known = {"status": "complete", "stopped": "samples", "samples": 100 * len(bound), "steps": len(bound)}
    best = max(range(len(bound)), key=bound.__getitem__) + 1
    return Story({**known, "best_step": best, **facts}, metrics, {}, Commands("run"))


def curve(f: Callable[[float], float], noise: float = 0.1) -> list[float]:
    g = np.random.default_rng(0)
    return [f(t) + noise * g.normal() for t in np.linspace(0, 1, 40)]


def test_a_rise_is_told_where_it_is_larger_than_its_error() -> None:
    rising, flat = curve(lambda t: -100 + 20 * t), curve(lambda t: -100 + 20 * (1 - math.exp(-20 * t)))
    found = list(listen(story(rising)))
    assert [f.name for f in found] == ["under-training"]
    assert found[0].numbers["rise"] == pytest.approx(20 / 3, abs=0.6)
    assert list(listen(story(flat))) == []
    assert list(listen(story(rising, stopped="patience"))) == []
    assert list(listen(story(rising, status="training", stopped=None))) == []
    assert list(listen(story(curve(lambda t: -100 + t, noise=3)))) == []


def test_a_fall_after_the_best_is_told_where_it_is_larger_than_its_error() -> None:
    falling = curve(lambda t: -100 - 40 * (t - 0.2) ** 2)
    found = list(listen(story(falling)))
    assert [f.name for f in found] == ["over-long"]
    assert found[0].numbers["fall"] == pytest.approx(max(falling) - np.mean(falling[-6:]), abs=1e-9)
    assert list(listen(story(curve(lambda t: -100.0)))) == []


# Calibration


class Linear(nn.Module):
    """x = w z + noise: its posterior is exact, so ranks are uniform, unless its likelihood is told a wrong scale."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.w, self.scale = nn.Parameter(torch.tensor([[1.0, -2.0, 0.5]])), scale

    def forward(self, z: torch.Tensor, batch_dims: int = 1) -> Independent:
        return Independent(Normal(z @ self.w, self.scale), 1)


def linear(scale: float) -> aevb.VAE:
    decoder, precision = Linear(scale), 1 + 5.25

    class Encoder(nn.Module):
        def forward(self, x: torch.Tensor, batch_dims: int = 1) -> Independent:
            return Independent(Normal(x @ decoder.w.T / precision, precision**-0.5), 1)

    return aevb.VAE(aevb.StandardNormal(1), Encoder(), decoder)  # type: ignore[arg-type]


def rows(n: int, scale: float = 1.0) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    z, e = torch.randn(n, 1, generator=g), torch.randn(n, 3, generator=g)
    return z @ torch.tensor([[1.0, -2.0, 0.5]]) + scale * e


def test_fewer_rows_are_looked_at_where_the_decoder_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the time of a check does not grow with the decoder."""
    q, p = aevb.Normal(2), aevb.Bernoulli(6)
    encoder, decoder = aevb.Conditional(nn.Linear(6, 4), q), aevb.Conditional(nn.Linear(2, 6), p)
    model, x = aevb.VAE(aevb.StandardNormal(2), encoder, decoder).eval(), (torch.rand(50, 6) < 0.5).float()
    told = Story({}, [], {}, Commands("runs/one"))
    look = exam.Exam(model, x, x, "validation", (50, 50), told, "binary")
    assert look.operations == 2 * 6 * 4 + 2 * 2 * 6  # a product and a sum for each weight
    monkeypatch.setattr(exam, "OPERATIONS", 72 * 200)
    assert [len(look.affordable(codes, 3)) for codes in (1, 10, 100)] == [50, 20, 3]


def test_ranks_of_a_right_model_are_uniform() -> None:
    found = ranks(linear(1.0), rows(2000))
    for column in found.u.T:
        seen = misfit(column)
        assert seen.p > 0.001
        assert abs(seen.outside - 0.1) < 4 * seen.outside.se
        assert abs(seen.middle - 0.5) < 4 * seen.middle.se
    outside = Estimate.of(found.outside)
    assert abs(outside - 0.1) < 4 * outside.se


def test_values_that_vary_more_than_draws_lie_outside_of_them() -> None:
    """x - w z of the second column has the variance 0.1024 + 4 · 0.2576 + 0.64 = 1.77, where 1 is said."""
    seen = [misfit(ranks(linear(1.0), rows(1000, scale=2.0), seed=s).u[:, 1]) for s in range(3)]
    beyond = 2 * float(Normal(0.0, 1.0).cdf(torch.tensor(-1.645 / math.sqrt(0.1024 + 4 * 0.2576 + 0.64))))
    assert beyond == pytest.approx(0.217, abs=1e-3)
    assert np.mean([s.outside for s in seen]) == pytest.approx(beyond, abs=3 * seen[0].outside.se)
    assert max(s.p for s in seen) < 1e-2


def test_ranks_are_those_of_one_more_draw_and_holes_have_none() -> None:
    torch.manual_seed(0)
    draws = torch.randint(0, 3, (50, 4000, 1)).double()
    u = ranked(draws[0], draws[1:])
    assert misfit(u[:, 0]).p > 0.001  # ties at random
    x = torch.tensor([[math.nan, 5.0, -5.0]])
    u = ranked(x, torch.zeros(9, 1, 3))
    assert u[0, 0].isnan()
    assert u[0, 1] >= 0.9
    assert u[0, 2] <= 0.1


def test_a_probability_that_is_not_kept_is_found() -> None:
    torch.manual_seed(0)
    p = torch.rand(1000, 1, dtype=torch.float64)
    draws, right = (torch.rand(100, 1000, 1) < p).double(), (torch.rand(1000, 1) < p).double()
    wrong = (torch.rand(1000, 1) < (p > 0.5) * 0.4 + 0.3).double()  # less sure than it is said
    good, bad = (worst_bin(*(part[:, 0] for part in reliability(x, draws))) for x in (right, wrong))
    assert good is not None
    assert bad is not None
    assert good.errors < 4
    assert bad.errors > 8
    assert bad.said - bad.came > 0.15
    assert worst_bin(torch.ones(5), torch.ones(5)) is None
