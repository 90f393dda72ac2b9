"""Features of an encoder: layers of Whisper without padding, kept on disk, and refused when the
weights are others.
"""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("soundfile", reason="the extra `speech` is not installed")

import json
import wave

import torch

from headwise import pipelines
from headwise.base.errors import InputError
from headwise.data.speech.log_mel import log_mel
from headwise.data.speech.manifests import Utterance
from headwise.models.speech.speech_to_text import SpeechToText
from headwise.pipelines.engine.feature_cache import FeatureCache
from headwise.pipelines.recordings.features import (
    Clip,
    ClipReader,
    Moments,
    drawn_towards,
    moments_of,
    open_encoder,
)
from headwise.tests.whisper_files import ctranslate2

RATE = 16_000


def weights_in(folder: Path, seed: int = 0) -> str:
    """Weights in Whisper's shape with two layers of width 16, for 3 seconds."""
    folder.mkdir()
    torch.manual_seed(seed)
    model = SpeechToText(
        11,
        width=16,
        heads=2,
        encoder_layers=2,
        decoder_layers=2,
        audio_positions=150,
        text_positions=8,
    )
    (folder / "model.bin").write_bytes(ctranslate2(model))
    (folder / "config.json").write_text("{}")
    open_encoder.cache_clear()
    return str(folder)


def sound(path: Path, seed: int, seconds: float = 0.3) -> Utterance:
    generator = np.random.default_rng(seed)
    samples = generator.integers(-9000, 9000, round(seconds * RATE)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return Utterance(path.name, str(path))


def test_layers_are_their_mean_over_the_recording_alone(tmp_path) -> None:
    weights, utterance = weights_in(tmp_path / "w"), sound(tmp_path / "a.wav", 1)
    encoder, _ = open_encoder(weights)
    states = encoder.layer_states(log_mel(utterance.samples())[None])
    assert states.shape == (3, 1, 15, 16)
    clip = ClipReader("whisper-layers", weights, 5.0)(utterance)
    torch.testing.assert_close(clip.tokens, states[:, 0].mean(1))
    frames = ClipReader("whisper-frames", weights, 5.0)(utterance)
    torch.testing.assert_close(frames.tokens, states[-1, 0])
    torch.testing.assert_close(frames.statistics, clip.statistics)


def test_a_recording_is_cut_to_what_the_encoder_has_positions_for(tmp_path) -> None:
    reader = ClipReader("whisper-frames", weights_in(tmp_path / "w"), 5.0)
    clip = reader(sound(tmp_path / "a.wav", 1, 4.0))
    assert clip.tokens.shape == (150, 16)
    assert clip.remarks == ("cut to its middle 3 s",)


def test_layers_are_kept_by_sound_and_weights(tmp_path, monkeypatch) -> None:
    utterance, path = sound(tmp_path / "a.wav", 1), tmp_path / "cache.sqlite"
    first, second = weights_in(tmp_path / "w"), weights_in(tmp_path / "v", 1)

    def layers(weights: str) -> torch.Tensor:
        with FeatureCache(path) as cache:
            return ClipReader("whisper-layers", weights, 5.0, cache)(utterance).tokens

    computed = layers(first)
    monkeypatch.setattr(
        "headwise.models.speech.encoder.SpeechEncoder.layer_states",
        lambda self, features: torch.zeros(3, 1, 2, 16),
    )
    torch.testing.assert_close(layers(first), computed)
    assert not layers(second).any()


def test_a_run_on_layers_is_explained_by_layer_and_refuses_other_weights(tmp_path) -> None:
    weights = weights_in(tmp_path / "w")
    (tmp_path / "data").mkdir()
    for k in range(24):
        sound(tmp_path / "data" / f"{'ab'[k % 2]}_s{k // 2 % 6}_{k}.wav", k)
    options = {"pattern": "{label}_{speaker}_*", "features": "whisper-layers", "weights": weights}
    run = pipelines.recordings.train(
        data=tmp_path / "data", run=tmp_path / "run", epochs=1, width=8, head="gaam", **options
    )
    pipelines.recordings.explain(run=run.path, output=tmp_path / "why", draws=2)
    facts = json.loads((tmp_path / "why" / "explain.json").read_text())
    assert facts["tokens"] == ["input", "layer 1", "layer 2"]
    assert facts["deleted_share"] == pytest.approx([0, 1 / 3, 2 / 3])
    weights_in(tmp_path / "v", 1)
    (tmp_path / "w" / "model.bin").write_bytes((tmp_path / "v" / "model.bin").read_bytes())
    open_encoder.cache_clear()
    with pytest.raises(InputError, match="are other weights than those of the training"):
        pipelines.recordings.evaluate(run=run.path)


def clip(tokens: torch.Tensor) -> Clip:
    return Clip(tokens, torch.arange(2.0) * len(tokens), 1.0, (), "")


def test_moments_are_over_frames_or_over_recordings() -> None:
    clips = [clip(torch.randn(n, 3)) for n in (4, 7)]
    frames = torch.cat([c.tokens for c in clips]).double()
    of_frames = moments_of(clips, is_fixed=False)
    torch.testing.assert_close(of_frames.mean[0], frames.mean(0))
    torch.testing.assert_close(of_frames.deviation[0], frames.std(0, correction=0))
    layers = [clip(torch.randn(5, 3)) for _ in range(4)]
    stack = torch.stack([c.tokens for c in layers]).double()
    of_layers = moments_of(layers, is_fixed=True)
    torch.testing.assert_close(of_layers.mean, stack.mean(0))
    torch.testing.assert_close(of_layers.deviation, stack.std(0, correction=0))


def test_a_speaker_of_one_recording_is_drawn_towards_all_the_most() -> None:
    prior = Moments(*(torch.tensor([[float(k)]]) for k in (0, 1)), *torch.tensor([0.0, 1.0]), 9)
    far = [prior._replace(mean=torch.tensor([[3.0]]), clips=n) for n in (1, 1000)]
    few, many = (drawn_towards(moments, prior) for moments in far)
    assert float(few.mean) == pytest.approx(1.0)
    assert float(few.deviation) == pytest.approx(np.sqrt(1 / 3 * 10 + 2 / 3 - 1))
    assert float(many.mean) == pytest.approx(3, abs=0.01)
