"""The task of whole-slide images: from slides, feature files or bags to a classified and explained
cohort, with ACMIL.
"""

from ..engine.command_line import comparison_verb, python_verb
from ..engine.compare_options import comparison_options
from ..engine.options import ExportOptions
from ..engine.task import Task, Verb
from ..engine.tune_options import tune_options
from .options import (
    CrossvalOptions,
    FeaturesOptions,
    WsiEvaluateOptions,
    WsiOptions,
    WsiPredictOptions,
    check,
)

TASK = Task(
    name="wsi",
    summary="classify whole-slide images or bags of instances",
    intended_use=(
        "Research on slides like those it was trained on: same stain, scanner and tissue. Not "
        "for diagnosis. Attention shows what the model weighed, not what causes a label."
    ),
    pipeline="headwise.pipelines.wsi.pipeline:WsiPipeline",
    options=WsiOptions,
    predict_options=WsiPredictOptions,
    evaluate_options=WsiEvaluateOptions,
    check=check,
    columns={
        "prediction": "Most probable class.",
        "p_CLASS": "Probability of the class.",
        "tiles": "Number of tiles (instances) of the slide.",
        "top_x": "Left edges of the most attended tiles, in pixels at level 0.",
        "top_y": "Top edges of the most attended tiles, in pixels at level 0.",
        "top_attention": "Attention of these tiles; that of all tiles sums to 1.",
    },
    verbs={
        "features": Verb(
            FeaturesOptions,
            "headwise.pipelines.wsi.verbs.features:features",
            "slides to feature files in the layout of CLAM",
        ),
        "crossval": Verb(
            CrossvalOptions,
            "headwise.pipelines.wsi.verbs.crossval:crossval",
            "repeated k-fold by patient, compared with simple models",
        ),
    },
    extra="wsi",
)

train = python_verb(TASK, "train", WsiOptions)
evaluate = python_verb(TASK, "evaluate", WsiEvaluateOptions)
predict = python_verb(TASK, "predict", WsiPredictOptions)
export = python_verb(TASK, "export", ExportOptions)
tune = python_verb(TASK, "tune", tune_options(WsiOptions))
compare = comparison_verb(TASK, comparison_options(WsiOptions))
features = python_verb(TASK, "features", FeaturesOptions)
crossval = python_verb(TASK, "crossval", CrossvalOptions)
