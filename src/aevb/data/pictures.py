"""One picture, as a viewer shows it: turned, on white, at one size; or refused where that would lose something."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from aevb.data.damage import reading
from aevb.errors import DataError, suggest

GREY = ("1", "L", "LA", "La")
DEEP = ("I", "F")  # 16 or 32 bits a pixel: Pillow would clip them to 8, silently
DEEP_RAW = re.compile(r";(16|32|64)[A-Z]|^[IF]|^BC6H")  # what Pillow's decoders call more than 8 bits a channel
PNG, CHECKSUM = b"\x89PNG\r\n\x1a\n", 4  # how such a file begins; bytes behind each of its chunks
ORIENTATION = 0x0112  # of EXIF; 5 to 8 exchange width and height
TURNED = (5, 6, 7, 8)
NOT_MOVING = ("MPO", "PSD")  # their other frames are previews and layers
SIDE = 4096  # pixels, the largest that pictures can be brought to
CROPS = ("centre", "stretch")
CURE = "Repair or remove it."

Open = Callable[[str], AbstractContextManager[IO[bytes]]]
Size = tuple[int, int]  # width, height


@dataclass(frozen=True)
class Fit:
    """How pictures are brought to one size.

    Attributes:
        size: the side of a square, in pixels; None leaves them as they are, and then all must have one size.
        crop: "centre" cuts the middle square out of a picture first; "stretch" takes all of it, and so changes its
            shape; None takes squares alone.

    Raises:
        DataError: a size or a crop that there is not.
    """

    size: int | None = None
    crop: str | None = None

    def __post_init__(self) -> None:
        if self.crop is not None and self.crop not in CROPS:
            raise DataError(f"There is no crop={self.crop!r}.{suggest(str(self.crop), CROPS)}")
        if self.crop is not None and self.size is None:
            raise DataError(f"crop={self.crop!r} needs a size too, such as size=64 (--size 64, data.size)")
        if self.size is not None and (type(self.size) is not int or not 1 <= self.size <= SIDE):
            raise DataError(f"size={self.size!r}: the side of the pictures must be a whole number from 1 to {SIDE:,}")

    def resized(self, image: Image.Image) -> Image.Image:
        """The picture at this size; each new pixel is a mean over those that it covers."""
        if self.size is None:
            return image
        if self.crop == "centre":
            width, height = image.size
            side = min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            image = image.crop((left, top, left + side, top + side))
        return image.resize((self.size, self.size), Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Header:
    """What is known of a picture before it is decoded: its size as it is seen, and how it can be kept."""

    size: Size
    grey: bool
    deep: bool  # more than 8 bits a channel
    animated: bool


def header(place: Path, name: str, open_: Open) -> Header:
    """What a file says of its picture before it is decoded."""
    with reading(f"{place}: {shown(name)}", "an image", CURE), open_(name) as file, opened(file) as image:
        width, height = image.size
        size = (height, width) if turned(image) else (width, height)
        animated = image.format not in NOT_MOVING and bool(getattr(image, "is_animated", False))
        return Header(size, is_grey(image), is_deep(image), animated)


PHONES = {b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC", b"avif": "AVIF"}


def unread(file: IO[bytes]) -> str:
    """Why Pillow cannot read a file."""
    file.seek(0)
    start = file.read(12)
    kind = PHONES.get(start[8:12]) if start[4:8] == b"ftyp" else None
    if kind is None:
        return "it does not begin like an image that Pillow reads"
    return f"it is a {kind} picture, which Pillow cannot read. Convert it to JPEG or PNG"


def opened(file: IO[bytes]) -> ImageFile:
    """The image in a file, not decoded yet."""
    try:
        image: Any = Image.open(file)
    except UnidentifiedImageError as fault:
        raise ValueError(unread(file)) from fault
    return image  # type: ignore[no-any-return]


def turned(image: Image.Image) -> bool:
    """Whether EXIF says that width and height are exchanged. Pillow turns a TIFF by itself, and decodes a PNG for EXIF
    that stands behind the pixels."""
    if image.format == "TIFF":
        return False
    late = image.format == "PNG" and "exif" not in image.info
    exif = exif_behind(image) if late else image.getexif()  # type: ignore[arg-type]
    return exif.get(ORIENTATION, 1) in TURNED


def exif_behind(image: ImageFile) -> Image.Exif:
    """The EXIF of a PNG, from whichever of its chunks holds it; the file stays where it is."""
    assert image.fp is not None
    place, exif = image.fp.tell(), Image.Exif()
    image.fp.seek(len(PNG))
    while len(head := image.fp.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf":
            exif.load(image.fp.read(size))
            break
        image.fp.seek(size + CHECKSUM, 1)
    image.fp.seek(place)
    return exif


def is_grey(image: Image.Image) -> bool:
    """Whether an image has no colours: by its mode, or since its palette has none."""
    if image.mode not in ("P", "PA"):
        return image.mode in GREY
    colours = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def is_deep(image: ImageFile) -> bool:
    """Whether an image has more than 8 bits a channel, of which Pillow would drop the lower ones in colour,
    silently."""
    if image.mode.startswith(DEEP) or any(decoder == "SGI16" for decoder, *_ in image.tile):
        return True
    if image.format in ("JPEG2000", "AVIF"):
        return BITS[image.format](beginning(image)) > 8
    return any(_says_deep(word, image.format == "PPM") for word in decoder_words(image))


def _says_deep(word: Any, scaled: bool) -> bool:
    """Whether an argument of a decoder tells of more than 8 bits: a raw mode, or a largest value where it scales."""
    if isinstance(word, str):
        return DEEP_RAW.search(word) is not None
    return scaled and isinstance(word, int) and word > 255


def decoder_words(image: ImageFile) -> Iterator[Any]:
    """The arguments of the decoders of an image's tiles."""
    for _, _, _, words in image.tile:
        yield from words if isinstance(words, tuple) else (words,)


def beginning(image: ImageFile) -> bytes:
    """The first 64 KiB of an image's file, which stays where it is."""
    assert image.fp is not None
    place = image.fp.tell()
    image.fp.seek(0)
    start: bytes = image.fp.read(1 << 16)
    image.fp.seek(place)
    return start


def jpeg_2000_bits(start: bytes) -> int:
    """Bits of the first channel, from the SIZ segment at the start of the code stream; 8 if there is none."""
    at = start.find(b"\xff\x4f\xff\x51")
    return (start[at + 42] & 0x7F) + 1 if 0 <= at < len(start) - 42 else 8


def avif_bits(start: bytes) -> int:
    """Bits a channel, from the configuration of the AV1 codec; 8 if there is none."""
    at = start.find(b"av1C")
    return 10 if 0 <= at < len(start) - 6 and start[at + 6] & 0x40 else 8


BITS = {"JPEG2000": jpeg_2000_bits, "AVIF": avif_bits}


def read(place: Path, name: str, open_: Open, fit: Fit, out: NDArray[np.uint8]) -> None:
    """Decode one picture into `out` (C, H, W): turned as EXIF says, on white where it is transparent, fitted."""
    with reading(f"{place}: {shown(name)}", "an image", CURE):
        with open_(name) as file, opened(file) as image:
            if fit.size is not None:
                image.draft(image.mode, (2 * fit.size, 2 * fit.size))  # a JPEG is decoded at a part of its size
            image.load()  # a TIFF is turned here, and says so no more
            upright = on_white(ImageOps.exif_transpose(image)).convert("L" if len(out) == 1 else "RGB")
        pixels: NDArray[Any] = np.asarray(fit.resized(upright))
    if pixels.shape[:2] != out.shape[1:]:
        raise DataError(
            f"{place}: {shown(name)} is {sides(pixels.shape[1::-1])} pixels, but its header says"
            f" {sides(out.shape[:0:-1])}: repair or remove it"
        )
    out[:] = pixels.reshape(*pixels.shape[:2], len(out)).transpose(2, 0, 1)


def on_white(image: Image.Image) -> Image.Image:
    """What is transparent in an image laid on white: alpha channels, and transparent colours of a palette or of a
    PNG."""
    if not image.has_transparency_data:
        return image
    seen = image.convert("RGBA")
    white = Image.new("RGBA", seen.size, "white")
    white.alpha_composite(seen)
    return white


def sides(size: tuple[int, ...]) -> str:
    """«width×height»."""
    return f"{size[0]}×{size[1]}"


def shown(name: str) -> str:
    """A file's name in characters that can be printed."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
