"""Gathered heads against their formula, dense attention times the gate."""

import pytest
import torch
from torch import Tensor

from headwise.kernels.decompositions import plain_decompositions
from headwise.kernels.gathered_heads import cpu, device, gathered_heads, naive


def formula(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gate: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float | None,
) -> Tensor:
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    return naive.gathered_heads(query, key, value, gate, mask, causal, factor)[0]


def random_inputs(
    batch: int, heads: int, groups: int, tokens: int, keys: int, width: int
) -> list[Tensor]:
    shapes = [
        (batch, heads, tokens, width),
        (batch, groups, keys, width),
        (batch, groups, keys, width),
    ]
    parts = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    gate = torch.randn(batch, heads, tokens, dtype=torch.float64) * (
        torch.rand(batch, heads, tokens) < 0.5
    )
    if heads > 1:
        gate[0, 0] = 0.0  # used by no token
        gate[-1, 1] = 1.5  # used by all
    return [tensor.requires_grad_() for tensor in (*parts, gate)]


SHAPES = [
    (2, 4, 4, 9, 9, 4),
    (1, 1, 1, 1, 1, 3),
    (2, 4, 2, 7, 12, 5),
    (1, 6, 1, 13, 6, 8),
    (2, 2, 2, 33, 33, 2),
]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("tokens", "keys"), [(5, 0), (0, 5), (0, 0)])
def test_without_keys_all_is_zero_and_without_tokens_nothing_is_computed(
    tokens: int, keys: int, dtype: torch.dtype, causal: bool
) -> None:
    query, gate = torch.randn(2, 3, tokens, 4, dtype=dtype), torch.ones(2, 3, tokens, dtype=dtype)
    key, value = torch.randn(2, 2, 3, keys, 4, dtype=dtype)
    tensors = [x.requires_grad_() for x in (query, key, value, gate)]
    dirt = torch.full((2, 3, 64, 4), 1e4)  # memory that the next result may get
    del dirt
    out = gathered_heads(*tensors, causal=causal)
    assert out.shape == query.shape
    assert not out.any()
    out.sum().backward()
    assert all(x.grad is not None and not x.grad.any() for x in tensors)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", [None, "keys", "pairs", "heads"])
def test_equals_dense_attention_times_the_gate(
    shape: tuple[int, ...], causal: bool, kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "BLOCK", 5)
    torch.manual_seed(0)
    batch, heads, _, tokens, keys, _ = shape
    tensors = random_inputs(*shape)
    masks = {
        "keys": (batch, 1, 1, keys),
        "pairs": (batch, 1, tokens, keys),
        "heads": (batch, heads, tokens, keys),
    }
    mask = None if kind is None else torch.rand(masks[kind]) < 0.6
    if mask is not None:
        mask[0, ..., -1:, :] = False
    scale = None if causal else 0.4
    out = gathered_heads(*tensors, mask, causal=causal, scale=scale)
    expected = formula(*tensors, mask, causal, scale)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    grad = torch.randn_like(out)
    got, expected_slopes = (
        torch.autograd.grad(out, tensors, grad),
        list(torch.autograd.grad(expected, tensors, grad)),
    )
    # A head that is off costs nothing, so that its gate has no gradient.
    expected_slopes[3] = expected_slopes[3] * (tensors[3] != 0)
    torch.testing.assert_close(list(got), expected_slopes, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_types_equal_the_formula(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    exact = [tensor.detach() for tensor in random_inputs(2, 4, 2, 40, 40, 8)]
    tensors = [tensor.to(dtype).requires_grad_() for tensor in exact[:3]] + [
        exact[3].float().requires_grad_()
    ]
    out = gathered_heads(*tensors, causal=True)
    assert out.dtype == dtype
    rounded = [tensor.detach().double().requires_grad_() for tensor in tensors]
    expected = formula(*rounded, None, True, None)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    assert (out.double() - expected).norm() / expected.norm() < tolerance
    got, expected_slopes = (
        torch.autograd.grad(out.sum(), tensors),
        torch.autograd.grad(expected.sum(), rounded),
    )
    for tensor, a, b in zip(tensors, got, expected_slopes):
        assert a.dtype == tensor.dtype
        b = b * (rounded[3] != 0) if b.ndim == 3 else b
        assert (a.double() - b).norm() / b.norm() < tolerance


def test_registration_and_gradients() -> None:
    torch.manual_seed(2)
    tensors = random_inputs(1, 3, 3, 5, 4, 2)
    operator = torch.ops.headwise.gathered_heads
    for mask, causal in ((None, False), (torch.rand(1, 1, 1, 4) < 0.7, True)):
        torch.library.opcheck(operator, (*tensors, mask, causal, 0.7))
    gate = tensors[3].detach()
    assert torch.autograd.gradcheck(
        lambda *qkv: operator(*qkv, gate, None, False, 0.7)[0], tuple(tensors[:3])
    )


def test_only_switched_on_rows_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries that reach the fused operator, in both passes: as many as gates that are not 0."""
    torch.manual_seed(3)
    tensors, met = random_inputs(2, 4, 4, 50, 50, 4), {"forward": 0, "backward": 0}
    attend, attend_backward = cpu._attend, cpu._attend_backward

    def counted(query: Tensor, *others: object, **more: object) -> tuple[Tensor, Tensor]:
        met["forward"] += query.shape[2]
        return attend(query, *others, **more)

    def counted_backward(
        grad: Tensor, query: Tensor, *others: object, **more: object
    ) -> tuple[Tensor, ...]:
        met["backward"] += query.shape[2]
        return attend_backward(grad, query, *others, **more)

    monkeypatch.setattr(cpu, "_attend", counted)
    monkeypatch.setattr(cpu, "_attend_backward", counted_backward)
    gathered_heads(*tensors).sum().backward()
    on = int((tensors[3] != 0).sum())
    assert on < 300
    assert met == {"forward": on, "backward": on}


def test_no_mask_of_all_pairs_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "BLOCK", 16)
    gate = (torch.rand(1, 2, 100) < 0.5).float()
    query = torch.randn(1, 2, 100, 4)
    blocks = cpu.pieces(query, 100, gate, cpu.places(gate), None, True)
    sizes = [piece.bias.shape for piece in blocks if piece.bias is not None]
    assert sizes
    assert max(rows for rows, _ in sizes) <= 16


@pytest.mark.parametrize("causal", [True, False])
def test_decomposed_it_needs_no_operator_of_ours(causal: bool) -> None:
    class Model(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, gate: Tensor, mask: Tensor) -> Tensor:
            return gathered_heads(q, k, v, gate, mask, causal=causal)

    tensors = [tensor.detach() for tensor in random_inputs(2, 4, 2, 9, 12, 4)]
    tensors.append(torch.rand(2, 1, 1, 12) < 0.7)
    program = torch.export.export(Model(), tuple(tensors), strict=False).run_decompositions(
        plain_decompositions()
    )
    assert "headwise" not in str(program.graph)
    torch.testing.assert_close(
        program.module()(*tensors), Model()(*tensors), rtol=1e-10, atol=1e-10
    )


def test_mistakes_are_named() -> None:
    q, k, gate = torch.zeros(1, 4, 3, 2), torch.zeros(1, 2, 5, 2), torch.ones(1, 4, 3)
    for wrong, message in (
        ((q, k, k, gate[:, :3]), "gate"),
        ((q, k[:, [0, 1, 1]], k[:, [0, 1, 1]], gate), "does not fit"),
        ((q, k.double(), k.double(), gate), "types differ"),
        ((q, k, k, gate, torch.ones(1, 1, 3, 4, dtype=torch.bool)), "broadcast"),
        ((q, k, k, gate, torch.ones(1, 1, 3, 5)), "must be bool"),
    ):
        with pytest.raises(ValueError, match=message):
            gathered_heads(*wrong)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_form_off_the_cpu_gives_the_same(causal: bool, masked: bool) -> None:
    torch.manual_seed(3)
    *parts, gate = [x.detach() for x in random_inputs(2, 4, 2, 7, 9, 5)]
    mask = torch.rand(2, 4, 7, 9) < 0.6 if masked else None
    if mask is not None:
        mask[-1, -1, 2] = False  # a query without keys
    inputs = (*parts, gate, mask)
    expected = cpu.forward(*inputs, causal, 0.4)
    results = device.forward(*inputs, causal, 0.4)
    torch.testing.assert_close(results, expected)
    grad = torch.randn_like(parts[0])
    slopes = device.backward(grad, *inputs, *results, causal, 0.4)
    torch.testing.assert_close(slopes, cpu.backward(grad, *inputs, *expected, causal, 0.4))


def test_the_form_off_the_cpu_lets_no_infinity_of_a_head_that_is_off_through() -> None:
    *parts, gate = [x.detach() for x in random_inputs(1, 2, 2, 4, 4, 3)]
    parts[2][0, 0, 1] = torch.inf  # of the head that no token uses
    out, _ = device.forward(*parts, gate, None, False, 0.4)
    assert out[0, 0].eq(0).all()
