"""Algorithm 1: the order of the data, reproducible noise, updates checked by hand, refusals, and that it learns."""

from __future__ import annotations

import copy
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import Tensor, nn

import aevb
from aevb.data.randomness import Order, cuda_index, derive, noise_seed, seeded
from aevb.errors import DataError, RecipeError, ShapeError, TrainingDiverged
from aevb.evaluation.bound import elbo
from aevb.models.conditional import Conditional
from aevb.models.networks import MLP
from aevb.models.priors import StandardNormal
from aevb.models.vae import VAE
from aevb.objectives.bounds import ELBO, Info, Objective
from aevb.objectives.schedules import Linear
from aevb.training.checkpoint import restore, state_tensors
from aevb.training.learner import Loss
from aevb.training.optimizers import SGD, Adagrad, Adam, parameter_groups
from aevb.training.train import Learner, Training, continue_training, train


def small(seed: int = 0, net: Callable[[int, int], nn.Module] | None = None) -> VAE:
    torch.manual_seed(seed)
    make = net or (lambda inputs, outputs: MLP(inputs, outputs, (8,)))
    encoder = Conditional(make(6, 6), aevb.Normal(3))
    return VAE(StandardNormal(3), encoder, Conditional(make(3, 6), aevb.Bernoulli(6)))


def binary(rows: int = 50) -> Tensor:
    return torch.bernoulli(torch.full((rows, 6), 0.3), generator=torch.Generator().manual_seed(1))


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def trained(
    settings: Training, data: Tensor, model: VAE | None = None, objective: Objective | None = None
) -> list[Tensor]:
    model = model or small()
    for _ in train(model, objective or ELBO(), data, settings):
        pass
    return weights(model)


def assert_same(a: list[Tensor], b: list[Tensor], **tolerance: float) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, **tolerance or {"rtol": 0.0, "atol": 0.0})


def distance(a: list[Tensor], b: list[Tensor]) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


# The order of the data


@pytest.mark.trap(12)
@pytest.mark.parametrize(("n", "batch"), [(10, 3), (10, 10), (7, 2), (100, 32), (5, 1)])
def test_every_pass_is_a_permutation_and_every_batch_is_full(n: int, batch: int) -> None:
    order = Order(n, batch, seed=0)
    batches = [order[step] for step in range(3 * n)]
    assert {len(b) for b in batches} == {batch}
    passes = torch.cat(batches)[: 3 * batch * (n // 1)].split(n)
    full = [p for p in passes if len(p) == n]
    assert len(full) >= 3
    assert all(torch.equal(p.sort().values, torch.arange(n)) for p in full)
    assert not all(torch.equal(full[0], p) for p in full[1:])


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    here = Order(10, 3, seed=5)
    forward = [here[step] for step in range(20)]
    for step in (19, 3, 4, 0, 12):
        assert torch.equal(here[step], forward[step])
        assert torch.equal(Order(10, 3, seed=5)[step], forward[step])
    torch.manual_seed(123)
    torch.rand(5)
    assert torch.equal(Order(10, 3, seed=5)[7], forward[7])
    assert any(not torch.equal(Order(10, 3, seed=6)[step], forward[step]) for step in range(3))


def test_a_batch_larger_than_the_data_is_the_data() -> None:
    order = Order(4, 100, seed=0)
    assert order.batch == 4
    assert all(torch.equal(order[step].sort().values, torch.arange(4)) for step in range(5))
    assert Training(batch=100, samples=41).steps(4) == 11


def test_the_seeds_derived_from_a_seed_do_not_change_between_versions() -> None:
    """Published runs are repeated from their seed."""
    assert derive(0, "noise", 0) == 333594243501737407
    assert len({derive(s, name, k) for s in range(5) for name in ("noise", "order") for k in range(5)}) == 50


# Noise


def test_seeded_gives_the_global_generator_back() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with seeded(9):
        inside = torch.rand(4)
    assert torch.equal(torch.rand(4), expected)
    with seeded(9):
        assert torch.equal(torch.rand(4), inside)
    torch.manual_seed(3)
    with pytest.raises(ValueError, match="on purpose"), seeded(1):
        raise ValueError("on purpose")
    assert torch.equal(torch.rand(4), expected)


def test_a_run_is_its_seed_bit_for_bit() -> None:
    """Whatever the caller draws or evaluates between two steps; dropout and batch normalisation included."""

    def net(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, outputs))

    settings, data = Training(batch=8, samples=160, seed=4), binary()
    quiet, noisy, other = small(net=net), small(net=net), small(net=net)
    for _ in train(quiet, ELBO(), data, settings):
        pass
    for step in train(noisy, ELBO(), data, settings):
        torch.manual_seed(step.number)
        torch.rand(step.number)
        noisy.eval()
        noisy.encode(data)
    for _ in train(other, ELBO(), data, Training(batch=8, samples=160, seed=5)):
        pass
    assert_same(list(quiet.state_dict().values()), list(noisy.state_dict().values()))
    assert distance(weights(quiet), weights(other)) > 1e-3


def test_order_and_noise_both_depend_on_the_seed() -> None:
    """With all the data in every batch and a mean over it, only the noise is left to differ."""
    data = binary(20)
    runs = [trained(Training(batch=20, samples=20, seed=seed, optimizer=SGD(0.1)), data) for seed in (0, 1)]
    assert distance(*runs) > 1e-4


@pytest.mark.trap(31)
def test_the_noise_of_every_step_is_its_own() -> None:
    """Weights that stand still and equal rows: what differs between losses is the noise."""
    steps = train(small(), ELBO(), binary(1).repeat(20, 1), Training(batch=20, samples=200, optimizer=SGD(0.0)))
    assert len({round(float(step.info["loss"]), 4) for step in steps}) > 5


def test_training_does_not_touch_the_callers_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    model = small()
    torch.manual_seed(0)
    for _ in train(model, ELBO(), binary(), Training(batch=10, samples=50)):
        pass
    assert torch.equal(torch.rand(3), expected)


def test_a_learner_goes_on_where_it_stands() -> None:
    data, settings = binary(), Training(batch=7, samples=140, optimizer=Adam(), ema=0.9)
    whole, broken = small(), small()
    full = Learner(whole, ELBO(), settings, len(data))
    for _ in continue_training(full, data):
        pass
    learner = Learner(broken, ELBO(), settings, len(data))
    for step in continue_training(learner, data):
        if step.number == 6:
            break
    numbers = [step.number for step in continue_training(learner, data)]
    assert numbers == list(range(7, 21))
    assert_same(weights(whole), weights(broken))
    assert_same(weights(full.best_known), weights(learner.best_known))


def test_steps_count_samples() -> None:
    steps = list(train(small(), ELBO(), binary(), Training(batch=7, samples=50)))
    assert [s.number for s in steps] == list(range(1, 9))
    assert [s.samples for s in steps] == [7 * n for n in range(1, 9)]
    assert set(steps[0].info) == {"loss", "elbo", "reconstruction", "kl"}


# Updates by hand


def test_one_step_of_sgd_is_the_gradient_by_hand() -> None:
    """x̂ = v (w x + b) + c, loss = mean ½ (x - x̂)² + ½ log 2π, every derivative written out."""
    encoder, decoder = (
        Conditional(nn.Linear(1, 1), aevb.Delta(1)),
        Conditional(nn.Linear(1, 1), aevb.Normal(1, scale=1.0)),
    )
    model, x = VAE(StandardNormal(1), encoder, decoder), torch.tensor([[0.5], [-1.0], [2.0]])
    w, b, v, c = (float(p) for p in (p.detach() for p in model.parameters()))
    code = w * x + b
    residual = x - (v * code + c)
    slopes = [-(residual * v * x).mean(), -(residual * v).mean(), -(residual * code).mean(), -residual.mean()]
    (step,) = train(model, ELBO(beta=0), x, Training(batch=3, samples=3, optimizer=SGD(0.1)))
    for before, slope, after in zip((w, b, v, c), slopes, model.parameters(), strict=True):
        assert after.item() == pytest.approx(before - 0.1 * float(slope), rel=1e-5)
    assert float(step.info["loss"]) == pytest.approx(float((residual**2).mean()) / 2 + 0.9189385, rel=1e-5)


class Prior:
    """An objective plus 1/N · ½ |W|², W all the weights but the biases: the weight prior added to the loss by hand."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, model: Any, x: Tensor, step: Any) -> tuple[Tensor, Info]:
        loss, info = ELBO()(model, x, step)
        squares = [(p**2).sum() for name, p in model.named_parameters() if name.endswith("weight")]
        return loss + torch.stack(squares).sum() / (2 * self.n), info


@pytest.mark.parametrize("optimizer", [SGD(0.1), SGD(0.1, momentum=0.9), Adagrad(0.05), Adam(0.01)], ids=repr)
def test_the_weight_prior_is_a_term_of_the_bound(optimizer: Any) -> None:
    settings, data = partial(Training, batch=10, samples=60, optimizer=optimizer), binary(20)
    prior = trained(settings(weight_prior=True), data)
    by_hand = trained(settings(), data, objective=Prior(20))
    without = trained(settings(), data)
    assert_same(prior, by_hand, rtol=1e-4, atol=1e-6)
    assert distance(prior, without) > 1e-3


def test_the_weight_prior_spares_biases() -> None:
    groups = parameter_groups(small(), 0.25)
    assert [[p.ndim for p in g["params"]] for g in groups] == [[2] * 4, [1] * 4]
    assert [g["weight_decay"] for g in groups] == [0.25, 0.0]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Adagrad(0.05), partial(torch.optim.Adagrad, lr=0.05)),
        (Adam(0.01, betas=(0.8, 0.9), eps=1e-6), partial(torch.optim.Adam, lr=0.01, betas=(0.8, 0.9), eps=1e-6)),
        (SGD(0.1, momentum=0.5), partial(torch.optim.SGD, lr=0.1, momentum=0.5)),
    ],
    ids=["adagrad", "adam", "sgd"],
)
def test_optimizers_are_pytorchs_and_so_may_be_the_users(ours: Any, theirs: Any) -> None:
    settings = partial(Training, batch=10, samples=100)
    a, b = (trained(settings(optimizer=o), binary()) for o in (ours, theirs))
    assert_same(a, b, rtol=1e-4, atol=1e-6)


TRAINED = """
import sys, torch, aevb
encoder = aevb.Conditional(aevb.MLP(4, 4, [3]), aevb.Normal(2))
decoder = aevb.Conditional(aevb.MLP(2, 4, [3]), aevb.Bernoulli(4))
model = aevb.VAE(aevb.StandardNormal(2), encoder, decoder)
for optimizer in (aevb.Adam(), aevb.Adagrad(), aevb.SGD(momentum=0.5)):
    learner = aevb.Learner(model, aevb.ELBO(), aevb.Training(optimizer=optimizer, batch=5, samples=10), 10)
    for _ in aevb.train_events(learner, torch.eye(4)[torch.arange(10) % 4], checkpoint_every=0):
        pass
    learner.load_state_dict(learner.state_dict())
print("torch._dynamo" in sys.modules)
"""


def test_training_does_not_import_the_compiler() -> None:
    """Which takes as long as PyTorch itself."""
    found = subprocess.run([sys.executable, "-c", TRAINED], capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == ("False\n", 0), found.stderr[-2000:]


def test_clipping_bounds_the_step() -> None:
    before = weights(small())

    def length(clip: float | None) -> float:
        after = trained(Training(batch=10, samples=10, optimizer=SGD(1.0), clip=clip), binary())
        return float(torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)]).norm())

    free = length(None)
    assert free > 0.2
    assert length(0.1) == pytest.approx(0.1, rel=1e-3)
    assert length(100.0) == pytest.approx(free, rel=1e-5)


def test_a_learning_rate_schedule_multiplies_the_step_size() -> None:
    settings = Training(batch=10, samples=50, optimizer=SGD(0.2), learning_rate=Linear(1.0, 0.0, 4))
    model, data = small(), binary()
    learner = Learner(model, ELBO(), settings, len(data))
    rates, states = [], [weights(model)]
    for _ in continue_training(learner, data):
        rates.append({g["lr"] for g in learner.optimizer.param_groups})
        states.append(weights(model))
    assert [pytest.approx(r.pop()) for r in rates] == [0.2, 0.15, 0.1, 0.05, 0.0]
    assert all(not r for r in rates)
    assert distance(states[3], states[4]) > 0
    assert_same(states[4], states[5])


def test_the_moving_average_by_hand() -> None:
    """θ̄₁ = θ₁, θ̄_t = d θ̄_{t-1} + (1 - d) θ_t; buffers are the model's latest."""

    def net(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.Linear(8, outputs))

    model, data = small(net=net), binary()
    learner = Learner(model, ELBO(), Training(batch=10, samples=60, ema=0.7, optimizer=SGD(0.1)), len(data))
    average: list[Tensor] = []
    for _ in continue_training(learner, data):
        now = weights(model)
        average = [0.7 * a + 0.3 * b for a, b in zip(average, now, strict=True)] if average else now
        assert_same(weights(learner.best_known), average, rtol=1e-5, atol=1e-7)
        assert_same(list(learner.best_known.buffers()), list(model.buffers()))
    assert distance(average, weights(model)) > 1e-3
    assert Learner(model, ELBO(), Training(), 10).best_known is model


def test_a_learner_is_a_module_like_any_other() -> None:
    """Wrappers, `.to`, `.train` and `state_dict` recurse into children: it must not be its own."""
    learner = Learner(small(), ELBO(), Training(compile=True), 10)
    learner.train().to("cpu").eval()
    assert list(learner.state_dict()) == ["_extra_state", *(f"model.{k}" for k in learner.model.state_dict())]
    assert "VAE" in repr(learner)
    torch.testing.assert_close(len(list(copy.deepcopy(learner).parameters())), 8)


# Refusals


def first_step(data: Any, model: VAE | None = None) -> None:
    next(iter(train(model or small(), ELBO(), data, Training(batch=10, samples=100))))


def test_missing_values_are_refused_by_row() -> None:
    x = binary(100)
    x[[3, 70]] = float("nan")
    x[99, 0] = float("inf")
    with pytest.raises(DataError, match=r"hold 13 NaN or infinite values in 3 rows \(3, 70, 99\)"):
        first_step(x)
    x[:] = float("nan")
    with pytest.raises(DataError, match=r"600 NaN or infinite values in 100 rows \(0, 1, 2, 3, 4, \.\.\.\)"):
        first_step(x)


def test_no_data_are_refused() -> None:
    with pytest.raises(DataError, match="the data have length 0"):
        first_step(binary()[:0])


@pytest.mark.parametrize("cast", [Tensor.long, Tensor.byte, Tensor.double, Tensor.numpy], ids=lambda c: c.__name__)
def test_data_of_any_type_are_read_in_the_type_of_the_model(cast: Callable[[Tensor], Any]) -> None:
    m = small()
    losses = [next(iter(train(copy.deepcopy(m), ELBO(), x))).info["loss"] for x in (cast(binary()), binary())]
    assert torch.equal(losses[0], losses[1])


@pytest.mark.parametrize("row", [0, 99])
def test_grey_data_under_a_bernoulli_are_refused_wherever_they_are(row: int) -> None:
    x = binary(100)
    x[row, 2] = 0.5
    with pytest.raises(
        DataError,
        match=rf"bernoulli covers 0 and 1, but the data hold 0\.5 in row {row}\. .*values='dynamic'.*relaxed=True",
    ):
        first_step(x)


class Rows:
    """A user's own data: anything with a length and rows at an index tensor."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.x[index]


def test_data_may_be_indexed_and_are_checked_like_a_tensor() -> None:
    settings = Training(batch=10, samples=100)
    assert_same(trained(settings, binary()), trained(settings, Rows(binary())))  # type: ignore[arg-type]
    for value, message in ((0.5, "Bernoulli"), (float("nan"), "NaN")):
        x = binary()
        x[5, 0] = value
        with pytest.raises(DataError, match=message):
            first_step(Rows(x))


def test_data_of_another_shape_than_the_decoders_are_refused() -> None:
    encoder = Conditional(MLP(1, 6, (8,)), aevb.Normal(3))
    model = VAE(StandardNormal(3), encoder, Conditional(MLP(3, 6, (8,)), aevb.Bernoulli(6)))
    with pytest.raises(ShapeError, match=r"over the shape \(6,\).*\(1,\)"):
        first_step(binary()[:, :1], model)


def test_a_look_at_the_data_leaves_no_trace() -> None:
    """Neither in batch normalisation nor in the noise."""
    model = small(net=lambda a, b: nn.Sequential(nn.BatchNorm1d(a), nn.Linear(a, b)))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(DataError):
        first_step(binary() / 2, model)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    next(iter(train(model, ELBO(), binary(), Training(optimizer=SGD(0.0), batch=10))))
    assert int(model.encoder.net[0].num_batches_tracked) == 1


def test_settings_without_sense_are_refused() -> None:
    for name in ("batch", "samples"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
            Training(**{name: 0})


# Divergence


class Losses:
    """An objective with given losses."""

    def __init__(self, losses: Callable[[int], float]) -> None:
        self.losses = losses

    def __call__(self, model: Any, x: Tensor, step: Any) -> tuple[Tensor, Info]:
        return 0 * next(model.parameters()).sum() + self.losses(int(step)), {}


def run_until_error(losses: Callable[[int], float], steps: int) -> list[int]:
    seen = []
    for step in train(small(), Losses(losses), binary(), Training(batch=10, samples=10 * steps)):
        seen.append(step.number)
    return seen


def test_an_absurd_step_size_is_reported() -> None:
    """At the first look after it happens; and the advice cures."""
    absurd = r"not finite after step 2 \(model\.\S+\)\. Try a smaller step size than 1e\+20 \(lr of the optimizer\)"
    with pytest.raises(TrainingDiverged, match=absurd) as told:
        trained(Training(batch=10, samples=10_000, optimizer=SGD(1e20)), binary())
    assert "--set" not in str(told.value)
    assert told.value.changes == ("training.optimizer.lr=...",)
    assert all(
        bool(w.isfinite().all()) for w in trained(Training(batch=10, samples=10_000, optimizer=SGD(0.1)), binary())
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("at", "steps", "where"), [(0, 9, "1 to 1"), (60, 999, "52 to 101"), (5, 9, "2 to 9"), (8, 9, "2 to 9")]
)
def test_a_loss_that_is_no_number_is_reported_with_its_steps(bad: float, at: int, steps: int, where: str) -> None:
    """Also in a run that ends before the next look."""
    with pytest.raises(TrainingDiverged, match=f"within steps {where}"):
        run_until_error(lambda step: bad if step == at else 100.0, steps)


def test_an_explosion_is_reported() -> None:
    with pytest.raises(TrainingDiverged, match=r"rose from 100 to 1e\+05 nats within steps 102 to 151"):
        run_until_error(lambda step: 1e5 if step > 100 else 100.0, 500)
    with pytest.raises(TrainingDiverged, match=r"within steps 52 to 101"):  # slowly, twice the loss in every 25 steps
        run_until_error(lambda step: 100.0 * 2 ** (step / 6), 500)


@pytest.mark.parametrize("first", [0.01, 40.0, -3000.0, 1e6])
def test_a_loss_that_falls_is_no_divergence(first: float) -> None:
    """However far and fast: densities have no upper bound."""
    for fall in (1e2, 1e4, 1e9, 1e30):
        assert len(run_until_error(lambda step, f=fall: first - f * step, 120)) == 120  # type: ignore[misc]
        assert len(run_until_error(lambda step, f=fall: first if step < 60 else first - f, 120)) == 120  # type: ignore[misc]


def test_a_rise_is_measured_by_the_losses_so_far() -> None:
    """From look to look by 100 times the first or the lowest loss, at least 10,000 nats; a slow rise by any sum."""
    jump = {first: (100 * max(abs(first), 100.0)) for first in (1.0, 500.0, -2e4)}
    for first, limit in jump.items():
        assert len(run_until_error(lambda step, f=first, l=limit: f if step < 51 else f + 0.99 * l, 101)) == 101  # type: ignore[misc]
        with pytest.raises(TrainingDiverged, match="rose from"):
            run_until_error(lambda step, f=first, l=limit: f if step < 51 else f + 1.01 * l, 101)  # type: ignore[misc]
    assert (
        len(run_until_error(lambda step: 100.0 * step, 600)) == 600
    )  # a schedule, say of a capacity: 60,000 in the end


def far(scale: float) -> tuple[VAE, Tensor]:
    """A model of tables, and a table of five columns of that size."""
    torch.manual_seed(0)
    q, p = aevb.Normal(2), aevb.Normal(5)
    nets = MLP(5, q.size, (32,), nn.SiLU), MLP(2, p.size, (32,), nn.SiLU)
    model = VAE(StandardNormal(2), Conditional(nets[0], q), Conditional(nets[1], p))
    return model, scale * torch.randn(800, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scale", [1e5, 1e8, 1e30])
def test_an_optimizer_that_overflows_is_reported_at_its_step_with_the_remedy_that_cures(scale: float) -> None:
    """Unscaled data: a smaller step size would not help, and standardised data do."""
    for lr in (1e-3, 1e-7):
        model, x = far(scale)
        settings = Training(samples=6000, optimizer=Adam(lr))
        steps = []
        with pytest.raises(TrainingDiverged, match=r"Rescale them|rescale them") as told:
            steps += [step.number for step in train(model, ELBO(), x, settings)]
        assert "after step 1 " in str(told.value) or "steps 1 to 1" in str(told.value)
    model, x = far(scale)
    last = [float(s.info["loss"]) for s in train(model, ELBO(), (x - x.mean(0)) / x.std(0), settings)][-1]
    assert last < 20


def test_a_kl_that_is_infinite_is_refused_before_the_first_step() -> None:
    """A point posterior has no density; both remedies of the message cure."""

    def autoencoder(q: Any) -> VAE:
        torch.manual_seed(0)
        return VAE(StandardNormal(3), Conditional(MLP(6, q.size), q), Conditional(MLP(3, 6), aevb.Bernoulli(6)))

    settings = Training(batch=10, samples=500)
    refused = (
        r"posterior delta gives no finite KL from the prior.* one of: normal, .*; or beta = 0, of an autoencoder\."
    )
    with pytest.raises(RecipeError, match=refused):
        trained(settings, binary(), autoencoder(aevb.Delta(3)))
    trained(settings, binary(), autoencoder(aevb.Delta(3)), ELBO(beta=0))
    trained(settings, binary(), autoencoder(aevb.Normal(3)))


# It learns


def digits() -> Tensor:
    return torch.from_numpy(load_digits().data).float() / 16


def digits_vae() -> VAE:
    torch.manual_seed(0)
    encoder = Conditional(MLP(64, 20, (100,)), aevb.Normal(10))
    return VAE(StandardNormal(10), encoder, Conditional(MLP(10, 64, (100,)), aevb.Bernoulli(64, relaxed=True)))


@pytest.mark.parametrize("estimator", ["A", "B"])
def test_training_raises_the_bound_on_digits(estimator: Any) -> None:
    """Above what the best model without latents gives: each pixel its own mean, -27.1 nats on 8 x 8 digits."""
    x, model = digits(), digits_vae()
    mean = x.mean(0).clamp(1e-6, 1 - 1e-6)
    independent = float((x * mean.log() + (1 - x) * (1 - mean).log()).sum(-1).mean())
    with torch.no_grad(), seeded(0):
        before = float(ELBO()(model, x, 0)[1]["elbo"])
    for _ in train(model, ELBO(estimator), x, Training(samples=60_000, optimizer=Adam(3e-3))):
        pass
    with torch.no_grad(), seeded(0):
        after = float(ELBO()(model, x, 0)[1]["elbo"])
    assert before < -44
    assert after > independent + 1.5
    assert after > before + 15


@pytest.mark.slow
def test_a_compiled_run_has_the_same_losses() -> None:
    x = digits()
    settings = partial(Training, samples=5000, optimizer=Adam(3e-3), clip=100.0)
    objective = ELBO(beta=Linear(0.0, 1.0, 30))
    eager, compiled = (
        torch.stack([s.info["loss"] for s in train(digits_vae(), objective, x, settings(compile=c))])
        for c in (False, True)
    )
    torch.testing.assert_close(eager, compiled, rtol=1e-3, atol=1e-3)


# Several threads, several processes


def numbers_of(seed: int) -> tuple[float, float, float]:
    """The last loss of a training, its bound and its log p(x), with dropout and noise."""

    def net(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 8), nn.Dropout(0.3), nn.Linear(8, outputs))

    with seeded(seed):
        nets = net(6, 6), net(3, 6)
        model = VAE(StandardNormal(3), Conditional(nets[0], aevb.Normal(3)), Conditional(nets[1], aevb.Bernoulli(6)))
    x = binary(200)
    loss = [step.info["loss"] for step in train(model, ELBO(), x, Training(batch=20, samples=1000, seed=seed))][-1]
    marginal = aevb.log_marginal(model, x, 20, seed=seed).log_px.mean()
    return float(loss), float(elbo(model, x, seed=seed).elbo.mean()), float(marginal)


def test_trainings_in_threads_give_the_numbers_that_they_give_alone() -> None:
    alone = [numbers_of(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            assert list(pool.map(numbers_of, range(4))) == alone


def test_one_model_is_evaluated_by_several_threads() -> None:
    """None of them leaves it in training mode for the others."""
    model = small(net=lambda a, b: nn.Sequential(nn.Linear(a, 8), nn.Dropout(0.5), nn.Linear(8, b)))
    x, expected = binary(200), aevb.log_marginal(model, binary(200), 20).log_px
    with ThreadPoolExecutor(4) as pool:
        assert all(
            torch.equal(m.log_px, expected) for m in pool.map(lambda _: aevb.log_marginal(model, x, 20), range(12))
        )
    assert model.training


def test_a_gpu_is_seeded_by_its_own_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Number 0 is a number."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert [cuda_index(torch.device(name)) for name in ("cuda:0", "cuda:1", "cuda:2", "cuda")] == [0, 1, 2, 1]


def test_the_noise_of_the_first_process_is_that_of_one_process() -> None:
    assert noise_seed(3, 5) == noise_seed(3, 5, 0) == derive(3, "noise", 5)
    assert len({noise_seed(0, step, rank) for step in range(20) for rank in range(5)}) == 100


def distributed(rank: int, place: str) -> list[Tensor]:
    """Three steps of two processes, each on a half of every minibatch, through DistributedDataParallel."""
    limit = timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2, timeout=limit)
    try:
        x, model = binary(), small()
        loss = nn.parallel.DistributedDataParallel(Loss(model, ELBO("A")))
        learner = Learner(model, ELBO("A"), Training(batch=10, samples=30, optimizer=SGD(0.1)), len(x), loss)
        order = Order(len(x), 10, 0)
        for step in range(3):
            with seeded(noise_seed(0, step, rank)):
                learner.update(x[order[step][rank::2]])
        return weights(model)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
def test_several_processes_move_one_model(tmp_path: Path) -> None:
    """The wrapped loss is what is differentiated: both end in the same weights, those of the mean of both gradients."""
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may deadlock
    with context.Pool(2) as pool:
        found = pool.starmap_async(distributed, [(0, str(tmp_path)), (1, str(tmp_path))]).get(timeout=300)
    assert_same(*found)
    model, x, order = small(), binary(), Order(50, 10, 0)
    for step in range(3):
        gradients = []
        for rank in range(2):
            with seeded(noise_seed(0, step, rank)):
                loss, _ = ELBO("A")(model, x[order[step][rank::2]], step)
            gradients.append(torch.autograd.grad(loss, list(model.parameters())))
        with torch.no_grad():
            for p, a, b in zip(model.parameters(), *gradients, strict=True):
                p -= 0.1 * (a + b) / 2
    assert_same(weights(model), found[0], rtol=1e-5, atol=1e-6)


def test_a_loss_of_ones_own_is_what_is_differentiated() -> None:
    model, x = small(), binary()
    whole = Loss(model, ELBO())

    def half(batch: Any, step: Tensor) -> tuple[Tensor, Info]:
        loss, info = whole(batch, step)
        return loss / 2, info

    def moved(loss: Any) -> Tensor:
        again = small()
        model.load_state_dict(again.state_dict())
        learner = Learner(model, ELBO(), Training(batch=10, samples=10, optimizer=SGD(0.1)), len(x), loss)
        for _ in continue_training(learner, x):
            pass
        return torch.cat([(a - b).flatten() for a, b in zip(weights(model), weights(again), strict=True)])

    torch.testing.assert_close(moved(half), moved(None) / 2, rtol=1e-4, atol=1e-7)


def test_a_copy_of_a_learner_moves_its_own_model() -> None:
    learner = Learner(small(), ELBO(), Training(batch=10, samples=100), 50)
    copied, before = copy.deepcopy(learner), weights(learner.model)
    for _ in continue_training(copied, binary()):
        pass
    assert_same(before, weights(learner.model))
    assert distance(before, weights(copied.model)) > 1e-3


# What a weight prior is about


def decayed(model: nn.Module) -> list[str]:
    groups = parameter_groups(model, 0.01)
    ids = {id(p) for g in groups if g["weight_decay"] for p in g["params"]}
    return [name for name, p in model.named_parameters() if id(p) in ids]


@pytest.mark.parametrize("shape", [(6,), (1, 6, 6)])
def test_the_weight_prior_is_about_the_networks_of_encoder_and_decoder(shape: tuple[int, ...]) -> None:
    """Whatever the shape of pseudo-inputs, of mixtures' parameters and of a map of scales."""
    q, p = aevb.Normal(2), aevb.HomoscedasticNormal(shape)
    encoder, decoder = Conditional(MLP(shape, q.size, ()), q), Conditional(MLP(2, p.size, ()), p)
    nets = ["encoder.net.1.weight", "decoder.net.1.weight"]
    for prior in (
        aevb.VampPrior.from_noise(encoder, shape, 5),
        aevb.Mixture(aevb.Normal(2), 4),
        Conditional(nn.Embedding(3, q.size), q),
        StandardNormal(2),
    ):
        assert decayed(VAE(prior, encoder, decoder)) == nets


def test_convolutions_and_attention_have_weights_and_scales_have_none() -> None:
    class Own(nn.Module):  # a model that declares nothing
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.LayerNorm([2, 4, 4]), nn.Linear(4, 4))
            self.attention = nn.MultiheadAttention(4, 2)
            self.weight = nn.Parameter(torch.zeros(3, 3))
            self.scales = nn.Parameter(torch.zeros(3, 3))

    attention = ["attention.in_proj_weight", "attention.out_proj.weight"]
    assert decayed(Own()) == ["weight", "net.0.weight", "net.3.weight", *attention]


def test_without_a_weight_prior_all_parameters_are_one_group() -> None:
    assert [len(g["params"]) for g in parameter_groups(small(), 0.0)] == [8]


# Checkpoints


def test_the_memory_of_an_optimizer_is_named_after_its_parameters() -> None:
    learner = Learner(small(), ELBO(), Training(batch=10, samples=50, optimizer=Adam(), weight_prior=True), 50)
    for _ in continue_training(learner, binary()):
        pass
    state, tensors = learner.optimizer.state, state_tensors(learner)
    for name, p in learner.named_parameters():
        assert torch.equal(tensors[f"optimizer.{name}.exp_avg"], state[p]["exp_avg"])
        assert not torch.equal(tensors[f"optimizer.{name}.exp_avg"], torch.zeros_like(p))
    assert len([k for k in tensors if k.startswith("optimizer.")]) == 3 * 8


@pytest.mark.parametrize("prior", [True, False])
def test_a_checkpoint_of_version_0_1_is_read(prior: bool) -> None:
    """It numbered the memories, those of matrices before those of vectors."""
    settings = Training(batch=10, samples=200, optimizer=Adam(0.01), weight_prior=prior)
    whole, half = (Learner(small(), ELBO(), settings, 50) for _ in range(2))
    for _ in continue_training(whole, binary()):
        pass
    for step in continue_training(half, binary()):
        if step.number == 12:
            break
    names = [name for name, p in half.named_parameters() if p.ndim == 2]
    names += [name for name, p in half.named_parameters() if p.ndim == 1]
    old = {k: v for k, v in state_tensors(half).items() if not k.startswith("optimizer.")}
    for number, name in enumerate(names):
        memory = half.optimizer.state[dict(half.named_parameters())[name]]
        old |= {f"optimizer.{number}.{entry}": value.clone() for entry, value in memory.items()}
    again = Learner(small(seed=5), ELBO(), settings, 50)
    restore(again, old, 12)
    for _ in continue_training(again, binary()):
        pass
    a, b = state_tensors(whole), state_tensors(again)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
