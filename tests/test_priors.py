"""Learned priors: they integrate to one, share what they should, and their estimated KL has the right expectation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from oracle import Oracle, oracle
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

import aevb
from aevb.data.dataset import Split
from aevb.data.sources import load_data
from aevb.errors import DataError, RecipeError, ShapeError
from aevb.evidence.importance import log_marginal
from aevb.models.compat import check_model
from aevb.models.conditional import Conditional
from aevb.models.priors import Mixture, StandardNormal, VampPrior
from aevb.models.trace import kl_groups
from aevb.models.vae import VAE
from aevb.probability.mixtures import normals
from aevb.runs.build import build_model
from aevb.runs.files import read_tensors
from aevb.runs.fit import fit, resume
from aevb.runs.parts import AXES
from aevb.runs.recipe import Recipe
from aevb.training.start import some_rows
from aevb.use.fit_prior import as_prior, fit_prior, names


def mixture(components: int = 3, latent: int = 1, family: type[aevb.Family] = aevb.Normal) -> Mixture:
    torch.manual_seed(0)
    prior = Mixture(family(latent), components).double()
    with torch.no_grad():
        prior.logits.copy_(torch.linspace(-1, 1, components))
        prior.phi.normal_()
    return prior


def vamp(components: int = 3, latent: int = 1) -> VampPrior:
    torch.manual_seed(0)
    encoder = Conditional(nn.Linear(4, 2 * latent), aevb.Normal(latent)).double()
    return VampPrior(encoder, 3 * torch.randn(components, 4)).double()


PRIORS: dict[str, Callable[[], nn.Module]] = {"mixture": mixture, "vamp": vamp}


def vamp_vae(components: int = 5, latent: int = 2) -> VAE:
    torch.manual_seed(0)
    q, p = aevb.Normal(latent), aevb.Bernoulli(6)
    encoder = Conditional(nn.Linear(6, q.size), q)
    return VAE(VampPrior.from_noise(encoder, 6, components), encoder, Conditional(nn.Linear(latent, p.size), p))


# Densities


@pytest.mark.parametrize("make", [lambda: mixture(4, 2), lambda: mixture(4, 2, aevb.FullNormal), lambda: vamp(4, 2)])
def test_a_prior_integrates_to_one_over_the_plane(make: Callable[[], nn.Module]) -> None:
    t = torch.linspace(-25, 25, 501, dtype=torch.float64)
    prior = make()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.mul_(0.5)  # no peak thinner than the grid
    p = prior()
    total = p.log_prob(torch.cartesian_prod(t, t)).exp().sum() * 0.1**2
    assert p.event_shape == (2,)
    assert total.item() == pytest.approx(1, abs=1e-6)


def test_a_mixture_of_one_is_its_component() -> None:
    prior, z = Mixture(aevb.Normal(3), 1), torch.randn(5, 4, 3)
    with torch.no_grad():
        prior.phi.zero_()
    torch.testing.assert_close(prior().log_prob(z), StandardNormal(3)().log_prob(z))


def test_a_mixture_begins_near_the_standard_normal() -> None:
    torch.manual_seed(0)
    z = torch.randn(2000, 5)
    gap = StandardNormal(5)().log_prob(z) - Mixture(aevb.Normal(5), 20)().log_prob(z)
    assert 0 < float(gap.detach().mean()) < 0.1


def test_a_mixture_by_hand() -> None:
    prior, z = mixture(4, 2), torch.randn(7, 2, dtype=torch.float64)
    share = prior.logits.softmax(-1)
    each = torch.stack([prior.family(phi).log_prob(z) for phi in prior.phi])
    torch.testing.assert_close(prior().log_prob(z), (share.log()[:, None] + each).logsumexp(0))
    together = (share.log()[:, None] + each).softmax(0)
    torch.testing.assert_close(prior().responsibilities(z), together.T)


def test_products_of_matrices_lose_nothing_of_a_narrow_mixture_far_out() -> None:
    """μ / σ to 10⁵ in float32: the sums that cancel are 10¹⁰ as large as their difference."""
    torch.manual_seed(0)
    loc, scale = 100 * torch.randn(6, 3), torch.rand(6, 3) * 0.01 + 0.001
    z = loc[torch.randint(6, (50,))] + 0.002 * torch.randn(50, 3)
    exact = Independent(Normal(loc.double(), scale.double()), 1).log_prob(z.double().unsqueeze(-2))
    torch.testing.assert_close(normals(z, loc, scale), exact.float(), rtol=1e-5, atol=1e-4)


@pytest.mark.trap(18)
def test_a_vamp_prior_is_the_mean_of_the_posteriors_at_its_pseudo_inputs() -> None:
    prior, z = vamp(4, 2), torch.randn(7, 2, dtype=torch.float64)
    encoder = prior._encoder[0]
    densities = torch.stack([encoder(u[None]).log_prob(z).exp() for u in prior.u])
    torch.testing.assert_close(prior().log_prob(z).exp(), densities.mean(0))


@pytest.mark.trap(18)
@pytest.mark.parametrize("name", PRIORS)
def test_draws_have_the_moments_of_the_density(name: str) -> None:
    torch.manual_seed(0)
    p = PRIORS[name]()()
    z = p.sample((20_000,))
    assert z.shape == (20_000, 1)
    for power, exact in ((z - p.mean, torch.zeros(1).double()), ((z - p.mean) ** 2, p.variance)):
        assert bool(((power.mean(0) - exact).abs() < 4.5 * power.std(0) / math.sqrt(20_000)).all())
    assert p.sample().shape == (1,)
    assert p.sample((0,)).shape == (0, 1)


def test_many_draws_of_many_components_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from aevb.probability import mixtures

    monkeypatch.setattr(mixtures, "DRAWN", 100)
    z = mixture(7, 2)().sample((11, 3))
    assert z.shape == (11, 3, 2)
    assert len(z.flatten(0, 1).unique(dim=0)) == 33


# The KL


def integrate(q: Distribution, p: Distribution, values: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """∫ f(log q, log p) dz in one dimension, by the trapezoidal rule: (B)."""
    z = torch.linspace(-30, 30, 20_001, dtype=torch.float64)[:, None, None]
    return torch.trapezoid(values(q.log_prob(z), p.log_prob(z).squeeze(-1).unsqueeze(-1)), z[:, 0, 0], dim=0)


@pytest.mark.parametrize("name", PRIORS)
def test_the_kl_is_unbiased_in_value_and_gradient(name: str) -> None:
    """E[log q(z) - log p(z)] and its slopes in μ and log σ² of q, and in the prior's parameters, against quadrature."""
    torch.manual_seed(0)
    prior = PRIORS[name]()
    phi = torch.tensor([[0.5, -0.7], [-1.5, 0.4]], dtype=torch.float64, requires_grad=True)
    parameters = [phi, *prior.parameters()]
    q, p = aevb.Normal(1)(phi), prior()
    exact = integrate(q, p, lambda a, b: a.exp() * (a - b))
    expected = torch.autograd.grad(exact.sum(), parameters, retain_graph=True)
    repeats, sums, squares = 300, [torch.zeros_like(e) for e in expected], [torch.zeros_like(e) for e in expected]
    values = []
    for _ in range(repeats):
        z = q.rsample((50,))
        kl = kl_groups(q, p, z)
        assert kl.shape == (2, 1)
        values.append(kl.detach()[:, 0])
        for s, s2, g in zip(sums, squares, torch.autograd.grad(kl.sum(), parameters, retain_graph=True), strict=True):
            s += g
            s2 += g**2
    mean, se = torch.stack(values).mean(0), torch.stack(values).std(0) / math.sqrt(repeats)
    assert bool(((mean - exact).abs() < 4.5 * se).all())
    for s, s2, e in zip(sums, squares, expected, strict=True):
        error = ((s2 / repeats - (s / repeats) ** 2) / repeats).clamp(min=0).sqrt()
        assert bool(((s / repeats - e).abs() < 4.5 * error + 1e-9).all())


def test_importance_sampling_finds_the_evidence_under_a_mixture() -> None:
    """p(z) = Σ π_m N(μ_m, Σ_m), p(x|z) = N(W z + b, s² I):   p(x) = Σ π_m N(x; W μ_m + b, W Σ_m Wᵀ + s² I)."""
    truth: Oracle = oracle()
    base, latent = truth.vae(widen=2.0), truth.W.shape[1]
    prior = mixture(3, latent, aevb.FullNormal)
    with torch.no_grad():
        prior.phi.mul_(0.3)
    x, parts = truth.data(20), prior().component_distribution
    W, noise = truth.W, truth.s**2 * torch.eye(len(truth.b), dtype=torch.float64)
    each = [
        MultivariateNormal(W @ m + truth.b, W @ c @ W.T + noise).log_prob(x)
        for m, c in zip(parts.mean, parts.covariance_matrix, strict=True)
    ]
    exact = (prior.logits.log_softmax(-1)[:, None] + torch.stack(each)).logsumexp(0).detach()
    found = log_marginal(VAE(prior, base.encoder, base.decoder), x, 20_000)
    assert bool(((found.log_px - exact).abs() < 5 * found.se + 1e-3).all())


# Sharing the encoder


def test_the_encoder_of_a_vamp_prior_is_shared_and_held_once() -> None:
    model = vamp_vae()
    assert list(model.prior.state_dict()) == ["u"]
    assert [k for k in model.state_dict() if k.startswith(("prior", "encoder"))] == [
        "prior.u",
        "encoder.net.weight",
        "encoder.net.bias",
    ]
    x = torch.bernoulli(torch.full((4, 6), 0.5))
    (model.trace(x).log_pz.sum()).backward()
    grads = {k: p.grad for k, p in model.named_parameters()}
    assert all(grads[k] is not None and bool(grads[k].abs().sum() > 0) for k in ("prior.u", "encoder.net.weight"))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: torch.optim.swa_utils.AveragedModel(m).module])
def test_a_copy_has_an_encoder_of_its_own_and_shares_it(duplicate: Callable[[VAE], VAE]) -> None:
    model = vamp_vae()
    z = torch.randn(3, 2)
    before = model.prior().log_prob(z)
    other = duplicate(model)
    assert other.prior._encoder[0] is other.encoder
    with torch.no_grad():
        for p in other.encoder.parameters():
            p.add_(1.0)
    assert torch.equal(model.prior().log_prob(z), before)
    assert not torch.allclose(other.prior().log_prob(z), before)


def test_lent_weights_reach_the_prior_too() -> None:
    """As full Bayes and compilation lend them: the prior must see the encoder's of the moment."""
    from torch.func import functional_call

    model, x = vamp_vae(), torch.zeros(1, 6)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.3)
    torch.manual_seed(0)
    lent = functional_call(model, dict(other.named_parameters()), (x,))
    torch.manual_seed(0)
    torch.testing.assert_close(lent.p.log_prob(lent.z), other(x).log_pz)


def test_a_decoder_is_called_without_encoding_the_pseudo_inputs_again() -> None:
    model, count = vamp_vae(), []
    model.encoder.register_forward_hook(lambda *_: count.append(1))
    z = model.sample_latent(3)
    model.decode(z)
    model.decode(z)
    assert len(count) == 1  # for the draw


# parts with weights, buffers or draws of their own: what to change in the recipe `bernoulli`, and its data
LEARNING = {
    "vamp": (["prior=vamp", "prior.components=20"], "dynamic"),
    "mixture": (["prior=mixture"], "dynamic"),
    "flow": (["prior=flow", "prior.hidden=[8]"], "dynamic"),
    "iaf": (["posterior=iaf", "posterior.hidden=[8]", "prior=mixture"], "dynamic"),
    "optimal-normal": (["likelihood=optimal-normal", "training.ema=0.9"], "grey"),
    "homoscedastic-normal": (["likelihood=homoscedastic-normal", "prior=vamp", "prior.components=5"], "grey"),
}


@pytest.mark.parametrize("name", LEARNING)
def test_a_run_of_learned_parts_resumes_and_loads_bit_for_bit(name: str, tmp_path: Path) -> None:
    changes, values = LEARNING[name]
    data = load_data("digits", values=values)
    small = ["latent=2", "encoder.hidden=[16]", "decoder.hidden=[16]", f"data.values={values}", "validation.every=300"]
    recipe = Recipe.load("bernoulli").override([*changes, *small])
    whole = fit(recipe.replace(training__samples=1200), data, tmp_path / "whole").model()
    half = fit(recipe.replace(training__samples=600), data, tmp_path / "half")
    again = resume(half, data, samples=1200).model()
    assert not [k for k in read_tensors(tmp_path / "whole" / "weights.safetensors")[0] if k.startswith("prior._enc")]
    z, x = torch.randn(10, 2), data.test[:10]
    for read in (lambda m: m.prior().log_prob(z), lambda m: m.decode(z).log_prob(x), lambda m: m.encode(x)):
        assert torch.equal(read(whole), read(again))
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.slow
def test_a_vamp_prior_can_be_compiled() -> None:
    """The compiled step lends the encoder its weights, and the prior must see them."""
    x, ends = torch.bernoulli(torch.full((100, 6), 0.5), generator=torch.Generator().manual_seed(0)), []
    for compiled in (False, True):
        model = vamp_vae()
        settings = aevb.Training(samples=1000, batch=50, optimizer=aevb.Adam(0.01), compile=compiled)
        for _ in aevb.train(model, aevb.ELBO(), x, settings):
            pass
        ends.append(model)
    for a, b in zip(*(m.parameters() for m in ends), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_pseudo_inputs_begin_at_rows_of_the_training_data(tmp_path: Path) -> None:
    data = load_data("digits", values="levels")
    recipe = Recipe.load("digits").override(["prior=vamp", "prior.components=9", "training.optimizer.lr=1e-9"])
    u = fit(recipe.replace(training__samples=100), data, tmp_path / "run").model().prior.u
    rows = data.train[torch.arange(len(data.train))].flatten(1)
    nearest = torch.cdist(u.flatten(1), rows)
    assert u.shape == (9, 1, 8, 8)
    assert bool((nearest.min(1).values < 1e-3).all())
    assert len(nearest.argmin(1).unique()) == 9


# In recipes


@pytest.mark.parametrize(
    "posterior",
    [p for p in sorted(AXES["posterior"]) if p not in ("uniform", "delta", "one-hot", "concrete", "vq", "fsq")],
)
@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_every_posterior_goes_with_every_learned_prior(prior: str, posterior: str) -> None:
    recipe = Recipe.load("bernoulli").override(
        [f"posterior={posterior}", f"prior={prior}", "prior.components=4", "latent=3"]
    )
    model = build_model(recipe, (1, 4, 4))
    x = torch.bernoulli(torch.full((5, 1, 4, 4), 0.5))
    check_model(model)
    check_model(model, seen=model.trace(x))
    t = model.trace(x, 2)
    assert bool(t.kl.isfinite().all())
    loss, _ = aevb.ELBO()(model, x, 0)
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    assert model.sample_latent(6).shape == (6, 3)
    assert model.decode(model.sample_latent(6)).mean.shape == (6, 1, 4, 4)


@pytest.mark.parametrize("prior", ["mixture", "vamp", "flow"])
def test_latents_that_are_images_have_a_learned_prior_too(prior: str) -> None:
    model = build_model(Recipe.load("bernoulli").override([f"prior={prior}", "latent=[2, 3]"]), (1, 4, 4))
    t = model.trace(torch.bernoulli(torch.full((5, 1, 4, 4), 0.5)), 2)
    assert t.log_pz.shape == (2, 5)
    assert t.kl.shape == (5, 1)
    assert model.sample_latent(4).shape == (4, 2, 3)
    assert model.decode(model.sample_latent(4)).mean.shape == (4, 1, 4, 4)


def test_more_pseudo_inputs_than_rows_take_each_row_as_often_as_the_others() -> None:
    rows = some_rows(Split(torch.arange(10.0).unsqueeze(1)), 25, seed=0).x
    counts = rows.flatten().long().bincount()
    assert sorted(counts.tolist()) == [2] * 5 + [3] * 5
    assert len(some_rows(Split(torch.arange(10.0).unsqueeze(1)), 7, seed=0).x.unique()) == 7


@pytest.mark.parametrize(
    ("prior", "lack"), [("mixture", "family for a learned prior"), ("vamp", "density outside of an interval")]
)
def test_a_mixture_of_uniforms_is_refused(prior: str, lack: str) -> None:
    recipe = Recipe.load("bernoulli").override(["posterior=uniform", f"prior={prior}", "latent=2"])
    with pytest.raises(
        RecipeError, match=rf"posterior uniform gives no {lack}.* the prior {prior} requires\. Choose one of"
    ):
        build_model(recipe, (1, 4, 4))


def with_mixture_of_normals(family: aevb.Family) -> VAE:
    encoder = Conditional(nn.Linear(4, family.size), family)
    return VAE(mixture(3, 2), encoder, Conditional(nn.Linear(2, 4), aevb.Bernoulli(4)))


def test_a_heavy_posterior_is_refused_under_a_mixture_of_light_tails() -> None:
    words = "prior mixture gives no finite KL for tails as heavy as these, which the posterior cauchy requires"
    with pytest.raises(RecipeError, match=rf"{words}\. Choose one of: standard-student-t, standard-cauchy,"):
        check_model(with_mixture_of_normals(aevb.Cauchy(2)))


def test_a_positive_posterior_is_refused_under_a_mixture_over_the_line() -> None:
    words = "prior mixture gives no density on positive numbers, which the posterior gamma requires"
    with pytest.raises(RecipeError, match=rf"{words}\. Choose one of: unit-exponential,"):
        check_model(with_mixture_of_normals(aevb.Gamma(2)))
    check_model(with_mixture_of_normals(aevb.StudentT(2)))


@pytest.mark.parametrize(
    "make", [lambda: Mixture(aevb.Normal(2), 0), lambda: VampPrior.from_noise(nn.Identity(), 4, 0)]
)
def test_no_components_are_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(ValueError, match="at least 1; got 0"):
        make()


# Fitted to a finished model


class Clusters(nn.Module):
    """An encoder whose codes lie in three places, by the sign of the data's first two numbers."""

    def forward(self, x: Tensor) -> Distribution:
        mean = 6 * x[:, :2].sign() + torch.stack([x[:, 2], 0.9 * x[:, 2] + 0.3 * x[:, 3]], -1)
        return aevb.Normal(2, scale=0.1)(mean)


def clustered(n: int = 600) -> tuple[VAE, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(n, 4)
    x[:, 1] = torch.where(x[:, 0] > 0, x[:, 1], -x[:, 1].abs())
    return VAE(StandardNormal(2), Clusters(), Conditional(nn.Linear(2, 4), aevb.Normal(4, scale=1.0))), x


def test_a_fitted_prior_has_as_many_components_as_there_are_clusters() -> None:
    model, x = clustered()
    found = fit_prior(model, x, (1, 2, 3))
    assert found.chosen == 3
    assert max(found.scores, key=lambda m: found.scores[m]) == 3
    assert found.scores[3] > found.scores[1] + 1
    assert all(0 < found.errors[m] < 0.2 for m in found.scores)
    assert found.model.encoder is model.encoder
    assert found.model.decoder is model.decoder
    z = model.posterior(x).sample()
    assert found.model.prior().log_prob(z).mean() > model.prior().log_prob(z).mean() + 10
    draws = found.model.sample_latent(2000)
    assert bool(((draws.mean(0) - z.mean(0)).abs() < 1).all())
    again = fit_prior(model, x, (1, 2, 3))
    assert torch.equal(found.model.prior.phi, again.model.prior.phi)


def test_a_fitted_prior_is_scikit_learns_mixture() -> None:
    z = torch.randn(200, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64)
    fitted = GaussianMixture(4, covariance_type="full", random_state=0).fit(z.numpy())
    ours = as_prior(fitted)().log_prob(z).detach()
    torch.testing.assert_close(ours, torch.from_numpy(fitted.score_samples(z.numpy())))


def test_an_autoencoder_gets_a_prior_to_draw_from() -> None:
    torch.manual_seed(0)
    x, q = torch.randn(300, 4), aevb.Delta(2)
    model = VAE(
        StandardNormal(2), Conditional(nn.Linear(4, 2), q), Conditional(nn.Linear(2, 4), aevb.Normal(4, scale=1.0))
    )
    found = fit_prior(model, x, (1,)).model
    codes = model.encode(x).detach()
    torch.testing.assert_close(found.prior().mean[0], codes.mean(0)[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        found.prior().component_distribution.covariance_matrix[0], codes.T.cov(correction=0), rtol=1e-2, atol=1e-4
    )
    assert found.decode(found.sample_latent(7)).mean.shape == (7, 4)


def test_a_fitted_module_is_as_likely_as_the_closed_form() -> None:
    model, x = clustered()
    scores = fit_prior(model, x, (1, Mixture(aevb.FullNormal(2), 1))).scores
    assert scores["Mixture"] == pytest.approx(scores[1], abs=0.02)


def test_a_flow_is_chosen_where_codes_lie_on_a_curve() -> None:
    pytest.importorskip("zuko")
    x = torch.randn(2000, 2)
    bent = torch.stack([x[:, 0], x[:, 0] ** 2 + 0.1 * x[:, 1]], -1) / 2
    model = VAE(
        StandardNormal(2), Conditional(nn.Identity(), aevb.Delta(2)), Conditional(nn.Linear(2, 4), aevb.Normal(2))
    )
    found = fit_prior(model, bent, (1, aevb.FlowPrior(2, flows=1, hidden=(32,))))
    truth = (-math.log(2 * math.pi) - x.square().sum(-1) / 2).mean() - math.log(0.1 / 4)
    assert found.chosen == "FlowPrior"
    assert found.scores[1] + 0.5 < found.scores["FlowPrior"] < float(truth) + 0.2  # 0.2: 5 errors of 400 codes


def test_too_few_codes_and_codes_that_are_no_vectors_are_refused() -> None:
    model, x = clustered(20)
    with pytest.raises(DataError, match="20 codes of 2 numbers are too few"):
        fit_prior(model, x, (30,))
    assert list(fit_prior(model, x, (1, 30)).scores) == [1]
    q = aevb.Normal((2, 2))
    square = VAE(
        StandardNormal((2, 2)), Conditional(nn.Linear(4, q.size), q), Conditional(nn.Linear(4, 4), aevb.Normal(2))
    )
    with pytest.raises(ShapeError, match=r"vectors; these have the shape \(2, 2\)"):
        fit_prior(square, x)


def test_a_prior_is_fitted_to_codes_over_the_real_line_alone() -> None:
    posterior = aevb.Gamma(2)
    encoder, decoder = Conditional(nn.Linear(3, 4), posterior), Conditional(nn.Linear(2, 3), aevb.Normal(3, scale=1.0))
    model = VAE(aevb.Known(torch.distributions.Exponential, (1.0,), 2), encoder, decoder)
    with pytest.raises(RecipeError, match="gives no density over the real line, which fit_prior requires"):
        fit_prior(model, torch.randn(100, 3))


def test_a_fifth_of_the_codes_chooses_the_prior() -> None:
    """Codes are N(0, I) in D dimensions, whose log density has the variance D/2: the error is √(D / (2 · N/5))."""
    o = oracle()
    error = fit_prior(o.vae(), o.data(3000), candidates=(1,)).errors[1]
    assert error == pytest.approx(math.sqrt(3 / 2 / 600), rel=0.25)


def test_two_candidates_of_one_class_have_a_score_each() -> None:
    few, many = (Mixture(aevb.Normal(3), components=n) for n in (1, 4))
    assert names((2, few, many, StandardNormal(3))) == [2, "Mixture", "Mixture 2", "StandardNormal"]
    found = fit_prior(oracle().vae(), oracle().data(300), candidates=(few, many))
    assert found.scores.keys() == {"Mixture", "Mixture 2"}
    assert found.scores[found.chosen] == max(found.scores.values())


def test_the_variance_of_a_prior_for_each_label_is_over_the_labels_of_all_rows() -> None:
    """p(z|y) = N(±3, 1): Var p(z) = 1 + 9, so that means which spread by √(0.05) of it are no active unit."""
    n, q = 40, aevb.FullNormal(1)
    y = aevb.one_hot((torch.arange(n) >= n // 2).long(), 2)
    prior = Conditional(nn.Linear(2, 2), aevb.Normal(1))
    encoder, decoder = Conditional(nn.Linear(3, q.size), q), Conditional(nn.Linear(3, 2), aevb.Normal(1))
    with torch.no_grad():
        for part in (prior, encoder):
            part.net.weight.zero_()
            part.net.bias.zero_()
        prior.net.weight[0] = torch.tensor([-3.0, 3.0])
        encoder.net.weight[0, 0] = 1.0
    x = torch.linspace(-1, 1, n).unsqueeze(1) * math.sqrt(3 * 0.05)  # variance 0.05: more than 0.01, less than 0.1
    model = VAE(prior, encoder, decoder)
    for rows in (torch.arange(n), torch.randperm(n, generator=torch.Generator().manual_seed(0))):
        assert aevb.evaluate(model, aevb.Pairs(x[rows], y[rows]), importance_samples=2).active_units == 0
