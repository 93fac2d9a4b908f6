"""Who takes part in which task."""

from __future__ import annotations

from dataclasses import dataclass

OWN = ""  # the environment that runs this command, where aevb is installed


@dataclass(frozen=True)
class Contender:
    """One row of a table: a worker module, run in an environment, in one of its variants."""

    name: str
    module: str
    environment: str = OWN
    variant: str = ""


@dataclass(frozen=True)
class Task:
    """A unit of work that all contenders do.

    ``items`` is what one unit amounts to in the table's rate: images per epoch, or decoded samples.
    """

    name: str
    title: str
    rate: str
    images: int
    samples: int
    contenders: tuple[Contender, ...]

    @property
    def items(self) -> int:
        return self.images * max(self.samples, 1)


TRAIN = Task(
    name="train",
    title="One training epoch of the paper's MNIST network",
    rate="images/s",
    images=50_000,
    samples=0,
    contenders=(
        Contender("aevb", "aevb"),
        Contender("aevb-compiled", "aevb", variant="compiled"),
        Contender("aevb-compiled-bf16", "aevb", variant="bf16"),
        Contender("plain", "plain"),
        Contender("plain-compiled", "plain", variant="compiled"),
        Contender("plain-compiled-bf16", "plain", variant="compiled-bf16"),
        Contender("dataloader", "dataloader"),
        Contender("pythae", "pythae", "pythae"),
        Contender("pythae-tuned", "pythae", "pythae", variant="tuned"),
        Contender("pyro", "pyro", "pyro"),
        Contender("pyro-tuned", "pyro", "pyro", variant="tuned"),
        Contender("pyro-jit", "pyro", "pyro", variant="jit"),
        Contender("numpyro", "numpyro", "numpyro"),
        Contender("lightning", "lightning", "lightning"),
    ),
)

IMPORTANCE = Task(
    name="importance",
    title="log p(x) by importance sampling, 5,000 samples for each of 100 images",
    rate="samples/s",
    images=100,
    samples=5_000,
    contenders=(
        Contender("aevb", "aevb"),
        Contender("aevb-bf16", "aevb", variant="bf16"),
        Contender("plain", "plain"),
        Contender("plain-bf16", "plain", variant="bf16"),
        Contender("pythae", "pythae", "pythae"),
        Contender("pythae-tuned", "pythae", "pythae", variant="tuned"),
    ),
)

CONVOLUTIONS = Task(
    name="convolutions",
    title="6,400 images through the training of a small convolutional VAE: 32 and 64 channels, 28×28, batches of 128",
    rate="images/s",
    images=6_400,
    samples=0,
    contenders=(
        Contender("aevb", "aevb"),
        Contender("aevb-compiled", "aevb", variant="compiled"),
        Contender("aevb-compiled-bf16", "aevb", variant="bf16"),
        Contender("plain", "plain"),
        Contender("plain-channels-last", "plain", variant="channels-last"),
        Contender("plain-compiled", "plain", variant="compiled"),
        Contender("plain-compiled-channels-last", "plain", variant="compiled-channels-last"),
        Contender("pythae", "pythae", "pythae"),
        Contender("lightning", "lightning", "lightning"),
        Contender("lightning-compiled", "lightning", "lightning", variant="compiled"),
    ),
)

ANNEALED = Task(
    name="annealed",
    title="log p(x) by annealed importance sampling: 50 temperatures, 16 chains, 10 leapfrog steps, 20 images",
    rate="temperatures of images/s",
    images=20,
    samples=50,
    contenders=(Contender("aevb", "aevb"), Contender("plain", "plain")),
)

TASKS = {task.name: task for task in (TRAIN, IMPORTANCE, CONVOLUTIONS, ANNEALED)}
SUBJECTS = ("aevb", "aevb-compiled")
