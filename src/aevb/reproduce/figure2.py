"""Figure 2: the bound against training samples, by AEVB and by wake-sleep, on MNIST and on Frey Face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from aevb.figures.style import GREY, PALETTE, chart, save, settle, styled
from aevb.reproduce import figure2_findings as findings
from aevb.reproduce import published
from aevb.reproduce.curves import STEPS, Curve, Followed, bounds, read_all, write_table
from aevb.reproduce.experiment import Experiment
from aevb.reproduce.figure2_findings import NAMES, Known

MNIST = (3, 5, 10, 20, 200)
FREY = (2, 5, 10, 20)
ALGORITHMS = ("AEVB", "WS")


def mnist(latents: int, algorithm: str = "AEVB", values: str = "grey") -> Curve:
    """A curve of the upper panels; `values`, which the paper leaves open: grey, threshold, dynamic."""
    recipe = {"AEVB": "aevb", "WS": "wake-sleep"}[algorithm]
    name = f"mnist-z{latents}-{algorithm.lower()}" + ("" if values == "grey" else f"-{values}")
    last = findings.slack if name.endswith("aevb") else None
    return Curve(name, recipe, "mnist", bounds, {"latent": latents}, values, last=last)


def plain(latents: int) -> Curve:
    """AEVB by the step size 0.02 whatever a pilot says, for 0.3 of the budget: beside an autoencoder."""
    curve = mnist(latents)
    return replace(curve, name=f"mnist-z{latents}-plain", steps=(0.02,), share=0.3, last=None)


def frey(latents: int, algorithm: str = "AEVB") -> Curve:
    """A curve of the lower panels."""
    objective = {} if algorithm == "AEVB" else {"objective": {"type": "wake-sleep"}}
    return Curve(f"frey-z{latents}-{algorithm.lower()}", "aevb-frey", "frey", bounds, {"latent": latents, **objective})


def _escape(name: str, steps: tuple[float, ...] = STEPS, **changes: Any) -> Curve:
    """Wake-sleep on Frey Face with ten latents and one thing changed."""
    curve = frey(10, "WS")
    return replace(curve, name=f"{curve.name}-{name}", changes={**curve.changes, **changes}, steps=steps)


PANELS: Mapping[str, dict[str, Curve]] = {
    **{f"MNIST Nz={d}": {a: mnist(d, a) for a in ALGORITHMS} for d in MNIST},
    **{f"Frey Nz={d}": {a: frey(d, a) for a in ALGORITHMS} for d in FREY},
}
BINARISED = {
    "grey levels": mnist(20),
    "static (threshold)": mnist(20, "AEVB", "threshold"),
    "dynamic": mnist(20, "AEVB", "dynamic"),
}
ESCAPES = {
    "smaller steps": _escape("small-steps", steps=(0.001,)),
    "ten dreams for each face": _escape("dreams", objective={"type": "wake-sleep", "dreams": 10}),
    "σ of the decoder at least 0.1": _escape("bounded", likelihood__least=0.1),
    "initialisation 0.1 instead of 0.01": _escape("init", encoder__init=0.1, decoder__init=0.1),
}


def key(panel: str) -> str:
    """A panel's word on the command line: "MNIST Nz=3" → "mnist-3"."""
    return panel.lower().replace(" nz=", "-")


def present(curves: Path, out: Path) -> list[str]:
    known = {panel: read_all(pair, curves) for panel, pair in PANELS.items()}
    known = {panel: pair for panel, pair in known.items() if pair}
    save(panels(known), out / "figure-2")
    table = [row for panel, pair in known.items() for row in findings.compared(panel, pair)]
    pixels = findings.binarised(read_all(BINARISED, curves))
    faces = {panel: pair["WS"] for panel, pair in known.items() if panel.startswith("Frey") and "WS" in pair}
    ends = findings.ends(faces | read_all(ESCAPES, curves)) if faces else []
    gaps = [row for panel, pair in known.items() if "AEVB" in pair for row in findings.slacks(panel, pair["AEVB"])]
    tables = {"table": table, "slack": gaps, "binarisation": pixels, "frey-wake-sleep": ends}
    for name, rows in tables.items():
        if rows:
            write_table(out / f"{name}.csv", rows)
    said = findings.above_paper(table) + findings.slackness(gaps) + findings.order(known) + findings.superfluous(known)
    said += findings.spreads(table)
    return said + findings.binarisation(pixels) + findings.collapse(ends) + findings.speed(known)


@styled
def panels(known: Known) -> Figure:
    """As in the paper, MNIST above and Frey Face below; ours strong, the paper's pale."""
    rows = [[p for p in known if p.startswith(data)] for data in ("MNIST", "Frey")]
    rows = [row for row in rows if row]
    columns = max(map(len, rows))
    caption = (
        f"Solid: test data, dashed: train data.\nStrong lines: this run, each on {findings.machines(known)}; "
        "thin lines: other seeds; pale, broad lines: the paper's."
    )
    figure = chart(
        max(420 * columns, 900), 430 * len(rows) + 60, "Figure 2: the bound L against training samples", caption
    )
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(h_pad=0.06)
    grid = figure.add_gridspec(len(rows), 1)
    for i, row in enumerate(rows):
        inner = grid[i].subgridspec(1, columns if len(rows) > 1 else len(row))
        for j, panel in enumerate(row):
            axes = figure.add_subplot(inner[j])
            _panel(axes, panel, known[panel])
            axes.set_ylabel("" if j else "nats per data point")
            axes.set_xlabel("training samples")
    fullest = max(reversed(figure.axes), key=lambda axes: len(axes.get_legend_handles_labels()[0]))
    fullest.legend(loc="lower right", fontsize=7.5)
    return settle(figure)


def _panel(axes: Axes, panel: str, pair: Mapping[str, Followed]) -> None:
    seen: list[float] = []
    for algorithm, colour in zip(ALGORITHMS, PALETTE, strict=False):
        for split, dash in (("test", "-"), ("train", "--")):
            theirs = published.curve("2", panel, algorithm, split)
            axes.plot(*theirs, color=colour, linestyle=dash, linewidth=2.6, alpha=0.25)
            if algorithm in pair:
                xs, ys = pair[algorithm].column(split)
                label = f"{NAMES[algorithm]}, {split}"
                axes.plot(
                    xs,
                    ys,
                    color=colour,
                    linestyle=dash,
                    linewidth=1.3,
                    label=label,
                    marker="o" if split == "test" else "",
                    markersize=2,
                )
                seen += ys
                for other in pair[algorithm].others:
                    axes.plot(*other.column(split), color=colour, linestyle=dash, linewidth=0.6, alpha=0.7)
    minutes = ", ".join(f"{NAMES[a]} {findings.minutes_per_million(f):.1f}" for a, f in pair.items())
    axes.text(
        0.02,
        0.97,
        f"minutes per million samples:\n{minutes}",
        transform=axes.transAxes,
        fontsize=7,
        va="top",
        color=GREY,
    )
    axes.set_title(panel.replace("Nz=", "with ") + " latents")
    axes.set_xscale("log")
    early = [0.8 * f.rows[-1]["samples"] for f in pair.values()]
    axes.set_xlim(min([1e4 if panel.startswith("Frey") else 3e4, *early]), 2e8)
    low, high = (-170, -90) if panel.startswith("MNIST") else (0, 1600)
    axes.set_ylim(low, max([high, *(1.02 * y for y in seen)]) if high > 0 else high)
    ends = {a: f.rows[-1]["test"] for a, f in pair.items() if f.rows[-1]["test"] < low}
    below = [f"{NAMES[a]} ends below, at {end:.0f}" for a, end in ends.items()]
    axes.text(0.98, 0.03, "\n".join(below), transform=axes.transAxes, fontsize=7, ha="right", color=GREY)


FIGURE2 = Experiment(
    "figure-2",
    "Figure 2: the bound against training samples",
    "AEVB against wake-sleep on the same networks: one hidden layer of 500 (MNIST) or 200 (Frey Face) tanh units, "
    "minibatches of 100, one sample of z, p(θ) = N(0, I) on the weights, Adagrad with the step "
    "from {0.01, 0.02, 0.1} whose "
    "train bound is the highest after 20,000 samples, or the next best where a training by that one diverges.",
    (*(c for pair in PANELS.values() for c in pair.values()), *BINARISED.values(), *ESCAPES.values()),
    present,
    tuple(c for pair in PANELS.values() for c in pair.values()),
)
