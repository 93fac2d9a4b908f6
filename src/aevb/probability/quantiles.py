"""Numbers with spikes and several modes: a density that is constant between quantiles of the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints

from aevb.parts import LIKELIHOOD, Offers, Support
from aevb.probability.families import Family, Shape, check_size
from aevb.probability.shapes import side_by_side

FINEST = 1e-5  # of the spread of a column: no bin of a single value is narrower
RESOLVED = 4 * torch.finfo(torch.float32).eps  # of the largest number, likewise: float32 tells both ends apart
SPIKED = 8  # a value has a bin of its own from this part of the rows of a bin on
LEAST = 1e-4  # of the probability of a bin, at the start


class Steps(Distribution):
    """p(x) = π_m / (e_m - e_{m-1}) in bin m, and π_0 e^{-(e_0 - x)/s} / s below all of them, likewise above.

    Args:
        logits: of the M bins, (*, n, M), the first and the last for the two tails.
        edges: e_0 ≤ ... ≤ e_{M-2}, (n, M - 1).
        scale: s of the tails, (n,).
        single: which bins stand for a single value, (n, M): draws from them are their middles; None for no bin.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, logits: Tensor, edges: Tensor, scale: Tensor, single: Tensor | None = None) -> None:
        self.edges, self.scale, self.single = edges, scale, single
        self.width = edges.diff(dim=-1)
        empty = torch.where(nn.functional.pad(self.width <= 0, (1, 1)), -torch.inf, 0.0).to(logits)
        self.log_share = (logits + empty).log_softmax(-1)  # a sum costs a third of `masked_fill` and its gradient
        super().__init__(logits.shape[:-1], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.real

    @property
    def middles(self) -> Tensor:
        """The mean of x in each bin, (n, M)."""
        low, high = self.edges[:, :1] - self.scale[:, None], self.edges[:, -1:] + self.scale[:, None]
        return torch.cat([low, (self.edges[:, 1:] + self.edges[:, :-1]) / 2, high], -1)

    @property
    def mean(self) -> Tensor:
        return (self.log_share.exp() * self.middles).sum(-1)

    @property
    def variance(self) -> Tensor:
        inner = nn.functional.pad(self.width.square() / 12, (1, 1))
        inner[:, 0] = inner[:, -1] = self.scale.square()
        far = self.middles - self.mean.unsqueeze(-1)
        return (self.log_share.exp() * (far.square() + inner)).sum(-1)

    @property
    def mode(self) -> Tensor:
        """The middle of the most probable bin."""
        best = self.log_share.argmax(-1, keepdim=True)
        return self.middles.expand_as(self.log_share).gather(-1, best).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        value = value.expand(side_by_side(value.shape, self.batch_shape))
        flat = value.reshape(-1, value.shape[-1]).T.contiguous()  # (n, rows)
        bins = torch.searchsorted(self.edges, flat, right=True)
        low, high = self.edges[:, :1], self.edges[:, -1:]
        s = self.scale[:, None]
        log_width = nn.functional.pad(self.width.clamp(min=torch.finfo(value.dtype).tiny).log(), (1, 1))
        log_width[:, 0] = log_width[:, -1] = self.scale.log()
        beyond = ((low - flat).clamp(min=0) + (flat - high).clamp(min=0)) / s
        constant = (log_width.gather(1, bins) + beyond).T.reshape(value.shape)
        bins = bins.T.reshape(value.shape)
        share = self.log_share.expand(*value.shape, self.log_share.shape[-1])
        return share.gather(-1, bins.unsqueeze(-1)).squeeze(-1) - constant

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape)
        with torch.no_grad():
            bins = torch.distributions.Categorical(logits=self.log_share, validate_args=False).sample(shape)
            u = torch.rand(bins.shape, device=bins.device, dtype=self.edges.dtype)
            last = self.edges.shape[-1]
            lower = self._at(self.edges, (bins - 1).clamp(min=0))
            upper = self._at(self.edges, bins.clamp(max=last - 1))
            tail = -self.scale * torch.log1p(-u)
            if self.single is not None:
                u = torch.where(self._at(self.single, bins), 0.5, u)
            inside = lower + (upper - lower) * u
            return torch.where(bins == 0, upper - tail, torch.where(bins == last, lower + tail, inside))

    def cdf(self, value: Tensor) -> Tensor:
        """Linear within a bin, exponential in the tails."""
        value = value.expand(side_by_side(value.shape, self.batch_shape))
        last = self.edges.shape[-1]
        edges, flat = self.edges.to(value), value.reshape(-1, value.shape[-1]).T.contiguous()
        bins = torch.searchsorted(edges, flat, right=True).T.reshape(value.shape)
        low, high = self._at(edges, (bins - 1).clamp(min=0)), self._at(edges, bins.clamp(max=last - 1))
        within = (value - low) / (high - low).clamp(min=torch.finfo(value.dtype).tiny)
        within = torch.where(bins == 0, ((value - high) / self.scale).exp(), within)
        within = torch.where(bins == last, -torch.expm1((low - value) / self.scale), within)
        share = self.log_share.to(value).exp()
        below = nn.functional.pad(share.cumsum(-1), (1, 0)).expand(*value.shape, -1)
        share = share.expand(*value.shape, -1)
        at = bins.unsqueeze(-1)
        return below.gather(-1, at).squeeze(-1) + share.gather(-1, at).squeeze(-1) * within

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of `cdf`."""
        shape = side_by_side(value.shape, self.batch_shape)
        share = self.log_share.to(value).exp().expand(*shape, -1)
        up_to = share.cumsum(-1)
        u, last, edges = value.expand(shape), self.edges.shape[-1], self.edges.to(value)
        at = torch.searchsorted(up_to, u.unsqueeze(-1).contiguous()).clamp(max=last)
        own = share.gather(-1, at).squeeze(-1).clamp(min=torch.finfo(value.dtype).tiny)
        within = 1 - (up_to.gather(-1, at).squeeze(-1) - u) / own
        bins, tiny = at.squeeze(-1), torch.finfo(value.dtype).tiny
        low, high = self._at(edges, (bins - 1).clamp(min=0)), self._at(edges, bins.clamp(max=last - 1))
        inside = low + (high - low) * within.clamp(0, 1)
        inside = torch.where(bins == 0, high + self.scale * within.clamp(tiny, 1).log(), inside)
        return torch.where(bins == last, low - self.scale * torch.log1p(-within.clamp(0, 1 - 1e-9)), inside)

    @staticmethod
    def _at(table: Tensor, index: Tensor) -> Tensor:
        """table[d, index[..., d]]."""
        return table.expand(*index.shape, table.shape[-1]).gather(-1, index.unsqueeze(-1)).squeeze(-1)


class Quantiles(Family, nn.Module):
    """A density that is constant in each of M bins, whose edges are quantiles of the training rows: φ = logits (n, M).

    A value that many rows share has a narrow bin of its own. Beyond the smallest and the largest number the density
    falls exponentially, with the spread of the column as its scale.

    Args:
        shape: (n,).
        bins: M, the two tails counted.
        steps: of each column the step of its numbers, such as 1 for whole numbers: the width of the bin of a single
            value. 0 where there is none: the width is then the smallest difference between two rows. No bin is narrower
            than what float32 resolves.
    """

    word, roles = "quantiles", (LIKELIHOOD,)
    offers = Offers(Support.REAL, reparameterized=False)
    equation = "Π_d π_dm / (e_m - e_m-1) in bin m of {bins}, e the quantiles of column d,  π = softmax({net})"

    edges: Tensor
    scale: Tensor
    single: Tensor
    starts = True

    def __init__(self, shape: Shape, bins: int = 64, steps: Sequence[float] = ()) -> None:
        nn.Module.__init__(self)
        Family.__init__(self, shape)
        if bins < 4:
            raise ValueError(f"Quantiles: bins must be at least 4; got {bins}.")
        self.bins, self.steps = bins, tuple(steps) or (0.0,) * self.shape[0]
        n = self.shape[0]
        self.register_buffer("edges", torch.linspace(-3, 3, bins - 1).expand(n, -1).clone())
        self.register_buffer("scale", torch.ones(n))
        self.register_buffer("single", torch.zeros(n, bins, dtype=torch.bool))

    @property
    def size(self) -> int:
        return self.bins * self.shape[0]

    def __call__(self, phi: Tensor) -> Distribution:
        logits = check_size(self, phi).unflatten(-1, (self.shape[0], self.bins))
        return Independent(Steps(logits, self.edges, self.scale, self.single), 1, validate_args=False)

    @torch.no_grad()
    def start(self, x: Tensor) -> Tensor:
        """Take the edges from rows x (N, n); φ₀ are the logarithms of the shares of the bins."""
        logits = []
        for d, (column, step) in enumerate(zip(x.double().T.contiguous(), self.steps, strict=True)):
            edges, scale, spikes = edges_of(column, self.bins - 1, step)
            self.edges[d], self.scale[d] = edges.to(self.edges), scale
            self.single[d] = False
            self.single[d, torch.searchsorted(edges, spikes)] = True
            counts = torch.bincount(torch.searchsorted(edges, column, right=True), minlength=self.bins)
            logits.append(((counts + LEAST * len(x)) / len(x)).log())
        return torch.stack(logits).to(x).flatten()


def edges_of(x: Tensor, count: int, step: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """`count` edges of bins for numbers x (N) in steps of `step`; the scale of the tails; the values with own bins.

    The last edges are repeated where fewer do. Values that more rows share than a bin should hold have bins of their
    own, as wide as the numbers' step. The others are cut at quantiles, midway between neighbours.
    """
    values, counts = x.unique(return_counts=True)
    spread = x.std(correction=0) if len(values) > 1 else x.new_ones(())
    smallest = float(values.diff().min()) if len(values) > 1 else 1.0
    narrowest = max(FINEST * float(spread), RESOLVED * float(values.abs().max()))
    step = max(step or smallest, narrowest)
    spikes = spikes_of(values, counts, count)
    edges = torch.cat([spikes - step / 2, spikes + step / 2])
    rest = x[~torch.isin(x, spikes)]
    if len(rest):
        middles = (values[1:] + values[:-1]) / 2
        cuts = torch.quantile(rest, torch.linspace(0, 1, count - len(edges), dtype=x.dtype, device=x.device))
        inner = middles[torch.searchsorted(middles, cuts[1:-1]).clamp(max=len(middles) - 1)]
        ends = torch.stack([values[0] - step / 2, values[-1] + step / 2])
        edges = torch.cat([edges, inner[~_inside(inner, spikes, step)], ends])
    edges = edges.sort().values
    keep = torch.cat([torch.ones(1, dtype=torch.bool, device=x.device), edges.diff() > 0.25 * step])
    edges = edges[keep][:count]
    return torch.cat([edges, edges[-1:].expand(count - len(edges))]), spread, spikes


def spikes_of(values: Tensor, counts: Tensor, edges: int) -> Tensor:
    """The values that have a bin of their own, where there are so many edges: all, if they are few; else the most
    frequent third that more rows share than an eighth of a bin holds, and more than one."""
    if 2 * len(values) <= edges - 1:
        return values
    chosen = (counts >= max(float(counts.sum()) / (SPIKED * edges), 2)).nonzero().flatten()
    best = counts[chosen].argsort(descending=True)[: edges // 3]
    return values[chosen[best]].sort().values


def _inside(edges: Tensor, spikes: Tensor, step: float) -> Tensor:
    """Which edges lie within the bin of a spike."""
    if not len(spikes) or not len(edges):
        return torch.zeros(len(edges), dtype=torch.bool, device=edges.device)
    return (edges[:, None] - spikes).abs().amin(1) < 0.75 * step
