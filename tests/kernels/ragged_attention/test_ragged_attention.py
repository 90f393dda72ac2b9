"""Ragged attention against its formula, on the CPU."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from headwise.kernels.decompositions import plain_decompositions
from headwise.kernels.ragged_attention import cpu, naive, ragged_attention
from headwise.tests.kernels.agreement import assert_agree, gradients


def formula(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, scale: float | None = None
) -> Tensor:
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return naive.ragged_attention(query, key, value, offsets, scale)[0]


def random_inputs(
    lengths: list[int],
    queries: int = 3,
    heads: int = 2,
    width: int = 4,
    value_width: int = 5,
    dtype: torch.dtype = torch.float64,
) -> tuple[list[Tensor], Tensor]:
    torch.manual_seed(len(lengths))
    total = sum(lengths)
    shapes = (
        (len(lengths), queries, heads, width),
        (total, heads, width),
        (total, heads, value_width),
    )
    tensors = [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]
    return tensors, torch.tensor([0, *lengths]).cumsum(0)


LENGTHS = {
    "ragged, some empty": [3, 0, 1, 7, 0, 20, 17, 17, 19, 1],
    "one key each": [1, 1, 1],
    "one sample": [5],
    "equal": [4, 4, 4, 4],
    "a long one": [2, 300, 3],
    "all empty": [0, 0],
    "no samples": [],
}


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("numbers", [60, 2000])
def test_values_and_gradients_are_those_of_the_formula(
    name: str, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small cache makes long samples go in blocks of keys."""
    monkeypatch.setattr(cpu, "SLICE_NUMBERS", numbers)
    inputs, offsets = random_inputs(LENGTHS[name])
    out = ragged_attention(*inputs, offsets, scale=0.3)
    assert_agree(out, formula(*inputs, offsets, 0.3), inputs)


def test_the_formula_is_attention_sample_by_sample() -> None:
    (query, key, value), offsets = random_inputs(LENGTHS["ragged, some empty"])
    out = formula(query, key, value, offsets)
    for sample, (start, end) in enumerate(pairwise(offsets.tolist())):
        parts = (x.transpose(0, 1) for x in (query[sample], key[start:end], value[start:end]))
        alone = scaled_dot_product_attention(*parts).transpose(0, 1)
        torch.testing.assert_close(out[sample], alone if end > start else torch.zeros_like(alone))


@pytest.mark.parametrize(("queries", "heads"), [(1, 3), (40, 1)])
def test_hundreds_of_samples_in_groups(queries: int, heads: int) -> None:
    lengths = torch.randint(0, 60, (300,), generator=torch.Generator().manual_seed(1)).tolist()
    inputs, offsets = random_inputs(lengths, queries, heads, 8, 8)
    assert_agree(ragged_attention(*inputs, offsets), formula(*inputs, offsets), inputs)


def test_samples_of_nearly_one_length_share_a_group_and_each_is_in_one() -> None:
    lengths = torch.tensor([40, 0, 41, 44, 46, 2, 0, 44, 900, 1])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    lengths_of_groups = [
        sorted(lengths[group.bags].tolist()) for group in cpu.groups(offsets, int(offsets[-1]), 10)
    ]
    assert lengths_of_groups == [[1], [2], [40, 41, 44, 44], [46], [900]]


def test_gradients_by_differences() -> None:
    inputs, offsets = random_inputs([2, 0, 3, 1], 2, 2, 2, 3)
    assert torch.autograd.gradcheck(lambda *x: ragged_attention(*x, offsets), inputs)


def test_a_sample_without_keys_gives_0_and_takes_no_gradient() -> None:
    inputs, offsets = random_inputs([2, 0, 3])
    out = ragged_attention(*inputs, offsets)
    assert out[1].eq(0).all()
    assert gradients(out, inputs, torch.ones_like(out))[0][1].eq(0).all()


def test_keys_of_no_sample_take_no_part() -> None:
    (query, key, value), _ = random_inputs([3, 4, 5])
    offsets = torch.tensor([2, 5, 5, 10])
    out = ragged_attention(query, key, value, offsets)
    torch.testing.assert_close(out, formula(query, key, value, offsets))
    _, d_key, d_value = gradients(out, [query, key, value], torch.ones_like(out))
    outside = [0, 1, 10, 11]
    assert d_key[outside].eq(0).all()
    assert d_value[outside].eq(0).all()


def test_order_of_keys_within_a_sample_does_not_count() -> None:
    (query, key, value), offsets = random_inputs([5, 9, 2])
    order = torch.cat([torch.randperm(n) + start for n, start in zip((5, 9, 2), offsets.tolist())])
    a, b = (
        ragged_attention(query, key, value, offsets),
        ragged_attention(query, key[order], value[order], offsets),
    )
    torch.testing.assert_close(a, b)


def test_further_samples_change_no_other_even_if_they_hold_nan() -> None:
    (query, key, value), offsets = random_inputs([5, 9, 2])
    alone = ragged_attention(query, key, value, offsets)
    more_query, more_keys = (
        torch.cat([query, query[:1]]),
        torch.full((6, 2, 4), torch.nan, dtype=query.dtype),
    )
    more_value = torch.cat([value, torch.full((6, 2, 5), torch.nan, dtype=query.dtype)])
    inputs = [
        x.detach().requires_grad_() for x in (more_query, torch.cat([key, more_keys]), more_value)
    ]
    out = ragged_attention(*inputs, torch.cat([offsets, offsets[-1:] + 6]))
    torch.testing.assert_close(out[:3], alone)
    assert out[3].isnan().all()
    for x, owned in zip(gradients(out[:3], inputs, torch.ones_like(alone)), (3, 16, 16)):
        assert x[:owned].isfinite().all()


def test_large_scores_stay_finite() -> None:
    inputs, offsets = random_inputs([5, 1, 8], dtype=torch.float32)
    out = ragged_attention(*inputs, offsets, scale=1e4)
    torch.testing.assert_close(out, formula(*inputs, offsets, 1e4))


def test_other_strides() -> None:
    (query, key, value), offsets = random_inputs([5, 1, 8], value_width=4)
    both = torch.stack([key, value], 1)
    turned = query.detach().transpose(1, 2).contiguous().transpose(1, 2)
    out = ragged_attention(turned, *both.unbind(1), offsets).transpose(1, 3)
    assert_agree(out, formula(query, key, value, offsets).transpose(1, 3), [key, value])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    exact, offsets = random_inputs([3, 0, 30, 12, 200], 4, 2, 8, 8)
    inputs = [x.detach().to(dtype).requires_grad_() for x in exact]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    got, expected = ragged_attention(*inputs, offsets), formula(*exact, offsets)
    eps = torch.finfo(dtype).eps
    assert got.dtype == dtype
    # Sums are in float32: only the result is rounded.
    torch.testing.assert_close(got.double(), expected, atol=eps, rtol=eps)
    weight = torch.randn_like(expected).to(dtype)
    for a, b in zip(gradients(got, inputs, weight), gradients(expected, exact, weight.double())):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, atol=8 * eps, rtol=4 * eps)


def test_autocast_and_compile() -> None:
    inputs, offsets = random_inputs([3, 0, 9], dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ragged_attention(*inputs, offsets).dtype == torch.bfloat16
    compiled = torch.compile(ragged_attention, fullgraph=True, backend="aot_eager", dynamic=True)
    for lengths in ([3, 0, 9], [4, 4, 4, 1]):
        inputs, offsets = random_inputs(lengths, dtype=torch.float32)
        assert_agree(compiled(*inputs, offsets), ragged_attention(*inputs, offsets), inputs)


@pytest.mark.parametrize("lengths", [[3, 0, 9], []])
def test_promises_to_the_dispatcher(lengths: list[int]) -> None:
    inputs, offsets = random_inputs(lengths, dtype=torch.float32)
    operator = torch.ops.headwise.ragged_attention.default
    torch.library.opcheck(operator, (*inputs, offsets, 0.5))
    detached = [x.detach() for x in inputs]
    out, lse = operator(*detached, offsets, 0.5)
    torch.library.opcheck(
        torch.ops.headwise.ragged_attention_backward.default,
        (out, *detached, offsets, out, lse, 0.5),
    )


def test_only_inputs_output_and_a_number_a_query_are_kept() -> None:
    inputs, offsets = random_inputs([30, 0, 50], dtype=torch.float32)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x), x)[1], lambda x: x):
        out = ragged_attention(*inputs, offsets)
    known = {x.data_ptr() for x in (*inputs, offsets, out)}
    assert [tuple(x.shape) for x in saved if x.data_ptr() not in known] == [(3, 3, 2)]


def test_exported_with_any_number_of_samples_and_keys_it_needs_no_operator_of_ours() -> None:
    class Model(torch.nn.Module):
        def forward(self, query: Tensor, key: Tensor, value: Tensor, offsets: Tensor) -> Tensor:
            return ragged_attention(query, key, value, offsets)

    samples, keys = torch.export.Dim("samples", min=1), torch.export.Dim("keys", min=1)
    dynamic = ({0: samples}, {0: keys}, {0: keys}, {0: samples + 1})
    inputs, offsets = random_inputs([3, 0, 9])
    program = torch.export.export(
        Model(), (*(x.detach() for x in inputs), offsets), dynamic_shapes=dynamic
    ).run_decompositions(plain_decompositions())
    assert "headwise" not in str(program.graph)
    for lengths in ([3, 0, 9], [2], [0, 1, 1, 0, 30]):
        inputs, offsets = random_inputs(lengths)
        with torch.no_grad():
            torch.testing.assert_close(
                program.module()(*inputs, offsets), formula(*inputs, offsets)
            )


@pytest.mark.parametrize("lengths", [[3, 0, 9], [0, 0], []])
def test_the_decomposition_gives_what_the_operator_gives(lengths: list[int]) -> None:
    operator = torch.ops.headwise.ragged_attention.default
    inputs, offsets = random_inputs(lengths)
    spare = [torch.cat([x, torch.ones(2, *x.shape[1:], dtype=x.dtype)]) for x in inputs[1:]]
    with torch.no_grad():
        for key, value in (inputs[1:], spare):
            torch.testing.assert_close(
                plain_decompositions()[operator](inputs[0], key, value, offsets, 0.4),
                operator(inputs[0], key, value, offsets, 0.4),
            )


def test_mistakes_are_named() -> None:
    (query, key, value), offsets = random_inputs([3, 4])
    for wrong, message in (
        ((query[0], key, value, offsets), "query must be"),
        ((query, key, value[:-1], offsets), "query must be"),
        ((query, key[..., :3], value, offsets), "does not fit query"),
        ((query, key[:, :1], value[:, :1], offsets), "does not fit query"),
        ((query, key.float(), value, offsets), "one floating type"),
        ((query.long(), key.long(), value.long(), offsets), "one floating type"),
        ((query, key, value, offsets.int()), "offsets must be int64"),
        ((query, key, value, offsets[:-1]), "one more than samples"),
        ((query, key, value, torch.tensor([0, 5, 3])), "must ascend"),
        ((query, key, value, torch.tensor([-1, 3, 7])), "must ascend"),
        ((query, key, value, torch.tensor([0, 3, 8])), "must ascend"),
    ):
        with pytest.raises(ValueError, match=message):
            ragged_attention(*wrong)
