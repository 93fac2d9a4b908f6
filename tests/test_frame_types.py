"""Types of columns that are rare: views, runs, times of a day, spans, dates finer than microseconds, huge numbers."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from aevb.data.columns import BELOW, Schema
from aevb.data.dates import dates_in, span
from aevb.data.frames import filled, made, stored
from aevb.data.kinds import look
from aevb.data.tables import frame_of, read_frame, write_frame
from aevb.errors import DataError

N = 60
I = np.arange(N)
WORDS = [None if i % 7 == 3 else "ab"[i % 2] for i in I]
TIMES = [None if i % 7 == 3 else dt.time(int(i * 7 % 24), int(i * 11 % 60)) for i in I]
X = np.random.default_rng(0).normal(size=N)
Z = X / np.abs(X).max()


def number_of(schema: Schema, name: str, numbers: np.ndarray) -> np.ndarray:
    return numbers[:, [column.name for column in schema.model].index(name)]


def filled_with(frame: Any, value: float) -> Any:
    schema = look(frame)
    numbers, _ = stored(schema, frame)
    return filled(schema, frame, np.where(np.isnan(numbers), value, numbers)).native


@pytest.mark.parametrize("kind", ["string_view", "runs"])
def test_views_and_runs_are_read_and_come_back(kind: str) -> None:
    words = pa.array(WORDS, pa.string_view()) if kind == "string_view" else pc.run_end_encode(pa.array(WORDS))
    table = pa.table({"x": X, "w": words, "b": pa.array([b"q"] * N, pa.binary_view())})
    out = filled_with(frame_of(table), 0.0)
    assert out.schema == table.schema
    assert out["w"].to_pylist() == [word or "a" for word in WORDS]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_few_or_equal_times_and_spans_are_levels_in_their_own_unit(unit: str) -> None:
    """Filled, new, as text, and in a table without types."""
    shift = [None if i % 7 == 3 else dt.time(6 + 8 * (i % 2), 30) for i in I]
    span = [None if i % 7 == 3 else dt.timedelta(hours=int(1 + i % 3)) for i in I]
    clock = pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    at = pa.array([dt.datetime(2024, 5, 1, 7)] * N, pa.timestamp(unit))
    each = {"shift": pa.array(shift, clock), "open": pa.array([dt.time(9)] * N, clock), "at": at, "x": pa.array(X)}
    table = pa.table({**each, "span": pa.array(span, pa.duration(unit))})
    frame = frame_of(table)
    schema = look(frame)
    assert [column.kind for column in schema.columns] == ["binary", "constant", "constant", "real", "ordinal"]
    numbers = np.where(np.isnan(seen := stored(schema, frame)[0]), 1, stored(schema, frame)[0])
    out = filled(schema, frame, numbers)
    assert out.native.schema == table.schema
    whole = [value or dt.time(14, 30) for value in shift]
    assert out.native["shift"].cast(pa.time64("us")).to_pylist() == whole
    hours = [value or dt.timedelta(hours=2) for value in span]
    assert out.native["span"].cast(pa.duration("us")).to_pylist() == hours
    for new in (made(schema, numbers, frame), made(schema, numbers)):
        assert new.native["shift"].cast(pa.time64("us")).to_pylist() == whole
        assert new.native["open"].cast(pa.time64("us")).to_pylist() == [dt.time(9)] * N
        assert new.native["at"].cast(pa.timestamp("us")).to_pylist() == [dt.datetime(2024, 5, 1, 7)] * N
        assert new.native["span"].cast(pa.duration("us")).to_pylist() == hours
    words = frame_of(pa.table({**{name: pa.array([""] * N) for name in ("shift", "open", "at", "span")}, "x": X}))
    texts = made(schema, numbers[:1], words).native
    assert [texts[name][0].as_py() for name in ("shift", "open", "span")] == ["06:30:00", "09:00:00", "1:00:00"]
    assert np.isnan(seen).any()


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Seoul", "Europe/Berlin", "UTC"])
def test_days_in_a_zone_are_filled_with_midnights_of_its_clocks(zone: str) -> None:
    """Across the changes of the clocks, and back exactly where cells are there."""
    when = pd.Series(pd.date_range("2019-01-01", periods=900, freq="D", tz=zone)).mask(np.arange(900) % 7 == 3)
    frame = frame_of(pd.DataFrame({"w": when, "x": np.random.default_rng(0).normal(size=900)}))
    schema = look(frame)
    assert schema.columns[0].multiple == 86_400
    numbers, _ = stored(schema, frame)
    far = np.where(np.isnan(numbers[:, :1]), np.random.default_rng(1).normal(size=(900, 1)), np.nan)
    x = torch.from_numpy(np.where(np.isnan(far), schema.columns[0].numbers(torch.from_numpy(numbers[:, :1])), far))
    back = schema.columns[0].inverse(x).numpy()
    np.testing.assert_array_equal(back[when.notna(), 0], numbers[when.notna(), 0])
    out = filled(schema, frame, np.hstack([back, numbers[:, 1:]])).native.w
    assert (out.dt.hour == 0).all()
    assert out.dtype == when.dtype
    made_up = made(schema, np.hstack([back, numbers[:, 1:]])).native["w"]
    assert made_up.type == pa.timestamp("us", zone)


def test_intervals_of_pandas_are_levels_and_come_back() -> None:
    whole = pd.cut(X, 3)
    holes = I % 7 == 3
    frame = pd.DataFrame({"c": pd.Series(whole).mask(holes), 0: X})
    out = filled_with(frame_of(frame), 2.0)
    assert out.dtypes.equals(frame.dtypes)
    assert list(out.columns) == ["c", 0]
    assert out.c[~holes].equals(frame.c[~holes])
    assert (out.c[holes] == whole.categories[2]).all()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_level_that_new_rows_do_not_declare_is_filled(library: str) -> None:
    words = ["lo", "hi"] * (N // 2)
    schema = look(frame_of(pd.DataFrame({"o": pd.Categorical(words, ["lo", "hi"]), "x": X})))
    o: Any = pd.Series(["lo", None], dtype=pd.CategoricalDtype(["lo"]))
    if library == "polars":
        o = pl.Series(["lo", None], dtype=pl.Enum(["lo"]))
    new = frame_of((pd if library == "pandas" else pl).DataFrame({"o": o, "x": [1.0, 2.0]}))
    numbers = np.nan_to_num(stored(schema, new)[0], nan=1.0)
    out = filled(schema, new, numbers).native["o"]
    assert list(out) == ["lo", "hi"]
    levels = out.cat.categories if library == "pandas" else out.dtype.categories
    assert list(levels) == ["lo", "hi"]


def test_views_in_parquet_are_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": X, "w": pa.array(WORDS, pa.string_view())}), tmp_path / "t.parquet")
    frame = read_frame(tmp_path / "t.parquet")
    assert [column.kind for column in look(frame).columns] == ["real", "binary"]
    write_frame(frame, tmp_path / "t.csv")
    assert read_frame(tmp_path / "t.csv").table["w"].to_list() == WORDS


@pytest.mark.parametrize("kind", [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")])
def test_times_of_a_day_are_modelled_and_come_back(kind: Any) -> None:
    table = pa.table({"x": X, "t": pa.array(TIMES, kind)})
    schema = look(frame_of(table))
    assert schema.columns[1].likelihood
    assert filled_with(frame_of(table), 3600.0)["t"].to_pylist() == [t or dt.time(1) for t in TIMES]
    assert filled_with(frame_of(table), 1e9)["t"].to_pylist()[3] >= dt.time(23, 59, 59)
    new = made(schema, np.array([[0.0, -5.0], [0.0, 3660.0]]), frame_of(table)).native
    assert new.schema.field("t").type == kind
    assert new["t"].to_pylist() == [dt.time(0), dt.time(1, 1)]


@pytest.mark.parametrize("library", [pl.DataFrame, pd.DataFrame])
def test_times_of_a_day_in_frames(library: Any) -> None:
    out = filled_with(frame_of(library({"x": X, "t": TIMES})), 3600.0)
    assert list(out["t"]) == [t or dt.time(1) for t in TIMES]


def test_an_ordered_type_stays_ordered_in_new_rows() -> None:
    codes = pa.array(I % 3, pa.int8())
    table = pa.table({"x": X, "size": pa.DictionaryArray.from_arrays(codes, ["s", "m", "l"], ordered=True)})
    schema = look(frame_of(table))
    new = made(schema, np.array([[0.0, 2.0]])).native
    assert new.schema.field("size").type.ordered
    assert new["size"].combine_chunks().dictionary.to_pylist() == ["s", "m", "l"]


@pytest.mark.parametrize(
    "when",
    [
        pa.array((I + 1) * 86_400 * 10**9 + 3600 * 10**9 * (I % 5), pa.timestamp("ns", "Europe/Berlin")),
        pa.array((I + 1) * 86_400 * 10**9, pa.timestamp("ns")),
        pa.array(I * 60_000 - 90_000, pa.duration("ms")),
        pa.array(TIMES, pa.time64("us")),
    ],
    ids=["zone", "ns", "span", "time"],
)
def test_what_is_written_as_text_is_read_again(when: Any, tmp_path: Path) -> None:
    """A CSV file of a model's own columns has the same stored numbers."""
    frame = frame_of(pa.table({"x": X.round(2), "when": when}))
    schema = look(frame)
    numbers, _ = stored(schema, frame)
    write_frame(frame, tmp_path / "t.csv")
    again, notes = stored(schema, read_frame(tmp_path / "t.csv"))
    np.testing.assert_array_equal(number_of(schema, "when", again), number_of(schema, "when", numbers))
    assert not notes


def test_spans_of_time() -> None:
    assert span("9:29") == span("09:29:00") == span("0 days 09:29:00") == 9 * 3600 + 29 * 60
    for library in (str(dt.timedelta(seconds=-5.5)), str(pd.Timedelta(seconds=-5.5))):
        assert span(library) == -5.5
    with pytest.raises(ValueError, match="soon"):
        span("soon")


def test_fractions_of_nine_digits_are_dates() -> None:
    found = dates_in([f"2020-01-{day:02} 00:00:01.123456789" for day in range(1, 20)])
    assert found is not None
    assert found.seconds[0] == 1577836801.123456


HOURS = [dt.datetime(2020, 1, 1) + dt.timedelta(hours=i) for i in range(N)]
DAYS = [f"2020-01-{i % 28 + 1:02}" for i in range(N)]


@pytest.mark.parametrize(
    ("train", "new", "hole"),
    [
        (HOURS, ["2020-01-02 03:00", "2020-01-02 04:00", None], "2020-01-02 03:00"),
        ([when.date() for when in HOURS], ["02.01.2020", "14.01.2020", None], "02.01.2020"),
        (DAYS, ["02.01.2020", "14.02.2020", None], "02.01.2020"),
        (DAYS, [dt.date(2020, 1, 2), dt.date(2020, 1, 3), None], dt.date(2020, 1, 2)),
        (pa.array(I * 60_000, pa.duration("ms")), ["0:05:00", "0:06:00", None], "0:05:00"),
        (TIMES, ["05:00:00", "06:00:00", None], "05:00:00"),
        ([True, False] * 30, ["TRUE", "FALSE", None], "TRUE"),
        ([True, False] * 30, ["True", "True", None], "True"),
        ([True, False] * 30, [1, 0, None], 1),
        (["True", "False"] * 30, [1, 0, None], 1),
        (["TRUE", "FALSE"] * 30, [True, False, None], True),
        ([1.5, 2.0, 3.0] * 20, [2, 3, None], 2),
        ([1, 2, 3] * 20, ["1", "2", None], "1"),
        (["1", "2", "3"] * 20, [1, 2, None], 1),
    ],
)
def test_a_hole_is_filled_as_the_new_table_writes_its_cells(train: Any, new: list[Any], hole: Any) -> None:
    """Whatever type and form its column had in training; here with the number of the first row."""
    schema = look(frame_of({"x": X, "c": train}))
    frame = frame_of({"x": X[:3], "c": new})
    numbers, _ = stored(schema, frame)
    out = filled(schema, frame, np.where(np.isnan(numbers), numbers[0], numbers)).table["c"].to_list()
    assert out == [*new[:2], hole]
    assert type(out[2]) is type(new[0])


# Numbers that a model cannot read, or reads as others


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("x", [np.exp(Z * 690), np.sign(Z) * np.exp(np.abs(Z) * 690), Z * 1.7e308, Z * 1e-319])
def test_numbers_of_any_size_are_looked_at_without_warnings(x: np.ndarray) -> None:
    frame = frame_of({"x": X, "huge": x})
    schema = look(frame)
    try:
        numbers, _ = stored(schema, frame)
    except DataError as fault:
        assert "column 'huge' holds" in str(fault)  # noqa: PT017  # either is right
    else:
        assert schema.numbers(torch.from_numpy(numbers)).isfinite().all()


def test_positive_numbers_of_600_decades_are_read_by_their_logarithm() -> None:
    x = np.exp(np.linspace(-690, 690, N))
    schema = look(frame_of({"x": x}))
    assert schema.columns[0].map == "log"


def test_a_number_that_float32_does_not_hold_is_named_with_its_column() -> None:
    schema = look(frame_of({"x": X, "y": X}))
    with pytest.raises(DataError, match=r"column 'y' holds -1e\+300 \(row 2, counted from 0\).*ask for y=id"):
        stored(schema, frame_of({"x": [1.0, 2.0, 3.0], "y": [None, 1.0, -1e300]}))


def test_a_number_below_zero_of_a_positive_column_is_said() -> None:
    x = np.exp(X * 3)
    schema = look(frame_of({"x": x}))
    assert schema.columns[0].map == "log"
    _, notes = stored(schema, frame_of({"x": [-1.0, 0.0, 2.0]}))
    least = BELOW * x.min()
    assert notes == [
        f"the table: column 'x': -1 is not above 0, as all were in training; it counts as {least:g} (2 rows)."
    ]


def test_a_number_beyond_its_bounds_is_said() -> None:
    schema = look(frame_of({"x": 1 / (1 + np.exp(-3 * X))}), {"x": "bounded"})
    _, notes = stored(schema, frame_of({"x": [0.5, 1.5]}))
    assert notes == ["the table: column 'x': 1.5 is not between 0 and 1; it counts as the nearest that is (1 rows)."]


def test_dates_that_could_be_read_otherwise_are_said() -> None:
    schema = look(frame_of({"x": X, "day": [f"2020-01-{i % 28 + 1:02}" for i in I]}))
    both = [f"0{i}/01/2020" for i in (1, 2, 3)]
    _, notes = stored(schema, frame_of({"x": X[:3], "day": both}))
    assert notes == [
        "the table: column 'day': dates such as 01/01/2020 are read as %m/%d/%Y; %d/%m/%Y would fit as well."
    ]
    assert not stored(schema, frame_of({"x": X[:3], "day": ["13/01/2020", "14/01/2020", "15/01/2020"]}))[1]
    assert math.isfinite(stored(schema, frame_of({"x": X[:3], "day": both}))[0].sum())


@pytest.mark.parametrize("wrong", [-1, 0.5])
def test_what_is_no_count_is_named(wrong: float) -> None:
    schema = look(frame_of({"x": X, "visits": (I * 7) % 50}))
    assert schema.columns[1].kind == "count"
    with pytest.raises(DataError, match=f"column 'visits' holds {wrong:g}, but counts in training. Empty the cell"):
        stored(schema, frame_of({"x": [0.5, 1.5], "visits": [3, wrong]}))
