"""Where networks meet data of any size: a fixed map of x before the encoder, and a fixed start of the decoder's φ.

Counts and positive numbers may be large, small, or spread over decades. The encoder sees their standardized logarithm,
and the decoder's network says how φ differs from the φ₀ that suits all rows alike. Both maps are buffers, set once from
rows of the training data and saved with the weights. Unset, as in runs of version 0.1, they change nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aevb.models.column_inputs import CellFeatures
from aevb.probability.families import Family, Shape, as_shape, single

SMALL = 1e-6  # of the mean of a column, beside which it is small


class Standardized(nn.Module):
    """x (B, *X) → (log(|x| + a) - m) / s, elementwise: m and s are mean and standard deviation over training rows.

    a is 1 for whole numbers, else 10⁻⁶ of the mean, so that zeros have a place. Numbers behind the first |X|, a context
    beside x, stay as they are.

    Args:
        shape: X.
    """

    small: Tensor
    mean: Tensor
    std: Tensor
    known: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.size = as_shape(shape).numel()
        for name, value in self.unset().items():
            self.register_buffer(name, value)

    def unset(self) -> dict[str, Tensor]:
        """The state in which x stays as it is."""
        one, zero = torch.ones(self.size), torch.zeros(self.size)
        return {"small": one, "mean": zero, "std": one.clone(), "known": torch.zeros(())}

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        own, beside = flat[:, : self.size], flat[:, self.size :]
        standardized = ((own.abs() + self.small).log() - self.mean) / self.std
        return torch.cat([torch.where(self.known > 0, standardized, own), beside], 1).view_as(x)

    @torch.no_grad()
    def start_at(self, x: Tensor) -> None:
        """Take a, m and s from rows of training data (N, *X); the s of a constant is 1."""
        rows = x.flatten(1).double()
        whole = (rows == rows.round()).all(0)
        small = torch.where(whole, 1.0, SMALL * rows.mean(0))
        logs = (rows + small).log()
        std = logs.std(0, correction=0)
        for buffer, value in ((self.small, small), (self.mean, logs.mean(0)), (self.std, std.where(std > SMALL, 1.0))):
            buffer.copy_(value)
        self.known.fill_(1.0)


class Start(nn.Module):
    """φ (B, size) → φ₀ + φ: at φ = 0 the family is the one that suits all rows alike.

    Args:
        family: a likelihood that has a `start`.
    """

    phi: Tensor

    def __init__(self, family: Family) -> None:
        super().__init__()
        self._family = (family,)  # within a tuple it is no part of this module
        self.register_buffer("phi", self.unset()["phi"])

    def unset(self) -> dict[str, Tensor]:
        """The state in which φ stays as it is."""
        return {"phi": torch.zeros(self._family[0].size)}

    def forward(self, phi: Tensor) -> Tensor:
        return single(phi) + single(self.phi)

    @torch.no_grad()
    def start_at(self, x: Tensor) -> None:
        """Take φ₀ from rows of training data (N, *X)."""
        self.phi.copy_(self._family[0].start(x.double()))


BEGINNING = Standardized, Start, CellFeatures  # parts that are set from rows of training data


def start_at(model: nn.Module, x: Tensor) -> None:
    """Set all such maps of a model from rows of training data (N, *X)."""
    for part in model.modules():
        if isinstance(part, BEGINNING):
            part.start_at(x)


def unset(model: nn.Module) -> dict[str, Tensor]:
    """The state of all such maps while they change nothing, by the model's keys: runs of version 0.1 do not hold it."""
    parts = {name: part for name, part in model.named_modules() if isinstance(part, Standardized | Start)}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.unset().items()}
