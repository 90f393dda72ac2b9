"""Text as tokens: those of Whisper, or of a model of our own, and the words that they make.

The `tokenizers` library (extra `speech`) does the work; a tokenizer is its JSON file. Whisper's
special tokens are found by their names."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...base.errors import InputError, fail

START, END, PAD_TEXT = "<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>"
FILE_CAP = 64 << 20
TokenKind = Literal["characters", "bpe"]


@dataclass
class TextTokens:
    """A tokenizer with the tokens that begin and end a transcript.

    prompt: what a transcript begins with; end: what ends it; first_special: ids from here on are no
    text."""

    tokenizer: Any
    prompt: tuple[int, ...]
    end: int
    languages: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; special tokens are left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True).strip()

    def words(self, ids: Sequence[int]) -> list[tuple[str, int, int]]:
        """(word, first token, token after its last): split where a token begins with a space; a
        character of several tokens stays whole, and punctuation stays with its word."""
        found: list[tuple[str, int, int]] = []
        begun, text = 0, ""
        for place in range(len(ids)):
            grown = self.tokenizer.decode(list(ids[: place + 1]), skip_special_tokens=True)
            if grown.endswith("\ufffd") and place + 1 < len(ids):
                continue  # in the middle of a character
            new = grown[len(text) :]
            if not found or new[:1].isspace():
                found.append((new, begun, place + 1))
            else:
                word, first, _ = found[-1]
                found[-1] = (word + new, first, place + 1)
            text, begun = grown, place + 1
        return [(word.strip(), first, last) for word, first, last in found if word.strip()]

    def to_json(self) -> str:
        """What `read_tokens` reads."""
        return self.tokenizer.to_str()


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise InputError("text needs tokenizers; pip install 'headwise[speech]'") from error
    return tokenizers


def read_tokens(path: str | os.PathLike[str], language: str | None = None) -> TextTokens:
    """A tokenizer.json, also of a folder, or a vocabulary of OpenAI (.tiktoken). language: of a
    model of many.

    Raises InputError for a file that is missing, or no tokenizer with the tokens that a transcript
    needs."""
    file = Path(path)
    file = file / "tokenizer.json" if file.is_dir() else file
    if not file.is_file():
        raise fail(file, "there is no such file of a tokenizer")
    if file.stat().st_size > FILE_CAP:
        raise fail(file, f"is larger than {FILE_CAP >> 20} MiB")
    tokenizers = _library()
    try:
        made = (
            _from_ranks(file)
            if file.suffix == ".tiktoken"
            else tokenizers.Tokenizer.from_file(str(file))
        )
    except Exception as error:  # the library raises plain Exception
        raise fail(
            file, f"cannot be read as a tokenizer ({' '.join(str(error).split())[:120]})"
        ) from None
    return with_prompt(file, made, language)


def with_prompt(where: object, tokenizer: Any, language: str | None = None) -> TextTokens:
    """The tokenizer with its prompt. Raises InputError where a token is missing."""
    special = {name: tokenizer.token_to_id(name) for name in (START, END, PAD_TEXT)}
    if missing := [name for name, number in special.items() if number is None and name != PAD_TEXT]:
        raise fail(where, f"has no token {missing[0]}")
    task = tokenizer.token_to_id("<|transcribe|>")
    names = [
        name[2:-2]
        for name in tokenizer.get_vocab()
        if len(name) in (6, 7) and name.startswith("<|")
    ]
    languages = {
        name: tokenizer.token_to_id(f"<|{name}|>")
        for name in names
        if name.isalpha() and len(name) < 4
    }
    prompt: list[int] = [special[START]]
    # A model of English alone has tokens of languages, too, but was not trained with them; its end
    # stands below start.
    many = task is not None and special[END] >= 50257
    if many:
        chosen = language or "en"
        if chosen not in languages:
            raise fail(where, f"--language {chosen}: is none of {', '.join(sorted(languages))}")
        prompt += [languages[chosen], task]
    elif language not in (None, "en"):
        raise fail(where, f"--language {language}: the model knows one language")
    if special[PAD_TEXT] is not None:
        prompt.append(special[PAD_TEXT])
    return TextTokens(tokenizer, tuple(prompt), special[END], languages if many else {})


def train_tokens(
    texts: Iterable[str], kind: TokenKind = "characters", size: int = 256
) -> TextTokens:
    """A tokenizer of our own: characters, or byte pairs (at most `size` tokens). Raises InputError
    without any text.
    """
    tokenizers = _library()
    lines = [text for text in texts if text]
    if not lines:
        raise InputError("there is no text to make tokens of")
    if kind == "characters":
        letters = sorted(set("".join(lines)))
        vocabulary = {
            letter: number for number, letter in enumerate(["?", *[x for x in letters if x != "?"]])
        }
        made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="?"))
        made.pre_tokenizer = tokenizers.pre_tokenizers.Split(
            tokenizers.Regex(r"[\s\S]"), "isolated"
        )
        made.decoder = tokenizers.decoders.Fuse()
    else:
        made = tokenizers.Tokenizer(tokenizers.models.BPE())
        made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            show_progress=False,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        )
        made.train_from_iterator(lines, trainer)
    made.add_special_tokens([END, START])
    return with_prompt("tokens", made)


def _from_ranks(file: Path) -> Any:
    """Byte pairs of a .tiktoken file (rank by rank) with Whisper's special tokens for it."""
    tokenizers = _library()
    ranks: dict[bytes, int] = {}
    for line in file.read_text(encoding="ascii").split("\n"):
        if line.strip():
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    shown = _byte_letters()

    def named(token: bytes) -> str:
        return "".join(shown[byte] for byte in token)

    merges = [
        (named(a), named(b))
        for token in ranks
        if len(token) > 1
        for a, b in [_halves(token, ranks)]
    ]
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE({named(token): rank for token, rank in ranks.items()}, merges)
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    languages = LANGUAGES.split()
    rest = [
        f"<|{name}|>"
        for name in (
            *languages,
            "translate",
            "transcribe",
            "startoflm",
            "startofprev",
            "nospeech",
            "notimestamps",
        )
    ]
    made.add_special_tokens([END, START, *rest])
    return made


def _halves(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that a token was merged from: merge by rank until two are left."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        best = min(range(len(parts) - 1), key=lambda k: ranks.get(parts[k] + parts[k + 1], 1 << 30))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


def _byte_letters() -> dict[int, str]:
    """The letter that stands for each byte in byte-level vocabularies (GPT-2)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    found = {byte: chr(byte) for byte in plain}
    for extra, byte in enumerate(byte for byte in range(256) if byte not in found):
        found[byte] = chr(256 + extra)
    return found


LANGUAGES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml "
    "cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am "
    "yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su"
)


def suppressed(folder: str | os.PathLike[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids that a model never says, and those that it does not begin with, of its config.json or
    generation_config.json; none where they say nothing."""
    found: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        file = Path(folder) / name
        if file.is_file():
            content = json.loads(file.read_text(encoding="utf-8"))
            found |= {key: value for key, value in content.items() if value}
    never = found.get("suppress_ids") or found.get("suppress_tokens") or []
    begin = found.get("suppress_ids_begin") or found.get("begin_suppress_tokens") or []
    return tuple(int(x) for x in never), tuple(int(x) for x in begin)
