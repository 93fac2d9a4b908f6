"""Numbers by which the points of the map are coloured: class, split, cluster, log p(x), latents, columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from aevb.apps.explorer.points import FEW, PARTS, Kept, Points
from aevb.data.columns import CODED, Column, Schema
from aevb.errors import DataError
from aevb.use.score import score

SCORE_SAMPLES = 64  # importance samples of a colour
MOST_LATENTS, MOST_COLUMNS = 32, 200  # that are offered
CLUSTERED = 2000  # rows to which the clusters are fitted


class Looked(Protocol):
    """What colours ask of a session."""

    model: Any
    points: Points
    class_names: tuple[str, ...] | None
    lock: Any

    @property
    def size(self) -> int: ...
    @property
    def schema(self) -> Schema | None: ...


@dataclass(frozen=True)
class Colour:
    """One way to colour the points.

    Attributes:
        title: what to call it; kind: "classes" or "numbers"; names: of the classes.
        compute: numbers of some rows, (n,); step: rows at a time.
    """

    title: str
    kind: str
    compute: Callable[[slice], Tensor]
    step: int = 100_000
    names: list[str] = field(default_factory=list)


class Colours:
    """The colours of a session's points, computed when they are asked for."""

    def __init__(self, session: Looked) -> None:
        self.session = session
        self.all = dict(self._offered())
        self.kept: dict[str, Kept] = {}

    def offered(self) -> list[dict[str, Any]]:
        """For the page."""
        return [{"name": n, "title": c.title, "kind": c.kind, "names": c.names} for n, c in self.all.items()]

    def numbers(self, name: str, start: int) -> Tensor:
        """Of the points from `start` on, (n,), as many as are known.

        Raises:
            DataError: there is no such colour.
        """
        if start >= len(self.session.points):
            return torch.zeros(0)
        return self.of(name).more(start).float()

    def of(self, name: str) -> Kept:
        if name not in self.all:
            raise DataError(f"There is no such colour. Possible: {', '.join(list(self.all)[:6])}, ...")
        with self.session.lock:
            if name not in self.kept:
                colour = self.all[name]
                self.kept[name] = Kept(len(self.session.points), colour.step, colour.compute)
            return self.kept[name]

    def _offered(self) -> list[tuple[str, Colour]]:
        found = [*self._of_classes(), ("log_px", Colour("log p(x)", "numbers", self._log_px, FEW))]
        found.append(("cluster", Colour("Cluster", "classes", self._clusters)))
        rows = self.session.points.rows
        found.append(("part", Colour("Split", "classes", lambda part: rows.part[part], names=list(PARTS))))
        latents = range(min(self.session.size, MOST_LATENTS))
        found += [(f"latent:{i}", Colour(f"z{subscript(i + 1)}", "numbers", self._latent(i), 2000)) for i in latents]
        return found + self._of_columns()

    def _of_classes(self) -> list[tuple[str, Colour]]:
        labels = self.session.points.rows.split.labels
        if labels is None:
            return []
        names = self.session.class_names or [str(c) for c in range(int(labels.max()) + 1)]
        return [("label", Colour("Label", "classes", lambda part: labels[part], names=list(names)))]

    def _of_columns(self) -> list[tuple[str, Colour]]:
        schema = self.session.schema
        columns = () if schema is None else schema.model[:MOST_COLUMNS]
        return [(f"column:{d}", self._of_column(d, column)) for d, column in enumerate(columns)]

    def _of_column(self, d: int, column: Column) -> Colour:
        stored = self.session.points.rows.split.stored
        classes = column.kind in CODED
        return Colour(
            column.name,
            "classes" if classes else "numbers",
            lambda part: stored[part, d],
            names=[str(level) for level in column.levels] if classes else [],
        )

    def _latent(self, i: int) -> Callable[[slice], Tensor]:
        def numbers(part: slice) -> Tensor:
            return self.session.points.codes.more(part.start)[: part.stop - part.start, i]

        return numbers

    def _log_px(self, part: slice) -> Tensor:
        return score(self.session.model, self.session.points.data(part), SCORE_SAMPLES).log_px

    def _clusters(self, part: slice) -> Tensor:
        from aevb.use.cluster import cluster

        points = self.session.points
        known = points.data(slice(0, CLUSTERED))
        return cluster(self.session.model, points.data(part), train=known).assigned


def subscript(number: int) -> str:
    """A number in small digits: z₁."""
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
