"""Dates that stand as text: in which form, and their seconds since 1970 (UTC)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

DAYS = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%d %b %Y"),
    *("%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%d %B %Y", "%m/%d/%y", "%d/%m/%y", "%d.%m.%y", "%d-%b-%y"),
)
TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", "T%H:%M", "T%H:%M:%S", "T%H:%M:%S.%f")
ZONES = ("", "Z", "%z", " %z")
FORMS = (*(day + time + (zone if time else "") for day, time, zone in product(DAYS, TIMES, ZONES)), "%Y-%m")
NEVER = frozenset(("0000-00-00", "0000-00-00 00:00:00", "00/00/0000", "0000/00/00"))  # what MySQL writes for none
ISO = {"%Y-%m-%d": 10, **{f"%Y-%m-%d{by}%H:%M": 16 for by in " T"}, **{f"%Y-%m-%d{by}%H:%M:%S": 19 for by in " T"}}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CALENDAR = (-62_135_596_800.0, 253_402_300_799.0)  # seconds of the years 1 to 9999
WRITTEN = -30_610_224_000.0  # of the year 1000, from which on all years have four digits
SLIPS = 0.05  # of the words may be no dates
LIKE = re.compile(r"\d{1,4}[-/. ]\d{1,2}|\d[- ][A-Za-z]{3}|[A-Za-z]{3} \d")  # what dates look like
FINER = re.compile(r"(\.\d{6})\d+")  # fractions beyond microseconds, which Python's dates do not have
SPAN = re.compile(r"(?:(-?\d+) days?,? ?\+?)?(-?)(\d+):(\d\d)(?::(\d\d(?:\.\d+)?))?")  # -1 day, 19:17:00
TRIED = 200  # values on which forms are tried
MOST = 0.5  # of the words are dates, at least, where the others are written as dates that the calendar lacks
DIGITS = {  # what a part of a form is written with; others are of one digit or two
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "f": r"\d+",
    "b": "[A-Za-z]{3}",
    "B": "[A-Za-z]+",
    "p": "[AaPp][Mm]",
    "z": r"\S+",
}


@dataclass(frozen=True, eq=False)
class Dates:
    """Dates of different words.

    Attributes:
        form: as `datetime.strptime` takes it.
        seconds: of each word, since 1970; NaN where it is no date.
        other: another form that fits all words as well; "" if there is none.
    """

    form: str
    seconds: NDArray[np.float64]
    other: str = ""

    @property
    def wrong(self) -> int:
        """How many words are no dates of this form."""
        return int(np.isnan(self.seconds).sum())


def dates_in(words: Sequence[str]) -> Dates | None:
    """The words as dates; None where fewer than nineteen in twenty of them are dates of one form.

    Half are enough where the others are written alike, such as 2021-02-30: they are slips, and no levels.
    """
    there = [word for word in words if word not in NEVER]
    tried = there[:: max(1, len(there) // TRIED)]
    if not like_dates(tried):
        return None
    found = sorted((Dates(form, read(words, form)) for form in fitting(tried)), key=lambda dates: dates.wrong)
    if not found or found[0].wrong > SLIPS * len(words) + len(words) - len(there):
        return written_alike(words, tried)
    best, *others = found  # of equals the first form stays the first
    return replace(best, other=next((dates.form for dates in others if dates.wrong == best.wrong), ""))


def like_dates(words: Sequence[str]) -> bool:
    """Whether there are words, and nearly all look like dates."""
    alike = sum(6 <= len(word) <= 40 and LIKE.search(word) is not None for word in words)
    return bool(words) and alike >= (1 - SLIPS) * len(words)


def written_alike(words: Sequence[str], tried: Sequence[str]) -> Dates | None:
    """The words as dates of the form in which all are written that were tried, and in which the most are dates."""
    forms = [form for form in FORMS if "%d" in form and all(shape(form).fullmatch(word) for word in tried)]
    each = {form: sum(seconds(word, form) is not None for word in tried) for form in forms}
    best = max(each, key=lambda form: each[form], default="")
    return Dates(best, read(words, best)) if best and each[best] >= MOST * len(tried) else None


@cache
def shape(form: str) -> re.Pattern[str]:
    """What is written as a date of this form, whether the calendar has it or not."""
    parts = re.split("%(.)", form)
    return re.compile("".join(DIGITS.get(p, r"\d{1,2}") if i % 2 else re.escape(p) for i, p in enumerate(parts)))


def fitting(words: Sequence[str]) -> list[str]:
    """The forms, two at most, in which the most words are dates, if those are nearly all."""
    fits = {form: share(words, form) for form in FORMS}
    best = max(fits.values())
    return [form for form, part in fits.items() if part == best >= 1 - SLIPS][:2]


def share(words: Sequence[str], form: str) -> float:
    """Which part of the words are dates of this form; 0 as soon as it is clear that too few are."""
    bad = 0
    for word in words:
        bad += seconds(word, form) is None
        if bad > SLIPS * len(words):
            return 0.0
    return 1 - bad / len(words)


def read(words: Sequence[str], form: str) -> NDArray[np.float64]:
    """Seconds since 1970 of each word; NaN where it is no date of this form."""
    return np.array([np.nan if (s := seconds(word, form)) is None else s for word in words], np.float64)


def seconds(word: str, form: str) -> float | None:
    """Seconds since 1970 of a date; without a zone it counts as UTC."""
    try:
        when = iso(word, form) or datetime.strptime(FINER.sub(r"\1", word) if "%f" in form else word, form)
    except ValueError:
        return None
    return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - EPOCH).total_seconds()


def span(word: str) -> float:
    """Seconds of a span of time, or of a time of a day, as Python and pandas write it.  ValueError: it is none."""
    found = SPAN.fullmatch(word)
    if not found:
        raise ValueError(word)
    days, minus, hours, minutes, rest = found.groups(default="0")
    seconds = 3600 * int(hours) + 60 * int(minutes) + float(rest)
    return 86_400 * int(days) + (-seconds if minus == "-" else seconds)


def zone_of(dtype: str) -> str:
    """The time zone in narwhals' name of a type, such as Europe/Berlin; "" where it has none, or UTC."""
    found = re.search(r"time_zone='([^']+)'", dtype)
    return found[1] if found and found[1] != "UTC" else ""


def to_local(seconds: NDArray[np.float64], zone: str) -> NDArray[np.float64]:
    """Seconds since 1970 (UTC) as those that the clocks of a zone show; NaN stays."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return _shown(pc.local_timestamp(_stamps(seconds, pa.timestamp("us", zone))), seconds)


def from_local(seconds: NDArray[np.float64], zone: str) -> NDArray[np.float64]:
    """The inverse; of an hour that comes twice the first, of one that clocks skip its beginning."""
    import pyarrow as pa
    import pyarrow.compute as pc

    local = _stamps(seconds, pa.timestamp("us"))
    return _shown(pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="latest"), seconds)


def _stamps(seconds: NDArray[np.float64], kind: Any) -> Any:
    import pyarrow as pa

    ticks = np.round(np.clip(np.nan_to_num(seconds), *CALENDAR) * 1e6).astype(np.int64)
    return pa.array(ticks).cast(kind)


def _shown(stamps: Any, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    import pyarrow as pa

    ticks = stamps.cast(pa.timestamp("us", stamps.type.tz)).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return np.where(np.isnan(seconds), np.nan, ticks / 1e6)


def iso(word: str, form: str) -> datetime | None:
    """A date of one of the most frequent forms, fifty times as fast; None of others."""
    if len(word) != ISO.get(form) or word[4] != "-" or word[7] != "-" or word[10:11] != form[8:9]:
        return None
    return datetime.fromisoformat(word)


def written(numbers: NDArray[np.float64], form: str) -> list[str | None]:
    """Dates as text in this form, in UTC, of the years 1000 to 9999; None for NaN."""
    within = np.clip(numbers, WRITTEN, CALENDAR[1])
    form = form.replace("%z", "+00:00")
    return [None if np.isnan(s) else (EPOCH + timedelta(seconds=float(s))).strftime(form) for s in within]
