"""Tensors of ONNX files, read without running anything, are those that the onnx package reads."""

from pathlib import Path

import numpy as np
import pytest

from headwise.models.weights.onnx_tensors import read_onnx

onnx = pytest.importorskip("onnx", reason="onnx is optional (extra onnx) and not installed")


def write(path: Path, *tensors: object) -> Path:
    node = onnx.helper.make_node("MatMul", ["x", "onnx::1"], ["y"], name="/layer.0/MatMul")
    ends = [onnx.helper.make_tensor_value_info(name, 1, [None, 3]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], list(tensors))
    onnx.save(onnx.helper.make_model(graph), path)
    return path


def test_float_tensors_and_the_inputs_of_nodes_are_read(tmp_path: Path) -> None:
    values = np.arange(600, dtype=np.float32).reshape(200, 3) / 7
    scalar = np.float32(2.5).reshape(())
    file = write(
        tmp_path / "a.onnx",
        onnx.numpy_helper.from_array(values, "onnx::1"),
        onnx.numpy_helper.from_array(scalar, "scale"),
        onnx.numpy_helper.from_array(np.array([1, 2]), "shape"),
    )
    stored = read_onnx(file)
    assert set(stored.tensors) == {"onnx::1", "scale"}
    np.testing.assert_array_equal(stored.tensors["onnx::1"].numpy(), values)
    assert stored.tensors["scale"].shape == ()
    assert float(stored.tensors["scale"]) == 2.5
    assert stored.inputs == {"/layer.0/MatMul": ["x", "onnx::1"]}


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    values = onnx.numpy_helper.from_array(np.ones((200, 3), np.float32), "onnx::1")
    content = write(tmp_path / "a.onnx", values).read_bytes()
    cases = {
        "cut.onnx": content[: len(content) // 2],
        "text.onnx": b"no model at all, only words",
        "empty.onnx": b"",
        "zeros.onnx": bytes(100),
    }
    for name, damaged in cases.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=name) as caught:
            read_onnx(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="cannot be read"):
        read_onnx(tmp_path / "missing.onnx")


def test_a_tensor_with_fewer_bytes_than_its_shape_is_refused(tmp_path: Path) -> None:
    tensor = onnx.numpy_helper.from_array(np.ones(4, np.float32), "onnx::1")
    tensor.dims[0] = 1 << 40
    with pytest.raises(ValueError, match="16 bytes"):
        read_onnx(write(tmp_path / "a.onnx", tensor))


def test_tensors_in_other_files_are_refused(tmp_path: Path) -> None:
    tensor = onnx.TensorProto(name="onnx::1", data_type=1, dims=[1])
    tensor.external_data.add(key="location", value="../secret")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    (tmp_path / "a.onnx").write_bytes(
        onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor])).SerializeToString()
    )
    with pytest.raises(ValueError, match="stored in another file"):
        read_onnx(tmp_path / "a.onnx")
