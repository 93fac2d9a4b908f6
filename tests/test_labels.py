"""Labels of files: what they may be, how they become classes, what a conditional run makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from aevb.apps.cli import app
from aevb.data.arrays import array_dataset, permutation
from aevb.data.labels import hide_labels, one_hot
from aevb.data.sources import load_data
from aevb.errors import DataError, RecipeError, RunError
from aevb.runs.build import build_model
from aevb.runs.fit import fit
from aevb.runs.recipe import Recipe
from aevb.runs.store import Run, differences, fingerprints


def table(n: int = 60) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 3))


def swap(path: Path, y: Any, n: int = 400) -> Path:
    """Binary rows whose first six columns are 1 for every second class, the last six for the others."""
    turn = np.unique(y, return_inverse=True)[1] % 2
    x = np.repeat(np.eye(2, dtype=np.uint8)[turn], 6, axis=1)
    np.savez(path, x=x ^ (np.random.default_rng(0).uniform(size=x.shape) < 0.05), y=y)
    return path


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.output if result.exit_code == 0 else str(result.exception)


# What labels may be


@pytest.mark.parametrize(
    ("seen", "names"),
    [
        ([0, 1, 2], None),
        ([0.0, 1.0], None),
        ([-1, 1], ("-1", "1")),
        ([0, 5], ("0", "5")),
        ([1, 2, 3], ("1", "2", "3")),
        ([-2.0, 10.0, 9.0], ("-2", "9", "10")),
        ([False, True], ("False", "True")),
        (["cat", "ant"], ("ant", "cat")),
        ([b"b", "ä".encode()], ("b", "ä")),
        (np.array(["x", "y"], object), ("x", "y")),
        (np.array([3, 7], np.uint64), ("3", "7")),
        ([2**62, -(2**62)], (str(-(2**62)), str(2**62))),
    ],
)
def test_labels_of_any_kind_become_classes_in_sorted_order(seen: Any, names: tuple[str, ...] | None) -> None:
    seen = np.asarray(seen)
    y = seen[np.arange(60) % len(seen)]
    data = array_dataset(table(), y)
    assert data.class_names == names
    assert data.classes == len(seen)
    rank = np.unique(seen, return_inverse=True)[1][np.arange(60) % len(seen)]
    assert np.array_equal(data.train.labels.numpy(), rank[permutation(60, 0)[:48]])


@pytest.mark.parametrize(
    "y",
    [
        np.where(np.arange(60) == 7, np.nan, 1.0),
        np.array([None if i == 7 else "a" for i in range(60)], object),
        np.ma.masked_array(np.arange(60) % 3, np.arange(60) == 7),
        np.array([float("nan") if i == 7 else "a" for i in range(60)], object),
    ],
)
def test_missing_labels_are_refused_with_their_rows(y: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"1 of 60 labels are missing \(rows 7, counted from 0\).*leave these rows out"):
        array_dataset(table(), y)
    known = np.delete(np.ma.getdata(y), 7, axis=0)
    assert array_dataset(np.delete(table(), 7, axis=0), known).classes >= 1


def test_no_number_but_the_hidden_ones_own_means_unknown() -> None:
    with pytest.raises(DataError, match="There is a label -1, but 2 classes have the labels 0 to 1"):
        one_hot(torch.tensor([-1, 1, 1]), 2)
    told = hide_labels(torch.tensor([0, 1, 0, 1]), 1)
    assert one_hot(told, 2).sum(1).sort().values.tolist() == [0, 0, 1, 1]
    assert sorted(one_hot(told, 2).sum(0).tolist()) == [1, 1]


def test_one_and_minus_one_teach_m2_what_zero_and_one_do(tmp_path: Path) -> None:
    y = np.arange(400) % 2
    settings = [
        "latent=2",
        "context.labels=20",
        "training.samples=12000",
        "training.optimizer.lr=0.003",
        "objective.hidden=[20]",
    ]
    settings += ["encoder.hidden=[20]", "decoder.hidden=[20]"]
    found = []
    for name, labels in (("plain", y), ("signs", 2 * y - 1)):
        path = swap(tmp_path / f"{name}.npz", labels)
        run = fit(Recipe.load("m2").override([*settings, f"data.source={path}"]), load_data(path), tmp_path / name)
        found.append(torch.cat([v.flatten() for v in run.model().state_dict().values()]))
        assert run.recipe.context().classes == 2
    assert torch.equal(*found)


# Fingerprints


def test_other_labels_are_other_data(tmp_path: Path) -> None:
    y = np.arange(60) % 3
    prints = fingerprints(array_dataset(table(), y))
    assert differences(prints, fingerprints(array_dataset(table(), y))) == ""
    words = "train has other labels in its 48 rows; validation has other labels in its 6 rows; test has other labels"
    for other in ((y + 1) % 3, np.array(["a", "b", "c"])[y], None):
        assert words in differences(prints, fingerprints(array_dataset(table(), other)))


def test_digits_that_only_float64_holds_are_part_of_the_data() -> None:
    x = 1.7e9 + np.arange(60.0)[:, None] * [1, 2]
    assert "other values" in differences(fingerprints(array_dataset(x)), fingerprints(array_dataset(x + 0.25)))


def test_fingerprints_of_0_1_are_still_compared_and_have_no_labels() -> None:
    y, x = np.arange(60) % 3, table() + 1e4
    now = fingerprints(array_dataset(x, y))
    assert all("exact" in split for split in now.values())
    then = {name: {"n": split["n"], "sha256": split["sha256"]} for name, split in now.items()}
    assert differences(then, now) == ""
    assert "other values" in differences(then, fingerprints(array_dataset(x + 1, y)))
    assert "train had None rows" in differences({}, now)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A conditional run on labels 0 and 5."""
    folder = tmp_path_factory.mktemp("two")
    path = swap(folder / "two.npz", 5 * (np.arange(400) % 2))
    settings = [
        f"data.source={path}",
        "latent=2",
        "encoder.hidden=[20]",
        "decoder.hidden=[20]",
        "training.samples=12000",
    ]
    settings += ["training.optimizer.lr=0.01"]
    fit(Recipe.load("conditional").override(settings), load_data(path), folder / "run")
    return Run.open(folder / "run")


def test_a_run_refuses_data_with_other_labels(two: Run) -> None:
    path = Path(two.recipe.source().source)
    before = path.read_bytes()
    try:
        swap(path, 5 * (np.arange(400) % 2))
        content = dict(np.load(path))
        np.savez(path, x=content["x"], y=5 - content["y"])
        with pytest.raises(RunError, match="train has other labels in its 320 rows"):
            two.dataset()
    finally:
        path.write_bytes(before)


# Conditional runs


def test_the_data_say_how_many_classes_there_are(two: Run) -> None:
    assert two.recipe.context().classes == 2
    assert two.classes() == {0: "0", 1: "5"}
    recipe = Recipe.load("conditional")
    for n in (3, 6):
        assert recipe.of(array_dataset(table(), np.arange(60) % n)).context().classes == n
    assert recipe.of(load_data("digits")).context().classes == 10
    own = recipe.override(["context.classes=12"])
    assert own.of(array_dataset(table(), np.arange(60) % 6)).context().classes == 12
    plain = Recipe.load("gaussian")
    assert "context" not in plain.of(array_dataset(table(), np.arange(60) % 6)).settings
    with pytest.raises(
        DataError, match=r"conditions on labels \(context.classes\), but the data have none\. Use another recipe"
    ):
        recipe.of(array_dataset(table()))
    with pytest.raises(RecipeError, match=r"context.classes: the data say how many there are: use recipe.of\(data\)"):
        build_model(recipe, (3,))


def test_a_class_is_asked_for_by_what_the_file_calls_it(two: Run, tmp_path: Path) -> None:
    for name, columns in (("0", slice(0, 6)), ("5", slice(6, 12))):
        call("sample", two.path, "-n", 200, "--draw", "--given", name, "--out", tmp_path / "x.npy")
        x = np.load(tmp_path / "x.npy")
        assert x[:, columns].mean() > 0.8
        assert np.delete(x, np.r_[columns], axis=1).mean() < 0.2


@pytest.mark.parametrize("name", ["1", "3", "10", "five"])
def test_a_class_that_training_never_saw_is_refused(two: Run, name: str) -> None:
    found = call("sample", two.path, "--given", name)
    assert f"--given {name}: there is no such class in the train split." in found
    assert "Possible: 0, 5." in found


def test_each_class_in_turn_is_each_that_training_saw(tmp_path: Path) -> None:
    """Classes a, b, c, of which c is in the test split alone."""
    x, y = table(30), np.array(["a", "b"])[np.arange(30) % 2]
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_val=x, y_val=y, x_test=x, y_test=np.full(30, "c"))
    data = load_data(tmp_path / "d.npz")
    settings = ["data.values=standardized", "likelihood.type=normal", f"data.source={tmp_path / 'd.npz'}"]
    settings += ["training.samples=300", "encoder.hidden=[5]", "decoder.hidden=[5]"]
    run = fit(Recipe.load("conditional").override(settings), data, tmp_path / "run")
    assert run.recipe.context().classes == 3
    assert run.each(5).tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert "Possible: a, b." in call("sample", run.path, "--given", "c")
    assert "Possible: a, b." in call("sample", run.path, "--given", "2")
    assert "x.npy: 2 × 3" in call("sample", run.path, "-n", 2, "--given", "1", "--out", tmp_path / "x.npy")


def test_a_run_of_0_1_keeps_its_own_numbers_of_classes(two: Run) -> None:
    """It was trained on labels 0 and 5 as they came, of six or more classes."""
    run = Run.open(two.path)
    for key in ("values", "classes", "class_names"):
        del run.meta[key]
    for name, split in run.meta["splits"].items():
        del split["labels"]
        split["sha256"] = split["sha256"] if name == "train" else "0" * 16  # of bits that were drawn otherwise
    run.recipe = run.recipe.replace(context__classes=10)
    assert run.dataset().train.labels.unique().tolist() == [0, 5]
    assert run.classes() == {0: "0", 5: "5"}
    assert run.each(3).argmax(1).tolist() == [0, 5, 0]
