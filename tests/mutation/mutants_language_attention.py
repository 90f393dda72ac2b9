"""Bugs in what is read of a language model's attention: scores of heads, and sinks."""

from mutant import Mutant

WATCHING, NEEDLE, SINKS = (
    (f"models/language/test_{name}.py",) for name in ("watching", "needle", "sinks")
)
VERBS = ("pipelines/longcontext/test_attention_verbs.py", "-k", "other_pieces or the_share")

MUTANTS = [
    Mutant(
        "needle-scores-without-the-row-that-writes-the-answer",
        "models",
        "models/language/analysis/needle.py",
        "list(range(len(self.ids) - self.answer - 1, len(self.ids)))",
        "list(range(len(self.ids) - self.answer, len(self.ids)))",
        NEEDLE,
    ),
    Mutant(
        "keys-shared-by-query-heads-in-steps",
        "models",
        "models/language/analysis/needle.py",
        "scores.unflatten(-1, (kv_heads, -1)).amax(-1)",
        "scores.unflatten(-1, (-1, kv_heads)).amax(-2)",
        NEEDLE,
    ),
    Mutant(
        "padded-rows-counted-in-needle-scores",
        "models",
        "models/language/analysis/needle.py",
        "counted[place, :count] = 1.0 / count",
        "counted[place] = 1.0 / longest",
        NEEDLE,
    ),
    Mutant(
        "mass-of-a-key-with-what-it-gives-itself",
        "models",
        "models/language/analysis/watching.py",
        "total = (read.column_mass.float().mean(1) - itself).clamp(min=0.0)",
        "total = read.column_mass.float().mean(1)",
        WATCHING,
    ),
    Mutant(
        "attention-of-padding-counted-in-the-mass",
        "models",
        "models/language/analysis/watching.py",
        "weights=present.to(torch.float32)",
        "weights=torch.ones_like(present, dtype=torch.float32)",
        WATCHING,
    ),
    Mutant(
        "states-centred-with-the-sink-among-them",
        "models",
        "models/language/analysis/sinks.py",
        "mean = (real.sum(1, keepdim=True) - chosen) / (count - 1).clamp(min=1)",
        "mean = real.sum(1, keepdim=True).expand_as(chosen) / count",
        SINKS,
    ),
    Mutant(
        "published-detector-on-states-before-the-last-normalisation",
        "models",
        "models/language/analysis/sink_kinds.py",
        "norm = torch.cat([figures.norm[:-1], figures.last_norm[None]])[:, reference]",
        "norm = figures.norm[:, reference]",
        SINKS,
    ),
    Mutant(
        "heads-checked-on-the-texts-that-they-were-scored-on",
        "pipelines",
        "pipelines/longcontext/verbs/prompts_to_score.py",
        "pieces[number::2]",
        "pieces",
        VERBS,
    ),
]
