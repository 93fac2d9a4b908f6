"""Pages from the program itself: a line `<!-- generated: NAME -->` becomes what the function of that name returns.

Each function gives Markdown. tests/test_site.py holds them to the library, without a build.
"""

from __future__ import annotations

import ast
import inspect
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any

from docstrings import ITEM, ROOT, SECTION, public_names

PLACE = re.compile(r"(?m)^<!-- generated: ([\w-]+)(?: ([^>]*?))? -->$")
MARKUP = re.compile(r"(?<!\\)\[/?[a-z]+\]")
SOURCE = re.compile(r"\[`([\w.]+)`\]\((?:\.\./)*src/aevb/[\w/]+\.py\)")
OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)*(?:src|tests|benchmarks)/[\w./-]*)\)")
MEASURED = {"elbo": "ELBO", "reconstruction": "reconstruction", "kl": "KL", "log_likelihood": "log p(x)"}
GIVEN = ("shape", "inputs", "outputs", "image", "family", "context", "labelled", "model", "encoder")  # by the program


def api(modules: str) -> str:
    """Every public name of these modules, such as "models" or "probability.flows", from its docstring."""
    wanted = modules.split()
    below = [n for n, m in public_names().items() if any(f"{m}.".startswith(f"{w}.") for w in wanted)]
    return "```{eval-rst}\n" + "\n".join(automatic(name) for name in sorted(below, key=str.lower)) + "\n```\n"


def automatic(name: str) -> str:
    import aevb

    thing = getattr(aevb, name)
    kind = "autoexception" if inspect.isclass(thing) and issubclass(thing, BaseException) else ""
    kind = kind or ("autoclass" if inspect.isclass(thing) else "autofunction" if callable(thing) else "autodata")
    return f".. {kind}:: aevb.{name}\n"


def commands(_: str) -> str:
    """Every verb, with its arguments, options, defaults and examples."""
    import typer

    from aevb.apps.cli import app

    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return "\n".join(command(name, verbs[name]) for name in verbs)


def command(name: str, verb: Any) -> str:
    arguments = [p for p in verb.params if not p.opts[0].startswith("-")]
    usage = " ".join(["aevb", name, *(f"[{p.metavar}]" for p in arguments), "[OPTIONS]"])
    rows = [f"| {spelt(p)} | {cell(told(p))} |" for p in verb.params if not getattr(p, "hidden", False)]
    examples = [line for line in plain(verb.epilog or "").splitlines() if line.startswith("aevb")]
    table = ["| argument or option | meaning |", "|---|---|", *rows]
    shown = ["```text", usage, "```", "", plain(verb.help or ""), "", *table, "", "```text", *examples, "```"]
    return "\n".join([f"## aevb {name}", "", *shown, ""])


def spelt(parameter: Any) -> str:
    metavar = parameter.metavar or ""
    if not parameter.opts[0].startswith("-"):
        return f"`{metavar or parameter.name.upper()}`"
    return ", ".join(f"`{option}`" for option in parameter.opts) + (f" `{cell(metavar)}`" if metavar else "")


def told(parameter: Any) -> str:
    fixed = parameter.default not in (None, False, ()) and "[default" not in (parameter.help or "")
    return plain(parameter.help or "") + (f" [default: {parameter.default}]" if fixed else "")


def plain(text: str) -> str:
    """Text of the terminal without its colours."""
    lines = (MARKUP.sub("", line).strip() for line in text.replace("\\[", "\\\\[").splitlines())
    return "\n".join(lines).replace("\\\\[", "[").replace("\\[", "[")


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*")


def described(make: Any) -> dict[str, str]:
    """What a docstring says of each argument, in one line."""
    text = "\n".join(filter(None, (inspect.getdoc(make), inspect.getdoc(getattr(make, "__init__", None)))))
    found: dict[str, str] = {}
    inside, last = False, ""
    for line in text.splitlines():
        if SECTION.match(line):
            inside = line.startswith(("Args", "Attributes"))
        elif inside and line.startswith("    "):
            item = ITEM.match(line[4:])
            if item:
                last = item[1]
                found |= {name.strip(): item[2] for name in last.split(",")}
            elif last and line.strip():
                found |= {name.strip(): f"{found[name.strip()]} {line.strip()}" for name in last.split(",")}
        elif line.strip():
            inside = False
    return found


def keys_of(make: Callable[..., Any]) -> Iterator[tuple[str, str, str, str]]:
    """(key, kind of value, default, meaning) of what a table of a recipe can set of a part."""
    from aevb.runs.parts import HELD, signature
    from aevb.runs.values import kind_of

    meanings = described(make)
    for name, parameter in signature(make).items():
        kind = None if name in GIVEN else kind_of(parameter.annotation, HELD, lambda *_: None)
        if kind is not None:
            needed = parameter.default is inspect.Parameter.empty
            default = "required" if needed else written(parameter.default)
            yield name, kind.text, default, meanings.get(name, "")


def written(value: Any) -> str:
    from aevb.runs.values import ACTIVATIONS, LINKS

    words = {**{v: k for k, v in ACTIVATIONS.items()}, **{v: k for k, v in LINKS.items()}}
    if value is None:
        return "none"
    if callable(value) and value in words:
        return f'"{words[value]}"'
    if isinstance(value, bool):
        return str(value).lower()
    simple = isinstance(value, int | float | str | tuple | list)
    return (f'"{value}"' if isinstance(value, str) else str(value)) if simple else "a part's or a table's own"


def keys_table(make: Callable[..., Any]) -> str:
    rows = ["| `{}` | {} | {} | {} |".format(*map(cell, found)) for found in keys_of(make)]
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows, ""]) if rows else "No keys.\n"


def recipe_tables(_: str) -> str:
    """The tables of a recipe that are no parts: data, context, training, validation, evaluation."""
    from aevb.runs.recipe import Context, EvaluationSettings, Monitor, Source, Training

    plain_tables = {
        "data": Source,
        "context": Context,
        "training": Training,
        "validation": Monitor,
        "evaluation": EvaluationSettings,
    }
    return "\n".join(f"### `[{name}]`\n\n{keys_table(make)}" for name, make in plain_tables.items())


def recipe_parts(_: str) -> str:
    """Every part of every axis with its keys."""
    from aevb.runs.parts import AXES

    lines: list[str] = []
    for axis, parts in AXES.items():
        lines.append(f"### Axis `{axis}`\n")
        for word, make in sorted(parts.items()):
            lines += [f"#### `{axis}`: `{word}`\n", cell(about(make)), "", keys_table(make)]
    return "\n".join(lines)


def about(make: Callable[..., Any]) -> str:
    """The first paragraph of a part's docstring; of a part with some arguments fixed, that of the whole and those."""
    if isinstance(make, partial):
        fixed = ", ".join(f"{k} = {getattr(v, '__name__', v)}" for k, v in make.keywords.items())
        fixed = fixed or ", ".join(getattr(v, "__name__", str(v)) for v in make.args)
        return f"{about(make.func)} With {fixed}."
    return (inspect.getdoc(make) or "").split("\n\n")[0]


def recipes(_: str) -> str:
    """Every recipe under its equation, by kind."""
    from aevb.apps.lists import grouped

    lines: list[str] = []
    for name, title, paper in grouped():
        if name and not title:
            lines += [f"## {name.capitalize()}", ""]
        elif name:
            about = f"{cell(title)}. Paper: {cell(paper)}."
            lines += [f"### `{name}`", "", about, "", *shown(name), "", recipe(name), ""]
    return "\n".join(lines)


@cache
def pictures() -> dict[str, Any]:
    """What `python -m benchmarks.gallery` found: a picture and numbers of each recipe."""
    found: dict[str, Any] = json.loads((ROOT / "docs" / "images" / "gallery" / "gallery.json").read_text("utf-8"))
    return found


def shown(name: str) -> list[str]:
    """A recipe's samples and its bound on digits; or why there are none."""
    found = pictures()["recipes"][name]
    if "reason" in found:
        return [f"No picture: {cell(found['reason'])}"]
    numbers = ", ".join(f"{word} {estimate(found[key])}" for key, word in MEASURED.items() if key in found)
    what = "; given its label" if found["given_labels"] else ""
    what += "; no density, as grey levels stand for bits" if found["relaxed"] and "elbo" in found else ""
    if "log_likelihood" in found:
        numbers += f" by {found['importance_samples']} importance samples,"
    picture = f"![24 samples of the recipe {name} on digits.](../images/gallery/{name}.png)"
    return [picture, "", f"On digits ({found['values']}{what}): {numbers} in nats per row."]


def estimate(found: dict[str, float]) -> str:
    return f"{found['mean']:.2f} ± {found['se']:.2f}".replace("-", "−")


def recipe(name: str) -> str:
    from aevb.runs.index import recipe_text

    text = recipe_text(name)
    equation = [line.removeprefix("#").removeprefix(" ") for line in text.splitlines() if line.startswith("#")]
    rest = [line for line in text.splitlines() if not line.startswith("#")]
    return "\n".join(["```text", *equation, "```", "", "```toml", *rest, "```"])


def table_rows() -> dict[str, str]:
    """The label of every row of every table of numbers, and the unit that stands beside it."""
    lines: dict[str, str] = {}
    for path in sorted((ROOT / "src" / "aevb" / "evaluation").rglob("*.py")):
        for label, unit in re.findall(r'Line\(\s*"[^"]*",\s*"([^"]*)",\s*"([^"]*)"', path.read_text(encoding="utf-8")):
            lines.setdefault(label.strip(), unit)
    return {**lines, "active units": "latents with Cov E[z|x] > 0.01 of the prior's variance"}


def messages(_: str) -> str:
    """Every message of an error or a warning in the source, with … for what is filled in, by its file."""
    lines: list[str] = []
    for path in sorted((ROOT / "src" / "aevb").rglob("*.py")):
        found = sorted(set(raised(ast.parse(path.read_text(encoding="utf-8")))))
        if found:
            rows = [f"| {kind} | {cell(text)} |" for text, kind in found]
            lines += [f"## {path.relative_to(ROOT / 'src')}", "", "| kind | message |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def raised(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(message, kind) of what a file raises with AevbError's classes, ValueError or TypeError, or warns of."""
    for node in ast.walk(tree):
        call = node.exc if isinstance(node, ast.Raise) else node if isinstance(node, ast.Call) else None
        if isinstance(call, ast.Call) and call.args:
            kind = ast.unparse(call.func).split(".")[-1]
            text = template(call.args[0])
            if kind in ("warn", *KINDS) and len(text) > 12 and text.strip("… ."):
                yield text, "warning" if kind == "warn" else kind


KINDS = ("DataError", "RecipeError", "RunError", "ShapeError", "TrainingDiverged", "NoLikelihood", "ValueError")


def template(node: ast.expr) -> str:
    """The constant words of a text; what is filled in is …"""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    return "…"


def page(name: str) -> str:
    """A page of the repository's root, with its links as seen from docs/develop."""
    text = (ROOT / name).read_text(encoding="utf-8")
    moved = {"docs/": "../", "CHANGELOG.md": "changelog.md", "src/": "../../src/", "tests/": "../../tests/"}
    for path, here in moved.items():
        text = text.replace(f"]({path}", f"]({here}")
    return text


GENERATORS: dict[str, Callable[[str], str]] = {
    "api": api,
    "commands": commands,
    "messages": messages,
    "page": page,
    "recipe-tables": recipe_tables,
    "recipe-parts": recipe_parts,
    "recipes": recipes,
}


def filled(text: str) -> str:
    """The text of a page with its generated parts in place."""
    return PLACE.sub(lambda m: GENERATORS[m[1]](m[2] or ""), text)


def linked(text: str) -> str:
    """Links to a symbol's file as links to its page of the API; to files outside the site, as their paths."""

    def to_symbol(match: re.Match[str]) -> str:
        known = match[1].split(".")[0] in public_names()
        return f"{{py:obj}}`{match[1]} <aevb.{match[1]}>`" if known else f"`{match[1]}`"

    return OUTSIDE.sub(named, SOURCE.sub(to_symbol, text)).replace("](../README.md)", "](index.md)")


def named(match: re.Match[str]) -> str:
    path = posixpath.normpath(match[2]).lstrip("./")
    words = match[1].replace("`", "").replace("\\", "")
    return f"`{path}`" if posixpath.basename(path).startswith(words) else f"{match[1]} (`{path}`)"


def skipped(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """What scikit-learn adds to every estimator for the routing of metadata is not of this library."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def on_read(app: Any, page: str, source: list[str]) -> None:
    source[0] = linked(filled(source[0]))


def names_in(pages: Iterable[str]) -> set[str]:
    """The generated parts that pages ask for, as 'name argument'."""
    return {" ".join(filter(None, found)).strip() for text in pages for found in PLACE.findall(text)}


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", on_read)
    app.connect("autodoc-skip-member", skipped)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
