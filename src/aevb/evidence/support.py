"""What all estimators of log p(x) share: what they ask of a posterior, and how they report progress."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.distributions import Distribution, Transform, biject_to, constraints

from aevb.data.batch import Batch
from aevb.errors import AevbError
from aevb.parts import PRIOR, Member, Needs, check
from aevb.probability.offers import seen

Progress = Callable[[int, int], None]  # (decoded so far, to decode in all)
Proposal = Callable[[Batch], Distribution]  # a batch → a distribution of z, batch (B)

CPU_MEMORY = 2**20  # numbers decoded at a time: few enough for the processor's cache, enough for a matrix product
GPU_MEMORY = 2**26  # enough to keep thousands of cores busy


def memory_on(device: torch.device) -> int:
    """How many numbers to decode at a time."""
    return CPU_MEMORY if device.type == "cpu" else GPU_MEMORY


class NoLikelihood(AevbError, TypeError):
    """The model is no density over data, so a likelihood was asked of it in vain."""


def refuse_point(q: Distribution, who: str, everywhere: bool = False) -> None:
    """Raise `NoLikelihood` for an autoencoder, and for a posterior that is one of several codes.

    Args:
        who: what asks, in a message.
        everywhere: also for one without a density at some z where the prior has one, as a uniform.
    """
    needs = Needs(density=True, everywhere=everywhere, otherwise=INSTEAD)
    check([seen(q), Member("", who, needs=needs)], NoLikelihood)


INSTEAD = {
    "everywhere": "annealed importance sampling from the prior (log_marginal_ais, --estimator ais --start prior)"
}


def unconstraining(p: Distribution) -> Transform:
    """T: ℝᴰ → the support of p, for methods that move z in ℝᴰ; a mixture has that of its components.

    Raises:
        AevbError: there is none, as for codes or for a sphere.
    """
    mover = Member("", "Hamiltonian Monte Carlo", needs=Needs(free=True, otherwise={"free": "importance sampling"}))
    check([seen(p, PRIOR), mover], AevbError)
    support = p.support
    if isinstance(support, constraints.MixtureSameFamilyConstraint):
        support = support.base_constraint
    transform: Transform = biject_to(support)
    return transform


class Counter:
    """Tells `progress` how many samples are done."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def __call__(self, n: int) -> None:
        self.done += n
        if self.progress is not None:
            self.progress(self.done, self.total)
