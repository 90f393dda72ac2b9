"""Options of Text. Nothing here imports torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ...base.errors import InputError
from ..engine.command_line.checks import check_least
from ..engine.options import LadderOptions, PredictOptions
from ..engine.search_space import Choices, Space


@dataclass(frozen=True, kw_only=True)
class TextOptions(LadderOptions):
    """Train a model that predicts the last column of a table from the others."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("validation_share", "test_share"),
        "model": ("hidden",),
    }
    SEARCH: ClassVar[Space] = {"hidden": Choices((16, 32, 64))}

    data: str | None = None
    """Table of numbers with a header (.csv, .tsv, .parquet); the last column is predicted."""
    hidden: int = 32
    """Width of the hidden layer."""
    validation_share: float = 0.15
    """Share of the rows by which the best epoch is chosen."""
    test_share: float = 0.2
    """Share of the rows on which the trained model is scored."""


@dataclass(frozen=True, kw_only=True)
class TextPredictOptions(PredictOptions):
    """Predict the last column for tables with the other columns."""


def check(options: object) -> None:
    """Raise `InputError` for values that no data can make right."""
    check_least(options, {"hidden": 1})
    if isinstance(options, TextOptions):
        for name in ("validation_share", "test_share"):
            if not 0 < getattr(options, name) < 1:
                raise InputError(f"--{name.replace('_', '-')}: must lie between 0 and 1")
