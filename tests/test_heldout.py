"""Which likelihood suits a column: the gain in held-out density is that of the closed form, in any units."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aevb.data.columns import Column
from aevb.data.heldout import GAIN, Gain, gain_of_quantiles

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_the_gain_is_the_difference_of_two_known_densities(unit: float) -> None:
    """Of ±a in equal shares, in steps of 1: P = ½ each, against N(0, a²) at one deviation."""
    x = unit * RNG.choice([-1.0, 1.0], 5000)
    column = Column("x", "real", likelihood="normal", scale=unit, decimals=0)
    found = gain_of_quantiles(column, x)
    expected = math.log(0.5) + 0.5 * math.log(2 * math.pi) + 0.5 + math.log(unit)
    assert found.mean == pytest.approx(expected, abs=4 * found.se + 0.02)  # the shares of bins are smoothed


def test_the_map_of_a_column_does_not_count() -> None:
    """A log-normal column is as probable by its logarithm's normal, whatever center and scale it has."""
    x = RNG.lognormal(3, 1, 4000)
    one, other = (
        gain_of_quantiles(Column("x", "positive", likelihood="normal", map="log", center=c, scale=s, low=x.min()), x)
        for c, s in ((0.0, 1.0), (3.0, 2.5))
    )
    assert one.mean == pytest.approx(other.mean, abs=1e-9)
    assert not one.clear


def test_counts_of_their_own_family_keep_it_and_spikes_do_not() -> None:
    poisson = RNG.poisson(4, 5000).astype(float)
    assert not gain_of_quantiles(Column("x", "count", likelihood="poisson", decimals=0), poisson).clear
    gains = RNG.choice([0.0, 2000.0, 7000.0, 15000.0], 5000, p=[0.9, 0.05, 0.03, 0.02])
    found = gain_of_quantiles(Column("x", "count", likelihood="zero-inflated-negative-binomial", decimals=0), gains)
    assert found.clear
    assert found.mean > 0.1 * math.log(100)  # of a tenth of the rows each value is one of thousands


def test_normal_numbers_keep_the_normal() -> None:
    found = gain_of_quantiles(Column("x", "real", likelihood="normal"), RNG.normal(size=5000))
    assert found.mean < GAIN
    assert not found.clear


def test_a_gain_is_clear_beyond_three_errors() -> None:
    assert Gain(0.1, 0.03, 0.05).clear
    assert not Gain(0.1, 0.04, 0.05).clear
    assert not Gain(0.04, 0.001, 0.05).clear
