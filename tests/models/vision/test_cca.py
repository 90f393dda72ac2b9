"""The conditional embedder: a plain formula, shapes, conditions that do not see each other,
mistakes.
"""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("timm", reason="timm is optional (extra reid) and not installed")

from headwise.kernels.decompositions import PlainForms
from headwise.models.layers.vit_trunk import build_trunk
from headwise.models.vision.cca import ConditionalEmbedder


def shaken_model(conditions: int = 3, **options) -> ConditionalEmbedder:
    torch.manual_seed(0)
    trunk = build_trunk("scratch", image=(32, 16), patch=8, width=16, depth=2, heads=2)
    model = ConditionalEmbedder(trunk, conditions, **{"vector": 6, **options})
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return model.eval()


def pictures(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 32, 16, generator=torch.Generator().manual_seed(1))


def test_shape_and_length() -> None:
    vectors = shaken_model()(pictures())
    assert vectors.shape == (4, 3, 6)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(4, 3))


@pytest.mark.parametrize("layers", [1, 3])
def test_a_condition_alone_gives_the_vector_that_it_gives_among_others(layers: int) -> None:
    model, x = shaken_model(layers=layers), pictures()
    vectors = model(x)
    for condition in range(3):
        torch.testing.assert_close(
            model.embed(x, torch.full((4,), condition)), vectors[:, condition], rtol=1e-4, atol=1e-5
        )
    mixed = torch.tensor([2, 0, 1, 2])
    torch.testing.assert_close(
        model.embed(x, mixed), vectors[torch.arange(4), mixed], rtol=1e-4, atol=1e-5
    )


def test_it_is_the_plain_formula() -> None:
    model, x = shaken_model(), pictures(2)
    tokens = model.trunk.model.blocks(model.trunk.embed(x))
    layer = model.layers[0]
    for picture in range(2):
        for condition in range(3):
            start = model.conditions[condition]
            query, many = layer.query(layer.norm1(start)), layer.norm1(tokens[picture])
            key, value = layer.key_value(many).split(16, -1)
            mixed = [
                (query[head] @ key[:, head].T / 8**0.5).softmax(-1) @ value[:, head]
                for head in (slice(0, 8), slice(8, 16))
            ]
            token = start + layer.out(torch.cat(mixed))
            token = token + layer.network.down(F.gelu(layer.network.up(layer.norm2(token))))
            vector = model.project(model.norm(token))
            torch.testing.assert_close(
                model(x)[picture, condition], vector / vector.norm(), rtol=1e-4, atol=1e-5
            )


def test_conditions_give_different_vectors() -> None:
    vectors = shaken_model()(pictures())
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (vectors[:, first] * vectors[:, second]).sum(-1).max() < 0.99


def test_gradients_reach_all_weights_and_only_the_conditions_of_the_batch() -> None:
    model = shaken_model().train()
    (model.embed(pictures(), torch.tensor([0, 2, 0, 2])) * torch.randn(4, 6)).sum().backward()
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            assert name.startswith("trunk.model.norm.")  # the layers normalise the tokens
            continue
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name
    grad = model.conditions.grad
    assert grad is not None
    assert grad[1].abs().max() == 0
    assert grad[0].abs().max() > 0


def test_graphs() -> None:
    model, x = shaken_model(), pictures()
    expected = model(x)
    with torch.no_grad():
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-5)
    any_number = ({0: torch.export.Dim("b", min=1)},)
    with PlainForms():
        program = torch.export.export(model, (x[:2],), dynamic_shapes=any_number)
    assert "headwise" not in program.graph_module.code
    torch.testing.assert_close(program.module()(x), expected, rtol=1e-4, atol=1e-5)


def test_mistakes() -> None:
    for wrong in ({"conditions": 0}, {"layers": 0}, {"vector": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            shaken_model(**wrong)
    with pytest.raises(IndexError):
        shaken_model().embed(pictures(), torch.full((4,), 3))
