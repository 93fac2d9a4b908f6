"""What travels: a minibatch, and anything that gives minibatches for row numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from aevb.data.forms import by_items, rows_of
from aevb.data.randomness import seeded
from aevb.errors import AevbError, DataError, ShapeError

MOST_ROWS, MOST_NUMBERS = (
    500,
    2**21,
)  # encoded or decoded at a time; features of convolutions take some forty times as much


@dataclass(frozen=True, eq=False)
class Batch:
    """A minibatch of B data points.

    Attributes:
        x: (B, *X), the data.
        y: (B, *C), what x is conditioned on, such as a one-hot label; None for an unconditional model.
        rows: (B,), the row numbers of x in the data.
        of: N, the number of rows in the data; 0 where it is not known.
    """

    x: Tensor
    y: Tensor | None = None
    rows: Tensor | None = None
    of: int = 0

    def __post_init__(self) -> None:
        if self.y is not None and len(self.y) != len(self.x):
            raise ShapeError(f"Batch: {len(self.x)} data points need as many conditions y; got {len(self.y)}.")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        y, numbers = (None if part is None else part[rows] for part in (self.y, self.rows))
        return Batch(self.x[rows], y, numbers, self.of)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        y, rows = (None if part is None else part.to(device) for part in (self.y, self.rows))
        return Batch(self.x.to(device), y, rows, self.of)

    def as_type(self, dtype: torch.dtype) -> Batch:
        """The same batch in this floating-point type."""
        x, y = (None if part is None else part.to(suitable(part, dtype)) for part in (self.x, self.y))
        return self if x is self.x and y is self.y else Batch(cast(Tensor, x), y, self.rows, self.of)

    @property
    def contexts(self) -> tuple[Tensor, ...]:
        """(y,), or () without one: what networks read beside x or z."""
        return () if self.y is None else (self.y,)


Data = Tensor | Batch  # x (B, *X) alone, or a batch


class Indexable(Protocol):
    """Data: a tensor (N, *X), a `Split`, `Pairs`, or anything with a length that gives a batch for an index tensor."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Tensor, /) -> Data: ...


@runtime_checkable
class Fixable(Protocol):
    """Data whose rows may be drawn anew at each reading, such as a `Split` of dynamic pixels."""

    def frozen(self, seed: int = 0) -> Indexable: ...


def fixed(data: Indexable, seed: int = 0) -> Indexable:
    """The data with rows that are the same at every reading, drawn by a fixed seed where they are dynamic."""
    return data.frozen(seed) if isinstance(data, Fixable) else data


@runtime_checkable
class Measured(Protocol):
    """Data whose numbers x come of stored numbers s by a map that stretches densities."""

    def __len__(self) -> int: ...
    @property
    def log_abs_dets(self) -> Tensor: ...


def log_abs_dets(data: Indexable) -> Tensor:
    """log |det ∂x/∂s| of each row (N,) in nats, for log p(s) = log p(x) + log |det ∂x/∂s|; 0 of data that are x."""
    return data.log_abs_dets if isinstance(data, Measured) else torch.zeros(len(data), dtype=torch.float64)


def log_abs_det(data: Indexable) -> float:
    """The mean of `log_abs_dets` over the rows, in nats."""
    return float(log_abs_dets(data).mean()) if len(data) else 0.0


def suitable(part: Tensor, dtype: torch.dtype) -> torch.dtype:
    """The type in which a model with parameters of type `dtype` reads numbers.

    Of a model in half precision float32 fits too: its densities are in float32.
    """
    if part.is_complex() or part.layout != torch.strided or (dtype.itemsize < 4 and part.dtype == torch.float32):
        return part.dtype
    return dtype


@dataclass(frozen=True, eq=False)
class Read:
    """Rows as a model reads them: on its device, in its type; an item is a `Batch`.

    Attributes:
        rows: `Rows`, or data that give a batch for row numbers.
        holes: whether x may hold NaN, a missing cell.
    """

    rows: Any
    device: torch.device | str = "cpu"
    dtype: torch.dtype | None = None
    holes: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor) -> Batch:
        item = self.rows[index.to(_home(self.rows))]
        return _brought(Batch(*item) if isinstance(item, tuple) else as_batch(item), self.device, self.dtype)

    @property
    def log_abs_dets(self) -> Tensor:
        return log_abs_dets(self.rows)

    def frozen(self, seed: int = 0) -> Read:
        """With rows drawn once, where they are dynamic."""
        return replace(self, rows=fixed(self.rows, seed))


def _home(data: Any) -> torch.device | str:
    """Where data take row numbers: on the device of their tensor."""
    for part in (data, *(getattr(data, name, None) for name in ("stored", "y"))):
        if isinstance(part, Tensor):
            return part.device
    return "cpu"


def readable(data: Any, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Indexable:
    """Data of any form as ones that give a batch for row numbers, on a model's device and in its type.

    What fits is handed back as it is; of all else rows are converted when they are read.

    Raises:
        DataError: they have no rows, or none that are numbers.
    """
    return looked_at(data, device, dtype)[0]


def looked_at(
    data: Any, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[Indexable, Batch]:
    """`readable` data, and their first and last row."""
    rows, item = _ends(data, device, dtype)
    check_rows(item.x, len(rows))
    if rows is data and _fits(item, device, dtype):
        return data, item
    return Read(rows, device, dtype, has_holes(rows)), _brought(item, device, dtype)


def _ends(data: Any, device: torch.device | str, dtype: torch.dtype | None) -> tuple[Any, Batch]:
    """Data that are read by row numbers: these, or the rows of these; and their first and last row."""
    rows = rows_of(data)
    if rows is None:
        try:
            return data, look(data, device)[1]
        except DataError:
            if not _has_items(data):
                raise
        rows = by_items(data)
    return rows, look(Read(rows, device, dtype), device)[1]


def _brought(batch: Batch, device: torch.device | str, dtype: torch.dtype | None) -> Batch:
    """A batch on a device, in a type where one is given."""
    return batch.to(device) if dtype is None else batch.to(device).as_type(dtype)


def _fits(item: Batch, device: torch.device | str, dtype: torch.dtype | None) -> bool:
    parts = (item.x, *item.contexts)
    same = all(dtype is None or part.dtype == suitable(part, dtype) for part in parts)
    return same and all(part.device == torch.device(device) for part in parts)


def _has_items(data: Any) -> bool:
    """Whether data give one item for one row number."""
    if isinstance(data, Tensor | Batch | Read) or type(data).__name__ in REMEDIES:
        return False
    try:
        return bool(len(data)) and data[0] is not None
    except Exception:  # whatever another library raises for an index that it does not take
        return False


def as_batch(data: Any) -> Batch:
    """A tensor x (B, *X) as a `Batch`; a `Batch` as it is.

    Raises:
        DataError: it is neither.
    """
    if isinstance(data, Tensor):
        return Batch(data)
    if isinstance(data, Batch):
        return data
    raise DataError(f"A batch is a tensor (B, ...) or an aevb.Batch; got {type(data).__name__}. {remedy(data)}")


def take(data: Indexable, rows: Tensor) -> Batch:
    """The batch of these rows (B,), which knows their numbers, and of how many rows they are."""
    batch = as_batch(data[rows])
    return Batch(batch.x, batch.y, rows, len(data))


def rows_at_once(shape: Sequence[int]) -> int:
    """How many data points of this shape to pass through a network at a time: 500, fewer of large ones."""
    return max(1, min(MOST_ROWS, MOST_NUMBERS // math.prod(shape)))


def batches(
    data: Indexable, size: int | None, device: torch.device | str, dtype: torch.dtype | None = None
) -> Iterator[Batch]:
    """The data in order and `fixed`, in batches of `size` rows, the last one perhaps smaller. Each is checked on its
    way.

    Args:
        size: None for as many as memory allows, see `rows_at_once`.
        dtype: of the model's parameters, which the data must have too, or float32 where it is half precision; any
            floating type if None.

    Raises:
        DataError: there are no rows; the data are no tensors of this type; or NaN or infinity in them.
    """
    data, item = looked_at(data, device, dtype)
    n, data, size = len(data), fixed(data), size or rows_at_once(item.x.shape[1:])
    holes = has_holes(data)
    for start in range(0, n, size):
        batch = take(data, torch.arange(start, min(start + size, n), device=device))
        for part in (batch.x, *batch.contexts):
            check_type(part, dtype)
            check_finite(part, start, holes and part is batch.x)
        yield batch


def has_holes(data: Any) -> bool:
    """Whether x of these data may hold NaN, a missing cell."""
    return bool(getattr(data, "holes", False))


def look(data: Indexable, device: torch.device | str = "cpu") -> tuple[int, Batch]:
    """N, and the first and the last row, read by their numbers.

    Raises:
        DataError: they do not, or there are no rows.
    """
    if isinstance(data, Tensor):
        check_rows(data)
    try:
        n = len(data)
        with seeded(0, device):  # dynamic pixels are drawn
            item = data[torch.tensor([0, n - 1], device=device)] if n else None
    except AevbError:
        raise
    except Exception as error:  # whatever another library raises for an index that it does not take
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise DataError(f"{FORMS}; got {type(data).__name__} ({why}). {remedy(data)}") from error
    if item is None:
        raise DataError("There are no data points: the data have length 0. Choose a split that has rows.")
    batch = as_batch(item)
    if len(batch) != 2:
        raise DataError(f"{FORMS}; got {type(data).__name__}, which gave {len(batch)} rows for 2. {remedy(data)}")
    return n, batch


FORMS = "Data are a tensor or an array (N, ...), a split, Pairs, a data set of rows, or a DataLoader of one"


def remedy(data: object) -> str:
    """How to make a tensor of something else."""
    return REMEDIES.get(type(data).__name__, "Put its data points into one tensor, as in torch.stack(points).")


NOTHING = "Give the data points as one array, a row for each, such as numpy.zeros((100, 5))."


REMEDIES = {
    "list": "Convert, as in numpy.array(x); a list of tensors, as in torch.stack(x).",
    "str": "To read a file, take aevb.load_data(path).",
    "PosixPath": "To read a file, take aevb.load_data(path).",
    "WindowsPath": "To read a file, take aevb.load_data(path).",
    "NpzFile": "Take an array out of it, as in file['x'].",
    "dict": "Take an array out of it, as in data['x'].",
    "NoneType": NOTHING,
    "float": NOTHING,
    "int": NOTHING,
    "generator": "Put its data points into one tensor, as in torch.stack(list(points)).",
    "tuple": "Take the tensor out of it; for x with conditions y take aevb.Pairs(x, y).",
    "DataFrame": "Convert, as in torch.tensor(table.to_numpy()).float().",
    "Dataset": "Take one of its splits, such as data.test.",
}


def check_type(x: Tensor, dtype: torch.dtype | None = None) -> None:
    """Raise a `DataError` unless x (B, *X) is a dense floating-point tensor of this type, with one axis or more per
    row.

    Of a model in half precision float32 fits too: its densities are in float32.
    """
    check_rows(x)
    if not x.is_floating_point():
        raise DataError(
            f"Floating-point data are needed; got {x.dtype}. Convert, as in x.float(), or grey "
            f"levels as in x.float() / 255."
        )
    if dtype is not None and x.dtype != suitable(x, dtype):
        raise DataError(f"The data are {x.dtype}, the model's parameters {dtype}. Convert one, as in x.to({dtype}).")


def check_rows(x: Tensor, n: int | None = None) -> None:
    """Raise a `DataError` unless x (B, *X), of N = `n` rows, is dense, of real numbers, with an axis or more per
    row."""
    if x.layout != torch.strided:
        raise DataError(f"Dense tensors are needed; got the layout {x.layout}. Convert, as in x.to_dense().")
    if x.is_complex():
        raise DataError(f"Real numbers are needed; got {x.dtype}. Give real and imaginary parts, as in view_as_real.")
    if x.ndim < 2:
        shape = (len(x) if n is None else n,) * x.ndim
        raise DataError(
            f"Rows are needed, x (N, ...); got the shape {shape}. For N rows of one number take x.unsqueeze(1), for one"
            " row x.unsqueeze(0)."
        )


def check_finite(x: Tensor, first: int = 0, holes: bool = False) -> None:
    """Raise a `DataError` that says which rows of x (B, *X) hold NaN or infinity; `first` is the number of the first
    row. With `holes` NaN is a missing cell."""
    if holes:
        x = torch.where(x.isnan(), 0.0, x)
    if not x.numel() or bool(
        torch.isfinite(torch.stack(x.aminmax())).all()
    ):  # several times faster than number by number
        return
    bad = ~torch.isfinite(x.reshape(len(x), -1))
    rows = bad.any(1).nonzero().flatten() + first
    most = torch.finfo(x.dtype).max
    beyond = f" A number above {most:.1e} is infinite in {x.dtype}: change its unit, or standardise."
    raise DataError(
        f"The data hold {int(bad.sum())} NaN or infinite values in {name_rows(rows)}. Remove these "
        f"rows, or fill them first.{'' if bool(x.isnan().any()) else beyond}"
    )


def name_rows(rows: Tensor, most: int = 5) -> str:
    """«row 228»; «4 rows (3, 70, 99, 100)»; of more than `most` the first ones."""
    shown = ", ".join(str(int(r)) for r in rows[:most]) + (", ..." if len(rows) > most else "")
    return f"row {shown}" if len(rows) == 1 else f"{len(rows)} rows ({shown})"
