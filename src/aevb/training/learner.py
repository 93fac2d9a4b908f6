"""What a training moves: the model, the optimizers and the step count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from aevb.data.batch import Batch, Data, as_batch
from aevb.data.randomness import derive, seeded
from aevb.errors import RunError
from aevb.models.compat import check_model
from aevb.models.given import unknown_in
from aevb.models.inference import Model
from aevb.models.shares import group as processes
from aevb.models.trace import LatentModel
from aevb.objectives.bounds import Info, Objective, PerPoint
from aevb.objectives.schedules import Learns, Paced, Schedule
from aevb.objectives.terms import Adversary, members_of
from aevb.parts import Member, Needs
from aevb.training.compiled import Called, Fused, compiled_update, fusible, step_on
from aevb.training.optimizers import Adam, MakeOptimizer, parameter_groups, remember
from aevb.training.precision import BRAIN, FULL, Precision, check_precision, products
from aevb.training.recorded import Recorded, Recorder, check_graph, recorder_for
from aevb.training.watch import Watch

LossFunction = Callable[[Batch, Tensor], tuple[Tensor, Info]]  # (batch, step) → (loss, what to log)
StepFunction = Callable[[Batch, int], tuple[Tensor, Info]]  # the same, with an update of the parameters


@dataclass(frozen=True)
class Training:
    """The settings of Algorithm 1.

    Attributes:
        optimizer: called with parameter groups, gives a `torch.optim.Optimizer`: `Adagrad(0.02)`, `Adam(1e-3)`,
            `SGD()`, or your own, such as `functools.partial(torch.optim.RMSprop, lr=1e-4)`.
        batch: M, data points per step.
        samples: training samples to see in all, S; the run has ⌈S / M⌉ steps.
        seed: of the order of the data and of the noise.
        weight_prior: p(θ) = N(0, I) on the weights of the networks (maximum a posteriori, §2.3); see
            `parameter_groups`.
        learning_rate: a schedule of factors on the optimizer's step size.
        clip: largest norm of the gradient.
        ema: decay of an exponential moving average of the weights, which then is what is evaluated and saved. What is
            no weight, such as a VQ's codebook, a running mean already, or batch statistics, is saved as the last step
            left it.
        compile: let `torch.compile` fuse loss, gradient and update into one function. The start takes seconds; the
            steps are faster. With clipping, buffers or an optimizer other than Adam and Adagrad, PyTorch updates.
        holes: in this share of the rows of a minibatch random cells are hidden, as if they were missing, so that the
            encoder knows q(z|x) given any of the columns; see `hidden`. For likelihoods that admit missing cells.
        precision: of the products of a step: "float32"; or "bf16", bfloat16 by `torch.autocast`, which some processors
            multiply several times as fast. Weights and validation stay in float32.
        graph: record the step as a CUDA graph, which an NVIDIA GPU repeats without Python. For Adam and Adagrad without
            clipping, and models without buffers.
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
    holes: float = 0.0
    precision: Precision = "float32"
    graph: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.holes <= 1:
            raise ValueError(f"Training: holes is a share of the rows, 0 to 1; got {self.holes}.")
        if self.precision not in (FULL, BRAIN):
            raise ValueError(f"Training: precision is 'float32' or 'bf16'; got {self.precision!r}.")
        for name in ("batch", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"Training: {name} must be at least 1; got {getattr(self, name)}.")

    def members(self) -> list[Member]:
        """The settings that not every objective can take."""
        compiled = Member("", "training.compile", needs=Needs(compiled=True))
        prior = Member("", "training.weight_prior", needs=Needs(point_weights=True))
        holes = Member("", "training.holes", needs=Needs(missing=True))
        recorded = replace(compiled, name="training.graph")
        fused = [compiled] * self.compile + [recorded] * self.graph
        return [*fused, *[prior] * self.weight_prior, *[holes] * (self.holes > 0)]

    def steps(self, n: int) -> int:
        """How many steps see `samples` training samples, with n data points in the training set."""
        return math.ceil(self.samples / min(self.batch, n))


def hidden(batch: Batch, share: float, unknown: float = torch.nan) -> Batch:
    """The minibatch with `unknown` in the place of random cells: in this share of the rows, each with probability u.

    u ~ U(0, 1), drawn for each row, so that all sizes of holes are seen.
    """
    if not share:
        return batch
    x = batch.x
    rows = (len(x), *(1,) * (x.ndim - 1))
    rate = torch.rand(rows, device=x.device) * (torch.rand(rows, device=x.device) < share)
    return replace(batch, x=torch.where(torch.rand(x.shape, device=x.device) < rate, unknown, x))


class Loss(nn.Module):
    """(batch, step) → (loss, what to log): an objective of a model as one module, which wrappers can take.

    loss = DistributedDataParallel(aevb.Loss(model, objective))
    learner = aevb.Learner(model, objective, training, n, loss)
    """

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, data: Data, step: Tensor) -> tuple[Tensor, Info]:
        return self.objective(self.model, data, step)  # type: ignore[arg-type]


class Update:
    """One step of Algorithm 1: the gradient of the loss on a minibatch, clipped, then a step of every optimizer."""

    def __init__(self, loss: LossFunction, optimizers: Sequence[torch.optim.Optimizer], clip: float | None) -> None:
        self.loss, self.optimizers, self.clip = loss, optimizers, clip
        own = [[p for group in optimizer.param_groups for p in group["params"]] for optimizer in optimizers]
        self.clipped, self.parameters = own[0], [p for each in own for p in each]

    def __call__(self, batch: Batch, number: int) -> tuple[Tensor, Info]:
        for p in self.parameters:
            p.grad = None
        loss, info = self.loss(batch, step_on(number, batch.x.device))
        loss.backward()
        self.apply()
        return loss.detach(), info

    def apply(self) -> None:
        """Clip the gradient that the parameters have, and step by it."""
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.clipped, self.clip)
        for optimizer in self.optimizers:
            optimizer.step()


def _such(model: nn.Module, kind: Any) -> list[Any]:
    """The modules within a model that are of a kind."""
    return [module for module in model.modules() if isinstance(module, kind)]


class Learner(nn.Module):
    """What training changes: the model, the optimizers and the step count.

    An adversary within the objective, such as a discriminator, moves by an optimizer of its own: `optimizers[1:]`.

    Args:
        n: N, the number of rows in the training data.
        loss: what is differentiated, (batch, step) → (loss, what to log), where it is not the objective of the model
            itself but a wrapper around it; see `Loss`.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, training: Training, n: int, loss: LossFunction | None = None
    ) -> None:
        super().__init__()
        check_model(model, *members_of(objective), *training.members())
        check_precision(training.precision, model)
        self.model, self.objective, self.training_settings, self.n = model, objective, training, n
        if isinstance(objective, PerPoint):
            with seeded(derive(training.seed, "objective"), next(model.parameters()).device):
                objective.start(model, n)
        self.optimizers = self._made_optimizers()
        self.optimizer = self.optimizers[0]
        if training.graph:
            own = Loss(model, objective)
            check_graph(next(model.parameters()).device, fusible(own, self.optimizers, training.clip), loss is not None)
        self.rates = [float(g["lr"]) * g.get("lr_factor", 1.0) for g in self.optimizer.param_groups]
        self._set_rates(1.0)
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(training.ema)) if training.ema else None
        self.paced: list[Paced] = _such(model, Paced)
        self.learning: list[Learns] = _such(model, Learns)
        self.number, self.device = 0, next(model.parameters()).device
        self.recorder: Recorder | None = None  # of a recorded step
        self.read: Callable[[Tensor], Batch] | None = None  # of a recorded step: the minibatch of a step's number
        self.watch = Watch(max(self.rates))
        self.loss = loss
        self.step: StepFunction | None = (
            None  # made at the first update, as a compiled one holds the optimizers' memory
        )

    def _made_optimizers(self) -> list[torch.optim.Optimizer]:
        """That of the model and the objective, and those that adversaries bring."""
        training, adversaries = self.training_settings, _such(self, Adversary)
        theirs = [p for part in adversaries for p in part.parameters()]
        groups = parameter_groups(self, 1 / self.n if training.weight_prior else 0.0, but=theirs)
        return [training.optimizer(groups), *(part.own_optimizer() for part in adversaries)]

    def get_extra_state(self) -> dict[str, Any]:
        """What `state_dict` holds beside tensors of modules: the step count, and the optimizers' memory."""
        return {**self._made_for(), "number": self.number, "optimizers": [o.state_dict() for o in self.optimizers]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take the step and the memory of the learner whose `state_dict` this is.

        Raises:
            RunError: that one was made for other rows, or another order of them.
        """
        theirs, ours = {k: state.get(k) for k in self._made_for()}, self._made_for()
        if theirs != ours:
            raise RunError(
                f"This state is of a learner with {theirs}, but this one has {ours}. Make a Learner like it."
            )
        for optimizer, memory in zip(self.optimizers, state["optimizers"], strict=True):
            remember(optimizer, memory)
        self.number, self.step = state["number"], None  # a fused step holds the memory that was

    def _made_for(self) -> dict[str, int]:
        settings = self.training_settings
        return {"rows": self.n, "batch": settings.batch, "seed": settings.seed}

    @property
    def best_known(self) -> Model:
        """The model to evaluate: the average of the weights where one is kept."""
        return cast(Model, self.model if self.average is None else self.average.module)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "number":  # at every step: no module, about which PyTorch would ask
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def record(self, read: Callable[[Tensor], Batch] | None) -> None:
        """Record the next steps anew; `read` gives the minibatch of a step by its number, where a graph can."""
        self.read, self.step = read, None

    def update(self, data: Data) -> Info:
        """One step of Algorithm 1 on a minibatch of M data points."""
        return self.advance(self.seen(data))

    def seen(self, data: Data) -> Batch:
        """The minibatch as training sees it: with random holes, where the settings ask for them."""
        share = self.training_settings.holes
        return hidden(as_batch(data), share, unknown_in(self.model)) if share else as_batch(data)

    def advance(self, batch: Batch | None) -> Info:
        """One step on a minibatch as it is; None for that which a recorded step reads by itself."""
        self.keep_pace()
        if self.step is None:
            self.step = self._step()
        with products(self.training_settings.precision, self.device):
            loss, info = self.step(batch, self.number)  # type: ignore[arg-type]
        if self.learning and batch is not None:
            self._learn(batch)
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.number += 1
        return {"loss": loss, **info}

    def keep_pace(self) -> None:
        """Let what follows a schedule, such as the step size, be that of the step in hand."""
        for module in self.paced:
            module.pace(self.number)
        if self.training_settings.learning_rate is not None:
            self._set_rates(float(self.training_settings.learning_rate(self.number)))

    def _step(self) -> StepFunction:
        settings, own = self.training_settings, Loss(self.model, self.objective)
        if not (settings.compile or settings.graph) or processes() is not None:  # their messages cannot be traced
            return Update(self.loss or own.forward, self.optimizers, settings.clip)
        fused = (
            None
            if self.loss
            else compiled_update(own, self.optimizers, settings.clip, self._wrapped, traced=settings.compile)
        )
        return fused or Update(torch.compile(self.loss or own.forward), self.optimizers, settings.clip)

    def _wrapped(self, fused: Fused) -> Any:
        """A step as a function of tensors, compiled and recorded as the settings ask."""
        compiled = self.training_settings.compile
        if self.training_settings.graph:
            self.recorder = recorder_for(self.device, self.read is not None)
            return Recorded(fused, self.recorder, self.read, compiled)
        return Called(fused.compiled() if compiled else fused)

    @torch.no_grad()
    def _learn(self, batch: Batch) -> None:
        """Let those that learn without gradients learn from the minibatch, by the model as it is after the update."""
        t = cast(LatentModel, self.model).trace(batch)
        for module in self.learning:
            module.learn(t)

    def _set_rates(self, factor: float) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
