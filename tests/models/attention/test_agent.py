"""Agent attention against loops and against linear attention; what its product of two softmax
matrices must be.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.models.attention import AgentAttention, GridAgentAttention, LearnedAgentAttention

DOUBLE = {"dtype": torch.float64}


def linear(x: Tensor, layer: torch.nn.Module) -> Tensor:
    return x @ layer.weight.t() + layer.bias


def agents_of_sequence(query: Tensor, present: list[int], count: int) -> Tensor:
    """(N, D) -> (A, D): means of the bins, one after the other."""
    bins = []
    for i in range(count):
        first, last = (
            math.floor(i * len(present) / count),
            math.ceil((i + 1) * len(present) / count),
        )
        bins.append(query[present[first:last]].mean(0))
    return torch.stack(bins)


def agents_of_grid(query: Tensor, present: list[int], size: tuple[int, int], side: int) -> Tensor:
    """(Y X, D) -> (A, D): means of the present cells of each bin, nan without any."""
    bins = []
    for i in range(side):
        for j in range(side):
            cells = [
                y * size[1] + x
                for y in range(math.floor(i * size[0] / side), math.ceil((i + 1) * size[0] / side))
                for x in range(math.floor(j * size[1] / side), math.ceil((j + 1) * size[1] / side))
            ]
            cells = [cell for cell in cells if cell in present]
            bins.append(query[cells].mean(0))
    return torch.stack(bins)


def formula(
    model: AgentAttention,
    x: Tensor,
    agents: Tensor,
    present: list[int],
    b1: Tensor | None = None,
    b2: Tensor | None = None,
) -> Tensor:
    """One sequence (N, D), agents (A, D), head by head, without R and the last layer; b1 (H, A, N),
    b2 (H, N, A).
    """
    query, (key, value) = linear(x, model.query), linear(x, model.key_value).chunk(2, -1)
    size = model.width // model.heads
    mixed = []
    for h in range(model.heads):
        part = slice(h * size, (h + 1) * size)
        first = agents[:, part] @ key[:, part].t() / size**0.5
        second = query[:, part] @ agents[:, part].t() / size**0.5
        if b1 is not None and b2 is not None:
            first, second = first + b1[h], second + b2[h]
        phi_key = first[:, present].softmax(-1)
        phi_query = second.softmax(-1)
        # Linear attention: the A x d product of keys and values comes first.
        mixed.append(phi_query @ (phi_key @ value[present, part]))
    return torch.cat(mixed, -1)


@pytest.mark.parametrize(("tokens", "agents"), [(13, 4), (5, 8), (1, 3), (12, 4), (30, 7)])
@pytest.mark.parametrize("restore", [False, True])
def test_the_sequence_form_equals_the_formula(tokens: int, agents: int, restore: bool) -> None:
    torch.manual_seed(0)
    model = AgentAttention(12, heads=3, agents=agents, restore=restore).double()
    x = torch.randn(3, tokens, 12, **DOUBLE)
    mask = torch.rand(3, tokens) < 0.6
    mask[0] = True
    out = model(x, mask=mask)
    for row in range(3):
        present = mask[row].nonzero().flatten().tolist()
        mixed = torch.zeros_like(x[row])
        value = linear(x[row], model.key_value).chunk(2, -1)[1] * mask[row][:, None]
        if present:
            pooled = agents_of_sequence(linear(x[row], model.query), present, agents)
            mixed = formula(model, x[row], pooled, present)
        if restore:
            padded = F.pad(value, (0, 0, 1, 1))
            for n in range(tokens):
                mixed[n] = mixed[n] + (padded[n : n + 3] * model.restore.weight[:, 0].t()).sum(0)
        torch.testing.assert_close(out[row], linear(mixed, model.out), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model(x[:1]), out[:1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("size", "agents"), [((3, 5), 4), ((14, 14), 9), ((2, 2), 9)])
@pytest.mark.parametrize("masked", [False, True])
def test_the_grid_form_equals_the_formula(size: tuple[int, int], agents: int, masked: bool) -> None:
    torch.manual_seed(1)
    cells, side = size[0] * size[1], math.isqrt(agents)
    model = GridAgentAttention(8, heads=2, agents=agents).double()
    for part in (*model.to_agents.parameters(), *model.from_agents.parameters()):
        torch.nn.init.normal_(part)
    x = torch.randn(2, cells, 8, **DOUBLE)
    mask = torch.rand(2, cells) < 0.7 if masked else torch.ones(2, cells, dtype=torch.bool)
    mask[:, 0] = False  # a bin of a 2 x 2 grid can be empty
    out = model(x, mask=mask, size=size)
    b1, b2 = model.to_agents(size), model.from_agents(size).transpose(1, 2)
    value = linear(x, model.key_value).chunk(2, -1)[1] * mask[..., None]
    restored = F.conv2d(
        value.transpose(1, 2).unflatten(2, size), model.restore.weight, padding=1, groups=8
    )
    for row in range(2):
        present = mask[row].nonzero().flatten().tolist()
        pooled = agents_of_grid(linear(x[row], model.query), present, size, side)
        nonempty = ~pooled.isnan().any(-1)
        mixed = formula(
            model, x[row], pooled[nonempty], present, b1[:, nonempty], b2[:, :, nonempty]
        )
        expected = linear(mixed + restored[row].flatten(1).t(), model.out)
        torch.testing.assert_close(out[row], expected, rtol=1e-10, atol=1e-10)


def test_biases_of_the_window_are_the_published_sum() -> None:
    """If the grid has the size of the window, rows and columns are added unchanged."""
    torch.manual_seed(2)
    bias = GridAgentAttention(8, heads=2, agents=4, window=(5, 7)).double().to_agents
    for part in bias.parameters():
        torch.nn.init.normal_(part)
    expected = F.interpolate(bias.coarse, (5, 7), mode="bilinear").clone()
    for y in range(5):
        for x in range(7):
            expected[:, :, y, x] += bias.rows[:, :, y] + bias.columns[:, :, x]
    torch.testing.assert_close(bias((5, 7)), expected.flatten(2), rtol=1e-12, atol=1e-12)
    assert bias((3, 4)).shape == (2, 4, 12)


@pytest.mark.parametrize("form", ["sequence", "grid", "learned"])
def test_the_product_is_row_stochastic_and_of_low_rank(form: str) -> None:
    torch.manual_seed(3)
    extras = {"size": (4, 6)} if form == "grid" else {}
    models = {
        "sequence": lambda: AgentAttention(16, heads=2, agents=4),
        "grid": lambda: GridAgentAttention(16, heads=2, agents=4),
        "learned": lambda: LearnedAgentAttention(16, heads=2, agents=4),
    }
    model, x = models[form]().double(), 3 * torch.randn(2, 24, 16, **DOUBLE)
    weights = model.weights(x, **extras)
    assert (weights > 0).all()
    torch.testing.assert_close(
        weights.sum(-1), torch.ones(2, 2, 24, **DOUBLE), rtol=1e-12, atol=1e-12
    )
    assert torch.linalg.matrix_rank(weights, rtol=1e-10).max() == 4
    value = model.key_value(x).chunk(2, -1)[1].unflatten(-1, (2, 8)).transpose(1, 2)
    mixed = (weights @ value).transpose(1, 2).flatten(2)
    if model.restore is not None:
        mixed = mixed + model.restored(value.transpose(1, 2).flatten(2), None, extras.get("size"))
    torch.testing.assert_close(model(x, **extras), model.out(mixed), rtol=1e-10, atol=1e-10)


def test_constant_values_do_not_change() -> None:
    torch.manual_seed(4)
    model, x = (
        AgentAttention(8, heads=2, agents=5, restore=False).double(),
        torch.randn(1, 11, 8, **DOUBLE),
    )
    with torch.no_grad():
        model.key_value.weight[8:] = 0
        model.key_value.bias[8:] = torch.arange(8.0)
    torch.testing.assert_close(
        model(x), model.out(torch.arange(8.0, **DOUBLE)).expand(1, 11, 8), rtol=1e-12, atol=1e-12
    )


def test_the_order_of_agents_does_not_matter() -> None:
    torch.manual_seed(5)
    model, x = (
        LearnedAgentAttention(12, heads=3, agents=6).double(),
        torch.randn(2, 9, 12, **DOUBLE),
    )
    out = model(x)
    with torch.no_grad():
        model.learned.copy_(model.learned[:, torch.randperm(6)])
    torch.testing.assert_close(model(x), out, rtol=1e-12, atol=1e-12)


def test_one_agent_gives_every_token_the_same_output() -> None:
    torch.manual_seed(6)
    model, x = (
        AgentAttention(8, heads=2, agents=1, restore=False).double(),
        torch.randn(2, 10, 8, **DOUBLE),
    )
    assert model.equivariant
    out = model(x)
    torch.testing.assert_close(out, out[:, :1].expand_as(out), rtol=1e-12, atol=1e-12)
    order = torch.randperm(10)
    torch.testing.assert_close(model(x[:, order]), out, rtol=1e-12, atol=1e-12)


def test_masks_in_the_middle_are_as_if_the_tokens_did_not_exist() -> None:
    torch.manual_seed(7)
    model, x = (
        AgentAttention(8, heads=2, agents=3, restore=False).double(),
        torch.randn(1, 12, 8, **DOUBLE),
    )
    mask = torch.ones(1, 12, dtype=torch.bool)
    mask[0, [2, 3, 7]] = False
    torch.testing.assert_close(
        model(x, mask=mask)[mask], model(x[mask][None])[0], rtol=1e-12, atol=1e-12
    )


def test_learned_agents_read_zeros_from_a_context_without_keys() -> None:
    model = LearnedAgentAttention(8, heads=2, agents=3)
    out = model(
        torch.randn(2, 4, 8), torch.randn(2, 6, 8), mask=torch.zeros(2, 6, dtype=torch.bool)
    )
    torch.testing.assert_close(out, model.out.bias.expand_as(out))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="is not a square"):
        GridAgentAttention(8, agents=5)
    with pytest.raises(ValueError, match="at least one agent"):
        AgentAttention(8, agents=0)
    with pytest.raises(ValueError, match="does not hold 6 tokens"):
        GridAgentAttention(8, heads=2)(torch.zeros(1, 6, 8), size=(2, 2))
