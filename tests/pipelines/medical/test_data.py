"""What a training makes of its pictures: copies, unreadable ones, the finding, parts of members;
and which items a prediction has.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL", reason="the extra `vision` is not installed")
pytest.importorskip("timm", reason="the extra `vision` is not installed")

from PIL import Image

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.xrays.records import Reading
from headwise.data.xrays.xrays import read_xray_set
from headwise.pipelines.medical import data as medical_data
from headwise.pipelines.medical.data import MedicalSpec, member_of, open_splits
from headwise.pipelines.medical.explain import read_boxes, read_lungs
from headwise.pipelines.medical.option_rules import check
from headwise.pipelines.medical.options import BodyOptions, MedicalOptions, MedicalPredictOptions
from headwise.pipelines.medical.prediction import list_items, own_prediction, read_item
from headwise.pipelines.medical.verbs import body as body_verb

SIZES = {"size": (32, 32), "body_size": (16, 16)}
PARTS = ("train", "validation", "test")


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (9, 7), dtype=np.uint8)


@pytest.fixture
def home(tmp_path):
    """24 pictures, two of each patient, of two classes."""
    lines = ["image,label,patient"]
    for k in range(24):
        save(tmp_path / "p" / f"{k}.png", noise(k))
        lines.append(f"p/{k}.png,{'ill' if k % 4 < 2 else 'well'},P{k // 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def splits_of(home, spec=None, accept=(), **options):
    with opened(accept) as account:
        splits = open_splits(MedicalOptions(data=str(home), **SIZES, **options), spec)
    return splits, account.lines()


def part_of(splits) -> dict[str, str]:
    return {name: part for part in PARTS for name in getattr(splits, part).column("names")}


def test_exact_copies_share_a_part_whatever_their_files_are(home):
    """The pixels count: as bmp, under another name, of another patient."""
    for k, other in ((0, 5), (8, 17), (12, 20)):
        save(home / "p" / f"copy{k}.bmp", noise(k))
        with (home / "labels.csv").open("a") as table:
            table.write(f"p/copy{k}.bmp,{'ill' if k % 4 < 2 else 'well'},P{other // 2}\n")
    splits, lines = splits_of(home)
    parts = part_of(splits)
    for k, other in ((0, 5), (8, 17), (12, 20)):
        assert parts[f"p/{k}.png"] == parts[f"p/copy{k}.bmp"]
        assert parts[f"p/{k}.png"] == parts[f"p/{other}.png"]  # the patients are joined
    assert any("3 exact copies of other pictures; copies share a part" in line for line in lines)
    assert [sorted(names) for names in splits.spec.copies] == [
        [f"p/{k}.png", f"p/copy{k}.bmp"] for k in (0, 8, 12)
    ]


def test_copies_in_two_parts_or_with_two_labels_are_doubts(home):
    lines = (home / "labels.csv").read_text().splitlines()
    table = [
        f"{lines[0]},part",
        *(f"{line},{PARTS[k // 4 % 3]}" for k, line in enumerate(lines[1:])),
    ]
    save(home / "p" / "copy.png", noise(0))
    (home / "labels.csv").write_text("\n".join([*table, "p/copy.png,ill,PX,test"]) + "\n")
    with pytest.raises(InputError, match=r"exact copies in train and in test.*--accept copies"):
        splits_of(home)
    splits, _ = splits_of(home, accept=("copies",))
    assert part_of(splits)["p/copy.png"] == "test"
    (home / "labels.csv").write_text("\n".join([*lines, "p/copy.png,well,PX"]) + "\n")
    with pytest.raises(InputError, match="exact copies with the labels 'ill' and 'well'"):
        splits_of(home)


def test_pictures_that_cannot_be_read_are_left_out_and_named(home):
    content = (home / "p" / "3.png").read_bytes()
    (home / "p" / "3.png").write_bytes(content[: len(content) // 2])
    splits, lines = splits_of(home)
    assert "p/3.png" not in part_of(splits)
    assert sum(splits.spec.parts.values()) == 23
    assert splits.spec.unread == ["p/3.png"]
    start = "left out: 1 pictures that are missing or cannot be read (p/3.png: "
    assert any(line.startswith(start) for line in lines)
    for k in (5, 9):
        (home / "p" / f"{k}.png").write_bytes(b"")
    with pytest.raises(InputError, match="3 of 24 pictures cannot be read"):
        splits_of(home)


def test_a_run_finds_its_parts_again_without_reading_a_picture(home, monkeypatch):
    (home / "p" / "3.png").write_bytes(b"")
    save(home / "p" / "copy.png", noise(8))
    with (home / "labels.csv").open("a") as table:
        table.write("p/copy.png,ill,P5\n")
    splits, _ = splits_of(home)
    spec = MedicalSpec.from_json(json.loads(json.dumps(splits.spec.to_json())))

    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(medical_data, "read_row", refuse)
    again, _ = splits_of(home, spec)
    assert part_of(again) == part_of(splits)


def test_the_spec_of_an_older_run_opens_with_its_old_rule(home):
    splits, _ = splits_of(home)
    values = splits.spec.to_json()
    older = {name: values[name] for name in values if name not in ("copies", "unread", "rule")}
    spec = MedicalSpec.from_json(older)
    assert (spec.copies, spec.unread, spec.rule) == ([], [], "most probable")
    assert part_of(splits_of(home, spec)[0]) == part_of(splits)


def test_members_are_the_pictures_of_each_part(home):
    splits, _ = splits_of(home)
    for part in PARTS:
        files = [member.file for member in splits.members[part]]
        assert files == getattr(splits, part).column("files")
    assert member_of("a.npz", "train/3", ("train_images", 3)).id == "train/3"
    assert member_of("a.png", "a.png", None).id == ""


def test_a_finding_makes_two_classes_of_which_it_is_the_positive_one(home):
    text = (home / "labels.csv").read_text().replace("ill", "Mass|Edema").replace("well", "Edema")
    (home / "labels.csv").write_text(text)
    spec = splits_of(home, finding="Mass")[0].spec
    assert (spec.classes, spec.positive) == (["no Mass", "Mass"], 1)
    assert spec.to_json()["classes"] == ["no Mass", "Mass"]
    for options, message in (
        ({"finding": "Mass", "classes": ("a", "b")}, "leave out --classes"),
        ({"finding": "Mass", "positive": "Mass"}, "leave out --classes and --positive"),
        ({"uncertain": "positive"}, "needs --finding"),
        ({"body_share": 0.5}, "--body-share: is read by .* --body;"),
        ({"attention": "none", "head_width": 4}, "--head-width: is read by .* with a body"),
        ({"sees": "local", "body_size": (32, 32)}, "--body-size: is read by .* with a body"),
    ):
        with pytest.raises(InputError, match=message):
            check(MedicalOptions(**options))


def test_other_data_is_scored_without_what_cannot_be_read(home):
    splits, _ = splits_of(home)
    (home / "p" / "3.png").write_bytes(b"")
    options = MedicalOptions(data=str(home), **SIZES)
    with opened() as account:
        test = open_splits(options, splits.spec, as_test=True).test
    assert len(test) == 23
    assert "p/3.png" not in test.column("names")
    assert any("cannot be read (p/3.png" in line for line in account.lines())
    named = replace(options, columns=("label=outcome",))  # of the training's table
    assert len(open_splits(named, splits.spec, as_test=True).test) == 23


def test_boxes_ask_each_picture_once_and_may_lie_in_medmnist(home, tmp_path):
    xrays = read_xray_set(home)
    table = tmp_path / "boxes.csv"
    table.write_text("image,x,y,width,height\n0.png,0,0,7,9\np/0.png,1,1,1,1\n1.png,,,,\n")
    asked = []

    def sides(row):
        asked.append(row)
        return 9, 7

    with opened() as account:
        boxes = read_boxes(xrays, str(table), None, sides)
    assert boxes == {0: [(0, 0, 1, 1), (1 / 7, 1 / 9, 2 / 7, 2 / 9)]}
    assert asked == [0]
    assert any("rows of" in line and "without a box" in line for line in account.lines())
    table.write_text("image,x,y,w,h\n2.png,0.1,0.2,0.5,0.25\n")
    with opened() as account:
        shares = read_boxes(xrays, str(table), None)[2]
    assert np.allclose(shares, [(0.1, 0.2, 0.6, 0.45)])
    assert "are from 0 to 1, as shares of the sides" in account.lines()[0]
    arrays = {}
    for word in ("train", "val", "test"):
        arrays[f"{word}_images"] = np.zeros((2, 8, 8), np.uint8)
        arrays[f"{word}_labels"] = np.array([[0], [1]], np.uint8)
    np.savez(tmp_path / "a.npz", **arrays)
    table.write_text("image,x,y,w,h\nval/1,0,0,4,8\n")
    packed = read_xray_set(tmp_path / "a.npz")
    assert read_boxes(packed, str(table), None) == {3: [(0.0, 0.0, 0.5, 1.0)]}


def test_masks_and_boxes_are_counted(home, tmp_path):
    for k in range(3):
        save(tmp_path / "lungs" / f"{k}.png", noise(k))
    (tmp_path / "b.csv").write_text("image,x,y,w,h\n2.png,0,0,5,5\n2.png,1,1,2,2\n")
    named = {"lungs": str(tmp_path / "lungs"), "boxes": str(tmp_path / "b.csv")}
    _, lines = splits_of(home, **named)
    assert lines[0] == "read: 24 pictures; 3 lung masks; 1 pictures with boxes"


def test_masks_belong_to_the_picture_of_their_path_before_that_of_their_name(tmp_path):
    for k, name in enumerate(("a/1.png", "b/1.png", "b/2.png")):
        save(tmp_path / "x" / name, noise(k))
    for name in ("a/1.png", "2.png", "1.png"):
        save(tmp_path / "lungs" / name, noise(9))
    masks = read_lungs(read_xray_set(tmp_path / "x"), str(tmp_path / "lungs"))
    home = tmp_path / "lungs"
    assert masks == {0: str(home / "a/1.png"), 2: str(home / "2.png")}


def predict_items(path, **options):
    return list_items(MedicalPredictOptions(run="r", output="o", input=str(path), **options))


def test_a_table_to_predict_from_lists_every_picture_also_broken_ones(home):
    """A DICOM file that is damaged, a picture that is not there: rows of their own."""
    (home / "p" / "0.png").unlink()
    (home / "p" / "broken.dcm").write_bytes(bytes(128) + b"DICM" + bytes(50))
    (home / "new.csv").write_text("filename,age\np/0.png,1\np/broken.dcm,2\n1.png,3\n")
    items = predict_items(home / "new.csv")
    assert [item["id"] for item in items] == ["p/0.png", "p/1.png", "p/broken.dcm"]
    spec = splits_spec()
    with pytest.raises(InputError, match=r"there is no picture 'p/0\.png'"):
        read_item(items[0], spec)
    assert read_item(items[1], spec).picture.shape == (1, 32, 32)
    with pytest.raises(InputError, match=r"broken\.dcm"):
        read_item(items[2], spec)
    (home / "new.csv").write_text("scan\n1.png\n")
    assert (
        len(predict_items(home / "new.csv", columns=("image=scan",), images=str(home / "p"))) == 1
    )
    with pytest.raises(InputError, match="--images is read with a table"):
        predict_items(home / "p", images=str(home))


def splits_spec() -> MedicalSpec:
    return MedicalSpec(
        input={"pictures": 1, "patients": 1, "size": [32, 32], "body size": [16, 16]},
        classes=["a", "b"],
        positive=1,
        layout="table",
        parts={},
    )


def test_long_names_leave_room_for_the_name_that_a_file_is_written_under(tmp_path):
    names = [f"{'ä' * 120}{k}.png" for k in range(2)]
    for k, name in enumerate(names):
        save(tmp_path / name, noise(k))
    items = predict_items(tmp_path)
    assert [item["id"] for item in items] == names
    pictures = [item["picture"] for item in items]
    assert len(set(pictures)) == 2
    for picture in pictures:
        assert len(os.fsencode(picture)) < 230
        assert picture.endswith(".png")
    save(tmp_path / "short.png", noise(3))
    assert predict_items(tmp_path)[0]["picture"] == "short.png"


def test_folders_of_masks_are_left_out_of_a_prediction_and_named(home):
    save(home / "lungs" / "1.png", noise(1))
    with opened() as account:
        items = predict_items(home)
    assert len(items) == 24
    assert account.lines()[0] == "read: 24 pictures"
    assert "1 pictures in folders of masks (lungs/1.png)" in account.lines()[1]
    assert read_xray_set(home / "labels.csv", Reading(need_label=False)).names[0] == "p/0.png"


def test_the_body_is_trained_on_pictures_with_a_mask_and_says_how_many_have_none(home):
    for k in range(10):
        save(home / "lungs" / f"{k}.png", noise(k))
    options = BodyOptions(data=str(home), lungs=str(home / "lungs"), output="o")
    with opened() as account:
        masks = body_verb._read(options)
    assert masks.names == [f"p/{k}.png" for k in range(10)]
    assert "left out: 14 pictures without a lung mask" in account.lines()


def test_a_training_ends_with_the_pictures_that_it_was_given(home, tmp_path):
    """Wherever they lie and whatever their column is called."""
    lists = tmp_path / "lists"
    lists.mkdir()
    table = (home / "labels.csv").read_text().replace("p/", "").replace("image,", "scan,")
    (lists / "labels.csv").write_text(table)
    columns = ("image=scan", "label=label")
    for data in (lists / "labels.csv", lists):
        options = MedicalOptions(data=str(data), images=str(home / "p"), columns=columns, **SIZES)
        values = {"run": "r", "output": "o", "input": options.data, **own_prediction(options)}
        items = list_items(MedicalPredictOptions(**values))
        with opened():
            splits = open_splits(options)
        members = {member.file for part in PARTS for member in splits.members[part]}
        assert {item["file"] for item in items} == members
        assert not any("problem" in item for item in items)
        assert not values["explain"]


def test_studies_are_predicted_picture_by_picture(tmp_path):
    for study, stem in ((5, "a"), (5, "b"), (6, "c")):
        save(tmp_path / "files" / "p10" / f"s{study}" / f"{stem}.png", noise(study))
    (tmp_path / "t.csv").write_text("subject_id,study_id,Edema\n1,5,1\n2,6,0\n3,7,1\n")
    items = predict_items(tmp_path / "t.csv")
    assert [item["id"][-5:] for item in items] == ["a.png", "b.png", "c.png"]
