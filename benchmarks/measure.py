"""All contenders alive at once, each asleep until its turn: rounds are interleaved so that drift hits all alike."""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from benchmarks.contenders import Contender, Task
from benchmarks.environments import ROOT, interpreter

REPOSITORY = Path(__file__).parent.parent
PATIENCE = 1800.0  # seconds until a silent worker counts as failed


class WorkerFailed(Exception):
    """A worker died or fell silent; the text says why."""


@dataclass(frozen=True)
class Settings:
    rounds: int
    threads: int
    data_dir: Path


@dataclass
class Result:
    """What one contender did; ``nats`` holds the loss of the warm-up and then of each round."""

    name: str
    failure: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warm_up: float = 0.0
    seconds: list[float] = field(default_factory=list)
    nats: list[float] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Worker:
    """A contender's process."""

    def __init__(self, contender: Contender, task: Task, settings: Settings) -> None:
        logs = ROOT / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self.log = logs / f"{task.name}-{contender.name}.txt"
        self.process = subprocess.Popen(
            command(contender, task, settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
            cwd=REPOSITORY,
            env=os.environ | thread_variables(settings.threads),
        )
        self.requests = cast(IO[str], self.process.stdin)
        self.answers = cast(IO[str], self.process.stdout)

    def read(self) -> dict[str, Any]:
        """The worker's next line."""
        answered, _, _ = select.select([self.answers], [], [], PATIENCE)
        if not answered:
            raise WorkerFailed(f"silent for {PATIENCE:.0f} s")
        line = self.answers.readline()
        if not line:
            raise WorkerFailed(last_line(self.log))
        return cast(dict[str, Any], json.loads(line))

    def work(self) -> dict[str, Any]:
        """One unit of work."""
        try:
            self.requests.write("go\n")
            self.requests.flush()
        except BrokenPipeError:
            raise WorkerFailed(last_line(self.log)) from None
        return self.read()

    def stop(self) -> None:
        """End this worker, whatever it is doing."""
        self.process.kill()
        self.process.communicate()


def command(contender: Contender, task: Task, settings: Settings) -> list[str]:
    """What starts a contender's process."""
    words = [interpreter(contender.environment), "-m", "benchmarks.workers", contender.module, task.name]
    words += ["--variant", contender.variant, "--data-dir", settings.data_dir, "--threads", settings.threads]
    words += ["--images", task.images, "--samples", task.samples]
    return [str(word) for word in words]


def thread_variables(threads: int) -> dict[str, str]:
    """As many OpenMP threads as asked for. Their wait policy stays at its default: idle threads soon sleep by
    themselves."""
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def last_line(log: Path) -> str:
    """What a failed worker said last: for a Python exception, its message."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "ended without a word"


def measure(task: Task, settings: Settings) -> list[Result]:
    """Start all contenders, warm each up, then measure in interleaved rounds."""
    results = [Result(contender.name) for contender in task.contenders]
    workers: dict[str, Worker] = {}
    try:
        for contender, result in zip(task.contenders, results, strict=True):
            prepare(contender, task, settings, result, workers)
        for number in range(settings.rounds):
            one_round(number, results, workers)
    finally:
        for worker in workers.values():
            worker.stop()
    return results


def prepare(contender: Contender, task: Task, settings: Settings, result: Result, workers: dict[str, Worker]) -> None:
    """Start one worker and do its first unit of work, compilation included."""
    try:
        worker = workers[contender.name] = Worker(contender, task, settings)
        ready = worker.read()
        result.versions, result.notes = ready["versions"], ready["notes"]
        answer = worker.work()
        result.warm_up = answer["seconds"]
        result.nats.append(answer["nats"])
        say(f"{contender.name}: warm-up {result.warm_up:.2f} s, {answer['nats']:.2f} nats")
    except (WorkerFailed, subprocess.CalledProcessError) as error:
        fail(result, error)


def one_round(number: int, results: list[Result], workers: dict[str, Worker]) -> None:
    """One unit of work of every contender, in an order of its own."""
    alive = [result for result in results if not result.failure]
    for result in random.Random(number).sample(alive, len(alive)):
        try:
            answer = workers[result.name].work()
        except WorkerFailed as error:
            fail(result, error)
            continue
        result.seconds.append(answer["seconds"])
        result.nats.append(answer["nats"])
        say(f"round {number + 1}, {result.name}: {answer['seconds']:.2f} s")


def fail(result: Result, error: Exception) -> None:
    result.failure = str(error)
    say(f"{result.name} failed: {error}")


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
