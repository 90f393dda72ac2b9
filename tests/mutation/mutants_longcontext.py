"""Bugs in long contexts: prompts that give the answer away, plans of unequal size, cut caches."""

from mutant import Mutant

GENERATED = ("data/prompts/test_generate.py",)
TABLE = ("data/prompts/test_table.py",)
PLANS = ("pipelines/longcontext/test_longcontext.py",)
ANSWERS = ("pipelines/longcontext/test_prediction.py",)
_HOME = "pipelines/longcontext"

MUTANTS = [
    Mutant(
        "longcontext-asks-for-a-distractor",
        "data",
        "data/prompts/generate.py",
        '        f" {codes[0]}",\n    )\n\n\ndef _second',
        '        f" {codes[1]}",\n    )\n\n\ndef _second',
        (*GENERATED, "-k", "several_codes"),
    ),
    Mutant(
        "longcontext-prompt-too-long",
        "data",
        "data/prompts/generate.py",
        "    room = length - measure(asked)\n",
        "    room = length\n",
        (*GENERATED, "-k", "longer"),
    ),
    Mutant(
        "longcontext-answer-without-space",
        "data",
        "data/prompts/table.py",
        '    return f" {word}"\n',
        "    return word\n",
        (*TABLE, "-k", "space"),
    ),
    Mutant(
        "longcontext-windows-do-not-grow",
        "pipelines",
        f"{_HOME}/comparing.py",
        "    constant = large - growth * length - sink\n",
        "    growth, constant = 0.0, large - sink\n",
        (*PLANS, "-k", "as_large_as_the_plan"),
    ),
    Mutant(
        "longcontext-answer-read-without-the-plan",
        "pipelines",
        f"{_HOME}/scoring.py",
        "    cache = attached.cache()\n    places",
        "    from transformers import DynamicCache\n\n    cache = DynamicCache()\n    places",
        (*PLANS, "-k", "cut_cache"),
    ),
    Mutant(
        "longcontext-texts-in-two-parts",
        "pipelines",
        f"{_HOME}/data.py",
        "_over(options, [texts[row] for row in rows], coder, name, count)",
        "_over(options, texts, coder, name, count)",
        (*PLANS, "-k", "share_no_text"),
    ),
    Mutant(
        "longcontext-second-question-forgets-a-token",
        "pipelines",
        f"{_HOME}/generation.py",
        "    second = _write(model, held, (*unread, *asked), writing, generator)\n",
        "    second = _write(model, held, asked, writing, generator)\n",
        (*ANSWERS, "-k", "second_question"),
    ),
    Mutant(
        "longcontext-equal-draws",
        "pipelines",
        f"{_HOME}/generation.py",
        "manual_seed(mix(self.seed, number, 7))",
        "manual_seed(mix(self.seed, 7))",
        (*ANSWERS, "-k", "seed"),
    ),
    Mutant(
        "longcontext-another-model-is-taken",
        "pipelines",
        "pipelines/engine/opened_models.py",
        "    if sha256 is not None and opened.sha256 != sha256:\n",
        "    if sha256 is None and opened.sha256 != sha256:\n",
        (*PLANS, "-k", "other_weights"),
    ),
]
