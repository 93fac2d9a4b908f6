"""One virtual environment per peer, made once from pinned requirements."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.contenders import OWN

HERE = Path(__file__).parent
ROOT = HERE / ".envs"


def interpreter(environment: str) -> Path:
    """The Python of an environment, which is created or renewed if its pins have changed."""
    if environment == OWN:
        return Path(sys.executable)
    requirements = HERE / f"requirements-{environment}.txt"
    folder = ROOT / environment
    stamp = folder / "installed.txt"
    if not stamp.is_file() or stamp.read_text() != requirements.read_text():
        create(folder, requirements)
        stamp.write_text(requirements.read_text())
    return folder / "bin" / "python"


def create(folder: Path, requirements: Path) -> None:
    """A fresh environment with exactly these requirements; pip's output goes to standard error."""
    print(f"creating {folder.name}'s environment (once) ...", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)]
    subprocess.run(pip, check=True, stdout=sys.stderr)
