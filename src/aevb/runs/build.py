"""A model and an objective from a recipe, whose parts are checked against one another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from aevb.data.randomness import derive, seeded
from aevb.errors import RecipeError
from aevb.models.chain import Chain
from aevb.models.column_inputs import CellFeatures, HoleFeatures
from aevb.models.compat import chain, check_model, ladder, lower, member
from aevb.models.conditional import Conditional
from aevb.models.inputs import Standardized, Start
from aevb.models.ladder import Ladder
from aevb.models.networks import Planes
from aevb.models.trace import Trace
from aevb.models.vae import VAE
from aevb.objectives.bounds import Objective
from aevb.objectives.schedules import Schedule, arrival
from aevb.objectives.semi_supervised import Labelled
from aevb.objectives.terms import Regularized, members_of
from aevb.parts import CONTEXT, OBJECTIVE, POSTERIOR, PRIOR, SCHEDULE, Member, Needs, Offers, check, find
from aevb.probability.columns import Columns
from aevb.probability.families import Family, Normal, as_shape
from aevb.runs.columns import columns_of, features_of
from aevb.runs.parts import AXES, build, wrap_errors
from aevb.runs.plain import is_whole, type_of
from aevb.runs.ranges import check_size, shown
from aevb.runs.recipe import Recipe

MANY = 5  # layers of latents, which no longer are listed one by one


def build_model(recipe: Recipe, shape: Iterable[int], levels: int = 256) -> VAE | Ladder:
    """The model of a recipe for data of event shape `shape`, initialised from the training seed.

    Args:
        levels: of the data's values, for likelihoods over levels.

    Raises:
        RecipeError: an unknown key or value.
    """
    s, event = recipe.settings, torch.Size(shape)
    pixel = {"levels": levels, "classes": levels, "spacing": 1 / (levels - 1)}
    with seeded(derive(recipe.training().seed, "initialization")):
        if "ladder" in s:
            family = _likelihood(s.get("likelihood"), event, pixel)
            model: VAE | Ladder = build("ladder", s["ladder"], inputs=event, family=family)
            if family.starts and isinstance(model.decoder, Conditional):
                model.decoder.outputs = Start(family)
        else:
            _check_labels(PRIOR, s["prior"], [context_member(recipe)])
            model = _vae(recipe, event, pixel)
    return model


def _vae(recipe: Recipe, event: torch.Size, pixel: Mapping[str, Any]) -> VAE:
    s = recipe.settings
    if not {"likelihood", "encoder", "decoder"} <= s.keys():
        raise RecipeError(f"recipe {recipe.name!r}: the tables likelihood, encoder and decoder must be given.")
    shapes = vae_shapes(recipe)
    classes = classes_of(recipe)
    seen, code = (_beside(part, classes) for part in (event, shapes[0]))
    posterior = build("posterior", s["posterior"], shape=shapes[0])
    _check_needs(recipe, posterior, len(shapes))
    likelihood = _likelihood(s["likelihood"], event, pixel)
    start = Start(likelihood) if likelihood.starts else None
    inputs: nn.Module | None = Standardized(event) if start else None
    if isinstance(likelihood, Columns):
        inputs = features_of(s["likelihood"], event.numel())
    sees = torch.Size((inputs.size,)) if isinstance(inputs, CellFeatures | HoleFeatures) else event
    encoder = Conditional(_encoding(s["encoder"], sees, classes, posterior.size), posterior, inputs=inputs)
    decoder = build("decoder", s["decoder"], inputs=code, outputs=likelihood.size, image=event)
    whose: dict[str, Any] = {"shape": shapes[-1], "family": _alike(posterior, shapes), "context": classes}
    prior: nn.Module = build("prior", s["prior"], inputs=seen, encoder=encoder, **whose)
    pair = chained(encoder, prior, shapes, s["chain"], s["posterior"]) if s["chain"] else (encoder, prior)
    return VAE(pair[1], pair[0], Conditional(decoder, likelihood, outputs=start))


def _likelihood(table: Any, event: torch.Size, pixel: Mapping[str, Any]) -> Family:
    """p(x|z) of a table of a recipe; that of a data table is a product over its columns."""
    if type_of(table) == Columns.word:
        return columns_of(table, event)
    family: Family = build("likelihood", table, pixel, shape=event)
    return family


def _alike(posterior: Family, shapes: Sequence[torch.Size]) -> Family:
    """The family of a prior that is like the posterior's; no prior shares a family's weights."""
    return Normal(shapes[-1]) if isinstance(posterior, nn.Module) or shapes[-1] != shapes[0] else posterior


def build_objective(recipe: Recipe, model: nn.Module | None = None, n: int | None = None) -> Objective:
    """The objective of a recipe with its terms; what is of a model, or of N = `n` training points, must be given them.

    Raises:
        RecipeError: an unknown key or value, or terms that the objective cannot take.
    """
    context, classes = recipe.context(), classes_of(recipe)
    known = classes * context.labels / n if n and context.labels else 1.0
    given: dict[str, Any] = {"context": classes, "labelled": Labelled(classes, known)}
    given |= {} if model is None else {"model": model}
    rungs = [ladder(layers=2)] if "ladder" in recipe.settings else []
    _check_labels(OBJECTIVE, recipe.settings["objective"], [*rungs, context_member(recipe)])
    with seeded(derive(recipe.training().seed, "objective")):
        objective: Objective = build("objective", recipe.settings["objective"], **given)
        terms = [build("terms", table, **given) for table in recipe.tables("terms")]
    if terms:
        objective = wrap_errors("terms", lambda: Regularized(objective, terms), "Regularized")  # type: ignore[arg-type]
    return objective


def check_recipe(recipe: Recipe, model: nn.Module, objective: Objective, seen: Trace | None = None) -> None:
    """Hold all parts of a recipe against one another: those of the model, the objective, labels and settings.

    Args:
        seen: a trace of the model, for what parts that declare nothing say by their distributions.

    Raises:
        RecipeError: parts that do not go together.
    """
    settings = [context_member(recipe), *recipe.training().members(), *recipe.validation().members()]
    check_model(model, *members_of(objective), *settings, seen=seen)


def context_member(recipe: Recipe) -> Member:
    """The labels that a recipe conditions on, as a part beside those of a model."""
    needs = Needs(conditions=recipe.conditional, unlabelled=recipe.context().labels > 0)
    return Member(CONTEXT, "", Offers(labels=recipe.conditional), needs)


def classes_of(recipe: Recipe) -> int:
    """How many classes a model is conditioned on; 0 for an unconditional one.

    Raises:
        RecipeError: the data have to say how many.
    """
    classes = recipe.context().classes
    if recipe.conditional and not classes:
        raise RecipeError("context.classes: the data say how many there are: use recipe.of(data), or give a number.")
    return classes


def _check_labels(role: str, table: Any, others: Sequence[Member]) -> None:
    """What a part asks of labels, before it is built for as many classes."""
    if (word := type_of(table)) is not None:
        part = find(role, word)
        needs = Needs(conditions=part.needs.conditions, labels=part.needs.labels, otherwise=part.needs.otherwise)
        check([Member(role, part.word, part.offers, needs), *others])


def _check_needs(recipe: Recipe, posterior: Family, layers: int) -> None:
    """What a prior asks of the posterior's family, before it is built from the encoder; in a chain all priors do."""
    q = member(POSTERIOR, posterior)
    if layers > 1:
        check([q, lower(Normal(posterior.shape), None, 1)])
    prior, beside = recipe.settings["prior"], [context_member(recipe), *([chain(layers)] if layers > 1 else [])]
    if (word := type_of(prior)) is not None:
        part = find(PRIOR, word)
        check([q, Member(PRIOR, part.word, part.offers, part.needs), *beside])


# Shapes


def vae_shapes(recipe: Recipe) -> list[torch.Size]:
    """The event shapes of z_1, ..., z_L."""
    chain = recipe.tables("chain")
    for table in chain:
        if not isinstance(table, Mapping) or "latent" not in table:
            raise RecipeError(f"chain: each table needs its latent, such as latent = 50; got {shown(table)}.")
    return [_shape(recipe.settings["latent"]), *(_shape(table["latent"], "chain.latent") for table in chain)]


def _shape(latent: Any, where: str = "latent") -> torch.Size:
    sizes = latent if isinstance(latent, list | tuple) and latent else [latent]
    if any(not is_whole(size) or size < 1 for size in sizes):
        raise RecipeError(f"{where}: expected a whole number of at least 1; got {shown(latent)}.")
    check_size(where.rpartition(".")[0] or "recipe", "latent", sizes)
    return as_shape(latent)


def latent_shapes(recipe: Recipe, shape: Iterable[int]) -> Sequence[torch.Size]:
    """The event shapes of the latents for data of event shape `shape`, z_1 first; several in a hierarchy."""
    if "ladder" not in recipe.settings:
        return vae_shapes(recipe)
    with torch.device("meta"):  # its sizes are known without numbers
        model = build_model(recipe, shape)
    assert isinstance(model, Ladder)
    return model.shapes


def latents_text(recipe: Recipe, shape: Iterable[int]) -> str:
    """How many latents there are, as text: 20, or layer by layer 100 + 50."""
    shapes = ["×".join(map(str, z)) for z in latent_shapes(recipe, shape)]
    return " + ".join(shapes) if len(shapes) < MANY else f"{shapes[0]} + ... ({len(shapes)} layers)"


def code_shape(recipe: Recipe, shape: Iterable[int]) -> tuple[int, ...]:
    """The shape of a code, as `aevb encode` writes it: the layers of a hierarchy side by side."""
    shapes = latent_shapes(recipe, shape)
    return tuple(shapes[0]) if len(shapes) == 1 else (sum(z.numel() for z in shapes),)


def _beside(shape: torch.Size, classes: int) -> torch.Size:
    """The event shape of a network's input, with a one-hot label beside it where there are classes."""
    return torch.Size((shape.numel() + classes,)) if classes else shape


def _encoding(table: Any, event: torch.Size, classes: int, outputs: int) -> nn.Module:
    """The encoder's network; one that reads images reads a label as planes beside those of the image."""
    kind = type_of(table)
    if classes and len(event) == 3 and kind and getattr(find("encoder", kind).make, "reads_images", False):
        stacked = torch.Size((event[0] + classes, *event[1:]))
        return nn.Sequential(Planes(event), build("encoder", table, inputs=stacked, outputs=outputs))
    network: nn.Module = build("encoder", table, inputs=_beside(event, classes), outputs=outputs)
    return network


def chained(
    encoder: nn.Module, prior: nn.Module, shapes: Sequence[torch.Size], chain: Sequence[Any], posterior: Any
) -> tuple[Chain, Chain]:
    """q(z_1|x) and p(z_L) with what is between, q(z_l|z_{l-1}) and p(z_{l-1}|z_l): two networks alike for each table.

    The former are of the family `posterior`, the latter normal.
    """
    up, down = [encoder], []
    for (below, above), table in zip(pairwise(shapes), chain, strict=True):
        net = {"type": "mlp", **{k: v for k, v in table.items() if k != "latent"}}
        q, p = build("posterior", posterior, shape=above), Normal(below)
        up.append(Conditional(build("chain", net, inputs=below, outputs=q.size), q))
        down.append(Conditional(build("chain", net, inputs=above, outputs=p.size), p))
    return Chain(*up), Chain.prior(*down, prior)


# Schedules


def unfinished(recipe: Recipe, n: int) -> list[str]:
    """Schedules that do not reach their end with N = `n` training points, each in a sentence."""
    total = recipe.training().steps(n)
    late = [(key, schedule, arrival(schedule)) for key, schedule in schedules(recipe) if arrival(schedule) > total]
    return [
        f"The schedule {key} takes {steps:,} steps, but the training has {total:,}: it ends at "
        f"{schedule(total - 1):.3g}"
        f" instead of {schedule(steps):.3g}. Let it end earlier, or train for longer."
        for key, schedule, steps in late
    ]


def schedules(recipe: Recipe) -> Iterator[tuple[str, Schedule]]:
    """Those of the posterior, the objective and the terms, by keys such as objective.beta."""
    tables = [(where, recipe.settings.get(where)) for where in ("posterior", "objective")]
    for where, table in [*tables, *(("terms", t) for t in recipe.tables("terms"))]:
        for key, value in table.items() if isinstance(table, Mapping) else ():
            if type_of(value) in AXES[SCHEDULE]:
                yield f"{where}.{key}", build(SCHEDULE, value, where=f"{where}.{key}")
