"""Sprites: small binary pictures of which every factor is known, made here, so that no file is needed.

In the manner of dSprites (Matthey et al. 2017), which is larger and is not read. All combinations of five factors occur
once, so the factors are independent. No two pictures are equal, so a picture gives its factors back.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.data.splits import Rows
from aevb.errors import DataError

SIDE = 32  # pixels
SHAPES = ("square", "ellipse", "heart")
FACTORS = {"shape": 3, "scale": 4, "orientation": 6, "x": 8, "y": 8}  # names, and how many values each has
CATEGORIES = (0,)  # columns of the factors whose values have no order
Pixels = NDArray[np.uint8]


def grid() -> NDArray[np.int64]:
    """Every combination of the factors' values, counted from 0: (4608, 5), the last factor fastest."""
    return np.indices(tuple(FACTORS.values())).reshape(len(FACTORS), -1).T.astype(np.int64)


def render(factors: NDArray[np.int64]) -> Pixels:
    """The pictures (N, 1, 32, 32), 0 or 1, of factors (N, 5).

    A pixel is 1 where its centre lies in the shape, after it was moved, turned and scaled: half a shape's width goes
    from 5 to 10 pixels, its centre from 11 to 21 along either axis, and it turns by 15° up to 75°, short of a square's
    symmetry.
    """
    shape, scale, turn, x, y = (column[:, None, None] for column in factors.T)
    rows, columns = np.indices((SIDE, SIDE)) + 0.5
    u, v = columns - _between(11, 21, x, "x"), rows - _between(11, 21, y, "y")
    angle, size = np.deg2rad(15.0 * turn), _between(5, 10, scale, "scale")
    u, v = (np.cos(angle) * u + np.sin(angle) * v) / size, (np.cos(angle) * v - np.sin(angle) * u) / size
    inside = np.select([shape == 0, shape == 1], [_square(u, v), _ellipse(u, v)], _heart(u, v))
    return inside[:, None].astype(np.uint8)


def sprites() -> Rows:
    """All pictures, (4608, 1, 32, 32), labelled by their shape."""
    factors = grid()
    return Rows(np.concatenate([render(part) for part in np.array_split(factors, 16)]), factors[:, 0])


def factors_of(x: Tensor) -> Tensor:
    """The factors (N, 5) of pictures (N, 1, 32, 32), exactly: which of the 4,608 each of them is.

    Raises:
        DataError: a picture is none of them.
    """
    table = _table()
    rows = _packed(x.detach().cpu().numpy() > 0.5)
    unknown = [i for i, row in enumerate(rows) if row not in table]
    if unknown:
        raise DataError(
            f"Row {unknown[0]} is not a sprite: factors are known only for pictures of the source 'sprites'."
        )
    return torch.from_numpy(grid()[[table[row] for row in rows]])


@lru_cache(maxsize=1)
def _table() -> dict[bytes, int]:
    return {row: i for i, row in enumerate(_packed(sprites().x))}


def _packed(x: NDArray[np.generic]) -> list[bytes]:
    return [row.tobytes() for row in np.packbits(x.reshape(len(x), -1).astype(bool), axis=1)]


def _between(low: float, high: float, value: NDArray[np.int64], factor: str) -> NDArray[np.float64]:
    return low + (high - low) * value / (FACTORS[factor] - 1)


def _square(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.maximum(abs(u), abs(v)) < math.sqrt(0.5)


def _ellipse(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    return u**2 + (v / 0.5) ** 2 < 1


def _heart(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(a² + b² - 1)³ < a² b³, which is 1.2 wide on either side, scaled to fit."""
    a, b = 1.2 * u, 0.15 - 1.2 * v
    return (a**2 + b**2 - 1) ** 3 < a**2 * b**3
