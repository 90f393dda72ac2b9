"""The rungs of fine-tuning: the model as it came, and the tuned one.

Shapes: n rows, P tokens of examples.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ...models.language.tuning.tuned import LanguageModel, ModelAsItCame
from ..engine.ladder import LadderScores, Rung, Rungs, drawn_scores
from ..engine.options import RungName
from ..engine.pipeline import Context, Splits
from .data import TunePart, base_of
from .options import FinetuneOptions
from .scoring import answers_of, is_exact, row_losses, without_prefix
from .spec import TuneSpec

METHODS = {
    "cofitune": "the tuned model",
    "full": "the model with all weights tuned",
    "lora": "the model with updates of low rank",
    "moe-lora": "the model with routed updates of low rank",
}


class FinetuneRungs(Rungs[FinetuneOptions, TuneSpec, TunePart]):
    """The model as it came, with or without examples before the prompt, and the tuned one."""

    def answer_words(self, options: FinetuneOptions, spec: TuneSpec) -> str:
        """What is predicted."""
        return "answers"

    def model_words(self, options: FinetuneOptions) -> str:
        """The name of the model."""
        return METHODS[options.method]

    def simple(
        self,
        model: nn.Module,
        splits: Splits[TuneSpec, TunePart],
        options: FinetuneOptions,
        device: torch.device,
    ) -> dict[RungName, Rung]:
        """The model as it came; it sees examples where that is better on the validation part."""
        came = as_it_came(splits.spec)
        shown = examples(splits.train, options.shots, room_of(came, splits))
        best, words = came, "the model as it came"
        if len(shown):
            with_examples = ModelAsItCame(came.base, shown)
            part = splits.validation
            plain, better = (
                row_losses(m, part.coded, device, padding=part.coder.padding).mean
                for m in (came, with_examples)
            )
            if better < plain:
                best, words = with_examples, f"{words}, with {options.shots} examples in the prompt"
        facts = {"tokens": len(best.prefix)}
        return {"naive": Rung(words, best, facts, short="the model as it came")}

    def empty(
        self,
        name: RungName,
        facts: Mapping[str, object],
        models: Mapping[RungName, nn.Module],
        spec: TuneSpec,
    ) -> nn.Module:
        """The model as it came; its examples are read from the run."""
        tokens = facts["tokens"]
        if not isinstance(tokens, int):
            raise TypeError(f"tokens is {tokens!r}")
        return as_it_came(spec, torch.zeros(tokens, dtype=torch.int64))

    def scores(
        self,
        models: Mapping[RungName, nn.Module],
        dataset: TunePart,
        context: Context[FinetuneOptions, TuneSpec],
    ) -> LadderScores:
        """Nats a token of the answers, with draws of groups; beside it the share of exact answers
        and the loss of general texts.
        """
        options, device, padding = context.options, context.device, dataset.coder.padding
        losses = {
            name: row_losses(plain(model), dataset.coded, device, padding=padding)
            for name, model in models.items()
        }
        further: dict[str, dict[RungName, float]] = {}
        for name, model in models.items():
            for texts in dataset.general:
                of_texts = row_losses(
                    without_prefix(plain(model)), texts.rows, device, padding=padding
                )
                further.setdefault(f"loss of {texts.name}", {})[name] = of_texts.mean
            if options.answers and not dataset.watched:  # generating takes long
                count = min(options.answers, dataset.count)
                written = answers_of(plain(model), dataset, count, options.new_tokens, device)
                expected = [dialogue.answer for dialogue in dataset.dialogues[:count]]
                right = sum(map(is_exact, written, expected)) / count
                further.setdefault("exact answers", {})[name] = right
        return drawn_scores(
            "loss",
            {name: values.mean for name, values in losses.items()},
            {name: values.drawn for name, values in losses.items()},
            dataset.groups,
            further=further,
        )


def plain(model: nn.Module) -> LanguageModel:
    """A rung as the language model that it is."""
    assert isinstance(model, LanguageModel)
    return model


def as_it_came(spec: TuneSpec, prefix: torch.Tensor | None = None) -> ModelAsItCame:
    """The model that was tuned, before that."""
    opened = base_of(spec)
    return ModelAsItCame(opened.model, prefix).eval()


def room_of(came: ModelAsItCame, splits: Splits[TuneSpec, TunePart]) -> int:
    """Tokens that are free before the longest row."""
    positions = came.base.config.get_text_config().max_position_embeddings
    longest = max(len(r) for part in (splits.validation, splits.train) for r in part.coded)
    return int(positions) - longest - 1


def examples(part: TunePart, count: int, room: int) -> torch.Tensor:
    """Tokens of rows of the training part of middle length; none where they do not fit. int64
    (P,).
    """
    order = np.argsort([len(row) for row in part.coded], kind="stable")
    middle = order[len(order) // 4 : len(order) // 4 + count]
    tokens = [part.coded[k].tokens for k in middle.tolist()]
    joined = np.concatenate(tokens) if tokens else np.zeros(0, np.int64)
    return torch.from_numpy(joined if len(joined) <= room // 2 else joined[:0])
