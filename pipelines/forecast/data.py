"""From the options to scaled windows: reading, splitting, scaling by the training rows only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, NotRequired, TypedDict

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ...base.account import accepts, note
from ...base.errors import InputError
from ...data.series.dates import DateOrder
from ...data.series.number_form import Decimal, NumberForm, stored_commas
from ...data.series.series import Panel, Series, id_columns, read_panel
from ...data.series.windows import Scaler, WindowDataset, time_marks
from ..engine.pipeline import Splits
from ..engine.spec import Spec
from .options import ForecastOptions, unread_sizes
from .part_ends import PartEnd, known_rows, part_ends
from .usable import PartedSeries, parted_series, sizes, with_sizes

LARGEST = 1e18  # its square is a float32

ScalerValues = dict[str, list[float]]
Fill = Literal["error", "forward", "linear", "zero", "as-is"]


class Reading(TypedDict):
    """How the training data was read; new data is read in the same way."""

    date: str | None
    id_column: str | list[str] | None
    """What the user named; older runs hold one name."""
    fill: Fill
    series: Literal["apart", "together"]
    date_order: NotRequired[DateOrder]
    """The order of day, month and year that training read."""
    local_days: NotRequired[bool]
    """Whether dates with an offset are days on the wall."""
    month_day: NotRequired[int]
    """The day of the month of a clock in months, 0 where the series differ in it."""
    id_columns: NotRequired[list[str]]
    """The columns that named the series."""
    decimal_comma: NotRequired[dict[str, bool]]
    """Whether columns had a decimal comma, as far as the table said it."""
    units: NotRequired[dict[str, str]]
    """Units of columns."""
    missing: NotRequired[list[str]]
    """Words and numbers that count as missing, as the user named them."""
    codes_accepted: NotRequired[bool]
    """Whether numbers such as -999 are numbers."""


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
    names: list[str] = field(default_factory=list)
    """Of the series of a long table, in the order of the calibration; older runs have none."""
    ends: list[dict[str, PartEnd]] = field(default_factory=list)
    """Of the parts of each series; older runs have none."""


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
        self.name, self.ids = series.name, series.parts
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
    names    of the series; ids: what each column of ids holds, where there are several
    part     train, validation or test
    known_rows  how many rows of each series a run has seen, by part; of new data alone
    """

    known_rows: Sequence[Mapping[str, int]] = ()

    def __init__(
        self,
        parts: Sequence[SeriesPart],
        lookback: int,
        horizon: int,
        part: str = "test",
        stride: int = 1,
    ) -> None:
        super().__init__([part.tensors for part in parts], lookback, horizon, stride)
        self.part = part
        self.names, self.ids = [part.name for part in parts], [part.ids for part in parts]
        self.scalers = [part.scaler for part in parts]
        self.times = [part.times for part in parts]
        self._mean = _stacked([scaler.mean for scaler in self.scalers])
        self._std = _stacked([scaler.std for scaler in self.scalers])

    def parts_in_training(self) -> pl.Series:
        """The part of the run's training in which each window ends, null for new rows; empty where
        the run does not know it.
        """
        counts = torch.diff(self._ends, prepend=torch.zeros(1, dtype=self._ends.dtype)).tolist()
        parts = [pl.Series("part", [], pl.String)]
        for count, stops in zip(counts, self.known_rows, strict=False):
            ends = np.arange(count) * self.stride + self.lookback + self.horizon
            known = pl.repeat(None, count, dtype=pl.String, eager=True).alias("part")
            for name in reversed(list(stops)):
                known = known.set(pl.Series(ends <= stops[name]), name)
            parts.append(known)
        return pl.concat(parts)

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
    form = NumberForm(options.decimal, missing=options.missing)
    reading = RunReading(options.date_order, form=form) if spec is None else reading_of(spec)
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
        order=reading.order,
        local=reading.local,
        month_day=reading.month_day,
        usual_ids=reading.usual_ids,
        form=reading.form,
    )
    if spec is not None:
        _check_same(panel, spec, options.data)
    for series in panel.series:
        refuse_huge(options.data, series, panel.channels, panel.known)
    return panel


class RunReading(NamedTuple):
    """What new data of a run is read with, besides what the user named."""

    order: DateOrder = "auto"
    local: bool = False
    month_day: int = 0
    usual_ids: Sequence[str] = ()
    form: NumberForm = NumberForm()


def reading_of(
    spec: ForecastSpec, decimal: Decimal = "auto", missing: Sequence[str] = ()
) -> RunReading:
    """How a run read its dates, ids and numbers; runs of older versions stored nothing about it.

    decimal, missing: what the user names for new data.
    """
    reading = spec.reading
    form = NumberForm(
        decimal,
        reading.get("decimal_comma", {}),
        reading.get("units", {}),
        (*reading.get("missing", ()), *missing),
        accepted=reading.get("codes_accepted", False),
    )
    return RunReading(
        reading.get("date_order", "auto"),
        reading.get("local_days", False),
        reading.get("month_day", 0),
        reading.get("id_columns", ()),
        form,
    )


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
    if unread := unread_sizes(options):
        note("assumed", f"options that --attention {options.attention} does not read", unread)
    if spec is None:
        options = with_sizes(options, panel)
        lookback, horizon = sizes(options)
    else:
        lookback, horizon = spec.lookback, spec.horizon
        options = replace(options, lookback=lookback, horizon=horizon)
    if as_test:
        chosen = [_entire(series, spec, bool(panel.known)) for series in panel.series]
    else:
        chosen = [_with_scalers(series, spec) for series in parted_series(panel, options)]
    names = ("train", "validation", "test")
    try:
        train, validation, test = (
            ForecastWindows(
                [
                    SeriesPart(
                        parted.series,
                        parted.rows[place],
                        parted.scaler,
                        parted.known_scaler,
                        options.marks,
                    )
                    for parted in chosen
                ],
                lookback,
                horizon,
                name,
            )
            for place, name in enumerate(names)
        )
    except InputError as error:  # a table that is too short as a whole
        raise InputError(f"{options.data}: {error}") from None
    if spec is None:
        spec = _new_spec(panel, options, chosen)
    elif as_test:
        ends = dict(zip(spec.names or [None], spec.ends, strict=False))
        test.known_rows = [
            known_rows(series, ends.get(series.name if spec.names else None, {}))
            for series in panel.series
        ]
    return Splits(train, validation, test, spec)


def _entire(series: Series, spec: ForecastSpec | None, with_known: bool) -> PartedSeries:
    """A series all of whose rows are the test part, scaled as the run does."""
    rows = (0, len(series.values))
    known = Scaler.fit(series.known[slice(*rows)]) if with_known else None
    parted = PartedSeries(series, (rows, rows, rows), Scaler.fit(series.values), known)
    return _with_scalers(parted, spec)


def _with_scalers(parted: PartedSeries, spec: ForecastSpec | None) -> PartedSeries:
    """The series with the scalers of the run, where it has them."""
    if spec is None or spec.scaler is None:
        return parted
    known = None if parted.known_scaler is None else Scaler.from_dict(spec.known_scaler or {})
    return replace(parted, scaler=Scaler.from_dict(spec.scaler), known_scaler=known)


def _new_spec(
    panel: Panel, options: ForecastOptions, chosen: Sequence[PartedSeries]
) -> ForecastSpec:
    digest = hashlib.sha256()
    for series in panel.series:
        digest.update(series.name.encode())
        for values in (series.times, series.values, series.known):
            digest.update(np.ascontiguousarray(values).tobytes())
    channels, known = list(panel.channels), list(panel.known)
    lookback, horizon = sizes(options)
    shared = panel.layout == "wide" or options.series == "together"
    scaler, known_scaler = (chosen[-1].scaler, chosen[-1].known_scaler) if shared else (None, None)
    month_days = {series.month_day for series in panel.series}
    return ForecastSpec(
        layout=panel.layout,
        channels=channels,
        known=known,
        frequency=panel.frequency,
        scaler=scaler.to_dict() if scaler else None,
        known_scaler=known_scaler.to_dict() if known_scaler else None,
        series=len(chosen),
        lookback=lookback,
        horizon=horizon,
        levels=sorted(options.levels),
        marks=options.marks,
        reading=Reading(
            date=options.date,
            id_column=list(id_columns(options.id_column)) or None,
            fill=options.fill,
            series=options.series,
            date_order=panel.order,
            local_days=panel.local,
            month_day=month_days.pop() if len(month_days) == 1 else 0,
            id_columns=list(panel.ids),
            decimal_comma=stored_commas(panel.form, panel.columns),
            units={name: unit for name, unit in panel.form.units.items() if unit},
            missing=list(options.missing),
            codes_accepted=accepts("missing-codes"),
        ),
        data_sha256=digest.hexdigest(),
        input=InputFacts(columns=channels, known=known, step=panel.frequency, rows_needed=lookback),
        names=[] if shared else [parted.series.name for parted in chosen],
        ends=part_ends(chosen),
    )
