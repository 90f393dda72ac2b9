"""The ladder of saliency: what is chosen where the right answer is known, and that each choice
predicts, is exported and scored."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from torch import nn

pytest.importorskip("timm", reason="the extra `vision` is not installed")

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.models.layers.encoders import RANDOM_FILTERS, build_encoder
from headwise.models.vision.saliency_rungs import (
    PIXEL_WIDTH,
    BlendedSaliency,
    LinearSaliency,
    MeanMask,
    SceneNormalisation,
    pixel_features,
    rebuilt_pixels,
)
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.pipeline import Context
from headwise.pipelines.engine.runs.ladder_files import fit_ladder
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.metrics.saliency import saliency_scores
from headwise.pipelines.saliency import rungs as ladder_of_task
from headwise.pipelines.saliency.rungs import SaliencyRungs, mean_mask
from headwise.pipelines.saliency.scoring import maps_of, to_bytes
from headwise.tests.contract.conftest import sample_of

SIDE, CPU = 32, torch.device("cpu")
SCALE = SceneNormalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.5, 0.25)


def drawn_masks(count: int) -> np.ndarray:
    """A square of 10 pixels somewhere in each scene."""
    generator = np.random.default_rng(5)
    masks = np.zeros((count, SIDE, SIDE), bool)
    for mask, (y, x) in zip(masks, generator.integers(0, SIDE - 10, (count, 2)), strict=True):
        mask[y : y + 10, x : x + 10] = True
    return masks


def opened_scenes(
    folder: Path, masks: np.ndarray, bright: float = 0.0, near: float = 0.0, *words: str
):
    """Scenes of noise, in parts of 60, 20 and 20 %, where what is salient is brighter or nearer by
    so much.
    """
    generator = np.random.default_rng(6)
    lines = ["image,depth,mask,part"]
    for k, mask in enumerate(masks):
        colour = 110 + 30 * generator.normal(size=(SIDE, SIDE, 3)) + bright * mask[..., None]
        depth = 90 + 30 * generator.normal(size=(SIDE, SIDE)) + near * mask
        for name, values in (("c", colour), ("d", depth), ("m", 255 * mask)):
            Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(folder / f"{name}{k}.png")
        part = ("train", "train", "train", "validation", "test")[k % 5]
        lines.append(f"c{k}.png,d{k}.png,m{k}.png,{part}")
    (folder / "scenes.csv").write_text("\n".join(lines) + "\n")
    task = load_task("saliency")
    given = ["--data", str(folder / "scenes.csv"), "--size", "32", "32", *words]
    options = parse(task, "train", given)
    pipeline = task.load()
    with opened():
        return pipeline, options, pipeline.open_data(options)


def fitted(pipeline, options, splits, model: nn.Module):
    ladder = fit_ladder(pipeline, model, splits, Context(options, splits.spec, {}, CPU))
    assert ladder is not None
    return ladder


class Constant(nn.Module):
    """A model that was not trained: the same map for all scenes."""

    def forward(self, image, depth):
        return torch.full_like(depth, 0.4)


class Knows(nn.Module):
    """A model that knows the masks, by the first pixels of a picture."""

    def __init__(self, splits) -> None:
        super().__init__()
        self.masks = {}
        for part in (splits.train, splits.validation, splits.test):
            for k in range(len(part)):
                scene = part[k]
                self.masks[self.key(scene["image"].float() / 255)] = scene["mask"].float()

    @staticmethod
    def key(image):
        return tuple((255 * image.flatten()[:12]).round().int().tolist())

    def forward(self, image, depth):
        mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (SCALE.mean, SCALE.deviation))
        return torch.stack([self.masks[self.key(x)] for x in image * deviation + mean])[:, None]


class TestChoice:
    def test_of_noise_the_mean_mask_predicts(self, tmp_path: Path) -> None:
        assert fitted(*opened_scenes(tmp_path, drawn_masks(60)), Constant()).chosen == "naive"

    @pytest.mark.parametrize(("bright", "near"), [(60.0, 0.0), (0.0, 60.0)])
    def test_what_colour_or_depth_tells_the_simple_model_knows(
        self, tmp_path: Path, bright: float, near: float
    ) -> None:
        ladder = fitted(*opened_scenes(tmp_path, drawn_masks(60), bright, near), Constant())
        assert ladder.chosen == "simple"
        assert "colour, depth and place" in ladder.words("simple")
        assert "patches" not in ladder.words("simple")  # there are no weights here

    def test_what_only_the_model_knows_the_model_predicts(self, tmp_path: Path) -> None:
        pipeline, options, splits = opened_scenes(tmp_path, drawn_masks(60))
        assert fitted(pipeline, options, splits, Knows(splits)).chosen == "model"

    def test_what_patches_tell_frozen_features_know(self, tmp_path: Path, monkeypatch) -> None:
        """An encoder whose patches say what is salient, which no pixel does."""
        pipeline, options, splits = opened_scenes(tmp_path, drawn_masks(60))
        knows = Knows(splits)

        def patches(self, pictures):
            maps = torch.stack([knows.masks[knows.key(x)] for x in pictures])[:, None]
            return nn.functional.avg_pool2d(maps, 4).expand(-1, self.width, -1, -1)

        encoder = build_encoder("test_vit", "random", (SIDE, SIDE))
        monkeypatch.setattr(type(encoder), "patches", patches)
        monkeypatch.setattr(ladder_of_task, "patch_encoder", lambda options: encoder)
        ladder = fitted(pipeline, options, splits, Constant())
        assert ladder.chosen == "simple"
        assert "frozen patches" in ladder.words("simple")
        assert ladder.short("simple") == "frozen features"

    def test_without_a_validation_part_the_blend_predicts_in_equal_shares(
        self, tmp_path: Path
    ) -> None:
        masks = drawn_masks(20)
        words = ("--validation-share", "0")
        pipeline, options, splits = opened_scenes(tmp_path, masks, 60.0, 0.0, *words)
        splits.validation.rows = splits.validation.rows[:0]
        ladder = fitted(pipeline, options, splits, Constant())
        assert ladder.chosen == "blend"
        assert float(ladder.models["blend"].share) == 0.5
        with opened() as account:
            SaliencyRungs().prepare(splits, options)
        assert any("no validation part" in line for line in account.lines())
        assert any("without weights" in line for line in account.lines())

    def test_choices_are_of_the_validation_part_by_max_f(self, tmp_path: Path) -> None:
        """The score and the draws, computed by plain loops."""
        pipeline, options, splits = opened_scenes(tmp_path, drawn_masks(40), 60.0)
        ladder = fitted(pipeline, options, splits, Constant())
        part = splits.validation
        maps = maps_of(ladder.models["simple"], part, options, CPU)
        curves = []
        for place, levels in enumerate(maps):
            mask = torch.from_numpy(part.mask(place))
            curves.append(saliency_scores(torch.from_numpy(levels)[None], mask[None]).f_curve[0])
        mean = sum(curve.numpy() for curve in curves) / len(curves)
        facts = ladder.facts["rungs"]["simple"]
        assert facts["validation"] == pytest.approx(mean.max(), abs=1e-9)
        context = Context(options, splits.spec, {}, CPU)
        with torch.no_grad():
            scores = SaliencyRungs().scores(ladder.models, part, context)
        draws = scores.draws["simple"]
        counts = np.random.default_rng(0).multinomial(len(part), np.full(len(part), 1 / len(part)))
        in_order = [curves[place] for place in np.argsort(part.column("groups"))]
        drawn = sum(n * curve.numpy() for n, curve in zip(counts, in_order, strict=True))
        assert draws[0] == pytest.approx(drawn.max() / len(part), abs=1e-9)
        assert scores.blocks == len(part)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Trained for a few steps; what predicts is changed in its ladder."""
    from headwise import pipelines

    path = tmp_path_factory.mktemp("run") / "run"
    small = {"size": (32, 32), "fusion": "concat", "transformer": "none"}
    pipelines.saliency.train(run=path, max_steps=2, choose="blend", **small)
    return path


@pytest.fixture(params=["naive", "simple", "blend"])
def choice(request, run):
    facts = json.loads((run / "ladder.json").read_text())
    (run / "ladder.json").write_text(json.dumps({**facts, "chosen": request.param}))
    yield request.param
    (run / "ladder.json").write_text(json.dumps(facts))


class TestEachChoice:
    def test_predicts_and_is_scored(self, headwise, run, tmp_path, choice) -> None:
        from headwise import pipelines

        metrics = pipelines.saliency.evaluate(run=run)
        rung = metrics["ladder"]["rungs"][choice]
        assert metrics["ladder"]["chosen"] == choice
        for name in ("max F-measure", "S-measure", "MAE"):
            assert rung[name] == pytest.approx(metrics[name], abs=1e-9), name
        files = {"input": run / "sample", "output": tmp_path / "p.parquet"}
        pipelines.saliency.predict(run=run, **files)
        loaded = load_run(load_task("saliency").load(), str(run), "cpu")
        assert loaded.ladder is not None
        with opened():
            options = replace(loaded.options, data=str(sample_of(run)))
            part = load_task("saliency").load().open_data(options, loaded.spec).test
        expected = maps_of(loaded.ladder.models[choice], part, loaded.options, CPU)
        for place, name in enumerate(part.column("names")[:3]):
            (file,) = (tmp_path / "p.parquet.maps").rglob(Path(name).with_suffix(".png").name)
            np.testing.assert_array_equal(np.asarray(Image.open(file)), expected[place])

    def test_is_exported(self, headwise, run, tmp_path, choice) -> None:
        code, lines = headwise("saliency", "export", "--run", run, "--output", tmp_path / "m.pt2")
        assert code == 0, lines


class TestFiles:
    def test_the_account_of_a_training_says_what_the_simple_model_reads(self, run) -> None:
        entries = json.loads((run / "account.json").read_text())
        assert any("the simple model reads colour, depth and place" in e["what"] for e in entries)

    def test_the_report_begins_with_what_predicts(self, run) -> None:
        headline = json.loads((run / "card.json").read_text())["headline"]
        start = "Map of what is salient in a picture with depth by the blend of a linear model of"
        assert headline.startswith(start)
        assert "the mean mask (" in headline

    @pytest.mark.parametrize("rung", ["naive", "simple", "blend"])
    def test_a_rung_that_was_changed_is_refused(self, run, tmp_path: Path, rung: str) -> None:
        copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("sample"))
        file = copy / "ladder" / f"{rung}.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        with pytest.raises(InputError, match=rf"{rung}\.safetensors: missing or damaged"):
            load_run(load_task("saliency").load(), str(copy), "cpu")

    @pytest.mark.parametrize(
        "facts",
        [{}, {"architecture": "test_vit", "size": None}, {"architecture": "no", "size": [8]}],
    )
    def test_facts_that_make_no_model_are_one_line(self, run, tmp_path: Path, facts) -> None:
        copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("sample"))
        stored = json.loads((copy / "ladder.json").read_text())
        stored["rungs"]["simple"]["facts"] = facts
        (copy / "ladder.json").write_text(json.dumps(stored))
        with pytest.raises(InputError, match="facts of no simple model"):
            load_run(load_task("saliency").load(), str(copy), "cpu")


class TestModels:
    def scenes(self, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(count, 3, 24, 40, generator=generator)
        depth = torch.rand(count, 1, 24, 40, generator=generator)
        mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (SCALE.mean, SCALE.deviation))
        return (image - mean) / deviation, (depth - 0.5) / 0.25

    def readout(self) -> LinearSaliency:
        model = LinearSaliency(build_encoder("test_vit", "random", (64, 96)), SCALE)
        generator = torch.Generator().manual_seed(1)
        width = len(model.centre)
        weight = 0.1 * torch.randn(1, width, generator=generator)
        model.set_map(torch.randn(width, generator=generator), weight, torch.tensor([0.3]))
        return model

    def test_the_map_is_the_readout_of_what_is_sampled(self) -> None:
        model, (image, depth) = self.readout(), self.scenes()
        assert model.encoder is not None
        assert len(model.centre) == PIXEL_WIDTH + model.encoder.width
        places = torch.arange(24 * 40).expand(2, -1)
        with torch.no_grad():
            rows = model.sampled(image, depth, places)
            expected = model.read_out(rows.flatten(0, 1)).sigmoid().view(2, 1, 24, 40)
            torch.testing.assert_close(model(image, depth), expected, atol=1e-5, rtol=1e-4)

    def test_it_is_rebuilt_from_facts_and_tensors(self) -> None:
        model, scenes = self.readout(), self.scenes()
        other = rebuilt_pixels(json.loads(json.dumps(model.facts())), SCALE)
        other.load_state_dict(model.state_dict())
        with torch.no_grad():
            assert torch.equal(other(*scenes), model(*scenes))

    def test_a_scene_of_one_colour_and_depth_has_no_contrast(self) -> None:
        features = pixel_features(torch.full((1, 3, 24, 40), 0.3), torch.full((1, 1, 24, 40), 0.5))
        of_place = features[0, 15:20]
        contrast = torch.cat([features[0, 3:6], features[0, 7:15], features[0, 20:]])
        assert contrast.abs().max() < 1e-2
        assert features[0, 6].unique().tolist() == [0.5]
        assert of_place[4].argmax() in (11 * 40 + 19, 11 * 40 + 20, 12 * 40 + 19, 12 * 40 + 20)

    def test_features_know_the_nearest_point_and_the_row(self) -> None:
        depth = torch.rand(1, 1, 24, 40, generator=torch.Generator().manual_seed(3))
        features = pixel_features(torch.rand(1, 3, 24, 40), depth)[0]
        torch.testing.assert_close(features[9], depth.max() - depth[0, 0])
        expected = depth[0, 0] - depth[0, 0].mean(1, keepdim=True)
        torch.testing.assert_close(features[13], expected)
        # The surroundings are cut off at the border.
        around = depth[0, 0, :5, :7].mean()
        torch.testing.assert_close(features[11, 0, 0], depth[0, 0, 0, 0] - around)

    def test_the_mean_mask_is_the_share_of_scenes(self, tmp_path: Path) -> None:
        masks = drawn_masks(20)
        part = opened_scenes(tmp_path, masks)[2].train
        of_train = masks[[k for k in range(20) if k % 5 < 3]]
        np.testing.assert_allclose(mean_mask(part).numpy(), of_train.mean(0), atol=1e-6)
        model = MeanMask((24, 40))
        assert model(*self.scenes(3)).shape == (3, 1, 24, 40)

    def test_a_blend_is_the_mean_of_tempered_probabilities(self) -> None:
        blend = BlendedSaliency(MeanMask((2, 2)), MeanMask((2, 2)))
        blend.share, blend.temperatures = torch.tensor(0.25), torch.tensor([2.0, 0.5])
        first, second = torch.tensor([3.0, -1.0]), torch.tensor([0.5, -2.0])
        expected = 0.25 * (first / 2).sigmoid() + 0.75 * (second / 0.5).sigmoid()
        torch.testing.assert_close(blend.blend(first.sigmoid(), second.sigmoid()), expected)
        certain = blend.blend(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
        assert torch.isfinite(certain).all()

    def test_only_an_encoder_of_patches_has_patches(self) -> None:
        encoder = build_encoder("test_vit", "random", (32, 64))
        picture = torch.rand(2, 3, 16, 32)
        patches = encoder.patches(picture)
        assert patches.shape == (2, encoder.width, 2, 4)
        with pytest.raises(ValueError, match="has no patches"):
            build_encoder(RANDOM_FILTERS).patches(picture)

    def test_maps_are_resized_as_the_report_does(self) -> None:
        levels = to_bytes(torch.tensor([[0.0, 1.0]]), (1, 4))
        assert levels.tolist() == [[0, 64, 191, 255]]


def test_a_column_of_every_rung_is_in_a_cross_validation(tmp_path: Path) -> None:
    from headwise import pipelines

    opened_scenes(tmp_path, drawn_masks(12), 60.0)
    table = pl.read_csv(tmp_path / "scenes.csv").drop("part")
    table.with_columns(group=pl.Series([f"g{k // 6}" for k in range(12)])).write_csv(
        tmp_path / "scenes.csv"
    )
    output = tmp_path / "folds"
    pipelines.saliency.crossval(
        data=str(tmp_path / "scenes.csv"), size=(32, 32), epochs=1, output=output
    )
    report = json.loads((output / "crossval.json").read_text())
    names = ["chosen", "naive", "simple", "GL-DMNet", "blend", "depth alone", "middle"]
    assert [row["map"] for row in report["scores"]] == names
    score = {row["map"]: row["max F-measure"] for row in report["scores"]}
    assert score["simple"] > score["naive"]
    assert score["chosen"] == score["blend"]
    assert {scene["chosen"] for scene in report["scenes"]} == {"blend"}
