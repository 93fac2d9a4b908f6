"""Reports and the explorer without a server, opened from disk in a real browser whose network is off.

What their pages decode is compared with PyTorch at the same rounded weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import aevb
from aevb.apps.export.web import write_web
from aevb.apps.pages.decoder import SHARES
from aevb.apps.pages.weights import rounded
from aevb.probability.inverse import icdf
from aevb.runs.fit import fit
from aevb.runs.recipe import Recipe
from aevb.runs.sources import read
from aevb.runs.store import Run
from aevb.use.layers import following
from tests.browsing import PHONE, Opened, launched, needs_chromium, page_at
from tests.explored import MARKUP, images, table

pytestmark = [pytest.mark.slow, needs_chromium]
KINDS = ("digits", "table", "conditional", "hierarchy")
Z = "JSON.parse(document.body.dataset.z)"
FACE, MAP = "canvas[aria-label^='What the decoder']", ".stage canvas"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as found:
        yield found


def digits(folder: Path) -> Run:
    """Real digits, eight pixels wide, after few steps."""
    chosen = Recipe.load("digits").replace(data__source="digits", training__samples=1500, latent=2)
    return fit(chosen, read(chosen), folder / "digits")


class Runs(dict[str, Run]):
    """Runs by their kind, each with its report and its page, made when first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, kind: str) -> Run:
        makers = {"digits": digits, "table": table, "conditional": conditional, "hierarchy": hierarchy}
        run = self[kind] = makers[kind](self.folder)
        aevb.report(run, self.folder / f"{kind}.html")
        write_web(run, self.folder / f"{kind}-web", run.dataset())
        return run


def conditional(folder: Path) -> Run:
    return images(folder, "conditional", latent=4)


def hierarchy(folder: Path) -> Run:
    return images(folder, "hvae")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("files"))


@contextmanager
def from_disk(browser: Any, file: Path, query: str = "", **context: Any) -> Any:
    own = (file.as_uri(), "data:", "blob:")
    with page_at(browser, f"{file.as_uri()}{query}", own, offline=True, **context) as it:
        yield it


def report_of(browser: Any, run: Run, **context: Any) -> Any:
    return from_disk(browser, run.path.parent / f"{kind_of(run)}.html", **context)


@contextmanager
def web_of(browser: Any, run: Run, query: str = "", **context: Any) -> Any:
    file = run.path.parent / f"{kind_of(run)}-web" / "index.html"
    with from_disk(browser, file, query, **context) as it:
        it.until("!!window.aevb && window.aevb.main.map.xy.length === 2 * window.aevb.about.n")
        it.until("document.querySelector('.busy').hidden")
        yield it


def kind_of(run: Run) -> str:
    return "hierarchy" if run.path.name == "hvae" else run.path.name


def as_page(run: Run) -> Any:
    """The model with weights rounded as those of a page."""
    model = copy.deepcopy(run.model()).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(rounded(p))
    return model


def condition(run: Run, number: int) -> torch.Tensor | None:
    classes = run.recipe.context().classes
    return torch.eye(classes)[number : number + 1] if classes else None


def expected(model: Any, z: Any, y: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """What a page gives for a code, by name."""
    with torch.no_grad():
        p = model.decode(torch.tensor([z], dtype=torch.float32).reshape(1, *model.latent_shape), y)
        if not hasattr(p, "groups"):
            return {"mean": p.mean.flatten()}
        found: dict[str, torch.Tensor] = {}
        for i, cells in enumerate(group.cells for group in p.groups):
            if hasattr(cells, "base"):
                found[f"shares{i}"] = cells.base.probs.flatten()
            else:
                names = zip(("median", "low", "high"), SHARES, strict=True)
                found |= {f"{n}{i}": icdf(cells, torch.full_like(cells.mean, u)).flatten() for n, u in names}
    return found


def grey(x: torch.Tensor, limits: list[float]) -> np.ndarray:
    low, high = limits
    return ((x - low) / (high - low) * 255).clamp(0, 255).numpy()


# Reports


def same_as_pytorch(it: Opened, run: Run, model: Any) -> None:
    """What the report has decoded of the place where it is, once it has drawn all that was asked of it."""
    it.state(DRAWN)
    z, decoded, y = it.state(f"[{Z}, JSON.parse(document.body.dataset.decoded), {CLASS}]")
    wanted = expected(model, z, condition(run, y))
    shown = set(wanted) & set(decoded)
    assert shown
    assert set(decoded) - shown <= {name for name in decoded if name.startswith("mean")}
    for name in shown:
        np.testing.assert_allclose(decoded[name], wanted[name].numpy(), atol=1e-3, rtol=1e-3, err_msg=name)
    if "mean" in wanted:
        limits = it.state("JSON.parse(document.getElementById('decoder').textContent).limits")
        pixels = it.pixels(FACE)
        np.testing.assert_allclose(pixels, grey(wanted["mean"], limits).reshape(pixels.shape), atol=1.0)


DRAWN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"  # it draws once a frame
CLASS = "Number([...document.querySelectorAll('.bar select')][1]?.value ?? 0)"


def moves(it: Opened, act: Any) -> None:
    """Something that a hand does, after which the report decodes another place."""
    before = it.state("document.body.dataset.z")
    act()
    it.until(f"document.body.dataset.z !== {before!r}")


@pytest.mark.parametrize("kind", KINDS)
def test_every_control_of_a_report_decodes_as_pytorch(browser: Any, runs: Runs, kind: str) -> None:
    run, model = runs[kind], as_page(runs[kind])
    with report_of(browser, run) as it:
        it.until("!!document.body.dataset.decoded")
        same_as_pytorch(it, run, model)
        box = it.page.locator(MAP).bounding_box()
        at = [
            (box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in ((0.3, 0.3), (0.7, 0.6), (0.5, 0.2))
        ]
        moves(it, lambda: it.page.mouse.click(*at[0]))
        same_as_pytorch(it, run, model)

        def drag() -> None:
            it.page.mouse.move(*at[1])
            it.page.mouse.down()
            it.page.mouse.move(*at[2], steps=4)
            it.page.mouse.up()

        moves(it, drag)
        for slider in it.page.locator(".sliders input").all()[:3]:
            middle = (float(slider.get_attribute("min")) + float(slider.get_attribute("max"))) / 2
            moves(it, lambda s=slider, m=middle: s.fill(str(m + 0.3)))
            same_as_pytorch(it, run, model)
        it.page.locator(MAP).focus()
        for key in ("ArrowLeft", "ArrowUp"):
            it.page.keyboard.press(key)
        moves(it, lambda: [it.page.get_by_role("button", name="A random row").click() for _ in range(2)])
        same_as_pytorch(it, run, model)
        choose_all(it)
        same_as_pytorch(it, run, model)
        if it.page.get_by_role("button", name="Middle of the prior").count():
            it.page.get_by_role("button", name="Middle of the prior").click()
        it.page.get_by_text("All settings, as recipe.toml").click()
        for link in it.page.locator("nav a").all():
            link.click()
        it.keep(f"report-{kind}")
        assert not it.faults


def choose_all(it: Opened) -> None:
    """Each colour has a legend of its own, and each class is decoded."""
    colours, *classes = it.page.locator(".bar select").all()
    seen = set()
    for value in colours.evaluate("s => [...s.options].map((o) => o.value)"):
        colours.select_option(value)
        seen.add(it.page.locator(".legend").inner_text())
        assert it.page.locator(".legend > *").count() > 0
    assert len(seen) >= 2
    for select in classes:
        for value in select.evaluate("s => [...s.options].map((o) => o.value)"):
            if value != select.input_value():
                before = it.state("document.body.dataset.decoded")
                select.select_option(value)
                it.until(f"document.body.dataset.decoded !== {before!r}")


def test_markup_in_a_name_of_a_column_is_text_in_a_report(browser: Any, runs: Runs) -> None:
    with report_of(browser, runs["table"]) as it:
        it.page.on("dialog", lambda dialog: it.faults.append(dialog.message))
        it.until("!!document.body.dataset.decoded")
        assert it.page.locator(".fields dt").filter(has_text=MARKUP).count() == 1
        assert it.page.locator("#data td").filter(has_text=MARKUP).count() == 1
        assert not it.faults


@pytest.mark.parametrize(("kind", "scheme"), [*zip(KINDS, ("light", "dark", "light", "dark"), strict=True)])
def test_a_report_on_a_phone_is_no_wider_and_axe_finds_nothing_serious(
    browser: Any, runs: Runs, kind: str, scheme: str
) -> None:
    with report_of(browser, runs[kind], viewport=PHONE, has_touch=True, color_scheme=scheme) as it:
        it.until("!!document.body.dataset.decoded")
        assert it.state("document.documentElement.scrollWidth") <= PHONE["width"]
        it.page.locator(MAP).scroll_into_view_if_needed()
        box = it.page.locator(MAP).bounding_box()
        moves(it, lambda: it.page.touchscreen.tap(box["x"] + 0.4 * box["width"], box["y"] + 0.7 * box["height"]))
        assert it.violations() == []
        it.keep(f"report-phone-{kind}-{scheme}")
        assert not it.faults


# The explorer without a server


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_without_a_server_decodes_as_pytorch(browser: Any, runs: Runs, kind: str) -> None:
    """Also of a hierarchy whose upper layer is moved, and of every class."""
    run, model = runs[kind], as_page(runs[kind])
    layers = 2 if kind == "hierarchy" else 1
    with web_of(browser, run) as it:
        it.tab("Sliders")
        first = it.page.locator("#panel input[type=range]").first
        first.fill("0.7")
        it.quiet()
        for y in range(3 if kind == "conditional" else 1):
            for layer in range(layers):
                z, found = decoded(it, y, layer)
                code = following(model, torch.tensor([z]), layer)[0].tolist() if layer else z
                compare(it, found, expected(model, code, condition(run, y)))
        it.keep(f"web-{kind}")
        it.sound()


def decoded(it: Opened, y: int, layer: int) -> tuple[list[float], Any]:
    script = f"""async () => {{ const side = window.aevb.main; const z = [...side.z];
        const number = side.about.classes[{y}]?.number ?? null;
        const [found] = await side.backend.decode([z], number, {layer});
        return [z, found.cells ?? [...found.x]]; }}"""
    z, found = it.state(script)
    return z, found


def compare(it: Opened, found: Any, wanted: dict[str, torch.Tensor]) -> None:
    if "mean" in wanted:
        np.testing.assert_allclose(found, wanted["mean"].numpy(), atol=1e-3)
        return
    shares = [x for name, x in wanted.items() if name.startswith("shares")]
    assert len(found) == 3
    for cell in found:
        if cell["share"] is not None:
            assert min(float((x - cell["share"]).abs().min()) for x in shares) < 1e-3
        else:
            assert cell["low"] < cell["value"] < cell["high"]


def test_the_picture_on_the_page_is_what_is_decoded(browser: Any, runs: Runs) -> None:
    run, model = runs["digits"], as_page(runs["digits"])
    with web_of(browser, run) as it:
        it.tab("Sliders")
        for index, value in ((0, "1.1"), (1, "-0.8")):
            it.page.locator(f"#latent-{index}").fill(value)
        it.quiet()
        z = it.state("window.aevb.main.z")
        assert z == pytest.approx([1.1, -0.8], abs=0.04)
        limits = it.state("window.aevb.about.limits")
        pixels = it.pixels(".nows canvas.picture")
        np.testing.assert_allclose(pixels, grey(expected(model, z, None)["mean"], limits).reshape(8, 8), atol=1.0)
        it.page.mouse.move(*it.at(0.6, 0.6))
        it.until("window.aevb.main.map.cursor !== null && window.aevb.main.frames > 2")
        place = it.state("window.aevb.main.map.cursor")
        it.until_close("window.aevb.main.z", place, 0.05)
        it.sound()


@pytest.mark.parametrize("kind", KINDS)
def test_every_control_of_the_page_without_a_server_works(browser: Any, runs: Runs, kind: str, tmp_path: Path) -> None:
    with web_of(browser, runs[kind]) as it:
        for label in it.page.get_by_role("combobox").all():
            for value in label.evaluate("s => [...s.options].map((o) => o.value)")[:12]:
                if label.is_visible():
                    label.select_option(value)
        it.until("document.querySelector('.busy').hidden")
        it.until("document.querySelectorAll('.legend > *').length > 0")
        for tab in it.page.get_by_role("tab").all():
            tab.click()
            for slider in it.page.locator("#panel input[type=range]").all()[:3]:
                slider.focus()
                it.page.keyboard.press("ArrowRight")
            it.press_all("#panel button")
        x, y = it.state("(() => { const m = window.aevb.main.map; m.fit(); return m.toScreen(m.xy[6], m.xy[7]); })()")
        left, top = it.at(0, 0)
        it.tab("Point")
        it.page.get_by_role("button", name="Look").click()
        it.page.mouse.click(left + x, top + y)
        it.until("document.querySelectorAll('#panel .facts dd').length > 2")
        lasso(it, kind)
        walk(it)
        it.sound()


def lasso(it: Opened, kind: str) -> None:
    """What a ring around the left half tells, and its file."""
    it.page.get_by_role("button", name="Lasso").click()
    it.draw_around([(0.01, 0.01), (0.5, 0.01), (0.5, 0.99), (0.01, 0.99), (0.01, 0.1)])
    it.until("/\\d+ points chosen/.test(document.querySelector('#panel').textContent)")
    n = it.state("window.aevb.main.map.picked.reduce((a, b) => a + b, 0)")
    assert it.page.locator("#panel h2").inner_text().startswith(f"{n} ")
    assert it.page.locator("#panel tbody tr").count() >= 2  # what sets them apart
    if kind != "table":
        counts = [int(t.split()[0]) for t in it.page.locator("#panel .facts dd").all_inner_texts()]
        assert sum(counts) == n
    with it.page.expect_download() as saved:
        it.page.get_by_role("button", name="Export CSV").click()
    lines = Path(saved.value.path()).read_text().splitlines()
    assert len(lines) == n + 1
    assert ("age" in lines[0]) is (kind == "table")
    for name in ("Keep as A", "Keep as B", "Here + (B − A)"):
        it.page.get_by_role("button", name=name).click()


def walk(it: Opened) -> None:
    it.page.get_by_role("button", name="Walk").click()
    for u, v in ((0.3, 0.3), (0.7, 0.5)):
        it.page.mouse.click(*it.at(u, v))
    it.until("window.aevb.panels.walk.codes.length === 14")
    frames = it.state("window.aevb.main.frames")
    it.until(f"window.aevb.main.frames > {frames} + 2")
    it.page.get_by_role("button", name="Start again").click()
    it.until("window.aevb.main.map.marks.length === 0")


@pytest.mark.parametrize(("kind", "scheme"), [*zip(KINDS, ("dark", "light", "dark", "light"), strict=True)])
def test_the_page_without_a_server_on_a_phone(browser: Any, runs: Runs, kind: str, scheme: str) -> None:
    """No wider than the screen, of which axe finds nothing serious; in Korean, too."""
    query = "?lang=ko" if scheme == "dark" else ""
    with web_of(browser, runs[kind], query, viewport=PHONE, has_touch=True, color_scheme=scheme) as it:
        for tab in it.page.get_by_role("tab").all():
            tab.click()
            assert it.state("document.documentElement.scrollWidth") <= PHONE["width"]
            assert it.violations() == []
        it.page.locator(".map").first.scroll_into_view_if_needed()
        it.page.touchscreen.tap(*it.at(0.5, 0.5))
        it.until("window.aevb.main.frames > 1")
        it.keep(f"web-phone-{kind}-{scheme}")
        it.sound()


@pytest.mark.parametrize("kind", KINDS)
def test_all_points_are_in_sight_when_the_page_opens(browser: Any, runs: Runs, kind: str) -> None:
    inside = """(() => { const m = window.aevb.main.map; let n = 0;
        for (let i = 0; i < m.xy.length; i += 2) { const [x, y] = m.toScreen(m.xy[i], m.xy[i + 1]);
            n += x >= 0 && y >= 0 && x <= m.view.width && y <= m.view.height; }
        return n / (m.xy.length / 2); })()"""
    with web_of(browser, runs[kind]) as it:
        assert it.state(inside) >= 0.97
        it.sound()
