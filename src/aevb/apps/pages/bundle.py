"""Modules of a page inside of the page: as data addresses, which an import map names."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Sequence
from importlib import resources

STATIC = resources.files("aevb.apps.pages").joinpath("static")
IMPORT = re.compile(r"""((?:from|import)\s*)(["'])\./([\w-]+\.js)\2""")
POLICY = "default-src 'none'; script-src 'unsafe-inline' data:; style-src 'unsafe-inline'; img-src data: blob:"


def read(name: str) -> str:
    """A file of `static`."""
    return STATIC.joinpath(name).read_text(encoding="utf-8")


def needed(first: str) -> list[str]:
    """The modules that one needs, itself the last."""
    found: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in found:
            found[name] = None
            for _, _, other in IMPORT.findall(read(name)):
                visit(other)

    visit(first)
    return [*found][::-1]


def import_map(names: Sequence[str]) -> str:
    """JSON: where each module is."""
    return json.dumps({"imports": {f"aevb/{name}": _address(read(name)) for name in names}})


def start(name: str) -> str:
    """The script that begins."""
    return f'import "aevb/{name}";'


def _address(code: str) -> str:
    named = IMPORT.sub(r"\1\2aevb/\3\2", code)
    return f"data:text/javascript;base64,{b64encode(named.encode()).decode('ascii')}"
