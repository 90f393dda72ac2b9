"""Extraction of features: killed, broken, with other settings, without micrometres."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

pytest.importorskip("openslide", reason="OpenSlide is optional (extra wsi) and not installed")

from headwise import pipelines
from headwise.base.errors import InputError
from headwise.data.slides.features import read_attributes
from headwise.data.slides.generate import draw_slide, write_pyramid
from headwise.models.layers.encoders import TileEncoder
from headwise.pipelines.wsi import extraction


def feature_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.h5"))}


def test_killed_anywhere_and_started_again_it_ends_with_the_same_files(
    slides, tmp_path, monkeypatch
) -> None:
    options = {"slides": slides, "tile": 64, "encoder": "random-filters"}
    complete = pipelines.wsi.features(output=tmp_path / "complete", **options)
    assert (complete.failed, len(feature_files(complete.output))) == (0, 16)
    assert complete.table["tiles"].min() > 0
    encoded: list[str] = []
    real = extraction.Extractor.encode

    def dying(self, slide, grid):  # type: ignore[no-untyped-def]
        encoded.append(Path(slide.path).name)
        if len(encoded) in (4, 9):
            raise KeyboardInterrupt
        return real(self, slide, grid)

    monkeypatch.setattr(extraction.Extractor, "encode", dying)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            pipelines.wsi.features(output=tmp_path / "broken", **options)
    pipelines.wsi.features(output=tmp_path / "broken", **options)
    assert feature_files(tmp_path / "broken") == feature_files(complete.output)
    assert not list((tmp_path / "broken").glob(".aside-*"))
    assert len(encoded) == 16 + 2  # only the two that were broken off are encoded twice


def test_other_settings_are_not_mixed_in(slides, tmp_path) -> None:
    options = {"slides": slides, "output": tmp_path / "f", "encoder": "random-filters"}
    pipelines.wsi.features(tile=64, **options)
    again = pipelines.wsi.features(tile=96, **options)
    assert again.failed == 16
    assert "other settings" in again.table["error"][0]


VIT = {"tile": 64, "encoder": "vit_tiny_patch16_224", "weights": "random"}


def test_tiles_are_resized_to_the_side_that_is_asked_for(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_pyramid(folder / "a.tiff", draw_slide(np.random.default_rng(0), 256, True))
    options = {**VIT, "slides": folder, "tile_mpp": 0.5, "mpp": 0.5}
    seen: list[tuple[int, ...]] = []
    real = TileEncoder.features

    def watched(self, pictures):  # type: ignore[no-untyped-def]
        hook = self.model.patch_embed.register_forward_pre_hook(
            lambda _, inputs: seen.append(tuple(inputs[0].shape[2:]))
        )
        result = real(self, pictures)
        hook.remove()
        return result

    monkeypatch.setattr(TileEncoder, "features", watched)
    for side in (32, 48):
        made = pipelines.wsi.features(output=tmp_path / f"f{side}", encoder_side=side, **options)
        assert made.failed == 0
        assert set(seen) == {(side, side)}
        seen.clear()
        assert read_attributes(tmp_path / f"f{side}" / "a.h5")["encoder_side"] == side
    mixed = pipelines.wsi.features(output=tmp_path / "f32", encoder_side=48, **options)
    assert "encoder_side 32 instead of 48" in mixed.table["error"][0]


def test_a_side_that_cuts_patches_is_refused_with_the_nearest_ones(slides, tmp_path) -> None:
    with pytest.raises(InputError, match="100 is no multiple; take 96 or 112"):
        pipelines.wsi.features(slides=slides, output=tmp_path / "f", encoder_side=100, **VIT)


def test_features_replace_no_table_and_do_not_lie_among_their_slides(tmp_path, headwise) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    write_pyramid(tmp_path / "in" / "a.tiff", draw_slide(np.random.default_rng(0), 256, True))
    (tmp_path / "out" / "status.csv").write_text("ward,status\n")
    words = ("wsi", "features", "--slides", tmp_path / "in", "--tile", 64)
    code, lines = headwise(*words, "--encoder", "random-filters", "--output", tmp_path / "out")
    assert (code, "status.csv: is not of an extraction; move it" in lines[-1]) == (2, True)
    assert (tmp_path / "out" / "status.csv").read_text() == "ward,status\n"
    code, lines = headwise(*words, "--encoder", "random-filters", "--output", tmp_path / "in")
    assert (code, "is read by this command; name another" in lines[-1]) == (2, True)


def test_broken_slides_are_rows_and_code_3(tmp_path, headwise) -> None:
    (tmp_path / "in").mkdir()
    write_pyramid(tmp_path / "in" / "good.tiff", draw_slide(np.random.default_rng(0), 256, True))
    odd = os.fsdecode(b"not utf-8 \xff.tiff")
    (tmp_path / "in" / odd).write_bytes((tmp_path / "in" / "good.tiff").read_bytes())
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
        "not utf-8 \\xff": "ok",
    }
    assert any("no tile has enough tissue" in line for line in lines)


def test_a_slide_without_micrometres_asks_for_them(tmp_path) -> None:
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
