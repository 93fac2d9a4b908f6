"""New data through the command line: each row read as the run's own data were, in the order of its file."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from test_cli import NETS, good, mistake, strict

import aevb
from aevb.apps.rows import run_and_new
from aevb.data.unsplit import Reader, binarized_by_row, read_unsplit
from aevb.data.values import Values
from aevb.errors import DataError, RunError
from aevb.runs.sources import keep, kept
from aevb.runs.store import Run

SHORT = ["--samples", 400, "--latent", 2, "--no-figures", *NETS]
CONV = ["--set", "encoder.channels=[4]", "--set", "decoder.channels=[4]", "--set", "evaluation.importance_samples=10"]


def table(n: int, seed: int) -> np.ndarray:
    """n rows of three columns in units of their own."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)) * [10, 600, 8] + [40, 4000, 170]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs: runs/people of a table, runs/tiny of the digits."""
    folder = tmp_path_factory.mktemp("new")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("AEVB_RUNS", raising=False)
        np.save("people.npy", table(200, 0))
        np.save("new.npy", table(7, 1))
        good("train", "digits", "--out", "runs/tiny", *SHORT)
        good("train", "people.npy", "--out", "runs/people", *SHORT)
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("AEVB_RUNS", raising=False)


def standardized(run: Run, x: np.ndarray) -> torch.Tensor:
    """By hand: with the mean and the std of the run's train rows."""
    train = run.dataset().train
    mean, std = train.values.mean, train.values.std
    assert mean is not None
    assert std is not None
    return torch.from_numpy((x - mean.numpy()) / std.numpy()).float()


def read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(newline="") as f:
        lines = list(csv.reader(f))
    return lines[0], lines[1:]


def test_scores_are_log_p_of_the_rows_in_their_order_and_in_the_units_of_the_data(tmp_path: Path) -> None:
    run = Run.open("runs/people")
    out = good("score", "people", "new.npy", "--importance-samples", 40, "--out", tmp_path / "s.csv")
    names, lines = read_csv(tmp_path / "s.csv")
    assert names == ["row", "log_px", "log_px_se", "percentile", "p_value"]
    assert [line[0] for line in lines] == list(map(str, range(7)))
    marginal = aevb.log_marginal(run.model(), standardized(run, table(7, 1)), 40)
    std = run.dataset().train.values.std
    assert std is not None
    log_px = marginal.log_px - float(std.log().sum())
    np.testing.assert_allclose([float(line[1]) for line in lines], log_px.numpy(), rtol=1e-5)
    np.testing.assert_allclose([float(line[2]) for line in lines], marginal.se.numpy(), rtol=1e-2)
    assert f"{float(log_px.mean()):.2f} ± " in out
    good("score", "people", "new.npy", "--importance-samples", 40, "--out", tmp_path / "s.npy")
    assert np.load(tmp_path / "s.npy").tolist() == [float(line[1]) for line in lines]


def test_a_score_depends_on_its_row_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", table(7, 1)[4:5])
    np.save(tmp_path / "turned.npy", table(7, 1)[::-1])
    found = {}
    for name in (Path("new.npy"), tmp_path / "one.npy", tmp_path / "turned.npy"):
        good("score", "people", name, "--out", tmp_path / "s.npy")
        found[name.stem] = np.load(tmp_path / "s.npy")
    np.testing.assert_allclose(found["turned"][::-1], found["new"], rtol=1e-6)
    np.testing.assert_allclose(found["one"][0], found["new"][4], rtol=1e-6)


@pytest.mark.parametrize(
    "verb", [["sample"], ["reconstruct"], ["decode", "codes.npy", "--run"], ["interpolate"], ["traverse"]]
)
def test_pictures_of_rows_name_their_columns_in_the_units_of_the_file(
    verb: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def save(run: Run, out: object, name: str, figure: Any) -> None:
        drawn.extend(text.get_text() for text in figure.texts)

    np.save("codes.npy", np.zeros((3, 2)))
    monkeypatch.setattr("aevb.apps.outputs.save_figure", save)
    good(*verb, "people")
    values = Run.open("runs/people").values()
    assert values.mean is not None
    assert values.std is not None
    low, high = (float(values.mean[1] + s * 2.5 * values.std[1]) for s in (-1, 1))
    assert high - low == pytest.approx(5 * 600, rel=0.15)
    assert f"column 1, {low:,.0f} to {high:,.0f}" in " ".join(drawn)


def test_a_row_far_from_the_data_scores_lower(tmp_path: Path) -> None:
    np.save(tmp_path / "odd.npy", np.vstack([table(7, 1), [[140.0, 4000.0, 170.0]]]))
    content = strict(good("score", "people", tmp_path / "odd.npy", "--json"))
    assert content["lowest"][0]["row"] == 7
    assert content["n"] == 8


def test_the_scores_of_the_test_split_average_to_what_evaluate_says() -> None:
    scored, judged = (strict(good(verb, "people", "--json")) for verb in ("score", "evaluate"))
    assert scored["log_px"] == pytest.approx(judged["log_likelihood"], abs=3 * judged["log_likelihood_monte_carlo_se"])
    assert scored["n"] == judged["n"] == 20


def test_encode_and_reconstruct_new_rows(tmp_path: Path) -> None:
    run = Run.open("runs/people")
    good("encode", "people", "new.npy", "--out", tmp_path / "c.npy")
    good("reconstruct", "people", "new.npy", "--out", tmp_path / "r.npy")
    x, model = standardized(run, table(7, 1)), run.model()
    with torch.no_grad():
        z = model.encode(x)
        mean = model.decode(z).mean.double()
    np.testing.assert_allclose(np.load(tmp_path / "c.npy"), z.numpy(), rtol=1e-5, atol=1e-6)
    values = run.dataset().train.values
    assert values.mean is not None
    assert values.std is not None
    np.testing.assert_allclose(np.load(tmp_path / "r.npy"), mean * values.std + values.mean, rtol=1e-5)


def test_new_rows_need_no_training_file(place: Path, tmp_path: Path) -> None:
    """A run that was copied elsewhere, without its data."""
    run = shutil.copytree("runs/people", tmp_path / "people")
    recipe = (run / "recipe.toml").read_text().replace(str(place / "people.npy"), str(tmp_path / "gone.npy"))
    (run / "recipe.toml").write_text(recipe)
    good("encode", run, "new.npy", "--out", tmp_path / "a.npy")
    good("encode", "people", "new.npy", "--out", tmp_path / "b.npy")
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))
    assert "gone.npy" in mistake("score", run)
    there = strict(good("score", run, "--data", place / "people.npy", "--json"))
    assert there == strict(good("score", "people", "--json"))
    np.save(tmp_path / "other.npy", table(200, 9))
    assert "have changed since it was trained" in mistake("score", run, "--data", tmp_path / "other.npy")


def test_a_data_set_known_by_name_comes_in_its_own_order(tmp_path: Path) -> None:
    good("encode", "tiny", "digits", "--out", tmp_path / "a.npy")
    x = load_digits().images
    np.save(tmp_path / "x.npy", x)
    good("encode", "tiny", tmp_path / "x.npy", "--out", tmp_path / "b.npy")
    codes = np.load(tmp_path / "a.npy")
    assert np.array_equal(codes, np.load(tmp_path / "b.npy"))
    with torch.no_grad():
        expected = Run.open("runs/tiny").model().encode(torch.from_numpy(x[:, None] / 16).float())
    np.testing.assert_allclose(codes, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def photos(place: Path) -> Path:
    """A run, runs/photos, of colour pictures in two subfolders."""
    rng = np.random.default_rng(0)
    for i in range(30):
        path = place / "pictures" / ("cats" if i % 2 else "dogs") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((rng.random((8, 6, 3)) * 255).astype(np.uint8)).save(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        good("train", "pictures", "--out", "runs/photos", "--samples", 100, "--latent", 2, "--no-figures", *CONV)
    return place / "pictures"


def test_pictures_are_scored_by_their_files(photos: Path, tmp_path: Path) -> None:
    good("score", "photos", photos, "--out", tmp_path / "s.csv")
    names, lines = read_csv(tmp_path / "s.csv")
    assert names == ["file", "log_px", "log_px_se", "percentile", "p_value"]
    assert [line[0] for line in lines] == sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    good("score", "photos", photos / "dogs" / "04.png", "--out", tmp_path / "one.csv")
    (one,) = read_csv(tmp_path / "one.csv")[1]
    assert one[0] == "04.png"
    assert float(one[1]) == pytest.approx(float(next(line[1] for line in lines if line[0] == "dogs/04.png")), rel=1e-5)


def test_grey_pictures_serve_a_model_of_colours(photos: Path, tmp_path: Path) -> None:
    grey = np.full((8, 6), 120, np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    good("encode", "photos", tmp_path / "grey.png", "--out", tmp_path / "a.npy")
    np.save(tmp_path / "x.npy", np.repeat(grey[None, None], 3, 1))
    good("encode", "photos", tmp_path / "x.npy", "--out", tmp_path / "b.npy")
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))


def test_a_conditional_model_reads_the_labels_of_new_rows(tmp_path: Path) -> None:
    x = (np.random.default_rng(0).random((60, 5)) < 0.4).astype(np.uint8)
    y = np.array(["no", "yes"])[np.arange(60) % 2]
    np.savez(tmp_path / "x.npz", x=x, y=y)
    np.savez(tmp_path / "turned.npz", x=x, y=y[::-1])
    np.savez(tmp_path / "odd.npz", x=x, y=np.where(y == "no", "never", y))
    np.save(tmp_path / "bare.npy", x)
    run = tmp_path / "r"
    good("train", tmp_path / "x.npz", "--recipe", "conditional", "--out", run, *SHORT)
    found = {}
    for name, words in {"x.npz": [], "turned.npz": [], "bare.npy": ["--given", "yes"]}.items():
        good("score", run, tmp_path / name, *words, "--out", tmp_path / "s.npy")
        found[name] = np.load(tmp_path / "s.npy")
    assert np.array_equal(found["bare.npy"][1::2], found["x.npz"][1::2])
    assert np.array_equal(found["bare.npy"][0::2], found["turned.npz"][0::2])
    assert not np.allclose(found["x.npz"], found["turned.npz"])
    assert "has no labels, but r models p(x|y). Name the class of all rows: --given" in mistake(
        "score", run, tmp_path / "bare.npy"
    )
    assert "label never: there is no such class in the train split" in mistake("encode", run, tmp_path / "odd.npz")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 7)), "the rows have 7 columns, but run people reads 3. Give those it was trained on."),
        (np.zeros(3), "this is one row of shape (3,). Give an array of rows, of shape (1, 3)."),
        (np.zeros((4, 2, 2)), "the array has shape (4, 2, 2), but run people reads rows of shape (N, 3). Reshape"),
        (np.array([[1.0, np.nan, 0.0]]), "1 values in 1 of 1 rows are NaN; the first"),
    ],
)
def test_rows_that_do_not_fit_are_one_sentence(array: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", array)
    for verb in ("encode", "score", "reconstruct"):
        assert message in mistake(verb, "people", tmp_path / "x.npy")


def test_pictures_of_another_size_are_one_sentence(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((5, 9, 3), np.uint8)).save(tmp_path / "x.png")
    assert mistake("encode", "tiny", tmp_path / "x.png").endswith(
        "the pictures are 9×5 pixels (width × height) in colour, but run tiny reads 8×8 pixels (width × height) in"
        " grey. Convert them first."
    )


LEVELS, BITS = Values("levels", levels=17, divisor=16.0, dtype="uint8"), Values("threshold", levels=2, divisor=1.0)
GREY = Values("grey", divisor=1.0, dtype="float32")


@pytest.mark.parametrize(
    ("values", "x", "expected"),
    [
        (LEVELS, np.array([[0, 4, 16]]), [[0, 0.25, 1]]),
        (LEVELS, np.array([[0.0, 4.0, 16.0]]), [[0, 0.25, 1]]),
        (LEVELS, np.array([[0, 4, 17]]), "int64 numbers from 0 to 17, but the model reads whole numbers from 0 to 16"),
        (LEVELS, np.array([[0, 0.25, 1]]), "float64 numbers from 0 to 1, but the model reads whole numbers"),
        (LEVELS, np.array([[0.0, 0.0, 1.0]]), "float64 numbers from 0 to 1, but the model reads whole numbers"),
        (BITS, np.array([[0.0, 1.0, 1.0]]), [[0, 1, 1]]),
        (BITS, np.array([[0, 1, 2]]), "from 0 to 2, but the model reads whole numbers from 0 to 1"),
        (GREY, np.array([[0, 0.25, 1]]), [[0, 0.25, 1]]),
        (GREY, np.array([[0, 128, 255]]), "from 0 to 255, but the model reads fractions from 0 to 1"),
    ],
)
def test_numbers_mean_what_the_runs_did_or_are_refused(
    values: Values, x: np.ndarray, expected: Any, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", x)
    new, reader = read_unsplit(str(tmp_path / "x.npy")), Reader((3,), values)
    if isinstance(expected, str):
        with pytest.raises(DataError) as caught:
            reader.split(new)
        assert expected in str(caught.value)
    else:
        assert reader.split(new)[:].tolist() == expected


def test_channels_are_where_the_shape_of_the_model_says(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
    first = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))) / 255
    for name, array in {"last": x, "first": x.transpose(0, 3, 1, 2)}.items():
        np.save(tmp_path / f"{name}.npy", array)
        split = Reader((3, 5, 6), Values("levels", dtype="uint8")).split(read_unsplit(str(tmp_path / f"{name}.npy")))
        assert torch.equal(split[:], first)


def test_bits_of_a_row_depend_on_the_row_alone() -> None:
    values = Values("dynamic", dtype="uint8")
    stored = np.random.default_rng(0).integers(0, 256, (400, 50), np.uint8)
    whole = aevb.Split(torch.from_numpy(stored), None, values)
    bits = binarized_by_row(whole)
    turned = binarized_by_row(aevb.Split(whole.stored.flip(0), None, values))
    assert torch.equal(bits[:], turned[:].flip(0))
    assert not torch.equal(bits[:], binarized_by_row(whole, seed=1)[:])
    p = whole.stored.float() / 255
    error = (p * (1 - p)).sum().sqrt() / p.numel()
    assert abs(float((bits[:] - p).mean())) < 4 * float(error)


def test_parts_of_a_split_file_follow_one_another(tmp_path: Path) -> None:
    x, y = np.arange(12.0).reshape(6, 2), np.array(list("abcabc"))
    np.savez(tmp_path / "x.npz", x_test=x[4:], y_test=y[4:], x_train=x[:3], y_train=y[:3], x_val=x[3:4], y_val=y[3:4])
    new = read_unsplit(str(tmp_path / "x.npz"))
    assert np.array_equal(new.x, x)
    assert new.labels == tuple("abcabc")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((None, None, None), (None, None)),
        (("people", None, None), ("people", None)),
        (("runs/people", None, None), ("runs/people", None)),
        (("new.npy", None, None), (None, "new.npy")),
        (("./new.npy", None, None), (None, "./new.npy")),
        (("digits", None, None), (None, "digits")),
        (("people", "new.npy", None), ("people", "new.npy")),
        (("new.npy", None, "people"), ("people", "new.npy")),
        (("people", None, "tiny"), ("tiny", "people")),
        ((None, None, "people"), ("people", None)),
    ],
)
def test_one_name_is_a_run_or_new_data(words: tuple[Any, Any, Any], expected: tuple[Any, Any]) -> None:
    assert run_and_new(*words) == expected


def test_a_name_that_could_be_both_is_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree("runs/people", tmp_path / "runs" / "both")
    monkeypatch.chdir(tmp_path)
    np.save("both", np.zeros((2, 3)))
    Path("both.npy").rename("both")
    with pytest.raises(RunError, match=r"Write --run both for the run; for the data write \./both"):
        run_and_new("both", None, None)
    assert run_and_new("./both", None, None) == (None, "./both")
    assert run_and_new(None, None, "both") == ("both", None)
    with pytest.raises(RunError, match="neither a run nor data of the name 'neither'"):
        run_and_new("neither", None, None)
    with pytest.raises(RunError, match="Two runs are named"):
        run_and_new("both", "x.npy", "both")


def test_a_folder_of_the_same_name_does_not_hide_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree("runs/people", tmp_path / "runs" / "people")
    shutil.copy("people.npy", tmp_path)
    (tmp_path / "people").mkdir()
    expected = strict(good("evaluate", "people", "--json"))
    monkeypatch.chdir(tmp_path)
    assert strict(good("evaluate", "people", "--json")) == expected
    assert strict(good("evaluate", "--run", "people", "--json")) == expected


def test_runs_of_fit_take_new_rows(tmp_path: Path) -> None:
    from aevb.data.arrays import array_dataset
    from aevb.runs.recipe import Recipe

    recipe = Recipe.load("gaussian").override(["encoder.hidden=[8]", "decoder.hidden=[8]", "training.samples=200"])
    run = aevb.fit(recipe, array_dataset(table(60, 2), name="mine"), tmp_path / "fitted")
    good("encode", run.path, "new.npy", "--out", tmp_path / "c.npy")
    values = Values.from_dict(json.loads((run.path / "meta.json").read_text())["values"])
    with torch.no_grad():
        expected = run.model().encode(values(torch.from_numpy(table(7, 1))))
    np.testing.assert_allclose(np.load(tmp_path / "c.npy"), expected.numpy(), rtol=1e-5, atol=1e-6)


def test_rows_of_a_split_have_the_numbers_of_their_file(tmp_path: Path) -> None:
    good("score", "people", "--importance-samples", 5, "--out", tmp_path / "s.csv")
    names, lines = read_csv(tmp_path / "s.csv")
    test = Run.open("runs/people").dataset().test
    assert names[0] == "row"
    rows = [int(line[0]) for line in lines]
    assert rows != sorted(rows)
    np.testing.assert_allclose(test.values.inverse(test[:]), table(200, 0)[rows], rtol=1e-5)
    lowest = json.loads(good("score", "people", "--importance-samples", 5, "--json"))["lowest"][0]["row"]
    assert lowest == rows[int(np.argmin([float(line[1]) for line in lines]))]


def test_rows_of_a_source_keep_their_names_through_every_cut(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "cut.npz", x_train=rng.normal(size=(30, 3)), x_test=rng.normal(size=(9, 3)))
    for source in ("digits", str(tmp_path / "cut.npz")):
        data, whole = aevb.load_data(source), read_unsplit(source)
        for split in (data.train, data.validation, data.test, data.test.take(4).to("cpu").frozen()):
            assert split.names is not None
            np.testing.assert_allclose(split.stored, whole.x[split.names].reshape(split.stored.shape), rtol=1e-6)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(12):
        Image.fromarray(np.full((4, 4), 20 * i, np.uint8)).save(folder / f"{i:02}.png")
    test = aevb.load_data(folder, seed=2).test
    assert test.names is not None
    assert test.stored[:, 0, 0, 0].tolist() == [20 * int(name[:2]) for name in test.names]


def test_data_that_a_run_keeps_have_their_names(tmp_path: Path) -> None:
    data = aevb.load_data(table(50, 0))
    keep(tmp_path / "ints", data)
    assert kept(tmp_path / "ints").test.names.tolist() == data.test.names.tolist()
    files = np.array([f"{i}.png" for i in range(len(data.test))])
    keep(tmp_path / "files", replace(data, test=replace(data.test, names=files)))
    assert kept(tmp_path / "files").test.names.tolist() == files.tolist()
    keep(tmp_path / "none", replace(data, test=replace(data.test, names=None)))
    assert kept(tmp_path / "none").test.names is None
