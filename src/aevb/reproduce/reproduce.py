"""The driver of `aevb reproduce`: train what is missing, present each experiment in a folder of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from aevb.errors import AevbError, suggest
from aevb.reproduce.autoencoder import AUTOENCODER
from aevb.reproduce.curves import Curve, read_all, seeded
from aevb.reproduce.estimators import ESTIMATORS
from aevb.reproduce.experiment import Experiment
from aevb.reproduce.figure2 import FIGURE2, PANELS, key
from aevb.reproduce.figure3 import FIGURE3
from aevb.reproduce.full_bayes import FULL_BAYES
from aevb.reproduce.manifolds import FIGURE4, FIGURE5
from aevb.reproduce.tables import TABLES
from aevb.reproduce.workers import Show, follow_all
from aevb.runs.files import write_json
from aevb.runs.store import machine

EXPERIMENTS = {e.name: e for e in (AUTOENCODER, FIGURE2, FIGURE3, FIGURE4, FIGURE5, ESTIMATORS, FULL_BAYES)}


def chosen(names: Sequence[str]) -> list[Experiment]:
    """The experiments of these names: of the paper, of which "all" is all, and the tables of other papers.

    Raises:
        AevbError: there is none of that name.
    """
    for name in names:
        if name not in {*EXPERIMENTS, *TABLES, "all"}:
            possible = [*EXPERIMENTS, *TABLES, "paper", "tables", "all", "report"]
            raise AevbError(f"There is no experiment {name!r}.{suggest(name, possible)}")
    paper = [e for name, e in EXPERIMENTS.items() if name in names or "all" in names]
    return paper + [e for name, e in TABLES.items() if name in names]


def curves_of(experiments: Iterable[Experiment], panels: Sequence[str] = (), seeds: int = 1) -> list[Curve]:
    """All curves that experiments need, each once, then those of other seeds; of Figure 2 those of `panels` alone,
    where any are named.
    """
    known = {key(panel): list(pair.values()) for panel, pair in PANELS.items()}
    if panels and FIGURE2 not in experiments:
        raise AevbError("--panel is one of Figure 2, which is not asked for. Name figure-2 too, or leave --panel out.")
    for panel in panels:
        if panel not in known:
            raise AevbError(f"Figure 2 has no panel {panel!r}.{suggest(panel, known)}")
    wanted = [c for panel in panels for c in known[panel]]
    curves = [c for e in experiments for c in (wanted if panels and e is FIGURE2 else e.curves)]
    again = [c for e in experiments for c in (wanted if panels and e is FIGURE2 else e.seeded)]
    curves += [seeded(c, seed) for seed in range(1, seeds) for c in again]
    return list({c.name: c for c in curves}.values())


def reproduce(
    experiments: Sequence[Experiment],
    samples: int,
    out: Path,
    *,
    panels: Sequence[str] = (),
    seeds: int = 1,
    jobs: int | None = None,
    device: str = "cpu",
    show: Show | None = None,
) -> dict[str, list[str]]:
    """Follow the experiments' curves to `samples` training samples each, and present them; returns each one's findings.

    Curves are shared by the experiments, in out/curves, and resume where they stopped. A larger budget extends them.

    Args:
        panels: of Figure 2, only these: "mnist-3", "frey-10", ...
        seeds: of each curve, with a pilot of its own. Full variational Bayes and the tables always have three.
        jobs: curves at a time, one thread each; by default one per processor core.
        device: where they are trained, such as "cuda". Curves that a folder has already keep their own.
    """
    curves = out / "curves"
    if experiments:
        curves.mkdir(parents=True, exist_ok=True)
    wanted = [replace(curve, device=device) for curve in curves_of(experiments, panels, seeds)]
    follow_all(wanted, curves, samples, jobs or os.cpu_count() or 1, show)
    return {e.name: present(e, curves, out / e.name) for e in experiments}


def present(experiment: Experiment, curves: Path, out: Path) -> list[str]:
    """Write an experiment's figures and tables, its findings, and what must be known to get them again."""
    out.mkdir(parents=True, exist_ok=True)
    findings = experiment.present(curves, out)
    about = {"title": experiment.title, "about": experiment.about, "findings": findings, "presented on": machine()}
    write_json(out / "settings.json", {**about, "curves": settings(experiment.curves, curves)})
    return findings


def settings(curves: Iterable[Curve], place: Path) -> Mapping[str, Any]:
    """How each curve was trained: recipe and changes, step size and the pilot that chose it, samples, seconds,
    machine."""
    found = read_all({c.name: c for c in curves}, place)
    others = {f"{name}-s{seed}": f for name, own in found.items() for seed, f in enumerate(own.others, 1)}
    return {
        name: {**f.settings, "samples": int(f.rows[-1]["samples"]), "seconds": f.rows[-1]["seconds"]}
        for name, f in (found | others).items()
    }
