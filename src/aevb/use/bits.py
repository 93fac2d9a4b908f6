"""The stack of bits: entropy coding by asymmetric numeral systems, with the library constriction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Distribution

from aevb.errors import RecipeError
from aevb.use.container import Words
from aevb.use.symbols import Alphabet, Symbols, steady

Floats = NDArray[np.float64]
Normals = tuple[Floats, Floats]  # means and scales, in steps of the grid
FUEL = 8  # words given at a time to a coder that has too few
LARGEST = 2.0**30  # mean or scale of a latent
LEAST = 3  # words that a coder must keep: of fewer it may have used more bits than it had
BYTES = 8  # of a count that has no place in its table, at most


@cache
def library() -> Any:
    """constriction.stream.

    Raises:
        RecipeError: it is not installed.
    """
    try:
        import constriction
    except ImportError as error:
        raise RecipeError(
            "Compression needs constriction, which is not installed. Run: pip install constriction (the extra"
            " aevb[compress])."
        ) from error
    return constriction.stream


@dataclass(frozen=True)
class Grid:
    """The points at which z is coded: k 2^exponent, k = -reach, ..., reach."""

    exponent: int
    reach: int

    @property
    def step(self) -> float:
        return 2.0**self.exponent

    def normals(self, p: Distribution, n: int) -> Normals:
        """Mean and scale of each latent of a diagonal normal, of n rows, (n·D)."""
        shape, (mean, scale) = torch.Size((n, *p.event_shape)), finite(p)
        mean, scale = steady(mean / self.step), torch.exp2(steady(torch.log2(scale / self.step)))
        return mean.expand(shape).flatten().numpy().copy(), scale.expand(shape).flatten().numpy().copy()


def finite(p: Distribution) -> tuple[Tensor, Tensor]:
    """Mean and scale of a normal; where a network gives no numbers, others, with which rows still come back."""
    mean, scale = p.mean.nan_to_num(0.0), p.stddev.nan_to_num(1.0)
    return mean.clamp(-LARGEST, LARGEST), scale.clamp(1 / LARGEST, LARGEST)


@cache
def fuel(words: int) -> Words:
    """The words that a coder begins with, the lowest first: the same in every file."""
    drawn = np.random.RandomState(0).randint(0, 2**32, words, dtype=np.uint64)
    return (drawn[::-1] | 1).astype(np.uint32)  # the top word of a coder is never 0


class Stack:
    """Bits, of which symbols are put on top and taken off again in the reverse order."""

    def __init__(self, grid: Grid, alphabet: Alphabet, words: Words | None = None) -> None:
        self.stream = library()
        self.coder = self.stream.stack.AnsCoder() if words is None else self.stream.stack.AnsCoder(words)
        self.alphabet, self.fuel = alphabet, 0
        self.latents = self.stream.model.QuantizedGaussian(-grid.reach, grid.reach)
        self.table = self.stream.model.Categorical(perfect=False)
        self.length, self.byte = self.stream.model.Uniform(BYTES), self.stream.model.Uniform(256)

    @property
    def words(self) -> Words:
        found: Words = self.coder.get_compressed()
        return found

    def take(self, q: Normals) -> Symbols | None:
        """Latents drawn from q by the bits on the stack; None, and nothing taken, where these are too few."""
        coder = self.coder.clone()
        k: Symbols = coder.decode(self.latents, *q).astype(np.int64)
        if coder.num_words() < LEAST:
            return None
        self.coder = coder
        return k

    def refuel(self) -> None:
        """Put more words beneath all others, as if they had been there from the beginning."""
        self.fuel += FUEL
        added = fuel(self.fuel)[:FUEL]
        self.coder = self.stream.stack.AnsCoder(np.concatenate([added, self.words]))

    def put_latents(self, k: Symbols, p: Normals) -> None:
        self.coder.encode_reverse(k.astype(np.int32), self.latents, *p)

    def get_latents(self, p: Normals) -> Symbols:
        found: Symbols = self.coder.decode(self.latents, *p).astype(np.int64)
        return found

    def put(self, k: Symbols, px: Distribution) -> None:
        """Numbers k (B·X) under p(x|z)."""
        table, first = self.alphabet.table(px)
        places = k - first
        others = (places < 0) | (places >= self.alphabet.size)
        if others.any():
            lengths, digits = split(k[others])
            self.coder.encode_reverse(digits, self.byte)
            self.coder.encode_reverse(lengths - 1, self.length)
            places = np.where(others, self.alphabet.size, places)
        self.coder.encode_reverse(places.astype(np.int32), self.table, table)

    def get(self, px: Distribution) -> Symbols:
        """Numbers k (B·X) under p(x|z)."""
        table, first = self.alphabet.table(px)
        places: Symbols = self.coder.decode(self.table, table).astype(np.int64)
        k: Symbols = places + first
        others = places == self.alphabet.size
        if others.any():
            lengths = self.coder.decode(self.length, int(others.sum())) + 1
            k[others] = joined(lengths, self.coder.decode(self.byte, int(lengths.sum())))
        return k


def split(k: Symbols) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Whole numbers (n) as bytes: how many each takes, (n), and these, the lowest first, one number after another."""
    digits = np.ascontiguousarray(k, "<i8").view(np.uint8).reshape(-1, BYTES)
    lengths = BYTES - np.argmax(digits[:, ::-1] > 0, 1)
    lengths = np.where(k == 0, 1, lengths)
    return lengths.astype(np.int32), digits[np.arange(BYTES) < lengths[:, None]].astype(np.int32)


def joined(lengths: NDArray[np.int32], digits: NDArray[np.int32]) -> Symbols:
    """The whole numbers (n) that `split` took apart."""
    found = np.zeros((len(lengths), BYTES), np.uint8)
    found[np.arange(BYTES) < lengths[:, None]] = digits
    return found.view("<i8").reshape(-1).astype(np.int64)


def blocks(counts: list[int], n: int) -> Iterator[slice]:
    """n rows in blocks: so many of 1 row, of 2, of 4, ...; the last one ends with the rows."""
    start = 0
    for power, count in enumerate(counts):
        for _ in range(count):
            yield slice(start, min(n, start := start + 2**power))
