"""Latents are one tensor, or in a hierarchy a tuple of them: what can be done with either."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from aevb.errors import RecipeError, ShapeError

Latents = tuple[Tensor, ...]
Latent = Tensor | Latents  # opaque to objectives


def drawn(q: Distribution, samples: int) -> Latent:
    """z_k ~ q, k = 1..K, (K, B, *Z): a differentiable function of noise where gradients are recorded (eq. 4).

    Raises:
        RecipeError: it cannot be one, as the draws of q jump.
    """
    shape = torch.Size((samples,))
    if q.has_rsample:
        return q.rsample(shape)
    if torch.is_grad_enabled():
        raise RecipeError(
            "This objective follows the derivative of z ~ q(z|x), but the draws of this posterior are one of several codes "
            "and have none. Take an objective that asks for none (importance-weighted with gradient = 'vimco', or "
            "wake-sleep), or the posterior concrete, which relaxes the codes."
        )
    return q.sample(shape)


def each(f: Callable[[Tensor], Tensor], z: Latent) -> Latent:
    """f of the tensor, or of each one of the tuple."""
    return f(z) if isinstance(z, Tensor) else tuple(f(z_l) for z_l in z)


def split(z: Latent, size: int) -> Sequence[Latent]:
    """Latents (N, *Z) in parts of `size`, the last one perhaps smaller."""
    return z.split(size) if isinstance(z, Tensor) else list(zip(*(z_l.split(size) for z_l in z), strict=True))


def side_by_side(z: Latent, batch_dims: int = 1) -> Tensor:
    """A tuple's layers (*batch, *Z_l) side by side, (*batch, Σ_l D_l); a tensor as it is."""
    return z if isinstance(z, Tensor) else torch.cat([z_l.flatten(batch_dims) for z_l in z], -1)


def apart(codes: Tensor, like: Latent) -> Latent:
    """Flat codes (*batch, D), D counting the numbers of all layers, as latents of the shape of `like`, (N, *Z)."""
    if isinstance(like, Tensor):
        return codes.reshape(*codes.shape[:-1], *like.shape[1:])
    layers = codes.split([z_l[0].numel() for z_l in like], -1)
    return tuple(layer.unflatten(-1, z_l.shape[1:]) for layer, z_l in zip(layers, like, strict=True))


def only(z: Latent, who: str) -> Tensor:
    """z, for `who` asks for latents that are one tensor.

    Raises:
        ShapeError: they are a tuple.
    """
    if isinstance(z, Tensor):
        return z
    raise ShapeError(f"{who} needs latents that are one tensor; those of this model are a hierarchy of {len(z)} layers.")


def layers(z: Latent) -> Latents:
    """z, for a model whose latents are a tuple."""
    if isinstance(z, tuple):
        return z
    raise ShapeError(f"This model's latents are a tuple, of one tensor for each layer; got one tensor, {tuple(z.shape)}.")


def log_prob(p: Distribution, z: Latent) -> Tensor:
    """log p(z), with p a `Joint` where z is a tuple; for type checkers: PyTorch's own distributions know only tensors."""
    return p.log_prob(z)  # type: ignore[arg-type]
