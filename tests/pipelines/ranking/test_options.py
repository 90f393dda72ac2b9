"""Options that the chosen model does not read are refused."""

from dataclasses import fields, replace
from typing import Any

import pytest

from headwise.base.errors import InputError
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.command_line.checks import options_of_a_run
from headwise.pipelines.ranking.data import RankingSpec
from headwise.pipelines.ranking.options import MODELS, READ_BY, RankingOptions, check
from headwise.pipelines.ranking.pipeline import RankingPipeline

OTHER: dict[str, Any] = {
    "layers": 1,
    "heads": 4,
    "proxies": 3,
    "shared_tasks": 1,
    "residual": False,
    "task_tokens": False,
    "gated": False,
    "cross": False,
    "experts": 6,
    "hidden": (40,),
    "attention": "moh",
    "attention_options": ("kv_heads=1",),
    "ffn": "glu",
}

SPEC = RankingSpec(
    schema={},
    sides={},
    fields=[{"name": f"f{n}", "codes": 5, "width": 1, "side": "row"} for n in range(3)],
    tasks=["a", "b"],
    sequences=["s"],
    targets=[0],
    edges={},
    whole={},
    whole_ids=[],
    users=1,
    items=1,
    rows=1,
    log="",
    input={},
    proxies_mix=True,
)


def options_of(verb: str = "train", **values: Any) -> Any:
    return parse(load_task("ranking"), verb, [], values=values)


@pytest.mark.parametrize("name", READ_BY)
def test_an_option_is_read_or_refused(name: str) -> None:
    flag = name.replace("_", "-")
    for model in MODELS:
        values: dict[str, Any] = {"model": model, name: OTHER[name]}
        if model in READ_BY[name]:
            check(RankingOptions(**values))
            continue
        refusal = rf"--(no-)?{flag}: is not read by --model {model}, but by"
        with pytest.raises(InputError, match=refusal):
            check(RankingOptions(**values))


@pytest.mark.parametrize("model", ["infnet", "infnet-hub"])
def test_proxies_read_by_a_mechanism_that_takes_a_context(model: str) -> None:
    check(RankingOptions(model=model, attention="taylor"))
    with pytest.raises(InputError, match=r"agent: takes no context.*--model tokens has it"):
        check(RankingOptions(model=model, attention="agent"))
    check(RankingOptions(model="tokens", attention="agent"))
    with pytest.raises(InputError, match="--attention: is read by INFNet's cross-attention"):
        check(RankingOptions(model=model, attention="taylor", cross=False))


def test_a_run_of_a_version_that_did_not_read_the_mechanism_opens_as_it_was(tmp_path: Any) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("attention: agent\n")
    with options_of_a_run():
        options: Any = parse(load_task("ranking"), "train", [], config=config)
    pipeline = RankingPipeline(load_task("ranking"))
    assert "proxies_mix" not in SPEC.to_json()
    spec = RankingSpec.from_json(SPEC.to_json())
    before = pipeline.build_model(RankingOptions(), SPEC)
    assert repr(pipeline.build_model(options, spec)) == repr(before)
    changed = RankingSpec.from_json(replace(SPEC, proxies_changed=True).to_json())
    mixed = RankingOptions(attention="taylor")
    assert "TaylorAttention" in repr(pipeline.build_model(mixed, changed))


def test_the_table_of_readers_names_options_and_models() -> None:
    assert READ_BY.keys() == OTHER.keys() <= {field.name for field in fields(RankingOptions)}
    assert {model for models in READ_BY.values() for model in models} == set(MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_what_is_read_changes_the_model(model: str) -> None:
    """An option that is said to be read makes another model; one that is refused does not."""
    pipeline = RankingPipeline(load_task("ranking"))

    def model_of(**values: Any) -> str:
        options: Any = {"model": model, "width": 8, **values}
        return repr(pipeline.build_model(RankingOptions(**options), SPEC))

    plain = model_of()
    # These change numbers, or parts that a repr does not show.
    silent = {"heads", "shared_tasks", "residual", "cross"}
    silent |= {"gated", "task_tokens"} if model == "infnet-hub" else set()
    for name in READ_BY.keys() - silent:
        assert (plain != model_of(**{name: OTHER[name]})) == (model in READ_BY[name]), name


def test_a_comparison_takes_what_any_of_its_models_reads() -> None:
    some = {"output": "o", "models": ("din", "infnet:no-cross")}
    assert options_of("compare", **some, hidden=(8,), proxies=2).proxies == 2
    with pytest.raises(InputError, match="--experts: is not read by --model din or infnet"):
        options_of("compare", **some, experts=3)
    with pytest.raises(InputError, match="--model din: compare trains those of --models"):
        options_of("compare", **some, model="din")


def test_experts_have_one_size() -> None:
    with pytest.raises(InputError, match="--hidden: mmoe reads one size"):
        options_of(model="mmoe", hidden=(8, 4))
    assert options_of(model="ple", hidden=(8,)).hidden == (8,)
