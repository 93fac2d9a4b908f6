"""All rows of a source in the order in which it holds them, read as the data of a finished model were."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import DTypeLike

from aevb.data.addresses import reaching
from aevb.data.arrays import PARTS, Y_NAMES, as_int64, numbers, only, part_names, pick
from aevb.data.classes import label_name
from aevb.data.columns import Schema
from aevb.data.damage import reading
from aevb.data.dataset import Dataset, Split
from aevb.data.endings import is_table
from aevb.data.images import decode, load_images, suffixes
from aevb.data.npfiles import arrays_in
from aevb.data.pictures import Fit
from aevb.data.pieces import Array, Pieces, in_memory, joined
from aevb.data.randomness import derive
from aevb.data.room import changed, room, whole
from aevb.data.sources import SOURCES, load_data
from aevb.data.splits import UNSHUFFLED
from aevb.data.splits import tensor as as_tensor
from aevb.data.tabular import numbers_of
from aevb.data.values import Values
from aevb.errors import AevbWarning, DataError

if TYPE_CHECKING:
    from aevb.data.tables import Frame


@dataclass(frozen=True)
class Unsplit:
    """The rows of a source as it holds them.

    Attributes:
        where: what to call the source in messages.
        x: (N, *), numbers of any type.
        labels: what the class of each row is called, (N); None where there are no labels.
        files: the file of each row, (N), where rows are pictures; else None.
        frame: the table, where the source is one; x is then its numbers, or (N, 0) where it holds others.
    """

    where: str
    x: Array
    labels: tuple[str, ...] | None = None
    files: tuple[str, ...] | None = None
    frame: Frame | None = None


@reaching
def read_unsplit(
    source: str, data_dir: str | Path | None = None, fit: Fit = Fit(), schema: Schema | None = None
) -> Unsplit:
    """All rows of a table, an array, a folder or .zip of pictures, one picture, or a data set known by name.

    The parts of a data set that is split already follow one another: train, validation, test. Pictures are in the
    order of their names, and brought to one size by `fit`. Words of a text file are read by the `schema` of a model.
    Raises DataError as `load_data` does.
    """
    path = Path(source).expanduser()
    if source not in SOURCES and (path.is_dir() or path.is_file()):
        kind = path.suffix.lower()
        if is_table(path):
            return _table(path, schema)
        if path.is_dir() or kind == ".zip":
            return _pictures(path, fit)
        if kind in suffixes():
            return _picture(path, source, fit)
        if kind in (".npy", ".npz"):
            return _arrays(path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(constant in the train rows|have no train rows)", AevbWarning)
        data = load_data(source, values="standardized", data_dir=data_dir, seed=UNSHUFFLED)  # loses no digits
    return _whole(data, source)


def _table(path: Path, schema: Schema | None) -> Unsplit:
    from aevb.data.tables import read_frame

    frame = read_frame(path, schema)
    try:
        x = numbers_of(frame)
    except DataError:
        x = np.empty((len(frame), 0))
    return Unsplit(str(path), x, frame=frame)


def _picture(path: Path, source: str, fit: Fit) -> Unsplit:
    x = decode(path.parent, [path.name], lambda name: (path.parent / name).open("rb"), fit).x
    return Unsplit(source, x, None, (path.name,))


def _pictures(path: Path, fit: Fit) -> Unsplit:
    images = load_images(path, fit)
    called = images.class_names
    labels = None if images.labels is None or called is None else tuple(called[c] for c in images.labels.tolist())
    return Unsplit(str(path), images.x, labels, images.files)


def _arrays(path: Path) -> Unsplit:
    arrays = arrays_in(path)
    given = [(part, name) for part in PARTS if (name := pick(arrays, part_names(part))) is not None]
    if not given:
        return Unsplit(str(path), whole(arrays[only(arrays, path)], path), _called(path, arrays, pick(arrays, Y_NAMES)))
    labels = [_called(path, arrays, pick(arrays, part_names(part, Y_NAMES))) for part, _ in given]
    known = None if None in labels else tuple(name for part in labels if part is not None for name in part)
    with reading(path, "one array"):
        return Unsplit(str(path), whole(joined([arrays[name] for _, name in given]), path), known)


def _called(path: Path, arrays: Mapping[str, Pieces], name: str | None) -> tuple[str, ...] | None:
    return None if name is None else tuple(map(label_name, arrays[name].whole(path).reshape(-1).tolist()))


def _whole(data: Dataset, source: str) -> Unsplit:
    """The rows of a data set that was cut without a shuffle."""
    parts = [data.train, data.validation, data.test]
    x = np.concatenate([part.stored.numpy() for part in parts])
    known = [part.labels for part in parts if part.labels is not None]
    labels = [c for part in known for c in part.tolist()] if len(known) == len(parts) else None
    called = data.class_names
    return Unsplit(source, x, None if labels is None else tuple(called[c] if called else str(c) for c in labels))


@dataclass(frozen=True)
class Reader:
    """How a finished model reads data: with its own mean and std, not with those of the rows.

    Attributes:
        shape: *X of the model's data.
        values: what their numbers mean.
        axes: "last" where the channels of its arrays were last; it decides where both readings fit.
        name: what to call the model in messages.
    """

    shape: tuple[int, ...]
    values: Values
    axes: str = ""
    name: str = "the model"

    def split(self, new: Unsplit) -> Split:
        """The rows in their order. Dynamic pixels become bits whose noise is a function of the row alone.

        Raises DataError, naming what differs, where the rows do not fit.
        """
        if self.values.kind == "columns":
            return self.of_columns(new)
        x = self.stored(self.in_shape(new), new.where)
        split = Split(as_tensor(x), None, self.values)
        return binarized_by_row(split) if self.values.kind == "dynamic" else split

    def of_columns(self, new: Unsplit) -> Split:
        """The rows of a table, by the schema of the model. What is to be said of new categories and holes is warned of.

        Raises DataError where a column is not there, or holds what is none of its kind.
        """
        from aevb.data.frames import stored
        from aevb.data.tables import frame_of

        frame = frame_of(new.x, new.where) if new.frame is None else new.frame  # one without rows is False
        rows, notes = stored(self.values.columns, frame)
        for note in notes:
            warnings.warn(note, AevbWarning, stacklevel=2)
        return Split(as_tensor(rows), None, self.values)

    def in_shape(self, new: Unsplit) -> Array:
        """The rows as (N, *X), channels first; grey pictures serve a model of colours."""
        x = np.asarray(new.x)
        grey = new.files is not None and self.shape[0] == 3 and x.shape[1] == 1
        readings = [np.broadcast_to(x, (len(x), 3, *x.shape[2:]))] if grey else self.readings(x)
        fitting = [reading for reading in readings if reading.shape[1:] == self.shape]
        if not fitting:
            raise DataError(f"{new.where}: {self.another_shape(x.shape, new.files is not None)}")
        chosen = fitting[-1] if self.axes == "last" else fitting[0]
        return chosen if chosen.flags.c_contiguous else changed(chosen, np.ascontiguousarray, new.where)

    def readings(self, x: Array) -> list[Array]:
        """The ways to read an array's axes: of images the channels may be missing, in the second place, or last."""
        if len(self.shape) == 3 and x.ndim == 3:
            return [x[:, None]]
        return [x, x.transpose(0, 3, 1, 2)] if len(self.shape) == 3 and x.ndim == 4 else [x]

    def another_shape(self, came: tuple[int, ...], pictures: bool) -> str:
        """What to say of rows of another shape."""
        shape = self.shape
        if pictures and len(shape) == 3:
            return f"the pictures are {_size(came[1:])}, but {self.name} reads {_size(shape)}. Convert them first."
        if came == shape:
            return f"this is one row of shape {came}. Give an array of rows, of shape {(1, *shape)}."
        if len(shape) == 1 and len(came) == 2:
            return f"the rows have {came[1]} columns, but {self.name} reads {shape[0]}. Give those it was trained on."
        wanted = ", ".join(map(str, ("N", *shape)))
        return f"the array has shape {came}, but {self.name} reads rows of shape ({wanted}). Reshape it first."

    def stored(self, x: Array, where: str) -> Array:
        """Rows in the type that the values read: real numbers, bits, levels, or fractions."""
        x, values = numbers(x, where), self.values
        if values.support == "real":
            return _real(x, values, where)
        fractions, top = values.divisor == 1.0 and values.levels != 2, values.levels - 1
        theirs = "fractions from 0 to 1" if fractions else f"whole numbers from 0 to {top}"
        if not (_fractions(x) if fractions else _levels(x, top)):
            came = f"{x.dtype} numbers from {x.min():.4g} to {x.max():.4g}"
            raise DataError(f"{where} holds {came}, but {self.name} reads {theirs}. Bring them to that form first.")
        return _as_type(x, np.float32 if fractions else np.uint8, where)


def _size(shape: Sequence[int]) -> str:
    colours = {1: "in grey", 3: "in colour"}.get(shape[0], f"of {shape[0]} channels")
    return f"{shape[2]}×{shape[1]} pixels (width × height) {colours}"


def _fractions(x: Array) -> bool:
    return bool(x.min() >= 0 and x.max() <= 1)


def _levels(x: Array, top: int) -> bool:
    """Whether these are levels 0 to `top`. Floats up to 1 are not: the 1 may be the largest level, or the least."""
    doubtful = top > 1 and x.dtype.kind == "f" and x.max() <= 1
    steps = all(bool((piece == np.trunc(piece)).all()) for piece in in_memory(x))
    return not doubtful and steps and bool(x.min() >= 0 and x.max() <= top)


def _as_type(x: Array, dtype: DTypeLike, where: str) -> Array:
    return x if x.dtype == dtype else changed(x, lambda piece: piece.astype(dtype), where)


def _real(x: Array, values: Values, where: str) -> Array:
    if values.kind == "standardized":
        plain = values.origin is None and not values.offset
        return x if plain else changed(x, lambda piece: as_int64(piece, values.offset), where)
    return x if x.dtype == np.uint8 else _as_type(x, np.float32, where)


def binarized_by_row(split: Split, seed: int = 0) -> Split:
    """One binarization of all rows, fixed, in which a row's bits depend on its own numbers and the seed alone."""
    bits = torch.from_numpy(room(split.stored.shape, "uint8", "The new data", f"{len(split):,} rows of bits"))
    for out, row in zip(bits, split.stored, strict=True):
        content = hashlib.blake2b(row.numpy().tobytes(), digest_size=8).hexdigest()
        generator = torch.Generator().manual_seed(derive(seed, "bits", content))
        out.copy_(torch.rand(row.shape, generator=generator) < split.values.probability(row))
    return replace(split, stored=bits, values=replace(split.values, kind="threshold", levels=2, divisor=1.0))
