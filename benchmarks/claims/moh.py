"""Claim: mixture-of-head attention keeps at least 99 % of the dense metric with 75 % of the heads
(arXiv 2410.11842).

    python benchmarks/claims/moh.py [--seeds 5] [--jobs 2] [--output runs/benchmarks/moh]

Flowers (small vision transformer) and digits (log-mel frames), 8 heads. From scratch with the same
recipe: softmax attention; MoH with 2 shared heads and 4 of 6 routed ones (75 %); and 2 + 2 of 6 (50
%). Continued, as the paper does with a language model: the trained softmax attention for a third as
many epochs again, as it is or turned into MoH. Accuracy over seeds; the ratio to the softmax
attention of the same seed and the same training with a 95 % interval (Student, over seeds).
Finished cells are kept.
"""

import json
import statistics
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from headwise.benchmarks import domains
from headwise.benchmarks.cells import run_cells, student, waiting_cells, write_cell
from headwise.benchmarks.measure import parser_of, print_header, print_row
from headwise.models.attention.moh import MixtureOfHeads

DOMAINS = ("flowers", "digits")
# form: mechanism, its options, whether it continues the training of the first

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
    torch.set_num_threads(1)
    flowers, (attention, options, continued) = domain == "flowers", FORMS[form]
    train, test = domains.flowers() if flowers else domains.digits()
    make = domains.flower_model if flowers else domains.digit_model
    recipe = {
        "epochs": 30 if flowers else 9,
        "change": domains.shifted if flowers else None,
        "limit": 600,
    }
    path = path_of(folder, domain, form, seed)
    torch.manual_seed(seed)
    if continued:
        model = make("softmax", heads=8)
        model.load_state_dict(
            load_file(path_of(folder, domain, "softmax", seed).with_suffix(".safetensors"))
        )
        for layer in model.encoder.layers if attention == "moh" else ():
            layer.mixer = MixtureOfHeads.from_softmax(layer.mixer, **options)
        recipe |= {"epochs": recipe["epochs"] // 3, "lr": 5e-4}
    else:
        model = make(attention, heads=8, options={attention: options})
    training = domains.fit(model, train, seed=seed, **recipe)
    if form == "softmax":
        save_file(model.state_dict(), path.with_suffix(".safetensors"))
    result = {
        "domain": domain,
        "form": form,
        "seed": seed,
        "accuracy": domains.accuracy(model, test),
        **training,
    }
    write_cell(path, result)


def path_of(folder: Path, domain: str, form: str, seed: int) -> Path:
    """The file of a cell."""
    return folder / f"{domain}-{list(FORMS).index(form)}-{seed}.json"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/moh"))
    arguments = parser.parse_args()
    folder, seeds = arguments.output, range(arguments.seeds)
    cells = [(domain, form, seed) for seed in seeds for domain in DOMAINS for form in FORMS]
    for continued in (False, True):  # what continues needs the models trained from scratch
        forms = [form for form, (_, _, continues) in FORMS.items() if continues == continued]
        keys = [key for key in cells if key[1] in forms]
        run_cells(cell, waiting_cells(path_of, folder, keys), arguments.jobs)
    print_header("task", "form", "accuracy, mean (lowest–highest)", "share of softmax's (95 %)")
    for domain in DOMAINS:
        dense: list[float] = []
        for form in FORMS:
            paths = [path_of(folder, domain, form, seed) for seed in seeds]
            right = [json.loads(path.read_text())["accuracy"] for path in paths]
            mean = f"{statistics.mean(right):.3f} ({min(right):.3f}–{max(right):.3f})"
            if form.startswith("softmax"):
                dense = right
                print_row(domain, form, mean, 1)
                continue
            ratio = student([value / base for value, base in zip(right, dense, strict=True)])
            print_row(domain, form, mean, "{:.3f} ({:.3f}–{:.3f})".format(*ratio))


if __name__ == "__main__":
    main()
