"""Batches of P identities with K pictures each, as triplet losses need them (Hermans et al., arXiv
1703.07737).
"""

import numpy as np


def count_batches(labels: np.ndarray, identities: int, each: int) -> int:
    """Batches an epoch: every picture once, but for the copies that fill up an identity's last K.

    labels: int (N,); identities: P; each: K.
    """
    counts = np.unique(labels, return_counts=True)[1]
    return max(1, -(-int((-(-counts // each)).sum()) // max(1, min(identities, len(counts)))))


def identity_batches(
    labels: np.ndarray, identities: int, each: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """An epoch of batches, each int64 (P, K) of places in `labels`: P different identities (fewer
    where there are fewer), K pictures of each, without a copy where it has K.

    The pictures of an identity are shuffled and cut into groups of K, the last one filled up from
    its others. A batch draws identities by how many groups they have left, those first that no
    batch to come can do without; when fewer than P have any, others give pictures again. An
    identity with more groups than there are batches gives one to each, and the rest wait for the
    next epoch."""
    places = [np.flatnonzero(labels == one) for one in np.unique(labels)]
    groups = [_groups(generator.permutation(own), each, generator) for own in places]
    left = np.array([len(own) for own in groups])
    wanted = min(identities, len(groups))
    batches = []
    for ahead in range(count_batches(labels, identities, each), 0, -1):
        # Exponential clocks: the first P to ring are P draws without replacement, by weight.
        with np.errstate(divide="ignore"):
            clock = generator.exponential(size=len(groups)) / left
        spare = generator.random(len(groups))  # orders those that have none left, behind all others
        chosen = np.lexsort((spare, clock, left < ahead))[:wanted]
        batch = []
        for one in chosen.tolist():
            if left[one]:
                left[one] -= 1
                batch.append(groups[one][left[one]])
            else:
                batch.append(_groups(generator.permutation(places[one]), each, generator)[0])
        batches.append(np.stack(batch))
    return batches


def _groups(places: np.ndarray, each: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Shuffled pictures in groups of K; the last is filled up from the rest, or by copies where
    there are too few.
    """
    groups = [places[start : start + each] for start in range(0, len(places), each)]
    short = each - len(groups[-1])
    if short:
        rest = places[: len(places) - len(groups[-1])]
        more = rest if len(rest) >= short else places
        fill = generator.choice(more, short, replace=len(more) < short)
        groups[-1] = np.concatenate([groups[-1], fill])
    return groups
