"""Files: found locally, or downloaded once, and never trusted before their checksum was compared.

Order: the folder that the user named (`data_dir`, else the environment variable AEVB_DATA), then the cache (AEVB_CACHE,
else the place where this system keeps caches), then the addresses, one after the other.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pooch

from aevb.errors import DataError

BY_HAND = "Get the file by hand and name its folder: --data-dir FOLDER (data_dir= in Python) or AEVB_DATA=FOLDER."
TIMEOUT = 30.0  # seconds without an answer or a byte


@dataclass(frozen=True)
class File:
    """A published file: its name, the addresses to try in turn, its checksum as 'sha256:…' or 'md5:…' if known."""

    name: str
    urls: tuple[str, ...]
    checksum: str | None = None


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
            verify(local, file.checksum)
            return local
        target = cache_folder() / self.folder / file.name
        if target.is_file() and mismatch(target, file.checksum) is None:
            return target
        if not self.download:
            looked = f"neither in {local_folder(self.data_dir) or 'a data folder'} nor in {target.parent}"
            raise DataError(f"{self.folder}: {file.name} is {looked}, and downloading is off. {BY_HAND}")
        return self._download(file, target)

    def _download(self, file: File, target: Path) -> Path:
        faults = []
        for url in file.urls:
            try:
                download(url, target, file.checksum)
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
    return Path(os.environ.get("AEVB_CACHE") or pooch.os_cache("aevb")).expanduser()


def download(url: str, target: Path, checksum: str | None) -> None:
    """Download to a scratch folder beside the target; move it there, atomically, only once it is known to be right.

    Raises DataError for a wrong checksum, OSError for anything that the network does.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent) as scratch:
        part = Path(scratch) / target.name
        pooch.HTTPDownloader(timeout=TIMEOUT, chunk_size=1 << 16)(url, str(part), None)
        fault = mismatch(part, checksum)
        if fault is not None:
            raise DataError(f"what came is damaged or another file: {fault}")
        part.replace(target)


def verify(path: Path, checksum: str | None) -> None:
    """Raise DataError, naming the file, the checksum expected and the one found, if they differ."""
    fault = mismatch(path, checksum)
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
