"""Tables of judged pairs, under the names and words that people use."""

import math

import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.texts.judgements import preference_of, read_judgements


def read(tmp_path, text: str, columns=None):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with opened() as account:
        return read_judgements(str(tmp_path / "t.csv"), columns), account.lines()


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("first", 1), ("SECOND", -1), ("[[A]]", 1), ("B", -1), ("1", 1), ("2", -1), ("-1", -1),
        ("0", 0), ("tie (bothbad)", 0), ("neither", 0), ("gpt", 1), ("llama", -1),
        ("perhaps", None), ("3", None),
    ],
)  # fmt: skip
def test_words_for_a_preference(cell, value) -> None:
    assert preference_of(cell, {"first": "gpt", "second": "llama"}) == value


def test_both_orders_are_one_pair_by_their_answers(tmp_path) -> None:
    judged, _ = read(
        tmp_path,
        "question,model_a,model_b,winner\nq1,x,y,x\nq1,y,x,A\nq2,x,y,tie\nq2,y,x,model_b\n",
    )
    rows = judged.rows
    assert rows["pair"].to_list() == [0, 0, 1, 1]
    assert rows["swapped"].to_list() == [False, True, False, True]
    assert rows["preference"].to_list() == [1, 1, 0, -1]
    assert rows["log_ratio"].null_count() == 4  # names have no length


def test_both_orders_are_one_pair_by_an_id(tmp_path) -> None:
    judged, lines = read(
        tmp_path, "pair,first,second,preferred\np,x,y,1\np,y,x,1\nr,x,y,2\np,x,z,2\n"
    )
    assert judged.rows["pair"].to_list() == [0, 0, 1]
    assert any("other answers than their pair's first row (p)" in line for line in lines)


def test_an_order_can_stand_for_the_answers(tmp_path) -> None:
    judged, _ = read(tmp_path, "pair,order,score\n1,ab,0.3\n1,ba,-2\n2,ba,0\n")
    assert judged.rows["swapped"].to_list() == [False, True, True]
    assert judged.rows["preference"].to_list() == [1, -1, 0]
    with pytest.raises(InputError, match="a pair has two orders"):
        read(tmp_path, "pair,order,score\n1,ab,0.3\n1,ba,-2\n2,bc,0\n")


def test_probabilities_are_of_the_first(tmp_path) -> None:
    judged, _ = read(tmp_path, "first,second,probability\nx,y,0.9\ny,x,0.5\nx,z,0\nx,w,1.5\n")
    assert judged.rows["preference"].to_list() == [1, 0, -1]
    assert judged.refused == ["row 4: probability '1.5' is no number that fits"]


def test_lengths_of_texts_and_of_columns(tmp_path) -> None:
    judged, lines = read(
        tmp_path,
        "first,second,preferred\nIt is a cat.,It is a very big cat.,B\n"
        "It is a very big cat.,It is a cat.,B\n",
    )
    ratio = math.log(len("Itisacat.") / len("Itisaverybigcat."))
    assert judged.rows["log_ratio"].to_list() == pytest.approx([ratio, -ratio])
    assert any("are texts, by which lengths are measured" in line for line in lines)
    judged, _ = read(tmp_path, "first,second,preferred,length_a,length_b\nx,y,A,20,10\nx,z,A,5,0\n")
    assert judged.rows["log_ratio"].to_list() == [pytest.approx(math.log(2)), None]


def test_repeated_sentences_are_padding_and_equal_content(tmp_path) -> None:
    short, long = "The sky is blue. It rains now.", "The sky is blue. It rains now. It rains  now."
    other = "The sky is blue. It rains now. It snows."
    judged, _ = read(
        tmp_path, f"first,second,preferred\n{long},{short},A\n{short},{long},B\n{short},{other},B\n"
    )
    assert judged.rows["padded"].to_list() == [1, -1, 0]
    assert judged.rows["equal_content"].to_list() == [True, True, False]


def test_rows_that_say_nothing_are_named_and_counted(tmp_path) -> None:
    judged, lines = read(tmp_path, "first,second,preferred\nx,y,A\ny,x,\nx,y,maybe\n,y,A\nx,x,A\n")
    assert judged.rows.height == 1
    assert judged.refused == [
        "row 3: preference 'maybe' is none of first, second, tie",
        "row 4: an answer or the order is missing",
    ]
    text = " ".join(lines)
    assert "1 rows without a preference (row 2)" in text
    assert "1 judgements of two equal answers" in text


def test_cells_of_further_columns_that_say_nothing_are_named(tmp_path) -> None:
    _, lines = read(
        tmp_path,
        "first,second,preferred,human,length_a,length_b,equal_content\n"
        "x,y,A,A,3,4,yes\nx,z,A,dunno,3,-1,perhaps\nx,w,A,,,4,0\n",
    )
    text = " ".join(lines)
    assert "1 cells of human that are no preference (row 2: dunno)" in text
    assert "1 cells of length_b that are no length above 0 (row 2: -1)" in text
    assert "1 cells of equal_content that are neither yes nor no (row 2: perhaps)" in text


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "xlsx"])
def test_other_formats_give_the_same(tmp_path, ending) -> None:
    frame = pl.DataFrame({"first": ["x", "y"], "second": ["y", "x"], "preferred": [1, 2]})
    path = tmp_path / f"t.{ending}"
    write = {
        "parquet": frame.write_parquet, "jsonl": frame.write_ndjson, "xlsx": frame.write_excel,
    }  # fmt: skip
    write[ending](path)
    assert read_judgements(str(path)).rows["preference"].to_list() == [1, -1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("first,second,prefered\nx,y,A\n", "no column 'preferred'.*'prefered'.*--columns"),
        ("first,preferred\nx,A\n", "there is no column 'second'"),
        ("first,second,preferred,score\nx,y,A,1\n", "'preferred' and 'score' could both be"),
        ("first,second,preferred\nx,y,0\ny,x,1\n", "holds only 0 and 1; is 0 a tie"),
        ("first,second,preferred\nx,y,0\ny,x,1\nx,y,2\n", "holds 0, 1 and 2; is 0 a tie"),
        ("first,second,preferred\nx,y,maybe\n", "no row can be used; row 1: preference 'maybe'"),
        ("first,second,preferred\nx,x,A\n", "every pair has two equal answers"),
        ("first,second,preferred\n", "has no rows"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(tmp_path, text, reason) -> None:
    with pytest.raises(InputError, match=reason):
        read(tmp_path, text)


def test_what_numbers_are_taken_to_mean_is_said(tmp_path) -> None:
    judged, lines = read(tmp_path, "first,second,preferred\nx,y,1\ny,x,2\nx,z,-1\nz,x,0.5\n")
    assert judged.rows["preference"].to_list() == [1, -1, -1, 0]
    meaning = "-1 as second, 0.5 as tie, 1 as first, 2 as second"
    assert f"numbers in 'preferred': {meaning}" in " ".join(lines)


def test_numbers_that_are_names_of_answers_are_names(tmp_path) -> None:
    judged, lines = read(tmp_path, "first,second,preferred\n0,1,0\n1,0,0\n1,2,2\n")
    assert judged.rows["preference"].to_list() == [1, -1, -1]
    assert "numbers" not in " ".join(lines)


def test_names_of_answers_match_in_any_case_where_only_one_does(tmp_path) -> None:
    text = "first,second,preferred\nGPT,Claude,gpt\nGPT,Claude,CLAUDE\nx,X,X\n"
    judged, _ = read(tmp_path, text)
    assert judged.rows["preference"].to_list() == [1, -1, -1]


def test_columns_can_be_named(tmp_path) -> None:
    judged, _ = read(tmp_path, "l,r,w\nx,y,A\n", {"first": "l", "second": "r", "preferred": "w"})
    assert judged.rows.height == 1
