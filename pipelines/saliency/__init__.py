"""The task of RGB-D salient object detection with GL-DMNet."""

from ..engine.command_line import comparison_verb, python_verb
from ..engine.compare_options import comparison_options
from ..engine.options import ExportOptions
from ..engine.task import Task, Verb
from ..engine.tune_options import tune_options
from .options import (
    CrossvalOptions,
    SaliencyEvaluateOptions,
    SaliencyOptions,
    SaliencyPredictOptions,
    check,
)

TASK = Task(
    name="saliency",
    summary="find what is salient in pictures with depth",
    intended_use=(
        "Maps of what draws the eye, as the people who drew the masks of the training data saw "
        "it. Depth must be of the kind it was trained on, near and far the same way round."
    ),
    pipeline="headwise.pipelines.saliency.pipeline:SaliencyPipeline",
    options=SaliencyOptions,
    predict_options=SaliencyPredictOptions,
    evaluate_options=SaliencyEvaluateOptions,
    check=check,
    columns={
        "height": "Height of the picture and of its map, in pixels.",
        "width": "Width of the picture and of its map, in pixels.",
        "depth": "Whether the picture has a depth map.",
        "salient": "Share of the picture that is salient, at --threshold.",
        "box": "Left, top, right and bottom of what is salient, in pixels; null if nothing is.",
    },
    verbs={
        "crossval": Verb(
            CrossvalOptions,
            "headwise.pipelines.saliency.verbs.crossval:crossval",
            "leave out one group of scenes at a time",
        )
    },
    extra="saliency",
)

train = python_verb(TASK, "train", SaliencyOptions)
evaluate = python_verb(TASK, "evaluate", SaliencyEvaluateOptions)
predict = python_verb(TASK, "predict", SaliencyPredictOptions)
export = python_verb(TASK, "export", ExportOptions)
tune = python_verb(TASK, "tune", tune_options(SaliencyOptions))
compare = comparison_verb(TASK, comparison_options(SaliencyOptions))
crossval = python_verb(TASK, "crossval", CrossvalOptions)
