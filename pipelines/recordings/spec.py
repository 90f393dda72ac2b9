"""What a model of recordings needs to meet new ones, as the run keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from ..engine.spec import Spec
from .features import StoredMoments


class InputFacts(TypedDict):
    """What the model was trained on, as the run's card says it."""

    recordings: int
    training_recordings: int
    speakers: int
    sound: str


@dataclass(frozen=True, kw_only=True)
class RecordingsSpec(Spec):
    """What a model of recordings needs to meet new ones.

    classes      sorted
    counts       recordings of the training part of each class
    features     what the tokens are, and weights of the encoder that makes them, "" without one
    fingerprint  what tells these weights from others
    seconds      longest stretch that is used
    moments      of what the model sees, in the training part
    prior        of the training part before speakers are standardised; none where they are not
    pattern      of names, "" for none
    parts        recordings of each part
    """

    input: InputFacts
    classes: list[str]
    counts: list[int]
    features: str
    weights: str
    fingerprint: str
    seconds: float
    moments: StoredMoments
    prior: StoredMoments | None
    pattern: str
    parts: Mapping[str, int]
