"""Attention in a window of a grid, compared with unfolding the grid (torch's unfold and einsum):
time and peak memory.

    python benchmarks/ops/neighbourhood.py

Batch 1, one thread, float32; both are given the same logits and values and must agree before
anything is timed.
"""

import os
import subprocess
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.benchmarks.measure import (
    fastest,
    memory_environment,
    parser_of,
    peak_bytes,
    print_header,
    print_row,
    training_step,
)
from headwise.kernels.neighbourhood import neighbourhood_attention

# channels, side of the image, window, heads
CASES = ((64, 56, 17, 2), (64, 28, 17, 2), (128, 28, 7, 4), (96, 56, 3, 4))


class Step(torch.nn.Module):
    """Logits and values as parameters, so that a training step asks for both gradients."""

    def __init__(self, channels: int, side: int, window: int, heads: int) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.randn(1, heads, side**2, window**2))
        self.value = torch.nn.Parameter(torch.randn(1, heads, side**2, channels // heads))
        self.side, self.window = side, window

    def forward(self) -> Tensor:
        return neighbourhood_attention(self.logits, self.value, (self.side, self.side), self.window)


class Unfolded(Step):
    """The same with every neighbourhood copied out, as plain implementations do."""

    def forward(self) -> Tensor:
        _, heads, cells, size = self.value.shape
        image = self.value.transpose(2, 3).reshape(1, heads * size, self.side, self.side)
        copies = F.unfold(image, self.window, padding=self.window // 2).view(
            1, heads, size, -1, cells
        )
        ones = torch.ones(1, 1, self.side, self.side)
        inside = F.unfold(ones, self.window, padding=self.window // 2)[0].t() > 0
        weights = self.logits.masked_fill(~inside, -torch.inf).softmax(-1)
        return torch.einsum("bhnw,bhewn->bhne", weights, copies)


def main() -> None:
    parser_of(__doc__).parse_args()
    if os.environ.get("MALLOC_TRIM_THRESHOLD_") is None:
        # The allocator's settings are read when a process starts.
        raise SystemExit(
            subprocess.call([sys.executable, __file__], env=os.environ | memory_environment())
        )
    torch.set_num_threads(1)
    print_header(
        "channels, image, window",
        "inference, ms",
        "memory, MiB",
        "training, ms",
        "memory, MiB",
        "faster by",
        "memory",
    )
    for case in CASES:
        torch.manual_seed(0)
        ours, theirs = Step(*case), Unfolded(*case)
        theirs.load_state_dict(ours.state_dict())
        torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            times = fastest([ours, theirs], 0.5)
            memory = [peak_bytes(ours), peak_bytes(theirs)]
        steps = [training_step(ours, ours), training_step(theirs, theirs)]
        training, more = fastest(steps, 0.5), [peak_bytes(step) for step in steps]
        mib = [f"{a / 2**20:.1f} / {b / 2**20:.0f}" for a, b in (memory, more)]
        print_row(
            f"{case[0]}, {case[1]} x {case[1]}, {case[2]} x {case[2]}",
            f"{1e3 * times[0]:.1f} / {1e3 * times[1]:.1f}",
            mib[0],
            f"{1e3 * training[0]:.1f} / {1e3 * training[1]:.1f}",
            mib[1],
            f"{times[1] / times[0]:.1f}x, {training[1] / training[0]:.1f}x",
            f"{memory[0] / memory[1]:.3f}, {more[0] / more[1]:.3f}",
        )


if __name__ == "__main__":
    main()
