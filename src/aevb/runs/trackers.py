"""Trackers of experiments, each a consumer of a training's events: TensorBoard, Weights & Biases, MLflow.

    with aevb.tracking("tensorboard"):
        run = aevb.fit("digits", "digits")

Each is told the recipe, the environment, the curves, and at the end the numbers with their errors and the figures. A
tracker that fails is left out with a warning; the training continues.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import tomli_w

from aevb.errors import AevbWarning, RunError, suggest
from aevb.runs.recipe import flat
from aevb.runs.store import Run
from aevb.training.events import Event, Record, Validation

PROJECT = "aevb"  # under which W&B and MLflow keep runs, where their environment variables name no other
ENVIRONMENT = ("aevb", "created", "python", "torch", "threads", "platform", "device")
NUMBERS = "test"  # under which the numbers of the end are kept


class Tracker(Protocol):
    """What a tracker takes."""

    def scalars(self, numbers: Mapping[str, float], samples: int) -> None:
        """Numbers by their names, such as train/loss, after so many training samples."""

    def figure(self, path: Path, samples: int) -> None:
        """A picture in a PNG file."""

    def close(self) -> None:
        """Write all that is not written yet."""


def recipe_text(run: Run) -> str:
    """The recipe as TOML."""
    return tomli_w.dumps({"name": run.recipe.name, **run.recipe.settings})


def settings_of(run: Run) -> dict[str, Any]:
    """The keys of the recipe, such as training.batch, with their values."""
    return {"name": run.recipe.name, **dict(flat(run.recipe.settings))}


def environment_of(run: Run) -> dict[str, Any]:
    """Versions and the machine."""
    return {name: run.meta[name] for name in ENVIRONMENT if name in run.meta}


class TensorBoard:
    """Event files in the run's own folder: tensorboard --logdir RUN."""

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(run.place("tensorboard")))
        self.writer.add_text("recipe", f"```toml\n{recipe_text(run)}```")
        self.writer.add_text("environment", f"```json\n{json.dumps(environment_of(run), indent=2)}\n```")

    def scalars(self, numbers: Mapping[str, float], samples: int) -> None:
        for name, number in numbers.items():
            self.writer.add_scalar(name, number, samples)
        self.writer.flush()

    def figure(self, path: Path, samples: int) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self.writer.add_image(f"figures/{path.stem}", pixels, samples, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class WandB:
    """A run of Weights & Biases; with WANDB_MODE=offline in the run's own folder, for `wandb sync`."""

    def __init__(self, run: Run) -> None:
        import wandb

        self.wandb, known = wandb, run.meta.get("trackers", {}).get("wandb")
        config = {"recipe": run.recipe.settings, "environment": environment_of(run)}
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        self.run: Any = wandb.init(
            name=run.path.name, dir=str(run.path), config=config, id=known, resume="allow", project=project
        )
        remember(run, "wandb", self.run.id)

    def scalars(self, numbers: Mapping[str, float], samples: int) -> None:
        if all(name.startswith(f"{NUMBERS}/") for name in numbers):
            self.run.summary.update(dict(numbers))
        else:
            self.run.log({**numbers, "samples": samples}, step=samples)

    def figure(self, path: Path, samples: int) -> None:
        self.run.log({f"figures/{path.stem}": self.wandb.Image(str(path))}, step=samples)

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """A run of MLflow, where MLFLOW_TRACKING_URI says; else where MLflow keeps runs by default."""

    def __init__(self, run: Run) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient()
        known = run.meta.get("trackers", {}).get("mlflow")
        self.id: str = known or self._new(run)
        self.client.update_run(self.id, status="RUNNING")

    def _new(self, run: Run) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self.client.get_experiment_by_name(name)
        place = found.experiment_id if found else self.client.create_experiment(name)
        made: str = self.client.create_run(place, run_name=run.path.name).info.run_id
        for key, value in settings_of(run).items():
            self.client.log_param(made, key, value)
        for key, value in environment_of(run).items():
            self.client.set_tag(made, f"environment.{key}", value)
        self.client.log_text(made, recipe_text(run), "recipe.toml")
        remember(run, "mlflow", made)
        return made

    def scalars(self, numbers: Mapping[str, float], samples: int) -> None:
        for name, number in numbers.items():
            self.client.log_metric(self.id, name, number, step=samples)

    def figure(self, path: Path, samples: int) -> None:
        self.client.log_artifact(self.id, str(path), "figures")

    def close(self) -> None:
        self.client.set_terminated(self.id)


KINDS: dict[str, tuple[str, Callable[[Run], Tracker]]] = {  # name → the package that it needs, and how it begins
    "tensorboard": ("tensorboard", TensorBoard),
    "wandb": ("wandb", WandB),
    "mlflow": ("mlflow", MLflow),
}


def remember(run: Run, name: str, number: str) -> None:
    """Keep the tracker's own number of a run, so that a resumed training is one run there too."""
    run.write_meta(trackers={**run.meta.get("trackers", {}), name: number})


class Trackers:
    """The trackers of one training, from its first event to the figures; nothing where none was asked for."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.samples = names, 0
        self.open: dict[str, Tracker] = {}

    def events(self, run: Run, events: Iterator[Event]) -> Iterator[Event]:
        """The same events, of which the trackers are told on their way."""
        for name in self.names:
            self._try(name, lambda name=name: self.open.__setitem__(name, KINDS[name][1](run)))  # type: ignore[misc]
        for event in events:
            match event:
                case Record() | Validation():
                    self.tell(type(event).__name__.lower().replace("record", "train"), event.numbers, event.samples)
            yield event

    def tell(self, where: str, numbers: Mapping[str, Any], samples: int | None = None) -> None:
        """Finite numbers by their names, after so many training samples, or at the end."""
        self.samples = self.samples if samples is None else samples
        plain = {f"{where}/{name}": float(v) for name, v in numbers.items() if type(v) in (int, float)}
        finite = {name: v for name, v in plain.items() if math.isfinite(v)}
        for name, tracker in list(self.open.items()):
            self._try(name, lambda tracker=tracker: tracker.scalars(finite, self.samples))  # type: ignore[misc]

    def figures(self, paths: Sequence[Path]) -> None:
        """The figures of a run, those that are PNG files."""
        for name, tracker in list(self.open.items()):
            for path in paths:
                if path.suffix == ".png":
                    self._try(name, lambda t=tracker, p=path: t.figure(p, self.samples))  # type: ignore[misc]

    def close(self) -> None:
        for name, tracker in list(self.open.items()):
            self._try(name, tracker.close)
        self.open = {}

    def _try(self, name: str, action: Callable[[], Any]) -> None:
        """Do something with a tracker, which is left out from then on where it fails, whatever the reason."""
        try:
            action()
        except Exception as error:
            self.open.pop(name, None)
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            words = f"{name} failed, and is no longer used: {why} The training continues."
            warnings.warn(words, AevbWarning, stacklevel=4)


_TRACKERS: ContextVar[Trackers | None] = ContextVar("_TRACKERS", default=None)


def trackers() -> Trackers:
    """Those of this block; they do nothing where none were asked for."""
    return _TRACKERS.get() or Trackers(())


@contextmanager
def tracking(*names: str) -> Iterator[Trackers]:
    """Log to trackers the trainings into run folders that begin within a block: "tensorboard", "wandb", "mlflow".

    Without a name, nothing within the block is logged.

    Raises:
        RunError: there is no such tracker, or its package is not installed.
    """
    for name in names:
        if name not in KINDS:
            raise RunError(f"There is no tracker {name!r}.{suggest(name, KINDS)}")
        if find_spec(KINDS[name][0]) is None:
            raise RunError(f"{name} is not installed. Run: pip install 'aevb[{name}]'")
    made = Trackers(tuple(dict.fromkeys(names)))
    token = _TRACKERS.set(made)
    try:
        yield made
    finally:
        made.close()
        _TRACKERS.reset(token)
