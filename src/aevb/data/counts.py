"""Counts of molecules in cells: .h5ad files, of which the matrix and the names of its columns are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from aevb.data.damage import reading
from aevb.data.sparse import densified
from aevb.errors import DataError

PLACES = ("X", "layers/counts", "layers/raw_counts", "layers/raw", "raw/X")  # where counts are, in this order


def read_counts(path: Path) -> tuple[Any, dict[str, str], tuple[str, ...]]:
    """The matrix of an .h5ad file as an Arrow table, the kinds of its columns, and notes.

    Where X holds no whole numbers, counts are looked for in `layers` and `raw`. Observations, such as cell types, are
    no columns: `read_observations` gives them.
    """
    found: tuple[Any, dict[str, str], tuple[str, ...]] = opened(path, _counts)
    return found


def read_observations(path: Path) -> Any:
    """The columns that describe the rows of an .h5ad file (`obs`), as an Arrow table."""
    return opened(path, lambda file: pa.table(frame_in(file["obs"])))


def opened(path: Path, read: Callable[[Any], Any]) -> Any:
    """What a function reads from a file of HDF5.  DataError: it is damaged, or h5py is not there."""
    try:
        import h5py
    except ImportError as fault:
        raise DataError(f"{path} is read by h5py, which is not installed: pip install 'aevb[counts]'.") from fault
    with reading(path, "an .h5ad file"), h5py.File(path, "r") as file:
        return read(file)


def _counts(file: Any) -> tuple[Any, dict[str, str], tuple[str, ...]]:
    place = next((place for place in PLACES if place in file and whole(matrix(file[place]))), "")
    x = matrix(file[place or "X"])
    names = names_of(file["raw/var"] if place == "raw/X" else file["var"])
    kinds = dict.fromkeys(names, "count") if place else {}
    kept = np.int64 if place else x.dtype
    table = pa.table([np.ascontiguousarray(c).astype(kept) for c in x.T], names=names)
    return table, kinds, (*said_of(place), *observed(file))


def said_of(place: str) -> list[str]:
    """What is to be said of where the numbers are."""
    if not place:
        return ["X holds no whole numbers: it is read as it is."]
    return [] if place == "X" else [f"X holds no counts: they are read from {place}."]


def observed(file: Any) -> list[str]:
    """What is to be said of the columns that describe the rows."""
    names = [name for name in file.get("obs", ()) if name != index_of(file["obs"])]
    return [f"Columns of observations are not read: {', '.join(names[:10])}."] if names else []


def matrix(item: Any) -> Any:
    """A matrix (N, F) that is stored dense, or by rows or columns."""
    if hasattr(item, "shape"):
        return item[...]
    from scipy.sparse import csc_matrix, csr_matrix

    shape = tuple(item.attrs.get("shape", item.attrs.get("h5sparse_shape")))
    by_columns = b"csc" in text(item.attrs.get("encoding-type", item.attrs.get("h5sparse_format", "csr"))).encode()
    parts = (item["data"][...], item["indices"][...], item["indptr"][...])
    return densified((csc_matrix if by_columns else csr_matrix)(parts, shape=shape), item.name)


def whole(x: Any) -> bool:
    return bool(x.size and (x >= 0).all() and (x == np.trunc(x)).all())


def names_of(var: Any) -> list[str]:
    """The names of the columns."""
    if hasattr(var, "dtype"):  # as files of old were written
        field = next((name for name in ("index", "_index") if name in var.dtype.names), var.dtype.names[0])
        return [text(name) for name in var[field]]
    return [text(name) for name in var[index_of(var)][...]]


def index_of(group: Any) -> str:
    return text(group.attrs.get("_index", "index")) if hasattr(group, "keys") else "index"


def frame_in(obs: Any) -> dict[str, Any]:
    """The columns of a frame: categories as levels, text as text, numbers as they are."""
    out: dict[str, Any] = {}
    for name in obs:
        item = obs[name]
        if hasattr(item, "keys") and "codes" in item:
            codes = item["codes"][...].astype(np.int32)
            levels = pa.array([text(level) for level in item["categories"][...]])
            out[name] = pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), levels)
        elif hasattr(item, "dtype"):
            values = item[...]
            out[name] = pa.array([text(v) for v in values]) if values.dtype.kind in "OS" else pa.array(values)
    return out


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
