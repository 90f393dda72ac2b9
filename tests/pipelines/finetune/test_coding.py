"""Which tokens a model learns of, and rows that share a sequence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headwise.base.errors import InputError
from headwise.data.prompts.dialogues import Dialogue, Message
from headwise.models.language.tuning.answering import answer_prompts
from headwise.models.language.tuning.tuned import ModelAsItCame
from headwise.pipelines.finetune.coding import IGNORED, Coded, DialogueCoder, batch_of, columns_of
from headwise.pipelines.finetune.scoring import row_losses, token_losses
from headwise.tests.pipelines.finetune.prompts import tiny_with_template


def dialogue(*messages: tuple[str, str], answer: str = "yes") -> Dialogue:
    return Dialogue(tuple(Message(*m) for m in messages), answer, "", "", "", "t", 0)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return tiny_with_template(str(tmp_path_factory.mktemp("model")))


@pytest.fixture
def chat(opened) -> DialogueCoder:
    return DialogueCoder(opened, "chat")


def told(coder: DialogueCoder, row: Coded) -> tuple[str, str]:
    """All that a row says, and what of it is learned."""
    return tuple(
        coder.tokenizer.decode(tokens.tolist(), skip_special_tokens=False)
        for tokens in (row.tokens, row.tokens[row.learned])
    )


def test_the_answer_and_its_end_alone_are_learned(chat):
    row = chat.row(dialogue(("system", "Be kind."), ("user", "Is it?")))
    assert told(chat, row) == (
        "<|system|>Be kind.<|user|>Is it?<|assistant|>yes<end>\n", "yes<end>",
    )  # fmt: skip


def test_earlier_answers_are_learned_too(chat):
    row = chat.row(dialogue(("user", "a"), ("assistant", "b"), ("user", "c"), answer="d"))
    assert told(chat, row)[1] == "b<end>d<end>"


def test_a_prompt_is_what_stands_before_the_answer(opened):
    for template in ("chat", "plain"):
        coder = DialogueCoder(opened, template)
        row = coder.row(dialogue(("user", "Is it?")))
        first = int(row.learned.argmax())
        assert coder.prompt([Message("user", "Is it?")]) == row.tokens[:first].tolist()


def test_without_a_template_a_line_stands_between(opened):
    coder = DialogueCoder(opened, "plain")
    row = coder.row(dialogue(("user", "Is it?"), answer="yes\nno"))
    assert told(coder, row) == ("Is it?\nyes\nno<end>", "yes\nno<end>")


def test_a_template_that_rewrites_earlier_messages_is_refused(opened):
    coder = DialogueCoder(opened, "chat")
    before = coder.tokenizer.chat_template
    try:
        coder.tokenizer.chat_template = "{{ messages | length }}" + before
        with pytest.raises(InputError, match="trained with --template plain"):
            coder.row(dialogue(("user", "a"), ("assistant", "b"), ("user", "c")))
    finally:
        coder.tokenizer.chat_template = before


def some_rows(count: int = 5) -> list[Coded]:
    generator = np.random.default_rng(3)
    rows = []
    for k in range(count):
        size = 4 + 3 * k
        learned = np.zeros(size, bool)
        learned[size // 2 :] = True
        rows.append(Coded(generator.integers(0, 200, size), learned))
    return rows


def test_a_target_is_the_next_token_where_it_is_learned():
    rows = some_rows()
    batch = batch_of(rows, packed=False, padding=9)
    for k, row in enumerate(rows):
        for place in range(batch["tokens"].shape[1]):
            inside = place + 1 < len(row) and bool(row.learned[place + 1])
            expected = int(row.tokens[place + 1]) if inside else IGNORED
            assert int(batch["targets"][k, place]) == expected
        assert batch["owner"][k].tolist() == [k] * len(row) + [-1] * (16 - len(row))


def test_rows_that_share_sequences_lose_nothing_and_have_their_own_positions():
    rows = some_rows()
    packed, padded = (batch_of(rows, packed=value, padding=9) for value in (True, False))
    assert len(packed["tokens"]) == 4, "of 16 tokens each: 16, 13, 10 + 4 and 7"
    for name in ("tokens", "targets", "positions"):
        for k in range(len(rows)):
            mine = [batch[name][batch["owner"] == k].tolist() for batch in (packed, padded)]
            assert mine[0] == mine[1]
    assert (packed["owner"] == -1).sum() < (padded["owner"] == -1).sum()


def test_packing_changes_no_loss_and_no_gradient(opened):
    rows = some_rows()
    results = []
    for packed in (False, True):
        model = ModelAsItCame(opened.model)
        opened.model.requires_grad_(True)
        opened.model.zero_grad()
        loss = token_losses(model, batch_of(rows, packed=packed, padding=9)).sum()
        loss.backward()
        gradient = opened.model.model.layers[0].mlp.up_proj.weight.grad.clone()
        results.append((float(loss.detach()), gradient))
    opened.model.requires_grad_(False)
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=1e-4)


def test_losses_of_rows_are_those_of_plain_passes(opened):
    rows = some_rows()
    losses = row_losses(ModelAsItCame(opened.model), rows, torch.device("cpu"))
    for k, row in enumerate(rows):
        with torch.no_grad():
            chances = opened.model(torch.from_numpy(row.tokens)[None]).logits[0].log_softmax(-1)
        nats = [
            -float(chances[place - 1, row.tokens[place]])
            for place in range(1, len(row))
            if row.learned[place]
        ]
        assert losses.sums[k] == pytest.approx(sum(nats), rel=1e-5)
        assert losses.counts[k] == len(nats)
    assert columns_of(torch.tensor([[IGNORED, 3, IGNORED, 4]])).tolist() == [1, 3]


def with_ends(opened, monkeypatch, *, configured: object, template: str) -> None:
    """Give the opened model other ends, for the while of a test."""
    monkeypatch.setattr(opened.model.generation_config, "eos_token_id", configured)
    monkeypatch.setattr(opened.tokenizer, "chat_template", template)


def test_an_answer_ends_where_the_settings_of_the_model_or_the_template_say(opened, monkeypatch):
    pad, end = opened.tokenizer.pad_token_id, opened.tokenizer.eos_token_id
    before = opened.tokenizer.chat_template
    assert DialogueCoder(opened, "chat").ends == {end}
    with_ends(opened, monkeypatch, configured=[pad, 7, -3, 10**9, "x"], template=before)
    assert DialogueCoder(opened, "plain").ends == {end, pad, 7}
    with_ends(opened, monkeypatch, configured=None, template=before.replace("<end>", "<pad>"))
    coder = DialogueCoder(opened, "chat")
    assert coder.ends == {end, pad}
    row = coder.row(dialogue(("user", "Is it?")))
    assert told(coder, row)[1] == "yes<pad>", "not the line that the template writes behind it"
    assert DialogueCoder(opened, "plain").ends == {end}


def test_an_answer_stops_at_the_end_of_a_turn(opened, monkeypatch):
    prompts = [[72, 105], [72, 105, 33]]
    model = ModelAsItCame(opened.model)

    def answered() -> list:
        coder = DialogueCoder(opened, "plain")
        return answer_prompts(model, prompts, new_tokens=6, ends=coder.ends, padding=coder.padding)

    token = answered()[0].tokens[2]
    with_ends(opened, monkeypatch, configured=[token], template="")
    stopped = answered()[0]
    assert stopped.finished
    assert token not in stopped.tokens
    assert len(stopped.tokens) <= 2


def test_a_template_that_fails_is_refused_in_one_line(opened, monkeypatch):
    template = "{{ raise_exception('roles\nmust alternate') }}"
    with_ends(opened, monkeypatch, configured=None, template=template)
    with pytest.raises(
        InputError, match=r"^the model's chat.*roles must alternate\); a model trained"
    ):
        DialogueCoder(opened, "chat").prompt([Message("user", "a")])
