"""MoH: every token chooses which of its attention heads are on.

Shapes: B batch, N tokens, M tokens of the context, D width, H heads, s of them shared, E = H - s
routed, k active.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ...kernels.forms import Form
from ...kernels.gathered_heads import forms, gathered_heads
from ..checks import check_not_negative
from ..ranks import mean_over_ranks
from .base import attend, join_heads, leave_loss, remembered_mask
from .cache import Cache
from .softmax import SoftmaxAttention

# By benchmarks/models/moh.py, on a CPU: how many scores a head has to save before a separate call
# pays, and from how many on gathering pays in causal attention, with up to 40 % of heads on.
SAVED = 100_000
CAUSAL = 1_000_000
# Share of the heads on, above which CUDA computes all of them: gathered rows are ahead while the
# share is below their rate over that of the fused operator. That rate is taken for 40 %, since
# their backward pass has no wgmma: by roofline (docs/explanation/kernels.md), not measured.
SHARE_ON_CUDA = 0.4


class HeadRouting(nn.Module):
    """Which heads of an attention each token has on, and with which gates: the routers of
    `MixtureOfHeads`, for an attention of any kind.

    shared, routed, active: s, E and k; straight_through: whether gradients are by design not those
    of the function.
    """

    shared: int
    routed: int
    active: int
    balance: float
    straight_through: bool
    route: nn.Linear | None
    share: nn.Linear | None
    between: nn.Linear | None

    def add_routers(
        self,
        width: int,
        heads: int,
        *,
        shared: int | None,
        active: int | None,
        router: Literal["linear", "query-norm"],
        balance: float,
    ) -> None:
        """Options as in `MixtureOfHeads`; raises ValueError if they do not fit."""
        shared = max(1, heads // 4) if shared is None else shared
        routed = heads - shared
        if active is None:
            active = min(routed, max(1, round(0.75 * heads) - shared))
        if not 0 <= shared <= heads or not min(routed, 1) <= active <= routed:
            raise ValueError(
                f"MixtureOfHeads: {shared} shared and {active} active do not fit {heads} heads"
            )
        if router not in ("linear", "query-norm"):
            raise ValueError(f"MixtureOfHeads: no router {router!r}")
        check_not_negative("MixtureOfHeads", "balance", balance)
        self.shared, self.routed, self.active = shared, routed, active
        self.balance = balance
        self.straight_through = router == "query-norm" and routed > 0
        linear = router == "linear"
        self.route = nn.Linear(width, routed, bias=False) if linear and routed else None
        self.share = nn.Linear(width, shared, bias=False) if linear and shared > 1 else None
        self.between = nn.Linear(width, 2, bias=False) if linear and shared and routed else None
        for layer in (self.route, self.share, self.between):
            if layer is not None:
                # As the published models start: choices are open, and all gates are near 1.
                nn.init.normal_(layer.weight, std=0.02)

    def gates(self, x: Tensor, query: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gates (B, H, N), 0 where a head is off; which are on, bool (B, H, N); the router's p (B,
        E, N).
        """
        on = torch.ones(query.shape[:3], dtype=torch.bool, device=x.device)
        gate = torch.ones(query.shape[:3], dtype=x.dtype, device=x.device)
        if self.share is not None:
            first = self.shared * self.share(x).softmax(-1).transpose(1, 2).to(x.dtype)
            gate = torch.cat([first, gate[:, self.shared :]], 1)
        if not self.routed:
            return gate, on, None
        if self.route is None:
            norms = query[:, self.shared :].norm(dim=-1)
            spread = query.norm(dim=-1).var(1, keepdim=True, unbiased=False).add(1e-12).sqrt()
            p = (norms / spread).softmax(1)
        else:
            p = self.route(x).softmax(-1).transpose(1, 2)
        best = p.topk(self.active, 1).indices
        chosen = torch.zeros_like(p, dtype=torch.bool).scatter(1, best, True)
        if self.route is None:
            routed = chosen.to(p.dtype) + (p - p.detach()) * chosen
        else:
            selected = p * chosen
            routed = (
                self.active
                * selected
                / selected.sum(1, keepdim=True).clamp_min(torch.finfo(p.dtype).eps)
            )
        on = torch.cat([on[:, : self.shared], chosen], 1)
        gate = torch.cat([gate[:, : self.shared], routed.to(x.dtype)], 1)
        if self.between is not None:
            weight = 2 * self.between(x).softmax(-1).transpose(1, 2).to(x.dtype)
            parts = [
                weight[:, :1].expand(-1, self.shared, -1),
                weight[:, 1:].expand(-1, self.routed, -1),
            ]
            gate = gate * torch.cat(parts, 1)
        return gate, on, p

    def imbalance(self, p: Tensor, chosen: Tensor, counted: Tensor | None) -> Tensor:
        """E^2 mean_e(mean_t p mean_t chosen), (). p: (B, E, N); chosen: bool (B, E, N); counted:
        bool (B, N), the tokens that count, None for all.
        """
        parts = [part.to(p.dtype) for part in (p, chosen)]
        if counted is None:
            total = p.new_tensor(p.shape[0] * p.shape[2])
            means = [part.mean((0, 2)) for part in parts]
        else:
            total = counted.sum()
            means = [(part * counted[:, None]).sum((0, 2)) / total.clamp_min(1) for part in parts]
        share = mean_over_ranks(means[1], total)
        return self.routed**2 * (means[0] * share).mean()


class MixtureOfHeads(HeadRouting, SoftmaxAttention):
    """Mixture-of-head attention: s shared heads, and k of E routed heads chosen by each token
    (arXiv 2410.11842).

        p = softmax(W_r x),  routed gate = k p / (sum of p over the chosen) where chosen, else 0
        shared gate = s softmax(W_s x) (1 for a single one),  (b_0, b_1) = 2 softmax(W_0 x)
        out = W_o [b_0 shared gate_h head_h, b_1 routed gate_h head_h]

    Cost: (s + k) / H of softmax attention's O(N M D) between tokens: heads that are off are not
    computed where that pays (`explain`); the published code computes them and multiplies by 0.
    Projections are always computed for all heads.

    width: D; heads: H; shared: s, by default H / 4; active: k, by default so that three quarters of
    the heads are on; router: "linear" as above, or "query-norm" (the paper's for LLaMA3): without
    parameters, p = softmax of the queries' norms over their deviation, gates are 0 and 1, the
    gradient goes straight through to the norms of the chosen. balance: weight of the loss E^2
    mean_e(mean_t p mean_t chosen), which training leaves in `auxiliary`; with even routing it is k
    times the weight, not 1. compute: "auto", "gathered" or "dense". kv_heads, positions, causal,
    dropout (dense form only) as in softmax attention.

    Readings: no gradient reaches heads that are off, in either form. Padding, known from a mask of
    keys without a context, does not count in the balance. The published balance list is global to
    the process; here each layer has its own.
    """

    variants: ClassVar[tuple[dict, ...]] = (
        {"shared": 2, "active": 1},
        {"shared": 0, "active": 2, "balance": 0.5},
        {"shared": 4, "active": 0},
        {"router": "query-norm"},
        {"compute": "gathered"},
        {"compute": "gathered", "causal": True, "kv_heads": 2},
        {"heads": 1},
        {"heads": 8, "positions": "rotary"},
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        shared: int | None = None,
        active: int | None = None,
        router: Literal["linear", "query-norm"] = "linear",
        balance: float = 0.01,
        compute: Literal["auto", "gathered", "dense"] = "auto",
        kv_heads: int | None = None,
        positions: Literal["none", "rotary"] = "none",
        causal: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            width,
            heads=heads,
            kv_heads=kv_heads,
            positions=positions,
            causal=causal,
            dropout=dropout,
        )
        self.add_routers(width, heads, shared=shared, active=active, router=router, balance=balance)
        if compute not in ("auto", "gathered", "dense"):
            raise ValueError(f"MixtureOfHeads: no compute {compute!r}")
        self.router, self.compute = router, compute
        self.discrete = self.routed > self.active > 0

    @classmethod
    def from_softmax(cls, attention: SoftmaxAttention, **options) -> "MixtureOfHeads":  # type: ignore[no-untyped-def]
        """A trained softmax attention as a mixture of its heads, for continued training; options as
        in the constructor.

        Routers start at 0, so that with all heads on the function is the same. Raises ValueError if
        the options do not fit.
        """
        mixture = cls(
            attention.width,
            heads=attention.heads,
            kv_heads=attention.kv_heads,
            positions="rotary" if attention.rotary else "none",
            causal=attention.causal,
            dropout=attention.dropout,
            **options,
        ).to(attention.out.weight)
        mixture.load_state_dict(attention.state_dict(), strict=False)
        for router in (mixture.route, mixture.share, mixture.between):
            if router is not None:
                nn.init.zeros_(router.weight)
        return mixture.train(attention.training)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """As `SoftmaxAttention.forward`."""
        query, key, value = self.project(x, self.check(x, context, mask, cache), cache)
        gate, on, p = self.gates(x, query)
        loss = None
        if self.training and self.balance and p is not None:
            counted = mask if context is None and mask is not None and mask.ndim == 2 else None
            loss = self.balance * self.imbalance(p, on[:, self.shared :], counted)
        leave_loss(self, loss)
        allowed = remembered_mask(cache, x, mask)
        if not self._refused(query, key.shape[2], mask):
            mixed = gathered_heads(
                query, key, value, gate.to(query.dtype), allowed, causal=self.causal
            )
        else:
            dropout = self.dropout if self.training else 0.0
            mixed = attend(query, key, value, allowed, causal=self.causal, dropout=dropout)
            mixed = mixed * gate[..., None].to(mixed.dtype)
        return self.out(join_heads(mixed))

    def _refused(self, x: Tensor, keys: int, mask: Tensor | None) -> str:
        """Why heads that are off are computed for x (..., N, ·) all the same; "" if not."""
        if not keys:
            return "there are no keys"
        if self.compute != "auto":
            return "compute is 'dense'" if self.compute == "dense" else ""
        if self.dropout and self.training:
            return "it has no dropout"
        if self.active == self.routed:
            return "all heads are on"
        if torch.compiler.is_exporting():
            return "an exported program has one form for any number of tokens"
        if not x.is_cpu:
            return forms(x)[0].refused or self._too_many()
        return self._too_little(x.shape[-2], keys, mask)

    def _too_many(self) -> str:
        """Why leaving out heads does not pay on CUDA; "" if it does."""
        share = (self.shared + self.active) / self.heads
        if share <= SHARE_ON_CUDA:
            return ""
        return (
            f"{share:.0%} of the heads are on; above {SHARE_ON_CUDA:.0%} the fused operator is "
            "ahead on CUDA with all of them (by roofline, not measured)"
        )

    def _too_little(self, tokens: int, keys: int, mask: Tensor | None) -> str:
        """Why leaving out heads does not pay on a CPU (benchmarks/models/moh.py); "" if it does."""
        share = (self.shared + self.active) / self.heads
        if mask is not None and mask.ndim == 3:
            return "a mask of pairs would be gathered again for each head"
        if tokens * keys * (1 - share) < SAVED:
            return (
                f"{tokens} tokens, {keys} keys and {share:.0%} of the heads on save too little for "
                "a call per head"
            )
        if self.causal and (share > 0.4 or tokens * keys < CAUSAL):
            return (
                "causal, gathered rows need masks, all rows do not: pays for long sequences, up to "
                "40 % of heads on"
            )
        return ""

    def packed(self, *_: object, **__: object) -> Tensor:
        """Not supported by a mixture of heads: raises ValueError."""
        raise ValueError(
            "MixtureOfHeads: packed sequences are not supported; pad them and give a mask"
        )

    def weights(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Attention weights times gates (B, H, N, M): 0 where a head is off."""
        query, _, _ = self.project(x, x)
        return super().weights(x, context, mask=mask) * self.gates(x, query)[0][..., None]

    def forms(self, x: Tensor) -> list[Form]:
        """Forms of the attention, for x as its own context."""
        refused = self._refused(x, x.shape[1], None)
        dense = "compute is 'gathered'" if self.compute == "gathered" else ""
        return [
            *(Form(form.name, form.refused or refused) for form in forms(x)),
            Form("PyTorch's fused operator, all heads, gates afterwards", dense),
        ]
