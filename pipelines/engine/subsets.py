"""From one set of items to training, validation and test parts, with groups kept together.

A data set may name the parts itself (`own_or_shares`); what it leaves open is taken from its
training part, a share of the groups at a time, by one of two strategies: random groups
(`take_groups`), or groups with the classes balanced (`take_stratified`). `BoundedCache` keeps items
that were read in memory, up to a number of bytes; `inverse_frequencies` weights the classes of a
training part.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import combinations
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch

from ...base.account import note
from ...base.errors import fail, shown

HELD_BYTES = 2 << 30  # of items in memory; items beyond it are read again each time

Item = TypeVar("Item")
Taken = tuple[np.ndarray, np.ndarray]  # rows that were taken, rows that remain


class BoundedCache(Generic[Item]):
    """Items by their row, read on first use and kept in memory while they fit.

    read: gives the item of a row; it is called again each time for items that no longer fit.
    most_bytes: of all items in memory together.

    >>> cache = BoundedCache(lambda row: np.full(10, row, np.uint8), most_bytes=25)
    >>> [int(cache[row].sum()) for row in (0, 1, 2)], len(cache)
    ([0, 10, 20], 2)
    """

    def __init__(self, read: Callable[[int], Item], most_bytes: int = HELD_BYTES) -> None:
        self.read, self.most_bytes = read, most_bytes
        self.bytes = 0
        self._items: dict[int, Item] = {}

    def __getitem__(self, row: int) -> Item:
        if row in self._items:
            return self._items[row]
        item = self.read(row)
        size = bytes_of(item)
        if self.bytes + size <= self.most_bytes:
            self._items[row] = item
            self.bytes += size
        return item

    def __len__(self) -> int:
        """Items in memory."""
        return len(self._items)


def bytes_of(item: object) -> int:
    """Bytes of the arrays and tensors in an item, at any depth in dicts, lists and tuples."""
    if isinstance(item, np.ndarray | torch.Tensor):
        return item.nbytes
    if isinstance(item, Mapping):
        return sum(map(bytes_of, item.values()))
    return sum(map(bytes_of, item)) if isinstance(item, list | tuple) else 0


class Subsets(NamedTuple):
    """Rows of the three parts of a data set, each int64 and without a row of another."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def sizes(self) -> dict[str, int]:
        """Number of rows by the name of the part."""
        return {name: len(rows) for name, rows in self._asdict().items()}


def inverse_frequencies(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Weights of the classes in the loss, float32 (K,), whose mean over the samples is 1.

    labels: int (n,) of a training part; classes: K.
    """
    count = np.bincount(labels, minlength=classes).clip(1)
    return torch.from_numpy((len(labels) / classes / count).astype(np.float32))


def own_or_shares(
    where: object,
    parts: Sequence[str],
    take: Callable[[np.ndarray, float, str], Taken],
    *,
    test_share: float,
    validation_share: float,
    items: str,
    validation_needed: bool = True,
) -> Subsets:
    """The parts that the data names; a test or validation part that it lacks is a share of the
    training part, the test part first.

    parts: "train", "validation", "test" or "" of each row; rows of no part are the training part
    where none is named "train", and in no part otherwise, which the account says.
    take: of rows, a share of them and the name of the part, the rows taken for it and the rest.
    items: what the rows are called in messages, in the plural.
    validation_needed: False allows a training without validation, with a share of 0.

    Raises `InputError` where a part would be empty.
    """
    names = np.array(parts)
    train, validation, test = (
        np.flatnonzero(names == part) for part in ("train", "validation", "test")
    )
    unnamed = np.flatnonzero(names == "")
    if not len(train):
        train = unnamed
    elif len(unnamed):
        note("left out", f"{items} of no part, as others are of a part", count=len(unnamed))
    if not len(train):
        raise fail(where, f"has no {items} to train on; `evaluate --data` scores such a set")
    if not len(test):
        test, train = take(train, test_share, "test")
        if not len(test):
            raise fail(where, f"has no test part, and --test-share {test_share} leaves none of it")
    if not len(validation) and (validation_share or validation_needed):
        validation, train = take(train, validation_share, "validation")
        if not len(validation):
            hint = "" if validation_needed else "; raise it, or give 0 to train on all"
            raise fail(
                where,
                f"has no validation part, and --validation-share {validation_share} leaves none "
                f"of it{hint}",
            )
    return Subsets(train, validation, test)


def joined_groups(*columns: Sequence[str]) -> np.ndarray:
    """A number for each row, int64 (n,): equal for rows with the same cell in a column, and for
    rows that are so joined by others. Empty cells join nothing.

    >>> joined_groups(["a", "a", "b", ""], ["", "x", "x", ""]).tolist()
    [0, 0, 0, 1]
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(columns[0])
    keys: dict[tuple[int, str], int] = {}
    rows, nodes = [], []
    for row, cells in enumerate(zip(*columns, strict=True)):
        for key in enumerate(cells):
            if key[1]:
                rows.append(row)
                nodes.append(count + keys.setdefault(key, len(keys)))
    size = count + len(keys)
    edges = coo_matrix((np.ones(len(rows)), (rows, nodes)), shape=(size, size))
    _, components = connected_components(edges, directed=False)
    _, codes = np.unique(components[:count], return_inverse=True)
    return codes.astype(np.int64)


def refuse_shared_groups(
    where: object, subsets: Subsets, groups: Sequence[Hashable], noun: str
) -> None:
    """Raise `InputError` where a group (a patient, an identity) has rows in two parts.

    groups: of each row of the data. noun: what a group is called.
    """
    members = {
        name: {groups[row] for row in rows}
        for name, rows in zip(("training", "validation", "test"), subsets, strict=True)
    }
    for first, second in combinations(members, 2):
        if shared := members[first] & members[second]:
            name = shown(min(shared, key=str))
            raise fail(
                where,
                f"{noun} {name} is in the {first} and in the {second} part; give each {noun} one "
                "part",
            )


def take_groups(
    rows: np.ndarray,
    groups: np.ndarray,
    share: float,
    generator: np.random.Generator,
    *,
    count_rows: bool = False,
    remaining: int = 1,
) -> Taken:
    """Take random groups: a share of them, at least one, so that `remaining` groups are left.

    rows: int (n,), to choose among; groups: the group of each of these rows, (n,).
    count_rows: groups are taken until they hold this share of the rows, instead of a share of the
    number of groups.

    Returns (taken, rest), both in the order of `rows`; nothing is taken for a share of 0 or where
    too few groups would remain.
    """
    if not share or not len(rows):
        return rows[:0], rows
    names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = generator.permutation(len(names))
    if count_rows:
        count = 1 + int(np.searchsorted(np.cumsum(sizes[order]), share * len(rows)))
    else:
        count = max(1, round(share * len(names)))
    taken = np.isin(codes, order[: max(0, min(count, len(names) - remaining))])
    return rows[taken], rows[~taken]


def take_stratified(
    where: object, rows: np.ndarray, labels: np.ndarray, groups: np.ndarray, share: float, seed: int
) -> Taken:
    """Take about a share of the rows: entire groups, the classes balanced as far as that goes.

    rows: int (n,), to choose among; labels, groups: of each of these rows, (n,).

    Returns (taken, rest); nothing is taken for a share of 0 or from a single group. Raises
    `InputError` where each class has one row.
    """
    groups_count = len(np.unique(groups))
    if not share or groups_count < 2:
        return rows[:0], rows
    largest_class = int(np.unique(labels, return_counts=True)[1].max())
    if largest_class < 2:
        raise fail(where, "has one item of each class, too few to set a share of them aside")
    folds = min(max(2, round(1 / share)), groups_count, largest_class)
    taken = np.isin(np.arange(len(rows)), stratified_folds(labels, groups, folds, seed)[0])
    return rows[taken], rows[~taken]


def stratified_folds(
    labels: np.ndarray, groups: np.ndarray, folds: int, seed: int, *, plain: bool = False
) -> list[np.ndarray]:
    """Folds without a group in two of them, the classes balanced as far as that goes.

    labels, groups: of each row, (n,). plain: where no group has two rows, the folds of
    `StratifiedKFold`, which others publish; they differ from those of `StratifiedGroupKFold`.

    Returns the rows of each fold, sorted. Raises `ValueError` where there are fewer groups than
    folds.
    """
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if (count := len(np.unique(groups))) < folds:
        raise ValueError(f"stratified_folds: {count} groups cannot fill {folds} folds")
    kind = StratifiedKFold if plain and count == len(groups) else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a class with fewer members than folds
        splits = kind(folds, shuffle=True, random_state=seed).split(labels, labels, groups)
        return [np.sort(test) for _, test in splits]
