"""The names of parts, for all domains."""

import polars as pl
import pytest

from headwise.base.errors import InputError
from headwise.data.parts import PARTS, SEARCH_PARTS, read_part, rows_in
from headwise.data.slides.bags import read_cohort

WORDS = {"Train": "train", "val": "validation", "DEV": "validation", "testing": "test"}


@pytest.mark.parametrize(("word", "part"), WORDS.items())
def test_words_in_upper_and_lower_case_name_a_part(word, part):
    assert read_part("t.csv", word) == part == read_part("t.csv", word, SEARCH_PARTS)


def test_only_searches_have_a_query_and_a_gallery():
    assert read_part("t.csv", "query", SEARCH_PARTS) == "query"
    with pytest.raises(InputError, match=r"t\.csv: 'query' is none of train, validation, test$"):
        read_part("t.csv", "query")
    with pytest.raises(InputError, match="is none of train, validation, test, query, gallery"):
        read_part("t.csv", "", SEARCH_PARTS)


def test_rows_of_parts_keep_their_order_and_no_name_means_all():
    parts = ["test", "", "train", "test"]
    assert rows_in(parts, ["test"]).tolist() == [0, 3]
    assert rows_in(parts, ["train", "test"]).tolist() == [0, 2, 3]
    assert rows_in(parts, []).tolist() == [0, 1, 2, 3]
    assert rows_in([], ["test"]).dtype == "int64"


def test_every_word_is_a_part_of_a_list_of_slides(tmp_path):
    names = [f"s{k}" for k in range(len(PARTS))]
    pl.DataFrame({"slide": names, "label": "x", "split": list(PARTS)}).write_csv(tmp_path / "t.csv")
    assert list(read_cohort(tmp_path / "t.csv").splits) == list(PARTS.values())
