"""Slides end to end: cohorts, splits, extraction that is killed and broken, heatmaps,
cross-validation.
"""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

pytest.importorskip("openslide", reason="OpenSlide is optional (extra wsi) and not installed")

from headwise import pipelines
from headwise.base.errors import InputError
from headwise.data.slides.bags import Cohort
from headwise.data.slides.features import SlideFeatures, read_features, write_features
from headwise.data.slides.generate import draw_slide, write_pyramid, write_sample_slides
from headwise.data.slides.slides import Slide
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.metrics.classification import NAMES
from headwise.pipelines.wsi import data as cohort
from headwise.pipelines.wsi import explain
from headwise.pipelines.wsi.options import WsiOptions
from headwise.pipelines.wsi.verbs import features as extract

SMALL = {"tile": 64, "encoder": "random-filters", "epochs": 2, "inner": 16}


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> Path:
    return write_sample_slides(tmp_path_factory.mktemp("cohort"), slides=16, side=256)


@pytest.fixture(scope="module")
def run(slides, tmp_path_factory):
    return pipelines.wsi.train(
        data=slides, run=tmp_path_factory.mktemp("run") / "r", seed=3, **SMALL
    )


def made(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.h5"))}


def cohort_of(
    patients: list[int], labels: list[str], splits: list[str | None] | None = None
) -> Cohort:
    names = tuple(f"s{k}" for k in range(len(patients)))
    count = len(names)
    return Cohort(
        names,
        tuple(labels),
        tuple(map(str, patients)),
        tuple(splits or [None] * count),
        (None,) * count,
    )


class TestSplits:
    def test_no_patient_is_in_two_parts_and_classes_are_balanced(self) -> None:
        patients = np.repeat(np.arange(40), 3)
        found = cohort_of(patients.tolist(), [("x", "y")[p % 2] for p in patients])
        parts = cohort.split(found, 1, "here")
        assert sorted(np.concatenate(list(parts.values()))) == list(range(120))
        groups = [{found.patients[i] for i in part} for part in parts.values()]
        assert not groups[0] & groups[1]
        assert not groups[0] & groups[2]
        assert not groups[1] & groups[2]
        for part in parts.values():
            assert 0.4 < np.mean([found.labels[i] == "x" for i in part]) < 0.6
        assert [len(parts[name]) for name in cohort.PARTS] == pytest.approx([72, 24, 24], abs=6)
        again = cohort.split(found, 2, "here")
        assert not np.array_equal(parts["test"], again["test"])

    def test_the_files_own_split_is_kept_and_validation_comes_out_of_training(self) -> None:
        found = cohort_of(list(range(20)), ["x", "y"] * 10, ["train"] * 15 + ["test"] * 5)
        parts = cohort.split(found, 1, "here")
        assert parts["test"].tolist() == list(range(15, 20))
        assert len(parts["validation"]) == 3
        assert set(parts["validation"]) | set(parts["train"]) == set(range(15))
        with pytest.raises(InputError, match="leaves no slide for test"):
            cohort.split(cohort_of(list(range(9)), ["x"] * 9, ["train"] * 9), 1, "here")

    def test_too_few_patients_are_said(self) -> None:
        with pytest.raises(InputError, match="has 3 patients, too few"):
            cohort.split(cohort_of([1, 2, 3], ["x", "y", "x"]), 1, "here")


def test_moments_are_those_of_all_training_instances() -> None:
    features = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float32)
    features[:, 3] = 7
    source = cohort.Source(cohort_of([1, 2], ["x", "y"]), "here", features, np.array([0, 20, 50]))
    found = cohort.moments(cohort.BagSet(source, [0, 1], ["x", "y"]), True)
    np.testing.assert_allclose(found["mean"], features.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["deviation"], [*features.std(0)[:3], 1.0], rtol=1e-4)
    alone = cohort.moments(cohort.BagSet(source, [0], ["x", "y"]), True)
    np.testing.assert_allclose(alone["mean"], features[:20].mean(0), rtol=1e-5)


class TestExtraction:
    def test_killed_anywhere_and_started_again_it_ends_with_the_same_files(
        self, slides, tmp_path, monkeypatch
    ) -> None:
        options = {"slides": slides, "tile": 64, "encoder": "random-filters"}
        whole = pipelines.wsi.features(output=tmp_path / "whole", **options)
        assert (whole.failed, len(made(whole.output))) == (0, 16)
        assert whole.table["tiles"].min() > 0
        encoded: list[str] = []
        real = extract.Extractor.encode

        def dying(self, slide, grid):  # type: ignore[no-untyped-def]
            encoded.append(Path(slide.path).name)
            if len(encoded) in (4, 9):
                raise KeyboardInterrupt
            return real(self, slide, grid)

        monkeypatch.setattr(extract.Extractor, "encode", dying)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                pipelines.wsi.features(output=tmp_path / "broken", **options)
        pipelines.wsi.features(output=tmp_path / "broken", **options)
        assert made(tmp_path / "broken") == made(tmp_path / "whole")
        assert not list((tmp_path / "broken").glob(".aside-*"))
        assert len(encoded) == 16 + 2  # nothing twice but the two that were broken off

    def test_other_settings_are_not_mixed_in(self, slides, tmp_path) -> None:
        options = {"slides": slides, "output": tmp_path / "f", "encoder": "random-filters"}
        pipelines.wsi.features(tile=64, **options)
        again = pipelines.wsi.features(tile=96, **options)
        assert again.failed == 16
        assert "other settings" in again.table["error"][0]

    def test_broken_slides_are_rows_and_code_3(self, tmp_path, headwise) -> None:
        (tmp_path / "in").mkdir()
        write_pyramid(
            tmp_path / "in" / "good.tiff", draw_slide(np.random.default_rng(0), 256, True)
        )
        write_pyramid(tmp_path / "in" / "glass.tiff", np.full((256, 256, 3), 240, np.uint8))
        (tmp_path / "in" / "broken.svs").write_text("nothing")
        code, lines = headwise(
            "wsi",
            "features",
            "--slides",
            tmp_path / "in",
            "--output",
            tmp_path / "out",
            "--encoder",
            "random-filters",
            "--tile",
            64,
        )
        status = pl.read_csv(tmp_path / "out" / "status.csv")
        assert code == 3
        assert dict(zip(status["slide"], status["status"])) == {
            "broken": "error",
            "glass": "error",
            "good": "ok",
        }
        assert any("no tile has enough tissue" in line for line in lines)

    def test_a_slide_without_micrometres_asks_for_them(self, tmp_path) -> None:
        from PIL import Image

        Image.fromarray(draw_slide(np.random.default_rng(0), 256, True)).save(tmp_path / "a.png")
        options = {
            "slides": tmp_path,
            "output": tmp_path / "f",
            "encoder": "random-filters",
            "tile": 64,
        }
        assert "--mpp" in pipelines.wsi.features(**options).table["error"][0]
        assert pipelines.wsi.features(mpp=0.5, **options).failed == 0


class TestTraining:
    def test_scores_intervals_and_baseline_are_there(self, run) -> None:
        found = run.metrics()
        assert (
            found["bags"] + sum(run.spec()["parts"][name] for name in ("train", "validation")) == 16
        )
        assert tuple(found["intervals"]) == NAMES
        assert "mean instance, logistic regression" in found["baselines"]
        drawn = {path.stem for path in run.figures.glob("*.png")}
        assert drawn >= {"calibration", "concentration", "instances", "heatmap-1"}

    @pytest.mark.parametrize("model", ["acmil-mha", "abmil", "mean", "max"])
    def test_every_model_trains_on_a_ragged_batch(self, slides, tmp_path, model: str) -> None:
        done = pipelines.wsi.train(
            data=slides,
            run=tmp_path / "r",
            model=model,
            batch_size=4,
            class_weights=True,
            **{**SMALL, "inner": 16},
        )
        assert np.isfinite(done.metrics()["log_loss"])
        rows = pl.read_parquet(done.path / "predictions.parquet")
        assert (rows["top_x"].is_null().all()) == (model in ("mean", "max"))

    def test_tiles_see_each_other_through_any_mechanism_of_the_core(self, slides, tmp_path) -> None:
        mixed = {"attention": "agent-learned", "heads": 2, "ffn": "moe", "batch_size": 4}
        done = pipelines.wsi.train(data=slides, run=tmp_path / "r", **mixed, **SMALL)
        assert np.isfinite(done.metrics()["log_loss"])
        assert "moe1_entropy" in (done.path / "history.csv").read_text()
        with pytest.raises(
            InputError, match="contmix: tiles of a slide are a set; there are none, agent-learned"
        ):
            pipelines.wsi.train(data=slides, run=tmp_path / "s", attention="contmix", **SMALL)

    def test_feature_files_of_others_are_trained_on_without_a_slide(self, tmp_path) -> None:
        rng = np.random.default_rng(0)
        (tmp_path / "f").mkdir()
        lines = ["slide,patient,label"]
        for k in range(20):
            write_features(
                tmp_path / "f" / f"s{k}.h5",
                rng.normal(k % 2, 1, (9, 5)),
                rng.integers(0, 99, (9, 2)),
                {},
            )
            lines.append(f"s{k},p{k},{'ab'[k % 2]}")
        (tmp_path / "labels.csv").write_text("\n".join([*lines, "lost,p99,a"]))
        done = pipelines.wsi.train(
            data=tmp_path / "labels.csv", features=tmp_path / "f", run=tmp_path / "r", epochs=3
        )
        assert done.spec()["width"] == 5
        assert pl.read_parquet(done.path / "predictions.parquet").height == 20

    def test_one_class_and_unknown_labels_are_said(self, slides, run, tmp_path) -> None:
        text = (slides / "labels.csv").read_text()
        (tmp_path / "one.csv").write_text(text.replace("tumour", "normal"))
        with pytest.raises(InputError, match="needs two classes"):
            pipelines.wsi.train(
                data=tmp_path / "one.csv", slides=slides, run=tmp_path / "r", **SMALL
            )
        other = slides / "other.csv"
        other.write_text(text.replace("tumour", "cat"))
        with pytest.raises(InputError, match="label 'cat' is none of the model's: normal, tumour"):
            pipelines.wsi.evaluate(run=run, data=other)
        other.unlink()


class TestPrediction:
    def test_heatmaps_lie_beside_the_table_and_come_from_stored_features_alone(
        self, run, slides, tmp_path
    ) -> None:
        done = pipelines.wsi.predict(run=run, input=slides, output=tmp_path / "o.parquet")
        assert done.failed == 0
        one = tmp_path / "o.parquet.slides" / "generated-03.tiff"
        assert {path.name for path in one.iterdir()} == {
            "features.h5",
            "heatmap.png",
            "heatmap.geojson",
            "tiles.png",
        }
        stored = tmp_path / "only"
        stored.mkdir()
        (stored / "generated-03.h5").write_bytes((one / "features.h5").read_bytes())
        again = pipelines.wsi.predict(run=run, input=stored, output=tmp_path / "p.parquet").table()
        first = done.table().filter(pl.col("item") == "generated-03.tiff")
        assert again["p_tumour"][0] == pytest.approx(first["p_tumour"][0], abs=1e-6)
        assert again["top_x"].to_list() == first["top_x"].to_list()
        place = tmp_path / "p.parquet.slides" / "generated-03.h5"
        assert (place / "heatmap.geojson").read_bytes() == (one / "heatmap.geojson").read_bytes()

    def test_killed_between_slides_it_ends_with_the_same_files(
        self, run, slides, tmp_path, monkeypatch
    ) -> None:
        whole = pipelines.wsi.predict(
            run=run, input=slides, output=tmp_path / "w.parquet", shard_size=2
        )
        encoded: list[str] = []
        real = extract.Extractor.encode

        def dying(self, slide, grid):  # type: ignore[no-untyped-def]
            encoded.append(slide.path)
            if len(encoded) == 6:
                raise KeyboardInterrupt
            return real(self, slide, grid)

        monkeypatch.setattr(extract.Extractor, "encode", dying)
        wanted = {"run": run, "input": slides, "output": tmp_path / "b.parquet", "shard_size": 2}
        with pytest.raises(KeyboardInterrupt):
            pipelines.wsi.predict(**wanted)
        done = pipelines.wsi.predict(**wanted)
        assert len(encoded) == 17
        assert done.table().equals(whole.table())
        files = [
            sorted(p for p in Path(f"{o.output}.slides").rglob("*") if p.is_file())
            for o in (whole, done)
        ]
        for a, b in zip(*files, strict=True):
            assert a.read_bytes() == b.read_bytes(), a

    def test_a_slide_that_the_bags_model_cannot_read(self, tmp_path, slides) -> None:
        rng = np.random.default_rng(0)
        bag = np.repeat(np.arange(20), 4)
        table = np.column_stack([bag % 2, bag, rng.normal(size=(80, 3)) + bag[:, None] % 2])
        np.savetxt(tmp_path / "b.csv", table, delimiter=",", fmt="%.4g")
        done = pipelines.wsi.train(data=tmp_path / "b.csv", run=tmp_path / "r", epochs=2)
        rows = pl.read_parquet(done.path / "predictions.parquet")
        assert (rows.height, rows["status"].unique().to_list()) == (20, ["ok"])
        failed = pipelines.wsi.predict(
            run=done, input=slides / "generated-01.tiff", output=tmp_path / "o.parquet"
        )
        assert "trained on a table of bags" in failed.table()["error"][0]


class TestExplanation:
    FOUND = SlideFeatures(np.zeros((3, 2), np.float32), np.array([[0, 0], [64, 0], [64, 64]]), 64)
    SHARE = np.array([[0.7, 0.2], [0.2, 0.2], [0.1, 0.6]])

    def test_squares_are_closed_rings_in_pixels_of_level_0(self) -> None:
        found = json.loads(explain.geojson(self.FOUND, self.SHARE))
        assert found["type"] == "FeatureCollection"
        assert len(found["features"]) == 3
        last = found["features"][2]
        assert last["geometry"] == {
            "type": "Polygon",
            "coordinates": [[[64, 64], [128, 64], [128, 128], [64, 128], [64, 64]]],
        }
        measured = last["properties"]["measurements"]
        assert measured == {
            "attention": 1.05,
            "attention of branch 1": 0.3,
            "attention of branch 2": 1.8,
        }
        assert last["properties"]["objectType"] == "detection"

    def test_the_heatmap_is_warm_where_attention_is_high(self, tmp_path) -> None:
        write_pyramid(tmp_path / "a.tiff", np.full((128, 128, 3), 230, np.uint8))
        sharp = np.array([[0.98], [0.01], [0.01]])
        picture = np.asarray(
            explain.heatmap(self.FOUND, sharp, Slide(tmp_path / "a.tiff"), "x")
        ).astype(int)[34:]
        assert picture[32, 32, 0] > picture[32, 32, 2]
        assert picture[32, 96, 2] > picture[32, 96, 0]
        np.testing.assert_array_equal(picture[96, 32], [230, 230, 230])  # no tile here

    def test_concentration_is_the_share_of_the_highest(self) -> None:
        np.testing.assert_allclose(
            explain.concentration(np.array([0.1, 0.6, 0.3]), 5), [0.6, 0.9, 1, 1, 1]
        )


class TestCrossval:
    def test_presets_hold_options_of_training_and_of_folds(self) -> None:
        task = load_task("wsi")
        paper = parse(task, "train", [], values={"preset": "paper"})
        assert (paper.standardise, paper.batch_size, paper.lr) == (False, 1, 1e-4)
        bags = parse(
            task,
            "crossval",
            [],
            values={"preset": "bags", "data": "x.csv", "output": "o", "masked": 2},
        )
        assert (bags.masked, bags.batch_size, bags.folds, bags.repeats) == (2, 8, 10, 5)

    def test_every_bag_is_predicted_once_a_repeat_and_floors_are_beside(self, tmp_path) -> None:
        rng = np.random.default_rng(1)
        bag = np.repeat(np.arange(40), 5)
        rows = np.column_stack([bag % 2, bag, rng.normal(size=(200, 4)) + (bag[:, None] % 2) * 0.8])
        table = tmp_path / "b.csv"
        np.savetxt(table, rows, delimiter=",", fmt="%.5g")
        wanted = {
            "data": table,
            "models": ("acmil", "mean"),
            "folds": 4,
            "repeats": 2,
            "epochs": 3,
            "inner": 8,
        }
        found = pipelines.wsi.crossval(output=tmp_path / "a", **wanted)
        assert found["model"].to_list()[:2] == ["acmil", "mean"]
        assert found.height == 2 + 3
        rows = pl.read_parquet(tmp_path / "a" / "predictions.parquet").filter(
            pl.col("model") == "acmil"
        )
        assert rows.group_by("repeat", "bag").len()["len"].to_list() == [1] * 80
        assert found.filter(pl.col("model").str.contains("SVM"))["auc"][0] > 0.8
        for name in ("crossval.json", "crossval.png"):
            assert (tmp_path / "a" / name).is_file()
        (tmp_path / "a" / "folds" / "acmil-seed0-repeat1-fold2.json").unlink()
        assert pipelines.wsi.crossval(output=tmp_path / "a", **wanted).equals(found)
        assert pipelines.wsi.crossval(output=tmp_path / "b", processes=2, **wanted).equals(found)
        more = pipelines.wsi.crossval(
            output=tmp_path / "a", **{**wanted, "repeats": 3, "models": ("acmil", "max")}
        )
        assert more["model"].to_list()[:2] == ["acmil", "max"]
        rows = pl.read_parquet(tmp_path / "a" / "predictions.parquet").filter(
            pl.col("model") == "acmil"
        )
        assert rows.height == 120
        with pytest.raises(InputError, match="other options or data"):
            pipelines.wsi.crossval(output=tmp_path / "a", **{**wanted, "epochs": 4})

    def test_the_floors_are_those_of_scikit_learn(self, real_data, tmp_path) -> None:
        """The specification's figures of [mean, min, max] on MUSK1: 0.874 / 0.934 and 0.902 / 0.973
        over 5 repeats.
        """
        from headwise.pipelines.wsi.verbs.crossval import floors

        options = WsiOptions(data=str(real_data / "wsi" / "mil" / "musk1.csv.gz"))
        source = cohort.find_source(options)
        folds = cohort.grouped_folds(source.cohort, np.arange(92), 10, 0, "")
        right = 0
        for test in folds:
            train = np.setdiff1d(np.arange(92), test)
            given = (
                cohort.BagSet(source, train, ["0", "1"]),
                cohort.BagSet(source, test, ["0", "1"]),
            )
            right += (floors(*given)["mean-min-max, RBF SVM"].argmax(1) == given[1].labels).sum()
        assert 0.87 <= right / 92 <= 0.93


class TestRealSlides:
    def test_the_whole_folder_goes_through(self, run, real_data, tmp_path, headwise) -> None:
        """Two slides, each with a heatmap; the broken ones are rows; the exit code is 3."""
        command = ("wsi", "predict", "--run", run.path, "--input", real_data / "wsi" / "slides")
        code, lines = headwise(*command, "--output", tmp_path / "a.parquet")
        assert code == 3
        assert any("tcga" in line and "--mpp" in line for line in lines)
        code, lines = headwise(*command, "--output", tmp_path / "b.parquet", "--mpp", 0.5)
        rows = pl.read_parquet(tmp_path / "b.parquet")
        good = rows.filter(pl.col("status") == "ok")["item"].to_list()
        assert code == 3
        assert {"CMU-1-Small-Region.svs", "tcga-cr-7395-01a-01-ts1.svs"} <= set(good)
        for name in ("CMU-1-Small-Region.svs", "tcga-cr-7395-01a-01-ts1.svs"):
            folder = tmp_path / "b.parquet.slides" / name
            assert len(json.loads((folder / "heatmap.geojson").read_text())["features"]) > 30
            assert (folder / "heatmap.png").is_file()
        failed = dict(rows.filter(pl.col("status") == "error").select("item", "error").iter_rows())
        assert {"broken.svs", "openslide_fixtures/unopenable.tiff"} <= set(failed)
        assert all("\n" not in error for error in failed.values())


def test_the_exported_model_takes_any_number_of_instances(run, tmp_path) -> None:
    pipelines.wsi.export(run=run, output=tmp_path / "m.pt2")
    program = torch.export.load(tmp_path / "m.pt2").module()
    found = read_features(next(Path(run.config()["data"]).glob("features-*/generated-05.h5")))
    assert program(torch.from_numpy(found.features)).shape == (1, 2)
