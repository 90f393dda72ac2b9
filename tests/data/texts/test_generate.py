"""The generated messages: the same bytes, labels that are in the words, groups of several texts."""

import hashlib
import json
from collections import Counter

import pytest

from headwise.base.errors import InputError
from headwise.data.texts.generate import MATTERS, write_sample_texts

DIGEST = "df7ec416144ef0e1a5524deadf40f94d5929ee51c06f79db53f31894fafe23d3"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = write_sample_texts(tmp_path_factory.mktemp("sample"))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_bytes_are_the_same_each_time(tmp_path):
    path = write_sample_texts(tmp_path)
    assert path.name == "generated-messages.jsonl"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == DIGEST, "runs on the sample made before would not be found again"


def test_each_label_is_said_in_words_of_its_own(rows):
    for row in rows:
        for label in row["labels"]:
            words = [phrase[1:].casefold() for phrase in MATTERS[label]]
            assert any(phrase in row["text"].casefold() for phrase in words), row


def test_what_was_solved_is_named_and_has_no_label(rows):
    solved = 0
    for row in rows:
        for label, phrases in MATTERS.items():
            named = any(phrase[1:].casefold() in row["text"].casefold() for phrase in phrases)
            solved += named and label not in row["labels"]
    assert 0.3 * len(rows) < solved < 0.7 * len(rows)


def test_labels_are_frequent_and_customers_write_several_messages(rows):
    counts = Counter(label for row in rows for label in row["labels"])
    assert counts.keys() == MATTERS.keys()
    assert min(counts.values()) > 80
    assert max(Counter(row["customer"] for row in rows).values()) > 3
    assert len({row["id"] for row in rows}) == len(rows) == 900


def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        write_sample_texts(tmp_path / "missing")
