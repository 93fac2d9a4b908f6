"""The parts that a recipe can name, by axis, and how a table of a recipe becomes one: the constructor is the schema."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import torch
from torch import nn

from aevb.errors import RecipeError, suggest
from aevb.models.networks import MLP, ConvDecoder, ConvEncoder, GatedMLP
from aevb.models.priors import PRIORS
from aevb.models.residual import ResidualDecoder, ResidualEncoder
from aevb.models.rungs import image_ladder, vector_ladder
from aevb.objectives.bounds import ELBO
from aevb.objectives.full_bayes import FullBayes
from aevb.objectives.importance import ImportanceWeighted
from aevb.objectives.monte_carlo_em import MonteCarloEM
from aevb.objectives.schedules import Cosine, Cyclical, Exponential, Linear, Piecewise
from aevb.objectives.semi_supervised import M2
from aevb.objectives.terms import DIP, MMD, Commitment, DensityRatio, TotalCorrelation
from aevb.objectives.wake_sleep import WakeSleep
from aevb.probability import circular, codes, counts, families, flows, mixtures, reparameterized, scales, sphere
from aevb.training.optimizers import SGD, Adagrad, Adam

Parts = Mapping[str, Callable[..., Any]]  # each has its equation in equations.py

FAMILIES: Parts = {
    "normal": families.Normal,
    "full-normal": families.FullNormal,
    "low-rank-normal": families.LowRankNormal,
    "bernoulli": families.Bernoulli,
    "continuous-bernoulli": families.ContinuousBernoulli,
    "categorical": families.Categorical,
    "discretized-logistic": families.DiscretizedLogistic,
    "laplace": families.Laplace,
    "student-t": families.StudentT,
    "delta": families.Delta,
    "logistic": reparameterized.Logistic,
    "gumbel": reparameterized.Gumbel,
    "cauchy": reparameterized.Cauchy,
    "uniform": reparameterized.Uniform,
    "exponential": reparameterized.Exponential,
    "weibull": reparameterized.Weibull,
    "log-normal": reparameterized.LogNormal,
    "gamma": reparameterized.Gamma,
    "beta": reparameterized.Beta,
    "dirichlet": reparameterized.Dirichlet,
    "planar": flows.Planar,
    "sylvester": flows.Sylvester,
    "iaf": flows.IAF,
    "householder": flows.Householder,
    "homoscedastic-normal": scales.HomoscedasticNormal,
    "optimal-normal": scales.OptimalNormal,
    "logistic-mixture": mixtures.LogisticMixture,
    "beta-binomial": counts.BetaBinomial,
    "poisson": counts.Poisson,
    "negative-binomial": counts.NegativeBinomial,
    "zero-inflated-negative-binomial": counts.ZeroInflatedNegativeBinomial,
    "von-mises": circular.VonMises,
    "von-mises-fisher": sphere.VonMisesFisher,
    "one-hot": codes.OneHot,
    "concrete": codes.Concrete,
    "vq": codes.VQ,
    "fsq": codes.FSQ,
}
POSTERIORS_ONLY = (
    *("full-normal", "low-rank-normal", "delta", "uniform", "dirichlet", "planar", "sylvester", "iaf", "householder"),
    *("von-mises-fisher", "one-hot", "concrete", "vq", "fsq"),
)
LIKELIHOODS_ONLY = (  # without a derivative of their draws, or with a σ that no x moves
    *("bernoulli", "continuous-bernoulli", "categorical", "discretized-logistic", "logistic-mixture", "beta-binomial"),
    *("poisson", "negative-binomial", "zero-inflated-negative-binomial", "von-mises"),
    *("homoscedastic-normal", "optimal-normal"),
)
SCHEDULES: Parts = {
    "linear": Linear,
    "cosine": Cosine,
    "cyclical": Cyclical,
    "exponential": Exponential,
    "piecewise": Piecewise,
}
AXES: Mapping[str, Parts] = {
    "prior": PRIORS,
    "posterior": {k: v for k, v in FAMILIES.items() if k not in LIKELIHOODS_ONLY},
    "likelihood": {k: v for k, v in FAMILIES.items() if k not in POSTERIORS_ONLY},
    "chain": {"mlp": MLP, "gated": GatedMLP},
    "ladder": {"mlp": vector_ladder, "conv": image_ladder},
    "encoder": {"mlp": MLP, "gated": GatedMLP, "conv": ConvEncoder, "residual": ResidualEncoder},
    "decoder": {"mlp": MLP, "gated": GatedMLP, "conv": ConvDecoder, "residual": ResidualDecoder},
    "objective": {
        "elbo": ELBO,
        "full-bayes": FullBayes,
        "importance-weighted": ImportanceWeighted,
        "m2": M2.of,
        "monte-carlo-em": MonteCarloEM,
        "wake-sleep": WakeSleep,
    },
    "terms": {
        "commitment": Commitment,
        "density-ratio": DensityRatio,
        "dip": DIP,
        "mmd": MMD,
        "total-correlation": TotalCorrelation,
    },
    "optimizer": {"adagrad": Adagrad, "adam": Adam, "sgd": SGD},
}
CONTEXT = (  # no keys of a recipe
    *("shape", "inputs", "outputs", "image", "family", "encoder", "model", "n", "bound", "context", "share"),
)
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


def construct(where: str, make: Callable[..., Any], arguments: Any, given: Mapping[str, Any]) -> Any:
    """make(**arguments), keys and types checked against the signature, names and schedules resolved."""
    if not isinstance(arguments, Mapping):
        raise RecipeError(f"{where}: expected a table of keys and values; got {arguments!r}.")
    accepted = inspect.signature(make, eval_str=True).parameters
    free = [k for k in accepted if k not in CONTEXT]
    for key in arguments:
        if key not in free:
            raise RecipeError(f"{where}: there is no {key!r}.{suggest(key, free)}")
    resolved = {k: resolve(f"{where}.{k}", k, v, accepted[k].annotation) for k, v in arguments.items()}
    context = {k: v for k, v in given.items() if k in accepted}
    missing = [k for k in accepted if accepted[k].default is inspect.Parameter.empty and k not in {**resolved, **context}]
    if missing:
        raise RecipeError(f"{where}: {' and '.join(missing)} must be given.")
    return told(where, lambda: make(**{**context, **resolved}), getattr(make, "__name__", ""))


def told(where: str, make: Callable[[], Any], name: str = "") -> Any:
    """make(), what it refuses told as a `RecipeError` that says where; its own name need not be said again."""
    try:
        return make()
    except RecipeError:
        raise
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise RecipeError(f"{where}: {str(error).removeprefix(f'{name}: ')}") from error


def resolve(where: str, key: str, value: Any, annotation: Any) -> Any:
    """Names of activations and links become functions, tables become schedules, lists become tuples; then types fit."""
    if key in NAMED and not callable(value):
        return lookup(where, NAMED[key], value)
    if isinstance(value, Mapping):
        if "type" not in value:
            raise RecipeError(f"{where}: a schedule needs a type.{suggest('', SCHEDULES)} Got {dict(value)!r}.")
        make = lookup(where, SCHEDULES, value["type"])
        value = construct(f"{where} ({value['type']})", make, {k: v for k, v in value.items() if k != "type"}, {})
    value = tuple(value) if isinstance(value, list) else value
    if annotation is int and isinstance(value, float) and value.is_integer():
        value = int(value)  # samples = 1e6
    if not fits(annotation, value):
        raise RecipeError(f"{where}: expected {words(annotation)}; got {value!r}.")
    return value


def fits(annotation: Any, value: Any) -> bool:
    """Whether a value is what a parameter's annotation asks for; an annotation beyond a recipe's values fits anything."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(fits(a, value) for a in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(arguments) and all(map(fits, arguments, value))
    if origin is Sequence:
        return isinstance(value, tuple) and all(fits(arguments[0], v) for v in value)
    if origin is Callable:
        return callable(value)
    if annotation in (int, float):
        return isinstance(value, int | annotation) and not isinstance(value, bool)
    return not isinstance(annotation, type) or origin is not None or isinstance(value, annotation)


def words(annotation: Any) -> str:
    """What an annotation asks for, as a user would say it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if annotation in plain:
        return plain[annotation]
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(words(a) for a in arguments if a is not types.NoneType))
    if origin is Literal:
        return " or ".join(repr(a) for a in arguments)
    if origin in (Sequence, tuple):
        if arguments[0] is str:
            return "a list of names"
        count = f"{len(arguments)} " if origin is tuple else ""
        return f"a list of {count}{'whole ' if arguments[0] is int else ''}numbers"
    if origin is Callable:
        return 'a schedule such as {type = "linear", start = 0.0, end = 1.0, steps = 1000}'
    return str(annotation)


def lookup(where: str, possible: Mapping[str, Any], name: Any) -> Any:
    if not isinstance(name, str) or name not in possible:
        raise RecipeError(f"{where}: there is no {name!r}.{suggest(str(name), possible)}")
    return possible[name]
