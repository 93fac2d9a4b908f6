"""Whether synthetic rows of a table are like real ones: a classifier, columns, pairs of columns, and near copies.

Rows are numbers (N, F), NaN where a value is missing; categories are the codes of their levels. A hole is a value of
its own. Rows without any hole are lent the holes of real rows, drawn at random, as a model without a model of holes
gives none: else holes alone would tell them apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.neighbors import NearestNeighbors

from aevb.errors import DataError, ShapeError
from aevb.evaluation.classifier import FEWEST, Rows, separation
from aevb.evaluation.estimate import UNDEFINED, Estimate
from aevb.evaluation.report import Line, as_html, as_text, cells

LEFT_OUT = ("constant", "id", "text")  # kinds that are not modelled
WITHOUT_ORDER = ("binary", "categorical")
ROUND = ("angle",)  # without an order that a rank correlation would see
BINS = 10  # of a number that is paired with a category
MOST_ROWS = 10_000  # of either side that are compared
MOST_PAIRED = 40  # columns whose pairs are compared, drawn at random of more
SIGNIFICANT = 3.0  # standard errors
PRIVACY = "No check here is a guarantee of privacy: a row that is not a copy can still reveal a person."


@dataclass(frozen=True)
class Scores:
    """How like real rows some rows are, each from 0 to 1, which is equal.

    Attributes:
        c2st: 1 - max(0, 2 AUC - 1) of a classifier; auc: its area under the ROC curve.
        shape: the mean of `shapes`, which has one for each column; their errors are added as if they were one error.
        pairs: the mean over pairs of columns, with errors added likewise.
    """

    c2st: Estimate
    auc: Estimate
    shape: Estimate
    pairs: Estimate


@dataclass(frozen=True, repr=False)
class SampleCheck(Scores):
    """Synthetic rows compared with real ones; `print` shows a table.

    Attributes:
        columns: the names of the F columns that were compared; shapes: of each.
        paired: the columns of `pair_matrix`; pair_matrix: the similarity of each pair, NaN on the diagonal.
        train: the same scores of as many train rows, what rows that are real reach; None without them.
        nearer: the share of synthetic rows that are nearer to a train row than to a held-out row: 1/2 of rows that owe
            nothing to single train rows.
        copies, copies_held: the shares of synthetic and of held-out rows that equal a train row.
        n, m: how many real and synthetic rows were compared.
        lent: whether the synthetic rows were lent the holes of real ones.
    """

    columns: tuple[str, ...]
    shapes: tuple[Estimate, ...]
    paired: tuple[str, ...]
    pair_matrix: Rows
    train: Scores | None
    nearer: Estimate
    copies: Estimate
    copies_held: Estimate
    n: int
    m: int
    lent: bool

    @property
    def memorised(self) -> bool:
        """Whether synthetic rows are nearer to train rows than chance says, by more than three standard errors."""
        return self.nearer.known and self.nearer.mean - 0.5 > SIGNIFICANT * self.nearer.se

    @property
    def sentences(self) -> list[str]:
        """Remarks on the numbers."""
        said = []
        if self.memorised:
            share = self.nearer.times(100).text(1)
            said.append(
                f"Memorisation: {share} % of the synthetic rows are nearer to a train row than to a held-out row; 50 %"
                " are expected. Train for a shorter time, or a smaller model."
            )
        if self.lent:
            said.append("The synthetic rows have no holes: they were given those of real rows, drawn at random.")
        return [*said, PRIVACY]

    def numbers(self) -> dict[str, Any]:
        """The numbers by name, for printing and, by `estimate.flat`, for JSON."""
        names = ("c2st", "auc", "shape", "pairs", "nearer", "copies", "copies_held", "n", "m", "memorised", "lent")
        found = {name: getattr(self, name) for name in names}
        found["shapes"] = dict(zip(self.columns, self.shapes, strict=True))
        reached = self.train
        return found | {"train": {} if reached is None else {name: getattr(reached, name) for name in names[:4]}}

    def rows(self) -> list[tuple[str, str, str]]:
        """The lines of its table."""
        return cells(LINES, self.numbers())

    def __str__(self) -> str:
        return "\n".join([as_text(self._title, self.rows()), *self.sentences])

    def __repr__(self) -> str:
        return f"SampleCheck(C2ST {self.c2st}, shape {self.shape}, pairs {self.pairs}, nearer to train {self.nearer})"

    def _repr_html_(self) -> str:
        return as_html(self._title, self.rows())

    @property
    def _title(self) -> str:
        return f"{self.m:,} synthetic rows beside {self.n:,} held-out rows"


LINES = (
    Line("c2st", "C2ST", "1 - max(0, 2 AUC - 1) of a classifier; 1 where it cannot tell", 3),
    Line("train.c2st", "  of train rows", "what real rows reach", 3),
    Line("auc", "  AUC", "1/2 where it cannot tell", 3),
    Line("shape", "shape", "mean over columns; 1 where they are alike", 3),
    Line("train.shape", "  of train rows", "", 3),
    Line("pairs", "pairs", "mean over pairs of columns; 1 where they are alike", 3),
    Line("train.pairs", "  of train rows", "", 3),
    Line("nearer", "nearer to train rows", "fraction; 1/2 where nothing is memorised", 3),
    Line("copies", "copies of train rows", "fraction of synthetic rows", 3),
    Line("copies_held", "  of held-out rows", "for comparison", 3),
)


def two_sample(
    real: Rows,
    synthetic: Rows,
    kinds: Sequence[str],
    *,
    train: Rows | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> SampleCheck:
    """Compare synthetic rows with real ones that no model has seen.

    Of up to 10,000 rows of either, drawn at random:

        c2st   1 - max(0, 2 AUC - 1) of gradient-boosted trees, cross-validated: `classifier.separation`
        shape  of a column: 1 - sup |F - G| of two empirical distribution functions, and of categories 1 - ½ Σ |p - q|
        pairs  1 - |ρ - ρ'| / 2 of rank correlations; with a category 1 - ½ Σ |p - q| of the table, numbers in ten bins
        nearer of train and of held-out rows equally many: where the nearest row to a synthetic one is

    The error of `nearer` counts how many synthetic rows have the same nearest row: it is the binomial one where no two
    have, √(Σ_i c_i²) / 2M with c_i rows nearest to row i.

    Args:
        real: held-out rows (N, F), NaN where a value is missing.
        synthetic: (M, F).
        kinds: of each column, as `Column.kind`; constants, ids and texts are not compared.
        train: rows that the model was trained on (T, F), for `nearer`, `copies` and what real rows reach.
        names: of the columns; x0, x1, ... by default.
        seed: of what is drawn at random.

    Raises:
        ShapeError: the numbers of columns differ.
        DataError: fewer than ten rows, no column to compare, or infinite values.
    """
    called = np.array(names or [f"x{j}" for j in range(len(kinds))], object)
    _check(len(kinds), {"real": real, "synthetic": synthetic, "train": train, "names": called[None]})
    chosen = _compared(kinds)
    noise = np.random.default_rng(seed)
    x, s = (_drawn(side[:, chosen], noise) for side in (real, synthetic))
    lent = bool(np.isnan(x).any()) and not np.isnan(s).any()
    s = _with_holes_of(s, x, noise) if lent else s
    some = np.sort(noise.permutation(len(chosen))[:MOST_PAIRED])
    compare = _Comparison([kinds[j] for j in chosen], some, seed)
    scores, shapes, matrix = compare(x, s)
    known = None if train is None else _drawn(train[:, chosen], noise)
    return SampleCheck(
        **vars(scores),
        **({**UNKNOWN} if known is None else compare.with_train(known, x, s)),
        columns=tuple(called[chosen]),
        shapes=tuple(shapes),
        paired=tuple(called[chosen][some]),
        pair_matrix=matrix,
        n=len(x),
        m=len(s),
        lent=lent,
    )


UNKNOWN: dict[str, Any] = {"train": None, "nearer": UNDEFINED, "copies": UNDEFINED, "copies_held": UNDEFINED}


def _compared(kinds: Sequence[str]) -> list[int]:
    """Which columns are compared.

    Raises:
        DataError: none.
    """
    chosen = [j for j, kind in enumerate(kinds) if kind not in LEFT_OUT]
    if not chosen:
        raise DataError("There is no column to compare: all are constants, ids or texts.")
    return chosen


class _Comparison:
    """How rows of some kinds of columns are compared with real ones."""

    def __init__(self, kinds: Sequence[str], paired: NDArray[np.int64], seed: int) -> None:
        self.categories = np.isin(kinds, WITHOUT_ORDER)
        self.ranked = ~(self.categories | np.isin(kinds, ROUND))
        self.paired, self.seed = paired, seed

    def __call__(self, x: Rows, s: Rows) -> tuple[Scores, list[Estimate], Rows]:
        told = separation(x, s, self.categories, self.seed)
        both = zip(x.T, s.T, self.categories, strict=True)
        shapes = [shape_similarity(a, b, ordered=not category) for a, b, category in both]
        matrix, pairs = np.full((len(self.paired),) * 2, math.nan), []
        for i, j in combinations(range(len(self.paired)), 2):
            found = self._pair(x, s, self.paired[[i, j]])
            matrix[i, j] = matrix[j, i] = found.mean
            pairs.append(found)
        return Scores(told.score, told.auc, _together(shapes), _together(pairs)), shapes, matrix

    def with_train(self, known: Rows, x: Rows, s: Rows) -> dict[str, Any]:
        """What the train rows tell: what real rows reach, and whether synthetic rows are near copies of them."""
        nearer, copies, held = _nearness(known, x, s, self.categories)
        reached = self(x, known[: len(s)])[0] if len(known) >= FEWEST else None
        return {"train": reached, "nearer": nearer, "copies": copies, "copies_held": held}

    def _pair(self, x: Rows, s: Rows, pair: NDArray[np.int64]) -> Estimate:
        a, b = x[:, pair], s[:, pair]
        if self.ranked[pair].all():
            found = correlation_similarity(a, b)
            if found.known:
                return found
        for i, j in enumerate(pair):
            if not self.categories[j]:
                a, b = a.copy(), b.copy()
                edges = np.unique(np.nanquantile(x[:, j], np.linspace(0, 1, BINS + 1)[1:-1]))
                a[:, i], b[:, i] = (_binned(side[:, i], edges) for side in (a, b))
        return contingency_similarity(a, b)


def shape_similarity(x: Rows, s: Rows, *, ordered: bool) -> Estimate:
    """How alike two columns (N,) and (M,) are, a hole being one more value, the last.

    1 - sup_t |F(t) - G(t)|, the complement of the distance of Kolmogorov and Smirnov, of numbers that are `ordered`;
    else 1 - ½ Σ_v |p(v) - q(v)|, that of the total variation. Both are 1 - |P(A) - Q(A)| for the set A that tells most,
    and so is the error.
    """
    values, codes = np.unique(np.concatenate([x, s]), return_inverse=True)  # NaN is the last, once
    p, q = (np.bincount(part, minlength=len(values)) / len(part) for part in (codes[: len(x)], codes[len(x) :]))
    if ordered:
        below = np.cumsum(p), np.cumsum(q)
        at = int(np.argmax(np.abs(below[0] - below[1])))
        inside = float(below[0][at]), float(below[1][at])
    else:
        more = p > q
        inside = float(p[more].sum()), float(q[more].sum())
    return _set_similarity(inside, (len(x), len(s)))


def contingency_similarity(x: Rows, s: Rows) -> Estimate:
    """1 - ½ Σ |p(u, v) - q(u, v)| of two columns of codes (N, 2) and (M, 2), a hole being a code."""
    joint = np.concatenate([x, s])
    codes = [np.unique(column, return_inverse=True)[1] for column in joint.T]
    cell = (codes[0] * (int(codes[1].max()) + 1) + codes[1]).astype(np.float64)
    return shape_similarity(cell[: len(x)], cell[len(x) :], ordered=False)


def correlation_similarity(x: Rows, s: Rows) -> Estimate:
    """1 - |ρ - ρ'| / 2 of Spearman's rank correlations of two columns (N, 2) and (M, 2), of rows without holes.

    The error is that of (1 - ρ²) / √(n - 1) for each; undefined where a column is constant.
    """
    found = [_spearman(side[~np.isnan(side).any(1)]) for side in (x, s)]
    if not all(rho.known for rho in found):
        return UNDEFINED
    return Estimate(1 - abs(found[0] - found[1]) / 2, math.hypot(found[0].se, found[1].se) / 2, len(x) + len(s))


def _spearman(x: Rows) -> Estimate:
    if len(x) < 3 or bool((np.ptp(x, axis=0) == 0).any()):
        return UNDEFINED
    ranks = np.stack([rankdata(column) for column in x.T])
    rho = float(np.corrcoef(ranks)[0, 1])
    return Estimate(rho, (1 - rho**2) / math.sqrt(len(x) - 1), len(x))


def _set_similarity(inside: tuple[float, float], n: tuple[int, int]) -> Estimate:
    """1 - |P(A) - Q(A)|, from shares of n[0] and of n[1] rows in A."""
    se = math.sqrt(sum(p * max(1 - p, 0.0) / size for p, size in zip(inside, n, strict=True)))
    return Estimate(1 - abs(inside[0] - inside[1]), se, sum(n))


def _together(each: Sequence[Estimate]) -> Estimate:
    """The mean of estimates of the same rows, whose errors are not independent: the mean of the errors bounds its
    error."""
    known = [e for e in each if e.known]
    if not known:
        return UNDEFINED
    return Estimate(float(np.mean([e.mean for e in known])), float(np.mean([e.se for e in known])), known[0].n)


def _binned(x: Rows, edges: Rows) -> Rows:
    """The number of the bin of each value; a hole stays one."""
    return np.where(np.isnan(x), x, np.searchsorted(edges, x, side="right").astype(np.float64))


def _nearness(
    train: Rows, held: Rows, synthetic: Rows, categories: NDArray[np.bool_]
) -> tuple[Estimate, Estimate, Estimate]:
    """`nearer`, `copies` and `copies_held`, in a space in which each column counts alike."""
    size = min(len(train), len(held))
    place = _Space(np.concatenate([train, held]), categories)
    known, other, made, rest = (place(side) for side in (train[:size], held[:size], synthetic, train))
    (near, row), (far, row_held) = _nearest(known, made), _nearest(other, made)
    equal = np.isclose(near, far, rtol=1e-9, atol=1e-12)
    share = float(np.where(equal, 0.5, near < far).mean())
    at = np.where(equal, -1, np.where(near < far, row, size + row_held))  # of equals a coin would tell
    together = float(np.square(np.unique(at[~equal], return_counts=True)[1], dtype=np.float64).sum() + equal.sum())
    nearer = Estimate(share, math.sqrt(together) / (2 * len(made)), len(made))
    copies = [Estimate.share(float((_nearest(rest, side)[0] < 1e-9).mean()), len(side)) for side in (made, place(held))]
    return nearer, copies[0], copies[1]


def _nearest(rows: Rows, to: Rows) -> tuple[Rows, NDArray[np.int64]]:
    """The distance of each point to the nearest of some rows, and which that is."""
    distances, found = NearestNeighbors(n_neighbors=1).fit(rows).kneighbors(to)
    return distances[:, 0], found[:, 0]


def nearest_rows(train: Rows, to: Rows, kinds: Sequence[str]) -> NDArray[np.int64]:
    """Which of the rows `train` (N, F) is the nearest to each of some rows (M, F), in the space of `two_sample`.

    Args:
        kinds: of the columns; NaN is a hole.
    """
    place = _Space(train, np.isin(kinds, WITHOUT_ORDER))
    return _nearest(place(train), place(to))[1]


class _Space:
    """A space of rows: numbers in standard deviations, two different levels, or a hole and the mean, √2 apart.

    Of the levels of a category the 100 most frequent are told apart.
    """

    def __init__(self, rows: Rows, categories: NDArray[np.bool_]) -> None:
        self.numbers, self.holed = ~categories, np.isnan(rows).any(0) & ~categories
        filled = np.where(np.isnan(rows).all(0), 0.0, rows)
        self.mean, std = np.nanmean(filled, 0), np.nanstd(filled, 0)
        self.std = np.where(std > 0, std, 1.0)
        self.levels = {j: _frequent(rows[:, j]) for j in np.flatnonzero(categories)}

    def __call__(self, rows: Rows) -> Rows:
        numbers = np.nan_to_num((rows - self.mean) / self.std)[:, self.numbers]
        holes = math.sqrt(2) * np.isnan(rows[:, self.holed])
        codes = [_codes(rows[:, j])[:, None] == levels for j, levels in self.levels.items()]
        return np.concatenate([numbers, holes, *(c.astype(np.float64) for c in codes)], 1)


def _codes(x: Rows) -> Rows:
    """Codes of levels, a hole being -1."""
    return np.where(np.isnan(x), -1.0, x)


def _frequent(x: Rows, most: int = 100) -> Rows:
    """The most frequent codes of a column."""
    levels, counts = np.unique(_codes(x), return_counts=True)
    return levels[np.argsort(-counts, kind="stable")[:most]]


def _drawn(rows: Rows, noise: np.random.Generator) -> Rows:
    """Up to 10,000 rows in a random order."""
    return np.asarray(rows, np.float64)[noise.permutation(len(rows))[:MOST_ROWS]]


def _with_holes_of(rows: Rows, real: Rows, noise: np.random.Generator) -> Rows:
    """Rows (M, F) with the holes of real rows (N, F), each in its turn in a random order."""
    order = np.concatenate([noise.permutation(len(real)) for _ in range(math.ceil(len(rows) / len(real)))])
    return np.where(np.isnan(real[order[: len(rows)]]), math.nan, rows)


def _check(width: int, sides: dict[str, Any]) -> None:
    for name, side in sides.items():
        if side is not None and (side.ndim != 2 or side.shape[1] != width):
            raise ShapeError(f"two_sample: {width} kinds need as many columns; {name} has the shape {side.shape}.")
    for name in ("real", "synthetic"):
        if len(sides[name]) < FEWEST:
            got = f"at least {FEWEST} {name} rows are needed; got {len(sides[name])}. Give more."
            raise DataError(f"two_sample: {got}")
    for name in ("real", "synthetic", "train"):
        if sides[name] is not None and np.isinf(sides[name]).any():
            raise DataError(f"two_sample: {name} holds infinite values. Leave these rows out.")
