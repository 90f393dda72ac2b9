"""Results of the program that lie among the user's data."""

from pathlib import Path

from headwise.base.account import opened
from headwise.base.files import walk_folder
from headwise.base.own_files import RESULTS, OwnFiles, holds_results
from headwise.data.formats.pictures import list_pictures, visible_folders
from headwise.data.formats.tables import list_files


def write_files(home: Path, *names: str) -> Path:
    for name in names:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return home


def test_results_next_to_the_data_are_no_data(tmp_path: Path) -> None:
    home = write_files(
        tmp_path,
        "a.jpg",
        "out.csv",
        "out.csv.account.json",
        "out.csv.maps/a.jpg",
        "out.csv.png",
        "killed.csv.parts/plan.json",
        "killed.csv.maps/a.jpg",
        "mine.csv.parts/a.jpg",
        "mine.csv",
    )
    with opened() as account:
        assert walk_folder(home, (".jpg", ".csv", ".png")) == [
            "a.jpg",
            "mine.csv",
            "mine.csv.parts/a.jpg",
        ]
    (line,) = account.lines()
    assert line.startswith("left out: 6 results of headwise (killed.csv.maps, killed.csv.parts, ")
    assert list_pictures(home / "**" / "*.jpg") == [
        (str(home / name), name) for name in ("a.jpg", "mine.csv.parts/a.jpg")
    ]
    assert list_files(home / "*.csv", [".csv"]) == [str(home / "mine.csv")]


def test_marks_of_the_program_are_not_worth_a_word(tmp_path: Path) -> None:
    home = write_files(tmp_path, "a.jpg", ".lock", ".aside-x-b.jpg", ".hidden.jpg")
    with opened() as account:
        assert walk_folder(home, (".jpg",)) == ["a.jpg"]
    assert account.lines() == ["left out: 1 hidden names (.hidden.jpg)"]


def test_runs_and_comparisons_among_the_data_are_no_classes(tmp_path: Path) -> None:
    home = write_files(
        tmp_path,
        "sick/1.jpg",
        "runs/config.yaml",
        "runs/environment.json",
        "runs/figures/1.jpg",
        "compared/trainings/.lock",
        "compared/figure.jpg",
    )
    assert walk_folder(home, (".jpg",)) == ["sick/1.jpg"]
    assert visible_folders(home) == ["sick"]
    assert holds_results(home / "runs")
    # What lies in a run is data for whoever asks for it.
    assert walk_folder(home / "runs", (".jpg",)) == ["figures/1.jpg"]
    assert not OwnFiles(home / "runs").holds(home / "runs" / "figures" / "1.jpg")
    assert OwnFiles(home).holds(home / "runs" / "figures" / "1.jpg")


def test_crops_are_data_and_their_contact_sheet_is_not(tmp_path: Path) -> None:
    home = write_files(tmp_path, "1.jpg", "crops.csv", "crops.png", "account.json")
    assert walk_folder(home, (".jpg", ".png")) == ["1.jpg"]
    (home / "account.json").unlink()
    assert walk_folder(home, (".jpg", ".png")) == ["1.jpg", "crops.png"]


def test_results_that_a_pattern_fits_are_left_out_and_said(tmp_path: Path) -> None:
    home = write_files(tmp_path, "a.csv", "out.csv", "out.csv.account.json")
    with opened() as account:
        assert [Path(file).name for file in list_files(str(home / "*.csv"), (".csv",))] == ["a.csv"]
    (entry,) = account.entries()
    assert (entry.topic, entry.what, entry.count) == ("left out", RESULTS, 1)
    assert Path(next(iter(entry.names))).name == "out.csv"


def test_folders_of_results_are_no_folders_of_pictures_and_said(tmp_path: Path) -> None:
    home = write_files(
        tmp_path, "cats/a.jpg", "out.csv.account.json", "out.csv", "out.csv.maps/a.jpg"
    )
    with opened() as account:
        assert visible_folders(home) == ["cats"]
    (entry,) = account.entries()
    assert (entry.topic, entry.what, entry.count) == ("left out", RESULTS, 1)
    assert list(entry.names) == ["out.csv.maps"]
