"""Keys and values of some heads for some rows of a batch, in one rectangle of memory each.

Shapes: R rows, h heads of keys and values, S tokens held, N new tokens, d width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..plans.grouping import Group, Shares
from .reading import Reading


@dataclass
class Part:
    """What is held for a group of heads.

    rows: int64 (R,), rows of the batch; None for all. keys, values: (R, h, S, d). positions: int64
    (R, S) or (1, S), -1 where a row holds nothing; None where all tokens are held, padding too.
    trimmed: whether exactly those tokens are held that the last query may attend to, in their
    order; ragged: whether rows hold different numbers of tokens.
    """

    group: Group
    rows: Tensor | None
    keys: Tensor
    values: Tensor
    positions: Tensor | None = None
    trimmed: bool = False
    ragged: bool = False

    @classmethod
    def of(cls, group: Group, rows: Tensor | None, keys: Tensor, values: Tensor) -> Part:
        """From keys and values of all rows and heads, (B, KV, S, d): a view where it can be."""
        keys, values = (_selected(states, group.heads, rows) for states in (keys, values))
        return cls(group, rows, keys, values)

    def extend(self, keys: Tensor, values: Tensor, reading: Reading) -> None:
        """Add the new tokens of all rows and heads, (B, KV, N, d)."""
        keys, values = (_selected(new, self.group.heads, self.rows) for new in (keys, values))
        if self.positions is None:
            self.keys = torch.cat([self.keys, keys], 2)
            self.values = torch.cat([self.values, values], 2)
            return
        start, stop, self.trimmed = self._forgotten(reading, keys.shape[2])
        self.keys = torch.cat([self.keys[:, :, :start], self.keys[:, :, stop:], keys], 2)
        self.values = torch.cat([self.values[:, :, :start], self.values[:, :, stop:], values], 2)
        new = reading.new_keys(self.rows)
        rows = max(len(self.positions), len(new))
        pieces = (self.positions[:, :start], self.positions[:, stop:], new)
        self.positions = torch.cat([piece.expand(rows, -1) for piece in pieces], 1)

    def _forgotten(self, reading: Reading, new: int) -> tuple[int, int, bool]:
        """What new tokens make all rows forget, where they hold the same tokens: start and end.

        It is then left out in the same step in which a token is added. The last result says whether
        the part is trimmed after that.
        """
        if not (reading.decoding and self.trimmed and not self.ragged) or reading.new_padding:
            return 0, 0, False
        sizes = {self.group.rule.keeps(length) for length in reading.lengths(self.rows)}
        drop = self.keys.shape[2] + new - max(sizes)
        if len(sizes) > 1 or drop < 0:
            return 0, 0, False
        start = self.group.rule.sink if drop else 0
        return start, start + drop, True

    def trim(self, reading: Reading) -> None:
        """Forget what the rule does not hold at the present length; memory is really freed."""
        if self.trimmed or self.group.rule.full:
            return
        assert self.positions is not None
        sizes = [self.group.rule.keeps(length) for length in reading.lengths(self.rows)]
        size = max(sizes)
        lengths = torch.tensor(reading.lengths(self.rows), device=self.keys.device)
        held = self.group.rule.allowed(lengths[:, None] - 1, self.positions)[:, 0]
        # What is forgotten comes first, then what is held in its order.
        order = held.long().sort(dim=1, stable=True).indices[:, held.shape[1] - size :]
        same = len(self.positions) == 1 and len(set(sizes)) == 1
        self.keys = _taken(self.keys, order, same)
        self.values = _taken(self.values, order, same)
        held = held.gather(1, order)
        positions = self.positions.expand(len(order), -1).gather(1, order).masked_fill(~held, -1)
        self.positions = positions[:1] if same else positions
        self.trimmed, self.ragged = True, len(set(sizes)) > 1

    def select(self, index: Tensor, batch: int) -> bool:
        """Go on with these rows of the batch, some perhaps repeated; False where none is held here.

        index: int64, rows in their new order; batch: how many there were.
        """
        if self.rows is not None:
            place = torch.full((batch,), -1, dtype=torch.long, device=index.device)
            place[self.rows] = torch.arange(len(self.rows), device=index.device)
            index = place[index]
            self.rows = torch.nonzero(index >= 0).flatten()
            index = index[self.rows]
        self.keys = self.keys.index_select(0, index)
        self.values = self.values.index_select(0, index)
        if self.positions is not None and len(self.positions) > 1:
            self.positions = self.positions.index_select(0, index)
        return len(index) > 0

    def free(self) -> None:
        """Give views memory of their own, so that what they were cut from can be freed."""
        for name in ("keys", "values"):
            states: Tensor = getattr(self, name)
            if states.untyped_storage().nbytes() > states.numel() * states.element_size():
                setattr(self, name, states.clone(memory_format=torch.contiguous_format))


def parts_of(shares: Shares, keys: Tensor, values: Tensor, reading: Reading) -> list[Part]:
    """Parts of keys and values of all tokens so far, (B, KV, T, d): views where they can be."""
    parts = [Part.of(group, rows, keys, values) for group, rows in shares]
    for part in parts:
        if not part.group.rule.full:
            part.positions = reading.all_keys(part.rows)
    return parts


def _selected(states: Tensor, heads: tuple[int, ...], rows: Tensor | None) -> Tensor:
    """Some rows and heads of (B, KV, S, d); a view where they lie next to each other."""
    if rows is not None:
        states = states.index_select(0, rows)
    if len(heads) == states.shape[1]:
        return states
    if heads[-1] - heads[0] == len(heads) - 1:
        return states[:, heads[0] : heads[-1] + 1]
    return states[:, list(heads)]


def _taken(states: Tensor, order: Tensor, same: bool) -> Tensor:
    """Tokens of (R, h, S, d) by row: order int64 (R, s) -> (R, h, s, d)."""
    if same:
        return states.index_select(2, order[0])
    _, heads, _, width = states.shape
    index = order[:, None, :, None].expand(-1, heads, -1, width)
    return states.gather(2, index)
