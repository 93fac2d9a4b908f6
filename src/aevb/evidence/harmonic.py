"""log p(x) by the paper's own estimator, App. D of arXiv 1312.6114: posterior draws by HMC, and a density fitted to
them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, TransformedDistribution
from torch.distributions.transforms import ComposeTransform, ReshapeTransform, Transform

from aevb.data.batch import Batch, Data, Indexable, as_batch
from aevb.data.randomness import derive
from aevb.data.walk import decoded_at_once
from aevb.evidence.marginal import Marginal, estimated, joined, reciprocal
from aevb.evidence.support import Proposal, refuse_point, unconstraining
from aevb.models.checks import likelihood_batches
from aevb.models.inference import Model, as_result, inference
from aevb.models.trace import LatentModel
from aevb.probability.hmc import HMC, adapted

POINTS = 250  # data points whose chains run at a time
BANDWIDTHS = torch.exp(
    (torch.arange(10, dtype=torch.float64) - 5) / 2
)  # factors on Scott's rule, tried on held-out draws


@dataclass(frozen=True)
class ChainSettings:
    """Settings of a chain of Hamiltonian Monte Carlo.

    Attributes:
        leapfrogs: steps of each path; the paper used 4.
        thin: transitions from one kept draw to the next.
        burn_in: transitions before the first, in which each chain's step size is tuned to 90 % acceptance.
    """

    leapfrogs: int = 4
    thin: int = 4
    burn_in: int = 100

    def __post_init__(self) -> None:
        if min(self.leapfrogs, self.thin, self.burn_in) < 1:
            raise ValueError(f"ChainSettings: leapfrogs, thin and burn_in must be at least 1; got {self}.")


def log_marginal_hmc(
    model: Model, data: Indexable, samples: int = 50, chain: ChainSettings = ChainSettings(), *, seed: int = 0
) -> Marginal:
    """The reciprocal importance estimator of App. D, for latents of up to about five dimensions.

        1 / p(x) = E_p(z|x)[ q(z) / (p(z) p(x|z)) ]   for every density q
        p̂(x) = ( 1/L Σ_l q(z_l) / (p(z_l) p(x|z_l)) )⁻¹,   z_l ~ p(z|x) by HMC

    in coordinates without constraints where z has any, and the layers of a hierarchy side by side. q is a kernel
    density estimate of 2 L further draws, L of which choose its bandwidth. The first third of a chain's draws and the
    last do not share a transition with each other. The encoder is not used: a chain begins at one of 1,000 draws of the
    prior, chosen in proportion to p(x|z), since a chain leaves a minor mode near its beginning too seldom.

    The estimate of 1/p(x) is unbiased for exact posterior draws; that of log p(x) is too high in expectation. A chain
    that misses a mode overstates p(x), and no number here shows it: compare with `log_marginal`.

    Args:
        model: a trained one.
        data: x (N, *X), as of `aevb.encode`; with contexts, `Pairs`, the estimate is of log p(x|y).
        samples: L, draws in the sum.
        chain: settings of each chain.
        seed: of the chains.

    Returns:
        As `log_marginal` does; `se` is that of the mean of the ratios, as if the draws were independent.
    """
    if samples < 10:
        raise ValueError(f"log_marginal_hmc: samples ≥ 10, as a density is fitted to them; got {samples}.")
    parts = []
    with inference(model, derive(seed, "reciprocal")):
        refuse_point(model.posterior(next(likelihood_batches(model, data, 1))), "log p(x)")
        for batch in likelihood_batches(model, data, POINTS):
            u, log_joint = posterior_chain(model, batch, 3 * samples, chain)
            fit, tune, u_l = as_result(u).split(samples)
            parts.append(estimated([kernel_density(fit, tune, u_l) - as_result(log_joint)[-samples:]], samples))
    return reciprocal(joined(parts))


def posterior_chain(
    model: LatentModel, data: Data, draws: int, settings: ChainSettings = ChainSettings()
) -> tuple[Tensor, Tensor]:
    """z = T(u) ~ p(z|x) by one HMC chain per data point: u (draws, B, D), and log p(x, T(u)) + log |det ∂T/∂u|, (draws,
    B).

    T is that of `coordinates`: for vectors z over all of ℝᴰ, u is z itself.
    """
    batch = as_batch(data)
    transform = coordinates(model, batch)

    def log_density(u: Tensor) -> Tensor:
        z = transform(u)
        value: Tensor = model.log_joint(batch, z.unsqueeze(0)).squeeze(0) + transform.log_abs_det_jacobian(u, z)
        return value

    u = transform.inv(beginning(model, batch))
    step = torch.full((len(batch),), 0.1, dtype=batch.x.dtype, device=batch.x.device)
    at = HMC(log_density, step).at(u)
    for _ in range(settings.burn_in):
        at, info = HMC(log_density, step, settings.leapfrogs).move(at)
        step = adapted(step, info, target=0.9, rate=0.2)
    kernel, chain, values = HMC(log_density, step, settings.leapfrogs), [], []
    for _ in range(draws):
        for _ in range(settings.thin):
            at, _ = kernel.move(at)
        chain.append(at.z)
        values.append(at.value)
    return torch.stack(chain), torch.stack(values)


def coordinates(model: LatentModel, data: Data) -> Transform:
    """T: ℝᴰ → the support of p(z). Outside of it the formula of a density may give numbers, which a chain would
    climb."""
    p = model.trace(data).p
    transform = unconstraining(p)
    shape = transform.inverse_shape(p.event_shape)
    flat_shape = torch.Size((shape.numel(),))
    return transform if shape == flat_shape else ComposeTransform([ReshapeTransform(flat_shape, shape), transform])


def beginning(model: LatentModel, batch: Batch, tries: int = 1000) -> Tensor:
    """Roughly z ~ p(z|x), (B, *Z): for each data point one of `tries` draws of the prior, in proportion to p(x|z).

    The draws are the same for all data points, unless these have contexts, of which each may have a prior of its own.
    """
    x, y = batch.x, batch.y
    if y is None:
        z = model.sample_latent(tries).unsqueeze(1)
    else:
        z = model.sample_latent(tries * len(x), y.repeat(tries, *[1] * (y.ndim - 1))).unflatten(0, (tries, len(x)))
    chunks = z.split(max(1, decoded_at_once(x.device) // x.numel()))
    log_px = torch.cat([model.decode(chunk, y).log_prob(x) for chunk in chunks])  # (tries, B)
    chosen = torch.distributions.Categorical(logits=log_px.T, validate_args=False).sample()
    begun: Tensor = z.expand(tries, len(x), *z.shape[2:])[chosen, torch.arange(len(x), device=x.device)]
    return begun


def kernel_density(fit: Tensor, tune: Tensor, z: Tensor) -> Tensor:
    """log q(z), (L, B): for each data point a Gaussian kernel density of its `fit` draws (L, B, D).

    The kernel's covariance is that of the draws times h²; h is Scott's L^(-1/(D+4)) (1992) times the factor under which
    the `tune` draws are likeliest, chosen for all data points of the batch together.
    """
    scott = len(fit) ** (-1 / (fit.shape[-1] + 4))
    spread = torch.linalg.cholesky(_covariance(fit))
    scores = torch.stack([_kde(fit, spread * scott * f, tune).mean() for f in BANDWIDTHS])
    return _kde(fit, spread * scott * BANDWIDTHS[int(scores.argmax())], z)


def from_chain(model: Model, draws: int = 50, leapfrogs: int = 4, burn_in: int = 50, widen: float = 2.0) -> Proposal:
    """A proposal for `log_marginal` that asks no encoder: a normal fitted to HMC draws of p(z|x).

    Its mean is that of the draws and its covariance theirs times `widen`, so that its tails lie above those of p(z|x).
    Where z has constraints, it is T(u) of such a normal u, in the `coordinates` of the chain.
    """

    def fitted(batch: Batch) -> Distribution:
        u, _ = posterior_chain(model, batch, draws, ChainSettings(leapfrogs, 1, burn_in))
        normal = MultivariateNormal(u.mean(0), widen * _covariance(u), validate_args=False)
        return TransformedDistribution(normal, coordinates(model, batch), validate_args=False)

    return fitted


def _covariance(z: Tensor) -> Tensor:
    """(B, D, D), of draws (L, B, D); a little is added to the diagonal for a chain that hardly moved."""
    centred = z - z.mean(0)
    covariance = torch.einsum("lbi,lbj->bij", centred, centred) / (len(z) - 1)
    floor = 1e-6 * (1 + covariance.diagonal(dim1=-2, dim2=-1).mean(-1))
    return covariance + floor[:, None, None] * torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)


def _kde(centres: Tensor, scale: Tensor, z: Tensor) -> Tensor:
    """log 1/L Σ_i N(z; centre_i, scale scaleᵀ), (L', B), for centres (L, B, D), scale (B, D, D) and z (L', B, D)."""
    kernel = MultivariateNormal(centres, scale_tril=scale, validate_args=False)
    log_q: Tensor = kernel.log_prob(z.unsqueeze(1))
    return log_q.logsumexp(1) - math.log(len(centres))
