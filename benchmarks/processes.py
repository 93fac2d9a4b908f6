"""The speed of one training over the number of processes that share its minibatches.

    python -m benchmarks.processes --processes 1 2 --rounds 3

Each training is a command of its own, `torchrun --nproc-per-node P -m aevb train mnist ...`, one thread each; P = 0 is
`aevb train` without torchrun, by as many threads as there are processor cores. Seconds are those that the run says of
its training, without the start of the processes, the evaluation and the figures. A ratio is to one process in the same
round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

WIDE = ("--set", "encoder.hidden=[2000,2000]", "--set", "decoder.hidden=[2000,2000]")
MODELS = {  # words of `aevb train`
    "paper": ["--recipe", "aevb", "--batch", "100"],
    "wide": ["--recipe", "bernoulli", "--batch", "1000", *WIDE],
}


def seconds(source: str, words: list[str], processes: int, samples: int, place: Path) -> float:
    """Of one training."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes else []
    run = place / "run"
    own = ["-m", "aevb", "train", source, *words, "--samples", str(samples), "--no-figures", "--out", str(run)]
    own += ["--set", "evaluation.importance_samples=1"]  # which is not counted
    env = os.environ | {"OMP_NUM_THREADS": "1" if processes else str(os.cpu_count() or 1)}
    subprocess.run([sys.executable, *launcher, *own], env=env, check=True, capture_output=True)
    found: float = json.loads((run / "meta.json").read_text())["seconds"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--source", default="mnist")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--samples", type=int, default=40_000)
    asked = parser.parse_args()
    for model in asked.models:
        taken: dict[int, list[float]] = {p: [] for p in asked.processes}
        for _ in range(asked.rounds):
            for p in random.sample(asked.processes, len(asked.processes)):
                with tempfile.TemporaryDirectory() as place:
                    taken[p].append(seconds(asked.source, MODELS[model], p, asked.samples, Path(place)))
        for p, times in taken.items():
            ratios = [time / one for time, one in zip(times, taken.get(1, times), strict=True)]
            name = f"{p} processes" if p else "no torchrun"
            print(
                f"{model:6} {name:12} {median(times):6.2f} s ({min(times):.2f}-{max(times):.2f}), "
                f"ratio {median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
