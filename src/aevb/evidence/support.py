"""What all estimators of log p(x) share: what they ask of a posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.distributions import Distribution, Transform, biject_to, constraints

from aevb.data.batch import Batch
from aevb.errors import AevbError
from aevb.parts import PRIOR, Member, Needs, check
from aevb.probability.offers import seen

Proposal = Callable[[Batch], Distribution]  # a batch → a distribution of z, batch (B)


class NoLikelihood(AevbError, TypeError):
    """The model is not a density over data, so it has no likelihood."""


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
    transform: Transform = biject_to(_of_components(p.support))
    return transform


def annealable(q: Distribution) -> bool:
    """Whether annealed importance sampling can start at q(z|x): a density on all of a space that can be moved in."""
    try:
        refuse_point(q, "annealed importance sampling", everywhere=True)
        unconstraining(q)
    except AevbError:
        return False
    return True


def _of_components(support: Any) -> Any:
    """A support in which that of each mixture is the one of its components."""
    if isinstance(support, constraints.MixtureSameFamilyConstraint):
        return _of_components(support.base_constraint)
    if isinstance(support, constraints.independent):
        return constraints.independent(_of_components(support.base_constraint), support.reinterpreted_batch_ndims)
    return support
