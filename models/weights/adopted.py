"""Published backbones of pictures, converted to models of timm and stored as safetensors.

What a backbone expects of a picture is in the file's metadata, so that the file alone is enough:
it can be copied to another machine and named there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...base.errors import one_line, reason
from ...base.files import write_aside
from .onnx_tensors import read_onnx

METADATA = "headwise"
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
Triple = tuple[float, float, float]
Normalisation = tuple[float | Sequence[float], float | Sequence[float]]
"""Mean and deviation that pictures are normalised by: one number, or one for each colour."""


@dataclass(frozen=True)
class BackboneFacts:
    """What is stored beside the weights of a backbone.

    architecture: of timm; side: of the pictures that it is meant for, pixels; mean, deviation: of
    the three colours, 0 to 1; width: of a feature; digest: `digest_of` its weights.
    """

    name: str
    architecture: str
    side: int
    mean: Triple
    deviation: Triple
    width: int
    digest: str


@dataclass(frozen=True)
class Published:
    """A backbone in a published file.

    convert: the file's path -> weights by the names of timm. vision_transformer: whether its blocks
    can be a trunk; if not, it gives maps of strides 4 to 32.
    """

    facts: BackboneFacts
    convert: Callable[[Path], dict[str, Tensor]]
    vision_transformer: bool = False


def digest_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and values of some weights, however a file stores them."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def convert(published: Published, source: Path, target: Path) -> None:
    """Write the weights of a published file as safetensors, if they are exactly the ones expected.

    Raises ValueError where they are not, or do not fit timm's model.
    """
    from safetensors.torch import save_file

    facts = published.facts
    state = published.convert(source)
    if digest_of(state) != facts.digest:
        raise ValueError(f"{source}: not the weights of {facts.name} that are known here")
    metadata = {METADATA: json.dumps(asdict(facts), sort_keys=True)}
    write_aside(target, lambda path: save_file(state, path, metadata))


def backbone_facts(path: str | Path) -> BackboneFacts | None:
    """What a file of safetensors says of its weights; None for a file that says nothing.

    Raises ValueError for a file that cannot be read, or whose metadata is damaged.
    """
    if not str(path).endswith(".safetensors"):
        return None
    from safetensors import safe_open

    try:
        with safe_open(str(path), "pt") as file:
            text = (file.metadata() or {}).get(METADATA)
    except Exception as error:  # of safetensors, or the system
        raise ValueError(f"{path}: cannot be read as weights ({reason(error, 120)})") from None
    if text is None:
        return None
    try:
        stored = json.loads(text)
        return BackboneFacts(
            name=str(stored["name"]),
            architecture=str(stored["architecture"]),
            side=int(stored["side"]),
            mean=_triple(stored["mean"]),
            deviation=_triple(stored["deviation"]),
            width=int(stored["width"]),
            digest=str(stored["digest"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: its metadata is damaged ({one_line(error)})") from None


def is_sound(path: Path, facts: BackboneFacts) -> bool:
    """Whether a converted file is there and holds exactly these weights."""
    from safetensors.torch import load_file

    if not path.is_file():
        return False
    try:
        return backbone_facts(path) == facts and digest_of(load_file(path)) == facts.digest
    except Exception:  # a damaged file, of which safetensors raises several kinds
        return False


def for_normalisation(
    state: dict[str, Tensor], path: str | Path, normalised_by: Normalisation | None
) -> dict[str, Tensor]:
    """Weights that see a picture, which the caller normalises in its way, as they would see it
    normalised in theirs: the first convolution is changed.

    It is exact for patches; a convolution with a border of zeros sees another shade there.
    `state` itself where the file `path` says nothing, or has no such convolution.
    """
    facts = None if normalised_by is None else backbone_facts(path)
    if facts is None or normalised_by is None:
        return state
    mean, deviation = (torch.tensor(v, dtype=torch.float32).expand(3) for v in normalised_by)
    own_mean, own_deviation = torch.tensor(facts.mean), torch.tensor(facts.deviation)
    scale, shift = deviation / own_deviation, (mean - own_mean) / own_deviation
    changed = dict(state)
    for name, moved, sign in (
        ("patch_embed.proj.weight", "patch_embed.proj.bias", 1.0),
        ("conv_stem.weight", "bn1.running_mean", -1.0),  # which the normalisation takes off
    ):
        if name in state and moved in state:
            weight = state[name]
            changed[name] = weight * scale.view(3, 1, 1)
            changed[moved] = state[moved] + sign * (weight.sum((2, 3)) @ shift)
    return changed


def _triple(values: object) -> Triple:
    if not isinstance(values, list) or len(values) != 3:
        raise ValueError("needs three numbers")
    red, green, blue = map(float, values)
    return red, green, blue


def in_order(architecture: str, classes: int) -> Callable[[Path], dict[str, Tensor]]:
    """A converter for a state dict of PyTorch whose weights come in timm's order, under other
    names.

    classes: of its classifier; 0: it has none.
    """

    def read(path: Path) -> dict[str, Tensor]:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for damaged files
            raise ValueError(f"{path}: cannot be read as weights ({reason(error)})") from None
        expected = _expected(architecture, classes)
        if not isinstance(state, dict) or len(state) != len(expected):
            raise ValueError(f"{path}: not the weights of {architecture}")
        for (name, shape), (other, value) in zip(expected.items(), state.items(), strict=True):
            same_kind = name.rsplit(".", 1)[-1] == other.rsplit(".", 1)[-1]
            if not same_kind or tuple(value.shape) != shape:
                raise ValueError(f"{path}: {other} does not fit {name} of {architecture}")
        return {
            name: value.contiguous().clone()
            for name, value in zip(expected, state.values(), strict=True)
        }

    return read


def _expected(architecture: str, classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of a model of timm."""
    import timm

    with torch.device("meta"):
        model = timm.create_model(architecture, num_classes=classes)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def dinov2_from_onnx(architecture: str) -> Callable[[Path], dict[str, Tensor]]:
    """A converter for a DINOv2 of Hugging Face that was exported to ONNX.

    Matrices have no names there; they are found by the node that multiplies by them, and are
    transposed.
    """

    def read(path: Path) -> dict[str, Tensor]:
        stored = read_onnx(path)
        expected = _expected(architecture, 0)
        try:
            state = _dinov2(stored.tensors, stored.inputs, expected)
        except (KeyError, IndexError) as error:
            raise ValueError(f"{path}: not a DINOv2; it lacks {error}") from None
        for name, shape in expected.items():
            if tuple(state[name].shape) != shape:
                raise ValueError(f"{path}: {name} of {architecture} has another shape")
        return state

    return read


def _dinov2(
    tensors: Mapping[str, Tensor],
    inputs: Mapping[str, list[str]],
    expected: Mapping[str, tuple[int, ...]],
) -> dict[str, Tensor]:
    def second(node: str, place: int = 1) -> Tensor:
        return tensors[inputs[node][place]]

    embeddings = "backbone.embeddings."
    state = {
        "cls_token": tensors[f"{embeddings}cls_token"],
        "pos_embed": torch.cat(
            # Of the class token, and of the patches before they are resized.
            [second("/backbone/embeddings/Concat_6", 0), _patch_positions(tensors, inputs)],
            1,
        ),
        "norm.weight": tensors["backbone.layernorm.weight"],
        "norm.bias": tensors["backbone.layernorm.bias"],
    }
    for kind in ("weight", "bias"):
        projection = f"{embeddings}patch_embeddings.projection.{kind}"
        state[f"patch_embed.proj.{kind}"] = tensors[projection]
    blocks = 1 + max(int(n.split(".")[1]) for n in expected if n.startswith("blocks."))
    for k in range(blocks):
        layer, node, block = f"backbone.encoder.layer.{k}.", f"/backbone/encoder/layer.{k}/", ""
        block = f"blocks.{k}."
        attention, heads = "attention/attention/", ("query", "key", "value")
        state[f"{block}attn.qkv.weight"] = torch.cat(
            [second(f"{node}{attention}{head}/MatMul").T for head in heads]
        )
        state[f"{block}attn.qkv.bias"] = torch.cat(
            [tensors[f"{layer}attention.attention.{head}.bias"] for head in heads]
        )
        for ours, theirs in {
            "attn.proj": "attention.output.dense",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        }.items():
            matrix = second(f"{node}{theirs.replace('.', '/')}/MatMul")
            state[f"{block}{ours}.weight"] = matrix.T
            state[f"{block}{ours}.bias"] = tensors[f"{layer}{theirs}.bias"]
        for norm in ("norm1", "norm2"):
            for kind in ("weight", "bias"):
                state[f"{block}{norm}.{kind}"] = tensors[f"{layer}{norm}.{kind}"]
        for number in (1, 2):
            state[f"{block}ls{number}.gamma"] = tensors[f"{layer}layer_scale{number}.lambda1"]
    return {name: state[name].contiguous().clone() for name in expected}


def _patch_positions(tensors: Mapping[str, Tensor], inputs: Mapping[str, list[str]]) -> Tensor:
    """The positions (1, N, D) of the patches: what the only reshape of a stored tensor takes."""
    names = inputs["/backbone/embeddings/Reshape_1"]
    return tensors[names[0]]


ADOPTED: dict[str, Published] = {
    published.facts.name: published
    for published in (
        Published(
            BackboneFacts(
                name="efficientnet-lite0",
                architecture="tf_efficientnet_lite0",
                side=224,
                mean=HALF,
                deviation=HALF,
                width=1280,
                digest="c4fd575f5ba4fc8fa73afbe348da0af35613bf9bcc1b7d4f623539a069329c34",
            ),
            in_order("tf_efficientnet_lite0", 1000),
        ),
        Published(
            BackboneFacts(
                name="mobilenetv2",
                architecture="mobilenetv2_100",
                side=224,
                mean=IMAGENET_MEAN,
                deviation=IMAGENET_DEVIATION,
                width=1280,
                digest="8c881cf8ab25f1b1d3b35213ac8bde48fe1fbac1052da432659f90eec424a850",
            ),
            in_order("mobilenetv2_100", 0),
        ),
        Published(
            BackboneFacts(
                name="dinov2-small-focus",
                architecture="vit_small_patch14_dinov2",
                side=224,
                mean=IMAGENET_MEAN,
                deviation=IMAGENET_DEVIATION,
                width=384,
                digest="6f06bf0d301940c752c4be2252699704b4c1f499a8f8f9c19af4e15cd3de44b5",
            ),
            dinov2_from_onnx("vit_small_patch14_dinov2"),
            vision_transformer=True,
        ),
    )
}
