"""Weights of Whisper as OpenAI, Hugging Face and CTranslate2 store them, read without unpickling
code.

Formats: a .pt of OpenAI (dims and weights, by torch's weights-only reader); a folder of Hugging
Face (config.json and safetensors, or .bin by the same reader); a folder of CTranslate2 (config.json
and model.bin, version 6, in float32, float16, bfloat16 or int8). Where a key has no bias, as in
Whisper, ours is 0.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypedDict

import numpy as np
import torch
from torch import Tensor

from ...base.errors import reason

FILE_CAP = 16 << 30  # bytes; the largest published model has 6.2 GB
_DAMAGE = (
    OSError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, UnicodeError,
)  # fmt: skip
WeightBias = tuple[Tensor, Tensor | None]
Heads = tuple[tuple[int, int], ...]  # (layer, head)


class WhisperSizes(TypedDict):
    """Sizes of a model, as `SpeechToText` takes them."""

    vocabulary: int
    features: int
    width: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    audio_positions: int
    text_positions: int


@dataclass(frozen=True)
class WhisperWeights:
    """Weights by the names of `SpeechToText`."""

    options: WhisperSizes
    state: dict[str, Tensor]
    """Weights, float32."""
    alignment_heads: Heads
    """Those that the publisher chose for word times; may be empty."""


def read_whisper(path: str | Path) -> WhisperWeights:
    """The weights of a file or folder. Raises ValueError, one line, where it is missing or damaged,
    or holds another model.
    """
    source = Path(path)
    try:
        if source.is_dir():
            if (source / "model.bin").is_file():
                return _assemble(_read_ctranslate2(source))
            if (source / "config.json").is_file():
                return _assemble(_read_hugging_face(source))
            raise ValueError(
                f"{path}: holds neither model.bin (CTranslate2) nor config.json (Hugging Face)"
            )
        if source.is_file():
            return _assemble(_read_openai(source))
    except _DAMAGE as error:
        raise ValueError(
            f"{path}: cannot be read as weights of Whisper ({reason(error, 120)})"
        ) from None
    raise ValueError(f"{path}: there is no such file or folder of weights")


@dataclass(frozen=True)
class _Names:
    """The names of a format's weights."""

    encoder: str  # prefix of a layer of the encoder, with {} for its number
    decoder: str
    self_attention: str
    self_norm: str
    cross: str
    cross_norm: str
    parts: tuple[str, ...]  # q, k, v, out; CTranslate2: qkv, out, or q, kv, out of cross-attention
    up: str
    down: str
    norm: str  # before the feed-forward network
    conv: str
    encoder_norm: str
    decoder_norm: str
    tokens: str
    positions: str
    audio_positions: str


_OPENAI = _Names(
    "encoder.blocks.{}.",
    "decoder.blocks.{}.",
    "attn.",
    "attn_ln",
    "cross_attn.",
    "cross_attn_ln",
    ("query", "key", "value", "out"),
    "mlp.0",
    "mlp.2",
    "mlp_ln",
    "encoder.conv{}",
    "encoder.ln_post",
    "decoder.ln",
    "decoder.token_embedding",
    "decoder.positional_embedding",
    "encoder.positional_embedding",
)
_HUGGING_FACE = _Names(
    "encoder.layers.{}.",
    "decoder.layers.{}.",
    "self_attn.",
    "self_attn_layer_norm",
    "encoder_attn.",
    "encoder_attn_layer_norm",
    ("q_proj", "k_proj", "v_proj", "out_proj"),
    "fc1",
    "fc2",
    "final_layer_norm",
    "encoder.conv{}",
    "encoder.layer_norm",
    "decoder.layer_norm",
    "decoder.embed_tokens",
    "decoder.embed_positions.weight",
    "encoder.embed_positions.weight",
)
_CTRANSLATE2 = _Names(
    "encoder/layer_{}/",
    "decoder/layer_{}/",
    "self_attention/",
    "self_attention/layer_norm",
    "attention/",
    "attention/layer_norm",
    ("linear_0", "linear_1", "linear_2"),
    "ffn/linear_0",
    "ffn/linear_1",
    "ffn/layer_norm",
    "encoder/conv{}",
    "encoder/layer_norm",
    "decoder/layer_norm",
    "decoder/embeddings",
    "decoder/position_encodings/encodings",
    "encoder/position_encodings/encodings",
)


@dataclass(frozen=True)
class _Stored:
    """Weights by the names of their format, and the number of heads."""

    names: _Names
    raw: dict[str, Tensor]
    heads: int
    alignment_heads: Heads = ()

    @property
    def fused(self) -> bool:
        """Whether query, key and value are one matrix, as in CTranslate2."""
        return self.names is _CTRANSLATE2

    def linear(self, name: str) -> WeightBias:
        """Weight and bias of a layer."""
        return self._pair(name, "weight", "bias")

    def norm(self, name: str) -> WeightBias:
        """Weight and bias of a normalisation."""
        return self._pair(name, "gamma", "beta") if self.fused else self.linear(name)

    def _pair(self, name: str, weight: str, bias: str) -> WeightBias:
        separator = "/" if self.fused else "."
        bias_values = self.raw.get(f"{name}{separator}{bias}")
        return (
            self.raw[f"{name}{separator}{weight}"].float(),
            None if bias_values is None else bias_values.float(),
        )

    def attention(self, prefix: str, *, crossing: bool) -> dict[str, WeightBias]:
        """Query, keys with values, and output of an attention."""
        count = 2 if self.fused and not crossing else len(self.names.parts)
        parts = [self.linear(prefix + name) for name in self.names.parts[:count]]
        if self.fused and crossing:
            query, key_value, out = parts
        elif self.fused:
            (weight, bias), out = parts
            width = weight.shape[1]
            query = weight[:width], None if bias is None else bias[:width]
            key_value = weight[width:], None if bias is None else bias[width:]
        else:
            query, key, value, out = parts
            biases = [_bias(key), _bias(value)]
            key_value = torch.cat([key[0], value[0]]), torch.cat(biases)
        return {"query": query, "key_value": key_value, "out": out}


def _bias(layer: WeightBias) -> Tensor:
    weight, bias = layer
    return torch.zeros(len(weight)) if bias is None else bias


def _assemble(stored: _Stored) -> WhisperWeights:
    """Our names and shapes."""
    names, raw = stored.names, stored.raw
    state: dict[str, Tensor] = {}

    def put(name: str, layer: WeightBias) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = layer[0], _bias(layer)

    depths = {"encoder": 0, "decoder": 0}
    for side, pattern in (("encoder", names.encoder), ("decoder", names.decoder)):
        decoder = side == "decoder"
        while any(key.startswith(pattern.format(depths[side])) for key in raw):
            source, target = pattern.format(depths[side]), f"{side}.layers.{depths[side]}."
            put(f"{target}norm1", stored.norm(source + names.self_norm))
            mixer = stored.attention(source + names.self_attention, crossing=False)
            for name, layer in mixer.items():
                put(f"{target}{'own' if decoder else 'mixer'}.{name}", layer)
            if decoder:
                put(f"{target}norm2", stored.norm(source + names.cross_norm))
                for name, layer in stored.attention(source + names.cross, crossing=True).items():
                    put(f"{target}cross.{name}", layer)
            put(f"{target}norm{3 if decoder else 2}", stored.norm(source + names.norm))
            put(f"{target}feedforward.up", stored.linear(source + names.up))
            put(f"{target}feedforward.down", stored.linear(source + names.down))
            depths[side] += 1
    for number in (1, 2):
        put(f"encoder.conv{number}", stored.linear(names.conv.format(number)))
    put("encoder.norm", stored.norm(names.encoder_norm))
    put("decoder.norm", stored.norm(names.decoder_norm))
    tokens = stored.linear(names.tokens)[0]
    state |= {
        "decoder.tokens.weight": tokens,
        "decoder.positions": raw[names.positions].float(),
        "encoder.positions": raw[names.audio_positions].float(),
    }
    options: WhisperSizes = {
        "vocabulary": len(tokens),
        "features": state["encoder.conv1.weight"].shape[1],
        "width": tokens.shape[1],
        "heads": stored.heads,
        "encoder_layers": depths["encoder"],
        "decoder_layers": depths["decoder"],
        "audio_positions": len(state["encoder.positions"]),
        "text_positions": len(state["decoder.positions"]),
    }
    state = {name: value.contiguous() for name, value in state.items()}
    return WhisperWeights(options, state, stored.alignment_heads)


def _read_openai(path: Path) -> _Stored:
    content = _torch_file(path)
    if not isinstance(content, dict) or not {"dims", "model_state_dict"} <= set(content):
        raise ValueError(
            f"{path}: holds no dims and model_state_dict, as weights of OpenAI's Whisper do"
        )
    return _Stored(_OPENAI, content["model_state_dict"], int(content["dims"]["n_text_head"]))


def _torch_file(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path}: cannot be read as weights ({reason(error, 120)})") from None


def _read_hugging_face(folder: Path) -> _Stored:
    config = _json(folder / "config.json")
    if config.get("model_type") != "whisper":
        raise ValueError(f"{folder}: is a model of type {config.get('model_type')!r}, not whisper")
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    files = sorted(folder.glob("model*.safetensors"))
    for file in files:
        state |= load_file(file)
    if not files:
        content = _torch_file(folder / "pytorch_model.bin")
        if not isinstance(content, dict):
            raise ValueError(f"{folder}: pytorch_model.bin holds no weights by name")
        state = content
    raw = {name.removeprefix("model."): value for name, value in state.items()}
    heads = int(str(config["decoder_attention_heads"]))
    return _Stored(_HUGGING_FACE, raw, heads, _alignment_heads(folder / "generation_config.json"))


def _json(path: Path) -> dict[str, object]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no object")
    return content


def _alignment_heads(config: Path) -> Heads:
    chosen = _json(config).get("alignment_heads") if config.is_file() else None
    pairs = chosen if isinstance(chosen, list) else []
    return tuple((int(layer), int(head)) for layer, head in pairs)


def _read_ctranslate2(folder: Path) -> _Stored:
    path = folder / "model.bin"
    if path.stat().st_size > FILE_CAP:
        raise ValueError(f"{path}: is larger than {FILE_CAP >> 30} GiB")
    with path.open("rb") as file:
        raw = _variables(path, file)
    for name in [name for name in raw if name.endswith("weight_scale")]:
        weight, scale = name.removesuffix("_scale"), raw[name].float()
        by_row = scale.ndim == 1 and len(scale) > 1
        raw[weight] = raw[weight].float() / (scale[:, None] if by_row else scale)
    heads = int(raw["decoder/num_heads"])
    return _Stored(_CTRANSLATE2, raw, heads, _alignment_heads(folder / "config.json"))


BFLOAT16 = 5
_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16, BFLOAT16: np.uint16}


class _Bytes:
    """The bytes of a file, one field after another; each size is checked before memory is taken
    for it.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file, self.remaining = path, file, path.stat().st_size

    def take(self, count: int) -> bytes:
        if count > self.remaining:
            raise ValueError(f"{self.path}: ends too early; fetch it again")
        self.remaining -= count
        return self.file.read(count)

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def text(self) -> str:
        return self.take(self.number(2))[:-1].decode()


def _variables(path: Path, file: BinaryIO) -> dict[str, Tensor]:
    """Every variable of a model.bin."""
    fields = _Bytes(path, file)
    version = fields.number(4)
    if version != 6:
        raise ValueError(f"{path}: is of version {version} of CTranslate2's format; 6 is read here")
    kind = fields.text()
    if kind != "WhisperSpec":
        raise ValueError(f"{path}: is a {kind!r}, not a WhisperSpec")
    fields.number(4)  # revision
    variables: dict[str, Tensor] = {}
    for _ in range(fields.number(4)):
        name = fields.text()
        shape = tuple(fields.number(4) for _ in range(fields.number(1)))
        code = fields.number(1)
        if code not in _TYPES:
            raise ValueError(f"{path}: {name} is of a type that is not read here ({code})")
        dtype, size = np.dtype(_TYPES[code]), fields.number(4)
        if size != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{path}: {name} holds {size} bytes, not those of {shape}")
        array = np.frombuffer(bytearray(fields.take(size)), dtype).reshape(shape)
        values = torch.from_numpy(array)
        variables[name] = values.view(torch.bfloat16) if code == BFLOAT16 else values
    for _ in range(fields.number(4)):
        alias, name = fields.text(), fields.text()
        variables[alias] = variables[name]
    return variables
