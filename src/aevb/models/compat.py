"""Which parts a model is made of, and whether they go together, with an objective, and with data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution

from aevb.errors import DataError, ShapeError
from aevb.models.chain import Chain
from aevb.models.conditional import Conditional
from aevb.models.ladder import Ladder
from aevb.models.priors import OF_LABELS
from aevb.models.trace import Trace
from aevb.models.vae import VAE
from aevb.parts import HIERARCHY, LIKELIHOOD, POSTERIOR, PRIOR, Member, Needs, Offers, Support, check, part_of, word_of
from aevb.probability.families import Family
from aevb.probability.joint import Layered
from aevb.probability.offers import UNKNOWN, elements_of, read_offers, support_text


def check_model(model: nn.Module, *others: Member, seen: Trace | None = None) -> None:
    """Refuse parts of a model that do not go together, or not with `others`, such as an objective.

    Args:
        seen: a trace, for what parts that declare nothing say by their distributions.

    Raises:
        RecipeError: a declared conflict, such as KL(q(z|x) ‖ p(z)) = ∞, in the words of a recipe.
    """
    for layer in below(model, seen):
        check(layer)
    check([*members(model, seen), *others])


def members(model: nn.Module, seen: Trace | None = None) -> list[Member]:
    """Posterior, prior and likelihood of a model; of a hierarchy those of the top layer, and the hierarchy itself."""
    if isinstance(model, Ladder):
        return _of_ladder(model)
    if not isinstance(model, VAE):
        return [] if seen is None else [member(POSTERIOR, None, seen.q), member(PRIOR, None, seen.p)]
    q, p = _layers(seen.q if seen else None), _layers(seen.p if seen else None)
    encoder, prior, likelihood = model.encoder, model.prior, member(LIKELIHOOD, model.decoder)
    if isinstance(encoder, Chain) and isinstance(prior, Chain):
        pair = [member(POSTERIOR, encoder.links[-1], q[-1]), member(PRIOR, prior.links[-1], p[-1])]
        return [*pair, likelihood, _of_chain(encoder, prior)]
    return [member(POSTERIOR, encoder, q[0]), member(PRIOR, prior, p[0]), likelihood]


def below(model: nn.Module, seen: Trace | None = None) -> Iterator[list[Member]]:
    """Of a chain: posterior and prior of each layer below the top one."""
    if isinstance(model, VAE) and isinstance(model.encoder, Chain) and isinstance(model.prior, Chain):
        layers = len(model.encoder.links) - 1
        q, p = (_layers(d) if d else [None] * layers for d in ((seen.q, seen.p) if seen else (None, None)))
        for l in range(layers):
            yield [member(POSTERIOR, model.encoder.links[l], q[l]), lower(model.prior.links[l], p[l], l + 1)]


def lower(link: nn.Module | Family, seen: Distribution | None, l: int) -> Member:
    """p(z_l|z_l+1), which the prior of a recipe does not replace."""
    found = member(LIKELIHOOD, link, seen)
    return replace(found, role=PRIOR, name=f"{found.name} of p(z_{l}|z_{l + 1})", fixed=True)


def _of_chain(encoder: Chain, prior: Chain) -> Member:
    """What the layers below the top one require: where their priors are over the real line, so must the posteriors
    be."""
    known = {member(LIKELIHOOD, link).offers.support for link in list(prior.links)[:-1]}
    return chain(len(encoder.links), real=known == {Support.REAL})


def chain(layers: int, real: bool = True) -> Member:
    """What a chain of so many layers offers and requires."""
    return Member(HIERARCHY, "chain", Offers(layers=layers), Needs(kl=True, layered=True, real_latents=real))


def _of_ladder(model: Ladder) -> list[Member]:
    pair = [Member(role, "normal", Offers(Support.REAL)) for role in (POSTERIOR, PRIOR)]
    return [*pair, member(LIKELIHOOD, model.decoder), ladder(len(model.rungs))]


def ladder(layers: int) -> Member:
    """What a ladder of so many layers offers."""
    return Member(HIERARCHY, "ladder", Offers(layers=layers, own_weights=False, conditions=False))


def _layers(p: Distribution | None) -> Sequence[Distribution | None]:
    return p.conditionals(p.mean) if isinstance(p, Layered) else [p]


def member(role: str, module: nn.Module | Family | None, seen: Distribution | None = None) -> Member:
    """What stands in a role of a model: by its declaration, else by its distribution, else unknown."""
    part = module.family if isinstance(module, Conditional) else module
    offers = getattr(part, "offers", None) or (UNKNOWN if seen is None else read_offers(seen))
    if role == PRIOR and isinstance(module, Conditional):
        return Member(role, "conditional", replace(offers, unconditional=False), OF_LABELS)
    named = part if seen is None or getattr(part, "word", None) else elements_of(seen)
    return Member(role, word_of(named), offers, part_of(part).needs if role == PRIOR else Needs())


def likelihood_name(model: Any, px: Distribution) -> str:
    """What a recipe calls the likelihood p(x|z) of a model; the name of its distribution where no part declares one."""
    return member(LIKELIHOOD, getattr(model, "decoder", None), px).name


def check_support(px: Distribution, x: Tensor, first: int = 0, name: str = "") -> None:
    """Refuse data that do not fit the likelihood p(x|z), where log p(x|z) would be a number but no log-likelihood.

    x (B, *X) against the event shape, which broadcasting could hide, and against the support. `first` is the number of
    the first row in the data; `name` is the likelihood's.

    Raises:
        ShapeError: the shapes differ.
        DataError: x is outside of the support.
    """
    name = name or word_of(elements_of(px))
    if x.shape[1:] != px.event_shape:
        raise ShapeError(
            f"The likelihood {name} is over the shape {tuple(px.event_shape)}, but one data point has the shape "
            f"{tuple(x.shape[1:])}. Give the decoder's family the shape of the data, or reshape the data."
        )
    inside = None if px.support is None else px.support.check(x)
    if inside is None or bool(inside.all()):
        return
    row = int((~inside).reshape(len(x), -1).any(1).nonzero()[0])
    number, covered = _outside(px.support, x[row]), support_text(px)
    raise DataError(
        f"The likelihood {name} covers {covered}, but the data hold {number:.6g} in row {first + row}. "
        f"{_remedy(covered, number)}"
    )


def _outside(support: Any, x: Tensor) -> float:
    """The first number of x (*X) that is outside of a support; the first of all where it is one on vectors."""
    bad = ~getattr(support, "base_constraint", support).check(x)
    return float((x[bad] if bad.shape == x.shape else x).flatten()[0])


def _remedy(covered: str, first: float) -> str:
    if covered == Support.BINARY.value and 0 <= first <= 1:
        return (
            "Grey levels under a Bernoulli are not a likelihood: draw or threshold binary pixels (values='dynamic' or "
            "'threshold'), choose continuous-bernoulli or discretized-logistic, or ask "
            "for it by name with relaxed=True."
        )
    return "Rescale the data, or choose a likelihood that covers them (normal covers every real number)."
