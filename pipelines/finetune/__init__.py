"""Finetune: teach a language model to answer, and see what it forgets."""

from ..engine.command_line import comparison_verb, python_verb
from ..engine.compare_options import comparison_options
from ..engine.task import Task, Verb
from ..engine.tune_options import tune_options
from .options import (
    FinetuneEvaluateOptions,
    FinetuneExportOptions,
    FinetuneOptions,
    FinetunePredictOptions,
    ImportanceOptions,
    SearchOptions,
    check,
)

TASK = Task(
    name="finetune",
    summary="teach a language model to answer, and see what it forgets",
    intended_use=(
        "Answers to prompts like those it was tuned on. A language model may state what is false; "
        "let a person read answers that matter."
    ),
    pipeline="headwise.pipelines.finetune.pipeline:FinetunePipeline",
    options=FinetuneOptions,
    predict_options=FinetunePredictOptions,
    evaluate_options=FinetuneEvaluateOptions,
    check=check,
    extra="language",
    columns={
        "row": "Number of the prompt in its file, counted from 0.",
        "id": "What the table calls the prompt; its row where there is no column.",
        "prompt": "The prompt, the last message of a dialogue.",
        "answer": "What the model answers.",
        "expected": "The answer that the table holds; null where it holds none.",
        "tokens": "Tokens of the answer.",
        "finished": "Whether the model ended the answer by itself, within --new-tokens.",
        "log_probability": "Mean log-probability of a token of the answer.",
    },
    verbs={
        "export": Verb(
            FinetuneExportOptions,
            "headwise.pipelines.finetune.verbs.export:export",
            "write a folder that transformers loads, or one program (.pt2, .onnx)",
        ),
        "search": Verb(
            SearchOptions,
            "headwise.pipelines.finetune.verbs.search:search",
            "try which layers and modules to tune: gained on the task, lost elsewhere",
        ),
        "importance": Verb(
            ImportanceOptions,
            "headwise.pipelines.finetune.verbs.importance:importance",
            "importance of hidden units, with a signal and as published",
            standalone=True,
        ),
    },
)

train = python_verb(TASK, "train", FinetuneOptions)
evaluate = python_verb(TASK, "evaluate", FinetuneEvaluateOptions)
predict = python_verb(TASK, "predict", FinetunePredictOptions)
export = python_verb(TASK, "export", FinetuneExportOptions)
tune = python_verb(TASK, "tune", tune_options(FinetuneOptions))
compare = comparison_verb(TASK, comparison_options(FinetuneOptions))
search = python_verb(TASK, "search", SearchOptions)
importance = python_verb(TASK, "importance", ImportanceOptions)
