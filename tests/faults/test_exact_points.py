"""Kills at named lines of training and prediction: between two writes, where a random moment hardly
ever falls.
"""

import polars as pl
import pytest

from .test_training import resume, same_result

ENGINE, FORECAST = "headwise.pipelines.engine", "headwise.pipelines.forecast"
# The small training has 54 steps an epoch and 11 checkpoints in it; (module, function, which call
# of it).
TRAINING = {
    "before environment.json": (f"{ENGINE}.training.jobs", "machine.environment", 1),
    "before config.yaml": (f"{ENGINE}.training.jobs", "dump_options", 1),
    "before spec.json": (f"{ENGINE}.training.jobs", "_check_spec", 1),
    "inside epoch 1, before any checkpoint": (f"{ENGINE}.training.loop", "Trainer._step", 3),
    "inside a save, one file written": (f"{ENGINE}.runs.checkpoint", "flush", 2),
    "inside a save, before the pointer": (f"{ENGINE}.runs.checkpoint", "write_text", 3),
    "before old checkpoints are removed": (f"{ENGINE}.runs.checkpoint", "prune", 4),
    "inside epoch 1": (f"{ENGINE}.training.loop", "Trainer._step", 38),
    "inside validation": (f"{FORECAST}.pipeline", "forward", 55),
    "at the border, before history.csv": (f"{ENGINE}.training.storage", "write_history", 11),
    "inside epoch 3": (f"{ENGINE}.training.loop", "Trainer._step", 130),
    "while intervals are calibrated": (f"{FORECAST}.pipeline", "ForecastPipeline.calibrate", 1),
    "in the review": (f"{FORECAST}.pipeline", "ForecastPipeline.review", 1),
    "between metrics.json and the weights": (f"{ENGINE}.training.jobs", "_card", 1),
    "before the predictions are joined": (f"{ENGINE}.inference.shards", "_join", 1),
    "before the report": (f"{ENGINE}.training.jobs", "write_report", 1),
}
SHORT = [
    "before config.yaml",
    "inside a save, before the pointer",
    "inside validation",
    "between metrics.json and the weights",
]


@pytest.mark.parametrize(
    "point", [p if p in SHORT else pytest.param(p, marks=pytest.mark.slow) for p in TRAINING]
)
def test_f2_kill_at_a_named_point(tally, launch, train, unbroken, tmp_path, point):
    run = tmp_path / "run"
    code, command = launch.run(*train, "--run", run, die_at=TRAINING[point])
    assert code == -9, f"{point}: never reached: {command.text()}"
    code, command = resume(launch, train, run)
    assert "Traceback" not in command.text(), command.text()
    why = same_result(run, unbroken[0]) if code == 0 else command.text()
    tally(
        "F2 SIGKILL at a named point of training, resumed bit for bit", not why, f"{point}: {why}"
    )


PREDICTING = {
    "before the plan": (f"{ENGINE}.inference.plan", "Plan.claimed", 1),
    "before a shard is renamed": ("headwise.base.files", "os.replace", 4),
    "before the joined file is renamed": ("headwise.base.files", "os.replace", 22),
    "before the parts are removed": (f"{ENGINE}.inference.plan", "Plan.remove", 1),
}


@pytest.mark.parametrize("point", PREDICTING)
def test_f8_kill_at_a_named_point(tally, launch, many, tmp_path, point):
    words, once, _ = many
    output = tmp_path / "o.parquet"
    code, command = launch.run(*words, "--output", output, die_at=PREDICTING[point])
    assert code == -9, f"{point}: never reached: {command.text()}"
    assert not output.exists() or pl.read_parquet(output).equals(pl.read_parquet(once))
    code, command = launch.run(*words, "--output", output)
    temporaries = [
        path.name
        for path in tmp_path.iterdir()
        if path.name not in ("o.parquet", "o.parquet.lock", "o.parquet.account.json")
    ]
    ok = code == 3 and output.read_bytes() == once.read_bytes() and not temporaries
    tally(
        "F8 SIGKILL at a named point of predicting",
        ok,
        f"{point}: {code} {temporaries} {command.text()}",
    )
