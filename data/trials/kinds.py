"""What the trials of a part are like, and the parts of each split.

Objects that questions ask about are of the first ten letters; other objects of a scene are of all
26. The splits are those of gCOG (arXiv 2401.15030), with the faults of their published form
repaired where `rules` is "repaired".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Literal, NamedTuple, TypeAlias

from .trial import (
    COLOURS,
    CONDITIONS,
    EXIST,
    GET_COLOUR,
    GET_LETTER,
    GO,
    PARITIES,
    PRODUCT_EVEN,
    PRODUCT_ODD,
    QUESTIONS,
    SUM_EVEN,
    SUM_ODD,
)

Rules: TypeAlias = Literal["repaired", "official"]
SplitName: TypeAlias = Literal["distractors", "operators", "operators-leaky", "subtrees", "depth"]
Objects: TypeAlias = Literal["any", "half", "crossed", "leaky", "leaky-crossed"]
Pair: TypeAlias = tuple[int, int]
"""Colour and letter of an object."""

ASKED_LETTERS = 10
"""Letters of the objects that questions ask about: the first ten."""
HALF = 5
FIRST_SET = (EXIST, SUM_EVEN, PRODUCT_EVEN, GET_LETTER)
"""Operators that the split "operators" pairs with one half of the objects, the rest with the
other."""
AS_TRAINED = "as trained"


class Family(NamedTuple):
    """Trees whose conditions and whose endings are of these operators."""

    conditions: tuple[int, ...]
    endings: tuple[int, ...]


ALL_TREES = (Family(CONDITIONS, QUESTIONS),)
_EVEN = (EXIST, SUM_EVEN, PRODUCT_EVEN)
_ODD = (SUM_ODD, PRODUCT_ODD)
_ENDINGS = (SUM_EVEN, PRODUCT_EVEN, GET_COLOUR, GET_LETTER)
_OTHER_ENDINGS = (EXIST, SUM_ODD, PRODUCT_ODD, GO)
TRAINED_TREES = (Family(_EVEN, _ENDINGS), Family(_ODD, _OTHER_ENDINGS))
CROSSED_TREES = (Family(_EVEN, _OTHER_ENDINGS), Family(_ODD, _ENDINGS))


@dataclass(frozen=True)
class TrialKind:
    """What trials are like.

    rules: whether they are generated well posed and balanced, or as by the published code; depths:
    of their rules, each as frequent; fewest, most: objects that nothing asks about, any number
    between as frequent; families: of the operators of trees, each as frequent; objects: which
    objects go with which operators.
    """

    rules: Rules
    depths: tuple[int, ...] = (1,)
    fewest: int = 0
    most: int = 5
    families: tuple[Family, ...] = ALL_TREES
    objects: Objects = "any"

    @cached_property
    def pairs(self) -> Mapping[int, Sequence[Pair]]:
        """The objects that each operator may ask about."""
        return {operator: pairs_of(self.objects, operator) for operator in QUESTIONS}


def pairs_of(objects: Objects, operator: int) -> list[Pair]:
    """The colours and letters that an operator may ask about."""
    everything = list(product(range(1, len(COLOURS) + 1), range(1, ASKED_LETTERS + 1)))
    if objects == "any":
        return everything
    first = (operator in FIRST_SET) != objects.endswith("crossed")
    if objects.startswith("leaky"):
        # As published: the two sets share a quarter of the objects, and a quarter is in neither.
        if first:
            return [pair for pair in everything if pair[0] <= HALF]
        return [pair for pair in everything if pair[1] > HALF]
    return [pair for pair in everything if ((pair[0] <= HALF) == (pair[1] <= HALF)) == first]


@dataclass(frozen=True)
class TrialSplit:
    """The kinds of trials of a split: what a training sees, and by name what the test part has."""

    train: TrialKind
    test: Mapping[str, TrialKind]


def split_kinds(
    name: SplitName,
    rules: Rules = "repaired",
    *,
    most: int = 5,
    distractors: Sequence[int] = (10, 20, 30, 40),
    depth: int = 5,
) -> TrialSplit:
    """The kinds of trials of a split. The test part has trials as in the training, too.

    most: objects that nothing asks about, in the training; distractors: their numbers in the test
    part of the split "distractors"; depth: of the rules in the test part of "depth".
    """
    plain = TrialKind(rules, most=most)
    if name == "distractors":
        train = plain
        test = {
            f"{count} distractors": replace(plain, fewest=count, most=count)
            for count in distractors
        }
    elif name == "subtrees":
        train = replace(plain, depths=(3,), families=TRAINED_TREES)
        test = {"crossed": replace(train, families=CROSSED_TREES)}
    elif name == "depth":
        train = replace(plain, depths=(1, 3))
        test = {f"depth {depth}": replace(plain, depths=(depth,))}
    else:
        leaky = name == "operators-leaky"
        train = replace(plain, objects="leaky" if leaky else "half")
        test = {"crossed": replace(plain, objects="leaky-crossed" if leaky else "crossed")}
    return TrialSplit(train, {AS_TRAINED: train, **test})


def takes_two(operator: int) -> bool:
    """Whether an operator may ask about two objects."""
    return operator in PARITIES
