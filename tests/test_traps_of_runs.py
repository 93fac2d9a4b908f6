"""As test_traps.py, for what befalls training, runs on disk, data and what is reported of them."""

from __future__ import annotations

import copy
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import oracle
from torch import Tensor, nn

import aevb
from aevb.data.arrays import array_dataset
from aevb.data.dataset import Dataset
from aevb.data.sources import load_data
from aevb.errors import AevbWarning, DataError, RecipeError
from aevb.evaluation.bound import elbo
from aevb.evaluation.evaluate import evaluate
from aevb.evidence.importance import log_marginal
from aevb.models.conditional import Conditional
from aevb.models.priors import StandardNormal
from aevb.models.rows import by_batch
from aevb.models.trace import kl_groups
from aevb.models.vae import VAE
from aevb.objectives.bounds import ELBO
from aevb.objectives.schedules import Linear
from aevb.probability import families
from aevb.probability.codes import Concrete
from aevb.runs.build import build_model, build_objective, unfinished
from aevb.runs.files import read_tensors
from aevb.runs.fit import fit
from aevb.runs.parts import FAMILIES
from aevb.runs.recipe import Recipe, recipe_names
from aevb.runs.store import Run
from aevb.use.encode import encode
from aevb.use.fit_prior import fit_prior
from aevb.use.generate import generate

SOURCE = Path(aevb.__file__).parent


def small(samples: int = 1000, **changes: Any) -> Recipe:
    recipe = Recipe.load("bernoulli").override(["latent=2", "encoder.hidden=[16]", "decoder.hidden=[16]"])
    return recipe.replace(training__samples=samples, evaluation__importance_samples=5, **changes)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits", values="dynamic")


@pytest.fixture(scope="module")
def run(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(small(2000), digits, tmp_path_factory.mktemp("traps") / "run")


def state(run: Run) -> dict[str, Tensor]:
    return read_tensors(run.path / "checkpoint" / "state.safetensors")[0]


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# The bound and its parts


def vae(q: families.Family, p: families.Family) -> VAE:
    """A linear VAE with weights of its own."""
    torch.manual_seed(0)
    x, z = math.prod(p.shape), math.prod(q.shape)
    encoder, decoder = (nn.Sequential(nn.Flatten(), nn.Linear(a, b)) for a, b in ((x, q.size), (z, p.size)))
    return VAE(StandardNormal(q.shape), Conditional(encoder, q), Conditional(decoder, p)).double()


def test_trap_06_a_likelihood_knows_but_one_shape_of_images() -> None:
    """The same numbers as an image, as rows, as a vector."""
    x = torch.bernoulli(torch.full((5, 12), 0.5, dtype=torch.float64))
    for shape in ((12,), (3, 4), (1, 4, 3), (3, 2, 2)):
        model = vae(families.Normal(2), families.Bernoulli(shape))
        found = log_marginal(model, x.reshape(5, *shape), 40).log_px
        torch.testing.assert_close(found, log_marginal(vae(families.Normal(2), families.Bernoulli(12)), x, 40).log_px)


def test_trap_16_the_weight_of_the_kl_depends_on_the_resolution() -> None:
    """An image of twice the pixels, each of them as before, has twice the reconstruction, and the KL that it had."""
    x = torch.rand(6, 1, 2, 3, dtype=torch.float64)
    one, four = families.Normal((1, 2, 3), scale=1.0), families.Normal((1, 4, 6), scale=1.0)
    phi = torch.randn(6, 6, dtype=torch.float64)
    enlarged = phi.view(6, 1, 2, 3).repeat_interleave(2, 2).repeat_interleave(2, 3)
    big = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(four(enlarged.flatten(1)).log_prob(big), 4 * one(phi).log_prob(x))


def test_trap_16_validation_has_another_objective(run: Run, digits: Dataset) -> None:
    """What is validated and kept is the bound of the trained model, as `elbo` gives it on the same split."""
    last = [line["validation"] for line in run.metrics() if "validation" in line][-1]
    bound = elbo(run.model(), digits.validation, groups=by_batch)
    assert run.meta["best_step"] == run.meta["steps"]  # so the weights are those of the last look
    assert last["elbo"] == pytest.approx(float(bound.elbo.mean()), rel=1e-6)
    assert last["kl"] == pytest.approx(float(bound.kl.sum(-1).mean()), rel=1e-6)


@pytest.mark.parametrize("beta", [0.001, Linear(0.0, 1.0, 10**6)])
def test_trap_16_weights_are_chosen_by_an_annealed_loss(beta: Any, digits: Dataset, tmp_path: Path) -> None:
    """Whatever β is in the loss, looks are at the plain bound: reconstruction less the whole KL."""
    table = {"type": "linear", "start": 0.0, "end": 1.0, "steps": 10**6} if isinstance(beta, Linear) else beta
    with warnings.catch_warnings(action="ignore", category=AevbWarning):
        made = fit(small(500, objective__beta=table), digits, tmp_path / "r")
    looks = [line["validation"] for line in made.metrics() if "validation" in line]
    assert looks
    for look in looks:
        assert look["elbo"] == pytest.approx(look["reconstruction"] - look["kl"], rel=1e-6)


def test_trap_30_the_kl_is_counted_twice() -> None:
    """The loss is what it says, to the last nat: -log p(x|z) + β KL, the KL being App. B's."""
    model, x = oracle().vae(shift=0.2), oracle().data(10)
    q = model.posterior(x)
    kl = 0.5 * (q.mean.square() + q.variance - q.variance.log() - 1).sum(-1).mean()
    for beta in (1.0, 3.0):
        torch.manual_seed(0)
        loss, _ = ELBO(beta=beta)(model, x, 0)
        torch.manual_seed(0)
        torch.testing.assert_close(loss, beta * kl - model.trace(x).log_px.mean())


def test_trap_30_the_kl_is_estimated_where_it_is_known() -> None:
    """By default the KL of two normals does not depend on the draws."""
    model, x = oracle().vae(shift=0.2), oracle().data(10)
    a, b = (ELBO()(model, x, 0)[1]["kl"] for _ in range(2))
    assert torch.equal(a, b)
    a, b = (ELBO("A")(model, x, 0)[1]["kl"] for _ in range(2))
    assert not torch.equal(a, b)


def test_trap_32_training_decodes_the_mean_instead_of_a_draw() -> None:
    model, x = oracle().vae(shift=0.2), oracle().data(10)
    first, second = (model.trace(x).z for _ in range(2))
    assert float((first - second).detach().abs().min()) > 1e-6
    spread = model.trace(x, 4000).z.detach().var(0)
    torch.testing.assert_close(spread, model.posterior(x).variance.detach(), rtol=0.15, atol=0)


@pytest.mark.parametrize("shape", [(4,), (2, 2), (2, 1, 2), (1, 2, 1, 2)])
def test_trap_32_the_kl_sums_over_three_axes_only(shape: tuple[int, ...]) -> None:
    phi = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q, p = families.Normal(shape)(phi), StandardNormal(shape).double()()
    expected = 0.5 * (phi[:, :4].square() + phi[:, 4:].exp() - phi[:, 4:] - 1).sum(-1)
    torch.testing.assert_close(kl_groups(q, p, q.rsample((1,))).sum(-1), expected)


def test_trap_37_the_learning_rate_depends_on_the_batch() -> None:
    """A batch with every row twice has the loss and the gradient of the batch."""
    model, x = vae(families.Delta(2), families.Normal(4)), torch.randn(5, 4, dtype=torch.float64)
    losses = [ELBO(beta=0)(model, rows, 0)[0] for rows in (x, x.repeat(2, 1))]
    torch.testing.assert_close(*losses)
    for a, b in zip(*(torch.autograd.grad(loss, list(model.parameters())) for loss in losses), strict=True):
        torch.testing.assert_close(a, b)
    kls = [
        oracle().vae(shift=0.2).trace(rows).kl.sum(-1).mean()
        for rows in (oracle().data(5), oracle().data(5).repeat(3, 1))
    ]
    torch.testing.assert_close(*kls)


def test_trap_d_a_log_variance_overflows() -> None:
    """Loss and gradient at a network that gives ±1000 everywhere."""
    for bias in (1000.0, -1000.0):
        model, x = vae(families.Normal(2), families.Normal(4)), torch.randn(3, 4, dtype=torch.float64)
        for net in (model.encoder.net, model.decoder.net):
            nn.init.constant_(net[1].bias, bias)
        loss, _ = ELBO()(model, x, 0)
        assert bool(loss.isfinite())
        assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(loss, list(model.parameters())))


# Seeds, looks and what is kept


def test_trap_12_no_best_weights_where_the_loss_is_large(tmp_path: Path) -> None:
    """Bounds of -10¹⁵ nats are bounds: the best of them is kept."""
    x = 1e6 * torch.rand(60, 3, generator=torch.Generator().manual_seed(0))
    data = array_dataset(x.numpy(), values="raw")
    table = {"type": "normal", "scale": 0.01}
    recipe = Recipe.load("gaussian").replace(
        training__samples=100, training__batch=20, likelihood=table, training__optimizer={"type": "sgd", "lr": 1e-200}
    )
    made = fit(recipe, data, tmp_path / "r")
    looks = [line["validation"]["elbo"] for line in made.metrics() if "validation" in line]
    assert max(looks) < -1e13
    assert made.meta["best_step"] == 2  # the first look, as weights that stand still get no better


def test_trap_26_a_warm_up_is_longer_than_the_training(digits: Dataset, tmp_path: Path) -> None:
    """β would stay below 1 without a word."""
    table = {"type": "linear", "start": 0.0, "end": 1.0, "steps": 40}
    with pytest.warns(
        AevbWarning, match=r"objective\.beta takes 40 steps, but the training has 10: it ends at 0\.225 instead of 1"
    ):
        fit(small(1000, objective__beta=table), digits, tmp_path / "short")
    with warnings.catch_warnings(action="error"):
        fit(small(4000, objective__beta=table), digits, tmp_path / "long")
    assert [name for name in recipe_names() if unfinished(Recipe.load(name), 50_000)] == []
    term = [{"type": "mmd", "weight": {**table, "steps": 11}}]
    assert "The schedule terms.weight takes 11 steps" in unfinished(small(1000, terms=term), 1197)[0]


UNFINISHED = {
    "objective.beta": (
        {"type": "linear", "start": 0.0, "end": 1.0, "steps": 12},
        r"12 steps, .* at 0\.75 instead of 1\. ",
    ),
    "objective.capacity": (
        {"type": "piecewise", "values": [1.0, 2.0], "ends": [20]},
        r"20 .* at 1 instead of 2\. ",
    ),
    "posterior.temperature": (
        {"type": "linear", "start": 1.0, "end": 0.5, "steps": 18},
        r"18 .* 0\.75 instead of 0\.5\. ",
    ),
}


@pytest.mark.parametrize("key", UNFINISHED)
def test_a_schedule_that_does_not_arrive_says_where_it_stops(key: str) -> None:
    """At the last of ten steps, which is step 9."""
    schedule, words = UNFINISHED[key]
    recipe = small(1000, posterior={"type": "concrete"}).replace(**{key.replace(".", "__"): schedule})
    [told] = unfinished(recipe, 1197)
    assert re.match(f"The schedule {key} takes {words}", told)
    assert unfinished(recipe.replace(training__samples=2000), 1197) == []


def test_trap_29_early_stopping_is_off_without_a_word(digits: Dataset, tmp_path: Path) -> None:
    none = Dataset("none", digits.train, digits.train.take(0), digits.test)
    with pytest.raises(RecipeError, match=r"validation: patience: there is no validation bound"):
        fit(small(validation__patience=3), none, tmp_path / "r")
    assert not list(tmp_path.iterdir())
    still = small(
        50_000, validation__patience=2, validation__every=100, training__optimizer={"type": "sgd", "lr": 1e-200}
    )
    made = fit(still, digits, tmp_path / "r")
    assert made.meta["stopped"] == "patience"


def test_trap_33_validation_is_the_test_set(digits: Dataset) -> None:
    """And trap 37, training on all there is: no row of one part stands in another."""
    stored = load_data("digits", values="levels")
    splits = stored.train, stored.validation, stored.test
    parts = [{tuple(row) for row in split.stored.flatten(1).tolist()} for split in splits]
    assert [len(split) for split in splits] == [1197, 300, 300]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


# Nothing that is loaded runs code


def test_trap_28_a_file_of_weights_may_run_code(run: Run, tmp_path: Path) -> None:
    """A pickle in the place of the weights, of a checkpoint or of data is refused, and does nothing."""
    touched = tmp_path / "touched"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (touched,)

    copied = Run.create(tmp_path / "copy", run.recipe, {k: run.meta[k] for k in ("shape", "levels", "splits")})
    torch.save({"x": Evil()}, copied.path / "weights.safetensors")
    with pytest.raises(aevb.RunError, match=r"weights\.safetensors"):
        copied.model()
    np.save(tmp_path / "x.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError):
        load_data(str(tmp_path / "x.npy"))
    assert not touched.exists()


# What the caller gave, and what is reported


def test_trap_22_the_callers_list_is_turned_round() -> None:
    """And trap 39, a part that takes keys out of the recipe: building twice gives the same model."""
    widths = [9, 7, 5]
    aevb.MLP(4, 3, hidden=widths)
    aevb.ConvEncoder((1, 8, 8), 4, channels=widths)
    aevb.ConvDecoder(2, 64, (1, 8, 8), channels=widths)
    assert widths == [9, 7, 5]
    for name in set(recipe_names()) - {"table"}:  # which is of vectors
        recipe = Recipe.load(name)
        if isinstance(recipe.settings.get("latent"), int):  # neither codes nor a ladder
            recipe = recipe.replace(latent=4)
        if recipe.conditional:
            recipe = recipe.replace(context__classes=10)
        before = copy.deepcopy(recipe.settings)
        build_objective(recipe, build_model(recipe, (1, 8, 8), 17), 100)
        assert recipe.settings == before


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 5, 9), (2, 17, 4)])
def test_trap_22_images_have_but_one_size_and_three_channels(shape: tuple[int, ...]) -> None:
    recipe = Recipe.load("conv").replace(latent=3)
    model = build_model(recipe, shape)
    assert model.decode(model.encode(torch.rand(2, *shape))).mean.shape == (2, *shape)


def test_trap_24_scores_differ_from_call_to_call(run: Run, digits: Dataset) -> None:
    """And traps 9 and e: every number of a model on data is the same at every call, whatever the global generator."""
    model, x = run.model(), digits.test[:40]

    def scores() -> list[Tensor]:
        torch.manual_seed(len(found))
        codes = fit_prior(model, x, candidates=(1, 2)).model.prior().log_prob(encode(model, x))
        of = evaluate(model, x, importance_samples=5)
        bound, marginal = elbo(model, x), log_marginal(model, x, 5)
        single = torch.tensor([of.elbo, of.log_likelihood or 0.0, *of.kl_per_dimension])
        return [encode(model, x), bound.elbo, marginal.log_px, single, codes.detach(), generate(model, 3)]

    found: list[list[Tensor]] = []
    for _ in range(2):
        found.append(scores())
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("likelihood", ["bernoulli", "categorical", "beta-binomial", "poisson"])
def test_trap_31_grey_levels_pass_for_what_they_are_not(likelihood: str, tmp_path: Path) -> None:
    """And trap h: cross-entropy on grey data needs to be asked for by name, and its numbers are said to be no
    likelihood."""
    recipe = small(likelihood={"type": likelihood})
    x = torch.rand(60, 4, 4, generator=torch.Generator().manual_seed(0))
    data = array_dataset(x.numpy(), values="grey")
    with pytest.raises(DataError, match=r"covers|not a likelihood"):
        fit(recipe, data, tmp_path / "r")


def test_trap_31_a_relaxed_likelihood_is_reported_as_one() -> None:
    x = torch.rand(6, 4, dtype=torch.float64)
    for relaxed in (True, False):
        model = vae(families.Normal(2), families.Bernoulli(4, relaxed=relaxed))
        assert evaluate(model, x.round(), importance_samples=2).is_likelihood is not relaxed


def test_trap_a_the_number_that_is_called_loss_depends_on_the_batch(digits: Dataset) -> None:
    """Of one model on one split, in nats per data point, with the last batch smaller than the others."""
    o = oracle()
    model, x = o.vae(), o.data(23)
    for batch in (1, 7, 23):
        torch.testing.assert_close(elbo(model, x, batch=batch).kl, elbo(model, x).kl)
        bound = elbo(model, x, batch=batch, samples=400)
        assert abs(float((bound.elbo - o.evidence.log_prob(x)).mean())) < 0.1


def test_trap_33_a_temperature_works_the_wrong_way_round() -> None:
    """A colder Concrete draws nearer to a choice; and the greater a logistic's log s, the wider its draws."""
    sharp = []
    for temperature in (0.1, 2.0):
        family = Concrete((1, 4), temperature=temperature).train()
        torch.manual_seed(0)
        sharp.append(float(family(torch.zeros(500, 4)).rsample().amax(-1).mean()))
    assert sharp[0] > 0.9
    assert sharp[1] < 0.6
    narrow, wide = (FAMILIES["logistic"](1)(torch.tensor([0.0, log_s])).sample((500,)).std() for log_s in (-1.0, 1.0))
    assert float(wide) > 4 * float(narrow)
