"""Streams of random numbers, many at once: the i-th number of a stream is a hash of its key and i.

SplitMix64 (Steele, Lea & Flood 2014, OOPSLA, doi 10.1145/2660193.2660195) with one key for each stream: numbers of
different streams need no generator each, and any number of rows is drawn in one go. B: streams.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.data.randomness import derive

Bits = NDArray[np.uint64]
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
MANTISSA = np.uint64(11)  # of 64 bits, to leave the 53 of a float64


def mixed(bits: Bits) -> Bits:
    """The hash of each number, in place: every bit that goes in turns half of those that come out."""
    for shift, factor in zip(SHIFTS, FACTORS, strict=False):
        bits ^= bits >> shift
        bits *= factor
    bits ^= bits >> SHIFTS[-1]
    return bits


def hashes(rows: NDArray[np.float64], seed: int, *path: int | str) -> list[int]:
    """A hash of 63 bits for each row (B, n), of its numbers and their places; every NaN counts as the same."""
    words = np.where(np.isnan(rows), np.nan, rows + 0.0).view(np.uint64)  # + 0.0: -0.0 is 0
    places = mixed(np.arange(1, rows.shape[1] + 1, dtype=np.uint64) * GOLDEN)
    total = mixed(words ^ places).sum(1, dtype=np.uint64)
    found: list[int] = (mixed(total ^ np.uint64(derive(seed, *path))) >> np.uint64(1)).tolist()
    return found


def _numbers(seeds: Sequence[int], path: Sequence[Any], shape: Sequence[int]) -> Bits:
    """64 random bits each, (K, B, n), of streams with these seeds (B): the k-th n numbers of each."""
    keys = mixed(np.array(seeds, np.uint64) ^ mixed(np.array([derive(0, *path)], np.uint64)))
    steps = np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * GOLDEN
    return mixed(steps.reshape(shape[0], 1, shape[1]) + keys[:, None])


def normals(seeds: Sequence[int], samples: int, size: int, *path: int | str) -> Tensor:
    """ε ~ N(0, 1), (K, B, `size`), float32, of the B streams with these seeds, for the purpose `path`.

    By pairs (Box & Muller 1958): √(-2 log u) cos 2πv and √(-2 log u) sin 2πv, u and v of 32 bits each.
    """
    bits = torch.from_numpy(_numbers(seeds, path, (samples, (size + 1) // 2)).view(np.uint32).astype(np.float32))
    u, v = bits[..., 0::2], bits[..., 1::2]
    radius, angle = ((u + 0.5) * 2.0**-32).log_().mul_(-2).clamp_(min=0).sqrt_(), v * (2 * math.pi * 2.0**-32)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], -1)[..., :size]


def uniforms(seeds: Sequence[int], samples: int, size: int, *path: int | str) -> Tensor:
    """u ~ U(0, 1), (K, B, `size`), float64, of the B streams with these seeds, for the purpose `path`."""
    bits = _numbers(seeds, path, (samples, size)) >> MANTISSA
    return torch.from_numpy(bits.astype(np.float64)).add_(0.5).mul_(2.0**-53)
