"""What a training named for its data, when its run is scored on other data."""

from dataclasses import replace
from pathlib import Path

import pytest

from headwise.base.account import opened
from headwise.pipelines import load_task


def evaluated(task: str, data: Path | None, trained: dict[str, object], **given: object):
    """The options that data is read by in `evaluate`, and the lines of the account."""
    card = load_task(task)
    options = card.evaluate_options(run="r", data=None if data is None else str(data), **given)
    with opened() as account:
        values = card.load().evaluation_options(options, replace(card.options(), **trained))
    return {name: getattr(values, name) for name in (*trained, "data")}, account.lines()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "listed").mkdir()
    for name in ("t.csv", "listed/labels.csv"):
        (tmp_path / name).write_text("image,label\n")
    return tmp_path


@pytest.mark.parametrize("task", ["medical", "reid"])
def test_pictures_of_another_table_are_where_the_user_says(task: str, home: Path) -> None:
    trained = {"images": "/x", "columns": ("image=shot",)}
    for data in (home / "t.csv", home / "listed"):
        values, lines = evaluated(task, data, trained)
        assert values == {**trained, "data": str(data)}
        assert sorted(lines) == [
            "assumed: --columns image=shot, as in the training; --images /x, as in the training"
        ] or lines == [
            "assumed: --images /x, as in the training; --columns image=shot, as in the training"
        ]
        values, lines = evaluated(task, data, trained, images="/y", columns=("image=a",))
        assert values == {"images": "/y", "columns": ("image=a",), "data": str(data)}
        assert lines == []
    values, lines = evaluated(task, home / "folder", trained)
    assert values == {"images": None, "columns": (), "data": str(home / "folder")}
    assert lines == []
    # The run's own data lies where it lay, unless it was moved.
    values, lines = evaluated(task, None, trained)
    assert (values["images"], lines) == ("/x", [])
    assert evaluated(task, None, trained, images="/moved")[0]["images"] == "/moved"


def test_depth_and_groups_of_a_training_are_not_those_of_other_scenes(home: Path) -> None:
    trained = {"depth": "/d", "masks": "/m", "groups": "/g.csv", "columns": ("depth=z",)}
    values, lines = evaluated("saliency", home / "t.csv", trained)
    assert [values[name] for name in trained] == [None, None, None, ("depth=z",)]
    assert lines == ["assumed: --columns depth=z, as in the training"]
    values, lines = evaluated("saliency", home / "folder", trained, masks="/n")
    assert [values[name] for name in trained] == ["/d", "/n", None, ()]
    assert lines == ["assumed: --depth /d, as in the training"]


def test_slides_and_features_of_another_list_are_where_the_user_says(home: Path) -> None:
    trained = {"slides": "/s", "features": "/f"}
    values, lines = evaluated("wsi", home / "t.csv", trained, slides="/t", fetch_encoder=True)
    assert values == {"slides": "/t", "features": "/f", "data": str(home / "t.csv")}
    assert lines == ["assumed: --features /f, as in the training"]
