"""Recordings: classify them by emotion, speaker, word or any other label."""

from ..engine.command_line import comparison_verb, python_verb
from ..engine.compare_options import comparison_options
from ..engine.options import ExportOptions
from ..engine.task import Task, Verb
from ..engine.tune_options import tune_options
from .options import (
    CrossvalOptions,
    ExplainOptions,
    RecordingsEvaluateOptions,
    RecordingsOptions,
    RecordingsPredictOptions,
    check,
)

TASK = Task(
    name="recordings",
    summary="classify recordings: emotion, speaker, word, ...",
    intended_use=(
        "Labels hold for recordings like those it was trained on: same language, same microphones, "
        "played or spontaneous as they were. What a voice sounds like is not what a person feels; "
        "not for decisions about people."
    ),
    pipeline="headwise.pipelines.recordings.pipeline:RecordingsPipeline",
    options=RecordingsOptions,
    predict_options=RecordingsPredictOptions,
    evaluate_options=RecordingsEvaluateOptions,
    check=check,
    columns={
        "prediction": "Most probable class.",
        "p_CLASS": "Calibrated probability of the class.",
        "seconds": "Length of the recording.",
        "speaker": "Speaker, where the input tells it; null: unknown.",
        "remarks": "What may be wrong with it (clipped, cut to --seconds); null: nothing.",
    },
    verbs={
        "crossval": Verb(
            CrossvalOptions,
            "headwise.pipelines.recordings.verbs.crossval:crossval",
            "leave one speaker out: heads and simple models, with paired tests",
        ),
        "explain": Verb(
            ExplainOptions,
            "headwise.pipelines.recordings.verbs.explain:explain",
            "how much each layer or frame weighs, checked by deletion",
        ),
    },
    extra="speech",
)

train = python_verb(TASK, "train", RecordingsOptions)
evaluate = python_verb(TASK, "evaluate", RecordingsEvaluateOptions)
predict = python_verb(TASK, "predict", RecordingsPredictOptions)
export = python_verb(TASK, "export", ExportOptions)
tune = python_verb(TASK, "tune", tune_options(RecordingsOptions))
compare = comparison_verb(TASK, comparison_options(RecordingsOptions))
crossval = python_verb(TASK, "crossval", CrossvalOptions)
explain = python_verb(TASK, "explain", ExplainOptions)
