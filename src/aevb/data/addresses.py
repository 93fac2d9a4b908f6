"""Addresses such as s3://bucket/table.parquet: the files that they name, copied into the cache piece by piece.

pyarrow's file systems read them, and find credentials, regions and end points as pyarrow's documentation says.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, cast

from aevb.data.damage import reading
from aevb.data.fetch import cache_folder
from aevb.errors import AevbError, DataError

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "file")  # those of `pyarrow.fs.FileSystem.from_uri`
FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
FOLDER = "addresses"  # of the cache
PIECE = 2**24  # bytes that are copied at a time
WHAT = "an address of pyarrow's file systems"

F = TypeVar("F", bound=Callable[..., Any])


def is_address(source: object) -> bool:
    """Whether this is an address, such as s3://bucket/table.parquet."""
    return isinstance(source, str) and FORM.match(source) is not None


def reaching(read: F) -> F:
    """A function of a source that takes addresses too: it is given the path, and its errors name the address."""

    @wraps(read)
    def reached(source: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_address(source):
            return read(source, *args, **kwargs)
        place = local(source)
        with called(place, source):
            return read(str(place), *args, **kwargs)

    return cast(F, reached)


def here(source: str) -> Path:
    """The path of a source on this machine: of an address that of its copy."""
    return local(source) if is_address(source) else Path(source).expanduser()


def bare(source: str) -> str:
    """A source without what follows the path of an address, such as ?region=eu-west-1."""
    return source.partition("?")[0] if is_address(source) else source


@contextmanager
def called(place: Path, address: str) -> Iterator[None]:
    """Let the errors of a block name an address, and not the copy."""
    try:
        yield
    except AevbError as fault:
        fault.args = tuple(str(said).replace(str(place), address) for said in fault.args)
        raise


def local(address: str) -> Path:
    """The path of what an address names: a file or a folder of this machine, or its copy in the cache.

    Raises:
        DataError: there is no such thing, or it cannot be read, or there is no room for the copy.
    """
    system, path = opened(address)
    if system.type_name == "local":
        return Path(path)
    with reading(address, WHAT):
        return copied(address, system, path.rstrip("/"))


def opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it.  DataError where pyarrow has none for it."""
    scheme = address.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise DataError(
            f"{address}: {scheme}:// cannot be read. Addresses begin with {'://, '.join(SCHEMES)}://. Download the"
            " data, and give their path."
        )
    with reading(address, WHAT):
        import pyarrow.fs

        system, path = pyarrow.fs.FileSystem.from_uri(address)
    return system, path


def copied(address: str, system: Any, path: str) -> Path:
    """The copy of a file or a folder. What was copied before, and has the same size and time, is not read again."""
    from filelock import FileLock

    cache = cache_folder() / FOLDER
    place = cache / hashlib.sha256(address.encode()).hexdigest()[:16] / PurePosixPath(path).name
    there = files_at(system, path)
    if not there:
        raise DataError(f"there is no file and no folder of files at {address}.")
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place.parent}.lock"):  # of several processes one copies
        new = {name: info for name, info in there.items() if not same(place / name, info)}
        from aevb.data.room import refuse_above_disk  # imports NumPy, which help and lists do without

        refuse_above_disk(sum(info.size for info in new.values()), address, "its copy", cache, "AEVB_CACHE")
        for name, info in new.items():
            bring(system, info, place / name)
        forget(place, {place / name for name in there})
    return place


def files_at(system: Any, path: str) -> dict[PurePosixPath, Any]:
    """The files below a path, by their names relative to it; of a file itself one, whose name is empty."""
    from pyarrow.fs import FileSelector, FileType

    info = system.get_file_info(path)
    if info.type == FileType.File:
        return {PurePosixPath(): info}
    if info.type != FileType.Directory:
        return {}
    found = [one for one in system.get_file_info(FileSelector(path, recursive=True)) if one.type == FileType.File]
    names = {PurePosixPath(one.path).relative_to(path): one for one in found}
    if outside := next((name for name in names if ".." in name.parts), None):
        raise DataError(f"{path}: the name {str(outside)!r} points out of the folder. Give it another.")
    return names


def same(copy: Path, info: Any) -> bool:
    """Whether a copy has the size and the time, in seconds, of the file."""
    if info.mtime_ns is None or not copy.is_file():
        return False
    found = copy.stat()
    return (found.st_size, int(found.st_mtime)) == (info.size, info.mtime_ns // 10**9)


def bring(system: Any, info: Any, copy: Path) -> None:
    """Copy a file with its time; it has its name once it is whole."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    part = copy.with_name(f"{copy.name}.part")
    with system.open_input_stream(info.path, compression=None) as file, part.open("wb") as out:
        while piece := file.read(PIECE):
            out.write(piece)
    if info.mtime_ns is not None:
        os.utime(part, ns=(info.mtime_ns, info.mtime_ns))
    part.replace(copy)


def forget(place: Path, kept: set[Path]) -> None:
    """Remove from a copied folder what is there no more."""
    for file in place.rglob("*"):
        if file.is_file() and file not in kept:
            file.unlink()
