"""The wake-sleep algorithm (Hinton, Dayan, Frey & Neal 1995), the paper's baseline, and its reweighted form."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from aevb.data.batch import Batch, Data, as_batch
from aevb.models.trace import LatentModel, sampled
from aevb.notation import Shown, bar, bound_to, count
from aevb.objectives.bounds import Info
from aevb.objectives.schedules import Step
from aevb.parts import OBJECTIVE, Needs, Values


class WakeSleep(Shown):
    """Two objectives at once, neither of them a bound for the other's parameters.

        wake-θ:  z_k ~ q_φ(z|x), x from the data;  ascend Σ_k ŵ_k log p_θ(x, z_k) in θ,  ŵ = softmax_k log w_k
        sleep-φ: (z, x̃) ~ p_θ(x, z), a dream;       ascend log q_φ(z|x̃) in φ
        wake-φ:  the z_k of wake-θ;                 ascend Σ_k ŵ_k log q_φ(z_k|x) in φ

    One sample and no wake-φ is wake-sleep. Several are reweighted wake-sleep (Bornschein & Bengio 2015, arXiv
    1406.2751), which ascends the importance-weighted bound in θ, and in φ the fit of q to p(z|x): KL(p ‖ q) in either
    phase, at dreams or (with a bias that falls as 1/K) at the data.

    Samples and ŵ are constants, so each side's parameters get the gradient of their own objective. Parameters that q
    and p share get both, as in a `VampPrior`, or in a `Ladder`, which recipes do not support here. The loss is minus
    the sum of both, φ's being w · wake + (1 - w) · sleep. Logged are `elbo`, estimator A of the bound on the wake
    samples (arXiv 1312.6114, eq. 6), `bound`, log 1/K Σ_k w_k, and what φ ascends as `wake` and `sleep`, all in nats
    per data point.

    Args:
        dreams: sleep samples per data point.
        samples: K.
        wake: w in [0, 1], the share of wake-φ; with 1 nothing is dreamt.
    """

    word, roles = "wake-sleep", (OBJECTIVE,)
    needs = Needs(density=True, everywhere=True, own_weights=True)

    @staticmethod
    def equation(v: Values) -> str:
        y, k, w = v["y"], v["samples"], v["wake"]
        own = f"Σ_k ŵ_k log p(x, z_k{bar(y)})" if k > 1 else f"log p(x, z{bar(y)})"
        dream, awake = f"log q(z'|x'{y})", f"Σ_k ŵ_k log q(z_k|x{y})" if k > 1 else f"log q(z|x{y})"
        both = dream if w == 0 else awake if w == 1 else f"(1 - w) {dream} + w {awake},  {bound_to('w', w)}"
        weights = f",  z_k ~ q(z|x{y}), K = {k}, ŵ_k = w_k / Σ_j w_j, w_k = p(x, z_k{bar(y)}) / q(z_k|x{y})"
        dreams = f"\n(z', x') ~ p(x, z{bar(y)}), {count(v['dreams'], 'dream')} for each x" if w < 1 else ""
        return f"in θ  {own}{weights if k > 1 else f',  z ~ q(z|x{y})'}\nin φ  {both}{dreams}"

    def __init__(self, dreams: int = 1, samples: int = 1, wake: float = 0.0) -> None:
        if dreams < 1 or samples < 1 or not 0 <= wake <= 1:
            got = f"{dreams}, {samples} and {wake}"
            raise ValueError(f"WakeSleep: dreams must be at least 1, samples at least 1, and 0 ≤ wake ≤ 1; got {got}.")
        self.dreams, self.samples, self.wake = dreams, samples, wake
        self.needs = replace(self.needs, everywhere=wake < 1)  # of q(z|x̃) at the z of a dream

    def __call__(self, model: LatentModel, data: Data, step: Step) -> tuple[Tensor, Info]:
        batch = as_batch(data)
        with torch.no_grad():
            q = model.posterior(batch)
            z = sampled(q, (self.samples,))
            log_q = q.log_prob(z)
        log_joint = model.log_joint(batch, z)
        log_w = log_joint.detach() - log_q
        share = log_w.softmax(0)
        ascended: Info = {}
        if self.wake < 1:
            ascended["sleep"] = self.sleep(model, batch)
        if self.wake > 0:
            ascended["wake"] = (share * model.log_posterior(batch, z)).sum(0).mean()
        phi = sum((self.wake if k == "wake" else 1 - self.wake) * v for k, v in ascended.items())
        bound = (log_w.logsumexp(0) - math.log(self.samples)).mean()
        info = {"elbo": log_w.mean(), "bound": bound, **{k: v.detach() for k, v in ascended.items()}}
        return -((share * log_joint).sum(0).mean() + phi), info

    def sleep(self, model: LatentModel, batch: Batch) -> Tensor:
        """mean log q(z|x̃) of dreams (z, x̃), `dreams` for each data point, at its y where there is one."""
        y = None if batch.y is None else batch.y.repeat(self.dreams, *[1] * (batch.y.ndim - 1))
        with torch.no_grad():
            z = model.sample_latent(self.dreams * len(batch), y)
            dream = Batch(sampled(model.decode(z, y)), y)
        return model.log_posterior(dream, z.unsqueeze(0)).mean()
