"""One step of the paper's MNIST network, taken in several ways, in interleaved rounds: what Python and re-seeding cost.

    python -m benchmarks.steps --rounds 7 --threads 2

Seconds are for an epoch of 50,000 rows of random bits; ratios are to the library's compiled step in the same round, by
wall time and by processor time. The latter is the one to read on a busy machine. Everything is in one process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import islice
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.nn.functional import binary_cross_entropy_with_logits

import aevb
from aevb.training.optimizers import Adam

PIXELS, HIDDEN, LATENT, BATCH, RATE = 784, 500, 20, 100, 1e-3
Work = Callable[[int], None]  # so many steps


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 2 * LATENT))
    decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, PIXELS))
    return encoder, decoder


def network() -> aevb.VAE:
    encoder, decoder = networks()
    return aevb.VAE(
        aevb.StandardNormal(LATENT),
        aevb.Conditional(encoder, aevb.Normal(LATENT)),
        aevb.Conditional(decoder, aevb.Bernoulli(PIXELS)),
    )


def library(x: Tensor, **settings: Any) -> Work:
    """aevb's own training."""
    training = aevb.Training(Adam(RATE), batch=BATCH, samples=10**9, **settings)
    steps = aevb.train(network(), aevb.ELBO("B"), x, training)
    return lambda count: _through(islice(steps, count))


def _through(steps: Iterator[Any]) -> None:
    for _ in steps:
        pass


class Loss(nn.Module):
    """The negative bound of page 5 of the paper, by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = networks()

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.encoder(x).chunk(2, -1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        fit = binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
        bound: Tensor = (fit + kl) / len(x)
        return bound


def by_hand(x: Tensor) -> Work:
    """A careful eager loop with PyTorch's fused Adam."""
    loss, order = Loss(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=RATE, fused=True)

    def work(count: int) -> None:
        for rows in _batches(len(x), count, order):
            optimizer.zero_grad(set_to_none=True)
            loss(x[rows]).backward()
            optimizer.step()

    return work


def own_adam(x: Tensor, **options: Any) -> Work:
    """The gradient and PyTorch's own Adam, with a tensor step size, each compiled."""
    loss, order = Loss(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=torch.tensor(RATE))
    fused = torch.compile(loss, **options)
    update = torch.compile(optimizer.step, fullgraph=False, **options)

    def work(count: int) -> None:
        for rows in _batches(len(x), count, order):
            optimizer.zero_grad(set_to_none=True)
            fused(x[rows]).backward()
            update()

    return work


def one_function(x: Tensor, **options: Any) -> Work:
    """Bound, gradient and Adam in one compiled function."""
    loss, order = Loss(), torch.Generator().manual_seed(0)
    weights = dict(loss.named_parameters())
    first, second = ({n: torch.zeros_like(p) for n, p in weights.items()} for _ in range(2))

    def step(x: Tensor, rate: Tensor, correction: Tensor) -> Tensor:
        gradients, value = grad_and_value(lambda w: functional_call(loss, w, (x,)))(weights)
        with torch.no_grad():
            for n, p in weights.items():
                g, m, v = gradients[n], first[n], second[n]
                m.add_(0.1 * (g - m))
                v.copy_(0.999 * v + 0.001 * g * g)
                p.sub_(rate * m / (v.sqrt() * correction + 1e-8))
        found: Tensor = value.detach()
        return found

    fused, done = torch.compile(step, **options), [0]

    def work(count: int) -> None:
        for rows in _batches(len(x), count, order):
            done[0] += 1
            t = done[0]
            fused(x[rows], torch.tensor(RATE / (1 - 0.9**t)), torch.tensor((1 - 0.999**t) ** -0.5))

    return work


def _batches(n: int, count: int, order: torch.Generator) -> Iterator[Tensor]:
    for _ in range(count):
        yield torch.randint(n, (BATCH,), generator=order)


CPP = {"options": {"cpp_wrapper": True}}
WAYS: dict[str, Callable[[Tensor], Work]] = {
    "aevb compiled": lambda x: library(x, compile=True),
    "aevb": library,
    "by hand": by_hand,
    "by hand, PyTorch's Adam compiled": own_adam,
    "by hand, one function": one_function,
    "by hand, one function, cpp_wrapper": lambda x: one_function(x, **CPP),
}
BRAIN: dict[str, Callable[[Tensor], Work]] = {
    "aevb compiled, bf16": lambda x: library(x, compile=True, precision="bf16"),
    "aevb, bf16": lambda x: library(x, precision="bf16"),
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=200, help="steps of one round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ways", nargs="+", choices=[*WAYS, *BRAIN], help="these alone")
    parser.add_argument("--short", action="store_true", help="one round of 20 steps, to see that all run")
    return parser.parse_args()


def chosen(names: list[str] | None) -> dict[str, Callable[[Tensor], Work]]:
    """The ways that were asked for, or that this processor has a use for."""
    from aevb.training.precision import has_brain

    ways = {**WAYS, **(BRAIN if has_brain(torch.device("cpu")) else {})}
    return {name: ways[name] for name in names or ways}


def measure(ways: dict[str, Work], rounds: int, steps: int) -> dict[str, list[tuple[float, float]]]:
    """(wall, processor) seconds of each way in each round."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            wall, processor = time.perf_counter(), time.process_time()
            work(steps)
            found[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return found


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def main() -> None:
    asked = parse()
    rounds, steps = (1, 20) if asked.short else (asked.rounds, asked.steps)
    torch.set_num_threads(asked.threads)
    x = (torch.rand(50_000, PIXELS, generator=torch.Generator().manual_seed(0)) < 0.13).float()
    ways = {}
    for name, make in chosen(asked.ways).items():
        begun = time.perf_counter()
        ways[name] = make(x)
        ways[name](5)  # compiled here
        print(f"{name}: first steps {time.perf_counter() - begun:.1f} s", flush=True)
    found = measure(ways, rounds, steps)
    base, per_epoch = found[next(iter(found))], len(x) / BATCH / steps
    print(
        f"\n| way | seconds an epoch | wall / {next(iter(found))} | processor, likewise |\n| --- | ---: | ---: | ---: |"
    )
    for name, times in found.items():
        wall, processor = ([t[i] / b[i] for t, b in zip(times, base, strict=True)] for i in (0, 1))
        print(f"| {name} | {spread([t[0] * per_epoch for t in times])} | {spread(wall)} | {spread(processor)} |")
    print(f"\n{rounds} rounds of {steps} steps, {asked.threads} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
