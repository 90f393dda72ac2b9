"""Parts by patient, and moments of the training part."""

import numpy as np
import pytest

from headwise.base.errors import InputError
from headwise.data.slides.bag_tables import BagTable
from headwise.data.slides.bags import Cohort
from headwise.pipelines.wsi import data, sources


def cohort_of(
    patients: list[int], labels: list[str], splits: list[str | None] | None = None
) -> Cohort:
    names = tuple(f"s{k}" for k in range(len(patients)))
    count = len(names)
    return Cohort(
        names,
        tuple(labels),
        tuple(map(str, patients)),
        tuple(splits or [None] * count),
        (None,) * count,
    )


class TestSplits:
    def test_no_patient_is_in_two_parts_and_classes_are_balanced(self) -> None:
        patients = np.repeat(np.arange(40), 3)
        cohort = cohort_of(patients.tolist(), [("x", "y")[p % 2] for p in patients])
        parts = data.split(cohort, 1, "here")
        assert sorted(np.concatenate(parts)) == list(range(120))
        groups = [{cohort.patients[i] for i in part} for part in parts]
        assert not groups[0] & groups[1]
        assert not groups[0] & groups[2]
        assert not groups[1] & groups[2]
        for part in parts:
            assert 0.4 < np.mean([cohort.labels[i] == "x" for i in part]) < 0.6
        assert [len(part) for part in parts] == pytest.approx([72, 24, 24], abs=6)
        again = data.split(cohort, 2, "here")
        assert not np.array_equal(parts.test, again.test)

    def test_the_split_column_decides_and_validation_comes_out_of_training(self) -> None:
        cohort = cohort_of(list(range(20)), ["x", "y"] * 10, ["train"] * 15 + ["test"] * 5)
        parts = data.split(cohort, 1, "here")
        assert parts.test.tolist() == list(range(15, 20))
        assert len(parts.validation) == 3
        assert set(parts.validation) | set(parts.train) == set(range(15))
        with pytest.raises(InputError, match="leaves no slide for test"):
            data.split(cohort_of(list(range(9)), ["x"] * 9, ["train"] * 9), 1, "here")

    def test_validation_is_a_fifth_or_a_patient_of_few(self) -> None:
        rows = np.arange(40)
        cohort = cohort_of([k // 2 for k in rows], ["x", "y"] * 20)
        train, validation = data.without_validation(cohort, rows[4:], 1, "here")
        assert set(train) | set(validation) == set(range(4, 40))
        assert len(validation) == pytest.approx(36 / 5, abs=1)
        assert not {k // 2 for k in train} & {k // 2 for k in validation}
        for patients in (2, 3, 4):
            few = cohort_of(list(range(patients)) * 2, ["x", "y"] * patients)
            train, validation = data.without_validation(few, np.arange(2 * patients), 1, "here")
            assert (len(train), len(validation)) == (2 * patients - 2, 2)

    def test_too_few_patients_are_refused(self) -> None:
        with pytest.raises(InputError, match="has 3 patients, too few"):
            data.split(cohort_of([1, 2, 3], ["x", "y", "x"]), 1, "here")


def test_moments_are_those_of_all_training_instances() -> None:
    features = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float32)
    features[:, 3] = 7
    table = BagTable(cohort_of([1, 2], ["x", "y"]), features, np.array([0, 20, 50]), ())
    source = sources.TableBags(table, "here")
    moments = data.moments(data.BagSet(source, [0, 1], ["x", "y"]), True)
    np.testing.assert_allclose(moments["mean"], features.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments["deviation"], [*features.std(0)[:3], 1.0], rtol=1e-4)
    first = data.moments(data.BagSet(source, [0], ["x", "y"]), True)
    np.testing.assert_allclose(first["mean"], features[:20].mean(0), rtol=1e-5)
