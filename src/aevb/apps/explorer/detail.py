"""What the page shows of one point, and of a selection of points.

What tables alone need is imported where it is used: the page is to open at once.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import torch
from torch import Tensor

from aevb.apps.explorer.points import PARTS
from aevb.apps.explorer.session import Session, strict
from aevb.data.batch import Indexable
from aevb.data.columns import CODED
from aevb.data.dataset import Split
from aevb.errors import AevbError
from aevb.evaluation.bound import elbo
from aevb.use.cards import Trait, traits_of
from aevb.use.encode import encode
from aevb.use.plane import nearest
from aevb.use.reconstruct import reconstruct

NEIGHBOURS = 6
SURPRISE_SAMPLES = 60
TRAITS = 8


def point(session: Session, index: int) -> dict[str, Any]:
    """One row: itself, its reconstruction, its bound split, its surprise, its neighbours.

    Raises:
        DataError: there is no such row.
    """
    points = session.points
    z = points.code(index)
    known = points.codes.more(0)
    label = points.rows.split.labels
    return strict(
        {
            "index": index,
            "part": PARTS[int(points.rows.part[index])],
            "name": str(points.rows.names[index]),
            "label": None if label is None else named(session, int(label[index])),
            "z": z.tolist(),
            "neighbours": [i for i in nearest(known, z, NEIGHBOURS + 1) if i != index][:NEIGHBOURS],
            **looked_at(session, points.some([index]), points.data([index])),
        }
    )


def named(session: Session, label: int) -> str:
    names = session.class_names
    return names[label] if names and 0 <= label < len(names) else str(label)


def looked_at(session: Session, split: Split, data: Indexable) -> dict[str, Any]:
    """The parts of `point` that a new row has, too."""
    found = {**numbers_of(session, split, data), **bound_of(session, data)}
    if session.schema is None:
        found["surprise"] = surprise_of(session, data)
    return found


def numbers_of(session: Session, split: Split, data: Indexable) -> dict[str, Any]:
    """x and its reconstruction: as numbers, or as cells."""
    if session.schema is not None:
        from aevb.apps.explorer.cells import described, table_cells

        z = encode(session.model, data).flatten(1)
        return {"cells": described(session, split), "reconstruction_cells": table_cells(session, z)[0]}
    x = split[torch.arange(1)]
    return {"x": x.flatten().tolist(), "reconstruction": reconstruct(session.model, data).flatten().tolist()}


def bound_of(session: Session, data: Indexable) -> dict[str, Any]:
    """The ELBO and its two terms; nothing of a model without one."""
    try:
        bound = elbo(session.model, data, samples=16)
    except AevbError:
        return {}
    return {
        "elbo": float(bound.elbo[0]),
        "reconstruction_term": float(bound.reconstruction[0]),
        "kl": float(bound.kl.sum()),
    }


def surprise_of(session: Session, data: Indexable) -> list[float] | None:
    """How surprising each number is given the others; None where the likelihood is no product."""
    from aevb.use.surprise import surprise

    try:
        return [float(v) for v in surprise(session.model, data, SURPRISE_SAMPLES).flatten()]
    except AevbError:
        return None


def selection(session: Session, indices: list[int]) -> dict[str, Any]:
    """What some points share: how many, the mean code, labels, and what sets them apart from the others."""
    points = session.points
    points.check(indices)
    codes = points.codes.all()
    inside = torch.zeros(len(points), dtype=torch.bool)
    inside[indices] = True
    return strict(
        {
            "n": int(inside.sum()),
            "mean": codes[inside].mean(0).tolist(),
            "labels": label_counts(session, inside),
            "traits": [trait(t) for t in traits(session, codes, inside)[:TRAITS]],
        }
    )


def label_counts(session: Session, inside: Tensor) -> list[dict[str, Any]]:
    labels = session.points.rows.split.labels
    if labels is None:
        return []
    numbers, counts = labels[inside].unique(return_counts=True)
    order = counts.argsort(descending=True, stable=True).tolist()
    return [{"name": named(session, int(numbers[i])), "number": int(numbers[i]), "n": int(counts[i])} for i in order]


def traits(session: Session, codes: Tensor, inside: Tensor) -> list[Trait]:
    """The columns of a table, else the latents, that differ most from those of the other points."""
    if session.schema is None:
        names = [session.colours.all[n].title for n in session.colours.all if n.startswith("latent:")]
        return traits_of(codes[:, : len(names)].numpy(), inside.numpy(), names)
    columns = session.schema.model
    rows = session.points.rows.split.stored.numpy()
    levels = [column.levels if column.kind in CODED else () for column in columns]
    return traits_of(rows, inside.numpy(), [column.name for column in columns], levels)


def trait(found: Trait) -> dict[str, Any]:
    """For the page: the value and that of the rest, as text."""
    if found.share is None:
        return {"name": found.name, "value": f"{found.value:.4g}", "rest": f"{found.rest:.4g}"}
    return {"name": found.name, "value": f"{found.value} {found.share:.0%}", "rest": f"{found.rest:.0%}"}


def exported(session: Session, indices: list[int]) -> str:
    """Some points as CSV: split, row, label, code, and the columns of a table."""
    points, out = session.points, io.StringIO()
    points.check(indices)
    codes, rows = points.codes.all(), points.rows
    labels = rows.split.labels
    cells = cells_of(session, indices)
    writer = csv.writer(out)
    head = ["split", "row", *([] if labels is None else ["label"]), *(f"z{i + 1}" for i in range(session.size))]
    writer.writerow([*head, *(safe(name) for name in cells)])
    for place, i in enumerate(indices):
        label = [] if labels is None else [safe(named(session, int(labels[i])))]
        row = [PARTS[int(rows.part[i])], safe(str(rows.names[i])), *label, *(f"{v:.6g}" for v in codes[i].tolist())]
        writer.writerow([*row, *(safe(column[place]) for column in cells.values())])
    return out.getvalue()


def cells_of(session: Session, indices: list[int]) -> dict[str, list[str]]:
    """The modelled columns of some rows as text; none of images."""
    if session.schema is None:
        return {}
    from aevb.data.frames import made

    frame = made(session.schema, session.points.rows.split.stored[indices].numpy())
    return {
        column.name: ["" if v is None else str(v) for v in frame.table[column.name].to_list()]
        for column in session.schema.model
    }


def safe(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: words that begin like one get an apostrophe."""
    formula = text[:1] in ("=", "+", "-", "@", "\t", "\r") and not is_number(text)
    return f"'{text}" if formula else text


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
