"""The random numbers of a step as data: what it draws is noted once, drawn ahead, and handed to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from aevb.data.randomness import seeded

IN_PLACE = (torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.exponential_, torch.Tensor.log_normal_)
LIKE = (torch.rand_like, torch.randn_like)
FRESH = (torch.rand, torch.randn)


class Unstackable(Exception):
    """Models that cannot be trained as one stack; the text says why."""


@dataclass(frozen=True)
class Draw:
    """One call that draws random numbers of a fixed shape and law, whatever the weights are."""

    call: Callable[..., Tensor]
    shape: torch.Size
    arguments: tuple[Any, ...]
    settings: tuple[tuple[str, Any], ...]
    like: tuple[torch.dtype, torch.device]

    def __call__(self) -> Tensor:
        """Draw again, as this call would now."""
        settings = dict(self.settings)
        if self.call in FRESH:
            return self.call(*self.arguments, **settings)
        of = torch.empty(self.shape, dtype=self.like[0], device=self.like[1])
        return self.call(of, *self.arguments, **settings)

    @classmethod
    def of(cls, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any], made: Tensor | None = None) -> Draw:
        """That of a call; of one that makes a tensor of a size, `made` is that tensor."""
        of: Tensor = args[0] if made is None else made
        rest = args if call in FRESH else args[1:]
        if any(isinstance(part, Tensor) for part in (*rest, *kwargs.values())):
            raise Unstackable("it draws random numbers from a distribution that depends on the weights")
        return cls(call, of.shape, rest, tuple(kwargs.items()), (of.dtype, of.device))


class Noted(TorchFunctionMode):
    """Inside of the block every draw is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Draw] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in (*IN_PLACE, *LIKE, *FRESH):
            self.draws.append(Draw.of(func, args, kwargs or {}, made))
        return made


class Given(TorchFunctionMode):
    """Inside of the block every draw gets the next of these numbers."""

    def __init__(self, numbers: Sequence[Tensor]) -> None:
        super().__init__()
        self.numbers: Iterator[Tensor] = iter(numbers)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in (*IN_PLACE, *LIKE, *FRESH):
            return func(*args, **(kwargs or {}))
        found = next(self.numbers, None)
        if found is None:
            raise Unstackable("its steps draw different numbers of random numbers")
        return found


def draws_of(work: Callable[[], object], device: torch.device) -> list[Draw]:
    """The random numbers that some work draws, in order.

    Raises:
        Unstackable: it draws others than normal and uniform ones, such as those of dropout.
    """
    noted = Noted()
    with seeded(0, device):
        with noted:
            work()
        after = torch.rand((), device=device)
    with seeded(0, device):
        for draw in noted.draws:
            draw()
        again = torch.rand((), device=device)
    if not torch.equal(after, again):
        raise Unstackable("it draws by another law than a normal or a uniform one")
    return noted.draws
