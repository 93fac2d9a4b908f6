"""Networks whose rows several processes share: each computes its part of a minibatch, and all get the whole result.

What is around the networks (noise, densities, objectives, terms, updates) every process computes for the whole
minibatch. So a bound need not be linear in the rows, and all processes hold the same numbers at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from aevb.errors import RunError

COUPLED = (_NormBase, _DropoutNd, nn.RReLU)  # a row of theirs depends on other rows, or on random numbers
Item = TypeVar("Item")
Found = TypeVar("Found")
LEAST = 2  # rows for each process, below which sharing is not worth a message


@dataclass
class Group:
    """The processes of one training: this one's number, and how many there are."""

    rank: int
    size: int
    busy: bool = field(default=False)  # inside of a shared call: what it calls has its own rows alone

    def span(self, rows: int) -> slice:
        """The rows of this process, of so many; the first processes have one row more where they do not divide."""
        return self.spans(rows)[self.rank]

    def spans(self, rows: int) -> list[slice]:
        each, more = divmod(rows, self.size)
        ends = [0]
        for rank in range(self.size):
            ends.append(ends[-1] + each + (rank < more))
        return [slice(a, b) for a, b in pairwise(ends)]

    def add(self, x: Tensor) -> Tensor:
        """The sum over processes, in place: the same bits in each of them."""
        with messages():
            dist.all_reduce(x)
        return x

    def gather(self, x: Tensor, rows: int) -> Tensor:
        """The rows of all processes, (rows, ...), of this one's x (its rows, ...)."""
        spans = self.spans(rows)
        most = spans[0].stop
        padded = x if len(x) == most else torch.cat([x, x.new_zeros(most - len(x), *x.shape[1:])])
        found = x.new_empty(self.size * most, *x.shape[1:])
        with messages():
            dist.all_gather_single(found, padded.contiguous())
        if rows == self.size * most:
            return found
        parts = found.split(most)
        return torch.cat([part[: span.stop - span.start] for part, span in zip(parts, spans, strict=True)])


@contextmanager
def messages() -> Iterator[None]:
    """A message that fails, as its receiver has ended, is a `RunError`."""
    try:
        yield
    except RuntimeError as error:
        raise RunError(
            "Another process of this training has ended, so this one cannot continue: see its own error. A run's last"
            " checkpoint is saved: start all processes again with --resume."
        ) from error


_GROUP: ContextVar[Group | None] = ContextVar("group", default=None)  # other threads of the process have none
_ENTERED: list[Group | None] = []  # of all threads; where it is empty, a compiled step reads nothing else


def group() -> Group | None:
    """The processes that share the rows of networks; None where this one is alone."""
    return _GROUP.get() if _ENTERED else None


@contextmanager
def sharing(members: Group) -> Iterator[Group]:
    """Share the rows of networks with the other processes inside of this block, which all of them enter."""
    with _member_of(members):
        yield members


def alone() -> AbstractContextManager[None]:
    """Compute all rows in this process inside of this block, which the others do not enter."""
    return _member_of(None)


def dealt_out(parts: Iterable[Item], work: Callable[[Item], Found]) -> list[Found]:
    """work(part) for each part in turn; of several processes each does its share, and all get all that was found.

    What is found must not depend on which process finds it, nor on the parts before.
    """
    members = group()
    if members is None:
        return [work(part) for part in parts]
    with alone():
        own = [work(part) for part in islice(parts, members.rank, None, members.size)]
    found: list[list[Found]] = [[] for _ in range(members.size)]
    with messages():
        dist.all_gather_object(found, own)
    return [found[i % members.size][i // members.size] for i in range(sum(map(len, found)))]


@contextmanager
def _member_of(members: Group | None) -> Iterator[None]:
    before = _GROUP.set(members)
    _ENTERED.append(members)
    try:
        yield
    finally:
        _ENTERED.pop()
        _GROUP.reset(before)


def shared(module: nn.Module, function: Callable[..., Any], *parts: Tensor, dims: Sequence[int] = (0,)) -> Any:
    """function(*parts), each process computing its own rows, and all getting the result for all rows.

    The gradient is that of one process: of parameters and parts the sum over rows, in every process the same.

    Args:
        module: whose parameters the function uses; one that couples rows, or draws, is computed whole by all.
        parts: tensors of which each has a dimension of rows; where their numbers differ, all is computed by all.
        dims: these dimensions; the first one is that of the result too.

    Returns:
        A tensor, or a list of tensors, with rows along the first of `dims`.
    """
    members = group()
    if members is None or members.busy or coupled(module):
        return function(*parts)
    rows, *others = (part.shape[dim] for part, dim in zip(parts, dims, strict=True))
    if rows < LEAST * members.size or any(other != rows for other in others):
        return function(*parts)
    found = _of_own_rows(members, module, function, list(zip(parts, dims, strict=True)))
    if isinstance(found, Tensor):
        return _leave(members, found, rows, dims[0])
    return [_leave(members, part, rows, dims[0]) for part in found]


def _of_own_rows(
    members: Group, module: nn.Module, function: Callable[..., Any], parts: Sequence[tuple[Tensor, int]]
) -> Any:
    """The function of this process's rows, with parameters and parts whose gradients are summed over processes."""
    weights = {f"module.{name}": p for name, p in module.named_parameters()}
    followed = [v for v in (*weights.values(), *(part for part, _ in parts)) if v.requires_grad]
    inside = _enter(members, *followed) if followed and torch.is_grad_enabled() else followed
    entered = dict(zip(map(id, followed), inside, strict=True))
    own = tuple(_own(entered.get(id(part), part), members, dim) for part, dim in parts)
    with _alone(members):
        return functional_call(_Calling(module, function), {k: entered.get(id(p), p) for k, p in weights.items()}, own)


@contextmanager
def _alone(members: Group) -> Iterator[None]:
    """What is called inside of this block has its own rows already."""
    members.busy = True
    try:
        yield
    finally:
        members.busy = False


def coupled(module: nn.Module) -> bool:
    """Whether a row of what this module computes depends on more than its own row and the weights."""
    return module.training and any(isinstance(part, COUPLED) for part in module.modules())


def _own(part: Tensor, members: Group, dim: int) -> Tensor:
    """The rows of this process."""
    span = members.span(part.shape[dim])
    return part.narrow(dim, span.start, span.stop - span.start)


class _Calling(nn.Module):
    """A function that uses the parameters of a module, as a module."""

    def __init__(self, module: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self.functions = module, (function,)  # no second name for the same parameters

    def forward(self, *parts: Tensor) -> Any:
        return self.functions[0](*parts)


class _Enter(torch.autograd.Function):
    """The identity, whose gradient is the sum over processes."""

    @staticmethod
    def forward(ctx: Any, members: Group, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.members = members
        ctx.set_materialize_grads(False)
        return tuple(t.view_as(t) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        sums = iter(_sums(ctx.members, [g for g in gradients if g is not None]))
        return (None, *(None if g is None else next(sums) for g in gradients))


def _sums(members: Group, gradients: Sequence[Tensor]) -> list[Tensor]:
    """The sums over processes, in one message for each type of number."""
    found: dict[int, Tensor] = {}
    for dtype in sorted({g.dtype for g in gradients}, key=str):
        here = [i for i, g in enumerate(gradients) if g.dtype == dtype]
        flat = members.add(torch.cat([gradients[i].flatten() for i in here]))
        parts = flat.split([gradients[i].numel() for i in here])
        found |= {i: part.view(gradients[i].shape) for i, part in zip(here, parts, strict=True)}
    return [found[i] for i in range(len(gradients))]


class _Leave(torch.autograd.Function):
    """The rows of all processes; the gradient of this one's rows is a part of that of all."""

    @staticmethod
    def forward(ctx: Any, members: Group, own: Tensor, rows: int, dim: int) -> Tensor:
        ctx.members, ctx.dim = members, dim
        return members.gather(own.movedim(dim, 0), rows).movedim(0, dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None, None]:
        return None, _own(gradient, ctx.members, ctx.dim), None, None


_enter: Callable[..., tuple[Tensor, ...]] = _Enter.apply
_leave: Callable[..., Tensor] = _Leave.apply
