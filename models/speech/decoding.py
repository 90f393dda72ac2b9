"""Text from states: the likeliest token each time, or the best of several transcripts.

Shapes: B recordings of a batch, R rows that are being decoded, V vocabulary, K transcripts of a
recording that are followed at a time (beams).

Every recording is decoded as if alone: a batch shares the arithmetic, not the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .speech_to_text import Memory, SpeechToText


@dataclass(frozen=True)
class Transcript:
    """The tokens that a model writes for a recording."""

    tokens: tuple[int, ...]
    """Without prompt and end."""
    log_probabilities: tuple[float, ...]
    """Of each token, and of the end if the transcript is finished."""
    finished: bool
    no_speech: float = 0.0
    """Probability of the token for no speech at the first place; 0 without such a token."""

    @property
    def mean(self) -> float:
        """Mean log-probability of a token."""
        return sum(self.log_probabilities) / max(1, len(self.log_probabilities))


@dataclass(frozen=True)
class Rules:
    """What transcripts look like, and how they are searched for."""

    prompt: tuple[int, ...]
    """Tokens that each transcript begins with."""
    end: int
    """The token that ends it."""
    most: int | None = None
    """Most tokens; None: as many as there are positions."""
    never: tuple[int, ...] = ()
    """Tokens that are never written."""
    not_first: tuple[int, ...] = ()
    """Tokens that are not written first."""
    no_speech: int | None = None
    """The token for no speech."""
    beams: int = 1
    """K; 1 is greedy."""
    length_penalty: float = 1.0
    """A transcript's log-probability is divided by its number of tokens to this power."""

    def quality(self, transcript: Transcript) -> float:
        """What the best transcript has most of."""
        length = max(1, len(transcript.log_probabilities))
        return sum(transcript.log_probabilities) / length**self.length_penalty


@torch.no_grad()
def transcribe(
    model: SpeechToText, memory: Memory, rules: Rules, limits: Sequence[int] | None = None
) -> list[Transcript]:
    """A transcript of each of the recordings whose states `memory` holds.

    limits: most tokens of each, in addition to that of `rules`.
    """
    rows = _Rows(model, memory, rules)
    most = [rows.steps] * len(rows.tokens)
    if limits is not None:
        most = [max(1, min(rows.steps, limit)) for limit in limits]
    return _greedy(rows, rules, most) if rules.beams == 1 else _beam(rows, rules, most)


class _Rows:
    """Transcripts that are being written: their tokens, (R, tokens so far), and what the decoder
    remembers of them.
    """

    def __init__(self, model: SpeechToText, memory: Memory, rules: Rules) -> None:
        self.decoder, self.memory, self.rules = model.decoder, memory, rules
        count, device = len(memory.states), memory.states.device
        self.tokens = torch.tensor([rules.prompt] * count, dtype=torch.int64, device=device)
        self.caches = self.decoder.begin(memory) if self.decoder.cached else None
        self.steps = len(self.decoder.positions) - len(rules.prompt)
        self.steps = self.steps if rules.most is None else min(self.steps, rules.most)
        self.no_speech = [0.0] * count
        first = logits = torch.zeros(0)
        if self.caches is not None:
            for place in range(len(rules.prompt)):
                logits = self.decoder.step(self.tokens[:, place], place, self.caches, memory)
                first = logits if place == 0 else first
        else:
            prompt_logits = self.decoder(self.tokens, memory).logits
            first, logits = prompt_logits[:, 0], prompt_logits[:, -1]
        if rules.no_speech is not None:
            self.no_speech = first.float().softmax(-1)[:, rules.no_speech].tolist()
        self.logits = logits

    def scores(self) -> Tensor:
        """Log-probabilities (R, V) of the next token."""
        logits = self.logits.float().clone()
        logits[:, list(self.rules.never)] = -torch.inf
        if self.tokens.shape[1] == len(self.rules.prompt):
            logits[:, list(self.rules.not_first)] = -torch.inf
        return logits.log_softmax(-1)

    def written(self, row: int) -> list[int]:
        """The tokens of a row after the prompt."""
        return self.tokens[row, len(self.rules.prompt) :].tolist()

    def add(self, rows: Tensor, tokens: Tensor) -> None:
        """Continue with these rows, in this order, each with its token."""
        unchanged = len(rows) == len(self.tokens) and torch.equal(
            rows, torch.arange(len(rows), device=rows.device)
        )
        if not unchanged:
            self.tokens = self.tokens[rows]
            mask = self.memory.mask
            self.memory = Memory(self.memory.states[rows], None if mask is None else mask[rows])
            for cache in self.caches or ():
                cache.select(rows)
        place = self.tokens.shape[1]
        self.tokens = torch.cat([self.tokens, tokens[:, None]], 1)
        if self.caches is None:
            self.logits = self.decoder(self.tokens, self.memory).logits[:, -1]
        else:
            self.logits = self.decoder.step(tokens, place, self.caches, self.memory)


def _greedy(rows: _Rows, rules: Rules, most: Sequence[int]) -> list[Transcript]:
    count = len(rows.tokens)
    texts: list[list[int]] = [[] for _ in range(count)]
    scores: list[list[float]] = [[] for _ in range(count)]
    finished = [False] * count
    active = list(range(count))  # the recording of each row
    for step in range(rows.steps):
        best, token = rows.scores().max(-1)
        continued = []  # rows
        for row, (number, score, next_token) in enumerate(
            zip(active, best.tolist(), token.tolist(), strict=True)
        ):
            scores[number].append(score)
            if next_token == rules.end:
                finished[number] = True
            else:
                texts[number].append(next_token)
                if step + 1 < most[number]:
                    continued.append(row)
        if not continued:
            break
        chosen = torch.tensor(continued, device=token.device)
        rows.add(chosen, token[chosen])
        active = [active[row] for row in continued]
    return [
        Transcript(tuple(texts[n]), tuple(scores[n]), finished[n], rows.no_speech[n])
        for n in range(count)
    ]


class _Candidate(NamedTuple):
    """A row with its next token. total: log-probability of all its tokens; scores: of each."""

    row: int
    token: int
    total: float
    scores: list[float]


def _beam(rows: _Rows, rules: Rules, most: Sequence[int]) -> list[Transcript]:
    """Of the 2 K likeliest next steps those that end are put aside, K others go on; a recording is
    done when K have ended.
    """
    count, size = len(rows.tokens), rules.beams
    ended: list[list[Transcript]] = [[] for _ in range(count)]
    active = list(range(count))  # recordings; their rows are next to each other
    totals = rows.logits.new_zeros((count, 1), dtype=torch.float64)
    written: list[list[float]] = [[] for _ in range(count)]  # log-probabilities by row
    for step in range(rows.steps):
        scores = rows.scores().double()
        width, vocabulary = totals.shape[1], scores.shape[1]  # width: rows of a recording, first 1
        sums = (totals.reshape(-1, 1) + scores).view(len(active), -1)
        best, place = sums.topk(min(2 * size, sums.shape[1]), -1)
        continued, going = list[_Candidate](), list[int]()
        for k, number in enumerate(active):
            candidates: list[_Candidate] = []
            for total, flat in zip(best[k].tolist(), place[k].tolist(), strict=True):
                row, token = k * width + flat // vocabulary, flat % vocabulary
                if total == -torch.inf or len(candidates) == size:
                    continue
                row_scores = [*written[row], float(scores[row, token])]
                if token == rules.end:
                    ids = tuple(rows.written(row))
                    no_speech = rows.no_speech[number]
                    ended[number].append(Transcript(ids, tuple(row_scores), True, no_speech))
                else:
                    candidates.append(_Candidate(row, token, total, row_scores))
            last = step + 1 == most[number]
            if len(ended[number]) >= size or not candidates or last:
                for row, token, _, row_scores in candidates if last and not ended[number] else []:
                    ids = (*rows.written(row), token)
                    no_speech = rows.no_speech[number]
                    ended[number].append(Transcript(ids, tuple(row_scores), False, no_speech))
                continue
            continued += candidates + [candidates[-1]] * (size - len(candidates))
            going.append(number)
        if not going:
            break
        device = scores.device
        rows.add(
            torch.tensor([candidate.row for candidate in continued], device=device),
            torch.tensor([candidate.token for candidate in continued], device=device),
        )
        totals = totals.new_tensor([candidate.total for candidate in continued])
        totals = totals.view(len(going), size)
        written, active = [candidate.scores for candidate in continued], going
    return [
        max(transcripts, key=rules.quality) if transcripts else Transcript((), (), False)
        for transcripts in ended
    ]
