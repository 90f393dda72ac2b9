"""Masked passes of a model of speech against the plain way of doing them; gradients against
differences.
"""

import pytest
import torch
import torch.nn.functional as F

from headwise.models.speech import saliency as speech_saliency
from headwise.models.speech.saliency import (
    FeatureMasking,
    KnownText,
    StateMasking,
    gradient_times_input,
)
from headwise.models.speech.speech_to_text import Memory, SpeechToText

TEXT = KnownText(torch.tensor([1, 2, 5, 7, 3, 5, 9]), 2)


def build(dtype=torch.float32, **options):
    torch.manual_seed(0)
    sizes = {
        "features": 8,
        "width": 16,
        "heads": 2,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "audio_positions": 40,
        "text_positions": 20,
    }
    return SpeechToText(11, **{**sizes, **options}).eval().to(dtype)


def features(frames=41, dtype=torch.float32):
    return torch.randn(1, 8, frames, generator=torch.Generator().manual_seed(1), dtype=dtype)


def log_probabilities(model, memory):
    return (
        model.decoder(TEXT.tokens[None, :-1], memory).logits[0, TEXT.prompt - 1 :].log_softmax(-1)
    )


@pytest.mark.parametrize("cross", ["softmax", "taylor", "differential", "signed-root"])
@pytest.mark.parametrize("frames", [2, 41])
def test_hidden_states_are_zeroed_states(cross, frames):
    """The one key that stands for all hidden states gives what states of zeros give."""
    model = build(cross_attention=cross)
    memory = model.encode(features(frames))
    n = memory.states.shape[1]
    visible = torch.rand(6, n, generator=torch.Generator().manual_seed(2)) < 0.5
    visible[0], visible[1] = True, False
    scores = StateMasking(model, memory, TEXT)(visible)
    with torch.no_grad():
        plain = log_probabilities(model, memory)
        for row in range(6):
            masked = log_probabilities(
                model, Memory(memory.states * visible[row][None, :, None], None)
            )
            expected = F.kl_div(masked, plain, log_target=True, reduction="none").sum(-1)
            torch.testing.assert_close(scores[row], expected, atol=2e-5, rtol=1e-3)
    assert (scores[0] < 1e-5).all()
    assert (scores >= 0).all()


def test_hidden_features_run_the_encoder_again():
    model, x = build(encoder="conformer", kernel=3), features()
    fill = torch.randn(8)
    visible = torch.rand(4, 8, 41, generator=torch.Generator().manual_seed(3)) < 0.5
    scores = FeatureMasking(model, x, fill, TEXT)(visible)
    with torch.no_grad():
        plain = log_probabilities(model, model.encode(x))
        for row in range(4):
            masked = log_probabilities(
                model, model.encode(torch.where(visible[row], x, fill[None, :, None]))
            )
            expected = (plain.exp() * (plain - masked)).sum(-1)
            torch.testing.assert_close(scores[row], expected, atol=2e-5, rtol=1e-3)


def test_masks_in_parts_are_masks_at_once(monkeypatch):
    model = build()
    masking = StateMasking(model, model.encode(features()), TEXT)
    visible = torch.rand(7, 21) < 0.5
    at_once = masking(visible)
    monkeypatch.setattr(speech_saliency, "MOST_LOGITS", 2 * 7 * 11)
    torch.testing.assert_close(masking(visible), at_once, atol=1e-6, rtol=1e-5)


def test_half_precision():
    model = build(torch.bfloat16)
    memory = model.encode(features(dtype=torch.bfloat16))
    scores = StateMasking(model, memory, TEXT)(torch.rand(3, 21) < 0.5)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()


def test_gradient_times_input_is_a_difference():
    model, x = build(torch.float64), features(dtype=torch.float64)
    fill = torch.randn(8, dtype=torch.float64)
    inputs, states = gradient_times_input(model, x, fill, TEXT)
    assert inputs.shape == (5, 8, 41)
    assert states.shape == (5, 21)

    def score(inputs):
        with torch.no_grad():
            return log_probabilities(model, model.encode(inputs)).gather(-1, TEXT.target[:, None])[
                :, 0
            ]

    for band, frame in ((0, 0), (3, 17), (7, 40)):
        step = torch.zeros_like(x)
        step[0, band, frame] = 1e-6
        slope = (score(x + step) - score(x - step)) / 2e-6
        expected = (slope * (x[0, band, frame] - fill[band])).abs()
        torch.testing.assert_close(inputs[:, band, frame], expected, atol=1e-7, rtol=1e-4)


def test_what_cannot_be_masked_is_refused():
    model = build()
    memory = model.encode(features())
    with pytest.raises(ValueError, match="one recording without padding"):
        StateMasking(
            model, model.encode(features().expand(2, -1, -1), torch.tensor([41, 20])), TEXT
        )
    with pytest.raises(ValueError, match="text with a token"):
        FeatureMasking(model, features(), torch.zeros(8), KnownText(torch.tensor([1, 2]), 2))
    with pytest.raises(ValueError, match="needs pairs"):
        model.decoder(TEXT.fed, memory, bias=torch.zeros(1, 21))
