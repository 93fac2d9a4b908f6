"""A recipe is data: which parts, which numbers. TOML on disk, a nested dictionary in memory."""

from __future__ import annotations

import ast
import copy
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from aevb.data.dataset import Dataset, Split, Streamed, placed
from aevb.data.labels import Pairs, hide_labels, one_hot
from aevb.errors import DataError, RecipeError, nearest, suggest
from aevb.parts import DECODER, ENCODER, LADDER, OBJECTIVE, find
from aevb.runs.columns import masked_of, parts_of
from aevb.runs.length import suited
from aevb.runs.parts import AXES, construct
from aevb.runs.plain import type_of
from aevb.runs.ranges import shown
from aevb.training.events import Monitor
from aevb.training.learner import Training

TABLES = ("context", "ladder", "prior", "posterior", "likelihood", "encoder", "decoder", "objective", "training")
MISSING = ("random", "model")
UNWATCHED = {word for word, make in AXES[OBJECTIVE].items() if hasattr(make, "start")}  # no bound on validation data
DEFAULTS: dict[str, Any] = {
    "title": "",
    "paper": "",
    "latent": 20,
    "data": {"source": "digits", "values": "", "axes": "", "size": 0, "crop": "", "seed": 0, "dir": ""},
    "prior": {"type": "standard-normal"},
    "posterior": {"type": "normal"},
    "objective": {"type": "elbo"},
    "chain": [],
    "terms": [],
    "training": {},
    "validation": {},
    "evaluation": {},
}


@dataclass(frozen=True)
class Source:
    """Which data, and how: the arguments of `load_data`; empty values mean its defaults.

    Attributes:
        source: a name, or a path to a table, an array, or a folder or .zip of images.
        values: what the stored numbers mean: dynamic, threshold, grey, levels, standardized or raw.
        axes: where the channels of an array of images are: "first", "last" or "none".
        size, crop: of pictures the side in pixels, and "centre" or "stretch" to make them square; 0, "": neither.
        seed: of the split into train, validation and test, where the data have none.
        dir: a folder with data files, searched first.
        columns: of a table, the kinds of columns by name, such as {age = "count"}.
        missing: of a table, "random": holes are missing at random; or "model": a Bernoulli for each column that has
            holes in training says where they are.
    """

    source: str = "digits"
    values: str = ""
    axes: str = ""
    size: int = 0
    crop: str = ""
    seed: int = 0
    dir: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    missing: str = "random"

    def __post_init__(self) -> None:
        if self.missing not in MISSING:
            raise ValueError(f"missing must be {' or '.join(map(repr, MISSING))}; got {self.missing!r}.")


def refuse_unlabeled() -> NoReturn:
    raise DataError("The recipe conditions on labels (context.classes), but the data have none. Use another recipe.")


@dataclass(frozen=True)
class Context:
    """What the model is conditioned on: the labels, one-hot.

    Attributes:
        classes: how many there are, labels 0 to classes - 1; 0: as many as the data have (see `Recipe.of`), where the
            recipe has a table [context] with anything in it.
        labels: how many labels of each class the training sees, for an objective that needs no more (m2); 0: all.
    """

    classes: int = 0
    labels: int = 0

    def __post_init__(self) -> None:
        _at_least(self, classes=0, labels=0)

    def rows(self, split: Split, device: torch.device | str, visible: Tensor | None = None) -> Split | Streamed | Pairs:
        """A split on a device, with its labels as contexts (those of `visible`, if given) where the model has contexts.

        Raises:
            DataError: the data have no labels, or others than these.
        """
        rows, labels = placed(split, device), split.labels if visible is None else visible
        if not self.classes:
            return rows
        if labels is None:
            refuse_unlabeled()
        return Pairs(rows, one_hot(labels, self.classes).to(device))

    def given(self, split: Split) -> Tensor | None:
        """The labels of a split as contexts (N, classes), where the model has contexts."""
        return None if split.labels is None or not self.classes else one_hot(split.labels, self.classes)

    def each(self, n: int, seen: Sequence[int] = ()) -> Tensor:
        """n contexts, class after class over and over, (n, classes): those that were `seen`, or all."""
        turns = torch.tensor(seen or range(self.classes))
        return one_hot(turns[torch.arange(n) % len(turns)], self.classes)

    def visible_labels(self, train: Split, seed: int) -> Tensor | None:
        """The labels of the train split that the training sees, chosen by the seed."""
        return train.labels if train.labels is None or not self.labels else hide_labels(train.labels, self.labels, seed)


@dataclass(frozen=True)
class EvaluationSettings:
    """How the finished model is evaluated: Monte-Carlo samples of the ELBO, importance samples of log p(x)."""

    samples: int = 1
    importance_samples: int = 100

    def __post_init__(self) -> None:
        _at_least(self, samples=1, importance_samples=1)


def _at_least(table: Any, **least: int) -> None:
    for name, bound in least.items():
        if getattr(table, name) < bound:
            raise ValueError(f"{name} must be at least {bound}; got {getattr(table, name)}.")


class Recipe:
    """A named combination of parts; `Recipe.load("aevb")`, or of your own TOML file.

    `settings` is the nested table, defaults filled in. Keys are checked when parts are built, each against the
    constructor that it reaches.
    """

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        unknown = [k for k in settings if k not in {*DEFAULTS, *TABLES, "name", "init"}]
        if unknown:
            raise RecipeError(
                f"recipe {name!r}: there is no {unknown[0]!r}.{suggest(unknown[0], {*DEFAULTS, *TABLES})}"
            )
        for key in ("title", "paper", "name", "init"):
            if not isinstance(settings.get(key, ""), str):
                raise RecipeError(f"recipe {name!r}: {key} must be text; got {shown(settings[key])}.")
        self.name = settings.get("name", name)
        self.settings = merge(_defaults(settings), {k: v for k, v in settings.items() if k != "name"})
        self.source()

    @classmethod
    def load(cls, name: str | Path) -> Recipe:
        """One of the library's recipes by name, or a TOML file by path."""
        path = Path(name)
        if path.suffix == ".toml":
            if not path.is_file():
                raise RecipeError(f"There is no recipe file {str(path)!r}.")
            return cls(path.stem, parse_toml(read_text(path), str(path)))
        if str(name) not in recipe_names():
            raise RecipeError(
                f"There is no recipe {str(name)!r}.{nearest(str(name), recipe_names())} `aevb recipes` lists all;"
                " a path to a .toml file works, too."
            )
        text = resources.files("aevb.runs").joinpath("recipes", f"{name}.toml").read_text(encoding="utf-8")
        return cls(str(name), parse_toml(text, str(name)))

    def override(self, assignments: Iterable[str]) -> Recipe:
        """A new recipe with `key.key=value` assignments; values are TOML, plain words are text."""
        settings = copy.deepcopy(self.settings)
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise RecipeError(f"--set {assignment!r}: write key=value, such as training.batch=100.")
            assign(settings, key.strip().split("."), parse_value(text.strip()))
        return Recipe(self.name, settings)

    def replace(self, **changes: Any) -> Recipe:
        """A new recipe with changed keys; double underscores go down a table: replace(training__batch=50).

        None takes a key away: replace(training__clip=None).
        """
        settings = copy.deepcopy(self.settings)
        for key, value in changes.items():
            assign(settings, key.split("__"), value)
        return Recipe(self.name, settings)

    def of(self, data: Dataset) -> Recipe:
        """The recipe for these data, with what it leaves to them: how long to train, see `runs.length.suited`, how
        many channels suit an image's size, and how many classes there are where it conditions on labels.

        Raises:
            DataError: it conditions on labels, and the data have none.
        """
        self.training(), self.validation()  # a mistake in them is reported as one
        held = len(data.validation) * (type_of(self.settings["objective"]) not in UNWATCHED)
        changes: dict[str, Any] = {}
        changes |= suited(self.settings["training"], self.settings["validation"], len(data.train), held)
        changes |= self._channels(data.train.shape)
        if self.conditional and not self.context().classes:
            if not data.classes:
                refuse_unlabeled()
            changes["context__classes"] = data.classes
        schema = data.train.values.schema
        if schema is not None and self.settings.get("likelihood") == {"type": "columns"}:
            changes["likelihood__parts"] = parts_of(schema)
            masked = masked_of(schema) if self.source().missing == "model" else []
            changes |= {"likelihood__masked": masked} if masked else {}
        return self.replace(**changes) if changes else self

    def _channels(self, shape: Sequence[int]) -> dict[str, list[int]]:
        """Those of the networks that leave them to the size of the images, as `models.networks.pyramid` says."""
        found: dict[str, list[int]] = {}
        for role in (ENCODER, DECODER):
            table = self.settings.get(role, {})
            pyramid = getattr(AXES[role].get(type_of(table) or ""), "pyramid", None)
            if pyramid and len(shape) == 3 and "channels" not in table:
                found[f"{role}__channels"] = pyramid(shape)
        return found

    @property
    def init(self) -> str:
        """The run with whose weights the training begins, a folder or a name; "": it begins with random ones."""
        return str(self.settings.get("init", ""))

    def source(self) -> Source:
        source: Source = construct("data", Source, self.settings["data"])
        return source

    def training(self) -> Training:
        training: Training = construct("training", Training, self.settings["training"])
        return training

    def validation(self) -> Monitor:
        monitor: Monitor = construct("validation", Monitor, self.settings["validation"])
        return monitor

    def evaluation(self) -> EvaluationSettings:
        settings: EvaluationSettings = construct("evaluation", EvaluationSettings, self.settings["evaluation"])
        return settings

    @property
    def conditional(self) -> bool:
        """Whether the model is one of p(x|y), y a label: whether there is anything in the table [context]."""
        return bool(self.settings.get("context"))

    def context(self) -> Context:
        context: Context = construct("context", Context, self.settings.get("context", {}))
        return context

    def tables(self, name: str) -> list[Any]:
        """The array of tables of this name, `terms` or `chain`."""
        tables = self.settings[name]
        if not isinstance(tables, list):
            raise RecipeError(f"{name}: expected a list of tables ([[{name}]]); got {shown(tables)}.")
        return tables

    def __repr__(self) -> str:
        return f"Recipe({self.name!r})"


def _defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of a recipe, less the tables that a `[ladder]` replaces.

    Raises:
        RecipeError: such a table beside a ladder, which would have no effect.
    """
    ladder = settings.get("ladder")
    replaced = find(LADDER, ladder.get("type")).offers.instead if isinstance(ladder, Mapping) else ()
    for key in replaced:
        if key in settings:
            raise RecipeError(f"{key}: a [ladder] defines its own latents and networks, without labels. Remove {key}.")
    return {k: v for k, v in DEFAULTS.items() if k not in replaced}


def recipe_names() -> list[str]:
    folder = resources.files("aevb.runs").joinpath("recipes")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_text(path: Path) -> str:
    """The text of a recipe file, UTF-8 with or without a byte-order mark.

    Raises:
        RecipeError: it is of another encoding, or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path} is not UTF-8 (byte {error.start}). Save it as UTF-8: in an editor, or by iconv -t UTF-8."
        ) from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror or error}.") from error


def parse_toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise RecipeError(f"recipe {where!r} is no valid TOML: its values are nested too deeply.") from error
    except ValueError as error:
        raise RecipeError(f"recipe {where!r} is no valid TOML: {error}") from error


def parse_value(text: str) -> Any:
    """A TOML value; 1_000, 1e6 (a whole number stays whole), true, [1, 2], {type = "x"}; anything else is text."""
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return text
    whole = isinstance(value, float) and value.is_integer() and "." not in text
    return int(value) if whole else value


def assign(settings: dict[str, Any], path: list[str], value: Any) -> None:
    """settings[a][b] = value; a new `type` starts its table afresh, since other keys belong to the old part."""
    table, last = _table_at(settings, path[:-1]), path[-1]
    if last == "type" and table.get("type") != value:
        table.clear()
    if value is None:
        table.pop(last, None)
        return
    if isinstance(table.get(last), dict) and isinstance(value, str) and last in AXES:
        value = {"type": value}  # --set objective=elbo
    table[last] = value


def _table_at(settings: dict[str, Any], path: list[str]) -> dict[str, Any]:
    """settings[a][b], a table, made where there is none yet."""
    known = {*DEFAULTS, *TABLES}
    if path and path[0] not in known:
        raise RecipeError(f"There is no {path[0]!r} in a recipe.{suggest(path[0], known)}")
    table = settings
    for i, key in enumerate(path):
        if not isinstance(table.setdefault(key, {}), dict):
            raise RecipeError(f"{'.'.join(path[: i + 1])} is {shown(table[key])}, not a table; set it whole.")
        table = table[key]
    return table


def flat(settings: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of nested tables, by keys such as training.optimizer.lr."""
    for key, value in settings.items():
        where = f"{under}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{where}.")
        else:
            yield where, value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the tables of `over` laid into it; a table with another type replaces the whole of the base's."""
    out = copy.deepcopy(dict(base))
    for key, value in over.items():
        tables = isinstance(value, Mapping) and isinstance(out.get(key), dict)
        same = tables and type_of(value) in (None, type_of(out[key]))
        out[key] = merge(out[key], value) if same else copy.deepcopy(value)
    return out
