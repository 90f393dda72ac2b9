"""Bugs in how new data meets a run: its clock, its names, what the run has seen of it."""

from mutant import Mutant

CLICKS = "data/clicks/test_account.py"
KNOWN = "contract/test_known_items.py"
SERIES = "data/series"

MUTANTS = [
    Mutant(
        "clock-of-other-years",
        "data",
        "data/clicks/times.py",
        "if first - room <= timed.max() and timed.min() <= last + LATER * room:",
        "if timed.min() <= last + LATER * room:",
        (CLICKS, "-k", "another_clock"),
    ),
    Mutant(
        "clock-of-another-unit",
        "data",
        "data/clicks/times.py",
        "    if (needed and wrong.any()) or another_unit:",
        "    if needed and wrong.any():",
        (CLICKS, "-k", "another_clock"),
    ),
    Mutant(
        "cells-newly-empty",
        "data",
        "data/clicks/account.py",
        "        counts[what] = int(empty[name].sum())\n",
        "        counts[what] = 0\n",
        (CLICKS, "-k", "new_rows"),
    ),
    Mutant(
        "counts-as-fields",
        "data",
        "data/clicks/column_guess.py",
        'return self.bare in OUTCOMES or self.bare.removesuffix("s") in OUTCOMES',
        "return self.bare in OUTCOMES",
        ("pipelines/ranking/test_verbs.py", "-k", "outcome_is"),
    ),
    Mutant(
        "certain-of-few",
        "pipelines",
        "pipelines/metrics/operating.py",
        "    doubt = 1 / (count + 2)\n",
        "    doubt = 0.0\n",
        ("pipelines/metrics/test_operating.py", "-k", "all_right"),
    ),
    Mutant(
        "blanks-of-series",
        "data",
        "data/series/ids.py",
        'return cell.cast(pl.String).str.strip_chars().fill_null("")',
        'return cell.cast(pl.String).fill_null("")',
        (f"{SERIES}/test_ids.py", "-k", "blanks"),
    ),
    Mutant(
        "days-of-one-summer",
        "data",
        "data/series/dates.py",
        "midnights = zoned and bool((clock == time()).all())",
        "midnights = False",
        (f"{SERIES}/test_dates.py", "-k", "midnights"),
    ),
    Mutant(
        "backtest-beside-the-worse",
        "pipelines",
        "pipelines/forecast/verbs/backtest.py",
        "best_naive = min(naive_means,",
        "best_naive = max(naive_means,",
        ("pipelines/forecast/test_forecast.py", "-k", "backtest"),
    ),
    Mutant(
        "texts-that-are-not-known",
        "pipelines",
        "pipelines/text/data.py",
        "assets = {**coder.assets(), PARTS_OF_TEXTS: keys.write_parquet}",
        "assets = coder.assets()",
        (KNOWN, "-k", "text"),
    ),
    Mutant(
        "windows-that-are-not-known",
        "pipelines",
        "pipelines/forecast/data.py",
        "ends = np.arange(count) * self.stride + self.lookback + self.horizon",
        "ends = np.arange(count) * self.stride",
        (KNOWN, "-k", "forecast"),
    ),
    Mutant(
        "evaluation-of-what-was-learned",
        "engine",
        "pipelines/engine/training/jobs.py",
        'for name in ("train", "validation"):\n        if count := int((parts',
        'for name in ("validation",):\n        if count := int((parts',
        (KNOWN, "-k", "ranking"),
    ),
    Mutant(
        "sheet-that-is-hidden",
        "data",
        "data/formats/tables_books.py",
        'if row.visible == "visible")',
        'if row.visible != "visible")',
        ("data/formats/test_tables_kinds.py", "-k", "first_that_is_shown"),
    ),
    Mutant(
        "bits-lost-beside-transparency",
        "data",
        "data/formats/grey_range.py",
        "        _refuse_lost_bits(path, opened)\n",
        "",
        ("data/formats/test_pictures.py", "-k", "lost_beside_transparency"),
    ),
    Mutant(
        "matplotlib-in-every-prediction",
        "pipelines",
        "pipelines/figures/style.py",
        "from cycler import cycler\n",
        "from cycler import cycler\nfrom matplotlib.figure import Figure\n",
        ("pipelines/engine/test_imports.py",),
    ),
]
