"""Bugs in tuned language models: masks, what is learned, what is shared, what is stored."""

from mutant import Mutant

COFITUNE, IMPORTANCE, LORA, CONVERT, TUNED = (
    (f"models/language/tuning/test_{name}.py",)
    for name in ("cofitune", "importance", "lora", "convert", "tuned")
)
CODING = ("pipelines/finetune/test_coding.py",)
_COFITUNE, _IMPORTANCE, _LORA, _CONVERT, _TUNED = (
    f"models/language/tuning/{name}.py"
    for name in ("cofitune", "importance", "lora", "convert", "tuned")
)
_CODING = "pipelines/finetune/coding.py"

MUTANTS = [
    Mutant(
        "tuning-mask-on-rows-of-down",
        "models",
        _COFITUNE,
        "share[None, :] if across else share[:, None]",
        "share[:, None] if across and weight.shape[0] == len(share) else share[:, None]",
        (*COFITUNE, "-k", "rows_of_up_and_on_columns_of_down"),
    ),
    Mutant(
        "tuning-mask-importance-for-share",
        "models",
        _COFITUNE,
        "share = 1 - importance[place.layer]",
        "share = importance[place.layer]",
        (*COFITUNE, "-k", "plain_training_bit_for_bit or frozen_bit_for_bit"),
    ),
    Mutant(
        "tuning-mask-before-the-step",
        "models",
        _COFITUNE,
        "taken = start + share * (weight - start)",
        "taken = start + share.sqrt() * (weight - start)",
        (*COFITUNE, "-k", "is_that_share_of_the_step"),
    ),
    Mutant(
        "tuning-importance-without-absolute",
        "models",
        _IMPORTANCE,
        "gradient.double().abs().cpu()",
        "gradient.double().cpu()",
        (*IMPORTANCE, "-k", "what_scaling_it_changes"),
    ),
    Mutant(
        "tuning-lora-scale",
        "models",
        _LORA,
        "self.scale = alpha / rank",
        "self.scale = alpha",
        (*LORA, "-k", "is_the_formula"),
    ),
    Mutant(
        "tuning-noise-of-another-group",
        "models",
        _CONVERT,
        "by_group[..., -1, :]], 2)",
        "by_group[..., -1, :].flip(2)], 2)",
        (*CONVERT, "-k", "noise_head_of_its_group"),
    ),
    Mutant(
        "tuning-writes-into-the-model",
        "models",
        _TUNED,
        "                weight.data = weight.data.clone()\n",
        "                pass\n",
        (*TUNED, "-k", "holds_what_changed and full"),
    ),
    Mutant(
        "tuning-prompt-is-learned",
        "pipelines",
        _CODING,
        "if answer else [False] * len(piece)",
        "if answer else [True] * len(piece)",
        (*CODING, "-k", "alone_are_learned"),
    ),
    Mutant(
        "tuning-packed-positions-go-on",
        "pipelines",
        _CODING,
        "positions[line, place:end] = torch.arange(len(row))",
        "positions[line, place:end] = torch.arange(place, end)",
        (*CODING, "-k", "their_own_positions or packing_changes_no_loss"),
    ),
]
