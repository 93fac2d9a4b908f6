"""Bounds of several samples: what is made of the weights w_k = p(x, z_k) / q(z_k|x), and with which derivative."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from aevb.models.latents import Latent, each
from aevb.models.trace import LatentModel
from aevb.objectives.bounds import Info
from aevb.objectives.schedules import Step
from aevb.probability.codes import perplexity, usage


class ImportanceWeighted:
    """A bound of K weights per data point, cut into M groups, and an estimator of its gradient.

        L(w) = β 1/K Σ_k log w_k + (1 - β) 1/M Σ_m 1/(1 - α) log 1/J Σ_{k in m} w_k^(1 - α),   J = K / M

    IWAE (arXiv 1509.00519) is the default, log 1/K Σ_k w_k. MIWAE has several `groups`, CIWAE a share β of the `elbo`, and
    PIWAE the decoder on `groups` but the encoder on `encoder_groups` (arXiv 1802.04537). The Rényi bound has an `alpha`
    (arXiv 1602.02311), whose limits are IWAE at 0 and the ELBO at 1. With K = M, too, it is the ELBO by estimator A.

    With ŵ_k = w_k^(1 - α) / Σ_{its group} w^(1 - α), written for M = 1, β = 0, all estimators of the gradient are

        θ: Σ_k ŵ_k ∇_θ log p(x, z_k)        φ: Σ_k b_k ∂log w_k/∂z_k ∇_φ z_k + c_k ∇_φ log q(z_k|x), z_k held constant

        "plain"  b = ŵ, c = -ŵ: the derivative of L as it stands
        "stl"    b = ŵ, c = 0 (arXiv 1703.09194); biased wherever ŵ depends on z, that is unless L is the ELBO: refused
        "dreg"   b = αŵ + (1 - α)ŵ², c = 0 (arXiv 1810.04152): no bias, and less variance; "stl" where L is the ELBO
        "vimco"  b = 0, c_k = L - L_-k - ŵ_k, where L_-k has the mean of the other log w in the place of log w_k
                 (arXiv 1602.06725): for z that have no derivative, such as discrete ones; it calls `q.sample`

    The loss is -mean_B L, in nats per data point. Logged are `bound`, L, and `elbo`, mean log w. PIWAE evaluates the decoder
    twice.

    Args:
        samples: K per data point, over all groups.
        groups: M, a divisor of K.
        encoder_groups: M of the bound that φ ascends; as θ's if None. With "plain" or "dreg".
        alpha: α of the Rényi bound, finite; L is a lower bound of log p(x) for α ≥ 0.
        elbo: β in [0, 1].
        gradient: the estimator.

    Raises:
        ValueError: settings that do not fit each other, said which.
    """

    def __init__(
        self,
        samples: int = 5,
        groups: int = 1,
        encoder_groups: int | None = None,
        alpha: float = 0.0,
        elbo: float = 0.0,
        gradient: Literal["plain", "stl", "dreg", "vimco"] = "plain",
    ) -> None:
        self.samples, self.groups, self.alpha, self.elbo, self.gradient = samples, groups, alpha, elbo, gradient
        self.encoder_groups = groups if encoder_groups is None else encoder_groups
        self._check_numbers()
        self._check_gradient()

    def _check_numbers(self) -> None:
        if not (math.isfinite(self.alpha) and 0 <= self.elbo <= 1):
            raise ValueError(f"ImportanceWeighted: a finite alpha and 0 ≤ elbo ≤ 1; got {self.alpha} and {self.elbo}.")
        for m in (self.groups, self.encoder_groups):
            if m < 1 or self.samples < 1 or self.samples % m:
                raise ValueError(
                    f"ImportanceWeighted: samples are cut into groups of equal size; got {self.samples} in {m} groups."
                )

    def _check_gradient(self) -> None:
        if self.gradient not in ("plain", "stl", "dreg", "vimco"):
            raise ValueError(
                f"ImportanceWeighted: the gradient is 'plain', 'stl', 'dreg' or 'vimco'; got {self.gradient!r}."
            )
        if self.gradient == "stl" and not (self.encoder_groups == self.samples or self.alpha == 1 or self.elbo == 1):
            raise ValueError(
                "ImportanceWeighted: 'stl' is biased with several samples in one logarithm, as the weights depend on z too "
                "(arXiv 1810.04152). Take 'dreg', which has no bias and is 'stl' at samples = 1."
            )
        if self.gradient == "vimco" and self.samples < 2:
            raise ValueError("ImportanceWeighted: 'vimco' needs samples ≥ 2: each is held against the others.")
        if self.gradient in ("stl", "vimco") and self.encoder_groups != self.groups:
            raise ValueError("ImportanceWeighted: encoder_groups need the gradient 'plain' or 'dreg'.")

    def __call__(self, model: LatentModel, x: Tensor, step: Step) -> tuple[Tensor, Info]:
        return self._scored(model, x) if self.gradient == "vimco" else self._along_paths(model, x)

    def bound(self, log_w: Tensor, groups: int) -> Tensor:
        """L of log w (K, *), (*)."""
        mean, share = log_w.mean(0), 1 - self.alpha
        if share == 0 or self.elbo == 1 or groups == len(log_w):
            return mean
        log_sums = (share * log_w).unflatten(0, (groups, -1)).logsumexp(1)
        tight: Tensor = (log_sums - math.log(len(log_w) // groups)).mean(0) / share
        return self.elbo * mean + (1 - self.elbo) * tight if self.elbo else tight

    def _along_paths(self, model: LatentModel, x: Tensor) -> tuple[Tensor, Info]:
        """ "plain", "stl", "dreg": derivatives through z = g_φ(ε, x)."""
        t = model.trace(x, self.samples, stick=self.gradient != "plain")
        log_w = t.log_w
        bound = self.bound(log_w, self.encoder_groups)
        if self.gradient == "dreg":
            _scale_gradient(t.z, self._ratio(log_w.detach()))
        if self.encoder_groups != self.groups:  # θ's derivative of the encoder's bound is taken off again
            fixed = model.log_joint(x, each(Tensor.detach, t.z)) - t.log_qz.detach()
            bound = bound - self.bound(fixed, self.encoder_groups) + self.bound(fixed, self.groups)
        return self._told(bound, log_w)

    def _ratio(self, log_w: Tensor) -> Tensor:
        """b_k over the factor of ∂log w_k in ∂L, both (K, B); α + (1 - α)ŵ_k where β = 0."""
        share = 1 - self.alpha
        normal: Tensor = (share * log_w).unflatten(0, (self.encoder_groups, -1)).softmax(1).flatten(0, 1)  # ŵ
        tight = (1 - self.elbo) * normal / self.encoder_groups
        whole = tight + self.elbo / len(log_w)
        return 1 - share * (1 - normal) * tight / whole.clamp(min=torch.finfo(whole.dtype).tiny)

    def _scored(self, model: LatentModel, x: Tensor) -> tuple[Tensor, Info]:
        """ "vimco": no derivative through z."""
        q = model.posterior(x)
        z = q.sample(torch.Size((self.samples,)))
        log_q = q.log_prob(z)
        log_w = model.log_joint(x, z) - log_q
        bound = self.bound(log_w, self.groups)
        score = ((bound - self._without_each(log_w)).detach() * log_q).sum(0)
        used = usage(q)
        loss, info = self._told(bound + (score - score.detach()), log_w)
        return loss, info if used is None else info | {"perplexity": perplexity(used)}

    def _without_each(self, log_w: Tensor) -> Tensor:
        """L_-k, (K, B)."""
        k = len(log_w)
        others = (log_w.sum(0) - log_w) / (k - 1)
        own = torch.eye(k, dtype=torch.bool, device=log_w.device).unsqueeze(-1)
        return self.bound(torch.where(own, others, log_w.unsqueeze(1)), self.groups)

    @staticmethod
    def _told(bound: Tensor, log_w: Tensor) -> tuple[Tensor, Info]:
        return -bound.mean(), {"bound": bound.detach().mean(), "elbo": log_w.detach().mean()}


def _scale_gradient(z: Latent, factor: Tensor) -> None:
    """Multiply whatever gradient flows into z (K, B, *Z), and so on to the encoder, by a factor (K, B)."""
    if not isinstance(z, Tensor):
        raise ValueError(
            "ImportanceWeighted: 'dreg' is biased where z is a hierarchy, as each layer's draw moves the density of the next"
            " (arXiv 1810.04152 has one layer). Take 'plain'."
        )
    if z.requires_grad:
        z.register_hook(lambda g: g * factor.reshape(*factor.shape, *[1] * (g.ndim - 2)))
