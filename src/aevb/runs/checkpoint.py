"""The checkpoint of a run: one file, moved into place whole, so that a kill at any moment leaves this one or the
last.
"""

from __future__ import annotations

import json
from pathlib import Path

from aevb.errors import RunError
from aevb.runs.files import read_tensors, write_tensors
from aevb.runs.store import Run, load_weights
from aevb.training.checkpoint import restore
from aevb.training.events import Checkpoint, TrainingState
from aevb.training.learner import Learner


def place(run: Run) -> Path:
    return run.path / "checkpoint" / "state.safetensors"


def save_checkpoint(run: Run, checkpoint: Checkpoint) -> None:
    write_tensors(place(run), checkpoint.tensors, {"state": json.dumps(checkpoint.notes)})


def load_checkpoint(run: Run, learner: Learner) -> TrainingState:
    """Put a learner where the run's last checkpoint stood; at the beginning if it has none yet.

    Raises:
        RunError: the checkpoint is damaged, does not fit the learner, or stands beyond the end of its training.
    """
    path = place(run)
    if not path.is_file():
        run.forget_after(0)
        return TrainingState()
    tensors, notes = read_tensors(path)
    if "state" not in notes:
        raise RunError(f"{path} is no checkpoint: it does not say where its training stood.")
    facts = json.loads(notes["state"])
    settings = learner.training_settings
    if facts["number"] > settings.steps(learner.n):
        seen = facts["number"] * min(settings.batch, learner.n)
        raise RunError(f"{run.path} has seen {seen:,} training samples already; a new total must be larger.")
    model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    load_weights(learner.model, model, path)  # says what does not fit better than PyTorch
    try:
        restore(learner, tensors, facts["number"])
    except (RuntimeError, KeyError, ValueError, IndexError) as error:
        raise RunError(f"{path} does not fit the recipe beside it: {error}") from error
    run.forget_after(facts["number"])
    return TrainingState.of(Checkpoint(facts["number"], tensors, facts))
