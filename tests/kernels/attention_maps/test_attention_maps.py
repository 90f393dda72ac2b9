"""Attention that gives out maps of heads, against its formula."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from headwise.kernels.attention_maps import attention_maps, cpu, naive


def formula(query, key, value, mask=None):
    """(output, weights (B, H, N, M)), in float64."""
    parts = (x.double() for x in (query, key, value))
    heads, scale = range(query.shape[1]), query.shape[-1] ** -0.5
    return naive.attention_maps(*parts, heads, False, mask, scale)


def random_inputs(batch=2, heads=3, queries=37, keys=51, width=8, value=5, dtype=torch.float32):
    torch.manual_seed(queries)
    shapes = (
        (batch, heads, queries, width),
        (batch, heads, keys, width),
        (batch, heads, keys, value),
    )
    return [torch.randn(shape).to(dtype) for shape in shapes]


@pytest.mark.parametrize("chosen", [None, [1], [2, 0], [0, 1, 2]])
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("kind", [None, "keys", "pairs", "heads"])
def test_output_and_maps_equal_the_formula(chosen, mean, kind):
    parts = random_inputs()
    shapes = {"keys": (2, 51), "pairs": (2, 37, 51), "heads": (1, 3, 37, 51)}
    mask = torch.rand(shapes[kind]) < 0.5 if kind else None
    if kind in ("pairs", "heads"):
        mask[..., 3, :] = False  # a query without a key
    full = (
        mask
        if mask is None or mask.ndim == 4
        else mask[:, None, None]
        if mask.ndim == 2
        else mask[:, None]
    )
    output, weights = formula(*parts, full)
    result = attention_maps(
        *parts, None if chosen is None else torch.tensor(chosen), mean=mean, mask=mask
    )
    torch.testing.assert_close(result.output.double(), output, atol=2e-6, rtol=1e-5)
    weights = weights[:, chosen or [0, 1, 2]]
    expected = weights.mean(1, keepdim=True) if mean else weights
    torch.testing.assert_close(result.maps.double(), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "size",
    [
        {"queries": 1, "keys": 1},
        {"queries": 300, "keys": 2000, "batch": 1},
        {"keys": 0},
        {"queries": 0},
        {"batch": 40, "queries": 5},
    ],
)
def test_odd_sizes_equal_the_formula(size):
    parts = random_inputs(**size)
    output, weights = formula(*parts)
    result = attention_maps(*parts, torch.tensor([2, 1]))
    torch.testing.assert_close(result.output.double(), output, atol=5e-6, rtol=1e-5)
    torch.testing.assert_close(result.maps.double(), weights[:, [2, 1]], atol=5e-6, rtol=1e-5)


def test_half_precision_keeps_maps_in_single():
    parts = random_inputs(dtype=torch.bfloat16)
    result = attention_maps(*parts)
    assert result.maps.dtype == torch.float32
    assert result.output.dtype == torch.bfloat16
    torch.testing.assert_close(result.maps.double(), formula(*parts)[1], atol=1e-5, rtol=1e-3)


def test_gradients_are_those_of_attention():
    parts = [x.double().requires_grad_() for x in random_inputs()]
    result = attention_maps(*parts, torch.tensor([1]))
    assert not result.maps.requires_grad
    result.output.square().sum().backward()
    got = [x.grad.clone() for x in parts]
    for x in parts:
        x.grad = None
    formula(*parts)[0].square().sum().backward()
    for slope, x in zip(got, parts):
        torch.testing.assert_close(slope, x.grad, atol=1e-9, rtol=1e-7)


def test_memory_holds_the_chosen_maps_only():
    """Nothing of heads x queries x keys is kept: the operator's own results are all that is larger
    than a block.
    """

    class Largest(TorchDispatchMode):
        most = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, torch.Tensor):
                    self.most = max(self.most, tensor.numel())
            return out

    parts = random_inputs(batch=1, heads=8, queries=448, keys=1500, width=64, value=64)
    with Largest() as sizes:
        cpu.attend(*parts, torch.arange(8), True, None, 0.125)
    assert sizes.most <= 448 * 1500


def test_it_compiles_and_passes_the_checks_of_operators():
    parts = random_inputs()
    torch.library.opcheck(
        torch.ops.headwise.attention_maps.default,
        (*parts, torch.tensor([0, 2]), True, None, 0.3),
        test_utils=("test_schema", "test_faketensor"),
    )

    def both(query, key, value):
        result = attention_maps(query, key, value, torch.tensor([0, 2]), mean=True)
        return result.output.sum() + result.maps.square().sum()

    torch.testing.assert_close(torch.compile(both, backend="aot_eager")(*parts), both(*parts))


@pytest.mark.parametrize(
    ("heads", "message"), [([3], "some of 3"), ([1, 1], "none twice"), ([], "at least one")]
)
def test_mistakes_are_named(heads, message):
    with pytest.raises(ValueError, match=message):
        attention_maps(*random_inputs(), torch.tensor(heads, dtype=torch.int64))
