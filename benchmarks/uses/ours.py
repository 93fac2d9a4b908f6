"""The library's estimators, as the protocols call them: with defaults, one setting for all data sets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

import aevb
from aevb.data.dataset import Dataset, Split
from aevb.data.values import Values
from aevb.runs.memory import fit_in_memory
from aevb.use.cluster import cluster
from benchmarks.uses.tables import Columns, Floats

HELD = 10_000  # images, of the 60,000, whose bound says which weights to keep
SEEN = 3_000_000  # images that a training sees: 60 passes
Rows = np.ndarray[Any, Any]  # (N, D) numbers, or (N, 28, 28) grey levels
estimators: Any = aevb


class Density(Protocol):
    """A fitted density of rows."""

    def score(self, rows: Rows, samples: int | None = None) -> Floats:
        """log p(x) of rows, in nats: (N,). `samples` is K, by default the library's own."""


class Embedding(Protocol):
    """A fitted encoder."""

    def transform(self, rows: Rows) -> Floats:
        """The means of q(z|x): (N, size)."""


class Clusters(Protocol):
    """A fitted mixture prior."""

    def predict(self, rows: Rows) -> Rows:
        """The most probable component of each row: (N,)."""


@dataclass(frozen=True)
class Fitted:
    """An estimator as the protocols ask it."""

    estimator: Any

    def score(self, rows: Rows, samples: int | None = None) -> Floats:
        if samples is not None:
            self.estimator.set_params(importance_samples=samples)
        logs: Floats = self.estimator.score_samples(rows)
        return logs

    def transform(self, rows: Rows) -> Floats:
        numbers: Floats = self.estimator.transform(rows)
        return numbers


def fit_detector(rows: Rows, seed: int, *, untrained: bool = False) -> Density:
    """The detector of outliers, on rows without labels; or the same network before its first step."""
    still = {"samples": 1, "learning_rate": 1e-12} if untrained else {}
    return Fitted(estimators.VAEOutlierDetector(random_state=seed, **still).fit(rows))


def fit_density(rows: Rows, seed: int, *, kind: str = "", likelihood: str = "") -> Density:
    """A density of rows without labels.

    Args:
        rows: Numbers in the data's own units.
        seed: Of the training.
        kind: What all columns are known to be; by default the library looks.
        likelihood: A family's word for all columns of counts; by default the library chooses.

    Returns:
        The fitted density.
    """
    make = estimators.VAEEmbedding if not likelihood else with_likelihood(likelihood)
    return Fitted(make(random_state=seed, columns=kinds_of(rows, kind)).fit(rows))


def kinds_of(rows: Rows, kind: str) -> dict[str, str] | None:
    """This kind for each column of an array; None where it is left to the library."""
    return {f"x{i}": kind for i in range(rows.shape[1])} if kind else None


def with_likelihood(word: str) -> Any:
    """The embedding whose columns of counts have the likelihood of this word."""

    class Asked(estimators.VAEEmbedding):  # type: ignore[misc]
        def _look(self, frame: Any) -> Any:
            schema = super()._look(frame)
            counts = (replace(c, likelihood=word) if c.kind == "count" else c for c in schema.columns)
            return replace(schema, columns=tuple(counts))

    return Asked


def impute(holes: Columns, draws: int, seed: int) -> tuple[Columns, list[Columns]]:
    """A table filled by a model that was fitted to it.

    Args:
        holes: Columns with NaN or None where a value is missing.
        draws: How many further completed tables to draw.
        seed: Of the training and the draws.

    Returns:
        The table with its best single values, and the completed tables that were drawn.
    """
    frame = frame_of(holes)
    model = estimators.VAEImputer(random_state=seed).fit(frame)
    best, drawn = model.transform(frame), model.transform_many(frame, draws)
    return columns_of(best, holes), [columns_of(one, holes) for one in drawn]


def synthesise(train: Columns, n: int, seed: int) -> Columns:
    """n new rows of a model that was fitted to these."""
    model = estimators.VAESynthesizer(random_state=seed).fit(frame_of(train))
    return columns_of(model.sample(n), train)


def fit_embedding(rows: Rows, size: int, seed: int, *, untrained: bool = False, kind: str = "") -> Embedding:
    """`size` numbers for each row, by the encoder of a model that was fitted to these rows; `kind` is of all columns,
    by default as the library finds it."""
    if rows.ndim > 2:
        return Images.fit("mnist", rows, seed, untrained=untrained, latent=size)
    still = {"samples": 1, "learning_rate": 1e-12} if untrained else {}
    return Fitted(estimators.VAEEmbedding(size, random_state=seed, columns=kinds_of(rows, kind), **still).fit(rows))


def fit_clusters(rows: Rows, number: int, seed: int, *, recipe: str = "mnist") -> Clusters:
    """Clusters of images: the components of a mixture prior, where the recipe has one, or of a mixture of codes.

    Args:
        rows: (N, 28, 28) grey levels.
        number: of components.
        seed: of the training.
        recipe: whose latents are ten.
    """
    own = {"prior__components": number} if recipe == "mixture-prior" else {}
    return Images.fit(recipe, rows, seed, latent=10, **own)


@dataclass(frozen=True)
class Images:
    """A recipe trained on images."""

    model: Any
    train: Rows
    number: int | None = None

    @classmethod
    def fit(cls, recipe: str, rows: Rows, seed: int, *, untrained: bool = False, **own: Any) -> Images:
        number = None if "prior__components" in own else 10
        seen = {"training__samples": 1, "training__optimizer__lr": 1e-12} if untrained else {"training__samples": SEEN}
        parts = rows[:-HELD], rows[-HELD:], rows[:0]
        splits = [Split(torch.tensor(part.reshape(-1, 1, 28, 28)), values=Values("dynamic")) for part in parts]
        data = Dataset("mnist", splits[0], splits[1], splits[2], recipe)
        chosen = aevb.Recipe.load(recipe).replace(training__seed=seed, data__values="dynamic", **seen, **own)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(fit_in_memory(chosen, data, device=device).model.cpu(), rows, number)

    def transform(self, rows: Rows) -> Floats:
        codes: Floats = aevb.encode(self.model, scaled(rows)).double().numpy()
        return codes

    def predict(self, rows: Rows) -> Rows:
        found: Any = cluster(self.model, scaled(rows), self.number, train=scaled(self.train[:-HELD]))
        clusters: Rows = found.assigned.numpy()
        return clusters


def scaled(rows: Rows) -> Any:
    """Grey levels in [0, 1], float32."""
    return torch.from_numpy(rows.reshape(-1, 1, 28, 28).astype(np.float32) / 255)


def frame_of(columns: Columns) -> Any:
    """An Arrow table; NaN is a missing value."""
    import pyarrow  # type: ignore[import-untyped]

    return pyarrow.table({name: pyarrow.array(values, from_pandas=True) for name, values in columns.items()})


def columns_of(frame: Any, like: Columns) -> Columns:
    """The columns of an Arrow table, with the types of those that the model was fitted to."""
    return {name: np.asarray(frame[name].to_pylist(), dtype=values.dtype) for name, values in like.items()}
