"""Token-aware pooling, the diversification loss and read-outs of a mechanism, against formulas
written out here.
"""

import math

import pytest
import torch
from torch import Tensor

from headwise.models.attention import build_attention
from headwise.models.attention.base import auxiliary_loss
from headwise.models.attention.diversification import diversification_loss
from headwise.models.attention.grid.tap import TAPAttention, TokenAwarePooling
from headwise.models.attention.softmax import SoftmaxAttention

SIZE = (5, 7)


def pooled(x: Tensor, distance: int, pad: str, mask: Tensor | None = None) -> Tensor:
    """Mean of 3 x 3 cells at such a distance, cell by cell: (B, Y, X, D)."""
    batch, height, width, _ = x.shape
    out = torch.zeros_like(x)
    for b in range(batch):
        for y in range(height):
            for i in range(width):
                cells = [
                    x[b, y + u * distance, i + v * distance]
                    for u in (-1, 0, 1)
                    for v in (-1, 0, 1)
                    if 0 <= y + u * distance < height
                    and 0 <= i + v * distance < width
                    and (mask is None or mask[b, y + u * distance, i + v * distance])
                ]
                count = 9 if pad == "zero" else max(len(cells), 1)
                out[b, y, i] = sum(cells, torch.zeros_like(x[b, y, i])) / count
    return out


def pooling(scales: int, pad: str = "exclude") -> tuple[TokenAwarePooling, Tensor]:
    torch.manual_seed(scales)
    return TokenAwarePooling(6, scales=scales, pad=pad).double(), torch.randn(
        2, 35, 6, dtype=torch.float64
    )


@pytest.mark.parametrize("pad", ["exclude", "zero"])
@pytest.mark.parametrize("masked", [False, True])
def test_pooling_is_the_weighted_sum_of_dilated_means(pad: str, masked: bool) -> None:
    pool, x = pooling(4, pad)
    mask = torch.rand(2, 35) < 0.7 if masked else None
    shares = pool.shares(x, SIZE, mask)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, *SIZE, dtype=torch.float64))
    assert shares.std() > 0.01
    grid = x.view(2, *SIZE, 6)
    square = None if mask is None else mask.view(2, *SIZE)
    pools = [grid, *(pooled(grid, distance, pad, square) for distance in (1, 2, 3))]
    expected = sum(shares[..., s, None] * result for s, result in enumerate(pools))
    torch.testing.assert_close(pool(x, SIZE, mask).view_as(grid), expected, rtol=1e-10, atol=1e-12)


def test_pooling_that_changes_nothing() -> None:
    pool, x = pooling(1)
    assert pool(x, SIZE) is x
    assert not list(pool.parameters())
    pool, x = pooling(4)
    # The convolutions have no bias, so no weights of them give all of every input to pool 0: the
    # shares are set.
    pool.shares = lambda x, size, mask=None: torch.tensor([1.0, 0, 0, 0], dtype=x.dtype).expand(
        2, *size, 4
    )
    torch.testing.assert_close(pool(x, SIZE), x, rtol=0, atol=0)


def test_a_constant_grid_does_not_change_unless_zeros_are_counted() -> None:
    constant = torch.full((2, 35, 6), 3.0, dtype=torch.float64)
    pool, _ = pooling(4)
    torch.testing.assert_close(pool(constant, SIZE), constant, rtol=1e-12, atol=0)
    mask = torch.rand(2, 35) < 0.6
    torch.testing.assert_close(pool(constant, SIZE, mask)[mask], constant[mask], rtol=1e-12, atol=0)
    zero, _ = pooling(4, "zero")
    assert zero(constant, SIZE).view(2, *SIZE, 6)[:, 0, 0].max() < 2.9


def test_pooling_commutes_with_flips_if_its_convolutions_do() -> None:
    pool, x = pooling(4)
    with torch.no_grad():
        for weight in (pool.first.weight, pool.second.weight):
            weight.copy_(weight + weight.flip(-1))
            weight.copy_(weight + weight.flip(-2))
    for dims in ((2,), (1,), (1, 2)):

        def flip(tokens: Tensor, dims: tuple[int, ...] = dims) -> Tensor:
            return tokens.view(2, *SIZE, 6).flip(dims).flatten(1, 2)

        torch.testing.assert_close(pool(flip(x), SIZE), flip(pool(x, SIZE)), rtol=1e-10, atol=1e-12)


def test_masked_cells_have_no_effect_and_gradients_are_right() -> None:
    pool, x = pooling(3)
    mask = torch.rand(2, 35) < 0.6
    filled = torch.where(mask[..., None], x, 100.0)
    torch.testing.assert_close(
        pool(filled, SIZE, mask)[mask], pool(x, SIZE, mask)[mask], rtol=0, atol=0
    )
    small = torch.randn(1, 6, 6, dtype=torch.float64, requires_grad=True)
    allowed = torch.tensor([[True, True, False, True, True, True]])
    assert torch.autograd.gradcheck(lambda a: pool(a, (2, 3), allowed), (small,))


def test_tap_attention_is_attention_of_pooled_tokens() -> None:
    torch.manual_seed(0)
    tap = TAPAttention(6, heads=2).double().eval()
    plain = SoftmaxAttention(6, heads=2).double().eval()
    plain.load_state_dict({k: v for k, v in tap.state_dict().items() if not k.startswith("pool.")})
    x, mask = torch.randn(2, 35, 6, dtype=torch.float64), torch.rand(2, 35) < 0.7
    inner = tap.pool(x, SIZE, mask)
    torch.testing.assert_close(tap(x, mask=mask, size=SIZE), plain(inner, mask=mask))
    torch.testing.assert_close(
        tap.weights(x, mask=mask, size=SIZE), plain.weights(inner, mask=mask)
    )
    stats = tap.readouts(x, mask=mask, size=SIZE, want=("column_mass",))
    torch.testing.assert_close(stats.column_mass, plain.weights(inner, mask=mask).sum(2))
    with pytest.raises(ValueError, match="do not form a square grid"):
        tap(x)
    with pytest.raises(ValueError, match="no grid"):
        tap.packed(x[0], torch.tensor([0, 35]))
    for options in ({"scales": 0}, {"pad": "reflect"}):
        with pytest.raises(ValueError, match="TokenAwarePooling"):
            TAPAttention(6, heads=2, **options)


def heads_of(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys of one head whose softmax (scale 1) is the map (B, N, M), for positive
    weights.
    """
    scores = maps.clamp_min(1e-12).log()
    return scores[:, None], torch.eye(maps.shape[2], dtype=maps.dtype).expand(
        maps.shape[0], 1, -1, -1
    )


def written_out(maps: Tensor, threshold: float) -> Tensor:
    """The loss of maps (B, N, M), one cosine at a time."""
    cosines = []
    limit = threshold / maps.shape[2]
    for weights in maps:
        mean = weights.mean(0)
        mean = torch.where(mean > limit, mean, 0.0)
        for row in weights:
            large = torch.where(row > limit, row, 0.0)
            norm = large.norm() * mean.norm()
            cosines.append(large @ mean / norm if norm > 0 else torch.zeros_like(norm))
    return torch.stack(cosines).mean()


def test_diversification_is_the_mean_cosine() -> None:
    torch.manual_seed(1)
    maps = (2 * torch.randn(2, 6, 6, dtype=torch.float64)).softmax(-1)
    for threshold in (0.0, 1.0, 2.0):
        got = diversification_loss(*heads_of(maps), threshold, scale=1.0)
        torch.testing.assert_close(got, written_out(maps, threshold), rtol=1e-10, atol=1e-12)
        assert 0 < got < 1
    query, key = (
        torch.randn(2, 4, 6, 3, dtype=torch.float64),
        torch.randn(2, 2, 9, 3, dtype=torch.float64),
    )
    weights = (
        torch.einsum("bhnd,bhmd->bhnm", query, key.repeat_interleave(2, 1))
        .div(math.sqrt(3))
        .softmax(-1)
    )
    got = diversification_loss(query, key, 1.0)
    torch.testing.assert_close(got, written_out(weights.mean(1), 1.0), rtol=1e-10, atol=1e-12)


def test_diversification_at_its_ends() -> None:
    same = torch.full((1, 8, 8), 0.02, dtype=torch.float64)
    same[:, :, :2] = 0.44
    assert abs(diversification_loss(*heads_of(same), scale=1.0) - 1.0) < 1e-9
    even, different = (
        torch.full((1, 8, 8), 1 / 8, dtype=torch.float64),
        torch.eye(8, dtype=torch.float64)[None],
    )
    for maps in (even, different):
        query, key = heads_of(maps)
        query.requires_grad_()
        loss = diversification_loss(query, key, scale=1.0)
        assert loss == 0
        assert (torch.autograd.grad(loss, query)[0] == 0).all()


def test_diversification_of_a_batch_is_that_of_its_items_and_padding_does_not_count() -> None:
    torch.manual_seed(2)
    query, key = (
        torch.randn(1, 2, 6, 4, dtype=torch.float64),
        torch.randn(1, 2, 6, 4, dtype=torch.float64),
    )
    peaked = diversification_loss(3 * query, key)
    assert peaked > 0.1
    double = diversification_loss(3 * query.expand(2, -1, -1, -1), key.expand(2, -1, -1, -1))
    torch.testing.assert_close(peaked, double)
    longer = [torch.cat([3 * t, 9 * torch.randn(1, 2, 5, 4)], 2) for t in (query, key / 3)]
    mask = torch.arange(11)[None] < 6
    torch.testing.assert_close(diversification_loss(*longer, mask=mask, queries=mask), peaked)
    nothing = diversification_loss(query, key, mask=torch.zeros(1, 6, dtype=torch.bool))
    assert nothing == 0


def test_its_gradient_separates_the_queries() -> None:
    torch.manual_seed(3)
    query, key = (
        torch.randn(1, 2, 8, 4, dtype=torch.float64),
        torch.randn(1, 2, 8, 4, dtype=torch.float64),
    )
    query += 2.0  # all queries have one direction
    losses = []
    for _ in range(12):
        query.requires_grad_()
        loss = diversification_loss(query, key, 1.0)
        losses.append(loss.item())
        query = (query - 10.0 * torch.autograd.grad(loss, query)[0]).detach()
    assert losses[-1] < losses[0] - 0.02


@pytest.mark.parametrize("name", ["softmax", "tap"])
def test_a_mechanism_leaves_the_loss_in_training_only(name: str) -> None:
    torch.manual_seed(4)
    mechanism = build_attention(name, 16, 4, diversify=0.5)
    with torch.no_grad():
        mechanism.query.weight.mul_(30)
    x, mask = torch.randn(2, 16, 16), torch.rand(2, 16) < 0.7
    out = mechanism(x, mask=mask)
    inner = mechanism.pool(x, (4, 4), mask) if name == "tap" else x
    query, key, _ = mechanism.project(inner, inner)
    expected = 0.5 * diversification_loss(query, key, mask=mask, queries=mask)
    assert expected > 0.01
    torch.testing.assert_close(auxiliary_loss(mechanism), expected)
    gradient = torch.autograd.grad(auxiliary_loss(mechanism), mechanism.query.weight)[0]
    assert gradient.abs().max() > 0
    filled = torch.where(mask[..., None], x, 50.0)
    mechanism(filled, mask=mask)
    torch.testing.assert_close(auxiliary_loss(mechanism), expected)
    torch.testing.assert_close(mechanism.eval()(x, mask=mask), out)
    assert auxiliary_loss(mechanism) is None


@pytest.mark.parametrize("options", [{}, {"kv_heads": 2, "positions": "rotary"}, {"causal": True}])
def test_read_outs_of_a_mechanism(options: dict) -> None:
    torch.manual_seed(5)
    attention = SoftmaxAttention(16, heads=4, **options).double().eval()
    x, context = torch.randn(2, 6, 16).double(), torch.randn(2, 9, 16).double()
    mask, keys = torch.rand(2, 9) < 0.7, torch.rand(2, 9) < 0.5
    weights = attention.weights(x, context, mask=mask)
    want = ("output", "entropy", "column_mass", "key_mass", "class_row")
    stats = attention.readouts(x, context, mask=mask, want=want, keys=keys)
    torch.testing.assert_close(stats.entropy, torch.special.entr(weights).sum(-1))
    torch.testing.assert_close(stats.column_mass, weights.sum(2))
    torch.testing.assert_close(stats.key_mass, (weights * keys[:, None, None]).sum(-1))
    torch.testing.assert_close(stats.class_row, weights[:, :, 0])
    joined = attention.out(stats.output.transpose(1, 2).flatten(2))
    torch.testing.assert_close(joined, attention(x, context, mask=mask))
    assert stats.lse is None
    assert attention.readouts(x).output is None
