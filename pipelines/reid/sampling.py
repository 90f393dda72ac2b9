"""Batches of P identities with K pictures each, as triplet losses need them (Hermans et al., arXiv
1703.07737).
"""

import numpy as np


def count_batches(labels: np.ndarray, identities: int, per_identity: int) -> int:
    """Batches per epoch: all pictures once, but for the copies that fill an identity's last group.

    labels: int (N,); identities: P; per_identity: K.

    >>> count_batches(np.array([0] * 5 + [1] * 4 + [2] * 8), identities=2, per_identity=4)
    3
    """
    counts = np.unique(labels, return_counts=True)[1]
    groups = int((-(-counts // per_identity)).sum())
    return max(1, -(-groups // max(1, min(identities, len(counts)))))


def identity_batches(
    labels: np.ndarray, identities: int, per_identity: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """The batches of an epoch, each int64 (P, K) of places in `labels`: P different identities
    (fewer if there are not so many), K pictures of each, without a copy if it has K.

    The pictures of an identity are shuffled and cut into groups of K, and the last group is filled
    with others of them. A batch draws identities by how many groups they have left, but takes first
    those that no later batch can do without; when fewer than P have any, others give pictures
    again. An identity with more groups than there are batches gives one to each batch, and the rest
    wait for the next epoch.
    """
    places = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    groups = [
        _groups(generator.permutation(pictures), per_identity, generator) for pictures in places
    ]
    remaining = np.array([len(of_identity) for of_identity in groups])
    size = min(identities, len(groups))
    batches = []
    for batches_to_come in range(count_batches(labels, identities, per_identity), 0, -1):
        # Exponential clocks: the first P to ring are P draws without replacement, by weight.
        with np.errstate(divide="ignore"):
            clock = generator.exponential(size=len(groups)) / remaining
        # Identities without remaining groups come after all others, in random order.
        tie_break = generator.random(len(groups))
        chosen = np.lexsort((tie_break, clock, remaining < batches_to_come))[:size]
        batch = []
        for identity in chosen.tolist():
            if remaining[identity]:
                remaining[identity] -= 1
                batch.append(groups[identity][remaining[identity]])
            else:
                shuffled = generator.permutation(places[identity])
                batch.append(_groups(shuffled, per_identity, generator)[0])
        batches.append(np.stack(batch))
    return batches


def _groups(
    places: np.ndarray, per_identity: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Shuffled pictures in groups of K; the last one is filled with others, or with copies if there
    are too few."""
    groups = [places[start : start + per_identity] for start in range(0, len(places), per_identity)]
    missing = per_identity - len(groups[-1])
    if missing:
        others = places[: len(places) - len(groups[-1])]
        choices = others if len(others) >= missing else places
        fill = generator.choice(choices, missing, replace=len(choices) < missing)
        groups[-1] = np.concatenate([groups[-1], fill])
    return groups
