"""Whether the parts of a recipe give a loss: one look at it, before a run has a folder."""

from __future__ import annotations

from aevb.data.batch import Batch, Indexable, take
from aevb.data.randomness import Order
from aevb.errors import DataError, RecipeError
from aevb.models.inference import inference
from aevb.objectives.bounds import PerPoint
from aevb.runs.parts import wrap_errors
from aevb.training.learner import Learner


def check_objective(learner: Learner, data: Indexable) -> None:
    """What the objective says of a first minibatch: of parts it cannot take, or no number at all.

    Raises:
        RecipeError: parts that do not go together.
        DataError: the data are too large for a loss.
    """
    if isinstance(learner.objective, PerPoint):  # it would move its chains
        return
    settings = learner.training_settings
    model = learner.best_known
    with inference(model, 0) as device:
        batch = take(data, Order(learner.n, settings.batch, settings.seed, device)[0])
        loss, _ = wrap_errors("objective", lambda: learner.objective(model, batch, 0))
        if bool(loss.isfinite()):
            return
        largest = batch.x.abs().max()
        rescaled, _ = learner.objective(model, Batch(batch.x / largest, batch.y, batch.rows, batch.of), 0)
    what = f"The loss of {type(learner.objective).__name__} is {float(loss)} before the first step"
    if bool(rescaled.isfinite()):
        raise DataError(
            f"{what}, since there are data as large as {float(largest):.3g}. Rescale them, as in "
            "(x - x.mean(0)) / x.std(0).",
            changes=("data.values=standardized",),
        )
    raise RecipeError(
        f"{what}: one of prior, posterior and likelihood assigns zero density to draws of another. "
        f"Choose a posterior such as "
        "normal, or another objective."
    )
