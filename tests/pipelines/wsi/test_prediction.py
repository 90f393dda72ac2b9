"""Predictions: each slide has features of its own, places that are not known are not drawn, and an
encoder of a stranger is not fetched.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

pytest.importorskip("openslide", reason="OpenSlide is optional (extra wsi) and not installed")

import h5py

from headwise import pipelines
from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.slides.features import SlideFeatures
from headwise.data.slides.generate import draw_slide, write_pyramid
from headwise.data.slides.slides import Slide
from headwise.pipelines import load_task
from headwise.pipelines.engine.pipeline import Context
from headwise.pipelines.wsi import explain, extraction
from headwise.pipelines.wsi.data import WsiSpec
from headwise.pipelines.wsi.options import WsiPredictOptions
from headwise.pipelines.wsi.prediction import ItemReader, list_inputs


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A folder of features as CLAM writes them, and a run that was trained on them."""
    home = tmp_path_factory.mktemp("foreign")
    (home / "f").mkdir()
    lines = ["slide,label"]
    for k in range(20):
        places = np.array([(x, y) for y in range(3) for x in range(3)]) * 1024 + (17, 29)
        with h5py.File(home / "f" / f"s{k}.h5", "w") as file:
            values = np.random.default_rng(k).normal(k % 2, 1, (9, 5))
            file["features"], file["coords"] = values.astype(np.float32), places
        lines.append(f"s{k},{'ab'[k % 2]}")
    (home / "labels.csv").write_text("\n".join(lines))
    pipelines.wsi.train(
        data=home / "labels.csv", features=home / "f", run=home / "run", epochs=1, inner=8
    )
    return home


def test_two_slides_of_one_name_have_features_and_rows_of_their_own(run, tmp_path) -> None:
    slides = tmp_path / "in"
    for k, name in enumerate(("p1/slide1.png", "p2/slide1.png", "s.png", "s.bmp")):
        (slides / name).parent.mkdir(parents=True, exist_ok=True)
        picture = draw_slide(np.random.default_rng(k), 256, k % 2 == 1)
        Image.fromarray(picture).save(slides / name)
    options = {"run": run, "input": slides, "mpp": 0.5, "explain": False}
    alone = pipelines.wsi.predict(output=tmp_path / "a.parquet", **options).table()
    stored = tmp_path / "stored"
    shared = pipelines.wsi.predict(output=tmp_path / "b.parquet", features=stored, **options)
    assert shared.failed == 0
    assert shared.table().equals(alone)
    assert alone["p_tumour"].n_unique() == 4
    assert {path.name for path in stored.glob("*.h5")} == {
        "p1__slide1.png.h5",
        "p2__slide1.png.h5",
        "s.png.h5",
        "s.bmp.h5",
    }
    # Another cohort with the same names gets no features of this one.
    other = tmp_path / "other"
    (other / "p1").mkdir(parents=True)
    picture = draw_slide(np.random.default_rng(99), 256, True)
    Image.fromarray(picture).save(other / "s.png")
    Image.fromarray(picture).save(other / "s.bmp")
    again = pipelines.wsi.predict(
        output=tmp_path / "c.parquet", features=stored, **{**options, "input": other}
    )
    assert again.failed == 2
    assert "holds the features of another slide" in again.table()["error"][0]


def test_a_list_gives_micrometres_slide_by_slide(run, tmp_path) -> None:
    for name in ("a", "b"):
        picture = draw_slide(np.random.default_rng(1), 256, True)
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    (tmp_path / "new.csv").write_text("slide_id,mpp\na,0.5\nb,0.25\nlost,0.5\n")
    done = pipelines.wsi.predict(
        run=run, input=tmp_path / "new.csv", output=tmp_path / "o.parquet", explain=False
    )
    rows = done.table()
    assert (done.failed, rows["item"].to_list()) == (0, ["a", "b"])
    assert rows["tiles"][0] > 2 * rows["tiles"][1]
    (tmp_path / "none.csv").write_text("slide\nx\n")
    with pytest.raises(InputError, match=r"looked for 'x', there is 'a\.png'"):
        pipelines.wsi.predict(
            run=run, input=tmp_path / "none.csv", output=tmp_path / "n.parquet", explain=False
        )


def test_features_without_tiles_or_places_are_rows(foreign, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    with h5py.File(tmp_path / "in" / "a.h5", "w") as file:
        file["features"] = np.ones((4, 5), np.float32)
    with h5py.File(tmp_path / "in" / "b.h5", "w") as file:
        file["features"], file["coords"] = np.ones((1, 5), np.float32), np.zeros((1, 2), int)
    with h5py.File(tmp_path / "in" / "c.h5", "w") as file:
        file["features"], file["coords"] = np.ones((0, 5), np.float32), np.zeros((0, 2), int)
    done = pipelines.wsi.predict(
        run=foreign / "run", input=tmp_path / "in", output=tmp_path / "o.parquet"
    )
    rows = done.table()
    assert rows["status"].to_list() == ["ok", "ok", "error"]
    assert "holds no tiles" in rows["error"][2]
    assert rows["top_x"].to_list() == [None, [0], None]
    assert rows["top_attention"].list.len().to_list() == [4, 1, None]
    assert not list(Path(f"{done.output}.slides").rglob("heatmap.*"))


def test_heatmaps_of_clam_have_the_side_of_its_tiles(foreign, tmp_path) -> None:
    done = pipelines.wsi.predict(
        run=foreign / "run", input=foreign / "f" / "s1.h5", output=tmp_path / "o.parquet"
    )
    (file,) = Path(f"{done.output}.slides").rglob("heatmap.geojson")
    rings = [
        np.array(square["geometry"]["coordinates"][0])
        for square in json.loads(file.read_text())["features"]
    ]
    assert len(rings) == 9
    assert all((np.ptp(ring, 0) == 1024).all() for ring in rings)


def test_a_model_of_other_features_takes_no_slide_alone(foreign, slides, tmp_path) -> None:
    assert json.loads((foreign / "run" / "spec.json").read_text())["extraction"] is None
    options = {"run": foreign / "run", "input": slides / "generated-01.tiff"}
    failed = pipelines.wsi.predict(output=tmp_path / "o.parquet", **options).table()
    assert "features of another tool" in failed["error"][0]
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "generated-01.h5").write_bytes((foreign / "f" / "s1.h5").read_bytes())
    rows = pipelines.wsi.predict(
        output=tmp_path / "p.parquet", features=tmp_path / "f", **options
    ).table()
    expected = pl.read_parquet(foreign / "run" / "predictions.parquet")
    row = expected.filter(pl.col("item") == "s1")
    assert rows["p_b"][0] == pytest.approx(row["p_b"][0], abs=1e-6)


def test_features_of_other_settings_are_no_input(run, tmp_path) -> None:
    (tmp_path / "s").mkdir()
    write_pyramid(tmp_path / "s" / "a.tiff", draw_slide(np.random.default_rng(0), 256, True))
    pipelines.wsi.features(
        slides=tmp_path / "s", output=tmp_path / "f", encoder="random-filters", tile=32
    )
    done = pipelines.wsi.predict(run=run, input=tmp_path / "f", output=tmp_path / "o.parquet")
    assert "other settings (patch_size 32 instead of 64)" in done.table()["error"][0]


def test_squares_count_from_the_corner_of_the_scan(tmp_path, monkeypatch) -> None:
    tiles = SlideFeatures(np.zeros((2, 2), np.float32), np.array([[1152, 896], [1280, 896]]), 128)
    corners = [[128, 128], [256, 128]]

    def corners_in(folder: Path) -> list[list[int]]:
        squares = json.loads((folder / "heatmap.geojson").read_text())["features"]
        return [square["geometry"]["coordinates"][0][0] for square in squares]

    share = np.array([[0.4], [0.6]])
    write_pyramid(tmp_path / "a.tiff", np.full((1024, 1536, 3), 230, np.uint8))
    monkeypatch.setattr(Slide, "origin", (1024, 768))
    explain.write_explanation(tmp_path / "o", tiles, share, Slide(tmp_path / "a.tiff"), 1, "x")
    assert corners_in(tmp_path / "o") == corners
    # Without the slide, its feature file knows it.
    stored = SlideFeatures(*vars(tiles).values())
    stored.attributes.update({"bounds_x": 1024, "bounds_y": 768})
    explain.write_explanation(tmp_path / "p", stored, share, None, 1, "x")
    assert corners_in(tmp_path / "p") == corners


class TestEncoderOfARun:
    @pytest.fixture
    def stranger(self, run, tmp_path, monkeypatch) -> list[str]:
        """The run as a stranger could hand it on; the encoders that were asked for."""
        asked: list[str] = []

        def build(name: str, weights: str, size: object) -> None:
            asked.append(name)
            raise ValueError("not here")

        extraction._encoder.cache_clear()
        monkeypatch.setattr(extraction, "build_encoder", build)
        target = tmp_path / "run"
        shutil.copytree(run.path, target, ignore=shutil.ignore_patterns("checkpoints", "sample"))
        spec = json.loads((target / "spec.json").read_text())
        spec["extraction"] |= {"encoder": "hf-hub:stranger/model", "weights": "pretrained"}
        (target / "spec.json").write_text(json.dumps(spec))
        return asked

    def test_it_is_fetched_from_nobody_unless_the_user_says_so(
        self, stranger, slides, tmp_path
    ) -> None:
        options = {"run": tmp_path / "run", "input": slides / "generated-01.tiff"}
        with pytest.raises(InputError, match="--fetch-encoder"):
            pipelines.wsi.predict(output=tmp_path / "o.parquet", **options)
        with pytest.raises(InputError, match="hf-hub:stranger/model, which would be fetched"):
            pipelines.wsi.evaluate(run=tmp_path / "run", data=slides)
        assert stranger == []
        with pytest.raises(InputError, match="not here"):
            pipelines.wsi.predict(output=tmp_path / "o.parquet", fetch_encoder=True, **options)
        assert stranger == ["hf-hub:stranger/model"]
        extraction._encoder.cache_clear()
        options = {"run": tmp_path / "run", "data": slides, "features": tmp_path / "f"}
        with pytest.raises(InputError, match="not here"):
            pipelines.wsi.evaluate(fetch_encoder=True, **options)
        assert stranger == ["hf-hub:stranger/model"] * 2


def test_the_answer_for_one_slide_is_its_class_and_the_probabilities() -> None:
    rows = pl.DataFrame({"prediction": ["b"], "p_a": [0.2], "p_b": [0.8], "tiles": [1200]})
    spec = SimpleNamespace(classes=["a", "b"])
    lines = load_task("wsi").load().answer_lines(rows, spec)  # type: ignore[arg-type]
    assert lines == ["b (b 80.0%, a 20.0%), from 1,200 tiles"]


def test_specs_of_older_runs_are_read(run) -> None:
    before = {key: value for key, value in run.spec().items() if key != "groups_joined"}
    assert WsiSpec.from_json(before).groups_joined is False
    assert WsiSpec.from_json(run.spec()).groups_joined is True


def test_the_part_of_each_item_is_known(run, slides, tmp_path) -> None:
    parts = run.spec()["parts"]
    own = pl.read_parquet(run.path / "predictions.parquet")
    assert dict(own["part"].value_counts().iter_rows()) == parts
    moved = tmp_path / "elsewhere.tiff"
    moved.write_bytes((slides / "generated-04.tiff").read_bytes())
    rows = pipelines.wsi.predict(
        run=run, input=moved, output=tmp_path / "o.parquet", explain=False
    ).table()
    assert rows["part"][0] == own.filter(pl.col("item") == "generated-04.tiff")["part"][0]


class TestWhatIsRead:
    """The account of the items, which opens no model."""

    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        home = tmp_path / "in"
        (home / "h5").mkdir(parents=True)
        for name in ("a.png", "notes.txt", "h5/a.h5", "h5/b.h5", "h5/b.pt", "h5/c.pt"):
            (home / name).write_bytes(b"x")
        return home

    @staticmethod
    def items(path: object, **options: object) -> tuple[list[str], str]:
        spec = SimpleNamespace(extraction=None, bag_features=None, features_of_bags=["x"])
        with opened(options.pop("accept", ())) as account:  # type: ignore[arg-type]
            chosen = {"run": "r", "output": "o.parquet", "input": str(path), **options}
            items = list_inputs(WsiPredictOptions(**chosen), spec)  # type: ignore[arg-type]
        return [item["id"] for item in items], "\n".join(account.lines())

    def test_a_folder_gives_each_slide_once_and_names_the_rest(self, folder) -> None:
        ids, text = self.items(folder)
        assert ids == ["a.png", "h5/b.h5", "h5/c.pt"]
        assert "read: 1 slides; 2 feature files" in text
        assert "files of other kinds (notes.txt)" in text
        assert "1 feature files of slides that are read themselves (h5/a.h5)" in text
        assert "1 features as .pt that are there as .h5, too" in text

    def test_what_a_prediction_writes_into_its_input_is_no_input(self, folder) -> None:
        (folder / "o.parquet.slides" / "a.png").mkdir(parents=True)
        for name in ("features.h5", "heatmap.png"):
            (folder / "o.parquet.slides" / "a.png" / name).write_bytes(b"x")
        ids, _ = self.items(folder, output=str(folder / "o.parquet"))
        assert ids == ["a.png", "h5/b.h5", "h5/c.pt"]

    def test_a_pattern_takes_slides_and_features_and_no_links_out(self, folder, tmp_path) -> None:
        (tmp_path / "far.png").write_bytes(b"x")
        (folder / "far.png").symlink_to(tmp_path / "far.png")
        ids, text = self.items(folder / "*")
        assert ids == ["a.png"]
        assert "files of other kinds" in text
        assert "1 links that lead out of the folder (--accept links)" in text
        assert self.items(folder / "*", accept=("links",))[0] == ["a.png", "far.png"]

    def test_a_list_and_a_table_are_counted(self, folder) -> None:
        (folder / "list.csv").write_text("slide,label\na,x\nlost,y\n")
        ids, text = self.items(folder / "list.csv")
        assert (ids, "1 slides that are not in" in text, "(lost)" in text) == (["a"], True, True)
        (folder / "bags.csv").write_text("bag,label,x\nb1,1,0.5\nb2,0,0.7\n")
        ids, text = self.items(folder / "bags.csv")
        assert (ids, text) == (["b1", "b2"], "read: 2 bags of a table")


def test_bags_of_a_table_need_no_labels_and_are_read_by_the_names_of_their_features(
    tmp_path,
) -> None:
    spec = WsiSpec(
        input={"bags": 2, "patients": 2, "features": 2},
        classes=["0", "1"],
        width=2,
        extraction=None,
        mpp=None,
        parts={},
        mean=None,
        deviation=None,
        bag_features=["area", "colour"],
    )
    path = tmp_path / "new.csv"
    path.write_text("bag,Colour,area\na,2,1\nb,4,3\n")
    options = WsiPredictOptions(run="r", input=str(path), output=str(tmp_path / "o.csv"))
    items = list_inputs(options, spec)
    assert [item["id"] for item in items] == ["a", "b"]
    reader = ItemReader(Context(options, spec, {}, torch.device("cpu")))
    assert reader(items[1]).features.features.tolist() == [[3, 4]]
    path.write_text("mybag,colour,area\na,2,1\nb,4,3\n")
    with pytest.raises(InputError, match=r"no column 'bag'.*--columns bag=COLUMN"):
        list_inputs(options, spec)
    named = replace(options, columns=("bag=mybag",))
    assert [item["id"] for item in list_inputs(named, spec)] == ["a", "b"]
