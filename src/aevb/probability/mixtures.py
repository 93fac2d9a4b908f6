"""Mixtures: finite ones of any distribution, and of discretised logistics for images."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal, constraints

from aevb.parts import LIKELIHOOD, Offers, Support
from aevb.probability.distributions import DiscreteLogistic
from aevb.probability.families import Family, Shape, check_size, scale_from_log, single

DRAWN = 2**24  # numbers drawn at a time: torch draws every component and keeps one


class FiniteMixture(MixtureSameFamily):
    """p(z) = Σ_m π_m p_m(z), π = softmax(logits): logits (*, M), and one distribution of batch (*, M) for all p_m."""

    def __init__(self, logits: Tensor, components: Distribution) -> None:
        super().__init__(Categorical(logits=single(logits), validate_args=False), components, validate_args=False)

    @property
    def support(self) -> constraints.Constraint | None:
        return self.component_distribution.support  # the same for all components

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        n, each = max(1, shape.numel()), max(1, DRAWN // max(1, self.component_distribution._extended_shape().numel()))
        parts = [MixtureSameFamily.sample(self, torch.Size((min(each, n - i),))) for i in range(0, n, each)]
        return torch.cat(parts)[: shape.numel()].reshape(self._extended_shape(shape))  # torch refuses to draw none

    def log_prob(self, value: Tensor) -> Tensor:
        return self.log_joint(value).logsumexp(-1)

    def responsibilities(self, value: Tensor) -> Tensor:
        """p(m | z) = π_m p_m(z) / p(z), (*, M): how much each component has to do with z (*, *Z)."""
        return self.log_joint(value).softmax(-1)

    def log_joint(self, value: Tensor) -> Tensor:
        """log π_m p_m(z), (*, M)."""
        components, event = self.component_distribution, len(self.event_shape)
        base = getattr(components, "base_dist", None)
        if isinstance(base, Normal) and event and base.loc.ndim == event + 1:
            each = normals(value.flatten(-event), base.loc.flatten(1), base.scale.flatten(1))
        else:
            each = components.log_prob(value.unsqueeze(-1 - event))
        return each + self.mixture_distribution.logits


def normals(z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """log N(z; μ_m, diag σ_m²), (*, M), of z (*, D) under M normals, both parameters (M, D).

    Σ_d (z_d - μ_md)² / σ_md² is multiplied out, which makes it matrix products instead of M·D numbers for each z. In
    double precision, as the three sums nearly cancel where μ / σ is large.
    """
    precise, mu, sigma = z.double(), loc.double(), scale.double()
    precision = sigma.pow(-2)
    square = precise.square() @ precision.mT - 2 * (precise @ (mu * precision).mT) + (mu.square() * precision).sum(-1)
    log_scale = sigma.log().sum(-1) + 0.5 * math.log(2 * math.pi) * loc.shape[-1]
    return (-0.5 * square - log_scale).to(z.dtype)


class PixelMixture(Distribution):
    """An image (C, *P) whose pixels are independent, each of its C channels drawn from one mixture for the pixel.

    `pixels` has batch (*, P) and event (C): what is here is the order of axes, channels first.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, pixels: Distribution, shape: torch.Size) -> None:
        self.pixels = pixels
        super().__init__(pixels.batch_shape[:-1], shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        levels = self.pixels.support
        assert isinstance(levels, constraints.independent)
        return constraints.independent(levels.base_constraint, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return self._image(self.pixels.mean)

    @property
    def variance(self) -> Tensor:
        """Of each number, whatever the others are."""
        return self._image(self.pixels.variance)

    def log_prob(self, value: Tensor) -> Tensor:
        channels, pixels = self.pixels.event_shape[0], self.pixels.batch_shape[-1]
        x = value.reshape(*value.shape[: value.ndim - len(self.event_shape)], channels, pixels)
        total: Tensor = self.pixels.log_prob(x.transpose(-1, -2)).sum(-1)
        return total

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self._image(self.pixels.sample(torch.Size(sample_shape)))

    def _image(self, x: Tensor) -> Tensor:
        """(*, P, C) → (*, *shape)."""
        return x.transpose(-1, -2).reshape(*x.shape[:-2], *self.event_shape)


class LogisticMixture(Family):
    """A mixture of logistics cut into bins, for each pixel: P(x) = Σ_m π_m Π_c P(x_c; μ_mc, s_mc) (arXiv 1701.05517).

    The bins are those of `DiscretizedLogistic`, with exact masses. The channels of a pixel share the choice of m, which
    is all that ties them: there is no autoregression over channels. φ = (logits of π, μ, log s), component axis first.

    Args:
        shape: (C, H, W) of images; in any other shape each number is a pixel of one channel.
        components: M.
        levels: n, for x on {0, 1, ..., n-1}/(n-1).
    """

    word, roles = "logistic-mixture", (LIKELIHOOD,)
    offers = Offers(Support.LEVELS, reparameterized=False, factorized=False)
    equation = (
        "Π_pixels Σ_m π_m Π_c Logistic(x_c ± h/2; μ_mc, s_mc),  π ∝ exp(l), (l, μ, log s) = {net},"
        " {components} m, levels h apart"
    )

    def __init__(self, shape: Shape, components: int = 5, levels: int = 256) -> None:
        super().__init__(shape)
        if components < 1 or levels < 2:
            raise ValueError(f"LogisticMixture: components ≥ 1 and levels ≥ 2; got {components} and {levels}.")
        self.components, self.levels = components, levels
        self.channels = self.shape[0] if len(self.shape) == 3 else 1
        self.pixels = math.prod(self.shape) // self.channels

    @property
    def size(self) -> int:
        return self.components * self.pixels * (1 + 2 * self.channels)

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        c = self.channels
        parts = phi.unflatten(-1, (self.components, 1 + 2 * c, self.pixels)).movedim(-1, -3)  # (*, P, M, 1 + 2C)
        logits, loc, log_scale = parts[..., 0], parts[..., 1 : 1 + c], parts[..., 1 + c :]
        bins = Independent(DiscreteLogistic(loc, scale_from_log(log_scale), self.levels), 1, validate_args=False)
        return PixelMixture(FiniteMixture(logits, bins), self.shape)
