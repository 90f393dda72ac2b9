"""Bugs in what several devices share: gradients, counts, statistics."""

from mutant import Mutant

LOOP = "pipelines/engine/training/loop.py"
COUNTS = "pipelines/engine/training/counts.py"
RANKS = ("models/test_ranks.py",)
PARTS = ("pipelines/engine/test_counts.py",)
FORECAST = ("contract/test_devices.py", "-k", "forecast and (same_weights or model_of_one)")

MUTANTS = [
    Mutant(
        "loss-goes-round-the-sharing",
        "engine",
        LOOP,
        "loss = self.shared(loss_of) * part.weight",
        "loss = loss_of(self.model) * part.weight",
        FORECAST,
    ),
    Mutant(
        "factor-without-processes",
        "engine",
        COUNTS,
        "world * value / (total * weights[place])",
        "value / (total * weights[place])",
        PARTS,
    ),
    Mutant(
        "repeated-sample-counts",
        "engine",
        COUNTS,
        "count[name].double() * (part.weight > 0)",
        "count[name].double()",
        PARTS,
    ),
    Mutant(
        "bias-by-own-tokens",
        "models",
        "models/moe/router.py",
        "summed_over_ranks(gate.counts.sum(0))",
        "gate.counts.sum(0)",
        RANKS,
    ),
    Mutant(
        "balance-by-own-tokens",
        "models",
        "models/moe/layer.py",
        "load_balance(of_all_ranks(routing), self.convention)",
        "load_balance(routing, self.convention)",
        RANKS,
    ),
    Mutant(
        "ranks-weigh-the-same",
        "models",
        "models/ranks.py",
        "torch.cat([(means * count).flatten(), count.to(means).view(1)])",
        "torch.cat([means.flatten(), torch.ones_like(count).to(means).view(1)])",
        RANKS,
    ),
]
