"""Rows, and how they become train, validation and test splits."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.data.dataset import Split
from aevb.data.facts import constant, few, same
from aevb.data.pieces import Array, in_memory
from aevb.data.prints import Hasher, Known
from aevb.data.values import Values
from aevb.errors import AevbWarning, DataError

UNSHUFFLED = -1  # a seed that leaves rows in their order


@dataclass(frozen=True)
class Rows:
    """Data points x (N, *X), with their labels (N,), int64, if they have any.

    Attributes:
        names: (N,), the number of each row in its source, or the name of its file; None: they are counted from 0.
    """

    x: Array
    labels: Array | None = None
    names: Array | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Array | slice) -> Rows:
        names = np.arange(len(self)) if self.names is None else self.names
        return Rows(self.x[index], None if self.labels is None else self.labels[index], names[index])


def numbered(*files: Rows) -> list[Rows]:
    """Rows of several files, counted one file after another."""
    ends = np.cumsum([len(rows) for rows in files]).tolist()
    return [replace(rows, names=np.arange(end - len(rows), end)) for rows, end in zip(files, ends, strict=True)]


@dataclass(frozen=True)
class Parts:
    """Rows by their use."""

    train: Rows
    validation: Rows
    test: Rows

    def splits(self, values: Values, where: str) -> tuple[Split, Split, Split]:
        """As splits with these values; a mean and a std are those of the train rows.

        Warns of constant columns, and of classes without train rows.
        """
        train = split(self.train, values)
        if values.kind == "standardized":
            train, constants = standardized(train)
            warn_of_constants(self, constants, where)
        elif continuous(self.train.x, values):
            warn_of_constants(self, constant(self.train.x), where)
        warn_of_unseen_classes(self, where)
        return train, split(self.validation, train.values), split(self.test, train.values)


def standardized(train: Split) -> tuple[Split, NDArray[np.bool_]]:
    """The split with its own mean and std, and which entries (F,) are constant; one pass finds these and
    fingerprints."""
    hasher = Hasher(train.stored.dtype)
    values, found = train.values.fit(train.stored, hasher)
    known = Known.now(hasher, train.stored)
    return replace(train, values=values, known=known), found.constant.flatten().numpy()


def split(rows: Rows, values: Values) -> Split:
    """Rows as torch tensors; a read-only array is copied, since torch has no such thing."""
    labels = None if rows.labels is None else tensor(rows.labels.astype(np.int64))
    return Split(tensor(rows.x), labels, values, rows.names)


def tensor(x: Array) -> Tensor:
    """The array as a tensor, shared where that is possible."""
    return torch.from_numpy(np.require(x, requirements=["C", "W"]))


def permutation(n: int, seed: int) -> NDArray[np.int64]:
    """The shuffle of n rows that a seed means.

    RandomState and not default_rng: NumPy promises that its stream never changes.  With seed 0 it also gives the split
    of the Frey faces of which the 2013 paper's flat wake-sleep curve is the baseline (578.6 train, 569.3 test).
    """
    if seed == UNSHUFFLED:
        return np.arange(n, dtype=np.int64)
    if not 0 <= seed < 2**32:
        raise DataError(f"data.seed={seed}: the seed of the shuffle must be a whole number from 0 to {2**32 - 1:,}")
    return np.random.RandomState(seed).permutation(n).astype(np.int64)


def divide(rows: Rows, counts: tuple[int, int, int], seed: int) -> Parts:
    """Shuffle by the seed, then cut into train, validation and test of these sizes."""
    order, (train, validation, test) = permutation(len(rows), seed), counts
    cuts = np.split(order, [train, train + validation, train + validation + test])
    return Parts(rows[cuts[0]], rows[cuts[1]], rows[cuts[2]])


def tenths(n: int, where: str) -> tuple[int, int, int]:
    """80 %, 10 %, 10 % of n rows, at least one each.  DataError if n < 3."""
    if n < 3:
        raise DataError(f"{where} has {n} rows; at least 3 are needed: one each to train, to validate and to test")
    tenth = max(1, n // 10)
    return n - 2 * tenth, tenth, tenth


def hold_out(parts: Parts, share: float, seed: int, where: str) -> Parts:
    """Move a share of the train rows, shuffled by the seed, into a validation split that had none.

    Raises DataError if there is a validation split already, or if the share leaves one of the two empty.
    """
    if len(parts.validation):
        raise DataError(f"{where} has a validation split of its own ({len(parts.validation):,} rows): leave it out")
    n = round(share * len(parts.train))
    if not 0 < n < len(parts.train):
        raise DataError(f"{where}: validation={share} of {len(parts.train):,} rows: it must be a share between 0 and 1")
    cut = divide(parts.train, (len(parts.train) - n, n, 0), seed)
    return Parts(cut.train, cut.validation, parts.test)


def continuous(x: Array, values: Values) -> bool:
    """Whether a density of raw numbers is meant, which has no bound where an entry is constant."""
    counts = values.dtype and np.dtype(values.dtype).kind in "bui"
    return values.kind == "raw" and not counts and not whole(x)


def whole(x: Array) -> bool:
    """Whether all numbers are whole."""
    return all(bool((piece == np.trunc(piece)).all()) for piece in in_memory(x))


def warn_of_constants(parts: Parts, fixed: NDArray[np.bool_], where: str) -> None:
    """Say which entries (F,) of the train rows are constant, those of `fixed`, and which of them vary in the other
    rows."""
    x, everywhere = parts.train.x, fixed
    for part in (parts.validation, parts.test):
        everywhere = everywhere & same(part.x, x[:1].reshape(-1))
    warn_of(
        everywhere,
        f"{where}: constant in the train rows: {entries(everywhere, x.ndim)}. The density of a constant has no"
        " bound, so log p(x) rises for as long as training lasts and says little. Leave such columns out.",
    )
    here = fixed & ~everywhere
    warn_of(
        here,
        f"{where}: constant in the train rows only: {entries(here, x.ndim)}. Other rows hold other numbers there,"
        " of which training sees none. Take another data.seed, or leave such columns out.",
    )


def warn_of_unseen_classes(parts: Parts, where: str) -> None:
    """Say which classes have rows to validate or to test, but none to train."""
    labels = [part.labels for part in (parts.validation, parts.test) if part.labels is not None]
    if not labels or parts.train.labels is None:
        return
    unseen = np.setdiff1d(np.concatenate(labels), parts.train.labels)
    warn_of(
        np.ones_like(unseen),
        f"{where}: the classes {few(unseen.tolist())} (counted from 0, in sorted order) have no train rows, but rows to"
        " validate or to test. Take another data.seed, or leave these classes out.",
    )


def warn_of(found: Array, words: str) -> None:
    """Warn in these words if anything was found."""
    if found.any():
        warnings.warn(words, AevbWarning, stacklevel=2)


def entries(which: NDArray[np.bool_], ndim: int) -> str:
    """Which columns of a table, or how many entries of an image; `which` is (F,)."""
    columns = np.flatnonzero(which)
    if ndim > 2:
        return f"{len(columns):,} of {which.size:,} entries of a row"
    shown = ", ".join(map(str, columns[:10])) + (", ..." if len(columns) > 10 else "")
    return f"{len(columns):,} of {which.size:,} columns ({shown}, counted from 0)"
