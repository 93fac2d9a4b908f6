"""Data larger than memory: rows in a file, the same numbers as in memory, and how much memory no file holds."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from aevb import Recipe, fit, load_data, resume
from aevb.data import parts, tables
from aevb.data.batch import Batch
from aevb.data.columns import Schema
from aevb.data.dataset import Dataset
from aevb.data.endings import is_table
from aevb.data.prints import print_of, prints_of
from aevb.data.room import changed, mapped, room, scratch
from aevb.data.tables import read_frame
from aevb.data.unsplit import Reader, read_unsplit
from aevb.data.values import Values
from aevb.errors import DataError
from aevb.runs.store import Run, fingerprints
from aevb.training.train import Alone

random = np.random.default_rng(0)
NETS = {"encoder__hidden": [8], "decoder__hidden": [8], "latent": 2}
SMALL = Recipe.load("gaussian").replace(training__samples=300, training__batch=30, **NETS)


def in_files(monkeypatch: pytest.MonkeyPatch, path: Path, **options: object) -> tuple[Dataset, Dataset]:
    """A data set with its rows in memory, and with its rows in a file."""
    monkeypatch.delenv("AEVB_MEMORY_MB", raising=False)
    inside = load_data(path, **options)  # type: ignore[arg-type]
    monkeypatch.setenv("AEVB_MEMORY_MB", "0")
    outside = load_data(path, **options)  # type: ignore[arg-type]
    return inside, outside


def table(place: Path) -> Path:
    np.save(place / "table.npy", random.standard_normal((300, 7)))
    return place / "table.npy"


def greys(place: Path) -> Path:
    np.save(place / "greys.npy", random.integers(0, 256, (60, 9, 9), np.uint8))
    return place / "greys.npy"


def split_npz(place: Path) -> Path:
    x = random.standard_normal((90, 5)).astype(np.float32)
    np.savez(place / "split.npz", x_train=x[:60], y_train=np.arange(60) % 3, x_test=x[60:], y_test=np.arange(30) % 3)
    return place / "split.npz"


def pictures(place: Path) -> Path:
    with zipfile.ZipFile(place / "pictures.zip", "w") as archive:
        for i in range(30):
            Image.fromarray(random.integers(0, 256, (8, 6, 3), np.uint8)).save(place / "one.png")
            archive.write(place / "one.png", f"{i:02}.png")
    return place / "pictures.zip"


def mixed() -> pa.Table:
    x = random.standard_normal(400)
    words = pa.array([("low", "middle", "high")[i % 3] for i in range(400)]).dictionary_encode()
    holes = pa.array([None if i % 7 == 0 else float(v) for i, v in enumerate(x)])
    return pa.table({"x": x, "word": words, "hole": holes, "count": random.integers(0, 9, 400), "date": DATES})


DATES = np.datetime64("2020-01-01") + np.arange(400).astype("timedelta64[D]")


def parquet(place: Path) -> Path:
    pq.write_table(mixed(), place / "table.parquet", row_group_size=90)
    return place / "table.parquet"


def parquets(place: Path) -> Path:
    (place / "folder").mkdir()
    whole = mixed()
    for i in range(4):
        pq.write_table(whole.slice(100 * i, 100), place / "folder" / f"{i}.parquet")
    return place / "folder"


@pytest.mark.parametrize("made", [table, greys, split_npz, pictures, parquet, parquets])
def test_rows_in_a_file_are_those_in_memory(made: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every split, with the same map to model numbers, and the same fingerprints in a run."""
    inside, outside = in_files(monkeypatch, made(tmp_path))  # type: ignore[operator]
    for part in ("train", "validation", "test"):
        ours, theirs = getattr(inside, part), getattr(outside, part)
        assert same(ours.stored, theirs.stored)
        assert len(ours) == 0 or same(ours[torch.arange(len(ours))], theirs[torch.arange(len(theirs))])
        assert torch.equal(ours.log_abs_dets, theirs.log_abs_dets)
    assert inside.train.values.to_dict() == outside.train.values.to_dict()
    assert fingerprints(inside) == fingerprints(outside)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal, holes too."""
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


def test_dynamic_pixels_are_drawn_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = in_files(monkeypatch, greys(tmp_path), values="dynamic")
    assert torch.equal(inside.test.stored, outside.test.stored)
    assert set(inside.test.stored.unique().tolist()) == {0, 1}


def zipped(place: Path, mode: str = "L") -> Path:
    with zipfile.ZipFile(place / "pictures.zip", "w") as archive:
        for i in range(12):
            Image.fromarray(random.integers(0, 256, (8, 6), np.uint8)).convert(mode).save(place / "one.png")
            archive.write(place / "one.png", f"{i:02}.png")
    return place / "pictures.zip"


def saved(x: Any) -> Any:
    def save(place: Path) -> Path:
        np.save(place / "new.npy", x)
        return place / "new.npy"

    return save


LEVELS = random.integers(0, 256, (40, 8, 6, 3))
NEW: list[tuple[Any, tuple[int, ...], Values, str]] = [  # new data, what the model reads, where channels are
    (zipped, (1, 8, 6), Values("levels"), ""),
    (zipped, (3, 8, 6), Values("levels"), ""),  # grey pictures as coloured ones
    (zipped, (1, 8, 6), Values("dynamic"), ""),
    (saved(LEVELS), (3, 8, 6), Values("levels"), "last"),
    (saved(LEVELS[..., 0] > 100), (1, 8, 6), Values("threshold", levels=2, divisor=1.0), ""),
    (saved(LEVELS[:, 0, :, 0].astype(np.int16)), (6,), Values("standardized"), ""),
    (saved(LEVELS[:, 0, :, 0] / 7), (6,), Values("raw"), ""),
    (saved(LEVELS[:, 0, :, 0] + 2.5), (6,), Values("standardized", offset=2**63), ""),
    (split_npz, (5,), Values("raw"), ""),
]


@pytest.mark.parametrize(("made", "shape", "values", "axes"), NEW)
def test_new_rows_in_a_file_are_those_in_memory(
    made: Any, shape: tuple[int, ...], values: Values, axes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read for a finished model: in the same shape and type, with the same numbers and files."""
    path = str(made(tmp_path))
    inside = read_unsplit(path)
    ours = Reader(shape, values, axes).split(inside).stored
    monkeypatch.setenv("AEVB_MEMORY_MB", "0")
    outside = read_unsplit(path)
    assert isinstance(outside.x, np.memmap)
    assert np.array_equal(inside.x, outside.x)
    assert inside.files == outside.files
    theirs = Reader(shape, values, axes).split(outside).stored
    assert ours.shape == (len(inside.x), *shape)
    assert theirs.dtype == ours.dtype
    assert torch.equal(ours, theirs)


def test_rows_are_changed_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    x = random.standard_normal((300, 3000))
    sizes = []

    def change(rows: Any) -> Any:
        sizes.append(len(rows))
        return np.stack([rows, -rows], 1).astype(np.float32)

    monkeypatch.setenv("AEVB_MEMORY_MB", "0")
    found = changed(x, change, "here")
    assert isinstance(found, np.memmap)
    assert np.array_equal(found, np.stack([x, -x], 1).astype(np.float32))
    assert max(sizes) == 2**20 // (8 * 3000)
    assert changed(x[:0], change, "here").shape == (0, 2, 3000)


def folder_of_parquet(place: Path, files: dict[str, pa.Table]) -> Path:
    for name, table in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        pa.parquet.write_table(table, place / name, row_group_size=50)
    return place


def rows_of(n: int = 120, **more: Any) -> pa.Table:
    return pa.table({"a": random.standard_normal(n), **{name: pa.array(each) for name, each in more.items()}})


def test_a_folder_of_parquet_is_read_without_hidden_files(tmp_path: Path) -> None:
    files = ("p.parquet", "q.PARQUET", "sub/r.pq")
    hidden = (".ipynb_checkpoints/p.parquet", "_delta_log/0.parquet", "_temporary/0/p.parquet")
    place = folder_of_parquet(tmp_path / "d", {name: rows_of() for name in (*files, *hidden)})
    (place / "._p.parquet").write_bytes(b"of a Mac")
    assert len(read_frame(place)) == 3 * 120
    (tmp_path / "pictures" / ".cache").mkdir(parents=True)
    pa.parquet.write_table(rows_of(), tmp_path / "pictures" / ".cache" / "p.parquet")
    (tmp_path / "pictures" / "a.png").write_bytes(b"a picture")
    assert not is_table(tmp_path / "pictures")


@pytest.mark.parametrize("whole", [True, False])
def test_files_of_a_folder_are_joined_by_the_columns_and_types_of_all(
    whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder's name=value is a column; a column that a file lacks is missing there; whole numbers become floats."""
    n = 120
    files = {
        "year=2020/a.parquet": rows_of(z=pa.nulls(n), i=np.arange(n)),
        "year=2021/b.parquet": rows_of(z=np.ones(n), i=np.arange(n) + 0.5, new=np.arange(n)),
    }
    place = folder_of_parquet(tmp_path / "d", files)
    if whole:
        frame = read_frame(place).table.to_arrow()
    else:
        monkeypatch.setattr(parts, "ROWS", 32)
        found = parts.parts_of(place, Schema(()))
        assert found is not None
        frame = pa.concat_tables([part.table.to_arrow() for part in found.frames()])
    assert frame["year"].to_pylist() == [2020] * n + [2021] * n
    assert frame["z"].to_pylist() == [None] * n + [1.0] * n
    assert frame["i"].to_pylist() == [*np.arange(n), *(np.arange(n) + 0.5)]
    assert frame["new"].to_pylist() == [None] * n + list(range(n))


def test_of_types_that_do_not_join_the_first_counts(tmp_path: Path) -> None:
    words = rows_of(z=["x"] * 120)
    coded = words.set_column(1, "z", words["z"].dictionary_encode())
    place = folder_of_parquet(tmp_path / "d", {"a.parquet": words, "b.parquet": coded})
    assert read_frame(place).table.to_arrow()["z"].to_pylist() == ["x"] * 240
    place = folder_of_parquet(tmp_path / "e", {"a.parquet": rows_of(z=[1] * 120), "b.parquet": words})
    with pytest.raises(DataError, match="e cannot be read as a folder of Parquet files"):
        read_frame(place)


def test_a_column_of_the_files_counts_before_the_name_of_their_folder(tmp_path: Path) -> None:
    files = {f"year={y}/a.parquet": rows_of(year=[float(y)] * 120) for y in (2020, 2021)}
    frame = read_frame(folder_of_parquet(tmp_path / "d", files)).table.to_arrow()
    assert frame["year"].to_pylist() == [2020.0] * 120 + [2021.0] * 120


def test_a_folder_of_hidden_files_alone_is_read(tmp_path: Path) -> None:
    place = folder_of_parquet(tmp_path / "d", {"_part.parquet": rows_of()})
    assert is_table(place)
    assert len(read_frame(place)) == 120


def test_a_hash_by_parts_is_that_of_the_whole() -> None:
    def one(numbers: torch.Tensor, words: bytes = b"") -> str:
        return hashlib.sha256(numbers.numpy().tobytes() + words).hexdigest()[:16]

    x = torch.from_numpy(random.standard_normal((3000, 500)))
    for numbers in (x, x[:0]):
        assert print_of(numbers, "word") == one(numbers, b"word")
        assert prints_of(numbers) == {"sha256": one(numbers.float()), "exact": one(numbers)}
        assert prints_of(numbers.float()) == {"sha256": one(numbers.float())}


def test_the_file_has_no_name(tmp_path: Path) -> None:
    x = mapped(tmp_path, (10, 3), "float32")
    x[:] = 2
    assert list(tmp_path.iterdir()) == []
    assert x.sum() == 60


def test_the_limit_says_where_rows_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEVB_MEMORY_MB", "0.1")
    assert not isinstance(room((1000, 25), "float32", "here", "rows"), np.memmap)
    assert isinstance(room((1001, 25), "float32", "here", "rows"), np.memmap)
    for limit in ("much", "-5", "nan"):
        monkeypatch.setenv("AEVB_MEMORY_MB", limit)
        with pytest.raises(DataError, match=f"AEVB_MEMORY_MB={limit}: it is a number of megabytes"):
            room((1, 1), "float32", "here", "rows")


def test_a_parquet_file_is_as_large_as_its_numbers_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few different numbers take little room in the file, and as much as others in memory."""
    table = pa.table({f"c{i}": np.arange(40_000) % 3 / 2 for i in range(8)})
    pq.write_table(table, tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").stat().st_size < table.nbytes / 20
    spread = []
    monkeypatch.setattr(tables, "in_a_map", lambda found, path: spread.append(path) or found.to_table())
    for limit, there in (("2.5", 1), ("2.6", 1)):  # MB
        monkeypatch.setenv("AEVB_MEMORY_MB", limit)
        tables.read_frame(tmp_path / "t.parquet")
        assert len(spread) == there
    assert tables.width_of(table.schema) == 64
    kinds = {"s": pa.string(), "d": pa.dictionary(pa.int16(), pa.string()), "b": pa.bool_(), "t": pa.timestamp("us")}
    assert tables.width_of(pa.schema(kinds)) == 16 + 2 + 1 + 8


def test_too_little_disk_is_said_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEVB_MEMORY_MB", "0")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert scratch() == tmp_path
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(DataError, match=r"a.npy needs 0.00 GB of disk in .* for 26 rows.* Name a folder .* by TMPDIR"):
        room((26, 1), "float32", "a.npy", "26 rows")


def numbered(place: Path) -> Path:
    """A table of 124 rows, 100 of them to train, each of which tells its number."""
    np.save(place / "numbered.npy", np.arange(124.0)[:, None] * [1, 2, 4])
    return place / "numbered.npy"


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The minibatches that trainings see, step by step."""
    batches: list[Tensor] = []
    own = Alone.batch

    def batch(self: Alone) -> Batch:
        found = own(self)
        batches.append(found.x)
        return found

    monkeypatch.setattr(Alone, "batch", batch)
    return batches


@pytest.mark.parametrize("limit", ["0", "1024"])
def test_every_pass_meets_every_row_once_with_a_resume_in_its_midst(
    limit: str, met: list[Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three passes in ten steps of 30 rows; the first training ends after 150 rows, in the midst of the second pass."""
    source = numbered(tmp_path)
    plain = fit(SMALL, source, tmp_path / "plain")
    undisturbed = torch.cat(met)
    met.clear()
    monkeypatch.setenv("AEVB_MEMORY_MB", limit)
    fit(SMALL.replace(training__samples=150), source, tmp_path / "run")
    assert len(met) == 5
    resumed = resume(tmp_path / "run", samples=300)
    assert torch.equal(torch.cat(met), undisturbed)
    values, train = resumed.values(), load_data(source).train.stored[:, 0].sort().values
    passes = [np.rint(values.inverse(x)[:, 0]) for x in torch.cat(met).split(100)]
    assert len(passes) == 3
    assert all(np.array_equal(np.sort(rows), train.numpy()) for rows in passes)
    assert not np.array_equal(passes[0], passes[1])  # a shuffle of its own
    ours, theirs = weights(plain), weights(resumed)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)


def weights(run: Run) -> dict[str, Tensor]:
    return load_file(run.path / "checkpoint" / "state.safetensors")


@pytest.mark.parametrize("recipe", ["bernoulli", "conditional", "mcem"])
@pytest.mark.parametrize("values", ["threshold", "dynamic"])
def test_a_training_from_a_file_is_that_from_memory(
    recipe: str, values: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: rows, labels beside them, and pixels that are drawn."""
    x = random.integers(0, 256, (60, 5, 4), np.uint8)
    np.savez(tmp_path / "drawn.npz", x=x, y=np.arange(60) % 3)
    asked = Recipe.load(recipe).replace(training__samples=160, training__batch=16, data__values=values, **NETS)
    found = []
    for limit in ("1024", "0"):
        monkeypatch.setenv("AEVB_MEMORY_MB", limit)
        found.append(weights(fit(asked, tmp_path / "drawn.npz", tmp_path / limit)))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0] | found[1])


TRAINING = """
import sys, threading, json
from pathlib import Path
import torch, aevb, aevb.runs.fit, aevb.evaluation.evaluate

def anonymous():
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index("RssAnon:") + 1]) / 1e3

recipe = aevb.Recipe.load(sys.argv[4]).replace(training__samples=2000, training__batch=100)
aevb.fit(recipe, sys.argv[2], sys.argv[3])  # what a training takes whatever the data
before, most, over = anonymous(), [0.0], threading.Event()

def look():
    while not over.wait(0.005):
        most[0] = max(most[0], anonymous())

threading.Thread(target=look, daemon=True).start()
given = aevb.load_data(sys.argv[1]) if sys.argv[5:] else sys.argv[1]
run = aevb.fit(recipe, given, sys.argv[3] + "-large")
over.set()
print(json.dumps([before, most[0], run.meta["splits"]["train"]["n"]]))
"""


def arrays(place: Path, name: str, rows: int) -> Path:
    out = np.lib.format.open_memmap(place / f"{name}.npy", "w+", np.float32, (rows, 1000))
    out[:] = np.arange(rows, dtype=np.float32)[:, None] % 7 + np.arange(1000, dtype=np.float32) % 3
    out.flush()
    return place / f"{name}.npy"


def frames(place: Path, name: str, rows: int) -> Path:
    columns = {f"x{i}": random.standard_normal(12 * rows) for i in range(40)}
    pq.write_table(pa.table(columns), place / f"{name}.parquet", row_group_size=20_000)
    return place / f"{name}.parquet"


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux")
@pytest.mark.parametrize(("made", "recipe", "given"), [(arrays, "gaussian", ["data"]), (frames, "table", [])])
def test_a_training_from_a_file_takes_little_memory(made: Any, recipe: str, given: list[str], tmp_path: Path) -> None:
    """Of 100 MB two fifths are in memory of its own at any moment, what a batch or a block takes; of a table less than
    three quarters, as the looks at its columns make copies of one and the allocator keeps their memory.

    Data that were loaded before are kept beside the run, piece by piece.
    """
    large, small = made(tmp_path, "large", 25_000), made(tmp_path, "small", 1000)
    words = [sys.executable, "-c", TRAINING, str(large), str(small), str(tmp_path / "run"), recipe, *given]
    env = {**os.environ, "AEVB_MEMORY_MB": "2", "OMP_NUM_THREADS": "1"}
    found = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    before, most, n = json.loads(found.stdout.splitlines()[-1])
    assert n >= 20_000
    assert most - before < (40 if recipe == "gaussian" else 72)


READING = """
def use(source):
    data = aevb.load_data(source, values="standardized")
    split = Reader(data.shape, data.train.values).split(read_unsplit(source))
    return len(data.train), len(split)
"""
USING = """
recipe = aevb.Recipe.load("gaussian").replace(training__samples=2000, training__batch=100)

def use(source):
    run = aevb.fit(recipe, source, str(Path(sys.argv[3]) / Path(source).stem))
    encode_rows(Asked(run, source), run.model(), (False, 0, 0), "cpu", Path(source + "-codes.npy"))
    found = rows(Asked(run, source))
    scores.scored(found, 2, 0, "cpu")
    return run.meta["splits"]["train"]["n"], len(found.split)
"""
MEASURED = """
import json, sys, threading
from pathlib import Path
import torch, aevb
from aevb.apps import scores
from aevb.apps.rows import Asked, rows
from aevb.apps.using import encode_rows
from aevb.data.unsplit import Reader, read_unsplit

def anonymous():
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index("RssAnon:") + 1]) / 1e3

exec(sys.argv[4])

def peak(source):
    most, over = [0.0], threading.Event()

    def look():
        while not over.wait(0.005):
            most[0] = max(most[0], anonymous())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    counts = use(source)
    over.set()
    thread.join()
    return most[0], counts

few, _ = peak(sys.argv[2])
most, counts = peak(sys.argv[1])
print(json.dumps([few, most, counts]))
"""


def many_pictures(place: Path, name: str, rows: int) -> Path:
    with zipfile.ZipFile(place / f"{name}.zip", "w") as archive:
        for i in range(rows):
            pixels = random.integers(0, 256, (200, 200), np.uint8)
            archive.writestr(f"{i:05}.pgm", b"P5 200 200 255\n" + pixels.tobytes())
    return place / f"{name}.zip"


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux")
@pytest.mark.parametrize(
    ("made", "work", "few", "many"), [(many_pictures, READING, 40, 1500), (arrays, USING, 2000, 25_000)]
)
def test_new_rows_in_a_file_take_little_memory(made: Any, work: str, few: int, many: int, tmp_path: Path) -> None:
    """The peak of many rows is that of a few: 60 MB of pictures are read to train and as new data; 100 MB of numbers
    are trained on, encoded and scored. The allocator gives large blocks back at once, so that it adds nothing."""
    large, small = made(tmp_path, "large", many), made(tmp_path, "small", few)
    words = [sys.executable, "-c", MEASURED, str(large), str(small), str(tmp_path / "runs"), work]
    own = {"AEVB_MEMORY_MB": "2", "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "262144"}
    env = {**os.environ, **own}
    found = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    of_few, most, counts = json.loads(found.stdout.splitlines()[-1])
    assert counts == [many * 8 // 10, many]
    assert most - of_few < (30 if made is many_pictures else 40), most - of_few
