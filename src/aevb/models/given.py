"""What a model is given: data of any form for one pass, codes, and a plain sentence where sizes do not fit."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from aevb.data.batch import Batch, as_batch, check_finite, check_rows, readable, suitable, take
from aevb.data.forms import as_tensor
from aevb.errors import ShapeError
from aevb.models.conditional import condition
from aevb.parts import Offers
from aevb.probability.masks import UNKNOWN

MISFITS = ("cannot be multiplied", "size mismatch", "expected input", "channels", "invalid for input", "must match")


class Weighted(Protocol):
    """What has parameters, such as a model."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...


def given(model: Weighted, data: Any) -> Batch:
    """Data for one pass through a model, on its device and in its type; a `Batch` as it is.

    Args:
        data: x (B, *X), or what `aevb.encode` takes, all rows at a time.

    Raises:
        DataError: they have no rows, none that are numbers, or NaN or infinity among them.
    """
    if isinstance(data, Batch) or torch.compiler.is_compiling():
        return as_batch(data)
    weights = next(model.parameters(), torch.empty(0))
    if isinstance(data, Tensor):
        check_rows(data)
        batch = Batch(data.to(weights.device)).as_type(weights.dtype)
    else:
        read = readable(data, weights.device, weights.dtype)
        batch = take(read, torch.arange(len(read), device=weights.device))
    for part in (batch.x, *batch.contexts):
        check_finite(part, holes=part is batch.x and admits_holes(model))
    return batch


def admits_holes(model: Any) -> bool:
    """Whether the likelihood p(x|z) of a model is one of rows with missing cells, NaN."""
    family = getattr(getattr(model, "decoder", None), "family", None)
    offers: Offers | None = getattr(family, "offers", None)
    return offers is not None and offers.missing


def unknown_in(model: Any) -> float:
    """What stands in x for a cell of which nobody knows: of a model of holes not NaN, which is a hole that was seen."""
    family = getattr(getattr(model, "decoder", None), "family", None)
    return UNKNOWN if len(getattr(family, "masked", ())) else torch.nan


def as_codes(model: Weighted, z: Any, shape: torch.Size) -> Tensor:
    """Codes z (*batch, *Z) of the event shape *Z, on the model's device and in its type.

    Raises:
        ShapeError: they have another shape.
    """
    codes = of_model(model, z)
    if codes.shape[codes.ndim - len(shape) :] != shape or codes.ndim < len(shape):
        got = tuple(codes.shape)
        raise ShapeError(f"A code z of this model has the shape {tuple(shape)}; got z of the shape {got}.")
    return codes


def of_model(model: Weighted, part: Any) -> Tensor:
    """Numbers as a tensor on the model's device and in its type."""
    weights, numbers = next(model.parameters(), None), as_tensor(part)
    found: Tensor = numbers if weights is None else numbers.to(weights.device, suitable(numbers, weights.dtype))
    return found


def call(part: nn.Module, names: str, *given: Tensor, batch_dims: int | None = None) -> Any:
    """A part of a model at what it is given; where sizes do not fit, the error names them.

    Args:
        names: what the part is and what it is given, as in "encoder x y".
        batch_dims: of contexts of a `Conditional`; None to call the part as it is.

    Raises:
        ShapeError: the part takes others.
    """
    try:
        return part(*given) if batch_dims is None else condition(part, *given, batch_dims=batch_dims)
    except (RuntimeError, TypeError) as error:
        if not _misfit(part, given, error):
            raise
        raise ShapeError(_sentence(part, names.split(), given, batch_dims or 1, error)) from error


def _misfit(part: nn.Module, given: tuple[Tensor, ...], error: Exception) -> bool:
    if isinstance(error, TypeError):
        try:
            inspect.signature(part.forward).bind(*given)
        except TypeError:
            return True
        return False
    return any(words in str(error) for words in MISFITS)


def _sentence(part: nn.Module, names: list[str], given: tuple[Tensor, ...], batch_dims: int, error: Exception) -> str:
    """What the part was given, what its first layer takes, and what to do."""
    role, shown = names[0], zip(names[1:], given, strict=False)
    sizes = [g[(0,) * batch_dims].numel() for g in given]
    got = " and ".join(f"{name} of {size} numbers" for (name, _), size in zip(shown, sizes, strict=False))
    takes = _takes(part)
    if takes is None:
        return f"The {role} does not take {got} per row: {str(error).splitlines()[0]}."
    said = f"The {role} takes {takes} numbers per row, but got {got}"
    if len(given) == 1 and takes > sizes[0]:
        return f"{said}. Is the model conditional? Then give y too, as in aevb.Pairs(x, y) or y=..."
    if len(given) == 2 and takes == sizes[0]:
        return f"{said}. The model is unconditional: give only {names[1]}."
    return f"{said}."


def _takes(part: nn.Module) -> int | None:
    """How many numbers per row the first layer takes, where it is a linear one."""
    first = next((module for module in part.modules() if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)), None)
    return first.in_features if isinstance(first, nn.Linear) else None
