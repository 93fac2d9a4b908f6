"""The evidence lower bound of every data point, split into its two parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aevb.evaluation.batches import BATCH, Model, conditioned_batches, inference, kept
from aevb.training.randomness import derive
from aevb.training.train import Indexable


@dataclass(frozen=True)
class Bound:
    """L(x) = E_q[log p(x|z)] - KL(q(z|x) ‖ p(z)) for each of N data points, in nats, float64 on the CPU.

    Attributes:
        reconstruction: (N,), the first term, estimated.
        kl: (N, G), the second term per group of latents, in closed form where there is one.
    """

    reconstruction: Tensor
    kl: Tensor

    @property
    def elbo(self) -> Tensor:
        """L(x), (N,)."""
        return self.reconstruction - self.kl.sum(-1)


def elbo(model: Model, data: Indexable, *, samples: int = 1, seed: int = 0, batch: int = BATCH) -> Bound:
    """Estimator B of the bound (arXiv 1312.6114, eq. 7) for every data point, in nats.

        L̃ᴮ(x) = 1/K Σ_k log p(x|z_k) - KL(q(z|x) ‖ p(z)),  z_k ~ q(z|x)

    The KL is estimated from the same z_k where it has no closed form; of a point posterior (`Delta`) it is infinite.

    Args:
        data: x (N, *X), a float tensor on the model's device, or an object indexed by a tensor of row numbers; with
            contexts, `Pairs`, it is the bound on log p(x|y).
        samples: K.
        batch: data points at a time; it changes the noise, and nothing else.
    """
    if samples < 1:
        raise ValueError(f"elbo: samples must be at least 1; got {samples}.")
    parts = []
    with inference(model, derive(seed, "elbo")) as device:
        for given, x in conditioned_batches(model, data, batch, device):
            t = given.trace(x, samples)
            parts.append((kept(t.log_px).mean(0), kept(t.kl)))
    reconstruction, kl = zip(*parts, strict=True)
    return Bound(torch.cat(reconstruction), torch.cat(kl))
