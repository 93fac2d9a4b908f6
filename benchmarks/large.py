"""A data set of a given size, trained in memory and from disk: anonymous memory, and the ratio of speeds.

    python benchmarks/large.py                    # 1 GB
    python benchmarks/large.py --gb 4 --rounds 3
    python benchmarks/large.py --cold             # no row of the file is in the system's cache at the start

Needs as much disk again as the set has, in TMPDIR or /var/tmp. Each training is a process of its own; in a round each
way has its turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

FEATURES, BLOCK = 1024, 10_000
FIELD = "RssAnon:"
WAYS = {"disk": 0.0, "memory": 1e9}  # MB of rows in memory


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


class Maps:
    """The files in which rows are kept, to be put out of the system's cache."""

    def __init__(self) -> None:
        self.made: list[tuple[int, Any]] = []

    def mapped(self, folder: Path, shape: Any, dtype: Any) -> Any:
        """As `aevb.data.room.mapped`."""
        with tempfile.TemporaryFile(dir=folder) as file:
            self.made.append((os.dup(file.fileno()), np.memmap(file, dtype, "w+", shape=tuple(shape))))
        return self.made[-1][1]

    def forget(self) -> None:
        import mmap

        for number, rows in self.made:
            rows.flush()
            rows._mmap.madvise(mmap.MADV_DONTNEED)
            os.fsync(number)
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)


def measure(path: Path, folder: Path, samples: int, cold: bool) -> dict[str, float]:
    """Read the set and train on it: seconds of either, and the most anonymous memory."""
    import aevb
    from aevb.data import room
    from aevb.training import train

    peak, over, maps = [0.0], threading.Event(), Maps()
    if cold:  # at the first step, since all rows are checked before
        room.mapped, begin = maps.mapped, train.Alone.__init__
        train.Alone.__init__ = lambda *words: (maps.forget(), begin(*words))[1]

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


def in_process(path: Path, folder: Path, asked: Any, way: str) -> dict[str, float]:
    """As `measure`, in a way."""
    words = [sys.executable, __file__, "--measure", str(path), str(folder), str(asked.samples)]
    env = {**os.environ, "AEVB_MEMORY_MB": str(WAYS[way])}
    found = subprocess.run(
        [*words, *(["--cold"] if asked.cold else [])], env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    numbers: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return numbers


def compare(place: Path, asked: Any) -> None:
    """Train in each way, round after round, and print the speeds."""
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(asked.rounds):
        for way in WAYS:
            found = in_process(place / "large.npy", place / f"{way}-{turn}", asked, way)
            rates[way].append(asked.samples / found["seconds"])
            print(
                f"{way:6}  read {found['read']:6.1f} s   {rates[way][-1]:8,.0f} samples/s   anonymous memory "
                f"{found['peak']:7,.0f} MB at most ({found['imported']:,.0f} MB before the data)",
                flush=True,
            )
    ratios = [a / b for a, b in zip(rates["disk"], rates["memory"], strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds"
    print(f"speed from disk: {statistics.median(ratios):.2f} of that in memory, the median; {spread}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--cold", action="store_true", help="put the rows out of the system's cache before the training"
    )
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        path, folder, samples = asked.measure
        print(json.dumps(measure(Path(path), Path(folder), int(samples), asked.cold)))
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        place = Path(name)
        rows = write(place / "large.npy", asked.gb * 1e9)
        print(f"{asked.gb:g} GB, {rows:,} rows of {FEATURES} float32; {asked.samples:,} training samples")
        compare(place, asked)


if __name__ == "__main__":
    main()
