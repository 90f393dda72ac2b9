"""What one call of a language model reads: which tokens are real, and where they stand.

Shapes: B rows, T tokens so far (past and new), N new tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chosen:
    """Keys that a head has chosen: columns int64 (B, k); real bool (B, k), None for all."""

    columns: Tensor
    real: Tensor | None


@dataclass
class Reading:
    """One call of a model.

    past, new: tokens before this call and in it, padding included; real: bool (B, T), False for
    padding, None where there is none; positions: int64 (B, T), or (1, T) without padding: how many
    real tokens stand before a token; keys: as positions, -1 for padding; counts: real tokens of
    each row so far. chosen: by column of heads, the keys chosen in this call.
    """

    past: int
    new: int
    real: Tensor | None
    positions: Tensor
    keys: Tensor
    counts: list[int]
    chosen: dict[int, Chosen] = field(default_factory=dict)

    @classmethod
    def of(
        cls, batch: int, past: int, new: int, real: Tensor | None, device: torch.device
    ) -> Reading:
        """From the mask of all tokens so far, (B, past + new), or None where all are real."""
        total = past + new
        if real is None:
            positions = torch.arange(total, device=device)[None]
            return cls(past, new, None, positions, positions, [total] * batch)
        positions = real.long().cumsum(1) - 1
        counts: list[int] = real.sum(1).tolist()
        return cls(past, new, real, positions, positions.masked_fill(~real, -1), counts)

    @property
    def decoding(self) -> bool:
        """Whether this call continues a text by a single token."""
        return self.new == 1 and self.past > 0

    @cached_property
    def new_padding(self) -> bool:
        """Whether any new token is padding."""
        return self.real is not None and not bool(self.real[:, self.past :].all())

    def queries(self, rows: Tensor | None) -> Tensor:
        """Positions of the new tokens in some rows, int64 (R, N) or (1, N)."""
        return _rows(self.positions[:, self.past :], rows)

    def new_keys(self, rows: Tensor | None) -> Tensor:
        """As `queries`, with -1 for padding."""
        return _rows(self.keys[:, self.past :], rows)

    def all_keys(self, rows: Tensor | None) -> Tensor:
        """Positions of all tokens so far, -1 for padding: int64 (R, T) or (1, T)."""
        return _rows(self.keys, rows)

    def lengths(self, rows: Tensor | None) -> list[int]:
        """Real tokens of some rows so far."""
        return self.counts if rows is None else [self.counts[row] for row in rows.tolist()]


def _rows(table: Tensor, rows: Tensor | None) -> Tensor:
    return table if rows is None or len(table) == 1 else table[rows]


def read_mask(
    arguments: Mapping[str, object], past: int, remembered: Tensor | None
) -> tuple[int, int, Tensor | None, torch.device]:
    """Rows, new tokens, mask of all tokens so far (None without padding) and device of a call.

    arguments: those of the model's forward method; past: tokens before; remembered: the mask of
    these, bool (B, past), where a cache knows it. Raises ValueError, in one line, for a mask that
    says anything but which tokens are padding, or contradicts what was read before.
    """
    tokens = arguments.get("input_ids")
    if tokens is None:
        tokens = arguments.get("inputs_embeds")
    if not isinstance(tokens, Tensor):
        raise ValueError("a model with a plan needs input_ids or inputs_embeds")
    batch, new = tokens.shape[:2]
    mask = arguments.get("attention_mask")
    if mask is None:
        if remembered is not None and not bool(remembered.all()):
            raise ValueError("the cache holds padding: give the attention mask of all tokens")
        _refuse_packed(arguments.get("position_ids"))
        return batch, new, None, tokens.device
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise ValueError("a plan needs an attention mask of (rows, tokens), not one made by hand")
    if mask.shape != (batch, past + new):
        raise ValueError(
            f"the attention mask must be {batch} rows of {past} past and {new} new tokens,"
            f" not {tuple(mask.shape)}"
        )
    real = mask.to(device=tokens.device, dtype=torch.bool)
    if remembered is not None and not torch.equal(real[:, :past], remembered):
        raise ValueError("the attention mask differs from that of the text in the cache")
    return batch, new, None if bool(real.all()) else real, tokens.device


def _refuse_packed(position_ids: object) -> None:
    """Texts packed one after the other in a row would attend to each other."""
    if isinstance(position_ids, Tensor) and position_ids.ndim == 2 and position_ids.shape[1] > 1:
        steps = position_ids.diff(dim=1)
        if not bool((steps == 1).all()):
            raise ValueError("a plan cannot be used on texts packed into one row; pad them")
