"""Slides end to end: training, prediction with heatmaps, export."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

pytest.importorskip("openslide", reason="OpenSlide is optional (extra wsi) and not installed")

from headwise import pipelines
from headwise.base.errors import InputError
from headwise.data.slides.features import read_features, write_features
from headwise.pipelines.metrics.classification import NAMES
from headwise.pipelines.wsi import extraction


class TestTraining:
    def test_scores_intervals_and_baseline_are_there(self, run) -> None:
        metrics, parts = run.metrics(), run.spec()["parts"]
        assert metrics["bags"] + parts["train"] + parts["validation"] == 16
        assert tuple(metrics["intervals"]) == NAMES
        assert "mean instance, logistic regression" in metrics["baselines"]
        figures = {path.stem for path in run.figures.glob("*.png")}
        assert figures >= {"calibration", "concentration", "instances", "heatmap-1"}

    @pytest.mark.parametrize("model", ["acmil-mha", "abmil", "mean", "max"])
    def test_every_model_trains_on_a_ragged_batch(
        self, slides, small_options, tmp_path, model: str
    ) -> None:
        done = pipelines.wsi.train(
            data=slides,
            run=tmp_path / "r",
            model=model,
            batch_size=4,
            class_weights=True,
            **small_options,
        )
        assert np.isfinite(done.metrics()["log_loss"])
        rows = pl.read_parquet(done.path / "predictions.parquet")
        assert (rows["top_x"].is_null().all()) == (model in ("mean", "max"))

    def test_tiles_attend_to_each_other_by_any_mechanism_of_the_core(
        self, slides, small_options, tmp_path
    ) -> None:
        mixed = {"attention": "agent-learned", "heads": 2, "ffn": "moe", "batch_size": 4}
        done = pipelines.wsi.train(data=slides, run=tmp_path / "r", **mixed, **small_options)
        assert np.isfinite(done.metrics()["log_loss"])
        assert "moe1_entropy" in (done.path / "history.csv").read_text()
        with pytest.raises(
            InputError, match="contmix: tiles of a slide are a set; there are none, agent-learned"
        ):
            pipelines.wsi.train(
                data=slides, run=tmp_path / "s", attention="contmix", **small_options
            )

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

    def test_one_class_and_unknown_labels_are_refused(
        self, slides, small_options, run, tmp_path
    ) -> None:
        text = (slides / "labels.csv").read_text()
        (tmp_path / "one.csv").write_text(text.replace("tumour", "normal"))
        with pytest.raises(InputError, match="needs two classes"):
            pipelines.wsi.train(
                data=tmp_path / "one.csv", slides=slides, run=tmp_path / "r", **small_options
            )
        relabelled = slides / "other.csv"
        relabelled.write_text(text.replace("tumour", "cat"))
        with pytest.raises(InputError, match="label 'cat' is none of the model's: normal, tumour"):
            pipelines.wsi.evaluate(run=run, data=relabelled)
        relabelled.unlink()


class TestPrediction:
    def test_heatmaps_are_next_to_the_table_and_come_from_stored_features_alone(
        self, run, slides, tmp_path
    ) -> None:
        done = pipelines.wsi.predict(run=run, input=slides, output=tmp_path / "o.parquet")
        assert done.failed == 0
        written = tmp_path / "o.parquet.slides" / "generated-03.tiff"
        assert {path.name for path in written.iterdir()} == {
            "features.h5",
            "heatmap.png",
            "heatmap.geojson",
            "tiles.png",
        }
        stored = tmp_path / "only"
        stored.mkdir()
        (stored / "generated-03.h5").write_bytes((written / "features.h5").read_bytes())
        again = pipelines.wsi.predict(run=run, input=stored, output=tmp_path / "p.parquet").table()
        first = done.table().filter(pl.col("item") == "generated-03.tiff")
        assert again["p_tumour"][0] == pytest.approx(first["p_tumour"][0], abs=1e-6)
        assert again["top_x"].to_list() == first["top_x"].to_list()
        place = tmp_path / "p.parquet.slides" / "generated-03.h5"
        assert (place / "heatmap.geojson").read_bytes() == (
            written / "heatmap.geojson"
        ).read_bytes()

    def test_killed_between_slides_it_ends_with_the_same_files(
        self, run, slides, tmp_path, monkeypatch
    ) -> None:
        complete = pipelines.wsi.predict(
            run=run, input=slides, output=tmp_path / "w.parquet", shard_size=2
        )
        encoded: list[str] = []
        real = extraction.Extractor.encode

        def dying(self, slide, grid):  # type: ignore[no-untyped-def]
            encoded.append(slide.path)
            if len(encoded) == 6:
                raise KeyboardInterrupt
            return real(self, slide, grid)

        monkeypatch.setattr(extraction.Extractor, "encode", dying)
        options = {"run": run, "input": slides, "output": tmp_path / "b.parquet", "shard_size": 2}
        with pytest.raises(KeyboardInterrupt):
            pipelines.wsi.predict(**options)
        done = pipelines.wsi.predict(**options)
        assert len(encoded) == 17
        assert done.table().equals(complete.table())
        files = [
            sorted(p for p in Path(f"{o.output}.slides").rglob("*") if p.is_file())
            for o in (complete, done)
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


class TestRealSlides:
    def test_a_folder_of_real_slides_goes_through(self, run, real_data, tmp_path, headwise) -> None:
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
    stored = read_features(next(Path(run.config()["data"]).glob("features-*/generated-05.h5")))
    assert program(torch.from_numpy(stored.features)).shape == (1, 2)
