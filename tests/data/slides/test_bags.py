"""Tables of bags and lists of slides."""

import gzip
from datetime import date

import numpy as np
import polars as pl
import pytest

from headwise.base.errors import InputError
from headwise.data.slides.bags import is_bag_table, read_bag_table, read_cohort
from headwise.data.slides.files import match_files


def table(tmp_path, text: str, name: str = "t.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


class TestBags:
    def test_rows_of_a_bag_need_not_be_adjacent(self, tmp_path) -> None:
        path = table(tmp_path, "1,7,0.5,1\n0,3,2.5,3\n1,7,4.5,5\n0,9,6.5,7\n")
        assert is_bag_table(path)
        bags = read_bag_table(path)
        assert bags.cohort.names == ("7", "3", "9")
        assert bags.cohort.labels == ("1", "0", "0")
        assert bags.cohort.patients == bags.cohort.names
        assert bags.offsets.tolist() == [0, 2, 3, 4]
        np.testing.assert_array_equal(
            bags.features, np.float32([[0.5, 1], [4.5, 5], [2.5, 3], [6.5, 7]])
        )

    def test_instances_and_labels_stay_with_their_bags(self, tmp_path) -> None:
        """Rows in any order, and every one of them in some bag."""
        rng = np.random.default_rng(0)
        rows = pl.DataFrame(
            {
                "bag": [f"b{k % 7}" for k in range(60)],
                "x": np.arange(60.0),
                "y": rng.normal(size=60),
                "label": [(0, 1, 1)[k % 7 % 3] for k in range(60)],
            }
        )
        rows = rows.sample(fraction=1, shuffle=True, seed=2)
        rows.write_parquet(tmp_path / "a.parquet")
        bags = read_bag_table(tmp_path / "a.parquet")
        assert bags.columns == ("x", "y")
        assert len(bags.features) == bags.offsets[-1] == 60
        for place, name in enumerate(bags.cohort.names):
            of_bag = rows.filter(pl.col("bag") == name)
            part = bags.features[bags.offsets[place] : bags.offsets[place + 1]]
            np.testing.assert_array_equal(
                part, of_bag.select("x", "y").to_numpy().astype(np.float32)
            )
            assert bags.cohort.labels[place] == str(of_bag["label"][0])

    def test_a_header_a_gzip_and_parquet_hold_the_same(self, tmp_path) -> None:
        plain = read_bag_table(table(tmp_path, "1.0,4,0.5,1\n0,5,2.5,3\n"))
        named = table(tmp_path, "x,bag,label,y\n0.5,4,1,1\n2.5,5,0,3\n", "named.csv")
        (tmp_path / "g.csv.gz").write_bytes(gzip.compress(b"1.0,4,0.5,1\n0,5,2.5,3\n"))
        rows = pl.DataFrame({"label": [1, 0], "bag": ["4", "5"], "x": [0.5, 2.5], "y": [1, 3]})
        rows.write_parquet(tmp_path / "p.parquet")
        for path in (named, tmp_path / "g.csv.gz", tmp_path / "p.parquet"):
            assert is_bag_table(path)
            bags = read_bag_table(path)
            assert bags.cohort == plain.cohort
            np.testing.assert_array_equal(bags.features, plain.features)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("1,4,0.5\n0,4,0.7\n", "bag '4' has the labels '1' and '0'"),
            ("label,bag,x\n1,4,0.5\n0,5,x\n", "column 'x', row 2: 'x' is no finite number"),
            ("label,bag,x\n1,4,0.5\n0,5,\n", "is no finite number"),
            ("label,bag,x\n1,4,0.5\n0,,2\n", "row 2: is empty"),
            ("1,2\n1,3\n", "holds no bags"),
        ],
    )
    def test_mistakes_have_one_line(self, tmp_path, text: str, message: str) -> None:
        with pytest.raises(InputError) as caught:
            read_bag_table(table(tmp_path, text))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "sizes"),
        [
            ("musk1", (92, 476, 166, 47)),
            ("elephant", (200, 1391, 230, 100)),
            ("ucsb_breast_cancer", (58, 2002, 708, 26)),
        ],
    )
    def test_real_sets_have_the_sizes_of_their_sources(
        self, real_data, name: str, sizes: tuple[int, ...]
    ) -> None:
        bags = read_bag_table(real_data / "wsi" / "mil" / f"{name}.csv.gz")
        positive = sum(label == "1" for label in bags.cohort.labels)
        assert (len(bags.cohort), *bags.features.shape, positive) == sizes


class TestCohort:
    def test_columns_that_may_be_missing(self, tmp_path) -> None:
        path = table(tmp_path, "slide,label\na,x\nb,y\n")
        assert not is_bag_table(path)
        cohort = read_cohort(path)
        assert (cohort.names, cohort.patients) == (("a", "b"), ("a", "b"))
        assert cohort.splits == cohort.mpp == (None, None)
        path = table(
            tmp_path, "label,slide,patient,split,mpp,stain\nx,a,p,Train,0.25,he\ny,b,q,val,,he\n"
        )
        cohort = read_cohort(path)
        assert (cohort.patients, cohort.splits, cohort.mpp) == (
            ("p", "q"),
            ("train", "validation"),
            (0.25, None),
        )

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("slide,lable\na,x\n", "no column 'label'; it has 'slide', 'lable'; name it with"),
            ("slide,label\na,x\na,x\n", "slide 'a' is listed more than once"),
            ("slide,label\na,x\na,y\n", "slide 'a' has the labels 'x' and 'y'"),
            ("slide,label\na,\n", "column 'label', row 1: is empty"),
            ("slide,label,split\na,x,later\n", "'later' is none of train, validation, test"),
            (
                "slide,label,patient,split\na,x,p,train\nb,x,p,test\n",
                "patient 'p' is in train and in test",
            ),
            ("slide,label,mpp\na,x,-1\n", "row 1: '-1' is no positive number"),
            ("slide,label,mpp\na,x,big\n", "'big' is no positive number"),
            ("slide,label\n", "lists no slides"),
        ],
    )
    def test_mistakes_have_one_line(self, tmp_path, text: str, message: str) -> None:
        with pytest.raises(InputError) as caught:
            read_cohort(table(tmp_path, text))
        assert message in str(caught.value)

    def test_a_resolution_that_is_a_date_has_one_line(self, tmp_path) -> None:
        slides = pl.DataFrame({"slide": ["a"], "label": ["x"], "mpp": [date(2020, 1, 1)]})
        slides.write_parquet(tmp_path / "slides.parquet")
        with pytest.raises(InputError, match="column 'mpp' holds Date, not numbers"):
            read_cohort(tmp_path / "slides.parquet")

    @pytest.mark.parametrize(
        ("first_part", "second_part"),
        [("train", "validation"), ("train", "test"), ("validation", "test")],
    )
    def test_a_patient_is_in_no_two_parts(
        self, tmp_path, first_part: str, second_part: str
    ) -> None:
        rows = [
            ("a", "x", "p", first_part),
            ("b", "y", "q", "train"),
            ("c", "x", "r", "test"),
            ("d", "y", "p", second_part),
        ]
        for order in (rows, rows[::-1]):
            path = table(
                tmp_path,
                "slide,label,patient,split\n" + "".join(",".join(row) + "\n" for row in order),
            )
            either = f"{first_part} and in {second_part}|{second_part} and in {first_part}"
            with pytest.raises(InputError, match=f"patient 'p' is in ({either})"):
                read_cohort(path)
        same = table(
            tmp_path, f"slide,label,patient,split\na,x,p,{first_part}\nb,y,p,{first_part}\n"
        )
        assert read_cohort(same).splits == (first_part, first_part)

    def test_what_is_known_of_a_slide_stays_with_it(self, tmp_path) -> None:
        order = np.random.default_rng(0).permutation(9)
        parts = ("train", "validation", "test")
        lines = [f"l{k % 2},s{k},{0.25 * (k + 1)},p{k},{parts[k % 3]}" for k in order]
        cohort = read_cohort(table(tmp_path, "label,slide,mpp,patient,split\n" + "\n".join(lines)))
        assert cohort.names == tuple(f"s{k}" for k in order)
        assert cohort.labels == tuple(f"l{k % 2}" for k in order)
        assert cohort.mpp == tuple(0.25 * (k + 1) for k in order)
        assert cohort.patients == tuple(f"p{k}" for k in order)
        assert cohort.splits == tuple(parts[k % 3] for k in order)

    def test_files_are_found_with_and_without_ending(self) -> None:
        files = ["in/a.svs", "in/b/c.d.tiff", "in/e.png"]
        matched = match_files(("a", "c.d.tiff", "f"), files, "labels.csv")
        assert matched == {"a": "in/a.svs", "c.d.tiff": "in/b/c.d.tiff"}
        with pytest.raises(InputError, match="could be"):
            match_files(("a",), ["x/a.svs", "y/a.tiff"], "labels.csv")
        assert match_files(("e",), ["x/a.svs", "y/a.tiff", "e.png"], "labels.csv") == {"e": "e.png"}
