"""Tiny models that are tuned in tests: weights as a training starts with them, not sharp."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from headwise.tests.models.language.tiny_models import WORDS, tiny_model


def tiny(kind: str = "llama", layers: int = 3, **changes: object) -> PreTrainedModel:
    """A random model in evaluation mode; gemma3 has three layers."""
    model = tiny_model(kind, num_hidden_layers=layers, **changes)
    assert isinstance(model, PreTrainedModel)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight *= 0.4
    return model


def texts(rows: int = 2, length: int = 12, seed: int = 5) -> torch.Tensor:
    """Random tokens, none of them padding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, WORDS, (rows, length), generator=generator)
