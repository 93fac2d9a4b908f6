"""Exposures of counts: "count:days" asks for a count over as many days as the column days says.

The mean of the count is in proportion to its exposure: of a row with exposure e it is e μ(z). The exposure itself is
given: the model reads it, and has no density of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from aevb.data.batch import name_rows
from aevb.data.cells import NUMBER, WORD, Array, Cells, cells_of
from aevb.data.columns import EXPOSURE, GIVEN, Column
from aevb.data.likelihoods import suited_count
from aevb.data.tables import Frame
from aevb.errors import DataError


def parted(columns: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The kinds that are asked for, those of exposures with them; and of each count that has one its exposure.

    Raises:
        DataError: a column that is no count has an exposure; or one is to be an exposure and of another kind.
    """
    kinds = {name: kind.partition(":")[0].strip() for name, kind in columns.items()}
    exposures = {name: kind.partition(":")[2].strip() for name, kind in columns.items() if ":" in kind}
    for name, exposure in exposures.items():
        if kinds[name] != "count":
            raise DataError(f"column {name!r}: only a count has an exposure. Write {name}=count:{exposure}.")
        if (other := kinds.setdefault(exposure, EXPOSURE)) != EXPOSURE:
            raise DataError(f"column {exposure!r} is the exposure of {name!r}, so it cannot be {other} as well.")
    return kinds, exposures


def linked(
    column: Column, exposures: Mapping[str, str], others: Sequence[Column], frame: Frame, rows: Array | None
) -> Column:
    """A count with its exposure, and the likelihood that suits it; an exposure with what it is one of.

    Args:
        exposures: of counts, by name; others: all columns; rows: those that give likelihoods.
    """
    if column.kind == EXPOSURE:
        return given(column, [c.name for c in others if c.modelled and exposures.get(c.name) == column.name])
    exposure = exposures.get(column.name, "")
    if not exposure or not column.modelled:
        return column
    x, e = (aligned(cells_of(frame, name).of(rows)) for name in (column.name, exposure))
    there = ~np.isnan(x)
    likelihood = suited_count(x[there], e[there]) if there.any() else column.likelihood
    return replace(column, exposure=exposure, why=f"asked for; over {exposure}", likelihood=likelihood)


def given(column: Column, counts: Sequence[str]) -> Column:
    """An exposure of these counts; one of none is not read."""
    used = f"the exposure of {', '.join(counts)}" if counts else "the exposure of no column that is modelled"
    return replace(column, why=used, likelihood=GIVEN if counts else "")


def aligned(cells: Cells) -> NDArray[np.float64]:
    """The numbers of all rows, (N,), NaN where there is none."""
    numbers = np.full(len(cells.seen), np.nan)
    each = [float(word) for word in cells.levels] if cells.form == WORD else []
    numbers[cells.seen] = np.array(each)[cells.numbers] if each else cells.floats
    return numbers


def refuse_unexposed(cells: Cells, where: str) -> None:
    """Raise DataError, which names the rows, where an exposure is missing or not above zero."""
    if cells.form != NUMBER:
        raise DataError(f"{where}: column {cells.name!r} holds no numbers, so it cannot be an exposure.")
    wrong = np.flatnonzero(~(aligned(cells) > 0))
    if len(wrong):
        rows = name_rows(torch.from_numpy(wrong))
        raise DataError(
            f"{where}: column {cells.name!r} has no exposure above zero in {rows}. Leave these rows out, or give one."
        )
