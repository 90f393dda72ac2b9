"""Tables as people have them: whatever is between the cells, around the table, or around the file,
the same rows are read, and what was assumed is in the account.
"""

import gzip
import io
import zipfile
import zlib
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.formats import tables, tables_packed, tables_text, tables_typed
from headwise.data.formats.tables import collect, list_files, number_column, scan_table
from headwise.data.series.series import read_panel

ROWS = [("x", "1", "2.5"), ("Köln", "3", "4.5")]
TEXT = "name,a,b\nx,1,2.5\nKöln,3,4.5\n"


def read(path: Path, content: bytes | str | None = None) -> tuple[list[str], list[tuple], str]:
    """Names, rows and the account of a table."""
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with opened() as account:
        frame, names = scan_table(path)
        table = collect(path, frame)
    assert table.columns == names
    return names, table.rows(), " | ".join(account.lines())


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_dot_", "."), content)
    return buffer.getvalue()


@pytest.mark.parametrize("ending", ["csv", "tsv", "txt", "dat", "data", "csv.gz", "csv.zip"])
@pytest.mark.parametrize("mark", [",", ";", "\t", "|", "::"])
def test_what_stands_between_cells_is_seen_in_the_file(
    mark: str, ending: str, tmp_path: Path
) -> None:
    text = TEXT.replace(",", mark).encode()
    packed = {"gz": gzip.compress(text), "zip": zipped(t_dot_csv=text)}.get(ending[4:], text)
    names, rows, account = read(tmp_path / f"t.{ending}", packed)
    assert (names, rows) == (["name", "a", "b"], ROWS)
    usual = "\t" if ending == "tsv" else ","
    assert ("between cells" in account) == (mark != usual)


@pytest.mark.parametrize(
    ("text", "names", "first"),
    [
        ('Name;"Wert, netto";x\na;1,5;2,5\nb;2,5;1,5\n', ["Name", "Wert, netto", "x"], "a"),
        ("Name;Wert, netto;Zeit, UTC\nx;1,5;2,5\n", ["Name", "Wert, netto", "Zeit, UTC"], "x"),
        ('a,b\n"1;2",3\n"4;5",6\n', ["a", "b"], "1;2"),
        ("a,b\n1;2,3\n", ["a", "b"], "1;2"),
        ("slide\ns1\ns2\n", ["slide"], "s1"),
        ('"a\nb",c\n1,2\n', ["a b", "c"], "1"),
        ("x^2,y\n1,2\n", ["x^2", "y"], "1"),
    ],
)
def test_quotes_and_other_marks_in_cells_do_not_mislead(
    text: str, names: list[str], first: str, tmp_path: Path
) -> None:
    read_names, rows, _ = read(tmp_path / "t.csv", text)
    assert read_names == names
    assert rows[0][0] == first


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("cp1252", "cp1252"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_the_encoding_is_recognised_and_said(
    encoding: str, words: str, packed: bool, tmp_path: Path
) -> None:
    content = TEXT.encode(encoding)
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    names, rows, account = read(path, gzip.compress(content) if packed else content)
    assert (names, rows) == (["name", "a", "b"], ROWS)
    assert words in account
    assert bool(words) == ("not UTF-8" in account)


def test_a_byte_deep_in_the_file_decides_the_encoding(tmp_path: Path) -> None:
    lines = b"name,a\n" + b"x,1\n" * 600_000 + "Köln,2\n".encode("cp1252")
    assert read(tmp_path / "t.csv", lines)[1][-1] == ("Köln", "2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sep=;\r\nname;a;b\r\nx;1;2.5\r\nKöln;3;4.5\r\n", "; between"),
        ("\ufeffsep=|\nname|a|b\nx|1|2.5\nKöln|3|4.5\n", "| between"),
        ("# from: a, b\n# 3, 4\nname,a,b\nx,1,2.5\nKöln,3,4.5\n", "comments (#)"),
        ("\n\nname,a,b\nx,1,2.5\nKöln,3,4.5\n", ""),
        ("name,a,b\rx,1,2.5\rKöln,3,4.5\r", ""),
        ("name,a,b\nx,1,2.5\nKöln,3,4.5\n\n\n", "blank ends of tables (t.csv: 2 rows)"),
        ("name,a,b\r\nx,1,2.5\r\nKöln,3,4.5\r\n,,\r\n,,", "blank ends of tables (t.csv: 2 rows)"),
        ("name,a,b\nx,1,2.5\nKöln,3,4.5\n  \n", "blank ends"),
        ("name,a,b,\nx,1,2.5,\nKöln,3,4.5,\n", "without values and name (t.csv: column 4)"),
        ("name,a,b\nx,1,2.5,\nKöln,3,4.5,\n", "without values and name (t.csv: column 4)"),
        (",name,a,b\n0,x,1,2.5\n1,Köln,3,4.5\n", "an index) (t.csv: column 1)"),
        ("Unnamed: 0,name,a,b\n0,x,1,2.5\n1,Köln,3,4.5\n", "an index) (t.csv: column 1)"),
        ('"name","a","b"\n"1","x",1,2.5\n"2","Köln",3,4.5\n', "an index) (t.csv: column 1)"),
    ],
)
def test_what_programs_write_around_a_table_is_left_out_and_said(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names, rows, account = read(Path("t.csv"), text)
    assert (names, rows) == (["name", "a", "b"], ROWS)
    assert words in account
    assert words or not account


def test_missing_values_at_the_end_or_in_quotes_are_no_blank_rows(tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", "a,b\n1,2\n3,\n")[1][-1] == ("3", None)
    assert read(tmp_path / "t.csv", 'a,b\n1,"x\n\n"\n')[1] == [("1", "x\n\n")]
    assert read(tmp_path / "t.csv", "a\n1\n\n2\n\n")[1] == [("1",), (None,), ("2",)]


def test_columns_without_a_name_are_called_by_their_place(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    assert read(path, ",a\n2024-01-01,1\n2024-01-02,2\n")[0] == ["index", "a"]
    assert read(path, "date,,b\n5,7,1\n6,9,2\n")[0] == ["date", "column 2", "b"]
    with pytest.raises(InputError, match="column 3 of 3 has no name, but 1 value"):
        scan_table(_written(path, "a,b,\n1,2,\n3,4,\n5,6,7\n"))
    with pytest.raises(InputError, match="columns 'a', 'b' appear more than once"):
        scan_table(_written(path, "a,b,a,b\n1,2,3,4\n"))


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_first_line_of_values_is_a_row(tmp_path: Path) -> None:
    ratings = "196\t242\t3\t881250949\n186\t302\t3\t891717742\n22\t377\t1\t878887116\n"
    names, rows, account = read(tmp_path / "u.data", ratings)
    assert (names, len(rows)) == (["0", "1", "2", "3"], 3)
    assert "without names of columns" in account
    assert len(read(tmp_path / "ml.dat", ratings.replace("\t", "::"))[1]) == 3
    assert len(read(tmp_path / "d.csv", "0,5;1,5\n0,25;2,5\n")[1]) == 2
    assert read(tmp_path / "c.csv", "0,1,2\n5,6,7\n")[0] == ["0", "1", "2"]
    assert read(tmp_path / "s.csv", "773869,767541\n64.5,61.0\n")[0] == ["773869", "767541"]


def test_typed_files_keep_their_types_and_names_are_never_patterns(tmp_path: Path) -> None:
    table = pl.DataFrame({"a": [1, 2], "b": ["x", None], "t": [datetime(2024, 1, 1, 5), None]})
    for name in ("t[1].parquet", "t[1].feather", "t[1].arrow", "stream.arrow", "z[1].jsonl"):
        path = tmp_path / name
        write = {
            "t[1].parquet": table.write_parquet,
            "stream.arrow": table.write_ipc_stream,
            "z[1].jsonl": table.select("a", "b").write_ndjson,
        }.get(name, table.write_ipc)
        write(path)
        frame, names = scan_table(path)
        assert collect(path, frame).equals(table.select(names))
        assert len(names) >= 2
    lines = gzip.compress(b'{"a":1}\n{"a":2.5}\n\n')
    assert read(tmp_path / "t.jsonl.gz", lines)[1] == [(1.0,), (2.5,)]
    (tmp_path / "d1.csv").write_text("a\n9\n")
    for name in ("d[1].csv", "d*.csv", "d?.csv"):
        assert read(tmp_path / name, "a\n1\n")[1] == [("1",)]
        assert list_files(tmp_path / name, (".csv",)) == [str(tmp_path / name)]


def test_the_index_of_pandas_in_parquet_is_a_column_where_it_is_no_count(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    days = pandas.date_range("2024-01-01", periods=3)
    pandas.DataFrame({"a": [1, 2, 3]}, index=days).to_parquet(tmp_path / "d.parquet")
    assert read(tmp_path / "d.parquet")[0] == ["index", "a"]
    assert read_panel(tmp_path / "d.parquet").series[0].times[2] == np.datetime64("2024-01-03")
    pandas.DataFrame({"a": [1, 2]}, index=[0, 1]).to_parquet(tmp_path / "c.parquet")
    assert read(tmp_path / "c.parquet")[0] == ["a"]


def book(path: Path, *, sheets: int = 1, last: tuple[int, int] | None = None) -> Path:
    """A spreadsheet of 48 hours, with dates, numbers, ids, a text and an index without a name."""
    xlsxwriter = pytest.importorskip("xlsxwriter")
    with xlsxwriter.Workbook(path) as made:
        sheet = made.add_worksheet("Data")
        for number in range(1, sheets):
            made.add_worksheet(f"Notes {number}")
        clock = made.add_format({"num_format": "yyyy-mm-dd hh:mm"})
        sheet.write_row(0, 1, ["date", "value", "id"])
        for row in range(1, 49):
            hour = datetime(2024, 1, 1) + timedelta(hours=row)
            sheet.write(row, 0, row - 1)
            sheet.write_datetime(row, 1, hour, clock)
            sheet.write_row(row, 2, [row / 8, 1000 + row])
        if last:
            sheet.write(*last, 1)
    return path


def test_a_spreadsheet_gives_dates_numbers_and_whole_ids_of_its_first_sheet(tmp_path: Path) -> None:
    pytest.importorskip("fastexcel")
    names, rows, account = read(book(tmp_path / "t.xlsx", sheets=3))
    assert names == ["date", "value", "id"]
    assert rows[12] == (datetime(2024, 1, 1, 13), 13 / 8, 1013)
    assert "2 sheets (only the first that is shown is read)" in account
    assert "an index" in account
    assert "Notes 2" in account


def test_a_text_far_below_numbers_in_a_sheet_is_not_lost(tmp_path: Path) -> None:
    xlsxwriter = pytest.importorskip("xlsxwriter")
    with xlsxwriter.Workbook(tmp_path / "t.xlsx") as made:
        made.add_worksheet().write_column(0, 0, ["a", *range(2000), "oops"])
    frame, _ = scan_table(tmp_path / "t.xlsx")
    values, bad = number_column("t", collect("t", frame)["a"])
    assert bad[-1]
    assert not bad[:-1].any()
    assert values[1999] == 1999


@pytest.mark.parametrize("hide", ["hide", "very_hidden"])
def test_the_sheet_that_is_read_is_the_first_that_is_shown(tmp_path: Path, hide: str) -> None:
    """A hidden first sheet, such as of old figures, is not what people see when they open it."""
    pytest.importorskip("fastexcel")
    xlsxwriter = pytest.importorskip("xlsxwriter")
    with xlsxwriter.Workbook(tmp_path / "t.xlsx") as workbook:
        for name, value in (("Old", 1), ("Data", 2), ("Notes", 3)):
            sheet = workbook.add_worksheet(name)
            sheet.write_column(0, 0, ["a", value])
            if name == "Old":
                getattr(sheet, hide)()
            if name == "Data":
                sheet.activate()
                sheet.set_first_sheet()
    names, rows, account = read(tmp_path / "t.xlsx")
    assert (names, rows) == (["a"], [(2,)])
    assert "2 sheets (only the first that is shown is read)" in account
    assert "Old (hidden)" in account


def test_a_sheet_of_libreoffice_is_read(tmp_path: Path) -> None:
    pytest.importorskip("fastexcel")
    cells = "".join(
        "<table:table-row>"
        + "".join(f'<table:table-cell office:value-type="{k}">{c}</table:table-cell>' for k, c in r)
        + "</table:table-row>"
        for r in (
            [("string", "<text:p>a</text:p>"), ("string", "<text:p>b</text:p>")],
            [('float" office:value="1.5', ""), ("string", "<text:p>x</text:p>")],
        )
    )
    space = "urn:oasis:names:tc:opendocument:xmlns"
    content = (
        f'<office:document-content xmlns:office="{space}:office:1.0" xmlns:table="{space}:table:1.0'
        f'" xmlns:text="{space}:text:1.0"><office:body><office:spreadsheet><table:table '
        f'table:name="S">{cells}</table:table></office:spreadsheet></office:body>'
        "</office:document-content>"
    )
    kind = b"application/vnd.oasis.opendocument.spreadsheet"
    manifest = (
        f'<manifest:manifest xmlns:manifest="{space}:manifest:1.0"><manifest:file-entry '
        f'manifest:full-path="/" manifest:media-type="{kind.decode()}"/></manifest:manifest>'
    )
    with zipfile.ZipFile(tmp_path / "t.ods", "w") as archive:
        archive.writestr("mimetype", kind)
        archive.writestr("content.xml", content)
        archive.writestr("META-INF/manifest.xml", manifest)
    assert read(tmp_path / "t.ods")[1] == [(1.5, "x")]


def test_one_series_gives_the_same_numbers_out_of_every_program(tmp_path: Path) -> None:
    """UTF-8 CSV, German and American CSV of Excel, tabs in UTF-16, and a spreadsheet."""
    pytest.importorskip("fastexcel")
    xlsxwriter = pytest.importorskip("xlsxwriter")
    values = [(-1) ** k * round(k**3 * 1234.56789 / 7, 4) for k in range(60)]
    hours = [datetime(2024, 3, 1) + timedelta(hours=k) for k in range(60)]
    german = [f"{v:,.4f}".translate(str.maketrans(",.", ".,")) for v in values]
    plain = "".join(f"{h},{v!r}\n" for h, v in zip(hours, values))
    files: dict[str, bytes] = {
        "plain.csv": f"date,Größe\n{plain}".encode(),
        "us.csv": (
            "date,Größe\n" + "".join(f'{h},"{v:,.4f}"\r\n' for h, v in zip(hours, values))
        ).encode("utf-8-sig"),
        "de.csv": (
            "date;Größe\r\n" + "".join(f"{h};{v}\r\n" for h, v in zip(hours, german))
        ).encode("cp1252"),
        "unicode.txt": f"date\tGröße\n{plain.replace(',', chr(9))}".encode("utf-16"),
        "semi.csv.gz": gzip.compress(f"sep=;\ndate;Größe\n{plain.replace(',', ';')}".encode()),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with xlsxwriter.Workbook(tmp_path / "t.xlsx") as made:
        sheet, clock = made.add_worksheet(), made.add_format({"num_format": "dd.mm.yyyy hh:mm"})
        sheet.write_row(0, 0, ["date", "Größe"])
        for row, (hour, value) in enumerate(zip(hours, values), 1):
            sheet.write_datetime(row, 0, hour, clock)
            sheet.write(row, 1, value)
    for name in [*files, "t.xlsx"]:
        frame, names = scan_table(tmp_path / name)
        assert names == ["date", "Größe"]
        numbers, bad = number_column(name, collect(name, frame)["Größe"])
        assert not bad.any()
        assert numbers.tolist() == values, name
        panel = read_panel(tmp_path / name)
        assert panel.series[0].values[:, 0].tolist() == values
        assert panel.series[0].times[-1] == np.datetime64("2024-03-03T11:00")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "t.zip",
            zipped(a_dot_csv=b"a\n1\n", b_dot_csv=b"a\n1\n"),
            r"2 files \('a.csv', 'b.csv'\)",
        ),
        ("t.zip", zipped(), "holds 0 files"),
        ("t.zip", zipped(a_dot_exe=b"x"), "unknown kind of file '.exe'"),
        ("t.csv.zip", b"a,b\n1,2\n", "is not a zip archive"),
        ("t.csv.zst", b"a,b\n1,2\n", "is not zst"),
        ("t.csv", zlib.compress(bytes(range(256)) * 99)[:-9], "deflate stream that is cut off"),
        ("t.xlsx", b"\xd0\xcf\x11\xe0" + bytes(64), "old or protected spreadsheet"),
        ("t.xlsx", zipped(a_dot_xml=b"x"), "cannot be read as a spreadsheet"),
        ("t.csv", zipped(**{"xl/workbook_dot_xml": b"x", "b": b""}), "rename it to .xlsx"),
        ("t.feather", b"FEA1" + bytes(64), "is not an Arrow file"),
        ("t.arrow", b"ARROW1" + bytes(64), "is damaged arrow"),
        ("t.jsonl", b'{"a":1}\n{"a":\n', "is damaged jsonl"),
        ("t.csv", b"a,b\n1,2\n\0\0,3\n", "is binary, not text"),
        ("t.csv", "名前,値\n中文,1\n".encode("gbk"), "encoding, neither|neither UTF-8 nor cp1252"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    if name.endswith(("xlsx", "ods")):
        pytest.importorskip("fastexcel")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        collect(name, scan_table(tmp_path / name)[0])
    assert "\n" not in str(caught.value)


def test_zst_is_read_and_a_cut_or_huge_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.csv.zst"
    table = pl.DataFrame({"a": np.arange(100_000), "b": ["x"] * 100_000})
    table.write_csv(path, compression="zstd")
    assert read(path)[1][-1] == ("99999", "x")
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    with pytest.raises(InputError, match=r"damaged zst \(it is cut off\)"):
        scan_table(path)
    path.write_bytes(content)
    tables_packed._zstd_problem.cache_clear()
    monkeypatch.setattr(tables_packed, "UNPACKED_CAP", 1 << 19)
    with pytest.raises(InputError, match="unpacks to more than"):
        scan_table(path)


def test_bombs_of_every_kind_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (tables_packed, tables_typed, tables_text, tables):
        monkeypatch.setattr(module, "UNPACKED_CAP", 1 << 20)
    text = b"a,b\n" + b"1,2\n" * (1 << 19)
    (tmp_path / "t.zip").write_bytes(zipped(t_dot_csv=text))
    (tmp_path / "t.csv").write_bytes(zlib.compress(text))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text))
    equal = pl.DataFrame({"a": pl.repeat(1, 1 << 20, eager=True)})
    equal.write_parquet(tmp_path / "t.parquet")
    equal.write_ipc(tmp_path / "t.arrow", compression="zstd")
    for name in ("t.zip", "t.csv", "t.csv.gz", "t.parquet", "t.arrow"):
        with pytest.raises(InputError, match="unpacks to more than"):
            scan_table(tmp_path / name)
    (tmp_path / "lists.parquet").write_bytes(b"")
    pl.DataFrame({"a": [list(range(9))] * 3}).write_parquet(tmp_path / "lists.parquet")
    assert collect("t", scan_table(tmp_path / "lists.parquet")[0]).height == 3


def test_a_sheet_with_a_cell_at_its_far_corner_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("fastexcel")
    path = book(tmp_path / "t.xlsx", last=(1_048_575, 16_383))
    with pytest.raises(InputError, match="spans 1,048,576 rows and 16,384 columns"):
        scan_table(path)


def test_without_the_extra_a_spreadsheet_is_one_line_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = book(tmp_path / "t.xlsx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install .*\[excel\]'"):
        scan_table(path)


def test_a_folder_gives_no_zip_but_a_named_one_is_read(tmp_path: Path) -> None:
    (tmp_path / "pictures.zip").write_bytes(zipped(t_dot_csv=b"a\n1\n"))
    (tmp_path / "t.csv").write_text("a\n1\n")
    with opened() as account:
        assert list_files(tmp_path, tables.TABLE_SUFFIXES) == [str(tmp_path / "t.csv")]
    assert "pictures.zip" in account.lines()[0]
    assert list_files(tmp_path / "pictures.zip", tables.TABLE_SUFFIXES)


@pytest.mark.parametrize(
    "text", ["date v\n2020-01-01 5\n2020-01-02 6\n", '"date" "v"\n"1" "2020-01-01" 5\n"2" "x" 6\n']
)
def test_blanks_between_cells_are_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has blanks between its cells; write it with commas"):
        read(tmp_path / "t.txt", text)
    assert read(tmp_path / "t.csv", "file name\na b.png\nc 2.png\n")[0] == ["file name"]
