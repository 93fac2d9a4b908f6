"""Files: found locally, or downloaded once, and never trusted before their checksum was compared.

Order: the folder that the user named (`data_dir`, else the environment variable AEVB_DATA), then the cache (AEVB_CACHE,
else the place where this system keeps caches), then the addresses, one after the other.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aevb.errors import DataError

BY_HAND = "Get the file by hand and name its folder: --data-dir FOLDER (data_dir= in Python) or AEVB_DATA=FOLDER."
TIMEOUT = 30.0  # seconds without an answer or a byte
DEADLINE = 1800.0  # seconds for a whole file
LARGEST = 2**28  # bytes of a file; the largest of `SOURCES` have some 30 MB
CHUNK = 1 << 16  # bytes
SCRATCH = ".part-"  # how folders of unfinished downloads begin


@dataclass(frozen=True)
class File:
    """A published file: its name, the addresses to try in turn, its checksum as 'sha256:…' or 'md5:…' if known.

    `check` raises DataError for a file that is damaged or another one, where no checksum tells.
    """

    name: str
    urls: tuple[str, ...]
    checksum: str | None = None
    check: Callable[[Path], None] | None = None

    def fault(self, path: Path) -> str | None:
        """What is wrong with a copy of this file, or None if it is right, as far as can be told."""
        wrong = mismatch(path, self.checksum)
        if wrong is None and self.check is not None:
            try:
                self.check(path)
            except DataError as fault:
                return str(fault)
        return wrong


@dataclass(frozen=True)
class Store:
    """Where the files of one data set are looked for.  `folder` is the data set's name: "fashion-mnist"."""

    folder: str
    data_dir: str | Path | None = None
    download: bool = True

    def find(self, name: str) -> Path | None:
        """The user's own copy of a file, in <data_dir>/<folder>/ or in <data_dir>/ itself, if there is one."""
        base = local_folder(self.data_dir)
        if base is None:
            return None
        places = [base / self.folder, base / self.folder.replace("-", "_"), base]
        return next((place / name for place in places if (place / name).is_file()), None)

    def get(self, file: File) -> Path:
        """The path of a file whose checksum is right.

        A wrong local file is an error and stays as it is; a wrong file in the cache is replaced.
        Raises DataError if the local file is wrong, or if the file cannot be had: it lists every address and its fault.
        """
        local = self.find(file.name)
        if local is not None:
            verify(local, file)
            return local
        target = cache_folder() / self.folder / file.name
        if target.is_file() and file.fault(target) is None:
            return target
        if not self.download:
            looked = f"neither in {local_folder(self.data_dir) or 'a data folder'} nor in {target.parent}"
            raise DataError(f"{self.folder}: {file.name} is {looked}, and downloading is off. {BY_HAND}")
        return self._download(file, target)

    def _download(self, file: File, target: Path) -> Path:
        target.unlink(missing_ok=True)  # one that is wrong
        faults = []
        for url in file.urls:
            try:
                download(url, target, file)
                return target
            except (OSError, ValueError) as fault:  # requests' own errors are OSErrors
                faults.append(f"  {url}: {fault}")
        tried = "\n".join(faults)
        raise DataError(f"{self.folder}: {file.name} could not be downloaded. Tried:\n{tried}\n{BY_HAND}")


def local_folder(data_dir: str | Path | None) -> Path | None:
    """The folder of the user's own copies: `data_dir`, else AEVB_DATA, else None.  DataError if it does not exist."""
    named = data_dir or os.environ.get("AEVB_DATA")
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise DataError(f"the data folder {str(named)!r} (--data-dir or AEVB_DATA) does not exist")
    return folder


def cache_folder() -> Path:
    """Where downloads are kept: AEVB_CACHE, else the system's cache folder for aevb."""
    from pooch import os_cache  # late: most data need no cache

    return Path(os.environ.get("AEVB_CACHE") or os_cache("aevb")).expanduser()


def download(url: str, target: Path, file: File) -> None:
    """Download to a scratch folder beside the target; move it there, atomically, only once it is known to be right.

    Raises DataError for a wrong file, OSError for anything that the network does, and for what is too slow or too
    large.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=target.parent) as scratch:
        part = Path(scratch) / target.name
        fetch(url, part)
        fault = file.fault(part)
        if fault is not None:
            raise DataError(f"what came is damaged or another file: {fault}")
        part.replace(target)


def sweep(folder: Path) -> None:
    """Remove what downloads left that were killed: scratch folders that are older than a download may take."""
    for scratch in folder.glob(f"{SCRATCH}*"):
        if scratch.stat().st_mtime < time.time() - 2 * DEADLINE:
            shutil.rmtree(scratch, ignore_errors=True)


def fetch(url: str, part: Path) -> None:
    """Write what an address gives to a file, byte for byte: nothing that is packed is unpacked.

    Raises OSError for what the network does, or if that takes longer than `DEADLINE` or has more than `LARGEST` bytes.
    """
    import requests  # here, since it takes a tenth of a second to import
    from urllib3.exceptions import HTTPError

    with requests.get(url, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}) as answer:
        answer.raise_for_status()
        expected = int(answer.headers.get("Content-Length", "-1"))
        if expected > LARGEST:
            raise OSError(f"the file has {expected:,} bytes, more than the {LARGEST:,} that are allowed")
        try:
            got = write(answer.raw, part)
        except HTTPError as fault:
            raise OSError(str(fault)) from fault
    if 0 <= expected != got:
        raise OSError(f"the connection was lost: {got:,} of {expected:,} bytes arrived")


def write(answer: Any, part: Path) -> int:
    """Write an answer of urllib3 to a file as it comes, and count its bytes."""
    end, got, read = time.monotonic() + DEADLINE, 0, getattr(answer, "read1", answer.read)
    with part.open("wb") as out:
        while chunk := read(CHUNK):
            got += out.write(chunk)
            if got > LARGEST:
                raise OSError(f"more than the allowed {LARGEST:,} bytes arrived")
            if time.monotonic() > end:
                raise OSError(f"it took longer than {DEADLINE:,.0f} seconds, in which {got:,} bytes arrived")
    return got


def verify(path: Path, file: File) -> None:
    """Raise DataError, naming the file, the checksum expected and the one found, if they differ."""
    fault = file.fault(path)
    if fault is not None:
        raise DataError(
            f"{path} is not the published file: {fault}. Replace it, or move it away to have it downloaded."
        )


def mismatch(path: Path, checksum: str | None) -> str | None:
    """«expected sha256 …, got …, 12 bytes», or None if the file is right or its checksum is not known."""
    if checksum is None:
        return None
    algorithm, expected = checksum.split(":")
    with path.open("rb") as file:
        got = hashlib.file_digest(file, algorithm).hexdigest()
    if got == expected:
        return None
    return f"expected {algorithm} {expected}, got {got} ({path.stat().st_size:,} bytes)"
