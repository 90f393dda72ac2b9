"""A tuned model stores what changed and shares the rest; prompts of any length are answered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from headwise.models.language.tuning.answering import answer_prompts
from headwise.models.language.tuning.tuned import Change, LanguageModel, ModelAsItCame, TunedModel
from headwise.tests.models.language.tuning.tuned_models import texts, tiny

CHANGES: dict[str, Change] = {
    "cofitune": Change(),
    "attention": Change(modules=("q", "o"), layers=None),
    "full": Change(method="full"),
    "lora": Change(method="lora", layers=None),
    "moe-lora": Change(method="moe-lora", layers=(0, 1, False)),
    "moh": Change(convert="moh", options={"shared": 1, "active": 2, "router": "linear"}),
    "differential": Change(convert="grouped-differential", layers=None),
    "upcycle": Change(convert="upcycle", layers=None),
    "bam, lora": Change(method="lora", modules=("k", "up"), convert="bam", layers=None),
}


def trained(model: TunedModel, steps: int = 2) -> TunedModel:
    optimizer = torch.optim.SGD(model.trained(), lr=0.3)
    model.train()
    ids = texts()
    for _ in range(steps):
        model.base(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.mark.parametrize("name", CHANGES)
def test_the_state_holds_what_changed_and_nothing_else(name):
    base = tiny(layers=4)
    before = {key: value.clone() for key, value in base.state_dict().items()}
    torch.manual_seed(0)
    model = trained(TunedModel(base, CHANGES[name]))
    state = model.state_dict()
    names = {key for key, weight in model.named_parameters() if weight.requires_grad}
    assert names <= set(state)
    assert all(key.endswith("router.bias") for key in set(state) - names)
    assert all(torch.equal(before[key], value) for key, value in base.state_dict().items())
    torch.manual_seed(1)
    again = TunedModel(base, CHANGES[name]).eval()
    again.load_state_dict({key: value.clone() for key, value in state.items()})
    assert torch.equal(again(texts()), model(texts()))
    if name != "full":
        frozen = {key for key, weight in model.named_parameters() if not weight.requires_grad}
        whole = dict(again.named_parameters())
        theirs = {value.data_ptr() for value in base.parameters()}
        assert all(whole[key].data_ptr() in theirs for key in frozen), "what is frozen is shared"


def test_a_state_that_lacks_a_weight_or_has_another_is_refused():
    base = tiny(layers=4)
    state = TunedModel(base, Change()).state_dict()
    name = next(iter(state))
    for changed in (
        {key: value for key, value in state.items() if key != name},
        {**state, "base.model.norm.weight": torch.ones(48), "else": torch.ones(1)},
        {**state, name: torch.zeros(3, 3)},
    ):
        with pytest.raises(RuntimeError):
            TunedModel(base, Change()).load_state_dict(changed)


def test_the_same_seed_gives_the_same_start():
    base = tiny(layers=4)
    for change in (CHANGES["lora"], CHANGES["differential"]):
        starts = []
        for _ in range(2):
            torch.manual_seed(4)
            starts.append(TunedModel(base, change).state_dict())
        assert all(torch.equal(starts[0][key], starts[1][key]) for key in starts[0])


@pytest.mark.parametrize(("change", "message"), [
    (Change(layers=(0, 4, False)), "no layer 4"),
    (Change(modules=()), "nothing of the model"),
])  # fmt: skip
def test_a_change_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TunedModel(tiny(layers=4), change)


def logits(model: LanguageModel, ids: Tensor, columns: list[int]) -> Tensor:
    present = torch.ones_like(ids, dtype=torch.bool)
    positions = torch.arange(ids.shape[1]).expand(len(ids), -1)
    return model.logits_at(ids, positions, present, torch.tensor(columns))


@torch.no_grad()
def test_examples_before_a_text_are_seen_and_have_no_logits():
    base, ids = tiny(), texts()
    prefix = texts(1, 5, seed=8)[0]
    plain, shown = ModelAsItCame(base), ModelAsItCame(base, prefix)
    joined = base(input_ids=torch.cat([prefix.expand(2, -1), ids], 1)).logits
    torch.testing.assert_close(logits(shown, ids, [2, 7]), joined[:, [7, 12]])
    torch.testing.assert_close(shown(ids), joined[:, 5:])
    torch.testing.assert_close(logits(plain, ids, [2, 7]), base(input_ids=ids).logits[:, [2, 7]])
    assert set(shown.state_dict()) == {"prefix"}
    assert shown.prompt([1, 2]) == [*prefix.tolist(), 1, 2]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_packed_texts_do_not_see_each_other(kind):
    model = ModelAsItCame(tiny(kind))
    first, second = texts(1, 7, seed=1), texts(1, 5, seed=2)
    packed = torch.cat([first, second, torch.zeros(1, 2, dtype=torch.int64)], 1)
    positions = torch.cat([torch.arange(7), torch.arange(5), torch.arange(2)])[None]
    present = packed > 0
    given = model.logits_at(packed, positions, present, torch.arange(12))
    alone = [logits(model, part, list(range(part.shape[1]))) for part in (first, second)]
    torch.testing.assert_close(given, torch.cat(alone, 1), atol=1e-5, rtol=1e-4)


def answers(model: LanguageModel, prompts: list[list[int]], **options: Any) -> list[Any]:
    chosen = {"new_tokens": 6, "ends": (), "padding": 0} | options
    return answer_prompts(model, prompts, **chosen)


def test_answers_are_the_same_alone_and_among_others():
    model = ModelAsItCame(tiny())
    prompts = [texts(1, length, seed=length)[0].tolist() for length in (3, 9, 1, 6)]
    together = answers(model, prompts)
    alone = [answers(model, [prompt])[0] for prompt in prompts]
    for one_answer, expected in zip(together, alone, strict=True):
        assert one_answer.tokens == expected.tokens
        assert one_answer.log_probability == pytest.approx(expected.log_probability, abs=1e-4)


@torch.no_grad()
def test_an_answer_is_the_most_probable_token_after_the_other():
    model = ModelAsItCame(tiny())
    prompt = texts(1, 4)[0].tolist()
    (given,) = answers(model, [prompt])
    expected, logs = list(prompt), []
    for _ in range(6):
        chances = model(torch.tensor([expected]))[0, -1].log_softmax(-1)
        expected.append(int(chances.argmax()))
        logs.append(float(chances.max()))
    assert given.tokens == expected[4:]
    assert not given.finished
    assert given.log_probability == pytest.approx(sum(logs) / 6, abs=1e-4)
    end = given.tokens[2]
    first = given.tokens.index(end)
    (ended,) = answers(model, [prompt], ends=(end,))
    assert ended.tokens == given.tokens[:first]
    assert ended.finished


def test_a_prompt_that_is_empty_or_leaves_no_room_is_refused():
    model = ModelAsItCame(tiny(max_position_embeddings=32))
    with pytest.raises(ValueError, match="the prompt is empty"):
        answers(model, [[]])
    with pytest.raises(ValueError, match="do not fit the 32 positions"):
        answers(model, [[1] * 30])
    assert len(answers(model, [[1] * 26])[0].tokens) == 6


def test_protecting_masks_the_trained_layers_alone():
    model = TunedModel(tiny(layers=4), replace(Change(), layers=(1, 2, False)))
    model.protect({layer: torch.full((48,), 0.3) for layer in range(4)})
    assert len(model.masks) == 4
    assert [float(mask.max()) for mask in model.masks.values()] == pytest.approx([0.7] * 4)
