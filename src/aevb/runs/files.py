"""Files that are whole or not there: written beside their place, then moved into it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from aevb.errors import RunError


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
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"Another process is training {folder}. Wait for it, or stop it first.") from error
        except OSError:  # a file system without locks
            pass
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
        path.unlink(missing_ok=True)


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


def write_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> None:
    """A safetensors file: data only, nothing in it can run."""
    from safetensors.torch import save

    content = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata=dict(notes or {}))

    def write(p: Path) -> None:
        p.write_bytes(content)  # safetensors' own writer makes files that only their owner may read

    write_whole(path, write)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as f:
            return {k: f.get_tensor(k) for k in f.keys()}, dict(f.metadata() or {})  # noqa: SIM118
    except FileNotFoundError as error:
        raise RunError(f"There is no {path}.") from error
    except SafetensorError as error:
        raise RunError(f"{path} is damaged ({error}).") from error
