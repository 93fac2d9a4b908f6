"""Columns of very many levels: a softmax in two stages, whose cost is that of √C levels.

    P(x = c | z) = P(g(c) | z) P(c | g(c), z)
    P(g | z) ∝ exp(u_g · h + a_g) over G groups,   P(c | g, z) ∝ exp(e_c · h + b_c) over the M levels of the group

with h = net(z), r numbers (Goodman 2001, arXiv cs/0108006). A network with an output for each of C levels has C times
the width of its last layer as weights. A minibatch of B rows then takes B times C numbers. Here a level has r weights
and a bias, and with G = M = √C a row takes 2 √C logits. log P is exact, in training too: nothing is sampled. Groups are
levels that follow one another. What needs all levels, such as the most probable one, goes through them in pieces.

C: levels; r: rank; n: columns; R: rows of any batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints

from aevb.errors import ShapeError
from aevb.parts import LIKELIHOOD, Offers, Support
from aevb.probability.categories import UNSEEN
from aevb.probability.distributions import Grid
from aevb.probability.families import Family, Shape, check_size
from aevb.probability.shapes import side_by_side

PIECE = 2**21  # numbers that are in memory at a time, about
RANK = 16


@dataclass(frozen=True)
class Weights:
    """u (n, G, r), a (n, G), e (n, G, M, r) and b (n, G, M), which is -∞ behind the last of the C levels."""

    u: Tensor
    a: Tensor
    e: Tensor
    b: Tensor
    levels: int


class ManyLevels(Distribution):
    """Levels 0, ..., C - 1 of n columns by a softmax in two stages, batch shape (*, n), from h (*, n, r)."""

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, h: Tensor, weights: Weights) -> None:
        self.h, self.weights = h, weights
        super().__init__(h.shape[:-1], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return Grid(self.weights.levels, 1.0)

    def log_prob(self, value: Tensor) -> Tensor:
        code = value.round().long().clamp(0, self.weights.levels - 1)
        return self._by_rows(self._log_prob, code)

    def _log_prob(self, h: Tensor, code: Tensor) -> Tensor:
        """(R, n)."""
        size = self.weights.b.shape[-1]
        group, member = code // size, code % size
        among = self._groups(h).log_softmax(-1).gather(-1, group.unsqueeze(-1))
        inside = self._members(h, group).log_softmax(-1).gather(-1, member.unsqueeze(-1))
        return (among + inside).squeeze(-1)

    def icdf(self, value: Tensor) -> Tensor:
        """The smallest level x with P(X ≤ x) ≥ u, of u (*, n), in its type."""
        return self._by_rows(self._icdf, value.double()).to(value.dtype)

    def _icdf(self, h: Tensor, u: Tensor) -> Tensor:
        """(R, n)."""
        among = self._groups(h).double().softmax(-1)
        group, rest = _picked(among, u)
        inside = self._members(h, group).double().softmax(-1)
        member, _ = _picked(inside, rest)
        return (group * self.weights.b.shape[-1] + member).clamp(max=self.weights.levels - 1)

    def _by_rows(self, read: Callable[[Tensor, Tensor], Tensor], at: Tensor) -> Tensor:
        """What `read` makes of h (R, n, r) and numbers (R, n), as many rows at a time as memory allows; (*, n)."""
        shape = side_by_side(self.batch_shape, at.shape)
        h = self.h.expand(*shape, self.h.shape[-1]).reshape(-1, shape[-1], self.h.shape[-1])
        size = max(1, PIECE // self.weights.e[:, 0].numel())
        pairs = zip(h.split(size), at.expand(shape).reshape(-1, shape[-1]).split(size), strict=True)
        if torch.is_grad_enabled():
            return torch.cat([read(*pair) for pair in pairs]).reshape(shape)
        found: Tensor | None = None
        for i, pair in enumerate(pairs):
            part = read(*pair)
            found = part.new_empty(shape).flatten(0, -2) if found is None else found  # one block: heaps fragment
            found[i * size : i * size + size] = part
        assert found is not None
        return found.reshape(shape)

    def _groups(self, h: Tensor) -> Tensor:
        """The logits of the groups, (R, n, G), of h (R, n, r)."""
        return torch.einsum("bnr,ngr->bng", h, self.weights.u) + self.weights.a

    def _members(self, h: Tensor, group: Tensor) -> Tensor:
        """The logits of the levels of a group each, (R, n, M), of h (R, n, r) and groups (R, n)."""
        column = torch.arange(group.shape[-1], device=group.device).expand(group.shape)
        found: Tensor = torch.einsum("bnr,bnmr->bnm", h, self.weights.e[column, group])
        return found + self.weights.b[column, group]

    def probs(self) -> Iterator[tuple[int, Tensor]]:
        """The probabilities of all levels, float64, piece by piece: the first level, and (*, n, piece)."""
        w, shape = self.weights, self.batch_shape
        h = self.h.reshape(-1, *self.h.shape[-2:])
        among = self._groups(h).double().softmax(-1)
        size = max(1, PIECE // max(1, len(h) * w.b.shape[-1]))
        for first in range(0, w.a.shape[-1], size):
            part = slice(first, first + size)
            inside = torch.einsum("bnr,ngmr->bngm", h, w.e[:, part]) + w.b[:, part]
            p = (among[..., part].unsqueeze(-1) * inside.double().softmax(-1)).flatten(-2)
            start = first * w.b.shape[-1]
            yield start, p[..., : w.levels - start].reshape(*shape, -1)

    @property
    def mode(self) -> Tensor:
        return _likeliest(self.probs()).to(self.h.dtype)

    @property
    def mean(self) -> Tensor:
        return self._moment(1).to(self.h.dtype)

    @property
    def variance(self) -> Tensor:
        return (self._moment(2) - self._moment(1) ** 2).to(self.h.dtype)

    def _moment(self, power: int) -> Tensor:
        return torch.stack([(p * _codes(first, p) ** power).sum(-1) for first, p in self.probs()]).sum(0)

    def cdf(self, value: Tensor) -> Tensor:
        """P(X ≤ x), (*, n), float64."""
        x = value.unsqueeze(-1) + 0.5
        return torch.stack([torch.where(_codes(first, p) <= x, p, 0.0).sum(-1) for first, p in self.probs()]).sum(0)

    def likeliest(self, w: Tensor) -> Tensor:
        """argmax_c Σ_k w_k P(x = c | z_k), (B, n), of weights w (K, B)."""
        return _likeliest((first, torch.einsum("kb,kbnc->bnc", w.double(), p)) for first, p in self.probs())

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            return self.icdf(torch.rand(shape, dtype=torch.float64, device=self.h.device)).to(self.h.dtype)


def _picked(p: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """The number i with F(i - 1) < u ≤ F(i) of probabilities p (*, I), and (u - F(i - 1)) / p_i; both (*)."""
    mass = p.cumsum(-1)
    at = (mass < u.unsqueeze(-1)).sum(-1, keepdim=True).clamp(max=p.shape[-1] - 1)
    own = p.gather(-1, at)
    below = mass.gather(-1, at) - own
    rest = ((u.unsqueeze(-1) - below) / own.clamp(min=1e-300)).clamp(0, 1)
    return at.squeeze(-1), rest.squeeze(-1)


def _codes(first: int, p: Tensor) -> Tensor:
    return torch.arange(first, first + p.shape[-1], dtype=p.dtype, device=p.device)


def _likeliest(pieces: Iterator[tuple[int, Tensor]]) -> Tensor:
    """The level of the largest number, of pieces (*, n, piece)."""
    best, at = None, None
    for first, p in pieces:
        largest, where = p.max(-1)
        if best is None or at is None:
            best, at = largest, where + first
        else:
            at, best = torch.where(largest > best, where + first, at), torch.maximum(best, largest)
    assert at is not None
    return at.double()


class ManyCategories(Family, nn.Module):
    """A categorical over the levels 0, ..., C - 1 of each column, in two stages: φ = h, r numbers a column.

    For columns of so many levels that a network cannot have an output for each. It learns a vector and a bias for each
    level and each group of levels.

    Args:
        shape: (n,).
        classes: C, the same for all columns.
        rank: r.
    """

    word, roles = "many-categories", (LIKELIHOOD,)
    offers = Offers(Support.LEVELS, reparameterized=False)
    equation = "Π_d softmax(U_d h_d + a_d) of a group, softmax(E_d h_d + b_d) in it, at {v}_d,  h = {net}"

    beyond: Tensor
    starts = True

    def __init__(self, shape: Shape, classes: int | Sequence[int] = 2, rank: int = RANK) -> None:
        nn.Module.__init__(self)
        Family.__init__(self, shape)
        counts = {classes} if isinstance(classes, int) else set(classes)
        if len(counts) != 1 or min(counts) < 2 or rank < 1:
            raise ShapeError(f"ManyCategories: one number of classes, 2 or more, is needed; got {classes}.")
        n, (self.levels,), self.rank = self.shape[0], counts, rank
        size = math.ceil(math.sqrt(self.levels))
        groups = math.ceil(self.levels / size)
        self.u = nn.Parameter(torch.randn(n, groups, rank) / math.sqrt(rank))
        self.e = nn.Parameter(torch.randn(n, groups, size, rank) / math.sqrt(rank))
        self.a, self.b = nn.Parameter(torch.zeros(n, groups)), nn.Parameter(torch.zeros(n, groups, size))
        beyond = torch.arange(groups * size).view(groups, size) >= self.levels
        self.register_buffer("beyond", beyond, persistent=False)

    @property
    def size(self) -> int:
        return self.shape[0] * self.rank

    def __call__(self, phi: Tensor) -> Distribution:
        h = check_size(self, phi).unflatten(-1, (self.shape[0], self.rank))
        weights = Weights(self.u, self.a, self.e, self.b.masked_fill(self.beyond, -torch.inf), self.levels)
        return Independent(ManyLevels(h, weights), 1, validate_args=False)

    @torch.no_grad()
    def start(self, x: Tensor) -> Tensor:
        """φ₀ = 0; the biases become the logarithms of the shares of groups, and of levels in them."""
        for d, column in enumerate(x.unbind(-1)):
            code = column.long().clamp(0, self.levels - 1)
            counts = torch.bincount(code, minlength=self.beyond.numel()).view_as(self.beyond) + UNSEEN
            counts = counts.masked_fill(self.beyond, 0.0)
            self.a[d].copy_((counts.sum(-1) / counts.sum()).log())
            self.b[d].copy_(torch.where(self.beyond, 1.0, counts).log())
        return x.new_zeros(self.size)
