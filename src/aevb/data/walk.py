"""How long walks go, of estimators and over the rows of data: how many numbers at a time, and whom they tell how far
they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int], None]  # (done so far, to do in all)
Part = TypeVar("Part", bound=Sized)

CPU_MEMORY = 2**20  # numbers decoded at a time: few enough for the processor's cache, enough for a matrix product
GPU_MEMORY = 2**26  # enough to keep thousands of cores busy


@dataclass(frozen=True)
class Walk:
    """How a walk goes; None where nobody has asked for anything."""

    memory: int | None = None
    progress: Progress | None = None
    reading: Progress | None = None


PLAIN = Walk()
WALK = ContextVar("WALK", default=PLAIN)  # of this thread, or of this task of asyncio


@contextmanager
def walking(
    *, memory: int | None = None, progress: Progress | None = None, reading: Progress | None = None
) -> Iterator[None]:
    """Set how much estimators compute at a time within a block: `log_marginal`, `log_marginal_ais`, `bidirectional`,
    `log_predictive`, `score`, `evaluate`, `surgery`, and all that calls them.

        with aevb.walking(memory=2**18, progress=lambda done, total: print(f"{done / total:.0%}")):
            found = aevb.log_marginal(model, data, 5000)

    An inner block changes what it names and keeps the rest of the outer one. A block holds for its own thread: another
    thread begins without one.

    Args:
        memory: how many numbers to compute at a time. An estimator of log p(x) counts decoded numbers of x, 2²⁰ by
            default and 2²⁶ on a GPU. `surgery` counts densities of single latents, 2²² by default. It changes speed and
            memory; estimates change only by rounding.
        progress: called with (done, total) after every part. Importance sampling counts decoded samples, N K in all;
            `log_predictive` does so anew for each draw. Annealing counts transitions of chains, N K T, and
            `bidirectional` 2 n K T.
        reading: called with (done, total) rows in each pass over all rows of a data set: to check and to store them, to
            find mean and standard deviation, and to hash them.

    Raises:
        ValueError: memory is below 1.
    """
    if memory is not None and memory < 1:
        raise ValueError(f"walking: memory must be at least 1; got {memory}.")
    outer = WALK.get()
    token = WALK.set(Walk(memory or outer.memory, progress or outer.progress, reading or outer.reading))
    try:
        yield
    finally:
        WALK.reset(token)


def at_once(otherwise: int) -> int:
    """How many numbers to compute at a time, by default `otherwise`."""
    return WALK.get().memory or otherwise


def decoded_at_once(device: torch.device) -> int:
    """How many numbers to decode at a time, by default what is fastest on a device."""
    return at_once(CPU_MEMORY if device.type == "cpu" else GPU_MEMORY)


class Counter:
    """Tells the walk's `progress`, or another, how much of `total` is done."""

    def __init__(self, total: int, progress: Progress | None = None) -> None:
        self.done, self.total, self.progress = 0, total, progress or WALK.get().progress

    def __call__(self, n: int) -> None:
        self.done += n
        if self.progress is not None:
            self.progress(self.done, self.total)


def passed(parts: Iterable[Part], total: int) -> Iterator[Part]:
    """Parts of rows, one after the other in a pass over all `total` rows; the walk's `reading` is told of each."""
    tell = WALK.get().reading
    if tell is None:
        yield from parts
        return
    count = Counter(total, tell)
    try:
        for part in parts:
            yield part
            count(len(part))
    finally:
        if count.done < total:  # nobody wanted the rest
            tell(total, total)
