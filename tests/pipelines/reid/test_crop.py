"""The verb crop: boxes to crops, what is left out, damage, and going on after a stop."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

pytest.importorskip("PIL", reason="Pillow is optional (extra vision) and not installed")

from PIL import Image

from headwise.base.errors import InputError
from headwise.data.formats.pictures import read_picture
from headwise.data.persons.boxes import BoxTable
from headwise.data.persons.persons import read_picture_set
from headwise.pipelines.reid import cropping
from headwise.pipelines.reid.cropping import inside, numbered_as

BOXES = """frame,x,y,width,height,score,identity
1,10,20,30,60,0.9,7
1,80,10,30,60,0.2,8
1,190,100,30,60,0.9,8
2,40,20,30,60,0.8,7
2,300,20,30,60,0.8,9
2,50,50,5,60,0.8,9
3,10,20,30,60,0.8,9
"""


@pytest.fixture
def frames(tmp_path) -> Path:
    """Three frames of 200 x 150 whose red counts columns and green rows."""
    home = tmp_path / "street"
    home.mkdir()
    y, x = np.mgrid[:150, :200]
    for number in (1, 2, 3):
        pixels = np.stack([x, y, np.full_like(x, 50 * number)], -1).astype(np.uint8)
        Image.fromarray(pixels).save(home / f"{number:06d}.png")
    (tmp_path / "boxes.csv").write_text(BOXES)
    return home


def test_crops_are_the_pixels_of_their_boxes(frames, headwise, tmp_path) -> None:
    code, lines = headwise(
        "reid",
        "crop",
        "--input",
        frames,
        "--boxes",
        tmp_path / "boxes.csv",
        "--output",
        tmp_path / "out",
    )
    assert code == 0, lines
    table = pl.read_csv(tmp_path / "out" / "crops.csv")
    assert table.select("frame", "x", "y", "width", "height", "identity").rows() == [
        (1, 10, 20, 30, 60, 7),
        (2, 40, 20, 30, 60, 7),
        (3, 10, 20, 30, 60, 9),
    ]
    assert table["camera"].unique().to_list() == ["street"]
    for row in table.iter_rows(named=True):
        picture = read_picture(tmp_path / "out" / row["image"]).astype(int)
        assert picture.shape == (3, 60, 30)
        assert abs(picture[0, :, 3] - (row["x"] + 3)).max() <= 6  # JPEG
        assert abs(picture[1, 7] - (row["y"] + 7)).max() <= 6
        assert abs(picture[2] - 50 * row["frame"]).max() <= 6
    text = "\n".join(lines)
    for part in (
        "3 crops of 3 frames",
        "1 boxes with a score below",
        "1 boxes without area",
        "2 boxes smaller",
    ):
        assert part in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["boxes.csv", "out", "street"]
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [
        ".csv",
        ".jpg",
        ".jpg",
        ".jpg",
        ".json",
        ".png",
    ]


def test_the_table_is_one_to_train_on(frames, headwise, tmp_path) -> None:
    output = tmp_path / "out"
    assert (
        headwise(
            "reid", "crop", "--input", frames, "--boxes", tmp_path / "boxes.csv", "--output", output
        )[0]
        == 0
    )
    pictures = read_picture_set(output / "crops.csv")
    assert pictures.identities == ["7", "7", "9"]
    assert pictures.cameras == ["street"] * 3


def test_a_frame_that_cannot_be_read_stops_nothing(frames, headwise, tmp_path) -> None:
    (frames / "000002.png").write_bytes(b"nothing")
    code, lines = headwise(
        "reid",
        "crop",
        "--input",
        frames,
        "--boxes",
        tmp_path / "boxes.csv",
        "--output",
        tmp_path / "out",
    )
    assert code == 3
    assert any("000002.png" in line for line in lines)
    assert pl.read_csv(tmp_path / "out" / "crops.csv")["frame"].to_list() == [1, 3]


def test_an_interrupted_job_continues(frames, headwise, tmp_path, monkeypatch) -> None:
    command = (
        "reid",
        "crop",
        "--input",
        frames,
        "--boxes",
        tmp_path / "boxes.csv",
        "--output",
        tmp_path / "out",
    )
    crop_frame = cropping.crop_frame

    def stop_at_three(frame, *arguments):
        if frame.number == 3:
            raise KeyboardInterrupt
        return crop_frame(frame, *arguments)

    monkeypatch.setattr(cropping, "crop_frame", stop_at_three)
    assert headwise(*command)[0] == 130
    assert not (tmp_path / "out").exists()
    lines = (tmp_path / "out.part" / "frames.jsonl").read_text()
    assert [json.loads(line)["frame"] for line in lines.splitlines()] == [1, 2]
    (tmp_path / "out.part" / "frames.jsonl").write_text(
        lines + '{"frame": 3, "na'
    )  # killed within a line
    code, messages = headwise(*command, "--margin", "0.5")
    assert (code, len(messages)) == (2, 1)
    assert "was begun with other options" in messages[0]
    numbers = []
    monkeypatch.setattr(
        cropping,
        "crop_frame",
        lambda frame, *arguments: numbers.append(frame.number) or crop_frame(frame, *arguments),
    )
    assert headwise(*command)[0] == 0
    assert numbers == [3]
    assert pl.read_csv(tmp_path / "out" / "crops.csv")["frame"].to_list() == [1, 2, 3]
    assert not (tmp_path / "out.part").exists()


def test_foreign_files_are_never_replaced(frames, headwise, tmp_path) -> None:
    command = ("reid", "crop", "--input", frames, "--boxes", tmp_path / "boxes.csv", "--output")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for words, message in (((), "is not empty"), (("--overwrite",), "is no folder of crops")):
        code, lines = headwise(*command, tmp_path / "mine", *words)
        assert (code, len(lines)) == (2, 1)
        assert message in lines[0]
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"
    assert headwise(*command, tmp_path / "out")[0] == 0
    assert headwise(*command, tmp_path / "out")[0] == 2
    assert headwise(*command, tmp_path / "out", "--overwrite", "--least-score", "0.1")[0] == 0
    assert len(pl.read_csv(tmp_path / "out" / "crops.csv")) == 4
    code, lines = headwise(*command, frames)
    assert code == 2
    assert "is read by this command" in lines[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs --boxes, or --config and --checkpoint"),
        (["--boxes", "boxes.csv", "--config", "c.py"], "exclude each other"),
        (["--boxes", "boxes.csv", "--least-score", "2"], "no crop came out: 7 with a score below"),
        (["--boxes", "other.csv"], "none of its boxes belongs to a frame"),
        (["--boxes", "none.csv"], "none.csv"),
        (["--config", "none.py", "--checkpoint", "none.pth"], "none.py"),
        (["--config", "c", "--checkpoint", "c", "--first-frame", "0"], "is read by --boxes"),
        (["--boxes", "boxes.csv", "--first-frame", "2"], "--first-frame 2: must be 0 or 1"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    frames, headwise, tmp_path, monkeypatch, words, message
) -> None:
    monkeypatch.chdir(tmp_path)
    if "none.pth" in words:
        pytest.importorskip(
            "mmdet", reason="mmdetection is optional (extra openmmlab) and not installed"
        )
    (tmp_path / "other.csv").write_text("frame,x,y,width,height\nfoo.jpg,1,1,20,20\n")
    code, lines = headwise("reid", "crop", "--input", frames, "--output", "out", *words)
    assert code == 2
    assert message in lines[-1]
    assert not Path("out").exists()


def crops(headwise, frames, tmp_path, boxes: str, *words, name="b.csv") -> tuple[int, list[str]]:
    (tmp_path / name).write_text(boxes)
    command = ("reid", "crop", "--input", frames, "--boxes", tmp_path / name, "--overwrite")
    return headwise(*command, "--output", tmp_path / "out", *words)


def table_of(tmp_path) -> list[tuple]:
    columns = ("frame", "x", "y", "width", "height")
    return pl.read_csv(tmp_path / "out" / "crops.csv").select(columns).rows()


class TestNumbersOfFrames:
    """A box that moves by 10 from frame to frame, so that it tells which one it was made for."""

    @pytest.fixture
    def film(self, tmp_path) -> Path:
        av = pytest.importorskip("av", reason="PyAV is optional (extra video) and not installed")
        with av.open(str(tmp_path / "film.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
            for number in range(4):
                pixels = np.full((96, 160, 3), 40, np.uint8)
                pixels[20:60, 20 * number : 20 * number + 20] = 230
                for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
        return tmp_path / "film.mp4"

    def boxes(self, first: int, count: int = 4) -> str:
        rows = [f"{first + k},{20 * k},20,20,40" for k in range(count)]
        return "frame,x,y,width,height\n" + "\n".join(rows)

    @pytest.mark.parametrize(
        ("first", "words", "said"),
        [
            (0, (), "frame 0 of the boxes is the first"),
            (1, (), ""),
            (0, ("--first-frame", 0), "frame 0 of the boxes is the first"),
            (1, ("--first-frame", 1), ""),
        ],
    )
    def test_boxes_are_cut_from_their_own_frame(
        self, film, headwise, tmp_path, first, words, said
    ) -> None:
        code, lines = crops(headwise, film, tmp_path, self.boxes(first), *words)
        assert code == 0, lines
        assert [row[:2] for row in table_of(tmp_path)] == [(k + 1, 20 * k) for k in range(4)]
        for image in pl.read_csv(tmp_path / "out" / "crops.csv")["image"]:
            assert read_picture(tmp_path / "out" / image).mean() > 200
        assumed = [line for line in lines if "--first-frame" in line]
        assert (said in assumed[0]) if said else not assumed

    def test_what_the_boxes_do_not_tell_is_said(self, film, headwise, tmp_path) -> None:
        code, lines = crops(headwise, film, tmp_path, self.boxes(1, 2))
        assert code == 0
        assert any("count frames from 1 (--first-frame 0: from 0)" in line for line in lines)
        code, lines = crops(headwise, film, tmp_path, self.boxes(1, 2), "--first-frame", 0)
        assert [row[0] for row in table_of(tmp_path)] == [2, 3]

    def test_numbers_in_names_of_files(self) -> None:
        def numbers(first: int, last: int, span: tuple[int, int], first_frame=None) -> list[str]:
            rows = pl.DataFrame({"frame": [str(first), str(last), "a.jpg"]})
            return numbered_as(BoxTable("b", rows, {}), span, first_frame).rows["frame"].to_list()

        assert numbers(0, 9, (0, 9)) == ["0", "9", "a.jpg"]
        assert numbers(17, 20, (17, 30)) == ["17", "20", "a.jpg"]
        assert numbers(1, 10, (0, 9)) == ["0", "9", "a.jpg"]
        assert numbers(1, 9, (0, 9)) == ["1", "9", "a.jpg"]
        assert numbers(0, 5, (17, 30), 0) == ["17", "22", "a.jpg"]
        with pytest.raises(InputError, match=r"numbered from 17; .*--first-frame 0"):
            numbers(0, 5, (17, 30))
        with pytest.raises(InputError, match="names its frames by file"):
            numbered_as(BoxTable("b", pl.DataFrame({"frame": ["a"]}), {}), (1, 9), 0)


def test_boxes_as_shares_of_the_frame(frames, headwise, tmp_path) -> None:
    corner = "frame,x,y,width,height\n1,0.05,0.2,0.15,0.4\n"
    code, lines = crops(headwise, frames, tmp_path, corner)
    assert code == 0, lines
    assert table_of(tmp_path) == [(1, 10, 30, 30, 60)]
    assert any("shares of the frame" in line and "--centre" in line for line in lines)
    middle = "frame,xc,yc,w,h\n1,0.125,0.4,0.15,0.4\n"
    assert crops(headwise, frames, tmp_path, middle)[0] == 0
    assert table_of(tmp_path) == [(1, 10, 30, 30, 60)]
    middle = "frame,x,y,width,height\n1,0.925,0.8,0.15,0.4\n"
    code, lines = crops(headwise, frames, tmp_path, middle)
    assert code == 2
    assert "end outside of the frame; if x and y are the middle" in lines[-1]
    assert crops(headwise, frames, tmp_path, middle, "--centre")[0] == 0
    assert table_of(tmp_path) == [(1, 170, 90, 30, 60)]


def test_people_that_are_hidden_are_left_out(frames, headwise, tmp_path) -> None:
    truth = "".join(f"1,{k},11,21,30,60,1,1,{v}\n" for k, v in enumerate((1, 0.3, 0.0, -1), 1))
    code, lines = crops(headwise, frames, tmp_path, truth, name="gt.txt")
    assert code == 0
    assert pl.read_csv(tmp_path / "out" / "crops.csv")["identity"].to_list() == [1, 2, 4]
    assert any("1 boxes of people that are hidden" in line for line in lines)
    words = ("--least-visibility", 0.5)
    assert crops(headwise, frames, tmp_path, truth, *words, name="gt.txt")[0] == 0
    assert pl.read_csv(tmp_path / "out" / "crops.csv")["identity"].to_list() == [1, 4]


def test_other_names_of_columns_are_taken_and_said(frames, headwise, tmp_path) -> None:
    text = "frame_number,bb_left,bb_top,bb_width,bb_height,track_id,note\n1,10,20,30,60,nan,x\n"
    code, lines = crops(headwise, frames, tmp_path, text)
    assert code == 0, lines
    assert table_of(tmp_path) == [(1, 10, 20, 30, 60)]
    assert "identity" not in pl.read_csv(tmp_path / "out" / "crops.csv").columns
    (columns,) = (line for line in lines if line.startswith("columns"))
    assert "'bb_left' is taken as the x" in columns
    assert "not used (note)" in columns
    text = "shot,a,b,c,d\n1,10,20,40,80\n"
    words = ("--columns", "frame=shot", "x1=a", "y1=b", "x2=c", "y2=d")
    assert crops(headwise, frames, tmp_path, text, *words)[0] == 0
    assert table_of(tmp_path) == [(1, 10, 20, 30, 60)]
    code, lines = crops(headwise, frames, tmp_path, text, "--columns", "frame=shoot")
    assert code == 2
    assert "no column 'shoot'; did you mean 'shot'" in lines[-1]


def test_a_folder_of_the_user_next_to_the_crops_is_left_alone(frames, headwise, tmp_path) -> None:
    for name in ("out.old", ".aside-mine-out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("x")
    for _ in range(2):
        assert crops(headwise, frames, tmp_path, BOXES)[0] == 0
    for name in ("out.old", ".aside-mine-out"):
        assert (tmp_path / name / "thesis.txt").read_text() == "x"
    present = sorted(path.name for path in tmp_path.iterdir())
    assert present == [".aside-mine-out", "b.csv", "boxes.csv", "out", "out.old", "street"]
    account = json.loads((tmp_path / "out" / "account.json").read_text())
    counted = {entry["what"]: entry["count"] for entry in account}
    assert (counted["frames"], counted["boxes"]) == (3, 7)
    assert counted["boxes smaller than --least"] == 2


def test_boxes_are_widened_and_cut() -> None:
    def box(x, y, width, height):
        return {"x": x, "y": y, "width": width, "height": height}

    assert inside(box(10, 20, 30, 60), 0, 200, 150) == ((10, 20, 40, 80), False)
    assert inside(box(10, 20, 30, 60), 0.2, 200, 150) == ((7, 14, 43, 86), False)
    assert inside(box(-5, 20, 30, 200), 0, 200, 150) == ((0, 20, 25, 150), True)
    assert inside(box(200, 20, 30, 20), 0, 200, 150)[0] is None
    assert inside(box(20, 20, 0, 20), 0, 200, 150)[0] is None
    assert inside(box(20, 20, float("nan"), 20), 0, 200, 150)[0] is None


def test_real_frames(real_data, headwise, tmp_path) -> None:
    home = real_data / "reid" / "mot17_mini" / "raw" / "train" / "MOT17-02-FRCNN"
    if not home.is_dir():
        pytest.skip("no MOT17 frames here")
    code, _ = headwise(
        "reid",
        "crop",
        "--input",
        home,
        "--boxes",
        home / "gt" / "gt.txt",
        "--output",
        tmp_path / "out",
        "--every",
        "3",
    )
    assert code == 0
    table = pl.read_csv(tmp_path / "out" / "crops.csv")
    assert table["frame"].unique().sort().to_list() == [1, 4]
    truth = pl.read_csv(home / "gt" / "gt.txt", has_header=False, new_columns=list("abcdefghi"))
    people = truth.filter((pl.col("h") == 1) & pl.col("a").is_in([1, 4]) & (pl.col("g") == 1))
    assert set(table["identity"]) <= set(people["b"])
    assert len(table) >= 0.9 * len(people)
