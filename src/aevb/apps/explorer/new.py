"""New data on the map: a drawing, a picture, a row that was typed; and films of a walk."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from aevb.apps.explorer.curved import NAME
from aevb.apps.explorer.detail import looked_at
from aevb.apps.explorer.session import Session, strict
from aevb.data.batch import Indexable, log_abs_dets
from aevb.data.dataset import Split
from aevb.errors import AevbError, AevbWarning, DataError
from aevb.evidence.importance import log_marginal
from aevb.use.conformal import percentiles
from aevb.use.encode import encode
from aevb.use.plane import ellipse

CALIBRATION = 300  # held-out rows that a new row is compared with, at most
SAMPLES = 200  # importance samples of its score
PIXELS = 40_000_000  # of a picture, at most
ENLARGED = 160  # pixels of the shorter side of a film, at least
FRAME = 90  # milliseconds


def read(session: Session, split: Split, view: str, y: int | None) -> dict[str, Any]:
    """A new row: encoded, reconstructed, placed in a view, scored among held-out rows."""
    if session.classes:
        session.conditions(y)
        split = replace(split, labels=torch.tensor([next(iter(session.classes)) if y is None else y]))
    data = session.context.rows(split, "cpu")
    z = encode(session.model, data).flatten(1)
    plane = session.plane(view)
    oval = None if view == NAME else vars(ellipse(session.model, data, plane))  # on no plane there is none
    found = {"z": z[0].tolist(), "ellipse": oval, **looked_at(session, split, data)}
    partly = bool(split.stored.isnan().any()) if session.schema is not None else False
    score = {} if partly else scored(session, data)  # a density of fewer cells is not to be compared
    return strict({**found, **score})


def scored(session: Session, data: Indexable) -> dict[str, Any]:
    """log p(x), and the share of held-out rows that are less odd; nothing of a model that is no density."""
    try:
        own = log_marginal(session.model, data, SAMPLES)
        others = session.colours.of("log_px").more(CALIBRATION - 1)
        others = session.colours.of("log_px").more(0)[:CALIBRATION]
    except AevbError:
        return {}
    log_px = own.log_px + log_abs_dets(data)
    below = float(percentiles(log_px, others)[0])
    return {"log_px": float(log_px[0]), "se": float(own.se[0]), "odder": 100 - below, "calibration": len(others)}


# Pictures


def drawing(session: Session, grey: list[float], centre: bool) -> Split:
    """A drawing of C · H · W intensities from 0 to 1 as a row of the model's data.

    Raises:
        DataError: there are others than so many.
    """
    if len(grey) != int(np.prod(session.shape)):
        raise DataError(f"A drawing for this model has {int(np.prod(session.shape))} pixels; got {len(grey)}.")
    x = np.clip(np.asarray(grey, np.float64), 0, 1).reshape(session.shape)
    if centre and (len(session.shape) == 2 or session.shape[0] == 1):
        x = centred(x, middle(session))
    return as_row(session, x)


def as_row(session: Session, x: NDArray[Any]) -> Split:
    """Intensities from 0 to 1 as a row, in the numbers that the model's data are stored in."""
    values = session.values
    if values.support == "real":
        stored = session.points.rows.split.stored
        low, high = float(stored.min()), float(stored.max())
        return Split((torch.from_numpy(x) * (high - low) + low).to(stored.dtype)[None], None, values)
    from aevb.data.unsplit import Reader, Unsplit

    fractions = values.divisor == 1.0 and values.levels != 2
    levels = x if fractions else np.rint(x * (values.levels - 1)).astype(np.uint8)
    reader = Reader(session.shape, values, "", "the model")
    return reader.split(Unsplit("the picture", levels[None].astype(np.float32 if fractions else np.uint8)))


def middle(session: Session) -> tuple[float, float]:
    """Where the mass of the data is on average, in rows and columns of pixels."""
    few = session.points.some(slice(0, 200)).stored.double().numpy()
    return mass_at(few.mean(0).reshape(-1, *session.shape[-2:]).mean(0))


def mass_at(x: NDArray[Any]) -> tuple[float, float]:
    total = x.sum() or 1.0
    rows, columns = np.indices(x.shape)
    return float((rows * x).sum() / total), float((columns * x).sum() / total)


def centred(x: NDArray[Any], goal: tuple[float, float]) -> NDArray[Any]:
    """A picture, moved by whole pixels so that its mass is where that of the data is; what leaves it is lost."""
    plane = x.reshape(-1, *x.shape[-2:])
    at = mass_at(plane.mean(0))
    shift = [round(goal[k] - at[k]) for k in (0, 1)] if plane.sum() else [0, 0]
    wide = np.pad(plane, ((0, 0), *((abs(s), abs(s)) for s in shift)))
    rows, columns = (slice(abs(s) - s, abs(s) - s + n) for s, n in zip(shift, plane.shape[1:], strict=True))
    return np.ascontiguousarray(wide[:, rows, columns]).reshape(x.shape)


def picture(session: Session, content: bytes) -> Split:
    """A picture file as a row: brought to the size and the channels of the data.

    Raises:
        DataError: it is no picture that can be read, or too large a one.
    """
    if session.kind != "image":
        raise DataError("This model reads no pictures.")
    channels = 1 if len(session.shape) == 2 else session.shape[0]
    height, width = session.shape[-2:]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = Image.open(io.BytesIO(content))
            if file.width * file.height > PIXELS:
                raise DataError(f"The picture has more than {PIXELS:,} pixels. Make it smaller.")
            image = file.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.LANCZOS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError("This picture cannot be read. Give a PNG or a JPEG.") from error
    if channels not in (1, 3):
        raise DataError(f"The model reads {channels} channels, but a picture has 1 or 3.")
    x = np.asarray(image, np.float64) / 255
    return as_row(session, (x[None] if x.ndim == 2 else np.moveaxis(x, 2, 0)).reshape(session.shape))


def row_of(session: Session, given: dict[str, str]) -> Split:
    """What was typed, as a row of a table."""
    if session.schema is None:
        raise DataError("This model reads no tables with columns.")
    from aevb.apps.explorer.cells import typed

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AevbWarning)
        return typed(session, given)


def first_row(session: Session, text: str) -> dict[str, str]:
    """The first row of a CSV file."""
    if session.schema is None:
        raise DataError("This model reads no tables with columns.")
    from aevb.apps.explorer.cells import row_in

    return row_in(text, session)


# Films


def film(session: Session, x: Tensor, kind: str) -> bytes:
    """Images (N, *X) as a GIF that plays, or as a strip in a PNG.

    Raises:
        DataError: they are no images.
    """
    if session.kind != "image":
        raise DataError("Only images can be saved as a GIF or a PNG.")
    frames = [large(frame) for frame in as_images(x, session.limits)]
    out = io.BytesIO()
    if kind == "gif":
        frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=FRAME, loop=0)
    else:
        strip(frames).save(out, "PNG", optimize=True)
    return out.getvalue()


def as_images(x: Tensor, limits: tuple[float, float]) -> list[Image.Image]:
    """Images (N, H, W) or (N, C, H, W) of grey, or of colours where C is 3."""
    low, high = limits
    planes = x.reshape(len(x), -1, *x.shape[-2:])
    planes = planes if planes.shape[1] in (1, 3) else planes.mean(1, keepdim=True)
    levels = ((planes - low) / (high - low)).clamp(0, 1).mul(255).round().byte().numpy()
    return [Image.fromarray(one[0] if len(one) == 1 else np.moveaxis(one, 0, 2)) for one in levels]


def large(image: Image.Image) -> Image.Image:
    factor = max(1, -(-ENLARGED // min(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def strip(frames: list[Image.Image], gap: int = 4) -> Image.Image:
    """Images beside one another, at most 16 of them, evenly taken."""
    step = max(1, -(-len(frames) // 16))
    chosen = frames[::step]
    width, height = frames[0].size
    whole = Image.new(frames[0].mode, (len(chosen) * (width + gap) - gap, height), "white")
    for i, frame in enumerate(chosen):
        whole.paste(frame, (i * (width + gap), 0))
    return whole
