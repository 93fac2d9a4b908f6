"""A run that is looked at: its model in evaluation mode, its points, and what the page asks of them.

Nothing here changes the model or the process's random numbers: everything goes through `use/`, whose functions restore
both, and wait for each other where threads would meet.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from aevb.apps.explorer.colours import Colours
from aevb.apps.explorer.curved import NAME, Curved, offered
from aevb.apps.explorer.points import Points, Rows
from aevb.data.columns import Schema
from aevb.data.dataset import Dataset
from aevb.data.values import Values
from aevb.errors import DataError, ShapeError
from aevb.models.inference import inference
from aevb.runs.build import latent_shapes
from aevb.runs.store import Run
from aevb.use.interpolate import route
from aevb.use.layers import following
from aevb.use.plane import Plane, coordinates, principal
from aevb.use.reconstruct import decode

MOST = 100_000  # points
FIRST = 2000  # codes of which the principal components are taken
KL_ROWS = 300  # rows of which the mean KL of each latent is taken


@dataclass(frozen=True)
class Layer:
    """Where a layer's latents are in z."""

    name: str
    start: int
    size: int

    @property
    def numbers(self) -> range:
        return range(self.start, self.start + self.size)


class Session:
    """One run, as the page sees it.

    Args:
        run: a run whose weights are there.
        data: those that it was trained on.
        most: points of the map, at most.
    """

    def __init__(self, run: Run, data: Dataset, model: Any = None, most: int = MOST) -> None:
        self.run, self.name = run, run.path.name
        self.model = run.model() if model is None else model
        self.values: Values = data.train.values
        self.shape = tuple(run.meta["shape"])
        self.class_names = data.class_names
        self.context = run.recipe.context()
        self.classes = run.classes()
        self.points = Points(self.model, Rows(data, most), self.context)
        self.layers = layers_of(run)
        self.lock = threading.RLock()
        self.planes: dict[str, Plane] = {}
        self.curved = Curved(self.points)
        self.colours = Colours(self)
        self.can: dict[str, bool] = {}  # what else the page may ask, such as "compare", "live"

    @property
    def size(self) -> int:
        """D."""
        return int(self.model.latent_shape.numel())

    @property
    def schema(self) -> Schema | None:
        return self.values.schema

    @property
    def kind(self) -> str:
        """What a data point is on the page: "image", "table" or "vector"."""
        if self.schema is not None:
            return "table"
        sides = self.shape[-2:]
        return "image" if len(self.shape) in (2, 3) and min(sides) > 1 else "vector"

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The numbers of black and of white; of vectors the ends of the bars."""
        if self.values.support != "real":
            return 0.0, 1.0
        x = self.points.some(slice(0, 200))[torch.arange(min(200, len(self.points)))]
        low, high = (float(x.quantile(q)) for q in (0.01, 0.99)) if x.numel() < 2**24 else (float(x.min()), 3.0)
        return (low, high if high > low else low + 1) if self.kind == "image" else (-max(abs(low), abs(high)), high)

    # Planes

    def view_names(self) -> list[str]:
        """The views of the map, the one that is opened first at the front."""
        if self.size == 1:
            return ["0,0"]
        curved = [NAME] if offered(len(self.points), self.size) else []
        if len(self.layers) > 1:
            return [*(f"layer:{i}" for i, layer in enumerate(self.layers) if layer.size > 1), *curved, "0,1"]
        return ["0,1"] if self.size == 2 else ["pca", *curved, "0,1"]

    def plane(self, view: str) -> Plane:
        """The plane of a view: "pca", "layer:1", or two numbers of z such as "0,1". "umap" has that of "pca".

        Raises:
            DataError: there is no such view.
        """
        with self.lock:
            if view not in self.planes:
                self.planes[view] = self._plane(view)
            return self.planes[view]

    def _plane(self, view: str) -> Plane:
        kind, _, number = view.partition(":")
        try:
            if view in ("pca", NAME):
                return principal(self.points.codes.more(0)[:FIRST])
            if kind == "layer":
                return principal(self.points.codes.more(0)[:FIRST], self.layers[whole(number)].numbers)
            first, second = map(whole, view.split(","))
            return coordinates(self.size, first, second)
        except (ValueError, IndexError) as error:
            known = ", ".join(self.view_names())
            words = str(error) if isinstance(error, ShapeError) else f"There is no such view. Possible: {known}."
            raise DataError(words) from error

    def places(self, view: str, start: int) -> Tensor:
        """(u, v) of the points from `start` on in a view, (n, 2), as many as are known.

        Raises:
            DataError: there is no such view.
        """
        if view == NAME and NAME in self.view_names():
            return self.curved.places(start)
        return self.points.places(self.plane(view), start)

    # Codes

    def codes(self, z: Sequence[Sequence[float]]) -> Tensor:
        """Codes (N, D), float32.

        Raises:
            DataError: they have another size than the model's.
        """
        wrong = next((row for row in z if len(row) != self.size), None)
        if wrong is not None:
            raise DataError(f"A code z of this model has {self.size} numbers; got {len(wrong)}.")
        return torch.tensor(z, dtype=torch.float32)

    def conditions(self, y: int | None) -> Tensor | None:
        """The class as a condition, (1, C); None of a model without classes.

        Raises:
            DataError: there is no such class.
        """
        if not self.classes:
            return None
        chosen = next(iter(self.classes)) if y is None else y
        if chosen not in self.classes:
            raise DataError(f"There is no class {chosen}. Possible: {', '.join(map(str, self.classes))}.")
        return self.context.each(1, [chosen])

    def followed(self, z: Tensor, layer: int, y: Tensor | None) -> Tensor:
        """Codes with the layers below one at what they are likely to be, given those above."""
        if not 0 <= layer < len(self.layers):
            raise DataError(f"There is no layer {layer}: the layers are 0 to {len(self.layers) - 1}.")
        return following(self.model, z, layer, y) if layer else z

    def decoded(self, z: Tensor, y: int | None, layer: int = 0) -> Tensor:
        """The means of p(x|z), (N, *X), in the model's numbers."""
        condition = self.conditions(y)
        return decode(self.model, self.followed(z, layer, condition), condition)

    def sample(self, temperature: float, y: int | None, seed: int, n: int = 1) -> Tensor:
        """n codes z ~ p(z), (n, D), towards the prior's mean by a temperature below 1, away from it above."""
        with inference(self.model, seed):
            draws = self.model.sample_latent(200, self.conditions(y)).flatten(1).cpu()
        centre = draws.mean(0) if temperature != 1 else torch.zeros(self.size)
        return centre + temperature * (draws[:n] - centre)

    def walk(self, z: Tensor, steps: int, spherical: bool) -> Tensor:
        return route(z, steps, spherical=spherical)


def layers_of(run: Run) -> list[Layer]:
    sizes = [shape.numel() for shape in latent_shapes(run.recipe, run.meta["shape"])]
    if len(sizes) == 1:
        return [Layer("z", 0, sizes[0])]
    return [Layer(f"z{i + 1}", sum(sizes[:i]), size) for i, size in enumerate(sizes)]


def whole(text: str) -> int:
    """A whole number from 0 of at most four digits.  ValueError of other text."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 4):
        raise ValueError(text)
    return int(text)


def plain(value: Any) -> Any:
    """Numbers for strict JSON: NaN and infinity become null; tensors become lists."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def strict(table: dict[str, Any]) -> dict[str, Any]:
    """A table for strict JSON, as of `plain`."""
    return {key: plain(part) for key, part in table.items()}
