"""How much memory there is, what to say of a lack of it, and one habit of the C library that costs much time."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from aevb.errors import DataError

UNKNOWN = float("inf")
ASKED = re.compile(r"(?:tried to allocate|Tried to allocate|Unable to allocate) ([\d.]+) ?(bytes|[KMGT]i?B)?", re.ASCII)
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
REFUSED = ("can't allocate memory", "not enough memory", "out of memory", "Unable to allocate")


def keep_freed_memory() -> None:
    """Let the process reuse the memory of one step for the next; on Linux, elsewhere without effect.

    glibc returns freed blocks to the system, and every step or chunk would fault its pages in again, until a block of
    up to 32 MiB has been freed once: it then takes such sizes for transient. This one is never written to and costs
        nothing.
    """
    import torch

    with suppress(MemoryError, RuntimeError):  # where memory is short, the habit is left out
        torch.empty(31 * 2**20, dtype=torch.uint8)


def memory() -> float:
    """Bytes of memory of this machine; infinite where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return UNKNOWN


def free_memory() -> float:
    """Bytes that this process can still get: of the machine, of its container and under `ulimit -v`.

    Where the system does not say how much is free, all memory counts.
    """
    return max(0.0, min(_available(), _contained(), _below_limit()))


def refuse_above_free(size: float, where: object, what: str) -> None:
    """Raise a `DataError` that names both sizes if `size` bytes, for `what`, are more than what is free."""
    free = free_memory()
    if size > free:
        raise DataError(
            f"{where} needs {size / 2**30:,.2f} GiB of memory for {what}, and {free / 2**30:,.2f} GiB are free."
            " Use fewer rows, or smaller ones."
        )


def out_of_memory(error: BaseException) -> str:
    """What to say of an error that is a lack of memory: what was asked for, what is free, what to do; else nothing.

    PyTorch's errors are told by their words, as they are plain `RuntimeError`.
    """
    text = str(error)
    if not isinstance(error, MemoryError) and not any(words in text for words in REFUSED):
        return ""
    asked = ASKED.search(text)
    unit = UNITS.get((asked[2] or "bytes")[0], 1) if asked else 1
    wanted = f" for {_size(float(asked[1]) * unit)} at once" if asked else ""
    free = free_memory()
    left = f"; {_size(free)} are free" if free < UNKNOWN and "CUDA" not in text else ""
    return (
        f"There is not enough memory{wanted}{left}. Use fewer data points at a time (--batch), a smaller network or "
        "latent, fewer samples or less data."
    )


def _size(bytes_: float) -> str:
    """1.5 GB, 20 MB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if bytes_ >= size:
            return f"{bytes_ / size:.3g} {unit}"
    return f"{bytes_ / 1e3:.3g} kB"


def _available() -> float:
    found = _words("/proc/meminfo")
    return float(found[found.index("MemAvailable:") + 1]) * 1024 if "MemAvailable:" in found else memory()


def _contained() -> float:
    """What is left to the control group of a container: its limit less what it uses, page cache not counted."""
    limit, used = _words("/sys/fs/cgroup/memory.max"), _words("/sys/fs/cgroup/memory.current")
    if not used or not limit or limit[0] == "max":
        return UNKNOWN
    kinds = _words("/sys/fs/cgroup/memory.stat")
    cached = float(kinds[kinds.index("inactive_file") + 1]) if "inactive_file" in kinds else 0.0
    return float(limit[0]) - float(used[0]) + cached


def _below_limit() -> float:
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    except (ImportError, OSError, ValueError):
        return UNKNOWN
    pages = _words("/proc/self/statm")
    if limit == resource.RLIM_INFINITY or not pages:
        return UNKNOWN
    return float(limit) - float(pages[0]) * os.sysconf("SC_PAGE_SIZE")


def _words(path: str) -> list[str]:
    """The words of a small file of the system; none where there is no such file."""
    try:
        return Path(path).read_text().split()
    except (OSError, ValueError):
        return []
