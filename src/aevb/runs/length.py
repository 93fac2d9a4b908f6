"""How long to train, and in minibatches of what size, where a recipe leaves it to the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PASSES = 150  # through few data: the validation bound of small sets still rises after a hundred
MOST = 500_000  # training samples: ten passes through 50,000 rows
BATCHES = (16, 100)  # rows of the smallest and of the largest minibatch
STEPS, RATE = 10, 1e-3  # steps of this size in a pass through few data, rather than minibatches of 100
PATIENCE = 10  # validations without a better bound
FEW = 1000  # rows; below, an estimator's networks are smaller and its steps larger
LOOKS = 40  # validations in all of a training on few rows


def suited(training: Mapping[str, Any], validation: Mapping[str, Any], n: int, held: int) -> dict[str, int]:
    """The settings of length that a recipe leaves out, for N = n training rows. One rule for all data:

        samples  S = min(150 N, 500,000)             few data are seen 150 times, of many a part
        batch    M = min(100, max(16, N / 10))       ten steps in a pass, where minibatches of 100 would be fewer;
                                                     of steps of a larger rate than 0.001 as many fewer
        every    S / 40 where N < 1000               else a validation in each pass, and in each S / 100 samples
        stop     after 10 validations without a better bound: of few rows, whose bound is noisy, a quarter of S

    What a recipe or a user gives stays. A training whose `samples` are given has no patience unless that is given too.
    The command line and the estimators train by this rule.

    Args:
        training, validation: the tables of a recipe.
        n, held: rows of the train and of the validation split; without validation rows nothing can stop it early.

    Returns:
        What is to be filled in, by keys such as "training__samples", as `Recipe.replace` takes them.
    """
    found: dict[str, int] = {}
    if "batch" not in training:
        found["training__batch"] = min(BATCHES[1], max(BATCHES[0], int(n / STEPS * _stride(training))))
    if "samples" not in training:
        found["training__samples"] = min(PASSES * n, MOST)
        if held and "patience" not in validation:
            found["validation__patience"] = PATIENCE
            if n < FEW and "every" not in validation:
                found["validation__every"] = max(1, PASSES * n // LOOKS)
    return found


def _stride(training: Mapping[str, Any]) -> float:
    """How many steps of the usual rate a step of this training is worth, 1 or more."""
    optimizer = training.get("optimizer", {})
    rate = optimizer.get("lr", RATE) if isinstance(optimizer, Mapping) and optimizer.get("type") == "adam" else RATE
    return max(1.0, rate / RATE)
