"""Tables with several findings a picture, as public sets have them: what each picture has, has not,
and what is not known of it.
"""

import gzip

import numpy as np
import polars as pl
import pytest

pytest.importorskip("PIL", reason="the extra `vision` is not installed")

from PIL import Image

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.xrays.records import Reading
from headwise.data.xrays.several import truth_of
from headwise.data.xrays.xrays import read_xray_set

ALL = ("all",)


def save(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), number, np.uint8)).save(path)


def read(path, **reading):
    """The set, the truth of each picture as text (1, 0 or ?), and what the account says."""
    with opened() as account:
        xrays = read_xray_set(path, Reading(**{"findings": ALL, **reading}))
    truth, known = truth_of(xrays.labels, xrays.findings)
    texts = [
        "".join("?" if not k else "1" if t else "0" for t, k in zip(*row, strict=True))
        for row in zip(truth.tolist(), known.tolist(), strict=True)
    ]
    return xrays, texts, "\n".join(account.lines())


@pytest.fixture
def home(tmp_path):
    for k in range(6):
        save(tmp_path / f"{k}.png", k)
    return tmp_path


def nih(home):
    for k in range(4):
        save(home / f"images_00{k // 2 + 1}" / "images" / f"{k}.png", k)
    labels = ("Effusion|Infiltration", "No Finding", "Infiltration", "effusion|Mass")
    rows = [f"{k}.png,{label},0,{k // 2},PA\n" for k, label in enumerate(labels)]
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,View Position\n"
    (home / "Data_Entry_2017.csv").write_text(head + "".join(rows))
    (home / "train_val_list.txt").write_text("0.png\n1.png\n")
    (home / "test_list.txt").write_text("2.png\n3.png\n")
    return home


def test_all_findings_of_nih_are_read(tmp_path):
    xrays, texts, lines = read(nih(tmp_path))
    assert xrays.findings == ["Effusion", "Infiltration", "Mass"]
    assert texts == ["110", "000", "010", "101"]
    assert xrays.patients == ["0", "0", "1", "1"]
    assert xrays.parts == ["train", "train", "test", "test"]
    assert "'Effusion' and 'effusion' are one finding" in lines
    assert "a picture has no finding (No Finding)" in lines


def test_named_findings_come_in_their_order_and_the_others_are_told(tmp_path):
    xrays, texts, lines = read(nih(tmp_path), findings=("Mass", "EFFUSION"))
    assert xrays.findings == ["Mass", "EFFUSION"]
    assert texts == ["01", "00", "00", "11"]
    assert "2 labels that are none of the findings (Infiltration, No Finding)" in lines
    _, texts, _ = read(tmp_path, findings=("No Finding", "Mass"))
    assert texts == ["00", "10", "00", "01"]
    with pytest.raises(InputError, match=r"no picture has .*'Masss'; did you mean 'Mass'\?"):
        read(tmp_path, findings=("Masss", "Effusion"))


CHEXPERT = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Pleural Effusion,Edema,Fracture\n"


def chexpert(home):
    """Of study 2 the effusion is uncertain, of study 3 the edema; nobody wrote of fractures."""
    flags = (("", "1.0", "1.0", ""), ("1.0", "", "", ""), ("", "-1.0", "1.0", ""))
    flags = (*flags, ("", "1.0", "-1.0", ""))
    lines = []
    for k, cells in enumerate(flags):
        name = f"train/patient{k // 2:05d}/study{k % 2}/view1.jpg"
        save(home / name, k)
        view = ("Frontal", "AP") if k % 2 else ("Lateral", "")
        lines.append(",".join([f"CheXpert-v1.0-small/{name}", "F", "50", *view, *cells]) + "\n")
    (home / "train.csv").write_text(CHEXPERT + "".join(lines))
    return home


@pytest.mark.parametrize(
    ("uncertain", "truth"),
    [
        ("positive", ["11", "00", "11", "11"]),
        ("negative", ["11", "00", "10", "01"]),
        ("ignore", ["11", "00", "1?", "?1"]),
        ("leave-out", ["11", "00"]),
    ],
)
def test_uncertain_labels_of_chexpert_count_as_it_is_said(tmp_path, uncertain, truth):
    """Findings are in the order of their names: Edema, Pleural Effusion."""
    xrays, texts, lines = read(chexpert(tmp_path), uncertain=uncertain)
    assert xrays.findings == ["Edema", "Pleural Effusion"]
    assert texts == truth
    assert xrays.patients == ["patient00000"] * 2 + ["patient00001"] * (len(truth) - 2)
    assert xrays.views[:2] == ["Lateral", "AP"]
    said = {
        "positive": "2 uncertain cells (-1) count as with the finding: Pleural Effusion 1, Edema 1",
        "negative": "2 uncertain cells (-1) count as without the finding",
        "ignore": "2 uncertain cells (-1) are in no loss and no score: Pleural Effusion 1, Edema 1",
        "leave-out": "2 rows with an uncertain finding (-1)",
    }[uncertain]
    assert said in lines
    assert "empty cells (not mentioned) count as without the finding: Pleural Effusion 1" in lines
    assert "findings whose columns are empty (Fracture)" in lines
    assert "4 taken as findings (No Finding, Pleural Effusion, Edema, …)" in lines
    assert "a picture has no finding, not learned (No Finding)" in lines


def test_uncertain_labels_must_be_decided(tmp_path):
    with pytest.raises(InputError, match=r"2 cells are uncertain \(-1\); say --uncertain ignore"):
        read(chexpert(tmp_path))
    with pytest.raises(InputError, match="learn all with --findings all, or name one: --finding"):
        read(tmp_path, findings=())
    with pytest.raises(InputError, match=r"no column of the finding 'Oedema'; did you mean 'Ede"):
        read(tmp_path, findings=("Oedema", "Pleural Effusion"))
    with pytest.raises(InputError, match="column 'Fracture': is empty in all rows"):
        read(tmp_path, findings=("Edema", "Fracture"), uncertain="ignore")


def test_other_data_may_know_less(tmp_path):
    """Findings that it does not know are unknown, never absent."""
    names = ("Edema", "Mass", "Fracture")
    xrays, texts, lines = read(chexpert(tmp_path), findings=names, uncertain="ignore", strict=False)
    assert xrays.findings == list(names)
    assert texts == ["1??", "0??", "1??", "???"]
    assert "that this data does not know, which are not scored (Mass, Fracture)" in lines
    with pytest.raises(InputError, match="no picture has the finding"):
        read(nih(tmp_path / "nih"), findings=("Hernia", "Edema"), strict=False)


def mimic(home, merged):
    """Two pictures of the first study, one of the second, none of the third."""
    places = {50414267: ("a", "b"), 53189527: ("c",)}
    files = []
    for number, (study, stems) in enumerate(places.items()):
        for stem in stems:
            save(home / "files" / "p10" / f"p1000003{number}" / f"s{study}" / f"{stem}.jpg", number)
            files.append((stem, 10000030 + number, study))
    labels = ["10000030,50414267,1.0,,-1.0", "10000031,53189527,,0.0,1.0", "10000032,5,1.0,1.0,1.0"]
    head = "subject_id,study_id,Edema,Pneumonia,Lung Opacity"
    text = "\n".join([head, *labels]) + "\n"
    parts = ("train", "validate", "test")
    if merged:
        rows = [
            f"{stem},{part},{labels[place]}"
            for (stem, _, _), part, place in zip(files, parts, (0, 0, 1), strict=True)
        ]
        (home / "labels.csv").write_text("\n".join([f"dicom_id,split,{head}", *rows]) + "\n")
        return home
    (home / "mimic-cxr-2.0.0-chexpert.csv.gz").write_bytes(gzip.compress(text.encode()))
    rows = [f"{stem},{subject},{study}" for stem, subject, study in files]
    table = [f"{row},{view}" for row, view in zip(rows, ("PA", "LATERAL", "AP"), strict=True)]
    table = ["dicom_id,subject_id,study_id,ViewPosition", *table]
    (home / "mimic-cxr-2.0.0-metadata.csv").write_text("\n".join(table) + "\n")
    table = [f"{row},{part}" for row, part in zip(rows, parts, strict=True)]
    table = ["dicom_id,subject_id,study_id,split", *table]
    (home / "mimic-cxr-2.0.0-split.csv").write_text("\n".join(table) + "\n")
    return home


@pytest.mark.parametrize("merged", [True, False])
def test_studies_of_mimic_give_their_labels_to_their_pictures(tmp_path, merged):
    xrays, texts, lines = read(mimic(tmp_path, merged), uncertain="ignore")
    assert xrays.findings == ["Edema", "Lung Opacity"]  # no picture has pneumonia
    assert [name.split("/")[-1] for name in xrays.names] == ["a.jpg", "b.jpg", "c.jpg"]
    assert texts == ["1?", "1?", "01"]
    assert xrays.patients == ["10000030", "10000030", "10000031"]
    assert xrays.parts == ["train", "validation", "test"]
    if not merged:
        assert xrays.views == ["PA", "LATERAL", "AP"]
        assert "2 studies whose pictures all get the labels of the study" in lines
        assert "1 studies without a picture" in lines
        assert "split is read from mimic-cxr-2.0.0-split.csv" in lines
        for path in (tmp_path / "files").rglob("*.jpg"):
            path.unlink()
        with pytest.raises(InputError, match=r"no study has pictures in .*--images says where"):
            read(tmp_path, uncertain="ignore")


def test_lists_of_padchest_are_read(home):
    rows = ["0.png,\"['edema', 'mass']\",P1", "1.png,\"['normal']\",P1", "2.png,[],P2"]
    rows.append("3.png,\"['mass', 'pleural effusion', 'mass']\",P2")
    (home / "t.csv").write_text("\n".join(["ImageID,Labels,PatientID", *rows]) + "\n")
    xrays, texts, _ = read(home / "t.csv")
    assert xrays.findings == ["edema", "mass", "pleural effusion"]
    assert texts == ["110", "000", "000", "011"]


def test_boxes_of_vindr_are_joined_by_picture(home):
    rows = [
        "0,Mass,3",
        "0,Nodule,3",
        "1,No finding,14",
        "0,Mass,3",
        "2,Nodule,1",
        "1,No finding,14",
    ]
    (home / "t.csv").write_text("\n".join(["image_id,class_name,class_id", *rows]) + "\n")
    xrays, texts, lines = read(home / "t.csv")
    assert xrays.names == ["0.png", "1.png", "2.png"]
    assert xrays.findings == ["Mass", "Nodule"]
    assert texts == ["11", "00", "01"]
    assert "2 pictures with several rows, joined: they have what one of the rows says" in lines


def test_readers_of_vindr_are_joined_and_other_rows_are_not(home):
    rows = ["0,R1,1,0", "0,R2,0,1", "1,R1,0,0", "1,R3,0,0", "2,R1,0,1"]
    text = "\n".join(["image_id,rad_id,Mass,Nodule", *rows]) + "\n"
    (home / "t.csv").write_text(text)
    xrays, texts, _ = read(home / "t.csv")
    assert xrays.names == ["0.png", "1.png", "2.png"]
    assert texts == ["11", "00", "01"]
    (home / "t.csv").write_text(text.replace("rad_id", "remark"))
    with pytest.raises(InputError, match="has the labels 'Mass' and 'Nodule'"):
        read(home / "t.csv")


def test_columns_of_findings_that_nobody_knows_are_named(home):
    rows = ["0.png,1,0,1", "1.png,0,1,0", "2.png,1,1,1"]
    (home / "t.csv").write_text("\n".join(["image,wet,dry,male", *rows]) + "\n")
    _, texts, lines = read(home / "t.csv", findings=("wet", "dry"))
    assert texts == ["10", "01", "11"]
    assert "1 not used (male)" in lines
    with pytest.raises(InputError, match="name its columns: --findings NAME NAME"):
        read(home / "t.csv")
    (home / "t.csv").write_text("image,label\n0.png,a\n1.png,normal\n")
    with pytest.raises(InputError, match=r"has fewer than two findings \(a\)"):
        read(home / "t.csv")


def test_chestmnist_has_fourteen_findings(tmp_path):
    arrays = {}
    for word in ("train", "val", "test"):
        arrays[f"{word}_images"] = np.zeros((2, 8, 8), np.uint8)
        labels = np.zeros((2, 14), np.uint8)
        labels[0, [0, 13]] = 1
        arrays[f"{word}_labels"] = labels
    np.savez(tmp_path / "chestmnist.npz", **arrays)
    xrays, texts, _ = read(tmp_path / "chestmnist.npz")
    assert xrays.findings == ["Atelectasis", "Hernia"]
    assert texts == ["11", "00"] * 3


def test_labels_that_are_not_used_are_not_refused(tmp_path):
    """A body is trained on the masks alone."""
    for home in (nih(tmp_path / "nih"), chexpert(tmp_path / "chexpert")):
        assert len(read_xray_set(home, Reading(use_labels=False))) == 4


def test_a_table_of_any_format_is_read_alike(home):
    table = pl.DataFrame({"image": ["0.png", "1.png", "2.png"], "Edema": [1, None, -1],
                          "Mass": [1.0, 0.0, 1.0]})  # fmt: skip
    table.write_parquet(home / "t.parquet")
    _, texts, _ = read(home / "t.parquet", uncertain="ignore")
    assert texts == ["11", "00", "?1"]
