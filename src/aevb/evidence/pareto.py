"""How heavy the tail of importance weights is: whether their mean and its error are reliable."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FEWEST = 5  # weights that a tail must have for a fit
FLAT = 1e-4  # nats between the largest weight and the threshold, below which there is no tail but rounding


def tail_size(samples: int) -> int:
    """How many of K weights make the tail: min(K/5, 3√K) (Vehtari et al., arXiv 1507.02646)."""
    return math.ceil(min(0.2 * samples, 3 * math.sqrt(samples)))


def pareto_k(log_top: Tensor) -> Tensor:
    """The shape k of the generalised Pareto distribution of the largest weights, (B,).

        P(w - u > t | w > u) = (1 + k t / σ)^(-1/k)

    Weights have 1/k finite moments: above k = 1/2 no variance, above 1 no mean. Up to about 0.7 the reported error of
    an estimate with a feasible number of samples is right; above, it is not (Vehtari et al., arXiv 1507.02646). k is
    drawn a little towards 1/2, as if ten more weights had said so (ibid., App. C).

    Args:
        log_top: log w of the M + 1 largest weights, (M + 1, B), in any order; the least of them is the threshold u.

    Returns:
        NaN where M < 5; -∞ where the weights differ by less than rounding, so that there is no tail.
    """
    ordered = log_top.sort(0).values
    threshold, tail = ordered[0], ordered[1:]
    m, largest = len(tail), ordered[-1]
    if m < FEWEST:
        return torch.full_like(largest, math.nan)
    excess = torch.exp(tail - largest) - torch.exp(threshold - largest)  # (M, B), of weights over the largest one
    k = (m * _zhang_stephens(excess) + 10 * 0.5) / (m + 10)
    return torch.where(largest - threshold < FLAT, -math.inf, k)


def _zhang_stephens(x: Tensor) -> Tensor:
    """k of a generalised Pareto distribution from exceedances x (M, B) in ascending order, for each column.

    Zhang & Stephens (2009, Technometrics 51, 316): with b = -k/σ and k(b) = 1/M Σ_i log(1 - b x_i), the profile
    likelihood ℓ(b) = M (log(-b / k(b)) - k(b) - 1) is averaged over a grid of b that comes from a data-driven prior,

        b_j = 1/x_M + (1 - √(J / (j - ½))) / (3 x*),   x* the first quartile,   J = 20 + ⌊√M⌋
    """
    m, size = len(x), 20 + math.isqrt(len(x))
    tiny = torch.finfo(x.dtype).tiny * 1e30
    quartile = x[math.floor(m / 4 + 0.5) - 1].clamp(min=tiny)
    j = torch.arange(1, size + 1, dtype=x.dtype)[:, None]
    b = 1 / x[-1].clamp(min=tiny) + (1 - (size / (j - 0.5)).sqrt()) / (3 * quartile)  # (J, B)
    k = _mean_log(b, x)
    profile = m * (torch.log(-b / k) - k - 1)
    weights = profile.nan_to_num(nan=-math.inf).softmax(0)
    return _mean_log((weights * b).sum(0, keepdim=True), x)[0]


def _mean_log(b: Tensor, x: Tensor) -> Tensor:
    """1/M Σ_i log(1 - b_j x_i), (J, B), without a tensor of size J M B."""
    return torch.stack([torch.log1p(-row * x).mean(0) for row in b])
