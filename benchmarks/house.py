"""The structure of the code in numbers, each with its evidence: the table of docs/design.md.

    python benchmarks/house.py [CHECKOUT] [--rows]

CHECKOUT is the root of a checkout, by default this one; a worktree of an older commit gives the numbers before a
change. `--rows` prints the places that each number counts.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.Assert, ast.comprehension)
MOST_ARGUMENTS, MOST_BRANCHES = 6, 10
AXES = r"prior|posterior|likelihood|objective|terms?|hierarch|ladder|chain|latents|decoder|encoder|context|gradient"
REMEDY = r"\b(Take|take|Choose|Leave|leave out|needs? |takes? no|not with|not supported|is for|requires|cannot)\b"
ENCODES = """
import torch, aevb
torch.manual_seed(0)
n, seen = 300, []
q, p = aevb.Normal(2), aevb.Bernoulli(6)
encoder, decoder = aevb.Conditional(torch.nn.Linear(6, 4), q), aevb.Conditional(torch.nn.Linear(2, 6), p)
model = aevb.VAE(aevb.StandardNormal(2), encoder, decoder)
model.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
aevb.evaluate(model, (torch.rand(n, 6) < 0.5).float(), importance_samples=5)
print(round(sum(seen) / n, 2))
"""


@dataclass(frozen=True)
class Found:
    """A number, and the places that it counts."""

    name: str
    value: str
    places: list[str]


@dataclass(frozen=True)
class File:
    path: Path
    text: str
    tree: ast.Module

    @property
    def paper(self) -> bool:
        return "reproduce" in self.path.parts or "paper" in self.path.parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--rows", action="store_true")
    options = parser.parse_args()
    for found in measured(options.checkout):
        print(f"{found.name:<76}{found.value:>10}")
        for place in found.places if options.rows else ():
            print(f"    {place}")


def measured(root: Path) -> Iterator[Found]:
    home = root / "src" / "aevb"
    files = [read(path, home) for path in sorted(home.rglob("*.py*")) if path.suffix in (".py", ".pyi")]
    own = [file for file in files if not file.paper]
    lines = sum(file.text.count("\n") for file in own)
    family = mentions(files, r"\b[Ww]eibull\b", but=("probability/reparameterized.py", "probability/distributions.py"))
    yield Found("registries to touch for a new family (tables that name Weibull)", str(len(family)), family)
    report = sorted(
        {place.split(":")[0] for place in mentions(files, r"\bsurgery\b|\bSurgery\b") if "__init__" not in place}
    )
    yield Found("files to touch for a new report (files that name surgery)", str(len(report)), report)
    refusals = [place for file in own for place in refusing(file)]
    yield Found("raise that refuse a part because of another part", str(len(refusals)), refusals)
    functions = [(file, node) for file in own for node in ast.walk(file.tree) if isinstance(node, ast.FunctionDef)]
    many = [at(file, node) for file, node in functions if arguments(node) > MOST_ARGUMENTS and not command(file, node)]
    yield Found("functions with more than six arguments, commands not counted", str(len(many)), many)
    deep = [f"{at(file, node)} {complexity(node)}" for file, node in functions if complexity(node) > MOST_BRANCHES]
    yield Found("functions of a cyclomatic complexity above 10", str(len(deep)), deep)
    checks = [at(file, node) for file in own for node in ast.walk(file.tree) if calls(node, "isinstance")]
    yield Found("isinstance calls per 1,000 lines", f"{1000 * len(checks) / lines:.1f}", checks)
    yield Found("encodings of a data point in one evaluate", encodes(root), [])
    yield Found("lines of src/ without the experiments of the paper", f"{lines:,}", [])


def read(path: Path, home: Path) -> File:
    text = path.read_text(encoding="utf-8")
    return File(path.relative_to(home), text, ast.parse(text))


def mentions(files: list[File], pattern: str, but: tuple[str, ...] = ()) -> list[str]:
    """FILE:LINE of code that names something; docstrings and comments do not count."""
    found = []
    for file in files:
        if file.path.as_posix() in but:
            continue
        told = {line for node in ast.walk(file.tree) for line in docstring(node) or ()}
        for number, line in enumerate(file.text.splitlines(), 1):
            if number not in told and re.search(pattern, line.partition("  #")[0]):
                found.append(f"{file.path}:{number}: {line.strip()[:90]}")
    return found


def docstring(node: ast.AST) -> range | None:
    body = getattr(node, "body", None)
    first = body[0] if isinstance(body, list) and body else None
    told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return range(first.lineno, (first.end_lineno or first.lineno) + 1) if told else None


def refusing(file: File) -> Iterator[str]:
    """The `raise` statements whose message names an axis of parts and what to take instead."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            words = " ".join(
                n.value for n in ast.walk(node.exc) if isinstance(n, ast.Constant) and isinstance(n.value, str)
            )
            if re.search(AXES, words) and re.search(REMEDY, words):
                yield f"{at(file, node)}: {words[:100]}"


def arguments(node: ast.FunctionDef) -> int:
    a = node.args
    named = [*a.posonlyargs, *a.args, *a.kwonlyargs]
    return len(named) - (bool(named) and named[0].arg in ("self", "cls"))


def command(file: File, node: ast.FunctionDef) -> bool:
    """Whether it is a command of the command line, whose arguments are options.

    Such a function of `aevb.apps` is declared by `@verb(...)` or, in older commits, by `@app.command(...)`.
    """
    called = [d.func for d in node.decorator_list if isinstance(d, ast.Call)]
    return "apps" in file.path.parts and any(ast.unparse(f) in ("verb", "app.command") for f in called)


def complexity(node: ast.FunctionDef) -> int:
    """1 + branches, after McCabe 1976: each condition, loop, handler and further operand of `and` and `or`."""
    inner = {n for f in ast.walk(node) if isinstance(f, ast.FunctionDef) and f is not node for n in ast.walk(f)}
    own = [n for n in ast.walk(node) if n not in inner]
    operands = sum(len(n.values) - 1 for n in own if isinstance(n, ast.BoolOp))
    cases = sum(isinstance(n, ast.match_case) for n in own)
    conditions = sum(len(n.ifs) for n in own if isinstance(n, ast.comprehension))
    return 1 + sum(isinstance(n, BRANCHES) for n in own) + operands + cases + conditions


def calls(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def encodes(root: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    return subprocess.run(
        [sys.executable, "-c", ENCODES], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def at(file: File, node: ast.stmt | ast.expr | ast.AST) -> str:
    name = f" {node.name}" if isinstance(node, ast.FunctionDef) else ""
    return f"{file.path}:{node.lineno}{name}"


if __name__ == "__main__":
    main()
