"""HTML that is built, not written: text is always escaped, so that no value of the data is ever markup."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

VOID = ("br", "img", "input", "meta", "link")


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element; what is no `Html` is escaped. `_class` stands for class, `data_x` for data-x; None is left out."""
    given = {key.strip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    inside = "".join(f' {key}="{escape(str(value))}"' for key, value in given.items())
    return Html(f"<{name}{inside}>" if name in VOID else f"<{name}{inside}>{joined(children)}</{name}>")


def joined(children: Iterable[Any]) -> Html:
    """Elements and texts side by side."""
    return Html("".join(child if isinstance(child, Html) else escape(str(child)) for child in children))


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], numeric: Sequence[int] = (), **attributes: Any) -> Html:
    """A table that scrolls sideways where it is wider than the page.

    Args:
        numeric: which columns are set to the right.
    """

    def line(cells: Sequence[Any], kind: str) -> Html:
        return tag("tr", *(tag(kind, cell, _class="n" if i in numeric else None) for i, cell in enumerate(cells)))

    parts = [tag("thead", line(head, "th"))] if any(head) else []
    body = tag("tbody", *(line(row, "td") for row in rows))
    return tag("div", tag("table", *parts, body, **attributes), _class="wide", tabindex="0")


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as an address that loads nothing."""
    return f"data:{kind};base64,{b64encode(content).decode('ascii')}"


def json_script(identity: str, content: Any) -> Html:
    """JSON inside of a page; no text in it can end the element."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Html(f'<script type="application/json" id="{escape(identity)}">{safe}</script>')
