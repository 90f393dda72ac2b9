"""Masks as pictures: shapes on transparent ground, 16 bits in colour."""

from pathlib import Path

import numpy as np
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.scenes.masks import read_mask
from headwise.tests.picture_files import write_deep_png

Image = pytest.importorskip("PIL.Image", reason="the extra `vision` is not installed")
SHAPE = np.zeros((12, 18), bool)
SHAPE[3:9, 5:12] = True


def cut_out(path: Path, colours: np.ndarray) -> Path:
    """Colours (Y, X, 3) that are transparent outside of SHAPE."""
    Image.fromarray(np.dstack([colours, SHAPE * 255]).astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize("level", [0, 60, 255])
def test_a_shape_of_one_colour_on_transparent_ground_is_the_mask(tmp_path, level: int) -> None:
    path = cut_out(tmp_path / "a.png", np.full((12, 18, 3), level))
    with opened() as account:
        mask = read_mask(path)
    np.testing.assert_array_equal(mask, SHAPE)
    assert ("opaque part is taken" in "".join(account.lines())) == (level < 128)


def test_black_and_white_inside_opaque_ground_stay_what_they_are(tmp_path) -> None:
    colours = np.zeros((12, 18, 3))
    colours[4:6, 6:9] = 255
    np.testing.assert_array_equal(
        read_mask(cut_out(tmp_path / "a.png", colours)), colours[..., 0] > 0
    )
    nothing = np.dstack([np.zeros((12, 18, 3)), np.full((12, 18), 255)]).astype(np.uint8)
    Image.fromarray(nothing).save(tmp_path / "b.png")
    assert not read_mask(tmp_path / "b.png").any()


@pytest.mark.parametrize("brightest", [120, 256])
def test_a_photograph_that_was_cut_out_is_refused(tmp_path, brightest: int) -> None:
    colours = np.random.default_rng(0).integers(20, brightest, (12, 18, 3))
    with pytest.raises(InputError, match="cut out, whose colours are no mask; save its transp"):
        read_mask(cut_out(tmp_path / "a.png", colours))


@pytest.mark.parametrize("salient", [1, 65535])
def test_16_bits_in_colour_are_a_mask_as_in_grey(tmp_path, salient: int) -> None:
    values = np.dstack([SHAPE * salient] * 3).astype(np.uint16)
    np.testing.assert_array_equal(read_mask(write_deep_png(tmp_path / "a.png", values)), SHAPE)
