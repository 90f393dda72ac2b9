"""Fields that alone tell the label of a task."""

import re
from typing import Any

import numpy as np
import polars as pl

from headwise.base.account import opened
from headwise.data.clicks.fit import fit
from headwise.data.clicks.log import Log
from headwise.data.clicks.schema import Schema
from headwise.pipelines.ranking.baselines import note_telling_fields
from headwise.tests.data.clicks.saved import click_schema as schema
from headwise.tests.data.clicks.saved import saved


def table(rows: int = 400, **columns: Any) -> pl.DataFrame:
    random = np.random.default_rng(0)
    plain = {
        "user": random.integers(10, size=rows),
        "item": random.integers(20, size=rows),
        "time": np.arange(rows) * 60,
        "click": random.integers(2, size=rows),
    }
    return pl.DataFrame(plain | columns)


def lines_of(log: Log, plan: Schema) -> str:
    encoder, rows, part = fit(log, plan)
    with opened() as account:
        note_telling_fields(encoder, rows, part)
    return "\n".join(account.lines())


def test_a_field_that_tells_the_label_is_named(tmp_path) -> None:
    click = table()["click"].to_numpy()
    random = np.random.default_rng(1)
    frame = table(dwell=click * 5 + random.random(400), chance=random.random(400))
    plan = schema(numeric=["dwell", "chance"])
    lines = lines_of(saved(tmp_path / "a.csv", frame), plan)
    assert re.search(r"dwell alone gives an AUC of (1\.0|0\.9[89])\d+ for click", lines)
    assert "chance alone" not in lines
    # A name for each row tells nothing of other rows.
    frame = table(row=[f"r{row}" for row in range(400)])
    lines = lines_of(saved(tmp_path / "a.csv", frame), schema(categorical=["row"]))
    assert "alone gives" not in lines
