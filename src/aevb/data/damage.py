"""One guard round everything that parses a file: whatever goes wrong in it ends as one sentence that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aevb.errors import AevbError, DataError


@contextmanager
def reading(where: object, what: str, cure: str = "") -> Iterator[None]:
    """Turn any error of a block that reads a file into a `DataError`: «WHERE cannot be read as WHAT: reason. CURE»

    A damaged file raises whatever its parser meets first, from ValueError to NotImplementedError: no list holds them
    all.
    """
    try:
        yield
    except AevbError:
        raise
    except Exception as fault:
        raise DataError(f"{where} cannot be read as {what}: {reason(fault)}.{cure and ' '}{cure}") from fault


def reason(fault: BaseException) -> str:
    """What an exception says, in one line without a full stop; its kind where it says nothing."""
    if isinstance(fault, MemoryError):
        return "it needs more memory than there is"
    words = " ".join(str(fault).split())[:300].rstrip(".")
    return words if " " in words else f"{type(fault).__name__} {words}".rstrip()
