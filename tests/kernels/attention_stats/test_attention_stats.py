"""Read-outs of attention against their formulas, with the full matrix of weights."""

import math

import pytest
import torch
from torch import Tensor

from headwise.kernels.attention_moments import cosine_moments
from headwise.kernels.attention_moments.naive import cosine_moments as cosine_formula
from headwise.kernels.attention_stats import attention_stats, cpu, naive, rollout_row
from headwise.kernels.attention_stats.naive import attention_weights

ALL = ("lse", "entropy", "column_mass", "key_mass", "top", "class_row", "mean_rows")
DIFFERENTIABLE = ("output", "lse", "entropy", "column_mass", "key_mass")


def finite(lse: Tensor) -> Tensor:
    return lse.masked_fill(lse == -math.inf, 0.0)


def in_four_dimensions(mask: Tensor | None) -> Tensor | None:
    if mask is None or mask.ndim == 4:
        return mask
    return mask[:, None, None] if mask.ndim == 2 else mask[:, None]


def matrix(
    query: Tensor, key: Tensor, mask: Tensor | None, causal: bool, scale: float | None = None
) -> Tensor:
    """Weights (B, H, N, M)."""
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    return attention_weights(query, key, in_four_dimensions(mask), factor, causal)[0]


def read_outs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    counts: Tensor,
    mask: Tensor | None,
    keys: Tensor,
    causal: bool = False,
    scale: float | None = None,
) -> dict[str, Tensor]:
    """The differentiable read-outs by their formula."""
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    numbers = keys[:, None].to(query.dtype)
    allowed = in_four_dimensions(mask)
    options = (factor, causal, True, True, 0)
    results = naive.attention_stats(query, key, value, allowed, numbers, counts, *options)
    return dict(zip(DIFFERENTIABLE, results))


def test_the_formula_is_a_softmax_with_its_entropy() -> None:
    (query, key, value, counts), mask, keys = inputs("heads")
    scores = (query @ key.repeat_interleave(2, 1).mT / 6**0.5).masked_fill(~mask, -math.inf)
    weights = scores.softmax(-1).nan_to_num()
    torch.testing.assert_close(matrix(query, key, mask, False), weights)
    results = read_outs(query, key, value, counts, mask, keys)
    torch.testing.assert_close(results["entropy"], torch.special.entr(weights).sum(-1))
    torch.testing.assert_close(results["lse"], scores.logsumexp(-1))
    by_columns = torch.einsum("bn,bhnm->bhm", counts, weights)
    torch.testing.assert_close(results["column_mass"], by_columns)
    torch.testing.assert_close(
        results["key_mass"], torch.einsum("bm,bhnm->bhn", keys.double(), weights)
    )


def inputs(
    kind: str, dtype: torch.dtype = torch.float64, n: int = 5, m: int = 7
) -> tuple[list[Tensor], Tensor | None, Tensor]:
    """[query, key, value, counts] of grouped heads, a mask whose first item hides everything, a set
    of keys.
    """
    torch.manual_seed(len(kind) + n)
    tensors = [
        torch.randn(2, 4, n, 6),
        torch.randn(2, 2, m, 6),
        torch.randn(2, 2, m, 3),
        torch.rand(2, n),
    ]
    shapes = {"keys": (2, m), "pairs": (2, n, m), "heads": (2, 4, n, m), "broadcast": (1, 4, 1, m)}
    mask = torch.rand(shapes[kind]) < 0.6 if kind in shapes else None
    if mask is not None and len(mask) > 1:
        mask[0] = False
    return [t.to(dtype).requires_grad_() for t in tensors], mask, torch.rand(2, m) < 0.5


@pytest.mark.parametrize("small_blocks", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["none", "keys", "pairs", "heads", "broadcast"])
def test_read_outs_and_gradients(
    kind: str, causal: bool, small_blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small_blocks:
        monkeypatch.setattr(cpu, "BLOCK_NUMBERS", 7)
        monkeypatch.setattr(cpu, "FEW_ROWS", 2)
        monkeypatch.setattr(cpu, "LEAST_ROWS", 1)
    for n, m, scale in ((5, 7, None), (9, 4, 0.3), (1, 1, None)):
        (query, key, value, counts), mask, keys = inputs(kind, n=n, m=m)
        rows = torch.tensor([n - 1, 0, n // 2])
        stats = attention_stats(
            query,
            key,
            value,
            mask=mask,
            causal=causal,
            scale=scale,
            want=ALL,
            keys=keys,
            k=3,
            row=n // 2,
            rows=rows,
            weights=counts,
        )
        weights = matrix(query, key, mask, causal, scale)
        reference = read_outs(query, key, value, counts, mask, keys, causal, scale)
        for name, tensor in reference.items():
            torch.testing.assert_close(
                getattr(stats, name), tensor, rtol=1e-10, atol=1e-10, msg=name
            )
        torch.testing.assert_close(stats.class_row, weights[:, :, n // 2].detach())
        torch.testing.assert_close(stats.mean_rows, weights.mean(1)[:, rows].detach())
        ours, theirs = (
            [finite(f(name)) for name in DIFFERENTIABLE]
            for f in (stats.__getattribute__, reference.get)
        )
        grads = [torch.randn_like(tensor) for tensor in ours]
        got = torch.autograd.grad(ours, [query, key, value, counts], grads)
        for a, b in zip(
            got, torch.autograd.grad(theirs, [query, key, value, counts], grads), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("n", [1, 6])
def test_each_gradient_alone(n: int) -> None:
    """Every read-out by itself, the column mass without weights, and gradients that are given stay
    as they are.
    """
    (query, key, value, _), mask, keys = inputs("keys", n=n)
    counts = torch.ones(2, n, dtype=torch.float64)
    reference = read_outs(query, key, value, counts, mask, keys)
    stats = attention_stats(query, key, value, mask=mask, want=ALL[:4], keys=keys)
    for name in DIFFERENTIABLE:
        ours, theirs = finite(getattr(stats, name)), finite(reference[name])
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        grad = torch.randn_like(ours)
        before = grad.clone()
        got = torch.autograd.grad(ours, [query, key], grad, retain_graph=True)
        assert torch.equal(grad, before), name
        back = torch.autograd.grad(theirs, [query, key], grad, retain_graph=True)
        torch.testing.assert_close(got, back, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True])
def test_largest_weights(causal: bool) -> None:
    (query, key, _, _), mask, _ = inputs("pairs", n=6, m=9)
    for k in (1, 3, 12):
        stats = attention_stats(query, key, mask=mask, causal=causal, want=("top",), k=k)
        assert stats.lse is None
        weights = matrix(query, key, mask, causal).detach()
        count = min(k, 9)
        torch.testing.assert_close(stats.top_values[..., :count], weights.topk(count, -1)[0])
        assert (stats.top_values[..., count:] == 0).all()
        shown = stats.top_indices >= 0
        assert (shown == (stats.top_values > 0)).all()
        assert (stats.top_indices[~shown] == -1).all()
        picked = weights.gather(-1, stats.top_indices.clamp_min(0))
        torch.testing.assert_close(picked[shown], stats.top_values[shown])
        assert not stats.top_values.requires_grad
        allowed, scale = in_four_dimensions(mask), query.shape[-1] ** -0.5
        *_, values, places = naive.attention_stats(
            query, key, None, allowed, None, None, scale, causal, False, False, k
        )
        torch.testing.assert_close(values, stats.top_values)
        assert torch.equal(places, stats.top_indices)


@pytest.mark.parametrize("want", ["lse", "entropy", "column_mass", "key_mass", "output"])
def test_gradcheck(want: str) -> None:
    (query, key, value, counts), mask, keys = inputs("heads", n=3, m=4)

    def read(q: Tensor, k: Tensor, v: Tensor, c: Tensor) -> Tensor:
        names = () if want == "output" else (want,)
        stats = attention_stats(
            q, k, v if want == "output" else None, mask=mask, want=names, keys=keys, weights=c
        )
        return finite(getattr(stats, want))

    assert torch.autograd.gradcheck(read, (query, key, value, counts))


def test_plain_facts() -> None:
    """Even weights have entropy log M, a single key 0; all keys together have mass 1; without keys
    all is 0.
    """
    query, key = (
        torch.zeros(1, 2, 3, 4, dtype=torch.float64),
        torch.randn(1, 2, 5, 4, dtype=torch.float64),
    )
    all_keys = torch.ones(1, 5, dtype=torch.bool)
    stats = attention_stats(query, key, want=("entropy", "column_mass", "key_mass"), keys=all_keys)
    torch.testing.assert_close(
        stats.entropy, torch.full((1, 2, 3), math.log(5.0), dtype=torch.float64)
    )
    torch.testing.assert_close(stats.column_mass, torch.full((1, 2, 5), 0.6, dtype=torch.float64))
    torch.testing.assert_close(stats.key_mass, torch.ones(1, 2, 3, dtype=torch.float64))
    third = torch.arange(5)[None] == 2
    alone = attention_stats(key, key, mask=third, want=("entropy", "lse"))
    assert (alone.entropy == 0).all()
    torch.testing.assert_close(alone.lse, torch.einsum("bhnd,bhd->bhn", key, key[:, :, 2]) / 2)
    without_keys = attention_stats(
        query, key[:, :, :0], key[:, :, :0], want=("entropy", "lse", "top")
    )
    assert (without_keys.lse == -math.inf).all()
    assert (without_keys.entropy == 0).all()
    assert (without_keys.output == 0).all()


@pytest.mark.parametrize(("batch", "n"), [(0, 3), (2, 0)])
def test_nothing(batch: int, n: int) -> None:
    query, key = (
        torch.zeros(batch, 2, n, 4, requires_grad=True),
        torch.zeros(batch, 2, 5, 4, requires_grad=True),
    )
    stats = attention_stats(query, key, key, want=("entropy", "column_mass", "top"), k=2)
    assert stats.entropy.shape == (batch, 2, n)
    assert stats.top_indices.shape == (batch, 2, n, 2)
    assert (stats.column_mass == 0).all()
    back = torch.autograd.grad(
        stats.entropy.sum() + stats.column_mass.sum() + stats.output.sum(), [query, key]
    )
    assert all((part == 0).all() for part in back)
    assert cosine_moments(query, key).dot.shape == (batch, n)


def test_large_scores_and_lower_precision() -> None:
    (query, key, value, counts), mask, keys = inputs("pairs", torch.float32, n=17, m=33)
    wide = attention_stats(40 * query, key, value, mask=mask, want=("entropy", "lse"))
    exact = [x.double() for x in (40 * query, key, value, counts)]
    reference = read_outs(*exact, mask, keys)
    torch.testing.assert_close(wide.entropy.double(), reference["entropy"], rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(wide.output.double(), reference["output"], rtol=1e-3, atol=1e-4)
    for part in torch.autograd.grad(wide.entropy.sum() + wide.output.sum(), [query, key, value]):
        assert part.isfinite().all()
    half = attention_stats(
        query.bfloat16(), key.bfloat16(), value.bfloat16(), mask=mask, want=("entropy",)
    )
    assert half.output.dtype == torch.bfloat16
    assert half.entropy.dtype == torch.float32
    weights = matrix(query.bfloat16().double(), key.bfloat16().double(), mask, False)
    torch.testing.assert_close(
        half.entropy.double(), torch.special.entr(weights).sum(-1), rtol=1e-4, atol=1e-4
    )
    with torch.autocast("cpu", torch.bfloat16):
        again = attention_stats(query, key, mask=mask, want=("entropy",)).entropy
    torch.testing.assert_close(
        again, attention_stats(query, key, mask=mask, want=("entropy",)).entropy
    )


def test_operator_is_whole() -> None:
    """Schema, fake tensors and autograd registration, and a compiled graph without a break."""
    (query, key, value, counts), mask, keys = inputs("keys", torch.float32)
    numbers, allowed = keys[:, None].float(), mask[:, None, None]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        torch.ops.headwise.attention_stats,
        (query, key, value, allowed, numbers, counts, 0.4, False, True, True, 2),
        test_utils=tests,
    )
    lse, mean = attention_stats(query, key, mask=mask).lse.detach(), torch.rand(2, 7)
    torch.library.opcheck(
        torch.ops.headwise.attention_moments,
        (query, key, allowed, lse, mean, torch.full((2,), 0.1), 0.4, False),
        test_utils=tests,
    )

    def loss(q: Tensor, k: Tensor) -> Tensor:
        stats = attention_stats(q, k, mask=mask, want=("entropy", "column_mass"))
        return stats.entropy.sum() + stats.column_mass.square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(query, key), loss(query, key))
    got = torch.autograd.grad(compiled(query, key), [query, key])
    torch.testing.assert_close(got, torch.autograd.grad(loss(query, key), [query, key]))


@pytest.mark.parametrize("causal", [False, True])
def test_rollout_is_the_row_of_the_product(causal: bool) -> None:
    torch.manual_seed(3)
    layers = [
        (torch.randn(2, 4, 6, 5).double(), torch.randn(2, 2, 6, 5).double()) for _ in range(3)
    ]
    mask = torch.rand(2, 6) < 0.7
    for allowed in (None, mask):
        product = torch.eye(6, dtype=torch.float64).expand(2, 6, 6)
        for query, key in layers:
            step = 0.5 * matrix(query, key, allowed, causal).mean(1) + 0.5 * torch.eye(
                6, dtype=torch.float64
            )
            product = step @ product
        for start in (0, 4):
            row = rollout_row(layers, start=start, mask=allowed, causal=causal)
            torch.testing.assert_close(row, product[:, start], rtol=1e-10, atol=1e-12)
    row = rollout_row(layers, causal=causal)
    torch.testing.assert_close(row.sum(-1), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("size", [1.0, 30.0])
@pytest.mark.parametrize("causal", [False, True])
def test_scores_with_and_without_shift(size: float, causal: bool) -> None:
    torch.manual_seed(4)
    query, key, value = (
        size * torch.randn(2, 4, 20, 2),
        size * torch.randn(2, 2, 20, 2),
        torch.randn(2, 2, 20, 3),
    )
    assert cpu.bounded(query, key, 1.0) == (size == 1.0)
    assert not cpu.bounded(query, key * torch.nan, 1.0)
    mask, counts, keys = torch.rand(2, 20) < 0.7, torch.rand(2, 20), torch.rand(2, 20) < 0.5
    mask[0] = False
    want = ("lse", "entropy", "column_mass", "key_mass")
    exact = [x.double() for x in (query, key, value, counts)]
    for names in (want, ("lse", "column_mass", "key_mass"), ("column_mass",)):
        stats = attention_stats(
            query,
            key,
            value,
            mask=mask,
            causal=causal,
            scale=1.0,
            want=names,
            keys=keys,
            weights=counts,
        )
        reference = read_outs(*exact, mask, keys, causal, 1.0)
        for name in ("output", *names):
            torch.testing.assert_close(
                getattr(stats, name).double(), reference[name], rtol=1e-3, atol=2e-4, msg=name
            )


@pytest.mark.parametrize("masked", [False, True])
def test_cosine_moments(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "BLOCK_NUMBERS", 100)
    (query, key, _, _), mask, _ = inputs("keys", n=11, m=9)
    mask = mask if masked else None
    queries = torch.rand(2, 11) < 0.8
    for threshold in (0.0, 1.2, 2.0):
        stats = cosine_moments(3 * query, key, threshold=threshold, mask=mask, queries=queries)
        got = [stats.dot, stats.row, stats.mean]
        allowed, scale = in_four_dimensions(mask), query.shape[-1] ** -0.5
        reference = cosine_formula(3 * query, key, allowed, queries, threshold, scale)
        grads = [torch.randn_like(tensor) for tensor in got]
        for a, b in zip(got, reference, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        back = torch.autograd.grad(reference, [query, key], grads)
        for a, b in zip(torch.autograd.grad(got, [query, key], grads), back, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
        assert torch.equal(
            stats.counted, queries & (True if mask is None else mask.any(-1, keepdim=True))
        )


def test_gradcheck_of_moments() -> None:
    (query, key, _, _), _, _ = inputs("none", n=4, m=3)

    def read(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stats = cosine_moments(q, k, threshold=0.5)
        return stats.dot, stats.row, stats.mean

    assert torch.autograd.gradcheck(read, (query, key))


def test_mistakes_are_named() -> None:
    query, key = torch.zeros(2, 4, 5, 6), torch.zeros(2, 2, 7, 6)
    for message, options in {
        "no read-out 'entrpy'": {"want": ("entrpy",)},
        "mask must be bool": {"mask": torch.ones(2, 7)},
        "broadcast to": {"mask": torch.ones(2, 5, 6, dtype=torch.bool)},
        "key_mass needs keys": {"want": ("key_mass",)},
        "weights must be": {"weights": torch.ones(2, 7)},
        "k of at least 1": {"want": ("top",), "k": 0},
        "row 5 is not": {"want": ("class_row",), "row": 5},
        "needs rows": {"want": ("mean_rows",)},
        "value": {"value": torch.zeros(2, 2, 6, 6)},
    }.items():
        with pytest.raises(ValueError, match=message):
            attention_stats(query, key, **options)
    with pytest.raises(ValueError, match="K dividing H"):
        attention_stats(query, torch.zeros(2, 3, 7, 6))
    with pytest.raises(ValueError, match="both must be N"):
        rollout_row([(query, key)])
    with pytest.raises(ValueError, match="at least one layer"):
        rollout_row([])
    with pytest.raises(ValueError, match="queries must be bool"):
        cosine_moments(query, key, queries=torch.ones(2, 5))
