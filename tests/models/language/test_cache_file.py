"""A cache is written once and read by the same model, weights and plan only."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from headwise.models.language.plans.plan import Plan
from headwise.models.language.running.attach import attach
from headwise.models.language.running.cache_file import load_cache, save_cache, text_sha256
from headwise.tests.models.language.test_attach import mixed_plan, padded
from headwise.tests.models.language.tiny_models import KINDS, shared_model, texts, tiny_model

TOKENS = 37


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [[TOKENS, TOKENS], [TOKENS, 20, 2], [4, 4]])
def test_a_second_question_on_a_saved_cache(kind, lengths, tmp_path: Path) -> None:
    model = shared_model(kind)
    ids, real = padded(lengths, "left")
    mask, question = real.long(), texts(len(lengths), 5, seed=9)
    options = {"max_new_tokens": 6, "do_sample": False}
    asked = {
        "input_ids": torch.cat([ids, question], 1),
        "attention_mask": torch.cat([mask, torch.ones_like(question)], 1),
    }
    with torch.no_grad():
        with attach(model, mixed_plan(model)) as attached:
            expected = model.generate(**asked, **options)
            cache = attached.cache()
            places = (mask.cumsum(1) - 1).clamp_min(0)
            model(ids, attention_mask=mask, position_ids=places, cache=cache)
            save_cache(cache, tmp_path / "text.safetensors")
        with attach(model, mixed_plan(model)) as attached:
            for _ in range(2):
                read = load_cache(tmp_path / "text.safetensors", attached)
                assert read.bytes() == cache.bytes()
                assert torch.equal(read.tokens, ids)
                assert torch.equal(model.generate(**asked, **options, cache=read), expected)
            other = {**asked, "input_ids": torch.cat([ids, texts(len(lengths), 5, seed=4)], 1)}
            again = model.generate(
                **other, **options, cache=load_cache(tmp_path / "text.safetensors", attached)
            )
            assert torch.equal(again, model.generate(**other, **options))


def test_a_copy_of_a_cache_takes_a_question_and_leaves_the_original(tmp_path: Path) -> None:
    model = shared_model("gemma3")
    with torch.no_grad(), attach(model, mixed_plan(model)) as attached:
        cache = attached.cache()
        model(texts(2, TOKENS), cache=cache)
        held = cache.bytes()
        twin = copy.deepcopy(cache)
        assert twin.weights is cache.weights  # which holds the model
        logits = model(texts(2, 3, seed=8), cache=twin).logits
        assert (cache.bytes(), cache.get_seq_length()) == (held, TOKENS)
        assert torch.equal(model(texts(2, 3, seed=8), cache=cache).logits, logits)
        save_cache(twin, tmp_path / "twin.safetensors")
        assert load_cache(tmp_path / "twin.safetensors", attached).get_seq_length() == TOKENS + 3


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = shared_model("llama")
    with torch.no_grad(), attach(model, mixed_plan(model)) as attached:
        cache = attached.cache()
        model(texts(2, TOKENS), cache=cache)
        save_cache(cache, tmp_path / "text.safetensors")
    return tmp_path / "text.safetensors"


def refused(path: Path, model, plan: Plan, message: str) -> None:
    match = rf"^[^\n]*text\.safetensors: [^\n]*{message}[^\n]*$"
    with attach(model, plan) as attached, pytest.raises(ValueError, match=match):
        load_cache(path, attached)


def test_a_cache_of_another_model_weights_or_plan_is_refused(saved: Path) -> None:
    model = shared_model("llama")
    plan = mixed_plan(model)
    refused(saved, model, Plan.full(plan.facts), "under another plan")
    refused(saved, tiny_model("llama", seed=3), plan, "with other weights")
    refused(saved, tiny_model("llama").to(torch.bfloat16), plan, "with other weights")
    other = shared_model("mistral")
    refused(saved, other, mixed_plan(other), "with another model")
    with attach(model, plan) as attached, pytest.raises(ValueError, match="read no text"):
        save_cache(attached.cache(), saved)


def rewritten(path: Path, change: str) -> None:
    """The file with something in it that does not fit."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["headwise"])
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    first = next(name for name in tensors if name.endswith(".positions"))
    if change == "text":
        tensors["tokens"][0, 0] += 1
    elif change == "no text":
        del tensors["tokens"]
    elif change == "format":
        header["format"] = "other"
    elif change == "version":
        header["version"] = 7
    elif change == "layers":
        header["layers"].pop()
    elif change == "groups":
        header["layers"][0][0] = 99
    elif change == "a group less":
        header["layers"][0].pop()
    elif change == "a group twice":
        header["layers"][0][1] = header["layers"][0][0]
    elif change == "a list of words":
        header["layers"] = ["x", "y", "z"]
    elif change == "shape":
        tensors["1.0.keys"] = tensors["1.0.keys"][:, :, 1:].contiguous()
    elif change == "type":
        tensors["1.0.values"] = tensors["1.0.values"].double()
    elif change == "positions":
        tensors[first] = tensors[first].flip(1).contiguous()
    elif change == "a single number":
        tensors[first] = torch.tensor(3)
    elif change == "a number":
        tensors["1.0.keys"][0, 0, 0, 0] += 1
    elif change == "rows":
        tensors["1.0.rows"] = torch.tensor([0, 5])
    save_file(tensors, path, {"headwise": json.dumps(header)})


CHANGES = (
    "text", "no text", "format", "version", "layers", "groups", "a group less", "a group twice",
    "a list of words", "shape", "type", "positions", "a single number", "a number", "rows",
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_cache_is_refused_in_one_line(saved: Path, change) -> None:
    rewritten(saved, change)
    model = shared_model("llama")
    refused(saved, model, mixed_plan(model), "")


def test_a_cache_of_a_version_that_says_nothing_of_its_numbers_is_read(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        header = json.loads(file.metadata()["headwise"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del header["numbers"]
    save_file(tensors, saved, {"headwise": json.dumps(header)})
    model = shared_model("llama")
    with attach(model, mixed_plan(model)) as attached:
        assert load_cache(saved, attached).get_seq_length() == TOKENS


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\xff" * 16, None])
def test_a_file_that_is_no_cache_is_refused_in_one_line(saved: Path, content) -> None:
    if content is None:
        save_file({"x": torch.zeros(1)}, saved)
    else:
        saved.write_bytes(content)
    model = shared_model("llama")
    refused(saved, model, mixed_plan(model), "")
    saved.unlink()
    refused(saved, model, mixed_plan(model), "no such file")


def test_the_hash_is_that_of_real_tokens() -> None:
    ids = torch.tensor([[0, 3, 4], [5, 6, 7]])
    wider = torch.tensor([[9, 0, 3, 4], [0, 5, 6, 7]])
    real = torch.tensor([[False, True, True], [True, True, True]])
    longer = torch.tensor([[False, False, True, True], [False, True, True, True]])
    assert text_sha256(ids, real) == text_sha256(wider, longer)
    assert text_sha256(ids, real) != text_sha256(ids, ~real)
