"""Several processes that train one model: who they are by torchrun's environment, and what they agree on.

    torchrun --nproc-per-node 2 -m aevb train digits

All of them read the data, take the same steps and hold the same numbers. They share the rows of each minibatch within
networks, see `models.shares`. The first one writes.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from aevb.errors import RunError
from aevb.models.shares import Group, group, messages, sharing

PATIENCE = timedelta(minutes=30)  # for a message of another process; the first one may be evaluating
POLL = 0.02  # seconds between two looks for processes that ask
APART = 1e-3  # relative difference of losses beyond which processes no longer train one model


def placed(device: str | torch.device) -> torch.device:
    """A device as this process uses it: of several GPUs of a machine that of its own number.

    Raises:
        RunError: the machine has fewer GPUs than processes.
    """
    device, own = torch.device(device), _number("LOCAL_RANK")
    if device.type != "cuda" or device.index is not None or _number("WORLD_SIZE") < 2:
        return device
    count = torch.cuda.device_count()
    if own >= count:
        raise RunError(f"There are more processes than GPUs: this machine has {count}. Use --nproc-per-node {count}.")
    return torch.device("cuda", own)


@contextmanager
def together() -> Iterator[Group | None]:
    """Train with the other processes that torchrun has started, in this block; alone where there are none.

        with aevb.together():
            run = aevb.fit("digits", "digits", "runs/mine")

    Every process runs the same lines. The run's folder is written by the first one. Messages go by NCCL between GPUs,
    by gloo between CPUs.

    Raises:
        RunError: the processes do not find each other.
    """
    if _number("WORLD_SIZE") < 2 or group() is not None:
        yield group()
        return
    try:
        backend = "cpu:gloo,cuda:nccl" if _own_gpu() else "gloo"
        store, rank, size = next(iter(rendezvous("env://", timeout=PATIENCE)))
        fresh = PrefixStore(_round(store, rank, size), store)
        dist.init_process_group(backend, store=fresh, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"The processes do not find each other: {str(error).splitlines()[0]} Start them by torchrun, with the same "
            "--rdzv-endpoint on all machines."
        ) from error
    try:
        with sharing(Group(dist.get_rank(), dist.get_world_size())) as members, _leaving_together():
            yield members
    finally:
        dist.destroy_process_group()


@contextmanager
def _leaving_together() -> Iterator[None]:
    """No process leaves before all have come to the end, or to a signal: else it breaks messages of the others."""
    try:
        yield
    except Exception:  # the others cannot continue
        raise
    except BaseException:
        _last_words()
        raise
    _last_words()


def _last_words() -> None:
    with suppress(RunError):  # the last to read them may find the sender gone
        wait()


def _round(store: Any, rank: int, size: int) -> str:
    """A word that the processes of this start agree on, and no earlier start.

    torchrun keeps its store when it starts processes again. In it are the addresses of those that were killed, which
    the new ones would wait for. So the first process gives out a word of its own to all that ask now, until all have
    it. The number of a restart does not serve, as each machine counts for itself.
    """
    if rank:
        asked = uuid.uuid4().hex
        store.set(f"aevb/ask/{rank}", asked)
        word: str = store.get(f"aevb/answer/{asked}").decode()
        store.add(f"aevb/got/{word}", 1)
        return word
    word, limit = uuid.uuid4().hex, time.monotonic() + PATIENCE.total_seconds()
    while store.add(f"aevb/got/{word}", 0) < size - 1:
        if time.monotonic() > limit:
            raise RuntimeError("Some of them did not start.")
        for other in range(1, size):
            if store.check([f"aevb/ask/{other}"]):
                store.set(f"aevb/answer/{store.get(f'aevb/ask/{other}').decode()}", word)
        time.sleep(POLL)
    return word


def _own_gpu() -> bool:
    """Take the GPU of this process's number as the current one, if the machine has it."""
    there = _number("LOCAL_RANK") < torch.cuda.device_count()
    if there:
        torch.cuda.set_device(_number("LOCAL_RANK"))
    return there


def first() -> bool:
    """Whether this process is the one that writes: the first of several, or the only one."""
    members = group()
    return members is None or members.rank == 0


def several() -> bool:
    """Whether torchrun has started more than one process."""
    return _number("WORLD_SIZE") > 1


def largest(number: float) -> float:
    """The largest of the numbers that the processes bring."""
    if group() is None:
        return number
    found = torch.tensor(float(number), dtype=torch.float64)
    with messages():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return float(found)


def wait() -> None:
    """Until all processes have come here."""
    largest(0.0)


def told(word: Any) -> Any:
    """What the first process says, such as the name of a folder."""
    if group() is None:
        return word
    words = [word]
    with messages():
        dist.broadcast_object_list(words, src=0)
    return words[0]


def everyone(word: Any) -> list[Any]:
    """What each process says, the first one's word first."""
    members = group()
    if members is None:
        return [word]
    words: list[Any] = [None] * members.size
    with messages():
        dist.all_gather_object(words, word)
    return words


@torch.no_grad()
def alike(tensors: Iterable[Tensor]) -> None:
    """Give all processes the numbers of the first one, in place."""
    if group() is None:
        return
    for v in tensors:
        with messages():
            dist.broadcast(v, src=0)


def check_same_rows(prints: Mapping[str, tuple[int, Any]]) -> None:
    """Raise a `RunError` where processes have read different data.

    Args:
        prints: of each part of this process's data, how many rows it has, and a fingerprint of them.
    """
    ours, *others = everyone(dict(prints))
    for rank, theirs in enumerate(others, 1):
        for part, (rows, found) in theirs.items():
            if (rows, found) != ours[part]:
                what = f"{rows:,} {part} rows, the first one {ours[part][0]:,}" if rows != ours[part][0] else ""
                raise RunError(
                    f"Process {rank} has {what or f'other {part} rows than the first one'}. All processes must read "
                    "the same data: look for another file under this path."
                )


def check_alike(number: float, what: str = "losses") -> None:
    """Raise a `RunError` where a number that all processes compute, such as the mean loss, has come to differ."""
    most, least = largest(number), -largest(-number)
    if most - least > APART * max(1.0, abs(most)):
        raise RunError(
            f"The processes no longer train one model: their {what} are {least:.6g} to {most:.6g}. "
            "Start them on machines of one kind, with one version of PyTorch and the same data."
        )


def _number(name: str) -> int:
    """A number of torchrun's environment; 0 without one."""
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else 0
