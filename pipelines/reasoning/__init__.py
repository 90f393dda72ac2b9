"""Reasoning: answer questions about scenes of coloured letters, in the form of gCOG."""

from ..engine.command_line import comparison_verb, python_verb
from ..engine.compare_options import comparison_options
from ..engine.options import ExportOptions
from ..engine.task import Task, Verb
from ..engine.tune_options import tune_options
from .options import (
    ExplainOptions,
    GenerateOptions,
    ReasoningEvaluateOptions,
    ReasoningOptions,
    ReasoningPredictOptions,
    check,
)

TASK = Task(
    name="reasoning",
    summary="answer questions about scenes of coloured letters, where each answer is known",
    intended_use=(
        "A bench for models and mechanisms: what they answer right on more objects, new pairs of "
        "words and deeper rules than they were trained on. The answers need no model: the rules "
        "give them."
    ),
    pipeline="headwise.pipelines.reasoning.pipeline:ReasoningPipeline",
    options=ReasoningOptions,
    predict_options=ReasoningPredictOptions,
    evaluate_options=ReasoningEvaluateOptions,
    check=check,
    columns={
        "row": "Number of the line in its file, counted from 0.",
        "id": "What the file calls the trial; the number of its line where it has no name.",
        "question": "The rule in words.",
        "prediction": "The answer that the model gives: true, false, a colour, a letter, or a cell "
        "such as 4,7 (row 4, column 7).",
        "probability": "Its probability.",
        "by_rule": "The answer that the rule gives.",
        "well_posed": "Whether the rule asks about one object at most each time.",
    },
    verbs={
        "generate": Verb(
            GenerateOptions,
            "headwise.pipelines.reasoning.verbs.generate:generate",
            "write trials to a file, as repaired or as published",
            standalone=True,
        ),
        "explain": Verb(
            ExplainOptions,
            "headwise.pipelines.reasoning.verbs.explain:explain",
            "how much of the attention is on the object that was asked for",
        ),
    },
)

train = python_verb(TASK, "train", ReasoningOptions)
evaluate = python_verb(TASK, "evaluate", ReasoningEvaluateOptions)
predict = python_verb(TASK, "predict", ReasoningPredictOptions)
export = python_verb(TASK, "export", ExportOptions)
tune = python_verb(TASK, "tune", tune_options(ReasoningOptions))
compare = comparison_verb(TASK, comparison_options(ReasoningOptions))
generate = python_verb(TASK, "generate", GenerateOptions)
explain = python_verb(TASK, "explain", ExplainOptions)
