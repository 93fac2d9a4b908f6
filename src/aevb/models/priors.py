"""Priors p(z): conditionals without a context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import (
    Dirichlet,
    Distribution,
    Exponential,
    Gumbel,
    Independent,
    Laplace,
    LogNormal,
    Normal,
    StudentT,
)

from aevb.errors import ShapeError
from aevb.probability import distributions as d
from aevb.probability.families import Shape, as_shape


class StandardNormal(nn.Module):
    """p(z) = N(0, I), the paper's prior (§3). Event shape `shape`."""

    loc: Tensor
    scale: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        event = as_shape(shape)
        self.register_buffer("loc", torch.zeros(event), persistent=False)
        self.register_buffer("scale", torch.ones(event), persistent=False)

    def forward(self, *context: Tensor) -> Distribution:
        return Independent(Normal(self.loc, self.scale, validate_args=False), self.loc.ndim, validate_args=False)


class Known(nn.Module):
    """p(z) = Π_d p(z_d), or p(z) where `make` gives a distribution of vectors: fixed, with nothing to learn.

    Args:
        make: a distribution of `torch.distributions`, or of the same signature.
        parameters: its parameters, the same for every element of z.
        shape: event shape.

    `Known(torch.distributions.Gamma, (2.0, 1.0), 20)`; a recipe has a word for each of `PRIORS`.
    """

    def __init__(self, make: Callable[..., Distribution], parameters: tuple[float, ...], shape: Shape) -> None:
        super().__init__()
        self.make, self.shape, self.count = make, as_shape(shape), len(parameters)
        for i, value in enumerate(parameters):
            self.register_buffer(f"parameter{i}", torch.full(self.shape, float(value)), persistent=False)
        if make is Dirichlet and self.shape[-1] < 2:
            raise ShapeError(f"Dirichlet is over vectors of at least 2 numbers that sum to 1; got {tuple(self.shape)}.")

    def forward(self, *context: Tensor) -> Distribution:
        p = self.make(*(getattr(self, f"parameter{i}") for i in range(self.count)), validate_args=False)
        factors = len(p.batch_shape)
        return Independent(p, factors, validate_args=False) if factors else p


PRIORS: Mapping[str, Callable[[Shape], nn.Module]] = {
    "standard-normal": StandardNormal,
    "standard-logistic": partial(Known, d.Logistic, (0.0, 1.0)),
    "standard-laplace": partial(Known, Laplace, (0.0, 1.0)),
    "standard-student-t": partial(Known, StudentT, (3.0, 0.0, 1.0)),  # ν = 3 degrees of freedom
    "standard-cauchy": partial(Known, d.Cauchy, (0.0, 1.0)),
    "standard-gumbel": partial(Known, Gumbel, (0.0, 1.0)),
    "unit-exponential": partial(Known, Exponential, (1.0,)),  # which is Gamma(1, 1), and Weibull(1, 1)
    "log-normal": partial(Known, LogNormal, (0.0, 1.0)),
    "uniform": partial(Known, d.Beta, (1.0, 1.0)),  # on 0 < z < 1
    "flat-dirichlet": partial(Known, Dirichlet, (1.0,)),  # uniform on the simplex
}
