"""Which models a plan can be used on, and what is refused in one line."""

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from headwise.models.language.plans.facts import ModelFacts
from headwise.models.language.plans.plan import Plan
from headwise.models.language.running.attach import attach
from headwise.models.language.running.cache import PlanCache
from headwise.tests.models.language.test_attach import TOKENS, mixed_plan, padded
from headwise.tests.models.language.tiny_models import shared_model, texts, tiny_model


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def other_model(kind: str, **changes: object) -> nn.Module:
    """A tiny random model of any architecture, sizes by whatever name it has for them."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    small = {
        "hidden_size": 48, "intermediate_size": 48, "num_hidden_layers": 3, "head_dim": 8,
        "num_attention_heads": 6, "num_key_value_heads": 3, "vocab_size": 61, "d_model": 48,
        "num_local_experts": 2, "num_experts": 2, "n_routed_experts": 4, "n_group": 1,
        "topk_group": 1, "moe_intermediate_size": 8, "first_k_dense_replace": 4, "d_ff": 16,
        "num_layers": 2, "num_heads": 2, "n_layer": 3, "n_head": 6, "q_lora_rank": 8, "n_embd": 48,
        "kv_lora_rank": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 2,
        "pad_token_id": 0, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "eos_token_id": 1,
        "max_position_embeddings": 512, "layer_types": None, **changes,
    }  # fmt: skip
    known = AutoConfig.for_model(kind).to_dict()
    sizes = {name: size for name, size in small.items() if name in known or name[:2] == "n_"}
    config = AutoConfig.for_model(kind, **sizes)
    auto = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
    torch.manual_seed(0)
    return auto.from_config(config).eval()


@pytest.mark.parametrize("kind", ["gpt2", "phi3", "cohere", "mixtral"])
def test_other_architectures_keep_their_plan_too(kind) -> None:
    model = other_model(kind)
    facts = ModelFacts.of(model)
    alpha = [
        [math.inf if head == layer else 5 for head in range(facts.kv_heads)] for layer in range(3)
    ]
    plan = Plan.of_tables(facts, method="by hand", sink=2, alpha=alpha)
    ids = texts(2, TOKENS)
    options = {"max_new_tokens": 5, "do_sample": False}
    with attach(model, plan) as attached:
        cache = attached.cache()
        cut = model.generate(ids, **options, cache=cache)
        assert torch.equal(cut, model.generate(ids, **options))
    own = 2 * 2 * 3 * facts.kv_heads * facts.head_width * 4 * (TOKENS + 4)
    assert cache.bytes() == pytest.approx(own * plan.kept(TOKENS + 4))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("gemma2", "softcap"),
        ("gpt_oss", "s_aux"),
        ("deepseek_v3", "MLA"),
        ("bloom", "does not use the attention interface|no attention module"),
        ("t5", "an encoder and a decoder|names no"),
        ("qwen3_next", "linear_attention"),
        ("gemma4_text", "different shapes"),
    ],
)
def test_what_a_plan_cannot_honour_is_refused_in_one_line(kind, message) -> None:
    with torch.device("meta"):
        model = other_model(kind)
    with pytest.raises(ValueError, match=rf"^[^\n]*({message})[^\n]*$"):
        attach(model, Plan.full(ModelFacts.of(model))).__enter__()


def one_line(match: str):
    return pytest.raises(ValueError, match=rf"^[^\n]*{match}[^\n]*$")


def test_what_cannot_be_computed_is_refused_in_one_line() -> None:
    model = shared_model("llama")
    plan = mixed_plan(model)
    ids, real = padded([20, 9], "left")
    mask = real.long()
    with one_line("another model"), attach(shared_model("qwen3"), plan):
        pass
    for wrong in ("plan.json", None):
        with one_line("attach: needs a Plan"), attach(model, wrong):
            pass
    with attach(model, plan) as attached:
        with one_line("attached to a plan already"), attach(model, plan):
            pass
        with one_line("a batch without texts"):
            model(ids[:0])
        with one_line("made by hand"):
            model(ids, attention_mask=torch.ones(2, 1, 20, 20, dtype=torch.bool))
        with one_line("packed into one row"):
            model(ids, position_ids=torch.arange(10).repeat(1, 2), use_cache=False)
        with one_line("made for 512 at most"):
            model(texts(1, 513))
        with one_line("static cache"):
            model.generate(
                ids, attention_mask=mask, cache_implementation="static", max_new_tokens=2
            )
        with one_line("another plan"):
            model(ids, cache=PlanCache(Plan.full(plan.facts), attached.layers, attached.weights))
        with one_line("not as `past_key_values`"):
            model.model(ids, past_key_values=attached.cache())
        cache = attached.cache()
        model(ids, attention_mask=mask, cache=cache)
        with one_line("holds padding"):
            model(ids[:, :1], cache=cache)
        with one_line("must be 2 rows of 20 past and 1 new"):
            model(ids[:, :1], attention_mask=mask, cache=cache)
        with one_line("differs from that of the text"):
            model(ids[:, :1], attention_mask=torch.ones(2, 21), cache=cache)
        with one_line("cannot go back"):
            cache.crop(-1)
        with one_line("no plan; copy it outside"):
            copy.deepcopy(model)(ids)
    with attach(model, plan, beyond=True):
        model(texts(1, 513))


def test_a_cut_cache_is_of_a_model_and_of_the_blocks_it_is_attached_in() -> None:
    """Outside, the model's own attention would take new tokens for the whole text."""
    model, other = shared_model("llama"), tiny_model("llama", seed=1)
    plan, ids = mixed_plan(model), texts(1, 12)
    with attach(model, plan) as attached:
        cache, empty = attached.cache(), attached.cache()
        model(ids, cache=cache)
        with one_line("block of attach that this cache is of is over, or the model is not"):
            other(ids[:, :1], cache=empty)
    with one_line("block of attach that this cache is of is over, or the model is not"):
        model(ids[:, :1], cache=cache)
    with one_line("block of attach is over"):
        attached.cache()
    with attach(other, plan), one_line("filled by another model"):
        other(ids[:, :1], cache=cache)
    with attach(model, plan):
        model(ids[:, :1], cache=cache)  # the same weights: the text goes on
