"""Blocks that all transformers here are built from.

Shapes: B batch, N tokens, D width, F width of the feed-forward layer.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.gelu_linear import gelu_linear
from .convglu import ConvGLU

FeedForwardKind = Literal["mlp", "glu"]
NetworkKind = Literal["mlp", "glu", "convglu", "moe"]


class FeedForward(nn.Module):
    """Token-wise network: "mlp" down(gelu(up x)), or "glu" down(gelu(gate x) * up x) (Shazeer,
    arXiv 2002.05202).

    width: D; hidden: F, by default 4 D; dropout after the activation and at the end.
    """

    def __init__(
        self,
        width: int,
        hidden: int | None = None,
        *,
        kind: FeedForwardKind = "mlp",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if kind not in ("mlp", "glu"):
            raise ValueError(f"FeedForward: kind must be 'mlp' or 'glu', got {kind!r}")
        hidden = 4 * width if hidden is None else hidden
        self.up = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden) if kind == "glu" else None
        self.down = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) -> (..., D)."""
        if self.gate is not None:
            return self.dropout(self.down(self.dropout(F.gelu(self.gate(x)) * self.up(x))))
        if self.training and self.dropout.p > 0:
            # With dropout in between, GELU and product are two operators, which store both inputs.
            return self.dropout(self.down(self.dropout(F.gelu(self.up(x)))))
        return gelu_linear(self.up(x), self.down.weight, self.down.bias)


def build_feedforward(
    kind: NetworkKind,
    width: int,
    hidden: int | None = None,
    *,
    dropout: float = 0.0,
    moe: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A feed-forward network; "convglu" needs tokens on a grid (`ConvGLU`).

    "moe": a mixture of experts (`MoE`) with the options `moe`, whose K active experts of width
    hidden / K are together as large as the dense network.
    """
    if kind == "convglu":
        return ConvGLU(width, hidden, dropout=dropout)
    if kind == "moe":
        from ..moe.layer import MoE

        options = dict(moe or {})
        inner = (4 * width if hidden is None else hidden) // options.get("active", 2)
        return MoE(width, max(1, inner), dropout=dropout, **options)
    return FeedForward(width, hidden, kind=kind, dropout=dropout)


class EncoderLayer(nn.Module):
    """A transformer layer with any mixer and any feed-forward network.

    norm "post": x = norm1(x + mixer(x)); x = norm2(x + feedforward(x)), the order of the first
    transformer, of iTransformer (arXiv 2310.06625) and of SOFTS. "pre": x = x + mixer(norm1(x)); x
    = x + feedforward(norm2(x)), that of vision transformers (Xiong et al., arXiv 2002.04745).

    mixer: a mechanism of `attention`, called as `mixer(x, context, mask=mask)` on (B, N, D);
    feedforward: any module on (B, N, D), which gets the mask of tokens (B, N) if its `extras` name
    it; dropout: after the mixer.
    """

    def __init__(
        self,
        width: int,
        mixer: nn.Module,
        feedforward: nn.Module,
        *,
        dropout: float = 0.0,
        norm: Literal["post", "pre"] = "post",
    ) -> None:
        super().__init__()
        if norm not in ("post", "pre"):
            raise ValueError(f"EncoderLayer: norm must be 'post' or 'pre', got {norm!r}")
        self.mixer = mixer
        self.feedforward = feedforward
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.pre = norm == "pre"

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None, **extras: Any
    ) -> Tensor:
        """x: (B, N, D), context and mask as the mixer takes them -> (B, N, D).

        extras: what some mechanisms or feed-forward networks also need ("size" of the grid,
        "static" tokens); a module gets only what its `extras` name.
        """
        for_mixer = _named_by(self.mixer, extras)
        if context is None and mask is not None and mask.ndim == 2:
            extras = extras | {"mask": mask}  # which tokens are present
        for_network = _named_by(self.feedforward, extras)
        if self.pre:
            x = x + self.dropout(self.mixer(self.norm1(x), context, mask=mask, **for_mixer))
            return x + self.feedforward(self.norm2(x), **for_network)
        x = self.norm1(x + self.dropout(self.mixer(x, context, mask=mask, **for_mixer)))
        return self.norm2(x + self.feedforward(x, **for_network))


def _named_by(module: nn.Module, extras: Mapping[str, Any]) -> dict[str, Any]:
    """The extras that a module takes."""
    return {name: extras[name] for name in getattr(module, "extras", ()) if name in extras}
