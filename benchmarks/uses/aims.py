"""The aims, beside what was reached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.uses import anomalies, imputation, synthesis
from benchmarks.uses.cells import Result
from benchmarks.uses.tally import Results, pooled, table

OWN = "aevb"
DETECTORS = ("IsolationForest", "k-NN (5th)", "PCA", "ECOD", "PyOD's VAE")
FILLERS = ("mean, mode", "k-NN (5)", "IterativeImputer")
Aim = tuple[str, float | None, str, float | None]  # what, the library's number, ">" or "<", what it is held against


def of_anomalies(results: Results) -> Iterator[Aim]:
    sets = list(anomalies.SETS)
    for title, chosen in (("", sets), (" without optdigits", [name for name in sets if name != anomalies.OPTDIGITS])):
        best = most([results.mean("auroc", method, chosen) for method in DETECTORS])
        yield f"anomalies: mean AUROC{title} above all detectors", results.mean("auroc", OWN, chosen), ">", best
    pairs = [(results.mean("auroc", OWN, [name]), results.mean("auroc", "squared norm", [name])) for name in sets]
    worst = least([own - norm for own, norm in pairs if own is not None and norm is not None])
    yield "anomalies: least difference from the squared norm on a set", worst, ">", -0.05


def of_imputation(results: Results) -> Iterator[Aim]:
    for rate in imputation.RATES:
        cells = [f"{name} {rate} %" for name in imputation.SETS]
        mixed = [cell for cell in cells if not cell.startswith("wine")]
        for number, title in (("mae", "MAE"), ("rmse", "RMSE")):
            best = least([results.mean(number, method, cells) for method in FILLERS])
            what = f"imputation, {rate} %: {title} below mean, k-NN, IterativeImputer"
            yield what, results.mean(number, OWN, cells), "<", best
        best = most([results.mean("accuracy", method, mixed) for method in FILLERS])
        yield f"imputation, {rate} %: accuracy above theirs", results.mean("accuracy", OWN, mixed), ">", best
        for method in ("miceforest", "MissForest"):
            theirs = results.mean("seconds", method, cells)
            yield f"imputation, {rate} %: seconds below {method}", results.mean("seconds", OWN, cells), "<", theirs
    inside = pooled(results, imputation.WITH_CONTINUOUS, imputation.RATES)
    off = None if inside is None else abs(inside - 0.9)
    yield "imputation: coverage of 90 % intervals, distance from 0.9", off, "<", 0.03


def of_synthesis(results: Results) -> Iterator[Aim]:
    for name in synthesis.TARGETS:
        sign = "<" if name == "beijing_pm25" else ">"
        yield f"{name}: C2ST", results.mean("c2st", OWN, [name]), ">", 0.3
        own, theirs = results.mean("mle", OWN, [name]), results.mean("mle", "TVAE", [name])
        yield f"{name}: MLE better than TVAE", own, sign, theirs
        yield f"{name}: seconds", results.mean("seconds", OWN, [name]), "<", 600.0


def of_counts(results: Results) -> Iterator[Aim]:
    held_out = [
        results.mean("log_px", f"aevb, {kind}", ["pbmc, held out"]) for kind in ("negative binomial", "Poisson")
    ]
    yield "counts: log p(x) of negative binomial above Poisson", held_out[0], ">", held_out[1]
    theirs = most(
        [results.mean("nmi", m, ["pbmc, cell types"]) for m in ("PCA of log counts", "PCA of log counts in 10,000")]
    )
    yield "counts: NMI above PCA of log counts", results.mean("nmi", OWN, ["pbmc, cell types"]), ">", theirs


def of_embedding(results: Results) -> Iterator[Aim]:
    yield "MNIST: 10-NN accuracy", results.mean("accuracy", OWN, ["MNIST, 10-NN"]), ">", 0.95
    yield "MNIST: accuracy of clusters", results.mean("accuracy", OWN, ["MNIST, clusters"]), ">", 0.8


def of_speed(results: Results) -> Iterator[Aim]:
    yield "wall seconds to fit 100 rows", results.mean("wall", OWN, ["fit 100 rows"]), "<", 2.0
    yield "wall seconds to fit 500 rows", results.mean("wall", OWN, ["fit 500 rows"]), "<", 10.0
    yield "rows encoded a second", results.mean("rows_per_second", OWN, ["encode"]), ">", 300_000.0
    yield "rows scored a second, K = 100", results.mean("rows_per_second", OWN, ["score"]), ">", 10_000.0


AIMS = {
    "anomalies": of_anomalies,
    "imputation": of_imputation,
    "synthesis": of_synthesis,
    "counts": of_counts,
    "embedding": of_embedding,
    "speed": of_speed,
}


def most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def least(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def table_of(results: Sequence[Result]) -> str:
    """A line for each aim of which both numbers are there; empty where there is none."""
    rows = []
    for protocol, aims in AIMS.items():
        for what, own, sign, other in aims(Results(results, protocol)):
            if own is not None and other is not None:
                reached = own >= other if sign == ">" else own <= other
                rows.append([what, short(own), f"{sign} {short(other)}", "yes" if reached else "no"])
    return "## Aims\n\n" + table(["aim", "aevb", "wanted", "reached"], rows) if rows else ""


def short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"
