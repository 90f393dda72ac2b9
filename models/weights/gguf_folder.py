"""A folder as Hugging Face's transformers stores a language model, out of a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path

from .gguf import read_gguf
from .gguf_tokenizer import read_tokenizer
from .llama_gguf import language_weights

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
_SETTINGS, _GENERATION = "tokenizer_config.json", "generation_config.json"
_TEMPLATE = "chat_template.jinja"


def write_folder(source: str | Path, folder: str | Path) -> None:
    """Write the model of a GGUF file into a folder that exists: its configuration, its weights as
    float32 safetensors, its tokenizer and its template of a conversation.

    Raises ValueError, one line, for a file that is damaged or holds a model that is not read here.
    """
    from safetensors.torch import save_file

    file, home = read_gguf(source), Path(folder)
    try:
        tokenizer = read_tokenizer(file.facts)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    weights = language_weights(file)
    size = tokenizer.tokenizer.get_vocab_size()
    if size != weights.config["vocab_size"]:
        raise ValueError(
            f"{source}: has {size} tokens and vectors of {weights.config['vocab_size']}"
        )
    ends = {n: v for n, v in weights.config.items() if n.endswith("_token_id") and v is not None}
    _write_json(home / CONFIG, {**weights.config, **ends})
    _write_json(home / _GENERATION, ends)
    _write_json(home / _SETTINGS, tokenizer.settings)
    tokenizer.tokenizer.save(str(home / TOKENIZER))
    if tokenizer.template:
        (home / _TEMPLATE).write_text(tokenizer.template, encoding="utf-8")
    save_file(weights.state, home / WEIGHTS, {"format": "pt"})


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
