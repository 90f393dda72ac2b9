"""What holds for every module of the core and every model, as assertions that their tests share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def assert_gradient_is_the_derivative(
    module: nn.Module, loss: Callable[[], Tensor], *, step: float = 1e-7, rtol: float = 1e-5
) -> None:
    """Compare the gradient of all weights, along one random direction, with the difference of two
    losses.

    A gradient that is cut on one of several paths (an output layer that is a copy of the embedding,
    a detached branch) is there and finite, and still wrong. module: in float64; loss: a scalar,
    drawn anew from the same seed each time; step: along the direction, small enough that few
    rectifiers change their side."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    generator = torch.Generator().manual_seed(5)
    direction = [
        torch.randn(weight.shape, generator=generator, dtype=weight.dtype) for weight in weights
    ]
    torch.manual_seed(6)
    gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True) if g is not None)
    start = [weight.detach().clone() for weight in weights]

    def at(place: float) -> Tensor:
        for weight, origin, along in zip(weights, start, direction, strict=True):
            weight.copy_(origin + place * along)
        torch.manual_seed(6)
        return loss()

    with torch.no_grad():
        difference = (at(step) - at(-step)) / (2 * step)
        at(0.0)
    torch.testing.assert_close(
        torch.as_tensor(slope).to(difference), difference, rtol=rtol, atol=1e-6
    )


def assert_evaluation_is_without_dropout(
    dropping: nn.Module, plain: nn.Module, call: Callable[[nn.Module], Tensor], *, live: bool = True
) -> None:
    """In evaluation a module with dropout is the one without: nothing is drawn, kept or counted.

    dropping, plain: the same module built with dropout and without; live: whether training must
    draw, without which the comparison would say nothing."""
    dropping.load_state_dict(plain.state_dict(), strict=False)
    expected = call(plain.eval())
    if live:
        dropping.train()
        torch.manual_seed(1)
        first, second = call(dropping), call(dropping)
        assert not torch.allclose(first, second), "the option draws nothing in training"
        dropping.load_state_dict(plain.state_dict(), strict=False)  # training may count
    before = {name: value.clone() for name, value in dropping.state_dict().items()}
    dropping.eval()
    torch.manual_seed(2)
    first = call(dropping)
    torch.manual_seed(3)
    assert torch.equal(call(dropping), first)
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-6)
    after = dropping.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items()), (
        "evaluation changed the state"
    )
    layers_with_loss = [
        name
        for name, part in dropping.named_modules()
        if isinstance(getattr(part, "auxiliary", None), Tensor)
    ]
    assert not layers_with_loss, f"evaluation left a loss in {layers_with_loss}"
