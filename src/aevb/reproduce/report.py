"""All experiments on one page of HTML, with everything in it: it can be mailed."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from aevb.errors import RunError
from aevb.runs.files import write_text

STYLE = """
:root { --ink: #1c1f24; --grey: #5c636e; --faint: #e4e7ec; --paper: #ffffff; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--paper); font: 16px/1.55 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2.5rem 1.5rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; margin: 3.5rem 0 .4rem; padding-top: 1.2rem; border-top: 1px solid var(--faint); }
p.about { color: var(--grey); max-width: 75ch; }
nav a { margin-right: 1.1rem; color: var(--accent); text-decoration: none; }
nav a:hover { text-decoration: underline; }
ul.findings { max-width: 90ch; padding-left: 1.2rem; }
ul.findings li { margin: .35rem 0; }
img { display: block; max-width: 100%; height: auto; margin: 1.2rem 0; border: 1px solid var(--faint);
  border-radius: 4px; }
.table { overflow-x: auto; margin: .6rem 0 1.2rem; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--grey); font-weight: 600; border-bottom: 1px solid var(--grey); }
th, td { padding: .22rem .9rem .22rem 0; white-space: nowrap; }
td.number { text-align: right; }
tr + tr td { border-top: 1px solid var(--faint); }
summary { cursor: pointer; color: var(--accent); margin: .6rem 0; }
pre { font-size: .75rem; background: #f6f7f9; padding: 1rem; overflow-x: auto; border-radius: 4px; }
footer { margin-top: 4rem; color: var(--grey); font-size: .85rem; }
"""


def write_report(out: Path) -> Path:
    """Collect the experiments in a folder of `aevb reproduce` into out/report.html.

    Raises:
        RunError: there are none.
    """
    folders = sorted(p.parent for p in out.glob("*/settings.json"))
    if not folders:
        raise RunError(f"There are no experiments in {out} yet. Begin with: aevb reproduce figure-2 --budget 1e5")
    sections = [(folder, json.loads((folder / "settings.json").read_text(encoding="utf-8"))) for folder in folders]
    links = "".join(f'<a href="#{f.name}">{escape(f.name)}</a>' for f, _ in sections)
    body = "".join("".join(_section(folder, about)) for folder, about in sections)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Experiments with variational autoencoders, rerun</title><style>{STYLE}</style></head><body><main>"
        "<h1>Experiments with variational autoencoders, rerun</h1>"
        '<p class="about">Trained again, and compared with the published numbers where there are any: experiments of '
        "Kingma &amp; Welling 2013 (arXiv 1312.6114), and of another paper where a section names one. "
        f"All bounds are in nats per data point.</p><nav>{links}</nav>{body}"
        "<footer>Written by <code>aevb reproduce report</code>.</footer></main></body></html>"
    )
    write_text(out / "report.html", page)
    return out / "report.html"


def _section(folder: Path, about: dict[str, Any]) -> Iterator[str]:
    yield f'<section id="{escape(folder.name)}"><h2>{escape(about["title"])}</h2>'
    yield f'<p class="about">{escape(about["about"])}</p>'
    yield f'<ul class="findings">{"".join(f"<li>{escape(line)}</li>" for line in about["findings"])}</ul>'
    for picture in sorted(folder.glob("*.png")):
        data = base64.b64encode(picture.read_bytes()).decode()
        yield f'<img alt="{escape(picture.stem)}" src="data:image/png;base64,{data}">'
    for table in sorted(folder.glob("*.csv")):
        yield f"<details><summary>{escape(table.name)}</summary>{_table(table)}</details>"
    settings = escape(json.dumps(about["curves"], indent=1, ensure_ascii=False))
    yield f"<details><summary>settings of every curve</summary><pre>{settings}</pre></details></section>"


def _table(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as lines:
        head, *rows = list(csv.reader(lines)) or [[]]
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str) -> str:
    try:
        float(text)
    except ValueError:
        return f"<td>{escape(text)}</td>"
    return f'<td class="number">{escape(text)}</td>'
