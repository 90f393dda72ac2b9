"""Tables in files, opened by polars within limits: text (plain or packed), parquet, Arrow, lines of
JSON and spreadsheets.

Text files are read as text. Whoever uses a column decides its type (`numbers`,
`series.dates.read_times`), so that a bad cell can be named and does not spoil the entire file.
"""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from ...base.account import note
from ...base.errors import InputError, fail, nearest, reason, shown
from ...base.files import pattern_home, refuse_link_out, similar_file, walk_folder
from ...base.own_files import RESULTS, OwnFiles
from .encodings import note_encoding
from .tables_books import BOOK_SUFFIXES, read_book
from .tables_columns import distinct_columns, refuse_blanks_between, with_names, without_blank_end
from .tables_numbers import MISSING_WORDS as MISSING_WORDS
from .tables_numbers import decimal_commas as decimal_commas
from .tables_numbers import number_column as number_column
from .tables_numbers import numbers as numbers
from .tables_packed import PACKED_SUFFIXES, packing_of, packing_problem, unpacked_zip, zip_member
from .tables_packed import UNPACKED_CAP as UNPACKED_CAP
from .tables_text import COLUMN_CAP, TextForm, TextSource, all_bytes, ends_blank, open_text, sniff
from .tables_typed import ARROW_SUFFIXES as ARROW_SUFFIXES
from .tables_typed import DAMAGE, JSON_SUFFIXES, json_problem, scan_typed

TEXT_SEPARATORS = {
    ".csv": ",",
    ".txt": ",",
    ".dat": ",",
    ".data": ",",
    ".tsv": "\t",
    ".tab": "\t",
    ".inter": "\t",
    ".user": "\t",
    ".item": "\t",
}
"""What usually stands between cells, by ending; what really does is seen in the file."""
_TEXTS = (".csv", ".tsv", ".txt", ".dat", ".data", ".tab", *JSON_SUFFIXES)
TABLE_SUFFIXES = (
    *(text + packed for text in _TEXTS for packed in ("", *PACKED_SUFFIXES)),
    ".parquet",
    *ARROW_SUFFIXES,
    *BOOK_SUFFIXES,
    ".zip",
)
_HEAD = 64 << 10  # bytes that tell what a file is


def require_columns(where: object, required: Iterable[str], columns: Sequence[str]) -> None:
    """Raise InputError for the first required name that `columns` lack, with the nearest one."""
    present = set(columns)
    for name in required:
        if name not in present:
            raise fail(where, f"there is no column {shown(name)}{nearest(name, columns)}")


def suffix_of(path: Path) -> str:
    """The lower-case ending that names the format: ".csv.gz" for "a.CSV.gz"."""
    suffixes = [s.lower() for s in path.suffixes[-2:]]
    if suffixes[-1:] == [".gz"]:
        return "".join(suffixes)
    both = "".join(suffixes)
    return both if both in TABLE_SUFFIXES else (suffixes[-1] if suffixes else "")


def stem_of(path: str | Path) -> str:
    """The name of a file without its folder and endings: "ETTh1" for "x/ETTh1.csv.gz"."""
    name = Path(path).name
    ending = suffix_of(Path(path))
    return name[: -len(ending)] if ending and name.lower().endswith(ending) else name


def check_file(path: str | Path, allowed: Sequence[str] = TABLE_SUFFIXES) -> Path:
    """The path of a file that exists, can be read, is not empty and has an allowed format.

    allowed: endings as `suffix_of` gives them. Raises InputError for anything else.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise fail(path, "is a folder; give a file")
        if not file.exists():
            if file.is_symlink():
                raise fail(path, "is a link to nothing; mend or remove it")
            raise fail(path, f"there is no such file{similar_file(file)}")
        if not file.is_file():
            raise fail(path, "is not a plain file")
        if suffix_of(file) not in allowed:
            raise fail(
                path,
                f"unknown kind of file {suffix_of(file)!r}; headwise reads {endings_of(allowed)}",
            )
        with file.open("rb") as opened:
            head = opened.read(_HEAD)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise fail(
            path, f"cannot be read ({reason(error)}); check the name and the permissions"
        ) from error
    if not head:
        raise fail(path, "is empty (0 bytes)")
    _check_magic(path, file, head)
    return file


def list_files(path: str | Path, suffixes: Sequence[str]) -> list[str]:
    """The files of these kinds that a path, a folder (without those below it) or a pattern names,
    sorted.

    Raises InputError if there is none, and for links that lead out of their folder.
    """
    source = Path(path)
    if source.is_dir():
        # Whatever lies in a folder may be packed as .zip: such a file is read when it is named.
        endings = [suffix for suffix in suffixes if suffix != ".zip"]
        files = [source / name for name in walk_folder(source, endings, deep=False)]
    elif not source.exists() and glob.has_magic(str(path)):
        files = sorted(map(Path, glob.glob(str(path))))
        files = [file for file in files if suffix_of(file) in suffixes and not file.is_dir()]
        result_files = OwnFiles(pattern_home(str(path)))
        if results := [file for file in files if result_files.holds(file)]:
            note("left out", RESULTS, results)
            files = [file for file in files if file not in results]
        for file in files:
            if file.is_symlink():
                refuse_link_out(file, os.path.realpath(file.parent))
    else:
        check_file(path, suffixes)
        return [str(path)]
    if not files:
        raise fail(
            path, f"there is no file of a kind that headwise reads here ({endings_of(suffixes)})"
        )
    return [str(file) for file in files]


def endings_of(suffixes: Sequence[str]) -> str:
    """Endings for a message; the packed forms of all are named once."""
    packed = [mark for mark in PACKED_SUFFIXES if any(s.endswith(mark) for s in suffixes)]
    plain = [s for s in suffixes if not s.endswith(PACKED_SUFFIXES)]
    return ", ".join(plain) + (f" (text also as {', '.join(packed)})" if packed else "")


def _check_magic(path: object, file: Path, head: bytes) -> None:
    """Refuse a file whose first bytes are not those of the format that its name says."""
    suffix = suffix_of(file)
    packing = packing_of(head)
    if suffix == ".parquet":
        if head[:4] != b"PAR1":
            cure = "give it the right ending or write it again"
            raise fail(path, f"is not parquet although its name says so; {cure}")
    elif suffix == ".npz":
        if packing != "zip":
            cure = "write it again with numpy.savez"
            raise fail(path, f"is not an .npz archive although its name says so; {cure}")
    elif suffix in BOOK_SUFFIXES:
        if head[:4] == b"\xd0\xcf\x11\xe0":
            cure = "save it as .xlsx without a password"
            raise fail(path, f"is an old or protected spreadsheet; {cure}")
        if packing != "zip":
            raise fail(path, f"is no spreadsheet although its name says {suffix}; save it again")
    elif suffix in ARROW_SUFFIXES:
        if head[:6] != b"ARROW1" and head[:4] != b"\xff" * 4:
            cure = "write it again with write_ipc, or as parquet"
            raise fail(path, f"is not an Arrow file although its name says {suffix}; {cure}")
    elif packing in ("gzip", "zstd"):
        if problem := packing_problem(file, packing):
            raise fail(path, problem)
    elif suffix.endswith((".gz", ".zst")):
        kind = "gzip" if suffix.endswith(".gz") else "zst"
        cure = "rename it or pack it again"
        raise fail(
            path, f"is not {kind} although its name ends with {suffix[-4:].strip('n')}; {cure}"
        )
    elif packing == "zip":
        _check_zip(path, file)
    elif suffix.endswith(".zip"):
        raise fail(path, "is not a zip archive although its name says so; pack it again")
    elif head[:4] == b"PAR1":
        raise fail(path, "is parquet; rename it to .parquet")
    elif head[:6] == b"ARROW1":
        raise fail(path, "is an Arrow file; rename it to .arrow")
    elif _is_binary(suffix, head):
        raise fail(path, "is binary, not text; save it as csv or parquet")


def _is_binary(suffix: str, head: bytes) -> bool:
    """Whether a text has a zero byte at its very beginning; tables may be UTF-16, which is told
    later.
    """
    table = suffix in TABLE_SUFFIXES or suffix in TEXT_SEPARATORS
    marked = head[:2] in (b"\xff\xfe", b"\xfe\xff")
    if table:
        return b"\0" in head[:4] and not marked and head[:4].count(0) != 2
    return b"\0" in head[:4] or marked


def _check_zip(path: object, file: Path) -> None:
    """Refuse an archive that is no table: a spreadsheet with a wrong name, or several files."""
    try:
        zip_member(path, file)
    except InputError as error:
        for mark, kind in (("xl/", ".xlsx"), ("mimetype", ".ods")):
            if mark in str(error):
                raise fail(path, f"is a spreadsheet; rename it to {kind}") from None
        raise


def scan_table(
    path: str | Path, allowed: Sequence[str] = TABLE_SUFFIXES, *, header: bool | None = None
) -> tuple[pl.LazyFrame, list[str]]:
    """A lazy table and its column names; none of its rows are read yet, unless the file had to be
    converted (spreadsheets, zip, text that is not UTF-8 or has `::` between cells).

    Cells of text files stay text; what stands between them is seen in the first lines. A text file
    whose first line is values has no header (Solar, Exchange): its columns are then named "0",
    "1", ... Blank rows at the end and columns without a name are treated as `tables_columns` says.
    What is assumed or left out goes into the account. header: whether the first line of a text file
    holds names, None where that is to be seen from it.

    Errors of polars appear when the table is collected: use `collect`. Raises InputError for a file
    that is missing, empty, damaged, too large, too wide or of an unknown kind.
    """
    file = check_file(path, allowed)
    source = _openable(path, file)
    ending = _plain_ending(path, file)
    if ending in TEXT_SEPARATORS:
        return _scan_text(path, file, ending, header)
    if suffix_of(file).endswith(".zip"):
        source = unpacked_zip(path, file)
    if ending in BOOK_SUFFIXES:
        table, names = read_book(path, source)
        frame = table.lazy()
        columns = table.columns
        frame = without_blank_end(path, frame, columns, collect) if table.height else frame
    else:
        frame, names = scan_typed(path, source, ending)
        columns = names
    if len(columns) > COLUMN_CAP:
        raise fail(path, f"has more than {COLUMN_CAP:,} columns; is it transposed?")
    return with_names(path, frame, columns, names, collect)


def has_semicolons(path: object) -> bool:
    """Whether `;` stands between the cells of a table of text that `scan_table` reads."""
    file = Path(str(path))
    ending = _plain_ending(path, file)
    if ending not in TEXT_SEPARATORS:
        return False
    return sniff(path, open_text(path, file).head, TEXT_SEPARATORS[ending]).separator == ";"


def _plain_ending(path: object, file: Path) -> str:
    """The ending of a table without those of packing, of what is in it for a zip."""
    ending = suffix_of(file)
    if ending.endswith(".zip"):
        inner = suffix_of(Path(zip_member(path, file)))
        ending = inner if inner in TABLE_SUFFIXES and inner != ".zip" else ending[:-4]
        if ending not in TABLE_SUFFIXES:
            raise fail(path, f"holds an unknown kind of file {inner!r}; unpack it")
    return ending.removesuffix(".gz").removesuffix(".zst")


def _openable(path: object, file: Path) -> Path | bytes:
    """The file, or its bytes where its name is not UTF-8, which polars does not open."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        if file.stat().st_size > UNPACKED_CAP:
            raise fail(path, "has a name that is not UTF-8; rename it") from None
        return file.read_bytes()
    return file


def _scan_text(
    path: object, file: Path, ending: str, header: bool | None
) -> tuple[pl.LazyFrame, list[str]]:
    """A text table: as its first lines say that it is written."""
    text = open_text(path, file)
    form = sniff(path, text.head, TEXT_SEPARATORS[ending], header)
    refuse_blanks_between(path, form.names, text.head)
    source, separator, quote = text.source, form.separator, '"'
    if isinstance(source, Path):
        source = _openable(path, source)
    if separator == "::":  # polars takes one byte: a control character stands in for the two
        content = source if isinstance(source, bytes) else all_bytes(path, source)
        source, separator, quote = content.replace(b"::", b"\x1f"), "\x1f", None
    elif len(separator.encode()) > 1:
        raise fail(path, f"has {separator!r} between its cells; use one of , ; | or a tab")
    _note_form(path, text, form, TEXT_SEPARATORS[ending])
    columns = distinct_columns(path, form.names)
    whole = form.body_at is None
    frame = pl.scan_csv(
        source,
        separator=separator,
        quote_char=quote,
        has_header=form.header and whole,
        skip_lines=form.skipped if whole else form.body_at or 0,
        new_columns=columns if whole else None,
        schema=None if whole else dict.fromkeys(columns, pl.String()),
        infer_schema=False,
        low_memory=True,
        eol_char=form.line_end,
        glob=False,
    )
    if text.end is None or ends_blank(text.end, form.separator):
        frame = without_blank_end(path, frame, columns, collect)
    return with_names(path, frame, columns, form.names, collect)


def _note_form(path: object, text: TextSource, form: TextForm, usual: str) -> None:
    """Note what was seen in a text and is not usual for its ending."""
    if form.separator != usual:
        spelling = {"\t": "tabs"}.get(form.separator, form.separator)
        note("assumed", f"files with {spelling} between cells", [path])
    note_encoding(path, text.encoding)
    if form.comments:
        lines = [f"{path}: {form.comments} lines"]
        note("left out", "comments (#) at the beginning of tables", lines)
    if not form.header:
        note("assumed", "files without names of columns, called 0, 1, ...", [path])


def collect(path: object, frame: pl.LazyFrame) -> pl.DataFrame:
    """Read a lazy table. Raises InputError for rows with too many cells, bad encoding and other
    damage.
    """
    try:
        return frame.collect(engine="streaming")
    except DAMAGE as error:
        raise unreadable(path, error) from error


def unreadable(path: object, error: BaseException) -> InputError:
    """An error of polars while it read a table, as a line that says what to do."""
    problem = reason(error)
    if "more fields than defined" in problem:
        return fail(
            path,
            "a row has more cells than the header has names; quote cells that hold the separator, "
            "and leave no title above the names",
        )
    if "CSV malformed" in problem or 'could not parse `"' in problem:
        cure = 'write quotes in a cell as "", and the cell in quotes'
        return fail(path, f"a quote is opened or closed within a cell; {cure}")
    if "utf-8" in problem.lower():
        return fail(path, "it is not UTF-8 text; save it as UTF-8")
    if suffix_of(Path(str(path))).startswith(JSON_SUFFIXES):
        problem = json_problem(Path(str(path))) or problem
    return fail(path, f"it cannot be read ({problem})")
