"""Influence of keys: against plain formulas, differences of the loss, and other batches."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from headwise.models.language.search.influence import (
    AnsweredPrompt,
    answer_losses,
    influence,
    influence_blocks,
)
from headwise.tests.models.language.tiny_models import WORDS, tiny_model


def exact(kind: str = "llama", **options: object):
    """A tiny model in double precision."""
    return tiny_model(kind, num_hidden_layers=2, **options).double().requires_grad_(False)


def prompt(tokens: int, answer: int, seed: int = 0) -> AnsweredPrompt:
    values = torch.randint(WORDS, (tokens,), generator=torch.Generator().manual_seed(seed))
    return AnsweredPrompt(values, torch.arange(tokens) >= tokens - answer)


def rows_of_attention(*shape: int, scale: float = 1.0) -> Tensor:
    scores = torch.randn(*shape, shape[-1], generator=torch.Generator().manual_seed(1)) * scale
    return scores.double().masked_fill(~torch.ones(shape[-1], shape[-1]).tril().bool(), -torch.inf)


def plain_loss(model, tokens: Tensor, answer: Tensor, edit=None) -> Tensor:
    """Mean loss of an answer by eager attention whose maps `edit(layer, attention)` may change."""
    from transformers import AttentionInterface

    def attend(module, query, key, value, attention_mask, scaling=None, **options):
        group = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        scores = query @ key.mT * scaling
        causal = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if window := options.get("sliding_window"):
            causal &= ~torch.ones_like(causal).tril(-window)
        attention = scores.masked_fill(~causal, -torch.inf).softmax(-1)
        if edit is not None:
            attention = edit(module.layer_idx, attention)
        return (attention @ value).transpose(1, 2).contiguous(), None

    AttentionInterface.register("plain_for_test", attend)
    model.config._attn_implementation = "plain_for_test"
    try:
        logits = model(tokens[None], use_cache=False).logits[0]
    finally:
        model.config._attn_implementation = "sdpa"
    return cross_entropy(logits[:-1][answer[1:]], tokens[1:][answer[1:]])


def plain_influence(model, tokens: Tensor, answer: Tensor) -> Tensor:
    """E by the published formula from whole maps: (layers, H, T, T)."""
    maps: dict[int, Tensor] = {}

    def keep(layer: int, attention: Tensor) -> Tensor:
        maps[layer] = attention.detach().requires_grad_() if layer == 0 else attention
        maps[layer].retain_grad()
        return maps[layer]

    with torch.enable_grad():
        plain_loss(model, tokens, answer, keep).backward()
    effects = []
    for layer in sorted(maps):
        attention, slope = maps[layer].detach()[0], maps[layer].grad
        assert slope is not None
        slope = slope[0]
        mean = (attention * slope).sum(-1, keepdim=True)
        effects.append(attention / (1 - attention) * (mean - slope))
    return torch.stack(effects).nan_to_num(0.0)


def in_blocks(effect: Tensor, block: int, length: int) -> Tensor:
    """(layers, K, T, T) -> (layers, K, m, m), by a loop."""
    blocks = length // block
    sums = effect.new_zeros(*effect.shape[:2], blocks, blocks)
    for i, j in itertools.product(range(effect.shape[-1]), repeat=2):
        sums[:, :, i // block, j // block] += effect[:, :, i, j]
    return sums


def test_effects_weighted_by_what_is_left_of_a_row_sum_to_zero() -> None:
    attention = rows_of_attention(3, 9).softmax(-1)
    effect = influence(attention, torch.randn_like(attention))
    left = ((1 - attention) * effect)[:, 1:].sum(-1)
    torch.testing.assert_close(left, torch.zeros_like(left), atol=1e-12, rtol=0)
    assert (effect.masked_select(attention == 0) == 0).all()


def test_an_effect_is_the_slope_towards_a_row_without_the_key() -> None:
    attention = rows_of_attention(2, 7).softmax(-1)
    slope = torch.randn_like(attention)
    effect = influence(attention, slope)
    for key in range(7):
        without = attention.clone()
        without[..., key] = 0
        without /= without.sum(-1, keepdim=True)
        # A loss that is linear in the attention changes by exactly this.
        change = ((without - attention) * slope).sum(-1)
        torch.testing.assert_close(effect[:, key + 1 :, key], change[:, key + 1 :])


def test_an_effect_has_its_digits_where_a_key_has_nearly_all_of_a_row() -> None:
    scores = torch.tensor([[30.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
    slope = torch.tensor([[0.3, -1.0, 2.0, 0.5]], dtype=torch.float64)
    exact = influence(scores.softmax(-1), slope)
    rough = influence(scores.float().softmax(-1), slope.float())
    torch.testing.assert_close(rough.double(), exact, rtol=1e-4, atol=0)
    rest = scores[:, 1:].softmax(-1)
    assert exact[0, 0] == pytest.approx(((rest * slope[:, 1:]).sum() - slope[0, 0]).item())


def test_a_key_that_has_all_of_a_row_counts_as_its_product() -> None:
    assert influence(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 5.0]])).tolist() == [[-3, 0]]


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral"])
@pytest.mark.parametrize("rows", ["answer", "all"])
@pytest.mark.parametrize("signed", [True, False])
def test_block_sums_are_those_of_the_formula_from_whole_maps(kind, rows, signed) -> None:
    options = {"sliding_window": 6} if kind == "mistral" else {}
    model, sample = exact(kind, **options), prompt(14, 3)
    effect = plain_influence(model, *sample)
    if rows == "answer":
        effect[:, :, :10] = effect[:, :, 13:] = 0
    effect = (effect if signed else effect.abs()).unflatten(1, (3, 2)).sum(2)
    sums = influence_blocks(model, [sample], 16, block=4, rows=rows, signed=signed)
    torch.testing.assert_close(sums, in_blocks(effect, 4, 16), rtol=1e-6, atol=1e-9)


def test_the_loss_of_a_model_changes_along_an_effect() -> None:
    model, (tokens, answer) = exact(), prompt(10, 2)
    sums = influence_blocks(model, [AnsweredPrompt(tokens, answer)], 10, block=1, signed=True)
    step = 1e-3
    for layer, head in itertools.product(range(2), repeat=2):
        query, key = divmod(int(sums[layer, head].abs().argmax()), 10)

        def towards(index: int, attention: Tensor, place=(layer, head, query, key)) -> Tensor:
            if index != place[0]:
                return attention
            changed = attention.clone()
            for member in (2 * place[1], 2 * place[1] + 1):
                row = attention[0, member, place[2]].clone()
                row[place[3]] = 0
                mixed = (1 - step) * attention[0, member, place[2]] + step * row / row.sum()
                changed[0, member, place[2]] = mixed
            return changed

        change = plain_loss(model, tokens, answer, towards) - plain_loss(model, tokens, answer)
        assert sums[layer, head, query, key].item() == pytest.approx(change.item() / step, rel=0.02)


def test_a_batch_with_padding_is_the_sum_of_its_prompts() -> None:
    model, prompts = exact("qwen3"), [prompt(16, 3), prompt(9, 2, 1), prompt(5, 1, 2)]
    for rows in ("answer", "all"):
        together = influence_blocks(model, prompts, 16, block=4, rows=rows)
        alone = sum(influence_blocks(model, [p], 16, block=4, rows=rows) for p in prompts)
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-13)
    losses = torch.cat([answer_losses(model, [p]) for p in prompts])
    torch.testing.assert_close(answer_losses(model, prompts), losses)


def test_rows_of_a_map_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sample = exact(), prompt(16, 3)
    expected = influence_blocks(model, [sample], 16, block=4, rows="all")
    monkeypatch.setattr("headwise.models.language.search.influence._ROWS", 3)
    parts = influence_blocks(model, [sample], 16, block=4, rows="all")
    torch.testing.assert_close(parts, expected, rtol=1e-12, atol=0)


def test_a_model_with_windows_has_no_effect_beyond_them() -> None:
    sums = influence_blocks(tiny_model("gemma3"), [prompt(24, 2)], 24, block=2)
    assert sums[0, :, 11, :8].max() == 0  # a window of 6
    assert sums[0, :, 11, 9:].min() > 0
    assert sums[1:, :, 11].min() > 0


def test_permuted_heads_have_permuted_effects() -> None:
    model, swapped, sample = exact(), exact(), prompt(12, 2)
    for layer in swapped.model.layers:
        attention = layer.self_attn
        for part, size in ((attention.q_proj, 16), (attention.k_proj, 8), (attention.v_proj, 8)):
            part.weight.copy_(part.weight.roll(size, 0))
        attention.o_proj.weight.copy_(attention.o_proj.weight.roll(16, 1))
    plain, moved = (influence_blocks(m, [sample], 12, block=4) for m in (model, swapped))
    torch.testing.assert_close(moved, plain.roll(1, 1))


def test_a_model_is_as_before() -> None:
    model, sample = exact().requires_grad_(True).train(), prompt(12, 2)
    with torch.no_grad():  # as callers may be
        influence_blocks(model, [sample], 12, block=4)
    assert model.training
    assert model.config._attn_implementation == "sdpa"
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (prompt(17, 2), "has 17 tokens, more than 16"),
        (prompt(4, 0), "needs an answer"),
        (prompt(4, 4), "needs an answer"),
        (AnsweredPrompt(torch.zeros(3, dtype=torch.long), torch.ones(4).bool()), r"\(3,\)"),
    ],
)
def test_a_prompt_without_a_loss_is_refused_in_one_line(sample, words) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        influence_blocks(exact(), [sample], 16)
    assert "\n" not in str(caught.value)


def test_a_length_that_blocks_do_not_fill_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the block"):
        influence_blocks(exact(), [prompt(8, 2)], 17)
