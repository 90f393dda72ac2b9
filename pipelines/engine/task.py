"""What the command line and the docs know of a task, without importing anything heavy.

A task is a light card (`Task`) in `pipelines/<task>/__init__.py`, and a `Pipeline` with the real
work in `pipelines/<task>/pipeline.py`, which is imported once the options have been parsed. So help
and mistakes answer without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from ...base.errors import InputError
from ...base.extras import check_extra, install_line
from .options import EvaluateOptions, PredictOptions, TrainOptions

if TYPE_CHECKING:
    from .pipeline import AnyPipeline


# Columns that the predictions of all tasks begin with.
COMMON_COLUMNS: Mapping[str, str] = {
    "file": "File that the item is in, as it was given.",
    "item": "Name of the item; unique in the output for most inputs.",
    "part": "Part that the item was in when the run was trained: train, validation, test; null for "
    "an item that is new, and for tasks whose parts are not made of items.",
    "status": "ok, or error.",
    "error": "Why there is no prediction, on one line; null if there is one.",
}


@dataclass(frozen=True)
class Verb:
    """A verb that only this task has: its options, and `module:function`.

    Its name may be of several words, such as "topics fit": `headwise TASK topics` lists all that
    begin with the same word, and in Python it is called `topics_fit`.

    The function is called with the pipeline and the options or, if it is standalone, with the
    options alone: it needs no model, and need not wait for torch.
    """

    options: type
    function: str
    summary: str
    standalone: bool = False

    def run(self, task: Task, options: object) -> object:
        """Import the function and call it."""
        module, name = self.function.split(":")
        function = getattr(import_module(module), name)
        return function(options) if self.standalone else function(task.load(), options)


@dataclass(frozen=True, kw_only=True)
class Task:
    """The card of a task.

    pipeline: `module:class` of its pipeline. evaluate_options: further fields are options of the
    training that may be others for other data; None or () are those of the training. check: raises
    `InputError` for option values that no data can make right; called with the options of any verb,
    before torch is imported. extra: the extra of the package that the task needs, None if it needs
    none. columns: what the columns of its predictions mean, besides `COMMON_COLUMNS`; a word in
    capitals stands for any name.
    """

    name: str
    summary: str
    intended_use: str
    pipeline: str
    options: type[TrainOptions]
    predict_options: type[PredictOptions] = PredictOptions
    evaluate_options: type[EvaluateOptions] = EvaluateOptions
    check: Callable[[object], None]
    columns: Mapping[str, str] = field(default_factory=dict)
    verbs: Mapping[str, Verb] = field(default_factory=dict)
    extra: str | None = None

    def load(self) -> AnyPipeline:
        """Import the pipeline, and torch with it.

        Raises `InputError` with the line that installs what is missing.
        """
        if self.extra is not None:
            check_extra(self.extra, self.name)
        module, name = self.pipeline.split(":")
        try:
            return getattr(import_module(module), name)(self)
        except ModuleNotFoundError as error:
            if self.extra is None or (error.name or "").startswith("headwise"):
                raise
            line = install_line(self.extra)
            raise InputError(f"{self.name} needs the package {error.name}; {line}") from error
