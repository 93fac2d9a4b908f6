"""Small runs to be explored, and a browser of a few lines: it asks an application without a network."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aevb.runs.fit import fit
from aevb.runs.recipe import Recipe
from aevb.runs.store import Run

TOKEN, PORT = "the-token", 8765
OWN = {"host": f"127.0.0.1:{PORT}", "x-aevb-token": TOKEN}
MARKUP = "<script>alert(1)</script>"


def images(folder: Path, recipe: str = "gaussian", classes: int = 3, **changes: Any) -> Run:
    """A run on 90 images of 5×6 pixels, in three classes: a bright band that moves."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % classes
    x = rng.integers(0, 60, (90, 1, 5, 6))
    for i, c in enumerate(y):
        x[i, 0, :, c : c + 3] += 150
    np.savez(folder / "bands.npz", x=x.astype(np.uint8), y=y)
    chosen = Recipe.load(recipe).replace(data__source=str(folder / "bands.npz"), training__samples=600, **changes)
    from aevb.runs.sources import read

    return fit(chosen, read(chosen), folder / recipe)


def table(folder: Path) -> Run:
    """A run on a table with holes, of which one column is called like markup."""
    rng = np.random.default_rng(1)
    a = rng.normal(10, 2, 120)
    lines = [f"age,{MARKUP},city"]
    for i, value in enumerate(a):
        other = "" if i % 7 == 0 else f"{2 * value + rng.normal():.2f}"
        lines.append(f"{value:.2f},{other},{'Seoul' if value > 10 else 'Busan'}")
    (folder / "people.csv").write_text("\n".join(lines) + "\n")
    chosen = Recipe.load("table").replace(data__source=str(folder / "people.csv"), training__samples=1200, latent=2)
    from aevb.runs.sources import read

    return fit(chosen, read(chosen), folder / "table")


@dataclass(frozen=True)
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def table(self) -> Any:
        return json.loads(self.body)

    @property
    def floats(self) -> np.ndarray:
        return np.frombuffer(self.body, "<f4")


async def asked(app: Any, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answered:
    """One request to an ASGI application."""
    where, _, query = path.partition("?")
    got: dict[str, Any] = {"body": b""}
    parts = [body[i : i + 2**20] for i in range(0, len(body), 2**20)] or [b""]

    async def receive() -> dict[str, Any]:
        if not parts:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            got["status"] = message["status"]
            got["headers"] = {k.decode().lower(): v.decode() for k, v in message["headers"]}
        else:
            got["body"] += message.get("body", b"")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": where,
        "raw_path": where.encode(),
        "query_string": query.encode(),
        "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()],
        "scheme": "http",
        "root_path": "",
        "server": ("127.0.0.1", PORT),
        "client": ("127.0.0.1", 5),
    }
    await app(scope, receive, send)
    return Answered(got["status"], got["headers"], got["body"])


def get(app: Any, path: str, **headers: str) -> Answered:
    return asyncio.run(asked(app, "GET", path, {**OWN, **{k.replace("_", "-"): v for k, v in headers.items()}}))


def post(app: Any, path: str, table: Any, **headers: str) -> Answered:
    body = table if isinstance(table, bytes) else json.dumps(table).encode()
    whole = {**OWN, "content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return asyncio.run(asked(app, "POST", path, whole, body))
