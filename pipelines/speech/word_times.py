"""When each word is said, read from cross-attention.

Shapes: B recordings, S heads, I tokens of a text, N states of a recording (20 ms each), W words.

Whatever the method: the known text is decoded once; the maps of some heads are cut to the
recording, normalised over the tokens, smoothed by a median over 7 states and averaged (Whisper's
timing). Then

    dtw     the cheapest path through minus the map (dynamic time warping); a word ends where the
            next begins
    area    split by split, the place where what lies before and behind it has most weight (in the
            manner of SBAAM, FBK)
    pauses  our own: each word is an interval, and pauses belong to no word. The best sum of: the
            map of the word within its interval; how much the recording sounds like speech there,
            and unlike it between words; and how likely it is that a word of so many letters takes
            so long. Found exactly, by dynamic programming over the ends of words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from ...base.errors import InputError
from ...data.formats.audio import RATE
from ...data.speech.log_mel import HOP
from ...data.speech.tokens import TextTokens
from ...data.speech.transcripts import Word
from ...data.speech.voice_activity import speech_share
from ...kernels.time_warping import median_filter, time_warp
from ...models.speech.speech_to_text import Maps, Memory, SpeechToText
from .data import STATE_SECONDS, pad_tokens
from .options import Times

FILTER = 7  # states
# Of "pauses"; chosen on other recordings than those that docs/measured/speech.md measures.
SOUND, PAUSE, LENGTH = 5.0, 0.5, 10.0  # weights of sound, of a pause as such, of a word's length
LETTER, LEAST = 0.07, 0.06  # seconds for each letter of a word, and in addition to them
SPREAD = 0.5  # deviation of the logarithm of a word's length
LONGEST = 100  # states of a word
MOST_LAG = 8  # states

TokenSpan = tuple[str, int, int]  # a word, its first token, the token after its last
StateSpan = tuple[int, int]  # the first state of a word, the state after its last


def states_of(samples: np.ndarray) -> int:
    """States of the encoder that a recording fills, the last one perhaps in part."""
    return -(-len(samples) // (2 * HOP))


class KnownTexts(NamedTuple):
    """Known texts as the decoder sees them.

    log_probabilities: (B, I + 1) of their tokens and of the end. maps: (B, S, I + 1, N), where each
    of them looks; empty if no maps are asked for. sizes: how many of the I + 1 each text has, (B,).
    """

    log_probabilities: Tensor
    maps: Tensor
    sizes: Tensor


@torch.no_grad()
def decode_known(
    model: SpeechToText,
    memory: Memory,
    tokens: TextTokens,
    ids: Sequence[Sequence[int]],
    maps: Maps | None,
) -> KnownTexts:
    """Decode texts whose tokens are known, all at once; maps: as in `TextDecoder`."""
    start, device = len(tokens.prompt), memory.states.device
    rows, lengths = pad_tokens([[*tokens.prompt, *text, tokens.end] for text in ids], tokens.end)
    rows = rows.to(device)
    mask = torch.arange(rows.shape[1], device=device) < lengths.to(device)[:, None]
    decoded = model.decoder(rows[:, :-1], memory, mask=mask[:, :-1], maps=maps)
    scores = decoded.logits[:, start - 1 :].float().log_softmax(-1)
    log_probabilities = scores.gather(-1, rows[:, start:, None])[..., 0]
    text_maps = torch.zeros(0) if decoded.maps is None else decoded.maps[:, :, start - 1 :]
    return KnownTexts(log_probabilities.cpu(), text_maps.cpu(), lengths - start)


class TimedTexts(NamedTuple):
    """words: of each text, with times in seconds from the start of its samples, and the mean
    probability of a word's tokens as confidence. scores: mean log-probability of the tokens of each
    text and of its end.
    """

    words: list[list[Word]]
    scores: list[float]


@torch.no_grad()
def word_times(
    model: SpeechToText,
    memory: Memory,
    tokens: TextTokens,
    ids: Sequence[Sequence[int]],
    sounds: Sequence[np.ndarray],
    *,
    heads: Sequence[tuple[int, int]],
    method: Times = "pauses",
    lag: int = 0,
) -> TimedTexts:
    """When each word of known texts is said; texts without a token have no words.

    ids: tokens of each text. sounds: samples of each recording. heads: (layer, head) whose
    attention is read. lag: states by which it looks late.
    """
    scores, maps, sizes = decode_known(model, memory, tokens, ids, list(heads))
    # Each recording has its own states, whatever it is batched with; Whisper's go on in silence.
    available = [maps.shape[-1]] * len(ids) if memory.mask is None else memory.mask.sum(1).tolist()
    states = torch.tensor(
        [
            min(most, max(1, states_of(samples)))
            for samples, most in zip(sounds, available, strict=True)
        ]
    )
    smooth = smoothed(maps, sizes, states)
    warped = time_warp(-smooth, sizes, states) if method == "dtw" else None
    timed: list[list[Word]] = []
    for row, samples in enumerate(sounds):
        words = tokens.words(ids[row])
        weights = smooth[row, : int(sizes[row]), : int(states[row])].numpy().astype(np.float64)
        if warped is not None:
            spans = _warped_spans(warped.first[row], warped.last[row], words)
        elif method == "area":
            spans = split_by_area(weights, [(first, after) for _, first, after in words])
        else:
            share = speech_share(samples, int(states[row])).astype(np.float64)
            spans = intervals(weights, words, share, lag)
        timed.append(_words(words, spans, scores[row], len(samples) / RATE))
    means = [
        float(score[: int(size)].double().mean()) for score, size in zip(scores, sizes, strict=True)
    ]
    return TimedTexts(timed, means)


def _warped_spans(first: Tensor, last: Tensor, words: Sequence[TokenSpan]) -> list[StateSpan]:
    """first, last: states of each token on the path, (I,)."""
    if not words:
        return []
    starts = [int(first[token]) for _, token, _ in words]
    stops = [*starts[1:], int(last[words[-1][2] - 1]) + 1]
    return list(zip(starts, stops, strict=True))


def _words(
    words: Sequence[TokenSpan], spans: Sequence[StateSpan], scores: Tensor, end: float
) -> list[Word]:
    """scores: log-probability of each token, (I + 1,). end: seconds of the recording."""
    timed = []
    for (text, first, after), (start, stop) in zip(words, spans, strict=True):
        confidence = float(scores[first:after].double().mean().exp())
        begin = min(start * STATE_SECONDS, end)
        timed.append(Word(text, begin, min(max(stop, start) * STATE_SECONDS, end), confidence))
    return timed


def smoothed(maps: Tensor, sizes: Tensor, states: Tensor) -> Tensor:
    """Maps (B, S, I, N) of ragged tokens and states -> their mean over heads, normalised over the
    tokens and smoothed, float32 (B, I, N), 0 in the padding.

    sizes, states: how many tokens and states each recording has, (B,). Raises InputError for maps
    that are not finite: of such weights, or of an overflow in half precision.
    """
    if not maps.isfinite().all():
        raise InputError("the model gives no finite number (attention)")
    most_tokens, most_states = maps.shape[2:]
    present = (torch.arange(most_tokens) < sizes[:, None])[:, None, :, None]
    inside = (torch.arange(most_states) < states[:, None])[:, None, None]
    x = torch.where(present & inside, maps, 0.0)
    x = x / x.sum(-1, keepdim=True).clamp_min(1e-9)  # without attention behind the recording
    count = sizes[:, None, None, None]
    mean = x.sum(2, keepdim=True) / count
    squares = torch.where(present, (x - mean).square(), 0.0)
    deviation = (squares.sum(2, keepdim=True) / count).sqrt()
    x = torch.where(present & inside, (x - mean) / deviation.clamp_min(1e-9), 0.0)
    return median_filter(x, FILTER, states).mean(1)


def split_by_area(weights: np.ndarray, spans: Sequence[tuple[int, int]]) -> list[StateSpan]:
    """The states of each word by "area": from the last split to the next, the place that leaves
    most weight in the block before it (this word's tokens) and the block behind it (all later
    tokens). What is below the mean counts as -0.01.

    weights: the smoothed map, (I, N). spans: (first token, token after the last) of each word.
    """
    raised = np.where(weights < 0, -0.01, weights)
    states = weights.shape[1]
    splits, start = [], 0
    for number, (first, after) in enumerate(spans):
        if number + 1 == len(spans):
            splits.append((start, states))
            break
        before = np.concatenate([[0.0], raised[first:after, start:].sum(0).cumsum()])
        later = raised[after:, start:].sum(0)
        behind = later.sum() - np.concatenate([[0.0], later.cumsum()])
        end = start + int(np.argmax(before + behind))
        splits.append((start, end))
        start = min(end, states - 1)
    return splits


def intervals(
    weights: np.ndarray, words: Sequence[TokenSpan], share: np.ndarray, lag: int = 0
) -> list[StateSpan]:
    """The states of each word by "pauses".

    weights: the smoothed map, (I, N). share: how much each state sounds like speech, (N,). lag:
    states by which the map looks late.
    """
    if not words:
        return []
    states = weights.shape[1]
    if len(words) > states:  # no interval for each
        edges = np.linspace(0, states, len(words) + 1).round().astype(int)
        return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    late = np.minimum(np.arange(states) + lag, states - 1)
    sound = SOUND * (share - 0.5)
    inside = np.stack([weights[first:after].max(0)[late] + sound for _, first, after in words])
    longest = min(LONGEST, states)
    seconds = np.log(np.arange(1, longest + 1) * STATE_SECONDS)
    usual = np.log([LEAST + LETTER * max(1, sum(map(str.isalnum, text))) for text, _, _ in words])
    length = np.zeros((len(words), longest + 1))
    length[:, 1:] = -LENGTH / 2 * ((seconds - usual[:, None]) / SPREAD) ** 2
    return [(int(first), int(end)) for first, end in _best(inside, PAUSE - sound, length)]


@numba.njit(cache=True)
def _best(
    inside: np.ndarray, between: np.ndarray, length: np.ndarray
) -> np.ndarray:  # pragma: no cover - compiled
    """The best intervals (W, 2), one behind the other: the sum of `inside` (W, N) in them,
    `between` (N,) elsewhere, and `length` (W, longest + 1) of each.
    """
    words, states = inside.shape
    longest = length.shape[1] - 1
    quiet = np.zeros(states + 1)
    quiet[1:] = np.cumsum(between)
    # before[k, t]: the best of the first k words and the pause behind them, ending at t;
    # ends: where word k - 1 ends in it; begins: where word k begins that ends at t.
    before = np.full((words + 1, states + 1), -np.inf)
    ends = np.zeros((words + 1, states + 1), np.int64)
    begins = np.zeros((words, states + 1), np.int64)
    before[0] = quiet
    for k in range(words):
        loud = np.zeros(states + 1)
        loud[1:] = np.cumsum(inside[k])
        best, place = -np.inf, 0
        for end in range(states + 1):
            score = -np.inf
            for size in range(1, min(longest, end) + 1):
                value = before[k, end - size] + loud[end] - loud[end - size] + length[k, size]
                if value > score:
                    score = value
                    begins[k, end] = end - size
            if score - quiet[end] > best:
                best, place = score - quiet[end], end
            before[k + 1, end] = best + quiet[end]
            ends[k + 1, end] = place
    # Back from the last word to the first.
    chosen = np.zeros((words, 2), np.int64)
    end = states
    for k in range(words - 1, -1, -1):
        stop = ends[k + 1, end]
        chosen[k, 0], chosen[k, 1] = begins[k, stop], stop
        end = begins[k, stop]
    return chosen


def fitted_lag(
    times: Callable[[int], Sequence[Sequence[Word]]],
    known: Sequence[Sequence[Word]],
    most: int = MOST_LAG,
) -> int:
    """The lag, in states, with which `times` gives the smallest mean error of the starts of known
    words. Recordings with another number of words do not count.
    """
    errors = []
    for lag in range(most + 1):
        gaps = [
            abs(word.start - true_word.start)
            for words, true_words in zip(times(lag), known, strict=True)
            if len(words) == len(true_words)
            for word, true_word in zip(words, true_words, strict=True)
        ]
        errors.append(float(np.mean(gaps)) if gaps else np.inf)
    return int(np.argmin(errors))
