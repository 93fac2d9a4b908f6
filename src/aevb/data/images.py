"""A folder or a .zip of images -> one uint8 array (N, C, H, W), with labels where subfolders name them."""

from __future__ import annotations

import posixpath
import stat
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from aevb.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
GREY = ("1", "L", "LA")
DEEP = ("I", "F")  # 16 or 32 bits a pixel: Pillow would clip them to 8, silently
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


def load_images(place: Path) -> Images:
    """All images in a folder (with its subfolders) or in a .zip, in the order of their names.

    All must have one size.  They stay grey (C = 1) if all are, else they become RGB; transparency is dropped; of an
    animation the first frame counts.  A .zip is read in memory: nothing is written to the disk.
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
    return pictures(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def zip_names(place: Path, archive: zipfile.ZipFile) -> list[str]:
    """The images in a .zip.  DataError if any member, image or not, is a link or points out of the archive."""
    for member in archive.infolist():
        if escapes(member):
            raise DataError(f"{place}: the member {member.filename!r} is a link or points out of the archive; not read")
    return pictures(member.filename for member in archive.infolist() if not member.is_dir())


def escapes(member: zipfile.ZipInfo) -> bool:
    """Whether unpacking this member could write outside its folder: '/etc/x', 'C:x', '../x' or a symbolic link."""
    name = member.filename.replace("\\", "/")
    drive = len(name) > 1 and name[1] == ":"
    return name.startswith("/") or drive or ".." in name.split("/") or stat.S_ISLNK(member.external_attr >> 16)


def pictures(names: Iterable[str]) -> list[str]:
    """Those names that end as an image's does; hidden files and the Mac's resource forks are no images."""
    return sorted(n for n in names if n.lower().endswith(SUFFIXES) and not hidden(n))


def hidden(name: str) -> bool:
    """Whether a part of the name starts with a dot, or is __MACOSX."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def decode(place: Path, names: list[str], open_: Open) -> Images:
    """Read the headers, which decide size and channels; then decode straight into one array, in threads."""
    if not names:
        raise DataError(f"{place} holds no images ({', '.join(SUFFIXES)}), in no subfolder either")
    (width, height), grey = look(place, names, open_)
    x = np.empty((len(names), 1 if grey else 3, height, width), np.uint8)
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(lambda i: read(place, names[i], open_, x[i]), range(len(names))):
            pass
    return Images(x, *classes(names))


def look(place: Path, names: list[str], open_: Open) -> tuple[tuple[int, int], bool]:
    """The common (width, height), and whether all are grey.  DataError for the first of another size."""
    sizes, modes = zip(*(header(place, name, open_) for name in names), strict=True)
    for name, size, mode in zip(names, sizes, modes, strict=True):
        if size != sizes[0]:
            raise DataError(
                f"{place}: {name} is {size[0]}×{size[1]} pixels, but {names[0]} is {sizes[0][0]}×{sizes[0][1]}"
                " (width × height). A model needs one size: resize or crop the images to it first."
            )
        if mode.startswith(DEEP):
            raise DataError(f"{place}: {name} has more than 8 bits a pixel (mode {mode}): save it with 8 bits first")
    return sizes[0], all(mode in GREY for mode in modes)


def header(place: Path, name: str, open_: Open) -> tuple[tuple[int, int], str]:
    """(width, height) and Pillow's mode, without decoding."""
    try:
        with open_(name) as file, Image.open(file) as image:
            return image.size, image.mode
    except UNREADABLE as fault:
        raise unreadable(place, name, fault) from fault


def read(place: Path, name: str, open_: Open, out: NDArray[np.uint8]) -> None:
    """Decode one image into `out` (C, H, W)."""
    try:
        with open_(name) as file, Image.open(file) as image:
            pixels: NDArray[Any] = np.asarray(image.convert("L" if len(out) == 1 else "RGB"))
    except UNREADABLE as fault:
        raise unreadable(place, name, fault) from fault
    out[:] = pixels.reshape(*pixels.shape[:2], len(out)).transpose(2, 0, 1)


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
