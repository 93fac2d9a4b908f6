"""Many curves at once: one process each, one thread each, which on a CPU does more than one process with many
threads.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from aevb.reproduce.curves import Curve, follow, read
from aevb.runs.workers import SPAWN, each, workers

Show = Callable[[Sequence["Line"]], None]
_told: Any = None  # the queue on which a worker tells how far it is


class Line:
    """How far one curve is: `seen` of `total` training samples, `rate` of them a second."""

    def __init__(self, curve: Curve, place: Path, samples: int) -> None:
        self.name, self.total = curve.name, curve.budget(samples)
        done = read(curve, place)
        self.seen = self.first = min(int(done.rows[-1]["samples"]), self.total) if done else 0
        self.begun: float | None = None

    def tell(self, seen: int) -> None:
        if self.begun is None:
            self.begun, self.first = time.monotonic(), seen
        self.seen = seen

    @property
    def rate(self) -> float:
        """Training samples a second since it was first heard of; 0 if that is not known yet."""
        if self.begun is None or self.seen == self.first:
            return 0.0
        return (self.seen - self.first) / max(time.monotonic() - self.begun, 1e-3)


def follow_all(curves: Sequence[Curve], place: Path, samples: int, jobs: int, show: Show | None = None) -> None:
    """Follow each curve to its budget, `jobs` at a time. Where one fails the others continue, and its error is raised
    last."""
    lines = {c.name: Line(c, place, samples) for c in curves}
    missing = [c for c in curves if lines[c.name].seen < lines[c.name].total]
    if not missing:
        return
    told, jobs = SPAWN.Queue(), min(jobs, len(missing))

    def look() -> None:
        _listen(told, lines)
        if show:
            show(list(lines.values()))

    items = [(curve, place, samples) for curve in missing]
    with _single_threaded(), workers(jobs, _begin, told) as pool:
        done = [future.exception() for _, future in each(pool, jobs, _work, items, look)]
    for error in done:
        if error is not None:
            raise error


class _single_threaded:
    """Children inherit one thread each: two busy processes with two threads each are slower than one."""

    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")

    def __enter__(self) -> None:
        self.before = {name: os.environ.get(name) for name in self.names}
        os.environ.update(dict.fromkeys(self.names, "1"))

    def __exit__(self, *_: object) -> None:
        for name, value in self.before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin(told: Any) -> None:
    global _told
    _told = told
    torch.set_num_threads(1)


def _work(item: tuple[Curve, Path, int]) -> None:
    curve, place, samples = item
    follow(curve, place, samples, lambda name, seen: _told.put((name, seen)))
    _told.put((curve.name, curve.budget(samples)))


def _listen(told: Any, lines: dict[str, Line]) -> None:
    while True:
        try:
            name, seen = told.get_nowait()
        except queue.Empty:
            return
        lines[name].tell(seen)
