"""Data through the code and back."""

from __future__ import annotations

import torch
from torch import Tensor

from aevb.data.batch import Indexable, batches, check_finite
from aevb.errors import ShapeError
from aevb.models.given import of_model
from aevb.models.inference import Model, code_batches, dtype_of, inference, with_holes
from aevb.probability.columns import exposed


def reconstruct(model: Model, data: Indexable) -> Tensor:
    """The means of p(x|z) at z = E_q[z|x] of every data point.

    Args:
        data: x (N, *X), as of `encode`.

    Returns:
        (N, *X), on the CPU, without a gradient, in the model's numbers: `Values.inverse` gives the data's units.

    Raises:
        DataError: there are no rows, or NaN or infinity in them.
        ShapeError: the model reads data of another size.
    """
    with inference(model, 0) as device:
        walk = batches(with_holes(model, data), None, device, dtype_of(model))
        return torch.cat([exposed(model.decode(model.encode(b), b.y), b.x).mean.cpu() for b in walk])


def decode(model: Model, z: Tensor, y: Tensor | None = None) -> Tensor:
    """The means of p(x|z) at codes, without a gradient; `model.decode` gives p(x|z) itself.

    Args:
        z: codes (N, *Z), or flattened (N, D): a tensor or an array.
        y: conditions (N, *C), or (1, *C) for all, of a conditional model.

    Returns:
        (N, *X), on the CPU.

    Raises:
        ShapeError: codes or conditions have another size than the model's.
        DataError: NaN or infinity in the codes.
    """
    z, y, shape = of_model(model, z), None if y is None else of_model(model, y), model.latent_shape
    if z.ndim < 2 or not len(z) or z[0].numel() != shape.numel():
        raise ShapeError(f"decode: codes need the shape {('N', *shape)}; got {tuple(z.shape)}.".replace("'N'", "N"))
    check_finite(z)
    conditions = conditions_of(y, len(z), "decode")
    with inference(model, 0):
        walk = code_batches(model, z.reshape(len(z), *shape), conditions)
        return torch.cat([model.decode(part, c).mean.cpu() for part, c in walk])


def conditions_of(y: Tensor | None, n: int, who: str) -> Tensor | None:
    """Conditions (n, *C) of n data points, from as many or from one for all.

    Raises:
        ShapeError: there are others.
    """
    if y is not None and (y.ndim < 2 or len(y) not in (1, n)):
        raise ShapeError(
            f"{who}: {n} data points need {n} conditions y (N, C), or one for all; got the shape {tuple(y.shape)}."
        )
    return None if y is None else y.expand(n, *y.shape[1:])
