"""Bugs of held backbones, of the size that an encoder sees, and of the same text for all."""

from mutant import Mutant

TUNED = ("models/layers/test_tuning.py",)
SPEECH = ("pipelines/speech/test_ladder.py",)
WSI = ("pipelines/wsi/test_extraction.py", "-k", "side")

MUTANTS = [
    Mutant(
        "held-norms-learn",
        "backbones",
        "models/layers/tuning.py",
        'super().train(mode and self.tuned == "all")',
        "super().train(mode)",
        TUNED,
    ),
    Mutant(
        "unused-weights-learn",
        "backbones",
        "models/layers/tuning.py",
        "weight.requires_grad_(False)",
        "weight.requires_grad_(False)\n"
        "                else:\n"
        "                    weight.requires_grad_(True)",
        TUNED,
    ),
    Mutant(
        "last-stage-is-the-first",
        "backbones",
        "models/layers/pyramid.py",
        "stages[len(STRIDES) - 1]",
        "stages[0]",
        TUNED,
    ),
    Mutant(
        "side-unseen",
        "backbones",
        "pipelines/wsi/extraction.py",
        "if sides[0] != sides[1]:",
        "if sides[0] is None and sides[1]:",
        WSI,
    ),
    Mutant(
        "side-unread",
        "backbones",
        "pipelines/wsi/extraction.py",
        "None if side is None else (side, side)",
        "None if side is None else (32, 32)",
        WSI,
    ),
    Mutant(
        "random-weights-held",
        "backbones",
        "pipelines/engine/weights.py",
        'if part != "all" and not pretrained:',
        "if False:",
        ("contract/test_tuned_backbones.py", "-k", "nobody and medical"),
    ),
    Mutant(
        "text-of-the-model",
        "backbones",
        "models/speech/same_text.py",
        "return self.logits(self.following[place].expand(len(tokens)))",
        "return self.decoder.step(tokens, place, self.decoder.begin(memory), memory)",
        SPEECH,
    ),
    Mutant(
        "commonest-text",
        "backbones",
        "pipelines/speech/scoring.py",
        "best = min(rates, key=rates.__getitem__)",
        "best = next(iter(rates))",
        SPEECH,
    ),
]
