"""Claim: ACMIL's two parts spread attention over more instances than plain ABMIL (arXiv 2311.07125,
figure 1).

    python benchmarks/claim_acmil.py [--seeds 5] [--folds 3] [--epochs 30] [--jobs 2] [--output
    FOLDER]

UCSB breast (58 bags of H&E patches) and Elephant (200 bags of segments), bags held out by
cross-validation, a bag a step, as the paper trains. Of each held-out bag: how much of the attention
(mean over branches, nothing masked) its most attended instance and its ten most attended ones hold.
A bag of ten instances or fewer always gives all to ten, so ten are read from larger bags; the share
of the highest tenth of a bag is read from all. Differences to ABMIL seed by seed, with 95 %
intervals (Student), and the AUC beside them; a picture of the curves. Finished cells are kept."""

import argparse
import json
import os
import statistics
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from claim_moh import student
from tqdm import tqdm

DATA = (
    Path(os.environ.get("HEADWISE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    / "wsi"
    / "mil"
)
SETS = {"UCSB breast": "ucsb_breast_cancer.csv.gz", "Elephant": "elephant.csv.gz"}
FORMS: dict[str, dict[str, Any]] = {
    "ABMIL": {"branches": 1, "masked": 0},
    "ABMIL + masking": {"branches": 1, "masked": 10},
    "ABMIL + branches": {"branches": 5, "masked": 0},
    "ACMIL (both)": {"branches": 5, "masked": 10},
}
CURVE = 50  # instances of the curves


def cell(data: str, form: str, seed: int, folds: int, epochs: int, path: Path) -> None:
    """Cross-validate one model by one seed and keep what is measured on the bags held out."""
    import numpy as np
    import torch

    from headwise.pipelines import load_task
    from headwise.pipelines.engine.training.quick import fit
    from headwise.pipelines.metrics.classification import scores
    from headwise.pipelines.wsi.data import BagSet, grouped_folds, read_source, spec_of
    from headwise.pipelines.wsi.explain import concentration
    from headwise.pipelines.wsi.options import WsiOptions
    from headwise.pipelines.wsi.prediction import classify

    torch.set_num_threads(1)
    options = WsiOptions(
        data=str(DATA / SETS[data]), model="acmil", epochs=epochs, seed=seed, **FORMS[form]
    )
    source = read_source(options)
    classes = sorted(set(source.cohort.labels))
    labels, probability, curves, sizes = [], [], [], []
    for test in grouped_folds(source.cohort, np.arange(len(source.cohort)), folds, seed, data):
        train = BagSet(source, np.setdiff1d(np.arange(len(source.cohort)), test), classes)
        spec = spec_of(source, {"train": train}, options)
        model, _ = fit(load_task("wsi").load(), options, train, spec, torch.device("cpu"))
        for bag, label, _ in map(BagSet(source, test, classes).__getitem__, range(len(test))):
            found, attention = classify(model, bag)
            assert attention is not None
            labels.append(label)
            probability.append(found)
            sizes.append(len(bag))
            curves.append(concentration(attention.mean(1), max(CURVE, len(bag))))
    size, large = np.array(sizes), np.array(sizes) > 10
    shown = np.stack([curve[:CURVE] for curve in curves])
    tenth = [curve[max(1, round(n / 10)) - 1] for curve, n in zip(curves, sizes)]
    result = {
        "top 1": float(shown[:, 0].mean()),
        "highest tenth": float(np.mean(tenth)),
        "top 10": float(shown[large, 9].mean()),
        "AUC": scores(np.array(labels), np.stack(probability))["auc"],
        "even top 10": float((10 / size[large]).mean()),
        "large": int(large.sum()),
        "bags": len(size),
        "curve": shown[large].mean(0).tolist(),
    }
    path.with_suffix(".part").write_text(json.dumps(result))
    path.with_suffix(".part").rename(path)


def draw(found: dict[str, dict[str, list[dict[str, Any]]]], path: Path) -> None:
    """Share of the attention against the number of instances, mean and range of seeds."""
    import numpy as np
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9, 3.4), layout="constrained")
    for axis, (data, forms) in zip(picture.subplots(1, len(found), sharey=True), found.items()):
        for form, rows in forms.items():
            curves = np.array([row["curve"][:CURVE] for row in rows])
            axis.fill_between(np.arange(1, CURVE + 1), curves.min(0), curves.max(0), alpha=0.15)
            axis.plot(np.arange(1, CURVE + 1), curves.mean(0), label=form)
        axis.axvline(10, color="0.7", lw=0.8, zorder=0)
        large, bags = rows[0]["large"], rows[0]["bags"]
        axis.set(
            title=f"{data}, {large} of {bags} bags (more than ten instances)",
            xscale="log",
            ylim=(0, 1.02),
            xlabel="instances of highest attention",
        )
        axis.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        axis.title.set_fontsize(9)
    picture.axes[0].set_ylabel("share of the attention")
    picture.axes[0].legend(frameon=False, fontsize=8)
    picture.savefig(path, dpi=110)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--folds", type=int, default=3)
    arguments.add_argument("--epochs", type=int, default=30)
    arguments.add_argument("--jobs", type=int, default=2)
    arguments.add_argument("--output", type=Path, default=Path("runs/benchmarks/acmil"))
    o = arguments.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"{DATA}: not there (set HEADWISE_DATA)")
    if o.seeds < 2:
        raise SystemExit("--seeds: an interval needs two")
    o.output.mkdir(parents=True, exist_ok=True)

    def kept(data: str, form: str, seed: int) -> Path:
        return (
            o.output
            / f"{SETS[data][:4]}-{list(FORMS).index(form)}-{seed}-{o.folds}-{o.epochs}.json"
        )

    cells = [(data, form, seed) for data in SETS for seed in range(o.seeds) for form in FORMS]
    with ProcessPoolExecutor(o.jobs, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(cell, *one, o.folds, o.epochs, kept(*one))
            for one in cells
            if not kept(*one).exists()
        ]
        for job in tqdm(as_completed(jobs), total=len(jobs), unit="model"):
            job.result()
    found = {
        data: {
            form: [json.loads(kept(data, form, seed).read_text()) for seed in range(o.seeds)]
            for form in FORMS
        }
        for data in SETS
    }
    kinds = ("top 1", "highest tenth", "top 10", "AUC")
    print(
        "| bags | model | "
        + " | ".join(kinds)
        + " | top 10 − ABMIL (95 %) |\n|"
        + "---|" * (len(kinds) + 3)
    )
    for data, forms in found.items():
        for form, rows in forms.items():
            line = [
                data,
                form,
                *(f"{statistics.mean(row[kind] for row in rows):.3f}" for kind in kinds),
            ]
            change = [row["top 10"] - plain["top 10"] for row, plain in zip(rows, forms["ABMIL"])]
            line.append(
                "" if form == "ABMIL" else "{:+.3f} ({:+.3f} to {:+.3f})".format(*student(change))
            )
            print("| " + " | ".join(line) + " |")
        one = forms["ABMIL"][0]
        print(
            f"| {data} | even attention | | | {one['even top 10']:.3f} | | {one['large']} of {one['bags']} bags |"
        )
    draw(found, o.output / "concentration.png")
    print(f"picture {o.output / 'concentration.png'}")


if __name__ == "__main__":
    main()
