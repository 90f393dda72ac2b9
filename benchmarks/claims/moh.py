"""Claim: mixture-of-head attention keeps at least 99 % of the dense metric with 75 % of the heads
(arXiv 2410.11842).

    python benchmarks/claims/moh.py [--seeds 5] [--jobs 2] [--output runs/benchmarks/moh]

Flowers (small vision transformer) and digits (log-mel frames), 8 heads. From scratch with the same
recipe: softmax attention; MoH with 2 shared heads and 4 of 6 routed ones (75 %); and 2 + 2 of 6 (50
%). Continued, as the paper does with a language model: the trained softmax attention for a third as
many epochs again, as it is or turned into MoH. Accuracy over seeds; the ratio to the softmax
attention of the same seed and the same training with a 95 % interval (Student, over seeds).
Finished cells are kept."""

import json
import statistics
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

# form: mechanism, its options, whether it continues the training of the first
from headwise.benchmarks.measure import parser_of, print_header

FORMS = {
    "softmax": ("softmax", {}, False),
    "MoH, 75 % of the heads": ("moh", {"shared": 2, "active": 4}, False),
    "MoH, 50 % of the heads": ("moh", {"shared": 2, "active": 2}, False),
    "softmax, continued": ("softmax", {}, True),
    "MoH, 75 % of the heads, continued": ("moh", {"shared": 2, "active": 4}, True),
    "MoH, 50 % of the heads, continued": ("moh", {"shared": 2, "active": 2}, True),
}


def cell(domain: str, form: str, seed: int, folder: Path) -> None:
    """Train one model and keep its accuracy."""
    import torch
    from safetensors.torch import load_file, save_file

    from headwise.benchmarks import domains
    from headwise.models.attention.moh import MixtureOfHeads

    torch.set_num_threads(1)
    flowers, (attention, options, continued) = domain == "flowers", FORMS[form]
    train, test = domains.flowers() if flowers else domains.digits()
    make = domains.flower_model if flowers else domains.digit_model
    recipe = {
        "epochs": 30 if flowers else 9,
        "change": domains.shifted if flowers else None,
        "limit": 600,
    }
    path = name(folder, domain, form, seed)
    torch.manual_seed(seed)
    if continued:
        model = make("softmax", heads=8)
        model.load_state_dict(
            load_file(name(folder, domain, "softmax", seed).with_suffix(".safetensors"))
        )
        for layer in model.encoder.layers if attention == "moh" else ():
            layer.mixer = MixtureOfHeads.from_softmax(layer.mixer, **options)
        recipe |= {"epochs": recipe["epochs"] // 3, "lr": 5e-4}
    else:
        model = make(attention, heads=8, options={attention: options})
    said = domains.fit(model, train, seed=seed, **recipe)
    if form == "softmax":
        save_file(model.state_dict(), path.with_suffix(".safetensors"))
    result = {
        "domain": domain,
        "form": form,
        "seed": seed,
        "accuracy": domains.accuracy(model, test),
        **said,
    }
    write_cell(path, result)


def name(folder: Path, domain: str, form: str, seed: int) -> Path:
    return folder / f"{domain}-{list(FORMS).index(form)}-{seed}.json"


def student(values: list[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval."""
    from scipy.stats import t

    middle = statistics.mean(values)
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return middle, middle - half, middle + half


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/moh"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    cells = [
        (d, f, s) for s in range(arguments.seeds) for d in ("flowers", "digits") for f in FORMS
    ]
    for continued in (False, True):
        waiting = [
            what
            for what in cells
            if FORMS[what[1]][2] == continued and not name(arguments.output, *what).exists()
        ]
        with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
            jobs = [pool.submit(cell, *what, arguments.output) for what in waiting]
            for job in tqdm(as_completed(jobs), total=len(jobs), unit="model"):
                job.result()
    print_header("task", "form", "accuracy, mean (lowest–highest)", "share of softmax's (95 %)")
    for domain in ("flowers", "digits"):
        dense = []
        for form in FORMS:
            rows = [
                json.loads(name(arguments.output, domain, form, s).read_text())
                for s in range(arguments.seeds)
            ]
            right = [row["accuracy"] for row in rows]
            dense = right if form.startswith("softmax") else dense
            share = "{:.3f} ({:.3f}–{:.3f})".format(*student([a / b for a, b in zip(right, dense)]))
            mean = f"{statistics.mean(right):.3f} ({min(right):.3f}–{max(right):.3f})"
            print(f"| {domain} | {form} | {mean} | {1 if form.startswith('softmax') else share} |")


if __name__ == "__main__":
    main()
