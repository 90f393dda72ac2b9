"""The forms that an operator has (Triton, fused, plain PyTorch), which of them runs here, and why
the others do not.
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

from torch import Tensor


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
    devices = {str(tensor.device) for tensor in tensors if not tensor.is_cuda}
    if devices:
        return f"the tensors are on {', '.join(sorted(devices))}, the kernel is for CUDA"
    return "" if triton_installed() else "Triton is not installed"


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
