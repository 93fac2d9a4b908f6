"""Networks. The user's own always work: a net is any module from (N, *C) to N times `size` numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from aevb.errors import ShapeError
from aevb.notation import plain
from aevb.parts import CHAIN, DECODER, ENCODER
from aevb.probability.families import Shape, as_shape


def fully_connected(v: Mapping[str, Any]) -> str:
    """The equation of an `MLP` with these arguments."""
    beside = " + V h₀, h₀ the input" if v["linear"] else ""
    return f"h ← {plain(v['activation'])}(W h + b), {plain(v['hidden'])} wide, then W h + b{beside}"


class MLP(nn.Sequential):
    """Fully connected: x → activation(W x + b) → ... → W x + b. One tanh layer is the paper's network, App. C.

    Shapes: (N, *inputs) → (N, outputs).

    Args:
        inputs: event shape of what comes in, flattened to a vector.
        outputs: how many numbers go out, the family's `size`.
        hidden: widths of the hidden layers.
        activation: the module between layers.
        init: standard deviation of a normal from which every parameter starts (the paper: 0.01); PyTorch's own if None.
        linear: whether to add a linear function of x to what comes out, so that the layers learn only the rest.
    """

    word, roles = "mlp", (ENCODER, DECODER, CHAIN)
    equation = staticmethod(fully_connected)

    def __init__(
        self,
        inputs: Shape,
        outputs: int,
        hidden: Sequence[int] = (500,),
        activation: type[nn.Module] = nn.Tanh,
        init: float | None = None,
        linear: bool = False,
    ) -> None:
        widths = [math.prod(as_shape(inputs)), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), activation()]
        super().__init__(*layers, nn.Linear(widths[-1], outputs))
        self.linear = nn.Linear(widths[0], outputs, bias=False) if linear else None
        if init is not None:
            for p in self.parameters():
                nn.init.normal_(p, std=init)

    def forward(self, x: Tensor) -> Tensor:
        if self.linear is None:
            out: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return out
        flat: Tensor = self[0](x)
        h = flat
        for layer in list(self)[1:-1]:
            h = layer(h) if type(layer) is not nn.ReLU or not torch.is_inference_mode_enabled() else h.relu_()
        beside: Tensor = self.linear(flat)
        return h.add_(beside) if torch.is_inference_mode_enabled() else h + beside


class GatedMLP(nn.Sequential):
    """Fully connected with gates: x → (W x + b) ⊙ σ(V x + c) → ... → W x + b, the network of the VampPrior
    (1705.07120).

    Shapes: (N, *inputs) → (N, outputs).

    Args:
        inputs: event shape of what comes in, flattened to a vector.
        outputs: how many numbers go out, the family's `size`.
        hidden: widths of the hidden layers.
    """

    word, roles = "gated", (ENCODER, DECODER, CHAIN)
    equation = "h ← (W h + b) ⊙ sigmoid(V h + c), {hidden} wide, then W h + b"

    def __init__(self, inputs: Shape, outputs: int, hidden: Sequence[int] = (300, 300)) -> None:
        widths = [math.prod(as_shape(inputs)), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, 2 * b), nn.GLU()]  # (W x + b, V x + c), then the one half by σ of the other
        super().__init__(*layers, nn.Linear(widths[-1], outputs))


WIDEST, NARROWEST = 64, 8  # channels that a network has by itself, at the coarsest and at the finest size


def pyramid(image: Shape, coarsest: int = 8, stages: int = 2) -> list[int]:
    """The channels of an image's network that are given no others, from the finest size to the coarsest.

    The sides are halved until the longer is at most `coarsest`, and at least `stages` times. Channels double with each
    halving up to 64, and begin at 8 or more. So the work per pixel does not grow with the number of pixels: (32, 64)
    for 28 × 28 and 32 × 32, (16, 32, 64) for 64 × 64, (8, 16, 32, 64, 64) for 256 × 256.
    """
    side = max(image_shape(image)[1:])
    while -(-side // 2**stages) > coarsest:
        stages += 1
    return [min(WIDEST, max(NARROWEST, WIDEST >> stages - 1) << i) for i in range(stages)]


def said(channels: Sequence[int] | None) -> str:
    """How an equation writes them."""
    return "as many channels as suit the image's size" if channels is None else f"{plain(channels)} channels"


def convolved(v: Mapping[str, Any]) -> str:
    """The equation of a convolutional network with these arguments."""
    layer = f"h ← {plain(v['activation'])}(K ∗ h + b)"
    return f"{layer}, {said(v['channels'])}, the size halved each time (g: doubled), then W h + b"


class ConvEncoder(nn.Sequential):
    """Convolutions that halve an image of any size at each stage, then a linear layer: (N, C, H, W) → (N, outputs).

    Args:
        inputs: (C, H, W), the shape of the images.
        outputs: the family's `size`.
        channels: of the stages, each at half the size of the last; None: as `pyramid` says.
        activation: the module after each convolution.
    """

    word, roles, equation = "conv", (ENCODER,), staticmethod(convolved)
    reads_images = True
    pyramid = staticmethod(pyramid)

    def __init__(
        self,
        inputs: Shape,
        outputs: int,
        channels: Sequence[int] | None = None,
        activation: type[nn.Module] = nn.SiLU,
    ) -> None:
        shape = image_shape(inputs)
        channels = pyramid(shape) if channels is None else channels
        sizes = halvings(shape, len(channels))
        layers: list[nn.Module] = []
        for a, b in pairwise([shape[0], *channels]):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), activation()]
        super().__init__(*layers, nn.Flatten(), nn.Linear(channels[-1] * math.prod(sizes[-1]), outputs))
        self.image = shape

    def forward(self, x: Tensor) -> Tensor:
        check_image("ConvEncoder", self.image, x)
        out: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return out


class ConvDecoder(nn.Module):
    """The mirror image: (N, *inputs) → (N, outputs / (H W), H, W), enlarging back through the encoder's very sizes.

    Args:
        inputs: event shape of the latent.
        outputs: the family's `size`; a multiple of H W.
        image: (C, H, W), the shape of the data.
        channels, activation: those of the encoder, in its order.
    """

    word, roles, equation = "conv", (DECODER,), staticmethod(convolved)
    pyramid = staticmethod(pyramid)

    def __init__(
        self,
        inputs: Shape,
        outputs: int,
        image: Shape,
        channels: Sequence[int] | None = None,
        activation: type[nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        shape = image_shape(image)
        channels = pyramid(shape) if channels is None else channels
        check_outputs("ConvDecoder", outputs, shape)
        self.sizes = halvings(shape, len(channels))[::-1]
        self.start = nn.Linear(math.prod(as_shape(inputs)), channels[-1] * math.prod(self.sizes[0]))
        widths = [*reversed(channels), channels[0]]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.end = nn.Conv2d(channels[0], outputs // math.prod(shape[1:]), 3, padding=1)
        self.activation = activation()

    def forward(self, z: Tensor) -> Tensor:
        h = self.activation(self.start(z.flatten(1))).unflatten(1, (-1, *self.sizes[0]))
        for conv, size in zip(self.convs, self.sizes[1:], strict=True):
            h = self.activation(conv(interpolate(h, size=size)))
        out: Tensor = self.end(h)
        return out


class Planes(nn.Module):
    """An image with a context beside it, flat (N, C H W + Y), as the image that a convolution reads, (N, C + Y, H, W).

    Each number of the context is a plane of its own, the same at every pixel.
    """

    def __init__(self, image: Shape) -> None:
        super().__init__()
        self.image = image_shape(image)

    def forward(self, c: Tensor) -> Tensor:
        x, y = c.split([self.image.numel(), c.shape[1] - self.image.numel()], 1)
        planes = y[:, :, None, None].expand(-1, -1, *self.image[1:])
        return torch.cat([x.unflatten(1, tuple(self.image)), planes], 1)


def image_shape(shape: Shape) -> torch.Size:
    size = as_shape(shape)
    if len(size) != 3:
        raise ShapeError(
            f"A convolutional network needs images (C, H, W); the data have the shape {tuple(size)}. Use mlp."
        )
    return size


def check_image(network: str, image: torch.Size, x: Tensor) -> None:
    """Raise a `ShapeError` unless x (N, C, H, W) are images of this shape; rounded halves would hide a pixel."""
    if x.shape[1:] != image:
        raise ShapeError(f"{network} was built for images {tuple(image)}; got {tuple(x.shape[1:])}.")


def check_outputs(network: str, outputs: int, image: torch.Size) -> None:
    """Raise a `ShapeError` unless each pixel of an image (C, H, W) has as many outputs."""
    if outputs % (image[1] * image[2]):
        raise ShapeError(f"{network}: {outputs} outputs are not a multiple of the {image[1]} x {image[2]} pixels.")


def halvings(shape: Sequence[int], times: int) -> list[tuple[int, int]]:
    """(H, W), then each halved and rounded up, `times` over."""
    sizes = [(shape[1], shape[2])]
    for _ in range(times):
        h, w = sizes[-1]
        sizes.append(((h + 1) // 2, (w + 1) // 2))
    return sizes
