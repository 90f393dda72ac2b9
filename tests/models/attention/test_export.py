"""What a pipeline exports runs where Headwise is absent: every mechanism of sequences in plain
PyTorch.
"""

import pytest
import torch

from headwise.kernels.decompositions import plain_decompositions
from headwise.models.attention import ATTENTION, build_attention

CASES = [(name, {}) for name, row in ATTENTION.items() if row.fits != "grid"]
CASES += [
    ("moh", {"compute": "gathered"}),
    ("moh", {"compute": "gathered", "causal": True}),
    ("taylor", {"form": "linear"}),
]


class Masked(torch.nn.Module):
    def __init__(self, mechanism: torch.nn.Module) -> None:
        super().__init__()
        self.mechanism = mechanism

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.mechanism(x, mask=mask)


@pytest.mark.parametrize(("name", "options"), CASES)
@torch.no_grad()
def test_the_exported_program_is_plain(name: str, options: dict) -> None:
    torch.manual_seed(0)
    model = Masked(build_attention(name, 16, 4, **options).eval())
    x, mask = torch.randn(2, 12, 16), torch.rand(2, 12) < 0.7
    mask[0] = False
    program = torch.export.export(model, (x, mask), strict=False)
    plain = program.run_decompositions(plain_decompositions())
    assert "headwise" not in plain.graph_module.code
    torch.testing.assert_close(plain.module()(x, mask), model(x, mask=mask), rtol=1e-5, atol=1e-5)
