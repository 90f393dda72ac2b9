"""Checks of numbers that constructors are given."""

import math
from numbers import Real


def check_number(owner: str, name: str, value: float) -> None:
    """Raise ValueError for an option that is no finite number."""
    _check(owner, name, value, -math.inf, "a finite number")


def check_positive(owner: str, name: str, value: float) -> None:
    """Raise ValueError for an option that is no finite number above 0."""
    _check(owner, name, value, math.ulp(0.0), "positive")


def check_not_negative(owner: str, name: str, value: float) -> None:
    """Raise ValueError for an option that is no finite number from 0."""
    _check(owner, name, value, 0.0, "0 or more")


def check_dropout(owner: str, value: float) -> None:
    """Raise ValueError for a share of dropped numbers that is not from 0 to below 1."""
    _check(owner, "dropout", value, 0.0, "from 0 to below 1", below=1.0)


def _check(
    owner: str, name: str, value: float, least: float, words: str, *, below: float = math.inf
) -> None:
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not least <= value < below:
        raise ValueError(f"{owner}: {name} must be {words}, got {value!r}")
