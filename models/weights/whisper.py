"""Weights of Whisper as OpenAI, Hugging Face and CTranslate2 store them, read without unpickling
code.

Formats: a .pt of OpenAI (dims and weights, by torch's weights-only reader); a folder of Hugging
Face (config.json and safetensors, or .bin by the same reader); a folder of CTranslate2 (config.json
and model.bin, version 6, in float32, float16, bfloat16 or int8). Where a key has no bias, as in
Whisper, ours is 0."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

FILE_CAP = 16 << 30  # bytes; the largest published model has 6.2 GB
Part = tuple[Tensor, Tensor | None]  # weight and bias


@dataclass(frozen=True)
class WhisperWeights:
    """options: of `SpeechToText`; state: its weights, float32; alignment_heads: (layer, head) that
    the publisher chose for word times, perhaps none."""

    options: dict[str, int]
    state: dict[str, Tensor]
    alignment_heads: tuple[tuple[int, int], ...]


def read_whisper(path: str | Path) -> WhisperWeights:
    """The weights of a file or folder. Raises ValueError, one line, for what is missing, damaged or
    another model.
    """
    given = Path(path)
    try:
        if given.is_dir():
            if (given / "model.bin").is_file():
                return _assembled(*_read_ctranslate2(given))
            if (given / "config.json").is_file():
                return _assembled(*_read_hugging_face(given))
            raise ValueError(
                f"{path}: holds neither model.bin (CTranslate2) nor config.json (Hugging Face)"
            )
        if given.is_file():
            return _assembled(*_read_openai(given))
    except (
        OSError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        RuntimeError,
        UnicodeError,
    ) as error:
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"{path}: cannot be read as weights of Whisper ({said})") from None
    raise ValueError(f"{path}: there is no such file or folder of weights")


# Names of a layer's parts, from the format's to ours; q, k, v are joined, see `_assembled`.
Read = Callable[[str], Part]
Heads = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Names:
    encoder: str  # prefix of a layer of the encoder, with {} for its number
    decoder: str
    own: str
    own_norm: str
    cross: str
    cross_norm: str
    parts: tuple[str, ...]  # q, k, v, out; or qkv, q, kv, out of CTranslate2
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


def _assembled(
    names: _Names, raw: dict[str, Tensor], heads: int, alignment: Heads
) -> WhisperWeights:
    """Our names and shapes."""
    joint, end = names is _CTRANSLATE2, "/" if names is _CTRANSLATE2 else "."

    def part(name: str, kind: str = "weight") -> Part:
        weight = raw[f"{name}{end}{'gamma' if kind == 'norm' and joint else 'weight'}"].float()
        bias = raw.get(f"{name}{end}{'beta' if kind == 'norm' and joint else 'bias'}")
        return weight, None if bias is None else bias.float()

    def attention(prefix: str, crossing: bool) -> dict[str, Part]:
        if joint and crossing:
            query, key_value, out = (part(prefix + name) for name in names.parts)
        elif joint:
            both, out = part(prefix + names.parts[0]), part(prefix + names.parts[1])
            width = both[0].shape[1]
            query, key_value = (
                (both[0][span], None if both[1] is None else both[1][span])
                for span in (slice(width), slice(width, None))
            )
        else:
            query, key, value, out = (part(prefix + name) for name in names.parts)
            biases = [
                torch.zeros(len(one[0])) if one[1] is None else one[1] for one in (key, value)
            ]
            key_value = torch.cat([key[0], value[0]]), torch.cat(biases)
        return {"query": query, "key_value": key_value, "out": out}

    state: dict[str, Tensor] = {}

    def put(name: str, given: Part) -> None:
        weight, bias = given
        state[f"{name}.weight"] = weight
        state[f"{name}.bias"] = torch.zeros(len(weight)) if bias is None else bias

    layers = [0, 0]
    for side, ours in enumerate(("encoder", "decoder")):
        pattern = (names.encoder, names.decoder)[side]
        while any(key.startswith(pattern.format(layers[side])) for key in raw):
            at, to = pattern.format(layers[side]), f"{ours}.layers.{layers[side]}."
            own = "own" if side else "mixer"
            put(f"{to}norm1", part(at + names.own_norm, "norm"))
            for name, given in attention(at + names.own, False).items():
                put(f"{to}{own}.{name}", given)
            if side:
                put(f"{to}norm2", part(at + names.cross_norm, "norm"))
                for name, given in attention(at + names.cross, True).items():
                    put(f"{to}cross.{name}", given)
            put(f"{to}norm{3 if side else 2}", part(at + names.norm, "norm"))
            put(f"{to}feedforward.up", part(at + names.up))
            put(f"{to}feedforward.down", part(at + names.down))
            layers[side] += 1
    for number in (1, 2):
        put(f"encoder.conv{number}", part(names.conv.format(number)))
    put("encoder.norm", part(names.encoder_norm, "norm"))
    put("decoder.norm", part(names.decoder_norm, "norm"))
    tokens = part(names.tokens)[0]
    state |= {
        "decoder.tokens.weight": tokens,
        "decoder.positions": raw[names.positions].float(),
        "encoder.positions": raw[names.audio_positions].float(),
    }
    options = {
        "vocabulary": len(tokens),
        "features": state["encoder.conv1.weight"].shape[1],
        "width": tokens.shape[1],
        "heads": heads,
        "encoder_layers": layers[0],
        "decoder_layers": layers[1],
        "audio_positions": len(state["encoder.positions"]),
        "text_positions": len(state["decoder.positions"]),
    }
    return WhisperWeights(
        options, {name: value.contiguous() for name, value in state.items()}, alignment
    )


def _read_openai(path: Path) -> tuple[_Names, dict[str, Tensor], int, Heads]:
    found: Any = _torch_file(path)
    if not isinstance(found, dict) or not {"dims", "model_state_dict"} <= set(found):
        raise ValueError(
            f"{path}: holds no dims and model_state_dict, as weights of OpenAI's Whisper do"
        )
    return _OPENAI, found["model_state_dict"], int(found["dims"]["n_text_head"]), ()


def _torch_file(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be read as weights ({' '.join(str(error).split())[:120]})"
        ) from None


def _read_hugging_face(folder: Path) -> tuple[_Names, dict[str, Tensor], int, Heads]:
    config = _json(folder / "config.json")
    if config.get("model_type") != "whisper":
        raise ValueError(f"{folder}: is a model of type {config.get('model_type')!r}, not whisper")
    from safetensors.torch import load_file

    files = sorted(folder.glob("model*.safetensors"))
    state: dict[str, Tensor] = {}
    for file in files:
        state |= load_file(file)
    if not files:
        state = _torch_file(folder / "pytorch_model.bin")
    file = folder / "generation_config.json"
    chosen = _json(file).get("alignment_heads") if file.is_file() else None
    raw = {name.removeprefix("model."): value for name, value in state.items()}
    return (
        _HUGGING_FACE,
        raw,
        int(config["decoder_attention_heads"]),
        tuple((int(a), int(b)) for a, b in chosen or ()),
    )


def _json(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds no object")
    return found


def _read_ctranslate2(folder: Path) -> tuple[_Names, dict[str, Tensor], int, Heads]:
    path = folder / "model.bin"
    if path.stat().st_size > FILE_CAP:
        raise ValueError(f"{path}: is larger than {FILE_CAP >> 30} GiB")
    with path.open("rb") as opened:
        raw = _variables(path, opened)
    file = folder / "config.json"
    chosen = _json(file).get("alignment_heads") if file.is_file() else None
    for name in [name for name in raw if name.endswith("weight_scale")]:
        weight = name.removesuffix("_scale")
        scale = raw[name].float()
        raw[weight] = raw[weight].float() / (
            scale[:, None] if scale.ndim == 1 and len(scale) > 1 else scale
        )
    return (
        _CTRANSLATE2,
        raw,
        int(raw["decoder/num_heads"]),
        tuple((int(a), int(b)) for a, b in chosen or ()),
    )


_TYPES = {
    0: np.float32,
    1: np.int8,
    2: np.int16,
    3: np.int32,
    4: np.float16,
    5: np.uint16,
}  # 5: bfloat16


def _variables(path: Path, file: BinaryIO) -> dict[str, Tensor]:
    """Every variable of a model.bin; each count is checked before room is made for it."""
    left = path.stat().st_size

    def take(count: int) -> bytes:
        nonlocal left
        if count > left:
            raise ValueError(f"{path}: ends too early; fetch it again")
        left -= count
        return file.read(count)

    def whole(count: int) -> int:
        return int.from_bytes(take(count), "little")

    def text() -> str:
        return take(whole(2))[:-1].decode()

    version = whole(4)
    if version != 6:
        raise ValueError(f"{path}: is of version {version} of CTranslate2's format; 6 is read here")
    kind = text()
    if kind != "WhisperSpec":
        raise ValueError(f"{path}: is a {kind!r}, not a WhisperSpec")
    whole(4)
    found: dict[str, Tensor] = {}
    for _ in range(whole(4)):
        name = text()
        shape = tuple(whole(4) for _ in range(whole(1)))
        number = whole(1)
        if number not in _TYPES:
            raise ValueError(f"{path}: {name} is of a type that is not read here ({number})")
        kind_of = np.dtype(_TYPES[number])
        size = whole(4)
        if size != math.prod(shape) * kind_of.itemsize:
            raise ValueError(f"{path}: {name} holds {size} bytes, not those of {shape}")
        values = torch.from_numpy(np.frombuffer(bytearray(take(size)), kind_of).reshape(shape))
        found[name] = values.view(torch.bfloat16) if number == 5 else values
    for _ in range(whole(4)):
        alias, name = text(), text()
        found[alias] = found[name]
    return found
