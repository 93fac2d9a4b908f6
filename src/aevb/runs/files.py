"""Files that are whole or not there: written beside their place, then moved into it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aevb.errors import RunError

CHECKSUM = "sha256"  # the note of a file of tensors that says what was written
CURES = {  # of a damaged file of a run; {run} is its folder
    "weights.safetensors": "Write it anew from the last checkpoint: aevb train --resume {run}",
    "objective.safetensors": "Write it anew from the last checkpoint: aevb train --resume {run}",
    "state.safetensors": "Bring back a copy of it; or remove it, and aevb train --resume {run} begins anew",
    "meta.json": "Bring back a copy of it, or train again into another folder",
    "recipe.toml": "Bring back a copy of it, or train again into another folder",
}


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` on a neighbour of `path`, then move that into its place; a failure leaves the old file as it was."""
    beside = partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        with beside.open("rb") as f:
            os.fsync(f.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        with suppress(OSError):  # the error above says more
            beside.unlink(missing_ok=True)


def identity(folder: Path) -> tuple[int, int] | None:
    """What tells a folder from another one that takes its place; None where there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def partial(path: Path) -> Path:
    """Where `path` is written before it is moved into place."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from working in a folder; a process that dies, however it dies, lets go of it.

    Raises:
        RunError: another process is at work there.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise RunError(f"{folder} cannot be read: {error.strerror or error}.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"Another process is training {folder}. Wait for it, or stop it first.") from error
        except OSError:  # a file system without locks
            pass
        held = os.fstat(handle)
        if (held.st_dev, held.st_ino) != identity(folder):
            raise RunError(f"{folder} was moved or removed by another process. Try again.")
        yield
    finally:
        os.close(handle)


def busy(folder: Path) -> bool:
    """Whether a process is at work in a folder, by `alone`."""
    try:
        with alone(folder):
            return False
    except RunError:
        return True


def sweep(folder: Path) -> None:
    """Remove what killed processes left half written in a folder and below."""
    for path in folder.rglob(".*.partial"):
        if not path.is_dir():
            path.unlink(missing_ok=True)


def sweep_beside(folder: Path) -> None:
    """Remove the half-made run folders that killed processes left where `folder` is."""
    for path in folder.parent.glob(".*.partial"):
        maker = path.name.split(".")[-2]
        if path.is_dir() and maker.isdecimal() and not _lives(int(maker)) and not busy(path):
            shutil.rmtree(path, ignore_errors=True)


def _lives(process: int) -> bool:
    """Whether there is a process of this number, as far as one can see."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def damaged(path: Path, why: object) -> RunError:
    """What to say of a file of a run that is not what was written, with its cure."""
    run = path.parent.parent if path.parent.name == "checkpoint" else path.parent
    cure = CURES.get(path.name, "").format(run=run)
    return RunError(f"{path} is damaged: {why}." + f" {cure}." * bool(cure))


def disk_error(path: Path, error: OSError) -> RunError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(
            f"The disk is full: {path} could not be written. What was there before is untouched; free some space, "
            "then resume."
        )
    return RunError(f"{path} could not be written: {error.strerror or error}.")


def write_text(path: Path, text: str) -> None:
    write_whole(path, lambda p: _text(p, text))


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The table in a file of JSON.

    Raises:
        RunError: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(content, dict):
        raise damaged(path, "it holds no table of names and values")
    return content


def write_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> None:
    """A safetensors file, data only, so that nothing in it can run; its notes keep the checksum of all of it."""
    written = apart(tensors)
    about = {**(notes or {}), CHECKSUM: checksum(written, notes or {})}
    write_whole(path, lambda p: save(p, written, about))


def save(path: Path, tensors: dict[str, Tensor], notes: dict[str, str]) -> None:
    """A safetensors file, written without a copy in memory.  OSError as of any file."""
    import safetensors.torch

    path.touch()
    usual = path.stat().st_mode  # safetensors makes files that only their owner may read
    try:
        safetensors.torch.save_file(tensors, path, notes)
    except safetensors.SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        raise OSError(*((int(found[1]), os.strerror(int(found[1]))) if found else (str(error),))) from error
    path.chmod(usual)


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each contiguous and in memory of its own, as safetensors wants them."""
    out: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, v in tensors.items():
        v = v.detach().cpu().contiguous()
        memory = v.untyped_storage()
        shared = memory.data_ptr() in seen or memory.nbytes() != v.nbytes
        out[name] = v.clone() if shared else v
        seen.add(memory.data_ptr())
    return out


def read_tensors(path: Path, finite: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the notes of a safetensors file.

    Args:
        finite: whether all numbers must be finite; rows of a table need not be, NaN is a missing cell.

    Raises:
        RunError: there is no such file, it is damaged, or a number in it is not finite. A file of aevb 0.1 has no
            checksum, so what changed in its numbers is not seen.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as f:
            tensors, notes = {k: f.get_tensor(k) for k in f.keys()}, dict(f.metadata() or {})  # noqa: SIM118
    except FileNotFoundError as error:
        raise RunError(f"There is no {path}.") from error
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise damaged(path, error) from error
    written = notes.pop(CHECKSUM, None)
    if written is not None and written != checksum(tensors, notes):
        raise damaged(path, "its checksum is not the one written")
    for name in _not_finite(tensors) if finite else ():
        raise damaged(path, f"{name} holds NaN or infinite numbers")
    return tensors, notes


def _not_finite(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """The names of tensors that hold NaN or infinite numbers."""
    return (k for k, v in tensors.items() if v.is_floating_point() and not bool(torch.isfinite(v).all()))


def checksum(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> str:
    """The sha256 of tensors on the CPU with their names, types and shapes, and of notes."""
    digest = hashlib.sha256(json.dumps(sorted(notes.items())).encode())
    for name, v in sorted(tensors.items()):
        digest.update(repr((name, v.dtype, tuple(v.shape))).encode())
        if v.numel():
            digest.update(v.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
