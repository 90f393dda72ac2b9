"""What each word of a text adds to the logit of each label, to the last digit.

All is computed in 64 bits, in which the parts sum to the logit within 1e-9. Shapes: L outputs of
the model, K of them explained, W words of a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ....base.errors import InputError, nearest, shown
from ....data.texts.table import TextTable, with_rows
from ....models.text.attention import Contributions, scaled
from ....models.text.contributions import attended_tokens, divided_part, is_sum, text_contributions
from ....models.text.inputs import TextInputs
from ....models.text.linear import of_labels
from ...engine.pipeline import Calibration
from ..coding import CodedTexts, TextCoder, inputs_of
from ..probabilities import Told, tell
from ..spec import TextSpec
from .words import Stretch, WordShares, share_words, stretches

NUMBERS = 1 << 23  # contributions of a text that are in memory at once
PART = 64  # texts that are coded at once


class KnownText(NamedTuple):
    """What is known about a text: its words at `spans`, int64 (V, 2), and what each of them adds to
    the calibrated logits, float64 (V, K).
    """

    text: str
    spans: np.ndarray
    words: np.ndarray


@dataclass(frozen=True)
class ExplainedText:
    """One text and what makes up the logits of some of its labels.

    id: "" where it has none; row: from 0; spans: int64 (W, 2), characters of its words; labels:
    (K,), places of the labels that are explained, the most probable first; words: float64 (W, K),
    what each word adds to the calibrated logit; table, symbols, bias: (K,), what the columns beside
    the text add, the tokens that stand for no characters, and what is the same for all texts of a
    source; vector: (K,), what the frozen vector of the text adds as a whole; network: (K,), what a
    model that is no sum adds besides, 0 where exact; logits: (K,), as the model gives them;
    probability, given, possible: (L,), of all labels; stretches: the windows of a long text;
    attention: (W,), to each word, of a model that is no sum; None where it has none;
    is_divided: whether there are words with contributions; knowledge: the words of what is known
    about the text, None for a model that reads no knowledge.
    """

    id: str
    row: int
    text: str
    spans: np.ndarray
    labels: np.ndarray
    words: np.ndarray
    table: np.ndarray
    symbols: np.ndarray
    bias: np.ndarray
    vector: np.ndarray
    network: np.ndarray
    logits: np.ndarray
    probability: np.ndarray
    given: np.ndarray
    possible: np.ndarray
    stretches: list[Stretch]
    exact: bool
    is_divided: bool
    attention: np.ndarray | None = None
    knowledge: KnownText | None = None

    @property
    def name(self) -> str:
        """What the text is called."""
        return self.id or f"row {self.row}"

    @property
    def error(self) -> float:
        """The largest difference between a logit and the sum of its parts."""
        if not len(self.labels):
            return 0.0
        rest = self.table + self.symbols + self.bias + self.vector + self.network
        if self.knowledge is not None:
            rest = rest + self.knowledge.words.sum(0)
        return float(np.abs(self.words.sum(0) + rest - self.logits).max())

    def of_knowledge(self) -> ExplainedText:
        """The knowledge in place of the text, to be shown as one."""
        assert self.knowledge is not None
        text, spans, words = self.knowledge
        return replace(self, text=text, spans=spans, words=words, stretches=[], knowledge=None)

    def shades(self, place: int) -> np.ndarray:
        """(W,), by what words are shaded: what they add to a label, or the attention to them."""
        if self.is_divided or self.attention is None:
            return self.words[:, place]
        return self.attention

    def strongest_stretch(self, place: int) -> int:
        """The stretch whose words add most to (or take most from) a label, by its place in
        `labels`.
        """
        return int(np.argmax(np.abs(self.by_stretch(place))))

    def by_stretch(self, place: int) -> np.ndarray:
        """What the words of each stretch add to a label together."""
        starts = np.array([part.start for part in self.stretches])
        member = np.searchsorted(starts, self.spans[:, 0], "right") - 1
        return np.bincount(member, self.shades(place), minlength=len(starts))


class Explainer:
    """Explains texts by a model of a run.

    model: is changed to 64 bits, unless precise is False; calibration: of the run. Raises
    `InputError` for a model of which nothing can be said.
    """

    def __init__(
        self,
        model: nn.Module,
        coder: TextCoder,
        calibration: Calibration,
        device: torch.device,
        *,
        precise: bool = True,
    ) -> None:
        # Of Apple's devices, none computes in 64 bits.
        self.device = torch.device("cpu") if device.type == "mps" and precise else device
        model = model.to(self.device).eval()
        self.model, self.precise = model.double() if precise else model, precise
        self.coder, self.spec, self.calibration = coder, coder.spec, calibration
        self.exact, self.divided = is_sum(model), divided_part(model)
        if self.divided is None and not hasattr(getattr(model, "model", model), "attended"):
            raise InputError(
                f"--run: the logits of its model ({type(model).__name__}) are no sum over words, "
                "and it attends to none; train another --model, or with --choose simple"
            )
        self.factor, self.shift = (
            values.to(self.device) for values in _scale(self.spec, calibration)
        )

    def texts(
        self, table: TextTable, labels: np.ndarray | None, top: int, start: int = 0
    ) -> Iterator[ExplainedText | ValueError]:
        """Each text of a table, explained, or why it cannot be: of some labels, by default of those
        that are given and of the `top` most probable ones. start: the row of the first.
        """
        for first in range(0, len(table), PART):
            part = with_rows(table, np.arange(first, min(first + PART, len(table))))
            coded = self.coder.code(part)
            known = self.coder.knowledge_texts(part) if coded.knowledge is not None else []
            for row in range(len(part)):
                text = known[row] if known else ""
                yield self._explained(part, coded, row, labels, top, start + first + row, text)

    def logits(self, table: TextTable) -> np.ndarray:
        """Calibrated logits (n, L) of texts; of a number, in its unit."""
        parts = [np.zeros((0, self.spec.outputs))]
        for first in range(0, len(table), PART):
            part = with_rows(table, np.arange(first, min(first + PART, len(table))))
            inputs = self._inputs(self.coder.code(part), np.arange(len(part)))
            parts.append(self._forward(inputs))
        return np.concatenate(parts)

    @torch.inference_mode()
    def _forward(self, inputs: Sequence[Tensor]) -> np.ndarray:
        logits = self.model(*inputs).double()
        return (self.factor * logits + self.shift).cpu().numpy()

    def _inputs(self, coded: CodedTexts, rows: np.ndarray) -> tuple[Tensor, ...]:
        batch = coded.inputs(rows, self.coder.padding)
        values = (value.to(self.device) for value in inputs_of(batch))
        if not self.precise:
            return tuple(values)
        return tuple(x.double() if x.is_floating_point() else x for x in values)

    def _explained(
        self,
        table: TextTable,
        coded: CodedTexts,
        row: int,
        labels: np.ndarray | None,
        top: int,
        number: int,
        known: str,
    ) -> ExplainedText | ValueError:
        text, inputs = table.texts[row], self._inputs(coded, np.array([row]))
        logits = self._forward(inputs)
        told = told_of(logits, self.calibration, self.spec)
        if not np.isfinite(logits).all():
            name = table.ids[row] or f"row {number}"
            return ValueError(f"text {shown(name)}: the model gives no finite logit")
        if labels is None:
            labels = _most_probable(told, top)
        counted = coded.counted[row].indices.tolist()
        places = self.coder.terms.places(text) if counted else {}
        offsets = coded.tokens[row].offsets if coded.tokens else np.zeros((0, 2), np.int64)
        shared = share_words(text, offsets, counted, places)
        of_knowledge = None
        if coded.knowledge is not None:
            of_knowledge = share_words(known, coded.knowledge[row].offsets, [], {})
        parts = self._parts(inputs, labels, shared, len(offsets), of_knowledge)
        attention = self._attention(inputs, shared, len(offsets))
        if self.divided is None and attention is None:
            raise InputError("--run: its mechanism of attention has no weights to show")
        window = self.spec.encoder["window"] if self.spec.encoder is not None else 1
        rest = np.zeros(len(labels)) if self.exact else logits[0, labels] - parts.total
        return ExplainedText(
            id=table.ids[row],
            row=number,
            text=text,
            spans=shared.spans,
            labels=labels,
            words=parts.words,
            table=parts.table,
            symbols=parts.symbols,
            bias=parts.bias,
            vector=parts.vector,
            network=rest,
            logits=logits[0, labels],
            probability=told.probability[0],
            given=told.labels[0],
            possible=told.possible[0],
            stretches=stretches(text, shared.spans, offsets, window),
            exact=self.exact,
            is_divided=self.divided is not None,
            attention=attention,
            knowledge=None
            if of_knowledge is None
            else KnownText(known, of_knowledge.spans, parts.knowledge),
        )

    @torch.inference_mode()
    def _attention(
        self, inputs: Sequence[Tensor], shared: WordShares, tokens: int
    ) -> np.ndarray | None:
        """(W,), to the words, of a model that is no sum."""
        attention = None if self.exact else attended_tokens(self.model, inputs)
        if attention is None:
            return None
        return shared.shares[:, :tokens] @ attention[0, :tokens].double().cpu().numpy()

    @torch.inference_mode()
    def _parts(
        self,
        inputs: Sequence[Tensor],
        labels: np.ndarray,
        shared: WordShares,
        tokens: int,
        of_knowledge: WordShares | None,
    ) -> _Parts:
        """What makes up the calibrated logits (K,), some labels at a time where they are many."""
        if self.divided is None:
            words = np.zeros((len(shared.spans), len(labels)))
            nothing = np.zeros(len(labels))
            return _Parts(words, nothing, nothing, nothing, nothing, words[:0])
        x = TextInputs(*inputs)
        places = len(shared.alone) + x.places - x.tokens.shape[1]
        step = max(1, NUMBERS // max(1, places))
        blocks = []
        for first in range(0, max(1, len(labels)), step):
            some = torch.from_numpy(labels[first : first + step]).to(self.device)
            parts = self._scaled(inputs, some)
            block = _shared(parts, shared, tokens)
            if of_knowledge is not None:
                block = _with_knowledge(block, parts, of_knowledge, x.tokens.shape[1])
            if self.spec.vectors is not None:
                # The vector stands behind the table; what is lost without it is what it adds.
                table = x.table.clone()
                table[:, self.spec.own_table_width :] = 0
                without = [value for value in x._replace(table=table) if value is not None]
                alone = self._scaled(without, some).table[0].double()
                alone = alone.cpu().numpy()
                block = block._replace(table=alone, vector=block.table - alone)
            blocks.append(block)
        last = [np.concatenate(values, -1) for values in zip(*blocks, strict=True)]
        return _Parts(*last)

    def _scaled(self, inputs: Sequence[Tensor], labels: Tensor) -> Contributions:
        """Contributions to calibrated logits."""
        assert self.divided is not None
        parts = text_contributions(self.divided, inputs, labels)
        return scaled(parts, of_labels(self.factor, labels), of_labels(self.shift, labels))


class _Parts(NamedTuple):
    """words: (W, K), knowledge: (V, K), the others: (K,), as of `ExplainedText`."""

    words: np.ndarray
    table: np.ndarray
    symbols: np.ndarray
    bias: np.ndarray
    vector: np.ndarray
    knowledge: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Their sum, (K,)."""
        of_words = self.words.sum(0) + self.knowledge.sum(0)
        return of_words + self.table + self.symbols + self.bias + self.vector


def _shared(parts: Contributions, shared: WordShares, tokens: int) -> _Parts:
    """Of the only text of a batch, shared among its words."""
    by_token, by_term = parts.tokens[0, :, :tokens], parts.features[0]
    by_term = by_term[:, : len(shared.alone) - tokens]  # without what fills it up
    by_place = torch.cat([by_token, by_term], 1).T.double().cpu().numpy()
    of_no_word = by_place[shared.alone].sum(0)
    table, bias = parts.table[0], parts.bias.expand_as(parts.table)[0]
    of_table, of_all = (values.double().cpu().numpy() for values in (table, bias))
    nothing = np.zeros(len(of_all))
    words = shared.shares @ by_place
    return _Parts(words, of_table, of_no_word, of_all, nothing, words[:0])


def _with_knowledge(block: _Parts, parts: Contributions, shared: WordShares, first: int) -> _Parts:
    """With what the words of knowledge add, whose tokens stand from place `first` on; tokens of
    knowledge that stand for no characters count among the symbols.
    """
    by_token = parts.tokens[0, :, first : first + len(shared.alone)].T.double().cpu().numpy()
    symbols = block.symbols + by_token[shared.alone].sum(0)
    return block._replace(symbols=symbols, knowledge=shared.shares @ by_token)


def told_of(logits: np.ndarray, calibration: Calibration, spec: TextSpec) -> Told:
    """What is said of calibrated logits (n, L); of a number, that it is the only answer."""
    if spec.goal == "number":
        sure = np.ones(logits.shape, bool)
        return Told(np.ones(logits.shape), sure, sure)
    unscaled = {**calibration, "slope": torch.ones(1), "shift": torch.zeros(1)}
    return tell(logits, unscaled, spec)


def threshold_of(calibration: Calibration, spec: TextSpec) -> np.ndarray | None:
    """The probability (L,) from which each label is given; None where there is no such number."""
    if spec.goal != "labels":
        return None
    threshold = calibration["threshold"].double().cpu().numpy()
    return told_of(threshold[None], calibration, spec).probability[0]


def places_of(names: Sequence[str], spec: TextSpec) -> np.ndarray | None:
    """Places of labels by name; None for no names. Raises `InputError` for an unknown one."""
    if not names:
        return None
    for name in names:
        if name not in spec.labels:
            raise InputError(f"--labels {name}: unknown{nearest(name, spec.labels)}")
    return np.array([spec.labels.index(name) for name in dict.fromkeys(names)], np.int64)


def _most_probable(told: Told, top: int) -> np.ndarray:
    """Places of the labels that are given and of the `top` most probable ones, these first."""
    order = np.argsort(-told.probability[0], kind="stable")
    is_explained = told.labels[0][order] | (np.arange(len(order)) < top)
    return order[is_explained]


def _scale(spec: TextSpec, calibration: Calibration) -> tuple[Tensor, Tensor]:
    """What turns logits of the model into calibrated ones, (L,) each; a number into its unit."""
    if spec.goal == "number":
        return torch.tensor([spec.deviation]).double(), torch.tensor([spec.mean]).double()
    return calibration["slope"].double().cpu(), calibration["shift"].double().cpu()
