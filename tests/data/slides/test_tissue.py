"""Tissue, pen marks and blank glass, on drawn pictures and on real ones."""

import numpy as np
import pytest
from PIL import Image

from headwise.data.slides.generate import draw_slide
from headwise.data.slides.tissue import find_tissue, is_blank, otsu

INKS = {
    "green": (40, 160, 130),
    "blue": (30, 110, 200),
    "red": (200, 25, 35),
    "black": (25, 22, 24),
}


def slide_with(ink: tuple[int, int, int] | None) -> np.ndarray:
    picture = draw_slide(np.random.default_rng(4), 400, True).copy()
    if ink is not None:
        picture[300:330, 20:380] = ink
    return picture


def test_drawn_tissue_is_found() -> None:
    picture = slide_with(None)
    tissue = find_tissue(picture)
    truth = (picture.max(2).astype(int) - picture.min(2)) > 20
    assert (tissue.mask & truth).sum() / (tissue.mask | truth).sum() > 0.95
    assert not tissue.pen.any()
    assert tissue.share == tissue.mask.mean()


@pytest.mark.parametrize("ink", INKS)
def test_ink_is_no_tissue(ink: str) -> None:
    inked, clean = find_tissue(slide_with(INKS[ink])), find_tissue(slide_with(None))
    assert inked.pen[302:328, 25:375].mean() > 0.98
    assert not inked.mask[302:328, 25:375].any()
    far = np.ones(inked.mask.shape, bool)
    far[260:370] = False
    assert not inked.pen[far].any()
    assert (inked.mask[far] == clean.mask[far]).mean() > 0.99


def test_glass_dust_and_black_hold_no_tissue() -> None:
    rng = np.random.default_rng(0)
    glass = np.clip(240 + rng.normal(0, 3, (200, 300, 3)), 0, 255).astype(np.uint8)
    glass[50:53, 60:63] = (200, 60, 120)
    assert find_tissue(glass).share == 0
    assert find_tissue(np.zeros((100, 100, 3), np.uint8)).share == 0
    with pytest.raises(ValueError, match="uint8 picture"):
        find_tissue(np.zeros((10, 10, 3)))


def test_otsu_is_the_best_of_all_thresholds() -> None:
    values = np.concatenate([np.full(70, 20), np.full(30, 22), np.full(50, 180)]).astype(np.uint8)

    def between(t: int) -> float:
        low, high = values[values <= t], values[values > t]
        return (
            len(low) * len(high) * (low.mean() - high.mean()) ** 2
            if len(low) and len(high)
            else -1.0
        )

    assert otsu(values) in [t for t in range(256) if between(t) == max(map(between, range(256)))]
    assert otsu(np.full(9, 77, np.uint8)) >= 0


def test_tiles_without_tissue_are_blank() -> None:
    tiles = np.full((4, 32, 32, 3), 235, np.uint8)
    tiles[1] = 5
    tiles[2, :16] = (200, 100, 150)
    tiles[3, 0, 0] = 0
    assert is_blank(tiles).tolist() == [True, True, False, True]


class TestRealPictures:
    """Bounds on the share of tissue, by what the names of the pictures say and the eye sees."""

    @pytest.fixture
    def share(self, real_data):
        def of(name: str) -> tuple[float, float]:
            tissue = find_tissue(
                np.asarray(Image.open(real_data / "wsi" / "qc" / f"{name}.png").convert("RGB"))
            )
            return tissue.share, float(tissue.pen.mean())

        return of

    @pytest.mark.parametrize(
        "name", ["almost-white-1", "almost-white-2", "no-tissue", "no-tissue-green-pen"]
    )
    def test_there_is_next_to_no_tissue(self, share, name: str) -> None:
        assert share(name)[0] < 0.03

    def test_blurred_red_pen_is_mostly_pen(self, share) -> None:
        tissue, pen = share("no-tissue-red-pen")
        assert tissue < 0.15
        assert pen > 0.5

    @pytest.mark.parametrize(
        "name",
        [
            "tissue-level0-4302-10273-4814-10785",
            "tissue-level0-7352-11762-7864-12274",
            "tcga-lung-rgb",
        ],
    )
    def test_clean_tissue_is_kept(self, share, name: str) -> None:
        tissue, pen = share(name)
        assert tissue > 0.4
        assert pen < 0.01

    @pytest.mark.parametrize(
        ("name", "least_pen"),
        [
            ("tcga-green-pen", 0.15),
            ("tcga-red-pen", 0.2),
            ("high-nuclei-score-red-pen-level1", 0.05),
            ("medium-nuclei-score-green-pen-level1", 0.4),
            ("wsi-blue-pen", 0.03),
            ("diagnostic-slide-thumb-rgb", 0.2),
        ],
    )
    def test_marks_on_tissue_are_found_and_tissue_is_left(
        self, share, name: str, least_pen: float
    ) -> None:
        tissue, pen = share(name)
        assert pen > least_pen
        assert tissue > 0.2

    def test_blank_tiles_are_known(self, real_data) -> None:
        names = (
            "almost-white-1",
            "no-tissue",
            "tcga-lung-rgb",
            "tissue-level0-4302-10273-4814-10785",
        )
        tiles = [
            Image.open(real_data / "wsi" / "qc" / f"{name}.png").convert("RGB") for name in names
        ]
        assert is_blank(np.stack([np.asarray(tile) for tile in tiles])).tolist() == [
            True,
            True,
            False,
            False,
        ]


def test_a_picture_without_colours_is_grey_and_empty_glass_is_not() -> None:
    green = slide_with(None)[..., 1]
    assert find_tissue(np.stack([green] * 3, 2)).grey
    assert not find_tissue(slide_with(None)).grey
    glass = np.random.default_rng(0).normal(243, 2, (200, 300, 3)).clip(0, 255).astype(np.uint8)
    assert not find_tissue(glass).grey
    assert not find_tissue(np.full((200, 300, 3), 240, np.uint8)).grey
