"""aevb on the paper's network, through its public names alone."""

from __future__ import annotations

from itertools import islice

import torch
from torch import nn

import aevb
from benchmarks.workers.data import BATCH, CONV_BATCH, PIXELS, load_images
from benchmarks.workers.networks import LATENT, LEARNING_RATE, seeded_convolutions, seeded_layers
from benchmarks.workers.protocol import Job

PACKAGES = ("aevb", "torch")
CHAINS, LEAPFROGS = 16, 10  # of annealed sampling
EPOCHS = 10_000  # more than will be asked for


def build(layers: tuple[nn.Module, nn.Module] | None = None) -> aevb.VAE:
    encoder, decoder = layers or seeded_layers()
    return aevb.VAE(
        aevb.StandardNormal(LATENT),
        aevb.Conditional(encoder, aevb.Normal(LATENT)),
        aevb.Conditional(decoder, aevb.Bernoulli(PIXELS, relaxed=True)),
    )


def settings(job: Job, batch: int = BATCH) -> aevb.Training:
    return aevb.Training(
        optimizer=aevb.Adam(LEARNING_RATE),
        batch=batch,
        samples=EPOCHS * job.images,
        compile=job.variant in ("compiled", "bf16"),
        precision="bf16" if job.variant == "bf16" else "float32",
    )


def train(job: Job) -> None:
    _train(job, build(), BATCH)


def convolutions(job: Job) -> None:
    _train(job, build(seeded_convolutions()), CONV_BATCH)


def annealed(job: Job) -> None:
    images = torch.from_numpy(load_images(job, "test"))
    model, path = build().eval(), aevb.Annealing(temperatures=job.samples, leapfrogs=LEAPFROGS)

    def estimate() -> float:
        return -float(aevb.log_marginal_ais(model, images, CHAINS, path).log_px.mean())

    job.serve(estimate, PACKAGES)


def _train(job: Job, model: aevb.VAE, size: int) -> None:
    images = torch.from_numpy(load_images(job, "train"))
    steps = aevb.train(model, aevb.ELBO("B"), images, settings(job, size))
    per_epoch = len(images) // size

    def epoch() -> float:
        total = torch.zeros(())
        for step in islice(steps, per_epoch):
            total += step.info["loss"]
        return total.item() / per_epoch

    job.serve(epoch, PACKAGES)


def importance(job: Job) -> None:
    images = torch.from_numpy(load_images(job, "test"))
    model = build().eval()

    def estimate() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=job.variant == "bf16"):
            return -float(aevb.log_marginal(model, images, job.samples).log_px.mean())

    job.serve(estimate, PACKAGES)
