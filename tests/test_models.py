"""Models: the trace and its shapes, what it does not compute, conditionals over any network, networks of any size."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

import aevb
from aevb.data.batch import Batch
from aevb.errors import RecipeError, ShapeError
from aevb.models.conditional import Conditional, concatenate, frozen_log_prob
from aevb.models.networks import MLP, ConvDecoder, ConvEncoder
from aevb.models.priors import StandardNormal
from aevb.models.trace import LatentModel, Trace
from aevb.models.vae import VAE
from aevb.objectives.bounds import ELBO


def mlp_vae(x: aevb.Family, z: aevb.Family, hidden: tuple[int, ...] = (16,)) -> VAE:
    torch.manual_seed(0)
    encoder = Conditional(MLP(tuple(x.shape), z.size, hidden), z)
    decoder = Conditional(MLP(tuple(z.shape), x.size, hidden), x)
    return VAE(StandardNormal(tuple(z.shape)), encoder, decoder)


def conv_vae(image: tuple[int, int, int], latent: int = 3) -> VAE:
    torch.manual_seed(0)
    x, z = aevb.Bernoulli(image), aevb.Normal(latent)
    encoder = Conditional(ConvEncoder(image, z.size, (4, 8)), z)
    return VAE(StandardNormal(latent), encoder, Conditional(ConvDecoder(latent, x.size, image, (4, 8)), x))


def binary(*shape: int) -> Tensor:
    return torch.bernoulli(torch.full(shape, 0.5), generator=torch.Generator().manual_seed(1))


class Table(nn.Module):
    """A user's own conditional: no `Conditional`, a full table of normals around W c, broadcasting over any batch."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.w = nn.Linear(inputs, outputs)

    def forward(self, *context: Tensor) -> Distribution:
        return Independent(Normal(self.w(torch.cat(context, -1)), 0.7), 1)


# The trace


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize(
    ("model", "x"),
    [
        (mlp_vae(aevb.Bernoulli(6), aevb.Normal(3)), binary(4, 6)),
        (mlp_vae(aevb.Bernoulli((1, 2, 3)), aevb.Normal((2, 2))), binary(4, 1, 2, 3)),
        (mlp_vae(aevb.Categorical(6, 3), aevb.FullNormal(3)), binary(4, 6)),
        (mlp_vae(aevb.DiscretizedLogistic(6), aevb.StudentT(3)), binary(4, 6)),
        (conv_vae((3, 8, 8)), binary(4, 3, 8, 8)),
        (VAE(StandardNormal(3), Table(6, 3), Table(3, 6)), binary(4, 6)),
    ],
    ids=["vector", "image", "full", "student", "conv", "own"],
)
def test_shapes_of_the_trace(model: VAE, x: Tensor, samples: int) -> None:
    """(K, B) for every density, and log w = log p(x|z) + log p(z) - log q(z|x)."""
    t = model.trace(x, samples)
    event = model.prior().event_shape
    assert t.z.shape == (samples, 4, *event)
    for density in (t.log_px, t.log_pz, t.log_qz, t.log_w):
        assert density.shape == (samples, 4)
        assert bool(density.isfinite().all())
    assert t.kl.shape[0] == 4
    torch.testing.assert_close(t.log_w, t.log_px + t.log_pz - t.log_qz)
    torch.testing.assert_close(t.log_px + t.log_pz, model.log_joint(x, t.z))
    torch.testing.assert_close(t.log_qz, model.log_posterior(x, t.z))
    decoded = model.decode(t.z)
    assert (decoded.batch_shape, decoded.event_shape) == ((samples, 4), x.shape[1:])
    for k in range(samples):
        torch.testing.assert_close(t.log_px[k], model.decode(t.z[k]).log_prob(x))


def test_a_vae_is_a_latent_model() -> None:
    model = conv_vae((1, 8, 8))
    assert isinstance(model, LatentModel)
    assert isinstance(model(binary(2, 1, 8, 8), 3), Trace)


def test_the_trace_by_hand() -> None:
    """x ↦ N(a x, s²), z ↦ N(b z, t²) in one dimension, each density written out."""
    encoder, decoder = (
        Conditional(nn.Linear(1, 2), aevb.Normal(1)),
        Conditional(nn.Linear(1, 1), aevb.Normal(1, scale=0.5)),
    )
    with torch.no_grad():
        encoder.net.weight.copy_(torch.tensor([[0.8], [0.0]]))
        encoder.net.bias.copy_(torch.tensor([0.1, math.log(0.09)]))
        decoder.net.weight.fill_(1.5)
        decoder.net.bias.fill_(-0.2)
    x = torch.tensor([[1.0], [-2.0]])
    t = VAE(StandardNormal(1), encoder, decoder).trace(x, 4)
    z = t.z[..., 0]

    def log_normal(v: Tensor, mean: Tensor, scale: float) -> Tensor:
        return -0.5 * ((v - mean) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)

    mean = 0.8 * x[:, 0] + 0.1
    torch.testing.assert_close(t.log_px, log_normal(x[:, 0], 1.5 * z - 0.2, 0.5))
    torch.testing.assert_close(t.log_pz, log_normal(z, torch.zeros(()), 1.0))
    torch.testing.assert_close(t.log_qz, log_normal(z, mean, 0.3))
    torch.testing.assert_close(t.kl[:, 0], -0.5 * (1 + math.log(0.09) - mean**2 - 0.09))


class Unread(nn.Module):
    """A conditional whose distribution counts how often its density is evaluated."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.count = module, 0

    def forward(self, *context: Tensor) -> Distribution:
        p = self.module(*context)
        evaluate = p.log_prob

        def counted(value: Tensor) -> Tensor:
            self.count += 1
            return evaluate(value)

        p.log_prob = counted
        return p


@pytest.mark.parametrize(("estimator", "expected"), [("B", (0, 0, 1)), ("A", (1, 1, 1))])
def test_a_density_is_computed_when_it_is_read_and_once(estimator: str, expected: tuple[int, ...]) -> None:
    model = VAE(Unread(StandardNormal(3)), Unread(Table(6, 3)), Unread(Table(3, 6)))
    loss, _ = ELBO(estimator)(model, binary(4, 6), 0)  # type: ignore[arg-type]
    loss.backward()
    assert (model.prior.count, model.encoder.count, model.decoder.count) == expected


def test_the_posterior_mean_is_the_code_and_always_the_same() -> None:
    model, x = mlp_vae(aevb.Bernoulli(6), aevb.Normal(3)), binary(4, 6)
    z = model.encode(x)
    assert z.shape == (4, 3)
    assert torch.equal(z, model.encode(x))
    assert torch.equal(z, model.posterior(x).mean)
    assert torch.equal(z, model.encoder.net(x)[:, :3])


def test_sampling_ancestrally() -> None:
    torch.manual_seed(0)
    model = mlp_vae(aevb.Bernoulli((1, 2, 3)), aevb.Normal(2))
    z = model.sample_latent(20_000)
    assert z.shape == (20_000, 2)
    assert bool((z.mean(0).abs() < 4 / math.sqrt(20_000)).all())
    assert bool(((z**2).mean(0) - 1).abs().max() < 4 * math.sqrt(2 / 20_000))
    x = model.decode(z[:7]).sample()
    assert x.shape == (7, 1, 2, 3)
    assert model.decode(z[0]).sample().shape == (1, 2, 3)
    assert model.decode(z[:0]).batch_shape == (0,)


# Conditionals


@pytest.mark.parametrize(
    "net",
    [
        lambda: nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 12)),
        lambda: nn.Sequential(nn.Unflatten(1, (3, 1)), nn.Conv1d(3, 12, 1)),
        lambda: ConvDecoder(3, 12, (1, 2, 3), (4,)),
    ],
    ids=["batch-norm", "conv", "conv-decoder"],
)
def test_a_net_sees_one_batch_dimension(net: Callable[[], nn.Module]) -> None:
    """(K, B, D) at once equals one call for each k."""
    torch.manual_seed(0)
    module = Conditional(net(), aevb.Normal((1, 2, 3))).eval()
    z, x = torch.randn(5, 4, 3), torch.randn(4, 1, 2, 3)
    together = module(z, batch_dims=2)
    assert (together.batch_shape, together.event_shape) == ((5, 4), (1, 2, 3))
    torch.testing.assert_close(together.log_prob(x), torch.stack([module(z[k]).log_prob(x) for k in range(5)]))
    deeper = module(z.expand(2, 5, 4, 3), batch_dims=3)
    torch.testing.assert_close(deeper.log_prob(x), together.log_prob(x).expand(2, 5, 4))


def test_a_net_with_another_number_of_outputs_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"needs 6 numbers .* gave 5"):
        Conditional(nn.Linear(4, 5), aevb.Normal(3))(torch.zeros(2, 4))


def test_contexts_are_laid_side_by_side() -> None:
    x, label = torch.arange(12.0).view(2, 1, 2, 3), torch.tensor([7.0, 8.0])
    joined = concatenate((x, label, torch.eye(2)), 1)
    assert torch.equal(joined, torch.cat([x.view(2, 6), label[:, None], torch.eye(2)], 1))


@pytest.mark.parametrize("given", [torch.eye(4), torch.arange(4.0), torch.arange(24.0).view(4, 1, 2, 3)], ids=str)
def test_a_condition_is_the_same_for_every_sample(given: Tensor) -> None:
    """p(x | z, y) with K = B = D = 4, where nothing but the right broadcast gives these numbers."""
    torch.manual_seed(0)
    width = given[0].numel()
    encoder = Conditional(nn.Linear(6 + width, 8), aevb.Normal(4))
    decoder = Conditional(nn.Linear(4 + width, 6), aevb.Bernoulli(6))
    model, x = VAE(StandardNormal(4), encoder, decoder), binary(4, 6)
    t = model.trace(Batch(x, given), 4)
    y = given.view(4, -1)
    for k in range(4):
        logits = decoder.net(torch.cat([t.z[k], y], 1))
        torch.testing.assert_close(t.log_px[k], aevb.Bernoulli(6)(logits).log_prob(x))
    assert torch.equal(model.encode(Batch(x, given)), encoder.net(torch.cat([x, y], 1))[:, :4])
    torch.testing.assert_close(t.log_px + t.log_pz, model.log_joint(Batch(x, given), t.z))
    torch.testing.assert_close(t.log_qz, model.log_posterior(Batch(x, given), t.z))
    stick = model.trace(Batch(x, given), 3, stick=True)
    torch.testing.assert_close(stick.log_qz, model.log_posterior(Batch(x, given), stick.z))


@pytest.mark.parametrize(
    "prior", [StandardNormal(4), Conditional(nn.Linear(2, 8), aevb.Normal(4)), Table(2, 4)], ids=str
)
def test_latents_under_a_condition(prior: nn.Module) -> None:
    """n draws for n conditions, whether the prior heeds them or not."""
    model = VAE(prior, Table(8, 4), Table(6, 6))
    given = torch.randn(5, 2)
    z = model.sample_latent(5, given)
    assert z.shape == (5, 4)
    assert model.decode(z, given).batch_shape == (5,)
    assert model.trace(Batch(torch.randn(5, 6), given), 3).log_w.shape == (3, 5)


class MixtureDecoder(nn.Module):
    """A user's own likelihood out of `torch.distributions`: two normals for each of three numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 12)

    def forward(self, z: Tensor) -> Distribution:
        logits, mean = self.net(z).unflatten(-1, (2, 3, 2)).unbind(-3)
        return Independent(MixtureSameFamily(Categorical(logits=logits), Normal(mean, 1.0)), 1)


def test_any_module_that_gives_a_distribution_is_a_conditional() -> None:
    torch.manual_seed(0)
    model, x = VAE(StandardNormal(2), Table(3, 2), MixtureDecoder()), torch.randn(4, 3)
    t = model.trace(x, 5)
    assert t.log_px.shape == (5, 4)
    logits, mean = model.decoder.net(t.z).view(5, 4, 2, 3, 2).unbind(2)
    parts = logits.log_softmax(-1) + Normal(mean, 1.0).log_prob(x[..., None])
    torch.testing.assert_close(t.log_px, parts.logsumexp(-1).sum(-1))
    loss, _ = ELBO()(model, x, 0)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


# log q with its parameters held


def test_frozen_log_prob_has_a_gradient_through_z_alone() -> None:
    """Against q with loc and scale detached by hand, in value and in every gradient; a naive density differs."""
    torch.manual_seed(0)
    model, x = mlp_vae(aevb.Bernoulli(6), aevb.Normal(3)), binary(4, 6)
    parameters = list(model.encoder.parameters())

    def gradients(density: Callable[[Distribution, Tensor], Tensor]) -> tuple[Tensor, list[Tensor]]:
        torch.manual_seed(1)
        q = model.posterior(x)
        value = density(q, q.rsample((2,)))
        return value.detach(), list(torch.autograd.grad(value.sum(), parameters))

    def by_hand(q: Distribution, z: Tensor) -> Tensor:
        return Normal(q.base_dist.loc.detach(), q.base_dist.scale.detach()).log_prob(z).sum(-1)  # type: ignore[attr-defined]

    value, ours = gradients(lambda q, z: frozen_log_prob(model.encoder, z, x))
    expected_value, expected = gradients(by_hand)
    full_value, full = gradients(lambda q, z: q.log_prob(z))
    torch.testing.assert_close(value, expected_value)
    torch.testing.assert_close(value, full_value)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert max(float((a - b).abs().max()) for a, b in zip(ours, full, strict=True)) > 0.1
    constant = frozen_log_prob(model.encoder, torch.randn(2, 4, 3), x)
    assert not constant.requires_grad


def test_stick_teaches_batch_normalisation_once_and_scores_z_by_the_q_of_its_draw() -> None:
    torch.manual_seed(0)
    model, x = mlp_vae(aevb.Bernoulli(6), aevb.Normal(3)), binary(32, 6)
    model.encoder = Conditional(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 6)), aevb.Normal(3))
    before = {name: b.clone() for name, b in model.encoder.named_buffers()}
    t = model.trace(x, 2, stick=True)
    once = {name: b.clone() for name, b in model.encoder.named_buffers()}
    torch.testing.assert_close(t.log_qz, t.q.log_prob(t.z))
    for name, b in model.encoder.named_buffers():
        assert torch.equal(b, once[name])
        assert not torch.equal(b, before[name])


def test_stick_refuses_an_encoder_with_dropout_while_it_is_trained() -> None:
    torch.manual_seed(0)
    model, x = mlp_vae(aevb.Bernoulli(6), aevb.Normal(3)), binary(4, 6)
    model.encoder = Conditional(nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)), aevb.Normal(3))
    for objective in (aevb.ImportanceWeighted(1, gradient="stl"), aevb.ImportanceWeighted(5, gradient="dreg")):
        with pytest.raises(
            RecipeError, match=r"Dropout gives no second pass that gives the same q\(z\|x\), .* or the gradient plain"
        ):
            objective(model, x, 0)
    assert bool(aevb.ImportanceWeighted(5)(model, x, 0)[0].isfinite())
    t = model.eval().trace(x, 2, stick=True)
    torch.testing.assert_close(t.log_qz, t.q.log_prob(t.z))


def test_stick_is_what_the_trace_holds_constant() -> None:
    model, x = mlp_vae(aevb.Bernoulli(6), aevb.Normal(3)), binary(4, 6)
    t = model.trace(x, 2, stick=True)
    torch.testing.assert_close(t.log_qz, t.q.log_prob(t.z))
    held = torch.autograd.grad(t.log_qz.sum(), t.z, retain_graph=True)[0]
    free = torch.autograd.grad(t.q.log_prob(t.z).sum(), t.z, retain_graph=True)[0]
    torch.testing.assert_close(held, free)


# Networks


def test_the_network_of_the_paper_has_its_number_of_parameters() -> None:
    """784-500-(2·20) and 20-500-784, App. C."""
    encoder, decoder = MLP((1, 28, 28), 2 * 20), MLP(20, 784)
    assert sum(p.numel() for p in encoder.parameters()) == 784 * 500 + 500 + 500 * 40 + 40
    assert sum(p.numel() for p in decoder.parameters()) == 20 * 500 + 500 + 500 * 784 + 784


def test_an_mlp_is_its_formula_on_flattened_images() -> None:
    torch.manual_seed(0)
    net, x = MLP((1, 2, 3), 4, (5,)), torch.randn(7, 1, 2, 3)
    a, b = net[1], net[3]
    torch.testing.assert_close(net(x), torch.tanh(x.view(7, 6) @ a.weight.T + a.bias) @ b.weight.T + b.bias)
    assert torch.equal(net(x), net(x.view(7, 6)))
    assert MLP(6, 4, ())(x.view(7, 6)).shape == (7, 4)


def test_an_mlp_starts_from_the_normal_of_the_paper() -> None:
    torch.manual_seed(0)
    values = torch.cat([p.flatten() for p in MLP(784, 40, init=0.01).parameters()]).detach()
    assert abs(float(values.std()) / 0.01 - 1) < 4 / math.sqrt(2 * len(values))
    assert abs(float(values.mean())) < 4 * 0.01 / math.sqrt(len(values))
    assert MLP(784, 40, init=0.01)[1].bias.std().item() == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (28, 20), (33, 17), (1, 5)], ids=str)
def test_convolutions_fit_images_of_any_size(size: tuple[int, int], channels: int) -> None:
    image = (channels, *size)
    for family in (aevb.Bernoulli(image), aevb.Normal(image), aevb.Categorical(image, 4)):
        decoder = ConvDecoder(3, family.size, image, (4, 8))
        out = decoder(torch.zeros(2, 3))
        assert out.shape[2:] == size
        assert out[0].numel() == family.size
    assert ConvEncoder(image, 6, (4, 8))(torch.zeros(2, *image)).shape == (2, 6)
    t = conv_vae(image).trace(binary(2, *image), 3)
    assert t.log_w.shape == (3, 2)


@pytest.mark.parametrize("make", [lambda: ConvEncoder(784, 40), lambda: ConvDecoder(20, 784, (28, 28))])
def test_convolutions_refuse_what_is_no_image(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(ShapeError, match=r"needs images \(C, H, W\).*Use mlp"):
        make()


def test_convolutions_refuse_what_is_no_multiple_of_the_image() -> None:
    with pytest.raises(ShapeError, match=r"785 outputs .* 28 x 28"):
        ConvDecoder(20, 785, (1, 28, 28))


def test_convolutions_refuse_images_of_another_size() -> None:
    """Rounded sizes hide a pixel: 27 x 27 and 28 x 28 give the same number of features."""
    for size in (27, 32):
        with pytest.raises(ShapeError, match=rf"\(1, 28, 28\).*\(1, {size}, {size}\)"):
            ConvEncoder((1, 28, 28), 6)(torch.zeros(2, 1, size, size))


def test_the_keys_of_the_weights_are_stable() -> None:
    """Saved runs depend on them."""
    mlp = ["encoder.net.1.weight", "encoder.net.1.bias", "encoder.net.3.weight", "encoder.net.3.bias"]
    mlp += [key.replace("encoder", "decoder") for key in mlp]
    assert list(mlp_vae(aevb.Bernoulli(6), aevb.Normal(3)).state_dict()) == mlp
    conv = [f"encoder.net.{i}.{w}" for i in (0, 2, 5) for w in ("weight", "bias")]
    conv += [f"decoder.net.{m}.{w}" for m in ("start", "convs.0", "convs.1", "end") for w in ("weight", "bias")]
    assert list(conv_vae((1, 8, 8)).state_dict()) == conv
