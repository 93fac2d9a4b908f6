"""Lossless compression by bits-back coding: BB-ANS (Townsend, Bird & Barber 2019, arXiv 1901.04866).

A row x costs -L(x) / log 2 bits, L its evidence lower bound. On a stack of bits

    z ~ q(z|x)    is taken off the stack      + log q(z|x)
    x             is put on it by p(x|z)      - log p(x|z)
    z             is put on it by p(z)        - log p(z)

and to decompress these three are undone in the reverse order, which gives the bits of the first step back. z is coded
on a grid that is fine beside the scales of q. Both sides must compute the same frequencies to the last digit: networks
run in float64 on the CPU, in one thread, over the same blocks of rows, and what they give is rounded.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from aevb.data.batch import Batch, Indexable, rows_at_once
from aevb.data.walk import Counter
from aevb.errors import DataError
from aevb.models.checks import likelihood_batches
from aevb.models.compat import member, members
from aevb.models.inference import Model, fitting, inference
from aevb.parts import LIKELIHOOD, Member, Needs, Support, check
from aevb.probability.offers import support_text
from aevb.use.bits import Grid, Normals, Stack, blocks, finite, library
from aevb.use.container import Header, fingerprint, pack, unpack
from aevb.use.symbols import NUMBERS, Alphabet, Symbols

ROWS = 64  # in a block at most
FINE = 4.0  # steps of the grid in a small scale of q
SMALL = 0.01  # the share of the scales that may be smaller
EXPONENTS = -20, 0  # of the step of the grid
REACH = 8.0, 64.0  # how far the grid goes, at least and at most
POINTS = 2**15  # of the grid on either side of 0
NEEDS = Needs(diagonal=True, diagonal_prior=True, tabled=True, single=True)


class Trained(Protocol):
    """What has a trained model, such as a `Run`."""

    def model(self, device: str = "cpu") -> Any: ...


def compress(model: Model | Trained, data: Indexable) -> bytes:
    """Compress rows to bytes, from which `decompress` returns them bit for bit.

    Their number is that of -ELBO nats, where all rows are summed, and about 250 bytes more. Needs constriction: `pip
    install aevb[compress]`.

    Args:
        model: trained, with N(μ, diag σ²) as q(z|x) and p(z), and a likelihood of single numbers that are binary,
            levels, categories or counts; or a `Run` of one.
        data: x (N, *X), as of `aevb.encode`; dynamic pixels are those of `Split.frozen`.

    Returns:
        The bytes of a file: header, checksum, fingerprints of model and rows, and the words of the coder.

    Raises:
        DataError: there are no rows, they are outside of the likelihood's support, or have conditions y.
        RecipeError: the parts of the model do not support compression.
    """
    library()  # at once, where it is missing
    trained = _model_of(model)
    data = fitting(trained, data)
    with exact(trained) as same:
        x = _rows(same, trained, data)
        coder = Coder(same, x[:1])
        coder.settle(x)
        symbols = coder.alphabet.symbols(x, coder.px)
        stack = Stack(coder.grid, coder.alphabet)
        counts = coder.push(stack, symbols, x.dtype)
    header = Header(
        n=len(x),
        shape=list(x.shape[1:]),
        dtype=str(x.dtype).removeprefix("torch."),
        values=support_text(coder.px),
        model=fingerprint(cast(nn.Module, trained).state_dict()),
        content=_content(symbols),
        exponent=coder.grid.exponent,
        reach=coder.grid.reach,
        window=coder.alphabet.size,
        moving=coder.alphabet.moving,
        blocks=counts,
    )
    return pack(header, stack.words)


def decompress(model: Model | Trained, packed: bytes) -> Tensor:
    """The rows that `compress` made bytes of, by the same model.

    Args:
        model: the same one, or its `Run`.
        packed: the bytes.

    Returns:
        x (N, *X), on the CPU, in the type that `compress` read them in.

    Raises:
        DataError: the bytes are damaged, of another version or of another model; or this machine computes other
            numbers.
    """
    trained = _model_of(model)
    header, words = unpack(packed)
    header.check({"model": fingerprint(cast(nn.Module, trained).state_dict())})
    dtype = getattr(torch, header.dtype)
    with exact(trained) as same:
        coder = Coder(same, torch.zeros(1, *header.shape, dtype=dtype))
        header.check({"shape": list(coder.px.event_shape), "values": support_text(coder.px)})
        coder.grid = Grid(header.exponent, header.reach)
        coder.alphabet = replace(coder.alphabet, size=header.window, moving=header.moving)
        stack = Stack(coder.grid, coder.alphabet, words)
        symbols = coder.pull(stack, header, dtype)
    header.check({"content": _content(symbols)})
    return coder.alphabet.numbers(symbols, dtype)


class Coder:
    """p(z), q(z|x) and p(x|z) of a model as frequencies, and the order of what is coded.

    Attributes:
        px: p(x|z) at the code of the first row.
        grid: of z.
        alphabet: of x.
    """

    def __init__(self, model: Model, x: Tensor) -> None:
        """
        Args:
            x: (1, *X), a row.

        Raises:
            RecipeError: the parts of the model do not support compression.
        """
        trace = model.trace(Batch(x.double()))
        self.model, self.px, self.prior = model, model.decode(trace.z[0]), trace.p
        likelihood = member(LIKELIHOOD, getattr(model, "decoder", None), self.px)
        others = [part for part in members(cast(nn.Module, model), trace) if part.role != LIKELIHOOD]
        check([*others, likelihood, Member("", "bits-back coding", needs=NEEDS)])
        self.support: Support | None = likelihood.offers.support
        self.grid, self.alphabet = Grid(0, 1), Alphabet.of(self.px, self.support, x)

    def settle(self, x: Tensor) -> None:
        """Choose the alphabet of all rows x (N, *X), and a grid that suits their posteriors."""
        self.alphabet = Alphabet.of(self.px, self.support, x)
        small, far = math.inf, REACH[0]
        for part in x.split(rows_at_once(x.shape[1:])):
            mean, scale = finite(self.posterior(part))
            small = min(small, float(scale.flatten().kthvalue(1 + int(SMALL * scale.numel())).values))
            far = max(far, float((mean.abs() + 4 * scale).max()))
        far = min(far, REACH[1])
        exponent = int(np.clip(math.floor(math.log2(small / FINE)), *EXPONENTS))
        exponent = max(exponent, math.ceil(math.log2(far / POINTS)))
        self.grid = Grid(exponent, math.ceil(far / 2.0**exponent))

    @property
    def most(self) -> int:
        """Rows of a block at most, a power of 2: as many as their tables take little memory for."""
        rows = NUMBERS // max(1, self.px.event_shape.numel() * self.alphabet.columns)
        return int(2 ** math.floor(math.log2(min(ROWS, max(1, rows)))))

    def posterior(self, x: Tensor) -> Distribution:
        """q(z|x) of rows x (B, *X)."""
        return self.model.posterior(Batch(x.double()))

    def given(self, k: Symbols, n: int) -> Distribution:
        """p(x|z) of latents k (n·D) on the grid."""
        z = torch.from_numpy(k).double().view(n, *self.prior.event_shape) * self.grid.step
        return self.model.decode(z)

    def push(self, stack: Stack, symbols: Symbols, dtype: torch.dtype) -> list[int]:
        """Rows (N, *X) onto a stack; the number of blocks of 1, 2, 4, ... rows.

        Blocks grow as the stack does, since the bits that the first step of a block takes must be there.
        """
        counts, start, count = [0], 0, Counter(len(symbols))
        while start < len(symbols):
            block, z = self._taken(stack, symbols[start:], len(counts) - 1, dtype)
            stack.put(block.reshape(-1), self.given(z, len(block)))
            stack.put_latents(z, self.grid.normals(self.prior, len(block)))
            counts.extend([0] * (len(block) > 2 ** (len(counts) - 1)))
            counts[-1] += 1
            start += len(block)
            count(len(block))
        return counts

    def _taken(self, stack: Stack, rest: Symbols, power: int, dtype: torch.dtype) -> tuple[Symbols, Symbols]:
        """The next rows and their latents: 2^(power + 1) where there are so many and the bits for them, else
        2^power."""
        larger = [2 ** (power + 1)] * (2 ** (power + 1) <= min(self.most, len(rest)))
        while True:
            for rows in (*larger, 2**power):
                block = rest[:rows]
                z = stack.take(self._latents(block, dtype))
                if z is not None:
                    return block, z
            stack.refuel()

    def _latents(self, block: Symbols, dtype: torch.dtype) -> Normals:
        """q(z|x) of rows."""
        return self.grid.normals(self.posterior(self.alphabet.numbers(block, dtype)), len(block))

    def pull(self, stack: Stack, header: Header, dtype: torch.dtype) -> Symbols:
        """The rows (N, *X) off a stack, the last block first."""
        found = np.zeros((header.n, *header.shape), dtype=np.int64)
        count = Counter(header.n)
        for place in reversed(list(blocks(header.blocks, header.n))):
            n = place.stop - place.start
            z = stack.get_latents(self.grid.normals(self.prior, n))
            found[place] = stack.get(self.given(z, n)).reshape(n, *header.shape)
            stack.put_latents(z, self._latents(found[place], dtype))
            count(n)
        return found


@contextmanager
def exact(model: Model) -> Iterator[Model]:
    """A copy of a model that computes the same numbers at every call: in float64 on the CPU, in one thread."""
    same, threads = copy.deepcopy(cast(nn.Module, model)).to("cpu", torch.float64), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with inference(cast(Model, same), 0):
            yield cast(Model, same)
    finally:
        torch.set_num_threads(threads)


def _model_of(model: Model | Trained) -> Model:
    return cast(Model, model if isinstance(model, nn.Module) else cast(Trained, model).model())


def _rows(same: Model, trained: Model, data: Indexable) -> Tensor:
    """All rows x (N, *X) on the CPU, checked."""
    with inference(trained, 0):
        found: Sequence[Batch] = list(likelihood_batches(trained, data))
    if any(batch.y is not None for batch in found):
        raise DataError("The rows have conditions y, which a compressed file does not hold. Compress without labels.")
    return torch.cat([batch.x.cpu() for batch in found])


def _content(symbols: Symbols) -> str:
    """The fingerprint of rows: 16 hexadecimal digits."""
    return hashlib.blake2b(np.ascontiguousarray(symbols, "<i8").tobytes(), digest_size=8).hexdigest()
