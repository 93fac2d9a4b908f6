"""What the verbs data and train say and ask of a table: its columns, their kinds, a file of kinds to edit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aevb.apps import show
from aevb.errors import DataError

HEAD = """\
# The columns of {name}, each with its kind; change a kind after the sign =.
# Kinds: {kinds}.
# What is constant, id or text is kept in the table, and not modelled.
# "count:NAME" is a count over the exposure in the column NAME, such as days.
# Use it with: aevb train {name} --schema {file}
"""


def kinds_asked(columns: Sequence[str] | None, schema: Path | None = None) -> dict[str, str]:
    """The kinds that --column NAME=KIND and a file of --schema ask for; the former win.

    Raises:
        DataError: an option is no NAME=KIND, or the file holds no kinds.
    """
    asked = read_kinds(schema) if schema is not None and schema.exists() else {}
    for text in columns or ():
        name, equals, kind = text.rpartition("=")
        if not equals or not name:
            raise DataError(f"--column {text!r}: write NAME=KIND, such as age=count.")
        asked[name.strip()] = kind.strip()
    return asked


def assignment(asked: Mapping[str, str]) -> list[str]:
    """The assignment to a recipe that these kinds stand for."""
    inside = ", ".join(f"{json.dumps(name)} = {json.dumps(kind)}" for name, kind in asked.items())
    return [f"data.columns={{{inside}}}"] if asked else []


def read_kinds(path: Path) -> dict[str, str]:
    """The kinds of columns in a TOML or JSON file, as `write_kinds` writes it.  DataError: it holds none."""
    import tomllib

    from aevb.data.damage import reading

    with reading(path, "a file of kinds"):
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    kinds = content.get("columns", content) if isinstance(content, dict) else None
    if not isinstance(kinds, dict) or not all(isinstance(kind, str) for kind in kinds.values()):
        raise DataError(f'{path}: a table [columns] with lines such as "age" = "count" is needed.')
    return kinds


def write_kinds(path: Path, source: str, columns: Sequence[Mapping[str, Any]]) -> None:
    """A file of the kinds of columns, to be edited: JSON by its suffix, else TOML with the reasons as comments."""
    from aevb.data.columns import KINDS

    kinds = {column["name"]: column["asked"] for column in columns}
    if path.suffix.lower() == ".json":
        path.write_text(json.dumps({"columns": kinds}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    lines = [HEAD.format(name=source, file=path, kinds=", ".join(KINDS)), "[columns]"]
    for column in columns:
        name = json.dumps(column["name"], ensure_ascii=False)
        lines.append(
            f"{name} = {json.dumps(column['asked'], ensure_ascii=False)}  # {' '.join(str(column['why']).split())}"
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def look_into(source: str, asked: Mapping[str, str], schema: Path | None, json_: bool) -> None:
    """Print the columns of a table: kind, likelihood, why, holes; write the file of kinds if there is none yet."""
    from aevb.data.tabular import described

    found = described(source, asked)
    if schema is not None and not schema.exists():
        write_kinds(schema, source, found["columns"])
        show.note(f"The kinds are in {show.escaped(str(schema))}: edit them, and give it to --schema again.")
    if json_:
        show.print_json(found)
        return
    for note in found["notes"]:
        show.out.print(note)
    shown = ("name", "kind", "likelihood", "why", "holes")
    rows = [
        [column[key] or "–" if key != "holes" else f"{column[key]:,}" for key in shown] for column in found["columns"]
    ]
    show.out.print(show.table("", ("column", *shown[1:]), rows))
    show.out.print(f"\n{found['rows']:,} rows. Change a kind with --column NAME=KIND: aevb train {source} --column ...")
