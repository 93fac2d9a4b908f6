"""How models are used: without gradients, in evaluation mode, seeded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from aevb.data.batch import Data, Indexable, Read, has_holes, readable, rows_at_once
from aevb.data.dataset import Dataset
from aevb.data.randomness import seeded
from aevb.models.given import admits_holes
from aevb.models.trace import LatentModel


class Model(LatentModel, Protocol):
    """A latent model that is a module: what evaluation needs."""

    def eval(self) -> object: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...


@contextmanager
def inference(model: Model, seed: int) -> Iterator[torch.device]:
    """Run a block on the model's device without gradients, in evaluation mode, under `seed`; then restore every
    mode."""
    device = next(model.parameters()).device
    with (
        torch.no_grad(),
        seeded(seed, device),
        evaluation_mode(model),
    ):  # the modes last: other threads wait for them too
        yield device


@contextmanager
def evaluation_mode(model: nn.Module | Model) -> Iterator[None]:
    """Run a block with the model in evaluation mode; then restore the mode of every module."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def fitting(model: Model | nn.Module, data: Any, split: str = "") -> Indexable:
    """Data of any form that users hold as ones that the model reads, on its device and in its type; see `readable`.

    Args:
        split: the one to take of a `Dataset`; without it that is refused.
    """
    weights = next(model.parameters())
    rows = getattr(data, split) if split and isinstance(data, Dataset) else data
    return with_holes(model, readable(rows, weights.device, weights.dtype))


def with_holes(model: Any, data: Indexable) -> Indexable:
    """The same data, in which NaN is a missing cell where the model's likelihood admits that."""
    if has_holes(data) or not admits_holes(model):
        return data
    return replace(data, holes=True) if isinstance(data, Read) else Read(data, _device_of(model), dtype_of(model), True)


def numbers_of_columns(model: Any) -> int:
    """How many numbers the decoder of a table gives for one row; 0 of other models."""
    return int(model.decoder.family.size) if admits_holes(model) else 0


def _device_of(model: Any) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device


def prior_of(model: Model, data: Data) -> Distribution:
    """p(z), or p(z|y) at the conditions of some data, which are on the model's device."""
    with inference(model, 0):
        return model.trace(data).p


def code_batches(model: Model, z: Tensor, y: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Codes z (N, *Z) and conditions y (N, *C) on the model's device, as many at a time as memory allows."""
    device = next(model.parameters()).device
    size = rows_at_once(model.decode(z[:1].to(device), None if y is None else y[:1].to(device)).event_shape)
    for start in range(0, len(z), size):
        part = slice(start, start + size)
        yield z[part].to(device), None if y is None else y[part].to(device)


def dtype_of(model: Model) -> torch.dtype:
    """The type of the parameters, and so of the data."""
    return next(model.parameters()).dtype


def as_result(x: Tensor) -> Tensor:
    """A result as it is handed back: float64 on the CPU, where sums over many data points lose nothing."""
    return x.to("cpu", torch.float64)
