"""What claims about language models share: the model, prompts over Python's own documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from headwise.models.language.analysis.needle import NeedleScores
    from headwise.models.language.opening import OpenedLanguageModel

DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
TEST_SEED = 1000  # of prompts that are scored
HALVES = {"train": 0, "test": 1}  # of the documentation


class Asked(NamedTuple):
    """A prompt and its answer as tokens."""

    prompt: list[int]
    answer: list[int]


def open_model(name: str) -> OpenedLanguageModel:
    """A model of the catalogue, or of a folder."""
    from headwise.pipelines.engine.language_models import open_language_model

    return open_language_model(name, option="--model")


def coded(opened: OpenedLanguageModel, text: str) -> list[int]:
    """The tokens of a text, without special ones."""
    return opened.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def documents(part: str) -> list[str]:
    """Python's documentation of its topics: one half for each part."""
    from pydoc_data.topics import topics

    names = sorted(topics)
    half, middle = HALVES[part], len(names) // 2
    return [topics[name] for name in (names[:middle], names[middle:])[half]]


def asked_prompts(
    opened: OpenedLanguageModel,
    part: str,
    kinds: Sequence[str],
    *,
    count: int,
    length: int,
    seed: int,
) -> list[Asked]:
    """Generated prompts of about `length` tokens, with their answers; see `generate_prompts`."""
    from headwise.data.prompts.generate import filler_of, generate_prompts

    def measure(text: str) -> int:
        return len(coded(opened, text))

    prompts = generate_prompts(
        filler_of(documents(part), measure),
        measure,
        kinds=kinds,
        lengths=(length,),
        depths=DEPTHS,
        count=count,
        seed=seed,
    )
    return [Asked(coded(opened, p.text), coded(opened, p.answer)) for p in prompts]


def plain_texts(
    opened: OpenedLanguageModel, part: str, *, count: int, length: int, continued: int, seed: int
) -> list[Asked]:
    """Pieces of the documentation of `length` tokens; the last `continued` are the answer."""
    tokens = [token for text in documents(part) for token in coded(opened, text)]
    dice = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, len(tokens) - length, (count,), generator=dice).tolist()
    cut = length - continued
    return [Asked(tokens[i : i + cut], tokens[i + cut : i + length]) for i in starts]


def batch_of(rows: Sequence[Asked]) -> tuple[Tensor, Tensor, Tensor]:
    """ids int64 (B, N), mask and answer bool (B, N), padded on the left."""
    longest = max(len(row.prompt) + len(row.answer) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask, answer = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    for number, (prompt, end) in enumerate(rows):
        begin = longest - len(prompt) - len(end)
        ids[number, begin:] = torch.tensor(prompt + end)
        mask[number, begin:] = True
        answer[number, longest - len(end) :] = True
    return ids, mask, answer


def batches(
    rows: Sequence[Asked], size: int, steps: int, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """As many batches as steps, of rows in random order, each row once before any comes again."""
    dice, waiting = torch.Generator().manual_seed(seed), list[int]()
    for _ in range(steps):
        while len(waiting) < size:
            waiting += torch.randperm(len(rows), generator=dice).tolist()
        chosen, waiting = waiting[:size], waiting[size:]
        yield batch_of([rows[index] for index in chosen])


def needle_scores_of(opened: OpenedLanguageModel, rows: Sequence[Asked]) -> NeedleScores:
    """How much heads attend to what is asked for, over prompts that hold their answers."""
    from headwise.models.language.analysis.needle import NeedlePrompt, NeedleScores, needle_scores

    scores = NeedleScores.of(opened.facts)
    for prompt, answer in rows:
        try:
            asked = NeedlePrompt.of(prompt, answer)
        except ValueError:  # another tokenisation at its place
            continue
        scores.add(needle_scores(opened.model, [asked]))
    return scores
