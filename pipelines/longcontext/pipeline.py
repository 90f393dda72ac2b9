"""Long contexts: a plan of what each head of a language model keeps, beside the entire cache and
windows of the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from ...base.errors import InputError
from ...data.prompts.sample import write_sample_prompts
from ..engine.pipeline import (
    Batch,
    Context,
    ExportInputs,
    FreeAxes,
    Member,
    Pipeline,
    Review,
    Schema,
    Splits,
)
from ..engine.runs.loaded import load_run
from ..engine.training.wrapped import call, plain_model
from . import figures
from .caches import check_cache
from .coding import Tokens
from .comparing import compared_plans
from .data import ASSET, PromptPart, base_of, open_splits
from .methods import METHODS, Fitting, fit_plan, made_from
from .options import LEARNED, LongContextOptions, LongContextPredictOptions
from .plan_files import write_plan
from .planned import PlannedModel, planned
from .prediction import SCHEMA, PromptItem, answer_lines, list_prompts, predict_prompts
from .rungs import LongContextRungs
from .scoring import headline_of, metrics_of, scores_of, scores_of_tokens, scores_table, table_by
from .spec import LongContextSpec

_NO_ANSWERS = "--method {}: learns from answers; some prompts have none"


class LongContextPipeline(
    Pipeline[LongContextOptions, LongContextSpec, LongContextPredictOptions, PromptPart, PromptItem]
):
    """Plans of attention for language models."""

    monitor = "loss"
    spec_class = LongContextSpec

    def write_sample(self, folder: Path) -> Path:
        """Generated prompts over generated sentences."""
        return write_sample_prompts(folder)

    def open_data(
        self,
        options: LongContextOptions,
        spec: LongContextSpec | None = None,
        *,
        as_test: bool = False,
    ) -> Splits[LongContextSpec, PromptPart]:
        """Read prompts, or generate them over texts; split by group; tokens of the model."""
        splits = open_splits(options, spec, as_test)
        if spec is None and options.method in LEARNED:
            parts = (splits.train, splits.validation)
            if not all(tokens.answer for part in parts for tokens in part.tokens):
                raise InputError(_NO_ANSWERS.format(options.method))
        return splits

    def build_model(self, options: LongContextOptions, spec: LongContextSpec) -> nn.Module:
        """The language model with no plan yet, and what the method trains."""
        base = base_of(spec).model
        make = METHODS[options.method].learner
        model = PlannedModel(base, None if make is None else make(base, options, spec))
        model.method, model.fitted_on = options.method, made_from(options, spec)
        return model

    def begin_epoch(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        options: LongContextOptions,
        epoch: int,
    ) -> None:
        """Constraints tighten over the training."""
        if (learner := planned(model).learner) is not None:
            learner.begin(epoch / max(1, options.epochs - 1))

    def loss(self, model: nn.Module, batch: Batch, options: LongContextOptions) -> Tensor:
        """That of the learner; only methods that learn have one."""
        return call(model, _learner_loss, batch["ids"], batch["mask"], batch["answer"])

    def validate(
        self, model: nn.Module, batches: Iterable[Batch], options: LongContextOptions
    ) -> dict[str, float]:
        """The learner's loss or, of a method that learns nothing, the loss of the answers."""
        losses, plain = [], planned(plain_model(model))
        for batch in batches:
            if plain.learner is not None:
                loss = call(model, _learner_loss, batch["ids"], batch["mask"], batch["answer"])
                losses += [float(loss)] * len(batch["ids"])
                continue
            rows = scores_of_tokens(plain.base, plain.plan, _tokens_of(batch))
            losses += rows.measured.tolist()
        return {"loss": float(np.mean(losses))}

    def complete(
        self,
        model: nn.Module,
        splits: Splits[LongContextSpec, PromptPart],
        context: Context[LongContextOptions, LongContextSpec],
    ) -> None:
        """Make the plan."""
        domain = planned(model)
        fitting = Fitting(domain, splits.train, context.options, splits.spec, context.measured)
        domain.take(fit_plan(fitting))

    def rungs(self, spec: LongContextSpec) -> LongContextRungs:
        """Windows of the same size, and the plan."""
        return LongContextRungs()

    def review(
        self,
        model: nn.Module,
        dataset: PromptPart,
        context: Context[LongContextOptions, LongContextSpec],
    ) -> Review:
        """Answers and losses of the plan, of the entire cache, of uniform windows and of the same
        rules on other heads; by kind, length and depth.
        """
        domain = planned(model).domain
        plan = domain.plan
        plans = compared_plans(plan, context.spec.longest, context.options.seed)
        scores = {name: scores_of(domain.base, each_plan, dataset, name)
                  for name, each_plan in plans.items()}  # fmt: skip
        pictures = [figures.plan_figure(plan, dataset.longest), figures.frontier_figure(scores)]
        if (by_depth := figures.depth_figure(dataset, scores)) is not None:
            pictures.append(by_depth)
        pictures.append(figures.cache_figure(dataset, scores))
        table = scores_table(scores, plans, dataset)
        return Review(
            metrics_of(scores, plans, dataset),
            headline_of(scores, plans, dataset),
            pictures,
            {
                "The plan beside others, with 95 % intervals by prompt": table,
                "Right answers by kind, length and depth": table_by(dataset, scores),
            },
            sheets={"plans": table},
            is_first=True,
        )

    def prediction_options(
        self, options: LongContextOptions, spec: LongContextSpec
    ) -> Mapping[str, object]:
        """The prompts of the test part, where prompts were generated over texts."""
        if ASSET in spec.assets and spec.assets_folder is not None:
            return {"input": str(spec.assets_folder / ASSET)}
        return {"columns": options.columns}

    def export_example(
        self, model: nn.Module, splits: Splits[LongContextSpec, PromptPart]
    ) -> tuple[ExportInputs, FreeAxes]:
        """The beginnings of two prompts; how many and how long they are is free."""
        # Asked for here, since tables cannot be read while a graph is traced.
        if any(planned(model).plan.routed):
            raise InputError(
                "export: a plan with a router chooses by prompt, which no graph can hold; .json "
                "writes the plan"
            )
        part = splits.test
        batch = part.__getitems__([0, min(1, len(part) - 1)])
        length = int(batch["mask"].sum(1).min().clamp(max=64))
        prompts = torch.export.Dim("prompts", min=2)
        tokens = torch.export.Dim("tokens", min=2, max=planned(model).facts.positions)
        free = {0: prompts, 1: tokens}
        return tuple(batch[name][:, :length].contiguous() for name in ("ids", "mask")), (free, free)

    def further_exports(self) -> Mapping[str, Callable[[nn.Module, Path], None]]:
        """Plans: our JSON, MoA's (.moa.json), DuoAttention's table."""
        return dict.fromkeys((".json", ".tsv"), write_plan)

    def list_items(
        self, options: LongContextPredictOptions, spec: LongContextSpec
    ) -> Sequence[PromptItem]:
        """A prompt each. Opens the run where a stored cache is asked: it must be of its plan."""
        if options.cache is not None:  # before standard input is set aside
            loaded = load_run(self, options.run, options.accelerator)
            check_cache(options.cache, planned(loaded.model))
        return list_prompts(options, spec)

    def member(self, item: PromptItem) -> Member:
        """The prompt of a table by its number in it."""
        return Member(item["file"], str(item["row"]))

    def prediction_schema(
        self, options: LongContextPredictOptions, spec: LongContextSpec
    ) -> Schema:
        """row, id, answers, tokens, what was kept."""
        return SCHEMA

    def predict(
        self,
        model: nn.Module,
        items: Sequence[PromptItem],
        context: Context[LongContextPredictOptions, LongContextSpec],
    ) -> list[pl.DataFrame | ValueError]:
        """A row for each prompt."""
        return predict_prompts(planned(model), items, context)

    def answer_lines(self, rows: pl.DataFrame, spec: LongContextSpec) -> list[str]:
        """The answers."""
        return answer_lines(rows)


def _learner_loss(model: PlannedModel, ids: Tensor, mask: Tensor, answer: Tensor) -> Tensor:
    assert model.learner is not None
    return model.learner.loss(ids, mask, answer)


def _tokens_of(batch: Batch) -> list[Tokens]:
    """The prompts of a batch, as they were before they were padded."""
    rows = []
    for ids, mask, answer in zip(batch["ids"], batch["mask"], batch["answer"], strict=True):
        rows.append(Tokens(tuple(ids[mask & ~answer].tolist()), tuple(ids[answer].tolist())))
    return rows
