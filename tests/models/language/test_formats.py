"""Plans of DuoAttention and MoA come and go, and what does not fit is refused in one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from headwise.models.language.plans.facts import ModelFacts
from headwise.models.language.plans.formats import (
    read_duo_attention,
    read_moa,
    write_duo_attention,
    write_moa,
)
from headwise.models.language.plans.plan import Budget, Plan, Rule


@pytest.fixture
def facts() -> ModelFacts:
    return ModelFacts("llama", 2, 6, 3, 8, 4096, "ab" * 32, (None, None))


def gates(folder: Path, text: str, settings: object = None) -> Path:
    (folder / "full_attention_heads.tsv").write_text(text)
    if settings is not None:
        (folder / "config.json").write_text(json.dumps(settings))
    return folder


DUO = "0.9\t0.1\t1.2\n0.6\t0.55\t-0.1\n"
SIZES = {"sink_size": 64, "recent_size": 256, "model_name": "x"}


def full_heads(plan: Plan) -> list[list[bool]]:
    return [[rule.full for rule in plan.rules(layer)] for layer in range(plan.facts.layers)]


def test_gates_of_heads_become_full_heads_and_windows(facts, tmp_path: Path) -> None:
    plan = read_duo_attention(gates(tmp_path, DUO, SIZES), facts)
    assert full_heads(plan) == [[True, False, True], [True, True, False]]
    assert plan.rule(0, 1) == Rule(64, 256.0, 0.0)
    third = read_duo_attention(tmp_path, facts, keep=1 / 3, sink=4, window=28)
    assert full_heads(third) == [[True, False, True], [False, False, False]]
    assert third.rule(1, 2) == Rule(4, 28.0, 0.0)
    mixed = replace(facts, windows=(None, 32))
    assert full_heads(read_duo_attention(tmp_path, mixed, keep=1 / 3)) == [
        [False, False, True],
        [True, True, True],  # the model's own windows
    ]


def test_a_plan_goes_to_gates_and_back(facts, tmp_path: Path) -> None:
    plan = Plan.of_heads(facts, [[True, False, True], [False, False, False]], sink=3, window=20)
    write_duo_attention(plan, tmp_path)
    read = read_duo_attention(tmp_path, facts)
    assert replace(read, method=plan.method) == plan
    write_duo_attention(Plan.full(facts), tmp_path)
    assert full_heads(read_duo_attention(tmp_path, facts)) == [[True] * 3] * 2


def test_what_gates_cannot_say_is_refused(facts, tmp_path: Path) -> None:
    several = Plan.of_tables(facts, method="x", sink=1, alpha=[[4, 5, 6], [4, 4, 4]])
    growing = Plan.of_tables(facts, method="x", sink=1, alpha=4, beta=0.5)
    inheriting = Plan.of_tables(
        facts, method="x", sink=0, alpha=float("inf"), budget=Budget(4, 1, 1),
        inherits=[[False] * 3, [True] * 3],
    )  # fmt: skip
    for plan in (several, growing):
        with pytest.raises(ValueError, match="one sink and one fixed window"):
            write_duo_attention(plan, tmp_path)
    for write in (write_duo_attention, write_moa):
        with pytest.raises(ValueError, match="no heads that inherit keys"):
            write(inheriting, tmp_path / "x")


def test_rules_of_query_heads_become_the_largest_of_their_group(facts, tmp_path: Path) -> None:
    alphas = [[0, 64, -128, 0, 0, 0], [32, 32, 8, 16, 0, -5]]
    betas = [[0.5, 0.25, 0.5, 0.125, 1, 1], [0, 0, 0, 0.5, 1, 1.5]]
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"alphas": alphas, "betas": betas}))
    plan = read_moa(path, facts)
    assert plan.alpha == ((64.0, 0.0, float("inf")), (32.0, 16.0, float("inf")))
    assert plan.beta == ((0.5, 0.5, 0.0), (0.0, 0.5, 0.0))
    assert plan.sink == ((64, 64, 0), (64, 64, 0))
    assert plan.spans(1000).tolist() == [[564, 500, 1000], [32, 516, 1000]]


def test_a_plan_goes_to_rules_and_back(facts, tmp_path: Path) -> None:
    alpha = [[3.0, -4.5, float("inf")], [1.0, 2.0, 3.0]]
    plan = Plan.of_tables(
        facts, method="moa", sink=5, alpha=alpha, beta=[[0, 0.5, 0], [0.25, 1, 0]]
    )
    # 2 + 1 n is full at any length, and comes back as such.
    write_moa(plan, tmp_path / "plan.json")
    read = read_moa(tmp_path / "plan.json", facts, sink=5)
    assert read.spans(77).tolist() == plan.spans(77).tolist()
    assert read.alpha[0] == plan.alpha[0]
    assert len(json.loads((tmp_path / "plan.json").read_text())["alphas"][0]) == 6


@pytest.mark.parametrize(
    "text",
    ["", "1\t1\t1\n", "1\t1\n1\t1\n", "1\t1\tx\n1\t1\t1\n", "1\t1\tnan\n1\t1\t1\n", "\0" * 9],
)
def test_gates_that_do_not_fit_are_refused_in_one_line(facts, tmp_path: Path, text) -> None:
    gates(tmp_path, text, SIZES)
    with pytest.raises(ValueError, match=r"^[^\n]*full_attention_heads\.tsv: [^\n]*$"):
        read_duo_attention(tmp_path, facts)


@pytest.mark.parametrize("settings", [None, {}, [], {"sink_size": "x", "recent_size": 3}])
def test_gates_without_a_window_ask_for_one(facts, tmp_path: Path, settings) -> None:
    gates(tmp_path, DUO, settings)
    with pytest.raises(ValueError, match=r"^[^\n]*config\.json: [^\n]*give sink and window$"):
        read_duo_attention(tmp_path, facts)
    with pytest.raises(ValueError, match=r"cannot be read"):
        read_duo_attention(tmp_path / "missing", facts)
    with pytest.raises(ValueError, match="between 0 and 1"):
        read_duo_attention(tmp_path, facts, keep=2, sink=1, window=2)


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", '{"alphas": [[1]], "betas": [[1]]}', "[" * 9000,
        json.dumps({"alphas": [[1] * 6] * 2, "betas": [[0] * 6, [0] * 5]}),
        json.dumps({"alphas": [[1] * 6] * 2, "betas": [["0"] * 6] * 2}),
        json.dumps({"alphas": [[1e300] * 6] * 2, "betas": [[0] * 6] * 2}),
        json.dumps({"alphas": [[True] * 6] * 2, "betas": [[0] * 6] * 2}),
        '{"alphas": [[NaN, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]], "betas": [[0], [0]]}',
    ],
)  # fmt: skip
def test_rules_that_do_not_fit_are_refused_in_one_line(facts, tmp_path: Path, content) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"^[^\n]*plan\.json: [^\n]*$"):
        read_moa(path, facts)
