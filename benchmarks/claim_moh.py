"""Claim: mixture-of-head attention keeps at least 99 % of the dense metric with 75 % of the heads (arXiv 2410.11842).

    python benchmarks/claim_moh.py [--seeds 5] [--jobs 2] [--output runs/benchmarks/moh]

Flowers (small vision transformer) and digits (log-mel frames), 8 heads, trained from scratch with the same recipe:
softmax attention; MoH with 2 shared heads and 4 of 6 routed ones (75 %); and 2 + 2 of 6 (50 %). Accuracy over seeds;
the ratio to the dense accuracy of the same seed with a 95 % interval (Student, over seeds). Finished cells are kept.
"""

import argparse
import json
import os
import statistics
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from tqdm import tqdm

FORMS = {
    "dense": ("softmax", {}),
    "MoH, 75 % of the heads": ("moh", {"shared": 2, "active": 4}),
    "MoH, 50 % of the heads": ("moh", {"shared": 2, "active": 2}),
}


def cell(domain: str, form: str, seed: int, folder: Path) -> None:
    """Train one model and keep its accuracy."""
    import domains
    import torch

    torch.set_num_threads(1)
    attention, options = FORMS[form]
    torch.manual_seed(seed)
    more = {"options": {attention: options}, "heads": 8}
    if domain == "flowers":
        train, test = domains.flowers()
        model = domains.flower_model(attention, **more)
        said = domains.fit(model, train, epochs=30, seed=seed, change=domains.shifted, limit=600)
    else:
        train, test = domains.digits()
        model = domains.digit_model(attention, **more)
        said = domains.fit(model, train, epochs=10, seed=seed, limit=600)
    result = {"domain": domain, "form": form, "seed": seed, "accuracy": domains.accuracy(model, test), **said}
    path = name(folder, domain, form, seed)
    path.with_suffix(".part").write_text(json.dumps(result))
    path.with_suffix(".part").rename(path)


def name(folder: Path, domain: str, form: str, seed: int) -> Path:
    return folder / f"{domain}-{list(FORMS).index(form)}-{seed}.json"


def student(values: list[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval."""
    from scipy.stats import t

    middle = statistics.mean(values)
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return middle, middle - half, middle + half


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--jobs", type=int, default=2)
    arguments.add_argument("--output", type=Path, default=Path("runs/benchmarks/moh"))
    o = arguments.parse_args()
    o.output.mkdir(parents=True, exist_ok=True)
    cells = [(d, f, s) for s in range(o.seeds) for d in ("flowers", "digits") for f in FORMS]
    waiting = [what for what in cells if not name(o.output, *what).exists()]
    with ProcessPoolExecutor(o.jobs, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(cell, *what, o.output) for what in waiting]
        for job in tqdm(as_completed(jobs), total=len(jobs), unit="model"):
            job.result()
    print("| task | form | accuracy, mean (lowest–highest) | share of dense (95 %) | ms/step |\n|---|---|---|---|---|")
    for domain in ("flowers", "digits"):
        dense = []
        for form in FORMS:
            rows = [json.loads(name(o.output, domain, form, s).read_text()) for s in range(o.seeds)]
            right = [row["accuracy"] for row in rows]
            dense = dense or right
            share = "{:.3f} ({:.3f}–{:.3f})".format(*student([a / b for a, b in zip(right, dense)]))
            mean = f"{statistics.mean(right):.3f} ({min(right):.3f}–{max(right):.3f})"
            ms = 1000 * statistics.median(row["seconds_a_step"] for row in rows)
            print(f"| {domain} | {form} | {mean} | {share if form != 'dense' else '1'} | {ms:.1f} |")


if __name__ == "__main__":
    main()
