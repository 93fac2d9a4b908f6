"""What lies between two codes: the decoded data of a straight line."""

from __future__ import annotations

import torch
from torch import Tensor

from aevb.data.batch import Data
from aevb.errors import DataError, ShapeError
from aevb.models.given import given
from aevb.models.inference import Model, inference
from aevb.use.reconstruct import decode


def interpolate(model: Model, a: Data, b: Data, steps: int = 11) -> Tensor:
    """The means of p(x|z) between two data points, at z = (1-t) E[q(z|a)] + t E[q(z|b)].

    Args:
        a, b: x (N, *X) each, as of `encode`. Conditions y, where both have them, go along the same line.
        steps: T, of t = 0, ..., 1 in equal steps.

    Returns:
        (N, T, *X), on the CPU, without a gradient.

    Raises:
        ShapeError: a and b differ in shape, or there are fewer than 2 steps.
    """
    with inference(model, 0):
        ends = given(model, a), given(model, b)
        if ends[0].x.shape != ends[1].x.shape:
            shapes = tuple(tuple(end.x.shape) for end in ends)
            raise ShapeError(f"interpolate: both ends need the same shape; got {shapes[0]} and {shapes[1]}.")
        z = [model.encode(end) for end in ends]
    y = None if ends[0].y is None or ends[1].y is None else (ends[0].y, ends[1].y)
    return paths(model, z[0], z[1], steps, y)


def paths(
    model: Model, starts: Tensor, ends: Tensor, steps: int = 11, y: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """The means of p(x|z) along the lines between codes z₀ and z₁, (N, *Z) each: (N, T, *X), on the CPU.

    Args:
        y: conditions (N, *C) at both ends, which go along the same line.
    """
    if steps < 2:
        raise ShapeError(f"A line has at least 2 steps, its ends; got {steps}.")
    x = decode(model, line(starts, ends, steps).flatten(0, 1), None if y is None else line(*y, steps).flatten(0, 1))
    return x.reshape(-1, steps, *x.shape[1:])


def line(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """(1-t) a + t b of a and b (N, *), t = 0, ..., 1: (N, T, *)."""
    t = torch.linspace(0, 1, steps, device=a.device).view(1, -1, *[1] * (a.ndim - 1))
    return torch.lerp(a.unsqueeze(1), b.unsqueeze(1), t)


def different_pairs(labels: Tensor, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """n random pairs of rows whose labels (N,) differ: two tensors of row numbers, (n,).

    Raises:
        DataError: all labels are the same.
    """
    labels = labels.cpu()
    if len(labels.unique()) < 2:
        raise DataError("Pairs of different classes need at least two classes; all labels are the same.")
    generator = torch.Generator().manual_seed(seed)
    found = torch.empty(2, 0, dtype=torch.int64)
    while found.shape[1] < n:
        pairs = torch.randint(len(labels), (2, 2 * n), generator=generator)
        found = torch.cat([found, pairs[:, labels[pairs[0]] != labels[pairs[1]]]], 1)
    return found[0, :n], found[1, :n]


def arc(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """Spherical interpolation of codes a and b (N, D), t = 0, ..., 1: (N, T, D); Shoemake 1985.

        z(t) = (sin((1-t) ω) a + sin(t ω) b) / sin ω,   ω the angle between a and b

    The lengths go along a line; the line itself where a and b have one direction, opposite ones, or no length.
    """
    length = line(a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True), steps)
    u, v = (torch.nn.functional.normalize(z, dim=1) for z in (a, b))
    angle = (u * v).sum(1).clamp(-1, 1).acos().view(-1, 1, 1)
    t = torch.linspace(0, 1, steps, device=a.device).view(1, -1, 1)
    turned = (((1 - t) * angle).sin() * u.unsqueeze(1) + (t * angle).sin() * v.unsqueeze(1)) / angle.sin()
    straight = (angle.sin().abs() < 1e-3) | (length.amin(1, keepdim=True) == 0)
    return torch.where(straight, line(a, b, steps), length * turned)


def route(stops: Tensor, steps: int, *, spherical: bool = False) -> Tensor:
    """The codes along a way through several codes (P, D): ((P - 1) T - (P - 2), D), each stop once.

    Args:
        steps: T, from one stop to the next, both counted.

    Raises:
        ShapeError: there are fewer than two stops, or two steps.
    """
    if len(stops) < 2 or steps < 2:
        raise ShapeError(f"A way has two stops and two steps at least; got {len(stops)} and {steps}.")
    legs = (arc if spherical else line)(stops[:-1], stops[1:], steps)
    return torch.cat([stops[:1], legs[:, 1:].flatten(0, 1)])
