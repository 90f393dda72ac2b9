"""Every operator with tensors that lie in memory in other ways, without samples, and of one token:
what it returns is what its fake form promises, in shape, type and strides, and does not change.

The fake forms decide what `torch.compile` builds: strides that differ end in an error there."""

from collections.abc import Callable, Iterator
from importlib import import_module

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from headwise.kernels.attention_maps import attention_maps
from headwise.kernels.attention_moments import cosine_moments
from headwise.kernels.attention_stats import attention_stats
from headwise.kernels.differential_combine import differential_combine
from headwise.kernels.dispatch import dispatch
from headwise.kernels.expert_combine import expert_combine
from headwise.kernels.expert_gate import expert_gate
from headwise.kernels.gated_scores import gated_scores
from headwise.kernels.gathered_heads import gathered_heads
from headwise.kernels.grouped_linear import grouped_linear
from headwise.kernels.neighbourhood import (
    neighbourhood_attention,
    neighbourhood_scores,
    neighbourhood_sum,
)
from headwise.kernels.pair_attention import pair_attention
from headwise.kernels.partial_softmax import attend_with_lse
from headwise.kernels.ragged_attention import ragged_attention
from headwise.kernels.signed_root_attention import signed_root_attention
from headwise.kernels.softmax_pool import softmax_draw, softmax_pool
from headwise.kernels.star_core import star_core
from headwise.kernels.tensor_attention import tensor_attention
from headwise.kernels.time_warping import median_filter, time_warp
from headwise.tests.kernels.layouts import LAYOUTS, Recorded

Make = Callable[..., Tensor]  # numbers of a shape


def straight(x: Tensor) -> Tensor:
    return x


def stats(x: Make, batch: int, tokens: int) -> object:
    lead = (batch, 4, tokens, 8)
    query, key, value = x(*lead), x(batch, 2, tokens, 8), x(batch, 2, tokens, 6)
    want = ("lse", "entropy", "column_mass", "key_mass", "top")
    keys, weights = x(batch, tokens) > 0, x(batch, tokens)
    mask = x(batch, 1, tokens, tokens) > -1
    return attention_stats(
        query, key, value, mask=mask, want=want, keys=keys, weights=weights, k=2
    ).__dict__


def maps(x: Make, batch: int, tokens: int) -> object:
    query, key, value = (x(batch, 3, tokens, width) for width in (8, 8, 6))
    with torch.no_grad():
        return tuple(attention_maps(query, key, value, torch.tensor([2, 0])))


def gathered(x: Make, batch: int, tokens: int) -> object:
    key, value = x(batch, 2, tokens, 8), x(batch, 2, tokens, 8)
    return gathered_heads(x(batch, 4, tokens, 8), key, value, x(batch, 4, tokens).relu())


def pairs(x: Make, batch: int, tokens: int) -> object:
    partner = torch.arange(batch).flip(0)
    key, value = x(batch, 2, tokens + 1, 8), x(batch, 2, tokens + 1, 6)
    return pair_attention(x(batch, 2, tokens, 8), key, value, partner)


def third_order(x: Make, batch: int, tokens: int) -> object:
    parts = [x(batch, 2, tokens, width) for width in (8, 8, 6, 8, 6)]
    return tensor_attention(*parts, mask1=x(batch, tokens) > -1)


def windows(x: Make, batch: int, tokens: int) -> object:
    logits, value = x(batch, 2, tokens, 9), x(batch, 2, tokens, 6)
    mask = x(batch, tokens) > -1
    return (
        neighbourhood_attention(logits, value, (1, tokens), 3, mask=mask),
        neighbourhood_scores(x(batch, 2, tokens, 6), value, (1, tokens), 3),
        neighbourhood_sum(logits, value, (1, tokens), 3),
    )


def signed_root(x: Make, batch: int, tokens: int) -> object:
    return signed_root_attention(x(batch, tokens, 8), x(batch, 5, 8), x(batch, 5, 6))


def ragged(x: Make, batch: int, tokens: int) -> object:
    offsets = torch.arange(batch + 1) * tokens
    key, value = x(batch * tokens, 2, 8), x(batch * tokens, 2, 6)
    return ragged_attention(x(batch, 3, 2, 8), key, value, offsets)


def partial(x: Make, batch: int, tokens: int) -> object:
    parts = [x(batch, 2, tokens, width) for width in (8, 8, 6)]
    return attend_with_lse(*parts, mask=x(batch, 1, tokens, tokens) > -1)


def moments(x: Make, batch: int, tokens: int) -> object:
    return cosine_moments(x(batch, 2, tokens, 8), x(batch, 2, tokens, 8)).__dict__


def differential(x: Make, batch: int, tokens: int) -> object:
    mixed, lam = x(batch, 6, tokens, 8), x(1)[0]
    with_norm = differential_combine(mixed, lam, x(8), signal=4)
    return with_norm, differential_combine(mixed, lam, signal=4)


def pooled(x: Make, batch: int, tokens: int) -> object:
    mask = x(batch, tokens) > -1
    return (
        softmax_pool(x(batch, tokens, 8), mask=mask),
        softmax_pool(x(batch, tokens, 2), x(batch, tokens, 8), per="head"),
        softmax_pool(x(batch * tokens, 8), offsets=torch.arange(batch + 1) * tokens),
        softmax_draw(x(batch, tokens, 8), seed=3),
    )


def gelu(x: Make, batch: int, tokens: int) -> object:
    # The public function takes PyTorch's operators for so few numbers.
    import_module("headwise.kernels.gelu_linear")
    return torch.ops.headwise.gelu_linear(x(batch, tokens, 8), x(6, 8), x(6))


def gates(x: Make, batch: int, tokens: int) -> object:
    return gated_scores(x(batch * tokens, 8), x(12, 8), x(12), x(3, 6), x(3))


def star(x: Make, batch: int, tokens: int) -> object:
    return star_core(x(batch, tokens, 8), x(8, 8), x(8), x(6, 8), x(6), seed=3)


def experts(x: Make, batch: int, tokens: int) -> object:
    gate = expert_gate(x(batch * tokens, 4), 2, bias=x(4), present_mask=x(batch * tokens) > -1)
    where = dispatch(gate.chosen, 4)
    hidden = grouped_linear(x(batch * tokens, 8), x(4, 6, 8), x(4, 6), where, gather=True)
    return expert_combine(hidden, gate.weights, where), gate.probability


def warping(x: Make, batch: int, tokens: int) -> object:
    sizes = torch.full((batch,), tokens)
    with torch.no_grad():
        warped = time_warp(x(batch, tokens, tokens), sizes, sizes)
        return tuple(warped), median_filter(x(batch, 2, tokens), 3, sizes)


CASES = (
    *(stats, maps, gathered, pairs, third_order, windows, signed_root, ragged, partial, moments),
    *(differential, pooled, gelu, gates, star, experts, warping),
)


def numbers(lay: Callable[[Tensor], Tensor]) -> tuple[Make, list[Tensor]]:
    """What gives tensors that lie in this way, the same numbers each time, and what it gave."""
    generator, leaves = torch.Generator().manual_seed(0), []

    def make(*shape: int) -> Tensor:
        leaves.append(lay(torch.randn(shape, generator=generator)).requires_grad_())
        return leaves[-1]

    return make, leaves


def differentiated(
    case: Callable, lay: Callable, batch: int, tokens: int
) -> tuple[list[Tensor], list]:
    """Results and gradients of a case, and the calls of operators that it makes."""
    make, leaves = numbers(lay)
    with Recorded() as recorded:
        results = [x for x in tree_flatten(case(make, batch, tokens))[0] if isinstance(x, Tensor)]
        smooth = [x for x in results if x.requires_grad]
        slopes = []
        if smooth:
            # Each number weighs something else, in the memory order of the inputs.
            total = sum(
                (x * lay(torch.arange(x.numel()).view(x.shape).cos())).sum() for x in smooth
            )
            slopes = torch.autograd.grad(total, leaves, allow_unused=True)
    return [*results, *(x for x in slopes if x is not None)], recorded.calls


def variants() -> Iterator[tuple[Callable, Callable, int, int]]:
    for case in CASES:
        yield from ((case, lay, batch, 5) for lay in LAYOUTS for batch in (1, 3))
        yield from ((case, straight, batch, tokens) for batch, tokens in ((0, 5), (1, 1)))


@pytest.mark.parametrize(("case", "lay", "batch", "tokens"), list(variants()))
def test_fake_forms_promise_what_operators_return(
    case: Callable, lay: Callable, batch: int, tokens: int
) -> None:
    _, calls = differentiated(case, lay, batch, tokens)
    assert calls
    for call, arguments in calls:
        laid = [lay(x.detach()) if isinstance(x, Tensor) else x for x in arguments]
        torch.library.opcheck(call, tuple(laid), test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("lay", LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_results_and_gradients_do_not_depend_on_strides(case: Callable, lay: Callable) -> None:
    expected, _ = differentiated(case, straight, 3, 5)
    for got, other in zip(differentiated(case, lay, 3, 5)[0], expected, strict=True):
        torch.testing.assert_close(got, other)


def test_every_operator_is_among_them() -> None:
    names = {call.name() for case in CASES for call, _ in differentiated(case, straight, 2, 3)[1]}
    registered = {name for name in torch._C._dispatch_get_all_op_names() if "headwise::" in name}
    assert {name for name in registered if "::test_" not in name} == names
