"""Attention in a window of a grid, compared with unfolding the grid (torch's unfold and einsum):
time and peak memory.

    python benchmarks/ops/neighbourhood.py [--seconds 0.5]

Batch 1, one thread, float32; both are given the same logits and values and must agree.
Measured as `ratios.py` says.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.benchmarks import ratios
from headwise.benchmarks.measure import Case, Size, training_step
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


def cases(size: Size) -> Iterator[Case]:
    """Inference and training of both forms, checked."""
    for case in {"tiny": ((4, 6, 3, 1),), "short": CASES[1:], "full": CASES}[size]:
        torch.manual_seed(0)
        ours, theirs = Step(*case), Unfolded(*case)
        theirs.load_state_dict(ours.state_dict())
        torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-4)
        channels, side, window, heads = case
        name = f"{channels} channels, {side} x {side}, window {window}, {heads} heads"
        without = [torch.no_grad()(form.forward) for form in (ours, theirs)]
        yield Case(f"{name}, inference", without[0], {"unfolded": without[1]})
        steps = [training_step(form, form) for form in (ours, theirs)]
        yield Case(f"{name}, training", steps[0], {"unfolded": steps[1]})


if __name__ == "__main__":
    ratios.main(__doc__, ["ops/neighbourhood"])
