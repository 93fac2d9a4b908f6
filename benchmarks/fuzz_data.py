"""Damaged data files: every one must load, or end in one sentence that names it.

    python benchmarks/fuzz_data.py [--files 10000] [--seed 0] [--keep FOLDER]

Makes files of NumPy, .zips and folders of pictures, damages them by a seed, and loads each. It counts what was
accepted, what ended in a `DataError`, and what ended otherwise; how long the slowest took, and how much memory all of
them. Chunks run in processes of their own, so that one that dies is counted too. `--keep` saves the files that ended
otherwise.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse
from PIL import Image

CHUNK = 500  # files that one process loads
SLOW = 5.0  # seconds
PICTURES = ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "TGA", "PCX", "SGI", "ICO", "JPEG2000")
ENDINGS = {"JPEG": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
SHAPES = (
    "(1000000000000, 3)",
    "(True, 3)",
    "(99999999999999999999999, 3)",
    "(-1, 3)",
    "(12, 3.0)",
    "(0, 3)",
    "()",
    "12",
)
TYPES = ("'|O'", "'<f2'", "'>f8'", "'<c16'", "'<U7'", "'|V8'", "'<M8[s]'", "[('a', '<f8')]", "'<f16'", "'|b1'")
TEXTS = (b"1,2,3\n4,5,6\n", b"<html>404</html>", b"", b"\0", b"PK", b"\x93NUMPY", b"version https://git-lfs\n", b"{}")


@dataclass
class Counts:
    """What became of some files."""

    accepted: int = 0
    refused: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    examples: list[str] = field(default_factory=list)

    def add(self, other: Counts) -> None:
        self.accepted += other.accepted
        self.refused += other.refused
        self.failed.update(other.failed)
        self.slowest = max(self.slowest, other.slowest)
        self.examples += other.examples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--chunk", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.chunk is not None:
        counts = fuzz(options.files, options.chunk, options.keep)
        return print(json.dumps({**vars(counts), "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))
    total, memory = Counts(), 0.0
    for start in range(0, options.files, CHUNK):
        number = min(CHUNK, options.files - start)
        arguments = ["--files", str(number), "--chunk", str(options.seed * 10**6 + start)]
        arguments += ["--keep", str(options.keep)] * bool(options.keep)
        done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
        if done.returncode:
            total.failed[f"the process ended with {done.returncode}: {done.stderr[-500:]}"] += 1
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        memory = max(memory, found.pop("memory"))
        total.add(Counts(**{**found, "failed": Counter(found["failed"])}))
    print(f"{options.files:,} files: {total.accepted:,} accepted, {total.refused:,} refused in a sentence,", end=" ")
    print(f"{sum(total.failed.values()):,} failed; the slowest took {total.slowest:.2f} s; {memory:.2f} GiB at most")
    for words, count in total.failed.most_common():
        print(f"{count:6,}  {words}")
    return None


def fuzz(files: int, seed: int, keep: Path | None = None) -> Counts:
    """Load some damaged files, each a function of the seed and its number."""
    counts = Counts()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(files):
            place = damaged(Path(folder), random.Random(f"{seed + number}"))
            outcome(place, counts)
            if keep and sum(counts.failed.values()) > len(counts.examples):
                keep.mkdir(parents=True, exist_ok=True)
                counts.examples.append(f"{seed + number}-{place.name}")
                (shutil.copytree if place.is_dir() else shutil.copy)(place, keep / counts.examples[-1])
    return counts


def outcome(place: Path, counts: Counts) -> None:
    """Load one file, and count what happens."""
    from aevb.data.sources import load_data
    from aevb.errors import DataError

    start = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = load_data(place)
            assert sum(map(len, (data.train, data.validation, data.test))) > 2
            data.train[:1], data.test[:1]
        counts.accepted += 1
    except DataError as refusal:
        counts.refused += 1
        if place.name not in str(refusal) or "\n" in str(refusal):
            counts.failed[f"no sentence that names the file: {refusal}"[:200]] += 1
    except BaseException as fault:
        where = traceback.extract_tb(fault.__traceback__)[-1]
        counts.failed[f"{type(fault).__name__} at {Path(where.filename).name}:{where.lineno}: {fault}"[:200]] += 1
    took = time.monotonic() - start
    counts.slowest = max(counts.slowest, took)
    if took > SLOW:
        counts.failed[f"slow: {took:.1f} s"] += 1


# Files


def damaged(folder: Path, rng: random.Random) -> Path:
    """A damaged file, or a folder with one."""
    kind = rng.choices(("npy", "npz", "zip", "folder", "text"), (34, 30, 22, 10, 4))[0]
    return {"npy": npy, "npz": npz, "zip": zipped, "folder": pictures_in, "text": text}[kind](folder, rng)


def npy(folder: Path, rng: random.Random) -> Path:
    return written(folder / "x.npy", damage(forge(array_file(array(rng)), rng), rng))


def npz(folder: Path, rng: random.Random) -> Path:
    x, other, n = array(rng), array(rng), rng.choice((6, 12))
    words = np.array([b"\xe9t\xe9", b"b", b"c"])
    labels = rng.choice((np.arange(n) % 3, np.arange(n) * 1e29, words[np.arange(n) % 3], np.full(n, 2**63, np.uint64)))
    sets = (
        {"x": x, "y": labels},
        {"x": x, "X": other},
        {"x_train": x, "x_test": x[:2], "y_train": labels, "y_test": labels[:2]},
        {"x_train": x, "x_val": x[:2], "x_test": x[:0]},
        {"a": x, "b": other},
        {"pixels": x, "target": labels},
    )
    members = {f"{name}.npy": forge(array_file(a), rng) for name, a in rng.choice(sets).items()}
    if rng.random() < 0.1:
        scipy.sparse.save_npz(
            folder / "x.npz", scipy.sparse.random(9, 5, 0.4, rng.choice(("csr", "coo")), random_state=1)
        )
        with zipfile.ZipFile(folder / "x.npz") as archive:
            members = {name: forge(archive.read(name), rng) for name in archive.namelist()}
    if rng.random() < 0.1:
        members["README.txt"] = b"hi"
    return written(folder / "x.npz", damage(archive_of(members, rng), rng))


def zipped(folder: Path, rng: random.Random) -> Path:
    members = {name: half(damage, content, rng) for name, content in picture_files(rng).items()}
    return written(folder / "p.zip", half(damage, archive_of(members, rng), rng))


def pictures_in(folder: Path, rng: random.Random) -> Path:
    place = folder / "pictures"
    shutil.rmtree(place, ignore_errors=True)
    for name, content in picture_files(rng).items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(half(damage, content, rng))
    return place


def text(folder: Path, rng: random.Random) -> Path:
    return written(folder / f"t{rng.choice(('.npy', '.npz', '.zip', '.csv', '.png', ''))}", rng.choice(TEXTS))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def array(rng: random.Random) -> np.ndarray:
    shape = rng.choice(((12, 3), (6, 4, 4), (6, 4, 4, 3), (6, 1, 5, 5), (12,), (6, 2, 2, 2)))
    x = np.random.default_rng(rng.randrange(99)).integers(0, 256, shape)
    x = x.astype(rng.choice(("u1", "i8", "f4", "f8", ">f4", "f2", "b1", "u8")))
    return np.asfortranarray(x) if rng.random() < 0.2 else x


def array_file(x: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, x, version=(1, 0) if x.size % 2 else (2, 0))
    return file.getvalue()


def picture_files(rng: random.Random) -> dict[str, bytes]:
    """Small pictures of many formats, modes and sizes by their names."""
    size = rng.choice(((6, 4), (8, 8)))
    names = [f"{rng.choice(('', 'a/', 'b/'))}{i}" for i in range(rng.choice((3, 5)))]
    return dict(picture(name, size, rng) for name in names)


def picture(name: str, size: tuple[int, int], rng: random.Random) -> tuple[str, bytes]:
    kind, mode = rng.choice(PICTURES), rng.choice(("L", "RGB", "RGBA", "P", "1", "LA", "CMYK", "I;16", "F"))
    noise = Image.frombytes("RGB", size, rng.randbytes(3 * size[0] * size[1]))
    file = io.BytesIO()
    try:
        (noise if mode in ("I;16",) else noise.convert(mode)).save(file, kind)
    except (OSError, ValueError, KeyError):  # this format has no such mode
        file = io.BytesIO()
        noise.save(file, "PNG")
        kind = "PNG"
    return f"{name}.{ENDINGS.get(kind, kind.lower())}", file.getvalue()


def archive_of(members: dict[str, bytes], rng: random.Random) -> bytes:
    file, how = io.BytesIO(), rng.choice(COMPRESSIONS)
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", how) as archive:
        warnings.simplefilter("ignore")
        for name, content in members.items():
            archive.writestr(name, content)
        if rng.random() < 0.05:
            archive.writestr(name, content)
    return file.getvalue()


# Damage


def half(change: Callable[[bytes, random.Random], bytes], content: bytes, rng: random.Random) -> bytes:
    """Changed half of the time."""
    return change(content, rng) if rng.random() < 0.5 else content


def forge(content: bytes, rng: random.Random) -> bytes:
    """Now and then with another shape or type in the header of an array."""
    chance, end = rng.random(), content.find(b"}")
    if chance > 0.25 or end < 0:
        return content
    start = content.index(b"{")
    shape, kind = rng.choice(SHAPES), rng.choice(TYPES)
    header = content[start:end].decode("latin1")
    if chance < 0.12:
        header = header[: header.index("'shape'")] + f"'shape': {shape}, "
    elif chance < 0.22:
        header = f"{{'descr': {kind}, " + header[header.index("'fortran_order'") :]
    else:
        header = rng.choice(("{" * 500, "-" * 9000 + "1", "{'descr': '<f4'", "{'a'" + ":{'a'" * 90))
    return content[:start] + header.encode("latin1") + content[end:]


def damage(content: bytes, rng: random.Random) -> bytes:
    """One to three changes, by bit, byte or stretch; often near the start or the end, where headers are."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = rng.choice((flip, flip, put, put, cut, drop, double, blank))(content, rng) if content else content
    return content


def spot(content: bytes, rng: random.Random) -> int:
    reach = rng.choice((64, 200, len(content)))
    at = rng.randrange(min(reach, len(content)))
    return rng.choice((at, len(content) - 1 - at))


def flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    changed[spot(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def put(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    changed[spot(content, rng)] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: spot(content, rng)]


def drop(content: bytes, rng: random.Random) -> bytes:
    at = spot(content, rng)
    return content[:at] + content[at + rng.choice((1, 2, 8, 50)) :]


def double(content: bytes, rng: random.Random) -> bytes:
    at, size = spot(content, rng), rng.choice((1, 4, 30))
    return content[:at] + content[at : at + size] + content[at:]


def blank(content: bytes, rng: random.Random) -> bytes:
    at, size = spot(content, rng), rng.choice((2, 4, 16))
    return content[:at] + bytes(len(content[at : at + size])) + content[at + size :]


if __name__ == "__main__":
    main()
