"""Algorithm 1: the order of the data, reproducible noise, updates checked by hand, refusals, and that it learns."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import aevb
from aevb.errors import DataError, ShapeError, TrainingDiverged
from aevb.models.conditional import Conditional
from aevb.models.networks import MLP
from aevb.models.priors import StandardNormal
from aevb.models.vae import VAE
from aevb.objectives.bounds import ELBO, Info, Objective
from aevb.objectives.schedules import Linear
from aevb.training.optimizers import SGD, Adagrad, Adam, parameter_groups
from aevb.training.randomness import Order, derive, seeded
from aevb.training.train import Learner, Training, train


def small(seed: int = 0, net: Callable[[int, int], nn.Module] | None = None) -> VAE:
    torch.manual_seed(seed)
    make = net or (lambda inputs, outputs: MLP(inputs, outputs, (8,)))
    encoder = Conditional(make(6, 6), aevb.Normal(3))
    return VAE(StandardNormal(3), encoder, Conditional(make(3, 6), aevb.Bernoulli(6)))


def binary(rows: int = 50) -> Tensor:
    return torch.bernoulli(torch.full((rows, 6), 0.3), generator=torch.Generator().manual_seed(1))


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def trained(settings: Training, data: Tensor, model: VAE | None = None, objective: Objective | None = None) -> list[Tensor]:
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
    for _ in train(whole, ELBO(), data, settings, learner=full):
        pass
    learner = Learner(broken, ELBO(), settings, len(data))
    for step in train(broken, ELBO(), data, learner=learner):
        if step.number == 6:
            break
    numbers = [step.number for step in train(broken, ELBO(), data, learner=learner)]
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
    encoder, decoder = Conditional(nn.Linear(1, 1), aevb.Delta(1)), Conditional(nn.Linear(1, 1), aevb.Normal(1, scale=1.0))
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
    for _ in train(model, ELBO(), data, learner=learner):
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
    for _ in train(model, ELBO(), data, learner=learner):
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
    assert list(learner.state_dict()) == [f"model.{k}" for k in learner.model.state_dict()]
    assert "VAE" in repr(learner)
    torch.testing.assert_close(len(list(copy.deepcopy(learner).parameters())), 8)


# Refusals


def first_step(data: Any, model: VAE | None = None) -> None:
    next(iter(train(model or small(), ELBO(), data, Training(batch=10, samples=100))))


def test_missing_values_are_refused_by_row() -> None:
    x = binary(100)
    x[[3, 70]] = float("nan")
    x[99, 0] = float("inf")
    with pytest.raises(DataError, match=r"13 NaN or infinite values, in 3 of 100 rows \(rows 3, 70, 99\)"):
        first_step(x)
    x[:] = float("nan")
    with pytest.raises(DataError, match=r"in 100 of 100 rows \(rows 0, 1, 2, 3, 4, \.\.\.\)"):
        first_step(x)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (binary().long(), r"floating-point data; got torch\.int64"),
        (binary().byte(), r"floating-point data; got torch\.uint8"),
        (binary().double(), r"data are torch\.float64, the model's parameters torch\.float32"),
        (binary().numpy(), "needs tensors; got ndarray"),
        (binary()[:0], "no rows"),
    ],
    ids=["long", "byte", "double", "numpy", "empty"],
)
def test_data_of_a_wrong_type_are_refused(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        first_step(data)


@pytest.mark.parametrize("row", [0, 99])
def test_grey_data_under_a_bernoulli_are_refused_wherever_they_are(row: int) -> None:
    x = binary(100)
    x[row, 2] = 0.5
    with pytest.raises(DataError, match=r"Bernoulli covers .* hold 0\.5.*values='dynamic'.*relaxed=True"):
        first_step(x)


class Rows:
    """A user's own data: anything with a length and rows at an index tensor."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.x[index]


def test_data_may_be_indexed_and_are_checked_by_their_first_rows() -> None:
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
    with pytest.raises(TrainingDiverged, match=r"steps 2 to 51\. Try a smaller step size \(--set training\.optimizer\.lr"):
        trained(Training(batch=10, samples=10_000, optimizer=SGD(1e20)), binary())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("at", "steps", "where"), [(0, 9, "1 to 1"), (60, 999, "52 to 101"), (5, 9, "2 to 9"), (8, 9, "2 to 9")]
)
def test_a_loss_that_is_no_number_is_reported_with_its_steps(bad: float, at: int, steps: int, where: str) -> None:
    """Also in a run that ends before the next look."""
    with pytest.raises(TrainingDiverged, match=f"within steps {where}"):
        run_until_error(lambda step: bad if step == at else 100.0, steps)


def test_an_explosion_is_reported() -> None:
    with pytest.raises(TrainingDiverged, match=r"1e\+05 nats within steps 102 to 151"):
        run_until_error(lambda step: 1e5 if step > 100 else 100.0, 500)


def test_large_and_negative_losses_are_no_explosion() -> None:
    """A small first loss may grow to thousands, and densities may exceed one."""
    assert len(run_until_error(lambda step: 0.01 if step == 0 else -9000.0, 120)) == 120
    assert len(run_until_error(lambda step: 1e6 - 1e5 * step, 120)) == 120


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
        torch.stack([s.info["loss"] for s in train(digits_vae(), objective, x, settings(compile=c))]) for c in (False, True)
    )
    torch.testing.assert_close(eager, compiled, rtol=1e-3, atol=1e-3)
