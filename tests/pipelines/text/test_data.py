"""From a table of texts to parts: what the training part alone decides, and what stays together."""

import json
from collections import Counter
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.texts.labels import TextLabels
from headwise.data.texts.table import TextReading, read_text_data
from headwise.pipelines import load_task
from headwise.pipelines.engine.command_line import parse
from headwise.pipelines.text.coding import description_texts, learn_columns, table_numbers
from headwise.pipelines.text.data import TextPart, truth_of
from headwise.pipelines.text.parts import groups_of
from headwise.pipelines.text.spec import TextSpec
from headwise.tests.pipelines.text.messages import (
    SMALL,
    classed,
    messages,
    numbered,
    parts_of,
    write_rows,
)

PARTS = ("train", "validation", "test")


def of(splits: Any) -> dict[str, TextPart]:
    return {name: splits.part(name) for name in PARTS}


def with_parts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first half for training, a quarter each for validation and test."""
    count = len(rows)
    for k, row in enumerate(rows):
        row["part"] = "train" if 2 * k < count else "validation" if 4 * k < 3 * count else "test"
        row["customer"] = f"c{k}"
    return rows


def learned(spec: TextSpec) -> dict[str, Any]:
    """What of a spec the training part decides."""
    facts = cast("dict[str, Any]", spec.to_json())
    del facts["input"]["texts"], facts["parts"]
    return json.loads(json.dumps(facts))


@pytest.mark.parametrize("part", ["validation", "test"])
def test_nothing_is_learned_of_the_other_parts(tmp_path, part):
    """Other texts, words, labels, sources, languages and numbers there change nothing."""
    rows = with_parts(messages(160))
    for k, row in enumerate(rows):
        row["weight"] = k % 7
    further = {"table": ("plan", "weight"), "accept": ("copies",)}
    first, _ = parts_of(write_rows(tmp_path / "a.jsonl", rows), **further)
    for k, row in enumerate(rows):
        if row["part"] == part:
            row["text"] = f"quite other words stand here and here {k} " * 9
            row["labels"] = ["strange::label", "hardware::printer"]
            row |= {"source": "letters", "plan": "gold", "weight": 1000 + k}
    second, _ = parts_of(write_rows(tmp_path / "b.jsonl", rows), **further)
    assert learned(first.spec) == learned(second.spec)
    for name in ("terms.parquet", "tokenizer.json"):
        for splits, path in ((first, "a"), (second, "b")):
            splits.assets[name](tmp_path / f"{path}-{name}")
        assert (tmp_path / f"a-{name}").read_bytes() == (tmp_path / f"b-{name}").read_bytes()
    np.testing.assert_array_equal(first.train.coded.table, second.train.coded.table)
    if part == "test":
        np.testing.assert_array_equal(first.train.base, second.train.base)
        np.testing.assert_array_equal(first.validation.truth, second.validation.truth)


def test_each_text_is_in_one_part_with_its_own_labels(tmp_path):
    rows = messages(160)
    splits, _ = parts_of(write_rows(tmp_path / "t.jsonl", rows))
    by_id = {row["id"]: row for row in rows}
    ids = [name for part in of(splits).values() for name in part.table.ids]
    assert sorted(ids) == sorted(by_id)
    for part in of(splits).values():
        for k, name in enumerate(part.table.ids):
            assert part.table.texts[k] == by_id[name]["text"]
            named = [splits.spec.labels[j] for j in np.flatnonzero(part.truth[k])]
            assert named == sorted(by_id[name]["labels"])


def test_a_batch_holds_the_rows_that_are_asked_for(tmp_path):
    splits, _ = parts_of(write_rows(tmp_path / "t.jsonl", messages(160)), table=("seats",))
    part = splits.train
    batch = part.__getitems__([7, 0, 3])
    np.testing.assert_array_equal(batch["truth"], part.truth[[7, 0, 3]])
    np.testing.assert_array_equal(batch["base"], part.base[[7, 0, 3]])
    np.testing.assert_array_equal(batch["table"], part.coded.table[[7, 0, 3]])
    for place, row in enumerate((7, 0, 3)):
        mask = batch["mask"][place]
        assert batch["tokens"][place][mask].tolist() == part.coded.tokens[row].ids.tolist()
        counted = part.coded.counted[row]
        amounts = dict(zip(batch["features"][place].tolist(), batch["amounts"][place].tolist()))
        amounts.pop(0, None)
        expected = dict(zip(counted.indices.tolist(), counted.data.tolist(), strict=True))
        expected.pop(0, None)
        assert amounts.items() >= expected.items()
    assert "base" not in splits.validation.__getitems__([0])


def test_groups_and_equal_texts_are_joined_in_chains(tmp_path):
    rows = [
        {"text": "one", "label": "a", "group": "g1"},
        {"text": "two", "label": "a", "group": "g1"},
        {"text": "TWO ", "label": "a", "group": "g2"},
        {"text": "three", "label": "b", "group": "g2"},
        {"text": "four", "label": "b", "group": ""},
        {"text": "", "label": "b", "group": ""},
        {"text": " ", "label": "b", "group": ""},
    ]
    with opened() as account:
        table = read_text_data(write_rows(tmp_path / "t.csv", rows), TextReading())
        groups = groups_of(table)
    assert len({*groups[:4].tolist()}) == 1
    assert len({*groups[3:].tolist()}) == 4, "empty texts are no copies of each other"
    assert "1 texts that are there more than once" in " ".join(account.lines())


@pytest.mark.parametrize("rows", [messages(160), classed()], ids=["labels", "classes"])
def test_no_group_is_in_two_parts(tmp_path, rows):
    splits, said = parts_of(write_rows(tmp_path / "t.jsonl", rows))
    groups = [set(part.table.groups) for part in of(splits).values()]
    assert all(groups)
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert f"of {len(set().union(*groups))} groups (column 'customer')" in said


def test_it_is_said_where_each_text_is_its_own_group(tmp_path):
    rows = [{"text": row["text"], "label": row["label"]} for row in classed()]
    _, said = parts_of(write_rows(tmp_path / "t.csv", rows))
    assert "each of the texts counts as its own group" in said


def test_classes_are_as_frequent_in_all_parts(tmp_path):
    splits, _ = parts_of(write_rows(tmp_path / "t.csv", classed(150)))
    for part in of(splits).values():
        share = part.truth.mean(0)
        assert share.min() > 0.2
        assert share.max() < 0.5


def test_parts_that_the_table_names_stay_as_they_are(tmp_path):
    rows = with_parts(classed())
    for row in rows[:5]:
        row["part"] = ""
    splits, said = parts_of(write_rows(tmp_path / "t.csv", rows))
    expected = Counter(row["part"] for row in rows[5:])
    assert {name: len(part) for name, part in of(splits).items()} == dict(expected)
    assert splits.spec.parts == dict(expected)
    assert "5 texts of no part" in said


def test_a_text_in_two_parts_is_refused_unless_accepted(tmp_path):
    rows = with_parts(classed())
    rows[-1]["text"], rows[-1]["label"] = rows[0]["text"].upper(), rows[0]["label"]
    path = write_rows(tmp_path / "t.csv", rows)
    with pytest.raises(
        InputError, match=r"more than once in the data, in train and in test.*--acc"
    ):
        parts_of(path)
    _, said = parts_of(path, accept=("copies",))
    assert "accepted: " in said


@pytest.mark.parametrize(("first", "last"), [(0, -1), (0, 70), (70, -1)])
def test_a_group_in_two_parts_is_refused(tmp_path, first, last):
    rows = with_parts(classed())
    rows[first]["customer"] = rows[last]["customer"] = "both"
    with pytest.raises(InputError, match=r"group 'both' is in the \w+ and in the \w+ part"):
        parts_of(write_rows(tmp_path / "t.csv", rows), accept=("copies",))


def test_an_equal_text_with_another_class_is_refused_unless_accepted(tmp_path):
    rows = classed()
    rows[1]["text"] = rows[0]["text"].replace("message", "Message ")
    path = write_rows(tmp_path / "t.csv", rows)
    with pytest.raises(InputError, match=r"has two classes, 'hardware' and 'network'.*two-labels"):
        parts_of(path)
    _, said = parts_of(path, accept=("two-labels",))
    assert "1 texts whose labels differ from those of an equal text" in said


def test_an_equal_text_with_other_labels_is_named(tmp_path):
    rows = messages(160)
    rows[1] |= {"text": rows[0]["text"], "labels": ["network::vpn"]}
    rows[0]["labels"] = ["network::wifi"]
    _, said = parts_of(write_rows(tmp_path / "t.jsonl", rows))
    assert "texts whose labels differ from those of an equal text" in said


def test_empty_texts_with_two_classes_are_no_doubt(tmp_path):
    rows = classed()
    rows[0]["text"] = rows[1]["text"] = ""
    splits, said = parts_of(write_rows(tmp_path / "t.csv", rows))
    assert "2 empty texts" in said
    assert sum(map(len, of(splits).values())) == len(rows)


def test_rare_classes_are_left_out_and_named(tmp_path):
    rows = classed()
    rows[0]["label"], rows[1]["label"] = "once", "odd"
    splits, said = parts_of(write_rows(tmp_path / "t.csv", rows))
    assert splits.spec.labels == ["billing", "hardware", "network"]
    assert sum(map(len, of(splits).values())) == len(rows) - 2
    assert "2 classes with fewer than 3 texts (--least), with their texts (odd, once)" in said


@pytest.mark.parametrize(
    ("rows", "options", "reason"),
    [
        ([{**row, "label": "same"} for row in classed()], {}, "has the label 'same'; two classes"),
        (
            [{**row, "label": f"l{k}"} for k, row in enumerate(classed())],
            {},
            "different labels on .* name the column of the labels",
        ),
        ([{**row, "score": 2.5} for row in numbered()], {"goal": "number"}, "are the same"),
        ([{"text": f"w{k}", "label": "ab"[k % 2]} for k in range(40)], {}, "no words to count"),
        (classed(4), {}, "has no (test|validation) part"),
    ],
    ids=["one class", "a class for each text", "one number", "no word twice", "too few texts"],
)
def test_data_that_nothing_is_learned_from_is_refused(tmp_path, rows, options, reason):
    with pytest.raises(InputError, match=reason) as caught:
        parts_of(write_rows(tmp_path / "t.csv", rows), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"thresholds": "one"}, {"unlabelled": True}, {"hierarchy": "/"}],
    ids=lambda options: next(iter(options)),
)
def test_options_of_labels_are_refused_for_classes(tmp_path, options):
    flag = next(iter(options))
    with pytest.raises(InputError, match=f"--{flag}: is read by several labels of a text"):
        parts_of(write_rows(tmp_path / "t.csv", classed()), **options)


def test_labels_have_the_levels_that_the_user_says(tmp_path):
    path = write_rows(tmp_path / "t.jsonl", messages(160))
    assert parts_of(path)[0].spec.levels == "::"
    assert parts_of(path, hierarchy="none")[0].spec.levels == ""
    assert parts_of(path, hierarchy="/")[0].spec.levels == "/"


def test_a_column_of_labels_that_is_never_1_is_left_out_and_named(tmp_path):
    rows = [
        {"text": row["text"], "a": int(k % 2), "b": int(k % 3 == 0), "never": 0}
        for k, row in enumerate(classed())
    ]
    path = write_rows(tmp_path / "t.csv", rows)
    splits, said = parts_of(path, label_columns=("a", "b", "never"))
    assert splits.spec.labels == ["a", "b"]
    assert "columns of labels that no text of the training part has (never)" in said


def test_rows_without_a_label_are_refused_or_left_out(tmp_path):
    rows = classed()
    rows[3]["label"] = None
    path = write_rows(tmp_path / "t.csv", rows)
    with pytest.raises(InputError, match=r"row 4.*no label.*--accept missing-labels"):
        parts_of(path)
    splits, said = parts_of(path, accept=("missing-labels",))
    ids = {name for part in of(splits).values() for name in part.table.ids}
    assert ids == {row["id"] for row in rows} - {"m3"}
    assert "1 rows without a label (row 4)" in said


def test_the_logits_beneath_a_model_are_of_models_that_the_text_had_no_part_in(tmp_path):
    """A text that says a class by a word of its own: a model that saw it gives it away."""
    rows = [{"text": f"word{k} common words", "label": ("a", "b")[k % 2]} for k in range(60)]
    rows += [{"text": f"word{k} other words", "label": ("a", "b")[k % 2]} for k in range(60)]
    for k, row in enumerate(rows):
        row["customer"] = f"c{k % 60}"
    splits, _ = parts_of(write_rows(tmp_path / "t.csv", rows))
    part = splits.train
    fitted = splits.spec.fitted
    assert fitted is not None
    seen = part.coded.counted @ fitted.weight + fitted.bias
    right = part.truth.argmax(1)
    assert (seen.argmax(1) == right).all()
    assert (part.base.argmax(1) == right).mean() < 0.7


def opened_again(splits: Any, data: Any, *, as_test: bool = False, **options: Any) -> Any:
    card = load_task("text")
    folder = data.parent / "assets"
    folder.mkdir(exist_ok=True)
    for name, write in splits.assets.items():
        write(folder / name)
    spec = TextSpec.from_json(json.loads(json.dumps(splits.spec.to_json())))
    spec = spec.with_assets(spec.assets, folder)
    parsed = parse(card, "train", [], values={"data": str(data), **SMALL, **options})
    return card.load().open_data(parsed, spec, as_test=as_test)


RARE = [{**row, "label": "odd"} if k % 40 == 0 else row for k, row in enumerate(classed(80))]


@pytest.mark.parametrize(
    "rows",
    [messages(160), classed(), RARE, numbered()],
    ids=["labels", "classes", "rare", "number"],
)
def test_the_parts_of_a_run_are_the_same_when_it_is_opened_again(tmp_path, rows):
    data = write_rows(tmp_path / "t.jsonl", rows)
    splits, _ = parts_of(data)
    again = opened_again(splits, data)
    for name, part in of(splits).items():
        other = again.part(name)
        assert part.table.texts == other.table.texts
        np.testing.assert_array_equal(part.truth, other.truth)
        np.testing.assert_array_equal(part.groups, other.groups)
        assert (part.coded.counted != other.coded.counted).nnz == 0
        np.testing.assert_array_equal(part.coded.table, other.coded.table)
        np.testing.assert_array_equal(part.coded.source, other.coded.source)
        for row, other_row in zip(part.coded.tokens, other.coded.tokens, strict=True):
            assert row.ids.tolist() == other_row.ids.tolist()


def test_new_data_with_a_class_that_the_training_lacks_is_refused(tmp_path):
    splits, _ = parts_of(write_rows(tmp_path / "t.csv", classed()))
    rows = classed(6)
    rows[0]["label"] = rows[3]["label"] = "weather"
    with pytest.raises(InputError, match="class 'weather' of 2 texts is not in the training"):
        opened_again(splits, write_rows(tmp_path / "n.csv", rows), as_test=True)


def test_labels_that_the_training_lacks_are_in_no_score_and_named(tmp_path):
    splits, _ = parts_of(write_rows(tmp_path / "t.jsonl", messages(160)))
    rows = messages(20)
    rows[0]["labels"] = ["weather::rain", "network::vpn"]
    with opened() as account:
        part = opened_again(splits, write_rows(tmp_path / "n.jsonl", rows), as_test=True).test
    assert len(part) == 20
    assert part.truth[0].sum() == 1
    assert "1 labels that the model does not know, in no score (weather::rain)" in " ".join(
        account.lines()
    )


def test_numbers_are_scaled_by_mean_and_deviation_of_the_training_part(tmp_path):
    splits, _ = parts_of(write_rows(tmp_path / "t.csv", numbered()), table=("pages",))
    spec, part = splits.spec, splits.train
    assert part.truth.mean() == pytest.approx(0, abs=1e-6)
    assert part.truth.std() == pytest.approx(1, abs=1e-5)
    by_text = {row["text"]: row["score"] for row in numbered()}
    values = part.truth[:, 0] * spec.deviation + spec.mean
    np.testing.assert_allclose(values, [by_text[text] for text in part.table.texts], atol=1e-5)


def columns_of(cells: Any, rows: list[int] | None = None) -> tuple[Any, np.ndarray]:
    table = pl.DataFrame({"x": cells})
    chosen = np.arange(len(table)) if rows is None else np.array(rows)
    columns = learn_columns(table, chosen)
    return columns, table_numbers(table, columns, len(table))


def test_a_column_of_numbers_is_scaled_and_a_missing_one_is_the_mean():
    _, values = columns_of([1.0, 2.0, 3.0, None])
    np.testing.assert_allclose(values[:, 0], [-1.2247449, 0, 1.2247449, 0], atol=1e-6)


def test_a_column_of_words_has_a_number_for_each_and_one_for_the_rest():
    columns, values = columns_of(["a", "b", "a", ""], rows=[0, 1])
    assert columns[0]["words"] == ["a", "b", "(other)"]
    assert values.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
    columns, values = columns_of(["(other)", "b", "(other)"])
    assert values.shape == (3, len(columns[0]["words"])) == (3, 2)


def test_true_and_false_are_words_whatever_the_file_calls_them():
    columns, _ = columns_of([True, False, True])
    table = pl.DataFrame({"x": ["false", "true"]})
    values = table_numbers(table, columns, 2)
    assert values.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_the_decimal_mark_is_that_of_the_training_whatever_the_part_holds():
    columns, _ = columns_of(["1,5", "2,5", "1.000,25"])
    for cells, expected in ((["1,500"], 1.5), (["2.000"], 2000.0), (["3"], 3.0)):
        values = table_numbers(pl.DataFrame({"x": cells}), columns, 1)
        back = values[0, 0] * columns[0]["deviation"] + columns[0]["mean"]
        assert back == pytest.approx(expected, abs=1e-3)


def test_a_number_far_away_stays_finite():
    columns, _ = columns_of([1.0, 2.0])
    values = table_numbers(pl.DataFrame({"x": [1e300, -1e300]}), columns, 2)
    assert np.isfinite(values).all()


def test_a_word_among_numbers_is_refused_with_its_row():
    columns, _ = columns_of([1.0, 2.0])
    table = pl.DataFrame({"x": ["1", "many"]})
    with pytest.raises(InputError, match="column 'x', row 1026: 'many' is no number"):
        table_numbers(table, columns, 2, 1024)


def test_a_word_outside_of_the_training_part_makes_the_column_words(tmp_path):
    rows = with_parts(classed())
    for k, row in enumerate(rows):
        row["size"] = "large" if row["part"] == "test" and k % 5 == 0 else str(k % 4)
    splits, _ = parts_of(write_rows(tmp_path / "t.csv", rows), table=("size",))
    assert splits.spec.table[0]["kind"] == "words"
    assert splits.spec.table[0]["words"] == ["0", "1", "2", "3", "(other)"]


@pytest.mark.parametrize("header", ["label,text", "text,name", "description,tag"])
def test_descriptions_are_joined_to_their_labels_in_any_order_of_columns(tmp_path, header):
    rows = [("a", "the first"), ("b", "the second"), ("c", "")]
    text_first = header.split(",")[0] in ("text", "description")
    lines = [",".join(row[::-1] if text_first else row) for row in rows]
    path = tmp_path / "d.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    with opened() as account:
        texts = description_texts(str(path), ["b", "a", "d"])
    assert texts == ["b: the second", "a: the first", "d: d"]
    said = " ".join(account.lines())
    assert "labels without a description, of which the name is taken (d)" in said


def test_a_label_with_two_descriptions_is_refused(tmp_path):
    (tmp_path / "d.csv").write_text("label,text\na,x\na,y\n")
    with pytest.raises(InputError, match="label 'a' has two descriptions"):
        description_texts(str(tmp_path / "d.csv"), ["a"])


def test_a_model_of_sources_needs_them(tmp_path):
    rows = [{"text": row["text"], "label": row["label"]} for row in classed()]
    with pytest.raises(InputError, match="has no column of sources; name it with --columns"):
        parts_of(write_rows(tmp_path / "t.csv", rows), model="sources")


def test_a_long_text_is_read_up_to_its_most_tokens_and_that_is_said(tmp_path):
    rows = classed()
    rows[0]["text"] = "the printer is slow " * 40
    splits, said = parts_of(write_rows(tmp_path / "t.csv", rows), most_tokens=64, window=32)
    longest = max(len(row.ids) for part in of(splits).values() for row in part.coded.tokens)
    assert longest == 64
    assert "1 texts of which the network reads the first 64 tokens" in said


def test_lines_of_json_of_which_the_last_differ_lose_no_field_and_no_label(tmp_path):
    rows = [{"text": f"text {k} on this day", "label": 1 + k % 2} for k in range(800)]
    rows[-40:] = [{**row, "label": "late", "size": k} for k, row in enumerate(rows[-40:])]
    splits, _ = parts_of(write_rows(tmp_path / "t.jsonl", rows), table=("size",), model="sparse")
    assert splits.spec.labels == ["1", "2", "late"]
    assert sum(part.truth[:, 2].sum() for part in of(splits).values()) == 40
    assert splits.spec.table[0]["kind"] == "number"
    path = tmp_path / "twice.jsonl"
    path.write_text((tmp_path / "t.jsonl").read_text() + '{"text": "a", "label": 1, "label": 2}\n')
    with pytest.raises(InputError, match=r"column 'label' appears more than once in line 801"):
        parts_of(path)


def test_ids_of_several_texts_and_separators_within_classes_are_in_the_account(tmp_path):
    rows = [{**row, "id": f"m{k % 119}"} for k, row in enumerate(classed())]
    for row in rows:
        row["label"] = row["label"].replace("work", "work; other")
    _, account = parts_of(write_rows(tmp_path / "t.jsonl", rows), model="sparse")
    assert "1 ids that several texts have" in account
    assert "1 labels with ';' in them, one class each" in account


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_part_of_empty_texts_alone_is_refused(tmp_path, part):
    rows = with_parts(classed())
    for row in rows:
        row["text"] = " " if row["part"] == part else row["text"]
    with pytest.raises(InputError, match=f"all texts of the {part} part are empty"):
        parts_of(write_rows(tmp_path / "t.jsonl", rows), model="sparse")


def test_missing_numbers_are_counted_in_training_and_prediction(tmp_path):
    rows = [{**row, "pages": None if k % 10 == 3 else 1} for k, row in enumerate(numbered())]
    words = "missing numbers in column 'pages', taken as its mean"
    splits, account = parts_of(
        write_rows(tmp_path / "t.jsonl", rows), table=("pages",), model="sparse"
    )
    assert f"12 {words}" in account
    with opened() as of_prediction:
        table_numbers(pl.DataFrame({"pages": [1.0, None]}), splits.spec.table, 2)
    assert f"1 {words}" in " | ".join(of_prediction.lines())


def test_labels_none_of_which_the_model_knows_are_refused(tmp_path):
    splits, _ = parts_of(write_rows(tmp_path / "t.jsonl", messages()), model="sparse")
    labels = TextLabels("labels", [("Hardware::Printer",), ()], np.zeros(0))
    with pytest.raises(InputError, match="knows none of the labels, such as 'Hardware::Printer'"):
        truth_of(labels, splits.spec)
    known = TextLabels("labels", [("Hardware::Printer", splits.spec.labels[0])], np.zeros(0))
    assert truth_of(known, splits.spec).sum() == 1
