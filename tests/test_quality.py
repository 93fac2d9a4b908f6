"""Quality of samples, of codes and of the paths between them: closed forms and identities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from aevb.errors import DataError, ShapeError
from aevb.evaluation.latent import prior_gap, silhouette
from aevb.evaluation.reports.fidelity import (
    authenticity,
    fidelity,
    median_distance,
    mixture_density,
    mmd,
    principal_components,
)
from aevb.models.priors import StandardNormal
from aevb.models.vae import VAE
from aevb.use.interpolate import different_pairs, paths

D = 3


@pytest.fixture(autouse=True)
def fixed_noise() -> None:
    torch.manual_seed(0)


def se(x: Tensor) -> float:
    return float(x.std() / math.sqrt(len(x)))


# Precision, recall, density, coverage


def test_a_cloud_has_full_precision_recall_and_coverage_for_itself() -> None:
    x = torch.randn(200, D)
    f = fidelity(x, x.flip(0), k=3)
    assert f.precision.min() == f.recall.min() == f.coverage.min() == 1
    assert f.density.mean() == pytest.approx(1 + 1 / 3)  # each ball holds its own centre and k others


def test_clouds_far_apart_share_nothing() -> None:
    f = fidelity(torch.randn(50, D), torch.randn(40, D) + 100)
    assert [float(part.max()) for part in (f.precision, f.recall, f.density, f.coverage)] == [0, 0, 0, 0]
    assert [len(part) for part in (f.precision, f.recall, f.density, f.coverage)] == [40, 50, 40, 50]


def test_samples_of_half_of_the_data_are_precise_and_recall_half() -> None:
    halves = torch.randn(2000, D) + 20 * (torch.arange(2000) % 2).unsqueeze(1)
    f = fidelity(halves, torch.randn(1000, D))
    assert f.precision.mean() > 0.9
    assert f.recall[0::2].mean() > 0.9
    assert f.recall[1::2].max() == f.coverage[1::2].max() == 0
    reverse = fidelity(torch.randn(1000, D), halves)
    assert reverse.precision[0::2].mean() > 0.9
    assert reverse.precision[1::2].max() == 0
    assert reverse.recall.mean() > 0.9


def test_coverage_of_equal_distributions_is_known() -> None:
    """E coverage = 1 - C(2n-1-k, n) / C(2n-1, n) → 1 - 2⁻ᵏ for as many samples as data (arXiv 2002.09797, lemma 1)."""
    n, k = 1500, 3
    found = [fidelity(torch.randn(n, D), torch.randn(n, D), k) for _ in range(4)]
    expected = 1 - math.comb(2 * n - 1 - k, n) / math.comb(2 * n - 1, n)
    coverage = torch.cat([f.coverage for f in found])
    assert float(coverage.mean()) == pytest.approx(expected, abs=4 * se(coverage))
    assert expected == pytest.approx(1 - 2**-k, abs=1e-3)
    density = torch.cat([f.density for f in found])
    assert float(density.mean()) == pytest.approx(1, abs=5 * se(density))


def test_a_ball_in_one_dimension_by_hand() -> None:
    data = torch.tensor([[0.0], [1.0], [3.0]])  # k = 1: radii 1, 1, 2
    f = fidelity(data, torch.tensor([[-0.5], [1.5], [6.0], [4.0]]), k=1)  # radii 2, 2, 2, 2
    assert f.precision.tolist() == [1, 1, 0, 1]
    assert f.density.tolist() == [1, 2, 0, 1]
    assert f.coverage.tolist() == [1, 1, 1]
    assert f.recall.tolist() == [1, 1, 1]


# Maximum mean discrepancy


def test_mmd_of_equal_distributions_is_within_its_error_of_zero() -> None:
    scores = []
    for _ in range(60):
        value, error = mmd(torch.randn(200, D), torch.randn(200, D), bandwidth=1.5)
        scores.append(value / error)
    assert abs(np.mean(scores)) < 4 / math.sqrt(60)
    assert np.std(scores) == pytest.approx(1 / math.sqrt(2), abs=0.25)  # the jackknife's error is √2 too large here


@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_mmd_of_shifted_normals_has_its_closed_form_and_its_stated_error(shift: float) -> None:
    """MMD² = 2 (σ² / (σ² + 2))^(D/2) (1 - exp(-‖m‖² / 2(σ² + 2))) for N(0, I) and N(m, I)."""
    sigma, m = 1.5, torch.tensor([shift, 0.0, 0.0])
    wide = sigma**2 + 2
    exact = 2 * (sigma**2 / wide) ** (D / 2) * (1 - math.exp(-(shift**2) / (2 * wide)))
    found = [mmd(torch.randn(300, D), torch.randn(300, D) + m, sigma) for _ in range(60)]
    scores = [(value - exact) / error for value, error in found]
    assert abs(np.mean(scores)) < 4 / math.sqrt(60)
    assert np.std(scores) == pytest.approx(1, abs=0.3)
    assert np.mean([value / error for value, error in found]) > 2


def test_mmd_is_the_mean_over_pairs_and_its_error_the_jackknife() -> None:
    x, y = torch.randn(6, D).double(), torch.randn(6, D).double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (-torch.cdist(a, b).square() / (2 * 0.7**2)).exp()

    def direct(rows: list[int]) -> float:
        a, b = x[rows], y[rows]
        h = kernel(a, a) + kernel(b, b) - kernel(a, b) - kernel(b, a)
        return float((h.sum() - h.diagonal().sum()) / (len(rows) * (len(rows) - 1)))

    without = np.array([direct([j for j in range(6) if j != i]) for i in range(6)])
    expected = direct(list(range(6))), math.sqrt(5 / 6 * np.square(without - without.mean()).sum())
    assert mmd(x, y, 0.7) == pytest.approx(expected)


def test_the_median_distance_in_one_dimension_by_hand() -> None:
    assert median_distance(torch.tensor([[0.0], [1.0], [5.0]])) == 4
    assert median_distance(torch.tensor([[0.0], [1.0], [5.0]]), most=2) == 1


def test_clouds_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="the same F"):
        fidelity(torch.randn(9, 2), torch.randn(9, 3))
    with pytest.raises(ShapeError, match=r"got 8 and 9"):
        mmd(torch.randn(8, 2), torch.randn(9, 2), 1.0)
    with pytest.raises(DataError, match="At least 6 points"):
        fidelity(torch.randn(5, 2), torch.randn(9, 2))


# Features and their density


def test_all_principal_components_keep_distances_and_few_keep_the_largest_part() -> None:
    x = torch.randn(300, 2, 3) * torch.tensor([1.0, 5.0, 10.0])
    whole, two = principal_components(x, 6), principal_components(x, 2)
    torch.testing.assert_close(
        torch.cdist(whole(x), whole(x)), torch.cdist(*[x.flatten(1).double()] * 2), atol=1e-5, rtol=1e-5
    )
    assert two(x).shape == (300, 2)
    torch.testing.assert_close(two(x).abs(), whole(x)[:, :2].abs(), atol=1e-6, rtol=1e-6)


def test_a_mixture_of_one_normal_is_the_normal_with_the_moments_of_the_points() -> None:
    x = torch.randn(500, D).double() @ torch.randn(D, D).double()
    normal = MultivariateNormal(x.mean(0), x.T.cov(correction=0) + 1e-6 * torch.eye(D).double())
    torch.testing.assert_close(mixture_density(x, components=1)(x), normal.log_prob(x), atol=1e-6, rtol=1e-6)


# Codes


def test_the_gap_to_the_prior_is_the_closed_form_kl_of_the_fitted_normal() -> None:
    z = torch.randn(400, D).double() @ torch.randn(D, D).double() + 1
    fitted = MultivariateNormal(z.mean(0), z.T.cov(correction=0))
    expected = kl_divergence(fitted, MultivariateNormal(torch.zeros(D).double(), torch.eye(D).double()))
    torch.testing.assert_close(prior_gap(z).mean(), expected)


def test_the_error_of_the_gap_is_its_spread_over_repetitions() -> None:
    def draw() -> Tensor:
        return prior_gap(1.5 * torch.randn(1000, 2) + 0.5)

    gaps = [draw() for _ in range(100)]
    spread = torch.stack([g.mean() for g in gaps]).std()
    assert float(spread) == pytest.approx(np.mean([se(g) for g in gaps]), rel=0.3)


def test_codes_in_a_plane_have_no_gap() -> None:
    with pytest.raises(DataError, match="do not fill their 3 dimensions"):
        prior_gap(torch.randn(3, 1).repeat(1, D))


def test_silhouette_is_one_for_points_and_zero_for_labels_that_say_nothing() -> None:
    labels = torch.arange(200) % 2
    apart = labels.unsqueeze(1) * 100 + 0.01 * torch.randn(200, 2)
    assert silhouette(apart, labels).mean() > 0.999
    mixed = silhouette(torch.randn(200, 2), labels)
    assert float(mixed.mean()) == pytest.approx(0, abs=0.05)
    torch.testing.assert_close(silhouette(1000 * apart, labels), silhouette(apart, labels), atol=1e-4, rtol=0)


# Paths


class Linear(nn.Module):
    """N(W c, 1) with W of shape (4, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 2))

    def forward(self, c: Tensor) -> Independent:
        return Independent(Normal(c @ self.weight.T, 1.0), 1)


def test_a_linear_decoder_maps_lines_to_lines() -> None:
    decoder = Linear()
    model = VAE(StandardNormal(2), nn.Identity(), decoder)
    a, b = torch.randn(700, 2), torch.randn(700, 2)  # more than one batch
    found = paths(model, a, b, steps=5)
    ends = [z @ decoder.weight.detach().T for z in (a, b)]
    assert found.shape == (700, 5, 4)
    for i, t in enumerate((0, 0.25, 0.5, 0.75, 1)):
        torch.testing.assert_close(found[:, i], torch.lerp(*ends, t))


def test_pairs_differ_in_class_and_follow_the_seed() -> None:
    labels = torch.tensor([0] * 50 + [1])
    a, b = different_pairs(labels, 20)
    assert a.shape == b.shape == (20,)
    assert (labels[a] != labels[b]).all()
    assert torch.equal(a, different_pairs(labels, 20)[0])
    assert not torch.equal(a, different_pairs(labels, 20, seed=1)[0])
    with pytest.raises(DataError, match="at least two classes"):
        different_pairs(torch.zeros(5), 3)


def test_authentic_is_what_is_farther_from_a_train_point_than_its_neighbour() -> None:
    torch.manual_seed(0)
    train, fresh = torch.randn(500, 20), torch.randn(300, 20)
    authentic, rows = authenticity(train, fresh)
    among = torch.cdist(train, train).fill_diagonal_(math.inf)
    near, of = torch.cdist(fresh, train).min(1)
    assert torch.equal(rows, of)
    assert torch.equal(authentic, (near > among.min(1).values[of]).double())
    copies, of = authenticity(train, train[:300] + 1e-6)
    assert not copies.any()
    assert torch.equal(of, torch.arange(300))
    assert authenticity(train, fresh + 100)[0].all()
