"""Time and memory over the number of rows N, and over the size of images: both should be linear.

    python -m benchmarks.scaling --threads 2

Each case is a process of its own, so that the largest memory is its own. Time is of training and of an evaluation by
20 importance samples, for a row; memory is what the process holds at most beyond what it held before the data.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

import aevb

COLUMNS, BATCH = 20, 100
ROWS = {False: (1_000, 10_000, 100_000, 1_000_000, 10_000_000), True: (1_000, 4_000)}  # by whether it is short
SIDES = {False: (28, 64, 128, 256), True: (28, 32)}
STEPS, SHORT_STEPS = 300, 5
IMAGES = 128


@dataclass(frozen=True)
class Case:
    """What one process does: `rows` of `shape`, trained for so many steps."""

    rows: int
    shape: tuple[int, ...]
    steps: int
    evaluated: int
    threads: int


@dataclass(frozen=True)
class Cost:
    """What it took: a look at all rows, a training row, an evaluated row, in seconds; and memory in bytes."""

    checks: float
    training: float
    evaluation: float
    memory: float
    data: float


def peak() -> float:
    """Bytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def held() -> float:
    """Bytes that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * float(resource.getpagesize())


def model(shape: tuple[int, ...]) -> aevb.VAE:
    torch.manual_seed(0)
    if len(shape) == 1:
        q, p = aevb.Normal(5), aevb.Normal(shape)
        encoder, decoder = aevb.MLP(shape, q.size, [64]), aevb.MLP(5, p.size, [64])
        return aevb.VAE(aevb.StandardNormal(5), aevb.Conditional(encoder, q), aevb.Conditional(decoder, p))
    q, b = aevb.Normal(32), aevb.Bernoulli(shape, relaxed=True)
    enlarging = aevb.Conditional(aevb.ConvDecoder(32, b.size, shape, (16, 32)), b)
    reducing = aevb.Conditional(aevb.ConvEncoder(shape, q.size, (16, 32)), q)
    return aevb.VAE(aevb.StandardNormal(32), reducing, enlarging)


def cost(case: Case) -> Cost:
    """Train and evaluate one case."""
    torch.set_num_threads(case.threads)
    vae, objective = model(case.shape), aevb.ELBO()
    small = torch.rand(2 * BATCH, *case.shape)
    for _ in aevb.train(vae, objective, small, aevb.Training(samples=3 * BATCH, batch=BATCH)):  # what is done once
        pass
    before = held()
    x = torch.rand(case.rows, *case.shape, generator=torch.Generator().manual_seed(0))
    batch = min(BATCH if len(case.shape) == 1 else 32, case.rows)
    steps = aevb.train(vae, objective, x, aevb.Training(samples=10**9, batch=batch))
    begun = time.perf_counter()
    next(steps)  # all rows are looked at
    first = time.perf_counter()
    for _ in islice(steps, case.steps):
        pass
    trained = time.perf_counter()
    steps.close()  # type: ignore[attr-defined]
    aevb.log_marginal(vae, x[: case.evaluated], 20)
    done = time.perf_counter()
    per = (first - begun, (trained - first) / case.steps / batch, (done - trained) / min(case.evaluated, case.rows))
    return Cost(*per, peak() - before, x.nbytes)


def apart(case: Case) -> Cost:
    """`cost`, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(cost, (case,))


def lines(cases: dict[str, Case]) -> Iterator[str]:
    yield "| | data, MB | memory beyond, MB | checks of all rows, s | training, µs/row | evaluation, µs/row |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for name, case in cases.items():
        c = apart(case)
        beyond = f"{(c.memory - c.data) / 1e6:,.0f}"
        times = f"{c.checks:.3f} | {c.training * 1e6:,.1f} | {c.evaluation * 1e6:,.0f}"
        yield f"| {name} | {c.data / 1e6:,.1f} | {beyond} | {times} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--short", action="store_true", help="two small cases each, to see that it runs")
    asked = parser.parse_args()
    short, steps = asked.short, SHORT_STEPS if asked.short else STEPS
    rows = {f"N = {n:,}": Case(n, (COLUMNS,), steps, 5_000, asked.threads) for n in ROWS[short]}
    sides = {
        f"{s}×{s}": Case(8 if short else IMAGES, (1, s, s), max(3, steps // 20), 16, asked.threads)
        for s in SIDES[short]
    }
    for title, cases in {f"Rows of {COLUMNS} numbers": rows, "Images": sides}.items():
        print(f"{title}\n")
        for line in lines(cases):
            print(line, flush=True)
        print()
    print(f"{asked.threads} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
