"""Bugs in how people's tables are read: units, decimal marks, codes for missing values, dates that
are spread over columns, and rows that are no data."""

from mutant import Mutant

UNITS, CODES = ((f"data/formats/test_tables_{name}.py",) for name in ("units", "codes"))
FORM, PARTS, ROWS = (
    (f"data/series/test_{name}.py",) for name in ("number_form", "date_parts", "rows")
)
MARKS, READING = ("data/clicks/test_number_marks.py",), ("pipelines/forecast/test_reading.py",)
LISTS = ("pipelines/ranking/test_verbs.py", "-k", "never_replace")
_UNITS, _NUMBERS = "data/formats/tables_units.py", "data/formats/tables_numbers.py"
_CODES, _FORM = "data/formats/tables_codes.py", "data/series/number_form.py"
_COLUMNS = "data/series/columns.py"

_UNSAID = (
    ("percent", _UNITS, 'note("assumed", "columns in percent', UNITS),
    ("unit", _UNITS, 'note("assumed", f"columns in', UNITS),
    ("brackets", _UNITS, 'note("assumed", "columns whose numbers in brackets', UNITS),
    ("minus-behind", _UNITS, 'note("assumed", "columns whose numbers with a minus', UNITS),
    ("marks-of-missing", _NUMBERS, 'note("values", f"cells of {column.name}', UNITS),
    ("odd-numbers", _CODES, 'note("values", what, [f"{column}', CODES),
    ("open-mark", _FORM, 'note("assumed", "columns whose 1.234', FORM),
    ("named-missing", _FORM, 'note("values", f"cells of {name} that --missing', FORM),
    ("spread-date", "data/series/date_parts.py", 'note("columns", f"{\', \'.join', PARTS),
    ("iso-weeks", "data/series/date_parts.py", 'note("assumed", "weeks are', PARTS),
    ("rows-left-out", "data/series/rows.py", 'note("left out", what', ROWS),
    ("counters", _COLUMNS, 'note("columns", "that only count', ROWS),
    ("field-missing", "data/clicks/cells.py", 'note("values", f"fields with numbers', MARKS),
)

MUTANTS = [
    *(
        Mutant(
            f"unsaid-{name}",
            "data",
            file,
            call,
            call.replace("note(", "(lambda *words, **counts: None)(", 1),
            tests,
        )
        for name, file, call, tests in _UNSAID
    ),
    Mutant("unit-of-a-cell", "data", _UNITS, "(units != unit)", "(units == None)", UNITS),
    Mutant("brackets-are-nothing", "data", _UNITS, "(*minus, brackets)", "(*minus,)", UNITS),
    Mutant(
        "thousands-anywhere",
        "data",
        _NUMBERS,
        'and (semicolons or of["money"])',
        "",
        UNITS,
    ),
    Mutant("codes-anywhere", "data", _CODES, "count > 1 and far", "count > 1", CODES),
    Mutant("codes-once", "data", _CODES, "(count > 1 and far)", "far", CODES),
    Mutant(
        "mark-of-the-run-first",
        "data",
        _FORM,
        "{**form.commas, **file.commas}",
        "{**file.commas, **form.commas}",
        FORM,
    ),
    Mutant(
        "mark-forgotten",
        "pipelines",
        "pipelines/forecast/data.py",
        'reading.get("decimal_comma", {})',
        "{}",
        READING,
    ),
    Mutant(
        "missing-forgotten",
        "pipelines",
        "pipelines/forecast/data.py",
        '(*reading.get("missing", ()), *missing)',
        "tuple(missing)",
        READING,
    ),
    Mutant("series-unchecked", "data", "data/series/files.py",
           "            check_codes(place, [*columns.targets, *columns.known], values, form)\n", "",
           FORM),
    Mutant("hour-of-no-day", "data", _COLUMNS, "count > 1 and covered", "count > 1", PARTS),
    Mutant("turned-tables", "data", _COLUMNS, "        refuse_turned(where, names, date)\n",
           "        pass\n", PARTS),
    Mutant("totals-anywhere", "data", "data/series/rows.py", "            break\n        mask",
           "            continue\n        mask", ROWS),
    Mutant(
        "lists-over-their-users",
        "pipelines",
        "pipelines/ranking/verbs/top.py",
        "    refuse_input_as_output(output, (*tables, *log))\n",
        "",
        LISTS,
    ),
]  # fmt: skip
