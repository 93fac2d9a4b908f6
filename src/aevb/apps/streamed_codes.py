"""Codes, shares of clusters and reconstructions of long tables, some rows at a time: the numbers of the whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from aevb.apps import actions, outputs, show, streaming
from aevb.apps.rows import Asked, Found
from aevb.data.batch import rows_at_once
from aevb.data.frames import made
from aevb.data.parts import Parts
from aevb.data.spool import Spool

if TYPE_CHECKING:
    from torch import Tensor

    from aevb.models.inference import Model


def encode(asked: Asked, parts: Parts, model: Model, how: tuple[bool, int, int, str], out: Path | None) -> None:
    """Write what `encode_rows` writes of the whole: posterior means, shares of clusters, or draws.

    Args:
        how: shares of clusters or not; draws of each row, 0 for none; their seed; the device.
    """
    from aevb.use.encode import encode as encode_all

    clusters, draws, seed, device = how
    kind, letter = ("clusters", "p") if clusters else ("codes", "z")
    out = out or outputs.beside_run(asked.run, f"{kind}-{asked.stem}.npy")
    if draws and not clusters:
        return write_draws(asked, parts, model, (draws, seed, device), out)
    code = partial(actions.clusters, asked.run, model) if clusters else partial(encode_all, model)
    coded = Coding(parts.rows, ((found, code(found.data(device))) for found in streaming.pieces(asked, parts)))
    if out.suffix == ".csv":
        return write_code_table(coded, out, letter)
    outputs.write_parts(out, coded.save)
    return tell(out, (parts.rows, *coded.shape), coded.dtype)


def write_code_table(coded: Coding, out: Path, letter: str) -> None:
    """A .csv file with the row of each code, and its numbers."""

    def columns() -> Iterator[Mapping[str, Sequence[Any]]]:
        for found, z in coded:
            yield {"row": list(found.names), **{f"{letter}{i}": column.tolist() for i, column in enumerate(z.T)}}

    outputs.write_parts(out, lambda beside: streaming.write_columns(columns(), beside, ""))
    show.out.print(f"{out}: {coded.rows:,} rows, columns row, {letter}0 to {letter}{coded.shape[0] - 1}")


def tell(out: Path, shape: Sequence[int], dtype: str) -> None:
    show.out.print(f"{out}: {' × '.join(map(str, shape))}, {dtype}")


class Coding:
    """Numbers of all rows, some rows at a time.

    Attributes:
        rows: N; shape, dtype: of the numbers of a row, once some were seen.
    """

    def __init__(self, rows: int, parts: Iterable[tuple[Found, Any]]) -> None:
        self.rows, self.parts = rows, parts
        self.shape: tuple[int, ...] = ()
        self.dtype = ""

    def __iter__(self) -> Iterator[tuple[Found, Any]]:
        for found, numbers in self.parts:
            z = np.ascontiguousarray(numbers)
            self.shape, self.dtype = z.shape[1:], str(z.dtype)
            yield found, z

    def save(self, path: Path) -> None:
        """A .npy file of all numbers, (N, *Z)."""
        with path.open("wb") as file:
            for found, z in self:
                if not found.names[0]:
                    write_header(file, z.dtype, (self.rows, *self.shape))
                file.write(z.tobytes())


def write_header(file: IO[bytes], dtype: Any, shape: Sequence[int]) -> None:
    """How a .npy file begins."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(file, header)


def write_draws(asked: Asked, parts: Parts, model: Model, how: tuple[int, int, str], out: Path) -> None:
    """A .npy file of draws of all rows, (K, N, *Z): of each row K numbers that lie far apart in the file."""
    from aevb.use.encode import draws_of_parts

    samples, seed, device = how
    schema = asked.run.values(asked.data_dir).columns
    found = streaming.pieces(asked, parts, rows_at_once((len(schema.modelled),)))
    draws = draws_of_parts(model, (piece.data(device) for piece in found), samples, seed)
    shapes: list[tuple[int, ...]] = []

    def save(path: Path) -> None:
        with path.open("wb") as file:
            shapes.append(save_draws(file, draws, parts.rows))

    outputs.write_parts(out, save)
    tell(out, shapes[0], "float32")


def save_draws(file: IO[bytes], draws: Iterable[Tensor], rows: int) -> tuple[int, ...]:
    """Write draws (K, B, *Z) of some rows after others as one array (K, N, *Z), whose shape comes back."""
    start, origin, shape = 0, 0, ()
    for z in (np.ascontiguousarray(part.numpy()) for part in draws):
        if not start:
            shape = (len(z), rows, *z.shape[2:])
            write_header(file, z.dtype, shape)
            origin = file.tell()
        size = z[0, 0].nbytes
        for k, own in enumerate(z):
            file.seek(origin + (k * rows + start) * size)
            file.write(own.tobytes())
        start += z.shape[1]
    return shape


def reconstruct(asked: Asked, parts: Parts, model: Model, rows: int, out: Path, device: str) -> None:
    """Write the reconstructions of the first rows as a table, or as a .npy in the units of the data."""
    from aevb.use.reconstruct import reconstruct as reconstructed

    def done() -> Iterator[tuple[Found, Tensor]]:
        for found in streaming.pieces(asked, parts):
            few = found.first(max(rows - found.names[0], 0))
            if not few.names:
                return
            yield few, reconstructed(model, few.data(device))

    rows = min(rows, parts.rows)
    if out.suffix == ".npy":
        coded = Coding(rows, ((found, outputs.in_units(asked.run, x, asked.data_dir)) for found, x in done()))
        outputs.write_parts(out, coded.save)
        return tell(out, (rows, *coded.shape), coded.dtype)
    schema, spool = asked.run.values(asked.data_dir).columns, Spool(parts.name)
    for found, x in done():
        spool.add(made(schema, schema.inverse(x).numpy(), first=found.names[0]).table.to_arrow())
    streaming.write(out, spool.tables)
    columns = [column for column in schema.columns if not column.sums]
    show.out.print(f"{out}: {rows:,} rows reconstructed, {len(columns)} columns")
    return None
