"""Claim: Gaussian adaptive attention classifies recordings better than multi-head attention (GAAM,
arXiv 2401.11143), and its importance factor tells which tokens matter.

    python benchmarks/claims/gaam.py [--seeds 3] [--takes 50] [--epochs 20] [--features mfcc]
    [--jobs 1] [--output FOLDER]

The Free Spoken Digit Dataset (HEADWISE_DATA/speech/fsdd): the digit, each of the six speakers held
out in turn, and the speaker, a fifth of the takes held out in turn. All heads have equally many
weights (within 1 %): the feed-forward network is wider where the head has few. Per head: accuracy
with its 95 % interval over the speakers (or takes) held out, seeds averaged; the difference to mean
pooling on the same recordings, with McNemar's exact test of the first seed; and the check of the
importance factor: by how much more the log-probability of the true class falls when the tokens of
the highest importance are deleted than when random ones are. The simple model is logistic
regression of MFCC statistics. Finished cells are kept.
"""

import json
from pathlib import Path
from typing import Any

from headwise.benchmarks.cells import DATA, run_cells, waiting_cells, write_cell
from headwise.benchmarks.measure import parser_of, print_header, print_row

FSDD = DATA / "speech" / "fsdd" / "recordings"
TASKS = {"digit": "{label}_{speaker}_*", "speaker": "*_{label}_{group}"}
HEADS = ("mean", "attention", "gaam", "gaam-density", "gaam-mixture", "grouped-gaam")
SIMPLE = "simple"
WIDTH, HIDDEN = 64, 128  # of the model with multi-head attention
TAKE_FOLDS = 5


def cell(
    task: str, head: str, seed: int, takes: int, epochs: int, features: str, folder: Path
) -> None:
    """Cross-validate a head by a seed; keeps what it gets right, and the check by deletion."""
    import numpy as np
    import torch
    from torch import nn

    from headwise.data.speech.labelled import list_labelled
    from headwise.pipelines import load_task
    from headwise.pipelines.engine.feature_cache import FeatureCache
    from headwise.pipelines.engine.pipeline import Splits
    from headwise.pipelines.engine.subsets import Subsets, stratified_folds, take_stratified
    from headwise.pipelines.engine.training.quick import fit
    from headwise.pipelines.recordings.data import RecordingSet, read_listed, spec_of
    from headwise.pipelines.recordings.deletion import check_deletion
    from headwise.pipelines.recordings.features import ClipReader
    from headwise.pipelines.recordings.options import RecordingsOptions
    from headwise.pipelines.recordings.rungs import RecordingRungs, logits_of

    torch.set_num_threads(1)
    pipeline: Any = load_task("recordings").load()
    device = torch.device("cpu")
    options: Any = RecordingsOptions(
        data=str(FSDD),
        pattern=TASKS[task],
        features=features,  # pyright: ignore[reportArgumentType]
        epochs=epochs,
        seed=seed,
        width=WIDTH,
        hidden=HIDDEN,
        lr=3e-3,
    )
    listed = list_labelled(FSDD, pattern=TASKS[task])
    listed = [u for u in listed if int(u.name[:-4].split("_")[2]) < takes]
    with FeatureCache() as cache:
        reader = ClipReader(options.features, options.weights, options.seconds, cache)
        source = read_listed(str(FSDD), listed, reader)
    labels, groups = np.array(source.labels), np.array(source.groups)
    codes, classes = np.unique(labels, return_inverse=True)[1], sorted(set(source.labels))
    folds = (
        [np.flatnonzero(groups == name) for name in np.unique(groups)]
        if task == "digit"
        else stratified_folds(codes, groups, min(TAKE_FOLDS, takes), 0)
    )
    right, gains, weights = np.zeros(len(source), bool), np.full(len(source), np.nan), 0
    for test in folds:
        rest = np.setdiff1d(np.arange(len(source)), test)
        validation, train = take_stratified(FSDD, rest, labels[rest], groups[rest], 0.2, 0)
        spec = spec_of(source, Subsets(train, validation, test), classes, options)
        parts = [RecordingSet(source, rows, classes) for rows in (train, validation, test)]
        splits = Splits(parts[0], parts[1], parts[2], spec)
        if head == SIMPLE:
            model: Any = RecordingRungs().simple(nn.Identity(), splits, options, device)["simple"]
            model = model.model
        else:
            chosen = equal_weights(pipeline, options, head, spec)
            model, _ = fit(pipeline, chosen, parts[0], spec, device, validation=parts[1])
            weights = sum(weight.numel() for weight in model.parameters())
            if model.has_importance:
                gains[test] = check_deletion(model, parts[2], device, draws=5, seed=seed).gains
        logits = logits_of({"model": model}, parts[2], device)["model"]
        right[test] = logits.argmax(1) == parts[2].labels
    result = {
        "right": right.astype(int).tolist(),
        "groups": groups.tolist(),
        "gains": [] if np.isnan(gains).all() else gains.tolist(),
        "weights": weights,
    }
    write_cell(path_of(folder, task, head, seed, takes, epochs, features), result)


def equal_weights(pipeline: Any, options: Any, head: str, spec: Any) -> Any:
    """The options of a head, whose feed-forward network is so wide that the model has as many
    weights as that with multi-head attention.
    """
    from dataclasses import replace

    def count(head: str, hidden: int) -> int:
        model = pipeline.build_model(replace(options, head=head, hidden=hidden), spec)
        return sum(weight.numel() for weight in model.parameters())

    target, least = count("attention", HIDDEN), count(head, 1)
    step = count(head, 2) - least
    return replace(options, head=head, hidden=1 + round((target - least) / step))


def path_of(
    folder: Path, task: str, head: str, seed: int, takes: int, epochs: int, features: str
) -> Path:
    """The file of a cell."""
    return folder / f"{task}-{head}-{seed}-{takes}-{epochs}-{features}.json"


def report(task: str, cells: dict[str, list[dict[str, Any]]]) -> None:
    """Print a row for each head; cells: of each seed by head."""
    import numpy as np

    from headwise.pipelines.metrics.bootstrap import interval_of_mean
    from headwise.pipelines.metrics.classification import paired_accuracy

    def text(values: Any, groups: Any, sign: str = "") -> str:
        low, high = interval_of_mean(values, groups)
        return f"{values.mean():{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"

    groups = cells[SIMPLE][0]["groups"]
    right = {name: np.mean([row["right"] for row in rows], axis=0) for name, rows in cells.items()}
    for head, rows in cells.items():
        gap = difference = check = ""
        if head != "mean":
            difference = text(right[head] - right["mean"], groups, "+")
            first, second = (np.array(cells[name][0]["right"], bool) for name in (head, "mean"))
            gap = f"{paired_accuracy(first, second, groups).p:.2g}"
        if rows[0]["gains"]:
            check = text(np.mean([row["gains"] for row in rows], axis=0), groups, "+")
        accuracy = text(right[head], groups)
        print_row(task, head, f"{rows[0]['weights']:,}", accuracy, difference, gap, check)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--takes", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--features", default="mfcc")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/gaam"))
    arguments = parser.parse_args()
    if not FSDD.is_dir():
        raise SystemExit(f"{FSDD}: not there (set HEADWISE_DATA)")
    if arguments.takes < 3:
        raise SystemExit("--takes: needs three, to train, validate and test")
    size = (arguments.takes, arguments.epochs, arguments.features)
    keys = [
        (task, head, seed)
        for task in arguments.tasks
        for seed in range(arguments.seeds)
        for head in (*HEADS, SIMPLE)
        if head != SIMPLE or not seed
    ]
    waiting = waiting_cells(path_of, arguments.output, [(*key, *size) for key in keys])
    run_cells(cell, waiting, arguments.jobs)
    print_header(
        "task", "head", "weights", "accuracy (95 %)", "− mean pooling", "McNemar p", "deletion gain"
    )
    for task in arguments.tasks:
        cells: dict[str, list[dict[str, Any]]] = {}
        for name, head, seed in keys:
            if name == task:
                path = path_of(arguments.output, task, head, seed, *size)
                cells.setdefault(head, []).append(json.loads(path.read_text()))
        report(task, cells)


if __name__ == "__main__":
    main()
