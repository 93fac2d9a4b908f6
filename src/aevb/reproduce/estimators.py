"""How noisy the gradients of estimators A and B are (§2.3), at three stages of the training of Figure 2's model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aevb.data.dataset import Split
from aevb.data.randomness import Order, derive
from aevb.evaluation.gradient_noise import GradientNoise, gradient_noise, minibatch_noise
from aevb.figures.style import GREY, INK, PALETTE, chart, save, settle, styled
from aevb.models.inference import Model
from aevb.objectives.bounds import ELBO
from aevb.reproduce import figure2
from aevb.reproduce.curves import Curve, Row, trained, write_table
from aevb.reproduce.experiment import Experiment
from aevb.reproduce.seeds import alike, rounded, spread
from aevb.training.learner import Learner
from aevb.training.train import continue_training

CURVE = figure2.mnist(20)
EARLY, STEP = 50_000, 0.02  # training samples and Adagrad's step of the stage between the first and the last
BATCHES, BATCH, DRAWS = 10, 100, 20  # minibatches, M, and draws of ε on each
SAMPLES = (1, 5)  # L
PARTS = {"encoder": "Gradient of the encoder", "decoder": "Gradient of the decoder", "bound": "The bound itself"}
Numbers = NDArray[np.float64]


def present(place: Path, out: Path) -> list[str]:
    """Measure the stages of the trained curve, and of its other seeds; draw and tabulate them."""
    curves = alike(CURVE, place)
    if not curves:
        return []
    each = [[row_of(model, c.train(), n, L) for n, model in stages(c, place) for L in SAMPLES] for c in curves]
    rows = each[0]
    out.mkdir(parents=True, exist_ok=True)
    write_table(out / "estimators.csv", rows)
    save(drawn(rows), out / "estimators")
    over_seeds = rounded(spread(each, ("samples", "L")))
    if over_seeds:
        write_table(out / "seeds.csv", over_seeds)
    return findings(rows) + [_over_seeds(row) for row in over_seeds if row["L"] == 1]


def stages(curve: Curve, place: Path) -> Iterator[tuple[int, Model]]:
    """(training samples seen, model): untrained, after `EARLY` samples by steps of `STEP`, and as the folder has it."""
    last, begun = trained(curve, place), curve.learner(STEP, EARLY)
    yield 0, _model(begun)
    seen = last.number * min(last.training_settings.batch, len(curve.train()))
    if seen > EARLY:
        for _ in continue_training(begun, curve.train()):
            pass
        yield EARLY, _model(begun)
    yield seen, _model(last)


def _model(learner: Learner) -> Model:
    learner.model.eval()
    return cast(Model, learner.model)


def row_of(model: Model, rows: Split, seen: int, samples: int) -> Row:
    """Variances over ε with L = `samples`, means over `BATCHES` minibatches with their standard errors.

    Per part: `A` and `B`, tr Cov_ε of the gradient (of the bound's value: its variance, nats²); `ratio`, A / B; and for
    gradients `minibatch`, the variance that the choice of the minibatch adds to B's.
    """
    a, b = (noises(model, ELBO(e, samples=samples), rows) for e in ("A", "B"))
    found = {"samples": float(seen), "L": float(samples)}
    between = minibatch_noise(b)
    for part in PARTS:
        of_a, of_b = (np.array([_variance(n, part) for n in each]) for each in (a, b))
        found |= _told(f"{part}_A", of_a) | _told(f"{part}_B", of_b) | ratio(part, of_a, of_b)
        if part in between:
            found |= _told(f"{part}_minibatch", between[part].numpy())
    return found


def noises(model: Model, objective: ELBO, rows: Split) -> list[GradientNoise]:
    """The noise on each of the same minibatches, by the same draws of ε whatever the estimator."""
    order = Order(len(rows), BATCH, seed=0)
    seeds = [derive(0, "noise", b) for b in range(BATCHES)]
    return [gradient_noise(model, objective, rows[order[b]], DRAWS, seed=seed) for b, seed in enumerate(seeds)]


def _variance(noise: GradientNoise, part: str) -> float:
    return noise.value if part == "bound" else noise.variance[part]


def _told(name: str, values: Numbers) -> Row:
    return {name: float(values.mean()), f"{name}_se": float(values.std(ddof=1) / len(values) ** 0.5)}


def ratio(part: str, a: Numbers, b: Numbers) -> Row:
    """mean(a) / mean(b) of paired numbers (n,), with its standard error by the delta method, sd(a - r b) / (√n
    mean(b))."""
    r = a.mean() / b.mean()
    se = (a - r * b).std(ddof=1) / len(a) ** 0.5 / b.mean()
    return {f"{part}_ratio": float(r), f"{part}_ratio_se": float(se)}


def findings(rows: list[Row]) -> list[str]:
    """One sentence for each stage at L = 1, and one on what more samples do."""
    said = [_finding(row) for row in rows if row["L"] == 1]
    last = [row for row in rows if row["samples"] == rows[-1]["samples"]]
    if len(last) > 1:
        fall = ", ".join(f"{part} {last[0][f'{part}_B'] / last[-1][f'{part}_B']:.2f}" for part in PARTS)
        said.append(f"L = {last[-1]['L']:.0f} instead of 1 divides B's variances at the last stage by: {fall}.")
    return said


def _finding(row: Row) -> str:
    e, bound = (f"{row[f'{p}_ratio']:.4g} ± {row[f'{p}_ratio_se']:.2g}" for p in ("encoder", "bound"))
    same = row["decoder_ratio"]
    share = ", ".join(f"{p} {share_of_noise(row, p):.1%}" for p in ("encoder", "decoder"))
    return (
        f"{stage(row['samples'])}: the variance of A's gradient over that of B's is {e} for the "
        f"encoder and {same:.4g} for "
        f"the decoder, whose gradient is the same function under both; the values of the bound have the ratio {bound}. "
        f"Of the variance of B's minibatch gradient, ε makes up: {share}; the choice of the minibatch, the rest."
    )


def _over_seeds(row: Row) -> str:
    e, bound = (f"{row[f'{p}_ratio']:.4g} ± {row[f'{p}_ratio_sd']:.2g}" for p in ("encoder", "bound"))
    where = f"{stage(row['samples'])}, {row['seeds']:.0f} seeds, mean ± standard deviation"
    return f"{where}: the ratio of the variances is {e} for the encoder's gradient and {bound} for the bound's values."


def share_of_noise(row: Row, part: str) -> float:
    """The part of the variance of B's minibatch gradient that is due to ε."""
    return row[f"{part}_B"] / (row[f"{part}_B"] + max(row[f"{part}_minibatch"], 0.0))


def stage(seen: float) -> str:
    return f"After {seen:,.0f} training samples" if seen else "Untrained"


@styled
def drawn(rows: list[Row]) -> Figure:
    """Bars on a logarithmic axis: A beside B for each stage, L = 1 and more, and a line for what the minibatch adds."""
    about = (
        f"M = {BATCH}, means over {BATCHES} minibatches; pale: L = {SAMPLES[-1]}; black lines: what the minibatch adds"
    )
    figure = chart(1250, 560, "Variance over ε of estimators A and B", about)
    for axes, part in zip(figure.subplots(1, len(PARTS)), PARTS, strict=True):
        _panel(axes, rows, part)
    figure.axes[0].set_ylabel("sum of the variances of the derivatives")
    figure.axes[-1].set_ylabel("nats²")
    return settle(figure)


def _panel(axes: Axes, rows: list[Row], part: str) -> None:
    seen = list(dict.fromkeys(row["samples"] for row in rows))
    for row in rows:
        many, at = row["L"] > 1, float(seen.index(row["samples"]))
        for k, estimator in enumerate("AB"):
            x, bar = at + 0.4 * k - 0.2 + (0.09 if many else -0.09), f"{part}_{estimator}"
            axes.bar(
                x, row[bar], 0.17, color=PALETTE[k], alpha=0.4 if many else 1.0, label=None if many or at else estimator
            )
            axes.errorbar(x, row[bar], row[f"{bar}_se"], color=GREY, linewidth=1)
        if not many and part != "bound":
            axes.hlines(row[f"{part}_minibatch"], at - 0.4, at + 0.4, color=INK, linewidth=1.6)
    axes.set_yscale("log")
    axes.set_title(PARTS[part])
    axes.set_xticks(range(len(seen)), [_short(s) for s in seen])
    axes.set_xlabel("training samples seen")
    axes.legend(loc="upper left")


def _short(seen: float) -> str:
    return f"{seen / 1e6:.3g} M" if seen >= 1e6 else f"{seen:,.0f}"


ESTIMATORS = Experiment(
    "estimators",
    "Variances of estimators A and B",
    "Estimator B has the KL in closed form, 'typically' with less variance than A (§2.3). On "
    "minibatches of 100 digits, the "
    "gradient of either was drawn many times with fresh ε, for the model of Figure 2 with 20 "
    "latents at three stages of its "
    "training (the one in between with Adagrad's step at 0.02). Both saw the same ε. "
    "Told is the variance summed over all parameters of a part, and that of the bound itself.",
    (CURVE,),
    present,
    (CURVE,),
)
