"""Every random number of a run is a function of its seed: the order of the data of (seed, pass), the noise of (seed,
step).

So a resumed run needs no saved generator states, and what the caller draws between two steps changes nothing.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def derive(seed: int, *path: int | str) -> int:
    """A 63-bit seed for one purpose, such as (seed, "noise", step); different paths are unrelated."""
    digest = hashlib.blake2b(repr((seed, *path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def noise_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of the noise of one step; each process of a parallel training, by its rank, has noise of its own."""
    return derive(seed, "noise", step, *([rank] if rank else []))


_BLOCK = threading.RLock()


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Run a block under `seed`, and leave the global generators as they were.

    PyTorch's generators belong to the process. So one thread at a time runs such a block, and the others wait: results
    do not depend on other trainings, but threads do not make them faster. For speed use processes.
    """
    with _BLOCK:
        generators = [torch.default_generator]
        if torch.device(device).type == "cuda":
            generators.append(torch.cuda.default_generators[cuda_index(torch.device(device))])
        states = [g.get_state() for g in generators]
        for g in generators:
            g.manual_seed(seed)
        try:
            yield
        finally:
            for g, state in zip(generators, states, strict=True):
                g.set_state(state)


def cuda_index(device: torch.device) -> int:
    """The number of a GPU; that of the current one where the device names none."""
    return torch.cuda.current_device() if device.index is None else device.index


class Order:
    """The order in which N data points are met: one permutation after another, cut into batches of M.

    A batch may straddle two permutations, so every batch has M points and every point is met equally often. Batch
    `step` is a function of the seed and `step` alone. A batch larger than the data is the whole data.
    """

    def __init__(self, n: int, batch: int, seed: int, device: torch.device | str = "cpu") -> None:
        self.n, self.batch, self.seed, self.device = n, min(batch, n), seed, device
        self._passes: dict[int, Tensor] = {}
        self._both: Tensor | None = None  # two permutations, one after the other
        self._turned = -1

    def __getitem__(self, step: int) -> Tensor:
        """Indices of batch `step`, (M,)."""
        first = step * self.batch
        start, offset = divmod(first, self.n)
        here = self._permutation(start)[offset : offset + self.batch]
        missing = self.batch - len(here)
        return here if not missing else torch.cat([here, self._permutation(start + 1)[:missing]])

    def turn(self, step: int) -> None:
        """Let `at` give the batches of the pass that holds batch `step`, and the one that may straddle its end."""
        start = step * self.batch // self.n
        if start == self._turned:
            return
        both = torch.cat([self._permutation(start), self._permutation(start + 1)])
        if self._both is None:
            self._both, self._first = both, torch.zeros((), dtype=torch.int64, device=self.device)
            self._places = torch.arange(self.batch, device=self.device)
        self._both.copy_(both)
        self._first.fill_(start * self.n)
        self._turned = start

    def at(self, step: Tensor) -> Tensor:
        """Indices of a batch, (M,), whose number is on the device, after `turn`: buffers that stay in place tell."""
        assert self._both is not None
        return self._both[step * self.batch - self._first + self._places]

    def _permutation(self, number: int) -> Tensor:
        if number not in self._passes:
            g = torch.Generator().manual_seed(derive(self.seed, "order", number))
            self._passes = {k: v for k, v in self._passes.items() if k >= number - 1}
            self._passes[number] = torch.randperm(self.n, generator=g).to(self.device)
        return self._passes[number]
