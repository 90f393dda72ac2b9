"""What attention of tiny models is by transformers' own eager form, and batches with padding."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from headwise.tests.models.language.tiny_models import WORDS


def plain_maps(model: PreTrainedModel, ids: Tensor, present: Tensor | None = None) -> list[Tensor]:
    """Attention (B, H, T, T) of each layer."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        result = model(ids, attention_mask=present, output_attentions=True, use_cache=False)
    model.set_attn_implementation(before)
    return list(result.attentions)


def padded_ids(side: str = "left") -> tuple[Tensor, Tensor]:
    """Two texts of 20 and 13 tokens as a batch, and which tokens are real."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, WORDS, (2, 20), generator=generator)
    present = torch.ones(2, 20, dtype=torch.bool)
    padding = slice(0, 7) if side == "left" else slice(13, 20)
    ids[1, padding], present[1, padding] = 0, False
    return ids, present
