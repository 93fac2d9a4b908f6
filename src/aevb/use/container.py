"""The file of compressed rows: magic bytes, version, checksum, a header in JSON, and the words of the coder.

8 bytes   magic
2 bytes   version, little endian as all that follows
4 bytes   CRC-32 of all that follows
4 bytes   length of the header
header    JSON, see `Header`
words     4 bytes each
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.errors import DataError

MAGIC, VERSION = b"\x8aaevbbb\n", 1
PREFIX = struct.Struct("<8sHI")
LENGTH = struct.Struct("<I")
Words = NDArray[np.uint32]


@dataclass(frozen=True)
class Header:
    """What both sides must know beside the model.

    Attributes:
        n: N, rows.
        shape: *X, of a row.
        dtype: of x, PyTorch's name of it.
        values: which ones the likelihood covers, as text.
        model, content: fingerprints of the weights, and of the rows.
        exponent, reach: of the grid of z: its spacing is 2^exponent, its points are -reach, ..., reach of these.
        window, moving: of the table of p(x|z), see `Alphabet`.
        blocks: how many blocks there are of 1, 2, 4, ... rows.
    """

    n: int
    shape: list[int]
    dtype: str
    values: str
    model: str
    content: str
    exponent: int
    reach: int
    window: int
    moving: bool
    blocks: list[int]

    def check(self, mine: Mapping[str, Any]) -> None:
        """Refuse a model that differs from the one that the rows were coded with.

        Raises:
            DataError: it does, and the message says in what.
        """
        for name, value in mine.items():
            if (its := getattr(self, name)) != value:
                raise DataError(WRONG[name].format(its=its, mine=value))


WRONG = {
    "shape": "The file holds rows of the shape {its}, but the model is over {mine}. Name the run that made the file.",
    "values": "The file holds {its}, but the model's likelihood covers {mine}. Name the run that made the file.",
    "model": "The file was made by another model: its weights have the fingerprint {its}, these {mine}. Name the run"
    " that made the file, as it was then.",
    "content": "The file was decoded to other rows than were coded: the networks give other numbers here. Decompress"
    " on the machine that compressed it, with the same PyTorch and constriction.",
}


def pack(header: Header, words: Words) -> bytes:
    """The file as bytes."""
    text = json.dumps(asdict(header), separators=(",", ":")).encode()
    body = LENGTH.pack(len(text)) + text + words.astype("<u4").tobytes()
    return PREFIX.pack(MAGIC, VERSION, zlib.crc32(body)) + body


def unpack(packed: bytes) -> tuple[Header, Words]:
    """Header and words of a file.

    Raises:
        DataError: it is no such file, of another version, or damaged.
    """
    if len(packed) < PREFIX.size or not packed.startswith(MAGIC):
        raise DataError("This is not a file of aevb compress: its beginning differs, or it is cut off.")
    _, version, checksum = PREFIX.unpack_from(packed)
    if version != VERSION:
        raise DataError(f"The file has the format {version}; this aevb reads the format {VERSION}. Install its aevb.")
    body = packed[PREFIX.size :]
    if zlib.crc32(body) != checksum:
        raise DataError("The file is damaged: its checksum differs. Copy it again from where it was made.")
    try:
        (length,) = LENGTH.unpack_from(body)
        header = Header(**json.loads(body[LENGTH.size : LENGTH.size + length]))
        return header, np.frombuffer(body[LENGTH.size + length :], "<u4").astype(np.uint32)
    except (struct.error, TypeError, ValueError) as error:
        raise DataError(f"aevb did not write this file: {error}. Compress again.") from error


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Of weights by name: 16 hexadecimal digits."""
    found = hashlib.blake2b(digest_size=8)
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {t.dtype} {tuple(t.shape)} ".encode())
        found.update(t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
