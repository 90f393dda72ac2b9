"""The forms that an operator has (Triton, fused, plain PyTorch), which of them runs here, and why
the others do not.
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

LEAST_CAPABILITY = (8, 0)  # Ampere: tensor cores for bfloat16 and TF32, shared memory of 99 KiB


class Form(NamedTuple):
    """One way to compute an operator. refused: why it cannot run here, "" where it can."""

    name: str
    refused: str = ""


@cache
def triton_installed() -> bool:
    """Whether Triton can be imported; does not import it."""
    return find_spec("triton") is not None


def triton_refused(*tensors: Tensor) -> str:
    """Why no Triton kernel can take these tensors; "" where one can."""
    if off := {str(x.device) for x in tensors if not x.is_cuda}:
        return f"the tensors are on {', '.join(sorted(off))}, the kernel is for CUDA"
    devices = {x.device for x in tensors}
    if len(devices) > 1:
        names = ", ".join(sorted(str(device) for device in devices))
        return f"the tensors are on {names}, the kernel needs one device"
    if not triton_installed():
        return "Triton is not installed"
    return next((too_old(device) for device in devices), "")


@cache
def too_old(device: torch.device) -> str:
    """Why the kernels cannot run on this GPU: below compute capability 8.0 some need more shared
    memory than there is, and many spill registers. "" where they can. The numbers of AMD's GPUs
    mean something else; those run what ROCm compiles.
    """
    if torch.version.hip:
        return ""
    capability = torch.cuda.get_device_capability(device)
    if capability >= LEAST_CAPABILITY:
        return ""
    has, least = (".".join(map(str, pair)) for pair in (capability, LEAST_CAPABILITY))
    return f"{device} has compute capability {has}, the kernels need {least}"


def explain(operator: str, forms: Sequence[Form]) -> str:
    """Which form of the operator runs, the first that is not refused, and why the others do not;
    one line per form.
    """
    lines, chosen = [], None
    for form in forms:
        if form.refused:
            lines.append(f"  not {form.name}: {form.refused}")
        elif chosen is None:
            chosen = form.name
        else:
            lines.append(f"  not {form.name}: {chosen} comes first")
    return "\n".join([f"{operator}: {chosen or 'no form can run'}", *lines])
