"""The wake-sleep algorithm (Hinton, Dayan, Frey & Neal 1995), the paper's baseline, on the same encoder and decoder."""

from __future__ import annotations

import torch
from torch import Tensor

from aevb.models.trace import LatentModel
from aevb.objectives.bounds import Info
from aevb.objectives.schedules import Step


class WakeSleep:
    """Two objectives at once, neither of them a bound for the other's parameters.

        wake:  z ~ q_φ(z|x), x from the data;  ascend log p_θ(x, z) in θ
        sleep: (z, x̃) ~ p_θ(x, z), a dream;     ascend log q_φ(z|x̃) in φ

    The samples are constants, so the gradient of the summed loss is the wake gradient in θ and the sleep gradient in φ.
    The logged `elbo` is estimator A of the bound on the wake sample (arXiv 1312.6114, eq. 6).

    Args:
        dreams: sleep samples per data point.
    """

    def __init__(self, dreams: int = 1) -> None:
        if dreams < 1:
            raise ValueError(f"WakeSleep: dreams must be at least 1; got {dreams}.")
        self.dreams = dreams

    def __call__(self, model: LatentModel, x: Tensor, step: Step) -> tuple[Tensor, Info]:
        with torch.no_grad():
            q = model.posterior(x)
            z = q.sample(torch.Size((1,)))
            log_q = q.log_prob(z)
            dreamt = model.sample_latent(self.dreams * len(x))
            dream = model.decode(dreamt).sample()
        wake = model.log_joint(x, z)
        sleep = model.log_posterior(dream, dreamt.unsqueeze(0))
        elbo = (wake - log_q).mean()
        return -(wake.mean() + sleep.mean()), {"elbo": elbo.detach(), "sleep": sleep.mean().detach()}
