"""One cell of a table: a method on a data set with a seed. Each is a line of JSON, and is measured once."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.report import processor

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"
DATA = Path(os.environ.get("AEVB_DATA") or HERE.parents[2] / "shared" / "data")

Key = tuple[str, str, str, int]
Numbers = dict[str, float]


@dataclass(frozen=True)
class Cell:
    """What is to be measured. `run` returns numbers, among them `seconds`, those of the method without the judging."""

    protocol: str
    data: str
    method: str
    seed: int
    run: Callable[[], Numbers]

    @property
    def key(self) -> Key:
        return self.protocol, self.data, self.method, self.seed


@dataclass(frozen=True)
class Result:
    """A measured cell: its numbers, its processor seconds, and the load, commit and machine of the measurement."""

    protocol: str
    data: str
    method: str
    seed: int
    numbers: Numbers
    seconds: float
    load: float
    commit: str
    machine: str = ""

    @property
    def key(self) -> Key:
        return self.protocol, self.data, self.method, self.seed


def read(path: Path) -> list[Result]:
    """All measured cells of a results file; none where there is no file."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return [Result(**json.loads(line)) for line in lines if line.strip()]


def commit() -> str:
    """The commit of this checkout, with a plus where files differ from it."""
    git = ["git", "-C", str(HERE)]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, check=False)
    return (name.stdout.strip() or "unknown") + ("+" if changed.returncode else "")


class Stopwatch:
    """Processor seconds of the method alone: `with Stopwatch() as watch: ...`, then `watch.seconds`.

    Processor time, summed over threads, is the same on a busy machine. `Stopwatch.elsewhere` holds what the peers'
    process has spent so far: peers.py adds to it.
    """

    elsewhere: ClassVar[float] = 0.0
    seconds: float = 0.0

    def __enter__(self) -> Stopwatch:
        self._start = time.process_time() + Stopwatch.elsewhere
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.process_time() + Stopwatch.elsewhere - self._start


def measure(cell: Cell) -> Result:
    """One cell; `seconds` among its numbers stand apart from the others."""
    load = os.getloadavg()[0]
    numbers = dict(cell.run())
    seconds = numbers.pop("seconds")
    return Result(*cell.key, numbers, round(seconds, 3), round(load, 2), commit(), processor())


def measured(cells: Iterable[Cell], path: Path, jobs: int = 1) -> Iterator[str]:
    """Measures what the file lacks, adds each cell to it at once, and says in a line what came out.

    Args:
        cells: All cells of a protocol.
        path: The results file; what it holds is not measured again.
        jobs: How many cells to measure at a time, each in a process of its own.

    Returns:
        A line for each cell that was measured or failed.
    """
    known = {result.key for result in read(path)}
    missing = [cell for cell in cells if cell.key not in known]
    with ProcessPoolExecutor(jobs, get_context("spawn")) if jobs > 1 else nullcontext() as pool:
        for cell, result in at_once(missing, pool) if pool else ((cell, tried(cell)) for cell in missing):
            if isinstance(result, str):
                yield f"{' '.join(map(str, cell.key))}: failed: {result}"
                continue
            append(path, asdict(result))
            yield f"{' '.join(map(str, cell.key))}: {shown(result.numbers)}, {result.seconds:.1f} s"


def at_once(cells: Iterable[Cell], pool: Executor) -> Iterator[tuple[Cell, Result | str]]:
    """Cells as they end."""
    waiting = {pool.submit(tried, cell): cell for cell in cells}
    for done in as_completed(waiting):
        yield waiting[done], done.result()


def tried(cell: Cell) -> Result | str:
    """The result of a cell, or what failed: one failing peer must not end hours of the others."""
    try:
        return measure(cell)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def shown(numbers: Numbers) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
