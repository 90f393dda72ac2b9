"""Agent attention: a few agent tokens read all tokens, and every token reads the agents.

Shapes: B batch, N tokens, M tokens of the context, D width, H heads, d = D / H, A agents, Y x X
cells of a grid.

    S = softmax(a k^T / sqrt(d) + b1) v          agents read tokens       (H, A, d)
    O = softmax(q a^T / sqrt(d) + b2) S + R(v)   tokens read the agents   (H, N, d)

Without R it is linear attention with the features softmax(q a^T) and softmax(a k^T)^T: its N x N
matrix has rows that sum to 1 and a rank of at most A. It is not softmax attention for a = q."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.forms import Form
from .base import (
    Attention,
    attend,
    grid_of,
    join_heads,
    masked_softmax,
    split_heads,
    spread_mask,
    to_image,
    to_tokens,
)


class AgentAttention(Attention):
    """Agents are the mean queries of equal parts of the sequence (Han et al., ECCV 2024, arXiv
    2312.08874).

    Cost: O(N A D) time, O(N D) memory: two calls of PyTorch's fused operator.

    width: D; heads: H; agents: A; restore: R is a depth-wise convolution over 3 neighbouring tokens
    of v. Readings: the paper pools queries on an image (`GridAgentAttention`); along a sequence a
    part is an adaptive bin of the tokens that are not masked, so that padding moves no bin; biases
    b1 and b2 belong to grids and are left out. R has no bias, since the last layer has one; in R
    the v of a masked token is 0, as that of padding is.
    """

    crosses: ClassVar[bool] = False
    variants: ClassVar[tuple[dict, ...]] = ({"agents": 3}, {"agents": 4, "restore": False})

    def __init__(
        self, width: int, *, heads: int = 8, agents: int = 16, restore: bool = True
    ) -> None:
        super().__init__(width, heads)
        if agents < 1:
            raise ValueError(f"{type(self).__name__}: needs at least one agent, got {agents}")
        self.agents = agents
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.restore: nn.Module | None = self.restoration() if restore else None
        self.out = nn.Linear(width, width)
        # One agent is the mean of all queries, whatever their order.
        self.equivariant = agents == 1 and not restore

    def restoration(self) -> nn.Module:
        """R, depth-wise."""
        return nn.Conv1d(self.width, self.width, 3, padding=1, groups=self.width, bias=False)

    def pool(
        self, query: Tensor, mask: Tensor | None, size: tuple[int, int] | None
    ) -> tuple[Tensor, Tensor | None]:
        """Agents (B or 1, H, A, d) of queries (B, N, D), and which of them are present: bool (B, 1,
        1, A), None for all.
        """
        return split_heads(pool_sequence(query, mask, self.agents), self.heads), None

    def biases(self, size: tuple[int, int] | None) -> tuple[Tensor | None, Tensor | None]:
        """b1 (1, H, A, N) and b2 (1, H, N, A)."""
        return None, None

    def restored(self, value: Tensor, mask: Tensor | None, size: tuple[int, int] | None) -> Tensor:
        """R(v): (B, N, D) -> (B, N, D)."""
        assert self.restore is not None
        value = value if mask is None else value.masked_fill(~mask[..., None], 0.0)
        if size is not None:
            return to_tokens(self.restore(to_image(value, size)))
        return self.restore(value.transpose(1, 2)).transpose(1, 2)

    def mix(
        self, x: Tensor, source: Tensor, mask: Tensor | None, size: tuple[int, int] | None
    ) -> Tensor:
        """Output (B, N, D): both steps, the restoration and the last layer."""
        query, (key, value) = self.query(x), self.key_value(source).chunk(2, -1)
        agents, present = self.pool(query, mask, size)
        to_agents, from_agents = self.biases(size)
        query, key, heads = (
            split_heads(query, self.heads),
            split_heads(key, self.heads),
            split_heads(value, self.heads),
        )
        agents = agents.expand(x.shape[0], -1, -1, -1).to(query.dtype)
        summary = attend(agents, key, heads, spread_mask(mask), bias=to_agents)
        mixed = join_heads(attend(query, agents, summary, present, bias=from_agents))
        return self.out(mixed if self.restore is None else mixed + self.restored(value, mask, size))

    def product(
        self, x: Tensor, source: Tensor, mask: Tensor | None, size: tuple[int, int] | None
    ) -> Tensor:
        """Product of the two softmax matrices: (B, H, N, M)."""
        query, key = self.query(x), split_heads(self.key_value(source).chunk(2, -1)[0], self.heads)
        agents, present = self.pool(query, mask, size)
        to_agents, from_agents = self.biases(size)
        agents, query = agents * (self.width // self.heads) ** -0.5, split_heads(query, self.heads)
        first, second = agents @ key.transpose(2, 3), query @ agents.transpose(2, 3)
        first = first if to_agents is None else first + to_agents
        second = second if from_agents is None else second + from_agents
        return masked_softmax(second, present) @ masked_softmax(first, spread_mask(mask))

    def forms(self, x: Tensor) -> list[Form]:
        return [Form("two calls of PyTorch's fused operator")]

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """x: (B, N, D) -> (B, N, D); mask: bool (B, N), True = may be attended to and belongs to an
        agent.

        Raises ValueError if mask or widths do not fit, or if a context is given.
        """
        return self.mix(x, self.check(x, context, mask), mask, None)

    def weights(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """The product of both softmax matrices, without R: (B, H, N, N)."""
        return self.product(x, self.check(x, context, mask), mask, None)


class LearnedAgentAttention(AgentAttention):
    """Agent attention whose agents are parameters: blind to the order of tokens, and takes a
    context.

    Options as in `AgentAttention`; R needs an order and is left out. Departure: the paper's agents
    come from the queries; here they are the same for every input, as the inducing points of Lee et
    al., arXiv 1810.00825, are.
    """

    crosses: ClassVar[bool] = True
    variants: ClassVar[tuple[dict, ...]] = ({"agents": 1},)

    def __init__(self, width: int, *, heads: int = 8, agents: int = 16) -> None:
        super().__init__(width, heads=heads, agents=agents, restore=False)
        self.learned = nn.Parameter(
            torch.randn(heads, agents, width // heads) * (width // heads) ** -0.5
        )
        self.equivariant = True

    def pool(
        self, query: Tensor, mask: Tensor | None, size: tuple[int, int] | None
    ) -> tuple[Tensor, Tensor | None]:
        """The agents of every input: (1, H, A, d)."""
        return self.learned[None], None

    def forward(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """x: (B, N, D), context: (B, M, D), by default x; mask: bool (B, M), True = may be attended
        to -> (B, N, D).

        Raises ValueError if mask or widths do not fit.
        """
        return self.mix(x, self.check(x, context, mask), mask, None)


class GridBias(nn.Module):
    """Learned bias between agents and cells: a coarse map, enlarged bilinearly, plus one term per
    row and one per column.

    side: of the coarse map; window: (rows, columns) for which the terms are learned; they are
    stretched linearly to other sizes.
    """

    def __init__(
        self, heads: int, agents: int, *, side: int = 7, window: tuple[int, int] = (14, 14)
    ) -> None:
        super().__init__()
        self.coarse = nn.Parameter(torch.empty(heads, agents, side, side))
        self.rows = nn.Parameter(torch.empty(heads, agents, window[0]))
        self.columns = nn.Parameter(torch.empty(heads, agents, window[1]))
        for part in self.parameters():
            nn.init.trunc_normal_(part, std=0.02)

    def forward(self, size: tuple[int, int]) -> Tensor:
        """(Y, X) -> (H, A, Y X)."""
        coarse = F.interpolate(self.coarse, size=size, mode="bilinear")
        rows = F.interpolate(self.rows, size=size[0], mode="linear")
        columns = F.interpolate(self.columns, size=size[1], mode="linear")
        return (coarse + rows[..., None] + columns[:, :, None]).flatten(2)


class GridAgentAttention(AgentAttention):
    """Agents are the mean queries of the cells of a coarse grid: the paper's form for images (arXiv
    2312.08874).

    Cost: O(N A D) time, O(N (D + A H)) memory for the biases.

    agents: A, a square number (the paper: 49); restore: R is a depth-wise 3 x 3 convolution of v;
    bias: b1 and b2, learned; window: (rows, columns) that the biases of rows and columns are
    learned for. Departure: those are stretched linearly if the grid has another size, which the
    published code cannot do; for equal sizes both are the same. An agent whose cells are all masked
    is left out.
    """

    extras: ClassVar[tuple[str, ...]] = ("size",)
    variants: ClassVar[tuple[dict, ...]] = (
        {"agents": 4},
        {"agents": 9, "bias": False, "restore": False},
    )

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        agents: int = 49,
        restore: bool = True,
        bias: bool = True,
        window: tuple[int, int] = (14, 14),
    ) -> None:
        super().__init__(width, heads=heads, agents=agents, restore=restore)
        self.side = round(agents**0.5)
        if self.side**2 != agents:
            raise ValueError(
                f"GridAgentAttention: agents form a square grid, but {agents} is not a square"
            )
        self.to_agents = GridBias(heads, agents, window=window) if bias else None
        self.from_agents = GridBias(heads, agents, window=window) if bias else None

    def restoration(self) -> nn.Module:
        """R, depth-wise."""
        return nn.Conv2d(self.width, self.width, 3, padding=1, groups=self.width, bias=False)

    def pool(
        self, query: Tensor, mask: Tensor | None, size: tuple[int, int] | None
    ) -> tuple[Tensor, Tensor | None]:
        """Agents (B, H, A, d), and which of them have a cell that is not masked, bool (B, 1, 1,
        A).
        """
        assert size is not None
        image = to_image(query, size)
        if mask is None:
            return split_heads(to_tokens(F.adaptive_avg_pool2d(image, self.side)), self.heads), None
        # Mean of the present cells of a bin: mean of (present * query) / mean of present.
        present = to_image(mask[..., None].to(query.dtype), size)
        share = F.adaptive_avg_pool2d(present, self.side)
        total = F.adaptive_avg_pool2d(image * present, self.side)
        pooled = total / share.masked_fill(share == 0, 1.0)
        return split_heads(to_tokens(pooled), self.heads), (share > 0).flatten(1)[:, None, None]

    def biases(self, size: tuple[int, int] | None) -> tuple[Tensor | None, Tensor | None]:
        """b1 (1, H, A, N) and b2 (1, H, N, A)."""
        if self.to_agents is None or self.from_agents is None or size is None:
            return None, None
        return self.to_agents(size)[None], self.from_agents(size).transpose(1, 2)[None]

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """x: (B, Y X, D) -> the same shape; mask: bool (B, Y X), True = may be attended to; size:
        (Y, X), or a square.

        Raises ValueError if mask, size or widths do not fit, or if a context is given.
        """
        source = self.check(x, context, mask)
        return self.mix(x, source, mask, grid_of("GridAgentAttention", x.shape[1], size))

    def weights(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """The product of both softmax matrices, without R: (B, H, N, N)."""
        source = self.check(x, context, mask)
        return self.product(x, source, mask, grid_of("GridAgentAttention", x.shape[1], size))


def pool_sequence(x: Tensor, mask: Tensor | None, parts: int) -> Tensor:
    """Means of `parts` adaptive bins of the tokens (B, N, D) where mask (B, N) is True: (B, parts,
    D).

    Bin i of L tokens runs from floor(i L / parts) to ceil((i + 1) L / parts), as in PyTorch's
    adaptive pooling.
    """
    if mask is None:
        return F.adaptive_avg_pool1d(x.transpose(1, 2), parts).transpose(1, 2)
    length, place = mask.sum(1)[:, None], (mask.cumsum(1) - 1)[:, None]
    part = torch.arange(parts, device=x.device)
    first, last = part * length // parts, ((part + 1) * length + parts - 1) // parts
    inside = mask[:, None] & (place >= first[..., None]) & (place < last[..., None])
    share = inside.to(x.dtype) / inside.sum(-1, keepdim=True).clamp_min(1)
    return (share @ x).to(x.dtype)
