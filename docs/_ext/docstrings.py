"""The docstrings of the library, which are plain text, as reStructuredText: sections, equations and bare symbols."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent

SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields|Example):\s*$")
ITEM = re.compile(r"^(\*{0,2}\w[\w, *]*?): +(.*)$")
CODE = re.compile(r"(`[^`]+`)")


def blocks(text: str) -> list[str]:
    """What blank lines set apart; of one block all lines are indented, or the first is not."""
    return [block for block in re.split(r"\n\s*\n", text.strip("\n")) if block.strip()]


def escaped(text: str) -> str:
    """Text with `code` in it; *X and |x| are symbols here, and no markup."""
    parts = CODE.split(" ".join(text.split()))
    return "".join(code(p) if p.startswith("`") else re.sub(r"([\\*|_<>])", r"\\\1", p) for p in parts)


def code(text: str) -> str:
    """`text` in backticks: a link where it is a public name, or a method of one."""
    words = text.strip("`").removeprefix("aevb.")
    known = re.fullmatch(r"\w+(\.\w+)?", words) and words.split(".")[0] in public_names()
    return f":py:obj:`{words} <aevb.{words}>`" if known else f"``{text.strip('`')}``"


@cache
def public_names() -> dict[str, str]:
    """The module of each public name, below aevb, in the order of `__init__.pyi`."""
    text = (ROOT / "src" / "aevb" / "__init__.pyi").read_text(encoding="utf-8")
    return {name: module for module, name in re.findall(r"(?m)^from \.([\w.]+) import \w+ as (\w+)$", text)}


def paragraph(block: str) -> Iterator[str]:
    """A paragraph, a list, or, where all lines are indented, an equation."""
    lines = block.splitlines()
    if lines[0].startswith(">>>"):
        yield from lines
    elif lines[0].startswith("    "):
        yield from ("::", "", *(f"    {line}" for line in textwrap.dedent(block).splitlines()))
    elif lines[0].startswith("- "):
        for item in re.split(r"(?m)^- ", block)[1:]:
            yield f"- {escaped(item)}"
    else:
        yield f"\\ {escaped(block)}"  # an escaped space: "L." alone is no list
    yield ""


def items(body: str) -> list[tuple[str, str]]:
    """The (names, text) of a section: what is indented no further than its first line."""
    found: list[tuple[str, str]] = []
    for line in textwrap.dedent(body).splitlines():
        begun = ITEM.match(line)
        if begun:
            found.append((begun[1], begun[2]))
        elif found:
            found[-1] = (found[-1][0], f"{found[-1][1]}\n{line.removeprefix('    ')}")
    return found


def section(name: str, body: str) -> Iterator[str]:
    """A section as a rubric and a list of definitions."""
    yield from (f".. rubric:: {name}", "")
    listed = items(body)
    if not listed:
        yield from restructured(textwrap.dedent(body))
    for names, text in listed:
        yield from (escaped_name(names), *(f"    {line}" for line in restructured(text)), "")


def escaped_name(names: str) -> str:
    return ", ".join(f"``{name.strip()}``" for name in names.split(","))


def sections(text: str) -> list[tuple[str, str]]:
    """(heading, text) one after another; the first has no heading."""
    found = [("", "")]
    for line in text.splitlines():
        head = SECTION.match(line)
        if head:
            found.append((head[1], ""))
        elif line.strip() and not line.startswith(" ") and found[-1][0]:
            found.append(("", line + "\n"))
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


def restructured(text: str) -> list[str]:
    """A docstring in reStructuredText."""
    lines: list[str] = []
    for name, body in sections(text):
        parts = section(name, body) if name else (line for block in blocks(body) for line in paragraph(block))
        lines.extend(parts)
    return lines


def process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = restructured("\n".join(lines))


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
