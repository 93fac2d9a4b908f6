"""Sweeps: a grid of runs, one table, one figure."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from typer.testing import CliRunner

import aevb
from aevb.apps.cli import app
from aevb.errors import DataError, RecipeError, RunError
from aevb.evaluation.estimate import Estimate
from aevb.figures.sweeps import swept
from aevb.runs import trackers
from aevb.runs.files import busy
from aevb.runs.fit import Progress, fit
from aevb.runs.grid import alternatives, grid, seeds_of
from aevb.runs.recipe import Recipe
from aevb.runs.sources import given
from aevb.runs.stacks import Place, fit_stacked
from aevb.runs.store import Run
from aevb.runs.sweeps import Summary, Trial, _sent, sweep
from aevb.runs.workers import each

SMALL = Recipe.load("digits").override(
    [
        *("encoder.hidden=[8]", "decoder.hidden=[8]", "training.batch=100", "training.samples=1200"),
        *("evaluation.importance_samples=5", "validation.patience=0"),
    ]
)
BETAS = {"objective.beta": [1, 4]}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> aevb.Sweep:
    return sweep(SMALL, "digits", BETAS, seeds=range(2), out=tmp_path_factory.mktemp("sweep"))


def weights(run: aevb.Run) -> dict[str, torch.Tensor]:
    return run.model().state_dict()


def test_each_run_is_the_one_that_fit_gives(found: aevb.Sweep, tmp_path: Path) -> None:
    assert [run.path.name for run in found.runs] == [f"digits-beta={b}-seed={s}" for b in (1, 4) for s in (0, 1)]
    run = found.runs[3]
    own = fit(SMALL.replace(objective__beta=4, training__seed=1), "digits", tmp_path / "own")
    for name, weight in weights(own).items():
        assert torch.allclose(weights(run)[name], weight, atol=1e-5)
    assert run.recipe.settings == own.recipe.settings
    assert [m["step"] for m in run.metrics()] == [m["step"] for m in own.metrics()]
    ours, its = run.metrics()[-1]["validation"], own.metrics()[-1]["validation"]
    assert ours == pytest.approx(its, rel=1e-4)
    assert {k: v for k, v in run.meta.items() if k in ("status", "stopped", "steps", "samples", "best_step")} == {
        k: v for k, v in own.meta.items() if k in ("status", "stopped", "steps", "samples", "best_step")
    }
    assert not found.notes


def test_tables_with_columns_of_all_kinds_are_stacked(tmp_path: Path) -> None:
    """Counts that are mostly zeros, an exposure, levels of which each has a vector, holes; as `fit` trains each."""
    g = np.random.default_rng(0)
    z, days = g.normal(size=120), g.integers(1, 9, 120)
    table = {
        "visits": g.poisson(np.exp(z - 2) * days).astype(str),
        "days": days.astype(str),
        "size": np.where(g.random(120) < 0.2, "", np.round(9 * z + g.normal(size=120), 1)),
        "street": [f"street {n}" for n in g.permutation(120) % 40],
        "angle": np.round(g.random(120) * 6, 2).astype(str),
        "share": np.round(g.random(120) + 0.5, 2).astype(str),
        "shop": g.choice(list("abc"), 120),
    }
    path = tmp_path / "t.csv"
    path.write_text("\n".join(map(",".join, [table, *zip(*table.values(), strict=True)])))
    kinds = {"visits": "count:days", "angle": "angle", "share": "weight"}
    recipe = Recipe.load("table").replace(
        data__columns=kinds, training__samples=300, training__batch=40, evaluation__importance_samples=5
    )
    made = sweep(recipe, str(path), {}, seeds=[0, 1], out=tmp_path / "runs")
    assert not made.notes
    own = fit(recipe.replace(training__seed=1), str(path), tmp_path / "own")
    for name, weight in weights(own).items():
        assert torch.allclose(weights(made.runs[1])[name], weight, atol=1e-5)


def test_the_table_is_the_mean_over_seeds(found: aevb.Sweep) -> None:
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert rows == list(csv.DictReader((found.folder / "sweep-digits-beta.csv").open()))
    for row, beta, runs in zip(rows, (1, 4), (found.runs[:2], found.runs[2:]), strict=True):
        kept = [json.loads((run.path / "evaluation-test.json").read_text()) for run in runs]
        assert (row["beta"], row["seeds"]) == (str(beta), "2")
        assert float(row["elbo"]) == pytest.approx(statistics.fmean(k["elbo"] for k in kept))
        assert float(row["elbo_sd"]) == pytest.approx(statistics.stdev(k["elbo"] for k in kept))
        assert float(row["elbo_se"]) == pytest.approx(statistics.fmean(k["elbo_se"] for k in kept))
        assert float(row["log_likelihood"]) == pytest.approx(statistics.fmean(k["log_likelihood"] for k in kept))


@pytest.mark.parametrize("recipe", [SMALL, SMALL.replace(title="other words")], ids=["the same", "retitled"])
def test_the_same_call_trains_nothing_anew(recipe: Recipe, found: aevb.Sweep) -> None:
    before = [(run.path / "weights.safetensors").stat().st_mtime_ns for run in found.runs]
    again = sweep(recipe, "digits", BETAS, seeds=range(2), out=found.folder, show=lambda p: pytest.fail("trained"))
    assert [(run.path / "weights.safetensors").stat().st_mtime_ns for run in again.runs] == before
    assert again.csv() == found.csv()


def test_an_interrupted_sweep_resumes(found: aevb.Sweep, tmp_path: Path) -> None:
    once = iter([signal.SIGINT])  # a second one would end the process at once

    def stop(_: Progress) -> None:
        for number in once:
            signal.raise_signal(number)

    longer = SMALL.replace(training__samples=20_000)
    with pytest.raises(KeyboardInterrupt):
        sweep(longer, "digits", BETAS, seeds=[0], out=tmp_path, show=stop)
    stopped = aevb.Run.open(tmp_path / "digits-beta=4-seed=0")
    assert stopped.meta["status"] == "interrupted"
    assert 0 < stopped.meta["steps"] < 200
    resumed = sweep(longer, "digits", BETAS, seeds=[0], out=tmp_path).runs[1]
    own = fit(longer.replace(objective__beta=4, training__seed=0), "digits", tmp_path / "own")
    assert resumed.meta["steps"] == 200
    assert all(torch.allclose(weights(resumed)[name], w, atol=1e-3) for name, w in weights(own).items())


def test_the_progress_is_of_one_model_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first that is still trained, at the rate of all that are."""
    monkeypatch.setattr("aevb.training.events.Clock.age", property(lambda self: 1.0))  # every step is shown
    recipes = [SMALL.replace(training__samples=samples, training__seed=i) for i, samples in enumerate([300, 500])]
    places = [Place(recipe, tmp_path / str(i)) for i, recipe in enumerate(recipes)]
    shown: list[Progress] = []
    assert not fit_stacked(places, given(SMALL, "digits")[1], show=shown.append)
    assert [p.step for p in shown] == [1, 2, 3, 4, 5]
    assert [p.total for p in shown] == [300, 300, 300, 500, 500]
    assert [p.rate / p.step for p in shown] == [200, 200, 200, 100, 100]


def test_a_run_with_other_settings_is_never_taken_for_one_of_the_sweep(found: aevb.Sweep) -> None:
    other = SMALL.replace(training__samples=1300)
    with pytest.raises(RunError, match=r"training\.samples = 1200, and this sweep has 1300.*another --out"):
        sweep(other, "digits", BETAS, seeds=range(2), out=found.folder)


@pytest.mark.parametrize("samples", [200, 100_000], ids=["complete", "interrupted"])
def test_a_run_of_other_data_is_never_taken_for_one_of_the_sweep(tmp_path: Path, samples: int) -> None:
    """Under one name, and so one recipe: the mean over seeds would be of two data sets."""
    x = np.random.default_rng(0).standard_normal((80, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    recipe = Recipe.load("gaussian").replace(training__samples=samples, training__batch=20)
    source, out, once = str(tmp_path / "x.npy"), tmp_path / "out", iter([signal.SIGINT])

    def stop(_: Progress) -> None:
        for number in once:
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt) if samples > 200 else nullcontext():
        sweep(recipe, source, seeds=[0], out=out, show=stop if samples > 200 else None)
    np.save(tmp_path / "x.npy", x[::-1])
    with pytest.raises(RunError, match=r"The data of .* have changed since it was trained: train has other values"):
        sweep(recipe, source, seeds=[0, 1], out=out)


def test_a_run_that_diverged_before_is_said(tmp_path: Path) -> None:
    recipe = SMALL.replace(training__optimizer__lr=1e9)
    told: list[str] = []
    for _ in range(2):
        made = sweep(recipe, "digits", seeds=[0], out=tmp_path, tell=told.append)
        assert [t.status for t in made.trials] == ["diverged"]
    assert len(told) == 2
    assert told[1] == "digits-seed=0: diverged before, and is not trained again. Remove its folder to train it anew."


def test_work_is_handed_out_when_a_process_is_free_for_it() -> None:
    """What was handed out cannot be taken back: after Ctrl-C it would be trained to its end."""
    handed: list[int] = []
    with ThreadPoolExecutor(8) as pool:
        found = []
        for item, future in each(pool, 2, lambda i: i * i, (handed.append(i) or i for i in range(6))):  # type: ignore[arg-type, func-returns-value]
            found.append((item, future.result()))
            assert len(handed) <= len(found) + 2
    assert sorted(found) == [(i, i * i) for i in range(6)]


@pytest.mark.slow
def test_an_interrupted_sweep_ends_its_processes_with_all_saved(tmp_path: Path) -> None:
    """Ctrl-C reaches all processes of a terminal; runs that had not begun do not begin."""
    line = [sys.executable, "-m", "aevb", "sweep", "digits", "--seeds", "0:6", "--samples", "1000000", "--jobs", "2"]
    line += ["--recipe", "vq-vae", "--no-figures", "--out", str(tmp_path / "out")]
    sweeping = subprocess.Popen(line, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    limit = time.monotonic() + 120
    while len([*tmp_path.glob("out/*/metrics.jsonl")]) < 2 and time.monotonic() < limit:
        time.sleep(0.1)
    os.killpg(sweeping.pid, signal.SIGINT)
    said, _ = sweeping.communicate(timeout=60)
    assert sweeping.returncode == 130, said
    runs = [aevb.Run.open(path) for path in (tmp_path / "out").glob("digits*")]
    assert [run.meta["status"] for run in runs] == ["interrupted"] * 2
    assert all(run.meta["steps"] > 0 for run in runs)


@pytest.mark.slow
def test_a_process_of_a_sweep_ends_with_the_one_that_began_it(tmp_path: Path) -> None:
    """With what it trained saved."""
    program = f"""
import aevb
if __name__ == "__main__":
    recipe = aevb.Recipe.load("digits").replace(training__samples=10**8, validation__every=2000)
    aevb.sweep(recipe, "digits", {{"latent": [2, 3]}}, seeds=[0], out={str(tmp_path / "out")!r}, jobs=2)
"""
    (tmp_path / "program.py").write_text(program)
    sweeping = subprocess.Popen([sys.executable, str(tmp_path / "program.py")], stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while len([*tmp_path.glob("out/*/metrics.jsonl")]) < 2 and time.monotonic() < limit:
        time.sleep(0.1)
    sweeping.kill()
    sweeping.wait()
    while any(map(busy, tmp_path.glob("out/*"))) and time.monotonic() < limit:
        time.sleep(0.1)
    statuses = [aevb.Run.open(path).meta["status"] for path in tmp_path.glob("out/*")]
    assert statuses == ["interrupted"] * 2


def test_what_cannot_be_stacked_is_trained_singly_and_said(tmp_path: Path) -> None:
    told: list[str] = []
    recipe = SMALL.replace(training__samples=200)
    settings = {"latent": [[4, 2]], "posterior": [{"type": "vq"}], "prior": [{"type": "uniform-codes"}]}
    settings["objective"] = [{"type": "elbo"}]
    made = sweep(recipe, "digits", {**settings}, seeds=[0, 1], out=tmp_path, tell=told.append)
    assert [t.status for t in made.trials] == ["complete"] * 2
    assert len(told) == 1
    assert told[0].startswith("2 runs, such as digits-")
    assert told[0].endswith("are trained one by one: a part learns without a gradient.")


@pytest.mark.slow
def test_processes_train_what_one_process_would(tmp_path: Path) -> None:
    recipe = SMALL.replace(training__samples=200)
    sizes = {"latent": [2, 3]}  # two architectures with one seed: no stack
    one = sweep(recipe, "digits", sizes, seeds=[0], out=tmp_path / "one")
    two = sweep(recipe, "digits", sizes, seeds=[0], out=tmp_path / "two", jobs=2)
    for a, b in zip(one.runs, two.runs, strict=True):
        assert all(torch.allclose(weights(b)[name], w, atol=1e-6) for name, w in weights(a).items())


@pytest.mark.slow
def test_processes_read_data_in_a_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent, all rows would be in memory; data that no source gives are sent."""
    np.save(tmp_path / "table.npy", np.random.default_rng(0).standard_normal((80, 3)))
    monkeypatch.setenv("AEVB_MEMORY_MB", "0")
    recipe = aevb.Recipe.load("gaussian").replace(training__samples=200, training__batch=20)
    source = str(tmp_path / "table.npy")
    sets = [aevb.load_data(source), aevb.load_data(np.ones((80, 3)) + np.arange(80)[:, None])]
    sent = [_sent(Place(given(recipe, source)[0], tmp_path), data) for data in sets]
    assert sent[0] is None
    assert sent[1] is sets[1]
    found = [
        sweep(recipe, source, {"latent": [2, 3]}, seeds=[0], out=tmp_path / str(jobs), jobs=jobs) for jobs in (1, 2)
    ]
    for a, b in zip(*(one.runs for one in found), strict=True):
        assert all(torch.equal(weights(b)[name], w) for name, w in weights(a).items())


def test_a_mistake_is_found_before_the_first_training(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no 'betta'"):
        sweep(SMALL, "digits", {"objective.betta": [1]}, out=tmp_path / "a")
    with pytest.raises(RecipeError, match="latent"):
        sweep(SMALL, "digits", {"latent": [2, 0]}, out=tmp_path / "b")
    assert not any(tmp_path.rglob("recipe.toml"))


def test_settings_of_data_are_swept_by_reading_the_source_for_each(tmp_path: Path) -> None:
    """Another shuffle is another split, and other values are other numbers."""
    np.save(tmp_path / "m.npy", np.random.default_rng(0).normal(size=(120, 3)))
    recipe = Recipe.load("gaussian").replace(training__samples=200, evaluation__importance_samples=5)
    source, seeds = str(tmp_path / "m.npy"), {"data.seed": [0, 1]}
    made = sweep(recipe, source, seeds, seeds=[0], out=tmp_path / "runs")
    rows = [run.dataset().test.stored for run in made.runs]
    for seed, found in enumerate(rows):
        assert torch.equal(found, aevb.load_data(source, seed=seed).test.stored)
    assert not torch.equal(*rows)
    with pytest.raises(RecipeError, match=r"data\.seed is set, but these data are read already"):
        sweep(recipe, aevb.load_data(source), seeds, out=tmp_path / "other")


def test_the_command_line_sweeps_settings_of_data(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.random.default_rng(0).normal(size=(120, 3)))
    line = ["sweep", str(tmp_path / "m.npy"), "--seeds", "0:1", "--samples", "200", "--out", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, [*line, "--set", "data.seed=0,1", "--json", "--quiet", "--no-figures"])
    assert result.exit_code == 0, result.output
    one, two = (Run.open(run["run"]) for run in json.loads(result.stdout)["runs"])
    assert not torch.equal(one.dataset().test.stored, two.dataset().test.stored)


def test_the_command_line_sweeps_a_table_with_kinds_of_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("n,m\n" + "\n".join(f"{i % 5},{i % 7}" for i in range(100)))
    line = ["sweep", str(path), "--column", "n=count", "--weights", "m", "--set", "latent=1,2", "--seeds", "0:1"]
    line += ["--samples", "200", "--out", str(tmp_path / "runs"), "--json", "--no-figures"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    runs = [Run.open(run["run"]) for run in json.loads(result.stdout)["runs"]]
    assert [run.recipe.settings["latent"] for run in runs] == [1, 2]
    for run in runs:
        columns = run.dataset().train.values.columns.columns
        assert {c.name: c.kind for c in columns} == {"n": "count", "m": "weight"}


def test_the_command_line_takes_one_setting_of_data(tmp_path: Path) -> None:
    line = ["sweep", "digits", "--set", "data.seed=5", "--seeds", "0:1", "--samples", "200", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, [*line, "--json", "--no-figures", "--set", "evaluation.importance_samples=5"])
    assert result.exit_code == 0, result.output
    (run,) = json.loads(result.stdout)["runs"]
    assert torch.equal(Run.open(run["run"]).dataset().test.stored, aevb.load_data("digits", seed=5).test.stored)


def test_a_table_of_other_settings_is_replaced_and_that_is_said(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "sweep-digits.csv").write_text("latent,seeds,elbo\n2,1,-3\n\n")  # an old table may have blank lines
    cases = (([2], [0], 0), ([2], [0], 0), ([3], [0], 1), ([3], [0, 1], 1), ([3], [1], 2))
    for values, seeds, said in cases:
        sweep(SMALL, "digits", {"latent": values}, seeds=seeds, out=tmp_path, tell=told.append)
        assert sum("replaces the table" in text for text in told) == said


def test_a_sweep_of_which_no_run_is_complete_is_an_error(tmp_path: Path) -> None:
    line = ["sweep", "digits", "--set", "training.optimizer.lr=10000,0.001", "--seeds", "0:1", "--samples", "300"]
    line += ["--out", str(tmp_path), "--no-figures", "--set", "evaluation.importance_samples=5"]
    assert CliRunner().invoke(app, line).exit_code == 0
    line[3] = "training.optimizer.lr=10000"
    assert CliRunner().invoke(app, line).exit_code == 1


@pytest.mark.parametrize(
    ("settings", "seeds", "words"),
    [
        ({"prior": ["standard-normal", {"type": "standard-normal"}]}, [0], "has the value .* twice"),
        ({"objective.beta": 2}, [0], r"objective\.beta needs a list of values, such as \[2\]"),
        ({"encoder.activation": "relu"}, [0], r"needs a list of values, such as \['relu'\]"),
        ({}, 3, "the seeds are a list, such as range"),
        ({}, [True], "a seed is a whole number"),
    ],
)
def test_values_and_seeds_are_lists_without_repeats(settings: Any, seeds: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=words):
        sweep(SMALL, "digits", settings, seeds=seeds, out=tmp_path)
    assert not list(tmp_path.iterdir())
    assert [cell.seed for cell in grid(SMALL, "digits", {}, np.arange(2))] == [0, 1]


def test_a_table_that_has_lost_rows_is_said_to_have_changed(tmp_path: Path) -> None:
    """Not that its batch, which follows from the rows, has another size."""
    path, recipe = tmp_path / "t.csv", Recipe.load("table").replace(training__samples=200)
    for rows in (300, 299):
        path.write_text("a,b\n" + "\n".join(f"{i % 7},{i % 11 / 10}" for i in range(rows)))
        with nullcontext() if rows == 300 else pytest.raises(RunError, match="have changed since it was trained"):
            sweep(recipe, str(path), {}, seeds=[0], out=tmp_path / "runs")


def test_a_sweep_is_logged_to_no_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: True)
    monkeypatch.setitem(trackers.KINDS, "tensorboard", ("", lambda run: pytest.fail("logged")))
    with trackers.tracking("tensorboard"):
        made = sweep(SMALL, "digits", {}, seeds=[0], out=tmp_path)
    assert made.notes == ["a sweep logs to no tracker."]


def test_rows_in_memory_are_kept_beside_the_runs(tmp_path: Path) -> None:
    x = torch.rand(60, 5, generator=torch.Generator().manual_seed(0)).numpy()
    recipe = Recipe.load("gaussian").replace(training__samples=300, evaluation__importance_samples=5)
    made = sweep(recipe, x, {"latent": [2]}, seeds=[0, 1], out=tmp_path)
    assert [t.status for t in made.trials] == ["complete"] * 2
    assert len(made.runs[0].dataset().train) == len(made.runs[1].dataset().train) > 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("objective.beta=1,2,4", {"objective.beta": [1, 2, 4]}),
        ("encoder.hidden=[32, 32],[64]", {"encoder.hidden": [[32, 32], [64]]}),
        ('terms=[{type="mmd", weight=2}]', {"terms": [[{"type": "mmd", "weight": 2}]]}),
        ("title='a, b',c", {"title": ["a, b", "c"]}),
        ("posterior.type=normal,laplace", {"posterior.type": ["normal", "laplace"]}),
        ("latent=1e1", {"latent": [10]}),
    ],
)
def test_commas_separate_values_but_not_in_brackets(given: str, expected: dict[str, Any]) -> None:
    assert alternatives([given]) == expected


@pytest.mark.parametrize("given", ["objective.beta", "=1", "objective.beta="])
def test_an_assignment_without_a_value_is_refused(given: str) -> None:
    with pytest.raises(RecipeError, match="write key=value"):
        alternatives([given])


@pytest.mark.parametrize(("given", "seeds"), [("0:8", [*range(8)]), ("3", [3]), ("0,5,7", [0, 5, 7]), ("2:4", [2, 3])])
def test_seeds_are_a_range_or_a_list(given: str, seeds: list[int]) -> None:
    assert list(seeds_of(given)) == seeds


@pytest.mark.parametrize("given", ["", "8:0", "a", "1.5", "0:"])
def test_what_is_no_range_is_refused(given: str) -> None:
    with pytest.raises(RecipeError, match="give a range, such as 0:8"):
        seeds_of(given)


@pytest.mark.parametrize("last", ["10001", "99999999999", "9" * 40], ids=len)
def test_a_range_without_end_is_refused_before_it_takes_memory(last: str) -> None:
    with pytest.raises(RecipeError, match="runs are more than 10,000"):
        seeds_of(f"0:{last}")


def test_names_tell_cells_apart() -> None:
    settings = {"encoder.hidden": [[8], [8, 8]], "decoder.hidden": [[4]], "title": ["a/b", "a b"]}
    names = [cell.name for cell in grid(SMALL, "mine.npy", settings, [0, 1])]
    assert len(set(names)) == len(names) == 8
    assert names[0].startswith("mine-digits-encoder.hidden=8-decoder.hidden=4-title=a_b-")
    assert all("/" not in name for name in names)


@pytest.mark.parametrize(
    ("settings", "seeds", "why"),
    [
        ({"objective.beta": []}, [0], "has no values"),
        ({"objective.beta": [1, 1]}, [0], "the value 1 twice"),
        ({"training.seed": [1]}, [0], "set by the seeds"),
        ({}, [], "no seeds"),
        ({}, [0, 0], "twice"),
        ({}, [-1], "at least 0"),
        ({"objective.beta": [1, 2]}, range(10**11), "200,000,000,000 runs are more than 10,000"),
    ],
)
def test_a_grid_without_sense_is_refused(settings: dict[str, list[Any]], seeds: Sequence[int], why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        grid(SMALL, "digits", settings, seeds)


def trial(beta: float, seed: int, elbo: float) -> Trial:
    return Trial({"objective.beta": beta, "latent": 2}, seed, Path("x"), "complete", {"elbo": Estimate(elbo, 0.5, 10)})


def test_the_figure_shows_each_run_and_the_mean_of_its_seeds() -> None:
    trials = [trial(b, s, -10 * b - s) for b in (1, 2) for s in (0, 2)]
    assert swept(trials) == ["objective.beta"]
    axes = aevb.figures.sweep(trials).axes[0]
    dots = [y for c in axes.collections if isinstance(c, PathCollection) for _, y in c.get_offsets().tolist()]  # type: ignore[union-attr]
    assert sorted(dots) == [-22, -20, -12, -10]
    assert [*axes.lines[0].get_ydata()] == [-11, -21]  # type: ignore[misc]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "2"]


def test_the_figure_of_seeds_alone_shows_each_with_its_error() -> None:
    axes = aevb.figures.sweep([trial(1, s, -10 - s) for s in (0, 4)]).axes[0]
    assert [*axes.lines[0].get_ydata()] == [-10, -14]  # type: ignore[misc]
    assert axes.lines[-1].get_ydata()[0] == -12  # type: ignore[index]


def test_the_figure_of_a_number_that_no_run_has_is_refused() -> None:
    with pytest.raises(DataError, match="no run of this sweep has 'kl'"):
        aevb.figures.sweep([trial(1, 0, -10)], "kl")


def test_a_summary_of_one_seed_has_no_spread() -> None:
    one = Summary.of([Estimate(-10.0, 0.5, 9)])
    assert math.isnan(one.sd)
    assert one.text() == "-10.00 (se 0.50)"
    assert Summary.of([]).text() == "–"


def test_the_command_line_prints_the_table_and_lists_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEVB_RUNS", str(tmp_path))
    line = ["sweep", "digits", "--set", "objective.beta=1,2", "--set", "encoder.hidden=[8]", "--seeds", "0:2"]
    line += ["--samples", "300", "--set", "evaluation.importance_samples=5"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    assert "sweep-digits-beta.csv" in result.output
    assert (tmp_path / "sweep-digits-beta.png").is_file()
    listed = json.loads(CliRunner().invoke(app, ["runs", "--json"]).output)
    assert {(run["objective.beta"], run["training.seed"], run["status"]) for run in listed} == {
        (beta, seed, "complete") for beta in (1, 2) for seed in (0, 1)
    }
    again = json.loads(CliRunner().invoke(app, [*line, "--json", "--quiet"]).output)
    assert [(row["objective.beta"], row["seeds"]) for row in again["points"]] == [(1, 2), (2, 2)]
    for row in again["points"]:
        found = [run["elbo"] for run in again["runs"] if run["objective.beta"] == row["objective.beta"]]
        assert row["elbo"] == pytest.approx(statistics.fmean(found))
        assert row["elbo_sd"] == pytest.approx(statistics.stdev(found))
    clash = CliRunner().invoke(app, [*line, "--set", "training.samples=300,600"])
    assert "training.samples is given twice, by an option and by --set" in str(clash.exception)
