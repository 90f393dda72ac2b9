"""The end of differential attention against its formula, on the CPU."""

import pytest
import torch
from torch import Tensor

from headwise.kernels.decompositions import plain_decompositions
from headwise.kernels.differential_combine import cpu, differential_combine, naive
from headwise.tests.kernels.agreement import assert_agree


def formula(
    mixed: Tensor, lam: Tensor, weight: Tensor | None, signal: int, eps: float, scale: float
) -> Tensor:
    rows = mixed.transpose(1, 2).flatten(0, 1)
    out = naive.differential_combine(rows, lam, weight, signal, eps, scale)[0]
    return out.view(mixed.shape[0], mixed.shape[2], signal * mixed.shape[3])


@pytest.mark.parametrize(
    "shape", [(2, 4, 1, 7, 6), (1, 3, 3, 1, 1), (3, 8, 2, 33, 5), (2, 2, 1, 0, 4), (1, 5, 1, 70, 8)]
)
@pytest.mark.parametrize("norm", [True, False])
def test_equals_the_formula(
    shape: tuple[int, ...], norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "BLOCK_NUMBERS", 300)  # several blocks
    torch.manual_seed(0)
    batch, signal, noise, tokens, width = shape
    # Laid out as PyTorch's fused attention lays it out.
    mixed = (
        torch.randn(batch, tokens, signal + noise, width, dtype=torch.float64)
        .transpose(1, 2)
        .requires_grad_()
    )
    lam = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(width, dtype=torch.float64, requires_grad=True) if norm else None
    out = differential_combine(mixed, lam, weight, signal=signal, eps=1e-3, scale=0.6)
    expected = formula(mixed, lam, weight, signal, 1e-3, 0.6)
    inputs = [mixed, lam, *([] if weight is None else [weight])]
    assert_agree(out, expected, inputs, rtol=1e-10, atol=1e-10)


def test_the_formula_is_a_chain_of_pytorch_operators() -> None:
    mixed, lam, weight = torch.randn(2, 6, 7, 5), torch.tensor(0.7), torch.randn(5)
    y = mixed[:, :4] - lam * mixed[:, 4:].repeat_interleave(2, 1)
    normed = torch.nn.functional.rms_norm(y, (5,), weight, 1e-3) * 0.6
    for factors, expected in (((weight, 4, 1e-3, 0.6), normed), ((None, 4, 1e-3, 0.6), y)):
        expected = expected.transpose(1, 2).flatten(2)
        torch.testing.assert_close(formula(mixed, lam, *factors), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_other_types_and_layouts_equal_the_formula(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    mixed, lam, weight = torch.randn(2, 5, 9, 6).to(dtype), torch.tensor(0.4), torch.randn(6)
    out = differential_combine(mixed, lam, weight, signal=4)
    assert out.dtype == dtype
    expected = formula(mixed.double(), lam, weight, 4, 1e-5, 1.0)
    error = (out.double() - expected).abs().max() / expected.abs().max()
    assert error < {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]


def test_registration_and_gradients() -> None:
    torch.manual_seed(2)
    rows = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)
    lam = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, dtype=torch.float64, requires_grad=True)
    operator = torch.ops.headwise.differential_combine
    torch.library.opcheck(operator, (rows, lam, weight, 3, 1e-2, 0.5))
    torch.library.opcheck(operator, (rows, lam, None, 3, 1e-2, 0.5))
    assert torch.autograd.gradcheck(
        lambda *inputs: operator(*inputs, 3, 1e-2, 0.5)[0], (rows, lam, weight)
    )


def test_only_inputs_and_one_number_a_head_are_kept() -> None:
    mixed = torch.randn(2, 50, 5, 8).transpose(1, 2).requires_grad_()
    lam, weight = torch.tensor(0.3, requires_grad=True), torch.ones(8, requires_grad=True)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        differential_combine(mixed, lam, weight, signal=4)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() // 4 for t in saved}
    assert sum(storages.values()) == mixed.numel() + 1 + 8 + 2 * 50 * 4


def test_rows_of_zero_have_finite_gradients() -> None:
    mixed = torch.zeros(1, 3, 4, 6, requires_grad=True)
    out = differential_combine(mixed, torch.tensor(0.5), torch.ones(6), signal=2)
    out.sum().backward()
    assert not out.any()
    assert mixed.grad is not None
    assert mixed.grad.isfinite().all()


@pytest.mark.parametrize("norm", [True, False])
def test_decomposed_it_needs_no_operator_of_ours(norm: bool) -> None:
    class Model(torch.nn.Module):
        def forward(self, mixed: Tensor) -> Tensor:
            weight = torch.linspace(0.5, 1.5, 4) if norm else None
            return differential_combine(mixed, torch.tensor(0.3), weight, signal=2, scale=0.7)

    mixed = torch.randn(2, 3, 5, 4)
    program = torch.export.export(Model(), (mixed,), strict=False).run_decompositions(
        plain_decompositions()
    )
    assert "headwise" not in str(program.graph)
    torch.testing.assert_close(program.module()(mixed), Model()(mixed), rtol=1e-6, atol=1e-6)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="mixed must be"):
        differential_combine(torch.zeros(1, 5, 2, 2), torch.tensor(1.0), signal=3)
    with pytest.raises(ValueError, match="lam must be one number"):
        differential_combine(torch.zeros(1, 4, 2, 2), torch.zeros(3), signal=3)
    with pytest.raises(ValueError, match="lam must be one number"):
        differential_combine(torch.zeros(1, 4, 2, 2), torch.tensor(1.0), torch.ones(3), signal=3)
