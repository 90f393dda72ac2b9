"""What makes a click log one that nothing, or something wrong, would be learned from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...base.account import doubt
from ...base.errors import fail, shown
from .account import unseen_share
from .coding import Rows
from .history import Events, Ragged
from .log import Log
from .schema import Schema
from .split import TRAIN

ALL_UNSEEN = 0.99  # share of the values of lists from which the lists say nothing


def check_roles(log: Log, schema: Schema) -> None:
    """Raise InputError for a label that is a feature, too, unless that is accepted.

    Conditions of histories may read a label: they see earlier rows only.
    """
    labels = {task.label.column: name for name, task in schema.tasks.items()}
    features = {schema.column(name) for name in (*schema.categorical, *schema.numeric)}
    features |= {s.column for s in schema.listed.values() if s.column is not None}
    for column in sorted(features & labels.keys()):
        what = f"column {shown(column)} is the label of task {labels[column]} and a feature, too"
        doubt("label-as-feature", log.files[0], f"{what}; take it away from the fields")


def check_labels(rows: Rows, part: np.ndarray, schema: Schema, log: Log) -> None:
    """Raise InputError for a task of whose label the training part has one kind only."""
    assert rows.labels is not None
    for place, (name, task) in enumerate(schema.tasks.items()):
        labels = rows.labels[part == TRAIN, place]
        labels = labels[labels >= 0]
        if not len(labels) or labels.min() == labels.max():
            problem = "no row of the training part counts"
            if len(labels):
                problem = f"every label of the training part is {labels[0]}"
            cure = "nothing can be learned from it"
            if len(labels) and labels[0] == 1:
                cure += "; the log needs rows, too, on which nothing happened (what was shown)"
            where = f"task {name} ({task.label.column})"
            raise fail(log.files[0], f"{where}: {problem}; {cure}")


def check_sequences(
    log: Log, schema: Schema, events: Mapping[str, Events], listed: Mapping[str, Ragged]
) -> None:
    """Raise InputError for a sequence that is empty on every row, and for one whose values the
    field that it is of does not have.
    """
    codes = {name: sequence.codes for name, sequence in events.items()}
    codes |= {name: sequence.values for name, sequence in listed.items()}
    for name, values in codes.items():
        if not len(values):
            problem = f"sequence {name}: is empty on every row"
            raise fail(log.files[0], f"{problem}; mend its condition or take it away")
    for name, sequence in listed.items():
        share = unseen_share(sequence)
        if share >= ALL_UNSEEN:
            of, mark = schema.sequences[name].of, schema.sequences[name].split
            problem = (
                f"sequence {name}: {share:.0%} of its values are no value of {of} in the training "
                f"part; is {shown(mark)} the mark between them (split), and {of} what they are of"
            )
            raise fail(log.files[0], f"{problem}? Mend the schema or take the sequence away")
