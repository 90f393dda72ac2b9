"""Speech to text: transcripts and word times.

The six answers of the task; recordings are read in `corpus`, new ones heard in `infer`, words timed
in `word_times`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn

from ...base.errors import InputError
from ...data.speech.generate import write_sample_speech
from ..engine.pipeline import Context, Item, Pipeline, Review, Splits
from ..engine.spec import DictSpec
from .build import build, warm_start
from .data import example, open_splits
from .options import SpeechOptions
from .prediction import list_inputs, predict_items, schema
from .scoring import finish, loss, review, validate


class SpeechPipeline(Pipeline[SpeechOptions, DictSpec]):
    """Speech to text."""

    monitor = "loss"
    spec_class = DictSpec

    def write_sample(self, folder: Path) -> Path:
        """Generated tones in place of digits, with exact word times."""

        return write_sample_speech(folder)

    def open_data(
        self, options: SpeechOptions, spec: DictSpec | None = None, *, as_test: bool = False
    ) -> Splits[DictSpec]:
        """Read the list of recordings, make or read tokens, split by speaker."""

        return open_splits(options, spec, as_test)

    def build_model(self, options: SpeechOptions, spec: DictSpec) -> nn.Module:
        """Encoder and decoder."""

        return build(options, spec)

    def load_initial_weights(
        self, model: nn.Module, options: SpeechOptions, spec: DictSpec
    ) -> None:
        """Weights of Whisper."""

        warm_start(model, options)

    def loss(
        self, model: nn.Module, batch: dict[str, torch.Tensor], options: SpeechOptions
    ) -> torch.Tensor:
        """Cross-entropy of the tokens, and connectionist temporal classification of the encoder."""

        return loss(model, batch, options)

    def validate(self, model: nn.Module, batches: Any, options: SpeechOptions) -> dict[str, float]:
        """Cross-entropy and accuracy of tokens."""

        return validate(model, batches)

    def calibrate(
        self,
        model: nn.Module,
        splits: Splits[DictSpec],
        options: SpeechOptions,
        device: torch.device,
    ) -> dict[str, torch.Tensor]:
        """The lag of the maps."""

        return finish(model, splits, options, device)

    def check_run(self, spec: DictSpec, calibration: dict[str, torch.Tensor]) -> None:
        """The lag is one number."""
        if "lag" not in calibration or calibration["lag"].numel() != 1:
            raise InputError("calibration.safetensors holds no lag")

    def review(
        self, model: nn.Module, dataset: Any, context: Context[SpeechOptions, DictSpec]
    ) -> Review:
        """Error rates by speaker, errors of word times, pictures of what was heard."""

        return review(
            model, dataset, context.calibration, context.options, context.spec, context.device
        )

    def export_example(
        self, model: nn.Module, splits: Splits[DictSpec]
    ) -> tuple[tuple[Any, ...], Any]:
        """Features and tokens of two recordings; their number is free."""

        return example(splits)

    def list_items(self, options: Any, spec: DictSpec) -> Sequence[Item]:
        """Recordings, or stretches of them."""

        return list_inputs(options)

    def prediction_schema(self, options: Any, spec: DictSpec) -> dict[str, Any]:
        """text, seconds, words, log_probability, no_speech."""

        return schema(options, spec)

    def predict(
        self, model: nn.Module, items: Sequence[Item], context: Context[Any, DictSpec]
    ) -> list[pl.DataFrame | ValueError]:
        """A row for each recording, and the other formats that were asked for."""

        return predict_items(
            model, items, context.calibration, context.options, context.spec, context.device
        )
