"""Frames as stored numbers and back: no type, order, index or cell of a user's frame is lost."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aevb.data.columns import Schema
from aevb.data.frames import filled, made, stored
from aevb.data.kinds import look
from aevb.data.tables import Frame, frame_of, read_frame, write_frame
from aevb.errors import DataError

N = 60
I = np.arange(N)
DAYS = pd.date_range("2020-01-01 05:06:07.25", periods=N, freq="31h")
LEVELS = ["low", "mid", "high"]


def pandas_frame() -> pd.DataFrame:
    """A column of each type of pandas; those whose type knows missing values have some."""
    holes = I % 7 == 3
    words = pd.Series([LEVELS[i % 3] for i in I])
    columns = {
        **{f"u{b}": (I % 9).astype(f"uint{b}") for b in (8, 16, 32, 64)},
        **{f"i{b}": (I % 9 - 4).astype(f"int{b}") for b in (8, 16, 32, 64)},
        "large": 2**53 + 1 + I,
        **{f"f{b}": np.where(holes, np.nan, np.sin(I)).astype(f"float{b}") for b in (32, 64)},
        "decimals": np.where(holes, np.nan, np.round(np.sin(I), 2)),
        "bool": I % 2 == 0,
        "Int8": pd.Series(I % 5, dtype="Int8").mask(holes),
        "UInt64": pd.Series(I * 3, dtype="UInt64").mask(holes),
        "Float32": pd.Series(np.sin(I), dtype="Float32").mask(holes),
        "boolean": pd.Series(I % 2 == 0, dtype="boolean").mask(holes),
        "string": words.astype("string").mask(holes),
        "object": words.astype(object).mask(holes, None),
        "levels": pd.Categorical(words.mask(holes), ["mid", "high", "low"]),
        "ordered": pd.Categorical(words.mask(holes), LEVELS, ordered=True),
        "numbered": pd.Categorical(pd.Series(I % 3).mask(holes), [2, 0, 1]),
        "when": pd.Series(DAYS).mask(holes),
        "zone": pd.Series(DAYS.tz_localize("Europe/Berlin")).mask(holes),
        "nanoseconds": pd.Series(DAYS.as_unit("ns")).mask(holes),
        "span": pd.Series(pd.to_timedelta(I * 1000 + 500, unit="ms")).mask(holes),
        "dates": [None if h else dt.date(2020, 1, 1) + dt.timedelta(int(i)) for i, h in zip(I, holes, strict=True)],
        "money": [None if h else decimal.Decimal(int(i) * 25 + 1) / 100 for i, h in zip(I, holes, strict=True)],
        "as text": [None if h else f"{i % 28 + 1:02}.03.2020" for i, h in zip(I, holes, strict=True)],
        "arrow": pd.Series(I % 4, dtype="int16[pyarrow]").mask(holes),
        "id": [f"row {i}" for i in I],
        "one": "x",
        "none": np.full(N, np.nan),
    }
    return pd.DataFrame(columns).set_index(pd.Index(I[::-1] * 10, name="key"))


def frames() -> dict[str, Any]:
    data = pandas_frame()
    plain = data.reset_index(drop=True).drop(columns=["money", "numbered", "arrow"])
    polars = pl.from_pandas(plain).with_columns(
        pl.Series("enum", [None if i % 5 == 2 else LEVELS[i % 3] for i in I], pl.Enum(LEVELS)),
        pl.Series("dec", [None if i % 5 == 2 else str(i / 4) for i in I]).cast(pl.Decimal(10, 2)),
        pl.Series("date", plain["dates"].tolist(), pl.Date),
    )
    arrow = pa.Table.from_pandas(data, preserve_index=False)
    return {"pandas": data, "polars": polars, "arrow": arrow}


@pytest.fixture(scope="module", params=["pandas", "polars", "arrow"])
def frame(request: pytest.FixtureRequest) -> Frame:
    return frame_of(frames()[request.param])


def same(a: Any, b: Any) -> None:
    """Values, types, order and index are equal."""
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b, check_exact=True, check_freq=False)
    else:
        assert a.schema == b.schema
        assert a.equals(b)


def with_holes_filled(frame: Frame) -> tuple[Schema, np.ndarray, Frame]:
    schema = look(frame)
    numbers, notes = stored(schema, frame)
    assert notes == []
    other = np.stack([np.resize(c[~np.isnan(c)], len(c)) for c in numbers.T], -1)
    full = np.where(np.isnan(numbers), other, numbers)
    return schema, full, filled(schema, frame, full)


def test_filled_keeps_types_order_and_index(frame: Frame) -> None:
    schema, full, out = with_holes_filled(frame)
    assert out.table.columns == frame.table.columns
    assert dict(out.table.schema) == dict(frame.table.schema)
    again, _ = stored(schema, out)
    # float32 and decimals hold fewer digits than what is filled in
    np.testing.assert_allclose(again, full, rtol=1e-6, atol=6e-3)
    assert not np.isnan(again).any()


def test_filled_leaves_cells_as_they_are(frame: Frame) -> None:
    """Bit for bit: what was there, and columns without holes; where nothing is filled in, the frame is the same."""
    schema, full, out = with_holes_filled(frame)
    same(frame.native, filled(schema, frame, np.full_like(full, np.nan)).native)
    for name in frame.table.columns:
        before, after = frame.table[name].to_list(), out.table[name].to_list()
        assert len(before) == len(after) == N
        for a, b in zip(before, after, strict=True):
            missing = a is None or a is pd.NA or a is pd.NaT or a != a
            assert missing or (type(a) is type(b) and a == b), name


def test_filled_leaves_what_is_not_modelled(frame: Frame) -> None:
    _, _, out = with_holes_filled(frame)
    assert out.table["id"].to_list() == [f"row {i}" for i in I]
    assert out.table["none"].is_null().all() or np.isnan(out.table["none"].to_numpy()).all()


def test_index_and_types_of_pandas_stay() -> None:
    data = pandas_frame()
    _, _, out = with_holes_filled(frame_of(data))
    assert out.native.index.equals(data.index)
    assert out.native.index.name == "key"
    assert (out.native.dtypes == data.dtypes).all()
    assert list(out.native["levels"].cat.categories) == ["mid", "high", "low"]
    assert out.native["ordered"].cat.ordered


def test_made_has_the_types_of_the_source(frame: Frame) -> None:
    schema, full, _ = with_holes_filled(frame)
    out = made(schema, full, frame)
    assert out.table.columns == frame.table.columns
    assert dict(out.table.schema) == dict(frame.table.schema)
    again, _ = stored(schema, out)
    np.testing.assert_allclose(again, full, rtol=1e-6, atol=6e-3)
    assert out.table["one"].to_list() == ["x"] * N
    assert out.table["id"].to_list() == [str(i + 1) for i in range(N)]


def test_made_of_another_number_of_rows() -> None:
    data = pandas_frame()
    schema, full, _ = with_holes_filled(frame_of(data))
    out = made(schema, np.tile(full, (3, 1)), frame_of(data.head(2))).native
    assert len(out) == 3 * N
    assert (out.dtypes == data.dtypes).all()
    assert list(out.index) == list(range(3 * N))


def test_made_without_a_frame(frame: Frame) -> None:
    """By the schema alone, as it comes back from JSON: Arrow's types of the same names."""
    schema, full, _ = with_holes_filled(frame)
    out = made(Schema.from_dict(json.loads(json.dumps(schema.to_dict()))), full)
    again, _ = stored(schema, out)
    np.testing.assert_allclose(again, full, rtol=1e-6, atol=6e-3)
    for name, kind in frame.table.schema.items():
        if str(kind) != "Object" and name not in ("none", "numbered", "arrow"):
            got = str(out.table[name].dtype).partition("(categories")[0]
            assert got.replace("Enum", "Categorical") == str(kind).partition("(categories")[0].replace(
                "Enum", "Categorical"
            ), name


def test_numbers_beyond_a_type_are_cut_to_it() -> None:
    data = pd.DataFrame({"i": pd.Series(range(100), dtype="Int8"), "u": pd.Series(range(100), dtype="uint64")})
    schema = look(frame_of(data), {"i": "real", "u": "count"})
    out = made(schema, np.array([[300.0, -5.0], [-1e30, 1e30]]), frame_of(data)).native
    assert out["i"].tolist() == [127, -128]
    assert out["u"].tolist()[0] == 0
    assert out["u"].tolist()[1] > 2**63
    assert (out.dtypes == data.dtypes).all()


def test_large_integers_lose_nothing() -> None:
    """Two that float64 cannot tell apart stay two, beside a hole that is filled."""
    data = pd.DataFrame({"n": pd.Series([2**53, 2**53 + 1, None, 2**60 + 1] * 20, dtype="Int64"), "v": range(80)})
    schema = look(frame_of(data))
    numbers, _ = stored(schema, frame_of(data))
    out = filled(schema, frame_of(data), np.nan_to_num(numbers)).native
    assert out["n"].tolist()[:2] == [2**53, 2**53 + 1]
    assert out["n"].dtype == "Int64"
    assert out["n"].notna().all()


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(-(2**31), 2**31 - 1),
            st.none() | st.floats(-1e6, 1e6, width=32),
            st.none() | st.sampled_from(["a", "b", "ü", "", " x", "1"]),
            st.none() | st.booleans(),
            st.none() | st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)),
            st.none() | st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31)),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_any_frame_comes_back(rows: list[tuple[Any, ...]]) -> None:
    """Stored and made again, each value is as it was; what is filled with NaN is the frame itself."""
    kinds = [pl.Int32, pl.Float32, pl.Categorical, pl.Boolean, pl.Datetime("us", "Asia/Tokyo"), pl.Date]
    columns = [pl.Series(f"c{i}", [row[i] for row in rows]) for i in range(6)]
    columns[4] = columns[4].cast(pl.Datetime("us")).dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")
    data = pl.DataFrame([c.cast(k) for c, k in zip(columns, kinds, strict=True)])
    for library in (data, data.to_arrow(), data.to_pandas()):
        frame = frame_of(library)
        schema = look(frame, {name: "categorical" for name in ("c2",) if data[name].drop_nulls().n_unique()})
        numbers, notes = stored(schema, frame)
        assert not notes
        assert (np.isnan(numbers).sum(0) == [schema.columns[i].holes for i in schema.modelled]).all()
        same(frame.native, filled(schema, frame, np.full_like(numbers, np.nan)).native)
        again, _ = stored(schema, made(schema, numbers, frame))
        np.testing.assert_allclose(again, numbers, rtol=1e-9, atol=2e-6)


# New data for a schema


def test_the_order_of_columns_does_not_count() -> None:
    data = pandas_frame()
    schema = look(frame_of(data))
    numbers, _ = stored(schema, frame_of(data))
    turned, notes = stored(schema, frame_of(data[data.columns[::-1]]))
    np.testing.assert_array_equal(turned, numbers)
    assert notes == []


def trained() -> Schema:
    table = {"size": [1.5, 2.5, 3.5, 4.0] * 5, "sort": ["a", "b", "c", "a"] * 5, "flag": ["TRUE", "FALSE"] * 10}
    return look(frame_of({**table, "level": [1, 2, 3, 1] * 10, "when": ["2020-01-01", "2020-01-02"] * 20} | {
        name: values * 2 for name, values in table.items()}))  # fmt: skip


def new(**changes: Any) -> dict[str, Any]:
    table = {"size": [1.5, 2.5], "sort": ["a", "b"], "flag": ["TRUE", "FALSE"], "level": [1, 2]}
    return {**table, "when": ["2020-01-01", None], **changes}


def test_a_column_that_is_not_there_is_named() -> None:
    data = new()
    del data["sort"]
    with pytest.raises(DataError, match="lacks the column 'sort', which the model reads"):
        stored(trained(), frame_of(data))


def test_a_column_that_was_not_there_is_said() -> None:
    numbers, notes = stored(trained(), frame_of(new(more=[1, 2], size=[1.5, 2.5])))
    assert numbers.shape == (2, 5)
    assert any("not read: 'more'" in note or "not read: more" in note for note in notes)


def test_a_new_category_has_the_code_behind_all_levels_and_is_kept() -> None:
    schema, frame = trained(), frame_of(new(sort=["z", "b"]))
    numbers, notes = stored(schema, frame)
    place = [schema.columns[i].name for i in schema.modelled].index("sort")
    assert numbers[0, place] == 3  # a, b, c are 0, 1, 2
    assert numbers[1, place] == 1
    assert any("'sort'" in note and "z did not occur in training (1 rows)" in note for note in notes)
    out = filled(schema, frame, np.zeros_like(numbers))
    assert out.table["sort"].to_list() == ["z", "b"]


def test_a_new_hole_is_said() -> None:
    _, notes = stored(trained(), frame_of(new(size=[None, 2.5])))
    assert any("'size' has 1 holes; in training it had none" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "values", "numbers"),
    [
        ("size", [1, 2], [1, 2]),
        ("size", ["1.5", "2"], [1.5, 2]),
        ("size", [True, False], [1, 0]),
        ("level", [2.0, 1.0], [1, 0]),
        ("level", ["3", "1"], [2, 0]),
        ("flag", [True, False], [1, 0]),
        ("flag", ["true", "False"], [1, 0]),
        ("flag", [1, 0], [1, 0]),
        ("flag", [0.0, 2.0], [2, 2]),
        ("sort", pd.Categorical(["c", "a"]), [2, 0]),
        ("when", [dt.date(1970, 1, 2), dt.date(1970, 1, 1)], [86400, 0]),
        ("when", ["02.01.1970", "01.01.1970"], None),
        ("size", [None, None], [np.nan, np.nan]),
    ],
)
def test_other_types_of_the_same_values(name: str, values: Any, numbers: list[float] | None) -> None:
    schema = trained()
    place = [schema.columns[i].name for i in schema.modelled].index(name)
    got, _ = stored(schema, frame_of(pd.DataFrame(new(**{name: values}))))
    if numbers is None:  # another form of dates, where day and month may change places
        assert np.isfinite(got[:, place]).all()
    else:
        np.testing.assert_array_equal(got[:, place], numbers)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": ["big", "2"]}, "column 'size' holds 'big', but numbers in training"),
        ({"size": [dt.date(2020, 1, 1)] * 2}, "column 'size' is of the type Date, but held numbers in training"),
        ({"when": ["soon", "2020-01-01"]}, "column 'when' holds 'soon', but dates in training"),
        ({"when": [1.5, 2.5]}, "column 'when' is of the type Float64, but held dates in training"),
        ({"size": [np.inf, 1.0]}, "column 'size' holds an infinite number"),
    ],
)
def test_what_is_none_of_its_kind_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        stored(trained(), frame_of(new(**changes)))


def test_the_word_that_is_no_date_of_the_trained_form_is_named() -> None:
    days = [f"{day:02}/{month:02}/2020" for day in (1, 14, 28) for month in (1, 5, 12)]
    schema = look(frame_of({"when": days, "x": np.arange(9.0)}))
    with pytest.raises(DataError, match=r"holds '12/25/2020', but dates in training"):
        stored(schema, frame_of({"when": ["13/04/2020", "12/25/2020"], "x": [1.0, 2.0]}))


def test_a_row_without_values_is_kept() -> None:
    data = {name: [*values[:1], None] for name, values in new().items()}
    schema = trained()
    numbers, _ = stored(schema, frame_of(data))
    assert np.isnan(numbers[1]).all()
    assert len(filled(schema, frame_of(data), numbers)) == 2


def test_angles_go_round() -> None:
    """Radians in (-π, π]; degrees come back as degrees."""
    degrees = [0.0, 90.0, 180.0, 270.0, 359.0] * 8
    schema = look(frame_of({"a": degrees}), {"a": "angle"})
    numbers, _ = stored(schema, frame_of({"a": degrees}))
    np.testing.assert_allclose(numbers[:4, 0], [0, np.pi / 2, np.pi, -np.pi / 2], atol=1e-12)
    np.testing.assert_allclose(made(schema, numbers).table["a"].to_numpy(), degrees, atol=1e-9)


# What users hold


def test_names_that_are_no_strings_come_back() -> None:
    data = pd.DataFrame({0: [1.5, None, 2.5] * 9, ("a", 1): ["x", "y", "x"] * 9})
    frame = frame_of(data)
    assert frame.table.columns == ["0", "('a', 1)"]
    schema = look(frame)
    out = filled(schema, frame, np.zeros((27, 2)))
    assert list(out.native.columns) == [0, ("a", 1)]
    assert out.native[0].tolist()[:3] == [1.5, 1.5, 2.5]


def test_arrays_dicts_and_lazy_frames() -> None:
    x = np.array([[1.0, np.nan], [3.0, 4.0]], np.float32)
    frame = frame_of(x)
    assert frame.table.columns == ["x0", "x1"]
    np.testing.assert_array_equal(frame.native, x)
    assert frame.native.dtype == np.float32
    assert frame_of({"a": [1, None], "b": ["x", "y"]}).native == {"a": [1, None], "b": ["x", "y"]}
    assert frame_of(pl.LazyFrame({"a": [1, 2]})).native.equals(pl.DataFrame({"a": [1, 2]}))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "several columns of the name 'a'"),
        (pa.table([[1], [2]], names=["a", "a"]), "several columns of the name 'a'"),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), "several columns of the name '1'"),
        (pd.DataFrame(index=[1, 2]), "has no columns"),
        ({"a": [1, 2], "b": [1]}, "column 'b' has 1 rows, but 'a' has 2"),
        ({"a": [1, "x"]}, "column 'a' mixes values of several types .int, str."),
        (np.zeros((2, 2, 2)), r"got ndarray of shape \(2, 2, 2\)"),
        (7, "got int"),
        ("text", "got str"),
    ],
)
def test_what_is_no_table_is_refused(data: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        frame_of(data)


# Files


def test_parquet_keeps_types(tmp_path: Path) -> None:
    pq.write_table(frames()["arrow"], tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    frame = read_frame(tmp_path / "t.parquet")
    assert frame.table.to_native().schema.equals(table.schema)
    write_frame(frame, tmp_path / "u.parquet")
    assert pq.read_table(tmp_path / "u.parquet").equals(table)


def test_a_folder_of_parquet(tmp_path: Path) -> None:
    for i in (1, 2):
        pq.write_table(pa.table({"a": [i, i + 2]}), tmp_path / f"part-{i}.parquet")
    assert read_frame(tmp_path).table["a"].to_list() == [1, 3, 2, 4]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_text_comes_back(suffix: str, tmp_path: Path) -> None:
    columns = {
        "a,b": [1, None, 3],
        'q"': ["x, y", 'say "no"', None],
        "t": ["two\nlines", "tab\t", "ü"],
        "f": [0.1, 1e-300, None],
    }
    write_frame(frame_of(columns), tmp_path / f"t{suffix}")
    again = read_frame(tmp_path / f"t{suffix}").table.to_dict(as_series=False)
    assert again == columns | {"t": ["two\nlines", "tab", "ü"]}


def test_other_suffixes_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a table is written as"):
        write_frame(frame_of({"a": [1]}), tmp_path / "t.xlsx")


def test_arrays_in_files(tmp_path: Path) -> None:
    """X is the table; y, a label, is no column, and that is said."""
    np.savez(tmp_path / "t.npz", X=np.arange(6.0).reshape(3, 2), y=np.zeros(3))
    frame = read_frame(tmp_path / "t.npz")
    assert frame.table.to_dict(as_series=False) == {"x0": [0, 2, 4], "x1": [1, 3, 5]}
    assert "The array y is not a column." in frame.notes
    np.save(tmp_path / "t.npy", np.array([[1, 2], [3, 4]]))
    assert read_frame(tmp_path / "t.npy").table.to_dict(as_series=False) == {"x0": [1, 3], "x1": [2, 4]}


@pytest.mark.parametrize("form", ["dense", "csr", "csc", "layer"])
def test_counts_of_cells(form: str, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    import scipy.sparse as sp

    x = np.random.default_rng(0).poisson(0.7, (50, 3)).astype(np.float32)
    with h5py.File(tmp_path / "c.h5ad", "w") as file:
        if form in ("csr", "csc"):
            m = (sp.csr_matrix if form == "csr" else sp.csc_matrix)(x)
            group = file.create_group("X")
            group.attrs.update({"encoding-type": f"{form}_matrix", "shape": x.shape})
            for name in ("data", "indices", "indptr"):
                group[name] = getattr(m, name)
        else:
            file["X"] = np.log1p(x) if form == "layer" else x
        if form == "layer":
            file["layers/counts"] = x
        file["var/_index"] = ["g1", "g2", "g3"]
        file["var"].attrs["_index"] = "_index"
        file["obs/_index"] = [f"cell {i}" for i in range(50)]
        file["obs/type"] = ["B", "T"] * 25
        file["obs"].attrs["_index"] = "_index"
    frame = read_frame(tmp_path / "c.h5ad")
    assert frame.table.columns == ["g1", "g2", "g3"]
    np.testing.assert_array_equal(frame.table.to_numpy(), x)
    assert {c.kind for c in look(frame).columns} == {"count"}
    assert "Columns of observations are not read: type." in frame.notes


def test_no_library_of_frames_is_imported_before_a_table_is_read() -> None:
    code = (
        "import sys, aevb, aevb.apps.cli, aevb.data.sources;"
        "print([m for m in ('pyarrow', 'narwhals', 'pandas', 'polars', 'h5py') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_numbers_as_text_are_numbers_and_stay_text() -> None:
    words = [None if i % 9 == 4 else f"{i / 4:.2f}" for i in range(90)]
    frame = frame_of(pd.DataFrame({"n": words}))
    schema = look(frame)
    numbers, _ = stored(schema, frame)
    assert schema.columns[0].kind == "real"
    np.testing.assert_array_equal(numbers[:4, 0], [0, 0.25, 0.5, 0.75])
    out = filled(schema, frame, np.full((90, 1), 1.239)).table["n"].to_list()
    assert out[:6] == ["0.00", "0.25", "0.50", "0.75", "1.24", "1.25"]
    codes = frame_of(pd.DataFrame({"n": [f"{i:05}" for i in range(90)] * 2}))
    assert look(codes).columns[0].kind == "categorical"


@pytest.mark.parametrize("kind", [pl.Datetime("ns"), pl.Datetime("us"), pl.Date, pl.Datetime("ms", "UTC")])
def test_dates_beyond_the_calendar_are_cut_to_it(kind: Any) -> None:
    data = pl.DataFrame({"d": pl.Series([dt.datetime(2020, 1, d) for d in range(1, 29)]).cast(kind)})
    schema = look(frame_of(data))
    out = made(schema, np.array([[1e30], [-1e30], [np.nan]]), frame_of(data))
    assert out.native.schema == data.schema
    late, early, missing = out.native["d"].dt.year().to_list()
    assert late > 2200
    assert early < 1800
    assert missing is None
    text = look(frame_of({"d": ["2020-01-01", "2020-01-02"] * 9}))
    assert made(text, np.array([[1e30], [-1e30]])).table["d"].to_list() == ["9999-12-31", "1000-01-01"]


def test_text_is_quoted_only_where_it_must_be(tmp_path: Path) -> None:
    write_frame(frame_of({"a": ["x", None, "y z"], "b": [True, False, None], "c": [1, 2, None]}), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "a,b,c\nx,True,1\n,False,2\ny z,,\n"
    write_frame(frame_of({"a": [[1], [2, 3]], "b": ["x,y", "z"]}), tmp_path / "u.csv")
    assert read_frame(tmp_path / "u.csv").table.to_dict(as_series=False) == {"a": ["[1]", "[2, 3]"], "b": ["x,y", "z"]}
