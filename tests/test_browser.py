"""The page in a real browser: every control is used, and what is drawn is what the model says.

Screenshots are kept in $AEVB_SHOTS, if that is set.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import aevb
from aevb.apps.explorer.server import Explorer
from aevb.apps.explorer.session import Session
from aevb.apps.explorer.start import Address, Server, bound
from aevb.runs.evaluate import evaluate_run
from tests.browsing import PHONE, launched, needs_chromium, page_at
from tests.explored import MARKUP, images, table

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Session]:
    folder = tmp_path_factory.mktemp("pages")
    runs = {
        "images": images(folder, latent=2),
        "table": table(folder),
        "conditional": images(folder, "conditional", latent=4),
        "hierarchy": images(folder, "hvae"),
    }
    for name in ("images", "conditional"):
        evaluate_run(runs[name], runs[name].dataset())
    return {name: Session(run, run.dataset()) for name, run in runs.items()}


@contextmanager
def opened(browser: Any, session: Session, query: str = "", other: Session | None = None, **context: Any) -> Any:
    """The explorer of a session, and perhaps of another beside it, with all points on its map."""
    listening, port = bound("127.0.0.1", None)
    address = Address("127.0.0.1", port)
    session.can["compare"] = other is not None
    places = {"": session, **({} if other is None else {"/other": other})}
    own = (f"http://127.0.0.1:{port}/", "blob:")
    with (
        Server(Explorer(places), address, listening),
        page_at(browser, address.link.replace("/#", f"/{query}#"), own, **context) as found,
    ):
        found.until(f"!!window.aevb && window.aevb.main.map.xy.length === {2 * len(session.points)}")
        found.until("document.querySelector('.busy').hidden")
        yield found


def test_what_is_drawn_under_a_slider_is_what_the_model_decodes(browser: Any, sessions: dict[str, Session]) -> None:
    session = sessions["images"]
    with opened(browser, session) as it:
        it.tab("Sliders")
        for index, value in ((0, "1.2"), (1, "-0.9")):
            it.page.locator(f"#latent-{index}").fill(value)
        it.until("window.aevb.main.decoder.busy === false")
        z = it.state("window.aevb.main.z")
        assert z == pytest.approx([1.2, -0.9], abs=0.03)
        x = aevb.decode(session.model, torch.tensor([z]))[0, 0]
        low, high = session.limits
        wanted = ((x - low) / (high - low) * 255).clamp(0, 255).numpy()
        np.testing.assert_allclose(it.pixels(".nows canvas.picture"), wanted, atol=1.0)
        it.sound()


def test_the_decoder_follows_the_pointer_at_the_place_of_the_map(browser: Any, sessions: dict[str, Session]) -> None:
    with opened(browser, sessions["images"]) as it:
        for u, v in ((0.3, 0.4), (0.6, 0.7)):
            it.page.mouse.move(*it.at(u, v))
            map_ = "const m = window.aevb.main.map;"
            place = it.state(f"(() => {{ {map_} return m.toPlane({u} * m.view.width, {v} * m.view.height); }})()")
            it.until_close("window.aevb.main.z", place, 0.05)
        it.until("window.aevb.main.frames >= 2")
        it.sound()


def test_frames_are_measured_and_questions_never_queue(browser: Any, sessions: dict[str, Session]) -> None:
    script = """async () => { const side = window.aevb.main; const times = [];
        for (let i = 0; i < 40; i++) { const t = performance.now();
            await side.backend.decode([[i / 20 - 1, 0.3]], side.y, 0); times.push(performance.now() - t); }
        const before = side.frames;
        for (let i = 0; i < 200; i++) side.set([i / 100, 0]);
        while (side.decoder.busy) await new Promise((r) => setTimeout(r, 5));
        return [times, side.frames - before, side.z]; }"""
    with opened(browser, sessions["images"]) as it:
        times, frames, z = it.state(script)
        print(f"a decoded frame takes {median(times):.1f} ms, median of {len(times)}")
        assert len(times) == 40
        assert frames <= 4  # of 200 places the last is decoded, and few between
        assert z == [1.99, 0]
        it.sound()


def test_the_map_hovers_picks_zooms_pans_and_obeys_the_keyboard(browser: Any, sessions: dict[str, Session]) -> None:
    with opened(browser, sessions["images"]) as it:
        x, y = it.state("(() => { const m = window.aevb.main.map; return m.toScreen(m.xy[14], m.xy[15]); })()")
        left, top = it.at(0, 0)
        it.page.mouse.move(left + x, top + y)
        it.until("document.querySelectorAll('#panel .facts dd').length > 3")
        it.until("window.aevb.main.map.hovered >= 0")
        it.page.mouse.click(left + x, top + y)
        it.page.locator("#panel .near button").first.click()  # waits until it is there
        before = it.state("window.aevb.main.map.view.zoom")
        for name in ("Zoom in", "Zoom in", "Zoom out", "Show all"):
            it.page.get_by_role("button", name=name).click()
        it.page.mouse.move(left + x, top + y)
        it.page.mouse.wheel(0, -900)
        it.until(f"window.aevb.main.map.view.zoom > {before} * 2")
        it.until("window.aevb.main.map.thumbs.size > 0")
        it.keep("thumbnails")
        centre = it.state("window.aevb.main.map.view.x")
        it.page.mouse.down()
        it.page.mouse.move(left + x + 60, top + y, steps=4)
        it.page.mouse.up()
        it.until(f"window.aevb.main.map.view.x < {centre}")
        it.page.locator(".map").first.focus()
        for key in ("0", "+", "-", "ArrowLeft", "ArrowUp", "Shift+ArrowRight", "Enter"):
            it.page.keyboard.press(key)
        it.sound()


def test_all_colours_axes_and_the_backdrop_can_be_chosen(browser: Any, sessions: dict[str, Session]) -> None:
    for name in ("images", "conditional", "hierarchy", "table"):
        with opened(browser, sessions[name]) as it:
            for label in it.page.get_by_role("combobox").all():
                for value in label.evaluate("s => [...s.options].map((o) => o.value)")[:12]:
                    if label.is_visible():
                        label.select_option(value)
                        it.page.wait_for_timeout(80)
            if it.page.get_by_label("Decoded backdrop").count():
                for _ in range(2):
                    it.page.get_by_label("Decoded backdrop").click()
            it.until("document.querySelector('.busy').hidden")
            it.until("document.querySelectorAll('.legend > *').length > 0")
            it.sound()


def test_every_panel_and_button_of_every_kind_of_run_works(browser: Any, sessions: dict[str, Session]) -> None:
    for name, session in sessions.items():
        with opened(browser, session) as it:
            for tab in it.page.get_by_role("tab").all():
                tab.click()
                for slider in it.page.locator("#panel input[type=range]").all()[:4]:
                    slider.focus()
                    it.page.keyboard.press("ArrowRight")
                it.press_all("#panel button")
            it.keep(f"panels-{name}")
            it.page.get_by_role("tab").first.focus()
            it.page.keyboard.press("ArrowRight")
            assert it.page.locator("[role=tab][aria-selected=true]").count() == 1
            it.sound()


def test_a_lasso_tells_what_its_points_share_and_exports_them(browser: Any, sessions: dict[str, Session]) -> None:
    session = sessions["images"]
    with opened(browser, session) as it:
        it.page.get_by_role("button", name="Lasso").click()
        it.draw_around([(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98), (0.02, 0.1)])
        it.until("/\\d+ points chosen/.test(document.querySelector('#panel').textContent)")
        n = int(it.page.locator("#panel h2").inner_text().split()[0])
        assert n == it.state("window.aevb.main.map.picked.reduce((a, b) => a + b, 0)") > 80
        with it.page.expect_download() as saved:
            it.page.get_by_role("button", name="Export CSV").click()
        lines = Path(saved.value.path()).read_text().splitlines()
        assert len(lines) == n + 1
        it.page.get_by_role("button", name="Keep as A").click()
        it.page.get_by_role("button", name="Keep as B").click()
        it.page.get_by_role("button", name="Here + (B − A)").click()
        it.sound()


def test_a_walk_plays_and_is_saved(browser: Any, sessions: dict[str, Session]) -> None:
    with opened(browser, sessions["images"]) as it:
        it.page.get_by_role("button", name="Walk").click()
        for u, v in ((0.2, 0.3), (0.7, 0.4), (0.5, 0.8)):
            it.page.mouse.click(*it.at(u, v))
        it.until("window.aevb.panels.walk.codes.length === 27")  # 14 steps twice, with one stop between
        it.page.get_by_role("combobox", name="Walk").select_option("spherical")
        it.page.get_by_role("button", name="Stop").click()
        for name, kind, frames in (("Save GIF", "GIF", 27), ("Save PNG", "PNG", 1)):
            with it.page.expect_download() as saved:
                it.page.get_by_role("button", name=name).click()
            picture = Image.open(io.BytesIO(Path(saved.value.path()).read_bytes()))
            assert (picture.format, getattr(picture, "n_frames", 1)) == (kind, frames)
        it.keep("walk")
        it.page.get_by_role("button", name="Start again").click()
        it.until("window.aevb.main.map.marks.length === 0")
        it.sound()


def test_a_drawing_and_a_picture_are_placed_and_scored(
    browser: Any, sessions: dict[str, Session], tmp_path: Path
) -> None:
    with opened(browser, sessions["images"]) as it:
        it.tab("Draw")
        box = it.page.locator(".sheet").bounding_box()
        it.page.mouse.move(box["x"] + 40, box["y"] + 40)
        it.page.mouse.down()
        it.page.mouse.move(box["x"] + 120, box["y"] + 150, steps=5)
        it.page.mouse.up()
        it.until("!!window.aevb.main.map.ellipse && /Odder than/.test(document.querySelector('#panel').textContent)")
        it.page.get_by_role("button", name="Clear").click()
        it.until("!window.aevb.main.map.ellipse")
        Image.new("L", (12, 10), 200).save(tmp_path / "one.png")
        it.page.locator("#panel input[type=file]").set_input_files(tmp_path / "one.png")
        it.until("!!window.aevb.main.map.ellipse")
        it.sound()
        (tmp_path / "two.png").write_text("no picture")
        it.page.locator("#panel input[type=file]").set_input_files(tmp_path / "two.png")
        it.until("/This picture cannot be read/.test(document.querySelector('.oops')?.textContent)")


def test_a_row_is_filled_while_it_is_typed_and_markup_is_text(
    browser: Any, sessions: dict[str, Session], tmp_path: Path
) -> None:
    with opened(browser, sessions["table"]) as it:
        it.page.on("dialog", lambda dialog: it.faults.append(dialog.message))
        it.tab("New row")
        assert it.page.locator("#panel").get_by_text(MARKUP).count() == 1
        it.page.get_by_role("textbox", name="age").fill("13")
        it.page.get_by_role("combobox", name="city").select_option("Seoul")
        it.until("document.querySelectorAll('#panel em').length === 1")  # the third column
        assert float(it.page.locator("#panel em").inner_text()) > 0
        (tmp_path / "row.csv").write_text("city,age\nBusan,8\n")
        it.page.locator("#panel input[type=file]").set_input_files(tmp_path / "row.csv")
        it.until("document.querySelector('#panel input').value === '8'")
        it.sound()


def test_two_runs_share_the_pointer_and_are_compared(browser: Any, sessions: dict[str, Session]) -> None:
    """The same rows in both maps, their numbers with the errors, their curves, and draws from both."""
    first, second = sessions["images"], sessions["conditional"]
    with opened(browser, first, other=second) as it:
        assert it.page.locator(".map").count() == 2
        it.page.mouse.move(*it.at(0.4, 0.5))
        it.until("window.aevb.main.frames > 1")
        it.until("window.aevb.sides[1].map.xy.length === window.aevb.main.map.xy.length")
        x, y = it.state("(() => { const m = window.aevb.main.map; return m.toScreen(m.xy[8], m.xy[9]); })()")
        left, top = it.at(0, 0)
        it.page.mouse.click(left + x, top + y)
        it.until("document.querySelectorAll('#panel .pictures').length === 2")  # the row as both runs see it
        it.until("window.aevb.sides[1].map.hovered === window.aevb.main.map.hovered")
        it.tab("Compare")
        it.until("document.querySelectorAll('#panel .curve').length === 3")
        it.until("document.querySelectorAll('#panel .draws canvas').length === 24")
        assert it.state(
            "[...document.querySelectorAll('#panel .curve')].every((c) => c.querySelectorAll('path').length >= 2)"
        )
        head = it.page.locator("#panel table.numbers thead th").all_inner_texts()
        assert head == ["", first.name, second.name]
        cells = it.page.locator("#panel table.numbers tbody td").all_inner_texts()
        assert len(cells) == 8
        assert all("±" in cell for cell in cells)
        before = it.state("document.querySelector('#panel .draws canvas').toDataURL()")
        it.page.get_by_role("button", name="Draw again").click()
        it.until(f"(document.querySelector('#panel .draws canvas')?.toDataURL() ?? {before!r}) !== {before!r}")
        assert not it.violations()
        it.keep("compare")
        it.sound()


def test_the_page_speaks_korean_and_is_dark_where_the_reader_is(browser: Any, sessions: dict[str, Session]) -> None:
    with opened(browser, sessions["images"], "?lang=ko", color_scheme="dark") as it:
        assert it.state("document.documentElement.lang") == "ko"
        assert it.page.get_by_role("tab", name="슬라이더").count() == 1
        dark = it.state("getComputedStyle(document.body).backgroundColor")
        it.page.get_by_role("button", name="밝게 또는 어둡게").click()
        assert it.state("getComputedStyle(document.body).backgroundColor") != dark
        it.sound()


def test_both_languages_have_the_same_words() -> None:
    """Of all keys, with the same places to fill in."""
    import re

    text = (Path(aevb.__file__).parent / "apps/pages/static/words.js").read_text()
    english, korean = (re.search(rf"const {name} = {{(.*?)\n}};", text, re.S)[1] for name in ("ENGLISH", "KOREAN"))
    keys = [dict(re.findall(r'(\w+): "((?:[^"\\]|\\.)*)"', part)) for part in (english, korean)]
    assert keys[0].keys() == keys[1].keys()
    for key in keys[0]:
        assert set(re.findall(r"{\d}", keys[0][key])) == set(re.findall(r"{\d}", keys[1][key])), key


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(browser: Any, sessions: dict[str, Session], scheme: str) -> None:
    for name in ("images", "table", "hierarchy"):
        with opened(browser, sessions[name], color_scheme=scheme) as it:
            for tab in it.page.get_by_role("tab").all():
                tab.click()
                assert not it.violations()


def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Any, sessions: dict[str, Session]) -> None:
    for name, session in sessions.items():
        with opened(browser, session, viewport=PHONE, has_touch=True) as it:
            for tab in it.page.get_by_role("tab").all():
                tab.click()
                assert it.state("document.documentElement.scrollWidth") <= 390, name
            it.page.locator(".map").first.scroll_into_view_if_needed()
            it.page.touchscreen.tap(*it.at(0.5, 0.5))
            it.until("window.aevb.main.frames > 1")
            it.sound()
