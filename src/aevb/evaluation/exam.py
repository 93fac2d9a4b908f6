"""What the doctor looks at: a model, a sample of its rows, what its training wrote; and what is then found."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from aevb.data.batch import Indexable, batches, rows_at_once, take
from aevb.data.randomness import derive
from aevb.evaluation.estimate import flat
from aevb.evaluation.findings import names
from aevb.models.checks import likelihood_batches
from aevb.models.inference import Model, as_result, inference
from aevb.models.trace import draw
from aevb.notation import Brief
from aevb.parts import Offers
from aevb.probability.codes import usage
from aevb.probability.offers import read_offers

OPERATIONS = 1e11  # of floating-point numbers that one check may spend on codes that it draws
COMMAND = re.compile(r"\baevb(?: (?:train|evaluate|sample|traverse) |\.fit\().*$")  # at the end of a remedy


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run.

    Attributes:
        name: of the kind of fault.
        text: the finding, with numbers and their errors.
        remedy: what to do, with a command at its end where there is one.
        numbers: by name, an `Estimate` or a plain number each.
    """

    name: str
    text: str
    remedy: str
    numbers: Mapping[str, Any]

    @property
    def command(self) -> str:
        """The command line at the end of the remedy, or the Python; empty where there is none."""
        found = COMMAND.search(self.remedy)
        return found.group() if found else ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        numbers = flat(self.numbers)
        return {"name": self.name, "text": self.text, "remedy": self.remedy, "command": self.command, **numbers}


@dataclass(frozen=True)
class Commands:
    """How to act on a run, as text for its user.

    Attributes:
        run: the folder.
        source: whether its data can be read again from where the recipe says; else they were given in Python.
    """

    run: str
    source: bool = True

    def again(self, *assignments: str) -> str:
        """Train anew with changes of the recipe."""
        recipe = f"{self.run}/recipe.toml"
        if not self.source:
            changes = ["data.source=''", *assignments]  # else the run's name for its data is taken for a source
            return f"aevb.fit(aevb.Recipe.load({recipe!r}).override({changes}), data)"
        return shlex.join(["aevb", "train", "--recipe", recipe, *_set(assignments)])

    def resume(self, samples: int | None, *assignments: str) -> str:
        """Train the same run on, to a total of training samples."""
        total = [] if samples is None else ["--samples", str(samples)]
        return shlex.join(["aevb", "train", "--resume", self.run, *total, *_set(assignments)])

    def verb(self, name: str, *options: str) -> str:
        """Another verb on the run."""
        return shlex.join(["aevb", name, self.run, *options])


def _set(assignments: Sequence[str]) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]


@dataclass(frozen=True)
class Story:
    """What a training wrote: the facts of meta.json, the lines of metrics.jsonl, the recipe's settings."""

    facts: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    commands: Commands

    def part(self, table: str, key: str = "type", default: Any = None) -> Any:
        """A value of a table of the recipe."""
        found = self.settings.get(table)
        return found.get(key, default) if isinstance(found, Mapping) else default

    @property
    def status(self) -> str:
        return str(self.facts.get("status", "complete"))

    def curve(self, side: str) -> tuple[list[int], list[float]]:
        """(training samples, bound in nats) of each record of the train or of the validation side."""
        for name, sign in (("elbo", 1), ("log_px", 1), ("loss", -1)):
            points = [(r["samples"], sign * r[side][name]) for r in self.metrics if name in r.get(side, {})]
            if points:
                return [p[0] for p in points], [p[1] for p in points]
        return [], []


@dataclass(frozen=True, repr=False)
class Pass(Brief):
    """One pass of rows through a model, with one draw of z for each.

    Attributes:
        elbo: (N,); kl: (N, G); mean: E_q[z|x] (N, D); z: draws of q(z|x) (N, D), prior: of p(z), (N, D).
        offers: of q(z|x); codes: whether z is one of so many codes.
    """

    elbo: Tensor
    kl: Tensor
    mean: Tensor
    z: Tensor
    prior: Tensor
    offers: Offers
    codes: bool


@dataclass(frozen=True, repr=False)
class Exam(Brief):
    """A trained model and samples of its rows.

    Attributes:
        model: in evaluation mode.
        train, held: rows of the train split and rows that no gradient saw, on the model's device.
        side: what the held rows are called, "validation" or "test"; empty where there are none.
        of: how many rows there are of both, (train, held).
        story: of its training.
        names: of the columns (F,), or None.
        support: of the stored numbers, as of `Values`.
    """

    model: Model
    train: Indexable
    held: Indexable
    side: str
    of: tuple[int, int]
    story: Story
    support: str
    names: Sequence[str] | None = None
    seed: int = 0

    @property
    def commands(self) -> Commands:
        return self.story.commands

    @cached_property
    def of_train(self) -> Pass:
        return passed(self.model, self.train, derive(self.seed, "train"))

    @cached_property
    def of_held(self) -> Pass:
        return passed(self.model, self.held, derive(self.seed, "held"))

    @cached_property
    def x_train(self) -> Tensor:
        """The sample of train rows, (N, *X), on the CPU."""
        return torch.cat([b.x.cpu() for b in batches(self.train, None, "cpu")])

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @cached_property
    def operations(self) -> int:
        """Floating-point operations of one row, encoded and decoded."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counted, inference(self.model, self.seed):
            _ = self.model.trace(take(self.train, torch.arange(1))).log_px
        return int(counted.get_total_flops())

    def affordable(self, codes: int, least: int) -> Indexable:
        """Held-out rows of which a check decodes so many `codes` each: fewer of a large decoder, `least` at least."""
        most = max(least, int(OPERATIONS / (codes * max(1, self.operations))))
        return take(self.held, torch.arange(min(len(self.held), most)))

    def name(self, column: int) -> str:
        """What to call a column."""
        return f"column {column}" if self.names is None else str(self.names[column])


def passed(model: Model, data: Indexable, seed: int) -> Pass:
    """Rows through a model once, each encoded once."""
    parts: list[tuple[Tensor, ...]] = []
    with inference(model, seed):
        shape = take(data, torch.arange(1)).x.shape[1:]
        for batch in likelihood_batches(model, data, rows_at_once(shape)):
            q = model.posterior(batch)
            z = draw(q, 1)
            t = model.trace_at(batch, q, z)
            p = t.p.sample() if t.p.batch_shape else t.p.sample(torch.Size((len(batch),)))
            elbo = as_result(t.log_px).mean(0) - as_result(t.kl).sum(-1)
            codes = (as_result(v.flatten(1)) for v in (_mean(q, z), z[0], p))
            parts.append((elbo, as_result(t.kl), *codes))
        offers, discrete = read_offers(q), usage(q) is not None
    elbo, kl, mean, z, prior = (torch.cat(part) for part in zip(*parts, strict=True))
    return Pass(elbo, kl, mean, z, prior, offers, discrete)


def _mean(q: Distribution, z: Tensor) -> Tensor:
    """E_q[z|x], or a draw where it has no formula."""
    try:
        mean: Tensor = q.mean
    except NotImplementedError:
        return z[0]
    return mean


Look = Callable[[Exam], Iterable[Finding]]
Listen = Callable[[Story], Iterable[Finding]]


@dataclass(frozen=True)
class Check:
    """A kind of fault: `listen` needs what the training wrote alone, `look` a model with weights.

    Attributes:
        rank: checks of a lower rank come first.
        what: what is looked for, in a few words.
    """

    what: str
    rank: int
    look: Look = lambda exam: ()
    listen: Listen = lambda story: ()


def checks() -> list[Check]:
    """All of them, those that other findings may come of first."""
    found: list[Check] = [import_module(f"aevb.evaluation.findings.{name}").CHECK for name in names()]
    return sorted(found, key=lambda check: check.rank)


def examine(story: Story, exam: Exam | None) -> list[Finding]:
    """All findings; of a run without weights those of its story alone."""
    told = [finding for check in checks() for finding in check.listen(story)]
    return told + ([finding for check in checks() for finding in check.look(exam)] if exam is not None else [])
