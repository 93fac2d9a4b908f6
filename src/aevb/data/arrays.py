"""A user's arrays (.npy, .npz or in memory) -> a data set; and the cutting and checking that all sources share."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.data.dataset import Dataset, Kind, Split, Values
from aevb.errors import DataError, suggest

Array = NDArray[Any]
CHANNELS = (1, 3, 4)
X_NAMES, Y_NAMES = ("x", "data", "images"), ("y", "labels")
UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Rows:
    """Data points x (N, *X), uint8 or float32, with their labels (N,), int64, if they have any."""

    x: Array
    labels: Array | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Array | slice) -> Rows:
        return Rows(self.x[index], None if self.labels is None else self.labels[index])


@dataclass(frozen=True)
class Parts:
    """Rows by their use."""

    train: Rows
    validation: Rows
    test: Rows

    def splits(self, values: Values) -> tuple[Split, Split, Split]:
        """As splits with these values; a mean and a std are those of the train rows."""
        if values.kind == "standardized":
            values = values.fitted(torch.from_numpy(self.train.x))
        return split(self.train, values), split(self.validation, values), split(self.test, values)


def split(rows: Rows, values: Values) -> Split:
    """Rows as torch tensors; a read-only array is copied, since torch has no such thing."""
    return Split(tensor(rows.x), None if rows.labels is None else tensor(rows.labels.astype(np.int64)), values)


def tensor(x: Array) -> Tensor:
    """The array as a tensor, shared where that is possible."""
    return torch.from_numpy(np.require(x, requirements=["C", "W"]))


def permutation(n: int, seed: int) -> NDArray[np.int64]:
    """The shuffle of n rows that a seed means.

    RandomState and not default_rng: NumPy promises that its stream never changes.  With seed 0 it also gives the split
    of the Frey faces of which the 2013 paper's flat wake-sleep curve is the baseline (578.6 train, 569.3 test).
    """
    return np.random.RandomState(seed).permutation(n).astype(np.int64)


def divide(rows: Rows, counts: tuple[int, int, int], seed: int) -> Parts:
    """Shuffle by the seed, then cut into train, validation and test of these sizes."""
    order, (train, validation, test) = permutation(len(rows), seed), counts
    cuts = np.split(order, [train, train + validation, train + validation + test])
    return Parts(rows[cuts[0]], rows[cuts[1]], rows[cuts[2]])


def tenths(n: int, where: str) -> tuple[int, int, int]:
    """80 %, 10 %, 10 % of n rows, at least one each.  DataError if n < 3."""
    if n < 3:
        raise DataError(f"{where} has {n} rows; at least 3 are needed: one each to train, to validate and to test")
    tenth = max(1, n // 10)
    return n - 2 * tenth, tenth, tenth


def hold_out(parts: Parts, share: float, seed: int, where: str) -> Parts:
    """Move a share of the train rows, shuffled by the seed, into a validation split that had none.

    Raises DataError if there is a validation split already, or if the share leaves one of the two empty.
    """
    if len(parts.validation):
        raise DataError(f"{where} has a validation split of its own ({len(parts.validation):,} rows): leave it out")
    n = round(share * len(parts.train))
    if not 0 < n < len(parts.train):
        raise DataError(f"{where}: validation={share} of {len(parts.train):,} rows: it must be a share between 0 and 1")
    cut = divide(parts.train, (len(parts.train) - n, n, 0), seed)
    return Parts(cut.train, cut.validation, parts.test)


def possible_kinds(x: Array) -> tuple[Kind, ...]:
    """What the numbers in an array can mean."""
    if x.dtype == np.uint8:
        return get_args(Kind)
    if x.min() >= 0 and x.max() <= 1:
        return ("dynamic", "threshold", "grey", "standardized", "raw")
    return ("standardized", "raw")


def choose_values(kind: str | None, default: Values, x: Array, where: str) -> Values:
    """The default values, or those of the kind asked for.  DataError, naming the possible ones, if it does not fit."""
    if kind is None or kind == default.kind:
        return default
    possible = possible_kinds(x)
    if kind not in possible:
        numbers = f"{x.dtype} numbers from {x.min():.4g} to {x.max():.4g}"
        raise DataError(f"{where}: values={kind!r} does not fit {numbers}.{suggest(kind, possible)}")
    return replace(default, kind=kind)


def interpret(x: Array, where: str) -> tuple[Array, Values, str]:
    """What an array is, from its type and shape: the array to store, its values, and the recipe that suits it.

    Only 0 and 1: binary.  uint8 images: 256 levels.  Anything else: real numbers, standardized.
    Raises DataError for what is no table or image of finite numbers.
    """
    x = channels_first(numbers(x, where))
    if x.max() <= 1 and bool(((x == 0) | (x == 1)).all()):
        return x.astype(np.uint8), Values("threshold", levels=2, divisor=1.0), "bernoulli"
    if x.dtype == np.uint8:
        return (x, Values("levels"), "conv") if x.ndim == 4 else (x, Values("standardized"), "gaussian")
    return x, Values("standardized", divisor=1.0), "gaussian"


def numbers(x: Array, where: str) -> Array:
    """The array as uint8 or float32, all of it finite.  Integers become uint8 if they are images of 0..255."""
    if x.dtype.kind not in "buif":
        raise DataError(f"{where} holds {x.dtype} and not numbers: encode them as numbers first")
    if x.ndim < 2 or x.size == 0:
        raise DataError(f"{where} has shape {x.shape}; rows × columns or images (rows, height, width[, channels]) fit")
    if x.dtype == np.bool_ or (x.dtype.kind in "ui" and x.ndim > 2 and x.min() >= 0 and x.max() <= 255):
        return x.astype(np.uint8)
    if x.dtype == np.uint8:
        return x
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    check_finite(x, where)
    return x


def check_finite(x: Array, where: str) -> None:
    """Raise DataError, with how many and in which rows (counted from 0), if x (N, *X) has NaN or infinite values."""
    bad = ~np.isfinite(x).reshape(len(x), -1)
    rows = np.flatnonzero(bad.any(1))
    if len(rows):
        first = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        raise DataError(
            f"{where}: {bad.sum():,} values in {len(rows):,} of {len(x):,} rows are NaN or infinite (or too large for"
            f" float32); the first such rows are {first}, counted from 0. Fill or remove them first."
        )


def channels_first(x: Array) -> Array:
    """(N, H, W) and (N, H, W, C), C in 1, 3, 4, as (N, C, H, W); anything else as it is."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[-1] in CHANNELS:
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return x


def classes(y: Array, n: int, where: str) -> tuple[Array, tuple[str, ...] | None]:
    """Labels as int64 (N,), and class names if they were words.  DataError if they are not one whole number a row."""
    if y.shape == (n, 1):
        y = y[:, 0]
    if y.shape != (n,):
        raise DataError(f"{where}: the labels have shape {y.shape}; {n} rows need ({n},)")
    if y.dtype.kind in "US":
        names, y = np.unique(y.astype(str), return_inverse=True)
        return y.astype(np.int64), tuple(map(str, names))
    if y.dtype.kind not in "buif" or not (np.isfinite(y) & (y == np.trunc(y))).all():
        raise DataError(f"{where}: the labels ({y.dtype}) are not whole numbers or words: leave them out")
    return y.astype(np.int64), None


def array_dataset(
    x: Array, y: Array | None = None, *, name: str = "array", values: str | None = None, seed: int = 0
) -> Dataset:
    """A data set of an array in memory, (N, F), (N, H, W) or (N, H, W, C): 80/10/10 %, shuffled by the seed.

    Raises DataError as `interpret`, `choose_values` and `classes` do, or if there are fewer than 3 rows.
    """
    return _shuffled(np.asarray(x), y, name, name, values, seed)


def _shuffled(x: Array, y: Array | None, name: str, where: str, values: str | None, seed: int) -> Dataset:
    """As `array_dataset`; errors say `where`."""
    stored, default, recipe = interpret(x, where)
    labels, names = (None, None) if y is None else classes(np.asarray(y), len(stored), where)
    parts = divide(Rows(stored, labels), tenths(len(stored), where), seed)
    return Dataset(name, *parts.splits(choose_values(values, default, stored, where)), recipe, names)


def load_array(path: Path, *, values: str | None = None, seed: int = 0) -> Dataset:
    """The data set in a .npy or .npz file; see `array_dataset`.

    A .npz has the rows as x, X, data, images or its only array, and the labels as y or labels; or it is split already,
    as x_train, y_train, x_test, y_test and perhaps x_val, y_val (if not, validation is the last 10 % of train).
    Raises DataError naming the file if it is damaged, needs pickle, or has no such arrays.
    """
    arrays = read_arrays(path)
    train, test = pick(arrays, part_names("train")), pick(arrays, part_names("test"))
    if train is not None and test is not None:
        return _presplit(path, arrays, values)
    x = only(arrays, path)
    return _shuffled(x, pick(arrays, Y_NAMES), path.stem, str(path), values, seed)


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a file by their lower-case names ("x" for a .npy), never unpickling."""
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {"x": content}
        with content:
            return {key.lower(): content[key] for key in content.files}
    except UNREADABLE as fault:
        raise DataError(f"{path} cannot be read as arrays of numbers: {fault}") from fault


def part_names(part: str, kinds: tuple[str, ...] = X_NAMES) -> tuple[str, ...]:
    """The names that the rows of a part may have: x_train, train_x, data_train, ..."""
    return tuple(name for kind in kinds for name in (f"{kind}_{part}", f"{part}_{kind}"))


def pick(arrays: dict[str, Array], names: Iterable[str]) -> Array | None:
    """The first array that has one of the names."""
    return next((arrays[name] for name in names if name in arrays), None)


def only(arrays: dict[str, Array], path: Path) -> Array:
    """The rows among the arrays of an unsplit file."""
    rest = [array for name, array in arrays.items() if name not in Y_NAMES]
    x = pick(arrays, X_NAMES)
    if x is None and len(rest) != 1:
        raise DataError(f"{path} holds the arrays {', '.join(arrays) or 'none'}: name the one with the rows x")
    return rest[0] if x is None else x


def _presplit(path: Path, arrays: dict[str, Array], values: str | None) -> Dataset:
    found = {part: _part(path, arrays, part) for part in ("train", "val", "valid", "validation", "test")}
    held = next((found[part] for part in ("val", "valid", "validation") if found[part] is not None), None)
    given = [part for part in (found["train"], held, found["test"]) if part is not None]
    if len({part.x.shape[1:] for part in given}) > 1 or len({part.labels is None for part in given}) > 1:
        raise DataError(f"{path}: the splits differ in the shape of a row, or only some have labels")
    labels, names = _labels(path, given)
    stored, default, recipe = interpret(np.concatenate([part.x for part in given]), str(path))
    ends = np.cumsum([len(part) for part in given]).tolist()
    train, test = Rows(stored, labels)[: ends[0]], Rows(stored, labels)[ends[-2] :]
    if held is None:
        tenth = tenths(len(train), f"{path}, train")[1]
        train, validation = train[:-tenth], train[-tenth:]
    else:
        validation = Rows(stored, labels)[ends[0] : ends[1]]
    chosen = choose_values(values, default, stored, str(path))
    return Dataset(path.stem, *Parts(train, validation, test).splits(chosen), recipe, names)


def _part(path: Path, arrays: dict[str, Array], part: str) -> Rows | None:
    x = pick(arrays, part_names(part))
    return None if x is None else Rows(x, pick(arrays, part_names(part, Y_NAMES)))


def _labels(path: Path, given: list[Rows]) -> tuple[Array | None, tuple[str, ...] | None]:
    labels = [part.labels for part in given if part.labels is not None]
    return classes(np.concatenate(labels), sum(map(len, given)), str(path)) if labels else (None, None)
