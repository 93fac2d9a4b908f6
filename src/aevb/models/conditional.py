"""p(y | c) = family(net(c)): encoder and decoder are one class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call
from torch.nn.modules.dropout import _DropoutNd

from aevb.errors import RecipeError
from aevb.models.latents import Latent, log_prob
from aevb.probability.codes import FSQ, VQ
from aevb.probability.families import Family


class Conditional(nn.Module):
    """p(y | c) = family(net(c)), with any module as `net`.

    The net is called with exactly one batch dimension, (N, *C), and whatever it returns is flattened to the
    (N, `family.size`) numbers of the family. Several contexts (a latent and a label) are flattened and concatenated.

    Shapes: contexts (*batch, *C); the distribution has batch shape (*batch) and the family's event shape.

    Raises:
        ShapeError: the net gives another number of outputs than the family needs; both numbers are named.
    """

    def __init__(self, net: nn.Module, family: Family) -> None:
        super().__init__()
        self.net = net
        self.family = family

    def forward(self, *context: Tensor, batch_dims: int = 1) -> Distribution:
        c = context[0] if len(context) == 1 else concatenate(context, batch_dims)
        if batch_dims == 1:
            return self.family(self.net(c).flatten(1))
        batch, event = c.shape[:batch_dims], c.shape[batch_dims:]
        phi = self.net(c.reshape(math.prod(batch), *event)).flatten(1)
        return self.family(phi.reshape(*batch, phi.shape[-1]))


def concatenate(context: tuple[Tensor, ...], batch_dims: int) -> Tensor:
    """Several contexts (*batch, *C) side by side as one vector (*batch, ΣC); a scalar per data point is a vector of one."""
    return torch.cat([c.reshape(*c.shape[:batch_dims], math.prod(c.shape[batch_dims:])) for c in context], -1)


def condition(module: nn.Module, *context: Tensor, batch_dims: int) -> Distribution:
    """Call a conditional on contexts with several batch dimensions; any other module must broadcast over them itself."""
    if isinstance(module, Conditional):
        return module(*context, batch_dims=batch_dims)  # type: ignore[no-any-return]
    return module(*context)  # type: ignore[no-any-return]


def frozen_log_prob(module: nn.Module, z: Latent, *context: Tensor) -> Tensor:
    """log q(z | x) with q's parameters held constant: the gradient flows through z alone (arXiv 1703.09194).

    The density is evaluated inside `functional_call`: a lazily evaluated density would read the live parameters again. It is
    a second pass through the encoder, so that buffers are lent as copies: running means learn once from each minibatch.
    """
    constants = {name: p.detach() for name, p in module.named_parameters()}
    constants |= {name: buffer.clone() for name, buffer in module.named_buffers()}
    return functional_call(_LogProb(module), {f"module.{k}": v for k, v in constants.items()}, (z, *context))  # type: ignore[no-any-return]


def refuse_second_pass(*encoder: nn.Module) -> None:
    """Raise a `RecipeError` for an encoder that a second pass, by `frozen_log_prob`, would give another q(z|x)."""
    for part in (part for module in encoder for part in module.modules()):
        if isinstance(part, _DropoutNd) and part.training and part.p > 0:
            raise RecipeError(
                "The gradients 'stl' and 'dreg' pass x through the encoder a second time, for log q(z|x), and its "
                f"{type(part).__name__} would then draw another mask: z would be scored by another posterior than it was "
                "drawn from. Take the gradient 'plain', or an encoder without dropout."
            )
        if isinstance(part, Conditional) and isinstance(part.family, VQ | FSQ):
            raise RecipeError(
                "The gradients 'stl' and 'dreg' follow the density log q(z|x) along z, but this posterior (vq, fsq) is a "
                "single code, with probability one, and has no density. Take the objective elbo."
            )


class _LogProb(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, z: Latent, *context: Tensor) -> Tensor:
        return log_prob(self.module(*context), z)
