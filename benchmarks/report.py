"""Results as JSON and as Markdown."""

from __future__ import annotations

import json
import os
import platform
from datetime import date
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

from benchmarks.contenders import SUBJECTS, Task
from benchmarks.measure import Result, Settings

RESULTS = Path(__file__).parent / "results"
WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
NOTES = Path(__file__).parent / "notes.md"  # what the tables mean, by hand


def processor() -> str:
    """The processor's name, as the kernel gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def context(settings: Settings, command: str) -> dict[str, Any]:
    """All that the numbers depend on besides the code."""
    return {
        "date": date.today().isoformat(),
        "command": command,
        "rounds": settings.rounds,
        "threads": settings.threads,
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def save(task: Task, results: list[Result], about: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    content = {"task": task.name, **about, "results": [result.as_json() for result in results]}
    (RESULTS / f"{task.name}.json").write_text(json.dumps(content, indent=2) + "\n")


def saved(task: Task) -> bool:
    """Whether there are results of a task."""
    return (RESULTS / f"{task.name}.json").is_file()


def load(task: Task) -> tuple[list[Result], dict[str, Any]]:
    """What ``save`` wrote."""
    about = json.loads((RESULTS / f"{task.name}.json").read_text())
    return [Result(**entry) for entry in about.pop("results")], about


def spread(values: list[float], digits: int) -> str:
    """median (min-max)"""
    low, middle, high = (f"{v:.{digits}f}" for v in (min(values), median(values), max(values)))
    return f"{middle} ({low}–{high})"


def ratios(result: Result, subject: Result) -> str:
    """How many times as long as the subject, round by round; a round in which either failed is left out."""
    if result is subject:
        return "1"
    return spread([a / b for a, b in zip(result.seconds, subject.seconds, strict=False)], 2)


def subjects(results: list[Result]) -> list[Result]:
    """Those that the others are compared with: aevb, or the plain loop while aevb does not run."""
    done = [result for result in results if not result.failure]
    return [r for r in done if r.name in SUBJECTS] or [r for r in done if r.name == "plain"]


def row(result: Result, task: Task, against: list[Result]) -> list[str]:
    if result.failure:
        return [result.name, f"failed: {result.failure}".replace("|", "/"), *[""] * (3 + len(against))]
    rate = f"{task.items / median(result.seconds):,.0f}"
    cells = [result.name, spread(result.seconds, 2), rate, f"{result.warm_up:.2f}", f"{result.nats[0]:.2f}"]
    return cells + [ratios(result, subject) for subject in against]


def table(task: Task, results: list[Result]) -> str:
    against = subjects(results)
    header = ["contender", "seconds", task.rate, "warm-up, s", "nats/image"]
    header += [f"time / {subject.name}" for subject in against]
    rows = [header, ["---"] + ["---:"] * (len(header) - 1), *(row(r, task, against) for r in results)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def versions(results: list[Result]) -> str:
    """Each contender's packages, once per set."""
    groups: dict[str, list[str]] = {}
    for result in results:
        if result.versions:
            packages = ", ".join(f"{name} {version}" for name, version in result.versions.items())
            groups.setdefault(packages, []).append(result.name)
    return "\n".join(f"- {', '.join(names)}: {packages}" for packages, names in groups.items())


def machine(about: dict[str, Any]) -> str:
    return (
        f"{about['processor']}, {about['cores']} cores (load {about['load']} at the start), "
        f"{about['system']}, Python {about['python']}; "
        f"{about['threads']} threads per contender; {about['date']}; `{about['command']}`, {about['rounds']} rounds."
    )


def section(task: Task, results: list[Result], about: dict[str, Any]) -> str:
    """One task: its table, its machine, its versions, and the workers' warnings."""
    warnings = sorted({f"**{note}.**" for result in results for note in result.notes})
    parts = [f"## {task.title}", *warnings, table(task, results), machine(about), versions(results)]
    return "\n\n".join(parts) + "\n"


def page(sections: list[str]) -> str:
    introduction = (
        "# Benchmarks\n\n"
        "Made by `python -m benchmarks`; benchmarks/README.md says what is measured and how. Seconds and ratios are "
        "medians over rounds, with the smallest and the largest in parentheses. A ratio is a "
        "contender's time divided by "
        "that of the column's subject in the same round: above 1, the subject is faster. Nats per image are the mean "
        "loss of the warm-up, to see that all did the same work.\n"
    )
    text = "\n".join([introduction, *sections, NOTES.read_text(encoding="utf-8")])
    return "\n\n".join(map(wrapped, text.strip().split("\n\n"))) + "\n"


def wrapped(block: str) -> str:
    """A paragraph or a list in lines of at most 120 characters; tables and headings as they are."""
    block = block.strip("\n")
    if block.startswith(("|", "#")):
        return block
    items = block.split("\n") if block.startswith("- ") else [block]
    return "\n".join(fill(one, 120, subsequent_indent="  " * one.startswith("- "), **WHOLE) for one in items)
