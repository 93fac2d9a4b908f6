"""Training and log p(x) on an NVIDIA GPU: plain, compiled, recorded as a CUDA graph, bfloat16; beside other libraries.

    python -m benchmarks.gpu --rounds 5

It needs nothing but PyTorch and this package. The data are random bits, as many as MNIST's pixels. pythae and NumPyro
take part where they are installed. Each round asks every way for one unit of work, in turn, after one to warm up.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import aevb
from benchmarks.workers.networks import LATENT, LEARNING_RATE, NegativeElbo, seeded_convolutions, seeded_layers

N, BATCH, CONV_N, CONV_BATCH = 50_000, 100, 6_400, 128
POINTS, SAMPLES, FEWER = 1_000, 5_000, 20  # log p(x): images, draws for each, and images where it takes long
Layers = Callable[[], tuple[nn.Module, nn.Module]]
Units = Iterator[float]  # the seconds of one unit of work after another

GRAPH: dict[str, Any] = {"graph": True}
WAYS: dict[str, dict[str, Any]] = {
    "aevb": {},
    "aevb, compiled": {"compile": True},
    "aevb, recorded": GRAPH,
    "aevb, compiled and recorded": {"compile": True, **GRAPH},
    "aevb, compiled, recorded, bf16": {"compile": True, **GRAPH, "precision": "bf16"},
}


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], Any], device: torch.device) -> float:
    begun = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - begun


def build(layers: Layers) -> aevb.VAE:
    encoder, decoder = layers()
    q, p = aevb.Normal(LATENT), aevb.Bernoulli(784, relaxed=True)
    return aevb.VAE(aevb.StandardNormal(LATENT), aevb.Conditional(encoder, q), aevb.Conditional(decoder, p))


def ours(x: Tensor, layers: Layers, batch: int, settings: dict[str, Any]) -> Units:
    """Epochs of `aevb.train`."""
    training = aevb.Training(aevb.Adam(LEARNING_RATE), batch=batch, samples=10**12, **settings)
    walk = aevb.train(build(layers).to(x.device), aevb.ELBO(), x, training)
    while True:
        yield timed(lambda: [next(walk) for _ in range(len(x) // batch)][-1], x.device)


def by_hand(x: Tensor, layers: Layers, batch: int, compiled: bool) -> Units:
    """Epochs of a careful loop: fused Adam, the data on the device, no waiting on the loss."""
    objective: Any = NegativeElbo(layers()).to(x.device)
    optimizer = torch.optim.Adam(objective.parameters(), lr=LEARNING_RATE, fused=True)
    objective = torch.compile(objective) if compiled else objective

    def epoch() -> None:
        for rows in torch.randperm(len(x), device=x.device).split(batch):
            optimizer.zero_grad()
            objective(x.index_select(0, rows)).backward()
            optimizer.step()

    while True:
        yield timed(epoch, x.device)


def pythae(x: Tensor, layers: Layers, batch: int) -> Units:
    """Epochs of its `BaseTrainer`, by its own callbacks."""
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    from benchmarks.workers import pythae_worker

    class Clock(TrainingCallback):  # type: ignore[misc]
        seconds = begun = 0.0

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            self.begun = time.perf_counter()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            finish(x.device)
            self.seconds = time.perf_counter() - self.begun

    model, rows = pythae_worker.build(layers()), BaseDataset(x.cpu(), torch.zeros(len(x)))
    while True:
        with tempfile.TemporaryDirectory() as folder:
            size = {"per_device_train_batch_size": batch, "learning_rate": LEARNING_RATE}
            config = BaseTrainerConfig(output_dir=folder, num_epochs=1, no_cuda=x.device.type != "cuda", **size)
            clock = Clock()
            BaseTrainer(model, rows, training_config=config, callbacks=[clock]).train()
        yield clock.seconds


def numpyro(x: Tensor) -> Units:
    """Epochs of its `SVI`, each one program that JAX compiles."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax
    from jax import numpy as jnp
    from numpyro import optim
    from numpyro.infer import SVI, Trace_ELBO

    from benchmarks.workers import numpyro_worker as worker

    images = jnp.asarray(x.cpu().numpy())
    svi = SVI(worker.model, worker.guide, optim.Adam(LEARNING_RATE), Trace_ELBO())
    state, run = svi.init(jax.random.key(0), images[: worker.BATCH]), worker.epoch_of(svi)
    for key in jax.random.split(jax.random.key(1), 1000):
        begun = time.perf_counter()
        state, _ = jax.block_until_ready(run(state, key, images))
        yield time.perf_counter() - begun


def importance(x: Tensor, precision: str) -> Units:
    """log p(x) of some images; "high" lets PyTorch round factors of products to TF32."""
    model = build(seeded_layers).to(x.device).eval()

    def estimate() -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        aevb.log_marginal(model, x[:POINTS], SAMPLES)
        torch.set_float32_matmul_precision(before)

    while True:
        yield timed(estimate, x.device) / (min(POINTS, len(x)) * SAMPLES)


def importance_of_pythae(x: Tensor) -> Units:
    """Its `get_nll`, with as many draws at a time and no gradients, as is fast for it."""
    from benchmarks.workers import pythae_worker

    model, few = pythae_worker.build(seeded_layers()).to(x.device).eval(), x[:FEWER]
    with torch.no_grad():
        while True:
            work = partial(model.get_nll, few, n_samples=SAMPLES, batch_size=SAMPLES)
            yield timed(work, x.device) / (len(few) * SAMPLES)


def contenders(task: str, x: Tensor) -> dict[str, Units]:
    """Who takes part, the plainest of ours first."""
    peers = {name for name in ("pythae", "numpyro") if find_spec(name)}
    if task == "importance":
        found = {"aevb": importance(x, "highest"), "aevb, TF32": importance(x, "high")}
        return found | ({"pythae": importance_of_pythae(x)} if "pythae" in peers else {})
    layers: Layers = seeded_layers if task == "train" else seeded_convolutions
    rows, batch = (x, BATCH) if task == "train" else (x[:CONV_N], CONV_BATCH)
    found = {way: ours(rows, layers, batch, settings) for way, settings in WAYS.items()}
    found |= {f"by hand{', compiled' * c}": by_hand(rows, layers, batch, bool(c)) for c in (0, 1)}
    found |= {"pythae": pythae(rows, layers, batch)} if "pythae" in peers else {}
    return found | ({"NumPyro": numpyro(x)} if "numpyro" in peers and task == "train" else {})


TASKS = {
    "train": ("an epoch of the paper's network, {n:,} images in minibatches of {batch}", "ms", 1e3),
    "convolutions": ("{n:,} images through a small convolutional VAE, in minibatches of {batch}", "ms", 1e3),
    "importance": ("log p(x) of the paper's network, {samples:,} draws for each image", "ns a decoded sample", 1e9),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--images", type=int, default=N)
    asked = parser.parse_args()
    device = torch.device(asked.device)
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(asked.images, 784, generator=g) < 0.13).float().to(device)
    for task in asked.tasks:
        measured(task, x, asked.rounds)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"\n{name}, torch {torch.__version__}; medians of {asked.rounds} rounds (least to most)")


def measured(task: str, x: Tensor, rounds: int) -> None:
    """Print the table of a task. A way that fails has a row that says why."""
    units, failed = contenders(task, x), {}
    title, unit, times = TASKS[task]
    n, batch = (CONV_N, CONV_BATCH) if task == "convolutions" else (len(x), BATCH)
    for way, unit_of in list(units.items()):
        try:
            next(unit_of)
        except Exception as error:  # whatever the library raises
            failed[way] = (str(error).strip().splitlines() or [type(error).__name__])[0]
            del units[way]
    seen = [{way: next(unit_of) for way, unit_of in units.items()} for _ in range(rounds)]
    print(f"\n{title.format(n=min(n, len(x)), batch=batch, samples=SAMPLES)}\n")
    print(f"| way | {unit} | time / aevb |\n| --- | ---: | ---: |")
    for way in units:
        relative = spread([r[way] / r["aevb"] for r in seen]) if "aevb" in units else ""
        print(f"| {way} | {spread([times * r[way] for r in seen])} | {relative} |", flush=True)
    for way, why in failed.items():
        print(f"| {way} | failed: {why} | |", flush=True)


def spread(values: list[float]) -> str:
    return f"{median(values):.3g} ({min(values):.3g}–{max(values):.3g})"


if __name__ == "__main__":
    main()
