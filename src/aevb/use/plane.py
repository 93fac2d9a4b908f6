"""Codes in a plane: their principal components or two of their numbers, and the place of a posterior in it.

    z = origin + u a_1 + v a_2,   (u, v) = ((z - origin)·a_1, (z - origin)·a_2),   a_1, a_2 orthonormal

N: codes; D: numbers of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aevb.data.batch import Indexable
from aevb.errors import ShapeError
from aevb.models.inference import Model
from aevb.use.encode import posterior_draws

INSIDE = 2.1459660262893476  # sqrt(-2 log 0.1): within so many standard deviations are 90 % of a normal in the plane


@dataclass(frozen=True)
class Plane:
    """A plane in the space of codes.

    Attributes:
        origin: (D,); axes: (2, D), orthonormal; both float64.
    """

    origin: Tensor
    axes: Tensor

    def project(self, z: Tensor) -> Tensor:
        """(u, v) of codes z (N, D): (N, 2), float64."""
        return (z.double() - self.origin) @ self.axes.T

    def lift(self, uv: Tensor) -> Tensor:
        """z of places (N, 2) of the plane: (N, D), float64."""
        return self.origin + uv.double() @ self.axes


@dataclass(frozen=True)
class Ellipse:
    """Where in a plane 90 % of a posterior is, as if it were normal there.

    Attributes:
        at: (2,), the mean; radii: the two semi-axes; angle: of the first, radians from the u axis.
    """

    at: tuple[float, float]
    radii: tuple[float, float]
    angle: float


def coordinates(size: int, first: int, second: int) -> Plane:
    """The plane of two numbers of z; the others are 0.

    Raises:
        ShapeError: there are no such two.
    """
    if not (0 <= first < size and 0 <= second < size) or (first == second and size > 1):
        raise ShapeError(f"A plane takes two of the latents 0 to {size - 1}; got {first} and {second}.")
    axes = torch.zeros(2, size, dtype=torch.float64)
    axes[0, first] = 1.0
    if size > 1:
        axes[1, second] = 1.0
    return Plane(torch.zeros(size, dtype=torch.float64), axes)


def principal(codes: Tensor, numbers: Sequence[int] | None = None) -> Plane:
    """The plane of the largest variance of codes (N, D) through their mean (principal component analysis).

    The largest number of an axis is positive, so that the same codes give the same plane.

    Args:
        numbers: of z, which alone may vary, such as those of a layer; None for all.

    Raises:
        ShapeError: there are no codes, or fewer than two numbers.
    """
    chosen = torch.arange(codes.shape[1]) if numbers is None else torch.tensor(list(numbers))
    if not len(codes) or len(chosen) < 2:
        raise ShapeError(f"A plane takes codes of two numbers or more; got {len(codes)} of {len(chosen)}.")
    z = codes.double()
    origin = z.mean(0)
    spread = (z - origin)[:, chosen]
    _, vectors = torch.linalg.eigh(spread.T @ spread)
    best = vectors[:, -2:].flip(1).T
    signs = best.gather(1, best.abs().argmax(1, keepdim=True)).sign()
    axes = torch.zeros(2, codes.shape[1], dtype=torch.float64)
    axes[:, chosen] = best * signs
    return Plane(origin, axes)


def ellipse(model: Model, data: Indexable, plane: Plane, samples: int = 500, *, seed: int = 0) -> Ellipse:
    """Where q(z|x) of one data point is in a plane, by draws.

    Args:
        data: x (1, *X), as of `encode`.
    """
    draws = plane.project(posterior_draws(model, data, samples, seed=seed)[:, 0].flatten(1))
    values, vectors = torch.linalg.eigh(torch.cov(draws.T))
    radii = INSIDE * values.clamp(min=0).sqrt().flip(0)
    first = vectors[:, 1]
    u, v = draws.mean(0).tolist()
    return Ellipse((u, v), (float(radii[0]), float(radii[1])), float(torch.atan2(first[1], first[0])))


def nearest(codes: Tensor, z: Tensor, n: int) -> list[int]:
    """The positions of the n codes (N, D) that are nearest to one code z (D,), the nearest first."""
    far = (codes.double() - z.double()).square().sum(1)
    found: list[int] = far.topk(min(n, len(codes)), largest=False).indices.tolist()
    return found
