"""The parts that a recipe can name, by axis, and how a table of a recipe becomes one: the constructor is the schema."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from aevb.errors import RecipeError, suggest
from aevb.models.networks import MLP, ConvDecoder, ConvEncoder
from aevb.models.priors import StandardNormal
from aevb.objectives.bounds import ELBO
from aevb.objectives.schedules import Cosine, Exponential, Linear
from aevb.probability import families
from aevb.training.optimizers import SGD, Adagrad, Adam

Parts = Mapping[str, Callable[..., Any]]

FAMILIES: Parts = {
    "normal": families.Normal,
    "full-normal": families.FullNormal,
    "bernoulli": families.Bernoulli,
    "continuous-bernoulli": families.ContinuousBernoulli,
    "categorical": families.Categorical,
    "discretized-logistic": families.DiscretizedLogistic,
    "laplace": families.Laplace,
    "student-t": families.StudentT,
    "delta": families.Delta,
}
SCHEDULES: Parts = {"linear": Linear, "cosine": Cosine, "exponential": Exponential}
AXES: Mapping[str, Parts] = {
    "prior": {"standard-normal": StandardNormal},
    "posterior": {k: FAMILIES[k] for k in ("normal", "full-normal", "laplace", "student-t", "delta")},
    "likelihood": {k: v for k, v in FAMILIES.items() if k not in ("full-normal", "delta")},
    "encoder": {"mlp": MLP, "conv": ConvEncoder},
    "decoder": {"mlp": MLP, "conv": ConvDecoder},
    "objective": {"elbo": ELBO},
    "optimizer": {"adagrad": Adagrad, "adam": Adam, "sgd": SGD},
}
NAMED: Mapping[str, Mapping[str, Any]] = {
    "activation": {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU, "softplus": nn.Softplus},
    "link": {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "softplus": torch.nn.functional.softplus},
}


def build(axis: str, table: Any, **given: Any) -> Any:
    """The part that a table such as {type = "elbo", beta = 4} names; `given` is what the recipe's user need not say.

    Of `given`, the constructor gets what it has a parameter for; a key of the table wins over it.

    Raises:
        RecipeError: unknown type or key, with the nearest names; a value that the constructor refuses, with its words.
    """
    if not isinstance(table, Mapping) or "type" not in table:
        raise RecipeError(
            f'{axis}: expected a table with a type, such as {{type = "{next(iter(AXES[axis]))}"}}; got {table!r}.'
        )
    make = lookup(axis, AXES[axis], table["type"])
    arguments = {k: v for k, v in table.items() if k != "type"}
    return construct(f"{axis} ({table['type']})", make, arguments, given)


def construct(where: str, make: Callable[..., Any], arguments: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """make(**arguments), its keys checked against the signature, names and schedules resolved."""
    accepted = inspect.signature(make).parameters
    free = [k for k in accepted if k not in ("shape", "inputs", "outputs", "image")]
    for key in arguments:
        if key not in free:
            raise RecipeError(f"{where}: there is no {key!r}.{suggest(key, free)}")
    resolved = {k: resolve(f"{where}.{k}", k, v) for k, v in arguments.items()}
    context = {k: v for k, v in given.items() if k in accepted}
    try:
        return make(**{**context, **resolved})
    except (TypeError, ValueError) as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"{where}: {error}") from error


def resolve(where: str, key: str, value: Any) -> Any:
    """Names of activations and links become functions, tables become schedules, lists become tuples."""
    if key in NAMED and isinstance(value, str):
        return lookup(where, NAMED[key], value)
    if isinstance(value, Mapping):
        make = lookup(where, SCHEDULES, value.get("type", ""))
        return construct(where, make, {k: v for k, v in value.items() if k != "type"}, {})
    return tuple(value) if isinstance(value, list) else value


def lookup(where: str, possible: Mapping[str, Any], name: Any) -> Any:
    if name not in possible:
        raise RecipeError(f"{where}: there is no {name!r}.{suggest(str(name), possible)}")
    return possible[name]
