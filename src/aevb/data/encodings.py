"""The encoding of a text file: UTF-8 where it can be, else as its letters tell."""

from __future__ import annotations

import codecs
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from aevb.errors import AevbWarning, DataError

MARKS = {  # that a file begins with, the longest first
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
OTHERS = {  # how a file of another kind begins
    b"PK\x03\x04": "a .zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"PAR1": "a Parquet file",
    b"\x89PNG": "a picture",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"%PDF": "a PDF",
    b"\x1f\x8b": "a gzipped file",
}
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
GUESSED = ("cp1252", "cp949", "cp932", "euc_jp", "gb18030", "big5", "cp1251", "cp1253", "cp1255", "cp1256", "koi8_r")
WORD = re.compile(rb"[\x80-\xff]{4,}")  # of another script than the Latin one, in nearly all texts
LINE = re.compile(rb"[^\n\r]*[\x80-\xff][^\n\r]*")
SHARE = 0.25  # of the bytes that are not ASCII stand in such words
START = 2**18  # bytes that are looked at


def encoding_of(path: Path, pieces: Callable[[], Iterable[bytes]]) -> str:
    """The encoding of a text file, whose bytes `pieces` gives anew at each call.  DataError where this is no text."""
    start = next(iter(pieces()), b"")[:START]
    if known := encoding_at(path, start):
        return known
    if decodes(pieces(), "utf-8"):
        return "utf-8"
    found = next(name for name in guesses(telling(pieces())) if decodes(pieces(), name))
    warnings.warn(
        f"{path} is not in UTF-8; it is read as {found}. Where letters are wrong, save it as UTF-8 first.",
        AevbWarning,
        stacklevel=2,
    )
    return found


def encoding_at(path: Path, start: bytes) -> str:
    """The encoding that the start of a file tells, or "".  DataError where this is no text."""
    for begins, kind in OTHERS.items():
        if start.startswith(begins):
            raise DataError(f"{path} is {kind}, not a text file: save the table as CSV or Parquet.")
    for mark, name in MARKS.items():
        if start.startswith(mark):
            return name
    if wide := without_mark(start):
        return wide
    if len(CONTROL.findall(start)) * 1000 > len(start) or b"\0" in start:
        raise DataError(f"{path} is a binary file, not a text file: save the table as CSV or Parquet.")
    return ""


def without_mark(start: bytes) -> str:
    """UTF-16 without a mark, in which nearly every other byte of most texts is 0; "" for other text."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    few, many = sorted((even, odd))
    if few * 20 >= many or many * 4 <= len(start) // 2:
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"


def decodes(pieces: Iterable[bytes], encoding: str) -> bool:
    """Whether bytes are text in this encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for piece in pieces:
            decoder.decode(piece)
        decoder.decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True


def telling(pieces: Iterable[bytes]) -> bytes:
    """The first lines that are not in ASCII alone, or parts of them."""
    found, size = [], 0
    for piece in pieces:
        for line in LINE.finditer(piece):
            found.append(line[0][:START])
            size += len(found[-1])
            if size >= START:
                return b"\n".join(found)
    return b"\n".join(found)


def guesses(text: bytes) -> Iterator[str]:
    """Encodings of text that is no UTF-8, the most probable first; the last takes any bytes."""
    from charset_normalizer import from_bytes

    words, beyond = sum(len(word) for word in WORD.findall(text)), sum(byte > 127 for byte in text)
    if words > SHARE * beyond and (best := from_bytes(text, cp_isolation=list(GUESSED), enable_fallback=False).best()):
        yield best.encoding
    yield from ("cp1252", "latin-1")
