"""Runs on disk: made whole or not at all, told what is wrong by name, resumed, extended, watched and judged."""

from __future__ import annotations

import ast
import errno
import json
import math
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

import aevb
from aevb.data.arrays import array_dataset
from aevb.data.dataset import Dataset
from aevb.data.sources import load_data
from aevb.errors import DataError, RecipeError, RunError, TrainingDiverged
from aevb.evaluation.bound import elbo
from aevb.evaluation.estimate import flat
from aevb.models.rows import by_batch
from aevb.runs import files, store
from aevb.runs.build import build_model, build_objective
from aevb.runs.evaluate import evaluate_run
from aevb.runs.files import alone, read_tensors, write_tensors, write_text
from aevb.runs.fit import Progress, amend, fit, resume
from aevb.runs.index import status, summaries
from aevb.runs.recipe import EvaluationSettings, Recipe
from aevb.runs.store import Run, all_runs, find, new_folder

SOURCE = Path(aevb.__file__).parent


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data("digits", values="dynamic")


@pytest.fixture(autouse=True)
def _runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AEVB_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)


def small(samples: int = 1000, **changes: Any) -> Recipe:
    base = Recipe.load("bernoulli").override(
        ["latent=2", "encoder.hidden=[16]", "decoder.hidden=[16]", "data.values=dynamic"]
    )
    return base.replace(training__samples=samples, evaluation__importance_samples=5, **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Path:
    """A finished run, for tests that copy it."""
    return fit(small(), data, tmp_path_factory.mktemp("runs") / "made").path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    """A copy of the finished run, to be damaged."""
    return Run.open(shutil.copytree(made, tmp_path / "run"))


def checkpoint(run: Run) -> Path:
    return run.path / "checkpoint" / "state.safetensors"


def trained(run: Run) -> dict[str, Tensor]:
    """What is in the checkpoint but for the best weights: the state of the training itself."""
    return {k: v for k, v in read_tensors(checkpoint(run))[0].items() if not k.startswith("best.")}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# The folder


def test_what_is_in_a_run(run: Run) -> None:
    names = {p.name for p in run.path.iterdir()}
    assert names == {"recipe.toml", "meta.json", "metrics.jsonl", "weights.safetensors", "checkpoint"}
    meta = json.loads((run.path / "meta.json").read_text())
    assert meta["format"] == 1
    assert (meta["status"], meta["stopped"], meta["steps"], meta["samples"]) == ("complete", "samples", 10, 1000)
    assert (meta["shape"], meta["levels"], meta["device"], meta["threads"]) == (
        [1, 8, 8],
        17,
        "cpu",
        torch.get_num_threads(),
    )
    assert [meta["splits"][s]["n"] for s in ("train", "validation", "test")] == [1197, 300, 300]
    assert [line["step"] for line in run.metrics()] == list(range(1, 11))
    assert set(run.metrics()[0]) == {"step", "samples", "seconds", "train"}
    assert set(run.metrics()[-1]["train"]) == {"loss", "elbo", "reconstruction", "kl"}
    assert set(run.metrics()[-1]["validation"]) == {"elbo", "reconstruction", "kl"}


def test_all_files_of_a_run_can_be_read_by_those_who_can_read_one(run: Run) -> None:
    modes = {stat.S_IMODE(p.stat().st_mode) for p in run.path.rglob("*") if p.is_file()}
    assert len(modes) == 1


def test_the_numbers_of_training_are_means_over_steps_in_nats_per_data_point(data: Dataset, tmp_path: Path) -> None:
    run = fit(small(30_000), data, tmp_path / "r")  # 300 steps, a record each third, or at a look
    seen: dict[int, dict[str, float]] = {}
    learner = build_model(run.recipe, data.shape, 17)
    for step in aevb.train(learner, build_objective(run.recipe), data.train, run.recipe.training()):
        seen[step.number] = {k: float(v) for k, v in step.info.items()}
    before = 0
    for line in run.metrics():
        steps = range(before + 1, line["step"] + 1)
        for name, number in line["train"].items():
            assert number == pytest.approx(sum(seen[s][name] for s in steps) / len(steps), rel=1e-5)
        before = line["step"]
    assert before == 300


def test_a_folder_in_use_is_not_touched(run: Run, data: Dataset, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    with pytest.raises(
        RunError, match=r"run already exists\. Resume it: aevb train --resume .*run; or .* another --out"
    ):
        fit(small(), data, run.path)
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="already exists"):
        fit(small(), data, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_empty_folder_is_used(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert fit(small(100), data, ".").meta["status"] == "complete"
    assert (tmp_path / "empty" / "weights.safetensors").is_file()


def test_a_run_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its recipe and its facts are written there is no folder of that name, and none that would be listed."""
    seen: list[tuple[bool, int]] = []
    whole = files.write_whole

    def watching(path: Path, write: Callable[[Path], None]) -> None:
        seen.append(((tmp_path / "runs" / "r").exists(), len(all_runs(tmp_path / "runs"))))
        whole(path, write)
        seen.append(((tmp_path / "runs" / "r").exists(), len(all_runs(tmp_path / "runs"))))

    monkeypatch.setattr(files, "write_whole", watching)
    Run.create(tmp_path / "runs" / "r", small(), {})
    assert seen == [(False, 0)] * 4
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["r"]

    def failing(path: Path, write: Callable[[Path], None]) -> None:
        if path.name == "recipe.toml":
            raise RunError("on purpose")
        whole(path, write)

    monkeypatch.setattr(files, "write_whole", failing)
    with pytest.raises(RunError, match="on purpose"):
        Run.create(tmp_path / "runs" / "s", small(), {})
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["r"]


def test_two_processes_cannot_make_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def slower(self: Path, target: Path) -> Path:
        Run.create_other(target)  # type: ignore[attr-defined]
        return rename(self, target)

    def other(path: Path) -> None:
        path.mkdir()
        (path / "recipe.toml").write_text("the other's")

    monkeypatch.setattr(Run, "create_other", staticmethod(other), raising=False)
    monkeypatch.setattr(Path, "rename", slower)
    with pytest.raises(RunError, match="r already exists"):
        Run.create(tmp_path / "r", small(), {})
    assert (tmp_path / "r" / "recipe.toml").read_text() == "the other's"
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize("name", ["recipe.toml", "meta.json"])
def test_an_incomplete_run_says_what_is_missing(name: str, run: Run) -> None:
    (run.path / name).unlink()
    with pytest.raises(RunError, match=rf"run is not a complete run: {re.escape(name)} is missing"):
        Run.open(run.path)


def test_a_run_without_weights_says_how_to_get_them(run: Run) -> None:
    (run.path / "weights.safetensors").unlink()
    with pytest.raises(
        RunError, match=r"no weights yet: its training did not finish\. Continue: aevb train --resume .*run$"
    ):
        Run.open(run.path).model()


def test_a_run_from_the_future(run: Run) -> None:
    run.write_meta(format=99, aevb="7.0.0")
    with pytest.raises(
        RunError, match=r"written by aevb 7\.0\.0 \(format 99\); this is aevb .* \(format 1\)\. Upgrade"
    ):
        Run.open(run.path)


def test_a_damaged_meta_file(run: Run) -> None:
    (run.path / "meta.json").write_text('{"format": 1, ')
    with pytest.raises(RunError, match=r"meta\.json is damaged"):
        Run.open(run.path)


def test_weights_that_do_not_fit_are_named(run: Run) -> None:
    path = run.path / "weights.safetensors"
    tensors, _ = read_tensors(path)
    names = sorted(tensors)
    wrong = {k: v for k, v in tensors.items() if k != names[0]} | {
        "stranger": torch.zeros(1),
        names[1]: torch.zeros(3, 5),
    }
    save_file(wrong, path)
    shape = tuple(tensors[names[1]].shape)
    words = [
        f"missing {names[0]}",
        "extra stranger",
        f"{names[1]} is (3, 5), the recipe says {shape}",
        "from another run",
    ]
    with pytest.raises(RunError, match=r"weights\.safetensors does not fit its recipe") as told:
        run.model()
    assert all(word in str(told.value) for word in words)


@pytest.mark.parametrize("size", [0, 5, 100, 2000])
def test_cut_files_are_damaged(size: int, run: Run, data: Dataset) -> None:
    for path, use in ((run.path / "weights.safetensors", run.model), (checkpoint(run), lambda: resume(run, data))):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(RunError, match=rf"{path.name} is damaged"):
            use()


def test_a_checkpoint_of_another_recipe(run: Run, data: Dataset) -> None:
    before = (run.path / "recipe.toml").read_text()
    run.recipe = run.recipe.replace(latent=7)
    with pytest.raises(
        RunError, match=r"state\.safetensors does not fit its recipe: decoder\.net\.1\.weight is \(16, 2\), the "
    ):
        resume(run, data)
    assert (run.path / "recipe.toml").read_text() == before


def test_data_that_have_changed(run: Run) -> None:
    assert len(run.dataset().test) == 300
    run.meta["splits"]["test"]["n"] = 250
    run.meta["splits"]["train"]["sha256"] = "0" * 16
    message = r"data of .*run have changed .*: train has other values in its 1197 rows; test had 250 rows and has 300\."
    with pytest.raises(RunError, match=message):
        run.dataset()


def test_data_that_really_change(tmp_path: Path) -> None:
    import numpy as np

    x = np.random.default_rng(0).normal(size=(100, 4))
    np.save(tmp_path / "x.npy", x)
    recipe = Recipe.load("gaussian").replace(data__source=str(tmp_path / "x.npy"), training__samples=100)
    run = fit(recipe, store.read(recipe), tmp_path / "r")
    assert torch.equal(run.dataset().test.stored, store.read(recipe).test.stored)
    x[:, 0] += 1
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(RunError, match=r"train has other values in its 80 rows; validation .*; test has other"):
        Run.open(run.path).dataset()
    (tmp_path / "x.npy").unlink()
    with pytest.raises(DataError, match="there is no data set, file or folder"):
        Run.open(run.path).dataset()


# Finding runs


def test_the_latest_run_is_the_default(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match=r"There is no run in runs/ yet\. Make one: aevb train digits"):
        Run.open()
    first, second = fit(small(100), data).path, fit(small(100), data, "runs/second").path
    assert re.fullmatch(r"digits-bernoulli-\d{8}-\d{6}", first.name)
    assert find(None) == second
    assert all_runs() == [first, second]
    assert Run.open("second").path == second
    assert Run.open(first).path == first
    resume(Run.open(first), data, samples=200)
    assert find(None) == first  # the one that was trained last
    partial = tmp_path / "runs" / ".third.1.partial"
    partial.mkdir()
    (partial / "recipe.toml").write_text("")
    assert find(None) == first
    with pytest.raises(RunError, match=r"There is no run 'secnd'\. Did you mean 'second'\?"):
        Run.open("secnd")
    monkeypatch.setenv("AEVB_RUNS", str(tmp_path / "elsewhere"))
    with pytest.raises(RunError, match=r"There is no run 'second'\. Make one: aevb train digits"):
        Run.open("second")
    assert new_folder("digits", "aevb").parent == tmp_path / "elsewhere"
    assert fit(small(100), data).path.parent == tmp_path / "elsewhere"
    assert aevb.load().encode(data.test[:2]).shape == (2, 2)


def test_two_runs_of_the_same_second_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for _ in range(3):
        path = new_folder("some/where/x.npy", "aevb")
        path.mkdir(parents=True)
        names.append(path.name)
    assert len(set(names)) == 3
    assert all(name.startswith("x-aevb-") for name in names)


def test_a_list_of_runs_survives_broken_ones(data: Dataset) -> None:
    fit(small(100), data, "runs/good")
    (Path("runs") / "bad").mkdir()
    (Path("runs") / "bad" / "recipe.toml").write_text("latent = = 1")
    evaluate_run(Run.open("good"), data)
    lines = {line["run"]: line for line in summaries()}
    assert lines["bad"]["status"] == "incomplete"
    assert (lines["good"]["status"], lines["good"]["latent"], lines["good"]["samples"]) == ("complete", 2, 100)
    verdict = json.loads(Path("runs/good/evaluation-test.json").read_text())
    assert lines["good"]["test ELBO"] == round(verdict["elbo"], 2)
    resume(Run.open("good"), data, samples=200)
    assert {line["run"]: line for line in summaries()}["good"]["test ELBO"] is None  # it was of other weights


# Nothing that is loaded can run code


@pytest.mark.trap(13)
def test_nothing_unpickles() -> None:
    """No torch.load, torch.save, pickle, joblib or allow_pickle=True, but for the one reader that admits arrays
    alone."""
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name | ast.keyword) else ""
            imported = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            unpickles = name in ("torch.load", "torch.save", "allow_pickle=True") or name.startswith(
                ("pickle.", "joblib.", "dill.")
            )
            if unpickles or {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"} & set(imported):
                found.append(path.relative_to(SOURCE).as_posix())
    assert set(found) == {"data/readers.py"}


# A full disk


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def full_of_tensors(*_: Any) -> Any:
    raise SafetensorError("I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("call", ["save_file", "write_text", "replace"])
def test_a_full_disk_leaves_the_last_checkpoint(
    call: str, run: Run, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, weights = checkpoint(run).read_bytes(), (run.path / "weights.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        if call == "replace":
            patch.setattr(os, "replace", full)
        elif call == "save_file":
            patch.setattr("safetensors.torch.save_file", full_of_tensors)
        else:
            patch.setattr(Path, call, full)
        with pytest.raises(
            RunError, match=r"The disk is full: .* could not be written\. .*free some space, then resume"
        ):
            resume(run, data, samples=3000)
    assert checkpoint(run).read_bytes() == before
    assert (run.path / "weights.safetensors").read_bytes() == weights
    assert not list(run.path.rglob(".*.partial"))
    assert Run.open(run.path).model()
    assert resume(Run.open(run.path), data, samples=3000).meta["samples"] == 3000


def test_a_full_disk_while_logging(run: Run, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = Path.open

    def opened(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return full() if mode == "a" else opening(self, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        with pytest.raises(RunError, match=r"The disk is full: .*metrics\.jsonl"):
            resume(run, data, samples=3000)
    assert resume(Run.open(run.path), data, samples=3000).meta["samples"] == 3000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    if os.name != "posix" or os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_really_full(disk: Path, data: Dataset) -> None:
    """The first checkpoints fit, until another program fills the disk."""
    path = disk / "run"
    filled = False

    def fill(p: Progress) -> None:
        nonlocal filled
        if checkpoint(Run.open(path)).is_file() and not filled:
            filled = True
            with suppress(OSError), (disk / "filler").open("wb", buffering=0) as f:
                while f.write(b"x" * 512):
                    pass

    def eagerly(self: Any) -> float:
        return 1.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aevb.training.events.Clock.age", property(eagerly))  # shows, and so fills, at each step
        with pytest.raises(RunError, match=r"The disk is full: .* could not be written"):
            fit(small(3000), data, path, show=fill, checkpoint_every=0)
    assert filled
    tensors, notes = read_tensors(checkpoint(Run.open(path)))
    number = json.loads(notes["state"])["number"]
    assert 0 < number < 30
    assert all(torch.isfinite(t).all() for t in tensors.values())
    (disk / "filler").unlink()
    resumed = resume(Run.open(path), data)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(disk.parent)
        assert same(trained(resumed), trained(fit(small(3000), data, "whole")))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        RunError, match=r"file/run/meta.json could not be written: Not a directory|could not be written"
    ):
        write_text(tmp_path / "file" / "run" / "meta.json", "x")


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "f.txt"
    write_text(path, "old")

    def broken(p: Path) -> None:
        p.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_whole(path, broken)
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["f.txt"]
    write_tensors(path, {"x": torch.arange(6).view(2, 3).T}, {"note": "ü"})
    tensors, notes = read_tensors(path)
    assert torch.equal(tensors["x"], torch.arange(6).view(2, 3).T)
    assert notes == {"note": "ü"}


# Divergence


@pytest.mark.parametrize(
    ("lr", "look", "message"),
    [
        (
            1e6,
            10**6,
            r"^The weights or the optimizer's memory are not finite after step 4 \(\S+\)\. Try a smaller step size",
        ),
        (1e6, 100, r"^The validation bound became (nan|-inf) at step [12]\. Try a smaller step size"),
    ],
)
def test_divergence_stops_and_says_where_and_what_to_try(
    lr: float, look: int, message: str, data: Dataset, tmp_path: Path
) -> None:
    recipe = small(100_000, training__optimizer={"type": "sgd", "lr": lr}, validation__every=look)
    with pytest.raises(TrainingDiverged, match=message) as told:
        fit(recipe, data, tmp_path / "r", checkpoint_every=3600)
    assert told.value.changes == ("training.optimizer.lr=...",)
    assert "--set" not in str(told.value)
    run = Run.open(tmp_path / "r")
    assert run.meta["status"] == "diverged"
    with pytest.raises(RunError, match=r"its training diverged\. Continue: .*--set training\.optimizer\.lr="):
        run.model()


def test_the_command_line_shows_the_option_that_cures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of unscaled data, whose loss is no number; the remedy cures."""
    import numpy as np

    from aevb.apps.cli import main

    np.save(tmp_path / "raw.npy", 1e5 * np.random.default_rng(0).normal(size=(800, 5)))

    def command(values: str, out: str) -> None:
        line = f"aevb train raw.npy --latent 2 --samples 3000 --no-figures --out {out} --set data.values={values}"
        monkeypatch.setattr(sys, "argv", line.split())
        main()

    with pytest.raises(SystemExit, match="1"):
        command("raw", "a")
    words = " ".join(capsys.readouterr().err.split())
    assert re.search(
        r"The loss of ELBO is inf before the first step, since there are data as large as \d.*e\+05\. "
        r".* --set data\.values=standardized$",
        words,
    )
    with pytest.raises(SystemExit, match="0"):
        command("standardized", "b")
    assert Run.open("b").meta["status"] == "complete"


def test_the_last_good_checkpoint_goes_on_with_a_smaller_step(data: Dataset, tmp_path: Path) -> None:
    """A step size that explodes after 20 steps: the checkpoints before are finite, and training goes on from them."""
    bomb = {"type": "linear", "start": 0.0, "end": 1e9, "steps": 40}
    with pytest.raises(TrainingDiverged):
        fit(small(20_000, training__learning_rate=bomb), data, tmp_path / "r", checkpoint_every=0)
    run = Run.open(tmp_path / "r")
    assert run.meta["status"] == "diverged"
    tensors, notes = read_tensors(checkpoint(run))
    number = json.loads(notes["state"])["number"]
    assert number >= 1
    assert all(torch.isfinite(t).all() for t in tensors.values())
    run.recipe = amend(run.recipe, ["training.learning_rate.end=0", "training.optimizer.lr=1e-4"])
    resumed = resume(run, data)
    assert resumed.meta["status"] == "complete"
    assert resumed.meta["steps"] == 200
    assert resumed.recipe.settings["training"]["optimizer"]["lr"] == 1e-4
    assert Run.open(run.path).recipe.settings == resumed.recipe.settings
    assert [line["step"] for line in resumed.metrics()] == sorted({line["step"] for line in resumed.metrics()})


def at_step(monkeypatch: pytest.MonkeyPatch, act: Callable[[Any, int], None]) -> None:
    """Call act(learner, number) after each step of `fit`, before anything is made of it."""
    from aevb.training import events

    steps = events.steps

    def acting(learner: Any, rows: Any) -> Iterator[Any]:
        for step in steps(learner, rows):
            act(learner, step.number)
            yield step

    monkeypatch.setattr(events, "steps", acting)


def test_weights_that_are_not_finite_are_never_saved(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poison(learner: Any, number: int) -> None:
        if number == 6:
            state = next(iter(learner.optimizer.state.values()))
            state["exp_avg_sq"].fill_(math.inf)  # the weights stay as they are: this would go unseen

    at_step(monkeypatch, poison)
    with pytest.raises(TrainingDiverged, match=r"optimizer's memory are not finite after step 6"):
        fit(small(), data, tmp_path / "r", checkpoint_every=0)
    tensors, notes = read_tensors(checkpoint(Run.open(tmp_path / "r")))
    assert json.loads(notes["state"])["number"] == 5
    assert all(torch.isfinite(t).all() for t in tensors.values())


# Going on


@pytest.mark.trap(12)
def test_a_finished_run_trained_for_longer_is_the_longer_run(run: Run, data: Dataset, tmp_path: Path) -> None:
    """The training itself; of the weights that are kept see the next test."""
    assert run.meta["samples"] == 1000
    longer = resume(run, data, samples=2000)
    whole = fit(small(2000), data, tmp_path / "whole")
    assert same(trained(longer), trained(whole))
    assert longer.recipe.settings == whole.recipe.settings
    assert longer.meta["steps"] == whole.meta["steps"] == 20


def test_longer_with_the_same_looks_keeps_the_same_weights(data: Dataset, tmp_path: Path) -> None:
    """Looks every 500 samples, a divisor of the old total: then all is the same, to the last number of the metrics."""
    recipe = small(2000, validation__every=500)
    longer = resume(fit(recipe, data, tmp_path / "a"), data, samples=4000)
    whole = fit(recipe.replace(training__samples=4000), data, tmp_path / "b")
    assert same(read_tensors(checkpoint(longer))[0], read_tensors(checkpoint(whole))[0])
    assert same(*(read_tensors(r.path / "weights.safetensors")[0] for r in (longer, whole)))
    lines = [[{k: v for k, v in line.items() if k != "seconds"} for line in r.metrics()] for r in (longer, whole)]
    assert lines[0] == lines[1]


def test_a_finished_run_resumed_is_as_it_was(run: Run, data: Dataset) -> None:
    before = {
        p.name: p.read_bytes() for p in (checkpoint(run), run.path / "weights.safetensors", run.path / "metrics.jsonl")
    }
    again = resume(run, data)
    assert {
        p.name: p.read_bytes() for p in (checkpoint(run), run.path / "weights.safetensors", run.path / "metrics.jsonl")
    } == before
    assert again.meta["status"] == "complete"


def test_given_data_must_be_those_of_the_run(run: Run, data: Dataset) -> None:
    """Shuffled rows too: they would be met in another order."""
    rows = torch.arange(len(data.train)).flip(0)
    other = replace(data, train=replace(data.train, stored=data.train.stored[rows], labels=None))
    with pytest.raises(RunError, match="train has other values in its"):
        resume(run, other, samples=2000)
    assert run.meta["status"] == "complete"


def test_a_total_that_is_behind(run: Run, data: Dataset) -> None:
    before = (run.path / "recipe.toml").read_text()
    with pytest.raises(RunError, match=r"run has seen 1,000 training samples already; a new total must be larger"):
        resume(run, data, samples=500)
    assert (run.path / "recipe.toml").read_text() == before
    assert Run.open(run.path).meta["status"] == "complete"
    assert len(run.metrics()) == 10


@pytest.mark.skipif(os.name == "nt", reason="needs flock")
def test_a_killed_run_is_listed_as_interrupted(run: Run) -> None:
    """Its meta.json still says that it trains; whether it does, the lock says."""
    run.write_meta(status="training")
    assert status(run) == "interrupted"
    with alone(run.path):
        assert status(run) == "training"
    run.write_meta(status="complete")
    assert status(run) == "complete"


@pytest.mark.skipif(os.name == "nt", reason="needs flock")
def test_a_run_that_another_process_trains_is_left_alone(run: Run, data: Dataset) -> None:
    half = run.path / "checkpoint" / ".state.safetensors.1.partial"
    half.write_text("being written")
    before = (run.path / "recipe.toml").read_text()
    with (
        alone(run.path),
        pytest.raises(RunError, match=r"Another process is training .*run\. Wait for it, or stop it first"),
    ):
        resume(run, data, samples=2000)
    assert half.is_file()
    assert (run.path / "recipe.toml").read_text() == before
    assert resume(Run.open(run.path), data, samples=2000).meta["status"] == "complete"
    assert not half.exists()


def test_a_run_without_a_checkpoint_begins_again(run: Run, data: Dataset) -> None:
    whole = trained(run)
    shutil.rmtree(run.path / "checkpoint")
    assert same(trained(resume(run, data)), whole)
    assert [line["step"] for line in run.metrics()] == list(range(1, 11))


def test_only_what_a_checkpoint_can_go_on_with_is_amended() -> None:
    recipe = small()
    changes = ["training.optimizer.lr=1", "training.clip=5", "validation.patience=3", "evaluation.samples=2"]
    amended = amend(recipe, changes)
    assert amended.training().clip == 5
    assert amended.validation().patience == 3
    for change in (
        "latent=3",
        "training.batch=5",
        "training.seed=1",
        "training.optimizer.type=sgd",
        "training.optimizer=sgd",
    ):
        with pytest.raises(
            RecipeError, match=rf"--resume cannot change '{change.partition('=')[0]}', only training\.samples"
        ):
            amend(recipe, [change])


def test_a_line_of_metrics_that_a_crash_cut_off(run: Run) -> None:
    lines = run.metrics()
    with (run.path / "metrics.jsonl").open("a") as f:
        f.write('{"step": 11, "tra')
    assert run.metrics() == lines
    run.forget_after(7)
    assert run.metrics() == lines[:7]


# Watching


def test_patience_stops_and_keeps_the_best_of_the_looks(data: Dataset, tmp_path: Path) -> None:
    """Too large a step size: the validation ELBO falls again, and what is kept is its best."""
    recipe = small(
        60_000, validation__every=500, validation__patience=3, training__optimizer={"type": "adam", "lr": 0.05}
    )
    run = fit(recipe, data, tmp_path / "r")
    looks = {line["step"]: line["validation"] for line in run.metrics() if "validation" in line}
    best = max(looks, key=lambda step: looks[step]["elbo"])
    assert run.meta["stopped"] == "patience"
    assert run.meta["status"] == "complete"
    assert run.meta["best_step"] == best
    assert run.meta["steps"] == max(looks) == best + 3 * 5 < 600
    assert list(looks) == list(range(5, max(looks) + 1, 5))
    bound = elbo(run.model(), data.validation, groups=by_batch)
    for name, value in (("elbo", bound.elbo), ("reconstruction", bound.reconstruction), ("kl", bound.kl.sum(-1))):
        assert looks[best][name] == pytest.approx(float(value.mean()), abs=1e-6)
    assert looks[best]["elbo"] > looks[max(looks)]["elbo"]
    steps = resume(Run.open(run.path), data).meta["steps"]
    assert steps == run.meta["steps"]  # it had stopped


def test_without_patience_the_best_is_kept_too(data: Dataset, tmp_path: Path) -> None:
    recipe = small(8000, validation__every=500, training__optimizer={"type": "adam", "lr": 0.1})
    run = fit(recipe, data, tmp_path / "r")
    looks = {line["step"]: line["validation"]["elbo"] for line in run.metrics() if "validation" in line}
    assert len(looks) == 16
    assert run.meta["steps"] == 80
    best = max(looks, key=lambda step: looks[step])
    assert run.meta["best_step"] == best
    assert float(elbo(run.model(), data.validation, groups=by_batch).elbo.mean()) == pytest.approx(
        looks[best], abs=1e-6
    )


def test_the_average_of_the_weights_is_what_is_judged_and_saved(data: Dataset, tmp_path: Path) -> None:
    run = fit(small(2000, training__ema=0.9), data, tmp_path / "r")
    state, weights = trained(run), read_tensors(run.path / "weights.safetensors")[0]
    assert run.meta["best_step"] == 20
    assert same(
        weights, {k.removeprefix("average.module."): v for k, v in state.items() if k.startswith("average.module.")}
    )
    assert not same(weights, {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})


def test_validation_does_not_depend_on_its_batch_size(data: Dataset, run: Run) -> None:
    """Nats per data point, a mean over points, whose noise is its own: batches of 7 (the last of 6) give what 300
    give."""
    bounds = [elbo(run.model(), data.validation, batch=batch, samples=200) for batch in (7, 300)]
    assert bounds[0].kl.mean(0).tolist() == pytest.approx(bounds[1].kl.mean(0).tolist(), rel=1e-5)
    torch.testing.assert_close(bounds[0].reconstruction, bounds[1].reconstruction, rtol=1e-5, atol=1e-4)
    assert all(len(b.elbo) == 300 for b in bounds)


def test_data_without_a_validation_split_keep_the_last_weights(tmp_path: Path) -> None:
    x = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)).numpy()
    data = array_dataset(x)
    none = Dataset("none", data.train, data.train.take(0), data.test)
    run = fit(Recipe.load("gaussian").replace(training__samples=300), none, tmp_path / "r")
    assert all("validation" not in line for line in run.metrics())
    last = {k.removeprefix("model."): v for k, v in trained(run).items() if k.startswith("model.")}
    assert same(read_tensors(run.path / "weights.safetensors")[0], last)
    with pytest.raises(DataError, match=r"The validation split of r is empty\. Choose another with --split"):
        evaluate_run(run, none, "validation")


def test_progress_is_shown(data: Dataset, tmp_path: Path) -> None:
    seen: list[Progress] = []
    fit(small(1000), data, tmp_path / "r", show=seen.append)
    last = seen[-1]
    assert (last.step, last.samples, last.total) == (10, 1000, 1000)
    assert last.left == 0
    assert last.rate > 0
    assert set(last.numbers) == {"loss", "elbo", "reconstruction", "kl"}


# EvaluationSettings


def test_a_verdict_is_what_evaluate_says(run: Run, data: Dataset) -> None:
    result = evaluate_run(run, data, "validation", settings=EvaluationSettings(3, 7))
    expected = aevb.evaluate(
        run.model(),
        data.validation,
        split="validation",
        importance_samples=7,
        elbo_samples=3,
        labels=data.validation.labels,
        reference=(data.train.frozen(), data.train.labels),
    ).to_dict()
    assert flat(result) == expected
    assert not (run.path / "evaluation-validation.json").exists()  # other settings than the recipe's leave no verdict
    verdict = flat(evaluate_run(run, data))
    assert verdict["importance_samples"] == 5  # of the recipe
    assert json.loads((run.path / "evaluation-test.json").read_text()) == verdict
    assert evaluate_run(run, data, limit=10)["n"] == 10
    assert evaluate_run(run, data, settings=EvaluationSettings(importance_samples=3))["importance_samples"] == 3
    assert json.loads((run.path / "evaluation-test.json").read_text()) == verdict


def test_an_interrupted_run_of_another_process_can_be_read(run: Run) -> None:
    """Loading a run needs nothing but its folder: a fresh process gives the same codes, bit for bit."""
    code = "import aevb, torch, sys; m = aevb.load(sys.argv[1]); print(m.encode(torch.zeros(1, 1, 8, 8)).tolist())"
    out = subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=True).stdout
    with torch.no_grad():
        assert json.loads(out) == run.model().encode(torch.zeros(1, 1, 8, 8)).tolist()
