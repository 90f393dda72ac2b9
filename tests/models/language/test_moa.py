"""MoA: rules, their losses, plans within their bounds, and a profile that goes on after a kill."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from headwise.models.language.plans.facts import ModelFacts
from headwise.models.language.plans.plan import Plan
from headwise.models.language.plans.rules import FULL, Rule
from headwise.models.language.search.influence import AnsweredPrompt, answer_losses
from headwise.models.language.search.moa import (
    MoaSearch,
    elastic_rules,
    front_of_plans,
    grouped_by_length,
    loss_under_plan,
    plan_by_influence,
    profile_prompts,
    rule_losses,
)
from headwise.models.language.search.profile_store import ProfileStore
from headwise.tests.models.language.tiny_models import WORDS, tiny_model

SEARCH = MoaSearch(lengths=(16, 32), keep=0.5, block=4, sink=2, steps=8, validation_length=24)


def prompts(tokens: int, count: int, answer: int = 3) -> list[AnsweredPrompt]:
    draws = torch.randint(WORDS, (count, tokens), generator=torch.Generator().manual_seed(tokens))
    return [AnsweredPrompt(row, torch.arange(tokens) >= tokens - answer) for row in draws]


PROMPTS = {16: prompts(16, 3), 24: prompts(24, 2), 32: prompts(32, 2)}


def filled_store(facts: ModelFacts, seed: int = 0, lengths=(16, 32)) -> ProfileStore:
    """A store of random influence, one prompt a length."""
    store, generator = ProfileStore(facts, block=4), torch.Generator().manual_seed(seed)
    for length in lengths:
        shape = (facts.layers, facts.kv_heads, length // 4, length // 4)
        sums = torch.rand(shape, generator=generator, dtype=torch.float64).tril()
        store.add(length, prompts(length, 1), sums)
    return store


def tables_of(plan: Plan) -> list[tuple[int, float, float]]:
    places = itertools.product(range(plan.facts.layers), range(plan.facts.kv_heads))
    return [(rule.sink, rule.alpha, rule.beta) for rule in (plan.rule(*p) for p in places)]


def test_a_loss_is_the_influence_of_the_pairs_that_the_mask_drops() -> None:
    length = 16
    blocks = torch.rand(3, length, length, dtype=torch.float64).tril()
    rules = [Rule(2, 3, 0), Rule(0, 0, 0.5), Rule(4, -2, 0.75), FULL]
    losses = rule_losses(blocks, rules, length)
    for column, rule in enumerate(rules):
        expected = torch.zeros(3, dtype=torch.float64)
        for i, j in itertools.product(range(length), repeat=2):
            window = max(1, math.floor(rule.alpha + rule.beta * (i + 1) + 0.5)) if j <= i and (
                not rule.full
            ) else 99  # fmt: skip
            if j <= i and j >= rule.sink and i - j >= window:
                expected += blocks[:, i, j]
        torch.testing.assert_close(torch.from_numpy(losses[:, column]), expected)
    assert (losses[:, 3] == 0).all()


def test_a_block_counts_by_the_share_of_its_pairs() -> None:
    pairs = torch.rand(2, 4, 4, dtype=torch.float64).tril()
    even = torch.zeros(2, 16, 16, dtype=torch.float64)
    for i, j in itertools.product(range(16), repeat=2):
        if j <= i:  # a block's sum is spread evenly over its causal pairs
            even[:, i, j] = pairs[:, i // 4, j // 4] / (10 if i // 4 == j // 4 else 16)
    rules = [Rule(3, 5, 0), Rule(0, 1, 0), Rule(2, 0, 0.4)]
    coarse, fine = rule_losses(pairs, rules, 16), rule_losses(even, rules, 16)
    assert coarse == pytest.approx(fine)


def test_losses_fall_as_spans_grow() -> None:
    blocks = torch.rand(4, 4, 4, dtype=torch.float64).tril() + 0.01
    for sink in (0, 2, 5):
        for growing in (
            [Rule(sink, alpha, 0) for alpha in range(1, 17)],
            [Rule(sink, 0, beta / 8) for beta in range(1, 9)],
        ):
            losses = rule_losses(blocks, growing, 16)
            assert (losses[:, 1:] <= losses[:, :-1] + 1e-12).all()
            assert losses[:, -1] == pytest.approx(0)
            assert losses[:, 0].min() > 0
    small, large = (rule_losses(blocks, [Rule(sink, 3, 0)], 16) for sink in (0, 5))
    assert (large < small).all()


def test_rules_have_windows_within_the_text_and_no_two_are_alike() -> None:
    rules = elastic_rules(SEARCH)
    sizes = [tuple(map(rule.keeps, SEARCH.all_lengths)) for rule in rules]
    assert SEARCH.all_lengths == (16, 24, 32)
    assert len(set(sizes)) == len(sizes) > 30
    assert [rule for rule, held in zip(rules, sizes) if held == (16, 24, 32)] == [FULL]
    for rule in rules:
        if not rule.full:
            assert rule.alpha + 16 * rule.beta >= 1
            assert rule.alpha + 32 * rule.beta <= 32
            assert rule.alpha % 4 == 0
            assert (rule.beta * 8) % 1 == 0
            assert -16 <= rule.alpha <= 32
    assert any(rule.alpha < 0 for rule in rules)


def test_with_one_length_a_window_is_a_share_of_the_text_if_it_can_be() -> None:
    rules = elastic_rules(MoaSearch(lengths=(32,), block=4, sink=2, steps=8))
    half = [rule for rule in rules if rule.window(32) == 16]
    assert half == [Rule(2, 0, 0.5)]


@pytest.mark.parametrize("keep", [0.25, 0.4, 0.5, 0.9])
def test_no_plan_of_a_front_holds_more_than_it_may(keep: float) -> None:
    search = MoaSearch(lengths=(16, 32), keep=keep, block=4, sink=2, steps=8, bounded=(48, 64))
    facts = ModelFacts.of(tiny_model("llama", num_hidden_layers=6))
    front = front_of_plans(filled_store(facts), search)
    for plan, _ in front:
        for length in (16, 32, 48, 64):
            assert plan.kept(length) <= keep + 1e-9
    assert max(plan.kept(32) for plan, _ in front) > keep - 0.1
    assert len(front) > 1


def test_layers_with_a_window_of_their_own_are_left_alone_and_count() -> None:
    facts = ModelFacts.of(tiny_model("gemma3"))  # the first layer of three has a window
    search = MoaSearch(lengths=(16, 32), keep=0.8, block=4, sink=2, steps=8)
    for plan, _ in front_of_plans(filled_store(facts), search):
        assert all(rule.full for rule in plan.rules(0))
        assert not all(rule.full for layer in (1, 2) for rule in plan.rules(layer))
        assert 0.7 < plan.kept(16) <= 0.8
        assert plan.kept(32) <= 0.8
    with pytest.raises(ValueError, match="a window of their own"):
        front_of_plans(filled_store(facts), replace(search, keep=0.3))


def test_permuted_heads_have_permuted_rules() -> None:
    facts = ModelFacts.of(tiny_model("llama", num_hidden_layers=3))
    search = MoaSearch(lengths=(16, 32), keep=0.5, block=4, sink=2, steps=8, gap=0)
    plain = filled_store(facts)
    swapped = ProfileStore(facts, block=4)
    for length, sums in plain.sums.items():
        swapped.add(length, prompts(length, 1), sums.flip(1))
    for mine, other in zip(front_of_plans(plain, search), front_of_plans(swapped, search)):
        assert mine.losses == pytest.approx(other.losses)
        assert [row[::-1] for row in mine.plan.alpha] == list(other.plan.alpha)


def test_heads_that_agree_within_a_group_have_the_plan_of_their_key_head() -> None:
    grouped = ModelFacts.of(tiny_model("llama", num_hidden_layers=2))
    single = ModelFacts.of(tiny_model("llama", num_hidden_layers=2, num_key_value_heads=6))
    store, copied = filled_store(grouped, lengths=(32,)), ProfileStore(single, block=4)
    copied.add(32, prompts(32, 1), store.sums[32].repeat_interleave(2, 1) / 2)
    for keep in (0.4, 0.5, 0.625):
        search = MoaSearch(lengths=(32,), keep=keep, block=4, sink=2, steps=8, gap=0)
        by_group, by_head = (front_of_plans(profile, search)[0] for profile in (store, copied))
        # Where a group's budget does not come out even, single heads can share the rest.
        assert by_head.losses[32] <= by_group.losses[32] + 1e-9
        if keep == 0.5:
            spans = by_group.plan.spans(32).repeat_interleave(2, 1)
            assert torch.equal(by_head.plan.spans(32), spans)


def test_a_bound_that_cannot_be_met_is_refused_in_one_line_before_any_work() -> None:
    def explode(*_: object) -> None:
        raise AssertionError("the model was run")

    model = tiny_model("llama", num_hidden_layers=2)
    model.register_forward_pre_hook(explode)
    search = MoaSearch(lengths=(16, 32), keep=0.1, block=4, sink=2, steps=8)
    with pytest.raises(ValueError, match=r"keep 0\.1: cannot be met at 16 tokens") as caught:
        plan_by_influence(model, PROMPTS, search)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lengths": ()}, "at least one"),
        ({"lengths": (16, 16)}, "none twice"),
        ({"keep": 0.0}, "keep 0.0"),
        ({"lengths": (18,)}, "multiple of the block"),
        ({"validation_length": 16}, "must not be profiled"),
        ({"objectives": (24,)}, "objectives: 24"),
        ({"block": 0}, "block 0"),
        ({"slopes": 1}, "2 slopes"),
    ],
)
def test_a_search_that_cannot_be_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MoaSearch(**{"lengths": (16, 32), "block": 4, **changes})  # pyright: ignore


def test_prompts_that_the_search_asks_for_must_be_there() -> None:
    with pytest.raises(ValueError, match="no prompts of 24 tokens"):
        plan_by_influence(
            tiny_model("llama", num_hidden_layers=2), {16: PROMPTS[16], 32: PROMPTS[32]}, SEARCH
        )


def test_the_plan_is_the_one_of_the_front_with_the_least_true_loss() -> None:
    model, lines = tiny_model("llama", num_hidden_layers=2), []
    plan = plan_by_influence(model, PROMPTS, SEARCH, lambda *line: lines.append(line))
    front = plan.fitted_on["front"]
    assert isinstance(front, list)
    measured = [entry["measured"] for entry in front]
    assert plan.fitted_on["chosen"] == measured.index(min(measured))
    assert loss_under_plan(model, plan, PROMPTS[24]) == pytest.approx(min(measured))
    assert plan.method == "moa"
    assert plan.checked_to == 24
    assert all(plan.kept(length) <= 0.5 for length in (16, 24, 32))
    assert lines[:5] == [("prompts profiled", done, 5) for done in range(1, 6)]
    assert lines[-1] == ("plans validated", len(front), len(front))
    assert model.config._attn_implementation == "sdpa"


def test_the_loss_under_a_plan_that_cuts_nothing_is_the_model_s() -> None:
    model = tiny_model("llama", num_hidden_layers=2)
    expected = answer_losses(model, PROMPTS[24]).double().mean()
    full = loss_under_plan(model, Plan.full(ModelFacts.of(model)), PROMPTS[24], batch=2)
    assert full == pytest.approx(float(expected))


def test_without_validation_no_length_of_the_plan_is_far_from_its_best() -> None:
    plan = plan_by_influence(
        tiny_model("llama", num_hidden_layers=2),
        PROMPTS,
        MoaSearch(lengths=(16, 32), keep=0.5, block=4, sink=2, steps=8),
    )
    front = plan.fitted_on["front"]
    assert isinstance(front, list)
    expected = torch.tensor([list(entry["expected"].values()) for entry in front])
    spread = (expected.amax(0) - expected.amin(0)).clamp(min=1e-12)
    worst = ((expected - expected.amin(0)) / spread).amax(1)
    assert plan.fitted_on["chosen"] == int(worst.argmin())
    assert plan.checked_to == 0


class Killed(Exception):
    """As a kill between two prompts."""


def test_a_profile_goes_on_after_a_kill_to_the_same_plan(tmp_path) -> None:
    model, path = tiny_model("llama", num_hidden_layers=2), tmp_path / "profile.safetensors"
    facts, whole_profile = ModelFacts.of(model), ProfileStore(ModelFacts.of(model), block=4)
    profile_prompts(model, PROMPTS, SEARCH, whole_profile)

    def stop(_: str, done: int, __: int) -> None:
        if done == 4:
            raise Killed

    store = ProfileStore.resume(path, facts, block=4)
    with pytest.raises(Killed):
        profile_prompts(model, PROMPTS, SEARCH, store, stop)
    again = ProfileStore.resume(path, facts, block=4)
    assert again.prompts == {16: 3, 32: 1}
    counts: list[int] = []
    profile_prompts(model, PROMPTS, SEARCH, again, lambda _, done, __: counts.append(done))
    assert counts == [5]
    for length in (16, 32):
        assert torch.equal(again.sums[length], whole_profile.sums[length])
    assert [tables_of(c.plan) for c in front_of_plans(again, SEARCH)] == [
        tables_of(c.plan) for c in front_of_plans(whole_profile, SEARCH)
    ]


def test_sums_of_other_prompts_settings_or_models_are_refused(tmp_path) -> None:
    model, path = tiny_model("llama", num_hidden_layers=2), tmp_path / "profile.safetensors"
    facts = ModelFacts.of(model)
    store = ProfileStore.resume(path, facts, block=4)
    store.add(16, PROMPTS[16][:2], torch.zeros(2, 3, 4, 4))
    store.save()
    again = ProfileStore.resume(path, facts, block=4)
    assert [len(prompt.tokens) for prompt in again.remaining(16, PROMPTS[16])] == [16]
    for other in (PROMPTS[16][1:], PROMPTS[16][:1], PROMPTS[16][::-1]):
        with pytest.raises(ValueError, match="are not the first of these"):
            again.remaining(16, other)
    with pytest.raises(ValueError, match="block 4, not 8"):
        ProfileStore.resume(path, facts, block=8)
    with pytest.raises(ValueError, match="rows answer, not all"):
        ProfileStore.resume(path, facts, block=4, rows="all")
    with pytest.raises(ValueError, match="model"):
        ProfileStore.resume(path, ModelFacts.of(tiny_model("llama", num_hidden_layers=3)), block=4)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"{}" * 40])
def test_a_file_that_is_no_profile_is_refused_in_one_line(tmp_path, content: bytes) -> None:
    path = tmp_path / "profile.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="profile of influence") as caught:
        ProfileStore.resume(path, ModelFacts.of(tiny_model("llama", num_hidden_layers=2)))
    assert "\n" not in str(caught.value)


def test_weights_are_no_profile(tmp_path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": Tensor([1.0])}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="is no profile of influence"):
        ProfileStore.resume(
            tmp_path / "model.safetensors", ModelFacts.of(tiny_model("llama", num_hidden_layers=2))
        )


def test_prompts_of_any_length_are_grouped_by_length() -> None:
    mixed = [prompts(tokens, 1)[0] for tokens in (30, 9, 17, 12)]
    grouped = grouped_by_length(mixed, block=8)
    assert {n: [len(p.tokens) for p in group] for n, group in grouped.items()} == {
        16: [9, 12],
        32: [17, 30],
    }
    assert grouped_by_length(mixed[:1], block=8).keys() == {32}
    alike = grouped_by_length([prompts(tokens, 1)[0] for tokens in (25, 30, 27, 33)], block=8)
    assert {n: [len(p.tokens) for p in group] for n, group in alike.items()} == {
        40: [25, 27, 30, 33]
    }
