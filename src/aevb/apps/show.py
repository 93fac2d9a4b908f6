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
    from aevb.apps.paper.workers import Line
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


def progress_line(p: Progress) -> str:
    """step 200/1,000 · ELBO -104.2 nats · 12,300 samples/s · 0:07 left."""
    n = p.numbers
    bound = f"ELBO {n['elbo']:.1f} nats" if "elbo" in n else f"reconstruction {n.get('reconstruction', math.nan):.1f} nats"
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
        cell.replace(",", "").replace(".", "").replace("-", "").replace("%", "").replace("±", "").replace(" ", "").isdigit()
    )


def pm(mean: float | None, error: float | None = None, digits: int = 2) -> str:
    """-97.13 ± 0.21; a dash for what is not defined."""
    if mean is None or not math.isfinite(mean):
        return "–"
    return f"{mean:.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None and math.isfinite(error) else "")


def evaluation_rows(e: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(what, value ± standard error over data points, unit) of `Evaluation.to_dict()`."""
    likelihood = _likelihood(e)
    rows = [
        ("ELBO", pm(e["elbo"], e["elbo_se"]), "nats"),
        ("  reconstruction", pm(e["reconstruction"], e["reconstruction_se"]), "nats"),
        ("  KL(q(z|x) ‖ p(z))", pm(e["kl"], e["kl_se"]), "nats"),
        (likelihood, pm(e["log_likelihood"], e["log_likelihood_se"]), f"nats, {e['importance_samples']} importance samples"),
        ("  Monte-Carlo error", pm(e["log_likelihood_monte_carlo_se"], digits=3), "nats, less with more samples"),
        ("  effective samples", _effective(e), f"of {e['importance_samples']}, mean over points"),
        ("bits per dimension", pm(e["bits_per_dim"], e["bits_per_dim_se"], 4), "bits"),
        ("active units", f"{e['active_units']} of {e['latent_size']}", "Cov E[z|x] > 0.01"),
        ("perplexity of the codes", pm(e.get("perplexity"), digits=1), "as many, used equally often"),
    ]
    rows += [("weights", e["weights"], "aevb.log_predictive averages over their posterior")] if "weights" in e else []
    if "classifier_accuracy" in e:
        rows.append(
            ("classifier's accuracy", pm(e["classifier_accuracy"], e["classifier_accuracy_se"], 3), "of labels, by q(y|x)")
        )
    latent = e.get("latent") or {}
    names = {
        "knn_accuracy": "10-nearest-neighbours accuracy",
        "linear_accuracy": "linear-probe accuracy",
        "kmeans_nmi": "k-means NMI",
        "kmeans_ari": "k-means ARI",
        "kmeans_accuracy": "k-means accuracy",
    }
    scores = {k: pm(latent.get(k), latent.get(f"{k}_se"), 3) for k in names}
    rows += [(names[k], score, "of the posterior means") for k, score in scores.items()]
    if clusters := e.get("clusters"):
        rows.append(("components used", f"{clusters['used']} of {clusters['components']}", "the likeliest p(m|z) of some x"))
        for key, name in (("nmi", "NMI"), ("ari", "ARI"), ("accuracy", "accuracy")):
            rows.append(
                (f"components' {name}", pm(clusters[key], clusters.get(f"{key}_se"), 3), "of the likeliest component")
            )
    return [row for row in rows if row[1] != "–"]


def _likelihood(e: Mapping[str, Any]) -> str:
    """What the number is: log p(x|y) of a model that is conditioned on labels y."""
    name = "log p(x|y)" if e.get("given_labels") else "log p(x)"
    return name if e.get("is_likelihood", True) else f"{name}, relaxed: no true likelihood"


def _effective(e: Mapping[str, Any]) -> str:
    return pm(e["effective_sample_size"], e["effective_sample_size_se"], 1)


def likelihood_rows(e: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """As `evaluation_rows`, of `judge_likelihood`."""
    start = {"prior": "p(z)", "posterior": "q(z|x)"}.get(e.get("start", ""))
    annealed = f"{e['samples']} chains × {e['temperatures']} temperatures" if "temperatures" in e else "HMC"
    if e["estimator"] == "bdmc":
        return [
            (f"{_likelihood(e)}, upper bound", pm(e["upper"], e["upper_se"]), f"nats, {annealed}, down to {start}"),
            (f"{_likelihood(e)}, lower bound", pm(e["lower"], e["lower_se"]), f"nats, {annealed}, up from {start}"),
            ("  gap", pm(e["gap"], e["gap_se"]), "nats, between the two in expectation"),
        ]
    likelihood = _likelihood(e)
    rows = [
        (likelihood, pm(e["log_likelihood"], e["log_likelihood_se"]), f"nats, {annealed}"),
        ("  Monte-Carlo error", pm(e["log_likelihood_monte_carlo_se"], digits=3), "nats"),
        ("  effective samples", _effective(e), f"of {e['samples']}, mean over points"),
        ("bits per dimension", pm(e["bits_per_dim"], e["bits_per_dim_se"], 4), "bits"),
    ]
    return [row for row in rows if row[1] != "–"]


def surgery_rows(e: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """As `evaluation_rows`, of `judge_surgery`."""
    names = {
        "distortion": ("distortion, -E[log p(x|z)]", "nats"),
        "rate": ("rate, KL(q(z|x) ‖ p(z))", "nats; the next two add up to it, within their errors"),
        "mutual_information": ("  I(x; z)", f"nats, at most log N = {e['most_information']:.2f}"),
        "aggregate_kl": ("  KL(q(z) ‖ p(z))", "nats, the sum of the next two"),
        "total_correlation": ("    total correlation of q(z)", "nats"),
        "dimension_kl": ("    Σ KL(q(z_d) ‖ p(z_d))", "nats"),
    }
    rows = [(name, pm(e[key], e[f"{key}_se"]), unit) for key, (name, unit) in names.items()]
    return [row for row in rows if row[1] != "–"]


def fidelity_rows(e: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """As `evaluation_rows`, of `judge_samples`."""
    names = {
        "precision": ("precision", "of samples lie among data"),
        "recall": ("recall", "of data lie among samples"),
        "density": ("density", "1 where samples lie as data do"),
        "coverage": ("coverage", "of data have a sample near"),
        "mmd": ("kernel discrepancy, MMD²", "0 for equal distributions"),
        "authentic": ("authentic", "of samples are no nearer to a train point than its own neighbour is"),
        "authentic_data": ("  the same of data", "for comparison"),
    }
    digits = dict.fromkeys(names, 3) | {"mmd": 4}
    return [(name, pm(e[key], e[f"{key}_se"], digits[key]), unit) for key, (name, unit) in names.items()]


def disentanglement_rows(e: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """As `evaluation_rows`, of `judge_disentanglement`."""
    best = [max(range(len(e["information"])), key=lambda d: e["information"][d][f]) for f in range(len(e["factors"]))]
    most = ", ".join(f"{name} in {d}" for name, d in zip(e["factors"], best, strict=True))
    return [
        ("mutual information gap", pm(e["mig"], digits=3), f"of 1; the most of {most}"),
        ("SAP", pm(e["sap"], digits=3), "of 0.933"),
        ("DCI disentanglement", pm(e["dci"]["disentanglement"], digits=3), "of 1"),
        ("DCI completeness", pm(e["dci"]["completeness"], digits=3), "of 1"),
        ("DCI informativeness", pm(e["dci"]["informativeness"], e["dci"]["informativeness_se"], 3), "accuracy of a forest"),
        ("FactorVAE score", pm(e["factor_vae"], e["factor_vae_se"], 3), "of 1, 0.2 by chance"),
    ]
