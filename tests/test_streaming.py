"""Long tables read, used and written part by part: the same numbers and files as of the whole, in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import random
import re
import tracemalloc
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from test_cli import good, mistake, strict
from test_impute import NETS, table, write

from aevb.apps import clustering, scores, streaming
from aevb.apps.rows import Asked
from aevb.data import batch, parts, text, text_parts
from aevb.data.columns import Schema
from aevb.data.kinds import look
from aevb.data.tables import Frame, read_frame
from aevb.data.typed import Style, all_typed
from aevb.data.typing_of_parts import Tally
from aevb.errors import AevbWarning
from aevb.runs.store import Run

N = 60
SOURCES = ("new.csv", "new.csv.gz", "new.parquet", "folder")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("AEVB_RUNS", raising=False)
        write(folder / "table.csv", table(600, 0))
        write(folder / "new.csv", [*table(N - 1, 1, holes=0.3), ["a", "", "", "", "", ""]])
        (folder / "new.csv.gz").write_bytes(gzip.compress((folder / "new.csv").read_bytes()))
        arrow = read_frame("new.csv").table.to_arrow()
        at = arrow.schema.get_field_index("kind")
        arrow = arrow.set_column(at, "kind", arrow["kind"].dictionary_encode())
        pq.write_table(arrow, "new.parquet")
        (folder / "folder").mkdir()
        for i, start in enumerate((0, 25)):
            pq.write_table(arrow.slice(start, 25 if not i else N), folder / "folder" / f"{i}.parquet")
        good("train", "table.csv", "--out", "runs/table", "--samples", 6000, "--latent", 2, "--no-figures", *NETS)
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("AEVB_RUNS", raising=False)


def in_parts(monkeypatch: pytest.MonkeyPatch, rows: int = 7) -> None:
    """Have every table read part by part."""
    monkeypatch.setattr(parts, "ROWS", rows)
    monkeypatch.setattr(parts, "SMALL", 0)
    monkeypatch.setattr(text_parts, "BLOCK", 700)
    monkeypatch.setattr(text_parts, "PIECE", 50)


def both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ending: str, *words: object, passes: int = 1
) -> tuple[Path, Path]:
    """The files that a verb writes of the whole, and part by part."""
    whole, pieces = tmp_path / f"whole{ending}", tmp_path / f"parts{ending}"
    said = good(*words, "-o", whole)
    with monkeypatch.context() as patch:
        in_parts(patch)
        walked = []
        of = streaming.pieces
        patch.setattr(streaming, "pieces", lambda *a: (walked.append(len(f.names)) or f for f in of(*a)))
        assert good(*words, "-o", pieces).replace("parts", "whole") == said
        assert sum(walked) == passes * N
        assert max(walked) <= 7
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
    return whole, pieces


def same_table(a: Path, b: Path) -> None:
    one, two = (pq.read_table(p) if p.suffix == ".parquet" else pyarrow.csv.read_csv(p) for p in (a, b))
    assert one.schema.equals(two.schema)
    for name in one.column_names:
        x, y = one[name].to_pylist(), two[name].to_pylist()
        if pa.types.is_floating(one[name].type):
            np.testing.assert_allclose(np.array(x, float), np.array(y, float), rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            assert x == y, name


@pytest.mark.parametrize("source", SOURCES)
def test_scores_are_those_of_the_whole(source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for ending in (".csv", ".parquet"):
        same_table(*both(monkeypatch, tmp_path, ending, "score", "runs/table", source))
    a, b = map(np.load, both(monkeypatch, tmp_path, ".npy", "score", "runs/table", source))
    np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("calibrated", [True, False])
def test_reasons_are_those_of_the_whole(calibrated: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without validation rows the usual surprise is the median of all rows, not of one part."""
    if not calibrated:
        monkeypatch.setattr(scores.Calibration, "of", lambda *_: None)
    monkeypatch.setattr(scores, "WHY_SAMPLES", 30)
    for ending in (".csv", ".parquet"):
        words = ("score", "runs/table", "new.csv", "--why", "--importance-samples", 20)
        a, b = both(monkeypatch, tmp_path, ending, *words, passes=1 if calibrated else 2)
        same_table(a, b)
    first = pq.read_table(b)["why_1"].to_pylist()
    assert len(set(first[:-1])) > 2
    assert first[-1] is None  # the row without a cell


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("how", [(), ("--intervals", 0.8), ("--draws", 2), ("--draws", 2, "--intervals", 0.8)])
def test_filled_tables_are_those_of_the_whole(
    source: str, how: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for ending in (".csv", ".parquet"):
        same_table(
            *both(monkeypatch, tmp_path, ending, "impute", "runs/table", source, "--importance-samples", 20, *how)
        )


def test_a_filled_text_is_the_same_byte_for_byte(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a, b = both(monkeypatch, tmp_path, ".tsv", "impute", "runs/table", "new.csv", "--method", "median")
    assert a.read_bytes() == b.read_bytes()


def test_columns_of_views_are_filled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arrow = pq.read_table("new.parquet")
    words = arrow["kind"].cast(pa.string()).cast(pa.string_view())
    pq.write_table(arrow.set_column(arrow.schema.get_field_index("kind"), "kind", words), tmp_path / "views.parquet")
    whole, pieces = both(monkeypatch, tmp_path, ".parquet", "impute", "runs/table", tmp_path / "views.parquet")
    assert pq.read_table(whole).equals(pq.read_table(pieces))
    assert pq.read_table(whole)["kind"].null_count == 0


@pytest.mark.parametrize("at", range(1, 6))
def test_a_column_without_a_type_is_filled_as_in_training(
    at: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the same column is that is as empty, and has its type: numbers, counts, levels, dates."""
    arrow = pq.read_table("new.parquet")
    name, kind = arrow.column_names[at], arrow.schema.field(at).type
    kind = pa.string() if pa.types.is_dictionary(kind) else kind
    for file, empty in (("untyped", pa.nulls(len(arrow))), ("typed", pa.nulls(len(arrow), kind))):
        pq.write_table(arrow.set_column(at, name, empty), tmp_path / f"{file}.parquet")
    whole, pieces = both(monkeypatch, tmp_path, ".parquet", "impute", "runs/table", tmp_path / "untyped.parquet")
    good("impute", "runs/table", tmp_path / "typed.parquet", "-o", tmp_path / "filled.parquet")
    found = pq.read_table(whole)
    assert found.equals(pq.read_table(pieces))
    assert found.column_names == arrow.column_names
    assert found[name].to_pylist() == pq.read_table(tmp_path / "filled.parquet")[name].to_pylist()


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    pq.write_table(pq.read_table("new.parquet").slice(0, 0), tmp_path / "none.parquet")
    assert "the data have length 0" in mistake("score", "runs/table", tmp_path / "none.parquet")
    np.save(tmp_path / "none.npy", np.empty((0, 6)))
    assert "x0" in mistake("score", "runs/table", tmp_path / "none.npy")


def test_equal_rows_in_different_parts_get_different_draws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = ["", "", "3", "small", "", ""]
    write(Path("equal.csv"), [[str(i), *row[1:]] for i in range(N)])
    same_table(*both(monkeypatch, tmp_path, ".csv", "impute", "runs/table", "equal.csv", "--draws", 1))
    drawn = pyarrow.csv.read_csv(tmp_path / "parts.csv")["size"].to_pylist()
    assert len(set(drawn)) > N // 2


def test_a_long_table_without_holes_is_written_unchanged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(Path("full.csv"), table(N, 3, holes=0))
    _, b = both(monkeypatch, tmp_path, ".csv", "impute", "runs/table", "full.csv")
    assert b.read_bytes() == Path("full.csv").read_bytes()
    same_table(*both(monkeypatch, tmp_path, ".parquet", "impute", "runs/table", "full.csv"))


@pytest.mark.parametrize("source", SOURCES)
def test_codes_are_those_of_the_whole(source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    same_table(*both(monkeypatch, tmp_path, ".csv", "encode", "runs/table", source))
    a, b = map(np.load, both(monkeypatch, tmp_path, ".npy", "encode", "runs/table", source))
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("source", ["new.csv", "folder"])
def test_draws_are_those_of_the_whole(source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(batch, "MOST_ROWS", 7)
    a, b = map(np.load, both(monkeypatch, tmp_path, ".npy", "encode", "runs/table", source, "--draws", 3))
    assert a.shape == b.shape == (3, N, 2)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert len(np.unique(b.round(4))) > 5.9 * N


@pytest.mark.parametrize("ending", [".csv", ".npy"])
def test_shares_of_clusters_are_those_of_the_whole(
    ending: str, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    a, b = both(monkeypatch, tmp_path, ending, "encode", mixed(place), "new.csv", "--clusters")
    if ending == ".csv":
        return same_table(a, b)
    np.testing.assert_allclose(np.load(a), np.load(b), rtol=1e-4, atol=1e-6)
    return None


def mixed(place: Path) -> str:
    """A run with a mixture prior."""
    if not (place / "runs/mixed").exists():
        prior = ["--set", "prior.type=mixture", "--set", "prior.components=3"]
        good(
            "train", "table.csv", "--out", "runs/mixed", "--samples", 600, "--latent", 2, "--no-figures", *NETS, *prior
        )
    return "runs/mixed"


def test_reconstructions_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for ending in (".csv", ".parquet"):
        a, b = both(monkeypatch, tmp_path, ending, "reconstruct", "runs/table", "new.csv")
        same_table(a, b)
    assert pq.read_table(b)["name"].to_pylist() == pq.read_table(a)["name"].to_pylist()
    a, b = map(np.load, both(monkeypatch, tmp_path, ".npy", "reconstruct", "runs/table", "new.csv"))
    np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("run", ["table", "mixed"])
def test_clusters_are_those_of_the_whole(
    run: str, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = (
        ("cluster", "runs/table", "new.csv", "--number", 3) if run == "table" else ("cluster", mixed(place), "new.csv")
    )
    with monkeypatch.context() as patch:
        patch.setattr(clustering, "drawn", lambda *_: Figure())
        patch.setattr(clustering, "AT_ONCE", 25)
        same_table(*both(patch, tmp_path, ".csv" if run == "table" else ".parquet", *words))
        a, b = map(np.load, both(patch, tmp_path, ".npy", *words))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        whole = strict(good(*words, "--json"))
    in_parts(monkeypatch)
    assert strict(good(*words, "--json")) == near(whole)
    assert max(len(card["typical"]) for card in whole["cards"]) == 8


def near(value: Any) -> Any:
    """The same, its numbers but for rounding."""
    if isinstance(value, dict):
        return {key: near(each) for key, each in value.items()}
    if isinstance(value, list):
        return [near(each) for each in value]
    return pytest.approx(value, rel=1e-5, abs=1e-6, nan_ok=True) if isinstance(value, float) else value


# Reading


def schema() -> Schema:
    return Run.open("runs/table").values(None).columns


def whole_of(found: list[Frame]) -> pa.Table:
    return pa.concat_tables([frame.table.to_arrow() for frame in found])


def compared(path: Path, monkeypatch: pytest.MonkeyPatch) -> pa.Table:
    """A file read in parts, which must be the file read as a whole."""
    whole = read_frame(path).table.to_arrow()
    with monkeypatch.context() as patch:
        in_parts(patch, 3)
        found = parts.parts_of(path, Schema(()))
        assert found is not None
        pieces = list(found.frames())
    assert [frame.start for frame in pieces] == np.cumsum([0, *map(len, pieces)])[:-1].tolist()
    assert whole_of(pieces).combine_chunks().equals(whole.combine_chunks())
    assert found.rows == len(whole)
    return whole


KNOWN = {  # what a model was trained on, what it reads then, and what that means
    "marks that are levels": ("a,x\n-,1.5\nu,2\n-,3\nu,4.5\n", "-,1\n", {"a": ["-"]}),
    "marks that are none": ("a,x\nNA,1.5\nDE,2\nFR,3\nDE,4.5\n", "NA,1\nDE,2\n", {"a": [None, "DE"]}),
    "words like numbers": ("a,x\n1.10,1.5\n1.2.3,2\n1.10,3\n1.2.3,4.5\n", "1.10,1\n", {"a": ["1.10"]}),
    "words like exponents": ("a,x\n12E4,1.5\n7B,2\n7B,3\n12E4,4.5\n", "12E4,1\n", {"a": ["12E4"]}),
    "points between thousands": (
        "a;x\n1.234,50;5.678\n2,25;1.001\n12;7\n1,5;8.750\n",
        "1.234;5.678\n2.500;\n",
        {"a": [1234, 2500], "x": [5678, None]},
    ),
    "whole numbers beside decimal commas": ("a;x\n1,5;5\n2,25;7\n1,75;9\n2;8\n", "3;1.234\n", {"a": [3], "x": [1234]}),
    "commas between thousands": (
        "a\tx\n473,715\t8.604\n1,201\t3.125\n4,000\t2\n70\t1.5\n",
        "1,500\t8.604\n",
        {"a": [1500], "x": [8.604]},
    ),
    "floats of levels": ("a,x\n1,1.5\n2,2\nb,3\n1,4.5\n", "1,1\n2,7\n", {"a": ["1", "2"]}),
    "words that are not modelled": (
        "a,x\n" + "".join(f"note {i} of many words on {i * i},{i / 4}\n" for i in range(40)) + "NA,3\n",
        "NA,1\n-,2\n",
        {"a": ["NA", "-"]},
    ),
}


@pytest.mark.parametrize("case", KNOWN)
def test_a_new_text_is_read_as_that_of_training(case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever its other rows hold, as a whole and in parts."""
    before, now, columns = KNOWN[case]
    (tmp_path / "old.csv").write_text(before)
    header, *_ = before.partition("\n")
    old = Schema.from_dict(look(read_frame(tmp_path / "old.csv")).to_dict())
    for rows in (now, now + before.partition("\n")[2]):
        (tmp_path / "new.csv").write_text(f"{header}\n{rows}")
        whole = read_frame(tmp_path / "new.csv", old).table.to_dict(as_series=False)
        assert {name: whole[name][: len(column)] for name, column in columns.items()} == columns
        with monkeypatch.context() as patch:
            in_parts(patch, 3)
            found = parts.parts_of(tmp_path / "new.csv", old)
            assert found is not None
            assert whole_of(list(found.frames())).to_pydict() == whole


OTHER = {  # what a model was trained on, and a file of another style
    "a file in another style": (
        "a;b\n2,551;4,83\n1,125;7,25\n3,5;1,5\n0,875;2\n",
        "a,b\n2.551,4.83\n1.125,7.25\n",
        {"a": [2.551, 1.125], "b": [4.83, 7.25]},
    ),
    "whole numbers in another style": (
        "a,n\n2.125,1234\n1.5,77\n3.5,9\n2.5,4\n",
        "a;n\n1,5;1.234\n2,5;5.678\n",
        {"a": [1.5, 2.5], "n": [1234, 5678]},
    ),
}


@pytest.mark.parametrize("case", OTHER)
def test_a_style_that_a_new_text_shows_counts_before_that_of_training(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before, now, columns = OTHER[case]
    (tmp_path / "old.csv").write_text(before)
    (tmp_path / "new.csv").write_text(now)
    old = look(read_frame(tmp_path / "old.csv"))
    assert read_frame(tmp_path / "new.csv", old).table.to_dict(as_series=False) == columns
    in_parts(monkeypatch, 1)
    found = parts.parts_of(tmp_path / "new.csv", old)
    assert found is not None
    assert whole_of(list(found.frames())).to_pydict() == columns


LINES = ["id;größe;n", *(f'{i};{i},5;"a {i};\n{"x" * i}"' for i in range(20)), "?;NA;", "7;1.234,5;é"]
TEXTS = {
    "utf8.csv": "\n".join(LINES).encode(),
    "mark.csv": "\n".join(LINES).encode("utf-8-sig"),
    "dos.csv": "\r\n".join(LINES).encode(),
    "old.csv": "\r".join(LINES).encode(),
    "wide.csv": "\n".join(LINES).encode("utf-16"),
    "western.csv": "\n".join(LINES).encode("cp1252"),
    "packed.csv.bz2": bz2.compress("\n".join(LINES).encode()),
    "comments.csv": ("# ä\n# b\n" + "\n".join(LINES)).encode(),
    "excel.csv": ("sep=;\n" + "\n".join(LINES)).encode(),
    "bare.csv": "\n".join(f"{i},{i / 4}" for i in range(40)).encode(),
    "one.csv": "\n".join(["x", *map(str, range(30)), "", "1.5"]).encode(),
    "points.csv": "\n".join(["a;b", *(f"{i},5;{i}.{i + 100}" for i in range(1, 40))]).encode(),
    "late.csv": "\n".join(["x,y", *(f"{i},{i}" for i in range(400)), "0.5,b", "+3,007", ",NA"]).encode(),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_in_parts_is_read_as_the_whole(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(TEXTS[name])
    assert len(compared(tmp_path / name, monkeypatch)) >= 20


def test_types_found_in_parts_are_those_of_the_whole_column() -> None:
    kinds = [
        "1 2 -3 +4",
        "1.5 2 +3e4 inf",
        "1,234 12 1,000.5",
        "1.234,5 12 3,5",
        "1.234 987 0 -2.345.678",
        "5% 6.5%",
        "$5 €1,000",
        "1.234,5€ 12€",
        "($5) $1,000.5",
        "(1,234) \u22125 5",
        "1\u202f234 5 1'000",
        "007 1",
        "a b",
    ]
    pools = [
        kind.split() for kind in (*kinds, "-", "NA ?", "9223372036854775808", "-1", "99999999999999999999", "None x")
    ]
    choose = random.Random(0)
    for _ in range(150):
        words = [choose.choice(pool) for pool in choose.sample(pools, choose.randint(1, 3)) for _ in range(3)]
        words += [""] * choose.randint(0, 2)
        choose.shuffle(words)
        cuts = [0, *sorted(choose.sample(range(len(words)), 2)), len(words)]
        pieces = [pa.array(words[a:b], pa.string()) for a, b in pairwise(cuts)]
        for between, beside in product((",", ";"), ("1.5", "1,5")):
            column, _ = all_typed([pa.array(words, pa.string()), pa.array([beside])], between)
            whole, tally, beside_it = column.values, Tally(), Tally()
            beside_it.add(pa.array([beside]))
            for piece in pieces:
                tally.add(piece)
            meaning = tally.meaning(Style.of([tally.readings, beside_it.readings], between))
            found = pa.chunked_array([meaning.read(piece) for piece in pieces]).combine_chunks()
            assert found.type == whole.type, words
            assert str(found) == str(whole), words


@pytest.mark.parametrize(
    "lines",
    [
        "a b\n" + "1 2\n" * 30,
        "a,b\n" + "x,1,2\n" * 30,
        'a,b\n1, "x"\n' + "1,2\n" * 30,
        "a,b\n" + "1,2\n" * 30 + "x" * 2000 + ",2\n",
    ],
    ids=["blanks", "short header", "quotes behind blanks", "a long row"],
)
def test_forms_that_only_the_whole_shows_are_read_as_a_whole(lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("odd.csv").write_text(lines)
    in_parts(monkeypatch)
    assert parts.parts_of(Path("odd.csv"), Schema(())) is None
    assert len(read_frame("odd.csv")) >= 30


def test_dates_that_are_written_otherwise_are_read_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """How 01/02/2020 is meant shows in other rows."""
    rows = table(40, 5)
    write(Path("same.csv"), rows)
    for row in rows:
        row[4] = "/".join(reversed(row[4].split("-")))
    write(Path("otherwise.csv"), rows)
    in_parts(monkeypatch)
    assert parts.parts_of(Path("same.csv"), schema()) is not None
    assert parts.parts_of(Path("otherwise.csv"), schema()) is None


# Faults


def test_a_fault_in_a_later_part_names_its_place_and_leaves_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    in_parts(monkeypatch)
    rows, out = table(40, 6), tmp_path / "out.csv"
    ragged = [*rows[:30], [*rows[30], "more"], *rows[31:]]
    wrong, endless = [list(row) for row in rows], [list(row) for row in rows]
    wrong[33][1], endless[33][1] = "much", "inf"
    for name, lines, words in (
        ("ragged", ragged, "line 32 has 7 values, but others have 6"),
        ("wrong", wrong, "column 'size' holds 'much', but numbers in training"),
        ("endless", endless, "column 'size' holds an infinite number (row 33, counted from 0)"),
    ):
        write(Path(f"{name}.csv"), lines)
        for verb in ("score", "impute", "encode"):
            assert words in " ".join(str(mistake(verb, "runs/table", f"{name}.csv", "-o", out)).split())
            assert list(tmp_path.iterdir()) == []


def test_what_is_to_be_said_is_said_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = table(40, 7)
    for row in rows[20:]:
        row[3] = "huge"
    write(Path("unseen.csv"), rows)
    in_parts(monkeypatch)
    found = parts.parts_of(Path("unseen.csv"), schema())
    assert found is not None
    with pytest.warns(AevbWarning, match="huge") as said:
        list(streaming.pieces(Asked(Run.open("runs/table"), "unseen.csv"), found))
    (one,) = [str(w.message) for w in said if "huge" in str(w.message)]
    rows_counted = re.search(r"\((\d+) rows\).*Counted are rows (\d+) to (\d+) alone\.", one)
    assert rows_counted is not None
    count, first, last = map(int, rows_counted.groups())
    assert count == sum(row[3] == "huge" for row in rows[first : last + 1]) < 20


# Memory


@pytest.mark.filterwarnings("ignore:.*did not occur in training")
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_memory_does_not_grow_with_the_rows(ending: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of five times as many rows the peak is about the same: of Python and NumPy, and of Arrow's own pool."""
    monkeypatch.setattr(parts, "ROWS", 200)
    monkeypatch.setattr(parts, "SMALL", 0)
    monkeypatch.setattr(text_parts, "BLOCK", 2**11)
    monkeypatch.setattr(text_parts, "PIECE", 2**14)
    for module in (text, text_parts):
        monkeypatch.setattr(module, "SAMPLE", 2**12)
    peaks = []
    for n in (4000, 20_000):
        path = tmp_path / f"{n}{ending}"
        write(tmp_path / "rows.csv", table(1000, 8) * (n // 1000))
        if ending == ".csv":
            (tmp_path / "rows.csv").rename(path)
        else:
            pq.write_table(read_frame(tmp_path / "rows.csv").table.to_arrow(), path, row_group_size=2000)
        peaks.append(min(peak_of(path) for _ in range(2)))  # what is imported or cached once is in the first
    assert peaks[1] < 1.5 * peaks[0]


def peak_of(path: Path) -> int:
    """The most bytes that are held while a table is read and its numbers are made."""
    run, most, before = Run.open("runs/table"), 0, pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        found = parts.parts_of(path, run.values(None).columns)
        assert found is not None
        for _ in streaming.pieces(Asked(run, str(path)), found):
            most = max(most, pa.total_allocated_bytes() - before)
        return tracemalloc.get_traced_memory()[1] + most
    finally:
        tracemalloc.stop()
