"""The routes of the explorer: questions of the page, as JSON or as float32 numbers, little-endian."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import torch
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from aevb.apps.explorer import asked, new
from aevb.apps.explorer.about import about
from aevb.apps.explorer.asked import LONGEST, Refused
from aevb.apps.explorer.curved import NAME
from aevb.apps.explorer.detail import exported, point, selection
from aevb.apps.explorer.safety import App, Guard, TooMuch
from aevb.apps.explorer.session import Session, plain
from aevb.errors import AevbError

SCRIPTS = (
    *("main", "app", "panels", "newdata", "walk", "live", "side", "table", "dom"),
    *("backend", "map", "picture", "sliders", "words", "chart", "compare", "curved"),
)
STATIC = {
    "": ("index.html", "text/html; charset=utf-8"),
    **{f"{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in SCRIPTS},
    "style.css": ("style.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
RECORDS = 2000  # of a training that a page draws, at most
Ask = Mapping[str, Any]  # a query, or the object of a body
Answer = Callable[[Session, Ask], Response]


@dataclass(frozen=True)
class Explorer:
    """What is served: sessions by their place in the address, and the routes of a training that is followed."""

    sessions: Mapping[str, Session]
    extra: Sequence[Route] = field(default=())


def numbers(x: Tensor, **headers: Any) -> Response:
    """Numbers as float32, little-endian."""
    array = x.detach().float().contiguous().numpy()
    content = (array if sys.byteorder == "little" else array.byteswap()).tobytes()
    return Response(content, media_type="application/octet-stream", headers={k: str(v) for k, v in headers.items()})


def tell(found: Any) -> Response:
    return JSONResponse(plain(found))


# What can be asked, with a GET


def ask_about(session: Session, query: Ask) -> Response:
    return tell(about(session))


def ask_view(session: Session, query: Ask) -> Response:
    plane = session.plane(named(query))
    return tell({"origin": plane.origin, "axes": plane.axes, "curved": named(query) == NAME})


def ask_codes(session: Session, query: Ask) -> Response:
    start, points = asked.asked_whole(query, "start"), session.points
    found = points.codes.more(start) if start < len(points) else torch.zeros(0, session.size)
    return numbers(found, **{"X-Aevb-Total": len(points)})


def ask_points(session: Session, query: Ask) -> Response:
    start = asked.asked_whole(query, "start")
    view = str(query.get("view", ""))
    return numbers(session.places(view, start), **{"X-Aevb-Total": len(session.points)})


def ask_colour(session: Session, query: Ask) -> Response:
    return numbers(session.colours.numbers(named(query), asked.asked_whole(query, "start")))


def ask_curves(session: Session, query: Ask) -> Response:
    return tell({"records": records(session.run.metrics())})


def ask_point(session: Session, query: Ask) -> Response:
    return tell(point(session, asked.asked_whole(query, "index")))


def records(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What curves need of the lines of a run's metrics; of many lines, some, evenly taken."""
    step = -(-len(lines) // RECORDS) or 1
    return [{key: line[key] for key in ("samples", "train", "validation") if key in line} for line in lines[::step]]


def named(query: Ask) -> str:
    return str(query.get("name", ""))


# With a POST


def ask_decode(session: Session, body: Ask) -> Response:
    z, y = session.codes(asked.codes(body)), asked.optional_class(body)
    layer = asked.whole(body.get("layer", 0), "layer")
    if session.schema is None:
        return numbers(session.decoded(z, y, layer))
    from aevb.apps.explorer.cells import table_cells

    condition = session.conditions(y)
    rows = table_cells(session, session.followed(z, layer, condition), condition)
    return tell({"rows": [{"cells": cells} for cells in rows]})


def ask_thumbnails(session: Session, body: Ask) -> Response:
    indices = asked.indices(body, 400)
    session.points.check(indices)
    return numbers(session.points.some(indices)[torch.arange(len(indices))])


def ask_sample(session: Session, body: Ask) -> Response:
    temperature = asked.number(body.get("temperature", 1), "temperature", 0, 3)
    seed = asked.whole(body.get("seed", 0), "seed", 0, 2**31)
    found = session.sample(temperature, asked.optional_class(body), seed, asked.whole(body.get("n", 1), "n", 1, 64))
    return tell({"z": found[0], "zs": found})


def ask_walk(session: Session, body: Ask) -> Response:
    z = session.codes(asked.codes(body, 20, 2))
    steps = asked.whole(body.get("steps", 12), "steps", 2, 60)
    how = asked.chosen(body, "how", ("linear", "spherical"))
    return tell({"z": session.walk(z, steps, how == "spherical")})


def ask_selection(session: Session, body: Ask) -> Response:
    return tell(selection(session, asked.indices(body, len(session.points))))


def ask_export(session: Session, body: Ask) -> Response:
    text = exported(session, asked.indices(body, len(session.points)))
    return Response(text, media_type="text/csv; charset=utf-8")


def ask_film(session: Session, body: Ask) -> Response:
    kind = asked.chosen(body, "kind", ("gif", "png"))
    z = session.codes(asked.codes(body, asked.FRAMES))
    return Response(new.film(session, session.decoded(z, asked.optional_class(body)), kind), media_type=f"image/{kind}")


def ask_read(session: Session, body: Ask) -> Response:
    y, view = asked.optional_class(body), str(body.get("view", session.view_names()[0]))
    if "pixels" in body:
        size = int(torch.Size(session.shape).numel())
        grey = asked.listed(body["pixels"], "pixels", size, lambda v: asked.number(v, "each pixel", 0, 1), size)
        split = new.drawing(session, grey, body.get("centre") is True)
    elif "csv" in body:
        split = new.row_of(session, new.first_row(session, asked.texts({"csv": body["csv"]}, "csv", asked.BODY)["csv"]))
    else:
        split = new.row_of(session, asked.texts(body.get("cells"), "cells", LONGEST))
    return tell(new.read(session, split, view, y))


GETS: dict[str, Answer] = {
    "about": ask_about,
    "view": ask_view,
    "points": ask_points,
    "colour": ask_colour,
    "point": ask_point,
    "curves": ask_curves,
    "codes": ask_codes,
}
POSTS: dict[str, Answer] = {
    "decode": ask_decode,
    "thumbnails": ask_thumbnails,
    "sample": ask_sample,
    "walk": ask_walk,
    "selection": ask_selection,
    "export": ask_export,
    "film": ask_film,
    "read": ask_read,
}


def get_route(path: str, answer: Answer, session: Session) -> Route:
    async def handle(request: Request) -> Response:
        return await run_in_threadpool(answer, session, dict(request.query_params))

    return Route(path, refusing(handle), methods=["GET"])


def post_route(path: str, answer: Answer, session: Session) -> Route:
    async def handle(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise Refused(415, "The request must be JSON: application/json.")
        table = asked.table_in(await request.body())
        return await run_in_threadpool(answer, session, table)

    return Route(path, refusing(handle), methods=["POST"])


def picture_route(path: str, session: Session) -> Route:
    async def handle(request: Request) -> Response:
        content, query = await request.body(), request.query_params
        view = query.get("view", session.view_names()[0])
        y = asked.asked_whole(query, "y") if query.get("y") else None

        def answer() -> Response:
            return tell(new.read(session, new.picture(session, content), view, y))

        return await run_in_threadpool(answer)

    return Route(path, refusing(handle), methods=["POST"])


def refusing(handle: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """A handler that says what is wrong with a request, instead of failing."""

    async def safe(request: Request) -> Response:
        try:
            found: Response = await handle(request)
        except Refused as error:
            return oops(error.status, str(error))
        except AevbError as error:
            return oops(422, str(error))
        except TooMuch:
            return oops(413, f"A request may have {asked.BODY:,} bytes at most.")
        except ClientDisconnect:
            return oops(400, "The request ended too early.")
        return found

    return safe


def oops(status: int, words: str) -> Response:
    return JSONResponse({"error": words}, status_code=status)


async def unknown(request: Request, error: Exception) -> Response:
    """A route or a method that there is not."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    return oops(status, "There is no such page." if status == 404 else "This page does not allow this method.")


def static_route(name: str) -> Route:
    file, kind = STATIC[name]
    content = files("aevb.apps.pages").joinpath("static", file).read_bytes()

    async def handle(request: Request) -> Response:
        return Response(content, headers={"content-type": kind})

    return Route(f"/{name}", handle, methods=["GET"])


def routes(explorer: Explorer) -> list[Route]:
    found = [static_route(name) for name in STATIC]
    for place, session in explorer.sessions.items():
        found += [get_route(f"{place}/api/{name}", answer, session) for name, answer in GETS.items()]
        found += [post_route(f"{place}/api/{name}", answer, session) for name, answer in POSTS.items()]
        found.append(picture_route(f"{place}/api/picture", session))
    return [*found, *explorer.extra]


def application(explorer: Explorer, token: str, port: int, hosts: tuple[str, ...] = ()) -> App:
    """The whole application, guarded."""
    handlers: dict[Any, Any] = {404: unknown, 405: unknown}
    app = Starlette(routes=routes(explorer), exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, token, port, hosts)
