"""The command line in several processes, as torchrun starts them: the first one speaks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aevb.errors import RunError

LATER = 1.0  # seconds in which torchrun ends the others, where the first one has failed for the same reason


@contextmanager
def joined(verb: Sequence[str]) -> Iterator[None]:
    """Run a verb together with the other processes that torchrun has started; alone where there are none.

    Raises:
        RunError: a verb that is for one process, or processes that do not find each other.
    """
    if os.environ.get("WORLD_SIZE", "1") in ("", "0", "1"):
        yield
        return
    with _silent(os.environ.get("RANK", "0") != "0"):
        if [*verb] != ["train"]:
            one = " ".join(["aevb", *verb, "..."])
            raise RunError(f"torchrun is only for `aevb train`. Run it in one process: {one}")
        from aevb.training.processes import together

        with together():
            yield


@contextmanager
def _silent(other: bool) -> Iterator[None]:
    """Let a process other than the first say nothing, but for an error that the first one does not have."""
    if not other:
        yield
        return
    streams = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sys.stdout = sys.stderr = nowhere
        try:
            yield
        except Exception:
            time.sleep(LATER)
            raise
        finally:
            sys.stdout, sys.stderr = streams
