"""Errors that a user can act on: each says where, what came, what is possible and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AevbError(Exception):
    """Base of every error that aevb raises on purpose.

    Attributes:
        changes: the assignments to a recipe that the message advises, such as training.optimizer.lr=...; the command
            line shows them as options.
    """

    def __init__(self, message: str = "", *, changes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.changes = changes


class DataError(AevbError, ValueError):
    """The data cannot be used as they are."""


class RecipeError(AevbError, ValueError):
    """A recipe names something that does not exist or does not fit."""


class ShapeError(AevbError, ValueError):
    """A tensor has the wrong shape for a function."""


class RunError(AevbError, RuntimeError):
    """A run folder is missing, incomplete, from another version, or already exists."""


class TrainingDiverged(AevbError, ArithmeticError):
    """The loss, the weights or the optimizer's memory became NaN or infinite, or the loss rose beyond what is
    plausible."""


class AevbWarning(Warning):
    """Data or a setting that is valid but probably unintended."""


def suggest(name: str, possible: Iterable[str]) -> str:
    """«Did you mean 'samples'? Possible: ...», for an unknown `name` among the `possible` ones."""
    options = sorted(possible)
    near = difflib.get_close_matches(name, options, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return f"{hint} Possible: {', '.join(options)}."


def nearest(name: str, possible: Iterable[str], most: int = 3) -> str:
    """«Did you mean 'a', 'b' or 'c'?», the names nearest to an unknown one; for lists that are too long to print."""
    near = [repr(n) for n in difflib.get_close_matches(name, sorted(possible), n=most, cutoff=0.0)]
    listed = ", ".join(near[:-1]) + " or " * (len(near) > 1) + near[-1] if near else ""
    return f" Did you mean {listed}?" if near else ""
