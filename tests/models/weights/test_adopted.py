"""Published backbones become models of timm with every weight in its place."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from headwise.base.errors import InputError
from headwise.models.weights import adopted
from headwise.models.weights.adopted import (
    ADOPTED,
    BackboneFacts,
    Published,
    backbone_facts,
    convert,
    digest_of,
    in_order,
    is_sound,
)

timm = pytest.importorskip("timm", reason="timm is optional (extra vision) and not installed")
SMALL = "test_resnet.r160_in1k"
FACTS = BackboneFacts("tiny", SMALL, 160, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 8, "")


def tiny_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return timm.create_model(SMALL, num_classes=0).state_dict()


def published(digest: str) -> Published:
    return Published(replace(FACTS, digest=digest), in_order(SMALL, 0))


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights under names that only end alike."""
    return {f"features.{k}.{n.rsplit('.', 1)[1]}": v for k, (n, v) in enumerate(state.items())}


def test_weights_in_order_are_converted_and_say_what_they_expect(tmp_path: Path) -> None:
    state = tiny_state()
    torch.save(renamed(state), tmp_path / "a.pt")
    row = published(digest_of(state))
    target = tmp_path / "a.safetensors"
    convert(row, tmp_path / "a.pt", target)
    stored = load_file(target)
    assert stored.keys() == state.keys()
    assert all(torch.equal(stored[name], value) for name, value in state.items())
    assert backbone_facts(target) == row.facts
    assert is_sound(target, row.facts)
    assert not is_sound(target, replace(row.facts, side=161))
    assert not is_sound(tmp_path / "missing.safetensors", row.facts)


def test_other_weights_than_the_known_ones_are_refused_and_not_written(tmp_path: Path) -> None:
    state = tiny_state()
    names = list(state)
    cases = {
        "not the weights": {names[0]: state[names[0]]},
        "does not fit": renamed({**state, names[0]: torch.zeros(1)}),
        "known here": renamed({**state, names[0]: state[names[0]] + 1}),
    }
    for message, wrong in cases.items():
        torch.save(wrong, tmp_path / "a.pt")
        with pytest.raises(ValueError, match=message):
            convert(published(digest_of(state)), tmp_path / "a.pt", tmp_path / "a.safetensors")
        assert not (tmp_path / "a.safetensors").exists()


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "ran"),))

    torch.save({"weight": Evil()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        in_order(SMALL, 0)(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


def test_a_changed_value_is_no_sound_file(tmp_path: Path) -> None:
    state = tiny_state()
    torch.save(state, tmp_path / "a.pt")
    row, target = published(digest_of(state)), tmp_path / "a.safetensors"
    convert(row, tmp_path / "a.pt", target)
    content = bytearray(target.read_bytes())
    content[-1] ^= 1
    target.write_bytes(content)
    assert backbone_facts(target) == row.facts
    assert not is_sound(target, row.facts)


def test_a_file_may_say_nothing_but_nothing_wrong(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    assert backbone_facts(tmp_path / "plain.safetensors") is None
    assert backbone_facts(tmp_path / "other.pth") is None
    for k, text in enumerate(("{", "[]", json.dumps({"name": "a"}))):
        path = tmp_path / f"{k}.safetensors"
        save_file({"a": torch.zeros(1)}, path, {"headwise": text})
        with pytest.raises(ValueError, match="metadata is damaged"):
            backbone_facts(path)
    (tmp_path / "text.safetensors").write_text("words")
    with pytest.raises(ValueError, match="cannot be read"):
        backbone_facts(tmp_path / "text.safetensors")


def test_names_of_published_backbones_are_those_of_the_catalogue() -> None:
    from headwise.data.catalogue import DATASETS

    entries = {entry.name: entry for entry in DATASETS if entry.task == "pictures"}
    assert entries.keys() == ADOPTED.keys()
    for name, row in ADOPTED.items():
        assert row.facts.name == name
        assert timm.is_model(row.facts.architecture)
        assert len(row.facts.digest) == 64
        assert len(entries[name].members) == 1


class TestDinov2:
    """A DINOv2 of Hugging Face in an ONNX file, whose matrices have no names."""

    def model(self) -> torch.nn.Module:
        from timm.models.vision_transformer import VisionTransformer

        torch.manual_seed(5)
        model = VisionTransformer(
            img_size=28, patch_size=14, embed_dim=8, depth=2, num_heads=2, mlp_ratio=2,
            init_values=1.0, num_classes=0,
        )  # fmt: skip
        for value in model.state_dict().values():
            value.normal_()
        return model

    def write(self, state: dict[str, torch.Tensor], path: Path) -> None:
        """As torch exports it: matrices transposed under numbers, positions in two constants."""
        onnx = pytest.importorskip("onnx", reason="onnx is optional (extra onnx)")
        tensors: dict[str, torch.Tensor] = {"onnx::Position": state["pos_embed"][:, 1:]}
        nodes: dict[str, list[str]] = {
            "/backbone/embeddings/Concat_6": ["onnx::Class", "resized"],
            "/backbone/embeddings/Reshape_1": ["onnx::Position", "shape"],
        }
        tensors["onnx::Class"] = state["pos_embed"][:, :1]
        tensors["backbone.embeddings.cls_token"] = state["cls_token"]
        for kind in ("weight", "bias"):
            projection = f"backbone.embeddings.patch_embeddings.projection.{kind}"
            tensors[projection] = state[f"patch_embed.proj.{kind}"]
            tensors[f"backbone.layernorm.{kind}"] = state[f"norm.{kind}"]
        for k in range(2):
            ours, theirs = f"blocks.{k}.", f"backbone.encoder.layer.{k}."
            node = f"/backbone/encoder/layer.{k}/"
            weights = state[f"{ours}attn.qkv.weight"].chunk(3)
            biases = state[f"{ours}attn.qkv.bias"].chunk(3)
            matrices = {}
            for head, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
                matrices[f"attention/attention/{head}"] = weight
                tensors[f"{theirs}attention.attention.{head}.bias"] = bias
            for name, source in (
                ("attention/output/dense", "attn.proj"),
                ("mlp/fc1", "mlp.fc1"),
                ("mlp/fc2", "mlp.fc2"),
            ):
                matrices[name] = state[f"{ours}{source}.weight"]
                tensors[f"{theirs}{name.replace('/', '.')}.bias"] = state[f"{ours}{source}.bias"]
            for name, matrix in matrices.items():
                tensors[f"onnx::MatMul_{len(tensors)}"] = matrix.T
                nodes[f"{node}{name}/MatMul"] = ["x", f"onnx::MatMul_{len(tensors) - 1}"]
            for number in (1, 2):
                tensors[f"{theirs}layer_scale{number}.lambda1"] = state[f"{ours}ls{number}.gamma"]
                for kind in ("weight", "bias"):
                    tensors[f"{theirs}norm{number}.{kind}"] = state[f"{ours}norm{number}.{kind}"]
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Any", names, ["y"], name=n) for n, names in nodes.items()],
            "g", [], [],
            [
                onnx.numpy_helper.from_array(np.ascontiguousarray(value.numpy()), name)
                for name, value in tensors.items()
            ],
        )  # fmt: skip
        path.write_bytes(onnx.helper.make_model(graph).SerializeToString())

    def test_every_weight_is_in_its_place(self, tmp_path: Path, monkeypatch) -> None:
        state = self.model().state_dict()
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        monkeypatch.setattr(adopted, "_expected", lambda *_: shapes)
        self.write(state, tmp_path / "a.onnx")
        converted = adopted.dinov2_from_onnx("tiny")(tmp_path / "a.onnx")
        assert list(converted) == list(state)
        assert all(torch.equal(converted[name], value) for name, value in state.items())

    def test_another_graph_is_one_line(self, tmp_path: Path, monkeypatch) -> None:
        state = self.model().state_dict()
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        monkeypatch.setattr(adopted, "_expected", lambda *_: {**shapes, "blocks.2.ls1.gamma": (8,)})
        self.write(state, tmp_path / "a.onnx")
        with pytest.raises(ValueError, match="not a DINOv2; it lacks") as caught:
            adopted.dinov2_from_onnx("tiny")(tmp_path / "a.onnx")
        assert not isinstance(caught.value, InputError)
