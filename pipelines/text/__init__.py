"""Text: label texts, with words that explain each label."""

from ..engine.command_line import comparison_verb, python_verb
from ..engine.compare_options import comparison_options
from ..engine.options import ExportOptions
from ..engine.task import Task, Verb
from ..engine.tune_options import tune_options
from .options import ExplainOptions, TextEvaluateOptions, TextOptions, TextPredictOptions, check
from .verbs.options_judge import JudgeOptions, SummariseOptions
from .verbs.options_topics import (
    TopicAgreementOptions,
    TopicEvaluateOptions,
    TopicFitOptions,
    TopicTaskOptions,
)

TASK = Task(
    name="text",
    summary="label texts, with words that explain each label",
    intended_use=(
        "Labels hold for texts like those it was trained on: same languages, same sources, labels "
        "by the same rules. A label that people often forgot, the model gives too seldom as well."
    ),
    pipeline="headwise.pipelines.text.pipeline:TextPipeline",
    options=TextOptions,
    predict_options=TextPredictOptions,
    evaluate_options=TextEvaluateOptions,
    check=check,
    extra="text",
    columns={
        "row": "Number of the text in its file, counted from 0.",
        "id": "What the table calls the text; its line or its file where there is no column.",
        "labels": "Labels whose probability reaches their threshold, the most probable first.",
        "above": "Labels above the given ones, such as hardware of hardware::printer.",
        "prediction": "The most probable class, null where it is below --abstain; or the number.",
        "probability": "Probability of the most probable class.",
        "low": "Lower end of the interval of a number; null where validation was too small.",
        "high": "Upper end of the interval.",
        "top": "The most probable labels, as many as --top.",
        "top_probability": "Their probabilities.",
        "possible": "Labels that cannot be excluded: they hold --coverage of the true ones.",
        "known_words": "Share of the words that the model knows, 0 to 1.",
        "p_LABEL": "Probability of the label (--all-labels).",
    },
    verbs={
        "explain": Verb(
            ExplainOptions,
            "headwise.pipelines.text.verbs.explain:explain",
            "what each word adds to a label: pages with shaded words, and a check of them",
        ),
        "judge": Verb(
            JudgeOptions,
            "headwise.pipelines.text.verbs.judge:judge",
            "biases of judges that compare two answers",
        ),
        "summarise": Verb(
            SummariseOptions,
            "headwise.pipelines.text.verbs.summarise:summarise",
            "the sentences of several articles that hold most of what they say",
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
evaluate = python_verb(TASK, "evaluate", TextEvaluateOptions)
predict = python_verb(TASK, "predict", TextPredictOptions)
export = python_verb(TASK, "export", ExportOptions)
tune = python_verb(TASK, "tune", tune_options(TextOptions))
compare = comparison_verb(TASK, comparison_options(TextOptions))
explain = python_verb(TASK, "explain", ExplainOptions)
judge = python_verb(TASK, "judge", JudgeOptions)
summarise = python_verb(TASK, "summarise", SummariseOptions)
topics_fit = python_verb(TASK, "topics fit", TopicFitOptions)
topics_evaluate = python_verb(TASK, "topics evaluate", TopicEvaluateOptions)
topics_tasks = python_verb(TASK, "topics tasks", TopicTaskOptions)
topics_agreement = python_verb(TASK, "topics agreement", TopicAgreementOptions)
