"""How far cross-attention tells what a model used: figures of one recording.

Shapes: L layers, H heads, I tokens, n states of the recording, F mel bands, T frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.formats.audio import RATE
from ...data.speech.transcripts import Word
from ...models.speech.decoding import transcribe
from ..metrics.alignment import plain, text_errors
from .data import STATE_SECONDS, rules_of
from .prediction import Hearer
from .saliency import Heard, Saliency, by_token, correlation, said, window_of
from .word_times import smoothed

STEPS = 20  # of a deletion curve: 5 % each
NEAR = 0.1  # seconds around a word in which what mattered most for it still counts as at it
SMOOTH = 5  # states
FIRM = 0.7  # reliability from which a correlation is given without a warning


def scopes(attention: Tensor, timing: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
    """Averages of the attention (L, H, I, n) by name: all heads, each layer, each head, those that
    word times are read from, and the map that is made of these (normalised over tokens,
    smoothed)."""
    chosen = torch.stack([attention[layer, head] for layer, head in timing])
    size = torch.tensor([attention.shape[2]]), torch.tensor([attention.shape[3]])
    found = {
        "all heads": attention.mean((0, 1)),
        "heads of word times": chosen.mean(0),
        "map of word times": smoothed(chosen[None], *size)[0],
    }
    for layer, heads in enumerate(attention, 1):
        found[f"layer {layer}"] = heads.mean(0)
    for layer, heads in enumerate(attention, 1):
        found |= {f"layer {layer} head {head}": one for head, one in enumerate(heads, 1)}
    return found


def agreement(
    one: Heard, saliency: Saliency, timing: Sequence[tuple[int, int]]
) -> dict[str, dict[str, list[float]]]:
    """[Pearson, Spearman] of the attention with each saliency, by saliency and scope."""
    means = scopes(one.attention, timing)
    return {
        name: {
            scope: [correlation(drawn, mean), correlation(drawn, mean, ranks=True)]
            for scope, mean in means.items()
        }
        for name, drawn in saliency.on_states().items()
    }


def places(drawn: Tensor, spans: Sequence[tuple[int, int]]) -> list[float]:
    """Seconds at which a map (I, n) is highest for each word, given its tokens (first, end),
    smoothed over 100 ms.
    """
    flat = by_token(drawn)
    n = flat.shape[1]
    found = []
    for a, b in spans:
        mean = flat[a:b].mean(0)[None, None]
        smooth = torch.nn.functional.avg_pool1d(
            mean, SMOOTH, 1, SMOOTH // 2, count_include_pad=False
        )[0, 0, :n]
        found.append((float(smooth.argmax()) + 0.5) * STATE_SECONDS)
    return found


def near(words: Sequence[Word], at: Sequence[float]) -> list[bool]:
    """Whether the place of each word lies in the word, or within `NEAR` of it."""
    return [word.start - NEAR <= place <= word.end + NEAR for word, place in zip(words, at)]


def sentence(
    found: Mapping[str, Mapping[str, Sequence[float]]],
    words: Sequence[Word],
    at_it: Sequence[bool],
    reliability: Mapping[str, float],
) -> str:
    """A plain sentence on how far the word times of a recording can be trusted."""
    kinds = {"states": "the states of its encoder", "spectrogram": "the spectrogram"}
    parts = [
        f"{found[name]['all heads'][0]:.2f} ({kind})"
        for name, kind in kinds.items()
        if name in found
    ]
    line = (
        f"The attention that these times are read from follows what the model used with a correlation of "
        f"{' and '.join(parts)}; 1 would be all of it."
        if parts
        else ""
    )
    if at_it:
        lost = [word.text.strip() for word, fits in zip(words, at_it) if not fits]
        line += f" For {len(at_it) - len(lost)} of {len(at_it)} words what mattered most lies within {NEAR:g} s of the "
        line += "word's time"
        listed = ", ".join(lost[:8]) + (", ..." if len(lost) > 8 else "")
        line += f": take the times of {listed} with care." if lost else "."
    weak = [name for name, value in reliability.items() if not value >= FIRM]
    if weak:
        line += (
            f" These masks are too few for a firm answer (reliability "
            f"{', '.join(f'{reliability[name]:.2f}' for name in weak)}): give more."
        )
    return line.strip()


def deletion(heard: Hearer, one: Heard, saliency: Saliency, seed: int) -> dict[str, list[float]]:
    """Word error rates, held against the whole recording's own text and at most 1, when the most
    important 0, 5, ..., 100 % of the recording are blanked, by map: by states, or by places of the
    spectrogram ("in full")."""
    maps = {"cross-attention": one.attention.mean((0, 1)), **saliency.on_states()}
    ranked = {name: by_token(drawn).mean(0) for name, drawn in maps.items()}
    for name, drawn in (
        ("spectrogram in full", saliency.inputs),
        ("gradient of spectrogram in full", saliency.gradient_inputs),
    ):
        if drawn is not None:
            ranked[name] = by_token(drawn).mean(0)
    generator = np.random.default_rng(seed)
    ranked["chance"] = torch.from_numpy(generator.random(one.states))
    ranked["chance in full"] = torch.from_numpy(
        generator.random((one.features.shape[1], one.frames))
    )
    # In a short window a model may say another text than in its whole one, which then serves.
    again = heard.tokens.decode(said(heard, one.features, one.samples))
    same = plain(again) == plain(one.text)
    features = one.features if same else window_of(heard, one.samples, None)
    return {name: _curve(heard, one, features, order) for name, order in ranked.items()}


@torch.no_grad()
def _curve(heard: Hearer, one: Heard, features: Tensor, importance: Tensor) -> list[float]:
    order = importance.flatten().argsort(descending=True)
    rows = []
    for step in range(1, STEPS + 1):
        gone = torch.zeros(importance.numel(), dtype=torch.bool)
        gone[order[: round(step / STEPS * len(order))]] = True
        gone = gone.view(importance.shape)
        if gone.ndim == 1:  # states of two frames, all bands
            gone = gone.repeat_interleave(2)[: one.frames].expand(features.shape[1], -1)
        hidden = torch.zeros(features.shape[1:], dtype=torch.bool)
        hidden[:, : one.frames] = gone
        rows.append(hidden)
    blank = torch.where(torch.stack(rows).to(heard.device), one.fill[:, None], features)
    most = 2 * len(one.ids) + 10  # what goes on longer is wrong anyway
    found = transcribe(
        heard.model, heard.model.encode(blank), rules_of(heard.spec, heard.tokens), [most] * STEPS
    )
    texts = [heard.tokens.decode(each.tokens) for each in found]
    errors = text_errors(texts, [one.text] * STEPS)
    return [0.0, *np.minimum(1.0, errors.wrong / np.maximum(1, errors.total)).tolist()]


def area(curve: Sequence[float]) -> float:
    """Area under a deletion curve, by trapezoids, percent."""
    return 100 * float(np.trapezoid(np.asarray(curve), dx=1 / (len(curve) - 1)))


def summary(one: Heard, saliency: Saliency, timing: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """JSON of a recording: text, words with the place that mattered most for each, agreement, the
    plain sentence.
    """
    found = agreement(one, saliency, timing)
    maps = saliency.on_states()
    leading = next(
        (name for name in ("spectrogram", "states", "gradient of spectrogram") if name in maps),
        None,
    )
    at = places(maps[leading], one.spans) if leading and one.words else []
    fits = near(one.words, at)
    words = [
        {
            "word": word.text,
            "start": round(word.start, 4),
            "end": round(word.end, 4),
            "place": round(place, 4),
            "near": fit,
        }
        for word, place, fit in zip(one.words, at, fits)
    ]
    return {
        "text": one.text,
        "tokens": len(one.ids),
        "seconds": len(one.samples) / RATE,
        "words": words,
        "agreement": found,
        "reliability": saliency.reliability,
        "sentence": sentence(found, one.words, fits, saliency.reliability),
    }
