"""A sequence read in pieces through a cache is the whole sequence in one call, for every causal
mechanism of the table.
"""

import copy

import pytest
import torch
from torch import Tensor, nn

from headwise.models.attention import ATTENTION, accepts_option, attention_class, build_attention
from headwise.models.attention.base import Attention
from headwise.models.attention.cache import Cache
from headwise.models.layers.blocks import EncoderLayer, FeedForward
from headwise.models.moe.attention import AttentionExperts

WIDTH, HEADS, TOKENS = 16, 4, 45
PIECES = {
    "prompt and tokens": [38, *[1] * 7],
    "token by token": [1] * TOKENS,
    "chunks": [7, 16, 0, 2, 20],
}


def causal_cases() -> list:
    cases = []
    for name in ATTENTION:
        cls = attention_class(name)
        always = build_attention(name, WIDTH, HEADS).causal
        if not (accepts_option(name, "causal") or always):
            continue
        options = [variant | ({} if always else {"causal": True}) for variant in cls.variants]
        options += [] if always else [{"causal": True}]
        if accepts_option(name, "positions"):
            options.append({"causal": True, "positions": "rotary"})
        if accepts_option(name, "kv_heads"):
            options.append({"causal": True, "positions": "rotary", "kv_heads": 1})
        unique = {str(sorted(option.items())): option for option in options}
        cases += [pytest.param(name, option, id=f"{name}-{key}") for key, option in unique.items()]
    return cases


every_causal_mechanism = pytest.mark.parametrize(("name", "options"), causal_cases())


def make(name: str, options: dict, dtype: torch.dtype = torch.float64) -> Attention:
    torch.manual_seed(0)
    options = dict(options)
    mechanism = build_attention(name, WIDTH, options.pop("heads", HEADS), **options)
    return mechanism.to(dtype).eval()


def tokens(batch: int = 2, count: int = TOKENS, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, count, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype)


def in_pieces(mechanism: Attention, x: Tensor, pieces: list[int], masks: Tensor | None) -> Tensor:
    """The outputs of all pieces; masks: of keys (B, N), or of pairs or heads (..., N, N)."""
    cache, parts, first = mechanism.new_cache(len(x)), [], 0
    for piece in pieces:
        last = first + piece
        part_mask = masks
        if masks is not None:
            part_mask = masks[:, first:last] if masks.ndim == 2 else masks[..., first:last, :last]
        parts.append(mechanism(x[:, first:last], mask=part_mask, cache=cache))
        first = last
    assert cache.tokens == x.shape[1]
    return torch.cat(parts, 1)


def masks_of(mechanism: Attention, batch: int, count: int) -> dict[str, Tensor | None]:
    left = torch.arange(count) >= torch.tensor([[9], [0]])
    torch.manual_seed(2)
    known = {
        "left padding": left[:batch],
        "keys": torch.rand(batch, count) < 0.7,
        "pairs": torch.rand(batch, count, count) < 0.7,
        "heads": torch.rand(batch, mechanism.heads, count, count) < 0.7,
    }
    kinds = (*mechanism.masks, "left padding")
    return {"none": None} | {kind: mask for kind, mask in known.items() if kind in kinds}


def test_every_causal_mechanism_is_a_case() -> None:
    """An option that is renamed would leave the tests below without it."""
    assert {case.values[0] for case in causal_cases()} == {
        "combiner",
        "differential",
        "fixed-sequence",
        "moh",
        "no-mixing",
        "position-only",
        "query-free",
        "random",
        "softmax",
        "static",
        "taylor",
    }


@every_causal_mechanism
@torch.no_grad()
def test_pieces_are_the_whole(name: str, options: dict) -> None:
    mechanism, x = make(name, options), tokens()
    for kind, mask in masks_of(mechanism, 2, TOKENS).items():
        expected = mechanism(x, mask=mask)
        for pieces in PIECES.values():
            parts = in_pieces(mechanism, x, pieces, mask)
            torch.testing.assert_close(parts, expected, rtol=1e-9, atol=1e-9, msg=kind)


@every_causal_mechanism
@torch.no_grad()
def test_pieces_in_half_precision_are_the_whole_in_float64(name: str, options: dict) -> None:
    mechanism = make(name, options)
    x = tokens(dtype=torch.bfloat16)
    mask = masks_of(mechanism, 2, TOKENS)["left padding"]
    half = copy.deepcopy(mechanism).bfloat16()
    expected = half.double()(x.double(), mask=mask)
    parts = in_pieces(half.bfloat16(), x, PIECES["prompt and tokens"], mask)
    assert parts.dtype == torch.bfloat16
    errors = (parts.double() - expected).norm(dim=2) / expected.norm(dim=2).mean()
    # A choice of heads that rounding flips changes its token completely, the others not at all.
    error = errors.quantile(0.7) if mechanism.discrete else errors.square().mean().sqrt()
    assert error < 0.06, error


@every_causal_mechanism
def test_gradients_flow_through_a_cache(name: str, options: dict) -> None:
    mechanism, x = make(name, options), tokens(count=20).requires_grad_()
    weight = torch.randn(2, 20, WIDTH, dtype=torch.float64)
    inputs = [x, *mechanism.parameters()]
    slopes = [
        torch.autograd.grad((out * weight).sum(), inputs, allow_unused=True)
        for out in (mechanism(x), in_pieces(mechanism, x, [8, 5, 7], None))
    ]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-8, atol=1e-9)


@every_causal_mechanism
@torch.no_grad()
def test_a_beam_goes_on_with_the_sequences_it_selects(name: str, options: dict) -> None:
    mechanism, x = make(name, options), tokens()
    mask = masks_of(mechanism, 2, TOKENS)["left padding"]
    assert mask is not None
    cache = mechanism.new_cache(2)
    mechanism(x[:, :30], mask=mask[:, :30], cache=cache)
    rows = torch.tensor([1, 0, 1])
    cache.select(rows)
    assert (cache.batch, cache.tokens) == (3, 30)
    out = mechanism(x[rows, 30:], cache=cache)
    torch.testing.assert_close(out, mechanism(x[rows], mask=mask[rows])[:, 30:])
    cache = mechanism.new_cache(1)
    mechanism(x[:1, :30], cache=cache)
    cache.select(torch.tensor([0, 0]))
    out = mechanism(x[:, 30:], cache=cache)
    torch.testing.assert_close(out[:1], mechanism(x[:1])[:, 30:])


@pytest.mark.parametrize("name", ["softmax", "moh", "differential", "taylor", "query-free"])
@torch.no_grad()
def test_left_padding_changes_nothing_where_only_distances_count(name: str) -> None:
    rotary = {"positions": "rotary"} if accepts_option(name, "positions") else {}
    mechanism, x = make(name, {"causal": True, **rotary}), tokens(count=14)
    padding = 9 * torch.randn(2, 6, WIDTH, dtype=torch.float64)
    padded = torch.cat([padding, x], 1)
    mask = torch.arange(20).expand(2, 20) >= 6
    out = in_pieces(mechanism, padded, [15, 1, 1, 1, 1, 1], mask)
    torch.testing.assert_close(out[:, 6:], mechanism(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "options", [{}, {"shared": True, "positions": "rotary"}, {"kv_heads": 2, "experts": 3}]
)
@torch.no_grad()
def test_attention_experts_take_a_cache(options: dict) -> None:
    torch.manual_seed(0)
    mechanism = AttentionExperts(WIDTH, heads=HEADS, causal=True, **options).double().eval()
    for kind, mask in masks_of(mechanism, 2, TOKENS).items():
        parts = in_pieces(mechanism, tokens(), PIECES["chunks"], mask)
        torch.testing.assert_close(parts, mechanism(tokens(), mask=mask), msg=kind)


@pytest.mark.parametrize("name", ["query-free", "taylor", "no-mixing"])
@torch.no_grad()
def test_a_state_does_not_grow(name: str) -> None:
    options = {} if name == "no-mixing" else {"causal": True}
    mechanism, sizes = make(name, options), []
    cache = mechanism.new_cache(2)
    for part in tokens().split(9, 1):
        mechanism(part, cache=cache)
        sizes.append(sum(state.numel() for state in cache.parts.values()))
    assert len(set(sizes)) == 1


@torch.no_grad()
def test_a_decoder_of_several_layers_reads_in_pieces() -> None:
    torch.manual_seed(3)
    layers = nn.ModuleList(
        EncoderLayer(WIDTH, make("softmax", {"causal": True, "positions": "rotary"}),
                     FeedForward(WIDTH, 32).double(), norm="pre").double().eval()
        for _ in range(3)
    )  # fmt: skip

    def decode(x: Tensor, caches: list[Cache] | None) -> Tensor:
        for i, layer in enumerate(layers):
            x = layer(x, **({} if caches is None else {"cache": caches[i]}))
        return x

    caches = [layer.get_submodule("mixer").new_cache(2) for layer in layers]  # type: ignore[operator]
    parts = [decode(part, caches) for part in tokens().split([20, *[1] * 25], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), decode(tokens(), None))


@pytest.mark.parametrize("name", list(ATTENTION))
def test_a_mechanism_without_a_causal_form_refuses_in_a_line(name: str) -> None:
    mechanism = build_attention(name, WIDTH, HEADS)
    if mechanism.causal:
        assert mechanism.new_cache(3).batch == 3
        return
    causal = "causal=True" if accepts_option(name, "causal") else "no causal form"
    with pytest.raises(ValueError, match=rf"^{type(mechanism).__name__}: .*{causal}$"):
        mechanism.new_cache(3)
    if causal == "no causal form":
        with pytest.raises(ValueError, match="takes no cache"):
            mechanism(tokens(count=4), cache=Cache(mechanism, 2))


def test_mistakes_are_named() -> None:
    mechanism, other = (make("softmax", {"causal": True}) for _ in range(2))
    x, cache = tokens(count=4), mechanism.new_cache(2)
    mechanism(x, cache=cache)
    wrong = torch.ones(2, 8, dtype=torch.bool)
    for call, message in (
        (lambda: other(x, cache=cache), "belongs to another layer"),
        (lambda: mechanism(x[:1], cache=cache), "for 2 sequences, got 1"),
        (lambda: mechanism(x, x, cache=cache), "takes no context"),
        (lambda: mechanism(x, mask=wrong, cache=cache), r"must be \(2, 4\) or \(2, 4, 8\)"),
        (lambda: mechanism.new_cache(-1), "number of sequences"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    rows = make("random", {"causal": True, "tokens": 6})
    cache = rows.new_cache(2)
    rows(x, cache=cache)
    with pytest.raises(ValueError, match="8 tokens, built for up to 6"):
        rows(x, cache=cache)
    assert repr(cache) == "Cache(FixedAttention, batch=2, tokens=4)"


def test_a_copy_of_a_cache_is_another_way_to_go_on_with_the_same_layer() -> None:
    mechanism, x = make("combiner", {"causal": True}), tokens(count=9)
    mask = torch.ones(2, 6, dtype=torch.bool)
    cache = mechanism.new_cache(2)
    with torch.no_grad():
        mechanism(x[:, :6], mask=mask, cache=cache)
        twin = copy.deepcopy(cache)
        other_way = mechanism(-x[:, 6:], cache=twin)
        torch.testing.assert_close(
            mechanism(x[:, 6:], cache=cache), in_pieces(mechanism, x, [9], None)[:, 6:]
        )
        whole = torch.cat([x[:, :6], -x[:, 6:]], 1)
        torch.testing.assert_close(other_way, mechanism(whole)[:, 6:])
    assert (twin.owner, twin.tokens) == (mechanism, 9)
    layer, moved = copy.deepcopy((mechanism, cache))
    assert moved.owner is layer
