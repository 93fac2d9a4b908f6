"""Which kind a column is, by its values; which likelihood and map; what can be asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from aevb.data.columns import Column, Schema
from aevb.data.kinds import look
from aevb.data.tables import frame_of
from aevb.errors import DataError

N = 400
RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=N)


def column(values: Any, kind: str = "") -> Column:
    schema = look(frame_of({"v": values}), {"v": kind} if kind else {})
    return schema.columns[0]


def words(n: int) -> list[str]:
    return [f"w{i % n}" for i in range(N)]


KINDS = {  # values → kind, likelihood, map
    "normal": (NORMAL, "real", "normal", "identity"),
    "heavy tails": (RNG.standard_t(1.5, N), "real", "student-t", "identity"),
    "two modes and a spike": (np.where(np.arange(N) % 3 == 0, 0.0, NORMAL), "real", "quantiles", "identity"),
    "decades": (np.exp(3 * NORMAL), "positive", "normal", "log"),
    "skewed": (np.exp(0.5 * NORMAL), "positive", "normal", "log"),
    "heights": (170 + 7 * NORMAL, "positive", "normal", "identity"),
    "whole heights": (np.round(1700 + 70 * NORMAL), "positive", "normal", "identity"),
    "temperatures": (np.round(10 * NORMAL) / 2, "real", "normal", "identity"),
    "shares": (RNG.beta(2, 2, N), "bounded", "normal", "logit"),
    "percents": (100 * RNG.beta(2, 2, N), "bounded", "normal", "logit"),
    "small shares are no shares": (0.2 * RNG.beta(2, 2, N), "positive", "normal", "identity"),
    "Poisson": (RNG.poisson(7, 100), "count", "poisson", "identity"),
    "dispersed": (RNG.negative_binomial(2, 0.03, N * 3), "count", "negative-binomial", "identity"),
    "scores": (RNG.integers(3, 10, N), "ordinal", "categorical", "identity"),
    "hours": (np.arange(N) % 24, "ordinal", "categorical", "identity"),
    "steps of a fifth": (np.arange(N) % 6 / 5, "ordinal", "categorical", "identity"),
    "0 and 1": (np.arange(N) % 2, "binary", "categorical", "identity"),
    "1.0 and 2.0": (np.arange(N) % 2 + 1.0, "binary", "categorical", "identity"),
    "truths": (np.arange(N) % 2 == 0, "binary", "categorical", "identity"),
    "two words": (words(2), "binary", "categorical", "identity"),
    "words": (words(7), "categorical", "categorical", "identity"),
    "many words": (words(150), "categorical", "categorical", "identity"),
    "running numbers": (np.arange(N) + 5, "id", "", "identity"),
    "shuffled numbers": (RNG.permutation(N), "id", "", "identity"),
    "words of their own": (words(N), "id", "", "identity"),
    "sentences": ([f"this is text number {i} of many" for i in range(N)], "text", "", "identity"),
    "one number": (np.full(N, 3), "constant", "", "identity"),
    "one word": (words(1), "constant", "", "identity"),
    "nothing": (pa.nulls(N, pa.float64()), "constant", "", "identity"),
    "nothing at all": (pa.nulls(N), "constant", "", "identity"),
    "days": (pd.date_range("2020-01-01", periods=N), "datetime", "quantiles", "identity"),
    "days as text": ([f"2020-01-{i % 28 + 1:02}" for i in range(N)], "datetime", "normal", "identity"),
    "lists": ([[1], [2, 3]] * (N // 2), "text", "", "identity"),
    "decimals": (pa.array([str(round(x, 2)) for x in NORMAL]).cast(pa.decimal128(8, 2)), "real", "normal", "identity"),
    "spans of time": (pd.to_timedelta(1000 + 70 * NORMAL, unit="s"), "positive", "normal", "identity"),
    "ordered levels": (pd.Categorical(words(5), words(5)[4::-1], ordered=True), "ordinal", "categorical", "identity"),
    "levels": (pd.Categorical(words(5)), "categorical", "categorical", "identity"),
}  # fmt: skip


@pytest.mark.parametrize("case", KINDS)
def test_kinds(case: str) -> None:
    values, kind, likelihood, map_ = KINDS[case]
    found = column(values)
    assert (found.kind, found.likelihood, found.map) == (kind, likelihood, map_), found.why
    assert found.why


def test_a_kind_does_not_depend_on_the_name() -> None:
    table = {"id": NORMAL, "date": words(5), "age": words(N), "count": np.arange(N) % 2}
    kinds = [c.kind for c in look(frame_of(table)).columns]
    assert kinds == ["real", "categorical", "id", "binary"]


def test_floats_of_their_own_are_no_ids() -> None:
    assert column(np.arange(N) + 0.5).kind == "positive"


def test_few_rows_are_no_ids() -> None:
    assert column([3, 1, 2]).kind != "id"


def test_robust_center_and_scale() -> None:
    """Median and IQR / 1.349, of the rows that are there: one row of a million moves nothing."""
    x = 50 + 10 * np.random.default_rng(1).normal(size=2001)
    spoiled = np.where(np.arange(2001) == 7, 1e9, np.where(np.arange(2001) == 8, np.nan, x))
    found = column(spoiled, "real")
    seen = spoiled[~np.isnan(spoiled)]
    low, middle, high = np.quantile(seen, [0.25, 0.5, 0.75])
    assert (found.center, found.scale) == (middle, (high - low) / 1.349)
    assert abs(found.scale - 10) < 0.6
    assert found.holes == 1


def test_scale_where_half_of_the_rows_are_equal() -> None:
    x = np.array([0.0] * 30 + [1.5, 2.5, -4.0])
    assert column(x, "real").scale == x.std()


def test_center_and_scale_of_logarithms() -> None:
    x = np.exp(2 + 3 * NORMAL)
    found = column(x)
    assert found.map == "log"
    assert found.center == pytest.approx(np.median(np.log(x)), abs=1e-12)
    assert (found.low, found.high) == (x.min(), x.max())


def test_counts_and_codes_are_not_scaled() -> None:
    for values in (RNG.poisson(7, 100), words(5), np.arange(N) % 2):
        found = column(values)
        assert (found.center, found.scale) == (0, 1)


def test_levels_have_an_order() -> None:
    assert column(["b", "c", "a"] * 9).levels == ("a", "b", "c")
    assert column([3, 1, 7, 3] * 20).levels == (1, 3, 7)
    assert column([0.0, 0.5, None] * 20).levels == (0, 0.5)
    assert column([True, False] * 20).levels == (False, True)
    ordered = pd.Categorical(["low", "high"] * 9, ["low", "mid", "high"], ordered=True)
    assert column(ordered).levels == ("low", "mid", "high")
    assert column(["x"] * 9).levels == ("x",)


ASKED = {
    "count": ([0, 1, 2, 3] * 20, "poisson"),
    "categorical": ([1, 2, 3.5] * 20, "categorical"),
    "ordinal": ([1, 2, 3] * 20, "categorical"),
    "binary": (["a", "b"] * 20, "categorical"),
    "real": (list(range(40)) * 2, "normal"),
    "positive": (list(range(5, 45)) * 2, "normal"),
    "bounded": ([(3 + i) / 16 for i in range(10)] * 8, "normal"),
    "angle": ([0.0, 90.0, 270.0] * 20, "von-mises"),
    "datetime": (["2020-01-01", "2020-01-02"] * 20, "normal"),
    "id": ([1, 2, 3] * 20, ""),
    "text": (["a", "b"] * 20, ""),
    "constant": ([1, 2, 3] * 20, ""),
}


@pytest.mark.parametrize("kind", ASKED)
def test_a_kind_can_be_asked_for(kind: str) -> None:
    values, likelihood = ASKED[kind]
    found = column(values, kind)
    assert (found.kind, found.likelihood) == (kind, likelihood)
    assert (found.why == "asked for") == (column(values).kind != kind)


UNFIT = {
    "count": ([0, 1, -2] * 20, "column 'v' cannot be count: it holds -2"),
    "positive": ([0.0, 1, 2] * 20, "column 'v' cannot be positive: it holds 0"),
    "binary": ([0, 1, 2] * 20, "column 'v' cannot be binary: it has 3 different values"),
    "real": (["a", "b"] * 20, "column 'v' cannot be real: its values are not numbers"),
    "datetime": ([1.5, 2] * 20, "column 'v' cannot be datetime: its values are not dates"),
    "score": ([1, 2], "column 'v': there is no kind 'score'"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_kind_that_does_not_fit_is_refused(kind: str) -> None:
    values, words_ = UNFIT[kind]
    with pytest.raises(DataError, match=words_):
        column(values, kind)


def test_a_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match=r"no column 'ag'. Did you mean 'age'"):
        look(frame_of({"age": [1, 2]}), {"ag": "count"})


BAD = {  # values → what the message says
    "infinite": ([1.0, np.inf, 2.0], "column 'v' holds an infinite number .row 1,"),
    "minus infinite": ([1.0, 2.0, None, -np.inf], "column 'v' holds an infinite number .row 3,"),
    "mixed": (pd.Series([1, "a", 2.5], dtype=object), "column 'v' mixes values of several types"),
    "numbers with slips": ([*map(str, range(200)), "12 or so"], "'v' mixes numbers with words, such as '12 or so'"),
    "dates with slips": ([*(f"2020-02-{d:02}" for d in range(1, 29)), "2020-02-31"], "but '2020-02-31' is not one"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_columns_are_named(case: str) -> None:
    values, words_ = BAD[case]
    frame = pd.DataFrame({"v": values})
    with pytest.raises(DataError, match=words_):
        look(frame_of(frame))


def test_one_row_has_constants_only() -> None:
    assert {c.kind for c in look(frame_of({"a": [1], "b": ["x"], "c": [None]})).columns} == {"constant"}


def test_no_rows() -> None:
    with pytest.raises(DataError, match="has no rows"):
        look(frame_of({"a": []}))


def test_a_million_categories_have_their_kinds() -> None:
    n = 1_000_000
    table = pa.table({"u": [f"k{i}" for i in range(n)], "c": [f"k{i // 2}" for i in range(n)], "i": np.arange(n)})
    kinds = [c.kind for c in look(frame_of(table)).columns]
    assert kinds == ["id", "categorical", "id"]


DATES = {
    "2020-03-04": "%Y-%m-%d",
    "2020-03-04 05:06:07": "%Y-%m-%d %H:%M:%S",
    "2020-03-04T05:06:07": "%Y-%m-%dT%H:%M:%S",
    "2020-03-04T05:06:07.250000": "%Y-%m-%dT%H:%M:%S.%f",
    "2020-03-04T05:06:07+0200": "%Y-%m-%dT%H:%M:%S%z",
    "2020-03-04T05:06:07Z": "%Y-%m-%dT%H:%M:%SZ",
    "13/04/2020": "%d/%m/%Y",
    "04/13/2020": "%m/%d/%Y",
    "13.04.2020 05:06": "%d.%m.%Y %H:%M",
    "4 Mar 2020": "%d %b %Y",
    "04-Mar-2020": "%d-%b-%Y",
    "March 4, 2020": "%B %d, %Y",
    "04/13/2020 05:06 PM": "%m/%d/%Y %I:%M %p",
    "2020/03/04": "%Y/%m/%d",
}


@pytest.mark.parametrize("word", DATES)
def test_forms_of_dates(word: str) -> None:
    found = column([word, word.replace("20", "21").replace("2121", "2021")])
    assert found.kind == "datetime", found.why
    assert f"({DATES[word]})" in found.why
    assert found.dtype == f"String(format={DATES[word]!r})"


def test_what_is_no_date_is_none() -> None:
    for values in (["1-2-3", "4-5-6"] * 9, ["room 1", "room 2"] * 9, ["10-20", "20-30"] * 9, ["A2020", "B2021"] * 9):
        assert column(values).kind == "binary"


def test_the_date_that_stands_for_none() -> None:
    found = column(["2020-01-01", "0000-00-00", "2020-01-03", "9999-12-31"] * 5)
    assert found.kind == "datetime"
    assert "0000-00-00 counts as missing" in found.why


def test_a_schema_of_every_kind_survives_json() -> None:
    import json

    columns = {case: values for case, (values, *_) in KINDS.items() if len(values) == N}
    schema = look(frame_of(pd.DataFrame(columns)))
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


@pytest.mark.parametrize(
    ("values", "multiple"),
    [
        (25 * np.arange(2, 40), 25.0),
        (np.arange(40) / 4, 0.25),
        (np.arange(40) * 0.1, 0.0),  # as one decimal says
        (np.arange(40), 0.0),
        (25 * np.arange(2, 11), 0.0),  # so few may be multiples by chance
        (np.datetime64("2021-03-01T06", "s") + np.arange(40) * np.timedelta64(7, "h"), 3600.0),
        (np.datetime64("2021-03-01", "us") + np.arange(40) * np.timedelta64(1, "D"), 86_400.0),
        (2**60 + 64 * np.arange(40), 0.0),
    ],
)
def test_numbers_that_are_multiples_leave_the_model_as_multiples(values: Any, multiple: float) -> None:
    found = column(values, "datetime" if values.dtype.kind == "M" else "real")
    assert found.multiple == multiple
    assert Column.from_dict(found.to_dict()) == found
    if multiple:
        drawn = found.inverse(torch.linspace(-2, 2, 101, dtype=torch.float64))
        assert torch.equal(drawn, (drawn / multiple).round() * multiple)
        exact = found.center + found.scale * torch.linspace(-2, 2, 101, dtype=torch.float64)
        assert float((drawn - exact).abs().max()) <= multiple / 2 * (1 + 1e-9)


def test_multiples_of_positive_numbers_stay_positive() -> None:
    found = column(100 * np.unique(np.geomspace(1, 1e4, 60).round()), "positive")
    assert (found.map, found.multiple) == ("log", 100.0)
    low = (torch.tensor([1.0, 40.0, 149.0, 151.0], dtype=torch.float64).log() - found.center) / found.scale
    assert found.inverse(low).tolist() == [100.0, 100.0, 100.0, 200.0]


@pytest.mark.parametrize(
    ("values", "decimals"),
    [
        ([1.0, 2.0, 7.0, 90.0], 0),
        ([1.5, 2.25, 7.125, 3.0], 3),
        (np.array([0.1, 0.25, 7.3, 9.0], np.float32), 2),
        ([7.25, 71.2833, 8.05, 53.1], 4),
        (NORMAL, None),
        ([1e300, 1.5, 2.5, 3.5], 1),
    ],
)
def test_decimals(values: Any, decimals: int | None) -> None:
    """As many as the numbers have, in their own type."""
    assert column(values, "real").decimals == decimals
