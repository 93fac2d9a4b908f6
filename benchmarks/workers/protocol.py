"""The worker's side of the conversation: a line in, one unit of work, a line of JSON out."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TextIO


def claim_stdout() -> TextIO:
    """Keep standard output for the protocol; whatever a library prints goes to standard error."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return channel


@dataclass
class Job:
    """What the worker was asked to do, and the line to whoever asked."""

    variant: str
    data_dir: Path | None
    images: int  # training images per epoch, or images whose log p(x) is estimated
    samples: int  # importance samples per image
    channel: TextIO
    notes: list[str] = field(default_factory=list)

    def ready(self, packages: tuple[str, ...]) -> None:
        """Say that preparation is over, with the versions in use."""
        versions = {name: metadata.version(name) for name in packages}
        self._say({"ready": True, "versions": versions, "notes": self.notes})

    def wait(self) -> bool:
        """Sleep until the next request; False once there will be no more."""
        return bool(sys.stdin.readline())

    def reply(self, seconds: float, nats: float) -> None:
        """Report one finished unit of work: its duration and its loss in nats per image."""
        self._say({"seconds": seconds, "nats": nats})

    def serve(self, work: Callable[[], float], packages: tuple[str, ...]) -> None:
        """Time ``work`` once per request; it returns nats per image."""
        self.ready(packages)
        while self.wait():
            start = time.perf_counter()
            nats = work()
            self.reply(time.perf_counter() - start, nats)

    def _say(self, message: dict[str, object]) -> None:
        self.channel.write(json.dumps(message) + "\n")
        self.channel.flush()
