"""What a causal mechanism remembers of earlier tokens, so that a sequence can be read in pieces.

Shapes: B batch, T tokens so far, N new tokens.
"""

import torch
from torch import Tensor, nn


class Cache:
    """The memory of one layer for a batch of sequences, made by `Attention.new_cache`.

        cache = attention.new_cache(batch=len(prompt))
        out = attention(prompt, mask=mask, cache=cache)     # the prompt, in one or several pieces
        out = attention(token, cache=cache)                 # then token by token

    All pieces together give what the whole sequence gives in one call. A mask of keys is that of
    the new tokens, (B, N), and is remembered; masks of pairs and heads are over all tokens so far,
    (B, N, T + N). Results keep their graph, so generate under `torch.no_grad()`.

    batch: B; tokens: T, how many were read, masked ones too; parts: what the mechanism stores: keys
    and values, or a state whose size does not grow; mask: bool (B, T), None for all.
    """

    def __init__(self, owner: nn.Module, batch: int) -> None:
        self.owner = owner
        self.batch = batch
        self.tokens = 0
        self.parts: dict[str, Tensor] = {}
        self.mask: Tensor | None = None
        self.common: set[str] = set()  # parts that are one for all sequences

    def read(self, tokens: int, mask: Tensor | None, device: torch.device) -> Tensor | None:
        """Count new tokens; mask: of keys, bool (B, N), or None -> the mask of all, (B, T)."""
        if mask is not None or self.mask is not None:
            past = self.mask
            if past is None:
                past = torch.ones(self.batch, self.tokens, dtype=torch.bool, device=device)
            if mask is None:
                mask = torch.ones(self.batch, tokens, dtype=torch.bool, device=device)
            self.mask = torch.cat([past, mask], 1)
        self.tokens += tokens
        return self.mask

    def extended(self, name: str, new: Tensor, *, common: bool = False) -> Tensor:
        """A part of all tokens, (B, ..., T, d), after new ones (B, ..., N, d) were added to it.

        common: the part is one for all sequences, (1, ..., T, d).
        """
        if common:
            self.common.add(name)
        past = self.parts.get(name)
        self.parts[name] = new if past is None else torch.cat([past, new], -2)
        return self.parts[name]

    def select(self, rows: Tensor) -> None:
        """Go on with these sequences: rows, int64, indices of the batch in the new order, some
        perhaps several times, as a beam search needs.
        """
        self.parts = {
            name: part if name in self.common else part.index_select(0, rows)
            for name, part in self.parts.items()
        }
        self.mask = None if self.mask is None else self.mask.index_select(0, rows)
        self.batch = len(rows)

    def __deepcopy__(self, memo: dict[int, object]) -> "Cache":
        """A memory of its own for another way to go on; it is of the same layer, unless that was
        copied just before.
        """
        owner = memo.get(id(self.owner), self.owner)
        assert isinstance(owner, nn.Module)
        twin = Cache(owner, self.batch)
        memo[id(self)] = twin
        twin.tokens, twin.common = self.tokens, set(self.common)
        twin.parts = {name: part.clone() for name, part in self.parts.items()}
        twin.mask = None if self.mask is None else self.mask.clone()
        return twin

    def __repr__(self) -> str:
        name = type(self.owner).__name__
        return f"Cache({name}, batch={self.batch}, tokens={self.tokens})"
