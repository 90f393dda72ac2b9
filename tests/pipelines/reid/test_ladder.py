"""The ladder of re-identification: what is chosen where the right answer is known, and that all
that comes after a training takes what was chosen.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from headwise import pipelines
from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.base.files import checksum
from headwise.models.vision.dcal import DCAL
from headwise.models.vision.picture_rungs import BlendedVectors, ClassShares, attending
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.frozen import FrozenLinear
from headwise.pipelines.engine.pipeline import Context
from headwise.pipelines.engine.runs.ladder_files import fit_ladder
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.reid import rungs
from headwise.pipelines.reid.embedding import embed_part, embed_rungs
from headwise.pipelines.reid.options import ReidOptions
from headwise.pipelines.reid.prediction import fingerprint
from headwise.pipelines.reid.rungs import ReidRungs
from headwise.pipelines.reid.scoring import colours_of

CPU = torch.device("cpu")
RUNGS = ("naive", "simple", "model", "blend")
TINY = {
    "size": (24, 24),
    "patch": 8,
    "width": 8,
    "layers": 1,
    "heads": 2,
    "batch_size": 8,
    "max_steps": 1,
    "validation_share": 0.4,
    "accelerator": "cpu",
}
SMALL = ("--size", "24", "24", "--patch", "8", "--width", "8", "--layers", "1", "--heads", "2")
SMALL = (*SMALL, "--batch-size", "8", "--accelerator", "cpu")


def patterned(generator: np.random.Generator, angle: float) -> np.ndarray:
    """Stripes of an angle, a random phase and colour: histograms of colours do not tell them."""
    rows, columns = np.mgrid[:24, :24]
    wave = np.sin(
        (np.cos(angle) * rows + np.sin(angle) * columns) * 1.2 + generator.uniform(0, 2 * np.pi)
    )
    colour = generator.uniform(0.3, 1, 3)
    return (127 + 100 * wave[..., None] * colour + generator.normal(0, 5, (24, 24, 3))).clip(0, 255)


def write_pictures(folder: Path, identities: int, each: int, *, noise: bool = False) -> Path:
    """Pictures of identities, which differ by the angle of their stripes, or by nothing."""
    generator = np.random.default_rng(4)
    for identity in range(identities):
        home = folder / f"i{identity:02d}"
        home.mkdir(parents=True)
        for number in range(each):
            angle = np.pi * identity / identities
            pixels = (
                generator.integers(0, 256, (24, 24, 3)) if noise else patterned(generator, angle)
            )
            Image.fromarray(pixels.astype(np.uint8)).save(home / f"{number}.png")
    return folder


def opened_data(data: Path, goal: str, *words: str):
    task = load_task("reid")
    shares = ("--validation-share", "0.4", "--test-share", "0.3")
    options = parse(task, "train", ["--data", str(data), "--goal", goal, *SMALL, *shares, *words])
    pipeline = task.load()
    with opened() as account:
        splits = pipeline.open_data(options)
        ReidRungs().prepare(splits, options)
        return pipeline, options, splits, account


def ladder_of(pipeline, options, splits, model: torch.nn.Module):
    ladder = fit_ladder(pipeline, model, splits, Context(options, splits.spec, {}, CPU))
    assert ladder is not None
    return ladder


def scores_of(ladder, options, splits):
    context = Context(options, splits.spec, {}, CPU)
    return ReidRungs().scores(ladder.models, splits.test, context)


class Same(torch.nn.Module):
    """A model that was not trained: the same vector for all pictures."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(images), 4) / 2


def key(image: torch.Tensor) -> int:
    """A picture as a number."""
    return hash(((image * 0.5 + 0.5) * 255).round().to(torch.uint8).numpy().tobytes())


def labels_of(splits) -> dict[int, int]:
    """The label of each validation and test picture, in which no identity is in both."""
    labels = {}
    for number, part in enumerate((splits.validation, splits.test)):
        for index in range(len(part)):
            image = part.image(index).float() / 255 / 0.5 - 1
            labels[key(image)] = int(part.labels[index]) + 100 * number
    return labels


class Knows(torch.nn.Module):
    """A model that knows who is in a picture."""

    def __init__(self, labels: dict[int, int]) -> None:
        super().__init__()
        self.labels = labels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        vectors = torch.zeros(len(images), 200)
        for row, image in enumerate(images):
            vectors[row, self.labels.get(key(image), 0)] = 1
        return vectors


class KnowsClasses(ClassShares):
    """The same for classes."""

    def __init__(self, labels: dict[int, int], classes: int) -> None:
        super().__init__(classes, 0.5, 0.5)
        self.labels = labels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = [self.labels.get(key(image), 0) % 100 for image in images]
        return torch.eye(len(self.logits))[rows] * 0.98 + 0.02 / len(self.logits)


@pytest.fixture(scope="module")
def stripes(tmp_path_factory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("stripes") / "d", 30, 6)


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("noise") / "d", 30, 6, noise=True)


@pytest.fixture(scope="module")
def six_classes(tmp_path_factory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("classes") / "d", 6, 16)


class TestSearch:
    def test_what_filters_tell_the_simple_model_finds(self, stripes: Path) -> None:
        pipeline, options, splits, account = opened_data(stripes, "search")
        assert any("random filters" in line for line in account.lines())
        ladder = ladder_of(pipeline, options, splits, Same())
        assert ladder.chosen in ("simple", "blend")
        assert isinstance(ladder.models["simple"], FrozenLinear)
        scores = scores_of(ladder, options, splits)
        assert scores.score["simple"] > scores.score["naive"] + 0.1
        assert scores.metric == "mAP"
        assert scores.blocks == 9  # identities

    def test_what_only_the_model_knows_the_model_finds(self, noise: Path) -> None:
        pipeline, options, splits, _ = opened_data(noise, "search")
        ladder = ladder_of(pipeline, options, splits, Knows(labels_of(splits)))
        assert ladder.chosen == "model"
        scores = scores_of(ladder, options, splits)
        assert scores.score["model"] == 1
        assert scores.further["rank 1"]["model"] == 1

    def test_of_noise_colours_are_as_good_as_anything(self, noise: Path) -> None:
        pipeline, options, splits, _ = opened_data(noise, "search")
        ladder = ladder_of(pipeline, options, splits, Same())
        assert ladder.chosen == "naive"
        part = splits.validation
        vectors = embed_part(ladder.models["naive"], part, options, CPU)["vectors"]
        np.testing.assert_allclose(vectors, colours_of(part), atol=1e-5)

    def test_the_cosine_of_a_blend_is_the_mean_of_the_two(self, stripes: Path) -> None:
        pipeline, options, splits, _ = opened_data(stripes, "search")
        ladder = ladder_of(pipeline, options, splits, Knows(labels_of(splits)))
        blend, part = ladder.models["blend"], splits.test
        assert isinstance(blend, BlendedVectors)
        rows = embed_rungs(ladder.models, part, options, CPU)
        first = rows["model"]["vectors"] - blend.centre.numpy()
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        second, share = rows["simple"]["vectors"], float(blend.share)
        both = rows["blend"]["vectors"]
        expected = share * first @ first.T + (1 - share) * second @ second.T
        np.testing.assert_allclose(both @ both.T, expected, atol=1e-5)
        alone = embed_part(blend, part, options, CPU)["vectors"]
        np.testing.assert_allclose(alone, both, atol=1e-5)
        assert 0.3 < share < 1

    def test_weights_that_cannot_be_used_alone_leave_others_to_the_simple_model(
        self, stripes: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, options, _, _ = opened_data(stripes, "search")
        real, asked = rungs._opened, []

        def refusing(name: str, backbone: str, options: ReidOptions):
            asked.append(name)
            if name == "w.safetensors":
                raise InputError("positions of another size")
            return real(name, backbone, options)

        monkeypatch.setattr(rungs, "_opened", refusing)
        with opened() as account:
            rungs.simple_encoder(replace(options, weights="w.safetensors"))
        assert asked == ["w.safetensors", "auto"]
        statement = "the simple model has other weights than dcal (positions of another size)"
        assert any(statement in line for line in account.lines())

    def test_without_a_validation_part_there_is_no_threshold_and_it_is_said(
        self, stripes: Path
    ) -> None:
        pipeline, options, splits, _ = opened_data(stripes, "search", "--validation-share", "0")
        with opened() as account:
            model = pipeline.build_model(options, splits.spec)
            calibration = pipeline.calibrate(model, splits, options, CPU)
        assert "answer_map" not in calibration
        assert any("no validation part for a threshold" in line for line in account.lines())

    def test_without_a_validation_part_dcal_predicts(self, stripes: Path) -> None:
        words = ("--validation-share", "0")
        _, options, splits, account = opened_data(stripes, "search", *words)
        assert ReidRungs().simple(nn.Identity(), splits, options, CPU) == {}
        assert any("dcal predicts" in line for line in account.lines())
        with pytest.raises(ValueError, match="--choose simple: there is no validation part"):
            opened_data(stripes, "search", *words, "--choose", "simple")


class TestClasses:
    def test_what_filters_tell_the_simple_model_names(self, six_classes: Path) -> None:
        pipeline, options, splits, _ = opened_data(six_classes, "classes")
        ladder = ladder_of(pipeline, options, splits, ClassShares(6, 0.5, 0.5))
        assert ladder.chosen in ("simple", "blend")
        scores = scores_of(ladder, options, splits)
        assert scores.score["simple"] < 0.7 * scores.score["naive"]
        probability = embed_part(ladder.models["blend"], splits.test, options, CPU)["probability"]
        np.testing.assert_allclose(probability.sum(1), 1, atol=1e-5)

    def test_what_only_the_model_knows_the_model_names(self, tmp_path: Path) -> None:
        data = write_pictures(tmp_path / "d", 5, 16, noise=True)
        pipeline, options, splits, _ = opened_data(data, "classes")
        ladder = ladder_of(pipeline, options, splits, KnowsClasses(labels_of(splits), 5))
        assert ladder.chosen == "model"

    def test_of_noise_the_shares_of_the_classes_predict(self, tmp_path: Path) -> None:
        data = write_pictures(tmp_path / "d", 5, 16, noise=True)
        pipeline, options, splits, _ = opened_data(data, "classes")
        ladder = ladder_of(pipeline, options, splits, ClassShares(5, 0.5, 0.5))
        assert ladder.chosen == "naive"


@pytest.fixture(scope="module")
def runs(stripes, six_classes, tmp_path_factory):
    """Trainings of one step, by what they chose, each made when it is asked for."""
    home, done = tmp_path_factory.mktemp("runs"), {}

    def run(goal: str, choose: str):
        if (goal, choose) not in done:
            done[goal, choose] = pipelines.reid.train(
                data=stripes if goal == "search" else six_classes,
                run=home / f"{goal}-{choose}",
                goal=goal,
                choose=choose,
                **TINY,
            )
        return done[goal, choose]

    return run


@pytest.mark.parametrize("goal", ["search", "classes"])
@pytest.mark.parametrize("choose", RUNGS)
def test_what_was_chosen_predicts_is_scored_and_exported(
    runs, stripes, tmp_path, headwise, goal: str, choose: str
) -> None:
    run = runs(goal, choose)
    metrics = run.metrics()
    assert metrics["ladder"]["chosen"] == choose
    shown = metrics["mAP"] if goal == "search" else metrics["log_loss"]
    rung = metrics["ladder"]["rungs"][choose]["mAP" if goal == "search" else "log-loss"]
    assert shown == pytest.approx(rung, abs=1e-4)
    evaluated = pipelines.reid.evaluate(run=run.path)
    assert evaluated["ladder"]["rungs"][choose] == metrics["ladder"]["rungs"][choose]
    loaded = load_run(load_task("reid").load(), str(run.path), "cpu")
    assert isinstance(attending(loaded.model), DCAL) == (choose in ("model", "blend"))
    report = (run.path / "report.html").read_text()
    assert ("attention rollout" in report.lower()) is True
    assert ("What the report cannot show" in report) == (choose in ("naive", "simple"))
    rows = pl.read_parquet(run.path / "predictions.parquet")
    assert rows["model"].unique().to_list() == [fingerprint(str(run.path))]
    np.testing.assert_allclose(np.linalg.norm(rows["vector"].to_list(), axis=1), 1, rtol=1e-4)
    output = tmp_path / "m.pt2"
    code, lines = headwise("reid", "export", "--run", run.path, "--output", output)
    assert code == 0, lines


def test_galleries_of_another_rung_are_refused(runs, stripes, tmp_path, headwise) -> None:
    """Both runs hold the same weights of dcal."""
    path = {choose: runs("search", choose).path for choose in ("simple", "blend")}
    weights = {checksum(home / "model.safetensors") for home in path.values()}
    marks = {choose: fingerprint(str(home)) for choose, home in path.items()}
    assert len({*marks.values(), *(mark[:12] for mark in weights)}) == 3
    assert len(weights) == 1
    words = ("--query", stripes / "i00", "--k", 5, "--shown", 1)
    for choose, home in path.items():
        output = tmp_path / f"{choose}.parquet"
        code, lines = headwise(
            "reid", "search", "--run", home, *words,
            "--gallery", home / "predictions.parquet", "--output", output,
        )  # fmt: skip
        assert code == 0, lines
        first = pl.read_parquet(output).filter(pl.col("rank") == 1)
        np.testing.assert_allclose(first["score"], 1, atol=1e-4)  # each picture finds itself
    code, lines = headwise(
        "reid", "search", "--run", path["simple"], *words,
        "--gallery", path["blend"] / "predictions.parquet", "--output", tmp_path / "x.parquet",
    )  # fmt: skip
    assert code == 2
    assert "vectors are of the model" in lines[-1]


def searched(headwise, run: Path, query: Path, gallery: Path, output: Path, *words):
    """The lines and the table of a search."""
    code, lines = headwise(
        "reid", "search", "--run", run, "--query", query, "--gallery", gallery,
        "--output", output, "--overwrite", "--shown", 0, "--k", 4, *words,
    )  # fmt: skip
    return code, lines, pl.read_parquet(output) if code == 0 else pl.DataFrame()


def test_a_search_says_who_it_is_or_nobody(runs, stripes, tmp_path, headwise) -> None:
    home = runs("search", "simple").path
    rows, item = pl.read_parquet(home / "predictions.parquet"), pl.col("item")
    others, strangers = tmp_path / "others.parquet", tmp_path / "strangers.parquet"
    rows.filter(item != "i03/0.png").write_parquet(others)
    rows.filter(~item.str.starts_with("i03/")).write_parquet(strangers)
    run = home, stripes / "i03" / "0.png"
    code, lines, table = searched(headwise, *run, others, tmp_path / "o.parquet")
    assert code == 0, lines
    threshold, slope, intercept = load_file(home / "calibration.safetensors")["answer_map"].tolist()
    query = np.array(rows.filter(item == "i03/0.png")["vector"][0])
    vectors = {row["item"]: np.array(row["vector"]) for row in rows.iter_rows(named=True)}
    cosine = np.array([vectors[name] @ query for name in table["item"]])
    np.testing.assert_allclose(table["score"], cosine, atol=1e-5)
    expected = 1 / (1 + np.exp(-(slope * cosine + intercept)))
    np.testing.assert_allclose(table["probability"], expected, atol=1e-4)
    first = table["identity"][0]
    assert table["answer"].to_list() == [first if cosine[0] >= threshold else "nobody"] * 4
    # The threshold can be another one for a search.
    for gallery, share, answer in ((others, 0.999, first), (strangers, 1e-4, "nobody")):
        _, lines, table = searched(
            headwise, *run, gallery, tmp_path / "o.parquet", "--false-match", share
        )
        assert table["answer"].unique().to_list() == [answer]
        said = "nobody in the gallery" if answer == "nobody" else f"{answer}, probability"
        assert any(line.startswith(f"0.png: {said}") for line in lines)
        assert any("a name from a cosine of" in line for line in lines)
    metrics = runs("search", "simple").metrics()["answers"]
    assert metrics["threshold"] == pytest.approx(threshold)
    assert metrics["queries"] == 54
    assert "Answers from a cosine of" in (home / "report.html").read_text()


def test_a_run_without_a_threshold_ranks_as_before(runs, stripes, tmp_path, headwise) -> None:
    home = tmp_path / "run"
    shutil.copytree(runs("search", "simple").path, home)
    gallery = home / "predictions.parquet"
    arguments = home, stripes / "i03", gallery, tmp_path / "o.parquet"
    _, _, newer = searched(headwise, *arguments)
    save_file({}, home / "calibration.safetensors")
    code, lines, table = searched(headwise, *arguments)
    assert code == 0, lines
    assert any("scores rank the gallery" in line for line in lines)
    assert table.equals(newer.drop("probability", "answer"))
    code, lines, _ = searched(headwise, *arguments, "--false-match", 0.1)
    assert (code, len(lines)) == (2, 1)
    assert "--false-match 0.1: the run has no threshold" in lines[0]
    assert "answers" not in pipelines.reid.evaluate(run=home)


def test_heads_and_maps_are_of_dcal(runs, stripes, tmp_path, headwise) -> None:
    words = ("--input", stripes / "i00", "--output", tmp_path / "o.parquet")
    path = runs("search", "simple").path
    for option in (("--maps",), ("--embedding", "sa")):
        code, lines = headwise("reid", "predict", "--run", path, *words, *option)
        assert (code, len(lines)) == (2, 1)
        assert "in this run predicts simple" in lines[0]
    blended = runs("search", "blend").path
    code, lines = headwise("reid", "predict", "--run", blended, *words, "--maps")
    assert code == 0, lines
    assert len(list((tmp_path / "o.parquet.maps").iterdir())) == 6


def test_a_damaged_ladder_is_one_line(runs, stripes, tmp_path, headwise) -> None:
    home = tmp_path / "r"
    shutil.copytree(runs("search", "simple").path, home)
    facts = json.loads((home / "ladder.json").read_text())
    facts["rungs"]["simple"]["facts"] = {"architecture": "random-filters"}
    (home / "ladder.json").write_text(json.dumps(facts))
    words = ("--input", stripes / "i00", "--output", tmp_path / "o.parquet")
    code, lines = headwise("reid", "predict", "--run", home, *words)
    assert (code, len(lines)) == (2, 1)
    assert "facts of no simple model" in lines[0]
