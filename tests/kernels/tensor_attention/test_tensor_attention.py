"""Third-order attention against its formula, its paper's identities, and its approximation."""

import itertools

import pytest
import torch
from torch import Tensor

from headwise.kernels.forms import explain
from headwise.kernels.partial_softmax import attend_with_lse, merge_partials
from headwise.kernels.tensor_attention import (
    approximation_error,
    cpu,
    forms,
    naive,
    tensor_attention,
    tensor_attention_approximate,
)
from headwise.models.attention.tensor import TensorAttention
from headwise.tests.kernels.agreement import assert_agree


def inputs(n: int, m1: int, m2: int, d: int = 3, e: int = 4, scale: float = 1.0) -> list[Tensor]:
    torch.manual_seed(n + m1 + m2)
    shapes = ((n, d), (m1, d), (m1, e), (m2, d), (m2, e))
    return [
        (scale * torch.randn(2, 2, *shape, dtype=torch.float64)).requires_grad_()
        for shape in shapes
    ]


def formula(q, k1, v1, k2, v2, mask1=None, mask2=None) -> Tensor:
    return naive.tensor_attention(q, k1, v1, k2, v2, mask1, mask2, 1 / q.shape[3])[0]


@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 4, 3), (7, 9, 2), (3, 17, 33)])
@pytest.mark.parametrize("numbers", [1, 300])
@pytest.mark.parametrize("masked", [False, True])
def test_it_equals_the_tensor(
    sizes, numbers: int, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "NUMBERS", numbers)
    parts = inputs(*sizes)
    masks = {}
    if masked:
        masks = {"mask1": torch.rand(2, sizes[1]) < 0.7, "mask2": torch.rand(2, sizes[2]) < 0.7}
        masks["mask1"][:, 0] = masks["mask2"][:, 0] = True
    out, expected = tensor_attention(*parts, **masks), formula(*parts, **masks)
    assert_agree(out, expected, parts, rtol=1e-9, atol=1e-10)
    single = tensor_attention(*(part.float() for part in parts), **masks)
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=1e-5)


def test_without_pairs_it_is_zero() -> None:
    parts = inputs(4, 5, 3)
    for masks in (
        {"mask1": torch.zeros(2, 5, dtype=torch.bool)},
        {"mask2": torch.zeros(2, 3, dtype=torch.bool)},
    ):
        out = tensor_attention(*parts, **masks)
        assert (out == 0).all()
        assert all((g == 0).all() for g in torch.autograd.grad(out.sum(), parts))
    empty = inputs(4, 0, 3)
    assert (tensor_attention(*empty) == 0).all()


def test_the_identities() -> None:
    q, k1, v1, k2, v2 = inputs(6, 5, 7)
    out = tensor_attention(q, k1, v1, k2, v2)
    torch.testing.assert_close(tensor_attention(q, k2, v2, k1, v1), out)
    first, second = torch.randperm(5), torch.randperm(7)
    moved = tensor_attention(
        q, k1[:, :, first], v1[:, :, first], k2[:, :, second], v2[:, :, second]
    )
    torch.testing.assert_close(moved, out)
    pairs_key = (k1[:, :, :, None] * k2[:, :, None]).flatten(2, 3)
    pairs_value = (v1[:, :, :, None] * v2[:, :, None]).flatten(2, 3)
    reference = torch.nn.functional.scaled_dot_product_attention(
        q, pairs_key, pairs_value, scale=1 / 3
    )
    torch.testing.assert_close(out, reference)
    ones = torch.ones_like(k2), torch.ones_like(v2)
    standard = torch.nn.functional.scaled_dot_product_attention(q, k1, v1, scale=1 / 3)
    torch.testing.assert_close(tensor_attention(q, k1, v1, *ones), standard)


def test_streaming_over_the_second_side_is_exact() -> None:
    """For each second key an ordinary attention with queries q * k2, its output times v2, merged by
    log-sum-exp.
    """
    q, k1, v1, k2, v2 = inputs(6, 5, 7)
    parts = []
    for second in range(7):
        out, lse = attend_with_lse(q * k2[:, :, second, None], k1, v1, scale=1 / 3)
        parts.append((out * v2[:, :, second, None], lse))
    torch.testing.assert_close(
        tensor_attention(q, k1, v1, k2, v2), merge_partials(parts)[0], rtol=1e-11, atol=1e-11
    )


@torch.no_grad()
def test_a_pair_can_be_what_no_single_token_is() -> None:
    """The query is the product of two tokens: only their pair matches it, though both are at right
    angles to it.
    """
    bits = torch.tensor([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], dtype=torch.float64)[
        None, None
    ]
    query = 40 * bits[:, :, 2:]
    assert (query @ bits[:, :, :2].transpose(2, 3) == 0).all()
    marks = torch.tensor([[2.0], [3.0], [7.0]], dtype=torch.float64)[None, None]
    out = tensor_attention(query, bits, marks, bits, marks)
    torch.testing.assert_close(out, torch.full_like(out, 6.0))


def test_gradients_and_operator() -> None:
    parts = inputs(3, 4, 2)
    assert torch.autograd.gradcheck(lambda *tensors: tensor_attention(*tensors), parts)
    torch.library.opcheck(torch.ops.headwise.tensor_attention, (*parts, None, None, 0.5))


def test_the_approximation_equals_its_polynomial() -> None:
    parts = inputs(5, 6, 4)
    q, k1, v1, k2, v2 = parts
    mask = torch.rand(2, 6) < 0.6
    mask[:, 0] = True
    scores = torch.einsum("bhid,bhjd,bhld->bhijl", q, k1, k2) / 3
    for degree in range(4):
        weights = (
            sum(scores**t / torch.arange(1, t + 1).prod() for t in range(degree + 1))
            * mask[:, None, None, :, None]
        )
        expected = (
            torch.einsum("bhijl,bhje,bhle->bhie", weights, v1, v2) / weights.sum((3, 4))[..., None]
        )
        out = tensor_attention_approximate(*parts, degree, mask1=mask)
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-10)
        hidden = [
            k1.masked_fill(~mask[:, None, :, None], torch.nan),
            v1.masked_fill(~mask[:, None, :, None], torch.nan),
        ]
        unseen = tensor_attention_approximate(q, *hidden, k2, v2, degree, mask1=mask)
        torch.testing.assert_close(unseen, expected, rtol=1e-9, atol=1e-10)
    with pytest.raises(ValueError, match="degree is 0 to 3"):
        tensor_attention_approximate(*parts, 4)


def test_its_error_falls_with_the_degree_and_grows_with_the_entries() -> None:
    torch.manual_seed(0)
    base = [2 * torch.rand(1, 1, 32, 8, dtype=torch.float64) - 1 for _ in range(5)]
    small = [approximation_error(*(0.5 * part for part in base), degree) for degree in range(4)]
    large = [approximation_error(*(1.5 * part for part in base), degree) for degree in range(4)]
    assert all(a.relative < b.relative for a, b in zip(small, large))
    for errors in (small, large):
        assert all(b.relative < 0.5 * a.relative for a, b in itertools.pairwise(errors))
    assert small[3].relative < 1e-5
    assert 0.4 < small[0].bound <= 0.5
    assert "relative error" in str(small[0])


def test_mistakes_are_named_and_forms_agree() -> None:
    q, k1, v1, k2, v2 = inputs(3, 4, 2)
    with pytest.raises(ValueError, match="do not fit queries"):
        tensor_attention(q, k1[..., :2], v1, k2, v2)
    with pytest.raises(ValueError, match="one floating type"):
        tensor_attention(q, k1, v1, k2.to(torch.float16), v2)
    with pytest.raises(ValueError, match="do not fit keys"):
        tensor_attention(q, k1, v1[:, :, :3], k2, v2)
    with pytest.raises(ValueError, match="mask must be bool"):
        tensor_attention(q, k1, v1, k2, v2, mask1=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="degree is 1 to 3"):
        TensorAttention(8, degree=5)
    assert "not Triton kernel" in explain("tensor_attention", forms(q))


@torch.no_grad()
def test_the_mechanism_equals_the_formula() -> None:
    torch.manual_seed(1)
    model = TensorAttention(8, heads=2).double()
    x, context = (
        torch.randn(2, 4, 8, dtype=torch.float64),
        torch.randn(2, 6, 8, dtype=torch.float64),
    )
    mask = torch.rand(2, 6) < 0.6
    mask[0] = False
    q = model.query(x).unflatten(-1, (2, 4)).transpose(1, 2)
    sides = [
        part.unflatten(-1, (2, 4)).transpose(1, 2)
        for part in model.keys_values(context).chunk(4, -1)
    ]
    expected = model.out(formula(q, *sides, mask1=mask, mask2=mask).transpose(1, 2).flatten(2))
    torch.testing.assert_close(model(x, context, mask=mask), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model(x, context, mask=mask)[0], model.out.bias.expand(4, -1))
    assert model.weights(x, context).sum(-1).sub(1).abs().max() < 1e-12
