"""What a model used for each token of a recording: saliency of its states and of its spectrogram,
by masks, and gradient x input.

Shapes: F mel bands, T frames of 10 ms and N = ceil(T / 2) states of the recording (silence behind
it left out), I tokens, L layers and H heads of the decoder, K masks.

SM_H, on the states of the encoder: random stretches of a few states are zeroed. SM_X, on the
spectrogram: random segments of similar places (SLIC) become the mean of their band, and the encoder
runs again (SPES, arXiv 2411.01710). The saliency of a place for a token is the mean divergence of
the token's probabilities over the masks that hid the place. Source of the comparison with
cross-attention: Papi et al., arXiv 2509.18010.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ....data.formats.audio import RATE
from ....data.speech.log_mel import FRAME_SECONDS, log_mel
from ....data.speech.manifests import Utterance
from ....data.speech.transcripts import Word
from ....models.speech.saliency import FeatureMasking, KnownText, StateMasking, gradient_times_input
from ....models.speech.speech_to_text import Memory
from ..options import SaliencyOptions
from ..transcriber import Transcriber

# Segment counts are per 5 s of frames and stop growing at 7.5 s.
SEGMENT_FRAMES, MOST_SEGMENT_FRAMES = 500, 750

Step = Callable[[int], object]  # is told how many masks were done


@dataclass(frozen=True)
class TranscribedRecording:
    """A recording as the model reads it."""

    utterance: Utterance
    samples: np.ndarray
    features: Tensor
    """(1, F, frames of the window)."""
    frames: int
    """T of the recording itself."""
    fill: Tensor
    """Mean of each band, (F,): what masked places become."""
    memory: Memory
    text: str
    ids: tuple[int, ...]
    known_text: KnownText
    words: list[Word]
    spans: list[tuple[int, int]]
    """(first token, token after the last) of each word."""
    attention: Tensor
    """Cross-attention, (L, H, I, N)."""

    @property
    def states(self) -> int:
        """N."""
        return -(-self.frames // 2)


@dataclass
class SaliencyMaps:
    """Maps of importance, those that were asked for."""

    states: Tensor | None = None
    """(I, N)."""
    spectrogram: Tensor | None = None
    """(I, F, T)."""
    gradient_states: Tensor | None = None
    """(I, N)."""
    gradient_spectrogram: Tensor | None = None
    """(I, F, T)."""
    reliability: dict[str, float] = field(default_factory=dict)
    """Of the maps by masks: the correlation that two sets of as many masks would have, from two
    halves (Spearman and Brown)."""

    def on_states(self) -> dict[str, Tensor]:
        """All of them by name on the states, (I, N): for maps of the spectrogram, the largest value
        of the bands and frames of a state.
        """
        maps = {
            "states": self.states,
            "gradient of states": self.gradient_states,
            "spectrogram": _pooled_or_none(self.spectrogram),
            "gradient of spectrogram": _pooled_or_none(self.gradient_spectrogram),
        }
        return {name: values for name, values in maps.items() if values is not None}


def window_features(transcriber: Transcriber, samples: np.ndarray, margin: float | None) -> Tensor:
    """Features (1, F, frames) of the model's entire window, or of the recording and `margin`
    seconds of silence if the model has such a window.
    """
    spec = transcriber.spec
    if margin is None or not spec.whole_window:
        return transcriber.features([samples])[0]
    room = int(spec.longest_seconds * RATE) - len(samples)
    silence = np.zeros(max(0, min(room, round(margin * RATE))), np.float32)
    features = log_mel(np.concatenate([samples, silence]), spec.features)
    return features[None, :, : features.shape[1] // 2 * 2].to(transcriber.device)


@torch.no_grad()
def transcribe_recording(
    transcriber: Transcriber,
    utterance: Utterance,
    samples: np.ndarray,
    *,
    text: str | None = None,
    margin: float | None = None,
) -> TranscribedRecording:
    """Transcribe a recording as `predict` does, or take the known text. The times of its words and
    the attention are those of the window that the margin leaves.

    Raises ValueError for a text without a token or with too many, and where the cross-attention has
    no weights.
    """
    tokens, seconds = transcriber.tokens, len(samples) / RATE
    if text is None:
        ids = transcriber.greedy_ids(window_features(transcriber, samples, None), seconds)
    else:
        ids = transcriber.text_ids(text)
    if not ids:
        raise ValueError("nothing is said in it")
    if len(ids) > transcriber.most_text_tokens:
        most = transcriber.most_text_tokens
        raise ValueError(f"its text has {len(ids)} tokens; {most} at most")
    features = window_features(transcriber, samples, margin)
    memory = transcriber.encode(features)
    prompt_and_text = torch.tensor([*tokens.prompt, *ids], device=transcriber.device)
    known_text = KnownText(prompt_and_text, len(tokens.prompt))
    frames = min(features.shape[2], max(1, round(seconds / FRAME_SECONDS)))
    return TranscribedRecording(
        utterance,
        samples,
        features,
        frames,
        features[0, :, :frames].mean(1),
        memory,
        tokens.decode(ids),
        ids,
        known_text,
        transcriber.times(memory, [ids], [samples]).words[0],
        [(first, after) for _, first, after in tokens.words(ids)],
        _cross_attention(transcriber, memory, known_text, -(-frames // 2)),
    )


def _cross_attention(
    transcriber: Transcriber, memory: Memory, text: KnownText, states: int
) -> Tensor:
    """Cross-attention (L, H, I, N) of all heads at the tokens of the text, on the first states."""
    decoder = transcriber.model.decoder
    layers, heads = len(decoder.layers), decoder.heads
    pairs = [(layer, head) for layer in range(layers) for head in range(heads)]
    maps = decoder(text.fed, memory, maps=pairs).maps
    assert maps is not None
    return maps[0, :, text.prompt - 1 :, :states].unflatten(0, (layers, heads)).float().cpu()


def saliency_of(
    transcriber: Transcriber, recording: TranscribedRecording, options: SaliencyOptions, step: Step
) -> SaliencyMaps:
    """All maps that the options ask for."""
    generator = np.random.default_rng(options.seed)
    model, text = transcriber.model, recording.known_text
    maps = SaliencyMaps()
    if options.masks:
        masking = StateMasking(model, recording.memory, text)
        maps.states, maps.reliability["states"] = saliency_of_states(
            masking, recording, options, generator, step
        )
    if options.input_masks:
        masking = FeatureMasking(model, recording.features, recording.fill, text)
        maps.spectrogram, maps.reliability["spectrogram"] = saliency_of_spectrogram(
            masking, recording, options, generator, step
        )
    if options.gradients:
        spectrogram, states = gradient_times_input(model, recording.features, recording.fill, text)
        maps.gradient_spectrogram = spectrogram[..., : recording.frames].cpu()
        maps.gradient_states = states[:, : recording.states].cpu()
    return maps


def saliency_of_states(
    masking: Callable[[Tensor], Tensor],
    recording: TranscribedRecording,
    options: SaliencyOptions,
    generator: np.random.Generator,
    step: Step,
) -> tuple[Tensor, float]:
    """SM_H (I, N) and its reliability. Stretches begin elsewhere in each mask, so that the map has
    a value for each state.

    masking: visible states, bool (K, all states of the window) -> scores (K, I).
    """
    total, states = recording.memory.states.shape[1], recording.states
    means = _MaskedMeans(len(recording.ids), states)
    for start in range(0, options.masks, options.batch_size):
        count = min(options.batch_size, options.masks - start)
        hidden = np.zeros((count, total), bool)
        for row in hidden:
            shift = int(generator.integers(options.chunk))
            stretches = generator.random(-(-(states + shift) // options.chunk)) < options.hidden
            row[:states] = stretches.repeat(options.chunk)[shift : shift + states]
        scores = masking(torch.from_numpy(~hidden).to(recording.memory.states.device))
        means.add(scores, torch.from_numpy(hidden[:, :states]))
        step(count)
    return means.map(), means.reliability()


def saliency_of_spectrogram(
    masking: Callable[[Tensor], Tensor],
    recording: TranscribedRecording,
    options: SaliencyOptions,
    generator: np.random.Generator,
    step: Step,
) -> tuple[Tensor, float]:
    """SM_X (I, F, T) and its reliability; the masks are shared among the numbers of segments.

    masking: visible places, bool (K, F, frames of the window) -> scores (K, I).
    """
    features, frames = recording.features, recording.frames
    spectrogram = features[0, :, :frames].cpu().numpy()
    grids = [segments_of(spectrogram, size) for size in options.segments]
    means = [_MaskedMeans(len(recording.ids), int(grid.max()) + 1) for grid in grids]
    for number in range(-(-options.input_masks // options.batch_size)):
        mean, grid = means[number % len(grids)], grids[number % len(grids)]
        count = min(options.batch_size, options.input_masks - number * options.batch_size)
        hidden = generator.random((count, mean.places)) < options.hidden
        visible = np.ones((count, *features.shape[1:]), bool)
        visible[:, :, :frames] = ~hidden[:, grid]
        scores = masking(torch.from_numpy(visible).to(features.device))
        mean.add(scores, torch.from_numpy(hidden))
        step(count)
    labels = [torch.from_numpy(grid) for grid in grids]
    first, second = (_joined([mean.sums(half) for mean in means], labels) for half in (0, 1))
    full = _joined([mean.sums(None) for mean in means], labels)
    return full, _stepped_up(pooled(first), pooled(second))


def segments_of(features: np.ndarray, count: int) -> np.ndarray:
    """Segments of similar places of a spectrogram (F, T), int64 (F, T) from 0, about `count` per
    5 s (SLIC, Achanta et al., 2012; settings of SPES).
    """
    from skimage.segmentation import slic

    low, high = features.min(), features.max()
    scaled = (features - low) / max(high - low, 1e-9)
    number = max(2, round(count * min(features.shape[1], MOST_SEGMENT_FRAMES) / SEGMENT_FRAMES))
    labels = slic(
        scaled.astype(np.float64), n_segments=number, compactness=0.1, sigma=1, channel_axis=None
    )
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


class _MaskedMeans:
    """Mean score of each token over the masks that hid a place: of all masks, and of two halves of
    them.
    """

    def __init__(self, tokens: int, places: int) -> None:
        self.places = places
        self.total = torch.zeros(2, tokens, places, dtype=torch.float64)
        self.count = torch.zeros(2, places, dtype=torch.float64)
        self.half = 0

    def add(self, scores: Tensor, hidden: Tensor) -> None:
        """scores: (K, I); hidden: bool (K, places). Masks go to one half and the other in turn."""
        for score, mask in zip(scores.double().cpu(), hidden.double(), strict=True):
            self.total[self.half] += score[:, None] * mask
            self.count[self.half] += mask
            self.half = 1 - self.half

    def sums(self, half: int | None) -> tuple[Tensor, Tensor]:
        """Sums of scores (I, places) and numbers of masks (places,), of a half or of all."""
        if half is None:
            return self.total.sum(0), self.count.sum(0)
        return self.total[half], self.count[half]

    def map(self, half: int | None = None) -> Tensor:
        """float32 (I, places); places that no mask hid have the mean of the others."""
        return _means(*self.sums(half)).float()

    def reliability(self) -> float:
        """As in `SaliencyMaps`."""
        return _stepped_up(self.map(0), self.map(1))


def _means(total: Tensor, count: Tensor) -> Tensor:
    mean = total / count.clamp_min(1)
    overall = total.sum(tuple(range(1, total.ndim)), keepdim=True) / count.sum().clamp_min(1)
    return torch.where(count > 0, mean, overall)


def _joined(sums: Sequence[tuple[Tensor, Tensor]], labels: Sequence[Tensor]) -> Tensor:
    """The sums of several segmentations as one map on the places of the spectrogram, float32
    (I, F, T).
    """
    totals = [scores[:, grid] for (scores, _), grid in zip(sums, labels, strict=True)]
    counts = [number[grid] for (_, number), grid in zip(sums, labels, strict=True)]
    return _means(reduce(torch.add, totals), reduce(torch.add, counts)).float()


def _stepped_up(first: Tensor, second: Tensor) -> float:
    """Correlation that two full sets of masks would have, from that of the halves of one."""
    r = correlation(first, second)
    return 2 * r / (1 + r) if r > -1 else -1.0


def pooled(maps: Tensor) -> Tensor:
    """(I, F, T) -> (I, N): the largest value of a state's bands and frames (2-D max pooling)."""
    padded = F.pad(maps, (0, maps.shape[-1] % 2), value=-torch.inf)
    return padded.unflatten(-1, (-1, 2)).amax((1, 3))


def _pooled_or_none(maps: Tensor | None) -> Tensor | None:
    return None if maps is None else pooled(maps)


def by_token(maps: Tensor) -> Tensor:
    """Each token's map (I, ...) with mean 0 and deviation 1; 0 where it is the same everywhere."""
    flat = maps.flatten(1).double()
    flat = flat - flat.mean(1, keepdim=True)
    return (flat / flat.std(1, keepdim=True).nan_to_num(0).clamp_min(1e-12)).view(maps.shape)


def correlation(first: Tensor, second: Tensor, *, ranks: bool = False) -> float:
    """Pearson's (or Spearman's) correlation of two maps (I, N) over all their places, each token's
    map normalised; NaN where one is constant.
    """
    from scipy.stats import rankdata

    a, b = by_token(first).flatten().numpy(), by_token(second).flatten().numpy()
    if ranks:
        a, b = rankdata(a), rankdata(b)
    if a.std() < 1e-9 or b.std() < 1e-9:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
