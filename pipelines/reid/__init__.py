"""Re-identification and fine-grained recognition with DCAL: train, embed, search, explain."""

from ..engine.command_line import python_verb
from ..engine.options import ExportOptions
from ..engine.task import Task, Verb
from ..engine.tune_options import tune_options
from .option_rules import check
from .options import (
    CompareOptions,
    CropOptions,
    ReidEvaluateOptions,
    ReidOptions,
    ReidPredictOptions,
    SearchOptions,
)

TASK = Task(
    name="reid",
    summary="find an identity in a gallery, or name a fine-grained class",
    intended_use=(
        "Search and recognition in pictures like those it was trained on. Scores say how similar "
        "two pictures are to the model, not that they show the same person; do not make decisions "
        "about people by them. Results are much worse with other cameras."
    ),
    pipeline="headwise.pipelines.reid.pipeline:ReidPipeline",
    options=ReidOptions,
    predict_options=ReidPredictOptions,
    evaluate_options=ReidEvaluateOptions,
    check=check,
    columns={
        "prediction": "Most probable class; only for runs that name classes.",
        "probability": "Probability of that class.",
        "vector": "Embedding of the picture, of length 1; similar pictures have similar vectors.",
        "vector_ATTRIBUTE": "Embedding under a condition, for runs with attributes.",
        "model": "Fingerprint of the model; vectors of two models cannot be compared.",
    },
    verbs={
        "embed": Verb(
            ReidPredictOptions,
            "headwise.pipelines.reid.prediction:embed",
            "pictures to a parquet of vectors",
        ),
        "search": Verb(
            SearchOptions,
            "headwise.pipelines.reid.verbs.search:search",
            "query pictures to ranked lists",
        ),
        "crop": Verb(
            CropOptions,
            "headwise.pipelines.reid.verbs.crop:crop",
            "frames or video to crops of people",
            standalone=True,
        ),
        "compare": Verb(
            CompareOptions,
            "headwise.pipelines.reid.verbs.compare:compare",
            "DCAL compared with the plain transformer, by seeds; or settings (--vary)",
        ),
    },
    extra="reid",
)

train = python_verb(TASK, "train", ReidOptions)
evaluate = python_verb(TASK, "evaluate", ReidEvaluateOptions)
predict = python_verb(TASK, "predict", ReidPredictOptions)
export = python_verb(TASK, "export", ExportOptions)
tune = python_verb(TASK, "tune", tune_options(ReidOptions))
embed = python_verb(TASK, "embed", ReidPredictOptions)
search = python_verb(TASK, "search", SearchOptions)
crop = python_verb(TASK, "crop", CropOptions)
compare = python_verb(TASK, "compare", CompareOptions)
