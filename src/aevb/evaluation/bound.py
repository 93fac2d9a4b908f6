"""The evidence lower bound of every data point, split into its two parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aevb.data.batch import Indexable, looked_at, rows_at_once
from aevb.data.randomness import derive
from aevb.models.checks import likelihood_batches
from aevb.models.inference import Model, as_result, dtype_of, inference
from aevb.models.rows import Groups, by_row
from aevb.notation import Brief


@dataclass(frozen=True, repr=False)
class Bound(Brief):
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


def elbo(
    model: Model,
    data: Indexable,
    *,
    samples: int = 1,
    seed: int = 0,
    batch: int | None = None,
    groups: Groups = by_row,
) -> Bound:
    """Estimator B of the bound (arXiv 1312.6114, eq. 7) for every data point, in nats.

        L̃ᴮ(x) = 1/K Σ_k log p(x|z_k) - KL(q(z|x) ‖ p(z)),  z_k ~ q(z|x)

    The KL is estimated from the same z_k where it has no closed form; of a point posterior (`Delta`) it is infinite.

    Args:
        model: a trained one.
        data: x (N, *X), as of `aevb.encode`; with contexts, `Pairs`, it is the bound on log p(x|y).
        seed: of the noise.
        samples: K.
        batch: data points at a time; None for as many as memory allows.
        groups: `by_row`, so that a row's bound does not depend on other rows; or `by_batch`, which is faster where
            q(z|x) is no diagonal normal.
    """
    if samples < 1:
        raise ValueError(f"elbo: samples must be at least 1; got {samples}.")
    parts = []
    with inference(model, derive(seed, "elbo")) as device:
        data, item = looked_at(data, device, dtype_of(model))
        size = batch or max(1, rows_at_once(item.x.shape[1:]) // samples)
        for b in likelihood_batches(model, data, size):
            for group in groups(model.posterior, b, seed):
                t = model.trace_at(group.batch, group.q, group.draw(samples))
                parts.append((as_result(t.log_px).mean(0), as_result(t.kl)))
    reconstruction, kl = zip(*parts, strict=True)
    return Bound(torch.cat(reconstruction), torch.cat(kl))
