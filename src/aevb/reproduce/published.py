"""The curves of Figures 2 and 3 of arXiv 1312.6114, measured in the vector graphics of the paper: facts to compare
with.

They were read to 0.1 nats (Frey Face: 1 nat), and end where the paper's axes do: at 10⁸ to 5·10⁸ training samples.
"""

from __future__ import annotations

import csv
import math
from bisect import bisect_left
from functools import lru_cache
from importlib import resources

Points = tuple[list[float], list[float]]


def curve(figure: str, panel: str, algorithm: str, split: str) -> Points:
    """Training samples, ascending, and the value there in nats per data point; two empty lists where the paper has
    none.

    Figure "2", panels "MNIST Nz=3", ..., "Frey Nz=2", ...; figure "3", panels "N=1000" and "N=50000". Algorithms
    "AEVB", "WS" and "MCEM", splits "train" and "test".
    """
    samples, values = _table().get((figure, panel, algorithm, split), ([], []))
    return list(samples), list(values)


def at(figure: str, panel: str, algorithm: str, split: str, samples: float) -> float | None:
    """The paper's value after so many training samples, between its points linear in log samples; None off its
    curve."""
    xs, ys = curve(figure, panel, algorithm, split)
    if not xs or not xs[0] <= samples <= xs[-1]:
        return None
    i = max(bisect_left(xs, samples), 1)
    t = math.log(samples / xs[i - 1]) / math.log(xs[i] / xs[i - 1])
    return ys[i - 1] + t * (ys[i] - ys[i - 1])


@lru_cache(maxsize=1)
def _table() -> dict[tuple[str, str, str, str], Points]:
    """As in the graphics, but ascending; of points with equal samples the first."""
    text = resources.files("aevb.reproduce").joinpath("published.csv").read_text(encoding="utf-8")
    found: dict[tuple[str, str, str, str], dict[float, float]] = {}
    for row in csv.DictReader(text.splitlines()):
        line = found.setdefault((row["figure"], row["panel"], row["algorithm"], row["split"]), {})
        line.setdefault(float(row["training_samples"]), float(row["value"]))
    return {key: (sorted(line), [line[x] for x in sorted(line)]) for key, line in found.items()}
