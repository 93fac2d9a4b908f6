"""meta.json: what a run says of itself, each fact checked when it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aevb
from aevb.data.values import SUPPORTS, Values
from aevb.errors import AevbError, RunError
from aevb.runs.files import damaged, read_json
from aevb.runs.plain import is_number, is_whole

FORMAT = 1  # of the folder; raised whenever an older aevb could not read it
SPLITS = ("train", "validation", "test")
STATUSES = ("training", "interrupted", "complete", "diverged")

Fits = Callable[[Any], bool]


def _whole(least: int) -> Fits:
    return lambda value: is_whole(value) and value >= least


def _number(value: Any) -> bool:
    return is_number(value) and 0 <= value < float("inf")


def _list_of(fits: Fits, least: int = 0) -> Fits:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(fits, value))


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _one_of(*possible: Any) -> Fits:
    return lambda value: value in possible


def _or_none(fits: Fits) -> Fits:
    return lambda value: value is None or fits(value)


def _split(value: Any) -> bool:
    prints = isinstance(value, Mapping) and all(_or_none(_text)(v) for k, v in value.items() if k != "n")
    return prints and _whole(0)(value.get("n"))


def _splits(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == set(SPLITS) and all(map(_split, value.values()))


def _values(value: Any) -> bool:
    try:
        found = Values.from_dict(value)
        np.dtype(found.dtype or "float32")
    except (AevbError, TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError, RuntimeError):
        return False
    known = found.kind in SUPPORTS and _whole(2)(found.levels) and _number(found.divisor) and found.divisor > 0
    return known and _moments(found)


def _moments(values: Values) -> bool:
    """Whether mean and std are numbers, those of standardised data at that."""
    moments = [t for t in (values.mean, values.std) if t is not None]
    finite = all(bool(torch.isfinite(t).all()) for t in moments)
    positive = values.std is None or bool((values.std > 0).all())
    return finite and positive and (values.kind != "standardized" or len(moments) == 2)


NEEDED: Mapping[str, tuple[Fits, str]] = {  # of every run
    "shape": (_list_of(_whole(1), 1), "a list of sizes"),
    "levels": (_whole(2), "a whole number of at least 2"),
    "splits": (_splits, "the fingerprints of train, validation and test"),
}
KNOWN: Mapping[str, tuple[Fits, str]] = {  # where it is there
    **NEEDED,
    "aevb": (_text, "text"),
    "status": (_one_of(*STATUSES), " or ".join(STATUSES)),
    "stopped": (_one_of("samples", "patience", "interrupted"), "samples, patience or interrupted"),
    "samples": (_whole(0), "a whole number"),
    "steps": (_whole(0), "a whole number"),
    "best_step": (_whole(0), "a whole number"),
    "seconds": (_number, "a number"),
    "values": (_values, "what the numbers of the data mean"),
    "classes": (_list_of(_whole(0)), "a list of whole numbers"),
    "class_names": (_or_none(_list_of(_text)), "a list of names"),
}


def read_meta(folder: Path) -> dict[str, Any]:
    """What a run says of itself.

    Raises:
        RunError: the file is damaged, a fact in it cannot be, or it is from a newer version.
    """
    path = folder / "meta.json"
    meta = read_json(path)
    if not _whole(0)(meta.get("format", 0)):
        raise damaged(path, f"format is {_short(meta['format'])}, not a whole number")
    if meta.get("format", 0) > FORMAT:
        raise RunError(
            f"{folder} was written by aevb {meta.get('aevb')} (format {meta['format']}); this is aevb "
            f"{aevb.__version__} (format {FORMAT}). Upgrade aevb to read it."
        )
    for name, (fits, text) in KNOWN.items():
        if name in meta and not fits(meta[name]):
            raise damaged(path, f"{name} is {_short(meta[name])}, not {text}")
    return meta


def check_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    """Raise a `RunError` where a fact is missing that every model and its data need."""
    missing = [name for name in NEEDED if name not in meta]
    if missing:
        raise damaged(folder / "meta.json", f"{missing[0]} is missing")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "..."
