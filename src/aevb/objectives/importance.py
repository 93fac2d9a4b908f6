"""Bounds of several samples: what is made of the weights w_k = p(x, z_k) / q(z_k|x), and with which derivative."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from aevb.data.batch import Data
from aevb.models.trace import LatentModel, check_trace, sampled
from aevb.notation import Shown, bar, bound_to, where
from aevb.objectives.bounds import Info
from aevb.objectives.schedules import Step
from aevb.parts import OBJECTIVE, Member, Needs, Values
from aevb.probability.codes import perplexity, usage


class ImportanceWeighted(Shown):
    """A bound of K weights per data point, cut into M groups, and an estimator of its gradient.

        L(w) = β 1/K Σ_k log w_k + (1 - β) 1/M Σ_m 1/(1 - α) log 1/J Σ_{k in m} w_k^(1 - α),   J = K / M

    IWAE (arXiv 1509.00519) is the default, log 1/K Σ_k w_k. MIWAE has several `groups`, CIWAE a share β of the `elbo`,
    and PIWAE the decoder on `groups` but the encoder on `encoder_groups` (arXiv 1802.04537). The Rényi bound has an
    `alpha` (arXiv 1602.02311), whose limits are IWAE at 0 and the ELBO at 1. With K = M, too, it is the ELBO by
    estimator A.

    With ŵ_k = w_k^(1 - α) / Σ_{its group} w^(1 - α), written for M = 1, β = 0, all estimators of the gradient are

        θ: Σ_k ŵ_k ∇_θ log p(x, z_k)        φ: Σ_k b_k ∂log w_k/∂z_k ∇_φ z_k + c_k ∇_φ log q(z_k|x), z_k held constant

        "plain"  b = ŵ, c = -ŵ: the derivative of L as it stands
        "stl"    b = ŵ, c = 0 (arXiv 1703.09194); biased wherever ŵ depends on z, unless L is the ELBO: not supported
        "dreg"   b = αŵ + (1 - α)ŵ², c = 0 (arXiv 1810.04152): no bias, and less variance; "stl" where L is the ELBO
        "vimco"  b = 0, c_k = L - L_-k - ŵ_k, where L_-k has the mean of the other log w in the place of log w_k
                 (arXiv 1602.06725): for z that have no derivative, such as discrete ones; it calls `q.sample`

    The loss is -mean_B L, in nats per data point. Logged are `bound`, L, and `elbo`, mean log w. PIWAE evaluates the
    decoder twice.

    Args:
        samples: K per data point, over all groups.
        groups: M, a divisor of K.
        encoder_groups: M of the bound that φ ascends; as θ's if None. With "plain" or "dreg".
        alpha: α of the Rényi bound, finite; L is a lower bound of log p(x) for α ≥ 0.
        elbo: β in [0, 1].
        gradient: the estimator.
        trim: the share of the rows of a minibatch, those of the lowest bound, that the loss leaves out: a trimmed
            likelihood (Hadi & Luceño 1997, Computational Statistics & Data Analysis 25), which outliers among the
            training rows do not move.

    Raises:
        ValueError: incompatible settings.
    """

    word, roles = "importance-weighted", (OBJECTIVE,)
    needs = Needs(reparameterized=True, kl=True, draws_density=True)

    @staticmethod
    def equation(v: Values) -> str:
        y, k, inner = v["y"], v["samples"], v["encoder_groups"] or v["groups"]
        lines = [f"ℒ(x) = E {_weighted(v, v['groups'])}" + (" for θ" if inner != v["groups"] else "")]
        if inner != v["groups"]:
            lines.append(f"ℒ(x) = E {_weighted(v, inner)} for φ")
        bindings = [bound_to(s, v[n]) for s, n in (("α", "alpha"), ("β", "elbo")) if v[n]]
        lines.append(where(f"w_k = p(x, z_k{bar(y)}) / q(z_k|x{y}),  z_k ~ q(z|x{y}),  K = {k}", *bindings))
        if v["trim"]:
            lines.append(f"of each minibatch without the {v['trim']:.0%} of its x whose ℒ(x) is lowest")
        return "\n".join([*lines, *GRADIENTS[v["gradient"]].equation(v)])

    def __init__(
        self,
        samples: int = 5,
        groups: int = 1,
        encoder_groups: int | None = None,
        alpha: float = 0.0,
        elbo: float = 0.0,
        gradient: Literal["plain", "stl", "dreg", "vimco"] = "plain",
        trim: float = 0.0,
    ) -> None:
        self.trim = trim
        self.samples, self.groups, self.alpha, self.elbo, self.gradient = samples, groups, alpha, elbo, gradient
        self.encoder_groups = groups if encoder_groups is None else encoder_groups
        self._check_numbers()
        self._check_gradient()
        self.needs = GRADIENTS[gradient].needs

    def _check_numbers(self) -> None:
        if not (math.isfinite(self.alpha) and 0 <= self.elbo <= 1 and 0 <= self.trim < 1):
            got = f"{self.alpha}, {self.elbo} and {self.trim}"
            raise ValueError(f"ImportanceWeighted: a finite alpha, 0 ≤ elbo ≤ 1 and 0 ≤ trim < 1; got {got}.")
        for m in (self.groups, self.encoder_groups):
            if m < 1 or self.samples < 1 or self.samples % m:
                raise ValueError(
                    f"ImportanceWeighted: samples are cut into groups of equal size; got {self.samples} in {m} groups."
                )

    def _check_gradient(self) -> None:
        if self.gradient not in GRADIENTS:
            raise ValueError(
                f"ImportanceWeighted: the gradient is 'plain', 'stl', 'dreg' or 'vimco'; got {self.gradient!r}."
            )
        if self.gradient == "stl" and not (self.encoder_groups == self.samples or self.alpha == 1 or self.elbo == 1):
            raise ValueError(
                "ImportanceWeighted: 'stl' is biased with several samples in one logarithm, as the "
                "weights depend on z too "
                "(arXiv 1810.04152). Use 'dreg', which has no bias and is 'stl' at samples = 1."
            )
        if self.gradient == "vimco" and self.samples < 2:
            raise ValueError("ImportanceWeighted: 'vimco' needs samples ≥ 2: each is compared with the others.")
        if self.gradient in ("stl", "vimco") and self.encoder_groups != self.groups:
            raise ValueError("ImportanceWeighted: encoder_groups need the gradient 'plain' or 'dreg'.")

    def __call__(self, model: LatentModel, data: Data, step: Step) -> tuple[Tensor, Info]:
        return self._scored(model, data) if self.gradient == "vimco" else self._along_paths(model, data)

    def bound(self, log_w: Tensor, groups: int) -> Tensor:
        """L of log w (K, *), (*)."""
        mean, share = log_w.mean(0), 1 - self.alpha
        if share == 0 or self.elbo == 1 or groups == len(log_w):
            return mean
        log_sums = (share * log_w).unflatten(0, (groups, -1)).logsumexp(1)
        tight: Tensor = (log_sums - math.log(len(log_w) // groups)).mean(0) / share
        return self.elbo * mean + (1 - self.elbo) * tight if self.elbo else tight

    def _along_paths(self, model: LatentModel, data: Data) -> tuple[Tensor, Info]:
        """ "plain", "stl", "dreg": derivatives through z = g_φ(ε, x)."""
        t = model.trace(data, self.samples, stick=self.gradient != "plain")
        if self.gradient != "plain":
            check_trace(t, [Member(OBJECTIVE, self.word, needs=self.needs)])
        log_w = t.log_w
        bound = self.bound(log_w, self.encoder_groups)
        if self.gradient == "dreg":
            _scale_gradient(t.z, self._ratio(log_w.detach()))
        if self.encoder_groups != self.groups:  # θ's derivative of the encoder's bound is taken off again
            fixed = model.log_joint(data, t.z.detach()) - t.log_qz.detach()
            bound = bound - self.bound(fixed, self.encoder_groups) + self.bound(fixed, self.groups)
        return self._told(bound, log_w)

    def _ratio(self, log_w: Tensor) -> Tensor:
        """b_k over the factor of ∂log w_k in ∂L, both (K, B); α + (1 - α)ŵ_k where β = 0."""
        share = 1 - self.alpha
        normal: Tensor = (share * log_w).unflatten(0, (self.encoder_groups, -1)).softmax(1).flatten(0, 1)  # ŵ
        tight = (1 - self.elbo) * normal / self.encoder_groups
        whole = tight + self.elbo / len(log_w)
        return 1 - share * (1 - normal) * tight / whole.clamp(min=torch.finfo(whole.dtype).tiny)

    def _scored(self, model: LatentModel, data: Data) -> tuple[Tensor, Info]:
        """ "vimco": no derivative through z."""
        q = model.posterior(data)
        z = sampled(q, (self.samples,))
        log_q = q.log_prob(z)
        log_w = model.log_joint(data, z) - log_q
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

    def _told(self, bound: Tensor, log_w: Tensor) -> tuple[Tensor, Info]:
        kept = bound.topk(math.ceil((1 - self.trim) * len(bound))).values if self.trim else bound
        return -kept.mean(), {"bound": kept.detach().mean(), "elbo": log_w.detach().mean()}


def _scale_gradient(z: Tensor, factor: Tensor) -> None:
    """Multiply whatever gradient flows into z (K, B, *Z), and so on to the encoder, by a factor (K, B)."""
    if z.requires_grad:
        z.register_hook(lambda g: g * factor.reshape(*factor.shape, *[1] * (g.ndim - 2)))


# Equations, and what each gradient needs


def _weighted(v: Values, groups: int) -> str:
    """L with so many groups."""
    k, a = v["samples"], v["alpha"]
    mean = "1/K Σ_k log w_k"
    if a == 1 or v["elbo"] == 1 or groups == k:
        return mean
    outer, power = ("", "") if a == 0 else ("1/(1 - α) ", "^(1 - α)")
    one = f"{outer}log 1/K Σ_k w_k{power}"
    tight = one if groups == 1 else f"1/{groups} Σ_m {outer}log 1/{k // groups} Σ_(k in group m) w_k{power}"
    return f"[β {mean} + (1 - β) {tight}]" if v["elbo"] else tight


def _dreg(v: Values) -> list[str]:
    factor = "ŵ_k²" if v["alpha"] == 0 else "(α ŵ_k + (1 - α) ŵ_k²)"
    share = "its group's" if (v["encoder_groups"] or v["groups"]) > 1 else "the"
    power = "" if v["alpha"] == 0 else "^(1 - α)"
    return [f"∇_φ of the logarithm = Σ_k {factor} ∂log w_k/∂z_k ∇_φ z_k,  ŵ_k = w_k{power} over {share} sum of them"]


@dataclass(frozen=True)
class Gradient:
    """An estimator of the gradient: what it needs of the model, and its lines of the equation."""

    needs: Needs
    equation: Callable[[Values], list[str]]


VIMCO = {"reparameterized": "the gradient vimco"}
PATHS = Needs(reparameterized=True, kl=True, draws_density=True, otherwise=VIMCO)
TWICE = VIMCO | {"repeatable": "the gradient plain", "single": "the gradient plain"}
SECOND = replace(PATHS, density=True, repeatable=True, otherwise=TWICE)
GRADIENTS: Mapping[str, Gradient] = {
    "plain": Gradient(PATHS, lambda v: []),
    "stl": Gradient(
        SECOND, lambda v: [f"∇_φ = 1/K Σ_k ∂log w_k/∂z_k ∇_φ z_k: φ is held constant in log q(z_k|x{v['y']})"]
    ),
    "dreg": Gradient(replace(SECOND, single=True), _dreg),
    "vimco": Gradient(
        Needs(density=True, draws_density=True),
        lambda v: [
            f"∇_φ = Σ_k (ℒ - ℒ_-k - ∂ℒ/∂log w_k) ∇_φ log q(z_k|x{v['y']}),  ℒ and w of these draws,"
            " ℒ_-k has the mean of the other log w for log w_k"
        ],
    ),
}
