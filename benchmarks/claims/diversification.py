"""Claim: the diversification loss makes rows of attention less alike and helps on spoilt images
(TAPADL, ICCV 2023).

    python benchmarks/claims/diversification.py [--seeds 5] [--epochs 30] [--jobs 2] [--output
    FOLDER]

Flowers, small vision transformer: softmax attention without and with the loss, and token-aware
average pooling (TAP) without and with it. Measured on the test part: mean cosine of each attention
row with the mean row of its map (averaged over layers), accuracy on clean images, under Gaussian
noise (deviations .3 and .8 of a range of 2) and under Gaussian blur (deviations 1.5 and 3 pixels);
the loss with the paper's weight and a fifth of it. Differences to the same form without the loss,
seed by seed, with 95 % intervals (Student). Finished cells are kept.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.benchmarks import domains
from headwise.benchmarks.cells import difference, run_cells, waiting_cells, write_cell
from headwise.benchmarks.measure import parser_of, print_header, print_row
from headwise.models.attention.base import Attention
from headwise.models.layers.vit import VisionTransformer

FORMS = {
    f"{label}{suffix}": (name, weight)
    for label, name in (("softmax", "softmax"), ("TAP", "tap"))
    for suffix, weight in (("", 0.0), (" + loss", 1.0), (" + loss / 5", 0.2))
}
DEPTH = 4


def noisy(x: Tensor, deviation: float) -> Tensor:
    """Gaussian noise, the same for every model."""
    return x + deviation * torch.randn(x.shape, generator=torch.Generator().manual_seed(5))


def blurred(x: Tensor, deviation: float) -> Tensor:
    """Gaussian blur; deviation in pixels."""
    taps = torch.exp(-torch.arange(-9, 10.0).square() / (2 * deviation**2))
    taps = (taps / taps.sum()).expand(3, 1, 1, 19)
    x = F.conv2d(F.pad(x, (9, 9, 0, 0), mode="reflect"), taps, groups=3)
    return F.conv2d(F.pad(x, (0, 0, 9, 9), mode="reflect"), taps.transpose(2, 3), groups=3)


def similarity(model: VisionTransformer, x: Tensor) -> float:
    """Mean cosine between attention rows (mean of heads) and the mean row, over queries, images and
    layers.
    """
    cosines: list[float] = []

    def look(mechanism: Attention, inputs: tuple[Tensor], options: dict[str, Any]) -> None:
        extras = {key: options[key] for key in ("size",) if key in mechanism.extras}
        maps = mechanism.weights(inputs[0], **extras).mean(1)
        cosine = torch.cosine_similarity(maps, maps.mean(1, keepdim=True), dim=2)
        cosines.append(float(cosine.mean()))

    hooks = [
        layer.mixer.register_forward_pre_hook(look, with_kwargs=True)
        for layer in model.encoder.layers
    ]
    with torch.no_grad():
        model.eval()(x)
    for hook in hooks:
        hook.remove()
    return statistics.mean(cosines)


def cell(form: str, seed: int, epochs: int, folder: Path) -> None:
    """Train one model and keep what is measured on it."""
    torch.set_num_threads(1)
    attention, weight = FORMS[form]
    train, test = domains.flowers()
    torch.manual_seed(seed)
    # The published loss is the mean over layers.
    model = domains.flower_model(
        attention, depth=DEPTH, options={attention: {"diversify": weight / DEPTH}}
    )
    domains.fit(model, train, epochs=epochs, seed=seed, change=domains.shifted, limit=600)
    result = {
        "similarity": similarity(model, test.x[:128]),
        "clean": domains.accuracy(model, test),
        "noise .3": domains.accuracy(model, test, lambda x: noisy(x, 0.3)),
        "noise .8": domains.accuracy(model, test, lambda x: noisy(x, 0.8)),
        "blur 1.5": domains.accuracy(model, test, lambda x: blurred(x, 1.5)),
        "blur 3": domains.accuracy(model, test, lambda x: blurred(x, 3.0)),
    }
    write_cell(path_of(folder, form, seed, epochs), result)


def path_of(folder: Path, form: str, seed: int, epochs: int) -> Path:
    """The file of a cell."""
    return folder / f"{list(FORMS).index(form)}-{seed}-{epochs}.json"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/diversification"))
    arguments = parser.parse_args()
    folder, epochs = arguments.output, arguments.epochs
    cells = [(form, seed, epochs) for seed in range(arguments.seeds) for form in FORMS]
    run_cells(cell, waiting_cells(path_of, folder, cells), arguments.jobs)

    def read(form: str) -> list[dict[str, float]]:
        paths = [path_of(folder, form, seed, epochs) for seed in range(arguments.seeds)]
        return [json.loads(path.read_text()) for path in paths]

    results = {form: read(form) for form in FORMS}
    kinds = list(results["softmax"][0])
    print_header("form", *kinds)
    for form, rows in results.items():
        print_row(form, *(f"{statistics.mean(row[kind] for row in rows):.3f}" for kind in kinds))
    for form in (form for form in FORMS if "loss" in form):
        plain = form.split(" + ")[0]
        values = {
            kind: [[row[kind] for row in results[name]] for name in (form, plain)] for kind in kinds
        }
        print_row(f"{form} minus {plain}", *(difference(*values[kind]) for kind in kinds))


if __name__ == "__main__":
    main()
