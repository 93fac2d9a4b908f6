"""How estimators go about their work: what a block asks of them, in the block, in inner ones and in other threads."""

from __future__ import annotations

import io
import re
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import aevb
from aevb.apps import show
from aevb.data.pieces import in_memory
from aevb.data.sources import load_data
from aevb.data.walk import WALK, Counter, Walk, at_once
from aevb.runs.store import fingerprints


def test_an_inner_block_changes_what_it_names() -> None:
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    with aevb.walking(memory=7, progress=tell):
        with aevb.walking(memory=3):
            assert at_once(100) == 3
            Counter(10)(4)
        assert at_once(100) == 7
    assert told == [(4, 10)]
    assert at_once(100) == 100
    assert WALK.get() == Walk()


class Passes:
    """The rows that each pass over data told, in order."""

    def __init__(self) -> None:
        self.told: list[list[tuple[int, int]]] = [[]]

    def __call__(self, done: int, total: int) -> None:
        self.told[-1].append((done, total))
        if done == total:
            self.told.append([])

    @property
    def totals(self) -> list[int]:
        """How many rows each pass has; each rises to its end."""
        *passes, unfinished = self.told
        assert not unfinished
        assert all(a < b for one in passes for (a, _), (b, _) in pairwise(one))
        assert all(len({total for _, total in one}) == 1 for one in passes)
        return [one[-1][1] for one in passes]


def test_every_pass_over_rows_is_told(tmp_path: Path) -> None:
    """Of an array: to check it, to store it, to describe and hash its train rows, to find which columns are constant
    elsewhere, and to hash the other splits."""
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(400_000, 2)))
    seen = Passes()
    with aevb.walking(reading=seen):
        data = load_data(tmp_path / "a.npy")
        assert seen.totals[:3] == [400_000, 400_000, 320_000]
        before = len(seen.totals)
        assert 320_000 not in seen.totals[3:]
        fingerprints(data)
    assert seen.totals[before:] == [40_000, 40_000]
    assert max(map(len, seen.told)) > 3  # the array is read in several pieces


def test_a_pass_over_several_arrays_or_columns_is_told_once(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(300_000, 2))
    np.savez(tmp_path / "split.npz", x_train=x, x_test=x[:100_000])
    np.save(tmp_path / "fortran.npy", np.asfortranarray(x))
    for name, rows in (("split.npz", 400_000), ("fortran.npy", 300_000)):
        seen = Passes()
        with aevb.walking(reading=seen):
            load_data(tmp_path / name)
        assert seen.totals[:2] == [rows] * 2


def test_pictures_are_counted(tmp_path: Path) -> None:
    for i in range(5):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    seen = Passes()
    with aevb.walking(reading=seen):
        load_data(tmp_path)
    assert seen.told[:2] == [[(i, 5) for i in range(1, 6)]] * 2  # the headers, then the pictures


def test_a_pass_that_nobody_wanted_to_its_end_ends() -> None:
    seen = Passes()
    with aevb.walking(reading=seen):
        next(in_memory(np.zeros((10**6, 1))).rows())
    assert seen.totals == [10**6]


def test_a_terminal_shows_a_long_pass_and_not_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for patience, shown in ((-1.0, True), (60.0, False)):
        text = io.StringIO()
        monkeypatch.setattr(show, "err", Console(file=text, force_terminal=True, width=80))
        monkeypatch.setattr(show, "PATIENCE", patience)
        with show.reading():
            for _ in in_memory(np.zeros((4 * 2**17, 1))):
                pass
        assert bool(re.search(r"reading 524,288 rows: \d\d%", text.getvalue())) == shown


def test_a_block_ends_with_its_error() -> None:
    with pytest.raises(RuntimeError, match="within"), aevb.walking(memory=3):
        raise RuntimeError("within")
    assert at_once(100) == 100


def test_a_block_holds_for_its_own_thread() -> None:
    found, inside = [], threading.Barrier(2, timeout=10)

    def work(memory: int) -> None:
        with aevb.walking(memory=memory):
            inside.wait()  # both are within their blocks
            found.append((memory, at_once(100)))
            inside.wait()

    threads = [threading.Thread(target=work, args=(memory,)) for memory in (2, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(2, 2), (5, 5)]
    assert at_once(100) == 100


@pytest.mark.parametrize("memory", [0, -1])
def test_no_memory_is_refused(memory: int) -> None:
    with pytest.raises(ValueError, match="memory must be at least 1"), aevb.walking(memory=memory):
        pass
