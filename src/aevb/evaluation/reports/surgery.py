"""Where the bits of a code go: rate and distortion, and the KL taken apart over the aggregate posterior of all the
data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from aevb.data.batch import Indexable, batches, fixed, rows_at_once, take
from aevb.data.randomness import derive
from aevb.data.walk import at_once
from aevb.evaluation.bound import Bound, elbo
from aevb.evaluation.estimate import UNDEFINED, Estimate
from aevb.evaluation.report import Line, Report, Subject
from aevb.evidence.support import refuse_point
from aevb.models.checks import likelihood_batches
from aevb.models.compat import check_model
from aevb.models.inference import Model, as_result, dtype_of, fitting, inference
from aevb.notation import Brief
from aevb.parts import Member, Needs
from aevb.probability.marginals import MEMORY, marginals

SILENT = 0.01  # nats below which a latent says nothing of a data point
SHARE = 0.99  # of the data points of which a collapsed latent says nothing


@dataclass(frozen=True, repr=False)
class Surgery(Brief):
    """The mean KL of N data points, decomposed; nats, float64 on the CPU. With z_m ~ q(z|x_m) for M of the data
    points,

        E_n KL(q(z|x_n) ‖ p(z)) = I_q(x; z) + KL(q(z) ‖ p(z))            (Hoffman & Johnson 2016)
        KL(q(z) ‖ p(z)) = KL(q(z) ‖ Π_d q(z_d)) + Σ_d KL(q(z_d) ‖ p(z_d))    (Chen et al. 2018, arXiv 1802.04942)

    and q(z) = 1/N Σ_n q(z|x_n), the mixture over all N. Each term is the mean over M of its draws, with the standard
    error sd / √M, and draw by draw the identities hold exactly.

    Attributes:
        bound: the ELBO of all N data points: distortion is -`bound.reconstruction`, rate is `bound.kl`, (N, D) (Alemi
            et al. 2018, arXiv 1711.00464).
        mutual_information: (M,), log q(z_m|x_m) - log q(z_m). On average at most log N, which is the entropy of n, and
            near it a bound on what can be seen: with log N nats every code identifies its data point.
        aggregate_kl: (M,), log q(z_m) - log p(z_m): how far codes are from the prior, from which new data are drawn.
        total_correlation: (M,), log q(z_m) - Σ_d log q(z_md): how far latents are from independent. None
            where q(z|x) gives no density of single latents.
        dimension_kl: (M, D), log q(z_md) - log p(z_md). None where q(z|x) or p(z) gives none.
    """

    bound: Bound
    mutual_information: Tensor
    aggregate_kl: Tensor
    total_correlation: Tensor | None
    dimension_kl: Tensor | None

    @property
    def most_information(self) -> float:
        """log N."""
        return math.log(len(self.bound.reconstruction))

    @property
    def collapsed(self) -> Tensor:
        """Which latents (D,) carry no information about the data: KL(q(z_d|x) ‖ p(z_d)) < 0.01 nats for 99 % of x.

        This is (ε, δ)-collapse (Lucas et al. 2019, arXiv 1911.02469). Where the KL has no closed form there is one
        group, and the question is of all latents together.
        """
        return (self.bound.kl < SILENT).double().mean(0) >= SHARE

    @property
    def verdict(self) -> str:
        """In words, whether the posterior has collapsed to the prior."""
        silent, size = int(self.collapsed.sum()), len(self.collapsed)
        error = float(self.mutual_information.std()) / math.sqrt(len(self.mutual_information))
        if silent < size and float(self.mutual_information.mean()) < 2 * error:
            if float(self.bound.kl.sum(1).std(correction=0)) < SILENT:
                return (
                    "The posterior has collapsed: its KL is the same for all data, so that the code "
                    "carries no information about them; I(x; z) is 0 within its error."
                )
            return (
                "I(x; z) is 0 within its error: more data points are needed to say whether the posterior has collapsed."
            )
        if size == 1:  # one latent, or one KL for all of them together
            return (
                "The posterior has collapsed: the code carries no information about the data."
                if silent
                else "No posterior collapse: the code carries information about the data."
            )
        if silent == size:
            return f"The posterior has collapsed: none of {size} latents carries information about the data."
        if silent == 0:
            return f"No posterior collapse: each of {size} latents carries information about the data."
        return f"Partial posterior collapse: {silent} of {size} latents carry no information about the data."


def surgery(model: Model, data: Indexable, *, draws: int = 10_000, seed: int = 0) -> Surgery:
    """Rate, distortion, and the parts of the rate, of the aggregate posterior of *all* the data.

    The cost is M N D densities: q(z) is the exact mixture, since one over a minibatch is biased, by several nats.

    Args:
        model: a trained one.
        data: x (N, *X), as of `aevb.encode`; of
            pairs, `Pairs`, q(z) = 1/N Σ_n q(z|x_n, y_n), and what the codes say is of x and y.
        draws: M at most, one for each of M data points drawn without replacement; all of them where N is smaller.

    Raises:
        NoLikelihood: the posterior is a point (`Delta`), and its rate infinite.
        RecipeError: the prior reads the contexts, so that there is no single p(z).
    """
    if draws < 1:
        raise ValueError(f"surgery: draws must be at least 1; got {draws}.")
    data = fixed(fitting(model, data))
    with inference(model, derive(seed, "surgery")) as device:
        for _ in likelihood_batches(model, data):
            pass  # all rows fit, before the long sums
        t = model.trace(next(batches(data, 1, device, dtype_of(model))))
        p = t.p
        check_model(cast(nn.Module, model), Member("", "surgery", needs=Needs(unconditional=True)), seen=t)
        z, own = _draws(model, data, min(draws, len(data)), device)
        joint, single = aggregate(model, data, z)
        log_p, alone = as_result(p.log_prob(z)), marginals(p)
    total = None if single is None else joint - single.sum(1)
    by_dimension = None if single is None or alone is None else single - as_result(alone.log_prob(z).flatten(1))
    return Surgery(elbo(model, data, seed=seed), own - joint, joint - log_p, total, by_dimension)


def aggregate(model: Model, data: Indexable, z: Tensor) -> tuple[Tensor, Tensor | None]:
    """log q(z) = log 1/N Σ_n q(z|x_n), (M,), and log q(z_d), (M, D), for z (M, *Z), over all of the data."""
    joint = torch.full((len(z),), -math.inf, dtype=torch.float64)
    single = torch.full((len(z), z[0].numel()), -math.inf, dtype=torch.float64)
    factors = True
    for batch in batches(data, None, z.device, dtype_of(model)):
        q = model.posterior(batch)
        refuse_point(q, "surgery")
        for rows in torch.arange(len(z)).split(max(1, at_once(MEMORY) // (len(batch) * z[0].numel()))):
            log_q, parts = _pairs(q, z[rows.to(z.device)])
            joint[rows] = torch.logaddexp(joint[rows], as_result(log_q.logsumexp(1)))
            factors = factors and parts is not None
            if parts is not None:
                single[rows] = torch.logaddexp(single[rows], as_result(parts.logsumexp(1)))
    n = math.log(len(data))
    return joint - n, single - n if factors else None


def _pairs(q: Distribution, z: Tensor) -> tuple[Tensor, Tensor | None]:
    """log q(z_m|x_n), (M, B), and log q(z_md|x_n), (M, B, D), of each draw under each posterior."""
    alone = marginals(q)
    if alone is None:
        return q.log_prob(z[:, None]), None
    parts: Tensor = alone.log_prob(z[:, None]).flatten(2)
    return parts.sum(2) if isinstance(q, Independent) else q.log_prob(z[:, None]), parts


def _draws(model: Model, data: Indexable, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """z_m ~ q(z|x_m) for `count` data points, (M, *Z), and log q(z_m|x_m), (M,)."""
    chosen = torch.randperm(len(data), device=device)[:count]
    z, own = [], []
    for rows in chosen.split(rows_at_once(take(data, chosen[:1]).x.shape[1:])):
        q = model.posterior(take(data, rows))
        z.append(q.sample())
        own.append(as_result(q.log_prob(z[-1])))
    return torch.cat(z), torch.cat(own)


def _report(subject: Subject) -> dict[str, Any]:
    s = surgery(subject.model, subject.data)
    by_dimension = None if s.dimension_kl is None else s.dimension_kl.sum(1)
    terms = {
        "rate": s.bound.kl.sum(1),
        "distortion": -s.bound.reconstruction,
        "mutual_information": s.mutual_information,
        "aggregate_kl": s.aggregate_kl,
        "total_correlation": s.total_correlation,
        "dimension_kl": by_dimension,
    }
    sizes = {"n": len(s.bound.kl), "draws": len(s.mutual_information), "most_information": s.most_information}
    means = {name: UNDEFINED if term is None else Estimate.of(term) for name, term in terms.items()}
    return {**sizes, **means, "collapsed": int(s.collapsed.sum()), "verdict": s.verdict}


REPORT = Report(
    _report,
    "decomposition of the KL over all {n:,}",
    (
        Line("distortion", "distortion, -E[log p(x|z)]", "nats"),
        Line("rate", "rate, KL(q(z|x) ‖ p(z))", "nats; the next two add up to it, within their errors"),
        Line("mutual_information", "  I(x; z)", "nats, at most log N = {most_information:.2f}"),
        Line("aggregate_kl", "  KL(q(z) ‖ p(z))", "nats, the sum of the next two"),
        Line("total_correlation", "    total correlation of q(z)", "nats"),
        Line("dimension_kl", "    Σ KL(q(z_d) ‖ p(z_d))", "nats"),
    ),
    closing="{verdict}",
)
