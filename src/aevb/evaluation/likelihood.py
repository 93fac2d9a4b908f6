"""log p(x) by a costlier estimator than importance sampling, as a report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from aevb.data.batch import batches
from aevb.errors import RecipeError
from aevb.evaluation.estimate import Estimate
from aevb.evaluation.evaluate import LIKELIHOOD, likelihood_name, marginal_numbers, relaxed
from aevb.evaluation.report import Cells, Line, Numbers, Subject, cells
from aevb.evidence.annealed import Annealing, Bracket, bidirectional, log_marginal_ais
from aevb.evidence.harmonic import log_marginal_hmc
from aevb.evidence.marginal import Marginal
from aevb.models.inference import Model, dtype_of, inference

Estimator = Literal["ais", "bdmc", "hmc"]
MOST_LATENTS = 10  # for the estimator of App. D, whose density is fitted to a few draws


@dataclass(frozen=True)
class Method:
    """How log p(x) is estimated, where importance sampling does not do.

    Attributes:
        estimator: "ais": annealed importance sampling; "hmc": App. D of arXiv 1312.6114, for up to about five latents,
            which has no use for the other settings; "bdmc": from below and from above, of as many data points as there
            are rows, which the model makes.
        chains: K, annealed for each data point; temperatures: T; start: p(z) or q(z|x).
    """

    estimator: Estimator = "ais"
    chains: int = 8
    temperatures: int = 200
    start: Literal["prior", "posterior"] = "posterior"

    def annealing(self, model: Model) -> Annealing:
        return Annealing(self.temperatures, start=model.posterior if self.start == "posterior" else None)

    @property
    def about(self) -> dict[str, Any]:
        return {"temperatures": self.temperatures, "start": self.start}


def likelihood(subject: Subject, method: Method) -> dict[str, Any]:
    """log p(x) of the rows by a method."""
    return {"estimator": method.estimator, **ESTIMATORS[method.estimator](subject, method)}


def _ais(subject: Subject, method: Method) -> Numbers:
    model = subject.model
    found = log_marginal_ais(model, subject.data, method.chains, method.annealing(model))
    return {**method.about, **of_marginal(subject, found)}


def _hmc(subject: Subject, method: Method) -> Numbers:
    latents = subject.model.latent_shape.numel()
    if latents > MOST_LATENTS:
        raise RecipeError(
            f"--estimator hmc fits a density to a few draws, for up to about five latents; this "
            f"model has {latents}. Use --estimator ais."
        )
    return of_marginal(subject, log_marginal_hmc(subject.model, subject.data))


def _bdmc(subject: Subject, method: Method) -> Numbers:
    n, model = len(subject.rows), subject.model
    found = bidirectional(model, n, method.chains, method.annealing(model), y=subject.conditions(n))
    return {**method.about, **of_bracket(found)}


ESTIMATORS: dict[str, Callable[[Subject, Method], Numbers]] = {"ais": _ais, "bdmc": _bdmc, "hmc": _hmc}


def of_marginal(subject: Subject, marginal: Marginal) -> dict[str, Any]:
    """Of `Evaluation` the numbers that come of log p(x); `samples` is its K."""
    with inference(subject.model, 0) as device:
        one = next(batches(subject.data, 1, device, dtype_of(subject.model)))
        p = subject.model.decode(subject.model.encode(one), one.y)
    known = {"n": len(subject.data), "samples": marginal.samples, "is_likelihood": not relaxed(p)}
    return {**known, **marginal_numbers(marginal, p)}


def of_bracket(bracket: Bracket) -> dict[str, Any]:
    """Means over the data points of a `Bracket`, in nats."""
    sides = {"lower": bracket.lower.log_px, "upper": bracket.upper.log_px, "gap": bracket.gap}
    means = {name: Estimate.of(values) for name, values in sides.items()}
    known = {"n": len(bracket.x), "samples": bracket.lower.samples, "importance_warning": bracket.warning}
    return {**known, **means}


BRACKET = (
    Line("upper", "{likelihood}, upper bound", "nats, {by}, down to {from}"),
    Line("lower", "{likelihood}, lower bound", "nats, {by}, up from {from}"),
    Line("gap", "  gap", "nats, between the two in expectation"),
)


def likelihood_table(e: Numbers) -> list[Cells]:
    """The lines of `likelihood`."""
    start = {"prior": "p(z)", "posterior": "q(z|x)"}.get(e.get("start", ""))
    by = f"{e['samples']} chains × {e['temperatures']} temperatures" if "temperatures" in e else "HMC"
    return cells(
        BRACKET if "gap" in e else LIKELIHOOD, {**e, "likelihood": likelihood_name(e), "by": by, "from": start}
    )
