"""The verbs by the command line, on a part of the generated persons: one small run, and its
uses.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import headwise
from headwise import pipelines
from headwise.base.errors import InputError
from headwise.models.weights.adopted import METADATA, BackboneFacts
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.engine.runs.run_directory import RunDirectory
from headwise.pipelines.reid.embedding import embed_part
from headwise.pipelines.reid.pipeline import ReidPipeline

WORDS = (
    "--size",
    32,
    16,
    "--patch",
    8,
    "--width",
    16,
    "--layers",
    2,
    "--heads",
    2,
    "--batch-size",
    8,
    "--max-steps",
    2,
    "--accelerator",
    "cpu",
    "--choose",
    "model",
)
DEFAULT_SIZES = ("--patch", 16, "--width", 192, "--layers", 6, "--heads", 3)
SMALL = {
    "size": (32, 16),
    "patch": 8,
    "width": 16,
    "layers": 2,
    "heads": 2,
    "batch_size": 8,
    "max_steps": 2,
    "accelerator": "cpu",
    "choose": "model",  # the vectors, heads and maps of dcal
}


@pytest.fixture(scope="module")
def run(persons, tmp_path_factory) -> RunDirectory:
    return pipelines.reid.train(data=persons, run=tmp_path_factory.mktemp("run") / "r", **SMALL)


@pytest.fixture(scope="module")
def gallery(run, persons, tmp_path_factory) -> Path:
    """Vectors of the gallery."""
    path = tmp_path_factory.mktemp("gallery") / "g.parquet"
    pipelines.reid.embed(run=run.path, input=persons / "bounding_box_test", output=path)
    return path


def test_a_run_holds_scores_and_those_of_the_baseline(run, persons) -> None:
    metrics, spec = run.metrics(), run.spec()
    assert spec["goal"] == "search"
    assert spec["layout"] == "market1501"
    assert spec["cameras"] is True
    assert len(spec["classes"]) == 5  # one of six is in the validation part
    assert metrics["queries"] == 6
    assert (
        metrics["protocol"]
        == "queries against the gallery; pictures of the query's identity and camera do not count"
    )
    for scores in (metrics, metrics["baselines"]["colours alone"], metrics["reranked"]):
        assert 0 <= scores["mAP"] <= 1
        assert scores["rank_1"] <= scores["rank_5"] <= scores["rank_10"] <= 1
        low, high = scores["intervals"]["mAP"]
        assert low <= scores["mAP"] <= high
    figures = {path.stem for path in run.figures.glob("*.png")}
    assert figures >= {"cmc", "ranked-lists", "similarities", "rollout"}
    rows = pl.read_parquet(run.path / "predictions.parquet")
    assert len(rows) == len(list(persons.rglob("*.jpg")))


def test_embed_writes_vectors_and_the_mark_of_the_model(run, gallery) -> None:
    rows = pl.read_parquet(gallery)
    assert rows.columns == ["file", "item", "part", "status", "error", "vector", "model"]
    assert rows["vector"].list.len().unique().to_list() == [32]
    np.testing.assert_allclose(np.linalg.norm(rows["vector"].to_list(), axis=1), 1, rtol=1e-5)
    assert rows["model"].n_unique() == 1
    assert rows["item"].to_list() == sorted(
        path.name for path in Path(rows["file"][0]).parent.glob("*.jpg")
    )


def test_search_lists_the_nearest_by_cosine(run, persons, gallery, tmp_path, headwise) -> None:
    words = ("reid", "search", "--run", run.path, "--query", persons / "query", "--k", 4)
    code, lines = headwise(*words, "--gallery", gallery, "--output", tmp_path / "a.parquet")
    assert code == 0, lines
    ranked = pl.read_parquet(tmp_path / "a.parquet")
    assert ranked.columns == ["query", "rank", "item", "file", "score", "identity"]
    # The names of the layout say who is found; the terminal, too, and no path but the user's.
    assert ranked["identity"].to_list() == [item.split("_")[0] for item in ranked["item"]]
    first = ranked.row(0, named=True)
    hit = f"{first['query']}: {first['identity']} ({first['item']}) {first['score']:.3f}"
    assert any(line.startswith(hit) for line in lines), lines
    assert not any("headwise-search" in line for line in lines)
    in_gallery = pl.read_parquet(gallery)
    queries = pipelines.reid.embed(
        run=run.path, input=persons / "query", output=tmp_path / "q.parquet"
    ).table()
    similarity = np.array(queries["vector"].to_list()) @ np.array(in_gallery["vector"].to_list()).T
    assert ranked["query"].to_list() == np.repeat(queries["item"], 4).tolist()
    assert ranked["rank"].to_list() == [1, 2, 3, 4] * 6
    np.testing.assert_allclose(ranked["score"], -np.sort(-similarity, 1)[:, :4].ravel(), atol=1e-5)
    place = [in_gallery["item"].to_list().index(item) for item in ranked["item"]]
    np.testing.assert_allclose(
        similarity[np.repeat(np.arange(6), 4), place], ranked["score"], atol=1e-5
    )
    with Image.open(f"{tmp_path / 'a.parquet'}.png") as picture:
        assert min(picture.size) > 100
    # Pictures instead of vectors are embedded first, and their vectors are not stored.
    folder = persons / "bounding_box_test"
    code, _ = headwise(
        *words, "--gallery", folder, "--output", tmp_path / "b.parquet", "--shown", 0
    )
    assert code == 0
    assert pl.read_parquet(tmp_path / "b.parquet").equals(ranked)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.parquet",
        "a.parquet.account.json",
        "a.parquet.png",
        "b.parquet",
        "b.parquet.account.json",
        "q.parquet",
        "q.parquet.account.json",
    ]
    code, lines = headwise(*words, "--gallery", gallery, "--output", tmp_path / "a.parquet")
    assert (code, len(lines)) == (2, 1)
    assert "already exists" in lines[0]
    code, _ = headwise(
        *words, "--gallery", gallery, "--output", tmp_path / "c.parquet", "--rerank", "--shown", 0
    )
    again = pl.read_parquet(tmp_path / "c.parquet")
    assert code == 0
    assert again.select("query", "rank").equals(ranked.select("query", "rank"))
    assert not again["score"].equals(ranked["score"])
    assert (np.diff(again["score"].to_numpy().reshape(6, 4)) <= 0).all()


def test_a_search_names_identities_of_folders_and_tables_and_broken_pictures(
    run, persons, tmp_path, headwise
) -> None:
    files = sorted((persons / "query").glob("*.jpg"))[:4]
    lines = ["image,person_id"]
    for number, file in enumerate(files):
        place = tmp_path / "home" / ("anna", "ben")[number % 2] / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
        lines.append(f"{place.parent.name}/{place.name},{'cleo' if number else 'nan'}")
    lines.append("anna/gone.jpg,cleo")
    (tmp_path / "home" / "t.csv").write_text("\n".join(lines))
    words = ("reid", "search", "--run", run.path, "--query", tmp_path / "home", "--shown", 0)
    words = (*words, "--k", 1, "--output", tmp_path / "o.parquet", "--overwrite", "--gallery")
    assert headwise(*words, tmp_path / "home")[0] == 0
    ranked = pl.read_parquet(tmp_path / "o.parquet")
    assert ranked["query"].to_list() == ranked["item"].to_list()
    assert ranked["identity"].to_list() == ["anna", "anna", "ben", "ben"]
    code, lines = headwise(*words, tmp_path / "home" / "t.csv")
    assert code == 3
    assert any("anna/gone.jpg" in line and "no such picture" in line for line in lines)
    # A picture whose identity the table does not say has that of its folder.
    identities = pl.read_parquet(tmp_path / "o.parquet")["identity"].to_list()
    assert identities == ["anna", "cleo", "cleo", "cleo"]
    output = words.index(tmp_path / "o.parquet")
    words = (*words[:output], tmp_path / "o.csv", *words[output + 1 :])
    assert headwise(*words, tmp_path / "home")[0] == 0
    assert pl.read_csv(tmp_path / "o.csv").columns == ranked.columns
    code, lines = headwise(*words[:output], tmp_path / "o.doc", *words[output + 1 :], "g")
    assert (code, len(lines)) == (2, 1)
    assert "unknown ending '.doc'" in lines[0]
    account = json.loads((tmp_path / "o.parquet.account.json").read_text())
    assert {"topic": "read", "what": "pictures", "count": 5, "names": []} in account


def test_the_weights_are_read_once_for_their_mark(run, monkeypatch) -> None:
    from headwise.pipelines.reid import prediction

    prediction._mark.cache_clear()
    reads = []
    whole = prediction.checksum
    monkeypatch.setattr(prediction, "checksum", lambda path: reads.append(path) or whole(path))
    marks = {prediction.fingerprint(str(run.path)) for _ in range(3)}
    assert marks == {whole(run.path / "model.safetensors")[:12]}
    assert len(reads) == 1


def test_the_answer_of_one_picture(run) -> None:
    pipeline = load_task("reid").load()
    rows = pl.read_parquet(run.path / "predictions.parquet").head(1)
    (line,) = pipeline.answer_lines(rows, load_run(pipeline, str(run.path), "cpu").spec)
    assert line.startswith("a vector of 32 numbers of the model ")


def test_options_that_a_table_or_one_of_two_ways_reads(run, persons, tmp_path, headwise) -> None:
    output = ("--output", tmp_path / "o.parquet")
    words = ("reid", "predict", "--run", run.path, "--input", persons / "query", *output)
    for option in (("--images", persons), ("--columns", "image=a")):
        code, lines = headwise(*words, *option)
        assert code == 2
        assert f"{option[0]} is read with a table" in lines[-1]
    words = ("reid", "search", "--run", run.path, "--query", persons / "query", *output)
    code, lines = headwise(*words, "--gallery", persons / "query", "--rerank", "--faiss", "Flat")
    assert (code, len(lines)) == (2, 1)
    assert "leave out one" in lines[0]


def test_vectors_of_another_model_or_head_are_refused(
    run, persons, gallery, tmp_path, headwise
) -> None:
    words = (
        "reid",
        "search",
        "--run",
        run.path,
        "--query",
        persons / "query",
        "--output",
        tmp_path / "o.parquet",
    )
    pl.read_parquet(gallery).with_columns(model=pl.lit("0123456789ab")).write_parquet(
        tmp_path / "other.parquet"
    )
    code, lines = headwise(*words, "--gallery", tmp_path / "other.parquet")
    assert (code, len(lines)) == (2, 1)
    assert "vectors are of the model 0123456789ab" in lines[0]
    pipelines.reid.embed(
        run=run.path, input=persons / "query", output=tmp_path / "sa.parquet", embedding="sa"
    )
    code, lines = headwise(*words, "--gallery", tmp_path / "sa.parquet")
    assert code == 2
    assert "vectors have 16 numbers, those of the queries 32" in lines[-1]
    assert not (tmp_path / "o.parquet").exists()


def test_one_broken_picture_stops_nothing(run, persons, tmp_path, headwise) -> None:
    home = tmp_path / "in"
    home.mkdir()
    files = sorted((persons / "query").glob("*.jpg"))[:3]
    for file in files:
        (home / file.name).write_bytes(file.read_bytes())
    (home / "broken.jpg").write_bytes(files[0].read_bytes()[:300])
    words = ("--run", run.path, "--input", home, "--output", tmp_path / "o.parquet")
    code, lines = headwise("reid", "predict", *words, "--maps")
    assert code == 3
    assert any("broken.jpg" in line for line in lines)
    rows = pl.read_parquet(tmp_path / "o.parquet")
    bad = rows.filter(pl.col("status") == "error")
    assert bad["item"].to_list() == ["broken.jpg"]
    assert bad["vector"].to_list() == [None]
    assert rows.filter(pl.col("status") == "ok")["item"].to_list() == [file.name for file in files]
    maps = sorted((tmp_path / "o.parquet.maps").iterdir())
    assert [path.name for path in maps] == [f"{file.name}.png" for file in files]
    with Image.open(maps[0]) as picture:
        assert picture.size == (16, 32)
        assert np.asarray(picture).std() > 1
    code, lines = headwise(
        "reid",
        "search",
        "--run",
        run.path,
        "--query",
        home,
        "--gallery",
        home,
        "--output",
        tmp_path / "s.parquet",
    )
    assert code == 3
    first = pl.read_parquet(tmp_path / "s.parquet").filter(pl.col("rank") == 1)
    assert first["query"].to_list() == first["item"].to_list()


def test_other_data_of_real_names(run, real_data, tmp_path, headwise) -> None:
    home = real_data / "reid" / "market1501_fastreid5"
    code, lines = headwise(
        "reid", "predict", "--run", run.path, "--input", home, "--output", tmp_path / "o.parquet"
    )
    assert code == 0, lines
    names = sorted(path.name for path in home.glob("*.jpg"))
    assert pl.read_parquet(tmp_path / "o.parquet")["item"].to_list() == names
    assert len(names) == 5
    # Five people, one picture each: nobody has a match, and the terminal says so.
    code, lines = headwise("reid", "evaluate", "--run", run.path, "--data", home)
    assert code == 0, lines
    assert any("none of 5 queries has a match in the gallery" in line for line in lines)


def test_an_identity_without_gallery_pictures_does_not_count(
    run, persons, tmp_path, headwise
) -> None:
    home = tmp_path / "less"
    for file in persons.rglob("*.jpg"):
        if file.parent.name != "bounding_box_test" or not file.name.startswith("0025"):
            (home / file.parent.name).mkdir(parents=True, exist_ok=True)
            (home / file.parent.name / file.name).write_bytes(file.read_bytes())
    code, lines = headwise("reid", "evaluate", "--run", run.path, "--data", home)
    assert code == 0
    assert any(
        "4 queries" in line and "2 queries without a match left out" in line for line in lines
    ), lines


def test_metrics_say_that_a_table_has_no_cameras(persons, tmp_path) -> None:
    lines = ["image,identity,split"]
    for folder, part in (
        ("bounding_box_train", "train"),
        ("query", "query"),
        ("bounding_box_test", "gallery"),
    ):
        names = sorted(path.name for path in (persons / folder).glob("0*.jpg"))
        lines += [f"{folder}/{name},{name[:4]},{part}" for name in names if name[:4] != "0000"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    done = pipelines.reid.train(
        data=tmp_path / "t.csv", images=persons, run=tmp_path / "r", glca=0, **SMALL
    )
    metrics = done.metrics()
    assert metrics["cameras"] is False
    assert "no cameras are known, so pictures of one camera count" in metrics["protocol"]
    assert done.spec()["cameras"] is False
    assert len(pl.read_parquet(done.path / "predictions.parquet")) == len(lines) - 1


def test_an_interrupted_training_ends_with_the_same_weights(
    run, persons, tmp_path, monkeypatch, headwise
) -> None:
    real, calls = ReidPipeline.loss, []

    def dying(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(ReidPipeline, "loss", dying)
    with pytest.raises(KeyboardInterrupt):
        pipelines.reid.train(data=persons, run=tmp_path / "r", checkpoint_every=1, **SMALL)
    assert not (tmp_path / "r" / "model.safetensors").exists()
    code, lines = headwise("reid", "train", "--run", tmp_path / "r", "--resume")
    assert code == 0, lines
    assert len(calls) == 3
    weights, expected = (
        load_file(path / "model.safetensors") for path in (tmp_path / "r", run.path)
    )
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


def test_compare_is_resumed_and_tabulates_both_heads(persons, tmp_path, headwise) -> None:
    words = ("reid", "compare", "--data", persons, "--output", tmp_path / "c", "--seeds", 1)
    words = (*words, *WORDS[:-2])  # without --choose, which compare does not read
    code, lines = headwise(*words, "--models", "baseline")
    assert code == 0, lines
    code, lines = headwise(*words, "--models", "baseline", "dcal")
    assert code == 0, lines
    assert any("1 of 2 trainings were done before" in line for line in lines)
    table = pl.read_csv(tmp_path / "c" / "comparison.csv")
    assert table["model"].to_list() == ["baseline", "dcal", "dcal, SA head alone", "colours alone"]
    assert table["seeds"].to_list() == [1, 1, 1, 0]
    assert table["shift"][1] == pytest.approx(table["mAP"][1] - table["mAP"][0])
    files = {
        path.name: json.loads(path.read_text())
        for path in (tmp_path / "c" / "trainings").glob("*.json")
    }
    assert sorted(files) == ["baseline-seed2021.json", "dcal-seed2021.json"]
    assert files["dcal-seed2021.json"]["scores"]["dcal"]["mAP"] == pytest.approx(table["mAP"][1])
    assert {"comparison.md", "comparison.png"} <= {path.name for path in (tmp_path / "c").iterdir()}
    code, lines = headwise(*words, "--models", "dcal", "--width", 32)
    assert (code, len(lines)) == (2, 1)
    assert "other options or data" in lines[0]


class TestBackbones:
    WORDS = (
        "--backbone",
        "vit_tiny_patch16_224",
        "--size",
        32,
        16,
        "--batch-size",
        8,
        "--max-steps",
        1,
        "--glca",
        0,
        "--no-pwca",
        "--accelerator",
        "cpu",
    )

    def test_weights_of_another_backbone_are_one_line(self, persons, tmp_path, headwise) -> None:
        save_file(timm.create_model("test_vit").state_dict(), tmp_path / "other.safetensors")
        words = ("reid", "train", "--data", persons, "--run", tmp_path / "r")
        code, lines = headwise(*words, *self.WORDS, "--weights", tmp_path / "other.safetensors")
        assert code == 2, lines
        message = "other.safetensors: weights of another model than 'vit_tiny_patch16_224'"
        assert message in lines[-1]
        code, lines = headwise(*words, *WORDS, "--weights", tmp_path / "other.safetensors")
        assert (code, len(lines)) == (2, 1), lines
        assert "name it by --backbone" in lines[0]

    def test_weights_that_say_their_model_need_no_backbone(
        self, persons, tmp_path, headwise
    ) -> None:
        """Neither to train nor, once the file is gone, to use the run."""
        file = tmp_path / "w.safetensors"
        model = timm.create_model("test_vit", img_size=(32, 32), num_classes=0)
        facts = BackboneFacts("tiny", "test_vit", 32, (0.5,) * 3, (0.5,) * 3, 64, "")
        save_file(model.state_dict(), file, {METADATA: json.dumps(asdict(facts))})
        words = ("--weights", file, "--lr", 1e-9, "--weight-decay", 0, *self.WORDS[2:])
        code, lines = headwise("reid", "train", "--data", persons, "--run", tmp_path / "r", *words)
        assert code == 0, lines
        assert any("weights of" in line and "test_vit" in line for line in lines)
        assert json.loads((tmp_path / "r" / "spec.json").read_text())["backbone"] == "test_vit"
        weights = load_file(tmp_path / "r" / "model.safetensors")
        name = "blocks.1.mlp.fc1.weight"
        torch.testing.assert_close(weights[f"trunk.model.{name}"], model.state_dict()[name])
        file.unlink()
        source, output = persons / "query", tmp_path / "o.parquet"
        code, lines = headwise(
            "reid", "embed", "--run", tmp_path / "r", "--input", source, "--output", output
        )
        assert code == 0, lines

    def test_a_finished_run_no_longer_needs_the_file(self, persons, tmp_path, headwise) -> None:
        file = tmp_path / "w.safetensors"
        pretrained = timm.create_model("test_vit", img_size=(32, 16)).state_dict()
        save_file(pretrained, file)
        words = ("--backbone", "test_vit", "--weights", file, "--lr", 1e-9, "--weight-decay", 0)
        code, lines = headwise(
            "reid", "train", "--data", persons, "--run", tmp_path / "r", *self.WORDS, *words
        )
        assert code == 0, lines
        weights = load_file(tmp_path / "r" / "model.safetensors")
        torch.testing.assert_close(
            weights["trunk.model.blocks.1.mlp.fc1.weight"], pretrained["blocks.1.mlp.fc1.weight"]
        )
        file.unlink()
        code, lines = headwise(
            "reid",
            "embed",
            "--run",
            tmp_path / "r",
            "--input",
            persons / "query",
            "--output",
            tmp_path / "o.parquet",
        )
        assert code == 0, lines


def by_folder(persons: Path, home: Path) -> Path:
    """The training part with a folder for each identity."""
    for file in sorted((persons / "bounding_box_train").glob("*.jpg")):
        place = home / file.name[:4] / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
    return home


class TestImbalance:
    @pytest.mark.parametrize("imbalance", ["none", "pos-weight", "focal", "logit-adjust"])
    def test_each_way_trains(self, persons, tmp_path, imbalance) -> None:
        data = by_folder(persons, tmp_path / "data")
        card = load_task("reid")
        values = {**SMALL, "data": str(data), "goal": "classes", "imbalance": imbalance}
        options = parse(card, "train", [], values=values)
        splits = card.load().open_data(options)
        labels = splits.train.labels
        assert splits.spec.counts == np.bincount(labels).tolist()
        model = card.load().build_model(options, splits.spec).train()
        batch = {name: torch.stack([splits.train[k][name] for k in range(6)]) for name in
                 splits.train[0]}  # fmt: skip
        loss = card.load().loss(model, batch, options)
        loss.backward()
        assert loss.isfinite()

    def test_diverse_experts_train_predict_and_export(self, persons, tmp_path) -> None:
        data = by_folder(persons, tmp_path / "data")
        run = pipelines.reid.train(
            data=data, run=tmp_path / "r", goal="classes", imbalance="diverse", **SMALL
        )
        opened_run = headwise.open(run.path)
        rows = opened_run.predict(data)
        assert rows["probability"].is_between(1 / 6, 1).all()
        assert Path(opened_run.export(tmp_path / "model.pt2")).is_file()

    @pytest.mark.parametrize(
        ("words", "reason"),
        [
            (("--goal", "search"), "is read by --goal classes, not by a search"),
            (("--model", "cca"), "is read by --model dcal, not by cca"),
        ],
    )
    def test_a_search_and_cca_refuse_it(self, words, reason) -> None:
        with pytest.raises(InputError, match=f"--imbalance: {reason}"):
            parse(load_task("reid"), "train", [*words, "--imbalance", "diverse"])

    def test_data_that_is_for_a_search_refuses_it(self, persons, tmp_path) -> None:
        with pytest.raises(InputError, match="--imbalance: is read by --goal classes"):
            pipelines.reid.train(data=persons, run=tmp_path / "r", imbalance="focal", **SMALL)


class TestOthers:
    def test_classes_of_folders(self, persons, tmp_path) -> None:
        by_folder(persons, tmp_path / "data")
        done = pipelines.reid.train(
            data=tmp_path / "data", run=tmp_path / "r", goal="classes", **SMALL
        )
        metrics = done.metrics()
        assert done.spec()["classes"] == [f"{number:04d}" for number in range(1, 7)]
        assert 0 <= metrics["accuracy"] <= metrics["top_5"] <= 1
        assert {"accuracy", "log_loss"} <= set(metrics["baselines"]["colours alone"])
        paths = {"input": tmp_path / "data" / "0001", "output": tmp_path / "o.parquet"}
        rows = pipelines.reid.predict(run=done.path, **paths).table()
        assert rows.columns[5:] == ["prediction", "probability", "vector", "model"]
        assert set(rows["prediction"]) <= set(done.spec()["classes"])
        assert rows["probability"].is_between(1 / 6, 1).all()
        self.check_that_predictions_are_those_of_the_review(done)
        with pytest.raises(InputError, match="is none of the model's"):
            pipelines.reid.evaluate(run=done.path, data=persons)

    @staticmethod
    def check_that_predictions_are_those_of_the_review(run: RunDirectory) -> None:
        """Predictions of the test pictures name the classes that the metrics count, and are right
        as often.
        """
        pipeline = load_task("reid").load()
        loaded = load_run(pipeline, str(run.path), "cpu")
        part = pipeline.open_data(loaded.options, loaded.spec).test
        probability = embed_part(loaded.model, part, loaded.options, loaded.device)["probability"]
        accuracy = (probability.argmax(1) == part.labels).mean()
        assert run.metrics()["accuracy"] == pytest.approx(accuracy)
        table = pl.read_parquet(run.path / "predictions.parquet")
        rows = {row["item"]: row for row in table.iter_rows(named=True)}
        classes = sorted({Path(name).parts[0] for name in rows})
        for name, label, of_classes in zip(part.names(), part.labels, probability, strict=True):
            assert classes[label] == Path(name).parts[0]
            assert rows[name]["prediction"] == classes[of_classes.argmax()]
            assert rows[name]["probability"] == pytest.approx(of_classes.max(), abs=1e-5)

    def test_attributes(self, persons, tmp_path, headwise) -> None:
        lines = ["image,identity,side"]
        lines += [
            f"{path.name},{path.name[:4]},{'front' if '_c1' in path.name else 'back'}"
            for path in sorted((persons / "bounding_box_train").glob("*.jpg"))
        ]
        (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
        data = {"data": tmp_path / "t.csv", "images": persons / "bounding_box_train"}
        done = pipelines.reid.train(run=tmp_path / "r", model="cca", vector=8, **data, **SMALL)
        assert done.spec()["attributes"] == ["side"]
        assert 0 <= done.metrics()["mAP"] <= 1
        words = (
            "reid",
            "search",
            "--run",
            done.path,
            "--query",
            persons / "query",
            "--gallery",
            persons / "query",
            "--output",
            tmp_path / "o.parquet",
            "--shown",
            0,
        )
        code, lines = headwise(*words)
        assert (code, len(lines)) == (2, 1)
        assert "the run compares by one of side" in lines[0]
        assert headwise(*words, "--attribute", "side")[0] == 0
        code, lines = headwise(
            "reid",
            "predict",
            "--run",
            done.path,
            "--input",
            persons / "query",
            "--output",
            tmp_path / "p.parquet",
            "--maps",
        )
        assert (code, len(lines)) == (2, 1)
        assert "--maps draws the rollout of dcal; this run is of cca" in lines[0]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (
                ("--attention", "agent"),
                "agent: takes no context, which GLCA and PWCA need; add --glca 0 and --no-pwca",
            ),
            (
                ("--attention", "star"),
                "star: has no attention weights, which GLCA needs; add --glca 0",
            ),
            (("--batch-size", 10), "must be a multiple of --per-identity 4"),
            (
                ("--model", "cca", "--triplet", "no", "--batch-size", 2),
                "must be a multiple of --per-identity 4",
            ),
            (("--size", 30, 16), "patches of 8 pixels do not fill a picture of 30 x 16"),
            (("--local", 0), "--local 0.0: must be in (0, 1]"),
            (("--enlarge", 9), "--enlarge 9.0: must be in [1, 4]"),
            (("--model", "cca", "--goal", "classes"), "learns vectors to search by"),
            (("--backbone", "vit_tinny", *DEFAULT_SIZES), "'vit_tinny' is unknown to timm"),
            (("--backbone", "test_vit"), "--patch: is read by --backbone scratch"),
            (("--vector", 64), "--vector: is read by --model cca, not by dcal"),
            (("--model", "cca", "--smoothing", 0.1), "--smoothing: is read by --model dcal"),
            (("--glca", 0, "--local", 0.5), "--local: is read by GLCA"),
            (("--goal", "classes", "--margin", 0.3), "--margin: is read by a triplet loss"),
            (("--goal", "classes", "--rerank", 9), "--rerank: is read by --goal search"),
            (("--columns", "identity=who"), "--columns is read with a table"),
        ],
    )
    def test_options_that_cannot_be(self, persons, tmp_path, headwise, words, message) -> None:
        code, lines = headwise(
            "reid", "train", "--data", persons, "--run", tmp_path / "r", *WORDS, *words
        )
        assert code == 2, lines
        assert message in lines[-1]
        assert not (tmp_path / "r").exists()
