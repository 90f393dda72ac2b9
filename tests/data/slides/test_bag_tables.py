"""Columns of tables of bags: features by name, patients and parts under their usual names."""

from pathlib import Path

import numpy as np
import pytest

from headwise.base.account import Account, opened
from headwise.base.errors import InputError
from headwise.data.slides.bag_tables import BagTable, is_bag_table, read_bag_table

RUN = ("area", "roundness", "colour")


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(text)
    return path


def read(path: Path, **options) -> tuple[BagTable, str]:
    with opened() as account:
        bags = read_bag_table(path, **options)
    return bags, words(account)


def words(account: Account) -> str:
    return "\n".join(account.lines())


class TestFeaturesOfARun:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("label,bag,area,roundness,colour\n0,a,1,2,3\n", ""),
            ("bag,colour,area,roundness\na,3,1,2\n", ""),
            ("Bag ID,Colour,AREA,Roundness,x\na,3,1,2,9\n", None),
            ("bag,patient,colour,fold,area,roundness,label\na,7,3,0,1,2,1\n", None),
            ("bag,id,area,roundness,colour\na,7,1,2,3\n", "trained on (id)"),
            ("Bag,Colour,area,roundness\na,3,1,2\n", "'Colour' is taken as the feature 'colour'"),
            ("0,a,1,2,3\n", "by place: the table has no names for them"),
        ],
    )
    def test_are_taken_by_their_names(self, tmp_path, text: str, said: str | None) -> None:
        path = table(tmp_path, text)
        assert is_bag_table(path)
        bags, account = read(path, features=RUN, labelled=False)
        np.testing.assert_array_equal(bags.features, np.float32([[1, 2, 3]]))
        assert (said or "") in account
        if said == "":
            assert not any(text in account for text in ("place", "left out", "taken as the feat"))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("bag,f1,f2,f3\na,1,2,3\n", "lacks 3 of the 3 features of the run: 'area'"),
            ("bag,area,roundness\na,1,2\n", "lacks 1 of the 3 features of the run: 'colour'"),
            ("bag,area,roundness,Colour,COLOUR\na,1,2,3,4\n", "lacks 1 of the 3"),
            ("0,a,1,2\n", "holds 2 features, the run has 3"),
        ],
    )
    def test_those_that_are_missing_are_named(self, tmp_path, text: str, message: str) -> None:
        with pytest.raises(InputError) as caught:
            read_bag_table(table(tmp_path, text), features=RUN, labelled=False)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_run_without_names_takes_them_by_place_and_says_so(self, tmp_path) -> None:
        path = table(tmp_path, "label,bag,patient,area,colour\n0,a,7,1,2\n1,b,7,3,4\n")
        bags, account = read(path, features=2)
        assert bags.columns == ("area", "colour")
        assert "features are taken by place" in account
        older, _ = read(path, features=3)  # which took the patient for a feature
        assert older.columns == ("patient", "area", "colour")
        assert "by place" not in read(table(tmp_path, "0,a,1\n1,b,2\n"), features=1)[1]


class TestPatientsAndParts:
    def test_are_no_features_whatever_they_hold(self, tmp_path) -> None:
        text = "label,bag,x,patient_id,fold\n0,a,1,7,0\n0,a,2,7,0\n1,b,3,7,1\n1,c,4,8,2\n"
        bags, account = read(table(tmp_path, text))
        assert bags.columns == ("x",)
        assert bags.cohort.patients == ("7", "7", "8")
        assert bags.cohort.splits == (None, None, None)
        assert "1 features (x)" in account
        assert "'patient_id' is taken as the patient" in account
        assert "3 bags of 2 patients (column 'patient_id')" in account
        assert "not used as parts, since they hold other words (fold)" in account

    def test_parts_of_the_table_count(self, tmp_path) -> None:
        text = "label,bag,x,split,Case\n0,a,1,train,p\n1,b,3,val,q\n1,c,4,test,r\n"
        bags, _ = read(table(tmp_path, text))
        assert bags.cohort.splits == ("train", "validation", "test")
        assert bags.cohort.patients == ("p", "q", "r")

    def test_a_second_column_of_patients_is_no_feature(self, tmp_path) -> None:
        text = "label,bag,x,patient,case\n0,a,1,7,1\n1,b,3,8,2\n"
        bags, account = read(table(tmp_path, text))
        assert bags.columns == ("x",)
        assert "no features, since they are called like patients, parts or labels (case)" in account

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("label,bag,x,patient\n0,a,1,7\n0,a,2,8\n", "bag 'a' has the patients '7' and '8'"),
            ("label,bag,x,part\n0,a,1,train\n0,a,2,test\n", "bag 'a' has the parts"),
            ("label,bag,x,part\n0,a,1,0\n1,b,2,1\n", "'0' is none of train, validation, test"),
            ("bag,x\na,1\nb,2\n", "there is no column 'label'"),
            ("label,bag,patient\n0,a,1\n", "there is no column of features"),
            (
                "label,bag,x,part,patient\n0,a,1,train,p\n1,b,2,test,p\n",
                "patient 'p' is in train and in test",
            ),
        ],
    )
    def test_what_contradicts_itself_is_refused(self, tmp_path, text: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            read_bag_table(table(tmp_path, text))

    def test_columns_of_other_names_can_be_named(self, tmp_path) -> None:
        path = table(tmp_path, "outcome,sample,x,who\n0,a,1,p\n1,b,2,p\n")
        chosen = {"label": "outcome", "bag": "sample", "patient": "who"}
        assert is_bag_table(path, chosen)
        bags, _ = read(path, chosen=chosen)
        assert (bags.columns, bags.cohort.patients) == (("x",), ("p", "p"))
        with pytest.raises(InputError, match="--columns mpp=x: a table of bags has no mpp"):
            read_bag_table(path, {**chosen, "mpp": "x"})
