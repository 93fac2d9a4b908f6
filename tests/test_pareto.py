"""The Pareto diagnosis of importance weights: known tail indices, what it must not depend on, what it says in words."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import DTYPE, oracle
from scipy.stats import genpareto

from aevb.evidence.annealed import Bracket
from aevb.evidence.importance import log_marginal
from aevb.evidence.marginal import estimated
from aevb.evidence.pareto import pareto_k, tail_size


def pareto_weights(k: float, n: int, points: int, seed: int = 0) -> torch.Tensor:
    """log w of w = U^(-k), whose tail is exactly P(w > t) = t^(-1/k); (n, points)."""
    u = torch.rand(n, points, dtype=DTYPE, generator=torch.Generator().manual_seed(seed))
    return -k * u.log()


def test_the_tail_has_the_size_of_the_paper() -> None:
    assert [tail_size(n) for n in (10, 100, 225, 1000, 10_000)] == [2, 20, 45, 95, 300]


@pytest.mark.parametrize("k", [0.2, 0.5, 0.7, 1.0, 1.5])
def test_a_known_tail_index_is_found(k: float) -> None:
    found = estimated([pareto_weights(k, 10_000, 100)], 10_000).pareto_k
    expected = (300 * k + 10 * 0.5) / 310
    se = float(found.std()) / 10
    assert se < 0.02
    assert abs(float(found.mean()) - expected) < 4 * se + 0.01  # the estimator's own bias falls as 1/M
    assert float(found.std()) == pytest.approx((1 + k) / math.sqrt(300), rel=0.3)  # of maximum likelihood


def test_weights_that_are_bounded_have_a_tail_below_zero() -> None:
    u = torch.rand(4000, 50, dtype=DTYPE, generator=torch.Generator().manual_seed(1))
    found = estimated([u.log()], 4000).pareto_k  # w uniform: k = -1
    assert float(found.max()) < -0.5


def test_the_fit_is_near_maximum_likelihood() -> None:
    excess = genpareto.rvs(0.6, size=3000, random_state=np.random.RandomState(0))
    log_top = torch.from_numpy(np.append(excess + 1, 1.0)).log()[:, None]
    likely, _, _ = genpareto.fit(excess, floc=0)
    shrunk = (3000 * likely + 5) / 3010
    assert float(pareto_k(log_top)) == pytest.approx(shrunk, abs=0.01)


def test_neither_chunks_nor_order_nor_scale_matter() -> None:
    log_w = pareto_weights(0.8, 1000, 7)
    whole = estimated([log_w], 1000).pareto_k
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(estimated(log_w.split(13), 1000).pareto_k, whole)
    torch.testing.assert_close(estimated([log_w[order]], 1000).pareto_k, whole)
    torch.testing.assert_close(estimated([log_w - 5000.0], 1000).pareto_k, whole)


def test_a_normal_proposal_that_is_too_narrow_is_found_out() -> None:
    """With q of variance v·s, w has the tail index k = 1 - s for s < 1, in the direction of one latent."""
    o = oracle(d=1)
    x = o.data(60)
    narrow, right = (log_marginal(o.vae(widen=s), x, 5000) for s in (0.15, 1.3))
    assert float(narrow.pareto_k.median()) > 0.6
    assert narrow.heavy > 0.2
    assert "Pareto k > 0.7" in str(narrow.warning)
    assert f"{narrow.heavy:.0%} of the data points" in str(narrow.warning)
    assert right.heavy < 0.05
    assert right.warning is None


def test_equal_weights_have_no_tail() -> None:
    o = oracle()
    found = log_marginal(o.vae(), o.data(5), 1000)
    assert bool((found.pareto_k == -math.inf).all())
    assert found.heavy == 0
    assert found.warning is None


def test_too_few_weights_say_nothing() -> None:
    found = estimated([torch.linspace(0, 1, 20, dtype=DTYPE).unsqueeze(1)], 20)
    assert bool(found.pareto_k.isnan().all())
    assert math.isnan(found.heavy)
    assert found.warning is None


@pytest.mark.parametrize("k", [8, 100])
def test_an_estimate_that_rests_on_one_weight_has_not_converged(k: int) -> None:
    log_w = torch.zeros(k, 3, dtype=DTYPE)
    log_w[0, 0] = 1e5
    found = estimated([log_w], k)
    assert float(found.ess[0]) == 1
    assert found.warning is not None
    assert found.warning.startswith("The estimate has not converged: log p(x) of 33% of the data points rests on one")


def test_one_weight_that_outweighs_all_is_a_heavy_tail() -> None:
    log_w = torch.zeros(1000, 1, dtype=DTYPE)
    log_w[17] = 900.0
    assert not float(estimated([log_w], 1000).pareto_k) < 0.7
    log_w[:, 0] = torch.linspace(-3000, 0, 1000, dtype=DTYPE)  # all but one vanish beside the largest
    assert not float(estimated([log_w], 1000).pareto_k) < 0.7


def by_the_paper(log_w: np.ndarray) -> float:
    """k of M + 1 log weights by the formulas of Zhang & Stephens and the prior of ten weights at ½, number by
    number."""
    w = np.sort(np.exp(log_w - log_w.max()))
    x, m = w[1:] - w[0], len(w) - 1
    size, quartile = 20 + int(math.sqrt(m)), x[int(m / 4 + 0.5) - 1]

    def k_of(b: float) -> float:
        return sum(math.log(1 - b * value) for value in x) / m

    grid = [1 / x[-1] + (1 - math.sqrt(size / (j - 0.5))) / (3 * quartile) for j in range(1, size + 1)]
    profile = [m * (math.log(-b / k_of(b)) - k_of(b) - 1) for b in grid]
    best = max(profile)
    likelihoods = [math.exp(value - best) for value in profile]
    b = sum(a * likelihood for a, likelihood in zip(grid, likelihoods, strict=True)) / sum(likelihoods)
    return (m * k_of(b) + 10 * 0.5) / (m + 10)


@pytest.mark.parametrize("m", [5, 6, 7, 8, 20, 95])
def test_the_fit_is_the_papers_number_by_number(m: int) -> None:
    log_w = np.random.RandomState(m).standard_normal(m + 1) * 1.5
    found = float(pareto_k(torch.from_numpy(log_w)[:, None]))
    assert found == pytest.approx(by_the_paper(log_w), rel=1e-12)


def test_four_weights_are_too_few_and_five_are_enough() -> None:
    log_w = torch.linspace(0, 3, 6, dtype=DTYPE)[:, None]
    assert math.isnan(float(pareto_k(log_w[:5])))
    assert math.isfinite(float(pareto_k(log_w)))


def test_nearly_equal_weights_are_trusted_whatever_their_tail() -> None:
    """A k of rounding-like differences says nothing: with ESS 96 of 100 the error is 0.02 nats."""
    u = (torch.arange(100, dtype=DTYPE) + 0.5) / 100
    found = estimated([(1 + 0.01 / (1 - u)).log().unsqueeze(1)], 100)
    assert float(found.pareto_k) > 0.7
    assert float(found.ess) > 95
    assert found.heavy == 0
    assert found.warning is None


@pytest.mark.parametrize(
    ("annealed", "words"), [(False, "one sample of 8 .*log_marginal_ais"), (True, "one chain of 8 .*more temperatures")]
)
def test_one_weight_is_named_as_what_it_is_with_its_remedy(annealed: bool, words: str) -> None:
    log_w = torch.zeros(8, 2, dtype=DTYPE)
    log_w[0] = 1e5
    found = replace(estimated([log_w], 8), annealed=annealed)
    assert float(found.se.max()) <= 1
    assert re.search(words, str(found.warning)), found.warning
    assert "cannot exceed 1 nat" in str(found.warning)


def test_a_wide_bracket_says_how_wide() -> None:
    sides = [estimated([torch.full((4, 3), level, dtype=DTYPE)], 4) for level in (-90.0, -88.0, -89.5)]
    x = torch.zeros(3, 1)
    assert "2.0 nats apart on average" in str(Bracket(sides[0], sides[1], x).warning)
    assert Bracket(sides[0], sides[2], x).warning is None
