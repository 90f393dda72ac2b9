"""What frozen features of published weights with a linear map are worth on real pictures.

    python benchmarks/pipelines/frozen_features.py --folder DATA \\
        [--sets flowers orl nih pneumonia] [--weights efficientnet-lite0 mobilenetv2]

DATA holds reid/flowers17, reid/orl_faces, medical/talo_covid_cxr_480 and medical/medmnist. Penalty
and whitening are chosen without the test part: by folds of the training part (of patients in `nih`,
of people in `orl`), or by the official validation part of `pneumonia`. Features are kept on disk,
so that a second call takes seconds.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headwise.benchmarks.measure import parser_of, print_header, print_row
from headwise.models.vision.frozen import FrozenLinear
from headwise.pipelines.engine.frozen import (
    Normalisation,
    frozen_classes,
    frozen_features,
    frozen_vectors,
    open_encoder,
)
from headwise.pipelines.engine.subsets import stratified_folds
from headwise.pipelines.engine.weights import Weights, resolve_weights
from headwise.pipelines.medical import augment as medical_augment
from headwise.pipelines.medical.data import Xrays
from headwise.pipelines.medical.data import open_splits as open_xrays
from headwise.pipelines.medical.options import MedicalOptions
from headwise.pipelines.metrics import classification
from headwise.pipelines.metrics.retrieval import leave_one_out
from headwise.pipelines.reid import augment as reid_augment
from headwise.pipelines.reid.data import open_pictures
from headwise.pipelines.reid.options import ReidOptions
from headwise.pipelines.reid.pictures import Pictures

COLOURS = Normalisation(reid_augment.MEAN, reid_augment.DEVIATION)
GREYS = Normalisation(medical_augment.MEAN, medical_augment.DEVIATION)
DRAWS = 10  # of people in two halves
FOLDS = 5  # of patients


class Images:
    """The pictures of a part, without their labels."""

    def __init__(self, part: Pictures | Xrays, rows: np.ndarray | None = None) -> None:
        self.part = part
        self.rows = np.arange(len(part)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> Tensor:
        row = int(self.rows[index])
        if isinstance(self.part, Pictures):
            return self.part.image(row)
        return self.part[row]["picture"]


@torch.no_grad()
def outputs(model: FrozenLinear, images: Images) -> np.ndarray:
    """What the fitted model gives for stored features, after a check that it gives the same when it
    is called with pictures as the domain model of its pipeline is.
    """
    features = frozen_features(images, model.encoder)
    values = model.read_out(torch.from_numpy(features))
    batch = torch.stack([images[k] for k in range(min(4, len(images)))])
    if batch.dtype == torch.uint8:
        called = model(reid_augment.normalise(batch, tuple(batch.shape[2:])))
    else:
        called = model(*medical_augment.normalise(batch, batch))
    torch.testing.assert_close(called, values[: len(batch)], atol=1e-3, rtol=1e-2)
    return values.numpy()


def flowers(folder: Path, weights: Weights, side: int, seed: int) -> dict[str, float]:
    """Accuracy and log-loss on the test part of the folder's split."""
    options = ReidOptions(
        data=str(folder / "reid/flowers17"), goal="classes", size=(side, side), seed=seed,
        validation_share=0,
    )  # fmt: skip
    splits = open_pictures(options)
    train, held, test = splits.train, splits.validation, splits.test
    encoder = open_encoder(weights, options.size, side)
    fit = frozen_classes(
        encoder, weights, Images(train), train.labels, Images(held), held.labels,
        len(splits.spec.classes), normalisation=COLOURS, seed=seed, output="probabilities",
    )  # fmt: skip
    print(f"  {fit.words}", flush=True)
    scores = classification.scores(test.labels, outputs(fit.model, Images(test)).astype(float))
    return {name: scores[name] for name in ("accuracy", "log_loss")}


def orl(folder: Path, weights: Weights, side: int, seed: int) -> dict[str, float]:
    """mAP of 20 people that were not fitted on, each picture against all others; ten draws."""
    values = []
    encoder = None
    for draw in range(DRAWS):
        options = ReidOptions(
            data=str(folder / "reid/orl_faces"), goal="search", size=(112, 92), seed=seed + draw,
            test_share=0.5, validation_share=0,
        )  # fmt: skip
        splits = open_pictures(options)
        encoder = encoder or open_encoder(weights, options.size, side)
        train, held, test = splits.train, splits.validation, splits.test
        fit = frozen_vectors(
            encoder, weights, Images(train), train.labels, Images(held), held.labels,
            normalisation=COLOURS, seed=seed,
        )  # fmt: skip
        vectors = outputs(fit.model, Images(test))
        plain = frozen_features(Images(test), encoder)
        scores = leave_one_out(vectors, test.labels)
        cosine = leave_one_out(plain, test.labels).mean_ap
        values.append((scores.mean_ap, float(scores.cmc[0]), cosine))
        print(f"  draw {draw}: {fit.words}: {scores.mean_ap:.3f}, cosine {cosine:.3f}", flush=True)
    table = np.array(values)
    names = ("mAP", "rank_1", "mAP_of_plain_cosine")
    return dict(zip(names, table.mean(0).tolist(), strict=True)) | {"sd": float(table[:, 0].std())}


def nih(folder: Path, weights: Weights, side: int, seed: int) -> dict[str, float]:
    """AUC and balanced accuracy of no finding or pneumonia, in five folds of patients, of which
    each is the test part once.
    """
    options = MedicalOptions(
        data=str(folder / "medical/talo_covid_cxr_480/metadata.csv"),
        classes=("No_findings", "Pneumonia"), size=(side, side), body_size=(16, 16), seed=seed,
        balanced=False,
    )  # fmt: skip
    reader = open_xrays(options).train.reader
    part = Xrays(reader, reader.xrays.rows(), options.classes)
    patients, labels = np.array(part.column("patients")), part.labels
    folds = stratified_folds(labels, patients, FOLDS, seed)
    probability = np.zeros((len(part), 2))
    encoder = open_encoder(weights, options.size, side)
    nothing = np.zeros(0, np.int64)
    for k, test_rows in enumerate(folds):
        train = np.setdiff1d(np.arange(len(part)), test_rows)
        fit = frozen_classes(
            encoder, weights, Images(part, train), labels[train], Images(part, nothing), nothing,
            2, normalisation=GREYS, seed=seed, output="probabilities", groups=patients[train],
        )  # fmt: skip
        print(f"  fold {k}: {fit.words}", flush=True)
        probability[test_rows] = outputs(fit.model, Images(part, test_rows))
    scores = classification.scores(labels, probability)
    intervals = classification.bootstrap(labels, probability, patients, seed=seed)
    low, high = intervals["auc"]
    by_fold = [classification.scores(labels[rows], probability[rows])["auc"] for rows in folds]
    return {
        **{name: scores[name] for name in ("auc", "balanced_accuracy", "log_loss")},
        "auc_low": low, "auc_high": high, "auc_mean_of_folds": float(np.mean(by_fold)),
    }  # fmt: skip


def pneumonia(folder: Path, weights: Weights, side: int, seed: int) -> dict[str, float]:
    """AUC, accuracy and balanced accuracy on the official test part of PneumoniaMNIST."""
    from headwise.base.account import opened

    options = MedicalOptions(
        data=str(folder / "medical/medmnist/pneumoniamnist.npz"), size=(32, 32),
        body_size=(16, 16), seed=seed, balanced=False,
    )  # fmt: skip
    with opened(("copies",)):
        splits = open_xrays(options)
    train, held, test = splits.train, splits.validation, splits.test
    fit = frozen_classes(
        open_encoder(weights, (1, 1), side), weights, Images(train), train.labels, Images(held),
        held.labels, 2, normalisation=GREYS, seed=seed, output="probabilities",
    )  # fmt: skip
    print(f"  {fit.words}", flush=True)
    probability = outputs(fit.model, Images(test)).astype(float)
    scores = classification.scores(test.labels, probability)
    return {name: scores[name] for name in ("auc", "accuracy", "balanced_accuracy", "log_loss")}


SETS: dict[str, Callable[[Path, Weights, int, int], dict[str, float]]] = {
    "flowers": flowers,
    "orl": orl,
    "nih": nih,
    "pneumonia": pneumonia,
}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--weights", nargs="+", default=["efficientnet-lite0", "mobilenetv2"])
    parser.add_argument("--side", type=int, default=224, help="pixels of a side")
    parser.add_argument("--seed", type=int, default=2021)
    arguments: argparse.Namespace = parser.parse_args()
    rows = []
    for name in arguments.weights:
        weights = resolve_weights(name, "features", backbone="auto", scratch="auto")
        for dataset in arguments.sets:
            print(f"{dataset}, {name}", flush=True)
            start = time.perf_counter()
            scores = SETS[dataset](arguments.folder, weights, arguments.side, arguments.seed)
            text = ", ".join(f"{key} {value:.3f}" for key, value in scores.items())
            rows.append((dataset, name, text, f"{time.perf_counter() - start:.0f} s"))
            print(f"  {text}", flush=True)
    print_header("set", "weights", "scores", "time")
    for row in rows:
        print_row(*row)


if __name__ == "__main__":
    main()
