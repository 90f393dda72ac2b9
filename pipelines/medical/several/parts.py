"""Parts of pictures with several findings: no patient in two of them, every finding in all.

Shapes: N pictures, F findings, G groups (patients).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....base.account import note
from ....base.errors import fail, shown
from ...engine.subsets import Subsets, Taken

LEAST = {"train": 5, "validation": 2}  # pictures with, and without, a finding to learn it


def take_balanced(
    rows: np.ndarray, truth: np.ndarray, groups: np.ndarray, share: float, seed: int
) -> Taken:
    """Take about a share of the rows: entire groups, with about this share of the pictures of each
    finding.

    rows: int (N,), to choose among; truth: bool (N, F), groups: (N,), of each of these rows. Groups
    are dealt to the two sides by the rarest finding first, to the side that lacks most of it, as in
    iterative stratification (Sechidis et al., ECML 2011).

    Returns (taken, rest); nothing is taken for a share of 0 or from a single group.
    """
    names, member = np.unique(groups, return_inverse=True)
    if not share or len(names) < 2:
        return rows[:0], rows
    count = np.zeros((len(names), truth.shape[1] + 1), np.int64)  # of each finding; of pictures
    np.add.at(count[:, :-1], member, truth)
    count[:, -1] = np.bincount(member)
    lacking = np.array([[share], [1 - share]]) * count.sum(0)
    order = np.random.default_rng(seed).permutation(len(names))
    side = np.full(len(names), -1)
    while (side < 0).any():
        remaining = count[side < 0].sum(0)
        rarest = int(np.argmin(np.where(remaining > 0, remaining, np.iinfo(np.int64).max)))
        for group in order[(side[order] < 0) & (count[order, rarest] > 0)]:
            need = lacking[:, rarest], lacking[:, -1]
            chosen = int(np.lexsort(need[::-1])[-1])
            side[group] = chosen
            lacking[chosen] -= count[group]
    taken = side[member] == 0
    return rows[taken], rows[~taken]


def counts_of(
    truth: np.ndarray, known: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How many of these rows have each finding, and how many are known not to have it, (F,)."""
    return truth[rows].sum(0), (known[rows] & ~truth[rows]).sum(0)


def note_counts(
    findings: Sequence[str], truth: np.ndarray, known: np.ndarray, subsets: Subsets
) -> None:
    """Put the number of pictures of each finding in each part into the account."""
    counts = [counts_of(truth, known, rows)[0] for rows in subsets]
    lines = [
        f"{name} {' '.join(f'{count[k]:,}' for count in counts)}" for k, name in enumerate(findings)
    ]
    note("values", "findings, with pictures in training, validation and test", lines)


def learnable(
    where: object,
    findings: Sequence[str],
    truth: np.ndarray,
    known: np.ndarray,
    subsets: Subsets,
    *,
    named: bool,
) -> list[str]:
    """The findings with enough pictures with and without them to be learned and to choose an
    operating point; the others go into the account.

    named: whether the findings were asked for by name; then one with too few is an error, as are
    fewer than two (InputError).
    """
    few: dict[str, str] = {}
    for part, least in LEAST.items():
        rows = subsets.train if part == "train" else subsets.validation
        for kind, counts in zip(("with", "without"), counts_of(truth, known, rows), strict=True):
            title = "training" if part == "train" else part
            for name, count in zip(findings, counts.tolist(), strict=True):
                if count < least:
                    few.setdefault(name, f"{count} {kind} it in the {title} part")
    learned = [name for name in findings if name not in few]
    if few and (named or len(learned) < 2):
        name, problem = next(iter(few.items()))
        least = f"at least {LEAST['train']} and, in the validation part, {LEAST['validation']}"
        cure = "leave it out of --findings, raise --validation-share, or add pictures"
        others = f" (and {len(few) - 1} more findings)" if len(few) > 1 else ""
        problem = f"finding {shown(name)} has {problem}{others}; needed are {least}"
        raise fail(where, f"{problem}; {cure}")
    if few:
        what = "findings with too few pictures, which are not learned"
        note("left out", what, [f"{name}: {problem}" for name, problem in few.items()])
    return learned
