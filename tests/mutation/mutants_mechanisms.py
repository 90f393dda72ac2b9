"""Bugs of mechanisms in the places of the pipelines' models."""

from mutant import Mutant

CONTRACT = ("contract/test_mechanisms.py", "-k")
DCAL = ("models/vision/test_dcal.py", "-k", "where_it_is_softmax")

MUTANTS = [
    Mutant(
        "pairs-see-themselves-only",
        "models",
        "models/layers/vit_trunk.py",
        "both = torch.cat([tokens, tokens[partner]], 1)",
        "both = torch.cat([tokens, tokens], 1)",
        DCAL,
    ),
    Mutant(
        "rollout-from-the-first-layer",
        "models",
        "models/layers/vit_trunk.py",
        "for weights in reversed(shares):",
        "for weights in shares:",
        DCAL,
    ),
    Mutant(
        "bottleneck-skipped",
        "models",
        "models/vision/medusa.py",
        "if self.bottleneck is not None:",
        "if False and self.bottleneck is not None:",
        ("models/vision/test_medusa.py", "-k", "behind_the_last_stage"),
    ),
    Mutant(
        "padding-read-as-events",
        "models",
        "models/clicks/reads.py",
        "return self.mixer(query, tokens, mask=present)",
        "return self.mixer(query, tokens, mask=None)",
        ("models/clicks/test_reads.py",),
    ),
    Mutant(
        "gates-of-heads-forgotten",
        "models",
        "models/speech/mixers.py",
        "return type(attention) is SoftmaxAttention and not attention.rotary",
        "return isinstance(attention, SoftmaxAttention)",
        ("models/speech/test_speech_to_text.py", "-k", "never_computed_as_plain"),
    ),
    Mutant(
        "mechanism-options-dropped",
        "pipelines",
        "pipelines/engine/mechanisms.py",
        "    return parse_mechanism_options(options.attention, options.attention_options)",
        "    return {}",
        (*CONTRACT, "reach_it and forecast"),
    ),
    Mutant(
        "where-says-yes",
        "pipelines",
        "pipelines/engine/command_line/where.py",
        "    return Answer(False, why=why)",
        "    return Answer(True)",
        (*CONTRACT, "says_why_not and wsi"),
    ),
]
