"""Who may ask the server, and how much: Host, Origin and token are checked before any route is."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from aevb.apps.explorer.asked import BODY

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
TOKEN = b"x-aevb-token"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


@dataclass(frozen=True)
class Guard:
    """Refuses what does not come from the page itself; puts the security headers on all answers.

    Attributes:
        app: what is guarded; token: what requests to /api/ must carry; port: of the server.
        hosts: names by which the server may be called beside those of the loopback.
    """

    app: App
    token: str
    port: int
    hosts: tuple[str, ...] = field(default=())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # there are no web sockets here
            return await send({"type": "websocket.close", "code": 1008})
        headed = with_headers(send)
        headers = list(scope["headers"])
        refusal = self.refusal(scope, headers)
        if refusal:
            return await refuse(headed, *refusal)
        return await self.app(scope, limited(receive, headed), headed)

    def refusal(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> tuple[int, str] | None:
        """A status and a sentence, of a request that is not let through."""
        hosts, origins = values(headers, b"host"), values(headers, b"origin")
        if len(hosts) != 1 or not self.is_own(hosts[0]):
            return 421, "This server answers only under its own address."
        if any(not self.is_own(origin.removeprefix("http://")) for origin in origins):
            return 403, "This server takes no requests from other pages."
        if "/api/" in scope["path"] and not self.knows(values(headers, TOKEN)):
            return 403, "The token is missing or wrong. Open the link that aevb explore printed."
        if too_long(values(headers, b"content-length")):
            return 413, f"A request may have {BODY:,} bytes at most."
        return None

    def is_own(self, host: str) -> bool:
        """Whether a Host, or the host of an Origin, is this server."""
        names = {*LOOPBACK, *self.hosts}
        return host.lower() in {f"{name.lower()}:{self.port}" for name in names} | (names if self.port == 80 else set())

    def knows(self, tokens: list[str]) -> bool:
        return len(tokens) == 1 and hmac.compare_digest(tokens[0].encode(), self.token.encode())


def values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


def too_long(lengths: list[str]) -> bool:
    return any(not (text.isascii() and text.isdecimal()) or int(text[:20]) > BODY for text in lengths)


async def refuse(send: Send, status: int, words: str) -> None:
    body = json.dumps({"error": words}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def with_headers(send: Send) -> Send:
    """A `send` that puts the security headers on an answer."""

    async def headed(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *HEADERS]
        await send(message)

    return headed


class TooMuch(Exception):
    """A body that goes on beyond the limit, whatever its header said."""


def limited(receive: Receive, send: Send) -> Receive:
    """A `receive` that gives up on a body beyond the limit."""
    seen = 0

    async def counted() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > BODY:
            raise TooMuch
        return message

    return counted
