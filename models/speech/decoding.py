"""Text from states: the likeliest token each time, or the best of several transcripts.

Shapes: B batch, R rows that are being decoded, V vocabulary, K transcripts of a recording that are
kept (beams).

Every recording is decoded as if alone: a batch shares the arithmetic, not the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .speech_to_text import Memory, SpeechToText


@dataclass(frozen=True)
class Transcript:
    """tokens: ids without prompt and end; log_probabilities: of each of them, and of the end if it
    was said; no_speech: probability of the token for no speech at the first place, 0 without such a
    token."""

    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    finished: bool
    no_speech: float = 0.0

    @property
    def mean(self) -> float:
        """Mean log-probability of a token."""
        return sum(self.log_probabilities) / max(1, len(self.log_probabilities))


@dataclass(frozen=True)
class Rules:
    """prompt: what a transcript begins with; end: what ends it; most: tokens at most, None: what
    the positions allow; never, not_first: ids that are not said, or not as the first; no_speech:
    the token for no speech; beams: K, 1 is greedy; length_penalty: a transcript's log-probability
    is divided by its number of tokens to this power."""

    prompt: tuple[int, ...]
    end: int
    most: int | None = None
    never: tuple[int, ...] = ()
    not_first: tuple[int, ...] = ()
    no_speech: int | None = None
    beams: int = 1
    length_penalty: float = 1.0


@torch.no_grad()
def transcribe(
    model: SpeechToText, memory: Memory, rules: Rules, limits: Sequence[int] | None = None
) -> list[Transcript]:
    """A transcript of each of the recordings whose states `memory` holds. limits: most tokens of
    each, besides those of `rules`."""
    rows = _Rows(model, memory, rules)
    most = (
        [rows.steps] * len(rows.said)
        if limits is None
        else [max(1, min(rows.steps, one)) for one in limits]
    )
    return _greedy(rows, rules, most) if rules.beams == 1 else _beam(rows, rules, most)


class _Rows:
    """Transcripts that are being written: what they say, and what the decoder keeps of it."""

    def __init__(self, model: SpeechToText, memory: Memory, rules: Rules) -> None:
        self.decoder, self.memory, self.rules = model.decoder, memory, rules
        count, device = len(memory.states), memory.states.device
        self.said = torch.tensor([rules.prompt] * count, dtype=torch.int64, device=device)
        self.caches = self.decoder.begin(memory) if self.decoder.cached else None
        self.steps = len(self.decoder.positions) - len(rules.prompt)
        self.steps = self.steps if rules.most is None else min(self.steps, rules.most)
        self.no_speech = [0.0] * count
        first = logits = torch.zeros(0)
        if self.caches is not None:
            for place in range(len(rules.prompt)):
                logits = self.decoder.step(self.said[:, place], place, self.caches, memory)
                first = logits if place == 0 else first
        else:
            every = self.decoder(self.said, memory).logits
            first, logits = every[:, 0], every[:, -1]
        if rules.no_speech is not None:
            self.no_speech = first.float().softmax(-1)[:, rules.no_speech].tolist()
        self.logits = logits

    def scores(self) -> Tensor:
        """Log-probabilities (R, V) of the next token."""
        logits = self.logits.float().clone()
        logits[:, list(self.rules.never)] = -torch.inf
        if self.said.shape[1] == len(self.rules.prompt):
            logits[:, list(self.rules.not_first)] = -torch.inf
        return logits.log_softmax(-1)

    def add(self, rows: Tensor, tokens: Tensor) -> None:
        """Go on with these rows, in this order, each with its token."""
        if len(rows) != len(self.said) or not torch.equal(
            rows, torch.arange(len(rows), device=rows.device)
        ):
            self.said = self.said[rows]
            mask = self.memory.mask
            self.memory = Memory(self.memory.states[rows], None if mask is None else mask[rows])
            for cache in self.caches or ():
                cache.select(rows)
        self.said = torch.cat([self.said, tokens[:, None]], 1)
        if self.caches is None:
            self.logits = self.decoder(self.said, self.memory).logits[:, -1]
        else:
            self.logits = self.decoder.step(
                tokens, self.said.shape[1] - 1, self.caches, self.memory
            )


def _greedy(rows: _Rows, rules: Rules, most: Sequence[int]) -> list[Transcript]:
    count = len(rows.said)
    said: list[list[int]] = [[] for _ in range(count)]
    scored: list[list[float]] = [[] for _ in range(count)]
    finished = [False] * count
    alive = list(range(count))
    for step in range(rows.steps):
        value, token = rows.scores().max(-1)
        going = []
        for place, (number, score, one) in enumerate(zip(alive, value.tolist(), token.tolist())):
            scored[number].append(score)
            if one == rules.end:
                finished[number] = True
            else:
                said[number].append(one)
                if step + 1 < most[number]:
                    going.append(place)
        if not going:
            break
        kept = torch.tensor(going, device=token.device)
        rows.add(kept, token[kept])
        alive = [alive[place] for place in going]
    return [
        Transcript(tuple(said[n]), tuple(scored[n]), finished[n], rows.no_speech[n])
        for n in range(count)
    ]


def _beam(rows: _Rows, rules: Rules, most: Sequence[int]) -> list[Transcript]:
    """Of the 2 K likeliest next steps those that end are put aside, K others go on; a recording is
    done when K have ended."""
    count, size, start = len(rows.said), rules.beams, len(rules.prompt)
    ended: list[list[Transcript]] = [[] for _ in range(count)]
    alive = list(range(count))  # recordings; their rows stand together
    totals = rows.logits.new_zeros((count, 1), dtype=torch.float64)
    scored: list[list[float]] = [[] for _ in range(count)]  # by row
    quality: Callable[[Transcript], float] = lambda one: (  # noqa: E731
        sum(one.log_probabilities) / max(1, len(one.log_probabilities)) ** rules.length_penalty
    )
    for step in range(rows.steps):
        scores = rows.scores().double()
        width = totals.shape[1]  # rows of a recording: 1 at first
        every = (totals.reshape(-1, 1) + scores).view(len(alive), -1)
        best, place = every.topk(min(2 * size, every.shape[1]), -1)
        kept_rows, kept_tokens, kept_totals, kept_scores, going = [], [], [], [], []
        for k, number in enumerate(alive):
            mine = []
            for total, spot in zip(best[k].tolist(), place[k].tolist()):
                row, token = k * width + spot // scores.shape[1], spot % scores.shape[1]
                if total == -torch.inf or len(mine) == size:
                    continue
                each = [*scored[row], float(scores[row, token])]
                if token == rules.end:
                    ids = tuple(rows.said[row, start:].tolist())
                    ended[number].append(Transcript(ids, tuple(each), True, rows.no_speech[number]))
                else:
                    mine.append((row, token, total, each))
            last = step + 1 == most[number]
            if len(ended[number]) >= size or not mine or last:
                for row, token, _, each in mine if last and not ended[number] else []:
                    ids = (*rows.said[row, start:].tolist(), token)
                    ended[number].append(
                        Transcript(ids, tuple(each), False, rows.no_speech[number])
                    )
                continue
            mine += [mine[-1]] * (size - len(mine)) if len(mine) < size else []
            going.append(number)
            for row, token, total, each in mine:
                kept_rows.append(row)
                kept_tokens.append(token)
                kept_totals.append(total)
                kept_scores.append(each)
        if not going:
            break
        device = scores.device
        rows.add(torch.tensor(kept_rows, device=device), torch.tensor(kept_tokens, device=device))
        totals = torch.tensor(kept_totals, dtype=torch.float64, device=device).view(
            len(going), size
        )
        scored, alive = kept_scores, going
    return [max(found, key=quality) if found else Transcript((), (), False) for found in ended]
