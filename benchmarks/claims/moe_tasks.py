"""Dense, mixture of experts and similarity-aware mixture (arXiv 2505.00792) on real tasks at equal
active parameters.

    python benchmarks/claims/moe_tasks.py [--seeds 3] [--jobs 1] \\
        [--output runs/benchmarks/moe_tasks]

Forecasting: ETTh1 (horizon 96, the paper's options) and a week of METR-LA (207 sensors, horizon 12)
by the pipeline, `--ffn moe --experts 8 --active 2`. Table: MovieLens-100k as two nested tasks,
rating >= 4 and rating = 5, per user in time order 80/10/10; a small encoder over ten fields. Each
expert is half as wide as the dense network, so that two are as large. Printed: mean of the metric
over seeds with a 95 % interval (Student); the difference to the dense form of the same seed; and
for noise on the inputs (Gaussian, a tenth and three tenths of their deviation) the metric and the
share of tokens whose set of experts changes. Finished cells are kept.
"""

import csv
import json
import shutil
import statistics
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn

from headwise.benchmarks.cells import (
    DATA,
    difference,
    run_cells,
    student,
    waiting_cells,
    write_cell,
)
from headwise.benchmarks.measure import parser_of, print_header, print_row
from headwise.models.attention.base import auxiliary_loss
from headwise.models.moe.layer import MoE
from headwise.models.moe.watch import flip_rate

FORMS = {
    "dense": {"ffn": "mlp"},
    "MoE": {"ffn": "moe"},
    "similarity-aware MoE": {"ffn": "moe", "router": "similarity"},
    "similarity-aware MoE, temperature 1": {
        "ffn": "moe",
        "router": "similarity",
        "router_temperature": 1.0,
    },
}
NOISE = (0.1, 0.3)
SENSORS = {"width": 128, "core": 64, "feedforward": 128, "layers": 2, "batch_size": 16}
TASKS = {"ETTh1": "MSE", "METR-LA": "MSE", "MovieLens like": "AUC", "MovieLens love": "AUC"}


def noisy(x: Tensor, share: float) -> Tensor:
    """Gaussian noise of this share of the deviation, the same for every model."""
    return x + share * x.std() * torch.randn(x.shape, generator=torch.Generator().manual_seed(5))


def routings(model: nn.Module) -> list:
    return [part.routing for part in model.modules() if isinstance(part, MoE)]


def flips(before: list, after: list) -> float | None:
    """Mean over layers; None without experts."""
    return statistics.mean(flip_rate(a, b) for a, b in zip(before, after)) if before else None


def mean_or_none(values: list[float | None]) -> float | None:
    """Mean of what `flips` gave; None without experts."""
    numbers = [value for value in values if value is not None]
    return statistics.mean(numbers) if numbers else None


# forecasting


def forecast(task: str, form: str, seed: int, run: Path) -> dict:
    """Train by the pipeline, then measure the finished run with and without noise."""
    from headwise.pipelines.engine.runs.loaded import load_run
    from headwise.pipelines.forecast import TASK, train
    from headwise.pipelines.forecast.scoring import forward

    folder = DATA / "forecast"
    options = {
        "ETTh1": {"data": str(folder / "ETTh1.csv.gz"), "preset": "etth1"},
        "METR-LA": {
            "data": str(folder / "metr_la_1week_los_speed.csv.gz"),
            "frequency": "5m",
            "horizon": 12,
        }
        | SENSORS,
    }[task]
    shutil.rmtree(run, ignore_errors=True)
    train(run=str(run), seed=seed, workers=0, **options, **FORMS[form])
    pipeline = TASK.load()
    loaded = load_run(pipeline, str(run), "cpu")
    test = pipeline.open_data(loaded.options, loaded.spec).test
    errors, changed = {share: [0.0, 0] for share in (0.0, *NOISE)}, {share: [] for share in NOISE}
    with torch.no_grad():
        clean: list = []
        for rows in torch.arange(0, len(test), 4).split(64):
            batch = test.__getitems__(rows.tolist())
            for share in errors:
                past = noisy(batch["past"], share) if share else batch["past"]
                error = forward(loaded.model, batch | {"past": past}) - batch["future"]
                errors[share][0] += float(error.double().square().sum())
                errors[share][1] += error.numel()
                if share:
                    changed[share].append(flips(clean, routings(loaded.model)))
                else:
                    clean = routings(loaded.model)
    result: dict[str, float | None] = {"metric": loaded.run.metrics()["mse"]}
    for share in NOISE:
        result[f"noise {share}"] = errors[share][0] / errors[share][1]
        result[f"flips {share}"] = mean_or_none(changed[share])
    result["weights"] = sum(value.numel() for value in loaded.model.state_dict().values())
    shutil.rmtree(run)
    return {task: result}


# a table with two tasks


def movielens() -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Fields (R, 10) as numbers from 0, labels (R, 2), part of each row (0, 1, 2), sizes of the
    fields.
    """

    def table(name: str) -> list[dict[str, str]]:
        with open(DATA / "recsys" / "ml-100k" / f"ml-100k.{name}", newline="") as file:
            return [
                {k.split(":")[0]: v for k, v in row.items()}
                for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            ]

    users = {row["user_id"]: row for row in table("user")}
    items = {row["item_id"]: row for row in table("item")}
    log = sorted(table("inter"), key=lambda row: (int(row["user_id"]), float(row["timestamp"])))
    fields, labels, parts = [], [], []
    totals: dict[str, int] = {}
    for row in log:
        totals[row["user_id"]] = totals.get(row["user_id"], 0) + 1
    counts: dict[str, int] = {}
    for row in log:
        user, item = users[row["user_id"]], items[row["item_id"]]
        when = datetime.fromtimestamp(float(row["timestamp"]), UTC)
        genres = item["class"].split()
        fields.append(
            (
                row["user_id"],
                row["item_id"],
                int(user["age"]) // 5,
                user["gender"],
                user["occupation"],
                user["zip_code"][:2],
                item["release_year"],
                item["class"],
                genres[0] if genres else "",
                when.hour,
            )
        )
        labels.append((float(row["rating"]) >= 4, float(row["rating"]) == 5))
        place = counts[row["user_id"]] = counts.get(row["user_id"], 0) + 1
        share = place / totals[row["user_id"]]
        parts.append(0 if share <= 0.8 else 1 if share <= 0.9 else 2)
    columns, sizes = [], []
    for column in zip(*fields):
        # What the training part does not hold is number 0.
        known = {
            value: i
            for i, value in enumerate(
                sorted({v for v, p in zip(column, parts) if p == 0}, key=str), 1
            )
        }
        columns.append([known.get(value, 0) for value in column])
        sizes.append(len(known) + 1)
    return torch.tensor(columns).T, torch.tensor(labels).float(), torch.tensor(parts), sizes


class TableModel(nn.Module):
    """One token a field, two layers of attention and feed-forward network, one logit a task."""

    def __init__(self, sizes: list[int], options: dict, width: int = 32) -> None:
        super().__init__()
        from headwise.models.attention import build_attention
        from headwise.models.layers.blocks import EncoderLayer, build_feedforward

        moe = {"experts": 8, "active": 2}
        if "router" in options:
            moe |= {"mixing": options["router"], "temperature": options.get("router_temperature")}
        self.embed = nn.Embedding(sum(sizes), width)
        nn.init.normal_(self.embed.weight, std=0.1)
        self.start: Tensor
        self.register_buffer("start", torch.tensor([0, *sizes[:-1]]).cumsum(0))
        self.layers = nn.ModuleList(
            EncoderLayer(
                width,
                build_attention("softmax", width, 4),
                build_feedforward(options["ffn"], width, 4 * width, dropout=0.2, moe=moe),
                dropout=0.2,
            )
            for _ in range(2)
        )
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(len(sizes) * width, 2)

    def forward(self, rows: Tensor, noise: float = 0.0) -> Tensor:
        tokens = self.embed(rows + self.start)
        x = self.dropout(noisy(tokens, noise) if noise else tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.flatten(1))


def aucs(logits: Tensor, labels: Tensor) -> list[float]:
    from sklearn.metrics import roc_auc_score

    return [float(roc_auc_score(labels[:, i], logits[:, i])) for i in range(2)]


def table(form: str, seed: int) -> dict:
    """Train with early stopping on the mean AUC of the validation part."""
    fields, labels, parts, sizes = movielens()
    torch.manual_seed(seed)
    model = TableModel(sizes, FORMS[form])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    train, rest = (
        (parts == 0).nonzero().flatten(),
        [(parts == i).nonzero().flatten() for i in (1, 2)],
    )
    dice, best, best_state, waited = torch.Generator().manual_seed(seed), 0.0, {}, 0

    @torch.no_grad()
    def scores(rows: Tensor, noise: float = 0.0) -> tuple[Tensor, list]:
        logits, batches = [], []
        for part in rows.split(1024):
            logits.append(model.eval()(fields[part], noise))
            batches.append(routings(model))
        return torch.cat(logits), batches

    while waited < 3:
        for rows in train[torch.randperm(len(train), generator=dice)].split(1024):
            loss = nn.functional.binary_cross_entropy_with_logits(
                model.train()(fields[rows]), labels[rows]
            )
            extra = auxiliary_loss(model)
            optimiser.zero_grad(set_to_none=True)
            (loss if extra is None else loss + extra).backward()
            optimiser.step()
        now = statistics.mean(aucs(scores(rest[0])[0], labels[rest[0]]))
        waited += 1
        if now > best:
            best, waited = now, 0
            best_state = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best_state)
    logits, clean = scores(rest[1])
    results: list[dict[str, float | None]] = [
        {"metric": auc} for auc in aucs(logits, labels[rest[1]])
    ]
    for share in NOISE:
        logits, noisy_routings = scores(rest[1], share)
        changed = mean_or_none([flips(a, b) for a, b in zip(clean, noisy_routings)])
        for row, auc in zip(results, aucs(logits, labels[rest[1]])):
            row |= {f"noise {share}": auc, f"flips {share}": changed}
    for row in results:
        row["weights"] = sum(value.numel() for value in model.parameters())
    return {"MovieLens like": results[0], "MovieLens love": results[1]}


def cell(kind: str, form: str, seed: int, folder: Path) -> None:
    """Train one model and keep what is measured on it."""
    torch.set_num_threads(1)
    path = path_of(folder, kind, form, seed)
    result = (
        table(form, seed)
        if kind == "MovieLens"
        else forecast(kind, form, seed, path.with_suffix(".run"))
    )
    write_cell(path, result)


def path_of(folder: Path, kind: str, form: str, seed: int) -> Path:
    """The file of a cell."""
    return folder / f"{kind}-{list(FORMS).index(form)}-{seed}.json"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/moe_tasks"))
    arguments = parser.parse_args()
    folder, seeds = arguments.output, range(arguments.seeds)
    kinds = ("MovieLens", "ETTh1", "METR-LA")
    cells = [(kind, form, seed) for seed in seeds for kind in kinds for form in FORMS]
    run_cells(cell, waiting_cells(path_of, folder, cells), arguments.jobs)
    shares = [f"{kind} {share}" for share in NOISE for kind in ("noise", "flips")]
    print_header("task", "form", "weights", "test (95 %)", "minus dense", *shares)
    for task, metric in TASKS.items():
        dense: list[float] = []
        for form in FORMS:
            paths = [path_of(folder, task.split()[0], form, seed) for seed in seeds]
            rows = [json.loads(path.read_text())[task] for path in paths]
            metrics = [row["metric"] for row in rows]
            dense = dense or metrics
            change = "" if metrics is dense else difference(metrics, dense, digits=4)
            means = [mean_or_none([row[key] for row in rows]) for key in shares]
            print_row(
                f"{task}, {metric}",
                form,
                f"{rows[0]['weights']:,}",
                "{:.4f} ({:.4f}–{:.4f})".format(*student(metrics)),
                change,
                *("" if mean is None else f"{mean:.4f}" for mean in means),
            )


if __name__ == "__main__":
    main()
