"""DCAL against plain formulas with full attention maps: token counts, GLCA, PWCA, ways to infer,
gradients, graphs.
"""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("timm", reason="timm is optional (extra reid) and not installed")

from headwise.kernels.decompositions import PlainForms
from headwise.models.layers.vit_trunk import Trunk, build_trunk
from headwise.models.vision import dcal
from headwise.models.vision.dcal import DCAL, CrossLayer

ROWS, COLUMNS, WIDTH, HEADS = 4, 2, 16, 2


def trunk(depth: int = 3, **options) -> Trunk:
    size = {
        "image": (8 * ROWS, 8 * COLUMNS),
        "patch": 8,
        "width": WIDTH,
        "depth": depth,
        "heads": HEADS,
    }
    return build_trunk("scratch", **size, **options)


def shaken_model(seed: int = 0, **options) -> DCAL:
    """A model whose softmaxes are far from uniform, so that rounding does not decide which patches
    are chosen.
    """
    torch.manual_seed(seed)
    model = DCAL(trunk(), 5, **{"local": 0.4, **options})
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model.double().eval()


def pictures(count: int = 4) -> Tensor:
    return torch.randn(
        count,
        3,
        8 * ROWS,
        8 * COLUMNS,
        dtype=torch.float64,
        generator=torch.Generator().manual_seed(9),
    )


def plain_maps(model: Trunk, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Last tokens (B, N, D) by timm's blocks, and of each layer the mean over heads of its
    softmax (B, N, N).
    """
    tokens, maps = model.embed(x), []
    for block in model.blocks:
        flat = block.attn.qkv(block.norm1(tokens))
        size = WIDTH // HEADS
        of_heads = []
        for head in range(HEADS):
            query = flat[..., head * size : (head + 1) * size]
            key = flat[..., WIDTH + head * size : WIDTH + (head + 1) * size]
            of_heads.append((query @ key.transpose(1, 2) / math.sqrt(size)).softmax(-1))
        maps.append(torch.stack(of_heads).mean(0))
        tokens = block(tokens)
    return tokens, maps


def plain_rollout(maps: list[Tensor]) -> Tensor:
    """The full product of Abnar and Zuidema (B, N, N)."""
    product = torch.eye(maps[0].shape[-1], dtype=maps[0].dtype).expand_as(maps[0])
    for attention in maps:
        identity = torch.eye(attention.shape[-1], dtype=attention.dtype)
        product = (0.5 * attention + 0.5 * identity) @ product
    return product


def plain_cross(layer: CrossLayer, few: Tensor, many: Tensor) -> Tensor:
    """One picture: (R, D) and (N, D) to (R, D)."""
    query = layer.query(layer.norm1(few))
    key, value = layer.key_value(layer.norm1(many)).split(WIDTH, -1)
    size = WIDTH // layer.heads
    mixed = []
    for head in range(layer.heads):
        columns = slice(head * size, (head + 1) * size)
        mixed.append(
            (query[:, columns] @ key[:, columns].T / math.sqrt(size)).softmax(-1)
            @ value[:, columns]
        )
    few = few + layer.out(torch.cat(mixed, -1))
    return few + layer.network.down(F.gelu(layer.network.up(layer.norm2(few))))


def plain_pairs(model: Trunk, x: Tensor, partner: Tensor) -> Tensor:
    """PWCA with keys and values of two pictures joined."""
    tokens = model.embed(x)
    size = WIDTH // HEADS
    for block in model.blocks:
        query, key, value = block.attn.qkv(block.norm1(tokens)).split(WIDTH, -1)
        key, value = torch.cat([key, key[partner]], 1), torch.cat([value, value[partner]], 1)
        mixed = []
        for head in range(HEADS):
            columns = slice(head * size, (head + 1) * size)
            weight = (
                query[..., columns] @ key[..., columns].transpose(1, 2) / math.sqrt(size)
            ).softmax(-1)
            mixed.append(weight @ value[..., columns])
        tokens = tokens + block.attn.proj(torch.cat(mixed, -1))
        tokens = tokens + block.mlp(block.norm2(tokens))
    return tokens


@pytest.mark.parametrize(
    ("image", "local", "count"),
    [
        ((256, 128), 0.3, 38),
        ((256, 256), 0.3, 76),
        ((448, 448), 0.1, 78),
        ((64, 64), 1, 16),
        ((32, 32), 0.1, 1),
        ((160, 160), 0.29, 29),
    ],
)
def test_local_patches_are_as_many_as_in_the_paper(
    image: tuple[int, int], local: float, count: int
) -> None:
    model = DCAL(
        build_trunk("scratch", image=image, width=8, depth=1, heads=1), 2, local=local
    ).eval()
    arguments: list[Tensor] = []
    model.glca[0].register_forward_pre_hook(lambda layer, inputs: arguments.extend(inputs))
    with torch.no_grad():
        model(torch.randn(2, 3, *image))
    patches = image[0] * image[1] // 256
    assert model.chosen == count
    assert arguments[0].shape == (2, count + 1, 8)  # and the class token
    assert arguments[1].shape == (2, patches + 1, 8)


@pytest.mark.parametrize("layers", [1, 2])
def test_glca_is_the_plain_formula_with_the_full_rollout(layers: int) -> None:
    model, x = shaken_model(glca=layers), pictures()
    branches = model.branches(x)
    assert branches.tokens.keys() == branches.logits.keys() == {"sa", "glca"}
    tokens, maps = plain_maps(model.trunk, x)
    torch.testing.assert_close(branches.tokens["sa"], model.trunk.norm(tokens)[:, 0])
    row = plain_rollout(maps)[:, 0, 1:].detach()
    chosen = []
    for picture in range(len(x)):
        ranked = (-row[picture]).argsort(stable=True)[: model.chosen].tolist()
        chosen.append(frozenset(ranked))
        few = tokens[picture, [0, *(1 + patch for patch in ranked)]]
        for layer in model.glca:
            few = plain_cross(layer, few, tokens[picture])
        torch.testing.assert_close(branches.tokens["glca"][picture], model.glca_norm(few[0]))
    assert len(set(chosen)) > 1  # else the choice would have been tested by chance
    for name in ("sa", "glca"):
        head = model.classifiers[name]
        torch.testing.assert_close(
            branches.logits[name], head.neck(branches.tokens[name]) @ head.classify.weight.T
        )


def test_rollout_is_the_row_of_the_product() -> None:
    model, x = shaken_model(), pictures()
    rollout = model.rollout(x)
    expected = plain_rollout(plain_maps(model.trunk, x)[1])[:, 0]
    torch.testing.assert_close(rollout, expected[:, 1:].unflatten(1, (ROWS, COLUMNS)))
    assert (rollout > 0).all()
    assert (rollout.sum((1, 2)) < 1).all()  # the rest is the class token's
    torch.testing.assert_close(
        rollout.sum((1, 2)) + expected[:, 0], torch.ones(len(x), dtype=torch.float64)
    )


def test_pwca_is_the_transformer_with_two_pictures_in_each_softmax() -> None:
    model, x = shaken_model().train(), pictures()
    partner = torch.tensor([2, 0, 3, 1])
    branches = model.branches(x, partner=partner)
    torch.testing.assert_close(
        branches.tokens["pwca"], model.trunk.norm(plain_pairs(model.trunk, x, partner))[:, 0]
    )
    assert not torch.allclose(branches.tokens["pwca"], branches.tokens["sa"], atol=1e-3)
    torch.manual_seed(4)
    with_random_partner = model.branches(x).tokens["pwca"]
    torch.manual_seed(4)
    assert torch.equal(
        with_random_partner,
        model.branches(x, partner=dcal.random_partners(4, x.device)).tokens["pwca"],
    )


def test_pwca_is_in_training_only(monkeypatch) -> None:
    model, x = shaken_model(), pictures()
    assert "pwca" in model.train().branches(x).tokens
    monkeypatch.setattr(Trunk, "pairs", lambda *arguments: pytest.fail("PWCA in inference"))
    assert "pwca" not in model.eval().branches(x).tokens
    assert shaken_model(pwca=False).train().branches(x).tokens.keys() == {"sa", "glca"}
    assert shaken_model(glca=0, pwca=False).train().branches(x).tokens.keys() == {"sa"}


def test_sa_alone_is_the_plain_transformer_and_costs_no_more(monkeypatch) -> None:
    model, x = shaken_model(heads="sa"), pictures()
    plain = F.normalize(model.trunk.model.forward_features(x)[:, 0])
    monkeypatch.setattr(dcal, "rollout_of", lambda *arguments: pytest.fail("rollout is not needed"))
    monkeypatch.setattr(CrossLayer, "forward", lambda *arguments: pytest.fail("GLCA is not needed"))
    torch.testing.assert_close(model(x), plain.float())
    model.output = "probabilities"
    torch.testing.assert_close(model(x), model.branches(x).logits["sa"].float().softmax(1))


def test_both_heads_are_side_by_side_of_length_1_or_averaged() -> None:
    model, x = shaken_model(), pictures()
    branches = model.branches(x)
    both = torch.cat([branches.tokens["sa"], branches.tokens["glca"]], 1).float()
    torch.testing.assert_close(model(x), both / both.square().sum(1, keepdim=True).sqrt())
    assert model(x).shape == (4, 2 * WIDTH)
    model.output = "probabilities"
    of_heads = [
        branches.logits[name].exp() / branches.logits[name].exp().sum(1, keepdim=True)
        for name in ("sa", "glca")
    ]
    torch.testing.assert_close(model(x), ((of_heads[0] + of_heads[1]) / 2).float())


def test_without_branches_it_is_the_transformer() -> None:
    model, x = shaken_model(glca=0, pwca=False), pictures()
    torch.testing.assert_close(
        model(x), F.normalize(model.trunk.model.forward_features(x)[:, 0]).float()
    )
    assert not list(model.glca.parameters())
    assert model.log_variance.shape == (1,)


@pytest.mark.parametrize("neck", [True, False])
def test_gradients_reach_all_weights(neck: bool) -> None:
    model = shaken_model(neck=neck, glca=2).train()
    branches = model.branches(pictures())
    losses = torch.stack(
        [logits.logsumexp(1).mean() + logits[:, 0].mean() for logits in branches.logits.values()]
    )
    ((-model.log_variance).exp() * losses + model.log_variance).sum().backward()
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert weight.grad.isfinite().all(), name
            assert weight.grad.abs().max() > 0, name
    assert [name for name, weight in model.named_parameters() if not weight.requires_grad] == [
        f"classifiers.{name}.neck.bias" for name in branches.tokens if neck
    ]


def test_bfloat16_by_autocast() -> None:
    model, x = shaken_model().float(), pictures().float()
    exact = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(x)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded.norm(dim=1), torch.ones(4))
    assert (rounded * exact).sum(1).min() > 0.97
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        sum(
            logits.float().square().mean() for logits in model.branches(x).logits.values()
        ).backward()
    assert all(weight.grad.isfinite().all() for weight in model.trunk.parameters())


def test_compiled() -> None:
    model, x = shaken_model().float(), pictures().float()
    with torch.no_grad():
        torch.testing.assert_close(
            torch.compile(model, backend="aot_eager", fullgraph=True)(x),
            model(x),
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.parametrize("options", [{}, {"heads": "sa", "output": "probabilities"}], ids=str)
def test_exported_it_is_plain_pytorch_with_a_free_number_of_pictures(
    options: dict[str, str],
) -> None:
    model, x = shaken_model(**options).float(), pictures().float()
    any_number = ({0: torch.export.Dim("b", min=1)},)
    with PlainForms():
        program = torch.export.export(model, (x[:2],), dynamic_shapes=any_number)
    assert "headwise" not in program.graph_module.code
    for count in (1, 4):
        torch.testing.assert_close(
            program.module()(x[:count]), model(x[:count]), rtol=1e-4, atol=1e-5
        )


def as_mechanisms(plain: DCAL) -> DCAL:
    """The same model, whose attention is three times the core's softmax mechanism instead of
    timm's, of DCAL's and of the pairs'.
    """
    options = {"kv_heads": HEADS}  # the default, by which it is no longer timm's own
    model = DCAL(trunk(attention="softmax", attention_options=options), 5, local=0.4)
    state = {}
    for name, value in plain.state_dict().items():
        if ".attn.qkv." in name:
            query, rest = value[:WIDTH], value[WIDTH:]
            state[name.replace("qkv", "query")] = query
            state[name.replace("qkv", "key_value")] = rest
        elif ".attn.proj." in name:
            state[name.replace("proj", "out")] = value
        else:
            state[re.sub(r"(glca\.\d)\.(query|key_value|out)\.", r"\1.mixer.\2.", name)] = value
    model.load_state_dict(state)
    return model.double().eval()


def test_the_branches_of_a_mechanism_are_those_of_softmax_where_it_is_softmax() -> None:
    plain, x = shaken_model(), pictures()
    model = as_mechanisms(plain)
    assert not model.trunk.plain
    torch.testing.assert_close(model.rollout(x), plain.rollout(x))
    torch.testing.assert_close(model(x), plain(x))
    partner = torch.tensor([1, 2, 3, 0])
    for training in (plain, model):
        training.train()
    expected, actual = (each.branches(x, partner=partner) for each in (plain, model))
    assert set(actual.tokens) == {"sa", "glca", "pwca"}
    for name, token in expected.tokens.items():
        torch.testing.assert_close(actual.tokens[name], token)


@pytest.mark.parametrize("attention", ["differential", "taylor"])
def test_other_mechanisms_learn_in_all_branches(attention: str) -> None:
    torch.manual_seed(0)
    model = DCAL(trunk(2, attention=attention), 5).train()
    branches = model.branches(pictures().float())
    sum(logits.square().mean() for logits in branches.logits.values()).backward()
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    idle = [name for name, weight in learning.items() if weight.grad is None]
    assert idle == ["log_variance"]
    assert model.eval().rollout(pictures().float()).sum((1, 2)).max() <= 1 + 1e-5


@pytest.mark.parametrize("neck", [True, False])
def test_diverse_experts_learn_by_themselves_and_answer_with_their_mean(neck) -> None:
    model, x = shaken_model(diverse=True, neck=neck, output="probabilities"), pictures()
    branches = model.branches(x)
    means = dict(branches.logits)
    for name, head in model.classifiers.items():
        head.classify.train()
        if name in means:
            experts = head(branches.tokens[name])
            assert experts.shape == (3, 4, 5)
            torch.testing.assert_close(experts.mean(0), means[name])
    model.eval()
    expected = torch.stack([values.softmax(1) for values in means.values()]).mean(0)
    torch.testing.assert_close(model(x), expected.float(), check_dtype=False)
    trained = model.train().branches(x).logits
    assert {values.shape for values in trained.values()} == {(3, 4, 5)}


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="GLCA and PWCA cannot read attention 'random'"):
        DCAL(trunk(1, attention="random"), 2)
    with pytest.raises(ValueError, match="GLCA cannot read attention 'star'"):
        DCAL(trunk(1, attention="star"), 2)
    for wrong in ({"local": 0.0}, {"local": 1.1}, {"glca": -1}):
        with pytest.raises(ValueError, match="local must be in"):
            DCAL(trunk(1), 2, **wrong)
    with pytest.raises(ValueError, match="3 heads do not divide width 16"):
        CrossLayer(16, 3)
    model = DCAL(trunk(1, attention="star"), 2, glca=0, pwca=False).eval()
    assert model(torch.randn(2, 3, 32, 16)).shape == (2, WIDTH)
    with pytest.raises(ValueError, match="no rollout of star"):
        model.rollout(torch.randn(2, 3, 32, 16))


class TestCentres:
    def test_the_mean_is_taken_off_for_the_heads_that_are_used(self) -> None:
        model = shaken_model()
        x, centres = pictures(), {}
        plain = {}
        for model.heads in dcal.HEADS:
            plain[model.heads] = model(x)
            centres[model.heads] = plain[model.heads].mean(0)
        model.set_centres(centres)
        for model.heads in dcal.HEADS:
            rest = plain[model.heads] - plain[model.heads].mean(0)
            expected = rest / rest.norm(dim=1, keepdim=True)
            torch.testing.assert_close(model(x), expected)
            assert (
                (model(x) @ model(x).T).min()
                < 0
                < (plain[model.heads] @ plain[model.heads].T).min()
            )

    def test_they_are_stored_with_the_weights_and_older_weights_have_none(self) -> None:
        model, x = shaken_model(), pictures()
        older, before = model.state_dict(), model(x)
        assert not any("centre" in name for name in older)
        model.set_centres({"both": before.mean(0), "sa": torch.ones(WIDTH).double()})
        newer, after = model.state_dict(), model(x)
        assert newer["centre_both"].shape == (2 * WIDTH,)
        again = shaken_model(1)
        again.load_state_dict(newer)
        blend = torch.nn.ModuleDict({"model": again, "other": torch.nn.Linear(1, 1)})
        # Only tensors beside the model: its centres stay.
        blend.load_state_dict(blend["other"].state_dict(prefix="other."), strict=False)
        torch.testing.assert_close(again(x), after, rtol=0, atol=0)
        again.load_state_dict(older)
        torch.testing.assert_close(again(x), before, rtol=0, atol=0)
        with pytest.raises(RuntimeError, match="Unexpected key"):
            again.load_state_dict({**older, "centre_other": x})
