"""Bugs of the core: sequences in pieces, repeated passes, places, precision."""

from mutant import Mutant

BASE = "models/attention/base.py"
PLACES = "models/attention/positions.py"
CACHE = ("models/attention/test_cache.py",)
REPEATED = ("models/moe/test_recomputation.py",)

MUTANTS = [
    Mutant(
        "bias-moved-twice",
        "core",
        "models/moe/router.py",
        "step.masked_fill(again, 0.0)",
        "step",
        REPEATED,
    ),
    Mutant(
        "bias-of-today",
        "core",
        "models/moe/past_biases.py",
        "torch.where(again, self.biases.index_select(0, same[None])[0], bias)",
        "bias.clone()",
        REPEATED,
    ),
    Mutant(
        "loss-without-gradients",
        "core",
        BASE,
        'if torch.is_grad_enabled() and getattr(part, "loss_without_gradients", False):',
        "if False:",
        REPEATED,
    ),
    Mutant(
        "queries-from-place-0",
        "core",
        PLACES,
        "start = first + key.shape[2] - query.shape[2]",
        "start = first",
        ("models/attention/test_softmax_options.py",),
    ),
    Mutant(
        "cache-forgets-its-place",
        "core",
        PLACES,
        "first = 0 if cache is None else cache.tokens\n    start",
        "first = 0\n    start",
        CACHE,
    ),
    Mutant(
        "rows-from-the-start",
        "core",
        "models/attention/deconstructed/fixed.py",
        "rows = self.rows[None, first : first + tokens]",
        "rows = self.rows[None, :tokens]",
        CACHE,
    ),
    Mutant(
        "beam-keeps-masks",
        "core",
        "models/attention/cache.py",
        "None if self.mask is None else self.mask.index_select(0, rows)",
        "None if self.mask is None else self.mask[:1].expand(len(rows), -1)",
        CACHE,
    ),
    Mutant(
        "squares-in-half",
        "core",
        "models/attention/deconstructed/taylor.py",
        "query, key = query.to(compute_type(query)), key.to(compute_type(key))",
        "pass",
        ("models/attention/deconstructed/test_deconstructed.py", "-k", "half_precision"),
    ),
    Mutant(
        "empty-without-gradients",
        "core",
        BASE,
        "return x * weights.to(x.dtype)",
        "return x * 1.0",
        ("models/attention/test_contract.py", "-k", "give_nothing"),
    ),
]
