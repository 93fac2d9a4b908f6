"""What ladders are made of: layers of vectors with precision-weighted posteriors, and layers of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.nn.functional import interpolate

from aevb.errors import ShapeError
from aevb.models.conditional import Conditional
from aevb.models.ladder import Ladder, Rung
from aevb.models.networks import halvings, image_shape
from aevb.models.priors import StandardNormal
from aevb.models.shares import shared
from aevb.parts import LADDER, Offers, Part
from aevb.probability.families import Family, Normal, Shape, as_shape

# Vectors


class Climb(nn.Module):
    """d_0 = x, d_l = MLP_l(d_{l-1}): the pass up, whose features are (μ̂_l, log σ̂_l²) = linear(d_l), the top one
    first."""

    def __init__(self, steps: Sequence[nn.Module], heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.steps, self.heads = nn.ModuleList(steps), nn.ModuleList(heads)

    def forward(self, x: Tensor) -> list[Tensor]:
        features, d = [], x
        for step, head in zip(self.steps, self.heads, strict=True):
            d = step(d)
            features.append(head(d))
        return features[::-1]


class TopRung(Rung):
    """p(z_L) = N(0, I),  q(z_L|x) = N(μ̂, σ̂²)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.shape, self.family, self.p = as_shape(size), Normal(size), StandardNormal(size)

    def meet(self, h: Tensor, feature: Tensor | None) -> tuple[Distribution, Distribution | None, Tensor]:
        p = self.p().expand(h.shape[:1])
        return p, None if feature is None else self.family(feature), h

    def carry(self, h: Tensor, z: Tensor) -> Tensor:
        return z


class PreciseRung(Rung):
    """p(z_l|z_{l+1}) = N(μ_p, σ_p²) by a network, and q by the product of p and N(μ̂, σ̂²), which is what x says:

    σ⁻² = σ_p⁻² + σ̂⁻²,   μ = σ² (μ_p σ_p⁻² + μ̂ σ̂⁻²)      (arXiv 1602.02282, eq. 17 to 19)
    """

    def __init__(self, net: nn.Module, size: int) -> None:
        super().__init__()
        self.shape, self.net, self.family = as_shape(size), net, Normal(size)

    def meet(self, h: Tensor, feature: Tensor | None) -> tuple[Distribution, Distribution | None, Tensor]:
        p = self.family(shared(self.net, self.net, h))
        return p, None if feature is None else product(p, self.family(feature)), h

    def carry(self, h: Tensor, z: Tensor) -> Tensor:
        return z


def product(a: Distribution, b: Distribution) -> Distribution:
    """The normal ∝ a(z) b(z), of two that factorise."""
    exact_a, exact_b = 1 / a.variance, 1 / b.variance
    variance = 1 / (exact_a + exact_b)
    mean = variance * (a.mean * exact_a + b.mean * exact_b)
    return Independent(torch.distributions.Normal(mean, variance.sqrt(), validate_args=False), 1, validate_args=False)


def dense(inputs: int, width: int, activation: type[nn.Module], outputs: int | None = None) -> nn.Sequential:
    """Two hidden layers, h ← activation(norm(W h + b)), and W h + b to `outputs` if given."""
    layers: list[nn.Module] = [nn.Flatten()]
    for a in (inputs, width):
        layers += [nn.Linear(a, width), nn.LayerNorm(width), activation()]
    return nn.Sequential(*layers, *([] if outputs is None else [nn.Linear(width, outputs)]))


def vector_ladder(
    inputs: Shape,
    family: Family,
    latents: Sequence[int] = (32, 16, 8),
    hidden: Sequence[int] = (256, 128, 64),
    activation: type[nn.Module] = nn.LeakyReLU,
) -> Ladder:
    """The ladder VAE (Sønderby et al. 2016, arXiv 1602.02282), with layer normalisation in the place of batch
    normalisation.

    So the numbers of one data point do not depend on others, not even in training.

    Args:
        inputs: event shape of x.
        family: of p(x|z_1).
        latents: sizes of z_1, ..., z_L.
        hidden: width of layer l's networks, up and down, which have two hidden layers each.
        activation: the module between layers.
    """
    if not latents or len(latents) != len(hidden) or min(*latents, *hidden) < 1:
        raise ShapeError(
            f"vector_ladder: as many latents as hidden widths, at least 1; got {list(latents)} and {list(hidden)}."
        )
    widths = [as_shape(inputs).numel(), *hidden]
    steps = [dense(a, b, activation) for a, b in pairwise(widths)]
    climb = Climb(steps, [nn.Linear(w, Normal(size).size) for w, size in zip(hidden, latents, strict=True)])
    layers = list(zip(pairwise(latents), hidden, strict=False))[::-1]
    rungs = [PreciseRung(dense(above, w, activation, 2 * size), size) for (size, above), w in layers]
    decoder = Conditional(dense(latents[0], hidden[0], activation, family.size), family)
    return Ladder(climb, [TopRung(latents[-1]), *rungs], torch.zeros(1, 0), decoder)


# Images


def bottleneck(a: int, middle: int, b: int, kernel: int, last: float) -> nn.Sequential:
    """(N, a, H, W) → (N, b, H, W) by four convolutions, the last of which starts `last` times as large."""
    padding = kernel // 2
    layers = nn.Sequential(
        *(nn.GELU(), nn.Conv2d(a, middle, 1)),
        *(nn.GELU(), nn.Conv2d(middle, middle, kernel, padding=padding)),
        *(nn.GELU(), nn.Conv2d(middle, middle, kernel, padding=padding)),
        *(nn.GELU(), nn.Conv2d(middle, b, 1)),
    )
    with torch.no_grad():
        for p in layers[-1].parameters():
            p.mul_(last)
    return layers


class ImageClimb(nn.Module):
    """Residual blocks at each size of an image that is halved stage by stage; a feature for each rung, the top
    first."""

    def __init__(self, image: torch.Size, sizes: Sequence[tuple[int, int]], rungs: Sequence[int], width: int) -> None:
        super().__init__()
        self.image, self.sizes, self.rungs = image, sizes, rungs
        self.first = nn.Conv2d(image[0], width, 3, padding=1)
        scale = 1 / math.sqrt(len(sizes))
        self.blocks = nn.ModuleList(bottleneck(width, width // 2, width, _kernel(size), scale) for size in sizes)

    def forward(self, x: Tensor) -> list[Tensor]:
        if x.shape[1:] != self.image:
            raise ShapeError(f"The ladder was built for images {tuple(self.image)}; got {tuple(x.shape[1:])}.")
        h, features = self.first(x), []
        for block, size, count in zip(self.blocks, self.sizes, self.rungs, strict=True):
            h = nn.functional.adaptive_avg_pool2d(h, size)
            h = h + block(h)
            features += [h] * count
        return features[::-1]


class ImageRung(Rung):
    """A layer of a residual path down through images (Child 2020, arXiv 2011.10650): (C, H, W) latents.

        (φ_p, r) = f_p(h),   φ_q = f_q(h, feature),   h ← h + r + V z,   h ← h + f(h)

    Args:
        width: channels of the state h.
        channels: C.
        size: (H, W); a state of another size is enlarged, and given a learned offset, before.
        enlarge: whether it is.
        depth: L, of the ladder; what is added to the state starts 1/√L times as large.
    """

    def __init__(self, width: int, channels: int, size: tuple[int, int], enlarge: bool, depth: int) -> None:
        super().__init__()
        self.shape, self.size, scale = torch.Size((channels, *size)), size, 1 / math.sqrt(depth)
        self.family, middle, kernel = Normal(self.shape), width // 2, _kernel(size)
        self.offset = nn.Parameter(torch.zeros(width, *size)) if enlarge else None
        self.p = bottleneck(width, middle, 2 * channels + width, kernel, 0.0)  # starts at N(0, I)
        self.q = bottleneck(2 * width, middle, 2 * channels, kernel, 1.0)
        self.back = nn.Conv2d(channels, width, 1)
        self.block = bottleneck(width, middle, width, kernel, scale)
        with torch.no_grad():
            self.back.weight.mul_(scale)

    def meet(self, h: Tensor, feature: Tensor | None) -> tuple[Distribution, Distribution | None, Tensor]:
        if self.offset is not None:
            h = interpolate(h, size=self.size) + self.offset
        phi, more = shared(self.p, self.p, h).split([2 * self.shape[0], h.shape[1]], 1)
        q = None if feature is None else self.family(self._q(torch.cat([h, feature], 1)).flatten(1))
        return self.family(phi.flatten(1)), q, h + more

    def _q(self, c: Tensor) -> Tensor:
        return shared(self.q, self.q, c)  # type: ignore[no-any-return]

    def carry(self, h: Tensor, z: Tensor) -> Tensor:
        return shared(self, self._carry, h, z, dims=(0, 0))  # type: ignore[no-any-return]

    def _carry(self, h: Tensor, z: Tensor) -> Tensor:
        h = h + self.back(z)
        return h + self.block(h)  # type: ignore[no-any-return]


class _Picture(nn.Module):
    """The state at the end (N, width, H', W') → (N, outputs / (H W), H, W)."""

    def __init__(self, width: int, outputs: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.conv = size, nn.Conv2d(width, outputs // math.prod(size), 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.conv(nn.functional.gelu(interpolate(h, size=self.size)))
        return out


def image_ladder(
    inputs: Shape, family: Family, rungs: Sequence[int] = (1, 2, 2, 1), width: int = 32, channels: int = 4
) -> Ladder:
    """A small very deep VAE (Child 2020, arXiv 2011.10650): latents from the coarsest size of an image up to its own.

    Args:
        inputs: (C, H, W) of x.
        family: of p(x|z), over x.
        rungs: how many layers of latents at each size: the image's, then halved each time. For 28 × 28 pixels (1, 2, 2,
            1) means one at 28, two at 14, two at 7 and one at 4, where the pass begins.
        width: channels of the states.
        channels: of a layer of latents.
    """
    image = image_shape(inputs)
    if not rungs or min(rungs) < 0 or rungs[-1] < 1 or min(width // 2, channels) < 1:
        got = f"{list(rungs)}, {width} and {channels}"
        raise ShapeError(
            f"image_ladder: rungs of at least 0, the last at least 1, a width of 2 or more, and channels; got {got}."
        )
    sizes = halvings(image, len(rungs) - 1)
    path = [(size, i == 0) for size, count in zip(sizes[::-1], rungs[::-1], strict=True) for i in range(count)]
    steps = [ImageRung(width, channels, size, first, len(path)) for size, first in path]
    decoder = Conditional(_Picture(width, family.size, sizes[0]), family)
    return Ladder(ImageClimb(image, sizes, rungs, width), steps, torch.zeros(1, width, 1, 1), decoder)


def _kernel(size: tuple[int, int]) -> int:
    return 3 if min(size) > 2 else 1


INSTEAD = ("latent", "prior", "posterior", "chain", "encoder", "decoder", "context")  # tables that a ladder replaces
PARTS = (
    Part(
        "mlp",
        (LADDER,),
        vector_ladder,
        "prior       p(z) = N(z_L; 0, I) Π_l N(z_l; μ_l, σ_l²),  (μ_l, log σ_l²) = net of z_(l+1)\n"
        "posterior   q(z|x) = N(z_L; μ̂_L, σ̂_L²) Π_l q(z_l|z_(l+1), x),  q ∝ N(z_l; μ_l, σ_l²) N(z_l; μ̂_l, σ̂_l²)\n"
        "ladder      {latents} latents of z_1, ..., z_L;  (μ̂_l, log σ̂_l²) = W d_l + b, d_l = net of d_(l-1), d_0 = x\n"
        "nets        h ← {activation}(norm(W h + b)), two layers, of widths {hidden};  h = z_1 at the end",
        Offers(instead=INSTEAD),
    ),
    Part(
        "conv",
        (LADDER,),
        image_ladder,
        "prior       p(z) = Π_l N(z_l; μ_l, σ_l²),  (μ_l, log σ_l², r) = f_l(h),  h ← h + r + V z_l, h ← h + net(h)\n"
        "posterior   q(z|x) = Π_l N(z_l; μ̂_l, σ̂_l²),  (μ̂_l, log σ̂_l²) = f̂_l(h, d_l),"
        "  d_l of the same size by blocks from x up\n"
        "ladder      from the coarsest size down to the image: {rungs} layers at 1, "
        "1/2, 1/4, ... of it, {channels} channels\n"
        "nets        h + K ∗ gelu(K ∗ gelu(K ∗ gelu(K ∗ gelu(h)))), {width} channels",
        Offers(instead=INSTEAD),
    ),
)
