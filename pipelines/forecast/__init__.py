"""Forecasting: SOFTS on wide or long tables, with baselines, intervals and forecasts past the end
of the file."""

from ..engine.command_line import comparison_verb, python_verb
from ..engine.compare_options import comparison_options
from ..engine.options import EvaluateOptions, ExportOptions
from ..engine.task import Task, Verb
from ..engine.tune_options import tune_options
from .options import BacktestOptions, ForecastOptions, ForecastPredictOptions, check

TASK = Task(
    name="forecast",
    summary="forecast many series at once",
    intended_use=(
        "Forecasts of the columns it was trained on, at the same step of time. The intervals "
        "hold on average over windows like those of the validation part; a change in the "
        "process that makes the data breaks them."
    ),
    pipeline="headwise.pipelines.forecast.pipeline:ForecastPipeline",
    options=ForecastOptions,
    predict_options=ForecastPredictOptions,
    check=check,
    columns={
        "channel": "Column of the input that the forecast is of.",
        "step": "Steps past the end of the series, counted from 1.",
        "time": "Moment of the step (UTC, if the dates of the input have a time zone).",
        "forecast": "Forecast in the units of the input.",
        "lower_LEVEL": "Lower bound of the prediction interval of that level, in per cent.",
        "upper_LEVEL": "Upper bound of the prediction interval of that level, in per cent.",
    },
    verbs={
        "backtest": Verb(
            BacktestOptions,
            "headwise.pipelines.forecast.verbs.backtest:backtest",
            "forecast from past moments and compare",
        )
    },
)

train = python_verb(TASK, "train", ForecastOptions)
evaluate = python_verb(TASK, "evaluate", EvaluateOptions)
predict = python_verb(TASK, "predict", ForecastPredictOptions)
export = python_verb(TASK, "export", ExportOptions)
tune = python_verb(TASK, "tune", tune_options(ForecastOptions))
compare = comparison_verb(TASK, comparison_options(ForecastOptions))
backtest = python_verb(TASK, "backtest", BacktestOptions)
