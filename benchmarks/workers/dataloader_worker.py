"""The loop of the usual tutorial: a DataLoader that converts image by image, and ``loss.item()`` at every step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.workers.data import BATCH, load_bytes
from benchmarks.workers.networks import LEARNING_RATE, NegativeElbo
from benchmarks.workers.protocol import Job


class Images(Dataset[Tensor]):
    """Bytes in memory; an image becomes a float tensor when it is asked for."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels.copy()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.pixels[index]).float().div(255)


def train(job: Job) -> None:
    loader = DataLoader(Images(load_bytes(job, "train")), batch_size=BATCH, shuffle=True)
    objective = NegativeElbo()
    optimizer = torch.optim.Adam(objective.parameters(), lr=LEARNING_RATE)

    def epoch() -> float:
        total = 0.0
        for x in loader:
            optimizer.zero_grad()
            loss = objective(x)
            loss.backward()
            optimizer.step()
            total += loss.item()
        return total / len(loader)

    job.serve(epoch, ("torch",))
