"""Whole numbers that float64 or int64 cannot hold: in arrays, text, frames and Parquet none of their digits is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from aevb.apps.conditions import conditions
from aevb.data.arrays import array_dataset
from aevb.data.columns import Column, Schema
from aevb.data.dataset import Dataset
from aevb.data.frames import made, stored
from aevb.data.kinds import look
from aevb.data.sources import load_data
from aevb.data.tables import Frame, frame_of, read_frame
from aevb.data.tabular import described
from aevb.data.unsplit import Reader, Unsplit
from aevb.data.values import Values
from aevb.errors import DataError

STEPS = np.random.default_rng(0).integers(0, 10**6, (120, 2)).astype(np.uint64)
TOP = np.uint64(2**64 - 10**6)
CASES = {
    "uint64": np.uint64(2**63 + 5) + STEPS,
    "uint64 at its end": TOP + STEPS,
    "uint64 across 2^63": np.uint64(2**63 - 500_000) + STEPS,
    "int64": (2**62 + STEPS.astype(np.int64)),
    "negative": (-(2**62) - STEPS.astype(np.int64)),
}


def whole(data: Dataset) -> np.ndarray[Any, Any]:
    """All rows in the order of the source, through the model's numbers and back."""
    parts = [data.train, data.validation, data.test]
    order = np.concatenate([part.names for part in parts])
    back = np.concatenate([part.values.inverse(part[:]) for part in parts])
    return back[np.argsort(order)]


@pytest.mark.parametrize("name", CASES)
def test_an_array_comes_back_exactly(name: str, tmp_path: Path) -> None:
    x = CASES[name]
    np.save(tmp_path / "x.npy", x)
    for data in (array_dataset(x), load_data(tmp_path / "x.npy")):
        train = data.train[:].double()
        assert train.std(0, correction=0).numpy() == pytest.approx([1, 1], abs=1e-6)
        back = whole(data)
        assert back.dtype == x.dtype
        assert np.abs(back.astype(object) - x.astype(object)).max() <= 1  # model numbers are float32
        again = Values.from_dict(data.train.values.to_dict())
        assert torch.equal(again(data.train.stored), data.train[:])


def test_new_rows_are_read_as_those_of_training_and_clipped_to_what_can_be() -> None:
    x = CASES["uint64"]
    values = array_dataset(x).train.values
    reader = Reader((2,), values)
    expected = values(torch.from_numpy((x ^ np.uint64(2**63)).view(np.int64)))
    assert torch.equal(reader.split(Unsplit("new", x))[:], expected)
    assert torch.equal(reader.split(Unsplit("new", x[:3]))[:], expected[:3])
    low = reader.split(Unsplit("new", np.array([[3, 4]], np.int64)))
    assert torch.equal(low[:], values(torch.tensor([[3 - 2**63, 4 - 2**63]])))
    floats = reader.split(Unsplit("new", x.astype(np.float64)))
    assert (floats[:] - expected).abs().max() < 0.01  # float64 has steps of 2048 there


def test_what_a_model_says_beyond_a_type_is_the_nearest_that_there_is() -> None:
    values = array_dataset(np.int64(2**63 - 1000) + np.arange(900)[:, None]).train.values
    assert values.inverse(torch.tensor([[1e9], [-1e30], [0.0]]))[:2, 0].tolist() == [2**63 - 1, -(2**63)]
    unsigned = array_dataset(np.uint64(2**64 - 1000) + np.arange(900, dtype=np.uint64)[:, None]).train.values
    assert unsigned.inverse(torch.tensor([[1e9], [-1e30]]))[:, 0].tolist() == [2**64 - 1, 0]


def frames(x: np.ndarray[Any, Any], place: Path) -> dict[str, Frame]:
    """The same numbers as text, in frames of each library, in Parquet, and as an array."""
    names = ["a", "b"]
    text = pd.DataFrame(x, columns=names)
    text.to_csv(place / "x.csv", index=False)
    arrow = pa.table({name: x[:, i] for i, name in enumerate(names)})
    pq.write_table(arrow, place / "x.parquet")
    return {
        "csv": read_frame(place / "x.csv"),
        "parquet": read_frame(place / "x.parquet"),
        "pandas": frame_of(text),
        "polars": frame_of(pl.DataFrame(x, schema=names)),
        "arrow": frame_of(arrow),
        "array": frame_of(x),
    }


@pytest.mark.parametrize("name", CASES)
def test_a_table_comes_back_exactly(name: str, tmp_path: Path) -> None:
    x = CASES[name]
    for form, frame in frames(x, tmp_path).items():
        schema = look(frame)
        numbers, notes = stored(schema, frame)
        assert [c.kind for c in schema.columns] == ["real", "real"], form
        assert [c.origin for c in schema.columns] == x.min(0).tolist()
        assert notes == []
        assert numbers.max() < 10**6
        back = Schema.from_dict(schema.to_dict()).inverse(schema.numbers(torch.tensor(numbers)).double())
        assert np.abs(back.numpy() - numbers).max() <= 1
        for table in (made(schema, numbers, frame).table, made(schema, numbers).table):
            assert all(np.array_equal(table[c].to_numpy(), x[:, i]) for i, c in enumerate(table.columns))


def test_a_table_that_is_read_as_an_array_keeps_its_digits(tmp_path: Path) -> None:
    x = CASES["uint64"]
    pd.DataFrame(x, columns=["a", "b"]).to_csv(tmp_path / "x.csv", index=False)
    data = load_data(tmp_path / "x.csv", values="standardized")
    assert np.array_equal(whole(data) // 4, whole(array_dataset(x)) // 4)
    assert data.train.stored.dtype == torch.int64


def test_levels_beyond_int64_are_told_apart_and_come_back() -> None:
    levels = np.array([3, 2**64 - 7, 2**64 - 6, 2**64 - 5], np.uint64)
    x = levels[np.arange(120) % 4][:, None]
    frame = frame_of(x)
    schema = look(frame)
    numbers, _ = stored(schema, frame)
    assert schema.columns[0].levels == tuple(levels.tolist())
    assert numbers[:4, 0].tolist() == [0, 1, 2, 3]
    assert np.array_equal(made(schema, numbers).table["x0"].to_numpy(), x[:, 0])
    huge = frame_of(np.array([1e30, 2e30, 5e40])[np.arange(120) % 3][:, None])
    column = look(huge)
    back = made(column, stored(column, huge)[0]).table["x0"].to_numpy()
    assert np.array_equal(back, huge.native[:, 0])
    assert column.columns[0].values is not None
    assert column.columns[0].values.tolist() == [1e30, 2e30, 5e40]


def test_decimals_without_a_fraction_keep_their_digits() -> None:
    x = pa.array([10**17 + 3 * i for i in range(60)], pa.decimal128(20, 0))
    frame = frame_of(pa.table({"a": x, "b": pa.array(np.linspace(0, 1, 60))}))
    schema = look(frame, {"a": "real"})
    numbers, _ = stored(schema, frame)
    assert numbers[:, 0].tolist() == [3.0 * i for i in range(60)]
    assert made(schema, numbers, frame).table["a"].to_arrow().to_pylist() == x.to_pylist()


def test_what_is_shown_and_asked_for_is_in_the_numbers_of_the_table(tmp_path: Path) -> None:
    x = CASES["uint64"]
    pd.DataFrame(x, columns=["a", "b"]).to_csv(tmp_path / "x.csv", index=False)
    column = described(str(tmp_path / "x.csv"))["columns"][0]
    assert (column["low"], column["high"]) == (int(x[:, 0].min()), int(x[:, 0].max()))
    assert column["why"].startswith(f"whole numbers from {x[:, 0].min()} to {x[:, 0].max()}, ")
    schema = look(frame_of(x))
    start = schema.columns[0].origin
    assert conditions(f"x0={start + 7}", schema) == {"x0": 7.0}
    with pytest.raises(DataError, match=r"cannot be positive: its numbers, .* Make it real"):
        look(frame_of(x), {"x0": "positive"})


def test_a_column_as_it_was_kept_before_has_no_origin() -> None:
    assert Column.from_dict({"name": "a", "kind": "real"}).origin == 0
    assert Values.from_dict({"kind": "raw", "levels": 256, "divisor": 255.0, "dtype": "int64"}).offset == 0
