"""The densities of single numbers of a vector."""

from __future__ import annotations

from torch.distributions import Distribution, Independent, LowRankMultivariateNormal, MultivariateNormal, Normal

from aevb.probability.flows import Reflected

MEMORY = 2**22  # such densities that are computed at a time, where nobody asks for another number


def marginals(p: Distribution) -> Distribution | None:
    """The densities of single latents, as a distribution over *Z less its dependences; None where they have no
    formula."""
    if isinstance(p, Independent) and not p.base_dist.event_shape:
        base: Distribution = p.base_dist
        return base
    if isinstance(p, MultivariateNormal | LowRankMultivariateNormal | Reflected):
        return Normal(p.mean, p.variance.sqrt(), validate_args=False)
    return None
