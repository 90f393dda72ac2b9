"""Markers far outside of a picture's values are told from the picture, and nothing else is."""

import numpy as np
import pytest

from headwise.data.formats.grey_range import bits_for, value_range


def picture(size=4000):
    return np.random.default_rng(0).integers(500, 3501, size).astype(float)


@pytest.mark.parametrize("marker", [-60000.0, 65535.0])
def test_few_values_beyond_a_wide_gap_are_markers(marker):
    values = picture()
    inside = values[80:].min(), values[80:].max()
    values[:80] = marker  # 2 %
    assert value_range(values) == (*inside, True)
    values[80] = marker
    assert not value_range(values).marked


def test_what_lies_close_to_the_picture_belongs_to_it():
    values = picture()
    values[:10] = 6000  # a gap of less than half of the range
    assert value_range(values) == (values.min(), 6000, False)
    values[:2000] = 0  # collimated: black over half of the picture
    values[2000:] += 60000
    assert not value_range(values).marked


def test_pictures_of_one_or_two_values_have_no_markers():
    assert value_range(np.full(9, 7.0)) == (7, 7, False)
    flat = np.zeros(1000)
    flat[0] = 5
    assert value_range(flat) == (0, 5, False)


def test_bits_are_those_of_detectors():
    assert [bits_for(v) for v in (0, 255, 256, 4095, 4096, 16384, 70000)] == [
        8, 8, 10, 12, 14, 16, 16,
    ]  # fmt: skip
