"""Batches, splits, maps, boxes and the audit of X-rays."""

from dataclasses import replace
from datetime import date
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

pytest.importorskip("PIL", reason="the extra `vision` is not installed")
pytest.importorskip("timm", reason="the extra `vision` is not installed")

from PIL import Image

from headwise.base.errors import InputError
from headwise.data.xrays.xrays import read_xray_set
from headwise.models.layers.encoders import RANDOM_FILTERS, build_encoder
from headwise.models.vision.medusa import build_medusa
from headwise.pipelines.medical import audit
from headwise.pipelines.medical.augment import augment, normalise
from headwise.pipelines.medical.data import BalancedXrays, XrayReader, Xrays, open_splits
from headwise.pipelines.medical.explain import (
    CAM,
    maps_of,
    overlay,
    pointing,
    read_boxes,
    share_inside,
)
from headwise.pipelines.medical.options import MedicalOptions

SIDE = 32
PARTS = ("train", "validation", "test")


def write(home, pixels, labels, **columns):
    """A table of pictures (N, Y, X) in [0, 1]."""
    (home / "p").mkdir(parents=True)
    lines = [",".join(["image", "label", *columns])]
    for k, picture in enumerate(pixels):
        Image.fromarray((255 * picture).astype(np.uint8)).save(home / "p" / f"{k}.png")
        lines.append(
            ",".join([f"p/{k}.png", labels[k], *(values[k] for values in columns.values())])
        )
    (home / "labels.csv").write_text("\n".join(lines) + "\n")
    return home


@pytest.fixture
def noise(tmp_path):
    """80 pictures of noise; source tells the label in most of them."""
    generator = np.random.default_rng(0)
    labels = ["ill" if k % 2 else "well" for k in range(80)]
    sources = ["A" if (k % 2) ^ (k % 10 == 0) else "B" for k in range(80)]
    return write(
        tmp_path / "noise",
        generator.random((80, SIDE, SIDE)),
        labels,
        source=sources,
        patient=[f"p{k // 2 % 37}-{k % 2}" for k in range(80)],
    )


def reader_of(home) -> XrayReader:
    return XrayReader(read_xray_set(home), (SIDE, SIDE), (16, 16))


def test_batches_are_balanced_and_every_picture_comes(noise) -> None:
    reader = reader_of(noise)
    rare = np.array([row for row in range(80) if reader.xrays.labels[row] == "well" or row < 20])
    part = BalancedXrays(reader, rare, ["ill", "well"])
    batches = part.batches(8, seed=0, epoch=0)
    assert len(batches) == part.steps(8)
    assert sum(map(len, batches)) == len(part)
    assert all((part.labels[batch] == 1).sum() == 4 for batch in batches[:-1])
    places = np.concatenate(batches)
    assert set(np.flatnonzero(part.labels == 0)) <= set(places)
    again = part.batches(8, seed=0, epoch=0)
    assert all((a == b).all() for a, b in zip(batches, again))
    assert any((a != b).any() for a, b in zip(batches, part.batches(8, seed=0, epoch=1)))


def test_patients_stay_together(noise) -> None:
    options = MedicalOptions(data=str(noise), size=(SIDE, SIDE), body_size=(16, 16))
    splits = open_splits(options)
    patients = [set(splits.part(name).column("patients")) for name in PARTS]
    assert not any(first & second for first, second in combinations(patients, 2))
    assert 10 <= len(splits.test) <= 30
    assert splits.spec.classes == ["ill", "well"]
    assert splits.spec.positive == 1
    assert open_splits(replace(options, positive="ill")).spec.positive == 0
    crossed = noise / "crossed.csv"
    crossed.write_text(
        "image,label,patient,part\n"
        + "".join(f"p/{k}.png,{'ab'[k % 2]},{k},train\n" for k in range(9))
        + "p/9.png,a,4,test\n"
    )
    with pytest.raises(InputError, match="patient '4' is in the training and in the test part"):
        open_splits(replace(options, data=str(crossed)))


def test_both_pictures_move_together_and_are_normalised() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 64).expand(3, 1, 64, 64).clone()
    options = MedicalOptions(brightness=0.0, aspect=0.2)
    picture, small = augment(ramp, ramp[:, :, ::2, ::2], options)
    half = torch.nn.functional.avg_pool2d(picture, 2) * 0.226 + 0.449
    grey = (half > 0.1) & (half < 0.9)
    back = small * half.flatten(1).std(1, unbiased=False)[:, None, None, None] + half.mean(
        (1, 2, 3), keepdim=True
    )
    assert (back - half)[grey].abs().max() < 0.1
    still = MedicalOptions(turn=0, shift=0, zoom=0, aspect=0, brightness=0, flip=False)
    torch.testing.assert_close(
        augment(ramp, ramp, still)[0], normalise(ramp, ramp)[0], atol=1e-4, rtol=1e-4
    )
    small = normalise(ramp, ramp)[1]
    torch.testing.assert_close(small.mean((2, 3)), torch.zeros(3, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(small.square().mean((2, 3)), torch.ones(3, 1), atol=1e-4, rtol=0)


def test_gradcam_is_that_of_the_gradient() -> None:
    torch.manual_seed(0)
    model = build_medusa("small", 3, body_width=2, head_width=4).eval()
    picture, small = torch.randn(2, 1, 64, 64), torch.randn(2, 1, 32, 32)
    attended = model.attend(picture, small)
    classes = torch.tensor([2, 0])
    maps = maps_of(model, attended, (2, 2), classes)
    assert {"scale 1", "scale 4", "attention", "body", CAM} <= set(maps)
    logits = attended.logits[torch.arange(2), classes].sum()
    (slope,) = torch.autograd.grad(logits, attended.features)
    cam = (slope.mean((2, 3), keepdim=True) * attended.features).sum(1).clamp_min(0)
    cam = cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-12)
    torch.testing.assert_close(maps[CAM], cam.detach())
    arrays = {name: values[0].detach().numpy() for name, values in maps.items()}
    strip = overlay(np.zeros((9, 7), np.float32), arrays, side=16)
    assert strip.shape == (16, 16 * len(maps), 3)  # the picture, and all maps but "attention"


def test_boxes_are_read_and_pointed_at(noise) -> None:
    xrays = read_xray_set(noise)
    table = noise / "nih.csv"
    head = "Image Index,Finding Label,Bbox [x,y,w,h],Unnamed: 6\n"
    table.write_text(f"{head}0.png,Mass,512,0,256,512,\nother.png,x,1,1,1,1,\n")
    assert read_boxes(xrays, str(table), (1024, 1024)) == {0: [(0.5, 0.0, 0.75, 0.5)]}
    assert read_boxes(xrays, str(table), None)[0][0][0] == 512 / SIDE
    values = np.zeros((10, 10))
    values[2, 6] = 1
    assert pointing(values, [(0.5, 0.0, 0.75, 0.5)])
    assert not pointing(values.T, [(0.5, 0.0, 0.75, 0.5)])
    mask = np.zeros((10, 10), bool)
    mask[:, 5:] = True
    assert share_inside(values, mask) == (1.0, 0.5)
    head = "image,x,y,w,h\n"
    for text, message in (
        ("image,x,y,w\n0.png,1,1,1\n", "needs columns"),
        (f"{head}0.png,1,a,1,1\n", "is no number"),
        (f"{head}none.png,1,1,1,1\n", "holds no box"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=message):
            read_boxes(xrays, str(table), None)
    dated = pl.DataFrame({"image": ["0.png"], "x": [date(2020, 1, 1)], "y": 1, "w": 1, "h": 1})
    dated.write_parquet(noise / "boxes.parquet")
    with pytest.raises(InputError, match="column 'x' holds Date, not numbers"):
        read_boxes(xrays, str(noise / "boxes.parquet"), None)


class TestAudit:
    def probes(self, home) -> dict:
        reader = reader_of(home)
        probes = audit.probe_all(reader, ["ill", "well"], reader.xrays.rows(), 0)
        return {probe.name: probe for probe in probes}

    def test_a_source_that_tells_the_label_is_flagged_and_noise_is_not(self, noise) -> None:
        probes = self.probes(noise)
        assert probes[audit.SOURCE].readable
        assert probes[audit.SOURCE].auc > 0.8
        assert not probes[audit.BORDERS].readable
        assert not probes[audit.WITHOUT_LUNGS].readable
        words = audit.sentences(list(probes.values()), [], 0.9)
        assert words[0].startswith("Warning: the label can be read without the lung, from: source")

    @pytest.mark.parametrize("place", ["border", "lung"])
    def test_the_border_tells_the_label_and_the_lung_does_not(self, tmp_path, place) -> None:
        generator = np.random.default_rng(0)
        pixels = 0.5 * generator.random((80, SIDE, SIDE))
        corner = (slice(0, 2), slice(0, 12)) if place == "border" else (slice(12, 20), slice(6, 12))
        for k in range(1, 80, 2):
            pixels[(k, *corner)] += 0.5
        home = write(tmp_path / "marked", pixels, ["ill" if k % 2 else "well" for k in range(80)])
        probes = self.probes(home)
        assert probes[audit.ENTIRE].auc > 0.9
        assert probes[audit.BORDERS].readable == (place == "border")
        assert probes[audit.WITHOUT_LUNGS].readable == (place == "border")
        assert not probes[audit.ENTIRE].readable  # it is there to compare with
        sentences = audit.sentences(list(probes.values()), [], 0.9)
        start = "Warning" if place == "border" else "No probe told the label"
        assert sentences[0].startswith(start)
        assert "names neither source nor view" in sentences[-1]

    def test_frozen_features_are_probed_with_and_without_the_lungs(
        self, tmp_path, monkeypatch
    ) -> None:
        monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))
        pixels = 0.5 * np.random.default_rng(0).random((3, SIDE, SIDE))
        pixels[1] = pixels[0]
        pixels[1, 12:20, 6:12] += 0.4  # in a lung
        reader = reader_of(write(tmp_path / "marked", pixels, ["ill", "well", "well"]))
        part = Xrays(reader, np.arange(3), ["ill", "well"])
        seen = audit.features_of(part, build_encoder(RANDOM_FILTERS))
        assert seen[audit.FROZEN].shape == (3, 102)
        assert (seen[audit.FROZEN][0] == seen[audit.FROZEN][1]).all()
        assert (seen[audit.FROZEN][0] != seen[audit.FROZEN][2]).any()
        assert (seen[audit.FROZEN_ENTIRE][0] != seen[audit.FROZEN_ENTIRE][1]).any()
        assert not {audit.FROZEN, audit.FROZEN_ENTIRE} & set(audit.features_of(part))

    def test_a_label_in_the_size_of_the_file_is_flagged(self, tmp_path) -> None:
        home = write(
            tmp_path / "sizes",
            [np.full((40 if k % 2 else 50, 40), 0.5) for k in range(60)],
            ["ill" if k % 2 else "well" for k in range(60)],
        )
        assert self.probes(home)[audit.FILE_SIZE].readable

    def test_the_model_is_scored_within_one_source(self, noise) -> None:
        part = Xrays(reader_of(noise), np.arange(80), ["ill", "well"])
        by_source = (np.array(part.column("sources")) == "A").astype(float)
        labels = 1 - part.labels  # ill is class 0 and comes with source A
        assert (by_source == labels).mean() > 0.8
        probability = np.stack([0.2 + 0.6 * by_source, 0.8 - 0.6 * by_source], 1)
        few = audit.within(part, probability, 0)
        assert all(row.auc is None for row in few)  # four and thirty-six of a source
        assert "No source has 10 pictures of two classes" in audit.sentences([], few, 0.9)[1]
        mixed = SimpleNamespace(
            labels=np.arange(80) % 2,
            classes=["ill", "well"],
            column=lambda name: [str(k // 40) for k in range(80)],
        )
        half = np.where(np.arange(80) < 40, 0.5, 0.1 + 0.8 * (np.arange(80) % 2))
        rows = audit.within(mixed, np.stack([1 - half, half], 1), 0)
        assert [row.auc for row in rows[:2]] == [0.5, 1.0]
        assert "part of what it knows" in audit.sentences([], rows, 0.75)[1]

    def test_sources_that_lack_a_class_are_scored_among_the_others(self) -> None:
        labels = np.repeat([0, 1, 2], [30, 30, 20])
        part = SimpleNamespace(
            labels=labels,
            classes=["a", "b", "c"],
            column=lambda name: ["A" if label < 2 else "B" for label in labels],
        )
        probability = np.full((80, 3), 0.05)
        probability[np.arange(80), labels] = 0.9
        first, second = audit.within(part, probability, 0)[:2]
        assert (first.auc, first.among) == (1.0, "a, b")
        assert second.auc is None
        sentences = audit.sentences([], [first, second], 1.0)
        assert (
            "No source has pictures of every class: source and label cannot be told apart."
            in sentences
        )
