"""A plan says what each head attends to, what that costs, and which model it is for."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from headwise.models.language.plans.facts import ModelFacts
from headwise.models.language.plans.plan import Budget, Plan, Rule
from headwise.tests.models.language.tiny_models import shared_model, tiny_model


@pytest.fixture
def facts() -> ModelFacts:
    return ModelFacts("llama", 3, 6, 2, 8, 4096, "ab" * 32, (None, None, None))


def streaming_mask(length: int, sink: int, window: int) -> torch.Tensor:
    """StreamingLLM's mask, written from its description, one pair at a time."""
    mask = torch.zeros(length, length, dtype=torch.bool)
    for query in range(length):
        for key in range(query + 1):
            mask[query, key] = key < sink or query - key < window
    return mask


@pytest.mark.parametrize(("sink", "window"), [(4, 5), (0, 1), (2, 100), (30, 3)])
def test_a_uniform_plan_allows_what_streaming_attention_allows(facts, sink, window) -> None:
    plan = Plan.uniform(facts, sink=sink, window=window)
    places = torch.arange(20)
    mask = plan.allowed(1, places, places)
    assert mask.shape == (2, 20, 20)
    assert all(torch.equal(head, streaming_mask(20, sink, window)) for head in mask)


def test_a_window_that_grows_is_that_of_the_text_up_to_each_query(facts) -> None:
    plan = Plan.of_tables(
        facts, method="by hand", sink=1, alpha=[[-2.0, 3.0]] * 3, beta=[[1.0, 0.25]] * 3
    )
    assert plan.spans(20).tolist() == [[18, 8]] * 3
    assert plan.spans(2).tolist() == [[1, 2]] * 3  # never below one token, never above all
    places = torch.arange(20)
    for head, mask in enumerate(plan.allowed(0, places, places)):
        for query in range(20):
            window = int(plan.spans(query + 1)[0, head])
            expected = [k == 0 or query - window < k <= query for k in range(20)]
            expected[0] = True
            assert mask[query].tolist() == expected


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 2 / 3, 1.0])
@pytest.mark.parametrize("alpha", [-7.5, 0.5, 3.0])
def test_no_forgotten_key_comes_back(alpha, beta) -> None:
    rule = Rule(0, alpha, beta)
    starts = [length - rule.window(length) for length in range(1, 500)]
    assert starts == sorted(starts)
    queries = torch.arange(499)
    counted = rule.allowed(queries, queries).sum(1).tolist()
    assert counted == [rule.window(length) for length in range(1, 500)]


def test_the_cost_is_the_share_of_tokens_held(facts) -> None:
    assert Plan.full(facts).kept(1000) == 1.0
    plan = Plan.of_heads(facts, [[True, False], [False, False], [False, False]], sink=4, window=96)
    assert plan.kept(1000) == pytest.approx((1000 + 5 * 100) / 6000)
    assert plan.kept(50) == 1.0
    mixed = replace(facts, windows=(None, 100, None))
    assert Plan.uniform(mixed, sink=0, window=50).kept(1000) == pytest.approx(
        (50 + 100 + 50) / (1000 + 100 + 1000)
    )
    with pytest.raises(ValueError, match="kept: a text has one token or more, got 0"):
        plan.kept(0)


def test_shuffled_plans_have_the_same_rules_on_other_heads(facts) -> None:
    alpha = [[1.0, 2.0], [3.0, 4.0], [5.0, math.inf]]
    plan = Plan.of_tables(facts, method="by hand", sink=[[1, 2], [3, 4], [5, 6]], alpha=alpha)
    shuffled = plan.shuffled(3)
    assert shuffled != plan
    assert shuffled == plan.shuffled(3)
    pairs = [sorted(zip(sum(p.sink, ()), sum(p.alpha, ()))) for p in (plan, shuffled)]
    assert pairs[0] == pairs[1]
    assert shuffled.kept(100) == pytest.approx(plan.kept(100))


def test_shuffled_inheritance_still_has_heads_to_inherit_from(facts) -> None:
    plan = Plan.of_tables(
        facts,
        method="lychee",
        sink=0,
        alpha=math.inf,
        inherits=[[False, False], [True, False], [True, True]],
        budget=Budget(8, 2, 4),
    )
    assert [plan.source(2, head) for head in range(2)] == [0, 1]
    for seed in range(10):
        shuffled = plan.shuffled(seed)
        assert shuffled.inherits[0] == (False, False)
        assert sum(map(sum, shuffled.inherits)) == 3


def test_a_plan_in_a_file_comes_back_as_it_was(facts, tmp_path: Path) -> None:
    router = {"0.weight": torch.randn(2, 3), "0.bias": torch.randn(2)}
    plan = Plan.of_tables(
        facts,
        method="flux",
        sink=[[0, 3], [1, 1], [0, 0]],
        alpha=torch.tensor([[math.inf, 12.0], [3.5, -1.0], [math.inf, math.inf]]),
        beta=[[0.0, 0.5], [0.0, 1.0], [0.0, 0.0]],
        routed=[False, True, False],
        router=router,
        fitted_on={"texts": 3},
        checked_to=512,
    )
    plan.write(tmp_path / "plan.json")
    assert "Infinity" not in (tmp_path / "plan.json").read_text()
    read = Plan.read(tmp_path / "plan.json")
    assert read == plan
    assert read.fitted_on == {"texts": 3}
    assert read.digest() == plan.digest()
    assert read.router is not None
    assert all(torch.equal(read.router[name], router[name]) for name in router)
    changed = replace(plan, router={**router, "0.bias": torch.zeros(2)})
    assert changed.digest() != plan.digest()


def broken(plan: dict, change: str) -> object:
    layer = plan["alpha"][0]
    if change == "a list":
        return [plan]
    if change == "no tables":
        del plan["alpha"]
    elif change == "a word":
        layer[0] = "wide"
    elif change == "a number of words":
        plan["sink"][0][0] = True
    elif change == "huge":
        layer[0] = 1e300
    elif change == "short":
        layer.pop()
    elif change == "steep":
        plan["beta"][0][0] = 1.5
    elif change == "negative":
        plan["sink"][0][0] = -1
    elif change == "never a window":
        plan["alpha"][0][0] = -5.0
    elif change == "many layers":
        plan["model"]["layers"] = 10**9
    elif change == "a later version":
        plan["version"] = 2
    elif change == "another home":
        plan["router"] = {"file": "../x.safetensors", "sha256": ""}
    elif change == "no router":
        plan["router"] = {"file": "x.safetensors", "sha256": ""}
    elif change == "routed without a router":
        plan["routed"][0] = True
    elif change == "inherits from nothing":
        plan["inherits"][0][0] = True
        plan["alpha"][0][0] = None
        plan["budget"] = {"keys": 4, "sink": 1, "recent": 1}
    elif change == "a budget too small":
        plan["budget"] = {"keys": 4, "sink": 3, "recent": 2}
    return plan


CHANGES = (
    "a list", "no tables", "a word", "a number of words", "huge", "short", "steep", "negative",
    "many layers", "a later version", "another home", "no router", "routed without a router",
    "inherits from nothing", "a budget too small", "never a window",
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_malformed_plan_is_refused_in_one_line(facts, tmp_path: Path, change) -> None:
    path = tmp_path / "plan.json"
    Plan.uniform(facts, sink=2, window=8).write(path)
    path.write_text(json.dumps(broken(json.loads(path.read_text()), change)))
    with pytest.raises(ValueError, match=r"^[^\n]*plan\.json: [^\n]*$"):
        Plan.read(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"NaN", b"1" * 6000])
def test_a_file_that_is_no_plan_is_refused_in_one_line(tmp_path: Path, content) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^[^\n]*plan\.json: [^\n]*$"):
        Plan.read(path)
    with pytest.raises(ValueError, match=r"^[^\n]*missing\.json: cannot be read[^\n]*$"):
        Plan.read(tmp_path / "missing.json")
    with pytest.raises(ValueError, match=r"^[^\n]*$"):
        Plan.read(tmp_path)


def test_a_plan_may_begin_with_a_mark_of_its_bytes_and_has_a_number_as_version(
    facts, tmp_path: Path
) -> None:
    path, plan = tmp_path / "plan.json", Plan.full(facts)
    plan.write(path)
    text = path.read_text()
    path.write_text(text, encoding="utf-8-sig")
    assert Plan.read(path) == plan
    path.write_text(text.replace('"version": 1', '"version": true'))
    with pytest.raises(ValueError, match=r"plan\.json: version True of plans is not known"):
        Plan.read(path)


def test_changed_weights_of_a_router_are_noticed(facts, tmp_path: Path) -> None:
    plan = Plan.of_tables(
        facts, method="flux", sink=0, alpha=4, routed=[True] * 3, router={"w": torch.ones(2)}
    )
    plan.write(tmp_path / "plan.json")
    replace(plan, router={"w": torch.zeros(2)}).write(tmp_path / "other.json")
    (tmp_path / "other.router.safetensors").replace(tmp_path / "plan.router.safetensors")
    with pytest.raises(ValueError, match="not those that the plan was written with"):
        Plan.read(tmp_path / "plan.json")


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral"])
def test_facts_are_those_of_the_model(kind) -> None:
    facts = ModelFacts.of(shared_model(kind))
    assert (facts.layers, facts.heads, facts.kv_heads, facts.head_width) == (3, 6, 3, 8)
    assert facts.positions == 512
    assert facts.windows == (None, None, None)
    assert ModelFacts.of(tiny_model(kind, seed=5).to(torch.bfloat16)) == facts
    windows = (6,) * 3 if kind == "mistral" else (None,) * 3  # whether the model reads the entry
    assert ModelFacts.of(tiny_model(kind, sliding_window=6)).windows == windows


def test_layers_with_a_window_of_the_model_are_not_planned() -> None:
    facts = ModelFacts.of(shared_model("gemma3"))
    assert facts.windows == (6, None, None)
    plan = Plan.uniform(facts, sink=1, window=3)
    assert plan.spans(20).tolist() == [[6] * 3, [3] * 3, [3] * 3]
    places = torch.arange(20)
    assert torch.equal(plan.allowed(0, places, places)[0], streaming_mask(20, 0, 6))
    with pytest.raises(ValueError, match="the model itself has a window"):
        replace(plan, alpha=((3.0,) * 3,) * 3)


def test_a_plan_of_another_model_is_refused_in_one_line() -> None:
    plan = Plan.full(ModelFacts.of(shared_model("llama")))
    plan.check(tiny_model("llama", seed=7))
    with pytest.raises(ValueError, match=r"^the plan is for another model: architecture [^\n]*$"):
        plan.check(shared_model("qwen3"))
    with pytest.raises(ValueError, match=r"^the plan is for another model: sha256 [^\n]*$"):
        plan.check(tiny_model("llama", intermediate_size=50))
    with pytest.raises(ValueError, match="no language model"):
        plan.check(torch.nn.Linear(2, 2))
