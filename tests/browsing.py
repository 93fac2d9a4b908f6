"""A browser for tests: pages that it opens, what went wrong on them, and what is drawn on their canvases.

Screenshots are kept in $AEVB_SHOTS, if that is set.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: apt-get install chromium")
PATIENCE = 120_000  # milliseconds: the machine may be busy
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
OPTIONS = ["--no-sandbox", "--enable-unsafe-swiftshader", "--disable-extensions", "--no-first-run"]


@contextmanager
def launched() -> Iterator[Any]:
    """A browser."""
    with sync_api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=OPTIONS, timeout=PATIENCE)
        yield found
        found.close()


@contextmanager
def page_at(
    browser: Any, address: str, own: tuple[str, ...], offline: bool = False, **context: Any
) -> Iterator[Opened]:
    """A page at an address; what it asks of other places than its `own` is a fault."""
    tab = browser.new_context(**{"viewport": DESK, **context})
    tab.set_offline(offline)
    page = tab.new_page()
    page.set_default_timeout(PATIENCE)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.on("request", lambda asked: None if asked.url.startswith(own) else faults.append(asked.url))
    page.goto(address, timeout=PATIENCE)
    yield Opened(page, faults)
    tab.close()


@dataclass
class Opened:
    """A page, and what went wrong on it."""

    page: Any
    faults: list[str]

    def state(self, script: str) -> Any:
        return self.page.evaluate(script)

    def until(self, script: str) -> None:
        """Wait until an expression is true; the page's policy forbids that it is compiled there."""
        end = monotonic() + PATIENCE / 1000
        while not self.page.evaluate(script):
            if monotonic() > end:
                raise AssertionError(f"never true: {script}")
            self.page.wait_for_timeout(50)

    def until_close(self, script: str, expected: Any, within: float) -> None:
        """Wait until a list of numbers is near another."""
        end = monotonic() + PATIENCE / 1000
        while (found := self.page.evaluate(script)) is None or found != pytest.approx(expected, abs=within):
            if monotonic() > end:
                raise AssertionError(f"{script} is {found}, never {expected}")
            self.page.wait_for_timeout(50)

    def quiet(self) -> None:
        """Wait until nothing that the explorer asked for is under way."""
        self.until(
            "!window.aevb.panels.asked.busy && !window.aevb.panels.fresh.reader.busy"
            " && window.aevb.sides.every((side) => !side.decoder.busy && !side.pictures.busy)"
        )

    def press_all(self, selector: str) -> None:
        """Press each button that is there now; those that are gone when their turn comes are left out."""
        for button in self.page.locator(selector).element_handles():
            self.quiet()
            if button.is_visible() and button.is_enabled():
                button.click()
        self.quiet()

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def at(self, u: float, v: float) -> tuple[float, float]:
        box = self.page.locator(".map").first.bounding_box()
        return box["x"] + u * box["width"], box["y"] + v * box["height"]

    def keep(self, name: str) -> None:
        if folder := os.environ.get("AEVB_SHOTS"):
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"))

    def pixels(self, selector: str) -> np.ndarray:
        """The red channel of a canvas."""
        script = """s => { const c = document.querySelector(s);
            return [c.width, c.height, Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)]; }"""
        width, height, data = self.page.evaluate(script, selector)
        return np.array(data, dtype=float).reshape(height, width, 4)[..., 0]

    def draw_around(self, corners: list[tuple[float, float]]) -> None:
        """A ring on the map with the mouse, through corners as shares of its sides."""
        self.page.mouse.move(*self.at(*corners[0]))
        self.page.mouse.down()
        for corner in corners[1:]:
            self.page.mouse.move(*self.at(*corner), steps=6)
        self.page.mouse.up()

    def violations(self) -> list[Any]:
        """What axe finds that is serious."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright")
        found = axe.Axe().run(self.page).response["violations"]
        bad = [v for v in found if v["impact"] in ("serious", "critical")]
        return [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in bad]

    def sound(self) -> None:
        """Nothing went wrong so far."""
        assert not self.faults
        assert self.page.locator(".oops").count() == 0
