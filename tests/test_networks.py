"""Gated and residual networks: their formula, their sizes, their start, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import aevb
from aevb.errors import RecipeError, ShapeError
from aevb.models.conditional import Conditional
from aevb.models.networks import MLP, GatedMLP
from aevb.models.priors import StandardNormal
from aevb.models.residual import Block, ResidualDecoder, ResidualEncoder
from aevb.models.vae import VAE
from aevb.runs.build import build_model
from aevb.runs.recipe import Recipe


def test_a_gated_layer_is_its_formula() -> None:
    """(W x + b) ⊙ σ(V x + c), then a linear layer."""
    torch.manual_seed(0)
    net, x = GatedMLP((1, 2, 3), 4, (5,)), torch.randn(7, 1, 2, 3)
    (w, v), (b, c) = net[1].weight.chunk(2), net[1].bias.chunk(2)
    flat = x.view(7, 6)
    hidden = (flat @ w.T + b) * torch.sigmoid(flat @ v.T + c)
    torch.testing.assert_close(net(x), hidden @ net[3].weight.T + net[3].bias)


def test_a_linear_path_adds_a_linear_function_of_the_input() -> None:
    """With V = 0 it is the network without one; by the same V on two inputs the difference is V (a - b)."""
    torch.manual_seed(0)
    plain, beside = MLP((2, 3), 4, (5, 6)), MLP((2, 3), 4, (5, 6), linear=True)
    assert beside.linear is not None
    beside.load_state_dict({**plain.state_dict(), "linear.weight": beside.linear.weight})
    a = torch.randn(7, 2, 3)
    torch.testing.assert_close(beside(a) - plain(a), a.flatten(1) @ beside.linear.weight.T)


def test_the_gated_network_of_the_vamp_prior_has_its_number_of_parameters() -> None:
    """784-300-300-(2·40), each hidden layer with a second matrix for its gates."""
    count = sum(p.numel() for p in GatedMLP((1, 28, 28), 80).parameters())
    assert count == 2 * (784 * 300 + 300) + 2 * (300 * 300 + 300) + 300 * 80 + 80


def test_a_block_starts_as_the_identity_and_then_learns() -> None:
    torch.manual_seed(0)
    block, x = Block(12), torch.randn(2, 12, 5, 4)
    assert torch.equal(block(x), x)
    block(x).square().sum().backward()
    assert bool(block.convs[1].weight.grad.abs().sum() > 0)


def test_a_data_point_does_not_see_the_others_of_its_batch() -> None:
    """Group normalisation is the same in training and in evaluation, and for any batch."""
    torch.manual_seed(0)
    net, x = ResidualEncoder((3, 9, 8), 6, (8, 16)), torch.randn(4, 3, 9, 8)
    together = net.train()(x)
    torch.testing.assert_close(together[1:2], net.eval()(x[1:2]))


@pytest.mark.parametrize("image", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 28, 20), (1, 33, 17), (1, 1, 5)], ids=str)
@pytest.mark.parametrize("channels", [(8,), (4, 6), (4, 8, 12)], ids=str)
def test_residual_networks_fit_images_of_any_size(image: tuple[int, ...], channels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    q, p = aevb.Normal(3), aevb.DiscretizedLogistic(image)
    encoder = Conditional(ResidualEncoder(image, q.size, channels), q)
    model = VAE(StandardNormal(3), encoder, Conditional(ResidualDecoder(3, p.size, image, channels), p))
    t = model.trace(torch.zeros(2, *image), 2)
    assert t.log_w.shape == (2, 2)
    t.log_w.sum().backward()
    assert all(w.grad is not None and bool(w.grad.isfinite().all()) for w in model.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResidualEncoder(784, 40), r"needs images \(C, H, W\).*Use mlp"),
        (lambda: ResidualDecoder(20, 784, (28, 28)), r"needs images \(C, H, W\).*Use mlp"),
        (lambda: ResidualDecoder(20, 785, (1, 28, 28)), r"785 outputs .* 28 x 28"),
        (lambda: ResidualEncoder((1, 8, 8), 4, ()), "at least 1"),
        (lambda: ResidualEncoder((1, 8, 8), 4, (8,), 0), "at least 1"),
        (lambda: ResidualEncoder((1, 28, 28), 6)(torch.zeros(2, 1, 27, 27)), r"\(1, 28, 28\).*\(1, 27, 27\)"),
        (lambda: Conditional(GatedMLP(4, 5), aevb.Normal(3))(torch.zeros(2, 4)), r"needs 6 numbers .* gave 5"),
        (
            lambda: Conditional(ResidualEncoder((1, 8, 8), 5, (8,)), aevb.Normal(3))(torch.zeros(2, 1, 8, 8)),
            r"needs 6 numbers .* gave 5",
        ),
    ],
)
def test_refusals(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        make()


@pytest.mark.parametrize("net", ["mlp", "gated", "conv", "residual"])
def test_every_network_can_be_named(net: str) -> None:
    model = build_model(Recipe.load("bernoulli").override([f"encoder={net}", f"decoder={net}", "latent=2"]), (1, 8, 8))
    assert model.decode(model.encode(torch.zeros(3, 1, 8, 8))).mean.shape == (3, 1, 8, 8)


def test_a_residual_network_of_a_table_is_refused_by_name() -> None:
    with pytest.raises((RecipeError, ShapeError), match=r"encoder \(residual\): A convolutional network needs images"):
        build_model(Recipe.load("bernoulli").override(["encoder=residual"]), (5,))
