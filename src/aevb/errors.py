"""Errors that a user can act on: each says where, what came, what is possible and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AevbError(Exception):
    """Base of every error that aevb raises on purpose."""


class DataError(AevbError, ValueError):
    """The data cannot be used as they are."""


class RecipeError(AevbError, ValueError):
    """A recipe names something that does not exist or does not fit."""


class ShapeError(AevbError, ValueError):
    """A tensor's size does not fit what was asked of it."""


class RunError(AevbError, RuntimeError):
    """A run folder is missing, incomplete, in the way, or from another version."""


class TrainingDiverged(AevbError, ArithmeticError):
    """The loss became NaN, infinite or absurdly large."""


class AevbWarning(Warning):
    """Something in a recipe that stops nothing, but is hardly meant."""


def suggest(name: str, possible: Iterable[str]) -> str:
    """«Did you mean 'samples'? Possible: ...», for an unknown `name` among the `possible` ones."""
    options = sorted(possible)
    near = difflib.get_close_matches(name, options, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return f"{hint} Possible: {', '.join(options)}."
