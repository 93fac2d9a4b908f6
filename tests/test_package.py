"""What is in a wheel and in a source distribution: all that is needed, nothing else."""

from __future__ import annotations

import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import aevb
from aevb.runs.recipe import recipe_names

build = pytest.importorskip("hatchling.build")

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "aevb"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MADE = ("__pycache__", ".pyc", "_build", ".ipynb_checkpoints", ".so", ".pt", ".pkl")  # by a machine, never shipped


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_a_wheel_holds_the_whole_package_and_no_tests(at_root: None, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / build.build_wheel(str(tmp_path))) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(f"aevb-{aevb.__version__}.dist-info/METADATA").decode()
        entry = wheel.read(f"aevb-{aevb.__version__}.dist-info/entry_points.txt").decode()
    source = {f"aevb/{p.relative_to(PACKAGE).as_posix()}" for p in PACKAGE.rglob("*") if p.is_file()}
    assert {name for name in names if "dist-info" not in name} == {n for n in source if not any(m in n for m in MADE)}
    assert {f"aevb/runs/recipes/{name}.toml" for name in recipe_names()} <= names
    assert {"aevb/__init__.pyi", "aevb/py.typed", "aevb/apps/pages/static/decoder.js"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "aevb = aevb.apps.cli:main" in entry
    assert f"Name: aevb\nVersion: {aevb.__version__}\n" in metadata
    assert {f"Provides-Extra: {extra}" for extra in PROJECT["optional-dependencies"]} <= set(metadata.splitlines())


def test_a_source_distribution_holds_tests_and_pages_and_nothing_made(at_root: None, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / build.build_sdist(str(tmp_path))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        size = sum(member.size for member in archive.getmembers())
    wanted = ["README.md", "README.ko.md", "CHANGELOG.md", "CONTRIBUTING.md", "AGENTS.md", "llms.txt", "CITATION.cff"]
    wanted += [
        "LICENSE",
        "constraints.txt",
        "pyproject.toml",
        "docs/conf.py",
        "docs/_ext/generated.py",
        "docs/index.md",
    ]
    wanted += ["tests/oracle.py", "tests/test_package.py", "src/aevb/__init__.pyi", "docs/ko/vae-from-zero.md"]
    assert set(wanted) - names == set()
    assert [name for name in names if any(made in name for made in MADE)] == []
    assert [name for name in names if name.split("/")[0] in ("runs", "shared", "build", ".ci", ".venv")] == []
    assert size < 40e6


def test_the_citation_and_the_package_say_the_same() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {aevb.__version__}\n" in citation
    assert PROJECT["version"] == aevb.__version__
    assert f"license: {PROJECT['license']}\n" in citation
    assert f"name: {PROJECT['authors'][0]['name']}\n" in citation
