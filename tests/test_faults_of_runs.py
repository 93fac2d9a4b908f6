"""Damage, signals, moved and removed files: what befalls a run on disk ends in one sentence whose cure works."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import aevb
from aevb.data.arrays import array_dataset
from aevb.data.dataset import Dataset
from aevb.data.memory import out_of_memory
from aevb.data.sources import load_data
from aevb.errors import AevbWarning, RecipeError, RunError, TrainingDiverged
from aevb.runs.evaluate import evaluate_run
from aevb.runs.files import CHECKSUM, partial, read_tensors, sweep_beside, write_tensors
from aevb.runs.fit import fit, resume
from aevb.runs.index import summaries
from aevb.runs.interrupt import Terminated, deferred_interrupt, signals_as_errors
from aevb.runs.recipe import Recipe
from aevb.runs.store import Run, created

WEIGHTS, CHECKPOINT = "weights.safetensors", "checkpoint/state.safetensors"


def small(samples: int = 500, **changes: Any) -> Recipe:
    base = Recipe.load("bernoulli").override(["latent=2", "encoder.hidden=[8]", "decoder.hidden=[8]"])
    changes = {"data__values": "dynamic", **changes}
    return base.replace(training__samples=samples, evaluation__importance_samples=5, **changes)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data("digits", values="dynamic")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Path:
    run = fit(small(), data, tmp_path_factory.mktemp("faults") / "made")
    evaluate_run(run, data)
    return run.path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is shown at each step."""
    monkeypatch.setattr("aevb.training.events.Clock.age", property(lambda self: 1.0))


def tensors(run: Run, name: str = WEIGHTS) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in read_tensors(run.path / name)[0].items()}  # not of the file, which tests change


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def flip(path: Path, at: int = -2, bit: int = 64) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= bit
    path.write_bytes(content)


# Silent corruption


@pytest.mark.parametrize("bit", [1, 64])
def test_a_flipped_bit_of_the_weights_is_noticed_and_the_cure_cures(bit: int, run: Run, data: Dataset) -> None:
    before = tensors(run)
    flip(run.path / WEIGHTS, bit=bit)
    with pytest.raises(RunError, match=r"weights\.safetensors is damaged: its checksum is not the one written") as told:
        Run.open(run.path).model()
    assert f"aevb train --resume {run.path}" in str(told.value)
    assert same(tensors(resume(Run.open(run.path), data)), before)


def test_a_flipped_bit_of_the_checkpoint_is_noticed_and_the_cure_cures(run: Run, data: Dataset) -> None:
    before = tensors(run)
    flip(run.path / CHECKPOINT)
    with pytest.raises(RunError, match=r"state\.safetensors is damaged: its checksum is not the one .* or remove it"):
        resume(Run.open(run.path), data)
    (run.path / CHECKPOINT).unlink()
    assert same(tensors(resume(Run.open(run.path), data)), before)


def test_the_checksum_covers_what_the_checkpoint_says(run: Run) -> None:
    """A digit of the step number, in the header of the file."""
    path = run.path / CHECKPOINT
    content = path.read_bytes()
    changed = content.replace(b'\\"best_step\\": 5', b'\\"best_step\\": 4')
    assert changed != content
    path.write_bytes(changed)
    with pytest.raises(RunError, match="checksum"):
        read_tensors(path)


def test_another_type_of_numbers_is_refused(run: Run) -> None:
    """Also where a file of aevb 0.1 has no checksum: F32 and I32 have one size."""
    path = run.path / WEIGHTS
    changed = {k: v.view(torch.int32) for k, v in tensors(run).items()}
    save_file(changed, path)
    with pytest.raises(RunError, match=r"is int32, the recipe says float32"):
        Run.open(run.path).model()


@pytest.mark.parametrize("name", [WEIGHTS, CHECKPOINT])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(bad: float, name: str, run: Run) -> None:
    found, notes = read_tensors(run.path / name)
    first = next(k for k, v in found.items() if v.is_floating_point() and v.ndim == 2)
    found[first][0, 0] = bad
    save_file(found, run.path / name, metadata=notes)
    with pytest.raises(RunError, match=rf"is damaged: {first} holds NaN or infinite numbers"):
        read_tensors(run.path / name)


def test_a_file_without_a_checksum_still_loads(run: Run) -> None:
    """As aevb 0.1 wrote them."""
    before = tensors(run)
    save_file(before, run.path / WEIGHTS)
    loaded = Run.open(run.path).model().state_dict()
    assert all(torch.equal(v, loaded[k]) for k, v in before.items())


def test_checksums_tell_all_types_and_shapes(tmp_path: Path) -> None:
    content = {"a": torch.arange(6), "b": torch.tensor(2.5), "c": torch.zeros(0, 3), "d": torch.ones(2).bfloat16()}
    write_tensors(tmp_path / "t", content, {"note": "ü"})
    back, notes = read_tensors(tmp_path / "t")
    assert same(back, content)
    assert notes == {"note": "ü"}
    header = (tmp_path / "t").read_bytes()
    length = struct.unpack("<Q", header[:8])[0]
    written = json.loads(header[8 : 8 + length])["__metadata__"][CHECKSUM]
    sums = {written}
    for other in ({**content, "a": torch.arange(6).view(2, 3)}, {**content, "a": torch.arange(6).double()}):
        write_tensors(tmp_path / "o", other, {"note": "ü"})
        raw = (tmp_path / "o").read_bytes()
        sums.add(json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])["__metadata__"][CHECKSUM])
    assert len(sums) == 3


# Damaged files of facts

META = {
    "[]": "it holds no table",
    '{"format": "1"}': "format is '1'",
    "[" * 5000: "meta.json is damaged",
    '{"format": 1, "shape": [0, 8]}': r"shape is \[0, 8\], not a list of sizes",
    '{"format": 1, "status": "asleep"}': "status is 'asleep', not training or",
    '{"format": 1, "splits": {"train": 5}}': "splits is .*, not the fingerprints",
    '{"format": 1, "values": {"kind": "odd"}}': "values is .*, not what the numbers of the data mean",
    "\udce9": "meta.json is damaged",
}


@pytest.mark.parametrize("text", META)
def test_a_damaged_meta_file_says_which_fact_cannot_be(text: str, run: Run) -> None:
    (run.path / "meta.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunError, match=META[text]):
        Run.open(run.path)


@pytest.mark.parametrize("use", [lambda r, d: r.model(), lambda r, d: r.dataset(), lambda r, d: evaluate_run(r, d)])
def test_a_meta_file_without_what_is_needed_is_damaged(
    use: Callable[[Run, Dataset], Any], run: Run, data: Dataset
) -> None:
    (run.path / "meta.json").write_text("{}")
    with pytest.raises(RunError, match=r"meta\.json is damaged: shape is missing\. Bring back a copy"):
        use(Run.open(run.path), data)


@pytest.mark.parametrize("line", [b"5", b"{}", b"\xff\xfe", b"[" * 5000, b'{"step": 1, "samples": "x"}', b'{"step": 2'])
def test_a_damaged_line_of_metrics_is_dropped(line: bytes, run: Run, data: Dataset) -> None:
    before = run.metrics()
    path = run.path / "metrics.jsonl"
    path.write_bytes(line + b"\n" + path.read_bytes())
    assert run.metrics() == before
    assert len(resume(run, data, samples=700).metrics()) == 7


NOTES = [
    {"state": "[1"},
    {"state": "[]"},
    {"state": '{"number": 5}'},
    {"state": json.dumps({"number": "5"})},
]


@pytest.mark.parametrize("notes", NOTES)
def test_a_checkpoint_whose_facts_cannot_be_is_damaged(notes: dict[str, str], run: Run, data: Dataset) -> None:
    write_tensors(run.path / CHECKPOINT, tensors(run, CHECKPOINT), notes)
    with pytest.raises(RunError, match=r"state\.safetensors is damaged: what it says of its training cannot be"):
        resume(run, data, samples=700)


def test_a_checkpoint_that_lacks_memory_or_best_weights(run: Run, data: Dataset) -> None:
    found, notes = read_tensors(run.path / CHECKPOINT)
    for wanted in ("optimizer.", "best."):
        name = next(k for k in found if k.startswith(wanted))
        changed = {(f"{k}x" if k == name else k): v for k, v in found.items()}
        write_tensors(run.path / CHECKPOINT, changed, notes)
        with pytest.raises(RunError, match=r"does not fit the recipe|is damaged"):
            resume(Run.open(run.path), data, samples=700)


def test_one_damaged_run_does_not_hide_the_others(run: Run, data: Dataset) -> None:
    """Numbers that cannot be read are left out; the run itself is listed."""
    whole = shutil.copytree(run.path, run.path.parent / "whole")
    for content in (b'{"elbo": -4', b"\xff", b"[]", b"{}", b'{"elbo": "x", "log_likelihood": NaN}', b"[" * 5000):
        (run.path / "evaluation-test.json").write_bytes(content)
        lines = {line["run"]: line for line in summaries(run.path.parent)}
        assert lines["run"]["status"] == "complete"
        assert lines["run"]["test ELBO"] is lines["run"]["log p(x)"] is None
        assert lines[whole.name]["test ELBO"] < -20
    for name, content in (("recipe.toml", b'title = "\xe9"'), ("meta.json", b"[]"), ("meta.json", b'{"format": "1"}')):
        (run.path / name).write_bytes(content)
        lines = {line["run"]: line for line in summaries(run.path.parent)}
        assert lines["run"]["status"] == "incomplete"
        assert lines[whole.name]["test ELBO"] < -20


def test_a_folder_in_the_place_of_an_evaluation_is_no_obstacle(run: Run, data: Dataset) -> None:
    (run.path / "evaluation-test.json").unlink()
    (run.path / "evaluation-test.json" / "x").mkdir(parents=True)
    assert resume(run, data, samples=700).meta["status"] == "complete"
    assert not (run.path / "evaluation-test.json").exists()


# Recipes of other encodings


def test_a_recipe_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    text = 'title = "Gauß"\nlatent = 3\n[likelihood]\ntype = "bernoulli"\n'
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "r.toml").write_text(text, encoding=encoding)
        assert Recipe.load(tmp_path / "r.toml").settings["title"] == "Gauß"
    for encoding in ("utf-16", "cp1252"):
        (tmp_path / "r.toml").write_text(text, encoding=encoding)
        with pytest.raises(RecipeError, match=r"r\.toml is not UTF-8 \(byte \d+\)\. Save it as UTF-8"):
            Recipe.load(tmp_path / "r.toml")


# Signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.usefixtures("eager")
def test_sigterm_and_sighup_save_and_end_with_their_codes(
    number: int, code: int, data: Dataset, tmp_path: Path
) -> None:
    whole = fit(small(1000), data, tmp_path / "whole")

    def send(progress: Any) -> None:
        os.kill(os.getpid(), number)

    with signals_as_errors(), pytest.raises(SystemExit) as told:
        fit(small(1000), data, tmp_path / "r", show=send)
    assert told.value.code == code
    stopped = Run.open(tmp_path / "r")
    assert stopped.meta["status"] == stopped.meta["stopped"] == "interrupted"
    assert 0 < stopped.meta["steps"] < 10
    assert same(tensors(resume(stopped, data)), tensors(whole))


def test_signals_that_are_ignored_stay_ignored() -> None:
    """As SIGHUP under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stopped: list[int] = []
    try:
        with signals_as_errors(), deferred_interrupt(lambda: stopped.append(1)):
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stopped
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_within_a_callback_is_not_lost(number: int, error: type[BaseException]) -> None:
    """Python drops what a callback of a weak reference raises."""

    class Thing:
        pass

    def wait() -> None:
        thing = Thing()
        kept = weakref.ref(thing, lambda _: signal.raise_signal(number))
        del thing
        assert kept() is None
        for _ in range(200):
            signal.sigtimedwait([], 0.01)

    with signals_as_errors(), pytest.raises(error):
        wait()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# Folders


def test_two_trainings_on_one_empty_folder(data: Dataset, tmp_path: Path) -> None:
    """The second is told while the first works, and after it; the first is not touched."""
    (tmp_path / "r").mkdir()
    with created(tmp_path / "r", small(), {}) as first:
        before = {p.name: p.read_bytes() for p in first.path.iterdir()}
        with pytest.raises(RunError, match="Another process is training"):
            fit(small(latent=3), data, tmp_path / "r")
        assert {p.name: p.read_bytes() for p in first.path.iterdir()} == before
    with pytest.raises(RunError, match="already exists"):
        fit(small(latent=3), data, tmp_path / "r")
    assert {p.name: p.read_bytes() for p in first.path.iterdir()} == before


def test_a_new_folder_is_locked_from_its_first_moment(data: Dataset, tmp_path: Path) -> None:
    with created(tmp_path / "r", small(), {}), pytest.raises(RunError, match="Another process is training"):
        resume(Run(tmp_path / "r", small(), {}), data)


def test_half_made_folders_of_killed_processes_are_swept(data: Dataset, tmp_path: Path) -> None:
    dead, alive = tmp_path / ".a.4194999.partial", tmp_path / f".b.{os.getppid()}.partial"
    for folder in (dead, alive, tmp_path / "mine.partial"):
        folder.mkdir()
        (folder / "meta.json").write_text("{}")
    sweep_beside(tmp_path / "r")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([alive.name, "mine.partial"])
    assert partial(Path("x")).name == f".x.{os.getpid()}.partial"


@pytest.mark.parametrize("checkpoint_every", [0.0, 3600.0])
@pytest.mark.usefixtures("eager")
def test_a_run_that_is_moved_while_training_is_not_made_anew(
    checkpoint_every: float, data: Dataset, tmp_path: Path
) -> None:
    """And goes on where it was moved to."""
    whole = fit(small(1000), data, tmp_path / "whole")

    def move(progress: Any) -> None:
        if (tmp_path / "r").exists() and progress.step >= 5:
            (tmp_path / "r").rename(tmp_path / "elsewhere")

    with pytest.raises(RunError, match=r"r was moved or removed while"):
        fit(small(1000), data, tmp_path / "r", show=move, checkpoint_every=checkpoint_every)
    assert not (tmp_path / "r").exists()
    assert same(tensors(resume(Run.open(tmp_path / "elsewhere"), data)), tensors(whole))


@pytest.mark.usefixtures("eager")
def test_a_recipe_that_is_replaced_while_training_is_written_anew(data: Dataset, tmp_path: Path) -> None:
    def replace(progress: Any) -> None:
        (tmp_path / "r" / "recipe.toml").write_text("latent = 99")

    with pytest.warns(AevbWarning, match=r"recipe\.toml was changed while training"):
        made = fit(small(), data, tmp_path / "r", show=replace)
    assert Run.open(made.path).recipe.settings["latent"] == 2
    assert Run.open(made.path).model()


@pytest.mark.usefixtures("eager")
def test_metrics_that_are_removed_while_training_are_missed(data: Dataset, tmp_path: Path) -> None:
    def remove(progress: Any) -> None:
        if progress.step == 3:
            (tmp_path / "r" / "metrics.jsonl").unlink()

    with pytest.warns(AevbWarning, match=r"metrics\.jsonl was removed while training: its earlier lines are lost"):
        fit(small(), data, tmp_path / "r", show=remove)


def test_numbers_of_a_run_that_cannot_be_written_are_given_with_a_warning(
    run: Run, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = json.loads((run.path / "evaluation-test.json").read_text())

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.warns(AevbWarning, match=r"test\.json could not be written: Permission denied\. The numbers"):
        numbers = evaluate_run(run, data)
    assert float(numbers["elbo"]) == pytest.approx(kept["elbo"])


# Data that have moved, and data of one's own


def test_a_data_file_that_has_moved_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=(100, 4))
    np.save(tmp_path / "x.npy", x)
    recipe = Recipe.load("gaussian").replace(data__source=str(tmp_path / "x.npy"), training__samples=100)
    made = fit(recipe, load_data(tmp_path / "x.npy"), tmp_path / "r")
    rows = made.dataset().test.stored
    (tmp_path / "new").mkdir()
    (tmp_path / "x.npy").rename(tmp_path / "new" / "x.npy")
    with pytest.raises(aevb.DataError, match=r"If it has moved, say where it is: --data-dir FOLDER"):
        made.dataset()
    assert torch.equal(made.dataset(tmp_path / "new").test.stored, rows)
    shutil.copy(tmp_path / "new" / "x.npy", tmp_path / "y.npy")
    assert torch.equal(made.dataset(tmp_path / "y.npy").test.stored, rows)
    np.save(tmp_path / "y.npy", x + 1)
    with pytest.raises(RunError, match=r"The data of .* have changed"):
        made.dataset(tmp_path / "y.npy")
    monkeypatch.setenv("AEVB_DATA", str(tmp_path / "new"))
    assert torch.equal(made.dataset().test.stored, rows)


def test_a_fit_on_data_of_ones_own_makes_a_run_that_every_verb_can_use(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    own = array_dataset(rng.normal(size=(200, 4)) * 9 + 3, y=rng.integers(3, 6, 200), name="own")
    made = Run.open(fit(Recipe.load("gaussian").replace(training__samples=200), own, tmp_path / "r").path)
    assert made.recipe.source().source == "own"
    back = made.dataset()
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(back, part)[:5], getattr(own, part)[:5])
        assert torch.equal(getattr(back, part).labels, getattr(own, part).labels)
    assert back.class_names == own.class_names == ("3", "4", "5")
    assert evaluate_run(made, back)["n"] == 20
    assert resume(made, back, samples=400).meta["samples"] == 400
    flip(made.path / "data.safetensors")
    with pytest.raises(RunError, match=r"data\.safetensors is damaged"):
        made.dataset()


def test_a_fit_on_data_of_another_name_records_it(tmp_path: Path) -> None:
    made = fit(Recipe.load("bernoulli").replace(training__samples=100), load_data("sprites"), tmp_path / "r")
    assert made.recipe.source().source == "sprites"
    assert not (made.path / "data.safetensors").exists()


# Divergence and memory

TOO_FAST = {"low-rank": ["training.optimizer.lr=1e5"], "fsq": ["training.optimizer.lr=1e5"]}


@pytest.mark.parametrize("name", TOO_FAST)
def test_weights_that_break_a_step_are_a_divergence(name: str, data: Dataset, tmp_path: Path) -> None:
    recipe = Recipe.load(name).override(["training.samples=3000", "data.values=dynamic", *TOO_FAST[name]])
    with warnings.catch_warnings(action="ignore", category=AevbWarning), pytest.raises(TrainingDiverged):
        fit(recipe, data, tmp_path / "r")
    assert Run.open(tmp_path / "r").meta["status"] == "diverged"


def test_an_error_of_ones_own_is_no_divergence(data: Dataset, tmp_path: Path) -> None:
    def fail(progress: Any) -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fit(small(), data, tmp_path / "r", show=fail)
    assert Run.open(tmp_path / "r").meta["status"] == "interrupted"


LACKS = {
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "160000000000 bytes. Error code 12 (Cannot allocate memory)": "for 160 GB at once",
    "Unable to allocate 10.9 TiB for an array with shape (1000000000000, 3)": "for 12 TB at once",
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has": "for 21.5 GB at once",
}


@pytest.mark.parametrize("text", LACKS)
def test_a_lack_of_memory_says_what_was_asked_for_and_what_there_is(text: str) -> None:
    said = out_of_memory(RuntimeError(text))
    assert said.startswith(f"There is not enough memory {LACKS[text]}")
    assert ("are free" in said) != text.startswith("CUDA")
    assert "Use fewer data points" in said
    assert not out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert out_of_memory(MemoryError()).startswith("There is not enough memory")


def test_a_network_that_no_memory_holds_is_refused_in_words(data: Dataset, tmp_path: Path) -> None:
    recipe = small().override(["encoder.hidden=[1000000, 1000000]"])
    with pytest.raises(RecipeError, match=r"encoder \(mlp\): there is not enough memory for 4 TB at once"):
        fit(recipe, data, tmp_path / "r")
    assert not (tmp_path / "r").exists()
