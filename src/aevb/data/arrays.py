"""A user's arrays (.npy, .npz or in memory) -> a data set: what their numbers mean, and where they go."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from aevb.data import damage
from aevb.data.classes import classes
from aevb.data.dataset import Dataset
from aevb.data.facts import Facts, look
from aevb.data.npfiles import arrays_in
from aevb.data.pieces import Array, Pieces, in_memory, joined, scatter
from aevb.data.room import changed, room
from aevb.data.sparse import densified, is_sparse
from aevb.data.splits import Parts, Rows, entries, permutation, tenths
from aevb.data.values import Kind, Values
from aevb.errors import AevbWarning, DataError, suggest

Axes = Literal["first", "last", "none"]
CHANNELS = (1, 3, 4)
ROUNDING = 2.0**-24  # of float32, relative to a number
COARSE = 2.0**-12  # a step of float32, relative to the range of a column, above which its digits are lost
HALF = 2**63  # the first whole number beyond int64
X_NAMES = ("x", "data", "images")
Y_NAMES = ("y", "labels", "label", "target", "targets")
PARTS = ("train", "val", "valid", "validation", "test")


def possible_kinds(dtype: np.dtype[Any], low: float, high: float) -> tuple[Kind, ...]:
    """What numbers of this type and range can mean."""
    if dtype == np.uint8:
        return get_args(Kind)
    if low >= 0 and high <= 1:
        return ("dynamic", "threshold", "grey", "standardized", "raw")
    return ("standardized", "raw")


def choose_values(kind: str | None, default: Values, numbers: Array, where: str) -> Values:
    """The default values, or those of the kind asked for.  DataError, naming the possible ones, if it does not fit.

    numbers: as they are stored; the smallest and the largest of each entry are enough.
    """
    if kind is None or kind == default.kind:
        return default
    dtype, low, high = numbers.dtype, numbers.min(), numbers.max()
    possible = possible_kinds(dtype, low, high)
    if kind not in possible:
        words = f"{dtype} numbers from {low:.4g} to {high:.4g}"
        raise DataError(f"{where}: values={kind!r} does not fit {words}.{suggest(kind, possible)}")
    return replace(default, kind=kind)


@dataclass(frozen=True)
class Plan:
    """How an array is stored: its type, where its channels were, what its numbers mean, and the recipe that suits."""

    dtype: np.dtype[Any]
    axes: Axes
    values: Values
    recipe: str

    def stored(self, piece: Array) -> Array:
        """A piece as it is stored: channels first, and whole numbers beyond int64 less what the values subtract."""
        return self.moved(lowered(piece) if self.values.offset else piece)

    def shape(self, x: Pieces) -> tuple[int, ...]:
        """(N, *X) as it is stored."""
        n, *rest = x.shape
        match self.axes:
            case "none":
                return (n, 1, *rest)
            case "last":
                return (n, rest[-1], *rest[:-1])
            case "first":
                return x.shape

    def moved(self, piece: Array) -> Array:
        """A piece with its channels first."""
        match self.axes:
            case "none":
                return piece[:, None]
            case "last":
                return piece.transpose(0, 3, 1, 2)
            case "first":
                return piece


def interpret(x: Pieces, facts: Facts, axes: Axes) -> tuple[np.dtype[Any], Values, str]:
    """What an array is, from its type, shape and numbers: the type that holds it, its values, and the recipe.

    Only 0 and 1: binary.  uint8 images, and images of integers in 0..255: 256 levels.  Anything else: real numbers,
    standardized.
    """
    came = x.dtype.name
    dtype = holding(x, facts)
    if facts.binary:
        return np.dtype(np.uint8), Values("threshold", levels=2, divisor=1.0, dtype=came), "bernoulli"
    if dtype == np.uint8:
        picture = x.ndim + (axes == "none") == 4
        return dtype, Values("levels" if picture else "standardized", dtype=came), "conv" if picture else "gaussian"
    return dtype, Values("standardized", divisor=1.0, dtype=came), "gaussian"


def lowered(x: Array) -> NDArray[np.int64]:
    """Whole numbers less 2⁶³, exactly: all that uint64 holds becomes all that int64 holds."""
    return (x.astype(np.uint64) ^ np.uint64(HALF)).view(np.int64)


def holding(x: Pieces, facts: Facts) -> np.dtype[Any]:
    """The type that holds all numbers: uint8, int64 (beyond it, after `lowered`), float32 or float64."""
    low, high = facts.low.min(), facts.high.max()
    whole = x.dtype.kind in "bui"
    if x.dtype.kind == "b" or x.dtype == np.uint8 or (whole and x.ndim > 2 and low >= 0 and high <= 255):
        return np.dtype(np.uint8)
    if whole:
        return np.dtype(np.int64)
    return np.dtype(np.float32 if x.dtype.itemsize <= 4 else np.float64)


def check_numbers(x: Pieces, where: str) -> None:
    """Raise DataError for what is no table or images of numbers."""
    if x.dtype.kind not in "buif":
        raise DataError(f"{where} holds {x.dtype} and not numbers: encode them as numbers first")
    if x.ndim < 2 or x.size == 0:
        raise DataError(f"{where} has shape {x.shape}; rows × columns or images (rows, height, width[, channels]) fit")


def numbers(x: Array, where: str) -> Array:
    """An array as uint8, int64, uint64, float32 or float64.

    Raises DataError for what is no table or images of finite numbers.
    """
    pieces = in_memory(x)
    check_numbers(pieces, where)
    dtype = holding(pieces, look(pieces, where))
    if x.dtype == dtype or (x.dtype == np.uint64 and dtype == np.int64):
        return x
    return changed(x, lambda piece: piece.astype(dtype), where)


def as_int64(x: Array, offset: int) -> NDArray[np.int64]:
    """Numbers less an offset, 0 or 2⁶³, as the nearest that int64 holds; whole numbers exactly."""
    ends = np.iinfo(np.int64)
    if x.dtype.kind == "f":
        return np.clip(x.astype(np.float64) - offset, float(ends.min), np.nextafter(2.0**63, 0)).astype(np.int64)
    return lowered(np.maximum(x, 0)) if offset else np.minimum(x, ends.max).astype(np.int64)


def narrowed(x: Pieces, facts: Facts, dtype: np.dtype[Any], values: Values, where: str) -> np.dtype[Any]:
    """The type in which the numbers are stored: float32, unless they are standardized and a standardized number would
    lose digits by that.

    Warns, naming what to do, where other values are not standardized and lose them.
    """
    if dtype in (np.uint8, np.float32):
        return dtype
    lost = lost_digits(facts, dtype)
    if values.kind == "standardized":
        return dtype if bool((lost > ROUNDING).any()) else np.dtype(np.float32)
    if bool((lost > COARSE).any()):
        column = np.concatenate([rows[:, np.argmax(lost > COARSE)] for rows in x.rows()])
        first, now = (np.unique(numbers).size for numbers in (column, column.astype(np.float32)))
        warnings.warn(
            f"{where}: float32 merges numbers of {entries(lost > COARSE, x.ndim)}: {first:,} different values of the"
            f" first become {now:,}. Let data.values be standardized, which subtracts the mean in float64; or subtract"
            " an offset first.",
            AevbWarning,
            stacklevel=2,
        )
    return np.dtype(np.float32)


def lost_digits(facts: Facts, dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Half a step of float32 at the largest number of each entry, relative to its range, (F); 0 where all are exact."""
    low, high = facts.low.astype(dtype), facts.high.astype(dtype)
    largest = np.maximum(abs(facts.low.astype(np.float64)), abs(facts.high.astype(np.float64)))
    exact = largest <= 2**24 if dtype.kind == "i" else facts.exact
    span = high.view(np.uint64) - low.view(np.uint64) if dtype.kind == "i" else high - low  # no int64 holds all of them
    half = np.spacing(largest.astype(np.float32)).astype(np.float64) / 2
    return np.where(exact | (span == 0), 0.0, half / np.where(span == 0, 1, span))


def axes_of(shape: tuple[int, ...], where: str, axes: str | None = None) -> Axes:
    """Where the channels of an array are: "first" (or there are none to move), "last", or "none" (an axis is added).

    axes: what the user says.  Without it, an axis of size 1, 3 or 4 holds them if the other one has another size.
    Raises DataError where that does not tell which, or where `axes` does not fit the shape.
    """
    if axes is not None:
        return _said(shape, where, axes)
    if len(shape) != 4:
        return "none" if len(shape) == 3 else "first"
    if (shape[1] in CHANNELS) == (shape[3] in CHANNELS):
        raise DataError(
            f"{where} has shape {shape}: which axis holds the channels? Say data.axes = 'last' for (N, H, W, C), "
            "'first' for (N, C, H, W), or 'none' where no axis does (--set data.axes=last, load_data(axes='last'))"
        )
    return "last" if shape[3] in CHANNELS else "first"


def _said(shape: tuple[int, ...], where: str, axes: str) -> Axes:
    possible: dict[str, Axes] = {"first": "first", "last": "last", "none": "none"}
    if axes not in possible:
        raise DataError(f"{where}: there is no axes={axes!r}.{suggest(axes, possible)}")
    if len(shape) != 4 and not (axes == "none" and len(shape) > 2):
        raise DataError(f"{where}: axes={axes!r} is for images (N, H, W, C) or (N, C, H, W); the shape is {shape}")
    return possible[axes]


@dataclass(frozen=True)
class Reading:
    """How an array is read: what its numbers mean, where its channels are, and the seed of the shuffle."""

    values: str | None = None
    axes: str | None = None
    seed: int = 0

    def of(self, x: Pieces, where: str) -> Plan:
        """How the array is to be stored, after one pass over all its numbers."""
        check_numbers(x, where)
        axes = axes_of(x.shape, where, self.axes)
        facts = look(x, where)
        dtype, default, recipe = interpret(x, facts, axes)
        limits = np.stack([facts.low, facts.high])
        values = choose_values(self.values, default, limits if dtype == np.int64 else limits.astype(dtype), where)
        kept = narrowed(x, facts, dtype, values, where)
        if kept == np.int64 and facts.high.max() >= HALF:
            values = replace(values, offset=HALF)
        return Plan(kept, axes, values, recipe)


def store(x: Pieces, place: NDArray[np.int64], plan: Plan, where: str) -> Array:
    """The rows as planned: row i at `place[i]`.  DataError if there is no room for them."""
    shape = plan.shape(x)
    out = room(shape, plan.dtype, where, f"{shape[0]:,} rows of {plan.dtype}")
    scatter(x, place, out, plan.stored)
    return out


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

    x: an array, a tensor, a sparse matrix of SciPy, or whatever NumPy makes an array of.
    Raises DataError as `Reading.of` and `classes` do, or if there are fewer than 3 rows.
    """
    return _shuffled(in_memory(as_array(x, name)), y, name, name, Reading(values, axes, seed))


def as_array(x: Any, where: str) -> Array:
    """What NumPy makes of x: of a tensor its numbers, of a sparse matrix all of them."""
    if is_sparse(x):
        return densified(x, where)
    with damage.reading(where, "numbers", "Give one array (N, ...); rows with labels as TensorDataset(x, labels)."):
        return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def _shuffled(x: Pieces, y: Any, name: str, where: str, reading: Reading) -> Dataset:
    """As `array_dataset`; errors say `where`."""
    plan, n = reading.of(x, where), len(x)
    labels, names = (None, None) if y is None else classes(np.asanyarray(y), n, where)
    train, validation, _ = tenths(n, where)
    rows = _ordered(x, labels, permutation(n, reading.seed), plan, where)
    parts = Parts(rows[:train], rows[train : train + validation], rows[train + validation :])
    return Dataset(name, *parts.splits(plan.values, where), plan.recipe, names)


def _ordered(x: Pieces, labels: Array | None, order: NDArray[np.int64], plan: Plan, where: str) -> Rows:
    """The rows `order[0]`, `order[1]`, ... with their labels."""
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Rows(store(x, place, plan, where), None if labels is None else labels[order], order)


def load_array(path: Path, *, values: str | None = None, axes: str | None = None, seed: int = 0) -> Dataset:
    """The data set in a .npy or .npz file; see `array_dataset`.

    A .npz has the rows as x, X, data, images or its only array, and the labels as y, labels or target; or it is a
    sparse matrix of SciPy; or it is split already, as x_train, y_train, x_test, y_test and perhaps x_val, y_val (if
    not, the seed draws a tenth of train for it).
    Warns of arrays that are left out.
    Raises DataError naming the file if it is damaged, needs pickle, or has no such arrays.
    """
    arrays, reading = arrays_in(path), Reading(values, axes, seed)
    given = {part: name for part in PARTS if (name := pick(arrays, part_names(part))) is not None}
    if given:
        return _presplit(path, arrays, given, reading)
    x, y = only(arrays, path), pick(arrays, Y_NAMES)
    warn_of_unused(path, arrays, [x, y])
    return _shuffled(arrays[x], _labels_in(path, arrays, y), path.stem, str(path), reading)


def part_names(part: str, kinds: tuple[str, ...] = X_NAMES) -> tuple[str, ...]:
    """The names that the rows of a part may have: x_train, train_x, data_train, ..."""
    return tuple(name for kind in kinds for name in (f"{kind}_{part}", f"{part}_{kind}"))


def pick(arrays: Mapping[str, Pieces], names: Iterable[str]) -> str | None:
    """The first of the names that an array has."""
    return next((name for name in names if name in arrays), None)


def only(arrays: Mapping[str, Pieces], path: Path) -> str:
    """The name of the rows among the arrays of an unsplit file."""
    rest = [name for name in arrays if name not in Y_NAMES]
    x = pick(arrays, X_NAMES)
    if x is None and len(rest) != 1:
        raise DataError(f"{path} holds the arrays {', '.join(arrays) or 'none'}: name the one with the rows x")
    return x or rest[0]


def warn_of_unused(path: Path, arrays: Mapping[str, Pieces], used: Iterable[str | None]) -> None:
    """Say which arrays of a file are left out."""
    unused = sorted(set(arrays) - set(used))
    if unused:
        warnings.warn(
            f"{path}: left out, the arrays {', '.join(unused[:5])} ({len(unused):,} in all). Rows are called x, and"
            " labels y.",
            AevbWarning,
            stacklevel=2,
        )


def _labels_in(path: Path, arrays: Mapping[str, Pieces], name: str | None) -> Array | None:
    return None if name is None else arrays[name].whole(path)


def _presplit(path: Path, arrays: Mapping[str, Pieces], given: Mapping[str, str], reading: Reading) -> Dataset:
    """A file that is split already; `given` are the names of the rows of its parts."""
    held = _check_parts(path, arrays, given)
    used = [given["train"], *([given[held]] if held else []), given["test"]]
    named = [pick(arrays, part_names(part, Y_NAMES)) for part in ("train", *([held] if held else []), "test")]
    warn_of_unused(path, arrays, [*used, *named])
    with damage.reading(path, "one array"):
        x = joined([arrays[name] for name in used])
    plan = reading.of(x, str(path))
    labels, names = _labels(path, arrays, named, len(x))
    ends = np.cumsum([len(arrays[name]) for name in used]).tolist()
    order, cut = np.arange(len(x)), ends[0]
    if held is None:  # a tenth of train, drawn by the seed
        order[: ends[0]] = permutation(ends[0], reading.seed)
        cut = ends[0] - tenths(ends[0], f"{path}, train")[1]
    rows = _ordered(x, labels, order, plan, str(path))
    parts = Parts(rows[:cut], rows[cut : ends[-2]], rows[ends[-2] :])
    return Dataset(path.stem, *parts.splits(plan.values, str(path)), plan.recipe, names)


def _check_parts(path: Path, arrays: Mapping[str, Pieces], given: Mapping[str, str]) -> str | None:
    """What the validation part is called, if there is one.  DataError for parts that are missing, empty or unlike."""
    lacking = [part for part in ("train", "test") if part not in given]
    if lacking:
        raise DataError(
            f"{path} holds {', '.join(given.values())}, but no x_{lacking[0]}. Add x_{lacking[0]}; or give all rows as"
            " one array x, which is then split 80/10/10 %."
        )
    held = [part for part in given if part not in ("train", "test")]
    if len(held) > 1:
        raise DataError(f"{path} holds {' and '.join(given[part] for part in held)}: which is to validate? Keep one.")
    _check_shapes(path, {name: arrays[name].shape for name in given.values()})
    return held[0] if held else None


def _check_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise a `DataError` for splits without numbers, or whose rows differ in shape."""
    empty = [name for name, shape in shapes.items() if not math.prod(shape)]
    if empty:
        raise DataError(f"{path}: {empty[0]} has shape {shapes[empty[0]]}: no numbers. Fill it, or leave it out.")
    if len({shape[1:] for shape in shapes.values()}) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DataError(f"{path}: the splits differ in the shape of a row ({listed})")


def _labels(
    path: Path, arrays: Mapping[str, Pieces], named: list[str | None], n: int
) -> tuple[Array | None, tuple[str, ...] | None]:
    """The labels of all parts together.  DataError if only some have them."""
    labels = [arrays[name].whole(path) for name in named if name is not None]
    if not labels:
        return None, None
    if len(labels) < len(named):
        raise DataError(f"{path}: only some of the splits have labels. Add y_train, y_test and so on, or leave all out")
    with damage.reading(path, "labels"):
        together = np.concatenate(labels)
    return classes(together, n, str(path))
