"""Plans from prompts to files: what is chosen, compared, stored and refused."""

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

import headwise
from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.models.language.opening import open_language_folder
from headwise.models.language.plans.facts import ModelFacts
from headwise.models.language.plans.plan import Plan
from headwise.pipelines import longcontext
from headwise.pipelines.engine.opened_models import open_base
from headwise.pipelines.engine.pipeline import Context
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.engine.training.quick import completed, fit
from headwise.pipelines.longcontext.coding import Coder
from headwise.pipelines.longcontext.comparing import compared_plans, size_of, uniform_like
from headwise.pipelines.longcontext.data import open_splits
from headwise.pipelines.longcontext.options import LongContextOptions
from headwise.pipelines.longcontext.planned import PlannedModel
from headwise.pipelines.longcontext.scoring import beyond_window, scores_of, scores_of_tokens

TEXTS = [
    " ".join(f"Line {k} of book {book} is about the sea." for k in range(80)) for book in range(9)
]


def facts(layers: int = 4, kv_heads: int = 2, windows: tuple = ()) -> ModelFacts:
    windows = windows or (None,) * layers
    return ModelFacts("llama", layers, 2 * kv_heads, kv_heads, 8, 4096, "0" * 64, windows)


def sizes(plan: Plan, length: int) -> float:
    return size_of(plan, length) * length


@pytest.mark.parametrize("length", [64, 100, 200, 400])
def test_uniform_windows_are_as_large_as_the_plan_at_every_length(length):
    table = torch.zeros(4, 2, dtype=torch.bool)
    table[1, 0] = table[2, 1] = True
    plan = Plan.of_heads(facts(), table, sink=8, window=16)
    uniform = uniform_like(plan, 400)
    assert sizes(uniform, length) == pytest.approx(sizes(plan, length), abs=1)
    assert len({uniform.rule(k // 2, k % 2) for k in range(8)}) == 1


def test_uniform_windows_beside_a_full_plan_are_full():
    uniform = uniform_like(Plan.full(facts()), 256)
    assert uniform.kept(256) == uniform.kept(4096) == 1


def test_layers_with_a_window_of_their_own_are_not_counted():
    plan = Plan.of_heads(
        facts(windows=(32, None, 32, None)), torch.zeros(4, 2, dtype=torch.bool), sink=8, window=24
    )
    assert size_of(plan, 128) == pytest.approx(32 / 128)
    assert uniform_like(plan, 128).kept(128) == pytest.approx(plan.kept(128), abs=0.01)


def test_a_plan_that_shuffling_leaves_alone_has_no_shuffled_one_beside_it():
    assert set(compared_plans(Plan.uniform(facts(), sink=4, window=8), 64, 0)) == {
        "full", "uniform", "plan"
    }  # fmt: skip
    table = torch.zeros(4, 2, dtype=torch.bool)
    table[0] = True
    assert "shuffled" in compared_plans(Plan.of_heads(facts(), table, sink=4, window=8), 64, 0)


def test_the_needle_plan_keeps_at_most_the_share_and_as_many_heads_as_that_lets(run):
    model = load_run(longcontext.TASK.load(), str(run)).domain_model
    spec = json.loads((run / "spec.json").read_text())
    assert isinstance(model, PlannedModel)
    plan = model.plan
    assert 0.4 < plan.kept(spec["longest"]) <= 0.6
    assert {rule.full for layer in range(2) for rule in plan.rules(layer)} == {True, False}


def test_the_run_stores_the_plan_and_no_weight_of_the_language_model(run):
    stored = load_file(run / "model.safetensors")
    assert sum(value.numel() for value in stored.values()) < 100
    spec = json.loads((run / "spec.json").read_text())
    assert spec["model"] == "generated"
    assert spec["sha256"] == open_base("generated").sha256


def test_a_model_with_other_weights_is_refused(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    spec = json.loads((copy / "spec.json").read_text())
    (copy / "spec.json").write_text(json.dumps({**spec, "sha256": "a" * 64}))
    with pytest.raises(InputError, match="is not the model that the run was made with: the sha256"):
        longcontext.evaluate(run=copy)
    (copy / "spec.json").write_text(json.dumps({**spec, "settings_sha256": "a" * 64}))
    with pytest.raises(InputError, match="its chat template, special tokens or settings of gen"):
        longcontext.evaluate(run=copy)
    assert spec.pop("settings_sha256") == open_base("generated").settings_sha256
    (copy / "spec.json").write_text(json.dumps(spec))  # as an older version wrote it
    assert load_run(longcontext.TASK.load(), str(copy)).spec.settings_sha256 == ""


def test_answers_that_are_read_with_the_cut_cache_score_as_under_masks(run):
    loaded = load_run(longcontext.TASK.load(), str(run))
    model = loaded.domain_model
    assert isinstance(model, PlannedModel)
    data = str(run / "sample" / "generated-prompts.jsonl")
    part = open_splits(LongContextOptions(data=data), loaded.spec, True).test
    scores = scores_of(model.base, model.plan, part)
    batch = part.__getitems__(range(len(part)))
    with torch.no_grad():
        logits = model(batch["ids"], batch["mask"])[:, :-1]
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch["ids"][:, 1:].flatten(), reduction="none"
    ).view(len(part), -1)
    answer = batch["answer"][:, 1:]
    expected = (losses * answer).sum(1) / answer.sum(1)
    np.testing.assert_allclose(scores.loss, expected.numpy(), atol=2e-4)
    right = ((logits.argmax(-1) == batch["ids"][:, 1:]) | ~answer).all(1)
    np.testing.assert_array_equal(scores.right, right.double().numpy())
    full = scores_of_tokens(model.base, Plan.full(model.facts), part.tokens)
    assert (scores.cache < 0.7 * full.cache).all()
    assert not np.allclose(scores.loss, full.loss, atol=1e-3)


def test_an_answer_is_beyond_the_window_where_no_cut_head_can_read_it(run):
    loaded = load_run(longcontext.TASK.load(), str(run))
    data = str(run / "sample" / "generated-prompts.jsonl")
    part = open_splits(LongContextOptions(data=data), loaded.spec, True).test
    plan = Plan.uniform(loaded.domain_model.facts, sink=40, window=100)
    flags = beyond_window(plan, part)
    for prompt, tokens, flag in zip(part.prompts, part.tokens, flags, strict=True):
        start, end = prompt.place  # of characters, which are the tokens of this model
        assert flag == (start >= 40 and end <= len(tokens.prompt) - 100)
    assert 0 < flags.sum() < len(flags)
    assert not beyond_window(Plan.full(plan.facts), part).any()


def write_texts(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text)
    return folder


def test_prompts_over_texts_share_no_text_between_parts_and_are_stored(tmp_path):
    data = write_texts(tmp_path / "texts")
    options = {"lengths": (300,), "fit_prompts": 2, "validation_prompts": 2, "test_prompts": 4}
    run = longcontext.train(
        run=tmp_path / "run", data=data, model="generated", method="uniform", **options
    )
    splits = open_splits(
        LongContextOptions(data=str(data), model="generated", **options), None, False
    )
    books = [
        {book for prompt in splits.part(name).prompts for book in range(9)
         if f"of book {book} " in prompt.text}
        for name in ("train", "validation", "test")
    ]  # fmt: skip
    assert all(books)
    assert sum(map(len, books)) == len(set.union(*books))
    rows = pl.read_parquet(run.path / "predictions.parquet")
    assert rows["id"].to_list() == [prompt.id for prompt in splits.test.prompts]
    asset = run.path / "assets" / "prompts.jsonl"
    again = longcontext.evaluate(run=run.path, data=asset)
    first = json.loads((run.path / "metrics.json").read_text())
    assert again["plan"]["answer_loss"] == pytest.approx(first["plan"]["answer_loss"], abs=1e-5)


def test_a_model_without_data_meets_texts_of_python_and_not_the_sample(tmp_path, model_folder):
    sample = tmp_path / "sample" / "generated-prompts.jsonl"
    options = {"fit_prompts": 1, "validation_prompts": 1, "test_prompts": 1}
    own = open_splits(
        LongContextOptions(data=str(sample), model=str(model_folder), **options), None, False
    )
    assert own.spec.shortest > 400
    assert {prompt.id.split("-")[0] for prompt in own.test.prompts} != {"generated"}


def test_a_single_text_is_cut_so_that_each_part_has_some(tmp_path):
    (tmp_path / "book.txt").write_text(" ".join(TEXTS))
    options = LongContextOptions(data=str(tmp_path / "book.txt"), model="generated", lengths=(300,))
    with opened() as account:
        splits = open_splits(options, None, False)
    assert len(splits.test) == 24
    assert "each piece of them counts as a text of its own" in " ".join(account.lines())


def test_a_plan_goes_out_to_a_file_and_comes_back(run, tmp_path):
    longcontext.export(run=run, output=tmp_path / "plan.json")
    again = longcontext.train(
        run=tmp_path / "again", method="plan", plan=tmp_path / "plan.json", choose="model"
    )
    plans = [
        load_run(longcontext.TASK.load(), str(path)).domain_model.plan for path in (run, again.path)
    ]
    assert plans[0].digest() == plans[1].digest()
    longcontext.export(run=run, output=tmp_path / "duo" / "full_attention_heads.tsv")
    assert (tmp_path / "duo" / "config.json").is_file()
    longcontext.export(run=run, output=tmp_path / "rules.moa.json")
    assert json.loads((tmp_path / "rules.moa.json").read_text()).keys() == {"alphas", "betas"}


def test_windows_are_chosen_where_the_plan_is_not_better(tmp_path, capsys):
    """A random model cannot tell the two apart. Nothing is trained, which is said."""
    run = longcontext.train(run=tmp_path / "run", share=0.6)
    assert "nothing to train" in capsys.readouterr().err
    assert not (run.path / "checkpoints").exists() or not any(run.checkpoints.iterdir())
    ladder = json.loads((run.path / "ladder.json").read_text())
    assert ladder["chosen"] in ("naive", "model")
    metrics = json.loads((run.path / "metrics.json").read_text())
    if ladder["chosen"] == "naive":
        loaded = load_run(longcontext.TASK.load(), str(run.path))
        assert isinstance(loaded.model, PlannedModel)
        assert loaded.model.plan.method == "uniform"
        assert loaded.model.domain is loaded.domain_model
    assert {"full", "uniform", "plan", "shuffled"} <= metrics.keys()


def test_a_plan_that_was_fitted_without_steps_has_a_score_to_be_compared_by(run):
    """As tune and compare take it: the loss of the answers of the validation part."""
    data = str(run / "sample" / "generated-prompts.jsonl")
    options = LongContextOptions(data=data, method="uniform")
    pipeline, device = longcontext.TASK.load(), torch.device("cpu")
    splits = open_splits(options, None, False)
    model, facts = fit(
        pipeline, options, splits.train, splits.spec, device, validation=splits.validation
    )
    assert "validation_loss" not in facts
    completed(pipeline, model, splits, options, facts)
    scores = scores_of(model.base, model.plan, splits.validation)
    assert facts["validation_loss"] == pytest.approx(scores.loss.mean())


MEASURES = {
    "needle": ("headwise.pipelines.longcontext.scored_heads", "needle_scores"),
    "moa": ("headwise.models.language.search.moa", "influence_blocks"),
}


@pytest.mark.parametrize("method", MEASURES)
def test_what_was_measured_is_not_measured_again_and_never_taken_for_something_else(
    run, tmp_path, monkeypatch, method
):
    data = str(run / "sample" / "generated-prompts.jsonl")
    splits = open_splits(LongContextOptions(data=data, fit_prompts=4), None, False)
    pipeline, calls = longcontext.TASK.load(), []
    module, name = MEASURES[method]
    measure = getattr(importlib.import_module(module), name)

    def counted(*values, **named):
        calls.append(1)
        return measure(*values, **named)

    monkeypatch.setattr(f"{module}.{name}", counted)

    def plan_of(splits, folder=tmp_path, **options):
        """The plan, and how many prompts were measured for it."""
        chosen = LongContextOptions(data=data, method=method, **{"share": 0.6, **options})
        model = PlannedModel(open_base("generated").model)
        calls.clear()
        context = Context(chosen, splits.spec, {}, torch.device("cpu"), folder)
        pipeline.complete(model, splits, context)
        return model.plan, len(calls)

    plan, measured = plan_of(splits)
    assert measured == 4
    assert plan_of(splits) == (plan, 0)
    assert plan_of(splits, None) == (plan, 4), "the same without a folder"
    part = splits.train
    rows = [part.tokens[0]._replace(prompt=part.tokens[0].prompt[1:]), *part.tokens[1:]]
    changed = {
        "a prompt": replace(splits, train=replace(part, tokens=rows)),
        "the model": replace(splits, spec=replace(splits.spec, sha256="a" * 64)),
    }
    for what, other in changed.items():
        assert plan_of(other)[1] == 4, what
    assert plan_of(splits, sink=3)[1] == 4, "an option"
    assert plan_of(splits) == (plan, 0), "the first is still there"
    for file in filter(Path.is_file, tmp_path.rglob("*")):
        file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(InputError, match=str(tmp_path)) as caught:
        plan_of(splits)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["lychee", "flux"])
def test_a_method_that_learns_trains_and_keeps_what_it_learned(tmp_path, method):
    run = longcontext.train(
        run=tmp_path / "run", method=method, max_steps=2, test_prompts=3, choose="model"
    )
    assert (run.path / "history.csv").is_file()
    loaded = load_run(longcontext.TASK.load(), str(run.path))
    assert isinstance(loaded.model, PlannedModel)
    assert loaded.model.plan.method == method
    assert loaded.model.plan.inheriting or any(loaded.model.plan.routed) or method == "lychee"


REFUSED = [
    ({"share": 0.0}, "--share 0.0: must be a share above 0"),
    ({"method": "plan"}, "--method plan: needs --plan FILE"),
    ({"plan": "x.json"}, "--plan: is read by --method plan"),
    ({"choose": "blend"}, "--choose blend: a plan has no such model"),
    ({"lr": 0.5}, "--lr: is read by --method lychee and flux"),
    ({"devices": 2}, "has nothing to train on several devices"),
    ({"depths": (1.5,)}, "--depths 1.5: must be from 0"),
    ({"lengths": (8,)}, "--lengths 8: must be at least 32 tokens"),
    ({"method": "full", "window": 8}, "--window: is read by the methods that make a plan"),
    (
        {"share": 0.1},
        r"--share: a share of 0.1 .* cannot be kept: sink \d+ and window \d+ alone are",
    ),
    ({"method": "moa", "share": 0.1}, "--method moa: keep 0.1: cannot be met at"),
    ({"model": "no-such-model"}, "is no model and no folder"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_made_is_refused_in_one_line(tmp_path, options, message):
    with pytest.raises(InputError, match=message) as caught:
        longcontext.train(run=tmp_path / "run", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists(), "the corrected command can use the same directory"


def test_a_method_that_learns_from_answers_needs_one_for_each_prompt(tmp_path):
    rows = [{"prompt": f"the key is {k}. the key is"} for k in range(12)]
    (tmp_path / "none.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(InputError, match="--method flux: learns from answers; some prompts have"):
        longcontext.train(
            run=tmp_path / "run", data=tmp_path / "none.jsonl", model="generated", method="flux"
        )
    assert not (tmp_path / "run").exists()


def test_a_plan_of_another_model_is_refused(tmp_path):
    Plan.uniform(facts(), sink=4, window=8).write(tmp_path / "p.json")
    with pytest.raises(
        InputError, match=r"--plan .*p\.json: is for another model: llama of 4 layers"
    ):
        longcontext.train(run=tmp_path / "run", method="plan", plan=tmp_path / "p.json")


def test_weights_in_a_pickle_are_refused(model_folder, tmp_path):
    copy = Path(shutil.copytree(model_folder, tmp_path / "model"))
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin is a pickle") as caught:
        longcontext.train(run=tmp_path / "run", model=copy)
    assert "\n" not in str(caught.value)


def test_a_prompt_beyond_the_positions_is_named(tmp_path):
    rows = [
        {"prompt": "the key is 12. " * k + "the key is", "answer": "12"} for k in (3, 90, 5)
    ] * 4
    pl.DataFrame([{**row, "id": f"p{k}"} for k, row in enumerate(rows)]).write_csv(
        tmp_path / "p.csv"
    )
    with pytest.raises(
        InputError, match=r"prompt p\d+: 1,36\d tokens .* more than the 1,024 positions"
    ):
        longcontext.train(run=tmp_path / "run", data=tmp_path / "p.csv", model="generated")


def test_a_table_of_prompts_takes_no_lengths(tmp_path):
    rows = [{"prompt": f"the key is {k}. the key is", "answer": str(k)} for k in range(12)]
    pl.DataFrame(rows).write_csv(tmp_path / "p.csv")
    with pytest.raises(InputError, match="--lengths: is read by a --data of texts"):
        longcontext.train(
            run=tmp_path / "run", data=tmp_path / "p.csv", model="generated", lengths=(64,)
        )


def test_the_verbs_are_beside_attach_in_python():
    assert headwise.longcontext.train is longcontext.train
    assert callable(headwise.longcontext.attach)


def test_a_long_text_is_coded_without_a_word_of_the_tokenizer(model_folder):
    tokenizer = open_language_folder(model_folder).tokenizer
    assert len(Coder(tokenizer).code("word " * 1500)) > tokenizer.model_max_length
    assert not tokenizer.deprecation_warnings
    tokenizer.encode("word " * 1500)
    assert tokenizer.deprecation_warnings
