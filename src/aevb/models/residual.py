"""Residual convolutions with group normalisation, for images of 28 to 64 pixels (He et al. 2016, arXiv 1603.05027)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from aevb.errors import ShapeError
from aevb.models.networks import check_image, check_outputs, halvings, image_shape, pyramid, said
from aevb.notation import plain
from aevb.parts import DECODER, ENCODER
from aevb.probability.families import Shape, as_shape

GROUPS = 8  # of channels that are normalised together, as far as they divide


class Block(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), (N, C, H, W); the last convolution starts at 0, so the block at x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        groups = math.gcd(GROUPS, channels)
        self.norms = nn.ModuleList(nn.GroupNorm(groups, channels) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        for p in self.convs[1].parameters():
            nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(silu(norm(h)))
        return x + h


def residual(v: Mapping[str, Any]) -> str:
    """The equation of a residual network with these arguments."""
    block = "h ← h + K' ∗ silu(norm(K ∗ silu(norm(h))))"
    return f"{block}, {plain(v['blocks'])} at each size, {said(v['channels'])}, then W h + b"


def stages_of(image: Shape) -> list[int]:
    """The channels of a residual network that is given no others; its first stage sees the image as it is."""
    return pyramid(image, coarsest=4, stages=3)


class ResidualEncoder(nn.Module):
    """Blocks at each size of an image that is halved from stage to stage: (N, C, H, W) → (N, outputs).

    Args:
        inputs: (C, H, W), of any size.
        outputs: the family's `size`.
        channels: of the stages; the first sees the image as it is, each further one half of the last; None: as
            `pyramid` says.
        blocks: residual blocks in each stage.
    """

    word, roles, equation = "residual", (ENCODER,), staticmethod(residual)
    reads_images = True
    pyramid = staticmethod(stages_of)

    def __init__(self, inputs: Shape, outputs: int, channels: Sequence[int] | None = None, blocks: int = 1) -> None:
        super().__init__()
        self.image = image_shape(inputs)
        channels = stages_of(self.image) if channels is None else channels
        last = halvings(self.image, checked("ResidualEncoder", channels, blocks) - 1)[-1]
        layers: list[nn.Module] = [nn.Conv2d(self.image[0], channels[0], 3, padding=1), *stage(channels[0], blocks)]
        for a, b in pairwise(channels):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), *stage(b, blocks)]
        layers += [nn.GroupNorm(math.gcd(GROUPS, channels[-1]), channels[-1]), nn.SiLU(), nn.Flatten()]
        self.layers = nn.Sequential(*layers, nn.Linear(channels[-1] * math.prod(last), outputs))

    def forward(self, x: Tensor) -> Tensor:
        check_image("ResidualEncoder", self.image, x)
        out: Tensor = self.layers(x)
        return out


class ResidualDecoder(nn.Module):
    """The mirror image: (N, *inputs) → (N, outputs / (H W), H, W), enlarging back through the encoder's very sizes.

    Args:
        inputs: event shape of the latent.
        outputs: the family's `size`; a multiple of H W.
        image: (C, H, W), the shape of the data.
        channels, blocks: those of the encoder, in its order.
    """

    word, roles, equation = "residual", (DECODER,), staticmethod(residual)
    pyramid = staticmethod(stages_of)

    def __init__(
        self, inputs: Shape, outputs: int, image: Shape, channels: Sequence[int] | None = None, blocks: int = 1
    ) -> None:
        super().__init__()
        shape = image_shape(image)
        channels = stages_of(shape) if channels is None else channels
        check_outputs("ResidualDecoder", outputs, shape)
        self.sizes = halvings(shape, checked("ResidualDecoder", channels, blocks) - 1)[::-1]
        self.start = nn.Linear(math.prod(as_shape(inputs)), channels[-1] * math.prod(self.sizes[0]))
        self.stages = nn.ModuleList(nn.Sequential(*stage(c, blocks)) for c in reversed(channels))
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(reversed(channels)))
        self.norm = nn.GroupNorm(math.gcd(GROUPS, channels[0]), channels[0])
        self.end = nn.Conv2d(channels[0], outputs // math.prod(shape[1:]), 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h: Tensor = self.stages[0](self.start(z.flatten(1)).unflatten(1, (-1, *self.sizes[0])))
        for conv, blocks, size in zip(self.convs, self.stages[1:], self.sizes[1:], strict=True):
            h = blocks(conv(interpolate(h, size=size)))
        out: Tensor = self.end(silu(self.norm(h)))
        return out


def stage(channels: int, blocks: int) -> list[nn.Module]:
    return [Block(channels) for _ in range(blocks)]


def checked(name: str, channels: Sequence[int], blocks: int) -> int:
    """How many stages there are."""
    if not channels or min(*channels, blocks) < 1:
        raise ShapeError(f"{name}: channels and blocks must be at least 1; got {list(channels)} and {blocks}.")
    return len(channels)
