"""One new token to caches cut head by head, compared with the same by PyTorch and with the full
cache: bytes and time.

    python benchmarks/ops/decode_attention.py [--seconds 0.5] [--samples 1] [--queries 1] [--forms]

Float32, one thread, generated numbers. A plan keeps a share of the cache of eight heads of keys:
8 share - 1 heads hold all tokens, the others share equally what one head holds. `ours` is
`decode_attention` on packed rows; `by rule` is `scaled_dot_product_attention` of the full and of
the cut heads, `enable_gqa`; `masked` is that of the padded full cache with a mask; `full` is that
of the full cache, and `full, ours` is `decode_attention` of it. All forms must agree before
anything is timed; they are called in turn, each on numbers of its own, so that none finds what
another has read in the cache, and the fastest call counts.

The second table is about sets of keys in place of cut caches: an eighth of the keys, chosen one by
one or in blocks of 64 (`select_keys`), then gathered and attended to. `--forms`
compares, instead of both, what the operator chooses from on the CPU, on eight caches of one length;
half precision, too."""

from collections.abc import Iterator
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.benchmarks.measure import (
    Call,
    Case,
    Size,
    fastest,
    machine_load,
    parser_of,
    print_header,
    print_row,
)
from headwise.kernels.fused_attention import attend
from headwise.kernels.key_selection import select_keys
from headwise.kernels.ragged_decode import cpu, decode_attention

HEADS = 8
SHAPES = ((3, 64), (4, 128))  # query heads that share keys, width of a head
TOKENS, SHARES = (2048, 8192, 32_768), (0.125, 0.375, 0.5)


def caches(samples: int, held: list[int]) -> tuple[Tensor, Tensor]:
    """Starts and lengths, int64 (B, K), of packed caches; heads of one length lie side by side."""
    starts = torch.empty(samples, len(held), dtype=torch.int64)
    row = 0
    for length in sorted(set(held), reverse=True):
        for sample in range(samples):
            for head in (at for at, tokens in enumerate(held) if tokens == length):
                starts[sample, head] = row
                row += length
    return starts, torch.tensor(held).expand(samples, -1).contiguous()


def cut(x: Tensor, held: list[int]) -> Tensor:
    """Rows (R, d) of the last tokens of each head of a cache (B, K, N, d), as `caches` places
    them.
    """
    parts = []
    for length in sorted(set(held), reverse=True):
        heads = [at for at, tokens in enumerate(held) if tokens == length]
        parts.append(x[:, heads, x.shape[2] - length :].flatten(0, 2))
    return torch.cat(parts)


def plan_calls(cache: list[Tensor], query: Tensor, share: float) -> tuple[int, list[Call]]:
    """Keys of the plan, and calls, which agree: ours, by rule, masked, full, full by ours."""
    key, value = cache
    (samples, heads, tokens, _), group = key.shape, query.shape[1] // key.shape[1]
    full = round(heads * share) - 1
    held = [tokens] * full + [tokens // (heads - full)] * (heads - full)
    starts, lengths = caches(samples, held)
    rows = cut(key, held), cut(value, held)
    mask = torch.arange(tokens) >= tokens - lengths[..., None]
    mask = mask.repeat_interleave(group, 1)[:, :, None]
    all_starts, all_lengths = caches(samples, [tokens] * heads)
    by_rule_rows = [x.clone() for x in rows]
    masked_key, masked_value = key.clone(), value.clone()
    all_rows = key.flatten(0, 2).clone(), value.flatten(0, 2).clone()

    def by_rule() -> Tensor:
        parts, row = [], 0
        for some in (range(full), range(full, heads)):
            if len(some) == 0:
                continue
            shape = samples, len(some), held[some[0]], key.shape[3]
            end = row + shape[0] * shape[1] * shape[2]
            group_of = query[:, some[0] * group : (some[-1] + 1) * group]
            k, v = (x[row:end].view(shape) for x in by_rule_rows)
            parts.append(F.scaled_dot_product_attention(group_of, k, v, enable_gqa=True))
            row = end
        return torch.cat(parts, 1)

    sdpa = partial(F.scaled_dot_product_attention, query, enable_gqa=True)
    calls = [
        lambda: decode_attention(query, rows[0], rows[1], starts, lengths)[0],
        by_rule,
        lambda: sdpa(masked_key, masked_value, attn_mask=mask),
        lambda: sdpa(key, value),
        lambda: decode_attention(query, all_rows[0], all_rows[1], all_starts, all_lengths)[0],
    ]
    for first, second in ((0, 1), (0, 2), (3, 4)):
        torch.testing.assert_close(calls[first](), calls[second](), rtol=1e-4, atol=1e-5)
    return sum(held), calls


def cases(size: Size) -> Iterator[Case]:
    """Ours beside the other ways to read a cut cache, and the full one."""
    for (group, width), tokens, share in product(
        SHAPES, {"tiny": (16,), "short": (8192,), "full": TOKENS}[size], SHARES
    ):
        query, cache = inputs(1, group, 1, tokens, width)
        held, (ours, by_rule, masked, _, full) = plan_calls(cache, query, share)
        name = f"{group} queries a key of {width}, {tokens:,} tokens, {held / HEADS / tokens:.1%}"
        others = {"SDPA by rule": by_rule, "SDPA, masked": masked, "ours, full cache": full}
        yield Case(name, ours, others, memory=False)


def chosen_times(cache: list[Tensor], query: Tensor, seconds: float) -> list[float]:
    """Seconds of: choosing keys, the largest of given scores, choosing blocks, attention to the
    chosen, full attention.
    """
    key, value = cache
    samples, heads, tokens, width = key.shape
    count = tokens // 8
    # One set for all queries of a chunk: that of the last one.
    choose_keys = partial(select_keys, query[:, :, -1:], key, sink=64, recent=64)
    chosen, _ = choose_keys(count)
    scores = torch.randn(samples, heads, 1, tokens)
    places = chosen.reshape(samples, heads, count)
    first = torch.arange(samples * heads).view(samples, heads, 1) * tokens
    starts, lengths = caches(samples, [count] * heads)

    def attend() -> Tensor:
        at = (places + first).flatten()
        k, v = (x.flatten(0, 2).index_select(0, at) for x in cache)
        return decode_attention(query, k, v, starts, lengths)[0]

    index = places[..., None].expand(-1, -1, -1, width)
    k, v = (x.gather(2, index) for x in cache)
    right = F.scaled_dot_product_attention(query, k, v, enable_gqa=True)
    torch.testing.assert_close(attend(), right, rtol=1e-4, atol=1e-5)
    calls = [
        lambda: choose_keys(count),
        lambda: scores.topk(count, -1),
        lambda: choose_keys(count, block=64),
        attend,
        lambda: decode_attention(
            query, key.flatten(0, 2), value.flatten(0, 2), *caches(samples, [tokens] * heads)
        ),
    ]
    return fastest(calls, seconds)


def compare_forms(seconds: float) -> None:
    """Print a row for each size and type: one fused call, two products, a query a fused call."""
    names = ("fused call", "products", "a query a call", "fused, masked", "products, masked")
    print_header("queries, width", "keys", "type", "MB", f"ms {' / '.join(names)}")
    for rows, width in ((1, 128), (3, 64), (4, 128), (8, 128), (16, 64)):
        for length in (128, 1024, 8192):
            for dtype in (torch.float32, torch.bfloat16):
                query = torch.randn(HEADS, rows, width, dtype=dtype)
                key, value = torch.randn(2, HEADS, length, width, dtype=dtype)
                seen = torch.rand(HEADS, rows, length) < 0.9
                shared = [x[:, None].expand(-1, rows, -1, -1) for x in (key, value)]
                scale = width**-0.5
                times = fastest(
                    [
                        partial(cpu.fused, query, key, value, None, scale),
                        partial(cpu.products, query, key, value, None, scale),
                        partial(attend, query[:, :, None], shared[0], shared[1], scale),
                        partial(cpu.fused, query, key, value, seen, scale),
                        partial(cpu.products, query, key, value, seen, scale),
                    ],
                    seconds,
                )
                size = 2 * key.numel() * key.element_size() / 1e6
                kind = str(dtype).removeprefix("torch.")
                print_row(f"{rows}, {width}", length, kind, f"{size:.1f}", milliseconds(times))


def inputs(
    samples: int, group: int, queries: int, tokens: int, width: int
) -> tuple[Tensor, list[Tensor]]:
    """Query (B, H, Q, d), and key and value (B, K, N, d)."""
    torch.manual_seed(0)
    query = torch.randn(samples, HEADS * group, queries, width)
    return query, [torch.randn(samples, HEADS, tokens, width) for _ in range(2)]


def milliseconds(times: list[float]) -> str:
    return " / ".join(f"{1e3 * t:.2f}" for t in times)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--queries", type=int, default=1)
    parser.add_argument("--forms", action="store_true", help="the forms of the CPU alone")
    options = parser.parse_args()
    about = f"{options.samples} samples, {options.queries} queries, {HEADS} heads of keys, float32"
    with machine_load(about, threads=1):
        if options.forms:
            return compare_forms(options.seconds)
        print_header(
            *("queries a key, width", "tokens", "kept", "MB of the cache, full"),
            *("ms ours / by rule / masked / full / full, ours", "ours faster than full, masked"),
        )
        for group, width in SHAPES:
            for tokens in TOKENS:
                query, cache = inputs(options.samples, group, options.queries, tokens, width)
                for share in SHARES:
                    held, calls = plan_calls(cache, query, share)
                    times = fastest(calls, options.seconds)
                    size = 2 * options.samples * width * 4 / 1e6  # of a key with its value
                    print_row(
                        *(f"{group}, {width}", f"{tokens:,}"),
                        f"{held / HEADS / tokens:.1%}",
                        f"{held * size:.1f}, {HEADS * tokens * size:.1f}",
                        milliseconds(times),
                        f"{times[4] / times[0]:.1f}x, {times[2] / times[0]:.1f}x",
                    )
        print()
        print_header(
            *("queries a key, width", "tokens", "chosen"),
            "ms choose / of which topk / in blocks / attend to them / full attention",
        )
        for group, width in SHAPES:
            for tokens in TOKENS:
                query, cache = inputs(options.samples, group, options.queries, tokens, width)
                times = chosen_times(cache, query, options.seconds)
                print_row(f"{group}, {width}", f"{tokens:,}", tokens // 8, milliseconds(times))


if __name__ == "__main__":
    main()
