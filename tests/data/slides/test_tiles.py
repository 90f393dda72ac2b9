"""The grid of tiles, threads that read them, and feature files."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("openslide", reason="OpenSlide is optional (extra wsi) and not installed")

from headwise.base.errors import InputError
from headwise.data.slides.features import read_features, write_features
from headwise.data.slides.generate import draw_slide, write_pyramid
from headwise.data.slides.slides import Slide
from headwise.data.slides.tiles import TileReader, tile_grid


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slides") / "a.tiff"
    write_pyramid(path, draw_slide(np.random.default_rng(4), 640, True), mpp=0.5)
    with Slide(path) as opened:
        yield opened


def test_tiles_of_the_grid_hold_tissue_and_lie_within_the_slide(slide) -> None:
    grid = tile_grid(slide, tile=64, least_tissue=0.5)
    assert grid.extent == 64
    assert len(np.unique(grid.coords, axis=0)) == len(grid) > 20
    assert (grid.coords >= 0).all()
    assert (grid.coords + 64 <= 640).all()
    assert (grid.coords % 64 == 0).all()
    taken = {tuple(place) for place in grid.coords}
    mask = slide.read(0, 0, (640, 640), (640, 640))
    mask = mask.max(2).astype(int) - mask.min(2) > 20
    for x in range(0, 640, 64):
        for y in range(0, 640, 64):
            share = mask[y : y + 64, x : x + 64].mean()
            assert ((x, y) in taken) == (share >= 0.5) or abs(share - 0.5) < 0.12, (x, y, share)


def test_magnification_and_overlap_place_the_tiles(slide) -> None:
    grid = tile_grid(slide, tile=64, tile_mpp=1.0)
    assert grid.extent == 128
    assert len(tile_grid(slide, tile=64, tile_mpp=1.0, overlap=0.5)) > 3 * len(grid)
    rows, tiles, _ = next(iter(TileReader(slide, grid, batch=4)))
    assert tiles.shape == (4, 64, 64, 3)
    x, y = grid.coords[rows[2]]
    expected = np.asarray(Image.fromarray(slide.read(x, y, (128, 128), (128, 128))).reduce(2))
    assert np.abs(tiles[2].astype(int) - expected).max() <= 2


@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (7, 2), (64, 3), (1000, 4)])
def test_every_tile_comes_once_and_in_order(slide, batch: int, threads: int) -> None:
    grid = tile_grid(slide, tile=64)
    batches = list(TileReader(slide, grid, batch=batch, threads=threads))
    assert np.concatenate([rows for rows, _, _ in batches]).tolist() == list(range(len(grid)))
    tiles = np.concatenate([tiles for _, tiles, _ in batches])
    for (x, y), tile in zip(grid.coords, tiles):
        np.testing.assert_array_equal(tile, slide.read(x, y, (64, 64), (64, 64)))


@pytest.mark.parametrize(("batch", "threads"), [(3, 1), (64, 1), (64, 2)])
def test_what_is_blank_is_said_of_the_right_tile(tmp_path, batch, threads) -> None:
    """Places are x, then y; a slide that is wider than high would tell them apart."""
    picture = np.full((128, 384, 3), 245, np.uint8)
    noise = np.random.default_rng(0).integers(0, 60, (64, 128, 3), dtype=np.uint8)
    picture[64:, 64:192] = noise + np.uint8([150, 40, 120])
    write_pyramid(tmp_path / "a.tiff", picture, mpp=0.5)
    everywhere = np.array([[x, y] for y in (0, 64) for x in range(0, 384, 64)])
    with Slide(tmp_path / "a.tiff") as opened:
        grid_of_tissue = tile_grid(opened, tile=64, least_tissue=0.5)
        assert {tuple(place) for place in grid_of_tissue.coords.tolist()} == {(64, 64), (128, 64)}
        grid = replace(grid_of_tissue, coords=everywhere)
        for rows, tiles, blank in TileReader(opened, grid, batch=batch, threads=threads):
            for row, tile, empty in zip(rows, tiles, blank):
                x, y = everywhere[row]
                np.testing.assert_array_equal(tile, picture[y : y + 64, x : x + 64])
                assert empty == (not (y == 64 and 64 <= x < 192))


def test_a_consumer_may_stop_and_damage_reaches_it(slide, tmp_path) -> None:
    grid = tile_grid(slide, tile=64)
    for _ in TileReader(slide, grid, batch=2):
        break
    content = bytearray((tmp_path / slide.path).read_bytes())
    content[2000:30_000] = bytes(28_000)
    (tmp_path / "cut.tiff").write_bytes(bytes(content))
    with pytest.raises(InputError, match="cannot be read at"):
        list(TileReader(Slide(tmp_path / "cut.tiff"), grid))


def test_a_slide_smaller_than_a_tile_and_one_without_tissue(tmp_path) -> None:
    write_pyramid(tmp_path / "s.tiff", draw_slide(np.random.default_rng(4), 64, False))
    grid = tile_grid(Slide(tmp_path / "s.tiff"), tile=100, least_tissue=0.1)
    assert grid.coords.tolist() == [[0, 0]]
    assert next(iter(TileReader(Slide(tmp_path / "s.tiff"), grid)))[1].shape == (1, 100, 100, 3)
    write_pyramid(tmp_path / "w.tiff", np.full((300, 300, 3), 240, np.uint8))
    assert len(tile_grid(Slide(tmp_path / "w.tiff"), tile=100)) == 0


def test_the_last_row_and_column_reach_the_end_of_the_slide(tmp_path) -> None:
    """Tissue at the edge of a slide whose sides are no multiples of a tile."""
    picture = np.full((200, 300, 3), 245, np.uint8)
    noise = np.random.default_rng(0).integers(0, 60, (90, 90, 3), dtype=np.uint8)
    picture[110:, 210:] = noise + np.uint8([150, 40, 120])
    write_pyramid(tmp_path / "a.tiff", picture, mpp=0.5)
    with Slide(tmp_path / "a.tiff") as opened:
        grid = tile_grid(opened, tile=64)
        assert [256, 128] in grid.coords.tolist()
        assert [256, 192] not in grid.coords.tolist()  # eight pixels of tissue, the rest is beyond
        for rows, tiles, _ in TileReader(opened, grid):
            for (x, y), tile in zip(grid.coords[rows], tiles):
                beyond = np.full((64, 64, 3), 255, np.uint8)
                inside = picture[y : y + 64, x : x + 64]
                beyond[: inside.shape[0], : inside.shape[1]] = inside
                np.testing.assert_array_equal(tile, beyond)


def test_a_slide_of_full_tiles_has_no_others(tmp_path) -> None:
    write_pyramid(tmp_path / "a.tiff", draw_slide(np.random.default_rng(4), 256, True), mpp=0.5)
    grid = tile_grid(Slide(tmp_path / "a.tiff"), tile=64, overlap=0.5, least_tissue=0)
    assert grid.coords.max() <= 192


class TestFeatureFiles:
    def test_what_is_written_is_read(self, tmp_path) -> None:
        features, coords = np.random.default_rng(0).normal(size=(5, 3)), np.arange(10).reshape(5, 2)
        write_features(
            tmp_path / "a.h5", features, coords, {"patch_size_level0": 512, "encoder": "x"}
        )
        stored = read_features(tmp_path / "a.h5")
        np.testing.assert_array_equal(stored.features, features.astype(np.float32))
        np.testing.assert_array_equal(stored.coords, coords)
        assert (stored.extent, stored.attributes["encoder"]) == (512, "x")
        write_features(
            tmp_path / "b.h5", features, coords, {"patch_size_level0": 512, "encoder": "x"}
        )
        assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()

    def test_files_of_clam_trident_and_acmil(self, tmp_path) -> None:
        import h5py

        features, coords = (
            np.ones((4, 6), np.float16),
            np.array([[0, 0], [512, 0], [0, 512], [1024, 512]]),
        )
        with h5py.File(tmp_path / "trident.h5", "w") as file:
            file["features"] = features[None]
            file["coords"] = coords[None]
            file["coords"].attrs.update({"patch_size": 256, "patch_size_level0": 512, "name": "s"})
        with h5py.File(tmp_path / "clam.h5", "w") as file:
            file["features"] = features
            file["coords"] = coords.astype(np.int32)
            file["coords"].attrs.update(
                {"patch_size": 256, "downsample": np.array([2.0, 2.0]), "patch_level": 1}
            )
        with h5py.File(tmp_path / "bare.h5", "w") as file:
            file["features"], file["coords"] = features, coords
        with h5py.File(tmp_path / "acmil.h5", "w") as file:
            file["slide_1/feat"], file["slide_1/coords"] = features, coords
            file["slide_1"].attrs["label"] = 1
        for name in ("trident", "clam", "bare", "acmil"):
            stored = read_features(tmp_path / f"{name}.h5", slide="slide_1")
            assert stored.features.shape == (4, 6), name
            assert stored.features.dtype == np.float32
            assert stored.extent == 512, name
            np.testing.assert_array_equal(stored.coords, coords)

    def test_mistakes_have_one_line(self, tmp_path) -> None:
        import h5py

        (tmp_path / "text.h5").write_text("nothing")
        with h5py.File(tmp_path / "empty.h5", "w"):
            pass
        with h5py.File(tmp_path / "text-features.h5", "w") as file:
            file["features"] = np.array([b"a", b"b"])
        with h5py.File(tmp_path / "unequal.h5", "w") as file:
            file["features"], file["coords"] = np.ones((3, 2)), np.ones((2, 2))
        with h5py.File(tmp_path / "nan.h5", "w") as file:
            file["features"] = np.array([[1.0, np.nan]])
        messages = {
            "text": "no readable HDF5",
            "empty": "no data set",
            "text-features": "should be numbers",
            "unequal": "do not fit",
            "nan": "not finite",
            "missing": "no such",
        }
        for name, message in messages.items():
            with pytest.raises(InputError, match=message) as caught:
                read_features(tmp_path / f"{name}.h5")
            assert "\n" not in str(caught.value)
