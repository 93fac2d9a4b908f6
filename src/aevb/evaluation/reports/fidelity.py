"""How samples resemble data: two clouds of points, N data (N, F) and M samples (M, F), compared with each other.

Most measures are one number per point, whose mean is the measure, with sd / √N for its standard error, given the other
cloud. Features F: raw pixels, or their `principal_components`. No network that was trained elsewhere is used here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances_chunked
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from aevb.errors import DataError, ShapeError
from aevb.evaluation.estimate import Estimate
from aevb.evaluation.evaluate import discrete, relaxed
from aevb.evaluation.report import Line, Report, Subject
from aevb.models.inference import inference
from aevb.notation import Brief
from aevb.use.fit_prior import gaussian_mixture
from aevb.use.generate import generate

Features = Callable[[Tensor], Tensor]  # (N, *X) → (N, F)
LogDensity = Callable[[Tensor], Tensor]  # (N, F) → (N,)
MEMORY = 128  # megabytes for the distances held at one time


def principal_components(rows: Tensor, size: int = 50) -> Features:
    """The map to the first `size` principal components of rows (N, *X), which should be train data.

    Components are not scaled: distances are those of pixels, less what the components that are left out hold.
    """
    pca = PCA(size, random_state=0).fit(_array(rows))
    return lambda x: torch.as_tensor(pca.transform(_array(x)))


def mixture_density(features: Tensor, components: int = 20, seed: int = 0) -> LogDensity:
    """The log-density, in nats, of a mixture of normals with full covariances, fitted to (N, F) by maximum
    likelihood."""
    mixture = gaussian_mixture(_array(features), components, seed)
    return lambda x: torch.as_tensor(mixture.score_samples(_array(x)))


@dataclass(frozen=True, repr=False)
class Fidelity(Brief):
    """Whether samples look like data, and whether data are found among the samples; see `fidelity`.

    Attributes:
        precision: (M,), 1 where a sample lies in the ball of any data point, otherwise 0.
        recall: (N,), 1 where a data point lies in the ball of any sample.
        density: (M,), 1/k times the number of data points in whose balls a sample lies; about 1, not at most 1, on
            average.
        coverage: (N,), 1 where the ball of a data point holds any sample.
    """

    precision: Tensor
    recall: Tensor
    density: Tensor
    coverage: Tensor


def fidelity(data: Tensor, samples: Tensor, k: int = 5) -> Fidelity:
    """Precision and recall, density and coverage, from the k nearest neighbours.

    The ball of a point ends at the k-th nearest other point of its own cloud. For precision and recall the union of the
    balls stands for the support of a distribution (Kynkäänniemi et al. 2019, arXiv 1904.06991); they suffer from
    outliers, whose balls are large. Density and coverage (Naeem et al. 2020, arXiv 2002.09797) count with the balls of
    data only.

    Args:
        data, samples: (N, F) and (M, F); measures depend on N and M, so that only equal sizes can be compared.

    Raises:
        ShapeError: the two have different features.
        DataError: fewer than k + 1 points.
    """
    _check(data, samples, k + 1)
    x, y = _array(data), _array(samples)
    near_data = _inside(y, x, _radii(x, k))  # (M, N)
    near_samples = _inside(x, y, _radii(y, k))  # (N, M)
    shares = near_data.any(1), near_samples.any(1), near_data.sum(1) / k, near_data.any(0)
    return Fidelity(*(torch.as_tensor(share, dtype=torch.float64) for share in shares))


def authenticity(train: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Whether samples are more than copies of train data (Alaa et al. 2022, arXiv 2102.08921), (M,), and of which,
    (M,).

    A sample is authentic, 1, where its nearest train point has another train point that is nearer; else it is 0.
    Compare it with that of fresh data, such as a test split, which changes with the dimension. Copies have 0.

    Args:
        train, samples: (N, F) and (M, F).

    Returns:
        The measure, and the row of each sample's nearest train point, to look at.
    """
    _check(train, samples, 2)
    x, y = _array(train), _array(samples)
    near, rows = _nearest(x, y)
    return torch.as_tensor(near > _radii(x, 1)[rows], dtype=torch.float64), torch.as_tensor(rows)


def nearest_rows(train: Tensor, samples: Tensor) -> Tensor:
    """Which train point is the nearest to each sample, (M,).

    Args:
        train, samples: (N, F) and (M, F).
    """
    _check(train, samples, 1)
    return torch.as_tensor(_nearest(_array(train), _array(samples))[1])


def _nearest(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The distance from each y to the nearest x, and which that is."""
    distances, rows = NearestNeighbors(n_neighbors=1).fit(x).kneighbors(y)
    return distances[:, 0], rows[:, 0]


def mmd(x: Tensor, y: Tensor, bandwidth: float) -> tuple[float, float]:
    """The squared maximum mean discrepancy of the distributions of x and y, unbiased, and its standard error.

        MMD² = E k(x, x') + E k(y, y') - 2 E k(x, y),  k(a, b) = exp(-‖a - b‖² / 2σ²)

    Over n pairs (x_i, y_i) it is the mean of h_ij = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i) over i ≠ j,
    on average zero for equal distributions (Gretton et al. 2012, JMLR 13, lemma 6). The error is the jackknife's over
    pairs: right for large n, but √2 too large for equal distributions, where Σ_j h_ij has no spread of first order.

    Args:
        x, y: (n, F) both.
        bandwidth: σ; such as the `median_distance` of the data, for all samples to be compared.

    Raises:
        ShapeError: x and y differ in shape.
        DataError: fewer than 3 points.
    """
    _check(x, y, 3)
    if len(x) != len(y):
        raise ShapeError(f"mmd: both sides need as many points; got {len(x)} and {len(y)}.")
    n, a, b, gamma = len(x), _array(x), _array(y), 1 / (2 * bandwidth**2)
    cross = rbf_kernel(a, b, gamma)
    rows = -cross.sum(0) - cross.sum(1) + 2 * cross.diagonal()
    rows += rbf_kernel(a, gamma=gamma).sum(1) + rbf_kernel(b, gamma=gamma).sum(1) - 2  # Σ_{j≠i} h_ij
    value = rows.sum() / (n * (n - 1))
    without = (rows.sum() - 2 * rows) / ((n - 1) * (n - 2))  # the estimate without pair i
    return float(value), float(np.sqrt((n - 1) * without.var()))


def median_distance(x: Tensor, most: int = 1000) -> float:
    """The median distance of two of the first `most` points (N, F): the usual bandwidth of a kernel."""
    return float(np.median(pdist(_array(x[:most]))))


def _radii(x: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """The distance of each point to its k-th nearest other one."""
    distances, _ = NearestNeighbors(n_neighbors=k).fit(x).kneighbors()
    return np.asarray(distances[:, -1])


def _inside(points: NDArray[np.float64], centres: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each point lies in each ball, (points, centres)."""
    ends = radii * (1 + 1e-9)  # the k-th neighbour itself is in, however its distance is rounded
    blocks = pairwise_distances_chunked(points, centres, reduce_func=lambda d, _: d <= ends, working_memory=MEMORY)
    return np.concatenate(list(blocks))


def _check(x: Tensor, y: Tensor, least: int) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ShapeError(
            f"Clouds of points need shapes (N, F) and (M, F) with the same F; got "
            f"{tuple(x.shape)} and {tuple(y.shape)}."
        )
    if min(len(x), len(y)) < least:
        raise DataError(f"At least {least} points are needed on either side; got {len(x)} and {len(y)}.")


def _array(x: Tensor) -> NDArray[np.float64]:
    """(N, *X) as (N, F), float64, as scikit-learn takes it."""
    return x.detach().cpu().flatten(1).double().numpy()


POINTS = 2000  # samples, and data points, that are compared with each other at most


def _report(subject: Subject) -> dict[str, Any]:
    """Samples of the model beside data: draws x ~ p(x|z) of discrete data and of tables, else the means of p(x|z).

    Pixels of grey levels under a relaxed Bernoulli are compared with means, too: no draw of it is grey. In the space of
    the first 50 principal components of train data. Beside the authenticity of the samples stands that of the split,
    which a model that generalises has.
    """
    rows = subject.rows.take(POINTS)
    with inference(subject.model, 0):
        y = subject.conditions(1)
        one = subject.model.decode(subject.model.sample_latent(1, y), y)
    drawn = (discrete(one.support) or len(rows.shape) == 1) and not relaxed(one)
    samples = generate(subject.model, len(rows), draw=drawn, y=subject.conditions(len(rows)))
    train = subject.train.take(POINTS)[:]
    features = principal_components(train, min(50, train[0].numel(), len(train)))
    known, real, made = features(train), features(rows[:]), features(samples)
    found = {**vars(fidelity(real, made)), "authentic": authenticity(known, made)[0]}
    found["authentic_data"] = authenticity(known, real)[0]
    distance = Estimate(*mmd(real, made, median_distance(real)), len(rows))
    means = {name: Estimate.of(each) for name, each in found.items()}
    return {"n": len(rows), "samples": "draws" if drawn else "means", **means, "mmd": distance}


REPORT = Report(
    _report,
    "{n:,} samples ({samples} of p(x|z)) beside as many data, in principal components of train data",
    (
        Line("precision", "precision", "fraction of samples among the data", 3),
        Line("recall", "recall", "fraction of data among the samples", 3),
        Line("density", "density", "1 where samples lie as data do", 3),
        Line("coverage", "coverage", "fraction of data with a sample near", 3),
        Line("mmd", "kernel discrepancy, MMD²", "0 for equal distributions", 4),
        Line("authentic", "authentic", "fraction of samples that are no near-copies of train data", 3),
        Line("authentic_data", "  the same of data", "for comparison", 3),
    ),
)
