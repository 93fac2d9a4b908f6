"""Numbers that change while training: functions of the step count, which may be a tensor on the training device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from aevb.parts import SCHEDULE

if TYPE_CHECKING:
    from aevb.models.trace import Trace

Step = int | Tensor
Schedule = Callable[[Step], Any]


@runtime_checkable
class Paced(Protocol):
    """A module with a number that follows a schedule: training calls `pace` before every step, and then takes it.

    It keeps the number in a buffer, which is saved with the model, and which a compiled step reads.
    """

    def pace(self, step: int, /) -> None: ...


@runtime_checkable
class Learns(Protocol):
    """A module that learns otherwise than by a gradient: training calls `learn` once after every step, and nobody else.

    It keeps what it learned in buffers, which are saved with the model. `t` is a trace of the step's minibatch.
    """

    def learn(self, t: Trace, /) -> None: ...


@dataclass(frozen=True)
class Linear:
    """From `start` to `end` in `steps` steps, constant afterwards. As β it is the linear warm-up (arXiv 1602.02282)."""

    word, roles = "linear", (SCHEDULE,)
    equation = "from {start} to {end} in {steps} steps"

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check(self.steps)

    def __call__(self, step: Step) -> Any:
        return self.start + (self.end - self.start) * _fraction(step, self.steps)


@dataclass(frozen=True)
class Cosine:
    """From `start` to `end` along half a cosine in `steps` steps, constant afterwards (arXiv 1608.03983)."""

    word, roles = "cosine", (SCHEDULE,)
    equation = "from {start} to {end} in {steps} steps, along a cosine"

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check(self.steps)

    def __call__(self, step: Step) -> Any:
        t = _fraction(step, self.steps)
        wave = torch.cos(math.pi * t) if isinstance(t, Tensor) else math.cos(math.pi * t)
        return self.end + (self.start - self.end) * 0.5 * (1 + wave)


@dataclass(frozen=True)
class Exponential:
    """`start` · `rate`^(step / `steps`): multiplied by `rate` every `steps` steps."""

    word, roles = "exponential", (SCHEDULE,)
    equation = "falling as {start} · {rate}^(step/{steps})"

    start: float
    rate: float
    steps: int

    def __post_init__(self) -> None:
        _check(self.steps)

    def __call__(self, step: Step) -> Any:
        return self.start * self.rate ** (step / self.steps)


@dataclass(frozen=True)
class Cyclical:
    """Linear rises from `start` to `end`, one in every `steps` steps (Fu et al. 2019, arXiv 1903.10145).

    A rise takes the first part of a cycle, `ramp` (the paper's R) of it, and `end` holds for the rest.
    """

    word, roles = "cyclical", (SCHEDULE,)
    equation = "from {start} to {end} in the first {ramp} of every {steps} steps"

    start: float
    end: float
    steps: int
    ramp: float = 0.5

    def __post_init__(self) -> None:
        _check(self.steps)
        if not 0 < self.ramp <= 1:
            raise ValueError(f"A cyclical schedule needs 0 < ramp ≤ 1; got {self.ramp}.")

    def __call__(self, step: Step) -> Any:
        return self.start + (self.end - self.start) * _fraction(step % self.steps, self.ramp * self.steps)


@dataclass(frozen=True)
class Piecewise:
    """values[0] until step ends[0], values[1] until ends[1], ..., the last value for ever after."""

    word, roles = "piecewise", (SCHEDULE,)
    equation = "of {values}, the next at step {ends} each"

    values: Sequence[float]
    ends: Sequence[int]

    def __post_init__(self) -> None:
        if (
            len(self.values) != len(self.ends) + 1
            or list(self.ends) != sorted(set(self.ends))
            or min(self.ends, default=1) < 1
        ):
            raise ValueError(
                "A piecewise schedule needs rising ends ≥ 1, and one value more than ends; "
                f"got the ends {list(self.ends)} and {len(self.values)} values."
            )

    def __call__(self, step: Step) -> Any:
        jumps = zip(self.ends, self.values, self.values[1:], strict=False)
        return self.values[0] + sum((b - a) * (step >= end) for end, a, b in jumps)


def _check(steps: int) -> None:
    if not steps >= 1:
        raise ValueError(f"A schedule needs steps ≥ 1; got {steps}. For a constant, give the plain number.")


def value(number: float | Schedule, step: Step) -> Any:
    """A plain number, or a schedule at `step`."""
    return number(step) if callable(number) else number


def arrival(schedule: Schedule) -> int:
    """The step from which a schedule is constant; 0 for one that never is."""
    if isinstance(schedule, Piecewise):
        return max(schedule.ends, default=0)
    return schedule.steps if isinstance(schedule, Linear | Cosine) else 0


def _fraction(step: Step, steps: float) -> Any:
    if isinstance(step, Tensor):
        return (step / steps).clamp(0, 1)
    return min(max(step / steps, 0.0), 1.0)
