"""Codes: latents that are one of so many. One-hot vectors, exact or relaxed; vectors of a codebook; points of a grid.

A family of codes knows the uniform distribution over them, the prior `uniform-codes`, from which its KL is known.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    OneHotCategorical,
    RelaxedOneHotCategorical,
    constraints,
    kl_divergence,
)
from torch.distributions.kl import register_kl

from aevb.errors import ShapeError
from aevb.notation import bound_to
from aevb.parts import POSTERIOR, Offers, Support, Values
from aevb.probability.families import Family, Pass, Shape, check_size, single

Temperature = float | Callable[[int], Any]
CODEBOOK, GRID = Support.CODEBOOK.value, Support.GRID.value


class Codes(constraints.Constraint):
    """Finitely many vectors, by what they are called."""

    is_discrete = True
    event_dim = 1

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Of all of them it knows only that they are numbers; whose they are, their distributions know."""
        return value.isfinite().all(-1)

    def __repr__(self) -> str:
        return self.name


class Coded(Family):
    """A family over codes: L of them, each a vector, in an event (L, D)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        if len(self.shape) != 2:
            raise ShapeError(
                f"{type(self).__name__} is over several codes, each a vector: two sizes, such "
                f"as latent = [16, 8]; got {tuple(self.shape)}."
            )

    @abstractmethod
    def uniform(self, like: Tensor) -> Distribution:
        """The uniform distribution over the codes, of batch shape (), of the type and on the device of `like`."""


class OneHots(OneHotCategorical):
    """One of C classes, as a one-hot vector; its `mean` is the vector of probabilities."""

    word = "one-hot"
    offers = Offers(Support.ONE_HOT, reparameterized=False, known_covariance=False, uniform=True)
    support: constraints.Constraint = Codes(Support.ONE_HOT.value)  # type: ignore[assignment]

    def log_prob(self, value: Tensor) -> Tensor:
        log_p: Tensor = super().log_prob(value)  # type: ignore[no-untyped-call]
        return torch.where(value.amax(-1) == 1, log_p, -torch.inf)


class Relaxed(RelaxedOneHotCategorical):
    """z = softmax((l + g) / τ), g Gumbel: a density inside of the simplex that leans to its corners (arXiv 1611.00712).

    The largest element is that of class c with the probability softmax(l)_c, for every τ. A draw so near to a corner
    that an element of it would be 0 is moved inside, where it has a density. `mean` is softmax(l), of the limit τ → 0:
    at other τ the mean has no closed form.
    """

    @property
    def mean(self) -> Tensor:
        return self.probs

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        z: Tensor = super().rsample(torch.Size(sample_shape))
        return z.clamp(min=torch.finfo(z.dtype).tiny ** 0.75)  # so that 1/z is a number

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)


class OneHot(Coded):
    """G independent choices of one in C classes, in an event (G, C): φ = logits. The KL to `uniform-codes` is exact.

    Its draws have no derivative: train it with `ImportanceWeighted(gradient="vimco")` or `WakeSleep`; or take
        `Concrete`.
    """

    word, roles = "one-hot", (POSTERIOR,)
    offers = OneHots.offers
    equation = "Π_g softmax(l_g) at the one of {v}_g,  logits l = {net}"

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        return choices(phi.unflatten(-1, tuple(self.shape)))

    def uniform(self, like: Tensor) -> Distribution:
        return choices(torch.zeros(self.shape, dtype=like.dtype, device=like.device))


def choices(logits: Tensor) -> Distribution:
    """One-hot vectors from logits (*, G, C)."""
    return Independent(OneHots(logits=logits, validate_args=False), 1, validate_args=False)


class Concrete(Coded, nn.Module):
    """`OneHot`, relaxed while it is trained: the Gumbel-softmax (arXiv 1611.01144, 1611.00712). φ = logits.

    In training z = softmax((φ + g) / τ), g Gumbel, which has a derivative. In evaluation z is one-hot, and the KL is
    exact: the reported model has one-hot codes. What training ascends is up to the prior:

        uniform-concrete   the relaxed density under a relaxed prior: a bound on the likelihood of the relaxed model
        uniform-codes      z relaxed, but the KL that of the one-hot codes: usual, and no bound of either model

    Args:
        shape: (G, C), G choices of one in C classes.
        temperature: τ, a number or a schedule of the training's steps, positive at all of them.

    Raises:
        ValueError: the temperature is not positive, or does not stay so.
    """

    word, roles = "concrete", (POSTERIOR,)
    offers = Offers(Support.RELAXED, components=False, known_covariance=False, uniform=True)

    @staticmethod
    def equation(v: Values) -> str:
        tau = bound_to("τ", v["temperature"])
        return f"Π_g Concrete({v['v']}_g; l_g, τ),  logits l = {v['net']}, {tau}; then one-hot"

    temperature: Tensor

    def __init__(self, shape: Shape, temperature: Temperature = 0.667) -> None:
        nn.Module.__init__(self)
        Coded.__init__(self, shape)
        self.schedule = temperature
        self.register_buffer("temperature", torch.ones(()))
        for step in (2**k for k in range(31)):  # at once, rather than in the midst of a training
            if not 1e-100 < self.at(step) < 1e100:
                break  # an exponential goes on for ever, but beyond what a float can hold
        self.pace(0)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def pace(self, step: int) -> None:
        """The training is about to take this step."""
        self.temperature.fill_(self.at(step))

    def at(self, step: int) -> float:
        """τ at this step."""
        tau = float(self.schedule(step) if callable(self.schedule) else self.schedule)
        if not tau > 0:
            raise ValueError(f"Concrete: the temperature must be positive at every step; got {tau} at step {step}.")
        return tau

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        logits = phi.unflatten(-1, tuple(self.shape))
        if not self.training:
            return choices(logits)
        return Independent(Relaxed(self.temperature, logits=logits, validate_args=False), 1, validate_args=False)

    def uniform(self, like: Tensor) -> Distribution:
        return choices(torch.zeros(self.shape, dtype=like.dtype, device=like.device))


class Quantized(Distribution):
    """A point among K codes: z = e_k with probability one, k the code nearest to h. Its gradient is handed to h as it
    is.

    Args:
        h: (*, D), what was quantised.
        code: (*, D), e_k.
        index: (*), k.
        codes: K.
        name: of the codes, as text.
    """

    offers = Offers(
        density=False,
        factorized=False,
        known_mean=False,
        known_covariance=False,
        components=False,
        uniform=True,
        quantized=True,
    )

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True

    def __init__(self, h: Tensor, code: Tensor, index: Tensor, codes: int, name: str) -> None:
        self.h, self.code, self.index, self.codes, self.name = h, code, index, codes, name
        super().__init__(h.shape[:-1], h.shape[-1:], validate_args=False)

    @property
    def word(self) -> str:
        """Of the family that makes it."""
        return {CODEBOOK: "vq", GRID: "fsq"}.get(self.name, self.name)

    @property
    def support(self) -> constraints.Constraint:
        return Codes(self.name)

    @property
    def mean(self) -> Tensor:
        return self.code

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.code)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Straight through: the value is the code's to the last digit, the derivative in h that of h."""
        through = self.code + (self.h - self.h.detach())
        return through.expand(self._extended_shape(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """Of a probability, not of a density: 0 at the code, -∞ elsewhere."""
        at = (value == self.code).all(-1)
        return torch.where(at, 0.0, -torch.inf).to(value.dtype)


class UniformCodes(Distribution):
    """Each of L codes is any of the K rows of a codebook, with probability 1/K: batch (L), event (D).

    Args:
        codebook: (K, D).
        length: L.
        name: of the codes, as text.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, codebook: Tensor, length: int, name: str) -> None:
        self.codebook, self.name = codebook, name
        super().__init__(torch.Size((length,)), codebook.shape[1:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return Codes(self.name)

    @property
    def mean(self) -> Tensor:
        return self.codebook.mean(0).expand(self._extended_shape())

    @property
    def variance(self) -> Tensor:
        return self.codebook.var(0, correction=0).expand(self._extended_shape())

    def log_prob(self, value: Tensor) -> Tensor:
        """-log K: of codes; it does not look whether they are."""
        return value.new_full(value.shape[:-1], -math.log(len(self.codebook)))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = (*sample_shape, *self.batch_shape)
        return self.codebook[torch.randint(len(self.codebook), shape, device=self.codebook.device)]


class VQ(Coded, nn.Module):
    """The nearest of the vectors of a codebook, for each of L positions (van den Oord et al. 2017, arXiv 1711.00937). φ
    = h.

        z_l = e_k,  k = argmin_k |h_l - e_k|²,   KL(q ‖ uniform-codes) = L log K,
        so that -ELBO is the length of a code of x

    Gradients go straight through to h, and the term `Commitment` keeps h near its code. The codebook follows by running
    means, once a training step, when training calls `learn`: with n_k the share of the minibatch's h that are nearest
    to e_k, and s_k their sum over its size,

        N_k ← γ N_k + (1 - γ) n_k,   S_k ← γ S_k + (1 - γ) s_k,   e_k = S_k / N_k

    whatever the size of the minibatch. A code that hardly any h is near to begins again at one of the minibatch's h.
    All codes do so at the first step. With `restart` = 0 none does: they begin at draws of N(0, I).

    Args:
        shape: (L, D).
        codes: K.
        decay: γ.
        restart: of the share 1/K, below which a code is dead; 0: none ever is.
    """

    word, roles = "vq", (POSTERIOR,)
    offers = replace(Quantized.offers, support=Support.CODEBOOK)
    equation = (
        "Π_l [{v}_l = e_k(l)],  k(l) = argmin_k |h_l - e_k|², h = {net}, a codebook of {codes} e_k = means of their h"
    )

    codebook: Tensor
    share: Tensor
    total: Tensor

    def __init__(self, shape: Shape, codes: int = 128, decay: float = 0.99, restart: float = 0.03) -> None:
        nn.Module.__init__(self)
        Coded.__init__(self, shape)
        if codes < 2 or not 0 <= decay < 1 or not 0 <= restart < 1:
            raise ValueError(f"VQ: codes ≥ 2, 0 ≤ decay < 1, 0 ≤ restart < 1; got {codes}, {decay} and {restart}.")
        self.codes, self.decay, self.restart = codes, decay, restart
        self.register_buffer("codebook", torch.randn(codes, self.shape[1]))
        self.register_buffer("share", torch.zeros(codes))  # N
        self.register_buffer("total", torch.zeros(codes, self.shape[1]))  # S

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        h, codebook = phi.unflatten(-1, tuple(self.shape)), single(self.codebook)
        index = self.nearest(h)
        return Independent(Quantized(h, codebook[index], index, self.codes, CODEBOOK), 1, validate_args=False)

    @torch.no_grad()
    def nearest(self, h: Tensor) -> Tensor:
        """k (*) of h (*, D)."""
        codebook = single(self.codebook)
        return (codebook.square().sum(-1) - 2 * h @ codebook.T).argmin(-1)

    def learn(self, t: Pass) -> None:
        """One step of the codebook, by the h of a minibatch's posterior."""
        q = t.q.base_dist if isinstance(t.q, Independent) else t.q
        if isinstance(q, Quantized):
            self.follow(q.h)

    @torch.no_grad()
    def follow(self, h: Tensor) -> None:
        """One step of the running means, by a minibatch h (*, D)."""
        rows = h.detach().reshape(-1, self.shape[1]).to(self.codebook.dtype)
        self.revive(rows)
        chosen = F.one_hot(self.nearest(rows), self.codes).to(rows.dtype)
        self.share.lerp_(chosen.mean(0), 1 - self.decay)
        self.total.lerp_(chosen.T @ rows / len(rows), 1 - self.decay)
        known = self.share.unsqueeze(-1) > 0
        self.codebook.copy_(torch.where(known, self.total / self.share.clamp(min=1e-30).unsqueeze(-1), self.codebook))

    def revive(self, rows: Tensor) -> None:
        """Let dead codes begin again at different rows (N, D), as far as there are, with the share of all others,
        1/K."""
        dead = (self.share < self.restart / self.codes).unsqueeze(-1)
        order = torch.randperm(len(rows), device=rows.device).repeat(-(-self.codes // len(rows)))[: self.codes]
        self.codebook.copy_(torch.where(dead, rows[order], self.codebook))
        self.share.copy_(torch.where(dead.squeeze(-1), 1 / self.codes, self.share))
        self.total.copy_(torch.where(dead, self.codebook / self.codes, self.total))

    def uniform(self, like: Tensor) -> Distribution:
        return Independent(UniformCodes(single(self.codebook), self.shape[0], CODEBOOK), 1, validate_args=False)


class FSQ(Coded):
    """Finite scalar quantisation: each number rounded to one of a few levels (Mentzer et al. 2023, arXiv 2309.15505). φ
    = h.

        z_ld = the middle of that of n_d equal parts of (-1, 1) in which tanh h_ld lies,   KL = L Σ_d log n_d

    The codebook is the grid of all levels: there is nothing to learn, no commitment term, and no dead code. Gradients
    go straight through to tanh h.

    Args:
        shape: (L, D).
        levels: n_d, one for each of D; or one for all.
    """

    word, roles = "fsq", (POSTERIOR,)
    offers = replace(Quantized.offers, support=Support.GRID)
    equation = "Π_ld [{v}_ld = tanh h_ld, rounded],  h = {net}, {levels} levels"

    def __init__(self, shape: Shape, levels: int | Sequence[int] = 5) -> None:
        super().__init__(shape)
        self.levels = (levels,) * self.shape[1] if isinstance(levels, int) else tuple(levels)
        if len(self.levels) != self.shape[1] or min(self.levels) < 2:
            raise ValueError(
                f"FSQ: a code of {self.shape[1]} numbers needs as many levels, "
                f"each at least 2; got {list(self.levels)}."
            )

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        h = phi.unflatten(-1, tuple(self.shape)).tanh()
        n, strides = strided(self.levels, phi.device)
        k = torch.minimum(((h.detach() + 1) / 2 * n).long(), n - 1)
        code, index = (2 * k + 1).to(h.dtype) / n - 1, (k * strides).sum(-1)
        return Independent(Quantized(h, code, index, math.prod(self.levels), GRID), 1, validate_args=False)

    def uniform(self, like: Tensor) -> Distribution:
        ticks = [(2 * torch.arange(n, dtype=like.dtype, device=like.device) + 1) / n - 1 for n in self.levels]
        codebook = torch.stack([t.flatten() for t in torch.meshgrid(*ticks, indexing="ij")], -1)
        return Independent(UniformCodes(codebook, self.shape[0], GRID), 1, validate_args=False)


@cache
def strided(levels: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """n_d, and how far apart in the codebook two neighbours along d are, Π_e>d n_e."""
    strides = [math.prod(levels[d + 1 :]) for d in range(len(levels))]
    return torch.tensor(levels, device=device), torch.tensor(strides, device=device)


def usage(q: Distribution) -> Tensor | None:
    """How often each code is used in a batch, (G, K): for each of G choices, or, G = 1, for a codebook that all L
    share."""
    base = getattr(q, "base_dist", q)
    if isinstance(base, Quantized):
        index = base.index.flatten()
        counts = torch.zeros(base.codes, device=index.device).scatter_add(0, index, torch.ones_like(index).float())
        return (counts / len(index)).unsqueeze(0)
    if isinstance(base, OneHots | Relaxed):
        return base.probs.detach().flatten(0, -3).mean(0)
    return None


def likeliest(q: Distribution) -> Tensor | None:
    """Which codes are the likeliest of some x of a batch, (G, K), G and K as in `usage`; None where z is no code.

    The codes in use in a data set are those of any of its batches: their number is the sum of the union.
    """
    base = getattr(q, "base_dist", q)
    if isinstance(base, OneHots | Relaxed):
        best = base.probs.argmax(-1).flatten(0, -2)  # (B, G)
        return F.one_hot(best, base.probs.shape[-1]).amax(0) > 0
    used = usage(q)
    return None if used is None else used > 0


def perplexity(used: Tensor) -> Tensor:
    """exp of the entropy of the shares (G, K), on average over G: as many codes, used equally often, would have it."""
    spread: Tensor = torch.special.entr(used).sum(-1).exp().mean()
    return spread


def _kl_quantized(q: Quantized, p: UniformCodes) -> Tensor:
    """log K."""
    return q.h.new_full(q.index.shape, math.log(len(p.codebook)))


def _kl_of_the_choices(q: Relaxed, p: OneHots) -> Tensor:
    """Of the one-hot choices that a relaxed one leans to."""
    kl: Tensor = kl_divergence(OneHotCategorical(logits=q.logits, validate_args=False), p)
    return kl


register_kl(Quantized, UniformCodes)(_kl_quantized)
register_kl(Relaxed, OneHots)(_kl_of_the_choices)
