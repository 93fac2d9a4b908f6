"""Monte Carlo EM, the paper's baseline without an encoder (arXiv 1312.6114, App. E)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aevb.models.latents import only
from aevb.models.trace import LatentModel, covered
from aevb.models.vae import VAE
from aevb.objectives.bounds import Info
from aevb.objectives.schedules import Step
from aevb.probability.hmc import HMC, adapted
from aevb.probability.scales import OptimalNormal

FIRST_STEP = 0.1  # ε of every chain before it has adapted
RATE = 0.1  # of adaptation: a chain that always accepts lengthens its ε by 1 % per transition


class MonteCarloEM(nn.Module):
    """One Markov chain per data point in the place of an encoder: z_n ~ p_θ(z|x_n), then θ by ∇_θ log p_θ(x_n, z_n).

        E: for the rows n of the batch, one HMC transition of z_n that leaves p_θ(z|x_n) ∝ p_θ(x_n, z) invariant
        M: `updates` times, ascend mean_B log p_θ(x_n, z_n) in θ at these draws

    By Fisher's identity, ∇_θ log p_θ(x) = E_p(z|x)[∇_θ log p_θ(x, z)], the M-steps follow the gradient of the marginal
    likelihood as far as the chains have kept up with θ. The loss is -mean_B log p_θ(x, z), in nats per data point. The
    encoder is neither used nor trained.

    The chains are kept from one visit of a row to the next, and start at draws of the prior. Where the batch is all data,
    each E-step moves all chains, as in the paper; with smaller batches it is an online variant, whose chains rest between
    visits. Each chain tunes its own step size, at every transition, since its target moves for as long as θ does.
    Logged are `log_joint`, and `acceptance`, the mean over the batch at the last E-step.

    Args:
        model: gives the latents' shape and prior, over all of ℝᴰ; it is not kept.
        n: N, the number of data points in the training set.
        updates: of the weights for each transition of the chains.
        leapfrogs: steps of an HMC path.
        target: the acceptance to tune for.
    """

    z: Tensor  # (N, D)
    step_size: Tensor  # (N,)
    acceptance: Tensor  # ()

    def __init__(self, model: VAE, n: int, updates: int = 5, leapfrogs: int = 10, target: float = 0.9) -> None:
        super().__init__()
        if min(n, updates, leapfrogs) < 1 or not 0 < target < 1:
            got = f"{n}, {updates}, {leapfrogs} and {target}"
            raise ValueError(f"MonteCarloEM: n, updates and leapfrogs ≥ 1, and a target between 0 and 1; got {got}.")
        if isinstance(getattr(model.decoder, "family", None), OptimalNormal):
            raise ValueError(
                "MonteCarloEM: the σ of optimal-normal is fitted to all data points of a minibatch, so that each chain "
                "would depend on the others. Take the likelihood homoscedastic-normal."
            )
        z = only(model.sample_latent(n), "MonteCarloEM")
        if covered(model.prior()) != "the real line" or z.ndim != 2:
            raise ValueError(
                "MonteCarloEM: latents are vectors over all of ℝᴰ, as chains go anywhere; the prior's have the shape "
                f"{tuple(z.shape[1:])} and cover {covered(model.prior())}. Choose the prior standard-normal."
            )
        self.updates, self.leapfrogs, self.target = updates, leapfrogs, target
        self.register_buffer("z", z)
        self.register_buffer("step_size", torch.full_like(z[:, 0], FIRST_STEP))
        self.register_buffer("acceptance", torch.full_like(z[0, 0], target))
        self.rows = torch.arange(n, device=z.device)

    def meet(self, rows: Tensor) -> None:
        """The rows (B,) of the training set that the next x holds."""
        self.rows = rows

    def forward(self, model: LatentModel, x: Tensor, step: Step) -> tuple[Tensor, Info]:
        if int(step) % self.updates == 0:
            self.transit(model, x)
        log_joint = model.log_joint(x, self.z[self.rows].unsqueeze(0)).mean()
        return -log_joint, {"log_joint": log_joint.detach(), "acceptance": self.acceptance.clone()}

    @torch.no_grad()
    def transit(self, model: LatentModel, x: Tensor) -> None:
        """The E-step: each chain of the batch moves once, and tunes its step size."""

        def log_density(z: Tensor) -> Tensor:
            return model.log_joint(x, z.unsqueeze(0)).squeeze(0)

        step_size = self.step_size[self.rows]
        z, info = HMC(log_density, step_size, self.leapfrogs)(self.z[self.rows])
        self.z[self.rows] = z
        self.step_size[self.rows] = adapted(step_size, info, self.target, RATE)
        self.acceptance.copy_(info.acceptance.mean())
