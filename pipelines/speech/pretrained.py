"""Whisper's weights: where they are, and the spec and tokens of a run that starts from them."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ...base.errors import InputError, closest, fail, reason
from ...data.catalogue import get_dataset
from ...data.speech.tokens import TextTokens, read_tokens, suppressed_tokens
from ...models.weights.whisper import WhisperWeights, read_whisper
from .data import SpeechSpec, input_facts, note_language
from .options import AdoptOptions, SpeechOptions
from .whisper_names import SIZES, find_published, size_named

CATALOGUED = "whisper-tiny-en"
LAG = (
    4  # states by which the alignment heads of Whisper tiny.en look late (docs/measured/speech.md)
)
NO_SPEECH_TOKENS = ("<|nospeech|>", "<|nocaptions|>")


def find_weights(name: str) -> Path:
    """The file or folder of weights; the name of the catalogue is fetched once.

    Raises `InputError` for what is neither, with what there is and how to get other weights.
    """
    path = Path(name)
    if path.exists():
        return path
    if name == CATALOGUED:
        return get_dataset(CATALOGUED)
    if (size := size_named(name)) is not None:
        return find_published(size)
    close = closest(name, (CATALOGUED, *SIZES))
    hint = "" if close is None else f", did you mean {close}?"
    raise InputError(
        f"--weights {name}: there is no such file or folder of weights{hint}; names are "
        f"{CATALOGUED} (from a package) and {', '.join(SIZES)} (from Hugging Face's hub)"
    )


def open_pretrained(
    weights: str, options: AdoptOptions | SpeechOptions
) -> tuple[SpeechSpec, TextTokens, WhisperWeights]:
    """The spec of a run with these weights, their tokens, and the weights.

    Raises `InputError` for weights that cannot be read and a tokenizer that does not fit them.
    """
    path = find_weights(weights)
    try:
        pretrained = read_whisper(path)
    except ValueError as error:
        raise InputError(str(error)) from None
    folder = path if path.is_dir() else path.parent
    if options.tokenizer is None and not (folder / "tokenizer.json").is_file():
        raise fail(path, "has no tokenizer.json beside it; name one with --tokenizer")
    tokens = read_tokens(options.tokenizer or folder, options.language)
    size = pretrained.options["vocabulary"]
    if tokens.end >= size or max(tokens.prompt) >= size:
        raise fail(
            options.tokenizer or folder,
            f"is not the tokenizer of these weights, which know {size} tokens",
        )
    note_language(tokens, options.language)
    never, not_first = suppressed_tokens(folder)
    no_speech = [tokens.tokenizer.token_to_id(name) for name in NO_SPEECH_TOKENS]
    spec = SpeechSpec(
        input=input_facts(pretrained.options["audio_positions"]),
        vocabulary=size,
        whole_window=True,
        alignment_heads=[list(pair) for pair in pretrained.alignment_heads],
        never=[token for token in never if token < size],
        not_first=[token for token in not_first if token < size],
        no_speech=next((token for token in no_speech if token is not None), None),
        language=options.language,
        sizes=pretrained.options,
        audio_positions=pretrained.options["audio_positions"],
        text_positions=pretrained.options["text_positions"],
        features=pretrained.options["features"],
    )
    return spec, tokens, pretrained


def load_pretrained(model: nn.Module, weights: str) -> None:
    """Load Whisper's weights into a model, whose CTC head, if it has one, keeps its own.

    Raises `InputError` where they do not fit.
    """
    try:
        state = read_whisper(find_weights(weights)).state
        missing, unknown = model.load_state_dict(state, strict=False)
    except InputError:
        raise
    except (ValueError, RuntimeError) as error:
        raise InputError(f"--weights {weights}: {reason(error, 200)}") from None
    missing = [name for name in missing if not name.startswith("ctc.")]
    if missing or unknown:
        raise InputError(f"--weights {weights}: do not fit; {[*missing, *unknown][0]}")
