"""Bounds on log p(x), ascended by descending their negative mean: the loss is in nats per data point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from aevb.data.batch import Data
from aevb.models.trace import LatentModel, Trace
from aevb.notation import Shown, bound_to, count, where
from aevb.objectives.schedules import Schedule, Step, value
from aevb.parts import OBJECTIVE, Needs, Offers, Values
from aevb.probability.codes import perplexity, usage

Info = dict[str, Tensor]
KL_FLOOR = 0.01  # nats, beside which a group's share of the KL is balanced, so that none is weighed by 0


class Objective(Protocol):
    """(model, batch, step) → (loss to descend, a scalar in nats per data point; what to log, detached scalars).

    The batch is a `Batch`, or a tensor x (B, *X) for a batch of x alone.
    """

    def __call__(self, model: LatentModel, data: Data, step: Step, /) -> tuple[Tensor, Info]: ...


@runtime_checkable
class PerPoint(Protocol):
    """An objective that keeps state for each data point instead of an encoder.

    `updates` is how many updates of the weights each batch serves; `start` is called once, before training, with N.
    """

    updates: int

    def start(self, model: Any, n: int, /) -> None: ...


class ELBO(Shown):
    """The evidence lower bound, with the paper's estimators A and B and their L samples (§2.3).

        A (eq. 6):  L̃ᴬ(x) = 1/L Σ_l log p(x, z_l) - log q(z_l|x)
        B (eq. 7):  L̃ᴮ(x) = 1/L Σ_l log p(x|z_l) - KL(q(z|x) ‖ p(z))

    The loss is -mean_B of 1/L Σ_l log p(x|z_l) - β · KL, the KL estimated (A) or in closed form (B). For other β than
    1, for free bits and for a capacity it is no bound; the logged `elbo` always is the plain one. Codes have their
    `perplexity` logged too.

    Args:
        estimator: "A", or "B" with less variance wherever the KL has a closed form.
        samples: L.
        beta: weight of the KL (arXiv 1804.03599), a number or a schedule; 0 is a plain autoencoder.
        free_bits: λ, nats per group of latents that cost nothing: Σ_g max(λ, mean_B KL_g) (arXiv 1606.04934); needs
            "B".
        capacity: C, nats that the code is to carry, a number or a schedule: the loss has β |mean_B KL - C| in the place
            of β · KL (Burgess et al. 2018, arXiv 1804.03599); 0 is none; needs "B".
        balance: b, a number or a schedule: the loss has Σ_g γ_g KL_g in place of the KL. Groups that carry little for
            their size then cost less, and come into use; needs "B". With D_g numbers in group g of G,

                γ_g = G a_g / Σ_h a_h,   a_g = ((0.01 + mean_B |KL_g|) / D_g)^b,   held constant in the gradient.

            At 0 all γ are 1: a schedule that ends there ends at the plain bound. The code of NVAE (Vahdat & Kautz
            2020, arXiv 2007.03898) also divides the KL by the group's size, with b = 1 while β < 1, then 0.
    """

    word, roles = "elbo", (OBJECTIVE,)
    offers = Offers(terms=True)
    needs = Needs(
        reparameterized=True,
        kl=True,
        otherwise={
            "kl": "beta = 0, of an autoencoder",
            "reparameterized": "importance-weighted with the gradient vimco",
            "draws_density": "estimator = 'B'",
        },
    )

    @staticmethod
    def equation(v: Values) -> str:
        y, beta, free = v["y"], v["beta"], v["beta"] == 0
        bound = f"ℒ(x) = E_q[log p(x|z{y})]" + ("" if free else f" - {'' if beta == 1 else 'β '}{_written(v)}")
        bindings = [] if free or beta == 1 else [bound_to("β", beta)]
        bindings += [bound_to(k, v[name]) for k, name in (("C", "capacity"), ("λ", "free_bits")) if v[name]]
        exact = "" if free or v["estimator"] == "A" else ", the KL exactly where it has a closed form"
        balance = (
            f"\nγ_g ∝ (E_x|KL_g| / size_g)^b, 1 on average,  {bound_to('b', v['balance'])}" if v["balance"] else ""
        )
        draws = f"E_q by {count(v['samples'], 'draw')} z ~ q(z|x{y}){exact}"
        return f"{where(bound, *bindings)}{balance}\n{draws}"

    def __init__(
        self,
        estimator: Literal["A", "B"] = "B",
        samples: int = 1,
        beta: float | Schedule = 1.0,
        free_bits: float = 0.0,
        capacity: float | Schedule = 0.0,
        balance: float | Schedule = 0.0,
    ) -> None:
        least = {"samples": (samples, 1), "beta": (beta, 0), "free_bits": (free_bits, 0)}
        _check_least({**least, "capacity": (capacity, 0), "balance": (balance, 0)})
        given = {"free_bits": free_bits, "capacity": capacity, "balance": balance}
        _check_pairs({"estimator = 'A'": estimator == "A", **given})
        if estimator not in ("A", "B"):
            raise ValueError(f"ELBO: the estimator is 'A' (eq. 6) or 'B' (eq. 7); got {estimator!r}.")
        self.estimator, self.samples, self.beta = estimator, samples, beta
        self.charged = _charge(free_bits, capacity, balance)
        self.needs = replace(ELBO.needs, kl=beta != 0, draws_density=beta != 0 and estimator == "A")

    def __call__(self, model: LatentModel, data: Data, step: Step) -> tuple[Tensor, Info]:
        return self.of(model.trace(data, self.samples), step)

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


Charge = Callable[..., Tensor]  # (a trace, its mean KL, the step) → what the loss pays, β times
EXCLUDED = {  # what an option of the ELBO cannot stand beside, and why
    ("free_bits", "estimator = 'A'"): "free bits bound the KL of each group from below, which only estimator 'B' has",
    ("capacity", "estimator = 'A'"): "|KL - C| of an estimated KL is biased",
    ("balance", "estimator = 'A'"): "only estimator 'B' has a KL for each group",
    ("capacity", "free_bits"): "both say what the KL may cost",
    ("capacity", "balance"): "a capacity is of the whole KL",
}


def _check_least(numbers: Mapping[str, tuple[float | Schedule, int]]) -> None:
    for name, (number, least) in numbers.items():
        if not callable(number) and not number >= least:
            raise ValueError(f"ELBO: {name} must be at least {least}; got {number}.")


def _check_pairs(given: Mapping[str, Any]) -> None:
    for (a, b), why in EXCLUDED.items():
        if given[a] and given[b]:
            raise ValueError(f"ELBO: {a} excludes {b}: {why}. Leave one of them out.")


def _charge(free_bits: float, capacity: float | Schedule, balance: float | Schedule) -> Charge:
    """What the loss pays for: the KL, less what is free and in balance, or its distance from the capacity."""

    def distance(t: Trace, kl: Tensor, step: Step = 0) -> Tensor:
        apart: Tensor = kl - value(capacity, step)
        return apart.abs()

    def by_group(t: Trace, kl: Tensor, step: Step = 0) -> Tensor:
        paid = t.kl.mean(0).clamp(min=free_bits) if free_bits else t.kl.mean(0)
        return (shares(t, value(balance, step)) * paid).sum() if balance else paid.sum()

    def whole(t: Trace, kl: Tensor, step: Step = 0) -> Tensor:
        return kl

    return distance if capacity else by_group if free_bits or balance else whole


def shares(t: Trace, b: float) -> Tensor:
    """γ of a balance b, (G,)."""
    a: Tensor = ((KL_FLOOR + t.kl.detach().abs().mean(0)) / t.group_sizes) ** b
    return a / a.mean()


def _written(v: Values) -> str:
    """What is subtracted from the reconstruction, in an equation."""
    y = v["y"]
    if v["estimator"] == "A":
        return f"E_q[log q(z|x{y}) - log p(z)]"
    if v["capacity"]:
        return f"|E_x KL(q(z|x{y}) ‖ p(z)) - C|"
    if v["balance"]:
        return f"Σ_g γ_g {'max(λ, E_x KL_g)' if v['free_bits'] else 'KL_g'}"
    return f"Σ_d max(λ, E_x KL(q(z_d|x{y}) ‖ p(z_d)))" if v["free_bits"] else f"KL(q(z|x{y}) ‖ p(z))"
