"""PyTorch by hand, without a library: the loop that a careful user would write."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.workers.data import BATCH, load_images
from benchmarks.workers.networks import LEARNING_RATE, NegativeElbo, seeded_layers
from benchmarks.workers.protocol import Job

PACKAGES = ("torch",)
ROWS = 1000  # decoded samples per pass: large enough for the matrix product, small enough for the cache


def train(job: Job) -> None:
    images = torch.from_numpy(load_images(job, "train"))
    objective = NegativeElbo()
    optimizer = torch.optim.Adam(objective.parameters(), lr=LEARNING_RATE, fused=True)
    if job.variant == "compiled":
        objective = torch.compile(objective)

    def epoch() -> float:
        total = torch.zeros(())
        batches = torch.randperm(len(images)).split(BATCH)
        for rows in batches:
            optimizer.zero_grad()
            loss = objective(images.index_select(0, rows))
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return total.item() / len(batches)

    job.serve(epoch, PACKAGES)


def log_weights(decoder: torch.nn.Module, x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """ROWS draws of log p(x, z) - log q(z | x) for one image; the two (2 pi) factors cancel."""
    noise = torch.randn(ROWS, len(mean))
    z = mean + torch.exp(0.5 * log_variance) * noise
    logits = decoder(z)
    log_px = logits @ x - torch.nn.functional.softplus(logits).sum(-1)
    log_ratio = 0.5 * (noise.square() + log_variance - z.square()).sum(-1)
    return log_px + log_ratio


def importance(job: Job) -> None:
    images = torch.from_numpy(load_images(job, "test"))
    encoder, decoder = seeded_layers()

    @torch.no_grad()
    def estimate() -> float:
        total = 0.0
        for x, phi in zip(images, encoder(images), strict=True):
            passes = [log_weights(decoder, x, *phi.chunk(2)) for _ in range(job.samples // ROWS)]
            total += torch.cat(passes).logsumexp(0).item() - math.log(ROWS * len(passes))
        return -total / len(images)

    job.serve(estimate, PACKAGES)
