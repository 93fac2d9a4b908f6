"""A step of Algorithm 1 as one CUDA graph: recorded once, then repeated by one call.

A graph repeats what the GPU did, on the same memory. So minibatch, step number and the optimizer's numbers are copied
into buffers that stay in place, and the step is a function of them: see `compiled.fuse`. Noise needs no buffer, as a
graph reads the seed of PyTorch's generator whenever it is repeated. All but `Graphs` runs on any device, where
`Repeated` stands in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from aevb.data.batch import Batch
from aevb.data.randomness import seeded
from aevb.errors import RecipeError

WARM = 3  # steps that are taken one by one before one is recorded: in them libraries prepare themselves
LEAVE_OUT = "Leave training.graph out."
Work = Callable[[], Any]
LossFunction = Callable[[Batch, Tensor], tuple[Tensor, Any]]


class Recorder(Protocol):
    """Does some work as it comes, or records it to be repeated."""

    def warm(self, work: Work) -> Any: ...
    def record(self, work: Work) -> Work: ...


class Graphs:
    """Records on a GPU, on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    def warm(self, work: Work) -> Any:
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        with torch.cuda.stream(self.stream):
            found = work()
        torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)
        return found

    def record(self, work: Work) -> Work:
        """The work as a graph: recording it does nothing yet; its results are tensors that each repetition rewrites."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                found = work()
        except RuntimeError as error:
            first = str(error).strip().splitlines()[0]
            raise RecipeError(f"training.graph: the GPU cannot record this step ({first}). {LEAVE_OUT}") from error

        def repeat() -> Any:
            graph.replay()
            return found

        return repeat


class Repeated:
    """Records nothing, on any device: the work is done again."""

    def warm(self, work: Work) -> Any:
        return work()

    def record(self, work: Work) -> Work:
        return work


class Recorded:
    """A function of (minibatch, step, numbers of the optimizers) that is recorded, on buffers that stay in place.

    The results of a call are copies, which later calls leave alone. A minibatch of another shape than the first is
    computed as it is.
    """

    def __init__(self, function: Callable[[Batch, Tensor, Sequence[Tensor]], Any], recorder: Recorder) -> None:
        self.function, self.recorder = function, recorder
        self.calls = 0
        self.buffers: tuple[Batch, Tensor, list[Tensor]] | None = None
        self.work: Work | None = None

    def __call__(self, batch: Batch, step: Tensor, numbers: Sequence[Tensor]) -> Any:
        if self.buffers is not None and batch.x.shape != self.buffers[0].x.shape:
            return self.function(batch, step, numbers)
        self._fill(batch, step, numbers)
        self.calls += 1
        if self.calls <= WARM:
            found = self.recorder.warm(self._work)
        else:
            self.work = self.work or self.recorder.record(self._work)
            found = self.work()
        return tree_map_only(Tensor, torch.clone, found)

    def _work(self) -> Any:
        assert self.buffers is not None
        return self.function(*self.buffers)

    def _fill(self, batch: Batch, step: Tensor, numbers: Sequence[Tensor]) -> None:
        """Copy what the step reads into its buffers, which are made at the first call."""
        if self.buffers is None:
            x, y, rows = (None if v is None else v.clone() for v in _parts(batch))
            own = Batch(cast(Tensor, x), y, rows, batch.of)
            self.buffers = own, step.clone(), [n.clone() for n in numbers]
            return
        kept, at, scalars = self.buffers
        pairs = [(a, b) for a, b in zip(_parts(kept), _parts(batch), strict=True) if a is not None and b is not None]
        for buffer, new in [*pairs, (at, step), *zip(scalars, numbers, strict=True)]:
            buffer.copy_(new)


def _parts(batch: Batch) -> tuple[Tensor | None, ...]:
    return batch.x, batch.y, batch.rows


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
        if shaped or torch.Tag.data_dependent_output in func.tags:
            self.found.append(func._schema.name)
        return func(*args, **(kwargs or {}))


def _has_mask(args: Sequence[Any]) -> bool:
    masks: list[Tensor] = []
    tree_map_only(Tensor, lambda t: masks.append(t) if t.dtype is torch.bool else None, list(args[1:]))
    return bool(masks)


def recorder_for(device: torch.device) -> Recorder:
    return Graphs(device) if device.type == "cuda" else Repeated()


def check_graph(device: torch.device, fusible: bool) -> None:
    """Refuse a graph where there is no GPU that records one, or where a step is more than a function of tensors.

    Raises:
        RecipeError: the weights are not on an NVIDIA GPU; or the step is not `fusible`, see `compiled`.
    """
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
