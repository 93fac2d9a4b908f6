"""What the page needs to move through the latent space: codes of rows, the plane of the map, ranges of latents."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import torch
from sklearn.decomposition import PCA
from torch import Tensor

from aevb.apps.pages.decoder import PageDecoder, page_decoder
from aevb.apps.pages.graph import UnknownStep
from aevb.apps.report.pictures import sheet_of_thumbs
from aevb.apps.report.shown import FIELDS, by_kl, fields
from aevb.apps.report.subject import Subject
from aevb.data.columns import CODED
from aevb.errors import AevbError
from aevb.figures.plots import TIED, quantiles
from aevb.probability.offers import support_of

SPAN = (0.00135, 0.5, 0.99865)  # of the prior's mass: ±3σ of a normal
NUMBERS = 200_000  # of codes that the page holds, at most
CELLS = 20_000  # of a table that the page holds as text, at most
COLOURS = 12  # columns of a table by which points can be coloured


def content(s: Subject) -> dict[str, Any]:
    """All but the decoder, for JSON."""
    return {"latent": latent(s), "map": points(s), "classes": list(s.classes), "form": form(s)}


def form(s: Subject) -> str:
    return "image" if s.images else "table"


def decoder(s: Subject) -> PageDecoder | str:
    """The decoder for the page, or why there is none."""
    try:
        return page_decoder(s.model, s.data.train.values, s.limits, s.classes)
    except UnknownStep as error:
        return str(error)


def latent(s: Subject) -> dict[str, Any]:
    """Names, KL, order and ranges of the latents; `free` says whether one can be moved without the others."""
    order, kl = by_kl(s)
    size = s.codes.shape[1]
    found = {"size": size, "order": order, "kl": kl, "names": [f"z[{d}]" for d in range(size)]}
    y = s.condition(1)
    try:
        with torch.no_grad():
            p = s.model.prior() if y is None else s.model.prior(y)
            free = support_of(p) not in TIED
            ends = quantiles(p, torch.tensor(SPAN, dtype=torch.float64, device=s.device)).cpu() if free else None
    except (AevbError, NotImplementedError):
        ends = None
    if ends is None:
        return {**found, "free": False}
    low, middle, high = (_rounded(row) for row in ends)
    return {**found, "free": True, "low": low, "middle": middle, "high": high}


def _rounded(x: Tensor) -> list[float]:
    return [round(v, 4) for v in x.double().tolist()]


def points(s: Subject) -> dict[str, Any]:
    """The points of the map: codes (N, D), base64 of float16, the plane on which they lie, and what colours them."""
    n = min(len(s.codes), max(100, NUMBERS // s.codes.shape[1]))
    few = torch.arange(n)
    found: dict[str, Any] = {"codes": packed(s.codes[:n]), "count": n, "side": s.side, "plane": plane(s.codes)}
    found["colours"] = [{**one, "values": one["values"][:n]} for one in colours(s)]
    if s.images:
        found["thumbs"] = sheet_of_thumbs(s.split[few], s.limits)
    else:
        found["fields"], found["cells"] = fields(s, s.split[few[: max(1, CELLS // FIELDS)]])
    return found


def packed(x: Tensor) -> str:
    """Numbers as base64 of float16."""
    return b64encode(x.detach().cpu().clamp(-6e4, 6e4).half().contiguous().numpy().tobytes()).decode("ascii")


def plane(codes: Tensor) -> dict[str, Any]:
    """The plane of the map: two latents themselves, or the first two principal components of the codes."""
    if codes.shape[1] <= 2 or len(codes) < 2:
        axes = torch.eye(2, codes.shape[1])
        return {"name": "latents", "mean": [0.0] * codes.shape[1], "axes": axes.tolist()}
    found = PCA(2, random_state=0).fit(codes.double().numpy())
    share = float(found.explained_variance_ratio_.sum())
    name = f"principal components, {share:.0%} of the variance"
    return {"name": name, "mean": found.mean_.tolist(), "axes": found.components_.tolist()}


def colours(s: Subject) -> list[dict[str, Any]]:
    """By what points can be coloured: labels, the bound and its parts, columns of a table."""
    found: list[dict[str, Any]] = []
    if s.split.labels is not None:
        names = list(s.data.class_names or map(str, range(s.data.classes)))
        found.append({"name": "label", "levels": names, "values": s.split.labels.tolist()})
    bounds = {"ELBO, nats": s.bound.elbo + s.split.log_abs_dets, "KL, nats": s.bound.kl.sum(1)}
    for name, each in bounds.items():
        if bool(each.isfinite().all()):
            found.append({"name": name, "values": _rounded(each)})
    return [*found, *_of_columns(s)]


def _of_columns(s: Subject) -> list[dict[str, Any]]:
    if s.schema is None:
        return []
    pairs = list(zip(s.schema.model, s.split.stored.unbind(1), strict=True))[:COLOURS]
    return [
        {"name": c.name, "values": [None if v != v else round(v, 4) for v in cells.tolist()]}
        | ({"levels": [*map(str, c.levels), "not in training"]} if c.kind in CODED else {})
        for c, cells in pairs
    ]
