"""Equations as MathML, written at build time: a page needs neither a script nor a network to show them."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert


def mathml(latex: str, display: str = "inline") -> str:
    """LaTeX as MathML; browsers know script and double letters as characters alone, which the braces give."""
    return convert(re.sub(r"\\(mathcal|mathbb)\s+(\w)", r"\\\1{\2}", latex), display=display)


def inline(self: Any, node: nodes.math) -> None:
    """x in a sentence."""
    self.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def display(self: Any, node: nodes.math_block) -> None:
    """An equation on a line of its own, with its number if it has one."""
    number = f'<span class="eqno">({node["number"]})</span>' if node.get("number") else ""
    self.body.append(f'<div class="math-display">{mathml(node.astext(), "block")}{number}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
