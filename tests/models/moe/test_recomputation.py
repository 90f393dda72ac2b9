"""Layers with experts under activation checkpointing: the repeated pass is the first one again."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from headwise.models.attention.base import auxiliary_loss
from headwise.models.attention.moh import MixtureOfHeads
from headwise.models.attention.softmax import SoftmaxAttention
from headwise.models.moe.layer import MoE
from headwise.models.moe.lora import MoELoRA
from headwise.models.moe.watch import RoutingWatch

FLOAT64 = torch.float64
both_forms = pytest.mark.parametrize("reentrant", [False, True])


def layer_with_bias(**options) -> MoE:
    torch.manual_seed(1)
    experts = {"experts": 4, "active": 2, "balance": 0.0, "bias_rate": 0.01, "score": "sigmoid"}
    return MoE(16, 32, **experts | options).double().train()


def tokens(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 12, 16, dtype=FLOAT64, generator=generator)
    return x.requires_grad_()


def trained_once(layer: MoE, seeds: list[int], reentrant: bool | None, call=None) -> list[Tensor]:
    """Outputs of all passes, then one backward pass: gradients and the bias."""
    call = layer if call is None else call
    outputs = []
    for seed in seeds:
        x = tokens(seed)
        outputs.append(
            call(x) if reentrant is None else checkpoint(call, x, use_reentrant=reentrant)
        )
    torch.stack(outputs).square().sum().backward()
    gradients = [weight.grad for weight in layer.parameters()]
    return [*(out.detach() for out in outputs), *gradients, layer.router.bias.clone()]


@both_forms
@pytest.mark.parametrize(
    "options",
    [{}, {"noise": "jitter", "noise_scale": 0.3}, {"capacity": 0.7}, {"mixing": "similarity"}],
)
@pytest.mark.parametrize("seeds", [[3], [3, 4, 5]])
def test_a_checkpointed_layer_has_the_gradients_and_the_bias_of_a_plain_one(
    options: dict, seeds: list[int], reentrant: bool
) -> None:
    torch.manual_seed(2)
    expected = trained_once(layer_with_bias(**options), seeds, None)
    torch.manual_seed(2)
    checkpointed = trained_once(layer_with_bias(**options), seeds, reentrant)
    torch.testing.assert_close(checkpointed, expected, rtol=1e-12, atol=1e-12)
    assert expected[-1].any(), "the bias never moved"


@both_forms
def test_the_bias_of_many_steps_is_that_of_a_plain_layer(reentrant: bool) -> None:
    plain, checkpointed = layer_with_bias(), layer_with_bias()
    for seed in range(20):
        for layer, form in ((plain, None), (checkpointed, reentrant)):
            layer.zero_grad()
            trained_once(layer, [seed], form)
            with torch.no_grad():
                for weight in layer.parameters():
                    weight -= 1e-3 * weight.grad
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(checkpointed.state_dict()[name], value, rtol=1e-9, atol=1e-12)


@both_forms
def test_a_compiled_layer_can_be_checkpointed(reentrant: bool) -> None:
    torch._dynamo.reset()
    expected = trained_once(layer_with_bias(), [3], None)
    layer = layer_with_bias()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(trained_once(layer, [3], reentrant, compiled), expected)


def test_a_layer_whose_type_changes_keeps_routing() -> None:
    layer = layer_with_bias()
    layer(tokens(1))
    layer.float()
    assert layer(tokens(1).float()).isfinite().all()
    assert torch.equal(layer_with_bias().eval()(tokens(1)), layer_with_bias()(tokens(1)))


def test_a_watch_counts_each_token_once() -> None:
    layer = layer_with_bias()
    with RoutingWatch(layer) as watch:
        trained_once(layer, [3], False)
    total = watch.totals[0]
    assert total is not None
    assert int(total[0].sum()) == 2 * 24


def layers_with_a_loss() -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        MoE(16, 8, experts=4, balance=0.1),
        MoELoRA(nn.Linear(16, 16), experts=4, active=2, rank=2, balance=0.1),
        MixtureOfHeads(16, heads=4, balance=0.1),
        SoftmaxAttention(16, heads=4, diversify=0.1),
    ]


@pytest.mark.parametrize("layer", layers_with_a_loss(), ids=lambda layer: type(layer).__name__)
def test_a_loss_flows_through_a_checkpoint_or_is_refused(layer: nn.Module) -> None:
    layer.double().train()
    model = nn.Sequential(layer)
    gradients = []
    for form in (None, False):
        layer.zero_grad()
        x = tokens(2)
        out = model(x) if form is None else checkpoint(model, x, use_reentrant=False)
        loss = auxiliary_loss(model)
        assert loss is not None
        (out.sum() + loss).backward()
        gradients.append([weight.grad for weight in layer.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-12)
    out = checkpoint(model, tokens(2), use_reentrant=True)
    with pytest.raises(ValueError, match=r"the loss of 0 was computed without gradients.*False"):
        auxiliary_loss(model)
    with torch.no_grad():
        assert auxiliary_loss(model) is not None
    with pytest.warns(UserWarning, match="its loss has no gradient.*use_reentrant=False"):
        out.sum().backward()
    model.eval()(tokens(2))
    assert auxiliary_loss(model) is None or isinstance(layer, SoftmaxAttention)
