"""Tables of other papers: what is measured at the end, on which schedule, and what is made of several seeds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pytest

from aevb.evidence.importance import log_marginal
from aevb.models.vae import VAE
from aevb.objectives.schedules import Piecewise
from aevb.reproduce import tables
from aevb.reproduce.curves import Followed, follow
from aevb.reproduce.tables import TABLES, Entry, at_the_end, findings, lines, stages, summary

SMALL = {"latent": 2, "encoder__hidden": [16], "decoder__hidden": [16], "encoder__init": 0.3, "decoder__init": 0.5}
TINY = replace(Entry("tiny", "tiny", "bernoulli", SMALL, 10, 30.0, "nowhere").curve(0), source="digits")


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer importance samples, for fewer points."""
    for name, value in {"MANY": 2, "MOST": 100, "EVERY": 2, "SOME": 50, "ON_THE_WAY": 5}.items():
        monkeypatch.setattr(tables, name, value)


@pytest.mark.usefixtures("cheap")
def test_the_tight_bound_of_all_points_is_estimated_from_a_part_of_them() -> None:
    learner = TINY.learner(None, 100)
    model, test = learner.model, TINY.data().test
    assert isinstance(model, VAE)
    row = at_the_end(learner, TINY.train(), test)
    exact = log_marginal(model, test.frozen(), tables.MOST, seed=9).log_px
    loose = log_marginal(model, test.frozen(), tables.MANY, seed=8).log_px
    spread = float((exact - loose).std()) * math.sqrt(1 / len(exact[:: tables.EVERY]) + 2 / len(exact))
    assert row["nll"] == pytest.approx(-float(exact.mean()), abs=4 * spread)
    assert abs(float((exact - loose).mean())) > 5 * spread  # so that a missing correction is seen
    part = float((exact - loose).std()) / math.sqrt(len(exact[:: tables.EVERY]))
    assert row["nll_se"] == pytest.approx(math.hypot(float(loose.std()) / math.sqrt(len(loose)), part), rel=0.25)
    assert row["negative_elbo"] > row["nll"]


@pytest.mark.usefixtures("cheap")
def test_the_end_is_measured_where_a_budget_ends_and_there_alone(tmp_path: Path) -> None:
    curve = replace(TINY, first=1000)
    follow(curve, tmp_path, 2000)
    rows = follow(curve, tmp_path, 4000).rows
    assert [row["samples"] for row in rows if "curve" in row] == [0, 1000, 2000, 3000, 4000]
    assert [row["samples"] for row in rows if "nll" in row] == [2000, 4000]


def test_the_stages_have_the_published_steps_for_ten_epochs_each() -> None:
    table = stages(20)
    rate = Piecewise(table["values"], table["ends"])
    for i in range(8):
        for step in (10 * i * 50_000 // 20, 10 * (i + 1) * 50_000 // 20 - 1):
            assert rate(step) == pytest.approx(10 ** (-i / 7))
    assert tables.IWAE_EPOCHS == 3280  # 1 + 3 + ... + 3⁷, of which these are 80


def test_means_and_errors_over_seeds() -> None:
    rows = [
        {
            "samples": 10.0,
            "seconds": 60.0 * i,
            "nll": float(i * i),
            "nll_se": 0.1 * i,
            "negative_elbo": 9.0,
            "active_units": i,
        }
        for i in (1, 2, 3)
    ]
    line = summary(rows)
    assert line["nll"] == pytest.approx(mean((1, 4, 9)), abs=0.01)
    assert line["nll_sd_seeds"] == pytest.approx(stdev((1, 4, 9)), abs=0.01)
    assert (line["nll_se_test_points"], line["minutes"], line["seeds"]) == (0.3, 2.0, 3)
    assert "nll_sd_seeds" not in summary(rows[:1])


def test_a_table_compares_what_was_trained_as_far() -> None:
    def found(nll: float) -> Followed:
        row = {
            "samples": 50_000.0,
            "seconds": 60.0,
            "nll": nll,
            "nll_se": 0.2,
            "negative_elbo": nll + 1,
            "active_units": 2.0,
        }
        return Followed([{"samples": 10.0, "curve": 99.0}, row], {})

    entry = Entry("better", "b", "iwae", {}, 10, 80.0, "a paper")
    table = [
        *lines(entry, [found(81.0), found(83.0)]),
        *lines(replace(entry, label="worse", published=None), [found(90.0)]),
    ]
    said = findings(table)
    assert [line["seeds"] for line in table] == [2, 1]
    assert table[0]["share of the published schedule"] == 0.1
    assert (
        "better: -log p(x) 82.00 nats (± 0.20 over test points, sd 1.41 over 2 seeds) after 50,000 samples, 10.0%"
        in said[0]
    )
    assert "published 80.00 (a paper)" in said[0]
    assert "; published" not in said[1]
    assert said[-1] == "-log p(x) after 50,000 training samples: better (82.00) < worse (90.00)."


def test_learning_curves_are_compared_where_all_were_measured() -> None:
    def found(**nll: float) -> Followed:
        return Followed([{"samples": float(k[1:]), "curve": v} for k, v in nll.items()], {})

    entry = Entry("a", "a", "iwae", {}, 10)
    other = replace(entry, label="b")
    way = [
        *tables.passed(entry, [found(_10=5.0, _30=4.0, _99=1.0), found(_10=0.0)]),
        *tables.passed(other, [found(_10=6.0, _30=3.0)]),
    ]
    assert tables.on_their_way(way)[0].endswith("after 30 training samples: b (3.00) < a (4.00).")
    assert tables.on_their_way(way[:4]) == []


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("name", [n if n == "dreg" else pytest.param(n, marks=pytest.mark.slow) for n in TABLES])
def test_every_row_of_a_table_is_trained_measured_and_drawn(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Entry.curve
    monkeypatch.setattr(Entry, "curve", lambda self, seed: replace(own(self, seed), source="digits"))
    first = [replace(c, source="digits") for c in TABLES[name].curves if c.name.endswith("-s0")]
    for curve in first:
        follow(curve, tmp_path / "curves", 100)
    said = TABLES[name].present(tmp_path / "curves", tmp_path)
    table = (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 1 + len(first) == len(said) - 1  # a header here, the order and that on the way there
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_rows_that_two_tables_share_are_trained_once() -> None:
    shared = {c.name for c in TABLES["iwae"].curves} & {c.name for c in TABLES["dreg"].curves}
    assert shared == {f"iwae-1-k{k}-s{seed}" for k in (5, 50) for seed in (0, 1, 2)}
    assert {c.name: c for c in TABLES["iwae"].curves}["iwae-1-k5-s0"] == {c.name: c for c in TABLES["dreg"].curves}[
        "iwae-1-k5-s0"
    ]
