"""Tables through the command line: holes filled, rows scored with reasons, new rows given columns."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from test_cli import good, mistake

import aevb
from aevb import DataError
from aevb.apps.conditions import conditions
from aevb.data.columns import Column, Schema
from aevb.data.dataset import Split
from aevb.data.frames import stored
from aevb.data.tables import read_frame
from aevb.runs.store import Run

NETS = ["--set", "encoder.hidden=[32]", "--set", "decoder.hidden=[32]", "--set", "evaluation.importance_samples=20"]
COLUMNS = ("name", "size", "visits", "kind", "day", "weight")


def table(n: int, seed: int, holes: float = 0.15) -> list[list[str]]:
    """Rows of words: an id, a number, a count, a level, a date and a positive number, all but the id of one latent."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    kinds = np.array(["small", "middle, or so", "large"])[np.digitize(z + 0.2 * rng.normal(size=n), [-0.5, 0.5])]
    days = np.datetime64("2020-01-01") + np.round(100 + 30 * z + 5 * rng.normal(size=n)).astype(int)
    columns = (
        [f"row-{seed}-{i}-{rng.integers(1_000_000_000)}" for i in range(n)],
        [f"{x:.3f}" for x in 20 + 5 * z + 0.5 * rng.normal(size=n)],
        [str(x) for x in rng.poisson(np.exp(1 + 0.7 * z))],
        kinds.tolist(),
        days.astype(str).tolist(),
        [f"{x:.4f}" for x in np.exp(z + 0.2 * rng.normal(size=n))],
    )
    rows = [list(row) for row in zip(*columns, strict=True)]
    for row in rows:
        for d in range(1, len(row)):
            row[d] = "" if rng.random() < holes else row[d]
    return rows


def write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as f:
        csv.writer(f).writerows([COLUMNS, *rows])


def read(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(newline="") as f:
        lines = list(csv.reader(f))
    return lines[0], lines[1:]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("AEVB_RUNS", raising=False)
        write(folder / "table.csv", table(600, 0))
        write(folder / "new.csv", table(60, 1, holes=0.3))
        good("train", "table.csv", "--out", "runs/table", "--samples", 12_000, "--latent", 2, "--no-figures", *NETS)
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("AEVB_RUNS", raising=False)


def numbers(schema: Schema, path: str | Path) -> torch.Tensor:
    return torch.from_numpy(stored(schema, read_frame(path))[0])


def test_holes_are_filled_and_all_else_stays(tmp_path: Path) -> None:
    out = good("impute", "new.csv", "-o", tmp_path / "filled.csv")
    before, after = read(Path("new.csv")), read(tmp_path / "filled.csv")
    assert after[0] == list(COLUMNS)
    holes = 0
    for old, new in zip(before[1], after[1], strict=True):
        assert "" not in new
        assert new[0] == old[0]
        for a, b in zip(old[1:], new[1:], strict=True):
            holes += a == ""
            if a:
                assert b == a or float(b) == float(a)
    assert f"60 rows; {holes} holes filled in size" in out


def test_what_fills_a_hole_is_what_python_gives(tmp_path: Path) -> None:
    run = Run.open("runs/table")
    schema = run.values().columns
    rows = numbers(schema, "new.csv")
    for method in ("mean", "median"):
        good("impute", "new.csv", "--method", method, "--importance-samples", 50, "-o", tmp_path / "filled.csv")
        found = aevb.impute(run.model(), Split(rows, values=run.values()), 50, method=method).values  # type: ignore[arg-type]
        written = numbers(schema, tmp_path / "filled.csv")
        assert bool(rows.isnan().any())
        days = [d for d, column in enumerate(schema.model) if column.kind == "datetime"]
        assert bool(((written - found)[:, days].abs() <= 86_400).all())  # which are written as days
        written[:, days] = found[:, days]
        torch.testing.assert_close(written, found, rtol=1e-6, atol=1e-6)


def test_filled_numbers_are_nearer_to_the_truth_than_means() -> None:
    run = Run.open("runs/table")
    schema = run.values().columns
    truth = numbers(schema, "table.csv")[:300]
    full = truth[~truth.isnan().any(1)]
    holed = torch.where(torch.arange(full.shape[1]) == 0, torch.nan, full)  # the size
    filled = aevb.impute(run.model(), Split(holed, values=run.values())).values
    error = (filled[:, 0] - full[:, 0]).square().mean().sqrt()
    assert float(error) < 0.5 * float(full[:, 0].std())


def test_several_imputations_are_below_one_another_and_differ_in_holes_alone(tmp_path: Path) -> None:
    good("impute", "new.csv", "--draws", 3, "-o", tmp_path / "many.parquet")
    found = pq.read_table(tmp_path / "many.parquet")
    assert found.column_names == ["imputation", *COLUMNS]
    assert found["imputation"].to_pylist() == [i for i in (1, 2, 3) for _ in range(60)]
    sizes = np.array(found["size"].to_pylist()).reshape(3, 60)
    before = [row[1] for row in read(Path("new.csv"))[1]]
    for column, old in zip(sizes.T, before, strict=True):
        assert (len(set(column)) == 3) == (old == "")
    once = pq.read_table(tmp_path / "many.parquet").slice(0, 60).drop_columns(["imputation"])
    good("impute", "new.csv", "--method", "draw", "-o", tmp_path / "one.parquet", "--importance-samples", 200)
    one = pq.read_table(tmp_path / "one.parquet")
    assert one.column_names == list(COLUMNS)
    assert one["name"] == once["name"]


def test_intervals_stand_behind_and_hold_what_was_filled(tmp_path: Path) -> None:
    good("impute", "new.csv", "--method", "median", "--intervals", 0.9, "-o", tmp_path / "filled.csv")
    names, rows = read(tmp_path / "filled.csv")
    assert names[:6] == list(COLUMNS)
    assert set(names[6:]) == {f"{n}_{end}" for n in ("size", "visits", "day", "weight") for end in ("low", "high")}
    at = {name: i for i, name in enumerate(names)}
    for old, row in zip(read(Path("new.csv"))[1], rows, strict=True):
        for name in ("size", "weight", "day", "visits"):
            low, value, high = (row[at[n]] for n in (f"{name}_low", name, f"{name}_high"))
            if old[at[name]]:
                assert low == high == ""
            else:
                assert low <= value <= high if name == "day" else float(low) <= float(value) <= float(high)


def test_a_table_without_holes_is_written_unchanged(tmp_path: Path) -> None:
    write(tmp_path / "whole.csv", table(20, 2, holes=0.0))
    out = good("impute", tmp_path / "whole.csv", "-o", tmp_path / "same.csv")
    assert "20 rows without holes in modelled columns; written unchanged" in out
    assert (tmp_path / "same.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_types_survive_in_parquet(tmp_path: Path) -> None:
    frame = read_frame("new.csv").table.to_arrow()
    pq.write_table(frame, tmp_path / "new.parquet")
    good("impute", tmp_path / "new.parquet", "-o", tmp_path / "filled.parquet")
    filled = pq.read_table(tmp_path / "filled.parquet")
    assert [filled.schema.field(n).type for n in COLUMNS] == [frame.schema.field(n).type for n in COLUMNS]
    assert pa.types.is_integer(filled.schema.field("visits").type)
    assert sum(column.null_count for column in filled.columns) == 0


def test_mistakes_in_imputing_are_told(tmp_path: Path) -> None:
    assert "Name the table whose holes to fill" in mistake("impute", "--out", tmp_path / "x.csv")
    assert "end its name in .csv or .tsv or .parquet" in mistake("impute", "new.csv", "-o", tmp_path / "x.npy")
    rows = [row[:-1] for row in table(3, 3)]
    with (tmp_path / "short.csv").open("w", newline="") as f:
        csv.writer(f).writerows([COLUMNS[:-1], *rows])
    assert "lacks the column 'weight'" in mistake("impute", tmp_path / "short.csv", "-o", tmp_path / "x.csv")


# Scores


def test_scores_of_a_table_say_which_cell_is_to_blame(tmp_path: Path) -> None:
    rows = table(40, 4, holes=0.0)
    rows[7][1] = "300.0"
    rows[9][3] = {"small": "large", "large": "small"}.get(rows[9][3], "large")
    rows[9][1] = "35.0" if rows[9][3] == "small" else "5.0"
    write(tmp_path / "odd.csv", rows)
    good("score", tmp_path / "odd.csv", "--why", "--alarm", 0.05, "-o", tmp_path / "s.csv")
    names, lines = read(tmp_path / "s.csv")
    assert names[:5] == ["row", "log_px", "log_px_se", "percentile", "p_value"]
    assert names[5:] == [f"{word}_{i}" for i in (1, 2, 3) for word in ("why", "surprise")]
    found = [dict(zip(names, line, strict=True)) for line in lines]
    assert found[7]["why_1"] == "size"
    assert float(found[7]["surprise_1"]) > 3
    p = [float(row["p_value"]) for row in found]
    assert p[7] == min(p)
    assert p[7] < 0.05
    assert 0.02 < float(np.mean(np.array(p) <= 0.5)) < 0.98
    content = json.loads(good("score", tmp_path / "odd.csv", "--alarm", 0.05, "--json"))
    assert content["calibration_rows"] == 60
    assert content["alarms"] == sum(x <= 0.05 for x in p)


def test_p_values_are_of_the_validation_rows_scores() -> None:
    run = Run.open("runs/table")
    content = json.loads(good("score", "table.csv", "--json"))
    validation = aevb.score(run.model(), run.dataset().validation, content["importance_samples"]).log_px
    assert json.loads((run.path / "evaluation-scores.json").read_text())["log_px"]["numbers"] == pytest.approx(
        validation.tolist(), abs=1e-4
    )
    told = good("score", "new.csv")
    assert "none are possible at a rate of 0.01, which needs 99 validation rows; there are 60" in " ".join(told.split())


def test_scores_need_no_data_of_the_run(tmp_path: Path) -> None:
    """Without them there is nothing to compare with, and it is said."""
    run = Run.open("runs/table")
    (run.path / "evaluation-scores.json").unlink(missing_ok=True)
    Path("table.csv").rename("elsewhere.csv")
    try:
        good("score", "new.csv", "-o", tmp_path / "s.csv")
        told = json.loads(good("score", "new.csv", "--json"))
    finally:
        Path("elsewhere.csv").rename("table.csv")
    assert read(tmp_path / "s.csv")[0] == ["row", "log_px", "log_px_se"]
    assert (told["calibration_rows"], told["alarms"]) == (0, None)
    good("score", "new.csv", "--data", "table.csv", "-o", tmp_path / "s.csv")
    assert read(tmp_path / "s.csv")[0][3:] == ["percentile", "p_value"]


# New rows


def test_new_rows_have_the_columns_and_types_of_the_table(tmp_path: Path) -> None:
    good("sample", "-n", 300, "-o", tmp_path / "new.csv")
    names, rows = read(tmp_path / "new.csv")
    assert names == list(COLUMNS)
    assert len(rows) == 300
    assert [row[0] for row in rows] == [str(i) for i in range(1, 301)] or all(row[0] == "" for row in rows)
    assert {row[3] for row in rows} == {"small", "middle, or so", "large"}
    assert all(row[2].isdecimal() for row in rows)
    good("sample", "-n", 300, "-o", tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "new.csv").read_bytes()


def test_new_rows_are_held_against_the_test_rows(tmp_path: Path) -> None:
    said = good("sample", "runs/table", "-n", 200, "--check", "--out", tmp_path / "new.csv")
    data, new = Run.open("runs/table").dataset(), read_frame(tmp_path / "new.csv")
    kinds = [column.kind for column in data.train.values.columns.model]
    made = stored(data.train.values.columns, new)[0]
    found = aevb.two_sample(data.test.stored.numpy(), made, kinds, train=data.train.stored.numpy())
    (shape,) = (line.split()[1] for line in said.splitlines() if line.startswith("shape"))
    assert float(shape) == pytest.approx(float(found.shape), abs=2e-3)
    assert "No check here is a guarantee of privacy" in said
    assert (Path("runs/table/figures") / "synthetic.png").stat().st_size > 10_000
    assert len(new) == 200


def test_only_rows_of_tables_are_checked(tmp_path: Path) -> None:
    good("train", "digits", "--out", tmp_path / "digits", "--samples", 500, "--no-figures", *NETS)
    assert "was not trained on a table" in mistake("sample", tmp_path / "digits", "--check")


def test_new_rows_hold_what_is_given(tmp_path: Path) -> None:
    given = "kind=middle, or so,visits=2:4,day=2020-03-01:2020-04-30"
    good("sample", "-n", 200, "--given", given, "-o", tmp_path / "new.csv")
    _, rows = read(tmp_path / "new.csv")
    assert {row[3] for row in rows} == {"middle, or so"}
    assert {row[2] for row in rows} == {"2", "3", "4"}
    assert all("2020-03-01" <= row[4][:10] <= "2020-04-30" for row in rows)
    good("sample", "-n", 400, "--given", "kind=large", "-o", tmp_path / "large.csv")
    good("sample", "-n", 400, "--given", "kind=small", "-o", tmp_path / "small.csv")
    large, small = (np.mean([float(r[1]) for r in read(tmp_path / f"{n}.csv")[1]]) for n in ("large", "small"))
    assert large > small + 5


def test_given_is_read_in_the_words_of_the_table() -> None:
    schema = Schema(
        (
            Column("a,b", "categorical", likelihood="categorical", levels=("x=1", "y,z", "x:y")),
            Column("a", "ordinal", "Int64", likelihood="categorical", levels=(1, 2, 3)),
            Column("age", "real", likelihood="normal"),
            Column("when", "datetime", "String(format='%Y-%m-%d %H:%M')", likelihood="normal"),
            Column("key", "id"),
        )
    )
    found = conditions("a,b=y,z,a=2,age=-3:4.5", schema)
    assert found == {"a,b": 1.0, "a": 1.0, "age": (-3.0, 4.5)}
    assert conditions("a,b=x=1,age=:4", schema) == {"a,b": 0.0, "age": (None, 4.0)}
    assert conditions("a,b=x:y,age=1e3..", schema) == {"a,b": 2.0, "age": (1000.0, None)}
    assert conditions("a=1.5:9", schema) == {"a": (1.0, 2.0)}
    with pytest.raises(DataError, match=r"no level from 4 to 9\. It has 1, 2, 3"):
        conditions("a=4:9", schema)
    assert conditions("when=1970-01-01 00:01:1970-01-02 00:00", schema) == {"when": (60.0, 86_400.0)}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("sise=3", "there is no column 'sise'. Did you mean 'size'?"),
        ("kind=smal", "the column has no such level. Did you mean 'small'?"),
        ("size=red", "--given size=red: the column holds numbers."),
        ("name=row-1", "the column is id, and not modelled"),
        ("size", "'size' has no value. Write NAME=VALUE"),
        ("kind=small,size=3,kind=large", "'kind' is given twice"),
        ("size=5:2", "The range from 5 to 2 holds no number"),
    ],
)
def test_what_cannot_be_given_is_told(given: str, words: str, tmp_path: Path) -> None:
    assert words in " ".join(mistake("sample", "--given", given, "-o", tmp_path / "x.csv").split())


def test_rows_are_reconstructed_as_a_table_and_encoded_with_their_numbers(place: Path) -> None:
    told = good("reconstruct", "new.csv", "--run", "table", "--out", "again.csv")
    assert told == "again.csv: 60 rows reconstructed, 6 columns\n"
    names, rows = read(place / "again.csv")
    sizes, own = ([row[names.index("size")] for row in part] for part in (rows, read(place / "new.csv")[1]))
    pairs = np.array([(float(a), float(b)) for a, b in zip(sizes, own, strict=True) if b])
    assert np.corrcoef(pairs.T)[0, 1] > 0.8
    assert {row[names.index("kind")] for row in rows} <= {"small", "middle, or so", "large"}
    good("encode", "new.csv", "--run", "table", "--out", "codes.npy")
    told = good("encode", "new.csv", "--run", "table", "--out", "codes.csv")
    assert told == "codes.csv: 60 rows, columns row, z0 to z1\n"
    names, rows = read(place / "codes.csv")
    assert names == ["row", "z0", "z1"]
    assert [int(row[0]) for row in rows] == list(range(60))
    assert np.array([[float(x) for x in row[1:]] for row in rows]) == pytest.approx(np.load("codes.npy"), rel=1e-6)
    assert "a .csv has one code a row" in mistake("encode", "new.csv", "--run", "table", "--draws", 2, "-o", "c.csv")


def test_a_table_with_holes_is_drawn_without_a_warning(place: Path) -> None:
    good("reconstruct", "new.csv", "--run", "table", "--out", "rows.png")
    assert (place / "rows.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("verb", "cure"),
    [
        *((verb, "Say where to write: --out FILE.") for verb in ("encode", "encode --clusters", "reconstruct")),
        *((verb, "Say where to write: --out FILE.") for verb in ("sample", "report")),
        ("plot", "Say where to write: --out FOLDER."),
        ("train --resume", "Copy it to a folder that you can write to, and resume the copy."),
    ],
)
def test_a_run_that_may_only_be_read_says_how_to_write_elsewhere(
    verb: str, cure: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def access(path: object, mode: int) -> bool:
        return not str(path).startswith("runs")

    if "--clusters" in verb:
        monkeypatch.setattr("aevb.apps.actions.clusters", lambda run, model, data: np.zeros((1, 1)))
    with monkeypatch.context() as patch:
        patch.setattr("os.access", access)
        words = mistake(*verb.split(), "table")
    assert f"is read-only. {cure}" in words
