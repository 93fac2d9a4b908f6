"""From a recipe and data to a trained model in memory: the events of a training, without a folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from aevb.data.dataset import Dataset
from aevb.models.ladder import Ladder
from aevb.models.vae import VAE
from aevb.runs.begin import First, read_alike
from aevb.runs.fit import Job, Reporter, Show
from aevb.runs.interrupt import deferred_interrupt
from aevb.runs.recipe import Recipe
from aevb.training.events import End, Event, TrainingState
from aevb.training.train import Step

NEVER = float("inf")


@dataclass(frozen=True)
class Trained:
    """A model that was trained in memory.

    Attributes:
        model: with the best weights, in evaluation mode.
        recipe: with what it left to the data filled in: `build_model(recipe, shape)` gives such a model again.
        end: how the training ended.
    """

    model: VAE | Ladder
    recipe: Recipe
    end: End


def fit_in_memory(
    recipe: Recipe,
    data: Dataset,
    *,
    device: str | torch.device = "cpu",
    show: Show | None = None,
    first: First | None = None,
) -> Trained:
    """Train a recipe on data; the model that comes back has the weights of the best validation bound.

    Args:
        recipe: such as `Recipe.load("table")`; what it leaves to the data is filled in.
        data: their validation split may have no rows: then the weights of the model are the last. Rows may have
            weights, see `data.weights`.
        device: where to train; the model stays there.
        show: called several times a second with where the training stands.
        first: with whose weights the training begins; None: those of the run of the recipe's `init`, or random ones.

    Raises:
        DataError, RecipeError, ShapeError: the recipe does not fit the data.
        TrainingDiverged: the loss became NaN or exploded.
        KeyboardInterrupt: after Ctrl-C.
    """
    data = read_alike(recipe, data)
    job = Job.of(recipe.of(data), data, device, first)
    state = TrainingState()
    report = Reporter(job.learner, state, show)
    with deferred_interrupt(state.stop) as heard:
        for event in job.events(state, NEVER):
            end = _told(event, report)
    if end is None:
        raise AssertionError("the events of a training have an end")
    if end.reason == "interrupted":
        raise heard.error()
    model = job.learner.model
    model.load_state_dict(end.weights)
    return Trained(model.eval(), job.recipe, end)  # type: ignore[arg-type]


def _told(event: Event, report: Any) -> End | None:
    """Tell `report` of a step; the end, where it has come."""
    if isinstance(event, Step):
        report(event)
    return event if isinstance(event, End) else None
