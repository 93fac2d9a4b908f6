"""NumPyro's stochastic variational inference as in its VAE example: a whole epoch inside one jitted function."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array, lax
from jax.example_libraries import stax
from jax.nn.initializers import variance_scaling, zeros
from numpyro.infer import SVI, Trace_ELBO

from benchmarks.workers.data import BATCH, PIXELS, load_images
from benchmarks.workers.protocol import Job

HIDDEN, LATENT = 500, 20
LEARNING_RATE = 1e-3


def dense(width: int) -> Any:
    """A linear layer whose weights start as PyTorch's do: uniform within 1 / sqrt(fan in)."""
    return stax.Dense(width, W_init=variance_scaling(1 / 3, "fan_in", "uniform"), b_init=zeros)


def encoder_layers() -> Any:
    return stax.serial(dense(HIDDEN), stax.Tanh, dense(2 * LATENT))


def decoder_layers() -> Any:
    return stax.serial(dense(HIDDEN), stax.Tanh, dense(PIXELS))


def model(x: Array) -> None:
    decode = numpyro.module("decoder", decoder_layers(), (BATCH, LATENT))
    with numpyro.plate("data", x.shape[0]):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([LATENT]).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)


def guide(x: Array) -> None:
    encode = numpyro.module("encoder", encoder_layers(), (BATCH, PIXELS))
    mean, log_variance = jnp.split(encode(x), 2, -1)
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("z", dist.Normal(mean, jnp.exp(0.5 * log_variance)).to_event(1))


def epoch_of(svi: SVI) -> Any:
    """(state, key, images) -> (state, nats per image), compiled as one program."""

    def epoch(state: Any, key: Array, images: Array) -> tuple[Any, Array]:
        batches = jax.random.permutation(key, len(images)).reshape(-1, BATCH)
        state, losses = lax.scan(lambda s, rows: svi.update(s, images[rows]), state, batches)
        return state, losses.sum() / len(images)

    return jax.jit(epoch, donate_argnums=0)


def train(job: Job) -> None:
    numpyro.enable_validation(False)  # NumPyro 0.22 checks supports by default, and would refuse grey levels
    images = jnp.asarray(load_images(job, "train"))
    svi = SVI(model, guide, numpyro.optim.Adam(LEARNING_RATE), Trace_ELBO())
    state = svi.init(jax.random.key(0), images[:BATCH])
    keys = iter(jax.random.split(jax.random.key(1), 1000))
    run = epoch_of(svi)

    def epoch() -> float:
        nonlocal state
        state, nats = jax.block_until_ready(run(state, next(keys), images))
        return float(nats)

    job.serve(epoch, ("numpyro", "jax"))
