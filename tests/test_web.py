"""The explorer without a server: one page that loads nothing, whose backend answers as the library does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import NODE, STATIC, needs_node, tiny
from test_report import Elements

from aevb.apps.explorer.session import Session
from aevb.apps.export.web import content, write_web
from aevb.apps.pages.bundle import needed
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
    run, data = tiny("table")
    session = Session(run, data, most=20)
    held = json.loads(json.dumps(content(session)))
    cells = answers(tmp_path, held, "console.log(JSON.stringify((await page.decode([[0, 0]]))[0].cells));")
    with torch.no_grad():
        p = session.model.decode(torch.zeros(1, 2))
        stored = session.values.columns.inverse(p.mean)[0]
    columns = session.values.columns.model
    assert [cell["name"] for cell in cells] == [column.name for column in columns]
    for cell, column, s in zip(cells, columns, stored.tolist(), strict=True):
        if column.kind == "categorical":
            assert cell["text"] in column.levels
            assert 0 < cell["share"] <= 1
        elif column.kind != "angle":
            assert cell["value"] == pytest.approx(s, rel=5e-3, abs=5e-3)


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
