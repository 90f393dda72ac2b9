"""A few explained texts for the report of a training.

Shapes: N texts, L outputs.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np
from torch import nn

from ....data.texts.table import with_rows
from ....data.texts.words import word_spans
from ....models.text.contributions import is_sum
from ...engine.pipeline import Context, ReportFigure
from ..data import TextPart
from ..figures import ShadedText, explained_texts
from ..options import TextOptions
from ..probabilities import Told
from ..spec import TextSpec
from .pages import Piece, heading, shaded_pieces
from .sums import ExplainedText, Explainer

EXAMPLES = 3
LOOKED_AT = 500  # texts among which examples are searched for
LONGEST, SHORTEST = 60, 8  # words of an example


def example_figures(
    model: nn.Module, part: TextPart, told: Told, context: Context[TextOptions, TextSpec]
) -> list[ReportFigure]:
    """The figure of a few texts with a right label each, short enough to be read at once; none
    where there are no such texts, or the model is no sum over the words.
    """
    chosen = _chosen(part, told)
    if not chosen or not is_sum(model):
        return []
    explainer = Explainer(model, part.coder, context.calibration, context.device, precise=False)
    texts = []
    for row, label in chosen:
        alone = with_rows(part.table, np.array([row]))
        explained = next(explainer.texts(alone, np.array([label]), 1))
        if isinstance(explained, ExplainedText):
            pieces = shaded_pieces(explained, 0, 0, len(explained.text))
            shades = [(piece.text, _signed(piece)) for piece in pieces]
            texts.append(ShadedText(heading(explained, context.spec), shades))
    return [explained_texts(texts)] if texts else []


def _signed(piece: Piece) -> float:
    return float(piece.strength or 0) * (-1 if piece.kind == "against" else 1)


def _chosen(part: TextPart, told: Told) -> list[tuple[int, int]]:
    """Rows and labels of the examples: the surest right ones, each of another label and text."""
    rows = [
        row
        for row, text in enumerate(part.table.texts[:LOOKED_AT])
        if SHORTEST <= sum(1 for _ in word_spans(text[:2000])) <= LONGEST and _is_drawable(text)
    ]
    truth = part.truth[rows] > 0
    if part.coder.spec.goal == "number":
        truth = np.ones_like(truth)
    chance = np.where(truth & told.labels[rows], told.probability[rows], 0.0)
    chosen: list[tuple[int, int]] = []
    while len(chosen) < EXAMPLES and chance.any():
        place, label = (int(k) for k in np.unravel_index(chance.argmax(), chance.shape))
        chosen.append((rows[place], label))
        chance[place] = 0.0
        if chance.shape[1] > 1:
            chance[:, label] = 0.0
    return chosen


def _is_drawable(text: str) -> bool:
    """Whether matplotlib's own font has all characters of a text, which it writes left to right."""
    if len(text) > 1000:
        return False
    return all(
        letter.isspace()
        or (ord(letter) in _characters() and unicodedata.bidirectional(letter) not in ("R", "AL"))
        for letter in text
    )


@lru_cache(maxsize=1)
def _characters() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
