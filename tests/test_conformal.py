"""p-values of scores: by hand, and the rate of false alarms that they promise."""

from __future__ import annotations

import pytest
import torch

import aevb
from aevb import DataError
from aevb.use.conformal import least_rows


def test_p_values_count_the_rows_that_are_as_low() -> None:
    calibration = torch.tensor([1.0, 2.0, 2.0, 5.0])
    scores = torch.tensor([0.0, 1.0, 2.0, 4.0, 9.0])
    assert aevb.p_values(scores, calibration).tolist() == [0.2, 0.4, 0.8, 0.8, 1.0]
    assert aevb.percentiles(scores, calibration).tolist() == [0.0, 12.5, 50.0, 75.0, 100.0]


def test_the_rate_of_false_alarms_holds_for_exchangeable_rows() -> None:
    """Exactly: for continuous scores P(p ≤ α) = ⌊α (n + 1)⌋ / (n + 1)."""
    g = torch.Generator().manual_seed(0)
    for n, alpha in ((99, 0.01), (99, 0.05), (500, 0.1), (50, 0.01)):
        draws = torch.randn(4000, n + 1, generator=g).exp()
        alarms = torch.stack([aevb.p_values(row[:1], row[1:]) <= alpha for row in draws]).double()
        expected = int(alpha * (n + 1) + 1e-9) / (n + 1)
        error = (expected * (1 - expected) / len(draws)) ** 0.5
        assert float(alarms.mean()) == pytest.approx(expected, abs=4 * error + 1e-9)
        assert expected <= alpha


def test_ties_make_no_false_alarm_more() -> None:
    g = torch.Generator().manual_seed(1)
    draws = torch.randint(0, 4, (4000, 100), generator=g).double()
    alarms = torch.stack([aevb.p_values(row[:1], row[1:]) <= 0.2 for row in draws]).double()
    assert float(alarms.mean()) <= 0.2 + 4 * (0.16 / 4000) ** 0.5


@pytest.mark.parametrize(("alarm", "rows"), [(0.01, 99), (0.05, 19), (0.1, 9), (0.5, 1), (0.3, 3)])
def test_how_many_rows_a_rate_takes(alarm: float, rows: int) -> None:
    assert least_rows(alarm) == rows
    assert 1 / (rows + 1) <= alarm


def test_no_p_value_without_calibration() -> None:
    with pytest.raises(DataError, match="no calibration scores"):
        aevb.p_values(torch.zeros(3), torch.zeros(0))
