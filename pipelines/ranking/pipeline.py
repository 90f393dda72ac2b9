"""Ranking: click models of several tasks, from an event log to scored tables and lists for users.

The six answers of the task; the log is read in `logs`, scored in `scoring`, new rows in `infer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn

from ...data.clicks.generate import write_sample_clicks
from ..engine.pipeline import Context, Item, Pipeline, Review, Splits
from ..engine.spec import DictSpec
from .build import build, optimizer
from .data import moved_weights, open_splits
from .options import RankingOptions
from .prediction import list_parts, predict_parts, schema
from .scoring import loss, review, validate


class RankingPipeline(Pipeline[RankingOptions, DictSpec]):
    """Ranking."""

    monitor = "one_minus_auc"
    spec_class = DictSpec

    def write_sample(self, folder: Path) -> Path:
        """A generated log of clicks and likes, with its schema beside it."""

        return write_sample_clicks(folder)

    def open_data(
        self, options: RankingOptions, spec: DictSpec | None = None, *, as_test: bool = False
    ) -> Splits[DictSpec]:
        """Read, split, make vocabularies and histories, encode."""

        return open_splits(options, spec, as_test)

    def build_model(self, options: RankingOptions, spec: DictSpec) -> nn.Module:
        """INFNet or a rival."""

        return build(options, spec)

    def load_initial_weights(
        self, model: nn.Module, options: RankingOptions, spec: DictSpec
    ) -> None:
        """The weights of the run to go on from."""
        if options.from_run is not None:
            moved_weights(model, spec, options.from_run)

    def optimizer(self, model: nn.Module, options: RankingOptions) -> torch.optim.Optimizer:
        """One for the embeddings, one for the rest."""

        return optimizer(model, options)

    def loss(
        self, model: nn.Module, batch: dict[str, torch.Tensor], options: RankingOptions
    ) -> torch.Tensor:
        """Weighted sum over tasks of the mean log-loss of the rows that count, and the L2 of the
        embeddings.
        """

        return loss(model, batch, options)

    def validate(self, model: nn.Module, batches: Any, options: RankingOptions) -> dict[str, float]:
        """AUC and log-loss of each task; one minus the mean AUC is watched."""

        return validate(model, batches)

    def review(
        self, model: nn.Module, dataset: Any, context: Context[RankingOptions, DictSpec]
    ) -> Review:
        """Scores of each task beside counting baselines; cold users and items; calibration."""

        return review(model, dataset, context.spec, context.options, context.device)

    def export_example(
        self, model: nn.Module, splits: Splits[DictSpec]
    ) -> tuple[tuple[Any, ...], Any]:
        """Two rows; how many rows and events there are is free."""

        batch = splits.test.__getitems__(range(min(8, len(splits.test))))
        rows, events = torch.export.Dim("rows", min=2), torch.export.Dim("events", min=2)
        sequences = len(splits.spec["sequences"])
        ends = {0: sequences * rows + 1} if sequences else None
        shapes = ({0: rows}, *([{0: events}] * 2 if sequences else [None, None]), ends)
        return tuple(batch[name] for name in ("fields", "events", "ages", "offsets")), shapes

    def other_export_example(
        self, splits: Splits[DictSpec], arguments: tuple[Any, ...], shapes: Any
    ) -> tuple[Any, ...]:
        """Fewer rows, with the events that are theirs."""
        batch = splits.test.__getitems__(range(min(3, len(splits.test))))
        return tuple(batch[name] for name in ("fields", "events", "ages", "offsets"))

    def list_items(self, options: Any, spec: DictSpec) -> Sequence[Item]:
        """Parts of 50,000 rows of the files."""

        return list_parts(options.input)

    def prediction_schema(self, options: Any, spec: DictSpec) -> dict[str, Any]:
        """row, user_id, item_id, p_TASK, seen_user, seen_item, unseen, unread."""

        return schema(spec)

    def predict(
        self, model: nn.Module, items: Sequence[Item], context: Context[Any, DictSpec]
    ) -> list[pl.DataFrame | ValueError]:
        """Probabilities of the rows, in their order."""

        return predict_parts(model, items, context.options, context.spec, context.device)
