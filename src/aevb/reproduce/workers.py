"""Many curves at once: one process each, one thread each, which on a CPU does more than one process with many
threads.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch

from aevb.reproduce.curves import Curve, follow, read

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
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    with _single_threaded(), ProcessPoolExecutor(min(jobs, len(missing)), context, _begin, (told,)) as pool:
        waiting: set[Future[None]] = {pool.submit(_work, curve, place, samples) for curve in missing}
        failed: list[BaseException] = []
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                _listen(told, lines)
                failed += [error for future in done if (error := future.exception()) is not None]
                if show:
                    show(list(lines.values()))
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise
    if failed:
        raise failed[0]


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends its children
    torch.set_num_threads(1)


def _work(curve: Curve, place: Path, samples: int) -> None:
    follow(curve, place, samples, lambda name, seen: _told.put((name, seen)))
    _told.put((curve.name, curve.budget(samples)))


def _listen(told: Any, lines: dict[str, Line]) -> None:
    while True:
        try:
            name, seen = told.get_nowait()
        except queue.Empty:
            return
        lines[name].tell(seen)
