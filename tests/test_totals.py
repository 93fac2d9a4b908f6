"""The total of a row's counts as their exposure: computed from the counts, in training and of new rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import good, mistake

import aevb
from aevb import DataError
from aevb.data.frames import made, stored
from aevb.data.kinds import look
from aevb.data.tables import frame_of
from aevb.runs.store import Run

ASKED = {"total": "exposure:counts"}
GENES = ("a", "b", "c")
SHARES = np.array([[0.1, 0.3, 0.6], [0.6, 0.3, 0.1]])  # of two types of cells
NETS = ["--set", "encoder.hidden=[16]", "--set", "decoder.hidden=[16]", "--no-figures"]


def counts(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Counts (n, 3) of rows whose expected totals span two decades, and the type of each row."""
    noise = np.random.default_rng(seed)
    of, size = noise.integers(2, size=n), 10 ** noise.uniform(1.5, 3.5, n)
    return noise.poisson(size[:, None] * SHARES[of]), of


def table(n: int = 400) -> pd.DataFrame:
    x, _ = counts(n)
    size = np.random.default_rng(1).normal(size=n).round(3)
    return pd.DataFrame({"a": x[:, 0], "size": size, "b": x[:, 1], "c": x[:, 2]})


def test_all_counts_are_over_the_sum_of_the_row() -> None:
    frame = table()
    schema = look(frame_of(frame), ASKED | {"b": "count"})
    assert [(c.name, c.kind, c.exposure) for c in schema.columns] == [
        ("a", "count", "total"),
        ("size", "real", ""),
        ("b", "count", "total"),
        ("c", "count", "total"),
        ("total", "exposure", ""),
    ]
    total = frame[[*GENES]].sum(axis=1)
    last = schema.columns[-1]
    assert (last.why, last.likelihood, last.sums) == ("the exposure of a, b, c", "given", True)
    assert last.scale == pytest.approx(total.median(), rel=0.02)
    assert type(schema).from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    numbers, notes = stored(schema, frame_of(frame.assign(total=7)))
    assert numbers[:, -1].tolist() == total.tolist()  # whatever a column of this name says
    assert "not read: " in notes[0]
    pinned = {column.name: column.asked for column in schema.columns}
    assert look(frame_of(frame), pinned).columns[-1] == last  # as a resumed run reads its data
    assert list(made(schema, numbers).table.columns) == list(frame.columns)


def test_a_missing_count_adds_nothing() -> None:
    frame = table().astype({"a": "Int64"})
    frame.loc[3, "a"] = pd.NA
    schema = look(frame_of(frame), ASKED | {"b": "count"})
    assert stored(schema, frame_of(frame))[0][3, -1] == frame.loc[3, "b"] + frame.loc[3, "c"]


def test_a_column_of_that_name_is_taken_and_counts_keep_an_exposure_of_their_own() -> None:
    frame = table().assign(total=5.5, days=np.linspace(1, 2, 400))
    schema = look(frame_of(frame), {"days": "exposure:counts", "a": "count:total", "b": "count"})
    assert [c.exposure for c in schema.columns] == ["total", "", "days", "days", "", ""]
    assert not any(c.sums for c in schema.columns)
    one = look(frame_of(table()), {"a": "count:total", "b": "count:total"})
    assert stored(one, frame_of(table()))[0][:, -1].tolist() == (table()["a"] + table()["b"]).tolist()


@pytest.mark.parametrize(
    ("change", "asked", "words"),
    [
        ({"a": 0, "b": 0, "c": 0}, ASKED, "column of counts to sum. Name them: --column NAME=count"),
        ({}, ASKED | {"days": "exposure:counts"}, "'total' and 'days' are both to be the exposure of all counts"),
        ({}, {"sum": "exposure:counts"}, "no column 'sum'"),
        ({}, ASKED | {"a": "real", "b": "real", "c": "real"}, "no column of counts to sum"),
    ],
)
def test_totals_that_cannot_be_are_refused(change: dict[str, int], asked: dict[str, str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        look(frame_of(table().assign(**change)), asked)


def test_rows_without_any_count_are_named() -> None:
    frame = table()
    frame.loc[[2, 9], [*GENES]] = 0
    with pytest.raises(DataError, match=r"the counts sum to zero in 2 rows \(2, 9\)\. Leave these rows out"):
        look(frame_of(frame), ASKED)
    with pytest.raises(DataError, match=r"the counts sum to zero in 2 rows \(2, 9\)"):
        stored(look(frame_of(table()), ASKED), frame_of(frame))


def test_new_rows_have_the_given_total_and_the_shares_of_the_data() -> None:
    x, _ = counts(600)
    fitted = aevb.VAESynthesizer(columns=ASKED, latent=1, samples=20_000, random_state=0).fit(x)
    assert [c.exposure for c in fitted.schema_.columns] == ["total"] * 3 + [""]
    for total in (100.0, 3000.0):
        new = fitted.sample(2000, given={"total": total})
        assert new.shape == (2000, 3)
        assert new.sum(1).mean() == pytest.approx(total, rel=0.1)
        assert (new.sum(0) / new.sum()).tolist() == pytest.approx(SHARES.mean(0).tolist(), abs=0.06)


def test_kinds_of_columns_are_refused_where_there_are_none() -> None:
    x, _ = counts(50)
    assert aevb.load_data(x.astype(float), columns={"x0": "count"}).train.values.columns.columns[0].kind == "count"
    with pytest.raises(DataError, match="array: kinds of columns are for tables"):
        aevb.load_data(np.ones((9, 1, 8, 8)), columns={"x0": "count"}, values="grey")
    with pytest.raises(DataError, match="digits: kinds of columns are for tables"):
        aevb.load_data("digits", columns={"x0": "count"})
    with pytest.raises(DataError, match="values='standardized' reads numbers without kinds of columns"):
        aevb.load_data(table(), columns={"a": "count"}, values="standardized")


def cells(path: Path, n: int) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["X"] = counts(n)[0].astype(np.float32)
        file.create_group("var")["_index"] = np.array(GENES, "S")
        file["var"].attrs["_index"] = "_index"


def test_counts_of_cells_and_arrays_train_and_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code does not tell how large a row is; without the exposure it does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AEVB_RUNS", raising=False)
    cells(Path("cells.h5ad"), 400)
    x, of = counts(400)
    np.save("cells.npy", x)
    shown = good("data", "cells.h5ad", "--exposure", "total")
    assert "the exposure of a, b, c" in shown
    for source in ("cells.h5ad", "cells.npy"):
        run = f"run-{Path(source).suffix[1:]}"
        good("train", source, "--exposure", "total", "--latent", 1, "--samples", 12_000, "--out", run, *NETS)
        assert Run.open(run).values(None).columns.columns[-1].sums
        good("encode", run, source, "-o", "codes.npy")
        z = np.load("codes.npy")[:, 0]
        assert abs(np.corrcoef(z, of)[0, 1]) > 0.9
        assert abs(np.corrcoef(z, np.log(x.sum(1)))[0, 1]) < 0.3
        good("sample", run, "-n", 200, "--given", "total=900", "-o", "new.csv")
        new = pd.read_csv("new.csv")
        assert new.shape == (200, 3)
        assert new.sum(axis=1).mean() == pytest.approx(900, rel=0.1)
        good("score", run, "new.csv", "-o", "scores.csv")
        assert np.isfinite(pd.read_csv("scores.csv")["log_px"]).all()
    new.iloc[5] = 0
    new.to_csv("zero.csv", index=False)
    assert "the counts sum to zero in row 5" in " ".join(str(mistake("score", run, "zero.csv")).split())
