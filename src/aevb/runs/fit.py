"""From a recipe and data to a finished run: train, watch, log, save, resume."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from aevb.data.dataset import Dataset
from aevb.data.labels import one_hot
from aevb.errors import AevbWarning, RecipeError, RunError, TrainingDiverged
from aevb.evaluation.batches import inference
from aevb.evaluation.elbo import elbo
from aevb.evaluation.marginal import log_marginal
from aevb.models.conditional import concatenate
from aevb.models.given import arguments, conditioned
from aevb.models.priors import VampPrior
from aevb.models.trace import LatentModel, check_pair, check_support
from aevb.models.vae import VAE
from aevb.objectives.bounds import PerPoint
from aevb.runs.files import alone, read_tensors, sweep, write_tensors
from aevb.runs.parts import told
from aevb.runs.recipe import Recipe, Validation
from aevb.runs.store import Run, fingerprints, load_weights, new_folder
from aevb.training.checkpoint import restore, state_tensors
from aevb.training.randomness import derive, seeded
from aevb.training.train import Indexable, Learner, Step, Training, train

RECORDS = 100  # lines of training numbers in metrics.jsonl


@dataclass(frozen=True)
class Progress:
    """Where a training stands: samples seen of all, the latest bound in nats, samples per second, seconds left."""

    step: int
    samples: int
    total: int
    numbers: Mapping[str, float]
    rate: float
    left: float


Show = Callable[[Progress], None]


def fit(
    recipe: Recipe | str,
    data: Dataset,
    out: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    show: Show | None = None,
    checkpoint_every: float = 10.0,
) -> Run:
    """Train a recipe on data into a new run folder.

    The weights that are kept are those of the best validation ELBO (of the best bound of several importance weights with
    `validation.importance_samples`), or the last where there is no validation split, or no encoder is trained
    (`MonteCarloEM`).

    Args:
        out: the folder; runs/SOURCE-RECIPE-TIME if None.
        show: called several times a second with where the training stands.
        checkpoint_every: seconds between two checkpoints, at least.

    A schedule of the loss that goes on beyond the training gives an `AevbWarning`.

    Raises:
        TrainingDiverged: the loss became NaN or exploded; the last good checkpoint stays.
        KeyboardInterrupt: after Ctrl-C, with everything saved; `resume` goes on.
    """
    chosen = Recipe.load(recipe) if isinstance(recipe, str) else recipe
    path = Path(out) if out else new_folder(data.name, chosen.name)
    fitting = _Fitting.start(chosen, data, device)  # builds every part first: a wrong recipe leaves no folder
    meta = {
        "status": "training",
        "shape": list(data.shape),
        "levels": data.train.values.levels,
        "splits": fingerprints(data),
        "device": str(device),
    }
    run = Run.create(path, chosen, meta)
    with alone(run.path):
        return fitting.into(run, show, checkpoint_every)


def resume(
    run: Run,
    data: Dataset,
    *,
    samples: int | None = None,
    device: str | torch.device = "cpu",
    show: Show | None = None,
    checkpoint_every: float = 10.0,
) -> Run:
    """Go on where a run's last checkpoint stands; it ends bit for bit as if it had never stopped.

    Args:
        samples: a new total of training samples, to train a finished run for longer. The model that is trained is bit
            for bit the one that as many samples at once would give. But the looks at the validation split are one more,
            at the old end, and `validation.every` counted from the total may place them otherwise: so the weights that
            are kept, the best of those looks, are from another set of candidates.

    Raises:
        RunError: the checkpoint is damaged, does not fit the recipe, or stands beyond the new total; or another process
            is training this run.
    """
    if samples is not None:
        run.recipe = run.recipe.replace(training__samples=samples)
    fitting = _Fitting.start(run.recipe, data, device)
    with alone(run.path):
        sweep(run.path)
        fitting.load_checkpoint(run)
        run.write_recipe()
        run.write_meta(status="training")
        return fitting.into(run, show, checkpoint_every)


AMENDABLE = (
    "training.samples",
    "training.optimizer.lr",
    "training.learning_rate",
    "training.clip",
    "validation",
    "evaluation",
)


def amend(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """A recipe with changes that a checkpoint of its training can go on with.

    Raises:
        RecipeError: the change is another model, other data, or another order of them.
    """
    for assignment in assignments:
        key = assignment.partition("=")[0].strip()
        if not any(key == possible or key.startswith(f"{possible}.") for possible in AMENDABLE):
            raise RecipeError(f"--resume cannot change {key!r}, only {', '.join(AMENDABLE)}. Train anew for anything else.")
    return recipe.override(assignments)


class _Fitting:
    """The state of one training beyond its `Learner`: sums since the last record, and the best weights so far."""

    def __init__(
        self, recipe: Recipe, data: Dataset, learner: Learner, training: Training, device: str | torch.device
    ) -> None:
        self.data, self.learner, self.training = data, learner, training
        context = recipe.context()
        told = context.told(data.train, recipe.source().seed)
        self.rows, self.held = context.rows(data.train, device, told), context.rows(data.validation, device)
        if isinstance(learner.objective, PerPoint):  # its encoder is untrained, so no bound would say anything
            self.held = context.rows(data.validation.take(0), device)
        self.watching: Validation = recipe.validation()
        self.total = training.steps(len(data.train))
        self.batch = min(training.batch, len(data.train))
        self.sums: dict[str, float] = {}
        self.counted = 0
        self.best: dict[str, Tensor] = {}
        self.best_score, self.best_step, self.looks_since = -math.inf, 0, 0
        self.seconds = 0.0

    @classmethod
    def start(cls, recipe: Recipe, data: Dataset, device: str | torch.device) -> _Fitting:
        training = recipe.training()
        recipe.judging()  # a mistake there is told now, and not after the training
        model = recipe.model(data.shape, data.train.values.levels).to(device)
        if isinstance(model.prior, VampPrior):
            context = recipe.context()
            rows = context.rows(data.train, "cpu", context.told(data.train, recipe.source().seed))
            model.prior.start_at(some_rows(rows, len(model.prior.u), training.seed))
        objective = recipe.objective(model, len(data.train))
        learner = told("training", lambda: Learner(model, objective, training, len(data.train)))
        fitting = cls(recipe, data, learner, training, device)
        fitting.refuse_unfit()
        for words in recipe.unfinished(len(data.train)):
            warnings.warn(words, AevbWarning, stacklevel=3)
        return fitting

    def refuse_unfit(self) -> None:
        """What `train` would refuse at its first step: data or a prior that do not fit the likelihood or posterior.

        And a patience that nothing could try.
        """
        if self.watching.patience and not len(self.held):
            raise RecipeError(
                "validation.patience: no bound of a validation split is watched here, so training would never stop early. "
                "Leave it out, or train by a bound on data with a validation split."
            )
        model = cast(VAE, self.learner.model)
        with inference(model, 0) as device:
            given, x = conditioned(model, self.rows[torch.arange(min(len(self.rows), 64), device=device)])
            check_support(given.decode(given.encode(x)), x)
            t = given.trace(x)
            check_pair(t.q, t.p)
        if not t.q.has_rsample:
            told("objective", lambda: self.refuse_unfit_codes(given, x))
        self.refuse_unfit_objective()

    def refuse_unfit_codes(self, given: LatentModel, x: Tensor) -> None:
        """One look at the loss: it must ask for no derivative of codes, nor for their density where they are relaxed."""
        with seeded(0, x.device):
            loss, _ = self.learner.objective(given, x, 0)
        if not bool(torch.isfinite(loss)):
            raise RecipeError(
                "The prior uniform-codes gives no density to relaxed codes, which this objective asks for. Take the "
                "objective elbo with estimator = 'B', or the prior uniform-concrete."
            )

    def refuse_unfit_objective(self) -> None:
        """What the objective says of a first minibatch: of parts it cannot take, or no number at all."""
        model, objective = cast(VAE, self.learner.model), self.learner.objective
        if isinstance(objective, PerPoint):  # it would move its chains
            return
        with inference(model, 0) as device:
            batch = self.rows[torch.arange(self.batch, device=device)]
            loss, _ = told("objective", lambda: objective(*conditioned(model, batch), 0))
        if not bool(loss.isfinite()):
            raise RecipeError(
                f"The loss of {type(objective).__name__} is {float(loss)} before the first step: one of prior, posterior and"
                " likelihood has no density where another draws. Choose a posterior such as normal, another objective, or"
                " rescale the data."
            )

    def into(self, run: Run, show: Show | None, checkpoint_every: float) -> Run:
        """Train to the end, or to where it stops."""
        try:
            with _deferred_interrupt() as interrupted:
                stopped = self.loop(run, show, checkpoint_every, interrupted)
                self.checkpoint(run)
        except TrainingDiverged:
            run.write_meta(status="diverged")
            raise
        self.save(run, "interrupted" if interrupted.is_set() else "complete", stopped)
        if interrupted.is_set():
            raise KeyboardInterrupt
        return run

    def loop(self, run: Run, show: Show | None, checkpoint_every: float, interrupted: threading.Event) -> str:
        """Returns why it ended: "samples", "patience" or "interrupted"."""
        if self.spent:
            return "patience"
        begun, saved = _Clock(), _Clock()
        shown, first, before = _Clock(), self.learner.number, self.seconds
        for step in train(self.learner.model, self.learner.objective, self.rows, learner=self.learner):
            self.count(step)
            looked = self.due(self.look_every, step.number)
            if looked or self.due(self.record_every, step.number):
                self.seconds = before + begun.age
                self.record(run, step, looked)
            if show and (shown.age > 0.2 or step.number == self.total):
                shown = _Clock()
                show(self.progress(step, (step.number - first) / begun.age))
            if interrupted.is_set():
                return "interrupted"
            if looked and self.spent:
                return "patience"
            if saved.age >= checkpoint_every and self.counted == 0:
                self.checkpoint(run)
                saved = _Clock()
        return "samples"

    @property
    def look_every(self) -> int:
        samples = self.watching.every or max(len(self.data.train), self.training.samples // 100)
        return max(1, samples // self.batch)

    @property
    def record_every(self) -> int:
        return max(1, self.total // RECORDS)

    def due(self, every: int, number: int) -> bool:
        return number % every == 0 or number == self.total

    @property
    def spent(self) -> bool:
        """Whether the validation ELBO has not risen for `patience` looks."""
        return 0 < self.watching.patience <= self.looks_since

    def count(self, step: Step) -> None:
        for name, number in step.info.items():
            self.sums[name] = self.sums.get(name, 0.0) + number  # type: ignore[assignment]
        self.counted += 1

    def means(self) -> dict[str, float]:
        return {name: float(total) / max(self.counted, 1) for name, total in self.sums.items()}

    def record(self, run: Run, step: Step, looked: bool) -> None:
        """A line of metrics: means over the steps since the last one; with the validation ELBO at a look."""
        line: dict[str, Any] = {"step": step.number, "samples": step.samples, "seconds": round(self.seconds, 3)}
        line |= {"train": self.means()}
        if looked and len(self.held):
            line["validation"] = self.look(step)
        run.log(line)
        self.sums, self.counted = {}, 0

    def look(self, step: Step) -> dict[str, float]:
        """The bound of the validation split; its weights are kept if it is the best."""
        model = self.learner.best_known
        bound = elbo(cast(VAE, model), self.held, samples=self.watching.samples)
        numbers = {"reconstruction": float(bound.reconstruction.mean())}
        score = numbers["reconstruction"]
        if bool(torch.isfinite(bound.kl).all()):
            numbers |= {"elbo": float(bound.elbo.mean()), "kl": float(bound.kl.sum(-1).mean())}
            score = numbers["elbo"]
        if k := self.watching.importance_samples:
            score = numbers["log_px"] = float(log_marginal(cast(VAE, model), self.held, k).log_px.mean())
        if not math.isfinite(score):
            raise TrainingDiverged(
                f"The validation ELBO became {score} at step {step.number}. Try a smaller step size "
                "(--set training.optimizer.lr=...)."
            )
        self.looks_since += 1
        if score > self.best_score:
            self.best_score, self.best_step, self.looks_since = score, step.number, 0
            self.best = {k: v.detach().clone() for k, v in self.learnt().items()}
        return numbers

    def learnt(self) -> dict[str, Tensor]:
        """What a finished run keeps: the weights, and the objective's own parameters where it has some."""
        objective = self.learner.objective
        own = objective.state_dict() if isinstance(objective, nn.Module) else {}
        return {**self.learner.best_known.state_dict(), **{f"objective.{k}": v for k, v in own.items()}}

    def progress(self, step: Step, steps_per_second: float) -> Progress:
        left = (self.total - step.number) / steps_per_second
        numbers = self.means() if self.counted else {k: float(v) for k, v in step.info.items()}
        total = self.total * self.batch
        return Progress(step.number, step.samples, total, numbers, steps_per_second * self.batch, left)

    def checkpoint(self, run: Run) -> None:
        """One file, moved into place whole, so that a kill at any moment leaves this checkpoint or the last."""
        tensors = state_tensors(self.learner)
        if not all(bool(torch.isfinite(t).all()) for t in tensors.values()):
            raise TrainingDiverged(
                f"The weights or the optimiser's memory are not finite after step {self.learner.number}. Try a smaller step "
                "size (--set training.optimizer.lr=...)."
            )
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        notes = {
            "number": self.learner.number,
            "sums": {k: float(v) for k, v in self.sums.items()},
            "counted": self.counted,
            "best_score": self.best_score if math.isfinite(self.best_score) else None,
            "best_step": self.best_step,
            "looks_since": self.looks_since,
            "seconds": self.seconds,
        }
        write_tensors(run.path / "checkpoint" / "state.safetensors", tensors, {"state": json.dumps(notes)})

    def load_checkpoint(self, run: Run) -> None:
        """Stand where the run's last checkpoint stood; at the beginning if it has none yet."""
        path = run.path / "checkpoint" / "state.safetensors"
        if not path.is_file():
            run.forget_after(0)
            return
        tensors, notes = read_tensors(path)
        if "state" not in notes:
            raise RunError(f"{path} is no checkpoint: it does not say where its training stood.")
        state = json.loads(notes["state"])
        if state["number"] > self.total:
            seen = state["number"] * self.batch
            raise RunError(f"{run.path} has seen {seen:,} training samples already; a new total must be larger.")
        self.best = {k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")}
        model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        load_weights(self.learner.model, model, path)  # says what does not fit better than PyTorch
        try:
            restore(self.learner, {k: v for k, v in tensors.items() if not k.startswith("best.")}, state["number"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise RunError(f"{path} does not fit the recipe beside it: {error}") from error
        self.sums, self.counted, self.seconds = state["sums"], state["counted"], state["seconds"]
        self.best_step, self.looks_since = state["best_step"], state["looks_since"]
        self.best_score = -math.inf if state["best_score"] is None else state["best_score"]
        run.forget_after(state["number"])

    def save(self, run: Run, status: str, stopped: str) -> None:
        for verdict in run.path.glob("evaluation-*.json"):
            verdict.unlink()  # it is of other weights
        run.save_weights(self.best or self.learnt())
        run.write_meta(
            status=status,
            stopped=stopped,
            steps=self.learner.number,
            samples=self.learner.number * self.batch,
            best_step=self.best_step if self.best else self.learner.number,
            seconds=round(self.seconds, 2),
        )


def some_rows(data: Indexable, n: int, seed: int) -> Tensor:
    """n different rows of the data, or all of them as often as it takes; of pairs, with their contexts beside them.

    Where a label is unknown, the context all zeros, one is drawn: no training sees an x under none.
    """
    with seeded(derive(seed, "pseudo-inputs")):
        x, *contexts = arguments(data[torch.randperm(len(data))[torch.arange(n) % len(data)]])
        for y in contexts:
            unknown = ~y.flatten(1).any(1)
            y[unknown] = one_hot(torch.randint(y[0].numel(), (int(unknown.sum()),)), y[0].numel()).view_as(y[unknown])
    return concatenate((x, *contexts), 1) if contexts else x


class _Clock:
    def __init__(self) -> None:
        self.start = time.perf_counter()

    @property
    def age(self) -> float:
        return max(time.perf_counter() - self.start, 1e-9)


@contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C sets the event and the step in hand is finished; a second Ctrl-C interrupts at once."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    previous = signal.getsignal(signal.SIGINT)

    def handle(*_: Any) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, handle)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, previous)
