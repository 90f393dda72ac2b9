"""Fine-tuning: the work behind the verbs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl
import torch
from torch import Tensor, nn

from ...data.prompts.sample_answers import write_sample_answers
from ...models.language.tuning.cofitune import mask_steps
from ...models.language.tuning.tuned import Change, LanguageModel, TunedModel
from ..engine.command_line.checks import check_unread
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
from ..engine.training.counts import factor
from ..engine.training.optimizer import adam
from ..engine.training.order import mix
from ..engine.training.wrapped import call_method
from .coding import IGNORED, columns_of
from .data import TunePart, base_of, open_new, open_of_run
from .figures import change_figure, row_figure, usage_figure
from .masks import layers_of, modules_of
from .options import FinetuneOptions, FinetunePredictOptions, parse_convert_options
from .prediction import SCHEMA, PromptItem, answer_lines, list_prompts, predict_prompts
from .rungs import FinetuneRungs, as_it_came, plain
from .scoring import answer_table, headline_of, loss_of_logits, score
from .spec import TuneSpec
from .usage import usage_of


class FinetunePipeline(
    Pipeline[FinetuneOptions, TuneSpec, FinetunePredictOptions, TunePart, PromptItem]
):
    """A language model that is tuned to answer."""

    monitor = "loss"
    spec_class = TuneSpec

    def write_sample(self, folder: Path) -> Path:
        """Generated prompts: numbers to be written in words."""
        return write_sample_answers(folder)

    def open_data(
        self, options: FinetuneOptions, spec: TuneSpec | None = None, *, as_test: bool = False
    ) -> Splits[TuneSpec, TunePart]:
        """Read, write as tokens for the model, split by group."""
        return open_new(options) if spec is None else open_of_run(options, spec, as_test)

    def build_model(self, options: FinetuneOptions, spec: TuneSpec) -> nn.Module:
        """The model of --model with what is trained of it."""
        opened = base_of(spec)
        return TunedModel(opened.model, change_of(options))

    def load_initial_weights(
        self, model: nn.Module, options: FinetuneOptions, spec: TuneSpec
    ) -> None:
        """The mask, if there is one; weights are those that the model came with."""
        if spec.importance:
            assert isinstance(model, TunedModel)
            model.protect(spec.importance)

    def optimizer(self, model: nn.Module, options: FinetuneOptions) -> torch.optim.Optimizer:
        """Adam of the weights that are trained, whose steps are masked."""
        assert isinstance(model, TunedModel)
        optimizer = adam(model.trained(), options)
        if model.masks:
            mask_steps(optimizer, model.masks)
        return optimizer

    def loss(self, model: nn.Module, batch: Batch, options: FinetuneOptions) -> Tensor:
        """Mean loss of the tokens of the answers."""
        losses, counted = _token_losses(model, batch)
        return losses.sum() / counted.sum().clamp_min(1) * factor(batch, "tokens")

    def counts(self, batch: Batch, options: FinetuneOptions) -> Mapping[str, Tensor]:
        """The tokens of the answers."""
        return {"tokens": (batch["targets"] != IGNORED).sum()}

    def validate(
        self, model: nn.Module, batches: Iterable[Batch], options: FinetuneOptions
    ) -> dict[str, float]:
        """Nats a token of the answers, and of general texts, which show what is forgotten."""
        sums = torch.zeros(2, 2, dtype=torch.float64)
        for batch in batches:
            losses, counted = _token_losses(model, batch)
            for kind in (0, 1):
                chosen = batch["general"] == bool(kind)
                sums[kind, 0] += losses[chosen].double().sum().cpu()
                sums[kind, 1] += counted[chosen].sum().cpu()
        loss, general = (sums[:, 0] / sums[:, 1]).tolist()
        return {"loss": loss, "general_loss": general} if sums[1, 1] else {"loss": loss}

    def rungs(self, spec: TuneSpec) -> FinetuneRungs:
        """The model as it came, and the tuned one."""
        return FinetuneRungs()

    def review(
        self, model: nn.Module, dataset: TunePart, context: Context[FinetuneOptions, TuneSpec]
    ) -> Review:
        """What was gained on the task and lost on general texts."""
        options, spec, device = context.options, context.spec, context.device
        predicting, came = plain(model), as_it_came(spec)
        is_tuned = isinstance(predicting, TunedModel)
        converted = None
        if is_tuned and options.convert != "none":
            converted = self._converted(options, spec)
        with torch.no_grad():
            scores = score(
                predicting,
                came,
                dataset,
                device,
                answers=min(options.answers, dataset.count),
                new_tokens=options.new_tokens,
                converted=converted,
            )
            usage = usage_of(predicting, dataset, device)
        pictures = [change_figure(scores), row_figure(scores)]
        metrics = {**scores.metrics(), "tuned": is_tuned}
        if usage is not None:
            pictures.append(usage_figure(usage.by_layer, usage.what))
            metrics["usage"] = usage.metrics()
        tables = {"As it came and now": scores.table()}
        if scores.answers[1]:
            tables["The first answers"] = answer_table(dataset, scores)
        headline = headline_of(scores, is_tuned)
        return Review(metrics, headline, pictures, tables, is_first=True)

    def _converted(self, options: FinetuneOptions, spec: TuneSpec) -> LanguageModel:
        """The model right after its conversion, as the training began with it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(options.seed, 0))
            model = self.build_model(options, spec)
        return plain(model).eval()

    def prediction_options(self, options: FinetuneOptions, spec: TuneSpec) -> Mapping[str, object]:
        """The first prompts alone: generating answers takes long."""
        return {"most_rows": max(1, options.answers)}

    def export_example(
        self, model: nn.Module, splits: Splits[TuneSpec, TunePart]
    ) -> tuple[ExportInputs, FreeAxes]:
        """Two texts of equal length, of which nothing is padding."""
        row = splits.test.coded[0]
        tokens = torch.from_numpy(row.tokens)[None].repeat(2, 1)
        return (tokens, torch.ones_like(tokens, dtype=torch.bool)), None

    def list_items(self, options: FinetunePredictOptions, spec: TuneSpec) -> Sequence[PromptItem]:
        """Rows of tables, or lines."""
        return list_prompts(options, spec)

    def member(self, item: PromptItem) -> Member:
        """The row of the file."""
        return Member(item["file"], str(item["row"]))

    def prediction_schema(self, options: FinetunePredictOptions, spec: TuneSpec) -> Schema:
        """row, id, prompt, answer, what is expected, and how sure the model is."""
        return SCHEMA

    def answer_lines(self, rows: pl.DataFrame, spec: TuneSpec) -> list[str]:
        """The answers."""
        return answer_lines(rows)

    def predict(
        self,
        model: nn.Module,
        items: Sequence[PromptItem],
        context: Context[FinetunePredictOptions, TuneSpec],
    ) -> list[pl.DataFrame | ValueError]:
        """A row for each prompt."""
        return predict_prompts(model, items, context)


def change_of(options: FinetuneOptions) -> Change:
    """What the options change of a model."""
    if options.method == "full":
        check_unread(options, ("modules",), "--method cofitune, lora and moe-lora")
    return Change(
        method=options.method,
        modules=modules_of(options),
        layers=layers_of(options),
        rank=options.rank,
        alpha=options.alpha,
        experts=options.experts,
        active=options.active,
        convert=options.convert,
        options=parse_convert_options(options.convert, options.convert_options),
    )


def _token_losses(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Losses of tokens (B, C), 0 where they do not count, and where they do, bool."""
    columns = columns_of(batch["targets"])
    present = batch["owner"] >= 0
    logits: Tensor = call_method(
        model, "logits_at", batch["tokens"], batch["positions"], present, columns
    )
    targets = batch["targets"][:, columns]
    return loss_of_logits(logits, targets), targets != IGNORED
