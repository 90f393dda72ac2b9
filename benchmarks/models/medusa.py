"""A training step of MEDUSA-style attention beside the same backbone without body and heads: time
and peak memory.

    python benchmarks/models/medusa.py [--threads 2] [--rounds 5] [--backbone resnet50]

float32, pictures of 224 x 224 for the classifier and 128 x 128 for the body (the released network
has 480 and 256). Steps are made in turn; the median of each counts. Peak memory is the growth of a
process of its own over one step, with one thread. The published counts of multiply-accumulates give
an overhead of about 54 %."""

import argparse
import os
from collections.abc import Callable

import torch
import torch.nn.functional as F

from headwise.benchmarks.measure import (
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
    torch.set_num_threads(arguments.threads)
    load = os.getloadavg()[0]
    sizes = f"{SIDE} and {SMALL} pixels"
    print(
        f"torch {torch.__version__}, {arguments.threads} threads, batch {BATCH}, {arguments.backbone}, {sizes}\n"
    )
    whole, plain = medians([step(form, arguments.backbone) for form in FORMS], arguments.rounds)
    memory = [peak_of(__file__, form, "--backbone", arguments.backbone) / 2**20 for form in FORMS]
    weights = [size_of(build_medusa(arguments.backbone, 2, attention=form)) / 1e6 for form in FORMS]
    print_header("| with body and heads", "backbone alone", "overhead")
    rows = [
        ("ms a step", whole * 1e3, plain * 1e3),
        ("MiB of a step", *memory),
        ("million parameters", *weights),
    ]
    for name, one, other in rows:
        print_row(name, f"{one:.1f}", f"{other:.1f}", f"{one / other - 1:.0%}")
    print(
        f"\nload of the machine {load:.1f} before, {os.getloadavg()[0]:.1f} after (alone: about {arguments.threads})"
    )


if __name__ == "__main__":
    main()
