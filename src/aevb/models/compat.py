"""Which parts a model is made of, and whether they go together, with an objective, and with data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution

from aevb.data.dataset import Split
from aevb.data.values import BLOCK
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
from aevb.probability.offers import UNKNOWN, name_of, read_offers, support_text


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


@singledispatch
def members(model: nn.Module, seen: Trace | None = None) -> list[Member]:
    """Posterior, prior and likelihood of a model; of a hierarchy those of the top layer, and the hierarchy itself."""
    return [] if seen is None else [member(POSTERIOR, None, seen.q), member(PRIOR, None, seen.p)]


@members.register
def _(model: VAE, seen: Trace | None = None) -> list[Member]:
    q, p = _layers(seen.q if seen else None), _layers(seen.p if seen else None)
    likelihood = member(LIKELIHOOD, model.decoder)
    if chains := _chains(model):
        pair = [member(POSTERIOR, chains[0].links[-1], q[-1]), member(PRIOR, chains[1].links[-1], p[-1])]
        return [*pair, likelihood, _of_chain(*chains)]
    return [member(POSTERIOR, model.encoder, q[0]), member(PRIOR, model.prior, p[0]), likelihood]


@members.register
def _(model: Ladder, seen: Trace | None = None) -> list[Member]:
    pair = [Member(role, "normal", Offers(Support.REAL, diagonal=True)) for role in (POSTERIOR, PRIOR)]
    return [*pair, member(LIKELIHOOD, model.decoder), ladder(len(model.rungs))]


def below(model: nn.Module, seen: Trace | None = None) -> Iterator[list[Member]]:
    """Of a chain: posterior and prior of each layer below the top one."""
    if chains := _chains(model):
        encoder, prior = chains
        layers = len(encoder.links) - 1
        q, p = (_layers(d) if d else [None] * layers for d in ((seen.q, seen.p) if seen else (None, None)))
        for l in range(layers):
            yield [member(POSTERIOR, encoder.links[l], q[l]), lower(prior.links[l], p[l], l + 1)]


def _chains(model: nn.Module) -> tuple[Chain, Chain] | None:
    """Encoder and prior of a model with a hierarchy of links; None of other models."""
    encoder, prior = getattr(model, "encoder", None), getattr(model, "prior", None)
    return (encoder, prior) if isinstance(encoder, Chain) and isinstance(prior, Chain) else None


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
    name = word_of(part) if seen is None or getattr(part, "word", None) else name_of(seen)
    return Member(role, name, offers, part_of(part).needs if role == PRIOR else Needs())


def likelihood_name(model: Any, px: Distribution) -> str:
    """What a recipe calls the likelihood p(x|z) of a model; the name of its distribution where no part declares one."""
    return member(LIKELIHOOD, getattr(model, "decoder", None), px).name


def check_support(
    px: Distribution, x: Tensor, first: int = 0, name: str = "", source: Split | None = None, training: bool = False
) -> None:
    """Refuse data that do not fit the likelihood p(x|z), where log p(x|z) would be a number but no log-likelihood.

    x (B, *X) against the event shape, which broadcasting could hide, and against the support. `first` is the number of
    the first row in the data; `name` is the likelihood's.

    Args:
        source: the split that x is read from in its order, whose numbers and rows the message names.
        training: whether changes of a recipe can be advised.

    Raises:
        ShapeError: the shapes differ.
        DataError: x is outside of the support.
    """
    name = name or name_of(px)
    if x.shape[1:] != px.event_shape:
        raise ShapeError(
            f"The likelihood {name} is over the shape {tuple(px.event_shape)}, but one data point has the shape "
            f"{tuple(x.shape[1:])}. Give the decoder's family the shape of the data, or reshape the data."
        )
    inside = None if px.support is None else px.support.check(x)
    if inside is None or bool(inside.all()):
        return
    row = int((~inside).reshape(len(x), -1).any(1).nonzero()[0])
    at, covered = _outside(px.support, x[row]), support_text(px)
    words, change = _remedy(px, covered, float(x[row].flatten()[at]), source)
    raise DataError(
        f"The likelihood {name} covers {covered}, but the data hold {_named(x[row], at, first + row, source)}. {words}",
        changes=(change,) if training else (),
    )


def _outside(support: Any, x: Tensor) -> int:
    """Where in x (*X) the first number is that is outside of a support; 0 where it is one on vectors."""
    bad = ~getattr(support, "base_constraint", support).check(x)
    return int(bad.flatten().nonzero()[0]) if bad.shape == x.shape else 0


def _named(x: Tensor, at: int, row: int, source: Split | None) -> str:
    """A number of a row x (*X) and the row, as the source has them, and what the model reads where that differs."""
    number = own = float(x.flatten()[at])
    if source is not None and source.values.support != "binary":
        own = float(source.values.inverse(x).reshape(-1)[at])
    read = "" if own == number else f", which the model reads as {number:.6g}"
    if source is None or source.names is None:
        return f"{own:.6g} in row {row}{read}"
    name = source.names[row]
    return f"{own:.6g} in {name if isinstance(name, str) else f'row {name}'}{read}"


def _remedy(px: Distribution, covered: str, number: float, source: Split | None) -> tuple[str, str]:
    """What to do, and the change of a recipe that does it."""
    if covered == Support.BINARY.value and 0 <= number <= 1:
        return (
            "Grey levels under a Bernoulli are not a likelihood: draw or threshold binary pixels (values='dynamic' or "
            "'threshold'), choose continuous-bernoulli or discretized-logistic, or ask "
            "for it by name with relaxed=True."
        ), "data.values=dynamic"
    if source is not None and source.values.kind == "standardized" and _fits_as_given(px, source.stored):
        return "The numbers fit as they are given: do not standardize them (values='raw').", "data.values=raw"
    words = "Rescale the data, or choose a likelihood that covers them (normal covers every real number)."
    return words, "likelihood.type=normal"


def _fits_as_given(px: Distribution, stored: Tensor) -> bool:
    """Whether all stored rows (N, *X) are within the support."""
    support = px.support
    return support is not None and all(bool(support.check(rows.float()).all()) for rows in stored.split(BLOCK))
