"""A model attached to a plan attends to what the plan allows, and holds no more than that."""

import gc
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from headwise.models.language.plans.facts import ModelFacts
from headwise.models.language.plans.plan import Plan
from headwise.models.language.running.attach import Attached, attach
from headwise.tests.models.language.attended import plain_logits, positions
from headwise.tests.models.language.tiny_models import KINDS, shared_model, texts, tiny_model

TOKENS = 37


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def mixed_plan(model: nn.Module) -> Plan:
    """Full heads, fixed windows and windows that grow, side by side."""
    return Plan.of_tables(
        ModelFacts.of(model),
        method="by hand",
        sink=[[0, 2, 3], [1, 1, 1], [4, 0, 0]],
        alpha=[[math.inf, 5, 9], [4, 4, 4], [3, 8, math.inf]],
        beta=[[0, 0, 0.2], [0, 0, 0], [0.1, 0, 0]],
    )


def padded(lengths: list[int], side: str) -> tuple[Tensor, Tensor]:
    """Ids and mask of real tokens of a batch of these lengths."""
    ids = texts(len(lengths), max(lengths))
    columns = torch.arange(max(lengths))
    sizes = torch.tensor(lengths)[:, None]
    real = columns < sizes if side == "right" else columns >= max(lengths) - sizes
    return ids.masked_fill(~real, 0), real


def read(
    model: nn.Module, attached: Attached, ids: Tensor, real: Tensor, sizes: list[int]
) -> Tensor:
    """Logits of a text that is read in pieces with a cut cache."""
    cache, start, logits = attached.cache(), 0, []
    for size in sizes:
        stop = start + size
        outputs = model(
            ids[:, start:stop],
            attention_mask=real[:, :stop].long(),
            position_ids=positions(real)[:, start:stop],
            cache=cache,
        )
        logits.append(outputs.logits)
        start = stop
    assert start == ids.shape[1]
    return torch.cat(logits, 1)


PIECES = {
    "one": [TOKENS],
    "chunks": [20, 3, 14],
    "tokens": [1] * TOKENS,
    "prompt and answer": [25] + [1] * 12,
    "two questions": [12, 1, 1, 9, 1, 1, 1, 11],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pieces", PIECES)
def test_a_cut_cache_gives_what_the_plain_formula_gives(kind, pieces) -> None:
    model = shared_model(kind)
    plan = mixed_plan(model)
    for side, lengths in (
        ("left", [TOKENS, TOKENS]),
        ("left", [21, TOKENS, 3]),
        ("right", [TOKENS, 9]),
    ):
        ids, real = padded(lengths, side)
        expected = plain_logits(model, plan, ids, real)
        with attach(model, plan) as attached:
            logits = read(model, attached, ids, real, PIECES[pieces])
            masked = model(ids, attention_mask=real.long(), position_ids=positions(real)).logits
        torch.testing.assert_close(logits[real], expected[real], rtol=0, atol=1e-4)
        torch.testing.assert_close(masked[real], expected[real], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wide", [False, True], ids=["full", "span = N"])
def test_a_plan_that_forgets_nothing_is_the_model_bit_for_bit(kind, wide) -> None:
    model = shared_model(kind)
    facts = ModelFacts.of(model)
    plan = Plan.full(facts)
    if wide:
        alpha = [[math.inf, TOKENS + 10, 900], [0, 0, 0], [TOKENS + 10, 1, math.inf]]
        beta = [[0, 0, 0], [1, 1, 1], [0, 1, 0]]
        plan = Plan.of_tables(facts, method="by hand", sink=1, alpha=alpha, beta=beta)
    options = {"max_new_tokens": 10, "do_sample": False, "return_dict_in_generate": True}
    for lengths in ([TOKENS, TOKENS], [TOKENS, 20]):
        ids, real = padded(lengths, "left")
        prompt = {"input_ids": ids, "attention_mask": real.long()}
        expected = model(**prompt).logits
        generated = model.generate(**prompt, **options, output_logits=True)
        with attach(model, plan) as attached:
            assert torch.equal(model(**prompt).logits, expected)
            cached = model.generate(**prompt, **options, output_logits=True, cache=attached.cache())
        assert torch.equal(cached.sequences, generated.sequences)
        assert torch.equal(torch.stack(cached.logits), torch.stack(generated.logits))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_generated_token(kind) -> None:
    model = shared_model(kind)
    lengths = [19, TOKENS, 1, 30]
    ids, real = padded(lengths, "left")
    options = {"max_new_tokens": 12, "do_sample": False}
    with attach(model, mixed_plan(model)) as attached:
        together = model.generate(
            ids, attention_mask=real.long(), **options, cache=attached.cache()
        )
        masked = model.generate(ids, attention_mask=real.long(), **options)
        for row, length in enumerate(lengths):
            alone = model.generate(ids[row : row + 1, -length:], **options, cache=attached.cache())
            assert together[row, -12:].tolist() == alone[0, -12:].tolist()
    assert torch.equal(together, masked)


def cache_bytes(model: nn.Module, tokens: int) -> int:
    """What the model's own cache would hold of a row at full length."""
    facts = ModelFacts.of(model)
    return sum(2 * 3 * 8 * 4 * min(tokens, window or tokens) for window in facts.windows)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_the_cache_holds_the_bytes_that_the_plan_says(kind) -> None:
    model = shared_model(kind)
    plan = mixed_plan(model)
    ids = texts(2, 200)
    with attach(model, plan) as attached:
        cache = attached.cache()
        for start, stop in ((0, 90), (90, 91), (91, 92), (92, 150), (150, 151), (151, 200)):
            model(ids[:, start:stop], cache=cache)
            expected = 2 * cache_bytes(model, stop) * plan.kept(stop)
            own = [window for window in plan.facts.windows if window]
            # The model's own window layers leave the token out that is read next.
            expected -= sum(2 * 2 * 3 * 8 * 4 for _ in own)
            assert cache.bytes() == pytest.approx(expected)
            assert cache.get_seq_length() == stop


def test_memory_of_forgotten_tokens_is_freed() -> None:
    model = shared_model("gemma3")
    plan = Plan.uniform(ModelFacts.of(model), sink=2, window=6)

    def states_of_heads() -> list[Tensor]:
        gc.collect()
        objects = gc.get_objects()
        return [x for x in objects if type(x) is Tensor and x.ndim == 4 and x.shape[-1] == 8]

    others = states_of_heads()  # of other tests in this process
    with attach(model, plan) as attached:
        cache = attached.cache()
        model(texts(1, 400), cache=cache)
        states = [x for x in states_of_heads() if all(x is not other for other in others)]
        largest = max(tensor.untyped_storage().nbytes() for tensor in states)
        assert len(states) >= 6
        assert largest <= 3 * 8 * 8 * 4
        assert cache.bytes() <= 3 * 2 * 3 * 8 * 8 * 4


@pytest.mark.parametrize("kind", ["qwen3", "gemma3"])
def test_changing_places_of_heads_with_their_rules_changes_nothing(kind) -> None:
    model, order = tiny_model(kind), [2, 0, 1]
    plan = mixed_plan(model)
    ids = texts(2, TOKENS)
    with attach(model, plan) as attached:
        expected = read(model, attached, ids, ids > 0, PIECES["prompt and answer"])
    for layer in model.model.layers:
        attention = layer.self_attn
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            weight = getattr(attention, name).weight
            if name == "o_proj":
                weight.copy_(weight.unflatten(1, (3, -1))[:, order].flatten(1))
            else:
                weight.copy_(weight.unflatten(0, (3, -1))[order].flatten(0, 1))
    tables = {
        name: [[row[head] for head in order] for row in getattr(plan, name)]
        for name in ("sink", "alpha", "beta")
    }
    moved = Plan.of_tables(plan.facts, method="by hand", **tables)
    assert moved != plan
    with attach(model, moved) as attached:
        logits = read(model, attached, ids, ids > 0, PIECES["prompt and answer"])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


def test_beams_and_several_answers_follow_their_rows() -> None:
    model = shared_model("llama")
    ids, real = padded([TOKENS, 15], "left")
    prompt = {"input_ids": ids, "attention_mask": real.long(), "max_new_tokens": 9}
    with attach(model, mixed_plan(model)) as attached:
        beams = {"num_beams": 3, "do_sample": False}
        masked = model.generate(**prompt, **beams)
        assert torch.equal(model.generate(**prompt, **beams, cache=attached.cache()), masked)
        sampling = {"do_sample": True, "num_return_sequences": 3, "top_k": 8}
        torch.manual_seed(3)
        masked = model.generate(**prompt, **sampling)
        torch.manual_seed(3)
        assert torch.equal(model.generate(**prompt, **sampling, cache=attached.cache()), masked)


def test_a_cache_goes_on_with_some_of_its_rows() -> None:
    model = shared_model("llama")
    plan = mixed_plan(model)
    ids, real = padded([TOKENS, 15, 30], "left")
    rows = torch.tensor([2, 0, 2])
    with attach(model, plan) as attached:
        cache = attached.cache()
        places = positions(real)
        model(
            ids[:, :25],
            attention_mask=real[:, :25].long(),
            position_ids=places[:, :25],
            cache=cache,
        )
        cache.batch_select_indices(rows)
        logits = model(
            ids[rows, 25:],
            attention_mask=real[rows].long(),
            position_ids=places[rows, 25:],
            cache=cache,
        ).logits
    assert cache.tokens is not None
    assert torch.equal(cache.tokens, ids[rows])
    expected = plain_logits(model, plan, ids, real)[rows, 25:]
    torch.testing.assert_close(
        logits[real[rows, 25:]], expected[real[rows, 25:]], rtol=0, atol=1e-4
    )


def test_generation_goes_on_where_it_stopped() -> None:
    model = shared_model("mistral")
    ids = texts(2, TOKENS)
    options = {"do_sample": False}
    with attach(model, mixed_plan(model)) as attached:
        expected = model.generate(ids, max_new_tokens=15, **options, cache=attached.cache())
        cache = attached.cache()
        part = model.generate(ids, max_new_tokens=6, **options, cache=cache)
        assert torch.equal(model.generate(part, max_new_tokens=9, **options, cache=cache), expected)


def test_half_precision_and_inference_mode_generate() -> None:
    model = tiny_model("qwen3").to(torch.bfloat16)
    ids, real = padded([TOKENS, 20], "left")
    with torch.inference_mode(), attach(model, mixed_plan(model)) as attached:
        prompt = {"input_ids": ids, "attention_mask": real.long(), "do_sample": False}
        cache = attached.cache()
        cut = model.generate(**prompt, max_new_tokens=8, cache=cache)
        assert next(cache.tensors()).dtype == torch.bfloat16
        masked = model.generate(**prompt, max_new_tokens=8)
    assert cut.shape == masked.shape
    assert (cut == masked).float().mean() > 0.9  # a near tie may fall to either side


def test_gradients_pass_under_a_plan() -> None:
    model = tiny_model("llama")
    plan = mixed_plan(model)
    ids = texts(2, 20)
    with torch.enable_grad(), attach(model, plan):
        model(ids, labels=ids).loss.backward()
    weight = model.model.layers[1].self_attn.k_proj.weight
    assert weight.grad is not None
    slope = weight.grad[3, 5].item()
    losses = []
    for step in (1e-2, -1e-2):
        weight[3, 5] += step
        with attach(model, plan):
            losses.append(model(ids, labels=ids).loss.double().item())
        weight[3, 5] -= step
    assert slope == pytest.approx((losses[0] - losses[1]) / 2e-2, rel=0.05, abs=1e-4)


def test_nothing_remains_after_the_block() -> None:
    model = tiny_model("gemma3")
    ids = texts(2, TOKENS)
    expected, config = model(ids).logits, model.config
    with attach(model, mixed_plan(model)):
        assert not torch.equal(model(ids).logits, expected)
        assert model.config._attn_implementation != "sdpa"
        with pytest.raises(ValueError, match="made for 512"):
            model(texts(1, 513))
    assert model.config is config
    assert config._attn_implementation == "sdpa"
    assert all(getattr(part, "config", config) is config for part in model.modules())
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in model.modules())
    assert torch.equal(model(ids).logits, expected)


def test_models_with_one_configuration_take_different_plans() -> None:
    first = tiny_model("llama")
    second, third = type(first)(first.config).eval(), type(first)(first.config).eval()
    for other in (second, third):
        other.load_state_dict(first.state_dict())
    ids = texts(2, TOKENS)
    plain = first(ids).logits
    wide, narrow = mixed_plan(first), Plan.uniform(ModelFacts.of(first), sink=1, window=3)
    expected = [plain_logits(first, plan, ids, ids > 0) for plan in (wide, narrow)]
    with attach(first, wide), attach(second, narrow):
        torch.testing.assert_close(first(ids).logits, expected[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(second(ids).logits, expected[1], rtol=0, atol=1e-4)
        assert torch.equal(third(ids).logits, plain)
    assert torch.equal(second(ids).logits, plain)


def test_a_cache_outlives_its_block() -> None:
    model = shared_model("llama")
    plan = mixed_plan(model)
    ids = texts(1, TOKENS)
    with attach(model, plan) as attached:
        cache = attached.cache()
        model(ids[:, :30], cache=cache)
    with attach(model, plan):
        logits = model(ids[:, 30:], cache=cache).logits
    expected = plain_logits(model, plan, ids, ids > 0)[:, 30:]
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


def test_a_model_under_autocast_attends_by_its_plan() -> None:
    """There queries and keys come in float32 and values in 16 bits."""
    model = shared_model("llama")
    plan, (ids, real) = mixed_plan(model), padded([30, 20], "left")
    with attach(model, plan) as attached:
        expected = read(model, attached, ids, real, [28, 1, 1])[real]
        with torch.autocast("cpu", torch.bfloat16):
            cut = read(model, attached, ids, real, [28, 1, 1])[real]
    assert (cut - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_the_package_offers_it_by_one_name() -> None:
    import headwise

    assert headwise.longcontext.attach is attach
    assert headwise.longcontext.Plan is Plan
    assert "longcontext" in dir(headwise)
