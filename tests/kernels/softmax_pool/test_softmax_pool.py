"""softmax_pool and softmax_draw against their formulas, on the CPU."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from headwise.kernels.decompositions import plain_decompositions
from headwise.kernels.softmax_pool import Per, cpu, naive, softmax_draw, softmax_pool
from headwise.tests.kernels.agreement import assert_agree
from headwise.tests.kernels.poisoned import poisoned
from headwise.tests.kernels.waiting import assert_never_waits

KINDS = ["scores", "feature", "head"]  # values: the scores themselves, or per feature or head


def random_inputs(kind: str, *shape: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(sum(shape))
    shapes = [(*shape[:-1], 3) if kind == "head" else shape, shape][: 1 + (kind != "scores")]
    return [torch.randn(size, dtype=dtype, requires_grad=True) for size in shapes]


def mask_of(bags: int, rows: int) -> Tensor:
    """Some rows count, none of the last bag."""
    mask = torch.rand(bags, rows) < 0.7
    mask[-1:] = False
    return mask


@pytest.mark.parametrize("shape", [(3, 33, 17), (5, 1, 8), (0, 4, 3)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients_are_the_formulas(
    shape: tuple[int, int, int], kind: str, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "SLICE_NUMBERS", 1200)  # two bags in the first slice of three
    inputs = random_inputs(kind, *shape)
    scores, values = inputs[0], inputs[1] if len(inputs) > 1 else None
    mask = mask_of(*shape[:2]) if masked else None
    out = softmax_pool(scores, values, per="head" if kind == "head" else "feature", mask=mask)
    expected, _ = naive.softmax_pool(scores, values, mask, None, kind == "head")
    assert_agree(out, expected, inputs, rtol=1e-11, atol=1e-12)
    if mask is None:
        p = scores.softmax(1)
        by_hand = p.mT @ values if kind == "head" else (p * inputs[-1]).sum(1)  # type: ignore[operator]
        torch.testing.assert_close(out, by_hand, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_bags_without_rows_give_zero(kind: str) -> None:
    inputs = random_inputs(kind, 2, 0, 3)
    out = softmax_pool(*inputs, per="head" if kind == "head" else "feature")
    assert out.shape == ((2, 3, 3) if kind == "head" else (2, 3))
    assert (out == 0).all()
    gradients = torch.autograd.grad(out.sum(), inputs)
    assert [x.shape for x in gradients] == [x.shape for x in inputs]


@pytest.mark.parametrize(
    ("kind", "form"), [("scores", "masked"), ("feature", "padded"), ("head", "packed")]
)
def test_gradients_by_differences(kind: str, form: str) -> None:
    inputs = random_inputs(kind, *((9,) if form == "packed" else (3, 6)), 4)
    mask = mask_of(3, 6) if form == "masked" else None
    offsets = torch.tensor([0, 4, 4, 9]) if form == "packed" else None
    per = "head" if kind == "head" else "feature"
    assert torch.autograd.gradcheck(
        lambda *x: softmax_pool(*x, per=per, mask=mask, offsets=offsets), inputs
    )


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
    expected, _ = naive.softmax_pool(scores[mask], values[mask], None, offsets, per == "head")
    torch.testing.assert_close(packed, expected)
    a, i = softmax_draw(scores, values, per=per, mask=mask, seed=3)  # type: ignore[arg-type]
    b, j = softmax_draw(scores[mask], values[mask], per=per, offsets=offsets, seed=3)  # type: ignore[arg-type]
    assert torch.equal(i, j)
    assert torch.equal(a, b)


def test_masked_rows_may_hold_anything() -> None:
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
    pooled, index = softmax_draw(scores)
    assert torch.equal(pooled.isnan(), expected)
    assert torch.equal(index == -2, expected)


@pytest.mark.parametrize("rows", [7, 300])
@pytest.mark.parametrize("masked", [False, True])
def test_draws_are_the_formulas(rows: int, masked: bool) -> None:
    torch.manual_seed(3)
    scores = 3 * torch.randn(2, rows, 50, dtype=torch.float64)
    mask = torch.rand(2, rows) < 0.7 if masked else None
    uniform = cpu.uniforms(torch.tensor(7), (2, 50), torch.float64, scores.device)
    _, index = softmax_draw(scores, mask=mask, seed=7)
    assert torch.equal(index, naive.softmax_draw(scores, mask, uniform))


def test_draws_follow_the_softmax() -> None:
    """Chi-square over rows of 40,000 equal columns; the bound is the 0.999 quantile."""
    torch.manual_seed(3)
    logits = torch.randn(300, dtype=torch.float64)
    _, index = softmax_draw(logits[None, :, None].expand(1, 300, 40_000).float(), seed=7)
    expected = logits.softmax(0) * 40_000
    chi = ((index.flatten().bincount(minlength=300) - expected) ** 2 / expected).sum()
    assert chi < 379.0


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
    by_generator = [
        softmax_draw(scores, generator=torch.Generator().manual_seed(6))[1] for _ in range(2)
    ]
    assert torch.equal(*by_generator)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_worse_than_rounding(dtype: torch.dtype) -> None:
    torch.manual_seed(6)
    scores, values = torch.randn(2, 50, 8, dtype=dtype), torch.randn(2, 50, 8, dtype=dtype)
    for per in ("feature", "head"):
        pooled = softmax_pool(scores, values, per=per)
        assert pooled.dtype == dtype
        exact, _ = naive.softmax_pool(scores.double(), values.double(), None, None, per == "head")
        torch.testing.assert_close(
            pooled.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=1e-3
        )


@pytest.mark.parametrize("packed", [False, True])
def test_drawing_by_a_number_on_a_gpu_never_waits_for_the_host(packed: bool) -> None:
    """A seed that is copied there would."""
    scores = torch.randn(9, 4) if packed else torch.randn(3, 6, 4)
    offsets = torch.tensor([0, 4, 4, 9]) if packed else None

    def draw(scores: Tensor, values: Tensor, offsets: Tensor | None) -> None:
        pooled, index = softmax_draw(scores, values, offsets=offsets, seed=3)
        assert pooled.shape == index.shape == (3, 4)

    assert_never_waits(draw, scores, scores, offsets)


@pytest.mark.parametrize("kind", ["scores", "feature", "head", "packed"])
def test_operators_keep_their_promises_to_pytorch(kind: str) -> None:
    scores = torch.randn(*((9,) if kind == "packed" else (3, 6)), 4, requires_grad=True)
    values = None if kind == "scores" else torch.randn(scores.shape, requires_grad=True)
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


def test_small_scores_without_a_gradient_give_the_same() -> None:
    scores = torch.randn(3, 40, 5)
    with torch.no_grad():
        small = softmax_pool(scores)
    torch.testing.assert_close(softmax_pool(scores.requires_grad_()).detach(), small)


def test_compiled_and_exported() -> None:
    scores = torch.randn(2, 9, 4, requires_grad=True)

    def both(x: Tensor, seed: Tensor) -> Tensor:
        return softmax_pool(x) + softmax_draw(x, seed=seed)[0]

    seed = torch.tensor(8)
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    assert_agree(compiled(scores, seed), both(scores, seed), [scores])

    class Module(torch.nn.Module):
        forward = staticmethod(both)

    program = torch.export.export(
        Module(), (scores, seed), dynamic_shapes=({1: torch.export.Dim("n", min=2)}, None)
    )
    longer = torch.randn(2, 50, 4)
    torch.testing.assert_close(program.module()(longer, seed), both(longer, seed))


@pytest.mark.parametrize(
    ("scores", "options", "message"),
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
def test_arguments_that_do_not_fit_are_refused(scores: Tensor, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        softmax_pool(scores, **options)


def test_packed_bags_that_do_not_fit_their_rows_are_refused() -> None:
    scores = torch.randn(5, 3)
    for ends in ([0, 3, 2, 5], [-1, 5], [0, 6]):
        for operation in (softmax_pool, softmax_draw):
            with pytest.raises(ValueError, match=r"offsets must ascend from 0 to 5, the number of"):
                operation(scores, offsets=torch.tensor(ends))
    with pytest.raises(ValueError, match=r"offsets must be int64 \(bags \+ 1,\)"):
        softmax_pool(scores, offsets=torch.tensor([], dtype=torch.int64))


@pytest.mark.parametrize("per", ["feature", "head"])
def test_rows_of_no_bag_have_gradients_of_zero(per: Per) -> None:
    with poisoned():
        scores, values = (torch.randn(6, 4, requires_grad=True) for _ in range(2))
        softmax_pool(scores, values, per=per, offsets=torch.tensor([1, 3, 5])).sum().backward()
    for x in (scores, values):
        assert x.grad is not None
        assert (x.grad[[0, 5]] == 0).all()
        assert x.grad[1:5].abs().sum() > 0
