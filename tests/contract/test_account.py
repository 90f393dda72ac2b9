"""The account of every task: what may make a result wrong is refused or said, never silent."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from headwise.base.account import Account, opened
from headwise.base.errors import InputError
from headwise.pipelines import TASKS, load_task
from headwise.pipelines.engine.command_line import parse
from headwise.tests.contract.small_data import BUILDERS, SmallData

MISSING = ["nan", "None", "NA", ""]
GROUPS = ["case_id", "subject_id", "Patient ID"]


def read(task: str, options: dict[str, Any]) -> tuple[Any, Account]:
    """The parts of a data set as training opens them, and the account of it."""
    card = load_task(task)
    accept = options.get("accept", ())
    with opened(accept) as account:
        parsed = parse(card, "train", [], values=options)
        return card.load().open_data(parsed), account


def text(account: Account) -> str:
    return " | ".join(account.lines())


@pytest.fixture(params=list(TASKS))
def task(request) -> str:
    return request.param


@pytest.fixture
def data(task: str, tmp_path: Path) -> SmallData:
    return BUILDERS[task](tmp_path)


def test_every_task_has_small_data() -> None:
    assert set(BUILDERS) == set(TASKS)


def test_clean_data_is_read_and_counted(task: str, data: SmallData) -> None:
    _, account = read(task, data.write())
    assert "read: " in text(account)
    assert "accepted" not in text(account)
    assert any(entry.count for entry in account.entries() if entry.topic == "read")


def test_a_column_that_is_not_used_is_named(task: str, data: SmallData) -> None:
    for k, row in enumerate(data.rows):
        row["remark"] = ("fine", "good")[k % 2]
    _, account = read(task, data.write())
    unused = [
        entry for entry in account.entries() if "remark" in " ".join([entry.what, *entry.names])
    ]
    assert unused, text(account)


def with_copy(data: SmallData, **changes: object) -> SmallData:
    data.rows.append({**data.rows[0], **changes})
    return data


IN_A_TABLE = ("finetune", "forecast", "longcontext", "ranking", "reasoning", "text")
ITEMS_IN_FILES = [task for task in BUILDERS if task not in IN_A_TABLE]
TEXTS = ["longcontext", "text"]


@pytest.mark.parametrize("task", ITEMS_IN_FILES, indirect=True)
def test_an_item_that_is_listed_twice_is_refused(task: str, data: SmallData) -> None:
    with pytest.raises(InputError, match=r"more than once|twice"):
        read(task, with_copy(data).write())


@pytest.mark.parametrize("task", [*ITEMS_IN_FILES, *TEXTS, "finetune"], indirect=True)
def test_an_item_in_two_parts_is_refused(task: str, data: SmallData) -> None:
    with pytest.raises(InputError, match=r"more than once|twice|in train"):
        read(task, with_copy(data, **{data.part: data.rows[-1][data.part]}).write())


@pytest.mark.parametrize("task", [*ITEMS_IN_FILES, *TEXTS], indirect=True)
def test_an_item_with_two_labels_is_refused(task: str, data: SmallData) -> None:
    other = next(
        row[data.label] for row in data.rows if row[data.label] != data.rows[0][data.label]
    )
    with pytest.raises(InputError, match=r"more than once|has the labels|two "):
        read(task, with_copy(data, **{data.label: other}).write())


@pytest.mark.parametrize("task", ITEMS_IN_FILES, indirect=True)
def test_an_exact_copy_under_another_name_in_another_part_is_refused(
    task: str, data: SmallData
) -> None:
    first, last = data.rows[0], data.rows[-1]
    if task == "saliency":
        for column in ("image", "depth", "mask"):
            shutil.copy(data.folder / str(first[column]), data.folder / str(last[column]))
    else:
        names = [str(row[data.item]).removesuffix(data.ending) for row in (first, last)]
        shutil.copy(*(data.folder / f"{name}{data.ending}" for name in names))
    last[data.label] = first[data.label]
    if task == "reid":
        last[data.label] = data.rows[-2][data.label]
    with pytest.raises(InputError, match=r"cop(y|ies)"):
        read(task, data.write())


@pytest.mark.parametrize("word", MISSING)
@pytest.mark.parametrize(
    "task", ["longcontext", "medical", "recordings", "reid", "text", "wsi"], indirect=True
)
def test_a_missing_label_is_no_class(task: str, data: SmallData, word: str) -> None:
    data.rows[3][data.label] = word
    options = data.write()
    with pytest.raises(InputError, match=r"row 4.*no label.*--accept missing-labels"):
        read(task, options)
    _, account = read(task, {**options, "accept": ("missing-labels",)})
    assert "1 rows without a label" in text(account)


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("task", ["medical", "wsi"], indirect=True)
def test_usual_names_of_groups_are_taken_and_said(task: str, data: SmallData, name: str) -> None:
    data.rename("patient", name)
    _, account = read(task, data.write())
    assert f"'{name}' is taken as the patient" in text(account)
    assert "12 patients" in text(account)


@pytest.mark.parametrize("task", ["medical", "wsi"], indirect=True)
def test_it_is_said_where_each_item_counts_as_its_own_group(task: str, data: SmallData) -> None:
    data.rename("patient", "age")
    _, account = read(task, data.write())
    assert "counts as its own group" in text(account)


UNREAD = {
    "finetune": {"rank": 4},
    "forecast": {"experts": 4},
    "longcontext": {"lengths": (64,)},
    "ranking": {"model": "mmoe", "attention": "moh"},
    "medical": {"body_share": 0.5},
    "reasoning": {"model": "cross", "latents": 4},
    "text": {"model": "sparse", "width": 32},
}


@pytest.mark.parametrize("task", list(UNREAD), indirect=True)
def test_an_option_that_the_model_does_not_read_is_refused(task: str, data: SmallData) -> None:
    with pytest.raises(InputError, match=f"--{list(UNREAD[task])[-1].replace('_', '-')}"):
        read(task, {**data.write(), **UNREAD[task]})
