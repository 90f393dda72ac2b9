"""Deletion: how fast the words of a recording are lost when its most important places are blanked.

Shapes: I tokens, F mel bands, T frames and N states of the recording.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ....data.formats.audio import RATE
from ....models.speech.decoding import transcribe
from ...metrics.alignment import plain, text_errors
from ..transcriber import Transcriber
from .saliency import SaliencyMaps, TranscribedRecording, by_token, window_features

STEPS = 20  # of a curve: 5 % each


def deletion_curves(
    transcriber: Transcriber, recording: TranscribedRecording, maps: SaliencyMaps, seed: int
) -> dict[str, list[float]]:
    """Word error rates, at most 1, against the recording's own transcript when the most important
    0, 5, ..., 100 % of it are blanked, by map: by states, or by places of the spectrogram
    ("in full").

    seed: of the random orders that the maps are compared with.
    """
    by_states = {"cross-attention": recording.attention.mean((0, 1)), **maps.on_states()}
    in_full = {
        "spectrogram in full": maps.spectrogram,
        "gradient of spectrogram in full": maps.gradient_spectrogram,
    }
    importance = {
        name: by_token(values).mean(0)
        for name, values in {**by_states, **in_full}.items()
        if values is not None
    }
    generator = np.random.default_rng(seed)
    importance["chance"] = torch.from_numpy(generator.random(recording.states))
    places = (recording.features.shape[1], recording.frames)
    importance["chance in full"] = torch.from_numpy(generator.random(places))
    # In a short window a model may write another text than in its full one, which then serves.
    features, seconds = recording.features, len(recording.samples) / RATE
    text = transcriber.tokens.decode(transcriber.greedy_ids(features, seconds))
    if plain(text) != plain(recording.text):
        features = window_features(transcriber, recording.samples, None)
    return {
        name: _curve(transcriber, recording, features, values)
        for name, values in importance.items()
    }


@torch.no_grad()
def _curve(
    transcriber: Transcriber, recording: TranscribedRecording, features: Tensor, importance: Tensor
) -> list[float]:
    """importance: of states (N,), or of places of the spectrogram (F, T)."""
    order = importance.flatten().argsort(descending=True)
    masks = []
    for step in range(1, STEPS + 1):
        blanked = torch.zeros(importance.numel(), dtype=torch.bool)
        blanked[order[: round(step / STEPS * len(order))]] = True
        blanked = blanked.view(importance.shape)
        if blanked.ndim == 1:  # states of two frames, all bands
            frames = blanked.repeat_interleave(2)[: recording.frames]
            blanked = frames.expand(features.shape[1], -1)
        mask = torch.zeros(features.shape[1:], dtype=torch.bool)
        mask[:, : recording.frames] = blanked
        masks.append(mask)
    hidden = torch.stack(masks).to(transcriber.device)
    memory = transcriber.encode(torch.where(hidden, recording.fill[:, None], features))
    most = 2 * len(recording.ids) + 10  # what goes on longer is wrong anyway
    transcripts = transcribe(transcriber.model, memory, transcriber.search_rules(), [most] * STEPS)
    texts = [transcriber.tokens.decode(transcript.tokens) for transcript in transcripts]
    errors = text_errors(texts, [recording.text] * STEPS)
    return [0.0, *np.minimum(1.0, errors.wrong / np.maximum(1, errors.total)).tolist()]


def area_under(curve: Sequence[float]) -> float:
    """Area under a deletion curve, by trapezoids, percent."""
    return 100 * float(np.trapezoid(np.asarray(curve), dx=1 / (len(curve) - 1)))
