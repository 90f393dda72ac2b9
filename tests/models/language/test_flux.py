"""Routers of layers: what they look at, what a sparse layer reads, and what is learned."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from headwise.models.language.plans.plan import Plan
from headwise.models.language.search.flux import (
    FluxRouter,
    decide,
    pooled_tokens,
    route,
    router,
    straight_through,
    temperature,
)
from headwise.tests.models.language.tiny_models import shared_model, texts, tiny_model

LENGTH, START, STOP = 26, 17, 23


def batch(rows: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, mask and answers: the first row has padding before it, the last behind it."""
    ids = texts(rows, LENGTH)
    mask = torch.ones_like(ids, dtype=torch.bool)
    answer = torch.zeros_like(mask)
    answer[:, START:STOP] = True
    mask[0, :5] = False
    mask[-1, STOP:] = False
    return ids, mask, answer


def module_of(kind: str = "llama", seed: int = 0, **options: object) -> FluxRouter:
    model, sizes = shared_model(kind), {"sink": 2, "window": 4, **options}
    torch.manual_seed(seed)  # after a model that is made here, which draws
    return FluxRouter(model, **sizes)


def made_to_choose(module: FluxRouter) -> FluxRouter:
    """Routers whose choice depends on the prompt."""
    with torch.no_grad():
        for network in module.routers.values():
            for place, weight in enumerate(network.parameters()):
                weight.normal_(0, 1.5 if weight.ndim > 1 else 0.5)
                weight.mul_(0.4 if place < 2 else 1)
    return module


def answer_loss(logits: Tensor, ids: Tensor, answer: Tensor) -> Tensor:
    """Mean over rows of the mean cross entropy of answer tokens."""
    rows = []
    for row in range(len(ids)):
        places = answer[row].nonzero()[:, 0]
        log_p = logits[row, places - 1].log_softmax(-1)
        rows.append(-log_p[torch.arange(len(places)), ids[row, places]].mean())
    return torch.stack(rows).mean()


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3"])
def test_a_new_router_leaves_the_model_as_it_is(kind: str) -> None:
    module, (ids, mask, answer) = module_of(kind).eval(), batch()
    with torch.no_grad():
        logits = shared_model(kind)(input_ids=ids, attention_mask=mask.long()).logits
        parts = module(ids, mask, answer)
    assert module.decisions(ids, mask).all()
    assert parts.sparsity == 0
    torch.testing.assert_close(parts.language, answer_loss(logits, ids, answer))


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_sparse_layers_read_first_tokens_and_a_window_of_the_real_ones(kind: str) -> None:
    module, (ids, mask, answer) = module_of(kind).eval(), batch()
    for network in module.routers.values():
        with torch.no_grad():
            network[-1].bias.copy_(torch.tensor([9.0, 0.0]))
    # The same by the model's own function and a mask of pairs, row by row and pair by pair.
    pairs = torch.zeros(len(ids), 1, LENGTH, LENGTH, dtype=torch.bool)
    for row in range(len(ids)):
        tokens = mask[row].nonzero()[:, 0].tolist()
        for place, query in enumerate(tokens):
            for other, key in enumerate(tokens[: place + 1]):
                pairs[row, 0, query, key] = other < 2 or place - other < 4
    positions = (mask.long().cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        expected = shared_model(kind)(
            input_ids=ids, attention_mask=pairs, position_ids=positions
        ).logits
        parts = module(ids, mask, answer)
    assert parts.sparsity == 1
    torch.testing.assert_close(parts.language, answer_loss(expected, ids, answer))
    assert not module.decisions(ids, mask).any()


def test_it_learns_under_autocast_and_counts_in_32_bits() -> None:
    module = FluxRouter(tiny_model("llama"), sink=2, window=4, targets=(1.0,), rate=1e-4)
    before = module.multipliers.clone()
    with torch.autocast("cpu", torch.bfloat16):
        module.train().loss(*batch()).backward()
    assert all(weight.grad is not None for weight in module.routers.parameters())
    module.bfloat16().loss(*batch())
    assert module.multipliers.dtype == torch.float32
    assert (module.multipliers > before).all()


def test_a_layer_with_a_window_has_no_router() -> None:
    module = module_of("gemma3")
    assert sorted(module.routers) == ["1", "2"]
    assert module.plan().routed == (False, True, True)
    assert module.decisions(*batch()[:2])[:, 0].all()


def test_both_ends_of_a_prompt_are_pooled_and_short_prompts_once() -> None:
    present = torch.zeros(3, 12, dtype=torch.bool)
    present[0, 1:11] = True
    present[1, :5] = True
    pooled = pooled_tokens(present, 3)
    assert pooled[0].nonzero()[:, 0].tolist() == [1, 2, 3, 8, 9, 10]
    assert pooled[1].nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert not pooled[2].any()


def test_the_router_is_a_network_of_the_mean_of_pooled_queries() -> None:
    network = router(8)
    torch.manual_seed(0)
    torch.nn.init.normal_(network[-1].weight)
    tensors = {f"4.{name}": weight for name, weight in network.state_dict().items()}
    queries, present = torch.randn(2, 40, 3, 8), torch.ones(2, 40, dtype=torch.bool)
    expected = network(queries.mean((1, 2)))  # fewer than 300 tokens: all of them
    torch.testing.assert_close(route(tensors, 4, queries, present), expected)
    assert torch.equal(decide(tensors, 4, queries, present), expected.argmax(1).bool())


def test_only_pooled_tokens_count() -> None:
    tensors = {f"0.{name}": weight for name, weight in router(8).state_dict().items()}
    torch.manual_seed(0)
    tensors = {name: torch.randn_like(weight) for name, weight in tensors.items()}
    queries, present = torch.randn(1, 340, 3, 8), torch.ones(1, 340, dtype=torch.bool)
    before = route(tensors, 0, queries, present)
    middle = queries.clone()
    middle[:, 150:190] = middle[:, 150:190].flip(1) * 3
    assert torch.equal(route(tensors, 0, middle, present), before)
    for place in (149, 190):
        ends = queries.clone()
        ends[:, place] += 1
        assert not torch.allclose(route(tensors, 0, ends, present), before)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3"])
def test_decisions_are_the_same_alone_and_with_padding_on_either_side(kind: str) -> None:
    module = made_to_choose(module_of(kind, seed=1))
    lengths, ids = (26, 11, 7, 19), texts(4, LENGTH)
    alone = [
        module.decisions(ids[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool))
        for row, length in enumerate(lengths)
    ]
    assert 0 < torch.cat(alone).float().mean() < 1
    assert len({tuple(row.flatten().tolist()) for row in alone}) > 1
    for side in ("left", "right"):
        padded, mask = torch.zeros_like(ids), torch.zeros(4, LENGTH, dtype=torch.bool)
        for row, length in enumerate(lengths):
            place = slice(LENGTH - length, None) if side == "left" else slice(length)
            padded[row, place], mask[row, place] = ids[row, :length], True
        assert torch.equal(module.decisions(padded, mask), torch.cat(alone))


def test_answers_take_no_part_in_the_choice() -> None:
    ids, mask, answer = batch()
    prompt = mask & (answer.cumsum(1) == 0)
    shares = []
    for seed in range(8):
        module = made_to_choose(module_of(seed=seed)).eval()
        share = 1 - module.decisions(ids, prompt).float().mean()
        for row in (ids, torch.where(answer, texts(3, LENGTH, seed=9), ids)):
            assert module(row, mask, answer).sparsity == pytest.approx(float(share))
        shares.append(float(share) - float(1 - module.decisions(ids, mask).float().mean()))
    assert any(shares)  # where answers are pooled, some choices are others


def test_the_choice_is_hard_and_its_gradient_that_of_the_soft_choice() -> None:
    noise = torch.rand(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits = torch.linspace(-2, 2, 10, dtype=torch.float64).view(5, 2).requires_grad_()
    chosen = straight_through(logits, noise, 1.3)
    assert set(chosen.tolist()) <= {0.0, 1.0}
    assert len(set(chosen.tolist())) == 2
    gumbel = -(-noise.log()).log()
    assert torch.equal(chosen.bool(), (logits + gumbel).argmax(1).bool())
    soft = ((logits + gumbel) / 1.3).softmax(1)[:, 1]
    for x, y in zip(
        torch.autograd.grad(chosen.sum(), logits), torch.autograd.grad(soft.sum(), logits)
    ):
        torch.testing.assert_close(x, y)


def test_noise_chooses_as_often_as_the_logits_say() -> None:
    noise = torch.rand(200_000, 2, generator=torch.Generator().manual_seed(0))
    logits = torch.tensor([0.0, 1.0]).expand(200_000, 2)
    share = float(straight_through(logits, noise, 1.5).mean())
    assert share == pytest.approx(float(torch.tensor(1.0).sigmoid()), abs=5e-3)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_layers_that_are_computed_again_give_the_same_gradients(kind: str) -> None:
    noise = torch.rand(3, 3, 2, generator=torch.Generator().manual_seed(3))
    gradients = []
    for recompute in (True, False):
        module = module_of(kind, seed=1, recompute=recompute).train()
        for network in module.routers.values():
            torch.nn.init.normal_(network[-1].weight)
            torch.nn.init.zeros_(network[-1].bias)
        module.begin(0.2)
        parts = module(*batch(), noise=noise)
        assert 0 < parts.sparsity < 1
        parts.loss.backward()
        gradients.append([weight.grad for weight in module.parameters()])
        assert all(weight.grad is None for weight in module.base.parameters())
        assert module.base.config._attn_implementation == "sdpa"
        assert "forward" not in vars(module.base.base_model.layers[0])
    for x, y in zip(*gradients):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-7)
    assert max(float(gradient.abs().max()) for gradient in gradients[0]) > 1e-4


def test_multipliers_grow_where_a_kind_is_denser_than_asked_and_shrink_where_sparser() -> None:
    module, (ids, mask, answer) = module_of(targets=(0.0, 1.0, 0.5), rate=0.1).train(), batch()
    noise = torch.tensor([0.001, 0.999]).expand(3, 3, 2).clone()  # full
    noise[0] = torch.tensor([0.999, 0.001])  # the first prompt: sparse
    before = module.multipliers.clone()
    parts = module(ids, mask, answer, kind=torch.tensor([0, 1, 1]), noise=noise)
    assert float(parts.sparsity.detach()) == pytest.approx(1 / 3)
    assert float(parts.penalty.detach()) == pytest.approx(2 / 3 * 0.5)
    torch.testing.assert_close(
        module.multipliers - before, torch.tensor([[-0.1, -0.1], [0.1, 0.1], [0.0, 0.0]])
    )
    for _ in range(4):
        module(ids, mask, answer, kind=torch.tensor([0, 1, 1]), noise=noise)
    assert float(module.multipliers.min()) == 0


def test_the_penalty_pulls_towards_sparse_layers() -> None:
    module = module_of(targets=(1.0,)).train()
    parts = module(*batch(), noise=torch.full((3, 3, 2), 0.5))
    assert parts.sparsity == 0
    parts.penalty.backward()
    for network in module.routers.values():
        sparse, full = network[-1].bias.grad.tolist()
        assert sparse < 0 < full


def test_training_reaches_the_target() -> None:
    torch.manual_seed(0)
    module = module_of(targets=(1.0,), rate=1.0, recompute=False).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02)
    steps = 40
    for step in range(steps):
        module.begin(step / steps)
        optimizer.zero_grad()
        module.loss(*batch(1)).backward()
        optimizer.step()
    assert module.eval()(*batch(1)).sparsity == 1


def test_the_temperature_falls_along_a_cosine() -> None:
    assert [temperature(share) for share in (0, 0.3, 0.6, 1)] == [
        1.5,
        pytest.approx(1.25),
        pytest.approx(1.0),
        pytest.approx(1.0),
    ]


def test_the_state_is_what_is_learned_and_the_model_stays_as_it_is() -> None:
    model = tiny_model("llama")
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    module = FluxRouter(model, sink=2, window=4).train()
    names = {name.split(".")[0] for name in module.state_dict()}
    assert names == {"routers", "targets", "multipliers"}
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    module.loss(*batch()).backward()
    optimizer.step()
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_the_same_seed_gives_the_same_loss() -> None:
    losses = []
    for _ in range(2):
        module = made_to_choose(module_of(seed=1)).train()
        torch.manual_seed(5)
        losses.append(float(module.loss(*batch()).detach()))
    assert losses[0] == losses[1]


def test_a_plan_decides_as_the_module_after_it_is_read_again(tmp_path: Path) -> None:
    module, (ids, mask, _) = made_to_choose(module_of(seed=1)), batch()
    module.plan(fitted_on={"prompts": 3}).write(tmp_path / "plan.json")
    plan = Plan.read(tmp_path / "plan.json")
    assert plan.method == "flux"
    assert plan.routed == (True, True, True)
    assert plan.rule(0, 0) == module.rule
    assert plan.router is not None
    again = module_of(seed=7)
    again.routers.load_state_dict(plan.router)
    assert torch.equal(again.decisions(ids, mask), module.decisions(ids, mask))
    queries, present = torch.randn(2, 9, 6, 8), torch.ones(2, 9, dtype=torch.bool)
    assert torch.equal(
        decide(plan.router, 1, queries, present), decide(module.tensors(), 1, queries, present)
    )


def test_what_does_not_fit_is_refused_in_a_line() -> None:
    for options, message in (
        ({"targets": ()}, "shares between 0 and 1"),
        ({"targets": (1.5,)}, "shares between 0 and 1"),
        ({"window": 0}, "a window of a token"),
    ):
        with pytest.raises(ValueError, match=message):
            module_of(**options)
    windows = tiny_model("gemma3", layer_types=["sliding_attention"] * 3)
    with pytest.raises(ValueError, match="nothing to route"):
        FluxRouter(windows, sink=2, window=4)
