"""What the command line prints: tables, a progress line, errors."""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from aevb.errors import AevbWarning

if TYPE_CHECKING:
    from aevb.reproduce.workers import Line
    from aevb.runs.fit import Progress, Show

WIDE = 160  # columns of what is no terminal: a file or a pipe need not be narrow
out = Console(highlight=False, soft_wrap=True, markup=False, width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def escaped(text: str) -> str:
    """Text that Rich prints as it is."""
    return escape(text)


def print_json(content: Any) -> None:
    """Machine-readable output: strict JSON, undefined and infinite numbers as null."""
    print(json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False))


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


def progress_line(p: Progress) -> str:
    """step 200/1,000 · ELBO -104.2 nats · 12,300 samples/s · 0:07 left."""
    name = next(name for name in (*BOUNDS, *p.numbers) if name in p.numbers)
    bound = f"{BOUNDS.get(name, name)} {p.numbers[name]:.1f} nats"
    total = math.ceil(p.total / max(p.samples // p.step, 1))
    return f"step {p.step:,}/{total:,} · {bound} · {p.rate:,.0f} samples/s · {duration(p.left)} left"


@contextmanager
def training_progress(quiet: bool) -> Iterator[Show]:
    """A line that renews itself on a terminal; elsewhere a line at each tenth of the way."""
    if quiet:
        yield lambda p: None
    elif err.is_terminal:
        with Live(Text(""), console=err, refresh_per_second=8) as live:
            yield lambda p: live.update(Text(_bar(p.samples / p.total) + " " + progress_line(p)))
    else:
        tenths = {-1}

        def show(p: Progress) -> None:
            tenth = 10 * p.samples // p.total
            if tenth not in tenths:
                tenths.add(tenth)
                err.print(progress_line(p))

        yield show


@contextmanager
def warnings_told() -> Iterator[None]:
    """What the library warns of, as one line on the terminal each."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def tell(message: Any, category: type[Warning], *rest: Any) -> None:
            if issubclass(category, AevbWarning):
                err.print(f"[bold yellow]warning:[/bold yellow] {escape(str(message))}")
            else:
                others(message, category, *rest)

        warnings.showwarning = tell  # type: ignore[assignment]
        yield


def curves_line(lines: Sequence[Line], rate: float) -> str:
    """3/18 curves, 41 % · 12:30 left · mnist-z3-aevb 0.4M of 1M."""
    seen, total = sum(line.seen for line in lines), sum(line.total for line in lines)
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
        seen = sum(line.seen for line in lines)
        first = seen if first < 0 else first
        return (seen - first) / max(time.monotonic() - begun, 1e-3)

    if err.is_terminal:
        with Live(Text(""), console=err, refresh_per_second=2) as live:
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
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """`what` and how far it is, on a terminal; nothing elsewhere."""
    if not err.is_terminal:
        yield lambda done, total: None
        return
    with err.status(what) as line:
        yield lambda done, total: line.update(f"{what}: {done / max(total, 1):.0%}")


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
