"""Algorithm 1, as a generator: random minibatch → noise → gradient of the bound → update of all parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from aevb.errors import DataError, TrainingDiverged
from aevb.models.given import Batch, Pair, conditioned
from aevb.models.trace import LatentModel, check_pair, check_support
from aevb.objectives.bounds import Info, Objective, PerPoint
from aevb.objectives.schedules import Paced, Schedule
from aevb.objectives.terms import Adversary
from aevb.training.compiled import Update, compiled_update
from aevb.training.memory import keep_freed_memory
from aevb.training.optimizers import Adam, MakeOptimizer, parameter_groups
from aevb.training.randomness import Order, derive, seeded

WATCH = 50  # steps between two looks at the loss; a look waits for the device


class Indexable(Protocol):
    """Data to train on: a tensor, a `Split`, `Pairs`, or anything with a length that gives a batch for an index tensor."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Tensor, /) -> Batch: ...


@dataclass(frozen=True)
class Training:
    """The settings of Algorithm 1.

    Attributes:
        optimizer: called with parameter groups, gives a `torch.optim.Optimizer`: `Adagrad(0.02)`, `Adam(1e-3)`, `SGD()`,
            or your own, such as `functools.partial(torch.optim.RMSprop, lr=1e-4)`.
        batch: M, data points per step.
        samples: training samples to see in all, S; the run has ⌈S / M⌉ steps.
        seed: of the order of the data and of the noise.
        weight_prior: p(θ) = N(0, I) on all weights (maximum a posteriori, §2.3); biases stay free.
        learning_rate: a schedule of factors on the optimiser's step size.
        clip: largest norm of the gradient.
        ema: decay of an exponential moving average of the weights, which then is what is evaluated and saved. What is no
            weight, such as a VQ's codebook, a running mean already, or batch statistics, is saved as the last step left it.
        compile: let `torch.compile` fuse the step: slow to start, faster ever after.
    """

    optimizer: MakeOptimizer = field(default_factory=Adam)
    batch: int = 100
    samples: int = 1_000_000
    seed: int = 0
    weight_prior: bool = False
    learning_rate: Schedule | None = None
    clip: float | None = None
    ema: float | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"Training: {name} must be at least 1; got {getattr(self, name)}.")

    def steps(self, n: int) -> int:
        """How many steps see `samples` training samples, with n data points in the training set."""
        return math.ceil(self.samples / min(self.batch, n))


@dataclass
class Step:
    """What one step leaves: `number` steps and `samples` training samples done, and the logged numbers, on the device."""

    number: int
    samples: int
    info: Info


class Learner(nn.Module):
    """What moves: the model, the optimisers and the step count. `forward` is the loss, so that wrappers can take it.

    An adversary within the objective, such as a discriminator, moves by an optimiser of its own: `optimizers[1:]`.
    """

    def __init__(self, model: nn.Module, objective: Objective, training: Training, n: int) -> None:
        super().__init__()
        if training.compile and isinstance(objective, PerPoint):
            raise ValueError(f"{type(objective).__name__} cannot be compiled. Leave out training.compile.")
        self.model, self.objective, self.training_settings = model, objective, training
        adversaries = [part for part in self.modules() if isinstance(part, Adversary)]
        theirs = [p for part in adversaries for p in part.parameters()]
        self.optimizer = training.optimizer(parameter_groups(self, 1 / n if training.weight_prior else 0.0, but=theirs))
        self.optimizers = [self.optimizer, *(part.own_optimizer() for part in adversaries)]
        self.rates = [float(g["lr"]) for g in self.optimizer.param_groups]
        averaging = get_ema_multi_avg_fn(training.ema) if training.ema else None
        self.average = AveragedModel(model, multi_avg_fn=averaging) if averaging else None
        self.paced = [module for module in model.modules() if isinstance(module, Paced)]
        self.number = 0
        self.loss = torch.compile(self.forward) if training.compile else self.forward  # `self` would be its own child
        self.fused: Update | None = None  # bound to the optimiser's memory at the first step, after any `restore`

    def forward(self, x: Batch, step: Tensor) -> tuple[Tensor, Info]:
        return self.objective(*conditioned(self.model, x), step)  # type: ignore[arg-type]

    @property
    def best_known(self) -> nn.Module:
        """The model to evaluate: the average of the weights where one is kept."""
        return self.average.module if self.average is not None else self.model

    def update(self, x: Batch) -> Info:
        """One step of Algorithm 1: gradients of the bound on minibatch x (M, *X), or a `Pair`, then the update."""
        settings = self.training_settings
        for module in self.paced:
            module.pace(self.number)
        if settings.learning_rate is not None:
            self._set_rates(float(settings.learning_rate(self.number)))
        if settings.compile and self.fused is None:
            self.fused = compiled_update(self, self.optimizers, settings.clip) or self.plain_update
        loss, info = (self.fused or self.plain_update)(x, self.number)
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.number += 1
        return {"loss": loss.detach(), **info}

    def plain_update(self, x: Batch, number: int) -> tuple[Tensor, Info]:
        """Bound, gradient and update, each by PyTorch."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss, info = self.loss(x, torch.tensor(number, device=x.device))
        loss.backward()
        if self.training_settings.clip is not None:
            moved = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(moved, self.training_settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss, info

    def _set_rates(self, factor: float) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor


def train(
    model: nn.Module,
    objective: Objective,
    data: Indexable,
    training: Training | None = None,
    *,
    learner: Learner | None = None,
) -> Iterator[Step]:
    """Train `model` by Algorithm 1 of arXiv 1312.6114, one step for each item asked of this generator.

        g ← ∇_θ,φ L̃(θ, φ; Xᴹ, ε), with a random minibatch Xᴹ and noise ε;   θ, φ ← update by g

    The caller prints, logs, draws and stops: `for step in aevb.train(model, aevb.ELBO(), x): ...`.

    Args:
        data: x (N, *X), a float tensor on the model's device, or an object indexed by a tensor of row numbers; or data
            with contexts, `Pairs`, which train log p(x|y).
        training: the settings; `Training()` if none are given.
        learner: continue this one, from the step at which it stands.

    Raises:
        DataError: NaN or infinity in the data, data of another type than the parameters, no data at all, or data outside
            of the likelihood's support.
        ShapeError: the likelihood is over another shape than the data.
        RecipeError: the prior does not fit the posterior: KL(q(z|x) ‖ p(z)) is infinite, or their supports differ.
        TrainingDiverged: the loss became NaN, infinite, or a hundred times its first value (and more than 10⁴ nats).
    """
    settings = training or (learner.training_settings if learner else Training())
    _check_data(model, data)
    keep_freed_memory()
    learner = learner or Learner(model, objective, settings, len(data))
    device = next(model.parameters()).device
    order = Order(len(data), settings.batch, settings.seed, device)
    watch, steps = _Watch(), settings.steps(len(data))
    own = learner.objective if isinstance(learner.objective, PerPoint) else None
    if settings.compile:
        _meet_kl(learner, data[order[0][:2]])  # two: some terms compare data points
    while learner.number < steps:
        model.train()  # the caller may have evaluated
        with seeded(derive(settings.seed, "noise", learner.number), device):
            rows = order[learner.number // (own.updates if own else 1)]
            if own:
                own.meet(rows)
            info = learner.update(data[rows])
        watch(learner.number, info["loss"], last=learner.number == steps)
        yield Step(learner.number, learner.number * order.batch, info)


def _meet_kl(learner: Learner, x: Batch) -> None:
    """One eager look at the loss: torch looks up its KL formulas on first use in a way that the compiler cannot trace."""
    learner.model.eval()  # as in `_check_data`
    with torch.no_grad(), seeded(0, x.device):
        learner(x, torch.tensor(0, device=x.device))


def _check_data(model: nn.Module, data: Indexable) -> None:
    """Hold a tensor whole, anything else by its first rows, against the likelihood's support, and q(z|x) against p(z).

    Draws and learns nothing.
    """
    if not len(data):
        raise DataError("The data hold no rows: there is nothing to train on.")
    weights = next(model.parameters())
    with torch.no_grad(), seeded(0, weights.device):
        batch = data[torch.arange(min(len(data), 64), device=weights.device)]
        x, *contexts = batch if isinstance(batch, Pair) else (batch,)
        whole = data if isinstance(data, Tensor) else x
        for part in (x, *contexts):
            _check_type(part, weights.dtype)
        for part in (whole, *contexts):
            refuse_non_finite(part)
        if isinstance(model, LatentModel):
            model.eval()  # batch normalisation must not learn from this look
            given, first = conditioned(model, Pair(x[:1], contexts[0][:1]) if contexts else x[:1])
            check_support(given.decode(given.encode(first)), whole)
            t = given.trace(first)
            check_pair(t.q, t.p)


def _check_type(x: Any, dtype: torch.dtype) -> None:
    if not isinstance(x, Tensor):
        raise DataError(f"Training needs tensors; got {type(x).__name__}. Convert, as in torch.as_tensor(x).float().")
    if not x.is_floating_point():
        raise DataError(f"Training needs floating-point data; got {x.dtype}. Convert them, as in x.float() / 255.")
    if x.dtype != dtype:
        raise DataError(f"The data are {x.dtype}, the model's parameters {dtype}. Convert one, as in x.to({dtype}).")


def refuse_non_finite(x: Tensor) -> None:
    """Raise a `DataError` that says which rows hold NaN or infinity, and how many there are."""
    if not x.is_floating_point() or bool(torch.isfinite(x).all()):
        return
    bad = ~torch.isfinite(x.reshape(len(x), -1))
    rows = bad.any(1).nonzero().flatten()
    shown = ", ".join(str(int(r)) for r in rows[:5]) + (", ..." if len(rows) > 5 else "")
    raise DataError(
        f"The data hold {int(bad.sum())} NaN or infinite values, in {len(rows)} of {len(x)} rows "
        f"(rows {shown}). Remove or fill them first."
    )


class _Watch:
    """Looks at the summed loss every few steps, so that no step waits for the device."""

    def __init__(self) -> None:
        self.sum: Any = 0.0
        self.count = 0
        self.first: float | None = None

    def __call__(self, number: int, loss: Tensor, last: bool = False) -> None:
        self.sum, self.count = self.sum + loss, self.count + 1
        if number > 1 and self.count < WATCH and not last:
            return
        mean = float(self.sum) / self.count
        self.first = abs(mean) if self.first is None else self.first
        if not math.isfinite(mean) or abs(mean) > 100 * max(self.first, 100.0):
            raise TrainingDiverged(
                f"The loss became {mean:.4g} nats within steps {number - self.count + 1} to {number}. Try a smaller step "
                "size (--set training.optimizer.lr=...), clipping (--set training.clip=100), a KL warm-up, or rescaled data."
            )
        self.sum, self.count = 0.0, 0
