"""Text as tokens: those of Whisper, or of a tokenizer trained here, and the words that they make.

The `tokenizers` library (extra `speech`) does the work, and a tokenizer is stored as its JSON file.
Whisper's special tokens are recognised by their names.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from ...base.errors import InputError, fail, reason
from ...base.extras import install_line
from .writing import begins_word

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

START, END, NO_TIMES = "<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>"
FILE_CAP = 64 << 20  # most bytes of a tokenizer
TokenKind = Literal["characters", "bpe"]


@dataclass
class TextTokens:
    """A tokenizer with the tokens that begin (prompt) and end a transcript.

    languages: the token of each language that the model knows, by its code; empty for one language.
    """

    tokenizer: Tokenizer
    prompt: tuple[int, ...]
    end: int
    languages: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """The ids of a text. What looks like a special token, such as <|endoftext|>, is text."""
        ids: list[int] = []
        for piece in self._plain_pieces(text):
            ids += self.tokenizer.encode(piece, add_special_tokens=False).ids
        return ids

    def _plain_pieces(self, text: str) -> list[str]:
        """The text, cut within the names of tokens, which the tokenizer would take for them."""
        names = [token.content for token in self.tokenizer.get_added_tokens_decoder().values()]
        names = [name for name in names if len(name) > 1 and name in text]
        if not names:
            return [text]
        listed = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
        cuts = [match.start() + 1 for match in re.finditer(listed, text)]
        return [text[first:last] for first, last in pairwise([0, *cuts, len(text)])]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special tokens are left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True).strip()

    def words(self, ids: Sequence[int]) -> list[tuple[str, int, int]]:
        """The words of ids as (word, first token, token after the last).

        A word begins with a token that starts with a space, and in scripts without spaces (Chinese,
        Japanese, Thai, ...) with each token. A character of several tokens is not split, and
        punctuation belongs to the word before it.
        """
        words: list[tuple[str, int, int]] = []
        begin, text = 0, ""
        for place in range(len(ids)):
            longer = self.tokenizer.decode(list(ids[: place + 1]), skip_special_tokens=True)
            if longer.endswith("\ufffd") and place + 1 < len(ids):
                continue  # in the middle of a character
            new = longer[len(text) :]
            if begins_word(words[-1][0] if words else "", new):
                words.append((new, begin, place + 1))
            else:
                word, first, _ = words[-1]
                words[-1] = (word + new, first, place + 1)
            text, begin = longer, place + 1
        return [(word.strip(), first, last) for word, first, last in words if word.strip()]

    def to_json(self) -> str:
        """The tokenizer as JSON, for `read_tokens`."""
        return self.tokenizer.to_str()


def _library() -> ModuleType:
    try:
        import tokenizers
    except ImportError as error:
        raise InputError(f"text needs tokenizers; {install_line('speech')}") from error
    return tokenizers


def read_tokens(path: str | os.PathLike[str], language: str | None = None) -> TextTokens:
    """Read a tokenizer.json, or the folder that holds it, or a vocabulary of OpenAI (.tiktoken).

    language: the code of a language, for a multilingual model.

    Raises `InputError` for a file that is missing, or that is no tokenizer with the tokens of
    transcripts.
    """
    file = Path(path)
    file = file / "tokenizer.json" if file.is_dir() else file
    if not file.is_file():
        raise fail(file, "there is no such file of a tokenizer")
    if file.stat().st_size > FILE_CAP:
        raise fail(file, f"is larger than {FILE_CAP >> 20} MiB")
    tokenizers = _library()
    try:
        is_ranks = file.suffix == ".tiktoken"
        tokenizer = _from_ranks(file) if is_ranks else tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise fail(file, f"cannot be read as a tokenizer ({reason(error, 120)})") from None
    return with_prompt(file, tokenizer, language)


def with_prompt(where: object, tokenizer: Tokenizer, language: str | None = None) -> TextTokens:
    """The tokenizer with the prompt of a transcript.

    Raises `InputError` where a token is missing, and for a language that the model does not know.
    """
    start, end, task, no_times = map(
        tokenizer.token_to_id, (START, END, "<|transcribe|>", NO_TIMES)
    )
    if start is None or end is None:
        raise fail(where, f"has no token {START if start is None else END}")
    prompt, languages = [start], {}
    # A model of English alone has tokens of languages, too, but was not trained with them; there
    # the end has a lower number.
    if task is not None and end >= 50257:
        languages = _languages(tokenizer)
        code = language or "en"
        if code not in languages:
            raise fail(where, f"--language {code}: is none of {', '.join(sorted(languages))}")
        prompt += [languages[code], task]
    elif language not in (None, "en"):
        raise fail(where, f"--language {language}: the model knows one language")
    if no_times is not None:
        prompt.append(no_times)
    return TextTokens(tokenizer, tuple(prompt), end, languages)


def _languages(tokenizer: Tokenizer) -> dict[str, int]:
    """The token of each language, <|xx|> or <|xxx|>, by its code."""
    special = re.compile(r"<\|([a-z]{2,3})\|>")
    matches = ((special.fullmatch(name), number) for name, number in tokenizer.get_vocab().items())
    return {match[1]: number for match, number in matches if match}


def train_tokens(
    texts: Iterable[str], kind: TokenKind = "characters", size: int = 256
) -> TextTokens:
    """Train a tokenizer: characters, or byte pairs (at most `size` tokens).

    Raises `InputError` where all texts are empty.
    """
    tokenizers = _library()
    lines = [text for text in texts if text]
    if not lines:
        raise InputError("there is no text to make tokens of")
    if kind == "characters":
        letters = ["?", *sorted(set("".join(lines)) - {"?"})]
        vocabulary = {letter: number for number, letter in enumerate(letters)}
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="?"))
        each_character = tokenizers.Regex(r"[\s\S]")
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(each_character, "isolated")
        tokenizer.decoder = tokenizers.decoders.Fuse()
    else:
        tokenizer = _byte_level(tokenizers.models.BPE())
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            show_progress=False,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        )
        tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_special_tokens([END, START])
    return with_prompt("tokens", tokenizer)


def _byte_level(model: BPE) -> Tokenizer:
    """A tokenizer whose letters stand for bytes."""
    tokenizers = _library()
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def _from_ranks(file: Path) -> Tokenizer:
    """Byte pairs of a .tiktoken file (rank by rank) with Whisper's special tokens for it."""
    tokenizers = _library()
    ranks: dict[bytes, int] = {}
    for line in file.read_text(encoding="ascii").split("\n"):
        if line.strip():
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    letters = _byte_letters()

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    halves = [_halves(token, ranks) for token in ranks if len(token) > 1]
    merges = [(spelled(first), spelled(second)) for first, second in halves]
    vocabulary = {spelled(token): rank for token, rank in ranks.items()}
    tokenizer = _byte_level(tokenizers.models.BPE(vocabulary, merges))
    tasks = "translate transcribe startoflm startofprev nospeech notimestamps"
    special = [f"<|{name}|>" for name in f"{LANGUAGES} {tasks}".split()]
    tokenizer.add_special_tokens([END, START, *special])
    return tokenizer


def _halves(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that a token was merged from: merge by rank until there are two."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        best = min(range(len(parts) - 1), key=lambda k: ranks.get(parts[k] + parts[k + 1], 1 << 30))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def _byte_letters() -> dict[int, str]:
    """The letter that stands for each byte in byte-level vocabularies (GPT-2)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {b: chr(256 + k) for k, b in enumerate(others)}


LANGUAGES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th "
    "ur hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr "
    "pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt "
    "haw ln ha ba jw su"
)


def suppressed_tokens(folder: str | os.PathLike[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that a model never outputs, and those that it does not begin with, from its
    config.json and generation_config.json; empty where they name none.
    """
    settings: dict[str, list[int]] = {}
    for name in ("config.json", "generation_config.json"):
        file = Path(folder) / name
        if file.is_file():
            content = json.loads(file.read_text(encoding="utf-8"))
            settings |= {key: value for key, value in content.items() if value}
    never = settings.get("suppress_ids") or settings.get("suppress_tokens") or []
    first = settings.get("suppress_ids_begin") or settings.get("begin_suppress_tokens") or []
    return tuple(map(int, never)), tuple(map(int, first))
