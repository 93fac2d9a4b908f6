"""Loading a file costs the memory of what is kept of it, and no second copy: measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

MEASURE = """
import sys
from pathlib import Path

def memory(word):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(word)).split()[1]) * 1024

from aevb.data.sources import load_data
load_data("digits"), load_data(sys.argv[2])  # all that is imported at first use
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = memory("VmRSS")
data = load_data(sys.argv[1])
print(memory("VmHWM") - before, sum(part.stored.nbytes for part in (data.train, data.validation, data.test)))
"""


def peak(path: Path) -> tuple[int, int]:
    """Bytes at the peak of loading a file, and bytes that are kept of it."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of memory is read from Linux's /proc")
    small = path.with_name("small" + path.suffix)
    save(small, np.arange(24.0).reshape(8, 3) ** 2)
    out = subprocess.run([sys.executable, "-c", MEASURE, str(path), str(small)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    most, kept = map(int, out.stdout.split())
    return most, kept


def save(path: Path, x: np.ndarray) -> None:
    np.save(path, x) if path.suffix == ".npy" else np.savez_compressed(path, x=x)


@pytest.mark.parametrize(("suffix", "dtype"), [(".npy", np.float32), (".npy", np.float64), (".npz", np.uint8)])
def test_a_file_costs_at_most_its_size_and_a_fifth(tmp_path: Path, suffix: str, dtype: type) -> None:
    size = 100_000_000  # beside which a few megabytes of pieces in flight are small
    shape = (size // 3072 // np.dtype(dtype).itemsize, *((3, 32, 32) if dtype == np.uint8 else (3072,)))
    x = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    x[0] += 0 if dtype == np.uint8 else dtype(0.25)
    save(tmp_path / f"x{suffix}", x)
    most, kept = peak(tmp_path / f"x{suffix}")
    assert kept == x.nbytes // (2 if dtype == np.float64 else 1)
    assert most <= 1.2 * size
