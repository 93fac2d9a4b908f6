"""A user's arrays (.npy, .npz or in memory) -> a data set; and the cutting and checking that all sources share."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.data.dataset import Dataset, Split
from aevb.data.sparse import densified, is_sparse
from aevb.data.values import Kind, Values
from aevb.errors import AevbWarning, DataError, suggest

Array = NDArray[Any]
Axes = Literal["first", "last", "none"]
CHANNELS = (1, 3, 4)
ROUNDING = 2.0**-24  # of float32, relative to a number
COARSE = 2.0**-12  # a step of float32, relative to the range of a column, above which its digits are lost
X_NAMES, Y_NAMES = ("x", "data", "images"), ("y", "labels")
UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Rows:
    """Data points x (N, *X), with their labels (N,), int64, if they have any."""

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

    def splits(self, values: Values, where: str) -> tuple[Split, Split, Split]:
        """As splits with these values; a mean and a std are those of the train rows.  Warns of constant columns."""
        if values.kind == "standardized":
            values = values.fitted(tensor(self.train.x))
        if continuous(self.train.x, values):
            warn_of_constants(self.train.x, where)
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


def interpret(x: Array, where: str, axes: str | None = None) -> tuple[Array, Values, str]:
    """What an array is, from its type and shape: the array, what its numbers mean, and the recipe that suits it.

    Only 0 and 1: binary.  uint8 images: 256 levels.  Anything else: real numbers, standardized.
    Raises DataError for what is no table or image of finite numbers, and as `channels_first` does.
    """
    came = x.dtype.name
    x = channels_first(numbers(x, where), where, axes)
    if x.max() <= 1 and bool(((x == 0) | (x == 1)).all()):
        return x.astype(np.uint8), Values("threshold", levels=2, divisor=1.0, dtype=came), "bernoulli"
    if x.dtype == np.uint8:
        picture = x.ndim == 4
        return x, Values("levels" if picture else "standardized", dtype=came), "conv" if picture else "gaussian"
    return x, Values("standardized", divisor=1.0, dtype=came), "gaussian"


def numbers(x: Array, where: str) -> Array:
    """The array as uint8, int64, float32 or float64, all of it finite.  Images of integers in 0..255 become uint8."""
    if x.dtype.kind not in "buif":
        raise DataError(f"{where} holds {x.dtype} and not numbers: encode them as numbers first")
    if x.ndim < 2 or x.size == 0:
        raise DataError(f"{where} has shape {x.shape}; rows × columns or images (rows, height, width[, channels]) fit")
    if x.dtype in (np.bool_, np.uint8) or _bytes(x):
        return x.astype(np.uint8, copy=False)
    if x.dtype.kind in "ui" and x.max() <= np.iinfo(np.int64).max:
        return x.astype(np.int64)
    check_finite(x, where)
    return x.astype(np.float32 if x.dtype.itemsize <= 4 else np.float64)


def _bytes(x: Array) -> bool:
    """Whether these are images of integers in 0..255."""
    return x.dtype.kind in "ui" and x.ndim > 2 and bool(x.min() >= 0 and x.max() <= 255)


def narrowed(x: Array, values: Values, where: str) -> Array:
    """The array as it is stored: as float32, unless it is standardized and a standardized number would lose digits by
    that.

    Warns, naming what to do, where other values are not standardized and lose them.
    """
    if x.dtype in (np.uint8, np.float32):
        return x
    narrow = x.astype(np.float32)
    lost = lost_digits(x, narrow)
    if values.kind == "standardized":
        return x if bool((lost > ROUNDING).any()) else narrow
    columns = np.flatnonzero(lost > COARSE)
    if len(columns):
        first, now = (np.unique(a.reshape(len(a), -1)[:, columns[0]]).size for a in (x, narrow))
        warnings.warn(
            f"{where}: float32 merges numbers of {entries(columns, x)}: {first:,} different values of the first become"
            f" {now:,}. Let data.values be standardized, which subtracts the mean in float64; or "
            f"subtract an offset first.",
            AevbWarning,
            stacklevel=2,
        )
    return narrow


def lost_digits(x: Array, narrow: Array) -> NDArray[np.float64]:
    """Half a step of float32 at the largest number of each entry, relative to its range, (F); 0 where all are exact."""
    x, narrow = x.reshape(len(x), -1), narrow.reshape(len(x), -1)
    low, high = x.min(0), x.max(0)
    largest = np.maximum(abs(low.astype(np.float64)), abs(high.astype(np.float64)))
    exact = largest <= 2**24 if x.dtype.kind == "i" else (narrow == x).all(0)
    span = (
        high.view(np.uint64) - low.view(np.uint64) if x.dtype.kind == "i" else high - low
    )  # no int64 holds all of them
    half = np.spacing(largest.astype(np.float32)).astype(np.float64) / 2
    return np.where(exact | (span == 0), 0.0, half / np.where(span == 0, 1, span))


def continuous(x: Array, values: Values) -> bool:
    """Whether a density of these numbers is meant, which has no bound where an entry is constant."""
    counts = values.dtype and np.dtype(values.dtype).kind in "bui"
    return values.kind == "standardized" or (values.kind == "raw" and not counts and not (x == np.trunc(x)).all())


def warn_of_constants(x: Array, where: str) -> None:
    """Say which entries of the train rows are constant."""
    constant = np.flatnonzero((x == x[:1]).all(0))
    if len(constant):
        warnings.warn(
            f"{where}: constant in the train rows: {entries(constant, x)}. The density of a constant has no bound, so"
            " log p(x) rises for as long as training lasts and says little. Leave such columns out.",
            AevbWarning,
            stacklevel=2,
        )


def entries(which: NDArray[np.int64], x: Array) -> str:
    """Which columns of a table, or how many entries of an image."""
    if x.ndim > 2:
        return f"{len(which):,} of {x[0].size:,} entries of a row"
    shown = ", ".join(map(str, which[:10])) + (", ..." if len(which) > 10 else "")
    return f"{len(which):,} of {x.shape[1]:,} columns ({shown}, counted from 0)"


def check_finite(x: Array, where: str) -> None:
    """Raise DataError, with how many and in which rows (counted from 0), if x (N, *X) has NaN or infinite values."""
    bad = ~(abs(x) <= np.finfo(np.float32).max).reshape(len(x), -1)
    rows = np.flatnonzero(bad.any(1))
    if len(rows):
        first = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        raise DataError(
            f"{where}: {bad.sum():,} values in {len(rows):,} of {len(x):,} rows are NaN or infinite (or too large for"
            f" float32); the first such rows are {first}, counted from 0. Fill or remove them first."
        )


def channels_first(x: Array, where: str, axes: str | None = None) -> Array:
    """(N, H, W) as (N, 1, H, W), and (N, H, W, C) as (N, C, H, W); anything else as it is.

    axes: where the channels are: "first", "last" or "none" (one axis is then added).  Without it, an axis of size
    1, 3 or 4 holds them if the other one has another size.  Raises DataError where that does not tell which.
    """
    _check_axes(x, where, axes)
    if axes == "none" or (axes is None and x.ndim == 3):
        return x[:, None]
    if x.ndim != 4 or axes == "first":
        return x
    if axes is None and (x.shape[1] in CHANNELS) == (x.shape[3] in CHANNELS):
        raise DataError(
            f"{where} has shape {x.shape}: which axis holds the channels? Say data.axes = 'last' for (N, H, W, C), "
            "'first' for (N, C, H, W), or 'none' where no axis does (--set data.axes=last, load_data(axes='last'))"
        )
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if axes == "last" or x.shape[3] in CHANNELS else x


def _check_axes(x: Array, where: str, axes: str | None) -> None:
    if axes not in (None, *get_args(Axes)):
        raise DataError(f"{where}: there is no axes={axes!r}.{suggest(str(axes), get_args(Axes))}")
    if axes is not None and x.ndim != 4 and not (axes == "none" and x.ndim > 2):
        raise DataError(f"{where}: axes={axes!r} is for images (N, H, W, C) or (N, C, H, W); the shape is {x.shape}")


def classes(y: Array, n: int, where: str) -> tuple[Array, tuple[str, ...] | None]:
    """Labels of any kind as classes 0..C-1, int64 (N,), in sorted order; and what they were called, unless just that.

    Whole numbers (negative ones and gaps too), booleans and words are labels.
    Raises DataError if they are not one of these a row, or if one is missing (NaN, None, masked).
    """
    y = y[:, 0] if y.shape == (n, 1) else y
    if y.shape != (n,):
        raise DataError(f"{where}: the labels have shape {y.shape}; {n} rows need ({n},)")
    refuse_missing(y, where)
    y = np.array(y.tolist()) if y.dtype.kind == "O" else np.asarray(y)
    if y.dtype.kind not in "buifUS" or (y.dtype.kind == "f" and not (y == np.trunc(y)).all()):
        raise DataError(f"{where}: the labels ({y.dtype}) are not whole numbers or words: leave them out")
    found, labels = np.unique(y, return_inverse=True)
    names = tuple(map(label_name, found.tolist()))
    usual = y.dtype.kind in "uif" and names == tuple(map(str, range(len(names))))
    return labels.reshape(n).astype(np.int64), None if usual else names


def refuse_missing(y: Array, where: str) -> None:
    """Raise DataError if a label is NaN, infinite, None or masked."""
    lacking = np.ma.getmaskarray(y).copy()
    if y.dtype.kind == "f":
        lacking |= ~np.isfinite(np.ma.getdata(y))
    if y.dtype.kind == "O":
        lacking |= np.array([label is None or label != label for label in y.tolist()], bool)
    rows = np.flatnonzero(lacking)
    if len(rows):
        first = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        raise DataError(
            f"{where}: {len(rows):,} of {len(y):,} labels are missing (rows {first}, counted from "
            f"0), so they are not whole"
            " numbers or words. Fill them, leave these rows out, or leave all labels out."
        )


def label_name(label: Any) -> str:
    """What a label is called: a whole float as an integer, bytes as UTF-8."""
    if isinstance(label, bytes):
        return label.decode("utf-8", "backslashreplace")
    return str(int(label)) if isinstance(label, float) else str(label)


@dataclass(frozen=True)
class Reading:
    """How an array is read: what its numbers mean, where its channels are, and the seed of the shuffle."""

    values: str | None = None
    axes: str | None = None
    seed: int = 0

    def of(self, x: Array, where: str) -> tuple[Array, Values, str]:
        """The array as it is stored, its values, and the recipe that suits it."""
        x, default, recipe = interpret(x, where, self.axes)
        values = choose_values(self.values, default, x, where)
        return narrowed(x, values, where), values, recipe


def array_dataset(
    x: Any,
    y: Any = None,
    *,
    name: str = "array",
    values: str | None = None,
    axes: str | None = None,
    seed: int = 0,
) -> Dataset:
    """A data set of an array in memory, (N, F), (N, H, W) or (N, H, W, C): 80/10/10 %, shuffled by the seed.

    Raises DataError as `interpret`, `choose_values` and `classes` do, or if there are fewer than 3 rows.
    """
    rows = densified(x, name) if is_sparse(x) else np.asarray(x)
    return _shuffled(rows, y, name, name, Reading(values, axes, seed))


def _shuffled(x: Array, y: Any, name: str, where: str, reading: Reading) -> Dataset:
    """As `array_dataset`; errors say `where`."""
    stored, values, recipe = reading.of(x, where)
    labels, names = (None, None) if y is None else classes(np.asanyarray(y), len(stored), where)
    parts = divide(Rows(stored, labels), tenths(len(stored), where), reading.seed)
    return Dataset(name, *parts.splits(values, where), recipe, names)


def load_array(path: Path, *, values: str | None = None, axes: str | None = None, seed: int = 0) -> Dataset:
    """The data set in a .npy or .npz file; see `array_dataset`.

    A .npz has the rows as x, X, data, images or its only array, and the labels as y or labels; or it is a sparse matrix
    of SciPy; or it is split already, as x_train, y_train, x_test, y_test and perhaps x_val, y_val (if not, the seed
    draws a tenth of train for it).
    Raises DataError naming the file if it is damaged, needs pickle, or has no such arrays.
    """
    arrays, reading = read_arrays(path), Reading(values, axes, seed)
    train, test = pick(arrays, part_names("train")), pick(arrays, part_names("test"))
    if train is not None and test is not None:
        return _presplit(path, arrays, reading)
    return _shuffled(only(arrays, path), pick(arrays, Y_NAMES), path.stem, str(path), reading)


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a file by their lower-case names ("x" for a .npy), never unpickling."""
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {"x": content}
        with content:
            if {"format", "shape"} <= set(content.files):
                return {"x": densified(path, str(path))}
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


def _presplit(path: Path, arrays: dict[str, Array], reading: Reading) -> Dataset:
    found = {part: _part(path, arrays, part) for part in ("train", "val", "valid", "validation", "test")}
    held = next((found[part] for part in ("val", "valid", "validation") if found[part] is not None), None)
    given = [part for part in (found["train"], held, found["test"]) if part is not None]
    _check_alike(path, given)
    labels, names = _labels(path, given)
    stored, values, recipe = reading.of(np.concatenate([part.x for part in given]), str(path))
    ends = np.cumsum([len(part) for part in given]).tolist()
    rows = Rows(stored, labels)
    train, validation, test = rows[: ends[0]], rows[ends[0] : ends[-2]], rows[ends[-2] :]
    if held is None:
        tenth = tenths(len(train), f"{path}, train")[1]
        cut = divide(train, (len(train) - tenth, tenth, 0), reading.seed)
        train, validation = cut.train, cut.validation
    return Dataset(path.stem, *Parts(train, validation, test).splits(values, str(path)), recipe, names)


def _check_alike(path: Path, parts: Sequence[Rows]) -> None:
    if len({part.x.shape[1:] for part in parts}) > 1 or len({part.labels is None for part in parts}) > 1:
        raise DataError(f"{path}: the splits differ in the shape of a row, or only some have labels")


def _part(path: Path, arrays: dict[str, Array], part: str) -> Rows | None:
    x = pick(arrays, part_names(part))
    return None if x is None else Rows(x, pick(arrays, part_names(part, Y_NAMES)))


def _labels(path: Path, given: list[Rows]) -> tuple[Array | None, tuple[str, ...] | None]:
    labels = [part.labels for part in given if part.labels is not None]
    return classes(np.concatenate(labels), sum(map(len, given)), str(path)) if labels else (None, None)
