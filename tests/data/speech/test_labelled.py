"""Labels of recordings from tables, folders and names of files."""

import json
import wave

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.speech.labelled import NamePattern, list_labelled, list_unlabelled


def sound(path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).integers(-3000, 3000, 1600, np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())


@pytest.mark.parametrize(
    ("pattern", "name", "fields"),
    [
        ("{label}_{speaker}_*", "7_jackson_32.wav", {"label": "7", "speaker": "jackson"}),
        ("{speaker:2}???{label:1}*", "a/03a01Wa.wav", {"speaker": "03", "label": "W"}),
        ("{speaker}_{label}??", "DC_sa07.wav", {"speaker": "DC", "label": "sa"}),
        ("{speaker}/{label}/*", "x/ann/joy/1.wav", {"speaker": "ann", "label": "joy"}),
        ("{part}-{label}-{group}", "test-a-9.flac", {"part": "test", "label": "a", "group": "9"}),
        ("{label}_*", "nothing.wav", None),
        ("{label}.x_*", "ayx_1.wav", None),
    ],
)
def test_a_pattern_takes_what_the_name_says(pattern, name, fields) -> None:
    assert NamePattern.of(pattern).read(name) == fields


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("{lable}_*", "no field 'lable'.*label"),
        ("{label}_{label}", "names label twice"),
        ("*_*", "names none of"),
        ("{label_*", "has a bracket alone"),
    ],
)
def test_a_pattern_that_says_nothing_is_refused(pattern, reason) -> None:
    with pytest.raises(InputError, match=reason):
        NamePattern.of(pattern)


@pytest.fixture
def folder(tmp_path):
    for k, name in enumerate(["joy/a1.wav", "joy/b1.wav", "anger/a2.wav", "anger/deep/b2.wav"]):
        sound(tmp_path / "data" / name, k)
    return tmp_path / "data"


def test_folders_name_labels_and_a_pattern_adds_the_speaker(folder) -> None:
    listed = list_labelled(folder, pattern="{speaker:1}*")
    found = {u.name: (u.label, u.speaker) for u in listed}
    assert found == {
        "anger/a2.wav": ("anger", "a"),
        "anger/deep/b2.wav": ("anger", "b"),
        "joy/a1.wav": ("joy", "a"),
        "joy/b1.wav": ("joy", "b"),
    }


def test_folders_of_parts_stand_above_those_of_labels(tmp_path) -> None:
    for k, part in enumerate(("train", "val", "test")):
        for n, label in enumerate(("x", "y")):
            sound(tmp_path / part / label / f"{k}.wav", 10 * k + n)
    sound(tmp_path / "alone.wav", 77)
    with opened() as account:
        listed = list_labelled(tmp_path)
    lines = " | ".join(account.lines())
    assert "folders called train, validation or test are parts" in lines
    assert "in no folder that names their label (alone.wav)" in lines
    assert "read: 6 recordings" in lines
    assert {(u.part, u.label) for u in listed} == {
        (part, label) for part in ("train", "validation", "test") for label in ("x", "y")
    }


def test_names_that_do_not_fit_are_left_out_and_said(folder) -> None:
    sound(folder / "joy" / "odd.wav", 9)
    with opened() as account:
        listed = list_labelled(folder, label_from="name", pattern="{speaker:1}{label:1}")
    assert len(listed) == 4
    assert {u.label for u in listed} == {"1", "2"}
    assert "whose name does not fit --pattern" in " | ".join(account.lines())
    with pytest.raises(InputError, match="fits no name, such as"):
        list_labelled(folder, label_from="name", pattern="{label}=*")


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet", ".xlsx"])
def test_every_kind_of_table_names_labels_and_speakers(folder, ending) -> None:
    rows = [
        {"wav": "joy/a1.wav", "emotion": "joy", "actor": "a"},
        {"wav": "anger/a2.wav", "emotion": "anger", "actor": "b"},
    ]
    path = folder / f"list{ending}"
    if ending == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif ending == ".xlsx":
        pytest.importorskip("xlsxwriter", reason="a writer of .xlsx is not installed")
        pl.DataFrame(rows).write_excel(path)
    else:
        getattr(pl.DataFrame(rows), f"write_{ending[1:]}")(path)
    listed = list_labelled(path, ("label=emotion", "speaker=actor"))
    assert [(u.label, u.speaker) for u in listed] == [("joy", "a"), ("anger", "b")]


def test_the_table_of_a_folder_is_read_and_what_it_does_not_name_is_said(folder) -> None:
    (folder / "labels.csv").write_text("audio,label,speaker\njoy/a1.wav,1,a\njoy/b1.wav,0,b\n")
    with opened() as account:
        listed = list_labelled(folder)
    assert [u.label for u in listed] == ["1", "0"]
    assert "labels.csv does not name" in " | ".join(account.lines())
    assert [u.label for u in list_labelled(folder, label_from="folder")] == ["anger"] * 2 + [
        "joy"
    ] * 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"label_from": "name"}, "needs --pattern with {label}"),
        ({"label_from": "table"}, "there is no table"),
        ({"columns": ("label=x",)}, "--columns: are read with a table"),
    ],
)
def test_ways_that_the_data_does_not_have_are_refused(folder, options, reason) -> None:
    with pytest.raises(InputError, match=reason):
        list_labelled(folder, **options)


def test_a_table_without_labels_is_refused_and_predicted_for(folder) -> None:
    (folder / "t.csv").write_text("audio,speaker\njoy/a1.wav,a\n")
    with pytest.raises(InputError, match="no recording has a label"):
        list_labelled(folder / "t.csv")
    (item,) = list_unlabelled(str(folder / "t.csv"))
    assert (item.speaker, item.label) == ("a", "")


def test_input_is_a_file_a_folder_or_a_pattern_of_files(folder) -> None:
    (folder / "joy" / "a.txt").write_text("no sound")
    paths = (folder / "joy" / "a1.wav", folder, folder / "*" / "a*")
    with opened() as account:
        names = [[u.name for u in list_unlabelled(str(path))] for path in paths]
    assert names == [
        ["a1.wav"],
        ["anger/a2.wav", "anger/deep/b2.wav", "joy/a1.wav", "joy/b1.wav"],
        ["anger/a2.wav", "joy/a1.wav"],
    ]
    lines = " | ".join(account.lines())
    assert "read: 4 recordings" in lines
    with opened() as account:
        list_unlabelled(str(folder / "*" / "a*"))
    assert "files of other kinds" in " | ".join(account.lines())


def test_folders_of_labels_that_look_alike_are_said_and_composed_letters_joined(folder) -> None:
    for k, name in enumerate(["Joy", "d\u00e9go\u00fbt", "de\u0301gou\u0302t"]):
        sound(folder / name / f"{k}.wav", 10 + k)
    with opened() as account:
        labels = {u.label for u in list_labelled(folder)}
    assert labels == {"joy", "Joy", "anger", "d\u00e9go\u00fbt"}
    said = "; ".join(account.lines())
    assert "the classes 'Joy' and 'joy' differ by case only" in said
    assert "are one class" in said


def test_a_folder_of_a_part_is_no_label(tmp_path) -> None:
    sound(tmp_path / "train" / "a.wav", 1)
    sound(tmp_path / "test" / "b.wav", 2)
    with pytest.raises(InputError, match=r"b.wav' has no label: test/ is a part of the data"):
        list_labelled(tmp_path)


def test_a_folder_beside_those_of_parts_is_left_out(tmp_path) -> None:
    for k, name in enumerate(["train/joy/a", "train/anger/b", "eval/joy/c"]):
        sound(tmp_path / f"{name}.wav", k)
    with opened() as account:
        assert [u.label for u in list_labelled(tmp_path)] == ["anger", "joy"]
    assert "left out: 1 folders that are called like no part (eval)" in account.lines()


def test_answers_are_no_speakers_and_few_groups_are_said(folder) -> None:
    rows = [f"joy/a1.wav,joy,{k},{k + 1},{'yes' if k % 2 else 'no'},g{k % 2}" for k in range(20)]
    (folder / "labels.csv").write_text("\n".join(["audio,label,start,end,case,group", *rows]))
    with opened() as account:
        assert {u.speaker for u in list_labelled(folder)} == {""}
    said = "; ".join(account.lines())
    assert "not used as the speaker, since they hold answers such as yes and no (case)" in said
    assert "20 rows name only 2 groups; if its column says something else" in said
