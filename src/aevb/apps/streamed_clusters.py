"""The clusters of long tables, some rows at a time: the numbers of the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aevb.apps import streaming
from aevb.apps.rows import Asked, Found
from aevb.data.columns import CODED, Column, Schema
from aevb.data.parts import ROWS, Parts
from aevb.data.room import room
from aevb.use.cards import TYPICAL, Card, Tallies, Write, dealt
from aevb.use.cluster import Clusters

if TYPE_CHECKING:
    from aevb.use.cluster import Grouping

LONG = 30 * 86_400  # seconds
NEW = "(not in training)"  # what the code behind all levels stands for


def clustered(asked: Asked, parts: Parts, by: Grouping, device: str) -> tuple[Clusters, list[Card]]:
    """The clusters of all rows, the largest first, and their cards. They have no typicalities and no centres."""
    done = ClusteredParts(asked, parts)
    for found in streaming.pieces(asked, parts):
        done.add(found, by.clusters(found.data(device)))
    order = np.argsort(-done.tallies.rows, kind="stable")
    return done.clusters(order, by), done.cards(order)


def words_of(schema: Schema) -> tuple[list[str], list[tuple[Any, ...]], list[Write | None]]:
    """The names of the modelled columns, the words of their codes, and how dates and times are written."""
    import pyarrow as pa

    from aevb.data.writing import TIMED, levels_as

    def levels(column: Column) -> tuple[Any, ...]:
        if column.kind not in CODED:
            return ()
        timed = column.dtype.startswith(TIMED)
        return (*(levels_as(column, pa.string()).to_pylist() if timed else column.levels), NEW)

    names = [column.name for column in schema.model]
    return names, [levels(column) for column in schema.model], [writer(column) for column in schema.model]


def writer(column: Column) -> Write | None:
    """How the numbers of a column are written, if they are dates or times: those of a long time by the day."""
    from aevb.data.dates import to_local, written, zone_of
    from aevb.data.writing import TIMED, of_time_as_text

    if column.kind == "datetime":
        form = "%Y-%m-%d" if (column.high or 0) - (column.low or 0) > LONG else "%Y-%m-%d %H:%M"
        zone = zone_of(column.dtype)

        def date(number: float) -> str:
            seconds = np.array([number])
            return str(written(to_local(seconds, zone) if zone else seconds, form)[0])

        return date
    if column.dtype.startswith(TIMED) and column.kind != "angle":
        whole = (column.high or 0) - (column.low or 0) > 60  # seconds
        return lambda number: str(of_time_as_text(column, np.array([round(number) if whole else number]))[0])
    return None


class ClusteredParts:
    """A long table whose parts are clustered one after another; p(c|x) is kept, in memory or on disk as `room` says.

    Attributes:
        p: p(c|x) of the rows so far, (N, C); tallies: of their columns.
        fit, typical: of each cluster the log p(z|c) of its most typical rows, and these.
    """

    def __init__(self, asked: Asked, parts: Parts) -> None:
        self.parts, self.schema = parts, asked.run.values(asked.data_dir).columns
        self.p: Any = None

    def begin(self, found: Clusters) -> None:
        """Make room, once the number of clusters is known."""
        count, dtype = found.p.shape[1], found.p.numpy().dtype
        self.p = room((self.parts.rows, count), dtype, self.parts.name, "the clusters of its rows")
        self.tallies = Tallies(count, len(self.schema.modelled), *words_of(self.schema))
        self.fit = [torch.empty(0, dtype=found.fit.dtype)] * count
        self.typical = [torch.empty(0, dtype=torch.int64)] * count

    def add(self, found: Found, clusters: Clusters) -> None:
        """Take the next rows, and their clusters."""
        if self.p is None:
            self.begin(clusters)
        start, split, which = found.names[0], found.split, clusters.assigned
        self.p[start : start + len(which)] = clusters.p.numpy()
        self.tallies.add(split.values.as_given(split.stored), which.numpy())
        for c in which.unique().tolist():
            self.keep(c, clusters.fit, (which == c).nonzero().flatten(), start)

    def keep(self, c: int, fit: Tensor, rows: Tensor, start: int) -> None:
        """Keep the most typical rows of a cluster, of those before and these."""
        fits = torch.cat([self.fit[c], fit[rows]])
        best = fits.argsort(descending=True, stable=True)[:TYPICAL]
        self.fit[c], self.typical[c] = fits[best], torch.cat([self.typical[c], rows + start])[best]

    def clusters(self, order: Any, by: Grouping) -> Clusters:
        """The clusters in this order."""
        for start in range(0, len(self.p), ROWS):
            part = slice(start, start + ROWS)
            self.p[part] = self.p[part][:, order]
        none = torch.empty(0)
        return Clusters(torch.from_numpy(self.p), none, none, by.scores, by.errors)

    def cards(self, order: Any) -> list[Card]:
        """The cards of clusters in this order."""
        sizes = self.tallies.rows[order].tolist()
        return dealt(sizes, [self.typical[c].tolist() for c in order], self.tallies.ordered(order))
