"""The report as one HTML file: nothing in it is loaded from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from aevb.apps.pages.bundle import POLICY, import_map, needed, read, start
from aevb.apps.pages.decoder import PageDecoder
from aevb.apps.report import interactive, sections, shown
from aevb.apps.report.markup import Html, joined, json_script, tag
from aevb.apps.report.subject import Subject
from aevb.figures.style import PALETTE

LARGEST = 5_000_000  # bytes of the file
MAIN = "report.js"


def page(s: Subject) -> str:
    """The whole file.

    Args:
        s: the run.
    """
    name = s.run.path.name
    parts = list(_sections(s))
    body = [
        _head(s, [(title, anchor) for anchor, title, _ in parts]),
        tag("main", *(_section(*part) for part in parts)),
    ]
    content = {**interactive.content(s), "palette": list(PALETTE)}
    frame = _document(name, joined(body), content, None)
    found = interactive.decoder(s)
    made, why = _decoder(found, LARGEST - len(frame.encode()))
    return _document(name, joined(body), {**content, "why": why}, made)


def _decoder(found: PageDecoder | str, room: int) -> tuple[dict[str, Any] | None, str]:
    """The decoder for JSON where there is room for it, and why there is none."""
    if isinstance(found, str):
        return None, found
    made = found.fitting(room - 1000)
    count = sum(x.numel() for x in found.graph.constants.values())
    size = f"The decoder has {count:,} numbers, too many for a file of {LARGEST // 1_000_000} MB: it is left out."
    return made, "" if made else size


Say = Callable[[Subject], Any]
SAID: tuple[tuple[str, str, Say], ...] = (
    ("numbers", "Numbers", sections.numbers),
    ("verdict", "Findings of the doctor", sections.verdict),
    ("reconstructions", "Reconstructions", shown.reconstructions),
    ("samples", "Samples", shown.samples),
    ("walks", "", shown.walks),
    ("curves", "Training", sections.curves),
    ("recipe", "Recipe", sections.recipe),
    ("data", "Data", sections.data),
    ("settings", "Settings and environment", sections.surroundings),
)


def _sections(s: Subject) -> Iterable[tuple[str, str, Html]]:
    """Anchor, title, content."""
    yield "map", "The latent space, interactive", _touch(s)
    for anchor, title, say in SAID:
        said = say(s)
        yield (anchor, title, said) if title else (anchor, *said)


def _section(anchor: str, title: str, content: Html) -> Html:
    return tag("section", tag("h2", title), content, id=anchor)


def _head(s: Subject, anchors: Iterable[tuple[str, str]]) -> Html:
    links = [tag("a", title, href=f"#{anchor}") for title, anchor in anchors]
    title = s.run.recipe.settings.get("title", "")
    said = f"{title.rstrip('.')}. Trained on {s.data.name}, recipe {s.run.recipe.name}."
    said += " This file was made by aevb and needs no network."
    return tag("header", tag("h1", s.run.path.name), tag("p", said), sections.summary(s), tag("nav", *links))


def _touch(s: Subject) -> Html:
    """Where the script puts the map, the sliders and the decoded data."""
    said = "Click on the map, drag, or move a slider: the decoder in this page decodes. Arrow keys move, too."
    noscript = tag("noscript", tag("p", "This part needs JavaScript.", _class="note"))
    return joined([tag("p", said, _class="note", id="hint"), noscript, tag("div", id="touch")])


def _document(name: str, body: Html, content: Any, decoder: Any) -> str:
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{name}, a report by aevb"),
        tag("style", Html(read("report.css"))),
    ]
    modules = Html(f'<script type="importmap">{import_map(needed(MAIN))}</script>')
    begin = Html(f'<script type="module">{start(MAIN)}</script>')
    scripts = [json_script("content", content), json_script("decoder", decoder), modules, begin]
    return "<!doctype html>\n" + tag("html", tag("head", *head), tag("body", body, *scripts), lang="en") + "\n"
