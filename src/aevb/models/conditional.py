"""p(y | c) = family(net(c)): encoder and decoder are one class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call
from torch.nn.modules.dropout import _DropoutNd

from aevb.errors import ShapeError
from aevb.models.layout import lay_out
from aevb.models.shares import shared
from aevb.parts import ENCODER, Member, Needs, Offers, check
from aevb.probability.families import HALF, Family

TWICE = Needs(repeatable=True, otherwise={"repeatable": "the gradient plain"})


class Conditional(nn.Module):
    """p(y | c) = family(net(c)), with any module as `net`.

    The net is called with exactly one batch dimension, (N, *C), and whatever it returns is flattened to the
    (N, `family.size`) numbers of the family. Several contexts (a latent and a label) are flattened and concatenated.

    Args:
        inputs: a fixed map of the first context, before the net; such as `Standardized`.
        outputs: a fixed map of φ, after the net; such as `Start`.

    Shapes: contexts (*batch, *C); the distribution has batch shape (*batch) and the family's event shape. Contexts are
    in float32 or in the type of the net's weights, where these are in half precision; densities are not.

    Raises:
        ShapeError: the net gives another number of outputs than the family needs; both numbers are named.
    """

    def __init__(
        self, net: nn.Module, family: Family, inputs: nn.Module | None = None, outputs: nn.Module | None = None
    ) -> None:
        super().__init__()
        lay_out(net)
        self.net = net
        self.family = family
        self.inputs, self.outputs = inputs, outputs

    def forward(self, *context: Tensor, batch_dims: int = 1) -> Distribution:
        if not context:
            raise ShapeError(
                "The prior p(z|y) of this model reads y, but there is none: give aevb.Pairs(x, y), or y=..."
            )
        c = context[0] if len(context) == 1 else concatenate(context, batch_dims)
        if batch_dims == 1:
            return self.family(self.phi(c))
        batch, event = c.shape[:batch_dims], c.shape[batch_dims:]
        phi = self.phi(c.reshape(math.prod(batch), *event))
        return self.family(phi.reshape(*batch, phi.shape[-1]))

    def phi(self, c: Tensor) -> Tensor:
        """c (N, *C) → φ (N, size); of N rows several processes compute a part each."""
        return shared(self, self._phi, c)  # type: ignore[no-any-return]

    def _phi(self, c: Tensor) -> Tensor:
        c = c if self.inputs is None else self.inputs(c)
        phi: Tensor = self.net(in_type_of(self.net, c)).flatten(1)
        return phi if self.outputs is None else self.outputs(phi)


def in_type_of(net: nn.Module, c: Tensor) -> Tensor:
    """c in the type of the net's weights where that is a half precision, or where c is in one."""
    weights = next(net.parameters(), None)
    return c if weights is None or not {weights.dtype, c.dtype} & set(HALF) else c.to(weights.dtype)


def concatenate(context: tuple[Tensor, ...], batch_dims: int) -> Tensor:
    """Several contexts (*batch, *C) side by side as one vector (*batch, ΣC); a scalar per data point is a vector of
    one."""
    return torch.cat([c.reshape(*c.shape[:batch_dims], math.prod(c.shape[batch_dims:])) for c in context], -1)


def condition(module: nn.Module, *context: Tensor, batch_dims: int) -> Distribution:
    """Call a conditional on contexts with several batch dimensions; any other module must broadcast over them
    itself."""
    if isinstance(module, Conditional):
        return module(*context, batch_dims=batch_dims)  # type: ignore[no-any-return]
    return module(*context)  # type: ignore[no-any-return]


def frozen_log_prob(module: nn.Module, z: Tensor, *context: Tensor) -> Tensor:
    """log q(z | x) with q's parameters held constant: the gradient flows through z alone (arXiv 1703.09194).

    The density is evaluated inside `functional_call`: a lazily evaluated density would read the live parameters again.
    It is a second pass through the encoder, so buffers are cloned: batch statistics learn once from each minibatch.
    """
    constants = {name: p.detach() for name, p in module.named_parameters()}
    constants |= {name: buffer.clone() for name, buffer in module.named_buffers()}
    weights = {f"module.{k}": v for k, v in constants.items()}
    density: Tensor = functional_call(_LogProb(module), weights, (z, *context))
    return density


def refuse_second_pass(*encoder: nn.Module) -> None:
    """Refuse an encoder of which a second pass, by `frozen_log_prob`, would give another q(z|x): its dropout draws
    again."""
    parts = [part for module in encoder for part in module.modules()]
    dropout = [p for p in parts if isinstance(p, _DropoutNd) and p.training and p.p > 0]
    if dropout:
        lacking = Member(ENCODER, type(dropout[0]).__name__, Offers(repeatable=False))
        check([lacking, Member("", "a path derivative (stl, dreg)", needs=TWICE)])


class _LogProb(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, z: Tensor, *context: Tensor) -> Tensor:
        return self.module(*context).log_prob(z)  # type: ignore[no-any-return]
