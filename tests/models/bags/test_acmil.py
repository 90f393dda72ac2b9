"""ACMIL against the published formulas written plainly, its special cases, ragged bags, masking."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwise.kernels.decompositions import PlainForms
from headwise.models import ACMIL, MaxPool, MeanPool
from headwise.models.attention import ATTENTION
from headwise.models.bags.acmil import BagModel, Bags, bag_softmax, diversity_loss, mask_top
from headwise.models.layers.vit import TransformerEncoder
from headwise.tests.kernels.waiting import assert_never_waits

LENGTHS = (7, 1, 30, 4)


def ragged(width: int = 12, lengths: tuple[int, ...] = LENGTHS) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return torch.randn(int(offsets[-1]), width), offsets


def plain_gated(model: ACMIL, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One bag by the published formulas: slide logits (C,), branch logits (K, C), scores (K, N)."""
    h = F.relu(x @ model.reduce.weight.T)
    inner = model.score.weight.shape[1]
    weight, bias = model.gates.weight, model.gates.bias
    v, u = (
        torch.tanh(h @ weight[:inner].T + bias[:inner]),
        torch.sigmoid(h @ weight[inner:].T + bias[inner:]),
    )
    scores = ((v * u) @ model.score.weight.T + model.score.bias).T
    p = scores.softmax(1)
    branch = torch.stack([layer(p[k] @ h) for k, layer in enumerate(model.classifiers)])
    return model.classifier(p.mean(0) @ h), branch, scores


def plain_multihead(model: ACMIL, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One bag with keys and values made: slide logits, branch logits, scores (K h, N)."""
    h = F.relu(x @ model.reduce.weight.T)
    size = model.inner // model.heads

    def finish(block, p: Tensor) -> Tensor:
        value = block.value(h).view(-1, model.heads, size).transpose(0, 1)
        return block.norm(block.out((p[:, None] @ value).flatten()))

    scores, branch = [], []
    for k in range(model.branches):
        query = model.queries[k](model.query[k]).view(model.heads, 1, size)
        key = (
            (h @ model.keys.weight.chunk(model.branches)[k].T)
            .view(-1, model.heads, size)
            .transpose(0, 1)
        )
        scores.append((query @ key.transpose(1, 2))[:, 0] / math.sqrt(size))
        branch.append(model.classifiers[k](finish(model.blocks[k], scores[-1].softmax(1))))
    p = torch.stack([s.softmax(1) for s in scores]).mean(0)
    return model.classifier(finish(model.block, p)), torch.stack(branch), torch.cat(scores)


@pytest.mark.parametrize("attention", ["gated", "multihead"])
def test_every_bag_of_a_ragged_batch_is_the_published_formula(attention: str) -> None:
    x, offsets = ragged()
    model = (
        ACMIL(12, 3, inner=16, branches=4, hidden=6, heads=4, attention=attention).double().eval()
    )  # type: ignore[arg-type]
    if attention == "multihead":  # from 1e-6 on, all branches would be alike
        torch.nn.init.normal_(model.query)
    x = x.double()
    attended = model.attend(x, offsets)
    for b in range(len(LENGTHS)):
        rows = slice(int(offsets[b]), int(offsets[b + 1]))
        plain = (plain_gated if attention == "gated" else plain_multihead)(model, x[rows])
        torch.testing.assert_close(attended.logits[b], plain[0])
        torch.testing.assert_close(attended.branch_logits[b], plain[1])
        got, expected = attended.scores[rows], plain[2].T
        if (
            attention == "multihead"
        ):  # equal but for the bias of the keys, a shift that the softmax does not see
            got, expected = got.softmax(0), expected.softmax(0)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(model(x[rows])[0], plain[0])


@pytest.mark.parametrize("attention", ["gated", "multihead"])
def test_gradients_of_a_ragged_batch_are_those_of_its_bags(attention: str) -> None:
    x, offsets = ragged()
    model = ACMIL(12, 2, inner=8, hidden=6, heads=2, masked=0, attention=attention).double()  # type: ignore[arg-type]
    for block in [
        *getattr(model, "blocks", ()),
        *([model.block] if attention == "multihead" else []),
    ]:
        block.dropout.p = 0.0
    x = x.double()

    def loss(rows: Tensor, ends: Tensor | None) -> Tensor:
        attended = model.attend(rows, ends)
        heads = diversity_loss(attended.scores, ends, heads=model.heads)
        bags = attended.logits.shape[0]
        return bags * heads + attended.logits.square().sum() + attended.branch_logits.exp().sum()

    together = torch.autograd.grad(loss(x, offsets), list(model.parameters()))
    pieces = [loss(x[a:b], None) for a, b in itertools.pairwise(offsets)]
    separate = torch.autograd.grad(torch.stack(pieces).sum(), list(model.parameters()))
    for a, b in zip(together, separate):
        torch.testing.assert_close(a, b)


def test_sizes_are_the_papers() -> None:
    """Parameters of the published configurations: ViT-S, ResNet-18, UNI, GigaPath features."""
    sizes = (384, 128, 84_369), (512, 256, 200_593), (1024, 512, 662_417), (1536, 768, 1_386_385)
    for features, inner, expected in sizes:
        model = ACMIL(features, 2, inner=inner)
        assert sum(p.numel() for p in model.parameters()) == expected


def test_one_branch_without_masking_is_abmil() -> None:
    x, _ = ragged()
    model = ACMIL(12, 2, inner=8, branches=1, hidden=6, masked=0)
    h = F.relu(model.reduce(x))
    gate = model.gates(h)
    attention = model.score(torch.tanh(gate[:, :6]) * torch.sigmoid(gate[:, 6:])).softmax(0)
    torch.testing.assert_close(model(x)[0], model.classifier((attention * h).sum(0)))
    assert diversity_loss(model.attend(x).scores) == 0


MIXERS = [name for name, row in ATTENTION.items() if row.fits == "any tokens"]


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("kind", [ACMIL, MeanPool, MaxPool])
def test_mixed_instances_of_a_bag_see_no_other_bag(name: str, kind: type[BagModel]) -> None:
    torch.manual_seed(1)
    x, offsets = ragged()
    model = kind(
        12, 2, inner=16, mixing=TransformerEncoder(16, depth=2, heads=4, attention=name, ffn="glu")
    ).eval()
    together = model(x, offsets)
    separate = torch.cat([model(x[a:b]) for a, b in itertools.pairwise(offsets)])
    torch.testing.assert_close(together, separate, rtol=1e-4, atol=1e-5)
    # Mixing is there: an instance changes what another is embedded as, but not those of another
    # bag.
    before, _ = model.instances(x, offsets)
    x[0] += 1.0
    after, _ = model.instances(x, offsets)
    changed = (before - after).abs().amax(1) > 1e-7
    assert changed[0]
    assert changed[1:7].any() == (name != "no-mixing")
    assert not changed[7:].any()


@pytest.mark.parametrize("name", MIXERS)
@torch.no_grad()
def test_a_mixed_bag_exports_for_any_number_of_instances(name: str) -> None:
    model = ACMIL(
        12, 2, inner=16, mixing=TransformerEncoder(16, depth=1, heads=4, attention=name)
    ).eval()
    x = torch.randn(40, 12)
    any_number = ({0: torch.export.Dim("n", min=2)},)
    with PlainForms():
        program = torch.export.export(model, (x,), dynamic_shapes=any_number)
    assert "headwise" not in program.graph_module.code
    for count in (9, 300):
        x = torch.randn(count, 12)
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)


def test_diversity_is_the_mean_cosine_of_pairs() -> None:
    torch.manual_seed(5)
    offsets = torch.tensor([0, 9, 11, 30])
    for heads in (1, 3):
        scores = torch.randn(30, 4 * heads, dtype=torch.float64)
        expected = []
        for a, b in itertools.pairwise(offsets):
            p = scores[a:b].softmax(0).unflatten(1, (4, heads))
            for i in range(4):
                expected += [F.cosine_similarity(p[:, i], p[:, j], dim=0).mean() for j in range(i)]
        got = diversity_loss(scores, offsets, heads=heads)
        torch.testing.assert_close(got.double(), torch.stack(expected).mean(), rtol=1e-5, atol=1e-6)
    same = torch.randn(20, 1).expand(20, 5)
    torch.testing.assert_close(diversity_loss(same), torch.tensor(1.0))
    disjoint = torch.full((6, 3), -1e4).scatter_(0, torch.tensor([[0, 2, 4]]), 0.0)
    assert diversity_loss(disjoint) < 1e-6
    assert diversity_loss(disjoint.requires_grad_()).backward() is None
    assert disjoint.grad is not None
    assert disjoint.grad.isfinite().all()


class TestMasking:
    def test_the_share_of_the_top_is_hidden_and_never_all(self) -> None:
        torch.manual_seed(0)
        lengths = (40, 1, 2, 6, 0, 11)
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        scores = torch.randn(60, 5)
        hidden = mask_top(scores, offsets, 10, 0.6)
        for b, length in enumerate(lengths):
            rows = slice(int(offsets[b]), int(offsets[b + 1]))
            k = min(10, length)
            assert (hidden[rows].sum(0) == min(int(k * 0.6), max(length - 1, 0))).all()
            rank = scores[rows].argsort(0, descending=True).argsort(0)
            assert (rank[hidden[rows]] < k).all()
        visible = (~mask_top(scores, offsets, 10, 1.0)).sum(0)
        assert (
            visible.tolist() == [30 + 1 + 1 + 1 + 1] * 5
        )  # 30 behind the top of the first, one of each other

    @pytest.mark.parametrize("lengths", [(40, 6, 15, 1), (5,), (3, 3), (0, 12, 0)])
    def test_a_bag_is_masked_alike_by_itself_and_among_others(
        self, lengths: tuple[int, ...], monkeypatch
    ) -> None:
        torch.manual_seed(1)
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        scores, uniform = torch.randn(int(offsets[-1]), 3), torch.rand(len(lengths), 10, 3)
        together = mask_top(scores, offsets, 10, 0.6, uniform)
        monkeypatch.setattr("headwise.models.bags.acmil.PADDED_NUMBERS", 1)
        assert torch.equal(mask_top(scores, offsets, 10, 0.6, uniform), together)
        monkeypatch.setattr("headwise.models.bags.acmil.sorts", lambda scores: True)
        assert torch.equal(mask_top(scores, offsets, 10, 0.6, uniform), together)
        for b, (first, last) in enumerate(itertools.pairwise(offsets)):
            alone = mask_top(
                scores[first:last],
                torch.tensor([0, int(last - first)]),
                10,
                0.6,
                uniform[b : b + 1],
            )
            assert torch.equal(alone, together[first:last])

    def test_every_one_of_the_top_is_hidden_as_often(self) -> None:
        torch.manual_seed(2)
        scores = torch.randn(30, 4000).sort(0, descending=True).values
        often = mask_top(scores, torch.tensor([0, 30]), 10, 0.6).double().mean(1)
        torch.testing.assert_close(often[:10], torch.full((10,), 0.6).double(), atol=0.04, rtol=0)
        assert (often[10:] == 0).all()

    def test_in_training_masked_instances_get_no_attention_and_in_evaluation_none_is(self) -> None:
        x, offsets = ragged()
        model = ACMIL(12, 2, inner=8, hidden=6)
        scores = model.attend(x, offsets).scores
        hidden = scores < -1e8
        assert hidden.any()
        assert (bag_softmax(scores, offsets)[hidden] == 0).all()
        assert not (model.eval().attend(x, offsets).scores < -1e8).any()


@pytest.mark.parametrize("attention", ["gated", "multihead"])
@pytest.mark.parametrize("lengths", [LENGTHS, (30,)])
def test_training_on_a_gpu_never_waits_for_the_host(
    attention: str, lengths: tuple[int, ...]
) -> None:
    x, offsets = ragged(lengths=lengths)
    model = ACMIL(12, 2, inner=8, heads=2, attention=attention)  # type: ignore[arg-type]
    weights = model.state_dict()

    def step(x: Tensor, offsets: Tensor, *tensors: Tensor) -> None:
        attending = _Attending(model)
        named = {f"model.{name}": tensor for name, tensor in zip(weights, tensors)}
        out = torch.func.functional_call(attending, named, (x, offsets))
        diversity_loss(out.scores, offsets, heads=model.heads)

    assert_never_waits(step, x, offsets, *weights.values())


class _Attending(torch.nn.Module):
    """A model whose call is `attend`."""

    def __init__(self, model: BagModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, offsets: Tensor) -> Bags:
        return self.model.attend(x, offsets)


def test_attention_sums_to_one_in_each_bag() -> None:
    x, offsets = ragged()
    for model in (ACMIL(12, 2, inner=8), ACMIL(12, 2, inner=8, attention="multihead", heads=4)):
        attention = model.eval().attention_of(model.attend(x, offsets).scores, offsets)
        assert attention.shape == (len(x), 5)
        sums = torch.zeros(len(LENGTHS), 5).index_add(
            0, torch.repeat_interleave(offsets.diff()), attention
        )
        torch.testing.assert_close(sums, torch.ones_like(sums))


@pytest.mark.parametrize("kind", [MeanPool, MaxPool])
def test_the_baselines(kind: type[BagModel]) -> None:
    x, offsets = ragged()
    model = kind(12, 2, inner=8)
    for b, (first, last) in enumerate(itertools.pairwise(offsets)):
        h = F.relu(model.reduce(x[first:last]))
        expected = model.classifier(h.mean(0) if kind is MeanPool else h.amax(0))  # type: ignore[operator]
        torch.testing.assert_close(model(x, offsets)[b], expected)


def test_standardising_is_part_of_the_model() -> None:
    x, offsets = ragged()
    mean, deviation = x.mean(0), x.std(0)
    torch.manual_seed(1)
    inside = ACMIL(12, 2, inner=8, mean=mean, deviation=deviation).eval()
    torch.manual_seed(1)
    outside = ACMIL(12, 2, inner=8).eval()
    torch.testing.assert_close(inside(x, offsets), outside((x - mean) / deviation, offsets))
    assert {"mean", "deviation"} <= inside.state_dict().keys()


MODELS = [
    ACMIL(12, 2, inner=8),
    ACMIL(12, 2, inner=8, attention="multihead"),
    MeanPool(12, 2),
    MaxPool(12, 2),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: getattr(m, "attention", type(m).__name__))
class TestEveryModel:
    def test_an_empty_bag_and_no_bag(self, model: BagModel) -> None:
        logits = model.eval()(torch.randn(3, 12), torch.tensor([0, 0, 3, 3]))
        assert logits.isfinite().all()
        torch.testing.assert_close(logits[0], logits[2])
        assert model(torch.randn(0, 12), torch.tensor([0])).shape == (0, 2)

    def test_order_within_a_bag_does_not_matter(self, model: BagModel) -> None:
        x = torch.randn(20, 12)
        torch.testing.assert_close(model.eval()(x), model(x[torch.randperm(20)]))

    def test_bf16_compile_and_mistakes(self, model: BagModel) -> None:
        x, offsets = ragged()
        expected = model.eval()(x, offsets)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(model(x, offsets).float(), expected, atol=0.1, rtol=0.1)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x, offsets), expected)
        with pytest.raises(ValueError, match="instances"):
            model(torch.randn(3, 11))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "soft"}, "attention must be"),
        ({"branches": 0}, "needs branches"),
        ({"mask_share": 1.5}, "mask_share"),
        ({"attention": "multihead", "inner": 12}, "do not divide"),
        ({"inner": 0}, "needs features"),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ACMIL(12, 2, **options)
