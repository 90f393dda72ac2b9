"""Texts as the models see them: counted terms, tokens in windows, numbers of the table, sources.

Shapes: n texts, V terms, T numbers of the table, N tokens of a batch, F terms of a text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from ...base.account import note
from ...base.errors import InputError, fail, reason, shown
from ...base.files import write_text
from ...data.formats.tables import decimal_commas, numbers
from ...data.texts.counting import CountedTerms, padded_rows
from ...data.texts.knowledge import MOST_TERMS, NAMES, Terms, read_descriptions
from ...data.texts.table import TextTable
from ...data.texts.tokens import Encoded, Tokenizer, batch_of, tokenizer_from_json, windows
from ...data.texts.words import word_key, word_spans
from ...models.text.inputs import TextInputs
from .spec import KNOWLEDGE, TERMS, TOKENIZER, TableColumn, TextSpec
from .vectors import vector_rows

MOST_WORDS = 30  # kinds of a column of words; rarer ones are one more
OTHER = "(other)"
WIDE = 5.0  # times the median and a deviation: numbers that reach further are logarithms
FAR = 1e6  # deviations from the mean: no number is farther away
CUT = 20  # characters of a text for each token that is read: what is behind is not tokenised


class CodedTexts(NamedTuple):
    """Texts as arrays. counted: (n, V); tokens: of each text, in windows; table (n, T); source
    int64 (n,), the number of sources for one that is not known; knowledge: tokens of the knowledge
    about each text, none of them where there is no such text; None of a model without knowledge.
    """

    counted: csr_matrix
    tokens: list[Encoded]
    table: np.ndarray
    source: np.ndarray
    knowledge: list[Encoded] | None = None

    def __len__(self) -> int:
        return len(self.source)

    def taken(self, rows: np.ndarray) -> CodedTexts:
        """Some of them."""
        tokens = [self.tokens[row] for row in rows.tolist()] if self.tokens else []
        known = None
        if self.knowledge is not None:
            known = [self.knowledge[row] for row in rows.tolist()]
        return CodedTexts(self.counted[rows], tokens, self.table[rows], self.source[rows], known)

    def inputs(self, rows: Sequence[int] | np.ndarray, padding: int) -> dict[str, Tensor]:
        """What models take, of a batch."""
        part = self.taken(np.asarray(rows, np.int64))
        features, amounts = padded_rows(part.counted)
        ids, mask = _batch(part.tokens, padding)
        if not part.tokens:
            ids, mask = np.zeros((len(part), 1), np.int64), np.zeros((len(part), 1), bool)
        arrays = {
            "tokens": ids,
            "mask": mask,
            "features": features,
            "amounts": amounts,
            "table": part.table,
            "source": part.source,
        }
        if part.knowledge is not None:
            arrays["knowledge"], arrays["knowledge_mask"] = _batch(part.knowledge, padding)
        return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}


def _batch(tokens: Sequence[Encoded], padding: int) -> tuple[np.ndarray, np.ndarray]:
    """As `batch_of`, with room for one token where there is none."""
    ids, mask = batch_of(tokens, padding)
    if not ids.shape[1]:
        return np.full((len(tokens), 1), padding), np.zeros((len(tokens), 1), bool)
    return ids, mask


def inputs_of(batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The arguments of a model, of a batch: those of `TextInputs`, without knowledge where the
    model has none.
    """
    return tuple(batch[name] for name in TextInputs._fields if name in batch)


@dataclass(frozen=True)
class TextCoder:
    """Codes texts as those of the training.

    terms: that are counted; tokenizer: None for a model without tokens; named: terms with texts of
    knowledge, None where a column holds these, or there are none.
    """

    spec: TextSpec
    terms: CountedTerms
    tokenizer: Tokenizer | None
    named: Terms | None = None

    @property
    def padding(self) -> int:
        """The id that fills up a batch."""
        return 0 if self.tokenizer is None else self.tokenizer.padding

    def code(self, table: TextTable) -> CodedTexts:
        """The texts of a table."""
        return CodedTexts(
            self.terms.rows(table.texts),
            self.tokens(table.texts),
            self._numbers(table),
            self._sources(table.sources),
            self._knowledge(table),
        )

    def knowledge_texts(self, table: TextTable) -> list[str]:
        """What is known about each text of a table, "" for nothing."""
        return knowledge_texts(table, self.spec.knowledge_column, self.named)

    def _knowledge(self, table: TextTable) -> list[Encoded] | None:
        """Tokens of the knowledge about each text, of one window at most."""
        if self.spec.knowledge_column is None or self.spec.encoder is None:
            return None
        assert self.tokenizer is not None
        window = self.spec.encoder["window"]
        texts = self.knowledge_texts(table)
        nothing = Encoded(np.zeros(0, np.int64), np.zeros((0, 2), np.int64))
        encoded = self.tokenizer.encode([text[: CUT * 1000] for text in texts])
        rows = [
            _in_windows(row, window, window, self.tokenizer) if text else nothing
            for text, row in zip(texts, encoded, strict=True)
        ]
        ends = [row.offsets[:, 1].max(initial=0) for row in encoded]
        read = [row.offsets[:, 1].max(initial=0) for row in rows]
        cut = sum(
            len(text) > CUT * 1000 or bool(text and b < a)
            for text, a, b in zip(texts, ends, read, strict=True)
        )
        if cut:
            note("left out", f"texts of knowledge behind their first {window} tokens", count=cut)
        return rows

    def _numbers(self, table: TextTable) -> np.ndarray:
        """The table and, behind it, the vectors of the texts, float32 (n, T)."""
        values = table_numbers(table.table, self.spec.table, len(table), table.start)
        if self.spec.vectors is None:
            return values
        return np.concatenate([values, vector_rows(self.spec.vectors, table.texts)], 1)

    def tokens(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokens of texts: of one that is longer than a window, its windows one behind the other,
        each but the last of them full. [] without a tokenizer.
        """
        if self.tokenizer is None or self.spec.encoder is None:
            return []
        window = self.spec.encoder["window"]
        most = CUT * max(1000, self.spec.most_tokens)
        encoded = self.tokenizer.encode([text[:most] for text in texts])
        rows, cut = [], 0
        for text, row in zip(texts, encoded, strict=True):
            windowed = _in_windows(row, window, self.spec.most_tokens, self.tokenizer)
            end, last = (part.offsets[:, 1].max(initial=0) for part in (windowed, row))
            cut += len(text) > most or bool(end < last)
            rows.append(windowed)
        if cut:
            what = f"texts of which the network reads the first {self.spec.most_tokens} tokens"
            note("left out", what, count=cut)
        return rows

    def _sources(self, names: Sequence[str]) -> np.ndarray:
        places = {name: place for place, name in enumerate(self.spec.sources)}
        codes = np.array([places.get(name, len(places)) for name in names], np.int64)
        new = sorted({name for name in names if name and name not in places})
        if places and new:
            note("values", "sources that the training part does not have", map(shown, new))
        if places and (blank := sum(not name for name in names)):
            note("values", "texts without a source", count=blank)
        return codes

    def known_share(self, texts: Sequence[str]) -> np.ndarray:
        """The share of the words of each text that are counted, float32 (n,); 0 without words."""
        known = self.terms.numbers
        shares = []
        for text in texts:
            words = [word_key(text[start:end]) in known for start, end in word_spans(text)]
            shares.append(sum(words) / max(1, len(words)))
        return np.array(shares, np.float32)

    def assets(self) -> dict[str, Callable[[Path], object]]:
        """Writers of what is too large for the spec."""
        frame = pl.DataFrame({"term": self.terms.terms, "weight": self.terms.weights})
        writers: dict[str, Callable[[Path], object]] = {TERMS: frame.write_parquet}
        if self.tokenizer is not None:
            content = self.tokenizer.to_json()
            writers[TOKENIZER] = lambda path: write_text(path, content)
        if self.named is not None:
            texts = self.named.texts
            terms = pl.DataFrame({"term": list(texts), "text": list(texts.values())})
            writers[KNOWLEDGE] = terms.write_parquet
        return writers


def load_coder(spec: TextSpec) -> TextCoder:
    """The coder of a run that was opened. Raises InputError for assets that are damaged."""
    assert spec.assets_folder is not None
    path = spec.assets_folder / TERMS
    tokenizer, named = None, None
    try:
        frame = pl.read_parquet(path, glob=False).select(
            pl.col("term").cast(pl.String), pl.col("weight").cast(pl.Float64)
        )
        terms = CountedTerms(frame["term"].to_list(), frame["weight"].to_numpy(), spec.pieces)
        if spec.encoder is not None:
            path = spec.assets_folder / TOKENIZER
            tokenizer = tokenizer_from_json(path.read_text(encoding="utf-8"))
        if spec.knowledge_column == "":
            path = spec.assets_folder / KNOWLEDGE
            rows = pl.read_parquet(path, glob=False).select("term", "text").cast(pl.String)
            named = Terms(dict(rows.iter_rows()))
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise fail(path, f"is damaged ({reason(error)})") from error
    if len(terms.numbers) != spec.terms or not np.isfinite(terms.weights).all():
        problem = f"should hold {spec.terms:,} terms and their weights, and does not"
        raise fail(spec.assets_folder / TERMS, problem)
    if tokenizer is not None and spec.encoder is not None:
        vocabulary = spec.encoder["options"].get("vocabulary", tokenizer.size)
        if isinstance(vocabulary, int) and tokenizer.size > vocabulary:
            problem = f"has {tokenizer.size:,} tokens, but the encoder of the run {vocabulary:,}"
            raise fail(path, problem)
    return TextCoder(spec, terms, tokenizer, named)


def knowledge_texts(table: TextTable, column: str | None, named: Terms | None) -> list[str]:
    """What is known about each text of a table, "" for nothing, which is counted in the account.

    column: that holds it, "" where it is the descriptions of the terms that a text names.
    """
    if named is not None:
        terms = [named.named(text) for text in table.texts]
        texts = [named.knowledge(text) for text in table.texts]
        if many := sum(len(row) > MOST_TERMS for row in terms):
            what = f"texts that name more than {MOST_TERMS} terms, of which the first are read"
            note("left out", what, count=many)
    elif column and column in table.table.columns:
        cells = table.table[column].cast(pl.String).str.strip_chars().fill_null("")
        texts = cast("list[str]", cells.to_list())
    else:
        texts = [""] * len(table)
    if column is not None and (lacking := sum(not text for text in texts)):
        note("values", "texts without knowledge, which the model reads without it", count=lacking)
    return texts


def _in_windows(row: Encoded, window: int, most: int, tokenizer: Tokenizer) -> Encoded:
    if len(row.ids) <= min(window, most):
        return row
    if window >= most:
        return next(iter(windows(row, most, 0, tokenizer))).tokens
    parts: list[Encoded] = []
    for part in windows(row, window, 0, tokenizer):
        if (len(parts) + 1) * window > max(most, window):
            break
        parts.append(part.tokens)
    return Encoded(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.offsets for part in parts]),
    )


def learn_columns(table: pl.DataFrame, rows: np.ndarray) -> list[TableColumn]:
    """How the further columns of a table become numbers. rows: int64, of the training part, of
    which mean, deviation and words are; what kind a column is, all rows say.
    """
    learned: list[TableColumn] = []
    for name in table.columns:
        cells = table[name]
        comma = False
        if cells.dtype == pl.String:
            comma = decimal_commas(cells.to_frame().lazy(), [name]).get(name, False)
        values, bad = _numbers(cells, comma)
        missing = int(np.isnan(values).sum())
        values = values[rows]
        known = values[np.isfinite(values)]
        if not bad.any() and len(known):
            _note_missing(name, missing)
            if wide := _ranges_widely(known):
                note("assumed", "columns of numbers that range widely, read as logarithms", [name])
                known = np.log1p(known)
            learned.append(
                TableColumn(
                    name=name,
                    kind="number",
                    comma=comma,
                    logarithm=wide,
                    mean=float(known.mean()),
                    deviation=float(known.std()) or 1.0,
                    words=[],
                )
            )
            continue
        counts = Counter(word for word in _words(cells[rows]) if word != OTHER)
        words = sorted(word for word, _ in counts.most_common(MOST_WORDS))
        if rare := len(counts) - len(words):
            note("values", f"rare words of column {shown(name)} that count as one", count=rare)
        learned.append(
            TableColumn(
                name=name, kind="words", comma=False, mean=0.0, deviation=1.0, words=[*words, OTHER]
            )
        )
    return learned


def table_numbers(
    table: pl.DataFrame, columns: Sequence[TableColumn], count: int, start: int = 0
) -> np.ndarray:
    """float32 (n, T): numbers scaled, words as one of several. start: the number of the first row
    in its file, from 0. Raises InputError for what is no number in a column of numbers.
    """
    parts = [np.zeros((count, 0), np.float32)]
    for column in columns:
        name = column["name"]
        if column["kind"] == "number":
            values, bad = _numbers(table[name], column["comma"])
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                problem = f"{shown(table[name][row])} is no number, as in the training"
                raise InputError(f"column {shown(name)}, row {start + row + 1}: {problem}")
            _note_missing(name, int(np.isnan(values).sum()))
            if column.get("logarithm"):
                values = np.log1p(np.maximum(values, 0.0))
            scaled = np.nan_to_num((values - column["mean"]) / column["deviation"])
            parts.append(np.clip(scaled, -FAR, FAR).astype(np.float32)[:, None])
            continue
        places = {word: place for place, word in enumerate(column["words"])}
        words = _words(table[name])
        codes = [places.get(word, len(places) - 1) for word in words]
        if new := sorted({word for word in words if word not in places}):
            note("values", f"words of column {shown(name)} that the training part lacks", new)
        parts.append(np.eye(len(places), dtype=np.float32)[codes])
    return np.concatenate(parts, 1)


def _note_missing(name: str, count: int) -> None:
    if count:
        note("values", f"missing numbers in column {shown(name)}, taken as its mean", count=count)


def _ranges_widely(values: np.ndarray) -> bool:
    """Whether counts or sizes reach so far beyond most of them that their size matters more than
    their difference.
    """
    return bool(values.min() >= 0 and values.max() > WIDE * (np.median(values) + values.std()))


def _numbers(column: pl.Series, comma: bool) -> tuple[np.ndarray, np.ndarray]:
    """float64 (n,) and which cells are no numbers; none are where a column is of another type."""
    if column.dtype == pl.String or column.dtype.is_numeric():
        return numbers(column, comma=comma)
    return np.full(len(column), np.nan), column.is_not_null().to_numpy()


def _words(column: pl.Series) -> list[str]:
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        raise InputError(f"--table {column.name}: holds {column.dtype}, not one value a cell")
    return cast("list[str]", column.cast(pl.String).str.strip_chars().fill_null("").to_list())


def description_texts(path: str, labels: Sequence[str]) -> list[str]:
    """The description of each label of a table (label, text), its name where it has none. Raises
    InputError for a label with two descriptions.
    """
    texts = read_descriptions(path, "label", NAMES)
    if lacking := [label for label in labels if not texts.get(label)]:
        note("values", "labels without a description, of which the name is taken", lacking)
    if unknown := sorted(set(texts) - set(labels)):
        note("left out", "descriptions of labels that the training part does not have", unknown)
    return [f"{label}: {texts.get(label) or label}" for label in labels]
