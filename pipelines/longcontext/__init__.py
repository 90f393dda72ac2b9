"""Long contexts: language models that keep only what each head of attention needs."""

from ..engine.command_line import comparison_verb, python_verb
from ..engine.compare_options import comparison_options
from ..engine.options import ExportOptions
from ..engine.task import Task, Verb
from ..engine.tune_options import tune_options
from .options import (
    CompressOptions,
    LongContextEvaluateOptions,
    LongContextOptions,
    LongContextPredictOptions,
    check,
)
from .verbs.options_attention import HeadsOptions, SinksOptions

TASK = Task(
    name="longcontext",
    summary="long contexts of a language model with a smaller cache: a plan for each head",
    intended_use=(
        "A plan holds for the model that it was made for, for texts like those it was fitted on, "
        "and up to the length that it was checked at. It says nothing of whether answers are true."
    ),
    pipeline="headwise.pipelines.longcontext.pipeline:LongContextPipeline",
    options=LongContextOptions,
    predict_options=LongContextPredictOptions,
    evaluate_options=LongContextEvaluateOptions,
    check=check,
    extra="language",
    columns={
        "row": "Number of the prompt in its file, counted from 0.",
        "id": "What the table calls the prompt; its number or its file where there is no column.",
        "answer": "What the model wrote after the prompt.",
        "answer2": "What it wrote after the second question; null where there is none.",
        "tokens": "Tokens of the prompt.",
        "new_tokens": "Tokens of the answers.",
        "kept": "Share of the full cache's bytes that the plan kept at the end, 0 to 1.",
        "bytes": "Bytes of the cache at the end, of this prompt alone.",
    },
    verbs={
        "compress": Verb(
            CompressOptions,
            "headwise.pipelines.longcontext.verbs.compress:compress",
            "read a context once and store its cut cache, on which predict asks many questions",
        ),
        "heads": Verb(
            HeadsOptions,
            "headwise.pipelines.longcontext.verbs.heads:heads",
            "which heads fetch what a prompt asks for: scores, a picture, what cutting them costs",
        ),
        "sinks": Verb(
            SinksOptions,
            "headwise.pipelines.longcontext.verbs.sinks:sinks",
            "which tokens draw attention without saying anything, and what writes them",
        ),
    },
)

train = python_verb(TASK, "train", LongContextOptions)
evaluate = python_verb(TASK, "evaluate", LongContextEvaluateOptions)
predict = python_verb(TASK, "predict", LongContextPredictOptions)
export = python_verb(TASK, "export", ExportOptions)
tune = python_verb(TASK, "tune", tune_options(LongContextOptions))
compare = comparison_verb(TASK, comparison_options(LongContextOptions))
compress = python_verb(TASK, "compress", CompressOptions)
heads = python_verb(TASK, "heads", HeadsOptions)
sinks = python_verb(TASK, "sinks", SinksOptions)
