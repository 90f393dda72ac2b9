"""Ranking: click models of several tasks, from an event log to scored tables and lists."""

from ..engine.command_line import python_verb
from ..engine.options import EvaluateOptions, ExportOptions
from ..engine.task import Task, Verb
from ..engine.tune_options import tune_options
from .options import (
    CompareOptions,
    RankingOptions,
    RankingPredictOptions,
    SchemaOptions,
    TopOptions,
    check,
)

TASK = Task(
    name="ranking",
    summary="predict clicks and what follows them, for ads, videos, products",
    intended_use=(
        "Ordering items for the users of the log that it was trained on. Probabilities hold "
        "while people and items behave as in that log; users and items that it has not seen are"
        " scored by their other columns alone."
    ),
    pipeline="headwise.pipelines.ranking.pipeline:RankingPipeline",
    options=RankingOptions,
    predict_options=RankingPredictOptions,
    check=check,
    columns={
        "row": "Number of the row in its file, counted from 0.",
        "part": "Part that the row was in when the run was trained: train, validation, test; null "
        "for a row that is new.",
        "user_id": "User of the row.",
        "item_id": "Item of the row.",
        "p_TASK": "Probability that the task's label is 1 (a click, a like, ...).",
        "seen_user": "Whether the training part has the user.",
        "seen_item": "Whether the training part has the item.",
        "unseen": "How many fields hold a value that the training part does not have.",
        "unread": "How many cells should be numbers and are not; they count as missing.",
    },
    verbs={
        "top": Verb(
            TopOptions, "headwise.pipelines.ranking.verbs.top:top", "the best items for each user"
        ),
        "compare": Verb(
            CompareOptions,
            "headwise.pipelines.ranking.verbs.compare:compare",
            "several models and seeds on one log; or settings (--vary)",
        ),
        "schema": Verb(
            SchemaOptions,
            "headwise.pipelines.ranking.verbs.schema:draft",
            "draft a schema from a log's columns",
            standalone=True,
        ),
    },
)

train = python_verb(TASK, "train", RankingOptions)
evaluate = python_verb(TASK, "evaluate", EvaluateOptions)
predict = python_verb(TASK, "predict", RankingPredictOptions)
export = python_verb(TASK, "export", ExportOptions)
tune = python_verb(TASK, "tune", tune_options(RankingOptions))
top = python_verb(TASK, "top", TopOptions)
compare = python_verb(TASK, "compare", CompareOptions)
schema = python_verb(TASK, "schema", SchemaOptions)
