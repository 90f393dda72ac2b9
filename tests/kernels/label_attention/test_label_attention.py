"""Attention by labels against its formula, on the CPU."""

import pytest
import torch
from torch import Tensor

from headwise.kernels.decompositions import plain_decompositions
from headwise.kernels.label_attention import cpu, label_attention, label_contributions, naive
from headwise.tests.kernels.agreement import NewTensors, assert_agree, gradients


def written_out(
    h: Tensor,
    query: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask: Tensor | None = None,
    scale: float = 0.7,
) -> Tensor:
    """Sample by sample and label by label, with the mean of the tokens that each label makes."""
    rows = []
    for b in range(h.shape[0]):
        tokens = h[b] if mask is None else h[b][mask[b]]
        for q, w, constant in zip(query, weight, bias):
            mean = (scale * tokens @ q).softmax(0) @ tokens
            rows.append(mean @ w + constant)
    return torch.stack(rows).view(h.shape[0], -1)


def random_inputs(
    batch: int = 3,
    tokens: int = 7,
    labels: int = 5,
    width: int = 4,
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:
    torch.manual_seed(batch + tokens)
    shapes = (batch, tokens, width), (labels, width), (labels, width), (labels,)
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


def some_absent(batch: int, tokens: int) -> Tensor:
    """Gaps anywhere; the second sample has no token."""
    torch.manual_seed(tokens)
    mask = torch.rand(batch, tokens) < 0.6
    mask[:, tokens // 2] = True
    mask[1:2] = False
    return mask


SIZES = {
    "few": (3, 7, 5, 4),
    "a token, a label, a number": (2, 1, 1, 1),
    "more labels than tokens": (4, 3, 19, 5),
    "many tokens": (2, 90, 3, 6),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("numbers", [1 << 19, 24], ids=["one tile", "many tiles"])
@pytest.mark.parametrize("name", SIZES)
def test_values_and_gradients_are_the_formulas(
    name: str, numbers: int, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "SLICE_NUMBERS", numbers)
    monkeypatch.setattr(cpu, "FEWEST_LABELS", 2)
    inputs = random_inputs(*SIZES[name])
    mask = some_absent(*SIZES[name][:2]) if masked else None
    for out in (
        label_attention(*inputs, mask=mask, scale=0.7),
        label_contributions(*inputs, mask=mask, scale=0.7).logits,
    ):
        assert_agree(out, written_out(*inputs, mask), inputs)


def test_without_a_cpu_the_mask_is_used_without_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grouping of a GPU, all samples with their padding, gives the same numbers."""
    grouped = cpu.groups
    monkeypatch.setattr(cpu, "groups", lambda h, mask, labels: grouped(h, None, labels))
    inputs, mask = random_inputs(), some_absent(3, 7)
    expected = written_out(*inputs, mask)
    assert_agree(label_attention(*inputs, mask=mask, scale=0.7), expected, inputs)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_by_differences(masked: bool) -> None:
    inputs = random_inputs(2, 4, 3, 2)
    mask = some_absent(2, 4) if masked else None
    assert torch.autograd.gradcheck(lambda *x: label_attention(*x, mask=mask), inputs)
    assert torch.autograd.gradcheck(
        lambda *x: label_contributions(*x, mask=mask).contributions, inputs
    )


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_contributions_sum_to_the_logit_and_weights_to_one(
    dtype: torch.dtype, within: float
) -> None:
    h, query, weight, bias = random_inputs(4, 60, 9, 16, dtype=dtype)
    mask = some_absent(4, 60)
    read = label_contributions(h, query, weight, bias, mask=mask)
    logits = label_attention(h, query, weight, bias, mask=mask)
    largest = logits.abs().max()
    assert (read.contributions.sum(-1) + bias - logits).abs().max() < within * largest
    sums = read.weights.sum(-1)
    expected = mask.any(1)[:, None].to(dtype).expand_as(sums)
    torch.testing.assert_close(sums, expected, atol=within, rtol=0)
    for part in (read.weights, read.contributions):
        assert part.masked_select(~mask[:, None]).eq(0).all()


def test_queries_of_zero_give_a_linear_layer_of_the_mean() -> None:
    h, query, weight, bias = random_inputs()
    mask = some_absent(3, 7)
    mask[1, 0] = True
    mean = torch.stack([tokens[use].mean(0) for tokens, use in zip(h, mask)])
    expected = torch.nn.functional.linear(mean, weight, bias)
    torch.testing.assert_close(label_attention(h, 0 * query, weight, bias, mask=mask), expected)


def test_the_order_of_labels_permutes_logits() -> None:
    h, *of_labels = random_inputs()
    order = torch.tensor([3, 0, 4, 1, 2])
    turned = label_attention(h, *(x[order] for x in of_labels))
    torch.testing.assert_close(turned, label_attention(h, *of_labels)[:, order])


def test_padding_changes_nothing_whatever_it_holds() -> None:
    inputs = random_inputs()
    h, *of_labels = inputs
    out = label_attention(*inputs)
    slopes = gradients(out, inputs, torch.ones_like(out))
    padded = torch.cat([h.detach(), torch.full((3, 4, 4), torch.nan).double()], 1).requires_grad_()
    mask = torch.arange(11).expand(3, 11) < 7
    padded_out = label_attention(padded, *of_labels, mask=mask)
    torch.testing.assert_close(padded_out, out)
    of_padded = gradients(padded_out, (padded, *of_labels), torch.ones_like(out))
    assert of_padded[0][:, 7:].eq(0).all()
    torch.testing.assert_close((of_padded[0][:, :7], *of_padded[1:]), slopes)
    contributions = label_contributions(padded, *of_labels, mask=mask).contributions
    assert contributions[..., 7:].eq(0).all()


def test_absent_tokens_between_others_may_hold_anything() -> None:
    inputs, mask = random_inputs(), some_absent(3, 7)
    h, *of_labels = inputs
    out = label_attention(*inputs, mask=mask)
    spoilt = h.detach().masked_fill(~mask[..., None], torch.nan).requires_grad_()
    spoilt_out = label_attention(spoilt, *of_labels, mask=mask)
    torch.testing.assert_close(spoilt_out, out)
    slope = torch.randn_like(out)
    expected = gradients(out, inputs, slope)
    torch.testing.assert_close(gradients(spoilt_out, (spoilt, *of_labels), slope), expected)


def test_a_sample_without_tokens_gives_the_bias_and_no_gradient() -> None:
    inputs = random_inputs()
    mask = torch.zeros(3, 7, dtype=torch.bool)
    for out in (
        label_attention(*inputs, mask=mask),
        label_contributions(*inputs, mask=mask).logits,
    ):
        torch.testing.assert_close(out, inputs[3].expand(3, 5))
        slopes = gradients(out, inputs, torch.ones_like(out))
        assert all(x.eq(0).all() for x in slopes[:3])
        assert slopes[3].eq(3).all()


def test_a_nan_in_a_token_shows_in_its_sample_alone() -> None:
    inputs = [x.detach() for x in random_inputs()]
    inputs[0][1, 2, 0] = torch.nan
    for out in (label_attention(*inputs), label_contributions(*inputs).logits):
        assert out.isnan().all(1).tolist() == [False, True, False]


def test_scores_of_ten_thousand_stay_finite() -> None:
    inputs = random_inputs(dtype=torch.float32)
    out = label_attention(*inputs, scale=1e4)
    torch.testing.assert_close(out, written_out(*inputs, scale=1e4))
    assert all(x.isfinite().all() for x in gradients(out, inputs, torch.ones_like(out)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_types(dtype: torch.dtype) -> None:
    inputs = [x.detach().to(dtype).requires_grad_() for x in random_inputs(4, 40, 30, 8)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    mask = some_absent(4, 40)
    got = label_attention(*inputs, mask=mask, scale=0.7)
    expected = torch.stack(
        [written_out(x[None], *exact[1:], use[None])[0] for x, use in zip(exact[0], mask)]
    )
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 5e-3, torch.float16: 1e-3}[dtype]
    assert got.dtype == dtype
    assert (got.double() - expected).norm() / expected.norm() < tolerance
    slope = torch.randn_like(expected).to(dtype)
    for a, b in zip(gradients(got, inputs, slope), gradients(expected, exact, slope.double())):
        assert a.dtype == dtype
        assert (a.double() - b).norm() / b.norm() < 4 * tolerance
    assert label_contributions(*inputs).logits.dtype == torch.float32


@pytest.mark.parametrize("sizes", [(0, 3, 2, 4), (2, 0, 2, 4), (2, 3, 0, 4)])
def test_empty(sizes: tuple[int, ...]) -> None:
    inputs = random_inputs(*sizes)
    mask = torch.ones(sizes[:2], dtype=torch.bool)
    for given_mask in (None, mask):
        out = label_attention(*inputs, mask=given_mask)
        torch.testing.assert_close(out, inputs[3].expand(sizes[0], sizes[2]))
        for x, slope in zip(inputs, gradients(out, inputs, torch.ones_like(out))):
            assert slope.shape == x.shape
        assert label_contributions(*inputs, mask=given_mask).weights.shape == (
            sizes[0], sizes[2], sizes[1],
        )  # fmt: skip


def test_autocast_and_compile() -> None:
    inputs = random_inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert label_attention(*inputs).dtype == torch.bfloat16
        mixed = inputs[0], inputs[1].bfloat16(), *inputs[2:]  # as a linear layer leaves them
        torch.testing.assert_close(label_attention(*mixed), label_attention(*inputs))
    torch._dynamo.reset()
    compiled = torch.compile(label_attention, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch, tokens in ((3, 7), (2, 12)):
        inputs = random_inputs(batch, tokens, dtype=torch.float32)
        mask = some_absent(batch, tokens)
        assert_agree(compiled(*inputs, mask=mask), label_attention(*inputs, mask=mask), inputs)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("batch", [3, 0])
def test_promises_to_the_dispatcher(batch: int, masked: bool) -> None:
    h, query, weight, _ = random_inputs(batch, dtype=torch.float32)
    mask = some_absent(batch, 7) if masked else None
    operator = torch.ops.headwise.label_attention.default
    torch.library.opcheck(operator, (h, query, weight, mask, 0.5))
    h, query, weight = h.detach(), query.detach(), weight.detach()
    pooled, lse = operator(h, query, weight, mask, 0.5)
    torch.library.opcheck(
        torch.ops.headwise.label_attention_backward.default,
        (pooled, h, query, weight, mask, pooled, lse, 0.5),
    )


def test_exported_it_needs_no_operator_of_ours() -> None:
    class Model(torch.nn.Module):
        def forward(self, h: Tensor, query: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
            return label_attention(h, query, weight, mask=mask)

    batch, tokens = torch.export.Dim("batch", min=1), torch.export.Dim("tokens", min=1)
    inputs = [x.detach() for x in random_inputs()[:3]]
    program = torch.export.export(
        Model(),
        (*inputs, some_absent(3, 7)),
        dynamic_shapes=({0: batch, 1: tokens}, {}, {}, {0: batch, 1: tokens}),
    )
    assert "headwise" in str(program.graph)
    program = program.run_decompositions(plain_decompositions())
    assert "headwise" not in str(program.graph)
    for sizes in ((3, 7), (1, 1), (4, 20)):
        inputs, mask = [x.detach() for x in random_inputs(*sizes)[:3]], some_absent(*sizes)
        torch.testing.assert_close(
            program.module()(*inputs, mask), label_attention(*inputs, mask=mask)
        )


def test_inputs_and_two_numbers_a_label_are_kept() -> None:
    inputs, mask = random_inputs(dtype=torch.float32), some_absent(3, 7)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x), x)[1], lambda x: x):
        label_attention(*inputs, mask=mask)
    known = {x.data_ptr() for x in (*inputs, mask)}
    assert [tuple(x.shape) for x in saved if x.data_ptr() not in known] == [(3, 5), (3, 5)]


@pytest.mark.parametrize("masked", [False, True])
def test_nothing_of_the_size_of_all_weights_or_means_is_made(
    masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither B L N nor B L d numbers, forward and backward; the formula is seen by this check."""
    monkeypatch.setattr(cpu, "SLICE_NUMBERS", 1 << 12)
    h, query, weight, _ = (x.detach() for x in random_inputs(6, 50, 400, 48, torch.float32))
    mask = some_absent(6, 50) if masked else None
    least = 6 * 400 * 48
    with NewTensors() as of_formula:
        naive.label_attention(h, query, weight, mask, 0.5)
    assert max(of_formula.sizes) >= least
    with NewTensors() as of_operator:
        pooled, lse = cpu.forward(h, query, weight, mask, 0.5)
        cpu.backward(pooled, h, query, weight, mask, pooled, lse, 0.5)
    assert 0 < max(of_operator.sizes) <= max(2 * query.numel(), h.numel()) < least


def test_a_second_derivative_is_refused_in_a_line_and_the_contributions_have_it() -> None:
    inputs = random_inputs()
    slope = torch.autograd.grad(label_attention(*inputs).sum(), inputs[0], create_graph=True)[0]
    with pytest.raises(NotImplementedError, match=r"kernels\.label_attention\.naive can"):
        slope.sum().backward()
    logits = label_contributions(*inputs).logits
    slope = torch.autograd.grad(logits.square().sum(), inputs[0], create_graph=True)[0]
    assert torch.autograd.grad(slope.square().sum(), inputs[1])[0].abs().max() > 0


def test_mistakes_are_named() -> None:
    h, query, weight, bias = random_inputs()
    mask = some_absent(3, 7)
    for wrong, message in (
        ((h[0], query, weight, bias, mask), r"h must be \(B, N, d\)"),
        ((h, query[:-1], weight, bias, mask), "h must be"),
        ((h, query[:, :3], weight[:, :3], bias, mask), "h must be"),
        ((h, query, weight, bias[:-1], mask), "h must be"),
        ((h[..., :0], query[:, :0], weight[:, :0], bias, mask), "h must be"),
        ((h, query.float(), weight, bias, mask), "one floating type"),
        ((h, query, weight, bias, mask.double()), "mask must be bool"),
        ((h, query, weight, bias, mask[:, :-1]), "mask must be bool"),
        ((h, query, weight, bias, mask.to("meta")), "one device"),
    ):
        for form in (label_attention, label_contributions):
            with pytest.raises(ValueError, match=message):
                form(*wrong[:4], mask=wrong[4])
