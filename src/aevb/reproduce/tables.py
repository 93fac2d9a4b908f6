"""Published tables of other papers, rerun on a part of their schedules: IWAE, VampPrior, flows, DReG."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from aevb.data.dataset import Split
from aevb.evaluation.bound import elbo
from aevb.evaluation.latent import active_units
from aevb.evidence.importance import log_marginal
from aevb.figures.style import GREY, PALETTE, chart, save, settle, styled
from aevb.models.inference import Model
from aevb.models.vae import VAE
from aevb.reproduce.curves import Curve, Followed, Row, read, write_table
from aevb.reproduce.experiment import Experiment
from aevb.training.learner import Learner
from aevb.use.encode import encode

SEEDS = (0, 1, 2)
TRAIN = 50_000  # rows: an epoch
ON_THE_WAY, SOME = 100, 1000  # importance samples of the learning curve, and test points
MANY, MOST, EVERY = 500, 5000, 10  # importance samples of every test point, and of every tenth one
Line = dict[str, Any]  # of a table


@dataclass(frozen=True, eq=False)
class Entry:
    """A row of a table.

    Attributes:
        label: what is trained.
        key: of its curves, which tables may share.
        recipe, changes: how, as in `Recipe.replace`.
        epochs: of the published schedule.
        start: as in `Curve`.
        published: -log p(x) in nats, where a paper or its code gives it; and `where`.
    """

    label: str
    key: str
    recipe: str
    changes: Mapping[str, Any]
    epochs: int
    published: float | None = None
    where: str = ""
    start: Callable[[Any, Split], None] | None = None

    def curve(self, seed: int) -> Curve:
        changes, marks = {**self.changes, "training__seed": seed}, (1.0, 3.0)
        most: dict[str, Any] = {"steps": (), "marks": marks, "first": 100_000, "last": at_the_end, "start": self.start}
        return Curve(f"{self.key}-s{seed}", self.recipe, "mnist", on_the_way, changes, "dynamic", **most)


def on_the_way(learner: Learner, train: Split, test: Split) -> Row:
    """-log p(x) of the first 1,000 test points, bounded from above by 100 importance samples each."""
    return {"curve": -float(log_marginal(_model(learner), test.frozen().take(SOME), ON_THE_WAY).log_px.mean())}


def at_the_end(learner: Learner, train: Split, test: Split) -> Row:
    """-log p(x) of the test set, bounded by L_5000 (arXiv 1509.00519), -ELBO, and the active units.

    -L_5000 is the mean of -L_500 over all test points, less the mean of L_5000 - L_500 over every tenth of them: the
    same expectation as L_5000 of all of them, at a fifth of the work, and hardly more noise, since the difference
    varies little.
    """
    model, test = _model(learner), test.frozen()
    few = test[slice(0, None, EVERY)]
    bound, tighter = log_marginal(model, test, MANY).log_px, log_marginal(model, few, MOST, seed=1).log_px
    tightened = tighter - log_marginal(model, few, MANY, seed=2).log_px
    nll = _mean("nll", -bound)
    nll["nll"] -= float(tightened.mean())
    nll["nll_se"] = math.hypot(nll["nll_se"], float(tightened.std()) / math.sqrt(len(tightened)))
    active, _ = active_units(encode(model, test).flatten(1))
    return {**nll, **_mean("negative_elbo", -elbo(model, test).elbo), "active_units": active}


def _model(learner: Learner) -> Model:
    model: Any = learner.best_known
    return model  # type: ignore[no-any-return]


def _mean(name: str, values: Tensor) -> Row:
    return {name: float(values.mean()), f"{name}_se": float(values.std()) / math.sqrt(len(values))}


def experiment(name: str, title: str, about: str, entries: Sequence[Entry]) -> Experiment:
    """A table as an experiment: its curves, the first seed's first."""
    curves = tuple(entry.curve(seed) for seed in SEEDS for entry in entries)
    return Experiment(name, title, f"{about} {PROTOCOL}", curves, partial(present, name, title, entries))


def present(name: str, title: str, entries: Sequence[Entry], place: Path, out: Path) -> list[str]:
    """Draw and tabulate what is trained."""
    known = {e: found for e in entries if (found := [f for s in SEEDS if (f := read(e.curve(s), place))])}
    table = [line for entry, each in known.items() for line in lines(entry, each)]
    if not known:
        return []
    if table:
        write_table(out / "table.csv", table)
    way = [line for entry, each in known.items() for line in passed(entry, each)]
    write_table(out / "curves.csv", way)
    save(drawn(title, known), out / name)
    return findings(table) + on_their_way(way)


def passed(entry: Entry, each: Iterable[Followed]) -> Iterator[Line]:
    """The learning curve, from the first mark on: what `on_the_way` found, for each seed."""
    for seed, followed in zip(SEEDS, each, strict=False):
        for samples, nll in zip(*followed.column("curve"), strict=True):
            yield {"model": entry.label, "seed": seed, "samples": int(samples), "nll": round(nll, 2)}


def on_their_way(way: Sequence[Line]) -> list[str]:
    """The order where all were measured last, of the first seed."""
    first = [line for line in way if line["seed"] == SEEDS[0]]
    marks = [
        {line["samples"] for line in first if line["model"] == m}
        for m in dict.fromkeys(line["model"] for line in first)
    ]
    common = set.intersection(*marks)
    if not common or len(marks) < 2:
        return []
    alike = sorted((line for line in first if line["samples"] == max(common)), key=lambda line: float(line["nll"]))
    order = " < ".join(f"{line['model']} ({line['nll']:.2f})" for line in alike)
    about = f"-log p(x) of the first {SOME:,} test points by {ON_THE_WAY} importance samples after {max(common):,}"
    return [f"{about} training samples: {order}."]


def lines(entry: Entry, each: Iterable[Followed]) -> Iterator[Line]:
    """A line for every number of training samples at which seeds were measured to the end."""
    rows = [row for followed in each for row in followed.rows if "nll" in row]
    for samples in sorted({row["samples"] for row in rows}):
        there = [row for row in rows if row["samples"] == samples]
        yield {
            "model": entry.label,
            "samples": int(samples),
            "share of the published schedule": round(samples / (TRAIN * entry.epochs), 4),
            "published": entry.published,
            "published in": entry.where,
            **summary(there),
        }


def summary(there: Sequence[Row]) -> Line:
    """Means over seeds; the standard error over test points, and the standard deviation over seeds if there are
    several."""
    line: Line = {"seeds": len(there), "nll": round(mean(row["nll"] for row in there), 2)}
    line["nll_se_test_points"] = round(max(row["nll_se"] for row in there), 2)
    if len(there) > 1:
        line["nll_sd_seeds"] = round(stdev(row["nll"] for row in there), 2)
    line |= {"negative_elbo": round(mean(row["negative_elbo"] for row in there), 2)}
    line |= {"active_units": round(mean(row["active_units"] for row in there), 1)}
    return {**line, "minutes": round(mean(row["seconds"] for row in there) / 60, 1)}


def findings(table: Sequence[Line]) -> list[str]:
    """What each reached, and the order of all that were trained as far as each other."""
    said = [_reached(line) for line in table]
    for samples in sorted({line["samples"] for line in table}):
        alike = sorted((line for line in table if line["samples"] == samples), key=lambda line: float(line["nll"]))
        if len(alike) > 1:
            order = " < ".join(f"{line['model']} ({line['nll']:.2f})" for line in alike)
            said.append(f"-log p(x) after {samples:,} training samples: {order}.")
    return said


def _reached(line: Line) -> str:
    error = f"± {line['nll_se_test_points']:.2f} over test points"
    known = "nll_sd_seeds" in line
    error += f", sd {line['nll_sd_seeds']:.2f} over {line['seeds']} seeds" if known else ", one seed"
    paper = f"; published {line['published']:.2f} ({line['published in']})" if line["published"] else ""
    return (
        f"{line['model']}: -log p(x) {line['nll']:.2f} nats ({error}) after {line['samples']:,} samples, "
        f"{line['share of the published schedule']:.1%} of the published schedule, in "
        f"{line['minutes']:.0f} minutes; -ELBO "
        f"{line['negative_elbo']:.2f}, {line['active_units']:g} active units{paper}."
    )


@styled
def drawn(title: str, known: Mapping[Entry, Sequence[Followed]]) -> Figure:
    """-log p(x) of 1,000 test points against training samples: a line for each seed; the published values at the
    right."""
    caption = f"Upper bounds by {ON_THE_WAY} importance samples of {SOME:,} test points"
    caption += "; short bars: published, of all test points" if any(entry.published for entry in known) else ""
    figure = chart(1000, 620, title, caption)
    axes = figure.subplots()
    for k, (entry, each) in enumerate(known.items()):
        colour = PALETTE[k % len(PALETTE)]
        for i, followed in enumerate(each):
            xs, ys = followed.column("curve")
            axes.plot(xs, ys, color=colour, linewidth=1.3, marker="o", markersize=3, label=None if i else entry.label)
        if entry.published:
            axes.axhline(entry.published, 0.97, 1.0, color=colour, linewidth=2.5)
    axes.set_xscale("log")
    axes.set_xlabel("training samples")
    axes.set_ylabel("-log p(x), nats per data point")
    axes.grid(color=GREY, alpha=0.15)
    axes.legend()
    return settle(figure)


STAGES, EPOCHS = 8, 10  # of the schedule below


def stages(batch: int) -> dict[str, Any]:
    """IWAE's published step sizes, 10⁻³ · 10^(-i/7) in stage i = 0..7, for ten epochs each where the paper has 3ⁱ."""
    ends = [(i + 1) * EPOCHS * TRAIN // batch for i in range(STAGES - 1)]
    return {"type": "piecewise", "values": [10 ** (-i / 7) for i in range(STAGES)], "ends": ends}


IWAE_EPOCHS = sum(3**i for i in range(STAGES))
IWAE_PAPER = "arXiv 1509.00519"
RERUN = "a rerun by others, nbip/IWAE on GitHub"
IWAE_TRAINING = {"training__batch": 20, "training__learning_rate": stages(20)}


@torch.no_grad()
def at_the_mean(model: VAE, train: Split) -> None:
    """The biases of the last layer begin at the logits of the mean train image, as in the published code."""
    *_, last = (layer for layer in model.decoder.modules() if isinstance(layer, nn.Linear))
    last.bias.copy_(train[:].flatten(1).mean(0).clamp(0.001, 0.999).logit())


def iwae(layers: int, k: int, published: float) -> Entry:
    changes = {**IWAE_TRAINING, "objective": {"type": "importance-weighted", "samples": k}}
    label, recipe = f"{layers} layer{'s' if layers > 1 else ''}, k = {k}", {1: "iwae", 2: "iwae-2"}[layers]
    return Entry(label, f"iwae-{layers}-k{k}", recipe, changes, IWAE_EPOCHS, published, IWAE_PAPER, at_the_mean)


def against(k: int, plain: float, dreg: float) -> tuple[Entry, Entry]:
    """IWAE's own gradient, which is a row of IWAE's table too, and the doubly reparameterised one."""
    own = replace(iwae(1, k, plain), label=f"own gradient, k = {k}", where=RERUN)
    changes = {**own.changes, "objective": {**own.changes["objective"], "gradient": "dreg"}}
    return own, replace(own, label=f"DReG, k = {k}", key=f"dreg-1-k{k}", changes=changes, published=dreg)


WARM_UP = {"objective": {"type": "elbo", "beta": {"type": "linear", "start": 0.0, "end": 1.0, "steps": 5000}}}
GATED = {**WARM_UP, "training__optimizer": {"type": "adam", "lr": 5e-4}, "training__batch": 100, "latent": 40}
FLOW = {**WARM_UP, "latent": 40}
PROTOCOL = (
    "MNIST, 50,000 training images, binarised by a new draw each time; 10,000 test images, "
    "binarised by one draw. -log p(x) "
    "is bounded by L_5000, importance sampling with 5,000 samples (500 for nine points of ten, "
    "their difference to 5,000 "
    "estimated on the tenth)."
)
IWAE_TABLE = experiment(
    "iwae",
    "Importance weighted autoencoders (Burda et al. 2015, Table 1)",
    "Networks, batches of 20 and step sizes as published, 10⁻³ · 10^(-i/7) in stage i = 0..7, but "
    "ten epochs of each, which "
    "makes 4·10⁶ samples, where the paper has 3ⁱ epochs; the budget says how much of "
    "it is run. PyTorch's initialisation, "
    "but for the output's biases, which begin at the mean image as in the published code; Adam with its defaults.",
    [
        *(iwae(1, k, nll) for k, nll in ((1, 86.76), (5, 85.54), (50, 84.78))),
        *(iwae(2, k, nll) for k, nll in ((1, 85.33), (5, 83.89), (50, 82.90))),
    ],
)
DREG_TABLE = experiment(
    "dreg",
    "Doubly reparameterised gradients against IWAE's own (Tucker et al. 2018)",
    "The one-layer network of the table iwae, on its schedule; the two differ in the gradient of the encoder alone.",
    [*against(5, 85.18, 84.90), *against(50, 84.59, 84.32)],
)
VAMP_TABLE = experiment(
    "vamp-prior",
    "VampPrior against the standard normal (Tomczak & Welling 2018)",
    "Two gated layers of 300 units in encoder and decoder, 40 latents, 500 pseudo-inputs, "
    "batches of 100, Adam with 5·10⁻⁴, "
    "and the weight of the KL raised from 0 to 1 over the first ten epochs (the paper: 100 of up to 2,000).",
    [
        Entry("standard normal", "gated-standard", "gated", GATED, 2000),
        Entry("VampPrior", "gated-vamp", "gated", {**GATED, "prior": {"type": "vamp", "components": 500}}, 2000),
    ],
)
FLOW_TABLE = experiment(
    "flows",
    "Flow posteriors against a diagonal normal",
    "Of Rezende & Mohamed 2015 and Kingma et al. 2016. "
    "Two layers of 500 ReLUs in encoder and decoder, 40 latents, batches of 100, Adam with 10⁻³, "
    "and the weight of the KL "
    "raised from 0 to 1 over the first ten epochs. The papers' networks are others, so that only the order can be held "
    "against theirs; the share is that of 500,000 updates.",
    [
        Entry("diagonal normal", "flow-none", "bernoulli", FLOW, 1000),
        Entry("planar, 10 flows", "flow-planar", "planar-flow", FLOW, 1000),
        Entry("IAF, 4 flows", "flow-iaf", "iaf", FLOW, 1000),
    ],
)
TABLES = {e.name: e for e in (IWAE_TABLE, DREG_TABLE, VAMP_TABLE, FLOW_TABLE)}
