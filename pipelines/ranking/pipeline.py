"""Ranking: click models of several tasks, from an event log to scored tables and lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from ...base.errors import InputError
from ...data.clicks.account import one_label
from ...data.clicks.batches import ClickRows
from ...data.clicks.generate import write_sample_clicks
from ...data.clicks.schema import schema_of
from ...data.clicks.vocabulary import UNSEEN
from ...models.clicks.click import DIN, PLE, ClickModel, DCNv2, MMoE, SharedBottom
from ...models.clicks.infnet import INFNet
from ...models.clicks.tokens import TokenMixer
from ..engine.mechanisms import mechanism_options
from ..engine.pipeline import (
    Batch,
    Context,
    ExportInputs,
    FreeAxes,
    Metrics,
    Pipeline,
    Review,
    Splits,
)
from ..engine.runs.checkpoint import load_weights
from . import figures
from .data import RankingSpec, open_log_of_run, open_new_log, spec_of_run
from .optimizers import make_optimizer
from .options import RankingOptions, RankingPredictOptions
from .prediction import RowsItem, answer_lines, list_parts, predict_parts, schema
from .rungs import RankingRungs, logits_of
from .scoring import (
    calibrate,
    cold_rows,
    probabilities,
    scores_by_task,
    validation_scores,
    weighted_loss,
)

SPARSE_FROM = 100_000  # embeddings from which `--sparse auto` updates only those of a batch
TABLE = "embedding.table.weight"
INPUTS = ("fields", "events", "ages", "offsets")


class MixingArguments(TypedDict):
    """What models take whose tokens a mechanism mixes."""

    heads: int
    attention: str
    attention_options: dict[str, object]


class SharedArguments(TypedDict):
    """What every click model takes."""

    width: int
    towers: tuple[int, ...]
    dropout: float
    sparse: bool


class RankingPipeline(Pipeline[RankingOptions, RankingSpec]):
    """Ranking."""

    monitor = "one_minus_auc"
    spec_class = RankingSpec

    def write_sample(self, folder: Path) -> Path:
        """A generated log of clicks and likes, with its schema next to it."""
        return write_sample_clicks(folder)

    def open_data(
        self, options: RankingOptions, spec: RankingSpec | None = None, *, as_test: bool = False
    ) -> Splits[RankingSpec]:
        """Read, split, make vocabularies and histories (or take those of the run), encode."""
        return open_new_log(options) if spec is None else open_log_of_run(options, spec, as_test)

    def training_parts(self, splits: Splits[RankingSpec], members: Mapping[str, str]) -> pl.Series:
        """By what the rows hold."""
        part = splits.test
        return part.encoder.row_parts.names(part.rows).gather(part.which)

    def build_model(self, options: RankingOptions, spec: RankingSpec) -> nn.Module:
        """INFNet or a rival; `ValueError` for sizes that do not fit together."""
        layout, o = spec.layout, options
        shared = SharedArguments(
            width=o.width, towers=o.towers, dropout=o.dropout, sparse=is_sparse(options, spec)
        )
        mixing = MixingArguments(
            heads=o.heads, attention=o.attention, attention_options=mechanism_options(o)
        )
        match o.model:
            case "infnet" | "infnet-hub":
                if not spec.proxies_mix:
                    mixing = MixingArguments(
                        heads=o.heads, attention="softmax", attention_options={}
                    )
                return INFNet(
                    layout,
                    **shared,
                    blocks=o.layers,
                    proxies=o.proxies,
                    shared=o.shared_tasks,
                    **mixing,
                    residual=o.residual,
                    variant="hub" if o.model == "infnet-hub" else "proxy",
                    gated=o.gated,
                    cross=o.cross,
                    task_tokens=o.task_tokens,
                )
            case "tokens":
                return TokenMixer(layout, **shared, **mixing, layers=o.layers, ffn=o.ffn)
            case "mmoe":
                return MMoE(layout, **shared, experts=o.experts, hidden=o.hidden[0])
            case "ple":
                experts = max(1, o.experts // 2)
                return PLE(layout, **shared, experts=experts, hidden=o.hidden[0], layers=o.layers)
            case "din":
                return DIN(layout, **shared, targets=spec.targets, bottom=o.hidden)
            case "dcnv2":
                return DCNv2(layout, **shared, layers=o.layers, bottom=o.hidden)
            case "shared-bottom":
                return SharedBottom(layout, **shared, bottom=o.hidden)

    def load_initial_weights(
        self, model: nn.Module, options: RankingOptions, spec: RankingSpec
    ) -> None:
        """The weights of the run to go on from, into tables that have grown; new codes begin as the
        unseen value of their field.
        """
        if (run := options.from_run) is None:
            return
        before, weights = spec_of_run(run), load_weights(Path(run) / "model.safetensors")
        state = model.state_dict()
        if weights.keys() != state.keys():
            raise InputError(
                f"--from {run}: is of another model; give the model options of that run"
            )
        for name, value in weights.items():
            free = 1 if name == TABLE else 0  # the first axis of the table has grown
            if value.shape[free:] != state[name].shape[free:]:
                raise InputError(
                    f"--from {run}: {name} has another size; give the model options of that run"
                )
        # The fields of the table are one below the other: the codes of each come first in its new
        # rows.
        old_start = new_start = 0
        for old, new in zip(before.fields, spec.fields, strict=True):
            rows = weights[TABLE][old_start : old_start + old["codes"]]
            state[TABLE][new_start : new_start + new["codes"]] = rows[UNSEEN]
            state[TABLE][new_start : new_start + old["codes"]] = rows
            old_start, new_start = old_start + old["codes"], new_start + new["codes"]
        for name, value in weights.items():
            if name != TABLE:
                state[name].copy_(value)

    def optimizer(self, model: nn.Module, options: RankingOptions) -> torch.optim.Optimizer:
        """One for the embeddings, one for the rest."""
        return make_optimizer(model, options)

    def loss(self, model: nn.Module, batch: Batch, options: RankingOptions) -> Tensor:
        """Weighted sum over tasks of the mean log-loss of the rows that count, and the L2 of the
        embeddings.
        """
        return weighted_loss(model, batch, options)

    def counts(self, batch: Batch, options: RankingOptions) -> Mapping[str, Tensor]:
        """The rows of each task that count."""
        return {"rows": batch["counts"].sum(0)}

    def validate(
        self, model: nn.Module, batches: Iterable[Batch], options: RankingOptions
    ) -> dict[str, float]:
        """AUC and log-loss, means over tasks; one minus the mean AUC is watched."""
        return validation_scores(model, batches)

    def complete(
        self,
        model: nn.Module,
        splits: Splits[RankingSpec],
        context: Context[RankingOptions, RankingSpec],
    ) -> None:
        """Calibrated probabilities, by the validation part."""
        part: ClickRows = splits.validation
        assert isinstance(model, ClickModel)
        assert part.rows.labels is not None
        logits = logits_of({"model": model}, part, context.device)["model"]
        calibrate(model, logits, part.rows.labels[part.which])

    def rungs(self, spec: RankingSpec) -> RankingRungs:
        """Counted rates, a simple model, and the blend."""
        return RankingRungs()

    def review(
        self, model: nn.Module, dataset: ClickRows, context: Context[RankingOptions, RankingSpec]
    ) -> Review:
        """Scores of each task compared with what counting users and items gives; cold users and
        items; calibration.
        """
        spec, rows = context.spec, dataset.rows
        probability = np.concatenate(list(probabilities(model, dataset, context.device)))
        by_task = scores_by_task(dataset, probability, spec.tasks)
        cold = {name: int(part.sum()) for name, part in cold_rows(dataset).items()}
        metrics: Metrics = {"rows": len(dataset), **cold, **by_task}
        assert rows.labels is not None
        sentences = [
            in_words(task, scores, rows.labels[dataset.which, place])
            for place, (task, scores) in enumerate(by_task.items())
        ]
        headline = f"{len(dataset):,} rows: " + "; ".join(sentences)
        table = pl.DataFrame(
            [{"task": task, **scores} for task, scores in by_task.items()], strict=False
        )
        pictures = figures.score_figures(
            rows.labels[dataset.which], probability, spec.tasks, schema_of(spec.schema)
        )
        return Review(metrics, headline, pictures, {"scores of each task": table})

    def export_example(
        self, model: nn.Module, splits: Splits[RankingSpec]
    ) -> tuple[tuple[Tensor, ...], tuple[Mapping[int, object] | None, ...]]:
        """Eight rows; how many rows and events there are is free."""
        rows, events = torch.export.Dim("rows", min=2), torch.export.Dim("events", min=2)
        sequences = len(splits.spec.sequences)
        of_events = {0: events} if sequences else None
        ends = {0: sequences * rows + 1} if sequences else None
        return _inputs(splits.test, 8), ({0: rows}, of_events, of_events, ends)

    def other_export_example(
        self, splits: Splits[RankingSpec], arguments: ExportInputs, shapes: FreeAxes
    ) -> tuple[Tensor, ...]:
        """Fewer rows, with their events."""
        return _inputs(splits.test, 3)

    def list_items(self, options: RankingPredictOptions, spec: RankingSpec) -> Sequence[RowsItem]:
        """Parts of 50,000 rows of the files."""
        return list_parts(options.input, options.log)

    def prediction_schema(
        self, options: RankingPredictOptions, spec: RankingSpec
    ) -> dict[str, pl.DataType]:
        """row, part, user_id, item_id, p_TASK, seen_user, seen_item, unseen, unread."""
        return schema(spec)

    def answer_lines(self, rows: pl.DataFrame, spec: RankingSpec) -> list[str]:
        """The probabilities of each task, of a single user by item."""
        return answer_lines(rows, spec.tasks)

    def predict(
        self,
        model: nn.Module,
        items: Sequence[RowsItem],
        context: Context[RankingPredictOptions, RankingSpec],
    ) -> list[pl.DataFrame | ValueError]:
        """Probabilities of the rows, in their order."""
        return predict_parts(model, items, context)


def in_words(task: str, scores: Mapping[str, float], labels: np.ndarray) -> str:
    """The scores of a task in a few words. labels: (N,), -1 where they do not count."""
    if why := one_label(labels, "part that is scored"):
        return f"{task} has no AUC, as {why}"
    return (
        f"{task} AUC {scores['auc']:.4f} (users and items counted: "
        f"{scores['baseline_auc']:.4f}), gAUC {scores['gauc']:.4f}"
    )


def is_sparse(options: RankingOptions, spec: RankingSpec) -> bool:
    """Whether the gradient of the embeddings holds only the rows of a batch."""
    if options.sparse != "auto":
        return options.sparse == "yes"
    large = sum(field["codes"] for field in spec.fields) > SPARSE_FROM
    return large and options.devices * options.nodes == 1 and options.clip is None


def _inputs(dataset: ClickRows, most: int) -> tuple[Tensor, ...]:
    """The inputs of the model for the first rows of a data set."""
    batch = dataset.__getitems__(range(min(most, len(dataset))))
    return tuple(batch[name] for name in INPUTS)
