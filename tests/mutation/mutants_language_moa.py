"""Bugs in the influence of keys, in the search of windows by it, and in profiles that go on."""

from mutant import Mutant

INFLUENCE, MOA = "models/language/search/influence.py", "models/language/search/moa.py"


def _tests(name: str, words: str) -> tuple[str, ...]:
    return (f"models/language/test_{name}.py", "-k", words)


MUTANTS = [
    Mutant(
        "influence-without-what-is-left-of-the-row",
        "models",
        INFLUENCE,
        "effect = attention / (1 - attention) * (mean - gradient)",
        "effect = attention * (mean - gradient)",
        _tests("influence", "slope_towards or sum_to_zero"),
    ),
    Mutant(
        "influence-loses-its-digits-at-a-sharp-key",
        "models",
        INFLUENCE,
        "return effect.scatter(-1, top, torch.where(rest > 0,",
        "return effect if True else effect.scatter(-1, top, torch.where(rest > 0,",
        _tests("influence", "has_its_digits or all_of_a_row"),
    ),
    Mutant(
        "influence-of-the-rows-of-the-answer-itself",
        "models",
        INFLUENCE,
        'chosen = predicting(answer) if rows == "answer" else present.clone()',
        'chosen = answer.clone() if rows == "answer" else present.clone()',
        _tests("influence", "block_sums"),
    ),
    Mutant(
        "group-sums-before-absolute-values",
        "models",
        INFLUENCE,
        "effect = (effect if signed else effect.abs()).sum(0)",
        "effect = effect.sum(0) if signed else effect.sum(0).abs()",
        _tests("influence", "block_sums"),
    ),
    Mutant(
        "layers-with-windows-cost-nothing",
        "models",
        MOA,
        "budgets.append(math.floor(search.keep * sum(full_keys) + 1e-6) - fixed)",
        "budgets.append(math.floor(search.keep * sum(full_keys) + 1e-6))",
        _tests("moa", "window_of_their_own"),
    ),
    Mutant(
        "bounds-at-the-profiled-lengths-alone",
        "models",
        MOA,
        "return tuple(sorted({*self.lengths, *self.bounded, *unseen}))",
        "return tuple(sorted({*self.lengths, *unseen}))",
        _tests("moa", "holds_more_than_it_may"),
    ),
    Mutant(
        "the-worst-plan-of-the-front",
        "models",
        MOA,
        "place = int(np.argmin(measured))",
        "place = int(np.argmax(measured))",
        _tests("moa", "least_true_loss"),
    ),
    Mutant(
        "a-profile-goes-on-with-other-prompts",
        "models",
        "models/language/search/profile_store.py",
        'if count > len(prompts) or _digest("", prompts[:count]) != self.digests.get(length, ""):',
        "if count > len(prompts):",
        _tests("moa", "other_prompts"),
    ),
    Mutant(
        "a-ceiling-of-another-length-is-forgotten",
        "models",
        "models/language/search/rule_choice.py",
        "choice = least_loss(losses[last], sizes, budgets, ceilings, gap=gap)",
        "choice = least_loss(losses[last], sizes, budgets, gap=gap)",
        _tests("rule_choice", "front"),
    ),
]
