"""Attention to caches of any length against softmax written out query by query, on the CPU."""

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from headwise.kernels.decompositions import plain_decompositions
from headwise.kernels.partial_softmax import merge_partials
from headwise.kernels.ragged_decode import cpu, decode_attention
from headwise.tests.kernels.layouts import LAYOUTS

CACHES = {
    "ragged, some empty": [[5, 0, 7], [7, 30, 2]],
    "windows and a full one": [[4, 4, 90], [4, 4, 90]],
    "equal": [[6, 6]],
    "one key": [[1]],
    "all empty": [[0, 0]],
}


def random_inputs(
    name: str,
    group: int = 2,
    queries: int = 3,
    width: int = 4,
    value_width: int = 4,
    room: int = 2,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Query, key, value, starts and lengths; `room` rows behind each cache hold NaN."""
    torch.manual_seed(len(name))
    lengths = torch.tensor(CACHES[name])
    taken = (lengths.flatten() + room).cumsum(0)
    starts = (taken - lengths.flatten() - room).view(lengths.shape)
    samples, heads = lengths.shape
    query = torch.randn(samples, heads * group, queries, width, dtype=dtype)
    rows = torch.randn(int(taken[-1]), width + value_width, dtype=dtype)
    owned = torch.zeros(rows.shape[0], dtype=torch.bool)
    for start, length in zip(starts.flatten().tolist(), lengths.flatten().tolist()):
        owned[start : start + length] = True
    rows[~owned] = torch.nan
    return query, rows[:, :width].contiguous(), rows[:, width:].contiguous(), starts, lengths


def random_limits(inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Limits of every kind."""
    query, key, _, _, lengths = inputs
    return {
        "key_positions": torch.randint(0, 40, key.shape[:1]),
        "query_positions": torch.randint(0, 40, (query.shape[0], query.shape[2])),
        "keep": torch.rand(key.shape[0]) < 0.8,
        "spans": torch.randint(1, 30, lengths.shape),
        "sinks": torch.randint(0, 6, lengths.shape),
    }


def expected(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    lengths: Tensor,
    scale: float,
    limits: dict[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """Softmax query by query over the keys that each may see."""
    out = query.new_zeros((*query.shape[:3], value.shape[1]))
    lse = query.new_full(query.shape[:3], -torch.inf)
    group = query.shape[1] // starts.shape[1]
    for b, h, q in product(*(range(size) for size in query.shape[:3])):
        start, length = int(starts[b, h // group]), int(lengths[b, h // group])
        rows = []
        for row in range(start, start + length):
            visible = True
            if "keep" in limits:
                visible = bool(limits["keep"][row])
            if "key_positions" in limits:
                ago = int(limits["query_positions"][b, q] - limits["key_positions"][row])
                visible = visible and ago >= 0
                if "spans" in limits:
                    span, sink = int(limits["spans"][b, h // group]), limits["sinks"]
                    early = bool(limits["key_positions"][row] < sink[b, h // group])
                    visible = visible and (ago < span or early)
            if visible:
                rows.append(row)
        if rows:
            scores = key[rows] @ query[b, h, q] * scale
            out[b, h, q] = scores.softmax(0) @ value[rows]
            lse[b, h, q] = scores.logsumexp(0)
    return out, lse


LIMITS = (
    (),
    ("keep",),
    ("key_positions", "query_positions"),
    ("key_positions", "query_positions", "spans", "sinks"),
    ("key_positions", "query_positions", "keep", "spans", "sinks"),
)


@pytest.mark.parametrize("name", CACHES)
@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("value_width", [4, 5])
def test_each_query_attends_to_the_keys_of_its_head_that_it_may_see(
    name: str, limits: tuple[str, ...], value_width: int
) -> None:
    inputs = random_inputs(name, value_width=value_width)
    about = {key: x for key, x in random_limits(inputs).items() if key in limits}
    got = decode_attention(*inputs, scale=0.3, **about)
    torch.testing.assert_close(got, expected(*inputs, 0.3, about))


def test_a_padded_cache_seen_as_rows_gives_sdpa() -> None:
    torch.manual_seed(0)
    query, padded = torch.randn(2, 6, 1, 8), torch.randn(2, 2, 3, 20, 8)  # key and value first
    lengths = torch.tensor([[20, 3, 7], [20, 1, 20]])
    starts = torch.arange(6).view(2, 3) * 20
    key, value = padded.flatten(1, 3)
    out, _ = decode_attention(query, key, value, starts, lengths)
    mask = (torch.arange(20) < lengths[..., None]).repeat_interleave(2, 1)[:, :, None]
    plain = scaled_dot_product_attention(query, *padded, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(out, plain)


def test_full_caches_in_one_view_give_sdpa_of_the_group_without_a_mask() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 6, 1, 8), torch.randn(2, 3, 50, 8), torch.randn(2, 3, 50, 8)
    starts = torch.arange(6).view(2, 3) * 50
    out, _ = decode_attention(
        query, key.flatten(0, 2), value.flatten(0, 2), starts, torch.full_like(starts, 50)
    )
    torch.testing.assert_close(
        out, scaled_dot_product_attention(query, key, value, enable_gqa=True)
    )


def test_caches_of_one_length_at_even_distances_are_one_view_of_the_rows() -> None:
    starts = torch.tensor([0, 100, 10, 30, 20, 200, 7, 300])
    lengths = torch.tensor([5, 50, 5, 5, 5, 50, 0, 50])
    got = [(sorted(run.caches), run.start, run.step) for run in cpu.runs(starts, lengths, 400)]
    assert got == [([0, 2, 3, 4], 0, 10), ([1, 5, 7], 100, 100)]
    rows = torch.randn(400, 3)
    run = next(cpu.runs(starts, lengths, 400))
    assert run.rows(rows).data_ptr() == rows.data_ptr()
    for part, cache in zip(run.rows(rows), run.caches):
        assert part.equal(rows[starts[cache] : starts[cache] + 5])


@pytest.mark.parametrize("name", CACHES)
@pytest.mark.parametrize("form", ["fused", "products"])
def test_both_forms_give_the_formula(name: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many numbers are read by products, few by one fused call."""
    called: list[str] = []
    for name_of_form in ("fused", "products"):
        run = getattr(cpu, name_of_form)
        noted = lambda *x, run=run, name=name_of_form: (called.append(name), run(*x))[1]  # noqa: E731
        monkeypatch.setattr(cpu, name_of_form, noted)
    monkeypatch.setattr(cpu, "LARGE", 1 if form == "products" else 1 << 22)
    inputs = random_inputs(name, queries=2)
    for about in ({}, random_limits(inputs)):
        got = decode_attention(*inputs, scale=0.3, **about)
        torch.testing.assert_close(got, expected(*inputs, 0.3, about))
    assert set(called) <= {form}
    monkeypatch.setattr(cpu, "LARGE", 1)
    called.clear()
    half = [x.bfloat16() for x in inputs[:3]]
    decode_attention(half[0], half[1], half[2], *inputs[3:])
    assert "products" not in called  # they would copy the keys to float32


def test_two_heads_may_share_rows() -> None:
    query, key, value, starts, lengths = random_inputs("equal", room=0)
    starts = torch.zeros_like(starts)
    got = decode_attention(query, key, value, starts, lengths, scale=0.3)
    torch.testing.assert_close(got, expected(query, key, value, starts, lengths, 0.3, {}))


def test_parts_of_a_cache_merge_to_the_whole_cache() -> None:
    inputs = random_inputs("ragged, some empty")
    query, key, value, starts, lengths = inputs
    half = lengths // 2
    parts = [
        decode_attention(query, key, value, starts, half),
        decode_attention(query, key, value, starts + half, lengths - half),
    ]
    torch.testing.assert_close(merge_partials(parts), decode_attention(*inputs))


def test_token_by_token_equals_a_chunk_with_positions() -> None:
    """A cache with room takes four tokens: in one call, and one after the other."""
    query, key, value, starts, lengths = random_inputs("windows and a full one", queries=4, room=4)
    new = torch.randn(*lengths.shape, 4, 4, dtype=key.dtype)
    places = (starts + lengths)[..., None] + torch.arange(4)
    key[places], value[places] = new, new + 1
    spans, sinks = torch.tensor([3, 3, 1000]), torch.tensor([2, 2, 0])
    positions = torch.zeros(key.shape[0], dtype=torch.int64)
    for start, length in zip(starts.flatten().tolist(), lengths.flatten().tolist()):
        positions[start : start + length + 4] = torch.arange(90 - length, 94)
    asked = torch.arange(90, 94).expand(2, 4)
    about = {"key_positions": positions, "spans": spans, "sinks": sinks}
    chunk = decode_attention(
        query, key, value, starts, lengths + 4, query_positions=asked, **about
    )[0]
    for q in range(4):
        held = lengths + q + 1
        first = (held - spans).clamp(min=0)  # a window's cache has dropped what lies before
        one = decode_attention(query[:, :, q : q + 1], key, value, starts + first, held - first)[0]
        torch.testing.assert_close(chunk[:, :, q : q + 1], one)


@pytest.mark.parametrize("lay", LAYOUTS)
def test_other_strides(lay) -> None:
    inputs = random_inputs("ragged, some empty")
    about = random_limits(inputs)
    got = decode_attention(*map(lay, inputs), **{name: lay(x) for name, x in about.items()})
    torch.testing.assert_close(got, decode_attention(*inputs, **about))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("group", [2, 1])
def test_half_precision(dtype: torch.dtype, limited: bool, group: int) -> None:
    query, key, value, starts, lengths = random_inputs(
        "windows and a full one", group, queries=2 * group - 1
    )
    half = [x.to(dtype) for x in (query, key, value)]
    about = random_limits((query, key, value, starts, lengths)) if limited else {}
    out, lse = decode_attention(*half, starts, lengths, **about)
    q, k, v = (x.double() for x in half)
    right = expected(q, k, v, starts, lengths, 0.5, about)
    assert (out.dtype, lse.dtype) == (dtype, torch.float32)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), right[0], atol=2 * eps, rtol=2 * eps)
    torch.testing.assert_close(lse.double(), right[1], atol=1e-5, rtol=1e-5)


def test_large_scores_stay_finite() -> None:
    inputs = random_inputs("ragged, some empty", dtype=torch.float32)
    out, _ = decode_attention(*inputs, scale=1e4)
    torch.testing.assert_close(out, expected(*inputs, 1e4, {})[0])


def test_autocast_and_compile() -> None:
    inputs = random_inputs("ragged, some empty", dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert decode_attention(*inputs)[0].dtype == torch.bfloat16
    compiled = torch.compile(decode_attention, fullgraph=True, backend="aot_eager", dynamic=True)
    for name in ("ragged, some empty", "windows and a full one"):
        inputs = random_inputs(name, dtype=torch.float32)
        about = random_limits(inputs)
        torch.testing.assert_close(compiled(*inputs, **about), decode_attention(*inputs, **about))


@pytest.mark.parametrize("queries", [3, 0])
@pytest.mark.parametrize("limited", [False, True])
def test_promises_to_the_dispatcher(queries: int, limited: bool) -> None:
    query, key, value, starts, lengths = random_inputs("equal", queries=queries)
    caches, asked = lengths.numel(), query.shape[1] // lengths.shape[1] * queries
    limits: tuple[Tensor | None, ...] = (None,) * 4
    if limited:
        sizes = key.shape[:1], (caches, asked), (caches,), (caches,)
        limits = tuple(torch.ones(size, dtype=torch.int64) for size in sizes)
    arguments = query.reshape(caches, asked, 4), key, value, starts.flatten(), lengths.flatten()
    operator = torch.ops.headwise.decode_attention.default
    torch.library.opcheck(operator, (*arguments, *limits, 0.5))
    plain = plain_decompositions()[operator]
    finite = (x.nan_to_num() for x in arguments[1:3])  # the formula multiplies every row
    rest = (*arguments[3:], *limits, 0.5)
    torch.testing.assert_close(
        plain(arguments[0], *finite, *rest), tuple(operator(*arguments, *rest[2:]))
    )


def test_a_gradient_is_refused_in_one_line() -> None:
    query, *rest = random_inputs("equal")
    out, _ = decode_attention(query.requires_grad_(), *rest)
    with pytest.raises(NotImplementedError, match="decode_attention cannot be differentiated"):
        out.sum().backward()


def test_mistakes_are_named() -> None:
    query, key, value, starts, lengths = random_inputs("ragged, some empty")
    inputs = (query, key, value, starts, lengths)
    limits = random_limits(inputs)
    at, asked, spans, sinks = (
        limits[name] for name in ("key_positions", "query_positions", "spans", "sinks")
    )
    both = {"key_positions": at, "query_positions": asked}
    for wrong, about, message in (
        ((query[0], key, value, starts, lengths), {}, "query must be"),
        ((query, key, value[:-1], starts, lengths), {}, "query must be"),
        ((query, key[:, :3], value, starts, lengths), {}, "does not fit query"),
        ((query, key.float(), value, starts, lengths), {}, "one floating type"),
        ((query, key, value, starts.int(), lengths), {}, "starts must be int64"),
        ((query, key, value, starts, lengths[:1]), {}, "lengths must be int64"),
        ((query[:, :5], key, value, starts, lengths), {}, "K dividing the 5 heads"),
        ((query, key, value, starts, lengths + 99), {}, "not within the 63 rows"),
        ((query, key, value, starts - 1, lengths), {}, "not within the 63 rows"),
        ((query, key, value, starts, lengths - 9), {}, "not within the 63 rows"),
        (inputs, {"key_positions": at}, "or neither"),
        (inputs, {"spans": spans, "sinks": sinks}, "spans need sinks and positions"),
        (inputs, {**both, "spans": spans}, "spans need sinks and positions"),
        (inputs, {**both, "key_positions": at[:-1]}, "key_positions must be"),
        (inputs, {**both, "query_positions": asked.int()}, "query_positions must be"),
        (inputs, {"keep": at}, "keep must be torch.bool"),
        (inputs, {**both, "spans": spans[:, :2], "sinks": sinks}, "spans must be int64"),
    ):
        with pytest.raises(ValueError, match=message):
            decode_attention(*wrong, **about)
