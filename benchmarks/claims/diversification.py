"""Claim: the diversification loss makes rows of attention less alike and helps on spoilt images
(TAPADL, ICCV 2023).

    python benchmarks/claims/diversification.py [--seeds 5] [--epochs 30] [--jobs 2] [--output
    FOLDER]

Flowers, small vision transformer: softmax attention without and with the loss, and token-aware
average pooling (TAP) without and with it. Measured on the test part: mean cosine of each attention
row with the mean row of its map (averaged over layers), accuracy on clean images, under Gaussian
noise (deviations .3 and .8 of a range of 2) and under Gaussian blur (deviations 1.5 and 3 pixels);
the loss with the paper's weight and a fifth of it. Differences to the same form without the loss,
seed by seed, with 95 % intervals (Student). Finished cells are kept."""

import json
import statistics
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from headwise.benchmarks.cells import student
from headwise.benchmarks.measure import parser_of

FORMS = {
    f"{shown}{said}": (name, weight)
    for shown, name in (("softmax", "softmax"), ("TAP", "tap"))
    for said, weight in (("", 0.0), (" + loss", 1.0), (" + loss / 5", 0.2))
}
DEPTH = 4


def noisy(x, deviation: float):
    """Gaussian noise, the same for every model."""
    import torch

    return x + deviation * torch.randn(x.shape, generator=torch.Generator().manual_seed(5))


def blurred(x, deviation: float):
    """Gaussian blur; deviation in pixels."""
    import torch
    import torch.nn.functional as F

    taps = torch.exp(-torch.arange(-9, 10.0).square() / (2 * deviation**2))
    taps = (taps / taps.sum()).expand(3, 1, 1, 19)
    x = F.conv2d(F.pad(x, (9, 9, 0, 0), mode="reflect"), taps, groups=3)
    return F.conv2d(F.pad(x, (0, 0, 9, 9), mode="reflect"), taps.transpose(2, 3), groups=3)


def similarity(model, x) -> float:
    """Mean cosine between attention rows (mean of heads) and the mean row, over queries, images and
    layers.
    """
    import torch

    found: list[float] = []

    def look(mechanism, given, options) -> None:
        extras = {key: options[key] for key in ("size",) if key in mechanism.extras}
        maps = mechanism.weights(given[0], **extras).mean(1)
        found.append(float(torch.cosine_similarity(maps, maps.mean(1, keepdim=True), dim=2).mean()))

    hooks = [
        layer.mixer.register_forward_pre_hook(look, with_kwargs=True)
        for layer in model.encoder.layers
    ]
    with torch.no_grad():
        model.eval()(x)
    for hook in hooks:
        hook.remove()
    return statistics.mean(found)


def cell(form: str, seed: int, epochs: int, folder: Path) -> None:
    """Train one model and keep what is measured on it."""
    import torch

    from headwise.benchmarks import domains

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
    path = name(folder, form, seed, epochs)
    write_cell(path, result)


def name(folder: Path, form: str, seed: int, epochs: int) -> Path:
    return folder / f"{list(FORMS).index(form)}-{seed}-{epochs}.json"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/diversification"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    waiting = [
        (f, s, arguments.epochs)
        for s in range(arguments.seeds)
        for f in FORMS
        if not name(arguments.output, f, s, arguments.epochs).exists()
    ]
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(cell, *what, arguments.output) for what in waiting]
        for job in tqdm(as_completed(jobs), total=len(jobs), unit="model"):
            job.result()
    rows = {
        f: [
            json.loads(name(arguments.output, f, s, arguments.epochs).read_text())
            for s in range(arguments.seeds)
        ]
        for f in FORMS
    }
    kinds = list(rows["softmax"][0])
    print("| form | " + " | ".join(kinds) + " |\n|---|" + "---|" * len(kinds))
    for form, found in rows.items():
        print(
            "| "
            + " | ".join(
                [form, *(f"{statistics.mean(row[k] for row in found):.3f}" for k in kinds)]
            )
            + " |"
        )
    for form in FORMS:
        if "loss" in form:
            plain = form.split(" + ")[0]
            cells = [f"{form} minus {plain}"]
            for kind in kinds:
                change = [b[kind] - a[kind] for a, b in zip(rows[plain], rows[form])]
                cells.append("{:+.3f} ({:+.3f} to {:+.3f})".format(*student(change)))
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
