"""Training is really killed, by SIGKILL at random moments and by Ctrl-C, and resumed: it ends as if it had never
stopped.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aevb.data.dataset import Dataset
from aevb.data.sources import load_data
from aevb.runs import files
from aevb.runs.files import read_tensors
from aevb.runs.fit import fit, resume
from aevb.runs.recipe import Recipe
from aevb.runs.store import Run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
KILLS = 24


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data("digits", values="dynamic")


def recipe(**changes: Any) -> Recipe:
    """Everything that has a state: Adam, a moving average, schedules of the step size and of β, looks, patience, noise.

    201 steps of 48, a record at each second, a look at each seventh; a pass through the data is 25 steps, nearly.
    """
    chosen = Recipe.load("bernoulli").override(
        [
            "latent=3",
            "encoder.hidden=[32]",
            "decoder.hidden=[32]",
            "training.samples=9648",
            "training.batch=48",
            "training.ema=0.9",
            "training.clip=50",
            'training.learning_rate={type="cosine", start=1.0, end=0.0, steps=180}',
            'objective.beta={type="linear", start=0.0, end=1.0, steps=100}',
            "validation.every=336",
            "validation.patience=1000",
        ]
    )
    return chosen.replace(**changes)


def weights(run: Run) -> dict[str, bytes]:
    tensors, _ = read_tensors(run.path / "weights.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def state(run: Run) -> dict[str, Tensor]:
    """All that the last checkpoint holds: weights, Adam's memory, average, the best weights."""
    return read_tensors(run.path / "checkpoint" / "state.safetensors")[0]


def numbers(run: Run) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in run.metrics()]


def facts(run: Run) -> dict[str, Any]:
    return {k: run.meta[k] for k in ("status", "stopped", "steps", "samples", "best_step")}


def assert_same_run(a: Run, b: Run) -> None:
    assert weights(a) == weights(b)
    x, y = state(a), state(b)
    assert x.keys() == y.keys()
    assert all(torch.equal(x[k], y[k]) for k in x)
    assert numbers(a) == numbers(b)
    assert facts(a) == facts(b)
    assert a.recipe.settings == b.recipe.settings


def forked(work: Callable[[], None]) -> int:
    """Start a child process with `work`; its id. PyTorch stays as imported, on one thread."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def wait_for(there: Callable[[], bool], child: int) -> None:
    """Until something is there, or the child ended, or does nothing: a fork of a process with threads may deadlock."""
    end = time.monotonic() + 60
    while (
        time.monotonic() < end
        and not there()
        and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    ):
        time.sleep(0.0005)


def killed(child: int) -> bool:
    """SIGKILL: whether it hit a process that was still at work. Any other end must be a good one."""
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked child has no other
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def slowly(seconds: float) -> None:
    """Let half of each file be on disk for a while before the rest of it, so that kills also fall into the writing."""
    whole = files.write_whole

    def write_whole(path: Path, write: Callable[[Path], None]) -> None:
        def halting(beside: Path) -> None:
            write(beside)
            content = beside.read_bytes()
            beside.write_bytes(content[: len(content) // 2])
            time.sleep(seconds)
            beside.write_bytes(content)

        whole(path, halting)

    files.write_whole = write_whole  # in the child alone


def kill_until_done(
    path: Path, data: Dataset, chosen: Recipe, seed: int, halt: float = 0.0
) -> tuple[Run, list[int], int]:
    """Train by as many processes as it takes, each killed at a random moment; the steps of the checkpoints that were
    met."""
    rng, kills, steps, torn = random.Random(seed), 0, [], 0

    def work() -> None:
        if halt:
            slowly(halt)
        if (path / "recipe.toml").is_file():
            resume(Run.open(path), data, checkpoint_every=0)
        else:
            fit(chosen, data, path, checkpoint_every=0)

    while True:
        checkpoint = path / "checkpoint" / "state.safetensors"
        before = checkpoint.stat().st_mtime_ns if checkpoint.is_file() else 0
        child = forked(work)
        if rng.random() < 0.8:  # from the first new checkpoint on; else from the very start
            wait_for(lambda c=checkpoint, b=before: c.is_file() and c.stat().st_mtime_ns > b, child)
        time.sleep(rng.uniform(0, 0.08 + 4 * halt))
        if not killed(child):
            return Run.open(path), steps, torn
        kills += 1
        torn += bool(list(path.rglob(".*.partial")))
        if checkpoint.is_file():
            steps.append(int(json.loads(read_tensors(checkpoint)[1]["state"])["number"]))
        assert kills < 400, f"no end after {kills} kills; the checkpoints stood at {steps}"


def test_training_killed_at_any_moment_ends_in_the_same_bits(tmp_path: Path, data: Dataset) -> None:
    """Rounds of one training each, till enough kills are together; each round ends as the training that was never
    killed."""
    with one_thread():
        whole = fit(recipe(), data, tmp_path / "whole", checkpoint_every=3600)
        kills, rounds, all_steps = 0, 0, set()
        while kills < KILLS:
            run, steps, _ = kill_until_done(tmp_path / f"killed-{rounds}", data, recipe(), seed=rounds)
            assert_same_run(run, whole)
            assert not list(run.path.rglob(".*.partial"))
            assert steps == sorted(steps)
            kills, rounds, all_steps = kills + len(steps), rounds + 1, all_steps | set(steps)
    assert whole.meta["steps"] == 201
    assert len(all_steps) > 5  # not always the same moment


def test_a_kill_while_a_file_is_half_written_costs_nothing(tmp_path: Path, data: Dataset) -> None:
    with one_thread():
        short = recipe(training__samples=960)
        whole = fit(short, data, tmp_path / "whole", checkpoint_every=3600)
        torn = rounds = 0
        while torn < 5:
            run, _, hits = kill_until_done(tmp_path / f"torn-{rounds}", data, short, seed=100 + rounds, halt=0.02)
            assert_same_run(run, whole)
            assert not list(run.path.rglob(".*.partial"))  # what the dead left behind is swept up
            torn, rounds = torn + hits, rounds + 1


def test_patience_survives_kills(tmp_path: Path, data: Dataset) -> None:
    """A learning rate that falls to nothing: the looks stop rising, and both trainings stop at the same step."""
    hasty = recipe(validation__patience=3, training__samples=40_000, training__ema=None)
    with one_thread():
        whole = fit(hasty, data, tmp_path / "whole", checkpoint_every=3600)
        run, _, _ = kill_until_done(tmp_path / "killed", data, hasty, seed=7)
    assert whole.meta["stopped"] == "patience"
    assert whole.meta["steps"] < 834
    assert_same_run(run, whole)
    assert run.meta["steps"] - run.meta["best_step"] == 3 * 7  # three looks of 336 // 48 steps each


# Ctrl-C, as the command line meets it


def command(*words: str, cwd: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-c", "from aevb.apps.cli import main; main()", *words]
    return subprocess.Popen(line, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


SMALL = [
    "--set=encoder.hidden=[16]",
    "--set=decoder.hidden=[16]",
    "--set=evaluation.importance_samples=2",
    "--samples=30000",
]


def test_ctrl_c_saves_says_how_to_go_on_and_nothing_is_lost(tmp_path: Path) -> None:
    process = command("train", "digits", "--out", "here", "--no-figures", *SMALL, cwd=tmp_path)
    metrics = tmp_path / "here" / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and metrics.stat().st_size > 2000):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1] == "Interrupted. Resume with: aevb train --resume here"
    assert "Traceback" not in err
    stopped = Run.open(tmp_path / "here")
    assert stopped.meta["status"] == stopped.meta["stopped"] == "interrupted"
    assert 0 < stopped.meta["steps"] < 300
    assert stopped.model()  # already of use

    process = command("train", "--resume", "here", "--no-figures", cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "resuming here" in err
    assert "after 30,000 training samples" in out
    run = Run.open(tmp_path / "here")
    with one_thread():
        whole = fit(run.recipe, run.dataset(), tmp_path / "whole")
    assert_same_run(run, whole)


def test_interrupted_within_a_record_and_resumed_in_one_process(tmp_path: Path, data: Dataset) -> None:
    """SIGINT at chosen steps, as Ctrl-C gives it: between two records, at a record, at a look, at the last step."""
    with one_thread():
        whole = fit(recipe(), data, tmp_path / "whole")
        for at in (3, 7, 112, 201):
            path = tmp_path / f"at-{at}"

            def press(step: int, at: int = at) -> None:
                if step == at:
                    os.kill(os.getpid(), signal.SIGINT)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("aevb.training.events.steps", pressing(press))
                with pytest.raises(KeyboardInterrupt):
                    fit(whole.recipe, data, path)
            assert Run.open(path).meta["status"] == "interrupted"
            assert Run.open(path).meta["steps"] == at
            assert_same_run(resume(Run.open(path), data), whole)


def pressing(press: Callable[[int], None]) -> Callable[[Any, Any], Iterator[Any]]:
    from aevb.training.train import steps

    def walk(learner: Any, data: Any) -> Iterator[Any]:
        for step in steps(learner, data):
            press(step.number)
            yield step

    return walk
