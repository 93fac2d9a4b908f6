"""Work in processes of their own, several at a time, which end with the process that began them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from aevb.runs.interrupt import Terminated

SPAWN = multiprocessing.get_context("spawn")
LAST = 60.0  # seconds in which a process saves what it has, where the one that began it was killed
ROUND = 1.0  # seconds between two looks at what is in hand

T = TypeVar("T")


@contextmanager
def workers(jobs: int, begin: Callable[..., None], *given: Any) -> Iterator[ProcessPoolExecutor]:
    """Processes for a block; where the block is left by an exception, they are told to end, and are waited for.

    Ctrl-C in a terminal reaches all processes of a command. It is left to the one that began the others: it ends them
    by SIGTERM, after which a training saves what it has.

    Args:
        begin: called in each process with `given` before its first work.
    """
    with ProcessPoolExecutor(jobs, SPAWN, _begin, (begin, given)) as pool:
        try:
            yield pool
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def each(
    pool: ProcessPoolExecutor,
    jobs: int,
    work: Callable[[T], Any],
    items: Iterable[T],
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[tuple[T, Future[Any]]]:
    """Do some work on each item, `jobs` at a time; gives each item with its future once that is done.

    No item is handed out before a process is free for it: one that was handed out cannot be taken back.

    Args:
        meanwhile: called every second, and whenever some are done.
    """
    left = iter(items)
    busy = {pool.submit(work, item): item for item in islice(left, jobs)}
    while busy:
        done, _ = wait(busy, ROUND, FIRST_COMPLETED)
        meanwhile()
        for future in done:
            busy |= {pool.submit(work, item): item for item in islice(left, 1)}
            yield busy.pop(future), future


def _begin(begin: Callable[..., None], given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    begin(*given)


def _end(number: int, _: Any) -> None:
    raise Terminated(number)


def _end_with_the_first() -> None:
    """End this process where the one that began it was killed: no other would tell it to."""
    first = multiprocessing.parent_process()
    assert first is not None
    wait_for([first.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST)
    os._exit(1)
