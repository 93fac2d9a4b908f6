"""Fingerprints of rows: 16 hexadecimal digits of the SHA-256 of their numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from aevb.data.pieces import step
from aevb.data.walk import passed


class Hasher:
    """Hashes of rows (N, *X) that pass by part by part, in their order.

    `sha256` is of the rows as aevb 0.1 stored them, uint8 or float32. Where they have another type, `exact` is of their
    exact numbers.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        usual = dtype if dtype == torch.uint8 else torch.float32
        self._types = {"sha256": usual} if usual == dtype else {"sha256": usual, "exact": dtype}
        self._digests = {name: hashlib.sha256() for name in self._types}

    def __call__(self, part: Tensor) -> None:
        for name, dtype in self._types.items():
            self._digests[name].update(_bytes(part, dtype))

    def prints(self) -> dict[str, str]:
        """The fingerprints by their names."""
        return {name: digest.hexdigest()[:16] for name, digest in self._digests.items()}


@dataclass(frozen=True)
class Known:
    """Fingerprints that a pass over rows has found already.

    Attributes:
        rows, writes: whose they are, and how often PyTorch had written to them.
    """

    prints: dict[str, str]
    rows: Tensor
    writes: int | None

    @classmethod
    def now(cls, hasher: Hasher, rows: Tensor) -> Known:
        return cls(hasher.prints(), rows, writes(rows))

    def of(self, stored: Tensor) -> bool:
        """Whether they are those of these rows, and PyTorch has not written to them since."""
        return stored is self.rows and self.writes is not None and writes(stored) == self.writes


def writes(numbers: Tensor) -> int | None:
    """How often a tensor was written to, as PyTorch counts; None where it does not."""
    return None if numbers.is_inference() else numbers._version


def prints_of(stored: Tensor) -> dict[str, str]:
    """The fingerprints of rows, in one pass."""
    hasher = Hasher(stored.dtype)
    for part in _parts(stored):
        hasher(part)
    return hasher.prints()


def print_of(numbers: Tensor, words: str = "") -> str:
    """The fingerprint of numbers, then words."""
    digest = hashlib.sha256()
    for part in _parts(numbers):
        digest.update(_bytes(part, part.dtype))
    digest.update(words.encode())
    return digest.hexdigest()[:16]


def _parts(numbers: Tensor) -> Iterable[Tensor]:
    """So many rows at a time that memory does not matter."""
    return passed(numbers.split(step(numbers.shape, numbers.element_size())) if len(numbers) else (), len(numbers))


def _bytes(part: Tensor, dtype: torch.dtype) -> memoryview:
    return part.to("cpu", dtype).contiguous().numpy().data
