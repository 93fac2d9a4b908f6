"""The console as it is found: closed, full, cut short, or without UTF-8. What is printed survives each of them."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
import unicodedata
from typing import TextIO

PLAIN = {
    "±": "+-",
    "×": "x",
    "·": "-",
    "–": "-",
    "—": "-",
    "‖": "||",
    "∣": "|",
    "→": "->",
    "−": "-",
    "…": "...",
    "≥": ">=",
    "∼": "~",
    "Σ": "sum",
    "Π": "prod",
    "∂": "d",
    "∞": "inf",
    "√": "sqrt",
    "≤": "<=",
    "≠": "!=",
    "←": "<-",
    "∈": "in",
    "━": "=",
    "╌": "-",
    "•": "*",
    "“": '"',
    "”": '"',
    "’": "'",
    "‘": "'",
    "«": '"',
    "»": '"',
    "¹": "^1",
    "²": "^2",
}  # what a console without UTF-8 shows instead
STREAMS = ("stdout", "stderr")


def prepare() -> None:
    """Make both streams writable: a closed one swallows what it gets, one without UTF-8 shows plain letters instead.

    Figures are files, so that any backend of matplotlib serves: not the one that a notebook hands on, which may not be
    installed here.
    """
    codecs.register_error("aevb", _in_plain_letters)
    os.environ["MPLBACKEND"] = "agg"
    for name in STREAMS:
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure") and not speaks_unicode(stream):
            stream.reconfigure(errors="aevb")


def speaks_unicode(stream: TextIO) -> bool:
    """Whether a stream can show any character."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def plain(text: str) -> str:
    """Text in ASCII, which every console shows and every encoding reads back."""
    return "".join(c if c.isascii() else _plain(c) for c in text)


def _in_plain_letters(fault: UnicodeError) -> tuple[str, int]:
    assert isinstance(fault, UnicodeEncodeError)  # the handler is for output
    return plain(fault.object[fault.start : fault.end]), fault.end


def _plain(character: str) -> str:
    """A character in ASCII: its name here, the name of a Greek letter, the letter below its accents, or a question
    mark."""
    decomposed = unicodedata.normalize("NFKD", character)
    letters = decomposed.encode("ascii", "ignore").decode()
    name = unicodedata.name(decomposed[0], "")
    greek = name.rpartition(" ")[2].lower() if name.startswith("GREEK") else ""
    return PLAIN.get(character) or letters or greek or "?"


def flushed() -> str:
    """Write out what both streams still hold; what hindered it, as text, or nothing.

    A reader that has seen enough (`aevb recipes | head -1`) hinders nothing.
    """
    hindrance = ""
    for name in STREAMS:
        try:
            getattr(sys, name).flush()
        except OSError as error:
            silence(name)
            hindrance = hindrance or broken(error)
    return hindrance


def broken(error: OSError) -> str:
    """Why the output could not be written; nothing where its reader has gone."""
    if error.errno in (errno.EPIPE, errno.EINVAL):  # Windows says EINVAL of a closed pipe
        return ""
    return f"the output could not be written: {error.strerror or error}."


def silence(name: str = "stdout") -> None:
    """Let a stream that is broken swallow what it still holds, so that no traceback follows at the end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, getattr(sys, name).fileno())
        os.close(nowhere)
