"""The checkpoint of a run: one file, moved into place whole, so that a kill at any moment leaves this one or the
last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aevb.errors import RunError
from aevb.runs.files import damaged, read_tensors, write_tensors
from aevb.runs.store import Run, load_weights
from aevb.training.checkpoint import restore
from aevb.training.events import Checkpoint, TrainingState, learnt
from aevb.training.learner import Learner
from aevb.training.processes import first


def place(run: Run) -> Path:
    return run.path / "checkpoint" / "state.safetensors"


def save_checkpoint(run: Run, checkpoint: Checkpoint) -> None:
    run.place("checkpoint")
    write_tensors(place(run), checkpoint.tensors, {"state": json.dumps(checkpoint.notes)})


def load_checkpoint(run: Run, learner: Learner) -> TrainingState:
    """Put a learner where the run's last checkpoint stood; at the beginning if it has none yet.

    Raises:
        RunError: the checkpoint is damaged, does not fit the learner, or stands beyond the end of its training.
    """
    path, forget = place(run), _forgetting(run)
    if not path.is_file():
        forget(0)
        return TrainingState()
    tensors, notes = read_tensors(path)
    facts = _facts(path, notes)
    settings = learner.training_settings
    if facts["number"] > settings.steps(learner.n):
        seen = facts["number"] * min(settings.batch, learner.n)
        raise RunError(f"{run.path} has seen {seen:,} training samples already; a new total must be larger.")
    model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    load_weights(learner.model, model, path)  # says what does not fit better than PyTorch
    best = {k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")}
    if best:
        _check_best(learner, best, path)
    try:
        restore(learner, tensors, facts["number"])
    except (RuntimeError, KeyError, ValueError, IndexError, AttributeError) as error:
        raise RunError(f"{path} does not fit the recipe beside it: {error}") from error
    for optimizer in learner.optimizers:
        _check_memory(optimizer, path)
    forget(facts["number"])
    return TrainingState.of(Checkpoint(facts["number"], tensors, facts))


def _forgetting(run: Run) -> Callable[[int], None]:
    """What drops the metrics of steps that will be met again: in the process that writes alone."""
    return run.forget_after if first() else lambda step: None


def _check_best(learner: Learner, best: Mapping[str, Tensor], path: Path) -> None:
    """Raise where the best weights are not those of the learner."""
    for name, v in learnt(learner).items():
        if name in best and (best[name].shape, best[name].dtype) == (v.shape, v.dtype):
            continue
        raise damaged(path, f"best.{name} is missing or has another shape")


def _check_memory(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Raise where an optimizer remembers other things of one parameter than of the others, or in another shape."""
    memory = {p: {k: v for k, v in state.items() if isinstance(v, Tensor)} for p, state in optimizer.state.items()}
    alike = len({frozenset(entries) for entries in memory.values()}) <= 1
    if not alike or not all(_fits(p, entries) for p, entries in memory.items()):
        raise damaged(path, "the optimizer's memory does not fit the parameters")


def _fits(parameter: Tensor, memory: Mapping[str, Tensor]) -> bool:
    """Whether all that an optimizer remembers is of the parameter's shape, or a single number."""
    return all(not v.ndim or v.shape == parameter.shape for v in memory.values())


def _facts(path: Path, notes: Mapping[str, str]) -> dict[str, Any]:
    """Where the training stood, each fact of the type that it was written in."""
    if "state" not in notes:
        raise RunError(f"{path} is not a checkpoint: it does not say where its training stood.")
    try:
        facts = json.loads(notes["state"])
        state = {name: check(facts[name]) for name, check in FACTS.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged(path, f"what it says of its training cannot be: {error}") from error
    return state


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


FACTS: Mapping[str, Callable[[Any], Any]] = {
    "number": _count,
    "sums": lambda value: {name: _number(total) for name, total in value.items()},
    "counted": _count,
    "best_score": lambda value: None if value is None else _number(value),
    "best_step": _count,
    "looks_since": _count,
    "seconds": _number,
}
