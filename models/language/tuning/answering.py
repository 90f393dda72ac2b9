"""Answers of a causal language model: greedy, several prompts at once.

Shapes: B prompts, N tokens, V words.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..answers import end_of, left_padded
from .tuned import LanguageModel

if TYPE_CHECKING:
    from transformers.generation.utils import GenerateDecoderOnlyOutput


@dataclass(frozen=True)
class Answer:
    """tokens: of the answer, without its end; finished: whether the model ended it by itself;
    log_probability: mean over the tokens, with its end.
    """

    tokens: list[int]
    finished: bool
    log_probability: float


@torch.inference_mode()
def answer_prompts(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int,
    ends: Collection[int],
    padding: int,
) -> list[Answer]:
    """An answer of at most `new_tokens` tokens for each prompt.

    prompts: tokens, at least one each; ends: tokens that end an answer; padding: any token.

    Raises ValueError for an empty prompt, and for one that leaves no room within the positions of
    the model.
    """
    from transformers import GenerationConfig

    texts = [model.prompt(tokens) for tokens in prompts]
    positions = getattr(model.base.config.get_text_config(), "max_position_embeddings", None)
    for text in texts:
        if not text:
            raise ValueError("the prompt is empty")
        if positions is not None and len(text) + new_tokens > positions:
            raise ValueError(
                f"a prompt of {len(text):,} tokens and {new_tokens:,} new ones do not fit the "
                f"{positions:,} positions of the model; shorten it, or give fewer --new-tokens"
            )
    tokens, mask = left_padded(texts, padding)
    length, device = tokens.shape[1], next(model.base.parameters()).device
    settings = GenerationConfig(
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=sorted(ends) or None,
        pad_token_id=padding,
        return_dict_in_generate=True,
        output_logits=True,
    )
    output: GenerateDecoderOnlyOutput = model.base.generate(  # type: ignore[operator]
        tokens.to(device), attention_mask=mask.to(device), generation_config=settings
    )
    assert output.logits is not None
    new = output.sequences[:, length:].cpu()
    chosen = [
        step.float().log_softmax(-1).gather(1, new[:, k : k + 1].to(step.device))
        for k, step in enumerate(output.logits)
    ]
    return [_answer(row, logs, ends) for row, logs in zip(new, torch.cat(chosen, 1).cpu())]


def _answer(new: Tensor, logs: Tensor, ends: Collection[int]) -> Answer:
    tokens = new.tolist()
    end = end_of(tokens, ends)
    return Answer(tokens[:end], end < len(tokens), float(logs[: end + 1].mean()))
