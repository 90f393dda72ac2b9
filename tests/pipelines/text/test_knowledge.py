"""Texts of knowledge, which the network reads beside the text."""

import json
import random
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.texts.knowledge import MOST_TERMS, Terms, read_terms
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.engine.runs.loaded import load_run
from headwise.pipelines.text.coding import inputs_of
from headwise.pipelines.text.explanation.pages import json_lines, section, write_html
from headwise.pipelines.text.explanation.sums import Explainer
from headwise.pipelines.text.prediction import coder_of, plain_table
from headwise.tests.pipelines.text.messages import SMALL, classed, parts_of, predict, train
from headwise.tests.pipelines.text.messages import write_rows as write

KINDS = {
    "fruit": "sweet food that grows on trees",
    "tool": "metal thing to work with",
    "animal": "living being that runs and eats",
}
LEARNS: dict[str, Any] = {"epochs": 8, "lr": 0.02, "patience": 8, "choose": "model"}


def rows(count: int = 90) -> list[dict[str, Any]]:
    """Texts about things with names of their own: only what is known about a thing says its kind,
    and of every tenth nothing is.
    """
    generator, records = random.Random(0), []
    for k in range(count):
        name, kind = "".join(generator.sample("bdfgklmnprst", 6)), list(KINDS)[k % 3]
        known = f"{name} is a {KINDS[kind]}" if k % 10 else None
        records.append(
            {"text": f"there is one {name} here", "label": kind, "info": known, "k": name}
        )
    return records


@pytest.fixture(scope="module")
def column_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("knowledge")
    data = write(folder / "t.jsonl", rows())
    train(data, folder / "run", model="attention", knowledge="info", **LEARNS)
    return folder / "run"


@pytest.fixture(scope="module")
def terms_run(tmp_path_factory):
    """Of a table of terms, as a correction of the linear model."""
    folder = tmp_path_factory.mktemp("terms")
    known = [{"term": row["k"], "text": row["info"]} for row in rows() if row["info"]]
    terms = write(folder / "terms.csv", known)
    data = write(folder / "t.jsonl", [{k: row[k] for k in ("text", "label")} for row in rows()])
    train(data, folder / "run", knowledge_texts=str(terms), **LEARNS)
    terms.unlink()  # the run keeps what it needs
    return folder / "run"


def right(run, folder, source) -> tuple[float, float]:
    """Shares of right classes, of texts with knowledge and of those without."""
    answered = predict(run, source, folder / "out.jsonl")["prediction"].to_list()
    known = [bool(row["info"]) for row in rows()]
    hits = np.array([a == row["label"] for a, row in zip(answered, rows(), strict=True)])
    return float(hits[known].mean()), float(hits[~np.array(known)].mean())


@pytest.mark.parametrize("name", ["column_run", "terms_run"])
def test_a_label_that_only_the_knowledge_carries_is_learned(name, request, tmp_path):
    run = request.getfixturevalue(name)
    with_knowledge, without = right(run, tmp_path, run.parent / "t.jsonl")
    assert with_knowledge > 0.95
    assert without < 0.8
    account = (tmp_path / "out.jsonl.account.json").read_text()
    assert "texts without knowledge" in account


def test_lines_without_the_column_are_read_without_knowledge_and_a_table_is_refused(
    column_run, tmp_path, headwise
):
    (tmp_path / "t.txt").write_text("".join(f"{row['text']}\n" for row in rows()))
    shares = right(column_run, tmp_path, tmp_path / "t.txt")
    assert max(shares) < 0.7
    table = write(tmp_path / "t.csv", [{"text": "there is one"}])
    words = ["text", "predict", "--run", column_run, "--input", table]
    _, lines = headwise(*words, "--output", tmp_path / "a.jsonl")
    assert any("--knowledge info: there is no column 'info'" in line for line in lines)


@pytest.mark.parametrize("name", ["column_run", "terms_run"])
def test_words_knowledge_and_bias_sum_to_the_logit(name, request):
    run = request.getfixturevalue(name)
    loaded = load_run(load_task("text").load(), str(run), "cpu")
    coder, some = coder_of(loaded.spec), rows()[:12]
    table = plain_table([row["text"] for row in some], [row["k"] for row in some])
    if name == "column_run":
        cells = pl.DataFrame({"info": [row["info"] for row in some]})
        table = table.__class__(**{**vars(table), "table": cells})
    explainer = Explainer(loaded.model, coder, loaded.calibration, loaded.device)
    explained = list(explainer.texts(table, np.arange(3), 1))
    sections = []
    for text, row in zip(explained, some, strict=True):
        assert text.knowledge is not None
        total = text.words.sum(0) + text.knowledge.words.sum(0) + text.table
        total += text.symbols + text.bias
        np.testing.assert_allclose(total, text.logits, atol=1e-6)
        assert text.error < 1e-6
        assert row["k"] in text.knowledge.text or not row["info"]
        assert (np.abs(text.knowledge.words).max(initial=0) > 0.1) == bool(row["info"])
        facts = next(iter(json_lines(text, loaded.spec, None)))
        added = sum(w["contribution"] for w in facts["words"] + facts["knowledge"]["words"])
        rest = facts["bias"] + facts["symbols"] + facts["table"]
        assert abs(added + rest - facts["logit"]) < 1e-6
        for word in facts["knowledge"]["words"]:
            assert text.knowledge.text[word["start"] : word["end"]] == word["word"]
        sections.append(section(text, loaded.spec, None))
    page = write_html(sections, {}, exact=True, is_divided=True, left_out=0, check=None)
    assert page.count("Knowledge that the model reads") == 3 * sum(bool(r["info"]) for r in some)
    assert '">metal</mark>' in page


def test_the_size_of_a_batch_changes_nothing(column_run, tmp_path):
    data = column_run.parent / "t.jsonl"
    one, many = (
        predict(column_run, data, tmp_path / f"{size}.parquet", batch_size=size, all_labels=True)
        for size in (1, 64)
    )
    for name in ("p_fruit", "p_tool", "p_animal"):
        np.testing.assert_allclose(one[name], many[name], atol=1e-5)


def test_the_exported_program_reads_knowledge(column_run, tmp_path):
    from headwise import pipelines

    pipelines.text.export(run=str(column_run), output=str(tmp_path / "m.pt2"))
    program = torch.export.load(tmp_path / "m.pt2").module()
    loaded = load_run(load_task("text").load(), str(column_run), "cpu")
    splits, _ = parts_of(column_run.parent / "t.jsonl", model="attention", knowledge="info")
    batch = inputs_of(splits.test.coded.inputs(np.arange(5), splits.test.padding))
    with torch.no_grad():
        torch.testing.assert_close(program(*batch), loaded.model(*batch), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model", ["sparse", "cross", "sources"])
@pytest.mark.parametrize("option", ["knowledge", "knowledge_texts"])
def test_models_that_read_no_knowledge_refuse_it(model, option, headwise, tmp_path):
    flags = ["--model", model, f"--{option.replace('_', '-')}", "info"]
    flags += ["--table", "k"] if model == "cross" else []
    data = write(tmp_path / "t.jsonl", rows(12))
    code, lines = headwise("text", "train", "--data", data, "--run", tmp_path / "run", *flags)
    assert (code, len(lines)) == (2, 1), lines
    assert f"--{option.replace('_', '-')}" in lines[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"knowledge": "info", "knowledge_texts": "x.csv"}, "give one of them"),
        ({"knowledge": "info", "table": ("info",)}, "is another column already"),
        ({"knowledge": "inof"}, "--knowledge inof: there is no column 'inof'; did you mean 'info'"),
        ({"knowledge": "label"}, "says the same as the labels|there is no column 'label'"),
        ({"knowledge": "empty"}, "all cells are empty"),
    ],
)
def test_knowledge_that_cannot_be_read_is_refused(options, words, tmp_path):
    data = write(tmp_path / "t.jsonl", [{**row, "empty": " "} for row in rows(30)])
    with pytest.raises(InputError, match=words):
        parts_of(data, model="attention", **options)


def test_a_run_without_knowledge_has_the_inputs_that_it_always_had(tmp_path):
    splits, _ = parts_of(write(tmp_path / "t.csv", classed()))
    assert splits.spec.knowledge_column is None
    assert list(splits.train.coded.inputs([0], 0)) == [
        "tokens", "mask", "features", "amounts", "table", "source",
    ]  # fmt: skip
    with torch.no_grad():
        model = load_task("text").load().build_model(_options(tmp_path), splits.spec)
    assert not any("knowledge" in name for name in model.state_dict())


def _options(folder):
    values = {"data": str(folder / "t.csv"), **SMALL}
    return parse(load_task("text"), "train", [], values=values)


def test_terms_are_found_as_entire_words_the_longest_first_and_once():
    terms = Terms({"heat": "energy", "heat pump": "moves heat", "C++": "a language", "c": "letter"})
    assert terms.named("A HEAT pump, heat; reheat the heat-pump") == ["heat pump", "heat"]
    assert terms.named("heat pumps") == ["heat"]
    assert terms.named("café") == []
    assert terms.knowledge("the heat of a heat pump") == "heat: energy\nheat pump: moves heat"
    many = Terms({f"t{k}": "x" for k in range(40)})
    assert many.knowledge(" ".join(f"t{k}" for k in range(40))).count("\n") == MOST_TERMS - 1


def test_bad_tables_of_terms_are_refused(tmp_path):
    path = tmp_path / "terms.csv"
    for text, words in {
        "term,text\na,x\na,y\n": "term 'a' has two descriptions",
        "term,text\nA,x\na,y\n": "'A' and 'a' are the same words",
        "term,text\na,\n": "has no term with a text",
        "word,text\na,x\n": "there is no column 'term'",
    }.items():
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            read_terms(str(path))
    path.write_text("term,text\n!!,x\nbee,an insect\n")
    with opened() as account:
        assert list(read_terms(str(path)).texts) == ["bee"]
    assert "terms without a word" in " | ".join(account.lines())
    assert json.loads(json.dumps(account.to_json()))
