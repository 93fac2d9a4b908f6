"""What users hold, read by row numbers: NumPy arrays and memory maps, data sets of PyTorch, and its loaders.

Nothing is copied as a whole: rows become tensors when they are read. A data set's item is x, (x,) or (x, y). A vector y
is the condition of x; a single number is a label, which no model reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, Subset, TensorDataset
from torch.utils.data import Dataset as MapStyle
from torch.utils.data.dataloader import default_collate

from aevb.errors import DataError, ShapeError

Pair = tuple[Tensor, Tensor | None]  # x (B, *X), and y (B, *C) where there is one


@dataclass(frozen=True)
class Rows:
    """N rows, of which some are read at a time.

    Attributes:
        n: N; read: row numbers (B,) → x, or x and y, or a batch.
    """

    n: int
    read: Callable[[Tensor], Any]

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, rows: Tensor) -> Any:
        return self.read(rows)


@dataclass(frozen=True)
class Chosen:
    """Some rows, by their numbers, of data that give a batch for row numbers."""

    source: Any
    numbers: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: Tensor) -> Any:
        return self.source[self.numbers[rows.cpu()]]

    @property
    def log_abs_dets(self) -> Tensor:
        """Those of the source."""
        of_all = getattr(self.source, "log_abs_dets", torch.zeros(len(self.source), dtype=torch.float64))
        chosen: Tensor = of_all[self.numbers]
        return chosen

    @property
    def holes(self) -> bool:
        """Whether the source may hold missing cells."""
        return bool(getattr(self.source, "holes", False))

    def frozen(self, seed: int = 0) -> Chosen:
        """With rows drawn once, where those of the source are dynamic."""
        freeze = getattr(self.source, "frozen", None)
        return self if freeze is None else Chosen(freeze(seed), self.numbers)


@singledispatch
def rows_of(data: object) -> Rows | Chosen | None:
    """The rows of what is no data for aevb as it stands; None of all else.

    Raises:
        DataError: it has no rows that are numbers.
    """
    return None


@rows_of.register
def _(data: np.ndarray) -> Rows:
    if data.dtype.kind not in "fiub":
        raise DataError(f"An array of numbers is needed; got one of the type {data.dtype}. Convert its columns first.")
    if not data.ndim:
        raise DataError("Rows are needed, x (N, ...); got an array of the shape (), which is a single number.")
    return Rows(len(data), lambda rows: (as_tensor(data[rows.cpu().numpy()]), None))


@rows_of.register
def _(data: TensorDataset) -> Rows:
    return Rows(len(data), lambda rows: pair_of(tuple(part[rows.to(part.device)] for part in data.tensors)))


@rows_of.register
def _(data: Subset) -> Chosen:  # type: ignore[type-arg]
    return _chosen(data.dataset, data.indices)


@rows_of.register
def _(data: IterableDataset) -> Rows:  # type: ignore[type-arg]
    raise DataError(
        f"Data are read by row numbers, which the stream {type(data).__name__} does not have. Read it into one tensor,"
        " as in torch.stack(list(stream))."
    )


@rows_of.register
def _(data: MapStyle) -> Rows:  # type: ignore[type-arg]
    return Rows(len(data), lambda rows: pair_of(_collated(data, rows)))  # type: ignore[arg-type]


@rows_of.register
def _(data: DataLoader) -> Rows | Chosen:  # type: ignore[type-arg]
    """The rows of the loader's data set: aevb makes minibatches of its own."""
    sampler, source = data.sampler, data.dataset
    if hasattr(sampler, "indices"):
        return _chosen(source, sampler.indices)
    if not isinstance(sampler, SequentialSampler | RandomSampler) and rows_of(source) is not None:
        raise DataError(
            f"aevb makes minibatches of its own, so the loader's {type(sampler).__name__} would have no effect."
            " Give its data set, as in loader.dataset."
        )
    if data.collate_fn is not default_collate and data.batch_size is not None:
        return Rows(len(source), lambda rows: pair_of(data.collate_fn(_items(source, rows))))  # type: ignore[arg-type]
    return _chosen(source, range(len(source)))  # type: ignore[arg-type]


def _chosen(source: Any, indices: Sequence[int]) -> Chosen:
    return Chosen(rows_of(source) or source, torch.as_tensor(list(indices), dtype=torch.int64))


def by_items(data: Any) -> Rows:
    """Rows of anything with a length that gives one item for one row number."""
    return Rows(len(data), lambda rows: pair_of(_collated(data, rows)))


def gathered(data: Any) -> tuple[Any, Tensor | None]:
    """All rows x (N, *X) of a data set of PyTorch or a loader, and their labels (N,) if its items have any.

    What is no data set of PyTorch is handed back as it is, without labels.

    Raises:
        DataError: an item has a vector y; it has more than two parts; or the rows cannot be read by their numbers.
    """
    if isinstance(data, DataLoader):
        data = _loaded(data)
    if not isinstance(data, MapStyle) or rows_of(data) is None:
        return data, None
    if not len(data):  # type: ignore[arg-type]
        raise DataError(f"The data set {type(data).__name__} has no rows.")
    x, *others = _collated(data, torch.arange(len(data)))  # type: ignore[arg-type]
    pair_of((x, *others))
    labels = others[0] if others else None
    if labels is not None and labels.ndim > 1 and labels.shape != (len(x), 1):
        raise DataError(
            f"An item of a data set is x, or x with a label, which is one number; got y of the shape"
            f" {tuple(labels.shape[1:])}. For conditions that are vectors take aevb.train with aevb.Pairs(x, y)."
        )
    return x, labels


def _loaded(loader: DataLoader[Any]) -> Any:
    """The data set of a loader, or the part of it that the loader's sampler reads."""
    rows_of(loader)  # refuses a sampler that would not be heard
    if loader.collate_fn is not default_collate and loader.batch_size is not None:
        raise DataError("A loader with a collate_fn of its own cannot be read here. Give its data set.")
    indices = getattr(loader.sampler, "indices", None)
    return loader.dataset if indices is None else Subset(loader.dataset, list(indices))


def _items(data: Any, rows: Tensor) -> list[Any]:
    return [data[row] for row in rows.tolist()]


def _collated(data: Any, rows: Tensor) -> Any:
    """The items of these rows side by side."""
    items = [tuple(item) if isinstance(item, tuple | list) else (item,) for item in _items(data, rows)]
    return tuple(_stacked(part, rows) for part in zip(*items, strict=True))


def _stacked(parts: Sequence[Any], rows: Tensor) -> Tensor:
    tensors = [as_tensor(part) for part in parts]
    shapes = [tuple(part.shape) for part in tensors]
    other = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
    if other is not None:
        raise ShapeError(
            f"All rows need one shape; row {int(rows[0])} has {shapes[0]}, row {int(rows[other])} has {shapes[other]}."
        )
    return torch.stack(tensors)


def pair_of(item: Any) -> Pair:
    """x and y of a batch of items; a y of single numbers is a label, and left out."""
    x, *others = item if isinstance(item, tuple | list) else (item,)
    if len(others) > 1:
        raise DataError(f"An item of a data set is x, or x with a condition y; got {len(others) + 1} parts.")
    y = as_tensor(others[0]) if others else None
    return as_tensor(x), None if y is None or y.ndim < 2 else y


def as_tensor(part: Any) -> Tensor:
    """Numbers as a tensor: NumPy's of any width and byte order, and masked ones as NaN.

    Raises:
        DataError: they are no numbers.
    """
    if isinstance(part, Tensor):
        return part
    try:
        array = np.ma.filled(part.astype(float), np.nan) if np.ma.isMaskedArray(part) else np.asarray(part)
        return torch.from_numpy(_native(array))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"An item of a data set is numbers, or a pair of x and a condition y; got {type(part).__name__}. Give the "
            "data set a transform to tensors."
        ) from error


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """An array that PyTorch can hold: its own types as they are, any other number as float64."""
    if array.dtype.isnative and array.dtype.name in ("float32", "float64", "uint8", "int64", "float16", "bool"):
        return array if array.flags.writeable and all(s >= 0 for s in array.strides) else array.copy()
    return array.astype(np.float64)
