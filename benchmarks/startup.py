"""How long `aevb train digits` takes to its first line, beside PyTorch's own import.

    python benchmarks/startup.py [REPEATS]

Each of REPEATS (5) processes is timed alone, in turn: `import torch`, then the command line to its first line. Prints
the medians of both in seconds, of the wall and of the processor, and their difference, of which 0.6 s is the aim.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

TORCH = "import torch"
FIRST = """
import os, sys
from aevb.apps import show
def stop(text): report(); os._exit(0)
show.note = stop
from aevb.apps.cli import main
sys.argv = ["aevb", "train", "digits"]
main()
"""
TIMED = """
import time, sys
wall = time.perf_counter()
def report():
    print(time.perf_counter() - wall, time.process_time(), flush=True)
{}
report()
"""
AIM = 0.6


def timed(code: str) -> tuple[float, float]:
    """Seconds of the wall, and of the processor, that a new process takes."""
    found = subprocess.run([sys.executable, "-c", TIMED.format(code)], capture_output=True, text=True, check=True)
    wall, processor = map(float, found.stdout.split())
    return wall, processor


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    pairs = [(timed(TORCH), timed(FIRST)) for _ in range(repeats)]
    print(f"{'':12}{'torch':>9}{'first line':>12}{'difference':>12}   aim {AIM}")
    for i, name in enumerate(("wall", "processor")):
        torch, first = (statistics.median(pair[which][i] for pair in pairs) for which in (0, 1))
        print(f"{name:12}{torch:9.2f}{first:12.2f}{first - torch:12.2f}   seconds, median of {repeats}")


if __name__ == "__main__":
    main()
