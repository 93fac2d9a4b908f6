"""Normalising flows: a draw ε of a normal, bent by functions whose inverse and Jacobian are known (arXiv 1505.05770).

Planar, Sylvester and Householder flows are here; autoregressive ones are zuko's, which is imported when the first of
them is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, constraints
from torch.distributions.kl import register_kl

from aevb.errors import RecipeError, ShapeError
from aevb.parts import POSTERIOR, Offers, Support
from aevb.probability.distributions import kl_from_diagonal
from aevb.probability.families import HALF, Family, Shape, check_size, turned_scale

Bend = Callable[[Tensor], tuple[Tensor, Tensor]]  # x (*, D) → y (*, D) and log |det ∂y/∂x| (*)
STEEPEST = 0.999  # of a Sylvester flow's diagonals: at 1 it could fold
SHORTEST = 1e-10  # |w|², of which one divides; a shorter w folds only for |u| beyond 10⁵
LEAST = torch.finfo(torch.float32).eps ** 0.5  # in any precision, so that a planar flow is one function in all of them
BENT = Offers(Support.REAL, factorized=False, known_mean=False, known_covariance=False)
HALVINGS = 60  # of the interval in which an inverse is sought: down to the last digit of float64


class Flow(Distribution):
    """z = f(ε), ε ~ base:   log q(z) = log base(ε) - log |det ∂f/∂ε|.

    The inverse of f may be slow, so the density of the last draw is remembered: whoever asks for the density of that
    very tensor gets it at once, with the same gradient. `mean` is f(E[ε]), the middle of the flow: its mean has no
    closed form.

    Args:
        base: of vectors (D), with the batch shape of the flow.
        forward: f; it broadcasts over dimensions on the left.
        inverse: f⁻¹, with the logarithm of its own Jacobian's determinant.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True
    offers = BENT

    def __init__(self, base: Distribution, forward: Bend, inverse: Bend) -> None:
        self.base, self.bend, self.unbend = base, forward, inverse
        self.drawn: tuple[Tensor, Tensor] | None = None
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, 1)

    @property
    def mean(self) -> Tensor:
        return self.bend(self.base.mean)[0]

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        epsilon = self.base.rsample(torch.Size(sample_shape))
        z, log_det = self.bend(epsilon)
        self.drawn = z, self.base.log_prob(epsilon) - log_det
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        if self.drawn is not None and value is self.drawn[0]:
            log_q = self.drawn[1]
            if log_q.requires_grad or not torch.is_grad_enabled():  # drawn without gradients, it would hold none
                return log_q
        epsilon, log_det = self.unbend(value)
        return self.base.log_prob(epsilon) + log_det


def standard(shape: torch.Size, like: Tensor) -> Distribution:
    """N(0, I) over vectors, of batch shape ()."""
    zero = like.new_zeros(shape)
    return Independent(Normal(zero, torch.ones_like(zero), validate_args=False), 1, validate_args=False)


def vector(shape: torch.Size, name: str) -> int:
    if len(shape) != 1:
        raise ShapeError(f"{name} is over vectors; got the shape {tuple(shape)}. Use Normal, or flatten.")
    return shape[0]


def planar(x: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """y = x + u tanh(w·x + b), and log |1 + w·u (1 - tanh²)|; eq. 10 to 12 of arXiv 1505.05770."""
    h = torch.tanh((w * x).sum(-1) + b)
    return x + u * h.unsqueeze(-1), torch.log1p((w * u).sum(-1) * (1 - h**2))


def planar_inverse(y: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """x = y - u tanh(a + b), where a = w·x is the one root of a + w·u tanh(a + b) = w·y."""
    slope = (w * u).sum(-1)
    h = torch.tanh(root(slope, b, (w * y).sum(-1)) + b)
    return y - u * h.unsqueeze(-1), -torch.log1p(slope * (1 - h**2))


def root(slope: Tensor, b: Tensor, target: Tensor) -> Tensor:
    """The a with a + s tanh(a + b) = t, for a slope s > -1, where the left side only rises.

    It lies within |s| of t, and is found by halving that interval; its derivative is that of one step of Newton's.
    """
    with torch.no_grad():
        low, high = target - slope.abs(), target + slope.abs()
        for _ in range(HALVINGS):
            a = (low + high) / 2
            above = a + slope * torch.tanh(a + b) > target
            low, high = torch.where(above, low, a), torch.where(above, a, high)
        a = (low + high) / 2
        rate = 1 + slope * (1 - torch.tanh(a + b) ** 2)
    return a - (a + slope * torch.tanh(a + b) - target) / rate


def invertible(u: Tensor, w: Tensor) -> Tensor:
    """û = u + (m(w·u) - w·u) w / |w|², m(s) = -1 + softplus(s): w·û > -1, without which a planar flow folds (App.
    A.1)."""
    s = (w * u).sum(-1, keepdim=True)
    lift = F.softplus(s) - 1 + LEAST - s
    lifted: Tensor = u + lift * w / w.square().sum(-1, keepdim=True).clamp(min=SHORTEST)
    return lifted


def bent_by(step: str, net: str) -> str:
    """The equation of a flow, by what each step of it does."""
    return "N(ε; μ, diag σ²) / |det ∂z/∂ε|,  z: ε after {flows} times z ← " + f"{step}, {net}"


class Planar(Family):
    """A normal bent by planar flows z ← z + û tanh(w·z + b), all from the network (Rezende & Mohamed 2015, 1505.05770).

    φ = (μ, log σ², then u, w, b of each flow). Its inverse is found by halving: slower than its draws, and exact.

    Args:
        shape: (D,).
        flows: how many of them.
    """

    word, roles = "planar", (POSTERIOR,)
    offers = BENT
    equation = bent_by("z + u tanh(w·z + b)", "(μ, log σ², u, w, b) = {net}")

    def __init__(self, shape: Shape, flows: int = 10) -> None:
        super().__init__(shape)
        self.latent, self.flows = vector(self.shape, "Planar"), flows
        if flows < 1:
            raise ValueError(f"Planar: flows must be at least 1; got {flows}. Without any it is Normal.")

    @property
    def size(self) -> int:
        return 2 * self.latent + self.flows * (2 * self.latent + 1)

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        d = self.latent
        rest = phi[..., 2 * d :].unflatten(-1, (self.flows, 2 * d + 1))
        steps = [(invertible(t[..., :d], t[..., d:-1]), t[..., d:-1], t[..., -1]) for t in rest.unbind(-2)]
        return Flow(around(phi, d), chain(planar, steps), chain(planar_inverse, steps[::-1]))


class Sylvester(Family):
    """A normal bent by Householder-Sylvester flows, all from the network (van den Berg et al. 2018, arXiv 1803.05649).

        z ← z + Q R tanh(R̃ Qᵀ z + b),   log |det| = Σ_d log(1 + r_dd r̃_dd (1 - tanh²))

    Q is a product of reflections, so orthogonal. R and R̃ are upper triangles with diagonals in (-1, 1), so the flow
    can be inverted, one latent after another. A planar flow is one of rank 1; these are of rank D. φ = (μ, log σ², then
    the entries of R and R̃ above their diagonals, the diagonals, b, and the reflections' vectors, of each flow).

    Args:
        shape: (D,).
        flows: how many of them.
        reflections: in each Q.
    """

    word, roles = "sylvester", (POSTERIOR,)
    offers = BENT
    equation = bent_by("z + Q R tanh(R̃ Qᵀ z + b)", "all from {net}")

    def __init__(self, shape: Shape, flows: int = 4, reflections: int = 4) -> None:
        super().__init__(shape)
        self.latent, self.flows, self.reflections = vector(self.shape, "Sylvester"), flows, reflections
        if min(flows, reflections) < 1:
            raise ValueError(f"Sylvester: flows and reflections must be at least 1; got {flows} and {reflections}.")

    @property
    def size(self) -> int:
        return 2 * self.latent + self.flows * sum(self._sizes)

    @property
    def _sizes(self) -> tuple[int, ...]:
        d = self.latent
        return d * (d - 1) // 2, d * (d - 1) // 2, d, d, d, self.reflections * d

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        d = self.latent
        steps = [self._step(t) for t in phi[..., 2 * d :].unflatten(-1, (self.flows, -1)).unbind(-2)]
        return Flow(around(phi, d), chain(sylvester, steps), chain(sylvester_inverse, steps[::-1]))

    def _step(self, phi: Tensor) -> tuple[Tensor, ...]:
        """R, R̃ (*, D, D), b (*, D), v (*, reflections, D)."""
        above, above_too, diagonal, diagonal_too, b, v = phi.split(self._sizes, -1)
        r = upper(above, STEEPEST * torch.tanh(diagonal))
        r_too = upper(above_too, STEEPEST * torch.tanh(diagonal_too))
        return r, r_too, b, v.unflatten(-1, (self.reflections, self.latent))


def upper(above: Tensor, diagonal: Tensor) -> Tensor:
    """A matrix (*, D, D) with this diagonal, and these numbers row by row above it."""
    d = diagonal.shape[-1]
    rows, columns = torch.triu_indices(d, d, 1, device=above.device)
    matrix = above.new_zeros(*above.shape[:-1], d, d)
    matrix[..., rows, columns] = above
    return matrix + torch.diag_embed(diagonal)


def reflected(x: Tensor, v: Tensor, back: bool = False) -> Tensor:
    """Q x = H_1 ... H_n x, or Qᵀ x `back`, with H_i = I - 2 v_i v_iᵀ / |v_i|²: x (*, D), v (*, n, D)."""
    units = F.normalize(v, dim=-1).unbind(-2)
    for u in units if back else units[::-1]:
        x = x - 2 * u * (u * x).sum(-1, keepdim=True)
    return x


class Reflected(Distribution):
    """z = Q ε, ε ~ N(μ, diag σ²), with Q = H_1 ... H_n a product of reflections: a normal of covariance Q diag(σ²) Qᵀ.

    |det Q| = 1, so that log q(z) = log N(Qᵀ z; μ, σ² I). Its moments are those of the normal that it is.

    Args:
        base: N(μ, diag σ²), batch (*), event (D).
        v: (*, n, D), the vectors of the reflections.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True

    def __init__(self, base: Distribution, v: Tensor) -> None:
        self.base, self.v = base, v
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, 1)

    @property
    def mean(self) -> Tensor:
        return reflected(self.base.mean, self.v)

    @property
    def columns(self) -> Tensor:
        """Qᵀ, (*, D, D): its row d is column d of Q."""
        d = self.event_shape[0]
        eye = torch.eye(d, dtype=self.v.dtype, device=self.v.device)
        return reflected(eye.expand(*self.batch_shape, d, d), self.v.unsqueeze(-3))

    @property
    def covariance_matrix(self) -> Tensor:
        rows = self.columns * self.base.stddev.unsqueeze(-1)
        return rows.mT @ rows

    @property
    def variance(self) -> Tensor:
        return (self.columns.square() * self.base.variance.unsqueeze(-1)).sum(-2)

    def entropy(self) -> Tensor:
        return self.base.entropy()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return reflected(self.base.rsample(torch.Size(sample_shape)), self.v)

    def log_prob(self, value: Tensor) -> Tensor:
        log_q: Tensor = self.base.log_prob(reflected(value, self.v, back=True))
        return log_q


class Householder(Family):
    """A normal turned by Householder reflections, all from the network (Tomczak & Welling 2016, arXiv 1611.09630).

        z ← H_i z,   H_i = I - 2 v_i v_iᵀ / |v_i|²

    Volume is preserved, and the KL to a normal prior has a closed form. n reflections give any rotation for n ≥ D: a
    full covariance from n D + 2 D numbers. φ = (μ, log σ², v_1, ..., v_n).

    Args:
        shape: (D,).
        reflections: n.
    """

    word, roles = "householder", (POSTERIOR,)
    offers = Offers(Support.REAL, factorized=False)
    equation = "N({v}; Q μ, Q diag(σ²) Qᵀ),  Q: {reflections} reflections I - 2 v vᵀ/|v|², (μ, log σ², each v) = {net}"

    def __init__(self, shape: Shape, reflections: int = 10) -> None:
        super().__init__(shape)
        self.latent, self.reflections = vector(self.shape, "Householder"), reflections
        if reflections < 1:
            raise ValueError(
                f"Householder: reflections must be at least 1; got {reflections}. Without any it is Normal."
            )

    @property
    def size(self) -> int:
        return (2 + self.reflections) * self.latent

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        v = phi[..., 2 * self.latent :].unflatten(-1, (self.reflections, self.latent))
        return Reflected(around(phi, self.latent), v)


register_kl(Reflected, Independent)(kl_from_diagonal)


def sylvester(x: Tensor, r: Tensor, r_too: Tensor, b: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """x + Q R tanh(R̃ Qᵀ x + b), and the logarithm of its determinant, eq. 9 to 14 of arXiv 1803.05649."""
    h = torch.tanh((r_too @ reflected(x, v, back=True).unsqueeze(-1)).squeeze(-1) + b)
    slope = r.diagonal(dim1=-2, dim2=-1) * r_too.diagonal(dim1=-2, dim2=-1)
    return x + reflected((r @ h.unsqueeze(-1)).squeeze(-1), v), torch.log1p(slope * (1 - h**2)).sum(-1)


def sylvester_inverse(y: Tensor, r: Tensor, r_too: Tensor, b: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """x' + R tanh(R̃ x' + b) = y' with x' = Qᵀ x, y' = Qᵀ y, solved from the last row, of one unknown, to the first."""
    target = reflected(y, v, back=True)
    solved: list[Tensor] = []  # x'_d from d = D downwards, and likewise their tanh
    bent: list[Tensor] = []
    total: Tensor | float = 0.0
    for i in range(target.shape[-1] - 1, -1, -1):
        offset, t, later = b[..., i], target[..., i], range(i + 1, target.shape[-1])
        for j, x, h in zip(reversed(later), solved, bent, strict=True):
            offset, t = offset + r_too[..., i, j] * x, t - r[..., i, j] * h
        slope = r[..., i, i] * r_too[..., i, i]
        h = torch.tanh(root(slope, offset, r_too[..., i, i] * t) + offset)
        solved, bent = [*solved, t - r[..., i, i] * h], [*bent, h]
        total = total - torch.log1p(slope * (1 - h**2))
    return reflected(torch.stack(solved[::-1], -1), v), torch.as_tensor(total)


def around(phi: Tensor, d: int) -> Distribution:
    """N(μ, σ² I) from the first 2D numbers of φ."""
    scale = turned_scale(0.5 * phi[..., d : 2 * d])
    return Independent(Normal(phi[..., :d], scale, validate_args=False), 1, validate_args=False)


def chain(step: Callable[..., tuple[Tensor, Tensor]], parameters: Sequence[tuple[Tensor, ...]]) -> Bend:
    """One step after another; the logarithms of their determinants add up."""

    def bend(x: Tensor) -> tuple[Tensor, Tensor]:
        total: Tensor | float = 0.0
        for p in parameters:
            x, log_det = step(x, *p)
            total = total + log_det
        return x, torch.as_tensor(total)

    return bend


class IAF(Family, nn.Module):
    """A normal bent by inverse autoregressive flows (Kingma et al. 2016, arXiv 1606.04934), in a family with weights.

        z_d ← s_d(z_<d, h) z_d + m_d(z_<d, h),   in alternating order from flow to flow

    φ = (μ, log σ², h): the network also gives a context h, which all flows see. A draw and its density take one pass;
    the density of another z takes D. Needs zuko, the extra `flows`.

    Args:
        shape: (D,).
        flows: how many of them.
        hidden: widths of each flow's masked network.
        features: length of h.
    """

    word, roles = "iaf", (POSTERIOR,)
    offers = BENT
    equation = bent_by("s(z_<d, h) z_d + m(z_<d, h)", "(μ, log σ², h) = {net}")

    def __init__(self, shape: Shape, flows: int = 4, hidden: Sequence[int] = (128,), features: int = 32) -> None:
        nn.Module.__init__(self)
        Family.__init__(self, shape)
        self.latent, self.features = vector(self.shape, "IAF"), features
        if min(flows, features) < 1:
            raise ValueError(f"IAF: flows and features must be at least 1; got {flows} and {features}.")
        self.transform = zuko().MAF(self.latent, features, transforms=flows, hidden_features=tuple(hidden)).transform

    @property
    def size(self) -> int:
        return 2 * self.latent + self.features

    def __call__(self, phi: Tensor) -> Distribution:
        phi = check_size(self, phi)
        weights = next(self.transform.parameters())
        f = self.transform(phi[..., 2 * self.latent :].to(weights.dtype))
        bend, unbend = in_type_of(weights, f.call_and_ladj), in_type_of(weights, f.inv.call_and_ladj)
        return Flow(around(phi, self.latent), bend, unbend)


def in_type_of(weights: Tensor, bend: Bend) -> Bend:
    """The same map, by networks whose weights may be in half precision."""

    def cast(x: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = bend(x.to(weights.dtype))
        return y.to(x.dtype), log_det.to(x.dtype)

    return bend if weights.dtype not in HALF else cast


def zuko() -> ModuleType:
    """zuko.flows. Its import turns argument checks off for all of torch.distributions; here they stay as they were."""
    before = {name: Distribution.__dict__[name] for name in ("_validate_args", "arg_constraints")}
    try:
        import zuko.flows
    except ImportError as error:
        raise RecipeError(
            "This flow needs zuko, which is not installed. Run: pip install zuko (the extra aevb[flows])."
        ) from error
    finally:
        for name, value in before.items():
            setattr(Distribution, name, value)
    return zuko.flows  # type: ignore[no-any-return]
