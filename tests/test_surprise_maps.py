"""Heat maps of surprise: red is where a picture was changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import good
from torch import nn
from torch.distributions import Independent, Normal

import aevb
from aevb import Bernoulli, Conditional
from aevb.figures.surprise import heat_limits, surprise_maps


class Wide(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.distributions.Distribution:
        return Independent(Normal(torch.zeros(len(x), 1), torch.ones(len(x), 1)), 1)


def flat() -> aevb.VAE:
    """Pixels that are 1 with probability 0.9 in the upper half, and 0.1 in the lower, whatever z is."""
    net = nn.Linear(1, 16)
    with torch.no_grad():
        net.weight.zero_()
        net.bias.copy_(torch.logit(torch.tensor([0.9] * 8 + [0.1] * 8)))
    return aevb.VAE(aevb.StandardNormal(1), Wide(), Conditional(net, Bernoulli((1, 4, 4)))).eval()


def test_the_surprise_of_a_changed_pixel_is_red_and_that_of_others_white() -> None:
    x = torch.cat([torch.ones(1, 1, 2, 4), torch.zeros(1, 1, 2, 4)], 2).repeat(2, 1, 1, 1)
    x[1, 0, 3, 1] = 1.0
    heat = aevb.surprise(flat(), x, 50)
    usual, odd = -np.log(0.9), -np.log(0.1)
    assert float(heat[1, 0, 3, 1]) == pytest.approx(odd, abs=1e-5)
    assert float(heat.sum()) == pytest.approx(31 * usual + odd, abs=1e-4)
    figure = surprise_maps(x, heat, ["a", "b"])
    shown = figure.axes[0].images[0].get_array()
    height = (shown.shape[0] - 8) // 2
    red = np.asarray(shown)[height + 8 :]
    marked = (red[..., 1] < 0.5) & (red[..., 0] > 0.99)
    side = height // 4
    assert marked.sum() == side * side  # one pixel, enlarged
    rows, columns = np.nonzero(marked)
    assert rows.min() // side == 3
    assert (columns.min() - (4 * side + 4)) // side == 1  # of the second picture
    assert heat_limits(torch.zeros(3, 3)) == (0.0, 1.0)


def test_the_verb_draws_the_pictures_of_lowest_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good("train", "digits", "--latent", 2, "--samples", 2000, "--no-figures", "--out", "run")
    good("score", "run", "--why", "--importance-samples", 20, "--out", "scores.csv")
    assert {path.name for path in tmp_path.glob("scores*")} == {"scores.csv", "scores.png", "scores.svg"}
    assert "why_1" not in Path("scores.csv").read_text().splitlines()[0]
