"""Bounds on log p(x), ascended by descending their negative mean: the loss is in nats per data point."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from aevb.models.trace import LatentModel, Trace
from aevb.objectives.schedules import Schedule, Step, value
from aevb.probability.codes import perplexity, usage

Info = dict[str, Tensor]
KL_FLOOR = 0.01  # nats, beside which a group's share of the KL is balanced, so that none is weighed by 0


class Objective(Protocol):
    """(model, x (B, *X), step) → (loss to descend, a scalar in nats per data point; what to log, detached scalars)."""

    def __call__(self, model: LatentModel, x: Tensor, step: Step, /) -> tuple[Tensor, Info]: ...


@runtime_checkable
class PerPoint(Protocol):
    """An objective that keeps something of its own for each data point, in the place of an encoder.

    `updates` is how many updates of the weights each batch serves; `meet` is told the batch's rows before every update.
    """

    updates: int

    def meet(self, rows: Tensor, /) -> None: ...


class ELBO:
    """The evidence lower bound, with the paper's estimators A and B and their L samples (§2.3).

        A (eq. 6):  L̃ᴬ(x) = 1/L Σ_l log p(x, z_l) - log q(z_l|x)
        B (eq. 7):  L̃ᴮ(x) = 1/L Σ_l log p(x|z_l) - KL(q(z|x) ‖ p(z))

    The loss is -mean_B of 1/L Σ_l log p(x|z_l) - β · KL, the KL estimated (A) or in closed form (B). For other β than 1,
    for free bits and for a capacity it is no bound; the logged `elbo` always is the plain one. Codes have their
    `perplexity` logged too.

    Args:
        estimator: "A", or "B" with less variance wherever the KL has a closed form.
        samples: L.
        beta: weight of the KL (arXiv 1804.03599), a number or a schedule; 0 is a plain autoencoder.
        free_bits: λ, nats per group of latents that cost nothing: Σ_g max(λ, mean_B KL_g) (arXiv 1606.04934); needs "B".
        capacity: C, nats that the code is to carry, a number or a schedule: the loss has β |mean_B KL - C| in the place of
            β · KL (Burgess et al. 2018, arXiv 1804.03599); 0 is none; needs "B".
        balance: b, a number or a schedule: the loss has Σ_g γ_g KL_g in the place of KL, so that groups that carry little
            for their size cost less, and come into use; needs "B". With D_g numbers in group g of G,

                γ_g = G a_g / Σ_h a_h,   a_g = ((0.01 + mean_B |KL_g|) / D_g)^b,   held constant in the gradient.

            At 0 all γ are 1: a schedule that ends there ends at the plain bound. The code of NVAE (Vahdat & Kautz 2020,
            arXiv 2007.03898) likewise divides the KL by the group's size, with b = 1 while β < 1 and 0 from then on.
    """

    def __init__(
        self,
        estimator: Literal["A", "B"] = "B",
        samples: int = 1,
        beta: float | Schedule = 1.0,
        free_bits: float = 0.0,
        capacity: float | Schedule = 0.0,
        balance: float | Schedule = 0.0,
    ) -> None:
        if estimator not in ("A", "B"):
            raise ValueError(f"ELBO: the estimator is 'A' (eq. 6) or 'B' (eq. 7); got {estimator!r}.")
        if samples < 1 or free_bits < 0 or (not callable(beta) and beta < 0):
            raise ValueError(f"ELBO: samples ≥ 1, beta ≥ 0 and free_bits ≥ 0; got {samples}, {beta} and {free_bits}.")
        if free_bits and estimator == "A":
            raise ValueError("ELBO: free bits clamp the KL of each group of latents, which only estimator 'B' has.")
        if not callable(capacity) and capacity < 0:
            raise ValueError(f"ELBO: capacity ≥ 0; got {capacity}.")
        if capacity and (estimator == "A" or free_bits):
            raise ValueError(
                "ELBO: a capacity needs estimator 'B', as |KL - C| of an estimated KL is biased, and no free bits, which "
                "would say a second time what the KL may cost."
            )
        if balance and (estimator == "A" or capacity or not (callable(balance) or balance >= 0)):
            raise ValueError(f"ELBO: balance ≥ 0, with estimator 'B' and no capacity (of the whole KL); got {balance}.")
        self.estimator, self.samples, self.beta = estimator, samples, beta
        self.free_bits, self.capacity, self.balance = free_bits, capacity, balance

    def __call__(self, model: LatentModel, x: Tensor, step: Step) -> tuple[Tensor, Info]:
        return self.of(model.trace(x, self.samples), step)

    def of(self, t: Trace, step: Step) -> tuple[Tensor, Info]:
        """Loss and numbers to log, read off a trace."""
        reconstruction = t.log_px.mean()
        beta = value(self.beta, step)
        if isinstance(beta, float | int) and beta == 0:
            return -reconstruction, {"reconstruction": reconstruction.detach()}
        used = usage(t.q)
        kl = self.kl(t)
        loss = beta * self.charged(t, kl, step) - reconstruction
        return loss, {
            "elbo": (reconstruction - kl).detach(),
            "reconstruction": reconstruction.detach(),
            "kl": kl.detach(),
            **({} if used is None else {"perplexity": perplexity(used)}),
        }

    def kl(self, t: Trace) -> Tensor:
        """mean_B KL(q(z|x) ‖ p(z)): Monte Carlo for A, closed form for B."""
        if self.estimator == "A":
            return (t.log_qz - t.log_pz).mean()
        return t.kl.sum(-1).mean()

    def charged(self, t: Trace, kl: Tensor, step: Step = 0) -> Tensor:
        """What the loss pays for: the KL, less what is free and in balance, or its distance from the capacity."""
        if self.capacity:
            apart: Tensor = kl - value(self.capacity, step)
            return apart.abs()
        if not self.free_bits and not self.balance:
            return kl
        paid = t.kl.mean(0).clamp(min=self.free_bits) if self.free_bits else t.kl.mean(0)
        return (self.shares(t, step) * paid).sum() if self.balance else paid.sum()

    def shares(self, t: Trace, step: Step = 0) -> Tensor:
        """γ, (G,)."""
        a: Tensor = ((KL_FLOOR + t.kl.detach().abs().mean(0)) / t.group_sizes) ** value(self.balance, step)
        return a / a.mean()
