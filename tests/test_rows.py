"""Draws for scores: those of a row depend on the row alone, whatever draws them, and have the law of q(z|x)."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import Distribution

from aevb.data.batch import Batch
from aevb.models.rows import Group, by_row, drawn_apart
from aevb.models.trace import draw
from aevb.runs.build import build
from aevb.runs.parts import AXES

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
APART = [name for name in AXES["posterior"] if name not in ("one-hot", "concrete")]
MIXED = {"student-t", "cauchy", "gamma", "beta", "dirichlet", "von-mises-fisher"}  # by rejection, or by another call


class Posterior(nn.Module):
    """A family whose parameters are linear in x."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.family = build("posterior", {"type": name}, shape=torch.Size([3, 4] if name in ("vq", "fsq") else [3]))
        self.linear = nn.Linear(4, self.family.size)

    def forward(self, batch: Batch) -> Distribution:
        q: Distribution = self.family(self.linear(batch.x))
        return q


def drawn(posterior: Posterior, x: Tensor, samples: int, block: int = 0) -> Tensor:
    with torch.no_grad():
        return torch.cat([group.draw(samples, block) for group in by_row(posterior, Batch(x), 0)], 1)


@pytest.mark.parametrize("name", APART)
def test_draws_of_a_row_do_not_depend_on_its_batch(name: str) -> None:
    posterior = Posterior(name)
    whole = drawn(posterior, X, 5)
    assert whole.shape[:2] == (5, 6)
    order = [4, 1, 3]
    torch.testing.assert_close(drawn(posterior, X[order], 5), whole[:, order])
    torch.testing.assert_close(drawn(posterior, X[2:3], 5), whole[:, 2:3])


@pytest.mark.parametrize("name", APART)
def test_rows_are_drawn_at_once_where_their_numbers_can_be_told_apart(name: str) -> None:
    groups: list[Group] = list(by_row(Posterior(name), Batch(X), 0))
    assert len(groups) == (len(X) if name in MIXED else 1)


@pytest.mark.parametrize("name", sorted(set(APART) - MIXED - {"delta", "vq", "fsq"}))
def test_their_law_is_that_of_the_posterior(name: str) -> None:
    """Of 4,000 draws of a row each, in two blocks; every latent of three rows, by Kolmogorov and Smirnov's test."""
    posterior = Posterior(name)
    found = torch.cat([drawn(posterior, X[:3], 2000, block) for block in (0, 1)])
    torch.manual_seed(2)
    with torch.no_grad():
        plain = draw(posterior(Batch(X[:3])), 4000)
    for a, b in zip(found.flatten(1).T, plain.flatten(1).T, strict=True):
        assert stats.ks_2samp(a.numpy(), b.numpy()).pvalue > 1e-4


def test_a_draw_shared_by_rows_is_seen() -> None:
    class Shared(torch.distributions.Normal):
        def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
            return self.loc + self.scale * torch.randn(*sample_shape, 1, 3)

    assert not drawn_apart(Shared(X[:, :3], torch.ones(3)), list(range(6)), torch.device("cpu"))


def test_draws_of_one_posterior_are_independent() -> None:
    """As the layers of a hierarchy are: of two draws in one call the difference has the variance 2, and no block is
    another's."""

    class Twice(torch.distributions.Normal):
        def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
            shape = self._extended_shape(sample_shape)
            return torch.randn(shape) - torch.randn(shape)

    group = Group(Batch(X), Twice(X[:, :3], torch.ones(3)), list(range(6)))
    first, second = (group.draw(2000, block).flatten() for block in (0, 1))
    se = 2 * (2 / len(first)) ** 0.5  # of a variance of 2
    assert abs(float(first.var()) - 2) < 4 * se
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 4 / len(first) ** 0.5
