"""Latent-space diagnostics: which units are active, and how well the labels are predicted from their means."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_samples
from sklearn.metrics.cluster import contingency_matrix
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.distributions import MultivariateNormal

from aevb.data.batch import Indexable, batches
from aevb.errors import DataError
from aevb.models.inference import Model, dtype_of, inference, prior_of
from aevb.notation import Brief
from aevb.probability.mixtures import FiniteMixture

Labels = Tensor | npt.NDArray[np.generic]


def active_units(means: Tensor, threshold: float | Tensor = 0.01) -> tuple[int, Tensor]:
    """How many latent units respond to the data: Cov_x(E_q[z_d|x]) > 0.01 (Burda et al. 2015, arXiv 1509.00519, §5.2).

    Args:
        means: E_q[z|x], (N, D).
        threshold: 0.01 for the prior N(0, I); for others 0.01 times the prior's variance, (D,).

    Returns:
        The number of active units, and the variance of each, (D,).
    """
    variances = means.double().var(0, correction=0)
    return int((variances > threshold).sum()), variances


@contextmanager
def of_classes() -> Iterator[None]:
    """Without scikit-learn's advice that so many classes look like a regression: labels are classes here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes is greater than", UserWarning)
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true", UserWarning)
        yield


@of_classes()
def neighbors_accuracy(
    train_codes: Tensor, train_labels: Labels, test_codes: Tensor, test_labels: Labels, k: int = 10
) -> float:
    """Accuracy of a vote among the k nearest codes (N, D) of the training set."""
    classifier = KNeighborsClassifier(n_neighbors=min(k, len(train_codes)))
    classifier.fit(as_array(train_codes), as_array(train_labels))
    return float(classifier.score(as_array(test_codes), as_array(test_labels)))


@of_classes()
def linear_probe(
    train_codes: Tensor, train_labels: Labels, test_codes: Tensor, test_labels: Labels, seed: int = 0
) -> float:
    """Test accuracy of a logistic regression on standardised codes (N, D), fitted to the training set."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed))
    classifier.fit(as_array(train_codes), as_array(train_labels))
    return float(classifier.score(as_array(test_codes), as_array(test_labels)))


def silhouette(codes: Tensor, labels: Labels) -> Tensor:
    """How much nearer each code (N, D) is to those of its own label than to those of any other one, (N,), from -1 to 1.

    s = (b - a) / max(a, b), with a the mean distance to codes of the same label, and b that to codes of the nearest
    other label (Rousseeuw 1987). It is 0 where labels overlap, 1 where they are clusters of points. It does not depend
    on the scale.
    """
    return torch.as_tensor(silhouette_samples(as_array(codes), as_array(labels)), dtype=torch.float64)


def prior_gap(codes: Tensor) -> Tensor:
    """How far codes are from the prior N(0, I): log N(z; m, S) - log N(z; 0, I) for each of them, (N,), in nats.

    m and S are the codes' mean and covariance, so the mean over codes is exactly, in closed form,
    KL(N(m, S) ‖ N(0, I)) = ½ (tr S + mᵀm - D - log det S), and sd / √N is its standard error. It is the least KL from
    the prior of all distributions with these moments.

    Args:
        codes: (N, D); draws z ~ q(z|x), one per data point, for the aggregate posterior.

    Raises:
        DataError: the codes lie in a plane of fewer than D dimensions, whose distance is infinite.
    """
    z = codes.detach().cpu().double()
    try:
        fitted = MultivariateNormal(z.mean(0), z.T.cov(correction=0).reshape(z.shape[1], z.shape[1]))
    except (ValueError, RuntimeError) as error:  # the latter where PyTorch's own checks are off
        raise DataError(
            f"{len(z)} codes do not fill their {z.shape[1]} dimensions: no normal can be fitted."
        ) from error
    prior = MultivariateNormal(torch.zeros_like(z[0]), torch.eye(z.shape[1], dtype=z.dtype))
    gap: Tensor = fitted.log_prob(z) - prior.log_prob(z)
    return gap


@dataclass(frozen=True, repr=False)
class Clustering(Brief):
    """How well clusters agree with labels.

    Attributes:
        nmi: normalised mutual information, 0 to 1.
        ari: Rand index adjusted for chance, 0 at chance and 1 at best.
        accuracy: the share of points whose cluster's class is theirs, with clusters matched to classes one to one.
    """

    nmi: float
    ari: float
    accuracy: float


def kmeans(codes: Tensor, labels: Labels, seed: int = 0) -> Clustering:
    """k-means on codes (N, D), as many clusters as there are classes (or different codes), compared with the labels
    (N,)."""
    y, z = as_array(labels), as_array(codes)
    count = min(len(np.unique(y)), len(np.unique(z, axis=0)))
    return agreement(y, KMeans(count, n_init=10, random_state=seed).fit_predict(z))


@of_classes()
def agreement(labels: Labels, clusters: Labels) -> Clustering:
    """How well clusters (N,), by any numbers, agree with labels (N,)."""
    y, c = as_array(labels), as_array(clusters)
    nmi, ari = normalized_mutual_info_score(y, c), adjusted_rand_score(y, c)
    return Clustering(float(nmi), float(ari), matched_accuracy(y, c))


def component_shares(model: Model, data: Indexable, batch: int | None = None) -> Tensor | None:
    """p(m | z) at z = E_q[z|x] of every data point, (N, M), on the CPU; None where the prior is not a mixture.

    The argmax is the cluster of a data point, as in VaDE (Jiang et al. 2017, arXiv 1611.05148), which takes the mean
    of p(m | z) over q(z|x).
    """
    shares = []
    with inference(model, 0) as device:
        for b in batches(data, batch, device, dtype_of(model)):
            p = prior_of(model, b)
            if not isinstance(p, FiniteMixture):
                return None
            shares.append(p.responsibilities(model.encode(b)).cpu())
    return torch.cat(shares)


def matched_accuracy(labels: Labels, clusters: Labels) -> float:
    """max over one-to-one maps m of 1/N Σ_n [m(cluster_n) = label_n], by the Hungarian method (Kuhn 1955)."""
    table = contingency_matrix(as_array(labels), as_array(clusters))
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / table.sum())


def as_array(x: Labels) -> npt.NDArray[np.generic]:
    """As NumPy and scikit-learn take it."""
    return np.asarray(x.cpu() if isinstance(x, Tensor) else x)
