"""Bugs of the search for options: what trials are scored on, which of them count, and the best."""

from mutant import Mutant

TRIALS = "pipelines/engine/experiments/trials.py"
TUNE = "pipelines/engine/experiments/tune.py"


def _test(name: str) -> tuple[str, ...]:
    return (f"pipelines/engine/test_tune.py::{name}",)


FOUND = _test("test_the_best_of_a_known_function_is_found")
RESUMED = _test("test_a_search_goes_on_and_ends_as_the_unbroken_one")

MUTANTS = [
    Mutant(
        "tuned-by-test-part",
        "tune",
        TRIALS,
        "validation=parts.validation",
        "validation=parts.test",
        FOUND,
    ),
    Mutant("worst-trial-chosen", "tune", TUNE, "best = min(finished", "best = max(finished", FOUND),
    Mutant(
        "no-trial-pruned",
        "tune",
        TRIALS,
        "self.trial.should_prune()",
        "False",
        _test("test_trials_that_are_worse_than_most_are_ended_early_and_marked"),
    ),
    Mutant(
        "trials-counted-anew",
        "tune",
        TUNE,
        "range(before, options.trials)",
        "range(options.trials)",
        RESUMED,
    ),
    Mutant(
        "draws-repeated",
        "tune",
        TRIALS,
        "mix(self.options.seed, number, 5)",
        "mix(self.options.seed, 5)",
        RESUMED,
    ),
    Mutant(
        "own-values-not-tried",
        "tune",
        TRIALS,
        "study.enqueue_trial(dict(defaults))",
        "pass",
        _test("test_the_values_of_the_task_are_the_first_trial"),
    ),
    Mutant(
        "doubts-of-trials-refused",
        "tune",
        TRIALS,
        "with opened(options.accept):",
        "with opened(()):",
        _test("test_doubts_that_are_accepted_are_accepted_in_every_trial"),
    ),
    Mutant(
        "killed-trial-lost",
        "tune",
        TRIALS,
        "study.enqueue_trial(dict(trial.params))",
        "pass",
        _test("test_a_trial_that_was_killed_is_done_again"),
    ),
]
