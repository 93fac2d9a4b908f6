"""One habit of the C library's memory that costs a quarter of the time."""

from __future__ import annotations

import torch


def keep_freed_memory() -> None:
    """Let the process reuse the memory of one step for the next; on Linux, elsewhere without effect.

    glibc returns freed blocks to the system, and every step or chunk would fault its pages in again, until a block of
    up to 32 MiB has been freed once: it then takes such sizes for transient. This one is never written to and costs
        nothing.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)
