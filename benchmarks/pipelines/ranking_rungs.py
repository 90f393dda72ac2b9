"""Each simple model of ranking on the test part: which of them the ladder would have chosen, and
what the others score.

    python benchmarks/pipelines/ranking_rungs.py [--seeds 3] -- --data DATA/ml-100k

What follows `--` are options of `headwise ranking train`. The ladder keeps only the best by the
validation part; here all three are fitted on the training part alike, with the ages of events.
AUC, gAUC and log-loss of each task, mean and deviation over seeds; nothing is kept.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
import torch

from headwise.benchmarks.measure import print_header, print_row
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.ranking.options import RankingOptions
from headwise.pipelines.ranking.pipeline import RankingPipeline
from headwise.pipelines.ranking.rungs import SHORT, logits_of, simple_models
from headwise.pipelines.ranking.trees import count_in_folds
from headwise.pipelines.ranking.verbs.compare import SCORES, scores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("options", nargs="*", help="of `headwise ranking train`, after --")
    arguments = parser.parse_args()
    task = load_task("ranking")
    options = parse(task, "train", arguments.options)
    pipeline = task.load()
    assert isinstance(options, RankingOptions)
    assert isinstance(pipeline, RankingPipeline)
    splits = pipeline.open_data(options)
    columns = [(task, score) for task in splits.spec.tasks for score in SCORES]
    figures: dict[str, list[list[float]]] = defaultdict(list)
    for number in range(arguments.seeds):
        seed = options.seed + number
        counts = count_in_folds(splits.train, splits.spec, seed)
        models = simple_models(splits, seed, counts)
        for kind, logits in logits_of(models, splits.test, torch.device("cpu")).items():
            by_task = scores(splits, 1 / (1 + np.exp(-logits)))
            figures[kind].append([by_task[task][score] for task, score in columns])
    names = [f"{score} {task}" for task, score in columns]
    print_header("simple model", *names)
    for kind, rows in figures.items():
        means, deviations = np.mean(rows, 0), np.std(rows, 0)
        cells = [f"{m:.4f} ± {d:.4f}" for m, d in zip(means, deviations, strict=True)]
        print_row(SHORT[kind], *cells)


if __name__ == "__main__":
    main()
