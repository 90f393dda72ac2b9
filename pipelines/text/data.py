"""From a person's table of texts to three parts and what a run keeps of it.

Shapes: n texts of a part, L outputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ...base.account import note
from ...base.errors import InputError, fail, nearest, shown
from ...data.columns import parse_columns
from ...data.groups import read_groups
from ...data.texts.counting import CountedTerms
from ...data.texts.knowledge import Terms, read_terms
from ...data.texts.labels import Goal, TextLabels, label_names, levels_of
from ...data.texts.table import FIELDS, TextReading, TextTable, read_text_data, with_rows
from ...data.texts.tokens import Tokenizer
from ...data.texts.words import word_spans
from ..engine.command_line.checks import check_unread
from ..engine.pipeline import Splits
from ..engine.subsets import Subsets
from ..engine.training.order import mix
from .coding import CodedTexts, TextCoder, knowledge_texts, learn_columns, load_coder
from .linear import Rows, best_linear, fit_linear, with_base
from .network import encoder_of
from .options import NETWORKS, TextOptions
from .parts import (
    PARTS_OF_TEXTS,
    check_equal_texts,
    groups_of,
    keys_of_parts,
    split,
    without_rare_classes,
)
from .spec import EncoderFacts, InputFacts, TextSpec
from .vectors import learn_vectors

SHORT = 30  # words in the middle text below which pieces of words are counted as well
MOST_NUMBERS = 1 << 26  # terms times labels of the linear model
READS_WINDOWS = ("hybrid", "attention")  # models that read several windows of a text
OF_LABELS = ("thresholds", "budget", "unlabelled", "hierarchy")  # options that others do not read
ON_BASE = ("hybrid", "sparse", "cross", "sources")  # models on top of the linear one


class TextPart:
    """Texts of one part, as a data set.

    table: as they were read; coded: as the models see them; truth: float32 (n, L), 0 and 1 of
    labels and classes, the scaled number; groups: int64 (n,); coder: of these texts; base: float32
    (n, L), logits of the linear model of others, of a training part whose model corrects them; else
    (0, L).
    """

    def __init__(
        self,
        table: TextTable,
        coded: CodedTexts,
        truth: np.ndarray,
        groups: np.ndarray,
        coder: TextCoder,
        base: np.ndarray | None = None,
    ) -> None:
        self.table, self.coded, self.truth, self.groups = table, coded, truth, groups
        self.coder, self.padding, self.sources = coder, coder.padding, len(coder.spec.sources)
        self.base = np.zeros((0, truth.shape[1]), np.float32) if base is None else base

    def __len__(self) -> int:
        return len(self.truth)

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A batch."""
        batch = self.coded.inputs(indices, self.padding)
        batch["truth"] = torch.from_numpy(self.truth[list(indices)])
        if len(self.base):
            batch["base"] = torch.from_numpy(self.base[list(indices)])
        return batch

    @staticmethod
    def collate(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch is complete as it comes."""
        return batch

    @property
    def rows(self) -> Rows:
        """What linear models are fitted to."""
        coded, sources = self.coded, self.sources
        return Rows(coded.counted, coded.table, self.truth, self.groups, coded.source, sources)


def reading_of(options: TextOptions) -> TextReading:
    """How the table of a training is read."""
    chosen = parse_columns(options.columns, FIELDS)
    goal: Goal | None = None if options.goal == "auto" else options.goal
    return TextReading(
        chosen,
        options.label_columns,
        options.table,
        goal,
        options.separator,
        knowledge=options.knowledge or "",
    )


def reading_of_run(spec: TextSpec, columns: Sequence[str], *, need_label: bool) -> TextReading:
    """How other tables of a run are read: by the columns given now, else by those of the training
    or their usual names. Raises InputError for columns that nothing reads without labels.
    """
    chosen = parse_columns(columns, FIELDS)
    if unread := [name for name in ("label", "part") if name in chosen and not need_label]:
        raise InputError(f"--columns {unread[0]}={chosen[unread[0]]}: a prediction reads no such")
    # A title that the training did not have would change what the model sees.
    lacking = {"title"} - spec.columns.keys() - chosen.keys()
    return TextReading(
        chosen,
        tuple(spec.label_columns) if need_label else (),
        tuple(column["name"] for column in spec.table),
        spec.goal,
        spec.separator or None,
        need_label,
        usual=spec.columns,
        fields=tuple(name for name in FIELDS if name not in lacking),
        knowledge=spec.knowledge_column or "",
    )


def open_new(options: TextOptions) -> Splits[TextSpec, TextPart]:
    """The three parts of a new run, coded as its training part teaches."""
    assert options.data is not None
    table = _usable(read_text_data(options.data, reading_of(options)))
    table = without_rare_classes(options.data, table, options.least)
    goal = cast(TextLabels, table.labels).goal
    if goal != "labels":
        check_unread(options, OF_LABELS, f"several labels of a text (--goal labels, not {goal})")
    if options.model == "sources" and not any(table.sources):
        raise fail(options.data, "has no column of sources; name it with --columns source=COLUMN")
    groups = groups_of(table)
    check_equal_texts(options.data, table)
    subsets = split(options, table, groups)
    named = None if options.knowledge_texts is None else read_terms(options.knowledge_texts)
    spec, terms, tokenizer = _learn(options, table, subsets, named)
    coder = TextCoder(spec, terms, tokenizer, named)
    train_part, validation, test = (
        part_of(with_rows(table, rows), coder, groups[rows]) for rows in subsets
    )
    if options.model in ON_BASE:
        fit = partial(fit_linear, by_source=True) if options.model == "sources" else best_linear
        fitted = fit(train_part.rows, validation.rows, spec.goal)
        fitted = with_base(fitted, train_part.rows, spec.goal, seed=mix(options.seed, 5))
        train_part.base = fitted.base
        by_source = fitted.sources is not None
        spec = replace(spec, fitted=fitted, by_source=by_source)
    keys = keys_of_parts(table, subsets)
    assets = {**coder.assets(), PARTS_OF_TEXTS: keys.write_parquet}
    return Splits(train_part, validation, test, spec, assets)


def open_of_run(options: TextOptions, spec: TextSpec, as_test: bool) -> Splits[TextSpec, TextPart]:
    """The three parts by the codes of the run. as_test: all texts are `test`."""
    assert options.data is not None
    reading = reading_of_run(spec, options.columns, need_label=True)
    if options.label_columns:
        reading = replace(reading, label_columns=options.label_columns)
    table = _usable(read_text_data(options.data, reading))
    coder = load_coder(spec)
    if not as_test:  # otherwise parts would not be those of the training
        table = without_rare_classes(options.data, table, options.least)
    groups = groups_of(table)
    if as_test:
        part = part_of(table, coder, groups)
        return Splits(part, part, part, spec)
    subsets = split(options, table, groups)
    train, validation, test = (
        part_of(with_rows(table, rows), coder, groups[rows]) for rows in subsets
    )
    return Splits(train, validation, test, spec)


def part_of(table: TextTable, coder: TextCoder, groups: np.ndarray) -> TextPart:
    """Texts as a data set."""
    assert table.labels is not None
    truth = truth_of(table.labels, coder.spec)
    return TextPart(table, coder.code(table), truth, groups, coder)


def truth_of(labels: TextLabels, spec: TextSpec) -> np.ndarray:
    """float32 (n, L). Raises InputError for a class that the training does not have."""
    if spec.goal == "number":
        return ((labels.numbers - spec.mean) / spec.deviation).astype(np.float32)[:, None]
    places = {name: place for place, name in enumerate(spec.labels)}
    truth = np.zeros((len(labels.names), len(places)), np.float32)
    new: Counter[str] = Counter()
    for row, names in enumerate(labels.names):
        for name in names or ():
            if name in places:
                truth[row, places[name]] = 1.0
            else:
                new[name] += 1
    if new:
        # What is rare was left out of the labels of several; a class cannot be.
        if spec.goal == "class":
            name, count = new.most_common(1)[0]
            raise InputError(
                f"class {shown(name)} of {count:,} texts is not in the training part, so no model "
                "can give it; leave these texts out, or give the training such texts"
                f"{nearest(name, spec.labels)}"
            )
        if not truth.any():
            name = shown(new.most_common(1)[0][0])
            raise InputError(
                f"the model knows none of the labels, such as {name}; they should be spelt as in "
                f"the training, such as {shown(spec.labels[0])}"
            )
        note("left out", "labels that the model does not know, in no score", sorted(new))
    return truth


def _usable(table: TextTable) -> TextTable:
    """The rows with a label; those without were accepted as such, or refused. Each group has one
    spelling.
    """
    assert table.labels is not None
    known = np.flatnonzero(table.labels.known)
    table = replace(table, groups=read_groups("group", table.groups))
    return table if len(known) == len(table) else with_rows(table, known)


def _learn(
    options: TextOptions, table: TextTable, subsets: Subsets, named: Terms | None
) -> tuple[TextSpec, CountedTerms, Tokenizer | None]:
    """All that is learned of the training part before the training."""
    train = with_rows(table, subsets.train)
    labels = cast(TextLabels, train.labels)
    names, counts = _label_names(options, table, labels)
    mark = {"auto": None, "none": ""}.get(options.hierarchy, options.hierarchy)
    levels = (levels_of(names) if mark is None else mark) if labels.goal == "labels" else ""
    pieces = _counts_pieces(options, train.texts)
    most = min(options.most_terms, max(1000, MOST_NUMBERS // len(names)))
    try:
        terms = CountedTerms.learn(train.texts, pieces=pieces, most=most)
    except ValueError as error:
        problem = f"the texts of the training part have no words to count ({error})"
        raise fail(options.data, problem) from None
    if len(terms.terms) == most:
        note("left out", f"terms that are in fewer texts than the {most:,} that are counted")
    facts, tokenizer = None, None
    column = options.knowledge if named is None else ""
    if column is not None and not any(knowledge_texts(table, column, named)):
        problem = "no text names a term" if named is not None else "all cells are empty"
        raise fail(options.knowledge_texts or f"--knowledge {column}", problem)
    if options.model in NETWORKS:
        known = knowledge_texts(train, column, named) if column is not None else []
        facts, tokenizer = encoder_of(options, [*train.texts, *filter(None, known)])
    numbers = labels.numbers
    deviation = float(numbers.std()) if len(numbers) else 1.0
    sources = sorted(set(train.sources) - {""})
    spec = TextSpec(
        input=InputFacts(
            texts=len(table),
            training_texts=len(train),
            labels=len(names),
            sources=sources,
            languages=sorted(set(table.languages) - {""}),
        ),
        goal=labels.goal,
        labels=names,
        levels=levels,
        counts=counts,
        columns=dict(table.columns),
        label_columns=list(options.label_columns),
        separator=labels.separator,
        table=learn_columns(table.table.select(options.table), subsets.train),
        sources=sources,
        mean=float(numbers.mean()) if len(numbers) else 0.0,
        deviation=deviation or 1.0,
        pieces=pieces,
        terms=len(terms.terms),
        encoder=facts,
        most_tokens=_most_tokens(options, facts),
        vectors=None if options.vectors == "none" else learn_vectors(options.vectors, train.texts),
        parts=subsets.sizes(),
        files=table.files,
        knowledge_column=column,
    )
    return spec, terms, tokenizer


def _most_tokens(options: TextOptions, encoder: EncoderFacts | None) -> int:
    """Tokens of a text that the network reads: of several windows only where it can."""
    if encoder is None or options.model in READS_WINDOWS:
        return options.most_tokens
    return min(options.most_tokens, encoder["window"])


def _label_names(
    options: TextOptions, table: TextTable, labels: TextLabels
) -> tuple[list[str], list[int]]:
    if labels.goal == "number":
        if len(np.unique(labels.numbers)) < 2:
            raise fail(options.data, "all numbers to predict are the same")
        return [table.columns.get("label", "number")], [len(labels.numbers)]
    rows = [row for row in labels.names if row is not None]
    least = options.least if labels.goal == "labels" else 1
    names = label_names(options.data, rows, labels.goal, least)
    if never := sorted(set(options.label_columns) - {name for row in rows for name in row}):
        note("left out", "columns of labels that no text of the training part has", never)
    counts = Counter(name for row in rows for name in row)
    return names, [counts[name] for name in names]


def _counts_pieces(options: TextOptions, texts: Sequence[str]) -> bool:
    if options.terms != "auto":
        return options.terms == "pieces"
    middle = float(np.median([sum(1 for _ in word_spans(text)) for text in texts[:2000]]))
    if middle < SHORT:
        note("assumed", f"texts are short ({middle:.0f} words): pieces of words are counted, too")
    return middle < SHORT
