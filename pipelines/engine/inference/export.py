"""The verb `export`: the model as one file free of Headwise, written only if it gives the same as
the model.

The suffix names the format: .pt2 is a torch.export program, .onnx an ONNX graph (extra `onnx`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NotImplementedType
from typing import Any

import torch
from torch import Tensor, nn

from ....base.account import opened
from ....base.errors import InputError, one_line
from ....base.extras import install_line
from ....base.files import flush, write_aside
from ....base.own_files import ASIDE
from ..command_line.terminal import say
from ..options import ExportOptions
from ..pipeline import AnyPipeline, ExportInputs, FreeAxes
from ..runs.loaded import load_run
from ..training.jobs import with_data

# A protobuf holds 2 GiB at most; above this the weights go into a file of their own next to the
# graph.
LARGEST = 2**31 - 2**24


def _searchsorted(
    row: Tensor,
    values: Tensor | float,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor | NotImplementedType:
    """`torch.searchsorted` of a row by comparing all pairs."""
    if row.ndim != 1 or sorter is not None or not isinstance(values, Tensor):
        return NotImplemented
    smaller = row <= values[..., None] if right or side == "right" else row < values[..., None]
    return smaller.sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


def _argsort(x: Tensor, *, stable: bool, dim: int = -1, descending: bool = False) -> Tensor:
    """By ONNX's TopK, which is stable: of equal values the first comes first."""
    return torch.topk(x, x.shape[dim], dim, descending)[1]


# What the exporter does not know, in terms of what it does know.
ONNX_LACKS: dict[torch._ops.OperatorBase, Callable[..., Any]] = {
    torch.ops.aten.searchsorted.Tensor: _searchsorted,
    torch.ops.aten.argsort.stable: _argsort,
}


def for_onnx(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The same program, changed in place, in operators that the exporter knows."""
    if any(node.target in ONNX_LACKS for node in program.graph.nodes):
        program = program.run_decompositions({**ONNX_LACKS})
    # A view fails where the exporter's own decompositions lay its input out differently.
    for node in program.graph.nodes:
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    program.graph_module.recompile()
    return program


def export(pipeline: AnyPipeline, options: ExportOptions) -> str:
    """Write the model free of our operators, as the suffix of --output says, and check that it
    gives the same.

    Compared are the task's example inputs and, where an axis is free, inputs of another size.
    Nothing is left behind by a model that fails. Returns the path. Raises `InputError` for a suffix
    of no format, a missing extra, a graph that the format cannot say, and a difference above
    --tolerance."""
    from ....kernels.decompositions import PlainForms

    path = Path(options.output)
    if path.is_dir():
        raise InputError(f"{path}: is a directory; --output names the file to write")
    further = pipeline.further_exports()
    if ending := next((name for name in further if path.name.lower().endswith(name)), None):
        further[ending](load_run(pipeline, options.run, "cpu").model, path)
        say(f"exported {path}")
        return str(path)
    if path.suffix.lower() not in (".pt2", ".onnx"):
        endings = [".pt2 (torch.export)", *further]
        raise InputError(f"{path}: --output must end in {', '.join(endings)} or .onnx (ONNX)")
    onnx = path.suffix.lower() == ".onnx"
    if onnx:
        _need_onnx()
    loaded = load_run(pipeline, options.run, "cpu")
    with opened(loaded.options.accept):  # what the training accepted of this data
        splits = pipeline.open_data(with_data(pipeline, loaded.options, loaded.run), loaded.spec)
    arguments, shapes = pipeline.export_example(loaded.model, splits)
    samples = [arguments]
    resized = pipeline.other_export_example(splits, arguments, shapes)
    if resized is not None:
        samples.append(resized)
    try:
        with PlainForms():
            program = torch.export.export(loaded.model, arguments, dynamic_shapes=shapes)
    except Exception as error:  # torch.export's errors share no base class but this
        raise InputError(
            f"{path}: torch.export cannot trace this model ({_reason(error)})"
        ) from error
    difference = 0.0

    def check(run: Callable[..., object]) -> None:
        nonlocal difference
        difference = largest_difference(loaded.model, run, samples)
        if not difference <= options.tolerance:
            raise InputError(
                f"{path}: the exported model differs by {difference:.2g}, more than --tolerance "
                f"{options.tolerance}; nothing is written"
            )

    if onnx:
        write_onnx(path, loaded.model, program, arguments, shapes, check)
    else:

        def write(temporary: Path) -> None:
            with _silence():
                torch.export.save(program, temporary)
                run = torch.export.load(temporary).module()
            check(run)

        write_aside(path, write)
    say(f"exported {path}; largest difference from the original {difference:.2g}")
    return str(path)


@torch.no_grad()
def largest_difference(
    model: nn.Module, run: Callable[..., object], samples: Sequence[ExportInputs]
) -> float:
    """Largest difference of any output on any sample, as a share of it where it is above 1, since
    32 bits hold seven digits of it; infinite where names or shapes differ.
    """
    largest = 0.0
    for arguments in samples:
        original, exported = named_outputs(model(*arguments)), named_outputs(run(*arguments))
        if original.keys() != exported.keys() or any(
            original[name].shape != exported[name].shape for name in original
        ):
            return float("inf")
        for name, value in original.items():
            # Equal infinities differ by nothing; a NaN in only one of them is not equal.
            same = (value == exported[name]) | (value.isnan() & exported[name].isnan())
            gap = (value.double() - exported[name].double()).abs()
            gap = torch.where(same, 0.0, gap / value.double().abs().clamp(min=1))
            gap = gap.nan_to_num(nan=float("inf"), posinf=float("inf"))
            largest = max(largest, float(gap.max()) if gap.numel() else 0.0)
    return largest


def named_outputs(value: object) -> dict[str, Tensor]:
    """The outputs of a model by name: a tensor is `output`; the parts of a dataclass, named tuple
    or mapping have names already.
    """
    if isinstance(value, Mapping):
        parts = value
    elif dataclasses.is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = dict(zip(value._fields, value))  # pyright: ignore[reportAttributeAccessIssue]
    elif isinstance(value, list | tuple):
        parts = {f"output_{index}": part for index, part in enumerate(value)}
    else:
        parts = {"output": value}
    return {str(name): part for name, part in parts.items() if isinstance(part, Tensor)}


def input_names(model: nn.Module, arguments: ExportInputs) -> list[str]:
    """Names of the tensors among the arguments, as the model's `forward` calls them."""
    names = list(inspect.signature(model.forward).parameters)
    return [name for name, value in zip(names, arguments) if isinstance(value, Tensor)]


def write_onnx(
    path: Path,
    model: nn.Module,
    program: torch.export.ExportedProgram,
    arguments: ExportInputs,
    shapes: FreeAxes,
    check: Callable[[Callable[..., object]], None],
) -> None:
    """Translate, let `check` compare what onnxruntime gives, then move into place.

    Above 2 GiB the weights are in `NAME.data` next to it. Both are written in a temporary folder,
    since the graph holds the name of that file."""
    with torch.no_grad():
        outputs = list(named_outputs(model(*arguments)))
    free = [axes or {} for axes, value in zip(shapes or (), arguments) if isinstance(value, Tensor)]
    large = (
        sum(value.numel() * value.element_size() for value in program.state_dict.values()) > LARGEST
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=ASIDE, suffix=f"-{path.name}", dir=path.parent))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.filename}: {error.strerror})"
        ) from None
    try:
        names = input_names(model, arguments)
        graph = _translated(path, for_onnx(program), names, outputs, free)
        with _silence():
            graph.save(folder / path.name, external_data=large)
        check(_runner(path, folder / path.name, outputs))
        # The graph comes last: it names the other file.
        files = sorted(folder.iterdir(), key=lambda file: file.name == path.name)
        for file in files:
            flush(file)
        for file in files:
            os.replace(file, path.parent / file.name)
        flush(path.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({one_line(error)})") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if large:
        say(f"weights {path}.data (above 2 GiB): keep both files together")


def _need_onnx() -> None:
    from importlib import util

    missing = [
        name for name in ("onnx", "onnxscript", "onnxruntime") if util.find_spec(name) is None
    ]
    if missing:
        raise InputError(
            f"--output .onnx: {' and '.join(missing)} not installed; {install_line('onnx')}"
        )


def _translated(
    path: Path,
    program: torch.export.ExportedProgram,
    inputs: list[str],
    outputs: list[str],
    shapes: Sequence[Mapping[int, Any]],
) -> torch.onnx.ONNXProgram:
    """The ONNX program; `InputError` with the reason if there is none."""
    try:
        with _silence():
            graph = torch.onnx.export(
                program, input_names=inputs, output_names=outputs, dynamo=True, verbose=False
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise InputError(
            f"{path}: this model cannot be written as ONNX ({_reason(error)}); .pt2 can"
        ) from error
    assert graph is not None
    _name_axes(graph, shapes)
    return graph


def _name_axes(graph: torch.onnx.ONNXProgram, shapes: Sequence[Mapping[int, Any]]) -> None:
    """Give the free axes the task's names for them, in place of s1, s2."""
    words, model = {}, graph.model
    for value, axes in zip(model.graph.inputs, shapes):
        for axis, dim in axes.items():
            # Axes that follow from others (2*rows + 1) are written in terms of these.
            if value.shape and re.fullmatch(r"s\d+", symbol := str(value.shape[axis])):
                words[symbol] = getattr(dim, "__name__", symbol)
    for value in (*model.graph.inputs, *model.graph.outputs):
        sizes = value.shape
        for axis, dim in enumerate(sizes or ()):
            if sizes is not None and not isinstance(dim, int):
                sizes[axis] = re.sub(
                    r"\bs\d+\b", lambda match: words.get(match[0], match[0]), str(dim)
                )


def _reason(error: BaseException) -> str:
    """First line of what started a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.split(" For more information")[0][:250]  # torch's, about its own log


def _runner(path: Path, file: Path, outputs: list[str]) -> Callable[..., dict[str, Tensor]]:
    """The file under onnxruntime on the CPU, called as the model is."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # what goes wrong is raised as well
    try:
        session = onnxruntime.InferenceSession(
            str(file), settings, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors share no base class but this
        raise InputError(
            f"{path}: onnxruntime cannot load this model ({_reason(error)})"
        ) from error
    names = [value.name for value in session.get_inputs()]

    def run(*arguments: object) -> dict[str, Tensor]:
        values = [value.numpy() for value in arguments if isinstance(value, Tensor)]
        try:
            results = session.run(outputs, dict(zip(names, values, strict=True)))
        except Exception as error:
            raise InputError(
                f"{path}: onnxruntime cannot run this model ({_reason(error)})"
            ) from error
        return {name: torch.from_numpy(value) for name, value in zip(outputs, results)}

    return run


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Swallow the chatter of torch and its exporter: what matters of it is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
