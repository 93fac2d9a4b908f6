"""Files that verbs write: names that are checked before any work, arrays, tables of scores, pictures."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aevb.apps import show
from aevb.errors import DataError, RunError

if TYPE_CHECKING:
    from torch import Tensor

    from aevb.data.tables import Frame
    from aevb.figures.tables import Table
    from aevb.runs.store import Run

PICTURES = (".png", ".svg")
TABLES = (".csv", ".tsv", ".parquet")
VERSION = r"(\.v?\d+)?"  # the end of a name such as mine.v2, which is no ending of a kind of file


def checked(out: Path | None, kinds: Sequence[str], what: str, bare: bool = False) -> Path | None:
    """The file that --out names, if it ends in one of `kinds` and can be a file; else an error before any work.

    Args:
        bare: whether a name without an ending will do.

    Raises:
        DataError: it is a folder, or ends otherwise.
    """
    if out is None:
        return None
    place, listed = out.expanduser(), " or ".join(kinds)
    if out.name == "" or place.is_dir():
        raise DataError(f"--out {out} is a folder. Name a file in it, such as --out {out / ('x' + kinds[0])}.")
    if place.suffix not in kinds and not (bare and re.fullmatch(VERSION, place.suffix)):
        raise DataError(f"--out {out}: {what}; end its name in {listed}.")
    return place


def array_out(out: Path | None) -> Path | None:
    """--out of a verb that writes numbers (.npy) or a picture."""
    return checked(out, (".npy", *PICTURES), "numbers are written as a .npy file, pictures as .png and .svg", bare=True)


def picture_out(out: Path | None) -> Path | None:
    """--out of a verb that writes a picture."""
    return checked(out, PICTURES, "pictures are written as .png and .svg files", bare=True)


def codes_out(out: Path | None) -> Path | None:
    return checked(out, (".npy", ".csv"), "codes are written as a .npy or .csv file")


def refuse_draws(out: Path | None, draws: int) -> None:
    """Refuse several codes for each row in a table of one line each."""
    if draws and out is not None and out.suffix == ".csv":
        raise DataError(f"--out {out}: a .csv has one code a row, and --draws {draws} gives more. Write a .npy file.")


def scores_out(out: Path | None) -> Path | None:
    return checked(out, (".csv", ".parquet", ".npy"), "scores are written as a .csv, .parquet or .npy file")


def rows_out(out: Path | None) -> Path | None:
    """--out of a verb that writes rows: as a table, numbers or a picture."""
    what = "numbers are written as a .npy file, pictures as .png and .svg, tables as .csv, .tsv or .parquet"
    return checked(out, (".npy", *PICTURES, *TABLES), what, bare=True)


def refuse_table(out: Path | None, run: Run, check: bool = False) -> None:
    """Refuse a table for what has no columns.

    Raises:
        DataError: --out names one, or the columns of one are to be checked.
    """
    if check:
        raise DataError(f"--check: {run.path.name} was not trained on a table. `aevb evaluate` says how good it is.")
    if out is not None and out.suffix in TABLES:
        raise DataError(f"--out {out}: {run.path.name} was not trained on a table. Write its numbers: a .npy file.")


def table_out(out: Path | None) -> Path | None:
    return checked(out, TABLES, "tables are written as .csv, .tsv or .parquet files")


def write_frame(path: Path, frame: Frame) -> None:
    """A table, by the file's ending."""
    from aevb.data import tables

    written(path, lambda beside: tables.write_frame(frame, beside, path.suffix))


def announced(path: Path) -> Path:
    """The path; it says so where a file of that name will be replaced."""
    if path.exists():
        show.note(f"replaces {show.escaped(str(path))}")
    return path


def written(path: Path, write: Callable[[Path], None]) -> Path:
    """Write a file whole, and say what it replaces."""
    from aevb.runs.files import write_whole

    write_whole(announced(path), write)
    return path


def write_parts(path: Path, write: Callable[[Path], None]) -> Path:
    """As `written`, where the work is done while the file is written: what it replaces is said at the end."""
    from aevb.runs.files import write_whole

    def all_parts(beside: Path) -> None:
        write(beside)
        announced(path)

    write_whole(path, all_parts)
    return path


def write_array(path: Path, values: Any) -> None:
    """A .npy file; prints its path, shape and type."""
    import numpy as np

    array = np.asarray(values)

    def write(beside: Path) -> None:
        with beside.open("wb") as f:
            np.save(f, array)

    written(path, write)
    show.out.print(f"{path}: {' × '.join(map(str, array.shape))}, {array.dtype}")


def write_codes(path: Path, codes: Any, column: str, names: Iterable[Any], letter: str) -> None:
    """Codes (N, D) as a .npy, or as a .csv with the row or file of each and the columns z0, z1, ..."""
    if path.suffix != ".csv":
        write_array(path, codes)
        return
    columns = (column, *(f"{letter}{i}" for i in range(codes.shape[1])))
    write_table(path, columns, ([name, *code] for name, code in zip(names, codes.tolist(), strict=True)))
    show.out.print(f"{path}: {len(codes):,} rows, columns {columns[0]}, {columns[1]} to {columns[-1]}")


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A .csv file, one line of names first."""

    def write(beside: Path) -> None:
        with beside.open("w", newline="", encoding="utf-8") as f:
            table = csv.writer(f, lineterminator="\n")
            table.writerow(columns)
            table.writerows(rows)

    written(path, write)


def write_columns(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Columns of equal length as a table: .parquet by the file's ending, else .csv."""
    if path.suffix == ".parquet":
        from aevb.data import tables

        write_frame(path, tables.frame_of(columns))
    else:
        write_table(path, tuple(columns), zip(*columns.values(), strict=True))


def in_units(run: Run, x: Tensor, data_dir: Path | None = None) -> Any:
    """What leaves a model, in the units and the type of the data; probabilities of binary data stay probabilities."""
    values = run.values(data_dir)
    probabilities = values.support == "binary" and values.levels == 2 and bool(((x > 0) & (x < 1)).any())
    return x.cpu().numpy() if probabilities else values.inverse(x)


def deliver(
    run: Run, out: Path | None, name: str, x: Tensor, figure: Callable[[], Any], data_dir: Path | None = None
) -> None:
    """Numbers in the units of the data for a .npy, a picture for anything else."""
    if out is not None and out.suffix == ".npy":
        write_array(out, in_units(run, x, data_dir))
    else:
        save_figure(run, out, name, figure())


def columns(run: Run, x: Tensor, data_dir: Path | None = None) -> Table | None:
    """How figures show rows x (N, F) of a table, in the units of its data; None of images."""
    from aevb.figures.tables import Table

    return Table.of_units(x, run.values(data_dir))


def beside_run(run: Run, name: str, cure: str = "Say where to write: --out FILE.") -> Path:
    """A file in the folder of a run, where --out names no other.  RunError, with the cure, if none can be written."""
    import os

    place = run.path / name
    folder = place.parent if place.parent.exists() else run.path
    if not os.access(folder, os.W_OK):
        raise RunError(f"{folder} is read-only. {cure}")
    return place


def figure_of(run: Run, name: str) -> Path:
    """Where a picture goes among the figures of a run; RunError as `beside_run`."""
    beside_run(run, f"figures/{name}")
    return run.figure(name)


def save_figure(run: Run, out: Path | None, name: str, figure: Any) -> None:
    """A picture as .png and .svg, where --out says, or among the figures of the run."""
    from aevb.figures.plots import save

    base = figure_of(run, name) if out is None else out.with_suffix("") if out.suffix in PICTURES else out
    for kind in PICTURES:
        announced(Path(f"{base}{kind}"))
    for path in save(figure, base):
        show.out.print(str(path))
