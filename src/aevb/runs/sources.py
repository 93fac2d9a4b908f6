"""Where the data of a run are: read again from their source, or kept in the run's folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.data.addresses import bare, is_address
from aevb.data.dataset import Dataset, Split
from aevb.data.sources import SOURCES, load_data
from aevb.data.values import Values
from aevb.errors import DataError
from aevb.runs.files import read_tensors, write_tensors
from aevb.runs.recipe import Recipe

KEPT = "data.safetensors"
SPLITS = ("train", "validation", "test")


def read(recipe: Recipe, data_dir: str | Path | None = None) -> Dataset:
    """The data that a recipe names.

    Args:
        data_dir: a folder that is searched for them, the file or folder itself if it has moved; else where the recipe
            says.

    Raises:
        DataError: they are not there, or cannot be read.
    """
    where = recipe.source()
    folder = data_dir or where.dir or None
    source = where.source if where.source in SOURCES else str(found(where.source, folder))
    at = None if folder is None or Path(folder).is_file() else folder
    return load_data(source, **_how(recipe), data_dir=at)


def _how(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says of how to read data, as arguments of `load_data`."""
    where = recipe.source()
    return {
        "seed": where.seed,
        **{name: getattr(where, name) or None for name in ("values", "axes", "size", "crop", "columns")},
    }


def given(recipe: Recipe, data: Any) -> tuple[Recipe, Dataset]:
    """Data of any form, read as the recipe says; and the recipe, with their source where they have one.

    Args:
        data: a `Dataset` as it is; else what `load_data` takes.
    """
    if isinstance(data, Dataset):
        return recipe, data
    if not isinstance(data, str | os.PathLike):
        return recipe, load_data(data, **_how(recipe))
    source = os.fspath(data)
    known = source in SOURCES or is_address(source)
    recipe = recipe.replace(data__source=source if known else str(Path(source).expanduser().resolve()))
    return recipe, read(recipe)


def found(source: str, data_dir: str | Path | None = None) -> Path | str:
    """Where a file or folder of data is: where it was, or in `data_dir` by its name, or `data_dir` itself.

    An address is given back as it is.
    """
    if is_address(source):
        return source
    own = Path(source).expanduser()
    if own.exists():
        return own
    for place in (data_dir, os.environ.get("AEVB_DATA")):
        if place and (path := _within(Path(place).expanduser(), own.name)):
            return path
    if own.is_absolute():
        raise DataError(
            f"there is no data set, file or folder {source!r}. If it has moved, say where it is: --data-dir FOLDER, or "
            "--data-dir FILE if the file has another name now."
        )
    return source  # perhaps a name that was misspelt: `load_data` says what there is


def _within(place: Path, name: str) -> Path | None:
    """The data of this name in a folder, or the place itself if it is a file, or has the name."""
    if (place / name).exists():
        return place / name
    return place if place.is_file() or (place.exists() and place.name == name) else None


def named(recipe: Recipe, data: Dataset) -> tuple[Recipe, bool]:
    """The recipe with the source of these data, and whether they must be kept beside it, as no source gives them.

    Where they are to be read again, the recipe has the seed of their shuffle.
    """
    source, published = Path(bare(recipe.source().source)), SOURCES.get(data.name)
    own = data.name in (source.stem, source.name, recipe.source().source) and recipe.source().source not in SOURCES
    if published and not own and data.counts != published.counts:  # a part of them, or other splits
        return recipe.replace(data__source=data.name), True
    if (own or data.name == recipe.source().source) and there(recipe):
        return _shuffled(recipe, data), False
    if published is None:
        return recipe.replace(data__source=data.name), True
    kind = data.train.values.kind
    usual = kind == published.values.kind
    values = {} if usual or recipe.source().values else {"data__values": kind}
    return _shuffled(recipe.replace(data__source=data.name, **values), data), False


def _shuffled(recipe: Recipe, data: Dataset) -> Recipe:
    return recipe if data.seed in (None, recipe.source().seed) else recipe.replace(data__seed=data.seed)


def there(recipe: Recipe) -> bool:
    """Whether the source that a recipe names can be read again: a known name, an address, or a file or folder that
    exists."""
    where = recipe.source()
    if where.source in SOURCES or is_address(where.source):
        return True
    try:
        return Path(found(where.source, where.dir or None)).exists()
    except DataError:
        return False


def keep(place: Path, data: Dataset) -> None:
    """Write data into the folder of a run."""
    splits: dict[str, Split] = {name: getattr(data, name) for name in SPLITS}
    tensors = {f"{name}.{part}": kept for name, split in splits.items() for part, kept in _tensors(split).items()}
    about: dict[str, Any] = {"name": data.name, "recipe": data.recipe, "class_names": data.class_names}
    files = {name: _names_of(split, "U") for name, split in splits.items()}
    about["files"] = {name: names.tolist() for name, names in files.items() if names is not None}
    about |= {name: split.values.to_dict() for name, split in splits.items()}
    write_tensors(place, tensors, {"data": json.dumps(about)})


def _tensors(split: Split) -> dict[str, Tensor]:
    """The rows of a split, its labels and weights, and the numbers of its rows where these name them."""
    numbers = _names_of(split, "i")
    names = None if numbers is None else torch.from_numpy(numbers.copy())
    parts = {"rows": split.stored, "labels": split.labels, "names": names, "weights": split.weights}
    return {name: part for name, part in parts.items() if part is not None}


def _names_of(split: Split, kind: str) -> NDArray[Any] | None:
    """The names of rows, where they are of this kind of NumPy's: «i», numbers, or «U», files."""
    return split.names if split.names is not None and split.names.dtype.kind == kind else None


def kept(place: Path) -> Dataset:
    """The data that `keep` wrote."""
    tensors, notes = read_tensors(place, finite=False)
    about = json.loads(notes["data"])
    train, validation, test = (
        Split(
            tensors[f"{name}.rows"],
            tensors.get(f"{name}.labels"),
            Values.from_dict(about[name]),
            _names(tensors.get(f"{name}.names"), about.get("files", {}).get(name)),
            tensors.get(f"{name}.weights"),
        )
        for name in SPLITS
    )
    names = None if about["class_names"] is None else tuple(about["class_names"])
    return Dataset(about["name"], train, validation, test, about["recipe"], names)


def _names(numbers: Tensor | None, files: list[str] | None) -> NDArray[Any] | None:
    """The names of rows: their numbers, or those of their files."""
    return np.array(files) if files is not None else None if numbers is None else numbers.numpy()
