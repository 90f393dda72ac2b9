"""How far cross-attention shows what a model used: the findings of one recording.

Shapes: L layers, H heads, I tokens, N states of the recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from ....data.formats.audio import RATE
from ....data.speech.transcripts import Word
from ..data import STATE_SECONDS
from ..word_times import smoothed
from .saliency import SaliencyMaps, TranscribedRecording, by_token, correlation

NEAR = 0.1  # seconds around a word in which the most important place still counts as at the word
SMOOTH = 5  # states
FIRM = 0.7  # reliability from which a correlation is reported without a warning
MOST_NAMED = 8  # words that a sentence names
SALIENCIES = {"states": "the states of its encoder", "spectrogram": "the spectrogram"}

Agreement = Mapping[str, Mapping[str, Sequence[float]]]
"""[Pearson, Spearman] by saliency and average of the attention."""


class WordFindings(TypedDict):
    """A word with its times and the place, in seconds, that mattered most for it; near: whether the
    place is at the word.
    """

    word: str
    start: float
    end: float
    place: float
    near: bool


class Findings(TypedDict):
    """What is found out about a recording, as its JSON file holds it."""

    text: str
    tokens: int
    seconds: float
    words: list[WordFindings]
    agreement: Agreement
    reliability: dict[str, float]
    sentence: str
    said: NotRequired[list[str]]
    """Text of each token; of `explain`."""
    deletion: NotRequired[dict[str, list[float]]]
    """Word error rates by map; of `compare`."""


def find_agreement(
    recording: TranscribedRecording, maps: SaliencyMaps, alignment_heads: Sequence[tuple[int, int]]
) -> Findings:
    """Agreement of attention and saliency, the place that mattered most for each word, and a plain
    sentence on both.

    alignment_heads: (layer, head) that word times are read from.
    """
    agreement = agreement_of(recording.attention, maps, alignment_heads)
    on_states = maps.on_states()
    leading = [
        on_states[name]
        for name in ("spectrogram", "states", "gradient of spectrogram")
        if name in on_states
    ]
    words = recording.words if leading else []
    places = places_of_words(leading[0], recording.spans) if words else []
    near = near_words(words, places)
    return {
        "text": recording.text,
        "tokens": len(recording.ids),
        "seconds": len(recording.samples) / RATE,
        "words": [
            {
                "word": word.text,
                "start": round(word.start, 4),
                "end": round(word.end, 4),
                "place": round(place, 4),
                "near": is_near,
            }
            for word, place, is_near in zip(words, places, near, strict=True)
        ],
        "agreement": agreement,
        "reliability": maps.reliability,
        "sentence": sentence_on_times(agreement, recording.words, near, maps.reliability),
    }


def averages_of(attention: Tensor, alignment_heads: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
    """Averages (I, N) of the attention (L, H, I, N) by name: all heads, those that word times are
    read from, the map that is made of these (normalised over tokens, smoothed), each layer, each
    head.
    """
    chosen = torch.stack([attention[layer, head] for layer, head in alignment_heads])
    tokens, states = (torch.tensor([size]) for size in attention.shape[2:])
    averages = {
        "all heads": attention.mean((0, 1)),
        "heads of word times": chosen.mean(0),
        "map of word times": smoothed(chosen[None], tokens, states)[0],
    }
    for layer, heads in enumerate(attention, 1):
        averages[f"layer {layer}"] = heads.mean(0)
    for layer, heads in enumerate(attention, 1):
        averages |= {f"layer {layer} head {head}": values for head, values in enumerate(heads, 1)}
    return averages


def agreement_of(
    attention: Tensor, maps: SaliencyMaps, alignment_heads: Sequence[tuple[int, int]]
) -> dict[str, dict[str, list[float]]]:
    """Pearson's and Spearman's correlation of each average of the attention with each saliency."""
    averages = averages_of(attention, alignment_heads)
    return {
        saliency: {
            name: [correlation(values, average), correlation(values, average, ranks=True)]
            for name, average in averages.items()
        }
        for saliency, values in maps.on_states().items()
    }


def places_of_words(values: Tensor, spans: Sequence[tuple[int, int]]) -> list[float]:
    """Seconds at which a map (I, N), smoothed over 100 ms, is highest for each word, given the
    (first token, token after the last) of each.
    """
    flat = by_token(values)
    places = []
    for first, after in spans:
        mean = flat[first:after].mean(0)[None, None]
        smooth = torch.nn.functional.avg_pool1d(
            mean, SMOOTH, 1, SMOOTH // 2, count_include_pad=False
        )[0, 0, : flat.shape[1]]
        places.append((float(smooth.argmax()) + 0.5) * STATE_SECONDS)
    return places


def near_words(words: Sequence[Word], places: Sequence[float]) -> list[bool]:
    """Whether the place of each word is in the word, or within `NEAR` of it."""
    return [
        word.start - NEAR <= place <= word.end + NEAR
        for word, place in zip(words, places, strict=True)
    ]


def sentence_on_times(
    agreement: Agreement,
    words: Sequence[Word],
    near: Sequence[bool],
    reliability: Mapping[str, float],
) -> str:
    """A plain sentence on how far the word times of a recording can be trusted."""
    sentences = []
    correlations = [
        f"{agreement[name]['all heads'][0]:.2f} ({meaning})"
        for name, meaning in SALIENCIES.items()
        if name in agreement
    ]
    if correlations:
        sentences.append(
            "The attention that these times are read from follows what the model used with a "
            f"correlation of {' and '.join(correlations)}; 1 would be all of it."
        )
    if near:
        far = [word.text.strip() for word, fits in zip(words, near, strict=True) if not fits]
        named = ", ".join(far[:MOST_NAMED]) + (", ..." if len(far) > MOST_NAMED else "")
        warning = f": take the times of {named} with care." if far else "."
        sentences.append(
            f"For {len(near) - len(far)} of {len(near)} words what mattered most lies within "
            f"{NEAR:g} s of the word's time{warning}"
        )
    weak = [f"{value:.2f}" for value in reliability.values() if not value >= FIRM]
    if weak:
        sentences.append(
            f"These masks are too few for a firm answer (reliability {', '.join(weak)}): give more."
        )
    return " ".join(sentences)
