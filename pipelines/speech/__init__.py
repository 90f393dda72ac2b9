"""Speech to text: transcripts and word times."""

from ..engine.command_line import python_verb
from ..engine.options import EvaluateOptions, ExportOptions
from ..engine.task import Task, Verb
from ..engine.tune_options import tune_options
from .options import (
    AdoptOptions,
    CompareOptions,
    DigitsOptions,
    ExplainOptions,
    SpeechOptions,
    SpeechPredictOptions,
    check,
)

TASK = Task(
    name="speech",
    summary="transcribe recordings, with the times of words",
    intended_use=(
        "Transcripts of recordings like those it was trained on. Word times are read from "
        "cross-attention, which shows only a part of what the model used. Not for evidence "
        "against anyone."
    ),
    pipeline="headwise.pipelines.speech.pipeline:SpeechPipeline",
    options=SpeechOptions,
    predict_options=SpeechPredictOptions,
    check=check,
    columns={
        "text": "Transcript.",
        "seconds": "Length of the recording.",
        "words": "Words with start and end in seconds and confidence in [0, 1].",
        "log_probability": "Mean log-probability of a token.",
        "no_speech": "Largest probability that nobody speaks in a window.",
        "channel": "Channel, from 1, with --channels each; null: all, mixed.",
        "remarks": "What may be wrong with the text or the sound; null: nothing.",
    },
    verbs={
        "adopt": Verb(
            AdoptOptions,
            "headwise.pipelines.speech.verbs.adopt:adopt",
            "a run of Whisper's weights, untrained",
        ),
        "digits": Verb(
            DigitsOptions,
            "headwise.pipelines.speech.verbs.digits:digits",
            "strings of recorded digits, exactly timed",
            standalone=True,
        ),
        "explain": Verb(
            ExplainOptions,
            "headwise.pipelines.speech.verbs.explain:explain",
            "what the model used for each token",
        ),
        "compare": Verb(
            CompareOptions,
            "headwise.pipelines.speech.verbs.compare:compare",
            "cross-attention compared with saliency; or settings (--vary)",
        ),
    },
    extra="speech",
)

train = python_verb(TASK, "train", SpeechOptions)
evaluate = python_verb(TASK, "evaluate", EvaluateOptions)
predict = python_verb(TASK, "predict", SpeechPredictOptions)
export = python_verb(TASK, "export", ExportOptions)
tune = python_verb(TASK, "tune", tune_options(SpeechOptions))
adopt = python_verb(TASK, "adopt", AdoptOptions)
digits = python_verb(TASK, "digits", DigitsOptions)
explain = python_verb(TASK, "explain", ExplainOptions)
compare = python_verb(TASK, "compare", CompareOptions)
