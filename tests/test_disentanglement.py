"""Measures of disentanglement on perfect codes, on codes that know nothing, and on rotated ones; and the sprites."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import Oracle
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal
from typer.testing import CliRunner

from aevb.apps.cli import app
from aevb.data.sources import SOURCES, load_data
from aevb.data.sprites import CATEGORIES, FACTORS, factors_of, grid, render, sprites
from aevb.data.walk import walking
from aevb.errors import DataError, ShapeError
from aevb.evaluation.reports.disentanglement import (
    dci,
    disentanglement,
    entropies,
    factor_vae_score,
    mig,
    mutual_information,
    sap,
)
from aevb.runs.store import load


def some(n: int = 1500, seed: int = 0) -> Tensor:
    """Rows of the grid of factors."""
    rows = torch.randperm(4608, generator=torch.Generator().manual_seed(seed))[:n]
    return torch.from_numpy(grid())[rows]


def perfect(factors: Tensor, extra: int = 2) -> Tensor:
    """Each factor in one latent, of any sign and scale, in another order; and latents of which none varies."""
    codes = factors.double().flip(1) * torch.tensor([1.0, -3.0, 0.5, 2.0, -1.0], dtype=torch.float64)
    return torch.cat([codes, torch.zeros(len(codes), extra, dtype=torch.float64)], 1)


def noise(n: int, d: int = 6) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def around(codes: Tensor, scale: float = 0.05) -> Independent:
    return Independent(Normal(codes, torch.full_like(codes, scale)), 1)


def rotated(factors: Tensor) -> Tensor:
    """All that is to be known, in no single latent."""
    standard = (factors.double() - factors.double().mean(0)) / factors.double().std(0)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))).Q
    return standard @ turn


# Perfect codes


def test_perfect_codes_have_the_highest_scores() -> None:
    v = some()
    z = perfect(v)
    assert mig(mutual_information(around(z), v, draws=500), v) == pytest.approx(1, abs=0.03)
    assert sap(z, v) == pytest.approx(1, abs=0.03)
    assert sap(z, v, CATEGORIES) == pytest.approx((4 + 2 / 3) / 5, abs=0.03)
    found = dci(z, v)
    assert found.disentanglement == pytest.approx(1, abs=0.03)
    assert found.completeness == pytest.approx(1, abs=0.03)
    assert found.informativeness == 1
    assert factor_vae_score(z, v) == 1


def test_codes_that_know_nothing_have_the_lowest() -> None:
    v = some()
    z = noise(len(v))
    assert mig(mutual_information(around(z, 0.2), v, draws=500), v) < 0.03
    assert sap(z, v, CATEGORIES) < 0.03
    found = dci(z, v)
    assert found.disentanglement < 0.03
    assert found.completeness < 0.03
    assert found.informativeness < 0.3
    assert abs(factor_vae_score(z, v) - 1 / 5) < 4 * math.sqrt(0.2 * 0.8 / 400)


def test_rotation_entangles_and_loses_nothing() -> None:
    v = some()
    z = rotated(v)
    found = dci(z, v)
    assert found.disentanglement < 0.6
    assert found.informativeness > 0.5
    assert mig(mutual_information(around(z, 0.2), v, draws=500), v) < 0.4
    assert sap(z, v) < 0.6


def test_a_model_is_measured_by_its_posterior() -> None:
    """The linear-Gaussian model with columns of W along single pixels: its latents are the pixels."""
    v = torch.randint(0, 4, (800, 3), generator=torch.Generator().manual_seed(0))
    x = v.double() - 1.5
    o = Oracle(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 0.05)
    found = disentanglement(o.vae(), x, v)
    assert found.mig > 0.95
    assert found.sap > 0.95
    assert found.dci.disentanglement > 0.95
    assert found.factor_vae == 1
    assert found.information.shape == (3, 3)


def test_a_run_on_sprites_is_measured_from_the_command_line(tmp_path: Path) -> None:
    small = ["--set", "encoder.hidden=[8]", "--set", "decoder.hidden=[8]", "--latent", "3", "--samples", "500"]
    command("train", "sprites", "--out", str(tmp_path / "r"), "--no-figures", "--json", *small)
    content = json.loads(command("evaluate", str(tmp_path / "r"), "--report", "disentanglement", "--json"))[
        "disentanglement"
    ]
    data, model = load_data("sprites").test, load(tmp_path / "r")
    expected = disentanglement(model, data, factors_of(data[:]), CATEGORIES)
    assert content["mig"] == pytest.approx(expected.mig, abs=1e-6)
    assert content["factor_vae"] == expected.factor_vae
    assert content["n"] == 500
    assert "mutual information gap" in command("evaluate", str(tmp_path / "r"), "--report", "disentanglement")


def command(*words: str) -> str:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return result.stdout


# Information


def test_information_of_a_perfect_code_is_the_factors_entropy() -> None:
    v = torch.from_numpy(grid())
    found = mutual_information(around(perfect(v, extra=0)), v, draws=200)
    torch.testing.assert_close(found.flip(0).diagonal(), entropies(v), atol=1e-4, rtol=0)
    others = found.flip(0) - torch.diag(found.flip(0).diagonal())
    assert float(others.abs().max()) < 1e-6
    torch.testing.assert_close(entropies(v), torch.tensor([*FACTORS.values()]).double().log())


def test_information_of_two_overlapping_normals_is_that_of_quadrature() -> None:
    """v = 0, 1 with z ~ N(±1, 1.5²): I = H(z) - H(z|v)."""
    v = (torch.arange(400) % 2)[:, None]
    q = around(2 * v.double() - 1, 1.5)
    found = float(mutual_information(q, v, draws=400))
    z = torch.linspace(-15, 15, 6001, dtype=torch.float64)
    low, high = (Normal(m, 1.5).log_prob(z) for m in (torch.tensor(-1.0).double(), torch.tensor(1.0).double()))
    both = torch.logaddexp(low, high) - math.log(2)
    exact = float(torch.trapezoid(high.exp() * (high - both), z))
    draws = Normal(1.0, 1.5).sample((4000,)).double()
    spread = Normal(1.0, 1.5).log_prob(draws) - torch.logaddexp(
        Normal(1.0, 1.5).log_prob(draws), Normal(-1.0, 1.5).log_prob(draws)
    )
    assert abs(found - exact) < 4 * float(spread.std()) / 20


def test_chunks_do_not_matter_and_the_seed_does() -> None:
    v = some(300)
    q = around(rotated(v), 0.3)
    whole = mutual_information(q, v)
    with walking(memory=20_000):
        torch.testing.assert_close(mutual_information(q, v), whole)
    assert not torch.equal(mutual_information(q, v, seed=1), whole)


def test_a_full_covariance_has_marginals_too() -> None:
    v = some(300)
    z = perfect(v, extra=0)
    full = MultivariateNormal(z, 0.05**2 * torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(mutual_information(full, v), mutual_information(around(z), v), atol=1e-3, rtol=0)


def test_neither_the_order_nor_the_scale_of_latents_matters() -> None:
    v = some(800)
    z = rotated(v)
    other = z.flip(1) * torch.tensor([1.0, 2.0, -1.0, 5.0, 0.3], dtype=torch.float64)
    assert sap(other, v) == pytest.approx(sap(z, v))
    assert factor_vae_score(other, v) == factor_vae_score(z, v)
    assert dci(other, v).disentanglement == pytest.approx(dci(z, v).disentanglement, abs=0.05)


def test_what_is_refused() -> None:
    v = some(50)
    with pytest.raises(ShapeError, match=r"\(50, F\)"):
        sap(noise(50), v[:40])
    with pytest.raises(DataError, match="whole numbers"):
        dci(noise(50), v.double())
    with pytest.raises(DataError, match="Factor 1 has only one value"):
        factor_vae_score(noise(50), torch.stack([v[:, 0], v[:, 0] * 0], 1))


# Sprites


def test_every_combination_of_factors_occurs_once_and_every_picture_is_another() -> None:
    x, factors = sprites().x, grid()
    assert x.shape == (math.prod(FACTORS.values()), 1, 32, 32)
    assert set(np.unique(x)) == {0, 1}
    assert len({row.tobytes() for row in x}) == len(x) == len({tuple(row) for row in factors})
    assert np.array_equal(sprites().labels, factors[:, 0])


def test_a_picture_gives_its_factors_back() -> None:
    data = load_data("sprites")
    found = factors_of(data.test[:])
    assert found.shape == (500, 5)
    assert np.array_equal(render(found.numpy()), data.test.stored.numpy())
    assert torch.equal(found[:, 0], data.test.labels)
    assert (len(data.train), len(data.validation), len(data.test)) == SOURCES["sprites"].counts
    with pytest.raises(DataError, match="Row 0 is not a sprite"):
        factors_of(torch.rand(2, 1, 32, 32))


def test_factors_move_the_picture_as_they_say() -> None:
    """The centre of mass of squares and ellipses follows x and y, the area the scale, and nothing lies beyond the
    edge."""
    factors = grid()
    factors = factors[factors[:, 0] < 2]
    x = render(factors)[:, 0].astype(float)
    area = x.sum((1, 2))
    centre = (x.sum(1) * np.arange(32)).sum(1) / area, (x.sum(2) * np.arange(32)).sum(1) / area
    for column, found in zip((3, 4), centre, strict=True):
        np.testing.assert_allclose(found, 10.5 + 10 * factors[:, column] / 7, atol=0.6)
    size = 5 + 5 * factors[:, 1] / 3
    full = np.where(factors[:, 0] == 0, 2, np.pi / 2) * size**2
    np.testing.assert_allclose(area, full, rtol=0.3)
    assert abs(float((area / full).mean()) - 1) < 0.01


def test_a_latent_that_hardly_varies_has_no_vote() -> None:
    """Noise of 1/50 of the widest spread, or none, changes nothing; a tenth takes votes from codes that are noisy
    too."""
    factors = some(600)
    codes = factors.double() / factors.double().std(0) + 1.5 * noise(600, 5)
    unrelated = torch.randn(600, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    alone, none, little, some_ = (
        factor_vae_score(torch.cat([codes, size * unrelated], 1)[:, :d], factors)
        for d, size in ((5, 0.0), (6, 0.0), (6, 0.02), (6, 0.2))
    )
    assert alone == none == little
    assert some_ != alone
    assert 0.5 < alone < 1


def test_half_of_the_votes_are_scored() -> None:
    """The score is a share of them: of three, so that thirds are found and no halves."""
    factors = some(600)
    scores = {factor_vae_score(noise(600), factors, votes=6, batch=8, seed=seed) for seed in range(40)}
    assert scores <= {0.0, 1 / 3, 2 / 3, 1.0}
    assert len(scores & {1 / 3, 2 / 3}) > 0


def test_a_single_latent_is_held_against_none() -> None:
    """SAP's and MIG's second best is 0: the gaps are R² and I / H themselves."""
    factors = some(400)[:, :1]
    codes = factors.double() + 0.3 * noise(400, 1)
    assert sap(codes, factors) == pytest.approx(float(np.corrcoef(codes[:, 0], factors[:, 0])[0, 1]) ** 2)
    information = mutual_information(around(codes), factors)
    assert mig(information, factors) == pytest.approx(float(information[0, 0] / entropies(factors)[0]))
