"""Which sources are tables: by a file's ending, or by what an object offers.  Imports no library of frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEXT = (".csv", ".tsv", ".tab", ".data", ".txt", ".dat")
PARQUET = (".parquet", ".pq")
PACKED = (".gz", ".bz2", ".xz")
ENDINGS = (*TEXT, *PARQUET, ".h5ad")


def is_table(path: Path) -> bool:
    """Whether a path stands for a table: a file by its ending, a folder where it holds Parquet files."""
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
        seen = [file for file in files if visible(file, path)]
        return any(file.suffix.lower() in PARQUET for file in seen or files)
    return ending_of(path) in ENDINGS


def visible(file: Path, folder: Path) -> bool:
    """Whether no part of a file's path in a folder begins with "." or "_", as hidden and temporary ones do."""
    return file.is_file() and not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def ending_of(path: Path) -> str:
    """The suffix in small letters; of a compressed file that before .gz."""
    packed = path.suffix.lower() in PACKED
    return (Path(path.stem).suffix if packed else path.suffix).lower()


def is_frame(data: Any) -> bool:
    """Whether these are a frame of some library, or a dict of columns."""
    return isinstance(data, Mapping) or any(
        hasattr(data, name) for name in ("iloc", "__arrow_c_stream__", "lazy", "arrow")
    )
