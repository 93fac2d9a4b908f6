"""Tables of many columns: grouped computations give what single columns give, numbers and gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy import stats
from tabular import MIXED
from torch import Tensor

from aevb import Categories, NegativeBinomial
from aevb.data.columns import Column, Schema
from aevb.probability.families import mean_from_log, scale_from_log
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
