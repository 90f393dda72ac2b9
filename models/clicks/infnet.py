"""INFNet: features, behaviour and tasks as tokens that meet through a few proxies (arXiv
2508.11565, version 1).

Shapes: B rows, M fields, m proxies of them, F sequences (one proxy each), S tasks, R shared task
tokens, T events of all rows, D width, H heads.

A block, with CA(q, k) the cross-attention softmax(q W_q (k W_k)^T / sqrt(d)) k W_v and X~ the
proxies of X:

    C~' = CA(C~, S) + CA(C~, T)      S~' = CA(S~, C) + CA(S~, T)      T~' = CA(T~, C) + CA(T~, S)
    T^  = CA(T, C) + CA(T, S)
    X'  = X * sigmoid(MLP(flatten X~'))      for C, S, T^; one gate for all tokens of a kind

The paper has no public code, and leaves open what follows. Our readings:

1. The gate sees the new proxies (the text), not those before the block (an index in its equations).
2. "Residual connections" are named without a formula. `residual`: X' = LN(X + gated X), proxies and
  T^ likewise;
   without them the formulas stand as printed, and each block halves what passes its gate.
3. Heads are not given: `heads`, and keys and values of a kind are projected once for all that read
  them, queries by
   kind; no output layer, as in the formula.
4. Order and padding of the sequences are not mentioned. Events lie packed, so padding has no
  softmax mass; each event
   carries its kind and the class of its age (`ages`).
5. Proxies of fields and sequences are "4" in the experiments, yet one a behaviour by the formula:
  the formula holds.
6. Proxies of sequences are sums over events; we divide by the square root of their number, so that
  histories of 1 and
   of 100 events are of one scale.
7. The towers read the tasks alone, so the last block leaves out what no one reads: the other kinds
  and their gates.

`variant="hub"` is the second version (Aggregate and Broadcast; read through a third party's code
only): proxies read all three kinds, themselves among them, through a linear layer over what they
found, and a gate with a shift, of one vector for each kind, comes back: X' = LN(X + X * sigmoid(a)
+ b), (a, b) = MLP(flatten proxies). Sequence proxies are means, one for each task; task proxies are
the tasks' own tokens and the shared ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ...kernels.segments import segment_of
from .click import ClickModel, Layout, Towers, perceptron, segment_sum
from .reads import Reading, Reads

Variant = Literal["proxy", "hub"]


class Gate(nn.Module):
    """Proxy gated unit: sigmoid(MLP(flatten proxies)), one vector for all tokens of a kind. (B, P,
    D) -> (B, D).
    """

    def __init__(self, proxies: int, width: int) -> None:
        super().__init__()
        self.network = nn.Sequential(perceptron(proxies * width, [width]), nn.Linear(width, width))

    def forward(self, proxies: Tensor) -> Tensor:
        return self.network(proxies.flatten(1)).sigmoid()


class Block(nn.Module):
    """The heterogeneous and the homogeneous step. kinds: proxies of fields, sequences and tasks (0:
    there are none).
    """

    def __init__(
        self,
        width: int,
        proxies: tuple[int, int, int],
        *,
        reading: Reading,
        residual: bool,
        gated: bool,
        task_tokens: bool,
        dropout: float,
        last: bool,
    ) -> None:
        super().__init__()
        fields, sequences, shared = proxies
        self.residual, self.task_tokens, self.events = residual, task_tokens, bool(sequences)
        self.proxies = (
            not last or not task_tokens
        )  # whether those of fields and sequences are read after this block
        of_tasks = ["t", "task"] if task_tokens else []
        of_s = ["s"] if sequences and self.proxies else []
        of_c = ["c"] if self.proxies else []
        self.read_c = Reads(width, reading, [*of_s, *of_tasks]) if of_s or of_tasks else None
        self.read_s = Reads(width, reading, [*of_c, *of_tasks]) if sequences else None
        self.read_t = Reads(width, reading, [*of_c, *of_s]) if of_tasks and of_c else None
        sizes = {"c": fields, "s": sequences} if not last else {}
        sizes = {kind: n for kind, n in sizes.items() if n} | ({"task": shared} if of_tasks else {})
        self.gates = nn.ModuleDict(
            {kind: Gate(count, width) for kind, count in sizes.items()} if gated else {}
        )
        names = [
            *self.gates,
            *(f"{kind}~" for kind in (*of_c, *of_s)),
            *(["t~", "t_"] if of_tasks else []),
        ]
        self.norms = nn.ModuleDict(
            {name: nn.LayerNorm(width) for name in names} if residual else {}
        )
        self.dropout = nn.Dropout(dropout)

    def _joined(self, name: str, before: Tensor, update: Tensor) -> Tensor:
        """What was read or gated, with the residual and its norm."""
        update = self.dropout(update)
        return self.norms[name](before + update) if self.residual else update

    def _gated(
        self, name: str, tokens: Tensor, proxies: Tensor, segments: Tensor | None = None
    ) -> Tensor:
        if name not in self.gates:
            return tokens
        gate = self.gates[name](proxies)
        gate = gate[:, None] if segments is None else gate[segments]
        return self._joined(name, tokens, tokens * gate)

    def forward(self, x: dict[str, Tensor], offsets: Tensor, segments: Tensor) -> dict[str, Tensor]:
        """x: tokens c (B, M, D), s (T, D), t (B, S, D), proxies c~, s~, t~; offsets (B + 1,),
        segments (T,) of s.
        """
        asking = {"s": x["s~"]} if self.events and self.proxies else {}
        fields = {"c": x["c~"]} if self.proxies else {}
        tasks = {"t": x["t~"], "task": x["t"]} if self.task_tokens else {}
        from_c = self.read_c(asking | tasks, x["c"]) if self.read_c is not None else {}
        from_s = self.read_s(fields | tasks, x["s"], offsets) if self.read_s is not None else {}
        from_t = self.read_t(fields | asking, x["t"]) if self.read_t is not None else {}
        out = dict(x)
        for kind, reads in (
            ("c~", (from_s, from_t)),
            ("s~", (from_c, from_t)),
            ("t~", (from_c, from_s)),
        ):
            heard = [read[kind[0]] for read in reads if kind[0] in read]
            if kind in x and heard:
                out[kind] = self._joined(kind, x[kind], sum(heard[1:], heard[0]))
        if "c" in self.gates:
            out["c"] = self._gated("c", x["c"], out["c~"])
        if "s" in self.gates:
            out["s"] = self._gated("s", x["s"], out["s~"], segments)
        if self.task_tokens:
            heard = [read["task"] for read in (from_c, from_s) if "task" in read]
            out["t"] = self._gated(
                "task", self._joined("t_", x["t"], sum(heard[1:], heard[0])), out["t~"]
            )
        return out


class HubBlock(nn.Module):
    """The block of the second version. hubs: of fields, sequences, tasks."""

    def __init__(
        self, width: int, hubs: dict[str, int], *, reading: Reading, dropout: float, last: bool
    ) -> None:
        super().__init__()
        kinds = list(hubs)
        hubs = {"t": hubs["t"]} if last else hubs
        self.reads = nn.ModuleDict({kind: Reads(width, reading, list(hubs)) for kind in kinds})
        self.mix = nn.ModuleDict({kind: nn.Linear(len(kinds) * width, width) for kind in hubs})
        self.hub_norms = nn.ModuleDict({kind: nn.LayerNorm(width) for kind in hubs})
        self.broadcast = nn.ModuleDict(
            {
                kind: nn.Sequential(
                    nn.Linear(n * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, 2 * width)
                )
                for kind, n in hubs.items()
            }
        )
        self.norms = nn.ModuleDict({kind: nn.LayerNorm(width) for kind in hubs})
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: dict[str, Tensor], offsets: Tensor, segments: Tensor) -> dict[str, Tensor]:
        """x as in `Block`, with hubs in place of proxies."""
        hubs = {kind: x[f"{kind}~"] for kind in self.mix}
        reads = {
            kind: read(hubs, x[kind], offsets if kind == "s" else None)
            for kind, read in self.reads.items()
        }
        out = dict(x)
        for kind, hub in hubs.items():
            heard = self.mix[kind](torch.cat([read[kind] for read in reads.values()], 2))
            out[f"{kind}~"] = new = self.hub_norms[kind](hub + self.dropout(heard))
            scale, shift = self.broadcast[kind](new.flatten(1)).chunk(2, 1)
            scale, shift = (
                part[segments] if kind == "s" else part[:, None] for part in (scale, shift)
            )
            out[kind] = self.norms[kind](x[kind] + self.dropout(x[kind] * scale.sigmoid() + shift))
        return out


class INFNet(ClickModel):
    """The model. Call it as `models.click` says: (fields, events, ages, offsets) -> logits (B, S).

    width: D of tokens and embeddings; blocks; proxies: m; shared: R; heads, must divide D; towers:
    hidden sizes of each task's network; dropout; residual, variant: see above. gated, cross,
    task_tokens: switch parts off, for the ablation (without task tokens the towers read the proxies
    of fields and sequences; without cross-attention proxies take the mean of the values).
    attention, attention_options: another mechanism of the core in place of the cross-attention.

    Raises ValueError for sizes that do not fit.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        width: int = 32,
        blocks: int = 2,
        proxies: int = 4,
        shared: int = 2,
        heads: int = 2,
        towers: Sequence[int] = (64,),
        dropout: float = 0.0,
        residual: bool = True,
        variant: Variant = "proxy",
        gated: bool = True,
        cross: bool = True,
        task_tokens: bool = True,
        attention: str = "softmax",
        attention_options: Mapping[str, object] | None = None,
        sparse: bool = False,
    ) -> None:
        super().__init__(layout, width=width, sparse=sparse)
        if width % heads or min(width, blocks, proxies, shared, heads) < 1:
            raise ValueError(
                f"INFNet: width {width}, blocks {blocks}, proxies {proxies}, shared {shared}, "
                f"heads {heads}: must be positive, and heads divide width"
            )
        if variant == "hub" and not (gated and task_tokens and residual):
            raise ValueError(
                "INFNet: the hub variant has its gates, task tokens and residuals always"
            )
        reading = Reading(heads, not cross, attention, attention_options or {})
        if not (cross or reading.is_papers):
            raise ValueError("INFNet: without cross-attention no mechanism is read")
        self.variant, self.task_tokens, self.proxies, tasks = (
            variant,
            task_tokens,
            proxies,
            layout.tasks,
        )
        count = tasks if variant == "hub" else layout.sequences
        self.sequence_proxies = count if layout.sequences else 0
        self.place = nn.Parameter(0.05 * torch.randn(layout.fields, width))
        self.age = nn.Embedding(layout.ages, width)
        self.kind = nn.Embedding(max(layout.sequences, 1), width)
        for table in (self.age, self.kind):
            nn.init.normal_(table.weight, std=0.05)
        self.of_fields = nn.Sequential(
            nn.Linear(layout.fields * width, 4 * width),
            nn.ReLU(),
            nn.Linear(4 * width, proxies * width),
        )
        wide = count if variant == "hub" else 1
        self.of_sequences = (
            nn.Linear(width, wide * width)
            if variant == "hub"
            else nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        )
        self.tasks = nn.Parameter(0.05 * torch.randn(tasks, width))
        self.shared = nn.Parameter(0.05 * torch.randn(shared, width))
        self.blocks = nn.ModuleList(
            HubBlock(
                width,
                {"c": proxies, **({"s": count} if layout.sequences else {}), "t": tasks + shared},
                reading=reading,
                dropout=dropout,
                last=place == blocks - 1,
            )
            if variant == "hub"
            else Block(
                width,
                (proxies, self.sequence_proxies, shared),
                reading=reading,
                residual=residual,
                gated=gated,
                task_tokens=task_tokens,
                dropout=dropout,
                last=place == blocks - 1,
            )
            for place in range(blocks)
        )
        read = width if task_tokens else (proxies + self.sequence_proxies) * width
        self.towers = Towers(read, tasks, towers, dropout)

    def forward(self, fields: Tensor, events: Tensor, ages: Tensor, offsets: Tensor) -> Tensor:
        """Logits (B, S)."""
        rows = fields.shape[0]
        c = self.embedding(fields) + self.place
        x = {"c": c, "c~": self.of_fields(c.flatten(1)).unflatten(1, (self.proxies, -1))}
        x |= {"t": self.tasks.expand(rows, -1, -1), "t~": self.shared.expand(rows, -1, -1)}
        bags, segments = offsets, offsets[:0]
        if self.layout.sequences:
            x["s"], x["s~"], segments = self._history(events, ages, offsets, rows)
            bags = offsets[:: self.layout.sequences]
        if self.variant == "hub":
            x["t~"] = torch.cat([x["t"], x["t~"]], 1)
        for block in self.blocks:
            x = block(x, bags, segments)
        if self.task_tokens:
            return self.towers(x["t"])
        return self.towers(torch.cat([x[kind].flatten(1) for kind in ("c~", "s~") if kind in x], 1))

    def _history(
        self, events: Tensor, ages: Tensor, offsets: Tensor, rows: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of events (T, D), their proxies (B, ·, D), and the row of each event (T,)."""
        part = segment_of(offsets, events.shape[0])
        row = part // self.layout.sequences
        s = self.embedding.table(events) + self.age(ages) + self.kind(part % self.layout.sequences)
        if self.variant == "hub":
            size = offsets[:: self.layout.sequences].diff().clamp(min=1)[:, None].to(s.dtype)
            proxies = self.of_sequences(segment_sum(s, row, rows) / size).unflatten(
                1, (self.sequence_proxies, -1)
            )
        else:
            size = offsets.diff().clamp(min=1)[:, None].to(s.dtype)
            sums = (
                segment_sum(self.of_sequences(s), part, rows * self.layout.sequences) / size.sqrt()
            )
            proxies = sums.unflatten(0, (rows, self.layout.sequences))
        return s, proxies, row
