"""Judge a run on a split of its data, and keep the verdict beside it."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aevb.data.dataset import Dataset, Split, placed
from aevb.data.sprites import CATEGORIES, FACTORS, factors_of
from aevb.errors import DataError, RecipeError
from aevb.evaluation.annealing import Annealing, bidirectional, log_marginal_ais
from aevb.evaluation.batches import BATCH
from aevb.evaluation.disentanglement import VOTES, disentanglement
from aevb.evaluation.evaluate import evaluate, evaluate_bracket, evaluate_likelihood, evaluate_surgery, share_se
from aevb.evaluation.generation import generate
from aevb.evaluation.marginal import Progress
from aevb.evaluation.quality import authenticity, fidelity, median_distance, mmd, principal_components
from aevb.evaluation.reciprocal import log_marginal_hmc
from aevb.evaluation.surgery import surgery
from aevb.objectives.semi_supervised import M2
from aevb.runs.files import write_json
from aevb.runs.store import Run

Estimator = Literal["ais", "bdmc", "hmc"]
MOST_LATENTS = 10  # for the estimator of App. D
MOST = 2000  # samples, and data points, that are held against each other
REFERENCE = 10_000  # labelled training points that neighbours and probes learn from, at most


def judge(
    run: Run,
    data: Dataset,
    part: str = "test",
    *,
    importance_samples: int | None = None,
    samples: int | None = None,
    limit: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Evaluate a run's model on a split, with the recipe's settings where none are given.

    With none given, this is the run's verdict, and kept in evaluation-SPLIT.json. A run by `FullBayes` is judged at the mean
    of its weights' posterior, and `weights` in the result says so; `log_predictive` averages over the posterior. A model
    that is conditioned on labels is judged as p(x|y) at the true labels, and the classifier of `M2` by its accuracy.
    """
    settings = run.recipe.judging()
    rows = _rows(run, data, part, limit)
    known = data.train.take(REFERENCE).frozen()
    context = run.recipe.context()
    model = run.model(device)
    result = evaluate(
        model,
        context.rows(rows, device),
        split=part,
        importance_samples=importance_samples or settings.importance_samples,
        elbo_samples=samples or settings.samples,
        labels=None if context.classes else rows.labels,  # codes that were given the label know it
        reference=None if known.labels is None or context.classes else (placed(known, device), known.labels),
    ).to_dict()
    if context.classes:
        result["given_labels"] = True
    if run.recipe.settings["objective"]["type"] == "full-bayes":
        result["weights"] = "posterior mean"
    objective = run.objective(model) if run.recipe.settings["objective"]["type"] == "m2" else None
    if isinstance(objective, M2):
        result["classifier_accuracy"] = share = accuracy(objective.classifier, rows)
        result["classifier_accuracy_se"] = share_se(share, len(rows)) if len(rows) > 1 else None
    if limit is importance_samples is samples is None:  # the verdict on record is the recipe's own
        write_json(run.path / f"evaluation-{part}.json", result)
    return result


def _refuse_many(latents: int) -> None:
    """Raise where the density of App. D, fitted to a few draws, would be no estimate: it then gives absurd values."""
    if latents > MOST_LATENTS:
        raise RecipeError(
            f"--estimator hmc fits a density to a few draws, which is for up to about five latents; here are {latents}. "
            "Take --estimator ais."
        )


def judge_likelihood(
    run: Run,
    data: Dataset,
    part: str = "test",
    *,
    estimator: Estimator,
    chains: int = 8,
    temperatures: int = 200,
    start: Literal["prior", "posterior"] = "posterior",
    limit: int = 50,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """log p(x) of a run's model by a costlier estimator than `judge`'s, on the first `limit` data points of a split.

    "ais": annealed importance sampling from the prior or from q(z|x); "hmc": App. D of arXiv 1312.6114, for up to about five
    latents, which has no use for chains, temperatures and start; "bdmc": from below and from above, of `limit` data points
    that the model makes (the split is not read). A model that is conditioned on labels is judged as p(x|y), at the true
    labels, or by "bdmc" at each class in turn.
    """
    model, context = run.model(device), run.recipe.context()
    annealing = Annealing(temperatures, start=model.posterior if start == "posterior" else None)
    about: dict[str, Any] = {"estimator": estimator} | ({"given_labels": True} if context.classes else {})
    path = {**about, "temperatures": temperatures, "start": start}
    if estimator == "bdmc":
        given = context.each(limit) if context.classes else None
        return path | evaluate_bracket(bidirectional(model, limit, chains, annealing, given=given, progress=progress))
    rows = context.rows(_rows(run, data, part, limit), device)
    if estimator == "hmc":
        _refuse_many(math.prod(run.recipe.code_shape(run.meta["shape"])))
        return about | evaluate_likelihood(model, rows, log_marginal_hmc(model, rows), split=part)
    found = log_marginal_ais(model, rows, chains, annealing, progress=progress)
    return path | evaluate_likelihood(model, rows, found, split=part)


def judge_surgery(
    run: Run, data: Dataset, part: str = "test", *, limit: int | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """Where the KL of a run's model goes, over a whole split: `surgery`."""
    rows = run.recipe.context().rows(_rows(run, data, part, limit), device)
    return evaluate_surgery(surgery(run.model(device), rows))


def judge_samples(
    run: Run, data: Dataset, part: str = "test", *, limit: int | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """How the means of p(x|z), z ~ p(z), resemble a split: `fidelity`, `mmd` and `authenticity`, each with its error.

    In the space of the first 50 principal components of train data; of at most `MOST` points, and as many samples. Beside
    the authenticity of the samples stands that of the split, which a model that generalises has.
    """
    rows, context = _rows(run, data, part, min(limit or MOST, MOST)), run.recipe.context()
    given = context.each(len(rows)) if context.classes else None
    samples = generate(run.model(device), len(rows), given=given)
    train = data.train.frozen().take(MOST)[:]
    features = principal_components(train, min(50, data.shape.numel(), len(train)))
    known, real, made = features(train), features(rows[:]), features(samples)
    found = {**vars(fidelity(real, made)), "authentic": authenticity(known, made)[0]}
    found["authentic_data"] = authenticity(known, real)[0]
    means = {k: v for name, each in found.items() for k, v in _mean(name, each).items()}
    value, error = mmd(real, made, median_distance(real))
    return {"n": len(rows), **means, "mmd": value, "mmd_se": error}


def _mean(name: str, each: Tensor) -> dict[str, float]:
    return {name: float(each.mean()), f"{name}_se": float(each.std()) / len(each) ** 0.5}


def judge_disentanglement(
    run: Run, data: Dataset, part: str = "test", *, limit: int | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """How far single latents of a run's model follow single factors, on a split of the source `sprites`."""
    rows = _rows(run, data, part, limit)
    given = run.recipe.context().rows(rows, device)
    found = asdict(disentanglement(run.model(device), given, factors_of(rows[:]), CATEGORIES))
    scores = {**found, "factor_vae_se": share_se(found["factor_vae"], VOTES // 2)}
    return {"n": len(rows), "factors": [*FACTORS], **scores, "information": found["information"].tolist()}


@torch.no_grad()
def accuracy(classifier: nn.Module, rows: Split) -> float:
    """The share of a split's labels that a classifier x (B, *X) → logits (B, C), on the CPU, finds."""
    assert rows.labels is not None  # a recipe with classes has trained on labels
    found = torch.cat([classifier(rows[i]).argmax(-1) for i in torch.arange(len(rows)).split(BATCH)])
    return float((found == rows.labels).double().mean())


def _rows(run: Run, data: Dataset, part: str, limit: int | None) -> Split:
    rows: Split = getattr(data, part)
    rows = (rows if limit is None else rows.take(limit)).frozen()
    if not len(rows):
        raise DataError(f"The {part} split of {run.path.name} is empty. Choose another with --split.")
    return rows
