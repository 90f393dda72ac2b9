"""Train SOFTS with the published presets and compare the test errors with the paper's.

    python benchmarks/pipelines/forecast.py --folder DATA --sets etth1 ettm2 \\
        [--output runs/benchmarks/forecast]

DATA holds ETTh1.csv.gz and so on (or .csv). Each run is an ordinary `headwise forecast train`;
finished runs are kept, so that the command goes on where it stopped. The table is printed and
written to OUTPUT/table.md.
"""

import json
from pathlib import Path
from typing import Any

from headwise import pipelines
from headwise.benchmarks.measure import parser_of, table_header, table_row

# Mean MSE/MAE over the four horizons: SOFTS paper, Table 2.
PAPER = {
    "etth1": (0.449, 0.442),
    "etth2": (0.373, 0.400),
    "ettm1": (0.393, 0.403),
    "ettm2": (0.287, 0.330),
    "weather": (0.255, 0.278),
}
FILES = {
    "etth1": "ETTh1",
    "etth2": "ETTh2",
    "ettm1": "ETTm1",
    "ettm2": "ETTm2",
    "weather": "weather",
}


def run_one(data: Path, preset: str, horizon: int, seed: int, folder: Path) -> dict[str, Any]:
    """Metrics of one run, trained only if it does not exist yet."""
    path = folder / f"{preset}-{horizon}-seed{seed}"
    if not (path / "report.html").exists():
        pipelines.forecast.train(
            data=str(data),
            preset=preset,
            horizon=horizon,
            seed=seed,
            run=str(path),
            resume=(path / "config.yaml").exists(),
        )
    return json.loads((path / "metrics.json").read_text())


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["etth1"], choices=list(PAPER))
    parser.add_argument("--horizons", nargs="+", type=int, default=[96, 192, 336, 720])
    parser.add_argument("--seeds", nargs="+", type=int, default=[2021])
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/forecast"))
    arguments = parser.parse_args()
    naive_columns = ("repeat last", "repeat 24 h")
    columns = ("set", "horizon", "MSE", "MAE", "95 % interval holds", *naive_columns)
    lines = [table_header(*columns, "paper MSE/MAE")]
    for name in arguments.sets:
        paths = [arguments.folder / f"{FILES[name]}{ending}" for ending in (".csv.gz", ".csv")]
        data = next(path for path in paths if path.exists())
        rows = []
        for horizon in arguments.horizons:
            seeds = [
                run_one(data, name, horizon, seed, arguments.output) for seed in arguments.seeds
            ]
            mse, mae = (sum(m[key] for m in seeds) / len(seeds) for key in ("mse", "mae"))
            rows.append((mse, mae))
            naive = [f"{b['mse']:.3f}/{b['mae']:.3f}" for b in seeds[0]["baselines"].values()]
            coverage = sum(m["intervals"][-1]["coverage"] for m in seeds) / len(seeds)
            errors = f"{mse:.3f}", f"{mae:.3f}", f"{coverage:.1%}"
            lines.append(table_row(name, horizon, *errors, *[*naive, "–"][:2], ""))
        mse, mae = (sum(row[i] for row in rows) / len(rows) for i in (0, 1))
        paper = "/".join(f"{error:.3f}" for error in PAPER[name])
        lines.append(table_row(name, "mean", f"**{mse:.3f}**", f"**{mae:.3f}**", "", "", "", paper))
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
