"""Pair-wise cross-attention against its formula, on the CPU."""

import pytest
import torch
from torch import Tensor

from headwise.kernels.decompositions import plain_decompositions
from headwise.kernels.pair_attention import cpu, naive, pair_attention
from headwise.tests.kernels.agreement import NewTensors, assert_agree, gradients


def formula(
    query: Tensor, key: Tensor, value: Tensor, partner: Tensor, scale: float | None = None
) -> Tensor:
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return naive.pair_attention(query, key, value, partner, scale)[0]


def random_inputs(
    batch: int = 3,
    heads: int = 2,
    queries: int = 5,
    keys: int = 5,
    width: int = 4,
    value_width: int = 4,
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:
    torch.manual_seed(batch + queries)
    shapes = (
        (batch, heads, queries, width),
        (batch, heads, keys, width),
        (batch, heads, keys, value_width),
    )
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


CASES = {
    "exchange": ([1, 0, 2], {}),
    "a circle": ([1, 2, 0], {"queries": 13, "keys": 13}),
    "one partner for all, itself included": ([1, 1, 1], {}),
    "some are no one's partner": ([2, 2, 0], {}),
    "values of another width": ([2, 2, 0], {"value_width": 7}),
    "more queries than keys": ([2, 2, 0], {"queries": 9, "keys": 3, "value_width": 1}),
    "one key, one head": (
        [1, 0],
        {"batch": 2, "heads": 1, "keys": 1, "width": 1, "value_width": 1},
    ),
    "one sample": ([0], {"batch": 1}),
    "beyond a tile of the fused operator": ([1, 1], {"batch": 2, "queries": 70, "keys": 600}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("form", ["chosen", "blocks"])
def test_values_and_gradients_are_those_of_joined_keys(
    name: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "blocks":
        monkeypatch.setattr(cpu, "takes_fused", lambda *_, **__: False)
        monkeypatch.setattr(cpu, "SLICE_NUMBERS", 24)
    places, sizes = CASES[name]
    inputs, partner = random_inputs(**sizes), torch.tensor(places)
    out = pair_attention(*inputs, partner, scale=0.3)
    assert_agree(out, formula(*inputs, partner, 0.3), inputs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("value_width", [2, 3])
def test_gradients_by_differences(value_width: int) -> None:
    inputs, partner = random_inputs(3, 1, 2, 3, 2, value_width), torch.tensor([2, 2, 1])
    assert torch.autograd.gradcheck(lambda *x: pair_attention(*x, partner), inputs)


def test_a_sample_that_is_its_own_partner_attends_to_itself() -> None:
    """Every key is twice in the softmax, which changes no weighted mean."""
    inputs = random_inputs()
    expected = torch.nn.functional.scaled_dot_product_attention(*inputs)
    torch.testing.assert_close(pair_attention(*inputs, torch.arange(3)), expected)


def test_the_partner_counts() -> None:
    inputs = random_inputs()
    first, second = (pair_attention(*inputs, torch.tensor([p, 0, 0])) for p in (1, 2))
    assert not torch.allclose(first[0], second[0])
    assert torch.equal(first[1:], second[1:])


def test_gradients_of_a_shared_partner_add_up() -> None:
    inputs, partner = random_inputs(), torch.tensor([2, 2, 2])

    def of(samples: slice) -> Tensor:
        out = pair_attention(*inputs, partner)[samples]
        return gradients(out, inputs, torch.ones_like(out))[2][2]

    alone = [of(slice(b, b + 1)) for b in range(2)]
    assert all(part.abs().max() > 0 for part in alone)
    both = of(slice(0, 2))
    torch.testing.assert_close(both, alone[0] + alone[1])


def test_large_scores_of_one_block_stay_finite() -> None:
    """The weight of the other block is 0, and its merged form no 0 times infinity."""
    inputs, partner = random_inputs(dtype=torch.float32), torch.tensor([1, 2, 0])
    out, expected = pair_attention(*inputs, partner, scale=1e4), formula(*inputs, partner, 1e4)
    torch.testing.assert_close(out, expected)
    for x in gradients(out, inputs, torch.ones_like(out)):
        assert x.isfinite().all()


@pytest.mark.parametrize("value_width", [8, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_types(dtype: torch.dtype, value_width: int) -> None:
    inputs = [
        x.detach().to(dtype).requires_grad_() for x in random_inputs(4, 2, 40, 40, 8, value_width)
    ]
    exact, partner = (
        [x.detach().double().requires_grad_() for x in inputs],
        torch.tensor([1, 3, 3, 0]),
    )
    got, expected = pair_attention(*inputs, partner), formula(*exact, partner)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    assert got.dtype == dtype
    assert (got.double() - expected).norm() / expected.norm() < tolerance
    weight = torch.randn_like(expected).to(dtype)
    for a, b in zip(gradients(got, inputs, weight), gradients(expected, exact, weight.double())):
        assert a.dtype == dtype
        assert (a.double() - b).norm() / b.norm() < tolerance


@pytest.mark.parametrize("value_width", [4, 5])
def test_other_strides(value_width: int) -> None:
    """Heads next to each other in memory, as a layer makes them, and rows that are not
    contiguous.
    """
    inputs, partner = random_inputs(value_width=value_width), torch.tensor([1, 2, 0])
    for turn in ((1, 2), (2, 3)):
        turned = [
            x.detach().transpose(*turn).contiguous().transpose(*turn).requires_grad_()
            for x in inputs
        ]
        out = pair_attention(*turned, partner)
        assert_agree(out.transpose(1, 3), formula(*turned, partner).transpose(1, 3), turned)
        assert out.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("sizes", [{"batch": 0}, {"queries": 0}, {"keys": 0}, {"value_width": 0}])
def test_empty(sizes: dict[str, int]) -> None:
    inputs = random_inputs(**sizes)
    batch = inputs[0].shape[0]
    out = pair_attention(*inputs, torch.zeros(batch, dtype=torch.int64))
    assert out.shape == (*inputs[0].shape[:3], inputs[2].shape[3])
    assert out.eq(0).all()
    for x, grad in zip(
        inputs, torch.autograd.grad(out.sum(), inputs, allow_unused=True, materialize_grads=True)
    ):
        assert grad.shape == x.shape
        assert grad.eq(0).all()


def test_autocast_and_compile() -> None:
    inputs = random_inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pair_attention(*inputs, torch.tensor([1, 2, 0])).dtype == torch.bfloat16
    torch._dynamo.reset()
    compiled = torch.compile(pair_attention, fullgraph=True, backend="aot_eager", dynamic=True)
    for places, tokens in (([1, 2, 0], 5), ([0, 0, 1, 2], 8)):
        inputs, partner = (
            random_inputs(len(places), queries=tokens, keys=tokens, dtype=torch.float32),
            torch.tensor(places),
        )
        assert_agree(compiled(*inputs, partner), pair_attention(*inputs, partner), inputs)


@pytest.mark.parametrize("value_width", [4, 6])
@pytest.mark.parametrize("batch", [3, 0])
def test_promises_to_the_dispatcher(batch: int, value_width: int) -> None:
    inputs = random_inputs(batch, queries=4, keys=6, value_width=value_width, dtype=torch.float32)
    partner = torch.arange(batch).flip(0)
    operator = torch.ops.headwise.pair_attention.default
    torch.library.opcheck(operator, (*inputs, partner, 0.5))
    detached = [x.detach() for x in inputs]
    out, lse = operator(*detached, partner, 0.5)
    torch.library.opcheck(
        torch.ops.headwise.pair_attention_backward.default, (out, *detached, partner, out, lse, 0.5)
    )


def test_only_inputs_output_and_a_number_a_query_are_kept() -> None:
    inputs, partner = random_inputs(dtype=torch.float32), torch.tensor([1, 2, 0])
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (saved.append(x), x)[1], lambda x: x):
        out = pair_attention(*inputs, partner)
    known = {x.data_ptr() for x in (*inputs, partner, out)}
    assert [tuple(x.shape) for x in saved if x.data_ptr() not in known] == [(3, 2, 5)]


def test_no_copy_of_keys_and_values_is_made() -> None:
    """Forward, nothing is as large as half a sample's keys; joined keys are seen by this check."""
    query, key, value = (x.detach() for x in random_inputs(4, 2, 3, 9000, 8, 8, torch.float32))
    partner = torch.tensor([1, 0, 3, 3])
    with torch.no_grad():
        with NewTensors() as detached:
            formula(query, key, value, partner)
        assert max(detached.sizes) >= 2 * key.numel()
        with NewTensors() as of_operator:
            cpu.forward(query, key, value, partner, 0.5)
    assert of_operator.sizes
    assert max(of_operator.sizes) < key[0].numel() // 2


def test_exported_it_needs_no_operator_of_ours() -> None:
    class Model(torch.nn.Module):
        def forward(self, query: Tensor, key: Tensor, value: Tensor, partner: Tensor) -> Tensor:
            return pair_attention(query, key, value, partner)

    batch, tokens = torch.export.Dim("batch", min=1), torch.export.Dim("tokens", min=1)
    dynamic = (*({0: batch, 2: tokens} for _ in range(3)), {0: batch})
    program = torch.export.export(
        Model(),
        (*(x.detach() for x in random_inputs()), torch.tensor([1, 2, 0])),
        dynamic_shapes=dynamic,
    )
    assert "headwise" in str(program.graph)
    program = program.run_decompositions(plain_decompositions())
    assert "headwise" not in str(program.graph)
    for places, tokens in (([1, 2, 0], 5), ([0], 3), ([4, 4, 4, 4, 0], 20)):
        inputs, partner = (
            random_inputs(len(places), queries=tokens, keys=tokens),
            torch.tensor(places),
        )
        with torch.no_grad():
            torch.testing.assert_close(
                program.module()(*inputs, partner), formula(*inputs, partner)
            )


def test_mistakes_are_named() -> None:
    (query, key, value), partner = random_inputs(), torch.tensor([1, 2, 0])
    for wrong, message in (
        ((query[0], key, value, partner), "query must be"),
        ((query, key, value[:, :, :-1], partner), "query must be"),
        ((query, key[..., :3], value, partner), "does not fit query"),
        ((query, key[:2], value[:2], partner), "does not fit query"),
        ((query, key[:, :1], value[:, :1], partner), "does not fit query"),
        ((query, key.float(), value, partner), "one floating type"),
        ((query.long(), key.long(), value.long(), partner), "one floating type"),
        ((query, key, value, partner.int()), "partner must be int64"),
        ((query, key, value, partner[:2]), "one place a sample"),
        ((query, key, value, partner.to("meta")), "one device"),
        ((query, key, value, torch.tensor([0, 1, 3])), "places 0 to 2"),
        ((query, key, value, torch.tensor([0, -1, 2])), "places 0 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            pair_attention(*wrong)
