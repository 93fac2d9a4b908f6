"""The values of a recipe, checked and converted by the annotations of the constructors that they reach."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, Literal, Union, get_args, get_origin

import torch
from torch import Tensor, nn

from aevb.errors import RecipeError, suggest
from aevb.runs.plain import is_number

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU, "softplus": nn.Softplus}
LINKS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "softplus": nn.functional.softplus}
SHAPED = 'a schedule such as {type = "linear", start = 0.0, end = 1.0, steps = 1000}'


@dataclass(frozen=True)
class Kind:
    """What an annotation asks for: its description, whether a value is of this kind, and what becomes of (where,
    value)."""

    text: str
    fits: Callable[[Any], bool]
    convert: Callable[[str, Any], Any] = lambda where, value: value


Nested = Callable[[str, str, Any], Any]  # (axis, where, table) → the part
PLAIN = {
    int: Kind("a whole number", lambda v: is_number(v) and float(v).is_integer(), lambda where, v: int(v)),
    float: Kind("a number", is_number),
    bool: Kind("true or false", lambda v: isinstance(v, bool)),
    str: Kind("text", lambda v: isinstance(v, str)),
    types.NoneType: Kind("", lambda v: v is None),
    Parameter.empty: Kind("a value", lambda v: True),
    type[nn.Module]: Kind("an activation", lambda v: True, lambda where, v: lookup(where, ACTIVATIONS, v)),
    Callable[[Tensor], Tensor]: Kind("a link", lambda v: True, lambda where, v: lookup(where, LINKS, v)),
}


def kind_of(annotation: Any, axes: Mapping[Any, str], nested: Nested) -> Kind | None:
    """The kind of an annotation; None for one that no value of a recipe can be of, such as a module.

    Args:
        axes: of annotations that are parts, by the axis on which a table for them is looked up.
        nested: makes such a part.
    """
    if annotation in PLAIN:
        return PLAIN[annotation]
    if annotation in axes or _is_schedule(annotation):
        return _part(axes.get(annotation, "schedule"), nested)
    makers = {
        Union: _any_of,
        types.UnionType: _any_of,
        Literal: _literal,
        tuple: _tuple,
        Sequence: _sequence,
        Mapping: _texts,
    }
    make = makers.get(get_origin(annotation))
    return make(get_args(annotation), axes, nested) if make else None


def _is_schedule(annotation: Any) -> bool:
    """Any function of one number, whatever it gives."""
    return get_origin(annotation) is Callable and get_args(annotation)[1] is Any


def _part(axis: str, nested: Nested) -> Kind:
    text = SHAPED if axis == "schedule" else f'a table with a type, of the axis "{axis}"'
    return Kind(text, lambda v: isinstance(v, Mapping), lambda where, v: nested(axis, where, v))


def _any_of(arguments: tuple[Any, ...], axes: Mapping[Any, str], nested: Nested) -> Kind | None:
    kinds = [kind for a in arguments if (kind := kind_of(a, axes, nested)) is not None]
    if all(kind.text == "" for kind in kinds):
        return None

    def convert(where: str, value: Any) -> Any:
        return next(kind for kind in kinds if kind.fits(value)).convert(where, value)

    text = " or ".join(dict.fromkeys(kind.text for kind in kinds if kind.text))
    return Kind(text, lambda v: any(kind.fits(v) for kind in kinds), convert)


def _literal(arguments: tuple[Any, ...], axes: Mapping[Any, str], nested: Nested) -> Kind:
    return Kind(" or ".join(map(repr, arguments)), lambda v: isinstance(v, str) and v in arguments)


def _texts(arguments: tuple[Any, ...], axes: Mapping[Any, str], nested: Nested) -> Kind | None:
    """Texts by their names; of other tables a recipe knows nothing."""

    def fits(value: Any) -> bool:
        return isinstance(value, Mapping) and all(isinstance(v, str) for v in value.values())

    return Kind("a table of texts", fits, lambda where, v: dict(v)) if arguments == (str, str) else None


def _sequence(arguments: tuple[Any, ...], axes: Mapping[Any, str], nested: Nested) -> Kind | None:
    kind = kind_of(arguments[0], axes, nested)
    return None if kind is None else _list_of([kind], lambda n: True)


def _tuple(arguments: tuple[Any, ...], axes: Mapping[Any, str], nested: Nested) -> Kind | None:
    kinds = [kind for a in arguments if (kind := kind_of(a, axes, nested)) is not None]
    return _list_of(kinds, lambda n: n == len(kinds), f"{len(kinds)} ") if len(kinds) == len(arguments) else None


def _list_of(kinds: Sequence[Kind], enough: Callable[[int], bool], count: str = "") -> Kind:
    """A list of as many values as kinds, or of any number of values of one kind."""
    names = {"a whole number": "whole numbers", "a number": "numbers", "text": "names"}

    def each(values: Sequence[Any]) -> list[tuple[Kind, Any]]:
        return list(zip(kinds if len(kinds) == len(values) else list(kinds) * len(values), values, strict=False))

    def fits(value: Any) -> bool:
        listed = isinstance(value, list | tuple) and enough(len(value))
        return listed and all(kind.fits(v) for kind, v in each(value))

    def convert(where: str, value: Any) -> Any:
        return tuple(kind.convert(f"{where}[{i}]", v) for i, (kind, v) in enumerate(each(value)))

    return Kind(f"a list of {count}{names.get(kinds[0].text, 'tables')}", fits, convert)


def lookup(where: str, possible: Mapping[str, Any], name: Any) -> Any:
    """possible[name]; what is no name but a function already stays as it is."""
    if callable(name):
        return name
    if not isinstance(name, str) or name not in possible:
        raise RecipeError(f"{where}: there is no {name!r}.{suggest(str(name), possible)}")
    return possible[name]
