"""Bugs of the comparison of settings: which rows, which seeds, what is paired, what is the best."""

from mutant import Mutant

SEEDED = "pipelines/engine/experiments/seeded.py"
DIFFERENCES = "pipelines/engine/experiments/differences.py"
FINDINGS = "pipelines/engine/experiments/findings.py"
SETTINGS = "pipelines/engine/experiments/settings.py"


def _trained(name: str) -> tuple[str, ...]:
    return (f"pipelines/engine/test_compare_settings.py::{name}",)


def _found(name: str) -> tuple[str, ...]:
    return (f"pipelines/engine/test_compare_findings.py::{name}",)


NUMBERS = _trained("test_means_gains_and_intervals_are_those_of_the_rows")

MUTANTS = [
    Mutant(
        "compared-with-one-seed",
        "compare",
        SEEDED,
        "replace(job.setting.of(self.options), seed=job.seed)",
        "job.setting.of(self.options)",
        _trained("test_every_setting_is_trained_with_every_seed_on_the_parts_of_the_first_seed"),
    ),
    Mutant(
        "compared-on-other-rows",
        "compare",
        SEEDED,
        "!= self.rows:",
        "!= rows:",
        _trained("test_settings_that_are_scored_on_other_rows_are_refused"),
    ),
    Mutant(
        "compared-by-validation-rows",
        "compare",
        SEEDED,
        "rungs.scores(ladder.models, splits.test, context)",
        "rungs.scores(ladder.models, splits.validation, context)",
        _trained("test_the_best_options_train_to_the_same_scores"),
    ),
    Mutant(
        "best-by-test-part",
        "compare",
        DIFFERENCES,
        "sign * row.validation.mean()",
        "sign * row.test.mean()",
        _found("test_the_best_is_the_best_of_the_validation_part_whatever_the_test_part_says"),
    ),
    Mutant(
        "gain-turned",
        "compare",
        DIFFERENCES,
        "by_seed = sign * (test - of_reference)",
        "by_seed = -sign * (test - of_reference)",
        NUMBERS,
    ),
    Mutant(
        "one-seed-drawn",
        "compare",
        DIFFERENCES,
        "np.mean([done.test.draws[key[1]] for done in among], axis=0)",
        "among[0].test.draws[key[1]]",
        NUMBERS,
    ),
    Mutant(
        "certain-against-a-seed",
        "compare",
        FINDINGS,
        "if not (np.sign(row.by_seed) == np.sign(row.gain)).all():",
        "if not (np.sign(row.by_seed) == np.sign(row.gain)).any():",
        _found("test_a_difference_that_turns_with_the_seed_is_not_beyond_doubt"),
    ),
    Mutant(
        "split-of-another-seed-mixed",
        "compare",
        SETTINGS,
        '_FREE = FREE_ON_RESUME | {"accelerator", "data", "preset"}',
        '_FREE = FREE_ON_RESUME | {"accelerator", "data", "preset", "seed"}',
        _trained("test_other_options_and_another_split_need_another_folder"),
    ),
]
