"""aevb on the paper's network, through its public names alone."""

from __future__ import annotations

from itertools import islice

import torch

import aevb
from benchmarks.workers.data import BATCH, PIXELS, load_images
from benchmarks.workers.networks import LATENT, LEARNING_RATE, seeded_layers
from benchmarks.workers.protocol import Job

PACKAGES = ("aevb", "torch")
EPOCHS = 10_000  # more than will be asked for


def build() -> aevb.VAE:
    encoder, decoder = seeded_layers()
    return aevb.VAE(
        aevb.StandardNormal(LATENT),
        aevb.Conditional(encoder, aevb.Normal(LATENT)),
        aevb.Conditional(decoder, aevb.Bernoulli(PIXELS, relaxed=True)),
    )


def settings(job: Job) -> aevb.Training:
    return aevb.Training(
        optimizer=aevb.Adam(LEARNING_RATE),
        batch=BATCH,
        samples=EPOCHS * job.images,
        compile=job.variant == "compiled",
    )


def train(job: Job) -> None:
    images = torch.from_numpy(load_images(job, "train"))
    steps = aevb.train(build(), aevb.ELBO("B"), images, settings(job))
    per_epoch = len(images) // BATCH

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
        return -float(aevb.log_marginal(model, images, job.samples).log_px.mean())

    job.serve(estimate, PACKAGES)
