"""Bugs of the metrics of several labels, of their thresholds, calibrations, sets and losses."""

from mutant import Mutant

LABELS = "pipelines/metrics/labels"

MUTANTS = [
    Mutant(
        "map-beside-its-interval",
        "pipelines",
        f"{LABELS}/ranking.py",
        'centred=("map",),',
        "",
        (f"{LABELS}/test_label_ranking.py", "-k", "about_their_score"),
    ),
    Mutant(
        "centred-on-the-middle-draw",
        "pipelines",
        "pipelines/metrics/bootstrap.py",
        "score - np.nanmean(values)",
        "score - np.nanmedian(values)",
        ("pipelines/metrics/test_bootstrap.py", "-k", "moved_to_the_score"),
    ),
    Mutant(
        "ties-in-order-of-columns",
        "pipelines",
        f"{LABELS}/ranking.py",
        "    begin, after = _tied(np.take_along_axis(score, order, 1))",
        "    begin = np.cumsum(np.ones(score.shape, int), 1) - 1\n    after = begin + 1",
        (f"{LABELS}/test_label_ranking.py", "-k", "over_their_orders"),
    ),
    Mutant(
        "midway-to-a-text-not-drawn",
        "pipelines",
        f"{LABELS}/thresholds.py",
        "weighs = np.diff(self.called, axis=1, prepend=0) > 0",
        "weighs = np.diff(self.called, axis=1, prepend=0) >= 0",
        (f"{LABELS}/test_label_thresholds.py", "-k", "one_draw"),
    ),
    Mutant(
        "micro-f1-may-fall",
        "pipelines",
        f"{LABELS}/thresholds.py",
        "max((row for row in tried if row[2] >= least), key=lambda row: row[3])",
        "max(tried, key=lambda row: row[3] + 0 * least)",
        (f"{LABELS}/test_label_thresholds.py", "-k", "keeps_micro"),
    ),
    Mutant(
        "ancestors-one-level-up",
        "pipelines",
        f"{LABELS}/decisions.py",
        'np.argsort(-_depths(parents), kind="stable")',
        'np.argsort(_depths(parents), kind="stable")',
        (f"{LABELS}/test_label_decisions.py", "-k", "ancestors"),
    ),
    Mutant(
        "slopes-below-zero",
        "pipelines",
        f"{LABELS}/calibration.py",
        "        trial[0] = trial[0].clip(LEAST_SLOPE)\n",
        "",
        (f"{LABELS}/test_label_calibration.py", "-k", "other_way_round"),
    ),
    Mutant(
        "risk-without-the-text-to-come",
        "pipelines",
        f"{LABELS}/sets.py",
        "allowed = share * (groups + 1) - 1 + TOLERANCE",
        "allowed = share * groups + TOLERANCE",
        (f"{LABELS}/test_label_sets.py", "-k", "keeps_the_bound or split_conformal"),
    ),
    Mutant(
        "margin-before-the-logarithm-only",
        "models",
        "models/layers/label_losses.py",
        "torch.log1p(-shifted) * shifted**gamma_negative",
        "torch.log1p(-shifted) * torch.sigmoid(logits) ** gamma_negative",
        ("models/layers/test_label_losses.py", "-k", "asymmetric_loss"),
    ),
    Mutant(
        "experts-that-all-prefer-alike",
        "models",
        "models/moe/diverse.py",
        "return weight[:, None, None] * counts.log()",
        "return weight.mean() * counts.log().expand(len(weight), 1, -1)",
        ("models/layers/test_class_loss.py", "-k", "formula"),
    ),
    Mutant(
        "the-first-expert-answers-alone",
        "models",
        "models/moe/diverse.py",
        "return logits if training else logits.mean(0)",
        "return logits if training else logits[0]",
        ("models/layers/test_class_loss.py", "-k", "mean_of_the_experts"),
    ),
]
