"""Attention that gives out maps of heads, against the formula written out."""

import pytest
import torch

from headwise.kernels.attention_maps import attention_maps


def formula(query, key, value, mask=None, scale=None):
    """(output, weights (B, H, N, M)), every head kept."""
    scores = (
        query.double()
        @ key.double().transpose(2, 3)
        * (query.shape[-1] ** -0.5 if scale is None else scale)
    )
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1).nan_to_num(0.0)
    return weights @ value.double(), weights


def given(batch=2, heads=3, queries=37, keys=51, width=8, value=5, dtype=torch.float32):
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
def test_output_and_maps(chosen, mean, kind):
    parts = given()
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
    found = attention_maps(
        *parts, None if chosen is None else torch.tensor(chosen), mean=mean, mask=mask
    )
    torch.testing.assert_close(found.output.double(), output, atol=2e-6, rtol=1e-5)
    weights = weights[:, chosen or [0, 1, 2]]
    expected = weights.mean(1, keepdim=True) if mean else weights
    torch.testing.assert_close(found.maps.double(), expected, atol=2e-6, rtol=1e-5)


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
def test_odd_sizes(size):
    parts = given(**size)
    output, weights = formula(*parts)
    found = attention_maps(*parts, torch.tensor([2, 1]))
    torch.testing.assert_close(found.output.double(), output, atol=5e-6, rtol=1e-5)
    torch.testing.assert_close(found.maps.double(), weights[:, [2, 1]], atol=5e-6, rtol=1e-5)


def test_half_precision_keeps_maps_in_single():
    parts = given(dtype=torch.bfloat16)
    found = attention_maps(*parts)
    assert found.maps.dtype == torch.float32
    assert found.output.dtype == torch.bfloat16
    torch.testing.assert_close(found.maps.double(), formula(*parts)[1], atol=1e-5, rtol=1e-3)


def test_gradients_are_those_of_attention():
    parts = [x.double().requires_grad_() for x in given()]
    found = attention_maps(*parts, torch.tensor([1]))
    assert not found.maps.requires_grad
    found.output.square().sum().backward()
    got = [x.grad.clone() for x in parts]
    for x in parts:
        x.grad = None
    formula(*parts)[0].square().sum().backward()
    for one, x in zip(got, parts):
        torch.testing.assert_close(one, x.grad, atol=1e-9, rtol=1e-7)


def test_memory_holds_the_chosen_maps_only():
    """Nothing of heads x queries x keys is kept: the operator's own results are all that is larger
    than a block.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        most = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for one in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(one, torch.Tensor):
                    self.most = max(self.most, one.numel())
            return out

    from headwise.kernels.attention_maps import cpu as plain

    parts = given(batch=1, heads=8, queries=448, keys=1500, width=64, value=64)
    with Largest() as seen:
        plain.attend(*parts, list(range(8)), True, None, 0.125)
    assert seen.most <= 448 * 1500


def test_compiled_and_checked():
    parts = given()
    torch.library.opcheck(
        torch.ops.headwise.attention_maps.default,
        (*parts, [0, 2], True, None, 0.3),
        test_utils=("test_schema", "test_faketensor"),
    )

    def both(query, key, value):
        found = attention_maps(query, key, value, torch.tensor([0, 2]), mean=True)
        return found.output.sum() + found.maps.square().sum()

    torch.testing.assert_close(torch.compile(both, backend="aot_eager")(*parts), both(*parts))


@pytest.mark.parametrize(
    ("heads", "said"), [([3], "some of 3"), ([1, 1], "none twice"), ([], "some of 3")]
)
def test_mistakes(heads, said):
    with pytest.raises(ValueError, match=said):
        attention_maps(*given(), torch.tensor(heads, dtype=torch.int64))
