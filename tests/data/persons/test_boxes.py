"""Tables of boxes: columns, MOTChallenge, classes, cameras, and lines for what is wrong."""

import polars as pl
import pytest

from headwise.base.errors import InputError
from headwise.data.persons.boxes import class_numbers, read_boxes

SIZES = ["frame", "x", "y", "width", "height"]


def table(tmp_path, text: str, name: str = "boxes.csv"):
    (tmp_path / name).write_text(text)
    return read_boxes(tmp_path / name)


def test_named_columns_with_sizes_and_with_corners_are_the_same(tmp_path) -> None:
    sized = table(tmp_path, "frame,x,y,width,height\n1,2,3,10,20\n2,0,0.5,4,4\n")
    corners = table(tmp_path, "frame,x1,y1,x2,y2\n1,2,3,12,23\n2,0,0.5,4,4.5\n", "corners.csv")
    assert sized.rows.select(SIZES).rows() == corners.rows.select(SIZES).rows()
    assert sized.rows.select(SIZES).rows() == [("1", 2, 3, 10, 20), ("2", 0, 0.5, 4, 4)]
    assert sized.rows["score"].to_list() == [None, None]


def test_frames_are_found_by_name_stem_and_number(tmp_path) -> None:
    boxes = table(
        tmp_path,
        "image,x,y,width,height,track\nin/000007.jpg,1,1,5,5,a\n8,1,1,5,5,-1\n000009,1,1,5,5,c\n",
    )
    assert boxes.of("000007.jpg", 1)["identity"].to_list() == ["a"]
    assert boxes.of("000008.jpg", 8)["identity"].to_list() == [None]
    assert boxes.of("x.jpg", 9)["identity"].to_list() == ["c"]
    assert len(boxes.of("000001.jpg", 1)) == 0


def test_motchallenge_counts_pixels_from_one_and_knows_its_classes(tmp_path) -> None:
    text = "1,3,11,21,30,60,1,1,0.9\n1,-1,1,1,5,5,0,3,1\n2,4,7,7,9,9,1,7,0.5\n"
    boxes = table(tmp_path, text, "gt.txt")
    assert boxes.rows.select(SIZES).rows() == [
        ("1", 10, 20, 30, 60),
        ("1", 0, 0, 5, 5),
        ("2", 6, 6, 9, 9),
    ]
    assert boxes.rows["identity"].to_list() == ["3", None, "4"]
    assert boxes.of_classes(["person"]).rows["frame"].to_list() == ["1"]
    assert boxes.of_classes(["car", "7"]).rows["identity"].to_list() == [None, "4"]
    with pytest.raises(InputError, match=r"no box is of --classes bus; there are .*person \(1\)"):
        boxes.of_classes(["bus"])
    # Of a detector: ten columns, no class; the first line alone would pass for a header.
    detected = table(tmp_path, "1,-1,5,6,7,8,0.9,-1,-1,-1\n1,-1,15,6,7,8,0.2,-1,-1,-1\n", "det.txt")
    assert detected.rows["score"].to_list() == [0.9, 0.2]
    assert detected.rows["label"].to_list() == [None, None]
    assert len(detected.of_classes(["person"]).rows) == 2


def test_cameras_are_read(tmp_path) -> None:
    boxes = table(tmp_path, "frame,x,y,width,height,camera\n1,1,1,5,5,left\n1,2,2,5,5,right\n")
    with pytest.raises(InputError, match="several cameras"):
        boxes.of_camera(None)
    assert boxes.of_camera("right").rows["x"].to_list() == [2]
    with pytest.raises(InputError, match="no box of --camera rihgt"):
        boxes.of_camera("rihgt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no column 'frame'"),
        ("frame,x,y,width\n1,1,1,1\n", "no column 'height'"),
        ("frame,x,y,width,height\n1,1,1,nine,2\n", "row 2: width is 'nine', not a number"),
        ("frame,x,y,width,height\n1,1,1,2,2\n,1,1,2,2\n", "row 3: .* is empty"),
        ("frame,x,y,width,height\na/1.jpg,1,1,2,2\nb/1.jpg,1,1,2,2\n", "lies in several folders"),
        ("1,2,3\n4,5,6\n", "has 3 columns and no header"),
    ],
)
def test_mistakes_are_one_line(tmp_path, text, message) -> None:
    with pytest.raises(InputError, match=message) as error:
        table(tmp_path, text)
    assert "\n" not in str(error.value)


def test_classes_are_named_or_numbered() -> None:
    assert class_numbers(["Person", "7", "unicorn"], {0: "person", 7: "truck"}) == {0, 7}


def test_real_ground_truth_is_read(real_data) -> None:
    home = real_data / "reid" / "mot17_mini" / "raw" / "train" / "MOT17-02-FRCNN"
    if not home.is_dir():
        pytest.skip("no MOT17 frames here")
    boxes = read_boxes(home / "gt" / "gt.txt")
    raw = pl.read_csv(home / "gt" / "gt.txt", has_header=False, new_columns=list("abcdefghi"))
    assert len(boxes.rows) == len(raw)
    assert boxes.rows["x"].to_list() == (raw["c"] - 1).cast(pl.Float64).to_list()
    people = boxes.of_classes(["person"]).rows
    assert len(people) == (raw["h"] == 1).sum()
