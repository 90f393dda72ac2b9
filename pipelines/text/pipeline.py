"""Text: the work behind the verbs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ...base.errors import InputError
from ...data.formats.tables import TABLE_SUFFIXES, list_files
from ..engine.pipeline import Batch, Context, Pipeline, Review, Splits
from . import data
from .data import TextItem, TextRows, TextSpec
from .figures import truth_figure
from .options import TextOptions, TextPredictOptions
from .prediction import SCHEMA, predict_table
from .rungs import TextRungs
from .scoring import scores_of


class TextModel(nn.Module):
    """A network with one hidden layer; a real one belongs into `models/`.

    columns: D, of the input; hidden: width of the hidden layer.
    """

    def __init__(self, columns: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(columns, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def forward(self, features: Tensor) -> Tensor:
        """features (B, D) to predictions (B,), all scaled."""
        return self.layers(features)[:, 0]


class TextPipeline(Pipeline[TextOptions, TextSpec, TextPredictOptions, TextRows, TextItem]):
    """Predict the last column of a table from the others."""

    monitor = "mse"
    spec_class = TextSpec

    def write_sample(self, folder: Path) -> Path:
        """A generated table with three columns and a target."""
        return data.write_sample(folder)

    def open_data(
        self, options: TextOptions, spec: TextSpec | None = None, *, as_test: bool = False
    ) -> Splits[TextSpec, TextRows]:
        """Read the table, split its rows, scale them by the training part."""
        return data.open_splits(options, spec, as_test)

    def build_model(self, options: TextOptions, spec: TextSpec) -> nn.Module:
        """A network with one hidden layer."""
        return TextModel(len(spec.columns), options.hidden)

    def loss(self, model: nn.Module, batch: Batch, options: TextOptions) -> Tensor:
        """Mean squared error on the scaled target."""
        return mse_loss(model(batch["features"]), batch["target"])

    def validate(
        self, model: nn.Module, batches: Iterable[Batch], options: TextOptions
    ) -> dict[str, float]:
        """Mean squared error on the scaled target."""
        squared = count = 0.0
        for batch in batches:
            error = (model(batch["features"]) - batch["target"]).double()
            squared, count = squared + float(error.square().sum()), count + len(error)
        return {"mse": squared / count}

    def rungs(self, spec: TextSpec) -> TextRungs:
        """The mean, a linear regression, and its blend with the network."""
        return TextRungs()

    def review(
        self, model: nn.Module, dataset: TextRows, context: Context[TextOptions, TextSpec]
    ) -> Review:
        """Mean absolute error, compared with the mean of the training part."""
        spec = context.spec
        scores = scores_of(model, dataset, spec, context.device)
        metrics = {"rows": len(dataset), "mae": scores.mae, "naive_mae": scores.naive_mae}
        headline = (
            f"{spec.target}: mean absolute error {scores.mae:.4g} on {len(dataset)} rows; "
            f"predicting the mean {scores.naive_mae:.4g}"
        )
        return Review(metrics, headline, [truth_figure(scores, spec.target)])

    def export_example(
        self, model: nn.Module, splits: Splits[TextSpec, TextRows]
    ) -> tuple[tuple[Tensor | None, ...], Sequence[Mapping[int, object] | None]]:
        """Two rows; their number is free."""
        return (splits.test.features[:2],), ({0: torch.export.Dim("batch")},)

    def list_items(self, options: TextPredictOptions, spec: TextSpec) -> Sequence[TextItem]:
        """Tables of a file, a folder or a pattern."""
        return [{"file": file} for file in list_files(options.input, TABLE_SUFFIXES)]

    def prediction_schema(
        self, options: TextPredictOptions, spec: TextSpec
    ) -> dict[str, pl.DataType]:
        """The number of the row, and the prediction in original units."""
        return SCHEMA

    def predict(
        self,
        model: nn.Module,
        items: Sequence[TextItem],
        context: Context[TextPredictOptions, TextSpec],
    ) -> list[pl.DataFrame | ValueError]:
        """Rows for each table."""
        answers: list[pl.DataFrame | ValueError] = []
        for item in items:
            try:
                answers.append(predict_table(model, item, context))
            except InputError as error:
                answers.append(error)
        return answers
