"""The pages: every link leads somewhere, every named symbol exists, every example runs, every list is complete."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from test_floors import FLOORS
from typer.testing import CliRunner

from aevb.apps.cli import app
from aevb.data.batch import Batch
from aevb.data.sources import SOURCES
from aevb.errors import RecipeError
from aevb.models.compat import check_model
from aevb.parts import CONTEXT, POSTERIOR, PRIOR, Member, Offers, Part, conflicts, parts_in
from aevb.runs.build import build_model
from aevb.runs.parts import AXES
from aevb.runs.recipe import Recipe, recipe_names

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)])
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECIPES = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
TRUST = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?ms)(?:^<!-- *(?P<note>[^>]*?) *-->\n+)?^```(?P<language>[\w{}-]*)[^\n`]*\n(?P<text>.*?)^```$")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())


@dataclass(frozen=True)
class Block:
    """A fenced block, and the HTML comment right above it, if there is one: "not run: why", or "slow"."""

    language: str
    text: str
    note: str

    @property
    def runs(self) -> bool:
        return self.language in ("python", "bash", "console") and not self.note.startswith("not run:")


def blocks(text: str) -> list[Block]:
    return [Block(m["language"], m["text"], m["note"] or "") for m in BLOCK.finditer(text)]


def prose(page: Path) -> str:
    """A page without its code."""
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def commands(block: Block) -> list[str]:
    """The commands of a block; in a console block the lines after a prompt, the others being what they print."""
    lines = block.text.splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def run_command(line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)
    assert name == "aevb", f"only aevb is run from a page, not {line!r}: put <!-- not run: why --> above its block"
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"


def run_all(chosen: list[Block]) -> None:
    """In order, in one namespace."""
    namespace: dict[str, Any] = {}
    for block in chosen:
        if block.language == "python":
            exec(compile(block.text, "<example>", "exec"), namespace)
        else:
            for line in commands(block):
                run_command(line)


@cache
def symbols(file: Path) -> set[str]:
    """What a Python file defines: 'f', 'C', 'C.method', and names assigned at either place."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else []
        found |= names(node) | {f"{c}.{n}" for c in names(node) for child in inner for n in names(child)}
    return found


def names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {t.id for t in targets if isinstance(t, ast.Name)}


@each_page
def test_links_lead_to_files(page: Path) -> None:
    found = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", prose(page))
    targets = [a or b for a, b in found if not (a or b).startswith(("http://", "https://", "#"))]
    missing = [t for t in targets if not (page.parent / t.partition("#")[0]).exists()]
    assert not missing


@each_page
def test_named_symbols_are_defined_where_the_link_says(page: Path) -> None:
    links = re.findall(r"\[`([\w.]+)`\]\(([^)\s]+\.py)\)", prose(page))
    wrong = [(name, target) for name, target in links if name not in symbols(page.parent / target)]
    assert not wrong


def test_symbols_are_found_by_class_and_method() -> None:
    assert {"VAE", "VAE.trace"} <= symbols(ROOT / "src" / "aevb" / "models" / "vae.py")
    assert "trace" not in symbols(ROOT / "src" / "aevb" / "models" / "vae.py")


def test_every_equation_of_the_paper_has_its_line() -> None:
    lines = re.findall(
        r"^\| \*\*([^*]+)\*\*", (ROOT / "docs" / "equations.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    expected = [f"eq. {n}" for n in range(1, 25)] + ["Algorithm 1", "Algorithm 2"]
    assert [e for e in expected if e not in lines] == []
    assert len(lines) == len(set(lines))


@each_page
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = [b for b in blocks(page.read_text(encoding="utf-8")) if b.runs and b.note != "slow"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AEVB_RUNS", raising=False)
    run_all(chosen)


@pytest.mark.slow
@each_page
def test_slow_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AEVB_RUNS", raising=False)
    run_all([b for b in blocks(page.read_text(encoding="utf-8")) if b.runs and b.note == "slow"])


def test_blocks_are_told_apart() -> None:
    text = "<!-- not run: why -->\n```bash\nrm x\n```\n\n```console\n$ aevb runs\nNo runs\n```\n```text\ny\n```\n"
    found = blocks(text + "```{code-cell} python3\nz\n```\n[a](b)\n```{toctree}\nc\n```\n")
    assert [b.runs for b in found] == [False, True, False, False, False]
    assert commands(found[1]) == ["aevb runs"]
    with pytest.raises(AssertionError, match="only aevb is run"):
        run_command("rm x")


def table_rows(page: str, heading: str = "") -> list[str]:
    """The rows of the tables of a page, or of a section of it, that begin with a name in code."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0] if heading else text
    assert section, f"{page} has no section {heading!r}"
    return [line for line in section.splitlines() if line.startswith("| `")]


def test_every_source_is_listed() -> None:
    expected = [
        f"| `{s.name}` | {s.title} | {'×'.join(map(str, s.shape))} | {' + '.join(f'{n:,}' for n in s.counts)} "
        f"| `{s.values.kind}` | `{s.recipe}` | {s.licence} |"
        for s in SOURCES.values()
    ]
    assert table_rows("data.md") == expected


def test_every_recipe_is_listed() -> None:
    settings = {name: Recipe.load(name).settings for name in recipe_names()}
    cells = {name: [s[key].replace("|", r"\|") for key in ("title", "paper")] for name, s in settings.items()}
    assert table_rows("recipes.md", "Recipes") == [
        f"| `{name}` | {title} | {paper} |" for name, (title, paper) in cells.items()
    ]


def test_every_verb_is_listed() -> None:
    verbs = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback]
    assert [row.split("`")[1].removeprefix("aevb ").split()[0] for row in table_rows("commands.md")] == verbs


def test_the_readme_is_of_one_screen_and_names_recipes_and_counts_that_there_are() -> None:
    assert len(README.splitlines()) <= 150
    section = README.partition("## Which model?\n")[2].partition("\n## ")[0]
    named = {name for row in section.splitlines() if row.startswith("| ") for name in re.findall(r"`([\w-]+)`", row)}
    assert named
    assert named <= set(recipe_names())
    counts = [f"{len(AXES[axis])} {axis}" for axis in ("prior", "posterior", "likelihood", "objective")]
    assert all(count in README for count in counts)
    assert f"{len(recipe_names())} recipes" in README


def test_the_design_lists_every_layer_and_names_files_that_exist() -> None:
    """In the order that test_floors.py holds imports to."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    drawn = text.partition("```text\nsrc/aevb/\n")[2].partition("```")[0]
    layers = re.findall(r"(?m)^  (\w+)(?:/|\.py) ", drawn)
    assert layers == FLOORS
    package = ROOT / "src" / "aevb"
    there = {p.stem for p in package.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert set(layers) == there - {"__init__"}
    files = {p.name for p in package.rglob("*.py")}
    named = re.findall(r"\w+\.py\b", drawn)
    assert len(named) > len(layers) / 2
    assert [name for name in named if name not in files] == []


def test_trust_names_tests_that_exist() -> None:
    found = set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", TRUST))
    assert len(found) > 100
    assert [f"{file}::{test}" for file, test in sorted(found) if test not in symbols(ROOT / "tests" / file)] == []


def test_trust_names_the_tests_of_every_trap() -> None:
    """Those that have its number in their name, and those that are marked with it."""
    rows = re.findall(r"^\| (\d\d|[a-z]) \| [^|]+ \| (`test_.*) \|$", TRUST, re.MULTILINE)
    told = {(number, test) for number, tests in rows for test in re.findall(r"`(test_\w+\.py::test_\w+)`", tests)}
    assert told == {pair for file in ROOT.glob("tests/test_*.py") for pair in traps(file)}


def traps(file: Path) -> set[tuple[str, str]]:
    """(number, file::test), each by a name "test_trap_17_..." or a marker, `@pytest.mark.trap(17)`."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            named = re.findall(r"^test_trap_(\d\d|[a-z])_", node.name)
            calls = [
                c for c in node.decorator_list if isinstance(c, ast.Call) and ast.unparse(c.func) == "pytest.mark.trap"
            ]
            marked = [str(ast.literal_eval(number)).zfill(2) for call in calls for number in call.args]
            found |= {(n.lstrip("0") if n[-1].isalpha() else n, f"{file.name}::{node.name}") for n in [*named, *marked]}
    return found


COUNTED = ("prior", "posterior", "likelihood", "encoder", "decoder", "objective")


def admitted(posterior: Part, prior: Part) -> bool:
    """Whether the library takes this pair, by what they declare."""
    pair = [Member(role, part.word, part.offers, part.needs) for role, part in ((POSTERIOR, posterior), (PRIOR, prior))]
    return not any(conflicts(pair))


def test_what_parts_declare_is_what_models_of_them_do() -> None:
    """Of every pair of posterior and prior: it builds, and its KL has no NaN, if and only if the declarations admit
    it."""
    small = {axis: {"type": "mlp", "hidden": [4]} for axis in ("encoder", "decoder")}
    for q, p in itertools.product(parts_in(POSTERIOR).values(), parts_in(PRIOR).values()):
        latent = [3, 4] if q.offers.uniform else 3
        context = {"classes": 10} if p.needs.labels else {}
        table = {"posterior": {"type": q.word}, "prior": {"type": p.word}, "latent": latent, "context": context}
        recipe = Recipe("pair", {**table, **small, "likelihood": {"type": "bernoulli"}})
        if not admitted(q, p):
            with pytest.raises(RecipeError, match=r"gives no .*, which the .* requires\. Choose "):
                check_model(build_model(recipe, (1, 4, 4)), Member(CONTEXT, "", Offers(labels=bool(context))))
            continue
        model = build_model(recipe, (1, 4, 4)).eval()
        with torch.no_grad():
            t = model.trace(Batch(torch.zeros(2, 1, 4, 4), recipe.context().each(2) if context else None))
        assert not bool(t.kl.isnan().any()), (q.word, p.word)
        assert bool(t.kl.isfinite().all()) == q.offers.kl, (q.word, p.word)


def test_the_parts_are_listed_and_counted() -> None:
    """Members of each axis, and how many pairs of posterior and prior are admitted."""
    counts = {axis: len(AXES[axis]) for axis in COUNTED}
    pairs = sum(admitted(q, p) for q in parts_in(POSTERIOR).values() for p in parts_in(PRIOR).values())
    rows = [f"| `{axis}` | {n} | {', '.join(sorted(AXES[axis]))} |" for axis, n in counts.items()]
    assert table_rows("recipes.md", "Parts") == rows
    assert f"{pairs} of the {counts['prior'] * counts['posterior']} pairs" in RECIPES
