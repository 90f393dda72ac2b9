"""How good the transcripts and word times of a part are: error rates with intervals by speaker,
errors of word times where the true ones are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import polars as pl

from ...data.speech.transcripts import Word
from ..engine.command_line.terminal import Progressbar
from ..engine.pipeline import Metrics, ReportFigure, Review
from ..engine.training.order import sequential
from ..figures.classifier import with_interval
from ..metrics.alignment import Boundaries, Errors, boundary_errors, text_errors
from .data import Recordings
from .figures import boundary_figure, recording_figure
from .transcriber import Transcriber
from .word_times import decode_known

MOST_CANDIDATES = 50  # texts that are tried as the same answer for all recordings
WORST_LISTED = 10
MEAN_OF_HEADS = "cross-attention, mean of all heads"


class Transcripts(NamedTuple):
    """The predicted text and words of each recording of a part; no words where they have no
    times.
    """

    texts: list[str]
    words: list[list[Word]]


def review_recordings(transcriber: Transcriber, part: Recordings, seed: int) -> Review:
    """Transcribe a part and score it: error rates, word times where the true ones are known, the
    worst and the best recording.

    seed: of the draws that intervals are made of.
    """
    transcripts = transcribe_part(transcriber, part)
    true_texts = [utterance.text or "" for utterance in part.utterances]
    words = text_errors(transcripts.texts, true_texts)
    characters = text_errors(transcripts.texts, true_texts, characters=True)
    same_text = rate_of_one_text(true_texts)
    boundaries = boundaries_of(part, transcripts.words)
    times = None if boundaries is None else boundaries.summary()
    groups = groups_of(part)
    metrics: Metrics = {
        "wer": words.rate,
        "cer": characters.rate,
        "intervals": {
            "wer": list(words.interval(groups, seed=seed)),
            "cer": list(characters.interval(groups, seed=seed)),
        },
        "recordings": len(part),
        "words": int(words.total.sum()),
        "speakers": len({utterance.speaker for utterance in part.utterances}),
        "baselines": {"the same text for all": {"wer": same_text}},
        "lag": transcriber.lag,
    }
    if times is not None:
        metrics["times"] = times
    order = np.argsort(-words.wrong / np.maximum(1, words.total), kind="stable").tolist()
    scores = {
        "word error rate": with_interval(metrics, "wer"),
        "character error rate": f"{characters.rate:.3f}",
        "word error rate of the same text for all": f"{same_text:.3f}",
        **{name.replace("_", " "): f"{value:.3g}" for name, value in (times or {}).items()},
    }
    tables = {
        "Scores on this part": pl.DataFrame(
            {"score": list(scores.keys()), "value": list(scores.values())}
        )
    }
    if len(worst := worst_table(part, transcripts.texts, words, order[:WORST_LISTED])):
        tables["Most errors"] = worst
    figures = [
        figure_of(transcriber, part, row, transcripts)
        for row in dict.fromkeys([*order[-1:], *order[:1]])
    ]
    if boundaries is not None:
        figures.append(boundary_figure(boundaries))
    starts = f"; word starts off by {times['start_mae_ms']:.0f} ms on average" if times else ""
    headline = (
        f"{len(part)} recordings, {metrics['words']} words: word error rate "
        f"{scores['word error rate']}, the same text for all {same_text:.3f}{starts}."
    )
    return Review(metrics, headline, figures, tables)


def texts_of(transcriber: Transcriber, part: Recordings) -> list[str]:
    """The text of every recording."""
    return transcribe_part(transcriber, part, with_times=False).texts


def transcribe_part(
    transcriber: Transcriber, part: Recordings, *, with_times: bool = True
) -> Transcripts:
    """The text and words of every recording, in batches of similar lengths; no words without
    times.
    """
    texts, words = [""] * len(part), [list[Word]() for _ in range(len(part))]
    order = sorted(range(len(part)), key=lambda row: part.seconds[row])
    with_times = with_times and transcriber.model.decoder.has_attention_weights
    with Progressbar(total=len(part), unit="recording", desc="scores") as bar:
        for places in sequential(len(order), 8):
            rows = [order[place] for place in places]
            memory = transcriber.encode(*part.padded_features(rows))
            transcripts = transcriber.transcripts(memory, [part.seconds[row] for row in rows])
            ids = [transcript.tokens for transcript in transcripts]
            for row, text_ids in zip(rows, ids, strict=True):
                texts[row] = transcriber.tokens.decode(text_ids)
            if with_times:
                sounds = [part.utterances[row].samples() for row in rows]
                timed = transcriber.times(memory, ids, sounds)
                for row, row_words in zip(rows, timed.words, strict=True):
                    words[row] = row_words
            bar.update(len(rows))
    return Transcripts(texts, words)


def words_of_known_texts(
    transcriber: Transcriber, part: Recordings, rows: Sequence[int], lags: Iterable[int]
) -> dict[int, list[list[Word]]]:
    """The words of the true texts of some recordings, with the times that the model gives them with
    each of the lags; a recording is read and encoded once for all of them.
    """
    words: dict[int, list[list[Word]]] = {lag: [] for lag in lags}
    for places in sequential(len(rows), 16):
        chosen = [rows[place] for place in places]
        memory = transcriber.encode(*part.padded_features(chosen))
        sounds = [part.utterances[row].samples() for row in chosen]
        ids = [part.text_ids(row) for row in chosen]
        for lag, words_of_lag in words.items():
            words_of_lag += replace(transcriber, lag=lag).times(memory, ids, sounds).words
    return words


def groups_of(part: Recordings) -> list[str]:
    """What is drawn for intervals: speakers, or recordings if no two speakers are named."""
    names = [utterance.name for utterance in part.utterances]
    speakers = [utterance.speaker or utterance.name for utterance in part.utterances]
    return speakers if len(set(speakers)) > 1 else names


def boundaries_of(part: Recordings, words: Sequence[Sequence[Word]]) -> Boundaries | None:
    """Errors of word times; None if no words match true ones with known times."""
    rows = [row for row, utterance in enumerate(part.utterances) if utterance.words]
    predicted = [_spans(words[row]) for row in rows]
    true = [_spans(part.utterances[row].words or ()) for row in rows]
    boundaries = boundary_errors(predicted, true)
    return boundaries if len(boundaries.start) else None


def _spans(words: Sequence[Word]) -> list[tuple[str, float, float]]:
    return [(word.text, word.start, word.end) for word in words]


def rate_of_one_text(true_texts: Sequence[str]) -> float:
    """The smallest word error rate of one text for all recordings: nothing at all, or one of the
    true texts.
    """
    candidates = ["", *sorted(set(true_texts))[:MOST_CANDIDATES]]
    return best_same_text(true_texts, candidates)[1]


def best_same_text(true_texts: Sequence[str], candidates: Iterable[str]) -> tuple[str, float]:
    """The candidate with the smallest word error rate if it is written for all recordings, the
    first of equals, and this rate.
    """
    rates = {
        text: text_errors([text] * len(true_texts), true_texts).rate
        for text in dict.fromkeys(candidates)
    }
    best = min(rates, key=rates.__getitem__)
    return best, rates[best]


def worst_table(
    part: Recordings, texts: Sequence[str], errors: Errors, rows: Sequence[int]
) -> pl.DataFrame:
    """What was said in some recordings and what the model wrote, where it made errors."""
    return pl.DataFrame(
        [
            {
                "recording": part.utterances[row].name,
                "errors": int(errors.wrong[row]),
                "said": texts[row],
                "true": part.utterances[row].text or "",
            }
            for row in rows
            if errors.wrong[row]
        ]
    )


def figure_of(
    transcriber: Transcriber, part: Recordings, row: int, transcripts: Transcripts
) -> ReportFigure:
    """A recording with its predicted and true words and the mean of its cross-attention."""
    utterance, text = part.utterances[row], transcripts.texts[row]
    maps: dict[str, np.ndarray] = {}
    ids = transcriber.text_ids(text)
    if ids and transcriber.model.decoder.has_attention_weights:
        memory = transcriber.encode(*part.padded_features([row]))
        layers = decode_known(transcriber.model, memory, transcriber.tokens, [ids], "layers")
        maps[MEAN_OF_HEADS] = layers.maps[0].mean(0)[: int(layers.sizes[0])].numpy()
    return recording_figure(
        f"heard-{row}",
        f"{utterance.name}: {text}",
        utterance.samples(),
        maps,
        words=transcripts.words[row],
        true_words=utterance.words or (),
    )
