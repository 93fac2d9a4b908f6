"""Whether single latents follow single factors, where the factors of the data are known.

Everything here takes factors (N, F): whole numbers, which of its values each of F factors has. They should vary
independently, as in the source `sprites`: of factors that go together no measure can say which one a latent follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor
from torch.distributions import Distribution

from aevb.data.batch import Indexable, batches
from aevb.data.randomness import derive, seeded
from aevb.data.sprites import CATEGORIES, FACTORS, factors_of
from aevb.data.walk import at_once
from aevb.errors import DataError, ShapeError
from aevb.evaluation.estimate import Estimate
from aevb.evaluation.latent import of_classes
from aevb.evaluation.report import Line, Report, Subject
from aevb.evidence.support import refuse_point
from aevb.models.inference import Model, as_result, dtype_of, fitting, inference
from aevb.notation import Brief
from aevb.probability.marginals import MEMORY, marginals

DEAD = 0.05  # a latent whose means spread less than this, beside the one that spreads most, has no part in `factor_vae`

VOTES = 800  # of which half are scored

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DCI:
    """Eastwood & Williams 2018 (ICLR), each from 0 to 1.

    Attributes:
        disentanglement: each latent is useful for only one factor.
        completeness: only one latent is useful for each factor.
        informativeness: held-out accuracy of the factors' predictions from all latents; 1/C by chance.
        informativeness_se: its standard error over the held-out data points.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    informativeness_se: float


@dataclass(frozen=True, repr=False)
class Disentanglement(Brief):
    """All measures of one model; see `mig`, `sap`, `dci` and `factor_vae_score`. `information` is (D, F), in nats."""

    information: Tensor
    mig: float
    sap: float
    dci: DCI
    factor_vae: float


def disentanglement(
    model: Model, data: Indexable, factors: Tensor, categories: Sequence[int] = (), *, seed: int = 0
) -> Disentanglement:
    """How far single latents of a model follow single factors (N, F) of the data.

    Args:
        data: x (N, *X), all of which are encoded at a time: a few thousand rows are enough. Or `Pairs`.
        categories: columns of the factors whose values have no order, such as `sprites.CATEGORIES`.
    """
    data = fitting(model, data)
    with inference(model, derive(seed, "codes")) as device:
        (batch,) = batches(data, len(data), device, dtype_of(model))
        q, v = model.posterior(batch), factors.to(device)
        refuse_point(q, "disentanglement")
        information, codes = mutual_information(q, v, seed=seed).cpu(), as_result(model.encode(batch))
    v = factors.cpu()
    scores = sap(codes, v, categories, seed=seed), dci(codes, v, seed=seed), factor_vae_score(codes, v, seed=seed)
    return Disentanglement(information, mig(information, v), *scores)


def mutual_information(q: Distribution, factors: Tensor, *, draws: int = 2000, seed: int = 0) -> Tensor:
    """I(z_d; v_f) between each latent and each factor, (D, F), in nats (Chen et al. 2018, arXiv 1802.04942, App. B).

        I = E[log q(z_d | v_f) - log q(z_d)],
        q(z_d) = 1/N Σ_n q(z_d|x_n),   q(z_d | v) = 1/N_v Σ_{n: v_n = v} q(z_d|x_n)

    Codes are not counted in bins, whose number would decide the result: the densities are the posterior's own.

    Args:
        q: q(z|x_n), batch (N), of which single latents have densities.
        draws: of z ~ q(z|x_n), at N/`draws` data points each; all of them where N is smaller.
    """
    alone = marginals(q)
    if alone is None:
        raise ShapeError(f"{type(q).__name__} gives no density of single latents, which this information needs.")
    _check(q.batch_shape[0], factors)
    with seeded(derive(seed, "disentanglement"), factors.device):
        rows = torch.randperm(len(factors), device=factors.device)[:draws]
        z = q.sample()[rows]
    size = len(factors) * max(1, z[0].numel())
    chunks = torch.arange(len(z)).split(max(1, at_once(MEMORY) // size))
    parts = [_gain(alone, z[i], factors, factors[rows[i]]) for i in chunks]
    return torch.cat(parts).mean(0)


def _gain(alone: Distribution, z: Tensor, factors: Tensor, own: Tensor) -> Tensor:
    """log q(z_d | v_f) - log q(z_d) of draws z (R, *Z) whose factors are `own` (R, F): (R, D, F)."""
    log_q = alone.log_prob(z[:, None]).flatten(2).double()  # (R, N, D)
    weights = torch.exp(log_q - log_q.amax(1, keepdim=True)).mT  # (R, D, N)
    same = (own[:, None] == factors).to(weights)  # (R, N, F)
    within = (weights @ same) / same.sum(1, keepdim=True)
    return within.log() - weights.mean(2, keepdim=True).log()


def mig(information: Tensor, factors: Tensor) -> float:
    """The mutual information gap (arXiv 1802.04942, eq. 6): 1 where every factor is in one latent alone, at least 0.

        1/F Σ_f (I(z_first; v_f) - I(z_second; v_f)) / H(v_f)

    Args:
        information: (D, F), as `mutual_information` gives it.
    """
    top = information.clamp(min=0).topk(min(2, len(information)), dim=0).values
    gap = top[0] - top[1] if len(top) > 1 else top[0]
    return float((gap / entropies(factors).to(gap)).mean())


def entropies(factors: Tensor) -> Tensor:
    """H(v_f) of the values that are there, (F,), in nats."""
    counts = [torch.unique(column, return_counts=True)[1].double() for column in factors.T]
    return torch.stack([-(c / c.sum() * (c / c.sum()).log()).sum() for c in counts])


def sap(codes: Tensor, factors: Tensor, categories: Sequence[int] = (), *, seed: int = 0) -> float:
    """Separated attribute predictability (Kumar et al. 2018, arXiv 1711.00848, §3): how much better the best latent is.

    The mean over factors of the gap between the two latents that predict it best, alone: by a line, R², for a factor
    whose values have an order; by thresholds, held-out balanced accuracy, for one of the `categories` (columns of
    factors). The gap of a perfect code is 1, of a category of C values 1 - 1/C.

    Args:
        codes: E_q[z|x], (N, D).
    """
    z, v = _arrays(codes, factors)
    scores = np.stack(
        [_thresholds(z, v[:, f], seed) if f in categories else _lines(z, v[:, f]) for f in range(v.shape[1])]
    )
    ordered = np.sort(np.pad(scores, ((0, 0), (1, 0))), axis=1)
    return float((ordered[:, -1] - ordered[:, -2]).mean())


def _lines(z: Array, v: Array) -> Array:
    """R² of a least-squares line from each latent: the squared correlation, (D,)."""
    a, b = z - z.mean(0), v - v.mean()
    spread = (a**2).sum(0) * (b**2).sum()
    squared: Array = np.divide((a * b[:, None]).sum(0) ** 2, spread, out=np.zeros_like(spread), where=spread > 0)
    return squared


@of_classes()
def _thresholds(z: Array, v: Array, seed: int) -> Array:
    """Balanced accuracy of C - 1 thresholds on each latent, on the half of the data that did not set them, (D,)."""
    fit, held = _halves(len(z), seed)
    scores = []
    for column in z.T[:, :, None]:
        tree = DecisionTreeClassifier(max_leaf_nodes=len(np.unique(v)), class_weight="balanced", random_state=seed)
        scores.append(balanced_accuracy_score(v[held], tree.fit(column[fit], v[fit]).predict(column[held])))
    return np.array(scores)


@of_classes()
def dci(codes: Tensor, factors: Tensor, *, trees: int = 10, seed: int = 0) -> DCI:
    """Disentanglement, completeness, informativeness of codes (N, D), by the importance R (D, F) of latents for
    factors.

        D = Σ_d ρ_d (1 - H_F(R_d· / Σ R_d·)),  ρ_d = Σ R_d· / Σ R;   C = 1/F Σ_f (1 - H_D(R_·f / Σ R_·f))

    with entropies H to the base F and D. R is the decrease of impurity in a random forest that predicts each factor
    from half of the data; every split may choose among all latents, so a latent without information gets 0.
    """
    z, v = _arrays(codes, factors)
    fit, held = _halves(len(z), seed)
    importance, right = [], []
    for column in v.T:
        forest = RandomForestClassifier(trees, max_features=None, random_state=seed).fit(z[fit], column[fit])
        importance.append(forest.feature_importances_)
        right.append(forest.predict(z[held]) == column[held])
    r = np.stack(importance, axis=1)
    weights = r.sum(1) / max(r.sum(), 1e-12)
    share = np.mean(right, axis=0)  # of the factors that were found, for each data point
    accuracy, error = float(share.mean()), float(share.std(ddof=1) / math.sqrt(len(share)))
    return DCI(float((weights * _concentration(r)).sum()), float(_concentration(r.T).mean()), accuracy, error)


def _concentration(rows: Array) -> Array:
    """1 - H of each row as a distribution over its K columns, to the base K: 1 where all is in one column."""
    if rows.shape[1] == 1:
        return np.ones(len(rows))
    p = rows / np.maximum(rows.sum(1, keepdims=True), 1e-12)
    entropy: Array = -(p * np.log(np.maximum(p, 1e-300))).sum(1)
    return 1 - entropy / math.log(rows.shape[1])


def factor_vae_score(codes: Tensor, factors: Tensor, *, votes: int = VOTES, batch: int = 64, seed: int = 0) -> float:
    """The metric of FactorVAE (Kim & Mnih 2018, arXiv 1802.05983, §4): 1 at best, 1/F by chance.

    A vote: fix one factor at one value, and see which latent varies least over `batch` such data points, relative to
    all. A table of latents against factors, filled by half of the votes, predicts the factor from the latent. The score
    is its accuracy on the other half. Latents that vary with nothing have no vote.
    """
    z, v = _arrays(codes, factors)
    spread = z.std(0)
    alive = spread > DEAD * spread.max()
    random, table = np.random.RandomState(seed), np.zeros((2, z.shape[1], v.shape[1]))
    for half in (0, 1):
        for _ in range(votes // 2):
            f = random.randint(v.shape[1])
            rows = np.flatnonzero(v[:, f] == v[random.randint(len(v)), f])
            varies = z[random.choice(rows, batch)].var(0) / np.where(alive, spread, 1) ** 2
            table[half, np.where(alive, varies, np.inf).argmin(), f] += 1
    learned = table[0].argmax(1)
    return float(table[1][np.arange(len(learned)), learned].sum() / table[1].sum())


def _halves(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.random.RandomState(seed).permutation(n)
    return order[: n // 2], order[n // 2 :]


def _arrays(codes: Tensor, factors: Tensor) -> tuple[Array, Array]:
    _check(len(codes), factors)
    return codes.detach().cpu().double().flatten(1).numpy(), factors.cpu().numpy().astype(np.float64)


def _check(n: int, factors: Tensor) -> None:
    if factors.ndim != 2 or len(factors) != n:
        raise ShapeError(f"{n} codes need factors of shape ({n}, F); got {tuple(factors.shape)}.")
    if factors.is_floating_point():
        raise DataError(f"Factors are whole numbers, which of its values each has; got {factors.dtype}.")
    constant = [f for f, column in enumerate(factors.T) if len(torch.unique(column)) < 2]
    if constant:
        raise DataError(f"Factor {constant[0]} has only one value, so it has no information. Leave its column out.")


def _report(subject: Subject) -> dict[str, Any]:
    found = disentanglement(subject.model, subject.data, factors_of(subject.rows[:]), CATEGORIES)
    dci = {"disentanglement": found.dci.disentanglement, "completeness": found.dci.completeness}
    best = found.information.argmax(0).tolist()
    return {
        "n": len(subject.rows),
        "factors": [*FACTORS],
        "information": found.information.tolist(),
        "mig": found.mig,
        "sap": found.sap,
        "dci": dci | {"informativeness": Estimate(found.dci.informativeness, found.dci.informativeness_se)},
        "factor_vae": Estimate.share(found.factor_vae, VOTES // 2),
        "most": ", ".join(f"{name} in {d}" for name, d in zip(FACTORS, best, strict=True)),
    }


REPORT = Report(
    _report,
    "single latents and single factors, n = {n:,}",
    (
        Line("mig", "mutual information gap", "of 1; the most of {most}", 3),
        Line("sap", "SAP", "of 0.933", 3),
        Line("dci.disentanglement", "DCI disentanglement", "of 1", 3),
        Line("dci.completeness", "DCI completeness", "of 1", 3),
        Line("dci.informativeness", "DCI informativeness", "accuracy of a forest", 3),
        Line("factor_vae", "FactorVAE score", "of 1, 0.2 by chance", 3),
    ),
)
