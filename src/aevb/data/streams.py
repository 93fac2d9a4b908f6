"""Streams of random numbers, many at once: the i-th number of a stream is a hash of its key and i.

SplitMix64 (Steele, Lea & Flood 2014, OOPSLA, doi 10.1145/2660193.2660195) with one key for each stream: numbers of
different streams need no generator each, and any number of rows is drawn in one go. An NVIDIA GPU draws the same bits
as the CPU, and numbers made of them agree up to rounding; for other devices the CPU draws. B: streams.
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

Bits = Tensor  # int64, whose 64 bits are what counts: sums and products wrap, as they do without a sign
Device = torch.device | str


def _signed(bits: int) -> int:
    """The int64 with these 64 bits."""
    return bits - 2**64 if bits >= 2**63 else bits


GOLDEN = _signed(0x9E3779B97F4A7C15)
FACTORS = (_signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB))
SHIFTS = (30, 27, 31)
MANTISSA = 11  # of 64 bits, to leave the 53 of a float64
HALF = 2**32 - 1


def shifted(bits: Bits, places: int) -> Bits:
    """Without a sign: zeros come in from the left."""
    return bits.bitwise_right_shift(places).bitwise_and_(2 ** (64 - places) - 1)


def mixed(bits: Bits) -> Bits:
    """The hash of each number, in place: every bit that goes in turns half of those that come out."""
    for places, factor in zip(SHIFTS, FACTORS, strict=False):
        bits ^= shifted(bits, places)
        bits *= factor
    bits ^= shifted(bits, SHIFTS[-1])
    return bits


def hashes(rows: NDArray[np.float64], seed: int, *path: int | str) -> list[int]:
    """A hash of 63 bits for each row (B, n), of its numbers and their places; every NaN counts as the same."""
    words = torch.from_numpy(np.where(np.isnan(rows), np.nan, rows + 0.0).view(np.int64))  # + 0.0: -0.0 is 0
    places = mixed(torch.arange(1, rows.shape[1] + 1) * GOLDEN)
    found: list[int] = shifted(mixed(mixed(words ^ places).sum(1) ^ derive(seed, *path)), 1).tolist()
    return found


def _numbers(seeds: Sequence[int], path: Sequence[Any], shape: Sequence[int], device: Device) -> Bits:
    """64 random bits each, (K, B, n), of streams with these seeds (B): the k-th n numbers of each."""
    device = device if torch.device(device).type == "cuda" else "cpu"  # others may lack float64
    keys = mixed(torch.tensor(seeds, device=device) ^ mixed(torch.tensor([derive(0, *path)])).item())
    steps = torch.arange(1, math.prod(shape) + 1, device=device) * GOLDEN
    return mixed(steps.reshape(shape[0], 1, shape[1]) + keys[:, None])


def normals(seeds: Sequence[int], samples: int, size: int, *path: int | str, device: Device = "cpu") -> Tensor:
    """ε ~ N(0, 1), (K, B, `size`), float32, of the B streams with these seeds, for the purpose `path`.

    By pairs (Box & Muller 1958): √(-2 log u) cos 2πv and √(-2 log u) sin 2πv, u and v of 32 bits each.
    """
    bits = _numbers(seeds, path, (samples, (size + 1) // 2), device)
    u, v = (bits & HALF).float(), shifted(bits, 32).float()
    radius, angle = ((u + 0.5) * 2.0**-32).log_().mul_(-2).clamp_(min=0).sqrt_(), v * (2 * math.pi * 2.0**-32)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], -1)[..., :size]


def uniforms(seeds: Sequence[int], samples: int, size: int, *path: int | str, device: Device = "cpu") -> Tensor:
    """u ~ U(0, 1), (K, B, `size`), float64, of the B streams with these seeds, for the purpose `path`."""
    bits = shifted(_numbers(seeds, path, (samples, size), device), MANTISSA)
    return bits.double().add_(0.5).mul_(2.0**-53)
