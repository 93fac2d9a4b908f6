"""How estimators go about their work: what a block asks of them, in the block, in inner ones and in other threads."""

from __future__ import annotations

import threading

import pytest

import aevb
from aevb.data.walk import WALK, Counter, Walk, at_once


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
