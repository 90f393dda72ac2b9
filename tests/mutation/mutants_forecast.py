"""Bugs in how tables of series are read, in what the account says of them, and in how odd series
are kept from spoiling a panel."""

from mutant import Mutant

DATES, STEPS, IDS = ((f"data/series/test_{name}.py",) for name in ("dates", "frequency", "ids"))
PANELS, SMALL = ((f"pipelines/forecast/test_{name}.py",) for name in ("panels", "small_tables"))
USABLE, TOLD = "pipelines/forecast/usable.py", "data/series/told.py"
COLUMNS = "data/series/columns.py"


def _unsaid(name: str, file: str, call: str, tests: tuple[str, ...]) -> Mutant:
    """A note that is taken out of the account."""
    unsaid = call.replace("note(", "(lambda *words, **counts: None)(", 1)
    return Mutant(f"unsaid-{name}", "data", file, call, unsaid, tests)


MUTANTS = [
    Mutant("year-23", "data", "data/series/date_text.py", "year < 69", "year < 0", DATES),
    Mutant(
        "order-of-each-file",
        "pipelines",
        "pipelines/forecast/prediction.py",
        'dates.order if options.date_order == "run" else options.date_order',
        '"auto"',
        PANELS,
    ),
    Mutant(
        "order-of-a-group",
        "data",
        "data/series/files.py",
        "columns = replace(columns, order=read.order, local=read.local)",
        "pass",
        DATES,
    ),
    Mutant(
        "half-days",
        "data",
        "data/series/date_text.py",
        "pl.lit(given_hour) % 12",
        "pl.lit(given_hour)",
        DATES,
    ),
    Mutant("months-are-milliseconds", "data", "data/series/frequency.py",
           '    "MS": Step(0, 1, month_day=1),\n', '    "MS": Step(1000, 0),\n', STEPS),
    Mutant("anchor-unchecked", "data", "data/series/series.py",
           "        check_anchor(where, times, step)\n", "", STEPS),
    Mutant(
        "day-of-the-month-forgotten",
        "pipelines",
        "pipelines/forecast/prediction.py",
        "month_day=series.month_day",
        "month_day=0",
        SMALL,
    ),
    Mutant(
        "late-series-stay",
        "pipelines",
        USABLE,
        "    if late and len(late) < len(parted):",
        "    if False:",
        PANELS,
    ),
    Mutant(
        "late-by-constancy-only",
        "pipelines",
        USABLE,
        "(flat | (far.mean(axis=0) > FAR_SHARE))",
        "flat",
        PANELS,
    ),
    Mutant(
        "no-stretch",
        "pipelines",
        "pipelines/forecast/scoring.py",
        "return torch.where(unusual, ratio.clamp(min=1e-6), 1.0).float()",
        "return stretch",
        PANELS,
    ),
    Mutant(
        "stretch-not-counted",
        "pipelines",
        "pipelines/forecast/scoring.py",
        "wider[series] if stretch else None",
        "None",
        PANELS,
    ),
    Mutant(
        "constants-with-a-width",
        "pipelines",
        "pipelines/forecast/prediction.py",
        "constant if fitted else constant_channels(series.values)",
        "constant",
        PANELS,
    ),
    Mutant(
        "infinite-bounds",
        "pipelines",
        "pipelines/forecast/prediction.py",
        "np.where(np.isfinite(half_width), bound, np.nan)",
        "bound",
        SMALL,
    ),
    Mutant(
        "interval-of-few-blocks",
        "pipelines",
        "pipelines/forecast/scoring.py",
        "enough = self.blocks >= LEAST_BLOCKS",
        "enough = True",
        SMALL,
    ),
    Mutant(
        "options-unread",
        "pipelines",
        "pipelines/forecast/options.py",
        "        _check_read(options)\n",
        "",
        SMALL,
    ),
    _unsaid("date", COLUMNS, """note("columns", f"{shown(columns.date)} is""", IDS),
    _unsaid("ids", COLUMNS, """note("columns", f"{listed} {verb} taken""", IDS),
    _unsaid("unused", COLUMNS, """note("columns", "not used", unused)""", IDS),
    _unsaid("words", "data/series/cells.py", """note("columns", "with words""", IDS),
    _unsaid("items", "data/series/files.py", """note("read", "series to forecast\"""", IDS),
    _unsaid("files", "data/series/files.py", """note("read", "files\"""", IDS),
    _unsaid("rows", TOLD, """note("read", "rows\"""", IDS),
    _unsaid("range", TOLD, """note("read", f"dates from""", IDS),
    _unsaid("steps", TOLD, """note("values", f"missing steps""", IDS),
    _unsaid("fills", TOLD, """note("values", f"missing values""", IDS),
    _unsaid("repeats", TOLD, """note("items", "rows with""", IDS),
    _unsaid("epoch", TOLD, """note("assumed", "a table without""", IDS),
    _unsaid("business", TOLD, """note("assumed", "rows are business""", STEPS),
    _unsaid("zone", TOLD, """note("assumed", "times without""", IDS),
    _unsaid("dates", TOLD, """        note("assumed", text)""", DATES),
    _unsaid("columns", TOLD, """note("read", "columns to""", IDS),
    _unsaid("series", TOLD, """note("read", "series\"""", IDS),
    _unsaid("clock", COLUMNS, """note("columns", f"{shown(columns.clock)}""", DATES),
    _unsaid("short", USABLE, """note("left out", what, short)""", PANELS),
    _unsaid("sizes", USABLE, """note(
        "assumed",
        f"look-back""", SMALL),
    _unsaid("late", USABLE, """note(
            "left out",
            "series that begin""", PANELS),
    _unsaid("constant", USABLE, """note("values", "constant series""", PANELS),
    _unsaid("far", USABLE, """note(
            "values",
            "series that move far""", PANELS),
    _unsaid("scaled", USABLE, """note("assumed", "channels constant in""", PANELS),
    _unsaid("unread", "pipelines/forecast/data.py", """note("assumed", f"options that""", SMALL),
]  # fmt: skip
