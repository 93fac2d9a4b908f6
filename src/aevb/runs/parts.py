"""The parts that a recipe can name, by axis, and how a table of a recipe becomes one: the constructor is the schema."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from aevb.data.memory import out_of_memory
from aevb.errors import RecipeError, suggest
from aevb.objectives.bounds import Objective
from aevb.parts import (
    CHAIN,
    DECODER,
    ENCODER,
    LADDER,
    LIKELIHOOD,
    OBJECTIVE,
    OPTIMIZER,
    POSTERIOR,
    PRIOR,
    SCHEDULE,
    TERM,
    find,
    parts_in,
)
from aevb.probability.families import Family
from aevb.runs.ranges import check_range, check_size, shown
from aevb.runs.values import kind_of
from aevb.training.optimizers import MakeOptimizer

ROLES = (PRIOR, POSTERIOR, LIKELIHOOD, CHAIN, LADDER, ENCODER, DECODER, OBJECTIVE, TERM, OPTIMIZER, SCHEDULE)
AXES: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    role: {word: part.make for word, part in parts_in(role).items()} for role in ROLES
}
FAMILIES: Mapping[str, Callable[..., Any]] = {**AXES[POSTERIOR], **AXES[LIKELIHOOD]}
HELD: Mapping[Any, str] = {Family: LIKELIHOOD, Objective: OBJECTIVE, MakeOptimizer: OPTIMIZER}  # parts within parts


def build(axis: str, table: Any, defaults: Mapping[str, Any] | None = None, where: str = "", **given: Any) -> Any:
    """The part that a table such as {type = "elbo", beta = 4} names.

    Args:
        defaults: what the recipe's user need not say; a key of the table wins over it.
        given: what the recipe's user cannot say, such as shapes. The constructor gets what it has a parameter for.

    Raises:
        RecipeError: unknown type or key, with the nearest names; a value that the constructor refuses, with its words.
    """
    place = where or axis
    if not isinstance(table, Mapping):
        raise RecipeError(
            f'{place}: expected a table with a type, such as {{type = "{next(iter(AXES[axis]))}"}}; got {shown(table)}.'
        )
    if "type" not in table:
        raise RecipeError(f"{place}: a table needs a type.{suggest('', AXES[axis])} Got {shown(dict(table))}.")
    make = find(axis, table["type"], place).make
    arguments = {k: v for k, v in table.items() if k != "type"}
    return construct(f"{place} ({table['type']})", make, arguments, given, defaults)


def construct(
    where: str,
    make: Callable[..., Any],
    arguments: Any,
    given: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Any:
    """make(**arguments), keys and values checked against the signature; tables and names become parts and functions."""
    if not isinstance(arguments, Mapping):
        raise RecipeError(f"{where}: expected a table of keys and values; got {shown(arguments)}.")
    accepted, known = signature(make), given or {}
    context = _of(accepted, known)
    values = _of(accepted, defaults or {}) | context
    values |= _converted(where, arguments, {k: p for k, p in accepted.items() if k not in context}, known)
    _check_whole(where, accepted, values)
    made = wrap_errors(where, lambda: make(**values), getattr(make, "__name__", ""))
    for key, value in arguments.items():
        check_range(where, key, value)
    return made


def _check_whole(where: str, accepted: Mapping[str, inspect.Parameter], values: Mapping[str, Any]) -> None:
    """Raise a `RecipeError` where a parameter without a default has no value."""
    missing = [k for k, p in accepted.items() if p.default is inspect.Parameter.empty and k not in values]
    if missing:
        raise RecipeError(f"{where}: {' and '.join(missing)} must be given.")


def _of(accepted: Mapping[str, inspect.Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values for which there is a parameter."""
    return {k: v for k, v in values.items() if k in accepted}


def _converted(
    where: str, arguments: Mapping[str, Any], accepted: Mapping[str, inspect.Parameter], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of a table, each of the kind that its parameter asks for."""
    kinds = {k: kind_of(p.annotation, HELD, partial(_nested, given)) for k, p in accepted.items()}
    free = {k: kind for k, kind in kinds.items() if kind is not None}
    for key, value in arguments.items():
        if key not in free:
            raise RecipeError(f"{where}: there is no {key!r}.{suggest(key, free)}")
        if not free[key].fits(value):
            raise RecipeError(f"{where}.{key}: expected {free[key].text}; got {shown(value)}.")
        check_size(where, key, value)
    return {k: free[k].convert(f"{where}.{k}", v) for k, v in arguments.items()}


def signature(make: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a constructor; those of an installed package may have annotations that cannot be evaluated."""
    try:
        return inspect.signature(make, eval_str=True).parameters
    except NameError:
        plain = inspect.signature(make).parameters
        return {k: p.replace(annotation=inspect.Parameter.empty) for k, p in plain.items()}


def _nested(given: Mapping[str, Any], axis: str, where: str, table: Any) -> Any:
    """A part within a part."""
    return build(axis, table, where=where, **given)


def wrap_errors(where: str, make: Callable[[], Any], name: str = "") -> Any:
    """make(), with what it refuses as a `RecipeError` that says where; its own name need not be said again."""
    try:
        return make()
    except RecipeError:
        raise
    except (TypeError, ValueError, ArithmeticError, RuntimeError, IndexError, MemoryError) as error:
        if words := out_of_memory(error):
            raise RecipeError(f"{where}: {words[0].lower()}{words[1:]}") from error
        raise RecipeError(f"{where}: {str(error).removeprefix(f'{name}: ')}") from error
