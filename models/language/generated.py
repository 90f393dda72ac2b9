"""A tiny language model with random weights, called generated wherever it is shown: it shows how
things are called, not what they give.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

GENERATED = "generated"
POSITIONS = 1024
END, PAD = "<end>", "<pad>"


def write_generated_model(folder: Path) -> Path:
    """Write a model of two layers in Hugging Face's form, with a tokenizer whose tokens are bytes,
    into a folder; returns it. The weights are the same each time.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*letters, END, PAD])}
    tokens = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokens.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, eos_token=END, pad_token=PAD, model_max_length=POSITIONS
    )
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        initializer_range=0.3,  # logits far apart, so that rounding changes no token
        bos_token_id=None,
        eos_token_id=vocabulary[END],
        pad_token_id=vocabulary[PAD],
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2026)
        model = LlamaForCausalLM(config)
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    tokenizer.save_pretrained(folder)
    return folder
