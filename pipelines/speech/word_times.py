"""When each word is said, read from cross-attention.

Shapes: S heads, I tokens of the text, N states of the recording (20 ms each), W words.

Whatever the method: the text is decoded once with its tokens given; the maps of some heads are cut
to the recording, normalised over the tokens, smoothed by a median over 7 states and averaged
(Whisper's timing). Then

    dtw     the cheapest path through minus the map (dynamic time warping); a word ends where the next begins
    area    split by split, the place where what lies before and behind it weighs most (in the manner of SBAAM, FBK)
    pauses  our own: each word is an interval, pauses belong to no word. The best sum of: the map of the word within
            its interval; how much like speech the recording sounds there, and unlike it between
            words; and how likely a word of so many letters is so long. Found exactly, by dynamic
            programming over the ends of words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from ...data.formats.audio import RATE
from ...data.speech.log_mel import HOP
from ...data.speech.tokens import TextTokens
from ...data.speech.transcripts import Word
from ...data.speech.voice_activity import speech_share
from ...kernels.time_warping import median_filter, time_warp
from ...models.speech.speech_to_text import Memory, SpeechToText
from .data import STATE_SECONDS

FILTER = 7  # states
# Of "pauses"; chosen on other recordings than those that docs/reference/speech.md measures.
SOUND, PAUSE, LENGTH = 5.0, 0.5, 10.0  # weights of sound, of a pause as such, of a word's length
LETTER, LEAST, SPREAD = (
    0.07,
    0.06,
    0.5,
)  # seconds a letter, seconds besides, deviation of the logarithm
LONGEST = 100  # states of a word


def states_of(samples: np.ndarray) -> int:
    """States of the encoder that a recording reaches into."""
    return -(-len(samples) // (2 * HOP))


def chosen_heads(model: SpeechToText, spec: dict[str, Any]) -> list[tuple[int, int]]:
    """Those that the publisher of the weights chose; else all of the later half of the decoder."""
    if spec["alignment_heads"]:
        return [(int(layer), int(head)) for layer, head in spec["alignment_heads"]]
    layers = len(model.decoder.layers)
    return [
        (layer, head) for layer in range(layers // 2, layers) for head in range(model.decoder.heads)
    ]


@torch.no_grad()
def forced(
    model: SpeechToText, memory: Memory, tokens: TextTokens, ids: Sequence[Sequence[int]], maps: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Decode texts that are given: the log-probabilities (B, I + 1) of their tokens and of the end,
    maps (B, S, I + 1, N) of the places where each is said, and how many of the I + 1 there are,
    (B,)."""
    start = len(tokens.prompt)
    longest = max(map(len, ids))
    rows = [[*tokens.prompt, *one, *[tokens.end] * (longest + 1 - len(one))] for one in ids]
    given = torch.tensor(rows, dtype=torch.int64, device=memory.states.device)
    sizes = torch.tensor([len(one) + 1 for one in ids])
    mask = (
        torch.arange(given.shape[1], device=given.device)
        < (start + sizes.to(given.device))[:, None]
    )
    found = model.decoder(given[:, :-1], memory, mask=mask[:, :-1], maps=maps)
    said = (
        found.logits[:, start - 1 :]
        .float()
        .log_softmax(-1)
        .gather(-1, given[:, start:, None])[..., 0]
    )
    drawn = torch.zeros(0) if found.maps is None else found.maps[:, :, start - 1 :]
    return said.cpu(), drawn.cpu(), sizes


class Timed(NamedTuple):
    """words: of each text, with times in seconds from the start of its samples and the mean
    probability of a word's tokens as confidence; scores: mean log-probability of each text's tokens
    and its end."""

    words: list[list[Word]]
    scores: list[float]


@torch.no_grad()
def word_times(
    model: SpeechToText,
    memory: Memory,
    tokens: TextTokens,
    ids: Sequence[Sequence[int]],
    samples: Sequence[np.ndarray],
    *,
    heads: Sequence[tuple[int, int]],
    method: str = "pauses",
    lag: int = 0,
) -> Timed:
    """When each text's words are said; texts without a token have none."""
    found: list[list[Word]] = [[] for _ in ids]
    said, maps, sizes = forced(model, memory, tokens, ids, list(heads))
    # States of each recording alone, whatever it is batched with; Whisper's go on in silence.
    there = [maps.shape[-1]] * len(ids) if memory.mask is None else memory.mask.sum(1).tolist()
    states = torch.tensor(
        [min(most, max(1, states_of(sound))) for sound, most in zip(samples, there)]
    )
    smooth = smoothed(maps, sizes, states)
    warped = time_warp(-smooth, sizes, states) if method == "dtw" else None
    for row, sound in enumerate(samples):
        words = tokens.words(ids[row])
        count, end = int(states[row]), len(sound) / RATE
        own_map = smooth[row, : int(sizes[row]), :count].numpy().astype(np.float64)
        if warped is not None:
            first = [int(warped.first[row, a]) for _, a, _ in words]
            spans = (
                list(zip(first, [*first[1:], int(warped.last[row, words[-1][2] - 1]) + 1]))
                if words
                else []
            )
        elif method == "area":
            spans = split_by_area(own_map, [(a, b) for _, a, b in words])
        else:
            share = speech_share(sound, count).astype(np.float64)
            spans = intervals(own_map, words, share, lag)
        for (text, a, b), (start, stop) in zip(words, spans):
            sure = float(said[row, a:b].double().mean().exp())
            begin = min(start * STATE_SECONDS, end)
            found[row].append(Word(text, begin, min(max(stop, start) * STATE_SECONDS, end), sure))
    return Timed(found, [float(one[: int(size)].double().mean()) for one, size in zip(said, sizes)])


def smoothed(maps: Tensor, sizes: Tensor, states: Tensor) -> Tensor:
    """Maps (B, S, I, N) of ragged tokens and states -> their mean over heads, normalised over
    tokens and smoothed, float32 (B, I, N), 0 in padding."""
    tokens, n = maps.shape[2:]
    there = (torch.arange(tokens) < sizes[:, None])[:, None, :, None]
    inside = (torch.arange(n) < states[:, None])[:, None, None]
    x = torch.where(there & inside, maps, 0.0)
    x = x / x.sum(-1, keepdim=True).clamp_min(
        1e-9
    )  # what was looked at outside the recording is left out
    count = sizes[:, None, None, None]
    mean = x.sum(2, keepdim=True) / count
    deviation = (torch.where(there, (x - mean).square(), 0.0).sum(2, keepdim=True) / count).sqrt()
    x = torch.where(there & inside, (x - mean) / deviation.clamp_min(1e-9), 0.0)
    return median_filter(x, FILTER, states).mean(1)


def split_by_area(weights: np.ndarray, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """States (first, end) of each word: from the first to the last split, the place that leaves
    most weight in the block before it (this word's tokens) and the one behind (all later tokens).
    What is below the mean counts as -.01."""
    raised = np.where(weights < 0, -0.01, weights)
    n = weights.shape[1]
    found, start = [], 0
    for k, (a, b) in enumerate(spans):
        if k + 1 == len(spans):
            found.append((start, n))
            break
        before = np.concatenate([[0.0], raised[a:b, start:].sum(0).cumsum()])
        behind = raised[b:, start:].sum(0)
        behind = behind.sum() - np.concatenate([[0.0], behind.cumsum()])
        end = start + int(np.argmax(before + behind))
        found.append((start, end))
        start = min(end, n - 1)
    return found


def intervals(
    weights: np.ndarray, words: Sequence[tuple[str, int, int]], share: np.ndarray, lag: int = 0
) -> list[tuple[int, int]]:
    """States (first, end) of each word by "pauses". weights: the smoothed map (I, N); words: (text,
    first token, token after its last); share: how much like speech each state sounds, (N,); lag:
    states by which the map looks late."""
    if not words:
        return []
    n = weights.shape[1]
    late = np.minimum(np.arange(n) + lag, n - 1)
    sound = SOUND * (share - 0.5)
    inside = np.stack([weights[a:b].max(0)[late] + sound for _, a, b in words])
    longest = min(LONGEST, n)
    seconds = np.log(np.arange(1, longest + 1) * STATE_SECONDS)
    usual = np.log([LEAST + LETTER * max(1, sum(map(str.isalnum, text))) for text, _, _ in words])
    length = np.zeros((len(words), longest + 1))
    length[:, 1:] = -LENGTH / 2 * ((seconds - usual[:, None]) / SPREAD) ** 2
    if len(words) > n:  # more words than states: no interval for each
        edges = np.linspace(0, n, len(words) + 1).round().astype(int)
        return list(zip(edges[:-1].tolist(), edges[1:].tolist()))
    return [(int(a), int(b)) for a, b in _intervals(inside, PAUSE - sound, length)]


@numba.njit(cache=True)
def _intervals(inside, between, length):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """The best intervals (W, 2), one behind the other: the sum of `inside` (W, N) in them,
    `between` (N,) elsewhere, and `length` (W, longest + 1) of each."""
    words, n = inside.shape
    longest = length.shape[1] - 1
    quiet = np.zeros(n + 1)
    quiet[1:] = np.cumsum(between)
    # before[k, t]: the best of words up to k and the pause behind them, ending at t; came: the end
    # of word k - 1.
    before = np.full((words + 1, n + 1), -np.inf)
    came = np.zeros((words + 1, n + 1), np.int64)
    begun = np.zeros((words, n + 1), np.int64)
    before[0] = quiet
    for k in range(words):
        loud = np.zeros(n + 1)
        loud[1:] = np.cumsum(inside[k])
        best, place = -np.inf, 0
        for end in range(n + 1):
            score = -np.inf
            for size in range(1, min(longest, end) + 1):
                value = before[k, end - size] + loud[end] - loud[end - size] + length[k, size]
                if value > score:
                    score = value
                    begun[k, end] = end - size
            if score - quiet[end] > best:
                best, place = score - quiet[end], end
            before[k + 1, end] = best + quiet[end]
            came[k + 1, end] = place
    found = np.zeros((words, 2), np.int64)
    end = n
    for k in range(words - 1, -1, -1):
        stop = came[k + 1, end]
        found[k, 0], found[k, 1] = begun[k, stop], stop
        end = begun[k, stop]
    return found


def fitted_lag(
    times: Callable[[int], list[list[Word]]], known: Sequence[Sequence[Word]], most: int = 8
) -> int:
    """The lag, in states, with which `times` gives the smallest mean error of the starts of words
    that are known.
    """
    errors = []
    for lag in range(most + 1):
        found = times(lag)
        each = [
            abs(a.start - b.start)
            for own, true in zip(found, known)
            if len(own) == len(true)
            for a, b in zip(own, true)
        ]
        errors.append(float(np.mean(each)) if each else np.inf)
    return int(np.argmin(errors))
