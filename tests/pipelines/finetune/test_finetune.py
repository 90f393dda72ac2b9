"""Fine-tuning end to end. The contract of all tasks (tests/contract) holds it to the rest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import headwise
from headwise import pipelines
from headwise.base.errors import InputError
from headwise.base.files import checksum
from headwise.models.language.generated import write_generated_model
from headwise.models.language.opening import open_language_folder
from headwise.models.language.tuning.tuned import ModelAsItCame, TunedModel
from headwise.pipelines import load_task
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.finetune.rungs import examples
from headwise.tests.pipelines.finetune.prompts import (
    distinct,
    general,
    metrics_of,
    parts_of,
    rows,
    tiny_with_template,
    train,
    write_rows,
)

METHODS = {
    "cofitune": {},
    "full": {"method": "full", "lr": 1e-3},
    "lora": {"method": "lora", "rank": 2},
    "moe-lora": {"method": "moe-lora", "rank": 2, "experts": 3},
    "moh": {"convert": "moh", "layers": "all"},
    "differential": {"convert": "grouped-differential"},
    "bam": {"convert": "bam", "method": "lora"},
    "upcycle": {"convert": "upcycle", "layers": "all"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "t.jsonl", distinct())


@pytest.fixture(scope="module")
def tuned(data, tmp_path_factory) -> Path:
    """A run that learned something, with general texts."""
    folder = tmp_path_factory.mktemp("tuned")
    texts = general(folder / "texts.jsonl")
    return train(
        data, folder / "run", general=(str(texts),), layers="all",
        modules=("q", "k", "v", "o", "gate", "up", "down"), lr=1e-2, epochs=6, patience=9,
    ).path  # fmt: skip


def test_an_answer_is_learned_and_what_is_forgotten_is_said(tuned):
    metrics = metrics_of(tuned)
    assert metrics["tuned"]
    assert metrics["task"]["interval_95"][1] < 0
    change = metrics["general"]["texts"]
    assert change["before"] != change["after"]
    assert change["interval_95"][0] <= change["difference"] <= change["interval_95"][1]
    ladder = metrics["ladder"]["rungs"]
    assert ladder["naive"]["loss"] == pytest.approx(metrics["task"]["before"])
    assert ladder["model"]["loss"] == pytest.approx(metrics["loss"])
    assert ladder["model"]["loss of texts"] == pytest.approx(change["after"])
    card = json.loads((tuned / "card.json").read_text())
    first = card["headline"].split(";")[0]
    assert first.startswith("The tuned model answers")
    assert "as it came" in first
    history = pl.read_csv(tuned / "history.csv")
    assert {"val_loss", "val_general_loss"} <= set(history.columns)


def test_a_run_stores_only_what_changed_and_names_its_model(tuned, data, tmp_path):
    run = train(data, tmp_path / "run").path
    stored = load_file(run / "model.safetensors")
    assert sorted(stored) == [
        f"base.model.layers.1.mlp.{kind}_proj.weight" for kind in ("down", "up")
    ]
    spec = json.loads((run / "spec.json").read_text())
    assert spec["base"]["model"] == "generated"
    assert len(spec["base"]["sha256"]) == 64
    checkpoint = next((run / "checkpoints").glob("step-*"))
    assert set(load_file(checkpoint / "model.safetensors")) == set(stored)


def test_another_model_than_that_of_the_run_is_refused(tmp_path, data):
    home = write_generated_model(tmp_path / "model")
    run = train(data, tmp_path / "run", model=str(home), epochs=1).path
    (home / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(InputError, match=r"its chat template, special tokens or settings of gen"):
        pipelines.finetune.evaluate(run=run)
    (home / "chat_template.jinja").unlink()
    config = json.loads((home / "config.json").read_text())
    (home / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    with pytest.raises(
        InputError, match=r"is not the model that the run was made with: the sha256"
    ):
        pipelines.finetune.evaluate(run=run)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_scores_and_opens_again(name, data, tmp_path):
    run = train(data, tmp_path / "run", choose="model", **METHODS[name]).path
    metrics = metrics_of(run)
    again = pipelines.finetune.evaluate(run=run)
    assert {key: again[key] for key in metrics} == metrics
    loaded = load_run(load_task("finetune").load(), str(run))
    assert isinstance(loaded.model, TunedModel)
    if "convert" in METHODS[name]:
        assert metrics["conversion"]["perplexity_before"] > 0
        assert 0 <= metrics["usage"]["share_on"] <= 1 or name == "differential"
        told = metrics["conversion"]
        converted, before = told["perplexity_converted"], told["perplexity_before"]
        if name in ("bam", "upcycle"):
            assert converted == pytest.approx(before, rel=1e-4)
        else:
            assert converted != pytest.approx(before, rel=1e-7)


def test_a_mixture_of_heads_says_how_many_heads_are_on(data, tmp_path):
    run = train(
        data, tmp_path / "run", choose="model", convert="moh", layers="all",
        convert_options=("shared=1", "active=2"),
    ).path  # fmt: skip
    assert metrics_of(run)["usage"] == {"what": "head", "share_on": pytest.approx(0.75)}


def test_a_training_is_the_same_with_packing_and_in_parts(data, tmp_path):
    runs = [
        train(data, tmp_path / name, lr=1e-3, **options).path
        for name, options in (("a", {}), ("b", {"packing": True}), ("c", {"accumulate": 3}))
    ]
    first, *others = (load_file(run / "model.safetensors") for run in runs)
    for other in others:
        for name in first:
            torch.testing.assert_close(other[name], first[name], atol=3e-5, rtol=1e-3)


def test_the_model_as_it_came_answers_where_tuning_makes_it_worse(data, tmp_path):
    run = train(data, tmp_path / "run", lr=50.0, epochs=1, clip=None).path
    metrics = metrics_of(run)
    assert not metrics["tuned"]
    assert metrics["ladder"]["chosen"] == "naive"
    assert metrics["loss"] == pytest.approx(metrics["task"]["before"])
    assert isinstance(headwise.open(run).loaded.model, ModelAsItCame)
    headline = json.loads((run / "card.json").read_text())["headline"]
    assert headline.startswith("The model as it came answers")


def test_examples_are_whole_rows_of_the_training_part_that_fit(data):
    splits, _ = parts_of(data)
    part = splits.train
    tokens = examples(part, 2, room=500).tolist()
    chosen = [k for k in range(part.count) for _ in (0,)
              if _holds(tokens, part.coded[k].tokens.tolist())]  # fmt: skip
    assert len(chosen) >= 2
    assert len(tokens) == sum(len(part.coded[k]) for k in chosen[:2])
    assert len(examples(part, 2, room=20)) == 0


def _holds(tokens: list[int], row: list[int]) -> bool:
    return any(tokens[k : k + len(row)] == row for k in range(len(tokens) - len(row) + 1))


def test_equal_prompts_and_groups_are_in_one_part(tmp_path):
    splits, account = parts_of(write_rows(tmp_path / "t.jsonl", rows()))
    parts = [{d.prompt for d in part.dialogues} for part in (splits.train, splits.validation,
                                                             splits.test)]  # fmt: skip
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]
    assert "60 prompts of 14 groups" in account


def test_long_rows_are_left_out_and_counted(tmp_path):
    lines = distinct()
    lines[3]["prompt"] = "x" * 300
    splits, account = parts_of(write_rows(tmp_path / "t.jsonl", lines), most_tokens=100)
    assert sum(part.count for part in (splits.train, splits.validation, splits.test)) == 59
    assert "1 rows of more than 100 tokens" in account


def test_general_texts_are_in_one_part_each(data, tmp_path):
    texts = general(tmp_path / "texts.jsonl", 31)
    facts = write_rows(tmp_path / "facts.jsonl", distinct(9))
    splits, _ = parts_of(data, general=(str(texts), str(facts)))
    for number, count in enumerate((31, 9)):
        parts = [part.general[number] for part in (splits.train, splits.validation, splits.test)]
        seen = [row.tokens.tobytes() for part in parts for row in part.rows]
        assert len(seen) == len(set(seen)) == count
        assert all(bool(part.dialogues) == (number == 1) for part in parts)
    assert len(splits.validation) == splits.validation.count + sum(
        len(part.rows) for part in splits.validation.general
    )


@pytest.mark.parametrize("form", ["signal", "published"])
def test_a_mask_is_of_general_texts_and_protects(form, data, tmp_path):
    texts = general(tmp_path / "texts.jsonl")
    options = {"general": (str(texts),), "choose": "model", "epochs": 1}
    masked, plain = (
        train(data, tmp_path / name, mask=name, **options).path for name in (form, "none")
    )
    importance = load_file(masked / "assets" / "importance.safetensors")
    assert set(importance) == {"layer 1"}
    assert 0 <= float(importance["layer 1"].min()) < float(importance["layer 1"].max()) < 1
    name = "base.model.layers.1.mlp.up_proj.weight"
    start = load_run(load_task("finetune").load(), str(plain)).ladder.models["naive"]
    before = start.base.model.layers[1].mlp.up_proj.weight
    moved = [
        (load_file(run / "model.safetensors")[name] - before).norm(dim=1) for run in (masked, plain)
    ]
    # Of a first step exactly 1 - importance is taken; later gradients differ a little.
    shares = (moved[0] / moved[1].clamp_min(1e-12)).detach()
    assert torch.corrcoef(torch.stack([shares, 1 - importance["layer 1"]]))[0, 1] > 0.9
    account = (masked / "account.json").read_text()
    assert ("rounding noise" in account) == (form == "published")


def test_a_masked_training_that_was_stopped_ends_as_one_that_was_not(data, tmp_path):
    texts = general(tmp_path / "texts.jsonl")
    options = {"general": (str(texts),), "mask": "signal", "epochs": 2}
    entire = train(data, tmp_path / "a", **options).path
    short = train(data, tmp_path / "b", **options).path
    for path in (short / "checkpoints").glob("step-*"):
        if path.name > "step-000000006":
            shutil.rmtree(path)
    (short / "checkpoints" / "LAST").write_text("step-000000006")
    (short / "model.safetensors").unlink()
    pipelines.finetune.train(run=short, resume=True, data=str(data), **{
        **headwise.tests.pipelines.finetune.prompts.SMALL, **options})  # fmt: skip
    assert checksum(short / "model.safetensors") == checksum(entire / "model.safetensors")


@pytest.mark.parametrize("options", [
    {"method": "full", "lr": 1e-3},
    {"method": "lora", "rank": 2, "lr": 1e-2},
    {"lr": 50.0, "clip": None},  # the model as it came predicts
], ids=["full", "lora", "as it came"])  # fmt: skip
def test_the_export_is_a_folder_that_transformers_loads(options, data, tmp_path):
    run = train(data, tmp_path / "run", epochs=1, **options).path
    folder = tmp_path / "exported" / "model"
    pipelines.finetune.export(run=run, output=folder)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    loaded = load_run(load_task("finetune").load(), str(run)).model
    ids = torch.tensor([tokenizer("Add one to 3.\n").input_ids])
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, loaded.base(ids).logits, atol=1e-5, rtol=1e-4)
    assert open_language_folder(folder).facts.architecture == "llama"
    assert not list(folder.parent.glob(".*"))
    with pytest.raises(InputError, match="is there already"):
        pipelines.finetune.export(run=run, output=folder)


@pytest.mark.parametrize("options", [{"convert": "moh"}, {"method": "moe-lora"}], ids=str)
def test_what_transformers_has_no_modules_for_is_not_exported(options, data, tmp_path):
    run = train(data, tmp_path / "run", epochs=1, choose="model", **options).path
    with pytest.raises(InputError, match=r"writes it as a program"):
        pipelines.finetune.export(run=run, output=tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_chat_template_is_taken_where_there_is_one(data, tmp_path):
    tiny_with_template(str(tmp_path / "model"))
    run = train(data, tmp_path / "run", model=str(tmp_path / "model"), epochs=1).path
    assert json.loads((run / "spec.json").read_text())["template"] == "chat"
    with pytest.raises(InputError, match="has no chat template"):
        parts_of(data, template="chat")


def test_a_broken_prompt_is_a_row_among_the_others(tuned, tmp_path):
    lines = distinct(5)
    lines[1] = {"prompt": ""}
    lines[3]["prompt"] = "long " * 300
    source = write_rows(tmp_path / "in.jsonl", lines)
    done = pipelines.finetune.predict(run=tuned, input=source, output=tmp_path / "o.parquet")
    table = done.table()
    assert done.failed == 2
    assert table["status"].to_list() == ["ok", "error", "ok", "error", "ok"]
    assert "the prompt is empty" in table["error"][1]
    assert "do not fit the 1,024 positions" in table["error"][3]
    alone = pipelines.finetune.predict(
        run=tuned, input=source, output=tmp_path / "p.parquet", batch_size=1
    ).table()
    assert alone["answer"].to_list() == table["answer"].to_list()


def test_lines_of_text_are_prompts_and_the_first_rows_can_be_asked_for(tuned, tmp_path):
    (tmp_path / "in.txt").write_text("Add one to 5.\nAdd one to 6.\nAdd one to 7.\n")
    table = pipelines.finetune.predict(
        run=tuned, input=tmp_path / "in.txt", output=tmp_path / "o.csv", most_rows=2
    ).table()
    assert table["prompt"].to_list() == ["Add one to 5.", "Add one to 6."]
    assert table["expected"].null_count() == 2


def test_a_search_is_resumed_and_writes_a_table(data, tmp_path, capsys):
    texts = general(tmp_path / "texts.jsonl")
    options = {
        "data": str(data), "output": tmp_path / "out", "node_steps": 1, "model": "generated",
        "general": (str(texts),), "accelerator": "cpu",
    }  # fmt: skip
    first = pipelines.finetune.search(**options)
    table = pl.read_csv(tmp_path / "out" / "search.csv")
    assert table.height == len(first) == len({visit.node for visit in first})
    capsys.readouterr()
    assert pipelines.finetune.search(**options) == first
    assert "gained" not in capsys.readouterr().err.split("best:")[0]


def test_importance_is_written_beside_the_published_form(tmp_path, capsys):
    texts = general(tmp_path / "texts.jsonl")
    table = pipelines.finetune.importance(
        model="generated", general=(str(texts),), output=tmp_path / "i.parquet"
    )
    assert table.height == 2 * 48
    assert table["gradient"].max() > 1e3 * table["gradient_published"].max()
    assert "rounding noise" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "message"), [
    ({"modules": ("upp",)}, "no such module.*'up'"),
    ({"layers": "5"}, "should be a range such as"),
    ({"layers": "3-1"}, "is no range"),
    ({"mask": "signal"}, "needs --general"),
    ({"mask": "signal", "general": ("g",), "method": "lora"}, "goes with --method cofitune"),
    ({"experts": 9}, "is read by --method moe-lora"),
    ({"convert": "moh", "convert_options": ("actve=3",)}, "no such option"),
    ({"convert": "moh", "convert_options": ("active=x",)}, "is no int"),
    ({"layers": "0-9"}, "there is no layer 9"),
    ({"convert": "moh", "convert_options": ("shared=9",)}, "do not fit 4 heads"),
    ({"model": "nowhere"}, "nowhere"),
])  # fmt: skip
def test_what_does_not_fit_is_one_line(options, message, data, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        train(data, tmp_path / "run", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_pickle_is_no_model(data, tmp_path):
    home = write_generated_model(tmp_path / "model")
    (home / "model.safetensors").rename(home / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickle"):
        train(data, tmp_path / "run", model=str(home))
