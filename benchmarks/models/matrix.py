"""Every mechanism in every domain that it applies to, on real data: metric, parameters, time per
step.

    python benchmarks/models/matrix.py [--seeds 2] [--jobs 2] \\
        [--output runs/benchmarks/matrix] [--write docs/measured/matrix.md]

Domains: forecast (ETTh1, horizon 96, as the channel mixer of an ordinary `headwise forecast
train`), flowers (17 classes, a small vision transformer from scratch), digits (log-mel frames, two
speakers never heard in training). A finished cell is a file in OUTPUT and is not run again, so the
command goes on where it stopped. Each cell runs on one thread in a process of its own. Steps are
timed at the end, one mechanism at a time: keep the machine idle then. Data: HEADWISE_DATA, default
../shared/data.
"""

import contextlib
import json
import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from headwise.benchmarks.cells import run_cells, waiting_cells, write_cell
from headwise.benchmarks.measure import parser_of, table_header, table_row

DOMAINS = {
    "forecast": ("MSE", "any tokens", "sequence"),
    "flowers": ("accuracy", "any tokens", "sequence", "grid"),
    "digits": ("accuracy", "any tokens", "sequence"),
}
LIMIT = 170.0  # seconds a cell, less what starting it takes


def count(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())


def forecast_run(name: str, seed: int, run: Path, epochs: int):
    """The finished run of the pipeline, and milliseconds of a step in its fastest epoch."""
    import polars as pl

    from headwise import pipelines
    from headwise.benchmarks import domains

    shutil.rmtree(run, ignore_errors=True)
    data = domains.DATA / "forecast" / "ETTh1.csv.gz"
    finished = pipelines.forecast.train(
        data=str(data),
        preset="etth1",
        horizon=96,
        epochs=epochs,
        seed=seed,
        run=str(run),
        attention=name,
    )
    rates = pl.read_csv(run / "history.csv")["steps_per_second"].to_list()
    return finished, 1000 / max(rates)


def forecast(name: str, seed: int, folder: Path) -> dict:
    from safetensors.torch import load_file

    run = folder / f"run-{name}-{seed}"
    finished, _ = forecast_run(name, seed, run, epochs=8)
    weights = load_file(run / "model.safetensors")
    result = {
        "metric": finished.metrics()["mse"],
        "second": finished.metrics()["mae"],
        "parameters": sum(value.numel() for value in weights.values()),
    }
    shutil.rmtree(run)
    return result


def flowers(name: str, seed: int, folder: Path) -> dict:
    from safetensors.torch import save_file

    from headwise.benchmarks import domains

    train, test = domains.flowers()
    torch.manual_seed(seed)
    model = domains.flower_model(name)
    training = domains.fit(model, train, epochs=30, seed=seed, change=domains.shifted, limit=LIMIT)
    right = domains.accuracy(model, test)
    # Kept for the pictures of docs/reference/attention.md.
    save_file(model.state_dict(), folder / f"flowers-{name}-{seed}.safetensors")
    return {"metric": right, "parameters": count(model), **training}


def digits(name: str, seed: int, folder: Path) -> dict:
    from headwise.benchmarks import domains

    train, test = domains.digits()
    torch.manual_seed(seed)
    model = domains.digit_model(name)
    training = domains.fit(model, train, epochs=10, seed=seed, limit=LIMIT)
    return {"metric": domains.accuracy(model, test), "parameters": count(model), **training}


def timed(domain: str, name: str, folder: Path) -> tuple[str, float]:
    """The key of a cell and milliseconds of its training step, the fastest of some."""
    from headwise.benchmarks import domains

    torch.set_num_threads(1)
    torch.manual_seed(0)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        if domain == "forecast":
            run = folder / f"run-{name}-timed"
            ms = forecast_run(name, 0, run, epochs=2)[1]
            shutil.rmtree(run)
            return f"{domain} {name}", ms
        model = domains.flower_model(name) if domain == "flowers" else domains.digit_model(name)
        train, _ = domains.flowers() if domain == "flowers" else domains.digits()
        repeats = 3 if name == "tensor" else 20
        seconds = domains.seconds_a_step(model, train, repeats=repeats)
        return f"{domain} {name}", 1000 * seconds


def path_of(folder: Path, domain: str, name: str, seed: int) -> Path:
    """The file of a cell."""
    return folder / f"{domain}-{name}-{seed}.json"


def cell(domain: str, name: str, seed: int, folder: Path) -> dict:
    """One cell, written aside and renamed."""
    torch.set_num_threads(1)
    begun = time.perf_counter()
    # The progress bars of several cells would run into each other.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        result = {"forecast": forecast, "flowers": flowers, "digits": digits}[domain](
            name, seed, folder
        )
    result |= {"domain": domain, "name": name, "seed": seed, "seconds": time.perf_counter() - begun}
    write_cell(path_of(folder, domain, name, seed), result)
    return result


def table(folder: Path) -> str:
    """The matrix as markdown: mean of the seeds, and their range."""
    from headwise.models.attention import ATTENTION

    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    times = json.loads((folder / "times.json").read_text())
    for path in sorted(folder.glob("*-*-*.json")):
        row = json.loads(path.read_text())
        results.setdefault((row["domain"], row["name"]), []).append(row)
    size = ("parameters", "ms/step")
    columns = ["ETTh1 MSE (lower is better)", *size, "flowers accuracy", *size]
    lines = [table_header("mechanism", *columns, "digits accuracy", *size)]
    for name in ATTENTION:
        cells = [name]
        for domain, (_, *fits) in DOMAINS.items():
            rows = results.get((domain, name), [])
            if not rows:
                applies = ATTENTION[name].fits in fits
                cells += ["not run" if applies else "not applicable", "", ""]
                continue
            values = [row["metric"] for row in rows]
            shape = "{:.4f}" if domain == "forecast" else "{:.3f}"
            spread = "–".join(shape.format(v) for v in (min(values), max(values)))
            fitted = [row for row in rows if row.get("steps", 0) < row.get("planned", 0)]
            short = [f"{row['steps']} of {row['planned']}" for row in fitted]
            early = f" ({', '.join(short)} steps)" if short else ""
            cells += [
                f"{shape.format(statistics.mean(values))} ({spread}){early}",
                f"{rows[0]['parameters']:,}",
                f"{times[f'{domain} {name}']:.1f}",
            ]
        lines.append(table_row(*cells))
    return "\n".join(lines)


def print_cell(result: dict[str, Any]) -> None:
    """Print one line for a finished cell above the progress bar."""
    cell_name = f"{result['domain']:<10}{result['name']:<20}seed {result['seed']}"
    tqdm.write(f"{cell_name}  {result['metric']:.4f}  {result['seconds']:.0f} s")


def write_between(path: Path, text: str) -> None:
    """Put the table between the two marks of the page."""
    begin, end = "<!-- table: begin -->", "<!-- table: end -->"
    page = path.read_text()
    head, rest = page.split(begin)
    path.write_text(head + begin + "\n\n" + text + "\n\n" + end + rest.split(end)[1])


def main() -> None:
    from headwise.models.attention import ATTENTION

    parser = parser_of(__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/matrix"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time, one thread each")
    parser.add_argument("--names", nargs="+", default=list(ATTENTION), help="mechanisms (all)")
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS), choices=list(DOMAINS))
    parser.add_argument("--write", type=Path, help="page to put the table into, between its marks")
    arguments = parser.parse_args()
    keys = [
        (domain, name, seed)
        for seed in range(arguments.seeds)
        for name in arguments.names
        for domain in arguments.domains
        if ATTENTION[name].fits in DOMAINS[domain][1:]
    ]
    waiting = waiting_cells(path_of, arguments.output, keys)
    # One process for each cell: what one leaves behind in memory never slows the next.
    run_cells(cell, waiting, arguments.jobs, unit="cell", per_process=1, report=print_cell)
    times_file = arguments.output / "times.json"
    times = json.loads(times_file.read_text()) if times_file.exists() else {}

    def add_time(measured: tuple[str, float]) -> None:
        times.update([measured])
        times_file.write_text(json.dumps(times))

    untimed = [
        (domain, name, arguments.output)
        for name in arguments.names
        for domain in arguments.domains
        if ATTENTION[name].fits in DOMAINS[domain][1:] and f"{domain} {name}" not in times
    ]
    run_cells(timed, untimed, 1, unit="timed", report=add_time)
    text = table(arguments.output)
    print(text)
    if arguments.write:
        write_between(arguments.write, text)


if __name__ == "__main__":
    main()
