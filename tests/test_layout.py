"""Weights of convolutions lie channels-last: the same numbers, and the same training, in another order of memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import aevb
from aevb.models.layout import lay_out
from aevb.models.networks import ConvDecoder, ConvEncoder
from aevb.models.residual import ResidualEncoder
from aevb.training.checkpoint import restore, state_tensors
from aevb.training.events import Course
from aevb.training.learner import Learner
from aevb.training.stacked import train_stacked

SHAPE = (3, 8, 8)
X = torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(1))


def model(seed: int = 0) -> aevb.VAE:
    torch.manual_seed(seed)
    return aevb.VAE(
        aevb.StandardNormal(2),
        aevb.Conditional(ConvEncoder(SHAPE, 4, (4, 6)), aevb.Normal(2)),
        aevb.Conditional(ConvDecoder((2,), 192, SHAPE, (4, 6)), aevb.ContinuousBernoulli(SHAPE)),
    )


def learner(optimizer: object, seed: int = 0) -> Learner:
    training = aevb.Training(optimizer, batch=20, samples=120, seed=seed)  # type: ignore[arg-type]
    return Learner(model(seed), aevb.ELBO(), training, len(X))


def kernels(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if p.ndim == 4]


def as_ever(module: nn.Module) -> None:
    """Put all weights back into PyTorch's own order."""
    for p in kernels(module):
        p.data = p.data.to(memory_format=torch.contiguous_format)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_convolution_laid_out_gives_the_same_numbers_channels_last(channels: int) -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(channels, 4, 3), torch.rand(2, channels, 8, 8)
    before, weight = conv(x), conv.weight.detach().clone()
    lay_out(conv)
    assert torch.equal(conv.weight, weight)
    torch.testing.assert_close(conv(x), before)
    assert conv(x).stride()[1] == 1  # the channels of a pixel lie side by side


def test_networks_with_group_normalisation_stay_as_they_are() -> None:
    net = aevb.Conditional(ResidualEncoder(SHAPE, 4, (4, 6)), aevb.Normal(2))
    assert all(w.is_contiguous() for w in kernels(net))


def test_a_layer_whose_weights_have_no_shape_yet_is_left_alone() -> None:
    net = nn.Sequential(nn.LazyConv2d(4, 3, stride=4), nn.Flatten(), nn.Linear(16, 4))
    assert aevb.Conditional(net, aevb.Normal(2))(X[:2]).batch_shape == (2,)


def test_the_bound_and_its_gradient_are_those_of_the_other_order() -> None:
    found = []
    for other in (False, True):
        vae = model()
        if other:
            as_ever(vae)
        torch.manual_seed(5)
        loss, _ = aevb.ELBO()(vae, aevb.Batch(X), torch.tensor(0))
        found.append([loss, *torch.autograd.grad(loss, list(vae.parameters()))])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", [aevb.Adam(), aevb.Adagrad(), aevb.SGD(1e-4, momentum=0.9)])
def test_a_training_goes_on_from_a_checkpoint_bit_for_bit(optimizer: object) -> None:
    """Files hold tensors in one order; PyTorch's fused optimizers would mix up memory in another."""
    whole, first, second = learner(optimizer), learner(optimizer), learner(optimizer)
    list(aevb.continue_training(whole, X))
    steps = aevb.continue_training(first, X)
    for _ in range(3):
        next(steps)
    restore(second, state_tensors(first), 3)
    assert any(not p.is_contiguous() for p in kernels(second))
    list(aevb.continue_training(second, X))
    for name, p in whole.model.state_dict().items():
        assert torch.equal(p, second.model.state_dict()[name]), name


def test_a_state_of_the_learner_is_taken_in_any_order() -> None:
    """`load_state_dict`, of a state that `torch.save` or another program has made contiguous."""
    whole, first, second = (learner(aevb.Adam()) for _ in range(3))
    list(aevb.continue_training(whole, X))
    steps = aevb.continue_training(first, X)
    for _ in range(3):
        next(steps)
    state = first.state_dict()
    memory = state["_extra_state"]["optimizers"][0]["state"]
    for entries in memory.values():
        entries.update({k: v.contiguous() for k, v in entries.items()})
    second.load_state_dict(state)
    list(aevb.continue_training(second, X))
    for name, p in whole.model.state_dict().items():
        assert torch.equal(p, second.model.state_dict()[name]), name


def test_a_stack_takes_up_models_whose_optimizers_have_a_memory() -> None:
    """Three steps alone, three in the stack: the weights of six steps alone, up to rounding."""
    alone, members = [learner(aevb.Adam(), seed) for seed in (0, 1)], [learner(aevb.Adam(), seed) for seed in (0, 1)]
    for one in alone:
        list(aevb.continue_training(one, X))
    for one in members:
        steps = aevb.continue_training(one, X)
        for _ in range(3):
            next(steps)
    courses = [Course.of(one, X, None, aevb.Monitor(), aevb.TrainingState()) for one in members]
    list(train_stacked(courses, float("inf")))
    for one, other in zip(alone, members, strict=True):
        for name, p in one.model.state_dict().items():
            torch.testing.assert_close(p, other.model.state_dict()[name], rtol=1e-3, atol=1e-5, msg=name)
