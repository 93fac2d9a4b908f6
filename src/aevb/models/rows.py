"""Random draws for scores: the noise of a row depends on the row, the model and the seed, never on other rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.overrides import TorchFunctionMode

from aevb.data.batch import Batch
from aevb.data.randomness import derive, seeded
from aevb.data.streams import hashes, normals, uniforms
from aevb.models.trace import draw

BELOW_ONE = 1 - 2.0**-24  # the largest float32 below 1
BLOCK = 256  # samples of a row that are drawn from one stream; more samples take further streams

Posterior = Callable[[Batch], Distribution]  # a batch → q(z|x), batch (B)


@dataclass(frozen=True)
class Group:
    """Data points with their posteriors, and where their random numbers come from.

    Attributes:
        batch: B data points; q: their q(z|x), batch (B); seeds: of B streams, one for each row, or of one for all.
        apart: whether z of each row is drawn from a stream of its own; else one generator draws all.
    """

    batch: Batch
    q: Distribution
    seeds: list[int]
    apart: bool = True

    def draw(self, samples: int, block: int = 0) -> Tensor:
        """z ~ q(z|x), (K, B, *Z), from block `block` of the streams."""
        if not self.apart:
            with seeded(derive(self.seeds[0], block), self.batch.x.device):
                return draw(self.q, samples)
        if not is_diagonal(self.q):
            with OfRows(self.seeds, samples, block):
                return draw(self.q, samples)
        mean = self.q.mean
        noise = normals(self.seeds, samples, self.q.event_shape.numel(), "block", block, device=mean.device)
        return mean + self.q.stddev * noise.reshape(samples, len(self.seeds), *self.q.event_shape).to(mean)

    def blocks(self, samples: int, first: int = 0) -> Iterator[Tensor]:
        """z ~ q(z|x) in blocks (K', B, *Z), `samples` in all, from block `first` of the streams on."""
        for i, start in enumerate(range(0, samples, BLOCK), first):
            yield self.draw(min(BLOCK, samples - start), i)

    def uniform(self, samples: int, columns: int, purpose: str) -> Tensor:
        """u ~ U(0, 1), (K, B, `columns`), float32, from streams of these rows for one purpose."""
        device = self.batch.x.device
        u = uniforms(self.seeds, samples, len(self.batch) // len(self.seeds) * columns, purpose, device=device)
        return u.float().clamp(max=BELOW_ONE).reshape(samples, len(self.batch), columns).to(device)


class OfRows(TorchFunctionMode):
    """Inside of the block, normal and uniform numbers of shape (K, B, ...) are of streams of B rows, one for each.

    Whatever draws them: flows, layers of a hierarchy, distributions of PyTorch. Other draws are left as they are.
    """

    def __init__(self, seeds: list[int], samples: int, block: int = 0) -> None:
        super().__init__()
        self.seeds, self.samples, self.block, self.count = seeds, samples, block, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        drawn = None if "generator" in kwargs else self.drawn(func, args, kwargs)
        return func(*args, **kwargs) if drawn is None else drawn

    def drawn(self, func: Any, args: Any, kwargs: Any) -> Tensor | None:
        """What a call draws of shape (K, B, ...); None of any other call."""
        if func in FRESH:
            blank, law = FRESH[func]
            x: Tensor = blank(*args, **kwargs)
            return self.filled(x, law) if self.of_rows(x) else None
        if func in LAWS and self.of_rows(args[0]):
            law, of = LAWS[func]
            x = args[0]
            return x.copy_(of(self.filled(x, law), *args[1:], **kwargs))
        if func is torch.normal and not kwargs and self.of_rows(args[0]):
            mean, std = args
            found: Tensor = mean + std * self.filled(mean, normals)
            return found
        return None

    def of_rows(self, x: Tensor) -> bool:
        return tuple(x.shape[:2]) == (self.samples, len(self.seeds)) and x.is_floating_point()

    def filled(self, x: Tensor, law: Callable[..., Tensor]) -> Tensor:
        """Numbers of the shape of x, from the next part of each row's stream."""
        self.count += 1
        size, path = math.prod(x.shape[2:]), ("draw", self.block, self.count)
        numbers = law(self.seeds, self.samples, size, *path, device=x.device).to(x)
        return (numbers if law is normals else numbers.clamp_(max=1 - torch.finfo(x.dtype).eps / 2)).reshape(x.shape)


FRESH: dict[Any, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    torch.randn: (torch.empty, normals),
    torch.rand: (torch.empty, uniforms),
    torch.randn_like: (torch.empty_like, normals),
    torch.rand_like: (torch.empty_like, uniforms),
}
LAWS: dict[Any, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    torch.Tensor.normal_: (normals, lambda e, mean=0.0, std=1.0: mean + std * e),
    torch.Tensor.uniform_: (uniforms, lambda u, low=0.0, high=1.0: low + (high - low) * u),
    torch.Tensor.exponential_: (uniforms, lambda u, rate=1.0: -torch.log1p(-u) / rate),
}


class RowNoise:
    """Noise for chains (*C, B, D) of B rows, each row's from a generator of its own."""

    def __init__(self, seeds: list[int]) -> None:
        self.generators = [torch.Generator().manual_seed(derive(seed, "chain")) for seed in seeds]

    def normal(self, like: Tensor) -> Tensor:
        """ε ~ N(0, I), of the shape and type of z (*C, B, D)."""
        return self._each(like.shape, like, lambda row, g: row.normal_(generator=g))

    def uniform(self, like: Tensor) -> Tensor:
        """u ~ U(0, 1), one for each chain, (*C, B)."""
        return self._each((*like.shape[:-1], 1), like, lambda row, g: row.uniform_(generator=g)).squeeze(-1)

    def _each(self, shape: Sequence[int], like: Tensor, fill: Callable[[Tensor, torch.Generator], object]) -> Tensor:
        noise = torch.empty(shape[-2], *shape[:-2], shape[-1], dtype=like.dtype)
        for row, generator in zip(noise, self.generators, strict=True):
            fill(row, generator)
        return noise.movedim(0, -2).to(like.device)


Groups = Callable[[Posterior, Batch, int], Iterator[Group]]


def by_row(posterior: Posterior, batch: Batch, seed: int) -> Iterator[Group]:
    """The batch in groups that each row's noise does not depend on: whole, or row by row where draws mix the rows."""
    seeds, q = row_seeds(batch, seed), posterior(batch)
    if is_diagonal(q) or drawn_apart(q, seeds, batch.x.device):
        yield Group(batch, q, seeds)
        return
    for i, own in enumerate(seeds):
        row = batch[i : i + 1]
        yield Group(row, posterior(row), [own], apart=False)


@torch.no_grad()
def drawn_apart(q: Distribution, seeds: list[int], device: torch.device) -> bool:
    """Whether all random numbers of a z ~ q(z|x) can be of streams of the rows: no generator is used beside them."""
    with seeded(0, device):
        with OfRows(seeds, 1):
            draw(q, 1)
        after = torch.rand((), device=device)
    with seeded(0, device):
        return torch.equal(after, torch.rand((), device=device))


def by_batch(posterior: Posterior, batch: Batch, seed: int) -> Iterator[Group]:
    """The batch as one group with one stream: faster, where scores need not be compared row by row."""
    yield Group(batch, posterior(batch), row_seeds(batch[:1], seed), apart=False)


def row_seeds(batch: Batch, seed: int) -> list[int]:
    """A seed for each row, from its content: the numbers of x and of y."""
    parts = [part.detach().cpu().flatten(1).to(torch.float64) for part in (batch.x, *batch.contexts)]
    return hashes(torch.cat(parts, 1).contiguous().numpy(), seed, "row")


def is_diagonal(q: Distribution) -> bool:
    """Whether q is a diagonal normal, of which all rows can be drawn at once, each from a stream of its own."""
    return isinstance(q, Independent) and type(q.base_dist) is Normal
