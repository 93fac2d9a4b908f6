"""Stored numbers as the values of a column, in its own type and in the library that holds the frame."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aevb.data.cells import PER_SECOND
from aevb.data.columns import CODED, EXACT, Column
from aevb.data.dates import CALENDAR, written

Numbers = NDArray[np.float64]
NAMES = {  # narwhals' name of a type → Arrow's
    **{f"{kind}{bits}": getattr(pa, f"{kind.lower()}{bits}")() for kind in ("Int", "UInt") for bits in (8, 16, 32, 64)},
    "Float32": pa.float32(), "Float64": pa.float64(), "Boolean": pa.bool_(), "String": pa.string(), "Date": pa.date32(),
    "Time": pa.time64("us"),
    "Categorical": pa.dictionary(pa.int32(), pa.string()), "Enum": pa.dictionary(pa.int32(), pa.string(), ordered=True),
}  # fmt: skip
TRUTHS = ("true", "false")
TIMED = ("Duration", "Time", "Date")  # types of which a number is one of seconds
LARGEST = 2.0**63 - 2.0**10  # units of time; beyond, int64 overflows


def form_of(column: Column) -> str:
    """How dates of a column of text are written; "" of other columns."""
    found = re.search(r"format='(.*)'", column.dtype)
    return found[1] if found else ""


def type_named(column: Column) -> Any:
    """The Arrow type of a column, by narwhals' name of it; null where only its values tell."""
    name, _, inside = column.dtype.partition("(")
    words = dict(re.findall(r"(\w+)='?([\w/+:-]+)'?", inside))
    unit, zone = words.get("time_unit", "us"), words.get("time_zone", "None")
    if name == "Object" and column.kind == "datetime":
        days = all((bound or 0) % 86_400 == 0 for bound in (column.low, column.high))
        return pa.date32() if days else pa.timestamp("us")
    made: dict[str, Callable[[], Any]] = {
        "Datetime": lambda: pa.timestamp(unit, None if zone == "None" else zone),
        "Duration": lambda: pa.duration(unit),
        "Decimal": lambda: pa.decimal128(int(words.get("precision", 38)), int(words.get("scale", 0))),
    }
    return made[name]() if name in made else NAMES.get(name, pa.null())


def array_of(column: Column, numbers: Numbers, kind: Any) -> Any:
    """Stored numbers (N,) as an Arrow array of the type, or of its values where it is one of levels; NaN is missing."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not column.modelled:
        return unmodelled(column, numbers, kind)
    if column.kind in CODED:
        return of_levels(column, numbers, kind)
    if column.kind == "angle":
        start, period = column.levels
        numbers = start + (numbers / (2 * np.pi) % 1) * period
    if pa.types.is_temporal(kind):
        return of_time(numbers, kind)
    if is_words(kind):
        return pa.array(words_of(column, numbers), kind)
    return of_numbers(column, numbers, kind)


def is_words(kind: Any) -> bool:
    """Whether a type is one of text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def array_named(column: Column, numbers: Numbers) -> Any:
    """Stored numbers as an Arrow array of the type that the column names, with its levels in their order."""
    kind = type_named(column)
    if pa.types.is_dictionary(kind) and column.kind in CODED:
        array = array_of(column, numbers, pa.null())
        return leveled(array, values_of(column.levels), kind.ordered or column.kind == "ordinal")
    array = array_of(column, numbers, kind)
    if pa.types.is_decimal(kind):
        return narrowed(array, kind.precision, kind.scale).cast(kind)
    return array


def unmodelled(column: Column, rows: Numbers, kind: Any) -> Any:
    """Of rows 0, 1, ...: a running number of an id, the value of a constant, 1 as a weight; missing of all else."""
    n = len(rows)
    if column.kind == "constant" and column.levels:
        return levels_as(column, kind).take(pa.array(np.zeros(n, np.int64)))
    if column.kind == "id":
        return cast(pa.array(rows.astype(np.int64) + 1), kind)
    if column.kind == "weight":
        return cast(pa.array(np.ones(n)), kind)
    return pa.nulls(n, kind)


def cast(array: Any, kind: Any) -> Any:
    """In another type; missing where it cannot be."""
    if pa.types.is_null(kind):
        return array
    try:
        return array.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.nulls(len(array), kind)


def of_levels(column: Column, numbers: Numbers, kind: Any) -> Any:
    missing = np.isnan(numbers)
    codes = pa.array(np.where(missing, 0, numbers).astype(np.int64), mask=missing)
    return levels_as(column, kind).take(codes)


def levels_as(column: Column, kind: Any) -> Any:
    """Levels as an Arrow array of a type: of whole numbers the nearest; missing where a level has no value of it.

    Those of times and spans are seconds.
    """
    levels = list(column.levels)
    if column.dtype.startswith(TIMED) and all(isinstance(level, int | float) for level in levels):
        seconds = np.array(levels, np.float64)
        if pa.types.is_temporal(kind):
            return of_time(seconds, kind)
        if is_words(kind):
            return pa.array(words_of(column, seconds), kind)
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if numeric and truths(levels):
        levels = [str(level).lower() == TRUTHS[0] for level in levels]
    elif pa.types.is_integer(kind) and all(isinstance(level, int | float) for level in levels):
        levels = [round(level) for level in levels]
    if len({isinstance(level, str) for level in levels}) > 1:
        levels = list(map(str, levels))
    if (array := cast(values_of(levels), kind)).null_count and len(levels) > 1:
        return pa.concat_arrays([cast(values_of([level]), kind) for level in levels])
    return array


def truths(levels: Sequence[Any]) -> bool:
    """Whether levels are True and False, as truth values or as words."""
    return {str(level).lower() for level in levels} == set(TRUTHS)


def values_of(levels: Sequence[Any]) -> Any:
    """Levels as an Arrow array; whole numbers beyond int64 as uint64, or as float64."""
    try:
        return pa.array(list(levels))
    except OverflowError:
        whole = all(0 <= level < 2**64 for level in levels)
        return pa.array(list(levels), pa.uint64()) if whole else pa.array(list(map(float, levels)))


def of_time(numbers: Numbers, kind: Any) -> Any:
    """Dates, times with a zone or without, times of a day, spans of time."""
    missing = np.isnan(numbers)
    if pa.types.is_time(kind):
        day, whole = 86_400 * PER_SECOND[kind.unit], np.int32 if pa.types.is_time32(kind) else np.int64
        ticks = np.clip(np.round(np.where(missing, 0, numbers) * PER_SECOND[kind.unit]), 0, day - 1)
        return pa.array(ticks.astype(whole), mask=missing).cast(kind)
    if not pa.types.is_duration(kind):
        numbers = np.clip(numbers, *CALENDAR)
    if pa.types.is_date(kind):
        days = pa.array(np.where(missing, 0, np.floor(numbers / 86_400)).astype(np.int32), mask=missing)
        return days.cast(pa.date32()).cast(kind)
    units = np.where(missing, 0, np.round(numbers)) if kind.unit == "s" else np.where(missing, 0, numbers)
    ticks = np.clip(units * PER_SECOND[kind.unit], -LARGEST, LARGEST)
    return pa.array(np.round(ticks).astype(np.int64), mask=missing).cast(kind)


def words_of(column: Column, numbers: Numbers) -> list[str | None]:
    """Dates or numbers as text."""
    if form := form_of(column):
        return written(numbers, form)
    if column.dtype.startswith(TIMED):
        return of_time_as_text(column, numbers)
    decimals = column.decimals
    if column.origin:
        return [None if np.isnan(x) else str(int(x) + column.origin) for x in numbers]
    if decimals is None:
        return [None if np.isnan(x) else repr(float(x)) for x in numbers]
    return [None if np.isnan(x) else f"{x:.{decimals}f}" for x in numbers]


def of_time_as_text(column: Column, numbers: Numbers) -> list[str | None]:
    """Spans of time, times of a day, or dates, as Python writes them."""
    kinds = {"Time": pa.time64("us"), "Duration": pa.duration("us"), "Date": pa.date32()}
    kind = kinds.get(column.dtype.partition("(")[0], pa.timestamp("us"))
    return [None if value is None else str(value) for value in of_time(numbers, kind).to_pylist()]


def of_numbers(column: Column, numbers: Numbers, kind: Any) -> Any:
    missing = np.isnan(numbers)
    if pa.types.is_integer(kind):
        return pa.array(
            whole_of(np.where(missing, 0, numbers), column.origin, kind.to_pandas_dtype()), kind, mask=missing
        )
    if pa.types.is_decimal(kind):
        texts = [None if np.isnan(x) else Decimal(f"{x:.{max(kind.scale, 0)}f}") + column.origin for x in numbers]
        return pa.array(texts, pa.decimal128(38, kind.scale))
    decimals = column.decimals
    array = pa.array((numbers if decimals is None else np.round(numbers, decimals)) + column.origin, mask=missing)
    return array if pa.types.is_null(kind) else array.cast(kind, safe=False)


def whole_of(numbers: Numbers, origin: int, kind: Any) -> NDArray[Any]:
    """Numbers and their origin as the nearest whole ones of a type; where there is an origin, exactly."""
    info = np.iinfo(kind)
    low, high = float(info.min - origin), float(info.max - origin)
    inside = np.clip(np.round(numbers), low, np.nextafter(high, 0) if high >= EXACT else high)
    whole = inside.astype(np.int64 if origin else info.dtype).astype(info.dtype)
    return np.asarray(whole + np.array(origin).astype(info.dtype))


# Into the library of a frame


def series_like(array: Any, series: Any, index: Any = None) -> Any:
    """An Arrow array as the native series of the library and the type of another."""
    library, native = series.implementation, series.to_native()
    if library.is_pandas_like():
        return pandas_like(array, native, index)
    if library.is_polars():
        import polars as pl

        scale = getattr(native.dtype, "scale", None)
        array = array if scale is None else narrowed(array, native.dtype.precision, scale)
        kind = native.dtype
        if isinstance(kind, pl.Enum):
            kind = pl.Enum([*kind.categories, *levels_beyond(array, kind.categories.to_list())])
        return pl.Series(series.name, pl.from_arrow(array)).cast(kind)
    return arrow_like(array, native)


def narrowed(array: Any, precision: int, scale: int) -> Any:
    """Decimal numbers cut to what so many digits hold."""
    most = Decimal(10) ** (precision - scale) - Decimal(10) ** -scale
    return pa.array([None if x is None else min(max(x, -most), most) for x in array.to_pylist()], array.type)


def leveled(array: Any, levels: Any, ordered: bool) -> Any:
    """Values as codes of levels, in their order."""
    return pa.DictionaryArray.from_arrays(pc.index_in(array, value_set=levels), levels, ordered=ordered)


def levels_beyond(array: Any, known: Sequence[Any]) -> list[Any]:
    """The values of an array that are none of the known levels."""
    return [value for value in pc.unique(array.drop_null()).to_pylist() if value not in known]


def pandas_like(array: Any, native: Any, index: Any) -> Any:
    """Of the type of the series; of the nearest type that can miss values where that cannot."""
    import pandas as pd

    values = pd.Series(array.to_pandas(integer_object_nulls=True), name=native.name)
    values = values if index is None else values.set_axis(index)
    if isinstance(native.dtype, pd.CategoricalDtype):
        known = native.dtype.categories
        more = levels_beyond(array, known.tolist())
        kind = pd.CategoricalDtype([*known, *more], native.dtype.ordered) if more else native.dtype
        return values.astype(kind)
    if array.null_count and native.dtype.kind in "iub" and isinstance(native.dtype, np.dtype):
        return values.astype(
            "boolean" if native.dtype.kind == "b" else native.dtype.name.replace("i", "I").replace("u", "U")
        )
    return values.astype(native.dtype)


def arrow_like(array: Any, native: Any) -> Any:
    """Of the type of a chunked array; of one with levels, with its levels in their order."""
    if pa.types.is_null(native.type):  # nothing tells a type but what is filled in
        return pa.chunked_array([array])
    if pa.types.is_decimal(native.type):
        array = narrowed(array, native.type.precision, native.type.scale)
    if not pa.types.is_dictionary(native.type):
        return pa.chunked_array([array.cast(native.type)])
    known = (
        native.unify_dictionaries().chunk(0).dictionary if native.num_chunks else pa.array([], native.type.value_type)
    )
    new = pc.unique(array.drop_null()).filter(pc.invert(pc.is_in(pc.unique(array.drop_null()), value_set=known)))
    levels = pa.concat_arrays([known, new.cast(known.type)])
    return pa.chunked_array([leveled(array, levels, native.type.ordered).cast(native.type)])


def patched(series: Any, holes: NDArray[np.bool_], array: Any) -> Any:
    """The series with values of an Arrow array (N,) in its holes; all other cells stay bit for bit."""
    library, native = series.implementation, series.to_native()
    new = series_like(array, series, getattr(native, "index", None))
    if library.is_pandas_like():
        own = native.astype(new.dtype) if str(native.dtype) == "category" else native  # it may have more levels
        out = own.where(~holes, new)
    elif library.is_polars():
        import polars as pl

        own = native.cast(new.dtype) if isinstance(native.dtype, pl.Enum) else native
        out = own.zip_with(pl.Series(~holes), new)
    else:
        native = native.cast(new.type) if pa.types.is_null(native.type) else native
        both = pa.chunked_array([*native.chunks, *new.chunks]).unify_dictionaries()
        index = np.arange(len(holes)) + np.where(holes, len(holes), 0)
        out = both.take(pa.array(index))
    return nw.from_native(out, series_only=True).alias(series.name)
