"""Numbers in which parts alike differ, such as the β of several bounds, and how to put others in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from aevb.training.draws import Unstackable

Path = tuple[str | int, ...]
DEEP = 6  # parts within parts


def unequal_numbers(parts: Sequence[Any]) -> dict[Path, list[float]]:
    """Where in parts of one make their numbers differ, by the path of attributes: the number of each part.

    Raises:
        Unstackable: they differ in something else, or a number is zero in some of them, which may mean another way.
    """
    return dict(_unequal(parts, ()))


def _unequal(parts: Sequence[Any], path: Path) -> Iterator[tuple[Path, list[float]]]:
    first = parts[0]
    if _are_numbers(parts):
        yield from _unequal_here(parts, path)
    elif any(type(part) is not type(first) for part in parts):
        raise Unstackable(f"their {_named(path)} are of different kinds")
    elif isinstance(first, str | bool):
        if len(set(parts)) > 1:
            raise Unstackable(f"their {_named(path)} differ")
    elif len(path) < DEEP:
        for key in _inside(first):
            yield from _unequal([_at(part, (key,)) for part in parts], (*path, key))


def _unequal_here(numbers: Sequence[float], path: Path) -> Iterator[tuple[Path, list[float]]]:
    """These numbers, where they are not all the same."""
    if len(set(numbers)) > 1:
        if not all(numbers):
            raise Unstackable(f"their {_named(path)} is zero in some and not in others")
        yield path, [float(number) for number in numbers]


def _are_numbers(parts: Sequence[Any]) -> bool:
    return all(isinstance(part, int | float) and not isinstance(part, bool) for part in parts)


def _named(path: Path) -> str:
    return ".".join(map(str, path)) or "objectives"


def _inside(part: Any) -> list[str | int]:
    """The names or places of what a part is made of; its tensors are weights, and no settings."""
    if isinstance(part, nn.Module):
        return [*(k for k in vars(part) if not k.startswith("_") and k != "training"), *dict(part.named_children())]
    if isinstance(part, list | tuple):
        return list(range(len(part)))
    return [] if isinstance(part, Tensor | Mapping | type) else [*vars_of(part)]


def vars_of(part: Any) -> dict[str, Any]:
    """The attributes of an object that is no function."""
    return {} if type(part).__name__ in ("function", "builtin_function_or_method") else getattr(part, "__dict__", {})


def _at(part: Any, path: Path) -> Any:
    for key in path:
        part = part[key] if isinstance(key, int) else getattr(part, key)
    return part


@contextmanager
def replaced(part: Any, numbers: Mapping[Path, Any]) -> Iterator[None]:
    """Run a block with other numbers in a part, at their paths."""
    before = {path: _at(part, path) for path in numbers}
    try:
        for path, number in numbers.items():
            _put(part, path, number)
        yield
    finally:
        for path, number in before.items():
            _put(part, path, number)


def _put(part: Any, path: Path, number: Any) -> None:
    key = path[-1]
    if isinstance(key, int):
        raise Unstackable(f"their {_named(path)} differ")
    object.__setattr__(_at(part, path[:-1]), key, number)
