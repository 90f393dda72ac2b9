"""Splits by group and the cache of items, against plain loops over groups."""

import doctest

import numpy as np
import pytest
import torch

from headwise.base.account import opened
from headwise.base.errors import InputError
from headwise.pipelines.engine import subsets
from headwise.pipelines.engine.subsets import (
    BoundedCache,
    Subsets,
    bytes_of,
    own_or_shares,
    refuse_shared_groups,
    stratified_folds,
    take_groups,
    take_stratified,
)

ROWS = np.arange(100, 160)
GROUPS = np.array([f"g{(7 * k) % 13:02d}" for k in range(60)])
LABELS = np.array([k % 3 for k in range(60)])


class TestBoundedCache:
    def test_reads_an_item_once_while_it_fits_and_again_when_it_does_not(self):
        reads = []

        def read(row):
            reads.append(row)
            return {"image": np.zeros((row, 4), np.uint8), "depth": [torch.zeros(row)]}

        cache = BoundedCache(read, most_bytes=8 * 5)
        sizes = [len(cache[row]["image"]) for row in (3, 4, 2, 3, 4, 2)]
        assert sizes == [3, 4, 2, 3, 4, 2]
        assert reads == [3, 4, 2, 4]  # 4 would not fit next to 3; 2 does
        assert (cache.bytes, len(cache)) == (40, 2)

    def test_counts_the_bytes_of_nested_arrays_and_tensors(self):
        item = {"a": np.zeros((2, 3), np.float64), "b": (torch.zeros(5, dtype=torch.int16), "text")}
        assert bytes_of(item) == 48 + 10
        assert bytes_of(None) == 0

    def test_its_example_runs(self):
        assert doctest.testmod(subsets).failed == 0 < doctest.testmod(subsets).attempted


class TestTakeGroups:
    @pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 1.0])
    @pytest.mark.parametrize("remaining", [1, 2])
    def test_takes_a_share_of_the_number_of_groups(self, share, remaining):
        taken, rest = take_groups(
            ROWS, GROUPS, share, np.random.default_rng(5), remaining=remaining
        )
        names = sorted(set(GROUPS))
        count = min(max(1, round(share * 13)), 13 - remaining)
        chosen = {names[k] for k in np.random.default_rng(5).permutation(13)[:count]}
        assert taken.tolist() == [r for r, g in zip(ROWS, GROUPS) if g in chosen]
        assert rest.tolist() == [r for r, g in zip(ROWS, GROUPS) if g not in chosen]

    @pytest.mark.parametrize("share", [0.01, 0.1, 0.2, 0.35, 0.5, 0.999, 1.0])
    def test_takes_groups_until_they_hold_a_share_of_the_rows(self, share):
        groups = np.array(["abcccdddddddeeeeeeeeeefg"[k] for k in range(24)])
        rows = np.arange(24)
        taken, rest = take_groups(rows, groups, share, np.random.default_rng(8), count_rows=True)
        chosen, count = [], 0
        for name in np.random.default_rng(8).permutation(np.unique(groups))[:-1]:
            if chosen and count >= share * 24:
                break
            chosen.append(name)
            count += int((groups == name).sum())
        assert taken.tolist() == [r for r, g in zip(rows, groups) if g in chosen]
        assert sorted([*taken, *rest]) == rows.tolist()

    def test_the_same_draw_holds_for_a_share_that_falls_on_a_border_between_groups(self):
        groups = np.repeat(["a", "b", "c", "d"], 5)
        for share, size in ((0.25, 5), (0.5, 10), (0.51, 15)):
            taken, _ = take_groups(
                np.arange(20), groups, share, np.random.default_rng(0), count_rows=True
            )
            assert len(taken) == size

    def test_takes_nothing_from_a_single_group_or_for_a_share_of_zero(self):
        for groups, share in ((GROUPS, 0.0), (np.zeros(60), 0.5)):
            taken, rest = take_groups(ROWS, groups, share, np.random.default_rng(0))
            assert (len(taken), rest.tolist()) == (0, ROWS.tolist())
        taken, rest = take_groups(ROWS[:0], GROUPS[:0], 0.5, np.random.default_rng(0))
        assert (len(taken), len(rest)) == (0, 0)

    def test_a_share_of_zero_draws_nothing_from_the_generator(self):
        generator = np.random.default_rng(0)
        take_groups(ROWS, GROUPS, 0.0, generator)
        assert generator.integers(1 << 30) == np.random.default_rng(0).integers(1 << 30)


class TestStratified:
    def test_folds_keep_groups_together_and_hold_all_rows(self):
        folds = stratified_folds(LABELS, GROUPS, 4, 0)
        assert sorted(np.concatenate(folds)) == list(range(60))
        members = [set(GROUPS[fold]) for fold in folds]
        assert sum(map(len, members)) == 13
        assert all((np.diff(fold) > 0).all() for fold in folds)

    def test_folds_are_those_of_scikit_learn(self):
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

        alone = np.arange(60)
        for groups, plain, kind in (
            (GROUPS, False, StratifiedGroupKFold),
            (GROUPS, True, StratifiedGroupKFold),
            (alone, False, StratifiedGroupKFold),
            (alone, True, StratifiedKFold),
        ):
            splits = kind(5, shuffle=True, random_state=3).split(LABELS, LABELS, groups)
            folds = stratified_folds(LABELS, groups, 5, 3, plain=plain)
            assert [fold.tolist() for fold in folds] == [test.tolist() for _, test in splits]

    def test_more_folds_than_groups_are_refused(self):
        with pytest.raises(ValueError, match="2 groups cannot fill 3 folds"):
            stratified_folds(LABELS, LABELS > 0, 3, 0)

    def test_takes_the_first_fold_of_as_many_as_the_share_goes_into_one(self):
        taken, rest = take_stratified("data", ROWS, LABELS, GROUPS, 0.2, 7)
        assert taken.tolist() == ROWS[stratified_folds(LABELS, GROUPS, 5, 7)[0]].tolist()
        assert not set(GROUPS[taken - 100]) & set(GROUPS[rest - 100])
        assert np.ptp(np.bincount(LABELS[taken - 100])) <= 2

    def test_takes_nothing_from_a_single_group_or_for_a_share_of_zero(self):
        for groups, share in ((GROUPS, 0.0), (np.zeros(60), 0.5)):
            taken, rest = take_stratified("data", ROWS, LABELS, groups, share, 0)
            assert (len(taken), rest is ROWS) == (0, True)

    def test_a_class_with_one_row_each_is_refused(self):
        with pytest.raises(InputError, match="data: has one item of each class"):
            take_stratified("data", ROWS[:3], LABELS[:3], GROUPS[:3], 0.2, 0)


def halves(rows, share, part):
    """A share of the rows from the front for the test part, from the back for validation."""
    count = int(share * len(rows))
    if part == "test":
        return rows[:count], rows[count:]
    return rows[len(rows) - count :], rows[: len(rows) - count]


class TestOwnOrShares:
    def opened(self, parts, test=0.5, validation=0.5, **more):
        return own_or_shares(
            "data",
            parts,
            halves,
            test_share=test,
            validation_share=validation,
            items="scenes",
            **more,
        )

    def test_parts_of_the_data_stay_as_they_are(self):
        parts = ["test", "train", "", "validation", "train"]
        assert [rows.tolist() for rows in self.opened(parts)] == [[1, 4], [3], [0]]

    def test_parts_that_lack_are_taken_from_the_training_part_the_test_part_first(self):
        rows = self.opened([""] * 8)
        assert [part.tolist() for part in rows] == [[4, 5], [6, 7], [0, 1, 2, 3]]
        rows = self.opened(["test", *["train"] * 4])
        assert [part.tolist() for part in rows] == [[1, 2], [3, 4], [0]]

    def test_rows_of_no_part_are_in_none_where_a_training_part_is_named(self):
        assert sum(map(len, self.opened(["train", "train", "", "test"]))) == 3

    @pytest.mark.parametrize(
        ("parts", "shares", "line"),
        [
            (["test"], (0.5, 0.5), "has no scenes to train on; `evaluate --data` scores such"),
            (["train"] * 4, (0.0, 0.5), "has no test part, and --test-share 0.0 leaves none"),
            (
                ["train", "test"],
                (0.5, 0.25),
                "has no validation part, and --validation-share 0.25 leaves none of it$",
            ),
        ],
    )
    def test_an_empty_part_is_refused(self, parts, shares, line):
        with pytest.raises(InputError, match=f"data: {line}"):
            self.opened(parts, *shares)

    def test_validation_may_be_left_out_only_where_that_is_allowed(self):
        with pytest.raises(InputError, match="has no validation part"):
            self.opened(["train", "test"], validation=0.0)
        rows = self.opened(["train", "test"], validation=0.0, validation_needed=False)
        assert [part.tolist() for part in rows] == [[0], [], [1]]
        with pytest.raises(InputError, match="raise it, or give 0 to train on all"):
            self.opened(["train", "test"], validation=0.1, validation_needed=False)


class TestSharedGroups:
    @pytest.mark.parametrize(
        ("rows", "parts"),
        [
            (([0, 1], [2], [3]), None),
            (([0, 1], [5], [3]), "training and in the validation"),
            (([0, 1], [2], [3, 4]), "training and in the test"),
            (([3], [0, 2], [1, 4]), "validation and in the test"),
        ],
    )
    def test_a_group_in_any_two_parts_is_refused(self, rows, parts):
        groups = ["p1", "p2", "p3", "p4", "p1", "p2"]
        subsets_ = Subsets(*map(np.array, rows))
        if parts is None:
            return refuse_shared_groups("data", subsets_, groups, "patient")
        with pytest.raises(InputError, match=f"data: patient 'p[12]' is in the {parts} part; give"):
            refuse_shared_groups("data", subsets_, groups, "patient")


def test_rows_of_no_part_are_said_where_others_train():
    def take(rows, share, part):
        return rows[:1], rows[1:]

    shares = {"test_share": 0.2, "validation_share": 0.2, "items": "scenes"}
    with opened() as account:
        own_or_shares("x", ["train", "train", "train", "", ""], take, **shares)
    assert account.lines() == ["left out: 2 scenes of no part, as others are of a part"]
    with opened() as account:
        own_or_shares("x", ["", "", ""], take, **shares)
    assert not account.lines()
