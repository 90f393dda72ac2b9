"""Exported programs for any number of tokens, of mechanisms whose form depends on that number."""

import pytest
import torch

from headwise.models.attention import build_attention

WIDTH = 16


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("combiner", {}),
        ("combiner", {"segment": 4, "causal": True}),
        ("query-free", {"causal": True}),
        ("taylor", {"causal": True}),
    ],
    ids=str,
)
@torch.no_grad()
def test_one_program_takes_any_number_of_tokens(name: str, options: dict) -> None:
    torch.manual_seed(0)
    mechanism = build_attention(name, WIDTH, 4, **options).eval()
    sizes = {"x": {0: torch.export.Dim("batch", min=2), 1: torch.export.Dim("tokens", min=2)}}
    sample = (torch.randn(3, 12, WIDTH),)
    program = torch.export.export(mechanism, sample, dynamic_shapes=sizes, strict=False).module()
    for batch, tokens in ((2, 12), (3, 7), (5, 33), (4, 2), (2, 300)):
        x = torch.randn(batch, tokens, WIDTH)
        torch.testing.assert_close(program(x), mechanism(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factorisation", ["axial", "logsparse"])
def test_a_combiner_whose_shapes_depend_on_the_tokens_says_so(factorisation: str) -> None:
    mechanism = build_attention("combiner", WIDTH, 4, factorisation=factorisation).eval()
    sizes = {"x": {1: torch.export.Dim("tokens", min=2)}}
    with pytest.raises(ValueError, match=f"of '{factorisation}' depend on the number of tokens"):
        torch.export.export(
            mechanism, (torch.randn(3, 12, WIDTH),), dynamic_shapes=sizes, strict=False
        )
