"""A model of a table as an estimator keeps it: it is pickled as plain data, and never as a module."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from aevb.data.batch import MOST_NUMBERS
from aevb.data.columns import CODED, Schema
from aevb.data.dataset import Split
from aevb.data.frames import made, stored
from aevb.data.tables import Frame, frame_of
from aevb.data.values import Values
from aevb.models.inference import code_batches, inference
from aevb.models.ladder import Ladder
from aevb.models.vae import VAE
from aevb.runs.build import build_model
from aevb.runs.files import apart
from aevb.runs.recipe import Recipe
from aevb.use.encode import encode
from aevb.use.score import score

Numbers = NDArray[np.float64]
EXACT = 1_000_000  # numbers, cells times samples, that are encoded and scored in float64
ROWS = 2000  # encoded at a time: a row of a table is small


@dataclass(eq=False)
class Fitted:
    """A trained model, and what its numbers mean.

    Attributes:
        recipe: of the model; schema: of the table; model: in evaluation mode.
        like: a table of the user's form without rows.
        seed: of the noise of scores.
    """

    recipe: Recipe
    schema: Schema
    model: VAE | Ladder
    like: Any
    seed: int

    def __getstate__(self) -> dict[str, Any]:
        """Plain data: tables of text and numbers, and the weights as bytes of safetensors."""
        weights = apart(self.model.state_dict())
        recipe = {"name": self.recipe.name, **self.recipe.settings}
        plain = {"recipe": copy.deepcopy(recipe), "schema": self.schema.to_dict(), "weights": save(weights)}
        return plain | {"like": self.like, "seed": self.seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.recipe = Recipe(state["recipe"]["name"], state["recipe"])
        self.schema = Schema.from_dict(state["schema"])
        self.like, self.seed = state["like"], state["seed"]
        self.model = build_model(self.recipe, (len(self.schema.modelled),))
        self.model.load_state_dict(load(state["weights"]))
        self.model.eval()

    @cached_property
    def frame(self) -> Frame:
        """The table without rows, which has the types of the user's."""
        return frame_of(self.like)

    def stored(self, frame: Frame) -> tuple[Numbers, list[str]]:
        """The stored numbers (N, F) of a table, and what is to be said of it; holes are expected anywhere."""
        open_ = Schema(tuple(replace(column, holes=1) for column in self.schema.columns))
        return stored(open_, frame)

    def split(self, numbers: Numbers) -> Split:
        """Stored numbers (N, F) as rows that a model reads."""
        return rows_of(self.schema, numbers)

    def exact(self) -> VAE | Ladder:
        """The model in float64, in which a row's result does not depend on the rows beside it, to 10⁻¹⁰."""
        return copy.deepcopy(self.model).double()

    def fitting(self, numbers: int) -> VAE | Ladder:
        """The model for so many numbers: `exact` where they are few, and else, twice as fast, in float32."""
        return self.exact() if numbers <= EXACT else self.model

    def codes(self, numbers: Numbers) -> Numbers:
        """E_q[z|x], (N, D); in float64 where they are few."""
        rows = max(1, min(ROWS, MOST_NUMBERS // max(1, numbers.shape[1])))
        found = encode(self.fitting(numbers.size), self.split(numbers), rows).double().numpy()
        return found.reshape(len(found), -1)

    def log_px(self, numbers: Numbers, samples: int) -> Numbers:
        """log p of the rows as given, of the cells that are there, (N,), in nats; in float64 where they are few."""
        model = self.fitting(numbers.size * samples)
        found: Numbers = score(model, self.split(numbers), samples, seed=self.seed).log_px.numpy()
        return found

    def decoded(self, z: Numbers) -> Numbers:
        """The stored numbers (N, F) that the codes (N, D) stand for: means, and of levels the most probable."""
        model = self.exact()
        codes = torch.from_numpy(np.array(z, np.float64)).reshape(-1, *model.latent_shape)
        with inference(model, self.seed):
            parts = [self.best(model.decode(part)).cpu() for part, _ in code_batches(model, codes)]
        return self.schema.inverse(torch.cat(parts)).numpy()

    def best(self, p: Any) -> Tensor:
        """The best guess of each cell (*, F) of a distribution of rows."""
        coded = torch.tensor([column.kind in CODED for column in self.schema.model])
        mean: Tensor = p.mean
        return torch.where(coded.to(mean.device), p.mode, mean)

    def table(self, numbers: Numbers) -> Any:
        """A new table of stored numbers (N, F), in the form and the types of the user's."""
        return made(self.schema, numbers, self.frame).native


def rows_of(schema: Schema, numbers: Numbers, weights: Numbers | None = None) -> Split:
    """Stored numbers (N, F) as rows that a model reads, with weights (N,)."""
    w = None if weights is None else torch.from_numpy(np.ascontiguousarray(weights, np.float64))
    return Split(torch.from_numpy(np.ascontiguousarray(numbers)), values=Values("columns", schema=schema), weights=w)
