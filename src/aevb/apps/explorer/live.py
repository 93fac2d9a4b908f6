"""A training that is followed from a page: its records as server-sent events, its weights as the map forms.

The training knows nothing of it: what it writes into its folder, metrics and checkpoints, is read from there.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from aevb.apps import show
from aevb.apps.explorer.points import Points
from aevb.apps.explorer.server import Explorer
from aevb.apps.explorer.session import Session
from aevb.apps.explorer.start import Address, Server, bound, opened
from aevb.data.dataset import Dataset
from aevb.errors import AevbError
from aevb.runs.build import build_model
from aevb.runs.checkpoint import place
from aevb.runs.files import read_tensors
from aevb.runs.recipe import Recipe
from aevb.runs.store import Run

PAUSE = 0.5  # seconds between two looks into the folder
FOLLOWED = 2000  # points of the map: they are encoded anew by the weights of every checkpoint
CHECKPOINT = 3.0  # seconds between two checkpoints of a training that is watched


@dataclass
class Live:
    """A training in a folder, as a page follows it.

    Attributes:
        path: the run's folder, which may not be there yet; session: what is asked about the model of now.
        total: training samples; stop: ends the training and saves it; ended: set when it has ended.
    """

    path: Path
    session: Session
    total: int
    stop: Callable[[], None]
    ended: threading.Event = field(default_factory=threading.Event)
    seen: float = 0.0

    def records(self, start: int) -> list[dict[str, Any]]:
        """The lines of the metrics from number `start` on."""
        try:
            lines = Run.open(self.path).metrics()[start:]
        except (AevbError, OSError):
            return []
        kept = ("samples", "train", "validation")
        return [{"kind": "record", "total": self.total, **{k: line[k] for k in kept if k in line}} for line in lines]

    def renew(self) -> bool:
        """Take the weights of the last checkpoint; whether there was a newer one."""
        file = place(self.session.run)
        try:
            now = file.stat().st_mtime
            if now == self.seen:
                return False
            tensors, _ = read_tensors(file)
            weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
            self.take(weights)
        except (AevbError, OSError, RuntimeError):
            return False  # it is being written; the next look finds it
        self.seen = now
        return True

    def take(self, weights: dict[str, Any]) -> None:
        session = self.session
        with session.lock:
            session.model.load_state_dict(weights)
            session.points = Points(session.model, session.points.rows, session.context)
            session.planes.clear()
            session.colours.kept.clear()

    async def events(self) -> AsyncIterator[str]:
        """All records that there are, then those that come; that there are new weights; the end."""
        start, seen = 0, 0.0
        while True:
            over = self.ended.is_set()
            await run_in_threadpool(self.renew)
            for record in await run_in_threadpool(self.records, start):
                start += 1
                yield event(record)
            if self.seen != seen:
                seen = self.seen
                yield event({"kind": "weights"})
            if over:
                yield event({"kind": "end"})
                return
            await asyncio.sleep(PAUSE)

    def routes(self) -> list[Route]:
        async def follow(request: Request) -> Response:
            return StreamingResponse(self.events(), media_type="text/event-stream")

        async def end(request: Request) -> Response:
            await request.body()
            self.stop()
            return JSONResponse({"stopping": True})

        return [Route("/api/events", follow, methods=["GET"]), Route("/api/stop", end, methods=["POST"])]


def event(table: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(table)}\n\n"


def interrupt() -> None:
    """As Ctrl-C: the training saves what it has, and can be resumed. A job in the background ignores Ctrl-C."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    os.kill(os.getpid(), signal.SIGTERM if ignored else signal.SIGINT)


def followed(path: Path, recipe: Recipe, data: Dataset, stop: Callable[[], None] = interrupt) -> Live:
    """A training that is about to begin in a folder."""
    chosen = recipe.of(data)
    levels = data.train.values.levels
    run = Run(path, chosen, {"shape": list(data.shape), "levels": levels, "class_names": data.class_names})
    if chosen.context().classes and data.train.labels is not None:
        run.meta["classes"] = data.train.labels.unique().tolist()
    session = Session(run, data, build_model(chosen, data.shape, levels).eval(), FOLLOWED)
    session.can["live"] = True
    return Live(path, session, chosen.training().samples, stop)


@contextmanager
def watched(path: Path, recipe: Recipe, data: Dataset, browser: bool = True) -> Iterator[Live]:
    """Run a training inside of this block, and show it on a page until the block ends."""
    live = followed(path, recipe, data)
    listening, port = bound("127.0.0.1", None)
    address = Address("127.0.0.1", port)
    with Server(Explorer({"": live.session}, extra=live.routes()), address, listening):
        opened(address, browser)
        try:
            yield live
        finally:
            live.ended.set()
            show.note("the page of the training has ended; open the run with: aevb explore")
            threading.Event().wait(2 * PAUSE)  # so that the page hears of it
