"""Parts of language models as modules of the core."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from headwise.models.attention.base import auxiliary_loss
from headwise.models.language.tuning.convert import (
    Conversion,
    DifferentialOutput,
    ExpertOutput,
    ExpertQueries,
    HeadGates,
    UpcycledFeedForward,
    convert,
)
from headwise.models.language.tuning.present import PresentTokens
from headwise.tests.models.language.tiny_models import KINDS
from headwise.tests.models.language.tuning.tuned_models import texts, tiny

# Conversions that are the same function until they are trained.
SAME: list[tuple[Conversion, Mapping[str, int | float | str]]] = [
    ("moh", {"shared": 2, "active": 4, "router": "linear"}),  # all of the six heads on
    ("grouped-differential", {"factor": 1}),
    ("grouped-differential", {"factor": 2, "spread": 0.0}),
    ("bam", {"experts": 3}),
    ("upcycle", {"experts": 3}),
]
LAYERS = (0, 2)


def converted(
    conversion: Conversion, options: Mapping[str, int | float | str], kind: str = "llama"
) -> tuple[nn.Module, list[nn.Parameter]]:
    torch.manual_seed(0)
    model = tiny(kind)
    return model, convert(model, conversion, LAYERS, PresentTokens(), options)


@pytest.mark.parametrize(("conversion", "options"), SAME, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_function_at_the_start(kind, conversion, options):
    if conversion == "upcycle" and kind == "gemma3":
        with pytest.raises(ValueError, match="no activation"):
            converted(conversion, options, kind)
        return
    ids = texts()
    mask = torch.ones_like(ids)
    mask[0, :4] = 0  # padding on the left
    expected = tiny(kind)(input_ids=ids, attention_mask=mask).logits
    model, fresh = converted(conversion, options, kind)
    given = model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(given[mask > 0], expected[mask > 0], atol=2e-5, rtol=1e-4)
    assert fresh
    assert all(weight.requires_grad for weight in fresh)


@pytest.mark.parametrize(("conversion", "options"), SAME, ids=str)
def test_it_writes_on_with_a_cache_as_without(conversion, options):
    model, _ = converted(conversion, options)
    trained_a_little(model)
    ids = texts(2, 6)
    settings = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 5, "do_sample": False}
    with_cache = model.generate(ids, use_cache=True, pad_token_id=0, **settings)
    without = model.generate(ids, use_cache=False, pad_token_id=0, **settings)
    assert torch.equal(with_cache, without)


def trained_a_little(model: nn.Module) -> None:
    """One step, so that it is no more the model that it was made of."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=0.5)
    model.train()
    ids = texts(4, 10, seed=9)
    loss = model(input_ids=ids, labels=ids).loss
    auxiliary = auxiliary_loss(model)
    (loss if auxiliary is None else loss + auxiliary).backward()
    optimizer.step()
    model.eval()


@pytest.mark.parametrize(("conversion", "options"), [*SAME, ("moh", {})], ids=str)
def test_all_that_is_new_learns(conversion, options):
    model, fresh = converted(conversion, options)
    if conversion == "moh":
        # Nothing is learned of heads that are all on, and the router of queries has no weights.
        options = {"shared": 2, "active": 2, "router": options.get("router", "query-norm")}
        model, fresh = converted(conversion, options)
    before = [weight.detach().clone() for weight in fresh]
    for _ in range(2):  # k1 and k2 of lambda wait for q1 and q2
        trained_a_little(model)
    moved = [not torch.equal(old, new) for old, new in zip(before, fresh, strict=True)]
    assert all(moved)


def test_a_mixture_of_heads_is_the_plain_formula():
    """Softmax attention by hand, times gates that are looked up by hand."""
    model, _ = converted("moh", {"shared": 2, "active": 2, "router": "linear"})
    attention = model.model.layers[0].self_attn
    torch.manual_seed(3)
    gates = attention.q_proj.routing
    for layer in (gates.route, gates.share, gates.between):
        nn.init.normal_(layer.weight, std=0.3)
    x = torch.randn(2, 5, 48)
    cos, sin = torch.ones(1, 5, 8), torch.zeros(1, 5, 8)  # no rotation
    given = attention(x, position_embeddings=(cos, sin), attention_mask=None)[0]
    heads = (
        by_head(attention.q_proj.linear(x), 6),
        *(
            by_head(part(x), 3).repeat_interleave(2, 1)
            for part in (attention.k_proj, attention.v_proj)
        ),
    )
    scores = heads[0] @ heads[1].transpose(2, 3) * 8**-0.5
    blind = torch.ones(5, 5).triu(1).bool()
    mixed = scores.masked_fill(blind, float("-inf")).softmax(-1) @ heads[2]
    p, first = gates.route(x).softmax(-1), 2 * gates.share(x).softmax(-1)
    between = 2 * gates.between(x).softmax(-1)
    weight = torch.zeros(2, 5, 6)
    weight[..., :2] = between[..., :1] * first
    for row in range(2):
        for token in range(5):
            best = p[row, token].topk(2)
            weight[row, token, 2 + best.indices] = (
                between[row, token, 1] * 2 * best.values / best.values.sum()
            )
    out = (mixed.transpose(1, 2) * weight[..., None]).flatten(2)
    expected = attention.o_proj.linear(out)
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-4)
    assert ((weight > 0).sum(-1) == 4).all()


def by_head(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def test_grouped_differential_attention_subtracts_the_noise_head_of_its_group():
    torch.manual_seed(0)
    layer = DifferentialOutput(nn.Linear(3 * 2 * 4, 5), groups=3, head_width=4)
    nn.init.normal_(layer.vectors)
    mixed = torch.randn(2, 6, 3 * 3 * 4)  # three groups of two signal heads and a noise head
    q1, k1, q2, k2 = layer.vectors
    weight = (q1 @ k1).exp() - (q2 @ k2).exp()
    heads = mixed.view(2, 6, 3, 3, 4)
    parts = [heads[:, :, g, s] - weight * heads[:, :, g, 2] for g in range(3) for s in range(2)]
    torch.testing.assert_close(layer(mixed), layer.linear(torch.cat(parts, -1)))


def test_attention_experts_are_weighed_by_each_token():
    torch.manual_seed(0)
    queries = ExpertQueries(nn.Linear(7, 2 * 2 * 3 * 4), 7, 2)
    output = ExpertOutput(nn.Linear(2 * 2 * 3 * 4, 5), queries, groups=2, width=4)
    x, mixed = torch.randn(2, 6, 7), torch.randn(2, 6, 2 * 2 * 3 * 4)
    queries(x)
    gate = queries.gate(x).softmax(-1)
    heads = mixed.view(2, 6, 2, 2, 3, 4)  # group, expert, head of the group
    expected = output.linear.bias.expand(2, 6, 5)
    for e, columns in enumerate(output.linear.weight.chunk(2, 1)):
        expected = expected + gate[..., e : e + 1] * (heads[:, :, :, e].flatten(2) @ columns.T)
    torch.testing.assert_close(output(mixed), expected)


def test_the_balance_of_heads_and_experts_leaves_padding_out():
    ids = texts()
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 5:] = False
    for conversion, options in (("moh", {"shared": 1, "active": 2}), ("upcycle", {})):
        present = PresentTokens()
        model = tiny()
        convert(model, conversion, LAYERS, present, options)  # type: ignore[arg-type]
        model.train()
        losses = []
        for changed in (ids, ids.masked_fill(~mask, 7)):
            with present.told(mask):
                model(input_ids=changed)
            losses.append(float(auxiliary_loss(model).detach()))
        assert losses[0] == pytest.approx(losses[1], abs=1e-7)


def test_how_many_heads_are_on_is_counted_where_it_is_asked_for():
    model, _ = converted("moh", {"shared": 1, "active": 2})
    gates = [part for part in model.modules() if isinstance(part, HeadGates)]
    model(input_ids=texts(2, 12))
    assert gates[0].used is None
    for part in gates:
        part.used = torch.zeros(6, dtype=torch.float64)
    model(input_ids=texts(2, 12))
    for part in gates:
        assert float(part.used[0]) == 24
        assert float(part.used.sum()) == 3 * 24


def test_what_does_not_fit_is_refused():
    for conversion, options, message in (
        ("moh", {"shared": 7}, "do not fit 6 heads"),
        ("grouped-differential", {"factor": 0}, "factor must be at least 1"),
        ("bam", {"experts": 1}, "2 experts or more"),
        ("upcycle", {"active": 1}, "2 active experts"),
    ):
        with pytest.raises(ValueError, match=message):
            converted(conversion, options)  # type: ignore[arg-type]
    model, _ = converted("upcycle", {})
    with pytest.raises(ValueError, match="is no network of gate, up and down"):
        convert(model, "upcycle", LAYERS, PresentTokens(), {})
    assert isinstance(model.model.layers[0].mlp, UpcycledFeedForward)
