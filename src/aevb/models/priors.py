"""Priors p(z): conditionals without a context, known or learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import (
    Dirichlet,
    Distribution,
    Exponential,
    Gumbel,
    Independent,
    Laplace,
    LogNormal,
    Normal,
    StudentT,
    TransformedDistribution,
)
from torch.distributions.transforms import ReshapeTransform

from aevb.errors import ShapeError
from aevb.models.conditional import Conditional
from aevb.models.networks import MLP
from aevb.notation import plain
from aevb.parts import PRIOR, Needs, Offers, Part, Support, Tail, Values
from aevb.probability import distributions as d
from aevb.probability.codes import Concrete
from aevb.probability.families import Family, Shape, as_shape
from aevb.probability.flows import Flow, standard, zuko
from aevb.probability.mixtures import FiniteMixture
from aevb.probability.sphere import UniformSphere


class StandardNormal(nn.Module):
    """p(z) = N(0, I), the paper's prior (§3). Event shape `shape`."""

    word, roles = "standard-normal", (PRIOR,)
    offers = Offers(Support.REAL, diagonal=True)
    equation = "p(z) = N(z; 0, I)"

    loc: Tensor
    scale: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        event = as_shape(shape)
        self.register_buffer("loc", torch.zeros(event), persistent=False)
        self.register_buffer("scale", torch.ones(event), persistent=False)

    def forward(self, *context: Tensor) -> Distribution:
        return Independent(Normal(self.loc, self.scale, validate_args=False), self.loc.ndim, validate_args=False)


@dataclass(frozen=True)
class KnownPrior:
    """One of the fixed priors that a recipe has a word for."""

    make: Callable[..., Distribution]
    parameters: tuple[float, ...]
    offers: Offers
    equation: str


HEAVY = Offers(Support.REAL, Tail.CAUCHY, tolerates=Tail.CAUCHY)
KNOWN: Mapping[str, KnownPrior] = {
    "standard-logistic": KnownPrior(
        d.Logistic, (0.0, 1.0), Offers(Support.REAL, Tail.EXPONENTIAL), "p(z) = Π_d Logistic(z_d; 0, 1)"
    ),
    "standard-laplace": KnownPrior(
        Laplace, (0.0, 1.0), Offers(Support.REAL, Tail.EXPONENTIAL), "p(z) = Π_d Laplace(z_d; 0, 1)"
    ),
    "standard-student-t": KnownPrior(
        StudentT, (3.0, 0.0, 1.0), replace(HEAVY, tail=Tail.POLYNOMIAL), "p(z) = Π_d StudentT(z_d; 0, 1, ν = 3)"
    ),
    "standard-cauchy": KnownPrior(d.Cauchy, (0.0, 1.0), HEAVY, "p(z) = Π_d Cauchy(z_d; 0, 1)"),
    "standard-gumbel": KnownPrior(
        Gumbel, (0.0, 1.0), Offers(Support.REAL, Tail.GUMBEL, Tail.GUMBEL), "p(z) = Π_d Gumbel(z_d; 0, 1)"
    ),
    "unit-exponential": KnownPrior(Exponential, (1.0,), Offers(Support.POSITIVE), "p(z) = Π_d exp(-z_d),  z_d > 0"),
    "log-normal": KnownPrior(
        LogNormal, (0.0, 1.0), Offers(Support.POSITIVE), "p(z) = Π_d N(log z_d; 0, 1) / z_d,  z_d > 0"
    ),
    "uniform": KnownPrior(d.Beta, (1.0, 1.0), Offers(Support.UNIT), "p(z) = 1,  0 < z_d < 1"),
    "flat-dirichlet": KnownPrior(
        Dirichlet, (1.0,), Offers(Support.SIMPLEX), "p(z) = Dirichlet(z; 1, ..., 1),  z_d > 0, Σ_d z_d = 1"
    ),
    "uniform-sphere": KnownPrior(UniformSphere, (0.0,), Offers(Support.SPHERE), "p(z) = Γ(D/2) / 2 π^(D/2),  |z| = 1"),
}
ALIKE: Mapping[Any, Offers] = {Normal: Offers(Support.REAL, diagonal=True)} | {k.make: k.offers for k in KNOWN.values()}


class Known(nn.Module):
    """p(z) = Π_d p(z_d), or p(z) where `make` gives a distribution of vectors: fixed, with nothing to learn.

    Args:
        make: a distribution of `torch.distributions`, or of the same signature.
        parameters: its parameters, the same for every element of z.
        shape: event shape.

    `Known(torch.distributions.Gamma, (2.0, 1.0), 20)`; a recipe has a word for each of `KNOWN`.
    """

    def __init__(self, make: Callable[..., Distribution], parameters: tuple[float, ...], shape: Shape) -> None:
        super().__init__()
        self.make, self.shape, self.count = make, as_shape(shape), len(parameters)
        self.offers = ALIKE.get(make)
        self.word = next((w for w, k in KNOWN.items() if (k.make, k.parameters) == (make, parameters)), make.__name__)
        for i, value in enumerate(parameters):
            self.register_buffer(f"parameter{i}", torch.full(self.shape, float(value)), persistent=False)
        if make is Dirichlet and self.shape[-1] < 2:
            raise ShapeError(f"Dirichlet is over vectors of at least 2 numbers that sum to 1; got {tuple(self.shape)}.")

    def forward(self, *context: Tensor) -> Distribution:
        p = self.make(*(getattr(self, f"parameter{i}") for i in range(self.count)), validate_args=False)
        factors = len(p.batch_shape)
        return Independent(p, factors, validate_args=False) if factors else p


class Mixture(nn.Module):
    """p(z) = Σ_m π_m f(z; φ_m): `components` members of one family, their weights π and parameters φ learned.

    With `Normal` it is the prior of VaDE (Jiang et al. 2017, arXiv 1611.05148), whose clusters are the components:
    `prior().responsibilities(z)` is p(m | z). Its KL has no closed form: the bound estimates it from the draws z_k ~
    q(z|x). It starts at π uniform and φ ~ N(0, 0.2² I), where normals are nearly the standard one, and so trains sooner
    than from φ ~ N(0, I): the best validation ELBO of `mixture-prior` on digits, networks 128 wide, after 30,000
    samples is -25.3 nats (seeds 0 to 2: -25.4, -25.1, -25.3) against -26.4 (-26.7, -26.1, -26.3); after 120,000 (seeds
    0, 1) -23.2 against -23.5.

    Args:
        family: of the components, over the latent's shape, such as the posterior's.
        components: M.
    """

    word, roles = "mixture", (PRIOR,)
    offers = Offers(tolerates=Tail.CAUCHY)  # its components are of the posterior's family
    needs = Needs(components=True)
    equation = "p(z) = Σ_m π_m r(z; ψ_m),  r the posterior's family, π and ψ learned, m = 1..{components}"

    def __init__(self, family: Family, components: int = 10) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"Mixture: components must be at least 1; got {components}.")
        self.family = family
        known = family.offers or Offers()
        self.offers = Offers(known.support, known.tail, known.tolerates)
        self.logits = nn.Parameter(torch.zeros(components))
        self.phi = nn.Parameter(0.2 * torch.randn(components, family.size))

    def forward(self, *context: Tensor) -> FiniteMixture:
        return FiniteMixture(self.logits, self.family(self.phi))


def conditional(
    family: Family, context: int, hidden: Sequence[int] = (), activation: type[nn.Module] = nn.Tanh
) -> Conditional:
    """p(z|y) = family(net(y)), the learned prior of a conditional VAE (Sohn, Lee & Yan 2015).

    Args:
        family: such as the posterior's.
        context: how many numbers y has; C for a one-hot label.
        hidden: widths of the net's hidden layers; without any, a label has parameters φ of its own.
    """
    return Conditional(MLP(context, family.size, hidden, activation), family)


FOR_LABELS = Offers(tolerates=Tail.CAUCHY, unconditional=False)
OF_LABELS = Needs(
    labels=True, components=True, otherwise={"labels": "context.classes, as in the recipe conditional-prior"}
)


def conditional_equation(v: Values) -> str:
    net = f"ψ an mlp {plain(v['hidden'])} wide" if v["hidden"] else "ψ learned for each label"
    return f"p(z|y) = r(z; ψ(y)),  r the posterior's family, {net}"


class VampPrior(nn.Module):
    """p(z) = 1/M Σ_m q(z | u_m): the encoder's own posteriors at M learned pseudo-inputs (arXiv 1705.07120).

    The encoder is shared with the model: it gets a gradient from both sides. Its weights are the model's, so the
    parameters and the state of this module do not hold them again. Its KL has no closed form: the bound
    estimates it from the draws z_k ~ q(z|x).

    Of a model with contexts a pseudo-input is a data point with its context beside it, as the encoder's network sees
    them: both are learned, and p(z) is the same for every context.

    Args:
        encoder: the very module that is the model's encoder, (M, *X) → q(z|x).
        start: u (M, *X), where the pseudo-inputs begin: rows of the training data, as `fit` takes them, or noise.
    """

    word, offers = "vamp", Offers(tolerates=Tail.CAUCHY, layered=False)
    needs = Needs(density=True, everywhere=True)
    equation = "p(z) = 1/M Σ_m q(z|u_m),  pseudo-inputs u_m learned, M = {components}"

    def __init__(self, encoder: nn.Module, start: Tensor) -> None:
        super().__init__()
        self._encoder = (encoder,)  # within a tuple it is no part of this module
        known = encoder.family.offers if isinstance(encoder, Conditional) else None
        self.offers = replace(self.offers, support=known.support if known else None)
        self.u = nn.Parameter(start.detach().clone())

    @classmethod
    def from_noise(cls, encoder: nn.Module, inputs: Shape, components: int = 500) -> VampPrior:
        """u ~ U(0, 1): for where no data are at hand."""
        if components < 1:
            raise ValueError(f"VampPrior: components must be at least 1; got {components}.")
        return cls(encoder, torch.rand(components, *as_shape(inputs)))

    def forward(self, *context: Tensor) -> FiniteMixture:
        q = self._encoder[0](self.u)
        return FiniteMixture(self.u.new_zeros(len(self.u)), q)

    @torch.no_grad()
    def start_at(self, x: Tensor) -> None:
        """Let the pseudo-inputs begin at these data, x (M, *X)."""
        self.u.copy_(x)


class UniformOverCodes(nn.Module):
    """p(z) = 1/K for each of the K codes of the encoder's family: one-hot vectors, a codebook, a grid.

    The family is the encoder's own, with its codebook: neither the parameters nor the state of this module hold it
    again.

    Args:
        encoder: the very module that is the model's encoder, a `Conditional` over a family of codes.
    """

    word, roles = "uniform-codes", (PRIOR,)
    offers, needs = Offers(Support.CODES), Needs(uniform=True)
    equation = "p(z) = 1/K for each of the K codes of f"

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self._encoder = (encoder,)  # within a tuple it is no part of this module

    def forward(self, *context: Tensor) -> Distribution:
        (encoder,) = self._encoder
        uniform: Distribution = cast(Any, encoder).family.uniform(next(encoder.parameters()))
        return uniform


class UniformConcrete(nn.Module):
    """The encoder's `Concrete` at equal logits: relaxed at its temperature in training, 1/C for each one-hot z
    thereafter.

    Args:
        encoder: the very module that is the model's encoder, a `Conditional` over `Concrete`.
    """

    word, roles = "uniform-concrete", (PRIOR,)
    offers, needs = Offers(Support.RELAXED), Needs(relaxed=True)
    equation = "p(z) = Π_g Concrete(z_g; 1/C, τ),  and 1/C for each one-hot z_g after training"

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self._encoder = (encoder,)  # within a tuple it is no part of this module

    def forward(self, *context: Tensor) -> Distribution:
        (encoder,) = self._encoder
        family: Concrete = cast(Any, encoder).family
        return family(next(encoder.parameters()).new_zeros(family.size))


class FlowPrior(nn.Module):
    """A neural spline flow over the latents, z = f⁻¹(ε), ε ~ N(0, I) (Durkan et al. 2019, arXiv 1906.04032), by zuko.

    A density takes one pass, which is what training needs; a draw takes one for each latent. Its KL has no closed
    form: the bound estimates it from the draws z_k ~ q(z|x). Needs zuko, the extra `flows`.

    Args:
        shape: event shape, over all real numbers; flattened for the flow.
        flows: how many autoregressive transforms.
        hidden: widths of each one's masked network.
        bins: of the splines.
    """

    word, roles = "flow", (PRIOR,)
    offers = Offers(Support.REAL)
    equation = "p(z) = N(t(z); 0, I) |det ∂t/∂z|,  t: {flows} autoregressive splines of {bins} bins, learned"

    def __init__(self, shape: Shape, flows: int = 3, hidden: Sequence[int] = (64, 64), bins: int = 8) -> None:
        super().__init__()
        self.shape = as_shape(shape)
        size = self.shape.numel()
        self.transform = zuko().NSF(size, transforms=flows, hidden_features=tuple(hidden), bins=bins).transform

    def forward(self, *context: Tensor) -> Distribution:
        f = self.transform(None)
        base = standard(torch.Size((self.shape.numel(),)), next(self.parameters()))
        flow = Flow(base, f.inv.call_and_ladj, f.call_and_ladj)
        if len(self.shape) == 1:
            return flow
        return TransformedDistribution(flow, ReshapeTransform(flow.event_shape, self.shape), validate_args=False)


PARTS = (
    *(Part(word, (PRIOR,), partial(Known, k.make, k.parameters), k.equation, k.offers) for word, k in KNOWN.items()),
    Part(
        "conditional",
        (PRIOR,),
        conditional,
        conditional_equation,
        FOR_LABELS,
        OF_LABELS,
    ),
    Part("vamp", (PRIOR,), VampPrior.from_noise, VampPrior.equation, VampPrior.offers, VampPrior.needs),
)
