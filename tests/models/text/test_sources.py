"""Sources that read each other, against the formula and in their special cases."""

import math
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwise.models.attention import names_with
from headwise.models.attention.base import auxiliary_loss
from headwise.models.attention.softmax import SoftmaxAttention
from headwise.models.text.linear import LinearTexts
from headwise.models.text.sources import SourceLinearTexts, SourcesTexts, distance_of_sources
from headwise.tests.models.contracts import (
    assert_evaluation_is_without_dropout,
    assert_gradient_is_the_derivative,
)
from headwise.tests.models.text.small_texts import (
    NUMBERS,
    TERMS,
    WIDTH,
    SmallEncoder,
    Texts,
    answers,
    some_texts,
    with_random_weights,
)

LENGTHS = (4, 1, 6, 3, 5, 2, 2, 7)  # sources 0, 1, 2 and an unknown one, twice


def make(sources: int = 3, *, linear: bool = False, **options: object) -> SourcesTexts:
    simple = SourceLinearTexts(TERMS, 2, NUMBERS, sources=sources) if linear else None
    chosen = {"prototypes": 4, "heads": 2, "hidden": 8, "quality": 2, "unknown": 5, **options}
    return with_random_weights(
        SourcesTexts(
            SmallEncoder(),
            outputs=2,
            sources=sources,
            table=NUMBERS,
            linear=simple,
            **chosen,  # type: ignore[arg-type]
        )
    )


def pooled(model: SourcesTexts, states: Tensor) -> Tensor:
    """h of one text from the states of its tokens (N, D)."""
    pool, size = model.pool, WIDTH // model.pool.heads
    seed, key, value = pool.seeds[0], pool.key(states), pool.value(states)
    parts = []
    for at in (slice(h * size, (h + 1) * size) for h in range(pool.heads)):
        parts.append((key[:, at] @ seed[at] / math.sqrt(size)).softmax(0) @ value[:, at])
    h = model.norm(states.mean(0) + pool.out(torch.cat(parts)))
    return h + model.feedforward.down(F.gelu(model.feedforward.up(h)))


def heard(mixer: SoftmaxAttention, asking: Tensor, bank: Tensor) -> Tensor:
    """What a text (D,) reads from the prototypes (p, D)."""
    size, query = mixer.width // mixer.heads, mixer.query(asking)
    key, value = mixer.key_value(bank).chunk(2, 1)
    parts = []
    for at in (slice(h * size, (h + 1) * size) for h in range(mixer.heads)):
        parts.append((key[:, at] @ query[at] / math.sqrt(size)).softmax(0) @ value[:, at])
    return mixer.out(torch.cat(parts))


def plain(model: SourcesTexts, texts: Texts, row: int) -> tuple[Tensor, Tensor]:
    """Logits of one text and the gates, by the formula."""
    length, source = int(texts.mask[row].sum()), int(texts.source[row])
    words = texts.tokens[row, :length]
    h = pooled(model, model.encoder.words(words))  # type: ignore[attr-defined]
    seen = [math.log(1 + length) / 5, *texts.table[row, :2].tolist()]
    unknown = (words == 5).sum().item() / length
    known = source < model.sources
    nothing = torch.zeros(())
    z, gates = h, torch.zeros(model.sources).double()
    for other in range(model.sources):
        if other == source:
            continue
        pair = model.pairs[source, other] if known else nothing
        gates[other] = torch.sigmoid(
            model.gate(torch.cat([h, h.new_tensor([*seen, unknown])])) + pair
        )
        asking = h + (model.asking[source] if known else nothing)
        mixer = cast(SoftmaxAttention, model.mixer)
        z = z + gates[other] * heard(mixer, asking, model.prototypes[other])
    logits = model.head(z) + (model.source_bias[source] if known else nothing)
    return model.scale[source] * logits, gates


def test_each_text_of_a_batch_has_the_formulas_logits() -> None:
    model, texts = make(), some_texts(LENGTHS)
    expected = [plain(model, texts, row) for row in range(8)]
    torch.testing.assert_close(answers(model, texts), torch.stack([y for y, _ in expected]))
    gates = model.read(texts.tokens, texts.mask, texts.table.double(), texts.source).gates
    torch.testing.assert_close(gates, torch.stack([g for _, g in expected]))


@pytest.mark.parametrize("name", names_with("context"))
def test_padding_and_other_texts_change_nothing(name: str) -> None:
    model, texts = make(attention=name, linear=True), some_texts(LENGTHS)
    together = answers(model, texts)
    torch.testing.assert_close(answers(model, texts.padded(5)), together)
    alone = [answers(model, texts.rows(slice(row, row + 1))) for row in range(8)]
    torch.testing.assert_close(torch.cat(alone), together)


def test_the_order_of_the_sources_does_not_matter() -> None:
    model, texts, order = make(linear=True), some_texts(LENGTHS), torch.tensor([2, 0, 1])
    before = answers(model, texts)
    linear = cast(SourceLinearTexts, model.linear)
    with torch.no_grad():
        for values in (model.prototypes, model.asking, model.source_bias, linear.table_deviation):
            values.copy_(values[order])
        model.pairs.copy_(model.pairs[order][:, order])
        for values in (model.scale, linear.scale, linear.source_bias):
            values[:3] = values[:3][order]
        by_source = linear.deviation.view(3, TERMS, 2)
        linear.deviation.copy_(by_source[order].flatten(0, 1))
    assert not torch.allclose(answers(model, texts), before)
    renamed = torch.cat([order.argsort(), torch.tensor([3])])[texts.source]
    torch.testing.assert_close(answers(model, texts._replace(source=renamed)), before)


def test_a_single_source_is_a_plain_model_of_its_pooled_text() -> None:
    model, texts = make(1), some_texts(LENGTHS, sources=0)
    h = torch.stack([pooled(model, model.encoder.words(t[m])) for t, m in zip(*texts[:2])])
    expected = model.scale[0] * (model.head(h) + model.source_bias[0])
    torch.testing.assert_close(answers(model, texts), expected)


def test_with_closed_gates_sources_are_models_of_their_own_on_a_shared_head() -> None:
    model, texts = make(), some_texts(LENGTHS)
    with torch.no_grad():
        model.gate.bias.fill_(-1e6)
    h = torch.stack([pooled(model, model.encoder.words(t[m])) for t, m in zip(*texts[:2])])
    bias = torch.cat([model.source_bias, torch.zeros(1, 2)])[texts.source]
    torch.testing.assert_close(
        answers(model, texts), model.scale[texts.source] * (model.head(h) + bias)
    )


def test_an_unknown_source_has_what_is_shared_alone() -> None:
    model, texts = make(linear=True), some_texts(LENGTHS)
    unknown = texts._replace(source=torch.full_like(texts.source, 3))
    before = answers(model, unknown)
    linear = cast(SourceLinearTexts, model.linear)
    known = answers(model, texts)
    with torch.no_grad():
        for values in (model.asking, model.source_bias, model.pairs, linear.deviation):
            values.add_(1)
        linear.table_deviation.add_(1)
        for values in (model.scale, linear.scale, linear.source_bias):
            values[:3] += 1
    torch.testing.assert_close(answers(model, unknown), before)
    assert not torch.isclose(answers(model, texts), known)[texts.source < 3].any()
    with torch.no_grad():  # it reads the prototypes of all
        model.prototypes[0] += 1
    assert not torch.isclose(answers(model, unknown), before).any()


class TestSourceLinear:
    def test_each_source_has_its_own_row_of_weights(self) -> None:
        model, texts = (
            with_random_weights(SourceLinearTexts(TERMS, 2, NUMBERS, sources=3)),
            some_texts(),
        )
        for row, source in enumerate(texts.source.tolist()):
            counted = torch.zeros(TERMS).double()
            counted.index_add_(0, texts.features[row], texts.amounts[row].double())
            weight, of_table = model.weight, model.table_weight
            if source < 3:
                weight = weight + model.deviation.view(3, TERMS, 2)[source]
                of_table = of_table + model.table_deviation[source]
            shared = counted @ weight + texts.table[row].double() @ of_table + model.bias
            expected = model.scale[source] * shared + model.source_bias[source]
            torch.testing.assert_close(answers(model, texts)[row], expected)

    def test_weights_of_one_joint_model_are_placed_where_they_belong(self) -> None:
        model, texts = SourceLinearTexts(TERMS, 2, NUMBERS, sources=3).double(), some_texts()
        joint = torch.randn(4 * (TERMS + NUMBERS), 2).double()
        model.place(joint, torch.tensor([1.0, 2.0]), 0.5)
        counted = torch.zeros(4, TERMS).scatter_add_(1, texts.features, texts.amounts)
        x = torch.cat([counted, texts.table], 1).double()
        of = [x * (texts.source == source)[:, None] * 0.5 for source in range(3)]
        expected = torch.cat([x, *of], 1) @ joint + torch.tensor([1.0, 2.0])
        torch.testing.assert_close(answers(model, texts), expected)
        with pytest.raises(ValueError, match=r"needs weights \(48, 2\), got \(47, 2\)"):
            model.place(joint[1:], torch.zeros(2), 0.5)


class TestLosses:
    def test_the_distance_of_sources_is_the_mean_over_pairs_that_have_texts(self) -> None:
        joined = torch.randn(7, 4)
        source = torch.tensor([0, 2, 0, 3, 2, 4, 3])  # 1 has none, 4 is unknown
        means = [joined[source == s].mean(0) for s in (0, 2, 3)]
        pairs = [(means[i] - means[j]).norm() for i, j in ((0, 1), (0, 2), (1, 2))]
        torch.testing.assert_close(distance_of_sources(joined, source, 4), sum(pairs) / 3)
        alone = distance_of_sources(joined, torch.zeros(7, dtype=torch.int64), 4)
        assert alone == 0
        same = torch.ones(4, 4, requires_grad=True)
        distance_of_sources(same, torch.tensor([0, 0, 1, 1]), 2).backward()
        assert same.grad is not None
        assert same.grad.isfinite().all()

    def test_topics_are_sharpened_as_published(self) -> None:
        model = make(topics=3, topic_weight=0.5)
        joined, source = torch.randn(6, WIDTH).double(), torch.zeros(6, dtype=torch.int64)
        square = torch.cdist(joined, cast(Tensor, model.topics)).square()
        q = 1 / (1 + square / WIDTH)
        q = q / q.sum(1, keepdim=True)
        torch.testing.assert_close(model.topic_shares(joined), q)
        p = q**2 / q.sum(0)
        p = p / p.sum(1, keepdim=True)
        expected = 0.5 * (p * (p / q).log()).sum(1).mean()
        loss = model.joint_loss(joined, source)
        assert loss is not None
        torch.testing.assert_close(loss, expected)

    def test_they_are_left_in_training_and_nowhere_else(self) -> None:
        model, texts = make(topics=3, topic_weight=0.5, consistency=0.1), some_texts(LENGTHS)
        answers(model, texts)
        assert auxiliary_loss(model) is None
        answers(model.train(), texts)
        loss = auxiliary_loss(model)
        joined = model.read(texts.tokens, texts.mask, texts.table.double(), texts.source).joined
        torch.testing.assert_close(loss, model.joint_loss(joined, texts.source))
        assert loss is not None
        loss.backward()
        assert cast(Tensor, model.topics).grad is not None
        answers(make().train(), texts)
        assert auxiliary_loss(make()) is None


@pytest.mark.parametrize("window", [2, 3, 6])
def test_windows_of_an_encoder_that_mixes_nothing_change_nothing(window: int) -> None:
    model, texts = make(linear=True), some_texts()
    together = answers(model, texts)
    model.window = window
    torch.testing.assert_close(answers(model, texts), together)


def test_hidden_sources_are_read_as_unknown_in_training_alone() -> None:
    model, texts = make(hide_source=1.0), some_texts(LENGTHS)
    known = answers(model, texts)
    unknown = answers(model, texts._replace(source=torch.full_like(texts.source, 3)))
    assert not torch.allclose(known, unknown)
    torch.testing.assert_close(answers(model.train(), texts), unknown)


def test_prototypes_can_begin_at_the_centres_of_each_source() -> None:
    model = make(2, prototypes=2)
    before = model.prototypes[1].clone()
    centres = torch.stack([torch.zeros(WIDTH), torch.full((WIDTH,), 9.0)])
    rows = torch.cat([centres.repeat(3, 1), torch.ones(1, WIDTH)]).double()
    model.place_prototypes(rows, torch.tensor([0] * 6 + [1]))
    placed = model.prototypes[0][model.prototypes[0].sum(1).argsort()]
    torch.testing.assert_close(placed, centres.double())
    torch.testing.assert_close(model.prototypes[1], before)


def test_it_starts_as_the_linear_model_and_can_take_its_cross_fitted_logits() -> None:
    linear, texts = SourceLinearTexts(TERMS, 2, NUMBERS, sources=3), some_texts(LENGTHS)
    with_random_weights(linear)
    fresh = SourcesTexts(SmallEncoder(), outputs=2, sources=3, linear=linear).double()
    torch.testing.assert_close(answers(fresh, texts), answers(linear, texts))
    trained = make(linear=True)
    doubled = texts._replace(amounts=texts.amounts.double(), table=texts.table.double())
    base = answers(cast(nn.Module, trained.linear), texts)
    torch.testing.assert_close(trained.corrected(base + 1, *doubled), answers(trained, texts) + 1)


def test_gradients_are_the_derivative() -> None:
    model, texts = make(topics=3, topic_weight=0.5, consistency=0.1), some_texts(LENGTHS)

    def loss() -> Tensor:
        return answers(model, texts).square().sum()

    assert_gradient_is_the_derivative(model, loss)


def test_evaluation_is_without_dropout() -> None:
    texts = some_texts(LENGTHS)
    assert_evaluation_is_without_dropout(
        make(dropout=0.5, hide_source=0.5), make(), lambda model: answers(model, texts)
    )


def test_no_texts_and_texts_without_tokens() -> None:
    model = make(linear=True, topics=2, topic_weight=0.5, consistency=0.1).train()
    nothing = answers(model, some_texts().rows(slice(0, 0)))
    assert nothing.shape == (0, 2)
    (nothing.sum() + cast(Tensor, auxiliary_loss(model))).backward()
    model.eval().zero_grad()
    texts = some_texts((2, 0))
    assert answers(model, some_texts((0, 0))).isfinite().all()
    together = answers(model, texts)
    together.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(together[1], answers(model, texts.padded(3))[1])


def test_compiled_exported_and_copied() -> None:
    torch._dynamo.reset()
    model, texts = make(linear=True).float(), some_texts(LENGTHS)
    expected = model(*texts)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*texts), expected)
    batch, tokens, features = (torch.export.Dim(name, min=1) for name in ("b", "n", "f"))
    sizes = ({0: batch, 1: tokens},) * 2 + ({0: batch, 1: features},) * 2 + ({0: batch},) * 2
    with torch.no_grad():
        program = torch.export.export(model, tuple(texts), dynamic_shapes=sizes, strict=False)
        other = some_texts((9, 2), seed=3)
        torch.testing.assert_close(program.module()(*other), model(*other))
    twin = make(linear=True).float()
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin(*texts), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "squeeze"}, "'squeeze' takes no context; take one of agent-learned, "),
        ({"quality": 6}, "quality among the table, got 2, 3, 4, 6 of 5"),
        ({"topic_weight": 0.1, "topics": 1}, "topic_weight needs 2 topics, got 1"),
        ({"prototypes": 0}, "needs an output, a source, a prototype"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)
    with pytest.raises(ValueError, match="needs a source, got 0"):
        SourceLinearTexts(TERMS, 2, sources=0)


def test_a_linear_model_without_sources_can_be_added_too() -> None:
    simple, texts = with_random_weights(LinearTexts(TERMS, 2, NUMBERS)), some_texts()
    model = SourcesTexts(SmallEncoder(), outputs=2, sources=3, linear=simple).double()
    torch.testing.assert_close(answers(model, texts), answers(simple, texts))
