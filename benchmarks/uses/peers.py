"""The peers, which are never dependencies of the project: an environment and a process of their own, arrays in and out.

The environment is made once from `benchmarks/requirements-tables.txt`, under `benchmarks/.envs`. Where pip would pick
a large accelerator build of torch, set up pip for a processor build first.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environments import interpreter
from benchmarks.uses.cells import Stopwatch

WORKER = Path(__file__).with_name("worker.py")
Arrays = dict[str, np.ndarray[Any, Any]]


@cache
def process() -> subprocess.Popen[str]:
    """The peers' Python, which answers one line for each folder that it is named; it ends with this process."""
    command = [str(interpreter("tables")), str(WORKER)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def ask(folder: str) -> str:
    """The worker's answer on a folder: empty where all went well, else what went wrong."""
    worker = process()
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(folder, file=worker.stdin, flush=True)
    answer = worker.stdout.readline()
    if not answer:
        process.cache_clear()
        return "the peers' process ended"
    return answer.strip()


def call(task: str, arrays: Mapping[str, np.ndarray[Any, Any]], **options: Any) -> Arrays:
    """What a function of worker.py returns, run by the peers' own Python.

    Args:
        task: The function's name.
        arrays: What it reads; text as arrays of str.
        **options: What else it is told: JSON values.

    Returns:
        Its arrays. The processor seconds that the task itself took are added to those of the stopwatch.

    Raises:
        RuntimeError: The peer failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        save: Any = np.savez  # whose keywords are names of arrays
        save(Path(folder) / "in.npz", **{name: plain(values) for name, values in arrays.items()})
        (Path(folder) / "options.json").write_text(json.dumps({"task": task, **options}))
        if wrong := ask(folder):
            raise RuntimeError(wrong)
        with np.load(Path(folder) / "out.npz", allow_pickle=False) as file:
            result = dict(file)
    Stopwatch.elsewhere += float(result.pop("seconds"))
    return result


def plain(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Text as fixed-width characters, which a file holds without pickles."""
    return values.astype(str) if values.dtype == object else values
