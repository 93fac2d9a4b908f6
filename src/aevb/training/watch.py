"""When a training has diverged: something that moves is no longer a number, or the loss explodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from aevb.errors import AevbError, TrainingDiverged

WATCH = 50  # steps between two looks at the loss; a look waits for the device
FACTOR = 100  # the loss may rise by so many times the largest plausible loss between two looks
HUGE = 1e4  # a weight or a number of the optimizer's memory that is larger tells of a divergence, where a step failed
LEAST = 100.0  # nats: a loss that is always plausible
UNSCALED = 1000.0  # nats per number of x at the first step, far beyond what data of unit size cost


class Watch:
    """Looks every 50 steps at the mean loss since the last look, and whether all that moves is finite.

    A training has diverged where the mean is NaN or infinite, or where it rises, from one look to the next, by more
    than

        100 · max(|first loss|, |lowest mean|, 100 nats).

    A loss that falls is no divergence, however far: a density has no upper bound. A rise over many looks is none
    either, as a schedule may cause it. The weights and the optimizer's memory are checked after steps 1, 2, 4, 8, 16
    and 32 too: data that are far too large overflow them at once, and the loss need not show it.

    Args:
        rate: the optimizer's step size, for the advice.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.losses: list[Tensor] = []  # since the last look
        self.seen = 0
        self.numbers = 1  # of x in a row
        self.first = self.last = self.lowest = math.nan

    def add(self, number: int, x: Tensor, loss: Tensor, end: bool) -> bool:
        """After step `number`, on x (B, *X); `end` after the last. Whether it is time to look at all that moves."""
        self.losses.append(loss)
        self.seen += 1
        if self.seen == 1:
            self.numbers = x[0].numel()
        if self.seen == 1 or len(self.losses) == WATCH or end:
            self.look_at_loss(number)
        return not self.losses or (self.seen < WATCH and self.seen.bit_count() == 1)

    def look_at_loss(self, number: int) -> None:
        mean = float(torch.stack(self.losses).mean())
        if self.seen == 1:
            self.first = self.last = self.lowest = mean
        scale = max(abs(self.first), abs(self.lowest), LEAST)
        if not math.isfinite(mean) or mean - self.last > FACTOR * scale:
            came = f"rose from {self.last:.4g} to" if math.isfinite(mean) else "became"
            first = number - len(self.losses) + 1
            raise self.diverged(f"The loss {came} {mean:.4g} nats within steps {first} to {number}.")
        self.last, self.lowest = mean, min(self.lowest, mean)
        self.losses = []

    def look_at(self, number: int, tensors: Mapping[str, Tensor]) -> None:
        """Raise where one of these tensors holds NaN or infinity after step `number`."""
        floats = {name: v.detach() for name, v in tensors.items() if v.is_floating_point() and v.numel()}
        for name in _far(floats):
            if not bool(torch.isfinite(floats[name]).all()):
                raise self.diverged(
                    f"The weights or the optimizer's memory are not finite after step {number} ({name})."
                )

    @contextmanager
    def divergence(self, number: int, tensors: Callable[[], Mapping[str, Tensor]]) -> Iterator[None]:
        """What fails inside of step `number` fails as `TrainingDiverged` where the weights are at fault.

        They are where one of them is not finite or beyond 10,000, or where a matrix has lost its rank.
        """
        try:
            yield
        except (RuntimeError, ValueError, ArithmeticError) as error:
            if isinstance(error, AevbError):
                raise
            moving = [v for v in tensors().values() if v.is_floating_point() and v.numel()]
            lost = any(not float(v.detach().abs().max()) <= HUGE for v in moving)  # NaN is lost, too
            if not lost and not isinstance(error, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
                raise
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise self.diverged(
                f"Step {number} failed, as the weights are far too large: {first.rstrip('.')}."
            ) from error

    def diverged(self, what: str) -> TrainingDiverged:
        """The error, with the advice that fits the first loss."""
        if self.seen and not math.isfinite(self.first):
            return TrainingDiverged(
                f"{what} It was not a finite number from the first step on. Either one of prior, posterior and "
                "likelihood has no density where another draws: take a posterior such as Normal, or ELBO(beta=0) for "
                "an autoencoder. Or the data are too large: rescale them, as in (x - x.mean(0)) / x.std(0)."
            )
        if abs(self.first) > UNSCALED * self.numbers:
            return TrainingDiverged(
                f"{what} The first loss was {self.first:.2g} nats, so the data are too large. Rescale them, as in "
                "(x - x.mean(0)) / x.std(0).",
                changes=("data.values=standardized",),
            )
        advice = f"Try a smaller step size than {self.rate:g} (lr of the optimizer)."
        return TrainingDiverged(f"{what} {advice}", changes=("training.optimizer.lr=...",))


def _far(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of those whose norm is not finite, in their order: one call and one wait for all of a device and a type."""
    alike: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}
    for name, v in tensors.items():
        alike.setdefault((v.device, v.dtype), {})[name] = v
    far: set[str] = set()
    for group in alike.values():
        norms = torch.stack(torch._foreach_norm(list(group.values())))
        far |= {name for name, finite in zip(group, norms.isfinite().tolist(), strict=True) if not finite}
    return [name for name in tensors if name in far]
