"""Monte Carlo EM, the paper's baseline without an encoder (arXiv 1312.6114, App. E)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aevb.data.batch import Batch, Data, as_batch
from aevb.errors import ShapeError
from aevb.models.trace import LatentModel
from aevb.models.vae import VAE
from aevb.notation import Shown, bar
from aevb.objectives.bounds import Info
from aevb.objectives.schedules import Step
from aevb.parts import OBJECTIVE, Needs, Offers, Values
from aevb.probability.hmc import HMC, adapted

FIRST_STEP = 0.1  # ε of every chain before it has adapted
RATE = 0.1  # of adaptation: a chain that always accepts lengthens its ε by 1 % per transition


class MonteCarloEM(Shown, nn.Module):
    """One Markov chain per data point in the place of an encoder: z_n ~ p_θ(z|x_n), then θ by ∇_θ log p_θ(x_n, z_n).

        E: for the rows n of the batch, one HMC transition of z_n that leaves p_θ(z|x_n) ∝ p_θ(x_n, z) invariant
        M: `updates` times, ascend mean_B log p_θ(x_n, z_n) in θ at these draws

    By Fisher's identity, ∇_θ log p_θ(x) = E_p(z|x)[∇_θ log p_θ(x, z)], the M-steps follow the gradient of the marginal
    likelihood as far as the chains have kept up with θ. The loss is -mean_B log p_θ(x, z), in nats per data point. The
    encoder is neither used nor trained.

    The chains are kept from one visit of a row to the next, and start at draws of the prior. If the batch is all data,
    each E-step moves all chains, as in the paper. With smaller batches it is an online variant, whose chains rest
    between visits. Each chain tunes its own step size, at every transition, since its target moves for as long as θ
    does. Logged are `log_joint`, and `acceptance`, the mean over the batch at the last E-step.

    Args:
        updates: of the weights for each transition of the chains.
        leapfrogs: steps of an HMC path.
        target: the acceptance to tune for.
    """

    word, roles = "monte-carlo-em", (OBJECTIVE,)
    offers = Offers(compiled=False)
    needs = Needs(real_prior=True, unconditional=True, separate=True, single=True)

    @staticmethod
    def equation(v: Values) -> str:
        y, joint = v["y"], f"log p(x, z{bar(v['y'])})"
        return (
            f"in θ  {joint},  z ~ p(z|x{y}) by a Markov chain (HMC) for each x, {v['updates']} updates to a move\n"
            f"as E_p(z|x{y})[∇_θ {joint}] = ∇_θ log p(x{bar(y)}); the encoder stays untrained"
        )

    z: Tensor  # (N, D)
    step_size: Tensor  # (N,)
    acceptance: Tensor  # ()

    def __init__(self, updates: int = 5, leapfrogs: int = 10, target: float = 0.9) -> None:
        super().__init__()
        if min(updates, leapfrogs) < 1 or not 0 < target < 1:
            got = f"{updates}, {leapfrogs} and {target}"
            raise ValueError(f"MonteCarloEM: updates and leapfrogs ≥ 1, and a target between 0 and 1; got {got}.")
        self.updates, self.leapfrogs, self.target = updates, leapfrogs, target

    def start(self, model: VAE, n: int) -> None:
        """Begin N = `n` chains at draws of the model's prior, which must cover all of ℝᴰ."""
        z = model.sample_latent(n)
        if z.ndim != 2:
            raise ShapeError(f"MonteCarloEM: latents must be vectors; these have the shape {tuple(z.shape[1:])}.")
        self.register_buffer("z", z)
        self.register_buffer("step_size", torch.full_like(z[:, 0], FIRST_STEP))
        self.register_buffer("acceptance", torch.full_like(z[0, 0], self.target))

    def forward(self, model: LatentModel, data: Data, step: Step) -> tuple[Tensor, Info]:
        batch = as_batch(data)
        if batch.rows is None:
            raise ValueError("MonteCarloEM: needs the row numbers of the data points. Pass a Batch with `rows`.")
        if int(step) % self.updates == 0:
            self.transit(model, batch)
        log_joint = model.log_joint(batch, self.z[batch.rows].unsqueeze(0)).mean()
        return -log_joint, {"log_joint": log_joint.detach(), "acceptance": self.acceptance.clone()}

    @torch.no_grad()
    def transit(self, model: LatentModel, batch: Batch) -> None:
        """The E-step: each chain of the batch moves once, and tunes its step size."""

        def log_density(z: Tensor) -> Tensor:
            return model.log_joint(batch, z.unsqueeze(0)).squeeze(0)

        rows = batch.rows
        step_size = self.step_size[rows]
        z, info = HMC(log_density, step_size, self.leapfrogs)(self.z[rows])
        self.z[rows] = z
        self.step_size[rows] = adapted(step_size, info, self.target, RATE)
        self.acceptance.copy_(info.acceptance.mean())
