"""The floors of docs/design.md §2: imports only point down, and `import aevb` is instant."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import aevb

ROOT = Path(aevb.__file__).parent
FLOORS = [
    *("errors", "parts", "notation", "probability", "data", "models", "objectives", "evidence", "use", "evaluation"),
    *("training", "runs", "figures", "reproduce", "apps", "estimators", "__main__"),
]
HOMES = {  # public name: its file
    node.names[0].name: str(node.module)
    for node in ast.parse((ROOT / "__init__.pyi").read_text()).body
    if isinstance(node, ast.ImportFrom)
}
FILES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in sorted(ROOT.rglob("*.py"))}


def imports(name: str) -> set[str]:
    """The files of aevb that one of them imports, wherever in it; a name taken from aevb itself counts as its home."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: write 'from aevb...', as everywhere else"
            homes = HOMES if node.module == "aevb" else {}
            found |= {f"aevb.{homes[a.name]}" if a.name in homes else f"{node.module}.{a.name}" for a in node.names}
    return {f for f in map(file_of, found) if f} - {name}


def file_of(module: str) -> str | None:
    """'aevb.models.vae.VAE' → 'models.vae'; None for another package's."""
    parts = module.split(".")
    if parts[0] != "aevb":
        return None
    names = [".".join(parts[1:n]) for n in range(len(parts), 1, -1)]
    return next((f for n in names for f in (n, f"{n}.__init__") if f in FILES), None)


def test_imports_point_to_lower_floors() -> None:
    up = [
        f"{name} imports {other}"
        for name in FILES
        if name != "__init__"
        for other in imports(name)
        if FLOORS.index(other.split(".")[0]) > FLOORS.index(name.split(".")[0])
    ]
    assert not up


def test_no_import_goes_round_in_a_circle() -> None:
    graph = {name: imports(name) for name in FILES if name != "__init__"}
    assert len(graph) > 10
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_the_tests_can_see_imports() -> None:
    """So that an empty graph does not pass for a clean one."""
    assert {"models.trace", "objectives.schedules"} <= imports("objectives.bounds")
    assert file_of("aevb.models") == "models.__init__"
    assert file_of("aevb.probability.distributions.Delta") == "probability.distributions"
    assert file_of("torch.nn") is None


def test_importing_aevb_imports_no_torch() -> None:
    code = "import sys, aevb; print([m for m in ('torch', 'numpy', 'sklearn', 'matplotlib') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("name", aevb.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(aevb, name) is not None
    assert name in dir(aevb)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="aevb attribute Vae"):
        _ = aevb.Vae
