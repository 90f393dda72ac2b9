"""The ladder of chest X-rays: what is chosen where the right answer is known, and that each choice
predicts, is exported and scored."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

pytest.importorskip("timm", reason="the extra `vision` is not installed")

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.xrays.generate import write_sample_xrays
from headwise.models.layers.encoders import RANDOM_FILTERS, build_encoder
from headwise.models.vision.frozen import FrozenLinear
from headwise.models.vision.simple import (
    BlendedFindings,
    BlendedPictures,
    LinearPixels,
    PriorPictures,
    covered_means,
)
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.pipeline import Context
from headwise.pipelines.engine.runs.ladder_files import fit_ladder
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.medical import rungs
from headwise.pipelines.medical.option_rules import check
from headwise.pipelines.medical.options import CompareOptions, MedicalOptions
from headwise.pipelines.medical.rungs import logits_of, probed_encoder, side_of
from headwise.pipelines.medical.several.rungs import FindingRungs

SIDE = 32
WORDS = ["--size", "32", "32", "--body-size", "16", "16", "--body-width", "2", "--head-width", "4"]
SMALL = {"size": (32, 32), "body_size": (16, 16), "body_width": 2, "head_width": 4}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Features of tests stay out of the user's cache."""
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path_factory.getbasetemp() / "features"))


def noise(count: int) -> np.ndarray:
    generator = np.random.default_rng(3)
    return 110 + 40 * generator.normal(size=(count, SIDE, SIDE))


def opened_pictures(folder: Path, pixels: np.ndarray, labels: np.ndarray):
    """Pictures of as many patients, in parts of 60, 20 and 20 %."""
    (folder / "p").mkdir()
    lines = ["image,label,patient,part"]
    for k, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        file = folder / "p" / f"{k}.png"
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file)
        part = ("train", "train", "train", "validation", "test")[k % 5]
        lines.append(f"p/{k}.png,{('clear', 'cloud')[int(label)]},P{k},{part}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    task = load_task("medical")
    options = parse(task, "train", ["--data", str(folder / "labels.csv"), *WORDS])
    pipeline = task.load()
    with opened():
        return pipeline, options, pipeline.open_data(options)


def chosen(pipeline, options, splits, model: torch.nn.Module):
    context = Context(options, splits.spec, {}, torch.device("cpu"))
    ladder = fit_ladder(pipeline, model, splits, context)
    assert ladder is not None
    return ladder


def drawn_labels(count: int) -> np.ndarray:
    return np.random.default_rng(8).integers(2, size=count)


class Constant(torch.nn.Module):
    """A model that was not trained: the same logits for all pictures."""

    def forward(self, picture, small):
        return torch.zeros(len(picture), 2)


class Knows(torch.nn.Module):
    """A model that knows the labels, by the first pixels of a picture."""

    def __init__(self, label_of: dict[tuple[float, ...], int]) -> None:
        super().__init__()
        self.label_of = label_of

    def forward(self, picture, small):
        labels = [self.label_of[key_of(x)] for x in picture * 0.226 + 0.449]
        return 9.0 * torch.nn.functional.one_hot(torch.tensor(labels), 2)


def key_of(picture: torch.Tensor) -> tuple[float, ...]:
    return tuple((255 * picture.flatten()[:12]).round().tolist())


class TestChoice:
    def test_of_noise_the_shares_of_the_classes_predict(self, tmp_path: Path) -> None:
        data = opened_pictures(tmp_path, noise(300), drawn_labels(300))
        assert chosen(*data, Constant()).chosen == "naive"

    def test_what_pixels_tell_the_simple_model_knows(self, tmp_path: Path) -> None:
        """Which of two corners is the brighter one, which means over a picture do not tell."""
        pixels, labels = noise(300), drawn_labels(300)
        pixels[:, :8, :8] += 25 * (2 * labels - 1)[:, None, None]
        pixels[:, :8, -8:] -= 25 * (2 * labels - 1)[:, None, None]
        ladder = chosen(*opened_pictures(tmp_path, pixels, labels), Constant())
        assert ladder.chosen == "simple"
        assert isinstance(ladder.models["simple"], LinearPixels)

    def test_what_texture_tells_frozen_features_know(self, tmp_path: Path) -> None:
        """Smooth noise, of the same mean in every pixel."""
        pixels, labels = noise(300), drawn_labels(300)
        smooth = pixels[labels == 1]
        pixels[labels == 1] = 110 + (smooth + np.roll(smooth, 1, 2) - 220) * 0.7
        ladder = chosen(*opened_pictures(tmp_path, pixels, labels), Constant())
        assert ladder.chosen == "simple"
        assert isinstance(ladder.models["simple"], FrozenLinear)
        assert "frozen features (random filters)" in ladder.words("simple")

    def test_what_only_the_model_knows_the_model_predicts(self, tmp_path: Path) -> None:
        labels = drawn_labels(300)
        pipeline, options, splits = opened_pictures(tmp_path, noise(300), labels)
        label_of = {
            key_of(part[k]["picture"]): int(part.labels[k])
            for part in (splits.train, splits.validation, splits.test)
            for k in range(len(part))
        }
        assert len(label_of) == 300
        assert chosen(pipeline, options, splits, Knows(label_of)).chosen == "model"


class TestFindings:
    """Two findings: one is told by the place of a brighter corner, the other by nothing."""

    def opened_findings(self, folder: Path, known: float = 1.0):
        pixels, corner = noise(300), drawn_labels(300)
        other = np.random.default_rng(9).random(300) < 0.3
        pixels[:, :8, :8] += 25 * (2 * corner - 1)[:, None, None]
        pixels[:, :8, -8:] -= 25 * (2 * corner - 1)[:, None, None]
        (folder / "p").mkdir()
        lines = ["Path,patient,part,corner,other"]
        unknown = np.random.default_rng(10).random((300, 2)) >= known
        for k, picture in enumerate(pixels):
            file = folder / "p" / f"{k}.png"
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file)
            part = ("train", "train", "train", "validation", "test")[k % 5]
            cells = np.where(unknown[k], -1.0, [corner[k], other[k]])
            lines.append(f"p/{k}.png,P{k},{part},{cells[0]:.1f},{cells[1]:.1f}")
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")
        task = load_task("medical")
        words = ["--findings", "corner", "other", "--uncertain", "ignore"]
        options = parse(task, "train", ["--data", str(folder / "labels.csv"), *WORDS, *words])
        pipeline = task.load()
        with opened():
            return pipeline, options, pipeline.open_data(options)

    def test_each_has_its_regression(self, tmp_path: Path) -> None:
        data = self.opened_findings(tmp_path)
        ladder = chosen(*data, Constant())
        assert ladder.chosen == "simple"
        part = data[2].test
        logits = logits_of(ladder.models, part, torch.device("cpu"))
        assert ((logits["simple"][:, 0] > 0) == part.truth[:, 0]).mean() > 0.9
        share = (data[2].train.truth.sum(0) + 1) / (180 + 2)
        assert logits["naive"][0] == pytest.approx(np.log(share / (1 - share)), abs=1e-5)
        context = Context(data[1], data[2].spec, {}, torch.device("cpu"))
        scores = FindingRungs().scores(ladder.models, part, context)
        chance = 1 / (1 + np.exp(-logits["simple"]))
        losses = -np.log(np.where(part.truth, chance, 1 - chance))
        assert scores.score["simple"] == pytest.approx(losses.mean(), rel=1e-6)

    def test_what_is_not_known_is_in_no_fit_and_no_score(self, tmp_path: Path) -> None:
        pipeline, options, splits = self.opened_findings(tmp_path, known=0.6)
        ladder = chosen(pipeline, options, splits, Constant())
        before = ladder.facts["rungs"]
        for part in (splits.train, splits.validation):
            assert not part.known.all()
            part.truth = part.truth ^ ~part.known
        after = chosen(pipeline, options, splits, Constant()).facts["rungs"]
        for name in ("naive", "simple", "model"):
            assert after[name]["validation"] == before[name]["validation"], name


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return write_sample_xrays(tmp_path_factory.mktemp("xrays"), pictures=60)


@pytest.fixture(scope="module")
def run(home, tmp_path_factory):
    """Trained for a few steps; what predicts is changed in its ladder."""
    from headwise import pipelines

    path = tmp_path_factory.mktemp("run") / "run"
    pipelines.medical.train(
        run=path, data=str(home), max_steps=3, lungs=str(home / "lungs"), choose="blend", **SMALL
    )
    return path


@pytest.fixture(params=["naive", "simple", "blend"])
def choice(request, run):
    facts = json.loads((run / "ladder.json").read_text())
    (run / "ladder.json").write_text(json.dumps({**facts, "chosen": request.param}))
    yield request.param
    (run / "ladder.json").write_text(json.dumps(facts))


class TestEachChoice:
    def test_is_scored_and_says_where_it_looked_or_that_it_has_no_maps(
        self, headwise, run, choice
    ) -> None:
        code, lines = headwise("medical", "evaluate", "--run", run)
        assert code == 0, lines
        metrics = json.loads((run / "evaluation-test.json").read_text())
        page = (run / "evaluation-test.html").read_text()
        has_maps = choice in ("model", "blend")
        assert ("has no maps of where it looked" in page) != has_maps
        assert ("Attention at each scale" in page) == has_maps
        assert ("one part of the blend" in page) == (choice == "blend")
        assert bool(metrics["looked"]) == has_maps
        assert metrics["ladder"]["chosen"] == choice
        rung = metrics["ladder"]["rungs"][choice]
        assert rung["AUC"] == pytest.approx(metrics["auc"], abs=0.02)  # before the temperature
        assert metrics["audit"]["probes"]

    def test_predicts_what_its_scores_are_of(self, headwise, run, home, tmp_path, choice) -> None:
        code, lines = headwise(
            "medical", "predict", "--run", run, "--input", home / "pictures",
            "--output", tmp_path / "p.csv",
        )  # fmt: skip
        assert code == 0, lines
        assert (tmp_path / "p.csv.pictures").exists() == (choice in ("model", "blend"))
        told = [line for line in lines if "no maps of where it looked" in line]
        assert len(told) == (choice in ("naive", "simple"))
        loaded = load_run(load_task("medical").load(), str(run), "cpu")
        with opened():
            splits = load_task("medical").load().open_data(loaded.options, loaded.spec)
        assert loaded.ladder is not None
        logits = logits_of(loaded.ladder.models, splits.test, loaded.device)[choice]
        chance = np.exp(logits / float(loaded.calibration["temperature"]))
        rows = {row["item"]: row for row in pl.read_csv(tmp_path / "p.csv").iter_rows(named=True)}
        names = [Path(name).name for name in splits.test.column("names")]
        told_chance = [rows[name]["p_cloud"] for name in names]
        assert told_chance == pytest.approx(chance[:, 1] / chance.sum(1), abs=1e-4)

    def test_is_exported(self, headwise, run, tmp_path, choice) -> None:
        code, lines = headwise("medical", "export", "--run", run, "--output", tmp_path / "m.pt2")
        assert code == 0, lines


def test_a_comparison_of_attention_models_chooses_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--choose"):
        check(CompareOptions(output=str(tmp_path), choose="simple"))


class TestModels:
    def test_pixels_are_reduced_by_the_mean_of_what_they_cover(self) -> None:
        assert covered_means(48, 12) @ torch.ones(48) == pytest.approx(np.ones(12))
        line = torch.arange(12.0)
        torch.testing.assert_close(covered_means(12, 4) @ line, line.view(4, 3).mean(1))
        # Fifths of a line of three pixels: 0.6 of one, or 0.4 of one and 0.2 of the next.
        expected = torch.tensor([0.0, 1 / 3, 1.0, 5 / 3, 2.0])
        torch.testing.assert_close(covered_means(3, 5) @ torch.arange(3.0), expected)

    def test_pixels_are_in_the_order_of_their_weights(self) -> None:
        model = LinearPixels((4, 6), 2, 3)
        model.weight = torch.arange(12.0).view(3, 4)
        picture = torch.zeros(1, 1, 4, 6)
        picture[..., :2, 3:] = 1.0  # the second of four reduced pixels
        assert model(picture).tolist() == [[1.0, 5.0, 9.0]]

    def test_shares_do_not_depend_on_the_picture(self) -> None:
        model = PriorPictures(3)
        model.logits = torch.tensor([1.0, 2.0, 3.0])
        assert (
            model(torch.rand(2, 1, 8, 8), torch.rand(2, 1, 4, 4)).tolist() == [[1.0, 2.0, 3.0]] * 2
        )

    def test_blended_findings_are_the_mean_of_their_probabilities(self) -> None:
        blend = BlendedFindings(PriorPictures(2), PriorPictures(2))
        blend.share, blend.temperatures = torch.tensor(0.25), torch.tensor([2.0, 1.0])
        first, second = torch.tensor([[3.0, -1.0]]), torch.tensor([[0.5, -40.0]])
        expected = 0.25 * (first / 2).sigmoid() + 0.75 * second.sigmoid()
        torch.testing.assert_close(blend.blend(first, second).sigmoid(), expected)


def test_small_pictures_are_seen_at_twice_their_size() -> None:
    assert side_of((32, 32)) == 64
    assert side_of((64, 36)) == 96
    assert side_of((128, 128)) is None


def test_the_audit_probes_the_pretrained_features_of_what_predicts() -> None:
    frozen = FrozenLinear(build_encoder("test_efficientnet", "random"), 2)
    assert probed_encoder(frozen) is frozen.encoder
    assert probed_encoder(BlendedPictures(PriorPictures(2), frozen)) is frozen.encoder
    assert probed_encoder(BlendedPictures(frozen, PriorPictures(2))) is None
    assert probed_encoder(FrozenLinear(build_encoder(RANDOM_FILTERS), 2)) is None


@pytest.mark.parametrize("weights", ["auto", "none"])
def test_what_the_simple_model_sees_is_in_the_account(
    weights: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path))
    monkeypatch.setattr("headwise.pipelines.engine.weights.cached_hub_file", lambda model: None)
    rungs._published.cache_clear()
    try:
        with opened() as account:
            rungs.note_features(MedicalOptions(weights=weights))
    finally:
        rungs._published.cache_clear()
    (line,) = account.lines()
    assert "the simple model is of pixels or of frozen features of random filters" in line
    assert "HEADWISE_OFFLINE forbids to fetch it" in line
