"""Faults of batch inference: kills under each engine, broken items, full disks."""

import json
import time
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from headwise.data.series.generate import many_series

pytestmark = pytest.mark.timeout(1200)  # for the long forms


def finish(launch, words, output, most=10):
    """Start again until done; gives the exit code and the number of starts."""
    for starts in range(1, most + 1):
        code, command = launch.run(*words, "--output", output)
        if code in (0, 3):
            return code, starts
    raise AssertionError(command.text())


ENGINES = {
    "local": ([], 2, 8),
    "local, 2 processes": (["--processes", "2"], 1, 6),
    "ray": (["--engine", "ray", "--processes", "2"], 0, 6),  # each start of Ray takes many seconds
}


SHORT = [(engine, short) for engine, (_, short, _) in ENGINES.items() if short]
LONG = [
    pytest.param(engine, long, marks=pytest.mark.slow) for engine, (_, _, long) in ENGINES.items()
]


@pytest.mark.parametrize(("engine", "kills"), [*SHORT, *LONG])
def test_f8_kill_while_predicting(tally, launch, many, tmp_path, dice, engine, tries):
    words, once, _ = many
    more = ENGINES[engine][0]
    for attempt in tries:
        output = tmp_path / f"{attempt}.parquet"
        parts, shards = (
            Path(f"{output}.parts"),
            dice.randint(0, 18),
        )  # shards that stand when the kill comes
        killed = launch.kill_when(
            [*words, "--output", output, *more],
            lambda: len(list(parts.glob("part-*.parquet"))) >= shards,  # noqa: B023  (called within the same turn)
            dice.uniform(0, 0.02),
        )
        if not killed or output.exists():
            continue  # it was done before the kill came: no try
        tries.done += 1
        code, _ = finish(launch, [*words, *more], output)
        same = output.read_bytes() == once.read_bytes()
        clean = sorted(p.name for p in tmp_path.glob(f"{attempt}.parquet*")) == [
            f"{attempt}.parquet",
            f"{attempt}.parquet.account.json",
        ]
        tally(
            f"F8 SIGKILL while predicting ({engine})",
            code == 3 and same and clean,
            f"{code} {same} {clean}",
        )


def test_f9_broken_items_are_listed_and_stop_nothing(tally, launch, many, tmp_path):
    words, once, broken = many
    table = pl.read_parquet(once)
    failed = table.filter(pl.col("status") == "error")
    ok = set(failed["item"]) == set(broken) and len(failed) == len(broken) == 4
    good = table.filter(pl.col("status") == "ok")
    ok = (
        ok
        and good["item"].n_unique() == 396
        and good.height == 396 * 12
        and good["forecast"].is_finite().all()
    )
    code, command = launch.run(*words, "--output", tmp_path / "again.parquet")
    ok = ok and code == 3 and all(name in command.text() for name in broken)
    # The others have the rows that they have without the broken ones among them.
    source = pl.read_csv(words[words.index("--input") + 1], schema_overrides={"y": pl.String})
    source.filter(~pl.col("unique_id").is_in(list(broken))).write_csv(tmp_path / "good.csv")
    alone = [*words[:4], "--input", tmp_path / "good.csv", "--output", tmp_path / "good.parquet"]
    code, command = launch.run(*alone)
    assert code == 0, command.text()
    assert_frame_equal(
        pl.read_parquet(tmp_path / "good.parquet").drop("file"), good.drop("file"), abs_tol=1e-3
    )
    tally("F9 broken items", ok, command.text())


def test_f4_disk_full_while_predicting(tally, launch, many, tmp_path):
    words, once, _ = many
    output = tmp_path / "o.parquet"
    code, command = launch.run(*words, "--output", output, file_limit=3_000)
    lines = [line for line in command.text().splitlines() if line.startswith("headwise: ")]
    ok = (
        code == 2
        and len(lines) == 1
        and "o.parquet" in lines[0]
        and "Traceback" not in command.text()
    )
    ok = ok and not output.exists()
    code, _ = launch.run(*words, "--output", output)
    tally(
        "F4 disk full while predicting",
        ok and output.read_bytes() == once.read_bytes(),
        command.text(),
    )


def test_ranks_share_the_shards(launch, many, tmp_path, monkeypatch):
    """RANK and WORLD_SIZE of torchrun or a job array: shard k belongs to rank k modulo the
    world.
    """
    import subprocess
    import sys

    words, once, _ = many
    output = tmp_path / "o.parquet"
    command = [
        sys.executable,
        "-m",
        "headwise.pipelines.engine",
        *map(str, words),
        "--output",
        str(output),
    ]
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == (3 if rank == 0 else 0), done.stderr
        if rank == 1:
            assert len(list(tmp_path.glob("o.parquet.parts/part-*"))) == 10
            assert not output.exists()
    assert output.read_bytes() == once.read_bytes()


@pytest.mark.slow
def test_ten_thousand_series_in_bounded_memory(launch, many, tmp_path):
    """Killed halfway and started again it ends with the file of an unbroken run, and stays under
    1.5 GB.
    """
    run = many[0][3]
    source = tmp_path / "many.csv"
    broken = many_series(10_000, 300, source, broken=5)
    words = ["forecast", "predict", "--run", run, "--input", source]
    expected, output = tmp_path / "whole.parquet", tmp_path / "o.parquet"
    started = time.monotonic()
    command = launch.start(*words, "--output", expected)
    peak = 0
    while command.running():
        try:
            lines = Path(f"/proc/{command.pid}/status").read_text().splitlines()
            peak = max(
                [peak, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))]
            )
        except OSError:
            break
        time.sleep(0.05)
    code = command.wait()
    took = time.monotonic() - started
    assert code == 3
    assert all(name in command.text() for name in broken)
    command = launch.start(*words, "--output", output)
    while len(list(tmp_path.glob("o.parquet.parts/part-*"))) < 5:
        time.sleep(0.01)
    command.kill()
    command.wait()
    assert launch.run(*words, "--output", output)[0] == 3
    assert output.read_bytes() == expected.read_bytes()
    table = pl.read_parquet(output)
    assert set(table.filter(pl.col("status") == "error")["item"]) == set(broken)
    assert table["item"].n_unique() == 10_000
    print(json.dumps({"series": 10_000, "seconds": round(took, 1), "peak_mib": peak // 1024}))
    assert peak < 1.5 * 2**20
