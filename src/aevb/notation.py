"""How the numbers of a recipe are written in its equation."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from aevb.parts import SCHEDULE, Part, Values, parts_in


def plain(value: Any) -> str:
    """A number as one writes it, 4 or 0.25; a list, 500, 500; a schedule, from 0 to 1 in 3,000 steps; a name."""
    if isinstance(value, Mapping) and value.get("type") in parts_in(SCHEDULE):
        return text(parts_in(SCHEDULE)[value["type"]], value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(plain, value))
    if isinstance(value, type):
        return value.__name__.lower()  # the default of an activation
    return f"{value:,}" if type(value) is int else f"{value:g}" if type(value) is float else str(value)


def text(part: Part, values: Values) -> str:
    """The equation of a part, its numbers filled in; of one without an equation, its word and its numbers."""
    defaults = {k: p.default for k, p in inspect.signature(part.make).parameters.items()}
    filled = {**defaults, **values}
    if callable(part.equation):
        return part.equation(filled)
    if part.equation:
        return part.equation.format(**{k: plain(v) for k, v in filled.items()})
    numbers = [f"{k} = {plain(v)}" for k, v in values.items() if k in defaults]
    of = f"({values['v']}; {values['net']})" if {"v", "net"} <= values.keys() else ""
    return f"{part.word}{of}" + (f",  {', '.join(numbers)}" if numbers else "")


def bound_to(symbol: str, value: Any) -> str:
    """β = 4, or β from 0 to 1 in 3,000 steps."""
    return f"{symbol} {plain(value)}" if isinstance(value, Mapping) else f"{symbol} = {plain(value)}"


def where(equation: str, *bindings: str) -> str:
    return ",  ".join([equation, ", ".join(bindings)] if bindings else [equation])


def count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def bar(y: str) -> str:
    """p(x, z) becomes p(x, z|y)."""
    return y.replace(", ", "|")


def product_of(name: str, parameters: str, net: str, more: str = "") -> str:
    """Π_d name(v_d; parameters), (net) = the network's numbers."""
    return f"Π_d {name}({{v}}_d; {parameters}),  {net} = {{net}}{more}"


class Shown:
    """What prints as it was made, with the settings that are not the defaults: ELBO(beta=4)."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__new__(cls)
        object.__setattr__(made, "_made_with", (args, kwargs))
        return made

    def __repr__(self) -> str:
        args, kwargs = self.__dict__["_made_with"]
        signature = inspect.signature(type(self).__init__)
        try:
            given = signature.bind(self, *args, **kwargs).arguments
        except TypeError:  # a copy was made without its settings
            return type(self).__name__
        settings = list(given.items())[1:]
        shown = (f"{k}={brief(v)}" for k, v in settings if v is not signature.parameters[k].default)
        return f"{type(self).__name__}({', '.join(shown)})"


class Brief:
    """A result that prints on one line: of many numbers their mean and their shape."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={brief(v)}' for k, v in vars(self).items())})"


def _brief_tensor(value: Any) -> str:
    shape = tuple(value.shape)
    mean = f"mean {float(value.double().mean()):.4g} of " if value.numel() and not value.is_complex() else ""
    return f"<{mean}{shape}>" if shape else f"{value.item():.4g}"


def brief(value: Any) -> str:
    """A value in a few characters: of a tensor its mean and its shape, of a module its class."""
    if hasattr(value, "numel"):
        return _brief_tensor(value)
    if hasattr(value, "named_parameters") and not isinstance(value, Shown):
        return type(value).__name__
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {brief(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(brief, value)) + "]"
    return f"{value:.4g}" if type(value) is float else repr(value)


def short(value: float) -> str:
    """A number in a few characters: 1,234 or −0.123."""
    text = f"{float(value):,.0f}" if abs(value) >= 1000 else f"{float(value):.3g}"
    return text.replace("-", "−")
