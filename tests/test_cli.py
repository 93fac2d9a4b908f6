"""The command line: every verb's numbers against the library's, every mistake one readable line and exit code 1."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

import aevb
from aevb.apps import actions
from aevb.apps.cli import main
from aevb.data.dataset import Dataset
from aevb.evaluation.estimate import UNDEFINED, Estimate
from aevb.evaluation.reports.fidelity import authenticity, fidelity, median_distance, mmd, principal_components
from aevb.evaluation.reports.surgery import surgery
from aevb.evidence.annealed import Annealing, bidirectional, log_marginal_ais
from aevb.evidence.harmonic import ChainSettings, log_marginal_hmc
from aevb.models.vae import VAE
from aevb.runs.recipe import Recipe, recipe_names
from aevb.runs.store import Run
from aevb.use.encode import posterior_draws
from aevb.use.fit_prior import fit_prior
from aevb.use.generate import generate

NETS = ["--set", "encoder.hidden=[16]", "--set", "decoder.hidden=[16]", "--set", "evaluation.importance_samples=10"]
KEYS = {
    "split", "n", "elbo", "elbo_se", "reconstruction", "kl", "kl_per_dimension", "log_likelihood", "log_likelihood_se",
    "log_likelihood_monte_carlo_se", "importance_samples", "effective_sample_size", "bits_per_dim", "bits_per_dim_se",
    "active_units", "latent_size", "is_likelihood", "latent", "importance_warning", "clusters", "perplexity",
    "reconstruction_se", "kl_se", "kl_per_dimension_se", "effective_sample_size_se",
}  # fmt: skip


class Result(NamedTuple):
    code: int
    out: str
    err: str


def call(*words: object) -> Result:
    """`aevb words...`, in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["aevb", *map(str, words)])
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def good(*words: object) -> str:
    result = call(*words)
    assert result.code == 0, result.err
    return result.out


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def mistake(*words: object) -> str:
    """The one line that `aevb words...` says on stderr when it fails with code 1; nothing else, and no traceback."""
    result = call(*words)
    lines = [line for line in result.err.splitlines() if line]
    assert result.code == 1, result
    assert not result.out
    assert lines[-1].startswith("error: ")
    assert len(lines) == 1 or (len(lines) == 2 and ", recipe " in lines[0])  # what is to be trained comes first
    return lines[-1].removeprefix("error: ")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small run, runs/tiny."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        good("train", "digits", "--out", "runs/tiny", "--samples", 3000, "--no-figures", *NETS)
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("AEVB_RUNS", raising=False)


@pytest.fixture
def run(place: Path) -> Run:
    return Run.open(place / "runs" / "tiny")


@pytest.fixture
def model(run: Run) -> VAE:
    return run.model()


@pytest.fixture
def data(run: Run) -> Dataset:
    return run.dataset()


# train


def test_train_says_what_where_and_what_next(tmp_path: Path) -> None:
    result = call("train", "digits", "--out", tmp_path / "r", "--samples", "1e3", "--seed", 3, "--batch", 50, *NETS)
    assert result.code == 0
    assert re.search(r"^digits \(1,197 × 1×8×8\), recipe digits, 2 latents$", result.err, re.M)
    assert re.search(r"^step 20/20 · ELBO -\d+\.\d nats · [\d,]+ samples/s · 0:00 left$", result.err, re.M)
    run = Run.open(tmp_path / "r")
    assert "digits, test split, n = 300, after 1,000 training samples" in result.out
    assert f"run      {tmp_path / 'r'}" in result.out
    figures = "interpolations, latent, loss, manifold, reconstructions, samples, traversals"
    assert f"figures  {tmp_path / 'r' / 'figures'}/: {figures} (.png, .svg)" in result.out
    drawn = {p.name for p in (tmp_path / "r" / "figures").iterdir()}
    assert drawn == {f"{name}.{kind}" for name in figures.split(", ") for kind in ("png", "svg")}
    training = run.recipe.training()
    assert (training.samples, training.seed, training.batch, run.meta["steps"]) == (1000, 3, 50, 20)
    verdict = json.loads((tmp_path / "r" / "evaluation-test.json").read_text())
    assert f"{verdict['elbo']:.2f} ± {verdict['elbo_se']:.2f}" in result.out
    assert "\x1b" not in result.out + result.err  # no colours where there is no terminal


def test_train_json_is_json_alone(tmp_path: Path) -> None:
    result = call("train", "digits", "--out", tmp_path / "r", "--epochs", 0.5, "--json", "--no-figures", *NETS)
    content = strict(result.out)
    assert set(content) == KEYS | {"run"}
    assert content["run"] == str(tmp_path / "r")
    assert not result.err
    assert Run.open(tmp_path / "r").recipe.training().samples == 598  # half of 1,197
    assert not (tmp_path / "r" / "figures").exists()


def test_train_takes_the_data_of_a_recipe_file(tmp_path: Path) -> None:
    text = good("recipes", "digits").replace("[data]", '[data]\nsource = "digits"')
    (tmp_path / "mine.toml").write_text(text)
    good("train", "--recipe", tmp_path / "mine.toml", "--latent", 3, "--out", tmp_path / "r", "--samples", 500, *NETS)
    run = Run.open(tmp_path / "r")
    assert run.recipe.name == "mine"
    assert run.model().encode(torch.zeros(1, 1, 8, 8)).shape == (1, 3)


def test_a_batch_larger_than_the_data_is_the_data(tmp_path: Path) -> None:
    good("train", "digits", "--out", tmp_path / "r", "--batch", 5000, "--epochs", 2, "--no-figures", *NETS)
    assert (Run.open(tmp_path / "r").meta["steps"], Run.open(tmp_path / "r").meta["samples"]) == (2, 2394)


def test_resume_trains_for_longer(place: Path, tmp_path: Path) -> None:
    path = shutil.copytree(place / "runs" / "tiny", tmp_path / "r")
    result = call("train", "--resume", path, "--no-figures")
    assert (
        f"resuming {path}: it is complete, after 3,000 training samples. To train it for longer: --samples TOTAL"
        in result.err
    )
    result = call(
        "train", "--resume", path, "--epochs", 3, "--set", "training.optimizer.lr=1e-5", "--json", "--no-figures"
    )
    assert result.code == 0
    run = Run.open(path)
    assert run.meta["samples"] == 3600  # 36 steps for 3 × 1,197
    assert run.recipe.settings["training"]["optimizer"]["lr"] == 1e-5
    for option in (["--latent", 3], ["--seed", 1], ["--batch", 5], ["--recipe", "aevb"], ["--out", "x"]):
        assert mistake("train", "--resume", path, *option).startswith(f"--resume uses a run's own recipe: {option[0]}")
    assert "--resume cannot change 'latent'" in mistake("train", "--resume", path, "--set", "latent=5")


def test_a_data_folder_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aevb.runs import sources as store

    good("train", "digits", "--data-dir", tmp_path, "--out", tmp_path / "r", "--samples", 100, "--no-figures", *NETS)
    seen: list[Any] = []
    load = store.load_data
    monkeypatch.setattr(store, "load_data", lambda *a, **k: seen.append(k["data_dir"]) or load(*a, **k))
    good("evaluate", tmp_path / "r")
    good("evaluate", tmp_path / "r", "--data-dir", "elsewhere")
    assert [str(s) for s in seen] == [str(tmp_path), "elsewhere"]


# evaluate


def test_evaluate_is_the_librarys_evaluate(model: VAE, data: Dataset) -> None:
    content = strict(good("evaluate", "--json", "--split", "validation", "--importance-samples", 20, "--samples", 2))
    assert set(content) == KEYS
    expected = aevb.evaluate(
        model,
        data.validation,
        split="validation",
        importance_samples=20,
        elbo_samples=2,
        labels=data.validation.labels,
        reference=(data.train.frozen(), data.train.labels),
    )
    assert content == expected.to_dict()
    assert content["n"] == 300
    assert content["elbo"] == pytest.approx(content["reconstruction"] - content["kl"])
    assert content["kl"] == pytest.approx(sum(content["kl_per_dimension"]))
    assert content["bits_per_dim"] == pytest.approx(-content["log_likelihood"] / 64 / np.log(2))


def test_evaluate_prints_a_table(run: Run) -> None:
    out = good("evaluate", "tiny", "--limit", 50)
    assert "tiny, test split, n = 50" in out
    content = strict(good("evaluate", "tiny", "--limit", 50, "--json"))
    assert f"{content['log_likelihood']:.2f} ± {content['log_likelihood_se']:.2f}" in out
    assert "nats, 10 importance samples" in out
    assert json.loads((run.path / "evaluation-test.json").read_text())["n"] == 300


def test_evaluate_by_other_estimators(run: Run, model: VAE, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    content = strict(
        good("evaluate", "tiny", "--estimator", "ais", "--limit", 6, "--chains", 3, "--temperatures", 5, "--json")
    )
    path = Annealing(5, start=model.posterior)
    expected = log_marginal_ais(model, data.test.take(6), 3, path).log_px
    assert content["log_likelihood"] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert (content["n"], content["samples"], content["temperatures"]) == (6, 3, 5)
    assert (content["estimator"], content["start"], content["split"]) == ("ais", "posterior", "test")
    short = partial(log_marginal_hmc, samples=10, chain=ChainSettings(thin=1, burn_in=5))
    monkeypatch.setattr("aevb.evaluation.likelihood.log_marginal_hmc", short)
    content = strict(good("evaluate", "tiny", "--estimator", "hmc", "--limit", 3, "--json"))
    expected = short(model, data.test.take(3)).log_px
    assert content["log_likelihood"] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert (content["n"], content["samples"], content["estimator"]) == (3, 10, "hmc")
    out = good("evaluate", "tiny", "--estimator", "hmc", "--limit", 3)
    assert "n = 3" in out
    assert "log p(x)" in out
    assert f"{content['log_likelihood']:.2f}" in out


def test_evaluate_brackets_log_p(run: Run, model: VAE) -> None:
    options = ("--estimator", "bdmc", "--limit", 6, "--chains", 3, "--temperatures", 5, "--start", "prior")
    content = strict(good("evaluate", "tiny", *options, "--json"))
    bracket = bidirectional(model, 6, 3, Annealing(5))
    assert content["gap"] == pytest.approx(float(bracket.gap.mean()), rel=1e-5)
    assert content["gap"] == pytest.approx(content["upper"] - content["lower"])
    assert content["gap_se"] == pytest.approx(float(bracket.gap.std()) / 6**0.5, rel=1e-4)
    out = good("evaluate", "tiny", *options)
    assert "tiny, data of the model, n = 6" in out
    assert f"{content['upper']:.2f} ± {content['upper_se']:.2f}" in out
    assert f"{content['gap']:.2f} ± {content['gap_se']:.2f}" in out


def test_evaluate_takes_the_kl_apart(run: Run, model: VAE, data: Dataset) -> None:
    content = strict(good("evaluate", "tiny", "--report", "surgery", "--json"))
    assert set(content) == KEYS | {"surgery"}
    found, expected = content["surgery"], surgery(model, data.test)
    assert found["mutual_information"] == pytest.approx(float(expected.mutual_information.mean()), rel=1e-5)
    assert found["rate"] == pytest.approx(content["kl"])
    assert found["aggregate_kl"] == pytest.approx(found["total_correlation"] + found["dimension_kl"])
    assert found["verdict"] == expected.verdict
    out = good("evaluate", "tiny", "--report", "surgery")
    assert f"{found['mutual_information']:.2f} ± {found['mutual_information_se']:.2f}" in out
    assert "nats, at most log N = 5.70" in out
    assert expected.verdict in out


def test_fidelity_is_that_of_draws_where_the_data_are_discrete(run: Run, model: VAE, data: Dataset) -> None:
    found = strict(good("evaluate", "tiny", "--report", "fidelity", "--json"))["fidelity"]
    train, test = data.train.frozen()[:], data.test.frozen()[:]
    features = principal_components(train, 50)
    real, made = features(test), features(generate(model, len(test), draw=True))
    assert (found["n"], found["samples"]) == (len(test), "draws")
    assert found["recall"] == pytest.approx(float(fidelity(real, made).recall.mean()))
    assert found["authentic"] == pytest.approx(float(authenticity(features(train), made)[0].mean()))
    assert found["mmd"] == pytest.approx(mmd(real, made, median_distance(real))[0])
    assert 0.4 < found["authentic_data"] < 0.75
    assert "authentic" in good("evaluate", "tiny", "--report", "fidelity")


def test_options_of_another_estimator_are_refused(run: Run) -> None:
    assert mistake("evaluate", "tiny", "--chains", 3) == "--chains only applies to --estimator ais and bdmc."
    assert "--importance-samples only applies to --estimator is." in mistake(
        "evaluate", "tiny", "--estimator", "ais", "--importance-samples", 3
    )


def test_evaluate_warns_of_heavy_tails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Pareto" not in good("evaluate", "tiny", "--limit", 20)
    monkeypatch.setattr("aevb.evidence.marginal.pareto_k", lambda log_top: torch.ones(log_top.shape[1]))
    assert "The weights of 100% of the data points have too heavy a tail" in good("evaluate", "tiny", "--limit", 20)


# use


def test_encode_gives_the_posterior_means(model: VAE, data: Dataset, tmp_path: Path) -> None:
    for name in ("a.npy", "b.npy"):
        out = good("encode", "--out", tmp_path / name)
        assert out == f"{tmp_path / name}: 300 × 2, float32\n"
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    codes = np.load(tmp_path / "a.npy")
    with torch.no_grad():
        assert np.array_equal(codes, model.encode(data.test[:]).numpy())
    assert good("encode", "tiny", "--split", "validation").startswith("runs/tiny/codes-validation.npy: 300 × 2")


def test_encode_draws(model: VAE, data: Dataset, tmp_path: Path) -> None:
    good("encode", "--samples", 5, "--seed", 3, "--split", "validation", "--out", tmp_path / "a.npy")
    draws = np.load(tmp_path / "a.npy")
    assert draws.shape == (5, 300, 2)
    assert np.array_equal(draws, posterior_draws(model, data.validation, 5, seed=3).numpy())
    good("encode", "--samples", 5, "--seed", 4, "--split", "validation", "--out", tmp_path / "b.npy")
    assert not np.array_equal(draws, np.load(tmp_path / "b.npy"))


def test_decode_of_encode_is_reconstruct(tmp_path: Path) -> None:
    good("encode", "--out", tmp_path / "codes.npy")
    good("decode", tmp_path / "codes.npy", "--out", tmp_path / "decoded.npy")
    good("reconstruct", "-n", 300, "--out", tmp_path / "reconstructed.npy")
    decoded, reconstructed = np.load(tmp_path / "decoded.npy"), np.load(tmp_path / "reconstructed.npy")
    assert decoded.shape == (300, 1, 8, 8)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - reconstructed).max() <= 1  # grey levels, rounded
    assert (decoded == reconstructed).mean() > 0.999
    assert decoded.max() <= 16


def grey_levels(x: torch.Tensor) -> np.ndarray:
    """Numbers of a model in [0, 1] as the digits' grey levels, 0 to 16."""
    return (16 * x.double()).round().numpy().astype(np.uint8)


def test_sample_is_generate(model: VAE, tmp_path: Path) -> None:
    good("sample", "-n", 7, "--seed", 5, "--out", tmp_path / "mean.npy")
    good("sample", "-n", 7, "--seed", 5, "--draw", "--out", tmp_path / "draw.npy")
    mean, draw = np.load(tmp_path / "mean.npy"), np.load(tmp_path / "draw.npy")
    assert np.array_equal(mean, grey_levels(generate(model, 7, seed=5)))
    drawn = generate(model, 7, seed=5, draw=True).double() * 16
    assert np.array_equal(draw, grey_levels(drawn / 16))
    torch.testing.assert_close(drawn, drawn.round(), rtol=0, atol=1e-5)  # on the grid of 17 grey levels


def test_sample_from_a_prior_that_is_fitted_to_the_codes(model: VAE, data: Dataset, tmp_path: Path) -> None:
    good("sample", "-n", 7, "--seed", 5, "--ex-post", "--out", tmp_path / "fitted.npy")
    fitted = fit_prior(model, data.train.frozen())
    assert np.array_equal(np.load(tmp_path / "fitted.npy"), grey_levels(generate(fitted.model, 7, seed=5)))
    assert not np.array_equal(np.load(tmp_path / "fitted.npy"), grey_levels(generate(model, 7, seed=5)))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["sample", "-n", 5], "samples"),
        (["reconstruct", "--split", "train", "-n", 3], "reconstructions"),
        (["interpolate", "--steps", 4], "interpolations"),
        (["interpolate", "--pair", 3, 14], "interpolations"),
        (["traverse", "--index", 7, "--dims", 2], "traversals"),
    ],
)
def test_pictures_beside_the_run_or_where_asked(words: list[Any], name: str, run: Run, tmp_path: Path) -> None:
    out = good(*words).splitlines()
    assert out == [f"runs/tiny/figures/{name}.png", f"runs/tiny/figures/{name}.svg"]
    for suffix in ("", ".png", ".svg"):
        out = good(*words, "--out", tmp_path / f"mine.v2{suffix}").splitlines()
        assert out == [str(tmp_path / "mine.v2.png"), str(tmp_path / "mine.v2.svg")]
        with Image.open(out[0]) as image:
            image.verify()
        assert Path(out[1]).read_text().lstrip().startswith("<?xml")
        Path(out[0]).unlink()


def test_decoded_pictures(tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", np.zeros((3, 2)))
    assert good("decode", tmp_path / "codes.npy", "--run", "tiny").splitlines()[0] == "runs/tiny/figures/decoded.png"


def test_plot_draws_what_is_asked_for(tmp_path: Path) -> None:
    out = good("plot", "tiny", "--only", "manifold", "--only", "loss", "--out", tmp_path / "f").splitlines()
    assert out == [str(tmp_path / "f" / f"{n}.{k}") for n in ("manifold", "loss") for k in ("png", "svg")]
    assert all(Path(p).stat().st_size > 1000 for p in out)


# lists


def test_runs_lists_them(run: Run) -> None:
    good("evaluate", "tiny")
    rows = strict(good("runs", "--json"))
    verdict = json.loads((run.path / "evaluation-test.json").read_text())
    assert rows == [
        {"run": "tiny", "status": "complete", "data": "digits", "recipe": "digits", "latent": 2, "samples": 3000,
         "test ELBO": round(verdict["elbo"], 2), "test ELBO se": round(verdict["elbo_se"], 2),
         "log p(x)": round(verdict["log_likelihood"], 2), "log p(x) se": round(verdict["log_likelihood_se"], 2)}
    ]  # fmt: skip
    out = good("runs")
    assert "tiny" in out
    assert "3,000" in out
    assert f"{verdict['elbo']:.2f} ± {verdict['elbo_se']:.2f}" in out


def test_a_long_name_of_a_run_stays_whole(place: Path) -> None:
    name = "a-very-long-name-of-a-run-that-one-wants-to-copy-from-the-list-20261122-233057"
    shutil.copytree(place / "runs" / "tiny", place / "elsewhere" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AEVB_RUNS", "elsewhere")
        assert name in good("runs").split()
        assert "Make one: aevb train digits" not in good("runs")
        patch.setenv("AEVB_RUNS", "nowhere")
        assert good("runs") == "No runs yet. Make one: aevb train digits\n"


def test_recipes_lists_and_prints_them(tmp_path: Path) -> None:
    assert [row["recipe"] for row in strict(good("recipes", "--json"))] == recipe_names()
    out = good("recipes")
    assert all(name in out for name in recipe_names())
    text = good("recipes", "aevb")
    assert "# cross-entropy on grey levels" in text
    (tmp_path / "own.toml").write_text(text)
    assert good("recipes", tmp_path / "own.toml") == text
    (tmp_path / "own.toml").write_text(text.replace("samples = 1\n", "samples = 1\nbeta = 3.0\n"))
    assert "- β KL(q(z|x) ‖ p(z)),  β = 3" in good("recipes", tmp_path / "own.toml")
    assert strict(good("recipes", "aevb", "--json"))["objective"]["estimator"] == "B"


def test_data_lists_and_describes_them() -> None:
    rows = {row["source"]: row for row in strict(good("data", "--json"))}
    assert (rows["digits"]["train"], rows["digits"]["validation"], rows["digits"]["test"]) == (1197, 300, 300)
    assert rows["frey"]["validation"] == 0
    described = strict(good("data", "digits", "--json"))
    assert (described["shape"], described["train"], described["default recipe"]) == ("1×8×8", 1197, "digits")
    assert "fashion-mnist" in good("data")


def test_version() -> None:
    assert good("--version") == f"aevb {aevb.__version__}\n"


# Mistakes


SMALL_RUN = ["train", "digits", "--out", "never"]
MISTAKES: dict[str, tuple[list[Any], str]] = {
    "source": (["train", "digts"], r"there is no data set, file or folder 'digts'\. Did you mean 'digits'\?"),
    "no source": (["train"], r"Missing SOURCE\. Name one, such as: aevb train digits"),
    "missing file": (["train", "absent.npy"], r"there is no data set, file or folder 'absent\.npy'"),
    "recipe": ([*SMALL_RUN, "--recipe", "gausian"], r"There is no recipe 'gausian'\. Did you mean 'gaussian'"),
    "recipe file": ([*SMALL_RUN, "--recipe", "absent.toml"], r"There is no recipe file 'absent\.toml'"),
    "printed recipe": (["recipes", "gausian"], r"There is no recipe 'gausian'\. Did you mean 'gaussian'"),
    "key": (
        [*SMALL_RUN, "--set", "objective.sample=5"],
        r"objective \(elbo\): there is no 'sample'\. Did you mean 'samples'\?",
    ),
    "table": (
        [*SMALL_RUN, "--set", "objektive.samples=5"],
        r"There is no 'objektive' in a recipe\. Did you mean 'objective'",
    ),
    "assignment": ([*SMALL_RUN, "--set", "latent"], r"--set 'latent': write key=value"),
    "values": ([*SMALL_RUN, "--set", "data.values=gray"], r"values='gray' does not fit .*Did you mean 'grey'"),
    "latent": ([*SMALL_RUN, "--latent", 0], r"latent: expected a whole number of at least 1; got 0"),
    "batch": ([*SMALL_RUN, "--batch", 0], r"training: batch must be at least 1; got 0"),
    "epochs 0": ([*SMALL_RUN, "--epochs", 0], r"Nothing to train: 0 training samples"),
    "epochs nan": ([*SMALL_RUN, "--epochs", "nan"], r"Nothing to train: nan training samples"),
    "samples inf": ([*SMALL_RUN, "--samples", "inf"], r"Nothing to train: inf training samples"),
    "epochs and samples": (
        [*SMALL_RUN, "--epochs", 1, "--samples", 5],
        r"--epochs and --samples are mutually exclusive",
    ),
    "support": ([*SMALL_RUN, "--set", "data.values=raw"], r"covers .*, but the data hold .*Rescale the data"),
    "out": (["train", "digits", "--out", "runs/tiny"], r"runs/tiny already exists\. Resume it: aevb train --resume"),
    "late mistake": (
        [*SMALL_RUN, "--set", "evaluation.importance_samples=0"],
        r"evaluation: importance_samples must be",
    ),
    "run": (["evaluate", "tinny"], r"There is no run 'tinny'\. Did you mean 'tiny'\?"),
    "resumed run": (["train", "--resume", "tinny"], r"There is no run 'tinny'\. Did you mean 'tiny'\?"),
    "figure": (["plot", "--only", "manifld"], r"There is no figure 'manifld'\. Did you mean 'manifold'"),
    "pair": (["interpolate", "--pair", 3, 300], r"There is no row 300 in the test split: it has rows 0 to 299"),
    "negative pair": (["interpolate", "--pair", -1, 3], r"There is no row -1 in the test split"),
    "index": (["traverse", "--index", 300], r"There is no row 300 in the test split"),
    "codes of another size": (
        ["decode", "wrong.npy"],
        r"wrong\.npy holds an array of shape \(4, 3\); tiny needs codes \(N, 2\)",
    ),
    "codes in a row": (["decode", "row.npy"], r"row\.npy holds an array of shape \(2,\); tiny needs codes \(N, 2\)"),
    "NaN codes": (["decode", "nan-codes.npy"], r"The data hold 1 NaN or infinite values in row 2\."),
    "no codes": (["decode", "absent.npy"], r"There is no file absent\.npy"),
    "codes that are none": (["decode", "runs/tiny/meta.json"], r"meta\.json is not a \.npy file of numbers"),
    "zipped codes": (["decode", "zipped.npz"], r"zipped\.npz is not a \.npy file of numbers"),
    "codes as text": (
        ["encode", "--out", "codes.txt"],
        r"--out codes\.txt: codes are written as a \.npy or \.csv file",
    ),
    "unwritable": (["encode", "--out", "wrong.npy/codes.npy"], r"wrong\.npy/codes\.npy could not be written: "),
    "NaN data": (["train", "nan.npy"], r"nan.npy: 2 values in 2 of 40 rows are NaN .*the first such rows are 3, 7"),
    "empty folder": (["train", "nothing"], r"nothing holds no images"),
    "described source": (["data", "digts"], r"there is no data set, file or folder 'digts'"),
}


@pytest.fixture(scope="module")
def _mistaken(place: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 5))
    x[3, 1], x[7, 2] = np.nan, np.inf
    np.save(place / "nan.npy", x)
    np.save(place / "wrong.npy", np.zeros((4, 3)))
    np.save(place / "row.npy", np.zeros(2))
    np.save(place / "nan-codes.npy", np.array([[0, 0], [0, 1], [0, np.nan], [1, 1]]))
    np.savez(place / "zipped.npz", z=np.zeros((4, 2)))
    (place / "nothing").mkdir()


@pytest.mark.usefixtures("_mistaken")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name: str, place: Path) -> None:
    words, message = MISTAKES[name]
    assert re.search(message, mistake(*words))
    assert not (place / "never").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu() -> None:
    assert mistake(*SMALL_RUN, "--device", "cuda").startswith(
        "--device cuda: PyTorch sees no GPU here. Use --device cpu"
    )
    assert mistake("evaluate", "--device", "cuda").startswith("--device cuda: PyTorch sees no GPU here")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an Apple GPU")
def test_no_apple_gpu() -> None:
    assert mistake(*SMALL_RUN, "--device", "mps").startswith("--device mps: PyTorch sees no Apple GPU here")


@pytest.mark.parametrize(
    "words",
    [
        ["frobnicate"],
        ["train", "--bach", 3],
        ["evaluate", "--split", "tset"],
        ["sample", "-n", 0],
        ["encode", "--samples", -1],
    ],
)
def test_misuse_is_code_2_and_shows_the_usage(words: list[Any]) -> None:
    result = call(*words)
    assert result.code == 2
    assert "Usage: aevb" in result.err


def test_changed_data_are_refused(run: Run, tmp_path: Path) -> None:
    path = shutil.copytree(run.path, tmp_path / "r")
    meta = json.loads((path / "meta.json").read_text())
    meta["splits"]["test"]["n"] = 7
    (path / "meta.json").write_text(json.dumps(meta))
    assert "have changed since it was trained: test had 7 rows and has 300" in mistake("evaluate", path)


# Other models, other data


def test_an_autoencoder_has_no_likelihood_but_all_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "ae"
    out = good("train", "digits", "--recipe", "autoencoder", "--out", path, "--samples", 500, *NETS)
    assert "reconstruction" in out
    assert "ELBO" not in out
    content = strict(good("evaluate", path, "--json"))
    assert set(content) == KEYS
    nothing = {k for k, v in content.items() if v is None}
    assert nothing >= {"elbo", "kl", "log_likelihood", "log_likelihood_se", "bits_per_dim"}
    assert content["is_likelihood"] is False
    assert -100 < content["reconstruction"] < 0
    good("sample", path, "-n", 4, "--out", tmp_path / "x.npy")
    x = np.load(tmp_path / "x.npy")
    assert x.shape == (4, 1, 8, 8)
    assert np.isfinite(x).all()
    for verb in ("reconstruct", "interpolate", "traverse"):
        good(verb, path)


def own(kind: str, folder: Path) -> tuple[Path, list[str]]:
    """Some data of one's own: their path, and settings that keep the network small."""
    rng = np.random.default_rng(0)
    convolutions = ["--set", "encoder.channels=[4]", "--set", "decoder.channels=[4]"]
    match kind:
        case "table":
            np.save(folder / "x.npy", rng.normal(size=(60, 5)))
            return folder / "x.npy", NETS
        case "labelled table":
            np.savez(folder / "x.npz", x=rng.normal(size=(90, 5)), y=np.arange(90) % 3)
            return folder / "x.npz", NETS
        case "bits":
            np.save(folder / "x.npy", rng.random((60, 7)) < 0.3)
            return folder / "x.npy", NETS
        case "colour images":
            np.save(folder / "x.npy", (rng.random((40, 6, 5, 3)) * 255).astype(np.uint8))
            return folder / "x.npy", convolutions
        case "few rows":
            np.save(folder / "x.npy", rng.normal(size=(10, 3)))
            return folder / "x.npy", NETS
        case _:
            for i in range(30):
                path = folder / "pictures" / ("cats" if i % 2 else "dogs") / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((rng.random((8, 9)) * 255).astype(np.uint8)).save(path)
            return folder / "pictures", convolutions


@pytest.mark.parametrize(
    ("kind", "shape", "recipe"),
    [
        ("table", [5], "gaussian"),
        ("labelled table", [5], "gaussian"),
        ("bits", [7], "bernoulli"),
        ("colour images", [3, 6, 5], "conv"),
        ("few rows", [3], "gaussian"),
        ("image folder", [1, 8, 9], "conv"),
    ],
)
def test_ones_own_data(
    kind: str, shape: list[int], recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, settings = own(kind, tmp_path)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "r"
    good("train", source.name, "--out", path, "--samples", 200, "--latent", 2, *settings)
    monkeypatch.chdir("/")  # a run knows where its data are
    run = Run.open(path)
    assert run.meta["shape"] == shape
    assert run.recipe.name == recipe
    content = strict(good("evaluate", path, "--json"))
    assert np.isfinite([content["elbo"], content["log_likelihood"]]).all()
    assert (content["bits_per_dim"] is not None) == (recipe != "gaussian")
    assert (content["latent"] is not None) == (kind in ("labelled table", "image folder"))
    good("encode", path, "--out", tmp_path / "codes.npy")
    good("decode", tmp_path / "codes.npy", "--run", path, "--out", tmp_path / "x.npy.npy")
    assert list(np.load(tmp_path / "x.npy.npy").shape[1:]) == shape
    good("sample", path, "-n", 3)


# Weight


def fresh(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    ).stdout


def test_help_and_lists_do_not_import_torch() -> None:
    code = """
import sys
from contextlib import suppress
from aevb.apps.cli import main
for words in (["--help"], ["train", "--help"], ["--version"]):
    sys.argv = ["aevb", *words]
    with suppress(SystemExit):
        main()
print("heavy:", sorted({"torch", "numpy", "sklearn", "matplotlib", "scipy"} & set(sys.modules)))
"""
    out = fresh(code)
    assert "heavy: []" in out
    for verb in (
        "train",
        "evaluate",
        "sample",
        "reconstruct",
        "encode",
        "decode",
        "interpolate",
        "traverse",
        "plot",
        "runs",
    ):
        assert re.search(rf"^│ {verb} ", out, re.M), verb


def test_the_title_says_by_which_bound_the_weights_were_kept(tmp_path: Path) -> None:
    """Of the validation split's ELBO, or of its bound of several importance weights."""
    from aevb.apps.actions import kept_by

    for k, expected in ((0, "best validation ELBO"), (50, "best validation bound of 50 importance weights")):
        recipe = Recipe.load("digits").override([f"validation.importance_samples={k}"])
        assert kept_by(Run(tmp_path, recipe, {})) == expected


@pytest.mark.parametrize(
    ("figures", "result", "verbs"),
    [
        (["interpolations", "samples", "traversals"], {"log_likelihood": Estimate(-1.0)}, 4),
        (["samples"], {"log_likelihood": UNDEFINED}, 1),  # codes: no line between two of them, no importance weights
    ],
)
def test_only_verbs_that_the_model_can_take_are_suggested(
    figures: list[str], result: dict[str, Estimate], verbs: int
) -> None:
    said = actions.tries(figures, result)
    assert len(said) == verbs
    assert said[0] == "aevb sample"
