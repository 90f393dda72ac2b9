"""What a pipeline answers. Everything that two pipelines would both do is the engine's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    NamedTuple,
    NotRequired,
    TypeAlias,
    TypedDict,
)

import polars as pl
import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from ...base.account import note
from ...base.errors import InputError
from .options import EvaluateOptions, TrainOptions
from .spec import JsonValue, Spec
from .task import COMMON_COLUMNS, Task
from .training.optimizer import adam
from .training.order import Batch, DataSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .ladder import AnyRungs


class Item(TypedDict):
    """One thing to predict for; JSON can hold it. Tasks add keys of their own."""

    file: str
    """The file that it comes from."""
    id: NotRequired[str]
    """What the table of predictions calls it; by default the name of its file."""
    further_files: NotRequired[list[str]]
    """Other files that its rows depend on."""


# The types of a pipeline: `Pipeline[MyOptions, MySpec]`, and the others where the task has its own.
OptionsT = TypeVar("OptionsT", bound=TrainOptions)
ContextOptionsT = TypeVar("ContextOptionsT", covariant=True)
SpecT = TypeVar("SpecT", bound=Spec)
PredictOptionsT = TypeVar("PredictOptionsT", default=Any)
DataT = TypeVar("DataT", bound=DataSet, default=Any)
ItemT = TypeVar("ItemT", bound=Item, default=Any)

Calibration: TypeAlias = dict[str, Tensor]
Metrics: TypeAlias = dict[str, JsonValue]
"""What `metrics.json` holds."""
Schema: TypeAlias = Mapping[str, "pl.DataType | type[pl.DataType]"]
"""Names and types of columns."""
ExportInputs: TypeAlias = "tuple[Tensor | None, ...]"
"""Arguments of the model's `forward`."""
FreeAxes: TypeAlias = "Sequence[Mapping[int, Any] | None] | None"
"""The free axes of each argument, as the dynamic_shapes of torch.export."""


class Member(NamedTuple):
    """An item of the data: its file and, where the file holds several, its id."""

    file: str
    id: str = ""


@dataclass(frozen=True)
class Splits(Generic[SpecT, DataT]):
    """The three parts as torch data sets, and the spec."""

    train: DataT
    validation: DataT
    test: DataT
    spec: SpecT
    assets: Mapping[str, Callable[[Path], object]] = field(default_factory=dict)
    """What is too large for the spec, as writers of files by name. The engine writes them into the
    run's `assets/`, and whoever opens the run finds their folder in its spec."""
    members: Mapping[str, Sequence[Member]] = field(default_factory=dict)
    """The items of each part, by which later predictions say what part an item was in. A task whose
    parts are not made of items leaves it empty."""

    def part(self, name: str) -> DataT:
        """The data set of a part: train, validation or test."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


@dataclass(frozen=True)
class Context(Generic[ContextOptionsT, SpecT]):
    """What surrounds a trained model: options, spec, the tensors fitted after training, device.

    measured: a folder for what is measured piece by piece, so that a killed run goes on where it
    was; it goes when the run is finished. None where nothing is kept.
    """

    options: ContextOptionsT
    spec: SpecT
    calibration: Calibration
    device: torch.device
    measured: Path | None = None


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the report.

    is_answer: whether it shows what the user came for (a forecast, a map, a transcript); such
    figures stand before the tables.
    """

    name: str
    caption: str
    figure: Figure
    is_answer: bool = False


@dataclass(frozen=True)
class Review:
    """How good a trained model is."""

    metrics: Mapping[str, JsonValue]
    headline: str
    """One sentence with the main figures, for the terminal and the top of the report."""
    pictures: Sequence[ReportFigure] = ()
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    """Tables of the report by caption."""
    sheets: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    """Tables that are also written as tables/NAME.csv, .md and .tex, as papers print them."""
    is_first: bool = False
    """Whether the headline stands before the sentence that compares the rungs of the ladder."""
    records: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    """Long tables that are written as NAME.parquet into the run, and do not stand in the report."""


class Pipeline(Generic[OptionsT, SpecT, PredictOptionsT, DataT, ItemT]):
    """Base of every pipeline. Subclasses fill `monitor` and the methods that raise here.

    `loss` and `validate` get the model as Fabric wraps it: call it as it is, and other methods with
    `training.wrapped.call_method` or `call`; `training.wrapped.plain_model` gives the task's own
    model. All other methods get the task's own model.
    """

    monitor: ClassVar[str]
    """Key of `validate`'s figures that early stopping and the best checkpoint go by; smaller is
    better."""
    spec_class: type[SpecT]
    """The class of its specs."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def write_sample(self, folder: Path) -> Path:
        """Write the built-in generated sample below `folder`, the same bytes each time; returns
        what --data takes.
        """
        raise NotImplementedError

    def write_sample_for(self, options: OptionsT, folder: Path) -> Path:
        """The sample of a training with these options; by default it is the same for all. With
        default options it is that of `write_sample`.
        """
        return self.write_sample(folder)

    def open_data(
        self, options: OptionsT, spec: SpecT | None = None, *, as_test: bool = False
    ) -> Splits[SpecT, DataT]:
        """Read the data and split it.

        With `spec`, scale and check it as the run's own. as_test: all of it is `test`.
        """
        raise NotImplementedError

    def build_model(self, options: OptionsT, spec: SpecT) -> nn.Module:
        """The untrained model; `ValueError` for options that do not fit together."""
        raise NotImplementedError

    def load_initial_weights(self, model: nn.Module, options: OptionsT, spec: SpecT) -> None:
        """Load the weights that a new training begins with into a model just built."""

    def optimizer(self, model: nn.Module, options: OptionsT) -> torch.optim.Optimizer:
        """Adam, or AdamW with weight decay. A group of parameters may have a `share` of the
        learning rate.
        """
        return adam(model.parameters(), options)

    def begin_epoch(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, options: OptionsT, epoch: int
    ) -> None:
        """Change what depends on the epoch, counted from 0, other than the learning rate: frozen
        parts. A pure function of its arguments, since a resumed training calls it again in the
        middle of an epoch.
        """

    def loss(self, model: nn.Module, batch: Batch, options: OptionsT) -> Tensor:
        """Mean loss over the samples of a batch.

        A mean over something else is multiplied by `training.counts.factor`, see `counts`."""
        raise NotImplementedError

    def counts(self, batch: Batch, options: OptionsT) -> Mapping[str, Tensor]:
        """What means of the loss are taken over that are not over samples, such as the number of
        words, by name: () or (K,) for K means. So the parts of a batch, of --accumulate and of
        several devices, sum to the loss of the batch.
        """
        return {}

    def validate(
        self, model: nn.Module, batches: Iterable[Batch], options: OptionsT
    ) -> dict[str, float]:
        """Figures on the validation part after each epoch, `monitor` among them."""
        raise NotImplementedError

    def complete(
        self, model: nn.Module, splits: Splits[SpecT, DataT], context: Context[OptionsT, SpecT]
    ) -> None:
        """Give a trained model what it takes from the training or the validation part besides its
        training, such as the mean of its vectors or the scale of its logits: tensors of its state,
        which are stored with it. Called before the rungs are fitted.
        """

    def rungs(self, spec: SpecT) -> AnyRungs | None:
        """The models beside the domain model, for the ladder; None for a task without one."""
        return None

    def calibrate(
        self,
        model: nn.Module,
        splits: Splits[SpecT, DataT],
        options: OptionsT,
        device: torch.device,
    ) -> Calibration:
        """Tensors fitted after training, saved in the run as `calibration.safetensors`."""
        return {}

    def check_run(self, spec: SpecT, calibration: Calibration) -> None:
        """Raise `InputError` if what a run stored does not fit together; called whenever a run is
        opened.
        """

    def review(self, model: nn.Module, dataset: DataT, context: Context[OptionsT, SpecT]) -> Review:
        """Score the model on one part of the data and draw the figures."""
        raise NotImplementedError

    def evaluation_options(self, options: EvaluateOptions, trained: OptionsT) -> OptionsT:
        """The options by which the data of `evaluate` is read: those of the training but for what
        the user gives. Folders of the training that other data is read with are noted.
        """
        known = {field.name for field in fields(trained)}
        common = {field.name for field in fields(EvaluateOptions)}
        of_task = [f.name for f in fields(options) if f.name in known and f.name not in common]
        changed = {name: value for name in of_task if (value := getattr(options, name))}
        if options.data is not None:
            changed["data"] = options.data
            plain, unused = type(trained)(), self.unused_for(options.data)
            for name in of_task:
                if name in unused:
                    changed.setdefault(name, getattr(plain, name))
                elif name not in changed and (value := getattr(trained, name)):
                    shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
                    note("assumed", f"--{name} {shown}, as in the training")
        return replace(trained, **changed)

    def unused_for(self, data: str) -> Collection[str]:
        """Options of a training that say nothing of this other data, such as the folder of the
        pictures of a table where it is a folder itself.
        """
        return ()

    def prediction_options(self, options: OptionsT, spec: SpecT) -> Mapping[str, object]:
        """Options of the prediction on its own data that a training ends with, other than run and
        output; the input is --data, unless it is among them. The spec knows the folder of the run's
        assets.
        """
        return {}

    def export_example(
        self, model: nn.Module, splits: Splits[SpecT, DataT]
    ) -> tuple[ExportInputs, FreeAxes]:
        """Example inputs for export, and which of their axes are free (as torch.export's
        dynamic_shapes).
        """
        raise NotImplementedError

    def other_export_example(
        self, splits: Splits[SpecT, DataT], arguments: ExportInputs, shapes: FreeAxes
    ) -> ExportInputs | None:
        """The inputs of `export_example` in another size, to check an export with; None if no axis
        is free.

        Here each free axis gets its first entry once more. A pipeline whose free axes depend on
        each other overrides it.
        """
        larger, free = [], False
        for value, axes in zip(arguments, shapes or [None] * len(arguments)):
            for axis, dim in (axes or {}).items():
                if dim is not None and value is not None:
                    value, free = torch.cat([value, value.narrow(axis, 0, 1)], axis), True
            larger.append(value)
        return tuple(larger) if free else None

    def list_items(self, options: PredictOptionsT, spec: SpecT) -> Sequence[ItemT]:
        """What `--input` holds, in a fixed order, without reading it all. An item is a small
        dictionary that JSON can hold.
        """
        raise NotImplementedError

    def predict(
        self, model: nn.Module, items: Sequence[ItemT], context: Context[PredictOptionsT, SpecT]
    ) -> list[pl.DataFrame | ValueError]:
        """Rows for each item, or the error that says why there are none. Columns are the same for
        all items. The context's options are those of the prediction.
        """
        raise NotImplementedError

    def prediction_figures(
        self, rows: pl.DataFrame, options: OptionsT, spec: SpecT
    ) -> Sequence[ReportFigure]:
        """Figures of the predictions that a training ends with."""
        return ()

    def further_exports(self) -> Mapping[str, Callable[[nn.Module, Path], None]]:
        """Formats of `export --output` that only this task has: by ending, what writes the model
        that predicts to a file. They are written as they are, without a check of the numbers.
        """
        return {}

    def further_outputs(self) -> Mapping[str, Callable[[pl.LazyFrame, Path], None]]:
        """Formats of `--output` that only this task has: by ending, what writes the joined rows to
        a file.
        """
        return {}

    def answer_lines(self, rows: pl.DataFrame, spec: SpecT) -> list[str]:
        """The answer for one item in words, for the terminal. By default what its columns hold."""
        shown = [name for name in rows.columns if name not in COMMON_COLUMNS]
        return [
            ", ".join(f"{name} {value}" for name, value in zip(shown, row, strict=True))
            for row in rows.select(shown).head(10).rows()
        ]

    def member(self, item: ItemT) -> Member:
        """The item of the training data that an item of a prediction would be; see
        `Splits.members`.
        """
        return Member(item["file"])

    def training_parts(self, splits: Splits[SpecT, DataT], members: Mapping[str, str]) -> pl.Series:
        """The part that each item of the test part was in when the run was trained, null for new
        ones; empty where the task cannot tell. By default by `Splits.members`.

        members: what the run has stored of them.
        """
        from .inference.members import parts_column

        return parts_column(members, splits.members.get("test", ()))

    def prediction_schema(self, options: PredictOptionsT, spec: SpecT) -> Schema:
        """Column names and polars types of the rows that `predict` gives."""
        raise NotImplementedError


AnyPipeline: TypeAlias = Pipeline[Any, Any, Any, Any, Any]


def build(pipeline: Pipeline[OptionsT, SpecT], options: OptionsT, spec: SpecT) -> nn.Module:
    """The task's model; `InputError` for options that do not fit together."""
    try:
        return pipeline.build_model(options, spec)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{pipeline.task.name}: these options make no model: {error}") from error
