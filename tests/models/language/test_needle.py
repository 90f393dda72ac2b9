"""Scores of heads that fetch a needle, against a plain formula; the plan that keeps the best."""

import json
import math

import pytest
import torch
from transformers import PreTrainedModel

from headwise.models.language.analysis.needle import (
    NeedlePrompt,
    NeedleScores,
    answer_losses,
    head_plan,
    heads_within,
    knock_out,
    needle_scores,
    plan_by_needle,
)
from headwise.models.language.plans.facts import ModelFacts
from headwise.tests.models.language.tiny_models import shared_model, tiny_model
from headwise.tests.models.language.watched_models import plain_maps

SIZES = [(24, 3), (17, 2), (31, 4)]  # tokens before the answer, tokens of the answer


def needle_prompts() -> list[NeedlePrompt]:
    """Random texts that hold their answer once, at another place each."""
    generator = torch.Generator().manual_seed(5)
    prompts = []
    for place, (size, answer) in enumerate(SIZES):
        ids = torch.randint(1, 40, (size,), generator=generator).tolist()
        secret = (torch.randperm(20, generator=generator)[:answer] + 40).tolist()
        start = 2 + 3 * place
        ids[start : start + answer] = secret
        prompts.append(NeedlePrompt.of(ids, secret))
    return prompts


def plain_scores(model: PreTrainedModel, prompt: NeedlePrompt) -> torch.Tensor:
    """The score, head by head and pair by pair, from the maps of the eager form: (L, H)."""
    ids, begin = prompt.ids, len(prompt.ids) - prompt.answer
    maps = plain_maps(model, torch.tensor([ids]))
    scores = torch.zeros(len(maps), maps[0].shape[1])
    keys = [k for start, end in prompt.needle for k in range(start, end) if ids[k] in ids[begin:]]
    rows = range(begin - 1, len(ids))
    for layer, weights in enumerate(maps):
        for head in range(weights.shape[1]):
            paid = [sum(float(weights[0, head, row, key]) for key in keys) for row in rows]
            scores[layer, head] = sum(paid) / len(paid)
    return scores


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3"])
def test_scores_of_a_padded_batch_are_those_of_the_plain_formula(kind: str) -> None:
    model, prompts = shared_model(kind), needle_prompts()
    scores = needle_scores(model, prompts)
    assert scores.shape == (3, 3, 6)
    for row, prompt in zip(scores, prompts, strict=True):
        torch.testing.assert_close(row, plain_scores(model, prompt), atol=2e-5, rtol=0)


def test_padding_and_neighbours_change_no_score_and_no_loss() -> None:
    model, prompts = shared_model("llama"), needle_prompts()
    together, losses = needle_scores(model, prompts), answer_losses(model, prompts)[0]
    for place, prompt in enumerate(prompts):
        torch.testing.assert_close(needle_scores(model, [prompt])[0], together[place])
        torch.testing.assert_close(answer_losses(model, [prompt])[0][0], losses[place])


def copy_model(layer: int, head: int) -> PreTrainedModel:
    """A model of two layers with a query head that attends to tokens equal to its own.

    Its queries and keys are the embedding, in those of its numbers that turn so slowly that
    positions do not matter.
    """
    model = tiny_model(
        "llama", num_hidden_layers=2, rope_parameters={"rope_type": "default", "rope_theta": 1e30}
    )
    attention = model.model.layers[layer].self_attn
    width, group = 8, attention.num_key_value_groups
    with torch.no_grad():
        for other in model.model.layers:  # all others attend evenly and write nothing
            other.self_attn.q_proj.weight.zero_()
            other.self_attn.o_proj.weight.zero_()
            other.mlp.down_proj.weight.zero_()
        rows = torch.zeros(width, 48)
        for place in (1, 2, 3, 5, 6, 7):  # 0 and 4 turn by one radian a token
            rows[place, place] = 3.0
        attention.q_proj.weight[head * width : (head + 1) * width] = rows
        key = head // group
        attention.k_proj.weight[key * width : (key + 1) * width] = rows
    return model


@pytest.mark.parametrize(("layer", "head"), [(0, 1), (1, 3), (1, 5)])
def test_a_planted_head_that_copies_is_the_first_and_is_kept(layer: int, head: int) -> None:
    model, prompts = copy_model(layer, head), needle_prompts()
    facts = ModelFacts.of(model)
    scores = NeedleScores.of(facts)
    scores.add(needle_scores(model, prompts))
    best = scores.query_heads().flatten().sort(descending=True)
    assert divmod(int(best.indices[0]), 6) == (layer, head)
    assert best.values[0] > 2 * best.values[1]
    assert scores.ranked()[0] == (layer, head // 2)
    plan = plan_by_needle(scores, facts, heads=1, sink=4, window=6)
    full = [
        (row, column)
        for row in range(facts.layers)
        for column in range(facts.kv_heads)
        if plan.rule(row, column).full
    ]
    assert full == [(layer, head // 2)]
    assert plan.rule(1 - layer, 0).keeps(100) == 10


def test_sums_that_were_stored_continue_as_if_never_interrupted() -> None:
    model, prompts = shared_model("llama"), needle_prompts()
    at_once, first = NeedleScores(3, 6, 3), NeedleScores(3, 6, 3)
    at_once.add(needle_scores(model, prompts))
    first.add(needle_scores(model, prompts[:1]))
    second = NeedleScores.restore(json.loads(json.dumps(first.state())))
    second.add(needle_scores(model, prompts[1:]))
    assert second.prompts == 3
    torch.testing.assert_close(second.sums, at_once.sums, atol=1e-6, rtol=0)
    torch.testing.assert_close(second.query_heads().float(), needle_scores(model, prompts).mean(0))
    with pytest.raises(ValueError, match="not of scores"):
        NeedleScores.restore({"sums": [1.0], "prompts": 1, "kv_heads": 3})


def test_halves_of_the_prompts_agree_where_the_same_heads_lead() -> None:
    scores = NeedleScores(2, 2, 2)
    low, high = torch.tensor([[0.1, 0.9], [0.0, 0.2]]), torch.tensor([[0.9, 0.1], [0.0, 0.2]])
    scores.add(torch.stack([low, high]))
    assert scores.agreement(1) == 0
    assert scores.agreement(2) == 0.5  # (0, 1) and (1, 1) against (0, 0) and (1, 1)
    assert scores.agreement(4) == 1
    assert math.isnan(NeedleScores(2, 2, 2).agreement(1))


def test_a_head_of_keys_has_the_largest_score_of_its_query_heads() -> None:
    scores = NeedleScores(1, 6, 3)
    scores.add(torch.tensor([[[0.1, 0.5, 0.3, 0.2, 0.0, 0.4]]]))
    torch.testing.assert_close(scores.table().float(), torch.tensor([[0.5, 0.3, 0.4]]))
    assert scores.ranked() == [(0, 0), (0, 2), (0, 1)]


def test_the_loss_of_an_answer_is_that_of_its_tokens_and_right_is_what_greedy_decoding_writes(
) -> None:  # fmt: skip
    model, prompts = shared_model("llama"), needle_prompts()
    wanted = []
    for prompt in prompts:
        begin = len(prompt.ids) - prompt.answer
        text = torch.tensor([prompt.ids[:begin]])
        written = model.generate(
            text, attention_mask=torch.ones_like(text), max_new_tokens=prompt.answer,
            do_sample=False,
        )[0, begin:]  # fmt: skip
        wanted.append(NeedlePrompt((*prompt.ids[:begin], *written.tolist()), len(written), ()))
    for answer, expected in ((prompts, False), (wanted, True)):
        losses, right = answer_losses(model, answer)
        assert right.tolist() == [expected] * 3
        for prompt, loss in zip(answer, losses, strict=True):
            begin = len(prompt.ids) - prompt.answer
            log = model(torch.tensor([prompt.ids])).logits[0].detach().log_softmax(-1)
            steps = [-float(log[i - 1, prompt.ids[i]]) for i in range(begin, len(prompt.ids))]
            assert float(loss) == pytest.approx(sum(steps) / len(steps), abs=1e-4)


def test_prompts_that_cannot_be_scored_are_refused_in_a_line() -> None:
    for ids, answer, needle, words in (
        ((1, 2, 3), 0, ((0, 1),), "an answer of a token"),
        ((1, 2, 1), 3, ((0, 1),), "a token before it"),
        ((1, 2, 1), 1, ((1, 3),), "outside of the prompt"),
    ):
        with pytest.raises(ValueError, match=words):
            NeedlePrompt(ids, answer, needle)
    with pytest.raises(ValueError, match="prompt 1: no token of the answer"):
        needle_scores(shared_model("llama"), [needle_prompts()[0], NeedlePrompt((1, 2, 3), 1, ())])
    with pytest.raises(ValueError, match="not in the prompt"):
        NeedlePrompt.of([1, 2, 3], [2, 4])
    assert NeedlePrompt.of([5, 6, 7, 5, 6], [5, 6]).needle == ((0, 2), (3, 5))


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_the_heads_that_fit_into_a_share_of_the_cache_are_as_many_as_possible(kind: str) -> None:
    facts = ModelFacts.of(shared_model(kind))
    planned = [(i, h) for i in range(3) for h in range(3) if facts.planned(i)]
    for keep in (0.4, 0.5, 0.75, 1.0):
        count = heads_within(keep, facts, sink=4, window=8, length=60)
        assert head_plan(facts, planned[:count], 4, 8).kept(60) <= keep + 1e-9
        if count < len(planned):
            assert head_plan(facts, planned[: count + 1], 4, 8).kept(60) > keep
    with pytest.raises(ValueError, match="cannot be kept"):
        heads_within(0.05, facts, sink=4, window=8, length=60)
    assert heads_within(1.0, facts, sink=40, window=40, length=60) == len(planned)


def test_a_plan_needs_scores_of_its_model_and_heads_that_there_are() -> None:
    facts = ModelFacts.of(shared_model("gemma3"))
    other, scores = NeedleScores(2, 6, 3), NeedleScores(3, 6, 3)
    other.add(torch.rand(1, 2, 6))
    scores.add(torch.rand(1, 3, 6))
    with pytest.raises(ValueError, match="other heads"):
        plan_by_needle(other, facts, heads=1)
    with pytest.raises(ValueError, match="of 6 that a plan may cut"):
        plan_by_needle(scores, facts, heads=7)
    with pytest.raises(ValueError, match="no prompt was scored"):
        plan_by_needle(NeedleScores(3, 6, 3), facts, heads=1)


def test_cutting_one_head_changes_the_loss_as_its_plan_alone_does() -> None:
    model, prompts = shared_model("llama"), needle_prompts()
    before = answer_losses(model, prompts)[0]
    cut = dict(knock_out(model, prompts, [(0, 1), (2, 0)], sink=1, window=2))
    assert list(cut) == [(0, 1), (2, 0)]
    for losses in cut.values():
        assert (losses - before).abs().max() > 1e-4
    same = dict(knock_out(model, prompts, [(1, 1)], sink=64, window=64))
    torch.testing.assert_close(same[1, 1], before)  # what is cut holds the entire prompt
