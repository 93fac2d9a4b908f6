"""``python -m benchmarks.workers MODULE TASK``: started by benchmarks.measure, once per contender."""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

from benchmarks.workers.protocol import Job, claim_stdout


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("task")
    parser.add_argument("--variant", default="")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--samples", type=int, default=0)
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()


def use_processors(count: int) -> None:
    """Confine this process to ``count`` processors: jax has no thread setting of its own and follows this one."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def main() -> None:
    channel = claim_stdout()
    options = parse()
    use_processors(options.threads)
    job = Job(options.variant, options.data_dir, options.images, options.samples, channel)
    worker = importlib.import_module(f"benchmarks.workers.{options.module}_worker")
    getattr(worker, options.task)(job)


if __name__ == "__main__":
    main()
