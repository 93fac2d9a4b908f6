"""Peak memory and time of a training on a column of very many levels: python benchmarks/many_levels.py [LEVELS] [ROWS].

Memory is what the process takes at most (getrusage), less what it took once the table was made.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
import pandas as pd

import aevb

SAMPLES = 20_000  # of the training


def peak() -> float:
    """The most memory that this process took so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def made(levels: int, rows: int) -> pd.DataFrame:
    """A number, and a level that goes with it; each level at least once where there are as many rows."""
    noise = np.random.default_rng(0)
    codes = np.concatenate([np.arange(min(levels, rows)), noise.integers(0, levels, max(0, rows - levels))])
    noise.shuffle(codes)
    return pd.DataFrame({"x": codes / levels + noise.normal(size=rows), "level": [f"v{c:07d}" for c in codes]})


def main() -> None:
    levels, rows = (int(word) for word in (sys.argv[1:] + ["300000", "400000"][len(sys.argv) - 1 :]))
    aevb.VAESynthesizer(1, samples=500).fit(made(5, 200))  # all that is imported once
    table = made(levels, rows)
    before, begun = peak(), time.perf_counter()
    model = aevb.VAESynthesizer(4, columns={"level": "categorical"}, samples=SAMPLES, random_state=0).fit(table)
    seconds, trained = time.perf_counter() - begun, peak()
    log_p = model.score_samples(table[:100]).mean()
    print(f"{levels:,} levels, {rows:,} rows: {trained - before:,.0f} MB more for the training, {seconds:.0f} s")
    print(f"with scores of 100 rows {peak() - before:,.0f} MB; log p(x) {log_p:.2f} nats")


if __name__ == "__main__":
    main()
