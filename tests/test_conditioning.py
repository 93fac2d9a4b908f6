"""Contexts and few labels: p(x|y) against closed forms, M2's sum over labels by hand, pairs that stay pairs, runs."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path

import pytest
import torch
from oracle import DTYPE, oracle
from torch import Tensor, nn
from typer.testing import CliRunner

import aevb
from aevb.apps.cli import app
from aevb.data.arrays import array_dataset
from aevb.data.batch import Batch
from aevb.data.labels import UNKNOWN, Pairs, hide_labels, one_hot
from aevb.data.randomness import derive, seeded
from aevb.data.sources import load_data
from aevb.errors import DataError, RecipeError, ShapeError
from aevb.evaluation.bound import elbo
from aevb.evaluation.evaluate import evaluate, table
from aevb.evidence.importance import log_marginal
from aevb.models import rows
from aevb.models.compat import check_model
from aevb.models.conditional import Conditional
from aevb.models.networks import Planes
from aevb.models.priors import StandardNormal
from aevb.models.vae import VAE
from aevb.objectives.bounds import ELBO, Objective
from aevb.objectives.importance import ImportanceWeighted
from aevb.objectives.monte_carlo_em import MonteCarloEM
from aevb.objectives.semi_supervised import M2, Labelled
from aevb.objectives.terms import members_of
from aevb.objectives.wake_sleep import WakeSleep
from aevb.probability import families
from aevb.runs.build import build_model
from aevb.runs.evaluate import evaluate_run
from aevb.runs.files import read_tensors
from aevb.runs.fit import fit, resume
from aevb.runs.recipe import EvaluationSettings, Recipe
from aevb.training.learner import Loss
from aevb.training.optimizers import SGD
from aevb.training.start import some_rows
from aevb.training.train import Training, train
from aevb.use.encode import encode
from aevb.use.generate import generate

SMALL = ["latent=2", "encoder.hidden=[16]", "decoder.hidden=[16]", "validation.every=300", "training.batch=50"]

# p(x|y) in closed form: the oracle whose mean moves with the context, x | z, y ~ N(W z + b + U y, s² I)

O, U = oracle(), torch.randn(6, 2, generator=torch.Generator().manual_seed(7), dtype=DTYPE)


def linear(*columns: Tensor, bias: Tensor) -> nn.Linear:
    """The linear map of contexts side by side, with these weights for each."""
    weight = torch.cat(columns, 1)
    layer = nn.Linear(weight.shape[1], len(weight), dtype=DTYPE)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def shifted(wrong: float = 0.0) -> VAE:
    """The conditional VAE with the exact posterior N(v Wᵀ(x - b - U y) / s², v), or with its mean `wrong`."""
    gain, v = O.W.T * O.variances[:, None] / O.s**2, O.variances
    zero, bias = torch.zeros_like(gain), torch.cat([wrong - gain @ O.b, v.log()])
    encoder = linear(torch.cat([gain, zero]), torch.cat([-gain @ U, zero @ U]), bias=bias)
    decoder = linear(O.W, U, bias=O.b)
    return VAE(
        StandardNormal(3), Conditional(encoder, families.Normal(3)), Conditional(decoder, families.Normal(6, scale=O.s))
    ).double()


def data(n: int = 12) -> Pairs:
    y = torch.randn(n, 2, generator=torch.Generator().manual_seed(3), dtype=DTYPE)
    return Pairs(O.data(n) + y @ U.T, y)


def exact(pairs: Pairs) -> Tensor:
    """log p(x|y), (N,)."""
    batch = pairs[torch.arange(len(pairs))]
    return O.evidence.log_prob(batch.x - batch.y @ U.T)


def test_log_px_given_y_at_the_exact_posterior() -> None:
    """Every weight is p(x|y), so one sample is as good as many; and more points than are decoded at a time."""
    pairs = data(90)
    with aevb.walking(memory=600):
        found = log_marginal(shifted(), pairs, 3)
    torch.testing.assert_close(found.log_px, exact(pairs), rtol=0, atol=1e-9)
    assert float((log_marginal(shifted(), Pairs(pairs.x, pairs.y.flip(0)), 3).log_px - exact(pairs)).abs().max()) > 1


def test_log_px_given_y_by_importance_sampling() -> None:
    pairs = data()
    found = log_marginal(shifted(wrong=0.2), pairs, 4000)
    assert bool(((found.log_px - exact(pairs)).abs() < 5 * found.se + 1e-3).all())
    assert float(found.se.min()) > 0.001


def test_a_prior_may_read_the_context() -> None:
    """p(z|y) = N(V y, I) moves p(x|y) by W V y, and the posterior is exact again; its draws have that mean."""
    v = torch.randn(3, 2, generator=torch.Generator().manual_seed(9), dtype=DTYPE)
    gain, pairs = O.W.T * O.variances[:, None] / O.s**2, data()
    prior = linear(torch.cat([v, torch.zeros_like(v)]), bias=torch.zeros(6, dtype=DTYPE))
    encoder = linear(
        torch.cat([gain, torch.zeros_like(gain)]),
        torch.cat([v - gain @ O.W @ v, torch.zeros_like(v)]),
        bias=torch.cat([-gain @ O.b, O.variances.log()]),
    )
    decoder = linear(O.W, torch.zeros_like(U), bias=O.b)
    q, p = families.Normal(3), families.Normal(6, scale=O.s)
    model = VAE(Conditional(prior, q), Conditional(encoder, q), Conditional(decoder, p)).double()
    expected = O.evidence.log_prob(pairs.x[torch.arange(12)] - pairs.y @ (O.W @ v).T)
    torch.testing.assert_close(log_marginal(model, pairs, 2).log_px, expected, rtol=0, atol=1e-9)
    many = generate(model, 4000, y=pairs.y[:1])
    torch.testing.assert_close(many.mean(0), O.b + O.W @ v @ pairs.y[0], rtol=0, atol=0.15)


OBJECTIVES: dict[str, Objective] = {
    "elbo": ELBO(),
    "A": ELBO("A", samples=2),
    "iwae": ImportanceWeighted(3),
    "stl": ImportanceWeighted(1, gradient="stl"),
    "vimco": ImportanceWeighted(3, gradient="vimco"),
    "wake-sleep": WakeSleep(),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_constant_context_is_an_unconditional_model(name: str) -> None:
    """The same weights, with U y₀ part of the bias: the same loss, and the same gradient of what both models have."""
    y = torch.tensor([0.7, -1.3], dtype=DTYPE)
    moved = type(O)(O.W, O.b + U @ y, O.s)
    ours, plain = shifted(wrong=0.3), moved.vae(shift=0.3)
    x, found = moved.data(20), []
    for model, batch in ((ours, Batch(x, y.expand(20, 2))), (plain, x)):
        torch.manual_seed(5)
        loss, _ = Loss(model, OBJECTIVES[name])(batch, torch.tensor(0))
        loss.backward()
        found.append((loss.detach(), model.decoder.net.bias.grad, model.encoder.net.bias.grad))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_a_constant_context_is_evaluated_as_an_unconditional_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same noise, whose seed else is of x and y."""
    monkeypatch.setattr(rows, "row_seeds", lambda batch, seed: [int(1e6 * x) for x in batch.x[:, 0].abs()])
    y = torch.tensor([0.7, -1.3], dtype=DTYPE)
    moved = type(O)(O.W, O.b + U @ y, O.s)
    x = moved.data(20)
    pairs, ours, plain = Pairs(x, y.expand(20, 2)), shifted(wrong=0.3), moved.vae(shift=0.3)
    torch.testing.assert_close(elbo(ours, pairs, samples=4).elbo, elbo(plain, x, samples=4).elbo)
    torch.testing.assert_close(encode(ours, pairs), encode(plain, x))
    a, b = evaluate(ours, pairs, importance_samples=10), evaluate(plain, x, importance_samples=10)
    one, other = a.to_dict(), b.to_dict()
    for name in ("kl_per_dimension", "kl_per_dimension_se"):
        assert one.pop(name) == pytest.approx(other.pop(name))
    assert one == pytest.approx(other)
    new = generate(ours, 7, y=y[None], draw=True), generate(plain, 7, draw=True)
    torch.testing.assert_close(*new)


def test_data_permuted_with_their_contexts_are_the_same_data() -> None:
    """At the exact posterior there is no noise to permute; and the loss of a whole epoch is the same."""
    pairs, order = data(), torch.randperm(12, generator=torch.Generator().manual_seed(2))
    permuted = Pairs(pairs.x[order], pairs.y[order])
    found, again = (log_marginal(shifted(), p, 2).log_px for p in (pairs, permuted))
    torch.testing.assert_close(again, found[order], rtol=0, atol=1e-9)
    losses = [
        next(iter(train(shifted(), ImportanceWeighted(2), p, Training(SGD(), batch=12, samples=12)))).info["loss"]
        for p in (pairs, permuted)
    ]
    torch.testing.assert_close(*losses)
    assert float(losses[0]) == pytest.approx(-float(exact(pairs).mean()))


def test_training_learns_what_the_context_does() -> None:
    """The decoder's weights of the context go to the regression of x on y, which is the most likely U."""
    pairs, model = data(400), shifted()
    with torch.no_grad():
        model.decoder.net.weight[:, 3:] = 0
    for _ in train(model, ELBO(), pairs, Training(aevb.Adam(3e-2), batch=100, samples=100_000)):
        pass
    x, y = pairs.x, pairs.y
    best = torch.linalg.lstsq(torch.cat([y, torch.ones(400, 1, dtype=DTYPE)], 1), x).solution[:2].T
    assert float((model.decoder.net.weight[:, 3:].detach() - best).abs().max()) < 0.1


def test_monte_carlo_em_takes_contexts() -> None:
    """Its chains are of p(z|x, y): their draws have the exact posterior's mean."""
    pairs, model = data(6), shifted()
    objective = MonteCarloEM()
    still = Training(SGD(1e-12), batch=6, samples=6 * 60 * objective.updates)
    draws = []
    for _ in train(model, objective, pairs, still):
        draws.append(objective.z.clone())
    exact = O.posterior(pairs.x - pairs.y @ U.T)
    error = (torch.stack(draws[len(draws) // 4 :]).mean(0) - exact.mean) / O.variances.sqrt()
    assert float(error.abs().max()) < 1


@pytest.mark.slow
@pytest.mark.parametrize("objective", [ELBO(), M2(nn.Linear(6, 2).double(), 1.0)], ids=["elbo", "m2"])
def test_pairs_are_compiled(objective: Objective) -> None:
    pairs = Pairs(O.data(40), torch.eye(2, dtype=DTYPE).repeat(20, 1))
    runs = []
    for fused in (False, True):
        steps = train(shifted(), copy.deepcopy(objective), pairs, Training(batch=20, samples=60, compile=fused))
        runs.append([float(step.info["loss"]) for step in steps])
    assert runs[0] == pytest.approx(runs[1], rel=1e-6)


def test_generation_takes_a_context_for_each() -> None:
    model, y = shifted(), torch.randn(1100, 2, dtype=DTYPE)  # more than one batch
    new, plain = generate(model, 1100, y=y), generate(model, 1100, y=torch.zeros(1, 2, dtype=DTYPE))
    torch.testing.assert_close(new - plain, y @ U.T)
    with pytest.raises(
        ShapeError, match=r"3 data points need 3 conditions y \(N, C\), or one for all; got the shape \(2, 2\)"
    ):
        generate(model, 3, y=y[:2])


# M2: a model of which everything can be enumerated, x in {0, 1}³ and y in {0, 1, 2}, whose decoder does not read z

P = torch.tensor([[0.1, 0.5, 0.8], [0.6, 0.3, 0.3], [0.9, 0.9, 0.2]], dtype=DTYPE)  # p(x_i = 1 | y)
X = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=DTYPE)  # all x
LOG_PXY = torch.stack([(X * p.log() + (1 - X) * (1 - p).log()).sum(1) for p in P], 1) - math.log(3)  # log p(x, y)
NOTHING = torch.zeros(8, 3, dtype=DTYPE)  # all labels unknown


def enumerable() -> VAE:
    """q(z|x, y) = p(z): both bounds are free of noise."""
    decoder = linear(torch.zeros(3, 1, dtype=DTYPE), torch.logit(P).T, bias=torch.zeros(3, dtype=DTYPE))
    encoder = linear(torch.zeros(2, 6, dtype=DTYPE), bias=torch.zeros(2, dtype=DTYPE))
    q, p = families.Normal(1), families.Bernoulli(3)
    return VAE(StandardNormal(1), Conditional(encoder, q), Conditional(decoder, p)).double()


def classifier(exactly: bool = False) -> nn.Linear:
    """q(y|x), some, or p(y|x), which is linear in x."""
    if exactly:
        return linear(torch.logit(P), bias=(1 - P).log().sum(1))
    return linear(
        torch.tensor([[1.0, -1, 0.5], [0, 2, 0], [-1, 0.3, 0]], dtype=DTYPE), bias=torch.zeros(3, dtype=DTYPE)
    )


def test_the_unlabelled_bound_is_the_sum_over_labels_by_hand() -> None:
    objective, model = M2(classifier(), 0.5), enumerable()
    q = objective.classifier(X).softmax(1)
    by_hand = sum(q[:, y] * (LOG_PXY[:, y] - q[:, y].log()) for y in range(3))
    found = objective.bound(model, X, NOTHING)
    torch.testing.assert_close(found, by_hand)
    log_px = LOG_PXY.logsumexp(1)
    assert bool((found < log_px - 1e-3).all())  # by KL(q(y|x) ‖ p(y|x))
    torch.testing.assert_close(log_px - found, (q * (q.log() - LOG_PXY.log_softmax(1))).sum(1))


def test_the_unlabelled_bound_is_tight_at_the_true_classifier() -> None:
    found = M2(classifier(exactly=True), 0.5).bound(enumerable(), X, NOTHING).detach()
    torch.testing.assert_close(found, LOG_PXY.logsumexp(1))
    assert float(found.exp().sum()) == pytest.approx(1)  # it is p(x), summed over all x


def test_the_labelled_bound_is_that_of_the_joint() -> None:
    for y in range(3):
        label = one_hot(torch.full((8,), y), 3).double()
        torch.testing.assert_close(M2(classifier(), 0.5).bound(enumerable(), X, label), LOG_PXY[:, y])


def noisy(seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    q, p = families.Normal(2), families.Bernoulli(3)
    return VAE(StandardNormal(2), Conditional(nn.Linear(6, q.size), q), Conditional(nn.Linear(5, p.size), p)).double()


def test_a_classifier_that_is_sure_makes_both_bounds_one() -> None:
    sure = linear(torch.zeros(3, 3, dtype=DTYPE), bias=torch.tensor([0, 1e5, 0], dtype=DTYPE))
    objective, model, found = M2(sure, 0.5), noisy(), []
    for y in (NOTHING, one_hot(torch.ones(8, dtype=torch.int64), 3).double()):
        torch.manual_seed(1)
        found.append(objective.bound(model, X, y))
    torch.testing.assert_close(*found)
    torch.manual_seed(1)
    loss, _ = objective(model, Batch(X, NOTHING), 0)
    assert all(bool(torch.isfinite(g).all()) for g in torch.autograd.grad(loss, list(model.parameters())))


def test_the_labelled_bound_is_the_elbo_under_that_label() -> None:
    """Less log C, and of each x under its own label: not, say, of the next one's."""
    model, labels = noisy(), torch.arange(8) % 3
    y = one_hot(labels, 3).double()
    found = torch.stack([M2(classifier(), 1.0, samples=500).bound(model, X, y) for _ in range(4)]).mean(0)
    bound = elbo(model, Pairs(X, y), samples=2000).elbo
    torch.testing.assert_close(found, bound - math.log(3), rtol=0, atol=0.03)


def test_the_loss_of_m2_is_the_papers() -> None:
    """J^α / N over all data in one batch, by hand; and on the average over batches of two, some without a label."""
    objective, model = M2(classifier(), labeled_fraction=3 / 8, alpha=0.7), enumerable()
    labels = torch.tensor([0, UNKNOWN, UNKNOWN, 2, UNKNOWN, 1, UNKNOWN, UNKNOWN])
    y, known = one_hot(labels, 3).double(), labels != UNKNOWN
    log_q = objective.classifier(X).log_softmax(1)
    bounds = torch.where(
        known, LOG_PXY.gather(1, labels.clamp(min=0)[:, None])[:, 0], objective.bound(model, X, NOTHING)
    )
    expected = -bounds.mean() - 0.7 * log_q[known].gather(1, labels[known][:, None]).mean()
    loss, info = objective(model, Batch(X, y), 0)
    torch.testing.assert_close(loss, expected)
    assert float(info["elbo"]) == pytest.approx(float(bounds.mean()))
    pairs = list(itertools.combinations(range(8), 2))
    batches = [objective(model, Batch(X[list(i)], y[list(i)]), 0)[0] for i in pairs]
    torch.testing.assert_close(torch.stack(batches).mean(), expected)


def test_without_alpha_a_label_says_nothing_to_the_classifier() -> None:
    """L(x, y) does not hold q(y|x) (arXiv 1406.5298, §3.2): the reason for the classification term."""
    labels, model = one_hot(torch.arange(8) % 3, 3).double(), enumerable()
    for alpha, learns in ((0.0, False), (0.1, True)):
        objective = M2(classifier(), 1.0, alpha)
        (gradient,) = torch.autograd.grad(objective(model, Batch(X, labels), 0)[0], [objective.classifier.weight])
        assert bool((gradient != 0).any()) is learns


def test_m2_predicts_from_three_labels_and_the_shape_of_the_data() -> None:
    """Three clusters of the model above, one label each: most labels follow."""
    g = torch.Generator().manual_seed(0)
    p = torch.eye(3).repeat_interleave(4, 1) * 0.9 + 0.05
    labels = torch.randint(3, (600,), generator=g)
    x = (torch.rand(600, 12, generator=g) < p[labels]).float()
    told = hide_labels(labels, 1)
    torch.manual_seed(0)
    q, px = families.Normal(1), families.Bernoulli(12)
    model = VAE(StandardNormal(1), Conditional(nn.Linear(15, 2), q), Conditional(nn.Linear(4, 12), px))
    objective = M2.of(model, Labelled(3, 3 / 600), hidden=(16,))
    for _ in train(model, objective, Pairs(x, one_hot(told, 3)), Training(aevb.Adam(1e-2), samples=60_000)):
        pass
    assert float((objective.classifier(x).argmax(1) == labels).float().mean()) > 0.9


# Labels


def test_labels_become_contexts() -> None:
    assert one_hot(torch.tensor([2, UNKNOWN, 0]), 3).tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    for wrong in (3, -1, -2):
        with pytest.raises(DataError, match=f"a label {wrong}, but 3 classes have the labels 0 to 2"):
            one_hot(torch.tensor([0, wrong]), 3)
    with pytest.raises(ShapeError, match="3 data points need as many conditions y; got 2"):
        Pairs(torch.zeros(3, 1), torch.zeros(2, 1))


def test_a_few_labels_of_each_class_are_kept() -> None:
    labels = torch.randint(4, (200,), generator=torch.Generator().manual_seed(0))
    kept = hide_labels(labels, 5, seed=1)
    known = kept != UNKNOWN
    assert kept[known].bincount().tolist() == [5, 5, 5, 5]
    assert torch.equal(kept[known], labels[known])
    assert torch.equal(kept, hide_labels(labels, 5, seed=1))
    assert not torch.equal(kept, hide_labels(labels, 5, seed=2))
    with pytest.raises(DataError, match="only"):
        hide_labels(labels, 150)


# Refusals


def test_m2_says_what_it_needs() -> None:
    with pytest.raises(DataError, match="M2 trains on pairs of data and one-hot labels"):
        M2(classifier(), 0.5)(enumerable(), X, 0)
    with pytest.raises(ValueError, match="0 < labeled_fraction ≤ 1"):
        M2(classifier(), 0.0)
    model = enumerable()
    fitted = Conditional(nn.Linear(4, 12), aevb.OptimalNormal(12))
    alike = VAE(model.prior, model.encoder, fitted)
    refused = r"likelihood optimal-normal gives no likelihood of single data points, .* one of: normal, "
    with pytest.raises(RecipeError, match=refused):
        check_model(alike, *members_of(M2.of(alike, Labelled(3, 0.5))))


def test_pseudo_inputs_of_m2_begin_at_the_labels_that_it_is_told() -> None:
    """Among 500 there are all digits that are labelled, under their own label; the others' labels are drawn."""
    digits = load_data("digits", values="dynamic")
    recipe = Recipe.load("m2").override(["prior={type='vamp', components=1197}", *SMALL]).of(digits)
    told = hide_labels(digits.train.labels, recipe.context().labels, recipe.source().seed)  # type: ignore[arg-type]
    batch = some_rows(recipe.context().rows(digits.train, "cpu", told), len(told), seed=0)
    assert batch.y is not None
    with seeded(derive(0, "pseudo-inputs")):
        order = torch.randperm(len(told))
    assert bool((batch.y.sum(1) == 1).all())
    given, told = batch.y.argmax(1), told[order]
    assert bool((given == told)[told >= 0].all())
    hidden = digits.train.labels[order]  # type: ignore[index]
    agree = float((given == hidden)[told < 0].float().mean())
    assert abs(agree - 0.1) < 4.5 * math.sqrt(0.09 / int((told < 0).sum()))  # by chance


@pytest.mark.parametrize("network", ["conv", "residual"])
def test_convolutions_read_a_label_as_planes(network: str) -> None:
    """Beside the image, the same number at every pixel; encoder, pseudo-inputs and decoder take it."""
    x, y = torch.rand(3, 2, 4, 5), torch.randn(3, 2)
    c = torch.cat([x.flatten(1), y], 1)
    torch.testing.assert_close(Planes((2, 4, 5))(c), torch.cat([x, y[:, :, None, None] * torch.ones(3, 2, 4, 5)], 1))
    changes = [
        f"encoder={network}",
        f"decoder={network}",
        "latent=2",
        "context.classes=3",
        "prior={type='vamp', components=4}",
    ]
    model = build_model(Recipe.load("conditional").override(changes), (1, 8, 8))
    image, label = torch.rand(5, 1, 8, 8), one_hot(torch.arange(5) % 3, 3)
    assert not torch.equal(model.encode(Batch(image, label)), model.encode(Batch(image, label.roll(1, 0))))
    loss, _ = ELBO()(model, Batch(image, label), 0)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_contexts_are_checked_before_training(wrong: float) -> None:
    pairs = data()
    pairs.y[3, 0] = wrong
    with pytest.raises(DataError, match=r"1 NaN or infinite values in row 3\."):
        next(iter(train(shifted(), ELBO(), pairs)))
    with pytest.raises(DataError, match=r"1 NaN or infinite values in row 3\."):
        next(iter(train(shifted(), ELBO(), Pairs(pairs.x, pairs.y.float()))))  # which is cast


MISTAKES = {
    "objective=m2": r"The context gives no labels, which the objective m2 requires\. Choose .* or context\.classes",
    "context.labels=3": r"objective elbo gives no use of data without labels, .* Choose one of: m2\.",
    "context={classes=10, labels=1}": r"objective elbo gives no use of data without labels, .* Choose one of: m2\.",
    'context={classes=10, kind="x"}': "context: there is no 'kind'",
    "context.classes=-1": "classes must be at least 0",
}


@pytest.mark.parametrize("assignment", MISTAKES)
def test_a_mistake_about_contexts_leaves_no_folder(assignment: str, tmp_path: Path) -> None:
    recipe = Recipe.load("bernoulli").override([assignment])
    with pytest.raises(RecipeError, match=MISTAKES[assignment]):
        fit(recipe, load_data("digits", values="dynamic"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_without_labels_have_no_contexts(tmp_path: Path) -> None:
    unlabelled = array_dataset((torch.rand(100, 5) < 0.5).float().numpy(), values="threshold")
    with pytest.raises(DataError, match=r"conditions on labels .* but the data have none"):
        fit(Recipe.load("conditional"), unlabelled, tmp_path / "run")


# Runs


@pytest.mark.parametrize("name", ["conditional", "m2"])
def test_a_conditional_run_resumes_and_loads_bit_for_bit(name: str, tmp_path: Path) -> None:
    digits = load_data("digits", values="dynamic")
    recipe = Recipe.load(name).override(SMALL + ["objective.hidden=[8]"] * (name == "m2"))
    whole = fit(recipe.replace(training__samples=1200), digits, tmp_path / "whole")
    half = fit(recipe.replace(training__samples=600), digits, tmp_path / "half")
    again = resume(half, digits, samples=1200)
    files = ["weights.safetensors"] + ["objective.safetensors"] * (name == "m2")
    for file in files:
        a, b = (read_tensors(run.path / file)[0] for run in (whole, again))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)
    x, y = digits.test[:10], one_hot(digits.test.labels[:10], 10)  # type: ignore[index]
    assert torch.equal(whole.model().encode(Batch(x, y)), aevb.load(again.path).encode(Batch(x, y)))
    assert not torch.equal(whole.model().encode(Batch(x, y)), whole.model().encode(Batch(x, y.roll(1, 0))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    small = [
        "objective.hidden=[64]",
        "encoder.hidden=[32]",
        "decoder.hidden=[32]",
        "latent=2",
        "training.samples=20_000",
    ]
    fit(Recipe.load("m2").override([*small, "training.optimizer.lr=3e-3"]), load_data("digits", values="dynamic"), path)
    return path


def test_a_conditional_run_is_judged_given_the_labels(folder: Path) -> None:
    run = aevb.Run.open(folder)
    digits = run.dataset()
    result = evaluate_run(run, digits, settings=EvaluationSettings(1, 10))
    given = Pairs(digits.test, one_hot(digits.test.labels, 10))  # type: ignore[arg-type]
    assert result["elbo"] == evaluate(run.model(), given, importance_samples=10).elbo
    assert result["latent"] is None  # codes of a model that reads the label know it
    assert [row[0] for row in table(result)][3] == "log p(x|y)"
    assert 0.5 < result["classifier_accuracy"] <= 1  # from ten labels of each class; 0.1 by chance


def test_a_class_is_asked_for_by_name(folder: Path, tmp_path: Path) -> None:
    def call(*arguments: object) -> object:
        return CliRunner().invoke(app, [str(a) for a in arguments]).exception

    model, three = aevb.load(folder), one_hot(torch.tensor([3]), 10)
    assert call("sample", folder, "-n", 5, "--given", "3", "--out", tmp_path / "x.npy") is None
    assert torch.equal(array(tmp_path / "x.npy"), sixteenths(generate(model, 5, y=three)))
    assert call("sample", folder, "-n", 20, "--out", tmp_path / "all.npy") is None
    every = one_hot(torch.arange(20) % 10, 10)
    assert torch.equal(array(tmp_path / "all.npy"), sixteenths(generate(model, 20, y=every)))
    assert "there is no such class" in str(call("sample", folder, "--given", "three"))
    assert "Possible: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in str(call("sample", folder, "--given", "10"))
    assert call("encode", folder, "--out", tmp_path / "codes.npy") is None
    assert array(tmp_path / "codes.npy").shape == (300, 2)


def sixteenths(p: Tensor) -> Tensor:
    """Probabilities as grey levels of the digits, 0 to 16."""
    return (16 * p.double()).round().to(torch.uint8)


def array(path: Path) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.load(path))


def test_the_default_weight_of_the_classifier_is_the_papers() -> None:
    """0.1 N over N (arXiv 1406.5298, §4), however M2 is made."""
    classifier = nn.Linear(6, 3)
    assert M2(classifier, 0.5).alpha == M2.of(O.vae(), Labelled(3, 0.5)).alpha == 0.1
    assert M2.of(O.vae(), Labelled(3, 0.5)).samples == M2(classifier, 0.5).samples == 1
