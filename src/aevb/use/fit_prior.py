"""A prior fitted to the codes of a finished model, for better samples (Ghosh et al. 2020, arXiv 1903.12436, §4)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import AffineTransform, Distribution, TransformedDistribution

from aevb.data.batch import Indexable, batches
from aevb.data.randomness import derive, seeded
from aevb.errors import DataError, ShapeError
from aevb.models.compat import members
from aevb.models.inference import as_result, dtype_of, inference, prior_of
from aevb.models.priors import Mixture
from aevb.models.vae import VAE
from aevb.notation import Brief
from aevb.parts import HIERARCHY, PRIOR, Member, Needs, check
from aevb.probability.families import FullNormal
from aevb.probability.offers import seen

HELD = 0.2  # the share of the codes that chooses
STEPS = 500  # of a candidate that is learned by gradients
INSTEAD = {"own_weights": "a model with a prior of its own, such as one with a [[chain]]"}
Codes = np.ndarray[Any, Any]
Candidate = int | nn.Module


@dataclass(frozen=True, repr=False)
class FittedPrior(Brief):
    """What `fit_prior` found.

    Attributes:
        model: the same encoder and decoder under the fitted prior.
        chosen: the number of components of the chosen mixture, or the name of the chosen module's class.
        scores: each candidate's mean log density of the held-out codes, in nats per code.
        errors: the standard error of each score over these codes. They are the same codes for all candidates, so that
            differences of scores are less uncertain than scores.
    """

    model: VAE
    chosen: int | str
    scores: dict[int | str, float]
    errors: dict[int | str, float]


def fit_prior(
    model: VAE, data: Indexable, candidates: Sequence[Candidate] = (1, 2, 5, 10, 20, 50), *, seed: int = 0
) -> FittedPrior:
    """The density that best describes the codes of `data`, of several candidates, as the model's new prior.

        z_n ~ q(z|x_n);   c* = argmax_c mean_held log p_c(z_n);   p(z) = p_c*(z), fitted to all z_n

    A candidate number M is the mixture Σ_m π_m N(z; μ_m, Σ_m) of full-covariance normals, fitted by expectation
    maximisation. A candidate module, such as `FlowPrior(D)`, is fitted by stochastic gradients of the likelihood. Each
    is fitted to four fifths of the codes and scored on the others. Draws, not means, of q: their density is the
    aggregate posterior 1/N Σ_n q(z|x_n), which is what the decoder learned from; of an autoencoder (`Delta`) they are
    the codes themselves. Encoder and decoder stay as they are, and are shared with `model`.

    Args:
        model: trained; its latents are vectors (D).
        data: x (N, *X) of the train split, as of `aevb.encode`.
        candidates: numbers of components M, and untrained priors, such as `[10, FlowPrior(D)]`; copies of these are
            fitted. Numbers for which there are too few codes are skipped.
        seed: of the draws, of what is held out, and of where each fit starts.

    Raises:
        DataError: no data, or too few for any of the candidates.
        ShapeError: the latents are no vectors.
        RecipeError: the model is a ladder.
    """
    hierarchy = [part for part in members(model) if part.role == HIERARCHY]
    check([*hierarchy, Member("", "fit_prior", needs=Needs(own_weights=True, otherwise=INSTEAD))])
    z = draw_codes(model, data, seed)
    order = np.random.default_rng(seed).permutation(len(z))
    held, rest = np.split(z[order], [max(1, round(HELD * len(z)))])
    possible = [c for c in candidates if enough(c, rest)]
    if not possible:
        raise DataError(
            f"{len(z)} codes of {z.shape[1]} numbers are too few for {list(candidates)} components. Encode more."
        )
    named = dict(zip(names(possible), possible, strict=True))
    densities = {name: log_density(fitted(c, rest, seed), held) for name, c in named.items()}
    scores = {name: float(log_p.mean()) for name, log_p in densities.items()}
    errors = {name: float(log_p.std()) / len(log_p) ** 0.5 for name, log_p in densities.items()}
    best = max(named, key=scores.__getitem__)
    prior = fitted(named[best], z, seed).to(next(model.parameters()))
    return FittedPrior(VAE(prior, model.encoder, model.decoder).train(model.training), best, scores, errors)


def enough(candidate: Candidate, z: Codes) -> bool:
    """A covariance takes D + 1 codes."""
    return isinstance(candidate, nn.Module) or (candidate >= 1 and candidate + z.shape[1] < len(z))


def names(candidates: Sequence[Candidate]) -> list[int | str]:
    """A number of components, or a class; the second of a class is «FlowPrior 2»."""
    found: list[int | str] = []
    for candidate in candidates:
        kind = type(candidate).__name__
        same = sum(str(name).split(" ")[0] == kind for name in found)
        found.append(candidate if isinstance(candidate, int) else f"{kind} {same + 1}" if same else kind)
    return found


def fitted(candidate: Candidate, z: Codes, seed: int) -> nn.Module:
    """p(z), fitted to codes z (N, D)."""
    if isinstance(candidate, nn.Module):
        codes = torch.from_numpy(z)
        return most_likely(Rescaled(copy.deepcopy(candidate), codes.mean(0), codes.std(0)), codes, seed)
    return as_prior(gaussian_mixture(z, candidate, seed))


class Rescaled(nn.Module):
    """A prior of (z - location) / scale, all of size (D), as one of z: its learning begins where the codes are."""

    location: Tensor
    scale: Tensor

    def __init__(self, prior: nn.Module, location: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.prior = prior
        self.register_buffer("location", location)
        self.register_buffer("scale", scale)

    def forward(self, *context: Tensor) -> Distribution:
        back = AffineTransform(self.location, self.scale, event_dim=1)
        return TransformedDistribution(self.prior(*context), back, validate_args=False)


def log_density(prior: nn.Module, z: Codes) -> Tensor:
    """log p(z_n), (N,)."""
    with torch.no_grad():
        log_p: Tensor = prior().log_prob(torch.from_numpy(z))
    return log_p


def most_likely(prior: nn.Module, z: Tensor, seed: int) -> nn.Module:
    """The prior after `STEPS` steps of Adam up the likelihood of minibatches of z (N, D), in float64."""
    prior = prior.to(z)
    optimizer = torch.optim.Adam(prior.parameters(), 1e-2)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    with seeded(derive(seed, "ex-post"), z.device):
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = -prior().log_prob(z[torch.randint(len(z), (min(len(z), 256),))]).mean()
            loss.backward()
            optimizer.step()
            rate.step()
    return prior


def draw_codes(model: VAE, data: Indexable, seed: int) -> Codes:
    """z_n ~ q(z|x_n), one for each data point, (N, D) in float64."""
    with inference(model, derive(seed, "codes")) as device:
        p = prior_of(model, next(batches(data, 1, device, dtype_of(model))))
        check([seen(p, PRIOR), Member("", "fit_prior", needs=Needs(real_prior=True))])
        z = torch.cat([as_result(model.posterior(b).sample()) for b in batches(data, None, device, dtype_of(model))])
    if z.ndim != 2:
        raise ShapeError(f"fit_prior is for latents that are vectors; these have the shape {tuple(z.shape[1:])}.")
    return z.numpy()


def gaussian_mixture(z: Codes, components: int, seed: int, starts: int = 1, floor: float = 1e-6) -> Any:
    """scikit-learn's mixture of full-covariance normals, fitted to z (N, D).

    Args:
        starts: of which the likeliest is kept.
        floor: added to every variance.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the held-out score evaluates it as it is
        made = GaussianMixture(components, covariance_type="full", n_init=starts, reg_covar=floor, random_state=seed)
        return made.fit(z)


def as_prior(fitted: Any) -> Mixture:
    """The same mixture as a `Mixture` of `FullNormal`s: φ_m = (μ_m, the rows of L_m's triangle), L_m L_mᵀ = Σ_m."""
    size = fitted.means_.shape[1]
    tril = torch.linalg.cholesky(torch.from_numpy(fitted.covariances_))
    lower = tril.tril(-1) + torch.diag_embed(tril.diagonal(dim1=-2, dim2=-1).log())
    rows, columns = torch.tril_indices(size, size)
    with seeded(0):  # its first weights are drawn, and then replaced
        prior = Mixture(FullNormal(size), len(fitted.weights_)).double()
    with torch.no_grad():
        prior.phi.copy_(torch.cat([torch.from_numpy(fitted.means_), lower[:, rows, columns]], -1))
        prior.logits.copy_(torch.from_numpy(fitted.weights_).clamp(min=1e-300).log())
    return prior
