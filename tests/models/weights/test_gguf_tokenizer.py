"""Tokenizers out of GGUF files cut texts as the models were trained to read them."""

import pytest

pytest.importorskip("tokenizers", reason="tokenizers is optional (extra language)")

from headwise.models.weights.gguf_tokenizer import read_tokenizer

from .gguf_models import GPT2, tokenizer_facts

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = ["▁t", "he", "▁the", "th", "ca", "at", "cat", "▁c", "▁", *"theca.n"]
OWN, SPECIAL = ["  ", "\n\n", "<b>"], ["<pad>", "<eos>", "<bos>", "<unk>"]
LLAMA_PIECES = [*SPECIAL, *OWN, *BYTES, *PIECES]
SCORES = [-1000.0] * 7 + [0.0] * 256 + [-float(k) for k in range(len(PIECES))]


def sentence_pieces(**changes: object) -> dict[str, object]:
    facts: dict[str, object] = {
        "model": "llama",
        "tokens": LLAMA_PIECES,
        "scores": SCORES,
        "token_type": [3] * 4 + [4] * 3 + [6] * 256 + [1] * len(PIECES),
        "bos_token_id": 2,
        "eos_token_id": 1,
        "unknown_token_id": 3,
        "padding_token_id": 0,
        "add_bos_token": True,
        "add_space_prefix": False,
        **changes,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in facts.items() if value is not None}


def plain_pieces(text: str) -> list[str]:
    """SentencePiece's byte pairs: the pair with the best score, leftmost first, until none is left;
    what is always one token is cut out before."""
    for own in OWN:
        if own in text:
            before, _, after = text.partition(own)
            return [*plain_pieces(before), own, *plain_pieces(after)]
    scores = dict(zip(LLAMA_PIECES, SCORES, strict=True))
    parts = list(text.replace(" ", "▁"))
    while True:
        pairs = [
            (-scores[parts[k] + parts[k + 1]], k)
            for k in range(len(parts) - 1)
            if parts[k] + parts[k + 1] in PIECES
        ]
        if not pairs:
            break
        k = min(pairs)[1]
        parts[k : k + 2] = [parts[k] + parts[k + 1]]
    return [
        token
        for part in parts
        for token in ([part] if part in PIECES else [f"<0x{b:02X}>" for b in part.encode()])
    ]


@pytest.mark.parametrize(
    "text",
    [
        "the cat",
        " the the cat.",
        "catheat",
        "the  cat\n\nthe",
        "<b>the",
        "é the 東",
        "ththecath",
        "",
    ],
)
def test_sentence_pieces_are_merged_by_their_scores(text: str) -> None:
    tokenizer = read_tokenizer(sentence_pieces()).tokenizer
    tokens = tokenizer.encode(text)
    assert tokens.tokens == ["<bos>", *plain_pieces(text)]
    assert tokenizer.decode(tokens.ids) == text


@pytest.mark.parametrize(
    ("cut", "text", "pieces"),
    [
        ("smollm", "a 12", ["a", "Ġ", "1", "2"]),
        ("gpt-2", "a 12", ["a", "Ġ", "12"]),
        ("default", "a12", ["a", "12"]),
        ("smollm", "the  a", ["the", "Ġ", "Ġa"]),
        ("smollm", "the  1", ["the", "ĠĠ", "1"]),
        ("gpt-2", "the  1", ["the", "Ġ", "Ġ1"]),
        ("smollm", "<|end|>the", ["<|end|>", "the"]),
    ],
)
def test_words_and_digits_are_cut_as_the_file_says(cut: str, text: str, pieces: list[str]) -> None:
    tokenizer = read_tokenizer(tokenizer_facts(cut)).tokenizer
    tokens = tokenizer.encode(text)
    assert [GPT2[k] for k in tokens.ids] == pieces
    assert tokenizer.decode(tokens.ids, skip_special_tokens=False) == text


def test_special_tokens_are_left_out_of_a_text_and_own_ones_are_not() -> None:
    tokenizer = read_tokenizer(sentence_pieces()).tokenizer
    ids = tokenizer.encode("<b>the<eos>").ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<b>the"


def test_settings_say_the_special_tokens_and_the_longest_text() -> None:
    facts = {**sentence_pieces(), "general.architecture": "x", "x.context_length": 99}
    settings = read_tokenizer(facts).settings
    assert settings["model_max_length"] == 99
    assert [settings[f"{name}_token"] for name in ("pad", "eos", "bos", "unk")] == SPECIAL
    assert "unk_token" not in read_tokenizer(tokenizer_facts()).settings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "bert"}, "tokenizer 'bert'; read are"),
        ({"model": None}, "tokenizer None; read are"),
        ({"tokens": None}, "no list tokenizer.ggml.tokens"),
        ({"scores": SCORES[:-1]}, "values of tokenizer.ggml.scores for"),
        ({"scores": None}, "no list tokenizer.ggml.scores"),
        ({"tokens": [*LLAMA_PIECES[:-1], "<pad>"]}, "damaged vocabulary"),
        ({"token_type": [9] * len(LLAMA_PIECES)}, "damaged vocabulary"),
        ({"token_type": [1] * len(LLAMA_PIECES)}, "without tokens for bytes"),
        ({"add_space_prefix": True}, "puts a space before texts"),
        ({"add_space_prefix": None}, "puts a space before texts"),
        ({"add_eos_token": True}, "puts a token behind texts"),
        ({"bos_token_id": None}, "puts a token before texts, and names none"),
        ({"bos_token_id": len(LLAMA_PIECES)}, "as its token bos"),
        ({"eos_token_id": "<eos>"}, "as its token eos"),
    ],
)
def test_what_is_damaged_or_not_known_is_one_line(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read_tokenizer(sentence_pieces(**changes))
    assert "\n" not in str(caught.value)


def test_other_ways_to_cut_words_and_damaged_merges_are_one_line() -> None:
    with pytest.raises(ValueError, match="cuts words as 'llama-bpe'; known are smollm"):
        read_tokenizer(tokenizer_facts("llama-bpe"))
    with pytest.raises(ValueError, match="damaged tokenizer"):
        read_tokenizer({**tokenizer_facts(), "tokenizer.ggml.merges": ["t ü"]})
