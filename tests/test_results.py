"""The pages of the reruns: every row of numbers is what the committed measurements give, and no page lacks a part."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aevb.reproduce.reproduce import EXPERIMENTS
from aevb.reproduce.tables import TABLES

DOCS = Path(__file__).parent.parent / "docs"
FOLDER = DOCS / "reproduction"
PARTS = ["The claim", "What came out", "Verdict", "What was not run", "The command"]
Row = dict[str, str]
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def table(path: str) -> list[Row]:
    with (FOLDER / path).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def number(text: str | float, digits: int = 1) -> str:
    """As a page writes it, with a minus sign."""
    return f"{float(text):,.{digits}f}".replace("-", "−") if text != "" else "–"


def count(text: str) -> str:
    """3000000 as 3·10⁶."""
    digits = f"{round(float(text)):d}"
    first, power = digits.rstrip("0"), len(digits) - len(digits.rstrip("0"))
    return ("" if first == "1" else f"{first}·") + "10" + str(power).translate(SUPERSCRIPT)


def with_error(row: Row, key: str, digits: int, error: str = "") -> str:
    return f"{number(row[key], digits)} ± {number(row[error or f'{key}_se'], digits)}"


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def figure_2(marks: set[str] | None = None) -> Iterator[str]:
    """Each panel at the last mark of both algorithms, on test data; or at some marks."""
    rows = [r for r in table("figure-2/table.csv") if r["split"] == "test" and r["ours"]]
    at = {(r["panel"], r["algorithm"], r["samples"]): r for r in rows}
    for panel in dict.fromkeys(r["panel"] for r in rows):
        both = [s for p, a, s in at if p == panel and a == "WS" and (p, "AEVB", s) in at]
        for mark in both[-1:] if marks is None else [s for p, a, s in at if (p, a) == (panel, "AEVB") and s in marks]:
            found = [at.get((panel, algorithm, mark)) for algorithm in ("AEVB", "WS")]
            cells = [number(r[k]) if r else "–" for r in found for k in ("ours", "paper")]
            yield line(panel.replace(" Nz=", ", ") + " latents", count(mark), *cells)


def figure_2_all() -> Iterator[str]:
    yield from figure_2({"100000", "1000000", "3000000", "10000000"})


def figure_2_seeds() -> Iterator[str]:
    """Each panel at 10⁶ samples, and at 10⁷ where several seeds of AEVB have them, on test data."""
    rows = [r for r in table("figure-2/table.csv") if r["split"] == "test" and r["seeds"]]
    at = {(r["panel"], r["algorithm"], r["samples"]): r for r in rows}
    for panel in dict.fromkeys(r["panel"] for r in rows):
        for mark in (m for m in ("1000000", "10000000") if (panel, "AEVB", m) in at):
            found = [at.get((panel, algorithm, mark)) for algorithm in ("AEVB", "WS")]
            cells = [c for r in found for c in ((over_seeds(r), number(r["paper"])) if r else ("–", "–"))]
            yield line(panel.replace(" Nz=", ", ") + " latents", count(mark), *cells)


def over_seeds(row: Row) -> str:
    return f"{number(row['mean'])} ± {number(row['sd'])} ({row['seeds']})"


FIGURE_3 = [("1000", "1000000"), ("1000", "3000000"), ("1000", "20000000"), ("50000", "2000000"), ("50000", "10000000")]


def figure_3(marks: list[tuple[str, str]] = FIGURE_3) -> Iterator[str]:
    at = {(r["panel"], r["algorithm"], r["split"], r["samples"]): r for r in table("figure-3/table.csv")}
    for n, mark in marks:
        found = [
            at.get((f"N={n}", algorithm, split, mark))
            for algorithm in ("AEVB", "wake-sleep", "Monte Carlo EM")
            for split in ("train", "test")
        ]
        yield line(f"{int(n):,}", count(mark), *map(beside, found))


def beside(row: Row | None) -> str:
    """Ours, with the paper's in brackets where it can be read off."""
    if row is None:
        return "–"
    return number(row["ours"]) + (f" ({number(row['paper'])})" if row["paper"] else "")


def figure_3_all() -> Iterator[str]:
    few = [("1000", f"{n}000000") for n in (1, 2, 3, 5, 10, 20)]
    yield from figure_3([*few, *(("50000", f"{n}000000") for n in (1, 2, 3, 5, 10))])


def figure_3_seeds() -> Iterator[str]:
    """Train and test data at marks that several seeds have."""
    rows = [r for r in table("figure-3/table.csv") if r["seeds"]]
    at = {(r["panel"], r["algorithm"], r["split"], r["samples"]): r for r in rows}
    columns = [(a, s) for a in ("AEVB", "wake-sleep", "Monte Carlo EM") for s in ("train", "test")]
    for n, mark in [("1000", "1000000"), ("1000", "3000000"), ("50000", "1000000"), ("50000", "2000000")]:
        found = [at.get((f"N={n}", *column, mark)) for column in columns]
        yield line(f"{int(n):,}", count(mark), *(over_seeds(r) if r else "–" for r in found))


def figure_5() -> Iterator[str]:
    for r in table("figure-5/figure-5.csv"):
        name = r["latents"] if r["latents"] == "test images" else f"{r['latents']} latents"
        samples = count(r["training samples"]) if r["training samples"] else "–"
        yield line(name, samples, f"{with_error({k: percent(v) for k, v in r.items()}, 'clear', 1)} %", r["classes"])


def figure_5_seeds() -> Iterator[str]:
    for r in table("figure-5/seeds.csv"):
        shares = {k: percent(v) for k, v in r.items()}
        cells = [count(r["training samples"]), r["seeds"], f"{with_error(shares, 'clear', 1, 'clear_sd')} %"]
        yield line(f"{r['latents']} latents", *cells, number(r["classes"]))


def figure_4_seeds() -> Iterator[str]:
    names = {"MNIST": "MNIST, clear digits", "Frey Face": "Frey Face, distance to the nearest train face"}
    for r in table("figure-4/seeds.csv"):
        shares = {k: percent(v) for k, v in r.items()}
        value = (
            f"{with_error(shares, 'clear', 0, 'clear_sd')} %"
            if r["clear"]
            else with_error(r, "distance", 3, "distance_sd")
        )
        yield line(names[r["data"]], count(r["training samples"]), r["seeds"], value)


def percent(text: str) -> str:
    try:
        return str(100 * float(text))
    except ValueError:
        return text


MEASURES = {
    "clustered": {"ten neighbours' vote for the digit": ("neighbours", 3), "k-means, mutual information": ("nmi", 3)},
    "structured": {"KL of the codes' normal from the prior, nats": ("gap", 3)},
    "continuous": {
        "fall of a path below its ends, nats": ("path_dip", 1),
        "clear digits on the way": ("path_clear", 3),
    },
    "generative": {"coverage of test images": ("coverage", 3), "kernel discrepancy of samples": ("mmd", 4)},
}


def autoencoder() -> Iterator[str]:
    at = {(r["model"], r["latents"]): r for r in table("autoencoder/autoencoder.csv") if r["codes"] == "N(0, I)"}
    models = [(m, d) for d in ("2", "20") for m in ("VAE", "autoencoder")]
    for claim, measures in MEASURES.items():
        for name, (key, digits) in measures.items():
            yield line(f"**{claim}**: {name}", *(with_error(at[m], key, digits) for m in models))


def autoencoder_seeds() -> Iterator[str]:
    at = {(r["model"], r["latents"]): r for r in table("autoencoder/seeds.csv") if r["codes"] == "N(0, I)"}
    assert {r["seeds"] for r in at.values()} == {"3"}
    models = [(m, d) for d in ("2", "20") for m in ("VAE", "autoencoder")]
    for claim, measures in MEASURES.items():
        for name, (key, digits) in measures.items():
            yield line(f"**{claim}**: {name}", *(with_error(at[m], key, digits, f"{key}_sd") for m in models))


def estimators() -> Iterator[str]:
    for r in table("estimators/estimators.csv"):
        cells = [
            with_error(r, f"{part}_ratio", 3 if float(r[f"{part}_ratio"]) < 100 else 0) for part in ("encoder", "bound")
        ]
        yield line("0" if float(r["samples"]) == 0 else count(r["samples"]), number(r["L"], 0), *cells)


def estimators_seeds() -> Iterator[str]:
    for r in table("estimators/seeds.csv"):
        cells = [
            with_error(r, f"{p}_ratio", 3 if float(r[f"{p}_ratio"]) < 100 else 0, f"{p}_ratio_sd")
            for p in ("encoder", "bound")
        ]
        yield line("0" if float(r["samples"]) == 0 else count(r["samples"]), number(r["L"], 0), r["seeds"], *cells)


def full_bayes() -> Iterator[str]:
    for r in table("full-bayes/full-bayes.csv"):
        log_px = spread(r, "log_px") + (" at the mean weights" if r["predictive"] else "")
        cells = [spread(r, name) for name in ("train", "test", "gap", "test_at_level")]
        yield line(r["method"], *cells, log_px)


def spread(row: Row, name: str) -> str:
    return with_error(row, name, 1, f"{name}_sd")


def published(name: str) -> Callable[[], Iterator[str]]:
    def rows() -> Iterator[str]:
        for r in table(f"{name}/table.csv"):
            share = f"{100 * float(r['share of the published schedule']):.1f} %"
            ours = f"{number(r['nll'], 2)} ± {number(r['nll_se_test_points'], 2)}"
            spread = f"{number(r['nll_sd_seeds'], 2)} ({r['seeds']})" if r["nll_sd_seeds"] else "–"
            cells = [
                ours,
                spread,
                number(r["published"], 2),
                number(r["negative_elbo"], 2),
                number(r["active_units"], 0),
            ]
            yield line(r["model"], count(r["samples"]), share, *cells, number(r["minutes"], 1))

    return rows


ROWS: dict[str, Callable[[], Iterator[str]]] = {
    "autoencoder": autoencoder,
    "figure-2": figure_2,
    "figure-3": figure_3,
    "figure-5": figure_5,
    "estimators": estimators,
    "full-bayes": full_bayes,
    "iwae": published("iwae"),
    "dreg": published("dreg"),
    "vamp-prior": published("vamp-prior"),
    "flows": published("flows"),
}


def text_of(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def tables_of(text: str) -> list[list[str]]:
    """The rows of each table of a page, without its head."""
    return [block.splitlines()[2:] for block in re.findall(r"(?m)(?:^\|.*\n)+", text)]


@pytest.mark.parametrize("name", ROWS)
def test_the_rows_of_a_page_are_those_of_the_measurements(name: str) -> None:
    assert tables_of(text_of(name))[0] == list(ROWS[name]())


WHOLE = [("figure-2", figure_2_all), ("figure-2", figure_2_seeds), ("figure-3", figure_3_all)]
WHOLE += [("figure-3", figure_3_seeds), ("autoencoder", autoencoder_seeds)]
WHOLE += [("figure-4", figure_4_seeds), ("figure-5", figure_5_seeds), ("estimators", estimators_seeds)]


@pytest.mark.parametrize(("name", "rows"), WHOLE)
def test_the_whole_table_is_on_its_page(name: str, rows: Callable[[], Iterator[str]]) -> None:
    assert list(rows()) in tables_of(text_of(name))


def test_rows_are_written_from_measurements() -> None:
    """Read off the tables by eye."""
    assert "| MNIST, 20 latents | 10⁷ | −100.5 | −104.8 | −107.9 | −108.3 |" in list(figure_2())
    assert len(list(figure_2())) == 9
    assert next(published("flows")()) == (
        "| diagonal normal | 10⁶ | 2.0 % | 91.23 ± 0.24 | 0.20 (3) | – | 98.18 | 23 | 3.1 |"
    )
    assert (count("100000"), count("20000000"), number(""), number("-7298.4", 0)) == ("10⁵", "2·10⁷", "–", "−7,298")


@pytest.mark.parametrize("name", [*EXPERIMENTS, *TABLES])
def test_every_experiment_has_a_page_of_the_same_parts(name: str) -> None:
    text = text_of(name)
    assert re.findall(r"(?m)^## (.+)$", text)[: len(PARTS)] == PARTS
    pictures = re.findall(rf"\]\(({name}/[\w.-]+\.png)\)", text)
    assert sorted(pictures) == sorted(p.relative_to(FOLDER).as_posix() for p in (FOLDER / name).glob("*.png"))
    assert re.search(rf"(?m)^aevb reproduce (?:[\w-]+ )*{name}\b", text)
    assert f"(reproduction/{name}.md)" in (DOCS / "reproduction.md").read_text(encoding="utf-8")


def settings(name: str) -> Any:
    return json.loads((FOLDER / name / "settings.json").read_text(encoding="utf-8"))


def test_the_page_of_figure_4_has_the_numbers_of_its_findings() -> None:
    digits, faces = settings("figure-4")["findings"]
    found = re.search(r": (\d+)% are clear .* of (\d+) classes.*\(([\d,]+) training samples", digits)
    clear, classes, samples = found.groups()  # type: ignore[union-attr]
    ours, test = re.findall(r"0\.\d+", faces)
    assert tables_of(text_of("figure-4"))[0] == [
        line(
            "MNIST, clear digits among 400 places", count(samples.replace(",", "")), f"{clear} %, of {classes} classes"
        ),
        line("Frey Face, distance to the nearest train face, of 100 places", "10⁷", f"{ours}; of test faces {test}"),
    ]
