"""The clusters of a mixture prior: agreement with labels by hand, and p(m | z) of a model whose clusters are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import DTYPE, oracle
from torch import Tensor
from torch.distributions import MultivariateNormal
from typer.testing import CliRunner

from aevb.apps.cli import app
from aevb.data.sources import load_data
from aevb.evaluation.evaluate import evaluate, table
from aevb.evaluation.latent import agreement, component_shares
from aevb.models.priors import Mixture
from aevb.models.vae import VAE
from aevb.probability import families
from aevb.runs.evaluate import evaluate_run
from aevb.runs.fit import fit
from aevb.runs.recipe import EvaluationSettings, Recipe

LABELS = torch.arange(600) % 3


def test_clusters_that_are_the_classes_agree_whatever_their_numbers() -> None:
    for clusters in (LABELS, torch.tensor([7, 0, 4])[LABELS]):
        found = agreement(LABELS, clusters)
        assert (found.accuracy, found.nmi, found.ari) == pytest.approx((1, 1, 1))


def test_agreement_by_hand() -> None:
    """Labels 0 0 0 1 1 1 in clusters 0 0 1 1 1 1: five of six match; I and the two entropies from the table 2 1 / 0
    3."""
    found = agreement(torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 1, 1, 1, 1]))
    assert found.accuracy == pytest.approx(5 / 6)
    information = 2 / 6 * math.log(2) + 1 / 6 * math.log(1 / 2) + 3 / 6 * math.log(3 / 2)
    entropies = math.log(2), -(2 / 6 * math.log(2 / 6) + 4 / 6 * math.log(4 / 6))
    assert found.nmi == pytest.approx(information / (sum(entropies) / 2))
    pairs, rows, columns = 1 + 0 + 0 + 3, 2 * 3, 1 + 6  # pairs of points together in both, by label, by cluster; of 15
    expected = rows * columns / 15
    assert found.ari == pytest.approx((pairs - expected) / ((rows + columns) / 2 - expected))


def test_clusters_by_chance_agree_by_chance() -> None:
    """ARI 0 on average; accuracy 1/C and what the best of C! matchings adds; NMI about (C-1)² / 2N over log C."""
    random = np.random.RandomState(0)
    n, found = 3000, []
    for _ in range(40):
        found.append(agreement(torch.as_tensor(random.randint(3, size=n)), torch.as_tensor(random.randint(3, size=n))))
    ari = np.array([f.ari for f in found])
    assert abs(ari.mean()) < 5 * ari.std() / math.sqrt(40)
    assert all(1 / 3 <= f.accuracy < 1 / 3 + 5 * math.sqrt(2 / 9 / n) for f in found)
    nmi = np.array([f.nmi for f in found])
    assert abs(nmi.mean() - 4 / (2 * n) / math.log(3)) < 5 * nmi.std() / math.sqrt(40)


def test_clusters_that_split_a_class_lose_what_is_not_matched() -> None:
    halves = LABELS * 2 + (torch.arange(600) // 3) % 2
    assert agreement(LABELS, halves).accuracy == pytest.approx(0.5)


# A model whose clusters are known: the oracle's decoder under three normals far apart

O = oracle(d=2, s=0.5)
CENTRES = torch.tensor([[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]], dtype=DTYPE)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=DTYPE)


def clustered() -> VAE:
    prior = Mixture(families.Normal(2), 3).double()
    with torch.no_grad():
        prior.logits.copy_(WEIGHTS.log())
        prior.phi.copy_(torch.cat([CENTRES, torch.zeros_like(CENTRES)], 1))
    plain = O.vae()
    return VAE(prior, plain.encoder, plain.decoder)


def drawn(n: int = 300) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (n,), generator=g)
    z, e = torch.randn(n, 2, generator=g, dtype=DTYPE), torch.randn(n, 6, generator=g, dtype=DTYPE)
    return (CENTRES[labels] + z) @ O.W.T + O.b + O.s * e, labels


def test_the_shares_are_bayes_rule_at_the_posterior_mean() -> None:
    x, _ = drawn()
    model = clustered()
    found = component_shares(model, x, batch=70)
    assert found is not None
    densities = torch.stack(
        [MultivariateNormal(c, torch.eye(2, dtype=DTYPE)).log_prob(model.encode(x)) for c in CENTRES], 1
    )
    torch.testing.assert_close(found, (densities + WEIGHTS.log()).softmax(1).detach())
    assert component_shares(O.vae(), x) is None


def test_an_evaluation_reports_the_clusters() -> None:
    x, labels = drawn()
    found = evaluate(clustered(), x, importance_samples=2, labels=labels).clusters
    assert found is not None
    assert (found.components, found.used) == (3, 3)
    assert found.accuracy > 0.97
    alone = evaluate(clustered(), x, importance_samples=2).clusters
    assert alone is not None
    assert (alone.used, alone.nmi, alone.accuracy.known) == (3, None, False)
    one = evaluate(clustered(), x[labels == 1], importance_samples=2).clusters
    assert one is not None
    assert one.used < 3
    assert evaluate(O.vae(), x, importance_samples=2).clusters is None


def test_a_run_encodes_and_reports_its_clusters(tmp_path: Path) -> None:
    small = ["latent=2", "encoder.hidden=[16]", "decoder.hidden=[16]", "prior.components=4", "training.samples=2_000"]
    digits = load_data("digits", values="dynamic")
    run = fit(Recipe.load("mixture-prior").override(small), digits, tmp_path / "run")
    result = evaluate_run(run, digits, settings=EvaluationSettings(1, 2))
    clusters = component_shares(run.model(), digits.test)
    assert clusters is not None
    assert result["clusters"]["accuracy"] == agreement(digits.test.labels, clusters.argmax(1)).accuracy
    rows = {name: (value, unit) for name, value, unit in table(result)}
    value, unit = rows["components used"]
    assert value == str(len(clusters.argmax(1).unique()))
    assert unit.startswith("of 4: ")
    out = tmp_path / "clusters.npy"
    assert CliRunner().invoke(app, ["encode", str(run.path), "--clusters", "--out", str(out)]).exception is None
    np.testing.assert_allclose(np.load(out), clusters.numpy(), rtol=1e-6)
    plain = fit(Recipe.load("bernoulli").override([*small[:3], small[-1]]), digits, tmp_path / "plain")
    error = CliRunner().invoke(app, ["encode", str(plain.path), "--clusters"]).exception
    assert "--clusters: the prior of plain is not a mixture" in str(error)
