"""The tokenizer in a GGUF file, as the files that Hugging Face's transformers reads.

Two kinds are known. "gpt2": byte pairs with a list of merges, whose words a pattern cuts. "llama":
SentencePiece's byte pairs without a space put before the text, whose merges follow from the scores
of their pieces. What is not known here is refused: a tokenizer that cuts otherwise than the one the
model was trained with would give a worse model without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ...base.errors import shown
from .gguf import Value

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NAME = "tokenizer.ggml."
_CONTROL, _OWN, _BYTE = 3, 4, 6  # kinds of a piece: special, always one token, a byte
_KINDS = range(1, 7)  # the others are normal, unknown and unused
_SPACE = "▁"
_SPECIAL = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
_CUTS = ("smollm", "gpt-2", "default")  # how words are cut before their bytes are paired


class GgufTokenizer(NamedTuple):
    """tokenizer: of the library tokenizers; settings: as in a tokenizer_config.json; template: of a
    conversation, in the language of Jinja, "" where the file has none.
    """

    tokenizer: Tokenizer
    settings: dict[str, object]
    template: str


class _Vocabulary(NamedTuple):
    """pieces, kinds: by id; places: ids by piece."""

    pieces: list[str]
    kinds: list[int]
    places: dict[str, int]


def read_tokenizer(facts: Mapping[str, Value]) -> GgufTokenizer:
    """The tokenizer in the facts of a file. Raises ValueError for one that is damaged or of another
    kind.
    """
    model, vocabulary = facts.get(f"{_NAME}model"), _vocabulary(facts)
    try:
        if model == "gpt2":
            tokenizer = _byte_pairs(facts, vocabulary)
        elif model == "llama":
            tokenizer = _sentence_pieces(facts, vocabulary)
        else:
            raise ValueError(f"has a tokenizer {shown(model)}; read are 'gpt2' and 'llama'")
    except ValueError:
        raise
    except Exception as error:  # of the library, whose errors have no kind of their own
        raise ValueError(f"has a damaged tokenizer ({error})") from None
    _add_special(tokenizer, vocabulary)
    special = {name: _piece(facts, name, vocabulary) for name in _SPECIAL}
    _add_ends(facts, tokenizer, special, vocabulary)
    settings: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",  # a text that is continued must end at the last place
        "model_max_length": facts.get(f"{facts.get('general.architecture')}.context_length"),
        **{
            f"{_SPECIAL[name]}_token": piece for name, piece in special.items() if piece is not None
        },
    }
    template = facts.get("tokenizer.chat_template", "")
    return GgufTokenizer(tokenizer, settings, template if isinstance(template, str) else "")


def _list(facts: Mapping[str, Value], name: str, kind: type, count: int | None = None) -> list:
    value = facts.get(f"{_NAME}{name}")
    if not isinstance(value, list) or any(type(item) is not kind for item in value):
        raise ValueError(f"has no list {_NAME}{name}")
    if count is not None and len(value) != count:
        raise ValueError(f"has {len(value)} values of {_NAME}{name} for {count} tokens")
    return value


def _vocabulary(facts: Mapping[str, Value]) -> _Vocabulary:
    pieces: list[str] = _list(facts, "tokens", str)
    kinds: list[int] = _list(facts, "token_type", int, len(pieces))
    places = {piece: place for place, piece in enumerate(pieces)}
    if not pieces or len(places) != len(pieces) or not set(kinds) <= set(_KINDS):
        raise ValueError("has a damaged vocabulary: none, tokens that are twice, or unknown kinds")
    return _Vocabulary(pieces, kinds, places)


def _piece(facts: Mapping[str, Value], name: str, vocabulary: _Vocabulary) -> str | None:
    """The token of a special place, None where the file names none."""
    place = facts.get(f"{_NAME}{name}_token_id")
    if place is None:
        return None
    if not isinstance(place, int) or not 0 <= place < len(vocabulary.pieces):
        raise ValueError(f"names {shown(place)} as its token {name}")
    return vocabulary.pieces[place]


def _byte_pairs(facts: Mapping[str, Value], vocabulary: _Vocabulary) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    cut = facts.get(f"{_NAME}pre", "default")
    if cut not in _CUTS:
        raise ValueError(f"cuts words as {shown(cut)}; known are {', '.join(_CUTS)}")
    merges: list[str] = _list(facts, "merges", str)
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = Tokenizer(BPE(vocab=vocabulary.places, merges=pairs))
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if cut == "smollm":  # every digit alone
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, to_bytes])
    else:
        tokenizer.pre_tokenizer = to_bytes
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_pieces(facts: Mapping[str, Value], vocabulary: _Vocabulary) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, normalizers
    from tokenizers.models import BPE

    if facts.get(f"{_NAME}add_space_prefix", True):
        raise ValueError("puts a space before texts, which is not read here")
    if _BYTE not in vocabulary.kinds:
        raise ValueError("has a tokenizer without tokens for bytes")
    unknown = _piece(facts, "unknown", vocabulary)
    merges = _merges(_list(facts, "scores", float, len(vocabulary.pieces)), vocabulary)
    model = BPE(
        vocab=vocabulary.places, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    spaces = decoders.Replace(_SPACE, " ")
    tokenizer.decoder = decoders.Sequence([spaces, decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _merges(scores: list[float], vocabulary: _Vocabulary) -> list[tuple[str, str]]:
    """All pairs of pieces that make a third one, the third with the highest score first."""
    single = (_CONTROL, _OWN, _BYTE)  # which are never parts of another one
    scored = {
        piece: score
        for piece, score, kind in zip(vocabulary.pieces, scores, vocabulary.kinds, strict=True)
        if kind not in single
    }
    pairs = [
        (-score, -cut, piece)
        for piece, score in scored.items()
        for cut in range(1, len(piece))
        if piece[:cut] in scored and piece[cut:] in scored
    ]
    return [(piece[:-minus], piece[-minus:]) for _, minus, piece in sorted(pairs)]


def _add_special(tokenizer: Tokenizer, vocabulary: _Vocabulary) -> None:
    """Tell the tokenizer which pieces are found in a text before anything else."""
    from tokenizers import AddedToken

    for kind, special in ((_CONTROL, True), (_OWN, False)):
        pieces = [p for p, k in zip(vocabulary.pieces, vocabulary.kinds, strict=True) if k == kind]
        tokens = [AddedToken(piece, normalized=False, special=special) for piece in pieces]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(tokens)


def _add_ends(
    facts: Mapping[str, Value],
    tokenizer: Tokenizer,
    special: Mapping[str, str | None],
    vocabulary: _Vocabulary,
) -> None:
    """Let the tokenizer put its special tokens around a text, where the file says so."""
    from tokenizers import processors

    if facts.get(f"{_NAME}add_eos_token", False):
        raise ValueError("puts a token behind texts, which could not be continued")
    if not facts.get(f"{_NAME}add_bos_token", facts.get(f"{_NAME}model") == "llama"):
        return
    begin = special["bos"]
    if begin is None:
        raise ValueError("puts a token before texts, and names none")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[begin, "$A"],
        pair=[begin, "$A", "$B"],
        special_tokens=[(begin, vocabulary.places[begin])],
    )
