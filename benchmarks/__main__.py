"""``python -m benchmarks``: measure, save, print."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks import report
from benchmarks.contenders import TASKS, Task
from benchmarks.measure import REPOSITORY, Settings, measure


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time aevb beside its peers.")
    default = os.environ.get("AEVB_DATA") or REPOSITORY.parent / "shared" / "data"
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these contenders alone")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data-dir", type=Path, default=Path(default), help="holds mnist/*.gz (or set AEVB_DATA)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the tables to this Markdown file")
    parser.add_argument("--saved", action="store_true", help="no measurement: tables from benchmarks/results")
    options = parser.parse_args()
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    known = {contender.name for name in options.tasks for contender in TASKS[name].contenders}
    if unknown := sorted(set(options.only or []) - known):
        parser.error(f"--only: unknown {', '.join(unknown)}; choose from {', '.join(sorted(known))}")
    return options


def restrict(task: Task, names: list[str] | None) -> Task:
    """The task with the named contenders alone."""
    chosen = tuple(c for c in task.contenders if names is None or c.name in names)
    return replace(task, contenders=chosen)


def run(task: Task, settings: Settings, command: str) -> str:
    about = report.context(settings, command)  # before the measurement, for the load of the idle machine
    results = measure(task, settings)
    report.save(task, results, about)
    return report.section(task, results, about)


def main() -> None:
    options = parse()
    settings = Settings(options.rounds, options.threads, options.data_dir.resolve())
    tasks = [restrict(TASKS[name], options.only) for name in options.tasks]
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    if options.saved:
        sections = [report.section(task, *report.load(task)) for task in tasks if report.saved(task)]
    else:
        sections = [run(task, settings, command) for task in tasks if task.contenders]
    print("\n".join(sections))
    if options.write:
        options.write.write_text(report.page(sections))


if __name__ == "__main__":
    main()
