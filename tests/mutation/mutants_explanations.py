"""Bugs in explanations of texts: parts that do not sum, words at the wrong place, pages that run
what a text holds, checks that check nothing.
"""

from mutant import Mutant

EXPLAIN = "pipelines/text/test_explain.py"
SUMS = "pipelines/text/explanation/sums.py"
WORDS = "pipelines/text/explanation/words.py"

MUTANTS = [
    Mutant(
        "explanation-without-calibration",
        "pipelines",
        SUMS,
        "scaled(parts, of_labels(self.factor, labels), of_labels(self.shift, labels))",
        "scaled(parts, of_labels(self.factor, labels) ** 0, of_labels(self.shift, labels))",
        (EXPLAIN, "-k", "sum_to_the_calibrated"),
    ),
    Mutant(
        "blend-without-its-simple-part",
        "models",
        "models/text/contributions.py",
        "scaled(text_contributions(model.simple, inputs, labels), second, 0 * shift)",
        "scaled(text_contributions(model.simple, inputs, labels), second, shift)",
        (EXPLAIN, "-k", "no_sum_is_said or sum_to_the_calibrated"),
    ),
    Mutant(
        "pair-goes-to-its-first-word",
        "pipelines",
        WORDS,
        "            for start, _ in occurrence:",
        "            for start, _ in occurrence[:1] * len(occurrence):",
        (EXPLAIN, "-k", "half_of_its_pairs"),
    ),
    Mutant(
        "token-goes-to-one-word",
        "pipelines",
        WORDS,
        'return np.arange(first, int(np.searchsorted(spans[:, 0], end, "left")))',
        'return np.arange(first, min(first + 1, int(np.searchsorted(spans[:, 0], end, "left"))))',
        (EXPLAIN, "-k", "words_that_they_cover"),
    ),
    Mutant(
        "page-runs-what-a-text-holds",
        "pipelines",
        "pipelines/text/explanation/pages.py",
        "        autoescape=True,",
        "        autoescape=False,",
        (EXPLAIN, "-k", "hostile"),
    ),
    Mutant(
        "check-deletes-random-words-twice",
        "pipelines",
        "pipelines/text/explanation/check.py",
        "        texts = [_without(explained, {keys[k] for k in top})]",
        "        some = generator.choice(len(keys), DELETED, replace=False).tolist()\n"
        "        texts = [_without(explained, {keys[k] for k in some})]",
        (EXPLAIN, "-k", "top_words_matter"),
    ),
]
