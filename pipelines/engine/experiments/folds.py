"""Cross-validation: the trainings of all folds, and what they predict as one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from ....base.account import Account
from ....base.files import write_aside
from ..accounts import publish
from ..pipeline import Schema
from ..runs.run_directory import ACCOUNT
from .jobs import Job, Record, claimed, run_jobs


def predictions_of_folds(
    output: Path,
    account: Account,
    jobs: Sequence[Job],
    work: Callable[[Job], Record],
    fingerprint: str,
    schema: Schema,
    processes: int,
) -> pl.DataFrame:
    """Do the jobs that are not in OUTPUT/folds, and write OUTPUT/predictions.parquet; returns it.

    work: gives the columns of a job's rows as "predictions"; see `run_jobs`.
    """
    with claimed(output, "folds") as home:
        publish(account, output / ACCOUNT)
        records = run_jobs(
            {job.name: job for job in jobs},
            work,
            home,
            fingerprint,
            title="crossval",
            unit="fold",
            processes=processes,
        )
    tables = [pl.DataFrame(record["predictions"], schema=schema) for record in records.values()]
    table = pl.concat(tables)
    write_aside(output / "predictions.parquet", lambda path: table.write_parquet(path))
    return table
