"""What a model used to say each token of a recording: saliency of its states and of its
spectrogram, by masks.

Shapes: F mel bands, T frames of 10 ms and n = ceil(T / 2) states of the recording (silence behind
it left out), I tokens, L layers and H heads of the decoder, S segments.

SM_H, on the states of the encoder: stretches of a few states are zeroed by chance. SM_X, on the
spectrogram: segments of alike places (SLIC) become the mean of their band by chance, and the
encoder runs again (SPES, arXiv 2411.01710). The saliency of a place for a token is the mean
divergence of the token's probabilities over the masks that hid the place. Gradient x input beside
both. Source of the comparison with cross-attention: Papi et al., arXiv 2509.18010."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.formats.audio import RATE
from ...data.speech.log_mel import FRAME_SECONDS, log_mel
from ...data.speech.transcripts import Word
from ...models.speech.saliency import FeatureMasking, GivenText, StateMasking, gradient_times_input
from ...models.speech.speech_to_text import Memory
from .prediction import Hearer

FRAMES, MOST_FRAMES = (
    500,
    750,
)  # numbers of segments are for 5 s; no more of them for longer recordings than 7.5 s


@dataclass(frozen=True)
class Heard:
    """A recording as the model heard it. features: (1, F, window); frames: T of the recording
    itself; fill: (F,), mean of each band; attention: (L, H, I, n)."""

    samples: np.ndarray
    features: Tensor
    frames: int
    fill: Tensor
    memory: Memory
    text: str
    ids: tuple[int, ...]
    given: GivenText
    words: list[Word]
    spans: list[tuple[int, int]]
    attention: Tensor

    @property
    def states(self) -> int:
        """n."""
        return -(-self.frames // 2)


@dataclass
class Saliency:
    """Maps of importance: of states (I, n) and of places of the spectrogram (I, F, T). reliability:
    correlation that two sets of as many masks would have, from two halves (Spearman and Brown);
    gradients have none."""

    states: Tensor | None = None
    inputs: Tensor | None = None
    gradient_states: Tensor | None = None
    gradient_inputs: Tensor | None = None
    reliability: dict[str, float] = field(default_factory=dict)

    def on_states(self) -> dict[str, Tensor]:
        """All of them on the states, (I, n): the largest of a state's bands and frames for maps of
        the spectrogram.
        """
        found = {"states": self.states, "gradient of states": self.gradient_states}
        for name, one in (
            ("spectrogram", self.inputs),
            ("gradient of spectrogram", self.gradient_inputs),
        ):
            found[name] = None if one is None else pooled(one)
        return {name: one for name, one in found.items() if one is not None}


def window_of(heard: Hearer, samples: np.ndarray, margin: float | None) -> Tensor:
    """Features (1, F, frames): the model's whole window, or the recording and `margin` seconds of
    silence.
    """
    if margin is not None and heard.spec["whole_window"]:
        room = int(heard.longest * RATE) - len(samples)
        samples = np.concatenate(
            [samples, np.zeros(max(0, min(room, round(margin * RATE))), np.float32)]
        )
        found = log_mel(samples, int(heard.spec["features"]))
        return found[None, :, : found.shape[1] // 2 * 2].to(heard.device)
    features, _ = heard.features([samples])
    return features


@torch.no_grad()
def said(heard: Hearer, features: Tensor, samples: np.ndarray) -> tuple[int, ...]:
    """The tokens of a greedy transcript."""
    return heard.transcripts(heard.model.encode(features), [len(samples) / RATE])[0].tokens


@torch.no_grad()
def listen(
    heard: Hearer, samples: np.ndarray, *, known: str | None = None, margin: float | None = None
) -> Heard:
    """Transcribe a recording as `predict` does (or take the text that is known); the times of its
    words and the attention are those of the window that the margin leaves.

    Raises ValueError for a text without a token or with too many, and where the cross-attention has
    no weights."""
    ids = (
        said(heard, window_of(heard, samples, None), samples)
        if known is None
        else heard.encoded(known)
    )
    features = window_of(heard, samples, margin)
    memory = heard.model.encode(features)
    room = len(heard.model.decoder.positions) - len(heard.tokens.prompt)
    if not ids or len(ids) > room:
        raise ValueError(
            "nothing is said in it"
            if not ids
            else f"its text has {len(ids)} tokens; {room} at most"
        )
    frames = min(features.shape[2], max(1, round(len(samples) / RATE / FRAME_SECONDS)))
    tokens = torch.tensor([*heard.tokens.prompt, *ids], device=heard.device)
    given = GivenText(tokens, len(heard.tokens.prompt))
    words = heard.times(memory, [ids], [samples]).words[0]
    layers, heads = len(heard.model.decoder.layers), heard.model.decoder.heads
    every = [(layer, head) for layer in range(layers) for head in range(heads)]
    drawn = heard.model.decoder(given.fed, memory, maps=every).maps
    assert drawn is not None
    attention = (
        drawn[0, :, given.prompt - 1 :, : -(-frames // 2)]
        .unflatten(0, (layers, heads))
        .float()
        .cpu()
    )
    spans = [(a, b) for _, a, b in heard.tokens.words(ids)]
    return Heard(
        samples,
        features,
        frames,
        features[0, :, :frames].mean(1),
        memory,
        heard.tokens.decode(ids),
        tuple(ids),
        given,
        words,
        spans,
        attention,
    )


def explain(heard: Hearer, one: Heard, options: Any, step: Callable[[int], object]) -> Saliency:
    """All maps that the options ask for; step: told how many masks were done."""
    generator = np.random.default_rng(options.seed)
    found = Saliency()
    if options.masks:
        states = StateMasking(heard.model, one.memory, one.given)
        found.states, found.reliability["states"] = of_states(states, one, options, generator, step)
    if options.input_masks:
        features = FeatureMasking(heard.model, one.features, one.fill, one.given)
        found.inputs, found.reliability["spectrogram"] = of_spectrogram(
            features, one, options, generator, step
        )
    if options.gradients:
        inputs, gradient = gradient_times_input(heard.model, one.features, one.fill, one.given)
        found.gradient_inputs, found.gradient_states = (
            inputs[..., : one.frames].cpu(),
            gradient[:, : one.states].cpu(),
        )
    return found


def of_states(
    masking: StateMasking,
    one: Heard,
    options: Any,
    generator: np.random.Generator,
    step: Callable[[int], object],
) -> tuple[Tensor, float]:
    """SM_H (I, n) and its reliability. Stretches begin elsewhere in each mask, so that the map has
    a value for each state."""
    total, shown = one.memory.states.shape[1], one.states
    mean = _Mean(len(one.ids), shown)
    for start in range(0, options.masks, options.batch_size):
        count = min(options.batch_size, options.masks - start)
        hidden = np.zeros((count, total), bool)
        for row in range(count):
            shift = int(generator.integers(options.chunk))
            pieces = -(-(shown + shift) // options.chunk)
            drawn = generator.random(pieces) < options.hidden
            hidden[row, :shown] = drawn.repeat(options.chunk)[shift : shift + shown]
        scores = masking(torch.from_numpy(~hidden).to(one.memory.states.device))
        mean.add(scores, torch.from_numpy(hidden[:, :shown]))
        step(count)
    return mean.map(), mean.reliability()


def of_spectrogram(
    masking: FeatureMasking,
    one: Heard,
    options: Any,
    generator: np.random.Generator,
    step: Callable[[int], object],
) -> tuple[Tensor, float]:
    """SM_X (I, F, T) and its reliability; masks are shared out among the sizes of segments."""
    shown = one.features[0, :, : one.frames].cpu().numpy()
    sizes = list(options.segments)
    grids = [segments_of(shown, size) for size in sizes]
    means = [_Mean(len(one.ids), int(grid.max()) + 1) for grid in grids]
    batches = -(-options.input_masks // options.batch_size)
    for number in range(batches):
        which = number % len(sizes)
        count = min(options.batch_size, options.input_masks - number * options.batch_size)
        hidden = generator.random((count, means[which].places)) < options.hidden
        kept = np.ones((count, *one.features.shape[1:]), bool)
        kept[:, :, : one.frames] = ~hidden[:, grids[which]]
        scores = masking(torch.from_numpy(kept).to(one.features.device))
        means[which].add(scores, torch.from_numpy(hidden))
        step(count)
    labels = [torch.from_numpy(grid) for grid in grids]
    maps = [_joined([mean.sums(half) for mean in means], labels) for half in (0, 1)]
    whole = _joined([mean.sums(None) for mean in means], labels)
    return whole, _stepped_up(pooled(maps[0]), pooled(maps[1]))


def segments_of(features: np.ndarray, size: int) -> np.ndarray:
    """Segments of alike places of a spectrogram, int64 (F, T) from 0, about `size` for 5 s (SLIC,
    Achanta et al., 2012; settings of SPES)."""
    from skimage.segmentation import slic

    low, high = features.min(), features.max()
    scaled = (features - low) / max(high - low, 1e-9)
    count = max(2, round(size * min(features.shape[1], MOST_FRAMES) / FRAMES))
    found = slic(
        scaled.astype(np.float64), n_segments=count, compactness=0.1, sigma=1, channel_axis=None
    )
    return np.unique(found, return_inverse=True)[1].reshape(found.shape)


class _Mean:
    """Mean score of each token over the masks that hid a place, of all and of two halves."""

    def __init__(self, tokens: int, places: int) -> None:
        self.places = places
        self.total = torch.zeros(2, tokens, places, dtype=torch.float64)
        self.count = torch.zeros(2, places, dtype=torch.float64)
        self.half = 0

    def add(self, scores: Tensor, hidden: Tensor) -> None:
        """scores: (K, I); hidden: bool (K, places). Masks go to one half and the other in turn."""
        for scored, gone in zip(scores.double().cpu(), hidden.double()):
            self.total[self.half] += scored[:, None] * gone
            self.count[self.half] += gone
            self.half = 1 - self.half

    def sums(self, half: int | None) -> tuple[Tensor, Tensor]:
        """(I, places) and (places,)."""
        return (
            (self.total.sum(0), self.count.sum(0))
            if half is None
            else (self.total[half], self.count[half])
        )

    def map(self, half: int | None = None) -> Tensor:
        """float32 (I, places); places that no mask hid have the mean of the others."""
        total, count = self.sums(half)
        return _filled(total, count).float()

    def reliability(self) -> float:
        """See `Saliency`."""
        return _stepped_up(self.map(0), self.map(1))


def _filled(total: Tensor, count: Tensor) -> Tensor:
    mean = total / count.clamp_min(1)
    rest = total.sum(tuple(range(1, total.ndim)), keepdim=True) / count.sum().clamp_min(1)
    return torch.where(count > 0, mean, rest)


def _joined(sums: list[tuple[Tensor, Tensor]], labels: list[Tensor]) -> Tensor:
    """Several segmentations on the places of the spectrogram, float32 (I, F, T)."""
    total = sum(scores[:, grid] for (scores, _), grid in zip(sums, labels))
    count = sum(number[grid] for (_, number), grid in zip(sums, labels))
    assert isinstance(total, Tensor)
    assert isinstance(count, Tensor)
    return _filled(total, count).float()


def _stepped_up(first: Tensor, second: Tensor) -> float:
    """Correlation of the whole from that of its halves."""
    r = correlation(first, second)
    return 2 * r / (1 + r) if r > -1 else -1.0


def pooled(maps: Tensor) -> Tensor:
    """(I, F, T) -> (I, n): the largest value of a state's bands and frames (2-D max pooling)."""
    padded = torch.nn.functional.pad(maps, (0, maps.shape[-1] % 2), value=-torch.inf)
    return padded.unflatten(-1, (-1, 2)).amax((1, 3))


def by_token(maps: Tensor) -> Tensor:
    """Each token's map (I, ...) with mean 0 and deviation 1; 0 where it is the same everywhere."""
    flat = maps.flatten(1).double()
    flat = flat - flat.mean(1, keepdim=True)
    return (flat / flat.std(1, keepdim=True).nan_to_num(0).clamp_min(1e-12)).view(maps.shape)


def correlation(first: Tensor, second: Tensor, *, ranks: bool = False) -> float:
    """Pearson's (or Spearman's) correlation of two maps (I, n), each token's normalised, over all
    their places; NaN where one is constant."""
    from scipy.stats import rankdata

    a, b = by_token(first).flatten().numpy(), by_token(second).flatten().numpy()
    if ranks:
        a, b = rankdata(a), rankdata(b)
    if a.std() < 1e-9 or b.std() < 1e-9:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
