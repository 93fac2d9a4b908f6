"""Hierarchies of latents from the tables of a recipe: `[[chain]]`, one for each layer above z_1, or a `[ladder]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from aevb.errors import RecipeError
from aevb.models.chain import Chain
from aevb.models.conditional import Conditional
from aevb.probability.families import Normal, as_shape
from aevb.runs.parts import build

Tables = Sequence[Mapping[str, Any]]
NOT_REAL = (  # posteriors of other numbers than the real ones, which the normals p(z_l|z_{l+1}) of a chain cover
    *("exponential", "weibull", "gamma", "log-normal", "beta", "dirichlet", "von-mises-fisher"),
    *("one-hot", "concrete", "vq", "fsq"),
)
INSTEAD_OF_LADDER = ("latent", "prior", "posterior", "chain", "encoder", "decoder", "context")


def heard(defaults: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of a recipe, less what a `[ladder]` brings itself.

    Raises:
        RecipeError: a table beside a ladder that would not be heard.
    """
    if "ladder" not in settings:
        return dict(defaults)
    for key in INSTEAD_OF_LADDER:
        if key in settings:
            raise RecipeError(f"{key}: a [ladder] has its own latents and networks, and takes no contexts. Leave {key} out.")
    return {k: v for k, v in defaults.items() if k not in INSTEAD_OF_LADDER}


def latent_shape(latent: Any, where: str = "latent") -> torch.Size:
    sizes = latent if isinstance(latent, list | tuple) and latent else [latent]
    if any(not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in sizes):
        raise RecipeError(f"{where}: expected a whole number of at least 1; got {latent!r}.")
    return as_shape(latent)


def latent_shapes(latent: Any, chain: Tables) -> list[torch.Size]:
    """The event shapes of z_1, ..., z_L."""
    for table in chain:
        if not isinstance(table, Mapping) or "latent" not in table:
            raise RecipeError(f"chain: each table needs its latent, such as latent = 50; got {table!r}.")
    return [latent_shape(latent), *(latent_shape(table["latent"], "chain.latent") for table in chain)]


def chained(
    encoder: nn.Module, prior: nn.Module, shapes: Sequence[torch.Size], chain: Tables, posterior: Any
) -> tuple[nn.Module, nn.Module]:
    """q(z_1|x) and p(z_L) with what is between, q(z_l|z_{l-1}) and p(z_{l-1}|z_l): two networks alike for each table.

    The former are of the family `posterior`, the latter normal. Without tables the two are returned as they are.
    """
    if not chain:
        return encoder, prior
    up, down = [encoder], []
    for (below, above), table in zip(pairwise(shapes), chain, strict=True):
        net = {"type": "mlp", **{k: v for k, v in table.items() if k != "latent"}}
        q, p = build("posterior", posterior, shape=above), Normal(below)
        up.append(Conditional(build("chain", net, inputs=below, outputs=q.size), q))
        down.append(Conditional(build("chain", net, inputs=above, outputs=p.size), p))
    return Chain(*up), Chain.prior(*down, prior)


UNLAYERED = {  # part: its kind that no hierarchy takes, and why
    "prior": ("vamp", "as q(z_L|u) of a pseudo-input u, with the layers below summed out, has no density in closed form"),
    "posterior": ("delta", "as a point has no density, of which each layer's KL is made"),
    "objective": ("monte-carlo-em", "whose chains move latents that are one vector"),
}


def check_hierarchy(name: str, kinds: Mapping[str, Any], gradient: Any, terms: Sequence[Any]) -> None:
    """Refuse parts that no hierarchy can take: `name` is chain or ladder, `kinds` are the types of the other tables.

    Raises:
        RecipeError: a part that asks for latents that are one tensor, or for the density of z_1 alone.
    """
    if kinds["posterior"] in NOT_REAL:
        raise RecipeError(
            f"chain: not with the posterior {kinds['posterior']}, as what is above a latent says where it is by a normal, "
            "which covers the real line. Take a posterior over the real line, such as normal, or leave out [[chain]]."
        )
    if name == "ladder" and kinds["objective"] == "m2":
        raise RecipeError("ladder: not with the objective m2, as a ladder takes no labels. Take another, or a [[chain]].")
    if name == "ladder" and kinds["objective"] == "wake-sleep":
        raise RecipeError(
            "ladder: not with the objective wake-sleep, as q(z|x) and p(z) walk down the same networks, and what is learnt "
            "of q in dreams would move p. Take another objective, or a [[chain]]."
        )
    for part, (kind, reason) in UNLAYERED.items():
        if kinds[part] == kind:
            raise RecipeError(f"{name}: not with the {part} {kind}, {reason}. Take another.")
    if gradient == "dreg":
        raise RecipeError(
            f"objective (importance-weighted): 'dreg' is biased where z is a hierarchy. Take 'plain', or no {name}."
        )
    if terms:
        raise RecipeError(f"terms: they compare codes that are one tensor; a {name}'s are several. Leave out [[terms]].")
