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
from ...base.errors import InputError, fail, shown
from ...base.files import write_text
from ...data.formats.tables import numbers
from ...data.texts.counting import CountedTerms, padded_rows
from ...data.texts.table import TextTable
from ...data.texts.tokens import Encoded, Tokenizer, batch_of, tokenizer_from_json, windows
from ...data.texts.words import word_key, word_spans
from .spec import TERMS, TOKENIZER, TableColumn, TextSpec
from .vectors import vector_rows

MOST_WORDS = 30  # kinds of a column of words; rarer ones are one more
OTHER = "(other)"
CUT = 20_000  # characters of a text per wanted thousand tokens that are tokenised at all


class CodedTexts(NamedTuple):
    """Texts as arrays. counted: (n, V); tokens: of each text, in windows; table (n, T); source
    int64 (n,), the number of sources for one that is not known.
    """

    counted: csr_matrix
    tokens: list[Encoded]
    table: np.ndarray
    source: np.ndarray

    def __len__(self) -> int:
        return len(self.source)

    def taken(self, rows: np.ndarray) -> CodedTexts:
        """Some of them."""
        tokens = [self.tokens[row] for row in rows.tolist()] if self.tokens else []
        return CodedTexts(self.counted[rows], tokens, self.table[rows], self.source[rows])

    def inputs(self, rows: Sequence[int] | np.ndarray, padding: int) -> dict[str, Tensor]:
        """What models take, of a batch."""
        part = self.taken(np.asarray(rows, np.int64))
        features, amounts = padded_rows(part.counted)
        if part.tokens:
            ids, mask = batch_of(part.tokens, padding)
        else:
            ids, mask = np.zeros((len(part), 1), np.int64), np.zeros((len(part), 1), bool)
        if not ids.shape[1]:
            ids, mask = np.full((len(part), 1), padding), np.zeros((len(part), 1), bool)
        arrays = {
            "tokens": ids,
            "mask": mask,
            "features": features,
            "amounts": amounts,
            "table": part.table,
            "source": part.source,
        }
        return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}


INPUTS = ("tokens", "mask", "features", "amounts", "table", "source")


def inputs_of(batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The arguments of a model, of a batch."""
    return tuple(batch[name] for name in INPUTS)


@dataclass(frozen=True)
class TextCoder:
    """Codes texts as those of the training.

    terms: that are counted; tokenizer: None for a model without tokens.
    """

    spec: TextSpec
    terms: CountedTerms
    tokenizer: Tokenizer | None

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
        )

    def _numbers(self, table: TextTable) -> np.ndarray:
        """The table and, behind it, the vectors of the texts, float32 (n, T)."""
        own = table_numbers(table.table, self.spec.table, len(table))
        if self.spec.vectors is None:
            return own
        return np.concatenate([own, vector_rows(self.spec.vectors, table.texts)], 1)

    def tokens(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokens of texts: of one that is longer than a window, its windows one behind the other,
        each but the last of them full. [] without a tokenizer.
        """
        if self.tokenizer is None or self.spec.encoder is None:
            return []
        window = self.spec.encoder["window"]
        most = CUT * max(1, self.spec.most_tokens // 1000)
        encoded = self.tokenizer.encode([text[:most] for text in texts])
        rows, cut = [], 0
        for text, row in zip(texts, encoded, strict=True):
            windowed = _in_windows(row, window, self.spec.most_tokens, self.tokenizer)
            whole = len(text) <= most and windowed.offsets[:, 1].max(initial=0) == (
                row.offsets[:, 1].max(initial=0)
            )
            cut += not whole
            rows.append(windowed)
        if cut:
            what = f"texts of which the network reads the first {self.spec.most_tokens} tokens"
            note("left out", what, count=cut)
        return rows

    def _sources(self, names: Sequence[str]) -> np.ndarray:
        places = {name: place for place, name in enumerate(self.spec.sources)}
        codes = np.array([places.get(name, len(places)) for name in names], np.int64)
        if places and (new := sorted({name for name in names if name not in places})):
            note("values", "sources that the training part does not have", map(shown, new))
        return codes

    def known_share(self, texts: Sequence[str]) -> np.ndarray:
        """The share of the words of each text that are counted, float32 (n,); 0 without words."""
        known = set(self.terms.terms)
        shares = []
        for text in texts:
            words = [word_key(text[start:end]) for start, end in word_spans(text)]
            shares.append(sum(word in known for word in words) / max(1, len(words)))
        return np.array(shares, np.float32)

    def assets(self) -> dict[str, Callable[[Path], object]]:
        """Writers of what is too large for the spec."""
        frame = pl.DataFrame({"term": self.terms.terms, "weight": self.terms.weights})
        writers: dict[str, Callable[[Path], object]] = {TERMS: frame.write_parquet}
        if self.tokenizer is not None:
            content = self.tokenizer.to_json()
            writers[TOKENIZER] = lambda path: write_text(path, content)
        return writers


def load_coder(spec: TextSpec) -> TextCoder:
    """The coder of a run that was opened. Raises InputError for assets that are damaged."""
    assert spec.assets_folder is not None
    path = spec.assets_folder / TERMS
    try:
        frame = pl.read_parquet(path, glob=False)
        terms = CountedTerms(frame["term"].to_list(), frame["weight"].to_numpy(), spec.pieces)
        tokenizer = None
        if spec.encoder is not None:
            path = spec.assets_folder / TOKENIZER
            tokenizer = tokenizer_from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise fail(path, f"is damaged ({error})") from error
    if len(terms.terms) != spec.terms:
        raise InputError(f"{path}: holds {len(terms.terms)} terms, not {spec.terms}")
    return TextCoder(spec, terms, tokenizer)


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


def learn_columns(table: pl.DataFrame) -> list[TableColumn]:
    """How the further columns of a training part become numbers."""
    learned: list[TableColumn] = []
    for name in table.columns:
        values, bad = _numbers(table[name])
        known = values[np.isfinite(values)]
        if not bad.any() and len(known):
            deviation = float(known.std()) or 1.0
            learned.append(
                TableColumn(
                    name=name,
                    kind="number",
                    mean=float(known.mean()),
                    deviation=deviation,
                    words=[],
                )
            )
            if len(known) < len(values):
                note("values", f"missing numbers in column {shown(name)}, taken as its mean")
            continue
        counts = Counter(_words(table[name]))
        words = sorted(word for word, _ in counts.most_common(MOST_WORDS))
        if rare := len(counts) - len(words):
            note("values", f"rare words of column {shown(name)} that count as one", count=rare)
        learned.append(
            TableColumn(name=name, kind="words", mean=0.0, deviation=1.0, words=[*words, OTHER])
        )
    return learned


def table_numbers(table: pl.DataFrame, columns: Sequence[TableColumn], count: int) -> np.ndarray:
    """float32 (n, T): numbers scaled, words as one of several."""
    parts = [np.zeros((count, 0), np.float32)]
    for column in columns:
        name = column["name"]
        if column["kind"] == "number":
            values, bad = _numbers(table[name])
            if bad.any():
                row = int(np.flatnonzero(bad)[0]) + 1
                cell = shown(table[name][row - 1])
                raise InputError(f"column {shown(name)}, row {row}: {cell} is no number")
            scaled = (values - column["mean"]) / column["deviation"]
            parts.append(np.nan_to_num(scaled).astype(np.float32)[:, None])
            continue
        places = {word: place for place, word in enumerate(column["words"])}
        words = _words(table[name])
        codes = [places.get(word, len(places) - 1) for word in words]
        if new := sorted({word for word in words if word not in places}):
            note("values", f"words of column {shown(name)} that the training part lacks", new)
        parts.append(np.eye(len(places), dtype=np.float32)[codes])
    return np.concatenate(parts, 1)


def _numbers(column: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    if column.dtype == pl.Boolean:
        column = column.cast(pl.Int8)
    try:
        return numbers(column)
    except TypeError:
        return np.full(len(column), np.nan), np.ones(len(column), bool)


def _words(column: pl.Series) -> list[str]:
    if column.dtype.is_nested():
        raise InputError(f"--table {column.name}: holds {column.dtype}, not one value a cell")
    return cast("list[str]", column.cast(pl.String).str.strip_chars().fill_null("").to_list())


def description_texts(path: str, labels: Sequence[str]) -> list[str]:
    """The description of each label of a table (label, text), its name where it has none."""
    from ...data.columns import find_columns
    from ...data.formats.tables import collect, scan_table
    from ...data.texts.table import TEXT_SYNONYMS

    frame, names = scan_table(path)
    columns = find_columns(
        path,
        names,
        ("label", "text"),
        required=("label", "text"),
        synonyms={**TEXT_SYNONYMS, "label": ("label", "name", "tag", "class")},
    )
    table = collect(path, frame.select(columns.values()).cast(pl.String))
    texts = dict(table.rows())
    if lacking := [label for label in labels if label not in texts]:
        note("values", "labels without a description, of which the name is taken", lacking)
    return [f"{label}: {texts.get(label) or label}" for label in labels]
