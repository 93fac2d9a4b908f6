"""What the command line prints: tables, a progress line, errors."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from aevb.apps import console
from aevb.data.walk import walking
from aevb.errors import AevbWarning

if TYPE_CHECKING:
    from aevb.reproduce.workers import Line
    from aevb.runs.fit import Progress, Show

PATIENCE = 1.0  # seconds of a pass before it is told
WIDE = 160  # columns of what is no terminal: a file or a pipe need not be narrow
TERMINAL = sys.stdout is not None and sys.stdout.isatty()  # None: closed
out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, width=None if TERMINAL else WIDE)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


@dataclass
class Manner:
    """How much is said: `quiet` leaves results, warnings and errors alone."""

    quiet: bool = False


MANNER = Manner()


def hush(quiet: bool) -> None:
    """Leave out progress and notes from now on, or say them again."""
    MANNER.quiet = quiet


def note(text: str) -> None:
    """Say something beside the results, in Rich's markup."""
    if not MANNER.quiet:
        err.print(text)


def warn(text: str) -> None:
    """A warning, as one line."""
    err.print(f"[bold yellow]warning:[/bold yellow] {escape(text)}")


def text(content: str) -> None:
    """Print a text that will be saved and read again: in ASCII where UTF-8 cannot be had."""
    print(content if console.speaks_unicode(sys.stdout) else console.plain(content))


def escaped(text: str) -> str:
    """Text that Rich prints as it is."""
    return escape(text)


def print_json(content: Any) -> None:
    """Machine-readable output: strict JSON, undefined and infinite numbers as null."""
    escaped = not console.speaks_unicode(sys.stdout)  # no character of a JSON is lost by that
    print(json.dumps(finite(content), indent=2, ensure_ascii=escaped, allow_nan=False))


def finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(k): finite(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return [finite(v) for v in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def duration(seconds: float) -> str:
    """75 → 1:15, 3700 → 1:01:40."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


BOUNDS = {
    "elbo": "ELBO",
    "reconstruction": "reconstruction",
    "log_joint": "log p(x, z)",
}  # of the logged ones the first


DENSITIES = ("elbo", "reconstruction", "log_joint")  # of x, in nats


def progress_parts(p: Progress, stretch: float = 0.0) -> list[str]:
    """step 200/1,000 · ELBO -104.2 nats · 12,300 samples/s · 0:07 left, part by part.

    `stretch` is log |det| of the map from the data to the model's numbers, so that the bound is one of the data.
    """
    name = next(name for name in (*BOUNDS, *p.numbers) if name in p.numbers)
    number = p.numbers[name] + stretch * (name in DENSITIES)
    total = math.ceil(p.total / max(p.samples // p.step, 1))
    bound = f"{BOUNDS.get(name, name)} {number:.1f} nats"
    return [f"step {p.step:,}/{total:,}", bound, f"{p.rate:,.0f} samples/s", f"{duration(p.left)} left"]


def progress_line(p: Progress, stretch: float = 0.0) -> str:
    """step 200/1,000 · ELBO -104.2 nats · 12,300 samples/s · 0:07 left."""
    return " · ".join(progress_parts(p, stretch))


def fitting_line(p: Progress, width: int, stretch: float = 0.0) -> str:
    """The line behind a bar, in so many columns; what has no room is left out, the rate first."""
    parts = progress_parts(p, stretch)
    for kept in (parts, [parts[0], parts[1], parts[3]], [parts[0], parts[1]], parts[:1]):
        line = " · ".join(kept)
        room = min(20, width - len(line) - 1)
        if room >= 5:
            return f"{_bar(p.samples / p.total, room)} {line}"
    return line[:width]


class Pass:
    """What to say of a pass over the rows of data: nothing within its first second."""

    def __init__(self) -> None:
        self.begun = math.inf

    def words(self, done: int, total: int) -> str:
        now = time.monotonic()
        self.begun = min(self.begun, now) if done < total else math.inf
        return f"reading {total:,} rows: {done / total:.0%}" if now - self.begun > PATIENCE else ""


@contextmanager
def reading() -> Iterator[None]:
    """How far each pass over the rows of data is, on a terminal; nothing elsewhere."""
    if not err.is_terminal:
        yield
        return
    line, seen = err.status(""), Pass()

    def tell(done: int, total: int) -> None:
        words = seen.words(done, total)
        if words and not MANNER.quiet:
            line.update(words)
            line.start()
        else:
            line.stop()

    try:
        with walking(reading=tell):
            yield
    finally:
        line.stop()


def nothing(done: int, total: int) -> None:
    """Say nothing of a pass, where another line is on the terminal."""


@contextmanager
def training_progress(silent: bool, stretch: float = 0.0) -> Iterator[Show]:
    """A line that renews itself on a terminal; elsewhere a line at each tenth of the way."""
    if silent or MANNER.quiet:
        yield lambda p: None
    elif err.is_terminal:
        seen = Pass()
        with Live(Text(""), console=err, refresh_per_second=8) as live:

            def tell(done: int, total: int) -> None:
                if words := seen.words(done, total):
                    live.update(Text(words))

            with walking(reading=tell):
                yield lambda p: live.update(Text(fitting_line(p, err.width, stretch)))
    else:
        tenths = {-1}

        def show(p: Progress) -> None:
            tenth = 10 * p.samples // p.total
            if tenth not in tenths:
                tenths.add(tenth)
                err.print(progress_line(p, stretch))

        yield show


@contextmanager
def warnings_told() -> Iterator[None]:
    """What the library warns of, as one line on the terminal each, and each once."""
    with warnings.catch_warnings():
        others, told = warnings.showwarning, set[str]()

        def tell(message: Any, category: type[Warning], *rest: Any) -> None:
            if not issubclass(category, AevbWarning):
                others(message, category, *rest)
            elif str(message) not in told:
                told.add(str(message))
                warn(str(message))

        warnings.showwarning = tell  # type: ignore[assignment]
        yield


@contextmanager
def logged() -> Iterator[None]:
    """What the library logs, on the terminal; where Python's logging is set up already, only where that says."""
    logger, handler = logging.getLogger("aevb"), _Told()
    if logger.hasHandlers():
        yield
        return
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Told(logging.Handler):
    """Log records as lines on the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            warn(record.getMessage())
        else:
            note(escape(record.getMessage()))


def counted(lines: Sequence[Line]) -> int:
    """The training samples of all curves, each up to its total: whole minibatches may go beyond it."""
    return sum(min(line.seen, line.total) for line in lines)


def curves_line(lines: Sequence[Line], rate: float) -> str:
    """3/18 curves, 41 % · 12:30 left · mnist-z3-aevb 0.4M of 1M."""
    seen, total = counted(lines), sum(line.total for line in lines)
    done = sum(line.seen >= line.total for line in lines)
    left = f"{duration((total - seen) / rate)} left" if rate > 0 else "time left not known yet"
    busy = ", ".join(f"{x.name} {x.seen / 1e6:.2f}M" for x in lines if x.begun and x.seen < x.total)
    return f"{done}/{len(lines)} curves, {seen / max(total, 1):.0%} · {left}{' · ' * bool(busy)}{busy}"


@contextmanager
def curves_progress() -> Iterator[Callable[[Sequence[Line]], None]]:
    """As `training_progress`, for many curves at once; elsewhere than on a terminal a line every minute."""
    begun, first = time.monotonic(), -1
    written = -math.inf

    def rate(lines: Sequence[Line]) -> float:
        nonlocal first
        seen = counted(lines)
        first = seen if first < 0 else first
        return (seen - first) / max(time.monotonic() - begun, 1e-3)

    if MANNER.quiet:
        yield lambda lines: None
        return
    if err.is_terminal:
        with Live(Text(""), console=err, refresh_per_second=2) as live, walking(reading=nothing):
            yield lambda lines: live.update(Text(curves_line(lines, rate(lines))))
        return

    def show(lines: Sequence[Line]) -> None:
        nonlocal written
        speed = rate(lines)
        if time.monotonic() - written > 60:
            written = time.monotonic()
            err.print(curves_line(lines, speed))

    yield show


@contextmanager
def counting(what: str) -> Iterator[None]:
    """`what`, and how far the estimators of the block are, on a terminal; nothing elsewhere."""
    if not err.is_terminal or MANNER.quiet:
        yield
        return
    with err.status(f"{what} ...") as line:

        def tell(done: int, total: int) -> None:
            line.update(f"{what}: {done / max(total, 1):.0%}")

        with walking(progress=tell, reading=nothing):
            yield


def _bar(fraction: float, width: int = 20) -> str:
    done = int(min(max(fraction, 0), 1) * width)
    return "━" * done + "╌" * (width - done)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A plain table; columns after the first hold numbers where their cells look like numbers."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(_numeric(str(row[i])) for row in rows)
        made.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=i == 0)  # to be copied
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    return made


def _numeric(cell: str) -> bool:
    return (
        cell.replace(",", "")
        .replace(".", "")
        .replace("-", "")
        .replace("%", "")
        .replace("±", "")
        .replace(" ", "")
        .isdigit()
    )
