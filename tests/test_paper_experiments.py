"""The experiments on estimators A and B and on full variational Bayes, small: what they write is what is there."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from aevb.data.randomness import Order, derive, seeded
from aevb.evaluation.bound import elbo
from aevb.models.vae import VAE
from aevb.objectives.bounds import ELBO
from aevb.objectives.full_bayes import FullBayes
from aevb.reproduce import estimators, full_bayes
from aevb.reproduce.curves import Curve, follow, trained

SIZES = {"latent": 4, "encoder__hidden": [50], "decoder__hidden": [50]}
BUDGET = 40_000
official = full_bayes.curve


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


# Full variational Bayes


def quick(method: str, seed: int) -> Curve:
    """Fifty digits of 8 · 8 pixels, by Adam, which overfits in a second."""
    fast = {"training__optimizer": {"type": "adam", "lr": 5e-3}, "encoder__init": None, "decoder__init": None}
    wide = {"objective__deviation": 0.05} if method == "full" else {}
    curve = official(method, seed)
    return replace(
        curve, source="digits", rows=50, steps=(), marks=(2.0,), changes={**curve.changes, **SIZES, **fast, **wide}
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Curves by maximum likelihood and by full Bayes."""
    folder = tmp_path_factory.mktemp("curves")
    with pytest.MonkeyPatch.context() as patch:
        cheap(patch)
        for method in ("ml", "full"):
            follow(quick(method, 0), folder, BUDGET)
    return folder


def cheap(patch: pytest.MonkeyPatch) -> None:
    for name, value in {"POINTS": 30, "DRAWS": 3, "EACH": 2, "curve": quick}.items():
        patch.setattr(full_bayes, name, value)


def bounds(method: str, place: Path) -> tuple[Tensor, Tensor]:
    """Per data point, of train and of test rows."""
    curve = quick(method, 0)
    model = trained(curve, place).model
    assert isinstance(model, VAE)
    return elbo(model, curve.train()).elbo, elbo(model, curve.data().test).elbo


def test_the_methods_differ_in_nothing_but_the_weights() -> None:
    """One network, one optimiser, one set of step sizes; full Bayes alone has a posterior, MAP alone a decay."""
    curves = {method: replace(full_bayes.curve(method, 1), source="digits", rows=50) for method in full_bayes.NAMES}
    learners = {method: curve.learner(0.02, 1000) for method, curve in curves.items()}
    assert [learner.training_settings.weight_prior for learner in learners.values()] == [False, True, False]
    assert [isinstance(learner.objective, FullBayes) for learner in learners.values()] == [False, False, True]
    assert len({repr(replace(learner.training_settings, weight_prior=False)) for learner in learners.values()}) == 1
    first = [next(learner.model.parameters()) for learner in learners.values()]
    assert all(torch.equal(p, first[0]) for p in first)
    assert len({full_bayes.curve(method, 1).steps for method in learners}) == 1
    assert len({curve.name for curve in full_bayes.CURVES}) == 9


def test_full_bayes_overfits_less_than_maximum_likelihood(place: Path) -> None:
    """The gap between train and test bounds, by more than four of the difference's standard errors over data points."""
    (train, test), (of_train, of_test) = bounds("full", place), bounds("ml", place)
    differences = train - of_train, test - of_test
    error = math.sqrt(sum(float(d.var()) / len(d) for d in differences))
    assert float(differences[0].mean() - differences[1].mean()) < -4 * error
    assert error < 1.0


def test_full_bayes_is_presented(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cheap(monkeypatch)
    findings = full_bayes.FULL_BAYES.present(place, tmp_path / "out")
    rows = {row["method"]: row for row in table(tmp_path / "out" / "full-bayes.csv")}
    assert set(rows) == {"maximum likelihood", "full variational Bayes"}  # MAP is not trained
    for method, name in (("ml", "maximum likelihood"), ("full", "full variational Bayes")):
        train, test = bounds(method, place)
        assert float(rows[name]["test"]) == pytest.approx(float(test.mean()), rel=1e-6)
        assert float(rows[name]["test_se"]) == pytest.approx(float(test.std()) / len(test) ** 0.5, rel=1e-6)
        assert float(rows[name]["gap"]) == pytest.approx(float(train.mean() - test.mean()), rel=1e-5)
        assert any(sentence.startswith(name) and f"{float(test.mean()):.2f}" in sentence for sentence in findings)
    assert rows["full variational Bayes"]["predictive"]
    assert not rows["maximum likelihood"]["predictive"]
    assert len(table(tmp_path / "out" / "points.csv")) == 2 * 3  # at 0, 20,000 and 40,000 samples
    assert all((tmp_path / "out" / f"full-bayes.{kind}").stat().st_size < 300_000 for kind in ("png", "svg"))


def test_the_test_bound_at_a_train_bound_lies_between_two_marks() -> None:
    rows = [{"train": -10.0, "test": -10.0}, {"train": -6.0, "test": -8.0}, {"train": -4.0, "test": -9.0}]
    for train, test in ((-10.0, -10.0), (-8.0, -9.0), (-6.0, -8.0), (-4.5, -8.75), (-4.0, -9.0)):
        assert full_bayes.bound_at(train, rows) == pytest.approx(test)


def test_nothing_trained_is_nothing_presented(tmp_path: Path) -> None:
    assert full_bayes.FULL_BAYES.present(tmp_path, tmp_path / "out") == []
    assert estimators.ESTIMATORS.present(tmp_path, tmp_path / "out") == []


# Estimators A and B


def test_the_estimators_are_presented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curve = Curve("small", "aevb", "digits", lambda learner, train, test: {}, SIZES, steps=(0.02,))
    for name, value in {
        "CURVE": curve,
        "EARLY": 2000,
        "BATCHES": 3,
        "BATCH": 20,
        "DRAWS": 5,
        "SAMPLES": (1, 2),
    }.items():
        monkeypatch.setattr(estimators, name, value)
    follow(curve, tmp_path, 10_000)
    findings = estimators.ESTIMATORS.present(tmp_path, tmp_path / "out")
    rows = table(tmp_path / "out" / "estimators.csv")
    assert [(float(row["samples"]), float(row["L"])) for row in rows] == [
        (s, k) for s in (0, 2000, 10_000) for k in (1, 2)
    ]
    by_hand = np.mean([variance_by_hand(curve, batch) for batch in range(3)])
    assert float(rows[0]["encoder_A"]) == pytest.approx(by_hand, rel=1e-4)
    for row in rows:
        assert float(row["decoder_ratio"]) == pytest.approx(1, abs=1e-5)
        assert float(row["encoder_ratio"]) == pytest.approx(float(row["encoder_A"]) / float(row["encoder_B"]))
    assert f"{float(rows[0]['encoder_ratio']):.4g} ±" in findings[0]
    assert len(findings) == 4
    assert all((tmp_path / "out" / f"estimators.{kind}").stat().st_size < 300_000 for kind in ("png", "svg"))


def variance_by_hand(curve: Curve, batch: int) -> float:
    """Of estimator A's gradient in the untrained encoder, from all draws at once."""
    model = curve.learner(None, 100).model.eval()
    assert isinstance(model, VAE)
    x = curve.train()[Order(len(curve.train()), 20, seed=0)[batch]]
    gradients = []
    with seeded(derive(0, "noise", batch)):
        for _ in range(5):
            loss = ELBO("A")(model, x, 0)[0]
            gradients.append(
                torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.encoder.parameters()))])
            )
    return float(torch.stack(gradients).double().var(0).sum())


def test_the_error_of_a_ratio_is_its_spread() -> None:
    """Against the spread of 2,000 ratios of means of 50 pairs."""
    g = np.random.default_rng(0)
    b = 2 + g.random((2000, 50))
    a = 3 * b + g.normal(size=b.shape)
    ratios = a.mean(1) / b.mean(1)
    errors = [estimators.ratio("x", *pair)["x_ratio_se"] for pair in zip(a, b, strict=True)]
    assert np.mean(errors) == pytest.approx(ratios.std(), rel=0.06)
    assert estimators.ratio("x", b[0], b[0]) == {"x_ratio": 1.0, "x_ratio_se": 0.0}
