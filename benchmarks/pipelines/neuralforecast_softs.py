"""SOFTS here compared with the SOFTS of neuralforecast: same data, same sizes, each in a process of
its own.

    pip install -e '.[benchmark]'
    python benchmarks/pipelines/neuralforecast_softs.py [--data FILE] [--steps 300]

Training: optimiser steps of 32 windows through each library's own loop. Two lengths are timed and
subtracted, so that start-up, reading and checking do not count. Inference: forecasts of all windows
of the last --windows rows through each library's own call. Memory: the peak of the process. Without
--data a generated table is used.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from headwise.benchmarks.measure import parser_of, print_header, print_row

HORIZON = LOOKBACK = 96
SIZES = {"width": 256, "core": 256, "feedforward": 256, "layers": 1}
BATCH = 32


def ours(data: str, steps: int, windows: int) -> dict[str, float]:
    """Our numbers."""
    from dataclasses import replace

    import torch

    from headwise.pipelines import load_task
    from headwise.pipelines.engine.command_line import parse
    from headwise.pipelines.engine.runs.run_directory import RunDirectory
    from headwise.pipelines.engine.training.devices import open_fabric
    from headwise.pipelines.engine.training.loop import Trainer
    from headwise.pipelines.engine.training.storage import RunStorage
    from headwise.pipelines.forecast.scoring import batches, forward

    task = load_task("forecast")
    values = {
        "data": data,
        "horizon": HORIZON,
        "lookback": LOOKBACK,
        "marks": False,
        "batch_size": BATCH,
        **SIZES,
    }
    seconds = []
    for count in (steps // 4, steps):
        options = parse(task, "train", [], values={**values, "max_steps": count, "epochs": 1000})
        with tempfile.TemporaryDirectory() as folder:
            run = RunDirectory.create(str(Path(folder) / "run"), "forecast")
            splits = task.load().open_data(options)
            # The validation of each epoch is cut to a window: neuralforecast is timed without one.
            one_window = torch.utils.data.Subset(splits.validation, [0])
            one_window.collate = splits.validation.collate
            splits = replace(splits, validation=one_window)
            trainer = Trainer(
                task.load(),
                options,
                splits.train,
                splits.validation,
                splits.spec,
                RunStorage(run, options, first_process=True),
                open_fabric(options),
            )
            started = time.perf_counter()
            model = trainer.run()
            seconds.append(time.perf_counter() - started)
    last = list(range(len(splits.test) - windows, len(splits.test)))
    started = time.perf_counter()
    with torch.no_grad():
        for _, batch in batches(splits.test, last, torch.device("cpu"), "windows"):
            forward(model, batch)
    took = time.perf_counter() - started
    return {
        "train": (steps - steps // 4) * BATCH / (seconds[1] - seconds[0]),
        "infer": windows / took,
    }


def theirs(data: str, steps: int, windows: int) -> dict[str, float]:
    """Numbers of neuralforecast."""
    import logging
    import warnings

    import pandas as pd
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MSE
    from neuralforecast.models import SOFTS

    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    wide = pd.read_csv(data, parse_dates=["date"])
    long = wide.melt("date", var_name="unique_id", value_name="y").rename(columns={"date": "ds"})
    train = long[long.ds <= wide.date.iloc[int(0.7 * len(wide))]]

    def make(count: int) -> NeuralForecast:
        model = SOFTS(
            h=HORIZON,
            input_size=LOOKBACK,
            n_series=len(wide.columns) - 1,
            hidden_size=SIZES["width"],
            d_core=SIZES["core"],
            d_ff=SIZES["feedforward"],
            e_layers=SIZES["layers"],
            dropout=0.0,
            loss=MSE(),
            learning_rate=3e-4,
            max_steps=count,
            windows_batch_size=BATCH,
            inference_windows_batch_size=256,
            step_size=1,
            scaler_type="identity",
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            accelerator="cpu",
        )
        return NeuralForecast(models=[model], freq="h")

    seconds = []
    for count in (steps // 4, steps):
        forecaster = make(count)
        started = time.perf_counter()
        forecaster.fit(train)
        seconds.append(time.perf_counter() - started)
    tail = long[long.ds >= wide.date.iloc[-(LOOKBACK + HORIZON + windows - 1)]]
    started = time.perf_counter()
    forecasts = forecaster.cross_validation(
        df=tail, n_windows=windows, step_size=1, use_fitted=True, refit=False
    )
    took = time.perf_counter() - started
    assert len(forecasts) == windows * HORIZON * (len(wide.columns) - 1)
    return {
        "train": (steps - steps // 4) * BATCH / (seconds[1] - seconds[0]),
        "infer": windows / took,
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--data", help="wide csv with a `date` column, hourly (csv.gz too)")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--only", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        result = (ours if arguments.only == "ours" else theirs)(
            arguments.data, arguments.steps, arguments.windows
        )
        result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("RESULT " + json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data
        if data is None:
            from headwise.data.series.generate import sample_series, write_wide

            data = f"{folder}/generated.csv"
            write_wide(sample_series(rows=10_000), data)
        results: dict[str, dict[str, float]] = {}
        for library in ("ours", "theirs") * 2:  # in turn; the better of both counts
            command = [sys.executable, __file__, "--only", library, "--data", data]
            command += ["--steps", str(arguments.steps), "--windows", str(arguments.windows)]
            finished = subprocess.run(command, capture_output=True, text=True, cwd=folder)
            if finished.returncode:
                sys.exit(f"{library} failed:\n{finished.stderr[-2000:]}")
            lines = finished.stdout.splitlines()
            result = json.loads(next(line for line in lines if line.startswith("RESULT"))[7:])
            before = results.setdefault(library, result)
            results[library] = {
                key: (min if key == "peak_mib" else max)(value, before[key])
                for key, value in result.items()
            }
    headwise, rival = results["ours"], results["theirs"]
    print_header("", "Headwise", "neuralforecast", "ratio")
    for key, name in (
        ("train", "training, windows/s"),
        ("infer", "inference, windows/s"),
        ("peak_mib", "peak memory, MiB"),
    ):
        ratio = f"{headwise[key] / rival[key]:.2f}"
        print_row(name, f"{headwise[key]:,.0f}", f"{rival[key]:,.0f}", ratio)


if __name__ == "__main__":
    main()
