"""A step of Algorithm 1 as one CUDA graph: recorded once, then repeated by one call.

A graph repeats what the GPU did, on the same memory. So minibatch, step number and step sizes are in buffers that stay
in place, and the step is a function of them: see `compiled.fuse`. Noise needs no buffer, as a graph reads the seed of
its generator whenever it is repeated. Python asks for as little as it can: rows that are on the GPU are gathered within
the graph, which counts the steps too. All but `Graphs` runs on any device, where `Repeated` stands in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from aevb.data.batch import Batch, Indexable, take
from aevb.data.randomness import cuda_index, seeded
from aevb.errors import RecipeError
from aevb.training.compiled import Called, Fused, numbers_on, step_on

WARM = 3  # steps that are taken one by one before one is recorded: in them libraries prepare themselves
LEAVE_OUT = "Leave training.graph out."
Work = Callable[[], Any]
LossFunction = Callable[[Batch, Tensor], tuple[Tensor, Any]]
READING = {  # for negative scales, and for matrices without a root
    torch.ops.aten.normal.Tensor_Tensor,
    torch.ops.aten.normal.float_Tensor,
    torch.ops.aten._linalg_check_errors.default,
}
NOTHING: AbstractContextManager[None] = nullcontext()


class Recorder(Protocol):
    """Does some work as it comes, or records it to be repeated; inside of `noise` random numbers are of a seed."""

    def noise(self, seed: int, device: torch.device) -> AbstractContextManager[None]: ...
    def warm(self, work: Work) -> Any: ...
    def record(self, work: Work) -> Work: ...


class Graphs:
    """Records on a GPU, on a stream of its own, with noise from a generator of its own.

    Args:
        apart: whether nothing but the graph draws random numbers in a step, so that the process's own generator is left
            alone; else the graph's takes its seed from there.
    """

    def __init__(self, device: torch.device, apart: bool = False) -> None:
        self.device, self.stream, self.apart = device, torch.cuda.Stream(device), apart
        self.own: torch.Generator | None = None  # whose seed the graph reads whenever it is repeated

    def noise(self, seed: int, device: torch.device) -> AbstractContextManager[None]:
        if self.own is None or not self.apart:
            return seeded(seed, device)
        self.own.manual_seed(seed)
        return NOTHING

    def warm(self, work: Work) -> Any:
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        try:
            with torch.cuda.stream(self.stream):
                return work()
        finally:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def record(self, work: Work) -> Work:
        """The work as a graph: recording it does nothing yet; its results are tensors that each repetition rewrites."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.device)
        theirs = torch.cuda.default_generators[cuda_index(self.device)]
        own, before = theirs.clone_state(), theirs.graphsafe_get_state()
        theirs.graphsafe_set_state(own)
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                found = work()
        except RuntimeError as error:
            torch.cuda.set_stream(stream)
            cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            first = str(cause).strip().splitlines()[0]
            raise RecipeError(f"training.graph: the GPU cannot record this step ({first}). {LEAVE_OUT}") from error
        finally:
            theirs.graphsafe_set_state(before)  # one whose recording failed would draw no more
        self.own = own

        def repeat() -> Any:
            if not self.apart:
                own.set_state(theirs.get_state())
            graph.replay()
            if not self.apart:
                theirs.set_state(own.get_state())
            return found

        return repeat


class Repeated:
    """Records nothing, on any device: the work is done again."""

    def noise(self, seed: int, device: torch.device) -> AbstractContextManager[None]:
        return seeded(seed, device)

    def warm(self, work: Work) -> Any:
        return work()

    def record(self, work: Work) -> Work:
        return work


class Recorded:
    """A step of Algorithm 1 that is recorded, on buffers that stay in place.

    The results of a call are copies, which later calls leave alone. A minibatch of another shape than the first is
    computed as it is.

    Args:
        fused: the step; compiled: whether to compile it first.
        read: the minibatch of a step, by its number on the device, where it is recorded too; then a call is given none.
    """

    def __init__(
        self,
        fused: Fused,
        recorder: Recorder,
        read: Callable[[Tensor], Batch] | None = None,
        compiled: bool = False,
    ) -> None:
        self.recorder, self.read, self.counts, self.alone = recorder, read, fused.counts, Called(fused)
        self.step = torch.compile(fused.of_rates) if compiled else fused.of_rates
        self.calls = 0
        self.work: Work | None = None
        self.batch: Batch | None = None  # the buffers of minibatches that are not read
        self.next: tuple[int, list[float]] = (-1, [])  # what the buffers `at` and `rates` hold
        self.at = step_on(0, self.counts[0].device)  # that of the weights
        self.rates = torch.zeros(len(fused.groups), dtype=torch.float64, device=self.at.device)

    def __call__(self, batch: Batch | None, number: int, rates: list[float]) -> Any:
        if batch is not None and not self._fits(batch):
            self.next = (-1, [])
            return self.alone(batch, number, rates)
        self._fill(batch, number, rates)
        self.calls, self.next = self.calls + 1, (-1, [])
        if self.calls <= WARM:
            found = self.recorder.warm(self._work)
        else:
            self.work = self.work or self.recorder.record(self._work)
            found = self.work()
        self.next = number + 1, rates
        return found.copied()

    def _fits(self, batch: Batch) -> bool:
        """Whether the buffers hold such minibatches: of the same parts, shapes and types."""
        return self.read is None and (self.batch is None or _kind(self.batch) == _kind(batch))

    def _work(self) -> Results:
        """The step in its buffers, and the number of the next one."""
        batch = self.read(self.at) if self.read else self.batch
        assert batch is not None
        found = Results.of(*self.step(batch, self.at, self.rates))
        self.at.add_(1)
        torch._foreach_add_(self.counts, 1)
        return found

    def _fill(self, new: Batch | None, number: int, rates: list[float]) -> None:
        """Copy what the step reads into its buffers, as far as they do not hold it."""
        if new is not None:
            if self.batch is None:
                x, y, rows = (None if v is None else v.clone() for v in _parts(new))
                self.batch = Batch(cast(Tensor, x), y, rows, new.of)
            for buffer, part in zip(_parts(self.batch), _parts(new), strict=True):
                if buffer is not None and part is not None:
                    buffer.copy_(part)
        if number != self.next[0]:
            self.at.fill_(number)
        if rates != self.next[1]:
            self.rates.copy_(numbers_on(rates, torch.float64, self.at.device))


def _kind(batch: Batch) -> tuple[Any, ...]:
    return batch.of, *(None if part is None else (part.shape, part.dtype) for part in _parts(batch))


def _parts(batch: Batch) -> tuple[Tensor | None, ...]:
    return batch.x, batch.y, batch.rows


@dataclass(frozen=True)
class Results:
    """The loss of a step and what it logs, single numbers in one tensor, which a GPU copies by one call.

    Attributes:
        numbers: (1 + n,), the loss and the n `names`; others: what else is logged.
    """

    numbers: Tensor
    names: list[str]
    others: dict[str, Any]
    order: list[str]

    @classmethod
    def of(cls, loss: Tensor, info: Mapping[str, Any]) -> Results:
        names = [n for n, v in info.items() if isinstance(v, Tensor) and not v.ndim and v.dtype == loss.dtype]
        numbers = torch.stack([loss.detach(), *(info[n].detach() for n in names)])
        others = {n: v.detach() if isinstance(v, Tensor) else v for n, v in info.items() if n not in names}
        return cls(numbers, names, others, list(info))

    def copied(self) -> tuple[Tensor, dict[str, Any]]:
        """(loss, info), which later steps leave alone."""
        loss, *singles = self.numbers.clone().unbind()
        found = dict(zip(self.names, singles, strict=True))
        found |= {n: v.clone() if isinstance(v, Tensor) else v for n, v in self.others.items()}
        return loss, {name: found[name] for name in self.order}


class Reads(TorchDispatchMode):
    """Inside of the block, what a graph cannot repeat is noted: numbers that Python reads, shapes that depend on them.

    PyTorch tags its operations so.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        of_ints = "index" in func._schema.name and not _has_mask(args)  # their shapes depend on no number
        shaped = torch.Tag.dynamic_output_shape in func.tags and not of_ints
        if shaped or torch.Tag.data_dependent_output in func.tags or func in READING:
            self.found.append(func._schema.name)
        found = func(*args, **(kwargs or {}))
        if _devices(found) - _devices((args, kwargs)) and _devices((args, kwargs)):
            self.found.append("a copy between devices")
        return found


def _devices(values: Any) -> set[str]:
    """Where tensors are."""
    return {v.device.type for v in tree_leaves(values) if isinstance(v, Tensor)}


def _has_mask(args: Sequence[Any]) -> bool:
    masks: list[Tensor] = []
    tree_map_only(Tensor, lambda t: masks.append(t) if t.dtype is torch.bool else None, list(args[1:]))
    return bool(masks)


def recorder_for(device: torch.device, apart: bool = False) -> Recorder:
    """What records on a device; `apart` as in `Graphs`."""
    return Graphs(device, apart) if device.type == "cuda" else Repeated()


def check_graph(device: torch.device, fusible: bool, wrapped: bool = False) -> None:
    """Refuse a graph where there is no GPU that records one, or where a step is more than a function of tensors.

    Raises:
        RecipeError: the weights are not on an NVIDIA GPU; or the step is not `fusible`, see `compiled`; or its loss is
            `wrapped` by another function.
    """
    if wrapped:
        raise RecipeError(f"training.graph is for the loss of the objective itself, not of a wrapper. {LEAVE_OUT}")
    if not fusible:
        raise RecipeError(
            "training.graph is for the optimizers adam and adagrad, without training.clip, and for models without "
            f"buffers, such as batch statistics. {LEAVE_OUT}"
        )
    if device.type != "cuda":
        raise RecipeError(
            f"training.graph is for NVIDIA GPUs (CUDA), and the weights are on the device {device.type!r}. {LEAVE_OUT}"
        )


def check_recordable(loss: LossFunction, parameters: Sequence[Tensor], batch: Batch) -> None:
    """Look at one loss and its gradient: a graph cannot repeat what Python decides by their numbers.

    Raises:
        RecipeError: Python reads a number of them, or a shape depends on one.
    """
    with seeded(0, batch.x.device), Reads() as reads:
        value, _ = loss(batch, torch.tensor(0, device=batch.x.device))
        torch.autograd.grad(value, [p for p in parameters if p.requires_grad], allow_unused=True)
    if reads.found:
        raise RecipeError(
            f"training.graph: a CUDA graph cannot repeat this step, as what it does depends on its numbers "
            f"({reads.found[0].removeprefix('aten::')}). {LEAVE_OUT}"
        )


def can_read(data: Indexable, device: torch.device) -> bool:
    """Whether a graph can gather rows: they are on the device, and Python reads no number of them."""
    with seeded(0, device), Reads() as reads:
        batch = take(data, torch.zeros(1, dtype=torch.int64, device=device))
    return batch.x.device.type == device.type and not reads.found
