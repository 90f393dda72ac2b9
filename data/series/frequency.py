"""The step between two rows, and the names that people give it.

A frequency is written as polars writes a duration: "15m", "1h", "1d", "1b" (business days), "1w",
and by the calendar "1mo", "1q", "1y". The names of pandas are understood, too: MS is a month that
begins on the 1st, ms a millisecond.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...base.errors import fail, shown

MICROSECONDS = {
    "us": 1,
    "ms": 10**3,
    "s": 10**6,
    "m": 60 * 10**6,
    "h": 3600 * 10**6,
    "d": 86400 * 10**6,
    "w": 7 * 86400 * 10**6,
}
MONTHS = {"mo": 1, "q": 3, "y": 12}
MONTH_END = 31
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


@dataclass(frozen=True)
class Step:
    """One step of a clock, in microseconds, in calendar months or in business days (the others are
    0).

    month_day  of a step in months: 1 or `MONTH_END` where the name says so, 0 where the dates do
    weekday    of a step in weeks: 0 (Monday) to 6 where the name says so, None where the dates do
    """

    microseconds: int
    months: int
    business: int = 0
    month_day: int = 0
    weekday: int | None = None

    @property
    def text(self) -> str:
        """The step in the largest unit that divides it: 60 minutes are "1h"."""
        if self.business:
            return f"{self.business}b"
        units, size = (MONTHS, self.months) if self.months else (MICROSECONDS, self.microseconds)
        unit = max((u for u, length in units.items() if size % length == 0), key=units.__getitem__)
        return f"{size // units[unit]}{unit}"


# Names in which upper and lower case differ in meaning, as pandas writes them.
_PANDAS: Mapping[str, Step] = {
    "MS": Step(0, 1, month_day=1),
    "ME": Step(0, 1, month_day=MONTH_END),
    "QS": Step(0, 3, month_day=1),
    "QE": Step(0, 3, month_day=MONTH_END),
    "YS": Step(0, 12, month_day=1),
    "AS": Step(0, 12, month_day=1),
    "YE": Step(0, 12, month_day=MONTH_END),
    "L": Step(10**3, 0),
    "U": Step(1, 0),
    "B": Step(0, 0, business=1),
    "ms": Step(10**3, 0),
}
# What pandas calls the quarters and years that begin in January.
_PLAIN_PHASE = {"QS": "JAN", "QE": "DEC", "Q": "DEC", "YS": "JAN", "AS": "JAN", "YE": "DEC",
                "Y": "DEC", "A": "DEC"}  # fmt: skip
_UNITS = {
    "min": "m", "mins": "m", "minute": "m", "minutes": "m", "t": "m",
    "sec": "s", "secs": "s", "second": "s", "seconds": "s",
    "hour": "h", "hours": "h", "hourly": "h", "hr": "h", "day": "d", "days": "d", "daily": "d",
    "week": "w", "weeks": "w", "weekly": "w", "month": "mo", "months": "mo", "monthly": "mo",
    "quarter": "q", "quarters": "q", "quarterly": "q",
    "year": "y", "years": "y", "yearly": "y", "annual": "y", "a": "y",
    "bday": "b", "bdays": "b", "business": "b", "b": "b",
}  # fmt: skip
_REFUSED = {
    "M": "is not a frequency (months to some, minutes to others); write ME (month ends), MS (month "
    "starts), 1mo or 15min",
    "C": "needs a calendar of holidays; write B and fill the holidays with --fill forward",
    "SM": "is not a regular step; take the rows as they are with --fill as-is",
    "BH": "is not a regular step; take the rows as they are with --fill as-is",
}
_SAME_REFUSAL = {"SMS": "SM", "SME": "SM", "CBH": "BH", "bh": "BH", "cbh": "BH"}
_BUSINESS_MONTHS = re.compile(r"(C?B)(M|Q|A|Y)[SE]?")
_WRITE = "write 5m, 15m, 1h, 1d, 1b (business days), 1w, 1mo, 1q or 1y"


def parse_frequency(text: str, where: object = "--frequency") -> Step:
    """The step that "15m", "1h", "D", "W-MON", "MS", "1mo", ... name. Raises InputError for
    anything else.

    >>> parse_frequency("60min").text
    '1h'
    >>> parse_frequency("MS").text
    '1mo'
    """
    match = re.fullmatch(r"\s*(\d{0,6})\s*([A-Za-z]+)(?:-([A-Za-z]{3}))?\s*", text)
    count = int(match[1] or 1) if match else 0
    if match is None or not count:
        raise fail(where, f"{shown(text)} is not a frequency; {_WRITE}")
    unit, suffix = match[2], (match[3] or "").upper()
    refusal = _REFUSED.get(_SAME_REFUSAL.get(unit, unit))
    if refusal:
        raise fail(where, f"{shown(text)} {refusal}")
    if _BUSINESS_MONTHS.fullmatch(unit):
        cure = "write 1mo, 1q or 1y and give each row the first or last day of its month"
        raise fail(where, f"{shown(text)} is the first or last business day; {cure}")
    step = _step_of(unit)
    if step is None:
        raise fail(where, f"{shown(text)} is not a frequency; {_WRITE}")
    weekday = _weekday(step, suffix)
    if suffix and weekday is None and unit not in (*_PLAIN_PHASE, "W"):
        raise fail(where, f"{shown(text)} is not a frequency; {_WRITE}")
    if suffix and weekday is None and _PLAIN_PHASE.get(unit) != suffix:
        cure = f"write {step.text}: the dates say where it begins"
        raise fail(where, f"the ending -{suffix} of {shown(text)} is not read; {cure}")
    return Step(
        step.microseconds * count,
        step.months * count,
        step.business * count,
        step.month_day,
        weekday,
    )


def _step_of(unit: str) -> Step | None:
    if unit in _PANDAS:
        return _PANDAS[unit]
    if unit.upper() == "MS":  # "Ms", "mS": neither a month start nor a millisecond
        return None
    name = _UNITS.get(unit.lower(), unit.lower())
    if name in MICROSECONDS:
        return Step(MICROSECONDS[name], 0)
    if name in MONTHS:
        return Step(0, MONTHS[name])
    return Step(0, 0, business=1) if name == "b" else None


def _weekday(step: Step, suffix: str) -> int | None:
    """The day on which the weeks of "W-MON" begin."""
    if step.microseconds == MICROSECONDS["w"] and suffix in WEEKDAYS:
        return WEEKDAYS.index(suffix)
    return None
