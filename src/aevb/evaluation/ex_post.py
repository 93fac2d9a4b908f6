"""A prior fitted to the codes of a finished model, for better samples (Ghosh et al. 2020, arXiv 1903.12436, §4)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aevb.errors import DataError, ShapeError
from aevb.evaluation.batches import BATCH, conditioned_batches, inference, kept
from aevb.models.latents import only
from aevb.models.priors import Mixture
from aevb.models.vae import VAE
from aevb.probability.families import FullNormal
from aevb.training.randomness import derive
from aevb.training.train import Indexable

HELD = 0.2  # the share of the codes that chooses


@dataclass(frozen=True)
class FittedPrior:
    """What `fit_prior` found.

    Attributes:
        model: the same encoder and decoder under the fitted prior.
        components: of the chosen mixture.
        scores: components → mean log density of the held-out codes, in nats per code.
    """

    model: VAE
    components: int
    scores: dict[int, float]


def fit_prior(
    model: VAE, data: Indexable, candidates: Sequence[int] = (1, 2, 5, 10, 20, 50), *, seed: int = 0
) -> FittedPrior:
    """The mixture of full-covariance normals that best describes the codes of `data`, as the model's new prior.

        z_n ~ q(z|x_n);   M* = argmax_M mean_held log p_M(z_n);   p(z) = Σ_m π_m N(z; μ_m, Σ_m), fitted to all z_n

    Each candidate M is fitted by expectation maximisation to four fifths of the codes and scored on the others. Draws, not
    means, of q: their density is the aggregate posterior 1/N Σ_n q(z|x_n), which is what the decoder knows; of an
    autoencoder (`Delta`) they are the codes themselves. Encoder and decoder stay as they are, and are shared with `model`.

    Args:
        model: trained; its latents are vectors (D).
        data: x (N, *X), of the train split: a float tensor on the model's device, what can be indexed like one, or `Pairs`.
        candidates: numbers of components M to choose from; those for which there are too few codes are passed over.
        seed: of the draws, of what is held out, and of where each fit starts.

    Raises:
        DataError: no data, or too few for any of the candidates.
        ShapeError: the latents are no vectors.
    """
    z = draw_codes(model, data, seed)
    order = np.random.default_rng(seed).permutation(len(z))
    held, rest = np.split(z[order], [max(1, round(HELD * len(z)))])
    possible = [m for m in candidates if m >= 1 and m + z.shape[1] < len(rest)]  # a covariance takes D + 1 codes
    if not possible:
        raise DataError(
            f"{len(z)} codes of {z.shape[1]} numbers are too few for {list(candidates)} components. Encode more."
        )
    scores = {m: float(gaussian_mixture(rest, m, seed).score(held)) for m in possible}
    best = max(scores, key=lambda m: scores[m])
    prior = as_prior(gaussian_mixture(z, best, seed)).to(next(model.parameters()))
    return FittedPrior(VAE(prior, model.encoder, model.decoder).train(model.training), best, scores)


def draw_codes(model: VAE, data: Indexable, seed: int) -> np.ndarray[Any, Any]:
    """z_n ~ q(z|x_n), one for each data point, (N, D) in float64."""
    with inference(model, derive(seed, "codes")) as device:
        walk = conditioned_batches(model, data, BATCH, device)
        z = torch.cat([kept(only(given.posterior(x).sample(), "fit_prior")) for given, x in walk])
    if z.ndim != 2:
        raise ShapeError(f"fit_prior is for latents that are vectors; these have the shape {tuple(z.shape[1:])}.")
    return z.numpy()


def gaussian_mixture(z: np.ndarray[Any, Any], components: int, seed: int) -> Any:
    """scikit-learn's mixture of full-covariance normals, fitted to z (N, D)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the held-out score judges it as it is
        return GaussianMixture(components, covariance_type="full", random_state=seed).fit(z)


def as_prior(fitted: Any) -> Mixture:
    """The same mixture as a `Mixture` of `FullNormal`s: φ_m = (μ_m, the rows of L_m's triangle), L_m L_mᵀ = Σ_m."""
    size = fitted.means_.shape[1]
    tril = torch.linalg.cholesky(torch.from_numpy(fitted.covariances_))
    lower = tril.tril(-1) + torch.diag_embed(tril.diagonal(dim1=-2, dim2=-1).log())
    rows, columns = torch.tril_indices(size, size)
    prior = Mixture(FullNormal(size), len(fitted.weights_)).double()
    with torch.no_grad():
        prior.phi.copy_(torch.cat([torch.from_numpy(fitted.means_), lower[:, rows, columns]], -1))
        prior.logits.copy_(torch.from_numpy(fitted.weights_).clamp(min=1e-300).log())
    return prior
