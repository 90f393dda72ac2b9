"""Columns under the names that people give them."""

import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.columns import find_columns, note_groups, parse_columns


@pytest.mark.parametrize(
    "name",
    ["patient", "Patient ID", "subject_id", "case_id", "PatientID", "MRN", "bcr_patient_barcode"],
)
def test_usual_names_of_a_group_are_taken_and_said(name: str) -> None:
    with opened() as account:
        found = find_columns("t.csv", ["image", name, "age"], ["image", "patient"])
    assert found == {"image": "image", "patient": name}
    said = account.lines()[0]
    assert "not used (age)" in said
    assert name == "patient" or f"'{name}' is taken as the patient" in said


def test_a_column_that_the_user_names_wins() -> None:
    chosen = parse_columns(["slide=picture"], ["slide", "label"])
    found = find_columns(
        "t.csv", ["slide", "picture", "diagnosis"], ["slide", "label"], chosen=chosen
    )
    assert found == {"slide": "picture", "label": "diagnosis"}


def test_two_columns_for_one_field_are_refused_and_our_own_name_wins() -> None:
    with pytest.raises(InputError, match="--columns patient="):
        find_columns("t.csv", ["case_id", "subject_id"], ["patient"])
    assert find_columns("t.csv", ["case_id", "patient"], ["patient"]) == {"patient": "patient"}


def test_what_is_missing_is_one_line_with_all_names() -> None:
    names = [f"c{k}" for k in range(13)]
    with pytest.raises(InputError, match=r"no column 'label'.*'c12'; name it with --columns"):
        find_columns("t.csv", names, ["label"], required=["label"])
    with pytest.raises(InputError, match="there is no column 'dignosis'; did you mean"):
        find_columns("t.csv", ["diagnosis"], ["label"], chosen={"label": "dignosis"})
    for pair in ("slide", "slide=", "slid=x"):
        with pytest.raises(InputError, match="--columns"):
            parse_columns([pair], ["slide"])


def test_the_account_says_what_is_kept_together() -> None:
    with opened() as account:
        note_groups("patient", "slides", None, [])
        note_groups("patient", "slides", "case_id", ["a", "a", "b"])
    assert account.lines() == [
        "groups: there is no column of patients: each of the slides counts as its own group; "
        "3 slides of 2 patients (column 'case_id')"
    ]
