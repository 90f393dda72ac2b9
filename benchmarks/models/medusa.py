"""A training step of MEDUSA-style attention, compared with the same backbone without body and
heads: time and peak memory.

    python benchmarks/models/medusa.py [--threads 2] [--rounds 5] [--backbone resnet50]

float32, pictures of 224 x 224 for the classifier and 128 x 128 for the body (the released network
has 480 and 256). Steps are made in turn; the median of each counts. Peak memory is the growth of a
process of its own over one step, with one thread. The published counts of multiply-accumulates give
an overhead of about 54 %.
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F

from headwise.benchmarks.measure import (
    machine_load,
    medians,
    parser_of,
    peak_bytes,
    peak_of,
    print_header,
    print_row,
)
from headwise.models.vision.medusa import build_medusa, size_of

FORMS = ("medusa", "none")
BATCH, SIDE, SMALL = 4, 224, 128


def step(form: str, backbone: str) -> Callable[[], float]:
    """Forward, backward and Adam."""
    torch.manual_seed(0)
    model = build_medusa(backbone, 2, attention=form).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    picture, small = torch.randn(BATCH, 1, SIDE, SIDE), torch.randn(BATCH, 1, SMALL, SMALL)
    labels = torch.arange(BATCH) % 2

    def call() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(picture, small), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    call()  # Adam's state is made by the first step
    return call


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="steps of each")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--peak", choices=FORMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak_bytes(step(arguments.peak, arguments.backbone)))
        return
    backbone = arguments.backbone
    about = f"batch {BATCH}, {backbone}, {SIDE} and {SMALL} pixels"
    with machine_load(about, arguments.threads):
        times = medians([step(form, backbone) for form in FORMS], arguments.rounds)
        memory = [peak_of(__file__, form, "--backbone", backbone) / 2**20 for form in FORMS]
        weights = [size_of(build_medusa(backbone, 2, attention=form)) / 1e6 for form in FORMS]
        print_header("", "with body and heads", "backbone alone", "overhead")
        for name, (full, plain) in (
            ("ms per step", [1e3 * seconds for seconds in times]),
            ("MiB of a step", memory),
            ("million parameters", weights),
        ):
            print_row(name, f"{full:.1f}", f"{plain:.1f}", f"{full / plain - 1:.0%}")


if __name__ == "__main__":
    main()
