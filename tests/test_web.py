"""The explorer without a server: one page that loads nothing, whose backend answers as the library does."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import NODE, STATIC, needs_node, tiny
from test_report import Elements

from aevb.apps.explorer.detail import selection
from aevb.apps.explorer.session import Session
from aevb.apps.export.web import content, write_web
from aevb.apps.pages.bundle import needed
from aevb.use.cells import cells as cells_of
from aevb.use.interpolate import route


def answers(folder: Path, held: dict[str, Any], script: str) -> Any:
    """What a script prints, as JSON, with `page`, the static backend of what a page holds."""
    assert NODE is not None
    (folder / "content.json").write_text(json.dumps(held))
    (folder / "ask.mjs").write_text(
        f"import {{ StaticBackend }} from {json.dumps((STATIC / 'static-backend.js').as_uri())}; import fs from 'fs';"
        f"const page = new StaticBackend(JSON.parse(fs.readFileSync({json.dumps(str(folder / 'content.json'))})));"
        f"const plain = (k, v) => (v instanceof Float32Array ? [...v] : v); {script}"
    )
    done = subprocess.run([NODE, str(folder / "ask.mjs")], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node
@pytest.mark.parametrize("name", ["conv", "conditional"])
def test_the_backend_of_the_page_answers_as_the_library(name: str, tmp_path: Path) -> None:
    run, data = tiny(name)
    session = Session(run, data, most=40)
    held = json.loads(json.dumps(content(session)))
    found = answers(
        tmp_path,
        held,
        "const z = [[0.5, -1], [-0.25, 2]]; const view = page.content.about.views[0].name;"
        "const out = { decoded: await page.decode(z), point: await page.point(3),"
        " walk: await page.walk(z, 'spherical', 5),"
        " points: await page.points(view), some: await page.selection([1, 2, 5]), tiles: await page.thumbnails([0]) };"
        "console.log(JSON.stringify(out, plain));",
    )
    z = torch.tensor([[0.5, -1.0], [-0.25, 2.0]])
    expected = session.decoded(z, None).flatten(1)
    torch.testing.assert_close(torch.tensor([d["x"] for d in found["decoded"]]), expected, atol=2e-3, rtol=0)
    codes = session.points.codes.all()
    plane = session.plane(session.view_names()[0])
    xy = torch.tensor(found["points"]["xy"]).reshape(-1, 2)
    torch.testing.assert_close(xy, plane.project(codes).float(), atol=5e-3, rtol=2e-3)
    torch.testing.assert_close(torch.tensor(found["walk"]["z"]), route(z, 5, spherical=True), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.tensor(found["some"]["mean"]), codes[[1, 2, 5]].mean(0), atol=5e-3, rtol=2e-3)
    x = session.points.rows.split[torch.arange(1)].flatten()
    torch.testing.assert_close(torch.tensor(found["tiles"][0]).float(), x, atol=1 / 254, rtol=0)
    assert found["point"]["index"] == 3
    assert 3 not in found["point"]["neighbours"]


@needs_node
def test_cells_of_a_table_are_in_its_units(tmp_path: Path) -> None:
    """Medians; means where a page does not know the quantiles, as of some counts."""
    run, data = tiny("table")
    session = Session(run, data, most=20)
    held = json.loads(json.dumps(content(session)))
    cells = answers(tmp_path, held, "console.log(JSON.stringify((await page.decode([[0, 0]]))[0].cells));")
    medians = cells_of(session.model, torch.zeros(1, 2), session.values.columns).values[0]
    with torch.no_grad():
        means = session.values.columns.inverse(session.model.decode(torch.zeros(1, 2)).mean)[0]
    columns = session.values.columns.model
    assert [cell["name"] for cell in cells] == [column.name for column in columns]
    assert sum(cell["low"] is not None for cell in cells) >= 3
    for cell, column, median, mean in zip(cells, columns, medians.tolist(), means.tolist(), strict=True):
        if column.kind == "categorical":
            assert cell["text"] in column.levels
            assert 0 < cell["share"] <= 1
        elif column.kind != "angle":
            s = mean if cell["low"] is None else median
            assert cell["value"] == pytest.approx(s, rel=5e-3, abs=5e-3)


@needs_node
def test_layers_below_a_moved_one_follow_as_in_the_library(tmp_path: Path) -> None:
    run, data = tiny("hierarchy")
    session = Session(run, data, most=20)
    held = json.loads(json.dumps(content(session)))
    assert len(held["below"]) == len(session.layers) - 1 == 1
    z = torch.randn(1, session.size, generator=torch.Generator().manual_seed(0)) * 2
    script = f"const z = {json.dumps(z.tolist())}; const out = [];"
    script += "for (const layer of [0, 1]) out.push((await page.decode(z, null, layer))[0].x);"
    stays, moves = answers(tmp_path, held, script + "console.log(JSON.stringify(out, plain));")
    for found, layer in ((stays, 0), (moves, 1)):
        expected = session.decoded(z, None, layer).flatten()
        torch.testing.assert_close(torch.tensor(found), expected, atol=2e-3, rtol=0)
    assert float((torch.tensor(moves) - torch.tensor(stays)).abs().max()) > 4e-3


@needs_node
@pytest.mark.parametrize("name", ["table", "conditional"])
def test_what_a_selection_shares_is_what_the_library_says(name: str, tmp_path: Path) -> None:
    """Counts of labels, and the columns or the latents that differ most."""
    run, data = tiny(name)
    session = Session(run, data, most=40)
    held = json.loads(json.dumps(content(session)))
    chosen = [0, 3, 4, 7, 11, 12]
    found = answers(tmp_path, held, f"console.log(JSON.stringify(await page.selection({chosen})));")
    expected = selection(session, chosen)
    assert found["labels"] == [{"name": one["name"], "n": one["n"]} for one in expected["labels"]]
    assert [t["name"] for t in found["traits"]] == [t["name"] for t in expected["traits"]]
    for ours, theirs in zip(found["traits"], expected["traits"], strict=True):
        for key in ("value", "rest"):
            assert numbers_of(ours[key]) == pytest.approx(numbers_of(theirs[key]), rel=2e-2, abs=1e-2)
            assert words_of(ours[key]) == words_of(theirs[key])


def numbers_of(text: str) -> list[float]:
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?", text.replace(",", ""))]


def words_of(text: str) -> str:
    return re.sub(r"[-\d.,e+]+", "", text)


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    run, data = tiny("conditional")
    path = write_web(run, tmp_path / "page", data)
    page = Elements(path.read_text(encoding="utf-8"))
    addresses = [v for _, attrs in page.found for k, v in attrs.items() if k in ("src", "href")]
    assert all(str(v).startswith("data:") for v in addresses)
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]
    held = page.json("content")
    assert held["about"]["can"]["read"] is held["about"]["can"]["film"] is False
    assert "</script><b>zero" in held["about"]["labels"]
    assert {"app.js", "map.js", "decoder.js", "static-main.js"} <= set(needed("static-main.js"))
