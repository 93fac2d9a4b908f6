"""``python -m benchmarks.uses``: measure what is missing in the results file; ``page`` writes docs/uses.md from it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from benchmarks.uses import page
from benchmarks.uses.cells import RESULTS, Cell, measured

PROTOCOLS = ("anomalies", "imputation", "synthesis", "counts", "embedding", "speed")


def cells_of(protocol: str) -> Callable[[int | None], Iterator[Cell]]:
    cells: Callable[[int | None], Iterator[Cell]] = import_module(f"benchmarks.uses.{protocol}").cells
    return cells


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.uses", description=__doc__)
    parser.add_argument("what", nargs="?", choices=(*PROTOCOLS, "page"), help="by default all protocols")
    parser.add_argument("--seeds", type=int, help="how many; by default as many as the protocol asks for")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these methods or data sets alone")
    parser.add_argument("--without", nargs="+", metavar="NAME", default=[], help="not these methods or data sets")
    parser.add_argument("--jobs", type=int, default=1, help="cells to measure at a time; speed asks for one")
    parser.add_argument("--results", type=Path, default=RESULTS, help="a line of JSON for each measured cell")
    return parser.parse_args()


def chosen(cell: Cell, only: list[str] | None, without: list[str]) -> bool:
    """Whether a cell is asked for by the name of its method or data, or by what these begin with."""
    names = {cell.method, cell.method.split(",")[0], cell.data, cell.data.split()[0].rstrip(",")}
    return (only is None or bool(names & set(only))) and not names & set(without)


def main() -> None:
    options = parse()
    if options.what == "page":
        page.write(options.results)
        return
    protocols = [options.what] if options.what else PROTOCOLS
    cells = [cell for protocol in protocols for cell in cells_of(protocol)(options.seeds)]
    asked = (cell for cell in cells if chosen(cell, options.only, options.without))
    for line in measured(asked, options.results, options.jobs):
        print(line, flush=True)


if __name__ == "__main__":
    main()
