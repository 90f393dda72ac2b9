"""The metrics of every task's test part, from nothing but its predictions and the labels: in plain
numpy and scikit-learn, row by row, so that a probability, a class, a level or a row in the wrong
place shows.

A function for each task: (predictions of the sample, the task's splits, the path of the sample) ->
metrics by name, as in metrics.json; nested names are joined by a slash."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    roc_auc_score,
)

from headwise.pipelines.metrics.saliency import saliency_scores

Found = dict[str, float]


def of_classes(rows: pl.DataFrame, labels: list[str], positive: str | None = None) -> Found:
    """Of `prediction` and `p_CLASS` of rows whose labels are these; two classes.

    positive: the class that is predicted where the column `positive` says so; by default the most
    probable class is.
    """
    classes = sorted(set(labels))
    truth = np.array(labels)
    probability = np.stack([rows[f"p_{name}"].to_numpy().astype(float) for name in classes], 1)
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-6)
    predicted = rows["prediction"].to_numpy()
    chosen = probability.argmax(1)
    if positive is not None:
        number = classes.index(positive)
        chosen = np.where(rows["positive"].to_numpy(), number, 1 - number)
    assert predicted.tolist() == [classes[k] for k in chosen]
    right = truth[:, None] == np.array(classes)
    return {
        "auc": roc_auc_score(right[:, 1], probability[:, 1]),
        "accuracy": float((predicted == truth).mean()),
        "balanced_accuracy": balanced_accuracy_score(truth, predicted),
        "macro_f1": f1_score(truth, predicted, average="macro", labels=classes, zero_division=0),
        "log_loss": float(-np.log(probability[right]).mean()),
        "brier": float(((probability - right) ** 2).sum(1).mean()),
    }


def wsi(rows: pl.DataFrame, splits: Any, sample: Path) -> Found:
    """Slides by their names."""
    home = sample if sample.is_dir() else sample.parent
    labels = dict(pl.read_csv(home / "labels.csv").select("slide", "label").rows())
    labels = {Path(name).stem: label for name, label in labels.items()}
    names = [Path(name).stem for name in rows["item"]]
    chosen = [
        k for k, name in enumerate(names) if name in {Path(path).stem for path in splits.test.names}
    ]
    return of_classes(rows[chosen], [labels[names[k]] for k in chosen])


def medical(rows: pl.DataFrame, splits: Any, sample: Path) -> Found:
    """Pictures by their names, and the operating point of the positive class."""
    home = sample if sample.is_dir() else sample.parent
    labels = dict(pl.read_csv(home / "labels.csv").select("image", "label").rows())
    of_test = rows.filter(pl.col("item").is_in(splits.test.column("names")))
    truth = np.array([labels[name] for name in of_test["item"]])
    positive, called = truth == "clear", of_test["positive"].to_numpy()
    point = {
        "sensitivity": called[positive].mean(),
        "specificity": (~called[~positive]).mean(),
        "ppv": positive[called].mean(),
        "npv": (~positive[~called]).mean(),
        "auprc": average_precision_score(positive, of_test["p_clear"].to_numpy()),
    }
    return {
        **of_classes(of_test, truth.tolist(), "clear"),
        **{name: float(value) for name, value in point.items()},
    }


def recordings(rows: pl.DataFrame, splits: Any, sample: Path) -> Found:
    """Recordings by their names; three classes."""
    labels = dict(pl.read_csv(sample / "labels.csv").select("audio", "label").rows())
    of_test = rows.filter(pl.col("item").is_in(splits.test.names))
    truth = np.array([labels[name] for name in of_test["item"]])
    classes = sorted(set(labels.values()))
    probability = np.stack([of_test[f"p_{name}"].to_numpy().astype(float) for name in classes], 1)
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-6)
    predicted = of_test["prediction"].to_numpy()
    assert predicted.tolist() == [classes[k] for k in probability.argmax(1)]
    right = truth[:, None] == np.array(classes)
    return {
        "recordings": float(len(of_test)),
        "accuracy": float((predicted == truth).mean()),
        "balanced_accuracy": balanced_accuracy_score(truth, predicted),
        "auc": roc_auc_score(right.astype(int), probability, average="macro"),
        "log_loss": float(-np.log(probability[right]).mean()),
    }


def ranking(rows: pl.DataFrame, splits: Any, sample: Path) -> Found:
    """Rows by their places in the file; a like counts where there was a click."""
    log = pl.read_csv(sample.with_suffix(".csv"))
    assert rows["row"].to_list() == list(range(len(log)))
    assert rows["user_id"].equals(log["user_id"])
    assert rows["item_id"].equals(log["item_id"])
    test = np.zeros(len(log), bool)
    test[splits.test.which] = True
    metrics: Found = {"rows": float(test.sum())}
    for name, counts in (("click", test), ("like", test & (log["click"].to_numpy() == 1))):
        labels, probability = log[name].to_numpy()[counts], rows[f"p_{name}"].to_numpy()[counts]
        metrics[f"{name}/auc"] = float(roc_auc_score(labels, probability))
        metrics[f"{name}/log_loss"] = float(log_loss(labels, probability.astype(float)))
        metrics[f"{name}/rows"] = float(counts.sum())
    return metrics


def reid(rows: pl.DataFrame, splits: Any, sample: Path) -> Found:
    """Queries against the gallery by the protocol of Market-1501, in a loop over queries."""
    of_test = rows.filter(
        pl.col("item").str.starts_with("query")
        | pl.col("item").str.starts_with("bounding_box_test")
    )
    facts = [re.search(r"(-?\d+)_c(\d+)", Path(name).name) for name in of_test["item"]]
    identity = np.array([int(match[1]) for match in facts if match])
    camera = np.array([int(match[2]) for match in facts if match])
    asks = of_test["item"].str.starts_with("query").to_numpy()
    vectors = np.stack(of_test["vector"].to_list()).astype(float)
    precisions, ranks = [], []
    for query in np.flatnonzero(asks):
        counts = (
            ~asks & (identity != -1) & ~((identity == identity[query]) & (camera == camera[query]))
        )
        order = np.argsort(-(vectors[counts] @ vectors[query]), kind="stable")
        hits = np.flatnonzero(identity[counts][order] == identity[query])
        if len(hits):
            precisions.append(((np.arange(len(hits)) + 1) / (hits + 1)).mean())
            ranks.append(hits[0])
    rank = {f"rank_{k}": float((np.array(ranks) < k).mean()) for k in (1, 5, 10)}
    return {"mAP": float(np.mean(precisions)), "queries": float(len(precisions)), **rank}


def saliency(rows: pl.DataFrame, splits: Any, sample: Path) -> Found:
    """Maps against masks, as both are on the disk."""
    of_test = rows.filter(pl.col("item").str.starts_with("test/"))
    tables: list[Found] = []
    for item, salient, box in of_test.select("item", "salient", "box").iter_rows():
        pixels = np.array(
            Image.open(beside(sample) / "predictions.parquet.maps" / Path(item).with_suffix(".png"))
        )
        mask = (
            np.array(
                Image.open(sample / item.replace("RGB", "GT").replace(".jpg", ".png")).convert("L")
            )
            > 127
        )
        assert pixels.shape == mask.shape
        salient_mask = pixels >= 128
        assert salient == salient_mask.mean()
        assert (box is None) == (not salient_mask.any())
        scores = saliency_scores(
            torch.from_numpy(pixels)[None], torch.from_numpy(mask)[None]
        ).table()
        low, high = int(pixels.min()), int(pixels.max())
        stretched = (pixels - low) / (high - low) if high > low else pixels / 255
        tables.append(
            {"MAE": float(np.abs(stretched - mask).mean()), "S-measure": scores["S-measure"]}
        )
    mean = {name: float(np.mean([of_scene[name] for of_scene in tables])) for name in tables[0]}
    return {**mean, "scenes": float(len(of_test))}


def beside(sample: Path) -> Path:
    """The folder of the predictions: that of the run whose sample it is, else the one above."""
    return sample.parents[1] if sample.parent.name == "sample" else sample.parent


def speech(rows: pl.DataFrame, splits: Any, sample: Path) -> Found:
    """Error rates of words and letters."""
    texts = dict(rows.select("item", "text").rows())
    wrong = {"wer": 0, "cer": 0}
    count = {"wer": 0, "cer": 0}
    for utterance in splits.test.utterances:
        for name, pieces in (("wer", str.split), ("cer", lambda text: list("".join(text.split())))):
            true = pieces(utterance.text)
            wrong[name] += edits(pieces(texts[utterance.name]), true)
            count[name] += len(true)
    return {name: wrong[name] / count[name] for name in ("wer",)} | {"words": float(count["wer"])}


def text(rows: pl.DataFrame, splits: Any, sample: Path) -> Found:
    """Labels against those of the sample, message by message; the most probable one; the sets."""
    truth = {
        row["id"]: row["labels"]
        for row in map(json.loads, sample.read_text(encoding="utf-8").splitlines())
    }
    of_test = rows.filter(pl.col("id").is_in(splits.test.table.ids))
    assert sorted(of_test["id"]) == sorted(splits.test.table.ids)
    names = sorted({label for labels in truth.values() for label in labels})
    columns = ("id", "labels", "top", "possible")
    messages = list(of_test.select(columns).iter_rows())
    true, given = (
        np.array([[name in labels for name in names] for labels in all_labels])
        for all_labels in ([truth[row[0]] for row in messages], [row[1] for row in messages])
    )
    coverage = [len({*truth[k]} & {*held}) / len(truth[k]) for k, _, _, held in messages]
    return {
        "texts": float(len(messages)),
        "precision_at_1": float(np.mean([top[0] in truth[k] for k, _, top, _ in messages])),
        "micro_f1": f1_score(true, given, average="micro", zero_division=0),
        "macro_f1": f1_score(true, given, average="macro", zero_division=0),
        "set_coverage": float(np.mean(coverage)),
        "set_size": float(np.mean([len(row[3]) for row in messages])),
    }


def reasoning(rows: pl.DataFrame, splits: Any, sample: Path) -> Found:
    """Trials by their names; the answers of the sample, and those that the rules give."""
    truth = {row["id"]: row for row in map(json.loads, sample.read_text().splitlines())}
    of_test = [row for row in rows.iter_rows(named=True) if truth[row["id"]]["part"] == "test"]
    assert len(of_test) == len(splits.test)
    right = [row["prediction"] == truth[row["id"]]["answer"] for row in of_test]
    agree = [row["by_rule"] == truth[row["id"]]["answer"] for row in of_test]
    found: Found = {
        "trials": float(len(of_test)),
        "accuracy": float(np.mean(right)),
        "answers_by_rule": float(np.mean(agree)),
    }
    levels = [truth[row["id"]]["level"] for row in of_test]
    for level in set(levels):
        of_level = [answer for answer, name in zip(right, levels) if name == level]
        found[f"levels/{level}/accuracy"] = float(np.mean(of_level))
        found[f"levels/{level}/trials"] = float(len(of_level))
    return found


def finetune(rows: pl.DataFrame, splits: Any, sample: Path) -> Found:
    """Answers of the test part against those of the sample."""
    lines = map(json.loads, sample.read_text(encoding="utf-8").splitlines())
    truth = {row["id"]: row["answer"] for row in lines}
    of_test = rows.filter(pl.col("id").is_in([d.id for d in splits.test.dialogues]))
    assert set(of_test["part"]) == {"test"}
    answers = dict(of_test.select("id", "answer").rows())
    right = [answers[name].strip() == truth[name] for name in answers]
    return {"exact": float(np.mean(right)), "prompts": float(len(right))}


def edits(words: list[str], reference: list[str]) -> int:
    """Least number of insertions, deletions and replacements."""
    row = list(range(len(reference) + 1))
    for i, x in enumerate(words, 1):
        row, before = [i], row
        for j, y in enumerate(reference, 1):
            row.append(min(row[-1] + 1, before[j] + 1, before[j - 1] + (x != y)))
    return row[-1]


OF = {
    "finetune": finetune,
    "wsi": wsi,
    "medical": medical,
    "ranking": ranking,
    "recordings": recordings,
    "reasoning": reasoning,
    "reid": reid,
    "saliency": saliency,
    "speech": speech,
    "text": text,
}
