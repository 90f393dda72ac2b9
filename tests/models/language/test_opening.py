"""Folders of language models are opened without running anything in them, or refused in a line."""

import json
import re
import shutil
import socket
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is optional (extra language)")
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from headwise.models.language.opening import open_language_folder

from .tiny_models import WORDS, tiny_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    tiny_model("llama").save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{k}": k for k in range(WORDS)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def refused(folder: Path) -> str:
    with pytest.raises(ValueError, match=re.escape(str(folder))) as caught:
        open_language_folder(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(file: Path, **entries: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def test_a_folder_is_opened_without_a_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    opened = open_language_folder(folder)
    expected = tiny_model("llama").state_dict()
    for name, value in opened.model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert not opened.model.training
    assert (opened.name, opened.licence, opened.folder) == (str(folder), "not stated", folder)
    assert opened.facts.kv_heads == 3
    assert opened.tokenizer("w3").input_ids == [3]


def test_the_checksum_is_of_settings_weights_and_tokenizer(folder: Path) -> None:
    first = open_language_folder(folder).sha256
    assert open_language_folder(folder).sha256 == first
    (folder / "README.md").write_text("words")
    assert open_language_folder(folder).sha256 == first
    for name in ("config.json", "tokenizer.json"):
        with (folder / name).open("a") as file:
            file.write("\n")
        second = open_language_folder(folder).sha256
        assert second != first
        first = second


def test_what_is_said_of_prompts_and_answers_has_a_checksum(folder: Path) -> None:
    """It changes with what a file says, not with its form or with who wrote it."""
    seen = {open_language_folder(folder).settings_sha256}
    settings = folder / "tokenizer_config.json"
    change(settings, chat_template="{{ messages[0].content }}!")
    (folder / "generation_config.json").write_text('{"eos_token_id": 3}')
    seen.add(first := open_language_folder(folder).settings_sha256)
    settings.write_text(json.dumps(json.loads(settings.read_text()), indent=7))
    change(folder / "generation_config.json", transformers_version="9.9.9")
    assert open_language_folder(folder).settings_sha256 == first
    change(folder / "generation_config.json", eos_token_id=4)
    seen.add(open_language_folder(folder).settings_sha256)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    seen.add(open_language_folder(folder).settings_sha256)
    assert len(seen) == 4


def test_weights_may_lie_in_several_files(folder: Path) -> None:
    whole = open_language_folder(folder).model.state_dict()
    (folder / "model.safetensors").unlink()
    tiny_model("llama").save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    for name, value in open_language_folder(folder).model.state_dict().items():
        assert torch.equal(value, whole[name])
    next(iter(sorted(folder.glob("model-*")))).unlink()
    assert "lacks model-00001" in refused(folder)
    index = folder / "model.safetensors.index.json"
    change(index, weight_map={"a": "../other/model.safetensors"})
    assert "names '../other/model.safetensors', no file of weights in it" in refused(folder)
    change(index, weight_map={})
    assert "names no files of weights" in refused(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "a.pkl"])
def test_a_pickle_is_refused_unopened(name: str, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / name)
    text = refused(folder)
    assert f"{name} is a pickle, which can run code, and is not opened" in text
    assert "save_pretrained" in text


def test_what_is_missing_or_damaged_is_one_line(folder: Path, tmp_path: Path) -> None:
    assert "is no folder" in refused(tmp_path / "missing")
    (folder / "tokenizer.json").rename(folder / "kept")
    assert "has no tokenizer.json" in refused(folder)
    (folder / "tokenizer.json").write_text("{}")
    assert "its tokenizer cannot be opened" in refused(folder)
    (folder / "kept").rename(folder / "tokenizer.json")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-100])
    assert "cannot be opened" in refused(folder)
    weights.unlink()
    assert "has no model.safetensors" in refused(folder)
    weights.write_bytes(content)
    for text, words in (("{", "as JSON"), ("[]", "no JSON object"), ("{}", "is None")):
        (folder / "config.json").write_text(text)
        assert words in refused(folder)
    (folder / "config.json").unlink()
    assert "config.json: is missing" in refused(folder)


def test_code_of_the_folder_is_never_run(folder: Path) -> None:
    (folder / "modeling.py").write_text("raise SystemExit('it ran')\n")
    classes = {"AutoModelForCausalLM": "modeling.Model", "AutoConfig": "modeling.Config"}
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        before = (folder / name).read_text()
        change(folder / name, auto_map=classes)
        assert "asks to run code of its own (auto_map)" in refused(folder)
        (folder / name).write_text(before)
    open_language_folder(folder)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"is_encoder_decoder": True}, "is an encoder with a decoder"),
        ({"model_type": "t5", "architectures": ["T5Model"]}, "no causal language model"),
        ({"model_type": "not-there"}, "is 'not-there', of which transformers has no"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "not a causal language model"),
        ({"quantization_config": {"quant_method": "gptq"}}, "its weights are quantised"),
        ({"num_hidden_layers": 4}, "the model lacks 9 of its weights, such as model.layers.3"),
        ({"num_hidden_layers": 2}, "the model does not know 9 of its weights"),
        ({"hidden_size": 24}, "cannot be opened"),
    ],
)
def test_other_kinds_of_models_are_refused(
    entries: dict[str, object], words: str, folder: Path
) -> None:
    change(folder / "config.json", **entries)
    assert words in refused(folder)


def test_adapters_and_models_that_fill_gaps_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    assert "holds an adapter; merge it" in refused(folder)
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForMaskedLM(BertConfig(**sizes, intermediate_size=8)).save_pretrained(tmp_path / "bert")
    assert "is a 'BertForMaskedLM', not a causal" in refused(tmp_path / "bert")


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    words = Tokenizer(models.WordLevel({f"w{k}": k for k in range(WORDS + 1)}, unk_token="w0"))
    words.save(str(folder / "tokenizer.json"))
    assert f"has {WORDS + 1} tokens, and its weights are of {WORDS}" in refused(folder)
