"""Vectors of words, for machine raters of topics: from a file, from a published encoder, or from
the corpus itself.

Anything that maps words to an array will do: `WordVectors` is a function of words with a line that
says what it is.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from ....base.errors import InputError, fail, reason
from ....data.formats.tables import check_file
from ....data.texts.terms import terms_of
from ...engine.command_line.terminal import Progressbar
from ...metrics.topics import WINDOW, count_pairs
from ..verbs.options_topics import CORPUS, ENCODERS

MOST_TERMS = 10_000  # that get vectors from a corpus, the most frequent ones
LEAST_TEXTS = 3  # that a term must be in for that
DIMENSIONS = 100
TEXT_FILES = (".txt", ".vec")
BATCH_WORDS = 256


@dataclass(frozen=True)
class WordVectors:
    """Words to vectors: `vectors(words)` is float64 (n, D), NaN for words that are unknown.

    what: what they are, for people. lookup: the function behind it.
    """

    what: str
    lookup: Callable[[Sequence[str]], np.ndarray]

    def __call__(self, words: Sequence[str]) -> np.ndarray:
        """Vectors (n, D) of n words; zero vectors are unknown, too: they have no direction."""
        vectors = np.asarray(self.lookup(words), np.float64)
        unknown = ~np.isfinite(vectors).all(axis=1) | (vectors == 0).all(axis=1)
        return np.where(unknown[:, None], np.nan, vectors)

    def stored(self, words: Sequence[str]) -> WordVectors:
        """The same for these words only, looked up once."""
        distinct = list(dict.fromkeys(words))
        table = dict(zip(distinct, self(distinct), strict=True))
        none = np.zeros((0, next((len(vector) for vector in table.values()), 1)))
        return WordVectors(
            self.what, lambda asked: np.stack([table[word] for word in asked]) if asked else none
        )


def open_vectors(
    choice: str, words: Collection[str], corpus: Sequence[Sequence[str]] | None, seed: int = 0
) -> WordVectors | None:
    """The vectors that an option names; None where they are of the corpus and there is none.

    choice: `corpus`; a published encoder, or the folder of one; or a file: .npz with `words` and
    `vectors`, or text (.txt, .vec) with a word and its numbers on each line. words: those that will
    be asked for; a file is read for them only. corpus: the terms of its texts. Raises InputError
    for what cannot be used.
    """
    if choice == CORPUS:
        return None if corpus is None else corpus_vectors(corpus, seed)
    path = Path(choice)
    if choice in ENCODERS or path.is_dir():
        return encoder_vectors(choice)
    if path.suffix.lower() not in (".npz", *TEXT_FILES):
        raise InputError(
            f"--vectors {choice}: say {CORPUS}, {', '.join(ENCODERS)}, or a file: .npz with words "
            "and vectors, or .txt or .vec with a word and its numbers on each line"
        )
    file = check_file(choice, (".npz", *TEXT_FILES))
    asked = {text for word in words for text in (word, word.casefold(), *terms_of(word))}
    read = _read_npz if path.suffix.lower() == ".npz" else _read_text
    table = read(choice, file, asked)
    if not table:
        raise fail(choice, f"has no vector of any of the {len(words):,} words of the topics")
    return WordVectors(f"vectors of {path.name}", _lookup(table))


def encoder_vectors(name: str) -> WordVectors:
    """Vectors of a published encoder: a word is a text of its own, and its vector the mean of the
    states of its tokens, special ones included, as the encoders of sentences are trained.
    """
    from ....models.text.encoder import mean_vector
    from ..encoders import encoded_states, open_encoder

    opened = open_encoder(name, option="--vectors")

    def vectors(words: Sequence[str]) -> np.ndarray:
        rows = [np.zeros((0, opened.width))]
        with Progressbar(total=len(words), unit="word", desc="word vectors") as bar:
            for start in range(0, len(words), BATCH_WORDS):
                states, mask = encoded_states(opened, words[start : start + BATCH_WORDS])
                rows.append(mean_vector(states.double(), mask, normalised=False).numpy())
                bar.update(len(mask))
        return np.concatenate(rows)

    return WordVectors(f"states of {name}", vectors)


def corpus_vectors(corpus: Sequence[Sequence[str]], seed: int = 0) -> WordVectors:
    """Vectors from how words occur together in windows of a corpus: positive pointwise mutual
    information, reduced to 100 numbers by its singular values (Levy et al. 2015).

    corpus: the terms of its texts.
    """
    counts: dict[str, int] = {}
    for terms in corpus:
        for term in set(terms):
            counts[term] = counts.get(term, 0) + 1
    frequent = sorted((-count, term) for term, count in counts.items() if count >= LEAST_TEXTS)
    terms = [term for _, term in frequent[:MOST_TERMS]]
    if len(terms) < 2:
        return WordVectors("vectors of the corpus (it has too few words)", _lookup({}))
    code = {term: place for place, term in enumerate(terms)}
    with Progressbar(total=len(corpus), unit="text", desc="word vectors") as bar:
        units, pairs = count_pairs(_coded(corpus, code, bar), len(terms), WINDOW)
    # More dimensions than terms do not exist.
    vectors = _reduced(_positive_information(units, pairs), min(DIMENSIONS, len(terms) - 1), seed)
    table = dict(zip(terms, vectors, strict=True))
    what = (
        f"vectors of the corpus ({len(terms):,} words, by PPMI and {vectors.shape[1]} of its SVD)"
    )
    return WordVectors(what, _lookup(table))


def _coded(
    corpus: Sequence[Sequence[str]], code: Mapping[str, int], bar: Progressbar
) -> Iterable[tuple[np.ndarray, np.ndarray, int]]:
    for terms in corpus:
        places = [place for place, term in enumerate(terms) if term in code]
        codes = [code[terms[place]] for place in places]
        yield np.array(places, np.int64), np.array(codes, np.int64), len(terms)
        bar.update()


def _positive_information(units: int, pairs: sparse.csr_matrix) -> sparse.csr_matrix:
    """max(0, log(p(a, b) / (p(a) p(b)))) of words (V, V), without those of a word with itself."""
    single = pairs.diagonal() / units
    cells = pairs.tocoo()
    apart = cells.row != cells.col
    row, column, count = cells.row[apart], cells.col[apart], cells.data[apart]
    values = np.log(count / units / (single[row] * single[column]))
    positive = values > 0
    return sparse.csr_matrix(
        (values[positive], (row[positive], column[positive])), shape=pairs.shape
    )


def _reduced(information: sparse.csr_matrix, dimensions: int, seed: int) -> np.ndarray:
    left, singular, _ = randomized_svd(information, dimensions, random_state=seed)
    return left * np.sqrt(singular)


def _lookup(table: Mapping[str, np.ndarray]) -> Callable[[Sequence[str]], np.ndarray]:
    """Looks words up as they are, in lower case, or as the mean of their terms if all are known."""
    width = len(next(iter(table.values()))) if table else 1

    def vector(word: str) -> np.ndarray:
        for text in (word, word.casefold()):
            if text in table:
                return table[text]
        terms = terms_of(word)
        if terms and all(term in table for term in terms):
            return np.mean([table[term] for term in terms], axis=0)
        return np.full(width, np.nan)

    return lambda words: (
        np.stack([vector(word) for word in words]) if words else (np.zeros((0, width)))
    )


def _read_npz(choice: str, file: Path, asked: Collection[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            words, vectors = arrays["words"], arrays["vectors"]
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise fail(choice, f"should hold arrays `words` and `vectors` ({reason(error)})") from None
    if vectors.ndim != 2 or len(words) != len(vectors):
        raise fail(choice, f"has {len(words)} words and vectors of shape {vectors.shape}")
    return {
        str(word): vector
        for word, vector in zip(words, vectors.astype(np.float64), strict=True)
        if str(word) in asked
    }


def _read_text(choice: str, file: Path, asked: Collection[str]) -> dict[str, np.ndarray]:
    """Vectors as word2vec and GloVe write them; a first line of two numbers is a head."""
    table: dict[str, np.ndarray] = {}
    width = None
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            word, *cells = line.rstrip().split(" ")
            if number == 1 and len(cells) == 1:
                continue
            if word not in asked:
                continue
            try:
                vector = np.array(cells, np.float64)
            except ValueError:
                raise fail(choice, f"line {number}: should be a word and its numbers") from None
            width = width or len(vector)
            if len(vector) != width:
                raise fail(choice, f"line {number}: {len(vector)} numbers, not {width}")
            table[word] = vector
    return table
