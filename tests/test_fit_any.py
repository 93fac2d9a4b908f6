"""`aevb.fit` on data of any form: each makes a run whose data are read again, and which every verb can use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import good
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset
from torch.utils.data import Dataset as MapStyle

import aevb
from aevb.data.arrays import array_dataset
from aevb.data.dataset import Dataset, Split
from aevb.data.sources import load_data
from aevb.data.values import Values
from aevb.errors import DataError
from aevb.runs.files import read_tensors, write_tensors
from aevb.runs.recipe import Recipe

SHORT = Recipe.load("gaussian").replace(training__samples=200, evaluation__importance_samples=10)
RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(120, 4)) * 9 + 3, RNG.integers(3, 6, 120)


class Own(MapStyle):  # type: ignore[type-arg]
    """Items of x and a label."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return X[i], int(LABELS[i])


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        return iter(X)


LABELLED = TensorDataset(torch.tensor(X), torch.tensor(LABELS))
FORMS = {
    "tensor": (torch.tensor(X), None),
    "array": (X, None),
    "list": (X.tolist(), None),
    "unlabelled": (TensorDataset(torch.tensor(X)), None),
    "labelled": (LABELLED, LABELS),
    "subset": (Subset(LABELLED, list(range(119, -1, -1))), LABELS[::-1]),
    "map-style": (Own(), LABELS),
    "loader": (DataLoader(Own(), batch_size=7, shuffle=True), LABELS),
}


@pytest.mark.parametrize("form", FORMS)
def test_data_of_any_form_are_those_of_their_array(form: str, tmp_path: Path) -> None:
    data, labels = FORMS[form]
    expected = array_dataset(X[::-1] if form == "subset" else X, labels)
    run = aevb.fit(SHORT, data, tmp_path / "r")
    found = run.dataset()
    assert found.class_names == expected.class_names == (None if labels is None else ("3", "4", "5"))
    for part in ("train", "validation", "test"):
        mine, theirs = getattr(found, part), getattr(expected, part)
        assert torch.equal(mine.stored, theirs.stored)
        assert labels is None or torch.equal(mine.labels, theirs.labels)


def test_a_path_is_the_runs_source_wherever_the_run_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("own.npy", X)
    run = aevb.fit(SHORT, "own.npy", "r")
    assert run.recipe.source().source == str(tmp_path / "own.npy")
    assert not (run.path / "data.safetensors").exists()
    monkeypatch.chdir("/")
    assert torch.equal(run.dataset().test.stored, array_dataset(X).test.stored)


def test_the_recipe_says_how_data_in_memory_are_read(tmp_path: Path) -> None:
    recipe = SHORT.replace(data__values="raw", data__seed=3)
    found = aevb.fit(recipe, X, tmp_path / "r").dataset().train
    assert found.values.kind == "raw"
    assert torch.equal(found.stored, array_dataset(X, values="raw", seed=3).train.stored)


def test_a_model_of_labels_is_trained_on_a_data_set_of_pytorch(tmp_path: Path) -> None:
    recipe = Recipe.load("conditional").override(["data.values=standardized", "likelihood.type=normal"])
    run = aevb.fit(recipe.replace(training__samples=200), LABELLED, tmp_path / "r")
    assert run.classes() == {0: "3", 1: "4", 2: "5"}


def test_every_verb_uses_a_run_of_a_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    aevb.fit(SHORT, torch.tensor(X), "r")
    good("evaluate", "r", "--json")
    good("score", "r", "--out", "s.npy")
    good("encode", "r", "--out", "z.npy")
    good("reconstruct", "r", "--out", "x.npy")
    assert np.load("s.npy").shape == (12,)
    assert len(np.load("z.npy")) == 12
    good("train", "--resume", "r", "--samples", 300, "--no-figures")
    assert aevb.resume("r", samples=400).meta["samples"] == 400


REFUSED: dict[str, tuple[Any, str]] = {
    "stream": (Stream(), "read by row numbers"),
    "a pair": ((X, LABELS), r"TensorDataset\(x, labels\)"),
    "vectors": (TensorDataset(torch.tensor(X), torch.randn(120, 2)), r"one number; got y of the shape \(2,\)"),
    "three parts": (TensorDataset(*[torch.tensor(X)] * 3), "got 3 parts"),
    "no rows": (TensorDataset(torch.zeros(0, 3)), "has no rows"),
    "nothing": (None, "not numbers"),
    "collated": (DataLoader(Own(), batch_size=2, collate_fn=lambda items: items), "Give its data set"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_data_is_refused_before_there_is_a_folder(name: str, tmp_path: Path) -> None:
    data, words = REFUSED[name]
    with pytest.raises(DataError, match=words):
        aevb.fit(SHORT, data, tmp_path / "r")
    assert not (tmp_path / "r").exists()


COUNTS = RNG.integers(1, 9, (80, 3))
CURED: dict[str, tuple[str, Any, str, str]] = {  # recipe, data, what is said of them, the change that is advised
    "standardized counts": ("poisson standardized", COUNTS, r"hold {} in row {}, which the model reads as -", "raw"),
    "negative counts": ("poisson raw", COUNTS - 20, r"hold {} in row {}\. Rescale the data", "normal"),
    "grey levels": ("bernoulli grey", COUNTS.astype(np.uint8), r"hold {} in row {}, which the model reads as 0", "dyn"),
}


@pytest.mark.parametrize("name", CURED)
def test_data_outside_of_a_likelihood_are_named_as_given_and_the_advice_cures(name: str, tmp_path: Path) -> None:
    words, x, said, change = CURED[name]
    kind, values = words.split()
    recipe = Recipe.load(kind).override(["training.samples=200", f"data.values={values}"])
    with pytest.raises(DataError) as caught:
        aevb.fit(recipe, x, tmp_path / "r")
    train = array_dataset(x, values=values).train
    first = next(i for i in range(len(train)) if bool(((train[[i]] < 0) | (train[[i]] % 1 != 0)).any()))
    at = int(((train[[first]] < 0) | (train[[first]] % 1 != 0)).flatten().nonzero()[0])
    row = int(train.names[first])  # type: ignore[index]
    assert re.search(said.format(x[row, at], row), str(caught.value)), str(caught.value)
    assert change in caught.value.changes[0]
    run = aevb.fit(recipe.override([*caught.value.changes]), x, tmp_path / "r")
    assert run.meta["status"] == "complete"


def test_pictures_outside_of_a_likelihood_are_named_by_their_files() -> None:
    split = Split(
        torch.tensor([[1, 0], [1, 100]], dtype=torch.uint8), None, Values("grey"), np.array(["a.png", "b.png"])
    )
    model = aevb.VAE(
        aevb.StandardNormal(2),
        aevb.Conditional(aevb.MLP(2, 4, [4]), aevb.Normal(2)),
        aevb.Conditional(aevb.MLP(2, 2, [4]), aevb.Bernoulli(2)),
    )
    with pytest.raises(DataError, match=r"hold 1 in a\.png, which the model reads as 0\.0039") as caught:
        aevb.evaluate(model, split)
    assert not caught.value.changes  # nothing is trained


def own(*rows: torch.Tensor) -> Dataset:
    """A data set of one's own, whose splits are given."""
    values = Values("standardized").fitted(rows[0])
    return Dataset("mine", *(Split(part, None, values) for part in rows), "gaussian")


@pytest.mark.parametrize("share", ["all", "rows", "strides"])
def test_splits_that_share_memory_are_kept_apart(share: str, tmp_path: Path) -> None:
    x = torch.tensor(X, dtype=torch.float32)
    parts = {
        "all": (x, x, x),
        "rows": (x[:80], x[40:100], x[60:]),
        "strides": (x.T.contiguous().T, x[::2], x[:1].expand(30, 4)),
    }[share]
    run = aevb.fit(SHORT, own(*parts), tmp_path / "r")
    data = run.dataset()
    for split, part in zip((data.train, data.validation, data.test), parts, strict=True):
        assert torch.equal(split.stored, part)


def test_tied_weights_are_written_apart_and_read_again(tmp_path: Path) -> None:
    w = torch.arange(12.0).reshape(3, 4)
    tied = {"a": w, "b": w, "c": w.T, "d": w[1:], "e": w.flatten()[2:5], "f": torch.zeros(0), "g": torch.zeros(0)}
    write_tensors(tmp_path / "w.safetensors", tied)
    back, _ = read_tensors(tmp_path / "w.safetensors")
    assert back.keys() == tied.keys()
    assert all(torch.equal(back[name], t) for name, t in tied.items())


def test_the_recipe_of_a_run_that_keeps_its_data_keeps_them_again(tmp_path: Path) -> None:
    x = torch.tensor(X, dtype=torch.float32)
    data = own(x[:80], x[80:100], x[100:])
    first = aevb.fit(SHORT, data, tmp_path / "a")
    second = aevb.fit(Recipe.load(first.path / "recipe.toml"), data, tmp_path / "b")
    third = aevb.fit(Recipe.load(second.path / "recipe.toml"), second.dataset(), tmp_path / "c")
    for run in (second, third):
        assert torch.equal(run.dataset().test.stored, x[100:])
        assert run.recipe.source().source == "mine"
    file = tmp_path / "mine.npy"
    np.save(file, X)
    named = SHORT.replace(data__source=str(file))
    read = aevb.fit(named, load_data(file), tmp_path / "d")
    assert not (read.path / "data.safetensors").exists()  # the file has them
    assert torch.equal(read.dataset().train.stored, load_data(file).train.stored)
