"""A row of a table that reads the text beside it, by cross-attention.

In the form of BERT with cross-attention for consumers' preferences (arXiv 2405.07435). Of the paper
its abstract was read: it has a table of users and places beside reviews, the last hidden states of
the encoder rather than its pooled vector, and a block of cross-attention by which the table steers
which words count. The formulas, who asks whom, and the sizes were not to be had, nor is there code.
Our reading, with x the row and H the states of the tokens:

    Q = reshape(W_t x + b), m queries     z = LN(Q + MHA(Q, H, H))     z = LN(z + FFN(z))
    y = W mean(z) + c                     (direction "table": the row asks the words)

    K = reshape(W_t x + b), m keys        z = LN(H + MHA(H, K, K))     z = LN(z + FFN(z))
    y = W mean over the tokens(z) + c     (direction "text": the words ask the row)

Shapes: B texts, N tokens, T numbers of the table, m queries, D width, L outputs. Inputs are named
in `inputs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from ..attention import build_attention, names_with
from ..attention.base import Attention, masked_mean
from ..layers.blocks import EncoderLayer, NetworkKind, build_feedforward
from ..moe.diverse import LinearExperts
from .inputs import CorrectingModel, TextInputs
from .linear import LinearTexts
from .windows import windowed_states

if TYPE_CHECKING:
    from .encoder import TextEncoder
    from .frozen import FrozenEncoder

Direction = Literal["table", "text"]


def build_reader(
    name: str, width: int, heads: int, options: Mapping[str, object] | None, reader: str
) -> Attention:
    """A mechanism that lets tokens read others, for the model that is called `reader`.

    Raises ValueError for a mechanism that takes no context.
    """
    mixer = build_attention(name, width, heads, **(options or {}))
    if not mixer.crosses:
        known = ", ".join(names_with("context"))
        raise ValueError(f"{reader}: {name!r} takes no context; take one of {known}")
    return mixer


class CrossTexts(CorrectingModel[LinearTexts | None]):
    """Logits of a text and of the row of a table beside it, where one of the two asks the other.

    encoder: of tokens, width D; outputs: L; table: T, numbers of a row, standardised, with a column
    of 0 and 1 for each code of a category; queries: m; heads: H; attention: a mechanism of the core
    that takes a context (`headwise list attention`), attention_options: of it; direction: who asks;
    ffn, hidden: the feed-forward network and its width; dropout: in training; window: tokens that
    the encoder sees at once; linear: a model of counted words and of the table whose logits are
    added. With it the model starts as that model exactly, since the last layer starts at 0;
    diverse: three linear experts for frequent, even and rare classes (`models.moe.diverse`) as last
    layer.

    Raises ValueError for sizes, a direction or a mechanism that do not fit.
    """

    def __init__(
        self,
        encoder: TextEncoder | FrozenEncoder,
        *,
        outputs: int,
        table: int,
        queries: int = 4,
        heads: int = 4,
        attention: str = "softmax",
        attention_options: Mapping[str, object] | None = None,
        direction: Direction = "table",
        ffn: NetworkKind = "mlp",
        hidden: int | None = None,
        dropout: float = 0.0,
        window: int | None = None,
        linear: LinearTexts | None = None,
        diverse: bool = False,
    ) -> None:
        super().__init__()
        if direction not in ("table", "text"):
            raise ValueError(f"CrossTexts: direction must be 'table' or 'text', got {direction!r}")
        if min(outputs, table, queries) < 1:
            raise ValueError(
                "CrossTexts: needs an output, a number of the table and a query, got "
                f"{outputs}, {table}, {queries}"
            )
        if ffn == "convglu":
            raise ValueError("CrossTexts: convglu needs tokens on a grid; take mlp, glu or moe")
        width = encoder.width
        mixer = build_reader(attention, width, heads, attention_options, "CrossTexts")
        self.encoder, self.linear, self.window = encoder, linear, window
        self.direction, self.count = direction, queries
        self.rows = nn.Linear(table, queries * width)
        network = build_feedforward(ffn, width, hidden, dropout=dropout)
        self.layer = EncoderLayer(width, mixer, network, dropout=dropout, norm="post")
        self.dropout = nn.Dropout(dropout)
        self.head = (LinearExperts if diverse else nn.Linear)(width, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def change(self, x: TextInputs) -> Tensor:
        """What cross-attention adds to the logits, (B, L), of experts in training (E, B, L)."""
        asking, answering, present = self._sides(x.tokens, x.mask, x.table)
        z = self.layer(asking, answering, mask=present)
        pooled = masked_mean(z, None if self.direction == "table" else x.mask)
        return self.head(self.dropout(pooled))

    def attended(self, tokens: Tensor, mask: Tensor, table: Tensor) -> Tensor:
        """Which words each of the m vectors of the row attends to, or is attended to by: (B, m, N),
        the mean of the heads, 0 at padding.

        "table": the N weights of a query sum to 1. "text": the m weights of a word sum to 1.

        Raises ValueError for a mechanism without attention weights.
        """
        asking, answering, present = self._sides(tokens, mask, table)
        mixer = self.layer.mixer
        assert isinstance(mixer, Attention)
        weights = mixer.weights(asking, answering, mask=present).mean(1)
        return weights if self.direction == "table" else weights.mT * mask[:, None]

    def _sides(
        self, tokens: Tensor, mask: Tensor, table: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Who asks, who is asked, and which of these are there."""
        states = windowed_states(self.encoder, tokens, mask, self.window)
        rows = self.rows(table.to(self.rows.weight.dtype)).unflatten(1, (self.count, -1))
        return (rows, states, mask) if self.direction == "table" else (states, rows, None)
