"""Chest X-rays with MEDUSA-style attention: train, evaluate, predict, and an audit for shortcuts.
Research software, not for clinical use."""

from ..engine.command_line import python_verb
from ..engine.options import ExportOptions
from ..engine.task import Task, Verb
from ..engine.tune_options import tune_options
from .option_rules import check
from .options import (
    BodyOptions,
    CompareOptions,
    MedicalEvaluateOptions,
    MedicalOptions,
    MedicalPredictOptions,
)

TASK = Task(
    name="medical",
    summary="classify chest X-rays, and find what else the label can be read from",
    intended_use=(
        "Research only, not for clinical use. Probabilities hold for pictures like those it was "
        "trained on: same hospitals, machines, views and patients. Attention shows where the "
        "model looked, not what causes a label; read what the audit says before any score."
    ),
    pipeline="headwise.pipelines.medical.pipeline:MedicalPipeline",
    options=MedicalOptions,
    predict_options=MedicalPredictOptions,
    evaluate_options=MedicalEvaluateOptions,
    check=check,
    columns={
        "prediction": "Positive class at its operating point, else the likeliest of the others; "
        "of several findings (train --findings) those at their operating points, joined by |, or "
        "none.",
        "p_CLASS": "Calibrated probability of the class.",
        "positive": "Whether the probability of the positive class reaches the operating point.",
        "probability_FINDING": "Calibrated probability of the finding, in place of p_CLASS and "
        "positive for a run of several findings.",
        "view": "View position in the DICOM header (PA, AP, ...).",
        "patient": "Patient in the DICOM header; only with --keep-identifiers.",
    },
    verbs={
        "compare": Verb(
            CompareOptions,
            "headwise.pipelines.medical.verbs.compare:compare",
            "MEDUSA-style attention and its ablations; or settings (--vary)",
        ),
        "body": Verb(
            BodyOptions,
            "headwise.pipelines.medical.verbs.body:body",
            "train the body on lung masks, for train --body",
        ),
    },
    extra="medical",
)

train = python_verb(TASK, "train", MedicalOptions)
evaluate = python_verb(TASK, "evaluate", MedicalEvaluateOptions)
predict = python_verb(TASK, "predict", MedicalPredictOptions)
export = python_verb(TASK, "export", ExportOptions)
tune = python_verb(TASK, "tune", tune_options(MedicalOptions))
compare = python_verb(TASK, "compare", CompareOptions)
body = python_verb(TASK, "body", BodyOptions)
