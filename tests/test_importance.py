"""Bounds of several samples and the estimators of their gradients, on the oracle and by enumeration."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import DTYPE, Oracle, exact, inexact, log_px, truth
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from aevb.data.sources import load_data
from aevb.evidence.importance import log_marginal
from aevb.models.vae import VAE
from aevb.objectives.bounds import ELBO, Objective
from aevb.objectives.importance import ImportanceWeighted
from aevb.objectives.wake_sleep import WakeSleep
from aevb.runs.fit import fit
from aevb.runs.recipe import Recipe

PARTS = ("encoder", "decoder")
DRAWS = 200


@pytest.fixture(scope="module")
def x(truth: Oracle) -> Tensor:
    return truth.data(30)


def gradient(part: nn.Module, loss: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(part.parameters()), retain_graph=True)])


def one_pass(model: VAE, loss: Tensor) -> dict[str, Tensor]:
    """Each part's gradient, by one backward pass."""
    parameters = [list(getattr(model, part).parameters()) for part in PARTS]
    found = [g.flatten() for g in torch.autograd.grad(loss, [*parameters[0], *parameters[1]])]
    n = len(parameters[0])
    return {"encoder": torch.cat(found[:n]), "decoder": torch.cat(found[n:])}


def gradients(objective: Objective, model: VAE, x: Tensor, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    loss, _ = objective(model, x, 0)
    return one_pass(model, loss)


def draws(objective: Objective, model: VAE, x: Tensor, n: int, seed: int = 0) -> dict[str, Tensor]:
    """n gradients of each part, (n, P)."""
    all_ = [gradients(objective, model, x, seed + i) for i in range(n)]
    return {part: torch.stack([g[part] for g in all_]) for part in PARTS}


def z_scores(a: Tensor, b: Tensor) -> Tensor:
    """Of the difference of means, over the coordinates that vary."""
    se = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
    moves = se > 1e-12
    assert torch.all((a.mean(0) - b.mean(0))[~moves].abs() < 1e-9)
    return (a.mean(0) - b.mean(0))[moves] / se[moves]


# The value


SETTINGS: dict[str, dict[str, Any]] = {
    "iwae": {"samples": 7},
    "one": {"samples": 1},
    "miwae": {"samples": 6, "groups": 3},
    "piwae": {"samples": 6, "encoder_groups": 3},
    "ciwae": {"samples": 6, "elbo": 0.3},
    "renyi": {"samples": 6, "alpha": 0.5},
    "above": {"samples": 6, "alpha": 2.0},
    "below": {"samples": 6, "alpha": -1.0},
    "all": {"samples": 6, "groups": 2, "encoder_groups": 3, "elbo": 0.2, "alpha": 0.4, "gradient": "dreg"},
    "stl": {"samples": 1, "gradient": "stl"},
    "dreg": {"samples": 6, "gradient": "dreg"},
    "vimco": {"samples": 6, "gradient": "vimco"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_bound_is_the_evidence_at_the_exact_posterior(
    exact: VAE, x: Tensor, log_px: Tensor, settings: dict[str, Any]
) -> None:
    """log w is constant, so that whatever is made of it is log p(x), without Monte-Carlo error."""
    loss, info = ImportanceWeighted(**settings)(exact, x, 0)
    for number in (-loss, info["bound"], info["elbo"]):
        torch.testing.assert_close(number, log_px.mean(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_loss_is_minus_the_logged_bound(inexact: VAE, x: Tensor, settings: dict[str, Any]) -> None:
    loss, info = ImportanceWeighted(**settings)(inexact, x, 0)
    torch.testing.assert_close(loss, -info["bound"])
    assert set(info) == {"bound", "elbo"}
    assert all(v.ndim == 0 and not v.requires_grad for v in info.values())


def test_the_gap_falls_as_one_over_samples(inexact: VAE, x: Tensor, log_px: Tensor) -> None:
    """log p(x) - L_K ~ Var(w) / (2 K p(x)²); with r the mean of K weights over p(x) the gap is E[r - 1 - log r]."""
    torch.manual_seed(0)
    sizes = [50, 100, 200, 400]
    log_r = (inexact.trace(x, 20_000).log_w.detach() - log_px).unflatten(0, (10, -1)).transpose(0, 1)  # (2000, 10, B)
    gaps = torch.stack(
        [(log_r.exp().mean(0) - 1 - ImportanceWeighted().bound(log_r, 2000 // k)).mean(1) for k in sizes]
    )
    slopes = np.polyfit(np.log(sizes), gaps.log(), 1)[0]
    se = slopes.std(ddof=1) / math.sqrt(10)
    assert se < 0.05
    assert abs(slopes.mean() + 1) < 3 * se + 0.02


# One class, many names


def same(a: Objective, b: Objective, model: VAE, x: Tensor) -> bool:
    """Equal losses and gradients on equal noise."""
    losses = []
    for objective in (a, b):
        torch.manual_seed(3)
        losses.append(objective(model, x, 0)[0])
    ga, gb = gradients(a, model, x), gradients(b, model, x)
    near = [torch.allclose(ga[p], gb[p], rtol=1e-7, atol=1e-9) for p in PARTS]
    return bool(torch.allclose(losses[0], losses[1])) and all(near)


def test_miwae_of_one_group_is_iwae_and_of_groups_of_one_the_elbo(inexact: VAE, x: Tensor) -> None:
    assert same(ImportanceWeighted(6, groups=1), ImportanceWeighted(6), inexact, x)
    assert same(ImportanceWeighted(6, groups=6), ELBO("A", 6), inexact, x)
    assert not same(ImportanceWeighted(6, groups=2), ImportanceWeighted(6, groups=3), inexact, x)


def test_ciwae_interpolates(inexact: VAE, x: Tensor) -> None:
    """Loss and gradient are affine in β, from IWAE's at 0 to the ELBO's at 1."""
    assert same(ImportanceWeighted(6, elbo=1.0), ELBO("A", 6), inexact, x)
    for gradient_ in ("plain", "dreg"):
        at = [gradients(ImportanceWeighted(6, elbo=b, gradient=gradient_), inexact, x) for b in (0.0, 0.3, 1.0)]  # type: ignore[arg-type]
        for part in PARTS:
            torch.testing.assert_close(at[1][part], 0.7 * at[0][part] + 0.3 * at[2][part])


def test_the_renyi_bound_has_its_limits(inexact: VAE, x: Tensor) -> None:
    """α = 0 is IWAE, α → 1 the ELBO, from either side."""
    assert same(ImportanceWeighted(6, alpha=0.0), ImportanceWeighted(6), inexact, x)
    assert same(ImportanceWeighted(6, alpha=1.0), ELBO("A", 6), inexact, x)
    for near in (1 - 1e-6, 1 + 1e-6):
        a, b = (gradients(o, inexact, x) for o in (ImportanceWeighted(6, alpha=near), ELBO("A", 6)))
        for part in PARTS:
            torch.testing.assert_close(a[part], b[part], rtol=1e-4, atol=1e-4)


def test_the_renyi_bound_falls_with_alpha(inexact: VAE, x: Tensor, log_px: Tensor) -> None:
    """Means of powers are ordered, on any draws; in the limit of many the order is around log p(x) at α = 0."""
    torch.manual_seed(0)
    log_w = inexact.trace(x, 20_000).log_w.detach()
    bounds = torch.stack([ImportanceWeighted(alpha=a).bound(log_w, 1) for a in (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0)])
    assert torch.all(bounds.diff(dim=0) < 0)
    r = (log_w - log_px).exp()
    torch.testing.assert_close(bounds[2], log_px, atol=float(4.5 * (r.std(0) / math.sqrt(20_000)).max()), rtol=0)


def test_the_renyi_bound_in_closed_form() -> None:
    """q = N(m, 1) for the posterior N(0, 1): log p(x) - L_α = α m² / 2, by Rényi's divergence of two normals."""
    torch.manual_seed(0)
    m, alpha = 0.5, 0.5
    z = m + torch.randn(200_000, dtype=DTYPE)
    log_w = Normal(0.0, 1.0).log_prob(z) - Normal(m, 1.0).log_prob(z)
    power = ((1 - alpha) * log_w).exp()
    se = float(power.std() / power.mean()) / math.sqrt(len(z)) / (1 - alpha)
    bound = float(ImportanceWeighted(alpha=alpha).bound(log_w, 1))
    assert abs(bound + alpha * m**2 / 2) < 4.5 * se
    assert se < 0.01


@pytest.mark.trap(4)
@pytest.mark.parametrize("gradient_", ["plain", "dreg"])
def test_piwae_trains_the_decoder_by_iwae_and_the_encoder_by_miwae(inexact: VAE, x: Tensor, gradient_: Any) -> None:
    piwae = gradients(ImportanceWeighted(6, encoder_groups=3, gradient=gradient_), inexact, x)
    iwae, miwae = (gradients(ImportanceWeighted(6, groups=m, gradient=gradient_), inexact, x) for m in (1, 3))
    torch.testing.assert_close(piwae["decoder"], iwae["decoder"])
    torch.testing.assert_close(piwae["encoder"], miwae["encoder"])
    for part, other in (("decoder", miwae), ("encoder", iwae)):
        assert (piwae[part] - other[part]).abs().max() > 1e-3


# Estimators of the gradient


@pytest.mark.parametrize(
    "settings",
    [{}, {"alpha": 0.5}, {"groups": 2, "alpha": -0.5, "elbo": 0.2}],
    ids=["iwae", "renyi", "all"],
)
def test_plain_and_dreg_share_their_expectation(inexact: VAE, x: Tensor, settings: dict[str, Any]) -> None:
    """Encoder and decoder; on equal noise the decoder's gradients are equal."""
    plain = draws(ImportanceWeighted(4, **settings), inexact, x, DRAWS)
    dreg = draws(ImportanceWeighted(4, gradient="dreg", **settings), inexact, x, DRAWS, seed=10_000)
    for part in PARTS:
        z = z_scores(plain[part], dreg[part])
        assert z.abs().max() < 4.5
        assert z.square().mean() < 2
    assert dreg["encoder"].var(0).sum() < 0.7 * plain["encoder"].var(0).sum()
    a, b = (gradients(ImportanceWeighted(4, gradient=g, **settings), inexact, x) for g in ("plain", "dreg"))  # type: ignore[arg-type]
    torch.testing.assert_close(a["decoder"], b["decoder"])


def test_plain_and_vimco_share_their_expectation(inexact: VAE, x: Tensor) -> None:
    plain = draws(ImportanceWeighted(4), inexact, x, DRAWS)
    vimco = draws(ImportanceWeighted(4, gradient="vimco"), inexact, x, DRAWS, seed=10_000)
    for part in PARTS:
        assert z_scores(plain[part], vimco[part]).abs().max() < 4.5


def test_sticking_the_landing_is_biased_with_several_samples(inexact: VAE, x: Tensor) -> None:
    """What is refused, written out: the path derivative of L_K without the squares of DReG (arXiv 1810.04152)."""

    def stuck(model: VAE, x: Tensor, step: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return -ImportanceWeighted(4).bound(model.trace(x, 4, stick=True).log_w, 1).mean(), {}

    plain, biased = draws(ImportanceWeighted(4), inexact, x, DRAWS), draws(stuck, inexact, x, DRAWS, seed=10_000)
    assert z_scores(plain["encoder"], biased["encoder"]).abs().max() > 10
    assert z_scores(plain["decoder"], biased["decoder"]).abs().max() < 4.5
    with pytest.raises(ValueError, match=r"'stl' is biased with several samples .* Use 'dreg'"):
        ImportanceWeighted(4, gradient="stl")


@pytest.mark.parametrize("settings", [{"samples": 1}, {"samples": 4, "groups": 4}, {"samples": 4, "alpha": 1.0}])
def test_sticking_the_landing_of_the_elbo_has_no_bias(inexact: VAE, x: Tensor, settings: dict[str, Any]) -> None:
    stl = ImportanceWeighted(gradient="stl", **settings)
    plain, stuck = draws(ImportanceWeighted(**settings), inexact, x, DRAWS), draws(stl, inexact, x, DRAWS, seed=10_000)
    for part in PARTS:
        assert z_scores(plain[part], stuck[part]).abs().max() < 4.5
    assert same(stl, ImportanceWeighted(gradient="dreg", **settings), inexact, x)


@pytest.mark.parametrize(("samples", "gradient_"), [(1, "stl"), (1, "dreg"), (5, "dreg")])
def test_at_the_exact_posterior_path_gradients_do_not_vary(exact: VAE, x: Tensor, samples: int, gradient_: Any) -> None:
    """The encoder's gradient is zero draw by draw; the plain one only on average."""
    for seed in range(5):
        assert gradients(ImportanceWeighted(samples, gradient=gradient_), exact, x, seed)["encoder"].abs().max() < 1e-6
        assert gradients(ImportanceWeighted(samples), exact, x, seed)["encoder"].abs().max() > 1e-3


def test_the_signal_of_the_encoder_fades_with_samples_unless_by_dreg(inexact: VAE, x: Tensor) -> None:
    """|mean| / sd over draws falls for IWAE and rises for DReG (arXiv 1802.04537, 1810.04152)."""

    def signal(samples: int, gradient_: Any) -> float:
        g = draws(ImportanceWeighted(samples, gradient=gradient_), inexact, x[:5], 100)["encoder"]
        return float(g.mean(0).norm() / g.var(0).sum().sqrt())

    assert signal(2, "plain") > 1.3 * signal(32, "plain")
    assert signal(32, "dreg") > 1.3 * signal(2, "dreg")


def test_the_factor_of_dreg() -> None:
    """α + (1 - α)ŵ, which is ŵ for IWAE; a weight far below what a float can hold spoils nothing."""
    log_w = torch.tensor([[0.0, 0.0], [-1.0, -1e6]], dtype=DTYPE)
    found = ImportanceWeighted(2, gradient="dreg", alpha=0.3)._ratio(log_w)
    torch.testing.assert_close(found[:, 0], 0.3 + 0.7 * (0.7 * log_w[:, 0]).softmax(0))
    torch.testing.assert_close(ImportanceWeighted(2, gradient="dreg")._ratio(log_w)[:, 0], log_w[:, 0].softmax(0))
    assert found[0, 1] == 1
    assert torch.all(found.isfinite())


# VIMCO, by enumeration


class Bits(nn.Module):
    """z: two bits with p(z) and q(z|x) free; x|z normal. `forced` (K, B, 2) takes the place of draws."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.forced: Tensor | None = None
        self.prior, self.encoder = (nn.Parameter(torch.randn(2, generator=g, dtype=DTYPE)) for _ in range(2))
        self.decoder = nn.Parameter(2 * torch.randn(2, generator=g, dtype=DTYPE))

    def posterior(self, x: Tensor, given: Tensor | None = None) -> Distribution:
        q = Independent(Bernoulli(logits=self.encoder * x), 1)
        if self.forced is not None:
            q.sample = lambda shape=(): self.forced  # type: ignore[method-assign, misc]
        return q

    def log_joint(self, x: Tensor, z: Tensor, given: Tensor | None = None) -> Tensor:
        return Normal(z @ self.decoder, 1.0).log_prob(x.squeeze(-1)) + Bernoulli(logits=self.prior).log_prob(z).sum(-1)


@pytest.mark.parametrize("settings", [{}, {"alpha": 0.5}, {"elbo": 0.3}], ids=["iwae", "renyi", "ciwae"])
def test_vimco_is_the_gradient_of_the_expected_bound(settings: dict[str, Any]) -> None:
    """Over all 4³ triples of codes: Σ P(triple) · (VIMCO's gradient) = ∇ Σ P(triple) L(triple)."""
    model, x, objective = (
        Bits(),
        torch.tensor([[0.7]], dtype=DTYPE),
        ImportanceWeighted(3, gradient="vimco", **settings),
    )
    codes = torch.tensor(list(product((0.0, 1.0), repeat=2)), dtype=DTYPE)
    parameters = list(model.parameters())
    expected, estimated = torch.zeros((), dtype=DTYPE), [torch.zeros_like(p) for p in parameters]
    for triple in product(codes, repeat=3):
        z = torch.stack(triple).unsqueeze(1)
        model.forced = z
        log_q = model.posterior(x).log_prob(z)
        probability = log_q.sum().exp()
        expected = expected + probability * objective.bound(model.log_joint(x, z) - log_q, 1).mean()
        loss, _ = objective(model, x, 0)  # type: ignore[arg-type]
        for total, g in zip(estimated, torch.autograd.grad(loss, parameters), strict=True):
            total -= probability.detach() * g
    for total, g in zip(estimated, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(total, g)


# Reweighted wake-sleep


def test_reweighted_wake_sleep_by_hand(inexact: VAE, x: Tensor) -> None:
    """θ gets IWAE's gradient at constant z, φ the self-normalised fit to p(z|x), and half of the dreams."""
    objective = WakeSleep(dreams=2, samples=5, wake=0.5)
    found = gradients(objective, inexact, x, seed=3)
    torch.manual_seed(3)
    with torch.no_grad():
        z = inexact.posterior(x).sample(torch.Size((5,)))
        share = (inexact.log_joint(x, z) - inexact.log_posterior(x, z)).softmax(0)
        dreamt = inexact.sample_latent(2 * len(x))
        dream = inexact.decode(dreamt).sample()
    log_w = inexact.log_joint(x, z) - inexact.log_posterior(x, z).detach()
    theta = -ImportanceWeighted(5).bound(log_w, 1).mean()
    wake = (share * inexact.log_posterior(x, z)).sum(0).mean()
    phi = -0.5 * (wake + inexact.log_posterior(dream, dreamt.unsqueeze(0)).mean())
    torch.testing.assert_close(found["decoder"], gradient(inexact.decoder, theta))
    torch.testing.assert_close(found["encoder"], gradient(inexact.encoder, phi))
    info = objective(inexact, x, 0)[1]
    assert set(info) == {"elbo", "bound", "sleep", "wake"}
    assert info["elbo"] < info["bound"]


def test_wake_phi_alone_dreams_nothing(inexact: VAE, x: Tensor) -> None:
    assert set(WakeSleep(samples=5, wake=1.0)(inexact, x, 0)[1]) == {"elbo", "bound", "wake"}
    assert set(WakeSleep()(inexact, x, 0)[1]) == {"elbo", "bound", "sleep"}


def test_wake_phi_learns_the_posterior(truth: Oracle) -> None:
    """From a wrong encoder, with the decoder fixed: the fixed point is q = p(z|x), whatever the number of samples."""
    model, x = truth.vae(shift=0.5, widen=2.0), truth.data(300)
    optimizer = torch.optim.Adam(model.encoder.parameters(), lr=0.02)
    before = float(truth.gap(model, x).mean().detach())
    torch.manual_seed(1)
    for step in range(200):
        optimizer.zero_grad()
        WakeSleep(samples=10, wake=1.0)(model, x, step)[0].backward()
        optimizer.step()
    assert before > 0.5
    assert float(truth.gap(model, x).mean().detach()) < 0.02


# One number, one meaning


class Repeatable(nn.Module):
    """An encoder whose noise is a function of x, so that rows can change places or come twice."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Distribution:
        q = self.inner(x)

        def rsample(shape: torch.Size) -> Tensor:
            k = torch.arange(1, shape[0] + 1, dtype=x.dtype).reshape(-1, 1, 1)
            noise = (1e3 * k * x.detach()[:, : q.event_shape[0]]).sin()
            return q.mean + q.stddev * noise

        q.rsample = q.sample = rsample
        return q  # type: ignore[no-any-return]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_order_and_size_of_the_batch_change_nothing(inexact: VAE, x: Tensor, settings: dict[str, Any]) -> None:
    model = VAE(inexact.prior, Repeatable(inexact.encoder), inexact.decoder)
    objective = ImportanceWeighted(**settings)
    whole = gradients(objective, model, x)
    for other in (x.flip(0), torch.cat([x, x])):
        torch.testing.assert_close(objective(model, other, 0)[0], objective(model, x, 0)[0])
        for part, g in gradients(objective, model, other).items():
            torch.testing.assert_close(g, whole[part])


# In a recipe


def test_the_weights_that_are_kept_have_the_best_bound_of_what_is_trained(tmp_path: Path) -> None:
    """With `validation.importance_samples` they are those of the best L_K, whatever the ELBO says."""
    recipe = Recipe.load("iwae").replace(
        training__samples=3000, validation__every=500, validation__importance_samples=7, objective__samples=7
    )
    data = load_data("digits", values="dynamic")
    run = fit(recipe, data, tmp_path / "run")
    looks = {line["step"]: line["validation"] for line in run.metrics() if "validation" in line}
    assert len(looks) == 6
    best = max(looks, key=lambda step: looks[step]["log_px"])
    assert run.meta["best_step"] == best
    again = log_marginal(run.model(), data.validation.frozen(), 7).log_px.mean()
    assert float(again) == pytest.approx(looks[best]["log_px"], abs=1e-3)
    assert all(v["log_px"] > v["elbo"] for v in looks.values())


# Refusals


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "groups": ({"samples": 5, "groups": 2}, "equal size; got 5 in 2 groups"),
    "encoder": ({"samples": 6, "encoder_groups": 4}, "equal size; got 6 in 4 groups"),
    "none": ({"samples": 0}, "equal size; got 0 in 1 groups"),
    "alpha": ({"alpha": math.inf}, "a finite alpha"),
    "elbo": ({"elbo": 1.5}, "0 ≤ elbo ≤ 1"),
    "gradient": ({"gradient": "score"}, "'plain', 'stl', 'dreg' or 'vimco'; got 'score'"),
    "one": ({"samples": 1, "gradient": "vimco"}, "needs samples ≥ 2"),
    "sides": ({"samples": 4, "encoder_groups": 2, "gradient": "vimco"}, "encoder_groups need"),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImportanceWeighted(**settings)


def test_the_hook_works_under_functional_transforms(inexact: VAE, x: Tensor) -> None:
    """`training.compile` takes gradients by `torch.func`; DReG must not silently become the biased estimator there."""
    objective: Callable[..., Any] = ImportanceWeighted(4, gradient="dreg")
    eager = gradients(objective, inexact, x)["encoder"]
    values = dict(inexact.named_parameters())

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = inexact

        def forward(self) -> Tensor:
            return objective(self.model, x, 0)[0]  # type: ignore[no-any-return]

    torch.manual_seed(0)
    module = Loss()

    def loss(v: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(module, {f"model.{k}": p for k, p in v.items()}, ())  # type: ignore[no-any-return]

    found = torch.func.grad(loss)(values)
    torch.testing.assert_close(torch.cat([g.flatten() for k, g in found.items() if k.startswith("encoder")]), eager)


def test_vimco_holds_each_weight_against_the_others(inexact: VAE, x: Tensor) -> None:
    """∇_φ L = Σ_k c_k ∇ log q(z_k|x), c_k = L - L_-k - ŵ_k, with L_-k of the other weights and their geometric mean."""
    k, x = 3, x[:5]
    found = gradients(ImportanceWeighted(k, gradient="vimco"), inexact, x)["encoder"]
    torch.manual_seed(0)
    q = inexact.posterior(x)
    z = q.sample(torch.Size((k,)))
    log_w = (inexact.log_joint(x, z) - q.log_prob(z)).detach()
    w = log_w.exp()
    c = []
    for i in range(k):
        others = [w[j] for j in range(k) if j != i]
        mean = torch.stack(others).log().mean(0).exp()
        c.append((w.mean(0) / ((sum(others) + mean) / k)).log() - w[i] / w.sum(0))
    by_hand = gradient(inexact.encoder, -(torch.stack(c) * q.log_prob(z)).sum(0).mean())
    torch.testing.assert_close(found, by_hand)


# Trimming


def test_a_trimmed_bound_is_the_mean_of_the_best_rows(inexact: VAE, x: Tensor) -> None:
    """Of 30 rows and trim = 0.25 the best 23; its gradient does not depend on the others."""
    torch.manual_seed(0)
    loss, info = ImportanceWeighted(5, trim=0.25)(inexact, x, 0)
    torch.manual_seed(0)
    each = inexact.trace(x, 5).log_w.logsumexp(0) - math.log(5)
    best = each.sort(descending=True).values[:23]
    torch.testing.assert_close(-loss, best.mean())
    torch.testing.assert_close(info["bound"], best.mean().detach())
    torch.testing.assert_close(gradient(inexact.decoder, loss), gradient(inexact.decoder, -best.mean()))


def test_a_share_that_cannot_be_trimmed_is_named() -> None:
    for trim in (-0.1, 1.0):
        with pytest.raises(ValueError, match="0 ≤ trim < 1"):
            ImportanceWeighted(5, trim=trim)
