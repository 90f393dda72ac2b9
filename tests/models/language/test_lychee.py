"""Roles of heads: what decoding with sets of keys reads, and what is learned."""

import pytest
import torch
from torch import Tensor

from headwise.models.language.plans.rules import Budget
from headwise.models.language.running.replaced import plain_attention, replaced_attention
from headwise.models.language.search.lychee import LycheeRoles, _Mixing, ramped_target
from headwise.tests.models.language.tiny_models import shared_model, texts, tiny_model

LENGTH, START, STOP = 26, 17, 23
SMALL = Budget(keys=7, sink=2, recent=3)


def batch(rows: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, mask and answers: the first row has padding before it, the last behind it."""
    ids = texts(rows, LENGTH)
    mask = torch.ones_like(ids, dtype=torch.bool)
    answer = torch.zeros_like(mask)
    answer[:, START:STOP] = True
    mask[0, :5] = False
    answer[0, START : START + 2] = False  # answers may begin at other tokens
    mask[-1, STOP:] = False
    return ids, mask, answer


def set_roles(module: LycheeRoles, roles: Tensor) -> LycheeRoles:
    """Gates whose expectation is nearly 0 or 1."""
    with torch.no_grad():
        module.a.copy_(torch.where(roles, 2.0, 0.05))
        module.b.copy_(torch.where(roles, 0.05, 2.0))
    return module


def module_of(kind: str = "llama", budget: Budget = SMALL, **options: object) -> LycheeRoles:
    return LycheeRoles(shared_model(kind), budget, **options)


def test_the_multiplier_grows_in_16_bits_too() -> None:
    module = LycheeRoles(tiny_model("llama"), SMALL, target=0.1, ramp=0.0).bfloat16().train()
    first = module.multiplier.clone()
    module.loss(*batch()).backward()
    assert module.multiplier.dtype == module.excess.dtype == torch.float32
    assert first < module.multiplier < 1.003 * first


class PlainDecoding:
    """Attention of one row without padding, token by token, as the paper describes it."""

    def __init__(self, roles: Tensor, planned: list[bool], answer: Tensor) -> None:
        self.roles, self.planned, self.answer = roles, planned, answer
        self.chosen: dict[tuple[int, int], list[int]] = {}  # by head and token

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scale: float
    ) -> Tensor:
        out = torch.zeros_like(query)
        groups = query.shape[1] // key.shape[1]
        for head in range(key.shape[1]):
            queries = range(head * groups, head * groups + groups)
            for token in range(query.shape[2]):
                keys = [j for j in range(key.shape[2]) if allowed[0, 0, token, j]]
                if self.planned[layer]:
                    score = key[0, head, : token + 1] @ query[0, queries, token].mean(0)
                    mine = self.best(score, token)
                    if self.roles[layer, head]:
                        self.chosen[head, token] = mine
                    elif self.answer[token]:
                        keys = self.chosen[head, token]
                for one_query in queries:
                    weights = key[0, head, keys] @ query[0, one_query, token] * scale
                    out[0, one_query, token] = weights.softmax(0) @ value[0, head, keys]
        return out

    @staticmethod
    def best(score: Tensor, token: int) -> list[int]:
        forced = {j for j in range(token + 1) if j < SMALL.sink or j > token - SMALL.recent}
        order = [j for j in score.argsort(descending=True).tolist() if j not in forced]
        return sorted(forced | set(order[: SMALL.keys - len(forced)]))


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3"])
def test_sparse_heads_read_what_the_nearest_retrieval_head_below_chose(kind: str) -> None:
    model, roles = shared_model(kind), torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 0]]).bool()
    module = set_roles(module_of(kind), roles).eval()
    planned = [module.facts.planned(layer) for layer in range(3)]
    roles = module.roles()
    ids, answer = texts(1, LENGTH), torch.zeros(1, LENGTH, dtype=torch.bool)
    answer[:, START:STOP] = True
    with torch.no_grad():
        dense = model.base_model(input_ids=ids).last_hidden_state
        with replaced_attention(model, PlainDecoding(roles, planned, answer[0])):
            mixed = model.base_model(input_ids=ids).last_hidden_state
        difference = module(ids, torch.ones_like(answer), answer).difference
    expected = (mixed - dense).square().mean(-1)[answer].mean()
    assert expected > 1e-3
    torch.testing.assert_close(difference, expected, rtol=1e-3, atol=0)


def test_a_set_that_holds_all_keys_is_the_dense_model_bit_for_bit() -> None:
    for measure in ("states", "logits"):
        module = module_of(budget=Budget(LENGTH, 2, 3), measure=measure)
        assert module(*batch()).difference == 0
    assert module_of()(*batch()).difference > 0


def test_retrieval_heads_alone_are_the_dense_model_bit_for_bit() -> None:
    module = set_roles(module_of(), torch.ones(3, 3, dtype=torch.bool))
    assert module.roles().all()
    assert module.eval()(*batch()).difference == 0


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_attention_in_place_of_the_models_is_the_models(kind: str) -> None:
    model, (ids, mask, _) = shared_model(kind), batch()
    with torch.no_grad():
        before = model(input_ids=ids, attention_mask=mask.long()).logits
        with replaced_attention(model, plain_attention):
            during = model(input_ids=ids, attention_mask=mask.long()).logits
    torch.testing.assert_close(before[mask], during[mask], rtol=0, atol=1e-5)


def test_sets_hold_first_and_recent_keys_and_no_padding_and_no_later_key() -> None:
    module, (_, mask, answer) = module_of(), batch()
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 6, LENGTH - START, 8, generator=generator)
    key = torch.randn(3, 3, LENGTH, 8, generator=generator)
    gates = torch.zeros(3, 3, 3)
    sets = _Mixing(module, gates, mask, answer[:, START:]).choose(query, key)
    for row in range(3):
        tokens = mask[row].nonzero()[:, 0].tolist()
        for t in range(START, LENGTH):
            past = [j for j in tokens if j <= t]
            for head in range(3):
                chosen = set(sets[row, head, t - START].nonzero()[:, 0].tolist())
                assert chosen <= set(past)
                assert len(chosen) == min(SMALL.keys, len(past))
                assert chosen >= set(past[: SMALL.sink]) | set(past[-SMALL.recent :])


def test_a_row_alone_and_in_a_padded_batch_have_the_same_difference() -> None:
    module, (ids, mask, answer) = module_of(), batch()
    noise = torch.rand(3, 3, 3, generator=torch.Generator().manual_seed(2))
    together = module(ids, mask, answer, noise=noise).difference
    alone = []
    for row in range(3):
        real = mask[row]
        parts = [values[row : row + 1, real] for values in (ids, mask, answer)]
        alone.append(module(*parts, noise=noise[row : row + 1]).difference)
    torch.testing.assert_close(together, torch.stack(alone).mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("measure", ["states", "logits"])
def test_gradients_are_differences(measure: str) -> None:
    module = LycheeRoles(tiny_model("llama"), SMALL, measure=measure).double()
    assert module.base.lm_head.weight.dtype == torch.float64
    module.train().begin(0.3)
    noise = torch.rand(3, 3, 3, generator=torch.Generator().manual_seed(4)) * 0.3 + 0.2

    def loss() -> Tensor:
        module.excess.zero_()
        module.multiplier.fill_(1.0)
        parts = module(*batch(), noise=noise)
        return parts.difference + parts.density

    loss().backward()
    for weight in (module.a, module.b):
        assert weight.grad is not None
        for place in [(1, 0), (2, 2)]:
            sides = []
            for step in (1e-3, -1e-3):
                with torch.no_grad():
                    weight[place] += step
                    sides.append(float(loss()))
                    weight[place] -= step
            assert abs(float(weight.grad[place])) > 1e-4
            slope = (sides[0] - sides[1]) / 2e-3
            assert float(weight.grad[place]) == pytest.approx(slope, rel=1e-2)


def test_density_falls_to_the_target_and_the_multiplier_stops_growing() -> None:
    torch.manual_seed(0)
    module = module_of(target=0.25, rate=0.3, ramp=0.5).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.04, weight_decay=0)
    steps = 80
    multipliers = []
    for step in range(steps):
        module.begin(step / steps)
        optimizer.zero_grad()
        module.loss(*batch(1)).backward()
        optimizer.step()
        multipliers.append(float(module.multiplier))
    assert 0.0 < float(module.density().detach()) < 0.35
    assert multipliers == sorted(multipliers)
    assert multipliers[-1] > multipliers[0]


def test_the_penalty_has_the_value_of_the_moving_average_and_the_gradient_of_the_step() -> None:
    module = module_of(target=0.5, rate=0.1, multiplier=2.0).train()
    parts = module(*batch())
    above = 11 / 12 - 0.5
    assert float(module.excess) == pytest.approx(0.1 * above)
    grown = 2.0 * torch.tensor(0.1 * 0.1 * above).exp()
    assert float(module.multiplier) == pytest.approx(float(grown))
    assert float(parts.penalty.detach()) == pytest.approx(float(grown) * 0.1 * above, rel=1e-5)
    gradient = torch.autograd.grad(parts.penalty, module.a)[0]
    density = torch.autograd.grad(module.density(), module.a)[0]
    torch.testing.assert_close(gradient, grown * density)


def test_the_state_is_what_is_learned_and_the_model_stays_as_it_is() -> None:
    model = tiny_model("llama")
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    module = LycheeRoles(model, SMALL).train()
    assert set(module.state_dict()) == {"a", "b", "multiplier", "excess"}
    assert [name for name, _ in module.named_parameters()] == ["a", "b"]
    assert not model.training
    module.loss(*batch()).backward()
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert model.config._attn_implementation == "sdpa"


def test_the_same_seed_gives_the_same_loss_and_evaluation_draws_nothing() -> None:
    module = module_of()
    losses = []
    for _ in range(2):
        torch.manual_seed(3)
        module.multiplier.fill_(1.0)
        module.excess.zero_()
        losses.append(float(module.train().loss(*batch()).detach()))
    assert losses[0] == losses[1]
    module.eval()
    assert float(module.loss(*batch()).detach()) == float(module.loss(*batch()).detach())
    assert float(module.multiplier) != 1.0  # as training left it


def test_logits_under_several_tables_are_those_of_each() -> None:
    module, (ids, mask, answer) = module_of(), batch()
    ids = ids.clone()
    every = torch.ones(3, 3, dtype=torch.bool)
    some = every.clone()
    some[1:, :2] = False
    full, cut, again = module.logits(ids, mask, answer, [every, some, every])
    with torch.no_grad():
        dense = shared_model("llama")(
            input_ids=ids,
            attention_mask=mask.long(),
            position_ids=(mask.long().cumsum(1) - 1).clamp_min(0),
        ).logits[:, START - 1 :]
    real = mask[:, START - 1 :]
    assert torch.equal(full, again)
    torch.testing.assert_close(full[real], dense[real], rtol=0, atol=1e-4)
    assert torch.equal(full[:, 0], cut[:, 0])  # the token before an answer belongs to the prompt
    assert not torch.allclose(full[real], cut[real], atol=1e-2)


def test_a_plan_inherits_where_a_gate_is_closed() -> None:
    roles = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0]]).bool()
    module = set_roles(module_of(), roles)
    plan = module.plan(fitted_on={"prompts": 4})
    assert plan.inherits == ((False,) * 3, (False, True, True), (True, False, True))
    assert plan.budget == SMALL
    assert plan.kept(100) == 1.0
    assert module.roles(1).sum() == 3 + 1
    assert module.roles(0).sum() == 3
    gemma = set_roles(module_of("gemma3"), roles)
    assert gemma.plan().inherits == ((False,) * 3, (False,) * 3, (True, False, True))
    assert not gemma.roles()[0].any()


def test_the_target_falls_in_a_line() -> None:
    assert [ramped_target(0.2, share, 0.5) for share in (0, 0.25, 0.5, 1)] == [
        1,
        pytest.approx(0.6),
        pytest.approx(0.2),
        pytest.approx(0.2),
    ]
    assert ramped_target(0.2, 0.0, 0.0) == pytest.approx(0.2)


def test_a_model_with_the_same_configuration_is_not_affected() -> None:
    model = tiny_model("llama")
    other = type(model)(model.config).eval()
    ids = texts(2, 9)

    def nothing(layer: int, query: Tensor, *_: object) -> Tensor:
        return torch.zeros_like(query)

    with torch.no_grad():
        before = other(input_ids=ids).logits
        with replaced_attention(model, nothing):
            during = other(input_ids=ids).logits
            changed = model(input_ids=ids).logits
        torch.testing.assert_close(before, during, rtol=0, atol=1e-5)
        assert not torch.allclose(changed, model(input_ids=ids).logits)


def test_the_models_attention_returns_after_an_error() -> None:
    model = tiny_model("llama")

    def fails(layer: int, query: Tensor, *_: object) -> Tensor:
        raise RuntimeError("no attention")

    with pytest.raises(RuntimeError, match="no attention"), replaced_attention(model, fails):
        model(input_ids=texts(1, 5))
    assert model.config._attn_implementation == "sdpa"
    assert model(input_ids=texts(1, 5)).logits.isfinite().all()


def test_what_does_not_fit_is_refused_in_a_line() -> None:
    module, (ids, mask, answer) = module_of(), batch()
    nowhere = torch.zeros_like(answer)
    for wrong, message in (
        ((ids.float(), mask, answer), "int64"),
        ((ids, mask.long(), answer), "mask must be bool"),
        ((ids, mask, answer[:, 1:]), "answer must be bool"),
        ((ids, mask, nowhere), "needs an answer"),
        ((ids, mask, ~nowhere), "padding"),
        ((ids, ~nowhere, ~nowhere), "before its answer"),
    ):
        with pytest.raises(ValueError, match=message):
            module(*wrong)
    with pytest.raises(ValueError, match="between 0 and 1"):
        module_of(target=1.5)
    with pytest.raises(ValueError, match="at least two layers"):
        LycheeRoles(tiny_model("llama", num_hidden_layers=1), SMALL)


def test_a_model_with_a_cap_on_its_scores_is_refused() -> None:
    model = tiny_model("gemma3", attn_logit_softcapping=30.0)
    with pytest.raises(ValueError, match="softcap"):
        LycheeRoles(model, SMALL)
