"""Tables of many columns: grouped computations give what single columns give, numbers and gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from tabular import MIXED
from torch import Tensor, nn

from aevb import MLP, Categories, NegativeBinomial
from aevb.apps.estimators import fitted
from aevb.data.columns import Column, Schema
from aevb.estimators import VAEEmbedding, VAEImputer
from aevb.probability.families import bounded, mean_from_log, scale_from_log
from aevb.runs.columns import parts_of

LEVELS = [3, 3, 5, 2, 5, 5, 40]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def with_gradient(log_p: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    weights = torch.linspace(-1, 2, log_p.numel(), dtype=log_p.dtype).view_as(log_p)
    (slope,) = torch.autograd.grad((weights * log_p).sum(), phi)
    return log_p.detach(), slope


@pytest.mark.parametrize("lead", [(), (4,)], ids=["one sample", "K samples"])
def test_levels_of_all_columns_are_those_of_each_column(lead: tuple[int, ...]) -> None:
    phi = numbers(*lead, 6, sum(LEVELS))
    x = torch.stack([torch.arange(6) % n for n in LEVELS], -1).double()
    p = Categories(len(LEVELS), LEVELS)(phi)
    each = [c.log_softmax(-1).expand(*lead, 6, -1) for c in phi.split(LEVELS, -1)]
    singly = [c.gather(-1, x[:, [d]].long().expand(*lead, 6, 1)).squeeze(-1) for d, c in enumerate(each)]
    ours, theirs = with_gradient(p.base_dist.log_prob(x), phi), with_gradient(torch.stack(singly, -1), phi)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(p.base_dist.log_prob(x), p.base_dist.base.log_prob(x.long()), rtol=0, atol=1e-12)


def test_what_is_no_level_of_a_column_has_no_probability() -> None:
    p = Categories(2, [2, 3])(torch.zeros(1, 5)).base_dist
    assert p.log_prob(torch.tensor([[2.0, -1.0]])).tolist() == [[-torch.inf, -torch.inf]]
    assert p.log_prob(torch.tensor([[1.0, 2.0]])).exp().tolist() == [[pytest.approx(1 / 2), pytest.approx(1 / 3)]]


@pytest.mark.parametrize("lead", [(), (3,)], ids=["one sample", "K samples"])
def test_sparse_counts_have_the_density_of_full_ones(lead: tuple[int, ...]) -> None:
    x = torch.zeros(5, 8, dtype=torch.float64)
    x[0, :4] = torch.tensor([1.0, 2.0, 70.0, 4000.0])
    phi = numbers(*lead, 5, 16)
    sparse = with_gradient(NegativeBinomial(8)(phi).base_dist.log_prob(x), phi)
    mean, r = mean_from_log(phi[..., :8]), scale_from_log(phi[..., 8:])
    log_ratio = (mean.log() - (r + mean).log(), r.log() - (r + mean).log())
    full = torch.lgamma(r + x) - torch.lgamma(r) - torch.lgamma(1 + x) + x * log_ratio[0] + r * log_ratio[1]
    torch.testing.assert_close(sparse, with_gradient(full, phi), rtol=1e-9, atol=1e-9)
    mu, r = mean.detach(), r.detach()
    expected = torch.from_numpy(stats.nbinom.logpmf(x, r.numpy(), (r / (r + mu)).numpy()))
    torch.testing.assert_close(sparse[0], expected.expand_as(sparse[0]), rtol=1e-9, atol=1e-9)


def test_many_columns_of_levels_stand_by_how_many_they_have() -> None:
    level = Column("c", "categorical", likelihood="categorical")
    sizes = [2 + (7 * i) % 11 for i in range(40)]
    many = Schema(tuple(replace(level, name=f"c{i}", levels=tuple(range(n))) for i, n in enumerate(sizes)))
    (part,) = parts_of(many)
    assert part["classes"] == sorted(n + 1 for n in sizes)
    assert [sizes[i] + 1 for i in part["columns"]] == part["classes"]
    assert all(part["columns"] == sorted(part["columns"]) for part in parts_of(MIXED))


def test_many_rows_are_encoded_in_single_precision_with_the_same_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 3))
    model = VAEEmbedding(2, samples=500, random_state=0).fit(rows)
    exact = model.transform(rows)
    monkeypatch.setattr(fitted, "EXACT", 10)
    assert model.fitted_.fitting(11) is model.model_
    np.testing.assert_allclose(model.transform(rows), exact, rtol=0, atol=1e-5)


def test_many_holes_are_filled_in_single_precision_with_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 3))
    rows[::3, 1] = np.nan
    model = VAEImputer(2, samples=500, importance_samples=20, random_state=0).fit(rows)
    exact = model.transform(rows)
    monkeypatch.setattr(fitted, "EXACT", 10)
    found = model.transform(rows)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-4)
    assert not np.isnan(found).any()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_a_network_gives_the_same_without_a_gradient(activation: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net, x = MLP(3, 4, (8, 8), activation, linear=True), torch.randn(5, 3)
    with torch.inference_mode():
        found, again = net(x), net(x)
    assert torch.equal(found, again)
    assert torch.equal(found, net(x).detach())


def test_a_bound_holds_with_and_without_a_gradient() -> None:
    x = torch.tensor([-40.0, -1.0, 35.0], requires_grad=True)
    assert bounded(x, -30.0, 30.0).tolist() == bounded(x.detach(), -30.0, 30.0).tolist() == [-30.0, -1.0, 30.0]
    (slope,) = torch.autograd.grad(bounded(x, -30.0, 30.0).sum(), x)
    assert slope.tolist() == [1.0, 1.0, 1.0]
