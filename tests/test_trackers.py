"""Trackers, offline: what they were told is read back from their own files, and compared with the run's folder."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import aevb
from aevb.errors import AevbWarning, RunError
from aevb.figures import plots
from aevb.runs import trackers
from aevb.runs.store import Run
from aevb.training.events import Record, Validation

SAMPLES = 3000
NUMBERS = {"elbo": -101.5, "elbo_se": 0.25, "log_likelihood": None, "note": "text", "n": 300}


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(package) is None, reason=f"needs {package}")


def trained(folder: Path, *names: str) -> Run:
    """A short training that trackers are told of, with numbers and a figure at its end."""
    recipe = aevb.Recipe.load("digits").replace(training__samples=SAMPLES)
    with aevb.tracking(*names) as told:
        run = aevb.fit(recipe, "digits", folder)
        told.tell("test", NUMBERS)
        told.figures(plots.save(plots.loss_curves(run.metrics(), "a title", 0.0), run.figure("loss")))
    return run


def curve(run: Run, part: str, name: str) -> dict[int, float]:
    """What the run's folder holds: training samples and a number."""
    return {r["samples"]: r[part][name] for r in run.metrics() if part in r}


def compare(found: dict[int, float], run: Run, part: str, name: str) -> None:
    expected = curve(run, part, name)
    assert len(expected) >= 2
    assert found.keys() == expected.keys()
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=1e-6)


@needs("tensorboard")
def test_tensorboard_holds_what_the_run_holds(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trained(tmp_path / "run", "tensorboard")
    read = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    read.Reload()
    for part, name in (("train", "loss"), ("train", "kl"), ("validation", "elbo"), ("validation", "reconstruction")):
        compare({e.step: e.value for e in read.Scalars(f"{part}/{name}")}, run, part, name)
    ends = {name: [(e.step, e.value) for e in read.Scalars(f"test/{name}")] for name in ("elbo", "elbo_se", "n")}
    assert ends == {"elbo": [(SAMPLES, -101.5)], "elbo_se": [(SAMPLES, 0.25)], "n": [(SAMPLES, 300.0)]}
    assert "test/note" not in read.Tags()["scalars"]
    assert "test/log_likelihood" not in read.Tags()["scalars"]
    assert read.Tags()["images"] == ["figures/loss"]
    [recipe] = read.Tensors("recipe/text_summary")
    assert (run.path / "recipe.toml").read_text() in recipe.tensor_proto.string_val[0].decode()
    [environment] = read.Tensors("environment/text_summary")
    assert run.meta["torch"] in environment.tensor_proto.string_val[0].decode()


@needs("mlflow")
@needs("sqlalchemy")
def test_mlflow_holds_what_the_run_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    run = trained(tmp_path / "run", "mlflow")
    client = MlflowClient()
    found = client.get_run(run.meta["trackers"]["mlflow"])
    for part, name in (("train", "loss"), ("validation", "elbo")):
        compare(
            {m.step: m.value for m in client.get_metric_history(found.info.run_id, f"{part}/{name}")}, run, part, name
        )
    assert (found.data.metrics["test/elbo"], found.data.metrics["test/elbo_se"]) == (-101.5, 0.25)
    assert found.data.params["training.samples"] == str(SAMPLES)
    assert found.data.tags["environment.torch"] == run.meta["torch"]
    assert found.info.status == "FINISHED"
    assert [f.path for f in client.list_artifacts(found.info.run_id, "figures")] == ["figures/loss.png"]


@needs("wandb")
def test_wandb_holds_what_the_run_holds_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = trained(tmp_path / "run", "wandb")
    wandb.teardown()  # its own process has then written all
    [file] = (run.path / "wandb").glob(f"offline-run-*/run-{run.meta['trackers']['wandb']}.wandb")
    rows: list[dict[str, Any]] = []
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    for data in leveldb_records(file.read_bytes()[7:], 7):  # after a header of its own
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        rows += [{_key(i): json.loads(i.value_json) for i in record.history.item}] if record.history.item else []
        config |= {_key(i): json.loads(i.value_json) for i in record.run.config.update}
        summary |= {_key(i): json.loads(i.value_json) for i in record.summary.update}
    for part, name in (("train", "loss"), ("validation", "elbo")):
        key = f"{part}/{name}"
        compare({row["samples"]: row[key] for row in rows if key in row}, run, part, name)
    assert (summary["test/elbo"], summary["test/elbo_se"]) == (-101.5, 0.25)
    assert config["recipe"]["training"]["samples"] == SAMPLES
    assert config["environment"]["torch"] == run.meta["torch"]
    assert any(name.startswith("figures/loss/") for row in rows for name in row)


def leveldb_records(content: bytes, start: int, block: int = 2**15) -> Iterator[bytes]:
    """The records of a log of LevelDB: blocks of parts, each behind a checksum, a length, and its place in a record."""
    whole, at = b"", start
    content = bytes(start) + content
    while at + 7 <= len(content):
        if block - at % block < 7:  # no room for another header
            at += block - at % block
            continue
        length, place = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if place in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def _key(item: Any) -> str:
    return item.key or "/".join(item.nested_key)


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    for name in trackers.KINDS:
        with (
            pytest.raises(RunError, match=rf"{name} is not installed. Run: pip install 'aevb\[{name}\]'"),
            aevb.tracking(name),
        ):
            pass


def test_an_unknown_tracker_is_refused() -> None:
    with (
        pytest.raises(RunError, match=r"no tracker 'tensorbord'\. Did you mean 'tensorboard'"),
        aevb.tracking("tensorbord"),
    ):
        pass


class Broken:
    """A tracker that takes one record, then loses its connection; `heard` is what it was told."""

    heard: list[str] = []

    def __init__(self, run: Run) -> None:
        self.heard.clear()

    def scalars(self, numbers: Any, samples: int) -> None:
        if self.heard:
            raise ConnectionError("the server has gone")
        self.heard.extend(numbers)

    def figure(self, path: Path, samples: int) -> None:
        self.heard.append("figure")

    def close(self) -> None:
        self.heard.append("closed")


def test_a_tracker_that_fails_does_not_end_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.KINDS, "broken", ("json", Broken))
    with pytest.warns(AevbWarning, match="broken failed, and is no longer used: the server has gone"):
        run = trained(tmp_path / "run", "broken")
    assert run.meta["status"] == "complete"
    assert "closed" not in Broken.heard


def test_what_trackers_are_told_changes_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with a tracker has the weights of one without."""

    class Deaf(Broken):
        def scalars(self, numbers: Any, samples: int) -> None:
            self.heard.extend(numbers)

    monkeypatch.setitem(trackers.KINDS, "deaf", ("json", Deaf))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told, silent = trained(tmp_path / "told", "deaf"), trained(tmp_path / "silent")
    assert Deaf.heard[-1] == "closed"
    assert {"train/loss", "validation/elbo", "test/elbo", "figure"} <= {*Deaf.heard}
    ours, theirs = told.model().state_dict(), silent.model().state_dict()
    assert all((ours[name] == theirs[name]).all() for name in ours)


def test_events_are_handed_on_as_they_are() -> None:
    events = [Record(1, 100, 0.1, {"loss": 2.0}), Validation(1, 100, {"elbo": -2.0}, True)]
    assert list(trackers.trackers().events(None, iter(events))) == events  # type: ignore[arg-type]
