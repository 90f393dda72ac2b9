"""Numbers that stand for a missing value, such as -999, and words that do."""

from collections.abc import Sequence

import numpy as np

from ...base.account import doubt, note
from ...base.errors import shown

_NINES = (99.0, 999.0, 9999.0, 99999.0, 999999.0, 99.9, 999.9, 9999.9, 99.99, 999.99, 9999.99)
_LIMITS = (32767.0, 65535.0, 2147483647.0, 4294967295.0)  # of integers
_BELOW = np.array([*(-nines for nines in _NINES), -32768.0, -2147483648.0], np.float32)
_ABOVE = np.array([*(n for n in _NINES if n > 100), *_LIMITS], np.float32)
_LEAST = 5  # other values, from which the distance of a code can be judged
_FAR_BELOW, _FAR_ABOVE, _FAR_ALONE = 1, 5, 10  # times the range of the others
_FAR_ANY = 20  # of a number that is no usual code


def missing_codes(values: np.ndarray) -> dict[float, int]:
    """Numbers among `values` (n,) that nearly certainly mean a missing value, and how often they
    occur: the usual codes, more than once, where they lie far outside of all other values.

    A code below zero is one in a column without other numbers below zero.

    >>> missing_codes(np.array([3.0, -999, 5, 4, 2, 7, -999]))
    {-999.0: 2}
    """
    finite = values[np.isfinite(values)]
    with np.errstate(over="ignore"):
        short = finite.astype(np.float32)  # -999.9 of a float32 column is not that of a float64
    usual = np.isin(short, _BELOW) | np.isin(short, _ABOVE)
    others = finite[~usual]
    if not usual.any() or len(others) < _LEAST:
        return {}
    low, high = float(others.min()), float(others.max())
    spread, codes = high - low, {}
    for code, count in zip(*np.unique(finite[usual], return_counts=True), strict=True):
        if code < low:
            lonely = code <= -999 and low - code > _FAR_ALONE * spread
            far = low >= 0 or low - code > _FAR_BELOW * spread
            certain = lonely or (count > 1 and far)
        else:
            certain = count > 1 and 0 < _FAR_ABOVE * spread < code - high
        if certain:
            codes[float(code)] = int(count)
    return codes


def odd_numbers(values: np.ndarray) -> list[float]:
    """Numbers that may mean a missing value: -1 or -9 where all others are above 0, and whatever is
    there three times or more, far outside of all others. Zeros are none.
    """
    finite = values[np.isfinite(values)]
    if len(finite) < 2 * _LEAST:
        return []
    odd = []
    for extreme in (float(finite.min()), float(finite.max())):
        count = int((finite == extreme).sum())
        others = finite[finite != extreme]
        if count < 3 or len(others) < _LEAST or extreme == 0:
            continue
        low, high = float(others.min()), float(others.max())
        gap = max(low - extreme, extreme - high)
        code = extreme in (-1, -9) and low > 0 and len(np.unique(others)) >= 2 * _LEAST
        if code or gap > _FAR_ANY * (high - low) > 0:
            odd.append(extreme)
    return odd


def _spelt(number: float) -> str:
    return f"{number:.0f}" if number.is_integer() else f"{number:.6g}"


def doubt_codes(where: object, column: str, values: np.ndarray, cure: str) -> None:
    """Raise InputError for numbers that nearly certainly mean a missing value, unless doubts of
    them are accepted; note those that may mean one.

    cure: what makes a number count as missing, with `{}` in its place.
    """
    codes = missing_codes(values)
    for code, count in codes.items():
        others = values[np.isfinite(values) & ~np.isin(values, list(codes))]
        rows = f"{count:,} row" + "s" * (count > 1)
        problem = (
            f"column {shown(column)} holds {_spelt(code)} in {rows}, far from all other values"
        )
        problem += f" ({others.min():.6g} to {others.max():.6g})"
        remedy = f"if it means missing, say {cure.format(_spelt(code))}"
        doubt("missing-codes", where, f"{problem}; {remedy}")
    for number in odd_numbers(values) if not codes else ():
        what = "columns with a repeated number far from all others, which may mean missing"
        note("values", what, [f"{column}: {_spelt(number)}"])


def code_numbers(words: Sequence[str]) -> list[float]:
    """The numbers among words that count as missing."""
    numbers = []
    for word in words:
        try:
            numbers.append(float(word))
        except ValueError:
            continue
    return numbers


def without_codes(values: np.ndarray, words: Sequence[str]) -> tuple[np.ndarray, int]:
    """Numbers (n,) with NaN in place of those that count as missing, and how many these are."""
    codes = np.array(code_numbers(words))
    # In single precision, as a column may have been written.
    mask = np.isin(values, codes) | np.isin(values, codes.astype(np.float32).astype(np.float64))
    mask &= np.isfinite(values)
    return np.where(mask, np.nan, values), int(mask.sum())
