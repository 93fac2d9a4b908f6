"""`aevb reproduce`: curves that resume, are measured where they should be, and stand beside the published ones."""

from __future__ import annotations

import csv
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aevb.errors import AevbError, RunError, TrainingDiverged
from aevb.evaluation.bound import elbo
from aevb.probability.families import Normal
from aevb.reproduce import curves, figure2, figure2_findings, figure3, published
from aevb.reproduce.curves import (
    Curve,
    Followed,
    bounds,
    choose_step,
    follow,
    has_weights,
    marks,
    read,
    read_all,
    seeded,
    trained,
)
from aevb.reproduce.experiment import Experiment
from aevb.reproduce.report import write_report
from aevb.reproduce.reproduce import chosen, curves_of, reproduce
from aevb.reproduce.workers import follow_all
from aevb.training.train import Step


def small(name: str = "small", recipe: str = "aevb", **changes: Any) -> Curve:
    """A curve on digits that takes a second."""
    sizes = {"latent": 4, "encoder__hidden": [32], "decoder__hidden": [32]}
    return Curve(name, recipe, "digits", bounds, {**sizes, **changes}, steps=(0.02, 0.1), pilot=2_000)


def test_a_curve_saved_before_its_first_mark_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended in an error where several are followed."""
    curve = replace(small(), first=20_000)
    monkeypatch.setattr(curves, "SAVE_EVERY", 20)
    stop = KeyboardInterrupt()

    def tell(name: str, seen: int) -> None:
        if (tmp_path / curve.name / "state.safetensors").is_file():
            raise stop

    monkeypatch.setattr(curves.time, "perf_counter", iter(range(10**6)).__next__)  # a second at each look
    with pytest.raises(KeyboardInterrupt):
        follow(curve, tmp_path, 20_000, tell)
    monkeypatch.undo()
    assert read(curve, tmp_path) is None
    follow_all([curve], tmp_path, 20_000, 1)
    found = read(curve, tmp_path)
    assert found is not None
    assert [row["samples"] for row in found.rows] == [20_000]
    assert found.rows[0]["test"] == pytest.approx(follow(curve, tmp_path / "whole", 20_000).rows[0]["test"], rel=1e-6)


@pytest.mark.parametrize(
    ("where", "value"),
    [  # from a reading of the paper's figures that was made independently of `at`
        (("2", "MNIST Nz=20", "AEVB", "test", 1e6), -124.2),
        (("2", "MNIST Nz=3", "WS", "train", 3e6), -150.1),
        (("2", "Frey Nz=2", "AEVB", "test", 3e5), 565.0),
        (("3", "N=1000", "MCEM", "train", 1e7), -118.3),
    ],
)
def test_the_paper_is_read_between_its_points(where: Any, value: float) -> None:
    assert published.at(*where) == pytest.approx(value, abs=0.006 * abs(value))


def test_the_paper_is_not_continued_beyond_its_curves() -> None:
    assert published.at("2", "MNIST Nz=20", "AEVB", "test", 1e10) is None
    assert published.at("2", "MNIST Nz=7", "AEVB", "test", 1e6) is None
    xs, ys = published.curve("2", "MNIST Nz=20", "AEVB", "test")
    assert xs == sorted(xs)
    assert [published.at("2", "MNIST Nz=20", "AEVB", "test", x) for x in xs] == ys


def test_marks_hold_the_decades_and_their_thirds() -> None:
    assert list(marks((1.0, 3.0), 300_000)) == [10_000, 30_000, 100_000, 300_000]


def test_a_curve_that_was_extended_is_the_curve_that_was_never_stopped(tmp_path: Path) -> None:
    follow(small(), tmp_path / "a", 15_000)
    extended = follow(small(), tmp_path / "a", 30_000)
    at_once = follow(small(), tmp_path / "b", 30_000)
    assert [r["samples"] for r in at_once.rows] == [0, 10_000, 15_000, 20_000, 30_000]
    assert [(r["samples"], r["train"], r["test"]) for r in extended.rows] == [
        (r["samples"], r["train"], r["test"]) for r in at_once.rows
    ]
    a, b = (trained(small(), tmp_path / name).model.state_dict() for name in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_curve_is_measured_with_the_model_of_that_moment(tmp_path: Path) -> None:
    followed = follow(small(), tmp_path, 10_000)
    learner = trained(small(), tmp_path)
    data = small().data()
    assert bounds(learner, data.train, data.test) == {k: followed.rows[-1][k] for k in ("train", "test", "test_se")}
    each = elbo(learner.model, data.test).elbo
    assert followed.rows[-1]["test_se"] == pytest.approx(float(each.std()) / len(each) ** 0.5)
    with (tmp_path / "small" / "points.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [float(r["test"]) for r in rows] == [r["test"] for r in followed.rows]


def test_the_step_is_the_one_with_the_highest_train_bound() -> None:
    chosen, reached = choose_step(small())
    assert reached[str(chosen)] == max(v for v in reached.values() if v is not None)
    diverging = replace(small(), steps=(0.02, 1e6))
    chosen, reached = choose_step(diverging)
    assert chosen == 0.02
    assert reached["1000000.0"] is None


def test_a_folder_of_another_curve_is_refused(tmp_path: Path) -> None:
    follow(small(), tmp_path, 10_000)
    with pytest.raises(RunError, match="another curve"):
        follow(small(latent=5), tmp_path, 20_000)


def test_measurements_without_weights_are_read_and_trained_anew_beyond(tmp_path: Path) -> None:
    first = follow(small(), tmp_path / "a", 20_000)
    (tmp_path / "a" / "small" / "state.safetensors").unlink()
    assert read(small(), tmp_path / "a") == first
    assert not has_weights(small(), tmp_path / "a")
    assert follow(small(), tmp_path / "a", 20_000) == first  # nothing is trained
    assert not has_weights(small(), tmp_path / "a")
    beyond, at_once = follow(small(), tmp_path / "a", 30_000), follow(small(), tmp_path / "b", 30_000)
    assert [r["test"] for r in beyond.rows] == [r["test"] for r in at_once.rows]


@pytest.mark.slow
def test_workers_give_what_one_process_gives(tmp_path: Path) -> None:
    curves = [small("a"), small("b", training__seed=1)]
    follow_all(curves, tmp_path / "many", 10_000, jobs=2)
    for curve in curves:
        alone, among = follow(curve, tmp_path / "one", 10_000), read(curve, tmp_path / "many")
        assert among is not None
        assert among.rows[-1]["test"] == pytest.approx(alone.rows[-1]["test"], abs=1e-3)  # threads sum in other orders
    a, b = (read(c, tmp_path / "many") for c in curves)
    assert a
    assert b
    assert a.rows[-1]["test"] != b.rows[-1]["test"]


@pytest.mark.slow
def test_aevb_is_above_wake_sleep_at_equal_samples(tmp_path: Path) -> None:
    """The claim of Figure 2, on digits after 10⁵ samples: by more than three standard errors of the difference."""
    bound = []
    for curve in (small("aevb"), small("ws", recipe="wake-sleep")):
        follow(curve, tmp_path, 100_000)
        bound.append(elbo(trained(curve, tmp_path).model, curve.data().test, samples=10).elbo)
    difference = bound[0] - bound[1]
    assert difference.mean() > 3 * difference.std() / len(difference) ** 0.5


def test_the_spread_is_that_over_seeds(tmp_path: Path) -> None:
    """Each seed is another training with a pilot of its own; where one seed has a mark alone, there is no spread."""
    curve = replace(small("mnist-z3-aevb"), pilot=200)
    each = [seeded(curve, seed) for seed in range(3)]
    ends = [
        follow(one, tmp_path, samples).rows[-1]["test"] for one, samples in zip(each, (2000, 2000, 1000), strict=True)
    ]
    assert len(set(ends)) == 3
    assert [follow(one, tmp_path, 1).settings["curve"]["changes"].get("training__seed") for one in each] == [None, 1, 2]
    found = read_all({"AEVB": curve}, tmp_path)["AEVB"]
    assert found.spread("test", 2000) == {
        "seeds": 2,
        "mean": round(statistics.mean(ends[:2]), 2),
        "sd": round(statistics.stdev(ends[:2]), 2),
    }
    assert found.spread("test", 0)["seeds"] == 3
    assert found.spread("test", 1000) == {}
    own, other = ([{"samples": 1e6, "train": -1.0 - n, "test": -2.0 - n}] for n in (0, 3))
    pair = {"AEVB": Followed(own, {}, [Followed(other, {})])}
    (row,) = [r for r in figure2_findings.compared("MNIST Nz=3", pair) if r["split"] == "test"]
    assert (row["ours"], row["seeds"], row["mean"], row["sd"]) == (-2.0, 2, -3.5, 2.12)
    said = "Standard deviation over seeds, test bound: MNIST Nz=3 AEVB 2.1 (10⁶) nats."
    assert figure2_findings.spreads([row]) == [said]


@pytest.mark.slow
def test_figure_2_is_presented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table's differences are ours less the paper's, and the findings count them."""
    aevb = replace(small("mnist-z3-aevb"), last=figure2_findings.slack)
    pair = {"AEVB": aevb, "WS": small("mnist-z3-ws", recipe="wake-sleep")}
    monkeypatch.setattr(figure2, "PANELS", {"MNIST Nz=3": pair})
    monkeypatch.setattr(figure2, "BINARISED", {})
    monkeypatch.setattr(figure2, "ESCAPES", {})
    for curve in pair.values():
        follow(curve, tmp_path / "curves", 100_000)
    found = figure2.present(tmp_path / "curves", tmp_path / "out")
    with (tmp_path / "out" / "table.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 4  # two algorithms, two splits, at 10⁵
    for row in rows:
        paper = published.at("2", "MNIST Nz=3", row["algorithm"], row["split"], 1e5)
        assert paper is not None
        assert float(row["ours - paper"]) == pytest.approx(float(row["ours"]) - paper, abs=0.01)
    assert any("above in 1 of 1 panels" in line for line in found)
    with (tmp_path / "out" / "slack.csv").open() as lines:
        train, test = csv.DictReader(lines)
    bound = elbo(trained(pair["AEVB"], tmp_path / "curves").model, pair["AEVB"].data().test).elbo.mean()
    assert (train["split"], test["split"]) == ("train", "test")
    assert float(test["bound"]) == pytest.approx(float(bound), abs=0.01)  # digits have no more than 1,000
    assert float(test["slack"]) == pytest.approx(float(test["log p(x)"]) - float(test["bound"]), abs=0.011)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"figure-2.png", "figure-2.svg", "table.csv", "slack.csv"}


def test_samples_are_written_shortly() -> None:
    assert [figure2_findings.short(n) for n in (1e5, 3e6, 1.5e7)] == ["10⁵", "3·10⁶", "1.5·10⁷"]


def test_the_report_holds_everything_and_fetches_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "figure-9"
    folder.mkdir()
    about = {"title": "A <title>", "about": "What.", "findings": ["1 < 2"], "curves": {"c": {"step_size": 0.1}}}
    (folder / "settings.json").write_text(json.dumps(about))
    (folder / "table.csv").write_text("name,value\nours,-1.5\n")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    page = write_report(tmp_path).read_text()
    for part in (
        "A &lt;title&gt;",
        "1 &lt; 2",
        '<td class="number">-1.5</td>',
        "data:image/png;base64,iVBORw==",
        "step_size",
        "and of another paper where a section names one",
    ):
        assert part in page
    assert "http" not in page
    assert "<script" not in page
    with pytest.raises(RunError, match="no experiments"):
        write_report(tmp_path / "figure-9")


def test_a_normal_with_a_least_scale_adds_variances() -> None:
    phi = torch.tensor([[0.3, 2 * torch.log(torch.tensor(0.4))]])
    q = Normal((1,), least=0.3)(phi)
    assert q.stddev.item() == pytest.approx(0.5)
    assert Normal((1,))(phi).stddev.item() == pytest.approx(0.4)


def test_a_training_that_diverges_begins_again_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pilot prefers 0.1, which is made to diverge after 12,000 samples; 0.02 then takes its place from the
    beginning."""
    real = curves.train_events

    def fragile(learner: Any, data: Any, **settings: Any) -> Any:
        for event in real(learner, data, **settings):
            if learner.rates[0] == 0.1 and isinstance(event, Step) and event.samples > 12_000:
                raise TrainingDiverged("made to")
            yield event

    assert choose_step(small())[0] == 0.1
    expected = follow(replace(small(), steps=(0.02,)), tmp_path / "plain", 15_000)
    monkeypatch.setattr(curves, "train_events", fragile)
    followed = follow(small(), tmp_path / "fragile", 15_000)
    assert [r["test"] for r in followed.rows] == [r["test"] for r in expected.rows]
    assert followed.settings["diverged"] == [0.1]
    assert followed.settings["step_size"] == 0.02


@pytest.mark.slow
def test_an_experiment_is_trained_once_and_says_how(tmp_path: Path) -> None:
    def present(place: Path, out: Path) -> list[str]:
        followed = read(small(), place)
        assert followed
        return [f"{followed.rows[-1]['samples']:.0f} samples"]

    tiny = Experiment("tiny", "Tiny", "One curve.", (small(),), present)
    assert reproduce([tiny], 10_000, tmp_path, jobs=1) == {"tiny": ["10000 samples"]}
    written = json.loads((tmp_path / "tiny" / "settings.json").read_text())
    assert written["findings"] == ["10000 samples"]
    curve = written["curves"]["small"]
    assert (curve["samples"], curve["curve"]["recipe"], str(curve["step_size"]) in curve["pilot"]) == (
        10_000,
        "aevb",
        True,
    )
    before = (tmp_path / "curves" / "small" / "state.safetensors").stat().st_mtime_ns
    assert reproduce([tiny], 10_000, tmp_path) == {"tiny": ["10000 samples"]}
    assert (tmp_path / "curves" / "small" / "state.safetensors").stat().st_mtime_ns == before


def test_experiments_share_their_curves() -> None:
    everything = curves_of(chosen(["all"]))
    assert len({c.name for c in everything}) == len(everything)
    assert {c.name for c in everything} >= {
        "mnist-z20-aevb",
        "frey-z2-ws",
        "figure3-n1000-mcem",
        "mnist-z2-aevb",
        "mnist-z2-plain",
    }
    assert [c.name for c in curves_of(chosen(["figure-2"]), ["mnist-3"])] == ["mnist-z3-aevb", "mnist-z3-ws"]
    with_seeds = [c.name for c in curves_of(chosen(["figure-2"]), ["mnist-3"], seeds=3)]
    assert with_seeds == [f"mnist-z3-{a}{s}" for s in ("", "-s1", "-s2") for a in ("aevb", "ws")]
    three = [c.name for c in curves_of(chosen(["figure-3", "iwae"]), seeds=2)]
    assert "figure3-n1000-mcem-s1" in three
    assert len(set(three)) == len(three) == len(curves_of(chosen(["figure-3", "iwae"]))) + 6  # none of other step sizes
    with pytest.raises(AevbError, match="Did you mean 'figure-2'"):
        chosen(["figur-2"])
    with pytest.raises(AevbError, match="--panel is one of Figure 2, which is not asked for"):
        curves_of(chosen(["estimators"]), ["mnist-3"])
    with pytest.raises(AevbError, match="no panel 'mnist-7'"):
        curves_of(chosen(["figure-2"]), ["mnist-7"])


def test_the_end_of_a_short_run_lies_inside_the_axes_of_its_figure() -> None:
    run = Followed([{"samples": 5000, "train": -290.0, "test": -300.0}], {"step_size": 0.1})
    (axes,) = figure3.draw({"N=1000": {"AEVB": run}}).axes
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert left < 0.005 < right
    assert low < -300 < high
    early = Followed([{"samples": 5000, "train": -290.0, "test": -300.0, "seconds": 1.0}], {"step_size": 0.1})
    (axes,) = figure2.panels({"MNIST Nz=3": {"AEVB": early}}).axes
    assert axes.get_xlim()[0] < 5000


def test_other_step_sizes_stand_beside_the_paper_at_their_own_marks() -> None:
    def line(step: float, **test: float) -> Followed:
        rows = [{"samples": float(name[1:]), "train": value - 1, "test": value} for name, value in test.items()]
        return Followed(rows, {"step_size": step})

    at = {n: published.at("3", "N=1000", "AEVB", "test", n) or 0.0 for n in (1e6, 3e6)}
    chosen_line = line(0.1, _500000=-150.0, _1000000=at[1e6] + 5, _3000000=at[3e6] + 4, _5000000=-130.0)
    other = line(0.02, _1000000=at[1e6] - 2, _3000000=at[3e6] - 1)
    chosen_line.others = [line(0.01, _1000000=at[1e6])]  # of a seed whose pilot took another step
    rows = figure3.by_step({"AEVB": chosen_line}, {("AEVB", 0.02): other})
    tests = [
        (r["step"], r["chosen by the pilot"], r["samples"], r["ours - paper"]) for r in rows if r["split"] == "test"
    ]
    assert tests == [
        (0.1, True, 10**6, 5),
        (0.1, True, 3 * 10**6, 4),
        (0.02, False, 10**6, -2),
        (0.02, False, 3 * 10**6, -1),
    ]
    assert not any("seeds" in r for r in rows)
    assert figure3.steps_matter(rows)[0].endswith("in nats: AEVB 0.1: +4.0 (3,000,000); AEVB 0.02: -1.0 (3,000,000).")


def test_curves_are_compared_at_marks_that_all_of_a_panel_have_and_left_out_where_there_is_none() -> None:
    """A small budget ends before the first mark, at a whole number of steps: batches of another size end elsewhere."""
    place = {"panel": "N=1000", "split": "test"}
    both = [place | {"algorithm": a, "samples": n, "ours": v} for a, n, v in [("A", 200, -3.0), ("B", 200, -2.0)]]
    train = [row | {"split": "train"} for row in both]
    ends = [place | {"algorithm": a, "samples": n, "ours": 0.0} for a, n in [("A", 300), ("B", 1000)]]
    found = figure3.standings([*both, *train, *ends])
    assert found == [
        "N=1000, test log p(x) by App. D after 200 samples, best first: B -2.0 (train -2.0), A -3.0 (train -3.0) nats."
    ]
    assert figure3.standings(ends) == []
    assert figure3.agreement([]) == []
