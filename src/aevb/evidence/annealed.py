"""log p(x) by annealed importance sampling, and bracketed from both sides on data that the model made itself.

A path of densities leads from a start r(z), such as the prior, to the posterior:

    f_t(z) = r(z)^(1-β_t) p(x, z)^β_t,   0 = β_0 < β_1 < ... < β_T = 1

which from r = p(z) is p(z) p(x|z)^β_t. A chain follows it by transitions that leave f_t invariant, and

    log w = Σ_{t=1..T} (β_t - β_{t-1}) log p(x, z_{t-1}) / r(z_{t-1})

Upwards, from z_0 ~ r, E[w] = p(x) (Neal 2001, Statistics and Computing 11, 125); downwards, from z_{T-1} ~ p(z|x),
E[1/w] = p(x)⁻¹ (Grosse et al. 2015, arXiv 1511.02543). By Jensen's inequality the logarithms bound log p(x) from below
and from above, in expectation. For generative networks: Wu et al. 2017, arXiv 1611.04273.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.distributions import Distribution

from aevb.data.batch import Batch, Indexable, batches
from aevb.data.memory import keep_freed_memory
from aevb.data.randomness import derive
from aevb.data.walk import Counter, decoded_at_once
from aevb.evidence.marginal import Marginal, estimated, joined, reciprocal
from aevb.evidence.support import Proposal, refuse_point, unconstraining
from aevb.models.checks import likelihood_batches
from aevb.models.inference import Model, as_result, fitting, inference
from aevb.models.rows import RowNoise, by_row, row_seeds
from aevb.models.trace import LatentModel
from aevb.notation import Brief
from aevb.probability.hmc import Info, LogDensity, Look, Place, adapted, transition

PILOT = 100  # temperatures at which the step sizes are found
PILOT_CHAINS = 4
WIDE = 1.0  # nats between the two bounds of log p(x), above which a bracket says little
ACCEPTANCE = 0.75  # aimed at; near the optimum of HMC, and on the side where chains do not get stuck
Rungs = Sequence[tuple[float, Tensor]]  # (β_t, ε_t (B)) of the path, in the order in which it is gone


@dataclass(frozen=True)
class Annealing:
    """The path of temperatures, and the HMC steps along it.

    Attributes:
        temperatures: T; the estimates tighten as 1/T.
        leapfrogs: steps of each HMC path, of which there is one per temperature.
        start: r, a batch → a distribution of z; the prior if None. From `model.posterior` the path is
            shorter; a mode of p(z|x) that q(z|x) does not know then widens the bracket, which holds nevertheless. Where
            p(z) has density r must have some, so that a uniform q(z|x) is refused.
    """

    temperatures: int = 500
    leapfrogs: int = 10
    start: Proposal | None = None

    def __post_init__(self) -> None:
        if min(self.temperatures, self.leapfrogs) < 1:
            raise ValueError(f"Annealing: temperatures and leapfrogs must be at least 1; got {self}.")


@dataclass(frozen=True, repr=False)
class Bracket(Brief):
    """log p(x) from both sides, for N data points that the model made, in nats, float64 on the CPU.

    Attributes:
        lower: of the chains that go up from the start; log p̂(x) ≤ log p(x) in expectation.
        upper: of the chains that go down from the z that x was drawn from; log p̂(x) ≥ log p(x) in expectation. All
            K of a data point begin at the same z, so that its `se` and `ess` say too little: for an error, use the
            spread over data points.
        x: (N, *X), the data.

    Means over data points hold the spread of log p(x), but `gap` does not: it bounds the error of both.
    """

    lower: Marginal
    upper: Marginal
    x: Tensor

    @property
    def gap(self) -> Tensor:
        """upper - lower, (N,): KL divergences of the paths, at least zero in expectation; single ones can be
        negative."""
        return self.upper.log_px - self.lower.log_px

    @property
    def warning(self) -> str | None:
        """What a wide bracket means: more than a nat between the bounds, on average over the data points."""
        gap = float(self.gap.mean())
        if abs(gap) <= WIDE:
            return None
        return (
            f"The bracket is wide: its bounds are {gap:.1f} nats apart on average, so that log p(x) is not known better"
            " than that. Use more temperatures; if that does not narrow it, start from the prior."
        )


def log_marginal_ais(
    model: Model,
    data: Indexable,
    chains: int = 16,
    annealing: Annealing = Annealing(),
    *,
    seed: int = 0,
) -> Marginal:
    """log p(x) by annealed importance sampling: log 1/K Σ_k w_k over K = `chains` independent chains per data point.

    Transitions are HMC, in coordinates without constraints where z has any. A row's noise depends on its content and
    the seed alone, so that its score does not depend on the rows beside it. Their step sizes ε_t(x) are found by a
    pilot of separate chains and then kept, so that p̂(x) is unbiased, whatever the chains do.

    Args:
        model: a trained one.
        data: x (N, *X), as of `aevb.encode`; with contexts, `Pairs`, the estimate is of log p(x|y).
        chains: K.
        annealing: the path of temperatures.
        seed: of the noise.

    Returns:
        As `log_marginal` does, with chains in place of samples.
    """
    _check(chains)
    data = fitting(model, data)
    count = Counter(len(data) * chains * annealing.temperatures)
    keep_freed_memory()
    with inference(model, derive(seed, "annealing")) as device:
        rows = max(1, decoded_at_once(device) // next(batches(data, 1, device)).x.numel())
        points = max(1, rows // max(chains, PILOT_CHAINS))
        parts = [
            _upwards(Bridge(model, b, annealing, seed), chains, rows, count)
            for b in likelihood_batches(model, data, points)
        ]
    return joined(parts)


def bidirectional(
    model: Model,
    n: int = 100,
    chains: int = 16,
    annealing: Annealing = Annealing(),
    *,
    y: Tensor | None = None,
    seed: int = 0,
) -> Bracket:
    """Bidirectional Monte Carlo: log p(x) of n data points x ~ p(x|z), z ~ p(z), from below and from above.

    For such a data point one exact draw of its posterior is known: the z that it was drawn from. The gap says how far
    `log_marginal_ais` with the same chains and temperatures is from the truth on such data. It holds for real data as
    far as they resemble these; q(z|x) takes no part in it (unless it is the start).

    Args, and step sizes: as in `log_marginal_ais`.
        y: of a conditional model the conditions y, (n, *C), or (1, *C) for all: the bracket is of log p(x|y).
    """
    _check(min(n, chains))
    count = Counter(2 * n * chains * annealing.temperatures)
    keep_freed_memory()
    with inference(model, derive(seed, "bidirectional")) as device:
        y = None if y is None else y.to(device).expand(n, *y.shape[1:])
        one = None if y is None else y[:1]
        rows = max(1, decoded_at_once(device) // model.decode(model.sample_latent(1, one), one).event_shape.numel())
        parts = []
        for i in torch.arange(n, device=device).split(max(1, rows // max(chains, PILOT_CHAINS))):
            here = None if y is None else y[i]
            z = model.sample_latent(len(i), here)
            bridge = Bridge(model, Batch(model.decode(z, here).sample(), here), annealing, seed)
            parts.append(_bracket(bridge, z, chains, rows, count))
    lower, upper = (joined(side) for side in zip(*((b.lower, b.upper) for b in parts), strict=True))
    return Bracket(lower, upper, torch.cat([b.x for b in parts]))


def temperatures(count: int, steepness: float = 4.0) -> list[float]:
    """β_0 = 0, ..., β_T = 1 with T = `count`, close to each other at both ends: a sigmoid over ±4 (arXiv
    1611.04273)."""
    s = torch.sigmoid(steepness * torch.linspace(-1, 1, count + 1, dtype=torch.float64))
    beta: list[float] = ((s - s[0]) / (s[-1] - s[0])).tolist()
    return beta


class Bridge:
    """The path of densities of a batch of B data points, over u (K, B, D) ∈ ℝᴰ with z = T(u), T = 1 for real z.

    log f_β(u) = log r(z) + log |det ∂z/∂u| + β (log p(x, z) - log r(z))
    """

    def __init__(self, model: LatentModel, batch: Batch, path: Annealing, seed: int) -> None:
        self.model, self.batch, self.path, self.seed = model, batch, path, seed
        self.noise, self.drawn = RowNoise(row_seeds(batch, seed)), 0
        self.begin: Proposal = path.start or (lambda rows: model.trace(rows).p)
        self.start: Distribution = self.begin(batch)
        refuse_point(self.start, "annealed importance sampling from q(z|x)", everywhere=True)
        self.transform = unconstraining(self.start)
        self.shape = self.transform.inverse_shape(self.start.event_shape)

    def draw(self, chains: int) -> Tensor:
        """u ~ r, (K, B, D), at each call others."""
        self.drawn += 1
        parts = [group.draw(chains, self.drawn) for group in by_row(self.begin, self.batch, self.seed)]
        one = self.start.event_shape
        return self.to_u(torch.cat([z.reshape(chains, -1, *one) for z in parts], 1))

    def to_u(self, z: Tensor) -> Tensor:
        u: Tensor = self.transform.inv(z)
        return u.flatten(z.ndim - len(self.start.event_shape))

    def parts(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log r(z), log p(x, z) and log |det ∂z/∂u|, each (K, B)."""
        v = u.unflatten(-1, self.shape)
        z = self.transform(v)
        jacobian: Tensor = self.transform.log_abs_det_jacobian(v, z)
        return self.start.log_prob(z), self.model.log_joint(self.batch, z), jacobian

    def density(self, beta: float) -> LogDensity:
        return lambda u: tempered(beta, *self.parts(u))

    def look(self, beta: float) -> Look:
        """u → its place on rung β. Its parts are those of every rung: see `moved`."""

        def look(u: Tensor) -> Place:
            with torch.enable_grad():
                u = u.detach().requires_grad_(True)
                log_r, joint, jacobian = self.parts(u)
                slope_r = slope_of(log_r + jacobian, u, keep=True)
                slope_joint = slope_of(joint + jacobian, u)
            values = (log_r.detach(), joint.detach(), torch.as_tensor(jacobian).detach().expand(joint.shape))
            return self.moved(Place(u.detach(), values[0], slope_r, (*values, slope_r, slope_joint)), beta)

        return look

    @staticmethod
    def moved(at: Place, beta: float) -> Place:
        """The same chains on rung β: as values and gradients of both ends are known, nothing is computed anew."""
        *values, slope_r, slope_joint = at.parts
        slope = torch.lerp(slope_r, slope_joint, beta)
        return Place(at.z, tempered(beta, *values), torch.where(slope.isfinite(), slope, 0.0), at.parts)

    def rungs(self) -> Rungs:
        """(β_t, ε_t) with step sizes from a pilot of other chains, which goes the same way in fewer steps and adapts.

        The chains of the estimate do not touch their ε: adapted by what they met, their weights would be biased.
        """
        betas, pilot = temperatures(self.path.temperatures), temperatures(min(self.path.temperatures, PILOT))
        step = torch.full((len(self.batch),), 0.5, dtype=self.batch.x.dtype, device=self.batch.x.device)
        at, found = self.look(0.0)(self.draw(PILOT_CHAINS)), []
        for beta in pilot:
            at, info = self.move(at, beta, step)
            step = adapted(step, info, ACCEPTANCE, rate=0.4).log().mean(0).exp()
            found.append(step)
        return [(beta, found[round(t / self.path.temperatures * (len(pilot) - 1))]) for t, beta in enumerate(betas)]

    def move(self, at: Place, beta: float, step: Tensor) -> tuple[Place, Info]:
        """One HMC transition of chains that were on any rung, on rung β."""
        return transition(self.look(beta), self.moved(at, beta), step, self.path.leapfrogs, noise=self.noise)

    def log_weights(self, u: Tensor, rungs: Rungs, count: Callable[[int], None]) -> Tensor:
        """log w of the chains that begin at u (K, B, D) and go from the first rung to the last, up or down; (K, B)."""
        total = torch.zeros(u.shape[:-1], dtype=torch.float64, device=u.device)
        at = self.look(rungs[0][0])(u)
        for (here, _), (there, step) in pairwise(rungs):
            log_r, joint, *_ = at.parts
            total += abs(there - here) * (joint - log_r).double()
            if 0 < there < 1:  # the last move would enter no weight
                at, _ = self.move(at, there, step)
            count(total.numel())
        return as_result(total)


def tempered(beta: float, log_r: Tensor, joint: Tensor, jacobian: Tensor) -> Tensor:
    """log f_β(u), (K, B), of the `parts` of a bridge."""
    return log_r + jacobian + beta * (joint - log_r)


def slope_of(value: Tensor, u: Tensor, keep: bool = False) -> Tensor:
    """∂ value / ∂u, (K, B, D); `keep` leaves what was recorded for another derivative."""
    (slope,) = torch.autograd.grad(value.sum(), u, retain_graph=keep, materialize_grads=True)
    return slope


def _upwards(bridge: Bridge, chains: int, rows: int, count: Callable[[int], None]) -> Marginal:
    """The lower bound of a batch, (B,)."""
    rungs = bridge.rungs()
    weights = (bridge.log_weights(bridge.draw(k), rungs, count) for k in _chunks(chains, rows // len(bridge.batch)))
    return replace(estimated(weights, chains), annealed=True)


def _bracket(bridge: Bridge, z: Tensor, chains: int, rows: int, count: Callable[[int], None]) -> Bracket:
    """Both bounds of the bridge's data, which were made of z (B, *Z)."""
    rungs, u = bridge.rungs(), bridge.to_u(z)
    sizes = list(_chunks(chains, rows // len(z)))
    up = estimated((bridge.log_weights(bridge.draw(k), rungs, count) for k in sizes), chains)
    down = estimated((-bridge.log_weights(u.expand(k, *u.shape), rungs[::-1], count) for k in sizes), chains)
    return Bracket(up, reciprocal(down), bridge.batch.x.cpu())


def _chunks(total: int, most: int) -> Iterator[int]:
    """`total` in parts of at most `most`."""
    most = max(1, most)
    for start in range(0, total, most):
        yield min(most, total - start)


def _check(count: int) -> None:
    if count < 1:
        raise ValueError(f"chains and data points must be at least 1; got {count}.")
