"""The explorer as a folder for any host, or for the disk: one page with the points, their codes and the decoder."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aevb.apps.explorer.about import about, prior_draws
from aevb.apps.explorer.cells import described
from aevb.apps.explorer.curved import NAME
from aevb.apps.explorer.detail import named
from aevb.apps.explorer.points import PARTS
from aevb.apps.explorer.session import Session, strict
from aevb.apps.pages.bundle import POLICY, import_map, needed, read, start
from aevb.apps.pages.decoder import PageDecoder, page_decoder
from aevb.apps.pages.graph import UnknownStep
from aevb.apps.pages.layers import steps_below
from aevb.apps.report.markup import Html, json_script, tag
from aevb.data.dataset import Dataset
from aevb.errors import AevbError
from aevb.evaluation.bound import elbo
from aevb.runs.files import write_text
from aevb.runs.store import Run

POINTS, CELLED = 2000, 300  # rows on the map, and of a table, whose cells are held as words
PICTURES = 6_000_000  # bytes of all pictures of rows, at most
BOUND = 4  # draws of z for the ELBO of a row
DRAWS = 200  # of the prior, from which the page takes its samples
DECODER = 25_000_000  # bytes of the decoder, at most
MAIN = "static-main.js"
ABSENT = {"read": False, "draw": False, "film": False, "compare": False, "live": False}  # what takes a server


def write_web(run: Run, folder: Path, data: Dataset) -> Path:
    """index.html in a folder: the explorer of a run without a server.

    It decodes, shows points, walks and sums. What takes a server is left out: new rows, films, two runs at once. The
    held-out rows come first, up to 2,000 of them; they are in the page, so that it is for data that may be shown.
    """
    session = Session(run, data, most=most_points(run))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "index.html", page(session))
    return folder / "index.html"


def most_points(run: Run) -> int:
    """How many rows the page holds."""
    numbers = torch.Size(run.meta["shape"]).numel()
    return CELLED if run.values().schema is not None else max(50, min(POINTS, PICTURES // numbers))


def page(session: Session) -> str:
    """The whole file."""
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{session.name} · aevb"),
        tag("style", Html(read("style.css"))),
    ]
    scripts = [
        json_script("content", content(session)),
        Html(f'<script type="importmap">{import_map(needed(MAIN))}</script>'),
        Html(f'<script type="module">{start(MAIN)}</script>'),
    ]
    root = tag("div", tag("noscript", "This page needs JavaScript."), id="app")
    return f"<!doctype html>\n{tag('html', tag('head', *head), tag('body', root, *scripts), lang='en')}\n"


def content(session: Session) -> dict[str, Any]:
    """What static-backend.js answers from."""
    codes, found = session.points.codes.all(), decoder(session)
    facts = about(session)
    facts["can"] = {**facts["can"], **ABSENT}
    facts["views"] = [one for one in facts["views"] if one["name"] != NAME]  # which the page cannot lay out
    draws = prior_draws(session)
    made = None if isinstance(found, str) else found.fitting(DECODER)
    why = found if isinstance(found, str) else "" if made else "The decoder is too large for a page."
    return strict(
        {
            "about": facts,
            "views": {one["name"]: view(session, one["name"]) for one in facts["views"]},
            "codes": base64(codes.clamp(-6e4, 6e4).half()),
            "colours": {name: rounded(session.colours.of(name).all()) for name in session.colours.all},
            "rows": [row(session, i) | bound for i, bound in enumerate(bounds(session))],
            "pictures": None if session.schema is not None else pictures(session),
            "draws": [rounded(z) for z in draws[:DRAWS]],
            "centre": rounded(draws.mean(0)),
            "decoder": made,
            "below": steps_below(session.model, len(session.layers), session.context.classes) if made else [],
            "why": why,
        }
    )


def decoder(session: Session) -> PageDecoder | str:
    """The decoder, or why there is none."""
    classes = [str(c) for c in range(session.context.classes)]
    try:
        return page_decoder(session.model, session.values, session.limits, classes)
    except UnknownStep as error:
        return str(error)


def view(session: Session, name: str) -> dict[str, Any]:
    plane = session.plane(name)
    return {"origin": plane.origin.tolist(), "axes": plane.axes.tolist()}


def row(session: Session, i: int) -> dict[str, Any]:
    """What is known of one row without its neighbours."""
    rows = session.points.rows
    label = rows.split.labels
    found: dict[str, Any] = {"part": PARTS[int(rows.part[i])], "name": str(rows.names[i])}
    if label is not None:
        found |= {"label": named(session, int(label[i])), "y": int(label[i])}
    if session.schema is not None:
        found["cells"] = described(session, session.points.some([i]))
    return found


def bounds(session: Session) -> list[dict[str, float]]:
    """The ELBO of each row, and its two terms; nothing of a model without one."""
    n = len(session.points)
    try:
        found = elbo(session.model, session.points.data(slice(0, n)), samples=BOUND)
    except AevbError:
        return [{}] * n
    numbers = zip(*map(rounded, (found.elbo, found.reconstruction, found.kl.sum(1))), strict=True)
    return [dict(zip(("elbo", "reconstruction_term", "kl"), row, strict=True)) for row in numbers]


def pictures(session: Session) -> str:
    """All rows as bytes, from black to white, base64."""
    low, high = session.limits
    x = session.points.rows.split[torch.arange(len(session.points))]
    return base64(((x - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8))


def rounded(x: Tensor) -> list[float]:
    return [round(v, 4) for v in x.double().tolist()]


def base64(x: Tensor) -> str:
    return b64encode(x.cpu().contiguous().numpy().tobytes()).decode("ascii")
