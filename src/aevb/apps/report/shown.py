"""What a report shows of a model: reconstructions from best to worst, samples, what latents do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aevb.apps.report.markup import Html, joined, table, tag
from aevb.apps.report.pictures import grid
from aevb.apps.report.subject import Subject
from aevb.data import frames
from aevb.data.batch import take
from aevb.evaluation import two_sample
from aevb.evaluation.reports import fidelity
from aevb.figures.plots import FLAT, TIED, first_layer, quantiles
from aevb.notation import short
from aevb.probability.offers import support_of
from aevb.use.generate import generate
from aevb.use.reconstruct import decode, reconstruct
from aevb.use.traverse import traverse

KNOWN = 10_000  # train rows among which nearest neighbours are sought
SAMPLES, SIDE, MOVED, STEPS = 10, 12, 8, 9
FIELDS = 12  # columns of a table that are shown side by side


def reconstructions(s: Subject) -> Html:
    """Rows above what the model makes of them, from the best reconstruction to the worst."""
    order = s.bound.reconstruction.argsort(descending=True)
    places = torch.linspace(0, len(order) - 1, min(SAMPLES if s.images else 5, len(order))).round().long()
    chosen = order[places]
    score = s.bound.reconstruction[chosen] + s.split.log_abs_dets[chosen]
    x, y = s.split[chosen], reconstruct(s.model, take(s.rows, chosen.to(s.device)))
    said = f"From left, the best of {len(order):,} {s.side} rows, to right, the worst, by E[log p(x|z)]: "
    said += ", ".join(f"{v:.1f}" for v in score.tolist()) + " nats."
    if s.images:
        picture = grid(torch.cat([x, y.view_as(x)]), len(chosen), s.limits, "Rows above their reconstructions.")
        return joined([picture, tag("p", f"Above the rows, below their reconstructions. {said}", _class="note")])
    names = [f"{word} {v:.1f}" for word, v in zip(_ranks(len(chosen)), score.tolist(), strict=True)]
    return joined(
        [*_beside(s, x, y, names), tag("p", said.replace("left", "above").replace("right", "below"), _class="note")]
    )


def _ranks(n: int) -> list[str]:
    return ["best", *[""] * (n - 2), "worst"][-n:] if n > 1 else ["only"]


def samples(s: Subject) -> Html:
    """New data beside the train rows that are nearest to them."""
    n = SAMPLES if s.images else 5
    new = generate(s.model, n, seed=0, y=s.condition(n), draw=s.schema is not None)
    train = s.data.train.take(KNOWN).frozen()
    at = torch.as_tensor(_nearest(s, train, new))
    near = train[at]
    said = f"the nearest of {len(train):,} train rows. A model that has memorised rows gives copies of them."
    if s.images:
        picture = grid(torch.cat([new.view_as(near), near]), n, s.limits, "Samples above their nearest train rows.")
        return joined([picture, tag("p", f"Above samples from the prior, below {said}", _class="note")])
    parts = _beside(s, new, near, [f"sample {i + 1}" for i in range(n)], ("sample", "nearest train row"))
    return joined([*parts, tag("p", f"Below each sample {said}", _class="note")])


def _nearest(s: Subject, train: Any, new: Tensor) -> Any:
    """The train row that is nearest to each new one."""
    if s.schema is not None:
        kinds = [column.kind for column in s.schema.model]
        return two_sample.nearest_rows(train.stored.numpy(), s.schema.inverse(new).numpy(), kinds)
    return fidelity.nearest_rows(train[torch.arange(len(train))].flatten(1), new.flatten(1))


def _beside(s: Subject, x: Tensor, y: Tensor, names: list[str], of: tuple[str, str] = ("row", "reconstruction")) -> Any:
    """Rows of a table, two lines for each: of x, and of y."""
    head, cells = fields(s, x)
    _, others = fields(s, y)
    body = []
    for name, a, b in zip(names, cells, others, strict=True):
        body += [(name or "", of[0], *a), ("", of[1], *b)]
    return [table(("", "", *head), body, _class="pairs")]


def fields(s: Subject, x: Tensor) -> tuple[list[str], list[list[str]]]:
    """Names of columns, and the cells of rows x (N, F) of model numbers in words."""
    if s.schema is None:
        numbers = torch.as_tensor(s.data.train.values.inverse(x).astype("float64")).flatten(1)[:, :FIELDS]
        names = getattr(s.data, "columns", None) or [f"column {i}" for i in range(numbers.shape[1])]
        return list(names)[:FIELDS], [[short(v) for v in row] for row in numbers.tolist()]
    model = s.schema.model[:FIELDS]
    frame = frames.made(s.schema, s.schema.inverse(x).numpy()).table
    holes = x.isnan().numpy()
    columns = [
        ["missing" if hole else word(v) for v, hole in zip(frame[c.name].to_list(), holes[:, d], strict=True)]
        for d, c in enumerate(model)
    ]
    return [c.name for c in model], [list(row) for row in zip(*columns, strict=True)]


def word(value: Any) -> str:
    """A cell in a few characters."""
    if value is None:
        return "missing"
    return short(value) if isinstance(value, float) else str(value).removesuffix(" 00:00:00")


def walks(s: Subject) -> tuple[str, Html]:
    """The manifold of two latents, or what single latents do; a title and the picture."""
    y = s.condition(1)
    p = s.model.prior() if y is None else s.model.prior(y)
    if s.images and tuple(s.model.latent_shape) == (2,) and support_of(p) in FLAT:
        return "Manifold", _manifold(s, p, y)
    if support_of(p) in TIED:
        return "Latents", tag(
            "p", "The latents are codes, or tied to each other: none can be moved without the others.", _class="note"
        )
    return "What single latents do", _traversals(s)


def _manifold(s: Subject, p: Any, y: Tensor | None) -> Html:
    u = (torch.arange(SIDE, dtype=torch.float64) + 0.5) / SIDE
    with torch.no_grad():
        ticks = quantiles(p, u.to(s.device)).cpu()
    z = torch.stack([ticks[:, 0].repeat(SIDE), ticks[:, 1].flip(0).repeat_interleave(SIDE)], 1)
    said = "The means of p(x|z): z[0] to the right, z[1] upwards, in equal steps of the prior's mass."
    picture = grid(decode(s.model, z.float(), y), SIDE, s.limits, said)
    return joined([picture, tag("p", said + (f" Class {s.classes[0]}." if s.classes else ""), _class="note")])


def by_kl(s: Subject) -> tuple[list[int], list[float] | None]:
    """The latents that are decoded, those of the largest KL first, and the KL of each latent where it is known."""
    kl, size, read = s.bound.kl.mean(0), s.model.latent_shape.numel(), first_layer(s.model)
    known = len(kl) == size and bool(kl.isfinite().all())
    order = kl[:read].argsort(descending=True, stable=True) if known else torch.arange(read)
    return order.tolist(), kl.tolist() if known else None


def _traversals(s: Subject) -> Html:
    order, kl = by_kl(s)
    latents = order[:MOVED]
    found = traverse(s.model, take(s.rows, torch.zeros(1, dtype=torch.int64, device=s.device)), latents, steps=STEPS)
    low, high = short(float(found.values[0])), short(float(found.values[-1]))
    each = [f"z[{d}]" + ("" if kl is None else f", KL {kl[d]:.2f}") for d in latents]
    said = f"One latent moves from {low} to {high}, the others stay where the first {s.side} row is."
    if s.images:
        picture = grid(found.x.flatten(0, 1), STEPS, s.limits, said)
        return joined([picture, tag("p", f"{said} From above: {'; '.join(each)}.", _class="note")])
    body = []
    for name, row in zip(each, found.x, strict=True):
        head, cells = fields(s, row[[0, STEPS // 2, -1]])
        body += [
            (name if i == 0 else "", at, *line)
            for i, (at, line) in enumerate(zip((low, "middle", high), cells, strict=True))
        ]
    return joined([table(("latent", "at", *head), body, _class="pairs"), tag("p", said, _class="note")])
