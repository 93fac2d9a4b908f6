"""The console as it is found: closed, cut short, full, without UTF-8; quiet; what is written where."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_cli import NETS, call, good, mistake

import aevb
from aevb.apps import actions, console, outputs, show
from aevb.apps.cli import app
from aevb.errors import AevbWarning, DataError
from aevb.runs.recipe import parse_toml
from aevb.runs.store import Run


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A line of the shell, in which `aevb` is this one."""
    aevb = f"'{sys.executable}' -c 'from aevb.apps.cli import main; main()'"
    variables = {**os.environ, "AEVB": aevb, **variables}
    return subprocess.run(
        ["bash", "-c", line.replace("aevb", aevb)], capture_output=True, text=True, env=variables, encoding="latin-1"
    )


def test_a_console_without_utf_8_shows_plain_letters() -> None:
    found = shell("aevb recipes beta-vae", PYTHONIOENCODING="ascii")
    assert found.returncode == 0, found.stderr
    assert "E_q[log p(x|z)] - beta KL(q(z|x) || p(z)),  beta = 4" in found.stdout
    latin = shell("aevb recipes beta-vae", PYTHONIOENCODING="latin-1")
    assert latin.stdout == found.stdout  # it is saved and read again: in ASCII
    assert parse_toml(found.stdout, "printed")["objective"]["beta"] == 4.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-91.90 ± 0.31", "-91.90 +- 0.31"),
        ("σ-VAE, Rényi", "sigma-VAE, Renyi"),
        ("1×8×8 → z", "1x8x8 -> z"),
        ("≺", "?"),
    ],
)
def test_plain_letters_say_the_same(text: str, expected: str) -> None:
    assert console.plain(text) == expected


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_tables_reach_a_stream_of_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    console.prepare()
    show.out.print(show.table("a ± b", ("σ", "value"), [["ELBO", "-1.00 ± 0.10"]]))
    show.print_json({"recipe": "σ-VAE"})
    sys.stdout.flush()
    shown = raw.getvalue().decode(encoding)
    assert "-1.00" in shown
    assert '"\\u03c3-VAE"' in shown  # no character of a JSON is lost
    assert "?" not in shown


@pytest.mark.skipif(sys.platform == "win32", reason="shells differ")
@pytest.mark.parametrize(
    ("line", "out", "err", "code"),
    [
        ("aevb data >&-", "", "", 0),
        ("aevb data 2>&-", "source .*digits", "", 0),
        ("aevb data | head -1; exit ${PIPESTATUS[0]}", r"source[^\n]*\n$", "", 0),
        ("aevb data >/dev/full", "", "^error: the output could not be written: No space left on device.\n$", 1),
    ],
)
def test_output_that_cannot_be_written_is_no_traceback(line: str, out: str, err: str, code: int) -> None:
    found = shell(line)
    assert found.returncode == code, found.stderr
    assert re.search(out, found.stdout, re.S)
    assert re.search(err, found.stderr)
    assert "Traceback" not in found.stderr
    assert "Exception ignored" not in found.stderr


def test_a_notebooks_backend_is_not_needed() -> None:
    code = "from aevb.apps import console; console.prepare(); import matplotlib; print(matplotlib.get_backend())"
    missing = {**os.environ, "MPLBACKEND": "module://no_such_backend"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=missing)
    assert found.stdout.strip().lower() == "agg", found.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("console")
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.normal(size=(60, 3)) * 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("AEVB_RUNS", raising=False)
        good("train", "x.npy", "--out", "runs/r", "--samples", 300, "--latent", 2, "--no-figures", *NETS)
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("AEVB_RUNS", raising=False)


def test_quiet_leaves_results_alone(tmp_path: Path) -> None:
    words = ["train", "x.npy", "--samples", 200, "--batch", 1000, "--latent", 2, "--no-figures", *NETS]
    loud, quiet = (call(*words, "--out", tmp_path / name, *more) for name, more in (("a", []), ("b", ["-q"])))
    assert (loud.code, quiet.code) == (0, 0)
    assert quiet.err == ""
    assert "a batch of 1,000 is more than the data have: each step takes all 48 train rows" in loud.err
    said = [line for line in loud.out.splitlines() if not line.startswith(("run ", "next "))]
    assert [line for line in quiet.out.splitlines() if not line.startswith("run ")] == said
    assert f"run      {tmp_path / 'b'}" in quiet.out
    good("encode", tmp_path / "a", "--out", tmp_path / "c.npy")
    assert call("encode", tmp_path / "a", "--out", tmp_path / "c.npy").err == f"replaces {tmp_path / 'c.npy'}\n"
    assert call("encode", tmp_path / "a", "--quiet", "--out", tmp_path / "c.npy").err == ""


def test_small_data_that_fill_minibatches_are_not_called_too_few(tmp_path: Path) -> None:
    data = aevb.load_data("x.npy")  # 48 train rows, in minibatches of 16
    recipe = aevb.Recipe.load("gaussian")
    assert recipe.of(data).training().batch == 16
    found = call("train", "x.npy", "--samples", 96, "--latent", 2, "--no-figures", *NETS, "--out", tmp_path / "r")
    assert found.code == 0
    assert "is more than the data have" not in found.err


def test_a_warning_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with show.warnings_told(), warnings.catch_warnings():
        warnings.simplefilter("always")
        for words in ("a folder", "a file", "a folder"):
            warnings.warn(words, AevbWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: a folder\nwarning: a file\n"


def test_warnings_and_logs_of_the_library_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with show.warnings_told(), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("mind [this]", AevbWarning, stacklevel=1)
    logger = logging.getLogger("aevb")
    handlers, logger.propagate = logger.handlers[:], False
    try:
        with show.logged():
            logging.getLogger("aevb.data").warning("fetched anew")
        assert logger.handlers == handlers
    finally:
        logger.propagate = True
    assert capsys.readouterr().err.splitlines() == ["warning: mind [this]", "warning: fetched anew"]


FIRST_LINE = """
import os, sys
from aevb.apps import show
def stop(text):
    print(text, sorted({name for name in sys.modules if name in HEAVY}), flush=True)
    os._exit(0)
show.note = stop
from aevb.apps.cli import main
sys.argv = ["aevb", "train", *WORDS]
main()
"""
HEAVY = (
    *("sklearn", "scipy", "matplotlib", "pandas", "sympy", "zuko"),
    *(
        "aevb.models.vae",
        "aevb.objectives.bounds",
        "aevb.runs.recipe",
        "aevb.evaluation.evaluate",
        "aevb.figures.plots",
    ),
)


@pytest.mark.parametrize(
    ("words", "line", "heavy"),
    [
        (["digits"], "digits[/bold] (1,197 × 1×8×8), recipe [bold]digits[/bold], ", HEAVY),
        (["mnist", "--latent", "7"], "mnist[/bold] (50,000 × 1×28×28), recipe ", HEAVY),
        (["digits", "--set", "latent=5"], "recipe [bold]digits[/bold], 5 latents", HEAVY[:3]),
        (["x.npy"], "x[/bold] (48 × 3), recipe [bold]gaussian[/bold], ", HEAVY[:3]),
    ],
)
def test_the_first_line_of_a_training_waits_for_nothing_heavy(
    words: list[str], line: str, heavy: tuple[str, ...]
) -> None:
    code = f"HEAVY, WORDS = {heavy!r}, {words!r}\n{FIRST_LINE}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert line in found.stdout, found.stderr
    assert found.stdout.rstrip().endswith("[]")


# What is written where


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sample", "--out", "x.txt"], "--out x.txt: numbers are written as a .npy file, pictures as .png and .svg"),
        (["sample", "--out", "x.jpg"], "end its name in .npy or .png or .svg"),
        (["interpolate", "--out", "x.npy"], "--out x.npy: pictures are written as .png and .svg files"),
        (["traverse", "--out", "x.pdf"], "end its name in .png or .svg"),
        (
            ["score", "--out", "x.txt"],
            "scores are written as a .csv, .parquet or .npy file; end its name in .csv or .parquet or .npy",
        ),
        (["sample", "--out", "."], "--out . is a folder. Name a file in it, such as --out x.npy."),
        (["encode", "--out", "runs"], "--out runs is a folder. Name a file in it, such as --out runs/x.npy."),
        (["train", "x.npy", "--out", "x.npy"], "--out x.npy: a run is a folder, and this names a file."),
        (["train", "x.npy", "--out", "table.csv"], "Choose a folder, such as table."),
    ],
)
def test_a_wrong_name_for_a_file_is_refused_before_any_work(
    words: list[Any], message: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(place.rglob("*"))
    monkeypatch.setattr(Run, "model", lambda *a, **k: pytest.fail("the model was read"))
    assert message in mistake(*words)
    assert sorted(place.rglob("*")) == before


def test_an_end_that_is_no_kind_of_file_is_part_of_the_name() -> None:
    for name in ("mine", "mine.v2", "mine.3", "mine.png", "mine.svg"):
        assert outputs.picture_out(Path(name)) == Path(name)
    for name in ("mine.pdf", "mine.mp4", "mine.npy", "mine.jpeg"):
        with pytest.raises(DataError, match="end its name in"):
            outputs.picture_out(Path(name))


# What is said


def test_the_progress_line_is_in_the_units_of_the_data_and_fits(capsys: pytest.CaptureFixture[str]) -> None:
    p: Any = SimpleNamespace(step=1200, samples=120_000, total=200_000, numbers={"elbo": -4.0}, rate=1e4, left=75.0)
    assert show.progress_line(p, -10.5) == "step 1,200/2,000 · ELBO -14.5 nats · 10,000 samples/s · 1:15 left"
    for width in range(30, 140):
        line = show.fitting_line(p, width, -10.5)
        assert len(line) <= width
        assert "step 1,200/2,000" in line
        assert ("ELBO -14.5 nats" in line) == (width >= 40)
        assert ("1:15 left" in line) == (width >= 52)
    p.numbers = {"accuracy": 0.5}
    assert "accuracy 0.5" in show.progress_line(p, -10.5)


def test_the_progress_of_a_training_agrees_with_its_table(place: Path, tmp_path: Path) -> None:
    found = call("train", "x.npy", "--out", tmp_path / "r", "--samples", 20_000, "--latent", 2, "--no-figures", *NETS)
    last = float(re.findall(r"ELBO (-?[\d.]+) nats", found.err)[-1])
    table = float(re.findall(r"^ELBO +(-?[\d.]+)", found.out, re.M)[0])
    assert abs(last - table) < 1.5  # standardized it is some 13.8 nats higher
    assert table < -15


def test_a_warning_names_the_options_that_cure_it(capsys: pytest.CaptureFixture[str]) -> None:
    heavy = "Take more samples, or annealed importance sampling."
    actions.show_warning({"importance_warning": heavy, "importance_samples": 100})
    actions.show_warning({"importance_warning": heavy, "importance_samples": 100}, annealed=False)
    actions.show_warning({"importance_warning": heavy, "estimator": "ais"})
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert lines == [
        f"{heavy} On the command line: --importance-samples 1000, or --estimator ais.",
        f"{heavy} On the command line: --importance-samples 1000.",
        heavy,
    ]


def test_a_dry_run_trains_nothing_and_counts_all_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    words = [
        "train",
        "x.npy",
        "--latent",
        2,
        *NETS,
        "--samples",
        500,
        "--batch",
        48,
        "--out",
        tmp_path / "r",
        "--dry-run",
    ]
    content = json.loads(good(*words, "--json"))
    assert (content["train"], content["validation"], content["test"]) == (48, 6, 6)
    assert (content["batch"], content["steps"]) == (48, 11)
    assert content["parameters"] == (3 * 16 + 16 + 16 * 4 + 4) + (2 * 16 + 16 + 16 * 6 + 6)
    found = call(*words)
    assert "parameters  282" in found.out
    assert parse_toml(found.out.partition("\nnothing")[0], "printed")["latent"] == 2
    assert not (tmp_path / "r").exists()
    assert "there is no 'sample'" in mistake(*words, "--set", "objective.sample=5")


@pytest.mark.parametrize("recipe", ["conv", "bernoulli"])
def test_a_recipe_of_other_values_names_what_cures_it(recipe: str, tmp_path: Path) -> None:
    import json

    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 8, 8)))
    words = ["train", tmp_path / "x.npy", "--latent", 2, "--dry-run", "--recipe", recipe]
    said = mistake(*words)
    assert f"The recipe {recipe} needs " in said
    options = said.partition("To keep it for real numbers: ")[2].partition(". Or leave")[0].split()
    content = json.loads(good(*words, *options, "--json"))
    assert content["recipe"]["likelihood"]["type"] == "normal"
    assert content["parameters"] > 1000
    assert "recipe gaussian" in call(*words[:-2]).err
    assert "To keep it" not in mistake(*words[:-2], "--set", "data.values=levels")


def test_options_without_a_value_show_none_and_samples_means_one_thing() -> None:
    out = good("--help") + "".join(good(name, "--help") for name in VERBS)
    assert "<bool>" not in out
    for verb in VERBS:
        text = good(verb, "--help")
        assert "Examples" in text, verb
        assert "--quiet" in text, verb
        assert ("--samples " in text) == (verb in ("train", "sweep", "reproduce")), verb
        assert ("--run " in text) == (verb not in ("runs", "recipes", "data", "reproduce", "sweep")), verb
    assert "[default: the recipe's]" in good("train", "--help")
    assert "AEVB_DATA" in good("train", "--help")
    assert "AEVB_RUNS" in good("evaluate", "--help")


VERBS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]


def test_recipes_come_by_kind_each_once() -> None:
    from aevb.apps.lists import PLAIN, grouped
    from aevb.runs.recipe import recipe_names

    lines = grouped()
    assert sorted(line[0] for line in lines if line[1]) == recipe_names()
    kinds: dict[str, list[str]] = {}
    for name, title, _ in lines:
        if name and not title:
            kinds[name] = []
        elif name:
            kinds[list(kinds)[-1]].append(name)
    assert next(iter(kinds)) == PLAIN.upper()
    assert {"vq-vae", "fsq", "concrete", "vimco"} == set(kinds["DISCRETE CODES"])
    assert {"vamp-prior", "mixture-prior", "flow-prior"} == set(kinds["PRIORS"])
    assert {"conditional", "conditional-prior", "m2"} == set(kinds["LABELS"])


def test_a_name_of_a_recipe_that_there_is_not() -> None:
    said = mistake("recipes", "bata-vae")
    assert said.startswith("There is no recipe 'bata-vae'. Did you mean 'beta-vae', ")
    assert said.count("'") == 8  # the name, and the three nearest
    assert "`aevb recipes` lists all" in said


def test_experiments_of_the_paper_and_of_others() -> None:
    from aevb.apps.rerun import experiments_of
    from aevb.reproduce.reproduce import EXPERIMENTS
    from aevb.reproduce.tables import TABLES

    assert experiments_of(["paper"]) == [*EXPERIMENTS]
    assert experiments_of(["tables", "report"]) == [*TABLES]
    assert experiments_of(["all"]) == [*EXPERIMENTS, *TABLES]
    assert experiments_of(["iwae"]) == ["iwae"]
    assert "Did you mean 'figure-2'" in mistake("reproduce", "figur-2", "--budget", 1000)


def test_names_of_runs_repeat_no_word() -> None:
    from aevb.runs.store import new_folder

    assert re.fullmatch(r"digits-\d{8}-\d{6}", new_folder("digits", "digits").name)
    assert re.fullmatch(r"digits-conv-\d{8}-\d{6}", new_folder("digits", "conv").name)


def test_data_are_described_with_separators() -> None:
    lines = good("data", "digits").splitlines()
    assert lines[0] == "digits"
    assert re.fullmatch(r"what it is +1,797 handwritten digits.*", lines[1])
    assert "train           1,197" in lines
    assert "values          levels" in lines


def test_a_training_reads_its_data_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the recipe follows from the data, and where it names the kind of values that they have."""
    from aevb.runs import sources

    np.save(tmp_path / "own.npy", np.random.default_rng(0).normal(3.0, 2.0, (60, 3)))
    read, seen = sources.load_data, []
    monkeypatch.setattr(sources, "load_data", lambda *a, **k: seen.append(k.get("values")) or read(*a, **k))
    good("train", tmp_path / "own.npy", *NETS, "--latent", 2, "--samples", 500, "--out", tmp_path / "r", "--no-figures")
    assert len(seen) == 1
    good("train", tmp_path / "own.npy", *NETS, "--epochs", 2, "--dry-run", "--set", "data.values=raw")
    assert seen[1:] == ["raw"]
