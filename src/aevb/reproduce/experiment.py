"""What one experiment of the paper is: curves to train, and how to present them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aevb.reproduce.curves import Curve


@dataclass(frozen=True)
class Experiment:
    """A figure, a table, a claim.

    Attributes:
        name: the word on the command line, and its folder.
        title: over its figure and its section of the report.
        about: what is done and measured, in a few sentences; for the report.
        curves: what must be trained.
        present: (folder of the curves, the experiment's own folder) → findings, sentences with the numbers reached.
            It writes the experiment's figures (NAME.png, NAME.svg) and tables (NAME.csv); what is not trained is left
            out.
        seeded: the curves that other seeds train too, where they are asked for.
    """

    name: str
    title: str
    about: str
    curves: tuple[Curve, ...]
    present: Callable[[Path, Path], list[str]]
    seeded: tuple[Curve, ...] = ()
