"""Text end to end. The contract of all tasks (tests/contract) holds it to the rest."""

import numpy as np
import polars as pl
import pytest

from headwise import pipelines
from headwise.base.errors import InputError
from headwise.pipelines.engine.training.order import mix


@pytest.fixture
def table(tmp_path):
    generator = np.random.default_rng(mix(1))
    a, b = generator.normal(size=(2, 300))
    pl.DataFrame({"a": a, "b": b, "y": 3 * a - b + 5}).write_csv(tmp_path / "t.csv")
    return tmp_path / "t.csv"


def test_a_line_is_learnt_and_predicted_in_original_units(table, tmp_path):
    run = pipelines.text.train(data=table, run=tmp_path / "run", epochs=60, lr=1e-2)
    metrics = run.metrics()
    assert metrics["mae"] < 0.2 * metrics["naive_mae"]
    rows = pl.read_parquet(run.path / "predictions.parquet")
    truth = pl.read_csv(table)["y"]
    assert np.corrcoef(rows["prediction"], truth)[0, 1] > 0.99
    assert abs(rows["prediction"].mean() - 5) < 0.5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,y\n1,2\nx,3\n", "column 'a', row 2: is not a number"),
        ("y\n1\n", "has one column"),
        ("a,y\n", "has no rows"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(tmp_path, text, reason):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=reason):
        pipelines.text.train(data=tmp_path / "t.csv", run=tmp_path / "run")
