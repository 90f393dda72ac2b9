"""How well a transcript and its word times agree with known ones.

Word and character error rates are jiwer's; intervals are bootstrapped over groups (speakers, or
recordings)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .bootstrap import DRAWS, UNDEFINED, Interval, bootstrap_intervals


def plain(text: str) -> str:
    """A text as it is compared: lower case, without punctuation but apostrophes in words, single
    spaces.
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    text = re.sub(r"[^\w\s']|_", " ", text)
    return " ".join(word.strip("'") for word in text.split() if word.strip("'"))


@dataclass(frozen=True)
class Errors:
    """Substitutions, deletions and insertions together, and how many words or characters there
    should be, of each recording: int (N,)."""

    wrong: np.ndarray
    total: np.ndarray

    @property
    def rate(self) -> float:
        """Errors a word (or character) of the references; NaN without any."""
        return float(self.wrong.sum() / self.total.sum()) if self.total.sum() else float("nan")

    def interval(self, groups: Sequence[str], draws: int = DRAWS, seed: int = 0) -> Interval:
        """95 % interval of the rate, groups drawn with replacement; NaN without any words."""
        if not self.total.sum():
            return UNDEFINED

        def rates(weights: np.ndarray) -> dict[str, np.ndarray]:
            total = weights @ self.total
            rate = np.full(len(weights), np.nan)
            return {"rate": np.divide(weights @ self.wrong, total, out=rate, where=total > 0)}

        return bootstrap_intervals(rates, groups, draws=draws, seed=seed)["rate"]


def text_errors(said: Sequence[str], true: Sequence[str], characters: bool = False) -> Errors:
    """Errors of each transcript against its reference, both made plain. A reference without words
    counts what is said as insertions. Raises ValueError where they differ in number."""
    import jiwer

    if len(said) != len(true):
        raise ValueError(f"text_errors: {len(said)} transcripts but {len(true)} references")
    wrong, total = [], []
    for one, reference in zip(map(plain, said), map(plain, true)):
        if not reference:
            wrong.append(len(one if characters else one.split()))
            total.append(0)
            continue
        found = (jiwer.process_characters if characters else jiwer.process_words)(reference, one)
        wrong.append(found.substitutions + found.deletions + found.insertions)
        total.append(found.hits + found.substitutions + found.deletions)
    return Errors(np.array(wrong, np.int64), np.array(total, np.int64))


@dataclass(frozen=True)
class Boundaries:
    """Signed errors in seconds of starts and ends of words that were matched, (W,), and the
    recording of each, (W,).
    """

    start: np.ndarray
    end: np.ndarray
    recording: np.ndarray

    def summary(self, tolerance: float = 0.1) -> dict[str, float]:
        """Words; mean and median of the absolute error, mean of the signed one, milliseconds; share
        within the tolerance, seconds."""
        found: dict[str, float] = {"words": len(self.start)}
        if not len(self.start):
            return found
        for name, error in (("start", self.start), ("end", self.end)):
            found[f"{name}_mae_ms"] = 1000 * float(np.abs(error).mean())
            found[f"{name}_median_ms"] = 1000 * float(np.median(np.abs(error)))
            found[f"{name}_bias_ms"] = 1000 * float(error.mean())
            found[f"{name}_within"] = float((np.abs(error) <= tolerance + 1e-9).mean())
        return found


def equal_words(found: Sequence[str], true: Sequence[str]) -> list[tuple[int, int]]:
    """Places of the words that two texts share, as the word error rate matches them."""
    import jiwer

    a, b = ([plain(word).replace(" ", "") or "-" for word in words] for words in (found, true))
    if not a or not b:
        return []
    return [
        (chunk.hyp_start_idx + k, chunk.ref_start_idx + k)
        for chunk in jiwer.process_words(" ".join(b), " ".join(a)).alignments[0]
        if chunk.type == "equal"
        for k in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]


def boundary_errors(
    found: Sequence[Sequence[tuple[str, float, float]]],
    true: Sequence[Sequence[tuple[str, float, float]]],
) -> Boundaries:
    """Errors of word times. Words (text, start, end) of a recording are matched as the word error
    rate matches them; only equal ones count."""
    start, end, recording = [], [], []
    for number, (own, known) in enumerate(zip(found, true, strict=True)):
        for a, b in equal_words([word[0] for word in own], [word[0] for word in known]):
            start.append(own[a][1] - known[b][1])
            end.append(own[a][2] - known[b][2])
            recording.append(number)
    return Boundaries(np.array(start), np.array(end), np.array(recording, np.int64))
