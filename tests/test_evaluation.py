"""Evaluation: per-point bounds, units, codes and labels, and the one report of all of them."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import oracle
from torch import Tensor, nn

import aevb
from aevb.data.dataset import Split, Values
from aevb.data.sources import load_data
from aevb.data.walk import walking
from aevb.errors import AevbError, DataError
from aevb.evaluation.bound import Bound, elbo
from aevb.evaluation.estimate import Estimate, flat
from aevb.evaluation.evaluate import Evaluation, discrete, evaluate, table
from aevb.evaluation.latent import active_units, agreement, kmeans, linear_probe, matched_accuracy, neighbors_accuracy
from aevb.evidence.importance import log_marginal
from aevb.evidence.support import NoLikelihood
from aevb.models.conditional import Conditional
from aevb.models.networks import MLP
from aevb.models.priors import StandardNormal, UniformOverCodes
from aevb.models.vae import VAE
from aevb.probability import families
from aevb.probability.codes import OneHot
from aevb.runs.evaluate import evaluate_run
from aevb.runs.recipe import EvaluationSettings
from aevb.use.encode import encode


@pytest.fixture(autouse=True)
def fixed_noise() -> None:
    torch.manual_seed(0)


def vae(likelihood: families.Family, posterior: families.Family | None = None) -> VAE:
    q = posterior or families.Normal(3)
    encoder = Conditional(MLP(likelihood.shape, q.size, [16]), q)
    return VAE(StandardNormal(3), encoder, Conditional(MLP(3, likelihood.size, [16]), likelihood))


def binary(n: int = 23, x: int = 12) -> Tensor:
    return (torch.rand(n, x) < 0.3).float()


# The bound of every point


@pytest.mark.parametrize("batch", [1, 7, 23, 100])
def test_the_parts_of_the_bound_do_not_depend_on_the_batch(batch: int) -> None:
    model, x = vae(families.Bernoulli(12)), binary()
    bound = elbo(model, x, batch=batch)
    kl = model.trace(x).kl.detach().double()
    torch.testing.assert_close(bound.kl, kl, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(bound.kl.sum(-1).mean(), kl.sum() / 23, atol=1e-6, rtol=1e-5)
    assert bound.reconstruction.shape == (23,)
    assert bound.kl.shape == (23, 3)


def test_the_mean_is_over_points_and_not_over_batches() -> None:
    """With a last batch of one odd point, an average of batch averages would be far off."""
    exact = oracle()
    x = exact.data(21)
    x[-1] += 20
    bound = elbo(exact.vae(), x, samples=200, batch=20)
    expected = exact.evidence.log_prob(x)
    se = float(exact.vae().trace(x, 1000).log_px.detach().std(0).mean()) / math.sqrt(200 * 21)
    assert abs(float(bound.elbo.mean() - expected.mean())) < 5 * se
    averages = (expected[:20].mean() + expected[-1]) / 2
    assert abs(float(averages - expected.mean())) > 100 * se


def test_evaluation_is_seeded_and_leaves_no_trace() -> None:
    model, x = vae(families.Bernoulli(12)), binary()
    model.train()
    model.decoder.eval()
    state = torch.get_rng_state()
    first, again, other = (elbo(model, x, seed=s).elbo for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(log_marginal(model, x, 5).log_px, log_marginal(model, x, 5).log_px)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in (model, model.encoder, model.decoder)] == [True, True, False]
    assert (first.requires_grad, first.dtype) == (False, torch.float64)


def test_dropout_sleeps_during_evaluation_and_wakes_afterwards_even_on_an_error() -> None:
    likelihood, posterior = families.Bernoulli(12), families.Normal(3)
    encoder = Conditional(nn.Sequential(nn.Dropout(0.9), MLP(12, 6)), posterior)
    model = VAE(StandardNormal(3), encoder, Conditional(MLP(3, 12), likelihood))
    x = binary()
    torch.testing.assert_close(encode(model, x, batch=4), encode(model, x), atol=1e-6, rtol=1e-5)
    with pytest.raises(DataError):
        evaluate(model, x * 2)
    assert all(m.training for m in model.modules())


@pytest.mark.parametrize("kind", ["threshold", "dynamic"])
def test_a_split_is_data_too(kind: str) -> None:
    stored = torch.randint(0, 256, (23, 12), dtype=torch.uint8)
    split = Split(stored, None, Values(kind)).frozen()  # type: ignore[arg-type]
    model = vae(families.Bernoulli(12))
    torch.testing.assert_close(elbo(model, split).elbo, elbo(model, split[:]).elbo)
    torch.testing.assert_close(log_marginal(model, split, 9).log_px, log_marginal(model, split[:], 9).log_px)


@pytest.mark.trap(2)
def test_progress_counts_every_sample() -> None:
    seen: list[tuple[int, int]] = []
    with walking(memory=12 * 30, progress=lambda *done: seen.append(done)):
        log_marginal(vae(families.Bernoulli(12)), binary(), 10)
    done = [d for d, _ in seen]
    assert done == sorted(set(done))
    assert len(seen) > 5
    assert seen[-1] == (230, 230)


# Units


def test_active_units_of_hand_built_means() -> None:
    """±a has variance a²: 0.0121 is active, 0.0081 is not, and a constant is not, however far from zero."""
    means = torch.tensor([[0.11, 0.09, 5.0, 1.0], [-0.11, -0.09, 5.0, -1.0]])
    count, variances = active_units(means)
    assert count == 2
    torch.testing.assert_close(variances, torch.tensor([0.0121, 0.0081, 0, 1], dtype=torch.float64), atol=1e-6, rtol=0)
    assert active_units(means, threshold=0.5)[0] == 1


@pytest.mark.trap(9)
def test_encode_gives_posterior_means() -> None:
    exact = oracle()
    x = exact.data(30)
    torch.testing.assert_close(encode(exact.vae(), x, batch=7), exact.posterior(x).mean)


# Codes and labels


def test_labels_of_many_classes_are_scored_without_a_word() -> None:
    """200 classes of 300 points: scikit-learn's advice on regressions is not for labels."""
    y = torch.arange(300) % 200
    z = torch.stack([y.double(), (y.double() / 7).sin()], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert neighbors_accuracy(z[:200], y[:200], z[200:], y[200:], k=1) == 1
        assert linear_probe(z[:200], y[:200], z[200:], y[200:]) > 1 / 200
        assert matched_accuracy(y, y) == pytest.approx(agreement(y, y).nmi)


def test_of_one_data_point_no_unit_is_said_to_be_idle() -> None:
    exact, said = oracle(), {}
    for n in (1, 2):
        lines = table(evaluate(exact.vae(), exact.data(n), importance_samples=5, elbo_samples=1).numbers())
        said[n] = dict(line[:2] for line in lines)["active units"]
    assert said == {1: "–", 2: "3 of 3"}


def clusters(n: int = 150) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % 3
    centers = torch.tensor([[9.0, 0], [0, 9], [-9, -9]])
    return centers[labels] + torch.randn(n, 2), labels


def test_separate_clusters_are_known_by_every_score() -> None:
    codes, labels = clusters()
    parts = codes[:100], labels[:100], codes[100:], labels[100:]
    assert neighbors_accuracy(*parts) == 1
    assert linear_probe(*parts) == 1
    found = kmeans(codes, labels)
    assert (found.nmi, found.ari, found.accuracy) == pytest.approx((1, 1, 1))


def test_shuffled_labels_are_known_by_none() -> None:
    codes, _ = clusters(600)
    labels = torch.randint(3, (600,))
    parts = codes[:300], labels[:300], codes[300:], labels[300:]
    assert neighbors_accuracy(*parts) < 0.45
    assert linear_probe(*parts) < 0.45
    found = kmeans(codes, labels)
    assert found.nmi < 0.05
    assert abs(found.ari) < 0.05
    assert found.accuracy < 0.45


def test_fewer_training_points_than_neighbors() -> None:
    codes, labels = clusters()
    assert 0 <= neighbors_accuracy(codes[:4], labels[:4], codes, labels) <= 1


def test_matched_accuracy_undoes_a_permutation() -> None:
    labels = np.arange(60) % 5
    assert matched_accuracy(labels, np.array([3, 0, 4, 1, 2])[labels]) == 1
    assert matched_accuracy(labels, np.zeros(60)) == pytest.approx(1 / 5)


def test_matched_accuracy_is_one_to_one() -> None:
    """Two clusters may not both be class 0: 0 0 0 0 1 1 split as a a b b b b gives 4 of 6, though purity is 4 + 0."""
    assert matched_accuracy(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 1, 1])) == pytest.approx(4 / 6)
    assert matched_accuracy(np.array([0, 0, 0, 0, 1]), np.array([0, 0, 1, 1, 2])) == pytest.approx(3 / 5)


# The report


def test_the_report_of_the_oracle() -> None:
    exact = oracle()
    x = exact.data(400)
    e = evaluate(exact.vae(), x, importance_samples=3, elbo_samples=100, split="validation")
    log_px = exact.evidence.log_prob(x)
    assert e.log_likelihood == pytest.approx(float(log_px.mean()), abs=1e-6)
    assert e.log_likelihood.se == pytest.approx(float(log_px.std()) / 20)
    assert e.log_likelihood_monte_carlo_se == pytest.approx(0, abs=1e-6)
    assert e.effective_sample_size == pytest.approx(3)
    assert e.elbo == pytest.approx(e.reconstruction - e.kl)
    assert e.elbo == pytest.approx(float(log_px.mean()), abs=0.05)
    assert e.elbo.se == pytest.approx(float(log_px.std()) / 20, rel=0.1)
    assert e.kl == pytest.approx(sum(e.kl_per_dimension))
    assert (e.split, e.n, e.importance_samples, e.latent_size, e.active_units) == ("validation", 400, 3, 3, 3)
    assert e.is_likelihood
    assert not e.bits_per_dim.known


def test_errors_hold_their_monte_carlo_part() -> None:
    """What is left of the spread without that of the exact log p(x) is Monte Carlo, and its part of the error says
    so."""
    truth = oracle()
    x = truth.data(2000)
    model = truth.vae(shift=0.2, widen=1.5)
    e = evaluate(model, x, importance_samples=99)  # from 100 on it takes other proposals: test_defensive.py
    wrong = log_marginal(model, x, 99).log_px - truth.evidence.log_prob(x)
    assert e.log_likelihood_monte_carlo_se == pytest.approx(float(wrong.std()) / math.sqrt(2000), rel=0.1)


KEYS = {
    *("split", "n", "elbo", "elbo_se", "reconstruction", "kl", "log_likelihood", "log_likelihood_se"),
    *("reconstruction_se", "kl_se", "kl_per_dimension_se", "effective_sample_size_se"),
    *("importance_samples", "effective_sample_size", "bits_per_dim", "bits_per_dim_se", "active_units"),
    *(
        "latent_size",
        "kl_per_dimension",
        "is_likelihood",
        "latent",
        "clusters",
        "log_likelihood_monte_carlo_se",
        "importance_warning",
    ),
    "perplexity",
}


@pytest.mark.parametrize(
    ("likelihood", "discrete", "is_likelihood"),
    [
        (families.Bernoulli(12), True, True),
        (families.Bernoulli(12, relaxed=True), False, False),
        (families.ContinuousBernoulli(12), False, True),
        (families.Normal(12), False, True),
        (families.Categorical((2, 6), classes=2), True, True),
        (families.DiscretizedLogistic(12, levels=2), True, True),
    ],
)
def test_bits_per_dimension_only_where_data_are_discrete(
    likelihood: families.Family, discrete: bool, is_likelihood: bool
) -> None:
    x = binary().unflatten(1, tuple(likelihood.shape))
    report = evaluate(vae(likelihood), x, importance_samples=5).to_dict()
    assert set(report) == KEYS
    assert report["is_likelihood"] is is_likelihood
    assert report["importance_warning"] is None
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    if not discrete:
        assert report["bits_per_dim"] is None
        assert report["bits_per_dim_se"] is None
        return
    assert report["bits_per_dim"] == pytest.approx(-report["log_likelihood"] / 12 / math.log(2))
    assert report["bits_per_dim_se"] == pytest.approx(report["log_likelihood_se"] / 12 / math.log(2))


def test_a_fair_coin_costs_one_bit() -> None:
    """A decoder of logit zero gives every pixel one bit, whatever the latent."""
    model = vae(families.Bernoulli(12))
    for p in model.decoder.parameters():
        nn.init.zeros_(p)
    for p in model.encoder.parameters():
        nn.init.zeros_(p)
    e = evaluate(model, binary(), importance_samples=4)
    assert e.bits_per_dim == pytest.approx(1, abs=1e-6)
    assert e.kl == pytest.approx(0, abs=1e-6)
    assert e.active_units == 0


def test_an_autoencoder_has_a_reconstruction_and_no_likelihood() -> None:
    model = vae(families.Bernoulli(12), families.Delta(3))
    with pytest.raises(
        NoLikelihood, match=r"delta gives no density q\(z\|x\), which importance sampling requires"
    ) as error:
        log_marginal(model, binary(), 5)
    assert isinstance(error.value, AevbError)
    report = evaluate(model, binary()).to_dict()
    assert report["reconstruction"] < 0
    assert report["latent_size"] == 3
    assert report["is_likelihood"] is False
    undefined = KEYS - {"split", "n", "importance_samples", "active_units", "latent_size"}
    assert all(report[key] is None for key in undefined - {"is_likelihood", "reconstruction", "reconstruction_se"})


def test_latent_scores() -> None:
    exact = oracle(s=0.1)
    x = exact.data(200)
    labels = (encode(exact.vae(), x)[:, 2] > 0).long()
    e = evaluate(exact.vae(), x[:100], labels=labels[:100], reference=(x[100:], labels[100:]), importance_samples=2)
    assert e.latent is not None
    assert e.latent.linear_accuracy > 0.9
    assert e.latent.knn_accuracy > 0.8
    latent = e.to_dict()["latent"]
    assert set(latent) == {"kmeans_nmi", "kmeans_ari"} | {
        f"{name}_accuracy{end}" for name in ("knn", "linear", "kmeans") for end in ("", "_se")
    }
    alone = evaluate(exact.vae(), x[:100], labels=labels[:100], importance_samples=2).to_dict()["latent"]
    assert alone["knn_accuracy"] is None
    assert alone["kmeans_ari"] == latent["kmeans_ari"]
    one_class = (x[100:], labels[100:] * 0)
    assert evaluate(exact.vae(), x[:100], labels=labels[:100], reference=one_class, importance_samples=2).latent is None


def test_a_kl_without_closed_form_is_estimated() -> None:
    model = vae(families.Bernoulli(12), families.StudentT(3))
    x = binary()
    bound = elbo(model, x, samples=2000)
    assert bound.kl.shape == (23, 1)
    t = model.trace(x, 4000)  # draws of its own
    differences = (t.log_qz - t.log_pz).mean(1)
    error = math.hypot(float(differences.std()) / math.sqrt(4000), float(differences.std()) / math.sqrt(2000))
    assert float(bound.kl.mean()) == pytest.approx(float(differences.mean()), abs=4 * error)
    assert evaluate(model, x, importance_samples=2, elbo_samples=2000).kl == pytest.approx(float(bound.kl.mean()))


def test_one_point_has_no_spread() -> None:
    report = evaluate(vae(families.Bernoulli(12)), binary(1), importance_samples=1).to_dict()
    assert report["elbo_se"] is None
    assert report["log_likelihood_se"] is None
    assert report["log_likelihood_monte_carlo_se"] is None
    assert report["log_likelihood"] < 0


def test_what_is_refused() -> None:
    model = vae(families.Bernoulli(12))
    with pytest.raises(DataError, match="0"):
        evaluate(model, binary(0))
    with pytest.raises(DataError, match="Grey levels"):
        evaluate(model, torch.cat([binary(700), torch.full((1, 12), 0.5)]))
    with pytest.raises(DataError, match="12 NaN or infinite values in row 0"):
        evaluate(vae(families.Normal(12)), torch.full((3, 12), math.nan))
    with pytest.raises(DataError, match="complex"):
        elbo(model, binary().to(torch.complex64))
    x = binary()
    assert torch.equal(elbo(model, x.long()).elbo, elbo(model, x).elbo)
    with pytest.raises(ValueError, match="at least 1"):
        elbo(model, binary(), samples=0)
    with pytest.raises(ValueError, match="at least 1"):
        log_marginal(model, binary(), 0)


def test_bound_is_reconstruction_less_kl() -> None:
    b = Bound(torch.tensor([-3.0, -4.0]), torch.tensor([[1.0, 2.0], [0.5, 0.0]]))
    assert b.elbo.tolist() == [-6.0, -4.5]


def test_every_mean_of_the_report_has_its_error() -> None:
    """Of all numbers but counts, names and what is no mean of data points; and each is sd / √N."""
    labels = torch.arange(23) % 2
    model, x = vae(families.Bernoulli(12)), binary()
    e = evaluate(model, x, importance_samples=3, labels=labels, reference=(x, labels))
    no_means = {"log_likelihood_monte_carlo_se", "kmeans_nmi", "kmeans_ari"}
    assert e.latent is not None
    for report in (e.to_dict(), e.to_dict()["latent"]):
        means = {k for k, v in report.items() if isinstance(v, float | list) and not k.endswith("_se")} - no_means
        assert {f"{k}_se" for k in means} <= {k for k, v in report.items() if v is not None}
    bound = elbo(model, x)
    for name, values in (("reconstruction", bound.reconstruction), ("kl", bound.kl.sum(1)), ("elbo", bound.elbo)):
        assert getattr(e, name).se == pytest.approx(float(values.std()) / math.sqrt(23))
    right = torch.tensor([1.0] * 17 + [0.0] * 6)
    assert Estimate.share(17 / 23, 23).se == pytest.approx(float(right.std()) / math.sqrt(23))
    assert math.isnan(Estimate.share(1.0, 1).se)


def test_every_number_is_that_of_the_points_whatever_their_order_and_their_batches() -> None:
    """700 points, in two orders, and cut into 699 and one: at the exact posterior log w and all but the ELBO are
    exact."""
    o = oracle(d=2)
    model, x = o.vae(), o.data(700)
    x[350:] += 8 * o.W[:, 0]  # two clusters, far apart
    labels, order = (torch.arange(700) >= 350).long(), torch.randperm(700)
    whole, turned = (
        evaluate(model, x[i], importance_samples=4, elbo_samples=50, labels=labels[i], reference=(x, labels)).to_dict()
        for i in (torch.arange(700), order)
    )
    noisy = {"elbo", "reconstruction", "elbo_se", "reconstruction_se"}
    numbers = {k: v for k, v in {**whole, **whole["latent"]}.items() if isinstance(v, float | int | list)}
    turned |= turned["latent"]
    assert len(numbers) > 20
    for name, value in numbers.items():
        assert turned[name] == pytest.approx(value, rel=1e-6, abs=0.02 if name in noisy else 1e-6), name
    parts = [evaluate(model, part, importance_samples=4, elbo_samples=50) for part in (x[:699], x[699:])]
    for name in ("elbo", "reconstruction", "kl", "log_likelihood", "effective_sample_size"):
        both = (699 * getattr(parts[0], name) + getattr(parts[1], name)) / 700
        assert whole[name] == pytest.approx(both, abs=0.02 if name in noisy else 1e-6), name


def test_reports_are_immutable() -> None:
    e = evaluate(vae(families.Bernoulli(12)), binary(), importance_samples=2)
    assert isinstance(e, Evaluation)
    with pytest.raises(AttributeError):
        e.elbo = 0.0  # type: ignore[misc]


@pytest.mark.filterwarnings("error")
def test_one_code_for_all_is_one_cluster() -> None:
    found = kmeans(torch.ones(20, 3), torch.arange(20) % 2)
    assert (found.nmi, found.ari, found.accuracy) == (0.0, 0.0, 0.5)


def test_an_estimate_is_a_number_with_its_error() -> None:
    values = torch.tensor([1.0, 2.0, 4.0])
    e = Estimate.of(values)
    assert (e, e.mean, e.n) == (pytest.approx(7 / 3), pytest.approx(7 / 3), 3)
    assert e.se == pytest.approx(float(values.std()) / math.sqrt(3))
    assert str(Estimate(-91.904, 0.306, 5)) == "-91.90 ± 0.31"
    assert Estimate(-91.904, 0.306).text(1) == "-91.9 ± 0.3"
    assert (str(Estimate(2.0)), str(Estimate(math.inf)), str(Estimate(math.nan, 1.0))) == ("2.00", "–", "–")
    moved, scaled = e.moved(-1.5), e.times(-2)
    assert (moved, moved.se, scaled, scaled.se) == pytest.approx((e - 1.5, e.se, -2 * e, 2 * e.se))
    content = {"a": e, "b": [e, moved], "c": {"d": Estimate(math.nan, 1.0)}, "k": 3, "why": None}
    assert flat(content) == {
        "a": e.mean,
        "a_se": e.se,
        "b": [e.mean, moved.mean],
        "b_se": [e.se, e.se],
        "c": {"d": None, "d_se": 1.0},
        "k": 3,
        "why": None,
    }


POSTERIORS = [families.Normal(3), families.FullNormal(3), families.StudentT(3)]


@pytest.mark.parametrize("posterior", POSTERIORS, ids=repr)
def test_the_score_of_a_row_depends_on_no_other_row(posterior: families.Family) -> None:
    """Alone, among others, in another order and in other batches: one score, by one noise."""
    model, x = vae(families.Bernoulli(12), posterior), binary(23)
    whole = log_marginal(model, x, 300)
    order = torch.randperm(23)
    torch.testing.assert_close(log_marginal(model, x[order], 300).log_px, whole.log_px[order], rtol=0, atol=1e-5)
    for row in (0, 7, 22):
        assert float(log_marginal(model, x[[row]], 300).log_px) == pytest.approx(float(whole.log_px[row]), abs=1e-5)
        assert float(elbo(model, x[[row]]).elbo) == pytest.approx(float(elbo(model, x).elbo[row]), abs=1e-5)
    with walking(memory=1):
        one = log_marginal(model, x, 300)
    torch.testing.assert_close(one.log_px, whole.log_px, rtol=0, atol=1e-5)
    e = evaluate(model, x, importance_samples=99)  # from 100 on it takes other proposals: test_defensive.py
    assert e.log_likelihood == pytest.approx(float(log_marginal(model, x, 99).log_px.mean()), abs=1e-5)
    assert bool((log_marginal(model, x, 300, seed=1).log_px != whole.log_px).all())


def test_errors_of_different_rows_are_independent() -> None:
    """The mean of N scores is off by √N times less than one: noise that rows shared would not average out."""
    truth = oracle()
    model, x = truth.vae(shift=0.3), truth.data(400)
    exact = truth.evidence.log_prob(x)
    means = torch.stack([(log_marginal(model, x, 20, seed=s).log_px - exact).mean() for s in range(40)])
    each = torch.stack([log_marginal(model, x, 20, seed=s).log_px - exact for s in range(40)]).std(0).mean()
    assert float(means.std()) == pytest.approx(float(each) / 20, rel=0.5)


def test_a_model_encodes_each_data_point_once() -> None:
    model, x = vae(families.Bernoulli(12)), binary(300)
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    evaluate(model, x, importance_samples=20, elbo_samples=3, labels=torch.arange(300) % 2)
    assert seen[:2] == [1, 1]  # two looks at the first: to know the kinds of q(z|x) and of p(x|z)
    assert sum(seen[2:]) == 300


def test_active_units_are_measured_by_the_priors_variance() -> None:
    """A latent whose prior has scale c is as active as the same latent at scale 1."""

    def scaled(c: float) -> aevb.Evaluation:
        torch.manual_seed(0)
        prior = aevb.Known(torch.distributions.Normal, (0.0, c), 3)
        encoder = aevb.Conditional(Scaled(nn.Linear(12, 6), c), families.Normal(3))
        return evaluate(aevb.VAE(prior, encoder, aevb.Conditional(nn.Linear(3, 12), families.Bernoulli(12))), x)

    x = binary(200)
    counts = {scaled(c).active_units for c in (1e-3, 1.0, 1e3)}
    assert len(counts) == 1
    assert counts != {0}


class Scaled(nn.Module):
    """(c μ, log σ² + 2 log c): the posterior of c z."""

    def __init__(self, net: nn.Module, c: float) -> None:
        super().__init__()
        self.net, self.c = net, c

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.net(x).chunk(2, -1)
        return torch.cat([self.c * mean, log_variance + 2 * math.log(self.c)], -1)


def test_bits_are_reported_only_where_every_number_is_discrete() -> None:
    c = torch.distributions.constraints
    mixed = c.cat([c.independent(c.boolean, 1), c.independent(c.real, 1)], -1, [2, 1])
    counts = c.cat([c.independent(c.boolean, 1), c.independent(c.nonnegative_integer, 1)], -1, [2, 1])
    assert not discrete(mixed)
    assert discrete(counts)
    assert discrete(c.independent(c.boolean, 1))
    assert not discrete(c.real_vector)


def test_the_perplexity_is_that_of_all_rows_whatever_their_batches() -> None:
    """exp H of the mean of q(code|x) over all 1,201 rows, of which no batch holds more than a part."""
    family = OneHot((2, 4))
    encoder = Conditional(nn.Linear(12, family.size), family)
    decoder = Conditional(MLP((2, 4), 12, [8]), families.Bernoulli(12))
    model, x = VAE(UniformOverCodes(encoder), encoder, decoder), binary(1201)
    x[600:, :6] = 1.0  # the batches use other codes
    shares = model.encoder.net(x).unflatten(-1, (2, 4)).softmax(-1).double().mean(0)
    expected = torch.special.entr(shares).sum(-1).exp().mean()
    assert evaluate(model, x, importance_samples=1).perplexity == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_linear_probe_does_not_depend_on_the_scale_of_single_latents() -> None:
    """The label is in the latent that is a thousandth as large as the others."""
    torch.manual_seed(0)
    labels = torch.arange(400) % 3
    codes = torch.cat([labels[:, None] + 0.1 * torch.randn(400, 1), torch.randn(400, 3)], 1).double()
    probe = [
        linear_probe(z[:200], labels[:200], z[200:], labels[200:])
        for z in (codes, codes * torch.tensor([1e-3, 1.0, 50.0, 1.0], dtype=torch.float64))
    ]
    assert probe[0] == probe[1] > 0.95


def test_rows_of_the_train_split_are_not_classified_by_themselves(tmp_path: Path) -> None:
    data = load_data("digits", values="dynamic")
    recipe = aevb.Recipe.load("bernoulli").replace(
        training__samples=500, latent=2, encoder__hidden=[8], decoder__hidden=[8]
    )
    run = aevb.fit(recipe, data, tmp_path / "run")
    test, train = (
        evaluate_run(run, data, part, settings=EvaluationSettings(1, 2), limit=100) for part in ("test", "train")
    )
    assert 0 < test["latent"]["knn_accuracy"] < 1
    assert math.isnan(train["latent"]["knn_accuracy"])
    assert math.isnan(train["latent"]["linear_accuracy"])
