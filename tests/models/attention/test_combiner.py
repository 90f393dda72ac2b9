"""Combiner against its definition written as sets, and what its paper promises about the
factorisation.
"""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from headwise.models.attention import combiner
from headwise.models.attention.combiner import Combiner
from headwise.models.attention.softmax import SoftmaxAttention

FORMS = ("fixed", "axial", "logsparse")


def sets(form: str, i: int, tokens: int, causal: bool, g: int) -> tuple[list[int], list[list[int]]]:
    """Tokens that token i sees directly, and its groups."""
    visible = range(i + 1) if causal else range(tokens)
    if form == "logsparse":
        groups = []
        for level in range(tokens.bit_length()):
            block = (i >> level) ^ 1
            groups.append([j for j in visible if j >> level == block])
        return [i], groups
    near = [j for j in visible if j // g == i // g]
    far = [j for j in visible if j // g != i // g]
    if form == "fixed":
        return near, [[j for j in far if j // g == r] for r in range(tokens // g + 1)]
    return near, [[j for j in far if j % g == c] for c in range(g)]


def formula(form: str, q: Tensor, k: Tensor, present: list[bool], causal: bool, g: int) -> Tensor:
    """Weights (N, N) of one head by loops; q is scaled."""
    tokens = len(q)
    out = torch.zeros(tokens, tokens, dtype=q.dtype)
    for i in range(tokens):
        near, groups = sets(form, i, tokens, causal, g)
        near = [j for j in near if present[j]]
        groups = [[j for j in group if present[j]] for group in groups]
        groups = [group for group in groups if group]
        scores = [q[i] @ k[j] for j in near] + [q[i] @ k[group].amax(0) for group in groups]
        if not scores:
            continue
        share = torch.softmax(torch.stack(scores), 0)
        for j, weight in zip(near, share):
            out[i, j] += weight
        for group, weight in zip(groups, share[len(near) :]):
            out[i, group] += weight * torch.softmax(k[group] @ q[group].amax(0), 0)
    return out


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("tokens", "g"), [(1, 3), (4, 2), (11, 3), (13, 20), (16, 4)])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_it_equals_the_sets(form, causal: bool, tokens: int, g: int, masked: bool) -> None:
    torch.manual_seed(tokens)
    model = Combiner(6, heads=2, factorisation=form, causal=causal, segment=g).double()
    x = torch.randn(2, tokens, 6, dtype=torch.float64)
    mask = torch.rand(2, tokens) < 0.6 if masked else None
    weights = model.weights(x, mask=mask)
    query, key, value = model._project(x)
    for b in range(2):
        present = [True] * tokens if mask is None else mask[b].tolist()
        for h in range(2):
            expected = formula(form, query[b, h], key[b, h], present, causal, g)
            torch.testing.assert_close(weights[b, h], expected, rtol=1e-10, atol=1e-12)
    mixed = (weights @ value).transpose(1, 2).flatten(2)
    out = mixed @ model.out.weight.t() + model.out.bias
    torch.testing.assert_close(model(x, mask=mask), out, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        model.float()(x.float(), mask=mask), out.float(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("span", [2, 4, 16])
@torch.no_grad()
def test_segments_of_the_logsparse_form_change_nothing(
    causal: bool, span: int, monkeypatch
) -> None:
    monkeypatch.setattr(combiner, "SPAN", span)
    torch.manual_seed(span)
    model = Combiner(4, heads=1, factorisation="logsparse", causal=causal).double()
    x, mask = torch.randn(1, 21, 4, dtype=torch.float64), torch.rand(1, 21) < 0.5
    query, key, _ = model._project(x)
    expected = formula("logsparse", query[0, 0], key[0, 0], mask[0].tolist(), causal, 1)
    torch.testing.assert_close(model.weights(x, mask=mask)[0, 0], expected, rtol=1e-10, atol=1e-12)


class Largest(TorchDispatchMode):
    """Size of the largest tensor that is made inside the block."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **kwargs or {})
        results = [
            part
            for part in (out if isinstance(out, tuple | list) else [out])
            if isinstance(part, Tensor)
        ]
        self.numbers = max([self.numbers, *(part.numel() for part in results)])
        return out


@pytest.mark.parametrize(("form", "growth"), [("fixed", 8.5), ("axial", 8.5), ("logsparse", 4.5)])
def test_no_tensor_is_quadratic(form, growth: float) -> None:
    """Forward and backward, with a mask, 576 and 2304 tokens: a matrix of weights would grow by
    16.
    """
    numbers = []
    for root in (24, 48):
        model = Combiner(4, heads=1, factorisation=form, segment=root)
        x, mask = torch.randn(1, root**2, 4, requires_grad=True), torch.rand(1, root**2) < 0.7
        with Largest() as largest:
            model(x, mask=mask).sum().backward()
        numbers.append(largest.numbers)
    assert numbers[0] < 576**2 / 4
    assert numbers[1] < growth * numbers[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("causal", [False, True])
def test_it_is_full_attention_in_reach(form, causal: bool) -> None:
    """Rows sum to 1, every allowed token has a positive weight, the others have 0."""
    torch.manual_seed(0)
    weights = (
        Combiner(8, heads=2, factorisation=form, causal=causal, segment=5)
        .double()
        .weights(torch.randn(1, 37, 8, dtype=torch.float64))
    )
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 37, dtype=torch.float64))
    allowed = torch.ones(37, 37, dtype=torch.bool)
    allowed = allowed.tril() if causal else allowed
    assert (weights[..., allowed] > 0).all()
    assert (weights[..., ~allowed] == 0).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("form", "segment"), [("fixed", 1), ("fixed", 12), ("fixed", 40), ("axial", 12), ("axial", 40)]
)
def test_trivial_partitions_are_exact_attention(causal: bool, form, segment: int) -> None:
    torch.manual_seed(1)
    model = Combiner(8, heads=2, factorisation=form, causal=causal, segment=segment).double()
    plain = SoftmaxAttention(8, heads=2, causal=causal).double()
    for mine, theirs in ((plain.query, slice(0, 8)), (plain.key_value, slice(8, 24))):
        mine.weight.data = model.query_key_value.weight.data[theirs]
        mine.bias.data = model.query_key_value.bias.data[theirs]
    plain.out = model.out
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    torch.testing.assert_close(model(x), plain(x), rtol=1e-10, atol=1e-10)


def test_gradients_and_mistakes() -> None:
    torch.manual_seed(2)
    for form in FORMS:
        model = Combiner(4, heads=2, factorisation=form, segment=3).double()
        x = torch.randn(1, 7, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(model, (x,))
    with pytest.raises(ValueError, match="'fixed', 'axial' or 'logsparse'"):
        Combiner(4, heads=2, factorisation="sqrt")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="segment must be positive"):
        Combiner(4, heads=2, segment=0)
