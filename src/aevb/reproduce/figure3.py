"""Figure 3: the marginal likelihood against training samples, by AEVB, wake-sleep and Monte Carlo EM.

The paper does not say how it counts the samples of Monte Carlo EM. Here M are counted at each update of the weights,
and M = N: all chains move, then come five full-batch updates. With that, the paper's first points are met.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aevb.data.dataset import Split
from aevb.evidence.harmonic import ChainSettings, from_chain, log_marginal_hmc
from aevb.evidence.importance import log_marginal
from aevb.figures.style import PALETTE, chart, save, settle, styled
from aevb.objectives.monte_carlo_em import MonteCarloEM
from aevb.reproduce import published
from aevb.reproduce.curves import STEPS, Curve, Followed, Row, read, read_all, write_table
from aevb.reproduce.experiment import Experiment
from aevb.training.learner import Learner

POINTS = 1000  # of each split, the first ones, whose likelihood is measured
NETWORK = {"type": "mlp", "hidden": [100], "activation": "tanh", "init": 0.01}
RECIPES = {"AEVB": "aevb", "WS": "wake-sleep", "MCEM": "mcem"}
EM_PILOT = 200_000  # training samples: 200 full-batch updates, of which the first 100 are warm-up
EM_STEP = (
    0.1  # with N = 50,000, where a pilot of as many updates would see 10⁷ training samples: as chosen with N = 1,000
)


def log_px(learner: Learner, rows: Split, points: int) -> tuple[torch.Tensor, torch.Tensor]:
    """log p(x) of the first rows, (points,), by App. D and by importance sampling, which ask no encoder."""
    model, rows = learner.best_known, rows.take(points)
    paper = log_marginal_hmc(model, rows, 50, ChainSettings(4, thin=1, burn_in=30))
    importance = log_marginal(model, rows, 100, proposal=from_chain(model, draws=40, burn_in=20))
    return paper.log_px, importance.log_px


def marginals(learner: Learner, train: Split, test: Split) -> Row:
    """Means over the first 1,000 train and test points in nats, by App. D and by importance sampling, and their
    difference.

    Each `_se` is sd / √1000 over the points.
    """
    row: Row = {}
    for split, rows in (("train", train), ("test", test)):
        paper, importance = log_px(learner, rows, POINTS)
        for name, x in ((split, paper), (f"{split}_is", importance), (f"{split}_difference", paper - importance)):
            row |= {name: float(x.mean()), f"{name}_se": float(x.std() / len(x) ** 0.5)}
    if isinstance(learner.objective, MonteCarloEM):
        row["acceptance"] = float(learner.objective.acceptance)
    return row


def likelihood(learner: Learner, rows: Split, points: int = 250) -> float:
    """By importance sampling: what the step size is chosen by where no encoder is trained."""
    model, rows = learner.best_known, rows.take(points)
    return float(log_marginal(model, rows, 100, proposal=from_chain(model, draws=40, burn_in=20)).log_px.mean())


def curve(algorithm: str, n: int, **changes: Any) -> Curve:
    """The line of an algorithm with N = `n`."""
    network = {"latent": 3, "encoder": NETWORK, "decoder": NETWORK}
    return Curve(
        f"figure3-n{n}-{algorithm.lower()}",
        RECIPES[algorithm],
        "mnist",
        marginals,
        network | changes,
        rows=n,
        marks=(1.0, 2.0, 3.0, 5.0),
        first=100_000,
    )


def em(n: int, batch: int) -> Curve:
    """Monte Carlo EM: with the batch N each E-step moves all chains, and the M-steps are of all data."""
    found = curve("MCEM", n, training__batch=batch)
    return replace(found, pilot=EM_PILOT, score=likelihood, steps=(EM_STEP,) if n > 1000 else STEPS)


PANELS: Mapping[str, dict[str, Curve]] = {
    f"N={n}": {"AEVB": curve("AEVB", n), "WS": curve("WS", n), "MCEM": em(n, n)} for n in (1000, 50_000)
}
ONLINE = replace(em(50_000, 100), name="figure3-n50000-mcem-online")  # which the paper does not have
OTHER_STEPS = {"AEVB": (0.02, 0.01), "WS": (0.1, 0.01), "MCEM": (0.02,)}  # which the pilots did not choose
Known = Mapping[str, Mapping[str, Followed]]  # panel → algorithm → curve
NAMES = {"AEVB": "AEVB", "WS": "wake-sleep", "MCEM": "Monte Carlo EM", ONLINE.name: "Monte Carlo EM, online"}
SPLITS = {"train": "--", "test": "-"}


def with_step(algorithm: str, step: float) -> Curve:
    """A curve of N = 1,000 by another step size than a pilot's, in as far as the budget's seventh part: is that the
    gap?"""
    found = PANELS["N=1000"][algorithm]
    return replace(
        found, name=f"{found.name}-step{step}", steps=(step,), pilot=100, share=0.15, marks=(1.0, 3.0), first=1_000_000
    )


STEPPED = {(a, step): with_step(a, step) for a, steps in OTHER_STEPS.items() for step in steps}


def present(curves: Path, out: Path) -> list[str]:
    shown = {panel: trio | ({ONLINE.name: ONLINE} if panel == "N=50000" else {}) for panel, trio in PANELS.items()}
    known = {panel: read_all(lines, curves) for panel, lines in shown.items()}
    known = {panel: lines for panel, lines in known.items() if lines}
    table = [row for panel, lines in known.items() for a, line in lines.items() for row in compared(panel, a, line)]
    if not table:
        return []
    save(draw(known), out / "figure-3")
    write_table(out / "table.csv", table)
    estimators = [row for panel, lines in known.items() for a, line in lines.items() for row in both(panel, a, line)]
    write_table(out / "estimators.csv", estimators)
    others = by_step(known.get("N=1000", {}), {k: f for k, c in STEPPED.items() if (f := read(c, curves))})
    if others:
        write_table(out / "steps.csv", others)
    return [*standings(table), *beside_paper(table), *steps_matter(others), *agreement(estimators), *acceptances(known)]


def by_step(chosen: Mapping[str, Followed], others: Mapping[tuple[str, float], Followed]) -> list[dict[str, Any]]:
    """Ours and the paper's where the other step sizes were measured, for the chosen and the other ones."""
    lines = [(a, f.settings["step_size"], True, f) for a, f in chosen.items()]
    lines += [(a, step, False, f) for (a, step), f in others.items()]
    there = {row["samples"] for f in others.values() for row in f.rows}
    return [
        {
            "algorithm": row["algorithm"],
            "step": step,
            "chosen by the pilot": pilot,
            **{k: row[k] for k in list(row)[2:]},
        }
        for a, step, pilot, f in sorted(lines, key=lambda line: (list(NAMES).index(line[0]), -line[1]))
        for row in compared("N=1000", a, replace(f, others=[]))  # whose steps may be others
        if row["samples"] in there
    ]


def steps_matter(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ours less the paper's on test data, by step size, at the last mark of each algorithm that the paper has too."""
    known = [row for row in rows if row["split"] == "test" and "paper" in row]
    last = {a: max(row["samples"] for row in known if row["algorithm"] == a) for a in names(known)}
    ends = [row for row in known if row["samples"] == last[row["algorithm"]]]
    words = [f"{row['algorithm']} {row['step']}: {row['ours - paper']:+.1f} ({row['samples']:,})" for row in ends]
    return (
        [f"By the step size, N=1000, ours less the paper's on test data, in nats: {'; '.join(words)}."] if words else []
    )


def compared(panel: str, algorithm: str, line: Followed) -> list[dict[str, Any]]:
    """Ours by App. D and the paper's at each mark."""
    rows = []
    for split in SPLITS:
        for samples, ours in zip(*line.column(split), strict=True):
            paper = published.at("3", panel, algorithm, split, samples)
            known = {} if paper is None else {"paper": round(paper, 2), "ours - paper": round(ours - paper, 2)}
            place = {"panel": panel, "algorithm": NAMES[algorithm], "split": split, "samples": int(samples)}
            rows.append({**place, "ours": round(ours, 2), **known, **line.spread(split, samples)})
    return [row for row in rows if row["samples"]]


def both(panel: str, algorithm: str, line: Followed) -> list[dict[str, Any]]:
    """App. D against importance sampling, with the standard error of their difference over data points."""
    names = {"App. D": "", "importance": "_is", "difference": "_difference", "difference se": "_difference_se"}
    return [
        {"panel": panel, "algorithm": NAMES[algorithm], "split": split, "samples": int(row["samples"])}
        | {name: round(row[f"{split}{column}"], 3) for name, column in names.items()}
        for row in line.rows
        for split in SPLITS
    ]


def standings(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who is where on test data, at the last mark that all lines of a panel have."""
    said = []
    for panel in dict.fromkeys(row["panel"] for row in table):
        rows = [row for row in table if row["panel"] == panel]
        lines = {
            name: {r["samples"]: r for r in rows if r["algorithm"] == name and r["split"] == "test"}
            for name in names(rows)
        }
        marks = set.intersection(*(set(line) for line in lines.values()))
        if not marks:
            continue
        last = max(marks)
        order = sorted(lines, key=lambda name: -lines[name][last]["ours"])
        train = {r["algorithm"]: r["ours"] for r in rows if r["split"] == "train" and r["samples"] == last}
        words = ", ".join(f"{name} {lines[name][last]['ours']:.1f} (train {train[name]:.1f})" for name in order)
        said.append(f"{panel}, test log p(x) by App. D after {last:,} samples, best first: {words} nats.")
    return said


def names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["algorithm"] for row in rows))


def beside_paper(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ours less the paper's at the last mark of each line at which the paper has a value."""
    last = {(r["panel"], r["algorithm"], r["split"]): r for r in table if "paper" in r}
    words = [
        f"{panel} {name} {split} {r['ours - paper']:+.1f} ({r['samples']:,})"
        for (panel, name, split), r in last.items()
    ]
    return [f"Ours less the paper's, in nats at the last mark that both have: {'; '.join(words)}."] if words else []


def agreement(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How far the estimator of App. D is from importance sampling."""
    if not rows:
        return []
    worst = max(rows, key=lambda r: abs(r["difference"]))
    middle = sorted(abs(r["difference"]) for r in rows)[len(rows) // 2]
    return [
        f"App. D less importance sampling: {middle:.2f} nats in the median over all {len(rows)} measurements, at most "
        f"{worst['difference']:+.2f} ± {worst['difference se']:.2f} ({worst['panel']}, {worst['algorithm']}, "
        f"{worst['split']}, {worst['samples']:,} samples)."
    ]


def acceptances(known: Known) -> list[str]:
    """Of the chains of Monte Carlo EM at the last E-step, tuned for 90 %."""
    last = {
        f"{panel} {NAMES[a]}": line.column("acceptance")[1]
        for panel, lines in known.items()
        for a, line in lines.items()
    }
    words = [f"{name} {100 * values[-1]:.0f} %" for name, values in last.items() if values]
    return [f"Acceptance of the Markov chains, tuned for 90 %: {', '.join(words)}."] if words else []


@styled
def draw(known: Known) -> Figure:
    """As in the paper, N = 1,000 beside N = 50,000; ours strong, the paper's pale."""
    caption = (
        "Marginal log-likelihood of 1,000 data points by the estimator of App. D. Solid: test "
        "data, dashed: train data.\n"
        "Strong lines: this run; thin lines: other seeds; pale, broad lines: the paper's, read off its figure."
    )
    figure = chart(520 * max(len(known), 2), 560, "Figure 3: the marginal likelihood against training samples", caption)
    for i, panel in enumerate(known):
        axes = figure.add_subplot(1, len(known), i + 1)
        _panel(axes, panel, known[panel])
        axes.set_ylabel("" if i else "nats per data point")
    lines = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines) // 2, fontsize=7.5)
    return settle(figure)


def _panel(axes: Axes, panel: str, lines: Mapping[str, Followed]) -> None:
    left, low, high = (0.1, -160.0, -100.0) if panel == "N=1000" else (0.1, -175.0, -120.0)
    for (algorithm, name), colour in zip(NAMES.items(), PALETTE, strict=False):
        for split, dash in SPLITS.items():
            xs, ys = published.curve("3", panel, algorithm, split)
            axes.plot([x / 1e6 for x in xs], ys, color=colour, linestyle=dash, linewidth=2.6, alpha=0.25)
            if algorithm in lines:
                xs, ys = lines[algorithm].column(split)
                label, style = f"{name}, {split}", f"{dash}o"
                axes.plot([x / 1e6 for x in xs], ys, style, color=colour, linewidth=1.3, markersize=2, label=label)
                for other in lines[algorithm].others:
                    xs_other, ys_other = other.column(split)
                    axes.plot([x / 1e6 for x in xs_other], ys_other, dash, color=colour, linewidth=0.6, alpha=0.7)
                left, low = min([left, *(0.8 * x / 1e6 for x in xs[-1:])]), min([low, *(y - 5 for y in ys[-1:])])
    axes.set_title(f"N = {int(panel.removeprefix('N=')):,} training points")
    axes.set_xlabel("training samples in millions")
    axes.set_xscale("log")
    axes.set_xlim(left, 100)  # so that the end of a short run is seen
    axes.set_ylim(low, high)


FIGURE3 = Experiment(
    "figure-3",
    "Figure 3: the marginal likelihood against training samples",
    "AEVB, wake-sleep and Monte Carlo EM on MNIST with 3 latents and 100 hidden units, Adagrad for all three. AEVB and "
    "wake-sleep have minibatches of 100. Monte Carlo EM has no encoder: one HMC transition of 10 "
    "leapfrog steps for every "
    "data point, tuned for 90 % acceptance, then 5 updates of the weights by all data; N samples are counted at each, "
    "as the paper leaves it open. Its step size is chosen by log p(x) after 200 updates with N = "
    "1,000, and taken over for "
    "N = 50,000, where an online variant with minibatches of 100 is shown as well. log p(x) of "
    "the first 1,000 train and "
    "test points is estimated by App. D (50 draws, 4 leapfrog steps) and by importance sampling "
    "from a normal fitted to "
    "the draws of a chain. A part of N = 1,000 is trained by the other step sizes, too.",
    (*(c for lines in PANELS.values() for c in lines.values()), ONLINE, *STEPPED.values()),
    present,
    tuple(c for lines in PANELS.values() for c in lines.values()),
)
