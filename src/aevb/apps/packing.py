"""The verbs that make rows few bytes, and bytes rows again: compress, decompress."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aevb.apps import outputs, show
from aevb.apps.app import DataDir, First, Moved, RunOption, Second, Split, out, verb
from aevb.apps.rows import Found, asked_for, open_run, rows, run_and_new
from aevb.errors import DataError

ENDING = ".aevb"
CompressedOut = Annotated[Path | None, out("beside the run", ENDING)]
RowsOut = Annotated[Path | None, out("beside the run", ".npy")]
FirstOfTwo = Annotated[
    str | None, typer.Argument(metavar="RUN", help="The run that compressed FILE; the latest one if left out.")
]
Compressed = Annotated[str | None, typer.Argument(metavar="FILE", help="What aevb compress wrote.")]


def compressed_out(path: Path | None) -> Path | None:
    """--out of compressed rows."""
    return outputs.checked(path, (ENDING,), f"compressed rows are written as a {ENDING} file")


def rows_out(path: Path | None) -> Path | None:
    """--out of rows."""
    return outputs.checked(path, (".npy",), "rows are written as a .npy file")


@verb(
    "aevb compress --out test.aevb",
    "aevb compress new.npy --out new.aevb",
    "aevb compress RUN photos/ --out photos.aevb",
)
def compress(
    first: First = None,
    second: Second = None,
    run: RunOption = None,
    split: Split = "test",
    data_: Moved = None,
    data_dir: DataDir = None,
    out: CompressedOut = None,
) -> None:
    """Compress rows without loss, by bits-back coding: a file of -ELBO bits, which the same run decompresses.

    For binary data, levels, categories and counts, under a diagonal normal q(z|x). If the model reads pixels as
    0 and 1, the file holds these bits. Needs constriction: pip install 'aevb[compress]'.
    """
    out = compressed_out(out)
    asked = asked_for(first, second, run, data_, split, {"data_dir": data_dir})
    from aevb.use.compress import compress as compressed

    found = rows(asked)
    note_of_bits(found, data_dir)
    with show.counting("compressing"):
        packed = compressed(asked.run.model(), found.data())
    path = outputs.written(
        out or outputs.beside_run(asked.run, f"compressed-{asked.stem}{ENDING}"), lambda beside: _write(beside, packed)
    )
    bits = 8 * len(packed) / (len(found.split) * found.split.shape.numel())
    show.out.print(f"{path}: {len(found.split):,} rows, {len(packed):,} bytes, {bits:.4g} bits per number")


def note_of_bits(found: Found, data_dir: Path | None) -> None:
    """Say where the model reads grey pixels as 0 and 1, that the file holds these."""
    values = found.run.values(data_dir)
    if values.support == "binary" and values.levels > 2:
        show.note("the model reads pixels as 0 and 1: the file holds these bits, not grey levels")


def _write(path: Path, packed: bytes) -> None:
    path.write_bytes(packed)


@verb("aevb decompress test.aevb --out test.npy", "aevb decompress RUN photos.aevb --out photos.npy")
def decompress(
    first: FirstOfTwo = None,
    second: Compressed = None,
    run: RunOption = None,
    data_dir: DataDir = None,
    out: RowsOut = None,
) -> None:
    """Decompress rows to a .npy file, in the units and the type of the run's data, bit for bit as they were.

    It needs the run that compressed them, and a machine and a PyTorch that compute the same numbers; otherwise it says
    so, and writes nothing.
    """
    out = rows_out(out)
    name, file = run_and_new(first, second, run)
    if file is None:
        raise DataError("Name the file to decompress, as in: aevb decompress RUN rows.aevb --out rows.npy")
    opened = open_run(name)
    packed = Path(file).expanduser().read_bytes()
    from aevb.use.compress import decompress as decompressed

    with show.counting("decompressing"):
        x = decompressed(opened.model(), packed)
    outputs.write_array(out or outputs.beside_run(opened, f"{Path(file).stem}.npy"), opened.values(data_dir).inverse(x))
