"""Bugs in plans of attention: which tokens are seen, which are held, whose row is whose."""

from mutant import Mutant

PLAN, ATTACHED, FILES, CHOSEN, FORMATS = (
    (f"models/language/test_{name}.py",)
    for name in ("plan", "attach", "cache_file", "chosen_keys", "formats")
)
_RULES, _PARTS, _ATTENDING, _CACHE, _ATTACH, _READING, _PLAN, _FILE, _FORMATS = (
    f"models/language/{name}.py"
    for name in (
        "plans/rules", "running/parts", "running/attending", "running/cache", "running/attach",
        "running/reading", "plans/plan", "running/cache_file", "plans/formats",
    )
)  # fmt: skip

MUTANTS = [
    Mutant(
        "plan-window-one-more",
        "models",
        _RULES,
        "keys >= lengths - windows.clamp(min=1)",
        "keys >= queries - windows.clamp(min=1)",
        (*PLAN, "-k", "streaming"),
    ),
    Mutant(
        "plan-half-to-even",
        "models",
        _RULES,
        "math.floor(self.alpha + self.beta * length + 0.5)",
        "round(self.alpha + self.beta * length)",
        (*PLAN, "-k", "comes_back"),
    ),
    Mutant(
        "plan-sinks-are-columns",
        "models",
        _READING,
        "positions = real.long().cumsum(1) - 1\n",
        "positions = torch.arange(total, device=device).expand(batch, -1)\n",
        (*ATTACHED, "-k", "plain_formula and one"),
    ),
    Mutant(
        "plan-window-forgets-the-sink",
        "models",
        _PARTS,
        "start = self.group.rule.sink if drop else 0",
        "start = 0",
        (*ATTACHED, "-k", "plain_formula and tokens"),
    ),
    Mutant(
        "plan-views-are-held",
        "models",
        _CACHE,
        "            part.free()\n",
        "",
        (*ATTACHED, "-k", "bytes"),
    ),
    Mutant(
        "plan-model-window-held",
        "models",
        _CACHE,
        "            self.keys, self.values = self.keys.clone(), self.values.clone()\n",
        "            pass\n",
        (*ATTACHED, "-k", "freed"),
    ),
    Mutant(
        "plan-padding-counts-as-ragged",
        "models",
        _ATTENDING,
        "if part.ragged else None",
        "if not part.ragged else None",
        (*ATTACHED, "-k", "padding_changes"),
    ),
    Mutant(
        "plan-shared-configuration",
        "models",
        "models/language/running/implementation.py",
        "    copied = copy.copy(text)\n",
        "    copied = text\n",
        (*ATTACHED, "-k", "one_configuration or after_the_block"),
    ),
    Mutant(
        "plan-set-of-the-first-head",
        "models",
        _ATTENDING,
        "sets = [reading.chosen[head] for head in part.group.heads]",
        "sets = [reading.chosen[part.group.heads[0]] for head in part.group.heads]",
        (*CHOSEN, "-k", "inheriting_heads"),
    ),
    Mutant(
        "plan-rows-of-a-router",
        "models",
        _PARTS,
        "            index = index[self.rows]\n",
        "            index = self.rows\n",
        (*CHOSEN, "-k", "follows_its_rows"),
    ),
    Mutant(
        "plan-cache-of-other-weights",
        "models",
        _FILE,
        'if header.get("weights") != attached.weights():',
        'if header.get("weights") is None:',
        (*FILES, "-k", "another_model"),
    ),
    Mutant(
        "plan-cache-of-other-numbers",
        "models",
        _FILE,
        'if header.get("numbers", "") not in ("", numbers_sha256(tensors)):',
        'if header.get("numbers", "") is None:',
        (*FILES, "-k", "changed_cache"),
    ),
    Mutant(
        "plan-moa-mean-of-a-group",
        "models",
        _FORMATS,
        "(facts.kv_heads, -1)).amax(2)",
        "(facts.kv_heads, -1)).mean(2)",
        (*FORMATS, "-k", "largest_of_their_group"),
    ),
]
