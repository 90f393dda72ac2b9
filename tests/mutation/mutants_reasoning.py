"""Bugs in the rules, the generators and the networks of questions about scenes."""

from mutant import Mutant

EVALUATE, GENERATE, FILES = (
    (f"data/trials/test_{name}.py",) for name in ("evaluate", "generate", "files")
)
NETWORKS, TASK = ("models/reasoning/test_networks.py",), "pipelines/reasoning/test_reasoning.py"

MUTANTS = [
    Mutant(
        "reasoning-false-takes-the-first-branch",
        "data",
        "data/trials/evaluate.py",
        "number = 2 * number + (answer != TRUE)",
        "number = 2 * number + (answer == TRUE)",
        EVALUATE,
    ),
    Mutant(
        "reasoning-cells-of-answers-row-by-row",
        "data",
        "data/trials/trial.py",
        "return FIRST_CELL + SIDE * x + y",
        "return FIRST_CELL + SIDE * y + x",
        (*FILES, "-k", "by_hand"),
    ),
    Mutant(
        "reasoning-second-branch-of-constants-as-likely-as-the-first",
        "models",
        "models/reasoning/simple.py",
        "torch.where(ways == 2, 1 - true[:, None], 1)",
        "torch.where(ways == 2, true[:, None], 1)",
        (*NETWORKS, "-k", "mixture"),
    ),
    Mutant(
        "reasoning-letters-that-tell-an-object-are-not-kept-free",
        "data",
        "data/trials/generate.py",
        "            or letter in self.unique_letters\n",
        "",
        (*GENERATE, "-k", "well_posed"),
    ),
    Mutant(
        "reasoning-all-epochs-see-the-first-trials",
        "pipelines",
        "pipelines/reasoning/data.py",
        "np.arange(epoch * self.count, (epoch + 1) * self.count)",
        "np.arange(self.count)",
        (TASK, "-k", "no_epoch_sees"),
    ),
    Mutant(
        "reasoning-attention-of-missing-objects-counts",
        "models",
        "models/reasoning/networks.py",
        "return self.layer(x, context, mask=present)",
        "return self.layer(x, context)",
        (*NETWORKS, "-k", "padding"),
    ),
    Mutant(
        "reasoning-blind-floor-of-the-same-trials",
        "pipelines",
        "pipelines/reasoning/scoring.py",
        "part.take(places[1 - half :: 2])",
        "scored",
        (TASK, "-k", "few_trials_have_no_floor"),
    ),
]
