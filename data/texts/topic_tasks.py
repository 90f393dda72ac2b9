"""Tasks for raters, human or machine: word intrusion and topic word mixing.

- Intrusion (Chang et al. 2009): the first 4 words of a topic and an intruder, a word that is
  important in another topic and not in this one. Which word does not belong?
- Mixing (Prouteau et al. 2026): two halves of 4 words, either the first 8 words of one topic, or
  the first 4 of a topic and the first 4 of the topic that is closest to it. One topic or two?

Made as in that paper, except that the intruder is never among the first half of the topic's own
words (the published maker writes one half and takes 2 %).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from ...base.account import note
from .topics import Topic

Kind: TypeAlias = Literal["intrusion", "mixing"]
KINDS: tuple[Kind, ...] = ("intrusion", "mixing")
SINGLE, MIXED = "single", "mixed"  # the truths of mixing
SIZE = 4  # words of a topic in an intrusion, and of a half in a mixing
LEADING = 0.1  # share of another topic's words that an intruder is among
OUTSIDE = 50  # an intruder is at least outside so many of the topic's own words
# What nobody who reads English mistakes: groups of one kind each.
CLEAR_GROUPS: tuple[tuple[str, ...], ...] = (
    ("apple", "pear", "plum", "cherry", "peach", "grape", "lemon", "melon"),
    ("hammer", "drill", "pliers", "wrench", "chisel", "saw", "screwdriver", "axe"),
    ("trumpet", "violin", "piano", "flute", "guitar", "drum", "cello", "harp"),
    ("rain", "snow", "storm", "wind", "fog", "hail", "cloud", "thunder"),
    ("shirt", "jacket", "trousers", "sock", "coat", "glove", "scarf", "skirt"),
    ("train", "bus", "tram", "lorry", "bicycle", "ferry", "taxi", "motorcycle"),
    ("dog", "cat", "horse", "cow", "sheep", "goat", "pig", "donkey"),
    ("doctor", "nurse", "surgeon", "patient", "clinic", "hospital", "medicine", "ward"),
)


@dataclass(frozen=True)
class WordTask:
    """A task for raters.

    model: whose topics; topics: names of the one or two that its words are of. words: in the order
    in which they are shown, the two halves of a mixing one after the other. truth: the intruder, or
    single or mixed. control: whether the answer is beyond doubt.
    """

    kind: Kind
    model: str
    topics: tuple[str, ...]
    words: tuple[str, ...]
    truth: str
    control: bool = False

    @property
    def halves(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The two groups of words of a mixing."""
        half = len(self.words) // 2
        return self.words[:half], self.words[half:]


def intrusion_tasks(
    model: str,
    topics: Sequence[Topic],
    generator: np.random.Generator,
    *,
    frequency: Mapping[str, float] | None = None,
    known: Callable[[str], bool] = lambda word: True,
) -> list[WordTask]:
    """An intrusion for each topic that has 4 words and an intruder; the others are noted.

    frequency: of words in the corpus; the intruder is the candidate whose frequency is nearest to
    the mean of the four, without it a random one. known: whether a word may be an intruder.
    """
    tasks, without = [], []
    leading = [_leading(topic.words) for topic in topics]
    for place, topic in enumerate(topics):
        near = set(topic.words[: max(OUTSIDE, -(-len(topic.words) // 2))])
        candidates = dict.fromkeys(
            word
            for other, words in enumerate(leading)
            for word in words
            if other != place and word not in near and known(word)
        )
        top = topic.words[:SIZE]
        if len(top) < SIZE or not candidates:
            without.append(f"{model}: {topic.name}")
            continue
        intruder = _nearest_frequency(list(candidates), top, frequency, generator)
        words = generator.permutation([*top, intruder])
        tasks.append(WordTask("intrusion", model, (topic.name,), tuple(map(str, words)), intruder))
    if without:
        note("left out", f"topics without {SIZE} words or an intruder (intrusion)", without)
    return tasks


def mixing_tasks(
    model: str, topics: Sequence[Topic], similarity: np.ndarray, generator: np.random.Generator
) -> list[WordTask]:
    """A single for each topic with 8 words, and a mixed for each pair of a topic and the closest.

    similarity: (K, K) between topics, NaN where unknown. A pair is mixed once. A word of the first
    half is replaced in the second by the next word of its topic. Topics with too few words are
    noted.
    """
    tasks, short = [], []
    for topic in topics:
        words = topic.words[: 2 * SIZE]
        if len(words) < 2 * SIZE:
            short.append(f"{model}: {topic.name}")
            continue
        halves = (words[:SIZE], words[SIZE:])
        tasks.append(_mixing(model, (topic.name,), halves, SINGLE, generator))
    for first, second in closest_pairs(similarity):
        head = topics[first].words[:SIZE]
        rest = [word for word in topics[second].words if word not in head][:SIZE]
        if len(head) == len(rest) == SIZE:
            names = (topics[first].name, topics[second].name)
            tasks.append(_mixing(model, names, (head, tuple(rest)), MIXED, generator))
    if short:
        note("left out", f"topics without {2 * SIZE} words (mixing)", short)
    return tasks


def closest_pairs(similarity: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of a topic and the one that is closest to it, each pair once; similarity (K, K)."""
    others = np.where(np.isnan(similarity), -np.inf, similarity)
    np.fill_diagonal(others, -np.inf)
    pairs: dict[tuple[int, int], tuple[int, int]] = {}
    for place, row in enumerate(others):
        nearest = int(row.argmax())
        if row[nearest] > -np.inf:
            pairs.setdefault((min(place, nearest), max(place, nearest)), (place, nearest))
    return list(pairs.values())


def control_tasks(
    kind: Kind, groups: Sequence[Sequence[str]], count: int, generator: np.random.Generator
) -> list[WordTask]:
    """Tasks beyond doubt, from groups of words of one kind each; half of the mixings are mixed.

    Each group needs 8 words; there must be two of them.
    """
    tasks = []
    order = generator.permutation(len(groups))
    for number in range(count):
        first = groups[order[number % len(order)]]
        second = groups[order[(number + 1 + number // len(order)) % len(order)]]
        if second is first:
            second = groups[order[(number + 1) % len(order)]]
        start = list(map(str, generator.permutation(first)))
        if kind == "intrusion":
            intruder = str(generator.choice(second))
            words = tuple(map(str, generator.permutation([*start[:SIZE], intruder])))
            tasks.append(WordTask(kind, "control", (), words, intruder, control=True))
            continue
        mixed = number % 2 == 1
        rest = list(map(str, generator.permutation(second))) if mixed else start[SIZE:]
        halves = (tuple(start[:SIZE]), tuple(rest[:SIZE]))
        task = _mixing("control", (), halves, MIXED if mixed else SINGLE, generator)
        tasks.append(replace(task, control=True))
    return tasks


def balanced(
    tasks: Sequence[WordTask], most: int | None, generator: np.random.Generator
) -> list[WordTask]:
    """As many tasks of each model, kind and truth of a mixing: as many as the smallest of these
    sets has, at most `most` of each; the rest, by chance, is left out and noted.
    """
    sets: dict[tuple[str, str], dict[str, list[WordTask]]] = {}
    for task in tasks:
        truth = task.truth if task.kind == "mixing" else ""
        sets.setdefault((task.kind, truth), {}).setdefault(task.model, []).append(task)
    chosen: list[WordTask] = []
    for kind in KINDS:
        models = [
            members for (of, _), among in sets.items() if of == kind for members in among.values()
        ]
        count = min(map(len, models), default=0)
        count = count if most is None else min(count, most)
        for members in models:
            places = np.sort(generator.permutation(len(members))[:count])
            chosen += [members[place] for place in places]
    if len(chosen) < len(tasks):
        what = "tasks, so that there are as many of each model and kind"
        note("left out", what, count=len(tasks) - len(chosen))
    return chosen


def assigned(tasks: int, raters: int, each: int, generator: np.random.Generator) -> list[list[int]]:
    """Which tasks each rater gets, in its own random order: every task goes to `each` raters, and
    no rater gets two tasks more than another.
    """
    by_rater: list[list[int]] = [[] for _ in range(raters)]
    turn = 0
    for task in generator.permutation(tasks):
        for _ in range(each):
            by_rater[turn % raters].append(int(task))
            turn += 1
    return [[int(task) for task in generator.permutation(numbers)] for numbers in by_rater]


def _mixing(
    model: str,
    names: tuple[str, ...],
    halves: tuple[Collection[str], Collection[str]],
    truth: str,
    generator: np.random.Generator,
) -> WordTask:
    """A mixing with its halves, and the words within them, in random order."""
    order = generator.permutation(2)
    shuffled = [tuple(map(str, generator.permutation(list(half)))) for half in halves]
    words = shuffled[order[0]] + shuffled[order[1]]
    return WordTask("mixing", model, names, words, truth)


def _leading(words: Sequence[str]) -> Sequence[str]:
    """The first tenth of a topic's words, at least its first 4."""
    return words[: max(SIZE, int(LEADING * len(words)))]


def _nearest_frequency(
    candidates: list[str],
    top: Sequence[str],
    frequency: Mapping[str, float] | None,
    generator: np.random.Generator,
) -> str:
    counted = [word for word in candidates if frequency is not None and word in frequency]
    counted_top = [word for word in top if frequency is not None and word in frequency]
    if frequency is None or not counted or not counted_top:
        return candidates[int(generator.integers(len(candidates)))]
    mean = np.mean([frequency[word] for word in counted_top])
    return min(counted, key=lambda word: abs(frequency[word] - mean))
