"""Tiny encoders of text in files, as their packages hold them."""

import hashlib
import io
import json
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat", "sat", "the", "##s", "mat", ".", "[", "]"]
HEAD = "encoder.layer."


def bert_names(layers: int) -> list[str]:
    """Modules of a BERT, by Hugging Face's names."""
    parts = (
        "attention.self.query", "attention.self.key", "attention.self.value",
        "attention.output.dense", "attention.output.LayerNorm", "intermediate.dense",
        "output.dense", "output.LayerNorm",
    )  # fmt: skip
    return ["embeddings.LayerNorm", *(f"{HEAD}{k}.{part}" for k in range(layers) for part in parts)]


def bert_state(
    vocabulary: int = len(WORDS), width: int = 32, hidden: int = 64, layers: int = 2
) -> dict[str, torch.Tensor]:
    """Random weights of a BERT of 16 positions and 2 segments, by Hugging Face's names."""
    generator = torch.Generator().manual_seed(4)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    state = {
        "embeddings.word_embeddings.weight": draw(vocabulary, width),
        "embeddings.position_embeddings.weight": draw(16, width),
        "embeddings.token_type_embeddings.weight": draw(2, width),
    }
    for name in bert_names(layers):
        norm = name.endswith("LayerNorm")
        rows = hidden if name.endswith("intermediate.dense") else width
        columns = hidden if f".{name.split('.', 3)[-1]}" == ".output.dense" else width
        state[f"{name}.weight"] = 1 + draw(width) if norm else draw(rows, columns)
        state[f"{name}.bias"] = draw(rows)
    return state


def plain_bert(state: dict[str, torch.Tensor], ids: list[int], heads: int) -> torch.Tensor:
    """The last hidden states of one text (N, D), written out from the paper, in float64."""
    w = {name: value.double() for name, value in state.items()}
    width = w["embeddings.LayerNorm.weight"].numel()

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(1, keepdim=True)
        scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-12).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm("embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"][0])
    layers = len({name.split(".")[2] for name in state if name.startswith(HEAD)})
    for k in range(layers):
        layer = f"{HEAD}{k}."
        q, k_, v = (linear(f"{layer}attention.self.{p}", x) for p in ("query", "key", "value"))
        size, mixed = width // heads, []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            weights = (q[:, part] @ k_[:, part].T / size**0.5).softmax(1)
            mixed.append(weights @ v[:, part])
        out = linear(f"{layer}attention.output.dense", torch.cat(mixed, 1))
        x = norm(f"{layer}attention.output.LayerNorm", x + out)
        inner = linear(f"{layer}intermediate.dense", x)
        inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        x = norm(f"{layer}output.LayerNorm", x + linear(f"{layer}output.dense", inner))
    return x


def word_pieces(words: list[str] = WORDS) -> str:
    """A tokenizer.json of WordPiece; it cuts and pads, as published ones do."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    places = {word: place for place, word in enumerate(words)}
    library = Tokenizer(models.WordPiece(places, unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    library.add_special_tokens(words[:4])
    library.enable_truncation(4)
    library.enable_padding(length=8)
    return library.to_str()


def bert_folder(folder: Path, **config: object) -> Path:
    """A folder as Hugging Face stores a BERT; config: entries of config.json that differ."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {"model_type": "bert", "hidden_act": "gelu", "num_attention_heads": 4}
    (folder / "config.json").write_text(json.dumps({**usual, "layer_norm_eps": 1e-12, **config}))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    (folder / "tokenizer.json").write_text(word_pieces())
    state = {**bert_state(), "pooler.dense.weight": torch.zeros(32, 32)}
    save_file(state, folder / "model.safetensors")
    return folder


PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁query", ":", "▁the", "cat", "s", "▁a", "b", "é"]
E5_NAMES = {
    "attention.self.query": "q", "attention.self.key": "k", "attention.self.value": "v",
    "attention.output.dense": "ao", "attention.output.LayerNorm": "aln",
    "intermediate.dense": "fi", "output.dense": "fo", "output.LayerNorm": "oln",
}  # fmt: skip


@dataclass
class E5File:
    """The parts of a file of E5 in four bits; change one, then take `content()`."""

    magic: bytes = b"E5S1"
    version: int = 1
    layers: int = 2
    pieces: list[str] = field(default_factory=lambda: list(PIECES))
    replacements: dict[int, str] = field(
        default_factory=lambda: {9: " ", 0x1F: "", 0xBD: "1⁄2", 0xFB01: "fi"}
    )
    state: dict[str, torch.Tensor] = field(default_factory=lambda: bert_state(len(PIECES) + 2))
    sizes: dict[str, int] = field(default_factory=dict)

    def tensors(self) -> list[tuple[str, int, np.ndarray]]:
        """Names, kinds and values, by the names of the format."""
        names = {
            "word_embeddings.weight": "word", "position_embeddings.weight": "pos",
            "token_type_embeddings.weight": "type", "LayerNorm.weight": "ln.w",
            "LayerNorm.bias": "ln.b",
        }  # fmt: skip
        rows = []
        for name, value in self.state.items():
            if name.startswith("embeddings."):
                short = f"emb.{names[name.removeprefix('embeddings.')]}"
            else:
                _, _, number, part = name.split(".", 3)
                module, kind = part.rsplit(".", 1)
                short = f"l{number}.{E5_NAMES[module]}.{kind[0]}"
            packed = short == "emb.word" or (value.ndim == 2 and not short.startswith("emb."))
            rows.append((short, int(packed), value.numpy()))
        return rows

    def content(self) -> bytes:
        """The file."""
        sizes = {"width": 32, "layers": self.layers, "heads": 4, "hidden": 64, "words": 15}
        sizes |= {"positions": 16, "types": 2, **self.sizes}
        out = self.magic + struct.pack("<I7ifi", self.version, *sizes.values(), 1e-12, 32)
        blob = [piece.encode() for piece in self.pieces]
        ends = np.cumsum([0, *map(len, blob)]).astype("<u4")
        scores = -np.arange(len(blob), dtype="<f4")
        out += struct.pack("<5iQ", len(blob), 0, 2, 1, 3, int(ends[-1]))
        out += ends.tobytes() + scores.tobytes() + b"".join(blob)
        rows = b"".join(
            struct.pack("<IB", letter, len(text)) + np.array([*map(ord, text)], "<u4").tobytes()
            for letter, text in self.replacements.items()
        )
        out += struct.pack("<iI", len(self.replacements), len(rows)) + rows
        tensors = [
            (name.encode(), kind, value.size, four_bits(value) if kind else value.tobytes())
            for name, kind, value in self.tensors()
        ]
        place = len(out) + 4 + sum(2 + len(name) + 21 for name, *_ in tensors)
        table, values = struct.pack("<i", len(tensors)), b""
        for name, kind, count, raw in tensors:
            entry = struct.pack("<BIQQ", kind, count, place + len(values), len(raw))
            table += struct.pack("<H", len(name)) + name + entry
            values += raw
        return out + table + values


def four_bits(values: np.ndarray) -> bytes:
    """Blocks of 32 weights: a scale, then weight j and weight j + 16 in byte j."""
    out = b""
    for block in values.reshape(-1, 32):
        scale = np.float16(np.abs(block).max() / 7)
        numbers = np.clip(np.rint(block / np.float32(scale)), -8, 7).astype(int) + 8
        out += scale.tobytes() + bytes(int(a | b << 4) for a, b in zip(numbers[:16], numbers[16:]))
    return out


def rounded(values: torch.Tensor) -> torch.Tensor:
    """The weights that four bits can hold."""
    blocks = values.reshape(-1, 32)
    scale = (blocks.abs().amax(1, keepdim=True) / 7).half().float()
    return ((blocks / scale).round().clamp(-8, 7) * scale).reshape(values.shape)


def wheel(files: dict[str, bytes]) -> tuple[bytes, str]:
    """A wheel, and the sha256 of its bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue(), hashlib.sha256(buffer.getvalue()).hexdigest()
