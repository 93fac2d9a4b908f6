"""Synthetic rows held against real ones: rows of one distribution, of others, copies; each with its known answer."""

from __future__ import annotations

import json
import math
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ks_2samp, spearmanr
from sklearn.metrics import roc_auc_score

from aevb.errors import DataError, ShapeError
from aevb.evaluation import classifier
from aevb.evaluation.classifier import area, separation
from aevb.evaluation.estimate import flat
from aevb.evaluation.two_sample import (
    PRIVACY,
    SampleCheck,
    contingency_similarity,
    correlation_similarity,
    shape_similarity,
    two_sample,
)
from aevb.figures.synthetic import synthetic_rows

Rows = NDArray[np.float64]
KINDS = ("real", "real", "categorical", "count")


def rows(n: int, seed: int, shift: float = 0.0, rho: float = 0.9, holes: float = 0.1) -> Rows:
    """Two correlated numbers, the second with holes; a category of four levels; a count that goes with the first."""
    g = np.random.default_rng(seed)
    a, e = g.normal(size=(2, n))
    b = rho * a + math.sqrt(1 - rho**2) * e
    x = np.stack([a + shift, b, g.integers(0, 4, n), g.poisson(np.exp(a / 2))], 1).astype(np.float64)
    x[g.random(n) < holes, 1] = np.nan
    return x


REAL, TRAIN = rows(300, 0), rows(300, 1)


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of seconds, not of minutes."""
    monkeypatch.setattr(classifier, "TREES", 25)


@cache
def found(name: str) -> SampleCheck:
    made = {
        "equal": lambda: rows(300, 2),
        "shifted": lambda: rows(300, 2, shift=20),
        "independent": lambda: rows(300, 2, rho=0),
        "copies": lambda: np.concatenate([TRAIN[:100], rows(200, 2)]),
        "whole": lambda: rows(300, 2, holes=0),
    }[name]()
    return two_sample(REAL, made, KINDS, train=TRAIN)


# Known answers


def test_rows_of_one_distribution_score_one_within_the_errors() -> None:
    r = found("equal")
    assert abs(r.auc - 0.5) < 3 * r.auc.se
    assert r.c2st > 1 - 3 * r.c2st.se
    assert 1 - r.shape < 3 * r.shape.se
    assert 1 - r.pairs < 5 * r.pairs.se  # tables of forty cells: their noise adds up
    assert abs(r.nearer - 0.5) < 3 * r.nearer.se
    assert not r.memorised
    assert r.copies == r.copies_held == 0


def test_a_shifted_column_is_told_and_the_others_are_alike() -> None:
    r = found("shifted")
    assert r.c2st < 0.01
    assert r.shapes[0] < 0.01
    assert all(1 - s < 4 * s.se for s in r.shapes[1:])  # the largest of many differences
    assert r.pair_matrix[0, 1] == pytest.approx(1, abs=0.05)  # ranks do not see a shift


def test_a_lost_dependence_is_told_by_pairs_and_classifier_alone() -> None:
    r = found("independent")
    assert all(1 - s < 4 * s.se for s in r.shapes)
    assert r.c2st < 0.8
    assert r.pair_matrix[0, 1] == pytest.approx(1 - 0.9 / 2, abs=0.08)
    assert r.pair_matrix[2, 3] == pytest.approx(found("equal").pair_matrix[2, 3], abs=0.05)


def test_copies_of_train_rows_are_memorisation() -> None:
    r = found("copies")
    assert r.memorised
    assert r.copies == pytest.approx(1 / 3)
    assert r.nearer == pytest.approx(100 / 300 + 0.5 * 200 / 300, abs=3 * r.nearer.se)
    assert r.sentences[0].startswith(f"Memorisation: {100 * r.nearer:.1f} ±")
    assert r.c2st > 0.9  # copies look real


def test_rows_without_holes_are_lent_those_of_real_rows() -> None:
    r = found("whole")
    assert r.lent
    assert any("no holes" in s for s in r.sentences)
    assert 1 - r.shapes[1] < 3 * r.shapes[1].se
    assert r.c2st > 1 - 3 * r.c2st.se
    assert not found("equal").lent


def test_holes_of_another_share_are_told() -> None:
    r = two_sample(REAL, rows(300, 2, holes=0.6), KINDS)
    assert r.shapes[1] == pytest.approx(0.5, abs=0.06)
    assert r.c2st < 0.7


def test_train_rows_say_what_real_rows_reach() -> None:
    r = found("independent")
    assert r.train is not None
    assert r.train.c2st > 0.9 > r.c2st
    assert two_sample(REAL, rows(300, 2), KINDS).train is None


# Single measures, against other code and closed forms


def test_the_area_is_that_of_scikit_learn_and_its_error_the_spread_of_trials() -> None:
    g, areas = np.random.default_rng(0), []
    for _ in range(300):
        low, high = g.normal(size=80), g.normal(size=120) + 1
        areas.append(area(low, high))
    expected = roc_auc_score([0] * 80 + [1] * 120, np.concatenate([low, high]))
    assert areas[-1] == pytest.approx(expected, abs=1e-12)
    assert np.mean([a.se for a in areas]) == pytest.approx(np.std(areas), rel=0.12)
    assert area(np.zeros(5), np.zeros(7)) == 0.5


def test_the_shape_of_numbers_is_the_distance_of_kolmogorov_and_smirnov() -> None:
    g = np.random.default_rng(0)
    x, s = g.normal(size=300), g.normal(size=200) * 2
    assert shape_similarity(x, s, ordered=True) == pytest.approx(1 - ks_2samp(x, s).statistic)


def test_the_shape_of_categories_and_of_pairs_is_the_total_variation() -> None:
    x, s = np.repeat([0.0, 1.0, np.nan], [60, 30, 10]), np.repeat([0.0, 2.0, np.nan], [60, 20, 20])
    assert shape_similarity(x, s, ordered=False) == pytest.approx(1 - (0.3 + 0.2 + 0.1) / 2)
    pairs = np.stack([x, x], 1), np.stack([x, 1 - x], 1)
    assert contingency_similarity(*pairs) == pytest.approx(0.1)  # the holes alone are in both


def test_the_error_of_a_shape_is_the_spread_of_trials() -> None:
    g = np.random.default_rng(0)
    found = [shape_similarity(g.normal(size=200), g.normal(size=300) + 1, ordered=True) for _ in range(200)]
    assert np.mean([f.se for f in found]) == pytest.approx(np.std(found), rel=0.25)


def test_correlations_are_spearmans_of_rows_without_holes() -> None:
    a, b = REAL[:, :2], rows(300, 3, rho=0.2)[:, :2]
    rho = [spearmanr(x[~np.isnan(x).any(1)]).statistic for x in (a, b)]
    assert correlation_similarity(a, b) == pytest.approx(1 - abs(rho[0] - rho[1]) / 2)
    assert not correlation_similarity(np.ones((9, 2)), b).known


def test_the_error_of_nearness_counts_rows_with_the_same_nearest_row() -> None:
    """All synthetic rows at one point: one coin was tossed, not three hundred."""
    x, train = rows(300, 0, holes=0), rows(300, 1, holes=0)
    r = two_sample(x, np.repeat(train[:1] + 0.01, 300, 0), KINDS, train=train)
    assert r.nearer == 1.0
    assert r.nearer.se == pytest.approx(0.5)
    assert not r.memorised


def test_categories_of_a_thousand_levels_are_told_apart() -> None:
    g = np.random.default_rng(0)
    x, s = g.integers(0, 1000, (500, 1)).astype(float), g.integers(0, 1000, (500, 1)).astype(float)
    codes = np.array([True])
    assert abs(separation(x, s, codes).auc - 0.5) <= 3 * separation(x, s, codes).auc.se
    assert separation(np.minimum(x, 9), np.minimum(s, 9) + 300, codes).score < 0.03
    frequent = np.where(np.arange(500)[:, None] % 2, 7.0, s)
    assert separation(x, frequent, codes).score == pytest.approx(0.5, abs=0.1)


# What is said, and what is refused


def test_it_prints_all_and_says_that_it_is_no_guarantee_of_privacy() -> None:
    text = str(found("equal"))
    assert text.endswith(PRIVACY)
    assert "300 synthetic rows beside 300 held-out rows" in text
    assert f"{found('equal').c2st.text(3)}" in text
    numbers = flat(found("equal").numbers())
    assert json.loads(json.dumps(numbers))["c2st_se"] == found("equal").c2st.se
    assert set(numbers["shapes"]) == {f"x{j}{e}" for j in range(4) for e in ("", "_se")}


def test_what_is_not_modelled_is_not_compared() -> None:
    wide = [np.concatenate([x, np.full((len(x), 1), k)], 1) for k, x in enumerate((REAL, rows(300, 2)))]
    r = two_sample(*wide, (*KINDS, "id"), train=np.pad(TRAIN, ((0, 0), (0, 1))), names=[*"abcde"])
    assert r.columns == ("a", "b", "c", "d")
    assert r.c2st == found("equal").c2st
    with pytest.raises(DataError, match="no column to compare"):
        two_sample(*wide, ("id", "text", "constant", "id", "id"))


def test_wrong_rows_are_refused_in_a_sentence() -> None:
    with pytest.raises(ShapeError, match=r"4 kinds need as many columns; synthetic has the shape \(300, 3\)"):
        two_sample(REAL, REAL[:, :3], KINDS)
    with pytest.raises(DataError, match="at least 10 synthetic rows"):
        two_sample(REAL, REAL[:3], KINDS)
    with pytest.raises(DataError, match="real holds infinite values"):
        two_sample(np.full((20, 1), np.inf), np.zeros((20, 1)), ("real",))


def test_the_page_shows_the_scores_the_columns_and_the_pairs() -> None:
    r, levels = found("shifted"), {"x2": ["north", "east", "south", "west"]}
    figure = synthetic_rows(REAL, rows(300, 2, shift=20), KINDS, r, levels)
    words = " ".join(t.get_text() for t in [*figure.texts, *(t for a in figure.axes for t in a.texts)])
    assert r.c2st.text(3) in words
    assert PRIVACY in words
    assert "south" in words
    titles = [a.get_title(loc="left") for a in figure.axes]
    assert titles[:5] == [*(f"x{j}  {s:.2f}" for j, s in enumerate(r.shapes)), "pairs"]
    shares = [np.isnan(x[:, 1]).mean() for x in (REAL, rows(300, 2))]
    assert figure.axes[1].get_xlabel() == f"holes {shares[0]:.0%}, synthetic {shares[1]:.0%}"
