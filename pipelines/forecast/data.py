"""From the options to scaled windows: reading, splitting, scaling by the training rows only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
import torch
from torch import Tensor

from ...base.errors import InputError
from ...data.series.series import Panel, Series, read_panel
from ...data.series.split import split_borders
from ...data.series.windows import Scaler, WindowDataset, time_marks
from ..engine.pipeline import Splits
from ..engine.spec import Spec
from .options import ForecastOptions

LARGEST = 1e18  # its square is a float32

ScalerValues = dict[str, list[float]]
Fill = Literal["error", "forward", "linear", "zero", "as-is"]


class Reading(TypedDict):
    """How the training data was read; new data is read in the same way."""

    date: str | None
    id_column: str | None
    fill: Fill
    series: Literal["apart", "together"]


class InputFacts(TypedDict):
    """What the model needs, as the run's card says it."""

    columns: list[str]
    known: list[str]
    step: str
    rows_needed: int


@dataclass(frozen=True, kw_only=True)
class ForecastSpec(Spec):
    """What a forecaster needs to meet new series. The scalers are None where each series is scaled
    by its own rows."""

    layout: str
    channels: list[str]
    known: list[str]
    frequency: str
    scaler: ScalerValues | None
    known_scaler: ScalerValues | None
    series: int
    lookback: int
    horizon: int
    levels: list[float]
    marks: bool
    reading: Reading
    data_sha256: str
    input: InputFacts


class SeriesPart:
    """Rows `start` to `stop` of one series, scaled, as tensors (values, marks, known)."""

    def __init__(
        self,
        series: Series,
        rows: tuple[int, int],
        scaler: Scaler,
        known_scaler: Scaler | None,
        marks: bool,
    ) -> None:
        cut = slice(*rows)
        self.scaler, self.times = scaler, series.times[cut]
        values = torch.from_numpy(scaler.scale(series.values[cut]).astype(np.float32))
        known = None
        if known_scaler is not None:
            known = torch.from_numpy(known_scaler.scale(series.known[cut]).astype(np.float32))
        self.tensors = (values, torch.from_numpy(time_marks(self.times)) if marks else None, known)


class ForecastWindows(WindowDataset):
    """Windows that know their way back to original units.

    scalers  of the channels, one per series
    times    instants of the rows, one array per series, on the same rows as the values
    """

    def __init__(
        self, parts: Sequence[SeriesPart], options: ForecastOptions, stride: int = 1
    ) -> None:
        super().__init__(
            [part.tensors for part in parts], options.lookback, options.horizon, stride
        )
        self.scalers = [part.scaler for part in parts]
        self.times = [part.times for part in parts]
        self._mean = _stacked([scaler.mean for scaler in self.scalers])
        self._std = _stacked([scaler.std for scaler in self.scalers])

    def units(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the windows' channels, each (B or 1, 1, C) float64."""
        if len(self.scalers) == 1:
            return self._mean, self._std
        series = self.series_of(torch.as_tensor(indices))
        return self._mean[series], self._std[series]


def _stacked(rows: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(rows))[:, None]


def refuse_huge(where: str, series: Series, channels: Sequence[str], known: Sequence[str]) -> None:
    """Raise `InputError` for numbers that no deviation can be taken of: codes for "missing", or
    slips."""
    for values, names in ((series.values, channels), (series.known, known)):
        rows, columns = np.nonzero(np.abs(values) > LARGEST)
        if len(rows):
            in_series = rows[0] < len(series.times)
            moment = str(series.times[rows[0]])[:19].replace("T", " ") if in_series else "the end"
            raise InputError(
                f"{where}: column {names[columns[0]]!r} holds {values[rows[0], columns[0]]:g} at "
                f"{moment}, too large a number to scale; leave the cell empty if it means missing, "
                "and choose a --fill"
            )


def read_data(options: ForecastOptions, spec: ForecastSpec | None = None) -> Panel:
    """The series of `options.data`; with `spec`, columns and clock must be the run's own."""
    assert options.data is not None
    targets, known = options.targets, options.known
    together = spec is not None and spec.layout == "long" and options.series == "together"
    if spec is not None and not together:
        targets, known = tuple(spec.channels), tuple(spec.known)
    panel = read_panel(
        options.data,
        date=options.date,
        id_column=options.id_column,
        targets=targets or None,
        known=known,
        frequency=options.frequency,
        fill=options.fill,
        series=options.series,
    )
    if spec is not None:
        _check_same(panel, spec, options.data)
    for series in panel.series:
        refuse_huge(options.data, series, panel.channels, panel.known)
    return panel


def _check_same(panel: Panel, spec: ForecastSpec, where: str) -> None:
    """Channels and clock of other data must be those that the model was trained on."""
    if list(panel.channels) != spec.channels:
        raise InputError(
            f"{where}: {len(panel.channels)} channels ({', '.join(panel.channels[:5])}, …), but "
            f"the run was trained on {len(spec.channels)} ({', '.join(spec.channels[:5])}, …)"
        )
    if panel.frequency != spec.frequency:
        raise InputError(
            f"{where}: a step is {panel.frequency}, but the run was trained on steps of "
            f"{spec.frequency}"
        )


def open_splits(
    options: ForecastOptions, spec: ForecastSpec | None, as_test: bool
) -> Splits[ForecastSpec]:
    """Windows of the three parts.

    A wide table is scaled by its training rows; each series of a long one by its own. as_test: all
    rows are the test part.
    """
    panel = read_data(options, spec)
    parts: tuple[list[SeriesPart], list[SeriesPart], list[SeriesPart]] = ([], [], [])
    scaler: Scaler | None = None
    known_scaler: Scaler | None = None
    for series in panel.series:
        borders = [(0, len(series.values))] * 3 if as_test else _borders(series, panel, options)
        scaler, known_scaler = _scalers(series, borders[0], spec, bool(panel.known))
        for part, rows in zip(parts, borders, strict=True):
            part.append(SeriesPart(series, rows, scaler, known_scaler, options.marks))
    try:
        train, validation, test = (ForecastWindows(part, options) for part in parts)
    except InputError as error:  # a table that is too short as a whole
        raise InputError(f"{options.data}: {error}") from None
    if spec is None:
        shared = panel.layout == "wide" or options.series == "together"
        spec = _new_spec(
            panel, options, scaler if shared else None, known_scaler if shared else None
        )
    return Splits(train, validation, test, spec)


def _scalers(
    series: Series, training_rows: tuple[int, int], spec: ForecastSpec | None, with_known: bool
) -> tuple[Scaler, Scaler | None]:
    """Scalers of channels and known columns: those of the run, or fitted on the training rows."""
    if spec is not None and spec.scaler is not None:
        known = Scaler.from_dict(spec.known_scaler or {}) if with_known else None
        return Scaler.from_dict(spec.scaler), known
    train = slice(*training_rows)
    return Scaler.fit(series.values[train]), Scaler.fit(series.known[train]) if with_known else None


def _borders(series: Series, panel: Panel, options: ForecastOptions) -> list[tuple[int, int]]:
    """Rows of the three parts of a series."""
    try:
        borders = split_borders(
            len(series.values),
            options.split,
            lookback=options.lookback,
            horizon=options.horizon,
            frequency=panel.frequency,
        )
    except InputError as error:
        name = "" if panel.layout == "wide" else f" series {series.name!r}:"
        raise InputError(f"{options.data}:{name} {error}") from None
    return list(borders)


def _new_spec(
    panel: Panel, options: ForecastOptions, scaler: Scaler | None, known_scaler: Scaler | None
) -> ForecastSpec:
    digest = hashlib.sha256()
    for series in panel.series:
        digest.update(series.name.encode())
        for values in (series.times, series.values, series.known):
            digest.update(np.ascontiguousarray(values).tobytes())
    channels, known = list(panel.channels), list(panel.known)
    return ForecastSpec(
        layout=panel.layout,
        channels=channels,
        known=known,
        frequency=panel.frequency,
        scaler=scaler.to_dict() if scaler else None,
        known_scaler=known_scaler.to_dict() if known_scaler else None,
        series=len(panel.series),
        lookback=options.lookback,
        horizon=options.horizon,
        levels=sorted(options.levels),
        marks=options.marks,
        reading=Reading(
            date=options.date, id_column=options.id_column, fill=options.fill, series=options.series
        ),
        data_sha256=digest.hexdigest(),
        input=InputFacts(
            columns=channels, known=known, step=panel.frequency, rows_needed=options.lookback
        ),
    )
