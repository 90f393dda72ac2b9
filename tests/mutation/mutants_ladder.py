"""Bugs of the ladder: what is chosen by what, and whether it is what predicts."""

from mutant import Mutant

CHOICE = ("pipelines/engine/test_ladder.py",)
FORECAST = ("pipelines/forecast/test_ladder.py",)
RANKING = ("pipelines/ranking/test_ladder.py",)
CLASSES = ("pipelines/engine/test_class_ladder.py",)
CLICKS = ("models/clicks/test_click.py", "models/clicks/test_simple.py")
MAPS = "pipelines/saliency/test_ladder.py"
EARLY = (
    "contract/test_rows_and_numbers.py::test_no_row_of_the_test_part_is_read_before_the_final_review",
    "-k",
    "forecast",
)
FILES = "pipelines/engine/runs/ladder_files.py"
LADDER = "pipelines/engine/ladder.py"
CHOOSING = "pipelines/engine/choice.py"

MUTANTS = [
    Mutant(
        "chosen-by-test",
        "ladder",
        FILES,
        "of_task.scores(models, splits.validation, context)",
        "of_task.scores(models, splits.test, context)",
        EARLY,
    ),
    Mutant(
        "model-predicts-anyway",
        "ladder",
        "pipelines/engine/training/jobs.py",
        "model = ladder.predictor",
        "pass",
        FORECAST,
    ),
    Mutant(
        "opened-as-model",
        "ladder",
        "pipelines/engine/runs/loaded.py",
        "predictor = model if ladder is None else ladder.predictor",
        "predictor = model",
        FORECAST,
    ),
    Mutant(
        "damage-unseen",
        "ladder",
        FILES,
        'checksum(file) != stored["sha256"].get(name)',
        "False",
        FORECAST,
    ),
    Mutant(
        "gain-by-chance",
        "ladder",
        CHOOSING,
        "(interval is None or interval[0] > 0)",
        "True",
        CHOICE,
    ),
    Mutant(
        "few-blocks-trusted", "ladder", LADDER, "if self.blocks < LEAST_BLOCKS or", "if", CHOICE
    ),
    Mutant(
        "worse-is-better",
        "ladder",
        LADDER,
        "return difference if self.larger_is_better else -difference",
        "return difference",
        CHOICE,
    ),
    Mutant("not-the-simplest", "ladder", CHOOSING, "<= TIE * reach", "<= 0", CHOICE),
    Mutant(
        "rates-of-own-label",
        "ladder",
        "pipelines/ranking/trees.py",
        "if f != held_out]",
        "]",
        RANKING,
    ),
    Mutant(
        "blend-of-one",
        "ladder",
        "pipelines/forecast/rungs.py",
        "((best + doubt / 2) / (1 + doubt))",
        "(best)",
        FORECAST,
    ),
    Mutant(
        "patients-drawn-apart",
        "ladder",
        LADDER,
        "draw_weights(groups, draws, seed=0)",
        "draw_weights(groups if isinstance(groups, int) else len(groups), draws, seed=0)",
        CLASSES,
    ),
    Mutant(
        "knots-of-other-fields",
        "ladder",
        "models/clicks/click.py",
        "if ordered and buckets > KNOTS:",
        "if buckets > KNOTS:",
        CLICKS,
    ),
    Mutant(
        "ladder-unseen",
        "ladder",
        "pipelines/engine/inference/plan.py",
        'run.path / "calibration.safetensors", run.path / LADDER_FACTS):',
        'run.path / "calibration.safetensors"):',
        ("pipelines/engine/test_batch_inference.py",),
    ),
    Mutant(
        "proven-by-nothing",
        "ladder",
        "pipelines/wsi/rungs.py",
        "return interval is not None and interval[0] > 0",
        "return interval is not None and interval[1] > 0",
        ("pipelines/wsi/test_rungs.py",),
    ),
    Mutant(
        "proven-model",
        "ladder",
        CHOOSING,
        'of_proven = ("simple", "blend") if proven else ()',
        "of_proven = present if proven else ()",
        CHOICE,
    ),
    Mutant(
        "ladder-clock",
        "ladder",
        "pipelines/engine/runs/ladder_files.py",
        "why=why, metric=scores.metric, rungs=facts)",
        'why=f"{why}, in {fitted - started:.6f} s", metric=scores.metric, rungs=facts)',
        ("contract/test_tasks.py",),
    ),
    Mutant(
        "pixel-beside",
        "ladder",
        "models/vision/saliency_rungs.py",
        "x = (places % width + 0.5) / width * 2 - 1",
        "x = (places % width) / width * 2 - 1",
        (MAPS, "-k", "readout_of_what_is_sampled"),
    ),
    Mutant(
        "threshold-of-each-scene",
        "ladder",
        "pipelines/saliency/rungs.py",
        "return (weights @ curves).max(1) / weights.sum(1)",
        "return weights @ curves.max(1) / weights.sum(1)",
        (MAPS, "-k", "by_max_f"),
    ),
    Mutant(
        "no-part-no-model",
        "ladder",
        CHOOSING,
        'if not scores.blocks and "blend" in present:',
        "if False:",
        (MAPS, "-k", "equal_shares"),
    ),
    Mutant(
        "nothing-prepared",
        "ladder",
        "pipelines/engine/training/jobs.py",
        "rungs.prepare(splits, data)",
        "pass",
        (MAPS, "-k", "account_of_a_training"),
    ),
    Mutant(
        "named-by-anyone",
        "ladder",
        "pipelines/metrics/open_set.py",
        "self.right[known] & (self.match[known] >= threshold)",
        "self.match[known] >= threshold",
        ("pipelines/metrics/test_open_set.py", "pipelines/reid/test_answers.py"),
    ),
    Mutant(
        "nobody-is-somebody",
        "ladder",
        "pipelines/reid/answers.py",
        "name if best >= answering.threshold else NOBODY",
        "name if best <= answering.threshold or best > 0 else NOBODY",
        ("pipelines/reid/test_answers.py",),
    ),
    Mutant(
        "finds-itself",
        "ladder",
        "pipelines/reid/answers.py",
        "counted &= query[:, None] != gallery",
        "counted &= True",
        ("pipelines/reid/test_answers.py",),
    ),
    Mutant(
        "centre-lost-in-a-blend",
        "ladder",
        "models/vision/dcal.py",
        "for head in HEADS) if of_this else ():",
        "for head in HEADS):",
        ("models/vision/test_dcal.py", "-k", "Centres"),
    ),
    Mutant(
        "surer-by-few-rows",
        "ladder",
        "pipelines/ranking/scoring.py",
        "slope**certainty, shift * certainty)",
        "slope, shift)",
        RANKING,
    ),
    Mutant(
        "shift-of-the-other-label",
        "ladder",
        "models/clicks/click.py",
        "last.bias.mul_(slope).add_(shift)",
        "last.bias.mul_(slope).sub_(shift)",
        RANKING,
    ),
    Mutant(
        "old-events-count-more",
        "ladder",
        "models/clicks/simple.py",
        "weight = torch.exp(-ages.to(table.weight.dtype) / RECENT)[:, None]",
        "weight = torch.exp(ages.to(table.weight.dtype) / RECENT)[:, None]",
        CLICKS,
    ),
]
