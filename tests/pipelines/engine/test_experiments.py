"""Folders of trainings: what is done again and what is not, processes, and the tables."""

import json
import os
from dataclasses import dataclass
from functools import partial
from operator import call
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headwise.base.errors import InputError
from headwise.pipelines.engine.experiments.jobs import (
    Job,
    check_plain,
    claimed,
    fingerprint_of,
    run_jobs,
)
from headwise.pipelines.engine.experiments.table import (
    Training,
    aligned,
    comparison_markdown,
    paired_difference,
    summarise,
    t_interval,
)
from headwise.pipelines.engine.options import TrainOptions

# A job here is a function that gives its record; other processes must be able to import it.
JOBS = {f"job{number}": partial(dict, doubled=2 * number) for number in range(4)}


def forbidden(job: object) -> dict[str, object]:
    raise AssertionError("is done already")


do = partial(run_jobs, fingerprint="f", title="test")


def test_the_file_of_a_job_is_named_by_what_the_job_is():
    assert Job("infnet:no-cross", 2021).name == "infnet-no-cross-seed2021"
    assert Job("acmil", 0, 1, 2).name == "acmil-seed0-repeat1-fold2"


@pytest.mark.parametrize("processes", [1, 2])
def test_each_job_is_done_once_whatever_the_processes(tmp_path, processes, capfd):
    first = do(dict(list(JOBS.items())[:2]), call, tmp_path, processes=processes)
    assert [record["doubled"] for record in first.values()] == [0, 2]
    again = do(JOBS, call, tmp_path, processes=processes)
    assert [record["doubled"] for record in again.values()] == [0, 2, 4, 6]
    assert "2 of 4 trainings were done before" in capfd.readouterr().err
    assert do(JOBS, forbidden, tmp_path) == again


def test_a_job_of_other_options_is_refused(tmp_path):
    do(JOBS, call, tmp_path)
    with pytest.raises(InputError, match="other options or data"):
        run_jobs(JOBS, call, tmp_path, "g", title="test")


def test_what_was_done_before_a_process_died_is_kept(tmp_path):
    do({"job0": JOBS["job0"]}, call, tmp_path)
    with pytest.raises(InputError, match="one of --processes 2 died"):
        do({**JOBS, "job2": partial(os._exit, 1)}, call, tmp_path, processes=2)
    assert (tmp_path / "job0.json").exists()
    assert not (tmp_path / "job2.json").exists()
    assert do(JOBS, call, tmp_path)["job2"]["doubled"] == 4


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("x")
    for output, reason in ((tmp_path, "is not empty and holds no folds"), (mine, "is a file")):
        with pytest.raises(InputError, match=reason):
            claimed(output, "folds").__enter__()
    with claimed(tmp_path / "new") as home:
        assert home == tmp_path / "new" / "trainings"
        with pytest.raises(InputError, match="another process"):
            claimed(tmp_path / "new").__enter__()


@dataclass(frozen=True)
class Options(TrainOptions):
    output: str = "o"


def test_the_fingerprint_is_of_all_that_is_not_free():
    base = fingerprint_of(Options(), {"rows": 3}, {"output"})
    assert fingerprint_of(Options(output="p"), {"rows": 3}, {"output"}) == base
    assert fingerprint_of(Options(lr=1.0), {"rows": 3}, {"output"}) != base
    assert fingerprint_of(Options(), {"rows": 4}, {"output"}) != base


@pytest.mark.parametrize("options", [{"devices": 2}, {"precision": "bf16-mixed"}, {"nan": "skip"}])
def test_options_that_trainings_in_memory_lack_are_refused(options):
    check_plain(TrainOptions())
    with pytest.raises(InputError, match="compare: trains in 32 bits on one device"):
        check_plain(TrainOptions(**options))


def training(**rows: float) -> Training:
    return Training({name: {"auc": value, "ece": 0.5} for name, value in rows.items()}, 3, 10, 2.0)


def test_the_table_has_means_deviations_and_paired_differences():
    trainings = {
        Job("a", 1): training(a=0.5),
        Job("b", 1): training(b=0.7, extra=0.1),
        Job("a", 2): training(a=0.6),
        Job("b", 2): training(b=0.9, extra=0.3),
    }
    table = summarise(trainings, {"floor": {"auc": 0.4, "other": 1.0}, "none": {"other": 1.0}}, "a")
    assert table["model"].to_list() == ["a", "b", "extra", "floor"]
    assert table["seeds"].to_list() == [2, 2, 2, 0]
    np.testing.assert_allclose(table["auc"].to_list(), [0.55, 0.8, 0.2, 0.4])
    assert table["auc_sd"][0] == pytest.approx(np.std([0.5, 0.6], ddof=1))
    assert table["shift"][1] == pytest.approx(0.25)
    low, high = t_interval(np.array([0.2, 0.3]))
    assert (table["low"][1], table["high"][1]) == pytest.approx((low, high))
    assert np.isnan(table["shift"][0])
    lines = aligned(table)
    assert lines[1] == ["b", "0.8000 ± 0.1414", "0.5000 ± 0.0000", "+0.2500 (-0.3853 to +0.8853)"]
    assert lines[3] == ["floor", "0.4000", "", ""]
    page = comparison_markdown(table, heading="T", tested="9 rows", seeds="1 to 2", baseline="a")
    assert "| floor | 0.4000 |  |  |  |  |" in page
    assert (
        "| b | 0.8000 ± 0.1414 | 0.5000 ± 0.0000 | +0.2500 (-0.3853 to +0.8853) | 10 | 2 |" in page
    )


def test_scores_that_json_cannot_hold_come_back_as_nan(tmp_path):
    record = {"scores": {"a": {"auc": float("nan")}}, "epochs": 1, "weights": 2, "seconds": 0.5}
    stored = do({"x": 0}, lambda _: record, tmp_path)["x"]
    assert json.loads(Path(tmp_path / "x.json").read_text())["scores"] == {"a": {"auc": None}}
    assert np.isnan(Training.of(stored).scores["a"]["auc"])


def test_an_interval_of_one_pair_is_unknown():
    difference = paired_difference(np.array([1.0]), np.array([0.25]))
    assert difference["shift"] == 0.75
    assert np.isnan([difference["low"], difference["high"]]).all()
    single = summarise({Job("a", 1): training(a=0.5), Job("b", 1): training(b=1.0)}, {}, "a")
    assert isinstance(single, pl.DataFrame)
    assert aligned(single)[1] == ["b", "1.0000", "0.5000", "+0.5000"]
