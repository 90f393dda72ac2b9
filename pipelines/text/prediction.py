"""Predictions for tables that may lack the target."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import nn

from ..engine.pipeline import Context
from .data import TextItem, TextSpec, read_values
from .options import TextPredictOptions

SCHEMA: dict[str, pl.DataType] = {"row": pl.Int64(), "prediction": pl.Float64()}


@torch.no_grad()
def predict_table(
    model: nn.Module, item: TextItem, context: Context[TextPredictOptions, TextSpec]
) -> pl.DataFrame:
    """A prediction for each row of a table, in original units; rows are numbered from 1.

    Raises `InputError` for a table that cannot be read.
    """
    spec, size = context.spec, context.options.batch_size
    values = read_values(item["file"], spec.columns).to_numpy()
    mean, deviation = np.array(spec.mean), np.array(spec.deviation)
    scaled = ((values - mean[:-1]) / deviation[:-1]).astype(np.float32)
    batches = torch.from_numpy(scaled).split(size)
    predicted = torch.cat([model(batch.to(context.device)).cpu() for batch in batches])
    return pl.DataFrame(
        {
            "row": np.arange(1, len(values) + 1),
            "prediction": predicted.double().numpy() * deviation[-1] + mean[-1],
        },
        schema=SCHEMA,
    )
