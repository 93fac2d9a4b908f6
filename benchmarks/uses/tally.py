"""Results asked for by data, method and number, and what tables show of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from benchmarks.uses.cells import Result

NONE = "–"


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard deviation over seeds; the mean alone where there is one seed."""
    if not values:
        return NONE
    mean = f"{fmean(values):,.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {stdev(values):.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


class Results:
    """The results of a protocol, to be asked for by data, method and number."""

    def __init__(self, results: Iterable[Result], protocol: str):
        self.all = [result for result in results if result.protocol == protocol]

    def of(self, number: str, method: str, data: str | None = None) -> dict[int, list[float]]:
        """By seed, the numbers of this name (or `seconds`) of a method, on one data set or on all."""
        found: dict[int, list[float]] = {}
        for result in self.all:
            numbers = {**result.numbers, "seconds": result.seconds}
            if result.method == method and data in (None, result.data) and number in numbers:
                found.setdefault(result.seed, []).append(numbers[number])
        return found

    def shown(self, number: str, method: str, data: str, digits: int = 3) -> str:
        return spread([value for values in self.of(number, method, data).values() for value in values], digits)

    def means(self, number: str, method: str, sets: Sequence[str]) -> list[float]:
        """The mean over data sets, of each seed that has all of them."""
        by_set = [self.of(number, method, data) for data in sets]
        seeds = set.intersection(*(set(found) for found in by_set))
        return [fmean(found[seed][0] for found in by_set) for seed in sorted(seeds)]

    def mean(self, number: str, method: str, sets: Sequence[str]) -> float | None:
        """The mean of `means`; None where no seed has all sets."""
        values = self.means(number, method, sets)
        return fmean(values) if values else None

    def seconds(self, method: str) -> str:
        """Mean seconds of a cell."""
        values = [value for values in self.of("seconds", method).values() for value in values]
        return f"{fmean(values):,.1f}" if values else NONE

    def present(self, methods: Iterable[str]) -> list[str]:
        measured = {result.method for result in self.all}
        return [method for method in methods if method in measured]


def pooled(results: Results, sets: Sequence[str], rates: Sequence[int]) -> float | None:
    """The share of hidden continuous cells inside the library's 90 % intervals."""
    names = {f"{name} {rate} %" for name in sets for rate in rates}
    found = [result.numbers for result in results.all if result.method == "aevb" and result.data in names]
    total = sum(numbers.get("cells", 0.0) for numbers in found)
    return sum(numbers.get("inside", 0.0) for numbers in found) / total if total else None
