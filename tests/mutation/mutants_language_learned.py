"""Bugs in learned plans of attention: sets of keys that use would not have, gates and routers that
see what they must not see, weights that should be frozen."""

from mutant import Mutant

LYCHEE, FLUX, KUMA = (
    (f"models/language/test_{name}.py",) for name in ("lychee", "flux", "kuma")
)  # fmt: skip
USE = ("models/language/test_learned_plans_in_use.py",)
_LYCHEE, _FLUX, _KUMA, _BASE = (
    f"models/language/{name}.py"
    for name in ("search/lychee", "search/flux", "search/kuma", "running/frozen_base")
)

MUTANTS = [
    # As the published program: every head refreshes its set, whatever its gate.
    Mutant("lychee-every-head-chooses", "models", _LYCHEE,
           "self.sets = torch.where((gates > 0.5)[..., None, None], fresh, below)",
           "self.sets = fresh", (*LYCHEE, "-k", "nearest_retrieval")),
    Mutant("lychee-own-set", "models", _LYCHEE,
           "allowed, below, gates, self.answer", "allowed, fresh, gates, self.answer",
           (*USE, "-k", "roles")),
    Mutant("lychee-sets-with-padding", "models", _LYCHEE,
           "            mask=self.mask,\n", "", (*LYCHEE, "-k", "no_padding")),
    Mutant("lychee-prompt-is-sparse", "models", _LYCHEE,
           "torch.where(answer[:, None, :, None], mixed, full)", "mixed",
           (*LYCHEE, "-k", "nearest_retrieval or alone")),
    Mutant("lychee-ends-not-exact", "models", _LYCHEE,
           "torch.lerp(sparse, full, gates[..., None, None])",
           "sparse + gates[..., None, None] * (full - sparse) * (1 - 1e-6)",
           (*LYCHEE, "-k", "bit_for_bit")),
    Mutant("lychee-gradient-of-average", "models", _LYCHEE,
           "(self.excess.clone() - above).detach()", "self.excess.clone() * 0",
           (*LYCHEE, "-k", "moving_average")),
    Mutant("kuma-mean-not-rectified", "models", _KUMA,
           "self.above(0.5 + _last(x, self.a))",
           "self.above(0.5 + (HIGH - LOW) * _last(x, self.a))", KUMA),
    Mutant("kuma-shapes-change-places", "models", _KUMA,
           "s = (1 - (1 - u) ** b.reciprocal()) ** a.reciprocal()",
           "s = (1 - (1 - u) ** a.reciprocal()) ** b.reciprocal()", KUMA),
    Mutant("base-not-frozen", "models", _BASE, "        model.requires_grad_(False)\n", "",
           (*LYCHEE, "-k", "state_is")),
    Mutant("flux-answer-pooled", "models", _FLUX,
           "_Routing(self, mask, prompt_of(mask, answer), noise)",
           "_Routing(self, mask, mask, noise)", (*FLUX, "-k", "answers_take")),
    Mutant("flux-pads-pooled", "models", _FLUX,
           "return present & ((rank <= count) | (rank > rank[:, -1:] - count))",
           "return (rank <= count) | (rank > rank[:, -1:] - count)",
           (*FLUX, "-k", "pooled or padding")),
    Mutant("flux-window-by-column", "models", _FLUX,
           "positions = positions_of(self.mask)",
           "positions = torch.arange(self.mask.shape[1]).expand_as(self.mask)",
           (*FLUX, "-k", "real_ones")),
    Mutant("flux-multipliers-descend", "models", _FLUX,
           "self.multipliers.add_(self.rate * steps / count)",
           "self.multipliers.sub_(self.rate * steps / count)", (*FLUX, "-k", "multipliers")),
    Mutant("flux-plan-of-other-rule", "models", _FLUX,
           "sink=self.rule.sink,", "sink=self.rule.sink + 1,", (*USE, "-k", "routers")),
]  # fmt: skip
