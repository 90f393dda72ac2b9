"""Published encoders of text, read from the folder that their package was unpacked into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..weights.bert import WEIGHTS, read_bert
from ..weights.e5 import UnigramVocabulary, read_e5
from ..weights.static_vectors import read_static_vectors
from .encoder import TextEncoder

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Pretrained:
    """An encoder and what its texts must be made into.

    most_tokens: of a text, special ones included; None for any number. vocabulary: the file of a
    tokenizer in the format of the library tokenizers, or a unigram vocabulary. prefix: word before
    any text; special: whether the tokens of start and end are added.
    """

    encoder: TextEncoder
    vocabulary: Path | UnigramVocabulary
    most_tokens: int | None = None
    prefix: str = ""
    special: bool = True


def _bert(folder: Path) -> Pretrained:
    weights = read_bert(folder)
    return Pretrained(weights.encoder(), folder / TOKENIZER, weights.most_tokens)


def _wordllama(folder: Path) -> Pretrained:
    encoder = read_static_vectors(folder / "l2_supercat_256.safetensors")
    return Pretrained(encoder, folder / "l2_supercat_tokenizer_config.json", special=False)


def _e5(folder: Path) -> Pretrained:
    weights = read_e5(folder / "e5-small-q4.bin")
    bert = weights.bert
    return Pretrained(bert.encoder(), weights.vocabulary, bert.most_tokens, prefix="query: ")


READERS: dict[str, Callable[[Path], Pretrained]] = {
    "all-minilm-l6-v2": _bert,
    "wordllama-256": _wordllama,
    "multilingual-e5-small": _e5,
}


def read_pretrained(name: str, folder: str | Path) -> Pretrained:
    """The encoder of this name, from the folder of its files; in evaluation mode.

    name: of `READERS`, or any other for a folder of a BERT as Hugging Face stores it.

    Raises ValueError, one line, where a file is missing or damaged, or of another model.
    """
    home = Path(folder)
    if name not in READERS and not (home / WEIGHTS).is_file():
        raise ValueError(
            f"{folder}: holds no {WEIGHTS}; a folder of weights has config.json, {WEIGHTS} and "
            f"{TOKENIZER}, and the names are {', '.join(READERS)}"
        )
    return READERS.get(name, _bert)(home)
