"""Algorithm 1, as a generator: random minibatch → noise → gradient of the bound → update of all parameters."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aevb.data.batch import Batch, Indexable, take
from aevb.data.memory import keep_freed_memory
from aevb.data.prints import print_of
from aevb.data.randomness import Order, noise_seed, seeded
from aevb.models.checks import check_data
from aevb.models.inference import evaluation_mode, fitting
from aevb.models.shares import group
from aevb.objectives.bounds import Info, Objective, PerPoint
from aevb.objectives.terms import members_of
from aevb.training.checkpoint import moving_tensors
from aevb.training.learner import Learner, Loss, Training
from aevb.training.processes import alike, check_same_rows
from aevb.training.recorded import can_read, check_recordable

__all__ = ["Learner", "Step", "Training", "check_training", "continue_training", "steps", "train"]


FIRST = 100  # rows that are compared between processes
Move = Callable[[], tuple[Batch, Info]]  # one step: the minibatch, and what is logged


@dataclass(frozen=True)
class Step:
    """What one step leaves: `number` steps and `samples` training samples done, and the logged numbers, on the
    device."""

    number: int
    samples: int
    info: Info


def train(model: nn.Module, objective: Objective, data: Indexable, training: Training | None = None) -> Iterator[Step]:
    """Train `model` by Algorithm 1 of arXiv 1312.6114, one step for each item asked of this generator.

        g ← ∇_θ,φ L̃(θ, φ; Xᴹ, ε), with a random minibatch Xᴹ and noise ε;   θ, φ ← update by g

    The caller prints, logs, draws and stops: `for step in aevb.train(model, aevb.ELBO(), x): ...`. When the generator
    ends, is closed, or raises, it leaves the model in evaluation mode. `train_events` adds validation, the best weights
    and checkpoints.

    Args:
        model: whose weights are trained in place.
        objective: such as `ELBO()`.
        data: x (N, *X), as of `aevb.encode`, of a `Dataset` its train split; or data with conditions, `Pairs`, which
            train log p(x|y). All rows are checked before the first step.
        training: the settings; `Training()` if none are given.

    Raises:
        DataError: the data have NaN or infinity, another type than the parameters, no rows, values outside of the
            likelihood's support, or hidden labels that the objective cannot learn from.
        ShapeError: the likelihood is over another shape than the data.
        RecipeError: the prior does not fit the posterior: KL(q(z|x) ‖ p(z)) is infinite, or their supports differ.
        TrainingDiverged: the loss, the weights or the optimizer's memory became NaN or infinite, or the loss exploded.
    """
    data = fitting(model, data, "train")
    check_training(model, objective, data)
    learner = Learner(model, objective, training or Training(), len(data))
    yield from steps(learner, data)


def continue_training(learner: Learner, data: Indexable) -> Iterator[Step]:
    """As `train`, with your own `Learner`, from its current step."""
    data = fitting(learner.model, data, "train")
    check_training(learner.model, learner.objective, data)
    yield from steps(learner, data)


def check_training(model: nn.Module, objective: Objective, data: Indexable) -> None:
    """`check_data`, over all rows, with what the objective asks of the other parts and of labels."""
    check_data(model, data, members_of(objective))


def steps(learner: Learner, data: Indexable, move: Move | None = None) -> Generator[Step, None, None]:
    """The steps that are left to a learner, on data that were checked.

    Args:
        move: what one step is, where it is not `Alone`: called once a step, it updates the learner.
    """
    settings = learner.training_settings
    if len(data) != learner.n:
        raise ValueError(f"The learner was made for {learner.n} rows of data; got {len(data)}. Make another Learner.")
    keep_freed_memory()
    if group() is not None:
        begin_alike(learner, data)
    total, size = settings.steps(learner.n), min(settings.batch, learner.n)
    move = move or Alone(learner, data)
    learner.train()
    modules = list(learner.model.modules())
    try:
        while learner.number < total:
            if not all(module.training for module in modules):  # the caller may have evaluated
                learner.model.train()
            batch, info = move()
            if learner.watch.add(learner.number, batch.x, info["loss"], learner.number == total):
                learner.watch.look_at(learner.number, moving_tensors(learner))
            yield Step(learner.number, learner.number * size, info)
    finally:
        learner.eval()
        if learner.read is not None:
            learner.record(None)  # lets go of the rows


def begin_alike(learner: Learner, data: Indexable) -> None:
    """Let several processes begin with the numbers of the first one.  RunError: their first rows differ."""
    device = next(learner.model.parameters()).device
    with seeded(0, device):  # some data draw their rows
        first = take(data, torch.arange(min(FIRST, learner.n), device=device))
    parts = [part.float() for part in (first.x, first.y) if part is not None]
    check_same_rows({"train": (learner.n, [print_of(part) for part in parts])})
    alike(moving_tensors(learner).values())


class Alone:
    """One step of a learner by itself: its minibatch and its noise are functions of the seed and of the step."""

    def __init__(self, learner: Learner, data: Indexable) -> None:
        self.learner, self.data, self.device = learner, data, next(learner.model.parameters()).device
        settings = learner.training_settings
        self.order = Order(learner.n, settings.batch, settings.seed, self.device)
        self.visits = learner.objective.updates if isinstance(learner.objective, PerPoint) else 1
        self.recorded: Batch | None = None  # some rows, where a step gathers its own
        if (settings.compile or settings.graph) and group() is None:  # several processes take ordinary steps
            some = look_ahead(learner, data)
            if settings.graph:
                self.recorded = some if not learner.learning and can_read(data, self.device) else None
                learner.record(None if self.recorded is None else self.read)

    def __call__(self) -> tuple[Batch, Info]:
        learner = self.learner
        if self.recorded is not None and learner.read != self.read:  # another training of it came in between
            learner.record(self.read)
        with self.noise():
            if self.recorded is not None:
                self.order.turn(learner.number // self.visits)
            batch = self.batch() if self.recorded is None else self.recorded
            with learner.watch.divergence(learner.number + 1, lambda: moving_tensors(learner)):
                return batch, learner.update(batch) if self.recorded is None else learner.advance(None)

    def noise(self) -> AbstractContextManager[None]:
        """Inside of the block, the random numbers of the step in hand are drawn."""
        learner = self.learner
        seed = noise_seed(learner.training_settings.seed, learner.number)
        if self.recorded is None or learner.step is None or learner.recorder is None:  # it is not recorded yet
            return seeded(seed, self.device)
        return learner.recorder.noise(seed, self.device)

    def batch(self) -> Batch:
        """The minibatch of the step in hand."""
        return take(self.data, self.order[self.learner.number // self.visits])

    def read(self, number: Tensor) -> Batch:
        """The minibatch of a step as training sees it; the number is on the device, and Python does not look at it."""
        return self.learner.seen(take(self.data, self.order.at(number // self.visits)))


def look_ahead(learner: Learner, data: Indexable) -> Batch:
    """One eager look at a loss whose steps are compiled or recorded; gives the rows that were looked at.

    torch looks up its KL formulas on first use in a way that the compiler cannot trace. Of steps that are recorded, see
    `check_recordable`.
    """
    device, loss = next(learner.model.parameters()).device, Loss(learner.model, learner.objective)
    with seeded(0, device), evaluation_mode(learner):
        batch = take(data, torch.arange(min(2, learner.n), device=device))  # two: some terms compare data points
        if learner.training_settings.graph:
            check_recordable(loss, list(loss.parameters()), batch)
        else:
            with torch.no_grad():
                loss(batch, torch.tensor(0, device=device))
    return batch
