"""Terms: weighted regularisers, functions of a trace, that are added to the loss of a bound."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributions import Independent
from torch.func import functional_call
from torch.nn.functional import softplus

from aevb.data.batch import Data
from aevb.models.networks import MLP
from aevb.models.trace import LatentModel, Trace, check_trace, sampled
from aevb.notation import Shown, plain
from aevb.objectives.bounds import ELBO, Info
from aevb.objectives.schedules import Schedule, Step, value
from aevb.parts import OBJECTIVE, TERM, Member, Needs, Values, check, part_of, word_of
from aevb.probability.families import single

LEAST = 2  # data points in a minibatch whose codes are compared with each other


class Term(Protocol):
    """t → a penalty, a scalar, added to the loss `weight` times and logged by its `name`."""

    name: str
    weight: float | Schedule

    def __call__(self, t: Trace, /) -> Tensor: ...


@runtime_checkable
class Adversary(Protocol):
    """A term with parameters of its own, which learn from a loss of their own, by an optimiser of their own."""

    def own_loss(self, t: Trace, /) -> Tensor: ...
    def own_optimizer(self) -> torch.optim.Optimizer: ...


class Regularized(Shown, nn.Module):
    """loss = loss of the bound + Σ_i weight_i · term_i, all read off one trace; in nats per data point where the terms
    are.

    A term's own loss, such as a discriminator's, reaches only its own parameters and adds nothing to the value. The
    term's own optimiser updates them. Logged are the bound's numbers, each term by its name, unweighted, and own losses
    as `NAME_loss`.

    Args:
        bound: an `ELBO`, with a β of its own.
        terms: each of another kind.
    """

    def __init__(self, bound: ELBO, terms: Sequence[Term]) -> None:
        super().__init__()
        check([*members_of(bound), *(Member(TERM, word_of(term), needs=Needs(terms=True)) for term in terms)])
        twice = [name for name, count in Counter(term.name for term in terms).items() if count > 1]
        if twice:
            raise ValueError(
                f"Regularized: there are several terms {twice[0]!r}, which would be logged under "
                f"one name. Keep one of them."
            )
        self.bound, self.terms = bound, tuple(terms)
        self.adversaries = tuple(term for term in terms if isinstance(term, Adversary))
        self.learned = nn.ModuleList(term for term in terms if isinstance(term, nn.Module))

    def forward(self, model: LatentModel, data: Data, step: Step) -> tuple[Tensor, Info]:
        t = model.trace(data, self.bound.samples)
        check_trace(t, members_of(self))
        loss, info = self.bound.of(t, step)
        for term in self.terms:
            penalty = term(t)
            loss = loss + value(term.weight, step) * penalty
            info[term.name] = penalty.detach()
        for term in self.adversaries:
            own = term.own_loss(t)
            loss = loss + (own - own.detach())
            info[f"{cast(Term, term).name}_loss"] = own.detach()
        return loss, info


def members_of(objective: Any) -> list[Member]:
    """An objective, with its terms, as parts beside those of a model."""
    bound, terms = (objective.bound, objective.terms) if isinstance(objective, Regularized) else (objective, ())
    parts = [(OBJECTIVE, bound), *((TERM, term) for term in terms)]
    return [Member(role, word_of(part), part_of(part).offers, part_of(part).needs) for role, part in parts]


class TotalCorrelation(Shown):
    """TC = KL(q(z) ‖ Π_d q(z_d)) of the aggregate posterior q(z) = 1/N Σ_n q(z|x_n), in nats (arXiv 1802.04942,
    β-TCVAE).

        KL(q(z|x) ‖ p(z)) on average = I(x; z) + TC + Σ_d KL(q(z_d) ‖ p(z_d))

    so `ELBO()` and this term with weight β - 1 is β-TCVAE. From a minibatch of B,

        TC ≃ mean_kb [log q̂(z_kb) - Σ_d log q̂(z_kbd)],   q̂(z_kb) = Σ_j ω_bj q(z_kb|x_j),   likewise for each d

        "weighted"    ω = 1 / (N B)
        "stratified"  ω_bb = 1 / N,  ω_bj = (N - 1) / (N (B - 1)): q̂ is unbiased. It is the mean over all orders of the
                      minibatch of the paper's estimator, whose weights single out the last point.

    A penalty, no estimate: the ω of "weighted" sum to 1/N, which adds (D - 1) log N, and either way the logarithm of an
    average over B ≪ N points is off by nats. The posterior must factorise over the D latents.

    Args:
        weight: a number or a schedule.
        sampling: ω.
    """

    word, roles = "total-correlation", (TERM,)
    needs = Needs(terms=True, density=True, factorized=True, single=True)
    equation = "TC,  TC = KL(q(z) ‖ Π_d q(z_d)), q(z) = 1/N Σ_n q(z|x_n) by the minibatch, {sampling}"

    name = "total_correlation"

    def __init__(
        self, weight: float | Schedule = 1.0, sampling: Literal["weighted", "stratified"] = "weighted"
    ) -> None:
        if sampling not in ("weighted", "stratified"):
            raise ValueError(f"TotalCorrelation: sampling 'weighted' or 'stratified'; got {sampling!r}.")
        self.weight, self.sampling = _checked(weight, "TotalCorrelation"), sampling

    def __call__(self, t: Trace) -> Tensor:
        joint, marginals = self.log_aggregate(t)
        return (joint - marginals.sum(-1)).mean()

    def log_aggregate(self, t: Trace) -> tuple[Tensor, Tensor]:
        """log q̂(z), (K, B), and log q̂(z_d), (K, B, D), at the trace's own z."""
        each = (
            cast(Independent[Any], t.q).base_dist.log_prob(t.z.unsqueeze(2)).flatten(3)
        )  # (K, B, B, D), log q(z_kbd | x_j) at [k, b, j, d]
        log_weights = self.log_weights(each.shape[2], t.batch.of, each)
        joint = (each.sum(-1) + log_weights).logsumexp(2)
        return joint, (each + log_weights.unsqueeze(-1)).logsumexp(2)

    def log_weights(self, b: int, n: int, like: Tensor) -> Tensor:
        """log ω, (B, B), of the type of `like`, for N = `n` data points in the training set."""
        if not n:
            raise ValueError("TotalCorrelation: needs N, the number of rows in the data. Pass a Batch with `of`.")
        if self.sampling == "weighted":
            return like.new_full((b, b), -math.log(n * b))
        if not LEAST <= b <= n:
            raise ValueError(f"TotalCorrelation: 'stratified' needs minibatches of 2 to {n} data points; got {b}.")
        others = like.new_full((b, b), math.log((n - 1) / (n * (b - 1))))
        return others.fill_diagonal_(-math.log(n))


class DIP(Shown):
    """Disentangled inferred prior: the covariance C of the codes is pulled towards the identity (arXiv 1711.00848).

        Σ_{i≠j} C_ij² + diagonal · Σ_i (C_ii - 1)²,   C = Cov_x[E_q z]  (DIP-VAE-I),  or plus E_x[Cov_q z]  (DIP-VAE-II)

    with both moments over the minibatch (1/B, not 1/(B - 1)), so that a batch twice over counts the same. E_q z is the
    mean of q(z|x), not a draw; flows, whose mean has no formula, are refused, as are single codes, which have no
    derivative.

    Args:
        weight: the paper's λ_od, a number or a schedule.
        diagonal: λ_d / λ_od.
        kind: "I" or "II"; the first leaves the posterior's variance to the KL.
    """

    word, roles = "dip", (TERM,)
    needs = Needs(terms=True, known_mean=True, single=True)

    @staticmethod
    def equation(v: Values) -> str:
        covariance = "C = Cov_x E_q[z]" + " + E_x Cov_q[z]" * (v["kind"] == "II")
        return f"[Σ_(i≠j) C_ij² + {plain(v['diagonal'])} Σ_i (C_ii - 1)²],  {covariance}"

    name = "dip"

    def __init__(self, weight: float | Schedule = 1.0, diagonal: float = 10.0, kind: Literal["I", "II"] = "I") -> None:
        if kind not in ("I", "II") or not diagonal >= 0:
            raise ValueError(f"DIP: the kind is 'I' or 'II', and diagonal ≥ 0; got {kind!r} and {diagonal}.")
        self.weight, self.diagonal, self.kind = _checked(weight, "DIP"), diagonal, kind
        self.needs = replace(DIP.needs, known_covariance=kind == "II", otherwise={"known_covariance": "the kind I"})

    def __call__(self, t: Trace) -> Tensor:
        c = self.covariance(t)
        return self._off_diagonal(c).square().sum() + self.diagonal * (c.diagonal() - 1).square().sum()

    def covariance(self, t: Trace) -> Tensor:
        """C, (D, D)."""
        means = single(_batch(t.q.mean.flatten(1), "DIP"))
        centred = means - means.mean(0)
        with torch.autocast(means.device.type, enabled=False):  # in bfloat16 it would be off by percents
            c = centred.T @ centred / len(means)
        return c + _mean_covariance(t) if self.kind == "II" else c

    @staticmethod
    def _off_diagonal(c: Tensor) -> Tensor:
        return c - torch.diag(c.diagonal())


def _mean_covariance(t: Trace) -> Tensor:
    """E_x[Cov_q z], (D, D)."""
    if isinstance(t.q, Independent):
        return torch.diag(t.q.variance.flatten(1).mean(0))
    covariance: Tensor = cast(Any, t.q).covariance_matrix
    return covariance.mean(0)


class MMD(Shown):
    """The squared maximum mean discrepancy of codes z ~ q(z) and as many draws z' ~ p(z), an unbiased estimate.

        mean_{i≠j} k(z_i, z_j) + mean_{i≠j} k(z'_i, z'_j) - 2 mean_ij k(z_i, z'_j)

        "imq"  k = C / (C + ‖a - b‖²)      (arXiv 1711.01558, WAE-MMD)
        "rbf"  k = exp(-‖a - b‖² / C)      (arXiv 1706.02262, InfoVAE)

    over the minibatch, the mean over K samples per point; without unit. InfoVAE is `ELBO(beta=1 - α)` and this term
    with weight α + λ - 1, WAE is `ELBO(beta=0)` and this term. A prior that is learned gets no gradient from it.

    Beside a KL of full weight, a large weight delays the learning of codes: with 99 on digits the KL is 0.1 nats after
    40,000 samples and 2.6 after 150,000, without the term 2.8 after 40,000 (`aevb train digits --recipe info-vae
    --samples 150000 --set encoder.hidden=[128] --set decoder.hidden=[128]`). The optimum has not collapsed: in a
    minibatch of 100, where q(z) = p(z) in 10 dimensions, the gradient of 99 MMD at a code is noise of norm 3.3, that of
    the KL is |μ|.

    Args:
        weight: a number or a schedule.
        kernel: k.
        scale: C: a number, or "dimension" for 2 D, the mean of ‖a - b‖² between draws of N(0, I), or "median" for the
            median of ‖z_i - z'_j‖², held constant. With "median" C depends on the draws, and "unbiased" holds for given
            C.
    """

    word, roles = "mmd", (TERM,)
    needs = Needs(terms=True)

    @staticmethod
    def equation(v: Values) -> str:
        kernel = {"imq": "k(a, b) = C/(C + |a - b|²)", "rbf": "k(a, b) = exp(-|a - b|²/C)"}[v["kernel"]]
        scale = {"dimension": "C = 2D", "median": "C the median of |z - u|²"}.get(v["scale"], f"C = {v['scale']}")
        return f"MMD²,  E k(z, z') + E k(u, u') - 2 E k(z, u) for z, z' ~ q(z), u, u' ~ p(z), {kernel}, {scale}"

    name = "mmd"

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        kernel: Literal["imq", "rbf"] = "imq",
        scale: float | Literal["dimension", "median"] = "dimension",
    ) -> None:
        if kernel not in ("imq", "rbf"):
            raise ValueError(f"MMD: the kernel is 'imq' or 'rbf'; got {kernel!r}.")
        if scale not in ("dimension", "median") and (isinstance(scale, str) or not scale > 0):
            raise ValueError(f"MMD: the scale is a positive number, 'dimension' or 'median'; got {scale!r}.")
        self.weight, self.kernel, self.scale = _checked(weight, "MMD"), kernel, scale

    def __call__(self, t: Trace) -> Tensor:
        draws = sampled(t.p, t.z.shape[:1] if t.p.batch_shape else t.z.shape[:2])
        return self.between(t.z.flatten(2), draws.flatten(2))

    def between(self, z: Tensor, draws: Tensor) -> Tensor:
        """The estimate between two clouds (K, B, D), for each k of its own, averaged over K."""
        b = len(_batch(z[0], "MMD"))
        cross = _squared_distances(z, draws)
        c = self.constant(cross.detach(), z.shape[-1])
        own = self._k(_squared_distances(z, z), c) + self._k(_squared_distances(draws, draws), c)
        pairs = (own.sum((1, 2)) - 2 * b) / (b * (b - 1))  # k(a, a) = 1
        return (pairs - 2 * self._k(cross, c).mean((1, 2))).mean()

    def constant(self, cross: Tensor, d: int) -> Tensor | float:
        """C."""
        if self.scale == "median":
            return cross.median()
        return 2.0 * d if self.scale == "dimension" else self.scale

    def _k(self, squared: Tensor, c: Tensor | float) -> Tensor:
        return c / (c + squared) if self.kernel == "imq" else (-squared / c).exp()


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """(K, A, D), (K, B, D) → (K, A, B)."""
    return (a.unsqueeze(2) - b.unsqueeze(1)).square().sum(-1)


class Commitment(Shown):
    """The distance of the encoder's h from the codes that it was quantised to: mean_B Σ_l |h_l - sg(e_l)|² (arXiv
    1711.00937).

    sg is held constant: the codebook follows h by running means, and this term keeps h from running away from it. It is
    the squared distance of one data point, whatever the size of the minibatch; without unit.

    Args:
        weight: the paper's β, a number or a schedule.
    """

    word, roles = "commitment", (TERM,)
    needs = Needs(terms=True, quantized=True, single=True)
    equation = "Σ_l |h_l - e_k(l)|²,  e held constant"

    name = "commitment"

    def __init__(self, weight: float | Schedule = 0.25) -> None:
        self.weight = _checked(weight, "Commitment")

    def __call__(self, t: Trace) -> Tensor:
        q = cast(Any, t.q).base_dist
        distance: Tensor = (q.h - q.code.detach()).square().flatten(1).sum(1).mean()
        return distance


class DensityRatio(Shown, nn.Module):
    """The total correlation by a discriminator between codes and codes with shuffled latents (arXiv 1802.05983).

        TC = E_q(z)[log q(z) / Π_d q(z_d)] ≃ mean_kb T(z_kb),   T a network
        T descends ½ mean softplus(-T(z)) + ½ mean softplus(T(z̃)),
        z̃_d from q(z_d), each d shuffled by itself over the batch

    `ELBO()` and this term is FactorVAE, the weight being its γ. The penalty does not move T, nor T's loss the model.
    Both move in the same step, T by an Adam of its own, which no schedule, clip or weight prior of the model's reaches.
    As in the paper z and z̃ come from different data points: from either half of the minibatch. TC and loss are in
    nats, the loss ln 2 where T cannot distinguish them.

    Args:
        model: gives the latent's shape; it is not kept.
        weight: γ, a number or a schedule.
        hidden: widths of T's hidden layers, with leaky ReLU.
        lr, betas: the step size of T's Adam, and its β₁ and β₂, by default the paper's.
    """

    word, roles = "density-ratio", (TERM,)
    needs = Needs(terms=True)
    equation = "E_q(z)[T(z)],  T an mlp {hidden} wide that learns to tell q(z) = 1/N Σ_n q(z|x_n) from Π_d q(z_d)"

    name = "total_correlation"

    def __init__(
        self,
        model: LatentModel,
        weight: float | Schedule = 1.0,
        hidden: Sequence[int] = (1000,) * 5,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.5, 0.9),
    ) -> None:
        super().__init__()
        self.weight, self.lr, self.betas = _checked(weight, "DensityRatio"), lr, betas
        self.net = MLP(tuple(model.latent_shape), 1, hidden, nn.LeakyReLU)

    def own_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser of the discriminator's parameters."""
        return torch.optim.Adam(self.parameters(), lr=self.lr, betas=self.betas, fused=True)

    def forward(self, t: Trace) -> Tensor:
        constants = {name: p.detach() for name, p in self.net.named_parameters()}
        return cast(Tensor, functional_call(self.net, constants, (t.z.flatten(0, 1),))).mean()

    def own_loss(self, t: Trace) -> Tensor:
        """The discriminator's loss on a trace, in nats."""
        z = _batch(t.z.detach().flatten(2).transpose(0, 1), "DensityRatio")  # (B, K, D)
        half = len(z) // 2
        true, shuffled = z[:half].flatten(0, 1), _shuffled(z[half:].flatten(0, 1))
        return 0.5 * (softplus(-self.net(true)).mean() + softplus(self.net(shuffled)).mean())


def _shuffled(z: Tensor) -> Tensor:
    """z (B, D), each column in an order of its own: draws of Π_d q(z_d)."""
    return z.gather(0, torch.rand_like(z).argsort(0))


def _batch(rows: Tensor, name: str) -> Tensor:
    if len(rows) < LEAST:
        raise ValueError(
            f"{name}: codes are compared with each other, which needs a minibatch of at least 2 data points."
        )
    return rows


def _checked(weight: float | Schedule, name: str) -> float | Schedule:
    if not callable(weight) and not weight >= 0:
        raise ValueError(f"{name}: weight ≥ 0; got {weight}.")
    return weight
