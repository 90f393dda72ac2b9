"""star_core against its formula at the same draws."""

import pytest
import torch
from torch import Tensor

from headwise.kernels.softmax_pool import new_seed
from headwise.kernels.star_core import cpu, forms, naive, star_core
from headwise.tests.kernels.agreement import assert_agree
from headwise.tests.kernels.layouts import check_layouts
from headwise.tests.kernels.waiting import Called, assert_never_waits


def parameters(width: int, core: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    shapes = ((width + 1, width), (width + 1,), (core, width + 1), (core,))
    return [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes]


# (bags, tokens, core): one product; gathers over all rows; gathers over the drawn rows; several
# slices; one token
CASES = [(3, 9, 5), (2, 40, 64), (3, 200, 7), (5, 900, 11), (2, 1, 4)]


def test_the_cases_reach_all_three_ways_of_the_backward_pass() -> None:
    assert 9 <= cpu.FEW_TOKENS < 40
    assert [tokens > cpu.kept_per_bag(tokens, core) for _, tokens, core in CASES[1:3]] == [0, 1]


@pytest.fixture(params=["cpu", "device", "no embedding_bag"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the CPU, as on a GPU, and as on a device without `embedding_bag`."""
    if request.param != "cpu":
        monkeypatch.setattr(cpu, "counts_rows", lambda x: False)
    if request.param == "no embedding_bag":
        monkeypatch.setattr(cpu, "gathers", lambda x: False)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients_are_the_formulas_at_the_same_draws(
    case: tuple[int, int, int], masked: bool
) -> None:
    torch.manual_seed(1)
    bags, tokens, core_width = case
    x = torch.randn(bags, tokens, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(bags, tokens) < 0.5 if masked else None
    if mask is not None:
        mask[0] = False
    weights = parameters(6, core_width)
    core, index = star_core(x, *weights, mask=mask)
    if mask is not None:
        alive = mask.any(1)
        assert torch.equal(index[:, 0] == -1, ~alive)
        assert mask[alive].gather(1, index[alive]).all()
    expected = naive.star_core(naive.scores(x, *weights), index)
    assert_agree(core, expected, [x, *weights], rtol=1e-9, atol=1e-9)


def test_draws_follow_the_softmax() -> None:
    """Chi-square over 20,000 equal core features; the bound is the 0.999 quantile."""
    torch.manual_seed(2)
    x = torch.randn(1, 4, 3)
    w1, b1, w2, b2 = (w.detach() for w in parameters(3, 1, torch.float32))
    index = star_core(x, w1, b1, w2.expand(20_000, -1), b2.expand(20_000), seed=3)[1]
    expected = naive.scores(x, w1, b1, w2, b2)[0, :, 0].softmax(0) * 20_000
    counts = index.flatten().bincount(minlength=4)
    assert ((counts - expected) ** 2 / expected).sum() < 16.3


def test_the_seed_decides_the_draw() -> None:
    x, weights = torch.randn(2, 50, 6), parameters(6, 5, torch.float32)
    assert torch.equal(star_core(x, *weights, seed=1)[1], star_core(x, *weights, seed=1)[1])


def test_padding_that_is_nan_reaches_no_gradient_by_a_place_that_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu, "counts_rows", lambda x: False)
    x, weights = torch.randn(2, 50, 6), parameters(6, 5, torch.float32)
    mask = torch.ones(2, 50, dtype=torch.bool)
    mask[:, 0] = False
    x[:, 0] = torch.nan
    core, _ = star_core(x.requires_grad_(), *weights, mask=mask)
    gradients = torch.autograd.grad(core.sum(), [x, *weights])
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_bag_with_nan_gives_nan_and_leaves_the_others() -> None:
    x = torch.randn(2, 50, 6)
    x[0, 3] = torch.nan
    core, index = star_core(x, *parameters(6, 5, torch.float32))
    assert core[0].isnan().all()
    assert (index[0] == -2).all()
    assert core[1].isfinite().all()


@pytest.mark.parametrize("shape", [(2, 0, 6), (0, 3, 6)])
def test_without_tokens_or_bags_the_core_is_zero(shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape, requires_grad=True)
    core, index = star_core(x, *parameters(6, 5, torch.float32))
    assert core.shape == (shape[0], 5)
    assert (core == 0).all()
    assert (index == -1).all()
    assert torch.autograd.grad(core.sum(), x)[0].shape == shape


def test_half_precision_and_autocast() -> None:
    x, weights = torch.randn(2, 50, 6), parameters(6, 5, torch.float32)
    half = [w.detach().bfloat16().requires_grad_() for w in weights]
    core, _ = star_core(x.bfloat16(), *half)
    assert torch.autograd.grad(core.float().sum(), half[0])[0].isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        core, _ = star_core(x, *weights)
    assert core.dtype == torch.bfloat16
    assert torch.autograd.grad(core.float().sum(), weights[0])[0].dtype == torch.float32


@pytest.mark.parametrize("case", CASES)
def test_a_gpu_never_waits_for_the_host(case: tuple[int, int, int]) -> None:
    bags, tokens, core_width = case
    x = torch.randn(bags, tokens, 6)
    weights = [weight.detach() for weight in parameters(6, core_width, torch.float32)]
    mask = torch.ones(bags, tokens, dtype=torch.bool)

    def step(x: Tensor, mask: Tensor, *weights: Tensor) -> None:
        core, index, hidden = cpu.forward(x, *weights, new_seed(x.device), mask)
        gradients = cpu.backward(core, x, *weights, index, hidden)
        assert [g.shape for g in gradients] == [t.shape for t in (x, *weights)]

    assert_never_waits(step, x, mask, *weights)
    with Called() as called:
        core, index, hidden = cpu.forward(x, *weights, torch.tensor(1), mask)
        cpu.backward(core, x, *weights, index, hidden)
    # The CPU asks how many rows were drawn, where fewer than all are kept.
    asked = any("unique" in name for name in called.waits())
    assert asked == (tokens > cpu.kept_per_bag(tokens, core_width))


def test_forms_say_which_backward_pass_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(tokens: int, core: int) -> str:
        return next(f.name for f in forms(torch.zeros(1, tokens, 6), core) if not f.refused)

    assert "dense" in taken(9, 5)
    assert "drawn rows" in taken(200, 7)
    assert "fixed number" in taken(40, 64)
    monkeypatch.setattr(cpu, "counts_rows", lambda x: False)
    assert "fixed number" in taken(200, 7)


@pytest.mark.parametrize("sizes", [(3, 9), (3, 40), (2, 0), (0, 3)])
def test_tensors_may_lie_in_memory_in_any_way(sizes: tuple[int, int]) -> None:
    x, weights = torch.randn(*sizes, 6), parameters(6, 5, torch.float32)
    operator = torch.ops.headwise.star_core.default
    check_layouts(operator, (x, *weights, torch.tensor(4), torch.rand(sizes) < 0.6))


@pytest.mark.parametrize("case", CASES[:3])
def test_the_operator_keeps_its_promises_to_pytorch(case: tuple[int, int, int]) -> None:
    bags, tokens, core_width = case
    x = torch.randn(bags, tokens, 6, requires_grad=True)
    weights = parameters(6, core_width, torch.float32)
    arguments = (x, *weights, torch.tensor(4), None)
    torch.library.opcheck(torch.ops.headwise.star_core.default, arguments)
    compiled = torch.compile(star_core, fullgraph=True, backend="aot_eager")
    assert_agree(compiled(x, *weights, seed=5)[0], star_core(x, *weights, seed=5)[0], [x])


def test_shapes_that_do_not_fit_are_refused() -> None:
    x, weights = torch.zeros(2, 3, 6), parameters(6, 5, torch.float32)
    with pytest.raises(ValueError, match="do not fit"):
        star_core(x[..., :5], *weights)
    with pytest.raises(ValueError, match="mask must be bool"):
        star_core(x, *weights, mask=torch.ones(2, 3))
