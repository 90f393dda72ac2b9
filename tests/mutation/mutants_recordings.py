"""Bugs in the classification of recordings: voices in two parts, patterns that take too much,
padding that counts, deletions that keep what they should delete.
"""

from mutant import Mutant

LABELLED = ("data/speech/test_labelled.py",)
MFCC = ("data/speech/test_mfcc.py",)
CLASSIFIER = ("models/speech/test_classifier.py",)
GAUSSIAN = ("models/attention/test_gaussian.py",)
RECORDINGS = ("pipelines/recordings/test_recordings.py", "-k", "is_in_one_part")
DELETION = ("pipelines/recordings/test_deletion.py",)

MUTANTS = [
    Mutant(
        "recordings-pattern-greedy-folders",
        "data",
        "data/speech/labelled.py",
        'match = self.expression.fullmatch("/".join(stem.split("/")[-depth:]))',
        'match = self.expression.match("/".join(stem.split("/")[-depth:]))',
        LABELLED,
    ),
    Mutant(
        "recordings-changes-one-side",
        "data",
        "data/speech/mfcc.py",
        "2 * sum(n * n for n in range(1, reach + 1))",
        "2 * sum(n for n in range(1, reach + 1))",
        MFCC,
    ),
    Mutant(
        "recordings-density-without-offset-height",
        "models",
        "models/attention/gaussian.py",
        "weights = (logits + self._peak(deviation)).exp()",
        "weights = logits.exp()",
        GAUSSIAN,
    ),
    Mutant(
        "recordings-padding-pooled",
        "models",
        "models/speech/classifier.py",
        "return self.dropout(masked_mean(self.norm(x), mask))",
        "return self.dropout(self.norm(x).mean(1))",
        CLASSIFIER,
    ),
    Mutant(
        "recordings-speakers-split",
        "pipelines",
        "pipelines/recordings/data.py",
        "self.utterances, [u.group or u.speaker for u",
        "self.utterances, [u.group for u",
        RECORDINGS,
    ),
    Mutant(
        "recordings-deletes-the-lowest",
        "pipelines",
        "pipelines/recordings/deletion.py",
        "truth(mask & (rank >= deleted[:, None]))",
        "truth(mask & (rank < deleted[:, None]))",
        DELETION,
    ),
    Mutant(
        "recordings-paired-sides",
        "pipelines",
        "pipelines/metrics/classification.py",
        "second_alone = int((second_right & ~first_right).sum())",
        "second_alone = int(second_right.sum())",
        ("pipelines/metrics/test_paired.py",),
    ),
]
