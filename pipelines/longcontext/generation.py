"""Writing on after prompts with a cut cache: in batches, on a stored cache, after a second
question.

Shapes: B prompts of a batch, N tokens of the longest.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ...models.language.answers import end_of, left_padded
from ...models.language.plans.facts import ModelFacts
from ..engine.training.order import mix
from .coding import Coder

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

    from ...models.language.running.attach import Attached


@dataclass(frozen=True)
class Writing:
    """How an answer is written. limit: of its tokens; sample: whether tokens are drawn, with this
    temperature and seed; end, pad: tokens.
    """

    limit: int
    sample: bool
    temperature: float
    seed: int
    end: frozenset[int]
    pad: int

    def generator(self, number: int) -> torch.Generator:
        """Of the draws for a prompt, whatever others are in its batch."""
        return torch.Generator().manual_seed(mix(self.seed, number, 7))


class Written(NamedTuple):
    """Answers to a prompt; second is None where there is no second question. tokens: of both;
    length: tokens of all that was read and written.
    """

    first: str
    second: str | None
    tokens: int
    length: int


def write_batch(
    model: PreTrainedModel,
    attached: Attached,
    coder: Coder,
    prompts: Sequence[tuple[int, ...]],
    writing: Writing,
) -> list[Written]:
    """Answers to prompts of a batch, the most probable token each time."""
    ids, mask = left_padded(prompts, writing.pad)
    out = model.generate(  # pyright: ignore[reportCallIssue]
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        cache=attached.cache(),
        max_new_tokens=writing.limit,
        do_sample=False,
        num_beams=1,
        pad_token_id=writing.pad,
        eos_token_id=sorted(writing.end) or None,
        **_NO_SAMPLING,
    )
    assert isinstance(out, Tensor)
    written = [row.tolist() for row in out[:, ids.shape[1] :]]
    rows = [row[: end_of(row, writing.end)] for row in written]
    return [
        Written(coder.text(row), None, len(row), len(prompt) + len(row))
        for prompt, row in zip(prompts, rows, strict=True)
    ]


_NO_SAMPLING = {"temperature": None, "top_p": None, "top_k": None}


def write_alone(
    model: PreTrainedModel,
    attached: Attached,
    coder: Coder,
    prompt: tuple[int, ...],
    question2: str,
    writing: Writing,
    *,
    number: int = 0,
    cache: Cache | None = None,
) -> Written:
    """Answers to a prompt and, where there is one, to a second question on the same cache.

    number: of the prompt, by which it draws; cache: of a context that was read before; it stays as
    it is.
    """
    held = attached.cache() if cache is None else copy.deepcopy(cache)
    generator, length = writing.generator(number), held.get_seq_length() + len(prompt)
    first = _write(model, held, prompt, writing, generator)
    length += len(first)
    if not question2.strip():
        return Written(coder.text(first), None, len(first), length)
    # The last token of the first answer may have been written and not read yet.
    asked = coder.code_on(question2)
    unread = first[len(first) - (length - held.get_seq_length()) :]
    second = _write(model, held, (*unread, *asked), writing, generator)
    length += len(asked) + len(second)
    return Written(coder.text(first), coder.text(second), len(first) + len(second), length)


def _write(
    model: PreTrainedModel,
    cache: Cache,
    ids: Sequence[int],
    writing: Writing,
    generator: torch.Generator,
) -> list[int]:
    """Read tokens on a cache, then write; the last token that is written is not read."""
    step, written = torch.tensor([list(ids)], device=model.device), list[int]()
    while True:
        logits = model(input_ids=step, cache=cache, use_cache=True, logits_to_keep=1).logits[0, -1]
        token = _choose(logits, writing, generator)
        if token in writing.end:
            return written
        written.append(token)
        if len(written) == writing.limit:
            return written
        step = torch.tensor([[token]], device=model.device)


def _choose(logits: Tensor, writing: Writing, generator: torch.Generator) -> int:
    if not writing.sample:
        return int(logits.argmax())
    chances = (logits.float() / writing.temperature).softmax(-1).cpu()
    return int(torch.multinomial(chances, 1, generator=generator))


def full_bytes(facts: ModelFacts, length: int, size: int) -> int:
    """Bytes of the model's own cache at a length in tokens; size: bytes of a number."""
    held = sum(min(window or length, length) for window in facts.windows)
    return 2 * held * facts.kv_heads * facts.head_width * size
