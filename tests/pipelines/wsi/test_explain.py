"""Heatmaps as GeoJSON and pictures, and how concentrated attention is."""

import json

import numpy as np
import pytest

pytest.importorskip("openslide", reason="OpenSlide is optional (extra wsi) and not installed")

from headwise.data.slides.features import SlideFeatures
from headwise.data.slides.generate import write_pyramid
from headwise.data.slides.slides import Slide
from headwise.pipelines.wsi import explain

TILES = SlideFeatures(np.zeros((3, 2), np.float32), np.array([[0, 0], [64, 0], [64, 64]]), 64)
SHARE = np.array([[0.7, 0.2], [0.2, 0.2], [0.1, 0.6]])


def test_squares_are_closed_rings_in_pixels_of_level_0() -> None:
    squares = json.loads(explain.geojson(TILES, SHARE))
    assert squares["type"] == "FeatureCollection"
    assert len(squares["features"]) == 3
    last = squares["features"][2]
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


def test_the_heatmap_is_warm_where_attention_is_high(tmp_path) -> None:
    write_pyramid(tmp_path / "a.tiff", np.full((128, 128, 3), 230, np.uint8))
    sharp = np.array([[0.98], [0.01], [0.01]])
    picture = np.asarray(explain.heatmap(TILES, sharp, Slide(tmp_path / "a.tiff"), "x")).astype(
        int
    )[34:]
    assert picture[32, 32, 0] > picture[32, 32, 2]
    assert picture[32, 96, 2] > picture[32, 96, 0]
    np.testing.assert_array_equal(picture[96, 32], [230, 230, 230])  # no tile here


def test_concentration_is_the_share_of_the_highest() -> None:
    np.testing.assert_allclose(
        explain.concentration(np.array([0.1, 0.6, 0.3]), 5), [0.6, 0.9, 1, 1, 1]
    )
