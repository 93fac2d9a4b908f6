"""A part of `python -m benchmarks.fuzz_runs`: damaged run folders and odd recipes end in an answer or in a sentence."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest

from aevb.data.dataset import Dataset
from aevb.data.sources import load_data
from aevb.errors import AevbWarning
from benchmarks.fuzz_runs import FAULTS, VERBS, Found, damaged, folders, outcome, recipes, same

NAMES = ("bernoulli", "gaussian", "iwae", "fsq", "wake-sleep")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data("digits", values="dynamic")


def test_damaged_folders_end_in_an_answer_or_in_a_sentence(data: Dataset, tmp_path: Path) -> None:
    """And no answer is another number; both ends are met often."""
    with warnings.catch_warnings(action="ignore", category=AevbWarning):
        found = folders(60, 1, tmp_path, data)
    assert not found.failures
    assert found["accepted"] > 20
    assert found["sentence"] > 12


def test_odd_recipes_are_refused_in_a_sentence_or_train(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore", category=AevbWarning):
        found = recipes(40, 1, tmp_path, NAMES)
    assert not found.failures
    assert found["accepted"] > 6
    assert found["sentence"] > 15


def test_the_fuzz_sees_what_it_looks_for() -> None:
    """A traceback, and another number, are failures; a sentence and the right number are none."""
    found = Found()
    with outcome(found, "a"):
        raise KeyError("x")
    with outcome(found, "b") as settle:
        settle(same({"elbo": 1.0}, {"elbo": 1.5}))
    with outcome(found, "c") as settle:
        settle(same({"elbo": 1.0}, {"elbo": 1.0}))
    with outcome(found, "d"):
        load_data("no such thing")
    assert found == {"traceback": 1, "another number": 1, "accepted": 1, "sentence": 1}
    assert len(found.failures) == 2


def test_damage_changes_a_file_and_is_a_function_of_the_seed() -> None:
    content = bytes(range(200)) * 5
    made = [[damaged(content, random.Random(seed)) for seed in range(60)] for _ in range(2)]
    assert made[0] == made[1]
    assert sum(changed == content for changed in made[0]) <= 3
    assert len(FAULTS) == 8
    assert len(VERBS) == 5
