"""Dates in the cells of a table, as instants."""

import polars as pl

# Orders that cannot be confused.
_ISO_FORMATS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y.%m.%d %H:%M:%S",
    "%Y.%m.%d %H:%M",
    "%Y.%m.%d",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%+",
    "%Y-%m-%d %H:%M:%S%#z",
)
# Day-month-year is read only where the numbers allow a single reading.
_SLASHED = tuple((f"%d/%m/%Y{t}", f"%m/%d/%Y{t}") for t in ("", " %H:%M", " %H:%M:%S"))
_SAMPLE = 1000


def read_times(column: pl.Series, *, slashed: bool = True) -> pl.Series:
    """A column of dates as Datetime("us"), in UTC where they have an offset; null for other cells.

    Text is tried in the year-first orders, as day.month.year, and (with `slashed`) as
    day/month/year or month/day/year where only one of the two fits all cells. Raises TypeError with
    a reason when the column cannot hold dates, or could be read in two ways.
    """
    kind = column.dtype
    if kind == pl.Date or isinstance(kind, pl.Datetime):
        return _in_utc(column).cast(pl.Datetime("us"))
    if kind != pl.String:
        raise TypeError(f"holds {kind}, not dates; write them as 2024-01-31 13:00:00")
    text = column.str.strip_chars()
    best, count = _best_format(text.drop_nulls().head(_SAMPLE))
    times = _parse(text, best)
    if slashed and count == 0 and (pair := _slashed_pair(text)) is not None:
        return pair
    if times.null_count() > text.null_count():
        # A few cells in another order (midnight written without its time, ...): all orders are
        # tried on the remaining cells.
        rest = text.filter(times.is_null()).unique()
        parsed = pl.DataFrame({"text": rest}).with_columns(
            pl.coalesce([_parse(rest, form) for form in _ISO_FORMATS]).alias("time")
        )
        cells = pl.DataFrame({"text": text})
        more = cells.join(parsed, on="text", how="left", maintain_order="left")["time"]
        times = pl.select(pl.coalesce(times, more)).to_series()
    return times.alias(column.name)


def _parse(text: pl.Series, form: str) -> pl.Series:
    return _in_utc(text.str.to_datetime(form, time_unit="us", strict=False))


def _in_utc(times: pl.Series) -> pl.Series:
    """Times in UTC without a time zone."""
    if isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone:
        return times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return times


def _best_format(sample: pl.Series) -> tuple[str, int]:
    best, most = _ISO_FORMATS[0], 0
    for form in _ISO_FORMATS:
        count = len(sample) - _parse(sample, form).null_count()
        if count > most:
            best, most = form, count
        if most == len(sample):
            break
    return best, most


def _slashed_pair(text: pl.Series) -> pl.Series | None:
    """Days and months with slashes, only if exactly one order fits the entire column."""
    for forms in _SLASHED:
        day_first, month_first = (_parse(text, form) for form in forms)
        fit_both = day_first.null_count() == month_first.null_count() == text.null_count()
        if fit_both and len(text) > text.null_count():
            raise TypeError("could be day/month or month/day; write dates as 2024-01-31")
        better = min(day_first, month_first, key=lambda times: times.null_count())
        if better.null_count() == text.null_count() and better.null_count() < len(text):
            return better
    return None
