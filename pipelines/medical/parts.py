"""Which patients are in which part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...data.items import join_copies
from ...data.xrays.records import XraySet
from ...data.xrays.several import truth_of
from ..engine.subsets import Subsets, Taken, own_or_shares, refuse_shared_groups, take_stratified
from .options import MedicalOptions
from .several.parts import take_balanced


def split_by_patient(
    options: MedicalOptions, xrays: XraySet, copies: Sequence[Sequence[str]] = ()
) -> Subsets:
    """Rows of the three parts: those that the data names, or else shares of the patients, with the
    classes balanced as far as possible.

    copies: names of pictures that are exact copies of each other, whose patients stay together.
    Raises `InputError` where a part is empty, a patient is in two parts, and for copies with two
    labels or in two parts.
    """
    labels = np.array(xrays.labels)
    truth = truth_of(xrays.labels, xrays.findings)[0] if xrays.findings else None
    content_of = {name: str(k) for k, names in enumerate(copies) for name in names}
    contents = [content_of.get(name, f"only {name}") for name in xrays.names]
    patients = np.array(
        join_copies(
            xrays.where, "picture", xrays.names, contents, xrays.patients, xrays.labels, xrays.parts
        )
    )

    def take(rows: np.ndarray, share: float, part: str) -> Taken:
        seed = options.seed + (part == "validation")
        if truth is not None:
            return take_balanced(rows, truth[rows], patients[rows], share, seed)
        return take_stratified(xrays.where, rows, labels[rows], patients[rows], share, seed)

    subsets = own_or_shares(
        xrays.where,
        xrays.parts,
        take,
        test_share=options.test_share,
        validation_share=options.validation_share,
        items="pictures",
    )
    refuse_shared_groups(xrays.where, subsets, xrays.patients, "patient")
    return subsets
