"""Eight seeds trained as one stack, beside one seed by itself, in interleaved rounds.

    python -m benchmarks.sweeps --rounds 5 --threads 2

Validation is counted, files and evaluation are not. A ratio is the stack's time divided by that of one model in the
same round, by wall time and by processor time; eight trainings one after another have 8.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch

from aevb.data.dataset import Dataset, Split
from aevb.data.sources import load_data
from aevb.data.values import Values
from aevb.runs.fit import Job
from aevb.runs.recipe import Recipe
from aevb.training.events import Course, TrainingState, train_events
from aevb.training.stacked import train_stacked

AIMS = {"digits": 2.0, "paper": 5.0}  # how many times as long as one model the stack may take


def random_bits() -> Dataset:
    """As many bits as MNIST has, and as dark."""
    g = torch.Generator().manual_seed(0)
    parts = [(torch.rand(n, 1, 28, 28, generator=g) < 0.13).float() for n in (50_000, 1_000, 1_000)]
    splits = [Split(part, None, Values("raw")) for part in parts]
    return Dataset("random-bits", splits[0], splits[1], splits[2], "aevb")


def case(name: str, samples: int) -> tuple[Recipe, Dataset]:
    """The README's digits; or the paper's network for MNIST, with Adam."""
    if name == "digits":
        return Recipe.load("digits").replace(training__samples=samples), load_data("digits")
    adam = {"type": "adam", "lr": 1e-3}
    recipe = Recipe.load("aevb").replace(latent=20, training__optimizer=adam, training__samples=samples)
    return recipe.replace(validation__every=50_000), random_bits()


def alone(recipe: Recipe, data: Dataset) -> None:
    job = Job.of(recipe.of(data), data, "cpu")
    for _ in train_events(job.learner, job.rows, job.held, job.recipe.validation()):
        pass


def stacked(recipe: Recipe, data: Dataset, seeds: int) -> None:
    jobs = [Job.of(recipe.replace(training__seed=seed).of(data), data, "cpu") for seed in range(seeds)]
    courses = [Course.of(j.learner, j.rows, j.held, j.recipe.validation(), TrainingState()) for j in jobs]
    for _ in train_stacked(courses, float("inf")):
        pass


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def compare(name: str, rounds: int, samples: int, seeds: int) -> str:
    """A row of the table."""
    recipe, data = case(name, samples)
    ones, ratios = [], []
    alone(recipe.replace(training__samples=500), data)  # what is done once in a process
    for _ in range(rounds):
        begun = clocks()
        alone(recipe, data)
        middle = clocks()
        stacked(recipe, data, seeds)
        end = clocks()
        one = [b - a for a, b in zip(begun, middle, strict=True)]
        ones.append(one[0])
        ratios.append([(b - a) / o for a, b, o in zip(middle, end, one, strict=True)])
    wall, processor = (spread([r[i] for r in ratios]) for i in (0, 1))
    return f"| {name} | {spread(ones)} | {wall} | {processor} | {AIMS[name]} |"


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeps", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--samples", type=int, default=20_000, help="training samples of each model")
    parser.add_argument("--cases", nargs="+", choices=AIMS, default=list(AIMS))
    parser.add_argument("--short", action="store_true", help="one round of few steps, to see that it runs")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    rounds, samples = (1, 1_000) if asked.short else (asked.rounds, asked.samples)
    print(
        "| case | one model, s | wall, stack / one | processor, likewise | aim |\n| --- | ---: | ---: | ---: | ---: |"
    )
    for name in asked.cases:
        print(compare(name, rounds, samples, asked.seeds), flush=True)
    print(
        f"\n{asked.seeds} seeds, {samples:,} training samples each, {asked.threads} threads, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
