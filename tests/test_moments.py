"""One pass over rows: mean, standard deviation, extremes and fingerprints."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import aevb
from aevb.data.dataset import Split
from aevb.data.moments import moments
from aevb.data.prints import prints_of
from aevb.data.splits import standardized
from aevb.data.values import Values


def test_mean_std_constants_and_fingerprints_take_one_pass() -> None:
    torch.manual_seed(0)
    x, told = torch.randn(300_000, 3, dtype=torch.float64) * torch.tensor([1e-3, 1.0, 0.0]) + 1e3, []
    split = Split(x, None, Values("standardized"))
    with aevb.walking(reading=lambda done, total: told.append(done)):
        split, constants = standardized(split)
        prints = split.prints
    assert told == sorted(told)  # one pass
    assert told[-1] == 300_000
    assert constants.tolist() == [False, False, True]
    assert split.values.mean is not None
    assert split.values.std is not None
    torch.testing.assert_close(split.values.mean, x.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(split.values.std[:2], x.std(0, correction=0)[:2], rtol=1e-8, atol=0)
    assert split.values.std[2] == 1
    assert prints == prints_of(x)


def test_fingerprints_are_found_anew_where_rows_have_changed() -> None:
    split, _ = standardized(Split(torch.arange(12.0).reshape(6, 2), None, Values("standardized")))
    for other in (split.take(3), replace(split, stored=split.stored + 1), copy.deepcopy(split)):
        assert other.prints == prints_of(other.stored)
    split.stored[0, 0] = 7
    assert split.prints == prints_of(split.stored)
    with torch.inference_mode():
        split, _ = standardized(Split(torch.arange(12.0).reshape(6, 2), None, Values("standardized")))
        split.stored[0, 0] = 7
        assert split.prints == prints_of(split.stored)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_of_parts_join_to_those_of_the_whole(scale: float, offset: float) -> None:
    """Parts of other sizes and places, and numbers whose squares are too large or too small for float64."""
    x = np.random.default_rng(0).normal(offset, [1.0, 50.0], (10_001, 2)) * scale
    found = moments(torch.from_numpy(x))
    unit = x / scale
    np.testing.assert_allclose(found.mean / scale, unit.mean(0), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(found.std / scale, unit.std(0), rtol=1e-9)
    assert np.array_equal(found.low, x.min(0))
    assert np.array_equal(found.high, x.max(0))


@pytest.mark.parametrize("origin", [0, 2**53 - 20_000, 2**60, -(2**62)])
def test_moments_of_whole_numbers_lose_nothing(origin: int) -> None:
    """Beyond 2**53 float64 does not hold them; their differences to the first row it does."""
    near = np.random.default_rng(0).integers(-9000, 9000, (10_001, 2))
    values = Values("standardized").fitted(torch.from_numpy(near + origin))
    assert values.mean is not None
    assert values.std is not None
    assert (values.origin is None) == (abs(origin) <= 2**53)
    first = 0 if values.origin is None else near[0]  # of the rows, less what all have in common
    mean, common = (values.mean.numpy(), origin) if values.origin is None else (values.mean.numpy(), 0)
    np.testing.assert_allclose(mean - common, near.mean(0) - first, rtol=0, atol=1e-8 + np.spacing(abs(common)))
    np.testing.assert_allclose(values.std, near.std(0), rtol=1e-12)
