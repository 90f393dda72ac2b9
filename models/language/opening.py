"""Opening a causal language model (placeholder until the reader of published weights is merged)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .facts import ModelFacts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class OpenedLanguageModel:
    """A model with what belongs to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    sha256: str
    licence: str
    facts: ModelFacts


def open_language_model(name_or_folder: str, *, option: str = "--model") -> OpenedLanguageModel:
    """A folder in Hugging Face's form. Raises ValueError, in one line, for what is none."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(name_or_folder)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ValueError(f"{option} {name_or_folder}: holds no model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).float().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return OpenedLanguageModel(model, tokenizer, folder.name, digest, "", ModelFacts.of(model))
