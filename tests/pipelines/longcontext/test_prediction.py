"""Answers in batches, alone, on a stored cache; prompts that cannot be answered are rows."""

import io
import json
import shutil
import sys
from types import SimpleNamespace

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import save

from headwise.base.errors import InputError
from headwise.models.language.answers import end_tokens, padding_token
from headwise.models.language.running.attach import attach
from headwise.pipelines import longcontext
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.longcontext.coding import Coder
from headwise.pipelines.longcontext.generation import Writing, write_alone, write_batch
from headwise.pipelines.longcontext.planned import planned

CONTEXT = "In the red house lives a baker. " * 8
PROMPTS = [f"{CONTEXT[: 40 + 31 * k]} Who lives there?" for k in range(6)]


@pytest.fixture(scope="module")
def loaded(run):
    return load_run(longcontext.TASK.load(), str(run))


def predicted(run, tmp_path, rows, **options):
    content, path = "\n".join(json.dumps(row) for row in rows), tmp_path / "p.jsonl"
    if not path.exists() or path.read_text() != content:  # another time is another input
        path.write_text(content)
    options = {"max_new_tokens": 6, "overwrite": True, **options}
    result = longcontext.predict(run=run, input=path, output=tmp_path / "o.parquet", **options)
    return result.table()


def writing_of(model, coder, **changes):
    ends = end_tokens(model, coder.tokenizer)
    return Writing(**{"limit": 6, "sample": False, "temperature": 1.0, "seed": 0, "end": ends,
                      "pad": padding_token(coder.tokenizer, ends), **changes})  # fmt: skip


def greedy(model, plan, tokens, limit, ends):
    """By the definition: the whole text again for each token, under masks."""
    written = []
    with torch.no_grad(), attach(model, plan):
        while len(written) < limit:
            ids = torch.tensor([[*tokens, *written]])
            token = int(model(input_ids=ids, use_cache=False).logits[0, -1].argmax())
            if token in ends:
                break
            written.append(token)
    return written


def test_answers_in_a_batch_are_those_of_the_whole_text_read_again_for_each_token(loaded):
    model = planned(loaded.domain_model)
    from headwise.pipelines.engine.opened_models import open_base

    coder = Coder(open_base("generated").tokenizer)
    tokens = [coder.code(prompt) for prompt in PROMPTS]
    writing = writing_of(model.base, coder)
    with torch.no_grad(), attach(model.base, model.plan) as attached:
        batch = write_batch(model.base, attached, coder, tokens, writing)
        alone = [write_alone(model.base, attached, coder, row, "", writing) for row in tokens]
    expected = [coder.text(greedy(model.base, model.plan, row, 6, writing.end)) for row in tokens]
    assert [answer.first for answer in batch] == expected
    assert [answer.first for answer in alone] == expected


def test_a_second_question_goes_on_with_the_first_answer(loaded):
    model = planned(loaded.domain_model)
    from headwise.pipelines.engine.opened_models import open_base

    coder = Coder(open_base("generated").tokenizer)
    tokens, second = coder.code(PROMPTS[3]), "\nAnd who else?"
    writing = writing_of(model.base, coder)
    with torch.no_grad(), attach(model.base, model.plan) as attached:
        answer = write_alone(model.base, attached, coder, tokens, second, writing)
    first = greedy(model.base, model.plan, tokens, 6, writing.end)
    asked = [*tokens, *first, *coder.code_on(second)]
    assert answer.second == coder.text(greedy(model.base, model.plan, asked, 6, writing.end))


def test_a_prompt_that_cannot_be_answered_is_a_row_among_the_others(run, tmp_path):
    rows = [
        {"prompt": PROMPTS[0]},
        {"prompt": "  "},
        {"prompt": "a" * 1020},
        {"prompt": PROMPTS[1]},
    ]
    table = predicted(run, tmp_path, rows)
    assert table["status"].to_list() == ["ok", "error", "error", "ok"]
    assert table["error"][1] == "the prompt is empty"
    assert "more than the 1,024 positions" in table["error"][2]
    assert table["answer"].is_null().to_list() == [False, True, True, False]
    beyond = predicted(run, tmp_path, rows, beyond_positions=True)
    assert beyond["status"].to_list() == ["ok", "error", "ok", "ok"]


def test_draws_follow_from_the_seed_and_not_from_the_batch(run, tmp_path):
    rows = [{"prompt": prompt} for prompt in [*PROMPTS, PROMPTS[0]]]
    first = predicted(run, tmp_path, rows, sample=True, seed=1)
    assert first["answer"][0] != first["answer"][-1]  # an equal prompt has draws of its own
    again = predicted(run, tmp_path, rows, sample=True, seed=1, batch_size=2, shard_size=3)
    other = predicted(run, tmp_path, rows, sample=True, seed=2)
    assert_frame_equal(first.select("answer"), again.select("answer"))
    assert first["answer"].to_list() != other["answer"].to_list()


def test_questions_on_a_stored_cache_are_answered_as_after_the_text_itself(run, tmp_path):
    (tmp_path / "context.txt").write_text(CONTEXT)
    result = longcontext.compress(
        run=run, input=tmp_path / "context.txt", output=tmp_path / "c.safetensors", chunk=50
    )
    ((whole, cut),) = result.sizes.values()
    assert 0 < cut < 0.75 * whole
    questions = [" Who bakes?", " Where?"]
    rows = [{"prompt": question} for question in questions]
    asked = predicted(run, tmp_path, rows, cache=tmp_path / "c.safetensors")
    whole_text = predicted(
        run, tmp_path, [{"prompt": CONTEXT + question} for question in questions]
    )
    assert asked["answer"].to_list() == whole_text["answer"].to_list()
    assert asked["kept"].to_list() == pytest.approx(whole_text["kept"].to_list())


def test_a_cache_of_another_plan_is_refused(run, tmp_path):
    (tmp_path / "context.txt").write_text(CONTEXT)
    longcontext.compress(run=run, input=tmp_path / "context.txt", output=tmp_path / "c.safetensors")
    other = longcontext.train(run=tmp_path / "other", method="uniform", test_prompts=2)
    cache = tmp_path / "c.safetensors"
    with pytest.raises(InputError, match="another plan"):
        predicted(other.path, tmp_path, [{"prompt": "Who?"}], cache=cache)
    content = bytearray(cache.read_bytes())
    content[-1] ^= 1
    cache.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        predicted(run, tmp_path, [{"prompt": "Who?"}], cache=cache)
    assert not list(tmp_path.glob("*.parts"))
    with pytest.raises(InputError, match="there is no such file; compress writes it"):
        predicted(run, tmp_path, [{"prompt": "Who?"}], cache=tmp_path / "none.safetensors")


def test_compress_says_how_large_caches_would_be_and_writes_nothing(run, tmp_path, capsys):
    result = longcontext.compress(run=run, dry_run=(100, 1000))
    assert result.output is None
    shares = [cut / whole for whole, cut in result.sizes.values()]
    assert shares[1] < shares[0] < 1
    # 2 layers, 2 heads of keys of 8 numbers, keys and values, 4 bytes each
    assert [whole for whole, _ in result.sizes.values()] == [100 * 256, 1000 * 256]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "compress: needs --input"),
        ({"input": "e.txt", "output": "c.safetensors"}, "the context is empty"),
        ({"input": "l.txt", "output": "c.safetensors"}, "more than the 1,024 positions"),
        ({"input": "e.txt", "output": "c.pt"}, r"must end in \.safetensors"),
        ({"input": "t.csv", "output": "c.safetensors"}, r"must be a text file, \.txt"),
        ({"input": "e.txt", "output": "old.safetensors"}, "already exists"),
    ],
)
def test_compress_refuses_in_one_line(run, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.txt").write_text("  \n")
    (tmp_path / "l.txt").write_text("a" * 2000)
    (tmp_path / "t.csv").write_text("a,b\n")
    (tmp_path / "old.safetensors").write_text("x")
    with pytest.raises(InputError, match=message) as caught:
        longcontext.compress(run=run, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "c.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"hello there", "half", "plain"])
def test_a_file_that_is_no_cache_is_refused_at_once(run, tmp_path, content):
    (tmp_path / "a.txt").write_text("Who lives there?")
    cache = tmp_path / "c.safetensors"
    if content == "half":
        longcontext.compress(run=run, input=tmp_path / "a.txt", output=cache)
        content = cache.read_bytes()[:-9]
    cache.write_bytes(save({"x": torch.ones(2)}) if content == "plain" else content)
    message = r"c\.safetensors: (cannot be read as a|no) cache"
    with pytest.raises(InputError, match=message) as caught:
        longcontext.predict(
            run=run, input=tmp_path / "a.txt", output=tmp_path / "o.parquet", cache=cache
        )
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("o.parquet*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"a\.csv: there is no column 'prompt'; it has 'foo', 'bar'"),
        ({"columns": ("prompt=nope",)}, "there is no column 'nope'"),
        ({"columns": ("foo=bar",)}, "--columns foo=bar: no field 'foo'"),
        ({"sample": True, "temperature": 1e-30}, "--temperature 1e-30: must be from 0.001 to 1000"),
        ({"sample": True, "temperature": float("nan")}, "--temperature nan: must be from"),
        ({"sample": True, "temperature": float("inf")}, "--temperature inf: must be from"),
    ],
)
def test_predict_refuses_at_once_what_no_prompt_can_make_right(run, tmp_path, options, message):
    (tmp_path / "a.csv").write_text("foo,bar\n1,2\n")
    output = tmp_path / "o.parquet"
    with pytest.raises(InputError, match=message) as caught:
        longcontext.predict(run=run, input=tmp_path / "a.csv", output=output, **options)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv"]


def test_a_table_without_prompts_among_others_is_a_row_with_an_error(run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text("foo,bar\n1,2\n3,4\n")
    (folder / "b.csv").write_text("prompt\nhello\n")
    rows = longcontext.predict(
        run=run, input=folder, output=tmp_path / "o.parquet", max_new_tokens=2
    ).table()
    assert rows["status"].to_list() == ["error", "ok"]
    assert "there is no column 'prompt'" in rows["error"][0]


def test_standard_input_takes_lines_and_json_lines(run, tmp_path, monkeypatch):
    rows = predicted(run, tmp_path, [{"prompt": prompt} for prompt in PROMPTS[:2]])
    for lines in (PROMPTS[:2], [json.dumps({"prompt": prompt}) for prompt in PROMPTS[:2]]):
        content = ("\n".join(lines) + "\n").encode()
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content), closed=False))
        result = longcontext.predict(
            run=run, input="-", output=tmp_path / f"{len(content)}.parquet", max_new_tokens=6
        )
        assert result.table()["answer"].to_list() == rows["answer"].to_list()
    assert not list(tmp_path.glob(".aside*"))


def test_text_files_are_a_prompt_each(run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, prompt in zip("ab", PROMPTS, strict=False):
        (folder / f"{name}.txt").write_text(prompt)
    result = longcontext.predict(run=run, input=folder, output=tmp_path / "o.csv", max_new_tokens=6)
    rows = predicted(run, tmp_path, [{"prompt": prompt} for prompt in PROMPTS[:2]])
    assert result.table()["id"].to_list() == ["a.txt", "b.txt"]
    assert result.table()["answer"].to_list() == rows["answer"].to_list()


def test_a_job_that_was_stopped_goes_on_with_the_shards_that_it_lacks(run, tmp_path, monkeypatch):
    rows = [{"prompt": prompt} for prompt in PROMPTS]
    expected = predicted(run, tmp_path, rows, shard_size=2)
    from headwise.pipelines.longcontext import pipeline as module

    calls, answer = [], module.predict_prompts

    def stumble(model, items, context):
        calls.append(len(items))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answer(model, items, context)

    (tmp_path / "o.parquet").unlink()
    monkeypatch.setattr(module, "predict_prompts", stumble)
    with pytest.raises(KeyboardInterrupt):
        predicted(run, tmp_path, rows, shard_size=2, overwrite=False)
    assert not (tmp_path / "o.parquet").exists()
    again = predicted(run, tmp_path, rows, shard_size=2, overwrite=False)
    assert calls == [2, 2, 2, 2]
    assert_frame_equal(again, expected)
    shutil.rmtree(tmp_path / "o.parquet.parts", ignore_errors=True)


def test_output_tells_which_part_a_prompt_was_in(run):
    table = pl.read_parquet(run / "predictions.parquet")
    assert set(table["part"].drop_nulls()) == {"train", "validation", "test"}
