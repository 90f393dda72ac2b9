"""What PyTorch does with operators besides calling them: fake tensors, compiled programs, graphs of
a GPU, calls that must not wait, a second device.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from headwise.tests.gpu import values
from headwise.tests.kernels.cases import CASES, Case, Maker, Sizes, differentiated, straight
from headwise.tests.kernels.layouts import Recorded, permuted

SIZES = Sizes(3, 2, 33, 33, 16, 16)
SMALL = Sizes(2, 1, 3, 4, 4, 4)


def fake_forms(case: Case, device: torch.device, sizes: Sizes) -> str:
    """Permuted inputs: real results have the shapes, types and strides that compilers are told."""
    x = Maker(permuted, device=device)
    with Recorded() as recorded:
        differentiated(x, case(x, sizes))
    for call, arguments in recorded.calls:
        laid = [permuted(y.detach()) if isinstance(y, Tensor) else y for y in arguments]
        torch.library.opcheck(call, tuple(laid), test_utils=("test_schema", "test_faketensor"))
    return ""


def compiled(case: Case, device: torch.device, sizes: Sizes) -> str:
    """One graph without a break gives the results and gradients of the plain call."""
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    x, y = Maker(straight, device=device), Maker(straight, device=device)
    right = differentiated(x, case(x, sizes))
    call = case(y, sizes)
    torch._dynamo.reset()
    some = differentiated(y, torch.compile(call, fullgraph=True, backend=backend))
    lines = [
        *values.differences("result", some[0], right[0], 1e-4),
        *values.differences("gradient", some[1], right[1], 1e-3),
    ]
    return "; ".join(lines)


def never_waits(case: Case, device: torch.device, sizes: Sizes) -> str:
    """Forward and backward pass, while PyTorch raises where the host waits for the device."""
    x = Maker(straight, device=device)
    call = case(x, sizes)
    differentiated(x, call)  # compiles, and fills caches
    torch.cuda.set_sync_debug_mode("error")
    try:
        differentiated(x, call)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""


@torch.no_grad()
def captured(case: Case, device: torch.device, sizes: Sizes) -> str:
    """The forward pass as a CUDA graph; played again it gives the numbers of the plain call."""
    x = Maker(straight, device=device)
    call = case(x, sizes)
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        right = tree_map(lambda y: y.clone() if isinstance(y, Tensor) else y, call())
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        some = call()
    graph.replay()
    torch.cuda.synchronize(device)
    pair = [[y for y in tree_flatten(z)[0] if isinstance(y, Tensor)] for z in (some, right)]
    return "; ".join(values.differences("result", *pair, 1e-6))


def second_device(case: Case, device: torch.device, sizes: Sizes) -> str:
    """Values on cuda:1 while cuda:0 is the current device."""
    trial = values.Trial(case, sizes, torch.float32)
    return "; ".join(values.wrong(trial, torch.device("cuda:1")))


def checks(device: torch.device) -> dict[str, Callable[[Case, torch.device, Sizes], str]]:
    """The checks that this machine can make."""
    both = {"fake forms": fake_forms, "compiled": compiled}
    if device.type != "cuda":
        return both
    both |= {"never waits": never_waits, "CUDA graph": captured}
    return both | ({"cuda:1": second_device} if torch.cuda.device_count() > 1 else {})


def results(device: torch.device, tiny: bool, names: set[str]) -> list[dict[str, str]]:
    """A row for each operator and check: "right", or what is wrong."""
    rows = []
    for check, run in checks(device).items():
        for case in CASES:
            if case.__name__ not in names:
                continue
            try:
                fault = run(case, device, SMALL if tiny else SIZES)
            except Exception as error:
                fault = f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:200]}"
            rows.append({"check": check, "operator": case.__name__, "result": fault or "right"})
    return rows
