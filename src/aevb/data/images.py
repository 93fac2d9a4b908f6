"""A folder or a .zip of images -> one uint8 array (N, C, H, W), with labels where subfolders name them."""

from __future__ import annotations

import posixpath
import re
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile

from aevb.errors import AevbWarning, DataError

USUAL = (".png", ".jpg", ".jpeg", ".tif", ".bmp", ".webp", ".gif", ".pgm", ".ppm")  # some of `suffixes`, for messages
NOT_ALONE = (
    "BUFR",
    "EPS",
    "GRIB",
    "HDF5",
    "MPEG",
    "WMF",
)  # formats that Pillow knows, but needs other programs to read
GREY = ("1", "L", "LA")
DEEP = ("I", "F")  # 16 or 32 bits a pixel: Pillow would clip them to 8, silently
DEEP_RAW = re.compile(r";(16|32|64)[A-Z]|^[IF]")  # raw modes of Pillow's decoders with more than 8 bits a channel
ORIENTATION = 0x0112  # of EXIF; 5 to 8 exchange width and height
TURNED = (5, 6, 7, 8)
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)

Open = Callable[[str], IO[bytes]]


@dataclass(frozen=True)
class Images:
    """Decoded images (N, C, H, W), uint8; labels (N,), int64, and their names if the subfolders are classes."""

    x: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...] | None


@dataclass(frozen=True)
class Header:
    """What is known of an image before it is decoded: its size as it is seen, and how it can be kept."""

    size: tuple[int, int]  # width, height
    grey: bool
    deep: bool  # more than 8 bits a channel
    animated: bool


def load_images(place: Path) -> Images:
    """All images in a folder (with its subfolders) or in a .zip, in the order of their names.

    All must have one size, after they were turned as EXIF says. They stay grey (C = 1) if all are, else they become
    RGB; what is transparent is laid on white; of an animation the first frame counts. Any format is read that Pillow
    reads by itself. A .zip is read in memory: nothing is written to the disk.
    Warns, with their names, of files that are no images and of animations.
    Raises DataError naming the file: no images, unreadable, another size, 16 bits, a member pointing out of the .zip.
    """
    if place.is_dir():
        return decode(place, folder_names(place), lambda name: (place / name).open("rb"))
    try:
        archive = zipfile.ZipFile(place)
    except (OSError, zipfile.BadZipFile) as fault:
        raise DataError(f"{place} cannot be read as a .zip: {fault}") from fault
    with archive:
        return decode(place, zip_names(place, archive), archive.open)


def folder_names(folder: Path) -> list[str]:
    """The images below a folder, as sorted relative names with forward slashes."""
    return pictures(folder, (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))


def zip_names(place: Path, archive: zipfile.ZipFile) -> list[str]:
    """The images in a .zip. DataError if any member, image or not, is a link or points out of the archive."""
    for member in archive.infolist():
        if escapes(member):
            raise DataError(f"{place}: the member {member.filename!r} is a link or points out of the archive; not read")
    return pictures(place, (member.filename for member in archive.infolist() if not member.is_dir()))


def escapes(member: zipfile.ZipInfo) -> bool:
    """Whether unpacking this member could write outside its folder: '/etc/x', 'C:x', '../x' or a symbolic link."""
    name = member.filename.replace("\\", "/")
    drive = len(name) > 1 and name[1] == ":"
    return name.startswith("/") or drive or ".." in name.split("/") or stat.S_ISLNK(member.external_attr >> 16)


def pictures(place: Path, names: Iterable[str]) -> list[str]:
    """Those names that end as an image's does; hidden files are left out, others too, with a warning that names
    them."""
    seen = sorted(name for name in names if not hidden(name))
    found = [name for name in seen if PurePosixPath(name).suffix.lower() in suffixes()]
    others = [name for name in seen if PurePosixPath(name).suffix.lower() not in suffixes()]
    if not found:
        there = f"; there are other files ({few(others)})" if others else ""
        raise DataError(f"{place} holds no images ({', '.join(USUAL)}, ...), in no subfolder either{there}")
    if others:
        warn(f"{place}: left out, since no image that can be read: {few(others)} ({len(others):,} in all)")
    return found


@lru_cache(maxsize=1)
def suffixes() -> frozenset[str]:
    """The endings of all formats that Pillow reads by itself."""
    Image.init()
    readable = set(Image.OPEN) - set(NOT_ALONE)
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in readable)


def hidden(name: str) -> bool:
    """Whether a part of the name starts with a dot, or is __MACOSX."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def few(names: list[str]) -> str:
    """The first five of some names."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def warn(text: str) -> None:
    warnings.warn(text, AevbWarning, stacklevel=2)


def decode(place: Path, names: list[str], open_: Open) -> Images:
    """Read the headers, which decide size and channels; then decode straight into one array, in threads."""
    (width, height), grey = look(place, names, open_)
    x = np.empty((len(names), 1 if grey else 3, height, width), np.uint8)
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(lambda i: read(place, names[i], open_, x[i]), range(len(names))):
            pass
    return Images(x, *classes(names))


def look(place: Path, names: list[str], open_: Open) -> tuple[tuple[int, int], bool]:
    """The common (width, height), and whether all are grey. DataError for the first of another size."""
    headers = [header(place, name, open_) for name in names]
    for name, found in zip(names, headers, strict=True):
        if found.size != headers[0].size:
            raise another_size(place, name, found.size, f"{names[0]} is", headers[0].size)
        if found.deep:
            raise DataError(
                f"{place}: {name} has more than 8 bits a channel, of which the lower would be lost. "
                f"Rescale its values and"
                " save it with 8 bits, or give the pixels as an array (.npy), which may have any numbers."
            )
    moving = [name for name, found in zip(names, headers, strict=True) if found.animated]
    if moving:
        warn(f"{place}: of several frames the first is read: {few(moving)} ({len(moving):,} in all)")
    return headers[0].size, all(found.grey for found in headers)


def header(place: Path, name: str, open_: Open) -> Header:
    """What a file says of its image before it is decoded."""
    try:
        with open_(name) as file, opened(file) as image:
            width, height = image.size
            size = (height, width) if turned(image) else (width, height)
            animated = image.format != "MPO" and bool(getattr(image, "is_animated", False))
            return Header(size, is_grey(image), is_deep(image), animated)
    except UNREADABLE as fault:
        raise unreadable(place, name, fault) from fault


def opened(file: IO[bytes]) -> ImageFile:
    """The image in a file, not decoded yet."""
    image: Any = Image.open(file)
    return image  # type: ignore[no-any-return]


def turned(image: Image.Image) -> bool:
    """Whether EXIF says that width and height are exchanged. Pillow turns a TIFF by itself, and decodes a PNG for
    EXIF."""
    plain = image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info)
    return not plain and image.getexif().get(ORIENTATION, 1) in TURNED


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
    if image.format == "JPEG2000":
        return jpeg_2000_bits(image) > 8
    given = list(decoder_words(image))
    scaled = image.format == "PPM" and any(isinstance(word, int) and word > 255 for word in given)
    return scaled or any(isinstance(word, str) and DEEP_RAW.search(word) for word in given)


def decoder_words(image: ImageFile) -> Iterator[Any]:
    """The arguments of the decoders of an image's tiles."""
    for _, _, _, words in image.tile:
        yield from words if isinstance(words, tuple) else (words,)


def jpeg_2000_bits(image: ImageFile) -> int:
    """Bits of the first channel of a JPEG 2000, from the SIZ segment at the start of its code stream; 8 if there is
    none."""
    assert image.fp is not None
    place = image.fp.tell()
    image.fp.seek(0)
    start = image.fp.read(1 << 16)
    image.fp.seek(place)
    at = start.find(b"\xff\x4f\xff\x51")
    return (start[at + 42] & 0x7F) + 1 if 0 <= at < len(start) - 42 else 8


def read(place: Path, name: str, open_: Open, out: NDArray[np.uint8]) -> None:
    """Decode one image into `out` (C, H, W), turned as EXIF says, on white where it is transparent."""
    try:
        with open_(name) as file, Image.open(file) as image:
            image.load()  # a TIFF is turned here, and says so no more
            upright = on_white(ImageOps.exif_transpose(image))
            pixels: NDArray[Any] = np.asarray(upright.convert("L" if len(out) == 1 else "RGB"))
    except UNREADABLE as fault:
        raise unreadable(place, name, fault) from fault
    if pixels.shape[:2] != out.shape[1:]:
        raise another_size(place, name, pixels.shape[1::-1], "its header says", out.shape[:0:-1])
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


def another_size(place: Path, name: str, size: tuple[int, ...], whose: str, other: tuple[int, ...]) -> DataError:
    """What to say of an image of another size."""
    return DataError(
        f"{place}: {name} is {size[0]}×{size[1]} pixels, but {whose} {other[0]}×{other[1]} (width "
        f"× height). A model needs"
        " one size: resize or crop the images to it first."
    )


def unreadable(place: Path, name: str, fault: BaseException) -> DataError:
    """What to say of a broken image."""
    return DataError(f"{place}: {name} cannot be read as an image ({fault}): repair or remove it")


def classes(names: list[str]) -> tuple[NDArray[np.int64] | None, tuple[str, ...] | None]:
    """Labels (N,) and class names from subfolders, if every image lies in one and there are two or more; else None.

    Folders that all images share ("pictures/" in pictures.zip) are looked through.
    """
    base = posixpath.commonpath([f"./{PurePosixPath(name).parent}" for name in names])
    inner = [PurePosixPath(f"./{name}").relative_to(base).parts for name in names]
    folders = sorted({parts[0] for parts in inner if len(parts) > 1})
    if len(folders) < 2 or any(len(parts) < 2 for parts in inner):
        return None, None
    number = {folder: i for i, folder in enumerate(folders)}
    return np.array([number[parts[0]] for parts in inner], np.int64), tuple(folders)
