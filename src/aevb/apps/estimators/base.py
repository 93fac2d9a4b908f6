"""What the estimators share: they find the kinds of columns, train a model in memory, and read tables like the
first."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from aevb.apps.estimators.fitted import Fitted, Numbers, rows_of
from aevb.data.columns import Schema
from aevb.data.dataset import Dataset
from aevb.data.frames import stored
from aevb.data.kinds import look
from aevb.data.splits import permutation
from aevb.data.tables import Frame, frame_of
from aevb.data.text import refuse_twice
from aevb.data.weights import weights_in, with_weight
from aevb.errors import AevbWarning, DataError
from aevb.models.ladder import Ladder
from aevb.models.vae import VAE
from aevb.runs.begin import First
from aevb.runs.fit import Progress, Show
from aevb.runs.length import FEW
from aevb.runs.memory import fit_in_memory
from aevb.runs.recipe import Recipe

MOST_ROWS = 1_000_000  # that are trained on, drawn at random of more: twice what a training sees
MOST_HELD = 5_000  # rows that say when to stop
WATCHED = 200  # rows from which on a tenth of them says when to stop
SMALL = {"encoder__hidden": [64, 64], "decoder__hidden": [64, 64], "training__optimizer__lr": 5e-3}
MOST_LATENTS = 8


@dataclass(eq=False, repr=False)
class TableEstimator(BaseEstimator):  # type: ignore[misc]
    """One density of a table, fitted to its rows; the base of the estimators.

    A table is a frame of pandas, polars or Arrow, with columns of any type, or an array of numbers. Cells may be
    missing anywhere; see `missing`.

    Args:
        latent: D, how many latents; None: by the number of columns.
        columns: kinds of columns that should not be guessed, such as {"age": "count"}; the columns of an array are x0,
            x1, ... Kinds are those of `aevb.data.columns.KINDS`.
        hidden: sizes of the hidden layers of both networks; None: by the number of rows.
        recipe: another model, a `Recipe` or the name of one with a likelihood of columns; None: the recipe "table".
        samples: training samples to see in all; None: by the number of rows, see `aevb.runs.length.suited`.
        batch: rows of a minibatch; None: by the number of rows.
        learning_rate: of Adam; None: the recipe's.
        missing: "random": cells are missing at random, given the observed cells. "model": for columns that have holes
            in `fit`, whether a cell is missing is modelled too; then new rows have holes.
        warm_start: whether another `fit` begins with the weights of the last one, and with its columns and levels.
        importance_samples: K, draws from q(z|x) for log p(x) and for missing cells of each row.
        random_state: of the weights, the order of rows and all noise.
        verbose: whether to print where the training stands.
        device: where to train, such as "cuda".

    Attributes:
        schema_: the kind of each column, and why.
        model_, recipe_: the trained model, and its recipe.
        n_iter_: steps of the training.
        n_features_in_, feature_names_in_: as of scikit-learn.
    """

    latent: int | None = None
    _: KW_ONLY
    columns: Mapping[str, str] | None = None
    hidden: Sequence[int] | None = None
    recipe: Recipe | str | None = None
    samples: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    missing: str = "random"
    warm_start: bool = False
    importance_samples: int = 100
    random_state: Any = None
    verbose: int = 0
    device: str = "cpu"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.categorical = tags.input_tags.string = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "fitted_")

    def fit(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Find the kinds of the columns, and train a model of the rows.

        Args:
            X: the table, N rows.
            y: not read.
            sample_weight: (N,), how much each row counts in training and validation; rows of weight 0 are left out. The
                kinds and the scales of columns do not depend on the weights. A column may hold them instead, where
                `columns` say that it is of the kind "weight".

        Returns:
            The estimator.

        Raises:
            DataError: a column mixes types, or holds infinite numbers.
            RecipeError: no column can be modelled, or a parameter does not fit.
        """
        frame = self._frame(X, reset=True)
        weights = weights_in(frame, self.columns or {})
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        frame, chosen = with_weight(frame, weights)
        self._fit(frame, None if weights is None else weights[chosen])
        return self

    def _fit(self, frame: Frame, weights: Numbers | None) -> Numbers:
        """Train on the rows of a frame; the stored numbers of those that were used, in another order."""
        first: Fitted | None = getattr(self, "fitted_", None) if self.warm_start else None
        schema, seed, n = self._look(frame) if first is None else first.schema, self._seed(), len(frame)
        cut = self._held(n)
        held, rest, _ = np.split(permutation(n, seed), [cut, cut + MOST_ROWS])
        train, validation = (stored(schema, part_of(frame, rows))[0] for rows in (rest, held))
        pairs = ((train, rest), (validation, held), (train[:0], held[:0]))
        splits = [rows_of(schema, numbers, None if weights is None else weights[rows]) for numbers, rows in pairs]
        recipe = self._recipe(len(schema.modelled), len(rest), seed)
        trained = fit_in_memory(
            recipe if first is None else self._like(recipe, first.recipe),
            Dataset(frame.name, splits[0], splits[1], splits[2], "table"),
            device=self.device,
            show=self._show(),
            first=None if first is None else First(first.model, first.recipe, "the last fit"),
        )
        empty = replace(frame, table=frame.table.head(0)).native
        self.fitted_ = Fitted(trained.recipe, schema, trained.model, empty, seed)
        self.n_iter_ = trained.end.number
        return np.concatenate([train, validation])

    def _held(self, n: int) -> int:
        """How many of n rows say when to stop."""
        return min(n // 10, MOST_HELD) if n >= WATCHED else 0

    def _look(self, frame: Frame) -> Schema:
        """The kinds of the columns; numbers of an array are none of ids."""
        asked = dict(self.columns or {})
        schema = look(frame, asked)
        ids = [c.name for c in schema.columns if c.kind == "id" and c.name not in asked and self._of_array(frame)]
        return look(frame, asked | dict.fromkeys(ids, "real")) if ids else schema

    @staticmethod
    def _of_array(frame: Frame) -> bool:
        return isinstance(frame.native, np.ndarray)

    def _recipe(self, columns: int, n: int, seed: int) -> Recipe:
        """The recipe, with what the parameters say, and what follows of the number of columns and rows."""
        own: dict[str, Any] = {"training__seed": seed, "data__missing": self.missing}
        if self.recipe is None:
            own |= {"latent": self._latents(columns)} | self._suited(n)
        for keys, value in (
            (("latent",), self.latent),
            (("encoder__hidden", "decoder__hidden"), None if self.hidden is None else list(self.hidden)),
            (("training__samples",), self.samples),
            (("training__batch",), self.batch),
            (("training__optimizer__lr",), self.learning_rate),
        ):
            own |= {} if value is None else dict.fromkeys(keys, value)
        recipe = self.recipe if isinstance(self.recipe, Recipe) else Recipe.load(self.recipe or "table")
        return recipe.replace(**own)

    def _suited(self, n: int) -> dict[str, Any]:
        """What of the recipe "table" is otherwise for n training rows."""
        return SMALL if n < FEW else {}

    def _like(self, recipe: Recipe, last: Recipe) -> Recipe:
        """The recipe with what it leaves to the number of rows or to holes as it was in the last fit."""
        sizes = {} if self.hidden is not None else {key: last.settings[key] for key in ("encoder", "decoder")}
        return recipe.replace(likelihood=last.settings["likelihood"], **sizes)

    def _latents(self, columns: int) -> int:
        """D for a table with so many modelled columns."""
        return min(columns, MOST_LATENTS)

    def _show(self) -> Show | None:
        return Printed(type(self).__name__) if self.verbose else None

    def _frame(self, X: Any, reset: bool = False) -> Frame:
        """A table that was given, checked as scikit-learn does: names and number of columns.

        Raises:
            ValueError: it has other columns than in `fit`, or too few rows.
            DataError: a frame names two columns alike, or has a single row to fit.
        """
        if hasattr(X, "collect_schema") and hasattr(X, "collect"):  # polars, lazy
            X = X.collect()
        if hasattr(X, "columns") or hasattr(X, "column_names"):
            refuse_twice("the table", list(map(str, X.column_names if hasattr(X, "column_names") else X.columns)))
            validate_data(self, X, reset=reset, skip_check_array=True)
            frame = frame_of(X)
            if reset and len(frame) == 1:
                raise DataError(f"{frame.name} has one row, from which nothing can be learned. Give more rows.")
            return frame
        array = validate_data(self, X, reset=reset, ensure_all_finite="allow-nan", ensure_min_samples=1 + reset)
        return frame_of(array)

    def _numbers(self, X: Any) -> tuple[Frame, Numbers]:
        """A table like the one in `fit`, and its stored numbers (N, F)."""
        check_is_fitted(self)
        frame = self._frame(X)
        numbers, notes = self.fitted_.stored(frame)
        for words in notes:
            warnings.warn(words, AevbWarning, stacklevel=3)
        return frame, numbers

    def _seed(self) -> int:
        """A seed of the random state, another at each call where that is no number."""
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def score_samples(self, X: Any) -> Numbers:
        """log p(x) of each row as given, (N,), in nats, by importance sampling; of the observed cells.

        The higher, the more usual a row is. A row's score does not depend on the other rows.

        Args:
            X: a table with the columns of the one in `fit`.
        """
        numbers = self._numbers(X)[1]
        return self.fitted_.log_px(numbers, self.importance_samples)

    @property
    def schema_(self) -> Schema:
        return self.fitted_.schema

    @property
    def model_(self) -> VAE | Ladder:
        return self.fitted_.model

    @property
    def recipe_(self) -> Recipe:
        return self.fitted_.recipe


def part_of(frame: Frame, rows: NDArray[np.int64]) -> Frame:
    """Some rows of a table, by their numbers."""
    return replace(frame, table=frame.table[rows])


class Printed:
    """Prints where a training stands, once a second."""

    def __init__(self, name: str) -> None:
        self.name, self.last = name, -1.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self.last < 1 and progress.samples < progress.total:
            return
        self.last = now
        loss = progress.numbers.get("loss", float("nan"))
        print(
            f"[{self.name}] {progress.samples:,} of {progress.total:,} training samples, loss {loss:.4g} nats,"
            f" {progress.left:.0f} s left",
            flush=True,
        )
