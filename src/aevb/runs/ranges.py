"""The ranges of a recipe's numbers, by key: the one place where a setting is called absurd."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aevb.errors import RecipeError
from aevb.parts import LEVELS
from aevb.runs.plain import is_number, is_whole


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`; `above`: without `least` itself."""

    most: float = 1e12
    least: float = 0.0
    above: bool = False

    def __contains__(self, number: float) -> bool:
        return (number > self.least if self.above else number >= self.least) and number <= self.most

    def __str__(self) -> str:
        return f"{'above' if self.above else 'at least'} {self.least:g} and at most {self.most:g}"


ANY_SIGN = Range(least=-1e12)
SIZE, DEPTH, DRAWS = Range(1e6), Range(100), Range(1e4)
RATE, SHARE, MEMORY = Range(1e6, above=True), Range(1.0), Range(1 - 1e-9)
RANGES: Mapping[str, Range] = {  # of TABLE.KEY, else of KEY, else `Range()`
    **dict.fromkeys(("start", "end", "values", "alpha", "rate"), ANY_SIGN),
    **dict.fromkeys(("latent", "hidden", "channels", "latents", "width", "features", "codes"), SIZE),
    **dict.fromkeys(("components", "context", "rank"), SIZE),
    **dict.fromkeys(("blocks", "flows", "reflections", "rungs"), DEPTH),
    **dict.fromkeys(("samples", "dreams", "groups", "encoder_groups", "leapfrogs", "updates", "bins"), DRAWS),
    **dict.fromkeys(("scale", "deviation", "temperature"), RATE),
    "lr": Range(1e20, above=True),  # a training that diverges is told, with a remedy
    **dict.fromkeys(("ema", "decay", "betas"), MEMORY),
    **dict.fromkeys(("momentum", "eps", "target", "ramp", "restart"), SHARE),
    "clip": Range(above=True),
    "init": Range(1e3),
    "levels": Range(2**24),
    "classes": Range(LEVELS + 1),  # of a column, and one for all that training never saw
    "training.batch": Range(1e7, least=1),
    "training.samples": Range(1e13),
    "validation.every": Range(1e13),
    "validation.importance_samples": Range(1e5),
    "evaluation.importance_samples": Range(1e7),
}
FREE = "seed"  # a whole number of any size


def check_size(table: str, key: str, value: Any) -> None:
    """Raise a `RecipeError` where a number of `TABLE.KEY` is not finite, or so large that no training would end."""
    range_ = range_of(table, key)
    for number in () if key == FREE else _numbers(value):
        if not (_finite(number) and number <= range_.most and -number <= 1e12):
            raise _refusal(table, key, number, range_)


def check_range(table: str, key: str, value: Any) -> None:
    """Raise a `RecipeError` where a number of `TABLE.KEY` is out of its range.

    The part itself is asked first, as its own words say more.
    """
    range_ = range_of(table, key)
    for number in () if key == FREE else _numbers(value):
        if number not in range_:
            raise _refusal(table, key, number, range_)


def range_of(table: str, key: str) -> Range:
    """The range of a key of a table, such as training and clip."""
    name = table.split(" ")[0]
    return RANGES.get(f"{name}.{key}", RANGES.get(key, Range()))


def _refusal(table: str, key: str, number: float, range_: Range) -> RecipeError:
    return RecipeError(f"{table}.{key}: expected a number {range_}; got {shown(number)}.")


def _numbers(value: Any) -> Iterator[float]:
    """The numbers in a value of a recipe; those of a table within it are checked with that table."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)
    elif is_number(value):
        yield value


def _finite(number: float) -> bool:
    return isinstance(number, int) or math.isfinite(number)


def shown(value: Any, most: int = 60) -> str:
    """A value in a message; a long one is cut."""
    if is_whole(value) and abs(value) >= 10**most:
        return f"a whole number of {value.bit_length() * 0.30103:,.0f} digits"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # of numbers with too many digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}..."
