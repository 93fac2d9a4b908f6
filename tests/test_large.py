"""Data larger than memory: rows in a file, the same numbers as in memory, and how much memory no file holds."""

from __future__ import annotations

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
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from aevb import load_data
from aevb.data.dataset import Dataset
from aevb.data.room import mapped, room, scratch
from aevb.errors import DataError
from aevb.runs.store import _hash, fingerprints

random = np.random.default_rng(0)


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
    pyarrow.parquet.write_table(mixed(), place / "table.parquet", row_group_size=90)
    return place / "table.parquet"


def parquets(place: Path) -> Path:
    (place / "folder").mkdir()
    whole = mixed()
    for i in range(4):
        pyarrow.parquet.write_table(whole.slice(100 * i, 100), place / "folder" / f"{i}.parquet")
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


def test_a_hash_by_parts_is_that_of_the_whole() -> None:
    import hashlib

    x = torch.from_numpy(random.standard_normal((3000, 500)))
    for numbers, dtype in ((x, None), (x, torch.float32), (x[:0], None)):
        whole = numbers if dtype is None else numbers.to(dtype)
        assert _hash(numbers, "word", dtype) == hashlib.sha256(whole.numpy().tobytes() + b"word").hexdigest()[:16]


def test_the_file_has_no_name(tmp_path: Path) -> None:
    x = mapped(tmp_path, (10, 3), "float32")
    x[:] = 2
    assert list(tmp_path.iterdir()) == []
    assert x.sum() == 60


def test_the_limit_says_where_rows_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEVB_MEMORY_MB", "0.1")
    assert not isinstance(room((1000, 25), "float32", "here", "rows"), np.memmap)
    assert isinstance(room((1001, 25), "float32", "here", "rows"), np.memmap)
    monkeypatch.setenv("AEVB_MEMORY_MB", "much")
    with pytest.raises(DataError, match="AEVB_MEMORY_MB=much: it is a number of megabytes"):
        room((1, 1), "float32", "here", "rows")


def test_too_little_disk_is_said_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEVB_MEMORY_MB", "0")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert scratch() == tmp_path
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(DataError, match=r"a.npy needs 0.00 GB of disk in .* for 26 rows.* Name a folder .* by TMPDIR"):
        room((26, 1), "float32", "a.npy", "26 rows")


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
run = aevb.fit(recipe, sys.argv[1], sys.argv[3] + "-large")
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
    pyarrow.parquet.write_table(pa.table(columns), place / f"{name}.parquet", row_group_size=20_000)
    return place / f"{name}.parquet"


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux")
@pytest.mark.parametrize(("made", "recipe"), [(arrays, "gaussian"), (frames, "table")])
def test_a_training_from_a_file_takes_little_memory(made: Any, recipe: str, tmp_path: Path) -> None:
    """Of 200 MB a fifth is in memory of its own at any moment, what a batch or a block takes; of a table less than
    three quarters, as the looks at its columns make copies of one and the allocator keeps their memory."""
    large, small = made(tmp_path, "large", 50_000), made(tmp_path, "small", 1000)
    words = [sys.executable, "-c", TRAINING, str(large), str(small), str(tmp_path / "run"), recipe]
    env = {**os.environ, "AEVB_MEMORY_MB": "2", "OMP_NUM_THREADS": "1"}
    found = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    before, most, n = json.loads(found.stdout.splitlines()[-1])
    assert n >= 40_000
    assert most - before < (40 if recipe == "gaussian" else 150)
