"""Mistakes that were found in other libraries and have a counterpart here: a test for each that no identity elsewhere
sees.

Tests of other files that see one have its number in a marker, `@pytest.mark.trap(17)`; docs/trust.md lists them all.
"""

from __future__ import annotations

import math

import pytest
import torch
from oracle import DTYPE, Oracle, oracle
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from aevb.data.batch import Batch
from aevb.data.dataset import Split
from aevb.data.walk import walking
from aevb.errors import DataError
from aevb.evaluation.likelihood import of_marginal
from aevb.evaluation.report import Subject
from aevb.evaluation.reports.disentanglement import mutual_information
from aevb.evaluation.reports.surgery import surgery
from aevb.evidence.annealed import Annealing, log_marginal_ais
from aevb.evidence.harmonic import ChainSettings, log_marginal_hmc
from aevb.evidence.importance import log_marginal
from aevb.evidence.marginal import Marginal
from aevb.models.conditional import Conditional
from aevb.models.priors import Mixture, VampPrior
from aevb.models.trace import Trace
from aevb.models.vae import VAE
from aevb.objectives.importance import ImportanceWeighted
from aevb.objectives.semi_supervised import M2
from aevb.objectives.terms import DIP, MMD, DensityRatio, Term, TotalCorrelation
from aevb.probability import families, mixtures
from aevb.runs.build import build_model
from aevb.runs.recipe import Recipe

# Objectives and terms


def gradients(loss: Tensor, module: nn.Module) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True))


def codes(means: Tensor, scale: float = 0.5, n: int = 50) -> Trace:
    """q(z|x_b) = N(mean_b, scale²) with z at the means plus fixed noise; the prior is N(0, I), N = `n`."""
    q = Independent(Normal(means, torch.full_like(means, scale)), 1)
    p = Independent(Normal(torch.zeros_like(means[0]), 1.0), 1)
    z = (means + scale * torch.sin(1e3 * means.detach())).unsqueeze(0)
    return Trace(Batch(means, of=n), z, (q, p), lambda: torch.zeros(1, len(means)), lambda: q.log_prob(z))


def test_trap_03_miwae_swaps_its_groups_and_the_samples_in_each() -> None:
    """Two groups of three weights, by hand: the mean of two logarithms of means of three."""
    w = torch.tensor([1.0, 2.0, 3.0, 10.0, 20.0, 60.0], dtype=DTYPE)
    bound = ImportanceWeighted(6, groups=2).bound(w.log().unsqueeze(1), 2)
    assert float(bound) == pytest.approx(0.5 * (math.log(2) + math.log(30)))
    swapped = sum(math.log((a + b) / 2) for a, b in zip(w[:3].tolist(), w[3:].tolist(), strict=True)) / 3
    assert abs(float(bound) - swapped) > 0.1


def test_trap_05_factor_vae_embeds_half_of_the_batch() -> None:
    """All codes are encoded, and all of them are penalised."""
    model, x = oracle().vae(), oracle().data(8)
    assert model.encode(x).shape[0] == 8
    term = DensityRatio(model, hidden=(8,)).double()
    t = model.trace(x)
    (reached,) = torch.autograd.grad(term(t), [t.z])
    assert bool((reached.abs().sum(-1) > 0).all())


@pytest.mark.parametrize("term", [TotalCorrelation(sampling="stratified"), DIP(), MMD()])
def test_trap_07_a_batch_of_one_divides_by_zero(term: Term) -> None:
    with pytest.raises(ValueError, match="minibatch"):
        term(codes(torch.zeros(1, 2, dtype=DTYPE)))


def test_trap_08_a_terms_weight_grows_with_the_batch() -> None:
    """The same rows twice over: the same penalty, where a sum over the batch would double."""
    model, x = oracle().vae(), oracle().data(10)
    means = model.encode(x).detach()
    ratio = DensityRatio(model, hidden=(8,)).double()
    for term in (DIP(), DIP(kind="II"), ratio, TotalCorrelation()):
        torch.testing.assert_close(term(codes(torch.cat([means, means]), n=20)), term(codes(means, n=20)))


def test_trap_14_iwae_logs_its_surrogate_for_the_bound() -> None:
    """Loss and log hold log 1/K Σ w, with every gradient; Σ w̃ log w is another number."""
    model, x = oracle().vae(shift=0.2, widen=1.5), oracle().data(10)
    for gradient in ("plain", "dreg"):
        torch.manual_seed(0)
        loss, info = ImportanceWeighted(5, gradient=gradient)(model, x, 0)  # type: ignore[arg-type]
        torch.manual_seed(0)
        log_w = model.trace(x, 5).log_w
        bound = log_w.exp().mean(0).log().mean()
        torch.testing.assert_close(info["bound"], bound)
        torch.testing.assert_close(loss, -bound)
        assert abs(float(((log_w.softmax(0) * log_w).sum(0).mean() - bound).detach())) > 0.01


def test_trap_17_iwae_gives_the_worst_sample_the_most_weight() -> None:
    """∂L/∂log w_k is the normalised weight itself: the largest where w is."""
    log_w = torch.tensor([[-3.0], [0.0], [-1.0]], dtype=DTYPE, requires_grad=True)
    (share,) = torch.autograd.grad(ImportanceWeighted(3).bound(log_w, 1).sum(), [log_w])
    torch.testing.assert_close(share, log_w.detach().softmax(0))
    assert int(share.argmax()) == 1


class Recorder(nn.Module):
    """In the place of a discriminator: keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, z: Tensor) -> Tensor:
        self.seen.append(z)
        return z.sum(-1, keepdim=True)


def shown() -> tuple[Tensor, Tensor, Tensor]:
    """(all codes, those shown as true, those shown as shuffled)."""
    torch.manual_seed(0)
    term = DensityRatio(oracle().vae(), hidden=(8,))
    term.net = recorder = Recorder()  # type: ignore[assignment]
    z = torch.arange(300.0).reshape(100, 3)
    same = Independent(Normal(torch.zeros(3), 1.0), 1)
    term.own_loss(Trace(Batch(z), z.unsqueeze(0), (same, same), lambda: z, lambda: z))
    return z, recorder.seen[0], recorder.seen[1]


def test_trap_19_factor_vae_shuffles_latents_within_a_data_point() -> None:
    """Each latent keeps its own values and mixes data points, in an order of its own."""
    z, _, shuffled = shown()
    assert torch.equal(shuffled.sort(0).values, z[50:])
    rows = shuffled // 3  # which data point each number is from
    assert not torch.equal(rows[:, 0], rows[:, 1])
    assert not torch.equal(rows[:, 1], rows[:, 2])
    assert float((rows[:, 0] == rows[:, 1]).double().mean()) < 0.1


def test_trap_32_a_terms_gradient_is_lost() -> None:
    """Every term reaches the encoder."""
    model, x = oracle().vae(shift=0.2), oracle().data(10)
    t = model.trace(Batch(x, of=50))
    for term in (DIP(), MMD(), TotalCorrelation(), DensityRatio(model, hidden=(8,)).double()):
        found = [g for g in gradients(term(t), model.encoder) if g is not None]  # type: ignore[operator]
        assert max(float(g.abs().max()) for g in found) > 1e-6


def test_trap_38_factor_vae_shuffles_the_very_batch_that_it_holds_for_true() -> None:
    """The true codes and the shuffled ones are of different data points, and all are shown."""
    z, true, shuffled = shown()
    assert torch.equal(true, z[:50])
    assert not set(true.flatten().tolist()) & set(shuffled.flatten().tolist())


# Families and priors


def vamp_model(components: int = 8) -> VAE:
    """A VampPrior whose components lie far from 0, around (50, 50)."""
    torch.manual_seed(0)
    q = families.Normal(2)
    encoder = Conditional(nn.Linear(3, q.size), q)
    with torch.no_grad():
        encoder.net.bias.copy_(torch.tensor([50.0, 50.0, -4.0, -4.0]))
    prior = VampPrior(encoder, torch.randn(components, 3))
    return VAE(prior, encoder, Conditional(nn.Linear(2, 3), families.Normal(3, scale=1.0)))


def test_trap_10_a_decoder_of_real_numbers_ends_in_a_sigmoid() -> None:
    mean = build_model(Recipe.load("gaussian"), (5,)).decode(100 * torch.randn(200, 4)).mean.detach()
    assert float(mean.min()) < -1
    assert float(mean.max()) > 2


def test_trap_35_generation_takes_the_first_pseudo_inputs() -> None:
    """Eight draws of eight components hit them all with probability 8!/8⁸ = 0.24 %; a hundred draws miss none but
    rarely."""
    model = vamp_model()
    with torch.no_grad():
        model.encoder.net.weight.mul_(100)
    torch.manual_seed(0)
    p = model.prior()
    first, many = (p.responsibilities(p.sample(torch.Size((n,)))).argmax(-1) for n in (8, 100))
    assert len(first.unique()) < 8
    assert len(many.unique()) == 8


def test_trap_35_a_discretised_logistic_loses_the_mass_of_its_tails() -> None:
    """With most of its mass beyond the edges, the levels still hold all of it."""
    grid = (torch.arange(256, dtype=DTYPE) / 255).unsqueeze(-1)
    for family in (families.DiscretizedLogistic(1), mixtures.LogisticMixture(1, components=1)):
        phi = torch.tensor([1.5, 0.0] if family.size == 2 else [0.0, 1.5, 0.0], dtype=DTYPE)
        assert float(family(phi).log_prob(grid).exp().sum()) == pytest.approx(1, abs=1e-12)


def test_trap_36_a_constant_counts_once_for_each_dimension_squared() -> None:
    phi, z = torch.zeros(20), torch.zeros(10)
    expected = -5 * math.log(2 * math.pi)
    assert float(families.Normal(10)(phi).log_prob(z)) == pytest.approx(expected, rel=1e-6)
    mixture = Mixture(families.Normal(10), 3)
    with torch.no_grad():
        mixture.phi.zero_()
    assert float(mixture().log_prob(z).detach()) == pytest.approx(expected, rel=1e-6)


def test_trap_37_a_colour_image_has_the_mean_of_its_channels() -> None:
    """Three equal channels have three times the log-likelihood of one."""
    grey, colour = families.Bernoulli((1, 2, 2)), families.Bernoulli((3, 2, 2))
    phi, x = torch.randn(1, 4), torch.bernoulli(torch.full((1, 1, 2, 2), 0.5))
    one, three = grey(phi).log_prob(x), colour(phi.repeat(1, 3)).log_prob(x.expand(1, 3, 2, 2))
    torch.testing.assert_close(three, 3 * one)


def test_trap_39_a_categorical_adds_a_little_to_its_logits() -> None:
    """The rarest of classes keeps its own logarithm: at logits 0 and -60, that is -60 - log(1 + e⁻⁶⁰)."""
    log_p = families.Categorical(1, 2)(torch.tensor([0.0, -60.0])).log_prob(torch.ones(1))
    assert float(log_p) == pytest.approx(-60, rel=1e-6)


# Evaluation

SHORT = Annealing(temperatures=10, leapfrogs=3)
CHAIN = ChainSettings(burn_in=40)


def estimates(o: Oracle, x: Tensor, k: int) -> list[Marginal]:
    """log p(x) by all three estimators, with k samples, chains and draws."""
    model = o.vae(shift=0.2)
    return [log_marginal(model, x, k), log_marginal_ais(model, x, k, SHORT), log_marginal_hmc(model, x, k, CHAIN)]


def test_trap_02_a_likelihood_is_estimated_with_gradients_and_dropout() -> None:
    o = oracle(d=2)
    model, x = o.vae(), o.data(3)
    model.decoder.net = nn.Sequential(nn.Dropout(0.9), model.decoder.net)
    model.train()
    for found in (log_marginal(model, x, 20).log_px, log_marginal_ais(model, x, 20, SHORT).log_px):
        assert not found.requires_grad
        assert float((found - o.evidence.log_prob(x)).abs().max()) < 1.5  # with dropout it is 5 nats off
    assert model.decoder.training
    assert all(p.grad is None for p in model.parameters())


def test_trap_08_a_term_weighs_more_in_a_larger_batch() -> None:
    """The classification term of M2 beside a bound that is a mean: a batch that holds each point twice has the same."""
    o, found = oracle(d=2), []
    torch.manual_seed(0)
    objective, x, y = M2(nn.Linear(6, 3).double(), labeled_fraction=0.5), o.data(4), torch.eye(4, 3, dtype=DTYPE)
    encoder, decoder = nn.Linear(9, 4), nn.Linear(5, 6)
    q, p = families.Normal(2), families.Normal(6, scale=1.0)
    model = VAE(Mixture(q, 1), Conditional(encoder, q), Conditional(decoder, p)).double()
    for times in (1, 2):
        _, info = objective(model, Batch(x.repeat(times, 1), y.repeat(times, 1)), 0)
        found.append(float(info["cross_entropy"]))
    assert found[0] == pytest.approx(found[1])


def test_trap_25_data_that_fill_no_batch_are_dropped() -> None:
    o = oracle(d=2)
    x = o.data(3)
    assert [len(found.log_px) for found in estimates(o, x, 12)] == [3, 3, 3]
    assert len(surgery(o.vae(), x).mutual_information) == 3


def test_trap_27_a_likelihood_is_the_mean_of_batch_means() -> None:
    """The last batch is one odd data point: as one of 41 it counts little, as one of three batches a third."""
    o = oracle(d=2, s=1.0)
    x = o.data(41)
    x[-1] += 20
    exact = o.evidence.log_prob(x)
    rows = Split(x.float())
    with walking(memory=6 * 4 * 20):
        found = log_marginal_ais(o.vae(), x, 4, Annealing(20, 3))
    result = of_marginal(Subject(o.vae(), rows, x, rows, lambda n: None), found)
    assert abs(result["log_likelihood"] - float(exact.mean())) < 1
    assert abs(float((exact[:20].mean() + exact[20:40].mean() + exact[40]) / 3 - exact.mean())) > 50


def test_trap_34_what_is_not_finite_is_left_out_of_the_mean() -> None:
    o = oracle(d=2)
    x = o.data(4)
    x[2] = 1e200  # of which the square overflows
    for found in (log_marginal(o.vae(), x, 10), log_marginal_ais(o.vae(), x, 4, SHORT)):
        assert found.log_px.isfinite().tolist() == [True, True, False, True]
        assert not math.isfinite(float(found.log_px.mean()))
    x[2] = math.nan  # and no such data are taken
    for estimate in (lambda: log_marginal(o.vae(), x, 10), lambda: log_marginal_ais(o.vae(), x, 4, SHORT)):
        with pytest.raises(DataError, match="NaN or infinite values in row 2"):
            estimate()


def test_trap_38_mutual_information_is_counted_in_bins() -> None:
    """One far code stretches all bins of a histogram until they tell nothing; scale does not matter either."""
    v = (torch.arange(400) % 4)[:, None]
    q = Independent(Normal(v.to(DTYPE), torch.full((400, 1), 0.1, dtype=DTYPE)), 1)
    far = q.base_dist.loc.clone()
    far[0] = 1e6
    stretched = Independent(Normal(far, q.base_dist.scale), 1)
    for other in (q, stretched, Independent(Normal(1e3 * q.base_dist.loc, 1e3 * q.base_dist.scale), 1)):
        assert abs(float(mutual_information(other, v)) - math.log(4)) < 0.02
