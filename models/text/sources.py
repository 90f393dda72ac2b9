"""Texts of several sources that read each other through gates, with one head for all.

In the form of CRAF, cross-platform opinion mining (arXiv 2602.15857). Of the paper its abstract was
read: texts of one platform attend to the other platforms, gates weigh them by quality, and topic,
sentiment and consistency are learned together. Its formulas are not published, nor are code or
data. Our reading, for a text of source s with the pooled states h and quality u:

    z = h + sum over s' != s of g_s' MHA(h + e_s, P_s', P_s')     P_s': p prototypes of source s'
    g_s' = sigmoid(w [h ; u] + a_ss')                             u: length, unknown words, ...
    y = r_s (W z + c + b_s)     (+ a linear model of counted words, with deviations of sources)
    loss = loss of y + lambda KL(sharpened || topics of z) + mu mean ||mean_s z - mean_s' z||

r_s is not learned. For a number it is its standard deviation in source s: reviews of films use all
of a scale of which editorials use the middle, and what a word says is shared once that is taken
out. It is 1 for labels.

One attention serves all sources, which differ by their e_s: a source with few texts could not learn
one of its own. A text of a source that was not in training reads all prototypes with e = 0, a = 0
and b = 0, and has the scale of all: what is shared remains.

Shapes: B texts, N tokens, T numbers of the table, F features of a text, V that are known, K
sources, p prototypes, D width, C topics, L outputs. Inputs are named in `inputs`; source K stands
for any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention.base import leave_loss, masked_mean
from ..attention.query_pool import QueryPool
from ..layers.blocks import FeedForward
from ..moe.diverse import LinearExperts
from .cross import build_reader
from .inputs import CorrectingModel, TextInputs
from .linear import LinearTexts, of_labels, rows_of
from .windows import windowed_states

if TYPE_CHECKING:
    from .encoder import TextEncoder
    from .frozen import FrozenEncoder

MANY_TOKENS = 5.0  # log(1 + N) of a long text, by which lengths are scaled to about 1


class SourceLinearTexts(LinearTexts):
    """A linear function of counted features and of the table, and what each source has otherwise:
    logits = scale_s (LinearTexts + amounts · deviation_s[features] + table · table_deviation_s) +
    bias_s.

    Fitted elsewhere, by a penalty on both parts, which shrinks the sources towards what they share.
    A source that is not known has no deviations, and the last row of scale and bias, (K + 1, L).

    features: V; outputs: L; table: T; sources: K.
    """

    deviation: Tensor
    table_deviation: Tensor
    scale: Tensor
    source_bias: Tensor

    def __init__(self, features: int, outputs: int, table: int = 0, *, sources: int) -> None:
        super().__init__(features, outputs, table)
        if sources < 1:
            raise ValueError(f"SourceLinearTexts: needs a source, got {sources}")
        self.features, self.sources = features, sources
        self.register_buffer("deviation", torch.zeros(sources * features, outputs))
        self.register_buffer("table_deviation", torch.zeros(sources, table, outputs))
        self.register_buffer("scale", torch.ones(sources + 1, outputs))
        self.register_buffer("source_bias", torch.zeros(sources + 1, outputs))

    def answer(self, x: TextInputs) -> Tensor:
        """(B, L)."""
        scale, bias = self.scale[x.source], self.source_bias[x.source]
        known = (x.source < self.sources)[:, None].to(x.amounts.dtype)
        place = x.source.clamp(max=self.sources - 1)
        words = F.embedding_bag(
            x.features + place[:, None] * self.features,
            self.deviation,
            mode="sum",
            per_sample_weights=x.amounts,
        )
        of_table = torch.einsum("bt,btl->bl", x.table, self.table_deviation[place])
        return scale * (super().answer(x) + known * (words + of_table)) + bias

    def parts(self, x: TextInputs, labels: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """As of `LinearTexts`, with what the source of the text has otherwise."""
        by_feature, of_table, bias = super().parts(x, labels)
        scale = of_labels(self.scale[x.source], labels)
        known = (x.source < self.sources).to(x.amounts.dtype)
        place = x.source.clamp(max=self.sources - 1)
        of_source = rows_of(self.deviation, x.features + place[:, None] * self.features, labels)
        by_feature = by_feature + of_source * (x.amounts * known[:, None])[..., None]
        deviation = of_labels(self.table_deviation[place], labels)
        own_table = torch.einsum("bt,btl->bl", x.table, deviation)
        of_table = of_table + known[:, None] * own_table
        return (
            by_feature * scale[:, None],
            of_table * scale,
            bias * scale + of_labels(self.source_bias[x.source], labels),
        )

    def place(self, joint: Tensor, bias: Tensor, share: float) -> None:
        """Take the weights of one linear model of all sources, fitted to rows [x, share x of source
        0, ..., share x of source K - 1], where x are the counted features and the table, and x of
        source s is 0 for texts of other sources. `scale` and `source_bias` are set beside this.

        joint: ((1 + K) (V + T), L); bias: (L,), before the scale. The smaller the share, the more
        the penalty of the fit shrinks the sources towards each other.

        Raises ValueError for weights of another shape.
        """
        size = self.features + self.table_weight.shape[0]
        rows = (1 + self.sources) * size
        if tuple(joint.shape) != (rows, self.weight.shape[1]):
            raise ValueError(
                f"SourceLinearTexts: needs weights ({rows}, {self.weight.shape[1]}), got "
                f"{tuple(joint.shape)}"
            )
        parts = joint.unflatten(0, (1 + self.sources, size))
        deviations = parts[1:] * share
        self.weight.copy_(parts[0, : self.features])
        self.table_weight.copy_(parts[0, self.features :])
        self.deviation.copy_(deviations[:, : self.features].flatten(0, 1))
        self.table_deviation.copy_(deviations[:, self.features :])
        self.bias.copy_(bias)


class Read(NamedTuple):
    """What texts of a batch are to the head."""

    own: Tensor  # (B, D), h
    joined: Tensor  # (B, D), z
    gates: Tensor  # (B, K), 0 for the text's own source


class SourcesTexts(CorrectingModel[LinearTexts | None]):
    """Logits of texts whose sources read each other.

    encoder: of tokens, width D; outputs: L; sources: K; table: T; prototypes: p of each source;
    heads, attention, attention_options: of the attention to them, a mechanism of the core that
    takes a context; quality: how many of the first numbers of the table the gates see, beside the
    length of the text; unknown: the id of unknown tokens, whose share the gates then see too;
    hidden: width of the network on the pooled states; dropout: in training; hide_source: share of
    texts whose source is hidden in training, so that what is shared learns to stand alone; topics:
    C, topic_weight: lambda; consistency: mu; window: tokens that the encoder sees at once; linear:
    a linear model whose logits are added. With it the model starts as that model exactly, since the
    last layer starts at 0; diverse: three linear experts for frequent, even and rare classes
    (`models.moe.diverse`) as last layer.

    `scale` (K + 1, L), r of the sources and of an unknown one, is a buffer to be set, 1 at first.
    In training the further losses are left for `auxiliary_loss`, like those of mechanisms.

    Raises ValueError for sizes or a mechanism that do not fit.
    """

    scale: Tensor

    def __init__(
        self,
        encoder: TextEncoder | FrozenEncoder,
        *,
        outputs: int,
        sources: int,
        table: int = 0,
        prototypes: int = 8,
        heads: int = 4,
        attention: str = "softmax",
        attention_options: Mapping[str, object] | None = None,
        quality: int = 0,
        unknown: int | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
        hide_source: float = 0.0,
        topics: int = 0,
        topic_weight: float = 0.0,
        consistency: float = 0.0,
        window: int | None = None,
        linear: LinearTexts | None = None,
        diverse: bool = False,
    ) -> None:
        super().__init__()
        if min(outputs, sources, prototypes) < 1 or not 0 <= quality <= table:
            raise ValueError(
                "SourcesTexts: needs an output, a source, a prototype, and quality among the "
                f"table, got {outputs}, {sources}, {prototypes}, {quality} of {table}"
            )
        if topic_weight and topics < 2:
            raise ValueError(f"SourcesTexts: topic_weight needs 2 topics, got {topics}")
        width = encoder.width
        self.encoder, self.linear, self.window = encoder, linear, window
        self.sources, self.quality, self.unknown = sources, quality, unknown
        self.hide_source, self.topic_weight = hide_source, topic_weight
        self.consistency = consistency
        self.pool = QueryPool(width, heads=heads)
        self.norm = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, hidden, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.mixer = build_reader(attention, width, heads, attention_options, "SourcesTexts")
        self.prototypes = nn.Parameter(torch.randn(sources, prototypes, width))
        self.asking = nn.Parameter(torch.zeros(sources, width))
        self.gate = nn.Linear(width + 1 + (unknown is not None) + quality, 1)
        self.pairs = nn.Parameter(torch.zeros(sources, sources))
        self.topics = nn.Parameter(torch.randn(topics, width)) if topics else None
        self.head = (LinearExperts if diverse else nn.Linear)(width, outputs)
        self.source_bias = nn.Parameter(torch.zeros(sources, outputs))
        self.register_buffer("scale", torch.ones(sources + 1, outputs))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.auxiliary: Tensor | None = None
        self.loss_without_gradients = False

    def change(self, x: TextInputs) -> Tensor:
        """What the tokens' states add to the logits, (B, L), of experts in training (E, B, L)."""
        source = x.source
        if self.training and self.hide_source:
            hidden = torch.rand(source.shape, device=source.device) < self.hide_source
            source = source.masked_fill(hidden, self.sources)
        joined = self.read(x.tokens, x.mask, x.table, source).joined
        leave_loss(self, self.joint_loss(joined, source) if self.training else None)
        logits = self.head(self.dropout(joined)) + _of_source(self.source_bias, source)
        return self.scale[source] * logits

    def read(self, tokens: Tensor, mask: Tensor, table: Tensor, source: Tensor) -> Read:
        """The pooled texts, what they read from other sources, and the gates."""
        states = windowed_states(self.encoder, tokens, mask, self.window)
        h = self.norm(masked_mean(states, mask) + self.pool(states, mask=mask)[:, 0])
        h = h + self.feedforward(h)
        # Banks are the batch and texts the tokens, so that no bank is repeated for each text.
        asking = (h + _of_source(self.asking, source)).expand(self.sources, -1, -1)
        heard = self.mixer(asking, self.prototypes)
        gates = self._gates(h, tokens, mask, table, source)
        return Read(h, h + torch.einsum("bk,kbd->bd", gates, heard), gates)

    def _gates(
        self, h: Tensor, tokens: Tensor, mask: Tensor, table: Tensor, source: Tensor
    ) -> Tensor:
        count = mask.sum(1, keepdim=True).to(h.dtype)
        seen = [h, count.log1p() / MANY_TOKENS, table[:, : self.quality].to(h.dtype)]
        if self.unknown is not None:
            unknown = ((tokens == self.unknown) & mask).sum(1, keepdim=True)
            seen.append(unknown.to(h.dtype) / count.clamp_min(1))
        others = source[:, None] != torch.arange(self.sources, device=source.device)
        gates = self.gate(torch.cat(seen, 1)) + _of_source(self.pairs, source)
        return gates.sigmoid() * others

    @torch.no_grad()
    def place_prototypes(self, pooled: Tensor, source: Tensor, *, seed: int = 0) -> None:
        """Begin with the centres of k-means in each source instead of random prototypes.

        pooled: (n, D), h of texts of the training part (`Read.own`); source: int64 (n,). A source
        with fewer texts than prototypes keeps random ones.
        """
        from sklearn.cluster import KMeans

        count = self.prototypes.shape[1]
        for place in range(self.sources):
            rows = pooled[source == place].float().cpu().numpy()
            if len(rows) >= count:
                centres = KMeans(count, random_state=seed).fit(rows).cluster_centers_
                self.prototypes[place] = torch.from_numpy(centres).to(self.prototypes)

    def topic_shares(self, joined: Tensor) -> Tensor:
        """How much each topic is in texts (B, D): (B, C), sums to 1, by Student's t of the distance
        (Xie et al., arXiv 1511.06335, equation 1).
        """
        assert self.topics is not None
        square = (joined[:, None] - self.topics).square().sum(2)
        return F.normalize(1 / (1 + square / joined.shape[1]), p=1.0, dim=1)

    def joint_loss(self, joined: Tensor, source: Tensor) -> Tensor | None:
        """lambda KL(sharpened || topics) + mu mean ||mean_s - mean_s'||, (); None without weights.

        joined: (B, D); source: (B,). Sharpened are the topics squared, over their sum in the batch
        (arXiv 1511.06335, equation 3). Sources without a text in the batch have no mean.
        """
        losses = []
        if self.topic_weight:
            shares = self.topic_shares(joined)
            sharp = shares.detach().square() / shares.detach().sum(0).clamp_min(1e-12)
            sharp = F.normalize(sharp, p=1.0, dim=1)
            losses.append(
                self.topic_weight * F.kl_div(shares.log(), sharp, reduction="batchmean")
                if joined.shape[0]
                else joined.sum()
            )
        if self.consistency:
            losses.append(self.consistency * distance_of_sources(joined, source, self.sources))
        return sum(losses[1:], losses[0]) if losses else None


def distance_of_sources(joined: Tensor, source: Tensor, sources: int) -> Tensor:
    """Mean distance of the means of two sources, over the pairs that have texts here: joined (B,
    D), source (B,) -> (); 0 where there is no pair.
    """
    belongs = (source[:, None] == torch.arange(sources, device=source.device)).to(joined.dtype)
    counts = belongs.sum(0)
    means = belongs.T @ joined / counts.clamp_min(1)[:, None]
    first, second = torch.triu_indices(sources, sources, 1, device=source.device)
    both = (counts[first] > 0) & (counts[second] > 0)
    distance = torch.linalg.vector_norm(means[first] - means[second], dim=1)
    return (distance * both).sum() / both.sum().clamp_min(1)


def _of_source(values: Tensor, source: Tensor) -> Tensor:
    """Rows of values (K, ...) for texts, 0 for a source that is not known: (B, ...)."""
    known = (source < values.shape[0])[:, None]
    return values[source.clamp(max=values.shape[0] - 1)] * known.to(values.dtype)
