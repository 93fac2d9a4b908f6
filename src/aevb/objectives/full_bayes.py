"""Full variational Bayes: a posterior over the parameters as well as over the latents (arXiv 1312.6114, App. F)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.func import functional_call

from aevb.data.batch import Data, as_batch
from aevb.errors import suggest
from aevb.models.trace import LatentModel
from aevb.notation import Shown
from aevb.objectives.bounds import ELBO, Info, Objective
from aevb.objectives.schedules import Step
from aevb.parts import OBJECTIVE, Needs, Offers, part_of

Weights = dict[str, Tensor]  # name of a parameter in the model → its values
M = TypeVar("M", bound=nn.Module)


class FullBayes(Shown, nn.Module):
    """The bound on log p(X) with q(θ) = N(μ_θ, σ_θ² I) and p(θ) = N(0, I), per data point (App. F, Algorithm 2).

        θ̃ = μ_θ + σ_θ ⊙ ζ,  ζ ~ N(0, I)                                                     (eq. 19, 23)
        L(φ; X) / N ≃ mean_B L̃(θ̃; x) - KL(q(θ) ‖ p(θ)) / N                                  (eq. 24)
        -KL(q(θ) ‖ p(θ)) = ½ Σ_j (1 + log σ_θj² - μ_θj² - σ_θj²)

    The loss is its negative, in nats per data point. L̃ is the `bound` of the model whose weights are θ̃, one draw for
    the whole minibatch. The means μ_θ are the model's own weights: the trained model is the one at the posterior mean,
    and its biases count as weights. The log-variances belong to the objective, whose `draw` gives models with weights
    from q(θ). p(θ) is in here already, so `Training.weight_prior` is not supported. Logged are those of `bound` at θ̃
    (`elbo` among them) and `kl_weights`, KL(q(θ) ‖ p(θ)) / N; the loss is kl_weights - elbo.

    Args:
        model: whose parameters θ are; it is not kept.
        over: the parts of the model whose parameters have a posterior; all others are point estimates without a prior.
        deviation: σ_θ at the start.
        bound: L̃, on log p_θ(x) in nats per data point; ELBO() if None.
    """

    word, roles = "full-bayes", (OBJECTIVE,)
    offers = Offers(point_weights=False)
    needs = Needs(reparameterized=True, kl=True)  # of the bound
    equation = (
        "ℒ(x) = E_q(θ){{E_q[log p(x|z{y})] - KL(q(z|x{y}) ‖ p(z))}} - 1/N KL(q(θ) ‖ p(θ))\n"
        "q(θ) = N(θ; μ_θ, diag σ_θ²) over all parameters of: {over},  p(θ) = N(θ; 0, I),  σ_θ = "
        "{deviation} at the start"
    )

    def __init__(
        self,
        model: nn.Module,
        over: Sequence[str] = ("decoder",),
        deviation: float = 0.01,
        bound: Objective | None = None,
    ) -> None:
        super().__init__()
        if not deviation > 0:
            raise ValueError(f"FullBayes: deviation > 0; got {deviation}.")
        self.bound = bound or ELBO()
        self.needs = part_of(self.bound).needs
        start = 2 * math.log(deviation)
        self.log_variances = nn.ParameterDict(
            {_key(k): torch.full_like(p, start) for k, p in _chosen(model, over).items()}
        )

    def forward(self, model: nn.Module, data: Data, step: Step) -> tuple[Tensor, Info]:
        n = as_batch(data).of
        if not n:
            raise ValueError("FullBayes: needs N, the number of rows in the data. Pass a Batch with `of`.")
        q = self.posterior(model)
        loss, info = _with_weights(model, {k: d.rsample() for k, d in q.items()}, self.bound, data, step)
        kl = self.kl(q) / n
        return loss + kl, {**info, "kl_weights": kl.detach()}

    def posterior(self, model: nn.Module) -> dict[str, Normal]:
        """q(θ) per parameter tensor: μ_θ from the model, σ_θ from here."""
        parameters = dict(model.named_parameters())
        names = {k: k.replace("/", ".") for k in self.log_variances}
        return {
            name: Normal(parameters[name], (0.5 * self.log_variances[k]).exp(), validate_args=False)
            for k, name in names.items()
        }

    @staticmethod
    def kl(q: Mapping[str, Normal]) -> Tensor:
        """KL(q(θ) ‖ N(0, I)), in nats for all parameters together, in closed form."""
        return torch.stack([kl_divergence(d, _standard(d.loc)).sum() for d in q.values()]).sum()

    @torch.no_grad()
    def draw(self, model: M) -> M:
        """A copy of the model with weights θ ~ q(θ): one plausible model of all."""
        drawn = copy.deepcopy(model)
        drawn.load_state_dict({k: d.sample() for k, d in self.posterior(model).items()}, strict=False)
        return drawn


def _chosen(model: nn.Module, over: Sequence[str]) -> Weights:
    """The parameters of the named parts; those that are frozen stay as they are."""
    free = {k: p.detach() for k, p in model.named_parameters() if p.requires_grad}
    _check_parts(over, free)
    return {k: p for k, p in free.items() if any(_within(k, part) for part in over)}


def _check_parts(over: Sequence[str], free: Weights) -> None:
    """Raise a ValueError where no part is named, or one that has no parameters."""
    if not over:
        raise ValueError("FullBayes: `over` names no part of the model; for point estimates use ELBO.")
    for part in over:
        if not any(_within(k, part) for k in free):
            possible = {k.partition(".")[0] for k in free}
            raise ValueError(f"FullBayes: the model has no {part!r} with parameters.{suggest(part, possible)}")


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _key(name: str) -> str:
    return name.replace(".", "/")  # a ParameterDict takes no dots


def _standard(like: Tensor) -> Normal:
    return Normal(torch.zeros_like(like), torch.ones_like(like), validate_args=False)


def _with_weights(model: nn.Module, weights: Weights, bound: Objective, data: Data, step: Step) -> tuple[Tensor, Info]:
    """bound(model, data, step), all of it while the model holds these weights: a trace is read late."""
    named = {f"model.{k}": w for k, w in weights.items()}
    return functional_call(_Bounded(model, bound), named, (data, step))  # type: ignore[no-any-return]


class _Bounded(nn.Module):
    """A bound of a model as a module, so that `functional_call` can lend it weights."""

    def __init__(self, model: nn.Module, bound: Objective) -> None:
        super().__init__()
        self.model, self.bound = model, bound

    def forward(self, data: Data, step: Step) -> tuple[Tensor, Info]:
        model: LatentModel = self.model  # type: ignore[assignment]
        return self.bound(model, data, step)
