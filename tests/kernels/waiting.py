"""Whether code makes the host wait for a GPU, shown without one: on tensors that have a device, a
shape and no values, whatever asks for a value, or for a size that values decide, raises.
"""

from collections import Counter
from collections.abc import Callable

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

# ATen operators that read a value or a size back. (`index` does with a mask, which asks `nonzero`.)
WAITING = (
    *("_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "bincount", "masked_select"),
    *("repeat_interleave", "equal", "is_nonzero", "allclose", "unique_consecutive"),
)


class Called(TorchDispatchMode):
    """Counts the ATen operators of a block, `waits` those of them that a device waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        self.counts[name] += 1
        copied = False
        if name == "_to_copy":
            # Also to the device: from memory that is not pinned such a copy waits, and no CUDA
            # graph can hold it.
            target = torch.device((kwargs or {}).get("device") or args[0].device)
            copied = (target.type == "cpu") != (args[0].device.type == "cpu")
        if name == "index" and any(x is not None and x.dtype == torch.bool for x in args[1]):
            name = "nonzero"
        if copied or name in WAITING:
            self.counts[f"waits in {name}"] += 1
        return func(*args, **(kwargs or {}))

    def waits(self) -> list[str]:
        return [name for name in self.counts if name.startswith("waits")]


def assert_never_waits(call: Callable[..., object], *arguments: object) -> None:
    """Runs the call on a pretended GPU, tensors without values in place of the tensors. A tensor of
    the CPU that meets one of the GPU raises, too.
    """
    with FakeTensorMode(), Called() as called:
        tensors = [
            torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")
            if isinstance(x, torch.Tensor)
            else x
            for x in arguments
        ]
        call(*tensors)
    assert called.counts, "nothing was called"
    assert not called.waits(), called.waits()
