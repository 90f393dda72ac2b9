"""Claim: ACMIL's two parts spread attention over more instances than plain ABMIL (arXiv 2311.07125,
figure 1).

    python benchmarks/claims/acmil.py [--seeds 5] [--folds 3] [--epochs 30] [--jobs 2] [--output
    FOLDER]

UCSB breast (58 bags of H&E patches) and Elephant (200 bags of segments), bags held out by
cross-validation, a bag a step, as the paper trains. Of each held-out bag: how much of the attention
(mean over branches, nothing masked) its most attended instance and its ten most attended ones hold.
A bag of ten instances or fewer always gives all to ten, so ten are read from larger bags; the share
of the highest tenth of a bag is read from all. Differences to ABMIL seed by seed, with 95 %
intervals (Student), and the AUC beside them; a picture of the curves. Finished cells are kept.
"""

import json
import statistics
from pathlib import Path
from typing import Any

from headwise.benchmarks.cells import DATA, difference, run_cells, waiting_cells, write_cell
from headwise.benchmarks.measure import parser_of, print_header, print_row

BAGS = DATA / "wsi" / "mil"
SETS = {"UCSB breast": "ucsb_breast_cancer.csv.gz", "Elephant": "elephant.csv.gz"}
FORMS = {
    "ABMIL": {"branches": 1, "masked": 0},
    "ABMIL + masking": {"branches": 1, "masked": 10},
    "ABMIL + branches": {"branches": 5, "masked": 0},
    "ACMIL (both)": {"branches": 5, "masked": 10},
}
CURVE = 50  # instances of the curves


def cell(data: str, form: str, seed: int, folds: int, epochs: int, folder: Path) -> None:
    """Cross-validate one model by one seed and keep what is measured on the bags held out."""
    import numpy as np
    import torch

    from headwise.pipelines import load_task
    from headwise.pipelines.engine.training.quick import fit
    from headwise.pipelines.metrics.classification import scores
    from headwise.pipelines.wsi.data import BagSet, grouped_folds, spec_of
    from headwise.pipelines.wsi.explain import concentration
    from headwise.pipelines.wsi.options import WsiOptions
    from headwise.pipelines.wsi.prediction import classify
    from headwise.pipelines.wsi.sources import read_source

    torch.set_num_threads(1)
    options = WsiOptions(
        data=str(BAGS / SETS[data]), model="acmil", epochs=epochs, seed=seed, **FORMS[form]
    )
    source = read_source(options)
    classes = sorted(set(source.cohort.labels))
    labels, probability, curves, sizes = [], [], [], []
    for test in grouped_folds(source.cohort, np.arange(len(source.cohort)), folds, seed, data):
        train = BagSet(source, np.setdiff1d(np.arange(len(source.cohort)), test), classes)
        spec = spec_of(source, {"train": train}, options)
        model, _ = fit(load_task("wsi").load(), options, train, spec, torch.device("cpu"))
        for bag, label, _ in map(BagSet(source, test, classes).__getitem__, range(len(test))):
            scores_of_bag, attention = classify(model, bag)
            assert attention is not None
            labels.append(label)
            probability.append(scores_of_bag)
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
    write_cell(path_of(folder, data, form, seed, folds, epochs), result)


Results = dict[str, dict[str, list[dict[str, Any]]]]  # rows of JSON by data and form


def draw(results: Results, path: Path) -> None:
    """Share of the attention against the number of instances, mean and range of seeds."""
    import numpy as np
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9, 3.4), layout="constrained")
    for axis, (data, forms) in zip(picture.subplots(1, len(results), sharey=True), results.items()):
        for form, rows in forms.items():
            curves = np.array([row["curve"][:CURVE] for row in rows])
            axis.fill_between(np.arange(1, CURVE + 1), curves.min(0), curves.max(0), alpha=0.15)
            axis.plot(np.arange(1, CURVE + 1), curves.mean(0), label=form)
        axis.axvline(10, color="0.7", lw=0.8, zorder=0)
        first = next(iter(forms.values()))[0]
        large, bags = first["large"], first["bags"]
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


def path_of(folder: Path, data: str, form: str, seed: int, folds: int, epochs: int) -> Path:
    """The file of a cell."""
    return folder / f"{SETS[data][:4]}-{list(FORMS).index(form)}-{seed}-{folds}-{epochs}.json"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/acmil"))
    arguments = parser.parse_args()
    if not BAGS.is_dir():
        raise SystemExit(f"{BAGS}: not there (set HEADWISE_DATA)")
    if arguments.seeds < 2:
        raise SystemExit("--seeds: an interval needs two")
    folder, seeds, size = arguments.output, arguments.seeds, (arguments.folds, arguments.epochs)
    cells = [(data, form, seed) for data in SETS for seed in range(seeds) for form in FORMS]
    waiting = waiting_cells(path_of, folder, [(*key, *size) for key in cells])
    run_cells(cell, waiting, arguments.jobs)

    def read(data: str, form: str) -> list[dict[str, Any]]:
        paths = [path_of(folder, data, form, seed, *size) for seed in range(seeds)]
        return [json.loads(path.read_text()) for path in paths]

    results = {data: {form: read(data, form) for form in FORMS} for data in SETS}
    kinds = ("top 1", "highest tenth", "top 10", "AUC")
    print_header("bags", "model", *kinds, "top 10 − ABMIL (95 %)")
    for data, forms in results.items():
        plain = [row["top 10"] for row in forms["ABMIL"]]
        for form, rows in forms.items():
            means = [f"{statistics.mean(row[kind] for row in rows):.3f}" for kind in kinds]
            change = difference([row["top 10"] for row in rows], plain)
            print_row(data, form, *means, "" if form == "ABMIL" else change)
        first = forms["ABMIL"][0]
        count = f"{first['large']} of {first['bags']} bags"
        print_row(data, "even attention", "", "", f"{first['even top 10']:.3f}", "", count)
    draw(results, folder / "concentration.png")
    print(f"picture {folder / 'concentration.png'}")


if __name__ == "__main__":
    main()
