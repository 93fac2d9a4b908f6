"""How noisy is the gradient that a step follows: its variance over the noise ε, and over the minibatch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from aevb.data.batch import Data
from aevb.data.randomness import seeded
from aevb.models.given import given
from aevb.models.inference import Model
from aevb.notation import Brief
from aevb.objectives.bounds import Objective


@dataclass(frozen=True, repr=False)
class GradientNoise(Brief):
    """The gradient g(ε) = ∇ loss on one minibatch, over draws of ε; losses are in nats per data point.

    Attributes:
        variance: part of the model → tr Cov_ε(g), summed over the part's P parameters, unbiased.
        mean: part of the model → the mean of g over the draws, (P), float64.
        value: Var_ε(loss), nats².
        draws: how many.
    """

    variance: dict[str, float]
    mean: dict[str, Tensor]
    value: float
    draws: int


def gradient_noise(model: Model, objective: Objective, data: Data, draws: int = 100, *, seed: int = 0) -> GradientNoise:
    """The variance of an estimator of the gradient, given the minibatch (arXiv 1312.6114, §2.3).

        g = ∇ loss(x, ε),   tr Cov_ε(g) ≃ 1/(S - 1) Σ_s |g_s - ḡ|²,   s = 1..S

    The parts are the model's children that have parameters, such as encoder and decoder. Under one
    `seed`, objectives that draw noise in the same order see the same ε: their difference has less error than either.

    Args:
        objective: called at step 0.
        data: the minibatch, x (B, *X) or a `Batch`.
        draws: S, at least 2.
    """
    if draws < 2:
        raise ValueError(f"gradient_noise: a variance needs at least 2 draws; got {draws}.")
    parts = _parts(cast(nn.Module, model))
    gradients, losses = {name: _Moments() for name in parts}, _Moments()
    batch = given(model, data)
    with seeded(seed, batch.x.device):
        for _ in range(draws):
            loss, _info = objective(model, batch, 0)
            losses.add(loss.detach().reshape(1))
            for name, gradient in _gradients(loss, parts).items():
                gradients[name].add(gradient)
    variance = {name: moments.variance for name, moments in gradients.items()}
    return GradientNoise(variance, {name: m.mean.cpu() for name, m in gradients.items()}, losses.variance, draws)


def minibatch_noise(noises: Sequence[GradientNoise]) -> dict[str, Tensor]:
    """What the choice of the minibatch adds to the variance, from the noise on each of n minibatches: part → (n,).

        tr Cov(g) = E_x[tr Cov_ε(g | x)] + tr Cov_x(E_ε[g | x])

    The mean of the n numbers, n/(n - 1) |ḡ_b - mean_b ḡ_b|² - tr Cov_ε(g | x_b) / S, is an unbiased estimate of the
    second term, and their spread gives its error. The first is the mean of `variance`.
    """
    n = len(noises)
    if n < 2:
        raise ValueError(f"minibatch_noise: at least 2 minibatches; got {n}.")
    found = {}
    for part in noises[0].mean:
        means = torch.stack([noise.mean[part] for noise in noises])
        within = torch.tensor([noise.variance[part] / noise.draws for noise in noises], dtype=torch.float64)
        found[part] = (means - means.mean(0)).square().sum(1) * n / (n - 1) - within
    return found


class _Moments:
    """Mean and summed squared deviations of vectors that come one by one (Welford's recurrence), in float64."""

    def __init__(self) -> None:
        self.n, self.mean, self.squares = 0, torch.tensor(0.0), 0.0

    def add(self, x: Tensor) -> None:
        x = x.double()
        self.n += 1
        away = x - self.mean
        self.mean = self.mean + away / self.n
        self.squares += float(away @ (x - self.mean))

    @property
    def variance(self) -> float:
        return self.squares / (self.n - 1)


def _parts(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    free = {name: [p for p in child.parameters() if p.requires_grad] for name, child in model.named_children()}
    return {name: parameters for name, parameters in free.items() if parameters}


def _gradients(loss: Tensor, parts: dict[str, list[nn.Parameter]]) -> dict[str, Tensor]:
    """∇ loss per part, (P); zero where the loss does not depend on a parameter."""
    every = [p for parameters in parts.values() for p in parameters]
    options: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
    flat = torch.cat([g.flatten() for g in torch.autograd.grad(loss, every, **options)])
    sizes = [sum(p.numel() for p in parameters) for parameters in parts.values()]
    return dict(zip(parts, flat.split(sizes), strict=True))
