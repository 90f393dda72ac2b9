"""A model with what it needs to turn sound into text and word times.

Shapes: B recordings of a batch, F mel bands, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ...base.errors import InputError
from ...data.speech.log_mel import log_mel
from ...data.speech.tokens import TextTokens
from ...models.speech.decoding import Rules, Transcript, transcribe
from ...models.speech.speech_to_text import Memory, SpeechToText
from ..engine.pipeline import Context
from .data import SpeechSpec, pad_features, tokens_of_run
from .options import Times
from .word_times import TimedTexts, word_times


@dataclass(frozen=True)
class Transcriber:
    """A model, its tokens, and the spec and lag of its run."""

    model: SpeechToText
    tokens: TextTokens
    spec: SpeechSpec
    lag: int
    """States by which its attention looks late."""
    device: torch.device

    @classmethod
    def of_run(cls, model: nn.Module, context: Context[object, SpeechSpec]) -> Transcriber:
        """With the tokens that the run has stored."""
        spec, lag = context.spec, int(context.calibration["lag"])
        return cls(cast(SpeechToText, model), tokens_of_run(spec), spec, lag, context.device)

    @property
    def window_seconds(self) -> float:
        """Length of the pieces that longer recordings are cut into: at most what the model was
        trained on.
        """
        longest = self.spec.longest_seconds
        trained = self.spec.trained_seconds
        return min(longest, max(1.0, longest if trained is None else trained))

    @property
    def most_text_tokens(self) -> int:
        """Tokens that a text may have, besides the prompt."""
        return len(self.model.decoder.positions) - len(self.tokens.prompt)

    @property
    def alignment_heads(self) -> list[tuple[int, int]]:
        """(layer, head) that word times are read from: those that the publisher of the weights
        chose, or all of the later half of the decoder.
        """
        if self.spec.alignment_heads:
            return [(int(layer), int(head)) for layer, head in self.spec.alignment_heads]
        layers = len(self.model.decoder.layers)
        heads = range(self.model.decoder.heads)
        return [(layer, head) for layer in range(layers // 2, layers) for head in heads]

    def features(self, sounds: Sequence[np.ndarray]) -> tuple[Tensor, Tensor | None]:
        """Features (B, F, T) of samples and their lengths (B,); None where all frames count, since
        each is filled up to the model's window.
        """
        frames = 2 * self.spec.audio_positions if self.spec.whole_window else None
        features, lengths = pad_features(
            [log_mel(samples, self.spec.features, frames) for samples in sounds]
        )
        return features.to(self.device), None if frames else lengths.to(self.device)

    def text_ids(self, text: str) -> tuple[int, ...]:
        """Tokens of a known text; in the vocabularies of Whisper it begins with a space."""
        whisper = len(self.tokens.prompt) > 1 or self.tokens.languages
        return tuple(self.tokens.encode(f" {text}" if whisper else text))

    @torch.no_grad()
    def encode(self, features: Tensor, lengths: Tensor | None = None) -> Memory:
        """The states that the decoder attends to."""
        lengths = None if lengths is None else lengths.to(self.device)
        return self.model.encode(features.to(self.device), lengths)

    def search_rules(self, beams: int = 1) -> Rules:
        """How transcripts are searched for; those of Whisper have at most half as many tokens as
        there are positions.
        """
        spec = self.spec
        most = spec.text_positions // 2 if spec.whole_window else None
        never, not_first = tuple(spec.never), tuple(spec.not_first)
        prompt, end = self.tokens.prompt, self.tokens.end
        return Rules(prompt, end, most, never, not_first, spec.no_speech, beams)

    def transcripts(
        self, memory: Memory, seconds: Sequence[float], beams: int = 1
    ) -> list[Transcript]:
        """The text of recordings of these lengths: at most half as many tokens again as the fastest
        speaker of the training would say in that time.
        """
        rate = self.spec.tokens_per_second
        limits = None if rate is None else [10 + round(1.5 * rate * length) for length in seconds]
        return transcribe(self.model, memory, self.search_rules(beams), limits)

    def greedy_ids(self, features: Tensor, seconds: float) -> tuple[int, ...]:
        """Tokens of the transcript of a recording; features: (1, F, T), which all count."""
        return self.transcripts(self.encode(features), [seconds])[0].tokens

    def times(
        self,
        memory: Memory,
        ids: Sequence[Sequence[int]],
        sounds: Sequence[np.ndarray],
        method: Times = "pauses",
    ) -> TimedTexts:
        """The words of texts with their times. Raises `InputError` where the cross-attention has no
        weights.
        """
        try:
            return word_times(
                self.model,
                memory,
                self.tokens,
                ids,
                sounds,
                method=method,
                lag=self.lag,
                heads=self.alignment_heads,
            )
        except ValueError as error:
            if "no attention weights" in str(error):
                raise InputError(
                    f"word times need a cross-attention with weights ({error})"
                ) from None
            raise
