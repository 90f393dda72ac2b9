"""Topics as many tools write them."""

import json

import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.texts.corpus import read_texts
from headwise.data.texts.topics import Topic, read_topics

CAT, TAX = ("cat", "dog", "pet"), ("tax", "law", "court")
PAIRS = {
    word: weight
    for words in (CAT, TAX)
    for word, weight in zip(words, (0.5, 0.3, 0.2), strict=True)
}


def weighted(words):
    return [[word, PAIRS[word]] for word in words]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ([list(CAT), list(TAX)], ("0", "1")),
        ([weighted(CAT), weighted(TAX)], ("0", "1")),
        ([[[w, n] for n, w in [(0.5, "cat"), (0.3, "dog"), (0.2, "pet")]], list(TAX)], ("0", "1")),
        ([[{"word": w, "value": 0.1} for w in CAT], [{"Term": w} for w in TAX]], ("0", "1")),
        ([dict(reversed(weighted(CAT))), dict(weighted(TAX))], ("0", "1")),
        ({"animals": list(CAT), "law": " ".join(TAX)}, ("animals", "law")),
        ({"animals": weighted(CAT), "law": dict(weighted(TAX))}, ("animals", "law")),
        # gensim: show_topics, formatted and not.
        ([[0, weighted(CAT)], [7, weighted(TAX)]], ("0", "7")),
        (
            [[0, '0.5*"cat" + 0.3*"dog" + 0.2*"pet"'], [1, "0.5*tax + 0.3*law + 1e-3*court"]],
            ("0", "1"),
        ),
        # OCTIS: the output of a model.
        ({"topics": [list(CAT), list(TAX)], "topic-word-matrix": [[0.1, 0.2]]}, ("0", "1")),
        # BERTopic: get_topics, and its saved topics.json, where "topics" are those of the texts.
        ({"-1": weighted(TAX), "0": weighted(CAT), "1": weighted(TAX)}, ("0", "1")),
        (
            {"topics": [0, 1, -1], "topic_sizes": {"0": 4}, "topic_representations": {
                "0": weighted(CAT), "1": weighted(TAX)}},
            ("0", "1"),
        ),
        # This package.
        ({"method": "nmf", "topics": [{"name": "a", "texts": 3, "words": CAT, "weights": [1, 1, 1]},
                                      {"name": "b", "words": TAX}]}, ("a", "b")),
    ],
)  # fmt: skip
def test_json_of_any_tool(tmp_path, value, names) -> None:
    path = tmp_path / "any.json"
    path.write_text(json.dumps(value))
    expected = [Topic(name, words) for name, words in zip(names, (CAT, TAX), strict=True)]
    assert read_topics(str(path)) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "topic,word,weight\n0,dog,.3\n1,tax,.5\n0,cat,.5\n0,pet,.2\n1,law,.3\n"
                  "1,court,.2\n"),
        ("t.csv", "topic,word\n0,cat\n0,dog\n0,pet\n1,tax\n1,law\n1,court\n"),
        ("t.csv", "word1,word2,word3\ncat,dog,pet\ntax,law,court\n"),
        ("t.tsv", "topic\twords\n0\tcat dog pet\n1\ttax, law, court\n"),
        # BERTopic: get_topic_info.
        ("t.csv", "Topic,Count,Name,Representation\n-1,9,-1_x,\"['x', 'y']\"\n"
                  "0,5,0_cat,\"['cat', 'dog', 'pet']\"\n1,4,1_tax,\"['tax', 'law', 'court']\"\n"),
        ("t.txt", "cat dog pet\n\ntax,law,court\n"),
        # MALLET: --output-topic-keys.
        ("t.txt", "0\t0.25\tcat dog pet \n1\t0.25\ttax law court \n"),
    ],
)  # fmt: skip
def test_tables_and_lines_of_any_tool(tmp_path, name, text) -> None:
    (tmp_path / name).write_text(text)
    assert read_topics(str(tmp_path / name)) == [Topic("0", CAT), Topic("1", TAX)]


def test_what_is_left_out_is_said(tmp_path) -> None:
    path = tmp_path / "t.json"
    path.write_text(
        json.dumps({"-1": ["x"], "a": ["cat", " cat ", "dog", ""], "b": [], "日本": ["東京"]})
    )
    with opened() as account:
        topics = read_topics(str(path))
    assert topics == [Topic("a", ("cat", "dog")), Topic("日本", ("東京",))]
    lines = " ".join(account.lines())
    assert "topics of outliers (-1)" in lines
    assert "1 words that their topic names twice" in lines
    assert "topics without words" in lines


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("t.json", "{", "is no JSON"),
        ("t.json", "[]", "holds no topics"),
        ("t.json", "[[]]", "holds no topics"),
        ("t.json", '{"topcs": 3}', "no key 'topics'; did you mean 'topcs'"),
        ("t.json", '[{"name": "a", "wrods": ["cat"]}]', "topic 0: .* 'words'; did you mean"),
        ("t.json", '[[{"wrd": "cat"}]]', "topic 0: .*no key 'word'; did you mean 'wrd'"),
        ("t.json", "[[1, 2]]", "topic 0: 1 is no word"),
        ("t.json", "3", "should hold a list of topics"),
        ("t.csv", "topc,word\n0,cat\n", "no column 'topic'; did you mean 'topc'"),
        ("t.csv", "topic,wrods\n0,cat\n", "no column 'words'; did you mean 'wrods'"),
        ("t.csv", "topic,word,weight\n0,cat,heavy\n", "column 'weight' should hold numbers"),
        ("t.pkl", "x", "unknown kind of file"),
        ("t.txt", " \n", "holds no topics"),
    ],
)  # fmt: skip
def test_a_file_without_topics_is_refused_in_one_line(tmp_path, name, text, reason) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        read_topics(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_texts_of_lines_are_cut_at_line_ends_alone(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes("one\x0cpage\u2028more\r\n\r\ntwo\rthree\n".encode())
    texts = read_texts(str(path))
    assert texts.texts == ["one\x0cpage\u2028more", "two", "three"]
    assert texts.rows == [1, 3, 4]
