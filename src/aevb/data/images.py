"""A folder or a .zip of images -> one uint8 array (N, C, H, W), with labels where subfolders name them."""

from __future__ import annotations

import os
import posixpath
import stat
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from aevb.data.damage import reading
from aevb.data.pictures import Fit, Header, Open, header, opened, read, shown, sides
from aevb.data.room import room
from aevb.data.splits import permutation
from aevb.data.walk import passed
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
LARGEST_FILE = 2**30  # bytes of one picture's file
AT_ONCE = 2**26  # pixels that are decoded at a time, in threads
BYTES = 16  # that one of them takes meanwhile


@dataclass(frozen=True)
class Images:
    """Decoded images (N, C, H, W), uint8, and their files; labels (N,), int64, and their names if the subfolders are
    classes."""

    x: NDArray[np.uint8]
    files: tuple[str, ...]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...] | None


def load_images(place: Path, fit: Fit = Fit(), seed: int | None = None) -> Images:
    """All images in a folder (with its subfolders) or in a .zip, in the order of their names.

    All must have one size, after they were turned as EXIF says, or are brought to one by `fit`. They stay grey (C = 1)
    if all are, else they become RGB; what is transparent is laid on white; of an animation the first frame counts. Any
    format is read that Pillow reads by itself. Colour profiles are not applied. The members of a .zip are unpacked in
    memory, one by one; what is written to the disk are the pixels, where `room` says so.
    Warns, with their names, of files that are no images, of animations, and of images that are enlarged.

    seed: of a shuffle, in whose order they then come.

    Raises DataError naming the file: no images, unreadable, another size, 16 bits, a member pointing out of the .zip;
    or if they need more memory than is free.
    """
    if place.is_dir():
        with reading(place, "a folder of images"):
            return decode(place, folder_names(place), lambda name: (place / name).open("rb"), fit, seed)
    with reading(place, "a .zip of images"), zipfile.ZipFile(place) as archive:
        return decode(place, zip_names(place, archive), archive.open, fit, seed)


def folder_names(folder: Path) -> list[str]:
    """The images below a folder, as sorted relative names with forward slashes; links to folders are followed once."""
    names, seen = [], set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=cannot_be_opened):
        known = os.stat(here)
        if (known.st_dev, known.st_ino) in seen:
            folders.clear()
            continue
        seen.add((known.st_dev, known.st_ino))
        folders.sort()
        names += [(Path(here) / name).relative_to(folder).as_posix() for name in files]
    regular = [name for name in names if (folder / name).is_file()]
    return pictures(folder, regular, lambda name: (folder / name).open("rb"), sorted(set(names) - set(regular)))


def cannot_be_opened(fault: OSError) -> NoReturn:
    raise DataError(f"{fault.filename} cannot be opened: {fault.strerror}") from fault


def zip_names(place: Path, archive: zipfile.ZipFile) -> list[str]:
    """The images in a .zip, whose members are checked."""
    check_members(place, archive)
    return pictures(place, [member.filename for member in files_of(archive)], archive.open)


def files_of(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The members that are no folders."""
    return [member for member in archive.infolist() if not member.is_dir()]


def check_members(place: Path, archive: zipfile.ZipFile) -> None:
    """Raise a `DataError` if any member, image or not, is a link or points out of the archive; has the name of another
    one; or is too large."""
    members = files_of(archive)
    for member in archive.infolist():
        if escapes(member):
            raise DataError(f"{place}: the member {member.filename!r} is a link or points out of the archive; not read")
    twice = [name for name, count in Counter(member.filename for member in members).items() if count > 1]
    if twice:
        raise DataError(f"{place} holds {shown(twice[0])!r} twice: which is meant?")
    large = [member.filename for member in members if member.file_size > LARGEST_FILE]
    if large:
        raise DataError(f"{place}: {shown(large[0])} is larger than {LARGEST_FILE / 2**30:.0f} GiB: remove it")


def escapes(member: zipfile.ZipInfo) -> bool:
    """Whether unpacking this member could write outside its folder: '/etc/x', 'C:x', '../x' or a symbolic link."""
    name = member.filename.replace("\\", "/")
    drive = len(name) > 1 and name[1] == ":"
    return name.startswith("/") or drive or ".." in name.split("/") or stat.S_ISLNK(member.external_attr >> 16)


def pictures(place: Path, names: list[str], open_: Open, irregular: Sequence[str] = ()) -> list[str]:
    """Those names whose files are images, by their endings or by how they begin, sorted.

    Warns of all others, but for those that systems put beside images. DataError if there are no images.
    """
    seen = sorted(name for name in names if not system(name))
    hidden = [name for name in seen if is_hidden(name)]
    found = [name for name in seen if not is_hidden(name) and is_picture(name, open_)]
    others = sorted({*seen} - {*hidden} - {*found})
    if not found:
        there = f"; there are other files ({few(others)})" if others else ""
        raise DataError(f"{place} holds no images ({', '.join(USUAL)}, ...), nor do its subfolders{there}")
    tell_left_out(
        place, {"since not readable as images": others, "since hidden": hidden, "since no files": [*irregular]}
    )
    return found


def is_hidden(name: str) -> bool:
    """Whether the name of a file, or of a folder that it is in, begins with a dot."""
    return any(part.startswith(".") for part in name.split("/"))


def tell_left_out(place: Path, left_out: Mapping[str, Sequence[str]]) -> None:
    """Warn of the names that are left out, by the reasons why."""
    for why, names in left_out.items():
        if names:
            warn(f"{place}: left out, {why}: {few(names)} ({len(names):,} in all)")


def is_picture(name: str, open_: Open) -> bool:
    """Whether a file has the ending of a format that Pillow reads, or begins as one does that can be told by that."""
    if PurePosixPath(name).suffix.lower() in suffixes():
        return True
    try:
        with open_(name) as file, opened(file) as image:
            return image.format not in NOT_ALONE and Image.OPEN[str(image.format)][1] is not None
    except Exception:  # whatever Pillow's formats raise for a file that is none of theirs
        return False


@lru_cache(maxsize=1)
def suffixes() -> frozenset[str]:
    """The endings of all formats that Pillow reads by itself."""
    Image.init()
    readable = set(Image.OPEN) - set(NOT_ALONE)
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in readable)


def system(name: str) -> bool:
    """Whether a system put the file there, beside the user's: .DS_Store, ._x, __MACOSX/x, Thumbs.db."""
    *folders, last = name.split("/")
    return "__MACOSX" in folders or last.startswith("._") or last in (".DS_Store", "Thumbs.db", "desktop.ini")


def few(names: Sequence[str]) -> str:
    """The first five of some names."""
    return ", ".join(map(shown, names[:5])) + (", ..." if len(names) > 5 else "")


def warn(text: str) -> None:
    warnings.warn(text, AevbWarning, stacklevel=2)


@contextmanager
def large_pictures() -> Iterator[None]:
    """Without Pillow's warning of pictures above 89 million pixels: memory is counted here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def decode(place: Path, names: list[str], open_: Open, fit: Fit, seed: int | None = None) -> Images:
    """Read the headers, which decide size and channels; then decode straight into one array, in threads."""
    with large_pictures():
        headers = headers_of(place, names, open_)
    check_depth(place, names, headers)
    width, height = common_size(place, names, headers, fit)
    grey = all(found.grey for found in headers)
    tell(place, names, headers, fit)
    largest = max(found.size[0] * found.size[1] for found in headers)
    shape = (len(names), 1 if grey else 3, height, width)
    names = names if seed is None else [names[i] for i in permutation(len(names), seed)]
    x = room(shape, np.uint8, place, f"{len(names):,} images", BYTES * largest)
    with large_pictures(), ThreadPoolExecutor(max(1, min(os.cpu_count() or 1, AT_ONCE // largest))) as pool:
        try:
            done = pool.map(lambda i: read(place, names[i], open_, fit, x[i]), range(len(names)))
            for _ in passed(zip(done), len(names)):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Images(x, tuple(map(shown, names)), *classes(names))


def headers_of(place: Path, names: list[str], open_: Open) -> list[Header]:
    """What all files say of their pictures.  DataError for the first that cannot be read, which names the others."""
    found, faults = [], {}
    for (name,) in passed(zip(names), len(names)):
        try:
            found.append(header(place, name, open_))
        except DataError as fault:
            faults[name] = fault
    if faults:
        others = [shown(name) for name in faults][1:]
        more = f" Nor can {len(others):,} more be read: {few(others)}." if others else ""
        raise DataError(f"{faults[next(iter(faults))]}{more}")
    return found


def check_depth(place: Path, names: list[str], headers: list[Header]) -> None:
    """Raise DataError for the first image with more than 8 bits a channel."""
    for name, found in zip(names, headers, strict=True):
        if found.deep:
            raise DataError(
                f"{place}: {shown(name)} has more than 8 bits a channel, of which the lower would be lost. "
                "Rescale its values and save it with 8 bits, or give the pixels as an array (.npy), which may have any"
                " numbers."
            )


def common_size(place: Path, names: list[str], headers: list[Header], fit: Fit) -> tuple[int, int]:
    """The (width, height) that all images have, or get.  DataError for the first that has another, or is no square."""
    for name, found in zip(names, headers, strict=True):
        if fit.size is None and found.size != headers[0].size:
            side = min(64, *(min(each.size) for each in headers))
            raise DataError(
                f"{place}: {shown(name)} is {sides(found.size)} pixels, but {shown(names[0])} is"
                f" {sides(headers[0].size)} (width × height). A model needs one size: resize or crop the images, as"
                f" with --size {side} --crop centre (size={side}, crop='centre' in Python)."
            )
        if fit.size is not None and fit.crop is None and found.size[0] != found.size[1]:
            raise DataError(
                f"{place}: {shown(name)} is {sides(found.size)} pixels (width × height), not square. Say --crop centre"
                " to take the middle of each image, or --crop stretch to take all of it (crop= in Python)."
            )
    return headers[0].size if fit.size is None else (fit.size, fit.size)


def tell(place: Path, names: list[str], headers: list[Header], fit: Fit) -> None:
    """Warn of animations, and of images that are enlarged."""
    moving = [name for name, found in zip(names, headers, strict=True) if found.animated]
    if moving:
        warn(f"{place}: of several frames the first is read: {few(moving)} ({len(moving):,} in all)")
    small = [name for name, found in zip(names, headers, strict=True) if min(found.size) < (fit.size or 0)]
    if small:
        warn(f"{place}: enlarged to {fit.size} pixels, since smaller: {few(small)} ({len(small):,} in all)")


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
    return np.array([number[parts[0]] for parts in inner], np.int64), tuple(map(shown, folders))
