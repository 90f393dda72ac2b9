"""A tiny task by which the tests of the engine see every row and every number that passes through
it.

The model is one vector w. Its loss is half the squared distance to the rows of a batch, so that a
step of plain gradient descent moves w by the learning rate times (w - mean of the batch), which a
test repeats in numpy. What the engine asked for is in `asked`, in its order. The score that early
stopping goes by may be given, epoch by epoch."""

import dataclasses
import json
from pathlib import Path

import polars as pl
import torch
from torch import nn

from headwise.base.errors import InputError
from headwise.pipelines.engine.command_line import parse, run_verb
from headwise.pipelines.engine.options import PredictOptions, TrainOptions
from headwise.pipelines.engine.pipeline import Pipeline, Review, Splits
from headwise.pipelines.engine.spec import Spec
from headwise.pipelines.engine.task import Task

BEGIN = (3.0, -2.0)
PARTS = {"train": 10, "validation": 5, "test": 3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AveragesOptions(TrainOptions):
    """Find the mean of rows."""

    epochs: int = 3
    """Passes."""
    patience: int = 100
    """Epochs."""
    batch_size: int = 4
    """Rows."""
    lr: float = 0.1
    """Rate."""
    schedule: str = "constant"
    """Rates over the epochs."""
    momentum: float = 0.0
    """Of gradient descent."""
    noise: float = 0.0
    """Deviation of what is added to the rows in training."""
    extra: bool = False
    """Whether the model has an auxiliary loss."""
    bias: float = 0.0
    """What is added to every prediction."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AveragesPredictOptions(PredictOptions):
    """Multiply numbers."""

    factor: float = 1.0
    """What every prediction is multiplied by."""


class Rows:
    """Rows of a part, which remembers which of them were read."""

    def __init__(self, name, rows, asked):
        self.name, self.rows, self.asked = name, torch.tensor(rows, dtype=torch.float32), asked

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.asked.append(("row", self.name, int(index)))
        return {"row": self.rows[index], "index": torch.tensor(index)}


class Mechanism(nn.Module):
    """Leaves a loss behind in training, as mechanisms of attention may."""

    auxiliary = None

    def forward(self, weight):
        self.auxiliary = weight.sum() if self.training else None


class Vector(nn.Module):
    """One vector."""

    def __init__(self, extra=False):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(BEGIN))
        self.mechanism = Mechanism() if extra else None
        self.unused = nn.ParameterList(
            [torch.zeros(1), torch.zeros(1)]
        )  # for groups with rates of their own

    def forward(self, rows):
        if self.mechanism is not None:
            self.mechanism(self.weight)
        return (
            self.weight - rows + 0 * sum(self.unused)
        )  # a gradient of 0, as a checkpoint needs one of each


@dataclasses.dataclass(frozen=True, kw_only=True)
class AveragesSpec(Spec):
    """The width of the rows."""

    width: int = 2
    input: dict[str, int] = dataclasses.field(default_factory=dict)


class Averages(Pipeline):
    """The pipeline. scores: what `validate` gives, epoch after epoch; without it the mean squared
    distance.
    """

    monitor = "score"
    spec_class = AveragesSpec
    train_options = AveragesOptions

    def __init__(self, scores=None):
        card = Task(
            name="averages",
            summary="means of rows",
            intended_use="Tests.",
            pipeline="",
            options=self.train_options,
            predict_options=AveragesPredictOptions,
            check=lambda options: None,
        )
        object.__setattr__(card, "load", lambda: self)  # as a finished import would
        super().__init__(card)
        self.scores, self.asked, self.rates = scores, [], []
        self.optimizer_used = None

    def write_sample(self, folder):
        numbers = torch.arange(2 * sum(PARTS.values())).reshape(-1, 2)
        rows = torch.sin(numbers.double() ** 2).round(decimals=3).tolist()
        parts, start = {}, 0
        for name, count in PARTS.items():
            parts[name] = rows[start : start + count]
            start += count
        path = Path(folder) / "rows.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(parts))
        return path

    def open_data(self, options, spec=None, *, as_test=False):
        parts = json.loads(Path(options.data).read_text())
        if as_test:
            parts = {key: [row for name in PARTS for row in parts[name]] for key in PARTS}
        sets = [Rows(name, parts[name], self.asked) for name in PARTS]
        return Splits(*sets, spec or AveragesSpec())

    def build_model(self, options, spec):
        return Vector(options.extra)

    def optimizer(self, model, options):
        self.optimizer_used = torch.optim.SGD(
            model.parameters(), lr=options.lr, momentum=options.momentum
        )
        return self.optimizer_used

    def begin_epoch(self, model, optimizer, options, epoch):
        self.asked.append(("epoch", epoch))

    def loss(self, model, batch, options):
        self.asked.append(
            ("loss", batch["index"].tolist(), model.training, torch.is_grad_enabled())
        )
        self.rates.append([group["lr"] for group in self.optimizer_used.param_groups])
        noise = options.noise * torch.randn_like(batch["row"]) if options.noise else 0.0
        return 0.5 * (model(batch["row"]) + noise).square().sum(1).mean()

    def validate(self, model, batches, options):
        squares, indices = [], []
        for batch in batches:
            squares.append(model(batch["row"]).double().square().sum(1))
            indices += batch["index"].tolist()
        self.asked.append(("validate", indices, model.training, torch.is_grad_enabled()))
        measured = float(torch.cat(squares).mean())
        epochs = sum(event[0] == "validate" for event in self.asked)
        return {
            "score": measured if self.scores is None else self.scores[epochs - 1],
            "distance": measured,
        }

    def calibrate(self, model, splits, options, device):
        self.asked.append(("calibrate", model.training))
        return {"bias": torch.tensor(options.bias)}

    def review(self, model, dataset, context):
        rows = torch.stack([dataset[k]["row"] for k in range(len(dataset))])
        self.asked.append(("review", dataset.name, model.training))
        distance = float((model.weight.detach() - rows).double().square().sum(1).mean())
        return Review(
            {"rows": len(rows), "distance": distance, "bias": float(context.calibration["bias"])},
            "done",
        )

    def list_items(self, options, spec):
        """Of a file of numbers, two rows each; a file that holds none is the sample, whose rows are
        its items.
        """
        stored = json.loads(Path(options.input).read_text())
        numbers = (
            stored
            if isinstance(stored, list)
            else [row[0] for name in PARTS for row in stored[name]]
        )
        return [
            {"file": options.input, "id": f"n{k}", "number": number}
            for k, number in enumerate(numbers)
        ]

    def prediction_schema(self, options, spec):
        return {"step": pl.Int64, "value": pl.Float64}

    def predict(self, model, items, context):
        self.asked.append(("predict", [item["id"] for item in items], model.training))
        if any(item["number"] == "raise" for item in items):
            raise RuntimeError("one of them upset the whole")
        return [
            self._rows(model, item["number"], context.calibration, context.options)
            for item in items
        ]

    @staticmethod
    def _rows(model, number, calibration, options):
        if number is None:
            return InputError("holds no number")
        value = options.factor * (
            number * float(model.weight.detach()[0]) + float(calibration["bias"])
        )
        return pl.DataFrame({"step": [1, 2], "value": [value, 2 * value]})

    def losses(self):
        """The indices of every batch that a loss was taken of."""
        return [event[1] for event in self.asked if event[0] == "loss"]


def call(pipeline, verb, **values):
    """A verb of the task with these options, as from Python."""
    return run_verb(pipeline.task, verb, parse(pipeline.task, verb, [], values=values))
