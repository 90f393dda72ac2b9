"""Tables as people and public sets have them: columns, patients, labels, findings, pictures."""

import numpy as np
import pytest

pytest.importorskip("PIL", reason="the extra `vision` is not installed")

from PIL import Image

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.xrays.findings import split_findings
from headwise.data.xrays.records import Reading
from headwise.data.xrays.xrays import read_xray_set


def save(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), number, np.uint8)).save(path)


@pytest.fixture
def home(tmp_path):
    for k in range(6):
        save(tmp_path / f"{k}.png", k)
    return tmp_path


def read(home, text, accept=(), **reading):
    """The set of a table, and what the account says."""
    (home / "t.csv").write_text(text)
    with opened(accept) as account:
        return read_xray_set(home / "t.csv", Reading(**reading)), account.lines()


@pytest.mark.parametrize(
    "column", ["patient_id", "subject_id", "Patient ID", "case_id", "PatientID"]
)
def test_patients_are_taken_from_columns_by_their_usual_names(home, column):
    xrays, lines = read(home, f"image,label,{column}\n0.png,a,P1\n1.png,b,P1\n2.png,a,nan\n")
    assert xrays.patients == ["P1", "P1", "picture 3"]
    assert f"columns: {column!r} is taken as the patient" in lines
    groups = "groups: 2 pictures of 1 patients stay together; 1 pictures without a patient"
    assert any(line.startswith(groups) for line in lines)


def test_columns_may_be_named_and_what_is_not_used_is_told(home):
    text = "scan,outcome,who,age\n0.png,a,P1,30\n1.png,b,P1,40\n"
    columns = {"image": "scan", "label": "outcome", "patient": "who"}
    xrays, lines = read(home, text, columns=columns)
    assert (xrays.labels, xrays.patients) == (["a", "b"], ["P1", "P1"])
    assert any("1 not used (age)" in line for line in lines)
    with pytest.raises(InputError, match="--columns image=IMAGE"):
        read(home, text, columns={**columns, "image": "IMAGE"})
    _, lines = read(home, "image,label\n0.png,a\n1.png,b\n")
    assert any("no column of patients" in line for line in lines)


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "NA", ""])
def test_a_missing_label_is_no_class(home, word):
    text = f"image,label\n0.png,a\n1.png,{word}\n2.png,b\n"
    with pytest.raises(InputError, match=r"row 2: .*no label"):
        read(home, text)
    xrays, lines = read(home, text, accept=("missing-labels",))
    assert list(zip(xrays.names, xrays.labels)) == [("0.png", "a"), ("2.png", "b")]
    assert any("left out: 1 rows without a label (row 2)" in line for line in lines)
    (line,) = (line for line in lines if "does not list" in line)
    assert "; 3 pictures that t.csv does not list (3.png, 4.png, 5.png)" in line


def test_whole_numbers_are_one_class_and_similar_classes_are_named(home):
    xrays, lines = read(home, "image,label\n0.png,1\n1.png,1.0\n2.png,0\n")
    assert xrays.labels == ["1", "1", "0"]
    _, lines = read(home, "image,label\n0.png,Sick\n1.png,sick\n2.png,well\n")
    assert any("'Sick' and 'sick' differ by case only" in line for line in lines)


def test_a_picture_in_several_rows_is_a_doubt(home):
    twice = "image,label\n0.png,a\n1.png,b\n./0.png,a\n"
    with pytest.raises(InputError, match=r"0\.png' is listed more than once.*--accept copies"):
        read(home, twice)
    xrays, _ = read(home, twice, accept=("copies",))
    assert xrays.names == ["0.png", "1.png"]
    conflict = "image,label\n0.png,a\n1.png,b\n0.png,b\n"
    with pytest.raises(InputError, match=r"has the labels 'a' and 'b'"):
        read(home, conflict)
    parts = "image,label,split\n0.png,a,train\n1.png,b,train\n0.png,a,test\n"
    with pytest.raises(InputError, match="listed more than once"):
        read(home, parts)


NIH = "Image Index,Finding Labels,Follow-up #,Patient ID,View Position\n"


def nih(home):
    for k in range(4):
        save(home / f"images_00{k // 2 + 1}" / "images" / f"{k}.png", k)
    labels = ("Effusion|Infiltration", "No Finding", "Infiltration", "effusion")
    rows = [f"{k}.png,{label},0,{k // 2},PA\n" for k, label in enumerate(labels)]
    (home / "Data_Entry_2017.csv").write_text(NIH + "".join(rows))
    (home / "train_val_list.txt").write_text("0.png\n1.png\n")
    (home / "test_list.txt").write_text("2.png\n3.png\n")
    return home


def test_the_folder_of_nih_is_read_as_it_is(tmp_path):
    with opened() as account:
        xrays = read_xray_set(nih(tmp_path), Reading(finding="Effusion"))
    assert set(account.lines()) >= {
        "read: 4 pictures",
        "values: labels are read as Effusion or no Effusion",
        "groups: 4 pictures of 2 patients stay together",
    }
    lists = "parts are read from train_val_list.txt and test_list.txt"
    assert any(lists in line for line in account.lines())
    assert xrays.labels == ["Effusion", "no Effusion", "no Effusion", "Effusion"]
    assert xrays.patients == ["0", "0", "1", "1"]
    assert xrays.views == ["PA"] * 4
    assert xrays.parts == ["train", "train", "test", "test"]
    assert xrays.files[2] == str(tmp_path / "images_002" / "images" / "2.png")
    with pytest.raises(InputError, match=r"'Effusion\|Infiltration' is several .*--finding"):
        read_xray_set(tmp_path)
    with pytest.raises(InputError, match=r"no picture has .*did you mean 'Effusion'\?"):
        read_xray_set(tmp_path, Reading(finding="Efusion"))
    with opened() as account:
        alone = read_xray_set(tmp_path, Reading(classes=("No Finding", "Infiltration")))
    assert alone.labels == ["No Finding", "Infiltration"]
    assert "left out: 2 pictures of other classes than --classes" in account.lines()


def test_a_bar_in_a_label_that_joins_nothing_is_part_of_its_name(home):
    xrays, _ = read(home, "image,label\n0.png,a|b\n1.png,c\n")
    assert xrays.labels == ["a|b", "c"]
    assert split_findings("a; b|c") == ["a", "b", "c"]


CHEXPERT = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Pleural Effusion,Edema\n"


def chexpert(home):
    rows: dict[str, list[str]] = {"train": [], "valid": []}
    flags = (("", "1.0", ""), ("1.0", "", "0.0"), ("", "-1.0", ""), ("", "0.0", "1.0"))
    for part, start in (("train", 0), ("valid", 4)):
        for k, cells in enumerate(flags if part == "train" else flags[:2]):
            name = f"{part}/patient{(start + k) // 2:05d}/study{k % 2}/view1.jpg"
            save(home / name, start + k)
            view = ("Frontal", "AP") if k % 2 else ("Lateral", "")
            path = f"CheXpert-v1.0-small/{name}"
            rows[part].append(",".join([path, "F", "50", *view, *cells]) + "\n")
        (home / f"{part}.csv").write_text(CHEXPERT + "".join(rows[part]))
    return home


@pytest.mark.parametrize("uncertain", ["positive", "negative", "leave-out", None])
def test_the_folder_of_chexpert_is_read_as_it_is(tmp_path, uncertain):
    reading = Reading(finding="Pleural Effusion", uncertain=uncertain)
    if uncertain is None:
        with pytest.raises(InputError, match=r"1 rows are uncertain \(-1\); say --uncertain"):
            read_xray_set(chexpert(tmp_path), reading)
        return
    with opened() as account:
        xrays = read_xray_set(chexpert(tmp_path), reading)
    third = {"positive": [True], "negative": [False], "leave-out": []}[uncertain]
    truth = [True, False, *third, False, True, False]
    assert xrays.labels == [f"{'' if it else 'no '}Pleural Effusion" for it in truth]
    parts = ["train"] * (3 + len(third)) + ["validation"] * 2
    assert xrays.parts == parts
    patients = ["patient00000"] * 2 + ["patient00001"] * (1 + len(third)) + ["patient00002"] * 2
    assert xrays.patients == patients
    assert xrays.views[:2] == ["Lateral", "AP"]
    text = "\n".join(account.lines())
    assert "rows in which Pleural Effusion is empty count as no Pleural Effusion" in text
    assert "patients are read from the folders of the pictures" in text
    assert "'Pleural Effusion' is taken as the finding" in text
    assert "uncertain Pleural Effusion (-1)" in text


def test_findings_in_columns_need_one_to_be_named(tmp_path):
    with pytest.raises(InputError, match=r"one for each finding \(No Finding, .*--finding"):
        read_xray_set(chexpert(tmp_path))
    with pytest.raises(InputError, match="one for each finding"):
        read_xray_set(tmp_path, Reading(finding="Mass"))


def test_cells_of_a_finding_that_mean_nothing_are_refused(home):
    with pytest.raises(InputError, match=r"row 2: 'perhaps' is none of 1, 0, -1"):
        read(home, "image,Edema\n0.png,1\n1.png,perhaps\n", finding="Edema")
    with pytest.raises(InputError, match="is empty in all rows"):
        read(home, "image,Edema\n0.png,\n1.png,\n", finding="Edema")
    with pytest.raises(InputError, match="--uncertain is read with a column"):
        read(home, "image,label\n0.png,a\n1.png,b\n", finding="a", uncertain="positive")


def test_labels_as_lists_are_findings(home):
    text = "ImageID,Labels\n0.png,\"['edema', 'mass']\"\n1.png,\"['normal']\"\n"
    xrays, _ = read(home, text, finding="mass")
    assert xrays.labels == ["mass", "no mass"]


def test_a_row_for_each_finding_of_a_picture_is_joined(home):
    """As in VinDr-CXR: a picture has the finding if one of its rows has."""
    text = "image_id,class_name\n0,Nodule\n0,Mass\n1,Mass\n1,Mass\n2,Mass\n2,Nodule\n"
    xrays, lines = read(home, text, finding="Nodule")
    assert list(zip(xrays.names, xrays.labels)) == [
        ("0.png", "Nodule"),
        ("1.png", "no Nodule"),
        ("2.png", "Nodule"),
    ]
    assert any("3 pictures with several rows, joined by the finding" in line for line in lines)


def test_a_column_of_folds_is_no_part(home):
    xrays, lines = read(home, "image,label,fold\n0.png,a,1\n1.png,b,2\n")
    assert xrays.parts == ["", ""]
    assert [line for line in lines if "fold" in line] == [
        "columns: 1 not used as parts, since they hold other words (fold)"
    ]
    with pytest.raises(InputError, match="'later' is none of"):
        read(home, "image,label,split\n0.png,a,later\n1.png,b,later\n")


def nested(home):
    """A folder for each class."""
    for k, label in enumerate("ab"):
        save(home / label / f"{k}.png", k)
    return home


def test_pictures_lie_in_the_folder_that_is_named(home, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    with pytest.raises(InputError, match="--images says where"):
        read(lists, "image,label\n0.png,a\n1.png,b\n")
    xrays, _ = read(lists, "image,label\n0.png,a\n1.png,b\n", images=str(home))
    assert xrays.files == [str(home / "0.png"), str(home / "1.png")]
    with pytest.raises(InputError, match="is no folder of pictures"):
        read(lists, "image,label\n0.png,a\n", images=str(home / "none"))
    with pytest.raises(InputError, match="--images is read with a table"):
        read_xray_set(nested(home / "n"), Reading(images=str(home)))


def test_a_few_missing_pictures_are_left_out_and_named(home):
    rows = [f"{k}.png,{'ab'[k % 2]}\n" for k in range(21)]
    for k in range(6, 20):
        save(home / f"{k}.png", k)
    xrays, lines = read(home, "image,label\n" + "".join(rows))
    assert len(xrays) == 20
    assert "20.png" not in xrays.names
    expected = "left out: 1 pictures that are missing or cannot be read (20.png: "
    assert any(line.startswith(expected) for line in lines)
    (home / "19.png").unlink()
    (home / "18.png").unlink()
    with pytest.raises(InputError, match=r"'18\.png'.*3 of 21 pictures cannot be read"):
        read(home, "image,label\n" + "".join(rows))


def test_for_predictions_every_row_is_listed_once_and_may_be_missing(home):
    text = "image,label\n0.png,a\n9.png,b\n0.png,c\n../x.png,\n"
    xrays, lines = read(home, text, need_label=False)
    assert xrays.names == ["0.png", "9.png", "../x.png"]
    assert [bool(problem) for problem in xrays.problems] == [False, True, True]
    assert any("listed more than once, predicted once (0.png)" in line for line in lines)


def test_folders_between_class_and_picture_are_patients_or_no_class(tmp_path):
    for k, name in enumerate(
        (
            "COVID/images/a.png",
            "COVID/masks/a.png",
            "Normal/images/b.png",
            "Normal/patient7/study1/c.png",
        )
    ):
        save(tmp_path / name, k)
    (tmp_path / "Normal" / "patient7" / "study1" / "c.png").rename(
        tmp_path / "Normal" / "patient7" / "c.png"
    )
    with opened() as account:
        xrays = read_xray_set(tmp_path)
    assert list(zip(xrays.names, xrays.labels, xrays.patients)) == [
        ("COVID/images/a.png", "COVID", "picture 1"),
        ("Normal/images/b.png", "Normal", "picture 2"),
        ("Normal/patient7/c.png", "Normal", "patient7"),
    ]
    assert "left out: 1 pictures in folders of masks (COVID/masks/a.png)" in account.lines()


def test_classes_may_be_called_like_patients(tmp_path):
    for k, name in enumerate(("train/case1/a.png", "test/case1/b.png", "train/p2/c.png")):
        save(tmp_path / name, k)
    assert read_xray_set(tmp_path).labels == ["case1", "case1", "p2"]
    save(tmp_path / "p1" / "d.png", 4)
    save(tmp_path / "p1" / "e.png", 5)
    xrays, _ = read(tmp_path, "image,label\np1/d.png,a\np1/e.png,b\n")
    assert xrays.patients == ["picture 1", "picture 2"]


def test_a_table_that_is_not_named_is_pointed_at(home):
    (home / "mine.csv").write_text("image,label\n0.png,a\n1.png,b\n")
    with pytest.raises(InputError, match=r"or give the table .*mine\.csv"):
        read_xray_set(home)
    (home / "mine.csv").rename(home / "Labels.tsv")
    (home / "Labels.tsv").write_text("image\tlabel\n0.png\ta\n1.png\tb\n")
    assert read_xray_set(home).labels == ["a", "b"]


def test_a_column_of_answers_is_no_column_of_patients(home):
    rows = "".join(f"{k}.png,a,{word}\n" for k, word in enumerate(["yes", "No", "no"]))
    _, lines = read(home, f"image,label,case\n{rows}")
    what = "1 not used as the patient, since they hold answers such as yes and no (case)"
    assert f"columns: {what}" in lines
    assert any("no column of patients" in line for line in lines)
    xrays, _ = read(home, f"image,label,case\n{rows}", columns={"patient": "case"})
    assert len(set(xrays.patients)) == 3


def test_patients_have_one_spelling_and_words_for_nobody_are_none(home):
    cells = ["1", "1.0", "p1", "P-1", "unknown", "unknown"]
    rows = "".join(f"{k}.png,a,{cell}\n" for k, cell in enumerate(cells))
    xrays, lines = read(home, f"image,label,patient\n{rows}")
    assert xrays.patients == ["1", "1", "p1", "P-1", "picture 5", "picture 6"]
    said = "; ".join(lines)
    assert "1 patients written in several ways, each taken as one ('1' and '1.0')" in said
    assert "1 patients whose names look alike, taken as different ('p1' and 'P-1')" in said
    assert "2 pictures without a patient" in said
