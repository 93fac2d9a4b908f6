"""docs/uses.md from the results file: each protocol in a paragraph, then its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from textwrap import fill

from benchmarks.uses import aims, anomalies, counts, embedding, imputation, speed, synthesis
from benchmarks.uses.cells import Result, read
from benchmarks.uses.tally import NONE, Results, pooled, spread, table

PAGE = Path(__file__).parents[2] / "docs" / "uses.md"
# TabPC, arXiv 2603.23016, April 2026: C2ST, shape, pairs, MLE, seconds of training on a GPU; five trainings
PUBLISHED = {
    "adult": {"TVAE": ("< 0.0001", "0.762", "0.871", "1310"), "shallow mixture": ("0.773", "0.992", "0.902", "60")},
    "beijing_pm25": {
        "TVAE": ("< 0.0001", "0.722", "1.038", "1482"),
        "shallow mixture": ("0.733", "0.981", "0.558", "106"),
    },
    "online_shoppers": {
        "TVAE": ("< 0.0001", "0.751", "0.903", "579"),
        "shallow mixture": ("0.290", "0.971", "0.863", "48"),
    },
}
ROWS_OF_RUBIN = {"wine-red 30 %": (".782", ".891", ".982"), "wine-white 30 %": (".745", ".873", ".927")}


def of_anomalies(results: Results) -> str:
    sets = list(anomalies.SETS)
    few = [name for name in sets if name != anomalies.OPTDIGITS]
    rows = []
    for method in results.present(anomalies.METHODS):
        means = [spread(results.means("auroc", method, chosen)) for chosen in (sets, few)]
        each = [results.shown("auroc", method, name) for name in sets]
        rows.append([method, *means, *each, results.seconds(method)])
    names = [name.partition("_")[2] for name in sets]
    return table(["AUROC", "mean", "without optdigits", *names, "seconds"], rows)


def of_imputation(results: Results) -> str:
    methods = results.present(imputation.METHODS)
    parts = []
    for number, title in (("mae", "MAE"), ("rmse", "RMSE"), ("accuracy", "Accuracy"), ("seconds", "Seconds")):
        digits = 1 if number == "seconds" else 3
        sets = [name for name in imputation.SETS if number != "accuracy" or not name.startswith("wine")]
        rows = []
        for rate in imputation.RATES:
            cells = [f"{name} {rate} %" for name in sets]
            rows += [[cell, *(results.shown(number, method, cell, digits) for method in methods)] for cell in cells]
            rows.append(
                [f"**mean, {rate} %**", *(spread(results.means(number, method, cells), digits) for method in methods)]
            )
        parts.append(table([title, *methods], rows))
    return "\n".join([*parts, coverage(results)])


def coverage(results: Results) -> str:
    """The share of hidden continuous cells inside their 90 % interval, by table and rate, and pooled."""
    rows = []
    for name in [*imputation.WITH_CONTINUOUS, "pooled"]:
        sets = imputation.WITH_CONTINUOUS if name == "pooled" else [name]
        shares = [pooled(results, sets, rates) for rates in (*([rate] for rate in imputation.RATES), imputation.RATES)]
        rows.append([name, *(NONE if share is None else f"{share:.3f}" for share in shares)])
    return table(["Inside 90 % intervals, aevb", *(f"{rate} %" for rate in imputation.RATES), "all"], rows)


def of_rubin(results: Results) -> str:
    methods = results.present(imputation.DRAWN)
    rows = []
    for name in imputation.RULES_SETS:
        for rate in imputation.RATES:
            cell = f"{name} {rate} %"
            own = [results.shown("coverage", method, cell) for method in methods]
            rows.append([cell, *own, *ROWS_OF_RUBIN.get(cell, (NONE,) * 3)])
    return table(["Coverage", *methods, "published: MICE", "MIWAE", "U-VAE"], rows)


def of_synthesis(results: Results) -> str:
    parts = []
    for name in synthesis.TARGETS:
        rows = []
        for method in results.present(synthesis.METHODS):
            numbers = [results.shown(number, method, name) for number in ("c2st", "shape", "pairs", "mle")]
            rows.append([method, *numbers, results.shown("seconds", method, name, 1)])
        for method, (c2st, shape, mle, seconds) in PUBLISHED[name].items():
            rows.append([f"published: {method}", c2st, shape, NONE, mle, f"{seconds} (GPU)"])
        parts.append(table([name, "C2ST", "shape", "pairs", "MLE", "seconds"], rows))
    return "\n".join(parts)


def of_counts(results: Results) -> str:
    first = by_method(results, counts.DENSITIES, "pbmc, held out", {"log_px": "log p(x)"}, 2)
    return first + "\n" + by_method(results, counts.EMBEDDINGS, "pbmc, cell types", {"nmi": "NMI"})


def of_embedding(results: Results) -> str:
    first = by_method(results, embedding.EMBEDDINGS, "MNIST, 10-NN", {"accuracy": "10-NN"})
    return first + "\n" + by_method(results, embedding.CLUSTERS, "MNIST, clusters", {"accuracy": "clusters"})


def by_method(results: Results, methods: Iterable[str], data: str, numbers: dict[str, str], digits: int = 3) -> str:
    """A row for each method: numbers of one data set, and seconds."""
    rows = []
    for method in results.present(methods):
        shown = [results.shown(number, method, data, digits) for number in numbers]
        rows.append([method, *shown, results.shown("seconds", method, data, 1)])
    return table([data, *numbers.values(), "seconds"], rows)


def of_speed(results: Results) -> str:
    rows = []
    for data in ("fit 100 rows", "fit 500 rows", "encode", "score"):
        for method in ("aevb", "IsolationForest", "PCA"):
            if results.of("wall", method, data):
                rate = NONE if data.startswith("fit") else results.shown("rows_per_second", method, data, 0)
                wall = results.shown("wall", method, data, 2)
                rows.append([data, method, wall, results.shown("seconds", method, data, 2), rate])
    return table(["what", "method", "wall seconds", "seconds", "rows a second"], rows)


SECTIONS: dict[str, tuple[str, str, Callable[[Results], str]]] = {
    "anomalies": ("Anomalies", anomalies.ABOUT, of_anomalies),
    "imputation": ("Imputation", imputation.ABOUT, of_imputation),
    "rubin": ("Multiple imputation", imputation.ABOUT_RULES, of_rubin),
    "synthesis": ("Synthetic rows", synthesis.ABOUT, of_synthesis),
    "counts": ("Counts", counts.ABOUT, of_counts),
    "embedding": ("Embedding", embedding.ABOUT, of_embedding),
    "speed": ("Speed", speed.ABOUT, of_speed),
}
START = """\
# Uses

One fitted density serves many uses; this page compares it with methods made for each of them.
`python -m benchmarks.uses` measures what its results file lacks; `python -m benchmarks.uses page` writes this page from
that file. All methods have their defaults, the same for all data. No setting was chosen on these data. Two faults were
found in rows drawn for online_shoppers and beijing_pm25, and corrected for all tables. Numbers shared by many rows were
not drawn exactly, and were lost where a column has many decimals.

Numbers are the mean ± the standard deviation over seeds; a number without ± has one seed. Seconds are of the processor,
on one thread: other work on the machine lengthens them little. A dash means that a cell was not measured. *aevb* is
this library.
"""


def where(results: Sequence[Result]) -> str:
    """The commits and the machines of the cells."""
    commits = sorted({result.commit for result in results})
    lines = [f"{len(results):,} cells, at the commits {', '.join(commits)} (+: with changes):\n", *machines(results)]
    return "\n".join(fill(line, 120, subsequent_indent="  " * line.startswith("-")) for line in lines) + "\n"


def machines(results: Sequence[Result]) -> Iterator[str]:
    """Of each machine, how many cells it measured, at which loads, and those of which methods."""
    for name in sorted({result.machine for result in results}):
        own = [result for result in results if result.machine == name]
        loads, methods = [result.load for result in own], sorted({result.method for result in own})
        what = f"{len(own):,} on {name or 'a machine without a name'} at a load of {min(loads):.1f} to {max(loads):.1f}"
        yield f"- {what}: {'; '.join(methods)}"


def text(results: Sequence[Result]) -> str:
    """The page."""
    parts = [START, where(results), aims.table_of(results)] if results else [START]
    for protocol, (title, about, tables) in SECTIONS.items():
        chosen = Results(results, protocol)
        if chosen.all:
            parts.append(f"## {title}\n\n{about}\n\n{tables(chosen)}")
    return "\n".join(parts)


def write(results: Path) -> None:
    """Writes docs/uses.md from a results file."""
    PAGE.write_text(text(read(results)))
