"""From the options to scaled windows: reading, splitting, scaling on the training rows only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...base.errors import InputError
from ...data.series.series import Panel, Series, read_panel
from ...data.series.split import split_borders
from ...data.series.windows import Scaler, WindowDataset, time_marks
from ..engine.pipeline import Splits
from ..engine.spec import DictSpec
from .options import ForecastOptions

LARGEST = 1e18  # its square is a float32


class ForecastWindows(WindowDataset):
    """Windows that know their way back to original units.

    scalers  of the channels, one per series
    times    rows' instants, one array per series, on the same rows as the values
    """

    def __init__(self, series: Sequence[Part], options: ForecastOptions, stride: int = 1) -> None:
        super().__init__(
            [part.tensors for part in series], options.lookback, options.horizon, stride
        )
        self.scalers = [part.scaler for part in series]
        self._mean, self._std = (
            torch.from_numpy(np.stack([getattr(scaler, name) for scaler in self.scalers]))[:, None]
            for name in ("mean", "std")
        )
        self.times = [part.times for part in series]

    def units(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the windows' channels, each (B or 1, 1, C) float64."""
        if len(self.scalers) == 1:
            return self._mean, self._std
        which = self.series_of(torch.as_tensor(indices))
        return self._mean[which], self._std[which]


class Part:
    """Rows `start` to `stop` of one series, scaled, as tensors."""

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


def refuse_huge(where: str, series: Series, channels: Sequence[str], known: Sequence[str]) -> None:
    """Raise for numbers that no deviation can be taken of: marks for "missing", or slips."""
    for values, names in ((series.values, channels), (series.known, known)):
        rows, columns = np.nonzero(np.abs(values) > LARGEST)
        if len(rows):
            moment = (
                str(series.times[rows[0]])[:19].replace("T", " ")
                if rows[0] < len(series.times)
                else "the end"
            )
            raise InputError(
                f"{where}: column {names[columns[0]]!r} holds {values[rows[0], columns[0]]:g} at {moment}, too large a "
                "number to scale; leave the cell empty if it means missing, and choose a --fill"
            )


def read(options: ForecastOptions, spec: dict[str, Any] | None = None) -> Panel:
    """The panel of `options.data`; with `spec`, the columns and the clock must be the run's own."""
    assert options.data is not None
    targets, known, frequency = options.targets, options.known, options.frequency
    together = spec is not None and spec["layout"] == "long" and options.series == "together"
    if spec is not None and not together:
        targets, known = tuple(spec["channels"]), tuple(spec["known"])
    panel = read_panel(
        options.data,
        date=options.date,
        id_column=options.id_column,
        targets=targets or None,
        known=known,
        frequency=frequency,
        fill=options.fill,
        series=options.series,
    )
    if spec is not None:
        check_same(panel, spec, options.data)
    for series in panel.series:
        refuse_huge(options.data, series, panel.channels, panel.known)
    return panel


def check_same(panel: Panel, spec: dict[str, Any], where: str) -> None:
    """Channels and clock of other data must be those that the model was trained on."""
    if list(panel.channels) != spec["channels"]:
        raise InputError(
            f"{where}: {len(panel.channels)} channels ({', '.join(panel.channels[:5])}, …), but the run was trained on "
            f"{len(spec['channels'])} ({', '.join(spec['channels'][:5])}, …)"
        )
    if panel.frequency != spec["frequency"]:
        raise InputError(
            f"{where}: a step is {panel.frequency}, but the run was trained on steps of {spec['frequency']}"
        )


def open_splits(options: ForecastOptions, spec: dict[str, Any] | None, whole: bool) -> Splits:
    """Windows of the three parts. A wide table is scaled by its training rows; each series of a
    long one by its own.
    """
    panel = read(options, spec)
    shared = panel.layout == "wide" or options.series == "together"
    parts: tuple[list[Part], list[Part], list[Part]] = ([], [], [])
    scalers: dict[str, Any] = {"scaler": None, "known_scaler": None}
    for series in panel.series:
        rows = len(series.values)
        if whole:
            borders = [(0, rows)] * 3
        else:
            borders = _borders(series, panel, options)
        train = slice(*borders[0])
        if spec is not None and spec["scaler"] is not None:
            scaler = Scaler.from_dict(spec["scaler"])
            known_scaler = Scaler.from_dict(spec["known_scaler"]) if panel.known else None
        else:
            scaler = Scaler.fit(series.values[train])
            known_scaler = Scaler.fit(series.known[train]) if panel.known else None
        if shared:
            scalers["scaler"] = scaler.to_dict()
            scalers["known_scaler"] = known_scaler.to_dict() if known_scaler else None
        for part, cut in zip(parts, borders, strict=True):
            part.append(Part(series, cut, scaler, known_scaler, options.marks))
    try:
        train_set, validation, test = (ForecastWindows(part, options) for part in parts)
    except InputError as error:  # of the whole of a table that is too short
        raise InputError(f"{options.data}: {error}") from None
    return Splits(train_set, validation, test, spec or DictSpec(_spec(panel, options, scalers)))


def _borders(series: Series, panel: Panel, options: ForecastOptions) -> list[tuple[int, int]]:
    try:
        return list(
            split_borders(
                len(series.values),
                options.split,
                lookback=options.lookback,
                horizon=options.horizon,
                frequency=panel.frequency,
            )
        )
    except InputError as error:
        name = "" if panel.layout == "wide" else f" series {series.name!r}:"
        raise InputError(f"{options.data}:{name} {error}") from None


def _spec(panel: Panel, options: ForecastOptions, scalers: dict[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for series in panel.series:
        digest.update(series.name.encode())
        for values in (series.times, series.values, series.known):
            digest.update(np.ascontiguousarray(values).tobytes())
    return {
        "layout": panel.layout,
        "channels": list(panel.channels),
        "known": list(panel.known),
        "frequency": panel.frequency,
        **scalers,
        "series": len(panel.series),
        "lookback": options.lookback,
        "horizon": options.horizon,
        "levels": sorted(options.levels),
        "marks": options.marks,
        "reading": {
            name: getattr(options, name) for name in ("date", "id_column", "fill", "series")
        },
        "data_sha256": digest.hexdigest(),
        "input": {
            "columns": list(panel.channels),
            "known": list(panel.known),
            "step": panel.frequency,
            "rows_needed": options.lookback,
        },
    }
