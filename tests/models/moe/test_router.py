"""Routers and their losses: values known in closed form, capacity, mixing over tokens,
gradients.
"""

import math

import pytest
import torch
from torch import Tensor

from headwise.models.moe.losses import importance, load_balance, z_loss
from headwise.models.moe.router import Router, Routing
from headwise.models.moe.watch import flip_rate

FLOAT64 = torch.float64


def make(**options) -> Router:
    options = {"width": 6, "experts": 8, "active": 2} | options
    return Router(
        options.pop("width"), options.pop("experts"), options.pop("active"), **options
    ).double()


def uniform(active: int, experts: int = 8, tokens: int = 40) -> Routing:
    """Routing by a router without preferences, whose choices cycle through the experts."""
    start = torch.arange(tokens)[:, None] + torch.arange(active) * (experts // active)
    counts = torch.nn.functional.one_hot(start % experts, experts).sum(0)
    mean = torch.full((experts,), 1 / experts)
    zero = torch.tensor(0.0)
    return Routing(
        torch.full((tokens, active), 1 / active),
        start % experts,
        counts,
        mean,
        zero,
        zero,
        torch.tensor(float(tokens)),
    )


def test_balance_is_one_when_uniform() -> None:
    for active in (1, 2, 4):
        routing = uniform(active)
        assert float(load_balance(routing)) == pytest.approx(1.0)
        assert float(load_balance(routing, "sum")) == pytest.approx(active)
        assert float(load_balance(routing, "first")) == pytest.approx(1.0)
        assert float(importance(routing)) == pytest.approx(0.0)


@torch.no_grad()
def test_balance_is_the_number_of_experts_over_k_when_collapsed() -> None:
    for active, expected in ((1, 8.0), (2, 4.0), (4, 2.0)):
        router = make(active=active, width=1)
        router.gate.weight.copy_(torch.tensor([[60.0]] * active + [[-60.0]] * (8 - active)))
        routing = router.eval()(torch.ones(1, 30, 1, dtype=FLOAT64))
        assert float(load_balance(routing)) == pytest.approx(expected)
        assert float(load_balance(routing, "sum")) == pytest.approx(expected * active)
        assert float(importance(routing)) == pytest.approx(8 / active - 1)


@torch.no_grad()
def test_layers_that_collapse_differently_show_only_one_by_one() -> None:
    values = []
    for sign in (60.0, -60.0):
        router = make(active=1, width=1, experts=2)
        router.gate.weight.copy_(torch.tensor([[sign], [-sign]]))
        values.append(router.eval()(torch.ones(1, 10, 1, dtype=FLOAT64)))
    assert [float(load_balance(v)) for v in values] == pytest.approx([2.0, 2.0])
    joint = (
        (values[0].counts + values[1].counts)[0]
        / 20
        * (values[0].probability + values[1].probability)
        / 2
    )
    assert float(2 * joint.sum()) == pytest.approx(1.0)


@torch.no_grad()
def test_z_loss_and_entropy_of_zero_logits() -> None:
    router = make()
    router.gate.weight.zero_()
    routing = router(torch.randn(2, 5, 6, dtype=FLOAT64))
    assert float(z_loss(routing)) == pytest.approx(math.log(8) ** 2)
    assert float(routing.entropy) == pytest.approx(math.log(8))


def test_a_softmax_after_the_choice_is_normalised_weights() -> None:
    torch.manual_seed(0)
    router, x = make().eval(), torch.randn(2, 7, 6, dtype=FLOAT64)
    routing = router(x)
    logits = router.logits(x).flatten(0, 1)
    best = logits.topk(2)
    assert torch.equal(routing.experts, best.indices)
    torch.testing.assert_close(routing.weights, best.values.softmax(1), rtol=1e-12, atol=1e-12)
    raw = make(normalise=False).eval()
    raw.load_state_dict(router.state_dict())
    torch.testing.assert_close(
        raw(x).weights, logits.softmax(1).gather(1, best.indices), rtol=1e-12, atol=1e-12
    )


def test_the_router_gets_a_gradient_wherever_it_is_allowed() -> None:
    torch.manual_seed(1)
    x = torch.randn(1, 9, 6, dtype=FLOAT64)
    for options in (
        {},
        {"active": 1},
        {"normalise": False},
        {"score": "sigmoid"},
        {"score": "sigmoid", "active": 1},
        {"noise": "gaussian"},
        {"noise": "jitter"},
        {"mixing": "similarity"},
        {"capacity": 1.0},
    ):
        router = make(**options)
        (router(x).weights * torch.randn(9, router.active, dtype=FLOAT64)).sum().backward()
        assert router.gate.weight.grad is not None
        assert router.gate.weight.grad.abs().max() > 1e-9, options
        router.zero_grad()
        load_balance(router(x)).backward()
        assert router.gate.weight.grad.abs().max() > 1e-9, options


def served_by_loops(
    wish: Tensor, score: list[float], limit: int, by_score: bool, experts: int
) -> Tensor:
    order = sorted(range(len(wish)), key=lambda t: (-score[t], t)) if by_score else range(len(wish))
    room, served = [limit] * experts, torch.full_like(wish, experts)
    for k in range(wish.shape[1]):
        for t in order:
            e = int(wish[t, k])
            if e < experts and room[e]:
                room[e] -= 1
                served[t, k] = e
    return served


@pytest.mark.parametrize("priority", ["order", "score"])
@pytest.mark.parametrize("capacity", [0.2, 0.5, 1.0, 8.0])
def test_capacity_serves_as_a_queue_would(priority: str, capacity: float) -> None:
    torch.manual_seed(2)
    x, mask = torch.randn(2, 13, 6, dtype=FLOAT64), torch.rand(2, 13) < 0.8
    free = make(experts=4).eval()
    router = make(experts=4, capacity=capacity, priority=priority).eval()
    router.load_state_dict(free.state_dict())
    everyone, routing = free(x, mask=mask), router(x, mask=mask)
    limit = max(1, int(capacity * 2 * int(mask.sum()) / 4))
    expected = served_by_loops(
        everyone.experts, everyone.weights.amax(1).tolist(), limit, priority == "score", 4
    )
    assert torch.equal(routing.experts, expected)
    assert torch.equal(routing.counts, everyone.counts)
    dropped = expected == 4
    assert (routing.weights[dropped] == 0).all()
    assert torch.equal(routing.weights[~dropped], everyone.weights[~dropped])
    if capacity == 8.0:
        assert torch.equal(routing.experts, everyone.experts)


@torch.no_grad()
def test_the_bias_affects_choices_and_never_weights() -> None:
    torch.manual_seed(3)
    router, x = make(bias_rate=0.002, experts=4), torch.randn(1, 200, 6, dtype=FLOAT64) + 1
    router.gate.weight.normal_(std=0.3)
    first = router.train()(x).counts.sum(0)
    for _ in range(300):
        last = router(x)
    load = last.counts.sum(0).double()
    assert load.std() < 0.3 * first.double().std()
    assert float(router.bias.abs().max()) > 0
    p = router.logits(x).softmax(-1)[0]
    chosen_p = p.gather(1, last.experts)
    torch.testing.assert_close(
        last.weights, chosen_p / chosen_p.sum(1, keepdim=True), rtol=1e-12, atol=1e-12
    )
    before = router.bias.clone()
    router.eval()(x)
    assert torch.equal(router.bias, before)


@torch.no_grad()
def test_the_bias_of_a_router_of_16_bits_moves_by_small_steps() -> None:
    torch.manual_seed(3)
    router = make(bias_rate=0.001, experts=4).to(torch.bfloat16).train()
    assert {name: value.dtype for name, value in router.state_dict().items()} == {
        "gate.weight": torch.bfloat16,
        "bias": torch.float32,
    }
    router.bias += 1.0  # steps below a 256th of it are nothing in bfloat16
    before, x = router.bias.clone(), torch.randn(1, 50, 6, dtype=torch.bfloat16)
    router(x)
    torch.testing.assert_close(
        (router.bias - before).abs().amax(), torch.tensor(0.001), rtol=1e-3, atol=0
    )
    assert router.double().bias.dtype == FLOAT64
    assert make().to("meta").half().bias.is_meta


class TestMixing:
    @torch.no_grad()
    def test_it_is_the_written_formula_and_never_below_the_entropy_it_mixes(self) -> None:
        torch.manual_seed(4)
        x, mask = torch.randn(2, 9, 6, dtype=FLOAT64), torch.rand(2, 9) < 0.7
        mask[:, 0] = True
        for causal in (False, True):
            router = make(mixing="similarity", temperature=0.7, causal=causal).eval()
            router.gate.weight.normal_()
            p = router.logits(x).softmax(-1)
            scores = torch.einsum("bid,ed,bje->bij", x, router.similarity.weight, x) / 0.7
            allowed = mask[:, None].expand(-1, 9, -1)
            allowed = allowed.tril() if causal else allowed
            mix = scores.masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num()
            got = router.mixed(x, p, mask, None)
            torch.testing.assert_close(got, mix @ p, rtol=1e-10, atol=1e-10)
            sums = torch.ones(2, 9, dtype=FLOAT64)
            torch.testing.assert_close(got.sum(-1)[mask], sums[mask], rtol=1e-12, atol=1e-12)
            entropy = torch.special.entr(p).sum(-1)
            mixed = torch.special.entr(got).sum(-1)
            lower = torch.einsum("bij,bj->bi", mix, entropy)
            assert (mixed >= lower - 1e-12)[mask].all()
            assert (mixed <= torch.special.entr(mix).sum(-1) + lower + 1e-12)[mask].all()

    @torch.no_grad()
    def test_mixing_by_the_attention_of_the_preceding_layer(self) -> None:
        torch.manual_seed(5)
        x = torch.randn(2, 5, 6, dtype=FLOAT64)
        query, key = torch.randn(2, 2, 3, 5, 4, dtype=FLOAT64).unbind()
        router = make(mixing="attention").eval()
        p = router.logits(x).softmax(-1)
        maps = (query @ key.transpose(2, 3) / 2).softmax(-1).mean(1)
        torch.testing.assert_close(
            router.mixed(x, p, None, (query, key)), maps @ p, rtol=1e-10, atol=1e-10
        )

    @torch.no_grad()
    def test_a_sharp_similarity_is_the_plain_router_and_equal_tokens_agree(self) -> None:
        torch.manual_seed(6)
        router, plain = make(mixing="similarity", temperature=1e-6).eval(), make().eval()
        plain.gate.load_state_dict(router.gate.state_dict())
        x = torch.nn.functional.normalize(torch.randn(1, 8, 6, dtype=FLOAT64), dim=-1)
        torch.testing.assert_close(router(x).weights, plain(x).weights, rtol=1e-9, atol=1e-9)
        router.temperature = 1.0
        x[0, 3] = x[0, 1]
        routing = router(x)
        assert torch.equal(routing.experts[3], routing.experts[1])

    @torch.no_grad()
    def test_noise_flips_fewer_choices_of_tokens_in_clusters(self) -> None:
        """On the mean of several draws, because all of a cluster at a border may change at once."""
        token = similarity = 0.0
        for seed in range(20):
            torch.manual_seed(seed)
            x = (2 * torch.randn(6, 1, 16) + 0.7 * torch.randn(6, 40, 16)).view(1, 240, 16).double()
            noisy = x + 0.1 * torch.randn_like(x)
            plain = make(width=16).eval()
            plain.gate.weight.normal_()
            mixing = make(width=16, mixing="similarity").eval()  # temperature 4
            mixing.gate.load_state_dict(plain.gate.state_dict())
            token += flip_rate(plain(x), plain(noisy))
            similarity += flip_rate(mixing(x), mixing(noisy))
        assert similarity < 0.85 * token

    def test_flips_are_counted_by_sets_without_padding(self) -> None:
        torch.manual_seed(3)
        routing = make(experts=4)(torch.randn(1, 4, 6, dtype=FLOAT64))
        first = torch.tensor([[0, 1], [1, 2], [2, 3], [4, 4]])
        second = torch.tensor(
            [[1, 0], [1, 3], [2, 3], [4, 4]]
        )  # order does not count, 4 means no expert
        assert flip_rate(
            routing._replace(experts=first), routing._replace(experts=second)
        ) == pytest.approx(1 / 3)
        with pytest.raises(ValueError, match="flip_rate: choices"):
            flip_rate(routing, routing._replace(experts=first[:2]))
