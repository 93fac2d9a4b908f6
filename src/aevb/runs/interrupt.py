"""Signals that stop a training after the step in hand, and none that is lost.

Ctrl-C (SIGINT), SIGTERM, which schedulers send, and SIGHUP, of a terminal that closes, mean the same.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
AGAIN = 0.02  # seconds after which a signal comes again whose exception Python has dropped


class Terminated(SystemExit):
    """A process was told to end by SIGTERM or SIGHUP; the exit code is 128 and its number: 143 or 129."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class Heard:
    """The signal that stopped a block; 0 until one came."""

    number = 0

    def error(self) -> BaseException:
        """What ends the process as the signal would have, with everything saved."""
        return KeyboardInterrupt() if self.number in (0, signal.SIGINT) else Terminated(self.number)


@contextmanager
def deferred_interrupt(stop: Callable[[], None]) -> Iterator[Heard]:
    """A signal that ends the process calls `stop`; a second one ends it at once. Only the main thread receives them.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored.
    """
    heard = Heard()
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    previous = {n: handler for n in STOPPING if (handler := signal.getsignal(n)) not in (signal.SIG_IGN, None)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, _: Any) -> None:
        heard.number = number
        stop()
        restore()

    try:
        for number in previous:
            signal.signal(number, handle)
        yield heard
    finally:
        restore()


@contextmanager
def signals_as_errors() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Terminated`, so that a process may say what is done; none is lost in a callback.

    Python drops an exception that is raised in a callback of a weak reference, as matplotlib has many: the signal then
    comes again.
    """
    hook = sys.unraisablehook
    changed = {n: signal.getsignal(n) for n in STOPPING if signal.getsignal(n) == signal.SIG_DFL}

    def raise_(number: int, _: Any) -> None:
        raise Terminated(number)

    def dropped(args: Any) -> None:
        if isinstance(args.exc_value, KeyboardInterrupt | Terminated):
            number = getattr(args.exc_value, "number", int(signal.SIGINT))
            threading.Timer(AGAIN, signal.raise_signal, [number]).start()
        else:
            hook(args)

    try:
        for number in changed:
            signal.signal(number, raise_)
        sys.unraisablehook = dropped
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in changed.items():
            signal.signal(number, handler)
