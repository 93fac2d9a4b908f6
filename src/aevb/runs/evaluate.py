"""Evaluate a run on a split of its data, and keep the result beside it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from aevb.data.batch import log_abs_det, rows_at_once
from aevb.data.dataset import Dataset, Split, placed
from aevb.errors import AevbWarning, DataError, RunError
from aevb.evaluation.estimate import Estimate, flat
from aevb.evaluation.evaluate import evaluate
from aevb.evaluation.likelihood import Method, likelihood
from aevb.evaluation.report import Subject, report
from aevb.models import shares
from aevb.models.ladder import Ladder
from aevb.models.vae import VAE
from aevb.objectives.semi_supervised import M2
from aevb.runs.build import build_model
from aevb.runs.files import write_json
from aevb.runs.recipe import EvaluationSettings
from aevb.runs.store import Run
from aevb.training.processes import alike, first

REFERENCE = 10_000  # labelled training points that neighbours and probes learn from, at most
LIMIT = 50  # data points of the costlier estimators of log p(x), where no number is given


def evaluate_run(
    run: Run,
    data: Dataset,
    part: str = "test",
    *,
    settings: EvaluationSettings | None = None,
    limit: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Evaluate a run's model on a split, with the recipe's settings if none are given; the numbers by name.

    With none given, the result is kept in evaluation-SPLIT.json. A run by `FullBayes` is evaluated at the posterior
    mean of its weights, and `weights` in the result says so; `log_predictive` averages over the posterior. A model that
    is conditioned on labels is evaluated as p(x|y) at the true labels, and the classifier of `M2` by its accuracy.

    Several processes (`aevb.together`) share the rows out, if all of them call this; the first one keeps the result.
    """
    own, context = settings is None and limit is None, run.recipe.context()
    settings = settings or run.recipe.evaluation()
    rows, known, model = rows_of(run, data, part, limit), data.train.take(REFERENCE).frozen(), _model(run, device)
    alone = part == "train" or context.classes  # no row is its own neighbour
    reference = None if known.labels is None or alone else (placed(known, device), known.labels)
    numbers = evaluate(
        model,
        context.rows(rows, device),
        split=part,
        importance_samples=settings.importance_samples,
        elbo_samples=settings.samples,
        labels=None if context.classes else rows.labels,  # codes that were given the label know it
        reference=reference,
    ).numbers()
    numbers |= {"given_labels": True} if context.classes else {}
    if not first():
        return numbers
    with shares.alone():
        numbers |= _of_objective(run, model, rows)
    if own:  # what is kept is by the recipe's settings, of all rows
        _keep(run, f"evaluation-{part}.json", numbers)
    return numbers


def _model(run: Run, device: str | torch.device) -> VAE | Ladder:
    """The trained model; of several processes the first one reads it, since the others may not see its folder."""
    if first():
        model = run.model(device)
    else:
        model = build_model(run.recipe, run.meta["shape"], run.meta["levels"]).to(device).eval()
    alike(model.state_dict().values())
    return model


def _keep(run: Run, name: str, numbers: Mapping[str, Any]) -> None:
    """Write numbers beside a run; where that is not allowed, they are still given."""
    try:
        write_json(run.place(name), flat(numbers))
    except RunError as error:
        warnings.warn(f"{error} The numbers are right, but not saved in the run.", AevbWarning, stacklevel=3)


def _of_objective(run: Run, model: nn.Module, rows: Split) -> dict[str, Any]:
    """What full Bayes and M2 add to an evaluation."""
    kind = run.recipe.settings["objective"]["type"]
    if kind == "full-bayes":
        return {"weights": "posterior mean"}
    objective = run.objective(model) if kind == "m2" else None
    return {"classifier_accuracy": accuracy(objective.classifier, rows)} if isinstance(objective, M2) else {}


def estimate_likelihood(
    run: Run,
    data: Dataset,
    part: str = "test",
    *,
    method: Method = Method(),
    limit: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """log p(x) of a run's model by a costlier estimator than `evaluate_run`'s, on the first `limit` rows of a split.

    A model that is conditioned on labels is evaluated as p(x|y), at the true labels, or by "bdmc" at each class in
    turn.
    """
    of = subject(run, data, part, limit or LIMIT, device)
    found = likelihood(of, method)
    about: dict[str, Any] = {"split": part} if method.estimator != "bdmc" else {}
    about |= {"given_labels": True} if run.recipe.context().classes else {}
    return in_units({**about, **found}, log_abs_det(of.data))


def measure(
    run: Run, data: Dataset, name: str, part: str = "test", *, limit: int | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """The numbers of one of the reports on a run."""
    numbers = report(name).measure(subject(run, data, part, limit, device))
    return in_units(numbers, rows_of(run, data, part, limit).log_abs_det)


DENSITIES = {"elbo": 1, "reconstruction": 1, "log_likelihood": 1, "lower": 1, "upper": 1, "distortion": -1}  # signs
STANDARDIZED = ("elbo", "log_likelihood", "lower", "upper")  # of which the standardized data's number is kept, too


def in_units(numbers: Mapping[str, Any], constant: float) -> dict[str, Any]:
    """Densities of the data as given, from densities of what the model sees: log p(s) = log p(x) + log |det ∂x/∂s|,
    nats, `constant` being the mean of the latter over the rows.

    Of standardized data; `elbo_standardized`, `log_likelihood_standardized` and the like keep what the model sees.
    """
    found = dict(numbers)
    if not constant:
        return found
    for name, sign in DENSITIES.items():
        if isinstance(number := found.get(name), Estimate) and number.known:
            found[name] = number.moved(sign * constant)
            found |= {f"{name}_standardized": number} if name in STANDARDIZED else {}
    return found


def subject(run: Run, data: Dataset, part: str, limit: int | None, device: str) -> Subject:
    """A run's model and the rows of a split, for a report."""
    rows, context = rows_of(run, data, part, limit), run.recipe.context()

    def conditions(n: int) -> Tensor | None:
        y = run.each(n)
        return None if y is None else y.to(device)

    return Subject(run.model(device), rows, context.rows(rows, device), data.train.frozen(), conditions)


@torch.no_grad()
def accuracy(classifier: nn.Module, rows: Split) -> Estimate:
    """The share of a split's labels that a classifier x (B, *X) → logits (B, C), on the CPU, finds."""
    assert rows.labels is not None  # a recipe with classes has trained on labels
    found = torch.cat([classifier(rows[i]).argmax(-1) for i in torch.arange(len(rows)).split(rows_at_once(rows.shape))])
    return Estimate.share(float((found == rows.labels).double().mean()), len(rows))


def rows_of(run: Run, data: Dataset, part: str, limit: int | None = None) -> Split:
    """The rows of a split, fixed; the first `limit` of them.

    Raises:
        DataError: there are none.
    """
    rows: Split = getattr(data, part)
    rows = (rows if limit is None else rows.take(limit)).frozen()
    if not len(rows):
        raise DataError(f"The {part} split of {run.path.name} is empty. Choose another with --split.")
    return rows
