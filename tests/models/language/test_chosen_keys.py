"""Heads that inherit keys, and layers that a router cuts by prompt, against plain formulas."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from headwise.models.language.plans.facts import ModelFacts
from headwise.models.language.plans.plan import Budget, Plan
from headwise.models.language.running.attach import attach
from headwise.models.language.running.cache_file import load_cache, save_cache
from headwise.models.language.running.replaced import replaced_attention
from headwise.models.language.search.flux import FluxRouter
from headwise.tests.models.language.attended import plain_logits, plain_mask, positions
from headwise.tests.models.language.test_attach import padded, read
from headwise.tests.models.language.tiny_models import KINDS, shared_model, texts, tiny_model

TOKENS, PROMPT = 32, 22


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def inheriting_plan(model: nn.Module, keys: int = 9) -> Plan:
    return Plan.of_tables(
        ModelFacts.of(model),
        method="lychee",
        sink=0,
        alpha=math.inf,
        inherits=[[False] * 3, [False, False, False], [True, False, True]],
        budget=Budget(keys, 2, 3),
    )


def chosen_set(scores: Tensor, places: list[int], budget: Budget) -> set[int]:
    """Columns of the keys that a budget holds, by sorting: first, last, then by score."""
    forced = places[: budget.sink] + places[len(places) - budget.recent :]
    others = sorted((c for c in places if c not in forced), key=lambda c: -scores[c].item())
    return set(forced + others[: max(0, budget.keys - len(set(forced)))])


def plain_inherited(model: nn.Module, plan: Plan, ids: Tensor, real: Tensor, start: int) -> Tensor:
    """Logits of a text whose tokens from `start` on were read one by one."""
    sets: dict[tuple[int, int, int], set[int]] = {}
    budget = plan.budget
    assert budget is not None

    def attention(layer, query, key, value, allowed, scale):
        mask = plain_mask(plan, layer, real)
        shared = query.shape[1] // key.shape[1]
        for row in range(len(real)):
            for head in range(key.shape[1]):
                for column in range(start, real.shape[1]):
                    places = [c for c in range(column + 1) if real[row, c]]
                    if plan.inherits[layer][head]:
                        for c in set(places) - sets[row, head, column]:
                            mask[row, head, column, c] = False
                    elif plan.facts.windows[layer] is None:
                        mean = query[row, head * shared : (head + 1) * shared, column].mean(0)
                        scores = key[row, head] @ mean
                        sets[row, head, column] = chosen_set(scores, places, budget)
                        assert len(sets[row, head, column]) == min(budget.keys, len(places))
        outputs = []
        for head in range(query.shape[1]):
            scores = query[:, head] @ key[:, head // shared].mT * scale
            scores = scores.masked_fill(~mask[:, head // shared], -1e30)
            outputs.append(scores.softmax(-1) @ value[:, head // shared])
        return torch.stack(outputs, 1)

    with replaced_attention(model, attention):
        return model(ids, attention_mask=real.long(), position_ids=positions(real)).logits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [[TOKENS, TOKENS], [TOKENS, 18, 13]])
def test_inheriting_heads_take_the_set_of_the_retrieval_head_below(kind, lengths) -> None:
    model = shared_model(kind)
    plan = inheriting_plan(model)
    ids, real = padded(lengths, "left")
    expected = plain_inherited(model, plan, ids, real, PROMPT)
    with attach(model, plan) as attached:
        logits = read(model, attached, ids, real, [15, 7] + [1] * (TOKENS - PROMPT))
        torch.testing.assert_close(logits[real], expected[real], rtol=0, atol=1e-4)
        dense = model(ids, attention_mask=real.long(), position_ids=positions(real)).logits
    before = real.clone()
    before[:, PROMPT:] = False
    torch.testing.assert_close(logits[before], dense[before], rtol=0, atol=1e-4)
    assert (logits[:, PROMPT:] - dense[:, PROMPT:]).abs().max() > 0.01


def test_a_head_takes_the_nearest_set_below_through_layers_that_inherit() -> None:
    model = tiny_model("llama", num_hidden_layers=4)
    plan = Plan.of_tables(
        ModelFacts.of(model), method="lychee", sink=0, alpha=math.inf, budget=Budget(8, 1, 2),
        inherits=[[False] * 3, [True, False, True], [True, True, False], [True, True, True]],
    )  # fmt: skip
    ids, real = padded([TOKENS, 25], "left")
    expected = plain_inherited(model, plan, ids, real, PROMPT)
    with attach(model, plan) as attached:
        logits = read(model, attached, ids, real, [PROMPT] + [1] * (TOKENS - PROMPT))
    torch.testing.assert_close(logits[real], expected[real], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_sets_of_all_keys_are_the_model_bit_for_bit(kind) -> None:
    model = shared_model(kind)
    ids, real = padded([PROMPT, 12], "left")
    prompt = {"input_ids": ids, "attention_mask": real.long(), "do_sample": False}
    options = {"max_new_tokens": 8, "return_dict_in_generate": True, "output_logits": True}
    expected = model.generate(**prompt, **options)
    with attach(model, inheriting_plan(model, PROMPT + 8)) as attached:
        cache = attached.cache()
        generated = model.generate(**prompt, **options, cache=cache)
    assert torch.equal(torch.stack(generated.logits), torch.stack(expected.logits))


def test_the_cache_of_inheriting_heads_stays_as_it_is() -> None:
    model = shared_model("llama")
    plan = inheriting_plan(model)
    ids = texts(2, PROMPT)
    with attach(model, plan) as attached:
        cache = attached.cache()
        generated = model.generate(ids, max_new_tokens=8, do_sample=False, cache=cache)
        assert cache.bytes() == 2 * 3 * 2 * 3 * 8 * 4 * (PROMPT + 7)
        masked = model.generate(ids, max_new_tokens=8, do_sample=False)
        assert torch.equal(generated, masked)
        beams = {"max_new_tokens": 8, "num_beams": 2, "do_sample": False}
        assert torch.equal(
            model.generate(ids, **beams, cache=attached.cache()), model.generate(ids, **beams)
        )


def routed_model(kind: str) -> tuple[nn.Module, FluxRouter]:
    model = tiny_model(kind)
    torch.manual_seed(4)
    routers = FluxRouter(model, sink=2, window=5)
    for weight in routers.routers.parameters():
        weight.normal_(0, 1) if weight.ndim > 1 else weight.zero_()
    return model, routers.eval()


def by_row(model: nn.Module, plan: Plan, ids: Tensor, real: Tensor, full: Tensor) -> Tensor:
    """Logits of each row alone, under a plan whose layers are full where its router said so."""
    rows = []
    for row in range(len(ids)):
        alpha = [
            [math.inf if full[row, layer] else value for value in plan.alpha[layer]]
            for layer in range(plan.facts.layers)
        ]
        alone = Plan.of_tables(plan.facts, method="row", sink=plan.sink, alpha=alpha)
        rows.append(plain_logits(model, alone, ids[row : row + 1], real[row : row + 1]))
    return torch.cat(rows)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3"])
def test_a_router_cuts_layers_by_prompt(kind, tmp_path) -> None:
    model, routers = routed_model(kind)
    plan = routers.plan()
    ids, real = padded([TOKENS, 25, 28, TOKENS, 23], "left")
    prompt = slice(0, PROMPT)
    full = routers.decisions(ids[:, prompt], real[:, prompt])
    assert len(full.unique(dim=0)) > 1
    expected = by_row(model, plan, ids, real, full)
    with attach(model, plan) as attached:
        logits = read(model, attached, ids, real, [PROMPT, 1, 1, 3, 1, 1, 1, 1, 1])
        torch.testing.assert_close(logits[real], expected[real], rtol=0, atol=1e-4)
        # The masked form, on one call without a cache: its prompt is the whole text.
        masked = model(ids, attention_mask=real.long(), position_ids=positions(real)).logits
        expected = by_row(model, plan, ids, real, routers.decisions(ids, real))
        torch.testing.assert_close(masked[real], expected[real], rtol=0, atol=1e-4)


def test_a_routed_cache_is_really_cut_and_follows_its_rows(tmp_path) -> None:
    model, routers = routed_model("llama")
    plan = routers.plan()
    ids, real = padded([TOKENS, 25, 28, TOKENS, 23], "left")
    full = routers.decisions(ids, real)
    rows = torch.tensor([3, 0, 0, 4])
    more = {"max_new_tokens": 6, "do_sample": False}
    with attach(model, plan) as attached:
        cache = attached.cache()
        model(ids, attention_mask=real.long(), position_ids=positions(real), cache=cache)
        each = 2 * 3 * 8 * 4
        assert cache.bytes() == each * (int(full.sum()) * TOKENS + int((~full).sum()) * 7)
        save_cache(cache, tmp_path / "routed.safetensors")
        cache = load_cache(tmp_path / "routed.safetensors", attached)
        cache.batch_select_indices(rows)
        asked = torch.cat([ids[rows], texts(4, 2, seed=3)], 1)
        mask = torch.cat([real[rows], torch.ones(4, 2, dtype=torch.bool)], 1)
        places = positions(mask)[:, TOKENS:]
        logits = model(
            asked[:, TOKENS:], attention_mask=mask.long(), position_ids=places, cache=cache
        ).logits
        expected = by_row(model, plan, asked, mask, full[rows])[:, TOKENS:]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
        prompt = {"input_ids": ids, "attention_mask": real.long()}
        cut = model.generate(**prompt, **more, cache=attached.cache())
        assert torch.equal(cut, model.generate(**prompt, **more))


def learned_plan(method: str, kind: str = "gemma3") -> tuple[nn.Module, Plan]:
    """A model, and a plan of it with sets or with a router."""
    if method == "flux":
        model, routers = routed_model(kind)
        return model, routers.plan()
    model = shared_model(kind)
    return model, inheriting_plan(model)


LEARNED = ("lychee", "flux")


@pytest.mark.parametrize("method", LEARNED)
# Padding between a prompt and what follows takes room in a window of the model's own, as
# transformers counts it, so that there no model with such windows gives what a text alone gives.
@pytest.mark.parametrize(("kind", "side"), [("gemma3", "left"), ("llama", "right")])
def test_a_batch_on_a_stored_cache_answers_as_each_text_alone(method, kind, side, tmp_path) -> None:
    model, plan = learned_plan(method, kind)
    ids, real = padded([PROMPT, 15, 11], side)
    more = texts(3, 10, seed=5)
    asked = torch.cat([ids, more], 1)
    mask = torch.cat([real, torch.ones_like(more, dtype=torch.bool)], 1)
    # A router judges by the first piece; an answer, then a second question with its answer.
    sizes = [PROMPT] if method == "flux" else [9, 8, PROMPT - 17]
    stored, sizes = len(sizes) + 3, [*sizes, 1, 1, 1, 5, 1, 1]

    def answered(ids: Tensor, real: Tensor, sizes: list[int], stored: int = 0) -> Tensor:
        cache, start, logits = attached.cache(), 0, []
        for number, size in enumerate(sizes):
            if number == stored > 0:
                save_cache(cache, tmp_path / "c.safetensors")
                cache = load_cache(tmp_path / "c.safetensors", attached)
            stop = start + size
            seen = {"attention_mask": real[:, :stop].long(), "cache": cache}
            places = positions(real)[:, start:stop]
            logits.append(model(ids[:, start:stop], position_ids=places, **seen).logits)
            start = stop
        return torch.cat(logits, 1)

    with attach(model, plan) as attached:
        batch = answered(asked, mask, sizes, stored)
        for row in range(3):
            alone = asked[row : row + 1, mask[row]]
            prompt = alone.shape[1] - more.shape[1]
            present = torch.ones_like(alone, dtype=torch.bool)
            expected = answered(alone, present, [prompt, 1, 1, 1, 5, 1, 1])
            torch.testing.assert_close(batch[row, mask[row]], expected[0], rtol=0, atol=1e-4)
        dense = model(asked, attention_mask=mask.long(), position_ids=positions(mask)).logits
    assert method == "flux" or (batch[:, -1] - dense[:, -1]).abs().max() > 0.01


@pytest.mark.parametrize("method", LEARNED)
def test_beams_with_a_cut_cache_are_those_under_masks(method) -> None:
    model, plan = learned_plan(method)
    ids, real = padded([PROMPT, 15, 11], "left")
    beams = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    beams |= {"input_ids": ids, "attention_mask": real.long()}
    with attach(model, plan) as attached:
        assert torch.equal(model.generate(**beams, cache=attached.cache()), model.generate(**beams))


def test_a_text_whose_beginning_no_router_has_read_is_refused() -> None:
    from transformers import DynamicCache

    model, routers = routed_model("llama")
    store = DynamicCache(config=model.config)
    model(texts(1, 9), cache=store)
    with (
        attach(model, routers.plan()),
        pytest.raises(ValueError, match=r"^[^\n]*has not read the beginning[^\n]*$"),
    ):
        model(texts(1, 1), cache=store)
