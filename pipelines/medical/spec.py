"""What a run of medical stores to meet new pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

from ..engine.spec import Spec

InputFacts = TypedDict(
    "InputFacts", {"pictures": int, "patients": int, "size": list[int], "body size": list[int]}
)
"""What the model was trained on, as the run's card says it; sizes are (height, width)."""


@dataclass(frozen=True, kw_only=True)
class MedicalSpec(Spec):
    """What a classifier of X-rays needs to meet new pictures.

    positive  number of the class that the operating point is for
    parts     pictures of each part
    copies    names of pictures that are exact copies of each other, which share a part
    unread    names of pictures that could not be read
    rule      what `prediction` is: the "most probable" class, or that of the "operating point"
    backbone  network that the weights decided; "": the one of the options
    counts    pictures of the training part with each class; none in an older run
    known     of several findings: pictures of which each is known
    several   whether a picture may have several of the classes, which then are findings with a
              probability and an operating point each
    """

    input: InputFacts
    classes: list[str]
    positive: int
    layout: str
    parts: dict[str, int]
    copies: list[list[str]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    rule: str = "most probable"
    backbone: str = ""
    several: bool = False
    counts: list[int] = field(default_factory=list)
    known: list[int] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the classifier's picture, pixels."""
        height, width = self.input["size"]
        return height, width

    @property
    def body_size(self) -> tuple[int, int]:
        """Height and width of the body's picture, pixels."""
        height, width = self.input["body size"]
        return height, width
