"""The pictures that a path names to predict for, and what the account states of them."""

from pathlib import Path

import pytest

pytest.importorskip("PIL", reason="Pillow is optional (extra vision) and not installed")

from headwise.base.account import opened
from headwise.pipelines.reid.prediction import list_inputs
from headwise.tests.data.persons.sets import fill
from headwise.tests.statements import statements


def test_a_picture_that_a_table_lists_more_than_once_is_predicted_once(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jpg", "a/2.jpg")
    path = tmp_path / "t.csv"
    path.write_text("image,note\na/1.jpg,x\na/2.jpg,y\n./a/1.jpg,z\na/1.jpg,z\n")
    with opened() as account:
        items = list_inputs(str(path), None)
    assert [item.get("id") for item in items] == ["a/1.jpg", "a/2.jpg"]
    assert statements(account) == {
        ("read", "pictures"): (2, []),
        ("items", "pictures that the table lists more than once, predicted once"): (1, ["a/1.jpg"]),
    }
