"""Bugs in weights of language models: values, rows and tokens in the wrong place, files that were
changed and are opened all the same.
"""

from mutant import Mutant

BLOCKS = ("models/weights/test_gguf.py", "-k", "plain_formula")
MODELS = ("models/weights/test_llama_gguf.py", "-k", "logits")
TOKENS = ("models/weights/test_gguf_tokenizer.py",)
NAMED = ("pipelines/engine/test_language_models.py",)
OPENED = ("models/language/test_opening.py",)

MUTANTS = [
    Mutant(
        "gguf-scales-of-the-upper-groups",
        "models",
        "models/weights/gguf_blocks.py",
        "(high & 15) | (low >> 6 << 4)",
        "(high & 15) | (middle >> 6 << 4)",
        BLOCKS,
    ),
    Mutant(
        "gguf-rows-of-keys-as-stored",
        "models",
        "models/weights/llama_gguf.py",
        'name.endswith((".attn_q.weight", ".attn_k.weight"))',
        'name.endswith(".attn_q.weight")',
        MODELS,
    ),
    Mutant(
        "gguf-norms-of-gemma-with-their-one",
        "models",
        "models/weights/llama_gguf.py",
        "values = values - np.float32(1)",
        "values = values - np.float32(0)",
        MODELS,
    ),
    Mutant(
        "gguf-digits-together",
        "models",
        "models/weights/gguf_tokenizer.py",
        'if cut == "smollm":',
        'if cut == "other":',
        TOKENS,
    ),
    Mutant(
        "gguf-merges-with-the-worst-first",
        "models",
        "models/weights/gguf_tokenizer.py",
        "(-score, -cut, piece)",
        "(score, -cut, piece)",
        TOKENS,
    ),
    Mutant(
        "model-changed-and-opened",
        "pipelines",
        "pipelines/engine/language_models.py",
        "or checksum(file) != files[name]:",
        "or not checksum(file):",
        (*NAMED, "-k", "never_opened"),
    ),
    Mutant(
        "model-with-missing-weights",
        "models",
        "models/language/opening.py",
        '("lacks", "missing_keys")',
        '("lacks", "mismatched_keys")',
        (*OPENED, "-k", "other_kinds"),
    ),
]
