"""A recipe is data: which parts, which numbers. TOML on disk, a nested dictionary in memory."""

from __future__ import annotations

import ast
import copy
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aevb.data.dataset import Split, Streamed, placed
from aevb.data.labels import Pairs, hide_labels, one_hot
from aevb.errors import DataError, RecipeError, suggest
from aevb.models.conditional import Conditional
from aevb.models.ladder import Ladder
from aevb.models.networks import Planes
from aevb.models.vae import VAE
from aevb.objectives.bounds import Objective
from aevb.objectives.schedules import Schedule, arrival
from aevb.objectives.terms import Regularized
from aevb.probability.families import Normal
from aevb.runs.hierarchies import chained, check_hierarchy, heard, latent_shapes
from aevb.runs.parts import AXES, build, construct, resolve, told
from aevb.training.randomness import derive, seeded
from aevb.training.train import Training

TABLES = ("context", "ladder", "prior", "posterior", "likelihood", "encoder", "decoder", "objective", "training")
DEFAULTS: dict[str, Any] = {
    "title": "",
    "paper": "",
    "latent": 20,
    "data": {"source": "digits", "values": "", "seed": 0, "dir": ""},
    "prior": {"type": "standard-normal"},
    "posterior": {"type": "normal"},
    "objective": {"type": "elbo"},
    "chain": [],
    "terms": [],
    "training": {},
    "validation": {},
    "evaluation": {},
}


CONVOLUTIONS = ("conv", "residual")  # encoders that read images
MANY = 5  # layers of latents, which no longer are told one by one


@dataclass(frozen=True)
class Source:
    """Which data, and how: the arguments of `load_data`; empty values mean its defaults."""

    source: str = "digits"
    values: str = ""
    seed: int = 0
    dir: str = ""


@dataclass(frozen=True)
class Context:
    """What the model is conditioned on: the labels, one-hot.

    Attributes:
        classes: how many there are, labels 0 to classes - 1; 0: there is no context.
        labels: how many labels of each class the training is told, for an objective that needs no more (m2); 0: all.
    """

    classes: int = 0
    labels: int = 0

    def __post_init__(self) -> None:
        _at_least(self, classes=0, labels=0)

    def rows(self, split: Split, device: torch.device | str, told: Tensor | None = None) -> Split | Streamed | Pairs:
        """A split on a device, with its labels as contexts (those of `told`, if given) where the model has contexts.

        Raises:
            DataError: the data have no labels, or others than these.
        """
        rows, labels = placed(split, device), split.labels if told is None else told
        if not self.classes:
            return rows
        if labels is None:
            raise DataError(
                "The recipe conditions on labels (context.classes), but the data have none. Take another recipe."
            )
        return Pairs(rows, one_hot(labels, self.classes).to(device))

    def given(self, split: Split) -> Tensor | None:
        """The labels of a split as contexts (N, classes), where the model has contexts."""
        return None if split.labels is None or not self.classes else one_hot(split.labels, self.classes)

    def each(self, n: int) -> Tensor:
        """n contexts, class after class over and over, (n, classes)."""
        return one_hot(torch.arange(n) % self.classes, self.classes)

    def told(self, train: Split, seed: int) -> Tensor | None:
        """The labels of the train split that the training is told; which ones, the seed says."""
        return train.labels if train.labels is None or not self.labels else hide_labels(train.labels, self.labels, seed)


@dataclass(frozen=True)
class Validation:
    """How training is watched: a bound of the validation split, every so many training samples.

    Attributes:
        every: training samples between two looks; by default one pass, or a hundredth of the run if that is more.
        samples: Monte-Carlo samples per data point.
        patience: stop after so many looks without a better bound; never if 0.
        importance_samples: K of the bound that says which weights are the best, log 1/K Σ_k w_k; if 0, the ELBO says it.
    """

    every: int = 0
    samples: int = 1
    patience: int = 0
    importance_samples: int = 0

    def __post_init__(self) -> None:
        _at_least(self, every=0, samples=1, patience=0, importance_samples=0)


@dataclass(frozen=True)
class Judging:
    """How the finished model is judged: Monte-Carlo samples of the ELBO, importance samples of log p(x)."""

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
        unknown = [k for k in settings if k not in {*DEFAULTS, *TABLES, "name"}]
        if unknown:
            raise RecipeError(f"recipe {name!r}: there is no {unknown[0]!r}.{suggest(unknown[0], {*DEFAULTS, *TABLES})}")
        self.name = str(settings.get("name", name))
        self.settings = merge(heard(DEFAULTS, settings), {k: v for k, v in settings.items() if k != "name"})
        self.source()

    @classmethod
    def load(cls, name: str | Path) -> Recipe:
        """One of the library's recipes by name, or a TOML file by path."""
        path = Path(name)
        if path.suffix == ".toml":
            if not path.is_file():
                raise RecipeError(f"There is no recipe file {str(path)!r}.")
            return cls(path.stem, parse_toml(path.read_text(encoding="utf-8"), str(path)))
        if str(name) not in recipe_names():
            raise RecipeError(
                f"There is no recipe {str(name)!r}.{suggest(str(name), recipe_names())} Or a path to a .toml file."
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

    def source(self) -> Source:
        source: Source = construct("data", Source, self.settings["data"], {})
        return source

    def training(self) -> Training:
        table, given = self.settings["training"], {}
        if isinstance(table, Mapping) and "optimizer" in table:
            given = {"optimizer": build("optimizer", table["optimizer"])}
            table = {k: v for k, v in table.items() if k != "optimizer"}
        training: Training = construct("training", Training, table, given)
        return training

    def validation(self) -> Validation:
        validation: Validation = construct("validation", Validation, self.settings["validation"], {})
        return validation

    def judging(self) -> Judging:
        judging: Judging = construct("evaluation", Judging, self.settings["evaluation"], {})
        return judging

    def context(self) -> Context:
        context: Context = construct("context", Context, self.settings.get("context", {}), {})
        return context

    def objective(self, model: nn.Module | None = None, n: int | None = None) -> Objective:
        """The objective with its terms; what is of a model, or of N = `n` training points, must be given them."""
        context = self.checked_context()
        share = context.classes * context.labels / n if n and context.labels else 1.0
        given: dict[str, Any] = {k: v for k, v in {"model": model, "n": n}.items() if v is not None}
        given |= {"context": context.classes, "share": share}
        with seeded(derive(self.training().seed, "objective")):
            objective: Objective = build("objective", self.settings["objective"], **given)
            terms = [build("terms", table, **given) for table in self.term_tables()]
        if terms:
            objective = told("terms", lambda: Regularized(objective, terms), "Regularized")  # type: ignore[arg-type]
        return objective

    def checked_context(self) -> Context:
        """The context, which not every part can take, and which some need.

        Raises:
            RecipeError: parts that do not go together.
        """
        context, kind = self.context(), _type(self.settings["objective"])
        if kind == "m2" and not context.classes:
            raise RecipeError("objective (m2): needs labels: give context.classes, and context.labels of each class.")
        if kind == "monte-carlo-em" and _type(self.settings.get("prior")) == "conditional":
            raise RecipeError(
                "objective (monte-carlo-em): its chains begin at draws of one p(z), not of a p(z|y) for each y. "
                "Choose another prior."
            )
        if kind != "m2" and context.labels:
            raise RecipeError(f"context.labels: only m2 learns with few labels; {kind} needs all of them. Leave it out.")
        return context

    def unfinished(self, n: int) -> list[str]:
        """Schedules that do not reach their end with N = `n` training points, each said in words."""
        total = self.training().steps(n)
        late = [(key, schedule, arrival(schedule)) for key, schedule in self._schedules() if arrival(schedule) > total]
        return [
            f"{key} goes on for {steps:,} steps, but the training has {total:,}, so it stops at {schedule(total - 1):.3g}"
            f" instead of {schedule(steps):.3g}. Let it end earlier, or train for longer."
            for key, schedule, steps in late
        ]

    def _schedules(self) -> Iterator[tuple[str, Schedule]]:
        """Those of the posterior, the objective and the terms, by keys such as objective.beta."""
        tables = [(where, self.settings.get(where)) for where in ("posterior", "objective")]
        for where, table in [*tables, *(("terms", t) for t in self.term_tables())]:
            for key, value in table.items() if isinstance(table, Mapping) else ():
                if isinstance(value, Mapping):
                    yield f"{where}.{key}", resolve(f"{where}.{key}", key, value, object)

    def term_tables(self) -> list[Any]:
        """The array of tables `terms`, one for each regulariser."""
        return self._tables("terms")

    def _tables(self, name: str) -> list[Any]:
        tables = self.settings[name]
        if not isinstance(tables, list):
            raise RecipeError(f"{name}: expected a list of tables ([[{name}]]); got {tables!r}.")
        return tables

    def latent_shapes(self, shape: Iterable[int]) -> list[torch.Size]:
        """The event shapes of the latents for data of event shape `shape`, z_1 first; several in a hierarchy."""
        self.check_hierarchy()
        if "ladder" in self.settings:
            with torch.device("meta"):  # its sizes are known without numbers
                return [rung.shape for rung in self.model(shape).rungs][::-1]  # type: ignore[union-attr]
        return latent_shapes(self.settings["latent"], self._tables("chain"))

    def check_hierarchy(self) -> None:
        """Refuse what a `[[chain]]` or a `[ladder]` cannot take."""
        s = self.settings
        if "ladder" in s or self._tables("chain"):
            kinds = {axis: _type(s.get(axis)) for axis in ("prior", "posterior", "objective")}
            name = "ladder" if "ladder" in s else "chain"
            check_hierarchy(name, kinds, _type(s["objective"], "gradient"), s["terms"])

    def latents(self, shape: Iterable[int]) -> str:
        """How many latents there are, in words: 20, or layer by layer 100 + 50."""
        shapes = ["×".join(map(str, z)) for z in self.latent_shapes(shape)]
        return " + ".join(shapes) if len(shapes) < MANY else f"{shapes[0]} + ... ({len(shapes)} layers)"

    def code_shape(self, shape: Iterable[int]) -> tuple[int, ...]:
        """The shape of a code, as `aevb encode` writes it: the layers of a hierarchy side by side."""
        shapes = self.latent_shapes(shape)
        return tuple(shapes[0]) if len(shapes) == 1 else (sum(z.numel() for z in shapes),)

    def model(self, shape: Iterable[int], levels: int = 256) -> VAE | Ladder:
        """The model for data of event shape `shape`, initialised from the training seed."""
        s, event = self.settings, torch.Size(shape)
        self.check_hierarchy()
        pixel = {"levels": levels, "classes": levels, "spacing": 1 / (levels - 1)}
        if "ladder" in s:
            with seeded(derive(self.training().seed, "initialization")):
                family = build("likelihood", s.get("likelihood"), shape=event, **pixel)
                ladder: Ladder = build("ladder", s["ladder"], inputs=event, family=family)
            return ladder
        if "likelihood" not in s or "encoder" not in s or "decoder" not in s:
            raise RecipeError(f"recipe {self.name!r}: the tables likelihood, encoder and decoder must be given.")
        shapes = latent_shapes(s["latent"], s["chain"])
        latent, top = shapes[0], shapes[-1]
        classes = self.checked_context().classes
        seen, code = (_beside(part, classes) for part in (event, latent))
        with seeded(derive(self.training().seed, "initialization")):
            posterior = build("posterior", s["posterior"], shape=latent)
            likelihood = build("likelihood", s["likelihood"], shape=event, **pixel)
            encoder: nn.Module = Conditional(_encoding(s["encoder"], event, classes, posterior.size), posterior)
            decoder = build("decoder", s["decoder"], inputs=code, outputs=likelihood.size, image=event)
            shared = isinstance(posterior, nn.Module) or top != latent
            alike = Normal(top) if shared else posterior  # no prior shares a family's weights
            whose = {"shape": top, "family": alike, "context": classes}
            prior: nn.Module = build("prior", s["prior"], inputs=seen, encoder=encoder, **whose)
            encoder, prior = chained(encoder, prior, shapes, s["chain"], s["posterior"])
        return VAE(prior, encoder, Conditional(decoder, likelihood))

    def __repr__(self) -> str:
        return f"Recipe({self.name!r})"


def _beside(shape: torch.Size, classes: int) -> torch.Size:
    """The event shape of a network's input, with a one-hot label beside it where there are classes."""
    return torch.Size((shape.numel() + classes,)) if classes else shape


def _encoding(table: Mapping[str, Any], event: torch.Size, classes: int, outputs: int) -> nn.Module:
    """The encoder's network; one of convolutions reads a label as planes beside those of the image."""
    if classes and _type(table) in CONVOLUTIONS and len(event) == 3:
        stacked = torch.Size((event[0] + classes, *event[1:]))
        return nn.Sequential(Planes(event), build("encoder", table, inputs=stacked, outputs=outputs))
    network: nn.Module = build("encoder", table, inputs=_beside(event, classes), outputs=outputs)
    return network


def _type(table: Any, key: str = "type") -> Any:
    return table.get(key) if isinstance(table, Mapping) else None


def recipe_names() -> list[str]:
    folder = resources.files("aevb.runs").joinpath("recipes")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {where!r} is no valid TOML: {error}") from error


def parse_value(text: str) -> Any:
    """A TOML value; 1_000, 1e6 (a whole number stays whole), true, [1, 2], {type = "x"}; anything else is text."""
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text
    whole = isinstance(value, float) and value.is_integer() and "." not in text
    return int(value) if whole else value


def assign(settings: dict[str, Any], path: list[str], value: Any) -> None:
    """settings[a][b] = value; a new `type` starts its table afresh, since other keys belong to the old part."""
    table = settings
    for i, key in enumerate(path[:-1]):
        known = {*DEFAULTS, *TABLES} if i == 0 else set(table)
        if i == 0 and key not in known:
            raise RecipeError(f"There is no {key!r} in a recipe.{suggest(key, known)}")
        if not isinstance(table.setdefault(key, {}), dict):
            raise RecipeError(f"{'.'.join(path[: i + 1])} is {table[key]!r}, not a table; set it whole.")
        table = table[key]
    last = path[-1]
    if last == "type" and table.get("type") != value:
        table.clear()
    if value is None:
        table.pop(last, None)
        return
    if isinstance(table.get(last), dict) and isinstance(value, str) and last in {*AXES, "optimizer"}:
        value = {"type": value}  # --set objective=elbo
    table[last] = value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the tables of `over` laid into it; a table with another type replaces the whole of the base's."""
    out = copy.deepcopy(dict(base))
    for key, value in over.items():
        same = (
            isinstance(value, Mapping)
            and isinstance(out.get(key), dict)
            and value.get("type") in (None, out[key].get("type"))
        )
        out[key] = merge(out[key], value) if same else copy.deepcopy(value)
    return out
