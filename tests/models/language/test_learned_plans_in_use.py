"""Plans that training makes do in use, token by token on a cache, what they did in training."""

import pytest
import torch
from torch import Tensor

from headwise.models.language.plans.plan import Plan
from headwise.models.language.running.attach import attach
from headwise.tests.models.language.test_flux import answer_loss, made_to_choose
from headwise.tests.models.language.test_flux import module_of as flux_of
from headwise.tests.models.language.test_lychee import module_of as lychee_of
from headwise.tests.models.language.test_lychee import set_roles
from headwise.tests.models.language.tiny_models import shared_model, texts

LENGTH, START = 24, 17


def padded() -> tuple[Tensor, Tensor, Tensor]:
    """Prompts with padding before them, and answers that begin at one column, as in generation."""
    ids = texts(3, LENGTH)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, :6], mask[2, :1] = False, False
    answer = torch.zeros_like(mask)
    answer[:, START:] = True
    return ids, mask, answer


@torch.no_grad()
def decoded(kind: str, plan: Plan, ids: Tensor, mask: Tensor, *, states: bool) -> Tensor:
    """States or logits of all tokens: the prompt in one piece, then one token at a time."""
    model, outputs = shared_model(kind), []
    with attach(model, plan) as attached:
        cache = attached.cache()
        for piece in [slice(START), *(slice(i, i + 1) for i in range(START, LENGTH))]:
            positions = (mask.long().cumsum(1) - 1).clamp_min(0)[:, piece]
            out = (model.base_model if states else model)(
                input_ids=ids[:, piece],
                attention_mask=mask[:, : piece.stop].long(),
                position_ids=positions,
                cache=cache,
                use_cache=True,
            )
            outputs.append(out.last_hidden_state if states else out.logits)
    return torch.cat(outputs, 1)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3"])
def test_roles_do_in_use_what_they_did_in_training(kind: str) -> None:
    roles = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 0]]).bool()
    module, (ids, mask, answer) = set_roles(lychee_of(kind), roles).eval(), padded()
    dense = decoded(kind, Plan.full(module.facts), ids, mask, states=True)
    mixed = decoded(kind, module.plan(), ids, mask, states=True)
    expected = (mixed - dense).square().mean(-1)[:, START:].mean()
    assert expected > 1e-3
    difference = module(ids, mask, answer).difference.detach()
    torch.testing.assert_close(difference, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3"])
def test_routers_do_in_use_what_they_did_in_training(kind: str) -> None:
    module, (ids, mask, answer) = made_to_choose(flux_of(kind, seed=1)).eval(), padded()
    logits = decoded(kind, module.plan(), ids, mask, states=False)
    with torch.no_grad():
        parts = module(ids, mask, answer)
    assert 0 < parts.sparsity < 1
    torch.testing.assert_close(parts.language, answer_loss(logits, ids, answer), rtol=1e-4, atol=0)
