"""The site, without building it: pages are reached, Korean pages have the same code, generated pages are whole."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import aevb
from aevb.apps.cli import app
from aevb.data.sources import SOURCES
from aevb.runs.parts import AXES
from aevb.runs.recipe import DEFAULTS, TABLES, Recipe, recipe_names

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_ext"))
generated = pytest.importorskip("generated")
docstrings = pytest.importorskip("docstrings")

PAGES = {
    p.relative_to(DOCS).with_suffix("").as_posix(): p.read_text(encoding="utf-8")
    for p in sorted(DOCS.rglob("*.md"))
    if "_build" not in p.parts
}
FENCE = re.compile(r"(?ms)^```([^\n`]+)\n(.*?)^```$")
TOCTREE = re.compile(r"(?ms)^```\{toctree\}\n(.*?)^```$")
KOREAN = {  # a page in Korean: the English page of which it is the counterpart
    "install": "start/install",
    "first-model": "start/first-model",
    "vae-from-zero": "start/vae-from-zero",
    "paper-in-code": "start/paper-in-code",
    "evaluation": "guides/evaluation",
    "autoencoder-or-vae": "guides/autoencoder-or-vae",
    "choose-a-recipe": "guides/choose-a-recipe",
    "troubleshooting": "guides/troubleshooting",
    "glossary": "reference/glossary",
}


def entries(page: str) -> set[str]:
    """The pages that a page lists in its tables of contents."""
    folder = Path(page).parent
    lines = [line.strip() for block in TOCTREE.findall(PAGES[page]) for line in block.splitlines()]
    return {(folder / line).as_posix() for line in lines if line and not line.startswith(":")}


def test_every_page_is_in_a_table_of_contents() -> None:
    reached, new = {"index"}, {"index"}
    while new:
        new = {entry for page in new for entry in entries(page)} - reached
        assert sorted(new - set(PAGES)) == []
        reached |= new
    assert sorted(set(PAGES) - reached) == []


def test_every_korean_page_has_a_counterpart() -> None:
    assert {page.removeprefix("ko/") for page in PAGES if page.startswith("ko/")} == {*KOREAN, "index"}


@pytest.mark.parametrize("name", KOREAN)
def test_a_korean_page_has_the_code_of_its_counterpart(name: str) -> None:
    korean, english = PAGES[f"ko/{name}"], PAGES[KOREAN[name]]
    assert FENCE.findall(korean) == FENCE.findall(english)
    assert re.findall(r"(?ms)^\$\$.*?\$\$$", korean) == re.findall(r"(?ms)^\$\$.*?\$\$$", english)
    assert f"({Path(KOREAN[name]).name}.md)" in korean.replace("/", "(")  # each leads to the other
    assert f"ko/{name}.md)" in english


@pytest.mark.parametrize("name", sorted(set(KOREAN) - {"glossary"}))
def test_a_korean_page_has_the_headings_and_rows_of_its_counterpart(name: str) -> None:
    for pattern in (r"(?m)^#+ ", r"(?m)^\|", r"(?m)^(?:\d+\.|-) "):
        korean, english = (FENCE.sub("", PAGES[page]) for page in (f"ko/{name}", KOREAN[name]))
        assert len(re.findall(pattern, korean)) == len(re.findall(pattern, english)), pattern


def test_korean_pages_are_in_korean() -> None:
    for page in (name for name in PAGES if name.startswith("ko/")):
        prose = re.sub(r"\W|[\d_]", "", FENCE.sub("", PAGES[page]))
        hangul = re.sub(r"[^가-힣]", "", prose)
        assert len(hangul) > 0.3 * len(prose), page


def test_lines_of_the_source_that_a_page_shows_exist() -> None:
    found = 0
    for page, text in PAGES.items():
        for file, name in re.findall(r"```\{literalinclude\} (\S+)\n:pyobject: (\S+)", text):
            path = (DOCS / page).parent / file
            assert name in defined(path), (page, file, name)
            found += 1
    assert found >= 20


def defined(path: Path) -> set[str]:
    """Names of functions and classes of a file, and of methods as Class.method."""
    kinds = ast.FunctionDef | ast.ClassDef
    top = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, kinds)]
    inner = {f"{c.name}.{m.name}" for c in top if isinstance(c, ast.ClassDef) for m in c.body if isinstance(m, kinds)}
    return {node.name for node in top} | inner


def anchors(page: str) -> set[str]:
    """The anchors that a page's headings get, as on GitHub."""
    heads = re.findall(r"(?m)^#{1,3} (.+)$", FENCE.sub("", generated.filled(PAGES[page])))
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_links_to_a_place_on_a_page_lead_there() -> None:
    for page, text in PAGES.items():
        for file, anchor in re.findall(r"\]\(([\w./-]*\.md)#([^)]+)\)", FENCE.sub("", text)):
            target = ((DOCS / page).parent / file).resolve()
            if target.is_relative_to(DOCS):
                name = target.relative_to(DOCS).with_suffix("").as_posix()
                assert anchor in anchors(name), (page, file, anchor)


# Generated pages


def rendered(kind: str) -> str:
    """What the generated parts of this kind come to on all pages together."""
    wanted = [(k, argument) for text in PAGES.values() for k, argument in generated.PLACE.findall(text) if k == kind]
    assert wanted
    return "\n".join(generated.GENERATORS[k](argument) for k, argument in wanted)


def test_every_public_name_is_in_the_api_once() -> None:
    shown = re.findall(r"(?m)^\.\. auto\w+:: aevb\.(\w+)$", rendered("api"))
    assert sorted(shown) == sorted({*aevb.__all__} - {"figures", "__version__"})
    assert len(shown) == len(set(shown)) > 150


def test_every_option_of_the_command_line_is_on_its_page() -> None:
    import typer

    text = rendered("commands")
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, verb in verbs.items():
        section = text.partition(f"## aevb {name}\n")[2].partition("\n## ")[0]
        for parameter in (p for p in verb.params if not getattr(p, "hidden", False)):
            for option in (o for o in parameter.opts if o.startswith("-") and o not in ("--help", "-h")):
                assert f"`{option}`" in section, (name, option)
    assert "[bold]" not in text
    assert "\\[" not in text.replace("\\[default", "")


def test_every_part_and_key_of_a_recipe_is_on_its_page() -> None:
    text = rendered("recipe-parts")
    for axis, parts in AXES.items():
        for word in parts:
            assert f"#### `{axis}`: `{word}`\n" in text
    tables = rendered("recipe-tables") + PAGES["reference/keys"] + text
    for key in [*DEFAULTS, *TABLES]:
        assert f"`{key}`" in tables or f"[{key}]" in tables, key
    for name in recipe_names():
        for axis, key in keys_used(Recipe.load(name).settings):
            assert f"| `{key}` |" in tables, (name, axis, key)


def keys_used(settings: dict[str, Any]) -> set[tuple[str, str]]:
    """(table, key) of the flat keys that a recipe sets."""
    flat = {(t, k) for t, table in settings.items() if isinstance(table, dict) for k in table if k != "type"}
    nested = {(t, k) for t in ("terms", "chain") for table in settings.get(t, []) for k in table if k != "type"}
    unlisted = {("terms", "weight"), ("chain", "latent")}  # of every table of these arrays
    return {(t, k) for t, k in (flat | nested) - unlisted if t != "data" or k in ("values", "source")}


def test_every_recipe_is_on_its_page_under_its_equation() -> None:
    text = rendered("recipes")
    assert sorted(re.findall(r"(?m)^### `([\w-]+)`$", text)) == sorted(recipe_names())
    for name in recipe_names():
        section = text.partition(f"### `{name}`\n")[2].partition("\n### ")[0]
        assert "maximised over θ" in section, name
        assert f'title = "{Recipe.load(name).settings["title"]}"'.replace('"', "") in section.replace('"', ""), name


def test_every_recipe_has_a_picture_and_a_number_or_a_reason() -> None:
    place = DOCS / "images" / "gallery"
    found = json.loads((place / "gallery.json").read_text(encoding="utf-8"))
    assert sorted(found["recipes"]) == sorted(recipe_names())
    shown = {name for name, numbers in found["recipes"].items() if "reason" not in numbers}
    assert {f"{name}.png" for name in shown} == {path.name for path in place.glob("*.png")}
    assert len(shown) > 55
    text, page = rendered("recipes"), PAGES["reference/gallery"]
    for name in shown:
        number = found["recipes"][name].get("elbo") or found["recipes"][name]["reconstruction"]
        section = text.partition(f"### `{name}`\n")[2].partition("\n### ")[0]
        assert f"(../images/gallery/{name}.png)" in section
        assert f"{number['mean']:.2f} ± {number['se']:.2f}".replace("-", "−") in section
    assert f"{found['budget']['samples']:,} training samples" in page
    assert f"seed {found['budget']['seed']}" in page
    assert sum(path.stat().st_size for path in place.iterdir()) < 1.5e6


def test_every_message_of_the_source_is_listed() -> None:
    text = rendered("messages")
    assert "There is no recipe …" in text
    assert text.count("\n| ") > 250
    assert "was moved or removed while this process worked on it, so … was not written." in text


def test_troubleshooting_quotes_words_of_the_source() -> None:
    source = "".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "src" / "aevb").rglob("*.py"))
    )
    rows = PAGES["guides/troubleshooting"].partition("## Messages\n")[2].partition("\n## ")[0].splitlines()
    quoted = [word for row in rows if row.startswith("| `") for word in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(quoted) >= 10
    assert [words for words in quoted if words not in source and words not in ("PyTorch", "weights_only")] == []


def test_troubleshooting_has_every_finding_of_the_doctor() -> None:
    folder = ROOT / "src" / "aevb" / "evaluation" / "findings"
    text = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    found = set(re.findall(r'Finding\(\s*"([\w-]+)"', text)) | {"too-few-rows", "over-fitting"}
    section = PAGES["guides/troubleshooting"].partition("## What the doctor finds\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"(?m)^\| `([\w-]+)` \|", section)) == found


def test_the_glossary_has_every_row_of_every_table() -> None:
    rows = set(re.findall(r"(?m)^\| ((?:[^|\\]|\\.)+?) \|", PAGES["reference/glossary"].partition("## Rows")[2]))
    rows = {row.replace(r"\|", "|") for row in rows}
    labels = {label.replace("{likelihood}", "log p(x)") for label in generated.table_rows()}
    assert len(labels) > 40
    assert labels - rows == set()


def test_every_environment_variable_is_listed() -> None:
    source = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "src" / "aevb").rglob("*.py"))
    read = set(re.findall(r'environ(?:\.get\(|\[)"(\w+)"', source)) | set(re.findall(r"AEVB_[A-Z_]+", source))
    rows = re.findall(r"(?m)^\| (`[^|]+`) \|", PAGES["reference/environment"])
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert read - listed == set()
    assert {name for name in listed if name.startswith("AEVB_")} <= read


def test_recipes_and_sources_that_pages_name_exist() -> None:
    text = "\n".join(PAGES.values())
    named = set(re.findall(r"aevb train (?:\w+ )*--recipe ([\w-]+)(?=\s|`)", text)) - {"NAME", "FILE", "mine"}
    assert named - {*recipe_names()} == set()
    rows = PAGES["guides/choose-a-recipe"].split("\n| ")
    cells = [row.split(" | ")[1] for row in rows if row.count(" | ") == 2]
    words = {word for cell in cells for word in re.findall(r"`([\w-]+)`", cell)}
    assert len(words) > 25
    assert words - {*recipe_names()} == set()
    assert {"digits", "mnist", "frey"} <= set(SOURCES)


# Docstrings as pages


def restructured(text: str) -> str:
    return "\n".join(docstrings.restructured(text))


def test_symbols_of_docstrings_are_no_markup() -> None:
    assert restructured("x (B, *X) and |x| of `z`.") == "\\ x (B, \\*X) and \\|x\\| of ``z``.\n"
    assert restructured("As `Trace`, `VAE.trace`.") == (
        "\\ As :py:obj:`Trace <aevb.Trace>`, :py:obj:`VAE.trace <aevb.VAE.trace>`.\n"
    )


def test_arguments_become_a_list_and_equations_stay_as_they_are() -> None:
    arguments = "Args:\n    samples: L.\n        Many.\n    a, b: two."
    text = f"A bound.\n\n    L(x) = *E*\n\n{arguments}\n\nRaises:\n    DataError: no."
    found = restructured(text)
    assert "::\n\n    L(x) = *E*" in found
    assert "``samples``\n    \\ L. Many." in found
    assert "``a``, ``b``\n    \\ two." in found
    assert ".. rubric:: Raises" in found


# Search


def test_search_finds_korean_with_particles_and_without_spaces() -> None:
    korean = pytest.importorskip("korean", reason="needs Sphinx, the extra docs")
    index = set(korean.SearchKorean({}).split("잠재 변수는 관측되지 않는다. The ELBO rises."))
    for query in ("잠재", "변수", "잠재변수", "관측"):
        assert set(korean.pairs(query)) <= index, query
    assert "ELBO" in index
    assert set(korean.pairs("사후분포")) - index


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_page_splits_a_query_as_the_index_was_split() -> None:
    korean = pytest.importorskip("korean", reason="needs Sphinx, the extra docs")
    query = "잠재 변수를 log_marginal, p(x|z) 값 ELBO"
    script = f"{korean.SearchKorean.js_splitter_code}; console.log(JSON.stringify(splitQuery({json.dumps(query)})))"
    found = json.loads(subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True).stdout)
    assert found == ["잠재", "변수", "수를", "log_marginal", "p", "x", "z", "값", "ELBO"]
    assert set(found) - {"값"} <= set(korean.SearchKorean({}).split(query))


def test_equations_become_characters_that_browsers_show() -> None:
    mathml = pytest.importorskip("mathml", reason="needs the extra docs").mathml
    found = mathml(r"\mathcal N(z), \mathbb E_q")
    assert "&#x1D4A9;" in found
    assert "&#x1D53C;" in found
    assert "mathvariant" not in found
