"""Tables as data sets: `load_data` of files and frames, the split, the schema of train rows, new rows of a table."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_cli import call, good

from aevb.data.sources import load_data
from aevb.data.unsplit import Reader, read_unsplit
from aevb.errors import AevbWarning, DataError
from aevb.runs.recipe import Recipe
from aevb.runs.sources import given

N = 100
RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "size": np.where(np.arange(N) % 9 == 4, np.nan, np.round(10 + RNG.normal(size=N), 3)),
        "sort": [["oak", "fir", "elm"][i % 3] for i in range(N)],
        "number": range(1000, 1000 + N),
    }
)


def written(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pandas(TABLE), path)
    else:
        TABLE.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet", "t.data"])
def test_a_file_is_a_data_set(name: str, tmp_path: Path) -> None:
    """80, 10 and 10 rows, shuffled as arrays are; stored numbers, NaN where missing; the recipe is that of tables."""
    data = load_data(written(tmp_path, name))
    assert (data.name, data.recipe) == ("t", "table")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [80, 10, 10]
    order = np.random.RandomState(0).permutation(N)
    np.testing.assert_array_equal(data.train.names, order[:80])
    np.testing.assert_array_equal(data.test.stored[:, 0].numpy(), TABLE["size"].to_numpy()[order[90:]])
    codes = TABLE["sort"].map({"elm": 0, "fir": 1, "oak": 2}).to_numpy()
    np.testing.assert_array_equal(data.validation.stored[:, 1].numpy(), codes[order[80:90]])


def test_frames_and_dicts_are_data_sets() -> None:
    for form in (TABLE, pa.Table.from_pandas(TABLE), TABLE.to_dict("list")):
        data = load_data(form)
        assert data.train.values.kind == "columns"
        assert data.train.shape == (2,)


def test_center_and_scale_are_those_of_train_rows() -> None:
    """Kinds, levels and holes are those of all rows: a level of the test rows is known."""
    data = load_data(TABLE)
    size, sort, number = data.train.values.columns.columns
    seen = data.train.stored[:, 0].numpy()
    assert size.center == np.nanmedian(seen)
    assert size.holes == TABLE["size"].isna().sum()
    assert (sort.levels, number.kind) == (("elm", "fir", "oak"), "id")


def test_kinds_can_be_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv")
    data = load_data(path, columns={"number": "real", "sort": "text"})
    assert [c.kind for c in data.train.values.columns.columns] == ["positive", "text", "real"]
    recipe = Recipe.load("table").override(["data.columns.number=real", f"data.source={path}"])
    _, read = given(recipe, path)
    assert [c.kind for c in read.train.values.columns.columns] == ["positive", "categorical", "real"]


def test_values_of_an_array_read_a_table_of_numbers_as_one(tmp_path: Path) -> None:
    pd.DataFrame(RNG.normal(size=(30, 3))).to_csv(tmp_path / "n.csv", index=False)
    data = load_data(tmp_path / "n.csv", values="standardized")
    assert (data.name, data.train.values.kind, data.shape) == ("n", "standardized", (3,))
    with pytest.raises(DataError, match="column 'sort' holds no numbers"):
        load_data(TABLE, values="standardized")


def test_arrays_with_holes_are_tables_where_asked_for(tmp_path: Path) -> None:
    x = RNG.normal(size=(30, 3))
    x[3, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    data = load_data(tmp_path / "x.npy", values="columns")
    assert [c.name for c in data.train.values.columns.columns] == ["x0", "x1", "x2"]


def test_too_few_rows() -> None:
    with pytest.raises(DataError, match="has 2 rows; at least 3 are needed"):
        load_data({"a": [1.5, 2.5]})


def test_a_folder_of_parquet_files(tmp_path: Path) -> None:
    written(tmp_path, "part.parquet")
    assert load_data(tmp_path).train.shape == (2,)


def test_new_rows_of_a_table(tmp_path: Path) -> None:
    """In their order, by the schema of the model; the frame comes along, and what is new is said."""
    values = load_data(TABLE).train.values
    new = TABLE.head(7).assign(sort=["ash", *TABLE["sort"][1:7]])
    new.to_csv(tmp_path / "new.csv", index=False)
    unsplit = read_unsplit(str(tmp_path / "new.csv"))
    assert unsplit.frame is not None
    assert unsplit.frame.table["sort"].to_list()[0] == "ash"
    with pytest.warns(AevbWarning, match="column 'sort': ash did not occur in training"):
        split = Reader((2,), values).split(unsplit)
    np.testing.assert_array_equal(split.stored[:, 0].numpy(), new["size"].to_numpy())
    assert split.stored[0, 1].item() == 3
    np.testing.assert_array_equal(split.stored[1:, 1].numpy(), [1, 0, 2, 1, 0, 2])
    new.drop(columns="size").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(DataError, match="lacks the column 'size'"):
        Reader((2,), values).split(read_unsplit(str(tmp_path / "less.csv")))


def test_a_table_of_numbers_for_a_model_of_arrays(tmp_path: Path) -> None:
    x = RNG.normal(size=(30, 3))
    values = load_data(x).train.values
    pd.DataFrame(x).to_csv(tmp_path / "x.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split = Reader((3,), values).split(read_unsplit(str(tmp_path / "x.csv")))
    np.testing.assert_allclose(split.stored.numpy(), x)


# The command line


def refused(*words: object) -> str:
    result = call(*words)
    assert result.code == 1
    return result.err


def test_aevb_data_says_what_a_table_is(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv")
    said = good("data", path)
    assert "3 columns, separated by commas; the first line has the names." in said
    assert re.search(r"size +positive +normal +numbers from .* 11\n", said)
    assert re.search(r"number +id +– +whole numbers from 1000 to 1099, 100 different", said)
    found = json.loads(good("data", str(path), "--column", "number=count", "--json"))
    assert found["rows"] == N
    assert [(c["name"], c["kind"], c["holes"]) for c in found["columns"]] == [
        ("size", "positive", 11),
        ("sort", "categorical", 0),
        ("number", "count", 0),
    ]
    assert "there is no kind 'counts'" in refused("data", str(path), "--column", "number=counts")
    assert "write NAME=KIND" in refused("data", str(path), "--column", "number")


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_file_of_kinds_is_written_edited_and_read(suffix: str, tmp_path: Path) -> None:
    path, kinds = written(tmp_path, "t.csv"), tmp_path / f"kinds{suffix}"
    before = json.loads(good("data", str(path), "--schema", str(kinds), "--json"))
    assert before == json.loads(good("data", str(path), "--schema", str(kinds), "--json"))
    kinds.write_text(kinds.read_text().replace('"id"', '"real"'))
    after = json.loads(good("data", str(path), "--schema", str(kinds), "--json"))
    assert [c["kind"] for c in after["columns"]] == ["positive", "categorical", "real"]
    plan = json.loads(good("train", str(path), "--schema", str(kinds), "--dry-run", "--json"))
    assert plan["recipe"]["data"]["columns"] == {"size": "positive", "sort": "categorical", "number": "real"}


def test_names_with_dots_and_signs(tmp_path: Path) -> None:
    pd.DataFrame({"pm2.5": range(60), 'a "b" = c': ["x", "y"] * 30}).to_csv(tmp_path / "t.csv", index=False)
    columns = ["--column", "pm2.5=real", "--column", 'a "b" = c=text']
    plan = json.loads(good("train", str(tmp_path / "t.csv"), *columns, "--dry-run", "--json"))
    assert plan["recipe"]["data"]["columns"] == {"pm2.5": "real", 'a "b" = c': "text"}


def test_a_file_of_kinds_that_is_none(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv")
    (tmp_path / "k.toml").write_text("columns = 3\n")
    assert "a table [columns]" in refused("data", str(path), "--schema", str(tmp_path / "k.toml"))
    assert "there is no file" in refused("train", str(path), "--schema", str(tmp_path / "none.toml"))
