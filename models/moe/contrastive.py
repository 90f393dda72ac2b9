"""Batches for diversified multiplet upcycling: each stage learns what earlier stages cannot
distinguish.

Shapes: M samples, D width of a feature.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray


def refine_labels(
    labels: NDArray[np.int64] | None,
    features: Sequence[NDArray[np.floating]],
    *,
    clusters: int = 3,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Pseudo-labels (M,) after one more stage: the earlier labels, split by k-means clusters of the
    stage's features.

    CLIP-MoE (arXiv 2409.19291): features (M, D) of each modality are clustered separately; 3
    clusters of images and 3 of texts give 9 new labels in each earlier one. labels: None before the
    first stage; clusters: per modality.

    Raises ValueError if lengths differ.
    """
    from sklearn.cluster import MiniBatchKMeans

    lengths = {len(part) for part in features} | ({len(labels)} if labels is not None else set())
    if len(lengths) != 1:
        raise ValueError(
            f"refine_labels: needs features and labels of one length, got {sorted(lengths)}"
        )
    refined = np.zeros(lengths.pop(), dtype=np.int64) if labels is None else labels.astype(np.int64)
    for part in features:
        refined = refined * clusters + MiniBatchKMeans(
            min(clusters, len(part)), random_state=seed
        ).fit_predict(part)
    return refined


def alike_batches(labels: NDArray[np.int64], batch: int, *, seed: int = 0) -> Iterator[list[int]]:
    """Batches of indices, each with one pseudo-label, which cannot distinguish the samples of a
    batch.

    No index comes twice. The rest of a label that does not fill a batch is left out of this epoch;
    another seed leaves out other samples. The order of batches is random.

    Raises ValueError if no label fills a batch.
    """
    dice = torch.Generator().manual_seed(seed)
    batches: list[list[int]] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = members[torch.randperm(len(members), generator=dice).numpy()]
        batches += [order[i : i + batch].tolist() for i in range(0, len(order) - batch + 1, batch)]
    if not batches:
        raise ValueError(
            f"alike_batches: no label has {batch} samples; take a smaller batch or fewer clusters"
        )
    return (batches[i] for i in torch.randperm(len(batches), generator=dice).tolist())
