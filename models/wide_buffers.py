"""Buffers that many small steps add up in, which a cast to 16 bits would round away."""

from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor, nn


class WideBuffers(nn.Module):
    """A module some of whose buffers stay at least float32 under `.to(torch.bfloat16)`, `.half()`.

    wide: their names. They move to other devices and are in the state as any other buffer.
    """

    wide: ClassVar[tuple[str, ...]] = ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = {name: self.get_buffer(name) for name in self.wide}
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self.get_buffer(name)
            kind = torch.promote_types(new.dtype, torch.float32)
            if new.dtype != kind:
                setattr(self, name, old.to(new.device, kind))
        return self
