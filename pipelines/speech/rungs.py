"""The rungs of speech: the text that is right most often, whatever is said, and the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import nn

from ...models.speech.same_text import SameText
from ...models.speech.speech_to_text import SpeechToText
from ..engine.ladder import LadderScores, Rung, Rungs, drawn_scores
from ..engine.options import RungName
from ..engine.pipeline import Context, Splits
from ..metrics.alignment import Errors, text_errors
from .data import Recordings, SpeechSpec
from .options import SpeechOptions
from .scoring import MOST_CANDIDATES, best_same_text, groups_of, texts_of
from .transcriber import Transcriber

SHOWN = 40  # characters of the text in the words of the rung


class SpeechRungs(Rungs[SpeechOptions, SpeechSpec, Recordings]):
    """One text for all, beside a model that was trained from scratch."""

    def answer_words(self, options: SpeechOptions, spec: SpeechSpec) -> str:
        """What is heard."""
        return "text of a recording"

    def model_words(self, options: SpeechOptions) -> str:
        """The name of the model."""
        return "the speech model"

    def simple(
        self,
        model: nn.Module,
        splits: Splits[SpeechSpec, Recordings],
        options: SpeechOptions,
        device: torch.device,
    ) -> dict[RungName, Rung]:
        """The text of the training part with the fewest word errors, if it is written for all."""
        if not len(splits.validation):
            return {}
        tokens = splits.train.tokens
        text = best_text([utterance.text or "" for utterance in splits.train.utterances])
        naive = SameText(cast(SpeechToText, model))
        naive.write(tokens.prompt, tokens.encode(text), tokens.end)
        shown = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
        return {"naive": Rung(f'the same text for all ("{shown}")', naive, short="the same text")}

    def empty(
        self,
        name: RungName,
        facts: Mapping[str, object],
        models: Mapping[RungName, nn.Module],
        spec: SpeechSpec,
    ) -> nn.Module:
        """The same text for all, around the model."""
        if name != "naive":
            raise ValueError(f"speech has no {name} model")
        return SameText(cast(SpeechToText, models["model"]))

    def scores(
        self,
        models: Mapping[RungName, nn.Module],
        dataset: Recordings,
        context: Context[SpeechOptions, SpeechSpec],
    ) -> LadderScores:
        """Word error rates, with draws of speakers."""
        true_texts = [utterance.text or "" for utterance in dataset.utterances]
        transcriber = Transcriber(
            cast(SpeechToText, models["model"]), dataset.tokens, context.spec, 0, context.device
        )
        errors: dict[RungName, Errors] = {}
        for name, model in models.items():
            of_rung = replace(transcriber, model=cast(SpeechToText, model))
            errors[name] = text_errors(texts_of(of_rung, dataset), true_texts)
        return drawn_scores(
            "word error rate",
            {name: rung.rate for name, rung in errors.items()},
            {name: rung.rates for name, rung in errors.items()},
            groups_of(dataset),
        )


def best_text(true_texts: list[str]) -> str:
    """The text with the fewest word errors if it is written for all of these: one of the commonest,
    or nothing.
    """
    common = [text for text, _ in Counter(true_texts).most_common(MOST_CANDIDATES)]
    return best_same_text(true_texts, [*common, ""])[0]
