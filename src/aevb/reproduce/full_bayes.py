"""Full variational Bayes (App. F) against point estimates of the weights, where data are few: 1,000 digits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from aevb.data.dataset import Split
from aevb.evaluation.bound import elbo
from aevb.evidence.importance import log_marginal
from aevb.evidence.predictive import log_predictive
from aevb.figures.style import PALETTE, chart, save, settle, styled
from aevb.models.vae import VAE
from aevb.objectives.full_bayes import FullBayes
from aevb.reproduce.curves import Curve, Followed, Row, bound, read, write_table
from aevb.reproduce.experiment import Experiment
from aevb.training.learner import Learner

ROWS = 1000  # training points
SEEDS = (0, 1, 2)
POINTS = 1000  # test points whose log p(x) is estimated
DRAWS, EACH = 10, 10  # weights from q(θ), and importance samples for each; point estimates get as many in all
Line = dict[str, Any]  # of a table
Known = Mapping[str, list[Followed]]  # method → its trainings, one for each seed
NAMES = {"ml": "maximum likelihood", "map": "MAP", "full": "full variational Bayes"}


def measured(learner: Learner, train: Split, test: Split) -> Row:
    """The bound at the mean weights on train and test rows, and log p(x) of `POINTS` test rows, in nats per data point.

    log p(x) is the importance-sampling estimate by `DRAWS` · `EACH` samples (arXiv 1509.00519, L_K): at the mean
    weights (`log_px`), and under full Bayes also with as many samples spread over weights from q(θ) (`predictive`).
    Each has its standard error over test rows. `kl_weights` is KL(q(θ) ‖ p(θ)) / N.
    """
    model, objective, some = learner.best_known, learner.objective, test.take(POINTS)
    assert isinstance(model, VAE)
    row = {"train": bound(learner, train), **_mean("test", elbo(model, test).elbo)}
    row |= _mean("log_px", log_marginal(model, some, DRAWS * EACH).log_px)
    if isinstance(objective, FullBayes):
        row |= _mean("predictive", log_predictive(model, objective, some, DRAWS, samples=EACH).log_px)
        row["kl_weights"] = float(objective.kl(objective.posterior(model)).detach()) / len(train)
    return row


def _mean(name: str, values: Tensor) -> Row:
    """The mean of (N,) and its standard error."""
    return {name: float(values.mean()), f"{name}_se": float(values.std()) / math.sqrt(len(values))}


def curve(method: str, seed: int) -> Curve:
    """One training: `method` is a key of `NAMES`; all have the same network, optimiser and candidates for its step
    size."""
    recipe = "full-bayes" if method == "full" else "aevb"
    prior = {} if method == "full" else {"training__weight_prior": method == "map"}
    marks = (1.0, 2.0, 5.0)
    changes = {"latent": 20, **prior, "training__seed": seed}
    return Curve(f"full-bayes-{method}-s{seed}", recipe, "mnist", measured, changes, rows=ROWS, marks=marks)


CURVES = tuple(curve(method, seed) for seed in SEEDS for method in NAMES)


def present(place: Path, out: Path) -> list[str]:
    """Draw and tabulate what is trained."""
    found = {m: [f for seed in SEEDS if (f := read(curve(m, seed), place))] for m in NAMES}
    known = {method: each for method, each in found.items() if each}
    if not known:
        return []
    out.mkdir(parents=True, exist_ok=True)
    points = [
        {"method": m, "run": k, **_with_gap(row)}
        for m, each in known.items()
        for k, f in enumerate(each)
        for row in f.rows
    ]
    write_table(out / "points.csv", points)
    write_table(out / "full-bayes.csv", summary(known))
    save(drawn(known), out / "full-bayes")
    return findings(known)


def summary(known: Known) -> list[Line]:
    """A line for each method: means over its trainings, `_sd` their standard deviations, at the best mark and at the
    last.

    The last is the last mark that all trainings have; the best is each training's best test bound until then; and
    `test_at_level` is the test bound where the train bound has reached `level`, as in the end it has in all of them.
    In nats per data point.
    """
    end, reached = last_common(known), level(known)
    table = []
    for method, each in known.items():
        best = [max(until(f, end), key=lambda row: row["test"]) for f in each]
        line: Line = {
            "method": NAMES[method],
            "trainings": len(each),
            **_spread("best_test", [row["test"] for row in best]),
        }
        line |= {"best_at": mean(row["samples"] for row in best), "samples": end}
        line |= {"level": reached, **_spread("test_at_level", [bound_at(reached, until(f, end)) for f in each])}
        ends = [_with_gap(until(f, end)[-1]) for f in each]
        for name in (
            "train",
            "test",
            "test_se",
            "gap",
            "log_px",
            "log_px_se",
            "predictive",
            "predictive_se",
            "kl_weights",
        ):
            line |= _spread(name, [row[name] for row in ends if name in row])
        table.append(line)
    return table


def last_common(known: Known) -> float:
    """Training samples at the last mark that every training has."""
    return max(set.intersection(*({row["samples"] for row in f.rows} for each in known.values() for f in each)))


def until(followed: Followed, samples: float) -> list[Row]:
    """The rows measured so far, up to a mark."""
    return [row for row in followed.rows if row["samples"] <= samples]


def level(known: Known) -> float:
    """The highest train bound that every training has reached by the last common mark."""
    end = last_common(known)
    return min(max(row["train"] for row in until(f, end)) for each in known.values() for f in each)


def bound_at(train: float, rows: list[Row]) -> float:
    """The test bound where the train bound first reaches a level, between two marks on a straight line."""
    k = next(k for k, row in enumerate(rows) if row["train"] >= train)
    above, below = rows[k], rows[max(k - 1, 0)]
    rise = above["train"] - below["train"]
    return above["test"] - (above["test"] - below["test"]) * ((above["train"] - train) / rise if rise else 0.0)


def _with_gap(row: Row) -> Row:
    return {**row, "gap": row["train"] - row["test"]}


def _spread(name: str, values: list[float]) -> dict[str, float]:
    """The mean, and the standard deviation where there are several."""
    spread = {f"{name}_sd": stdev(values)} if len(values) > 1 and not name.endswith("_se") else {}
    return {name: mean(values), **spread} if values else {}


def findings(known: Known) -> list[str]:
    """What each method reached, by how much full Bayes is ahead, and at which step sizes."""
    table = summary(known)
    said = [_reached(line) for line in table]
    if "full" in known:
        said += [_ahead(known, other) for other in ("ml", "map") if other in known]
    steps = {NAMES[m]: sorted({f.settings["step_size"] for f in each}) for m, each in known.items()}
    told = "; ".join(f"{name}: {', '.join(map(str, chosen))}" for name, chosen in steps.items())
    return [*said, f"Adagrad's steps, chosen by the bound on train rows after the first 20,000 samples: {told}."]


def _reached(line: Line) -> str:
    """One method's sentence; ± is the standard deviation over trainings."""
    density = (
        f"log p(x) at the mean weights {_pm(line, 'log_px')}"
        if "predictive" in line
        else f"log p(x) {_pm(line, 'log_px')}"
    )
    density += f", under q(θ) {_pm(line, 'predictive')}" if "predictive" in line else ""
    return (
        f"{line['method']}: best test bound {_pm(line, 'best_test')} nats, after {line['best_at']:,.0f} samples; after "
        f"{line['samples']:,.0f} train {_pm(line, 'train')}, test {_pm(line, 'test')} (standard error over test points "
        f"{line['test_se']:.2f}), gap {_pm(line, 'gap')}; where train had reached {line['level']:.2f}, test was at "
        f"{_pm(line, 'test_at_level')}; {density} (standard error {line['log_px_se']:.2f})."
    )


def _pm(line: Line, name: str) -> str:
    spread = f" ± {line[f'{name}_sd']:.2f}" if f"{name}_sd" in line else ""
    return f"{line[name]:.2f}{spread}"


def _ahead(known: Known, other: str) -> str:
    """Full Bayes less another method, seed by seed, with the standard error over seeds."""
    end, parts = last_common(known), []
    for words, of in (("at the best marks", _best), (f"after {end:,.0f} samples", _last)):
        pairs = zip(known["full"], known[other], strict=False)
        differences = [of(until(a, end)) - of(until(b, end)) for a, b in pairs]
        error = f" ± {stdev(differences) / len(differences) ** 0.5:.2f}" if len(differences) > 1 else ""
        parts.append(f"{mean(differences):+.2f}{error} {words}")
    return f"Full variational Bayes less {NAMES[other]}, test bound in nats: {', '.join(parts)}."


def _best(rows: list[Row]) -> float:
    return max(row["test"] for row in rows)


def _last(rows: list[Row]) -> float:
    return rows[-1]["test"]


@styled
def drawn(known: Known) -> Figure:
    """The bound on train and test rows, their gap, and log p(x) of test rows; a line for each training."""
    about = f"{ROWS:,} training digits; a line for each seed. Bounds are at the mean weights; dotted: weights from q(θ)"
    figure = chart(1300, 560, "Full variational Bayes against point estimates of the weights", about)
    bounds, gap, density = figure.subplots(1, 3)
    _lines(bounds, known, {"test": "-", "train": "--"}, "Bound: test solid, train dashed")
    _lines(gap, known, {"gap": "-"}, "Bound on train less test rows")
    _lines(density, known, {"log_px": "-", "predictive": ":"}, "log p(x) of test rows")
    bounds.set_ylabel("nats per data point")
    gap.legend(loc="upper left")
    return settle(figure)


def _lines(axes: Axes, known: Known, dashes: Mapping[str, str], title: str) -> None:
    """Some columns of every training, from a fiftieth of its samples on: what comes before would flatten all else."""
    for method, each in known.items():
        for k, followed in enumerate(each):
            rows = [_with_gap(row) for row in followed.rows if row["samples"] >= followed.rows[-1]["samples"] / 50]
            for name, dash in dashes.items():
                xs, ys = Followed(rows, {}).column(name)
                label = NAMES[method] if not k and dash == "-" else None
                colour = PALETTE[list(NAMES).index(method)]
                axes.plot(xs, ys, color=colour, linestyle=dash, linewidth=1.3, marker="o", markersize=2, label=label)
    axes.set_xscale("log")
    axes.set_title(title)
    axes.set_xlabel("training samples")


FULL_BAYES = Experiment(
    "full-bayes",
    "Full variational Bayes (App. F)",
    "The paper has no experiment with a posterior over the weights. Here the network of Figure 2 with 20 latents "
    "learns from 1,000 digits only: by maximum likelihood, with p(θ) = N(0, I) on the weights of both networks (MAP), "
    "and with a posterior over all parameters of the decoder (eq. 24), those of the encoder being point estimates. "
    "All else is the same. The bound is that of 10,000 test digits; log p(x) of the first 1,000 is estimated by 100 "
    "importance samples, under q(θ) by 10 for each of 10 draws of the weights.",
    CURVES,
    present,
)
