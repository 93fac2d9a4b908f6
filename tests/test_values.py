"""What numbers mean, both ways: inverse, log |det|, precision, types; and what leaves a run in the units of its
data.
"""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from typer.testing import CliRunner

from aevb.apps.cli import app
from aevb.data.arrays import array_dataset
from aevb.data.dataset import Dataset, Split
from aevb.data.sources import load_data
from aevb.data.values import Values
from aevb.errors import AevbWarning, DataError
from aevb.evaluation.estimate import UNDEFINED, Estimate
from aevb.evaluation.likelihood import Method
from aevb.runs.evaluate import estimate_likelihood, evaluate_run, in_units
from aevb.runs.fit import fit
from aevb.runs.recipe import Recipe
from aevb.runs.store import Run


def rows(data: Dataset) -> torch.Tensor:
    """All rows of a data set, as the model sees them."""
    return torch.cat([data.train[:], data.validation[:], data.test[:]])


def back(data: Dataset) -> np.ndarray:
    """All rows, there and back, in the order of the first column."""
    x = data.train.values.inverse(rows(data))
    return x[np.argsort(x[:, 0], kind="stable")]


# Inverse


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "int16", "int64", "uint16", "uint32", ">f8", ">i4"]
)
def test_standardized_tables_come_back_in_their_own_type(dtype: str) -> None:
    x = np.random.default_rng(0).permutation(np.arange(120)).reshape(40, 3).astype(dtype)
    found = back(array_dataset(x))
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_allclose(found, x[np.argsort(x[:, 0])], rtol=0, atol=0 if found.dtype.kind in "iu" else 1e-5)


def test_standardized_integers_are_rounded_and_clipped_to_their_type() -> None:
    values = Values("standardized", mean=torch.tensor([200.0]), std=torch.tensor([50.0]), dtype="uint8")
    assert values.inverse(torch.tensor([[0.0], [0.013], [9.0], [-9.0]])).tolist() == [[200], [201], [255], [0]]
    values = Values("standardized", mean=torch.tensor([2.0]), std=torch.tensor([1e30]), dtype="int64")
    assert values.inverse(torch.tensor([[1.0], [-1.0]])).tolist() == [[2**63 - 1024], [-(2**63)]]


@pytest.mark.parametrize(
    ("values", "x", "expected"),
    [
        (Values("grey", dtype="uint8"), [0, 0.5, 1, 1.2], [0, 128, 255, 255]),
        (Values("grey", divisor=256.0, dtype="uint8"), [0.5, 1], [128, 255]),
        (Values("levels", dtype="uint8"), [0, 127 / 255, 1], [0, 127, 255]),
        (Values("levels", levels=17, divisor=16.0, dtype="uint8"), [0, 8.4 / 16, 1], [0, 8, 16]),
        (Values("levels", dtype="int64"), [0, 1], [0, 255]),
        (Values("dynamic", dtype="uint8"), [0, 1, 0.4], [0, 255, 102]),
        (Values("threshold", levels=17, dtype="uint8"), [0, 1], [0, 16]),
        (Values("threshold", levels=2, dtype="bool"), [0, 1, 0.7], [False, True, True]),
        (Values("dynamic", dtype="float64"), [0, 1, 0.25], [0, 1, 0.25]),
        (Values("threshold", levels=2, dtype="float32"), [0, 1], [0, 1]),
        (Values("grey", divisor=1.0, dtype="float64"), [0.25, 1.5], [0.25, 1.5]),
        (Values("raw", dtype="int64"), [-3.4, 7.6], [-3, 8]),
        (Values("raw", dtype="float64"), [-3.5], [-3.5]),
    ],
)
def test_model_numbers_become_numbers_of_the_data(values: Values, x: list[float], expected: list[float]) -> None:
    found = values.inverse(torch.tensor(x))
    assert found.dtype == np.dtype(values.dtype)
    assert found.tolist() == expected


@pytest.mark.parametrize("kind", ["grey", "levels", "raw"])
def test_pictures_come_back_whole(kind: str) -> None:
    x = np.random.default_rng(0).integers(0, 256, (20, 1, 5, 6), np.uint8)
    data = array_dataset(x, values=kind)
    assert np.array_equal(np.sort(data.train.values.inverse(rows(data)), axis=0), np.sort(x, axis=0))


@pytest.mark.parametrize("values", [None, "raw", "dynamic"])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, float])
def test_binary_tables_come_back_in_their_own_type(values: str | None, dtype: type) -> None:
    x = (np.random.default_rng(0).uniform(size=(30, 4)) < 0.5).astype(dtype)
    data = array_dataset(x, values=values)
    found = data.train.values.inverse(rows(data))
    assert found.dtype == x.dtype
    assert np.array_equal(found.sum(0), x.sum(0))


def test_a_split_knows_the_type_of_its_rows() -> None:
    assert Split(torch.zeros(3, 2)).values.dtype == "float32"
    assert Split(torch.zeros(3, 2, dtype=torch.uint8), None, Values("grey")).values.dtype == "uint8"
    assert array_dataset(np.zeros((9, 2, 2), np.int16)).test.values.dtype == "int16"


def test_the_log_determinant_is_that_of_the_map() -> None:
    x = np.random.default_rng(0).normal([3, -900, 1e-9], [2, 1e4, 1e-12], (500, 3))
    values = array_dataset(x).train.values
    mean, std = values.mean.numpy(), values.std.numpy()
    expected = norm.logpdf(x[:5], mean, std).sum(1)  # of the data as given
    standard = norm.logpdf((x[:5] - mean) / std).sum(1)
    np.testing.assert_allclose(standard + values.log_abs_dets(torch.from_numpy(x[:5])).numpy(), expected, rtol=1e-12)
    for kind in ("raw", "grey", "levels", "dynamic", "threshold"):
        assert Values(kind).log_abs_dets(torch.zeros(2, 3)).tolist() == [0.0, 0.0]
    with pytest.raises(DataError, match="need a mean and a std"):
        Values("standardized").log_abs_dets(torch.zeros(2, 3))


def test_a_constant_column_adds_nothing_to_the_log_determinant() -> None:
    x = np.c_[np.random.default_rng(0).normal(0, 2, 50), np.full(50, 7.0)]
    with pytest.warns(AevbWarning):
        values = array_dataset(x).train.values
    assert float(values.log_abs_dets(torch.zeros(1, 1))) == pytest.approx(-math.log(values.std[0]), rel=1e-12)


def test_values_survive_json_bit_for_bit() -> None:
    x = np.c_[np.random.default_rng(0).normal(0.1, 1 / 3, 50), 2**60 + np.arange(50)]
    for array in (x, x.astype(np.int64), (x > 0.5)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = array_dataset(array).train.values
        again = Values.from_dict(json.loads(json.dumps(values.to_dict())))
        assert (again.kind, again.levels, again.divisor, again.dtype) == (
            values.kind,
            values.levels,
            values.divisor,
            values.dtype,
        )
        for name in ("mean", "std", "origin"):
            a, b = getattr(again, name), getattr(values, name)
            assert (a is None and b is None) or (a.dtype == b.dtype and torch.equal(a, b))


# Precision


def test_time_stamps_keep_their_differences() -> None:
    """600 seconds of 2023: float32 has steps of 128 s there."""
    rng = np.random.default_rng(0)
    t = 1.7e9 + np.sort(rng.uniform(0, 60, 600))
    x = np.c_[t, (t - t.mean()) / t.std() + 0.05 * rng.normal(size=600)]
    data = array_dataset(x)
    seen = rows(data).double().numpy()
    assert len(np.unique(seen[:, 0])) == 600
    assert data.train.values.std[0].item() == pytest.approx(17.18, abs=0.3)
    train = data.train[:].double()
    assert train.std(0, correction=0).numpy() == pytest.approx([1, 1], abs=1e-6)
    assert np.corrcoef(seen.T)[0, 1] == pytest.approx(np.corrcoef(x.T)[0, 1], abs=1e-6)
    assert np.abs(back(data)[:, 0] - t).max() < 1e-5


@pytest.mark.parametrize("offset", [2**24, 2**53, 2**60, -(2**62)])
def test_large_integers_keep_all_their_values(offset: int) -> None:
    x = offset + np.arange(100)[:, None] * np.array([1, 3])
    data = array_dataset(x)
    seen = rows(data)
    assert seen[:, 0].unique().numel() == 100
    assert data.train[:].double().mean(0).abs().max() < 1e-6
    assert (data.train[:].double().std(0, correction=0) - 1).abs().max() < 1e-6
    assert np.array_equal(back(data), x)


def test_int64_at_both_ends_does_not_wrap_around() -> None:
    x = np.array([[-(2**63) + 10 * i] for i in range(20)] + [[2**63 - 1 - 10 * i] for i in range(20)])
    train = array_dataset(x).train[:]
    assert train.abs().max() < 1.2
    assert len(train.sign().unique()) == 2


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30])
def test_the_unit_of_a_table_does_not_matter(scale: float) -> None:
    x = np.random.default_rng(0).normal(5, 2, (50, 3))
    data, scaled = array_dataset(x), array_dataset(x * scale)
    torch.testing.assert_close(scaled.train[:], data.train[:], rtol=1e-5, atol=1e-5)
    shift = 3 * math.log(scale)
    assert scaled.train.log_abs_det == pytest.approx(data.train.log_abs_det - shift, abs=1e-6)


def test_float64_is_kept_only_where_float32_would_lose_digits() -> None:
    rng = np.random.default_rng(0)
    kept = {
        torch.float32: (rng.normal(size=(50, 2)), rng.integers(0, 100, (50, 2)) + 0.5, rng.integers(-9, 9, (50, 2))),
        torch.float64: (rng.normal(1e4, 1, (50, 2)), rng.normal([0, 1e6], 1, (50, 2))),
        torch.int64: (2**24 + rng.integers(0, 100, (50, 2)),),
    }
    for dtype, arrays in kept.items():
        for x in arrays:
            assert array_dataset(x).train.stored.dtype == dtype
    assert array_dataset(rng.normal(1e4, 1, (50, 2)), values="raw").train.stored.dtype == torch.float32


def test_raw_values_that_float32_merges_are_warned_of() -> None:
    t = 1.7e9 + np.arange(60.0)
    x = np.c_[np.arange(60.0), t]
    with pytest.warns(
        AevbWarning, match=r"float32 merges numbers of 1 of 2 columns \(1, counted from 0\): 60 different"
    ):
        array_dataset(x, values="raw")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        array_dataset(x)
        array_dataset(x - [0, 1.7e9], values="raw")  # both remedies of the message


def test_constant_columns_are_named() -> None:
    x = np.random.default_rng(0).normal(size=(50, 4))
    x[:, [1, 3]] = [2.5, -1]
    words = r"t: constant in the train rows: 2 of 4 columns \(1, 3, counted from 0\)\..*Leave such columns out"
    for values in (None, "raw"):
        with pytest.warns(AevbWarning, match=words):
            array_dataset(x, name="t", values=values)
    counts = np.random.default_rng(0).poisson(3, (50, 2)) * [1, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        array_dataset(x[:, [0, 2]])
        array_dataset(counts, values="raw")  # probabilities have a bound
        array_dataset(counts.astype(float), values="raw")


# Frozen draws


def test_frozen_is_no_draw_of_the_users_own_seed() -> None:
    """Pixels from torch.manual_seed(0), compared with the same stream, would all be 0."""
    torch.manual_seed(0)
    stored = (torch.rand(200, 784) * 255).to(torch.uint8)
    p = stored.double().mean().item() / 255
    error = math.sqrt(p * (1 - p) / stored.numel())
    assert abs(Split(stored, None, Values("dynamic")).frozen().stored.double().mean().item() - p) < 4 * error


# Runs


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run on a table of age, income and height, which are independent normals."""
    folder = tmp_path_factory.mktemp("people")
    table = np.random.default_rng(0).normal([39.5, 3956, 170], [11.4, 630, 8], (4000, 3))
    np.save(folder / "people.npy", table)
    recipe = Recipe.load("gaussian").override(
        [f"data.source={folder / 'people.npy'}", "latent=2", "training.samples=60000"]
    )
    fit(recipe, load_data(folder / "people.npy"), folder / "run")
    return Run.open(folder / "run")


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_samples_of_a_table_are_in_its_units(people: Run, tmp_path: Path) -> None:
    assert "float64" in call("sample", people.path, "-n", 500, "--draw", "--out", tmp_path / "new.npy")
    new = np.load(tmp_path / "new.npy")
    assert (new.shape, new.dtype) == ((500, 3), np.float64)
    sd = np.array([11.4, 630, 8])
    assert (np.abs(new.mean(0) - [39.5, 3956, 170]) < 5 * sd / math.sqrt(500)).all()
    assert (np.abs(np.log(new.std(0) / sd)) < 0.2).all()


def test_reconstructions_and_decoded_codes_are_in_the_units_of_the_table(people: Run, tmp_path: Path) -> None:
    call("reconstruct", people.path, "-n", 200, "--out", tmp_path / "r.npy")
    call("encode", people.path, "--out", tmp_path / "z.npy")
    call("decode", tmp_path / "z.npy", "--run", people.path, "--out", tmp_path / "d.npy")
    reconstructed, decoded = np.load(tmp_path / "r.npy"), np.load(tmp_path / "d.npy")
    np.testing.assert_allclose(reconstructed, decoded[:200], rtol=1e-5)
    assert (np.abs(decoded.mean(0) / [39.5, 3956, 170] - 1) < 0.1).all()


def test_densities_are_those_of_the_data_as_given(people: Run) -> None:
    data = people.dataset()
    result, values = evaluate_run(people, data), people.values()
    x, (mean, std) = data.test.stored.double().numpy(), (values.mean.numpy(), values.std.numpy())
    by_hand = norm.logpdf(x, mean, std).sum(1).mean()  # these columns are independent
    assert result["log_likelihood"] == pytest.approx(by_hand, abs=0.15)
    shift = -np.log(std).sum()
    for name in ("elbo", "log_likelihood"):
        assert result[name] - result[f"{name}_standardized"] == pytest.approx(shift, abs=1e-9)
    assert result["elbo"] == pytest.approx(result["reconstruction"] - result["kl"], abs=1e-6)
    for estimator, names in (("ais", ["log_likelihood"]), ("bdmc", ["upper", "lower"])):
        found = estimate_likelihood(people, data, method=Method(estimator, 2, 5), limit=5)
        assert all(found[n] - found[f"{n}_standardized"] == pytest.approx(shift, abs=1e-9) for n in names)


def test_evaluate_says_which_numbers_its_densities_are_of(people: Run) -> None:
    found = json.loads(call("evaluate", people.path, "--json"))
    names = ("elbo_standardized", "log_likelihood_standardized")
    elbo, log_px = (f"{found[name]:.2f} ± {found[f'{name}_se']:.2f}" for name in names)
    words = f"nats, density of the data as given; standardized: ELBO {elbo}, log p(x) {log_px}"
    assert words in " ".join(call("evaluate", people.path).split())


def test_numbers_of_other_values_stay_as_they_are() -> None:
    result = {"elbo": Estimate(-3.0, 0.1), "log_likelihood": UNDEFINED}
    assert in_units(result, 0.0) == result
    values = Values("standardized", mean=torch.zeros(2), std=torch.tensor([2.0, 4.0]))
    constant = float(values.log_abs_dets(torch.zeros(1, 2)))
    shifted = in_units({**result, "distortion": Estimate(2.0), "kl": Estimate(1.0)}, constant)
    assert shifted["elbo"].se == shifted["elbo_standardized"].se == 0.1
    assert shifted == {
        "elbo": pytest.approx(-3 - math.log(8)),
        "distortion": pytest.approx(2 + math.log(8)),
        "log_likelihood": UNDEFINED,
        "kl": 1.0,
        "elbo_standardized": -3.0,
    }


def test_pictures_leave_a_run_as_bytes(tmp_path: Path) -> None:
    data = load_data("digits")
    run = fit(Recipe.load("digits").replace(training__samples=2000), data, tmp_path / "run")
    call("sample", run.path, "-n", 30, "--draw", "--out", tmp_path / "s.npy")
    call("reconstruct", run.path, "-n", 30, "--out", tmp_path / "r.npy")
    drawn, means = np.load(tmp_path / "s.npy"), np.load(tmp_path / "r.npy")
    assert (drawn.dtype, means.dtype, drawn.shape) == (np.uint8, np.uint8, (30, 1, 8, 8))
    assert drawn.max() == 16
    model = run.model()
    with torch.no_grad():
        x = model.decode(model.encode(data.test[:30])).mean
    assert np.array_equal(means, (x * 16).round().numpy())


def test_probabilities_of_binary_data_are_not_rounded(tmp_path: Path) -> None:
    x = (np.random.default_rng(0).uniform(size=(60, 6)) < 0.3).astype(np.uint8)
    np.save(tmp_path / "bits.npy", x)
    recipe = Recipe.load("bernoulli").override([f"data.source={tmp_path / 'bits.npy'}", "latent=2", "data.values="])
    run = fit(recipe.replace(training__samples=600), load_data(tmp_path / "bits.npy"), tmp_path / "run")
    call("sample", run.path, "-n", 20, "--out", tmp_path / "p.npy")
    call("sample", run.path, "-n", 20, "--draw", "--out", tmp_path / "x.npy")
    p, drawn = np.load(tmp_path / "p.npy"), np.load(tmp_path / "x.npy")
    assert p.dtype == np.float32
    assert ((p > 0) & (p < 1)).all()
    assert drawn.dtype == np.uint8
    assert set(np.unique(drawn)) == {0, 1}


def test_a_run_of_0_1_reads_its_values_from_the_data(people: Run) -> None:
    run = Run.open(people.path)
    del run.meta["values"]
    for split in run.meta["splits"].values():  # as 0.1 wrote them
        for key in ("exact", "labels"):
            split.pop(key, None)
    assert run.dataset().train.stored.dtype == torch.float64
    assert run.values().to_dict() == people.values().to_dict()
