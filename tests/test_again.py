"""The same command line again, as schedulers send it; signals after a training; what `aevb runs` shows of settings."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import call, good

from aevb.apps import actions
from aevb.data.sources import load_data
from aevb.runs.files import read_tensors
from aevb.runs.fit import fit
from aevb.runs.recipe import Recipe
from aevb.runs.store import Run

NETS = ("--set", "encoder.hidden=[8]", "--set", "decoder.hidden=[8]", "--set", "evaluation.importance_samples=5")
LINE = ("train", "digits", "--recipe", "bernoulli", "--latent", 2, "--samples", 1000, "--seed", 3, *NETS)
LINE = (*LINE, "--set", "data.values=dynamic", "--no-figures", "--out", "r", "--resume")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("again")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        good(*LINE)
    return place / "r"


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in read_tensors(path / "weights.safetensors")[0].items()}


def same(a: Path, b: Path) -> bool:
    x, y = weights(a), weights(b)
    return x.keys() == y.keys() and all(torch.equal(v, y[k]) for k, v in x.items())


def test_one_command_line_begins_resumes_and_says_that_it_is_complete(
    made: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = iter([True])

    def interrupting(progress: Any) -> None:
        if progress.step >= 4 and next(stop, False):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("aevb.training.events.Clock.age", property(lambda self: 1.0))
        patch.setattr("aevb.apps.show.progress_line", lambda p: interrupting(p) or "")
        patch.setattr("aevb.runs.fit.Reporter.__call__", _each_step(interrupting))
        first = call(*LINE)
    assert first.code == 143
    assert "Interrupted. Resume with: aevb train --resume r" in first.err
    assert Run.open("r").meta["status"] == "interrupted"
    assert 0 < Run.open("r").meta["steps"] < 10
    second = call(*LINE)
    assert second.code == 0, second.err
    assert "resuming r" in second.err
    assert same(Path("r"), made)
    third = call(*LINE, "--json")
    assert third.code == 0, third.err
    assert json.loads(third.out)["elbo"] == pytest.approx(
        json.loads((made / "evaluation-test.json").read_text())["elbo"]
    )
    told = call(*LINE)
    assert "it is complete, after 1,000 training samples" in told.err
    assert same(Path("r"), made)


def _each_step(see: Any) -> Any:
    def report(self: Any, step: Any) -> None:
        see(type("Seen", (), {"step": step.number})())

    return report


CONTRADICTIONS = {
    ("--latent", 3): "--latent contradicts r: the run has 2, you gave 3",
    ("--seed", 4): "--seed contradicts r: the run has 3, you gave 4",
    ("--batch", 50): "--batch contradicts r: the run has 100, you gave 50",
    ("--recipe", "gaussian"): "--recipe contradicts r: the run has 'bernoulli', you gave 'gaussian'",
    ("--set", "decoder.hidden=[9]"): r"--set decoder.hidden contradicts r: the run has [8], you gave [9]",
}


@pytest.mark.parametrize("change", CONTRADICTIONS)
def test_only_options_that_contradict_the_run_are_refused(change: tuple[Any, ...], made: Path, here: Path) -> None:
    shutil.copytree(made, "r")
    before = {p.name: p.read_bytes() for p in Path("r").rglob("*") if p.is_file()}
    result = call(*LINE, *change)
    assert result.code == 1
    assert CONTRADICTIONS[change] in " ".join(result.err.split())
    assert "choose another --out" in " ".join(result.err.split())
    assert {p.name: p.read_bytes() for p in Path("r").rglob("*") if p.is_file()} == before


def test_another_source_contradicts_a_run(made: Path, here: Path) -> None:
    shutil.copytree(made, "r")
    result = call("train", "mnist", "--out", "r", "--resume")
    assert result.code == 1
    assert "SOURCE contradicts r: the run has 'digits', you gave 'mnist'" in result.err


def test_an_option_that_says_what_is_the_default_is_no_contradiction(made: Path, here: Path) -> None:
    shutil.copytree(made, "r")
    good(*LINE, "--batch", 100)


def test_options_that_a_run_can_take_anew_are_taken(made: Path, here: Path) -> None:
    shutil.copytree(made, "r")
    good("train", "digits", "--out", "r", "--resume", "--no-figures", "--samples", 1500, "--set", "training.clip=9")
    assert Run.open("r").meta["samples"] == 1500
    assert Run.open("r").recipe.training().clip == 9
    good(*LINE)  # a total that was reached is nothing to do
    assert Run.open("r").meta["samples"] == 1500
    shutil.copytree(made, "s")
    good("train", "--resume", "s", "--samples", 1500, "--no-figures")
    assert Run.open("s").meta["samples"] == 1500


def test_a_recipe_file_that_has_changed_contradicts_its_run(here: Path) -> None:
    nets = '[encoder]\ntype = "mlp"\n[decoder]\ntype = "mlp"\n'
    (here / "own.toml").write_text('latent = 2\n[likelihood]\ntype = "bernoulli"\n' + nets)
    line = ("train", "digits", "--recipe", "own.toml", "--samples", 200, *NETS, "--set", "data.values=dynamic")
    line = (*line, "--no-figures", "--out", "r", "--resume")
    good(*line)
    good(*line)
    (here / "own.toml").write_text((here / "own.toml").read_text().replace("latent = 2", "latent = 4"))
    result = call(*line)
    assert result.code == 1
    assert "--recipe: latent contradicts r: the run has 2, you gave 4" in result.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("where", ["evaluate", "draw_all"])
def test_a_signal_after_the_training_says_what_is_complete(
    where: str, number: int, code: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(*((actions, "evaluate") if where == "evaluate" else (_gallery(), "draw_all")), interrupted)
    line = [word for word in LINE if word not in ("--no-figures", "--resume")]
    result = call(*line)
    assert result.code == code
    told = " ".join(result.err.split())
    assert "Interrupted. The training of r is complete. For the rest: aevb evaluate r · aevb plot r" in told
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert Run.open("r").meta["status"] == "complete"
    good("evaluate", "r")
    good("plot", "r", "--only", "loss")


def _gallery() -> Any:
    from aevb.figures import gallery

    return gallery


def test_runs_shows_the_settings_that_differ(here: Path) -> None:
    data = load_data("digits", values="dynamic")
    base = Recipe.load("bernoulli").override(["latent=2", "encoder.hidden=[8]", "decoder.hidden=[8]"])
    base = base.replace(data__values="dynamic", training__samples=100)
    for name, changes in {"a": {}, "b": {"objective__beta": 4}, "c": {"training__seed": 1}}.items():
        fit(base.replace(**changes), data, here / "runs" / name)
    lines = json.loads(good("runs", "--json"))
    own = [key for key in lines[0] if "." in key]
    assert sorted(own) == ["objective.beta", "training.seed"]
    assert {line["run"]: line["objective.beta"] for line in lines} == {"a": None, "b": 4, "c": None}
    assert {line["run"]: line["training.seed"] for line in lines} == {"a": None, "b": None, "c": 1}
    assert "objective.beta" in good("runs")
    shutil.rmtree(here / "runs" / "b")
    shutil.rmtree(here / "runs" / "c")
    assert not [key for key in json.loads(good("runs", "--json"))[0] if "." in key]


ABSURD = {
    "training.clip=-1": r"training.clip: expected a number above 0 and at most 1e+12; got -1",
    "training.clip=0": r"training.clip: expected a number above 0",
    "training.clip=nan": r"training.clip: expected a number above 0 and at most 1e+12; got nan",
    "training.optimizer.lr=0": r"lr: expected a number above 0",
    "training.optimizer.eps=inf": r"eps: expected a number at least 0 and at most 1; got inf",
    "training.ema=1.5": r"training.ema: expected a number at least 0 and at most 1",
    "evaluation.samples=1e12": r"evaluation.samples: expected a number at least 0 and at most 10000; got 1000000000000",
    "evaluation.importance_samples=1e30": r"evaluation.importance_samples: expected a number at least 0",
    "objective.beta=1e20": r"objective (elbo).beta: expected a number at least 0 and at most 1e+12",
    "objective.beta=-1": r"beta",
    "encoder.init=1e12": r"encoder (mlp).init: expected a number at least 0 and at most 1000",
    "latent=10000000": r"recipe.latent: expected a number at least 0 and at most 1e+06",
    "title=[1]": r"title must be text; got [1]",
    "paper={}": r"paper must be text",
    "name=5": r"name",
    "latent={[]:1}": r"latent: expected a whole number of at least 1; got '{[]:1}'",
    "latent=" + "9" * 5000: r"latent: expected a whole number of at least 1",
    "latent=" + "[" * 2000: r"latent: expected a whole number of at least 1",
    "latent=" + "-" * 3000 + "1": r"latent: expected a whole number of at least 1",
}


@pytest.mark.parametrize("assignment", ABSURD, ids=lambda a: a[:40])
def test_absurd_settings_are_refused_before_the_training(assignment: str, here: Path) -> None:
    result = call("train", "digits", "--recipe", "bernoulli", "--set", "data.values=dynamic", "--set", assignment)
    told = " ".join(result.err.split())
    assert result.code == 1
    said = told.partition("error: ")[2]
    assert ABSURD[assignment] in said
    assert len(said) < 300
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("recipe", "assignment"),
    [
        ("lvae", "ladder.hidden=[10000000]"),
        ("householder-flow", "posterior.reflections=1000000"),
        ("mcem", "objective.leapfrogs=1e12"),
    ],
)
def test_sizes_for_which_no_training_ends_are_refused_at_once(recipe: str, assignment: str, here: Path) -> None:
    result = call("train", "digits", "--recipe", recipe, "--set", assignment)
    assert result.code == 1
    assert "and at most" in result.err


def test_the_seed_may_be_any_whole_number(here: Path) -> None:
    for seed in (-5, 10**30):
        line = ("train", "digits", "--recipe", "bernoulli", "--set", f"training.seed={seed}", *NETS)
        good(*line, "--samples", 100, "--set", "data.values=dynamic", "--no-figures", "--out", f"r{seed}")
        assert Run.open(f"r{seed}").recipe.training().seed == seed
