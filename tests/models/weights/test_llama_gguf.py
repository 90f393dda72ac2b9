"""A language model out of a GGUF file computes what it computed before it was put there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="transformers is optional (extra language)")

from headwise.models.language.opening import open_language_folder
from headwise.models.weights.gguf import read_gguf
from headwise.models.weights.gguf_folder import write_folder
from headwise.models.weights.llama_gguf import language_weights

from .gguf_models import GPT2, gemma3, llama, write_model

TOKENS = torch.randint(0, len(GPT2), (2, 24), generator=torch.Generator().manual_seed(2))


def refused(tmp_path: Path, **changes: object) -> str:
    path = write_model(tmp_path / "a.gguf", "llama", llama(), **changes)
    with pytest.raises(ValueError, match=r"a\.gguf: ") as caught:
        language_weights(read_gguf(path))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.mark.parametrize("kind", ["llama", "llama with its own output", "gemma3"])
def test_the_logits_are_those_of_the_model_that_was_written(kind: str, tmp_path: Path) -> None:
    model = gemma3() if kind == "gemma3" else llama(tied=kind == "llama")
    source = write_model(tmp_path / "a.gguf", kind.split()[0], model)
    folder = tmp_path / "out"
    folder.mkdir()
    write_folder(source, folder)
    opened = open_language_folder(folder)
    expected = model.state_dict()
    assert {name for name, _ in opened.model.named_parameters()} == {
        name for name, _ in model.named_parameters()
    }
    for name, value in opened.model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    with torch.no_grad():
        assert torch.equal(opened.model(TOKENS).logits, model(TOKENS).logits)
    assert opened.facts.windows.count(None) == (1 if kind == "gemma3" else 2)
    assert opened.model.generation_config.eos_token_id == 0


def test_the_folder_has_tokenizer_template_and_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    write_folder(write_model(tmp_path / "a.gguf", "llama", llama()), folder)
    opened = open_language_folder(folder)
    ids = opened.tokenizer("the 12 <|end|>").input_ids
    assert [GPT2[k] for k in ids] == ["the", "Ġ", "1", "2", "Ġ", "<|end|>"]
    assert opened.tokenizer.decode(ids) == "the 12 <|end|>"
    talk = [{"role": "user", "content": "a the"}]
    assert opened.tokenizer.apply_chat_template(talk, tokenize=False) == "<|start|>a the"
    assert (opened.tokenizer.padding_side, opened.tokenizer.pad_token) == ("left", "<|end|>")
    assert opened.tokenizer.model_max_length == 128
    config = json.loads((folder / "config.json").read_text())
    assert config["rms_norm_eps"] == 1e-5
    assert config["rope_theta"] == 500.0


def test_what_is_not_known_is_refused_and_not_left_out(tmp_path: Path) -> None:
    one = np.ones(4, np.float32)
    assert "read are llama, gemma3" in refused(tmp_path, facts={"general.architecture": "mamba"})
    scaled = refused(tmp_path, facts={"llama.rope.scaling.factor": 8.0})
    assert "'llama.rope.scaling.factor', which is not known for llama" in scaled
    further = refused(tmp_path, tensors={"rope_freqs.weight": one})
    assert "holds the tensor 'rope_freqs.weight'" in further
    bias = refused(tmp_path, tensors={"blk.0.attn_q.bias": one})
    assert "holds the tensor 'blk.0.attn_q.bias'" in bias
    assert "lacks model.layers.1.mlp.up_proj.weight" in refused(
        tmp_path, tensors={"blk.1.ffn_up.weight": None}
    )
    assert "lacks token_embd.weight" in refused(tmp_path, tensors={"token_embd.weight": None})
    assert "has too much: model.layers.2.mlp.up_proj.weight" in refused(
        tmp_path, tensors={"blk.2.ffn_up.weight": np.ones((48, 32))}
    )
    assert "has the shape (48, 31), not (48, 32)" in refused(
        tmp_path, tensors={"blk.1.ffn_up.weight": np.ones((48, 31))}
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("block_count", None, "block_count is None, not a count"),
        ("block_count", 0, "block_count is 0, not a count"),
        ("embedding_length", [1, 2], r"embedding_length is \[1, 2\], not a count"),
        ("attention.head_count_kv", 3, "has 4 heads of queries for 3 of keys"),
        ("attention.key_length", 6, "heads of 6"),
        ("rope.freq_base", -1.0, "freq_base is -1.0, not a positive number"),
    ],
)
def test_facts_that_are_no_sizes_are_one_line(
    name: str, value: object, words: str, tmp_path: Path
) -> None:
    assert re.search(words, refused(tmp_path, facts={f"llama.{name}": value}))


def test_a_vocabulary_of_another_size_than_its_vectors_is_refused(tmp_path: Path) -> None:
    path = write_model(
        tmp_path / "a.gguf", "llama", llama(), tensors={"token_embd.weight": np.ones((40, 32))}
    )
    with pytest.raises(ValueError, match=rf"has {len(GPT2)} tokens and vectors of 40"):
        write_folder(path, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.gguf"]
