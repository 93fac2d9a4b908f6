"""A model as functions of tensors alone: encoder, decoder and sampler, each with a batch of any size.

What a distribution is goes out as its parameters, by name: `mean`, and `loc` and `scale` of a normal, `logits` of a
Bernoulli, and so on. The sampler draws nothing: its noise comes in, standard normal, so that it is a function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, normal

from aevb.errors import AevbError
from aevb.models.inference import evaluation_mode
from aevb.models.ladder import Ladder
from aevb.probability.columns import ProductOfColumns
from aevb.probability.distributions import Levels
from aevb.probability.joint import join_layers, split_layers

PARAMETERS: tuple[str, ...] = (
    *("loc", "scale", "scale_tril", "df", "logits", "rate", "total_count", "kappa", "log_share"),
    *("concentration", "concentration0", "concentration1"),
)
NORMALS: Any = normal  # the module of PyTorch where normals take their noise
BATCH = 3  # rows of the example that is followed
EXAMPLE = 0.25  # a number that every likelihood's encoder takes


class Unfit(AevbError):
    """A part of a model is no function of tensors."""


def parameters(p: Distribution) -> dict[str, Tensor]:
    """The mean and the parameters of a distribution, by name; of a table those of each group of columns."""
    found = {"mean": p.mean}
    if isinstance(p, ProductOfColumns):
        for i, group in enumerate(p.groups):
            found |= {f"{name}_{i}": x for name, x in _own(group.cells).items()}
        return found
    return found | _own(p)


def _own(p: Any) -> dict[str, Tensor]:
    while isinstance(p, Independent):
        p = p.base_dist
    p = p.base if isinstance(p, Levels) else p
    given = {name: p.__dict__[name] for name in PARAMETERS if name in p.__dict__}
    given |= {"logits": p.logits} if not given and "probs" in p.__dict__ else {}
    return {name: x for name, x in given.items() if isinstance(x, Tensor) and x.ndim > 1}  # of each row its own


class Encoder(nn.Module):
    """x (B, *X), and perhaps y (B, C) → the parameters of q(z|x)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def found(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """By name."""
        # by the parts, not `model.posterior`, whose checks of the numbers no exported program can make
        if isinstance(self.model, Ladder):
            return down(self.model, lambda _, p: p.mean, x.shape[0], self.model.up(x))[0]
        return parameters(self.model.encoder(x, *(() if y is None else (y,))))

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, ...]:
        return tuple(self.found(x, y).values())


class Decoder(nn.Module):
    """z (B, *Z), and perhaps y (B, C) → the parameters of p(x|z)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def found(self, z: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """By name."""
        if isinstance(self.model, Ladder):
            layers = split_layers(z, self.model.shapes)
            return parameters(down(self.model, lambda l, _: layers[l], z.shape[0])[1])
        return parameters(self.model.decode(z, y))

    def forward(self, z: Tensor, y: Tensor | None = None) -> tuple[Tensor, ...]:
        return tuple(self.found(z, y).values())


class Sampler(nn.Module):
    """noise (B, D) ~ N(0, I), and perhaps y (B, C) → z ~ p(z), (B, *Z), and the parameters of p(x|z)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def found(self, noise: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """By name.

        Raises:
            Unfit: draws of the prior are no function of as many standard normal numbers.
        """
        with noise_from(noise) as taken:
            z = self._drawn(noise, y)
        if taken[0] != noise.shape[1]:
            raise Unfit("The prior is not made of standard normal numbers.")
        return {"z": z, **Decoder(self.model).found(z, y)}

    def _drawn(self, noise: Tensor, y: Tensor | None) -> Tensor:
        if isinstance(self.model, Ladder):
            return down(self.model, lambda _, p: p.rsample(), noise.shape[0])[0]["mean"]
        p = self.model.prior() if y is None else self.model.prior(y)
        if not p.has_rsample:
            raise Unfit("Draws from the prior are not a function of noise.")
        z: Tensor = p.rsample(() if p.batch_shape else noise.shape[:1])
        return z

    def forward(self, noise: Tensor, y: Tensor | None = None) -> tuple[Tensor, ...]:
        return tuple(self.found(noise, y).values())


def down(
    model: Ladder, choose: Callable[[int, Distribution], Tensor], n: int, features: Any = None
) -> tuple[dict[str, Tensor], Distribution]:
    """One pass down a ladder: all layers side by side as `mean` with the parameters of each q, and p(x|z)."""
    found = model.descend(choose, n, features)
    names = {"mean": join_layers(found.z, model.shapes)}
    for l, q in enumerate(found.q, 1):
        names |= {f"{name}_{l}": x for name, x in _own(q).items()}
    p: Distribution = model.decoder(found.h)
    return names, p


@contextmanager
def noise_from(noise: Tensor) -> Iterator[list[int]]:
    """Let normals take their noise from (B, D), number after number; gives how many of the D were taken."""
    taken, usual = [0], NORMALS._standard_normal

    def given(shape: torch.Size, *_: Any, **__: Any) -> Tensor:
        size = int(torch.Size(shape[1:]).numel())
        part = noise[:, taken[0] : taken[0] + size]
        taken[0] += size
        return part.reshape(-1, *shape[1:])

    NORMALS._standard_normal = given
    try:
        yield taken
    finally:
        NORMALS._standard_normal = usual


@dataclass(frozen=True)
class Function:
    """A part of a model, ready to be exported.

    Attributes:
        name: of the part; module: takes the inputs, gives a tuple.
        inputs: examples by name, (B, ...); outputs: names.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: Sequence[str]

    def exported(self) -> Any:
        """The program, with a batch of any size.

        Raises:
            Unfit: PyTorch cannot follow the part.
        """
        dims = tuple({0: torch.export.Dim.DYNAMIC} for _ in self.inputs)
        try:
            with torch.no_grad():
                return torch.export.export(self.module, tuple(self.inputs.values()), dynamic_shapes=dims, strict=False)
        except Exception as error:  # of any kind: the network may be a user's own
            reason = str(error).strip().partition("\n")[0]
            raise Unfit(f"PyTorch cannot export it: {reason or type(error).__name__}") from error

    def about(self) -> dict[str, Any]:
        """Names and shapes, for JSON."""
        shapes = {name: ["batch", *x.shape[1:]] for name, x in self.inputs.items()}
        return {"inputs": shapes, "outputs": list(self.outputs)}


def functions(model: Any, shape: Sequence[int], classes: int = 0) -> tuple[list[Function], dict[str, str]]:
    """Encoder, decoder and sampler of a model, and why one of them is left out.

    Args:
        shape: X; classes: C, of a conditional model.
    """
    size = model.latent_shape.numel()
    inputs = {
        "encoder": (Encoder(model), {"x": torch.full((BATCH, *shape), EXAMPLE)}),
        "decoder": (Decoder(model), {"z": torch.zeros(BATCH, *model.latent_shape)}),
        "sampler": (Sampler(model), {"noise": torch.zeros(BATCH, size)}),
    }
    y = {"y": torch.eye(classes)[torch.arange(BATCH) % classes]} if classes else {}
    made, left = [], {}
    part: Any
    for name, (part, given) in inputs.items():
        try:
            with torch.no_grad(), evaluation_mode(model):
                outputs = list(part.found(*given.values(), *y.values()))
            made.append(Function(name, part, {**given, **y}, outputs))
        except (Unfit, NotImplementedError) as error:
            left[name] = str(error)
    return made, left
