"""How well transcripts and word times agree with references.

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
    """The text as it is compared: lower case, no punctuation except apostrophes inside words,
    single spaces.

    >>> plain("Don't  stop, please!")
    "don't stop please"
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    text = re.sub(r"[^\w\s']|_", " ", text)
    return " ".join(word.strip("'") for word in text.split() if word.strip("'"))


@dataclass(frozen=True)
class Errors:
    """Errors of each recording, int (N,): `wrong` counts substitutions, deletions and insertions,
    `total` the words or characters of the reference."""

    wrong: np.ndarray
    total: np.ndarray

    @property
    def rate(self) -> float:
        """Errors per word (or character) of the references; NaN if these are empty."""
        return float(self.wrong.sum() / self.total.sum()) if self.total.sum() else float("nan")

    def interval(self, groups: Sequence[str], draws: int = DRAWS, seed: int = 0) -> Interval:
        """95 % interval of the rate, groups drawn with replacement; NaN without any words."""
        if not self.total.sum():
            return UNDEFINED

        return bootstrap_intervals(
            lambda weights: {"rate": self.rates(weights)}, groups, draws=draws, seed=seed
        )["rate"]

    def rates(self, weights: np.ndarray) -> np.ndarray:
        """The rate for each row of weights of the recordings (B, N) -> (B,); NaN without words."""
        total = weights @ self.total
        rate = np.full(len(weights), np.nan)
        return np.divide(weights @ self.wrong, total, out=rate, where=total > 0)


def text_errors(predicted: Sequence[str], true: Sequence[str], characters: bool = False) -> Errors:
    """Errors of each transcript against its reference, after `plain` for both. A reference without
    words counts all predicted words as insertions. Raises ValueError if the numbers of texts
    differ."""
    import jiwer

    if len(predicted) != len(true):
        raise ValueError(f"text_errors: {len(predicted)} transcripts but {len(true)} references")
    wrong, total = [], []
    for text, reference in zip(map(plain, predicted), map(plain, true)):
        if not reference:
            wrong.append(len(text if characters else text.split()))
            total.append(0)
            continue
        alignment = (jiwer.process_characters if characters else jiwer.process_words)(
            reference, text
        )
        wrong.append(alignment.substitutions + alignment.deletions + alignment.insertions)
        total.append(alignment.hits + alignment.substitutions + alignment.deletions)
    return Errors(np.array(wrong, np.int64), np.array(total, np.int64))


@dataclass(frozen=True)
class Boundaries:
    """Signed errors in seconds of the starts and ends of W matched words, (W,), and the number of
    the recording that each word belongs to, (W,).
    """

    start: np.ndarray
    end: np.ndarray
    recording: np.ndarray

    def summary(self, tolerance: float = 0.1) -> dict[str, float]:
        """Number of words; mean and median of the absolute error and mean of the signed error, all
        in milliseconds; share of words within the tolerance, which is in seconds."""
        figures: dict[str, float] = {"words": len(self.start)}
        if not len(self.start):
            return figures
        for name, error in (("start", self.start), ("end", self.end)):
            figures[f"{name}_mae_ms"] = 1000 * float(np.abs(error).mean())
            figures[f"{name}_median_ms"] = 1000 * float(np.median(np.abs(error)))
            figures[f"{name}_bias_ms"] = 1000 * float(error.mean())
            figures[f"{name}_within"] = float((np.abs(error) <= tolerance + 1e-9).mean())
        return figures


def equal_words(predicted: Sequence[str], true: Sequence[str]) -> list[tuple[int, int]]:
    """Places (predicted, true) of equal words in two texts, as the word error rate aligns them."""
    import jiwer

    a, b = ([plain(word).replace(" ", "") or "-" for word in words] for words in (predicted, true))
    if not a or not b:
        return []
    return [
        (chunk.hyp_start_idx + k, chunk.ref_start_idx + k)
        for chunk in jiwer.process_words(" ".join(b), " ".join(a)).alignments[0]
        if chunk.type == "equal"
        for k in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]


def boundary_errors(
    predicted: Sequence[Sequence[tuple[str, float, float]]],
    true: Sequence[Sequence[tuple[str, float, float]]],
) -> Boundaries:
    """Errors of word times. The words (text, start, end) of each recording are aligned as by the
    word error rate; only equal words count. Raises ValueError if the numbers of recordings
    differ."""
    start, end, recording = [], [], []
    for number, (words, known) in enumerate(zip(predicted, true, strict=True)):
        for a, b in equal_words([word[0] for word in words], [word[0] for word in known]):
            start.append(words[a][1] - known[b][1])
            end.append(words[a][2] - known[b][2])
            recording.append(number)
    return Boundaries(np.array(start), np.array(end), np.array(recording, np.int64))
