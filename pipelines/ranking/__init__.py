"""Ranking: click models of several tasks, from an event log to scored tables and lists for users.

The six answers of the task; the log is read in `logs`, scored in `scoring`, new rows in `infer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..engine.command_line import python_verb
from ..engine.task import Item, Review, Splits, Task, Verb
from .options import (
    CompareOptions,
    RankingOptions,
    RankingPredictOptions,
    SchemaOptions,
    TopOptions,
)

if TYPE_CHECKING:
    import polars as pl
    import torch
    from torch import nn


class Ranking(Task[RankingOptions]):
    """Ranking."""

    name = "ranking"
    summary = "predict clicks and what follows them, for ads, videos, products"
    options = RankingOptions
    predict_options = RankingPredictOptions
    monitor = "one_minus_auc"
    intended_use = (
        "Ordering items for the users of the log that it was trained on. Probabilities hold while people and items "
        "behave as in that log; users and items that it has not seen are scored by their other columns alone."
    )
    verbs: ClassVar[Mapping[str, Verb]] = {
        "top": Verb(
            TopOptions, "headwise.pipelines.ranking.verbs.top:top", "the best items for each user"
        ),
        "compare": Verb(
            CompareOptions,
            "headwise.pipelines.ranking.verbs.compare:compare",
            "several models and seeds on one log",
        ),
        "schema": Verb(
            SchemaOptions,
            "headwise.pipelines.ranking.verbs.schema:draft",
            "draft a schema from a log's columns",
        ),
    }

    def check(self, options: Any) -> None:
        """Values that no data can make right."""
        from .checks import check

        check(options)

    def write_sample(self, folder: Path) -> Path:
        """A generated log of clicks and likes, with its schema beside it."""
        from ...data.clicks.generate import write_sample_clicks

        return write_sample_clicks(folder)

    def open(
        self, options: RankingOptions, spec: dict[str, Any] | None = None, *, whole: bool = False
    ) -> Splits:
        """Read, split, make vocabularies and histories, encode."""
        from .data import open_splits

        return open_splits(options, spec, whole)

    def build(self, options: RankingOptions, spec: dict[str, Any]) -> nn.Module:
        """INFNet or a rival."""
        from .build import build

        return build(options, spec)

    def warm_start(self, model: nn.Module, options: RankingOptions, spec: dict[str, Any]) -> None:
        """The weights of the run to go on from."""
        if options.from_run is not None:
            from .data import moved_weights

            moved_weights(model, spec, options.from_run)

    def optimizer(self, model: nn.Module, options: RankingOptions) -> torch.optim.Optimizer:
        """One for the embeddings, one for the rest."""
        from .build import optimizer

        return optimizer(model, options)

    def loss(
        self, model: nn.Module, batch: dict[str, torch.Tensor], options: RankingOptions
    ) -> torch.Tensor:
        """Weighted sum over tasks of the mean log-loss of the rows that count, and the L2 of the
        embeddings.
        """
        from .scoring import loss

        return loss(model, batch, options)

    def validate(self, model: nn.Module, batches: Any, options: RankingOptions) -> dict[str, float]:
        """AUC and log-loss of each task; one minus the mean AUC is watched."""
        from .scoring import validate

        return validate(model, batches)

    def review(
        self,
        model: nn.Module,
        dataset: Any,
        calibration: dict[str, torch.Tensor],
        options: RankingOptions,
        spec: dict[str, Any],
        device: torch.device,
    ) -> Review:
        """Scores of each task beside counting baselines; cold users and items; calibration."""
        from .scoring import review

        return review(model, dataset, spec, options, device)

    def sample(self, model: nn.Module, splits: Splits) -> tuple[tuple[Any, ...], Any]:
        """Two rows; how many rows and events there are is free."""
        import torch

        batch = splits.test.__getitems__(range(min(8, len(splits.test))))
        rows, events = torch.export.Dim("rows", min=2), torch.export.Dim("events", min=2)
        sequences = len(splits.spec["sequences"])
        ends = {0: sequences * rows + 1} if sequences else None
        shapes = ({0: rows}, *([{0: events}] * 2 if sequences else [None, None]), ends)
        return tuple(batch[name] for name in ("fields", "events", "ages", "offsets")), shapes

    def other_sample(
        self, splits: Splits, arguments: tuple[Any, ...], shapes: Any
    ) -> tuple[Any, ...]:
        """Fewer rows, with the events that are theirs."""
        batch = splits.test.__getitems__(range(min(3, len(splits.test))))
        return tuple(batch[name] for name in ("fields", "events", "ages", "offsets"))

    def items(self, options: Any, spec: dict[str, Any]) -> Sequence[Item]:
        """Parts of 50,000 rows of the files."""
        from .prediction import list_parts

        return list_parts(options.input)

    def prediction_schema(self, options: Any, spec: dict[str, Any]) -> dict[str, Any]:
        """row, user_id, item_id, p_TASK, seen_user, seen_item, unseen, unread."""
        from .prediction import schema

        return schema(spec)

    def predict(
        self,
        model: nn.Module,
        items: Sequence[Item],
        calibration: dict[str, torch.Tensor],
        options: Any,
        spec: dict[str, Any],
        device: torch.device,
    ) -> list[pl.DataFrame | ValueError]:
        """Probabilities of the rows, in their order."""
        from .prediction import predict_parts

        return predict_parts(model, items, options, spec, device)


TASK = Ranking()
train, evaluate, predict, export, top, compare, schema = (
    python_verb(TASK, verb)
    for verb in ("train", "evaluate", "predict", "export", "top", "compare", "schema")
)
