"""PyTorch by hand, without a library: the loop that a careful user would write."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.workers.data import BATCH, CONV_BATCH, load_images
from benchmarks.workers.networks import LATENT, LEARNING_RATE, NegativeElbo, seeded_convolutions, seeded_layers
from benchmarks.workers.protocol import Job

PACKAGES = ("torch",)
ROWS = 1000  # decoded samples per pass: large enough for the matrix product, small enough for the cache


def train(job: Job) -> None:
    _train(job, NegativeElbo(), BATCH)


def convolutions(job: Job) -> None:
    objective = NegativeElbo(seeded_convolutions())
    if "channels-last" in job.variant:
        objective = objective.to(memory_format=torch.channels_last)
    _train(job, objective, CONV_BATCH)


def _train(job: Job, objective: torch.nn.Module, size: int) -> None:
    images = torch.from_numpy(load_images(job, "train"))
    optimizer = torch.optim.Adam(objective.parameters(), lr=LEARNING_RATE, fused=True)
    if job.variant.startswith("compiled"):
        objective = torch.compile(objective)

    def epoch() -> float:
        total = torch.zeros(())
        batches = torch.randperm(len(images)).split(size)
        for rows in batches:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=job.variant.endswith("bf16")):
                loss = objective(images.index_select(0, rows))
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return total.item() / len(batches)

    job.serve(epoch, PACKAGES)


def log_weights(decode: Callable[[Tensor], Tensor], x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """ROWS draws of log p(x, z) - log q(z | x) for one image; the two (2 pi) factors cancel."""
    noise = torch.randn(ROWS, len(mean))
    z = mean + torch.exp(0.5 * log_variance) * noise
    logits = decode(z)
    log_px = logits @ x - torch.nn.functional.softplus(logits).sum(-1)
    log_ratio = 0.5 * (noise.square() + log_variance - z.square()).sum(-1)
    return log_px + log_ratio


def importance(job: Job) -> None:
    images = torch.from_numpy(load_images(job, "test"))
    encoder, decoder = seeded_layers()

    def decode(z: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=job.variant == "bf16"):
            return decoder(z).float()

    @torch.no_grad()
    def estimate() -> float:
        total = 0.0
        for x, phi in zip(images, encoder(images), strict=True):
            passes = [log_weights(decode, x, *phi.chunk(2)) for _ in range(job.samples // ROWS)]
            total += torch.cat(passes).logsumexp(0).item() - math.log(ROWS * len(passes))
        return -total / len(images)

    job.serve(estimate, PACKAGES)


CHAINS, LEAPFROGS = 16, 10
SURE = 0.65  # share of accepted moves that the step size is tuned for


def annealed(job: Job) -> None:
    """Annealed importance sampling (Neal 2001) from the prior, by HMC whose step size follows its acceptance."""
    images = torch.from_numpy(load_images(job, "test"))
    _, decoder = seeded_layers()

    def log_likelihood(z: Tensor) -> Tensor:
        return -torch.nn.functional.binary_cross_entropy_with_logits(
            decoder(z), images.expand(CHAINS, -1, -1), reduction="none"
        ).sum(-1)

    def slope(z: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        """log p(x|z) and the gradient of the potential -log p(z) - β log p(x|z)."""
        z = z.requires_grad_()
        fit = log_likelihood(z)
        (gradient,) = torch.autograd.grad(fit.sum(), z)
        return fit.detach(), z.detach() - beta * gradient

    def estimate() -> float:
        z, step, total = torch.randn(CHAINS, len(images), LATENT), 0.1, torch.zeros(CHAINS, len(images))
        ladder = [t / job.samples for t in range(job.samples + 1)]
        for before, beta in itertools.pairwise(ladder):
            fit, force = slope(z, beta)
            total += (beta - before) * fit
            z, rate = move(z, fit, force, beta, step)
            step *= 1.1 if rate > SURE else 0.9
        return -float((total.logsumexp(0) - math.log(CHAINS)).mean())

    def move(z: Tensor, fit: Tensor, force: Tensor, beta: float, step: float) -> tuple[Tensor, float]:
        """One HMC transition, and the share of accepted moves."""
        start, p = z.detach(), torch.randn_like(z)
        energy = 0.5 * (start.square() + p.square()).sum(-1) - beta * fit
        for _ in range(LEAPFROGS):
            p = p - 0.5 * step * force
            z = z.detach() + step * p
            fit, force = slope(z, beta)
            p = p - 0.5 * step * force
        z = z.detach()
        after = 0.5 * (z.square() + p.square()).sum(-1) - beta * fit
        taken = torch.rand_like(energy).log() < energy - after
        return torch.where(taken.unsqueeze(-1), z, start), float(taken.float().mean())

    job.serve(estimate, PACKAGES)
