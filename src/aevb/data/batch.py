"""What travels: a minibatch, and anything that gives minibatches for row numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

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

    def __getitem__(self, rows: slice) -> Batch:
        y, numbers = (None if part is None else part[rows] for part in (self.y, self.rows))
        return Batch(self.x[rows], y, numbers, self.of)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        y, rows = (None if part is None else part.to(device) for part in (self.y, self.rows))
        return Batch(self.x.to(device), y, rows, self.of)

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


def fixed(data: Indexable) -> Indexable:
    """The data with rows that are the same at every reading, drawn by a fixed seed where they are dynamic."""
    return data.frozen() if isinstance(data, Fixable) else data


@runtime_checkable
class Measured(Protocol):
    """Data whose numbers x come of stored numbers s by a map that stretches densities."""

    @property
    def log_abs_det(self) -> float: ...


def log_abs_det(data: Indexable) -> float:
    """log |det ∂x/∂s| in nats, for log p(s) = log p(x) + log |det ∂x/∂s|; 0 where the data are x as they stand."""
    return data.log_abs_det if isinstance(data, Measured) else 0.0


def as_batch(data: Data) -> Batch:
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
    n, item = look(data, device)
    data, size = fixed(data), size or rows_at_once(item.x.shape[1:])
    for start in range(0, n, size):
        batch = take(data, torch.arange(start, min(start + size, n), device=device))
        for part in (batch.x, *batch.contexts):
            check_type(part, dtype)
            check_finite(part, start)
        yield batch


def count_rows(data: Indexable, device: torch.device | str = "cpu") -> int:
    """N, after one look whether the data give a batch for row numbers; errors as of `look`."""
    return look(data, device)[0]


def look(data: Indexable, device: torch.device | str = "cpu") -> tuple[int, Batch]:
    """N, and the first and the last row, read by their numbers.

    Raises:
        DataError: they do not, or there are no rows.
    """
    if isinstance(data, Tensor):
        check_type(data)
    try:
        n = len(data)
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


FORMS = "Data are a tensor (N, ...), a split, Pairs, or an object that gives a batch for a tensor of row numbers"


def remedy(data: object) -> str:
    """How to make a tensor of something else."""
    return REMEDIES.get(type(data).__name__, "Put its data points into one tensor, as in torch.stack(points).")


REMEDIES = {
    "ndarray": "Convert, as in torch.as_tensor(x).float().",
    "memmap": "Convert, as in torch.as_tensor(x).float().",
    "list": "Convert, as in torch.tensor(x).float().",
    "tuple": "Take the tensor out of it; for x with conditions y take aevb.Pairs(x, y).",
    "DataFrame": "Convert, as in torch.tensor(table.to_numpy()).float().",
    "Dataset": "Take one of its splits, as in data.train.",
    "DataLoader": "Take the tensor that it reads: aevb makes its own minibatches.",
}


def check_type(x: Tensor, dtype: torch.dtype | None = None) -> None:
    """Raise a `DataError` unless x (B, *X) is a dense floating-point tensor of this type, with one axis or more per
    row.

    Of a model in half precision float32 fits too: its densities are in float32.
    """
    if x.layout != torch.strided:
        raise DataError(f"Dense tensors are needed; got the layout {x.layout}. Convert, as in x.to_dense().")
    if not x.is_floating_point():
        raise DataError(
            f"Floating-point data are needed; got {x.dtype}. Convert, as in x.float(), or grey "
            f"levels as in x.float() / 255."
        )
    if dtype is not None and x.dtype != dtype and not (dtype.itemsize < 4 and x.dtype == torch.float32):
        raise DataError(f"The data are {x.dtype}, the model's parameters {dtype}. Convert one, as in x.to({dtype}).")
    if x.ndim < 2:
        raise DataError(
            f"Rows are needed, x (N, ...); got the shape {tuple(x.shape)}. For N rows "
            f"of one number take x.unsqueeze(1)."
        )


def check_finite(x: Tensor, first: int = 0) -> None:
    """Raise a `DataError` that says which rows of x (B, *X) hold NaN or infinity; `first` is the number of the first
    row."""
    if not x.numel() or bool(
        torch.isfinite(torch.stack(x.aminmax())).all()
    ):  # several times faster than number by number
        return
    bad = ~torch.isfinite(x.reshape(len(x), -1))
    rows = bad.any(1).nonzero().flatten() + first
    raise DataError(
        f"The data hold {int(bad.sum())} NaN or infinite values in {name_rows(rows)}. Remove these "
        f"rows, or fill them first."
    )


def name_rows(rows: Tensor, most: int = 5) -> str:
    """«row 228»; «4 rows (3, 70, 99, 100)»; of more than `most` the first ones."""
    shown = ", ".join(str(int(r)) for r in rows[:most]) + (", ..." if len(rows) > most else "")
    return f"row {shown}" if len(rows) == 1 else f"{len(rows)} rows ({shown})"
