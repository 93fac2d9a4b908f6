"""What a report says in words and tables: the numbers, the data, the recipe, the findings, the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomli_w

from aevb.apps.report.markup import Html, joined, table, tag
from aevb.apps.report.pictures import drawn
from aevb.apps.report.subject import Subject
from aevb.data.columns import Column
from aevb.errors import AevbError
from aevb.evaluation.evaluate import likelihood_name
from aevb.evaluation.evaluate import table as lines_of
from aevb.evaluation.report import report
from aevb.figures.plots import loss_curves
from aevb.notation import short
from aevb.runs.doctor import doctor
from aevb.runs.equations import BEGINS, equation
from aevb.runs.evaluate import measure

MOST_COLUMNS = 200  # of a table that are listed
SURGERY = 2000  # rows of which the KL is taken apart, at most


def summary(s: Subject) -> Html:
    """The few numbers that say most, in large type."""
    e, meta = s.evaluation, s.run.meta
    parts = sum(p.numel() for p in s.model.parameters())
    shown = [
        ("ELBO", e["elbo"], "nats per data point"),
        (likelihood_name(e), e["log_likelihood"], "nats, by importance sampling"),
        ("bits per dimension", e["bits_per_dim"].text(3), "bits"),
        ("active units", f"{e['active_units']} of {e['latent_size']}", "latents that vary with the data"),
        ("parameters", f"{parts:,}", "of encoder, decoder and prior"),
        ("training samples", f"{meta.get('samples', 0):,}", f"status: {meta.get('status')}"),
    ]
    known = [(name, str(value), unit) for name, value, unit in shown if str(value) != "–"]
    return tag("dl", *(_figure(*one) for one in known), _class="key")


def _figure(name: str, value: str, unit: str) -> Html:
    return tag("div", tag("dt", name), tag("dd", tag("b", value), tag("span", unit)))


def verdict(s: Subject) -> Html:
    """What the doctor finds."""
    found = doctor(s.run, s.data, device=s.device)
    if not found.findings:
        text = f"No fault was found. Checked: {', '.join(found.kinds)}."
        return joined([tag("p", text, _class="good"), tag("p", f"Looked at: {found.looked}.", _class="note")])
    at, name = str(s.run.path), s.run.path.name  # a file that is sent names no folder of this machine
    items = [
        tag("li", tag("b", f.name), f" {f.text} ", tag("span", f"→ {f.remedy.replace(at, name)}"))
        for f in found.findings
    ]
    return joined([tag("ul", *items, _class="findings"), tag("p", f"Looked at: {found.looked}.", _class="note")])


# Data


def data(s: Subject) -> Html:
    """What the data are: their size, their labels, their columns."""
    d, values = s.data, s.data.train.values
    sizes = ", ".join(f"{len(getattr(d, part)):,} {part}" for part in ("train", "validation", "test"))
    labels = f"{d.classes}: {_few(d.class_names or range(d.classes))}" if d.classes else "none"
    facts = {
        "name": d.name,
        "what they are": d.description,
        "rows": sizes,
        "a data point": " × ".join(map(str, d.shape)) + (" numbers" if len(d.shape) == 1 else " pixels"),
        "read as": f"{values.kind} ({values.support})",
        "labels": labels,
        "licence": d.licence,
        "cite": d.citation,
    }
    parts = [_facts(facts)]
    if s.schema is not None:
        parts += [tag("h3", "Columns"), columns(s)]
    return joined(parts)


def columns(s: Subject) -> Html:
    """The columns of a table: kind, likelihood, holes, range, and why."""
    assert s.schema is not None
    n = sum(len(getattr(s.data, part)) for part in ("train", "validation", "test"))
    listed = s.schema.columns[:MOST_COLUMNS]
    rows = [
        (c.name, c.kind, c.likelihood or "not modelled", f"{c.holes:,}" if c.holes else "–", _range(c), c.why)
        for c in listed
    ]
    head = ("column", "kind", "likelihood", "holes", "values", "why this kind")
    left = len(s.schema.columns) - len(listed)
    more = f" {left:,} more columns are not listed." if left else ""
    said = f"Holes are missing values among the rows that were looked at; there are {n:,} rows in all.{more}"
    return joined([table(head, rows, numeric=(3,)), tag("p", said, _class="note")])


def _range(column: Column) -> str:
    if column.kind == "datetime":
        return "dates"
    if column.levels and column.kind != "angle":
        return _few(column.levels)
    if column.low is None or column.high is None:
        return "–"
    return f"{short(column.low)} to {short(column.high)}"


def _few(names: Any, most: int = 8) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (f", ... ({len(listed)} in all)" if len(listed) > most else "")


def _facts(facts: Mapping[str, Any]) -> Html:
    return table((), [(tag("b", name), value) for name, value in facts.items() if value not in ("", None)])


# Model


def recipe(s: Subject) -> Html:
    """The recipe: its equation, and its settings."""
    lines = [BEGINS.removeprefix("# "), "", *equation(s.run.recipe)]
    settings = tomli_w.dumps({"name": s.run.recipe.name, **s.run.recipe.settings})
    paper = s.run.recipe.settings.get("paper", "")
    return joined(
        [
            tag("p", s.run.recipe.settings.get("title", ""), f" ({paper})" if paper else ""),
            tag("pre", "\n".join(lines), _class="equation", tabindex="0"),
            tag("details", tag("summary", "All settings, as recipe.toml"), tag("pre", settings, tabindex="0")),
        ]
    )


def curves(s: Subject) -> Html:
    """The ELBO and its parts over the training."""
    figure = loss_curves(s.run.metrics(), "", s.data.train.log_abs_det)
    said = "The ELBO, the reconstruction term and the KL over the training, for train and validation rows."
    return joined([drawn(figure, said), tag("p", said, _class="note")])


def numbers(s: Subject) -> Html:
    """The evaluation, each number with its error, and the KL taken apart."""
    e = s.evaluation
    parts = [tag("h3", f"{s.side} split, n = {e['n']:,}"), _cells(lines_of(dict(e)))]
    if e.get("importance_warning"):
        parts.append(tag("p", e["importance_warning"], _class="warn"))
    try:
        found = measure(s.run, s.data, "surgery", s.side, limit=SURGERY, device=s.device)
    except (AevbError, ValueError, NotImplementedError) as error:
        return joined([*parts, tag("p", f"The KL is not decomposed: {error}", _class="note")])
    shown = report("surgery")
    title = shown.title.format_map(found)
    parts += [tag("h3", title[:1].upper() + title[1:] + " rows"), _cells(shown.rows(found))]
    said = "± is one standard error over data points."
    return joined([*parts, tag("p", f"{shown.closing.format_map(found)} {said}", _class="note")])


def _cells(rows: Any) -> Html:
    return table(("", "value", "unit"), [(_indented(what), value, unit) for what, value, unit in rows], numeric=(1,))


def _indented(what: str) -> Html:
    depth = (len(what) - len(what.lstrip())) // 2
    return tag("span", what.strip(), _class=f"in{depth}" if depth else None)


def surroundings(s: Subject) -> Html:
    """What the numbers depend on besides the recipe: versions, machine, seed, data."""
    meta = s.run.meta
    facts = {
        "run": s.run.path.name,
        "made": meta.get("created"),
        "aevb": meta.get("aevb"),
        "Python, PyTorch": f"{meta.get('python')}, {meta.get('torch')}",
        "machine": f"{meta.get('platform')}, {of_threads(meta.get('threads'))}",
        "seed": s.run.recipe.training().seed,
        "steps": f"{meta['steps']:,}" if "steps" in meta else None,
        "weights kept": f"of step {meta['best_step']:,}" if "best_step" in meta else None,
        "data": ", ".join(
            f"{part} {print_['sha256']}" for part, print_ in meta["splits"].items() if print_.get("sha256")
        ),
    }
    said = "Train it again from the settings above: aevb train --recipe recipe.toml"
    return joined([_facts(facts), tag("p", said, _class="note")])


def of_threads(count: object) -> str:
    """How many threads PyTorch had."""
    return f"{count} thread" if count == 1 else f"{count} threads"
