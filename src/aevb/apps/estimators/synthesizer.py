"""New rows like those of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.utils.validation import check_is_fitted

from aevb.apps.estimators.base import TableEstimator
from aevb.data.cells import cells_of
from aevb.data.columns import Column, Schema
from aevb.data.frames import numbers_in
from aevb.data.tables import frame_of
from aevb.errors import DataError, suggest
from aevb.use.generate import generate
from aevb.use.given import Range, sample_given


class VAESynthesizer(TableEstimator):
    """Draws new rows like those of a table.

        model = aevb.VAESynthesizer(random_state=0).fit(table)
        new = model.sample(1000, given={"sex": "female", "age": (30, 40)})

    Columns, types and levels are those of the table in `fit`; an id is a running number, and free text is missing.
    Parameters and attributes are those of `TableEstimator`.
    """

    def sample(self, n: int = 1, given: Mapping[str, Any] | None = None) -> Any:
        """n new rows, in the form of the table in `fit`.

        Args:
            n: how many.
            given: what holds in all new rows: a value of a column, or a range (low, high) with both ends, of which None
                is no end. The columns of an array are x0, x1, ...

        Raises:
            DataError: there is no such column, it is not modelled, or cannot have such a value.
        """
        check_is_fitted(self)
        model, schema, seed = self.fitted_.model, self.fitted_.schema, self._seed()
        if not given:
            return self.fitted_.table(schema.inverse(generate(model, n, seed=seed, draw=True)).numpy())
        asked = {name: stored_value(schema, name, value) for name, value in given.items()}
        return self.fitted_.table(sample_given(model, n, asked, schema=schema, seed=seed).numpy())


def stored_value(schema: Schema, name: str, value: Any) -> float | Range:
    """A value, or a range, of a column as stored numbers.  DataError where the column cannot have it."""
    columns = {column.name: column for column in schema.model}
    if name not in columns:
        raise DataError(f"given: the model has no column {name!r}.{suggest(str(name), columns)}")
    if not isinstance(value, tuple):
        return _stored(columns[name], value)
    low, high = (None if end is None else _stored(columns[name], end) for end in value)
    return low, high


def _stored(column: Column, value: Any) -> float:
    cells = cells_of(frame_of({column.name: [value]}), column.name)
    numbers, said = numbers_in(column, cells, "given")
    if said or len(numbers) != 1:
        known = suggest(str(value), map(str, column.levels)) if column.levels else ""
        raise DataError(f"given: column {column.name!r} has no value {value!r}.{known}")
    return float(numbers[0])
