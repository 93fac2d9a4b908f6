"""Pyro's stochastic variational inference, as its VAE tutorial writes it, without validation."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, JitTrace_ELBO, Trace_ELBO
from torch import Tensor, nn

from benchmarks.workers.data import BATCH, load_images
from benchmarks.workers.networks import LATENT, LEARNING_RATE, seeded_layers
from benchmarks.workers.protocol import Job


class PyroVAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = seeded_layers()

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            loc = x.new_zeros(x.shape[0], LATENT)
            z = pyro.sample("z", dist.Normal(loc, torch.ones_like(loc)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            mean, log_variance = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(mean, torch.exp(0.5 * log_variance)).to_event(1))


def build(job: Job) -> SVI:
    pyro.enable_validation(False)
    vae = PyroVAE()
    bound = JitTrace_ELBO(ignore_jit_warnings=True) if job.variant == "jit" else Trace_ELBO()
    fused = {"fused": True} if job.variant else {}
    return SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": LEARNING_RATE, **fused}), loss=bound)


def train(job: Job) -> None:
    images = torch.from_numpy(load_images(job, "train"))
    svi = build(job)

    def epoch() -> float:
        total = sum(svi.step(images.index_select(0, rows)) for rows in torch.randperm(len(images)).split(BATCH))
        return total / len(images)

    job.serve(epoch, ("pyro-ppl", "torch"))
