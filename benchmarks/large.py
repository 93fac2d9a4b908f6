"""A data set of a given size, trained in memory and from disk: anonymous memory, and the ratio of speeds.

    python benchmarks/large.py            # 1 GB
    python benchmarks/large.py --gb 4

Needs as much disk again as the set has, in TMPDIR or /var/tmp. Each training is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

FEATURES, BLOCK = 1024, 10_000
FIELD = "RssAnon:"


def write(path: Path, size: float) -> int:
    """A .npy of float32 of so many bytes, block by block; the number of its rows."""
    rows = int(size / 4 / FEATURES)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (rows, FEATURES))
    random = np.random.default_rng(0)
    axes = random.standard_normal((8, FEATURES), np.float32)
    for start in range(0, rows, BLOCK):
        part = out[start : start + BLOCK]
        part[:] = random.standard_normal((len(part), 8), np.float32) @ axes
        part += random.standard_normal(part.shape, np.float32)
    out.flush()
    return rows


def anonymous() -> float:
    """MB of memory of this process that no file holds."""
    words = Path("/proc/self/status").read_text().split()
    return float(words[words.index(FIELD) + 1]) / 1e3


def measure(path: Path, folder: Path, samples: int) -> dict[str, float]:
    """Read the set and train on it: seconds of either, and the most anonymous memory."""
    import aevb

    peak, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], anonymous())

    imported = anonymous()
    threading.Thread(target=look, daemon=True).start()
    begun = time.perf_counter()
    data = aevb.load_data(path)
    read = time.perf_counter() - begun
    recipe = aevb.Recipe.load("gaussian").replace(training__samples=samples, training__batch=100)
    run = aevb.fit(recipe, data, folder)
    over.set()
    return {"read": read, "seconds": run.meta["seconds"], "imported": imported, "peak": peak[0]}


def in_process(path: Path, folder: Path, samples: int, limit: float) -> dict[str, float]:
    """As `measure`, with so many MB of rows in memory."""
    words = [sys.executable, __file__, "--measure", str(path), str(folder), str(samples)]
    env = {**os.environ, "AEVB_MEMORY_MB": str(limit)}
    found = subprocess.run(words, env=env, stdout=subprocess.PIPE, text=True, check=True)
    numbers: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        path, folder, samples = asked.measure
        print(json.dumps(measure(Path(path), Path(folder), int(samples))))
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        place = Path(name)
        rows = write(place / "large.npy", asked.gb * 1e9)
        print(f"{asked.gb:g} GB, {rows:,} rows of {FEATURES} float32; {asked.samples:,} training samples")
        rates = {}
        for where, limit in (("disk", 0.0), ("memory", 1e9)):
            found = in_process(place / "large.npy", place / where, asked.samples, limit)
            rates[where] = asked.samples / found["seconds"]
            print(
                f"{where:6}  read {found['read']:6.1f} s   {rates[where]:8,.0f} samples/s   anonymous memory "
                f"{found['peak']:7,.0f} MB at most ({found['imported']:,.0f} MB before the data)"
            )
        print(f"speed from disk: {rates['disk'] / rates['memory']:.2f} of that in memory; one run each, no spread")


if __name__ == "__main__":
    main()
