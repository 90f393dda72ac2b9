"""The head of labels against its formulas, with the mean of the tokens that each label makes."""

import pytest
import torch
from torch import Tensor, nn

from headwise.models.text.label_attention import DiverseLabelAttention, LabelAttention, gate_shares

B, N, K, D, E, L, C = 3, 6, 4, 8, 5, 7, 9
FORMS: dict[str, dict[str, object]] = {
    "free": {},
    "described": {"descriptions": C, "free": False},
    "both": {"descriptions": C},
    "knowledge": {"knowledge_width": E},
    "all": {"descriptions": C, "knowledge_width": E},
}


def head_of(form: str, dtype: torch.dtype = torch.float64) -> LabelAttention:
    """A head whose parameters are all random, gates and bias too."""
    torch.manual_seed(1)
    head = LabelAttention(D, L, **FORMS[form])
    if "descriptions" in FORMS[form]:
        head.set_descriptions(torch.randn(L, C))
    for number in head.parameters():
        nn.init.normal_(number)
    return head.to(dtype)


def texts(
    form: str, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Tokens, mask and, where the form reads it, knowledge; the last text has no knowledge."""
    torch.manual_seed(2)
    tokens, knowledge = torch.randn(B, N, D, dtype=dtype), torch.randn(B, K, E, dtype=dtype)
    mask, of_knowledge = torch.rand(B, N) < 0.7, torch.rand(B, K) < 0.7
    mask[:, 0] = of_knowledge[:, 0] = True
    of_knowledge[-1] = False
    more = {"knowledge": knowledge, "knowledge_mask": of_knowledge}
    return tokens, mask, more if "knowledge_width" in FORMS[form] else {}


def summary(rows: Tensor, query: Tensor) -> Tensor:
    """(L, D): for each label the mean of rows (n, D) by its softmax; 0 without rows."""
    return (rows.shape[1] ** -0.5 * query @ rows.T).softmax(1) @ rows


def formula(head: LabelAttention, tokens: Tensor, mask: Tensor, more: dict[str, Tensor]) -> Tensor:
    """Text by text, with summaries of the width, as LSAN writes them."""
    out = []
    for b in range(len(tokens)):
        rows, streams = tokens[b][mask[b]], []
        if head.query is not None:
            streams.append((rows, head.query, head.weight))
        if head.described is not None:
            streams.append((rows, head.described(head.description_vectors), head.weight))
        if more:
            known = more["knowledge"][b][more["knowledge_mask"][b]]
            query = (
                head.knowledge_query
                if head.knowledge_described is None
                else head.knowledge_described(head.description_vectors)
            )
            streams.append((known, query, head.knowledge_weight))
        parts, gates = [], []
        for place, (part, query, weight) in enumerate(streams):
            if not len(part):
                continue
            mean = summary(part, query)
            parts.append((mean * weight).sum(1))
            gates.append(head.gates[place](mean)[:, 0].sigmoid() if len(streams) > 1 else 1.0)
        out.append(sum(g * x for g, x in zip(gates, parts)) / sum(gates) + head.bias)
    return torch.stack(out)


@pytest.mark.parametrize("form", FORMS)
def test_logits_and_gradients_are_the_formulas(form: str) -> None:
    head, (tokens, mask, more) = head_of(form), texts(form)
    tokens.requires_grad_()
    leaves = [tokens, *head.parameters()]
    slope = torch.randn(B, L, dtype=torch.float64)
    results = [head(tokens, mask, **more), formula(head, tokens, mask, more)]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*(torch.autograd.grad(x, leaves, slope) for x in results))


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("form", FORMS)
def test_contributions_of_tokens_sum_to_the_logit(
    form: str, dtype: torch.dtype, within: float
) -> None:
    head, (tokens, mask, more) = head_of(form, dtype), texts(form, dtype)
    with torch.no_grad():
        logits = head(tokens, mask, **more)
        read = head.contributions(tokens, mask, **more)
    assert read.tokens.shape == (B, L, N + (K if more else 0))
    largest = logits.abs().max()
    assert (read.tokens.sum(-1) + read.bias - logits).abs().max() < within * largest
    assert (read.logits - logits).abs().max() < within * largest
    marks = torch.cat([mask, more["knowledge_mask"]], 1) if more else mask
    assert read.tokens.masked_select(~marks[:, None]).eq(0).all()
    assert read.tokens.masked_select(marks[:, None]).ne(0).all()


@pytest.mark.parametrize("form", FORMS)
def test_some_labels_are_explained_as_all_are(form: str) -> None:
    head, (tokens, mask, more) = head_of(form), texts(form)
    some = torch.tensor([4, 1])
    read = head.contributions(tokens, mask, **more)
    of_some = head.contributions(tokens, mask, labels=some, **more)
    expected = read.logits[:, some], read.tokens[:, some], read.bias[some]
    torch.testing.assert_close(tuple(of_some), expected)


def test_weights_sum_to_one_over_the_tokens_that_are_present() -> None:
    """If every token says the same, every label gives exactly that."""
    for form in FORMS:
        head, (tokens, mask, more) = head_of(form), texts(form)
        if more:
            head.knowledge_weight.data = torch.eye(1, E).double().repeat(L, 1)
            more["knowledge"][..., 0] = 3.0
        head.weight.data = torch.eye(1, D).double().repeat(L, 1)
        tokens[..., 0] = 3.0
        expected = (head.bias + 3.0).expand(B, L)
        torch.testing.assert_close(head(tokens, mask, **more), expected)


def test_queries_of_zero_give_a_linear_layer_of_the_mean() -> None:
    head, (tokens, mask, _) = head_of("free"), texts("free")
    head.query.data.zero_()
    means = torch.stack([rows[use].mean(0) for rows, use in zip(tokens, mask)])
    expected = nn.functional.linear(means, head.weight, head.bias)
    torch.testing.assert_close(head(tokens, mask), expected)


@pytest.mark.parametrize("form", FORMS)
def test_the_order_of_labels_permutes_logits(form: str) -> None:
    head, (tokens, mask, more) = head_of(form), texts(form)
    logits = head(tokens, mask, **more)
    order = torch.randperm(L)
    state = head.state_dict()
    of_labels = [name for name, x in state.items() if x.shape[:1] == (L,)]
    head.load_state_dict(state | {name: state[name][order] for name in of_labels})
    torch.testing.assert_close(head(tokens, mask, **more), logits[:, order])


@pytest.mark.parametrize("form", FORMS)
def test_padding_and_the_rest_of_the_batch_change_nothing(form: str) -> None:
    head, (tokens, mask, more) = head_of(form), texts(form)
    logits = head(tokens, mask, **more)

    def padded(rows: Tensor, marks: Tensor) -> tuple[Tensor, Tensor]:
        worse = rows.masked_fill(~marks[..., None], torch.nan)
        return (
            torch.cat([worse, torch.full_like(rows, torch.nan)], 1),
            torch.cat([marks, torch.zeros_like(marks)], 1),
        )

    if more:
        knowledge, marks = padded(more["knowledge"], more["knowledge_mask"])
        more = {"knowledge": knowledge, "knowledge_mask": marks}
    wide, wide_mask = padded(tokens, mask)
    torch.testing.assert_close(head(wide, wide_mask, **more), logits)
    alone = {name: x[1:2] for name, x in more.items()}
    torch.testing.assert_close(head(wide[1:2], wide_mask[1:2], **alone), logits[1:2])
    read = head.contributions(wide, wide_mask, **more)
    torch.testing.assert_close(read.logits, logits)
    assert read.tokens.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_a_text_without_tokens_gives_the_bias(form: str) -> None:
    head = head_of(form)
    for tokens in (N, 0):
        rows = torch.randn(2, tokens, D, dtype=torch.float64)
        mask = torch.zeros(2, tokens, dtype=torch.bool)
        for out in (head(rows, mask), head.contributions(rows, mask).logits):
            torch.testing.assert_close(out, head.bias.expand(2, L))
    assert torch.autograd.grad(head(rows, mask).sum(), head.bias)[0].eq(2).all()


def test_absent_knowledge_has_no_part_and_present_knowledge_has() -> None:
    head, (tokens, mask, more) = head_of("all"), texts("all")
    logits, without = head(tokens, mask, **more), head(tokens, mask)
    torch.testing.assert_close(logits[-1], without[-1])
    assert not torch.isclose(logits[:-1], without[:-1]).any()
    text_alone = head_of("knowledge")
    plain = LabelAttention(D, L).double()
    plain.load_state_dict({x: text_alone.state_dict()[x] for x in plain.state_dict()})
    torch.testing.assert_close(text_alone(tokens, mask), plain(tokens, mask))


def test_gates_sum_to_one_even_where_sigmoids_vanish() -> None:
    scores = torch.tensor([[[-400.0, -401.0, 3.0], [2.0, -1.0, 0.0]]])
    shares = gate_shares(scores, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(shares.sum(-1), torch.ones(1, 2))
    assert shares[..., 2].eq(0).all()
    ratio = scores[0, 1, :2].sigmoid()
    torch.testing.assert_close(shares[0, 1, :2], ratio / ratio.sum())
    torch.testing.assert_close(shares[0, 0, 0] / shares[0, 0, 1], torch.tensor(1.0).exp())
    assert gate_shares(scores, torch.zeros(1, 3, dtype=torch.bool)).eq(0).all()


def test_descriptions_are_saved_and_change_logits() -> None:
    head, (tokens, mask, _) = head_of("described"), texts("described")
    logits = head(tokens, mask)
    other = LabelAttention(D, L, **FORMS["described"]).double()
    other.load_state_dict(head.state_dict())
    torch.testing.assert_close(other(tokens, mask), logits)
    other.set_descriptions(head.description_vectors.roll(1, 0))
    assert not torch.isclose(other(tokens, mask), logits).any()


@pytest.mark.parametrize("descriptions", [None, 7])
def test_the_mean_of_diverse_experts_is_an_exact_sum_over_the_tokens(descriptions) -> None:
    torch.manual_seed(0)
    head = DiverseLabelAttention(6, 4, descriptions=descriptions).double()
    nn.init.normal_(head.bias)
    if descriptions is not None:
        head.set_descriptions(torch.randn(4, descriptions))
    tokens, mask = torch.randn(2, 5, 6, dtype=torch.float64), torch.ones(2, 5, dtype=torch.bool)
    experts = head(tokens, mask)
    assert experts.shape == (3, 2, 4)
    logits, by_token, bias = head.eval().contributions(tokens, mask)
    torch.testing.assert_close(head(tokens, mask), experts.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(logits, experts.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(by_token.sum(-1) + bias, logits, rtol=1e-12, atol=1e-12)
    some = head.contributions(tokens, mask, labels=torch.tensor([3, 1]))
    torch.testing.assert_close(some.tokens, by_token[:, [3, 1]])
    torch.testing.assert_close(some.bias, bias[[3, 1]])


def test_it_compiles_exports_and_follows_autocast() -> None:
    head, (tokens, mask, more) = head_of("all", torch.float32), texts("all", torch.float32)
    torch._dynamo.reset()
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens, mask, **more), head(tokens, mask, **more))
    program = torch.export.export(head, (tokens, mask), more)
    torch.testing.assert_close(program.module()(tokens, mask, **more), head(tokens, mask, **more))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = head(tokens, mask, **more)
    torch.testing.assert_close(rough.float(), head(tokens, mask, **more), rtol=0.1, atol=0.1)


def test_mistakes_are_named() -> None:
    head, (tokens, mask, _) = head_of("free"), texts("free")
    knowledge = torch.zeros(B, K, E, dtype=torch.float64)
    for call, message in (
        (lambda: LabelAttention(0, L), "at least 1"),
        (lambda: LabelAttention(D, L, knowledge_width=0), "at least 1"),
        (lambda: LabelAttention(D, L, free=False), "needs descriptions"),
        (lambda: head.set_descriptions(torch.zeros(L, C)), "no descriptions"),
        (lambda: head_of("both").set_descriptions(torch.zeros(L + 1, C)), r"takes \(7, 9\)"),
        (lambda: head(tokens, mask, knowledge=knowledge), "knowledge_width is None"),
        (lambda: head(tokens, mask, knowledge_mask=mask), "without knowledge"),
        (lambda: head(tokens[..., :3], mask), "h must be"),
        (lambda: head(tokens, mask[:, :2]), "mask must be"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
