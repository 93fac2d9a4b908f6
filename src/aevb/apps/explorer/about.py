"""What the page must know of a run before it draws anything."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aevb.apps.explorer.colours import subscript
from aevb.apps.explorer.session import KL_ROWS, Session, strict
from aevb.data.columns import CODED, Column, step_of
from aevb.errors import AevbError
from aevb.evaluation.bound import elbo
from aevb.models.inference import inference
from aevb.runs.equations import equation
from aevb.runs.files import read_json

DRAWS = 4000  # of the prior, of which the densities behind the sliders are made
BELL = np.exp(-0.5 * (np.arange(-8, 9) / 2.5) ** 2) / 6.27  # by which a histogram is made smooth
SPAN = 3.0  # standard deviations at each side
NAMED = (("log_likelihood", "log p(x)"), ("elbo", "ELBO"), ("reconstruction", "E log p(x|z)"), ("kl", "KL"))


def about(session: Session) -> dict[str, Any]:
    """As `backend.js` describes it."""
    run = session.run
    return strict(
        {
            "name": session.name,
            "data": fingerprint(session),
            "recipe": run.recipe.name,
            "equation": equation_of(session),
            "kind": session.kind,
            "shape": list(session.shape),
            "size": session.size,
            "latents": latents(session),
            "layers": [vars(layer) for layer in session.layers],
            "classes": [{"number": number, "name": name} for number, name in session.classes.items()],
            "labels": labels(session),
            "columns": [] if session.schema is None else [column(c) for c in session.schema.model],
            "limits": list(session.limits),
            "views": [{"name": name, "title": view_title(session, name)} for name in session.view_names()],
            "colours": session.colours.offered(),
            "n": len(session.points),
            "numbers": numbers(session),
            "can": can(session),
        }
    )


def fingerprint(session: Session) -> str:
    """What tells the rows on the map from others: their source, their places in it, and their splits."""
    rows = session.points.rows
    source = str(session.run.recipe.settings.get("data", {}).get("source", ""))
    told = "\n".join([source, *map(str, rows.names), *map(str, rows.part.tolist())])
    return sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def can(session: Session) -> dict[str, bool]:
    image, table = session.kind == "image", session.kind == "table"
    return {"read": image or table, "draw": image, "film": image, **session.can}


def equation_of(session: Session) -> str:
    try:
        return "\n".join(equation(session.run.recipe))
    except AevbError:
        return ""


def labels(session: Session) -> list[str]:
    colour = session.colours.all.get("label")
    return [] if colour is None else colour.names


def latents(session: Session) -> list[dict[str, Any]]:
    """The latents, the largest KL first; of a hierarchy the largest variance of the codes first."""
    known, draws = kls(session), prior_draws(session)
    spread = session.points.codes.more(0).var(0) if len(session.points) > 1 else torch.ones(session.size)
    order = (spread if known is None else known).argsort(descending=True, stable=True).tolist()
    return [{**one(session, i, draws[:, i]), "kl": None if known is None else float(known[i])} for i in order]


def kls(session: Session) -> Tensor | None:
    """The mean KL of each latent, (D,); None where it is known for groups alone."""
    kl = elbo(session.model, session.points.data(slice(0, KL_ROWS))).kl.mean(0)
    return kl if len(kl) == session.size and bool(kl.isfinite().all()) else None


def prior_draws(session: Session) -> Tensor:
    """z ~ p(z), (n, D); of a conditional prior, of its first class."""
    with inference(session.model, 0):
        found: Tensor = session.model.sample_latent(DRAWS, session.conditions(None)).flatten(1).cpu()
    return found


def one(session: Session, i: int, draws: Tensor) -> dict[str, Any]:
    mean, std = float(draws.mean()), float(draws.std()) or 1.0
    low, high = round(mean - SPAN * std, 1), round(mean + SPAN * std, 1)
    counts, _ = np.histogram(draws.numpy(), bins=48, range=(low, high))
    layer = next(number for number, layer in enumerate(session.layers) if i in layer.numbers)
    name = f"z{subscript(i + 1)}"
    if len(session.layers) > 1:
        name = f"{session.layers[layer].name}·{i - session.layers[layer].start + 1}"
    density = np.convolve(counts, BELL, "same").round(1).tolist()
    return {"index": i, "name": name, "layer": layer, "low": low, "high": high, "density": density}


def column(known: Column) -> dict[str, Any]:
    coded = known.kind in CODED
    return {
        "name": known.name,
        "kind": known.kind,
        "levels": [str(level) for level in known.levels] if coded else [],
        "low": known.low,
        "high": known.high,
        "step": step_of(known),
    }


def view_title(session: Session, name: str) -> str:
    if name in ("pca", "umap"):
        return name.upper()
    if name.startswith("layer:"):
        return f"{session.layers[int(name[6:])].name} (PCA)"
    first, second = name.split(",")
    return f"z{subscript(int(first) + 1)}, z{subscript(int(second) + 1)}"


def numbers(session: Session) -> list[dict[str, str]]:
    """The evaluation of the test split that is kept beside the run."""
    place = session.run.path / "evaluation-test.json"
    try:
        known = read_json(place) if place.is_file() else {}
    except AevbError:
        known = {}
    shown = [
        (title, known[name], known.get(f"{name}_se")) for name, title in NAMED if isinstance(known.get(name), float)
    ]
    return [{"name": t, "text": f"{v:.2f}" + (f" ± {se:.2f}" if se is not None else "")} for t, v, se in shown]
