"""Speech to text: transcripts and word times.

The six answers of the task; recordings are read in `corpus`, new ones heard in `infer`, words timed
in `word_times`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...base.errors import InputError
from ..engine.command_line import python_verb
from ..engine.task import Item, Review, Splits, Task, Verb
from .options import (
    AdoptOptions,
    CompareOptions,
    DigitsOptions,
    ExplainOptions,
    SpeechOptions,
    SpeechPredictOptions,
)

if TYPE_CHECKING:
    import polars as pl
    import torch
    from torch import nn


class Speech(Task[SpeechOptions]):
    """Speech to text."""

    name = "speech"
    summary = "transcribe recordings, with the times of words"
    options = SpeechOptions
    predict_options = SpeechPredictOptions
    monitor = "loss"
    intended_use = (
        "Transcripts of recordings like those it was trained on. Word times are read from cross-attention, which shows "
        "only a part of what the model used. Not for evidence against anyone."
    )
    verbs: ClassVar[Mapping[str, Verb]] = {
        "adopt": Verb(
            AdoptOptions,
            "headwise.pipelines.speech.verbs.adopt:adopt",
            "a run of Whisper's weights, untrained",
        ),
        "digits": Verb(
            DigitsOptions,
            "headwise.pipelines.speech.verbs.digits:digits",
            "strings of recorded digits, exactly timed",
        ),
        "explain": Verb(
            ExplainOptions,
            "headwise.pipelines.speech.verbs.explain:explain",
            "what the model used for each token",
        ),
        "compare": Verb(
            CompareOptions,
            "headwise.pipelines.speech.verbs.compare:compare",
            "cross-attention beside saliency",
        ),
    }

    def check(self, options: Any) -> None:
        """Values that no data can make right."""
        from .checks import check

        check(options)

    def write_sample(self, folder: Path) -> Path:
        """Generated tones in place of digits, with exact word times."""
        from ...data.speech.generate import write_sample_speech

        return write_sample_speech(folder)

    def open(
        self, options: SpeechOptions, spec: dict[str, Any] | None = None, *, whole: bool = False
    ) -> Splits:
        """Read the list of recordings, make or read tokens, split by speaker."""
        from .data import open_splits

        return open_splits(options, spec, whole)

    def build(self, options: SpeechOptions, spec: dict[str, Any]) -> nn.Module:
        """Encoder and decoder."""
        from .build import build

        return build(options, spec)

    def warm_start(self, model: nn.Module, options: SpeechOptions, spec: dict[str, Any]) -> None:
        """Weights of Whisper."""
        from .build import warm_start

        warm_start(model, options)

    def loss(
        self, model: nn.Module, batch: dict[str, torch.Tensor], options: SpeechOptions
    ) -> torch.Tensor:
        """Cross-entropy of the tokens, and connectionist temporal classification of the encoder."""
        from .scoring import loss

        return loss(model, batch, options)

    def validate(self, model: nn.Module, batches: Any, options: SpeechOptions) -> dict[str, float]:
        """Cross-entropy and accuracy of tokens."""
        from .scoring import validate

        return validate(model, batches)

    def finish(
        self, model: nn.Module, splits: Splits, options: SpeechOptions, device: torch.device
    ) -> dict[str, torch.Tensor]:
        """The lag of the maps."""
        from .scoring import finish

        return finish(model, splits, options, device)

    def check_run(self, spec: dict[str, Any], calibration: dict[str, torch.Tensor]) -> None:
        """The lag is one number."""
        if "lag" not in calibration or calibration["lag"].numel() != 1:
            raise InputError("calibration.safetensors holds no lag")

    def review(
        self,
        model: nn.Module,
        dataset: Any,
        calibration: dict[str, torch.Tensor],
        options: SpeechOptions,
        spec: dict[str, Any],
        device: torch.device,
    ) -> Review:
        """Error rates by speaker, errors of word times, pictures of what was heard."""
        from .scoring import review

        return review(model, dataset, calibration, options, spec, device)

    def sample(self, model: nn.Module, splits: Splits) -> tuple[tuple[Any, ...], Any]:
        """Features and tokens of two recordings; their number is free."""
        from .data import example

        return example(splits)

    def items(self, options: Any, spec: dict[str, Any]) -> Sequence[Item]:
        """Recordings, or stretches of them."""
        from .prediction import list_inputs

        return list_inputs(options)

    def prediction_schema(self, options: Any, spec: dict[str, Any]) -> dict[str, Any]:
        """text, seconds, words, log_probability, no_speech."""
        from .prediction import schema

        return schema(options, spec)

    def predict(
        self,
        model: nn.Module,
        items: Sequence[Item],
        calibration: dict[str, torch.Tensor],
        options: Any,
        spec: dict[str, Any],
        device: torch.device,
    ) -> list[pl.DataFrame | ValueError]:
        """A row for each recording, and the other formats that were asked for."""
        from .prediction import predict_items

        return predict_items(model, items, calibration, options, spec, device)


TASK = Speech()
train, evaluate, predict, export, adopt, digits, explain, compare = (
    python_verb(TASK, verb)
    for verb in ("train", "evaluate", "predict", "export", "adopt", "digits", "explain", "compare")
)
