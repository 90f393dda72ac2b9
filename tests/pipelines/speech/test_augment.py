"""Changes of features in training."""

import numpy as np
import pytest
import torch

from headwise.data.speech.log_mel import log_mel
from headwise.pipelines.speech.augment import blank, warp, warped_bands


def test_no_warping_changes_nothing():
    x = torch.randn(3, 80, 9)
    torch.testing.assert_close(warp(x, 0.0), x, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        warped_bands(80, torch.ones(1))[0], torch.arange(80.0), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("factor", [0.85, 1.2])
def test_a_warped_tone_is_the_tone_of_another_pitch(factor):
    """The features of a tone, warped, peak in the band in which the tone at `factor` times its
    frequency does.
    """
    t = np.arange(16000) / 16000
    for hertz in (400.0, 1500.0, 3000.0):
        before, after = (
            log_mel(np.sin(2 * np.pi * f * t).astype(np.float32)) for f in (hertz, hertz * factor)
        )
        place = warped_bands(80, torch.tensor([factor]))[0]
        low = place.floor().long().clamp(max=78)
        warped_tone = torch.lerp(before[low, 50], before[low + 1, 50], place - low)
        assert abs(int(warped_tone.argmax()) - int(after[:, 50].argmax())) <= 1


def test_blanked_stretches_and_bands():
    torch.manual_seed(0)
    x = torch.arange(2 * 80 * 200.0).view(2, 80, 200)
    blanked = blank(x, torch.tensor([200, 150]), 3, 2)
    assert (blanked != x).any()
    assert (blanked[1, :, 150:] == x[1, :, 150:]).all()
    changed = blanked[1, :, :150] != x[1, :, :150]
    assert torch.equal(
        blanked[1, :, :150][changed], x[1, :, :150].mean().expand(int(changed.sum()))
    )
    assert blank(x, torch.tensor([200, 150]), 0, 0) is x
