"""How many wrong formulas the tests see: ``python -m benchmarks.mutations`` (see README.md).

A mutation changes one point of one file: a sign, a constant, an order of arguments, a missing detach. It is caught
    where a
test fails. The change is made in a copy of the repository, never in place. A survivor asks for a test of the property
that it breaks, unless no result depends on it, such as on a starting value.

The test files that run are those that mention what the changed file defines, the most telling first: a name counts the
more, the fewer test files mention it, and twice where the mutation is inside its definition.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
MATHEMATICS = ("probability", "models", "objectives", "training", "evaluation", "evidence", "use")  # those that exist
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
BOUNDS = ("clamp", "clamp_min", "clamp_max")


@dataclass(frozen=True)
class Mutation:
    """One change: the bytes from `start` to `end` of a file, relative to the repository, become `after`."""

    file: str
    line: int
    kind: str
    start: int
    end: int
    before: str
    after: str

    def applied(self, source: str) -> str:
        data = source.encode()
        return (data[: self.start] + self.after.encode() + data[self.end :]).decode()

    def __str__(self) -> str:
        return f"{self.file}:{self.line}  {self.kind}: {_short(self.before)} → {_short(self.after)}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 70 else f"{line[:34]} … {line[-34:]}"


def mutations(source: str, file: str = "") -> list[Mutation]:
    """Every mutation of a source file, in its order."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for node in _formulas(ast.parse(source)):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        before = source.encode()[start:end].decode()
        for kind, changed in variants(node):
            after = ast.unparse(changed)
            after = f"({after})" if isinstance(changed, ast.BinOp | ast.Compare | ast.UnaryOp | ast.IfExp) else after
            found.append(Mutation(file, node.lineno, kind, start, end, before, after))
    return sorted(found, key=lambda m: (m.start, m.end, m.kind, m.after))


def _formulas(node: ast.AST) -> Iterator[ast.expr]:
    """Expressions that are computed with: no annotations, errors or texts."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.expr):
        yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _formulas(child)


def variants(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """(kind, what stands in the place of `node`)."""
    match node:
        case ast.BinOp(left, op, right) if type(op) in OPERATORS:
            yield "operator", ast.BinOp(left, OPERATORS[type(op)](), right)
        case ast.Compare(left, [op], [right]) if type(op) in COMPARISONS:
            yield "comparison", ast.Compare(left, [COMPARISONS[type(op)]()], [right])
        case ast.UnaryOp(ast.USub(), operand) if not isinstance(operand, ast.Constant):
            yield "sign", operand
        case ast.Constant(bool()):
            return
        case ast.Constant(int(n)):
            yield from (("constant", ast.Constant(n + by)) for by in (-1, 1) if n + by >= 0)
        case ast.Constant(float(a)):
            yield "constant", ast.Constant(2 * a or 1.0)
        case ast.Call(ast.Attribute(of, "detach"), [], []):
            yield "detach", of
        case ast.Call(ast.Attribute(of, name)) if name in BOUNDS:
            yield "clamp", of
        case ast.Call(ast.Attribute(of, "mean"), [ast.Constant(0)], []):
            yield "mean", ast.Subscript(of, ast.Constant(0), ast.Load())
        case ast.Call(function, [a, b, *rest], keywords) if _exchangeable(a, b):
            yield "arguments", ast.Call(function, [b, a, *rest], keywords)


def _exchangeable(a: ast.expr, b: ast.expr) -> bool:
    """Whether two arguments in the other order are another call."""
    return not isinstance(a, ast.Starred) and not isinstance(b, ast.Starred) and ast.dump(a) != ast.dump(b)


def files(folders: list[str]) -> list[Path]:
    """The files of these folders, wherever below src they are."""
    source = REPOSITORY / "src"
    return sorted(p for p in source.rglob("[!_]*.py") if set(p.relative_to(source).parts) & set(folders))


def defined(source: str) -> dict[str, range]:
    """What a file defines for others to use: name → the lines of its definition."""
    nodes = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    return {n.name: range(n.lineno, (n.end_lineno or n.lineno) + 1) for n in nodes if not n.name.startswith("_")}


def relevant_tests(mutation: Mutation, words: dict[str, Counter[str]], most: int) -> list[str]:
    """At most so many test files, the likeliest to see the mutation first, from the words of each of them."""
    scores: dict[str, float] = {}
    for name, lines in defined((REPOSITORY / mutation.file).read_text(encoding="utf-8")).items():
        mentions = {test: count[name] for test, count in words.items() if count[name]}
        for test, times in mentions.items():
            weight = min(times, 5) * (2 if mutation.line in lines else 1)
            scores[test] = scores.get(test, 0.0) + weight / len(mentions)
    return sorted(scores, key=lambda test: -scores[test])[:most]


def words_of_tests() -> dict[str, Counter[str]]:
    return {
        p.relative_to(REPOSITORY).as_posix(): Counter(re.findall(r"\w+", p.read_text(encoding="utf-8")))
        for p in sorted((REPOSITORY / "tests").glob("test_*.py"))
    }


def outcome(mutation: Mutation, tests: list[str], copy: Path, limit: float) -> str:
    """Whether a test of these files fails; unknown where they do not end in `limit` seconds."""
    path = copy / mutation.file
    source = path.read_text(encoding="utf-8")
    path.write_text(mutation.applied(source), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy / "src"),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        quiet = subprocess.DEVNULL
        done = subprocess.run(command, cwd=copy, env=environment, stdout=quiet, stderr=quiet, timeout=limit)
        return "caught" if done.returncode else "SURVIVED"
    except subprocess.TimeoutExpired:
        return "unknown"
    finally:
        path.write_text(source, encoding="utf-8")


def copied(into: Path) -> Path:
    for name in ("src", "tests", "docs", "benchmarks"):
        shutil.copytree(REPOSITORY / name, into / name, ignore=shutil.ignore_patterns("__pycache__", ".envs"))
    for path in [*REPOSITORY.glob("*.md"), REPOSITORY / "pyproject.toml"]:
        shutil.copy(path, into)
    return into


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutations", description="What the tests do not see.")
    parser.add_argument("--folders", nargs="+", default=list(MATHEMATICS), help="names of folders below src")
    parser.add_argument("--only", default="", metavar="TEXT", help="mutations whose printed line holds this text alone")
    parser.add_argument("--number", type=int, default=30, help="mutations, drawn without replacement")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tests", type=int, default=6, help="test files per mutation, at most")
    parser.add_argument("--limit", type=float, default=600, help="seconds for the tests of one mutation")
    parser.add_argument("--list", action="store_true", help="print the mutations and their tests, run nothing")
    return parser.parse_args()


def main() -> None:
    options, found = parse(), []
    for path in files(options.folders):
        file = path.relative_to(REPOSITORY).as_posix()
        found += [m for m in mutations(path.read_text(encoding="utf-8"), file) if options.only in str(m)]
    chosen = random.Random(options.seed).sample(found, min(options.number, len(found)))
    words, caught, total = words_of_tests(), Counter[str](), Counter[str]()
    print(f"{len(chosen)} of {len(found)} mutations, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) if options.list else copied(Path(folder))
        for m in chosen:
            tests, begun = relevant_tests(m, words, options.tests), time.monotonic()
            if options.list:
                print(m, *tests, sep="\n    ")
                continue
            found_out = outcome(m, tests, copy, options.limit)
            for key in (m.kind, m.file.split("/")[-2], "all"):
                total[key] += found_out != "unknown"
                caught[key] += found_out == "caught"
            print(f"{found_out:8} {time.monotonic() - begun:4.0f} s  {m}", flush=True)
            if found_out != "caught":
                print("    " + " ".join(tests), flush=True)
    for key in (k for k, n in total.items() if n):
        print(f"{key:12} {caught[key]:3} / {total[key]} = {caught[key] / total[key]:.0%}")


if __name__ == "__main__":
    main()
