"""The map by UMAP, where the package umap-learn is installed: places of points, on no plane of the latent space."""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from aevb.apps.explorer.points import Kept, Points
from aevb.errors import DataError

NAME = "umap"  # of the view, and of the module
FITTED = 5000  # points of which the map is made; the others are placed among them
FEWEST, NEAR = 40, 15  # points that a map needs; neighbours of each


def offered(points: int, size: int) -> bool:
    """Whether so many points with so many latents can have this view here."""
    return size > 2 and points >= FEWEST and find_spec(NAME) is not None


def made() -> Any:
    """A map by UMAP, the same each time.

    Raises:
        DataError: the package is there, but is not what it should be.
    """
    try:
        return import_module(NAME).UMAP(n_components=2, n_neighbors=NEAR, random_state=0)
    except (ImportError, AttributeError) as error:
        raise DataError(f"UMAP cannot be loaded: {error}. Install it anew: pip install umap-learn") from error


class Curved:
    """Places (u, v) of all points by UMAP, some at a time, computed when they are first asked for."""

    def __init__(self, points: Points) -> None:
        self.points = points
        self.kept = Kept(len(points), FITTED, self._places)
        self.map: Any = None

    def places(self, start: int) -> Tensor:
        """Of the points from `start` on, (n, 2), as many as are known."""
        return self.kept.more(start) if start < len(self.points) else torch.zeros(0, 2)

    def _places(self, part: slice) -> Tensor:
        codes = self.points.codes.all()[part].double().numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a seed forbids threads
            if self.map is None:
                self.map = made()
                found = self.map.fit_transform(codes)
            else:
                found = self.map.transform(codes)
        return torch.as_tensor(found).float()
