"""An epoch of the paper's network on an NVIDIA GPU: plain, compiled, recorded as a CUDA graph, and bfloat16.

    python -m benchmarks.gpu --rounds 5

It needs nothing but PyTorch and this package, and no data: bits as many and as dark as MNIST's. Each round times one
epoch of 50,000 images in minibatches of 100 for every way of training, in turn, after an epoch to warm up.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import torch

import aevb

N, BATCH = 50_000, 100
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "compiled": {"compile": True},
    "recorded": {"graph": True},
    "compiled and recorded": {"compile": True, "graph": True},
    "recorded, bf16": {"graph": True, "precision": "bf16"},
}


def epochs(x: torch.Tensor, device: torch.device, settings: dict[str, Any]) -> Iterator[float]:
    """Train on and on; the seconds of each epoch."""
    torch.manual_seed(0)
    q, p = aevb.Normal(20), aevb.Bernoulli(784)
    encoder = aevb.Conditional(aevb.MLP(784, q.size, hidden=[500], activation=torch.nn.Tanh), q)
    decoder = aevb.Conditional(aevb.MLP(20, p.size, hidden=[500], activation=torch.nn.Tanh), p)
    model = aevb.VAE(aevb.StandardNormal(20), encoder, decoder).to(device)
    training = aevb.Training(aevb.Adam(1e-3), batch=BATCH, samples=10**12, **settings)
    walk = aevb.train(model, aevb.ELBO(), x, training)
    while True:
        begun = time.perf_counter()
        for _ in range(len(x) // BATCH):
            next(walk)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        yield time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--images", type=int, default=N)
    asked = parser.parse_args()
    device = torch.device(asked.device)
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(asked.images, 784, generator=g) < 0.13).float().to(device)
    walks = {way: epochs(x, device, WAYS[way]) for way in asked.ways}
    for walk in walks.values():
        next(walk)
    rounds = [{way: next(walk) for way, walk in walks.items()} for _ in range(asked.rounds)]
    print("| way | ms an epoch | time / plain |\n| --- | ---: | ---: |")
    for way in walks:
        print(f"| {way} | {spread([1e3 * r[way] for r in rounds])} | {relative(rounds, way)} |", flush=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"\n{name}, torch {torch.__version__}, {asked.images:,} images an epoch, minibatches of {BATCH}")


def relative(rounds: list[dict[str, float]], way: str) -> str:
    return spread([r[way] / r["plain"] for r in rounds]) if "plain" in rounds[0] else ""


def spread(values: list[float]) -> str:
    return f"{median(values):.3g} ({min(values):.3g}–{max(values):.3g})"


if __name__ == "__main__":
    main()
