"""Tables of bags and lists of slides."""

import gzip
from datetime import date

import numpy as np
import polars as pl
import pytest

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.data.slides.bag_tables import is_bag_table, read_bag_table
from headwise.data.slides.bags import read_cohort


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
        ("text", "names"),
        [
            ("1,b1,0.5,0.5\n1,b1,2.5,3\n0,b2,4,5\n", ("b1", "b2")),
            ("tumour,b1,0,0\ntumour,b1,1,2\nnormal,b2,3,4\n", ("b1", "b2")),
            ("1,7,5,3\n1,7,5,4\n0,9,6,1\n", ("7", "9")),
            ("1;b1;0,5;0,5\n1;b1;2,5;3\n0;b2;4;5\n", ("b1", "b2")),
        ],
    )
    def test_without_a_header_no_row_is_lost_whatever_the_names_are(
        self, tmp_path, text: str, names: tuple[str, str]
    ) -> None:
        path = table(tmp_path, text)
        assert is_bag_table(path)
        with opened() as account:
            bags = read_bag_table(path)
        assert bags.cohort.names == names
        assert bags.offsets.tolist() == [0, 2, 3]
        assert "the table has no header" in lines_of("assumed", account)
        assert "2 bags of 3 rows and 2 features" in lines_of("read", account)
        assert "each of the bags counts as its own group" in lines_of("groups", account)

    def test_the_usual_names_of_columns_are_taken(self, tmp_path) -> None:
        path = table(tmp_path, "Bag ID,class,2,3\nb1,x,0.5,1\nb2,y,2.5,3\n")
        assert is_bag_table(path)
        with opened() as account:
            bags = read_bag_table(path)
        assert (bags.cohort.names, bags.cohort.labels) == (("b1", "b2"), ("x", "y"))
        assert bags.columns == ("2", "3")
        assert "'Bag ID' is taken as the bag" in lines_of("columns", account)
        assert "no header" not in lines_of("assumed", account)
        assert not is_bag_table(table(tmp_path, "slide_id,label,mpp\ns1,x,0.5\n", "list.csv"))

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


def lines_of(topic: str, account) -> str:
    return " ".join(line for line in account.lines() if line.startswith(f"{topic}:"))


class TestColumnsOfPeople:
    @pytest.mark.parametrize("name", ["patient_id", "case_id", "Patient ID", "subject_id", "PID"])
    def test_patients_are_found_under_their_usual_names(self, tmp_path, name: str) -> None:
        path = table(tmp_path, f"slide,label,{name}\na,x,P1\nb,x,P1\nc,y,P2\n")
        with opened() as account:
            assert read_cohort(path).patients == ("P1", "P1", "P2")
        assert "3 slides listed" in lines_of("read", account)
        assert f"{name!r} is taken as the patient" in lines_of("columns", account)
        assert f"3 slides of 2 patients (column {name!r})" in lines_of("groups", account)

    def test_without_patients_it_is_said_that_each_slide_counts_alone(self, tmp_path) -> None:
        with opened() as account:
            read_cohort(table(tmp_path, "slide,label,stain\na,x,he\nb,y,he\n"))
        assert "each of the slides counts as its own group" in lines_of("groups", account)
        assert "not used (stain)" in lines_of("columns", account)

    def test_the_lists_of_other_tools_are_read(self, tmp_path) -> None:
        clam = read_cohort(table(tmp_path, "case_id,slide_id,label\nC1,s1,a\nC1,s2,a\n"))
        assert (clam.names, clam.patients) == (("s1", "s2"), ("C1", "C1"))
        plain = read_cohort(table(tmp_path, "filename,diagnosis\ns1.svs,a\ns2.svs,b\n"))
        assert (plain.names, plain.labels) == (("s1.svs", "s2.svs"), ("a", "b"))
        text = "scan,outcome,who\ns1,a,P\ns2,b,P\n"
        chosen = {"slide": "scan", "label": "outcome", "patient": "who"}
        named = read_cohort(table(tmp_path, text), chosen)
        assert (named.names, named.labels, named.patients) == (("s1", "s2"), ("a", "b"), ("P", "P"))

    def test_numbers_of_folds_are_no_parts_and_40x_is_no_resolution(self, tmp_path) -> None:
        path = table(tmp_path, "slide,label,fold,resolution\na,x,0,40x\nb,y,1,20x\n")
        with opened() as account:
            cohort = read_cohort(path)
        assert cohort.splits == cohort.mpp == (None, None)
        assert "fold" in lines_of("columns", account)
        assert "resolution" in lines_of("columns", account)

    def test_older_runs_keep_their_parts(self, tmp_path) -> None:
        path = table(tmp_path, "slide,label,case_id\na,x,P1\nb,x,P1\n")
        assert read_cohort(path, usual_names=False).patients == ("a", "b")

    def test_a_list_to_predict_for_needs_no_labels(self, tmp_path) -> None:
        cohort = read_cohort(table(tmp_path, "slide_id,mpp\na,0.25\nb,\n"), labelled=False)
        assert (cohort.names, cohort.labels, cohort.mpp) == (("a", "b"), ("", ""), (0.25, None))


class TestLabels:
    @pytest.mark.parametrize("word", ["NaN", "None", "NA", "nan", "n/a", "null"])
    def test_a_missing_word_is_no_class(self, tmp_path, word: str) -> None:
        path = table(tmp_path, f"slide,label\na,x\nb,{word}\nc,y\n")
        with pytest.raises(InputError, match=rf"row 2: holds '{word}', which is no label"):
            read_cohort(path)
        with opened(("missing-labels",)) as account:
            assert read_cohort(path).names == ("a", "c")
        assert "rows without a label (row 2)" in lines_of("left out", account)
        bags = table(tmp_path, f"bag,label,x\nb1,1,0.5\nb2,{word},0.5\nb3,0,1\n", "bags.csv")
        with pytest.raises(InputError, match="which is no label"):
            read_bag_table(bags)
        with opened(("missing-labels",)):
            assert read_bag_table(bags).cohort.names == ("b1", "b3")

    def test_one_and_one_point_nought_are_one_class(self, tmp_path) -> None:
        with opened() as account:
            cohort = read_cohort(table(tmp_path, "slide,label\na,1\nb,1.0\nc,0\nd,Sick\ne,sick\n"))
        assert cohort.labels == ("1", "1", "0", "Sick", "sick")
        assert "'1' and '1.0' are one class" in lines_of("values", account)
        assert "'Sick' and 'sick' differ by case only" in lines_of("values", account)


class TestCopies:
    def test_bags_that_are_exact_copies_share_a_part(self, tmp_path) -> None:
        text = "bag,label,x\na,1,0.5\na,1,0.7\nb,0,3\nc,1,0.5\nc,1,0.7\n"
        with opened() as account:
            bags = read_bag_table(table(tmp_path, text))
        assert bags.cohort.patients == ("a", "b", "a")
        assert "exact copies of other bags" in lines_of("items", account)
        alone = read_bag_table(table(tmp_path, text), copies_joined=False)
        assert alone.cohort.patients == ("a", "b", "c")
        with pytest.raises(InputError, match="'a' and 'c' are exact copies with the labels"):
            read_bag_table(table(tmp_path, text.replace("c,1", "c,0")))

    def test_a_slide_in_two_parts_is_refused(self, tmp_path) -> None:
        path = table(tmp_path, "slide,label,split\na,x,train\na,x,test\nb,y,test\n")
        with pytest.raises(InputError, match="slide 'a' is listed more than once"):
            read_cohort(path)
