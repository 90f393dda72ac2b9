"""softmax_pool and softmax_draw against formulas written here, bag by bag."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headwise.kernels.decompositions import plain_decompositions
from headwise.kernels.softmax_pool import softmax_draw, softmax_pool

SHAPES = [(1, 1, 1), (2, 7, 5), (3, 33, 17), (2, 300, 64), (5, 1, 8), (0, 4, 3), (2, 0, 3)]


def bags_of(x: Tensor, mask: Tensor | None, offsets: Tensor | None) -> list[Tensor]:
    """The rows that count, one tensor a bag."""
    if offsets is not None:
        return [x[a:b] for a, b in zip(offsets.tolist(), offsets.tolist()[1:])]
    return [row if mask is None else row[mask[k]] for k, row in enumerate(x)]


def formula(
    scores: Tensor,
    values: Tensor | None,
    per: str,
    mask: Tensor | None = None,
    offsets: Tensor | None = None,
) -> Tensor:
    values = scores if values is None else values
    pooled = []
    for s, v in zip(bags_of(scores, mask, offsets), bags_of(values, mask, offsets)):
        weight = torch.exp(s) / torch.exp(s).sum(0)  # (n, D) or (n, H)
        if per == "feature":
            pooled.append((weight * v).sum(0) if len(s) else v.new_zeros(v.shape[1]))
        else:
            pooled.append(
                torch.einsum("nh,nd->hd", weight, v)
                if len(s)
                else v.new_zeros(s.shape[1], v.shape[1])
            )
    shape = scores.shape[2:] if per == "feature" else (scores.shape[-1], values.shape[-1])
    return torch.stack(pooled) if pooled else values.new_zeros(0, *shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["own", "feature", "head"])
@pytest.mark.parametrize("masked", [False, True])
def test_pool_equals_the_formula(shape: tuple[int, int, int], kind: str, masked: bool) -> None:
    torch.manual_seed(0)
    bags, rows, width = shape
    scores = torch.randn(bags, rows, 3 if kind == "head" else width, dtype=torch.float64)
    values = None if kind == "own" else torch.randn(shape, dtype=torch.float64)
    mask = torch.rand(bags, rows) < 0.7 if masked else None
    if mask is not None and bags:
        mask[-1] = False
    per = "head" if kind == "head" else "feature"
    pooled = softmax_pool(scores, values, per=per, mask=mask)
    torch.testing.assert_close(pooled, formula(scores, values, per, mask), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["own", "feature", "head"])
@pytest.mark.parametrize("form", ["padded", "masked", "packed"])
def test_pool_gradients(kind: str, form: str) -> None:
    torch.manual_seed(1)
    lead = (9,) if form == "packed" else (3, 6)
    scores = torch.randn(*lead, 2 if kind == "head" else 4, dtype=torch.float64, requires_grad=True)
    values = (
        None if kind == "own" else torch.randn(*lead, 4, dtype=torch.float64, requires_grad=True)
    )
    mask = (
        torch.tensor([[1, 1, 0, 1, 0, 1], [0] * 6, [1] * 6], dtype=torch.bool)
        if form == "masked"
        else None
    )
    offsets = torch.tensor([0, 4, 4, 9]) if form == "packed" else None
    per = "head" if kind == "head" else "feature"

    def call(*inputs: Tensor) -> Tensor:
        return softmax_pool(
            inputs[0], inputs[1] if len(inputs) > 1 else None, per=per, mask=mask, offsets=offsets
        )

    assert torch.autograd.gradcheck(call, [x for x in (scores, values) if x is not None])


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    width=st.integers(1, 6),
    per=st.sampled_from(["feature", "head"]),
    seed=st.integers(0, 1000),
)
def test_packed_equals_padded(lengths: list[int], width: int, per: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    scores = torch.randn(len(lengths), longest, width, generator=generator, dtype=torch.float64)
    values = torch.randn(
        len(lengths),
        longest,
        4 if per == "head" else width,
        generator=generator,
        dtype=torch.float64,
    )
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    padded = softmax_pool(scores, values, per=per, mask=mask)  # type: ignore[arg-type]
    packed = softmax_pool(scores[mask], values[mask], per=per, offsets=offsets)  # type: ignore[arg-type]
    torch.testing.assert_close(packed, padded)
    torch.testing.assert_close(packed, formula(scores[mask], values[mask], per, offsets=offsets))
    a, i = softmax_draw(scores, values, per=per, mask=mask, seed=3)  # type: ignore[arg-type]
    b, j = softmax_draw(scores[mask], values[mask], per=per, offsets=offsets, seed=3)  # type: ignore[arg-type]
    assert torch.equal(i, j)
    assert torch.equal(a, b)


def test_what_the_mask_hides_may_hold_anything() -> None:
    torch.manual_seed(2)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    scores = torch.randn(2, 3, 4).masked_fill(~mask[..., None], torch.nan).requires_grad_()
    values = torch.randn(2, 3, 4).masked_fill(~mask[..., None], torch.inf).requires_grad_()
    for per in ("feature", "head"):
        for call in (softmax_pool, lambda *a, **k: softmax_draw(*a, **k)[0]):
            out = call(scores, values, per=per, mask=mask)
            assert out.isfinite().all()
            assert (out[1] == 0).all()
            for gradient in torch.autograd.grad(
                out.sum(), (scores, values), allow_unused=True, materialize_grads=True
            ):
                assert gradient.isfinite().all()
                assert (gradient[~mask] == 0).all()


@pytest.mark.parametrize("rows", [5, 400])
def test_nan_scores_give_nan_where_they_are(rows: int) -> None:
    scores = torch.randn(2, rows, 3)
    scores[0, rows // 2, 1] = torch.nan
    expected = torch.tensor([[False, True, False], [False] * 3])
    assert torch.equal(softmax_pool(scores).isnan(), expected)
    drawn, index = softmax_draw(scores)
    assert torch.equal(drawn.isnan(), expected)
    assert torch.equal(index == -2, expected)


@pytest.mark.parametrize("rows", [7, 300])
def test_draws_follow_the_softmax(rows: int) -> None:
    """Chi-square over rows of 40,000 equal columns; bounds are the 0.999 quantiles."""
    torch.manual_seed(3)
    draws = 40_000
    logits = torch.randn(rows, dtype=torch.float64)
    _, index = softmax_draw(logits[None, :, None].expand(1, rows, draws).float(), seed=7)
    expected = logits.softmax(0) * draws
    chi = ((index.flatten().bincount(minlength=rows) - expected) ** 2 / expected).sum()
    assert chi < {7: 22.5, 300: 379.0}[rows]


def test_draw_of_an_extreme_softmax_never_picks_what_has_no_weight() -> None:
    scores = torch.full((1, 300, 2000), -1e9)
    scores[:, 133] = 0.0
    assert (softmax_draw(scores)[1] == 133).all()
    mask = torch.zeros(1, 300, dtype=torch.bool)
    mask[0, 299] = True
    assert (softmax_draw(scores, mask=mask)[1] == 299).all()


@pytest.mark.parametrize("per", ["feature", "head"])
def test_gradient_of_a_draw_goes_to_the_drawn_value_only(per: str) -> None:
    torch.manual_seed(4)
    scores = torch.randn(2, 5, 3, requires_grad=True)
    values = torch.randn(2, 5, 3, requires_grad=True)
    pooled, index = softmax_draw(scores, values, per=per)  # type: ignore[arg-type]
    weight = torch.randn_like(pooled)
    (pooled * weight).sum().backward()
    assert scores.grad is None
    expected = torch.zeros_like(values)
    for b in range(2):
        for k in range(3):
            if per == "feature":
                assert pooled[b, k] == values[b, index[b, k], k]
                expected[b, index[b, k], k] += weight[b, k]
            else:
                assert torch.equal(pooled[b, k], values[b, index[b, k]])
                expected[b, index[b, k]] += weight[b, k]
    torch.testing.assert_close(values.grad, expected)


def test_the_seed_decides_the_draw() -> None:
    scores = torch.randn(3, 200, 20)
    torch.manual_seed(5)
    first = softmax_draw(scores)[1]
    torch.manual_seed(5)
    assert torch.equal(first, softmax_draw(scores)[1])
    assert not torch.equal(first, softmax_draw(scores)[1])
    given = [softmax_draw(scores, generator=torch.Generator().manual_seed(6))[1] for _ in range(2)]
    assert torch.equal(*given)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_worse_than_rounding(dtype: torch.dtype) -> None:
    torch.manual_seed(6)
    scores, values = torch.randn(2, 50, 8, dtype=dtype), torch.randn(2, 50, 8, dtype=dtype)
    for per in ("feature", "head"):
        pooled = softmax_pool(scores, values, per=per)
        assert pooled.dtype == dtype
        exact = formula(scores.double(), values.double(), per)
        torch.testing.assert_close(
            pooled.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=1e-3
        )


@pytest.mark.parametrize("kind", ["own", "feature", "head", "packed"])
def test_operators_keep_their_promises_to_pytorch(kind: str) -> None:
    scores = torch.randn(*((9,) if kind == "packed" else (3, 6)), 4, requires_grad=True)
    values = None if kind == "own" else torch.randn(scores.shape, requires_grad=True)
    mask = torch.rand(3, 6) < 0.8 if kind == "feature" else None
    offsets = torch.tensor([0, 4, 4, 9]) if kind == "packed" else None
    arguments = (scores, values, mask, offsets, kind == "head")
    torch.library.opcheck(torch.ops.headwise.softmax_pool.default, arguments)
    torch.library.opcheck(
        torch.ops.headwise.softmax_draw.default, (scores.detach(), torch.tensor(1), mask, offsets)
    )
    decomposed = plain_decompositions()[torch.ops.headwise.softmax_pool.default](*arguments)
    for a, b in zip(torch.ops.headwise.softmax_pool(*arguments), decomposed):
        torch.testing.assert_close(a, b)


def test_compiled_and_exported() -> None:
    scores = torch.randn(2, 9, 4, requires_grad=True)

    def both(x: Tensor, seed: Tensor) -> Tensor:
        return softmax_pool(x) + softmax_draw(x, seed=seed)[0]

    seed = torch.tensor(8)
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(scores, seed), both(scores, seed))
    gradients = [torch.autograd.grad(f(scores, seed).sum(), scores)[0] for f in (both, compiled)]
    torch.testing.assert_close(*gradients)

    class Module(torch.nn.Module):
        forward = staticmethod(both)

    program = torch.export.export(
        Module(), (scores, seed), dynamic_shapes=({1: torch.export.Dim("n", min=2)}, None)
    )
    longer = torch.randn(2, 50, 4)
    torch.testing.assert_close(program.module()(longer, seed), both(longer, seed))


@pytest.mark.parametrize(
    ("scores", "options", "said"),
    [
        (torch.zeros(3, 4), {}, "scores must be"),
        (torch.zeros(1, 3, 4), {"per": "row"}, "per must be"),
        (torch.zeros(1, 3, 4), {"per": "head"}, "needs values"),
        (torch.zeros(1, 3, 4), {"values": torch.zeros(1, 2, 4)}, "do not fit"),
        (torch.zeros(1, 3, 4), {"mask": torch.ones(1, 3)}, "mask must be bool"),
        (torch.zeros(3, 4), {"offsets": torch.tensor([0.0, 3.0])}, "offsets must be int64"),
        (
            torch.zeros(1, 3, 4),
            {"offsets": torch.tensor([0, 3]), "mask": torch.ones(1, 3) > 0},
            "scores must be",
        ),
        (
            torch.zeros(3, 4),
            {"offsets": torch.tensor([0, 3]), "mask": torch.ones(1, 3) > 0},
            "not both",
        ),
    ],
)
def test_mistakes_are_named(scores: Tensor, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        softmax_pool(scores, **options)
