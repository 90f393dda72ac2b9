"""Read-outs by PyTorch's fused attention against their formula. The CPU's fused operator stands for
that of a GPU, whose arguments are checked on tensors without values.
"""

import math

import pytest
import torch
from torch import Tensor

from headwise.kernels import attention_stats as package
from headwise.kernels import fused_attention
from headwise.kernels.attention_stats import attention_stats, forms, fused, naive

READ_OUTS = ("output", "lse", "entropy", "key_mass")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Forward and backward passes are fused wherever the mechanism allows it; which were."""
    calls: list[str] = []
    for name, form in (("stats", fused.stats), ("backward", fused.backward)):
        run = lambda *x, name=name, form=form: (calls.append(name), form(*x))[1]  # noqa: E731
        monkeypatch.setattr(fused, name, run)
    monkeypatch.setattr(fused_attention, "refused", lambda *_: "")
    monkeypatch.setattr(fused, "_slow", lambda *_: "")
    plain = fused._refused

    def of_any_type(query: Tensor, *rest: object) -> str:
        return plain(query.to(torch.bfloat16), *rest)

    monkeypatch.setattr(fused, "_refused", of_any_type)
    return calls


def inputs(
    dtype: torch.dtype = torch.float64, n: int = 5, m: int = 7, groups: int = 2, values: int = 3
) -> list[Tensor]:
    torch.manual_seed(n + m)
    shapes = ((2, 4, n, 6), (2, groups, m, 6), (2, groups, m, values))
    return [torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def formula(parts: list[Tensor], mask: Tensor | None, marks: Tensor, causal: bool) -> list[Tensor]:
    numbers = marks[:, None].to(parts[0].dtype)
    allowed = None if mask is None else mask[:, None, None]
    results = naive.attention_stats(*parts, allowed, numbers, None, 0.4, causal, True, False, 0)
    return [results[0], results[1], results[2], results[4]]


def finite(lse: Tensor) -> Tensor:
    return lse.masked_fill(lse == -math.inf, 0.0)


SIZES = ((5, 7, 2, 3), (9, 9, 4, 6), (1, 1, 1, 1), (33, 33, 2, 17), (65, 130, 4, 1))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("n", "m", "groups", "values"), SIZES)
@pytest.mark.parametrize("causal", [False, True])
def test_values_and_gradients_are_those_of_the_formula(
    taken: list[str], n: int, m: int, groups: int, values: int, causal: bool, masked: bool
) -> None:
    parts, marks = inputs(n=n, m=m, groups=groups, values=values), torch.rand(2, m) < 0.5
    mask = torch.rand(2, m) < 0.6 if masked else None
    if mask is not None:
        mask[0] = False  # a sample without a key
    square = n == m or not causal
    options = {"mask": mask, "causal": causal, "scale": 0.4, "keys": marks}
    right = formula(parts, mask, marks, causal)
    smooth = attention_stats(*parts, want=("lse", "key_mass"), **options)
    exact = attention_stats(*parts, want=("lse", "key_mass", "entropy"), **options)
    assert taken == ["stats"] * square
    for place, name in ((0, "output"), (1, "lse"), (3, "key_mass")):
        torch.testing.assert_close(getattr(smooth, name), right[place])
    results = [finite(getattr(exact, name)) for name in READ_OUTS]
    slopes = [torch.randn_like(x) for x in results]
    expected = torch.autograd.grad([finite(x) for x in right], parts, slopes)
    got = torch.autograd.grad(results, parts, slopes)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    assert taken == ["stats", "backward"] * square


@pytest.mark.parametrize("chosen", [(0,), (1,), (2,), (3,), (1, 2), (0, 3)])
def test_each_gradient_alone(taken: list[str], chosen: tuple[int, ...]) -> None:
    parts, marks = inputs(), torch.rand(2, 7) < 0.5
    stats = attention_stats(*parts, want=READ_OUTS[1:], keys=marks, scale=0.4)
    right = formula(parts, None, marks, False)
    results = [getattr(stats, READ_OUTS[place]) for place in chosen]
    slopes = [torch.randn_like(x) for x in results]
    options = {"allow_unused": True, "materialize_grads": True}
    got = torch.autograd.grad(results, parts, slopes, **options)
    expected = torch.autograd.grad([right[place] for place in chosen], parts, slopes, **options)
    torch.testing.assert_close(got, expected)
    assert taken == ["backward"]


@pytest.mark.parametrize("want", [("lse",), ("entropy",), ("lse", "entropy", "key_mass")])
def test_gradients_without_values(taken: list[str], want: tuple[str, ...]) -> None:
    (query, key, value), marks = inputs(), torch.rand(2, 7) < 0.5
    stats = attention_stats(query, key, want=want, keys=marks, scale=0.4)
    right = dict(zip(READ_OUTS, formula([query, key, value], None, marks, False)))
    results, exact = [getattr(stats, name) for name in want], [right[name] for name in want]
    slopes = [torch.randn_like(x) for x in results]
    got, expected = (torch.autograd.grad(x, (query, key), slopes) for x in (results, exact))
    torch.testing.assert_close(got, expected)
    assert taken == ["backward"]


def test_what_hidden_keys_hold_is_not_read(taken: list[str]) -> None:
    parts, marks = inputs(), torch.rand(2, 7) < 0.5
    mask = torch.tensor([[True] * 4 + [False] * 3] * 2)
    hidden = ~mask[:, None, :, None]
    behind = [x if x is parts[0] else x.detach().masked_fill(hidden, math.nan) for x in parts]
    options = {"mask": mask, "keys": marks, "want": ("lse", "key_mass"), "scale": 0.4}
    behind = [x.detach().requires_grad_() for x in behind]
    results = [attention_stats(*x, **options) for x in (behind, parts)]
    for name in ("output", "lse", "key_mass"):
        torch.testing.assert_close(getattr(results[0], name), getattr(results[1], name))
    some = [torch.autograd.grad(x.output.sum() + x.key_mass.sum(), y) for x, y in
            zip(results, (behind, parts))]  # fmt: skip
    torch.testing.assert_close(*some)
    assert taken == ["stats"] * 2 + ["backward"] * 2


@pytest.mark.parametrize(("far", "tolerance"), [(1.0, 2e-2), (30.0, 0.1)])
def test_bfloat16_is_as_exact_as_its_scores(taken: list[str], far: float, tolerance: float) -> None:
    """Weights of high and of low entropy: with scores of 30 in bfloat16, one rounding of the
    queries changes the weights by as much.
    """
    parts = inputs(torch.bfloat16, 40, 40, 4, 16)
    parts[0] = (parts[0].detach() * far).requires_grad_()
    marks = torch.rand(2, 40) < 0.5
    stats = attention_stats(*parts, want=READ_OUTS[1:], keys=marks, scale=0.4)
    exact = [x.detach().double().requires_grad_() for x in parts]
    right = formula(exact, None, marks, False)
    results = [getattr(stats, name) for name in READ_OUTS]
    slopes = [torch.randn_like(x) for x in results]
    got = torch.autograd.grad(results, parts, slopes)
    expected = torch.autograd.grad(right, exact, [x.double() for x in slopes])
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == torch.bfloat16
        assert (a.double() - b).norm() / b.norm() < tolerance
    assert taken == ["backward"]


@pytest.mark.parametrize("kind", ["straight", "strided"])
def test_promises_to_the_dispatcher(taken: list[str], kind: str) -> None:
    parts = [x.detach().float().requires_grad_() for x in inputs(n=6, m=6)]
    if kind == "strided":
        parts = [torch.stack([x, x], -1).flatten(-2)[..., ::2] for x in parts]
        parts = [x.detach().requires_grad_() for x in parts]
    numbers = torch.rand(2, 1, 6).round()
    options = numbers, None, 0.4, True, False, False, 0
    torch.library.opcheck(torch.ops.headwise.attention_stats.default, (*parts, None, *options))
    assert set(taken) == {"stats", "backward"}


def test_a_gpu_takes_the_arguments_that_it_gets() -> None:
    """Without values: shapes, types and widths that are multiples of 8 numbers."""
    parts = [x.detach().to("meta") for x in inputs(torch.bfloat16, groups=4)]
    mask = torch.empty(2, 1, 1, 7, dtype=torch.bool, device="meta")
    numbers = torch.empty(2, 1, 7, device="meta")
    output, lse, *_, mass, _, _ = fused.stats(*parts, mask, numbers, 0.4, False)
    assert (output.shape, lse.shape, mass.shape) == ((2, 4, 5, 3), (2, 4, 5), (2, 4, 5))
    assert (output.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
    grads = torch.empty_like(output), lse, lse, lse
    slopes = fused.backward(
        *grads, *parts, mask, numbers, output, lse, lse, lse, scale=0.4, causal=False
    )
    assert [x.shape for x in slopes] == [x.shape for x in parts]
    for x in fused_attention._fitted(parts[0], torch.empty(2, 4, 7, 9, device="meta")):
        assert x.shape[3] == 16
    unaligned = torch.empty(1, 2, 3, 12, device="meta")[..., 4:]
    assert fused_attention._fitted(unaligned)[0].is_contiguous()


def form(module_forms: list) -> str:
    return next(x.name for x in module_forms if not x.refused)


def heads(width: int, dtype: torch.dtype = torch.bfloat16, tokens: int = 6) -> Tensor:
    return torch.empty(1, 1, tokens, width, dtype=dtype)


@pytest.mark.parametrize(
    ("query", "value", "options", "forward", "backward"),
    [
        (heads(64), heads(64), {}, True, True),
        (heads(64), heads(64), {"want": ("key_mass",)}, True, True),
        (heads(64), heads(64), {"want": ("entropy",)}, False, True),
        (heads(64), heads(64), {"want": ("column_mass",)}, False, False),
        (heads(64), heads(64), {"top": 2}, False, True),
        (heads(128), heads(128), {"want": ("entropy",)}, False, False),
        (heads(64), None, {}, False, True),
        (heads(128), None, {"want": ("entropy",)}, False, True),
        (heads(4), heads(4), {}, False, False),
        (heads(64, torch.float16), heads(64, torch.float16), {}, False, False),
        (heads(64, torch.float32), heads(64, torch.float32), {}, False, False),
        (heads(64), heads(64, tokens=9), {"causal": True}, False, False),
        (heads(64), heads(64), {"mask": torch.ones(1, 1, 1, 6, dtype=torch.bool)}, True, True),
        (heads(64), heads(64), {"mask": torch.ones(1, 1, 6, 6, dtype=torch.bool)}, False, False),
    ],
)
def test_on_a_gpu_the_form_is_chosen_by_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
    query: Tensor,
    value: Tensor | None,
    options: dict,
    forward: bool,
    backward: bool,
) -> None:
    assert "fused" not in form(forms(query, value, **options))
    monkeypatch.setattr(fused_attention, "device_refused", lambda _: "")
    monkeypatch.setattr(package, "triton_refused", lambda *_: "")
    usual = "Triton" if value is None or query.shape[2] else "blocks"
    assert ("fused" if forward else usual) in form(forms(query, value, **options))
    top = {"top": options.pop("top", 0)}
    assert ("fused" if backward else "blocks") in form(
        forms(query, value, **options, backward=True)
    )
    want = options.get("want", ())
    marks = query[:, 0, :1, 0] if "key_mass" in want else None
    options = {name: x for name, x in options.items() if name != "want"} | top
    options |= {"entropy": "entropy" in want, "columns": "column_mass" in want, "keys": marks}
    assert package.fits(query, value, **options) == (not forward)


def test_gradients_are_added_in_a_fixed_order_and_the_setting_returns() -> None:
    with fused_attention.repeatable():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
