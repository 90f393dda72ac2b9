"""The export as ONNX: names, sizes, files beside it, what is refused, what is left behind."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headwise import pipelines
from headwise.base.errors import InputError
from headwise.data.series.generate import sample_series, write_wide
from headwise.kernels.decompositions import PlainForms
from headwise.pipelines import load_task
from headwise.pipelines.engine.inference import export
from headwise.pipelines.engine.runs.loaded import load_run

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="the extra `onnx` is not installed",
)
SMALL = {
    "horizon": 4,
    "lookback": 8,
    "width": 16,
    "core": 8,
    "feedforward": 8,
    "layers": 1,
    "max_steps": 2,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A small run of forecast."""
    home = tmp_path_factory.mktemp("export")
    write_wide(sample_series(rows=200, channels=3), home / "wide.csv")
    return pipelines.forecast.train(data=home / "wide.csv", run=home / "run", **SMALL).path


def session(path: Path):
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def windows(rows: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(rows)
    return torch.randn(rows, 8, 3), torch.rand(rows, 8, 4) - 0.5


def graph_inputs(graph, values) -> dict[str, np.ndarray]:
    return {entry.name: value.numpy() for entry, value in zip(graph.get_inputs(), values)}


@needs_onnx
@pytest.mark.parametrize("rows", [1, 5])
def test_the_batch_is_free_and_all_is_named(run, tmp_path, capfd, rows):
    capfd.readouterr()
    pipelines.forecast.export(run=run, output=tmp_path / "m.onnx")
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1, err
    graph, model = (
        session(tmp_path / "m.onnx"),
        load_run(load_task("forecast").load(), str(run)).model,
    )
    assert [(x.name, x.shape) for x in graph.get_inputs()] == [
        ("past", ["batch", 8, 3]),
        ("past_marks", ["batch", 8, 4]),
    ]
    assert [(x.name, x.shape) for x in graph.get_outputs()] == [("output", ["batch", 4, 3])]
    with torch.no_grad():
        expected = model(*windows(rows)).numpy()
    np.testing.assert_allclose(
        graph.run(None, graph_inputs(graph, windows(rows)))[0], expected, atol=1e-5
    )


@needs_onnx
def test_weights_too_large_for_the_graph_stand_beside_it(run, tmp_path, headwise, monkeypatch):
    monkeypatch.setattr(export, "LARGEST", 0)
    code, lines = headwise("forecast", "export", "--run", run, "--output", tmp_path / "m.onnx")
    assert code == 0
    assert "keep both files together" in lines[-2]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    graph, model = (
        session(tmp_path / "m.onnx"),
        load_run(load_task("forecast").load(), str(run)).model,
    )
    with torch.no_grad():
        expected = model(*windows(2)).numpy()
    np.testing.assert_allclose(
        graph.run(None, graph_inputs(graph, windows(2)))[0], expected, atol=1e-5
    )
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(Exception, match=r"m\.onnx\.data"):
        session(tmp_path / "m.onnx")


@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=needs_onnx)])
def test_a_model_that_differs_leaves_what_was_there(run, tmp_path, headwise, monkeypatch, suffix):
    monkeypatch.setattr(export, "largest_difference", lambda *_: 0.5)
    output = tmp_path / f"m{suffix}"
    for before in (None, b"older"):
        if before:
            output.write_bytes(before)
        code, lines = headwise("forecast", "export", "--run", run, "--output", output)
        assert (code, len(lines)) == (2, 1)
        assert "differs by 0.5, more than --tolerance 5e-05; nothing is written" in lines[0]
        assert [file.read_bytes() for file in tmp_path.iterdir()] == ([before] if before else [])
    assert (
        headwise("forecast", "export", "--run", run, "--output", output, "--tolerance", 0.6)[0] == 0
    )


@dataclass
class Pair:
    logits: Tensor
    note: str


def test_a_difference_is_the_largest_of_any_output_and_sample():
    zero, x = nn.Identity(), torch.tensor([[1.0, -2.0], [3.0, float("inf")]])
    assert export.largest_difference(zero, lambda x: x, [(x,)]) == 0
    parts = [(x[:1],), (x[1:, :1],)]
    assert export.largest_difference(zero, lambda x: x * 0.5, parts) == 0.5
    # Above 1 it is a share: 3 of 3 here, and 1 of 1 there.
    assert export.largest_difference(zero, lambda x: x * 0 + 6 * (x == 3), parts) == 1
    small = torch.tensor([0.5, 100.0])
    assert export.largest_difference(zero, lambda x: x - 0.25, [(small,)]) == 0.25
    assert export.largest_difference(zero, lambda x: x.nan_to_num(posinf=0.0), [(x,)]) == float(
        "inf"
    )
    assert export.largest_difference(zero, lambda x: x * float("nan"), [(x,)]) == float("inf")
    assert export.largest_difference(zero, lambda x: x[:1], [(x,)]) == float("inf"), (
        "would broadcast"
    )
    assert export.largest_difference(zero, lambda x: {"other": x}, [(x,)]) == float("inf")
    integers = torch.tensor([2**62, 1])
    assert export.largest_difference(zero, lambda x: x - torch.tensor([0, 1]), [(integers,)]) == 1


def test_outputs_are_named_by_their_fields():
    x = torch.zeros(1)
    assert list(export.named_outputs(x)) == ["output"]
    assert list(export.named_outputs(Pair(x, "no tensor"))) == ["logits"]
    assert list(export.named_outputs({"a": x, "b": x})) == ["a", "b"]
    assert list(export.named_outputs((x, x))) == ["output_0", "output_1"]
    assert list(export.named_outputs(torch.max(x[None], 0))) == ["output_0", "output_1"]


def translate(model: nn.Module, *values: Tensor, folder: Path) -> list[np.ndarray]:
    """What onnxruntime gives for a model written by `write_onnx`."""
    with PlainForms():
        program = torch.export.export(model, values)
    export.write_onnx(folder / "m.onnx", model, program, values, None, lambda run: None)
    graph = session(folder / "m.onnx")
    return graph.run(None, graph_inputs(graph, values))


class Sorts(nn.Module):
    def forward(self, x: Tensor, places: Tensor) -> dict[str, Tensor]:
        from_left, from_right = (
            torch.searchsorted(x[x.argsort(stable=True)], places, right=side)
            for side in (False, True)
        )
        return {
            "order": x.argsort(stable=True),
            "back": x.argsort(stable=True, descending=True),
            "left": from_left,
            "right": from_right,
        }


@needs_onnx
def test_sorting_keeps_the_order_of_equal_values(tmp_path):
    x = torch.tensor([3, 1, 2, 1, 3, 3, 0, 2, 1] * 9)
    places = torch.tensor([[-1, 0, 1], [2, 3, 4]])
    order, back, from_left, from_right = translate(Sorts(), x, places, folder=tmp_path)
    assert order.tolist() == sorted(range(len(x)), key=lambda i: x[i].item())
    assert back.tolist() == sorted(range(len(x)), key=lambda i: -x[i].item())
    assert from_left.tolist() == [
        [sum(v < p for v in x.tolist()) for p in row] for row in places.tolist()
    ]
    assert from_right.tolist() == [
        [sum(v <= p for v in x.tolist()) for p in row] for row in places.tolist()
    ]


class Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


@needs_onnx
def test_what_onnx_cannot_say_is_one_line(tmp_path):
    with pytest.raises(
        InputError,
        match=r"m\.onnx: this model cannot be written as ONNX \(.*bessel_j0.*\); \.pt2 can$",
    ):
        translate(Bessel(), torch.ones(2), folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_named_at_once(run, tmp_path, headwise, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if "onnx" in name else find(name, *more),
    )
    code, lines = headwise("forecast", "export", "--run", run, "--output", tmp_path / "m.onnx")
    assert (code, len(lines)) == (2, 1)
    assert "onnx and onnxscript and onnxruntime not installed; pip install " in lines[0]
    assert lines[0].endswith("[onnx]'")
    assert headwise("forecast", "export", "--run", run, "--output", tmp_path / "m.pt2")[0] == 0
