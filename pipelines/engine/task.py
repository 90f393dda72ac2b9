"""What a pipeline answers; everything that two pipelines would both do is the engine's.

A task module imports nothing heavy at its top (no torch), so that the command line answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from .options import PredictOptions, TrainOptions

if TYPE_CHECKING:
    import polars as pl
    import torch
    from matplotlib.figure import Figure
    from torch import nn

Options = TypeVar("Options", bound=TrainOptions)
Item = dict[str, Any]


@dataclass(frozen=True)
class Splits:
    """The three parts as torch data sets, and the `spec`: all that a model needs to meet new data
    again.

    `spec` is plain JSON (columns, scaling, frequency, …), saved in the run as `spec.json`.
    """

    train: Any
    validation: Any
    test: Any
    spec: dict[str, Any]
    assets: Mapping[str, Callable[[Path], object]] = field(default_factory=dict)
    """What is too large for `spec`, as writers of files by name. The engine has them written into
    the run's `assets/`, notes their checksums in `spec["assets"]`, and gives whoever opens the run
    their folder as `spec["folder"]`."""

    def part(self, name: str) -> Any:
        """The data set of a part by name; `all` is only there for data that is not the run's
        own.
        """
        return getattr(self, name)


@dataclass(frozen=True)
class Picture:
    """A figure of the report."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Review:
    """What a trained model was found to be worth."""

    metrics: dict[str, Any]
    headline: str
    """One sentence with the main figures, for the terminal and the top of the report."""
    pictures: Sequence[Picture] = ()
    tables: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    """Tables of the report by caption."""
    sheets: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    """Tables that are also written as tables/NAME.csv, .md and .tex, as papers print them."""


@dataclass(frozen=True)
class Verb:
    """A further word of a task: its options and `module:function`, which takes them."""

    options: type
    function: str
    summary: str


class Task(Generic[Options]):
    """Base of every pipeline. Subclasses fill the class variables and the methods that raise
    here.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    options: type[Options]
    predict_options: type[PredictOptions] = PredictOptions
    verbs: ClassVar[Mapping[str, Verb]] = {}
    monitor: ClassVar[str]
    """Key of `validate`'s figures that early stopping and the best checkpoint go by; smaller is
    better.
    """
    intended_use: ClassVar[str]

    def check(self, options: Any) -> None:
        """Raise `InputError` for option values that no data can make right; called before torch is
        imported.
        """

    def write_sample(self, folder: Path) -> Path:
        """Write the built-in generated sample below `folder`, the same bytes each time; returns
        what --data takes.
        """
        raise NotImplementedError

    def open(
        self, options: Options, spec: dict[str, Any] | None = None, *, whole: bool = False
    ) -> Splits:
        """Read the data. With `spec`, scale and check it as the run's own; `whole`: all of it is
        `test`.
        """
        raise NotImplementedError

    def build(self, options: Options, spec: dict[str, Any]) -> nn.Module:
        """The untrained model; `ValueError` for options that do not fit together."""
        raise NotImplementedError

    def warm_start(self, model: nn.Module, options: Options, spec: dict[str, Any]) -> None:
        """Weights to begin a new training with, into a model just built."""

    def optimizer(self, model: nn.Module, options: Options) -> torch.optim.Optimizer:
        """Adam, or AdamW with weight decay. A group of parameters may have a `share` of the
        learning rate.
        """
        import torch

        kind = torch.optim.AdamW if options.weight_decay else torch.optim.Adam
        return kind(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)

    def begin_epoch(self, model: nn.Module, optimizer: Any, options: Options, epoch: int) -> None:
        """What changes with the epoch, from 0, besides the learning rate: parts that are held for a
        while. A pure function of its arguments, since a resumed training asks again in the middle
        of an epoch."""

    def loss(self, model: nn.Module, batch: Any, options: Options) -> torch.Tensor:
        """Mean loss over the samples of a batch."""
        raise NotImplementedError

    def validate(self, model: nn.Module, batches: Any, options: Options) -> dict[str, float]:
        """Figures on the validation part after each epoch, `monitor` among them."""
        raise NotImplementedError

    def finish(
        self, model: nn.Module, splits: Splits, options: Options, device: torch.device
    ) -> dict[str, torch.Tensor]:
        """Tensors fitted after training (calibration, …), saved in the run as
        `calibration.safetensors`.
        """
        return {}

    def check_run(self, spec: dict[str, Any], calibration: dict[str, torch.Tensor]) -> None:
        """Raise `InputError` where what a run stored does not fit together; asked whenever a run is
        opened.
        """

    def review(
        self,
        model: nn.Module,
        dataset: Any,
        calibration: dict[str, torch.Tensor],
        options: Options,
        spec: dict[str, Any],
        device: torch.device,
    ) -> Review:
        """Score the model on one part of the data, draw the pictures."""
        raise NotImplementedError

    def own_prediction(self, options: Options) -> dict[str, Any]:
        """Options of the prediction on its own data that a training ends with, beside run, input
        and output.
        """
        return {}

    def sample(
        self, model: nn.Module, splits: Splits
    ) -> tuple[tuple[Any, ...], dict[int, Any] | None]:
        """Example inputs for export, and which of their axes are free (as torch.export's
        dynamic_shapes).
        """
        raise NotImplementedError

    def other_sample(
        self, splits: Splits, arguments: tuple[Any, ...], shapes: Any
    ) -> tuple[Any, ...] | None:
        """The inputs of `sample` in another size, for the check of an export; None: no axis is
        free.

        Here each free axis gets its first entry once more. A task whose free axes hang together
        says it itself."""
        import torch

        larger, free = [], False
        for value, axes in zip(arguments, shapes or [None] * len(arguments)):
            for axis, dim in (axes or {}).items():
                if dim is not None:
                    value, free = torch.cat([value, value.narrow(axis, 0, 1)], axis), True
            larger.append(value)
        return tuple(larger) if free else None

    def items(self, options: PredictOptions, spec: dict[str, Any]) -> Sequence[Item]:
        """What `--input` holds, in a fixed order, without reading it all. An item is a small
        JSON-able dict.
        """
        raise NotImplementedError

    def predict(
        self,
        model: nn.Module,
        items: Sequence[Item],
        calibration: dict[str, torch.Tensor],
        options: PredictOptions,
        spec: dict[str, Any],
        device: torch.device,
    ) -> list[pl.DataFrame | ValueError]:
        """Rows for each item, or the error that says why there are none. Columns are the same for
        every item.
        """
        raise NotImplementedError

    def picture_predictions(
        self, rows: pl.DataFrame, options: Options, spec: dict[str, Any]
    ) -> Sequence[Picture]:
        """Pictures of the predictions that a training ends with."""
        return ()

    def prediction_schema(self, options: PredictOptions, spec: dict[str, Any]) -> dict[str, Any]:
        """Column names and polars types of the rows that `predict` gives."""
        raise NotImplementedError
