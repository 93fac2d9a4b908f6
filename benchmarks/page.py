"""How fast the explorer opens and decodes, and what `--watch` costs a training.

    python benchmarks/page.py [REPEATS]

Prints a table, and the load of the machine beside it. First points: from the start of `aevb explore RUN` to the first
points in the hands of who asks, less the import of PyTorch. A frame: from a new place to its decoded picture on the
canvas, in chromium if there is one. Watching: the same training with and without `--watch`, in turn, REPEATS (3) times
each; a client follows the page's events and takes the map at each checkpoint, as the page does. Three minutes on two
cores that do nothing else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

AEVB = [sys.executable, "-c", "from aevb.apps.cli import main; main()"]
QUIET = {**os.environ, "PYTHONUNBUFFERED": "1", "BROWSER": "true", "COLUMNS": "200"}  # `true` opens no browser
LINK = re.compile(r"http://127\.0\.0\.1:(\d+)/#token=([\w-]+)")
SAMPLES = 120_000  # of a training that is watched, some fifteen seconds
FRAMES = 60
POINTER = """async (frames) => {
    const side = window.aevb.main, times = [];
    for (let i = 0; i < frames; i++) {
        const before = side.frames, begun = performance.now();
        side.set(side.z.map((_, d) => Math.sin(0.7 * i + d)));
        while (side.frames === before) await new Promise((done) => setTimeout(done, 0));
        times.push(performance.now() - begun);
    }
    const gl = document.createElement('canvas').getContext('webgl2');
    const known = gl && gl.getExtension('WEBGL_debug_renderer_info');
    return [times, known ? gl.getParameter(known.UNMASKED_RENDERER_WEBGL) : 'no WebGL2'];
}"""


@dataclass(frozen=True)
class Page:
    """A page that is served: its address, and the key to it."""

    port: int
    token: str

    @property
    def link(self) -> str:
        return f"http://127.0.0.1:{self.port}/#token={self.token}"

    def get(self, path: str) -> urllib.request.Request:
        return urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={"X-Aevb-Token": self.token})

    def bytes(self, path: str) -> int:
        with urllib.request.urlopen(self.get(path), timeout=60) as answer:
            return len(answer.read())


def page_of(process: subprocess.Popen[str]) -> Page:
    """The page whose link a process prints."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := LINK.search(line):
            threading.Thread(target=process.stdout.read, daemon=True).start()  # so that it never waits for a reader
            return Page(int(found[1]), found[2])
    raise RuntimeError("No page was opened: is aevb[explore] installed?")


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*AEVB, *arguments], env=QUIET, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=1
    )


@contextmanager
def explored(run: Path) -> Iterator[Page]:
    process = started("explore", str(run), "--no-browser")
    try:
        yield page_of(process)
    finally:
        process.terminate()
        process.wait()


def seconds_to_import() -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - begun


def seconds_to_points(run: Path) -> float:
    """From the start of the process to its first points."""
    begun = time.perf_counter()
    with explored(run) as page:
        assert page.bytes("/api/points?view=0,1&start=0")
        return time.perf_counter() - begun


def frames(run: Path) -> tuple[list[float], str]:
    """Milliseconds of decoded frames in a browser, and what draws them; none without a browser."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        return [], "no chromium, or no playwright"
    with explored(run) as page, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        tab.set_default_timeout(120_000)
        tab.goto(page.link)
        tab.wait_for_selector(".busy", state="hidden")
        tab.get_by_label("Decoded backdrop").uncheck()
        tab.wait_for_timeout(1000)
        times, renderer = tab.evaluate(POINTER, FRAMES)
        browser.close()
    return times[5:], renderer


def follow(page: Page) -> None:
    """What the page does during a training: it reads the events, and takes the map anew at each checkpoint."""
    try:
        with urllib.request.urlopen(page.get("/api/events"), timeout=300) as events:
            for line in events:
                if b'"weights"' in line:
                    page.bytes("/api/points?view=0,1&start=0")
    except OSError:
        pass  # the training has ended


def trained(out: Path, watch: bool) -> tuple[float, float]:
    """Seconds of a training: of the wall, and of the processor of its whole process."""
    options = ["--samples", str(SAMPLES), "--no-figures", "--out", str(out)]
    process = started("train", "digits", "--latent", "2", *options, *["--watch"] * watch)
    if watch:
        threading.Thread(target=follow, args=(page_of(process),), daemon=True).start()
    else:
        assert process.stdout is not None
        threading.Thread(target=process.stdout.read, daemon=True).start()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"The training ended with {process.returncode}.")
    return float(json.loads((out / "meta.json").read_text())["seconds"]), used.ru_utime + used.ru_stime


def watching(folder: Path, repeats: int) -> dict[bool, list[tuple[float, float]]]:
    """Times with and without a page, in turn: without, with, with, without, ..."""
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for i in range(repeats):
        for watch in (False, True) if i % 2 == 0 else (True, False):
            found[watch].append(trained(folder / f"{i}-{watch}", watch))
    return found


def line(what: str, value: str, aim: str, note: str = "") -> None:
    print(f"{what:44}{value:>12}{aim:>10}   {note}", flush=True)


def spread(values: list[float], digits: int = 2) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} processors, load {load:.1f} at the start\n")
    line("", "measured", "aim", "median of; from to")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = watching(folder, repeats)
        run = folder / "0-False"
        beyond = [seconds_to_points(run) - seconds_to_import() for _ in range(repeats)]
        line("first points beyond PyTorch's import", f"{statistics.median(beyond):.2f} s", "2 s", spread(beyond))
        times, renderer = frames(run)
        if times:
            line("a decoded frame in the browser", f"{statistics.median(times):.1f} ms", "30 ms", spread(times, 1))
        print(f"    drawn by: {renderer}")
    for place, what in enumerate(("training under --watch, wall", "training under --watch, processor")):
        alone, watched = ([pair[place] for pair in found[watch]] for watch in (False, True))
        more = statistics.median(watched) / statistics.median(alone) - 1
        note = f"without {spread(alone)} s, with {spread(watched)} s"
        line(what, f"{more:+.1%}", "5 %" if place == 0 else "", note)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end; --watch checkpoints every 3 s, and encodes the map each time")


if __name__ == "__main__":
    main()
