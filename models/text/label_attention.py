"""A head that reads each label from the tokens that speak for or against it, so that every logit is
an exact sum over tokens.

Shapes: B texts, N tokens of a text, K tokens of knowledge about it, D and E their widths, L labels,
C width of the vectors that describe labels, S streams.

    stream s:  a_lt = softmax_t(q_sl . h_t / sqrt(D)),  m_sl = sum_t a_lt h_t  (never formed)
    gate:      g_sl = sigmoid(v_s . m_sl + c_s) / (their sum over the streams)
    logit_l = sum_s g_sl sum_t a_slt (w_l . h_t) + b_l

A stream is a set of queries over the text (free ones, or from the descriptions of the labels) or
over the knowledge. With one stream there is no gate: the form of CAML (Mullenbach et al., NAACL
2018, arXiv 1802.05695). With free and described queries: the form of LSAN (Xiao et al., EMNLP
2019). With knowledge: the form of KeNet (arXiv 2403.01767). What departs from them:

    published                                       here
    CAML: scores q . h                              q . h / sqrt(D)
    LSAN: self-attention W tanh(U h)                free queries to h itself
    LSAN: scores of descriptions not normalised     softmax, so that weights sum to 1
    LSAN: descriptions as wide as half a BiLSTM     any width, through a linear layer
    LSAN: ReLU network shared by the labels         w_l . m_l, since a sum over tokens needs it
    KeNet: BERT and BiLSTM over Wikipedia, GloVe    any tokens, any vectors of descriptions
    KeNet: text and knowledge joined or gated       one gate over all streams

The published file of LSAN cannot run (its attention is empty and its result undefined) and KeNet
has no code, so both are readings of ours, compared with formulas and not with their programs. The
contributions are exact for the gate of this text; what made the gate is not split up."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.label_attention import label_attention, label_contributions
from ..moe.diverse import PREFERENCES, all_or_mean, by_expert


class TokenContributions(NamedTuple):
    """logits (B, L) = tokens.sum(-1) + bias. tokens: (B, L, N + K), what each token of the text and
    then of the knowledge adds; bias: (L,).
    """

    logits: Tensor
    tokens: Tensor
    bias: Tensor


class Stream(NamedTuple):
    """Tokens (B, N, D), of them present (B, N), None for all; queries and weights (L, D) of the
    labels; what makes the gate: (D,) and (1,).
    """

    tokens: Tensor
    mask: Tensor | None
    query: Tensor
    weight: Tensor
    gate: Tensor
    shift: Tensor

    @property
    def present(self) -> Tensor:
        """Which texts have tokens, bool (B,)."""
        if self.mask is None:
            shape = self.tokens.shape[:1]
            return self.tokens.new_full(shape, self.tokens.shape[1] > 0, dtype=torch.bool)
        return self.mask.any(1)


class LabelAttention(nn.Module):
    """Logits of L labels, each of which weighs the tokens of a text itself.

    width: D; labels: L; descriptions: C, the width of vectors that describe the labels
    (`set_descriptions`), None for labels without any; free: whether labels have queries of their
    own, too; needed where there are no descriptions; knowledge_width: E, None for texts
    without knowledge. The knowledge is asked by the descriptions, if there are any.

    Work: O(B N L D), twice that for each stream where there are several. Memory: the tokens, and
    O(B L) numbers a stream in training too; see `kernels.label_attention`. A text without any token
    gives the bias; where the knowledge of a text is absent, its gate is 0.

    Raises ValueError for sizes below 1, and without any queries.

    >>> head = LabelAttention(8, 3)
    >>> head(torch.zeros(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 3])
    """

    description_vectors: Tensor

    def __init__(
        self,
        width: int,
        labels: int,
        *,
        descriptions: int | None = None,
        free: bool = True,
        knowledge_width: int | None = None,
    ) -> None:
        super().__init__()
        sizes = [width, labels, *(x for x in (descriptions, knowledge_width) if x is not None)]
        if min(sizes) < 1:
            raise ValueError(
                f"LabelAttention: widths and labels must be at least 1, got width {width}, labels "
                f"{labels}, descriptions {descriptions}, knowledge_width {knowledge_width}"
            )
        if not free and descriptions is None:
            raise ValueError(
                "LabelAttention: free=False needs descriptions, without them labels have no queries"
            )
        self.width, self.labels, self.knowledge_width = width, labels, knowledge_width
        self.weight = nn.Parameter(torch.empty(labels, width))
        self.bias = nn.Parameter(torch.zeros(labels))
        self.query = nn.Parameter(torch.empty(labels, width)) if free else None
        self.described = self.knowledge_described = None
        self.knowledge_weight = self.knowledge_query = None
        if descriptions is not None:
            self.register_buffer("description_vectors", torch.zeros(labels, descriptions))
            self.described = nn.Linear(descriptions, width, bias=False)
        if knowledge_width is not None:
            self.knowledge_weight = nn.Parameter(torch.empty(labels, knowledge_width))
            if descriptions is None:
                self.knowledge_query = nn.Parameter(torch.empty(labels, knowledge_width))
            else:
                self.knowledge_described = nn.Linear(descriptions, knowledge_width, bias=False)
        gated = self._widths() if len(self._widths()) > 1 else []
        self.gates = nn.ModuleList(nn.Linear(size, 1) for size in gated)
        self.reset_parameters()

    def _widths(self) -> list[int]:
        """Of the streams: free queries, described ones, knowledge."""
        text = [self.width] * ((self.query is not None) + (self.described is not None))
        return text if self.knowledge_width is None else [*text, self.knowledge_width]

    def reset_parameters(self) -> None:
        """Scores of about 1, logits of about 0, equal gates."""
        for query in (self.query, self.knowledge_query):
            if query is not None:
                nn.init.normal_(query)
        for weight in (self.weight, self.knowledge_weight):
            if weight is not None:
                nn.init.uniform_(weight, -(weight.shape[1] ** -0.5), weight.shape[1] ** -0.5)
        nn.init.zeros_(self.bias)
        for layer in (self.described, self.knowledge_described):
            if layer is not None:
                layer.reset_parameters()
        for number in self.gates.parameters():
            nn.init.zeros_(number)

    def set_descriptions(self, vectors: Tensor) -> None:
        """Vectors (L, C) of what the labels mean, in the order of the labels; part of the weights.
        Until then they are 0, and their queries weigh all tokens alike.

        Raises ValueError if the head has no descriptions or others.
        """
        held = self.description_vectors if self.described is not None else None
        if held is None or vectors.shape != held.shape:
            needed = "no descriptions" if held is None else f"{tuple(held.shape)}"
            raise ValueError(
                f"LabelAttention: takes {needed}, got vectors of labels {tuple(vectors.shape)}"
            )
        held.copy_(vectors)

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        *,
        knowledge: Tensor | None = None,
        knowledge_mask: Tensor | None = None,
    ) -> Tensor:
        """tokens: (B, N, D); mask: bool (B, N), True = a token, None for tokens only; knowledge:
        (B, K, E), None for texts without any; knowledge_mask: bool (B, K). Returns (B, L).

        Raises ValueError if shapes or types do not fit.
        """
        streams = self._streams(tokens, mask, knowledge, knowledge_mask, None)
        if len(streams) == 1:
            alone = streams[0]
            return label_attention(
                alone.tokens, alone.query, alone.weight, self.bias, mask=alone.mask
            )
        logits, scores = [], []
        for part in streams:
            # As many labels again, with the same queries, read what makes the gate.
            query = torch.cat([part.query, part.query])
            weight = torch.cat([part.weight, part.gate.expand_as(part.weight)])
            both = label_attention(part.tokens, query, weight, mask=part.mask)
            of_labels, of_gates = both.chunk(2, 1)
            logits.append(of_labels)
            scores.append(of_gates + part.shift)
        shares = gate_shares(torch.stack(scores, -1), torch.stack([x.present for x in streams], -1))
        return (shares * torch.stack(logits, -1)).sum(-1) + self.bias

    def contributions(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        *,
        knowledge: Tensor | None = None,
        knowledge_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> TokenContributions:
        """What each token adds to each logit; arguments and errors as of `forward`.

        labels: int64, the labels to explain (places 0 to L - 1), by default all; L below is their
        number. Costs 3 B L (N + K) numbers of memory. The logits are those of `forward` within
        rounding; a token behind the mask adds 0.
        """
        streams = self._streams(tokens, mask, knowledge, knowledge_mask, labels)
        read = [
            label_contributions(x.tokens, x.query, x.weight, mask=x.mask).contributions
            for x in streams
        ]
        if len(streams) > 1:
            scores = [
                label_attention(x.tokens, x.query, x.gate.expand_as(x.query), mask=x.mask) + x.shift
                for x in streams
            ]
            present = torch.stack([x.present for x in streams], -1)
            shares = gate_shares(torch.stack(scores, -1), present)
            read = [x * share[..., None] for x, share in zip(read, shares.unbind(-1), strict=True)]
        of_text = read if knowledge is None else read[:-1]
        of_tokens = sum(of_text[1:], of_text[0])
        if knowledge is not None:
            of_tokens = torch.cat([of_tokens, read[-1]], -1)
        bias = self.bias if labels is None else self.bias[labels]
        return TokenContributions(of_tokens.sum(-1) + bias, of_tokens, bias)

    def _streams(
        self,
        tokens: Tensor,
        mask: Tensor | None,
        knowledge: Tensor | None,
        knowledge_mask: Tensor | None,
        labels: Tensor | None,
    ) -> list[Stream]:
        """The streams of a call, of some labels."""
        if knowledge is None and knowledge_mask is not None:
            raise ValueError("LabelAttention: knowledge_mask without knowledge")
        if knowledge is not None and self.knowledge_width is None:
            raise ValueError("LabelAttention: got knowledge, but knowledge_width is None")
        inputs: list[tuple[Tensor, Tensor | None, Tensor, Tensor]] = []
        if self.query is not None:
            inputs.append((tokens, mask, self.query, self.weight))
        if self.described is not None:
            inputs.append((tokens, mask, self.described(self.description_vectors), self.weight))
        if knowledge is not None:
            query, weight = self.knowledge_query, self.knowledge_weight
            if self.knowledge_described is not None:
                query = self.knowledge_described(self.description_vectors)
            assert query is not None
            assert weight is not None
            inputs.append((knowledge, knowledge_mask, query, weight))
        streams = []
        for place, (rows, present, query, weight) in enumerate(inputs):
            if labels is not None:
                query, weight = query[labels], weight[labels]
            gate, shift = weight[:0], weight[:0]
            if len(self.gates):
                layer = self.gates[place]
                assert isinstance(layer, nn.Linear)
                gate, shift = layer.weight[0], layer.bias
            streams.append(Stream(rows, present, query, weight, gate, shift))
        return streams

    def extra_repr(self) -> str:
        return f"width={self.width}, labels={self.labels}"


class DiverseLabelAttention(LabelAttention):
    """Experts that prefer classes of different frequency (`models.moe.diverse`), each with queries,
    weights and biases of its own: in training their logits (E, B, L), otherwise the mean of these,
    (B, L), which is a sum over tokens as that of each expert is.

    Arguments as of `LabelAttention`.
    """

    def __init__(
        self,
        width: int,
        labels: int,
        *,
        descriptions: int | None = None,
        knowledge_width: int | None = None,
    ) -> None:
        super().__init__(
            width,
            len(PREFERENCES) * labels,
            descriptions=descriptions,
            knowledge_width=knowledge_width,
        )

    def set_descriptions(self, vectors: Tensor) -> None:
        """As of `LabelAttention`; all experts have the same."""
        super().set_descriptions(vectors.repeat(len(PREFERENCES), 1))

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        *,
        knowledge: Tensor | None = None,
        knowledge_mask: Tensor | None = None,
    ) -> Tensor:
        """As of `LabelAttention`: (E, B, L) in training, else (B, L)."""
        logits = super().forward(tokens, mask, knowledge=knowledge, knowledge_mask=knowledge_mask)
        return all_or_mean(by_expert(logits), self.training)

    def contributions(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        *,
        knowledge: Tensor | None = None,
        knowledge_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> TokenContributions:
        """What each token adds to the mean of the experts; as of `LabelAttention`."""
        experts = len(PREFERENCES)
        count = self.labels // experts
        if labels is None:
            labels = torch.arange(count, device=tokens.device)
        places = torch.cat([labels + count * expert for expert in range(experts)])
        logits, by_token, bias = super().contributions(
            tokens, mask, knowledge=knowledge, knowledge_mask=knowledge_mask, labels=places
        )
        return TokenContributions(
            by_expert(logits).mean(0), by_expert(by_token).mean(0), bias.view(experts, -1).mean(0)
        )


def gate_shares(scores: Tensor, present: Tensor) -> Tensor:
    """sigmoid(scores) over the sum of those that are present, in logarithms, so that no quotient of
    two numbers near 0 is taken. scores: (B, L, S); present: bool (B, S). Returns (B, L, S), whose
    last dimension sums to 1, or is 0 where nothing is present.
    """
    absent = ~present[:, None]
    logs = F.logsigmoid(scores).masked_fill(absent, torch.finfo(scores.dtype).min)
    return logs.softmax(-1).masked_fill(absent, 0.0)
