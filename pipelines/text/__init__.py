"""Text: label texts, with words that explain each label."""

from ..engine.command_line import comparison_verb, python_verb
from ..engine.compare_options import comparison_options
from ..engine.options import EvaluateOptions, ExportOptions
from ..engine.task import Task, Verb
from ..engine.tune_options import tune_options
from .options import ExplainOptions, TextOptions, TextPredictOptions, check
from .verb_options_topics import (
    TopicAgreementOptions,
    TopicEvaluateOptions,
    TopicFitOptions,
    TopicTaskOptions,
)

TASK = Task(
    name="text",
    summary="label texts, with words that explain each label",
    intended_use=(
        "Predictions hold for rows like those it was trained on: same columns, same units, same "
        "source."
    ),
    pipeline="headwise.pipelines.text.pipeline:TextPipeline",
    options=TextOptions,
    predict_options=TextPredictOptions,
    check=check,
    columns={
        "row": "Number of the row in its table, counted from 1.",
        "prediction": "Prediction of the target, in its units.",
    },
    verbs={
        "explain": Verb(
            ExplainOptions,
            "headwise.pipelines.text.verbs.explain:explain",
            "what each word adds to a label: pages with shaded words, and a check of them",
        ),
        "topics fit": Verb(
            TopicFitOptions,
            "headwise.pipelines.text.verbs.topics_fit:fit",
            "find the topics of texts: their words, and the topic of each text",
            standalone=True,
        ),
        "topics evaluate": Verb(
            TopicEvaluateOptions,
            "headwise.pipelines.text.verbs.topics_evaluate:evaluate",
            "score topics from any tool: coherence, diversity, machine raters",
            standalone=True,
        ),
        "topics tasks": Verb(
            TopicTaskOptions,
            "headwise.pipelines.text.verbs.topics_tasks:make_tasks",
            "sheets for human raters: word intrusion and topic word mixing",
            standalone=True,
        ),
        "topics agreement": Verb(
            TopicAgreementOptions,
            "headwise.pipelines.text.verbs.topics_agreement:agreement",
            "answers of human raters: alpha, kappa, d', bias, with intervals",
            standalone=True,
        ),
    },
)

train = python_verb(TASK, "train", TextOptions)
evaluate = python_verb(TASK, "evaluate", EvaluateOptions)
predict = python_verb(TASK, "predict", TextPredictOptions)
export = python_verb(TASK, "export", ExportOptions)
tune = python_verb(TASK, "tune", tune_options(TextOptions))
compare = comparison_verb(TASK, comparison_options(TextOptions))
explain = python_verb(TASK, "explain", ExplainOptions)
topics_fit = python_verb(TASK, "topics fit", TopicFitOptions)
topics_evaluate = python_verb(TASK, "topics evaluate", TopicEvaluateOptions)
topics_tasks = python_verb(TASK, "topics tasks", TopicTaskOptions)
topics_agreement = python_verb(TASK, "topics agreement", TopicAgreementOptions)
