"""Many models of one architecture, trained at once: each is trained as it would be alone, up to rounding.

The weights of M models are stacked, (M, *shape), and each model's parameters are views of its slice. A step computes
all M losses by one call (`torch.vmap`), so that one Python step and one batched product serve all models; one optimizer
moves the weights of all whose settings are alike. Each model keeps its own minibatches, noise, memory of the optimizer,
validation and end.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _NormBase

from aevb.data.batch import Batch
from aevb.errors import AevbError
from aevb.evaluation.bound import Bound
from aevb.models.inference import Model
from aevb.objectives.bounds import Info, PerPoint
from aevb.training.batched import (
    Gradient,
    Joint,
    laid_out,
    own_copy,
    parameters_of,
    settings_of,
)
from aevb.training.draws import Given, Unstackable, draws_of
from aevb.training.events import Course, Event, held_bound, scored, validation_bound
from aevb.training.learner import Learner, Loss, Update
from aevb.training.numbers import replaced, unequal_numbers
from aevb.training.optimizers import change_memory, laid_like
from aevb.training.precision import products
from aevb.training.train import Alone, Step, steps

NEAR = 1e-3  # relative difference of a stacked gradient from a model's own that is rounding


@dataclass(frozen=True, eq=False)
class Member:
    """One model of a stack: its training, its own way to take a step, its loss, and what it updates."""

    course: Course
    alone: Alone
    loss: Loss
    parameters: Sequence[nn.Parameter]
    update: Update

    @classmethod
    def of(cls, course: Course) -> Member:
        learner = course.learner
        loss = Loss(learner.model, learner.objective)
        trained = [p for p in loss.parameters() if p.requires_grad]
        update = Update(loss.forward, learner.optimizers, learner.training_settings.clip)
        return cls(course, Alone(learner, course.data), loss, trained, update)

    @property
    def learner(self) -> Learner:
        return self.course.learner

    def read(self, draws: Sequence[Callable[[], Tensor]]) -> tuple[Batch, list[Tensor]]:
        """The minibatch and the noise of the step in hand, as the model would get them alone."""
        with self.alone.noise():
            return self.learner.seen(self.alone.batch()), [draw() for draw in draws]

    def alike(self) -> object:
        """What models share whose weights one optimizer can move."""
        own = object() if self.update.clip is not None else settings_of(self.learner.optimizer)
        return own, self.learner.rates, self.learner.number


@dataclass(frozen=True)
class Found:
    """What a step found of one model: its minibatch, its loss, what to log; its gradient if its weights have not yet
    moved."""

    batch: Batch
    loss: Tensor
    info: Info
    gradient: Gradient | None


class Stack:
    """Models whose losses, gradients and validation bounds are computed together.

    Raises:
        Unstackable: they cannot be, or the numbers would differ from their own.
    """

    def __init__(self, courses: Sequence[Course]) -> None:
        refuse([course.learner for course in courses])
        self.members = [Member.of(course) for course in courses]
        self.first = self.members[0]
        self.numbers = unequal_numbers([m.learner.objective for m in self.members])
        batch, _ = self.first.read(())
        step = torch.tensor(0, device=batch.x.device)
        for member in self.members:
            member.learner.train()
        self.draws = draws_of(lambda: self.first.loss(batch, step), batch.x.device)
        self.function: Callable[..., tuple[Tensor, Info]] = vmap(self._one)
        if self.first.learner.training_settings.compile:
            self.function = torch.compile(self.function)
        self.steps = 0
        self.found: dict[Member, Found] = {}
        self.bounds: dict[Member, Bound] = {}
        self.validates = True
        self._stack()
        self._check()
        self._lend()

    def _stack(self) -> None:
        """Copies of all weights, (M, *shape), and of what else the models hold."""
        weights = _stacked([dict(m.loss.named_parameters()) for m in self.members])
        self.weights = {name: laid_out(w) for name, w in weights.items()}
        self.buffers = _stacked([dict(m.loss.named_buffers()) for m in self.members])
        for name, p in self.first.loss.named_parameters():
            self.weights[name].requires_grad_(p.requires_grad)
        self.joint: list[Joint] | None = None

    def _lend(self) -> None:
        """Let each model's parameters be views of its slice, and its steps be those of the stack."""
        for i, member in enumerate(self.members):
            for name, p in member.loss.named_parameters():
                p.data = self.weights[name].detach()[i]
                change_memory(member.learner.optimizer, p, partial(laid_like, weight=p.data))
            member.learner.step = partial(self._apply, member)

    def leave(self, member: Member) -> None:
        """Let a model go: its weights are its own again."""
        place = self.members.index(member)
        for p in member.loss.parameters():
            p.data, p.grad = own_copy(p.data), None
            change_memory(member.learner.optimizer, p, own_copy)
        member.learner.step = None
        self.members.remove(member)
        self.found, self.bounds = {}, {}
        self.numbers = {path: [*n[:place], *n[place + 1 :]] for path, n in self.numbers.items()}
        if self.members:
            self._stack()
            self._lend()

    def walk(self, member: Member) -> Generator[Step | None, None, None]:
        """The steps of one model, with a pause before each: when all have come to theirs, all move at once."""
        with closing(steps(member.learner, member.course.data, partial(self.move, member))) as taken:
            while member.learner.number < member.course.rhythm.total:
                yield None
                yield next(taken)

    def move(self, member: Member) -> tuple[Batch, Info]:
        """One step of one model; all gradients are computed when the first model asks for its own."""
        learner = member.learner
        with learner.watch.divergence(learner.number + 1, lambda: dict(member.loss.named_parameters())):
            if member not in self.found:
                self.compute()
            batch = self.found[member].batch
            return batch, learner.advance(batch)

    def _apply(self, member: Member, batch: Batch, number: int) -> tuple[Tensor, Info]:
        """What a learner calls for its update: the gradient is known, or the weights have moved."""
        found = self.found.pop(member)
        if found.gradient is not None:
            for p, g in zip(member.parameters, found.gradient, strict=True):
                p.grad = g
            member.update.apply()
            for p in member.parameters:
                p.grad = None
        return found.loss, found.info

    def compute(self) -> None:
        """The losses and the gradients of all models at their weights of this moment, kept in `found`."""
        read = [member.read(self.draws) for member in self.members]
        with products(self.first.learner.training_settings.precision, read[0][0].x.device):
            loss, info, gradients = self._together(read, [m.learner.number for m in self.members])
        gradients = self._laid(gradients)
        moved = self._moved(gradients) if self.steps else set()  # an optimizer has no memory before its first step
        self.steps += 1
        for i, (member, (batch, _)) in enumerate(zip(self.members, read, strict=True)):
            own = None if i in moved else [None if g is None else g[i] for g in gradients]
            self.found[member] = Found(batch, loss[i], {name: v[i] for name, v in info.items()}, own)

    def _laid(self, gradients: Gradient) -> Gradient:
        """The stacked gradients in the order in memory of their weights."""
        trained = [w for w in self.weights.values() if w.requires_grad]
        return [None if g is None else laid_like(g, w) for g, w in zip(gradients, trained, strict=True)]

    def _moved(self, gradients: Gradient) -> set[int]:
        """The places of the models whose weights one optimizer has moved: those beside others with its settings."""
        for member in self.members:
            member.learner.keep_pace()
        by_name = dict(zip([name for name, w in self.weights.items() if w.requires_grad], gradients, strict=True))
        self.joint = self._joint() if self.joint is None else self.joint
        return {i for joint in self.joint if joint.step(by_name) for i in joint.places}

    def _joint(self) -> list[Joint]:
        """One optimizer for models beside each other whose own have the same settings and are at the same step."""
        optimizers = [m.learner.optimizer for m in self.members]
        keys = [m.alike() for m in self.members]
        names = {p: name for name, p in self.members[0].loss.named_parameters()}
        weights = {names[p]: self.weights[names[p]].detach() for p in parameters_of(optimizers[0])}
        runs = [list(run) for _, run in groupby(range(len(keys)), key=keys.__getitem__)]
        return [Joint(range(run[0], run[-1] + 1), optimizers, weights) for run in runs if len(run) > 1]

    def _together(
        self, read: Sequence[tuple[Batch, list[Tensor]]], at: Sequence[int]
    ) -> tuple[Tensor, Info, Sequence[Tensor | None]]:
        """The losses (M,) on minibatches with their noise at steps `at`, what to log, and the stacked gradients."""
        device = read[0][0].x.device
        batch = _side_by_side([batch for batch, _ in read])
        noise = [torch.stack(each) for each in zip(*(drawn for _, drawn in read), strict=True)]
        numbers = [torch.tensor(n, device=device) for n in self.numbers.values()]
        given = (batch, noise, torch.tensor(at, device=device), numbers)
        trained = [w for w in self.weights.values() if w.requires_grad]
        loss, info = self.function({**self.weights, **self.buffers}, *given)
        return loss.detach(), info, torch.autograd.grad(loss.sum(), trained, allow_unused=True)

    def _one(
        self,
        weights: dict[str, Tensor],
        batch: dict[str, Tensor],
        noise: list[Tensor],
        step: Tensor,
        numbers: list[Tensor],
    ) -> tuple[Tensor, Info]:
        """The loss of one model, which vmap lifts to all of them."""
        given = Batch(batch["x"], batch.get("y"), batch.get("rows"), self.first.learner.n)
        own = dict(zip(self.numbers, numbers, strict=True))
        with Given(noise), replaced(self.first.learner.objective, own):
            return functional_call(self.first.loss, weights, (given, step))  # type: ignore[no-any-return]

    def _check(self) -> None:
        """Hold the stack against each model by itself at the first step, against two at a middle and at the last one.

        Raises:
            Unstackable: they differ, or vmap does not take them.
        """
        total = self.first.learner.training_settings.steps(self.first.learner.n)
        read = [member.read(self.draws) for member in self.members]
        before = {name: b.clone() for name, b in self.first.loss.named_buffers()}
        ends = sorted({0, len(self.members) - 1})
        for number in (0, total // 2, total - 1):
            self._compare(read, number, ends if number else range(len(read)))
        if any(not torch.equal(b, before[name]) for name, b in self.first.loss.named_buffers()):
            raise Unstackable("a step changes something other than weights")

    def _compare(self, read: Sequence[tuple[Batch, list[Tensor]]], number: int, places: Iterable[int]) -> None:
        """Hold the numbers of step `number` against those of the models at these places by themselves."""
        try:
            with quietly():
                loss, _, gradients = self._together(read, [number] * len(self.members))
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            raise Unstackable(f"vmap does not support them ({_line(error)})") from error
        for i in places:
            own = _own(self.members[i], *read[i], number)
            if not _near([loss[i], *(None if g is None else g[i] for g in gradients)], own):
                raise Unstackable("their losses differ when stacked")

    def validate(self) -> None:
        """The validation bounds of the models of which one is due now, computed together and kept in `bounds`."""
        due = [m for m in self.members if m.course.held is not None and _due(m.course)]
        self.bounds = {}
        if len(due) < 2 or not self.validates:
            return
        models = [cast(nn.Module, m.learner.best_known) for m in due]
        weights = _stacked([model.state_dict() for model in models])
        try:
            with quietly():
                reconstruction, kl = vmap(partial(_bound_of, due[0].course), randomness="same")(weights)
        except (RuntimeError, ValueError, TypeError, NotImplementedError, AevbError):
            self.validates = False  # each by itself
            return
        self.bounds = {m: Bound(reconstruction[i], kl[i]) for i, m in enumerate(due)}

    def bound(self, member: Member) -> tuple[dict[str, float], float]:
        """As `validation_bound`, for one model."""
        learner, held, monitor = member.learner, member.course.held, member.course.monitor
        assert held is not None
        known = self.bounds.pop(member, None)
        return validation_bound(learner, held, monitor) if known is None else scored(known, learner, held, monitor)


@contextmanager
def quietly() -> Iterator[None]:
    """Without PyTorch's warning, which comes once, of how vmap lays out numbers that are searched for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*searchsorted\(\): input value tensor is non-contiguous")
        yield


def refuse(learners: Sequence[Learner]) -> None:
    """What parts declare of themselves: who learns without a gradient, or keeps state of its own.

    Raises:
        Unstackable: one of them does.
    """
    first, norms = learners[0], [m for m in learners[0].modules() if isinstance(m, _NormBase)]
    reasons = {
        "a part learns without a gradient": first.learning,
        "a part changes with the steps": first.paced,
        "an adversary learns beside the model": len(first.optimizers) > 1,
        "the objective keeps numbers of each data point": isinstance(first.objective, PerPoint),
        "the loss is wrapped": first.loss is not None,
        "each step is recorded": first.training_settings.graph,
        "batch statistics are kept": any(norm.track_running_stats for norm in norms),
        "their minibatches differ in size": len({(ln.n, ln.training_settings.batch) for ln in learners}) > 1,
    }
    for reason, holds in reasons.items():
        if holds:
            raise Unstackable(reason)


def train_stacked(courses: Sequence[Course], every: float) -> Iterator[tuple[int, Event | AevbError]]:
    """Train all models of a stack to their ends; gives (which, what happened) as each one's `train_events` would.

    A training that fails comes as its error, in the place of its end, and the others continue.

    Args:
        every: seconds between two checkpoints of a model.

    Raises:
        Unstackable: see `Stack`; nothing was trained then.
    """
    stack = Stack(courses)
    walks: Walks = {}
    for i, member in enumerate(stack.members):
        member.course.bound = partial(stack.bound, member)
        walks[member] = i, member.course.events(stack.walk(member), every)
    return _rounds(stack, walks)


Walks = dict[Member, tuple[int, Iterator[Event | None]]]


def _rounds(stack: Stack, walks: Walks) -> Iterator[tuple[int, Event | AevbError]]:
    """All models' events up to their next step, then that step, until all have ended."""
    while walks:
        stack.validate()
        stack.found.clear()
        yield from _up_to(lambda event: event is None, stack, walks)
        yield from _up_to(lambda event: isinstance(event, Step), stack, walks)


def _up_to(
    where: Callable[[Event | None], bool], stack: Stack, walks: Walks
) -> Iterator[tuple[int, Event | AevbError]]:
    """Each model's events up to one, in turn; those that end before it leave the stack."""
    for member, (i, walk) in list(walks.items()):
        try:
            for event in walk:
                if event is not None:
                    yield i, event
                if where(event):
                    break
            else:
                del walks[member]
        except AevbError as error:
            del walks[member]
            yield i, error
    for member in [m for m in stack.members if m not in walks]:
        stack.leave(member)


def _side_by_side(batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Minibatches of M models as (M, B, ...) by name."""
    parts = {name: [getattr(b, name) for b in batches] for name in ("x", "y", "rows")}
    return {name: torch.stack(part) for name, part in parts.items() if part[0] is not None}


def _stacked(each: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of M models by name → (M, *shape) by name."""
    return {name: torch.stack([one[name].detach() for one in each]).contiguous() for name in each[0]}


def _own(member: Member, batch: Batch, noise: Sequence[Tensor], number: int) -> list[Tensor | None]:
    """The loss and the gradient of one model by itself."""
    with Given(noise):
        loss, _ = member.loss(batch, torch.tensor(number, device=batch.x.device))
        return [loss.detach(), *torch.autograd.grad(loss, list(member.parameters), allow_unused=True)]


def _near(found: Sequence[Tensor | None], own: Sequence[Tensor | None]) -> bool:
    """Whether numbers are the same up to rounding: the loss, and the gradient as a whole."""
    pairs = [(f, o) for f, o in zip(found, own, strict=True) if f is not None and o is not None]
    if len(pairs) != sum(f is not None or o is not None for f, o in zip(found, own, strict=True)):
        return False
    a, b = (torch.cat([part.flatten() for part in side[1:]]) for side in zip(*pairs, strict=True))
    (loss, ours), scale = pairs[0], float(b.norm())
    return abs(float(loss - ours)) <= NEAR * max(abs(float(ours)), 1.0) and float((a - b).norm()) <= NEAR * scale


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:100] if str(error).strip() else type(error).__name__


def _due(course: Course) -> bool:
    """Whether the validation of a training comes before its next step."""
    return course.learner.number > 0 and course.rhythm.validates(course.learner.number)


class _Held(nn.Module):
    """A model → the bound of each validation row, as tensors."""

    def __init__(self, course: Course, model: nn.Module) -> None:
        super().__init__()
        self.model, self.course = model, course

    def forward(self) -> tuple[Tensor, Tensor]:
        c = self.course
        assert c.held is not None
        bound = held_bound(cast(Model, self.model), c.learner, c.held, c.monitor)
        return bound.reconstruction, bound.kl


def _bound_of(course: Course, weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The bound of each validation row by one model, which vmap lifts to all."""
    held = _Held(course, cast(nn.Module, course.learner.best_known))
    named = {f"model.{name}": w for name, w in weights.items()}
    return functional_call(held, named, ())  # type: ignore[no-any-return]
